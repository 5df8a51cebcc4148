"""Sufficient statistics from events: ``X'Y``, ``X'1`` and ``X'X``, without a pass over the bins.

With ``R_ij(d) = sum_s n_i(s) n_j(s + d)`` the correlogram of two senders, counted over pairs of
events, and features ``x_ib(t) = sum_l K[l, b] n_i(t - 1 - l)``,

    sum_t x_ib(t) x_jc(t) = sum_d R_ij(d) A[d, b, c],   A[d, b, c] = sum_m K[m + d, b] K[m, c]

over all t, also before the first bin and beyond the last. The rows that do not belong to the sum
(edges of epochs, bins without a count, what runs over the ends) are few: they are built and taken
off, which makes the result exact. A fit needs ``X'Y`` once; ``X'X`` is the shape of every
receiver's Hessian (Zoltowski & Pillow, 2018, use both for an approximate fit).
"""

from dataclasses import dataclass

import numpy as np

from fastglm import _kernels as kernels
from fastglm.features import FeatureMatrix, Sweep

_TABLE_BYTES = 1 << 26  # correlograms that are held at a time
_ROWS = 4096  # rows that are built at a time
_CROSS = 32  # columns that may stand for receivers: two tiles; rows and BLAS for more


@dataclass
class Moments:
    """Sums over the valid bins: what a fit knows before the first iteration."""

    xty: np.ndarray  # (n_features, n_receivers)
    x: np.ndarray  # (n_features,)
    sum_y: np.ndarray  # (n_receivers,)


def moments(X, valid, events, weight=None, sums=None):
    """``X'Y``, ``X'1`` and ``sum(Y)`` over the valid bins, from the events of Y in float64.

    ``events`` holds the bins, receivers and amplitudes of Y, sorted by bin, and the number of
    receivers. ``weight``, one for each bin, stands in the place of 1. ``sums`` is ``X'1``, where it
    is known.
    """
    keep = valid[events.bins]
    if not keep.all():
        events = events.take(keep)
    sum_y = np.bincount(events.units, events.amplitudes, events.n_units)
    xty = np.zeros((X.shape[1], events.n_units))
    for block, (start, stop) in zip(X.columns, X.column_ranges, strict=True):
        if hasattr(block, "kernel"):
            xty[start:stop] = _history_moments(block, events)
        else:
            for first in range(0, events.n_events, _ROWS):
                part = slice(first, first + _ROWS)
                rows = _finite_rows(block, events.bins[part])
                rows *= events.amplitudes[part, None]
                for j in np.unique(events.units[part]):
                    xty[start:stop, j] += rows[events.units[part] == j].sum(axis=0)
    return Moments(xty, column_sums(X, valid, weight) if sums is None else sums, sum_y)


def gram(X, valid):
    """``X'X`` over the valid bins, shape (n_features, n_features), float64.

    Time: a few nanoseconds for every pair of events within a window, and
    ``n_senders^2 * window_size * n_funcs^2`` multiply-adds. Memory: the result, and 64 MB.
    """
    result = np.zeros((X.shape[1],) * 2)
    edges = _uncounted_rows(X, valid)
    few = edges.size < 0.5 * valid.sum()
    ranges = list(zip(X.columns, X.column_ranges, strict=True))
    for a, (block, (start, stop)) in enumerate(ranges):
        for other, (begin, end) in ranges[a:]:
            part = result[start:stop, begin:end]
            if few and hasattr(block, "kernel") and hasattr(other, "kernel"):
                part[:] = _history_gram(block, other)
                for first in range(0, edges.size, _ROWS):
                    index = edges[first : first + _ROWS]
                    part -= _rows(block, index).T @ _rows(other, index)
            elif few and hasattr(block, "kernel") and other.n_columns <= _CROSS:
                part[:] = _history_cross(block, other, valid)
            elif few and hasattr(other, "kernel") and block.n_columns <= _CROSS:
                part[:] = _history_cross(other, block, valid).T
            else:
                index = np.flatnonzero(valid)
                for first in range(0, index.size, _ROWS):
                    some = index[first : first + _ROWS]
                    part += _finite_rows(block, some).T @ _finite_rows(other, some)
            if other is not block:
                result[begin:end, start:stop] = part.T
    return result


def _history_moments(block, events):
    """``X'Y`` of a history block: correlograms with the receivers, projected on the kernel."""
    window_size, n_funcs = block.kernel.shape
    xty = np.empty((block.n_senders, n_funcs, events.n_units))
    # A table starts at the bin of the sender's event; the first lag is the bin after it.
    for some, table in _correlograms(block, events.shift(-1), window_size):
        xty[some] = np.einsum("lb,ilj->ibj", block.kernel, table, optimize=True)
    return xty.reshape(-1, events.n_units)


def _history_gram(block, other):
    """``X'X`` of two history blocks over all bins from minus to plus infinity."""
    n, m = block.n_funcs, other.n_funcs
    result = np.zeros((block.n_senders, n, other.n_senders, m))
    ahead = _kernel_overlap(block.kernel, other.kernel)
    behind = _kernel_overlap(other.kernel, block.kernel)
    behind[0] = 0  # lag 0 is counted in the other
    for some, table in _correlograms(block, other.events, ahead.shape[0]):
        result[some] += _project(table, ahead)
        if other is block:
            result[:, :, some] += _project(table, behind).transpose(2, 3, 0, 1)
    if other is not block:
        for some, table in _correlograms(other, block.events, behind.shape[0]):
            result[:, :, some] += _project(table, behind).transpose(2, 3, 0, 1)
    return result.reshape(block.n_columns, other.n_columns)


def _history_cross(block, other, valid):
    """``X'Z`` of a history block and a few other columns: a pass with these for receivers."""
    sweep = Sweep(FeatureMatrix([block]), other.n_columns)
    for start, n_rows in sweep.chunks():
        rows = _finite_rows(other, np.arange(start, start + n_rows))
        rows[~valid[start : start + n_rows]] = 0
        sweep.backward(start, n_rows, sweep.put(rows))
    return sweep.collect()[:, : other.n_columns]


def _project(table, overlap):
    """``out[i, b, j, c] = sum_d table[i, d, j] * overlap[d, b, c]``."""
    n_lags, n, m = overlap.shape
    flat = overlap.reshape(n_lags, -1)
    out = np.empty((table.shape[0], n, table.shape[2], m))
    for i in range(table.shape[0]):
        out[i] = (table[i].T @ flat).reshape(-1, n, m).transpose(1, 0, 2)
    return out


def _kernel_overlap(kernel, other):
    """``A[d, b, c] = sum_m kernel[m + d, b] * other[m, c]`` for d >= 0."""
    overlap = np.zeros((kernel.shape[0], kernel.shape[1], other.shape[1]))
    for lag in range(kernel.shape[0]):
        size = min(kernel.shape[0] - lag, other.shape[0])
        overlap[lag] = kernel[lag : lag + size].T @ other[:size]
    return overlap


def _correlograms(block, later, n_lags):
    """Yield senders, and their correlograms with later events, of shape (some, n_lags, n)."""
    n_cells = later.n_units
    size = max(1, _TABLE_BYTES // (8 * n_lags * n_cells))
    for first in range(0, block.n_senders, size):
        some = slice(first, min(first + size, block.n_senders))
        table = np.empty((some.stop - first, n_lags, n_cells))
        kernels.launch(
            kernels.count_pairs,
            block.starts[first : some.stop + 1],
            block.bins_by_sender,
            block.amplitudes_by_sender,
            later.bins,
            later.units,
            later.amplitudes,
            table,
        )
        yield some, table


def _uncounted_rows(X, valid):
    """Bins that events reach but the sums leave out; they may lie outside the recording."""
    n_bins = valid.shape[0]
    low, high = 0, n_bins
    for block in X.columns:
        if hasattr(block, "kernel") and block.n_events:
            low = min(low, int(block.events.bins[0]) + 1)
            high = max(high, int(block.events.bins[-1]) + 1 + block.kernel.shape[0])
    return np.concatenate([np.arange(low, 0), np.flatnonzero(~valid), np.arange(n_bins, high)])


def column_sums(X, valid, weight=None):
    """``X'1`` over the valid bins, or ``X' weight``, in float64."""
    sweep = Sweep(X, 1, np.float64, 1)
    for start, n_rows in sweep.chunks():
        keep = valid[start : start + n_rows].astype(np.float64)
        if weight is not None:
            keep *= weight[start : start + n_rows]
        sweep.backward(start, n_rows, sweep.put(keep[:, None]))
    return sweep.collect()[:, 0]


def _rows(block, index):
    out = np.empty((index.size, block.n_columns))
    block.rows(index, out)
    return out


def _finite_rows(block, index):
    rows = _rows(block, index)
    rows[~np.isfinite(rows)] = 0
    return rows
