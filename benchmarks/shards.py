"""Memory of fits to spikes on disk: does it grow with the recording?

    python benchmarks/shards.py [--spikes 1e7 4e7] [--cells 100] [--rate 8.3] [--write]

For every size this process writes two raw files of spikes, and another one fits every cell on the
history of all with `stream_spikes` and `stochastic_fit`, in shards of 1e6 spikes that are read when
a pass needs them. It reports the peak of its resident memory, and the peak above that
before the fit. A small fit comes first, so that compiled kernels and libraries are not counted as
the fit's. ``--write`` keeps the numbers in ``shards.json``.

Two things looked like growth before. The number of spikes was drawn, so that some recordings had a
shard more, and all their shards were smaller. And the heap of glibc keeps arrays that were freed,
below a threshold that grows with the largest of them: ``MALLOC_MMAP_THRESHOLD_`` leaves it where it
begins, so that the peak is what was in use.
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
BIN, WINDOW, N_FUNCS = 0.001, 20, 3
BLOCK = 1_000_000  # spikes that are written at a time
THRESHOLD = {"MALLOC_MMAP_THRESHOLD_": "131072"}  # bytes of an array that is freed for good
RIDGE, TOL = 1e-4, 1e-8


def n_bins_of(n_spikes, cells, rate):
    return int(n_spikes / (cells * rate * BIN))


def write(folder, n_spikes, cells, rate):
    """Spikes of cells that fire together in waves of a second, block by block."""
    rng = np.random.default_rng(0)
    end = n_bins_of(n_spikes, cells, rate) * BIN
    n_blocks = int(np.ceil(n_spikes / BLOCK))
    edges, places = (np.linspace(0, top, n_blocks + 1) for top in (end, n_spikes))
    with open(folder / "times", "wb") as times, open(folder / "units", "wb") as units:
        sizes = np.diff(places.astype(int))
        for (begin, end), n in zip(itertools.pairwise(edges), sizes, strict=True):
            t = np.sort(begin + (end - begin) * rng.random(n))
            phase = rng.random(n) * 2 * np.pi + 0.5 * np.sin(2 * np.pi * t)
            unit = (phase / (2 * np.pi) * cells).astype(np.int32) % cells
            t.tofile(times)
            unit.astype(np.int32).tofile(units)


def status(name):
    """A number of bytes that Linux knows of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"{name} is not in /proc/self/status; this benchmark needs Linux.")


def fit(folder, n_spikes, cells, rate):
    import fastglm
    from fastglm.recordings import stream_spikes

    basis = fastglm.basis.RaisedCosineLogConv(N_FUNCS, WINDOW)
    paths = str(folder / "times"), str(folder / "units")

    def run(**range_of_times):
        model = fastglm.PopulationGLM(
            regularizer="Ridge", regularizer_strength=RIDGE, solver_kwargs={"tol": TOL}
        )
        begin = time.perf_counter()
        shards = stream_spikes(*paths, basis=basis, bin_size=BIN, **range_of_times)
        model.stochastic_fit(shards)
        return model, time.perf_counter() - begin, shards

    run(t_stop=20_000 / (cells * rate))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = status("VmRSS")
    model, seconds, shards = run()
    return {
        "spikes": n_spikes,
        "cells": cells,
        "bins": n_bins_of(n_spikes, cells, rate),
        "shards": len(shards),
        "megabytes": (status("VmHWM") - before) / 1e6,
        "megabytes_after": (status("VmRSS") - before) / 1e6,
        "seconds": seconds,
        "processor": time.process_time(),
        "passes": float(model.n_passes_.mean()),
        "converged": int(model.converged_.sum()),
        "decrement": float(model.newton_decrement_.max()),
        "largest_resident_set": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spikes", nargs="+", type=float, default=[1e7, 4e7])
    parser.add_argument("--cells", type=int, default=40)
    parser.add_argument("--rate", type=float, default=50.0, help="spikes a second and cell")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--fit", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fit:
        size = options.spikes[0], options.cells, options.rate
        print(json.dumps(fit(Path(options.fit), *size)))
        return
    found = []
    for n_spikes in options.spikes:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), n_spikes, options.cells, options.rate)
            command = [sys.executable, __file__, "--fit", folder, "--spikes", str(n_spikes)]
            command += ["--cells", str(options.cells), "--rate", str(options.rate)]
            given = {"check": True, "stdout": subprocess.PIPE, "text": True}
            out = subprocess.run(command, env=os.environ | THRESHOLD, **given)
        found.append(json.loads(out.stdout.splitlines()[-1]))
        print(found[-1], flush=True)
    ratio = found[-1]["megabytes"] / found[0]["megabytes"]
    print(f"memory at {found[-1]['spikes']:.0e} spikes / at {found[0]['spikes']:.0e}: {ratio:.3f}")
    if options.write:
        text = json.dumps({"fits": found, "ratio": ratio}, indent=1)
        (HERE / "shards.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
