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
from functools import cache, cached_property
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
MOST_CELLS = 60  # of a recording of real cells: those with most events

# --- recordings -----------------------------------------------------------------------------------


class Recording(Population):
    """A population with what several methods share."""

    @cached_property
    def correlograms(self):
        begin = time.process_time()
        c = field.Correlograms(self.spikes, self.seconds)
        c.pairs.sum()
        self.earlier = time.process_time() - begin
        return c

    def shared(self):
        """Correlograms, and the processor seconds that they took in an earlier call."""
        made = "correlograms" in vars(self)
        return self.correlograms, self.earlier * made

    @cached_property
    def controls(self, window=0.05, seed=0):
        """The recording, jittered within windows, and with an own shift of every cell."""
        rng, stop = np.random.default_rng(seed), self.seconds
        jittered = [
            np.sort(np.minimum((np.floor(t / window) + rng.random(t.size)) * window, stop - 1e-6))
            for t in self.spikes
        ]
        shifted = [np.sort((t + rng.uniform(0.1, 0.9) * stop) % stop) for t in self.spikes]
        return {
            "data": self,
            "jittered": Recording(jittered, None, stop),
            "shifted": Recording(shifted, None, stop),
        }


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
    return Recording(trains(events.select(chosen).part(0, stop)), adjacency, stop * field.BIN)


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


def of(population):
    return Recording(population.spikes, population.adjacency, population.seconds)


def read(name, folder, seed):
    """A recording, or None where its file is absent."""
    if name in KINDS:
        return of(KINDS[name](seed))
    file, seconds = (KNOWN | REAL)[name]
    if not (Path(folder) / f"{file}.npz").exists():
        print(f"{name}: no {file}.npz in {folder}, skipped")
        return None
    return load(folder, file, seconds)


# --- methods --------------------------------------------------------------------------------------


def fastglm_at(bin_size):
    """fastglm with its defaults; at 1 ms also the test of its filters against zero."""

    def answers(recording):
        units = dict(enumerate(recording.spikes))
        found = fastglm.infer_connectivity(units, bin_size, [[0, recording.seconds]])
        z = np.where(found.q_value < np.inf, np.nan_to_num(found.z), 0.0)
        rows = {f"fastglm, {1e3 * bin_size:g} ms": field.Answer(z, found.p_value)}
        if bin_size == field.BIN:
            wald, n = found.uncertainty.wald_test(), len(z)
            score = np.nan_to_num(np.sign(found.strength) * wald.statistic[:n])
            rows["GLM against zero, 1 ms"] = field.Answer(score, wald.p_value[:n])
        for answer in rows.values():
            answer.own = q_values(answer.p) <= LEVELS[0]
        return rows

    return answers


def tspe(recording):
    """Total spiking probability edges, as Elephant has it with its defaults."""
    import neo
    import quantities as pq
    from elephant.conversion import BinnedSpikeTrain
    from elephant.functional_connectivity import total_spiking_probability_edges

    stop = recording.seconds * pq.s
    middles = [(np.floor(t / field.BIN + 1e-6) + 0.5) * field.BIN for t in recording.spikes]
    neos = [neo.SpikeTrain(train * pq.s, t_stop=stop) for train in middles]
    binned = BinnedSpikeTrain(neos, bin_size=1 * pq.ms, t_start=0 * pq.s, t_stop=stop)
    score, _ = total_spiking_probability_edges(binned)  # rows are receivers
    return {"TSPE (Elephant)": field.Answer(np.nan_to_num(score.T))}


def from_field(title, method):
    """A method of `field`; methods share the correlograms of a population, not their time."""

    def answers(recording):
        c, earlier = recording.shared()
        answer = method(c)
        answer.earlier = earlier if method is not field.tiling else 0.0
        return {title: answer}

    return answers


@cache
def trained(seed=1001):
    """The ensemble, trained on populations of another seed."""
    kinds = [of(make(seed)) for make in (balanced, izhikevich, states)]
    return field.Ensemble([(kind.correlograms, kind.adjacency) for kind in kinds])


def ensemble(recording):
    """The time of its training is left out."""
    c, earlier = recording.shared()
    answer = trained()(c)
    answer.earlier = earlier
    return {"ensemble": answer}


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


def timed(answers, recording):
    """Answers of a method, and processor seconds of each."""
    begin = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = answers(recording)
    seconds = time.process_time() - begin
    return {title: (answer, seconds + answer.earlier) for title, answer in found.items()}


def rows_of(answers, recording):
    """Row of every answer: against the truth, or the numbers found in data and controls."""
    if recording.adjacency is not None:
        return {
            title: measure(answer, recording.adjacency) | {"seconds": seconds}
            for title, (answer, seconds) in timed(answers, recording).items()
        }
    rows = {}
    for name, version in recording.controls.items():
        for title, (answer, seconds) in timed(answers, version).items():
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
--recordings all --write` makes the numbers and this page.

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
that. The ensemble was trained on the kinds "balanced" and "states" and on Izhikevich cells on a
random graph; the published networks are others. spycon and its trained network cannot be installed
as a package. CoNNECT (Endo et al., 2021) is left out, because it needs trained weights. NeMoS is
not timed here: at 1 ms its stored features of these recordings take gigabytes, and its optimum is
that of the row "GLM against zero" (see [validation](validation.md)).

## Measures

The area under the ROC curve (ROC) takes the sign of a score: inhibition must score low. It is the
mean over excitatory and inhibitory links, weighted by their numbers. Transfer entropy has the sign
of the covariance. Average precision (AP) and Matthews correlation (MCC) take the modulus. "own" is
the threshold that a method comes with: 0.001 after correction for the smoothed correlogram, 0.001 a
pair for GLMCC, one half for the ensemble, and q = 0.05 for the others that have p-values. "best" is
the threshold that suits the truth best. "false / found" is the part of false ones among those
found, and the part of the true ones that is found, at a q-value of Benjamini and Hochberg. A dash
stands for methods without p-values or thresholds. Time is that of the processor, one thread, on
{processor}.

## Published networks

"TSPE" has 100 of 1,000 Izhikevich cells recorded (De Blasi et al., 2019,
[biomemsLAB/TSPE](https://github.com/biomemsLAB/TSPE)). "spycon" is a simulated network of 20 cells
(Donner et al., 2024, [christiando/spycon](https://github.com/christiando/spycon)).

{known}

With 20 cells the bulk of filters has {few} pairs, and fastglm's null is poorly known.

## Simulated populations with connections

They are those of [validation](validation.md#populations-most-of-whose-inputs-are-not-recorded).
"connected" is the coupled GLM of "states" under another hidden input. The first four columns are
means over populations; the others have "false / found" at q = 0.05, or at the own threshold of a
method without p-values (in brackets).

{coupled}

## Where other methods are better

These rank or decide better than fastglm at 1 ms:

{better}

The methods of correlograms need seconds. fastglm needs more time, because it explains every cell by
all others. GLMCC looks for a jump that decays with 4 ms, which is nearly the shape of the couplings
of the simulated GLMs.

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
        better="\n".join(
            line
            for name in (*KNOWN, *coupled)
            if name in rows
            for line in better(name, means(rows, [name]))
        ),
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


def own_of(row):
    """The decision at the own threshold, or at q = 0.05, or None."""
    return row.get("own") or row.get("at", {}).get(str(LEVELS[0]))


def summary(row):
    """What rankings and decisions are worth; larger is better."""
    decision = own_of(row)
    return {
        "area under ROC": row["auc"],
        "average precision": row["precision"],
        "Matthews correlation at the own threshold": decision["mcc"] if decision else np.nan,
        "Matthews correlation at the best threshold": row["mcc_best"],
    }


def means(rows, names):
    """Summaries of methods, averaged over recordings; NaN where one is missing."""
    averages = {}
    for title in titles(*(rows[name] for name in names)):
        some = [summary(rows[name][title]) for name in names if title in rows[name]]
        whole = 1.0 if len(some) == len(names) else np.nan
        averages[title] = {key: whole * np.mean([s[key] for s in some]) for key in some[0]}
    return averages


def in_short(values):
    digits = 3, 3, 2, 2
    pairs = zip(values.values(), digits, strict=True)
    return ["-" if np.isnan(value) else f"{value:.{n}f}" for value, n in pairs]


def table_of_known(rows):
    inhibitory = any("inhibitory" in row for row in rows.values())
    kinds = ("excitatory", "inhibitory") if inhibitory else ()
    head = ["method", "ROC", "AP", "MCC, own", "MCC, best", *kinds,
            *(f"false / found, q = {q}" for q in LEVELS), "seconds"]  # fmt: skip
    lines = []
    for title in titles(rows):
        row = rows[title]
        parts = [f"{row[kind]['auc']:.3f}" for kind in kinds]
        decisions = [false_found(row.get("at", {}).get(str(q))) for q in LEVELS]
        lines.append([title, *in_short(summary(row)), *parts, *decisions, f"{row['seconds']:.0f}"])
    return table(head, lines)


def false_found(decision):
    return f"{decision['false']:.2f} / {decision['recall']:.2f}" if decision else "-"


def table_of_coupled(rows, names):
    head = ["method", "ROC", "AP", "MCC, own", "MCC, best", *names]
    lines = [
        [title, *in_short(values), *(decision_of(rows[name].get(title)) for name in names)]
        for title, values in means(rows, names).items()
    ]
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


def better(where, averages):
    """Sentences on the methods that rank or decide better than fastglm at 1 ms."""
    ours = averages.get("fastglm, 1 ms", {})
    for key in ("average precision", "Matthews correlation at the own threshold"):
        above = {
            title: values[key]
            for title, values in averages.items()
            if ours and values[key] > ours[key] + 5e-4 and not title.startswith("fastglm")
        }
        order = sorted(above, key=above.get, reverse=True)
        listed = ", ".join(f"{title} ({above[title]:.3f})" for title in order)
        if listed:
            yield f"- {where}, {key}: {listed}; fastglm {ours[key]:.3f}."


# --- the command ----------------------------------------------------------------------------------


def small(seconds=60.0, n=16):
    """Cells that are quickly simulated: cell 0 drives cell 1 after 4 ms."""
    rng = np.random.default_rng(0)
    spikes = [np.sort(rng.uniform(0, seconds, int(20 * seconds))) for _ in range(n)]
    followed = spikes[0][rng.random(spikes[0].size) < 0.3] + 0.004
    spikes[1] = np.sort(np.concatenate([spikes[1], followed[followed < seconds]]))
    adjacency = np.zeros((n, n))
    adjacency[0, 1] = 1.0
    return Recording(spikes, adjacency, seconds)


def update(path, name, rows):
    """Put rows of a recording into the file of all."""
    results = json.loads(path.read_text()) if path.exists() else {"rows": {}}
    results["machine"] = machine()
    rows = json.loads(json.dumps(rows), parse_float=lambda text: round(float(text), 5))
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
        found = read(name, args.data, args.seed)
        if found is None:
            continue
        for method in methods:
            for answers in METHODS[method]:
                rows = rows_of(answers, found)
                for title, row in rows.items():
                    print(name, "|", title, json.dumps(row), flush=True)
                results = update(path, name, rows)
                if args.write:
                    PAGE.write_text(page(results))


if __name__ == "__main__":
    main()
