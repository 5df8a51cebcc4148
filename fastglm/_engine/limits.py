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
_SEEN = 1e-13  # a singular value of scaled rows, as a part of the largest, that is rounding
_VANISHED = 1e-4  # of the largest curvature: a bin below it may be on its way to infinity
_UNSEEN = 1e-13  # a part of a row that is no rounding
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
            decrement, *step = _newton(problem, j, bins, coef)
            left, moved = _send(problem, j, bins, *step)
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
    """Decrement and step of the penalty and of the bins that stay, the intercept last.

    Also the unit of each feature, and orthonormal directions that these bins and the penalty see.
    The step is that of least squares, from a QR factor of the weighted rows. Along some directions
    rows move eta by 1e-9 of what they do along others, which the Hessian, their square, does not
    hold.
    """
    penalty, free = problem.penalty, problem.features[j]
    root = _root(penalty.hessian(j, free))
    factor = np.column_stack([root, np.zeros(len(root)), root @ coef[free]])
    grad = np.append(root.T @ factor[:, -1], 0.0)
    for some in bins:
        stay, rows = ~some.away & (some.share * some.curvature > 0), problem.rows_of(j, some.block)
        weight = np.sqrt(some.share[stay] * some.curvature[stay])
        slope = some.share[stay] * some.residual[stay]
        weighted = np.column_stack([rows[stay] * weight[:, None], slope / weight])
        if not np.isfinite(weighted).all():
            return np.inf, np.zeros(free.size + 1), np.ones(free.size + 1), np.eye(free.size + 1)
        factor = np.linalg.qr(np.vstack([factor, weighted]), mode="r")
        grad += rows[stay].T @ slope
    size = np.sqrt((factor[:, :-1] ** 2).sum(axis=0))
    unit = np.where(size > 0, size, 1.0)
    left, values, right = np.linalg.svd(factor[:, :-1] / unit, full_matrices=False)
    seen = values > _SEEN * values.max(initial=1e-300)
    part, right, lost = (left.T @ factor[:, -1])[seen], right[seen], 0.0
    if penalty.sparse[j]:
        groups = penalty.group_of[free], penalty.weight[:, j]
        pull = least_subgradient(grad[:-1], coef[free], *groups) - grad[:-1]
        pull = np.append(pull / unit[:-1], 0.0)
        part += right @ pull / values[seen]
        # Where no bin is left a norm alone has a slope. It falls by no more than its slope says.
        alone = pull - right.T @ (right @ pull)
        lost = max(0.0, alone[:-1] @ (coef[free] * unit[:-1]))
    step = -(right.T @ (part / values[seen])) / unit
    return 0.5 * np.sum(part**2) + lost, step, unit, right


def _root(hess):
    """A matrix whose square is the Hessian of a penalty."""
    if np.array_equal(hess, np.diag(np.diag(hess))):
        return np.diag(np.sqrt(np.diag(hess)))
    values, vectors = scipy.linalg.eigh(hess)
    return np.sqrt(values.clip(min=0))[:, None] * vectors.T


def _send(problem, j, bins, step, unit, seen):
    """Send bins to infinity that a step moves; their losses, and whether there are new ones.

    Also bins that no direction moves which the others see: a small one that they do not see does.
    """
    left, moved, pace = 0.0, False, problem.loss.pace
    least = _VANISHED * max(some.curvature.max(initial=0) for some in bins)
    for some in bins:
        rows = problem.rows_of(j, some.block)
        change = np.abs(rows @ step)
        if pace is not None:
            change = change * pace(some.eta)
        new = ~some.away & ~(change <= _MOVED)
        faint = np.flatnonzero(~some.away & ~new & (some.curvature < least))
        if faint.size:
            scaled = rows[faint] / unit
            unseen = scaled - (scaled @ seen.T) @ seen
            size = np.abs(scaled).max(axis=1)
            new[faint] = np.abs(unseen).max(axis=1) > _UNSEEN * size
        some.away[new] = True
        moved |= bool(new.any())
        left += np.sum(some.share[some.away] * some.excess[some.away])
    return left, moved
