"""Weighted Gram matrices of histories from pairs of events, for a few weights at a time.

Two events meet in the bins that lie in the windows of both. For a sender i of one history and a
sender k of another, with events at s and s' and kernels K and L,

    H[i a, k b] = sum over pairs (s, s') of amplitudes * sum_t w(t) K[t - 1 - s, a] L[t - 1 - s', b]

Only ``d = s' - s`` tells how the kernels lie to each other. So the weights of all pairs at one
distance d are added up first, without a kernel, and the kernels are applied to the sum once.
"""

import numpy as np

from fastglm._kernels.compiler import njit
from fastglm._kernels.threads import run_threads
from fastglm._kernels.tiles import FASTMATH, first_at

PAIR_LANES = 8  # weights side by side: one AVX-512 register of float64
_ROWS = 512  # rows that are multiplied with each other at a time; they stay in the first cache


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
def _add_weights(begins, amplitudes, shift, n_lags, weights, bounds, total):
    """``total[l, :] = sum_e amplitudes[e] * w[begins[e] + shift + l, :]`` for l below ``n_lags``.

    ``weights`` are those of the bins from ``bounds[0]`` to ``bounds[1]``; all others are 0.
    """
    first, stop = bounds
    size = n_lags * PAIR_LANES
    whole = total[:size]
    whole[:] = 0
    e, n = 0, begins.shape[0]
    while e < n:
        begin = begins[e] + shift
        if e + 4 <= n and begin >= first and begins[e + 3] + shift + n_lags <= stop:
            p0, p1 = begin - first, begins[e + 1] + shift - first
            p2, p3 = begins[e + 2] + shift - first, begins[e + 3] + shift - first
            p0, p1, p2, p3 = p0 * PAIR_LANES, p1 * PAIR_LANES, p2 * PAIR_LANES, p3 * PAIR_LANES
            a0, a1, a2, a3 = amplitudes[e], amplitudes[e + 1], amplitudes[e + 2], amplitudes[e + 3]
            w0, w1 = weights[p0 : p0 + size], weights[p1 : p1 + size]
            w2, w3 = weights[p2 : p2 + size], weights[p3 : p3 + size]
            for x in range(size):
                whole[x] += (a0 * w0[x] + a1 * w1[x]) + (a2 * w2[x] + a3 * w3[x])
            e += 4
            continue
        low, high = max(begin, first), min(begin + n_lags, stop)
        if low < high:
            p, q = (low - first) * PAIR_LANES, (low - begin) * PAIR_LANES
            part = (high - low) * PAIR_LANES
            source, target, amplitude = weights[p : p + part], total[q : q + part], amplitudes[e]
            for x in range(part):
                target[x] += amplitude * source[x]
        e += 1


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def _apply_kernel(kernel, support, distance, n_lags, total, sums):
    """``sums[a, l, :] += kernel[a, l + distance] * total[l, :]``: the event that came first.

    Kernels are repeated over the lanes. ``support`` holds the first lag of a function that is not
    zero, and one past the last.
    """
    for a in range(sums.shape[0]):
        low = max(support[a, 0] - distance, 0) * PAIR_LANES
        high = min(support[a, 1] - distance, n_lags) * PAIR_LANES
        if low < high:
            p, q = low + distance * PAIR_LANES, high + distance * PAIR_LANES
            values, source, target = kernel[a, p:q], total[low:high], sums[a, low:high]
            for x in range(high - low):
                target[x] += values[x] * source[x]


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def _project(sums, kernel, support, out, turned):
    """``out[a, b, :] += sum_l sums[a, l, :] * kernel[b, l]``; ``out[b, a, :]`` if turned is 1."""
    for a in range(sums.shape[0]):
        for b in range(kernel.shape[0]):
            target = out[b, a] if turned > 0 else out[a, b]
            low, high = support[b, 0], support[b, 1]
            lag = low
            while lag + 4 <= high:
                p = lag * PAIR_LANES
                part = sums[a, p : p + 4 * PAIR_LANES]
                k0, k1 = kernel[b, p], kernel[b, p + PAIR_LANES]
                k2, k3 = kernel[b, p + 2 * PAIR_LANES], kernel[b, p + 3 * PAIR_LANES]
                for x in range(PAIR_LANES):
                    target[x] += (k0 * part[x] + k1 * part[x + PAIR_LANES]) + (
                        k2 * part[x + 2 * PAIR_LANES] + k3 * part[x + 3 * PAIR_LANES]
                    )
                lag += 4
            while lag < high:
                p = lag * PAIR_LANES
                part = sums[a, p : p + PAIR_LANES]
                for x in range(PAIR_LANES):
                    target[x] += kernel[b, p] * part[x]
                lag += 1


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def _sum_pairs(starts, at, amplitude, own, other, weights, bounds, out):
    """The block ``out[a, b, :]`` of two senders. ``own`` and ``other`` are kernel and support."""
    ahead, behind = own[0].shape[1] // PAIR_LANES, other[0].shape[1] // PAIR_LANES
    total = np.empty(max(ahead, behind) * PAIR_LANES)
    later = np.zeros((own[0].shape[0], behind * PAIR_LANES))  # the other event is the later one
    before = np.zeros((other[0].shape[0], ahead * PAIR_LANES))
    for place in range(ahead + behind - 1):
        if starts[place] == starts[place + 1]:
            continue
        some = slice(starts[place], starts[place + 1])
        distance = place - behind + 1
        shift = max(distance, 0) + 1
        n_lags = min(ahead - max(distance, 0), behind + min(distance, 0))
        _add_weights(at[some], amplitude[some], shift, n_lags, weights, bounds, total)
        if distance >= 0:
            _apply_kernel(own[0], own[1], distance, n_lags, total, later)
        else:
            _apply_kernel(other[0], other[1], -distance, n_lags, total, before)
    out[:] = 0
    for turned in range(2):  # a constant argument would be compiled for each value
        if turned == 0:
            _project(later, other[0], other[1], out, turned)
        else:
            _project(before, own[0], own[1], out, turned)


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def _add_block(block, first_row, first_column, out):
    """Add the block of two senders to packed lower triangles."""
    for a in range(block.shape[0]):
        row = first_row + a
        for b in range(block.shape[1]):
            column = first_column + b
            if column <= row:
                target, source = out[row * (row + 1) // 2 + column], block[a, b]
                for x in range(PAIR_LANES):
                    target[x] += source[x]


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def add_sender_pairs(i, one, own, two, other, wanted, weights, bounds, corner, out):
    """The part of one sender; see `add_pairs`."""
    n_own, n_other = own[0].shape[0], other[0].shape[0]
    reach = own[0].shape[1] // PAIR_LANES, other[0].shape[1] // PAIR_LANES
    n_lags = reach[0] + reach[1] - 1
    begin, end = one[2][i], one[2][i + 1]
    starts, at, amplitude = _sort_pairs(
        one[0][begin:end], one[1][begin:end], two, wanted[i], reach, bounds
    )
    block = np.empty((n_own, n_other, PAIR_LANES))
    for tile in range(out.shape[0]):
        for k in range(wanted.shape[1]):
            keys = starts[k * n_lags : (k + 1) * n_lags + 1]
            if keys[0] < keys[n_lags]:
                _sum_pairs(keys, at, amplitude, own, other, weights[tile], bounds, block)
                _add_block(block, corner[0] + i * n_own, corner[1] + k * n_other, out[tile])


def add_pairs(one, own, two, other, wanted, weights, bounds, corner, out):
    """Add the Gram matrix of two histories, from pairs of events, to packed lower triangles.

    Parameters
    ----------
    one : tuple
        Bins and amplitudes by sender, and the first event of each sender.
    own, other : tuple
        Kernel of each history, of shape (n_funcs, n_lags * PAIR_LANES), repeated over the lanes;
        and its support, (n_funcs, 2).
    two : tuple
        Bins, senders and amplitudes by bin.
    wanted : ndarray of bool, shape (n_senders, n_senders of the other)
        Pairs of senders. Of one history with itself, those at and below the diagonal.
    weights : ndarray of shape (n_tiles, at least n_bins * PAIR_LANES)
        Of the bins from ``bounds[0]`` to ``bounds[1]``.
    corner : tuple of int
        Row and column of the first entry.
    out : ndarray of shape (n_tiles, size * (size + 1) // 2, PAIR_LANES)
        Row r begins at ``r * (r + 1) // 2``.
    """
    n = wanted.shape[0]

    def add(task):
        # Low and high rows of the triangle in turn, so that threads have alike work.
        i = task // 2 if task % 2 == 0 else n - 1 - task // 2
        add_sender_pairs(i, one, own, two, other, wanted, weights, bounds, corner, out)

    run_threads(add, range(n), one[0].size * own[0].shape[1])


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def _meet_rows(bins, amplitudes, rows, weights, bounds, sums):
    """``sums[r, l, :] += sum_s amplitude * rows[r, s + 1 + l] * w[s + 1 + l, :]``."""
    first, stop = bounds
    n_lags = sums.shape[1] // PAIR_LANES
    low = first_at(bins, first - n_lags)
    high = first_at(bins, stop - 1)
    for e in range(low, high):
        begin = bins[e] + 1
        start, size = max(begin, first), min(begin + n_lags, stop) - max(begin, first)
        p, q = (start - first) * PAIR_LANES, (start - begin) * PAIR_LANES
        source = weights[p : p + size * PAIR_LANES]
        for r in range(rows.shape[0]):
            values = rows[r, start - first : start - first + size]
            target = sums[r, q : q + size * PAIR_LANES]
            l = 0
            while l + 4 <= size:  # bins that share the bounds of a loop over the lanes
                v0, v1 = amplitudes[e] * values[l], amplitudes[e] * values[l + 1]
                v2, v3 = amplitudes[e] * values[l + 2], amplitudes[e] * values[l + 3]
                here = target[l * PAIR_LANES : (l + 4) * PAIR_LANES]
                w = source[l * PAIR_LANES : (l + 4) * PAIR_LANES]
                for x in range(PAIR_LANES):
                    here[x] += v0 * w[x]
                    here[x + PAIR_LANES] += v1 * w[x + PAIR_LANES]
                    here[x + 2 * PAIR_LANES] += v2 * w[x + 2 * PAIR_LANES]
                    here[x + 3 * PAIR_LANES] += v3 * w[x + 3 * PAIR_LANES]
                l += 4
            while l < size:
                value = amplitudes[e] * values[l]
                here = target[l * PAIR_LANES : (l + 1) * PAIR_LANES]
                w = source[l * PAIR_LANES : (l + 1) * PAIR_LANES]
                for x in range(PAIR_LANES):
                    here[x] += value * w[x]
                l += 1


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def add_sender_crossed(i, tile, one, own, rows, columns, weights, bounds, corner, out):
    """The part of one sender and tile; see `add_crossed`."""
    n_funcs = own[0].shape[0]
    begin, end = one[2][i], one[2][i + 1]
    sums = np.zeros((rows.shape[0], own[0].shape[1]))
    _meet_rows(one[0][begin:end], one[1][begin:end], rows, weights[tile], bounds, sums)
    block = np.zeros((rows.shape[0], n_funcs, PAIR_LANES))
    _project(sums, own[0], own[1], block, tile * 0)
    for r in range(rows.shape[0]):
        for b in range(n_funcs):
            mine = corner + i * n_funcs + b
            high, low = max(mine, columns[r]), min(mine, columns[r])
            target, source = out[tile, high * (high + 1) // 2 + low], block[r, b]
            for x in range(PAIR_LANES):
                target[x] += source[x]


def add_crossed(one, own, rows, columns, weights, bounds, corner, out):
    """Add the products of a history with columns that are given as rows to packed triangles.

    ``rows`` has shape (n_columns, at least n_bins), and its columns have the numbers ``columns`` in
    the matrix. ``corner`` is the first column of the history. All else is as in `add_pairs`.
    """
    n_tiles = out.shape[0]

    def add(task):
        i, tile = divmod(task, n_tiles)
        add_sender_crossed(i, tile, one, own, rows, columns, weights, bounds, corner, out)

    run_threads(add, range((one[2].size - 1) * n_tiles), one[0].size * own[0].shape[1])


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def multiply_rows(rows, weights, begin, end, out):
    """``out[r * (r + 1) / 2 + c, :] = sum_t rows[r, t] rows[c, t] w[t, :]`` for c up to r."""
    w = weights[begin * PAIR_LANES : end * PAIR_LANES]
    for r in range(rows.shape[0]):
        for c in range(r + 1):
            total = out[r * (r + 1) // 2 + c]
            total[:] = 0
            one, two = rows[r, begin:end], rows[c, begin:end]
            for t in range(end - begin):
                value, here = one[t] * two[t], w[t * PAIR_LANES : (t + 1) * PAIR_LANES]
                for x in range(PAIR_LANES):
                    total[x] += value * here[x]


def add_rows(rows, columns, weights, bounds, out):
    """Add the products of rows with each other to packed triangles; see `add_crossed`.

    ``columns`` ascend.
    """
    n_columns, n_bins = rows.shape[0], bounds[1] - bounds[0]
    row, column = np.tril_indices(n_columns)
    place = columns[row] * (columns[row] + 1) // 2 + columns[column]
    begins = range(0, n_bins, _ROWS)
    parts = np.empty((len(begins), row.size, PAIR_LANES))
    for tile, target in enumerate(out):

        def multiply(k, w=weights[tile]):
            begin = begins[k]
            multiply_rows(rows, w, begin, min(n_bins, begin + _ROWS), parts[k])

        run_threads(multiply, range(len(begins)), n_bins * row.size * PAIR_LANES)
        for part in parts:
            target[place] += part
