"""Threads: how many fastglm has, pieces of work on them, and BLAS on one of them."""

import contextlib
import functools
import itertools
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait

import numba
import numpy as np
from threadpoolctl import ThreadpoolController

_PIECES = 4  # of the work, for each thread
observer = None  # called after work on several threads; see ``benchmarks/threads.py``
_pool = None
_team = threading.local()  # whether this thread works on a piece


def run_threads(function, items, work=1 << 20):
    """Results of a function over items, on as many threads as fastglm has.

    It is made for compiled kernels and for calls of BLAS, LAPACK and NumPy, which release the
    interpreter's lock. The calling thread takes part, and each thread takes the next item when it
    has done one. NumPy's settings for warnings are those of the caller. Below about 1e5 numbers of
    ``work`` threads cost more than they save. A call from inside a piece of work runs there alone.
    After an exception no further item is begun, and it is raised when all threads are done.
    """
    few = len(items) < 2 or work < 100_000  # Numba takes longer to say its number of threads
    if few or (n_threads := min(n_threads_now(), len(items))) < 2:
        return [function(item) for item in items]
    state, order, failed = np.geterr(), itertools.count(), []
    results, busy = [None] * len(items), []
    begin = time.perf_counter()

    def take_part():
        _team.inside, used = True, time.thread_time()
        try:
            with np.errstate(**state), alone():
                while not failed and (k := next(order)) < len(items):
                    results[k] = function(items[k])
        except BaseException as error:
            failed.append(error)
        finally:
            _team.inside = False
            busy.append(time.thread_time() - used)

    others = [_threads(n_threads - 1).submit(take_part) for _ in range(n_threads - 1)]
    try:
        take_part()
        wait(others)
    except BaseException as error:  # an interrupt, while this thread waits
        failed.append(error)
        wait(others)
    if failed:
        raise failed[0]
    if observer is not None:  # the calling thread is the first of those that are busy
        observer(function, time.perf_counter() - begin, busy)
    return results


def run_kernels(function, items, work=1 << 20):
    """`run_threads` for kernels: they are silent in pure Python as they are in compiled code.

    Callers test for what overflows or is divided by zero.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return run_threads(function, items, work)


def map_ahead(function, items, work=1 << 20):
    """Results of a function over an iterator, of which a few items at a time are in memory."""
    while some := list(itertools.islice(items, n_pieces())):
        yield from run_threads(function, some, work)


def ahead(function):
    """A function that waits for what another one gives, which a thread of its own begins now.

    It is made for a long call of NumPy or LAPACK that cannot be shared. With one thread it runs
    when it is asked for. The thread is not one of those of `run_threads`, which would wait for it.
    """
    if n_threads_now() < 2:
        return functools.cache(function)
    state = np.geterr()

    def work():
        _team.inside, begin = True, time.thread_time()
        with np.errstate(**state), alone():
            found = function()
        if observer is not None:
            observer(function, 0.0, [time.thread_time() - begin])
        return found

    own = ThreadPoolExecutor(1, "fastglm-ahead")
    result = own.submit(work).result
    own.shutdown(wait=False)
    return result


def cut(n, unit=1, most=None):
    """Ranges that share n numbers between the threads, cut at multiples of ``unit``.

    There are at most ``most`` ranges, by default some for each thread.
    """
    n_units = -(-n // unit)
    parts = min(n_units, n_pieces() if most is None else most)
    edges = [min(n, k * n_units // parts * unit) for k in range(parts + 1)] if parts else []
    return list(itertools.pairwise(edges))


def n_pieces():
    """Into how many pieces work is cut: with some for each thread all have alike work."""
    n_threads = n_threads_now()
    return 1 if n_threads == 1 else _PIECES * n_threads


def n_threads_now():
    """How many threads a piece of work may use here."""
    return 1 if getattr(_team, "inside", False) else numba.get_num_threads()


def _threads(number):
    """A pool with at least that many threads; a fork starts its own."""
    global _pool
    if _pool is None or _pool[0] != os.getpid() or _pool[1] < number:
        _pool = os.getpid(), number, ThreadPoolExecutor(number, "fastglm")
    return _pool[2]


@contextlib.contextmanager
def kernel_threads(number):
    """Context with that number of threads, at most all; None changes nothing."""
    before = numba.get_num_threads()
    if number is not None:
        numba.set_num_threads(min(number, numba.config.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        numba.set_num_threads(before)


# --- threads of BLAS ---


@contextlib.contextmanager
def single_threaded_blas():
    """Context in which BLAS uses one thread.

    Idle threads of BLAS spin, which costs the kernels a factor of two on two cores, and BLAS orders
    its sums by the number of its threads. The solver spreads its calls of BLAS over blocks and
    receivers instead.

    Contexts of several threads may overlap: the last one to end restores what the first found, so
    that a fit that ends does not change BLAS for another. A library that has a number of threads
    for each thread of Python is set in each of them.
    """
    shared, apart = _libraries()
    if not hasattr(_own, "limits"):
        _own.limits = _Limits()
    process, own = _process, _own.limits
    process.change(shared, 1)
    own.change(apart, 1)
    try:
        yield
    finally:
        own.change(apart, -1)
        process.change(shared, -1)


def alone():
    """Context of a thread of fastglm's own: one thread of a BLAS that has a number for each."""
    return single_threaded_blas() if _libraries()[1] else contextlib.nullcontext()


class _Limits:
    """How many contexts are open, and the numbers of threads before the first."""

    def __init__(self):
        self.lock, self.n_open, self.found = threading.Lock(), 0, []

    def change(self, libraries, by):
        with self.lock:
            if not self.n_open:
                self.found = [library.num_threads for library in libraries]
            self.n_open += by
            for library, found in zip(libraries, self.found, strict=True):
                _set_threads(library, 1 if self.n_open else found)


def _set_threads(library, number):
    # Since threadpoolctl 3.8 only the thread that set OpenBLAS first can set it again.
    release = getattr(library, "clear_controlling_thread", None)
    if release is not None:
        release(force=True)
    library.set_num_threads(number)
    if release is not None:
        release(force=True)


_process, _own = _Limits(), threading.local()
_blas = None


def _libraries():
    """Libraries of BLAS with one number of threads for the process, and for each thread."""
    global _blas
    if _blas is None:
        found = ThreadpoolController().select(user_api="blas").lib_controllers
        apart = [getattr(library, "threading_layer", None) == "openmp" for library in found]
        _blas = tuple(
            [library for library, own in zip(found, apart, strict=True) if own is kind]
            for kind in (False, True)
        )
    return _blas


def _after_fork():
    """State of the new process: no lock is held, and no thread is there but this one."""
    global _process, _own, _team
    _process, _own, _team = _Limits(), threading.local(), threading.local()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
