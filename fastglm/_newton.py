"""The solver: one batch of receivers in, one result out.

Every receiver j minimises on its own, over the coefficients that its mask leaves free,

    f(b, c) = mean_t( loss(b + x_t.c, y_tj) ) + ridge_j / 2 * |c|^2

by Newton's method with its own step length and stopping rule. The intercept is eliminated: with
``h = X'w / n`` and ``s = sum(w) / n`` for the curvatures w, the Newton step of c solves the Schur
complement ``S = X'diag(w)X / n - h h' / s + ridge``. Half its product with the gradient is the
Newton decrement, the gap in the objective that the quadratic model predicts.

Two ways to the step, which share the loop:

- `DenseProblem` ("newton-cholesky") forms S from rows of X in blocks and factorises it;
- `EventProblem` ("newton-cg") applies S to a vector with one pass over the events in float32, and
  preconditions conjugate gradients with S estimated on a sample of bins. Gradients and objectives
  are float64, so the rounding of the products costs steps, not accuracy.

No receiver sees another: sums run in an order that does not depend on the batch.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numba
import numpy as np
import scipy.linalg
from scipy.linalg import LinAlgError
from threadpoolctl import ThreadpoolController

from fastglm import _kernels as kernels
from fastglm.features import Sweep

LOG_ZERO = -50.0  # eta that stands for a rate of zero: exp(-50) = 2e-22 events per bin
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
    "no_bins": "no bin has both a complete history and a count; the coefficients are NaN",
}
_ARMIJO = 1e-4
_ROUNDING = 1e-13  # relative rounding of an objective that is a float64 mean
_RANK = 1e-12  # an eigenvalue of the scaled Gram matrix below this is a collinear direction
_DENSE_BYTES = 1 << 28  # rows that are kept between passes
_BLOCK_BYTES = 1 << 21  # rows that are worked on at a time: what a core's L2 and L3 share hold
_FLAT = 1e-10  # decrement of a step that should not move any eta by much
_SOFT = 1e-4  # an eigenvalue of the preconditioned S below this: without ridge, suspect
_MAX_FALLBACK = 1500  # features up to which exact Hessians may take over
_PATIENCE = 12  # Newton steps by conjugate gradients before exact Hessians take over
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

    def put(self, receivers, other, features=slice(None)):
        """Copy the result of a batch to its receivers (and features)."""
        for field in fields(self):
            target, source = getattr(self, field.name), getattr(other, field.name)
            if field.name == "coef":
                target[np.ix_(np.arange(target.shape[0])[features], receivers)] = source
            else:
                target[receivers] = source


def minimize(problem, coef, intercept, tol, maxiter, progress=None):
    """Newton's method for every receiver of a problem, in step but independent.

    Returns a `Result`. ``coef`` and ``intercept`` are the starting point; masked or fixed
    coefficients keep their values. ``progress`` is called with the number of receivers that have
    reached their optimum since the last call.
    """
    n = intercept.size
    result = Result.empty(coef.shape[0], n)
    result.coef[:], result.intercept[:] = coef, intercept
    result.objective[:] = np.inf
    result.method[:] = problem.method
    step, step_intercept = np.zeros_like(coef), np.zeros(n)
    last_step, last_decrement = np.zeros_like(coef), np.full(n, np.inf)
    length, slope = np.zeros(n), np.zeros(n)
    polishing, falling, fell = np.zeros((3, n), np.int64)
    active = np.arange(n)
    while active.size:
        # 1. Objective and gradient at the trial points: one pass for all active receivers.
        trial = result.coef[:, active] + length[active] * step[:, active]
        trial_intercept = result.intercept[active] + length[active] * step_intercept[active]
        objective, grad, grad_intercept = problem.evaluate(active, trial, trial_intercept)
        result.n_passes[active] += 1

        # 2. Line search: accept where the objective fell as far as the slope promised.
        before = result.objective[active]
        first = np.isinf(before)
        with np.errstate(invalid="ignore"):
            promised = _ARMIJO * length[active] * slope[active]
            slack = _ROUNDING * (1 + np.abs(before))
            accepted = np.isfinite(objective) & (first | (objective <= before + promised + slack))
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
                moved, grad[:, moved], grad_intercept[moved], tol, polishing[index] > 0
            )
            step[:, index], step_intercept[index], decrement, passes = new
            slope[index] = (step[:, index] * grad[:, moved]).sum(axis=0) + step_intercept[
                index
            ] * grad_intercept[moved]
            result.n_passes[index] += passes
            took = step[:, index].any(axis=0)
            last_step[:, index[took]] = step[:, index[took]]
            last_decrement[index[took]] = decrement[took]
            was = result.newton_decrement[index]
            # A decrement that shrinks by e each time belongs to a direction along which the
            # objective falls for ever: there a long step is as safe as a short one.
            with np.errstate(invalid="ignore"):
                falls = (decrement > 0.2 * was) & (decrement < 0.5 * was)
            falling[index] = np.where(falls, falling[index] + 1, 0)
            fell[index] += falls
            length[index] = np.where(falling[index] >= 2, _FALL, 1.0)

            # 4. Stop: below the tolerance, a few more steps polish the end.
            result.newton_decrement[index] = decrement
            done = decrement <= tol
            polished = done & (
                (polishing[index] >= problem.polish)
                | (decrement <= 1e-24)
                | ((polishing[index] > 1) & (decrement > 0.1 * was))
                | ~took  # certified without a step
            )
            polishing[index] = np.where(done, polishing[index] + 1, 0)
            result.status[index[polished]] = "converged"
            broken = ~np.isfinite(decrement) | (slope[index] > 0)
            result.status[index[broken & ~done]] = "stalled"
            spent = (result.n_iter[index] >= maxiter) & ~done
            result.status[index[spent]] = "max_iter"
            # 5. Separation: the objective no longer falls by anything, yet the steps still move
            #    some eta by about one, since the curvature there has gone. No step will end it.
            flat = (problem.ridge[index] == 0) & (last_decrement[index] < _FLAT)
            flat &= (fell[index] >= 2) | (result.status[index] == "converged")
            if flat.any():
                suspects = index[flat]
                reach = problem.reach(suspects, last_step[:, suspects])
                result.status[suspects[reach > 0.5]] = "separated"
        ended = result.status[active]
        reached = int(np.isin(ended, ("converged", "separated")).sum())
        if progress is not None and reached:
            progress(reached)
        active = active[ended == ""]
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
    polish = 3
    _REFRESH = 1e-8  # a decrement above this is due for a new Hessian

    def __init__(self, X, valid, counts, free, ridge, link):
        self.X, self.counts, self.link = X, counts, link
        self.free = [np.flatnonzero(column) for column in free.T]
        self.ridge = ridge
        index = np.flatnonzero(valid)
        self.n_bins = index.size
        row_bytes = 8 * max(X.shape[1], 1)
        n_rows = max(256, _BLOCK_BYTES // row_bytes)
        self.blocks = np.array_split(index, -(-self.n_bins // n_rows))
        self._kept = {} if self.n_bins * row_bytes <= _DENSE_BYTES else None
        n = ridge.size
        self.factor, self.mean, self.total = [None] * n, [None] * n, np.zeros(n)
        self.basis = [None] * n
        self.ranked = np.zeros(n, bool)
        self.last = np.full(n, np.inf)
        self.due = np.ones(n, bool)
        self.hess = [None] * n

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
        self.hess = [None] * self.ridge.size
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
            with np.errstate(over="ignore", invalid="ignore"):
                loss, residual, curvature = self.link.derivatives(eta, counts[:, j])
            objective[k] += loss.sum()
            if not np.isfinite(objective[k]):
                return
            grad[free, k] += Z.T @ residual
            grad_intercept[k] += residual.sum()
            if self.due[j]:
                weighted = Z * np.sqrt(curvature)[:, None]
                with np.errstate(over="ignore", invalid="ignore"):
                    parts = weighted.T @ weighted, Z.T @ curvature, curvature.sum()
                if self.hess[j] is None:
                    self.hess[j] = parts
                else:
                    self.hess[j] = [a + b for a, b in zip(self.hess[j], parts, strict=True)]

        for block in range(len(self.blocks)):
            rows, counts = self._block(block)
            _map(add, range(active.size), rows.size * active.size)
        for k, j in enumerate(active):
            c = coef[self.free[j], k]
            objective[k] = objective[k] / self.n_bins + 0.5 * self.ridge[j] * (c @ c)
            grad[self.free[j], k] = grad[self.free[j], k] / self.n_bins + self.ridge[j] * c
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
            d = -_solve(self.factor[j], g)
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

    def _factorise(self, j, hess, moment, total):
        """Cholesky factor of the Schur complement; without ridge, on the row space of X."""
        mean = moment / total
        schur = hess - np.outer(moment, mean)
        schur = (schur + schur.T) / (2 * self.n_bins)
        schur[np.diag_indices_from(schur)] += self.ridge[j]
        self.mean[j], self.total[j] = mean, total / self.n_bins
        if not self.ranked[j] and self.ridge[j] == 0:
            # The curvatures of the first point are all positive: its Hessian has X's rank.
            null, rows = _split_space(schur)
            self.basis[j] = rows if null.size else None
            self.ranked[j] = True
        if self.basis[j] is not None:
            schur = self.basis[j].T @ schur @ self.basis[j]
        self.factor[j] = _cholesky(schur)

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


class EventProblem:
    """Newton steps by conjugate gradients on products with the events: for many features.

    A pass adds up every spike's filter: n_events * window_size * n_receivers additions each way.
    The preconditioner of a receiver is its Schur complement estimated on `_SAMPLE` bins a feature,
    drawn where its curvature is, and blended with the unweighted one.

    Memory: ``4 * n_bins * n_lanes`` bytes of curvature, ``4 * n_features**2`` bytes a receiver of
    preconditioner, and a chunk of bins; nothing grows with n_bins * n_features.
    """

    method = "newton-cg"
    polish = 1
    _SAMPLE = 6
    _MIN_SAMPLE = 2000
    _MAX_DENSE = 1500  # more free features than this: diagonal preconditioner
    _SOFTEST = 0.2  # smallest eigenvalue of preconditioned S that is assumed before one is seen
    _MAX_INNER = 60
    _REFRESH = 6  # inner steps that call for a new preconditioner

    def __init__(self, X, valid, counts, free, ridge, link, moments, lanes):
        self.X, self.valid, self.counts, self.link = X, valid, counts, link
        self.free, self.ridge, self.lanes = free, ridge, lanes
        self.n_bins = int(valid.sum())
        self.moments = moments
        self.index = np.flatnonzero(valid)
        n_tiles = -(-ridge.size // lanes)
        self.curvature = np.zeros((n_tiles, X.shape[0] * lanes), np.float32)
        self.precise = Sweep(X, ridge.size, np.float64, lanes)
        n_segments = -(-self.precise.n_rows // kernels.SEGMENT)
        self.sums = np.zeros((n_tiles, n_segments, 3, lanes))
        self.coarse = Sweep(X, ridge.size, np.float32, lanes)
        self.factor = [None] * ridge.size
        self.inner = np.full(ridge.size, 10**6)
        self.last = np.full(ridge.size, np.inf)
        self.theta = np.full(ridge.size, self._SOFTEST)
        self._gram = self._covariance()
        self.null = self._null_spaces()

    def evaluate(self, active, coef, intercept):
        """Objective and gradient in float64; the curvatures are kept in float32."""
        self.active = active
        n, lanes = active.size, self.lanes
        n_tiles = -(-n // lanes)
        tiles = np.arange(n_tiles)
        self.precise.set_coef(coef, tiles)
        offsets = np.zeros(self.precise.n_receivers)
        offsets[:n] = intercept
        offsets[n:] = LOG_ZERO
        totals = np.zeros((3, n_tiles * lanes))
        for start, n_rows in self.precise.chunks():
            counts = self.precise.eta
            if not self.link.canonical:
                index = np.arange(start, start + n_rows)
                counts = self.precise.put(self.counts(index)[:, active]).copy()
            eta = self.precise.forward(start, n_rows)
            sums = self.sums[:n_tiles, : -(-n_rows // kernels.SEGMENT)]
            kernels.launch(
                self.link.kernel if lanes > 1 else self.link.narrow_kernel,
                eta[:n_tiles],
                counts,
                offsets,
                self.valid,
                start,
                n_rows,
                lanes,
                self.curvature,
                sums,
            )
            totals += sums.sum(axis=1).transpose(1, 0, 2).reshape(3, -1)
            self.precise.backward(start, n_rows, eta)
        grad = self.precise.collect()[:, :n] / self.n_bins
        objective, grad_intercept, self.total = totals[:, :n] / self.n_bins
        if self.link.canonical:
            with np.errstate(divide="ignore", invalid="ignore"):
                self.mean = grad / self.total
            xty, sum_y = self.moments.xty[:, active], self.moments.sum_y[active]
            grad -= xty / self.n_bins
            grad_intercept = grad_intercept - sum_y / self.n_bins
            objective = objective - ((coef * xty).sum(axis=0) + intercept * sum_y) / self.n_bins
        else:
            self.mean = self._weighted_means(n)
        free = self.free[:, active]
        penalised = np.where(free, coef, 0.0)
        ridge = self.ridge[active]
        objective = objective + 0.5 * ridge * (penalised**2).sum(axis=0)
        grad = np.where(free, grad + ridge * coef, 0.0)
        return objective, grad, grad_intercept

    def _weighted_means(self, n):
        """``X'w / sum(w)``: for a link that is not canonical it costs half a pass."""
        n_tiles, sweep = -(-n // self.lanes), self.coarse
        sweep.set_coef(np.zeros((self.X.shape[1], n)), np.arange(n_tiles))
        pad = kernels.PAD * self.lanes
        for start, n_rows in sweep.chunks():
            sweep.eta[:] = 0
            sweep.eta[:n_tiles, pad : pad + n_rows * self.lanes] = self.curvature[
                :n_tiles, start * self.lanes : (start + n_rows) * self.lanes
            ]
            sweep.backward(start, n_rows, sweep.eta)
        return sweep.collect()[:, :n] / (self.n_bins * self.total)

    def _product(self, v, todo):
        """The Schur complement times the columns of v, for the lanes in ``todo``."""
        n = v.shape[1]
        tiles = np.unique(todo // self.lanes)
        sweep = self.coarse
        sweep.set_coef(v, tiles)
        sums = np.zeros((sweep.n_tiles, self.sums.shape[1], self.lanes))
        total = np.zeros((sweep.n_tiles, self.lanes))
        for start, n_rows in sweep.chunks():
            eta = sweep.forward(start, n_rows)
            kernels.launch(
                kernels.weigh if self.lanes > 1 else kernels.weigh_narrow,
                eta,
                self.curvature,
                start,
                n_rows,
                self.lanes,
                tiles,
                sums,
            )
            total += sums[:, : -(-n_rows // kernels.SEGMENT)].sum(axis=1)
            sweep.backward(start, n_rows, eta)
        total = total.reshape(-1)[:n] / self.n_bins
        product = sweep.collect()[:, :n] / self.n_bins - self.mean * total
        active = self.active
        return np.where(self.free[:, active], product + self.ridge[active] * v, 0.0)

    def step(self, moved, grad, grad_intercept, tol, polishing):
        """Newton steps at the accepted points, their decrements, and the passes spent."""
        n = self.active.size
        g = np.zeros((grad.shape[0], n))
        g[:, moved] = np.where(
            self.free[:, self.active[moved]],
            grad - self.mean[:, moved] * grad_intercept,
            0.0,
        )
        own = np.zeros(n)
        own[moved] = 0.5 * grad_intercept**2 / self.total[moved]
        wanted = np.zeros(n, bool)
        wanted[moved] = ~polishing
        stale = [k for k in moved if wanted[k] and self.inner[self.active[k]] > self._REFRESH]
        # Rows are drawn here, not on the threads: OpenMP would keep a team of its own for each.
        for first in range(0, len(stale), 8):
            some = stale[first : first + 8]
            factors = _map(self._factorise, [(k, *self._draw(k)) for k in some])
            for k, factor in zip(some, factors, strict=True):
                self.factor[self.active[k]] = factor
                self.theta[self.active[k]] = self._SOFTEST
        d, decrement, inner = self._conjugate_gradients(g, own, wanted, tol)
        self.inner[self.active[moved]] = inner[moved]
        self.last[self.active[moved]] = decrement[moved]
        step_intercept = -grad_intercept / self.total[moved] - (
            self.mean[:, moved] * d[:, moved]
        ).sum(axis=0)
        return d[:, moved], step_intercept, decrement[moved], inner[moved]

    def _conjugate_gradients(self, g, own, wanted, tol):
        """Solve ``S d = -g`` to a part of the decrement; lanes not wanted get the estimate only.

        ``own`` is the intercept's part of the decrement. With M the preconditioner, r the
        residual and theta the smallest eigenvalue of ``M^-1 S`` that the iterations have shown,
        what is missing in the decrement is at most about ``r' M^-1 r / (2 theta)``. A lane stops
        when that is settled, or when the residual is so small that the Newton step is as good as
        exact.
        """
        n = g.shape[1]
        d = np.zeros_like(g)
        residual = -g
        z = self._precondition(residual, np.arange(n))
        rho = (residual * z).sum(axis=0)
        rho0 = rho.copy()
        theta = self.theta[self.active]
        decrement = own.copy()
        inner = np.zeros(n, np.int64)
        direction = z.copy()
        estimate = own + 0.5 * rho0 / theta
        # The ratio of successive decrements squares near the optimum: no step need do better,
        # nor better than what brings the next decrement below the tolerance.
        guess = own + 0.5 * rho0
        with np.errstate(divide="ignore", invalid="ignore"):
            floor = np.clip(0.3 * np.sqrt(tol / guess), 1e-3, 0.5)
            last = self.last[self.active]
            # The first step starts where the curvature is flat; 0.003 took the fewest passes.
            forcing = np.where(np.isinf(last), 0.003, np.clip(guess / last, floor, 0.5))
        settled = (estimate <= tol) | ~wanted
        decrement[settled] = estimate[settled]
        alphas, betas = [], []
        todo = np.flatnonzero(~settled)
        while todo.size:
            product = self._product(direction, todo)
            with np.errstate(divide="ignore", invalid="ignore"):
                alpha = rho / (direction * product).sum(axis=0)
            alpha = np.where(np.isin(np.arange(n), todo) & (alpha > 0), alpha, 0.0)
            d += alpha * direction
            residual -= alpha * product
            decrement += 0.5 * alpha * rho
            inner[todo] += 1
            z[:, todo] = self._precondition(residual[:, todo], todo)
            new = (residual * z).sum(axis=0)
            beta = np.where(rho > 0, new / np.where(rho > 0, rho, 1), 0)
            direction[:, todo] = z[:, todo] + beta[todo] * direction[:, todo]
            rho[todo] = new[todo]
            alphas.append(alpha)
            betas.append(beta)
            keep = (
                (rho > forcing**2 * rho0)
                & (alpha > 0)
                & (inner < self._MAX_INNER)
                & (decrement + 0.5 * rho / theta > tol)
            )
            todo = todo[keep[todo]]
        if alphas:
            seen = _smallest_ritz_value(np.array(alphas), np.array(betas))
            self.theta[self.active] = np.minimum(theta, seen)
            unsure = ~settled & (decrement <= tol)
            decrement[unsure] += 0.5 * rho[unsure] / self.theta[self.active[unsure]]
        return d, decrement, inner

    def reach(self, receivers, step):
        """Largest change of eta in any bin that each step makes, half a pass."""
        sweep = self.precise
        sweep.set_coef(step)
        reach = np.zeros(receivers.size)
        for start, n_rows in sweep.chunks():
            sweep.forward(start, n_rows)
            change = sweep.get(n_rows, receivers.size)
            change = change[self.valid[start : start + n_rows]]
            reach = np.maximum(reach, np.abs(change).max(axis=0, initial=0))
        return reach

    def _precondition(self, residual, lanes):
        """The preconditioner's inverse times the residuals of the given lanes."""
        z = np.zeros_like(residual)

        def solve(k):
            free, factor = self.factor[self.active[lanes[k]]]
            r = residual[free, k]
            if isinstance(factor, tuple):
                r = _solve(factor, r.astype(np.float32))
            else:
                r = r / factor
            null = self.null[self.active[lanes[k]]]
            if null is not None:
                r = r - null @ (null.T @ r)
            z[free, k] = r

        _map(solve, range(len(lanes)))
        return z

    def _sample(self, k, n_sample):
        """Bins drawn systematically with chance 0.8 w / sum(w) + 0.2 / n, and their weights."""
        tile, lane = divmod(k, self.lanes)
        w = self.curvature[tile].reshape(-1, self.lanes)[:, lane][self.index]
        w = w.astype(np.float64)
        if n_sample >= self.n_bins:
            return self.index, w
        chance = 0.8 * w / max(w.sum(), np.finfo(float).tiny) + 0.2 / self.n_bins
        ladder = np.cumsum(chance)
        draws = np.searchsorted(ladder, (np.arange(n_sample) + 0.5) / n_sample * ladder[-1])
        picked, times = np.unique(draws, return_counts=True)
        return self.index[picked], times * w[picked] / (n_sample * chance[picked])

    def _draw(self, k):
        """Rows of the free features of lane k at sampled bins, and the weights of the bins."""
        free = np.flatnonzero(self.free[:, self.active[k]])
        n_sample = self._MIN_SAMPLE
        if self._gram is not None:
            n_sample = max(n_sample, self._SAMPLE * free.size)
        index, weights = self._sample(k, n_sample)
        rows = self.X.rows(index, np.float32)
        if free.size < rows.shape[1]:
            rows = rows[:, free]
        return free, rows, weights.astype(np.float32)

    def _factorise(self, draw):
        """Preconditioner of a lane: its free features and a Cholesky factor, or a diagonal."""
        k, free, rows, weights = draw
        j = self.active[k]
        total = max(float(weights.sum()), 1e-30)
        if self._gram is None:
            diagonal = (rows**2).T @ weights / self.n_bins
            return free, diagonal + self.ridge[j] + 1e-3 * diagonal.mean() + 1e-12
        moment = (rows.T @ weights).astype(np.float64)
        weighted = rows * np.sqrt(weights)[:, None]
        schur = (weighted.T @ weighted).astype(np.float64)
        schur -= np.outer(moment, moment / total)
        schur *= 0.9 / self.n_bins
        schur += 0.1 * self.total[k] * self._gram[np.ix_(free, free)]
        scale = np.trace(schur) / max(free.size, 1)
        schur[np.diag_indices_from(schur)] += self.ridge[j] + 1e-6 * scale + 1e-14
        factor, lower = _cholesky(schur)
        return free, (factor.astype(np.float32), lower)

    def _covariance(self):
        """Covariance of the features over a systematic sample of bins."""
        if self.X.shape[1] > self._MAX_DENSE:
            return None
        n_sample = min(self.n_bins, max(self._MIN_SAMPLE, 10 * self.X.shape[1]))
        pick = ((np.arange(n_sample) + 0.5) / n_sample * self.n_bins).astype(int)
        rows = self.X.rows(self.index[pick])
        rows -= rows.mean(axis=0)
        with np.errstate(over="ignore", invalid="ignore"):
            gram = rows.T @ rows / n_sample
        return gram if np.isfinite(gram).all() else None

    def _null_spaces(self):
        """Collinear directions of each receiver without ridge, or None: steps stay out of them.

        Candidates come from the sample of bins; one product with all bins keeps those directions
        that change no eta anywhere.
        """
        null, known = [None] * self.ridge.size, {}
        if self._gram is None:
            return null
        for j in np.flatnonzero(self.ridge == 0):
            free = np.flatnonzero(self.free[:, j])
            key = free.tobytes()
            if key not in known:
                space, _ = _split_space(self._gram[np.ix_(free, free)])
                known[key] = self._confirm(free, space) if space.size else None
            null[j] = known[key]
        return null

    def _confirm(self, free, space):
        """The part of a space of directions that changes no eta, orthonormal, or None."""
        coef = np.zeros((self.X.shape[1], space.shape[1]))
        coef[free] = space
        sweep = Sweep(self.X, space.shape[1], np.float64, self.lanes)
        sweep.set_coef(coef)
        gram, total = np.zeros((space.shape[1],) * 2), np.zeros(space.shape[1])
        for start, n_rows in sweep.chunks():
            sweep.forward(start, n_rows)
            eta = sweep.get(n_rows, space.shape[1])
            eta = eta[self.valid[start : start + n_rows]]
            gram += eta.T @ eta
            total += eta.sum(axis=0)
        gram = gram / self.n_bins - np.outer(total, total) / self.n_bins**2
        values, vectors = scipy.linalg.eigh(gram)
        null = values <= _RANK * np.trace(self._gram) / self.X.shape[1]
        return space @ vectors[:, null] if null.any() else None


_pool = None


def _map(function, items, work=1 << 20):
    """Results of a function over items, on as many threads as the kernels have.

    For BLAS and LAPACK calls of one receiver each, which release the interpreter. Below about
    1e5 numbers of ``work`` a thread costs more than it saves.
    """
    global _pool
    n_threads = min(numba.get_num_threads(), len(items))
    if n_threads < 2 or work < 100_000:
        return [function(item) for item in items]
    if _pool is None or _pool[0] != os.getpid() or _pool[1] < n_threads:
        _pool = os.getpid(), n_threads, ThreadPoolExecutor(n_threads)
    return list(_pool[2].map(function, items))


def _smallest_ritz_value(alphas, betas):
    """Smallest eigenvalue that each lane's conjugate gradients have seen; inf without a step.

    From the Lanczos matrix: diagonal ``1 / alpha_i + beta_{i-1} / alpha_{i-1}``, off the diagonal
    ``sqrt(beta_i) / alpha_i`` (Golub & Van Loan, Matrix Computations, section 11.3).
    """
    smallest = np.full(alphas.shape[1], np.inf)
    for k in range(alphas.shape[1]):
        alpha = alphas[alphas[:, k] > 0, k]
        if alpha.size:
            beta = betas[: alpha.size - 1, k]
            diagonal = 1 / alpha
            diagonal[1:] += beta / alpha[:-1]
            values = scipy.linalg.eigvalsh_tridiagonal(diagonal, np.sqrt(beta) / alpha[:-1])
            smallest[k] = max(values[0], 1e-12)
    return smallest


def _cholesky(matrix):
    """Cholesky factor, with as much of the diagonal added as rounding asks for."""
    if matrix.shape[0] == 0:
        return np.zeros((0, 0)), True
    scale = max(np.trace(matrix) / matrix.shape[0], np.finfo(float).tiny)
    jitter = 0.0
    for _ in range(8):
        try:
            damped = matrix + jitter * np.eye(matrix.shape[0])
            return scipy.linalg.cho_factor(damped, lower=True, check_finite=False)
        except LinAlgError:
            jitter = max(1e-14 * scale, 100 * jitter)
    return scale * np.eye(matrix.shape[0]), True


def _solve(factor, g):
    if g.size == 0:
        return g
    return scipy.linalg.cho_solve(factor, g, check_finite=False)


def _split_space(gram):
    """Orthonormal bases of the null space of X and of its row space, from its Gram matrix.

    The null space is that of the Gram matrix scaled to a unit diagonal, so that the units of the
    features do not matter. Steps inside the row space that start at 0 end at the optimum of least
    norm.
    """
    n = gram.shape[0]
    if n == 0:
        return np.zeros((0, 0)), np.zeros((0, 0))
    scale = np.sqrt(np.diag(gram).clip(min=0))
    zero = scale <= 1e-14 * scale.max()
    inverse = np.where(zero, 0, 1 / np.where(zero, 1, scale))
    values, vectors = scipy.linalg.eigh(gram * np.outer(inverse, inverse))
    null = values <= _RANK * values[-1]
    if not null.any():
        return np.zeros((n, 0)), np.eye(n)
    directions = vectors[:, null] * inverse[:, None]
    directions = np.column_stack([directions, np.eye(n)[:, zero]])
    q, _, _ = scipy.linalg.qr(directions, pivoting=True)
    n_null = int(null.sum())
    return q[:, :n_null], q[:, n_null:]


@dataclass
class Moments:
    """Sums over the valid bins: what a fit knows before the first iteration."""

    xty: np.ndarray  # (n_features, n_receivers)
    x: np.ndarray  # (n_features,)
    sum_y: np.ndarray  # (n_receivers,)


def moments(X, valid, counts, n_receivers, lanes):
    """``X'Y``, ``X'1`` and ``sum(Y)`` over the valid bins, half a pass in float64."""
    sweep = Sweep(X, n_receivers, np.float64, lanes)
    ones = Sweep(X, 1, np.float64, 1)
    sum_y = np.zeros(n_receivers)
    for start, n_rows in sweep.chunks():
        keep = valid[start : start + n_rows]
        y = counts(np.arange(start, start + n_rows))
        y = np.where(keep[:, None], y, 0.0)
        sum_y += y.sum(axis=0)
        sweep.backward(start, n_rows, sweep.put(y))
        ones.backward(start, n_rows, ones.put(keep[:, None].astype(np.float64)))
    return Moments(sweep.collect()[:, :n_receivers], ones.collect()[:, 0], sum_y)


def solve(
    X,
    valid,
    counts,
    free,
    ridge,
    link,
    coef,
    intercept,
    method,
    lanes,
    tol,
    maxiter,
    progress=None,
):
    """Fit one batch of receivers by the given method; see `minimize`.

    ``counts(index)`` gives float64 counts of shape (index.size, n_receivers). Without a ridge,
    features that are always zero are taken out, and features that are only active where there
    are no events are set to their limit first: with ``x >= 0``, ``X'y = 0`` and ``X'1 > 0`` the
    objective falls for ever as the coefficient goes to minus infinity (Correia, Guimaraes &
    Zylkin, 2019).
    """
    sums = None
    fixed = np.zeros(free.shape, bool)
    plain = ridge == 0
    if plain.any() or (method == "newton-cg" and link.canonical):
        sums = moments(X, valid, counts, ridge.size, lanes)
    if plain.any():
        nonnegative = X.nonnegative
        never = nonnegative & (sums.x <= 0)
        fixed = (nonnegative & ~never)[:, None] & (sums.xty <= 1e-12 * sums.x[:, None])
        fixed &= free & plain
        free = free & ~(never[:, None] & plain) & ~fixed
        with np.errstate(divide="ignore"):
            limit = LOG_ZERO / X.smallest_positive()
        coef = np.where(fixed, limit[:, None], np.where(free, coef, 0.0))
    if method == "newton-cholesky":
        problem = DenseProblem(X, valid, counts, free, ridge, link)
    else:
        problem = EventProblem(X, valid, counts, free, ridge, link, sums, lanes)
    fall_back = method == "newton-cg" and plain.any() and X.shape[1] <= _MAX_FALLBACK
    limit = min(maxiter, _PATIENCE) if fall_back else maxiter
    reported = 0

    def report(n):
        nonlocal reported
        reported += n
        if progress is not None:
            progress(n)

    result = minimize(problem, coef, intercept, tol, limit, report)
    if fall_back:
        # Separation in a direction of several features takes the curvature to 0, below what
        # float32 products resolve; exact Hessians in float64 end it in a few steps more.
        flat = plain & (problem.theta < _SOFT)
        rest = np.flatnonzero(np.isin(result.status, ("max_iter", "stalled")) | flat)
        if rest.size and maxiter > limit:
            problem = DenseProblem(
                X, valid, lambda index: counts(index)[:, rest], free[:, rest], ridge[rest], link
            )
            again = minimize(
                problem, result.coef[:, rest], result.intercept[rest], tol, maxiter - limit
            )
            again.n_iter += result.n_iter[rest]
            again.n_passes += result.n_passes[rest]
            result.put(rest, again)
    separated = fixed.any(axis=0) & (result.status == "converged")
    result.status[separated] = "separated"
    report(ridge.size - reported)
    return result


_blas = None


def single_threaded_blas():
    """Context in which BLAS uses one thread.

    Its idle threads spin, and on two cores they cost the kernels a factor of two; the solver
    spreads its BLAS calls over receivers instead.
    """
    global _blas
    if _blas is None:
        _blas = ThreadpoolController()
    return _blas.limit(limits=1, user_api="blas")
