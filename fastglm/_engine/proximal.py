"""Proximal Newton for penalties with exact zeros: lasso, elastic net, group lasso.

Every receiver minimises ``f(b, c) + sum_g weight_g |c_g|`` with the smooth objective f of `newton`.
A step minimises the quadratic model of f plus the penalty itself over a working set. The working
set holds the features that are not zero, and the features whose gradient breaks the optimality
condition at this point.

A pass gives the whole gradient, so every step checks the features outside the working set. A
receiver that converges is therefore optimal over all its features. The set comes from the present
gradient, not from a guess at the last strength (Tibshirani et al., 2012).

The model's curvature is exact (rows of X), or comes from sampled bins (`SampleProblem`) and is
corrected by the changes of the gradient over the last steps (BFGS).

Source: Lee, Sun & Saunders, "Proximal Newton-type methods for minimizing composite functions"
(2014), with the working sets of Massias, Gramfort & Salmon (celer, 2018).
"""

from copy import deepcopy
from functools import partial

import numpy as np

from fastglm import _kernels as kernels
from fastglm._algebra.linear import CONSTANT
from fastglm._algebra.sparse_model import ONE, Model
from fastglm._engine.newton import FALL, LEFT, falls_without_end, hardly_falls, within
from fastglm._engine.result import is_one_of
from fastglm._kernels.dots import column_dot
from fastglm._kernels.threads import run_threads

_ARMIJO = 1e-4
_INNER = 1e-2  # the inner solution leaves at most this part of the violation
_VISIBLE = 1e-13  # a smaller leftover of the inner solution hides in the rounding of the objective
_SUDDEN = 1e-2  # a claim that has fallen by more may have missed a flat direction
_NEAR = 1e-5  # a smaller pivot of a float32 factor may be rounding
_FEW = 500  # most features of a model that is solved in float64 where float32 fails
_MARGIN = 0.2  # a group may enter the step if its gradient exceeds (1 - this) times its weight


# A trial point whose objective overflows to inf or NaN is rejected.
@np.errstate(over="ignore", invalid="ignore")
def minimize(problem, penalties, results, tol, maxiter, watch=None):
    """Proximal Newton for every receiver of a problem, with one penalty after the other.

    A receiver goes on to its next penalty as soon as it is done with one, independently of the
    others. A pass takes receivers that fill its tiles, and begins with those at the earliest
    penalties: no receiver waits for the slowest one, and few lanes are idle.

    Parameters
    ----------
    problem : DenseProblem or EventProblem
        Gives objective and gradient of the smooth part, and its curvature over a few features. Its
        penalty is a copy of the first one; it is overwritten by each receiver's present penalty.
    penalties : list of Penalty
        They have the same groups and quadratic matrix.
    results : list of Result
        One a penalty, filled in place. Coefficients and intercepts of the first are the starting
        point.
    tol, maxiter : float, int
        Tolerance and most steps of every fit.
    watch : callable, optional
        Called with the result so far after every pass.
    """
    now, n = deepcopy(results[0]), results[0].intercept.size
    fit = _Fit(problem, now, tol, maxiter)
    stage, active = np.zeros(n, np.int64), np.arange(n)

    def finish(index):
        """Store results that are done, and go on to the next penalty."""
        while True:
            index = index[now.status[index] != ""]
            if not index.size:
                return
            for k in np.unique(stage[index]):
                results[k].copy_from(now, index[stage[index] == k])
            index = index[stage[index] < len(penalties) - 1]
            stage[index] += 1
            for k in np.unique(stage[index]):
                fit.renew(index[stage[index] == k], penalties[k])
            fit.resume(index)

    fit.begin(active)
    try:
        while active.size:
            fit.advance(np.sort(problem.fill(active[np.argsort(stage[active], kind="stable")])))
            finish(active)
            active = active[now.status[active] == ""]
            if watch is not None:
                watch(now)
        for result, penalty in zip(results, penalties, strict=True):
            _settle(problem, penalty, result)
            result.newton_decrement = np.maximum(result.newton_decrement, problem.floor)
    except KeyboardInterrupt:
        now.status[active] = "interrupted"
        for k, result in enumerate(results):
            result.copy_from(now, active[stage[active] <= k])


def _settle(problem, penalty, result):
    """Sum the last points in float64 where a search has ended without a certificate."""
    rest = np.flatnonzero(is_one_of(result.status, "max_iter", "stalled"))
    if not rest.size or problem.certain[rest].all():
        return
    problem.penalty.put(rest, penalty)
    problem.expect(rest, np.zeros(rest.size))
    coef = result.coef[:, rest]
    smooth = problem.evaluate(rest, coef, result.intercept[rest])[0]
    result.n_passes[rest] += problem.n_passes
    objective = smooth + norms(penalty, coef, rest)
    known = np.isfinite(objective)
    result.objective[rest[known]] = objective[known]


class _Fit:
    """The points of the receivers, their steps, and the smooth part at the points."""

    def __init__(self, problem, result, tol, maxiter):
        self.problem, self.penalty, self.result = problem, problem.penalty, result
        self.tol, self.maxiter = tol, maxiter
        shape = result.coef.shape
        self.step, self.step_intercept = np.zeros(shape), np.zeros(shape[1])
        self.length, self.promised = np.zeros((2, shape[1]))
        self.by_group = np.argsort(self.penalty.group_of, kind="stable")
        self.smooth = np.full(shape[1], np.inf)
        # The features of an earlier Newton system of each receiver, and its factor.
        nothing = [np.zeros(0, np.int64), np.zeros((0, 0), np.float32)]
        self.held = [nothing] * shape[1]
        self.grad, self.grad_intercept = np.zeros(shape), np.zeros(shape[1])
        self.falling, self.fell = np.zeros((2, shape[1]), np.int64)

    def begin(self, index):
        """Begin a fit of some receivers."""
        result = self.result
        result.objective[index] = np.inf
        result.n_iter[index] = result.n_passes[index] = 0
        result.status[index] = ""
        result.method[index] = self.problem.method
        result.newton_decrement[index] = np.nan
        self.step[:, index] = self.step_intercept[index] = 0
        self.problem.forget(index)

    def renew(self, index, penalty):
        """Give some receivers another penalty."""
        problem, result = self.problem, self.result
        coef = np.where(problem.free[:, index], result.coef[:, index], 0.0)
        before = self.penalty.times(coef, index)
        self.penalty.put(index, penalty)
        change = self.penalty.times(coef, index) - before
        self.smooth[index] += 0.5 * column_dot(coef, change)
        self.grad[:, index] += np.where(problem.free[:, index], change, 0.0)

    def resume(self, index):
        """Begin a fit of some receivers at their points: no pass is needed."""
        self.begin(index)
        result, known = self.result, index[np.isfinite(self.smooth[index])]
        if known.size:
            result.objective[known] = self.smooth[known] + norms(
                self.penalty, result.coef[:, known], known
            )
            self._next(known)

    def advance(self, active):
        """One pass: judge the trial points, and find the next ones from those accepted."""
        problem, result, step, length = self.problem, self.result, self.step, self.length
        # 1. Objective and gradient at the trial points: one pass for all active receivers.
        trial = result.coef[:, active] + length[active] * step[:, active]
        trial_intercept = result.intercept[active] + length[active] * self.step_intercept[active]
        smooth, grad, grad_intercept = problem.evaluate(active, trial, trial_intercept)
        result.n_passes[active] += problem.n_passes
        with np.errstate(invalid="ignore"):
            objective = smooth + norms(self.penalty, trial, active)

        # 2. Line search on the penalised objective.
        before = result.objective[active]
        first = np.isinf(before)
        with np.errstate(invalid="ignore"):
            slack = problem.rounding[active] * (1 + np.abs(before))
            bound = before + _ARMIJO * length[active] * self.promised[active] + slack
            accepted = (first | (objective <= bound)) & np.isfinite(objective)
        length[active[~accepted]] *= 0.3
        result.status[active[~accepted & first]] = "overflow"
        result.status[active[~accepted & (length[active] < 1e-8)]] = "stalled"

        # 3. Accepted points: the change of the gradient, the next step and its certificate.
        moved = np.flatnonzero(accepted)
        index = active[moved]
        later = np.flatnonzero(~first[moved])
        if later.size:
            some = index[later]
            problem.learn(
                some,
                trial[:, moved[later]] - result.coef[:, some],
                trial_intercept[moved[later]] - result.intercept[some],
                grad[:, moved[later]] - self.grad[:, some],
                grad_intercept[moved[later]] - self.grad_intercept[some],
            )
        self.grad[:, index], self.grad_intercept[index] = grad[:, moved], grad_intercept[moved]
        self.smooth[index] = smooth[moved]
        result.coef[:, index], result.intercept[index] = trial[:, moved], trial_intercept[moved]
        result.objective[index] = objective[moved]
        result.n_iter[index] += ~first[moved]
        if moved.size:
            self._next(index)

    def _next(self, index):
        """Find steps, the decrease that the models predict, and receivers that are done."""
        problem, result = self.problem, self.result
        was = result.newton_decrement[index].copy()
        run_threads(self._find_step, list(index))
        decrement = result.newton_decrement[index]
        falls = problem.exact & problem.plain[index] & falls_without_end(decrement, was)
        self.falling[index] = np.where(falls, self.falling[index] + 1, 0)
        self.fell[index] += falls
        left = problem.exact & hardly_falls(
            decrement, was, self.length[index], problem.floor[index]
        )
        self.length[index] = np.where(self.falling[index] >= 2, FALL, 1.0)
        problem.announce(index, decrement)
        claim = np.where(left, LEFT * decrement, decrement)
        done = within(claim, self.tol, problem.floor[index], result.objective[index])
        done &= problem.certain[index]
        result.newton_decrement[index[done]] = claim[done]
        # Bins may be on their way to infinity: what they leave has yet to be claimed.
        ended = np.where(self.fell[index[done]] >= 2, "separated", "converged")
        result.status[index[done]] = ended
        result.status[index[~np.isfinite(decrement)]] = "stalled"
        result.status[index[(result.n_iter[index] >= self.maxiter) & ~done]] = "max_iter"

    def _find_step(self, j, renewed=False):
        """The step of a receiver, and the decrease that its model predicts.

        A claim that ends the fit is made with a model of this point: it is ``renewed``.
        """
        problem, penalty, result = self.problem, self.penalty, self.result
        coef, grad, free, weights = (
            np.ascontiguousarray(values[:, j])
            for values in (result.coef, self.grad, problem.free, penalty.weight)
        )
        breach, largest, features, starts, weight = kernels.screen_groups(
            coef, grad, free, penalty.group_of, self.by_group, weights, _MARGIN
        )
        g_b = self.grad_intercept[j]
        result.grad_norm[j] = max(largest, abs(g_b))
        schur, mean, total = problem.curvature(j, coef, result.intercept[j], features)
        ridge, matrix = penalty.hessian_parts(j, features)
        # A feature that is constant has the gradient and curvature of rounding.
        squares = total * (mean - problem.shift[features]) ** 2
        g, c, diagonal = grad[features] - mean * g_b, coef[features], np.einsum("ii->i", schur)
        constant = np.abs(diagonal) <= CONSTANT * squares
        if constant.any():
            schur[constant] = schur[:, constant] = g[constant] = 0
            schur[constant, constant] = total
        diagonal += ridge
        if matrix is not None:
            schur += matrix
        if not np.isfinite(diagonal).all():  # out of the range of float32
            self._take_no_step(j)
            return
        model, unit = Model(schur, g, c, starts, weight).scaled()
        trust = problem.trust(j)
        # The slope of the intercept is in that of a column far from zero.
        if problem.shift.any() or unit is not ONE:
            breach = model.breach(model.g, model.c)
        goal = _INNER * max(breach, 1e-14)
        # A claim that ends the fit, or that is suddenly small, is examined.
        small = np.fmax(self.tol * trust, _SUDDEN * result.newton_decrement[j] * trust)
        for solve in (self._solve, self._solve_exactly):
            z, slope, left = solve(j, model, features, goal)
            if not np.isfinite(left):
                self._take_no_step(j)
                return
            gain = model.gain(z, slope) + 0.5 * g_b**2 / total
            # The inner solution leaves a part of the gradient. A gain below 0 is rounding.
            claim = max(gain, 0.0) + left
            # Where a model in float32 may not do, exact Hessians take over.
            if claim > small or not (problem.exact and self._may_be_more(j, left)):
                break
            excess = max(result.objective[j] - problem.lowest(j), 0.0)
            seen = partial(problem.sees, features[~constant])
            rounding = squares / unit**2, problem.noise(j, features) / unit
            gap = model.gap(z, slope, model.reach(excess, ridge / unit**2), rounding, seen)
            claim = min(claim + gap, excess)
            if claim <= small or not self._may_solve(features):
                break
        at = j, coef, result.intercept[j], features
        if claim <= self.tol * trust and not renewed and problem.outdated(*at):
            self._find_step(j, renewed=True)
            return
        d = z / unit - c
        self.step[:, j] = 0
        self.step[features, j] = d
        self.step_intercept[j] = -g_b / total - mean @ d
        self.promised[j] = -gain
        result.newton_decrement[j] = claim / trust

    def _take_no_step(self, j):
        """Where a model has no minimum. The search has stalled, and exact Hessians take over."""
        self.step[:, j] = self.step_intercept[j] = self.promised[j] = 0
        self.result.newton_decrement[j] = np.nan

    def _solve(self, j, model, features, goal):
        """The minimum of a model, the slope of its quadratic there, and what that leaves."""
        schur, g, c, starts, weight = model
        z, slope, *self.held[j] = kernels.solve_groups(
            schur, g, c, starts, weight, goal, features, *self.held[j]
        )
        convex = np.isfinite(z).all()
        # The goal is missed where no system in float32 has a factor.
        if self._may_solve(features) and not (convex and model.breach(slope, z) <= 2 * goal):
            return self._solve_exactly(j, model, features, goal)
        if not convex:
            return z, slope, np.nan
        curved = np.diag(schur).astype(np.float64).clip(min=1e-300)
        return z, slope, 0.5 * kernels.group_leftover(slope, z, starts, weight, curved)

    def _may_solve(self, features):
        return self.problem.exact and features.size <= _FEW

    def _solve_exactly(self, j, model, features, goal):
        """The same in float64."""
        visible = _VISIBLE * (1 + abs(self.result.objective[j]))
        z, slope = model.minimum(1e-3 * max(self.tol, visible))
        curved = np.diag(model.schur).astype(np.float64).clip(min=1e-300)
        return z, slope, 0.5 * kernels.group_leftover(slope, z, model.starts, model.weight, curved)

    def _may_be_more(self, j, left):
        """Whether what an inner solution leaves may be more than the diagonal says.

        The factor of the last system tells how nearly collinear the features are.
        """
        lower = self.held[j][1]
        squares = (lower * lower).sum(axis=1)
        pivot = (np.diag(lower) ** 2 / squares).min() if squares.size else 0.0
        room = _VISIBLE * (1 + abs(self.result.objective[j]))
        return left > 0 and not (pivot > _NEAR and left <= pivot * room)


def norms(penalty, coef, receivers):
    """``sum_g weight_g |c_g|`` of some receivers."""
    size = np.zeros((penalty.weight.shape[0], coef.shape[1]))
    with np.errstate(over="ignore"):  # a trial point may be far off
        np.add.at(size, penalty.group_of, coef**2)
    return column_dot(penalty.weight[:, receivers], np.sqrt(size))
