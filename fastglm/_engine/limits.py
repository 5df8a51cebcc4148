"""The gap of a receiver some of whose bins lie at infinity.

Along a direction in which no event lies the loss of some bins falls to its infimum, and their
curvature with it. The Newton decrement then no longer bounds the gap: where bins fall at different
rates, or one direction is much flatter than another, the step sees a part of them only. With A the
bins that the step still moves and R the others,

    f(c) - inf f <= sum_A share_t (loss_t - least loss_t) + (f_R(c) - inf f_R)

and the decrement bounds the second term once the step of R alone moves none of its bins.
"""

from typing import NamedTuple

import numpy as np
import scipy.linalg

from fastglm._algebra.sparse_model import least_subgradient
from fastglm._engine.proximal import norms
from fastglm._kernels.threads import run_threads

_MOVED = 0.5  # a bin whose loss changes by more than this part is on its way to infinity
_FLAT = 1e-14  # a curvature, as a part of the largest, that is rounding
_ROUNDS = 12


def gap_at_infinity(problem, receivers, coef, intercept):
    """Bounds of the gaps of some receivers of a `DenseProblem` at their points.

    Also returned is whether any bins are on their way to infinity.
    """
    out, any_away = np.zeros(receivers.size), np.zeros(receivers.size, bool)

    def one(k):
        out[k], any_away[k] = _gap(problem, receivers[k], coef[:, k], intercept[k])

    run_threads(one, range(receivers.size))
    return out, any_away


class _Bins(NamedTuple):
    """The bins of a block at a point."""

    block: int
    eta: np.ndarray
    share: np.ndarray  # weights, whose sum over all bins is 1
    excess: np.ndarray  # of the loss over its least value
    residual: np.ndarray
    curvature: np.ndarray
    away: np.ndarray  # whether they are sent to infinity


def _gap(problem, j, coef, intercept):
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        bins = [_Bins(k, *of) for k, of in enumerate(problem.losses(j, coef, intercept))]
        for _ in range(_ROUNDS):
            decrement, step = _newton(problem, j, bins, coef)
            left, moved = _send(problem, j, bins, step)
            if not moved:
                break
    excess = sum(some.share @ some.excess for some in bins) + _penalty(problem.penalty, j, coef)
    return min(left + decrement, excess), any(some.away.any() for some in bins)


def _penalty(penalty, j, coef):
    """The penalty of a receiver, with which no gap can be larger than that and the losses."""
    point, some = coef[:, None], np.array([j])
    value = 0.5 * (coef @ penalty.times(point, some)[:, 0])
    return value + norms(penalty, point, some)[0] if penalty.sparse[j] else value


def _newton(problem, j, bins, coef):
    """Decrement and step of the penalty and of the bins that stay, the intercept last."""
    penalty, free = problem.penalty, problem.features[j]
    n, pull = free.size + 1, penalty.hessian(j, free)
    hess, grad = np.zeros((n, n)), np.append(pull @ coef[free], 0.0)
    hess[:-1, :-1] = pull
    for some in bins:
        stay, rows = ~some.away, problem.rows(some.block, j)
        weighted = rows[stay] * np.sqrt(some.share[stay] * some.curvature[stay])[:, None]
        hess += weighted.T @ weighted
        grad += rows[stay].T @ (some.share[stay] * some.residual[stay])
    if penalty.sparse[j]:
        groups = penalty.group_of[free], penalty.weight[:, j]
        grad[:-1] = least_subgradient(grad[:-1], coef[free], *groups)
    unit = np.sqrt(np.diag(hess))
    unit = np.where(unit > 0, unit, 1.0)
    if not np.isfinite(hess).all():
        return np.inf, np.zeros(n)
    values, vectors = scipy.linalg.eigh(hess / unit / unit[:, None])
    part = vectors.T @ (grad / unit)
    values = np.maximum(values, _FLAT * max(values[-1], 1e-300))
    return 0.5 * np.sum(part**2 / values), -(vectors @ (part / values)) / unit


def _send(problem, j, bins, step):
    """Send bins to infinity that a step moves; their losses, and whether there are new ones."""
    left, moved, pace = 0.0, False, problem.loss.pace
    for some in bins:
        change = np.abs(problem.rows(some.block, j) @ step)
        if pace is not None:
            change = change * pace(some.eta)
        new = ~some.away & ~(change <= _MOVED)
        some.away[new] = True
        moved |= bool(new.any())
        left += np.sum(some.share[some.away] * some.excess[some.away])
    return left, moved
