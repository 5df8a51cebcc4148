"""Small dense systems: null spaces and Cholesky factors."""

from functools import cache
from typing import NamedTuple

import numpy as np
import scipy.linalg

_RANK = 1e-12  # an eigenvalue of the scaled Gram matrix below this is a collinear direction
_PIVOT = 1e-4  # an entry of a direction below this part of the largest one may be rounding
_FLAT = 1e-13  # a slope along a collinear direction that is rounding
NEAR = 1e-7  # a smaller eigenvalue is below the resolution of float32
_NO_SIZE = 1e-14  # a size of a direction, as a part of the largest, that is rounding
CONSTANT = 1e-13  # variance, as a part of the mean square, that is rounding
_JITTER = 1e-14  # first part of the diagonal that is added to a matrix without a factor
_BENT = 1e-10  # minus an eigenvalue, in units of a reference, that is rounding


def centre(gram, mean):
    """Make ``X'X / n`` the covariance of the features, in place.

    The variance of a constant feature is rounding of its mean square. It becomes exactly 0.
    """
    squares = np.diag(gram).copy()
    for k, value in enumerate(mean):
        gram[k] -= value * mean
    constant = np.diag(gram) <= CONSTANT * squares
    gram[constant] = 0
    gram[:, constant] = 0


def rounding_floor(variance, mean, squares):
    """The decrement that rounding allows where the curvature is 2, for counts of mean squares."""
    error = 16 * np.finfo(np.float64).eps
    size = np.divide(mean**2, variance, where=variance > 0, out=np.zeros(variance.size))
    return 0.5 * error**2 * squares * (variance.size + size.sum() + 1)


def null_spaces(covariance, free, penalty, some):
    """Collinear directions of some receivers that no ridge sees, and whether others are nearly so.

    Returns
    -------
    null : list of ndarray or None
        An orthonormal basis of each receiver's collinear directions.
    near : ndarray of bool, shape (n_receivers,)
        Whether other directions are so nearly collinear that sums in float32 do not see them.
    """
    null, near, known = [None] * some.size, np.zeros(some.size, bool), {}
    if covariance is None or not np.isfinite(covariance).all():
        return null, near
    for j in np.flatnonzero(some):
        chosen = np.flatnonzero(free[:, j])
        pull = penalty.hessian(j, chosen)
        key = chosen.tobytes(), pull.tobytes() if pull.any() else b""
        if key not in known:
            space, _, least = split_space(covariance[np.ix_(chosen, chosen)] + pull)
            known[key] = space if space.size else None, least < NEAR
        null[j], near[j] = known[key]
    return null, near


def has_slope(null, size, slope, unit):
    """Whether a loss has a slope along directions that were taken for collinear.

    Parameters
    ----------
    null : ndarray of shape (n_features, k)
    size : ndarray of shape (n_features,)
        Root mean squares of the features.
    slope : ndarray of shape (n_features,)
        Gradient of the loss, the intercept eliminated.
    unit : float
        Root mean square of the residuals. With ``size`` it is the unit of rounding.
    """
    # Orthonormal in units of the features: a direction of small ones, which the user's units mix
    # with others, is judged alone.
    scaled = null * size[:, None]
    directions, factor, _ = scipy.linalg.qr(scaled, mode="economic", pivoting=True)
    length = np.abs(np.diag(factor))
    directions = directions[:, length > _NO_SIZE * length.max(initial=0)]
    slope = np.divide(slope, size, where=size > 0, out=np.zeros(size.size))
    return not (np.abs(directions.T @ slope) <= _FLAT * unit).all()


def split_space(gram):
    """Orthonormal bases of the null space of X and of its row space, from its Gram matrix.

    The Gram matrix is scaled to a unit diagonal, so that the units of the features do not matter.
    Steps inside the row space that start at 0 end at the optimum of least norm.

    Returns
    -------
    null, rows : ndarrays of shape (n_features, k), (n_features, n_features - k)
    least : float
        The smallest eigenvalue of the row space, as a part of the largest.
    """
    n = gram.shape[0]
    scale = np.sqrt(np.diag(gram).clip(min=0))
    varies = scale > 0
    if not varies.any():
        return np.eye(n), np.zeros((n, 0)), 1.0
    unit = scale[varies]
    values, vectors = scipy.linalg.eigh(gram[np.ix_(varies, varies)] / unit / unit[:, None])
    null = values <= _RANK * values[-1]
    least = values[~null][0] / values[-1]
    directions = np.zeros((n, int(null.sum())))
    directions[varies] = vectors[:, null] / unit[:, None]
    directions = np.column_stack([directions, np.eye(n)[:, ~varies]])
    if not directions.size:
        return directions, np.eye(n), least
    # Every column keeps its own digits: their lengths, by the units of the features, do not matter.
    q, _, _ = scipy.linalg.qr(directions, pivoting=True)
    n_null = directions.shape[1]
    return q[:, :n_null], q[:, n_null:], least


def null_basis(directions, unit):
    """Orthonormal basis of collinear directions in the user's units, every row to its own digits.

    The columns of the largest units depend on no others. With the others first, the null space is
    spanned by ``[I; -W]``, in which W is as small as the ratio of the units. A basis that is found
    by rotations would have the rounding of its largest entry everywhere, and an entry of a column
    in large units, times that column, would move eta.

    Parameters
    ----------
    directions : ndarray of shape (n_features, k)
        Orthonormal directions for features that are scaled to one size.
    unit : ndarray of shape (n_features,)
        What the features were divided by.
    """
    n, k = directions.shape
    left, dependent = directions.copy(), np.zeros(k, int)
    rest = np.ones(n, bool)
    for step in range(k):  # pivots: of the entries that are no rounding, in the smallest unit
        size = np.where(rest, np.linalg.norm(left[:, step:], axis=1), 0.0)
        found = np.where(size > _PIVOT * size.max(), size / unit, 0.0).argmax()
        dependent[step], rest[found] = found, False
        mirror = left[found, step:].copy()
        mirror[0] += np.copysign(np.linalg.norm(mirror), mirror[0])
        image = left[:, step:] @ mirror
        left[:, step:] -= np.outer(image, 2 * mirror / (mirror @ mirror))
    ratio = scipy.linalg.solve_triangular(left[dependent], left[rest].T, lower=True, trans="T").T
    ratio *= unit[dependent] / unit[rest][:, None]
    basis = np.zeros((n, k))
    basis[dependent], basis[rest] = np.eye(k), ratio
    root = scipy.linalg.cholesky(np.eye(k) + ratio.T @ ratio, lower=True)
    return scipy.linalg.solve_triangular(root, basis.T, lower=True).T


class Factor(NamedTuple):
    """Cholesky factor of a matrix A: ``A = unit * L L' * unit'``, less the jitter."""

    lower: np.ndarray  # L, of the matrix scaled to a unit diagonal
    unit: np.ndarray  # (n,)
    jitter: float  # what was added to the unit diagonal, until there was a factor

    @property
    def pivot(self):
        """The smallest square of the diagonal of L, at least the smallest eigenvalue of L L'."""
        return (self.lower.diagonal() ** 2).min(initial=1.0)


def cholesky(matrix):
    """The `Factor` of a matrix that is positive definite but for rounding."""
    (lower,), unit, jitter = factorise(matrix.T[None])
    return Factor(lower, unit[0], jitter[0])


def factorise(matrices):
    """Factors of a stack of matrices, shape (k, n, n), from the upper triangle of each.

    Returns
    -------
    lower : list of ndarray of shape (n, n)
    unit : ndarray of shape (k, n)
    jitter : ndarray of shape (k,)
    """
    unit = np.sqrt(np.maximum(matrices.diagonal(0, 1, 2), 0))
    unit[~(unit > 0)] = 1.0
    scaled = np.divide(matrices, unit[:, :, None], order="C")
    scaled /= unit[:, None, :]
    scaled, jitter = [matrix.T for matrix in scaled], np.zeros(len(unit))
    if not unit.size:
        return scaled, unit, jitter
    lower = []
    # `scipy.linalg.cholesky` takes longer to check a small matrix than to factorise it.
    factor_of = _lapack("potrf", unit.dtype.char)
    for k, matrix in enumerate(scaled):
        factor, failed = factor_of(matrix, True)
        if failed:
            factor, jitter[k] = _damped(matrix, factor_of)
        lower.append(factor)
    return lower, unit, jitter


def _damped(matrix, factor_of):
    """The factor of a matrix that has none, and what was added to its unit diagonal."""
    jitter, failed = _JITTER, True
    while jitter < 0.1:
        damped = matrix.copy("F")
        np.einsum("aa->a", damped)[:] += jitter
        factor, failed = factor_of(damped, True)
        if not failed:
            return factor, jitter
        jitter *= 100
    return np.eye(len(matrix)), 1.0


def never_bends_down(matrix, reference):
    """Whether no eigenvalue of a symmetric matrix is below 0 by more than rounding.

    Its units are those in which a reference, which has no negative eigenvalue, has a unit diagonal.
    """
    size = np.diag(reference)
    kept = np.flatnonzero(size > 0)
    if not np.isfinite(matrix).all():
        return False
    unit = np.sqrt(size[kept])
    scaled = matrix[np.ix_(kept, kept)] / unit / unit[:, None]
    return kept.size == 0 or scipy.linalg.eigvalsh(scaled)[0] > -_BENT


def cho_solve(factor, g):
    """The inverse of a factorised matrix, times the vector or the columns g."""
    if g.size == 0:
        return g
    lower, unit = factor.lower, factor.unit if g.ndim == 1 else factor.unit[:, None]
    scaled = g / unit
    return _lapack("potrs", np.result_type(lower, scaled).char)(lower, scaled, lower=True)[0] / unit


def solve_each(lower, unit, g):
    """The inverses of matrices of `factorise`, times the rows of g, shape (k, n)."""
    if g.size == 0:
        return g
    scaled = g / unit
    solve = _lapack("potrs", scaled.dtype.char)
    for factor, right in zip(lower, scaled, strict=True):
        right[:] = solve(factor, right, True)[0]
    return scaled / unit


@cache
def _lapack(name, kind):
    """A function of LAPACK for numbers of a kind."""
    return scipy.linalg.get_lapack_funcs(name, dtype=kind)


# Relative rounding of an objective: float64 sums of values of the given precision.
ROUNDING = {np.float64: 1e-13, np.float32: 1e-6}
