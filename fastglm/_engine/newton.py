"""The solver: one batch of receivers in, one result out.

Every receiver j minimises on its own, over the coefficients that its mask leaves free,

    f(b, c) = mean_t( loss(b + x_t.c, y_tj) ) + penalty_j(c)

by Newton's method with its own step length and stopping rule. The intercept is eliminated: with
``h = X'w / n`` and ``s = sum(w) / n`` for the curvatures w, the Newton step of c solves the Schur
complement ``S = X'diag(w)X / n - h h' / s + penalty''``. Half its product with the gradient is the
Newton decrement, the gap in the objective that the quadratic model predicts.

Two ways to the step, which share the loop:

- `DenseProblem` ("newton-cholesky") forms S from rows of X in blocks and factorises it;
- `EventProblem` ("newton-cg") takes quasi-Newton steps: every pass over the events is a gradient at
  a new point, preconditioned with S estimated on a sample of bins (see `_quasi_newton`). Sums are
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

    Returns a `Result`. ``tol`` is a number or one for each receiver. ``coef`` and ``intercept`` are
    the starting point; masked or fixed coefficients keep their values. ``watch(result)`` is called
    after every pass with the result so far. An interrupt from the keyboard ends the loop: what is
    not finished has the status "interrupted" and its last point. ``retreat`` is another starting
    point, and its objective: receivers that start above it start there instead.
    """
    n = intercept.size
    tol = np.broadcast_to(tol, n)
    result = Result.empty(coef.shape[0], n)
    result.coef[:], result.intercept[:] = coef, intercept
    result.objective[:] = np.inf
    result.method[:] = problem.method
    step, step_intercept = np.zeros_like(coef), np.zeros(n)
    last_step, last_decrement = np.zeros_like(coef), np.full(n, np.inf)
    length, slope = np.zeros(n), np.zeros(n)
    polishing, falling, fell = np.zeros((3, n), np.int64)
    active = np.arange(n)

    def advance(active, retreat):
        """One pass: judge the trial points, and step on from those that are accepted."""
        # 1. Objective and gradient at the trial points: one pass for all active receivers.
        trial = result.coef[:, active] + length[active] * step[:, active]
        trial_intercept = result.intercept[active] + length[active] * step_intercept[active]
        objective, grad, grad_intercept = problem.evaluate(active, trial, trial_intercept)
        result.n_passes[active] += problem.n_passes

        # 2. Line search: accept where the objective fell as far as the slope promised.
        before = result.objective[active]
        first = np.isinf(before)
        if retreat is not None and first.all():
            back = ~(objective <= retreat[2][active] + 1e-6)
            result.coef[:, active[back]] = retreat[0][:, active[back]]
            result.intercept[active[back]] = retreat[1][active[back]]
            if back.any():
                return
        with np.errstate(invalid="ignore"):
            promised = _ARMIJO * length[active] * slope[active]
            slack = problem.rounding[active] * (1 + np.abs(before))
            accepted = first | (objective <= before + promised + slack)
            accepted |= problem.harmless(active, grad, grad_intercept)
            accepted &= np.isfinite(objective)
        _shorten(length, slope, active, before, objective, ~accepted)
        result.status[active[~accepted & (length[active] < 1e-10)]] = "stalled"
        result.status[active[~accepted & first]] = "overflow"
        result.status[active[~accepted & (polishing[active] > 0)]] = "converged"

        # 3. Accepted points: store them, then the next step and the certificate.
        moved = np.flatnonzero(accepted)
        index = active[moved]
        result.coef[:, index] = trial[:, moved]
        result.intercept[index] = trial_intercept[moved]
        result.objective[index] = objective[moved]
        result.n_iter[index] += ~first[moved]
        result.grad_norm[index] = np.maximum(
            np.abs(grad[:, moved]).max(axis=0, initial=0),
            np.abs(grad_intercept[moved]),
        )
        if index.size:
            new = problem.step(
                moved, grad[:, moved], grad_intercept[moved], tol[index], polishing[index] > 0
            )
            step[:, index], step_intercept[index], decrement, passes = new
            slope[index] = column_dot(step[:, index], grad[:, moved])
            slope[index] += step_intercept[index] * grad_intercept[moved]
            result.n_passes[index] += passes
            took = step[:, index].any(axis=0)
            last_step[:, index[took]] = step[:, index[took]]
            last_decrement[index[took]] = decrement[took]
            was = result.newton_decrement[index]
            # A decrement that shrinks by e each time belongs to a direction along which the
            # objective falls for ever: there a long step is as safe as a short one.
            with np.errstate(invalid="ignore"):
                falls = problem.exact & (decrement > 0.2 * was) & (decrement < 0.5 * was)
            falling[index] = np.where(falls, falling[index] + 1, 0)
            fell[index] += falls
            length[index] = np.where(falling[index] >= 2, _FALL, 1.0)

            # 4. Stop: below the tolerance, a few more steps polish the end.
            result.newton_decrement[index] = decrement
            done = (decrement <= tol[index]) & problem.certain[index]
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
                result.coef[:, last] += step[:, last]
                result.intercept[last] += step_intercept[last]
            broken = ~np.isfinite(decrement) | (slope[index] > 0)
            result.status[index[broken & ~done]] = "stalled"
            spent = (result.n_iter[index] >= maxiter) & ~done
            result.status[index[spent]] = "max_iter"
            # 5. Separation: the objective no longer falls by anything, yet the steps still move
            #    some eta by about one, since the curvature there has gone. No step will end it.
            flat = problem.plain[index] & (last_decrement[index] < _FLAT)
            flat &= (fell[index] >= 2) | (result.status[index] == "converged")
            if flat.any():
                suspects = index[flat]
                change = problem.largest_change(suspects, last_step[:, suspects])
                result.status[suspects[change > 0.5]] = "separated"

    try:
        while active.size:
            advance(active, retreat)
            retreat = None
            active = active[result.status[active] == ""]
            if watch is not None:
                watch(result)
    except KeyboardInterrupt:
        result.status[result.status == ""] = "interrupted"
    return result


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
