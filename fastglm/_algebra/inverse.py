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
    for k, own in enumerate(parts):
        factor, info = lapack.dpotrf(a[own, own], lower=True, clean=False)
        inverse, failed = lapack.dtrtri(factor, lower=True)
        if info or failed:
            return False
        a[own, own] = inverse = np.tril(inverse)

        def solve(rows, own=own, inverse=inverse):
            a[rows, own] = a[rows, own] @ inverse.T

        def subtract(rows, own=own):
            columns = slice(own.stop, rows.stop)
            a[rows, columns] -= a[rows, own] @ a[columns, own].T

        run_threads(solve, parts[:k:-1])  # the longest first
        run_threads(subtract, parts[:k:-1])
    # The factor's inverse Z below a block: minus the part of Z that is known, times the factor
    # there, times the inverse of the block.
    for k, own in reversed(list(enumerate(parts))):
        below = -a[own.stop :, own] @ a[own, own]

        def fill(rows, own=own, below=below):
            a[rows, own] = a[rows, own.stop : rows.stop] @ below[: rows.stop - own.stop]

        run_threads(fill, parts[:k:-1])
    return True
