"""Products of rows, built chunk by chunk, and of columns that are constant over runs of bins."""

import numpy as np

from fastglm import _kernels as kernels
from fastglm._kernels.dots import tiled_dot
from fastglm._kernels.threads import run_threads
from fastglm._products.pieces import interior, run_pieces

_ROWS = 512  # rows that one thread multiplies at a time
_AT_ONCE = 16  # blocks of rows whose sums are held at a time
_EVENTS = 4096  # events whose rows are built at a time
_CHUNK_BYTES = 1 << 25  # rows that are kept from `forward` to `backward`


class RowSweep:
    """Products of rows by BLAS, with some rows and all receivers at a time.

    The shape of a product follows from the tiles alone, and small products are done tile by tile
    (see `tiled_dot`). The bits of a receiver do not depend on the others. The rows of a chunk are
    built once for `forward` and `backward`.
    """

    by_piece = False
    _at = None

    def __init__(self, block, n_tiles, lanes, dtype):
        self.block, self.lanes, self.dtype = block, lanes, dtype
        self.coef = np.zeros((block.n_columns, 0), dtype)
        self.grad = np.zeros((block.n_columns, n_tiles * lanes))
        self._buffer = np.empty((0, block.n_columns), dtype)

    def set_coef(self, coef, tiles):
        self.coef = np.ascontiguousarray(coef[:, lanes_of(tiles, self.lanes)], self.dtype)

    def _values(self, start, n_rows):
        if self._at != (start, n_rows):
            if len(self._buffer) < n_rows:
                self._buffer = np.empty((n_rows, self.block.n_columns), self.dtype)
            rows = self._buffer[:n_rows]
            self.block.rows(np.arange(start, start + n_rows), rows)
            if self.block.may_be_nan:  # rows with NaN are not valid
                rows[~np.isfinite(rows)] = 0
            self._at = start, n_rows
        return self._buffer[:n_rows]

    def forward(self, chunks, tiles, etas):
        for chunk in chunks:
            self._forward(chunk.start, chunk.n_rows, tiles, etas[chunk.slot])

    def backward(self, chunks, tiles, etas):
        for chunk in chunks:
            self._backward(chunk.start, chunk.n_rows, tiles, etas[chunk.slot])

    def _forward(self, start, n_rows, tiles, eta):
        values, out = self._values(start, n_rows), interior(eta, 0, n_rows, self.lanes)

        def block(first):
            part = slice(first, first + _ROWS)
            product = tiled_dot(values[part], self.coef, self.lanes)
            product = product.reshape(product.shape[0], tiles.size, self.lanes)
            for k, tile in enumerate(tiles):
                out[tile, part] += product[:, k]

        run_threads(block, range(0, n_rows, _ROWS), values.size)

    def _backward(self, start, n_rows, tiles, residual):
        values = self._values(start, n_rows)
        residual = interior(residual, 0, n_rows, self.lanes)

        def block(first):
            part = slice(first, first + _ROWS)
            stacked = residual[tiles, part].transpose(1, 0, 2).reshape(-1, tiles.size * self.lanes)
            return tiled_dot(values[part].T, stacked, self.lanes)

        starts = range(0, n_rows, _ROWS)
        for first in range(0, len(starts), _AT_ONCE):
            for part in run_threads(block, starts[first : first + _AT_ONCE], values.size):
                self.grad[:, lanes_of(tiles, self.lanes)] += part

    def collect(self, grad):
        grad += self.grad
        self.grad[:] = 0


class RunSweep:
    """Products of columns that are constant over runs of bins, or of a few dense columns.

    Cost each way: an addition for each bin and receiver, and ``n_columns`` multiply-adds for each
    run and receiver. Memory: ``n_columns`` sums for each receiver and segment of a chunk, and the
    samples in the precision of the pass.
    """

    by_piece = True

    def __init__(self, block, n_tiles, lanes, dtype):
        self.block, self.lanes, self.dtype = block, lanes, dtype
        wide = lanes == kernels.LANES
        self._multiply = kernels.runs_forward if wide else kernels.runs_forward_narrow
        self._sum = kernels.runs_backward if wide else kernels.runs_backward_narrow
        self.coef = np.zeros((n_tiles, block.n_columns * lanes), dtype)
        self.grad = np.zeros((n_tiles, block.n_columns * lanes))
        self._runs, self._given = {}, None

    def set_coef(self, coef, tiles):
        part = coef[:, lanes_of(tiles, self.lanes)].reshape(len(coef), tiles.size, self.lanes)
        self.coef[tiles] = part.transpose(1, 0, 2).reshape(tiles.size, -1)

    def prepare(self, chunks):
        """Look up the runs of chunks, once for `forward` and `backward`."""
        known = self._runs
        self._runs = {c.start: known.get(c.start) or self._look_up(c) for c in chunks}

    def _look_up(self, chunk):
        values, edges, samples = self.block.runs(chunk.start, chunk.n_rows)
        if values is not self._given:  # slow columns give the same samples for every chunk
            self._given, self._taken = values, np.array(values, self.dtype, order="C")
            self._taken[~np.isfinite(self._taken)] = 0  # rows with NaN are not valid
        return self._taken, edges, samples

    def forward(self, piece, eta):
        runs = self._runs[piece.chunk.start]
        self._multiply(*runs, self.coef[piece.tile], piece.begin, piece.end, eta)

    def backward(self, chunks, tiles, etas):
        self.prepare(chunks)
        n_segments = -(-max(c.n_rows for c in chunks) // kernels.SEGMENT)
        shape = len(chunks), len(self.coef), n_segments, self.coef.shape[1]
        sums = np.zeros(shape, self.dtype)  # of a segment

        def add(piece):
            slot, tile = piece.chunk.slot, piece.tile
            own = etas[slot][tile], piece.begin, piece.end, sums[slot, tile]
            self._sum(*self._runs[piece.chunk.start], *own)

        run_pieces(add, chunks, tiles, self.lanes)
        for chunk in chunks:  # its own segments: zeros behind them would change NumPy's order
            own = sums[chunk.slot, tiles, : -(-chunk.n_rows // kernels.SEGMENT)]
            self.grad[tiles] += own.sum(axis=1, dtype=np.float64)

    def collect(self, grad):
        n = len(grad)
        tiles = self.grad.reshape(len(self.grad), n, self.lanes)
        grad += tiles.transpose(1, 0, 2).reshape(n, len(tiles) * self.lanes)
        self.grad[:] = 0


def chunk_of_rows(n_columns, dtype=np.float64):
    """Most bins of a chunk whose rows are built, a multiple of `_ROWS`."""
    n_rows = _CHUNK_BYTES // (np.dtype(dtype).itemsize * max(n_columns, 1))
    return max(n_rows // _ROWS, 1) * _ROWS


def row_bytes(n_columns):
    """Bytes of a receiver beside the rows: coefficients, gradients, and sums of single blocks."""
    return n_columns * (28 + 8 * _AT_ONCE)


def lanes_of(tiles, lanes):
    return (tiles[:, None] * lanes + np.arange(lanes)).ravel()


def row_moments(block, events):
    """``X'Y`` of columns whose rows are built at the events of Y.

    The bits of a receiver do not depend on the others: its events are added in pieces of their own.
    """
    xty = np.zeros((block.n_columns, events.n_units))
    order, starts = events.by_unit
    for j in range(events.n_units):
        own = order[starts[j] : starts[j + 1]]
        for first in range(0, own.size, _EVENTS):
            some = own[first : first + _EVENTS]
            rows = finite_rows(block, events.bins[some])
            rows *= events.amplitudes[some, None]
            xty[:, j] += rows.sum(axis=0)
    return xty


def rows_of(block, index):
    """The rows of a block at some ascending bins, float64."""
    out = np.empty((index.size, block.n_columns))
    block.rows(index, out)
    return out


def finite_rows(block, index):
    """The same with 0 in the place of unknown values, whose rows are not valid."""
    rows = rows_of(block, index)
    rows[~np.isfinite(rows)] = 0
    return rows
