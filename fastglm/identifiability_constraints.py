"""Features without redundant columns, so that an unpenalised optimum is one point.

Splines sum to one, so that their columns and an intercept depend on each other. A fit of fastglm
needs no such step: of all optima it takes the one of least norm. Dropping columns gives
coefficients that can be read one by one, relative to the columns that were dropped.
"""

from __future__ import annotations

import numpy as np

from fastglm._checks import as_dense_numbers
from fastglm._pynapple import read_values
from fastglm.features.matrix import FeatureMatrix

_ROWS = 8192


def apply_identifiability_constraints(
    feature_matrix: object, add_intercept: bool = True, warn_if_float32: bool = True
) -> tuple[object, np.ndarray]:
    """Drop columns until those left are linearly independent of each other and of an intercept.

    Columns are gone through from the first to the last. One is dropped if it depends on the other
    columns that are there still.

    Parameters
    ----------
    feature_matrix : FeatureMatrix, array or TsdFrame of shape (n_bins, n_features)
        Rows that are not finite do not count.
    add_intercept : bool, default True
        Whether the model has an intercept; those of fastglm have.
    warn_if_float32 : bool
        Has no effect: the rank is found in float64.

    Returns
    -------
    X : ndarray or TsdFrame of shape (n_bins, n_kept)
    kept_columns : ndarray of int, shape (n_kept,)
        For other samples: ``X_test[:, kept_columns]``.

    Raises
    ------
    ValueError
        If the features are not numbers in two dimensions.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> from fastglm.identifiability_constraints import apply_identifiability_constraints
    >>> rng = np.random.default_rng(0)
    >>> basis = fastglm.basis.BSplineEval(5) + fastglm.basis.BSplineEval(6)
    >>> X, kept = apply_identifiability_constraints(basis.compute_features(*rng.random((2, 100))))
    >>> X.shape, kept.tolist()
    ((100, 9), [1, 2, 3, 4, 6, 7, 8, 9, 10])
    """
    values = _read(feature_matrix)
    kept = _independent(values, add_intercept)
    return feature_matrix[:, kept], kept


def apply_identifiability_constraints_by_basis_component(
    basis: object, feature_matrix: object, add_intercept: bool = True
) -> tuple[object, np.ndarray]:
    """As `apply_identifiability_constraints`, for every input of every summand on its own.

    Parameters
    ----------
    basis : basis
        Which computed the features.
    feature_matrix : FeatureMatrix, array or TsdFrame of shape (n_bins, n_features)
    add_intercept : bool, default True

    Returns
    -------
    X : ndarray or TsdFrame of shape (n_bins, n_kept)
    kept_columns : ndarray of int, shape (n_kept,)

    Raises
    ------
    ValueError
        If the basis has another number of features.
    """
    values = _read(feature_matrix)
    numbers = basis.split_by_feature(np.arange(values.shape[1])[None])
    kept = []
    for part in numbers.values():
        for columns in part.reshape(-1, part.shape[-1]):
            kept.append(columns[_independent(values[:, columns], add_intercept)])
    kept = np.concatenate(kept)
    return feature_matrix[:, kept], kept


def _read(X):
    values = np.asarray(X) if isinstance(X, FeatureMatrix) else read_values(X, "feature_matrix")[0]
    values = as_dense_numbers(values, "feature_matrix").astype(np.float64)
    if values.ndim != 2:
        raise ValueError(f"feature_matrix has shape {values.shape}; expected (n_bins, n_features).")
    return values


def _factor(values):
    """The triangular factor of a column of ones and the columns: it has the same dependences."""
    factor = np.zeros((0, values.shape[1] + 1))
    for start in range(0, len(values), _ROWS):
        some = values[start : start + _ROWS]
        some = some[np.isfinite(some).all(axis=1)]
        rows = np.column_stack([np.ones(len(some)), some])
        factor = np.linalg.qr(np.concatenate([factor, rows]), mode="r")
    return factor


def _independent(values: np.ndarray, intercept: bool) -> np.ndarray:
    """Numbers of the columns that are kept."""
    columns = _factor(values)
    if not intercept:
        columns[:, 0] = 0
    rounding = np.finfo(np.float64).eps * max(len(values), columns.shape[1])

    def rank_of(table):
        sizes = np.linalg.svd(table, compute_uv=False)
        return int((sizes > rounding * sizes.max(initial=0)).sum())

    rank = rank_of(columns)
    n_dropped = columns.shape[1] - (not intercept) - rank
    dropped = []
    for k in range(1, columns.shape[1]):
        if len(dropped) == n_dropped:
            break
        without = columns.copy()
        without[:, k] = 0
        if rank_of(without) == rank:
            columns = without
            dropped.append(k)
    return np.setdiff1d(np.arange(1, columns.shape[1]), dropped) - 1


__all__ = [
    "apply_identifiability_constraints",
    "apply_identifiability_constraints_by_basis_component",
]
