"""Products whose bits for a column do not depend on the other columns."""

import numpy as np

from fastglm._kernels.threads import cut, n_threads_now, run_threads

_SMALL_PRODUCT = 1 << 22  # below 1e6 multiply-adds, BLAS orders its sums by the width


def tiled_dot(rows, v, lanes):
    """``rows @ v``; the bits of a column do not depend on the other columns."""
    # Contiguous, since BLAS orders the sums of a transposed matrix, or of a column, differently.
    with np.errstate(over="ignore", invalid="ignore"):
        if v.shape[1] <= lanes:
            return rows @ np.ascontiguousarray(v)
        if rows.size * lanes > _SMALL_PRODUCT:
            parts = cut(v.shape[1], lanes, n_threads_now())
            if len(parts) == 1:
                return rows @ np.ascontiguousarray(v)
            found = run_threads(lambda ends: rows @ np.ascontiguousarray(v[:, slice(*ends)]), parts)
        else:
            tiles = (v[:, k : k + lanes] for k in range(0, v.shape[1], lanes))
            found = [rows @ np.ascontiguousarray(tile) for tile in tiles]
        return np.concatenate(found, axis=1)


def column_dot(a, b):
    """``(a * b).sum(axis=0)``; the bits of a column do not depend on the other columns.

    NumPy's own sum orders a single column differently from one of several columns.
    """
    return np.einsum("ij,ij->i", np.ascontiguousarray(a.T), np.ascontiguousarray(b.T))
