"""Loss and residual of every bin: exp, log, and a kernel for each family."""

import math

import numpy as np
from numba import njit, prange, types
from numba.extending import overload

from fastglm._kernels.tiles import FASTMATH, LANES, NARROW_BLOCK, PAD, SEGMENT

_LOG2E = 1.4426950408889634
_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10
_FACTORIALS = tuple(1.0 / math.factorial(k) for k in range(14))
(_, _, _C2, _C3, _C4, _C5, _C6, _C7, _C8, _C9, _C10, _C11, _C12, _C13) = _FACTORIALS


@njit(cache=True, fastmath={"nsz", "contract"})
def exp(x):
    """exp(x) in float64 without a branch, so that LLVM vectorises it without SVML.

    Relative error below 3e-16 for normal results; 0 below -745.14, inf above 709.79, NaN for NaN.
    0.5 ns an element where the C library's takes 5. Range reduction to ``|r| <= ln(2)/2`` with
    ln(2) in two parts (Cody & Waite, 1980), Taylor series to degree 13, and 2**n as the product
    of two normal numbers.
    """
    clipped = min(max(x, -745.2), 709.9)
    n = np.floor(clipped * _LOG2E + 0.5)
    r = (clipped - n * _LN2_HIGH) - n * _LN2_LOW
    p = _C13 * r + _C12
    p = p * r + _C11
    p = p * r + _C10
    p = p * r + _C9
    p = p * r + _C8
    p = p * r + _C7
    p = p * r + _C6
    p = p * r + _C5
    p = p * r + _C4
    p = p * r + _C3
    p = p * r + _C2
    p = p * r + 1.0
    p = p * r + 1.0
    exponent = np.int64(n)
    half = exponent >> 1
    low = np.int64((half + 1023) << 52).view(np.float64)
    high = np.int64((exponent - half + 1023) << 52).view(np.float64)
    value = p * low * high
    return value if x > -745.14 else (value * 0.0 if x <= -745.14 else x)


_LN2_HIGH_32 = np.float32(0.693359375)  # nine bits: its products with n are exact
_LN2_LOW_32 = np.float32(-2.12194440e-4)
_LOG2E_32 = np.float32(_LOG2E)
# Minimax on |r| <= ln(2) / 2 of exp(r) = 1 + r + r^2 * p(r): Cephes expf (Moshier, 1989).
_E2, _E3, _E4, _E5, _E6, _E7 = (
    np.float32(c)
    for c in (
        5.0000001201e-1,
        1.6666665459e-1,
        4.1665795894e-2,
        8.3334519073e-3,
        1.3981999507e-3,
        1.9875691500e-4,
    )
)
_ONE_32, _HALF_32, _ZERO_32 = np.float32(1), np.float32(0.5), np.float32(0)
_LOW_32, _HIGH_32 = np.float32(-103.98), np.float32(89.0)
# The bits of 2**n, from float arithmetic: Numba widens int32 sums to int64.
_BIAS_32, _UNIT_32 = np.float32(127), np.float32(1 << 23)


@njit(cache=True, fastmath={"nsz", "contract"})
def exp32(x):
    """exp(x) in float32 without a branch: relative error below 1.5e-7 for normal results.

    0 below -103.98, inf above 88.73, NaN for NaN. As `exp`, with a polynomial of degree 7.
    """
    clipped = min(max(x, _LOW_32), _HIGH_32)
    n = np.floor(clipped * _LOG2E_32 + _HALF_32)
    r = (clipped - n * _LN2_HIGH_32) - n * _LN2_LOW_32
    p = _E7 * r + _E6
    p = p * r + _E5
    p = p * r + _E4
    p = p * r + _E3
    p = p * r + _E2
    p = p * r * r + r + _ONE_32
    half = np.floor(n * _HALF_32)
    low = np.int32((half + _BIAS_32) * _UNIT_32).view(np.float32)
    high = np.int32((n - half + _BIAS_32) * _UNIT_32).view(np.float32)
    value = p * low * high
    return value if x > _LOW_32 else (_ZERO_32 if x <= _LOW_32 else x)


@njit(cache=True, parallel=True, nogil=True)
def exp_array(x, out):
    """``out = exp(x)`` for one-dimensional float64 arrays."""
    n = x.shape[0]
    for segment in prange((n + 4095) // 4096):
        for k in range(segment * 4096, min(n, segment * 4096 + 4096)):
            out[k] = exp(x[k])


def exp_of(x):
    """`exp` or `exp32`, by the dtype of x."""
    return exp32(x) if np.asarray(x).dtype == np.float32 else exp(x)


@overload(exp_of)
def _exp_of(x):
    return (lambda x: exp32(x)) if x == types.float32 else (lambda x: exp(x))


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
        for k in range(block.shape[0]):  # a loop this long is one that LLVM vectorises
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


@njit(cache=True, fastmath=FASTMATH)
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


@njit(cache=True, parallel=True, nogil=True, fastmath=FASTMATH)
def poisson_exp(eta, counts, intercept, valid, start, n_rows, lanes, tiles, sums):
    """Poisson with exponential link: ``eta`` becomes mu, in float32 or float64.

    ``sums[tile, segment, :, lane]`` holds the sums of the loss and of the residual over the
    segment. The terms linear in the counts, ``-y * eta`` and ``-y``, are the caller's: they follow
    from ``X'Y`` without a pass. ``counts`` is not read.
    """
    n_segments = (n_rows + SEGMENT - 1) // SEGMENT
    for task in prange(tiles.shape[0] * n_segments):
        tile = tiles[task // n_segments]
        segment = task % n_segments
        begin = segment * SEGMENT
        end = min(n_rows, begin + SEGMENT)
        offsets = intercept[tile * lanes : (tile + 1) * lanes]
        args = eta[tile], offsets, valid, start, begin, end, sums[tile, segment]
        if lanes == 1:
            _poisson_exp_narrow(*args)
        else:
            _poisson_exp_wide(*args)


_SQRT_HALF = np.int64(0x3FE6A09E667F3BCD)  # the bits of sqrt(1/2)
_ODD = tuple(2.0 / (2 * k + 1) for k in range(11))  # of the series of 2 artanh


@njit(cache=True, fastmath={"nsz", "contract"}, error_model="numpy")
def log(x):
    """log(x) of a normal positive float64, without a branch: error below 3e-16 * max(1, |log x|).

    ``x = m * 2**n`` with m between sqrt(1/2) and sqrt(2), ``log m = 2 artanh((m - 1) / (m + 1))``.
    """
    bits = np.float64(x).view(np.int64)
    n = (bits - _SQRT_HALF) >> 52
    m = np.int64(bits - (n << 52)).view(np.float64)
    s = (m - 1.0) / (m + 1.0)
    q = s * s
    p = _ODD[10]
    p = p * q + _ODD[9]
    p = p * q + _ODD[8]
    p = p * q + _ODD[7]
    p = p * q + _ODD[6]
    p = p * q + _ODD[5]
    p = p * q + _ODD[4]
    p = p * q + _ODD[3]
    p = p * q + _ODD[2]
    p = p * q + _ODD[1]
    p = p * q + _ODD[0]
    exponent = np.float64(n)
    return exponent * _LN2_HIGH + (p * s + exponent * _LN2_LOW)


_SQRT_HALF_32, _SHIFT_32 = np.int32(0x3F3504F3), np.int32(23)
_O0, _O1, _O2, _O3, _O4 = (np.float32(2.0 / (2 * k + 1)) for k in range(5))


@njit(cache=True, fastmath={"nsz", "contract"}, error_model="numpy")
def log32(x):
    """log(x) of a normal positive float32: error below 2e-7 * max(1, |log x|). As `log`."""
    bits = np.float32(x).view(np.int32)
    n = np.int32(np.int32(bits - _SQRT_HALF_32) >> _SHIFT_32)
    m = np.int32(bits - np.int32(n << _SHIFT_32)).view(np.float32)
    s = (m - _ONE_32) / (m + _ONE_32)
    q = s * s
    p = _O4 * q + _O3
    p = p * q + _O2
    p = p * q + _O1
    p = p * q + _O0
    exponent = np.float32(n)
    return exponent * _LN2_HIGH_32 + (p * s + exponent * _LN2_LOW_32)


def log_of(x):
    """`log` or `log32`, by the dtype of x."""
    return log32(x) if np.asarray(x).dtype == np.float32 else log(x)


@overload(log_of)
def _log_of(x):
    return (lambda x: log32(x)) if x == types.float32 else (lambda x: log(x))


# Short functions in loops of their own, which LLVM inlines and vectorises: 1 ns an element in
# float32 on two cores, where the C library's exp, log1p and log take 10.
@njit(cache=True, fastmath={"nsz", "contract"}, error_model="numpy")
def _decay(x):
    return exp_of(-abs(x))


@njit(cache=True, fastmath={"nsz", "contract"}, error_model="numpy")
def _softplus(x, u, zero, one):
    w = u + one
    return max(x, zero) + (log_of(w) + (u - (w - one)) / w)


@njit(cache=True, fastmath={"nsz", "contract"}, error_model="numpy")
def _softplus_slope(x, u, zero, one):
    return (one if x > zero else u) / (u + one)


@njit(cache=True, parallel=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def poisson_softplus(eta, counts, intercept, valid, start, n_rows, lanes, tiles, sums):
    """Poisson with softplus link s: ``eta`` becomes the residual, in float32 or float64.

    Loss ``s - y log(s)`` and residual ``s' (1 - y / s)``; ``sums`` as in `poisson_exp`, counts
    included. With ``u = exp(-|eta|)``, ``s = max(eta, 0) + log1p(u)``. Far below zero s and s' are
    both u, and their ratio 1.
    """
    # Numbers of the dtype of eta: a float64 would widen every operation.
    zero, one = eta.dtype.type(0), eta.dtype.type(1)
    lowest = eta.dtype.type(-700 if eta.itemsize > 4 else -80)
    n_segments = (n_rows + SEGMENT - 1) // SEGMENT
    for task in prange(tiles.shape[0] * n_segments):
        tile = tiles[task // n_segments]
        segment = task % n_segments
        total = np.zeros((2, lanes))
        loss = np.empty(NARROW_BLOCK * lanes, eta.dtype)
        decays = np.empty(NARROW_BLOCK * lanes, eta.dtype)
        offsets = np.empty(NARROW_BLOCK * lanes, eta.dtype)
        for row in range(NARROW_BLOCK):
            for k in range(lanes):
                offsets[row * lanes + k] = intercept[tile * lanes + k]
        end = min(n_rows, segment * SEGMENT + SEGMENT)
        for begin in range(segment * SEGMENT, end, NARROW_BLOCK):
            n = min(NARROW_BLOCK, end - begin)
            block = eta[tile, (PAD + begin) * lanes : (PAD + begin + n) * lanes]
            y = counts[tile, (PAD + begin) * lanes : (PAD + begin + n) * lanes]
            for k in range(block.shape[0]):
                block[k] = max(block[k] + offsets[k], lowest)
                decays[k] = _decay(block[k])
            for k in range(block.shape[0]):
                loss[k] = _softplus(block[k], decays[k], zero, one)
            for k in range(block.shape[0]):
                block[k] = _softplus_slope(block[k], decays[k], zero, one)
                block[k] -= y[k] * (block[k] / loss[k])
            for k in range(block.shape[0]):
                loss[k] -= y[k] * log_of(loss[k])
            for row in range(n):
                if valid[start + begin + row]:
                    for k in range(lanes):
                        total[0, k] += loss[row * lanes + k]
                        total[1, k] += block[row * lanes + k]
                else:
                    for k in range(lanes):
                        block[row * lanes + k] = 0
        sums[tile, segment] = total
