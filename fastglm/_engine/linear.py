"""Small dense systems: null spaces and Cholesky factors."""

import numpy as np
import scipy.linalg
from scipy.linalg import LinAlgError

_RANK = 1e-12  # an eigenvalue of the scaled Gram matrix below this is a collinear direction


def null_spaces(covariance, free, penalty, plain):
    """Each receiver's collinear directions without a penalty, or None; steps stay off them."""
    null, known = [None] * plain.size, {}
    if covariance is None or not np.isfinite(covariance).all():
        return null
    for j in np.flatnonzero(plain):
        chosen = np.flatnonzero(free[:, j])
        pull = penalty.hessian(j, chosen)
        key = chosen.tobytes(), pull.tobytes() if pull.any() else b""
        if key not in known:
            space, _ = split_space(covariance[np.ix_(chosen, chosen)] + pull)
            known[key] = space if space.size else None
        null[j] = known[key]
    return null


def split_space(gram):
    """Orthonormal bases of the null space of X and of its row space, from its Gram matrix.

    The Gram matrix is scaled to a unit diagonal, so that the units of the features do not matter.
    Steps inside the row space that start at 0 end at the optimum of least norm.
    """
    n = gram.shape[0]
    if n == 0:
        return np.zeros((0, 0)), np.zeros((0, 0))
    scale = np.sqrt(np.diag(gram).clip(min=0))
    zero = scale <= 1e-14 * scale.max()
    inverse = np.where(zero, 0, 1 / np.where(zero, 1, scale))
    values, vectors = scipy.linalg.eigh(gram * np.outer(inverse, inverse))
    null = values <= _RANK * values[-1]
    if not null.any():
        return np.zeros((n, 0)), np.eye(n)
    directions = vectors[:, null] * inverse[:, None]
    directions = np.column_stack([directions, np.eye(n)[:, zero]])
    q, _, _ = scipy.linalg.qr(directions, pivoting=True)
    n_null = int(null.sum())
    return q[:, :n_null], q[:, n_null:]


def cholesky(matrix):
    """Cholesky factor; the diagonal is raised until rounding leaves it positive definite."""
    if matrix.shape[0] == 0:
        return np.zeros((0, 0)), True
    scale = max(np.trace(matrix) / matrix.shape[0], np.finfo(float).tiny)
    jitter = 0.0
    for _ in range(8):
        try:
            damped = np.array(matrix, order="F")  # LAPACK factorises this order in place
            damped[np.diag_indices_from(damped)] += jitter
            return scipy.linalg.cho_factor(damped, True, overwrite_a=True, check_finite=False)
        except LinAlgError:
            jitter = max(1e-14 * scale, 100 * jitter)
    return scale * np.eye(matrix.shape[0]), True


def cho_solve(factor, g):
    """The inverse of a factorised matrix, times g."""
    if g.size == 0:
        return g
    return scipy.linalg.cho_solve(factor, g, check_finite=False)


# Relative rounding of an objective: float64 sums of values of the given precision.
ROUNDING = {np.float64: 1e-13, np.float32: 1e-6}
