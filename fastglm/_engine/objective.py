"""Objective and gradient from all events."""

from functools import cached_property

import numpy as np
import scipy.linalg
from scipy.linalg import LinAlgError

from fastglm import _kernels as kernels
from fastglm._engine.lbfgs import Steps
from fastglm._engine.linear import ROUNDING, null_spaces
from fastglm._engine.observed import columns
from fastglm._engine.sampling import BLEND, EVEN, activity, own_size
from fastglm._engine.shared import BLOCK_BYTES
from fastglm._kernels.dots import column_dot
from fastglm._kernels.threads import run_threads
from fastglm._products.kinds import kind_of
from fastglm._products.sweep import Sweep
from fastglm.observation_models import LOG_ZERO

_PRECISE = 1e-11  # a decrement below this calls for gradients in float64
# A receiver that has more than so many steps to go, after so many, is given bins of its own, and
# new ones after so many more. A step that gains less than a factor of 1.2 counts as that. Where
# features are many for the events, a factor costs as much as 10 or 20 steps: it has to be worth it.
_LATE, _FIRST, _RENEW, _LEAST_GAIN = 6, 5, 5, 1.2
# Multiply-adds of BLAS in float32 that take as long as an addition of an event, as one in a float64
# Cholesky factor, and as the rate of a bin: those of `_plan.TYPICAL`. Not measured: no result
# depends on the machine.
_ADDITION, _DOUBLE, _RATE = 2, 2.4, 120
_STRIPE = 128  # columns of a Hessian that one thread makes


class EventProblem:
    """Objective and gradient from all events: for many features.

    A pass adds up every event's filter: n_events * window_size * n_receivers additions each way,
    in float32 while the decrement is large, and in float64 for the certificate.

    Memory: the sample, some 50 float32 numbers a coefficient of the batch, and a chunk of bins.
    Nothing grows with the number of bins, but the events.
    """

    method = "newton-cg"
    exact = False
    polish = 0

    def __init__(
        self,
        X,
        valid,
        counts,
        free,
        penalty,
        loss,
        moments,
        sample,
        lanes,
        tol,
        products,
        rough,
        n_own,
    ):
        self.X, self.valid, self.counts, self.loss = X, valid, counts, loss
        self.sample = sample
        # What is about to converge is summed in float64, or, where that may be rough, not before
        # the change of a gradient in float32 is rounding.
        self.precise_below = _PRECISE if rough else max(tol, _PRECISE)
        self.rough = tol > self.precise_below
        self.free = self.is_free = free
        self.lanes = lanes
        self.n_bins = int(valid.sum())
        self.moments = moments
        n = penalty.n_receivers
        n_tiles = -(-n // lanes)
        self.precise = Sweep(X, n, np.float64, lanes, products)
        self.coarse = Sweep(X, n, np.float32, lanes, products)
        n_segments = -(-self.precise.n_rows // kernels.SEGMENT)
        self.sums = np.zeros((n_tiles, n_segments, 2, lanes))
        self.certain = np.zeros(n, bool)
        self.steps = Steps(self, n, lanes)
        self.rounding = np.zeros(n)
        self._was_rounded = np.zeros(n)
        self.constant = counts.linear(valid) if loss.exponential else 0.0  # of the objective
        # Receivers that take long: their own factors, the steps that they have taken and, at the
        # rate of the last one, still have to take.
        self.own, self.n_steps, self.n_left = {}, np.zeros(n, np.int64), np.zeros(n)
        self.n_own = n_own  # most of them at a time
        self.late = np.maximum(_LATE, self._steps_a_factor())
        self.next, self.last = np.zeros(n, np.int64), np.zeros(n)
        self.forget()
        self.set_penalty(penalty)

    def set_penalty(self, penalty):
        """Another penalty for the same data."""
        self.penalty = penalty
        self.sample.set_penalty(penalty)
        self.plain = (penalty.unpenalised(self.X.shape[1]) & self.free).any(axis=0)
        covariance = self.sample.shared.covariance
        self.null = null_spaces(covariance, self.free, penalty, self.plain)

    def forget(self, receivers=slice(None)):
        """Some receivers begin a new fit: float32 sums, no pairs of steps, no bins of their own."""
        self.steps.forget(receivers)
        for j in np.arange(self.certain.size)[receivers]:
            self.own.pop(j, None)
        self.n_steps[receivers], self.n_left[receivers] = 0, 0
        self.next[receivers], self.last[receivers] = _FIRST, np.inf
        self.certain[receivers] = False
        self._was_rounded[receivers] = 0

    def _steps_a_factor(self):
        """Steps that cost as much as a factor on bins of its own, for each receiver."""
        n_free, n_features = self.free.sum(axis=0), self.free.shape[0]
        factor = own_size(n_features, self.n_bins) * n_free**2 / 2 + _DOUBLE * n_free**3 / 6
        works = [kind_of(c).work(c, None, self.n_bins) for c in self.X.columns]
        one_way = sum(_ADDITION * work.additions + work.products for work in works)
        # On the sample: curvatures, their moments, and three products of conjugate gradients.
        step = 2 * one_way + _RATE * self.n_bins
        return factor / (step + 8 * self.sample.shared.index.size * n_features)

    def anchor(self):
        """The last accepted points, and the gradient of the mean loss alone there."""
        point, grad = self.steps.point.T, self.steps.grad.T
        pull = self.penalty.times(np.where(self.free, point[:-1], 0.0), slice(None))
        return point[:-1], point[-1], np.where(self.free, grad[:-1] - pull, 0.0), grad[-1]

    @property
    def theta(self):
        """Smallest eigenvalue of the preconditioned Schur complement seen, per receiver."""
        return self.steps.theta

    def evaluate(self, active, coef, intercept):
        """Objective and gradient at the given points: one pass."""
        self.active, n = active, active.size
        self.point = np.vstack([coef, intercept])
        wants = self._wants_precise(active)
        self.certain[active] = wants | self.rough
        rounded = np.where(wants, ROUNDING[np.float64], ROUNDING[np.float32])
        self.rounding[active] = np.maximum(rounded, self._was_rounded[active])
        self._was_rounded[active] = rounded
        totals, grad = np.zeros((2, n)), np.zeros_like(coef)
        for sweep, some in (
            (self.coarse, np.flatnonzero(~wants)),
            (self.precise, np.flatnonzero(wants)),
        ):
            if some.size:
                totals[:, some], grad[:, some] = self._pass(sweep, some)
        grad /= self.n_bins
        objective, grad_intercept = totals / self.n_bins
        if self.loss.exponential:
            self.total = objective  # loss, residual and curvature begin as the rate
            with np.errstate(divide="ignore", invalid="ignore"):
                self.mean = grad / self.total
            xty, sum_y = self.moments.xty[:, active], self.moments.sum_y[active]
            grad -= xty / self.n_bins
            grad_intercept = grad_intercept - sum_y / self.n_bins
            linear = column_dot(coef, xty) + intercept * sum_y + self.constant[active]
            objective = objective - linear / self.n_bins
        free = self.free[:, active]
        penalised = np.where(free, coef, 0.0)
        pull = self.penalty.times(penalised, active)
        objective = objective + 0.5 * column_dot(penalised, pull)
        grad = np.where(free, grad + pull, 0.0)
        return objective, grad, grad_intercept

    def _pass(self, sweep, some):
        """Sums of loss and residual, and ``X' residual``, for some of the active receivers."""
        lanes, n = self.lanes, some.size
        tiles = np.arange(-(-n // lanes))
        offsets = np.full(tiles.size * lanes, LOG_ZERO, sweep.eta.dtype)
        offsets[:n] = self.point[-1, some]
        sweep.set_coef(self.point[:-1, some], tiles)
        totals = np.zeros((2, tiles.size * lanes))
        places = np.full(self.counts.events.n_units, -1)
        places[self.active[some]] = np.arange(n)
        weights = self.valid
        if not self.loss.exponential:
            weights = np.where(self.valid, self.counts.weight_of_bins, 0).astype(sweep.eta.dtype)
        for start, n_rows in sweep.chunks():
            if not self.valid[start : start + n_rows].any():
                continue  # such as a fold that is held out
            counts = sweep.eta
            if not self.loss.linear_counts:
                counts = np.zeros_like(sweep.eta)
                events = self.counts.events
                own = events.bins, places[events.units], events.amplitudes
                kernels.launch(kernels.scatter_counts, *own, lanes, start, n_rows, counts)
            eta = sweep.forward(start, n_rows)
            self._shift(sweep, start, n_rows, some)
            kernels.launch(
                self.loss.kernel,
                eta,
                counts,
                offsets,
                weights,
                start,
                n_rows,
                lanes,
                tiles,
                self.sums,
            )
            sums = self.sums[: tiles.size, : -(-n_rows // kernels.SEGMENT)]
            totals += sums.sum(axis=1).transpose(1, 0, 2).reshape(2, -1)
            sweep.backward(start, n_rows, eta)
        return totals[:, :n], sweep.collect()[:, :n]

    def _shift(self, sweep, start, n_rows, some):
        """Add what weights and offsets add to eta of some of the active receivers."""
        if not self.counts.plain:
            index = np.arange(start, start + n_rows)
            shift = self.counts.shift(index, self.loss.exponential)
            if shift is not None:
                sweep.add(columns(shift, self.active[some]))

    def step(self, moved, grad, grad_intercept, tol, polishing):
        """Steps at the accepted points; see `Steps`."""
        n, passes = self.active.size, self._assist(moved)
        if not self.loss.exponential or not all(self.own.get(j) for j in self.active):
            self.sample.set_point(self.active, self.point[:-1], self.point[-1])
        if not self.loss.exponential:
            self.mean, self.total = self.sample.mean[:, :n], self.sample.total[:n]
        steps = self.steps.step(moved, self.point, grad, grad_intercept, tol, polishing)
        receivers, decrement = self.active[moved], steps[2]
        with np.errstate(divide="ignore", invalid="ignore"):
            gain = np.log(np.maximum(self.last[receivers] / decrement, _LEAST_GAIN))
            self.n_left[receivers] = np.log(decrement / np.broadcast_to(tol, moved.size)) / gain
        self.last[receivers] = decrement
        return *steps[:3], passes

    def _assist(self, moved):
        """Give receivers that take long a preconditioner of their own: half a pass each.

        Where a receiver has few events for its features, or these come in bursts, its rates are
        close to zero in most bins and the bins that all share hold next to nothing of its
        curvature. Its own are drawn by its rates and by what they see. Of 100 receivers with 600
        events each and 800 features, two had not converged after 146 passes; with it the slowest
        takes 35. In a bursting culture (100 cells, an hour at 1 ms) 16 or 17 passes were 28.
        """
        receivers = self.active[moved]
        self.own = {j: self.own[j] for j in self.active if j in self.own}  # not of who has left
        self.n_steps[receivers] += 1
        passes = np.zeros(receivers.size, np.int64)
        if self.sample.shared.activity is None or not self.loss.exponential:
            return passes
        late = self.n_left[receivers] > self.late[receivers]
        late &= self.n_steps[receivers] >= self.next[receivers]
        late &= ~self.certain[receivers]
        new = np.flatnonzero(late & ~np.isin(receivers, list(self.own)))
        room = max(self.n_own - len(self.own), 0)
        late[new[np.argsort(-self.n_left[receivers[new]], kind="stable")[room:]]] = False
        if not late.any():
            return passes
        self.next[receivers[late]] = self.n_steps[receivers[late]] + _RENEW
        passes[late] = 1
        for place in moved[late]:
            self.own[self.active[place]] = None
        for j, index, weights in self._draw_own(moved[late]):
            self.own[j] = self._factorise_own(j, index, weights)
        self.steps.forget(receivers[late])
        return passes

    @cached_property
    def _activity(self):
        """What each bin sees, of the senders of this batch."""
        shared = self.sample.shared
        return activity(self.X) if shared.direct else shared.activity

    def _draw_own(self, places):
        """Bins and weights for some active receivers, drawn by their rates at this point."""
        sweep, n, shared = self.coarse, places.size, self.sample.shared
        receivers, active = self.active[places], self._activity
        n_draw = own_size(self.free.shape[0], self.n_bins)
        tiles = np.arange(-(-n // self.lanes))
        sweep.set_coef(self.point[:-1, places], tiles)
        # Rates and activity go together: their product on the shared bins sizes the draw.
        self.sample.weigh(receivers, self.point[:-1, places], self.point[-1, places])
        weights = self.sample.weights[:, :n]
        seen = np.broadcast_to(active[shared.index, None], weights.shape)
        together = column_dot(seen, weights) / (self.sample.total[:n] * shared.index.size)
        total = self.total[places] * self.n_bins * (1 + together)
        kept = [([], []) for _ in range(n)]
        for start, n_rows in sweep.chunks():
            sweep.forward(start, n_rows)
            self._shift(sweep, start, n_rows, places)
            eta = np.minimum(sweep.get(n_rows, n) + self.point[-1, places], 80.0)
            mu = np.empty((n_rows, n))
            kernels.launch(kernels.exp_array, eta.ravel(), mu.reshape(-1))
            # The same random numbers for every receiver: it must not matter who else is fitted.
            uniform = np.random.default_rng(start).random(n_rows)
            uniform[~self.valid[start : start + n_rows]] = np.inf
            seen = 1 + active[start : start + n_rows, None]
            chance = n_draw * ((1 - EVEN) * mu * seen / total + EVEN / self.n_bins)
            for k in range(n):
                hit = np.flatnonzero(uniform < chance[:, k])
                kept[k][0].append(start + hit)
                kept[k][1].append(mu[hit, k] / np.minimum(chance[hit, k], 1))
        for k, j in enumerate(receivers):
            index, weights = (np.concatenate(part) for part in kept[k])
            every = max(1, round(index.size / n_draw))  # where the shared bins knew too little
            yield j, index[::every], weights[::every] * every

    def _factorise_own(self, j, index, weights):
        """Cholesky factor of the Schur complement on a receiver's own bins."""
        sample, free = self.sample, np.flatnonzero(self.free[:, j])
        hess, moment = np.zeros((free.size, free.size)), np.zeros(free.size)
        n_rows = max(256, 2 * BLOCK_BYTES // (4 * max(free.size, 1)))
        for first in range(0, index.size, n_rows):
            part = slice(first, first + n_rows)
            root = np.sqrt(weights[part]).astype(np.float32)
            rows = self.X.rows(index[part], np.float32)[:, free] * root[:, None]

            def stripe(start, rows=rows):  # of the lower triangle: the bits depend on no thread
                columns = rows[:, start : start + _STRIPE]
                hess[start:, start : start + _STRIPE] += rows[:, start:].T @ columns

            run_threads(stripe, range(0, free.size, _STRIPE), rows.size * _STRIPE)
            moment += rows.T @ root
        mean = moment / max(float(weights.sum()), 1e-300)
        for row, value in zip(hess, moment, strict=True):
            row -= value * mean
        hess /= self.n_bins
        sample.shared.add_covariance(hess, BLEND * sample.level[j], free)
        hess += self.penalty.hessian(j, free)
        hess[np.diag_indices_from(hess)] *= 1 + 1e-7
        try:
            factor, _ = scipy.linalg.cho_factor(
                hess, lower=True, overwrite_a=True, check_finite=False
            )
        except LinAlgError:
            return None
        return free, factor.astype(np.float32)

    def harmless(self, active, grad, grad_intercept):
        """Trial points that are taken whatever the objective; see `Steps`."""
        return self.steps.harmless(self.point, grad, grad_intercept)

    # --- what a proximal step asks for ---

    def curvature(self, j, coef, intercept, features):
        """Sampled Hessian of receiver j; see `SampleProblem.curvature`."""
        return self.sample.curvature(j, coef, intercept, features)

    def learn(self, receivers, step, step_intercept, change, change_intercept):
        """Correct the kept Hessians by how steps have changed the gradients (BFGS)."""
        change = change - self.penalty.times(step, receivers)

        def one(k):
            model = self.sample.models.get(receivers[k])
            if model is None:
                return
            known, place, _, data = model
            moved = np.flatnonzero(step[:, k])
            at = place[moved]
            if (at < 0).any():
                return
            # Only their proportion counts: scaled, float32 holds the square of a small step.
            scale = 1 / max(np.abs(step[moved, k]).max(initial=0), abs(step_intercept[k]), 1e-300)
            kernels.learn_curvature(
                data,
                np.append(at, known.size),
                np.append(step[moved, k], step_intercept[k]) * scale,
                np.append(change[known, k], change_intercept[k]) * scale,
            )

        run_threads(one, range(receivers.size))

    def _wants_precise(self, receivers):
        return self.steps.expected[receivers] <= self.precise_below

    def fill(self, active):
        """Receivers of the next pass: the first of some that fill tiles, all where none do."""
        wants = self._wants_precise(active)
        whole = [
            some[: some.size - some.size % self.lanes] for some in (active[~wants], active[wants])
        ]
        chosen = np.concatenate(whole)
        return chosen if chosen.size else active

    def trust(self, j):
        """Part of its curvature that a model is sure of."""
        return Steps.THETA

    def announce(self, receivers, decrement):
        """A receiver that is about to converge is summed in float64."""
        self.expect(receivers, 0.15 * decrement)

    def expect(self, receivers, decrement):
        """The decrement of the next point: below the tolerance it is summed in float64."""
        self.steps.expected[receivers] = decrement

    def precondition(self, residual, columns):
        """The inverse of the sampled Schur complement, off the collinear directions."""
        z = np.zeros_like(residual)
        place = np.flatnonzero(columns < self.active.size)
        receivers = self.active[columns[place]]
        alone = np.array([self.own.get(j) is not None for j in receivers], bool)
        if not alone.all():
            rest = residual.copy()
            rest[:, place[alone]] = 0  # such columns take no part
            z = self.sample.solve(rest, columns)
        for k, j in zip(place[alone], receivers[alone], strict=True):
            free, factor = self.own[j]
            right = residual[free, k].astype(np.float32)
            z[free, k] = scipy.linalg.cho_solve((factor, True), right, check_finite=False)
        return self.off_null(z, place, receivers)

    def off_null(self, coef, columns, receivers):
        """Take the collinear directions of the receivers out of some columns, in place."""
        for k, j in zip(columns, receivers, strict=True):
            if self.null[j] is not None:
                free = self.free[:, j]
                coef[free, k] -= self.null[j] @ (self.null[j].T @ coef[free, k])
        return coef

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
