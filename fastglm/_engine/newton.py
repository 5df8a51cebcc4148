"""The search: the receivers of a problem from a start to their optima.

Every receiver j minimises on its own, over the coefficients that its mask leaves free,

    f(b, c) = mean_t( loss(b + x_t.c, y_tj) ) + penalty_j(c)

by Newton's method with its own step length and stopping rule. The intercept is eliminated: with
``h = X'w / n`` and ``s = sum(w) / n`` for the curvatures w, the Newton step d of c solves
``S d = -(g - h g_b / s)`` with the Schur complement ``S = X'diag(w)X / n - h h' / s + penalty''``,
where g and g_b are the gradients in c and b. The Newton decrement is half the product of minus the
gradient and the step; it is the gap in the objective that the quadratic model predicts.

Three problems compute the step, and share the loop:

- `DenseProblem` ("newton-cholesky") forms S from rows of X in blocks and factorises it.
- `EventProblem` ("newton-cg") takes quasi-Newton steps. Every pass over the events gives a gradient
  at a new point, which is preconditioned with S estimated on a sample of bins (see `events`). Sums
  run in float32 far from the optimum and in float64 near it, so rounding costs steps, not accuracy.
- `QuadraticProblem` ("normal-equations") solves losses of constant curvature from ``X'X``.

A receiver's result does not depend on the others: sums run in an order that the batch does not
change.
"""

from collections.abc import Callable

import numpy as np

from fastglm._engine.result import Result, is_one_of
from fastglm._engine.stack import run_of
from fastglm._kernels.dots import column_dot

_ARMIJO = 1e-4
_FLAT = 1e-10  # a step with a smaller decrement should not move any eta by much
_HIDDEN = 1e-10  # most that rounding may hide, as a part of the objective
_LOW, _RISE = 1e-6, 1e3  # a decrement below the first does not rise by the second
# What is left of a loss that falls by a factor of e with a step is twice the decrement, and more
# where bins fall at different rates.
LEFT = 4.0
_HARDLY = 0.1  # a part of the last decrement
FALL = 8.0  # length of a step along a direction in which the objective falls without end


# A trial point whose objective overflows to inf or NaN is rejected.
@np.errstate(over="ignore", invalid="ignore")
def minimize(
    problem,
    coef: np.ndarray,
    intercept: np.ndarray,
    tol: float | np.ndarray,
    maxiter: int | np.ndarray,
    watch: Callable | None = None,
    retreat: tuple | None = None,
) -> Result:
    """Newton's method for every receiver of a problem: passes are shared, steps are independent.

    Parameters
    ----------
    problem : Problem
        See `protocols.Problem`.
    coef, intercept : ndarrays of shape (n_features, n_receivers), (n_receivers,)
        The starting point; masked or fixed coefficients keep their values.
    tol : float or ndarray of shape (n_receivers,)
        Decrement at which a receiver has converged.
    maxiter : int or ndarray of shape (n_receivers,)
        Most steps.
    watch : callable, optional
        Called with the result so far after every pass.
    retreat : tuple (coef, intercept, objective), optional
        Another starting point. Receivers whose start is above its objective start there instead.

    Returns
    -------
    Result
        An interrupt from the keyboard ends the search. Receivers that are not finished have the
        status "interrupted" and their last points.
    """
    search = Search(problem, coef, intercept, tol, maxiter)
    try:
        if retreat is not None:
            search.begin(*retreat)
        while search.active.size:
            search.advance()
            if watch is not None:
                watch(search.result)
        search.settle()
    except KeyboardInterrupt:
        status = search.result.status
        status[status == ""] = "interrupted"
    return search.result


class Search:
    """The points of the receivers of a problem, and their next steps."""

    def __init__(
        self,
        problem,
        coef: np.ndarray,
        intercept: np.ndarray,
        tol: float | np.ndarray,
        maxiter: int | np.ndarray,
    ):
        n = intercept.size
        self.problem = problem
        self.tol, self.maxiter = np.full(n, tol), np.full(n, maxiter)
        self.result = result = Result.empty(coef.shape[0], n)
        result.coef[:], result.intercept[:] = coef, intercept
        result.objective[:] = np.inf
        result.method[:] = problem.method
        self.step, self.step_intercept = np.zeros_like(coef), np.zeros(n)
        self.last_step, self.last_decrement = np.zeros_like(coef), np.full(n, np.inf)
        self.length, self.slope = np.zeros(n), np.zeros(n)
        self.polishing, self.falling, self.fell = np.zeros((3, n), np.int64)
        self.slow = np.zeros(n, bool)
        self.active = np.arange(n)
        self._evaluated = None  # sums of a pass that are not used yet

    def begin(self, coef: np.ndarray, intercept: np.ndarray, objective: np.ndarray) -> None:
        """Move receivers whose start is above another point's objective to that point."""
        found = self._evaluate()
        back = self.active[~(found[0] <= objective + 1e-6)]
        self.result.coef[:, back], self.result.intercept[back] = coef[:, back], intercept[back]
        if not back.size:
            self._evaluated = found

    def advance(self) -> None:
        """One pass: judge the trial points, and find the next steps from accepted points."""
        active = self.active
        objective, grad, grad_intercept = self._evaluated or self._evaluate()
        self._evaluated = None
        accepted, first = self._judge(objective, grad, grad_intercept)
        moved, index = accepted.nonzero()[0], active
        if moved.size < active.size:
            index, grad, grad_intercept = active[moved], grad[:, moved], grad_intercept[moved]
        self._accept(moved, first, objective, grad, grad_intercept)
        if index.size:
            decrement, was = self._step(moved, grad, grad_intercept)
            self._stop(index, decrement, was)
            self._separate(index, decrement, was)
        ended = self.result.status[run_of(active)] != ""
        if ended.any():
            self.active = active[~ended]

    def settle(self) -> None:
        """Claims of at least the rounding, and sums in float64 where a search has not converged."""
        problem, result = self.problem, self.result
        ended = is_one_of(result.status, "max_iter", "stalled")
        rest = np.flatnonzero(ended & ~problem.certain)
        if rest.size:
            self._sum_again(rest)
        claimed = ended | is_one_of(result.status, "converged", "separated")
        claim = np.maximum(result.newton_decrement, problem.floor)
        result.newton_decrement = np.where(claimed, claim, result.newton_decrement)

    def _sum_again(self, rest: np.ndarray) -> None:
        """Objective, gradient and decrement of some receivers at their last points."""
        problem, result = self.problem, self.result
        problem.expect(rest, np.zeros(rest.size))
        objective, grad, grad_intercept = problem.evaluate(
            rest, result.coef[:, rest], result.intercept[rest]
        )
        result.n_passes[rest] += problem.n_passes
        known = np.flatnonzero(np.isfinite(objective))
        result.newton_decrement[rest] = np.inf  # nothing is claimed where the sums overflow
        if not known.size:
            return
        some, grad, grad_intercept = rest[known], grad[:, known], grad_intercept[known]
        result.objective[some] = objective[known]
        result.grad_norm[some] = _largest(grad, grad_intercept)
        _, _, decrement, passes = problem.step(
            known, grad, grad_intercept, self.tol[some], np.zeros(some.size, bool)
        )
        result.newton_decrement[some] = decrement
        result.n_passes[some] += passes

    def _evaluate(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Objective and gradient at the trial points: one pass for all active receivers."""
        active, result, run = self.active, self.result, run_of(self.active)
        length = self.length[run]
        coef = result.coef[:, run] + length * self.step[:, run]
        intercept = result.intercept[run] + length * self.step_intercept[run]
        self.trial = coef, intercept
        found = self.problem.evaluate(active, coef, intercept)
        result.n_passes[run] += self.problem.n_passes
        return found

    def _judge(
        self, objective: np.ndarray, grad: np.ndarray, grad_intercept: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Line search: accept a point if the objective fell by a part of the slope (Armijo).

        Returns, for each active receiver, whether the point is accepted, and whether it is the
        receiver's first point.
        """
        active, problem, run = self.active, self.problem, run_of(self.active)
        before = self.result.objective[run].copy()
        first = np.isinf(before)
        promised = _ARMIJO * self.length[run] * self.slope[run]
        slack = problem.rounding[run] * (1 + np.abs(before))
        accepted = first | (objective <= before + promised + slack)
        accepted |= problem.harmless(active, grad, grad_intercept)
        accepted &= np.isfinite(objective)
        if not accepted.all():
            self._reject(np.flatnonzero(~accepted), first, before, objective)
        return accepted, first

    def _reject(
        self, rejected: np.ndarray, first: np.ndarray, before: np.ndarray, objective: np.ndarray
    ) -> None:
        """Shorten rejected steps; receivers that have none left end."""
        index, status = self.active[rejected], self.result.status
        _shorten(self.length, self.slope, index, before[rejected], objective[rejected])
        status[index[self.length[index] < 1e-10]] = "stalled"
        status[index[first[rejected]]] = "overflow"
        ended = index[self.polishing[index] > 0]
        if ended.size:
            status[ended] = "converged"
            self._claim_left(ended)

    def _accept(
        self,
        moved: np.ndarray,
        first: np.ndarray,
        objective: np.ndarray,
        grad: np.ndarray,
        grad_intercept: np.ndarray,
    ) -> None:
        """Store the accepted points."""
        result, run, moved = self.result, run_of(self.active[moved]), run_of(moved)
        coef, intercept = self.trial
        result.coef[:, run], result.intercept[run] = coef[:, moved], intercept[moved]
        result.objective[run] = objective[moved]
        result.n_iter[run] += ~first[moved]
        result.grad_norm[run] = _largest(grad, grad_intercept)

    def _step(
        self, moved: np.ndarray, grad: np.ndarray, grad_intercept: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the next steps from the accepted points; returns new and previous decrements."""
        result, index = self.result, self.active[moved]
        run = run_of(index)
        step, step_intercept, decrement, passes = self.problem.step(
            moved, grad, grad_intercept, self.tol[run], self.polishing[run] > 0
        )
        self.step[:, run], self.step_intercept[run] = step, step_intercept
        self.slope[run] = column_dot(step, grad) + step_intercept * grad_intercept
        result.n_passes[run] += passes
        took = step.any(axis=0)
        last, took = (run, slice(None)) if took.all() else (index[took], took)
        self.last_step[:, last], self.last_decrement[last] = step[:, took], decrement[took]
        was = result.newton_decrement[run].copy()
        result.newton_decrement[run] = decrement
        self._watch_falls(run, decrement, was)
        return decrement, was

    def _watch_falls(self, run: slice | np.ndarray, decrement: np.ndarray, was: np.ndarray) -> None:
        """Which objectives hardly fall, and which without end: these take long steps."""
        length = self.length[run]
        fast = (decrement <= _HARDLY * was) & (length <= 1)
        if fast.all() or not self.problem.exact:
            self.falling[run], self.slow[run], self.length[run] = 0, False, 1.0
            return
        falls = falls_without_end(decrement, was)
        self.falling[run] = np.where(falls, self.falling[run] + 1, 0)
        self.fell[run] += falls
        self.slow[run] = hardly_falls(decrement, was, length, self.problem.floor[run])
        self.length[run] = np.where(self.falling[run] >= 2, FALL, 1.0)

    def _stop(self, index: np.ndarray, decrement: np.ndarray, was: np.ndarray) -> None:
        """End receivers below the tolerance, after up to ``problem.polish`` further steps."""
        problem, result, run = self.problem, self.result, run_of(index)
        claim = np.where(self.slow[run], LEFT * decrement, decrement)
        done = within(claim, self.tol[run], problem.floor[run], result.objective[run])
        done &= problem.certain[run]
        if done.any():
            self._polish(index, done, decrement, was)
        else:
            self.polishing[run] = 0
        broken = ~np.isfinite(decrement) | (self.slope[run] > 0)
        spent = result.n_iter[run] >= self.maxiter[run]
        if (broken | spent).any():
            result.status[index[broken & ~done]] = "stalled"
            result.status[index[spent & ~done]] = "max_iter"

    def _polish(
        self, index: np.ndarray, done: np.ndarray, decrement: np.ndarray, was: np.ndarray
    ) -> None:
        """End the receivers that are done, or let them take a further step."""
        problem, result, polishing = self.problem, self.result, self.polishing[index]
        polished = done & (
            (polishing >= problem.polish)
            | (decrement <= 1e-24)
            | ((polishing > 1) & (decrement > 0.1 * was))
            | ~self.step[:, index].any(axis=0)  # certified without a step
        )
        self.polishing[index] = np.where(done, polishing + 1, 0)
        last = index[polished]
        result.status[last] = "converged"
        if problem.rough:  # one further step, which no pass evaluates
            result.coef[:, last] += self.step[:, last]
            result.intercept[last] += self.step_intercept[last]

    def _separate(self, index: np.ndarray, decrement: np.ndarray, was: np.ndarray) -> None:
        """Find separated receivers: the objective no longer falls, yet steps still move some eta.

        Every step moves such an eta by about one over the `Loss.pace`, since its curvature has
        vanished. The search would not end. The decrement rises again where only rounding is left
        of the curvature.
        """
        status, falls = self.result.status, self.fell[index] >= 2
        if not (falls | (status[index] != "")).any():
            return
        lost = self.problem.plain[index] & falls & (was < _LOW) & ~(decrement <= _RISE * was)
        status[index[lost]] = "separated"
        self.result.newton_decrement[index[lost]] = was[lost]
        flat = self.problem.plain[index] & (self.last_decrement[index] < _FLAT)
        flat &= falls | (status[index] == "converged")
        if flat.any():
            suspects = index[flat]
            at = self.result.coef[:, suspects], self.result.intercept[suspects]
            change = self.problem.largest_change(suspects, self.last_step[:, suspects], *at)
            status[suspects[change > 0.5]] = "separated"
        self._claim_left(index)

    def _claim_left(self, index: np.ndarray) -> None:
        """Claim what is left of losses that hardly fall, where receivers have ended."""
        result = self.result
        falls = (result.status[index] == "converged") & self.slow[index]
        result.newton_decrement[index[falls | (result.status[index] == "separated")]] *= LEFT


def falls_without_end(decrement, was) -> np.ndarray:
    """Whether the objective falls without end along a direction.

    The decrement then shrinks by a factor of e with every step. A long step along the direction is
    as safe as a short one.
    """
    return (decrement > 0.2 * was) & (decrement < 0.5 * was)


def hardly_falls(decrement, was, length, floor) -> np.ndarray:
    """Whether a decrement is still so near to the last one that the gap may be `LEFT` times it.

    Newton's decrements fall by far more, but for rounding. Also after a long step along a direction
    in which the objective falls without end. A first decrement may fall as slowly as any.
    """
    slow = (decrement > _HARDLY * was) | (length > 1) | np.isnan(was)
    return slow & (decrement > floor)


def within(decrement, tol, floor, objective) -> np.ndarray:
    """Whether receivers have converged: to the tolerance, or as far as rounding allows.

    Where rounding hides more than the tolerance and `_HIDDEN` of the objective, no decrement will
    do.
    """
    allowed = np.maximum(tol, _HIDDEN * (1 + np.abs(objective)))
    return (decrement <= np.maximum(tol, np.minimum(floor, allowed))) & (floor <= allowed)


def _largest(grad: np.ndarray, grad_intercept: np.ndarray) -> np.ndarray:
    """Largest entry of each receiver's gradient."""
    return np.maximum(np.abs(grad).max(axis=0, initial=0), np.abs(grad_intercept))


def _shorten(
    length: np.ndarray,
    slope: np.ndarray,
    rejected: np.ndarray,
    before: np.ndarray,
    objective: np.ndarray,
) -> None:
    """Shorten rejected steps by the minimum of a parabola, a factor within [0.1, 0.5]."""
    for k, j in enumerate(rejected):
        factor = 0.1
        if np.isfinite(objective[k]) and np.isfinite(before[k]):
            drop = slope[j] * length[j]
            bend = objective[k] - before[k] - drop
            if bend > 0:
                factor = min(max(-drop / (2 * bend), 0.1), 0.5)
        length[j] *= factor
