"""The objective and its curvature on sampled bins: start and preconditioner of a fit."""

from functools import partial

import numpy as np

from fastglm import _kernels as kernels
from fastglm._algebra.linear import NEAR, ROUNDING, cho_solve, cholesky
from fastglm._algebra.sampling import BLEND
from fastglm._engine.lbfgs import Steps
from fastglm._engine.observed import columns
from fastglm._engine.shared import scale_to
from fastglm._kernels.dots import column_dot
from fastglm._kernels.threads import run_threads
from fastglm.observation_models import LOG_ZERO

# Part of the shared curvature that is added to the sampled one. For the start it works as a prior:
# of parts from 0.02 to 0.3, 0.3 gave the lowest objective. For the steps a large part hides that
# cells are refractory: with `BLEND` = 0.3, 0.1 and 0.02 the slowest of 100 receivers took 11, 9 and
# 7 passes to 1e-8.
_START_BLEND = 0.3
_LIFT = 4.0  # most that a closed form may raise the log rate of a sampled bin
_STALE = 0.6  # rms change of log curvatures at which a kept Hessian is made anew
_EVERY = 16  # that change is measured at one sampled bin in 16
_LOST = 0.5  # of a kept curvature: less than that is left at a point that ends a fit
# Part of the shared curvature in models of sparse fits, where the sample does not hold all bins.
# A sender that silences a receiver leaves a hundredth of the shared curvature, or less.
_SPARSE_BLEND = 1e-3
_KEEP = 600  # most free features at which a kept Hessian covers all of them


class SampleProblem:
    """The objective and its curvature on sampled bins: start and preconditioner of a fit.

    A part (`BLEND`) of the shared curvature is added to the sampled curvature. The objective gets
    the same quadratic term around the closed-form start, so that coefficients do not move along
    directions that the sample does not contain.

    Memory: ``4 * n_sample * (n_features + n_lanes)`` bytes.
    """

    method = "newton-cg"
    exact = False
    rough = False
    polish = 0
    n_passes = 1  # of an evaluation
    _MAX_STEPS = 30

    def __init__(self, shared, free, penalty, loss, level, lanes, observed):
        self.shared, self.penalty, self.loss, self.lanes = shared, penalty, loss, lanes
        self.alone = False  # whether a search minimises it, as a problem of its own
        # Weights and offsets add the shift to eta, and multiply the curvature.
        self._shift = observed.shift(shared.index, loss.exponential)
        factor = observed.factor(shared.index, loss.exponential)
        self._share = shared.share if factor is None else shared.share * factor
        self.free, self.level, self.blend = free, level, BLEND
        self.plain = np.zeros(level.size, bool)  # a start needs no test for separation
        self.certain, self.floor = np.ones(level.size, bool), np.zeros(level.size)
        self.rounding = np.full(level.size, ROUNDING[np.float32])
        self.models = {}  # kept Hessians of receivers

    def set_penalty(self, penalty):
        """Another penalty for the same data."""
        self.penalty = penalty

    def begin(self, moments):
        """Begin as a problem of its own, with the moments of the counts.

        Returns the closed-form start: the optimum of the quadratic model around constant rates.
        """
        self.alone = True
        n_bins, n, factor = self.shared.n_bins, self.level.size, self.loss.count_factor
        rate = factor * moments.sum_y / n_bins
        self.linear = factor * moments.xty / n_bins, rate
        g = self.linear[0] - np.outer(moments.x / n_bins, rate)
        g = np.where(self.free, g, 0.0)
        start = self._closed_form(g)
        self.start = self._damp(np.where(self.free, start, 0.0))
        self.blend = _START_BLEND
        self.steps = Steps(self, n, self.lanes)
        return self.start

    def _closed_form(self, g):
        """Newton steps from constant rates, where minus the gradients are g."""
        level, ridge = self._pad(self.level), self._pad(self.penalty.level)
        spectrum, scale = self.shared.spectrum, 1.0
        odd = spectrum.unit != 1
        if odd.any():
            pull = self._pad(self.penalty.diagonal(slice(None)))
            diagonal = level * self.shared.diagonal[:, None] + pull
            scale = np.where(odd[:, None], scale_to(self.shared, level, ridge, diagonal), 1.0)
        return (spectrum.solve(level, ridge, self._pad(g) / scale) / scale)[:, : g.shape[1]]

    def is_floored(self):
        """Receivers whose ridge is too small for float32 beside collinear features."""
        shared, unit = self.shared, self.shared.unit**2
        with np.errstate(invalid="ignore"):
            pull = (self.penalty.diagonal(slice(None)) / unit[:, None]).min(axis=0, initial=np.inf)
        # No eigenvalue is above the trace, so most ridges need none of them.
        if (pull >= NEAR * self.level * (shared.diagonal / unit).sum()).all():
            return np.zeros(pull.size, bool)
        least, most = shared.eigenvalues.min(initial=np.inf), shared.eigenvalues.max(initial=0)
        return self.level * least + pull < NEAR * self.level * most

    def _damp(self, start):
        """Shorten closed forms that raise a sampled rate more than `_LIFT`.

        A closed form linearises exponential rates. Where events come in bursts it overshoots, to
        rates that may overflow, and the search would take longer than from coefficients of 0.
        """
        rows, padded = self.shared.rows, self._pad(start, 0.0).astype(np.float32)

        def lift(first):
            return rows.dot(rows.values[first : first + rows.size], padded).max(axis=0)

        lifts = np.max(run_threads(lift, rows.starts), axis=0)[: start.shape[1]]
        return start * np.minimum(1, _LIFT / np.maximum(lifts, 1e-30))

    def begin_near(self, coef, intercept, grad, grad_intercept):
        """Begin as a problem of its own whose gradient at a point is that of all events.

        The terms linear in the coefficients absorb the sample's error of the gradient at this
        point. The error of the optimum with another penalty is then the product of the distance to
        it and the noise of the sampled curvature (Shamir, Srebro & Zhang, 2014).
        """
        self.alone, everyone = True, np.arange(self.level.size)
        self.set_point(everyone, coef, intercept)
        n = everyone.size
        _, slope, slope_intercept = self._value(n)
        self.linear = slope - grad, slope_intercept - grad_intercept
        self.start = coef
        self.steps = Steps(self, n, self.lanes)

    def end(self):
        """Become a preconditioner again."""
        self.blend, self.alone = BLEND, False

    def set_point(self, active, coef, intercept):
        """Curvatures at a point: their sum over the sample, ``X'w``, and the diagonal of S."""
        rows, n = self.shared.rows, self.shared.index.size
        self._columns = None
        moment, diagonal, total = self.weigh(
            active,
            coef,
            intercept,
            lambda block, weights: (rows.dot(block.T, weights), rows.dot((block**2).T, weights)),
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            self.mean = moment / np.maximum(total, 1e-300)
            diagonal = diagonal / n - self.mean**2 * self.total
        level, ridge = self._lane(self.level), self._lane(self.penalty.level)
        pull = self._pad(self.penalty.diagonal(active))
        shape = self.shared.diagonal[:, None]
        diagonal = np.maximum(diagonal, 0) + self.blend * level * shape
        self._level = (1 + self.blend) * np.maximum(self.total, 1e-30)
        self.scale = scale_to(self.shared, self._level, ridge, diagonal + pull)
        self._mask = self._lane(self.free, False)

    def _active_shift(self):
        """The shift of the active receivers' eta, or None."""
        if self._shift is None:
            return None
        shift = np.broadcast_to(self._shift, (self._shift.shape[0], self.level.size))
        return self._lane(shift, 0.0).astype(np.float32)

    def _lane(self, values, fill=1.0):
        """Values of the active receivers, padded to whole tiles."""
        return self._pad(values[..., self.active], fill)

    def _pad(self, values, fill=1.0):
        pad = -values.shape[-1] % self.lanes
        if pad == 0:
            return values
        return np.concatenate([values, np.full((*values.shape[:-1], pad), fill)], axis=-1)

    def product(self, v, columns):
        """The Schur complement on the sample, times the columns of v."""
        if self._columns is None or not np.array_equal(columns, self._columns):
            whole = columns.size == self.weights.shape[1]
            self._columns = columns
            self._some = self.weights if whole else np.ascontiguousarray(self.weights[:, columns])
        out, total = self.shared.rows.weighted(self._some, v)
        out -= self.mean[:, columns] * total
        out /= self.shared.index.size
        out += self.blend * self._lane(self.level)[columns] * self.shared.times(v)
        inside = np.flatnonzero(columns < self.active.size)
        out[:, inside] += self.penalty.times(v[:, inside], self.active[columns[inside]])
        return np.where(self._mask[:, columns], out, 0.0)

    def precondition(self, residual, columns):
        """The inverse of the scaled shared covariance and ridge, times the residuals."""
        scale = self.scale[:, columns]
        ridge = self._lane(self.penalty.level)[columns]
        z = self.shared.spectrum.solve(self._level[columns], ridge, residual / scale) / scale
        return np.where(self._mask[:, columns], z, 0.0)

    def weigh(self, active, coef, intercept, sums=lambda block, weights: ()):
        """Curvatures at a point; returns ``sums`` over the sample, then the sum of curvatures."""
        rows, loss, n = self.shared.rows, self.loss, self.shared.index.size
        self.active = active
        # Cumulant and mean are needed beside the curvature if they differ from it.
        own = self.alone and not loss.exponential
        if np.ndim(loss.scale):
            loss = loss.at(self._lane(loss.scale))
        coef = self._pad(coef, 0.0).astype(np.float32)
        idle = LOG_ZERO if loss.least is None else loss.least + 1  # of lanes without a receiver
        intercept = self._pad(intercept, idle).astype(np.float32)
        self.weights = np.empty((n, coef.shape[1]), np.float32)
        shift = self._active_shift()

        def weigh(block, part):
            with np.errstate(over="ignore", invalid="ignore"):
                eta = rows.dot(block, coef) + intercept
                if shift is not None:
                    eta += shift[part]
                share = self._share[part]
                value = ()
                if own:
                    mu = (loss.count_factor * loss.mean(eta) * share).astype(np.float32)
                    cumulant = (loss.cumulant(eta) * share).sum(axis=0, dtype=np.float64)
                    value = cumulant, rows.dot(block.T, mu), mu.sum(axis=0, dtype=np.float64)
                weights = loss.expected_curvature(eta)
                weights *= share
                self.weights[part] = weights
                total = weights.sum(axis=0, dtype=np.float64)
                return (*value, *sums(block, weights), total)

        *others, total = rows.map(weigh)
        if own:
            self.value, others = [part / n for part in others[:3]], others[3:]
        with np.errstate(invalid="ignore"):
            self.total = total / n
        return *others, total

    def curvature(self, j, coef, intercept, features):
        """Schur complement of receiver j on the sample, float32; see `Curvature`.

        The Hessian is kept until the curvatures of one sampled bin in `_EVERY` have changed by more
        than `_STALE`. Steps correct it (`EventProblem.learn`).
        """
        at = j, coef.astype(np.float32), np.float32(intercept)
        curvatures = partial(self._curvatures, *at)
        data, chosen = self._kept_hessian(j, features, curvatures, self._sparse_blend)
        return self._reduce(data, chosen, np.float32)

    @property
    def _sparse_blend(self):
        return 0.0 if self.shared.whole else _SPARSE_BLEND

    def outdated(self, j, coef, intercept, features):
        """Whether a feature has lost most of the curvature that the kept Hessian gives it.

        It is forgotten then. The curvature of a sender that silences a receiver falls in the few
        bins after its events, and the mean change of all bins does not show that.
        """
        _, place, _, data = self.models[j]
        at = place[features]
        weights = self._curvatures(j, coef.astype(np.float32), np.float32(intercept), slice(None))
        rows = self.shared.rows.values[:, features]
        now = np.einsum("tf,tf,t->f", rows, rows, weights) / weights.size
        now += self._sparse_blend * self.level[j] * self.shared.diagonal[features]
        lost = (now < _LOST * data[at, at]).any()
        if lost:
            del self.models[j]
        return lost

    def _reduce(self, data, chosen, dtype):
        """The intercept, which is the last of some places in a Hessian, is eliminated."""
        n = chosen.size - 1
        schur, mean = np.empty((n, n), dtype), np.empty(n)
        total = kernels.reduce_model(data, chosen, mean, schur)
        return schur, mean, total

    def _kept_hessian(self, j, features, curvatures, blend):
        """The same; ``curvatures(part)`` gives those of receiver j at some of the sampled bins.

        A part ``blend`` of the shared curvature is added.
        """
        root = np.sqrt(curvatures(slice(None, None, _EVERY)))
        model = self.models.get(j)
        if model is not None:
            known, place, was, data = model
            change = root - was
            stale = 4 * (change @ change) > _STALE**2 * (root @ root)
            if stale or (place[features] < 0).any():
                model = None
        if model is None:
            known = self._worth_keeping(j, features)
            data = self._sampled_hessian(j, known, curvatures(slice(None)), blend)
            place = np.full(self.free.shape[0], -1)
            place[known] = np.arange(known.size)
            self.models[j] = known, place, root, data
        return data, np.append(place[features], known.size)

    def _curvatures(self, j, coef, intercept, part):
        """Curvatures of receiver j at some of the sampled bins."""
        eta = self.shared.rows.values[part] @ coef + intercept
        if self._shift is not None:
            eta += columns(self._shift, [j])[part, 0]
        with np.errstate(over="ignore", invalid="ignore"):  # a trial point may be far off
            weights = self.loss.select(j).expected_curvature(eta)
            return weights * self._share[part, 0]

    def _sampled_hessian(self, j, features, weights, blend):
        """Hessian of the mean loss of receiver j over some features; the intercept is last."""
        n, root = self.shared.index.size, np.sqrt(weights)
        rows = self.shared.rows.values
        rows = (rows if features.size == rows.shape[1] else rows[:, features]) * root[:, None]
        out = np.empty((features.size + 1,) * 2, np.float32)
        out[:-1, :-1] = rows.T @ rows
        out[-1, :-1] = out[:-1, -1] = rows.T @ root
        out[-1, -1] = weights.sum(dtype=np.float64)
        out /= n
        self.shared.add_covariance(out[:-1, :-1], blend * self.level[j], features)
        return out

    def _worth_keeping(self, j, features):
        """Features of a receiver's kept Hessian: all free features, if they are few enough."""
        free = np.flatnonzero(self.free[:, j])
        if free.size <= _KEEP:
            return free
        return np.sort(features)

    def solve(self, residual, columns, accuracy=0.1):
        """The inverse of `product`, by conjugate gradients until the residual has shrunk.

        It shrinks by the factor ``accuracy``, in the norm that the preconditioner defines.
        """
        d, live = np.zeros_like(residual), np.arange(columns.size)
        z = self.precondition(residual, columns)
        rho = column_dot(residual, z)
        goal = accuracy**2 * rho
        direction = z
        for _ in range(self._MAX_STEPS):
            going = (rho > goal) & (rho > 0)
            if not going.any():
                break
            # Columns that are done leave as soon as they fill a tile. Most columns take 3 products,
            # a few take 6: without leaving, 0.3 to 0.5 of the products would be idle.
            n_live = -(-going.sum() // self.lanes) * self.lanes
            if n_live < live.size:
                keep = np.sort(np.argsort(~going, kind="stable")[:n_live])
                live, residual, direction, rho, goal, going = (
                    values[..., keep] for values in (live, residual, direction, rho, goal, going)
                )
            product = self.product(direction, columns[live])
            with np.errstate(divide="ignore", invalid="ignore"):
                alpha = np.where(going, rho / column_dot(direction, product), 0.0)
            alpha = np.where(np.isfinite(alpha) & (alpha > 0), alpha, 0.0)
            d[:, live] += alpha * direction
            residual = residual - alpha * product
            z = self.precondition(residual, columns[live])
            new = column_dot(residual, z)
            direction = z + np.where(rho > 0, new / np.where(rho > 0, rho, 1), 0) * direction
            rho = np.where(alpha > 0, new, 0.0)
        return d

    # --- as a problem of its own ---

    def evaluate(self, active, coef, intercept):
        """Objective and gradient with the sampled rates and the exact ``X'Y``."""
        n = active.size
        self.point = np.vstack([coef, intercept])
        self.set_point(active, coef, intercept)
        xty, rate = (part[..., active] for part in self.linear)
        level, moved = self.level[active], coef - self.start[:, active]
        value, slope, slope_intercept = self._value(n)
        pull = self.shared.times(self._pad(moved, 0.0))[:, :n]
        pull *= self.blend * level
        penalty = self.penalty.times(coef, active)
        objective = value - column_dot(coef, xty) - intercept * rate
        objective += 0.5 * (column_dot(coef, penalty) + column_dot(moved, pull))
        grad = slope - xty + penalty + pull
        return objective, np.where(self.free[:, active], grad, 0.0), slope_intercept - rate

    def _value(self, n):
        """Means of the cumulant and of its derivatives, of the first n active receivers.

        An exponential cumulant equals its derivative in eta.
        """
        if self.loss.exponential:
            total = self.total[:n]
            return total, self.mean[:, :n] * total, total
        return tuple(part[..., :n] for part in self.value)

    def step(self, moved, grad, grad_intercept, tol, polishing):
        """Steps at the accepted points; see `Steps`."""
        return self.steps.step(moved, self.point, grad, grad_intercept, tol, polishing)

    def claim(self, moved, grad, decrement):
        """The gaps that are claimed: the decrements of `Steps`."""
        return decrement

    def harmless(self, active, grad, grad_intercept):
        """Trial points that are accepted at any objective; see `Steps`."""
        return self.steps.harmless(self.point, grad, grad_intercept)

    def largest_change(self, receivers, step, coef, intercept):
        """Zero: a start is not tested for separation."""
        return np.zeros(receivers.size)


class SingleProblem(SampleProblem):
    """`SampleProblem` for a receiver with features of its own: its systems are factorised.

    A single receiver does not pay for the spectrum, which costs ten times as much as a factor, nor
    for conjugate gradients, which read the sample for one column. The start is preconditioned with
    the covariance. The fit is preconditioned with the Hessian on the sample, made once or twice.
    """

    def __init__(self, *args):
        super().__init__(*args)
        self._even, self._factors = {}, {}

    def set_penalty(self, penalty):
        """Another penalty for the same data."""
        super().set_penalty(penalty)
        self._even.clear()
        self._factors.clear()

    def end(self):
        """Become a preconditioner again."""
        super().end()
        self._even.clear()

    def _closed_form(self, g):
        return np.column_stack([self._solve_evenly(j, g[:, j]) for j in range(g.shape[1])])

    def set_point(self, active, coef, intercept):
        """Curvatures at a point: their sum over the sample, and ``X'w``."""
        rows = self.shared.rows
        moment, total = self.weigh(
            active, coef, intercept, lambda block, weights: (rows.dot(block.T, weights),)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            self.mean = moment / np.maximum(total, 1e-300)

    def precondition(self, residual, columns):
        """The inverse of S at a constant rate, scaled to this point's rate, times the residuals."""
        z = np.empty_like(residual)
        for k, column in enumerate(columns):
            j = self.active[column]
            level = (1 + self.blend) * max(self.total[column], 1e-30)
            z[:, k] = self._solve_evenly(j, residual[:, k]) * (self.level[j] / level)
        return z

    def solve(self, residual, columns):
        """The inverse of S on the sample, times the residuals."""
        d = np.zeros_like(residual)
        for k, column in enumerate(columns):
            if not residual[:, k].any():
                continue
            j, weights = self.active[column], self.weights[:, column]
            free = np.flatnonzero(self.free[:, j])
            data, chosen = self._kept_hessian(j, free, weights.__getitem__, self.blend)
            if self._factors.get(j, (None,))[0] is not data:
                schur, _, _ = self._reduce(data, chosen, np.float64)
                schur += self.penalty.hessian(j, free)
                schur[np.diag_indices_from(schur)] *= 1 + 1e-6  # rounding of float32 sums
                self._factors[j] = data, cholesky(schur)
            d[free, k] = cho_solve(self._factors[j][1], residual[free, k])
        return d

    def _solve_evenly(self, j, v):
        """The inverse of S at the mean rate of receiver j, times a vector."""
        z, free = np.zeros_like(v), np.flatnonzero(self.free[:, j])
        if j not in self._even:
            matrix = self.penalty.hessian(j, free)
            level = self.level[j]
            matrix[np.diag_indices_from(matrix)] += 1e-6 * level * self.shared.diagonal[free]
            self.shared.add_covariance(matrix, level, free)
            self._even[j] = cholesky(matrix)
        z[free] = cho_solve(self._even[j], v[free])
        return z
