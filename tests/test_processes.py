"""What the package does to its process, and what it needs of its surroundings."""

import importlib.util
import multiprocessing
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time
import warnings

import numba
import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

import fastglm
from fastglm._batches.executors import Threads
from fastglm._kernels import compiler, threads

COUNTS = np.random.default_rng(0).poisson(0.2, (300, 2))
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def fit(_=0):
    X = fastglm.basis.HistoryConv(2).compute_features(COUNTS)
    return fastglm.PopulationGLM(regularizer="Ridge").fit(X, COUNTS).coef_.sum()


# --- forks ---


@forks
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:.*fork:RuntimeWarning")
def test_a_pool_of_forks_after_a_fit_gives_the_same_fit():
    here = fit()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map_async(fit, [0]).get(60) == [here]


@forks
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:.*fork:RuntimeWarning")
def test_a_fork_starts_threads_of_its_own():
    """Those of the process that it comes from are not there."""
    assert threads.run_threads(abs, range(8)) == list(range(8))
    with threads._process.lock:  # another thread holds it, which is not there either
        child = os.fork()
        if child == 0:
            with threads.single_threaded_blas():
                right = threads.run_threads(abs, range(8)) == list(range(8))
            os._exit(0 if right else 1)
        assert os.waitpid(child, 0)[1] == 0


# --- threads ---


@pytest.fixture
def four_threads(monkeypatch):
    monkeypatch.setattr(threads.numba, "get_num_threads", lambda: 4)


def test_threads_take_items_side_by_side_and_keep_their_order(four_threads):
    together = threading.Barrier(4)

    def wait_for_the_others(item):
        together.wait(10)
        return item, threading.get_ident()

    found = threads.run_threads(wait_for_the_others, "abcd")
    assert [item for item, _ in found] == list("abcd")
    assert len({thread for _, thread in found}) == 4


def test_little_work_stays_on_one_thread(four_threads):
    found = threads.run_threads(lambda _: threading.get_ident(), range(8), work=99_999)
    assert set(found) == {threading.get_ident()}


def test_a_call_from_inside_a_piece_of_work_runs_there_alone(four_threads):
    def outer(_):
        own = threading.get_ident()
        return set(threads.run_threads(lambda _: threading.get_ident(), range(4))) == {own}

    assert all(threads.run_threads(outer, range(16)))
    assert threads.n_threads_now() == 4


def test_an_error_of_a_piece_is_raised_when_all_threads_are_done(four_threads):
    done, failed = [], threading.Event()

    def work(item):
        if item == 0:
            failed.set()
            raise KeyError("one bad piece")
        failed.wait(10)
        time.sleep(0.01)
        done.append(item)

    with pytest.raises(KeyError, match="one bad piece"):
        threads.run_threads(work, range(1000))
    n = len(done)
    time.sleep(0.05)
    assert n == len(done) < 100


def test_threads_take_over_the_settings_for_warnings(four_threads):
    def divide(_):
        return np.float64(1) / np.float64(0)

    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        threads.run_threads(divide, range(8))
    with np.errstate(divide="ignore"):
        assert set(threads.run_threads(divide, range(8))) == {np.inf}


def test_some_items_of_an_iterator_are_in_memory_at_a_time(four_threads):
    taken = []
    found = threads.map_ahead(lambda k: k**2, (taken.append(k) or k for k in range(40)))
    assert next(found) == 0
    assert len(taken) == 16
    assert list(found) == [k**2 for k in range(1, 40)]


def test_a_long_call_goes_on_beside_the_thread_that_wants_it(four_threads, monkeypatch):
    heard, goes_on = [], threading.Event()
    monkeypatch.setattr(threads, "observer", lambda *what: heard.append(what))

    def work():
        goes_on.wait(10)
        return threading.get_ident(), threads.n_threads_now(), np.float64(1) / np.float64(0)

    with np.errstate(divide="ignore"):
        found = threads.ahead(work)
    assert threads.run_threads(abs, range(8)) == list(range(8))  # does not wait for it
    goes_on.set()
    thread, n_threads, infinite = found()
    assert thread != threading.get_ident()
    assert (n_threads, infinite) == (1, np.inf)
    assert found() == (thread, 1, np.inf)
    assert [(what[0], what[1]) for what in heard if what[0] is work] == [(work, 0.0)]
    with pytest.raises(ZeroDivisionError):
        threads.ahead(lambda: 1 / 0)()


def test_with_one_thread_a_long_call_waits_until_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(threads.numba, "get_num_threads", lambda: 1)
    called = []
    found = threads.ahead(lambda: called.append(threading.get_ident()))
    assert called == []
    assert found() is found() is None
    assert called == [threading.get_ident()]


def test_an_observer_hears_of_work_on_several_threads(four_threads, monkeypatch):
    heard = []
    monkeypatch.setattr(threads, "observer", lambda *what: heard.append(what))
    threads.run_threads(abs, range(8))
    threads.run_threads(abs, range(1))
    ((function, wall, busy),) = heard
    assert function is abs
    assert len(busy) == 4
    assert 0 <= max(busy) < wall + 0.1


@pytest.mark.parametrize("n", [0, 1, 2, 7, 100, 101])
@pytest.mark.parametrize("unit", [1, 8])
def test_work_is_cut_into_ranges_that_join(four_threads, n, unit):
    ranges = threads.cut(n, unit)
    assert [k for first, last in ranges for k in range(first, last)] == list(range(n))
    assert all(first % unit == 0 and first < last for first, last in ranges)
    assert len(ranges) <= 16


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


class BlasOfThreads:
    """A BLAS of the OpenMP kind, whose number of threads each thread has for itself."""

    def __init__(self):
        self.local = threading.local()

    @property
    def num_threads(self):
        return getattr(self.local, "number", 8)

    def set_num_threads(self, number):
        self.local.number = number


def test_every_thread_of_a_fit_sets_a_blas_with_a_number_of_threads_for_each(monkeypatch):
    library = BlasOfThreads()
    monkeypatch.setattr(threads, "_libraries", lambda: ([], [library]))
    monkeypatch.setattr(threads, "n_threads_now", lambda: 2)
    barrier, seen = threading.Barrier(2, timeout=10), []

    def number(_item):
        barrier.wait()  # each thread takes one
        return library.num_threads, threading.get_ident()

    with threads.single_threaded_blas():
        seen += threads.run_threads(number, range(2))
        seen.append(threads.ahead(lambda: (library.num_threads, threading.get_ident()))())
        Threads(2).run(range(2), number, lambda _item, found: seen.append(found), lambda: None)
    assert [found for found, _ in seen] == [1] * 5
    assert len({thread for _, thread in seen}) > 3
    assert library.num_threads == 8
