"""``X C`` and ``X' R`` of one batch of receivers, chunk by chunk."""

import numpy as np

from fastglm import _kernels as kernels
from fastglm._products.kinds import kind_of
from fastglm._products.rows import RowSweep, chunk_of_rows

CHUNK = 8192  # bins of a chunk of a full tile: 512 KB of float32, half of a core's L2


class Sweep:
    """``X C`` and ``X' R`` of one batch of receivers, one chunk of bins at a time.

    Set the coefficients. For each of the `chunks`, call `forward`, turn ``eta`` into a residual in
    place, and pass it to `backward`. At the end, `collect` the gradient. ``products`` is the way to
    multiply history blocks: "events" or "rows".
    """

    def __init__(self, X, n_receivers, dtype=np.float64, lanes=kernels.LANES, products="events"):
        self.X, self.lanes = X, lanes
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
        self.eta = kernels.aligned_zeros(
            (self.n_tiles, (self.n_rows + 2 * kernels.PAD) * lanes), dtype
        )

    def set_coef(self, coef, tiles=None):
        """Set the coefficients, shape (n_features, n_receivers), and the tiles to work on."""
        self.tiles = np.arange(self.n_tiles) if tiles is None else tiles
        padded = np.zeros((coef.shape[0], self.n_receivers))
        padded[:, : coef.shape[1]] = coef
        for part, (start, stop) in zip(self.parts, self.X.column_ranges, strict=True):
            part.set_coef(padded[start:stop], self.tiles)

    def chunks(self):
        """Start and number of rows of every chunk."""
        for start in range(0, self.X.shape[0], self.n_rows):
            yield start, min(self.n_rows, self.X.shape[0] - start)

    def forward(self, start, n_rows):
        """``X[start : start + n_rows] @ coef`` in the layout of the kernels, without intercept."""
        self.eta[:] = 0
        for part in self.parts:
            part.forward(start, n_rows, self.tiles, self.eta)
        self.eta[:, (kernels.PAD + n_rows) * self.lanes :] = 0
        return self.eta

    def put(self, values):
        """Copy ``values`` of shape (n_rows, n_receivers) into the layout of the kernels."""
        n_rows, n = values.shape
        self.eta[:] = 0
        out = self.eta.reshape(self.n_tiles, -1, self.lanes)
        for tile in range(self.n_tiles):
            width = min(self.lanes, n - tile * self.lanes)
            if width > 0:
                out[tile, kernels.PAD : kernels.PAD + n_rows, :width] = values[
                    :, tile * self.lanes : tile * self.lanes + width
                ]
        return self.eta

    def add(self, values):
        """Add values of shape (n_rows, 1 or n_receivers) to ``eta``."""
        n_rows, n = values.shape
        out = self.eta.reshape(self.n_tiles, -1, self.lanes)[:, kernels.PAD : kernels.PAD + n_rows]
        for tile in self.tiles:
            if n == 1:
                out[tile] += values
            else:
                part = values[:, tile * self.lanes : (tile + 1) * self.lanes]
                out[tile][:, : part.shape[1]] += part

    def get(self, n_rows, n):
        """The first ``n`` receivers of the chunk as an array of shape (n_rows, n)."""
        eta = self.eta.reshape(self.n_tiles, -1, self.lanes)
        eta = eta[:, kernels.PAD : kernels.PAD + n_rows]
        return eta.transpose(1, 0, 2).reshape(n_rows, -1)[:, :n]

    def backward(self, start, n_rows, residual):
        """Add ``X[start : start + n_rows].T @ residual``."""
        for part in self.parts:
            part.backward(start, n_rows, self.tiles, residual)

    def collect(self):
        """The sums of `backward`, shape (n_features, n_receivers); they start anew from 0."""
        grad = np.zeros((self.X.shape[1], self.n_receivers))
        for part, (start, stop) in zip(self.parts, self.X.column_ranges, strict=True):
            part.collect(grad[start:stop])
        return grad
