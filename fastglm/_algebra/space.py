"""Coordinates of features that are collinear, or nearly so.

``X'X`` has the square of the condition number of X. Columns that differ by 1e-7 of their size are
still two features, but their ``X'X`` is singular in float64. A QR factor of the centred rows keeps
all digits that the rows have.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fastglm._algebra.linear import complete

_EPS = np.finfo(np.float64).eps
_NOISE = 16  # a direction is collinear if its size is below so many roundings of its columns
# Also below this part of the columns: coefficients along it are so large that their own rounding
# moves eta, and no objective can be attained.
_HELD = 1e-12


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
        Returns an iterator over blocks of rows, shape (n, n_features).
    size : ndarray of shape (n_features,)
        Root mean square of the features, to which the rounding of their values is relative.
    pull : ndarray of shape (n_features, n_features)
        Hessian of the penalty.
    """
    n_features = size.size
    n, mean, spread = _moments(blocks, n_features)
    varies = spread > _NOISE * _EPS * size
    unit, n_varied = spread[varies], int(varies.sum())
    factor = np.zeros((0, n_varied))
    for rows in blocks():
        scaled = (rows[:, varies] - mean[varies]) / unit
        factor = np.linalg.qr(np.vstack([factor, scaled]), mode="r")
    _, values, vectors = np.linalg.svd(factor / np.sqrt(n))
    values = np.append(values, np.zeros(n_varied - values.size))
    noise = _EPS * np.linalg.norm(vectors * (size[varies] / unit), axis=1)
    bound = np.sqrt(n_varied) * np.maximum(_NOISE * noise, _HELD)
    seen = values > bound
    rough = np.maximum(noise, 2 * values)
    vectors = _clean(
        vectors, factor / np.sqrt(n), seen, bound / values[seen].min(initial=1.0), rough
    )
    directions = np.zeros((n_features, n_varied))
    directions[varies] = vectors.T / unit[:, None]
    basis = directions[:, seen] / values[seen]
    unseen = np.column_stack([directions[:, ~seen], np.eye(n_features)[:, ~varies]])
    null, _ = complete(unseen, unseen.shape[1])
    weights, axes = np.linalg.eigh(null.T @ pull @ null)
    free = weights <= 1e-12 * np.abs(pull).max(initial=0)
    basis = np.column_stack([basis, null @ axes[:, ~free]])
    return Space(mean, basis, null @ axes[:, free], values[seen].min(initial=1.0))


def _clean(vectors, factor, seen, turn, rough):
    """The vectors, of which the unseen ones have no entries of rounding.

    Noise turns a vector by up to ``turn``. In the user's units an entry is divided by the deviation
    of its feature, and becomes large where that is small. Entries are kept if the direction has a
    size above ``rough`` without them.
    """
    out = vectors.copy()
    for k in np.flatnonzero(~seen):
        clean = np.where(np.abs(vectors[k]) > turn[k], vectors[k], 0.0)
        if clean.any() and np.linalg.norm(factor @ clean) <= rough[k]:
            out[k] = clean
    return out


def _moments(blocks, n_features):
    """Number of rows, and mean and standard deviation of the columns."""
    n, first, total, squares = 0, None, np.zeros(n_features), np.zeros(n_features)
    for rows in blocks():
        first = rows[0] if first is None else first
        n += len(rows)
        off = rows - first  # a mean that is large beside the deviation keeps its digits
        total += off.sum(axis=0)
        squares += (off**2).sum(axis=0)
    off = total / n
    spread = np.sqrt(np.maximum(squares / n - off**2, 0))
    return n, first + off, spread
