"""The search: the receivers of a problem from a start to their optima.

Every receiver j minimises on its own, over the coefficients that its mask leaves free,

    f(b, c) = mean_t( loss(b + x_t.c, y_tj) ) + penalty_j(c)

by Newton's method with its own step length and stopping rule. The intercept is eliminated: with
``h = X'w / n`` and ``s = sum(w) / n`` for the curvatures w, the Newton step of c solves the Schur
complement ``S = X'diag(w)X / n - h h' / s + penalty''``. Half its product with the gradient is the
Newton decrement, the gap in the objective that the quadratic model predicts.

Two ways to the step, which share the loop:

- `DenseProblem` ("newton-cholesky") forms S from rows of X in blocks and factorises it;
- `EventProblem` ("newton-cg") takes quasi-Newton steps: every pass over the events is a gradient at
  a new point, preconditioned with S estimated on a sample of bins (see `events`). Sums are
  float32 on the way and float64 at the end, so rounding costs steps, not accuracy.

No receiver sees another: sums run in an order that does not depend on the batch.
"""

import numpy as np

from fastglm._engine.result import Result
from fastglm._kernels.dots import column_dot

_ARMIJO = 1e-4
_FLAT = 1e-10  # decrement of a step that should not move any eta by much
_FALL = 8.0  # length of a step along which the objective falls for ever


# A trial point may overflow: its objective is then inf or NaN, and it is refused.
@np.errstate(over="ignore", invalid="ignore")
def minimize(problem, coef, intercept, tol, maxiter, watch=None, retreat=None):
    """Newton's method for every receiver of a problem, in step but independent.

    Parameters
    ----------
    problem : Problem
        See `protocols.Problem`.
    coef, intercept : ndarrays of shape (n_features, n_receivers), (n_receivers,)
        The starting point; masked or fixed coefficients keep their values.
    tol : float or ndarray of shape (n_receivers,)
        Decrement at which a receiver has converged.
    maxiter : int
    watch : callable, optional
        Called with the result so far after every pass.
    retreat : tuple (coef, intercept, objective), optional
        Another starting point: receivers that start above its objective start there instead.

    Returns
    -------
    Result
        An interrupt from the keyboard ends the search: what is not finished has the status
        "interrupted" and its last point.
    """
    search = Search(problem, coef, intercept, tol, maxiter)
    try:
        if retreat is not None:
            search.begin(*retreat)
        while search.active.size:
            search.advance()
            if watch is not None:
                watch(search.result)
    except KeyboardInterrupt:
        status = search.result.status
        status[status == ""] = "interrupted"
    return search.result


class Search:
    """Where the receivers of a problem are, and their next steps."""

    def __init__(self, problem, coef, intercept, tol, maxiter):
        n = intercept.size
        self.problem, self.maxiter = problem, maxiter
        self.tol = np.broadcast_to(tol, n)
        self.result = result = Result.empty(coef.shape[0], n)
        result.coef[:], result.intercept[:] = coef, intercept
        result.objective[:] = np.inf
        result.method[:] = problem.method
        self.step, self.step_intercept = np.zeros_like(coef), np.zeros(n)
        self.last_step, self.last_decrement = np.zeros_like(coef), np.full(n, np.inf)
        self.length, self.slope = np.zeros(n), np.zeros(n)
        self.polishing, self.falling, self.fell = np.zeros((3, n), np.int64)
        self.active = np.arange(n)
        self._evaluated = None  # a pass that is not used yet

    def begin(self, coef, intercept, objective):
        """Move receivers whose start is above another point's objective to that point."""
        found = self._evaluate()
        back = self.active[~(found[0] <= objective + 1e-6)]
        self.result.coef[:, back], self.result.intercept[back] = coef[:, back], intercept[back]
        if not back.size:
            self._evaluated = found

    def advance(self):
        """One pass: judge the trial points, and step on from those that are accepted."""
        active = self.active
        objective, grad, grad_intercept = self._evaluated or self._evaluate()
        self._evaluated = None
        accepted, first = self._judge(objective, grad, grad_intercept)
        moved = np.flatnonzero(accepted)
        index = active[moved]
        grad, grad_intercept = grad[:, moved], grad_intercept[moved]
        self._accept(moved, first, objective, grad, grad_intercept)
        if index.size:
            decrement, was = self._step(moved, grad, grad_intercept)
            self._stop(index, decrement, was)
            self._separate(index)
        self.active = active[self.result.status[active] == ""]

    def _evaluate(self):
        """Objective and gradient at the trial points: one pass for all active receivers."""
        active, result, length = self.active, self.result, self.length[self.active]
        coef = result.coef[:, active] + length * self.step[:, active]
        intercept = result.intercept[active] + length * self.step_intercept[active]
        self.trial = coef, intercept
        found = self.problem.evaluate(active, coef, intercept)
        self.result.n_passes[self.active] += self.problem.n_passes
        return found

    def _judge(self, objective, grad, grad_intercept):
        """Line search: accept where the objective fell as far as the slope promised.

        Returns what is accepted, and which receivers have no point yet.
        """
        active, problem, status = self.active, self.problem, self.result.status
        before, length = self.result.objective[active], self.length[active]
        first = np.isinf(before)
        with np.errstate(invalid="ignore"):
            promised = _ARMIJO * length * self.slope[active]
            slack = problem.rounding[active] * (1 + np.abs(before))
            accepted = first | (objective <= before + promised + slack)
            accepted |= problem.harmless(active, grad, grad_intercept)
            accepted &= np.isfinite(objective)
        _shorten(self.length, self.slope, active, before, objective, ~accepted)
        status[active[~accepted & (self.length[active] < 1e-10)]] = "stalled"
        status[active[~accepted & first]] = "overflow"
        status[active[~accepted & (self.polishing[active] > 0)]] = "converged"
        return accepted, first

    def _accept(self, moved, first, objective, grad, grad_intercept):
        """Store the points that are accepted."""
        result, index = self.result, self.active[moved]
        coef, intercept = self.trial
        result.coef[:, index], result.intercept[index] = coef[:, moved], intercept[moved]
        result.objective[index] = objective[moved]
        result.n_iter[index] += ~first[moved]
        result.grad_norm[index] = np.maximum(
            np.abs(grad).max(axis=0, initial=0), np.abs(grad_intercept)
        )

    def _step(self, moved, grad, grad_intercept):
        """The next steps from the accepted points; returns decrements, and those before."""
        result, index = self.result, self.active[moved]
        new = self.problem.step(
            moved, grad, grad_intercept, self.tol[index], self.polishing[index] > 0
        )
        self.step[:, index], self.step_intercept[index], decrement, passes = new
        self.slope[index] = column_dot(self.step[:, index], grad)
        self.slope[index] += self.step_intercept[index] * grad_intercept
        result.n_passes[index] += passes
        took = self.step[:, index].any(axis=0)
        self.last_step[:, index[took]] = self.step[:, index[took]]
        self.last_decrement[index[took]] = decrement[took]
        was = result.newton_decrement[index].copy()
        # A decrement that shrinks by e each time belongs to a direction along which the objective
        # falls for ever: there a long step is as safe as a short one.
        with np.errstate(invalid="ignore"):
            falls = self.problem.exact & (decrement > 0.2 * was) & (decrement < 0.5 * was)
        self.falling[index] = np.where(falls, self.falling[index] + 1, 0)
        self.fell[index] += falls
        self.length[index] = np.where(self.falling[index] >= 2, _FALL, 1.0)
        result.newton_decrement[index] = decrement
        return decrement, was

    def _stop(self, index, decrement, was):
        """Who is done: below the tolerance, a few more steps polish the end."""
        problem, result, polishing = self.problem, self.result, self.polishing
        took = self.step[:, index].any(axis=0)
        done = (decrement <= self.tol[index]) & problem.certain[index]
        polished = done & (
            (polishing[index] >= problem.polish)
            | (decrement <= 1e-24)
            | ((polishing[index] > 1) & (decrement > 0.1 * was))
            | ~took  # certified without a step
        )
        polishing[index] = np.where(done, polishing[index] + 1, 0)
        result.status[index[polished]] = "converged"
        if problem.rough:  # one step more, which nobody looks at
            last = index[polished]
            result.coef[:, last] += self.step[:, last]
            result.intercept[last] += self.step_intercept[last]
        broken = ~np.isfinite(decrement) | (self.slope[index] > 0)
        result.status[index[broken & ~done]] = "stalled"
        spent = (result.n_iter[index] >= self.maxiter) & ~done
        result.status[index[spent]] = "max_iter"

    def _separate(self, index):
        """Separation: the objective no longer falls by anything, yet steps still move some eta.

        They move it by about one, since the curvature there has gone. No step will end it.
        """
        status = self.result.status
        flat = self.problem.plain[index] & (self.last_decrement[index] < _FLAT)
        flat &= (self.fell[index] >= 2) | (status[index] == "converged")
        if flat.any():
            suspects = index[flat]
            change = self.problem.largest_change(suspects, self.last_step[:, suspects])
            status[suspects[change > 0.5]] = "separated"


def _shorten(length, slope, active, before, objective, rejected):
    """Shorten the steps that were rejected: to the minimum of a parabola, within [0.1, 0.5]."""
    for k in np.flatnonzero(rejected):
        j = active[k]
        factor = 0.1
        if np.isfinite(objective[k]) and np.isfinite(before[k]):
            drop = slope[j] * length[j]
            bend = objective[k] - before[k] - drop
            if bend > 0:
                factor = min(max(-drop / (2 * bend), 0.1), 0.5)
        length[j] *= factor
