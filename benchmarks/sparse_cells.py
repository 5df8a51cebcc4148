"""P-values of pairs without a coupling, among cells of 20 to 20,000 events.

    python benchmarks/sparse_cells.py [--seeds 2] [--cells 20] [--seconds 1440] [--write]

Independent Poisson cells at 1 ms are fitted all to all with the defaults of
`fastglm.fit_coupling`. The Wald tests of every kind of standard error are counted by the events of
the sparser cell of a pair. With ``--write`` the numbers go to ``sparse_cells.json`` and the figure
to ``docs/images``; ``validate.py`` puts them on the page.
"""

import argparse
import json
from pathlib import Path

import matplotlib
import numpy as np

import fastglm
from fastglm import _effective, inference

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).resolve().parent
NUMBERS, FIGURE = HERE / "sparse_cells.json", "validation-sparse.png"
BARE = "sandwich alone"  # "robust" without the model's part
# Events of the sparser cell: edges of the groups of pairs.
EDGES = 20, 60, 200, 600, 2000, 20_001
# Safe for colour-blind readers (Okabe & Ito, 2008).
STYLES = {
    "observed": ("#0072B2", "o"),
    "expected": ("#56B4E9", "s"),
    "robust": ("#D55E00", "^"),
    "blocks": ("#009E73", "v"),
    BARE: ("0.55", "x"),
}


def simulate(n_cells, seconds, seed):
    """Spike times of independent cells, whose expected events go from 20 to 20,000."""
    rng = np.random.default_rng(seed)
    expected = np.exp(rng.permutation(np.linspace(np.log(20), np.log(20_000), n_cells)))
    return [np.sort(rng.uniform(0, seconds, max(rng.poisson(n), 20))) for n in expected]


def p_values(units, seconds):
    """P-values of all pairs for every kind, and the events of the sparser cell."""
    model = fastglm.fit_coupling(units, 0.001, t_start=0, t_stop=seconds)
    n = len(units)
    other = ~np.eye(n, dtype=bool)
    events = np.array([t.size for t in units])
    found = {}
    for kind in (*inference.KINDS, BARE):
        enough, _effective.ENOUGH = _effective.ENOUGH, _effective.ENOUGH * (kind != BARE)
        given = "robust" if kind == BARE else kind
        test = inference.uncertainty(model, model.X_, model.counts_, given).wald_test()
        _effective.ENOUGH = enough
        found[kind] = test.p_value[:n][other]
        print(f"{kind}: {np.mean(found[kind] < 0.05):.3f}", flush=True)
    return found, np.minimum.outer(events, events)[other]


def measure(n_seeds, n_cells, seconds):
    """Shares of p < 0.05 in groups of pairs."""
    runs = [p_values(simulate(n_cells, seconds, seed), seconds) for seed in range(n_seeds)]
    events = np.concatenate([e for _, e in runs])
    result = {"networks": n_seeds, "n_cells": n_cells, "seconds": seconds, "edges": list(EDGES)}
    group = np.searchsorted(EDGES, events, side="right") - 1
    result["pairs"] = np.bincount(group, minlength=len(EDGES) - 1).tolist()
    result["kinds"] = {}
    for kind in STYLES:
        p = np.concatenate([found[kind] for found, _ in runs])
        low = p < 0.05
        groups = [float(low[group == g].mean()) for g in range(len(EDGES) - 1)]
        result["kinds"][kind] = {
            "groups": groups,
            "all": float(low.mean()),
            "from_600": float(low[events >= 600].mean()),
            "not_given": int(np.isnan(p).sum()),
        }
    return result


def draw(result, path):
    """Share of low p-values against the events of the sparser cell."""
    edges = np.array(result["edges"], float)
    center = np.sqrt(edges[:-1] * edges[1:])
    figure, ax = plt.subplots(figsize=(5.6, 3.6), constrained_layout=True)
    ax.axhspan(0, 7, color="0.92", lw=0)
    ax.axhline(5, color="0.5", lw=1)
    for k, (kind, (colour, mark)) in enumerate(STYLES.items()):
        share = 100 * np.array(result["kinds"][kind]["groups"])
        line = "--" if kind == BARE else "-"
        beside = center * 1.06 ** (k - 2)  # marks of one height side by side
        ax.plot(beside, share, line, marker=mark, ms=5, lw=1.2, color=colour, label=kind)
    ax.set(xscale="log", xlabel="events of the sparser cell", ylabel="pairs with p < 0.05 (%)")
    ax.set_yscale("symlog", linthresh=10)
    ax.set_yticks([0, 5, 10, 20, 50, 100], ["0", "5", "10", "20", "50", "100"])
    ax.set_ylim(-0.5, 110)
    ax.minorticks_off()
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--cells", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1440.0)
    parser.add_argument("--write", action="store_true", help="update the files in git")
    args = parser.parse_args()
    result = measure(args.seeds, args.cells, args.seconds)
    print(json.dumps(result, indent=1))
    if args.write:
        NUMBERS.write_text(json.dumps(result, indent=1) + "\n")
    draw(result, HERE.parent / "docs" / "images" / FIGURE if args.write else FIGURE)


if __name__ == "__main__":
    main()
