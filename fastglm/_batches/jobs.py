"""What a worker does with a job, and what it gives in place of a result."""

import gc
import os
import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numba
import numpy as np

from fastglm._batches.mapped import Reference, in_use, load
from fastglm._files import describe
from fastglm._kernels.threads import kernel_threads, single_threaded_blas

_LONG = 1.0  # seconds of a job after which garbage is collected, which takes 0.1 to 1 s


@dataclass(frozen=True)
class Call:
    """What the jobs of a fit have in common."""

    function: Callable
    reference: Reference
    n_threads: int | None
    sharing: int
    errors: dict  # what NumPy does about them in the calling process


@dataclass(frozen=True)
class Failed:
    """In place of a result: the function raised an error."""

    error: Exception


class Unseen:
    """In place of a result: the worker does not see the folder."""


@in_use()
def work(call: Call, item: object, n_lost: int, sent: Mapping | None) -> object:
    """The result of a job in a process of its own; ``n_lost`` tells its submissions apart."""
    begin = time.monotonic()
    watched = call.reference.wanted  # before the value is read: its folder may go at any time
    try:
        value = load(call.reference, sent)
    except FileNotFoundError:
        return Unseen()

    def check():
        if watched and not call.reference.wanted:
            raise KeyboardInterrupt

    n_threads = call.n_threads or given_threads(call.sharing)
    try:
        with kernel_threads(n_threads), single_threaded_blas(), np.errstate(**call.errors):
            return call.function(value, item, n_threads, check)
    except KeyboardInterrupt:
        raise RuntimeError("interrupted in the worker") from None
    except Exception as error:
        return _failed(error)
    finally:
        del value
        if time.monotonic() - begin > _LONG:
            gc.collect()  # of the cycle that the first call of a compiled kernel leaves


def work_of_dask(
    call: Call, item: object, common: object, n_lost: int, sent: Mapping | None
) -> object:
    """The result of a job of Dask."""
    return work(call, (item, common), n_lost, sent)


def added(add: Callable, a: object, b: object) -> object:
    """The sum of two results of Dask, or the first that is none."""
    for found in (a, b):
        if isinstance(found, Failed | Unseen):
            return found
    return add(a, b)


def same(value: object) -> object:
    """A value that jobs of Dask have in common, as a job: Dask can do it again."""
    return value


def work_here(function: Callable, item: object, n_threads: int, errors: dict) -> object:
    """The result of a job in a thread of the calling process."""
    try:
        with kernel_threads(n_threads), single_threaded_blas(), np.errstate(**errors):
            return function(item)
    except Exception as error:
        return Failed(error)


def _failed(error):
    """An error that can be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(describe(error))
    return Failed(error)


def given_threads(sharing: int) -> int:
    """Threads of a task in this process, where ``sharing`` tasks run at once on the machine."""
    cores = numba.config.NUMBA_NUM_THREADS
    for name, n in (("SLURM_CPUS_PER_TASK", sharing), ("OMP_NUM_THREADS", 1)):
        given = os.environ.get(name, "")
        if given.isdigit():
            return max(1, min(int(given) // n, cores))
    return max(1, cores // sharing)
