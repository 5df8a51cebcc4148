"""Dense senders: the time of a gradient beside BLAS with the stored array, and the memory of a fit.

    python benchmarks/traces.py [--write]
    python benchmarks/traces.py --families Gamma      # fits of this family only

The gradient is that of 100 receivers on the history of 100 traces, 8 functions each. Times are
those of the processor on one thread. The fits are Gaussian, Poisson and Gamma (with the exponential
link), all to all, each in a process of its own after a small fit, so that compiled kernels and
libraries are not counted.
``--write`` keeps the numbers in ``traces.json``.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.update(NUMBA_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np  # after the numbers of threads are set

import fastglm
from fastglm._inputs import read_problem
from fastglm._products.local import Local
from fastglm.features import FeatureMatrix

HERE = Path(__file__).resolve().parent
N_TRACES, N_FUNCS, WINDOWS = 100, 8, (20, 100)
N_BINS, N_TIMED = 100_000, 20_000
FAMILIES = ("Gaussian", "Poisson", "Gamma")


def traces(n_bins):
    """Leaky sums of noise, such as a calcium indicator gives."""
    rng, values = np.random.default_rng(0), np.zeros((n_bins, N_TRACES))
    for t in range(1, n_bins):
        values[t] = 0.95 * values[t - 1] + rng.normal(size=N_TRACES)
    return values


def model_of(family):
    link = "exp" if family == "Gamma" else None
    return fastglm.PopulationGLM(family, link, "Ridge", 1e-4)


def seconds(function):
    """Processor time of the second call."""
    function()
    begin = time.process_time()
    function()
    return time.process_time() - begin


def gradients(window):
    """Times of a gradient from traces and from events, in units of BLAS with the stored array."""
    values, found = traces(N_TIMED), {"window": window}
    X = fastglm.basis.RaisedCosineLogConv(N_FUNCS, window).compute_features(values)
    forms = {"traces": X, "events": FeatureMatrix([c.by_events() for c in X.blocks])}
    coef = 0.01 * np.random.default_rng(1).normal(size=(X.shape[1], N_TRACES))
    for dtype in (np.float64, np.float32):
        stored = np.where(X.valid[:, None], np.asarray(X), 0).astype(dtype)
        y, c = values.astype(dtype), coef.astype(dtype)
        unit = seconds(lambda stored=stored, c=c, y=y: stored.T @ (stored @ c - y))
        for name, form in forms.items():
            problem = read_problem(model_of("Gaussian"), form, values)
            passes = Local(problem.X).passes(N_TRACES)
            rest = problem.settings.loss, np.arange(N_TRACES), coef, np.zeros(N_TRACES)
            args = problem.observed, *rest, dtype is np.float64
            own = seconds(lambda passes=passes, args=args: passes.evaluate(*args))
            found[f"{name} {np.dtype(dtype).name}"] = round(own / unit, 2)
    return found


def resident(name):
    """Bytes that Linux knows of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"{name} is not in /proc/self/status; this benchmark needs Linux.")


def observations(family, values):
    """The traces, or draws whose log mean follows the trace of the neighbour one bin before."""
    if family == "Gaussian":
        return values
    drive = 0.05 * np.roll(values, 1, axis=1)[:-1]
    mean = np.exp(np.append(drive[:1], drive, axis=0) - 2)
    rng = np.random.default_rng(2)
    return rng.poisson(mean) if family == "Poisson" else rng.gamma(2.0, mean / 2)


def fit(family, n_bins):
    """Memory of a fit above that before its features, beside the formula, and processor time."""
    values = traces(n_bins)
    y = observations(family, values)
    model, basis = model_of(family), fastglm.basis.RaisedCosineLogConv(N_FUNCS, WINDOWS[-1])
    model.fit(basis.compute_features(values[:3000, :10]), y[:3000, :10])
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, begin = resident("VmRSS"), time.process_time()
    X = basis.compute_features(values)
    planned = model.plan(X, y).peak_bytes
    model.fit(X, y)
    return {
        "family": family,
        "seconds": round(time.process_time() - begin, 1),
        "passes": float(model.n_passes_.mean()),
        "converged": int(model.converged_.sum()),
        "megabytes": round((resident("VmHWM") - before) / 1e6),
        "formula": round((X.blocks[0].values.nbytes + planned) / 1e6),
        "stored": round(8 * X.size / 1e6),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="keep the numbers in traces.json")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, help="fits only, of these")
    parser.add_argument("--bins", type=int, default=N_BINS, help="bins of the fits")
    parser.add_argument("--fit", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fit:
        print(json.dumps(fit(arguments.fit, arguments.bins)))
        return
    only = arguments.families
    results = {} if only else {"gradients": [gradients(window) for window in WINDOWS]}
    results["fits"] = []
    for family in only or FAMILIES:
        command = [sys.executable, __file__, "--fit", family, "--bins", str(arguments.bins)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        results["fits"].append(json.loads(done.stdout))
    print(json.dumps(results, indent=1))
    if arguments.write and not only:
        (HERE / "traces.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
