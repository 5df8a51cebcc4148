"""Whether drift, activity without the receiver or latent factors make couplings more certain.

    python benchmarks/nuisance.py [--seconds 300] [--kinds "states" ...] [--write]

Every population is fitted by `fastglm.infer_connectivity`, and again with further features beside
those of the recipe. The table says what is found at q = 0.05, how much of it is false, and which
part of the links is found. With ``--write`` it goes to ``nuisance.json`` and into the page
``docs/covariates.md``.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from populations import KINDS, Population
from run import machine, table

import fastglm
from fastglm.connectivity import population_activity, residual_factors, slow_drift
from fastglm.features import FeatureMatrix, hstack

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "covariates.md"
KINDS_SHOWN = "states", "drift, connected"
BIN = 0.001
BEGIN, END = "<!-- nuisance -->\n", "<!-- end -->\n"


def nothing(found):
    """The recipe as it is."""
    return None, None


def drift(found):
    """Splines with a knot every 30 s."""
    n = len(found.receivers)
    X = slow_drift(found.model.X_.shape[0], BIN, 30.0)
    return X, np.ones((X.shape[1], n), bool)


def activity(found):
    """The own terms that make the pooled activity of the recipe one without the receiver."""
    X, mask = population_activity(found.model.counts_, BIN)
    ranges = zip(X.blocks, X.column_ranges, strict=True)
    own = [(c, mask[start:stop]) for c, (start, stop) in ranges if c.label.startswith("own")]
    blocks, masks = zip(*own, strict=True)
    return FeatureMatrix(blocks), np.concatenate(masks)


def factors(found):
    """Three factors of the residuals."""
    model = found.model
    return residual_factors(model, model.X_, model.counts_, BIN, n_factors=3)


VARIANTS = {
    "the recipe": nothing,
    "drift": drift,
    "activity without the receiver": activity,
    "latent factors": factors,
}


def again(found, X, mask):
    """The map of the recipe's fit with further features, each expected to change eta by 1."""
    model = found.model
    known = np.flatnonzero(model.X_.valid)
    sample = X.rows(known[:: max(known.size // 50_000, 1)])
    strength = np.repeat(sample.var(axis=0)[:, None] / known.size, len(found.receivers), axis=1)
    strength = np.where(strength > 0, strength, 1 / known.size)
    before = np.ones((model.X_.shape[1], mask.shape[1]), bool)
    fit = fastglm.PopulationGLM(
        regularizer="Ridge",
        regularizer_strength=np.vstack([model.regularizer_strength, strength]),
        feature_mask=np.vstack([before, mask]),
        solver_kwargs={"tol": 1e-10},
    )
    both = hstack([model.X_, X])
    fit.fit(both, model.counts_)
    return fit.coupling_map(both, model.counts_, null="empirical", bin_size=BIN)


def score(found, adjacency):
    """Discoveries at q = 0.05, their false part, and the part of the links that is found."""
    off = ~np.eye(len(adjacency), dtype=bool)
    hit, links = found.significant() & off, (adjacency != 0) & off
    return {
        "found": int(hit.sum()),
        "false": float((hit & ~links).sum() / max(hit.sum(), 1)),
        "recall": float((hit & links).sum() / max(links.sum(), 1)),
        "confounding": float(found.null.confounding),
    }


def shortened(population, seconds):
    """The first seconds of a population."""
    spikes = [train[train < seconds] for train in population.spikes]
    return Population(spikes, population.adjacency, seconds)


def measure(kind, seconds, seed=1):
    """Scores of all variants for one kind of population."""
    population = shortened(KINDS[kind](seed), seconds)
    trains = dict(enumerate(population.spikes))
    rows = {}
    for name, make in VARIANTS.items():
        if make is nothing:
            found = base = fastglm.infer_connectivity(trains, epochs=[[0, seconds]])
        else:
            found = again(base, *make(base))
        rows[name] = score(found, population.adjacency)
        print(kind, name, rows[name], flush=True)
    return rows


def as_table(result):
    """The table of the page."""
    rows = [
        [kind, name, row["found"], f"{row['false']:.2f}", f"{row['recall']:.2f}",
         f"{row['confounding']:.2f}"]
        for kind, variants in result.items()
        for name, row in variants.items()
    ]  # fmt: skip
    return table(["population", "features", "found", "false", "recall", "confounding"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--kinds", nargs="+", default=KINDS_SHOWN, choices=list(KINDS))
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    result = {kind: measure(kind, args.seconds) for kind in args.kinds}
    print(as_table(result))
    if args.write:
        record = {"seconds": args.seconds, "machine": machine(), "kinds": result}
        (HERE / "nuisance.json").write_text(json.dumps(record, indent=1) + "\n")
        page = PAGE.read_text()
        head, rest = page.split(BEGIN)
        _, tail = rest.split(END)
        PAGE.write_text(f"{head}{BEGIN}{as_table(result)}\n{END}{tail}")


if __name__ == "__main__":
    main()
