"""Memory of fits in shards: does it grow with the recording?

    python benchmarks/shards.py [--spikes 1e7 4e7] [--write]

For every size a process of its own writes two raw files of spikes, and another one fits every cell
on the history of all, in shards of 1e6 spikes that are read when a pass needs them. It reports the
peak of its resident memory above that before the fit. A small fit comes first, so that compiled
kernels and libraries are not counted. ``--write`` keeps the numbers in ``shards.json``.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
N_CELLS, RATE_HZ, BIN, WINDOW, N_FUNCS = 40, 50.0, 0.001, 20, 3
SHARD, BLOCK = 1_000_000, 1_000_000  # spikes
RIDGE, TOL = 1e-4, 1e-6


def n_bins_of(n_spikes):
    return int(n_spikes / (N_CELLS * RATE_HZ * BIN))


def write(folder, n_spikes):
    """Spikes of cells that fire together in waves of a second, block by block."""
    rng = np.random.default_rng(0)
    edges = np.linspace(0, n_bins_of(n_spikes) * BIN, int(np.ceil(n_spikes / BLOCK)) + 1)
    with open(folder / "times", "wb") as times, open(folder / "units", "wb") as units:
        for begin, end in itertools.pairwise(edges):
            n = rng.poisson(N_CELLS * RATE_HZ * (end - begin))
            t = np.sort(begin + (end - begin) * rng.random(n))
            phase = rng.random(n) * 2 * np.pi + 0.5 * np.sin(2 * np.pi * t)
            unit = (phase / (2 * np.pi) * N_CELLS).astype(np.int32) % N_CELLS
            t.tofile(times)
            unit.astype(np.int32).tofile(units)


def status(name):
    """A number of bytes that Linux knows of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"{name} is not in /proc/self/status; this benchmark needs Linux.")


def fit(folder, n_spikes):
    from fastglm._batches.fit import fit_shards
    from fastglm._engine.batch import Settings
    from fastglm._penalty import ridge
    from fastglm._products.shards import Shards
    from fastglm.basis import RaisedCosineLogConv
    from fastglm.observation_models import as_observation_model
    from fastglm.recordings.stream import SpikeFile, sources_of

    n_bins = n_bins_of(n_spikes)
    every = int(SHARD / (N_CELLS * RATE_HZ * BIN))
    paths = str(folder / "times"), str(folder / "units")
    file = SpikeFile.scan(*paths, N_CELLS, BIN, every // 10)
    basis = RaisedCosineLogConv(N_FUNCS, WINDOW)
    free = np.ones((N_CELLS * N_FUNCS, N_CELLS), bool)
    loss = as_observation_model("Poisson").loss()
    settings = Settings(loss, TOL, 100, "newton-cg", "auto", 1e9)
    penalties = [ridge(np.full(N_CELLS, RIDGE))]

    def run(stop):
        edges = np.append(np.arange(0, stop, every), stop)
        begin = time.perf_counter()
        result = fit_shards(Shards(sources_of(file.read, basis, edges)), free, penalties, settings)[
            0
        ]
        return result, time.perf_counter() - begin, edges.size - 1

    run(every // 50)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = status("VmRSS")
    result, seconds, n_shards = run(n_bins)
    return {
        "spikes": n_spikes,
        "bins": n_bins,
        "shards": n_shards,
        "megabytes": (status("VmHWM") - before) / 1e6,
        "seconds": seconds,
        "passes": float(result.n_passes.mean()),
        "converged": int((result.status == "converged").sum()),
        "largest_resident_set": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spikes", nargs="+", type=float, default=[1e7, 4e7])
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--fit", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fit:
        print(json.dumps(fit(Path(options.fit), options.spikes[0])))
        return
    found = []
    for n_spikes in options.spikes:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), n_spikes)
            command = [sys.executable, __file__, "--fit", folder, "--spikes", str(n_spikes)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found.append(json.loads(out.splitlines()[-1]))
        print(found[-1], flush=True)
    ratio = found[-1]["megabytes"] / found[0]["megabytes"]
    print(f"memory at {found[-1]['spikes']:.0e} spikes / at {found[0]['spikes']:.0e}: {ratio:.3f}")
    if options.write:
        text = json.dumps({"fits": found, "ratio": ratio}, indent=1)
        (HERE / "shards.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
