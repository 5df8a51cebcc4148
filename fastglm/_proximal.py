"""Proximal Newton for penalties with exact zeros: lasso, elastic net, group lasso.

Every receiver minimises ``f(b, c) + sum_g weight_g |c_g|`` with f the smooth part of `_newton`. A
step minimises the quadratic model of f plus the penalty itself over a working set: the features
that are not zero and those whose gradient breaks the optimality condition at this point. Since a
pass gives the whole gradient, what the working set leaves out is checked at every step, and a
receiver that converges is optimal over all its features (screening costs nothing and risks
nothing; Tibshirani et al., 2012, guess the set from the last strength, here it is known).

The model's curvature is exact (rows of X) or comes from sampled bins (`SampleProblem`), corrected
by the changes of the gradient over the last steps (BFGS).

Source: Lee, Sun & Saunders, "Proximal Newton-type methods for minimizing composite functions"
(2014), with the working sets of Massias, Gramfort & Salmon (celer, 2018).
"""

import numpy as np

from fastglm import _kernels as kernels
from fastglm._threads import run_threads
from fastglm.features import column_dot

_ARMIJO = 1e-4
_INNER = 1e-3  # part of the violation that the inner solution may leave
_MARGIN = 0.2  # a group whose gradient comes this near to its weight may enter the step


def minimize(problem, penalty, result, tol, maxiter, known=None, watch=None):
    """Proximal Newton for every receiver of a problem, in step but independent.

    Parameters
    ----------
    problem : DenseProblem or EventProblem
        Gives objective and gradient of the smooth part, and its curvature over a few features.
    penalty : Penalty
    result : Result
        Its coefficients and intercepts are the starting point; filled in place.
    tol, maxiter : float, int
    known : `State`, optional
        Of the starting point, from an earlier call: saves the first pass.
    watch : callable, optional
        Called with the result after every pass.

    Returns
    -------
    State
        Smooth objective and gradient at the returned point.
    """
    n = result.intercept.size
    state = known or State(result.coef.shape)
    step, step_intercept = np.zeros_like(result.coef), np.zeros(n)
    length, promised = np.zeros(n), np.zeros(n)
    result.objective[:] = np.inf
    result.status[:] = ""
    result.method[:] = problem.method
    problem.forget()
    active = np.arange(n)
    if known is not None:
        # The penalty may have changed since; the smooth part has not.
        result.objective[:] = state.objective + norms(penalty, result.coef, active)
        _step(problem, penalty, result, state, active, step, step_intercept, promised)
        length[:] = 1.0
        _stop(problem, result, active, tol, maxiter)
        active = active[result.status[active] == ""]
    try:
        while active.size:
            # 1. Objective and gradient at the trial points: one pass for all active receivers.
            trial = result.coef[:, active] + length[active] * step[:, active]
            trial_intercept = result.intercept[active] + length[active] * step_intercept[active]
            smooth, grad, grad_intercept = problem.evaluate(active, trial, trial_intercept)
            result.n_passes[active] += 1
            with np.errstate(invalid="ignore"):
                objective = smooth + norms(penalty, trial, active)

            # 2. Line search on the penalised objective.
            before = result.objective[active]
            first = np.isinf(before)
            with np.errstate(invalid="ignore"):
                slack = problem.rounding[active] * (1 + np.abs(before))
                bound = before + _ARMIJO * length[active] * promised[active] + slack
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
                    grad[:, moved[later]] - state.grad[:, some],
                    grad_intercept[moved[later]] - state.grad_intercept[some],
                )
            state.grad[:, index], state.grad_intercept[index] = (
                grad[:, moved],
                grad_intercept[moved],
            )
            state.objective[index] = smooth[moved]
            result.coef[:, index], result.intercept[index] = trial[:, moved], trial_intercept[moved]
            result.objective[index] = objective[moved]
            result.n_iter[index] += ~first[moved]
            if moved.size:
                _step(problem, penalty, result, state, index, step, step_intercept, promised)
                length[index] = 1.0
            _stop(problem, result, index, tol, maxiter)
            active = active[result.status[active] == ""]
            if watch is not None:
                watch(result)
    except KeyboardInterrupt:
        result.status[result.status == ""] = "interrupted"
    return state


class State:
    """Smooth objective and gradient where the receivers are."""

    def __init__(self, shape):
        self.objective = np.full(shape[1], np.inf)
        self.grad, self.grad_intercept = np.zeros(shape), np.zeros(shape[1])


def norms(penalty, coef, receivers):
    """``sum_g weight_g |c_g|`` of some receivers."""
    size = np.zeros((penalty.weight.shape[0], coef.shape[1]))
    np.add.at(size, penalty.group_of, coef**2)
    return column_dot(penalty.weight[:, receivers], np.sqrt(size))


def _step(problem, penalty, result, state, index, step, step_intercept, promised):
    """Steps of some receivers, and the decrease that their models promise."""

    group_of = penalty.group_of
    order = np.argsort(group_of, kind="stable")

    def one(j):
        coef, grad, free, weights = (
            np.ascontiguousarray(values[:, j])
            for values in (result.coef, state.grad, problem.is_free, penalty.weight)
        )
        breach, features, starts, weight = kernels.screen_groups(
            coef, grad, free, group_of, order, weights, _MARGIN
        )
        result.grad_norm[j] = max(breach, abs(state.grad_intercept[j]))
        data, chosen = problem.curvature(j, coef, result.intercept[j], features)
        n, g_b = features.size, state.grad_intercept[j]
        mean, schur = np.empty(n), np.empty((n, n), np.float32)
        ridge, matrix = problem.penalty.hessian_parts(j, features)
        total = kernels.reduce_model(data, chosen, ridge, mean, schur)
        if matrix is not None:
            schur += matrix
        g = grad[features] - mean * g_b
        c = coef[features]
        goal = _INNER * max(breach, 1e-14)
        z, slope = kernels.solve_groups(schur, g, c, starts, weight, goal)
        d = z - c
        gain = -0.5 * (g + slope) @ d + 0.5 * g_b**2 / total
        gain += _group_norms(c, starts) @ weight - _group_norms(z, starts) @ weight
        step[:, j] = 0
        step[features, j] = d
        step_intercept[j] = -g_b / total - mean @ d
        promised[j] = -gain
        result.newton_decrement[j] = max(gain, 0.0) / problem.trust(j)  # below 0 is rounding

    run_threads(one, list(index))
    problem.announce(index, result.newton_decrement[index])


def _stop(problem, result, index, tol, maxiter):
    decrement = result.newton_decrement[index]
    done = (decrement <= tol) & problem.certain[index]
    result.status[index[done]] = "converged"
    result.status[index[~np.isfinite(decrement)]] = "stalled"
    result.status[index[(result.n_iter[index] >= maxiter) & ~done]] = "max_iter"


def _group_norms(c, starts):
    if c.size == 0:
        return np.zeros(0)
    return np.sqrt(np.add.reduceat(c * c, starts[:-1]))


__all__ = ["State", "minimize", "norms"]
