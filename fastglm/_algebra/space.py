"""Coordinates of features that are collinear, or nearly so.

``X'X`` has the square of the condition number of X. Columns that differ by 1e-7 of their size are
still two features, but their ``X'X`` is singular in float64. A QR factor of the centred rows keeps
all digits that the rows have.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg.lapack import dgejsv

from fastglm._algebra.linear import null_basis

_EPS = np.finfo(np.float64).eps
ROUNDED = 64 * _EPS  # of its size: a smaller deviation of a column is the rounding of its sums
_NOISE = 16  # a direction is collinear if its size is below so many roundings of its columns
# Also below this part of the columns: coefficients along it are so large that their own rounding
# moves eta, and no objective can be attained.
_HELD = 1e-12
_ENTRY = 1e-6  # of the largest entry of a direction of scaled features: less may be rounding


@dataclass
class Space:
    """Coordinates z of the coefficients of some features, ``c = basis @ z``.

    Attributes
    ----------
    mean : ndarray of shape (n_features,)
        Means of the features, which the coordinates are centred by.
    basis : ndarray of shape (n_features, n)
        Directions with a variance of 1, then directions that the penalty alone sees.
    null : ndarray of shape (n_features, k)
        Orthonormal directions that neither the rows nor the penalty see.
    smallest : float
        Smallest standard deviation of a direction that the rows see, if the features have 1.
    """

    mean: np.ndarray
    basis: np.ndarray
    null: np.ndarray
    smallest: float

    def of(self, rows: np.ndarray) -> np.ndarray:
        """The coordinates of some rows."""
        return (rows - self.mean) @ self.basis


def find_space(blocks: Callable, size: np.ndarray, pull: np.ndarray) -> Space:
    """The `Space` of some rows with a quadratic penalty.

    Parameters
    ----------
    blocks : function
        Returns an iterator over blocks of rows, shape (n, n_features), each with the numbers of
        bins that its rows stand for, (n,), or None.
    size : ndarray of shape (n_features,)
        Root mean square of the features, to which the rounding of their values is relative.
    pull : ndarray of shape (n_features, n_features)
        Hessian of the penalty.
    """
    n_features = size.size
    n, mean, spread = _moments(blocks, n_features)
    varies = spread > ROUNDED * size
    unit, n_varied = spread[varies], int(varies.sum())
    factor = np.zeros((0, n_varied))
    for rows, times in blocks():
        scaled = (rows[:, varies] - mean[varies]) / unit
        if times is not None:
            scaled *= np.sqrt(times)[:, None]
        factor = np.linalg.qr(np.vstack([factor, scaled]), mode="r")
    # In units of their own rounding no column hides what another one tells.
    noise = np.maximum(_NOISE * _EPS * size[varies] / unit, _HELD)
    factor /= np.sqrt(n) * noise
    values, vectors = _svd(factor)
    seen = values > np.sqrt(n_varied)
    directions = _clean(vectors, factor, values, seen)
    n_unseen = int((~seen).sum())
    null = np.zeros((n_features, n_unseen + n_features - n_varied))
    null[varies, :n_unseen] = null_basis(directions[~seen].T, unit * noise)
    null[np.flatnonzero(~varies), np.arange(n_unseen, null.shape[1])] = 1.0
    scaled = vectors[seen].T / noise[:, None] / values[seen]
    smallest = 1 / np.linalg.norm(scaled, axis=0).max(initial=1.0)
    basis = np.zeros((n_features, int(seen.sum())))
    basis[varies] = scaled / unit[:, None]
    basis -= null @ (null.T @ basis)  # of least norm, so that no coefficient is larger than need be
    scale = np.ones(n_features)
    scale[varies] = unit
    free, pulled = _split(null, scale, pull)
    return Space(mean, np.column_stack([basis, pulled]), free, smallest)


def sum_rows(rows: np.ndarray, times: np.ndarray | None) -> np.ndarray:
    """The sum over the bins that some rows stand for, each for so many, or for one (None)."""
    return rows.sum(axis=0) if times is None else times @ rows


def _split(null, scale, pull):
    """Directions that a quadratic penalty does not see, and those that it sees.

    A penalty is as exact in small units as in large ones, so a direction that it sees is told by
    entries that are no rounding, whatever their units.
    """
    part = np.abs(null) * scale[:, None]
    clear = np.where(part > _ENTRY * part.max(axis=0, initial=0), null, 0.0)
    gram = clear.T @ pull @ clear
    size = np.sqrt(np.diag(gram).clip(min=0))
    size[size == 0] = 1.0
    weights, axes = np.linalg.eigh(gram / size / size[:, None])
    n_free = int((weights <= 1e-12).sum())
    # The orthonormal complement of the free directions follows them.
    turn, _ = np.linalg.qr(axes[:, :n_free] / size[:, None], mode="complete")
    return null @ turn[:, :n_free], null @ turn[:, n_free:]


def _clean(vectors, factor, values, seen):
    """The right singular vectors of a factor, of which the unseen have no entries of rounding.

    The factor's columns are in units of their rounding, so that noise turns a vector by up to one
    over the smallest seen value. In the user's units an entry is divided by the deviation of its
    feature, and becomes large where that is small. The smallest entries go, as many as leave the
    direction as hidden as it is.
    """
    out = vectors.copy()
    turn = np.sqrt(values.size) / values[seen].min(initial=1 / _HELD)
    for k in np.flatnonzero(~seen):
        small = np.flatnonzero(np.abs(vectors[k]) <= turn)
        small = small[np.argsort(np.abs(vectors[k, small]))]
        taken = np.cumsum(factor[:, small] * vectors[k, small], axis=1)
        size = np.linalg.norm((factor @ vectors[k])[:, None] - taken, axis=0)
        rough = max(1 / _NOISE, 2 * values[k])
        n_out = np.append(0, 1 + np.flatnonzero(size <= rough))[-1]
        if n_out < vectors[k].size:
            out[k, small[:n_out]] = 0.0
    return out


def _svd(matrix):
    """Singular values and right vectors (rows), to the digits of each column.

    A column may be many digits smaller than another. Rotations of columns (one-sided Jacobi) keep
    its digits, which the bidiagonal form of `numpy.linalg.svd` does not [1]_.

    References
    ----------
    .. [1] Drmač and Veselić (2008), "New fast and accurate Jacobi SVD algorithm I", SIAM Journal
       on Matrix Analysis and Applications 29.
    """
    n = matrix.shape[1]
    if n == 0:
        return np.zeros(0), np.zeros((0, 0))
    tall = np.zeros((max(n, len(matrix)), n))
    tall[: len(matrix)] = matrix
    # Columns of any scale (C), small values kept (N), not transposed (N). Without left vectors
    # (which nobody needs) LAPACK 3.12 fails where columns are exactly dependent.
    values, _, vectors, work, _, info = dgejsv(tall, joba=0, jobu=0, jobv=0, jobr=0, jobt=1)
    if info:
        raise np.linalg.LinAlgError("the Jacobi rotations of the features do not converge")
    return values * (work[0] / work[1]), vectors.T


def _moments(blocks, n_features):
    """Number of bins, and mean and standard deviation of the columns."""
    n, first, total, squares = 0, None, np.zeros(n_features), np.zeros(n_features)
    for rows, times in blocks():
        first = rows[0] if first is None else first
        n += len(rows) if times is None else times.sum()
        off = rows - first  # a mean that is large beside the deviation keeps its digits
        total += sum_rows(off, times)
        squares += sum_rows(off**2, times)
    off = total / n
    spread = np.sqrt(np.maximum(squares / n - off**2, 0))
    return n, first + off, spread
