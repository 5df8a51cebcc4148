"""Threads beside the compiled kernels: BLAS on one, many BLAS calls on as many as the kernels."""

import os
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from threadpoolctl import ThreadpoolController

_pool = None
_blas = None


def run_threads(function, items, work=1 << 20):
    """Results of a function over items, on as many threads as the kernels have.

    For calls of BLAS, LAPACK and NumPy, which release the interpreter; NumPy warns in a thread of
    what it warns of here. Below about 1e5 numbers of ``work`` a thread costs more than it saves.
    Not for compiled kernels: OpenMP would keep a team of its own for each thread.
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

    Its idle threads spin, and on two cores they cost the kernels a factor of two; the solver
    spreads its BLAS calls over blocks and receivers instead.
    """
    return _controller().limit(limits=1, user_api="blas")


def _controller():
    global _blas
    if _blas is None:
        _blas = ThreadpoolController()
    return _blas
