"""The record: 831 neurons, 41 minutes, 1 ms, all-to-all, exact, every receiver certified.

    python benchmarks/record.py [--cells 831] [--bins 2460000] [--write]

Simulates a network with known connectivity (lognormal rates of mean about 5 Hz), fits every
receiver on the history of every sender, and writes the evidence: time, peak memory, passes, the
largest decrement, and for some receivers a bound of the gap that is computed from a float64
gradient with rows of X, apart from the solver. The size is that of Zoltowski & Pillow (2018).
"""

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
from cases import auc
from run import machine

import fastglm
from fastglm.simulation import random_network

HERE = Path(__file__).resolve().parent
RIDGE = 1e-5  # 1 / (2.46e6 bins x 0.2^2): coefficients of 0.2 are expected


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=831)
    parser.add_argument("--bins", type=int, default=2_460_000)
    parser.add_argument("--budget", default="2.2GB")
    parser.add_argument("--tol", type=float, default=1e-8)
    parser.add_argument("--checkpoint")
    parser.add_argument("--write", action="store_true", help="update record.json")
    args = parser.parse_args()
    basis = fastglm.basis.RaisedCosineLogConv(8, 100)
    network = random_network(args.cells, basis, mean_rate_hz=5.6)
    begin = time.perf_counter()
    counts = network.simulate(args.bins, 1, sparse=True)
    simulated = time.perf_counter() - begin
    rate = 1e3 * int(counts.sum()) / args.bins / args.cells
    print(f"simulated in {simulated:.0f} s, {rate:.2f} Hz", flush=True)
    model = fastglm.PopulationGLM(
        regularizer="Ridge",
        regularizer_strength=RIDGE,
        solver_kwargs={"tol": args.tol},
        memory_budget=args.budget,
    )
    begin = time.perf_counter()
    X = basis.compute_features(counts)
    plan = model.plan(X, counts)
    print(plan, flush=True)
    model.fit(X, counts, progress=True, checkpoint=args.checkpoint)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    checked = np.unique(np.linspace(0, args.cells - 1, 8).astype(int))
    bound = gap_bound(model, X, counts, checked)
    linked = network.adjacency != 0
    area = np.einsum("ibj,b->ij", model.coef_.reshape(args.cells, 8, -1), basis.kernel_.sum(axis=0))
    off = ~np.eye(args.cells, dtype=bool)
    evidence = {
        "machine": machine(),
        "n_cells": args.cells,
        "n_bins": args.bins,
        "n_features": X.shape[1],
        "n_spikes": int(counts.sum()),
        "mean_rate_hz": rate,
        "ridge": RIDGE,
        "tol": args.tol,
        "seconds_simulation": simulated,
        "seconds_fit": seconds,
        "seconds_planned": plan.seconds,
        "peak_bytes": peak,
        "memory_budget": args.budget,
        "batches": len(plan.batches),
        "statuses": {s: int((model.status_ == s).sum()) for s in np.unique(model.status_)},
        "passes_mean": float(model.n_passes_.mean()),
        "passes_max": int(model.n_passes_.max()),
        "decrement_max": float(model.newton_decrement_.max()),
        "gradient_max": float(model.grad_norm_.max()),
        "receivers_checked": checked.tolist(),
        "gap_bound_max": float(bound.max()),
        "auc_excitatory": auc(area, (network.adjacency > 0) & off, ~linked & off),
        "auc_inhibitory": auc(-area, (network.adjacency < 0) & off, ~linked & off),
    }
    print(json.dumps(evidence, indent=1))
    if args.write:
        (HERE / "record.json").write_text(json.dumps(evidence, indent=1) + "\n")


def gap_bound(model, X, counts, receivers):
    """Upper bound of the gap of the objective, from a float64 gradient on rows of X.

    With the intercept at its best the objective is strongly convex with the ridge, so the gap is at
    most ``|g|^2 / (2 ridge)``; the intercept's own part is ``g_b^2 / (2 mean rate)``.
    """
    index = np.flatnonzero(X.valid)
    coef, intercept = model.coef_[:, receivers], model.intercept_[receivers]
    grad, grad_intercept, total = np.zeros_like(coef), 0.0, 0.0
    columns = counts[:, receivers].tocsr()
    for block in np.array_split(index, -(-index.size // 4096)):
        rows = X.rows(block)
        mu = np.exp(rows @ coef + intercept)
        residual = mu - columns[block].toarray()
        grad += rows.T @ residual
        grad_intercept = grad_intercept + residual.sum(axis=0)
        total = total + mu.sum(axis=0)
    grad = grad / index.size + RIDGE * coef
    own = (grad_intercept / index.size) ** 2 / (2 * total / index.size)
    return (grad**2).sum(axis=0) / (2 * RIDGE) + own


if __name__ == "__main__":
    main()
