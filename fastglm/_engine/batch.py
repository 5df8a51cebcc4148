"""One batch of receivers: its problem, its start, and its fits with one penalty after another."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from fastglm._algebra.sampling import n_own_factors
from fastglm._engine import proximal
from fastglm._engine.blocks import BlockProblem, SharedBlocks
from fastglm._engine.events import EventProblem
from fastglm._engine.exact import DenseProblem
from fastglm._engine.limits import gap_at_infinity
from fastglm._engine.newton import minimize, within
from fastglm._engine.objective import Objective
from fastglm._engine.preconditioner import SampleProblem, SingleProblem
from fastglm._engine.quadratic import QuadraticProblem
from fastglm._engine.result import Result, is_one_of
from fastglm._engine.rows import Rows
from fastglm._engine.shared import share

_SOFT = 1e-4  # without ridge, a smaller eigenvalue of the preconditioned S calls for exact Hessians
_VANISHED = 1e-4  # part of the mean curvature below which a bin may be on its way to infinity
MAX_FALLBACK = 1500  # features up to which exact Hessians may take over
_PATIENCE = 12  # quasi-Newton steps before exact Hessians take over, if a feature has no penalty
# Times that limits of features are moved on, by at least the second factor.
_LOWERINGS, _FURTHER = 3, 100.0
# Change of eta by rounding beyond which a point of least norm takes steps again, and their number.
_MOVES, _TOUCH = 1e-13, 5
# Multiply-adds that a pass takes beside its products, and those of adding an event. At a tolerance
# above the third, a search may end before it has seen that a bin is on its way to infinity.
_PASS, _ADDITION, _LOOSE = 1e6, 2, 1e-10
_RESERVE = 4  # else a part of the steps, one over this, is kept for exact Hessians
# The search on the sample ends at a decrement of `_START` times the sample's noise, or times the
# tolerance if that is larger, and after `_START_STEPS` steps at most.
_START, _START_STEPS = 0.01, 20


@dataclass(frozen=True)
class Settings:
    """Settings of a fit.

    Attributes
    ----------
    loss : Loss of `fastglm.observation_models`
    tol, maxiter : float, int
        Decrement at which a receiver has converged; limit of steps.
    method : "auto", "newton-cholesky" or "newton-cg"
    products : "auto", "events" or "rows"
    memory_budget : float
        Bytes.
    rough : bool
        Whether a fit may end in float32, with a last step that no pass evaluates.
    """

    loss: object
    tol: float
    maxiter: int
    method: str
    products: str
    memory_budget: float
    rough: bool = False


@dataclass(frozen=True)
class Task:
    """A batch of receivers to be fitted, once for each of some penalties. It can be pickled.

    Attributes
    ----------
    products : Products
        X over the valid bins, with the features of the batch.
    observed : Observed
        Counts, weights and offsets of the receivers.
    free : ndarray of bool, shape (n_features, n_receivers)
    penalties : list of Penalty
    batch : Batch
    settings : Settings
    start : tuple of ndarray, optional
        Coefficients and intercepts.
    shared : Shared, optional
        The shared part of the products, if it has been made already.
    guide : list of tuple, optional
        Coefficients and intercepts, one pair a penalty: optima of nearly the same problems.
    features : ndarray of int or slice
        The features of the whole matrix that the products hold.
    """

    products: object
    observed: object
    free: np.ndarray
    penalties: list
    batch: object
    settings: Settings
    start: tuple | None = None
    shared: object = None
    guide: list | None = None
    features: object = field(default_factory=lambda: slice(None))


def fit_task(task: Task, watch: Callable | None = None) -> list[Result]:
    """Fit one batch of receivers by its method, once for each of its penalties; see `minimize`.

    Every fit starts where the previous one ended. ``watch(result)`` is called after every pass.

    Returns
    -------
    list of Result
        One a penalty. An interrupt from the keyboard ends the fit, and the list is then shorter.
    """
    fit, results, penalties = _Fit(task, watch), [], task.penalties
    start, guide = task.start, task.guide
    # The distances of the last two fits from their guides: the next start extrapolates them.
    ahead = before = (0.0, 0.0)
    while len(results) < len(penalties):
        k = len(results)
        guided = guide is not None and not penalties[k].sparse.any()
        if guided:
            start = tuple(g + 2 * a - b for g, a, b in zip(guide[k], ahead, before, strict=True))
        results += fit.run(penalties[k:], start, guided, given=k == 0 and start is not None)
        start = results[-1].coef, results[-1].intercept
        if guided:
            now = tuple(c - g for c, g in zip(start, guide[k], strict=True))
            ahead, before = now, ahead if k else now
        if (results[-1].status == "interrupted").any():
            break
    return results


class _Fit:
    """A batch of receivers, and the sums and problem that fits with several penalties share."""

    def __init__(self, task: Task, watch: Callable | None):
        self.products, self.observed, self.watch = task.products, task.observed, watch
        self.batch, self.settings, self.loss = task.batch, task.settings, task.settings.loss
        self.by_events = task.batch.method == "newton-cg"
        self.shared = task.shared
        if self.shared is None and self.by_events:
            self.shared = share_batch(self.products, self.batch, self.settings.memory_budget)
        self.rows = None
        if self.batch.method == DenseProblem.method:
            self.rows = Rows(self.products, self.observed, self.loss)
            self.sums = self.rows.moments
        else:
            known = self.shared is not None and (self.observed.weight is None or not self.by_events)
            self.sums = self.products.moments(self.observed, self.shared.sums if known else None)
        self.mean = self.sums.sum_y / self.products.n_bins
        self.unmasked = task.free
        self.anchor = None  # point and gradient where the last fit ended
        self.keep = len(task.penalties) > 1
        self.level = self.loss.expected_curvature(self.loss.eta(self.mean))
        self.problem, self.free = None, None
        self.flat = np.zeros(self.mean.size, bool)  # see `DenseProblem`
        self.n_extra = 0  # passes that judge a given start

    def run(
        self, penalties: list, start: tuple | None, guided: bool = False, given: bool = False
    ) -> list[Result]:
        """Fit with the first of some penalties, or with as many as `_together` finds.

        Features without a penalty are treated first. A feature that is always zero is taken out. A
        feature that is only active where there are no events is set to its limit: with ``x >= 0``,
        ``X'y = 0`` and ``X'1 > 0`` the objective falls without end as the coefficient goes to minus
        infinity (Correia, Guimaraes & Zylkin, 2019).

        A start that is ``given`` by the user is left out for receivers that it would not help.

        Returns
        -------
        list of Result
            One for each penalty that was used.
        """
        penalty = penalties[0]
        coef, intercept = start or (
            np.zeros(self.unmasked.shape),
            self.observed.start(self.loss, self.mean, self.products),
        )
        free, fixed, limit = self._separate(penalty)
        if fixed.any() or not free.all():
            coef = np.where(fixed, limit, np.where(free, coef, 0.0))
        if penalty.sparse.any():
            self._prepare(penalty.copy(), free)
            if given:
                coef, intercept = self._useful(penalty, coef, intercept, fixed)
            results = self._run_sparse(self._together(penalties, free, fixed), coef, intercept)
            for k in range(len(results)):
                results[k] = self._lower_sparse(penalties[k], results[k], fixed)
                self._judge_limits(results[k], penalties[k], fixed)
        else:
            self._prepare(penalty, free)
            retreat = self._constant_rates(coef, fixed) if given else None
            cold = start is None
            result = self._run_smooth(penalty, coef, intercept, fixed, cold, guided, retreat)
            for _ in range(_LOWERINGS if fixed.any() else 0):
                if not self._lower(result, fixed):
                    break
                start = result.coef, result.intercept
                result = self._run_smooth(penalty, *start, fixed, False, guided, far=True)
            self._judge_limits(result, penalty, fixed)
            results = [result]
        results[0].n_passes += self.n_extra
        self.n_extra = 0
        for result in results:
            separated = fixed.any(axis=0) & (result.status == "converged")
            result.status[separated] = "separated"
        return results

    def _together(self, penalties: list, free: np.ndarray, fixed: np.ndarray) -> list:
        """The leading penalties that are sparse and leave the same features free."""
        for k, other in enumerate(penalties[1:], 1):
            other_free, other_fixed, _ = self._separate(other)
            same = np.array_equal(free, other_free) and np.array_equal(fixed, other_fixed)
            if not (other.sparse.any() and same):
                return penalties[:k]
        return penalties

    def _separate(self, penalty) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features that stay free, features whose optimum is infinite, and their finite limits."""
        products, sums, free = self.products, self.sums, self.unmasked
        fixed, limit = np.zeros(free.shape, bool), np.zeros((free.shape[0], 1))
        unpenalised = penalty.unpenalised(free.shape[0]) & free
        if unpenalised.any() and self.loss.low is not None:
            nonnegative = products.nonnegative
            never = nonnegative & (sums.x <= 0)
            low, high = self.loss.separated(sums.x, sums.xty, nonnegative)
            fixed = (low | high) & unpenalised
            free = free & ~(never[:, None] & unpenalised) & ~fixed
            if fixed.any():
                with np.errstate(divide="ignore"):
                    limit = self.loss.low / products.smallest_positive()[:, None]
                limit = np.where(high, -limit, limit)
        return free, fixed, limit

    def _constant_rates(self, coef: np.ndarray, fixed: np.ndarray) -> tuple:
        """Coefficients and intercepts of constant rates, and the largest objective beside them.

        A start above this objective is worse than none.
        """
        constant = np.where(fixed, coef, 0.0)
        flat = self.observed.start(self.loss, self.mean, self.products)
        if self.by_events and self.loss.linear_counts and not fixed.any():
            objective = self._at_constant(flat)
        else:
            objective = self.problem.evaluate(np.arange(flat.size), constant, flat)[0]
            self.n_extra += self.problem.n_passes
        return constant, flat, objective + 1e-6 * np.abs(objective)

    @np.errstate(over="ignore", invalid="ignore")  # a start whose objective is no number is left
    def _useful(
        self, penalty, coef: np.ndarray, intercept: np.ndarray, fixed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """A start of a sparse fit; constant rates where it is worse than these."""
        everyone = np.arange(intercept.size)
        here = self.problem.evaluate(everyone, coef, intercept)[0]
        self.n_extra += self.problem.n_passes
        constant, flat, objective = self._constant_rates(coef, fixed)
        good = here + proximal.norms(penalty, coef, everyone) <= objective + 1e-6
        return np.where(good, coef, constant), np.where(good, intercept, flat)

    def _lower(self, result: Result, fixed: np.ndarray) -> bool:
        """Move limits on until they rule over the other features; whether any limit moved.

        A feature at its limit makes eta at most ``loss.low`` in the bins where it is active, or at
        least ``loss.high``, if the other features and the intercept add up to nothing there.
        """
        some = np.flatnonzero(fixed.any(axis=0) & np.isfinite(result.objective))
        limit = np.where(fixed[:, some], result.coef[:, some], 0.0)
        rest = result.coef[:, some] - limit
        most = np.ones(some.size)
        batch, loss = self.batch, self.loss
        passes = [
            self.products.passes(some.size, batch.lanes, batch.products).forward(coef)
            for coef in (limit, rest)
        ]
        for at_limit, beside in zip(*passes, strict=True):
            eta = beside.eta + result.intercept[some]
            shift = self.observed.shift(beside.index, loss.exponential, some)
            eta = eta if shift is None else eta + shift
            for end, sign in ((loss.low, -1.0), (loss.high, 1.0)):
                if end is None:
                    continue
                pull = sign * at_limit.eta
                active = beside.valid[:, None] & (pull > 0.5 * abs(end))
                need = np.where(active, (abs(end) - sign * eta) / np.where(active, pull, 1.0), 0.0)
                most = np.maximum(most, need.max(axis=0, initial=0.0))
        moved = most > 1
        result.coef[:, some] += limit * np.where(moved, np.maximum(most, _FURTHER) - 1, 0.0)
        return bool(moved.any())

    def _lower_sparse(self, penalty, result: Result, fixed: np.ndarray) -> Result:
        """The result of a sparse fit with limits moved on."""
        for _ in range(_LOWERINGS if fixed.any() else 0):
            if (result.status == "interrupted").any() or not self._lower(result, fixed):
                break
            self._prepare(penalty.copy(), self.free)
            (result,) = self._run_sparse([penalty], result.coef, result.intercept, fixed)
        return result

    def _judge_limits(self, result: Result, penalty, fixed: np.ndarray) -> None:
        """Claims of receivers with bins at infinity: what is left there is a part of the gap.

        Beside features at a limit others may go to infinity too.
        """
        suspect = result.status == "separated"
        if self.loss.low is None:  # a slow search of a quadratic loss looks like one
            result.status[suspect & penalty.sparse] = "converged"
            return
        if not self._few and self.problem.method != DenseProblem.method:
            return
        converged = result.status == "converged"
        flat = self.flat & converged & ~penalty.sparse
        limited = fixed.any(axis=0) & converged
        if limited.any():
            suspect |= limited & self._cheap(result)
        for some in self._at_once(suspect | flat, result):
            exact = self._exact(some, penalty)
            point = result.coef[:, some], result.intercept[some]
            gap, away = gap_at_infinity(exact, np.arange(some.size), *point)
            ended = ~away & penalty.sparse[some]  # the claim of its last model holds
            result.status[some[ended]] = "converged"
            result.status[some[away & flat[some]]] = "separated"
            claim = np.where(ended, 0.0, gap)
            result.newton_decrement[some] = np.maximum(result.newton_decrement[some], claim)
            proved = within(claim, self.settings.tol, 0.0, result.objective[some])
            result.status[some[flat[some] & ~away & ~proved]] = "stalled"

    def _prepare(self, penalty, free: np.ndarray) -> None:
        """Set the problem of this penalty; the last problem is kept if it has the same features."""
        if self.problem is not None and np.array_equal(free, self.free):
            self.problem.set_penalty(penalty)
            return
        self.free, self.anchor = free, None
        products, observed, batch = self.products, self.observed, self.batch
        if batch.method == "normal-equations":
            sums = observed.without_offset(products, self.sums)
            self.problem = QuadraticProblem(self.shared, *sums, free, penalty)
            return
        if not self.by_events:
            self.problem = DenseProblem(self.rows, free, penalty, self.loss)
            return
        passes = products.passes(free.shape[1], batch.lanes, batch.products)
        objective = Objective(products, passes, observed, self.loss, self.sums, free, penalty)
        settings = self.settings
        if not batch.gram:
            own = batch.lanes, settings.tol, settings.rough
            self.problem = BlockProblem(objective, self.shared, self.level, *own)
            return
        kind = SingleProblem if self.shared.direct else SampleProblem
        sample = kind(self.shared, free, penalty, self.loss, self.level, batch.lanes, observed)
        n_own = n_own_factors(products.shape[1], settings.memory_budget)
        self.problem = EventProblem(
            objective, sample, batch.lanes, settings.tol, settings.rough, n_own
        )

    def _run_sparse(
        self,
        penalties: list,
        coef: np.ndarray,
        intercept: np.ndarray,
        fixed: np.ndarray | None = None,
    ) -> list[Result]:
        """Fits with some penalties; ``fixed`` where a start has limits that were moved on."""
        self.anchor, problem = None, self.problem
        results = [Result.empty(*coef.shape) for _ in penalties]
        results[0].coef[:], results[0].intercept[:] = coef, intercept
        tol = self.settings.tol * (0.01 if self.settings.rough else 1)  # no unjudged step follows
        maxiter = n_steps = self.settings.maxiter
        if self._may_fall_back:
            n_steps -= maxiter // _RESERVE
        proximal.minimize(problem, penalties, results, tol, n_steps, self.watch)
        if not self._may_fall_back or maxiter == n_steps:
            return results
        unresolved = np.zeros(intercept.size, bool)
        for result in results:
            unresolved |= is_one_of(result.status, "max_iter", "stalled")
        last = np.nan_to_num(results[-1].coef), np.nan_to_num(results[-1].intercept)
        # A sampled model that steps have corrected far from the optimum keeps that curvature.
        uncertain = self._saddles or not self.loss.predictable
        unresolved |= problem.unresolved(*last) | uncertain
        if self.by_events and self.settings.tol >= _LOOSE:  # see `_end_exactly`
            unresolved |= self._cheap(results[-1], 0.1)
        if fixed is not None and self.by_events:
            self._add_vanished(unresolved, np.where(fixed, 0.0, last[0]), last[1])
        for rest in self._at_once(unresolved, results[-1]):
            exact = self._exact(rest, penalties[0].copy())
            again = [Result.empty(coef.shape[0], rest.size) for _ in penalties]
            again[0].coef[:] = np.nan_to_num(results[0].coef[:, rest])
            again[0].intercept[:] = np.nan_to_num(results[0].intercept[rest])
            own = [penalty.select(receivers=rest) for penalty in penalties]
            proximal.minimize(exact, own, again, tol, maxiter - n_steps)
            for result, one in zip(results, again, strict=True):
                result.go_on(rest, one)
        return results

    def _run_smooth(
        self,
        penalty,
        coef: np.ndarray,
        intercept: np.ndarray,
        fixed: np.ndarray,
        cold: bool,
        guided: bool,
        retreat: tuple | None = None,
        far: bool = False,
    ) -> Result:
        problem, maxiter = self.problem, self.settings.maxiter
        # Also an intercept beside features at their limit. The others in the batch do not matter.
        suspect = problem.plain | fixed.any(axis=0)
        far = far or retreat is not None
        if self.by_events:
            problem.forget()
        sampled = cold or (self.anchor is not None and not guided)
        if self.by_events and self.batch.gram and self.loss.linear_counts and sampled:
            if cold:
                retreat = coef, intercept, self._at_constant(intercept)
            coef, intercept = self._start_on_sample(coef, fixed, cold)
        n_steps = np.full(intercept.size, maxiter)
        if self._may_fall_back:
            most = maxiter - maxiter // _RESERVE
            n_steps = np.where(suspect, min(most, _PATIENCE), most)
        result = self._minimize(problem, coef, intercept, n_steps, self.watch, retreat)
        self.anchor = problem.anchor() if self.keep and self.by_events else None
        self.flat = np.zeros(suspect.size, bool) | problem.flat
        self._least_norm(problem, result)
        if self._may_fall_back:
            beside = np.where(fixed, 0.0, result.coef) if far else None
            self._end_exactly(result, penalty, maxiter - n_steps, beside, fixed.any(axis=0))
        return result

    def _minimize(self, problem, coef, intercept, maxiter, watch=None, retreat=None) -> Result:
        """A search, with exact Hessians to `_LOOSE` where bins may be on their way to infinity.

        Far from the optimum a step moves them by one at a time, and sees a part of what is left.
        """
        tol = self.settings.tol
        if tol <= _LOOSE or problem.method != DenseProblem.method or self.loss.low is None:
            return minimize(problem, coef, intercept, tol, maxiter, watch, retreat)
        tight = np.where(problem.plain, _LOOSE, tol)
        result = minimize(problem, coef, intercept, tight, maxiter, watch, retreat)
        ended = within(result.newton_decrement, tol, problem.floor, result.objective)
        ended &= is_one_of(result.status, "max_iter", "stalled")
        result.status[ended] = "converged"
        return result

    def _at_constant(self, intercept: np.ndarray) -> np.ndarray:
        """Objective without features, (n_receivers,)."""
        objective = self.problem.objective
        constant = objective.constant / self.products.n_bins
        if self.loss.constant_curvature:
            return constant + (intercept - objective.level) ** 2
        if self.loss.exponential:  # at this intercept the mean rate is the mean count
            cumulant = self.mean
        else:
            cumulant = self.observed.at_constant(self.loss, intercept, self.products)
        return cumulant - self.loss.count_factor * self.mean * intercept + constant

    def _start_on_sample(
        self, coef: np.ndarray, fixed: np.ndarray, cold: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients and intercepts of the optimum on the sampled bins."""
        problem, sample = self.problem, self.problem.sample
        everyone = np.arange(problem.plain.size)
        if cold:
            intercept = self.observed.start(self.loss, self.mean, self.products)
            coef = np.where(fixed, coef, sample.begin(self.sums))
        else:
            coef, intercept = self.anchor[:2]
            sample.begin_near(*self.anchor)
        noise = _start_noise(self.shared, self.level)
        near = _START * np.maximum(noise, self.settings.tol)
        first = minimize(sample, coef, intercept, near, _START_STEPS)
        sample.end()
        problem.expect(everyone, noise)
        return problem.off_null(first.coef, everyone, everyone), first.intercept

    def _end_exactly(
        self,
        result: Result,
        penalty,
        n_left: np.ndarray,
        beside: np.ndarray | None,
        limited: np.ndarray,
    ) -> None:
        """Fit receivers that the search has not ended with exact Hessians of rows.

        Separation along a direction of several features takes the curvature towards 0, below the
        resolution of float32 sums. In float64 it ends in a few further steps. Features that are
        nearly collinear need their rows, since ``X'X`` does not have their digits.

        A start that was not found by a search may lie so far along such a direction that events
        show none of its slope. Then ``beside`` holds the coefficients, but for those at a limit.

        Beside a feature at its limit, others may have lost the bins that told them apart. The
        preconditioner does not know. Such ``limited`` receivers are asked where it costs little. So
        are all at a loose tolerance where it costs next to nothing: few steps meet the tolerance
        before they know the curvature.
        """
        problem, cheap = self.problem, self._cheap(result)
        rest = problem.unresolved(result.coef, result.intercept, cheap)
        rest |= is_one_of(result.status, "max_iter", "stalled") | self._saddles
        if self.by_events:
            rest |= problem.plain & (problem.theta < _SOFT)
            rest |= limited & cheap
            if self.settings.tol >= _LOOSE:
                rest |= self._cheap(result, 0.1)
            if beside is not None:
                self._add_vanished(rest, beside, result.intercept)
            elif self.settings.tol > _LOOSE:
                inside = np.where(self.free, result.coef, 0.0)
                self._add_vanished(rest, inside, result.intercept, cheap)
        rest &= (n_left > 0) | (result.status == "converged")  # a claim is judged without a step
        for some in self._at_once(rest, result):
            exact = self._exact(some, penalty)
            start = result.coef[:, some], result.intercept[some]
            stuck = np.flatnonzero(is_one_of(result.status[some], "max_iter", "stalled"))
            if stuck.size:  # a search that got nowhere begins again at constant rates
                flat = self.observed.start(self.loss, self.mean, self.products)[some[stuck]]
                constant = np.where(self.free[:, some[stuck]], 0.0, start[0][:, stuck])
                least = exact.evaluate(stuck, constant, flat)[0]
                lost = ~(result.objective[some[stuck]] <= least)
                lost |= ~np.isfinite(result.newton_decrement[some[stuck]])
                start[0][:, stuck[lost]], start[1][stuck[lost]] = constant[:, lost], flat[lost]
            again = self._minimize(exact, *start, n_left[some])
            self.flat[some] = exact.flat
            self._least_norm(exact, again)
            result.go_on(some, again)

    def _cheap(self, result: Result, part: float = 1.0) -> np.ndarray:
        """Receivers whose exact Hessian costs no more than a part of the passes they have taken."""
        work, n_free = self.products.work(), self.free.sum(axis=0)
        one_pass = 2 * (_ADDITION * work.additions + work.products) + _PASS
        passes = np.maximum(result.n_passes, 1)  # normal equations take none
        return self.products.n_bins * n_free**2 / 2 <= part * passes * one_pass

    def _add_vanished(
        self,
        rest: np.ndarray,
        coef: np.ndarray,
        intercept: np.ndarray,
        asked: np.ndarray | bool = True,
    ) -> None:
        """Add receivers some of whose bins may be on their way to infinity.

        Those ``asked`` without a penalty that are not in ``rest`` yet. Features at a limit have
        coefficients of 0.
        """
        some = np.flatnonzero(self.problem.plain & asked & ~rest)
        if some.size:
            at, least = (coef[:, some], intercept[some]), _VANISHED * self.level[some]
            rest[some] = self.problem.vanishes(some, *at, least)
            self.n_extra += self.problem.n_passes

    def _least_norm(self, problem, result: Result) -> None:
        """Take collinear directions out of the coefficients, and judge the points again.

        The directions are rounded. Where a large part of the coefficients lies along them, and the
        features are large, what is taken out moves eta.
        """
        everyone, before = np.arange(result.intercept.size), result.coef.copy()
        turned = problem.least_norm(everyone, result.coef, result.intercept)
        if problem.method != DenseProblem.method or not turned:
            return
        with np.errstate(invalid="ignore"):  # features may be too large for a sum
            change = np.abs(result.coef - before)
            moves = np.finfo(float).eps * (problem.given_size @ change)
        far, converged = moves > _MOVES, result.status == "converged"
        rest = np.flatnonzero(far & ~converged & np.isfinite(result.objective))
        if rest.size:
            point = result.coef[:, rest], result.intercept[rest]
            result.objective[rest] = problem.evaluate(rest, *point)[0]
        moved = np.flatnonzero(far & converged)
        if moved.size:
            again = minimize(problem, result.coef, result.intercept, self.settings.tol, _TOUCH)
            again.n_iter += result.n_iter
            again.n_passes += result.n_passes
            result.copy_from(again, moved)

    @property
    def _few(self) -> bool:
        """Whether features are so few that their Hessians may be formed."""
        gram = self.batch.gram or not self.by_events
        return gram and self.products.shape[1] <= MAX_FALLBACK

    @property
    def _may_fall_back(self) -> bool:
        """Whether receivers may go on with exact Hessians of rows."""
        return self._few and self.problem.method != DenseProblem.method

    @property
    def _saddles(self) -> bool:
        """Whether an optimum needs the Hessian of all bins: quasi-Newton steps see its span."""
        return not self.loss.convex

    def _at_once(self, rest: np.ndarray, result: Result) -> list[np.ndarray]:
        """Some receivers, in groups whose Hessians and factors fit into a quarter of the memory."""
        rest = (rest & (result.status != "interrupted")).nonzero()[0]
        size = 32.0 * (self.products.shape[1] + 1) ** 2
        n = int(max(self.settings.memory_budget / 4 / size, 1))
        return [rest[first : first + n] for first in range(0, rest.size, n)]

    def _exact(self, rest: np.ndarray, penalty) -> DenseProblem:
        """The problem of some receivers with exact Hessians."""
        penalty = penalty.select(receivers=rest)
        loss = self.loss.select(rest)
        if self.rows is None:
            rows = Rows(self.products, self.observed.select(rest), loss)
        else:
            rows = self.rows.select(rest)
        return DenseProblem(rows, self.free[:, rest], penalty, loss)


def share_batch(products, batch, memory_budget: float):
    """The shared part of a batch by events, with or without ``X'X``."""
    if batch.gram:
        return share(products, memory_budget, batch.lanes)
    return SharedBlocks(products, batch.lanes, batch.products)


def _start_noise(shared, level: np.ndarray) -> np.ndarray:
    """Expected gap of the sample's optimum to the optimum of all bins, per receiver."""
    noise = 0.5 * shared.rows.values.shape[1] / shared.index.size
    return noise * level
