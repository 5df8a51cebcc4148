"""The likelihood of filters under a normal distribution with outliers."""

import numpy as np
from numba import prange

from fastglm._kernels.compiler import njit


@njit(cache=True, parallel=True, nogil=True)
def filter_likelihoods(residual, covariance, factor, spread, weights, widths, out):
    """Log-likelihood of every filter and its slopes, each filter by itself.

    A filter p has the residual r and ``S = covariance[p] + factor[p] * spread``. Its density is
    ``sum_m weights[m] * N(r; 0, widths[m] * S)``; the first part is the core, of width 1.

    Parameters
    ----------
    residual : ndarray of shape (n_filters, k)
    covariance : ndarray of shape (n_filters, k, k)
    factor : ndarray of shape (n_filters,)
    spread : ndarray of shape (k, k)
    weights, widths : ndarrays of shape (n_parts,)
    out : tuple of ndarrays, overwritten
        ``value`` (n_filters,), the log-likelihood; ``core`` (n_filters,), the probability of the
        core; ``pull`` (n_filters, k), minus the slope with respect to r; ``trace`` (n_filters,),
        the slope with respect to log factor; and ``sums`` (n_tasks, k, k), whose sum over tasks is
        the slope with respect to ``spread``.
    """
    value, core, pull, trace, sums = out
    n, k = residual.shape
    n_tasks, n_parts = sums.shape[0], weights.shape[0]
    for task in prange(n_tasks):
        lower, inverse = np.empty((k, k)), np.empty((k, k))
        y, logs = np.empty(k), np.empty(n_parts)
        sums[task] = 0.0
        for p in range(task * n // n_tasks, (task + 1) * n // n_tasks):
            half = 0.0  # of log det S
            for i in range(k):
                for j in range(i + 1):
                    s = covariance[p, i, j] + factor[p] * spread[i, j]
                    for m in range(j):
                        s -= lower[i, m] * lower[j, m]
                    if i == j:
                        lower[i, i] = np.sqrt(s)
                        half += np.log(lower[i, i])
                    else:
                        lower[i, j] = s / lower[j, j]
            square = 0.0
            for i in range(k):
                s = residual[p, i]
                for m in range(i):
                    s -= lower[i, m] * y[m]
                y[i] = s / lower[i, i]
                square += y[i] * y[i]
            for j in range(k):  # the inverse of the triangle
                inverse[j, j] = 1 / lower[j, j]
                for i in range(j + 1, k):
                    s = 0.0
                    for m in range(j, i):
                        s -= lower[i, m] * inverse[m, j]
                    inverse[i, j] = s / lower[i, i]
            top = -np.inf
            for m in range(n_parts):
                logs[m] = np.log(weights[m]) - 0.5 * (k * np.log(widths[m]) + square / widths[m])
                top = max(top, logs[m])
            mass, narrow = 0.0, 0.0
            for m in range(n_parts):
                logs[m] = np.exp(logs[m] - top)
                mass += logs[m]
                narrow += logs[m] / widths[m]
            narrow /= mass
            value[p] = top + np.log(mass) - half - 0.5 * k * np.log(2 * np.pi)
            core[p] = logs[0] / mass
            for i in range(k):  # S^-1 r
                s = 0.0
                for m in range(i, k):
                    s += inverse[m, i] * y[m]
                pull[p, i] = s
            traced = 0.0
            for i in range(k):
                for j in range(k):
                    s = 0.0
                    for m in range(max(i, j), k):
                        s += inverse[m, i] * inverse[m, j]
                    s = 0.5 * (narrow * pull[p, i] * pull[p, j] - s)
                    sums[task, i, j] += factor[p] * s
                    traced += spread[i, j] * s
            trace[p] = factor[p] * traced
            for i in range(k):
                pull[p, i] *= narrow
