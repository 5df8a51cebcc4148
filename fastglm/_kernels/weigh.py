"""Blocks of a pointwise kernel: intercepts in every row, weights of bins, and sums."""

from fastglm._kernels.compiler import njit
from fastglm._kernels.tiles import FASTMATH, LANES, NARROW_BLOCK, SEGMENT

CELLS = NARROW_BLOCK * LANES  # numbers in a block: 4 KB of float32, so that four stay in L1


@njit(cache=True, fastmath=FASTMATH)
def repeat(intercept, lanes, out):
    """The intercepts of a tile in every row of a block."""
    if lanes == 1:
        out[:] = intercept[0]
    else:
        for row in range(NARROW_BLOCK):
            for k in range(LANES):
                out[row * LANES + k] = intercept[k]


@njit(cache=True)
def segment_sums(sums, row):
    """The sums of the segment of a row; those of its first row begin at 0."""
    total = sums[row // SEGMENT]
    if row % SEGMENT == 0:
        total[:] = 0
    return total


@njit(cache=True, fastmath=FASTMATH)
def weigh_wide(loss, residual, weight, losses, residuals):
    """Weighted residuals in place; adds to the sums of every lane.

    Each array is written in a loop of its own: 1.1 ns an element; a single loop takes 3.0.
    """
    zero = residual.dtype.type(0)
    for row in range(weight.shape[0]):
        w = weight[row]
        terms = loss[row * LANES : (row + 1) * LANES]
        values = residual[row * LANES : (row + 1) * LANES]
        if w != zero:
            for k in range(LANES):
                values[k] *= w
            for k in range(LANES):
                losses[k] += terms[k] * w
            for k in range(LANES):
                residuals[k] += values[k]
        else:
            for k in range(LANES):
                values[k] = zero


@njit(cache=True, fastmath=FASTMATH)
def weigh_narrow(loss, residual, weight, losses, residuals):
    """For tiles of one receiver the vector runs along the bins."""
    zero = residual.dtype.type(0)
    total, slope = 0.0, 0.0
    for k in range(weight.shape[0]):
        w = weight[k]
        value = residual[k] * w if w != zero else zero
        total += loss[k] * w if w != zero else zero
        slope += value
        residual[k] = value
    losses[0] += total
    residuals[0] += slope


@njit(cache=True)
def weigh_in_order(loss, residual, weight, losses, residuals):
    """As `weigh_narrow`, but sums run bin by bin, in a fixed order."""
    for k in range(weight.shape[0]):
        w = weight[k]
        if w != 0:
            residual[k] *= w
            losses[0] += loss[k] * w
            residuals[0] += residual[k]
        else:
            residual[k] = 0


@njit(cache=True, fastmath=FASTMATH)
def weigh(loss, residual, weight, lanes, total):
    """Weighted residuals in place; adds to the sums of the loss and of the residual."""
    if lanes == 1:
        weigh_narrow(loss, residual, weight, total[0], total[1])
    else:
        weigh_wide(loss, residual, weight, total[0], total[1])
