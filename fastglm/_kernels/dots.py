"""Products whose bits for a column do not depend on the other columns."""

import numpy as np

_SMALL_PRODUCT = 1 << 22  # BLAS orders the sums of a product below 1e6 by its width


def tiled_dot(rows, v, lanes):
    """``rows @ v``, the same bits for a column whatever the others are."""
    # Contiguous: BLAS orders the sums of a transposed matrix, or of a column, in another way.
    with np.errstate(over="ignore", invalid="ignore"):
        if rows.size * lanes > _SMALL_PRODUCT:
            return rows @ np.ascontiguousarray(v)
        tiles = (v[:, k : k + lanes] for k in range(0, v.shape[1], lanes))
        return np.concatenate([rows @ np.ascontiguousarray(tile) for tile in tiles], axis=1)


def column_dot(a, b):
    """``(a * b).sum(axis=0)``, the same bits for a column whatever the others are.

    NumPy adds up a single column in another order than one of several.
    """
    return np.einsum("ij,ij->i", np.ascontiguousarray(a.T), np.ascontiguousarray(b.T))
