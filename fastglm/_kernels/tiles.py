"""The compiler's policy, the layout of tiles, and the kernels that multiply X.

The policy of the compiler:

- ``cache=True``: a cold compile takes seconds, a cached one milliseconds. `compiler.njit` goes on
  where nothing can be written. Numba does not notice a
  change to a helper in another file, so kernels that call each other stand in one file.
- ``fastmath`` without ``nnan`` and ``ninf``: with them ``isfinite(nan)`` is True inside a kernel.
- No explicit signatures: they would compile at import. Callers cast once, at the boundary.
- A function whose sums must keep their order (`exp`) has its own flags and is left to LLVM to
  inline. ``inline="always"`` would give it the flags of its caller: with "reassoc" the two parts
  of ln(2) merge, and the error of `exp` grows from 2e-16 to 3e-15.
- ``error_model="numpy"`` where there is a division: Python's tests for zero would make it scalar.
- Kernels have no parallel loop: one would take twice as long to compile, and a thread of OpenMP
  neither survives a fork nor runs beside another fit. Threads of Python call kernels on pieces of
  the work instead (`threads`), and ``nogil`` lets them run side by side.
- Sums run over fixed blocks, never over threads: the bits do not depend on the number of threads.
- The innermost loops run over one-dimensional slices with a trip count that the compiler knows.
  An index such as ``h[p + k]`` keeps NumPy's wrap-around of negative indices as a branch, which
  costs the vectoriser a factor of eight; a slice ``h[p : p + size]`` indexed by ``k`` does not.

The layout: a *tile* is ``lanes`` receivers side by side, the fastest axis. A *chunk* is a range of
bins, and a *segment* is the least part of a chunk that a thread works on. ``eta`` of a tile and a
chunk has the shape ``((PAD + n_rows + PAD) * lanes,)``. The pads of ``PAD`` bins hold zeros, so
that a block of bins or lags may run over an edge without a test. Filters have pads of ``PAD`` lags
for the same reason. A kernel works on one tile; ``start`` is the bin of a chunk's first row, and
``begin`` and ``end`` are rows of the chunk, of which ``begin`` is a multiple of the segment.
"""

import math

import numpy as np

from fastglm._kernels.compiler import njit

FASTMATH = {"nsz", "arcp", "contract", "afn", "reassoc"}
LANES = 16  # receivers in a tile: one AVX-512 register of float32, two of AVX2
BLOCK = 8  # bins (forward) or lags (backward) that are summed together
NARROW_BLOCK = 64  # the same for tiles of one receiver, whose vector runs along time
PAD = NARROW_BLOCK  # bins of zeros around a chunk; at least every block size
SEGMENT = 1024  # bins of a segment, a multiple of every block size
NARROW_SEGMENT = 8 * SEGMENT  # the same for tiles of one receiver: 32 KB of float32
_TILE = LANES * BLOCK  # numbers that are summed together


def aligned_zeros(shape, dtype=np.float64):
    """Zeros that begin on a cache line; vectors across two lines would take 1.8 times as long."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    raw = np.zeros(size + 64, np.uint8)
    first = -raw.ctypes.data % 64
    return raw[first : first + size].view(dtype).reshape(shape)


@njit(cache=True)
def first_at(values, limit):
    """The first of ascending whole numbers that is at least a limit: ``np.searchsorted``.

    Numba takes 0.7 s to compile that for each pair of types, this 0.1 s. Kernels of other files
    call it, whose caches do not notice a change to it.
    """
    low, high = 0, values.shape[0]
    while low < high:
        middle = (low + high) >> 1
        if values[middle] < limit:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def history_rows(bins, senders, amplitudes, kernel, rows, out):
    """``out[r, i * B + b] = sum_l kernel[l, b] * counts[rows[r] - 1 - l, i]``, rows ascending.

    Events are sorted by bin. Each row gathers the events inside its window.
    """
    window_size, n_funcs = kernel.shape
    n_rows = rows.shape[0]
    n_events = bins.shape[0]
    first = first_at(bins, rows[0] - window_size) if n_rows else 0
    for r in range(n_rows):
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


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def project_filters(kernel, coef, receiver, filters):
    """``filters[i, PAD + l, lane] = sum_b kernel[l, b] * coef[i * B + b, receiver + lane]``.

    It is not a product of BLAS, which may order its sums by the width of the batch: a receiver's
    fit must not depend on the other receivers.
    """
    window_size, n_funcs = kernel.shape
    for i in range(filters.shape[0]):
        for l in range(window_size):
            for k in range(filters.shape[2]):
                total = 0.0
                for b in range(n_funcs):
                    total += kernel[l, b] * coef[i * n_funcs + b, receiver + k]
                filters[i, PAD + l, k] = total


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def collect_filters(kernel, lag_sums, receiver, grad):
    """``grad[i * B + b, receiver + lane] += sum_l kernel[l, b] * lag_sums[i, l, lane]``."""
    window_size, n_funcs = kernel.shape
    for i in range(lag_sums.shape[0]):
        for b in range(n_funcs):
            for k in range(lag_sums.shape[2]):
                total = 0.0
                for l in range(window_size):
                    total += kernel[l, b] * lag_sums[i, l, k]
                grad[i * n_funcs + b, receiver + k] += total


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def history_forward(bins, senders, amplitudes, filters, window_size, start, begin, end, eta):
    """``eta[t, :] += sum over events (s, i) of amplitude * filters[i, t - 1 - s, :]``.

    Events are sorted by bin, and gathered by blocks of bins.

    Four events are added per visit of the accumulator: five loads and one store for four
    multiply-adds. The load ports are the bound. The loop is written out here and in `_event_sums`:
    one function for both is 8 to 14 % slower in float32.
    """
    n_events = bins.shape[0]
    span = window_size + 2 * PAD  # lags stored per sender
    low = first_at(bins, start + begin - window_size)
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


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def history_forward_narrow(bins, starts, amplitudes, filters, window_size, start, begin, end, eta):
    """`history_forward` for tiles of one receiver; events sorted by sender, then by bin.

    Events are scattered, segment by segment: the filter of one sender and a segment of
    `NARROW_SEGMENT` bins stay in the first-level cache. With 50 senders or more it takes 19 ns an
    event of 100 lags; a gather by blocks of bins takes 29.
    """
    span = window_size + 2 * PAD
    for segment in range(begin, end, NARROW_SEGMENT):
        stop_row = min(end, segment + NARROW_SEGMENT)
        for i in range(starts.shape[0] - 1):
            stop = starts[i + 1]
            e = starts[i] + first_at(bins[starts[i] : stop], start + segment - window_size)
            while e < stop and bins[e] < start + stop_row - 1:
                first = bins[e] + 1 - start
                low, high = max(first, segment), min(first + window_size, stop_row)
                p = i * span + PAD + low - first
                row = eta[PAD + low : PAD + high]
                weights = filters[p : p + high - low]
                amplitude = amplitudes[e]
                for k in range(high - low):
                    row[k] += amplitude * weights[k]
                e += 1


def _event_sums(lanes, block):
    """Lag sums of one sender, for tiles of ``lanes`` receivers and blocks of ``block`` lags.

    The kernels call these by their global names: Numba caches a function that encloses numbers, but
    no function that encloses functions.
    """
    size = lanes * block

    @njit(cache=True, fastmath=FASTMATH)
    def backward_sender(bins, amplitudes, residual, window_size, start, n_rows, total, lag_sums):
        for lag in range(0, window_size, block):
            low = first_at(bins, start - lag - block)
            high = first_at(bins, start + n_rows - 1 - lag)
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


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def history_backward(bins, starts, amplitudes, residual, window_size, start, n_rows, lag_sums):
    """``lag_sums[i, l, :] += sum over events (s, i) of amplitude * residual[s + 1 + l, :]``.

    Events are sorted by sender, then by bin; ``starts[i]`` is the first of sender i. Sums inside a
    chunk run in the dtype of the residual, and sums over chunks in float64.
    """
    total = np.empty(_TILE, residual.dtype)
    window = window_size, start, n_rows
    for i in range(lag_sums.shape[0]):
        events = slice(starts[i], starts[i + 1])
        _backward_wide(bins[events], amplitudes[events], residual, *window, total, lag_sums[i])


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def history_backward_narrow(
    bins, starts, amplitudes, residual, window_size, start, n_rows, lag_sums
):
    """`history_backward` for tiles of one receiver.

    They are summed by segments, whose residual stays in the first-level cache: 13 ns an event of
    100 lags in place of 22.
    """
    n_senders = lag_sums.shape[0]
    total = np.empty(_TILE, residual.dtype)
    window = window_size, start, n_rows
    place = np.empty(n_senders, np.int64)  # the next event of each sender
    for i in range(n_senders):
        own = bins[starts[i] : starts[i + 1]]
        place[i] = starts[i] + first_at(own, start - window_size)
    for begin in range(0, n_rows, NARROW_SEGMENT):
        end = start + min(n_rows, begin + NARROW_SEGMENT)
        for i in range(n_senders):
            low = high = place[i]
            while high < starts[i + 1] and bins[high] < end:
                high += 1
            place[i] = high
            args = bins[low:high], amplitudes[low:high], residual
            _backward_narrow(*args, *window, total, lag_sums[i])


def _run_kernels(lanes):
    """Forward and backward kernels for columns that are constant over runs of bins.

    A run costs ``n_columns * lanes`` multiply-adds, and each of its bins an addition a receiver.
    Run r has the values ``values[samples[r]]`` in the rows ``edges[r]`` to ``edges[r + 1]`` of a
    chunk, or zeros if the sample is -1.
    """

    @njit(cache=True, nogil=True, fastmath=FASTMATH)
    def forward(values, edges, samples, coef, begin, end, eta):
        """``eta[t, :] += values[sample of t] @ coef``; coef of a tile is flat, column-major."""
        n_columns = values.shape[1]
        shift = np.empty(lanes, eta.dtype)
        r = first_at(edges, begin + 1) - 1
        while begin < end:
            stop = min(end, edges[r + 1])
            if samples[r] >= 0:
                x = values[samples[r]]
                for k in range(lanes):
                    shift[k] = 0
                for c in range(n_columns):
                    row = coef[c * lanes : (c + 1) * lanes]
                    for k in range(lanes):
                        shift[k] += x[c] * row[k]
                for t in range(begin, stop):
                    total = eta[(PAD + t) * lanes : (PAD + t + 1) * lanes]
                    for k in range(lanes):
                        total[k] += shift[k]
            begin = stop
            r += 1

    @njit(cache=True, nogil=True, fastmath=FASTMATH)
    def backward(values, edges, samples, residual, begin, end, sums):
        """``sums[segment] = values' residual`` over each segment."""
        n_columns = values.shape[1]
        total = np.empty(lanes, residual.dtype)
        r = first_at(edges, begin + 1) - 1
        while begin < end:
            last = min(end, begin + SEGMENT)
            out = sums[begin // SEGMENT]
            out[:] = 0
            while begin < last:
                stop = min(last, edges[r + 1])
                if samples[r] >= 0:
                    for k in range(lanes):
                        total[k] = 0
                    for t in range(begin, stop):
                        row = residual[(PAD + t) * lanes : (PAD + t + 1) * lanes]
                        for k in range(lanes):
                            total[k] += row[k]
                    x = values[samples[r]]
                    for c in range(n_columns):
                        row = out[c * lanes : (c + 1) * lanes]
                        for k in range(lanes):
                            row[k] += x[c] * total[k]
                begin = stop
                if begin == edges[r + 1]:
                    r += 1

    return forward, backward


runs_forward, runs_backward = _run_kernels(LANES)
runs_forward_narrow, runs_backward_narrow = _run_kernels(1)
