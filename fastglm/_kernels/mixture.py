"""The likelihood of filters of which some hold a synapse."""

import numpy as np

from fastglm._kernels.compiler import njit
from fastglm._kernels.threads import run_threads


@njit(cache=True, nogil=True, error_model="numpy")
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


@njit(cache=True, nogil=True, error_model="numpy")
def add_filters(residual, covariance, factor, spread, mixture, first, last, out):
    """The filters from ``first`` to ``last`` of `filter_likelihoods`; ``out`` is that of a task."""
    shapes, sizes, weights, width = mixture
    value, pull, trace, parts, sums = out
    k, n_shapes, n_sizes = residual.shape[1], shapes.shape[0], sizes.shape[0]
    lower, inverse, slope = np.empty((k, k)), np.empty((k, k)), np.empty((k, k))
    x, way = np.empty(k), np.empty((n_shapes, k))  # S^-1 r, S^-1 s_d
    seen, along = np.empty(n_shapes), np.empty(n_shapes)  # s_d' S^-1 s_d, s_d' S^-1 r
    gain, bent = np.empty((n_shapes, n_sizes)), np.empty(k)
    sums[:], parts[:] = 0.0, 0.0
    for p in range(first, last):
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
        # Every density is weights / root(det) exp(gain / 2), without what all parts share.
        wide = square * (1 - 1 / width)
        top = max(0.0, wide)
        for d in range(n_shapes):
            seen[d] = along[d] = 0.0
            for i in range(k):
                way[d, i] = 0.0
                for j in range(k):
                    way[d, i] += inverse[i, j] * shapes[d, j]
                seen[d] += way[d, i] * shapes[d, i]
                along[d] += shapes[d, i] * x[i]
            for g in range(n_sizes):
                gain[d, g] = along[d] ** 2 * sizes[g] / (1 + sizes[g] * seen[d])
                top = max(top, gain[d, g])
        in_core = weights[0] * np.exp(-0.5 * top)
        in_wide = weights[1] * width ** (-0.5 * k) * np.exp(0.5 * (wide - top))
        mass = in_core + in_wide
        for d in range(n_shapes):
            for g in range(n_sizes):
                spike = np.exp(0.5 * (gain[d, g] - top)) / np.sqrt(1 + sizes[g] * seen[d])
                gain[d, g] = weights[2 + d * n_sizes + g] * spike
                mass += gain[d, g]
        value[p] = 0.5 * (top - square) + np.log(mass) - half - 0.5 * k * np.log(2 * np.pi)
        in_core, in_wide = in_core / mass, in_wide / mass
        parts[0] += in_core
        parts[1] += in_wide
        # The means of Sigma^-1 r and of Sigma^-1 r r' Sigma^-1 - Sigma^-1 over the parts, where
        # a shape s has Sigma^-1 = S^-1 - c way way', with way = S^-1 s.
        narrow = 1 - in_wide + in_wide / width
        for i in range(k):
            bent[i] = 0.0
            for j in range(i + 1):
                slope[i, j] = narrow * x[i] * x[j] - inverse[i, j]
        for d in range(n_shapes):
            cut, pulled = 0.0, 0.0
            for g in range(n_sizes):
                c, part = sizes[g] / (1 + sizes[g] * seen[d]), gain[d, g] / mass
                parts[2 + d * n_sizes + g] += part
                cut += part * c * (1 + c * along[d] ** 2)
                pulled += part * c * along[d]
            for i in range(k):
                bent[i] += pulled * way[d, i]
                for j in range(i + 1):
                    slope[i, j] += cut * way[d, i] * way[d, j]
        traced = 0.0
        for i in range(k):
            pull[p, i] = narrow * x[i] - bent[i]
            for j in range(i + 1):
                s = 0.5 * (slope[i, j] - x[i] * bent[j] - bent[i] * x[j])
                sums[i, j] += factor[p] * s
                traced += spread[i, j] * (s if i == j else 2 * s)
        trace[p] = factor[p] * traced
    for i in range(k):
        for j in range(i):
            sums[j, i] = sums[i, j]


def filter_likelihoods(residual, covariance, factor, spread, shapes, sizes, weights, width, out):
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
    weights : ndarray of shape (2 + n_shapes * n_sizes,)
        w; g runs faster than d.
    width : float
    out : tuple of ndarrays, overwritten
        ``value`` (n_filters,), the log-likelihood; ``pull`` (n_filters, k), minus the slope with
        respect to r; ``trace`` (n_filters,), the slope with respect to log factor; ``parts``
        (n_tasks, n_weights) and ``sums`` (n_tasks, k, k), whose sums over tasks are the expected
        number of filters of each part and the slope with respect to ``spread``.
    """
    value, pull, trace, parts, sums = out
    n, n_tasks = residual.shape[0], sums.shape[0]
    mixture = shapes, sizes, weights, width

    def add(task):
        first, last = task * n // n_tasks, (task + 1) * n // n_tasks
        own = value, pull, trace, parts[task], sums[task]
        add_filters(residual, covariance, factor, spread, mixture, first, last, own)

    run_threads(add, range(n_tasks), residual.size * weights.size)
