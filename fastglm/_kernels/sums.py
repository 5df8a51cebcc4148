"""Sums over pairs of events and over rows: correlograms and weighted Gram matrices."""

import numpy as np

from fastglm._kernels.compiler import njit
from fastglm._kernels.tiles import FASTMATH, first_at


@njit(cache=True, nogil=True, fastmath=FASTMATH)
def count_pairs(starts, bins, amplitudes, later_bins, later_cells, later_amplitudes, out):
    """``out[i, d, j] = sum_s a_i(s) * b_j(s + d)``: correlograms of senders and later events.

    The first events are sorted by sender, the later ones by bin. One sender is counted at a time:
    its table stays in the second-level cache, while the later events are streamed.
    """
    n_senders, n_lags, _ = out.shape
    n_later = later_bins.shape[0]
    for i in range(n_senders):
        table = out[i]
        table[:] = 0
        first = 0
        if starts[i] < starts[i + 1]:
            first = first_at(later_bins, bins[starts[i]])
        for e in range(starts[i], starts[i + 1]):
            begin = bins[e]
            amplitude = amplitudes[e]
            while first < n_later and later_bins[first] < begin:
                first += 1
            f = first
            while f < n_later and later_bins[f] < begin + n_lags:
                table[later_bins[f] - begin, later_cells[f]] += amplitude * later_amplitudes[f]
                f += 1


GRAM_BLOCK = 32  # rows that share their list of columns; a multiple of 4


@njit(cache=True, nogil=True)
def pack_rows(rows, sizes, columns, values):
    """Cut rows into blocks of `GRAM_BLOCK`, and keep the columns of a block that are not all zero.

    Block k has ``sizes[k]`` columns, listed in ``columns[k]``. Its rows follow each other in
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

    ``weights`` is filled up with zeros to whole blocks. ``place`` is the place of a column in
    ``out``, ascending, or -1. Four rows are added at a time, and skipped where all four are zero in
    the left factor. At 2 Hz and windows of 30 ms this leaves a tenth of the multiplications of a
    dense product.
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
