"""Pointwise kernels of the observation models: eta of a chunk becomes the weighted residual.

Every kernel has the signature ``kernel(eta, counts, intercept, scale, weight, start, begin, end,
sums)``; layout, tiles and the compiler's policy are those of `fastglm._kernels.tiles`.

- ``eta`` of one tile, shape ((PAD + n_rows + PAD) * lanes,), float32 or float64, is changed in
  place in the rows ``begin`` to ``end``.
- ``counts`` has the layout of ``eta``. Kernels whose counts enter linearly do not read it.
- ``intercept`` of shape (lanes,) is added to eta; lanes is LANES or 1.
- ``scale`` of shape (lanes,) is read where the loss depends on it.
- ``weight`` of shape (n_bins,) has the dtype of eta. Loss and residual of bin ``start + row`` are
  multiplied by it. Weight 0 leaves the bin out: its residual is 0 even where eta is inf or NaN.
- ``sums[segment, :, lane]`` (float64) gets the sums of the loss and of the residual.
"""

import numpy as np

from fastglm._kernels.compiler import njit
from fastglm._kernels.elementary import (
    cumulant,
    decay,
    event_chance_of,
    exp_of,
    log_of,
    softplus,
    softplus_slope,
    surprise_of,
)
from fastglm._kernels.tiles import FASTMATH, LANES, NARROW_BLOCK, PAD, SEGMENT, first_at
from fastglm._kernels.weigh import CELLS, repeat, segment_sums, weigh, weigh_in_order, weigh_wide


@njit(cache=True, fastmath=FASTMATH)
def _poisson_exp_wide(eta, intercept, valid, start, begin, end, sums):
    total = np.zeros(LANES)
    offsets = np.empty(NARROW_BLOCK * LANES, eta.dtype)
    for row in range(NARROW_BLOCK):
        for k in range(LANES):
            offsets[row * LANES + k] = intercept[k]
    for first in range(begin, end, NARROW_BLOCK):
        n = min(NARROW_BLOCK, end - first)
        block = eta[(PAD + first) * LANES : (PAD + first + n) * LANES]
        for k in range(block.shape[0]):  # LLVM vectorises a loop of this length
            block[k] = exp_of(block[k] + offsets[k])
        for row in range(n):
            values = block[row * LANES : (row + 1) * LANES]
            if valid[start + first + row]:
                for k in range(LANES):
                    total[k] += values[k]
            else:
                for k in range(LANES):
                    values[k] = 0
    for k in range(LANES):
        sums[0, k] = total[k]
        sums[1, k] = total[k]


# Inlined by force: the process that compiles it would else run another copy of it than a process
# that loads `poisson_exp` from the cache, with other last digits.
@njit(cache=True, fastmath=FASTMATH, forceinline=True)
def _poisson_exp_narrow(eta, intercept, valid, start, begin, end, sums):
    """For tiles of one receiver the vector runs along the bins."""
    values = eta[PAD + begin : PAD + end]
    keep = valid[start + begin : start + end]
    offset = intercept[0]
    total = 0.0
    zero = eta.dtype.type(0)
    for k in range(values.shape[0]):
        mu = exp_of(values[k] + offset)
        mu = mu if keep[k] else zero
        total += mu
        values[k] = mu
    sums[:, 0] = total


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def poisson_exp(eta, counts, intercept, scale, valid, start, begin, end, sums):
    """Poisson with exponential link: ``eta`` becomes mu, in float32 or float64.

    ``sums[segment, :, lane]`` holds the sums of the loss and of the residual over the
    segment, without the terms linear in the counts, ``-y * eta`` and ``-y``. The caller adds these
    terms, which follow from ``X'Y`` without a pass. ``counts`` is not read.
    """
    for first in range(begin, end, SEGMENT):
        last = min(end, first + SEGMENT)
        args = eta, intercept, valid, start, first, last, sums[first // SEGMENT]
        if intercept.shape[0] == 1:
            _poisson_exp_narrow(*args)
        else:
            _poisson_exp_wide(*args)


@njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def poisson_softplus(eta, counts, intercept, scale, weight, start, begin, end, sums):
    """Poisson with softplus link s: ``eta`` becomes the residual, in float32 or float64.

    The loss is ``s - y log(s)`` and the residual ``s' (1 - y / s)``, both times the weight.
    ``sums`` include the terms of the counts. With ``u = exp(-|eta|)``, ``s = max(eta, 0) +
    log1p(u)``. Far below zero s and s' are both u, and their ratio is 1. Where u underflows,
    ``log(s)`` is eta.
    """
    # Constants have the dtype of eta: a float64 would widen every operation.
    zero, one = eta.dtype.type(0), eta.dtype.type(1)
    lowest = eta.dtype.type(-700 if eta.itemsize > 4 else -80)
    far = eta.dtype.type(1e30)  # finite: times a count of 0
    lanes = intercept.shape[0]
    loss = np.empty(NARROW_BLOCK * lanes, eta.dtype)
    decays = np.empty(NARROW_BLOCK * lanes, eta.dtype)
    below = np.empty(NARROW_BLOCK * lanes, eta.dtype)
    offsets = np.empty(NARROW_BLOCK * lanes, eta.dtype)
    repeat(intercept, lanes, offsets)
    for row in range(begin, end, NARROW_BLOCK):
        n = min(NARROW_BLOCK, end - row)
        block = eta[(PAD + row) * lanes : (PAD + row + n) * lanes]
        y = counts[(PAD + row) * lanes : (PAD + row + n) * lanes]
        for k in range(block.shape[0]):
            x = block[k] + offsets[k]
            below[k] = min(max(lowest - x, zero), far)
            block[k] = max(x, lowest)
            decays[k] = decay(block[k])
        for k in range(block.shape[0]):
            loss[k] = softplus(block[k], decays[k], zero, one)
        for k in range(block.shape[0]):
            block[k] = softplus_slope(block[k], decays[k], zero, one)
            block[k] -= y[k] * (block[k] / loss[k])
        for k in range(block.shape[0]):
            loss[k] -= y[k] * (log_of(loss[k]) - below[k])
        total = segment_sums(sums, row)
        args = loss, block, weight[start + row : start + row + n], total[0], total[1]
        if lanes == 1:
            weigh_in_order(*args)
        else:
            weigh_wide(*args)


@njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def bernoulli_logistic(eta, counts, intercept, scale, weight, start, begin, end, sums):
    """Bernoulli with logistic link: ``eta`` becomes ``w * mu``, ``mu = 1 / (1 + exp(-eta))``.

    ``sums`` hold ``w * log(1 + exp(eta))`` and ``w * mu``. The caller adds the terms linear in the
    counts, ``-y * eta`` and ``-y``. ``counts`` is not read.
    """
    zero, one = eta.dtype.type(0), eta.dtype.type(1)
    lanes = intercept.shape[0]
    block_rows = CELLS // lanes
    loss, decays = np.empty(CELLS, eta.dtype), np.empty(CELLS, eta.dtype)
    offsets = np.empty(CELLS, eta.dtype)
    repeat(intercept, lanes, offsets)
    for row in range(begin, end, block_rows):
        n = min(block_rows, end - row)
        block = eta[(PAD + row) * lanes : (PAD + row + n) * lanes]
        for k in range(block.shape[0]):
            block[k] += offsets[k]
            decays[k] = decay(block[k])
        for k in range(block.shape[0]):
            loss[k] = cumulant(block[k], decays[k], zero)
        for k in range(block.shape[0]):
            block[k] = softplus_slope(block[k], decays[k], zero, one)
        weigh(loss, block, weight[start + row : start + row + n], lanes, segment_sums(sums, row))


@njit(cache=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def bernoulli_cloglog(eta, counts, intercept, scale, weight, start, begin, end, sums):
    """Bernoulli with ``mu = 1 - exp(-m)``, ``m = exp(eta)``: ``eta`` becomes the residual.

    The loss is ``-y log(mu) + (1 - y) m`` and the residual ``(1 - y) m - y m exp(-m) / mu``, both
    times the weight. ``sums`` include the terms of the counts. Where y = 1, the terms of ``1 - y``
    are 0 even if m is inf.
    """
    zero, one = eta.dtype.type(0), eta.dtype.type(1)
    lowest = eta.dtype.type(-700 if eta.itemsize > 4 else -80)
    far = eta.dtype.type(1e30)  # finite: times a count of 0
    most = eta.dtype.type(1000)  # exp(-1000) is 0, and inf * 0 in m * exp(-m) is avoided
    lanes = intercept.shape[0]
    block_rows = CELLS // lanes
    loss, chance = np.empty(CELLS, eta.dtype), np.empty(CELLS, eta.dtype)
    decays, below = np.empty(CELLS, eta.dtype), np.empty(CELLS, eta.dtype)
    offsets = np.empty(CELLS, eta.dtype)
    repeat(intercept, lanes, offsets)
    for row in range(begin, end, block_rows):
        n = min(block_rows, end - row)
        block = eta[(PAD + row) * lanes : (PAD + row + n) * lanes]
        y = counts[(PAD + row) * lanes : (PAD + row + n) * lanes]
        for k in range(block.shape[0]):
            x = block[k] + offsets[k]
            below[k] = min(lowest - x, far) if x < lowest else zero  # where log(mu) is eta
            block[k] = exp_of(lowest if x < lowest else x)
        for k in range(block.shape[0]):
            decays[k] = exp_of(-block[k])
        for k in range(block.shape[0]):
            chance[k] = event_chance_of(block[k], decays[k])
        for k in range(block.shape[0]):
            loss[k] = y[k] * (surprise_of(chance[k], decays[k]) + below[k])
        for k in range(block.shape[0]):
            m = block[k]
            silent = (one - y[k]) * m if y[k] < one else zero
            loss[k] += silent
            bounded = m if m < most else most
            block[k] = silent - y[k] * (bounded * decays[k] / chance[k])
        weigh(loss, block, weight[start + row : start + row + n], lanes, segment_sums(sums, row))


@njit(cache=True, fastmath=FASTMATH)
def _gaussian_wide(eta, intercept, weight, start, begin, end, sums):
    total = np.zeros((2, LANES))
    zero, two = eta.dtype.type(0), eta.dtype.type(2)
    offsets = np.empty(LANES, eta.dtype)
    offsets[:] = intercept
    for row in range(begin, end):
        w = weight[start + row]
        values = eta[(PAD + row) * LANES : (PAD + row + 1) * LANES]
        if w != zero:
            for k in range(LANES):
                mu = values[k] + offsets[k]
                product = w * mu
                total[0, k] += product * mu
                total[1, k] += two * product
                values[k] = two * product
        else:
            for k in range(LANES):
                values[k] = zero
    sums[:] = total


@njit(cache=True, fastmath=FASTMATH)
def _gaussian_narrow(eta, intercept, weight, start, begin, end, sums):
    values = eta[PAD + begin : PAD + end]
    weights = weight[start + begin : start + end]
    zero, two, offset = eta.dtype.type(0), eta.dtype.type(2), intercept[0]
    losses, residuals = 0.0, 0.0
    for k in range(values.shape[0]):
        mu = values[k] + offset
        product = weights[k] * mu if weights[k] != zero else zero
        losses += product * mu if weights[k] != zero else zero
        values[k] = two * product
        residuals += two * product
    sums[0, 0] = losses
    sums[1, 0] = residuals


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def gaussian_identity(eta, counts, intercept, scale, weight, start, begin, end, sums):
    """Gaussian, ``mu = eta``: ``eta`` becomes ``2 w mu``; ``sums`` hold ``w mu^2`` and ``2 w mu``.

    The caller adds the terms linear in the counts, ``-2 y mu`` and ``-2 y``, and the constant
    ``y^2``. ``counts`` is not read.
    """
    for first in range(begin, end, SEGMENT):
        last = min(end, first + SEGMENT)
        args = eta, intercept, weight, start, first, last, sums[first // SEGMENT]
        if intercept.shape[0] == 1:
            _gaussian_narrow(*args)
        else:
            _gaussian_wide(*args)


@njit(cache=True, nogil=True)
def scatter_counts(bins, receivers, amplitudes, receiver, start, begin, end, lanes, out):
    """``out[(PAD + bin - start) * lanes + r - receiver] += amplitude`` of every event of a tile.

    Its receivers are ``receiver`` to ``receiver + lanes``; other events are skipped. Events are
    sorted by bin. The rows ``begin`` to ``end`` are set to 0 first; the others stay as they are.
    """
    out[(PAD + begin) * lanes : (PAD + end) * lanes] = 0
    for e in range(first_at(bins, start + begin), first_at(bins, start + end)):
        lane = receivers[e] - receiver
        if 0 <= lane < lanes:
            out[(PAD + bins[e] - start) * lanes + lane] += amplitudes[e]
