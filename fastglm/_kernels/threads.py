"""Threads: how many the kernels have, BLAS on one of them, and calls of BLAS side by side."""

import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from threadpoolctl import ThreadpoolController

launch_lock = threading.Lock()
_pool = None
_threads_lost = False  # in a process forked from one with threads of GNU OpenMP


def run_threads(function, items, work=1 << 20):
    """Results of a function over items, on as many threads as the kernels have.

    It is made for calls of BLAS, LAPACK and NumPy, which release the interpreter's lock. NumPy's
    settings for warnings are those of the caller. Below about 1e5 numbers of ``work`` threads cost
    more than they save. Kernels without a parallel loop may be called so. The others must not:
    OpenMP would keep a team of threads for each thread.
    """
    global _pool
    n_threads = min(numba.get_num_threads(), len(items))
    if n_threads < 2 or work < 100_000:
        return [function(item) for item in items]
    if _pool is None or _pool[0] != os.getpid() or _pool[1] < n_threads:
        _pool = os.getpid(), n_threads, ThreadPoolExecutor(n_threads)
    state = np.geterr()

    def call(item):
        with np.errstate(**state):
            return function(item)

    return list(_pool[2].map(call, items))


@contextlib.contextmanager
def kernel_threads(number):
    """Context in which kernels have that number of threads, at most all; None changes nothing."""
    before = numba.get_num_threads()
    if number is not None:
        numba.set_num_threads(min(number, numba.config.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        numba.set_num_threads(before)


# --- processes that are forked ---


def check_threads():
    """Raise RuntimeError where a kernel would need threads that a fork has lost.

    Numba would end the process, and a pool that waits for its result would wait for ever.
    """
    if _threads_lost:
        raise RuntimeError(
            "This process was forked from one in which kernels had run, and the threads of GNU "
            "OpenMP do not survive a fork. Start workers by 'spawn' or 'forkserver' "
            "(multiprocessing.get_context('spawn'), or joblib's default backend), fork before the "
            "first fit, or set NUMBA_THREADING_LAYER=workqueue, which survives."
        )


def _after_fork():
    """State of the new process: no lock is held, and no thread is there but this one."""
    global launch_lock, _process, _own, _threads_lost
    launch_lock, _process, _own = threading.Lock(), _Limits(), threading.local()
    with contextlib.suppress(ValueError):  # no kernel has run
        lost = numba.threading_layer() == "omp" and _is_gnu() and not numba.config.DISABLE_JIT
        _threads_lost = _threads_lost or lost


def _is_gnu():
    try:
        from numba.np.ufunc import omppool
    except ImportError:
        return False
    return getattr(omppool, "openmp_vendor", "GNU") == "GNU"


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


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
