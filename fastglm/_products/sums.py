"""Sufficient statistics from events: ``X'Y``, ``X'1`` and ``X'X``, without a pass over the bins.

Sums over all bins follow from correlograms (see `history`). Some rows do not belong to a sum: edges
of epochs, bins without a count, and windows that run over the ends of the recording. They are few,
so they are built and subtracted, which makes the result exact. A fit needs ``X'Y`` once; ``X'X`` is
the shape of every receiver's Hessian (Zoltowski & Pillow, 2018, use both for an approximate fit).
"""

from typing import NamedTuple

import numpy as np

from fastglm._kernels import LANES
from fastglm._kernels.threads import run_threads
from fastglm._products.history import history_gram
from fastglm._products.kinds import kind_of
from fastglm._products.rows import finite_rows, rows_of
from fastglm._products.sweep import Sweep
from fastglm._products.weighted_gram import mirror
from fastglm.features import Events, FeatureMatrix

_ROWS = 4096  # rows that are built at a time
_ROW_BYTES = 1 << 23  # the same where features are many
_PANEL = 256  # columns of X'X that one thread adds up at a time
_CROSS = 32  # most columns (two tiles) that are multiplied as receivers; more columns take BLAS


class Moments(NamedTuple):
    """Sums over the valid bins, made before the first iteration of a fit."""

    xty: np.ndarray  # (n_features, n_receivers)
    x: np.ndarray  # (n_features,)
    sum_y: np.ndarray  # (n_receivers,)


def moments(X, valid, events, weight=None, sums=None):
    """``X'Y``, ``X'1`` and ``sum(Y)`` over the valid bins, in float64.

    Y are `Events` of the receivers. With ``weight``, one for each bin, the sums are ``X'W Y``,
    ``X'w`` and ``sum(w Y)``. ``sums`` is ``X'1``, if it is known.
    """
    x = column_sums(X, valid, weight) if sums is None else sums
    whole = weight is None and events.values is None and valid.all()
    of_bin = None if whole else np.where(valid, 1.0 if weight is None else weight, 0.0)
    sum_y = events.sums(of_bin)
    if events.values is not None:
        return Moments(project(X, valid, events, weight), x, sum_y)
    if not whole:
        events = events.take(valid[events.bins])
    if weight is not None:
        events = events.take(slice(None))
        events.amplitudes = events.amplitudes * weight[events.bins]
    xty = np.zeros((X.shape[1], events.n_units))
    for block, (start, stop) in zip(X.blocks, X.column_ranges, strict=True):
        of_events = kind_of(block).moments
        if of_events is None:
            xty[start:stop] = project(FeatureMatrix([block], valid), valid, events)
        else:
            xty[start:stop] = of_events(block, events)
    return Moments(xty, x, sum_y)


def gram(X, valid, weight=None):
    """``X'X`` over the valid bins, shape (n_features, n_features), float64.

    With a weight for each bin it is ``X' diag(weight) X``, which is made from the rows in
    ``n_bins * n_features**2`` multiply-adds.

    Time without weights: a few nanoseconds for every pair of events within a window, and
    ``n_senders^2 * window_size * n_funcs^2`` multiply-adds. Memory: the result, and 64 MB.
    """
    result = np.zeros((X.shape[1],) * 2)
    edges = _uncounted_rows(X, valid)
    few = edges.size < 0.5 * valid.sum() and weight is None
    ranges = list(zip(X.blocks, X.column_ranges, strict=True))
    for a, (block, (start, stop)) in enumerate(ranges):
        for other, (begin, end) in ranges[a:]:
            part = result[start:stop, begin:end]
            left, right = kind_of(block).from_events, kind_of(other).from_events
            if few and left and right:
                part[:] = history_gram(block, other)
                for first in range(0, edges.size, _ROWS):
                    index = edges[first : first + _ROWS]
                    part -= rows_of(block, index).T @ rows_of(other, index)
            elif few and left and other.n_columns <= _CROSS:
                part[:] = _history_cross(block, other, valid)
            elif few and right and block.n_columns <= _CROSS:
                part[:] = _history_cross(other, block, valid).T
            else:
                _add_rows(block, other, valid, weight, part)
            if other is not block:
                result[begin:end, start:stop] = part.T
    return result


def _add_rows(block, other, valid, weight, out):
    """Add ``X' diag(weight) Z`` of the rows of two blocks, which may be the same."""
    index, same = np.flatnonzero(valid), other is block
    n_rows = _ROW_BYTES // (8 * max(block.n_columns, other.n_columns))
    n_rows = min(max(n_rows, _PANEL), _ROWS)
    for first in range(0, index.size, n_rows):
        some = index[first : first + n_rows]
        left = finite_rows(block, some)
        right = left if same else finite_rows(other, some)
        if weight is not None:
            right = right * weight[some, None]

        def add(begin, left=left, right=right):
            columns = slice(begin, begin + _PANEL)
            below = slice(begin if same else 0, None)
            out[below, columns] += left[:, below].T @ right[:, columns]

        run_threads(add, range(0, other.n_columns, _PANEL), left.size)
    if same:
        mirror(out)


def _history_cross(block, other, valid):
    """``X'Z`` of a history block and a few other columns Z, by a pass with Z as the residual."""
    sweep = Sweep(FeatureMatrix([block]), other.n_columns)
    for chunks in sweep.rounds():
        for chunk in chunks:
            rows = finite_rows(other, np.arange(chunk.bins.start, chunk.bins.stop))
            rows[~valid[chunk.bins]] = 0
            sweep.put(chunk, rows)
        sweep.backward(chunks)
    return sweep.collect()[:, : other.n_columns]


def _uncounted_rows(X, valid):
    """Bins with rows that a sum must leave out; they may lie outside the recording."""
    n_bins = valid.shape[0]
    low, high = 0, n_bins
    for block in X.blocks:
        begin, end = kind_of(block).span(block, n_bins)
        low, high = min(low, begin), max(high, end)
    return np.concatenate([np.arange(low, 0), np.flatnonzero(~valid), np.arange(n_bins, high)])


def column_sums(X, valid, weight=None):
    """``X'1`` over the valid bins, or ``X' weight``, in float64."""
    ones = np.broadcast_to(1.0, (X.shape[0], 1))
    return project(X, valid, ones, weight, lanes=1)[:, 0]


def project(X, valid, values, weight=None, lanes=LANES):
    """``X' diag(weight) values`` over the valid bins, for n columns of values, in float64.

    ``values`` has shape (n_bins, n): an array, what gives one for a slice of bins, or `Events`.
    """
    n, sweep = values.shape[1], Sweep(X, values.shape[1], lanes=lanes)
    by_rows = isinstance(values, Events)
    for chunks in sweep.rounds():
        for chunk in chunks:
            bins = chunk.bins
            some = values.rows(np.arange(bins.start, bins.stop)) if by_rows else values[bins]
            own = np.where(valid[bins, None], some, 0.0)
            if weight is not None:
                own = own * weight[bins, None]  # float64, also where the values are not
            sweep.put(chunk, own)
        sweep.backward(chunks)
    return sweep.collect()[:, :n]
