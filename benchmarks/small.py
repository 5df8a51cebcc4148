"""Small fits: processor time, calls of Python, and the part outside of kernels, BLAS and LAPACK.

    python benchmarks/small.py [--repeats 200] [--beside CHECKOUT] [--cases page twenty bootstrap]

A case is fitted many times in this process, and the fastest fit counts, since other work on the
machine only adds. In one more fit every call of compiled kernels, BLAS and LAPACK is done again by
itself, and the fastest counts: the rest of the time is ``outside``. A product of single numbers is
taken off each product, so that the calls of NumPy count as outside. ``--beside`` times another
checkout in turn with this one, and gives the time of its fit alone, since its parts are others.

Processor time is that of all threads. Set ``NUMBA_NUM_THREADS``.
"""

import argparse
import cProfile
import json
import os
import pstats
import subprocess
import sys
import time
import types
import warnings
from pathlib import Path

import numpy as np

import fastglm

ROUNDS, MOST = 3, 5.0  # turns of two checkouts, and seconds of a turn
REPLAYS, ENOUGH = 30, 5e5  # most replays of a call, and nanoseconds that end them


def page():
    """The example of NeMoS's page: 4 cells, 100 bins, 40 features."""
    counts = np.random.RandomState(42).poisson(size=(100, 4))
    basis = fastglm.basis.HistoryConv(10)
    return lambda: fastglm.PopulationGLM().fit(basis.compute_features(counts), counts)


def twenty():
    """20 cells, 10,000 bins, 80 features."""
    counts = np.random.RandomState(0).poisson(0.2, size=(10_000, 20))
    X = fastglm.basis.RaisedCosineLogConv(4, 30).compute_features(counts)
    return lambda: fastglm.PopulationGLM(solver_name="newton-cholesky").fit(X, counts)


def bootstrap():
    """100 fits of one cell and 5 covariates to 1,000 bins that are drawn again."""
    rng = np.random.RandomState(0)
    X = rng.normal(size=(1000, 5))
    y = rng.poisson(np.exp(0.2 * X.sum(axis=1) - 1))
    draws = [np.bincount(rng.randint(1000, size=1000), minlength=1000) for _ in range(100)]
    return lambda: [fastglm.GLM().fit(X, y, sample_weight=weight) for weight in draws]


CASES = {"page": page, "twenty": twenty, "bootstrap": bootstrap}


def seconds(function, repeats):
    """Processor time of the fastest of some calls."""
    best = np.inf
    for _ in range(repeats):
        begin = time.process_time_ns()
        function()
        best = min(best, time.process_time_ns() - begin)
    return 1e-9 * best


def calls_of(function):
    """Number of calls of Python functions and of functions that they call."""
    profile = cProfile.Profile()
    profile.runcall(function)
    return pstats.Stats(profile).total_calls


def inside(function):
    """Time of the kernels, LAPACK and products of matrices in one call of a function."""
    from fastglm import _kernels as kernels
    from fastglm._algebra import linear
    from fastglm._engine import stack
    from fastglm._kernels import convolve

    times, undo, one = [], [], np.ones((1, 1))
    _, empty = timed(np.matmul, one, one)

    def note(call, again=True, less=0.0):
        def noting(*args, **kwargs):
            found, best = timed(call, *args, again=again, **kwargs)
            times.append(max(best - less, 0.0))
            return found

        return noting

    def put(module, name, value):
        undo.append((module, name, getattr(module, name)))
        setattr(module, name, value)

    for module in (stack, convolve):
        matmul = note(np.matmul, less=empty)
        put(module, "np", types.SimpleNamespace(**{**vars(np), "matmul": matmul}))
    lapack = linear._lapack
    put(linear, "_lapack", lambda *kind: note(lapack(*kind)))
    for name, value in list(vars(kernels).items()):
        if hasattr(value, "py_func"):  # some add to what they are given
            put(kernels, name, note(value, again=False))
    try:
        function()
    finally:
        for module, name, value in undo:
            setattr(module, name, value)
    return sum(times)


def timed(call, *args, again=True, **kwargs):
    """What a call gives, and the time of the fastest of some calls."""
    begin = time.perf_counter_ns()
    found = call(*args, **kwargs)
    first = last = time.perf_counter_ns()
    best = first - begin
    for _ in range(REPLAYS if again else 0):
        call(*args, **kwargs)
        now = time.perf_counter_ns()
        best, last = min(best, now - last), now
        if now - first > ENOUGH:
            break
    return found, 1e-9 * best


def measure(name, repeats, alone):
    """The numbers of a case in this process."""
    fit = CASES[name]()
    for _ in range(2):
        fit()
    repeats = max(2, int(min(repeats, MOST / seconds(fit, 1))))
    found = {"seconds": seconds(fit, repeats), "calls": calls_of(fit)}
    if not alone:
        found["inside"] = inside(fit)
    return found


def turn(checkout, name, repeats, alone):
    """The numbers of a case in a process of a checkout."""
    env = {**os.environ, "PYTHONPATH": str(checkout), "OMP_WAIT_POLICY": "passive"}
    args = [sys.executable, __file__, "--repeats", str(repeats), "--cases", name, "--here"]
    done = subprocess.run([*args, *["--alone"] * alone], env=env, check=True, capture_output=True)
    return json.loads(done.stdout.splitlines()[-1])


def least(turns):
    """The least of each number over some turns."""
    return {key: min(found[key] for found in turns) for key in turns[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--beside", type=Path, help="another checkout")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        warnings.simplefilter("ignore")
        print(json.dumps(measure(options.cases[0], options.repeats, options.alone)))
        return
    print(f"{'case':<12}{'calls':>9}{'ms':>10}{'inside':>10}{'outside':>10}{'beside':>10}")
    here = Path(fastglm.__file__).parents[1]
    for name in options.cases:
        own, other = [], []
        for _ in range(ROUNDS):
            own.append(turn(here, name, options.repeats, False))
            if options.beside:
                other.append(turn(options.beside, name, options.repeats, True))
        own = least(own)
        times = [own["seconds"], own["inside"], own["seconds"] - own["inside"]]
        times += [least(other)["seconds"]] if other else []
        print(f"{name:<12}{own['calls']:>9}" + "".join(f"{1e3 * t:>10.2f}" for t in times))


if __name__ == "__main__":
    main()
