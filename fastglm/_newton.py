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

from dataclasses import dataclass, fields

import numpy as np

from fastglm import _html
from fastglm import _proximal as proximal
from fastglm import _statistics as statistics
from fastglm._kernels import LANES
from fastglm._poisson import LOG_ZERO
from fastglm._quasi_newton import (
    EventProblem,
    SampleProblem,
    Shared,
    SingleProblem,
    cho_solve,
    cholesky,
    draw,
    n_own_factors,
    sample_size,
    split_space,
)
from fastglm._threads import run_threads
from fastglm.features import column_dot

STATUSES = {
    "converged": "the Newton decrement is below the tolerance",
    "silent": (
        "no events, so the optimum has rate 0: coefficients are 0 and the intercept "
        f"{LOG_ZERO:.0f}; leave the receiver out, or record longer"
    ),
    "separated": (
        "some features are only active where there are no events, so their coefficients have no "
        "finite optimum; they were set so low that the rate there is 0, and the other "
        "coefficients are exact; use regularizer='Ridge' or mask these features"
    ),
    "max_iter": (
        "the iteration limit came before the tolerance; raise solver_kwargs={'maxiter': ...} or "
        "use a stronger ridge"
    ),
    "stalled": (
        "no step lowers the objective any further in this arithmetic; check the scale of the "
        "features or use regularizer='Ridge'"
    ),
    "overflow": (
        "the objective is not finite at the starting point; leave init_params out or start "
        "nearer to zero"
    ),
    "interrupted": (
        "the fit was interrupted; coefficients are the last that were reached, NaN where none were"
    ),
    "imported": (
        "the coefficients are from elsewhere and how far they are from the optimum is not known; "
        "fit the model, with init_params=(coef_, intercept_) to begin there"
    ),
    "no_bins": "no bin has both a complete history and a count; the coefficients are NaN",
}
_ARMIJO = 1e-4
_DENSE_BYTES = 1 << 28  # rows that are kept between passes
_BLOCK_BYTES = 1 << 21  # rows that are worked on at a time: what a core's L2 and L3 share hold
_FLAT = 1e-10  # decrement of a step that should not move any eta by much
_SOFT = 1e-4  # an eigenvalue of the preconditioned S below this: without ridge, suspect
MAX_FALLBACK = 1500  # features up to which exact Hessians may take over
_PATIENCE = 12  # Newton steps by conjugate gradients before exact Hessians take over
# A starting point is found to this part of its own noise, or of the tolerance, in so many steps.
_START, _START_STEPS = 0.01, 20
_FALL = 8.0  # length of a step along which the objective falls for ever


@dataclass
class Result:
    """What a fit found, one entry per receiver.

    Attributes
    ----------
    coef : (n_features, n_receivers)
    intercept : (n_receivers,)
    objective : (n_receivers,)
        Mean loss plus penalty at the returned point.
    grad_norm : (n_receivers,)
        Largest entry of the gradient over the free coefficients and the intercept.
    newton_decrement : (n_receivers,)
        Predicted gap of the objective to the optimum.
    n_iter : (n_receivers,)
        Newton steps.
    n_passes : (n_receivers,)
        Passes over the data in which the receiver took part: one X C and one X' R each.
    status : (n_receivers,)
        A key of `STATUSES`.
    method : (n_receivers,)
        "newton-cholesky" or "newton-cg".
    """

    coef: np.ndarray
    intercept: np.ndarray
    objective: np.ndarray
    grad_norm: np.ndarray
    newton_decrement: np.ndarray
    n_iter: np.ndarray
    n_passes: np.ndarray
    status: np.ndarray
    method: np.ndarray

    @classmethod
    def empty(cls, n_features, n):
        """A result to be filled in, one receiver at a time."""
        return cls(
            coef=np.zeros((n_features, n)),
            intercept=np.zeros(n),
            objective=np.full(n, np.nan),
            grad_norm=np.full(n, np.nan),
            newton_decrement=np.full(n, np.nan),
            n_iter=np.zeros(n, np.int64),
            n_passes=np.zeros(n, np.int64),
            status=np.full(n, "", dtype="<U16"),
            method=np.full(n, "", dtype="<U16"),
        )

    def __repr__(self):
        n_features, n = self.coef.shape
        known = self.newton_decrement[~np.isnan(self.newton_decrement)]
        gap = f", largest decrement {known.max():.1e}" if known.size else ""
        return (
            f"{n:,} receiver{'s' * (n != 1)} x {n_features:,} features: "
            f"{_html.tally(self.status)}{gap}"
        )

    def _repr_html_(self):
        n_features, n = self.coef.shape
        known = self.newton_decrement[~np.isnan(self.newton_decrement)]
        rows = [
            ("receivers", f"{n:,}"),
            ("features", f"{n_features:,}"),
            ("status", _html.tally(self.status)),
            ("largest decrement", f"{known.max():.1e}" if known.size else "not known"),
            ("Newton steps", _html.span(self.n_iter, "d")),
            ("passes over the data", _html.span(self.n_passes, "d")),
        ]
        return _html.table("Fit", rows)

    def of(self, receivers, features=slice(None)):
        """Coefficients and intercepts of some receivers, 0 where they are not known."""
        coef = self.coef[features][:, receivers]
        return np.nan_to_num(coef), np.nan_to_num(self.intercept[receivers])

    def copy_from(self, other, receivers):
        """Copy some receivers of another result of the same size."""
        for field in fields(self):
            getattr(self, field.name)[..., receivers] = getattr(other, field.name)[..., receivers]

    def put(self, receivers, other, features=slice(None)):
        """Copy the result of a batch to its receivers (and features)."""
        for field in fields(self):
            target, source = getattr(self, field.name), getattr(other, field.name)
            if field.name == "coef":
                target[np.ix_(np.arange(target.shape[0])[features], receivers)] = source
            else:
                target[receivers] = source


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
        result.n_passes[active] += 1

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
                reach = problem.reach(suspects, last_step[:, suspects])
                result.status[suspects[reach > 0.5]] = "separated"

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


class DenseProblem:
    """Exact Hessians from rows of X in blocks: for few features or tight masks.

    Cost of an iteration: n_bins * p_j^2 multiply-adds for a receiver with p_j free features.
    Memory: one block of rows, at most `_DENSE_BYTES`, and p_j^2 float64 a receiver. Rows are
    built once if they fit into one block, else once a pass for all receivers.
    """

    method = "newton-cholesky"
    exact = True  # steps are Newton's
    rough = False
    polish = 3
    _REFRESH = 1e-8  # a decrement above this is due for a new Hessian

    def __init__(self, X, valid, counts, free, penalty, link):
        self.X, self.counts, self.link = X, counts, link
        self.is_free, self.free = free, [np.flatnonzero(column) for column in free.T]
        index = np.flatnonzero(valid)
        self.n_bins = index.size
        row_bytes = 8 * max(X.shape[1], 1)
        n_rows = max(256, _BLOCK_BYTES // row_bytes)
        self.blocks = np.array_split(index, -(-self.n_bins // n_rows))
        self._kept = {} if self.n_bins * row_bytes <= _DENSE_BYTES else None
        n = penalty.n_receivers
        self.hess, self.last_hess = [None] * n, [None] * n
        self.certain = np.ones(n, bool)  # always float64
        self.rounding = np.full(n, 1e-13)
        self.set_penalty(penalty)

    def set_penalty(self, penalty):
        """Another penalty for the same data; what is known of the curvature stays."""
        n = penalty.n_receivers
        self.penalty = penalty
        self.plain = (penalty.unpenalised(self.X.shape[1]) & self.is_free).any(axis=0)
        self.factor, self.mean, self.total = [None] * n, [None] * n, np.zeros(n)
        self.basis = [None] * n
        self.ranked = np.zeros(n, bool)
        self.last = np.full(n, np.inf)
        self.due = np.ones(n, bool)

    def _block(self, k):
        """Rows and counts of block k, kept between passes where all blocks fit into memory."""
        if self._kept is None:
            return self.X.rows(self.blocks[k]), self.counts(self.blocks[k])
        if k not in self._kept:
            self._kept[k] = self.X.rows(self.blocks[k]), self.counts(self.blocks[k])
        return self._kept[k]

    def evaluate(self, active, coef, intercept):
        """Objective, gradient and, where it is due, the Hessian at the given points."""
        self.active = active
        objective, grad_intercept = np.zeros(active.size), np.zeros(active.size)
        grad = np.zeros_like(coef)
        self.hess = [None] * self.plain.size
        # What a receiver's fixed coefficients add: features outside its fit that are not 0.
        fixed = [
            np.setdiff1d(np.flatnonzero(coef[:, k]), self.free[j]) for k, j in enumerate(active)
        ]

        def add(k):
            j = active[k]
            free = self.free[j]
            Z = rows if free.size == rows.shape[1] else rows[:, free]
            eta = Z @ coef[free, k] + intercept[k]
            if fixed[k].size:
                eta += rows[:, fixed[k]] @ coef[fixed[k], k]
            if shift is not None:
                eta += shift[:, j if shift.shape[1] > 1 else 0]
            loss, residual, curvature = self.link.derivatives(eta, counts[:, j])
            if weight is not None:
                loss, residual, curvature = weight * loss, weight * residual, weight * curvature
            objective[k] += loss.sum()
            if not np.isfinite(objective[k]):
                return
            grad[free, k] += Z.T @ residual
            grad_intercept[k] += residual.sum()
            if self.due[j]:
                weighted = Z * np.sqrt(curvature)[:, None]
                parts = weighted.T @ weighted, Z.T @ curvature, curvature.sum()
                if self.hess[j] is None:
                    self.hess[j] = parts
                else:
                    self.hess[j] = [a + b for a, b in zip(self.hess[j], parts, strict=True)]

        for block in range(len(self.blocks)):
            rows, counts = self._block(block)
            index, shift, weight = self.blocks[block], None, None
            if self.counts.offset is not None:
                shift = self.counts.offset[index]
            if self.counts.weight is not None:
                weight = self.counts.weight[index]
            with np.errstate(over="ignore", invalid="ignore"):  # a trial point may be far off
                run_threads(add, range(active.size), rows.size * active.size)
        penalised = np.zeros_like(coef)
        for k, j in enumerate(active):
            penalised[self.free[j], k] = coef[self.free[j], k]
        pull = self.penalty.times(penalised, active)
        objective = objective / self.n_bins + 0.5 * column_dot(penalised, pull)
        for k, j in enumerate(active):
            grad[self.free[j], k] = grad[self.free[j], k] / self.n_bins + pull[self.free[j], k]
        return objective, grad, grad_intercept / self.n_bins

    def step(self, moved, grad, grad_intercept, tol, polishing):
        """Newton steps at the accepted points, their decrements, and passes spent (none)."""
        step, step_intercept = np.zeros_like(grad), np.zeros(moved.size)
        decrement = np.zeros(moved.size)
        for k, j in enumerate(self.active[moved]):
            if self.hess[j] is not None:
                if not all(np.isfinite(part).all() for part in self.hess[j]):
                    decrement[k] = np.nan  # features whose squares overflow
                    continue
                self._factorise(j, *self.hess[j])
            free, mean = self.free[j], self.mean[j]
            g = grad[free, k] - mean * grad_intercept[k]
            if self.basis[j] is not None:
                g = self.basis[j].T @ g
            d = -cho_solve(self.factor[j], g)
            decrement[k] = -0.5 * (g @ d) + 0.5 * grad_intercept[k] ** 2 / self.total[j]
            if self.basis[j] is not None:
                d = self.basis[j] @ d
            step[free, k] = d
            step_intercept[k] = -grad_intercept[k] / self.total[j] - mean @ d
            # Chord steps with the last factor do where they gain two digits each.
            slow = decrement[k] > max(0.01 * self.last[j], 1e-20)
            self.due[j] = decrement[k] > self._REFRESH or slow
            self.last[j] = decrement[k]
        return step, step_intercept, decrement, 0

    def harmless(self, active, grad, grad_intercept):
        """No step that raises the objective is taken."""
        return np.zeros(active.size, bool)

    # --- what a proximal step asks for ---

    def forget(self, receivers=slice(None)):
        """Some receivers begin a new fit: the first pass brings Hessians."""
        self.due[receivers] = True

    def curvature(self, j, coef, intercept, features):
        """Hessian of the mean loss of receiver j, and where in it some features are.

        That of the last pass which made one, as float32, the intercept last.
        """
        if self.hess[j] is not None:
            hess, moment, total = self.hess[j]
            bordered = np.block([[hess, moment[:, None]], [moment[None], total]])
            self.last_hess[j] = (bordered / self.n_bins).astype(np.float32)
            self.hess[j] = None
        place = np.searchsorted(self.free[j], features)
        return self.last_hess[j], np.append(place, self.free[j].size)

    def learn(self, receivers, step, step_intercept, change, change_intercept):
        """Nothing: Hessians are exact."""

    def fill(self, active):
        """Receivers of the next pass: all."""
        return active

    def trust(self, j):
        """Part of its curvature that a model is sure of."""
        return 1.0

    def announce(self, receivers, decrement):
        """Far from the optimum the next pass brings new Hessians."""
        self.due[receivers] = decrement > self._REFRESH

    def _factorise(self, j, hess, moment, total):
        """Cholesky factor of the Schur complement; without ridge, on the row space of X."""
        mean = moment / total
        schur = hess - np.outer(moment, mean)
        schur = (schur + schur.T) / (2 * self.n_bins) + self.penalty.hessian(j, self.free[j])
        self.mean[j], self.total[j] = mean, total / self.n_bins
        if not self.ranked[j] and self.plain[j]:
            # The curvatures of the first point are all positive: its Hessian has X's rank.
            null, rows = split_space(schur)
            self.basis[j] = rows if null.size else None
            self.ranked[j] = True
        if self.basis[j] is not None:
            schur = self.basis[j].T @ schur @ self.basis[j]
        self.factor[j] = cholesky(schur)

    def reach(self, receivers, step):
        """Largest change of eta in any bin that each step makes."""
        reach = np.zeros(receivers.size)
        for block in range(len(self.blocks)):
            rows, _ = self._block(block)
            for k, j in enumerate(receivers):
                free = self.free[j]
                d = step[free, k]
                change = rows[:, free] @ d - self.mean[j] @ d
                reach[k] = max(reach[k], np.abs(change).max(initial=0))
        return reach


@dataclass(frozen=True)
class Settings:
    """How a fit is done.

    Attributes
    ----------
    link : class of `fastglm._poisson`
    tol, maxiter : float, int
        Decrement at which a receiver has converged; limit of steps.
    method : "auto", "newton-cholesky" or "newton-cg"
    products : "auto", "events" or "rows"
    memory_budget : float
        Bytes.
    rough : bool
        Whether a fit may end in float32, with a last step that is not judged any more.
    """

    link: object
    tol: float
    maxiter: int
    method: str
    products: str
    memory_budget: float
    rough: bool = False


def solve(
    X, valid, counts, free, penalties, start, batch, settings, shared=None, watch=None, guide=None
):
    """Fit one batch of receivers by its method, once for each of some penalties; see `minimize`.

    Every fit starts where the last one ended. ``counts`` is an `Observed` of the receivers.
    ``start`` is a pair of coefficients and intercepts, or None. ``shared`` is what `share` made of
    X and valid, if it is there already. ``guide``, one pair a penalty, are optima of nearly the
    same problems.

    Returns
    -------
    list of Result
        Shorter than the penalties where an interrupt from the keyboard ended the last of them.
    """
    fit = _Fit(X, valid, counts, free, batch, settings, shared, watch, len(penalties) > 1)
    results = []
    # How far the last two fits ended from their guide: the next one begins as far from its own.
    ahead = before = (0.0, 0.0)
    while len(results) < len(penalties):
        k = len(results)
        guided = guide is not None and not penalties[k].sparse.any()
        if guided:
            start = tuple(g + 2 * a - b for g, a, b in zip(guide[k], ahead, before, strict=True))
        results += fit.run(penalties[k:], start, guided)
        start = results[-1].coef, results[-1].intercept
        if guided:
            now = tuple(c - g for c, g in zip(start, guide[k], strict=True))
            ahead, before = now, ahead if k else now
        if (results[-1].status == "interrupted").any():
            break
    return results


class _Fit:
    """A batch of receivers, and what fits with several penalties have in common."""

    def __init__(self, X, valid, counts, free, batch, settings, shared, watch, keep):
        self.X, self.valid, self.counts, self.watch = X, valid, counts, watch
        self.batch, self.settings = batch, settings
        self.shared = shared
        if shared is None and batch.method == "newton-cg":
            self.shared = share(X, valid, settings.memory_budget, batch.lanes)
        known = self.shared is not None and counts.weight is None
        self.sums = statistics.moments(
            X, valid, counts.weighted_events(), counts.weight, self.shared.sums if known else None
        )
        self.mean = self.sums.sum_y / int(valid.sum())
        self.unmasked = free
        self.anchor = None  # what is known where the last fit ended
        self.keep = keep
        self.level = settings.link.expected_curvature(settings.link.eta(self.mean))
        self.problem, self.free = None, None

    def run(self, penalties, start, guided=False):
        """Fit with the first of some penalties, or as many as go together; a result for each.

        Without one, features that are always zero are taken out, and features that are only active
        where there are no events are set to their limit first: with ``x >= 0``, ``X'y = 0`` and
        ``X'1 > 0`` the objective falls for ever as the coefficient goes to minus infinity (Correia,
        Guimaraes & Zylkin, 2019).
        """
        penalty = penalties[0]
        coef, intercept = start or (
            np.zeros(self.unmasked.shape),
            self.settings.link.eta(self.mean) - self.counts.lift(self.valid),
        )
        free, fixed, limit = self._separate(penalty)
        if fixed.any() or not free.all():
            coef = np.where(fixed, limit[:, None], np.where(free, coef, 0.0))
        if penalty.sparse.any():
            self._prepare(penalty.copy(), free)
            results = self._run_sparse(self._together(penalties, free, fixed), coef, intercept)
        else:
            self._prepare(penalty, free)
            results = [self._run_smooth(penalty, coef, intercept, fixed, start is None, guided)]
        for result in results:
            separated = fixed.any(axis=0) & (result.status == "converged")
            result.status[separated] = "separated"
        return results

    def _together(self, penalties, free, fixed):
        """The first penalties, as many as are sparse and leave the same features free."""
        for k, other in enumerate(penalties[1:], 1):
            other_free, other_fixed, _ = self._separate(other)
            same = np.array_equal(free, other_free) and np.array_equal(fixed, other_fixed)
            if not (other.sparse.any() and same):
                return penalties[:k]
        return penalties

    def _separate(self, penalty):
        """Features that stay free, those that run to minus infinity, and what stands for it."""
        X, sums, free = self.X, self.sums, self.unmasked
        fixed, limit = np.zeros(free.shape, bool), np.zeros(X.shape[1])
        unpenalised = penalty.unpenalised(X.shape[1]) & free
        if unpenalised.any():
            nonnegative = X.nonnegative
            never = nonnegative & (sums.x <= 0)
            fixed = (nonnegative & ~never)[:, None] & (sums.xty <= 1e-12 * sums.x[:, None])
            fixed &= unpenalised
            free = free & ~(never[:, None] & unpenalised) & ~fixed
            with np.errstate(divide="ignore"):
                limit = LOG_ZERO / X.smallest_positive()
        return free, fixed, limit

    def _prepare(self, penalty, free):
        """The problem with this penalty: that of the last one, where it has the same features."""
        if self.problem is not None and np.array_equal(free, self.free):
            self.problem.set_penalty(penalty)
            return
        self.free, self.anchor = free, None
        X, valid, counts, link = self.X, self.valid, self.counts, self.settings.link
        if self.batch.method == "newton-cholesky":
            self.problem = DenseProblem(X, valid, counts, free, penalty, link)
            return
        lanes = self.batch.lanes
        kind = SingleProblem if self.shared.direct else SampleProblem
        sample = kind(self.shared, free, penalty, link, self.level, lanes, counts)
        self.problem = EventProblem(
            X, valid, counts, free, penalty, link, self.sums, sample, lanes, self.settings.tol,
            self.batch.products, self.settings.rough,
            n_own_factors(X.shape[1], self.settings.memory_budget),
        )  # fmt: skip

    def _run_sparse(self, penalties, coef, intercept):
        self.anchor = None
        results = [Result.empty(*coef.shape) for _ in penalties]
        results[0].coef[:], results[0].intercept[:] = coef, intercept
        tol = self.settings.tol * (0.01 if self.settings.rough else 1)  # there is no last step
        proximal.minimize(self.problem, penalties, results, tol, self.settings.maxiter, self.watch)
        return results

    def _run_smooth(self, penalty, coef, intercept, fixed, cold, guided):
        problem, tol, maxiter = self.problem, self.settings.tol, self.settings.maxiter
        plain, retreat = problem.plain, None
        by_events = self.batch.method == "newton-cg"
        if by_events:
            problem.forget()
        sampled = cold or (self.anchor is not None and not guided)
        if by_events and self.settings.link.canonical and sampled:
            sample, everyone = problem.sample, np.arange(plain.size)
            if cold:
                constant = problem.constant / problem.n_bins
                retreat = coef, intercept, self.mean - self.mean * intercept - constant
                coef = np.where(fixed, coef, sample.begin(self.sums))
            else:
                coef, intercept = self.anchor[:2]
                sample.begin_near(*self.anchor)
            noise = _start_noise(self.shared, self.level)
            near = _START * np.maximum(noise, tol)
            first = minimize(sample, coef, intercept, near, _START_STEPS)
            sample.end()
            coef = problem.off_null(first.coef, everyone, everyone)
            intercept = first.intercept
            problem.expect(everyone, noise)
        fall_back = by_events and plain.any() and self.X.shape[1] <= MAX_FALLBACK
        n_steps = min(maxiter, _PATIENCE) if fall_back else maxiter
        result = minimize(problem, coef, intercept, tol, n_steps, self.watch, retreat)
        self.anchor = problem.anchor() if self.keep and by_events else None
        if fall_back:
            self._end_exactly(result, penalty, maxiter - n_steps)
        return result

    def _end_exactly(self, result, penalty, maxiter):
        """Exact Hessians for what conjugate gradients have not ended.

        Separation in a direction of several features takes the curvature to 0, below what float32
        sums resolve; in float64 it ends in a few steps more.
        """
        problem = self.problem
        flat = problem.plain & (problem.theta < _SOFT)
        rest = np.flatnonzero(np.isin(result.status, ("max_iter", "stalled")) | flat)
        if not rest.size or maxiter <= 0:
            return
        exact = DenseProblem(
            self.X,
            self.valid,
            self.counts.select(rest),
            self.free[:, rest],
            penalty.select(receivers=rest),
            self.settings.link,
        )
        again = minimize(
            exact, result.coef[:, rest], result.intercept[rest], self.settings.tol, maxiter
        )
        again.n_iter += result.n_iter[rest]
        again.n_passes += result.n_passes[rest]
        result.put(rest, again)


class Common:
    """What receivers with masks of their own take from the sums and a sample of all features.

    Memory: ``8 * n_features**2 + 4 * n_sample * n_features + 4 * n_bins`` bytes, and the larger of
    the first two again while it is made.
    """

    def __init__(self, X, valid, n_sample):
        self.gram, self.sums = statistics.gram(X, valid), statistics.column_sums(X, valid)
        self.sample = draw(X, valid, n_sample)
        # A feature in a row of its own: a tenth of them are copied ten times as fast.
        self.sample.rows = np.ascontiguousarray(self.sample.rows.T).T

    def share(self, X, valid, columns, lanes):
        """The `Shared` part of the fits with some columns, which X holds."""
        gram, sample = self.gram[np.ix_(columns, columns)], self.sample.select(columns)
        return Shared(X, valid, gram, self.sums[columns], sample, lanes)


def share(X, valid, memory_budget, lanes=LANES):
    """The `Shared` part of the fits with a feature matrix."""
    n_sample = sample_size(X.shape[1], int(valid.sum()), memory_budget)
    sums = statistics.column_sums(X, valid)
    return Shared(X, valid, statistics.gram(X, valid), sums, n_sample, lanes)


def _start_noise(shared, level):
    """How far the noise of a sample puts its optimum above that of all bins, per receiver."""
    noise = 0.5 * shared.rows.values.shape[1] / shared.index.size
    return noise * level
