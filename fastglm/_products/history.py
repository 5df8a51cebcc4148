"""Products of the history of senders, from the events without rows.

With ``R_ij(d) = sum_s n_i(s) n_j(s + d)`` the correlogram of two senders, counted over pairs of
events, and features ``x_ib(t) = sum_l K[l, b] n_i(t - 1 - l)``,

    sum_t x_ib(t) x_jc(t) = sum_d R_ij(d) A[d, b, c],   A[d, b, c] = sum_m K[m + d, b] K[m, c]

over all t, including bins before the first and after the last.
"""

import itertools
import weakref

import numpy as np

from fastglm import _kernels as kernels
from fastglm._kernels.dots import tiled_dot
from fastglm._kernels.threads import cut, n_pieces, run_kernels
from fastglm._products.pieces import work_of

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

    by_piece = True

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
        def project(tile, first, last):
            own = coef[first * n_funcs : last * n_funcs], tile * self.lanes
            kernels.project_filters(self.block.kernel, *own, self.filters[tile, first:last])

        n_funcs = self.block.n_funcs
        self._share(project, tiles, tiles.size * self.lanes * coef.shape[0] * 10)

    def prepare(self, chunks):
        """Nothing: all chunks have the same events."""

    def forward(self, piece, eta):
        block, filters = self.block, self.filters[piece.tile].reshape(-1)
        rest = filters, self.window_size, piece.chunk.start, piece.begin, piece.end, eta
        if self.lanes == 1:
            own = block.bins_by_sender, block.starts, self.amplitudes_by_sender
            kernels.history_forward_narrow(*own, *rest)
            return
        for events, amplitudes in zip(self.groups, self.amplitudes, strict=True):
            kernels.history_forward(events.bins, events.units, amplitudes, *rest)

    def backward(self, chunks, tiles, etas):
        kernel = kernels.history_backward if self.lanes > 1 else kernels.history_backward_narrow
        block = self.block

        def add(tile, first, last):
            starts, lag_sums = block.starts[first : last + 1], self.lag_sums[tile, first:last]
            own = block.bins_by_sender, starts, self.amplitudes_by_sender
            for chunk in chunks:
                window = self.window_size, chunk.start, chunk.n_rows
                kernel(*own, etas[chunk.slot][tile], *window, lag_sums)

        self._share(add, tiles, work_of(chunks, tiles, self.lanes))

    def collect(self, grad):
        def gather(tile, first, last):
            lag_sums = self.lag_sums[tile, first:last]
            lag_sums = lag_sums.reshape(last - first, -1, self.lanes)
            own = grad[first * n_funcs : last * n_funcs]
            kernels.collect_filters(self.block.kernel, lag_sums, tile * self.lanes, own)
            lag_sums[:] = 0

        n_funcs = self.block.n_funcs
        self._share(gather, np.arange(len(self.lag_sums)), grad.size * 10)

    def _share(self, function, tiles, work):
        """Call ``function(tile, first, last)`` for ranges of senders that cover all tiles.

        Threads get alike numbers of events.
        """
        n, starts, tiles = self.block.n_senders, self.block.starts, tiles.tolist()
        load = np.arange(n + 1) + starts  # a sender without events has some work too
        ends = np.arange(1, n_pieces()) / n_pieces() * (len(tiles) * load[-1])
        k, rest = np.divmod(ends, load[-1])
        edges = k.astype(int) * n + np.searchsorted(load[:-1], rest)
        edges = np.unique([0, *edges, len(tiles) * n]).tolist()

        def call(piece):
            first, last = piece  # senders, counted tile by tile
            for k in range(first // n, -(-last // n)):
                function(tiles[k], max(first - k * n, 0), min(last - k * n, n))

        run_kernels(call, list(itertools.pairwise(edges)), work)


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

        def project(i, out=xty[some], table=table):
            out[i] = tiled_dot(block.kernel.T, table[i], lanes)

        run_kernels(project, range(len(table)), table.size * n_funcs)
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

    def project(i):
        out[i] = (table[i].T @ flat).reshape(-1, n, m).transpose(1, 0, 2)

    run_kernels(project, range(table.shape[0]), table.size * n * m)
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

        def count(piece, first=first, table=table):
            begin, end = piece
            own = block.bins_by_sender, block.amplitudes_by_sender
            starts = block.starts[first + begin : first + end + 1]
            others = later.bins, later.units, later.amplitudes
            kernels.count_pairs(starts, *own, *others, table[begin:end])

        run_kernels(count, cut(len(table)), table.size)
        yield some, table
