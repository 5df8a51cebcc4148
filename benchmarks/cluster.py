"""Two workers of Dask beside one: how much sooner is a fit done, and is the answer the same?

    python benchmarks/cluster.py [--cells 200] [--bins 1e6] [--repeats 3] [--write]

Workers are processes of one thread on this machine, started and warm. The fits with one and with
two of them alternate, so that other work on the machine meets both. ``--write`` keeps the numbers
in ``cluster.json``.
"""

import argparse
import json
import logging
import re
import time
from pathlib import Path

import numpy as np
from distributed import Client, LocalCluster
from run import machine

import fastglm

HERE = Path(__file__).resolve().parent
RATE, WINDOW, N_FUNCS, RIDGE = 0.008, 100, 8, 1e-6  # events a bin of 1 ms; bins


class Shared(logging.Handler):
    """The last line of the log about parts that all batches share."""

    text, seconds = "", 0.0

    def emit(self, record):
        found = re.search(r"share took (\S+) of", record.getMessage())
        if found:
            self.text, self.seconds = record.getMessage(), float(found[1])


def fit(X, counts, tol, executor=None, ridge=RIDGE):
    """The fitted model and the seconds."""
    model = fastglm.PopulationGLM(
        regularizer="Ridge", regularizer_strength=ridge, solver_kwargs={"tol": tol}
    )
    begin = time.perf_counter()
    model.fit(X, counts, progress=False, executor=executor)
    return model, time.perf_counter() - begin


def gap(model, plain):
    """How far an answer is from that of a plain fit."""
    return {
        "objective": float(np.abs(model.objective_ - plain.objective_).max()),
        "coef": float(np.abs(model.coef_ - plain.coef_).max()),
        "same_bits": bool((model.coef_ == plain.coef_).all()),
        "converged": int(model.converged_.sum()),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--bins", type=float, default=1e6)
    parser.add_argument("--tol", type=float, default=1e-16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    shape = int(options.bins), options.cells
    table = np.zeros(shape, np.uint8)
    for block in np.array_split(table, 100):
        block[:] = rng.random(block.shape, np.float32) < RATE
    counts = fastglm.features.Events.of(table)
    X = fastglm.basis.RaisedCosineLogConv(N_FUNCS, WINDOW).compute_features(counts)
    plain, seconds = fit(X, counts, options.tol)
    print(f"plain fit: {seconds:.1f} s", flush=True)
    shared, logger = Shared(), logging.getLogger("fastglm")
    logger.addHandler(shared)
    logger.setLevel(logging.INFO)
    cluster = LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
    )
    with cluster, Client(cluster) as client:
        addresses = list(client.nthreads())
        workers = {
            n: fastglm.Workers(client.get_executor(workers=addresses[:n], pure=False), n_workers=n)
            for n in (1, 2)
        }
        n_few = min(20_000, shape[0])
        for _ in range(2):  # every worker loads its kernels
            fit(X[:n_few], counts.part(0, n_few), options.tol, workers[2], ridge=1e-2)
        found = {1: [], 2: []}
        for _ in range(options.repeats):
            for n in (1, 2):
                model, seconds = fit(X, counts, options.tol, workers[n])
                found[n].append({"seconds": seconds, "shared": shared.seconds, **gap(model, plain)})
                print(n, found[n][-1], shared.text, sep="\n  ", flush=True)
    best = {n: min(row["seconds"] for row in rows) for n, rows in found.items()}
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(found[1], found[2], strict=True)]
    print(f"one worker / two workers: {best[1] / best[2]:.2f} (pairs {np.round(ratios, 2)})")
    if options.write:
        result = {
            "cells": options.cells,
            "bins": shape[0],
            "features": X.shape[1],
            "machine": machine(),
            "fits": found,
            "ratio": best[1] / best[2],
            "ratios": ratios,
        }
        (HERE / "cluster.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
