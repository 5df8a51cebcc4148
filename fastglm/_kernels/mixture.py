"""The likelihood of filters of which some hold a synapse."""

import numpy as np
from numba import prange

from fastglm._kernels.compiler import njit


@njit(cache=True, nogil=True)
def _inverse(matrix, lower, inverse):
    """The inverse of a positive definite matrix, and half the logarithm of its determinant."""
    k, half = matrix.shape[0], 0.0
    for i in range(k):
        for j in range(i + 1):
            s = matrix[i, j]
            for m in range(j):
                s -= lower[i, m] * lower[j, m]
            if i == j:
                lower[i, i] = np.sqrt(s)
                half += np.log(lower[i, i])
            else:
                lower[i, j] = s / lower[j, j]
    for j in range(k):  # the inverse of the triangle, in place of the triangle
        lower[j, j] = 1 / lower[j, j]
        for i in range(j + 1, k):
            s = 0.0
            for m in range(j, i):
                s -= lower[i, m] * lower[m, j]
            lower[i, j] = s / lower[i, i]
    for i in range(k):
        for j in range(i + 1):
            s = 0.0
            for m in range(i, k):
                s += lower[m, i] * lower[m, j]
            inverse[i, j] = inverse[j, i] = s
    return half


@njit(cache=True, parallel=True, nogil=True)
def filter_likelihoods(
    residual, covariance, factor, spread, shapes, sizes, log_weights, width, out
):
    """Log-likelihood of every filter and its slopes, each filter by itself.

    A filter p has the residual r and ``S = covariance[p] + factor[p] * spread``. Its density is

        w_0 N(r; 0, S) + w_1 N(r; 0, width S) + sum_dg w_dg N(r; 0, S + sizes[g] s_d s_d')

    over shapes s_d. The first part is the core.

    Parameters
    ----------
    residual : ndarray of shape (n_filters, k)
    covariance : ndarray of shape (n_filters, k, k)
    factor : ndarray of shape (n_filters,)
    spread : ndarray of shape (k, k)
    shapes : ndarray of shape (n_shapes, k)
    sizes : ndarray of shape (n_sizes,)
        Variances of the amplitude of a shape.
    log_weights : ndarray of shape (2 + n_shapes * n_sizes,)
        log w; g runs faster than d.
    width : float
    out : tuple of ndarrays, overwritten
        ``value`` (n_filters,), the log-likelihood; ``pull`` (n_filters, k), minus the slope with
        respect to r; ``trace`` (n_filters,), the slope with respect to log factor; ``parts``
        (n_tasks, n_weights) and ``sums`` (n_tasks, k, k), whose sums over tasks are the expected
        number of filters of each part and the slope with respect to ``spread``.
    """
    value, pull, trace, parts, sums = out
    n, k = residual.shape
    n_tasks, n_shapes, n_sizes = sums.shape[0], shapes.shape[0], sizes.shape[0]
    for task in prange(n_tasks):
        lower, inverse, slope = np.empty((k, k)), np.empty((k, k)), np.empty((k, k))
        x, way = np.empty(k), np.empty((n_shapes, k))  # S^-1 r, S^-1 s_d
        seen, along = np.empty(n_shapes), np.empty(n_shapes)  # s_d' S^-1 s_d, s_d' S^-1 r
        logs = np.empty((n_shapes, n_sizes))
        sums[task], parts[task] = 0.0, 0.0
        for p in range(task * n // n_tasks, (task + 1) * n // n_tasks):
            for i in range(k):
                for j in range(i + 1):
                    slope[i, j] = covariance[p, i, j] + factor[p] * spread[i, j]
            half = _inverse(slope, lower, inverse)
            square = 0.0
            for i in range(k):
                x[i] = 0.0
                for j in range(k):
                    x[i] += inverse[i, j] * residual[p, j]
                square += x[i] * residual[p, i]
            log_core = log_weights[0] - 0.5 * square
            log_wide = log_weights[1] - 0.5 * (square / width + k * np.log(width))
            top = max(log_core, log_wide)
            for d in range(n_shapes):
                seen[d] = along[d] = 0.0
                for i in range(k):
                    way[d, i] = 0.0
                    for j in range(k):
                        way[d, i] += inverse[i, j] * shapes[d, j]
                    seen[d] += way[d, i] * shapes[d, i]
                    along[d] += shapes[d, i] * x[i]
                for g in range(n_sizes):
                    more = 1 + sizes[g] * seen[d]
                    gain = sizes[g] * along[d] ** 2 / more - np.log(more)
                    logs[d, g] = log_weights[2 + d * n_sizes + g] + 0.5 * (gain - square)
                    top = max(top, logs[d, g])
            in_core, in_wide = np.exp(log_core - top), np.exp(log_wide - top)
            mass = in_core + in_wide
            for d in range(n_shapes):
                for g in range(n_sizes):
                    logs[d, g] = np.exp(logs[d, g] - top)
                    mass += logs[d, g]
            in_core, in_wide = in_core / mass, in_wide / mass
            value[p] = top + np.log(mass) - half - 0.5 * k * np.log(2 * np.pi)
            parts[task, 0] += in_core
            parts[task, 1] += in_wide
            # x and xx' - S^-1 in the mean over the parts; those of a shape have
            # S^-1 - c s_d s_d' for S^-1 and x - c (s_d' x) s_d for x, in the metric of S^-1.
            narrow = 1 - in_wide + in_wide / width
            for i in range(k):
                pull[p, i] = narrow * x[i]
                for j in range(k):
                    slope[i, j] = narrow * x[i] * x[j] - inverse[i, j]
            for d in range(n_shapes):
                cut, bent, square = 0.0, 0.0, 0.0
                for g in range(n_sizes):
                    c = sizes[g] / (1 + sizes[g] * seen[d])
                    part = logs[d, g] / mass
                    parts[task, 2 + d * n_sizes + g] += part
                    part *= c
                    cut += part
                    bent += part * along[d]
                    square += part * c * along[d] ** 2
                for i in range(k):
                    pull[p, i] -= bent * way[d, i]
                    for j in range(k):
                        both = x[i] * way[d, j] + way[d, i] * x[j]
                        slope[i, j] += (cut + square) * way[d, i] * way[d, j] - bent * both
            traced = 0.0
            for i in range(k):
                for j in range(k):
                    sums[task, i, j] += 0.5 * factor[p] * slope[i, j]
                    traced += 0.5 * spread[i, j] * slope[i, j]
            trace[p] = factor[p] * traced
