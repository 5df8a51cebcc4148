"""The kinds of blocks of columns: one table, which products, plans and samples read.

A new kind of column is a class in `fastglm.features` and an entry here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastglm import _kernels as kernels
from fastglm._products.history import HistorySweep, history_moments
from fastglm._products.rows import RowSweep, RunSweep, row_bytes, row_moments
from fastglm.features import (
    DenseColumns,
    HistoryColumns,
    ProductColumns,
    SlowColumns,
    TraceColumns,
)

_FEW_COLUMNS = 8  # most columns of a dense block that is multiplied without BLAS


class Work(NamedTuple):
    """The cost of one product ``X c`` or ``X' r`` for one receiver."""

    additions: float  # additions of events, if history is multiplied from events
    products: float  # multiply-adds beside these additions
    rows: float  # multiply-adds, if all columns are multiplied as rows

    def __add__(self, other):
        return Work(*(a + b for a, b in zip(self, other, strict=True)))


@dataclass(frozen=True)
class Kind:
    """The products of columns of one kind, and their cost.

    Attributes
    ----------
    from_events : bool
        Whether products and correlograms are sums over events.
    sweep : function of (block, n_tiles, lanes, dtype, products)
        ``X C`` and ``X' R`` chunk by chunk.
    moments : function of (block, events), or None
        ``X'Y`` from the events of Y. None for rows that cost more than a product with Y: they are
        multiplied in every bin, for all receivers.
    work : function of (block, used, n_bins)
        `Work` of the columns of a boolean array, or of all (None).
    span : function of (block, n_bins)
        First bin whose row is not zero, and one past the last; they may lie outside the recording.
    curvature : function of (block, n_bins)
        Eigenvalues of one sender's part of ``X'X / n_bins``, if the senders were independent, and
        the number of senders.
    seen : function of (block, total)
        Adds to ``total`` the activity of each bin, as increments from bin to bin.
    lane_bytes : function of (block, n_features)
        Bytes of the filters and their sums, for a receiver with that many features.
    """

    from_events: bool
    sweep: Callable
    moments: Callable | None
    work: Callable
    span: Callable
    curvature: Callable
    seen: Callable
    lane_bytes: Callable


def kind_of(block):
    """The `Kind` of a block of columns."""
    return KINDS[type(block)]


# --- history ---


def _history_sweep(block, n_tiles, lanes, dtype, products):
    sweep = HistorySweep if products == "events" else RowSweep
    return sweep(block, n_tiles, lanes, dtype)


def _history_work(block, used, n_bins):
    n_events, n_columns = block.n_events, block.n_columns
    if used is not None:
        senders = used.reshape(block.n_senders, -1).any(axis=1)
        n_events, n_columns = np.diff(block.starts)[senders].sum(), int(used.sum())
    return Work(n_events * block.lags, 0, n_bins * n_columns)


def _history_span(block, n_bins):
    if not block.n_events:
        return 0, n_bins
    bins = block.events.bins
    return int(bins[0]) + 1, int(bins[-1]) + 1 + block.lags


def _history_curvature(block, n_bins):
    rate = block.n_events / (block.n_senders * n_bins)
    return rate * np.linalg.eigvalsh(block.kernel.T @ block.kernel).clip(min=0), block.n_senders


def _history_seen(block, total):
    if not block.n_events:
        return
    events = block.events
    per_unit = np.bincount(events.units, np.abs(events.amplitudes), events.n_units)
    weight = np.abs(events.amplitudes) / per_unit[events.units]
    add_windows(events.bins + 1, block.lags, weight, total)


def add_windows(first, n_bins, weight, total):
    """Add weights to the bins of a window, as increments, from the first bin of each window on."""
    for at, sign in ((first, 1), (first + n_bins, -1)):
        inside = at < total.size
        counted = np.bincount(np.maximum(at[inside], 0), weight[inside], total.size)
        total += sign * counted.astype(np.float32)


def _history_bytes(block, n_features):
    senders = min(block.n_senders, -(-n_features // block.n_funcs))
    lags = block.lags + 2 * kernels.PAD
    return senders * lags * 12 + senders * (lags - kernels.PAD) * 16


# --- rows ---


def _dense_sweep(block, n_tiles, lanes, dtype, products):
    few = block.n_columns <= _FEW_COLUMNS
    return (RunSweep if few else RowSweep)(block, n_tiles, lanes, dtype)


def _slow_sweep(block, n_tiles, lanes, dtype, products):
    return RunSweep(block, n_tiles, lanes, dtype)


def _row_sweep(block, n_tiles, lanes, dtype, products):
    return RowSweep(block, n_tiles, lanes, dtype)


def _row_work(block, used, n_bins):
    both = n_bins * (block.n_columns if used is None else int(used.sum()))
    return Work(0, both, both)


def _row_span(block, n_bins):
    return 0, n_bins


def _row_curvature(block, n_bins):
    return np.array([np.inf]), block.n_columns


def _row_seen(block, total):
    """Nothing: these columns have no events."""


def _row_bytes(block, n_features):
    return 0


# --- traces ---


def _trace_work(block, used, n_bins):
    n_columns = block.n_columns if used is None else int(used.sum())
    # The rows of a chunk are convolved once for the two products of a tile.
    both = n_bins * n_columns * (1 + block.lags / (2 * kernels.LANES))
    return Work(0, both, both)


def _trace_bytes(block, n_features):
    return row_bytes(min(block.n_columns, n_features))


def _trace_seen(block, total):
    bins = np.arange(block.n_bins) + (1 - block.shift)
    add_windows(bins, block.lags, block.activity() / max(block.n_bins, 1), total)


_HISTORY = Kind(
    True,
    _history_sweep,
    history_moments,
    _history_work,
    _history_span,
    _history_curvature,
    _history_seen,
    _history_bytes,
)
_ROWS = row_moments, _row_work, _row_span, _row_curvature, _row_seen, _row_bytes
_TRACES = None, _trace_work, _row_span, _row_curvature, _trace_seen, _trace_bytes
KINDS = {
    HistoryColumns: _HISTORY,
    TraceColumns: Kind(False, _row_sweep, *_TRACES),
    DenseColumns: Kind(False, _dense_sweep, *_ROWS),
    SlowColumns: Kind(False, _slow_sweep, *_ROWS),
    ProductColumns: Kind(False, _row_sweep, *_ROWS),
}
