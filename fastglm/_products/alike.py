"""Bins that have the same row of X."""

from typing import NamedTuple

import numpy as np

from fastglm._products.kinds import add_windows, kind_of

_FEW = 5000  # bins whose rows are built in less time than it takes to compare them
_WORTH = 0.5  # rows that are left, as a part of the bins, from which on they stay as they are


class Alike(NamedTuple):
    """Groups of bins with the same row, in the order of their first bins."""

    first: np.ndarray  # (n_groups,): place of the first bin among those of the fit
    times: np.ndarray  # (n_groups,): number of bins
    of: np.ndarray  # (n_bins,) int32: group of each bin; -1 if it is not in the fit


def alike(products, index):
    """The `Alike` of the bins ``index``; None where rows seldom are the same.

    The rows of histories are the same where no sender has an event within the window, and where
    one event of a size and a sender lies at one lag. Rows with more events are not compared.
    """
    blocks, n_bins = products.columns, products.shape[0]
    if index.size < _FEW or not products.concurrent:
        return None
    if not all(kind_of(c).from_events for c in blocks):
        return None
    seen = [_events_seen(c, n_bins)[index] for c in blocks]
    total = sum(seen)
    if np.count_nonzero(total <= 1) < (1 - _WORTH) * index.size:
        return None
    key, n_keys = np.where(total > 0, -1, 0), 1  # -1: a row of its own
    for c, n in zip(blocks, seen, strict=True):
        bins, units, amplitudes = c.events.arrays()
        one = np.flatnonzero((total == 1) & (n == 1))
        last = np.searchsorted(bins, index[one]) - 1  # the event before the bin
        sizes, size = np.unique(amplitudes, return_inverse=True)
        lag = index[one] - 1 - bins[last]
        key[one] = n_keys + (size[last] * c.n_senders + units[last]) * c.lags + lag
        n_keys += sizes.size * c.n_senders * c.lags
    if n_keys > index.size:
        return None
    times = np.bincount(key[key >= 0], minlength=n_keys)
    own = np.flatnonzero(key < 0)
    if np.count_nonzero(times) + own.size > _WORTH * index.size:
        return None
    key[own] = n_keys + np.arange(own.size)
    times = np.append(times, np.ones(own.size))
    first = np.zeros(times.size, np.int64)
    first[key[::-1]] = np.arange(index.size)[::-1]  # of several places the last one stays
    used = np.flatnonzero(times)
    order = used[np.argsort(first[used])]
    rank = np.zeros(times.size, np.int32)
    rank[order] = np.arange(order.size)
    of = np.full(n_bins, -1, np.int32)
    of[index] = rank[key]
    return Alike(first[order], times[order], of)


def _events_seen(block, n_bins):
    """Number of events within the window of each bin."""
    total, bins = np.zeros(n_bins), block.events.bins
    add_windows(bins + 1, block.lags, np.ones(bins.size), total)
    return np.cumsum(total)
