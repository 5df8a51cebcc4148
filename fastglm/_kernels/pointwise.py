"""Pointwise kernels of the observation models: eta of a chunk becomes the weighted residual.

Every kernel has the signature ``kernel(eta, counts, intercept, scale, weight, start, n_rows, lanes,
tiles, sums)``; layout, tiles and the compiler's policy are those of `fastglm._kernels.tiles`.

- ``eta`` of shape (n_tiles, (PAD + n_rows + PAD) * lanes), float32 or float64, is changed in place.
- ``counts`` has the layout of ``eta``. Kernels whose counts enter linearly do not read it.
- ``intercept`` of shape (n_tiles * lanes,) is added to eta.
- ``scale`` of shape (n_tiles * lanes,) is read where the loss depends on it.
- ``weight`` of shape (n_bins,) has the dtype of eta. Loss and residual of bin ``start + row`` are
  multiplied by it. Weight 0 leaves the bin out: its residual is 0 even where eta is inf or NaN.
- ``sums[tile, segment, :, lane]`` (float64) gets the sums of the loss and of the residual.

``lanes`` is LANES or 1.
"""

import math

import numpy as np
from numba import prange, types
from numba.extending import overload

from fastglm._kernels.compiler import njit
from fastglm._kernels.tiles import FASTMATH, LANES, NARROW_BLOCK, PAD, SEGMENT

_LOG2E = 1.4426950408889634
_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10
_FACTORIALS = tuple(1.0 / math.factorial(k) for k in range(14))
(_, _, _C2, _C3, _C4, _C5, _C6, _C7, _C8, _C9, _C10, _C11, _C12, _C13) = _FACTORIALS


@njit(cache=True, fastmath={"nsz", "contract"})
def exp(x):
    """exp(x) in float64 without a branch, so that LLVM vectorises it without SVML.

    The relative error is below 3e-16 for normal results. The result is 0 below -745.14, inf above
    709.79, and NaN for NaN. An element takes 0.5 ns; the C library takes 5. The range is reduced to
    ``|r| <= ln(2)/2`` with ln(2) in two parts (Cody & Waite, 1980). A Taylor series of degree 13
    follows, and 2**n is the product of two normal numbers.
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

    The result is 0 below -103.98, inf above 88.73, and NaN for NaN. It works as `exp`, with a
    polynomial of degree 7.
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


@njit(cache=True, parallel=True, nogil=True, fastmath=FASTMATH)
def poisson_exp(eta, counts, intercept, scale, valid, start, n_rows, lanes, tiles, sums):
    """Poisson with exponential link: ``eta`` becomes mu, in float32 or float64.

    ``sums[tile, segment, :, lane]`` holds the sums of the loss and of the residual over the
    segment, without the terms linear in the counts, ``-y * eta`` and ``-y``. The caller adds these
    terms, which follow from ``X'Y`` without a pass. ``counts`` is not read.
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
_ODD = tuple(2.0 / (2 * k + 1) for k in range(11))  # coefficients of the series of 2 artanh


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


_CELLS = NARROW_BLOCK * LANES  # numbers in a block: 4 KB of float32, so that four stay in L1

# --- log1p, 1 - exp(-m) and its log, without branches --------------------------------------------
# Each has a float64 and a float32 form, with flags of their own, as `exp` and `log`.

_LN2 = math.log(2.0)
(_D2, _D3, _D4, _D5, _D6, _D7, _D8, _D9, _D10, _D11, _D12, _D13) = (
    1.0 / math.factorial(k) for k in range(2, 14)
)

_LN2_32 = np.float32(_LN2)
_F2, _F3, _F4, _F5, _F6, _F7, _F8 = (np.float32(1.0 / math.factorial(k)) for k in range(2, 9))
_TWO_32, _THREE_32 = np.float32(2), np.float32(3)
_TINY_32 = np.float32(1e-15)
_BEND_32, _SMALL_32, _RARE_32 = np.float32(0.4), np.float32(0.35), np.float32(0.29)


@njit(cache=True, fastmath={"nsz", "contract"}, error_model="numpy")
def log1p_unit(u):
    """log(1 + u) for ``0 <= u <= 1`` in float64: relative error below 5e-16, down to u = 0.

    It is ``2 artanh(u / (u + 2))``. Above u = 0.4 it is ``2 artanh((u - 1) / (u + 3)) + log(2)``.
    """
    large = u > 0.4
    s = (u - 1.0 if large else u) / (u + (3.0 if large else 2.0))
    q = s if large or s > 1e-120 else 1e-120  # smaller numbers have slow, subnormal squares
    q = q * q
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
    return p * s + (_LN2 if large else 0.0)


@njit(cache=True, fastmath={"nsz", "contract"}, error_model="numpy")
def log1p_unit32(u):
    """log(1 + u) for ``0 <= u <= 1`` in float32: relative error below 3e-7. As `log1p_unit`."""
    large = u > _BEND_32
    s = (u - _ONE_32 if large else u) / (u + (_THREE_32 if large else _TWO_32))
    q = s if large or s > _TINY_32 else _TINY_32  # smaller numbers have slow, subnormal squares
    q = q * q
    p = _O4 * q + _O3
    p = p * q + _O2
    p = p * q + _O1
    p = p * q + _O0
    return p * s + (_LN2_32 if large else _ZERO_32)


def log1p_of(u):
    """`log1p_unit` or `log1p_unit32`, by the dtype of u."""
    return log1p_unit32(u) if np.asarray(u).dtype == np.float32 else log1p_unit(u)


@overload(log1p_of)
def _log1p_of(u):
    return (lambda u: log1p_unit32(u)) if u == types.float32 else (lambda u: log1p_unit(u))


@njit(cache=True, fastmath={"nsz", "contract"}, error_model="numpy")
def event_chance(m, e):
    """``1 - e`` with ``e = exp(-m)``, ``m >= 0``: relative error below 6e-16, down to m = 0."""
    p = _D12 - _D13 * m
    p = _D11 - p * m
    p = _D10 - p * m
    p = _D9 - p * m
    p = _D8 - p * m
    p = _D7 - p * m
    p = _D6 - p * m
    p = _D5 - p * m
    p = _D4 - p * m
    p = _D3 - p * m
    p = _D2 - p * m
    p = 1.0 - p * m
    return p * m if m < 0.35 else 1.0 - e


@njit(cache=True, fastmath={"nsz", "contract"}, error_model="numpy")
def event_chance32(m, e):
    """As `event_chance`, in float32: relative error below 3e-7."""
    p = _F7 - _F8 * m
    p = _F6 - p * m
    p = _F5 - p * m
    p = _F4 - p * m
    p = _F3 - p * m
    p = _F2 - p * m
    p = _ONE_32 - p * m
    return p * m if m < _SMALL_32 else _ONE_32 - e


def event_chance_of(m, e):
    """`event_chance` or `event_chance32`, by the dtype of m."""
    return event_chance32(m, e) if np.asarray(m).dtype == np.float32 else event_chance(m, e)


@overload(event_chance_of)
def _event_chance_of(m, e):
    if m == types.float32:
        return lambda m, e: event_chance32(m, e)
    return lambda m, e: event_chance(m, e)


@njit(cache=True, fastmath={"nsz", "contract"}, error_model="numpy")
def surprise(mu, e):
    """``-log(mu)`` for a normal ``mu = 1 - e``, in float64: relative error below 1e-15.

    It works as `log`, but near mu = 1 it reads the small number e, not ``1 - mu``.
    """
    bits = np.float64(mu).view(np.int64)
    n = (bits - _SQRT_HALF) >> 52
    m = np.int64(bits - (n << 52)).view(np.float64)
    s = (1.0 - m if e >= 0.29 else e) / (m + 1.0)  # e where it is NaN
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
    return (p * s - exponent * _LN2_LOW) - exponent * _LN2_HIGH


@njit(cache=True, fastmath={"nsz", "contract"}, error_model="numpy")
def surprise32(mu, e):
    """As `surprise`, in float32: relative error below 3e-7 for a given e."""
    bits = np.float32(mu).view(np.int32)
    n = np.int32(np.int32(bits - _SQRT_HALF_32) >> _SHIFT_32)
    m = np.int32(bits - np.int32(n << _SHIFT_32)).view(np.float32)
    s = (_ONE_32 - m if e >= _RARE_32 else e) / (m + _ONE_32)
    q = s * s
    p = _O4 * q + _O3
    p = p * q + _O2
    p = p * q + _O1
    p = p * q + _O0
    exponent = np.float32(n)
    return (p * s - exponent * _LN2_LOW_32) - exponent * _LN2_HIGH_32


def surprise_of(mu, e):
    """`surprise` or `surprise32`, by the dtype of mu."""
    return surprise32(mu, e) if np.asarray(mu).dtype == np.float32 else surprise(mu, e)


@overload(surprise_of)
def _surprise_of(mu, e):
    if mu == types.float32:
        return lambda mu, e: surprise32(mu, e)
    return lambda mu, e: surprise(mu, e)


# Short functions, each called in a loop of its own: LLVM inlines them and vectorises the loop.


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


@njit(cache=True, fastmath={"nsz", "contract"}, error_model="numpy")
def _cumulant(x, u, zero):
    return (x if x > zero else zero) + log1p_of(u)


# --- weights and sums ----------------------------------------------------------------------------


@njit(cache=True, fastmath=FASTMATH)
def _repeat(intercept, lanes, out):
    """The intercepts of a tile in every row of a block."""
    if lanes == 1:
        out[:] = intercept[0]
    else:
        for row in range(NARROW_BLOCK):
            for k in range(LANES):
                out[row * LANES + k] = intercept[k]


@njit(cache=True, fastmath=FASTMATH)
def _weigh_wide(loss, residual, weight, losses, residuals):
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
def _weigh_narrow(loss, residual, weight, losses, residuals):
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
def _weigh_in_order(loss, residual, weight, losses, residuals):
    """As `_weigh_narrow`, but sums run bin by bin, in a fixed order."""
    for k in range(weight.shape[0]):
        w = weight[k]
        if w != 0:
            residual[k] *= w
            losses[0] += loss[k] * w
            residuals[0] += residual[k]
        else:
            residual[k] = 0


# --- the kernels ---------------------------------------------------------------------------------


@njit(cache=True, parallel=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def poisson_softplus(eta, counts, intercept, scale, weight, start, n_rows, lanes, tiles, sums):
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
    n_segments = (n_rows + SEGMENT - 1) // SEGMENT
    for task in prange(tiles.shape[0] * n_segments):
        tile = tiles[task // n_segments]
        segment = task % n_segments
        total = np.zeros((2, lanes))
        loss = np.empty(NARROW_BLOCK * lanes, eta.dtype)
        decays = np.empty(NARROW_BLOCK * lanes, eta.dtype)
        below = np.empty(NARROW_BLOCK * lanes, eta.dtype)
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
                x = block[k] + offsets[k]
                below[k] = min(max(lowest - x, zero), far)
                block[k] = max(x, lowest)
                decays[k] = _decay(block[k])
            for k in range(block.shape[0]):
                loss[k] = _softplus(block[k], decays[k], zero, one)
            for k in range(block.shape[0]):
                block[k] = _softplus_slope(block[k], decays[k], zero, one)
                block[k] -= y[k] * (block[k] / loss[k])
            for k in range(block.shape[0]):
                loss[k] -= y[k] * (log_of(loss[k]) - below[k])
            args = loss, block, weight[start + begin : start + begin + n], total[0], total[1]
            if lanes == 1:
                _weigh_in_order(*args)
            else:
                _weigh_wide(*args)
        sums[tile, segment] = total


@njit(cache=True, parallel=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def bernoulli_logistic(eta, counts, intercept, scale, weight, start, n_rows, lanes, tiles, sums):
    """Bernoulli with logistic link: ``eta`` becomes ``w * mu``, ``mu = 1 / (1 + exp(-eta))``.

    ``sums`` hold ``w * log(1 + exp(eta))`` and ``w * mu``. The caller adds the terms linear in the
    counts, ``-y * eta`` and ``-y``. ``counts`` is not read.
    """
    zero, one = eta.dtype.type(0), eta.dtype.type(1)
    block_rows = _CELLS // lanes
    n_segments = (n_rows + SEGMENT - 1) // SEGMENT
    for task in prange(tiles.shape[0] * n_segments):
        tile = tiles[task // n_segments]
        segment = task % n_segments
        total = np.zeros((2, lanes))
        loss, decays = np.empty(_CELLS, eta.dtype), np.empty(_CELLS, eta.dtype)
        offsets = np.empty(_CELLS, eta.dtype)
        _repeat(intercept[tile * lanes : (tile + 1) * lanes], lanes, offsets)
        end = min(n_rows, segment * SEGMENT + SEGMENT)
        for begin in range(segment * SEGMENT, end, block_rows):
            n = min(block_rows, end - begin)
            block = eta[tile, (PAD + begin) * lanes : (PAD + begin + n) * lanes]
            for k in range(block.shape[0]):
                block[k] += offsets[k]
                decays[k] = _decay(block[k])
            for k in range(block.shape[0]):
                loss[k] = _cumulant(block[k], decays[k], zero)
            for k in range(block.shape[0]):
                block[k] = _softplus_slope(block[k], decays[k], zero, one)
            args = loss, block, weight[start + begin : start + begin + n], total[0], total[1]
            if lanes == 1:
                _weigh_narrow(*args)
            else:
                _weigh_wide(*args)
        sums[tile, segment] = total


@njit(cache=True, parallel=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def bernoulli_cloglog(eta, counts, intercept, scale, weight, start, n_rows, lanes, tiles, sums):
    """Bernoulli with ``mu = 1 - exp(-m)``, ``m = exp(eta)``: ``eta`` becomes the residual.

    The loss is ``-y log(mu) + (1 - y) m`` and the residual ``(1 - y) m - y m exp(-m) / mu``, both
    times the weight. ``sums`` include the terms of the counts. Where y = 1, the terms of ``1 - y``
    are 0 even if m is inf.
    """
    zero, one = eta.dtype.type(0), eta.dtype.type(1)
    lowest = eta.dtype.type(-700 if eta.itemsize > 4 else -80)
    far = eta.dtype.type(1e30)  # finite: times a count of 0
    most = eta.dtype.type(1000)  # exp(-1000) is 0, and inf * 0 in m * exp(-m) is avoided
    block_rows = _CELLS // lanes
    n_segments = (n_rows + SEGMENT - 1) // SEGMENT
    for task in prange(tiles.shape[0] * n_segments):
        tile = tiles[task // n_segments]
        segment = task % n_segments
        total = np.zeros((2, lanes))
        loss, chance = np.empty(_CELLS, eta.dtype), np.empty(_CELLS, eta.dtype)
        decays, below = np.empty(_CELLS, eta.dtype), np.empty(_CELLS, eta.dtype)
        offsets = np.empty(_CELLS, eta.dtype)
        _repeat(intercept[tile * lanes : (tile + 1) * lanes], lanes, offsets)
        end = min(n_rows, segment * SEGMENT + SEGMENT)
        for begin in range(segment * SEGMENT, end, block_rows):
            n = min(block_rows, end - begin)
            block = eta[tile, (PAD + begin) * lanes : (PAD + begin + n) * lanes]
            y = counts[tile, (PAD + begin) * lanes : (PAD + begin + n) * lanes]
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
            args = loss, block, weight[start + begin : start + begin + n], total[0], total[1]
            if lanes == 1:
                _weigh_narrow(*args)
            else:
                _weigh_wide(*args)
        sums[tile, segment] = total


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


@njit(cache=True, parallel=True, nogil=True, fastmath=FASTMATH)
def gaussian_identity(eta, counts, intercept, scale, weight, start, n_rows, lanes, tiles, sums):
    """Gaussian, ``mu = eta``: ``eta`` becomes ``2 w mu``; ``sums`` hold ``w mu^2`` and ``2 w mu``.

    The caller adds the terms linear in the counts, ``-2 y mu`` and ``-2 y``, and the constant
    ``y^2``. ``counts`` is not read.
    """
    n_segments = (n_rows + SEGMENT - 1) // SEGMENT
    for task in prange(tiles.shape[0] * n_segments):
        tile = tiles[task // n_segments]
        segment = task % n_segments
        begin = segment * SEGMENT
        end = min(n_rows, begin + SEGMENT)
        offsets = intercept[tile * lanes : (tile + 1) * lanes]
        args = eta[tile], offsets, weight, start, begin, end, sums[tile, segment]
        if lanes == 1:
            _gaussian_narrow(*args)
        else:
            _gaussian_wide(*args)


@njit(cache=True, parallel=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def gamma_one_over_x(eta, counts, intercept, scale, weight, start, n_rows, lanes, tiles, sums):
    """Gamma with ``mu = 1 / eta``: ``eta`` becomes the residual ``y - mu``, times the weight.

    The loss is ``y eta - log(eta)``. Where eta is not above 0 it is infinite, and the residual is
    its limit, minus infinity. ``sums`` include the terms of the counts.
    """
    zero, one = eta.dtype.type(0), eta.dtype.type(1)
    most = eta.dtype.type(np.inf)
    block_rows = _CELLS // lanes
    n_segments = (n_rows + SEGMENT - 1) // SEGMENT
    for task in prange(tiles.shape[0] * n_segments):
        tile = tiles[task // n_segments]
        segment = task % n_segments
        total = np.zeros((2, lanes))
        loss, offsets = np.empty(_CELLS, eta.dtype), np.empty(_CELLS, eta.dtype)
        _repeat(intercept[tile * lanes : (tile + 1) * lanes], lanes, offsets)
        end = min(n_rows, segment * SEGMENT + SEGMENT)
        for begin in range(segment * SEGMENT, end, block_rows):
            n = min(block_rows, end - begin)
            block = eta[tile, (PAD + begin) * lanes : (PAD + begin + n) * lanes]
            y = counts[tile, (PAD + begin) * lanes : (PAD + begin + n) * lanes]
            for k in range(block.shape[0]):
                x = block[k] + offsets[k]
                block[k] = x
                value = y[k] * x - log_of(x)
                loss[k] = most if x <= zero else value
            for k in range(block.shape[0]):
                block[k] = y[k] - one / (zero if block[k] <= zero else block[k])
            args = loss, block, weight[start + begin : start + begin + n], total[0], total[1]
            if lanes == 1:
                _weigh_narrow(*args)
            else:
                _weigh_wide(*args)
        sums[tile, segment] = total


@njit(cache=True, parallel=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def gamma_exp(eta, counts, intercept, scale, weight, start, n_rows, lanes, tiles, sums):
    """Gamma with ``mu = exp(eta)``: ``eta`` becomes the residual ``1 - y / mu``, times the weight.

    The loss is ``y / mu + eta``. ``sums`` include the terms of the counts.
    """
    one = eta.dtype.type(1)
    block_rows = _CELLS // lanes
    n_segments = (n_rows + SEGMENT - 1) // SEGMENT
    for task in prange(tiles.shape[0] * n_segments):
        tile = tiles[task // n_segments]
        segment = task % n_segments
        total = np.zeros((2, lanes))
        loss, offsets = np.empty(_CELLS, eta.dtype), np.empty(_CELLS, eta.dtype)
        _repeat(intercept[tile * lanes : (tile + 1) * lanes], lanes, offsets)
        end = min(n_rows, segment * SEGMENT + SEGMENT)
        for begin in range(segment * SEGMENT, end, block_rows):
            n = min(block_rows, end - begin)
            block = eta[tile, (PAD + begin) * lanes : (PAD + begin + n) * lanes]
            y = counts[tile, (PAD + begin) * lanes : (PAD + begin + n) * lanes]
            for k in range(block.shape[0]):
                block[k] += offsets[k]
                loss[k] = exp_of(-block[k])
            for k in range(block.shape[0]):
                ratio = y[k] * loss[k]
                loss[k] = ratio + block[k]
                block[k] = one - ratio
            args = loss, block, weight[start + begin : start + begin + n], total[0], total[1]
            if lanes == 1:
                _weigh_narrow(*args)
            else:
                _weigh_wide(*args)
        sums[tile, segment] = total


@njit(cache=True, parallel=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def gamma_softplus(eta, counts, intercept, scale, weight, start, n_rows, lanes, tiles, sums):
    """Gamma with softplus link s: ``eta`` becomes ``s' / s (1 - y / s)``, times the weight.

    The loss is ``y / s + log(s)``. ``sums`` include the terms of the counts.
    """
    zero, one = eta.dtype.type(0), eta.dtype.type(1)
    lowest = eta.dtype.type(-700 if eta.itemsize > 4 else -80)
    block_rows = _CELLS // lanes
    n_segments = (n_rows + SEGMENT - 1) // SEGMENT
    for task in prange(tiles.shape[0] * n_segments):
        tile = tiles[task // n_segments]
        segment = task % n_segments
        total = np.zeros((2, lanes))
        loss, decays = np.empty(_CELLS, eta.dtype), np.empty(_CELLS, eta.dtype)
        offsets = np.empty(_CELLS, eta.dtype)
        _repeat(intercept[tile * lanes : (tile + 1) * lanes], lanes, offsets)
        end = min(n_rows, segment * SEGMENT + SEGMENT)
        for begin in range(segment * SEGMENT, end, block_rows):
            n = min(block_rows, end - begin)
            block = eta[tile, (PAD + begin) * lanes : (PAD + begin + n) * lanes]
            y = counts[tile, (PAD + begin) * lanes : (PAD + begin + n) * lanes]
            for k in range(block.shape[0]):
                x = block[k] + offsets[k]
                block[k] = lowest if x < lowest else x
                decays[k] = _decay(block[k])
            for k in range(block.shape[0]):
                loss[k] = _softplus(block[k], decays[k], zero, one)
            for k in range(block.shape[0]):
                ratio = y[k] / loss[k]
                block[k] = _softplus_slope(block[k], decays[k], zero, one) / loss[k]
                block[k] *= one - ratio
                decays[k] = ratio
            for k in range(block.shape[0]):
                loss[k] = decays[k] + log_of(loss[k])
            args = loss, block, weight[start + begin : start + begin + n], total[0], total[1]
            if lanes == 1:
                _weigh_narrow(*args)
            else:
                _weigh_wide(*args)
        sums[tile, segment] = total


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


@njit(cache=True, parallel=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def negative_binomial_exp(eta, counts, intercept, scale, weight, start, n_rows, lanes, tiles, sums):
    """Negative binomial, ``mu = exp(eta)``: ``eta`` becomes ``(mu - y) / v``, times the weight.

    With ``v = 1 + scale mu`` the loss is ``log(v) / scale - y log(scale mu / v)``. ``sums`` include
    the terms of the counts.
    """
    zero, one = eta.dtype.type(0), eta.dtype.type(1)
    lowest = eta.dtype.type(-700 if eta.itemsize > 4 else -80)
    far = eta.dtype.type(1e30)  # finite: times a count of 0
    block_rows = _CELLS // lanes
    n_segments = (n_rows + SEGMENT - 1) // SEGMENT
    for task in prange(tiles.shape[0] * n_segments):
        tile = tiles[task // n_segments]
        segment = task % n_segments
        total = np.zeros((2, lanes))
        loss, means = np.empty(_CELLS, eta.dtype), np.empty(_CELLS, eta.dtype)
        scales, log_scales = np.empty(_CELLS, eta.dtype), np.empty(_CELLS, eta.dtype)
        below, offsets = np.empty(_CELLS, eta.dtype), np.empty(_CELLS, eta.dtype)
        _repeat(intercept[tile * lanes : (tile + 1) * lanes], lanes, offsets)
        _read_scales(scale[tile * lanes : (tile + 1) * lanes], lanes, scales, log_scales)
        end = min(n_rows, segment * SEGMENT + SEGMENT)
        for begin in range(segment * SEGMENT, end, block_rows):
            n = min(block_rows, end - begin)
            block = eta[tile, (PAD + begin) * lanes : (PAD + begin + n) * lanes]
            y = counts[tile, (PAD + begin) * lanes : (PAD + begin + n) * lanes]
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
            args = loss, block, weight[start + begin : start + begin + n], total[0], total[1]
            if lanes == 1:
                _weigh_narrow(*args)
            else:
                _weigh_wide(*args)
        sums[tile, segment] = total


@njit(cache=True, parallel=True, nogil=True, fastmath=FASTMATH, error_model="numpy")
def negative_binomial_softplus(
    eta, counts, intercept, scale, weight, start, n_rows, lanes, tiles, sums
):
    """Negative binomial with softplus link s: as `negative_binomial_exp`, with ``mu = s``.

    ``eta`` becomes the residual ``s' (1 - y / s) / v``, times the weight.
    """
    zero, one = eta.dtype.type(0), eta.dtype.type(1)
    lowest = eta.dtype.type(-700 if eta.itemsize > 4 else -80)
    far = eta.dtype.type(1e30)  # finite: times a count of 0
    block_rows = _CELLS // lanes
    n_segments = (n_rows + SEGMENT - 1) // SEGMENT
    for task in prange(tiles.shape[0] * n_segments):
        tile = tiles[task // n_segments]
        segment = task % n_segments
        total = np.zeros((2, lanes))
        loss, means = np.empty(_CELLS, eta.dtype), np.empty(_CELLS, eta.dtype)
        decays, offsets = np.empty(_CELLS, eta.dtype), np.empty(_CELLS, eta.dtype)
        scales, log_scales = np.empty(_CELLS, eta.dtype), np.empty(_CELLS, eta.dtype)
        below = np.empty(_CELLS, eta.dtype)
        _repeat(intercept[tile * lanes : (tile + 1) * lanes], lanes, offsets)
        _read_scales(scale[tile * lanes : (tile + 1) * lanes], lanes, scales, log_scales)
        end = min(n_rows, segment * SEGMENT + SEGMENT)
        for begin in range(segment * SEGMENT, end, block_rows):
            n = min(block_rows, end - begin)
            block = eta[tile, (PAD + begin) * lanes : (PAD + begin + n) * lanes]
            y = counts[tile, (PAD + begin) * lanes : (PAD + begin + n) * lanes]
            for k in range(block.shape[0]):
                x = block[k] + offsets[k]
                below[k] = min(lowest - x, far) if x < lowest else zero
                block[k] = lowest if x < lowest else x
                decays[k] = _decay(block[k])
            for k in range(block.shape[0]):
                means[k] = _softplus(block[k], decays[k], zero, one)
            for k in range(block.shape[0]):
                block[k] = _softplus_slope(block[k], decays[k], zero, one)
                block[k] -= y[k] * (block[k] / means[k])
                block[k] /= one + scales[k] * means[k]
            for k in range(block.shape[0]):
                loss[k] = _log1p_over(scales[k], means[k], one)
            for k in range(block.shape[0]):
                log_mean = log_of(means[k]) - below[k]
                loss[k] -= y[k] * (log_scales[k] + log_mean - scales[k] * loss[k])
            args = loss, block, weight[start + begin : start + begin + n], total[0], total[1]
            if lanes == 1:
                _weigh_narrow(*args)
            else:
                _weigh_wide(*args)
        sums[tile, segment] = total


@njit(cache=True, parallel=True, nogil=True)
def scatter_counts(bins, receivers, amplitudes, lanes, start, n_rows, out):
    """``out[r // lanes, (PAD + bin - start) * lanes + r % lanes] += amplitude`` of every event.

    Events are sorted by bin. Events outside ``start`` to ``start + n_rows``, and events of a
    negative receiver, are skipped. The ``n_rows`` bins of all tiles are set to 0 first; the pads
    stay as they are. Threads work on segments of bins, so that each number has one writer.
    """
    n_tiles = out.shape[0]
    for segment in prange((n_rows + SEGMENT - 1) // SEGMENT):
        begin = segment * SEGMENT
        end = min(n_rows, begin + SEGMENT)
        for tile in range(n_tiles):
            out[tile, (PAD + begin) * lanes : (PAD + end) * lanes] = 0
        first = np.searchsorted(bins, start + begin)
        last = np.searchsorted(bins, start + end)
        for e in range(first, last):
            r = receivers[e]
            if r >= 0:
                out[r // lanes, (PAD + bins[e] - start) * lanes + r % lanes] += amplitudes[e]
