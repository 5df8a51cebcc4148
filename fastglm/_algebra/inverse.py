"""The inverse of a Cholesky factor in the memory of its matrix."""

import numpy as np
from scipy.linalg import lapack

from fastglm._kernels.threads import run_threads

_BLOCK, _WHOLE = 256, 4096  # rows of a block, and the most of a matrix that is worked on as a whole


def inverse_root(matrix, most):
    """The inverse of the Cholesky factor of a symmetric matrix, in its place.

    Parameters
    ----------
    matrix : ndarray of shape (n, n)
        The rows one after another (C order).
    most : float
        A larger squared norm of a column means that a direction is lost.

    Returns
    -------
    ndarray of shape (n, n) or None
        Lower triangular, in the memory of ``matrix``. None if the matrix is not positive definite
        or a direction is lost; the lower triangle of ``matrix`` is then as it was.

    Notes
    -----
    Time: ``n^3 / 3`` multiply-adds. Memory: some blocks, 4 kB a row and 2 kB a row and thread.
    """
    # The transpose is the same matrix, in the order of LAPACK: its lower triangle is overwritten.
    root, n = matrix.T, len(matrix)
    parts = [slice(first, min(first + _BLOCK, n)) for first in range(0, n, _BLOCK)]
    kept = [root[part, part].copy() for part in parts]
    if _invert(root, parts):
        columns = (np.triu(root.T[part, part.start :]) for part in parts)
        norms = np.concatenate([np.einsum("ab,ab->a", part, part) for part in columns])
        if norms.max() < most:  # and finite
            for part in parts:
                root[part, part] = np.tril(root[part, part])
                root[part, part.stop :] = 0
            return root
    for part, block in zip(parts, kept, strict=True):
        root[part, part] = block
    return None


def _invert(a, parts):
    """Write the inverse of the Cholesky factor to the lower triangle; whether there is one.

    Large matrices are inverted block by block, on all threads if one receiver has them all.
    """
    if len(a) <= _WHOLE:
        root, info = lapack.dpotrf(a, lower=True, clean=False, overwrite_a=True)
        return info == 0 and lapack.dtrtri(root, lower=True, overwrite_c=True)[1] == 0
    u = a.T  # rows one after another, so that products are added to them as they are
    for k, own in enumerate(parts):
        factor, info = lapack.dpotrf(a[own, own], lower=True, clean=False)
        inverse, failed = lapack.dtrtri(factor, lower=True)
        if info or failed:
            return False
        a[own, own] = inverse = np.tril(inverse)

        def solve(columns, own=own, inverse=inverse):
            u[own, columns] = inverse @ u[own, columns]

        def subtract(columns, own=own):
            rows = slice(own.stop, columns.stop)
            u[rows, columns] -= u[own, rows].T @ u[own, columns]

        run_threads(solve, parts[:k:-1])
        run_threads(subtract, parts[:k:-1])  # the longest first
    # The factor's inverse Z beside a block: minus the inverse of the block, times the factor there,
    # times the part of Z that is known.
    for k, own in reversed(list(enumerate(parts))):
        beside = -u[own, own] @ u[own, own.stop :]

        def fill(columns, own=own, beside=beside):
            known = slice(own.stop, columns.stop)
            u[own, columns] = beside[:, : columns.stop - own.stop] @ u[known, columns]

        run_threads(fill, parts[:k:-1])
    return True
