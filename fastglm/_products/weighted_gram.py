"""The weighted Gram matrix of rows, for Newton steps, standard errors and score tests."""

import numpy as np

from fastglm import _kernels as kernels

_FULL = 0.3  # if a larger part of the products is not zero, BLAS is faster than packed rows
_BLOCK = 128  # rows and columns that are transposed at a time


class WeightedGram:
    """``rows' diag(w) rows`` for many weights: by packed rows if most entries are 0, else BLAS.

    Parameters
    ----------
    rows : ndarray of shape (n, size)
        The last column may be the intercept's.
    """

    def __init__(self, rows):
        self.rows = rows
        n, size = rows.shape
        n_blocks = -(-n // kernels.GRAM_BLOCK)
        self.sizes = np.zeros(n_blocks, np.int64)
        self.columns = np.empty((n_blocks, size), np.int64)
        self.values = np.empty((n_blocks, kernels.GRAM_BLOCK * size))
        kernels.pack_rows(rows, self.sizes, self.columns, self.values)
        # A part of ``sizes.mean() / size`` of the columns is not zero, in both factors.
        self.packed = (self.sizes.mean() / size) ** 2 < _FULL

    def add(self, weights, chosen, out):
        """Add the matrix over the chosen, ascending columns to the lower triangle of ``out``."""
        if self.packed:
            place = np.full(self.rows.shape[1], -1)
            place[chosen] = np.arange(chosen.size)
            padded = np.zeros(self.sizes.size * kernels.GRAM_BLOCK)
            padded[: weights.size] = weights
            kernels.add_weighted_gram(self.sizes, self.columns, self.values, padded, place, out)
            return
        z = self.rows if chosen.size == self.rows.shape[1] else self.rows[:, chosen]
        if weights.min(initial=0.0) < 0:  # of a loss that is not convex
            out += z.T @ (z * weights[:, None])
            return
        weighted = z * np.sqrt(weights)[:, None]
        out += weighted.T @ weighted


def symmetric(lower):
    """The symmetric matrix with a given lower triangle."""
    return np.tril(lower) + np.tril(lower, -1).T


def mirror(matrix):
    """Copy the lower triangle to the upper one in place, block by block."""
    edges = range(0, len(matrix), _BLOCK)
    for rows in (slice(first, first + _BLOCK) for first in edges):
        for first in range(0, rows.start, _BLOCK):  # whole blocks stay in the cache
            columns = slice(first, first + _BLOCK)
            matrix[columns, rows] = matrix[rows, columns].T
        matrix[rows, rows] = symmetric(matrix[rows, rows])
    return matrix
