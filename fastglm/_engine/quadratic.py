"""Losses of constant curvature: the optimum from ``X'X`` and ``X'Y``, without a pass over the bins.

With the covariance ``S = X'WX / n - x x'`` of the features, ``s = X'W y / n - x m`` and the mean m
and variance v of the counts, the objective of a receiver with ``(y - eta)^2`` is

    f(c, b) = c' S c - 2 c' s + v + (b + x'c - m)^2 + penalty(c)

in which no large terms cancel. Receivers whose mask and penalty are the same share one Cholesky
factor. Weights, and every further pattern of missing counts, cost one ``X'WX``.
"""

from dataclasses import dataclass

import numpy as np

from fastglm._engine.linear import cho_solve, cholesky, split_space
from fastglm._kernels.dots import column_dot


@dataclass
class Normal:
    """The sums that the normal equations of all receivers have in common.

    Memory: ``12 * n_features**2`` bytes, and a third of that again while it is made.
    """

    covariance: np.ndarray  # (n_features, n_features): S
    mean: np.ndarray  # (n_features,): x
    n_bins: int
    bordered: np.ndarray  # float32: the Hessian of the mean loss, the intercept last
    sums: np.ndarray  # (n_features,): X'w

    @property
    def direct(self):
        """Whether systems are factorised."""
        return True


def normal_equations(products, weight=None):
    """The `Normal` of some products, with the weights of a fit."""
    sums, n_bins = products.column_sums(weight), products.n_bins
    covariance = products.gram(weight)
    covariance /= n_bins
    mean = sums / n_bins
    bordered = np.empty((mean.size + 1,) * 2, np.float32)
    bordered[:-1, :-1] = 2 * covariance
    bordered[-1, :-1] = bordered[:-1, -1] = 2 * mean
    bordered[-1, -1] = 2
    for k, value in enumerate(mean):
        covariance[k] -= value * mean
    return Normal(covariance, mean, n_bins, bordered, sums)


class QuadraticProblem:
    """Objective, gradient and Newton step of receivers from their normal equations.

    Cost: ``p_j^3 / 3`` for every mask and penalty with p_j free features, and ``n_features**2`` a
    receiver. Memory: the factors of the masks at hand.
    """

    method = "normal-equations"
    exact = True
    rough = False
    polish = 2
    n_passes = 0  # of an evaluation

    def __init__(self, normal, moments, squares, free, penalty):
        n = penalty.n_receivers
        self.normal, self.free = normal, free
        self.mean_y = moments.sum_y / normal.n_bins
        self.slope = moments.xty / normal.n_bins - np.outer(normal.mean, self.mean_y)
        self.variance = squares / normal.n_bins
        self.certain, self.rounding = np.ones(n, bool), np.full(n, 1e-13)
        self.set_penalty(penalty)

    def set_penalty(self, penalty):
        """Another penalty for the same data."""
        self.penalty = penalty
        self.plain = (penalty.unpenalised(self.free.shape[0]) & self.free).any(axis=0)
        self._factors = {}

    def evaluate(self, active, coef, intercept):
        """Objective and gradient at the given points; no pass over the bins."""
        self.active, normal = active, self.normal
        image = normal.covariance @ coef
        off = intercept + normal.mean @ coef - self.mean_y[active]
        free = self.free[:, active]
        penalised = np.where(free, coef, 0.0)
        pull = self.penalty.times(penalised, active)
        slope = self.slope[:, active]
        objective = column_dot(coef, image - 2 * slope) + self.variance[active] + off**2
        objective += 0.5 * column_dot(penalised, pull)
        grad = 2 * (image - slope + np.outer(normal.mean, off)) + pull
        return objective, np.where(free, grad, 0.0), 2 * off

    def step(self, moved, grad, grad_intercept, tol, polishing):
        """Newton steps at the accepted points, their decrements, and passes spent (none)."""
        receivers, mean = self.active[moved], self.normal.mean
        step = np.zeros_like(grad)
        g = grad - np.outer(mean, grad_intercept)
        for group in self._alike(receivers):
            chosen, rows, factor = self._factor(receivers[group[0]])
            right = g[np.ix_(chosen, group)]
            if rows is None:
                step[np.ix_(chosen, group)] = -cho_solve(factor, right)
            else:
                step[np.ix_(chosen, group)] = -rows @ cho_solve(factor, rows.T @ right)
        g = np.where(self.free[:, receivers], g, 0.0)
        decrement = -0.5 * column_dot(g, step) + 0.25 * grad_intercept**2
        return step, -0.5 * grad_intercept - mean @ step, decrement, 0

    def _key(self, j):
        ridge, matrix = self.penalty.hessian_parts(j, np.flatnonzero(self.free[:, j]))
        parts = self.free[:, j].tobytes(), np.ascontiguousarray(ridge).tobytes()
        return *parts, None if matrix is None else self.penalty.strength[j]

    def _alike(self, receivers):
        """Places of the receivers that have the same mask and penalty."""
        groups = {}
        for place, j in enumerate(receivers):
            groups.setdefault(self._key(j), []).append(place)
        return [np.array(group) for group in groups.values()]

    def _factor(self, j):
        """Free features, their row space if X is collinear without a penalty, and the factor."""
        key = self._key(j)
        if key not in self._factors:
            if len(self._factors) > 8:  # a mask of one receiver is not used again
                self._factors.clear()
            chosen = np.flatnonzero(self.free[:, j])
            hess = 2 * self.normal.covariance[np.ix_(chosen, chosen)]
            hess += self.penalty.hessian(j, chosen)
            rows = None
            if self.plain[j]:
                null, space = split_space(hess)
                rows = space if null.size else None
            if rows is not None:
                hess = rows.T @ hess @ rows
            self._factors[key] = chosen, rows, cholesky(hess)
        return self._factors[key]

    def harmless(self, active, grad, grad_intercept):
        """None: every step must lower the objective."""
        return np.zeros(active.size, bool)

    def largest_change(self, receivers, step, coef, intercept):
        """Zero: no coefficient runs to infinity."""
        return np.zeros(receivers.size)

    # --- for proximal steps ---

    def forget(self, receivers=slice(None)):
        """Begin a new fit of some receivers: nothing has to change."""

    def curvature(self, j, coef, intercept, features):
        """Hessian of the mean loss, and the places of some features in it.

        The Hessian is float32, with the intercept last.
        """
        return self.normal.bordered, np.append(features, self.normal.mean.size)

    def learn(self, receivers, step, step_intercept, change, change_intercept):
        """Nothing: the Hessian is exact."""

    def fill(self, active):
        """Receivers of the next evaluation: all."""
        return active

    def trust(self, j):
        """Lower bound of the true curvature, as a part of the model's."""
        return 1.0

    def announce(self, receivers, decrement):
        """Nothing: every evaluation is exact."""
