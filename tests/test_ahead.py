"""Kernels that another process compiles ahead: they are those of a fit, and nobody waits for it."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numba
import numpy as np
import pytest

import fastglm
from fastglm import _kernels
from fastglm._kernels import ahead

compiled_only = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")


@compiled_only
def test_they_are_the_kernels_of_a_fit_and_its_map():
    """Kernels by other types would be compiled in vain."""
    rng = np.random.default_rng(0)
    counts = (rng.random((60_000, 20)) < 0.01).astype(np.int32)
    X = fastglm.basis.RaisedCosineLogConv(8, window_size=50).compute_features(counts)
    model = fastglm.PopulationGLM(
        regularizer="Ridge", regularizer_strength=1e-4, solver_name="newton-cg"
    )
    model.fit(X, counts).standard_errors(X, counts)
    for name, types in ahead.FIT:
        assert ahead.arguments(types) in getattr(_kernels, name).signatures, name


@compiled_only
def test_they_are_the_kernels_of_the_recipe():
    rng = np.random.default_rng(0)
    units = {f"cell {i}": np.sort(rng.uniform(0, 60, 1200)) for i in range(16)}
    couplings = fastglm.infer_connectivity(units, bin_size=0.001)
    assert "empirical null" in couplings.settings["null"]
    for name, types in ahead.RECIPE:
        assert ahead.arguments(types) in getattr(_kernels, name).signatures, name


@pytest.fixture
def started(monkeypatch):
    """What would be started, on two cores."""
    started = []

    class Process:
        def __init__(self, command, **how):
            started.append((command, how))

        def wait(self):
            pass

    monkeypatch.setattr(subprocess, "Popen", Process)
    monkeypatch.setattr(ahead, "_n_cores", lambda: 2)
    monkeypatch.setattr(ahead, "_started", False)
    monkeypatch.delenv(ahead.OFF, raising=False)
    return started


def test_another_process_is_started_once_and_starts_none(started):
    ahead.start()
    ahead.start("RECIPE")
    ((command, how),) = started
    assert "compile_ahead('FIT')" in command[-1]
    assert command[0] == sys.executable
    assert how["env"][ahead.OFF] == "0"
    assert repr(sys.path) in command[-1]
    assert {how[name] for name in ("stdin", "stdout", "stderr")} == {subprocess.DEVNULL}


@compiled_only
@pytest.mark.parametrize("kept", [False, True])
def test_the_recipe_starts_it_before_the_first_kernel(started, monkeypatch, tmp_path, kept):
    """Not where the cache holds the kernel that is needed last."""
    name = ahead.RECIPE[0][0]
    if kept:
        (tmp_path / f"mixture.{name}-1.py311.nbi").touch()
    kernel = SimpleNamespace(stats=SimpleNamespace(cache_path=str(tmp_path)))
    monkeypatch.setattr(_kernels, name, kernel)
    with pytest.raises(ValueError, match="bin_size"):
        fastglm.infer_connectivity(np.zeros((10, 2), int))
    assert [command[-1].count("RECIPE") for command, _ in started] == ([] if kept else [1])


@compiled_only
def test_a_file_of_the_cache_has_the_name_of_its_kernel(started):
    name, types = ahead.RECIPE[0]
    getattr(_kernels, name).compile(ahead.arguments(types))
    ahead.prepare("RECIPE")
    assert started == []


@pytest.mark.parametrize("why", ["one core", "switched off", "a worker", "no Python", "no process"])
def test_no_process_where_none_can_help(started, monkeypatch, why):
    def refuse(*args, **how):
        raise OSError("no more processes")

    if why == "one core":
        monkeypatch.setattr(ahead, "_n_cores", lambda: 1)
    elif why == "switched off":
        monkeypatch.setenv(ahead.OFF, "0")
    elif why == "a worker":
        monkeypatch.setattr(ahead.multiprocessing, "parent_process", lambda: "the parent")
    elif why == "no Python":
        monkeypatch.setattr(sys, "executable", "/opt/frozen")
    else:
        monkeypatch.setattr(subprocess, "Popen", refuse)
    ahead.start()
    assert started == []


@compiled_only
def test_the_other_process_imports_little():
    """It is a second of two cores: scikit-learn would take longer than a kernel."""
    code = "import sys, fastglm._kernels.ahead; print('sklearn' in sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert out.stdout.strip() == "False"
