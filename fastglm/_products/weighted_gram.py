"""The weighted Gram matrix of rows."""

import numpy as np

from fastglm import _kernels as kernels

_FULL = 0.3  # part of the multiplications above which BLAS is faster than packed rows


class WeightedGram:
    """``rows' diag(w) rows`` for many weights: packed where most entries are zero, else BLAS."""

    def __init__(self, rows):
        self.rows = rows
        n, size = rows.shape
        n_blocks = -(-n // kernels.GRAM_BLOCK)
        self.sizes = np.zeros(n_blocks, np.int64)
        self.columns = np.empty((n_blocks, size), np.int64)
        self.values = np.empty((n_blocks, kernels.GRAM_BLOCK * size))
        kernels.pack_rows(rows, self.sizes, self.columns, self.values)
        # Both factors of a product are that full at most.
        self.packed = (self.sizes.mean() / size) ** 2 < _FULL

    def add(self, weights, chosen, out):
        """Add to the lower triangle of ``out`` the matrix over the chosen, ascending columns."""
        if self.packed:
            place = np.full(self.rows.shape[1], -1)
            place[chosen] = np.arange(chosen.size)
            padded = np.zeros(self.sizes.size * kernels.GRAM_BLOCK)
            padded[: weights.size] = weights
            kernels.add_weighted_gram(self.sizes, self.columns, self.values, padded, place, out)
            return
        z = self.rows if chosen.size == self.rows.shape[1] else self.rows[:, chosen]
        weighted = z * np.sqrt(weights)[:, None]
        out += weighted.T @ weighted


def symmetric(lower):
    return np.tril(lower) + np.tril(lower, -1).T
