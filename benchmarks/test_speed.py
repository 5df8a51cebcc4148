"""Kernels and small fits under pytest-benchmark: `python -m pytest benchmarks/test_speed.py`."""

import numpy as np
import pytest
from cases import CASES, fit_fastglm

from fastglm._products.sweep import Sweep

pytest.importorskip("pytest_benchmark")


@pytest.fixture(scope="module")
def small():
    return CASES["small"]()


@pytest.mark.parametrize("name", ["page", "tiny", "small"])
def test_fit(benchmark, name):
    case = CASES[name]()
    coef, _ = benchmark(fit_fastglm, case, np.arange(case.counts.shape[1]))
    assert np.isfinite(coef).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pass(benchmark, small, dtype):
    """One X C and one X' R for 16 receivers."""
    X = small.X
    sweep = Sweep(X, 16, dtype)
    coef = np.random.default_rng(0).normal(size=(X.shape[1], 16))

    def once():
        sweep.set_coef(coef)
        for chunks in sweep.rounds():
            sweep.forward(chunks)
            sweep.backward(chunks)
        return sweep.collect()

    assert np.isfinite(benchmark(once)).all()


def test_rows(benchmark, small):
    X = small.X
    index = np.flatnonzero(X.valid)[:4096]
    assert benchmark(X.rows, index).shape == (4096, X.shape[1])
