"""Objective and gradient of a batch of receivers at given points: one pass over all events."""

from typing import NamedTuple

import numpy as np

from fastglm._engine.observed import Observed
from fastglm._kernels.dots import column_dot


class Point(NamedTuple):
    """Objective and gradient at the points of n receivers, from one pass.

    ``mean = X'w / sum(w)`` and ``total = sum(w) / n_bins`` are the moments of the curvatures w. A
    pass knows them only where the loss is exponential, since its curvatures are its rates.
    """

    objective: np.ndarray  # (n,)
    grad: np.ndarray  # (n_features, n), 0 where a coefficient is not free
    grad_intercept: np.ndarray  # (n,)
    mean: np.ndarray | None
    total: np.ndarray | None


class Objective:
    """Mean loss plus the smooth part of the penalty, for every receiver.

    Parameters
    ----------
    products : Products
    passes : Passes
        X times these receivers' coefficients, and its transpose.
    observed : Observed
    loss : Loss
    moments : Moments
        ``X'Y``, ``X'1`` and the sums of Y, for losses in which counts are linear.
    free : ndarray of bool, shape (n_features, n_receivers)
    penalty : Penalty
    """

    def __init__(self, products, passes, observed, loss, moments, free, penalty):
        self.products, self.passes, self.observed = products, passes, observed
        self.loss, self.moments, self.free, self.penalty = loss, moments, free, penalty
        self.n_bins = products.n_bins
        # The part of the objective that no coefficient changes.
        self.constant, self.level = None, np.zeros(free.shape[1])
        if loss.constant_curvature:
            self._center()
        elif loss.linear_counts:
            self.constant = observed.constant(loss, products)

    def _center(self):
        """Subtract offsets and means from the counts: only differences enter ``(y - eta)^2``.

        A mean that is large beside the variance takes the digits of ``eta^2`` in float32.
        """
        sums = self.observed.without_offset(self.products, self.moments)
        xty, self.level, self.constant = sums
        self.moments = self.moments._replace(xty=xty, sum_y=np.zeros(self.level.size))
        self.observed = Observed(self.observed.events, self.observed.weight)

    def evaluate(self, receivers, coef, intercept, precise):
        """A `Point` of some receivers; sums of the ``precise`` receivers run in float64."""
        n, intercept = receivers.size, intercept - self.level[receivers]
        totals, grad = np.zeros((2, n)), np.zeros_like(coef)
        for some, exactly in ((np.flatnonzero(~precise), False), (np.flatnonzero(precise), True)):
            if some.size:
                loss, residual, part = self.passes.evaluate(
                    self.observed, self.loss, receivers[some], coef[:, some], intercept[some],
                    exactly,
                )  # fmt: skip
                totals[0, some], totals[1, some], grad[:, some] = loss, residual, part
        grad /= self.n_bins
        objective, grad_intercept = totals / self.n_bins
        mean = total = None
        if self.loss.exponential:
            total = objective  # cumulant and curvature are both the rate
            with np.errstate(divide="ignore", invalid="ignore"):
                mean = grad / total
        if self.loss.linear_counts:
            factor = self.loss.count_factor / self.n_bins
            xty, sum_y = self.moments.xty[:, receivers], self.moments.sum_y[receivers]
            grad -= factor * xty
            grad_intercept = grad_intercept - factor * sum_y
            linear = factor * (column_dot(coef, xty) + intercept * sum_y)
            objective = objective - linear + self.constant[receivers] / self.n_bins
        free = self.free[:, receivers]
        penalised = np.where(free, coef, 0.0)
        pull = self.penalty.times(penalised, receivers)
        objective = objective + 0.5 * column_dot(penalised, pull)
        return Point(objective, np.where(free, grad + pull, 0.0), grad_intercept, mean, total)

    def curvatures(self, receivers, coef, intercept):
        """The moments of the curvatures, as `Point.mean` and `Point.total`, from one pass."""
        n, loss = receivers.size, self.loss
        if loss.constant_curvature:
            mean = np.tile((self.moments.x / self.n_bins)[:, None], n)
            return mean, loss.expected_curvature(np.zeros(n))
        sums = self.passes.evaluate(
            self.observed, _Curvature(loss), receivers, coef, intercept, False
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            return sums.grad / sums.residual, sums.residual / self.n_bins


class _Curvature:
    """A loss whose residual is the curvature of another loss; it has no compiled kernel."""

    exponential = linear_counts = False
    kernel = None

    def __init__(self, loss):
        self._loss, self.scale = loss, loss.scale

    def at(self, scale):
        return _Curvature(self._loss.at(scale))

    def select(self, receivers):
        return _Curvature(self._loss.select(receivers))

    def derivatives(self, eta, y):
        return np.zeros_like(eta), self._loss.expected_curvature(eta)
