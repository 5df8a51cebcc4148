"""``X' diag(w) X`` for a few weights at a time, with histories from pairs of their events.

The sum over a row needs the square of the columns that are not zero, in every bin and for every
weight. Two events of a history meet in at most a window of bins, and one addition a bin and weight
is all that their pair needs; see `fastglm._kernels.pairs`. Columns without events, and histories
that have more events in a window than functions, are *rows*: they meet the other histories as
residuals of a pass over the events, and each other as rows. The last row is the intercept's.
"""

import numpy as np

from fastglm import _kernels as kernels
from fastglm._products.kinds import kind_of
from fastglm._products.weighted_gram import mirror

LANES = kernels.PAIR_LANES
_MOST_BYTES = 1 << 30  # triangles of a tile, which has fewer lanes beyond
# Bytes of weights whose pairs of events are added up at a time: of a tile, and most of all tiles.
# Kernels are applied once a chunk to the pairs of two senders at one distance, so chunks are longer
# where such pairs are few.
_TILE_BYTES, _CHUNK_BYTES = 1 << 26, 1 << 29
_MET = 4  # pairs of events, for whose weights a chunk need not be longer
_ROWS = 1 << 15  # bins whose rows are built at a time
# Time of a multiply-add, relative to one of a product of rows by BLAS: of packed rows, of a pair of
# events, of the kernels, and of an event with a row.
_PACKED, _PAIR, _KERNEL, _ROW = 3.0, 4.0, 3.0, 4.0
_SORTED = 4.0  # lanes that take as long as what a tile takes whatever their number
MOST_ROWS = 64  # columns without events, beside which products of rows are as fast


class EventGram:
    """Gram matrices of X and the intercept for some vectors of weights, a tile of `lanes` each.

    `add` the weights of consecutive ranges of bins, `finish`, and take each `matrix`.

    Parameters
    ----------
    X : FeatureMatrix
    n : int
        Number of vectors of weights.
    wanted : ndarray of bool, shape (n_features, n), optional
        Features of each receiver. Entries of two senders that no receiver wants stay 0.
    diagonal : bool
        Only the entries of a sender with itself, and of rows with each other.
    lanes : int
        Vectors of weights that are worked on together, side by side.

    Notes
    -----
    Memory: `triangle_bytes` for each tile; weights and rows of a chunk of bins, 64 MB for each tile
    or up to 512 MB for all of them where two senders have few pairs of events; and, in each thread,
    16 bytes for each pair of events of one sender and some 80 others within such a chunk.
    """

    def __init__(self, X, n, wanted=None, diagonal=False, lanes=LANES):
        self.X, self.lanes = X, lanes
        self.size = X.shape[1] + 1
        if wanted is None:
            wanted = np.ones((X.shape[1], 1), bool)
        paired = [_is_sparse(block) for block in X.blocks]
        ranges = list(zip(X.blocks, X.column_ranges, paired, strict=True))
        self.histories = [(block, begin) for block, (begin, _), by in ranges if by]
        self.others = [block for block, _, by in ranges if not by]
        columns = [np.arange(*bounds) for _, bounds, by in ranges if not by]
        self.columns = np.concatenate([*columns, [X.shape[1]]]).astype(np.int64)
        self.pairs = list(_pairs_of(self.histories, wanted, diagonal))
        self.crossed = [] if diagonal else self.histories
        n_tiles = -(-n // lanes)
        self.triangles = np.zeros((n_tiles, self.size * (self.size + 1) // 2, lanes))
        self.n_rows = self._chunk(n_tiles)
        self.weights = np.zeros((n_tiles, self.n_rows * lanes))
        self.rows = np.ones((self.columns.size, self.n_rows))
        self.first = self.stop = 0

    def _chunk(self, n_tiles):
        """Bins whose weights are added up at a time, as many with fewer lanes."""
        n_rows = _TILE_BYTES // (8 * (LANES + self.columns.size))
        if n_rows < self.X.shape[0]:
            met = distances = 0.0
            for block, _, other, _, wanted in self.pairs:
                met += _pairs_met(block, other, wanted)
                distances += wanted.sum() * (block.lags + other.lags - 1)
            if met:
                n_rows = max(n_rows, int(min(_MET * distances / met, 1.0) * self.X.shape[0]))
        most = max(_ROWS, _CHUNK_BYTES // (8 * (n_tiles * self.lanes + self.columns.size)))
        return min(n_rows, most, self.X.shape[0])

    def add(self, start, weights):
        """Add the rows of the bins from ``start`` on; ranges of bins follow each other.

        Parameters
        ----------
        weights : ndarray of shape (n_chunk, n)
            0 where a row is not valid.
        """
        if self.stop == self.first:
            self.first = self.stop = start
        tiles = self.weights.reshape(len(self.weights), self.n_rows, self.lanes)
        while len(weights):
            used = self.stop - self.first
            room = min(self.n_rows - used, len(weights))
            for k, tile in enumerate(tiles):
                part = weights[:room, k * self.lanes : (k + 1) * self.lanes]
                tile[used : used + room, : part.shape[1]] = part
            self.stop, weights = self.stop + room, weights[room:]
            if self.stop - self.first == self.n_rows:
                self.finish()

    def finish(self):
        """Add the products over the bins that have been given and not yet been added."""
        n = self.stop - self.first
        self._build_rows(n)
        weights, bounds, out = self.weights, (self.first, self.stop), self.triangles
        kernels.add_rows(self.rows, self.columns, weights, bounds, out)
        for block, row, other, column, wanted in self.pairs:
            two = other.events.bins, other.events.units, other.events.amplitudes
            rest = self._kernel(other), wanted, weights, bounds, (row, column), out
            own = _by_sender(block), self._kernel(block)
            kernels.add_pairs(own[0], own[1], two, *rest)
        for block, column in self.crossed:
            own = _by_sender(block), self._kernel(block), self.rows, self.columns
            kernels.add_crossed(*own, weights, bounds, column, out)
        self.first = self.stop

    def _build_rows(self, n):
        """Build the rows of n bins; those of the intercept are 1."""
        for begin in range(0, n, _ROWS):
            end, first = min(begin + _ROWS, n), 0
            for block in self.others:
                part = np.empty((end - begin, block.n_columns))
                block.rows(np.arange(self.first + begin, self.first + end), part)
                part[~np.isfinite(part)] = 0  # such rows are not valid
                self.rows[first : first + block.n_columns, begin:end] = part.T
                first += block.n_columns

    def _kernel(self, block):
        """The kernel repeated over the lanes, (n_funcs, window_size * lanes), and its support."""
        functions = block.kernel.T
        support = np.empty((len(functions), 2), np.int64)
        for b, values in enumerate(functions):
            inside = np.flatnonzero(values)
            support[b] = (inside[0], inside[-1] + 1) if inside.size else (0, 0)
        return np.repeat(functions, self.lanes, axis=1), support

    def matrix(self, k, chosen):
        """The matrix of vector k of weights over the chosen, ascending columns, symmetric."""
        out = np.empty((chosen.size, chosen.size))
        values = self.triangles[k // self.lanes, :, k % self.lanes]
        for a, row in enumerate(chosen):
            begin = row * (row + 1) // 2
            out[a, : a + 1] = values[begin + chosen[: a + 1]]
        return mirror(out)


def triangle_bytes(n_features, lanes=LANES):
    """Bytes of the triangles of one tile, with the intercept's row."""
    return 4 * lanes * (n_features + 1) * (n_features + 2)


def lanes_of(n_features, n_sets=1):
    """Lanes of a tile: `LANES`, and half as many while some sets of triangles are above 1 GB."""
    lanes = LANES
    while lanes > 1 and n_sets * triangle_bytes(n_features, lanes) > _MOST_BYTES:
        lanes //= 2
    return lanes


def n_rows_of(X):
    """Number of columns that are not multiplied by pairs of events, the intercept's included."""
    return 1 + sum(block.n_columns for block in X.blocks if not _is_sparse(block))


def event_work(X, wanted, lanes=LANES):
    """Time of the matrices of a tile, in multiply-adds by BLAS."""
    blocks = list(zip(X.blocks, X.column_ranges, strict=True))
    histories = [(block, begin) for block, (begin, _) in blocks if _is_sparse(block)]
    n_rows = n_rows_of(X)
    if n_rows > MOST_ROWS:
        return np.inf
    total = _ROW * X.shape[0] * n_rows**2
    for block, _ in histories:
        total += _ROW * block.n_events * block.lags * n_rows
    for block, _, other, _, both in _pairs_of(histories, wanted, False):
        lags = block.lags + other.lags - 1
        met = _pairs_met(block, other, both)
        total += _PAIR * met * min(block.lags, other.lags) / 2
        runs = min(met, both.sum() * lags) * min(block.lags, other.lags) / 2
        total += _KERNEL * (runs + both.sum() * lags) * max(block.n_funcs, other.n_funcs)
    return (lanes + _SORTED) * LANES / (LANES + _SORTED) * total


def row_work(X, sizes):
    """Time of the matrices of receivers with ``sizes`` columns, from rows, in the same unit."""
    active = [
        1
        - np.exp(
            -block.n_events * (block.lags + kernels.GRAM_BLOCK) / (block.n_senders * X.shape[0])
        )
        if kind_of(block).from_events
        else 1.0
        for block in X.blocks
    ]
    part = np.average(active, weights=[block.n_columns for block in X.blocks]) ** 2
    return X.shape[0] * (sizes**2).sum() / 2 * min(1.0, _PACKED * part)


def _pairs_met(block, other, both):
    """About how many pairs of events of some pairs of senders have windows with a bin in common.

    Of all such pairs of two histories it is the part that these senders have of all their pairs.
    """
    bins, others = block.events.bins, other.events.bins
    last, first = (np.searchsorted(others, bins + by) for by in (block.lags, 1 - other.lags))
    mine, theirs = np.diff(block.starts), np.diff(other.starts)
    return float((last - first).sum()) * (mine @ both @ theirs / (mine.sum() * theirs.sum()))


def _is_sparse(block):
    """Whether the columns of a block are multiplied by pairs of events."""
    if not kind_of(block).from_events or not block.n_events:
        return False
    met = block.n_events * block.lags / (block.n_senders * max(block.n_bins, 1))
    return met <= block.n_funcs


def _pairs_of(histories, wanted, diagonal):
    """Each two histories with their first columns, the later one first, and what is wanted.

    Yields (block, row, other, column, wanted), with booleans of shape (n_senders, n_senders of the
    other), at and below the diagonal for a history with itself.
    """
    used = []
    for block, first in histories:
        part = wanted[first : first + block.n_columns]
        part = part.reshape(block.n_senders, block.n_funcs, -1)
        used.append(part.any(axis=1).astype(np.float32))
    for a, (block, row) in enumerate(histories):
        for b, (other, column) in enumerate(histories[: a + 1]):
            both = used[a] @ used[b].T > 0
            if diagonal:
                both &= np.eye(len(both), dtype=bool) if a == b else False
            if both.any():
                yield block, row, other, column, np.tril(both) if a == b else both


def _by_sender(block):
    return block.bins_by_sender, block.amplitudes_by_sender, block.starts
