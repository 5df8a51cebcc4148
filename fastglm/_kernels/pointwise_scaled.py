"""Pointwise kernels of the families that have a scale: Gamma and negative binomial.

Their signature is that of `fastglm._kernels.pointwise`.
"""

import math

import numpy as np

from fastglm._kernels.compiler import njit
from fastglm._kernels.elementary import decay, exp_of, log_of, softplus, softplus_slope
from fastglm._kernels.tiles import FASTMATH, PAD
from fastglm._kernels.weigh import CELLS, repeat, segment_sums, weigh


@njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def gamma_one_over_x(eta, counts, intercept, scale, weight, start, begin, end, sums):
    """Gamma with ``mu = 1 / eta``: ``eta`` becomes the residual ``y - mu``, times the weight.

    The loss is ``y eta - log(eta)``. Where eta is not above 0 it is infinite, and the residual is
    its limit, minus infinity. ``sums`` include the terms of the counts.
    """
    zero, one = eta.dtype.type(0), eta.dtype.type(1)
    most = eta.dtype.type(np.inf)
    lanes = intercept.shape[0]
    block_rows = CELLS // lanes
    loss, offsets = np.empty(CELLS, eta.dtype), np.empty(CELLS, eta.dtype)
    repeat(intercept, lanes, offsets)
    for row in range(begin, end, block_rows):
        n = min(block_rows, end - row)
        block = eta[(PAD + row) * lanes : (PAD + row + n) * lanes]
        y = counts[(PAD + row) * lanes : (PAD + row + n) * lanes]
        for k in range(block.shape[0]):
            x = block[k] + offsets[k]
            block[k] = x
            value = y[k] * x - log_of(x)
            loss[k] = most if x <= zero else value
        for k in range(block.shape[0]):
            block[k] = y[k] - one / (zero if block[k] <= zero else block[k])
        weigh(loss, block, weight[start + row : start + row + n], lanes, segment_sums(sums, row))


@njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def gamma_exp(eta, counts, intercept, scale, weight, start, begin, end, sums):
    """Gamma with ``mu = exp(eta)``: ``eta`` becomes the residual ``1 - y / mu``, times the weight.

    The loss is ``y / mu + eta``. ``sums`` include the terms of the counts.
    """
    one = eta.dtype.type(1)
    lanes = intercept.shape[0]
    block_rows = CELLS // lanes
    loss, offsets = np.empty(CELLS, eta.dtype), np.empty(CELLS, eta.dtype)
    repeat(intercept, lanes, offsets)
    for row in range(begin, end, block_rows):
        n = min(block_rows, end - row)
        block = eta[(PAD + row) * lanes : (PAD + row + n) * lanes]
        y = counts[(PAD + row) * lanes : (PAD + row + n) * lanes]
        for k in range(block.shape[0]):
            block[k] += offsets[k]
            loss[k] = exp_of(-block[k])
        for k in range(block.shape[0]):
            ratio = y[k] * loss[k]
            loss[k] = ratio + block[k]
            block[k] = one - ratio
        weigh(loss, block, weight[start + row : start + row + n], lanes, segment_sums(sums, row))


@njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def gamma_softplus(eta, counts, intercept, scale, weight, start, begin, end, sums):
    """Gamma with softplus link s: ``eta`` becomes ``s' / s (1 - y / s)``, times the weight.

    The loss is ``y / s + log(s)``. ``sums`` include the terms of the counts.
    """
    zero, one = eta.dtype.type(0), eta.dtype.type(1)
    lowest = eta.dtype.type(-700 if eta.itemsize > 4 else -80)
    lanes = intercept.shape[0]
    block_rows = CELLS // lanes
    loss, decays = np.empty(CELLS, eta.dtype), np.empty(CELLS, eta.dtype)
    offsets = np.empty(CELLS, eta.dtype)
    repeat(intercept, lanes, offsets)
    for row in range(begin, end, block_rows):
        n = min(block_rows, end - row)
        block = eta[(PAD + row) * lanes : (PAD + row + n) * lanes]
        y = counts[(PAD + row) * lanes : (PAD + row + n) * lanes]
        for k in range(block.shape[0]):
            x = block[k] + offsets[k]
            block[k] = lowest if x < lowest else x
            decays[k] = decay(block[k])
        for k in range(block.shape[0]):
            loss[k] = softplus(block[k], decays[k], zero, one)
        for k in range(block.shape[0]):
            ratio = y[k] / loss[k]
            block[k] = softplus_slope(block[k], decays[k], zero, one) / loss[k]
            block[k] *= one - ratio
            decays[k] = ratio
        for k in range(block.shape[0]):
            loss[k] = decays[k] + log_of(loss[k])
        weigh(loss, block, weight[start + row : start + row + n], lanes, segment_sums(sums, row))


@njit(cache=True, fastmath=FASTMATH)
def _read_scales(scale, lanes, scales, log_scales):
    """Scales of a tile in every row of a block, and their logarithms; 0 is the limit, Poisson."""
    least = scale.dtype.type(1e-200 if scale.itemsize > 4 else 1e-30)
    for k in range(scale.shape[0]):
        scales[k] = max(scale[k], least)
        log_scales[k] = math.log(scale[k]) if scale[k] > 0 else 0.0
    for k in range(lanes, scales.shape[0]):
        scales[k] = scales[k - lanes]
        log_scales[k] = log_scales[k - lanes]


@njit(cache=True, fastmath={"nsz", "contract"}, error_model="numpy")
def _log1p_over(scale, mu, one):
    """``log(1 + scale mu) / scale``, with the digits of mu where their product is small."""
    u = scale * mu
    w = u + one
    return (log_of(w) + (u - (w - one)) / w) / scale


@njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def negative_binomial_exp(eta, counts, intercept, scale, weight, start, begin, end, sums):
    """Negative binomial, ``mu = exp(eta)``: ``eta`` becomes ``(mu - y) / v``, times the weight.

    With ``v = 1 + scale mu`` the loss is ``log(v) / scale - y log(scale mu / v)``. ``sums`` include
    the terms of the counts.
    """
    zero, one = eta.dtype.type(0), eta.dtype.type(1)
    lowest = eta.dtype.type(-700 if eta.itemsize > 4 else -80)
    far = eta.dtype.type(1e30)  # finite: times a count of 0
    lanes = intercept.shape[0]
    block_rows = CELLS // lanes
    loss, means = np.empty(CELLS, eta.dtype), np.empty(CELLS, eta.dtype)
    scales, log_scales = np.empty(CELLS, eta.dtype), np.empty(CELLS, eta.dtype)
    below, offsets = np.empty(CELLS, eta.dtype), np.empty(CELLS, eta.dtype)
    repeat(intercept, lanes, offsets)
    _read_scales(scale, lanes, scales, log_scales)
    for row in range(begin, end, block_rows):
        n = min(block_rows, end - row)
        block = eta[(PAD + row) * lanes : (PAD + row + n) * lanes]
        y = counts[(PAD + row) * lanes : (PAD + row + n) * lanes]
        for k in range(block.shape[0]):
            x = block[k] + offsets[k]
            below[k] = min(lowest - x, far) if x < lowest else zero  # where log(mu) is eta
            block[k] = lowest if x < lowest else x
            means[k] = exp_of(block[k])
        for k in range(block.shape[0]):
            loss[k] = _log1p_over(scales[k], means[k], one)
        for k in range(block.shape[0]):
            loss[k] -= y[k] * (log_scales[k] + block[k] - below[k] - scales[k] * loss[k])
            block[k] = (means[k] - y[k]) / (one + scales[k] * means[k])
        weigh(loss, block, weight[start + row : start + row + n], lanes, segment_sums(sums, row))


@njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def negative_binomial_softplus(eta, counts, intercept, scale, weight, start, begin, end, sums):
    """Negative binomial with softplus link s: as `negative_binomial_exp`, with ``mu = s``.

    ``eta`` becomes the residual ``s' (1 - y / s) / v``, times the weight.
    """
    zero, one = eta.dtype.type(0), eta.dtype.type(1)
    lowest = eta.dtype.type(-700 if eta.itemsize > 4 else -80)
    far = eta.dtype.type(1e30)  # finite: times a count of 0
    lanes = intercept.shape[0]
    block_rows = CELLS // lanes
    loss, means = np.empty(CELLS, eta.dtype), np.empty(CELLS, eta.dtype)
    decays, offsets = np.empty(CELLS, eta.dtype), np.empty(CELLS, eta.dtype)
    scales, log_scales = np.empty(CELLS, eta.dtype), np.empty(CELLS, eta.dtype)
    below = np.empty(CELLS, eta.dtype)
    repeat(intercept, lanes, offsets)
    _read_scales(scale, lanes, scales, log_scales)
    for row in range(begin, end, block_rows):
        n = min(block_rows, end - row)
        block = eta[(PAD + row) * lanes : (PAD + row + n) * lanes]
        y = counts[(PAD + row) * lanes : (PAD + row + n) * lanes]
        for k in range(block.shape[0]):
            x = block[k] + offsets[k]
            below[k] = min(lowest - x, far) if x < lowest else zero
            block[k] = lowest if x < lowest else x
            decays[k] = decay(block[k])
        for k in range(block.shape[0]):
            means[k] = softplus(block[k], decays[k], zero, one)
        for k in range(block.shape[0]):
            block[k] = softplus_slope(block[k], decays[k], zero, one)
            block[k] -= y[k] * (block[k] / means[k])
            block[k] /= one + scales[k] * means[k]
        for k in range(block.shape[0]):
            loss[k] = _log1p_over(scales[k], means[k], one)
        for k in range(block.shape[0]):
            log_mean = log_of(means[k]) - below[k]
            loss[k] -= y[k] * (log_scales[k] + log_mean - scales[k] * loss[k])
        weigh(loss, block, weight[start + row : start + row + n], lanes, segment_sums(sums, row))
