"""What the package does to its process, and what it needs of its surroundings."""

import importlib.util
import multiprocessing
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import warnings

import numba
import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

import fastglm
from fastglm._kernels import compiler, threads

COUNTS = np.random.default_rng(0).poisson(0.2, (300, 2))
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def fit(_=0):
    X = fastglm.basis.HistoryConv(2).compute_features(COUNTS)
    return fastglm.PopulationGLM(regularizer="Ridge").fit(X, COUNTS).coef_.sum()


# --- forks ---


@forks
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:.*fork:RuntimeWarning")
def test_a_pool_of_forks_after_a_fit_works_or_says_why_not():
    here = fit()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        result = pool.map_async(fit, [0])
        if threads._is_gnu() and not numba.config.DISABLE_JIT and numba.threading_layer() == "omp":
            with pytest.raises(RuntimeError, match=r"forked from one in which kernels had run"):
                result.get(60)
        else:
            assert result.get(60) == [here]


@forks
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:.*fork:RuntimeWarning")
def test_a_lock_that_another_thread_holds_does_not_stop_a_fork():
    with threads.launch_lock, threads._process.lock:
        child = os.fork()
        if child == 0:
            free = threads.launch_lock.acquire(timeout=5) and threads._process.lock.acquire(
                timeout=5
            )
            os._exit(0 if free else 1)
        assert os.waitpid(child, 0)[1] == 0


# --- the cache of the compiler ---


@pytest.fixture
def untold(monkeypatch):
    monkeypatch.setattr(compiler, "_told", False)


def module(folder, name):
    """A module whose function ``double`` Numba can keep beside it."""
    path = folder / f"{name}.py"
    path.write_text("def double(x):\n    return 2 * x\n")
    spec = importlib.util.spec_from_file_location(name, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    return found


def no_compiler():
    return pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled")


@no_compiler()
def test_a_kernel_without_a_place_for_its_cache_is_compiled_with_one_warning(untold):
    space = {}
    exec(compile("def double(x):\n    return 2 * x\n", "<nowhere>", "exec"), space)
    with pytest.warns(UserWarning, match="cache of compiled kernels cannot be used.*NUMBA_CACHE_D"):
        kernel = compiler.njit(cache=True)(space["double"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = compiler.njit(cache=True)(space["double"])
    assert kernel(3) == again(3) == 6


@no_compiler()
def test_a_disk_that_is_full_costs_the_cache_alone(untold, tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    kernel = compiler.njit(cache=True)(module(tmp_path, "full").double)
    shutil.rmtree(tmp_path / "__pycache__")
    (tmp_path / "__pycache__").write_text("a file, so that no folder can be made")
    with pytest.warns(UserWarning, match="cannot be used"):
        assert kernel(3) == 6
    assert kernel(3.0) == 6.0  # a second warning would be an error


@no_compiler()
def test_a_damaged_cache_is_compiled_anew(untold, tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    found = module(tmp_path, "damaged")
    assert compiler.njit(cache=True)(found.double)(3) == 6
    (index,) = (tmp_path / "__pycache__").glob("*.nbi")
    index.write_bytes(b"not an index")
    with pytest.warns(UserWarning, match="cannot be used"):
        assert compiler.njit(cache=True)(found.double)(3) == 6


@no_compiler()
def test_a_cache_that_works_is_used_without_a_word(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    found = module(tmp_path, "kept")
    assert compiler.njit(cache=True)(found.double)(3) == 6
    again = compiler.njit(cache=True)(found.double)
    assert again(3) == 6
    assert sum(again.stats.cache_hits.values()) == 1


@no_compiler()
def test_an_installation_that_is_read_only_is_imported_without_a_home(tmp_path):
    source = pathlib.Path(fastglm.__file__).parent
    shutil.copytree(source, tmp_path / "fastglm", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("fastglm", "fastglm/_kernels"):
        (tmp_path / folder / "__pycache__").write_text("a file, so that no folder can be made")
    env = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA")}
    env |= {"HOME": os.devnull, "XDG_CACHE_HOME": os.devnull, "PYTHONPATH": str(tmp_path)}
    code = "import fastglm.glm, sys; print(fastglm.__file__)"
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path))
    assert done.stderr.count("UserWarning") == 1


# --- threads of BLAS ---


@pytest.fixture
def blas():
    found = ThreadpoolController().select(user_api="blas").lib_controllers
    if not found:
        pytest.skip("threadpoolctl knows no BLAS here")
    before = [library.num_threads for library in found]

    def now():
        return [library.num_threads for library in found]

    yield before, now
    assert now() == before


@pytest.mark.parametrize("first_out", ["first in", "last in"])
def test_overlapping_contexts_of_threads_leave_blas_as_they_found_it(blas, first_out):
    before, now = blas
    entered, leave = threading.Event(), threading.Event()

    def other():
        with threads.single_threaded_blas():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    if first_out == "first in":
        thread.start()
        entered.wait(10)
    with threads.single_threaded_blas():
        if first_out == "last in":
            thread.start()
            entered.wait(10)
        else:
            leave.set()
            thread.join()
        assert set(now()) == {1}
    leave.set()
    thread.join()
    assert now() == before


def test_contexts_that_end_out_of_order(blas):
    before, now = blas
    outer, inner = threads.single_threaded_blas(), threads.single_threaded_blas()
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    assert set(now()) == {1}
    inner.__exit__(None, None, None)
    assert now() == before


def test_concurrent_fits_leave_blas_as_they_found_it(blas):
    before, now = blas
    pool = [threading.Thread(target=fit) for _ in range(4)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    assert now() == before
