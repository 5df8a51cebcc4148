"""fastglm beside the methods of the field: connections found, missed and invented, and the time.

    python benchmarks/yardstick.py [--methods fastglm smoothed ...] [--recordings states ...]
        [--bins 1 2 5] [--data FOLDER] [--seed 1] [--write]

Methods are fastglm, those of `field` (written anew from their papers), and TSPE of Elephant, which
is skipped where Elephant is not installed (`pip install elephant`). Recordings are the populations
of `populations.KINDS`, two published networks whose connections are known, and two recordings of
real cells, which are left out where their files are not in the folder ``--data``. The default takes
one small population.

With ``--write`` the rows that were measured replace those of ``yardstick.json``, and
``docs/yardstick.md`` is made anew. fastglm's rows alone:

    python benchmarks/yardstick.py --recordings all --methods fastglm --write

``--page`` makes the page from the numbers that there are.

Methods run one after the other. Their time is that of the processor (user and system), after a run
on a small recording that leaves compilation out.
"""

import argparse
import importlib.util
import json
import time
import warnings
from functools import cache
from pathlib import Path

import field
import numpy as np
from cases import DATA, auc
from populations import KINDS, Population, balanced, izhikevich, states
from run import machine, table
from sklearn.metrics import average_precision_score

import fastglm
from fastglm import inference

HERE = Path(__file__).resolve().parent
NUMBERS, PAGE = HERE / "yardstick.json", HERE.parent / "docs" / "yardstick.md"
LEVELS = 0.05, 0.1
BINS = 1, 2, 5  # ms, of fastglm
MOST_CELLS = 100  # of a recording of real cells: those with most events

# --- recordings -----------------------------------------------------------------------------------


def load(folder, file, seconds=None):
    """The first seconds of a file; most active cells of one without known connections."""
    path = Path(folder) / f"{file}.npz"
    with np.load(path) as data:
        adjacency = data.get("adjacency")
    spikes = fastglm.load_spikes(path)
    events, epochs = spikes.events(field.BIN)
    stop = events.shape[0] if seconds is None else round(seconds / field.BIN)
    chosen = np.arange(events.n_units)
    if adjacency is None:
        number = np.bincount(events.units, events.amplitudes, events.n_units)
        chosen = np.sort(np.argsort(-number, kind="stable")[:MOST_CELLS])
    assert len(epochs) == 1
    return Population(trains(events.select(chosen).part(0, stop)), adjacency, stop * field.BIN)


def trains(events):
    """Spike times of events: the middles of their bins."""
    times = (np.repeat(events.bins, events.amplitudes.astype(int)) + 0.5) * field.BIN
    units = np.repeat(events.units, events.amplitudes.astype(int))
    return [np.sort(times[units == unit]) for unit in range(events.n_units)]


KNOWN = {
    "TSPE, 900 s": ("tspe100_gt", 900),
    "TSPE, 3600 s": ("tspe100_gt", 3600),
    "spycon, 3600 s": ("spycon20_gt", 3600),
}
REAL = {"place cells": ("placecells49_ca1", None), "retina": ("retina434_stafford", None)}
RECORDINGS = [*KNOWN, *KINDS, *REAL]


def recording(name, folder, seed):
    """A population, or None where its file is absent."""
    if name in KINDS:
        return KINDS[name](seed)
    file, seconds = (KNOWN | REAL)[name]
    if not (Path(folder) / f"{file}.npz").exists():
        print(f"{name}: no {file}.npz in {folder}, skipped")
        return None
    return load(folder, file, seconds)


def controls(population, window=0.05, seed=0):
    """The recording, jittered within windows, and with an own shift of every cell."""
    yield "data", population
    rng, seconds = np.random.default_rng(seed), population.seconds
    moved = [
        np.sort(np.minimum((np.floor(t / window) + rng.random(t.size)) * window, seconds - 1e-6))
        for t in population.spikes
    ]
    yield "jittered", Population(moved, None, seconds)
    moved = [np.sort((t + rng.uniform(0.1, 0.9) * seconds) % seconds) for t in population.spikes]
    yield "shifted", Population(moved, None, seconds)


# --- methods --------------------------------------------------------------------------------------


def fastglm_at(bin_size):
    """fastglm with its defaults; at 1 ms also the test of its filters against zero."""

    def answers(population):
        units = dict(enumerate(population.spikes))
        found = fastglm.infer_connectivity(units, bin_size, [[0, population.seconds]])
        z = np.where(found.q_value < np.inf, np.nan_to_num(found.z), 0.0)
        rows = {f"fastglm, {1e3 * bin_size:g} ms": field.Answer(z, found.p_value)}
        if bin_size == field.BIN:
            p = found.uncertainty.wald_test().p_value[: len(z)]
            rows["GLM against zero, 1 ms"] = field.Answer(np.nan_to_num(found.strength), p)
        for answer in rows.values():
            answer.own = q_values(answer.p) <= LEVELS[0]
        return rows

    return answers


def tspe(population):
    """Total spiking probability edges, as Elephant has it with its defaults."""
    import neo
    import quantities as pq
    from elephant.conversion import BinnedSpikeTrain
    from elephant.functional_connectivity import total_spiking_probability_edges

    stop = population.seconds * pq.s
    neos = [neo.SpikeTrain(train * pq.s, t_stop=stop) for train in population.spikes]
    binned = BinnedSpikeTrain(neos, bin_size=1 * pq.ms, t_start=0 * pq.s, t_stop=stop)
    score, _ = total_spiking_probability_edges(binned)
    return {"TSPE (Elephant)": field.Answer(np.nan_to_num(score))}


def from_field(title, method):
    """A method of `field`, correlograms included."""

    def answers(population):
        return {title: method(field.Correlograms(population.spikes, population.seconds))}

    return answers


@cache
def trained(seed=1001):
    """The ensemble, trained on populations of another seed."""
    kinds = balanced(seed), izhikevich(seed), states(seed)
    return field.Ensemble([(field.Correlograms(p.spikes, p.seconds), p.adjacency) for p in kinds])


def ensemble(population):
    """Without the time of the training."""
    c = field.Correlograms(population.spikes, population.seconds)
    return {"ensemble": trained()(c)}


METHODS = {
    "fastglm": [fastglm_at(ms / 1000) for ms in BINS],
    **{m.__name__: [from_field(title, m)] for title, m in field.METHODS.items()},
    "tspe": [tspe],
    "ensemble": [ensemble],
}  # fmt: skip


def installed(name):
    if name == "tspe" and importlib.util.find_spec("elephant") is None:
        print("tspe: Elephant is not installed, skipped")
        return False
    return True


# --- measures -------------------------------------------------------------------------------------


def q_values(p):
    """Benjamini-Hochberg over pairs of different cells."""
    return inference.benjamini_hochberg(np.where(np.eye(len(p), dtype=bool), np.nan, p))


def measure(answer, adjacency):
    """Rankings and decisions against the true connections.

    Sign counts for the area under ROC: inhibition must score low. Everything else takes the modulus
    and counts a connection as found whatever its sign.
    """
    off = ~np.eye(len(adjacency), dtype=bool)
    links, none = off & (adjacency != 0), off & (adjacency == 0)
    row = {"links": int(links.sum()), "pairs": int(off.sum())}
    if answer.p is not None:
        q = q_values(answer.p)
        with np.errstate(invalid="ignore"):
            row["at"] = {str(level): decided(q <= level, links, none) for level in LEVELS}
    if answer.own is not None:
        row["own"] = decided(answer.own & off, links, none)
    if not links.any():
        return row
    for sign, kind in ((1, "excitatory"), (-1, "inhibitory")):
        part = off & (sign * adjacency > 0)
        if part.any():
            row[kind] = {"links": int(part.sum()), "auc": auc(sign * answer.score, part, none)}
    kinds = [row[kind] for kind in ("excitatory", "inhibitory") if kind in row]
    row["auc"] = sum(k["auc"] * k["links"] for k in kinds) / row["links"]
    size, true = np.abs(answer.score[off]), links[off]
    row["precision"] = float(average_precision_score(true, size))
    row["mcc_best"] = best_matthews(size, true)
    return row


def decided(found, links, none):
    """Number, false part, recall and Matthews correlation of a decision."""
    false, hits = int((found & none).sum()), int((found & links).sum())
    n = false + hits
    row = {"found": n, "false": false / max(n, 1)}
    if links.any():
        row |= {"recall": hits / int(links.sum()),
                "mcc": float(matthews(hits, false, links.sum(), none.sum()))}  # fmt: skip
    return row


def matthews(hits, false, n_links, n_none):
    """Matthews correlation of decisions with that many hits and false ones."""
    hits, false = np.asarray(hits, float), np.asarray(false, float)
    found = hits + false
    top = hits * (n_none - false) - false * (n_links - hits)
    spread = found * (n_links + n_none - found) * n_links * n_none
    return top / np.sqrt(np.maximum(spread, 1e-300)) * (spread > 0)


def best_matthews(size, true):
    """The largest Matthews correlation over thresholds."""
    order = np.argsort(-size, kind="stable")
    last = np.append(np.diff(size[order]) != 0, True)
    hits = np.cumsum(true[order])[last]
    false = np.cumsum(~true[order])[last]
    return float(matthews(hits, false, true.sum(), (~true).sum()).max())


def timed(answers, population):
    begin = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = answers(population)
    return rows, time.process_time() - begin


def rows_of(answers, population):
    """Row of every answer: against the truth, or the numbers found in data and controls."""
    if population.adjacency is not None:
        found, seconds = timed(answers, population)
        return {
            title: measure(answer, population.adjacency) | {"seconds": seconds}
            for title, answer in found.items()
        }
    rows = {}
    for name, version in controls(population):
        found, seconds = timed(answers, version)
        for title, answer in found.items():
            row = rows.setdefault(title, {"seconds": seconds, "found": {}, "own": {}})
            if answer.p is not None:
                row["found"][name] = int((q_values(answer.p) <= LEVELS[0]).sum())
            if answer.own is not None:
                own = answer.own & ~np.eye(len(answer.own), dtype=bool)
                row["own"][name] = int(own.sum())
    return rows


# --- the page -------------------------------------------------------------------------------------

ORDER = [
    *(f"fastglm, {ms} ms" for ms in (1, 2, 5)),
    "GLM against zero, 1 ms",
    *field.METHODS,
    "TSPE (Elephant)",
    "ensemble",
]
TEXT = """\
# The yardstick of the field

This page compares `fastglm.infer_connectivity` with published methods, on networks whose
connections are known and on recordings without a truth. `python benchmarks/yardstick.py
--recordings all --methods all --write` makes the numbers and this page.

## Methods

| method | what it tests |
| --- | --- |
| fastglm, 1, 2 and 5 ms | `infer_connectivity` with its defaults: filters of a GLM of all cells, \
against what the bulk of all filters shows, in the shape of a synapse |
| GLM against zero | the same GLM with a Wald test of each filter; NeMoS fits the same model |
| correlogram, after minus before | events of j 2 to 15 ms after those of i against the reverse |
| correlogram, largest bin | each bin against independent cells (Perkel et al., 1967) |
| coincidence index | the part of the correlogram of 50 ms to either side that lies at 1 to 20 ms \
(Chiappalone et al., 2007) |
| directed tiling coefficient | events of either train within 7 ms of those of the other, \
corrected for rates (Cutts and Eglen, 2014) |
| smoothed correlogram | each bin against a hollow Gaussian average of the correlogram \
(Stark and Abeles, 2009; English et al., 2017), "sCCG" of spycon |
| transfer entropy | information on j in one bin of i, given the last bin of j \
(Schreiber, 2000; Ito et al., 2011) |
| GLMCC | a synapse on top of a slow curve, in the correlogram of a pair (Kobayashi et al., 2019) |
| TSPE (Elephant) | edges in the correlogram, by filters of several widths \
(De Blasi et al., 2019), as Elephant 1.2 has it |
| ensemble | a small network over the scores of the seven correlogram methods, as in spycon \
(Donner et al., 2024); trained on three populations of another seed |

All but fastglm and TSPE are in `benchmarks/field.py`, written anew from their papers. They search
delays of 1 to 20 ms, because these networks have such delays, and their p-values are corrected for
that. spycon and its trained network are no package of the registry. CoNNECT (Endo et al., 2021) is
left out, because it needs trained weights. NeMoS is not timed here: at 1 ms its stored features of
these recordings take gigabytes, and its optimum is that of the row "GLM against zero" (see
[validation](validation.md)).

## Measures

The area under the ROC curve (ROC) takes the sign of a score: inhibition must score low. It is the
mean over excitatory and inhibitory links, weighted by their numbers. Transfer entropy has the sign
of the covariance. Average precision (AP) and Matthews correlation (MCC) take the modulus. "own" is
the threshold that a method comes with: q = 0.05 for fastglm and the GLM, 0.001 after correction for
the smoothed correlogram, 0.001 a pair for GLMCC, one half for the ensemble. "best" is the threshold
that suits the truth best. "false / found" is the part of false ones among those found, and the part
of the true ones that is found, at a q-value of Benjamini and Hochberg. A dash stands for methods
without p-values or thresholds. Time is that of the processor, one thread, on {processor}.

## Published networks

"TSPE" has 100 of 1,000 Izhikevich cells recorded (De Blasi et al., 2019,
[biomemsLAB/TSPE](https://github.com/biomemsLAB/TSPE)), "spycon" 20 integrate-and-fire cells (Donner
et al., 2024, [christiando/spycon](https://github.com/christiando/spycon)).

{known}

{better}

With 20 cells the bulk of filters has {few} pairs, and the null is poorly known.

## Simulated populations with connections

They are those of [validation](validation.md#populations-most-of-whose-inputs-are-not-recorded).
"connected" is the coupled GLM of "states" under another hidden input. The first four columns are
means over populations; the others have "false / found" at q = 0.05, or at the own threshold of a
method without p-values (in brackets).

{coupled}

## Populations without a connection

Discoveries at q = 0.05 for 100 pairs; in brackets at the own threshold of a method without
p-values. All of them are false.

{uncoupled}

## Real cells

Discoveries at q = 0.05 in the data, after every event is moved at random within its window of 50
ms, and after every cell is shifted in time by an amount of its own. No synapse is left in the last
two. Place cells of rat CA1 are those of
[iahncajigas/nSTAT](https://github.com/iahncajigas/nSTAT) (49 cells, 24 minutes), the retina is that
of a mouse with spontaneous waves (Stafford et al., 2009,
[sje30/waverepo](https://github.com/sje30/waverepo); the {most} cells with most events, 90 minutes).

{real}

Made by `benchmarks/yardstick.py` with {versions}.
"""


def page(results):
    """The page of all rows that there are."""
    rows, made = results["rows"], results["machine"]
    simulated = [name for name in KINDS if name in rows]
    coupled = [name for name in simulated if linked(rows[name])]
    versions = "fastglm", "numpy", "scipy", "numba"
    return TEXT.format(
        known="\n\n".join(f"**{name}**\n\n{table_of_known(rows[name])}"
                          for name in KNOWN if name in rows),
        better="\n".join(f"- {line}" for name in KNOWN if name in rows
                         for line in better(name, rows[name])),
        few=20 * 19,
        most=MOST_CELLS,
        coupled=table_of_coupled(rows, coupled),
        uncoupled=table_of_uncoupled(rows, [name for name in simulated if name not in coupled]),
        real=table_of_real(rows),
        processor=made["processor"],
        versions=", ".join(f"{name} {made[name]}" for name in versions),
    )  # fmt: skip


def linked(rows):
    return any(row["links"] for row in rows.values())


def titles(*tables):
    """Rows that one of the tables has, in order."""
    return [title for title in ORDER if any(title in rows for rows in tables)]


def table_of_known(rows):
    inhibitory = any("inhibitory" in row for row in rows.values())
    head = ["method", "ROC", *(["excitatory", "inhibitory"] if inhibitory else []), "AP",
            "MCC, own", "MCC, best", *(f"false / found, q = {q}" for q in LEVELS),
            "seconds"]  # fmt: skip
    lines = []
    for title in titles(rows):
        row = rows[title]
        kinds = [f"{row[k]['auc']:.3f}" for k in ("excitatory", "inhibitory") if inhibitory]
        own = f"{row['own']['mcc']:.2f}" if "own" in row else "-"
        decisions = [false_found(row.get("at", {}).get(str(q))) for q in LEVELS]
        lines.append([title, f"{row['auc']:.3f}", *kinds, f"{row['precision']:.3f}", own,
                      f"{row['mcc_best']:.2f}", *decisions, f"{row['seconds']:.0f}"])  # fmt: skip
    return table(head, lines)


def false_found(decision):
    return f"{decision['false']:.2f} / {decision['recall']:.2f}" if decision else "-"


def table_of_coupled(rows, names):
    head = ["method", "ROC", "AP", "MCC, own", "MCC, best", *names]
    lines = []
    for title in titles(*(rows[name] for name in names)):
        own = [rows[name].get(title) for name in names]
        some = [row for row in own if row]
        means = [f"{np.mean([row[key] for row in some]):.3f}" for key in ("auc", "precision")]
        with_own = [row["own"]["mcc"] for row in some if "own" in row]
        means.append(f"{np.mean(with_own):.2f}" if with_own else "-")
        means.append(f"{np.mean([row['mcc_best'] for row in some]):.2f}")
        lines.append([title, *means, *map(decision_of, own)])
    return table(head, lines)


def decision_of(row):
    """False part and recall at q = 0.05, else at the own threshold, else a dash."""
    if row and "at" in row:
        return false_found(row["at"][str(LEVELS[0])])
    return f"({false_found(row['own'])})" if row and "own" in row else "-"


def table_of_uncoupled(rows, names):
    lines = []
    for title in titles(*(rows[name] for name in names)):
        cells = []
        for name in names:
            row = rows[name].get(title, {})
            decision = row.get("at", {}).get(str(LEVELS[0])) or row.get("own")
            part = f"{100 * decision['found'] / row['pairs']:.2f}" if decision else "-"
            cells.append(part if "at" in row or not decision else f"({part})")
        if any(cell != "-" for cell in cells):
            lines.append([title, *cells])
    return table(["method", *(name.removesuffix(", no connection") for name in names)], lines)


def table_of_real(rows):
    names = [name for name in REAL if name in rows]
    lines = []
    for title in titles(*(rows[name] for name in names)):
        cells = []
        for name in names:
            row = rows[name].get(title, {})
            found = row.get("found") or row.get("own") or {}
            cells.append(", ".join(map(str, found.values())) or "-")
        if any(cell != "-" for cell in cells):
            lines.append([title if rows[names[0]].get(title, {}).get("found") else f"{title} (own)",
                          *cells])  # fmt: skip
    return table(["method", *(f"{name}: data, jittered, shifted" for name in names)], lines)


def better(name, rows):
    """Sentences on the methods that do better than fastglm at 1 ms."""
    ours = rows.get("fastglm, 1 ms")
    if ours is None:
        return
    for key, what in (("auc", "area under ROC"), ("precision", "average precision"),
                      ("mcc_best", "best Matthews correlation")):  # fmt: skip
        others = {title: row[key] for title, row in rows.items() if title[:7] != "fastglm"}
        above = {title: value for title, value in others.items() if value > ours[key] + 5e-4}
        if above:
            order = sorted(above, key=above.get, reverse=True)
            listed = ", ".join(f"{title} ({above[title]:.3f})" for title in order)
            yield f"{name}: a higher {what} than fastglm's {ours[key]:.3f} have {listed}."


# --- the command ----------------------------------------------------------------------------------


def small(seconds=60.0, n=16):
    """Cells that are quickly simulated: cell 0 drives cell 1 after 4 ms."""
    rng = np.random.default_rng(0)
    spikes = [np.sort(rng.uniform(0, seconds, int(20 * seconds))) for _ in range(n)]
    followed = spikes[0][rng.random(spikes[0].size) < 0.3] + 0.004
    spikes[1] = np.sort(np.concatenate([spikes[1], followed[followed < seconds]]))
    adjacency = np.zeros((n, n))
    adjacency[0, 1] = 1.0
    return Population(spikes, adjacency, seconds)


def update(path, name, rows):
    """Put rows of a recording into the file of all."""
    results = json.loads(path.read_text()) if path.exists() else {"rows": {}}
    results["machine"] = machine()
    results["rows"].setdefault(name, {}).update(rows)
    path.write_text(json.dumps(results, indent=1) + "\n")
    return results


def read_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", default=["all"], choices=["all", *METHODS])
    parser.add_argument("--recordings", nargs="+", default=["states"],
                        choices=["all", *RECORDINGS])  # fmt: skip
    parser.add_argument("--bins", nargs="+", type=int, default=BINS, choices=BINS,
                        help="of fastglm, ms")  # fmt: skip
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the recordings")
    parser.add_argument("--seed", type=int, default=1, help="of simulated populations")
    parser.add_argument("--out", type=Path, default=Path("yardstick.json"), help="without --write")
    parser.add_argument("--write", action="store_true", help="update the files in git")
    parser.add_argument("--page", action="store_true", help="measure nothing")
    return parser.parse_args()


def main():
    args = read_arguments()
    if args.page:
        PAGE.write_text(page(json.loads(NUMBERS.read_text())))
        return
    METHODS["fastglm"] = [fastglm_at(ms / 1000) for ms in args.bins]
    names = RECORDINGS if "all" in args.recordings else args.recordings
    methods = list(METHODS) if "all" in args.methods else args.methods
    methods = [name for name in methods if installed(name)]
    path = NUMBERS if args.write else args.out
    for name in methods:  # compiled, and trained
        for answers in METHODS[name]:
            timed(answers, small())
    for name in names:
        population = recording(name, args.data, args.seed)
        if population is None:
            continue
        for method in methods:
            for answers in METHODS[method]:
                rows = rows_of(answers, population)
                for title, row in rows.items():
                    print(name, "|", title, json.dumps(row), flush=True)
                results = update(path, name, rows)
                if args.write:
                    PAGE.write_text(page(results))


if __name__ == "__main__":
    main()
