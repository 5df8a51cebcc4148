"""``X C`` and ``X' R`` of one batch of receivers, chunk by chunk."""

from itertools import islice

import numpy as np

from fastglm import _kernels as kernels
from fastglm._kernels.threads import n_threads_now
from fastglm._products.kinds import kind_of
from fastglm._products.pieces import Chunk, interior, run_pieces
from fastglm._products.rows import RowSweep, chunk_of_rows

CHUNK = 8192  # bins of a chunk of a full tile: 512 KB of float32, half of a core's L2
_AHEAD = 16  # tiles of a round for each thread, so that all have alike work
_MOST_AHEAD = 32  # tiles of a round that has more than one chunk: 34 MB in float64


class Sweep:
    """``X C`` and ``X' R`` of one batch of receivers, a round of chunks of bins at a time.

    Set the coefficients. For the chunks of each of the `rounds`, call `forward`, which makes
    ``etas[slot][tile]`` and turns it into a residual by a function that is given, and then
    `backward`. At the end, `collect` the gradient. ``products`` is the way to multiply history
    blocks: "events" or "rows".
    """

    def __init__(self, X, n_receivers, dtype=np.float64, lanes=kernels.LANES, products="events"):
        self.X, self.lanes, self.dtype = X, lanes, np.dtype(dtype)
        self.n_tiles = -(-n_receivers // lanes)
        self.n_receivers = self.n_tiles * lanes  # padded
        self.tiles = np.arange(self.n_tiles)
        self.parts = [kind_of(c).sweep(c, self.n_tiles, lanes, dtype, products) for c in X.blocks]
        # A tile of any width fills the same memory.
        block = kernels.NARROW_BLOCK
        self.n_rows = min(CHUNK * kernels.LANES // lanes, -(-X.shape[0] // block) * block)
        built = sum(part.block.n_columns for part in self.parts if isinstance(part, RowSweep))
        if built:
            self.n_rows = min(self.n_rows, chunk_of_rows(built, dtype))
        self.etas = []  # of each slot, (n_tiles, (PAD + n_rows + PAD) * lanes)

    def set_coef(self, coef, tiles=None):
        """Set the coefficients, shape (n_features, n_receivers), and the tiles to work on."""
        self.tiles = np.arange(self.n_tiles) if tiles is None else tiles
        padded = np.zeros((coef.shape[0], self.n_receivers))
        padded[:, : coef.shape[1]] = coef
        for part, (start, stop) in zip(self.parts, self.X.column_ranges, strict=True):
            part.set_coef(padded[start:stop], self.tiles)

    def rounds(self, valid=None):
        """Lists of chunks that are worked on side by side; those without a valid bin are left out.

        The next round overwrites what stands in ``etas``.
        """
        n_bins, size = self.X.shape[0], self._chunks_of_a_round()
        starts = np.arange(0, n_bins, self.n_rows)
        if valid is not None:  # such as a fold that is held out
            starts = starts[np.logical_or.reduceat(valid, starts)] if n_bins else starts
        starts = iter(starts.tolist())
        while some := list(islice(starts, size)):
            yield [Chunk(k, at, min(self.n_rows, n_bins - at)) for k, at in enumerate(some)]

    def _chunks_of_a_round(self):
        if n_threads_now() == 1 or not all(part.by_piece for part in self.parts):
            return 1  # the rows of one chunk are in memory
        n_tiles = min(_AHEAD * n_threads_now(), _MOST_AHEAD)
        return max(n_tiles // max(self.n_tiles, 1), 1)

    def _make_room(self, chunks):
        shape = self.n_tiles, (self.n_rows + 2 * kernels.PAD) * self.lanes
        while len(self.etas) <= max(chunk.slot for chunk in chunks):
            self.etas.append(kernels.aligned_zeros(shape, self.dtype))

    def forward(self, chunks, *then):
        """``etas[slot] = X[chunk] @ coef`` in the layout of the kernels, without intercept.

        Functions of a `Piece` and its eta change it further, piece by piece.
        """
        self._make_room(chunks)
        steps = [_clear(self.lanes)]
        for part in self.parts:
            if part.by_piece:
                part.prepare(chunks)
                steps.append(part.forward)
            else:
                self._take(steps, chunks)
                part.forward(chunks, self.tiles, self.etas)
                steps = []
        self._take([*steps, _clear_tail(self.lanes), *then], chunks)

    def _take(self, steps, chunks):
        def call(piece):
            eta = self.etas[piece.chunk.slot][piece.tile]
            for step in steps:
                step(piece, eta)

        if steps:
            run_pieces(call, chunks, self.tiles, self.lanes)

    def put(self, chunk, values):
        """Copy ``values`` of shape (n_rows, n_receivers) into the layout of the kernels."""
        self._make_room([chunk])
        eta = self.etas[chunk.slot]
        eta[:] = 0
        out, n = interior(eta, 0, chunk.n_rows, self.lanes), values.shape[1]
        for tile in range(self.n_tiles):
            width = min(self.lanes, n - tile * self.lanes)
            if width > 0:
                out[tile, :, :width] = values[:, tile * self.lanes : tile * self.lanes + width]

    def get(self, chunk, n):
        """The first ``n`` receivers of the chunk as an array of shape (n_rows, n)."""
        eta = interior(self.etas[chunk.slot], 0, chunk.n_rows, self.lanes)
        return eta.transpose(1, 0, 2).reshape(chunk.n_rows, -1)[:, :n]

    def backward(self, chunks):
        """Add ``X[chunk].T @ residual``, where the residual stands in ``etas``."""
        for part in self.parts:
            part.backward(chunks, self.tiles, self.etas)

    def collect(self):
        """The sums of `backward`, shape (n_features, n_receivers); they start anew from 0."""
        grad = np.zeros((self.X.shape[1], self.n_receivers))
        for part, (start, stop) in zip(self.parts, self.X.column_ranges, strict=True):
            part.collect(grad[start:stop])
        return grad


def _clear(lanes):
    def clear(piece, eta):
        interior(eta, piece.begin, piece.end, lanes)[:] = 0

    return clear


def _clear_tail(lanes):
    """Set what lies behind a chunk to 0: the next one may have been longer."""

    def clear(piece, eta):
        if piece.end == piece.chunk.n_rows:
            eta[(kernels.PAD + piece.end) * lanes :] = 0

    return clear
