"""exp, log and what follows from them, in float64 and float32, without branches.

LLVM inlines these functions into a loop and vectorises it without a library of vector functions.
Each has a form for either dtype, with flags of its own; the name that ends in ``_of`` chooses.
"""

import math

import numpy as np
from numba import types
from numba.extending import overload

from fastglm._kernels.compiler import njit

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


@njit(cache=True, nogil=True)
def exp_array(x, out):
    """``out = exp(x)`` for one-dimensional float64 arrays."""
    for k in range(x.shape[0]):
        out[k] = exp(x[k])


def exp_of(x):
    """`exp` or `exp32`, by the dtype of x."""
    return exp32(x) if np.asarray(x).dtype == np.float32 else exp(x)


@overload(exp_of)
def _exp_of(x):
    return (lambda x: exp32(x)) if x == types.float32 else (lambda x: exp(x))


_SQRT_HALF = np.int64(0x3FE6A09E667F3BCD)  # the bits of sqrt(1/2)
_ODD = tuple(2.0 / (2 * k + 1) for k in range(11))  # coefficients of the series of 2 artanh


@njit(cache=True, fastmath={"nsz", "contract"}, error_model="numpy")
def _odd(q):
    """``2 artanh(s) / s`` with ``q = s**2``, float64."""
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
    return p * q + _ODD[0]


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
    p = _odd(q)
    exponent = np.float64(n)
    return exponent * _LN2_HIGH + (p * s + exponent * _LN2_LOW)


_SQRT_HALF_32, _SHIFT_32 = np.int32(0x3F3504F3), np.int32(23)
_O0, _O1, _O2, _O3, _O4 = (np.float32(2.0 / (2 * k + 1)) for k in range(5))


@njit(cache=True, fastmath={"nsz", "contract"}, error_model="numpy")
def _odd32(q):
    """As `_odd`, in float32."""
    p = _O4 * q + _O3
    p = p * q + _O2
    p = p * q + _O1
    return p * q + _O0


@njit(cache=True, fastmath={"nsz", "contract"}, error_model="numpy")
def log32(x):
    """log(x) of a normal positive float32: error below 2e-7 * max(1, |log x|). As `log`."""
    bits = np.float32(x).view(np.int32)
    n = np.int32(np.int32(bits - _SQRT_HALF_32) >> _SHIFT_32)
    m = np.int32(bits - np.int32(n << _SHIFT_32)).view(np.float32)
    s = (m - _ONE_32) / (m + _ONE_32)
    q = s * s
    p = _odd32(q)
    exponent = np.float32(n)
    return exponent * _LN2_HIGH_32 + (p * s + exponent * _LN2_LOW_32)


def log_of(x):
    """`log` or `log32`, by the dtype of x."""
    return log32(x) if np.asarray(x).dtype == np.float32 else log(x)


@overload(log_of)
def _log_of(x):
    return (lambda x: log32(x)) if x == types.float32 else (lambda x: log(x))


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
    p = _odd(q)
    return p * s + (_LN2 if large else 0.0)


@njit(cache=True, fastmath={"nsz", "contract"}, error_model="numpy")
def log1p_unit32(u):
    """log(1 + u) for ``0 <= u <= 1`` in float32: relative error below 3e-7. As `log1p_unit`."""
    large = u > _BEND_32
    s = (u - _ONE_32 if large else u) / (u + (_THREE_32 if large else _TWO_32))
    q = s if large or s > _TINY_32 else _TINY_32  # smaller numbers have slow, subnormal squares
    q = q * q
    p = _odd32(q)
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
    p = _odd(q)
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
    p = _odd32(q)
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
def decay(x):
    return exp_of(-abs(x))


@njit(cache=True, fastmath={"nsz", "contract"}, error_model="numpy")
def softplus(x, u, zero, one):
    w = u + one
    return max(x, zero) + (log_of(w) + (u - (w - one)) / w)


@njit(cache=True, fastmath={"nsz", "contract"}, error_model="numpy")
def softplus_slope(x, u, zero, one):
    return (one if x > zero else u) / (u + one)


@njit(cache=True, fastmath={"nsz", "contract"}, error_model="numpy")
def cumulant(x, u, zero):
    return (x if x > zero else zero) + log1p_of(u)
