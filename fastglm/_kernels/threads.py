"""Threads beside the compiled kernels: BLAS on one thread, and calls of BLAS side by side."""

import os
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from threadpoolctl import ThreadpoolController

_pool = None
_blas = None


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


def all_blas_threads():
    """Context in which BLAS uses as many threads as the kernels, for one large call."""
    return _controller().limit(limits=numba.get_num_threads(), user_api="blas")


def single_threaded_blas():
    """Context in which BLAS uses one thread.

    Idle threads of BLAS spin, which costs the kernels a factor of two on two cores. The solver
    spreads its calls of BLAS over blocks and receivers instead.
    """
    return _controller().limit(limits=1, user_api="blas")


def _controller():
    global _blas
    if _blas is None:
        _blas = ThreadpoolController()
    return _blas
