"""One fit with the bins of many machines: workers read groups of shards, and their sums are merged.

A group is some consecutive shards, about as many bins as the others. A worker adds the sums of its
shards in their order, and the sums of the groups are added in pairs (`Submitted.merged`). The bits
therefore depend on the number of groups alone, and not on the executor. What the groups share (the
sources) is written once; a pass sends the coefficients.
"""

import itertools
import os
import threading
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from uuid import uuid4
from weakref import WeakKeyDictionary

import numpy as np

from fastglm._batches.executors import Workers
from fastglm._engine.observed import Observed
from fastglm._products.shards import Reader, Shards, add


class Spread:
    """Where the sums over `Shards` are made: by some workers.

    Parameters
    ----------
    workers : Workers
    sources : list of sources
        Those of the shards.
    """

    def __init__(self, workers: Workers, sources: list):
        self.workers = workers
        self.groups = groups_of(sources, workers.n_workers or os.cpu_count() or 1)
        self._shards = self._submitted = None

    def total(self, shards: Shards, function: Callable, observed: Observed | None) -> object:
        """The sum over the shards of ``function(products, its observations)``."""
        known = self._shards is not None and self._shards.restricted is shards.restricted
        if not known:
            self._shards = shards.viewed(None, None)
            # A worker may have the same value of an earlier fit, with features read from files
            # that have changed since: each fit has a value of its own.
            value = self._shards, uuid4().hex
            self._submitted = self.workers.submitted(group_sum, value)
        receivers = () if observed is None else (observed.events.receivers,)
        common = function, shards.columns_used, receivers
        here = partial(group_sum, (self._shards, ""))
        try:
            return self._submitted.merged(self.groups, common, here, add)
        except BaseException:
            self._shards = None  # what was written for the workers has gone
            raise


def groups_of(sources: list, n_groups: int) -> list[range]:
    """The numbers of consecutive sources, in at most so many groups with about as many bins."""
    ends = np.cumsum([source.stop - source.first for source in sources])
    inner = np.searchsorted(ends, ends[-1] * np.arange(1, n_groups) / n_groups) + 1
    edges = np.unique([0, *inner.clip(max=len(sources)), len(sources)]).tolist()
    return [range(a, b) for a, b in itertools.pairwise(edges)]


# --- in a worker ---

# Shards whose reader no thread uses, with the group that each has read last. They go along when
# `mapped` forgets a value.
_free, _lock = WeakKeyDictionary(), threading.Lock()


def group_sum(
    value: tuple, job: tuple, n_threads: int | None = None, check: Callable | None = None
) -> object:
    """The sum over a group of shards; ``check()`` is called after each of them."""
    (shards, _), (group, (function, columns_used, receivers), *_) = value, job
    with _borrowed(shards, group, columns_used) as view:
        observed = None
        if receivers:
            events = view.events() if receivers[0] is None else view.events().select(receivers[0])
            observed = Observed(events)
        return view.total_of(group, function, observed, check)


@contextmanager
def _borrowed(shards, group, columns_used):
    """The shards with a reader of the calling thread alone; it has read that group if one has.

    There are as many readers in a process as threads that read at once, each with one shard.
    """
    with _lock:
        for other in [other for other in _free if other is not shards]:
            del _free[other]
        views = _free.setdefault(shards, [])
        k = next((k for k, (last, _) in enumerate(views) if last == group), 0)
        view = views.pop(k)[1] if views else shards.viewed(None, Reader(shards.sources))
    if not np.array_equal(view.columns_used, columns_used):
        view = view.viewed(columns_used, view.reader)
    try:
        yield view
    finally:
        with _lock:
            if _free.get(shards) is views:
                views.append((group, view))
