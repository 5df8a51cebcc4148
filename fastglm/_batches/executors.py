"""Where tasks run: one after another, or a thread each.

An executor has ``run(items, function, take, stop)``, which calls ``take(item, function(item))`` as
items are done. ``take`` is called in the thread of the caller. An interrupt calls ``stop``. The
items that have begun then return early, and ``take`` gets their results; the others do not begin.
Another machine is another executor.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import suppress

import numba
import numpy as np


class Serial:
    """One task after another; each has all threads."""

    def run(self, items: Iterable, function: Callable, take: Callable, stop: Callable) -> None:
        """Call ``take(item, function(item))`` for every item."""
        for item in items:
            take(item, function(item))


class Threads:
    """Some tasks at a time, each on one thread: for tasks too small to be divided.

    Kernels inside a task run on its thread alone.
    """

    def __init__(self, n_threads: int):
        self.n_threads = n_threads

    def run(self, items: Iterable, function: Callable, take: Callable, stop: Callable) -> None:
        """Call ``take(item, function(item))`` as items are done."""
        state = np.geterr()

        def call(item):
            with np.errstate(**state):
                return function(item)

        with ThreadPoolExecutor(self.n_threads, "fit", numba.set_num_threads, (1,)) as pool:
            left = {}
            try:
                for item in items:
                    left[pool.submit(call, item)] = item
                for future in as_completed(list(left)):
                    take(left.pop(future), future.result())
            except BaseException:
                stop()
                pool.shutdown(wait=False, cancel_futures=True)
                for future, item in left.items():
                    # Only the first exception is raised.
                    with suppress(CancelledError, Exception, KeyboardInterrupt):
                        take(item, future.result())
                raise
