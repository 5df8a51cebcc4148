"""The ridge of the recipe: a Gaussian prior on changes of eta.

A coefficient that is expected to have the standard deviation sd gets the strength
``1 / (n_bins * sd**2)``, for the penalty is added to the mean loss of the bins. For couplings sd is
0.2 for a basis function of mean area; it is inversely proportional to the area, so that all
functions contribute alike to the strength of a coupling. For own histories and covariates it is 1,
for covariates of the user for a change by one standard deviation of the column.
"""

from __future__ import annotations

import numpy as np

from fastglm._penalty import COUPLING, strength_of_prior
from fastglm.features.matrix import FeatureMatrix
from fastglm.workflow.design import Design

OWN, SHARED = 1.0, 1.0  # standard deviations that are expected, in eta, beside `COUPLING`
_ROWS = 1 << 16  # bins of covariates that are read together


def ridge_of_prior(design: Design, covariates: FeatureMatrix | None) -> np.ndarray:
    """Strength of the ridge for every coefficient, (n_features, n_cells).

    Parameters
    ----------
    design : Design
        Complete: histories, and what stands beside them.
    covariates : FeatureMatrix or None
        Of the user; they are the last columns of the design.
    """
    X, block, n = design.X, design.population, design.population.n_senders
    n_bins, kernel = max(int(X.valid.sum()), 1), block.kernel
    area = np.abs(kernel).sum(axis=0)
    area = np.where(area > 0, area, area.mean())  # a function may miss the few lags of coarse bins
    prior = np.full((X.shape[1], n), SHARED)
    prior[: block.n_columns] = np.tile(COUPLING * area.mean() / area, n)[:, None]
    for j in range(n):
        prior[j * block.n_funcs : (j + 1) * block.n_funcs, j] = OWN
    if design.own is not None:
        own = slice(block.n_columns, block.n_columns + design.own.n_columns)
        prior[own] = OWN / np.abs(design.own.kernel).max()
    if covariates is not None:
        prior[-covariates.shape[1] :] = (SHARED / _spread(covariates, X.valid))[:, None]
    return strength_of_prior(n_bins, prior)


def _spread(X, valid):
    """Standard deviation of every column over some bins; 1 for a column that does not vary."""
    X, _ = X.centred()
    index = np.flatnonzero(valid)
    total, squares = np.zeros((2, X.shape[1]))
    for start in range(0, index.size, _ROWS):
        rows = X.rows(index[start : start + _ROWS])
        total += rows.sum(axis=0)
        squares += (rows**2).sum(axis=0)
    mean = total / max(index.size, 1)
    spread = np.sqrt(np.maximum(squares / max(index.size, 1) - mean**2, 0))
    return np.where(spread > 0, spread, 1.0)
