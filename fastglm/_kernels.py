"""Every compiled function of fastglm, the compiler's policy, and the one launcher.

Policy, stated once:

- ``cache=True``: a cold compile takes seconds, a cached one milliseconds. Numba does not notice a
  change to a helper that lives in another file, so kernels that call each other live in this file.
- ``fastmath`` without ``nnan`` and ``ninf``: with them ``isfinite(nan)`` is True inside a kernel.
- No explicit signatures: they would compile at import. Callers cast once, at the boundary.
- A function whose sums must keep their order (`exp`) has its own flags and is left to LLVM to
  inline. ``inline="always"`` would give it the flags of its caller: with "reassoc" the two parts
  of ln(2) merge, and the error of `exp` grows from 2e-16 to 3e-15.
- ``error_model="numpy"`` where there is a division: Python's tests for zero, in scalar code.
- Sums run over fixed blocks, never over threads: the bits do not depend on the number of threads.
- The innermost loops run over one-dimensional slices with a trip count that the compiler knows.
  An index such as ``h[p + k]`` keeps NumPy's wrap-around of negative indices as a branch, which
  costs the vectoriser a factor of eight; a slice ``h[p : p + size]`` indexed by ``k`` does not.

Layout. A *tile* is ``lanes`` receivers side by side, the fastest axis. A *chunk* is a range of
bins. ``eta`` of a chunk has shape ``(n_tiles, (PAD + n_rows + PAD) * lanes)``: the pads of ``PAD``
bins hold zeros, so that a block of bins or lags may run over an edge without a test. Filters
carry pads of ``PAD`` lags for the same reason. ``tiles`` lists the tiles to work on.
"""

import math
import threading
from contextlib import nullcontext

import numba
import numpy as np
from numba import njit, prange, types
from numba.extending import overload

FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}
LANES = 16  # receivers a tile: one AVX-512 register of float32, two of AVX2
BLOCK = 8  # bins (forward) or lags (backward) that are summed together
NARROW_BLOCK = 64  # the same for tiles of one receiver, whose vector runs along time
PAD = NARROW_BLOCK  # bins of zeros around a chunk; at least every block size
SEGMENT = 1024  # bins of one parallel task, a multiple of every block size
NARROW_SEGMENT = 8 * SEGMENT  # the same for tiles of one receiver: 32 KB of float32
_TILE = LANES * BLOCK  # numbers that are summed together

_launch_lock = threading.Lock()


def launch(kernel, *args):
    """Call a parallel kernel, one at a time, or beside others where each has one thread.

    Numba's workqueue layer aborts the process when two threads launch at once. Overflow is silent,
    in pure Python as in compiled code; callers look for it.
    """
    alone = numba.get_num_threads() == 1 and numba.threading_layer() in ("omp", "tbb")
    with nullcontext() if alone else _launch_lock, np.errstate(over="ignore", invalid="ignore"):
        return kernel(*args)


def aligned_zeros(shape, dtype=np.float64):
    """Zeros that begin on a cache line: a vector that straddles two costs the kernels 1.8 times."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    raw = np.zeros(size + 64, np.uint8)
    first = -raw.ctypes.data % 64
    return raw[first : first + size].view(dtype).reshape(shape)


# --- causal history -----------------------------------------------------------------------------


@njit(cache=True, parallel=True, nogil=True, fastmath=FASTMATH)
def history_rows(bins, senders, amplitudes, kernel, rows, out):
    """``out[r, i * B + b] = sum_l kernel[l, b] * counts[rows[r] - 1 - l, i]``, rows ascending.

    Events are sorted by bin. A gather: each row visits the events inside its window.
    """
    window_size, n_funcs = kernel.shape
    n_rows = rows.shape[0]
    n_events = bins.shape[0]
    for segment in prange((n_rows + 255) // 256):
        first = np.searchsorted(bins, rows[segment * 256] - window_size)
        for r in range(segment * 256, min(n_rows, segment * 256 + 256)):
            t = rows[r]
            while first < n_events and bins[first] < t - window_size:
                first += 1
            row = out[r]
            row[:] = 0
            e = first
            while e < n_events and bins[e] < t:
                weights = kernel[t - 1 - bins[e]]
                target = row[senders[e] * n_funcs : (senders[e] + 1) * n_funcs]
                for b in range(n_funcs):
                    target[b] += amplitudes[e] * weights[b]
                e += 1


@njit(cache=True, parallel=True, nogil=True, fastmath=FASTMATH)
def count_pairs(starts, bins, amplitudes, later_bins, later_cells, later_amplitudes, out):
    """``out[i, d, j] = sum_s a_i(s) * b_j(s + d)``: correlograms of senders and later events.

    The first events are sorted by sender, the later ones by bin. One table of a sender at a time
    is what stays in the second-level cache, while the later events stream by.
    """
    n_senders, n_lags, _ = out.shape
    n_later = later_bins.shape[0]
    for i in prange(n_senders):
        table = out[i]
        table[:] = 0
        first = 0
        if starts[i] < starts[i + 1]:
            first = np.searchsorted(later_bins, bins[starts[i]])
        for e in range(starts[i], starts[i + 1]):
            begin = bins[e]
            amplitude = amplitudes[e]
            while first < n_later and later_bins[first] < begin:
                first += 1
            f = first
            while f < n_later and later_bins[f] < begin + n_lags:
                table[later_bins[f] - begin, later_cells[f]] += amplitude * later_amplitudes[f]
                f += 1


@njit(cache=True, parallel=True, nogil=True, fastmath=FASTMATH)
def project_filters(kernel, coef, lanes, tiles, filters):
    """``filters[tile, i, PAD + l, lane] = sum_b kernel[l, b] * coef[i * B + b, receiver]``.

    A loop of its own rather than a matrix product: BLAS may order its sums by the width of the
    batch, and a receiver's fit must not depend on its company.
    """
    window_size, n_funcs = kernel.shape
    n_senders = filters.shape[1]
    for task in prange(tiles.shape[0] * n_senders):
        tile = tiles[task // n_senders]
        i = task % n_senders
        for l in range(window_size):
            for k in range(lanes):
                total = 0.0
                for b in range(n_funcs):
                    total += kernel[l, b] * coef[i * n_funcs + b, tile * lanes + k]
                filters[tile, i, PAD + l, k] = total


@njit(cache=True, parallel=True, nogil=True, fastmath=FASTMATH)
def collect_filters(kernel, lag_sums, lanes, grad):
    """``grad[i * B + b, receiver] += sum_l kernel[l, b] * lag_sums[tile, i, l, lane]``."""
    window_size, n_funcs = kernel.shape
    n_tiles, n_senders = lag_sums.shape[:2]
    for task in prange(n_tiles * n_senders):
        tile = task // n_senders
        i = task % n_senders
        for b in range(n_funcs):
            for k in range(lanes):
                total = 0.0
                for l in range(window_size):
                    total += kernel[l, b] * lag_sums[tile, i, l, k]
                grad[i * n_funcs + b, tile * lanes + k] += total


@njit(cache=True, fastmath=FASTMATH)
def _forward_segment(bins, senders, amplitudes, filters, window_size, start, begin, end, eta):
    """A tile's events in a segment of bins, gathered by blocks of bins.

    Four events are added per visit of the accumulator: five loads and one store for four
    multiply-adds, which is what the load ports bound. Written out here and in `_event_sums`: as a
    function for both it is 8 to 14 % slower in float32.
    """
    n_events = bins.shape[0]
    span = window_size + 2 * PAD  # lags stored per sender
    low = np.searchsorted(bins, start + begin - window_size)
    high = low
    for row in range(begin, end, BLOCK):
        t = start + row
        while low < n_events and bins[low] + window_size < t:
            low += 1
        while high < n_events and bins[high] + 1 < t + BLOCK:
            high += 1
        total = eta[(PAD + row) * LANES : (PAD + row) * LANES + _TILE]
        e = low
        while e + 4 <= high:
            p0 = (senders[e] * span + PAD + t - 1 - bins[e]) * LANES
            p1 = (senders[e + 1] * span + PAD + t - 1 - bins[e + 1]) * LANES
            p2 = (senders[e + 2] * span + PAD + t - 1 - bins[e + 2]) * LANES
            p3 = (senders[e + 3] * span + PAD + t - 1 - bins[e + 3]) * LANES
            a0, a1 = amplitudes[e], amplitudes[e + 1]
            a2, a3 = amplitudes[e + 2], amplitudes[e + 3]
            h0, h1 = filters[p0 : p0 + _TILE], filters[p1 : p1 + _TILE]
            h2, h3 = filters[p2 : p2 + _TILE], filters[p3 : p3 + _TILE]
            for k in range(_TILE):
                total[k] += (a0 * h0[k] + a1 * h1[k]) + (a2 * h2[k] + a3 * h3[k])
            e += 4
        while e < high:
            p0 = (senders[e] * span + PAD + t - 1 - bins[e]) * LANES
            a0 = amplitudes[e]
            h0 = filters[p0 : p0 + _TILE]
            for k in range(_TILE):
                total[k] += a0 * h0[k]
            e += 1


@njit(cache=True, parallel=True, nogil=True, fastmath=FASTMATH)
def history_forward(bins, senders, amplitudes, filters, window_size, start, n_rows, tiles, eta):
    """``eta[t, :] += sum over events (s, i) of amplitude * filters[i, t - 1 - s, :]``."""
    n_segments = (n_rows + SEGMENT - 1) // SEGMENT
    for task in prange(tiles.shape[0] * n_segments):
        tile = tiles[task // n_segments]
        begin = (task % n_segments) * SEGMENT
        end = min(n_rows, begin + SEGMENT)
        args = bins, senders, amplitudes, filters[tile], window_size, start, begin, end, eta[tile]
        _forward_segment(*args)


@njit(cache=True, fastmath=FASTMATH)
def _forward_narrow(bins, starts, amplitudes, filters, window_size, start, begin, end, eta):
    """One receiver's events in a segment of bins, added one by one.

    A scatter: the filter of one sender and the segment stay in the first-level cache. From 50
    senders it takes 19 ns an event of 100 lags, where gathering blocks of bins took 29.
    """
    span = window_size + 2 * PAD
    for i in range(starts.shape[0] - 1):
        stop = starts[i + 1]
        e = starts[i] + np.searchsorted(bins[starts[i] : stop], start + begin - window_size)
        while e < stop and bins[e] < start + end - 1:
            first = bins[e] + 1 - start
            low, high = max(first, begin), min(first + window_size, end)
            p = i * span + PAD + low - first
            row = eta[PAD + low : PAD + high]
            weights = filters[p : p + high - low]
            amplitude = amplitudes[e]
            for k in range(high - low):
                row[k] += amplitude * weights[k]
            e += 1


@njit(cache=True, parallel=True, nogil=True, fastmath=FASTMATH)
def history_forward_narrow(
    bins, starts, amplitudes, filters, window_size, start, n_rows, tiles, eta
):
    """`history_forward` for tiles of one receiver; events sorted by sender, then by bin."""
    n_segments = (n_rows + NARROW_SEGMENT - 1) // NARROW_SEGMENT
    for task in prange(tiles.shape[0] * n_segments):
        tile = tiles[task // n_segments]
        begin = (task % n_segments) * NARROW_SEGMENT
        end = min(n_rows, begin + NARROW_SEGMENT)
        args = bins, starts, amplitudes, filters[tile], window_size, start, begin, end, eta[tile]
        _forward_narrow(*args)


def _event_sums(lanes, block):
    """Lag sums of one sender, for tiles of ``lanes`` receivers and blocks of ``block`` lags.

    The kernel that runs in parallel calls one of these by its global name: Numba finds a function
    in its cache again only if it encloses numbers, not functions.
    """
    size = lanes * block

    @njit(cache=True, fastmath=FASTMATH)
    def backward_sender(bins, amplitudes, residual, window_size, start, n_rows, total, lag_sums):
        for lag in range(0, window_size, block):
            low = np.searchsorted(bins, start - lag - block)
            high = np.searchsorted(bins, start + n_rows - 1 - lag)
            if low == high:
                continue
            for k in range(size):
                total[k] = 0
            offset = PAD + 1 + lag - start
            e = low
            while e + 4 <= high:
                p0 = (bins[e] + offset) * lanes
                p1 = (bins[e + 1] + offset) * lanes
                p2 = (bins[e + 2] + offset) * lanes
                p3 = (bins[e + 3] + offset) * lanes
                a0, a1 = amplitudes[e], amplitudes[e + 1]
                a2, a3 = amplitudes[e + 2], amplitudes[e + 3]
                r0, r1 = residual[p0 : p0 + size], residual[p1 : p1 + size]
                r2, r3 = residual[p2 : p2 + size], residual[p3 : p3 + size]
                for k in range(size):
                    total[k] += (a0 * r0[k] + a1 * r1[k]) + (a2 * r2[k] + a3 * r3[k])
                e += 4
            while e < high:
                p0 = (bins[e] + offset) * lanes
                a0 = amplitudes[e]
                r0 = residual[p0 : p0 + size]
                for k in range(size):
                    total[k] += a0 * r0[k]
                e += 1
            sums = lag_sums[lag * lanes : lag * lanes + size]
            for k in range(size):
                sums[k] += total[k]

    return backward_sender


_backward_wide = _event_sums(LANES, BLOCK)
_backward_narrow = _event_sums(1, NARROW_BLOCK)


@njit(cache=True, parallel=True, nogil=True, fastmath=FASTMATH)
def history_backward(
    bins, starts, amplitudes, residual, window_size, start, n_rows, lanes, tiles, lag_sums
):
    """``lag_sums[i, l, :] += sum over events (s, i) of amplitude * residual[s + 1 + l, :]``.

    Events are sorted by sender, then by bin; ``starts[i]`` is the first of sender i. Sums run
    in the dtype of the residual inside a chunk, or a segment of a narrow one (of which the residual
    stays in the first-level cache: 13 ns an event of 100 lags in place of 22), and in float64
    between them.
    """
    n_senders = lag_sums.shape[1]
    n_groups = min(n_senders, 8)
    for task in prange(tiles.shape[0] * n_groups):
        tile = tiles[task // n_groups]
        group = task % n_groups
        total = np.empty(_TILE, residual.dtype)
        window = window_size, start, n_rows
        first, last = group * n_senders // n_groups, (group + 1) * n_senders // n_groups
        if lanes > 1:
            for i in range(first, last):
                events = slice(starts[i], starts[i + 1])
                args = bins[events], amplitudes[events], residual[tile]
                _backward_wide(*args, *window, total, lag_sums[tile, i])
            continue
        place = np.empty(last - first, np.int64)  # the next event of each sender
        for i in range(first, last):
            own = bins[starts[i] : starts[i + 1]]
            place[i - first] = starts[i] + np.searchsorted(own, start - window_size)
        for begin in range(0, n_rows, NARROW_SEGMENT):
            end = start + min(n_rows, begin + NARROW_SEGMENT)
            for i in range(first, last):
                low = high = place[i - first]
                while high < starts[i + 1] and bins[high] < end:
                    high += 1
                place[i - first] = high
                args = bins[low:high], amplitudes[low:high], residual[tile]
                _backward_narrow(*args, *window, total, lag_sums[tile, i])


# --- columns that are constant over runs of bins ------------------------------------------------


def _run_kernels(lanes):
    """Forward and backward kernels for columns that change from run to run only.

    A run costs ``n_columns * lanes`` multiply-adds, its bins one addition a receiver each. Run r
    holds ``values[samples[r]]`` over the rows ``edges[r]`` to ``edges[r + 1]`` of a chunk, nothing
    where the sample is -1.
    """

    @njit(cache=True, parallel=True, nogil=True, fastmath=FASTMATH)
    def forward(values, edges, samples, coef, tiles, eta):
        """``eta[t, :] += values[sample of t] @ coef``; coef of a tile is flat, column-major."""
        n_columns = values.shape[1]
        n_rows = edges[-1]
        n_segments = (n_rows + SEGMENT - 1) // SEGMENT
        for task in prange(tiles.shape[0] * n_segments):
            tile = task // n_segments
            begin = (task % n_segments) * SEGMENT
            end = min(n_rows, begin + SEGMENT)
            shift = np.empty(lanes, eta.dtype)
            r = np.searchsorted(edges, begin, side="right") - 1
            while begin < end:
                stop = min(end, edges[r + 1])
                if samples[r] >= 0:
                    x = values[samples[r]]
                    for k in range(lanes):
                        shift[k] = 0
                    for c in range(n_columns):
                        row = coef[tile][c * lanes : (c + 1) * lanes]
                        for k in range(lanes):
                            shift[k] += x[c] * row[k]
                    for t in range(begin, stop):
                        total = eta[tiles[tile]][(PAD + t) * lanes : (PAD + t + 1) * lanes]
                        for k in range(lanes):
                            total[k] += shift[k]
                begin = stop
                r += 1

    @njit(cache=True, parallel=True, nogil=True, fastmath=FASTMATH)
    def backward(values, edges, samples, residual, tiles, sums):
        """``sums[tile, segment] = values' residual`` over each segment; one row for every tile."""
        n_columns = values.shape[1]
        n_rows = edges[-1]
        n_segments = (n_rows + SEGMENT - 1) // SEGMENT
        for task in prange(tiles.shape[0] * n_segments):
            tile = task // n_segments
            segment = task % n_segments
            begin = segment * SEGMENT
            end = min(n_rows, begin + SEGMENT)
            out = sums[tile, segment]
            out[:] = 0
            total = np.empty(lanes, residual.dtype)
            r = np.searchsorted(edges, begin, side="right") - 1
            while begin < end:
                stop = min(end, edges[r + 1])
                if samples[r] >= 0:
                    for k in range(lanes):
                        total[k] = 0
                    for t in range(begin, stop):
                        row = residual[tiles[tile]][(PAD + t) * lanes : (PAD + t + 1) * lanes]
                        for k in range(lanes):
                            total[k] += row[k]
                    x = values[samples[r]]
                    for c in range(n_columns):
                        row = out[c * lanes : (c + 1) * lanes]
                        for k in range(lanes):
                            row[k] += x[c] * total[k]
                begin = stop
                r += 1

    return forward, backward


runs_forward, runs_backward = _run_kernels(LANES)
runs_forward_narrow, runs_backward_narrow = _run_kernels(1)


# --- weighted Gram matrix -----------------------------------------------------------------------

GRAM_BLOCK = 32  # rows that share their list of columns; a multiple of 4


@njit(cache=True, nogil=True)
def pack_rows(rows, sizes, columns, values):
    """Cut rows into blocks of `GRAM_BLOCK` and keep of each the columns that are not all zero.

    Block k has ``sizes[k]`` columns, listed in ``columns[k]``; its rows lie behind each other in
    ``values[k]``, filled up with zeros.
    """
    n_rows, n_columns = rows.shape
    for k in range(sizes.shape[0]):
        begin = k * GRAM_BLOCK
        n = min(GRAM_BLOCK, n_rows - begin)
        size = 0
        for c in range(n_columns):
            for t in range(n):
                if rows[begin + t, c] != 0:
                    columns[k, size] = c
                    size += 1
                    break
        sizes[k] = size
        block = values[k]
        for t in range(GRAM_BLOCK):
            for c in range(size):
                block[t * size + c] = rows[begin + t, columns[k, c]] if t < n else 0.0


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def add_weighted_gram(sizes, columns, values, weights, place, out):
    """Add ``sum_t weights[t] x_t x_t'`` of packed rows to the lower triangle of ``out``.

    ``weights`` are filled up with zeros to whole blocks. ``place`` is where a column lies in
    ``out``, ascending, or -1. Four rows are added at a time, and passed over where they are zero in
    the left factor: at 2 Hz and windows of 30 ms a tenth of the multiplications of a dense product
    is left.
    """
    most = columns.shape[1]
    own, target = np.empty(most, np.int64), np.empty(most, np.int64)
    copy, total = np.empty(GRAM_BLOCK * most), np.empty(most)
    for k in range(sizes.shape[0]):
        n = 0
        for c in range(sizes[k]):
            if place[columns[k, c]] >= 0:
                own[n] = c
                target[n] = place[columns[k, c]]
                n += 1
        x = values[k]
        if n < sizes[k]:
            for t in range(GRAM_BLOCK):
                for c in range(n):
                    copy[t * n + c] = x[t * sizes[k] + own[c]]
            x = copy
        w = weights[k * GRAM_BLOCK : (k + 1) * GRAM_BLOCK]
        for a in range(n):
            sums = total[: a + 1]
            sums[:] = 0
            for t in range(0, GRAM_BLOCK, 4):
                i0, i1, i2, i3 = t * n, (t + 1) * n, (t + 2) * n, (t + 3) * n
                u0, u1 = x[i0 + a] * w[t], x[i1 + a] * w[t + 1]
                u2, u3 = x[i2 + a] * w[t + 2], x[i3 + a] * w[t + 3]
                if u0 == 0 and u1 == 0 and u2 == 0 and u3 == 0:
                    continue
                x0, x1 = x[i0 : i0 + a + 1], x[i1 : i1 + a + 1]
                x2, x3 = x[i2 : i2 + a + 1], x[i3 : i3 + a + 1]
                for b in range(a + 1):
                    sums[b] += (u0 * x0[b] + u1 * x1[b]) + (u2 * x2[b] + u3 * x3[b])
            row = out[target[a]]
            for b in range(a + 1):
                row[target[b]] += sums[b]


# --- pointwise ----------------------------------------------------------------------------------

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


# --- sparse penalties ---------------------------------------------------------------------------


@njit(cache=True, nogil=True, error_model="numpy")
def screen_groups(coef, grad, free, group_of, order, weights, margin):
    """The breach of the optimality condition at a point, and the groups that a step may move.

    The breach is the largest over the groups of free features: ``|grad_g + weight_g c_g / |c_g||``,
    or ``|grad_g| - weight_g`` for those at zero. A step moves groups that are not zero, and those
    at zero whose gradient is above ``weight_g * (1 - margin)``.

    Returns the breach, the features of these groups, sorted by group (``order`` sorts all), where
    each group of them starts, and its weight.
    """
    n, n_groups = coef.shape[0], weights.shape[0]
    size, slope, left = np.zeros(n_groups), np.zeros(n_groups), np.zeros(n_groups)
    for k in range(n):
        if free[k]:
            size[group_of[k]] += coef[k] * coef[k]
            slope[group_of[k]] += grad[k] * grad[k]
    size, slope = np.sqrt(size), np.sqrt(slope)
    for k in range(n):
        group = group_of[k]
        if free[k] and size[group] > 0:
            left[group] += (grad[k] + weights[group] * coef[k] / size[group]) ** 2
    breach = 0.0
    for group in range(n_groups):
        at_zero = slope[group] - weights[group]
        breach = max(breach, math.sqrt(left[group]) if size[group] > 0 else at_zero)
    features = np.empty(n, np.int64)
    starts, weight = np.empty(n_groups + 1, np.int64), np.empty(n_groups)
    count, found, last = 0, 0, -1
    for place in range(n):
        k = order[place]
        group = group_of[k]
        if free[k] and (size[group] > 0 or slope[group] > weights[group] * (1 - margin)):
            if group != last:
                starts[found], weight[found] = count, weights[group]
                found, last = found + 1, group
            features[count] = k
            count += 1
    starts[found] = count
    return breach, features[:count], starts[: found + 1], weight[:found]


@njit(cache=True, nogil=True, error_model="numpy")
def _shrink_group(S, r, z, begin, end, weight, bound):
    """One proximal step of a group, in place; the change of z, and of ``r = g + S (z - c)``."""
    size = 0.0
    for k in range(begin, end):
        u = z[k] - r[k] / bound
        size += u * u
    size = math.sqrt(size)
    factor = max(0.0, 1.0 - weight / (bound * size)) if size > 0 else 0.0
    change = 0.0
    for k in range(begin, end):
        new = factor * (z[k] - r[k] / bound)
        delta = new - z[k]
        if delta != 0:
            z[k] = new
            change = max(change, abs(delta) * bound)
            for m in range(r.shape[0]):
                r[m] += S[k, m] * delta
    return change


@njit(cache=True, nogil=True, error_model="numpy")
def _group_violation(r, z, starts, weights):
    """Largest breach of the optimality condition over the groups."""
    worst = 0.0
    for group in range(weights.shape[0]):
        begin, end = starts[group], starts[group + 1]
        size = 0.0
        for k in range(begin, end):
            size += z[k] * z[k]
        size = math.sqrt(size)
        left = 0.0
        for k in range(begin, end):
            v = r[k] + (weights[group] * z[k] / size if size > 0 else 0.0)
            left += v * v
        left = math.sqrt(left) - (0.0 if size > 0 else weights[group])
        worst = max(worst, left)
    return worst


@njit(cache=True, nogil=True, error_model="numpy")
def _group_objective(g, r, c, z, starts, weights):
    """``g (z - c) + (z - c) S (z - c) / 2 + sum_g weight_g |z_g|`` with ``r = g + S (z - c)``."""
    total = 0.0
    for k in range(c.shape[0]):
        total += 0.5 * (g[k] + r[k]) * (z[k] - c[k])
    for group in range(weights.shape[0]):
        size = 0.0
        for k in range(starts[group], starts[group + 1]):
            size += z[k] * z[k]
        total += weights[group] * math.sqrt(size)
    return total


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FASTMATH)
def learn_curvature(data, moved, step, change):
    """Make a Hessian agree with the change of the gradient over a step (BFGS), in place.

    The step moves the coordinates ``moved`` only; ``change`` is over all.
    """
    n = data.shape[0]
    image = np.zeros(n)
    for k in range(moved.shape[0]):
        row = data[moved[k]]
        for b in range(n):
            image[b] += row[b] * step[k]
    inner, model = 0.0, 0.0
    for k in range(moved.shape[0]):
        inner += step[k] * change[moved[k]]
        model += step[k] * image[moved[k]]
    if not inner > 1e-4 * model or not model > 0:
        return
    for a in range(n):
        row = data[a]
        up, down = change[a] / inner, image[a] / model
        for b in range(n):
            row[b] += up * change[b] - down * image[b]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FASTMATH)
def reduce_model(data, chosen, ridge, mean, schur):
    """The model of one receiver over some features, with the intercept eliminated.

    ``data`` is a Hessian over more features, ``chosen`` names those wanted, the intercept last; the
    diagonal ``ridge`` is added. ``mean`` becomes the intercept's row over its own entry, ``schur``
    the Schur complement; returns that entry.
    """
    n = chosen.shape[0] - 1
    last = data[chosen[n], chosen[n]]
    row = data[chosen[n]]
    for a in range(n):
        mean[a] = row[chosen[a]] / last
    for a in range(n):
        row, out, factor = data[chosen[a]], schur[a], mean[a] * last
        for b in range(n):
            out[b] = row[chosen[b]] - factor * mean[b]
        out[a] += ridge[a]
    return last


@njit(cache=True, nogil=True, error_model="numpy")
def _descend_groups(S, z, r, starts, weights, bounds, goal, n_sweeps):
    """Sweeps of block descent on ``g (z - c) + (z - c) S (z - c) / 2 + sum_g weight_g |z_g|``.

    Group ``i`` holds ``starts[i]`` to ``starts[i + 1]``; ``bounds`` are at least the largest
    eigenvalue of each group's block. Changes z and ``r = g + S (z - c)``; returns the largest
    breach of the optimality condition.
    """
    for _sweep in range(n_sweeps):
        if _group_violation(r, z, starts, weights) <= goal:
            break
        for group in range(weights.shape[0]):
            begin, end = starts[group], starts[group + 1]
            for _ in range(1 if end - begin == 1 else 5):
                if _shrink_group(S, r, z, begin, end, weights[group], bounds[group]) < goal:
                    break
    return _group_violation(r, z, starts, weights)


@njit(cache=True, nogil=True, error_model="numpy")
def _bound_groups(S, starts, bounds):
    """Largest row sum of each group's block: a bound of its largest eigenvalue."""
    for group in range(bounds.shape[0]):
        bounds[group] = 1e-300
        for k in range(starts[group], starts[group + 1]):
            row = 0.0
            for m in range(starts[group], starts[group + 1]):
                row += abs(S[k, m])
            bounds[group] = max(bounds[group], row)


@njit(cache=True, nogil=True, error_model="numpy")
def _newton_groups(S, r, z, starts, weights, support, hess, rhs):
    """Newton's system where the penalty is smooth: over the coefficients that are not zero."""
    m = support.shape[0]
    for a in range(m):
        row = S[support[a]]
        rhs[a] = -r[support[a]]
        for b in range(m):
            hess[a, b] = row[support[b]]
        hess[a, a] *= 1 + 1e-12
    first = 0
    for group in range(weights.shape[0]):
        begin, end = starts[group], starts[group + 1]
        size, last = 0.0, first
        while last < m and support[last] < end:
            size += z[support[last]] ** 2
            last += 1
        if last > first and weights[group] > 0:
            size = math.sqrt(size)
            for a in range(first, last):
                u = z[support[a]] / size
                rhs[a] -= weights[group] * u
                if end - begin > 1:
                    hess[a, a] += weights[group] / size
                    for b in range(first, last):
                        hess[a, b] -= weights[group] / size * u * z[support[b]] / size
        first = last


@njit(cache=True, nogil=True, error_model="numpy")
def _step_groups(S, g, c, z, r, starts, weights, support, step):
    """Take Newton's step, or as much of it as lowers the objective; changes z and r.

    A coefficient that is a group of its own stops at zero, where the penalty bends. Returns
    whether the whole step was taken.
    """
    n, m = c.shape[0], support.shape[0]
    length, stop, a = 1.0, -1, 0
    for group in range(weights.shape[0]):
        begin, end = starts[group], starts[group + 1]
        while a < m and support[a] < begin:
            a += 1
        alone = end - begin == 1 and weights[group] > 0 and a < m and support[a] == begin
        if alone and step[a] * z[begin] < 0 and -z[begin] / step[a] < length:
            length, stop = -z[begin] / step[a], begin
    before = _group_objective(g, r, c, z, starts, weights)
    image = np.zeros(n)
    for a in range(m):
        row = S[support[a]]
        for k in range(n):
            image[k] += row[k] * step[a]
    whole = stop < 0
    for _halving in range(20):
        new, new_r = z.copy(), r + length * image
        for a in range(m):
            new[support[a]] += length * step[a]
        if stop >= 0:
            new[stop] = 0.0
        if _group_objective(g, new_r, c, new, starts, weights) <= before:
            z[:] = new
            r[:] = new_r
            return whole
        length, stop, whole = 0.5 * length, -1, False
    return False


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FASTMATH)
def _solve_triangles(lower, v):
    """``v = (L L')^-1 v`` in place.

    Rows of L both ways, and slices of them: an index that Numba cannot tell from a negative one
    keeps LLVM from vectors.
    """
    for k in range(v.shape[0]):
        row, done = lower[k, :k], v[:k]
        total = np.float32(0)
        for a in range(k):
            total += row[a] * done[a]
        v[k] = (v[k] - total) / lower[k, k]
    for k in range(v.shape[0] - 1, -1, -1):
        row, rest = lower[k, :k], v[:k]
        value = v[k] / lower[k, k]
        v[k] = value
        for a in range(k):
            rest[a] -= row[a] * value


@njit(cache=True, nogil=True, error_model="numpy", fastmath=FASTMATH)
def _solve_nearby(hess, rhs, at, lower):
    """Solve a positive definite system into ``rhs`` with the factor of one like it.

    Conjugate gradients, preconditioned by the factor, in which coefficient ``a`` is ``at[a]`` (or
    by the diagonal, where that is negative). Returns whether ten steps were enough.
    """
    m, n = rhs.shape[0], lower.shape[0]
    x, r, z, p = np.zeros_like(rhs), rhs.copy(), np.empty_like(rhs), np.zeros_like(rhs)
    v = np.empty(n, rhs.dtype)
    first = before = 1.0
    for step in range(11):
        v[:] = 0
        for a in range(m):
            if at[a] >= 0:
                v[at[a]] = r[a]
        _solve_triangles(lower, v)
        rho = 0.0
        for a in range(m):
            z[a] = v[at[a]] if at[a] >= 0 else r[a] / hess[a, a]
            rho += r[a] * z[a]
        if step == 0:
            first = rho
        if not rho > 1e-6 * first:
            rhs[:] = x
            return rho >= 0
        if step == 10:
            break
        for a in range(m):
            p[a] = z[a] + (rho / before if step > 0 else 0.0) * p[a]
        bend = 0.0
        for a in range(m):
            row, total = hess[a], np.float32(0)
            for b in range(m):
                total += row[b] * p[b]
            z[a] = total
            bend += p[a] * total
        if not bend > 0:
            break
        for a in range(m):
            x[a] += rho / bend * p[a]
            r[a] -= rho / bend * z[a]
        before = rho
    return False


@njit(cache=True, nogil=True, error_model="numpy")
def _factorise(hess):
    """Whether a matrix is positive definite, and its lower Cholesky factor, by rows."""
    try:
        return True, np.linalg.cholesky(hess)
    except Exception:
        return False, hess


@njit(cache=True, nogil=True, error_model="numpy")
def _locate(features, place):
    """Where among some features each one is, in ``place``; -1 for all others."""
    place[:] = -1
    for k in range(features.shape[0]):
        place[features[k]] = k


@njit(cache=True, nogil=True, error_model="numpy")
def solve_groups(S, g, c, starts, weights, goal, features, held, lower):
    """Minimise ``g (z - c) + (z - c) S (z - c) / 2 + sum_g weight_g |z_g|`` over z.

    Newton's method on the support finds the values, and sweeps of block descent find the support:
    descent alone takes hundreds of sweeps where basis functions overlap. Ends where the optimality
    condition is broken by ``goal`` at most, or after 60 rounds.

    The coefficients are of ``features``; ``lower`` is the factor of an earlier system, over the
    features ``held``. From one step to the next, and from one strength to the next, little changes:
    that factor makes a system easy for conjugate gradients, at a tenth of the price of its own.

    Returns z, the slope of the quadratic there, ``g + S (z - c)``, and what is held now.
    """
    z, r, bounds = c.copy(), g.copy(), np.empty(weights.shape[0])
    _bound_groups(S, starts, bounds)
    last = max(np.append(features, 0).max(), np.append(held, 0).max())
    place = np.empty(last + 1, np.int64)
    _locate(held, place)
    n_sweeps = 0  # the support of the last step is the best guess
    for _ in range(60):
        if _descend_groups(S, z, r, starts, weights, bounds, goal, n_sweeps) <= goal:
            break
        n_sweeps = 5
        support = np.flatnonzero(z)
        if support.shape[0] == 0:
            continue
        # In float32, as the model: the residual r is float64, so that rounds correct each other.
        hess = np.empty((support.shape[0], support.shape[0]), np.float32)
        step = np.empty(support.shape[0], np.float32)
        _newton_groups(S, r, z, starts, weights, support, hess, step)
        at = place[features[support]]
        solved = 4 * (at >= 0).sum() > 3 * at.size and _solve_nearby(hess, step, at, lower)
        if not solved:
            solved, own = _factorise(hess)
            if solved:
                held, lower = features[support], own
                _locate(held, place)
                _solve_triangles(lower, step)
        if solved and np.isfinite(step).all():
            _step_groups(S, g, c, z, r, starts, weights, support, step)
    return z, r, held, lower


# --- simulation ---------------------------------------------------------------------------------


@njit(cache=True, fastmath=FASTMATH)
def simulate_bins(
    rng,
    filters,
    linked,
    starts,
    window_size,
    drive,
    softplus,
    max_count,
    pending,
    begin,
    end,
    counts,
    rates,
):
    """Draw bins ``begin`` to ``end`` of a recurrent network; return the bin that ran away or -1.

    ``linked[starts[i] : starts[i + 1]]`` are the receivers of sender i, and
    ``filters[starts[i] * window_size :]`` begins with its (window_size, n_linked) weights.
    ``pending`` is a ring of ``window_size`` rows: row ``t % window_size`` holds what past events
    add to eta of bin t, and every new event adds its filters to the rows ahead of it.
    """
    n_cells = pending.shape[1]
    for t in range(begin, end):
        slot = t % window_size
        ahead = pending[slot]
        for j in range(n_cells):
            eta = ahead[j] + drive[t - begin, j]
            ahead[j] = 0.0
            if softplus:
                rate = max(eta, 0.0) + math.log1p(math.exp(-abs(eta)))
            else:
                rate = math.exp(min(eta, 700.0))
            rates[t - begin, j] = rate
            if not rate <= max_count:
                return t
            counts[t - begin, j] = rng.poisson(rate)
        for i in range(n_cells):
            count = counts[t - begin, i]
            if count > 0:
                n_linked = starts[i + 1] - starts[i]
                receivers = linked[starts[i] : starts[i + 1]]
                for l in range(window_size):
                    row = pending[(t + 1 + l) % window_size]
                    p = starts[i] * window_size + l * n_linked
                    weights = filters[p : p + n_linked]
                    if n_linked == n_cells:
                        for k in range(n_linked):
                            row[k] += count * weights[k]
                    else:
                        for k in range(n_linked):
                            row[receivers[k]] += count * weights[k]
    return -1
