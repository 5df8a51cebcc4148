"""The problem of a batch of receivers with many features: gradients from all events.

`EventProblem` joins four parts: the `Objective`, which is one pass over the events, the steps of
`lbfgs.Steps`, the preconditioner of `SampleProblem`, and `LateReceivers`. It decides which
receivers a pass sums in float64.
"""

import itertools

import numpy as np

from fastglm import _kernels as kernels
from fastglm._algebra.linear import ROUNDING, has_slope, null_spaces, rounding_floor
from fastglm._engine.late import LateReceivers
from fastglm._engine.lbfgs import Steps
from fastglm._engine.protocols import Uncentred
from fastglm._kernels.dots import column_dot
from fastglm._kernels.threads import run_threads

_FAR = 3e-3  # standard deviation, as a part of the mean, that float32 does not hold
_LEAST = 1e-30  # square of a feature that float32 holds
_NO_SLOPE = 1e-20  # decrement along one feature that is rounding
_MISSED = 1e3  # of a decrement: the curvature of one feature is known to within such a factor
_SPURIOUS = 1e-2  # most of a curvature that rounding of a gradient may add
PRECISE = 1e-11  # gradients of receivers with a smaller decrement are summed in float64


class EventProblem(Uncentred):
    """Objective and gradient from all events: for many features.

    A pass adds up every event's filter: n_events * window_size * n_receivers additions each way.
    Sums run in float32 while the decrement is large, and in float64 for the certificate.

    Memory: the sample, some 50 float32 numbers a coefficient of the batch, and a chunk of bins.
    Only the events grow with the number of bins.
    """

    method = "newton-cg"
    exact = flat = False
    n_passes = 1  # of an evaluation

    def __init__(self, objective, sample, lanes, tol, rough, n_own):
        self.objective, self.sample, self.lanes = objective, sample, lanes
        self.loss, self.free = objective.loss, objective.free
        # A receiver that is about to converge is summed in float64. A rough fit changes to float64
        # only below `PRECISE`, where the change of a float32 gradient is rounding.
        self.precise_below = PRECISE if rough else max(tol, PRECISE)
        if objective.loss.constant_curvature:  # the unit of y is the user's: no decrement is small
            self.precise_below = np.inf
        self.rough = tol > self.precise_below
        # A loose tolerance may be met before a step has shown how far the sampled curvature is from
        # the true one: with weights that differ much, by a factor of ten.
        weighted = objective.observed.weight is not None
        self.polish = int(tol > PRECISE and weighted and not self.rough)
        n = objective.free.shape[1]
        self.certain, self.floor = np.zeros(n, bool), np.zeros(n)
        if self.loss.constant_curvature:
            shared, mean = sample.shared, objective.moments.x / objective.n_bins
            squares = objective.constant / objective.n_bins
            self.floor = rounding_floor(shared.diagonal, mean, squares)
        self.rounding, self._was_rounded = np.zeros(n), np.zeros(n)
        self._learned = np.zeros(n)  # rounding of the gradients at the last accepted points
        self.steps = Steps(self, n, lanes)
        self.late = LateReceivers(objective, sample, n_own)
        self.forget()
        self.set_penalty(objective.penalty)

    def set_penalty(self, penalty):
        """Another penalty for the same data."""
        self.penalty = self.objective.penalty = penalty
        self.sample.set_penalty(penalty)
        self.plain = (penalty.unpenalised(self.free.shape[0]) & self.free).any(axis=0)
        covariance = self.sample.shared.covariance
        self.collinear, self.near = null_spaces(
            covariance, self.free, penalty, self.plain | penalty.sparse
        )
        self.near |= self._far()
        if not self.plain.all():
            self.near |= ~self.plain & self.sample.is_floored()
        self.null = [s if p else None for s, p in zip(self.collinear, self.plain, strict=True)]

    def _far(self):
        """Receivers with columns so far from zero that float32 does not hold their deviations.

        A column that is constant, but for rounding of its square, is one of them.
        """
        mean = self.objective.moments.x / self.objective.n_bins
        far = self.sample.shared.diagonal < (_FAR * mean) ** 2
        return self.free[far].any(axis=0)

    def forget(self, receivers=slice(None)):
        """Begin a new fit of some receivers: float32 sums, no pairs, no bins of their own."""
        self.steps.forget(receivers)
        self.late.forget(receivers)
        self.certain[receivers] = False
        self._was_rounded[receivers] = 0
        self._learned[receivers] = ROUNDING[np.float32]

    def anchor(self):
        """The last accepted points, and the gradients of the mean loss there."""
        point, grad = self.steps.point.T, self.steps.grad.T
        pull = self.penalty.times(np.where(self.free, point[:-1], 0.0), slice(None))
        return point[:-1], point[-1], np.where(self.free, grad[:-1] - pull, 0.0), grad[-1]

    @property
    def theta(self):
        """Smallest eigenvalue of the preconditioned Schur complement so far, per receiver."""
        return self.steps.theta

    def evaluate(self, active, coef, intercept):
        """Objective and gradient at the given points: one pass."""
        self.active, self.point = active, np.vstack([coef, intercept])
        wants = self._wants_precise(active)
        self.certain[active] = wants | self.rough
        rounded = np.where(wants, ROUNDING[np.float64], ROUNDING[np.float32])
        self.rounding[active] = np.maximum(rounded, self._was_rounded[active])
        self._was_rounded[active] = rounded
        found = self.objective.evaluate(active, coef, intercept, wants)
        self.mean, self.total = found.mean, found.total
        return found.objective, found.grad, found.grad_intercept

    def step(self, moved, grad, grad_intercept, tol, polishing):
        """Steps at the accepted points; see `Steps`."""
        n, receivers = self.active.size, self.active[moved]
        known = self.mean is not None
        if not known:  # the moments of the curvature come from the sample
            self._set_point(n)
        certain = self.certain[self.active]
        passes = self.late.assist(self.active, moved, certain, self.point, self.total)
        self.steps.forget(receivers[passes])
        if (not known and passes.any()) or (known and not self.late.has(self.active).all()):
            self._set_point(n, known)
        steps = self.steps.step(moved, self.point, grad, grad_intercept, tol, polishing)
        lost = ~(steps[2] > tol)
        if lost.any():  # a decrement of float32 sums: a feature may be out of their range
            steps[2][lost & self._misses(moved, grad, grad_intercept, steps[2])] = np.nan
        self.late.judge(receivers, steps[2], tol)
        return *steps[:3], passes.astype(np.int64)

    def _misses(self, moved, grad, grad_intercept, decrement):
        """Whether the slope of one feature alone promises far more than a decrement says.

        ``g' S^-1 g`` is at least ``g_f^2 / S_ff`` for every feature f.
        """
        mean, receivers = self.mean[:, moved], self.active[moved]
        slope = np.where(self.free[:, receivers], grad - mean * grad_intercept, 0.0)
        curved = self.total[moved] * self.sample.shared.diagonal[:, None]
        curved += self.penalty.diagonal(receivers)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            alone = np.where(curved > 0, slope**2 / curved, 0.0).max(axis=0, initial=0.0)
        return alone > np.maximum(_NO_SLOPE, _MISSED * decrement)

    def _set_point(self, n, known=False):
        self.sample.set_point(self.active, self.point[:-1], self.point[-1])
        if not known:
            self.mean, self.total = self.sample.mean[:, :n], self.sample.total[:n]

    def claim(self, moved, grad, decrement):
        """The gaps that are claimed at the accepted points: the decrements of `Steps`."""
        return decrement

    def harmless(self, active, grad, grad_intercept):
        """Trial points that are accepted at any objective; see `Steps`."""
        return self.steps.harmless(self.point, grad, grad_intercept)

    # --- for proximal steps ---

    def curvature(self, j, coef, intercept, features):
        """Schur complement on the sample; see `SampleProblem.curvature`.

        It is NaN where the square of a feature is out of the range of float32.
        """
        schur, mean, total = self.sample.curvature(j, coef, intercept, features)
        diagonal, known = np.diag(schur), self.sample.shared.diagonal[features]
        if not ((diagonal > _LEAST) | (known == 0)).all():
            schur[:] = np.nan
        return schur, mean, total

    def learn(self, receivers, step, step_intercept, change, change_intercept):
        """Correct the kept Hessians by the changes of the gradients over steps (BFGS).

        A change y over a step s adds ``y y' / s'y``. Rounding of y is ``r`` times the sums of a
        pass at most, so it adds up to ``r^2 w / s'y`` of every curvature, with the mean curvature w
        of the bins. Steps that are too short for that are left out.
        """
        change = change - self.penalty.times(step, receivers)
        inner = column_dot(step, change) + step_intercept * change_intercept
        rounded = np.maximum(self._was_rounded[receivers], self._learned[receivers])
        self._learned[receivers] = self._was_rounded[receivers]

        def one(k):
            model = self.sample.models.get(receivers[k])
            if model is None:
                return
            known, place, _, data = model
            moved = np.flatnonzero(step[:, k])
            at = place[moved]
            hidden = rounded[k] ** 2 * data[-1, -1]
            if (at < 0).any() or not inner[k] * _SPURIOUS > hidden:
                return
            # Only the ratio of step and change matters. Scaling keeps small squares in float32.
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
        """Receivers of the next pass: the first that fill whole tiles, or all if none do."""
        wants = self._wants_precise(active)
        whole = [
            some[: some.size - some.size % self.lanes] for some in (active[~wants], active[wants])
        ]
        chosen = np.concatenate(whole)
        return chosen if chosen.size else active

    def trust(self, j):
        """Lower bound of the true curvature, as a part of the model's."""
        return Steps.THETA

    def outdated(self, j, coef, intercept, features):
        """Whether a kept Hessian has far more curvature than this point; see `SampleProblem`."""
        return self.sample.outdated(j, coef, intercept, features)

    def announce(self, receivers, decrement):
        """Take the decrements at the points before the next pass."""
        self.expect(receivers, 0.15 * decrement)

    def expect(self, receivers, decrement):
        """Take the decrements that the next points should have; small ones call for float64."""
        self.steps.expected[receivers] = decrement

    def precondition(self, residual, columns):
        """The inverse of the sampled Schur complement, off the collinear directions."""
        z = np.zeros_like(residual)
        place = np.flatnonzero(columns < self.active.size)
        receivers = self.active[columns[place]]
        alone = self.late.has(receivers)
        if not alone.all():
            rest = residual.copy()
            rest[:, place[alone]] = 0  # columns of zeros cost no products
            z = self.sample.solve(rest, columns)
        own = list(zip(place[alone], receivers[alone], strict=True))

        def solve(item):
            k, j = item
            z[:, k] = self.late.solve(j, residual[:, k])

        run_threads(solve, own, len(own) * residual.shape[0] ** 2)
        return self.off_null(z, place, receivers)

    def least_norm(self, receivers, coef, intercept):
        """Take the directions out that change neither eta nor the penalty, in place."""
        mean = self.objective.moments.x / self.objective.n_bins
        before = coef.copy()
        self.off_null(coef, range(len(receivers)), receivers)
        intercept += mean @ (before - coef)

    def unresolved(self, coef, intercept, cheap=False):
        """Receivers whose optimum the sums of this problem may not resolve, (n_receivers,).

        Columns are nearly collinear, or the loss has a slope along a direction that was taken for
        collinear. This takes a pass where there is such a direction. Where rows are ``cheap`` any
        such direction is theirs to judge.
        """
        shared = self.sample.shared
        found = self.near | (cheap & np.array([space is not None for space in self.null], bool))
        collinear = np.flatnonzero([space is not None for space in self.collinear])
        if not collinear.size:
            return found
        at = self.objective.evaluate(
            collinear, coef[:, collinear], intercept[collinear], np.ones(collinear.size, bool)
        )
        penalised = np.where(self.free[:, collinear], coef[:, collinear], 0.0)
        slope = at.grad - self.penalty.times(penalised, collinear)
        mean = self.objective.moments.x / self.objective.n_bins
        slope -= np.outer(mean, at.grad_intercept)
        size = np.sqrt(shared.diagonal + mean**2)
        unit = np.sqrt(self.sample.level)
        for k, j in enumerate(collinear):
            free = self.free[:, j]
            found[j] |= has_slope(self.collinear[j], size[free], slope[free, k], unit[j])
        return found

    def off_null(self, coef, columns, receivers):
        """Take the collinear directions of the receivers out of some columns, in place."""
        for k, j in zip(columns, receivers, strict=True):
            if self.null[j] is not None:
                free = self.free[:, j]
                coef[free, k] -= self.null[j] @ (self.null[j].T @ coef[free, k])
        return coef

    def vanishes(self, receivers, coef, intercept, least):
        """Whether the curvature of some bin is below a least one, for receivers at some points.

        This is half a pass.
        """
        objective, found = self.objective, np.zeros(receivers.size, bool)
        loss = self.loss.select(receivers)
        for chunk in objective.passes.forward(coef, precise=False):
            eta = chunk.eta + intercept
            shift = objective.observed.shift(chunk.index, False, receivers)
            eta = eta if shift is None else eta + shift
            with np.errstate(over="ignore"):
                found |= (loss.expected_curvature(eta) < least)[chunk.valid].any(axis=0)
        return found

    def largest_change(self, receivers, step, coef, intercept):
        """Largest change of eta in any bin by steps to some points, times `Loss.pace` there.

        This is half a pass, or a whole pass where the pace is not 1.
        """
        objective, loss, largest = self.objective, self.loss, np.zeros(receivers.size)
        steps, points = objective.passes.forward(step), itertools.repeat(None)
        if loss.pace is not None:
            points = objective.passes.forward(coef, precise=False)
        for chunk, point in zip(steps, points, strict=False):
            change = np.abs(chunk.eta)
            if point is not None:
                eta = point.eta + intercept
                shift = objective.observed.shift(chunk.index, loss.exponential, receivers)
                change *= loss.pace(eta if shift is None else eta + shift)
            largest = np.maximum(largest, change[chunk.valid].max(axis=0, initial=0))
        return largest
