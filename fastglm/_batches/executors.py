"""Where tasks run: one after the other, or a thread each. A machine is one more class.

An executor has ``run(items, function, take, stop)``: it calls ``take(item, function(item))`` for
items as they get done. ``take`` is called here, in the thread of the caller. An interrupt calls
``stop``, takes what the items that were begun return then, and leaves the others.
"""

from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import suppress

import numba
import numpy as np


class Serial:
    """One task after the other; each has all threads."""

    def run(self, items, function, take, stop):
        """Call ``take(item, function(item))`` for every item."""
        for item in items:
            take(item, function(item))


class Threads:
    """Some tasks at a time, for work too small to be divided: each on one thread.

    Kernels inside a task run on its thread alone.
    """

    def __init__(self, n_threads):
        self.n_threads = n_threads

    def run(self, items, function, take, stop):
        """Call ``take(item, function(item))`` for items as they get done."""
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
                    # The first one is raised, whatever comes of the others.
                    with suppress(CancelledError, Exception, KeyboardInterrupt):
                        take(item, future.result())
                raise
