"""Weighted Gram matrices of histories from pairs of events, for a few weights at a time.

Two events meet in the bins that lie in the windows of both. For a sender i of one history and a
sender k of another, with events at s and s' and kernels K and L,

    H[i a, k b] = sum over pairs (s, s') of amplitudes * sum_t w(t) K[t - 1 - s, a] L[t - 1 - s', b]

Only ``d = s' - s`` tells how the kernels lie to each other. So the weights of all pairs at one
distance d are added up first, without a kernel, and the kernels are applied to the sum once.

Some vectors of weights stand side by side: the *lanes*. Kernels get them as a tuple of that length,
which is a constant for the compiler.
"""

import numpy as np

from fastglm._kernels.compiler import njit
from fastglm._kernels.threads import run_threads
from fastglm._kernels.tiles import FASTMATH, first_at

PAIR_LANES = 8  # most weights side by side: one AVX-512 register of float64
_ROWS = 512  # rows that are multiplied with each other at a time; they stay in the first cache
_KEYS = 1 << 14  # senders times distances that pairs are sorted by at a time, in the second cache


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def _sort_pairs(own_bins, own_amplitudes, two, wanted, reach, bounds):
    """Pairs of a sender's events with others, sorted by the other's sender and their distance.

    ``reach`` holds the lags of both histories. The distance lies between ``1 - reach[1]`` and
    ``reach[0] - 1``, and a pair has the key ``sender * (reach[0] + reach[1] - 1) + distance +
    reach[1] - 1``. Events whose windows end before ``bounds[0]`` or begin after ``bounds[1]`` are
    left out. Returns the start of each key, and the sender's bins and the amplitudes of the pairs.
    """
    (bins, senders, amplitudes), (ahead, behind), (first, stop) = two, reach, bounds
    n_lags = ahead + behind - 1
    starts = np.zeros(wanted.shape[0] * n_lags + 1, np.int64)
    low = first_at(own_bins, first - ahead)
    high = first_at(own_bins, stop - 1)
    begin = 0
    if low < high:
        begin = first_at(bins, max(own_bins[low] - behind + 1, first - behind))
    last = first_at(bins, stop - 1)
    f = begin
    for e in range(low, high):
        while f < last and bins[f] <= own_bins[e] - behind:
            f += 1
        g = f
        while g < last and bins[g] < own_bins[e] + ahead:
            if wanted[senders[g]]:
                starts[senders[g] * n_lags + bins[g] - own_bins[e] + behind] += 1
            g += 1
    for key in range(starts.shape[0] - 1):
        starts[key + 1] += starts[key]
    place = starts.copy()
    at, amplitude = np.empty(starts[-1], np.int64), np.empty(starts[-1])
    f = begin
    for e in range(low, high):
        while f < last and bins[f] <= own_bins[e] - behind:
            f += 1
        g = f
        while g < last and bins[g] < own_bins[e] + ahead:
            if wanted[senders[g]]:
                key = senders[g] * n_lags + bins[g] - own_bins[e] + behind - 1
                at[place[key]] = own_bins[e]
                amplitude[place[key]] = own_amplitudes[e] * amplitudes[g]
                place[key] += 1
            g += 1
    return starts, at, amplitude


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def _add_weights(some, at, amplitudes, shift, n_lags, weights, bounds, lanes, total):
    """``total[l, :] = sum_e amplitudes[e] * w[at[e] + shift + l, :]`` for l below ``n_lags``.

    The pairs e lie between ``some[0]`` and ``some[1]``. ``weights`` are those of the bins from
    ``bounds[0]`` to ``bounds[1]``; all others are 0.
    """
    # Slices of arrays, and indices that may be negative, would take longer than these short loops.
    (first, stop), width, one = bounds, len(lanes), np.uint64(1)
    size = np.uint64(n_lags * width)
    e, n = some
    for x in range(n_lags * width):
        total[x] = 0
    while e < n:
        begin = at[e] + shift
        if e + 4 <= n and begin >= first and at[e + 3] + shift + n_lags <= stop:
            p0, p1 = begin - first, at[e + 1] + shift - first
            p2, p3 = at[e + 2] + shift - first, at[e + 3] + shift - first
            p0, p1 = np.uint64(p0 * width), np.uint64(p1 * width)
            p2, p3 = np.uint64(p2 * width), np.uint64(p3 * width)
            a0, a1, a2, a3 = amplitudes[e], amplitudes[e + 1], amplitudes[e + 2], amplitudes[e + 3]
            x = np.uint64(0)
            while x < size:
                total[x] += (a0 * weights[p0 + x] + a1 * weights[p1 + x]) + (
                    a2 * weights[p2 + x] + a3 * weights[p3 + x]
                )
                x += one
            e += 4
            continue
        low, high = max(begin, first), min(begin + n_lags, stop)
        if low < high:
            p, q = np.uint64((low - first) * width), np.uint64((low - begin) * width)
            part, amplitude, x = np.uint64((high - low) * width), amplitudes[e], np.uint64(0)
            while x < part:
                total[q + x] += amplitude * weights[p + x]
                x += one
        e += 1


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def _apply_kernel(kernel, support, distance, n_lags, total, lanes, sums):
    """``sums[a, l, :] += kernel[a, l + distance] * total[l, :]``: the event that came first.

    Kernels are repeated over the lanes. ``support`` holds the first lag of a function that is not
    zero, and one past the last.
    """
    width, one = len(lanes), np.uint64(1)
    away = np.uint64(distance * width)
    for a in range(sums.shape[0]):
        low = max(support[a, 0] - distance, 0) * width
        high = min(support[a, 1] - distance, n_lags) * width
        row, x, end = np.uint64(a), np.uint64(low), np.uint64(max(low, high))
        while x < end:
            sums[row, x] += kernel[row, x + away] * total[x]
            x += one


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def _project(sums, kernel, support, lanes, out, turned):
    """``out[a, b, :] += sum_l sums[a, l, :] * kernel[b, l]``; ``out[b, a, :]`` if turned is 1."""
    width = len(lanes)
    for a in range(sums.shape[0]):
        for b in range(kernel.shape[0]):
            target = out[b, a] if turned > 0 else out[a, b]
            low, high = support[b, 0], support[b, 1]
            lag = low
            while lag + 4 <= high:
                p = lag * width
                part = sums[a, p : p + 4 * width]
                k0, k1 = kernel[b, p], kernel[b, p + width]
                k2, k3 = kernel[b, p + 2 * width], kernel[b, p + 3 * width]
                for x in range(width):
                    target[x] += (k0 * part[x] + k1 * part[x + width]) + (
                        k2 * part[x + 2 * width] + k3 * part[x + 3 * width]
                    )
                lag += 4
            while lag < high:
                p = lag * width
                part = sums[a, p : p + width]
                for x in range(width):
                    target[x] += kernel[b, p] * part[x]
                lag += 1


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def _sum_pairs(starts, at, amplitude, own, other, weights, bounds, lanes, out):
    """The block ``out[a, b, :]`` of two senders. ``own`` and ``other`` are kernel and support."""
    width = len(lanes)
    ahead, behind = own[0].shape[1] // width, other[0].shape[1] // width
    total = np.empty(max(ahead, behind) * width)
    later = np.zeros((own[0].shape[0], behind * width))  # the other event is the later one
    before = np.zeros((other[0].shape[0], ahead * width))
    for place in range(ahead + behind - 1):
        if starts[place] == starts[place + 1]:
            continue
        some = starts[place], starts[place + 1]
        distance = place - behind + 1
        shift = max(distance, 0) + 1
        n_lags = min(ahead - max(distance, 0), behind + min(distance, 0))
        _add_weights(some, at, amplitude, shift, n_lags, weights, bounds, lanes, total)
        if distance >= 0:
            _apply_kernel(own[0], own[1], distance, n_lags, total, lanes, later)
        else:
            _apply_kernel(other[0], other[1], -distance, n_lags, total, lanes, before)
    out[:] = 0
    for turned in range(2):  # a constant argument would be compiled for each value
        if turned == 0:
            _project(later, other[0], other[1], lanes, out, turned)
        else:
            _project(before, own[0], own[1], lanes, out, turned)


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def _add_block(block, first_row, first_column, lanes, out):
    """Add the block of two senders to packed lower triangles."""
    width = len(lanes)
    for a in range(block.shape[0]):
        row = first_row + a
        for b in range(block.shape[1]):
            column = first_column + b
            if column <= row:
                target, source = out[row * (row + 1) // 2 + column], block[a, b]
                for x in range(width):
                    target[x] += source[x]


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def add_sender_pairs(i, one, own, two, other, wanted, weights, bounds, corner, lanes, out):
    """The part of one sender; see `add_pairs`."""
    n_own, n_other, width = own[0].shape[0], other[0].shape[0], len(lanes)
    reach = own[0].shape[1] // width, other[0].shape[1] // width
    n_lags = reach[0] + reach[1] - 1
    begin, end = one[2][i], one[2][i + 1]
    starts, at, amplitude = _sort_pairs(
        one[0][begin:end], one[1][begin:end], two, wanted[i], reach, bounds
    )
    block = np.empty((n_own, n_other, width))
    for tile in range(out.shape[0]):
        for k in range(wanted.shape[1]):
            keys = starts[k * n_lags : (k + 1) * n_lags + 1]
            if keys[0] < keys[n_lags]:
                _sum_pairs(keys, at, amplitude, own, other, weights[tile], bounds, lanes, block)
                _add_block(block, corner[0] + i * n_own, corner[1] + k * n_other, lanes, out[tile])


def add_pairs(one, own, two, other, wanted, weights, bounds, corner, out):
    """Add the Gram matrix of two histories, from pairs of events, to packed lower triangles.

    Parameters
    ----------
    one : tuple
        Bins and amplitudes by sender, and the first event of each sender.
    own, other : tuple
        Kernel of each history, of shape (n_funcs, n_lags * lanes), repeated over the lanes;
        and its support, (n_funcs, 2).
    two : tuple
        Bins, senders and amplitudes by bin.
    wanted : ndarray of bool, shape (n_senders, n_senders of the other)
        Pairs of senders. Of one history with itself, those at and below the diagonal.
    weights : ndarray of shape (n_tiles, at least n_bins * lanes)
        Of the bins from ``bounds[0]`` to ``bounds[1]``.
    corner : tuple of int
        Row and column of the first entry.
    out : ndarray of shape (n_tiles, size * (size + 1) // 2, lanes)
        Row r begins at ``r * (r + 1) // 2``.
    """
    (n_funcs, size), lanes = other[0].shape, (0,) * out.shape[2]
    step = max(1, _KEYS // ((own[0].shape[1] + size) // len(lanes) - 1))
    for first in range(0, wanted.shape[1], step):
        some = np.ascontiguousarray(wanted[:, first : first + step])
        senders = np.flatnonzero(some.any(axis=1))
        events = _of_senders(two, first, first + some.shape[1])
        rest = some, weights, bounds, (corner[0], corner[1] + first * n_funcs), lanes, out

        def add(task, senders=senders, events=events, rest=rest):
            # Low and high rows of the triangle in turn, so that threads have alike work.
            i = senders[task // 2 if task % 2 == 0 else -1 - task // 2]
            add_sender_pairs(i, one, own, events, other, *rest)

        run_threads(add, range(senders.size), one[0].size * own[0].shape[1])


def _of_senders(events, first, stop):
    """The events of consecutive senders, which are numbered from 0."""
    bins, senders, amplitudes = events
    inside = (senders >= first) & (senders < stop)
    return bins[inside], senders[inside] - first, amplitudes[inside]


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def _meet_rows(bins, amplitudes, rows, weights, bounds, lanes, sums):
    """``sums[r, l, :] += sum_s amplitude * rows[r, s + 1 + l] * w[s + 1 + l, :]``."""
    (first, stop), width = bounds, len(lanes)
    n_lags = sums.shape[1] // width
    low = first_at(bins, first - n_lags)
    high = first_at(bins, stop - 1)
    for e in range(low, high):
        begin = bins[e] + 1
        start, size = max(begin, first), min(begin + n_lags, stop) - max(begin, first)
        p, q = (start - first) * width, (start - begin) * width
        source = weights[p : p + size * width]
        for r in range(rows.shape[0]):
            values = rows[r, start - first : start - first + size]
            target = sums[r, q : q + size * width]
            l = 0
            while l + 4 <= size:  # bins that share the bounds of a loop over the lanes
                v0, v1 = amplitudes[e] * values[l], amplitudes[e] * values[l + 1]
                v2, v3 = amplitudes[e] * values[l + 2], amplitudes[e] * values[l + 3]
                here = target[l * width : (l + 4) * width]
                w = source[l * width : (l + 4) * width]
                for x in range(width):
                    here[x] += v0 * w[x]
                    here[x + width] += v1 * w[x + width]
                    here[x + 2 * width] += v2 * w[x + 2 * width]
                    here[x + 3 * width] += v3 * w[x + 3 * width]
                l += 4
            while l < size:
                value = amplitudes[e] * values[l]
                here = target[l * width : (l + 1) * width]
                w = source[l * width : (l + 1) * width]
                for x in range(width):
                    here[x] += value * w[x]
                l += 1


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def add_sender_crossed(i, tile, one, own, rows, columns, weights, bounds, corner, lanes, out):
    """The part of one sender and tile; see `add_crossed`."""
    n_funcs, width = own[0].shape[0], len(lanes)
    begin, end = one[2][i], one[2][i + 1]
    sums = np.zeros((rows.shape[0], own[0].shape[1]))
    _meet_rows(one[0][begin:end], one[1][begin:end], rows, weights[tile], bounds, lanes, sums)
    block = np.zeros((rows.shape[0], n_funcs, width))
    _project(sums, own[0], own[1], lanes, block, tile * 0)
    for r in range(rows.shape[0]):
        for b in range(n_funcs):
            mine = corner + i * n_funcs + b
            high, low = max(mine, columns[r]), min(mine, columns[r])
            target, source = out[tile, high * (high + 1) // 2 + low], block[r, b]
            for x in range(width):
                target[x] += source[x]


def add_crossed(one, own, rows, columns, weights, bounds, corner, out):
    """Add the products of a history with columns that are given as rows to packed triangles.

    ``rows`` has shape (n_columns, at least n_bins), and its columns have the numbers ``columns`` in
    the matrix. ``corner`` is the first column of the history. All else is as in `add_pairs`.
    """
    n_tiles, lanes = out.shape[0], (0,) * out.shape[2]
    rest = one, own, rows, columns, weights, bounds, corner, lanes

    def add(task):
        i, tile = divmod(task, n_tiles)
        add_sender_crossed(i, tile, *rest, out)

    run_threads(add, range((one[2].size - 1) * n_tiles), one[0].size * own[0].shape[1])


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def multiply_rows(rows, weights, begin, end, lanes, out):
    """``out[r * (r + 1) / 2 + c, :] = sum_t rows[r, t] rows[c, t] w[t, :]`` for c up to r."""
    width = len(lanes)
    w = weights[begin * width : end * width]
    for r in range(rows.shape[0]):
        for c in range(r + 1):
            total = out[r * (r + 1) // 2 + c]
            total[:] = 0
            one, two = rows[r, begin:end], rows[c, begin:end]
            for t in range(end - begin):
                value, here = one[t] * two[t], w[t * width : (t + 1) * width]
                for x in range(width):
                    total[x] += value * here[x]


def add_rows(rows, columns, weights, bounds, out):
    """Add the products of rows with each other to packed triangles; see `add_crossed`.

    ``columns`` ascend.
    """
    n_columns, n_bins = rows.shape[0], bounds[1] - bounds[0]
    row, column = np.tril_indices(n_columns)
    place = columns[row] * (columns[row] + 1) // 2 + columns[column]
    begins = range(0, n_bins, _ROWS)
    lanes = (0,) * out.shape[2]
    parts = np.empty((len(begins), row.size, out.shape[2]))
    for tile, target in enumerate(out):

        def multiply(k, w=weights[tile]):
            begin = begins[k]
            multiply_rows(rows, w, begin, min(n_bins, begin + _ROWS), lanes, parts[k])

        run_threads(multiply, range(len(begins)), n_bins * row.size * out.shape[2])
        for part in parts:
            target[place] += part
