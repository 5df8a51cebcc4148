"""Products of the history of senders, from the events without rows.

With ``R_ij(d) = sum_s n_i(s) n_j(s + d)`` the correlogram of two senders, counted over pairs of
events, and features ``x_ib(t) = sum_l K[l, b] n_i(t - 1 - l)``,

    sum_t x_ib(t) x_jc(t) = sum_d R_ij(d) A[d, b, c],   A[d, b, c] = sum_m K[m + d, b] K[m, c]

over all t, including bins before the first and after the last.
"""

import weakref

import numpy as np

from fastglm import _kernels as kernels
from fastglm._kernels.dots import tiled_dot

# The float32 filters of a group of senders take `_GROUP_BYTES`. Its float64 filters, twice as
# large, then stay in a core's L2 (512 KB). At 8 Hz, groups of 17 senders make a float64 pass 1.2
# times as fast as groups of 64. At 0.5 Hz, groups of 17 cost a factor of 1.5; a group is therefore
# at least so large that `_GROUP_EVENTS` of its events reach a block of bins.
_GROUP_BYTES, _GROUP_EVENTS = 1 << 18, 10
_groups = weakref.WeakKeyDictionary()  # groups of each block, which several sweeps share
_TABLE_BYTES = 1 << 26  # correlograms in memory at a time


class HistorySweep:
    """Products of a history block with one batch of receivers, from the events.

    Memory: filters and lag sums, ``n_senders * (2 * window_size + 2 * PAD + BLOCK)`` values a
    receiver. It does not grow with the number of bins.
    """

    def __init__(self, block, n_tiles, lanes, dtype):
        self.block, self.lanes = block, lanes
        self.window_size = block.kernel.shape[0]
        size = kernels.BLOCK if lanes == kernels.LANES else kernels.NARROW_BLOCK
        n_lags = -(-self.window_size // size) * size
        span = self.window_size + 2 * kernels.PAD
        self.filters = kernels.aligned_zeros((n_tiles, block.n_senders, span, lanes), dtype)
        self.lag_sums = kernels.aligned_zeros((n_tiles, block.n_senders, n_lags * lanes))
        self.groups = sender_groups(block) if lanes > 1 else []
        self.amplitudes = [g.amplitudes.astype(dtype, copy=False) for g in self.groups]
        self.amplitudes_by_sender = block.amplitudes_by_sender.astype(dtype, copy=False)

    def set_coef(self, coef, tiles):
        kernels.launch(
            kernels.project_filters,
            self.block.kernel,
            coef,
            self.lanes,
            tiles,
            self.filters,
        )

    def forward(self, start, n_rows, tiles, eta):
        block, filters = self.block, self.filters.reshape(self.filters.shape[0], -1)
        rest = filters, self.window_size, start, n_rows, tiles, eta
        if self.lanes == 1:
            own = block.bins_by_sender, block.starts, self.amplitudes_by_sender
            kernels.launch(kernels.history_forward_narrow, *own, *rest)
            return
        for events, amplitudes in zip(self.groups, self.amplitudes, strict=True):
            own = events.bins, events.units, amplitudes
            kernels.launch(kernels.history_forward, *own, *rest)

    def backward(self, start, n_rows, tiles, residual):
        wide, narrow = kernels.history_backward, kernels.history_backward_narrow
        kernels.launch(
            wide if self.lanes > 1 else narrow,
            self.block.bins_by_sender,
            self.block.starts,
            self.amplitudes_by_sender,
            residual,
            self.window_size,
            start,
            n_rows,
            tiles,
            self.lag_sums,
        )

    def collect(self, grad):
        lag_sums = self.lag_sums.reshape(*self.lag_sums.shape[:2], -1, self.lanes)
        kernels.launch(kernels.collect_filters, self.block.kernel, lag_sums, self.lanes, grad)
        self.lag_sums[:] = 0


def sender_groups(block):
    """The events of a block in groups of senders whose filters stay in the second-level cache."""
    if block not in _groups:
        _groups[block] = _group_senders(block)
    return _groups[block]


def _group_senders(block):
    events, window_size = block.events, block.lags
    span = window_size + 2 * kernels.PAD
    seen = block.n_events * (window_size + kernels.BLOCK) / max(block.n_bins * block.n_senders, 1)
    size = max(8, _GROUP_BYTES // (4 * kernels.LANES * span), int(_GROUP_EVENTS / max(seen, 1e-9)))
    if events.n_units <= size:
        return [events]
    group = events.units // size
    return [events.take(group == g) for g in range(int(group.max(initial=0)) + 1)]


def history_moments(block, events):
    """``X'Y`` of a history block: correlograms with the receivers, projected on the kernel.

    The bits of a receiver do not depend on the others: its column stands in a whole tile.
    """
    (window_size, n_funcs), lanes = block.kernel.shape, kernels.LANES
    xty = np.empty((block.n_senders, n_funcs, -(-events.n_units // lanes) * lanes))
    # A table starts at the bin of the sender's event, but the first lag is the next bin.
    for some, table in _correlograms(block, events.shift(-1), window_size, lanes):
        for out, lags in zip(xty[some], table, strict=True):
            out[:] = tiled_dot(block.kernel.T, lags, lanes)
    return xty[:, :, : events.n_units].reshape(-1, events.n_units)


def history_gram(block, other):
    """``X'X`` of two history blocks over all bins from minus to plus infinity."""
    n, m = block.n_funcs, other.n_funcs
    result = np.zeros((block.n_senders, n, other.n_senders, m))
    ahead = _kernel_overlap(block.kernel, other.kernel)
    behind = _kernel_overlap(other.kernel, block.kernel)
    behind[0] = 0  # lag 0 is counted in ``ahead``
    for some, table in _correlograms(block, other.events, ahead.shape[0]):
        result[some] += _project(table, ahead)
        if other is block:
            result[:, :, some] += _project(table, behind).transpose(2, 3, 0, 1)
    if other is not block:
        for some, table in _correlograms(other, block.events, behind.shape[0]):
            result[:, :, some] += _project(table, behind).transpose(2, 3, 0, 1)
    return result.reshape(block.n_columns, other.n_columns)


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


def _correlograms(block, later, n_lags, lanes=1):
    """Yield senders, and their correlograms with later events, of shape (some, n_lags, n).

    With ``lanes`` n is filled up to whole tiles, with zeros.
    """
    n_cells = -(-later.n_units // lanes) * lanes
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
