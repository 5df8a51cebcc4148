"""Sums of receivers with the same features, one array for all: Newton steps with few calls."""

import numpy as np

from fastglm._algebra.linear import factorise, solve_each
from fastglm._algebra.space import Space

_NUMBERS = 1 << 18  # that are worked on at a time: a core's L2 and part of L3 hold them


class Stack:
    """Hessians and gradients of receivers with the same free features in the same coordinates.

    Products are those of `numpy.matmul` over the receivers, which calls BLAS for each of them: the
    bits of a receiver do not depend on the others. With p features, or coordinates of a `Space`,

    Attributes
    ----------
    receivers : ndarray of int, shape (n,)
        Numbers within the batch, ascending.
    features : ndarray of int
    bordered : ndarray of int or slice
        The columns of the features and of the intercept, which is the last one.
    space : Space or None
    pull : ndarray of shape (n_features, n_features) or None
        Hessian of the penalty over the features, beside a space.
    load : ndarray of shape (n, p + 1)
        Summed size of the terms of the gradient, the intercept last.
    slope : ndarray of shape (n, p)
        Gradient of the summed loss in the coordinates of a space.
    hess, expected : ndarrays of shape (n, p + 1, p + 1)
        Hessian of the summed loss, the intercept last; that of the expected curvature if the loss
        is not convex.
    fresh : ndarray of bool, shape (n,)
        Whether the last pass has made a Hessian that nobody has read.
    known : ndarray of bool, shape (n,)
        Whether the Schur complement has a factor: ``lower``, ``unit`` and ``jitter`` as in
        `Factor`, with its ``pivot``. The last of ``unit`` is that of the intercept.
    mean, total : ndarrays of shape (n, p), (n,)
        Row of the intercept in the mean Hessian over its diagonal entry, and this entry.
    """

    def __init__(
        self,
        receivers: np.ndarray,
        features: np.ndarray,
        n_features: int,
        convex: bool,
        space: Space | None = None,
        pull: np.ndarray | None = None,
    ):
        self.receivers, self.features, self.space, self.pull = receivers, features, space, pull
        self.whole = features.size == n_features
        self.bordered = slice(None) if self.whole else np.append(features, n_features)
        n, p = receivers.size, features.size if space is None else space.basis.shape[1]
        self.load, self.slope, self.left = np.zeros((n, p + 1)), np.zeros((n, p)), np.zeros(n)
        self.hess = np.empty((n, p + 1, p + 1))
        self.expected = None if convex else np.empty_like(self.hess)
        self.fresh, self.known = np.zeros((2, n), bool)
        self.lower, self.unit, self.mean = [None] * n, np.ones((n, p + 1)), np.zeros((n, p))
        self.total, self.jitter, self.pivot = np.zeros((3, n))

    def begin(self, places: np.ndarray | slice) -> None:
        """Begin the sums of some receivers, other than Hessians."""
        self.load[places] = 0.0
        if self.space is not None:
            self.slope[places] = self.left[places] = 0.0

    def take(
        self, places: np.ndarray, mean: np.ndarray, total: np.ndarray, schur: np.ndarray
    ) -> None:
        """Take mean Hessians of some receivers: mean, total and Schur complements."""
        run = run_of(places)
        lower, unit, self.jitter[run] = factorise(schur)
        self.mean[run], self.total[run], self.known[run] = mean, total, True
        self.unit[run, :-1], self.unit[run, -1] = unit, np.sqrt(total)
        for place, factor in zip(places.tolist(), lower, strict=True):
            self.lower[place] = factor
        diagonal = np.array([factor.diagonal() for factor in lower])  # as of `Factor`
        self.pivot[run] = (diagonal**2).min(axis=1, initial=1.0)

    def newton(
        self, places: np.ndarray, grad: np.ndarray, grad_intercept: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Newton's steps of some receivers in their coordinates, and their decrements.

        ``grad`` has shape (k, p). Steps of the intercepts are those beside centred coordinates.
        """
        run = run_of(places)
        mean, unit, total = self.mean[run], self.unit[run, :-1], self.total[run]
        g = grad - mean * grad_intercept[:, None]
        d = -solve_each([self.lower[k] for k in places.tolist()], unit, g)
        decrement = -0.5 * dots(g, d)
        jitter = self.jitter[run]
        if jitter.any():  # it leaves a part of the gradient, which the step does not remove
            left = jitter[:, None] * unit * d
            decrement += 0.5 * dots(left, left)
        decrement += 0.5 * grad_intercept**2 / total
        return d, -grad_intercept / total - dots(mean, d), decrement


def pieces(n: int, size: int) -> list[slice]:
    """Ranges of n receivers whose arrays of ``size`` numbers each fit into a core's cache."""
    most = max(_NUMBERS // max(size, 1), 1)
    return [slice(first, first + most) for first in range(0, n, most)]


def run_of(index: np.ndarray) -> slice | np.ndarray:
    """The slice of some ascending numbers without a gap, or the numbers: a slice copies nothing."""
    n = index.size
    if n == 0:
        return slice(0)
    first, last = index.item(0), index.item(-1)
    return slice(first, last + 1) if last - first == n - 1 else index


def dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Products of the rows of two arrays; ``a * b`` would be added up in another order."""
    return np.matmul(a[:, None], b[..., None])[:, 0, 0]


def multiply_each(matrix: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """``matrix @ row`` for each of some rows, bit by bit: ``rows @ matrix.T`` depends on all."""
    return np.matmul(matrix, np.ascontiguousarray(rows)[..., None])[..., 0]


def weighted_grams(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """``rows' diag(w) rows`` for each row w of some weights, shape (k, n_rows)."""
    bent = weights.min(initial=0.0) < 0  # of a loss that is not convex
    root = np.sqrt(np.maximum(weights, 0.0) if bent else weights)
    # In the order of the rows, which is Fortran's for a choice of columns.
    if rows.flags.f_contiguous:
        weighted = rows.T * root[:, None]
        out = np.matmul(weighted, weighted.swapaxes(1, 2))
    else:
        weighted = rows * root[..., None]
        out = np.matmul(weighted.swapaxes(1, 2), weighted)
    for k in (weights.min(axis=1) < 0).nonzero()[0] if bent else ():
        out[k] = rows.T @ (rows * weights[k, :, None])
    return out
