"""Losses of constant curvature: the optimum from ``X'X`` and ``X'Y``, without a pass over the bins.

With the covariance ``S = X'WX / n - x x'`` of the features, ``s = X'W y / n - x m`` and the mean m
and variance v of the counts, the objective of a receiver with ``(y - eta)^2`` is

    f(c, b) = c' S c - 2 c' s + v + (b + x'c - m)^2 + penalty(c)

in which no large terms cancel. Receivers whose mask and penalty are the same share one Cholesky
factor. Weights, and every further pattern of missing counts, cost one ``X'WX``.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastglm._algebra.linear import (
    NEAR,
    centre,
    cho_solve,
    cholesky,
    has_slope,
    rounding_floor,
    split_space,
)
from fastglm._engine.protocols import Uncentred
from fastglm._kernels.dots import column_dot

_LEVEL = 10  # standard deviations from zero beyond which counts lose digits of ``X'Y``
_FAR = 1e-4  # standard deviation, as a part of the mean, of which ``X'X`` loses half of the digits


class _System(NamedTuple):
    """The normal equations of the receivers with one mask and penalty."""

    features: np.ndarray  # those in the fit
    factor: object
    null: np.ndarray | None  # collinear directions without a penalty
    rows: np.ndarray | None  # the directions beside them
    near: bool  # whether other directions are nearly collinear


@dataclass
class Normal:
    """The sums that the normal equations of all receivers have in common.

    Memory: ``8 * n_features**2`` bytes.
    """

    covariance: np.ndarray  # (n_features, n_features): S
    mean: np.ndarray  # (n_features,): x
    n_bins: int
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
    centre(covariance, mean)
    return Normal(covariance, mean, n_bins, sums)


class QuadraticProblem(Uncentred):
    """Objective, gradient and Newton step of receivers from their normal equations.

    Cost: ``p_j^3 / 3`` for every mask and penalty with p_j free features, and ``n_features**2`` a
    receiver. Memory: the factors of the masks at hand.
    """

    method = "normal-equations"
    exact, flat = True, False
    rough = False
    polish = 2
    n_passes = 0  # of an evaluation

    def __init__(self, normal, xty, mean_y, squares, free, penalty):
        n = penalty.n_receivers
        self.normal, self.free, self.mean_y = normal, free, mean_y
        self.slope = xty / normal.n_bins  # of centred counts
        self.variance = squares / normal.n_bins
        self.certain, self.rounding = np.ones(n, bool), np.full(n, 1e-13)
        variance = np.diag(normal.covariance)
        self.floor = rounding_floor(variance, normal.mean, self.variance)
        self.set_penalty(penalty)

    def set_penalty(self, penalty):
        """Another penalty for the same data."""
        self.penalty = penalty
        self.plain = (penalty.unpenalised(self.free.shape[0]) & self.free).any(axis=0)
        self._systems = {}

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
            found = self._factor(receivers[group[0]])
            right = g[np.ix_(found.features, group)]
            if found.rows is None:
                d = -cho_solve(found.factor, right)
            else:
                d = -found.rows @ cho_solve(found.factor, found.rows.T @ right)
            step[np.ix_(found.features, group)] = d
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
        """The `_System` of a receiver; receivers with the same mask and penalty share it."""
        key = self._key(j)
        if key not in self._systems:
            if len(self._systems) > 8:  # a mask of one receiver is not used again
                self._systems.clear()
            chosen = np.flatnonzero(self.free[:, j])
            hess = 2 * self.normal.covariance[np.ix_(chosen, chosen)]
            hess += self.penalty.hessian(j, chosen)
            factor, null, rows, near = cholesky(hess), None, None, False
            if self.plain[j] and (factor.jitter or factor.pivot < NEAR):
                null, rows, least = split_space(hess)
                near = least < NEAR
                if null.size:
                    factor = cholesky(rows.T @ hess @ rows)
                else:
                    null = rows = None
            self._systems[key] = _System(chosen, factor, null, rows, near)
        return self._systems[key]

    def least_norm(self, receivers, coef, intercept):
        """Take the directions out that change neither eta nor the penalty, in place."""
        for k, j in enumerate(receivers):
            found = self._factor(j)
            if found.null is not None:
                along = found.null @ (found.null.T @ coef[found.features, k])
                coef[found.features, k] -= along
                intercept[k] += self.normal.mean[found.features] @ along

    def unresolved(self, coef, intercept, cheap=False):
        """Receivers whose optimum ``X'X`` may not resolve, (n_receivers,).

        Columns are nearly collinear, or a direction that was taken for collinear has a slope, or
        counts are so far from zero that ``X'Y`` does not say. Where rows are ``cheap`` any such
        direction is theirs to judge.
        """
        normal, cheap = self.normal, np.broadcast_to(cheap, self.plain.shape)
        far = np.diag(normal.covariance) < (_FAR * normal.mean) ** 2
        out = self.free[far].any(axis=0)
        size = np.sqrt(np.diag(normal.covariance).clip(min=0) + normal.mean**2)
        unit = np.sqrt(self.variance + self.mean_y**2)
        for j in np.flatnonzero(self.plain):
            found = self._factor(j)
            out[j] |= found.near
            if found.null is not None:
                out[j] |= cheap[j]
                slope = self.slope[found.features, j]
                out[j] |= self.mean_y[j] ** 2 > _LEVEL**2 * self.variance[j]
                out[j] |= has_slope(found.null, size[found.features], slope, unit[j])
        return out

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
        """Twice the covariance of the features; see `Curvature`."""
        normal = self.normal
        return 2 * normal.covariance[np.ix_(features, features)], normal.mean[features], 2.0

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
