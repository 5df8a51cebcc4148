"""Threads beside the compiled kernels: BLAS on one thread, and calls of BLAS side by side."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import numba
import numpy as np
from threadpoolctl import ThreadpoolController

_pool = None
_lock, _n_open, _before = threading.Lock(), 0, []  # open contexts; threads of BLAS before them


def run_threads(function, items, work=1 << 20):
    """Results of a function over items, on as many threads as the kernels have.

    It is made for calls of BLAS, LAPACK and NumPy, which release the interpreter's lock. NumPy's
    settings for warnings are those of the caller. Below about 1e5 numbers of ``work`` threads cost
    more than they save. Compiled kernels must not be called so: OpenMP would keep a team of threads
    for each thread.
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


@contextmanager
def single_threaded_blas():
    """Context in which BLAS uses one thread.

    Idle threads of BLAS spin, which costs the kernels a factor of two on two cores, and BLAS orders
    its sums by the number of its threads. The solver spreads its calls of BLAS over blocks and
    receivers instead. The number is that of the whole process. The first of several threads sets
    it, and the last one sets it back, so that a fit that ends does not change it for another.
    """
    global _n_open, _before
    with _lock:
        if _n_open == 0:
            _before = [(library, library.num_threads) for library in _blas_libraries()]
        _n_open += 1
        for library, _ in _before:
            _set_threads(library, 1)
    try:
        yield
    finally:
        with _lock:
            _n_open -= 1
            if _n_open == 0:
                for library, n_threads in _before:
                    _set_threads(library, n_threads)


def _set_threads(library, n_threads):
    # That of threadpoolctl 3.8 has no effect outside the thread that called it first.
    getattr(library, "_real_set_num_threads", library.set_num_threads)(n_threads)


@cache
def _blas_libraries():
    libraries = ThreadpoolController().select(user_api="blas").lib_controllers
    return [library for library in libraries if library.num_threads is not None]
