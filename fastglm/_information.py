"""The information of a fit: weighted Gram matrices, from rows of X or from pairs of its events.

See the head of `fastglm.inference` for what they are. At 1 ms most bins see few events, and
`EventGram` sums over pairs of events; with more events in a window than functions a product of rows
by BLAS is faster. Numbers of events, bins and features alone decide between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from fastglm._engine.observed import columns
from fastglm._kernels.threads import run_threads
from fastglm._products.event_gram import (
    MOST_ROWS,
    EventGram,
    event_work,
    lanes_of,
    n_rows_of,
    row_work,
    triangle_bytes,
)
from fastglm._products.local import Local
from fastglm._products.weighted_gram import WeightedGram, mirror
from fastglm._progress import Progress

MATRIX_BYTES = 1 << 29  # information matrices that are held at a time
_TILES = 4  # most tiles of receivers at a time: pairs of events are sorted once for them
_SMALL = 1e9  # multiply-adds of rows that take less time than to load the kernels of pairs


def information(
    fit, kind: str, block_size: int, progress: Progress
) -> Iterator[tuple[np.ndarray, Callable]]:
    """The information of every usable receiver, and what stands between for a sandwich.

    ``progress`` counts receivers.

    Yields
    ------
    receivers : ndarray of int
    matrices : function of k
        Information without the penalty, and meat or None, of ``receivers[k]``: new matrices over
        its free features and, last, the intercept. Threads may call it side by side, once for each
        receiver.
    """
    receivers = np.flatnonzero(fit.usable)
    p = fit.X.shape[1] + 1
    if kind != "blocks" and by_events(fit, receivers):
        lanes = lanes_of(fit.X.shape[1], _n_sets(kind))
        tiles = MATRIX_BYTES // (_n_sets(kind) * triangle_bytes(fit.X.shape[1], lanes))
        step, make = min(max(tiles, 1), _TILES) * lanes, _from_events
    else:
        step, make = max(1, int(MATRIX_BYTES // (16 * p**2))), _from_rows
    for first in range(0, receivers.size, step):
        some = receivers[first : first + step]

        def reached(part, first=first, some=some):
            progress.to(first + part * some.size, f"{first} of {receivers.size} receivers")

        yield some, make(fit, some, kind, block_size, reached)


def by_events(fit, receivers) -> bool:
    """Whether pairs of events take less time than rows, for all these receivers together."""
    sizes = np.array([fit.free[j].size + 1.0 for j in receivers])
    rows = row_work(fit.X, sizes)
    if rows < _SMALL:
        return False
    lanes = lanes_of(fit.X.shape[1])
    groups = [receivers[k : k + lanes] for k in range(0, receivers.size, lanes)]
    return sum(event_work(fit.X, _used(fit, some), lanes) for some in groups) < rows


def _used(fit, receivers):
    """Features that some receivers read, booleans of shape (n_features, n_receivers)."""
    used = fit.coef[:, receivers] != 0
    for k, j in enumerate(receivers):
        used[fit.free[j], k] = True
    return used


def _n_sets(kind):
    """Number of matrices of a receiver."""
    return 2 if kind == "robust" else 1


# --- from pairs of events ---


def _from_events(fit, receivers, kind, block_size, reached):
    """The matrices of some tiles of receivers; ``reached`` is told the part of the bins."""
    used = _used(fit, receivers)
    X, index = fit.X.select(used.any(axis=1))
    lanes = lanes_of(fit.X.shape[1], _n_sets(kind))
    grams = [EventGram(X, receivers.size, used[index], lanes=lanes) for _ in range(_n_sets(kind))]
    coef = np.ascontiguousarray(fit.coef[np.ix_(index, receivers)])
    counts = _needed_counts(fit, receivers, kind)
    for chunk in Local(X, fit.kept).passes(receivers.size).forward(coef):
        weights = _weights(fit, chunk, receivers, counts, kind)
        for gram, values in zip(grams, weights, strict=True):
            gram.add(chunk.index.start, values)
        reached(chunk.index.stop / fit.kept.size)
    for gram in grams:
        gram.finish()

    def matrices(k):
        j = receivers[k]
        free = np.append(np.searchsorted(index, fit.free[j]), index.size)
        found = [gram.matrix(k, free) for gram in grams]
        return found[0], found[1] if len(found) > 1 else None

    return matrices


def _needed_counts(fit, receivers, kind):
    """Counts of some receivers; None if they are all known and weights do not depend on them."""
    counts = fit.y.select(receivers)
    simple = kind in ("observed", "expected") and not np.isnan(counts.amplitudes).any()
    # Where counts are linear in the loss, the curvature does not depend on them.
    return None if simple and (kind == "expected" or fit.loss.linear_counts) else counts


def _weights(fit, chunk, receivers, counts, kind):
    """Weights of the Gram matrices in some bins, each (n, n_receivers); 0 outside the fit.

    Without counts they are all known, and the curvature does not depend on them.
    """
    loss = fit.loss.select(receivers)
    eta = chunk.eta + fit.intercept[receivers]
    if fit.offset is not None:
        eta += columns(fit.offset, receivers)[chunk.index]
    of_bin = np.where(chunk.valid, 1.0 if fit.weight is None else fit.weight[chunk.index], 0.0)
    inside = chunk.valid[:, None]
    with np.errstate(over="ignore", invalid="ignore"):
        if counts is None:
            curvature = np.broadcast_to(loss.expected_curvature(eta), eta.shape)
            return [np.where(inside, of_bin[:, None] * curvature, 0.0)]
        y = counts.rows(np.arange(chunk.index.start, chunk.index.stop))
        inside = inside & ~np.isnan(y)
        _, residual, curvature = loss.derivatives(eta, np.where(inside, y, fit.family.some))
        if kind == "expected":
            curvature = loss.expected_curvature(eta)
        found = [curvature, residual**2][: _n_sets(kind)]
        return [np.where(inside, of_bin[:, None] * values, 0.0) for values in found]


# --- from rows ---


def _from_rows(fit, receivers, kind, block_size, reached):
    """The matrices of some receivers; ``reached`` is told the part of the bins."""
    bread = [np.zeros((fit.free[j].size + 1,) * 2) for j in receivers]
    meat = [np.zeros_like(matrix) for matrix in bread] if kind in ("robust", "blocks") else None
    scores = [{} for _ in receivers]
    for block, rows in fit.rows():
        _, residual, curvature = fit.derivatives(block, rows, receivers)
        if kind == "expected":
            curvature = fit.expected_curvature(block, rows, receivers)
        weights = fit.weights(block)
        curvature = weights * curvature
        gram = WeightedGram(np.column_stack([rows, np.ones(len(rows))]))

        def add(k, gram=gram, residual=residual, curvature=curvature, weights=weights, block=block):
            free = np.append(fit.free[receivers[k]], gram.rows.shape[1] - 1)
            gram.add(curvature[:, k], free, bread[k])
            if kind == "robust":
                gram.add(weights[:, 0] * residual[:, k] ** 2, free, meat[k])
            elif kind == "blocks":
                weighted = gram.rows[:, free] * (weights[:, 0] * residual[:, k])[:, None]
                _add_scores(weighted, block // block_size, scores[k])

        run_threads(add, range(receivers.size))
        reached((block[-1] + 1) / fit.kept.size)

    def matrices(k):
        own, bread[k] = mirror(bread[k]), None
        if kind == "robust":
            other, meat[k] = mirror(meat[k]), None
            return own, other
        return own, _of_scores(scores[k]) if kind == "blocks" else None

    return matrices


def _add_scores(weighted, number, scores):
    """Add rows to the sums of their blocks of time, which have ascending numbers."""
    edges = np.flatnonzero(np.diff(number, prepend=-1))
    sums = np.add.reduceat(weighted, edges)
    for at, part in zip(number[edges], sums, strict=True):
        scores[at] = scores.get(at, 0.0) + part


def _of_scores(scores):
    """Sum of the squares of the sums of blocks."""
    u = np.array(list(scores.values()))
    u = u[u.any(axis=1)]  # a block without a known count is none
    return u.T @ u * (len(u) / max(len(u) - 1, 1))


# --- what goes with it ---


def add_penalty(fit, j, out, factor=1.0):
    """Add the penalty's Hessian over the free features of receiver j, times its bins.

    ``out`` has the intercept last.
    """
    # The penalty is one of the mean loss, and the mean is over the bins of each receiver.
    fit.penalty.add_hessian(j, fit.free[j], out[:-1, :-1], factor * fit.total[j])


def squares(fit):
    """Weighted sum of the squares of every feature over the bins of the fit, (n_features,)."""
    small = row_work(fit.X, np.ones(1) * fit.X.shape[1]) < _SMALL
    if small or n_rows_of(fit.X) > MOST_ROWS:
        return sum((fit.weights(block) * rows**2).sum(axis=0) for block, rows in fit.rows())
    gram = EventGram(fit.X, 1, diagonal=True, lanes=lanes_of(fit.X.shape[1]))
    weight = np.where(fit.kept, 1.0 if fit.weight is None else fit.weight, 0.0)
    gram.add(0, weight[:, None])
    gram.finish()
    after = np.arange(1, gram.size)
    return gram.triangles[0, after * (after + 1) // 2 - 1, 0]
