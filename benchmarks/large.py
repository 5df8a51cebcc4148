"""Receivers out of thousands of senders: passes, seconds and memory of certified fits.

    python benchmarks/large.py --cells 4000 --bins 1e6 --receivers 128 --budget 6GB [--write]

All cells fire on their own at 5 Hz in bins of 1 ms. The first receivers are fitted on the history
of all cells (8 functions over 100 bins, ridge 1e-4) to a certified gap of 1e-8. A few receivers are
checked: their gradients are added up in NumPy, apart from fastglm, and the bound
``|g|^2 / (2 ridge)`` of the gap, with the best intercept, stands beside the claim. ``--minutes``
ends the fit: the receivers that are done by then are reported. ``--write`` adds the run to
``large.json`` and makes the table in the README anew.
"""

import argparse
import contextlib
import json
import os
import resource
import signal
import time
from pathlib import Path

import numpy as np
from run import machine, replace_section, table

import fastglm
from fastglm.features import Events

HERE = Path(__file__).resolve().parent
RATE, TOL = 0.005, 1e-8
N_FUNCS, WINDOW = 8, 100


def spikes(n_cells, n_bins, rate=RATE, seed=0):
    """`Events` of cells that fire on their own, without a table of their counts."""
    rng, parts = np.random.default_rng(seed), []
    for first in range(0, n_bins, 50_000):  # bins at a time, so that few keys are sorted
        size = min(50_000, n_bins - first) * n_cells
        places = np.unique(rng.integers(0, size, rng.poisson(rate * size)))
        bins, units = np.divmod(places, n_cells)
        parts.append(((bins + first).astype(np.int32), units.astype(np.int32)))
    bins, units = (np.concatenate(values) for values in zip(*parts, strict=True))
    return Events(bins, units, np.ones(bins.size), (n_bins, n_cells))


def gap_bound(events, kernel, y, coef, intercept, ridge):
    """Bound of one receiver's gap from its events alone, with the intercept at its best.

    The best intercept multiplies all rates by a factor, so what it gains is known exactly. There
    the objective of the coefficients alone is as convex as the ridge.
    """
    window, n_funcs = kernel.shape
    filters = coef.reshape(-1, n_funcs) @ kernel.T
    n_bins = events.n_bins
    eta = np.full(n_bins, intercept)
    for lag in range(window):
        at = events.bins + 1 + lag
        eta += np.bincount(at, filters[events.units, lag], n_bins + window)[:n_bins]
    mu, counts = np.exp(eta), np.bincount(y, minlength=n_bins).astype(float)
    mu[:window] = counts[:window] = 0  # no complete history
    n_valid, rate, count = n_bins - window, mu.sum(), counts.sum()
    gained = (rate - count + count * np.log(count / rate)) / n_valid
    residual, sums = mu * (count / rate) - counts, np.empty((events.n_units, window))
    padded = np.append(residual, np.zeros(window))
    for lag in range(window):
        sums[:, lag] = np.bincount(events.units, padded[events.bins + 1 + lag], events.n_units)
    grad = (sums @ kernel).ravel() / n_valid + ridge * coef
    return float(gained + (grad @ grad) / (2 * ridge))


def peak():
    """Largest resident memory of the process so far, in bytes."""
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def interrupt_after(minutes):
    """Ctrl-C after some minutes: a fit keeps the receivers that it has finished."""

    def ring(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(int(60 * minutes))


def run(n_cells, n_bins, n_receivers, ridge, budget, n_checked, minutes):
    events = spikes(n_cells, n_bins)
    X = fastglm.basis.RaisedCosineLogConv(N_FUNCS, WINDOW).compute_features(events)
    counts = events.select(np.arange(n_receivers))
    model = fastglm.PopulationGLM(
        regularizer="Ridge",
        regularizer_strength=ridge,
        solver_kwargs={"tol": TOL},
        memory_budget=budget,
    )
    plan, before = model.plan(X, counts), peak()
    print(plan, flush=True)
    begin, cpu = time.perf_counter(), time.process_time()
    if minutes:
        interrupt_after(minutes)
    with contextlib.suppress(KeyboardInterrupt):
        model.fit(X, counts)
    signal.alarm(0)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    done = np.flatnonzero(model.status_ != "interrupted")
    passes = model.n_passes_[done]
    result = {
        "n_cells": n_cells, "n_bins": n_bins, "n_receivers": n_receivers,
        "n_events": events.n_events, "n_features": X.shape[1], "ridge": ridge,
        "memory_budget": budget,
        "gram": plan.batches[0].gram, "n_batches": len(plan.batches),
        "passes_mean": float(passes.mean()), "passes_max": int(passes.max(initial=0)),
        "seconds": seconds, "cpu_seconds": cpu, "seconds_planned": plan.seconds,
        "seconds_a_receiver": seconds / done.size, "cpu_a_receiver": cpu / done.size,
        "cpu_a_pass": cpu / float(model.n_passes_.sum()),  # of one receiver, also of one not done
        "load": os.getloadavg()[1],
        "peak_before": before, "peak": peak(), "bytes_planned": plan.peak_bytes,
        "claim_max": float(model.newton_decrement_[done].max(initial=0)),
        "statuses": {s: int((model.status_ == s).sum()) for s in np.unique(model.status_)},
    }  # fmt: skip
    print(json.dumps(result, indent=1), flush=True)
    checked = {}
    for j in done[:: -(-done.size // max(n_checked, 1))][:n_checked]:
        y, point = events.bins[events.units == j], (model.coef_[:, j], model.intercept_[j])
        bound = gap_bound(events, X.blocks[0].kernel, y, *point, ridge)
        checked[int(j)] = {"bound": bound, "claim": float(model.newton_decrement_[j])}
        print("checked", j, checked[int(j)], flush=True)
    return {**result, "checked": checked, "machine": machine()}


def rows_of(results):
    """The table of the README."""
    head = ["cells", "bins", "receivers", "features", "ridge", "passes, mean and largest",
            "s a receiver, clock and CPU", "peak memory, before the fit and in it",
            "memory budget", "largest claim", "statuses"]  # fmt: skip
    return table(
        head,
        [
            [f"{r['n_cells']:,}", f"{r['n_bins']:,}", r["n_receivers"], f"{r['n_features']:,}",
             f"{r['ridge']:g}",
             f"{r['passes_mean']:.1f} and {r['passes_max']}",
             f"{r['seconds_a_receiver']:.1f}, {r['cpu_a_receiver']:.1f}",
             f"{r['peak_before'] / 1e9:.1f}, {r['peak'] / 1e9:.1f} GB", r["memory_budget"],
             f"{r['claim_max']:.1e}", ", ".join(f"{n} {s}" for s, n in r["statuses"].items())]
            for r in results
        ],
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--bins", type=float, default=1e5)
    parser.add_argument("--receivers", type=int, default=32)
    parser.add_argument("--ridge", type=float, default=1e-4)
    parser.add_argument("--budget", default="2GB", help="memory of the fit, beside the events")
    parser.add_argument("--minutes", type=float, help="time of the fit")
    parser.add_argument("--check", type=int, default=1, help="receivers that are checked")
    parser.add_argument("--write", action="store_true", help="update large.json and the README")
    args = parser.parse_args()
    size = args.cells, int(args.bins), args.receivers
    result = run(*size, args.ridge, args.budget, args.check, args.minutes)
    if args.write:
        path = HERE / "large.json"
        results = json.loads(path.read_text()) if path.exists() else []
        keys = "n_cells", "n_bins", "n_receivers"
        kept = [r for r in results if tuple(r[key] for key in keys) != size]
        results = sorted([*kept, result], key=lambda r: [r[key] for key in keys])
        path.write_text(json.dumps(results, indent=1) + "\n")
        replace_section("large", rows_of(results))


if __name__ == "__main__":
    main()
