"""Quasi-Newton steps for many features: gradients from all events, curvature from a few bins.

Three levels, each the preconditioner of the one above:

1. all events (`EventProblem`): objective and gradient, one pass;
2. a sample of bins (`SampleProblem`): the Hessian on some twenty bins a feature, whose rows are
   kept in memory, inverted by conjugate gradients;
3. `Spectrum`: ``X'X`` of all data, the shape of every Hessian where rates vary little,
   diagonalised once for all receivers and ridge values and scaled to each diagonal.

`Steps` joins them: limited-memory BFGS (Nocedal, 1980) whose initial matrix is the level below. On
a quadratic it is the preconditioned method of conjugate gradients, but every pass is a true
gradient at a new point, so none is spent on solving for a step that the next point makes obsolete.

The sample also gives the starting point. Of the objective ``mean(exp(eta)) - mean(y * eta)`` only
the first term needs bins: the second is ``X'Y``, known exactly. So the optimum on a few bins is off
by the noise of the sampled rates alone, whose variance is smaller than that of the counts by the
mean count per bin, 0.01 at 1 ms.
"""

import weakref
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg
from scipy.linalg import LinAlgError

from fastglm import _kernels as kernels
from fastglm._observed import columns
from fastglm._poisson import LOG_ZERO
from fastglm._threads import all_blas_threads, run_threads
from fastglm.features import Sweep, column_dot, tiled_dot

_BLOCK_BYTES = 1 << 22  # rows that one thread works on at a time
_MANY = 1000  # features from which a call of BLAS is given all threads
_DOUBLE_SPECTRUM = 1500  # features up to which X'X is diagonalised in float64
# Part of the shared curvature that is added to a sampled one. For the start it works as a prior:
# 0.3 began lowest of 0.02 to 0.3. For the steps it hides that cells are refractory: with 0.3, 0.1
# and 0.02 the slowest of 100 receivers took 11, 9 and 7 passes to 1e-8.
_START_BLEND, _BLEND = 0.3, 0.02
_LIFT = 4.0  # most that a closed form may raise the log rate of a sampled bin
_SAMPLE, _MIN_SAMPLE = 20, 2000  # sampled bins a feature, and at least
_POOL, _UNIFORM = 4, 0.3  # bins looked at for each one drawn; part drawn evenly
SKETCH = 64  # directions in which a bin is looked at
# Mean square changes of eta: below the first the Hessian is as good as constant, below the second
# the change of a float32 gradient is as good as rounding.
_SMALL, _TINY = 0.05, 1e-10
_ASYMMETRY = 0.1  # of what two steps say of the curvature between them, as a part of their own
_PRECISE = 1e-11  # a decrement below this calls for gradients in float64
# Relative rounding of an objective: float64 sums of values of the given precision.
_ROUNDING = {np.float64: 1e-13, np.float32: 1e-6}
# A receiver that has more than so many steps to go, after so many, is given bins of its own, and
# new ones after so many more. A step that gains less than a factor of 1.2 counts as that. Where
# features are many for the events, a factor costs as much as 10 or 20 steps: it has to be worth it.
_LATE, _FIRST, _RENEW, _LEAST_GAIN = 6, 5, 5, 1.2
# Multiply-adds of BLAS in float32 that take as long as an addition of an event, as one in a float64
# Cholesky factor, and as the rate of a bin: those of `_plan.TYPICAL`. Not measured: no result
# depends on the machine.
_ADDITION, _DOUBLE, _RATE = 2, 2.4, 120
# Own bins a feature, and at least; part of them drawn evenly. Four cells, 20 s at 1 ms, a ridge of
# 1e-6: with 240 bins for 24 features the slowest of 32 receivers took 135 passes, with 5000 13.
_OWN, _MIN_OWN, _EVEN = 5, 5000, 0.2
_STRIPE = 128  # columns of a Hessian that one thread makes
_STALE = 0.6  # root mean square change of log curvatures at which a kept Hessian is made anew
_EVERY = 16  # sampled bins of which one is looked at for that
_KEEP = 600  # features up to which a kept Hessian is over all of them
_RANK = 1e-12  # an eigenvalue of the scaled Gram matrix below this is a collinear direction


def sample_size(n_features, n_bins, memory_budget=np.inf):
    """Sampled bins: twenty a feature, as far as four tenths of the memory hold them."""
    fits = memory_budget / (10 * max(n_features, 1))
    return int(min(max(_MIN_SAMPLE, min(_SAMPLE * n_features, fits)), n_bins))


def own_size(n_features, n_bins):
    """Bins that are drawn for a receiver that takes long."""
    return min(max(_OWN * n_features, _MIN_OWN), n_bins)


def n_own_factors(n_features, memory_budget):
    """Receivers that may have bins of their own: a tenth of the memory holds their factors.

    One more is being made, in float64 and then again in float32. None below 100 MB, most of which
    the rest takes.
    """
    return int(max((memory_budget - 1e8) / (40 * max(n_features, 1) ** 2) - 3, 0))


class Rows:
    """A matrix cut into blocks of rows, one for a thread at a time.

    Sums over blocks run in their order, and columns are multiplied in whole tiles of ``lanes``: the
    bits depend neither on the number of threads nor on the other receivers.
    """

    def __init__(self, values, lanes):
        self.values, self.lanes = values, lanes
        size = max(64, _BLOCK_BYTES // (4 * max(values.shape[1], 1)))
        self.starts = range(0, values.shape[0], size)
        self.size = size

    def map(self, function):
        """Sum over the blocks of ``function(rows, slice)``, a tuple of arrays."""

        def block(start):
            part = slice(start, start + self.size)
            return function(self.values[part], part)

        total = None
        # A few blocks at a time: every block in flight holds a partial sum.
        for first in range(0, len(self.starts), 8):
            for parts in run_threads(block, self.starts[first : first + 8]):
                if total is None:
                    total = [part.astype(np.float64) for part in parts]
                else:
                    for sum_, part in zip(total, parts, strict=True):
                        sum_ += part
        return total

    def dot(self, rows, v):
        """``rows @ v``, the same bits for a column whatever the others are."""
        return tiled_dot(rows, v, self.lanes)

    def weighted(self, weights, v):
        """``rows' (weights * (rows v))`` and the sum of ``weights * (rows v)`` over the rows."""
        v = v.astype(np.float32)

        def product(rows, part):
            out = self.dot(rows, v)
            with np.errstate(invalid="ignore"):  # a trial point may have infinite rates
                out *= weights[part]
            return self.dot(rows.T, out), out.sum(axis=0, dtype=np.float64)

        return self.map(product)


def blas_threads(lanes, n_features):
    """Context of one large call of BLAS; a receiver alone stays on its thread.

    Its idle threads spin on for a while: a loose fit of 50 receivers with 400 features took 0.34 s,
    and 0.27 without them. At 800 features they gain what they cost.
    """
    return all_blas_threads() if lanes > 1 and n_features > _MANY else nullcontext()


class Spectrum:
    """Eigenvalues and eigenvectors of the covariance of the features, ``X'X / n - x x'``.

    Memory: ``4 * n_features**2`` bytes, three times that while it is made.
    """

    def __init__(self, covariance, lanes):
        driver = "evd" if len(covariance) > 1 else None  # SciPy 1.11 fails at a single number
        with blas_threads(lanes, len(covariance)):
            values, vectors = scipy.linalg.eigh(covariance, check_finite=False, driver=driver)
        self.values = np.maximum(values, 0).astype(np.float32)[:, None]
        self.vectors = Rows(np.ascontiguousarray(vectors.T, np.float32), lanes)

    def leverage(self, X, index, mean):
        """``(x - mean)' covariance^-1 (x - mean)`` of the rows at some bins.

        Of many features an estimate, right to 18 %: the square of the whitened row on `SKETCH`
        random directions (Drineas, Magdon-Ismail, Mahoney & Woodruff, 2012).
        """
        floor = 1e-6 * float(self.values.max(initial=0))
        root = np.where(self.values > floor, 1 / np.sqrt(np.maximum(self.values, 1e-30)), 0)
        whiten = (root * self.vectors.values).T
        if whiten.shape[1] > SKETCH:
            directions = np.random.default_rng(0).standard_normal((whiten.shape[1], SKETCH))
            with blas_threads(self.vectors.lanes, whiten.shape[0]):
                whiten = whiten @ (directions / np.sqrt(SKETCH)).astype(np.float32)
        whiten = np.ascontiguousarray(whiten)
        mean, size = mean.astype(np.float32), self.vectors.size
        leverage = []
        for first in range(0, index.size, 8 * size):
            rows = X.rows(index[first : first + 8 * size], np.float32)
            rows -= mean

            def block(start, rows=rows):
                return np.sum((rows[start : start + size] @ whiten) ** 2, axis=1)

            leverage += run_threads(block, range(0, rows.shape[0], size))
        return np.concatenate(leverage).astype(np.float64)

    def covariance(self, v):
        """The covariance times the columns of v."""
        return self.vectors.weighted(self.values, v)[0]

    def solve(self, level, ridge, v):
        """Inverse of ``level * covariance + ridge`` times the columns of v, each its own."""
        # What rounding leaves of the eigenvalues that are zero must not be divided by.
        floor = 1e-6 * level * max(float(self.values.max(initial=0)), 1e-30)
        weights = 1 / np.maximum(level * self.values + ridge, floor)
        return self.vectors.weighted(weights.astype(np.float32), v)[0]


class Shared:
    """What the receivers of a feature matrix have in common: covariance and sampled rows.

    ``sample`` is a `Sample`, or the number of bins of one that is drawn by leverage.
    """

    def __init__(self, X, valid, gram, column_sums, sample, lanes):
        self.n_bins, self.lanes, self.sums = int(valid.sum()), lanes, column_sums
        mean = column_sums / self.n_bins
        covariance = gram  # in place: at 6,648 features each copy is 350 MB
        covariance /= self.n_bins
        for k, value in enumerate(mean):
            covariance[k] -= value * mean
        if not np.isfinite(covariance).all():  # features whose squares overflow
            covariance = np.eye(covariance.shape[0])
            self._keeps = False
        else:
            self._keeps = covariance.shape[0] <= _DOUBLE_SPECTRUM
        if covariance.shape[0] > _DOUBLE_SPECTRUM:
            covariance = covariance.astype(np.float32)
        del gram
        self.diagonal = np.diag(covariance).astype(np.float64)
        self._covariance, self._spectrum = covariance, None
        if not isinstance(sample, Sample):
            sample = draw(X, valid, sample, lambda index: self.spectrum.leverage(X, index, mean))
        self.index, self.share, self.activity = sample.index, sample.share, sample.activity
        self.rows = Rows(sample.rows, lanes)

    @property
    def covariance(self):
        """Of the features, in float64; None where there are many, or it is not finite."""
        return self._covariance if self._keeps else None

    @property
    def spectrum(self):
        """The covariance diagonalised, when it is first asked for."""
        if self._spectrum is None:
            self._spectrum = Spectrum(self._covariance, self.lanes)
            if not self._keeps:
                self._covariance = None
        return self._spectrum

    @property
    def direct(self):
        """Whether systems are factorised: one receiver does not pay for what many would share."""
        return self.lanes == 1 and self._keeps

    def times(self, v):
        """The covariance times the columns of v."""
        if self.direct:
            return tiled_dot(self._covariance, v, self.lanes)
        return self.spectrum.covariance(v)

    def restrict(self, valid):
        """The same with only the sampled bins that are valid, for a fit to a part of the bins."""
        keep = valid[self.index]
        if keep.all() and self.n_bins == valid.sum():
            return self
        if not self.direct:
            self.spectrum  # noqa: B018  made once for all parts
        part = object.__new__(Shared)
        part.__dict__.update(self.__dict__)
        part.n_bins, part.sums = int(valid.sum()), None
        part.index = self.index[keep]
        part.rows = Rows(self.rows.values[keep], self.rows.lanes)
        share = self.share[keep] if len(self.share) == keep.size else np.ones((keep.sum(), 1))
        part.share = (share * (len(share) / share.sum())).astype(np.float32)
        return part

    def add_covariance(self, matrix, level, features):
        """Add ``level * covariance`` of some features; where it is not kept, its diagonal."""
        if self.covariance is None:
            matrix[np.diag_indices(features.size)] += level * self.diagonal[features]
        elif features.size == self.covariance.shape[0]:
            matrix += level * self.covariance
        else:
            matrix += level * self.covariance[np.ix_(features, features)]


@dataclass
class Sample:
    """Some bins in the place of all."""

    index: np.ndarray  # (n_sample,), ascending
    share: np.ndarray  # (n_sample, 1): how many bins each stands for, 1 in the mean
    rows: np.ndarray  # (n_sample, n_features), float32
    activity: np.ndarray | None  # of every bin; None where the sample is all of them

    def select(self, columns):
        """The same bins with only some features."""
        return Sample(self.index, self.share, self.rows.T[columns].T, self.activity)


def draw(X, valid, n_sample, leverage=None):
    """A `Sample` of the valid bins, drawn by their leverage, or where none is given their activity.

    A bin of high leverage (a burst, a rare sender) stands alone for its direction: drawn evenly, it
    is missed, or counts for many. With it the slowest of 50 receivers took 11 passes to 1e-8
    instead of 17.
    """
    index = np.flatnonzero(valid)
    if n_sample >= index.size:
        return Sample(index, np.ones((index.size, 1), np.float32), X.rows(index, np.float32), None)
    rng, seen = np.random.default_rng(0), activity(X)
    likely = _UNIFORM + (1 - _UNIFORM) * seen[index]
    if leverage is None:
        pool, chance = np.arange(index.size), likely
        drawn = _stratified(rng, likely, n_sample)
    else:
        pool = _stratified(rng, likely, min(_POOL * n_sample, index.size))
        likely = likely[pool]
        chance = leverage(index[pool])
        average = (chance / likely).sum() / (1 / likely).sum()
        chance = _UNIFORM + (1 - _UNIFORM) * chance / max(average, 1e-30)
        drawn = _stratified(rng, chance / likely, n_sample)
    drawn, times = np.unique(drawn, return_counts=True)
    share = times / chance[drawn]
    share *= drawn.size / share.sum()
    index = index[pool[drawn]]
    return Sample(index, share[:, None].astype(np.float32), X.rows(index, np.float32), seen)


def activity(X):
    """Events that each bin sees, those of a rare sender more; 1 in the mean.

    The leverage where senders are independent, for the price of a sum over the events.
    """
    total = np.zeros(X.shape[0], np.float32)
    for block in X.columns:
        if not hasattr(block, "kernel") or not block.n_events:
            continue
        events = block.events
        per_unit = np.bincount(events.units, np.abs(events.amplitudes), events.n_units)
        weight = np.abs(events.amplitudes) / per_unit[events.units]
        first, window_size = events.bins + 1, block.kernel.shape[0]
        for at, sign in ((first, 1), (first + window_size, -1)):
            inside = at < total.size
            counted = np.bincount(np.maximum(at[inside], 0), weight[inside], total.size)
            total += sign * counted.astype(np.float32)
    total = np.maximum(np.cumsum(total, dtype=np.float64), 0)
    mean = total.mean()
    return (total / mean if mean > 0 else total + 1).astype(np.float32)


def _stratified(rng, chance, n):
    """n numbers drawn in proportion to their chance, one from each of n equal stretches of it.

    Ascending. No period can hide in them.
    """
    ladder = np.cumsum(chance)
    places = (np.arange(n) + rng.random(n)) * (ladder[-1] / n)
    return np.minimum(np.searchsorted(ladder, places), chance.size - 1)


class SampleProblem:
    """The objective and its curvature on sampled bins: start and preconditioner of a fit.

    To the sampled curvature a part of the shared one is added, and to the objective the same around
    the closed-form start: directions that the sample does not see stay where they are.

    Memory: ``4 * n_sample * (n_features + n_lanes)`` bytes.
    """

    method = "newton-cg"
    exact = False
    rough = False
    polish = 0
    _MAX_STEPS = 30

    def __init__(self, shared, free, penalty, link, level, lanes, observed):
        self.shared, self.penalty, self.link, self.lanes = shared, penalty, link, lanes
        # What weights and offsets add to eta at the sampled bins, and multiply the curvature by.
        self._shift = observed.shift(shared.index, link.canonical)
        factor = observed.factor(shared.index, link.canonical)
        self._share = shared.share if factor is None else shared.share * factor
        self.free, self.level, self.blend = free, level, _BLEND
        self.plain = np.zeros(level.size, bool)  # only asked of where a fit ends
        self.certain = np.ones(level.size, bool)
        self.rounding = np.full(level.size, _ROUNDING[np.float32])
        self._columns, self._some = None, None
        self.models = {}  # kept Hessians of receivers

    def set_penalty(self, penalty):
        """Another penalty for the same data."""
        self.penalty = penalty

    def begin(self, moments):
        """Make it a problem of its own, with what the counts add.

        Returns the closed-form start: the optimum where the rates are constant.
        """
        n_bins, n = self.shared.n_bins, self.level.size
        rate = moments.sum_y / n_bins
        self.linear = moments.xty / n_bins, rate
        g = moments.xty / n_bins - np.outer(moments.x / n_bins, rate)
        g = np.where(self.free, g, 0.0)
        start = self._closed_form(g)
        self.start = self._damp(np.where(self.free, start, 0.0))
        self.blend = _START_BLEND
        self.steps = Steps(self, n, self.lanes)
        return self.start

    def _closed_form(self, g):
        """Steps from a constant rate, where the gradients are g."""
        level, ridge = self._pad(self.level), self._pad(self.penalty.level)
        return self.shared.spectrum.solve(level, ridge, self._pad(g))[:, : g.shape[1]]

    def _damp(self, start):
        """Shorten closed forms that raise a sampled rate more than `_LIFT`.

        They are linear in what is exponential: where events come in bursts they overshoot, to
        rates that overflow, and the way back is longer than that from nothing: 19 passes in place
        of 16 in a bursting culture.
        """
        rows, padded = self.shared.rows, self._pad(start, 0.0).astype(np.float32)

        def lift(first):
            return rows.dot(rows.values[first : first + rows.size], padded).max(axis=0)

        lifts = np.max(run_threads(lift, rows.starts), axis=0)[: start.shape[1]]
        return start * np.minimum(1, _LIFT / np.maximum(lifts, 1e-30))

    def begin_near(self, coef, intercept, grad, grad_intercept):
        """Make it a problem of its own whose gradient at a point is that of all events.

        The terms linear in the coefficients absorb what the sample gets wrong there, so that its
        optimum with another penalty is off by the product of the way there and the noise alone
        (Shamir, Srebro & Zhang, 2014).
        """
        everyone = np.arange(self.level.size)
        self.set_point(everyone, coef, intercept)
        n = everyone.size
        total = self.total[:n]
        self.linear = self.mean[:, :n] * total - grad, total - grad_intercept
        self.start = coef
        self.steps = Steps(self, n, self.lanes)

    def end(self):
        """Back to being a preconditioner."""
        self.blend = _BLEND

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
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = np.sqrt((diagonal + pull) / (self._level * shape + ridge))
        self.scale = np.where(np.isfinite(scale) & (scale > 0), scale, 1.0)
        self._mask = self._lane(self.free, False)

    def _active_shift(self):
        """What is added to eta of the active receivers."""
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
        """The Schur complement on the sample times the columns of v."""
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
        """The scaled spectrum's inverse times the residuals."""
        scale = self.scale[:, columns]
        ridge = self._lane(self.penalty.level)[columns]
        z = self.shared.spectrum.solve(self._level[columns], ridge, residual / scale) / scale
        return np.where(self._mask[:, columns], z, 0.0)

    def weigh(self, active, coef, intercept, sums=lambda block, weights: ()):
        """Curvatures at a point. Returns sums over the sample, the last that of the curvatures."""
        rows, link, n = self.shared.rows, self.link, self.shared.index.size
        self.active = active
        coef = self._pad(coef, 0.0).astype(np.float32)
        intercept = self._pad(intercept, LOG_ZERO).astype(np.float32)
        self.weights = np.empty((n, coef.shape[1]), np.float32)
        shift = self._active_shift()

        def weigh(block, part):
            with np.errstate(over="ignore", invalid="ignore"):
                eta = rows.dot(block, coef) + intercept
                if shift is not None:
                    eta += shift[part]
                weights = link.expected_curvature(eta)
                weights *= self._share[part]
                self.weights[part] = weights
                return (*sums(block, weights), weights.sum(axis=0, dtype=np.float64))

        *others, total = rows.map(weigh)
        with np.errstate(invalid="ignore"):
            self.total = total / n
        return *others, total

    def curvature(self, j, coef, intercept, features):
        """Hessian of the mean loss of receiver j, and where in it some features are.

        Float32, the intercept last. Kept until the curvatures have changed by much, which some of
        the sampled bins tell: it is a model, and steps correct it (`EventProblem.learn`).
        """
        at = j, coef.astype(np.float32), np.float32(intercept)
        return self._kept_hessian(j, features, lambda part: self._curvatures(*at, part))

    def _kept_hessian(self, j, features, curvatures):
        """The same, with the curvatures of receiver j at some of the sampled bins."""
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
            data = self._sampled_hessian(j, known, curvatures(slice(None)))
            place = np.full(self.free.shape[0], -1)
            place[known] = np.arange(known.size)
            self.models[j] = known, place, root, data
        return data, np.append(place[features], known.size)

    def _curvatures(self, j, coef, intercept, part):
        """Of receiver j at some of the sampled bins."""
        eta = self.shared.rows.values[part] @ coef + intercept
        if self._shift is not None:
            eta += columns(self._shift, [j])[part, 0]
        with np.errstate(over="ignore", invalid="ignore"):  # a trial point may be far off
            weights = self.link.expected_curvature(eta)
            return weights * self._share[part, 0]

    def _sampled_hessian(self, j, features, weights):
        """Of the mean loss of receiver j over some features and, last, the intercept."""
        n, root = self.shared.index.size, np.sqrt(weights)
        rows = self.shared.rows.values
        rows = (rows if features.size == rows.shape[1] else rows[:, features]) * root[:, None]
        out = np.empty((features.size + 1,) * 2, np.float32)
        out[:-1, :-1] = rows.T @ rows
        out[-1, :-1] = out[:-1, -1] = rows.T @ root
        out[-1, -1] = weights.sum(dtype=np.float64)
        out /= n
        self.shared.add_covariance(out[:-1, :-1], self.blend * self.level[j], features)
        return out

    def _worth_keeping(self, j, features):
        """Features of a receiver's model: all that are free, where these are not many."""
        free = np.flatnonzero(self.free[:, j])
        if free.size <= _KEEP:
            return free
        return np.sort(features)

    def solve(self, residual, columns, accuracy=0.1):
        """The inverse of `product`, by conjugate gradients to a tenth of the residual.

        At 0.4, 200 cells that were recorded for 100 s fit a fifth faster, but where events come in
        bursts all receivers took long, and a fold's last step no longer gained a factor of ten.
        """
        d, live = np.zeros_like(residual), np.arange(columns.size)
        z = self.precondition(residual, columns)
        rho = (residual * z).sum(axis=0)
        goal = accuracy**2 * rho
        direction = z
        for _ in range(self._MAX_STEPS):
            going = (rho > goal) & (rho > 0)
            if not going.any():
                break
            # Columns that are done leave as soon as a tile is free: most take 3 products, a few 6,
            # and where all went on, 0.3 to 0.5 of the products were idle.
            n_live = -(-going.sum() // self.lanes) * self.lanes
            if n_live < live.size:
                keep = np.sort(np.argsort(~going, kind="stable")[:n_live])
                live, residual, direction, rho, goal, going = (
                    values[..., keep] for values in (live, residual, direction, rho, goal, going)
                )
            product = self.product(direction, columns[live])
            with np.errstate(divide="ignore", invalid="ignore"):
                alpha = np.where(going, rho / (direction * product).sum(axis=0), 0.0)
            alpha = np.where(np.isfinite(alpha) & (alpha > 0), alpha, 0.0)
            d[:, live] += alpha * direction
            residual = residual - alpha * product
            z = self.precondition(residual, columns[live])
            new = (residual * z).sum(axis=0)
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
        level = self.level[active]
        total, moved = self.total[:n], coef - self.start[:, active]
        pull = self.shared.times(self._pad(moved, 0.0))[:, :n]
        pull *= self.blend * level
        penalty = self.penalty.times(coef, active)
        objective = total - column_dot(coef, xty) - intercept * rate
        objective += 0.5 * (column_dot(coef, penalty) + column_dot(moved, pull))
        grad = self.mean[:, :n] * total - xty + penalty + pull
        return objective, np.where(self.free[:, active], grad, 0.0), total - rate

    def step(self, moved, grad, grad_intercept, tol, polishing):
        """Steps at the accepted points; see `Steps`."""
        return self.steps.step(moved, self.point, grad, grad_intercept, tol, polishing)

    def harmless(self, active, grad, grad_intercept):
        """Trial points that are taken whatever the objective; see `Steps`."""
        return self.steps.harmless(self.point, grad, grad_intercept)

    def reach(self, receivers, step):
        """Not asked of a starting point."""
        return np.zeros(receivers.size)


class SingleProblem(SampleProblem):
    """The same for receivers that share their features with nobody: systems are factorised.

    For a receiver alone neither the spectrum pays, ten times the price of a factor, nor products
    with the sample, which it reads for one column. The start is preconditioned with the covariance,
    the fit with the Hessian on the sample, made once or twice. With 400 features of its own, and
    bins that are there, a receiver took 0.11 s for spectrum, products and solutions, and now 0.05.
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
        """Back to being a preconditioner."""
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
        """The inverse of S at a constant rate, scaled to the rate here, times the residuals."""
        z = np.empty_like(residual)
        for k, column in enumerate(columns):
            j = self.active[column]
            level = (1 + self.blend) * max(self.total[column], 1e-30)
            z[:, k] = self._solve_evenly(j, residual[:, k]) * (self.level[j] / level)
        return z

    def solve(self, residual, columns):
        """The inverse of S on the sample times the residuals."""
        d = np.zeros_like(residual)
        for k, column in enumerate(columns):
            if not residual[:, k].any():
                continue
            j, weights = self.active[column], self.weights[:, column]
            free = np.flatnonzero(self.free[:, j])
            data, chosen = self._kept_hessian(j, free, weights.__getitem__)
            if self._factors.get(j, (None,))[0] is not data:
                schur, mean = np.empty((free.size,) * 2), np.empty(free.size)
                ridge, matrix = self.penalty.hessian_parts(j, free)
                kernels.reduce_model(data, chosen, ridge, mean, schur)
                if matrix is not None:
                    schur += matrix
                schur[np.diag_indices_from(schur)] *= 1 + 1e-6  # what float32 sums leave
                self._factors[j] = data, cholesky(schur)
            d[free, k] = cho_solve(self._factors[j][1], residual[free, k])
        return d

    def _solve_evenly(self, j, v):
        """The inverse of S at the mean rate of receiver j times a vector."""
        z, free = np.zeros_like(v), np.flatnonzero(self.free[:, j])
        if j not in self._even:
            matrix = self.penalty.hessian(j, free)
            level = self.level[j]
            matrix[np.diag_indices_from(matrix)] += 1e-6 * level * self.shared.diagonal[free]
            self.shared.add_covariance(matrix, level, free)
            self._even[j] = cholesky(matrix)
        z[free] = cho_solve(self._even[j], v[free])
        return z


class Steps:
    """Limited-memory BFGS steps, whose initial matrix is the inverse of a preconditioner.

    The intercept is eliminated from the preconditioner M with the means ``m = X'w / sum(w)`` of its
    problem: only the Schur complement is handed to ``problem.precondition(residual, columns)``, on
    lanes padded to whole tiles.

    The decrement ``g' H g / 2`` of the quasi-Newton matrix H is divided by theta, the smallest
    eigenvalue of ``M^-1 S`` that small steps have shown (Ritz values on their span, for
    which ``S s = y`` is the change of the gradient), and at most a half: H is right on
    that span and no worse than M beside it.
    """

    _PAIRS = 10
    bytes_per_feature = 12 * _PAIRS + 250  # pairs in float32, and what a step works with
    THETA = 0.5

    def __init__(self, problem, n_receivers, lanes):
        # The problem owns its steps: a reference back would be a cycle, and keep a batch until the
        # garbage collector comes by: 0.8 GB for each of six at 831 cells.
        self.problem, self.lanes = weakref.proxy(problem), lanes
        shape = (n_receivers, problem.free.shape[0] + 1)
        # Of every pair the step s, the change y of the gradient, M s, and 1 / (s . y).
        self.pairs = np.zeros((3, self._PAIRS, *shape), np.float32)
        self.weights = np.zeros((self._PAIRS, n_receivers))
        self.n_pairs = np.zeros(n_receivers, np.int64)
        self.point, self.grad = np.zeros(shape), np.zeros(shape)
        self.direction, self.image = np.zeros(shape), np.zeros(shape)  # H g and M H g
        self.known, self.total = np.zeros(n_receivers, bool), np.ones(n_receivers)
        self.theta = np.full(n_receivers, self.THETA)
        self.expected = np.full(n_receivers, np.inf)  # of the next decrement

    def forget(self, receivers=slice(None)):
        """Begin anew: a new fit, or another preconditioner."""
        self.n_pairs[receivers] = 0
        self.weights[:, receivers] = 0
        self.known[receivers] = False
        self.theta[receivers] = self.THETA
        self.expected[receivers] = np.inf

    def step(self, moved, point, grad, grad_intercept, tol, polishing):
        """Steps from the accepted points, decrements, and the passes spent (none)."""
        problem, receivers = self.problem, self.problem.active[moved]
        g = np.vstack([np.where(problem.free[:, receivers], grad, 0.0), grad_intercept]).T
        self._remember(moved, receivers, point[:, moved].T, g)
        # Two loops over the pairs of each receiver, newest first, then back (Nocedal, 1980).
        n_recent = min(int(self.n_pairs[receivers].max()), self._PAIRS)
        recent = (self.n_pairs[receivers] - 1 - np.arange(n_recent)[:, None]) % self._PAIRS
        q, first = g.copy(), []
        for slot in recent:
            s, y = self.pairs[:2, slot, receivers]
            first.append(self.weights[slot, receivers] * _row_dot(s, q))
            q -= first[-1][:, None] * y
        d, image = self._solve(moved, q.T).T, q
        for slot, weight in zip(recent[::-1], reversed(first), strict=True):
            s, y, ms = self.pairs[:, slot, receivers]
            weight = (weight - self.weights[slot, receivers] * _row_dot(y, d))[:, None]
            d += weight * s
            image += weight * ms
        decrement = 0.5 * _row_dot(g, d) / self.theta[receivers]
        self.direction[receivers], self.image[receivers] = d, image
        # A step gains a factor of ten as a rule. Where the last digits of float32 may have
        # decided, it is taken all the same, to be judged in float64.
        self.expected[receivers] = 0.15 * decrement
        ended = problem.certain[receivers] & (decrement <= tol) & (not problem.rough)
        d = np.where(ended, 0.0, -d.T)
        return d[:-1], d[-1], decrement, 0

    def harmless(self, point, grad, grad_intercept):
        """Trial points so near that the gradient is linear in between, per active receiver.

        Such a step may have been too long along its direction: the next one, which knows its
        pair, makes up for that, and gains as much as after a search for the best length.
        """
        receivers = self.problem.active
        g = np.vstack([np.where(self.problem.free[:, receivers], grad, 0.0), grad_intercept]).T
        with np.errstate(invalid="ignore", over="ignore"):
            moved = _row_dot(point.T - self.point[receivers], g - self.grad[receivers])
        return self.known[receivers] & (moved < _SMALL * self.total[receivers])

    def _remember(self, moved, receivers, point, g):
        """The pair of the last step, where there was one that tells the curvature."""
        change, change_g = point - self.point[receivers], g - self.grad[receivers]
        inner = _row_dot(change, change_g)
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            usable = self.known[receivers] & (inner > 0) & np.isfinite(inner) & (1 / inner < 1e30)
        j, slot = receivers[usable], self.n_pairs[receivers[usable]] % self._PAIRS
        if j.size:
            length = np.abs(change[usable]).max(axis=1) / np.abs(self.direction[j]).max(axis=1)
            self.pairs[0, slot, j], self.pairs[1, slot, j] = change[usable], change_g[usable]
            self.pairs[2, slot, j] = -length[:, None] * self.image[j]
            self.weights[slot, j] = 1 / inner[usable]
            self.n_pairs[j] += 1
            self.theta[j] = np.minimum(self.THETA, self._smallest_ritz_value(j))
        self.point[receivers], self.grad[receivers] = point, g
        self.known[receivers] = True
        self.total[receivers] = self.problem.total[moved]

    def _solve(self, moved, q):
        """The preconditioner's inverse times q, whose last row is the intercept's."""
        problem = self.problem
        mean, total = problem.mean[:, moved], problem.total[moved]
        width = -(-problem.active.size // self.lanes) * self.lanes
        residual = np.zeros((q.shape[0] - 1, width))
        residual[:, moved] = np.where(
            problem.free[:, problem.active[moved]], q[:-1] - mean * q[-1], 0.0
        )
        tiles = np.unique(moved // self.lanes)
        columns = (tiles[:, None] * self.lanes + np.arange(self.lanes)).ravel()
        z = np.zeros_like(residual)
        z[:, columns] = problem.precondition(residual[:, columns], columns)
        z = z[:, moved]
        return np.vstack([z, q[-1] / total - column_dot(mean, z)])

    def _smallest_ritz_value(self, receivers):
        """Smallest eigenvalue of ``M^-1 S`` on the span of each receiver's steps."""
        s, y, ms = self.pairs[:, :, receivers].transpose(0, 2, 1, 3)
        with np.errstate(invalid="ignore", over="ignore"):
            a, b = y @ s.transpose(0, 2, 1), ms @ s.transpose(0, 2, 1)
        smallest = np.full(receivers.size, np.inf)
        for k in range(receivers.size):
            moved = np.diag(a[k])  # a step's mean square change of eta, times the curvature
            total = self.total[receivers[k]]
            use = np.flatnonzero(
                (np.diag(b[k]) > 0) & (moved > _TINY * total) & (moved < _SMALL * total)
            )
            if not use.size or not np.isfinite(a[k]).all() or not np.isfinite(b[k]).all():
                continue
            use = self._consistent(a[k], use, receivers[k])
            scale = 1 / np.sqrt(np.diag(b[k])[use].astype(np.float64))
            pick = np.ix_(use, use)
            metric = b[k][pick] * np.outer(scale, scale)
            values, vectors = np.linalg.eigh(metric + metric.T)  # SciPy's takes 0.09 ms, not 0.02
            # Steps that are nearly dependent say nothing beyond rounding.
            vectors = vectors[:, values > 1e-3 * values[-1]] / np.sqrt(
                values[values > 1e-3 * values[-1]]
            )
            image = a[k][pick] * np.outer(scale, scale)
            smallest[k] = np.linalg.eigvalsh(vectors.T @ (image + image.T) @ vectors)[0]
        return np.maximum(smallest, 1e-6)

    def _consistent(self, products, use, receiver):
        """The newest steps that agree on the curvature between them: ``y' s`` is symmetric.

        Steps from before the rates changed do not. Their quotients may be negative, and a receiver
        then took six passes more to a decrement that it had.
        """
        age = (self.n_pairs[receiver] - 1 - use) % self._PAIRS
        scale = np.sqrt(np.diag(products))
        kept = []
        for k in use[np.argsort(age)]:
            odd = np.abs(products[k, kept] - products[kept, k]) / (scale[k] * scale[kept])
            if (odd <= _ASYMMETRY).all():
                kept.append(k)
        return np.array(kept)


def _row_dot(a, b):
    return np.einsum("ij,ij->i", a, b)


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
        link,
        moments,
        sample,
        lanes,
        tol,
        products,
        rough,
        n_own,
    ):
        self.X, self.valid, self.counts, self.link = X, valid, counts, link
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
        self.constant = counts.linear(valid) if link.canonical else 0.0  # of the objective
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
        self.null = _null_spaces(covariance, self.free, penalty, self.plain)

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
        one_way = sum(
            _ADDITION * c.n_events * c.kernel.shape[0]
            if hasattr(c, "kernel")
            else self.n_bins * c.n_columns
            for c in self.X.columns
        )
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
        rounded = np.where(wants, _ROUNDING[np.float64], _ROUNDING[np.float32])
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
        if self.link.canonical:
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
        for start, n_rows in sweep.chunks():
            if not self.valid[start : start + n_rows].any():
                continue  # such as a fold that is held out
            counts = sweep.eta
            if not self.link.canonical:
                index = np.arange(start, start + n_rows)
                counts = sweep.put(self.counts(index)[:, self.active[some]]).copy()
            eta = sweep.forward(start, n_rows)
            if self.counts.weight is not None and not self.link.canonical:
                totals[:, :n] += self._weigh(sweep, index, some)
                sweep.backward(start, n_rows, eta)
                continue
            self._shift(sweep, start, n_rows, some)
            kernels.launch(
                self.link.pointwise,
                eta,
                counts,
                offsets,
                self.valid,
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
            shift = self.counts.shift(index, self.link.canonical)
            if shift is not None:
                sweep.add(columns(shift, self.active[some]))

    def _weigh(self, sweep, index, some):
        """A chunk of a pass with weights and a link that is not canonical: NumPy, in float64."""
        receivers, n = self.active[some], some.size
        keep = np.flatnonzero(self.valid[index])
        at = index[keep]
        eta = sweep.get(index.size, n)[keep].astype(np.float64) + self.point[-1, some]
        if self.counts.offset is not None:
            eta += columns(self.counts.offset, receivers)[at]
        loss, residual, _ = self.link.derivatives(eta, self.counts(at)[:, receivers])
        weight = self.counts.factor(at, False)
        values = np.zeros((index.size, n))
        values[keep] = weight * residual
        sweep.put(values)
        return column_dot(np.broadcast_to(weight, loss.shape), loss), values.sum(axis=0)

    def step(self, moved, grad, grad_intercept, tol, polishing):
        """Steps at the accepted points; see `Steps`."""
        n, passes = self.active.size, self._assist(moved)
        if not self.link.canonical or not all(self.own.get(j) for j in self.active):
            self.sample.set_point(self.active, self.point[:-1], self.point[-1])
        if not self.link.canonical:
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
        if self.sample.shared.activity is None or not self.link.canonical:
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
            chance = n_draw * ((1 - _EVEN) * mu * seen / total + _EVEN / self.n_bins)
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
        n_rows = max(256, 2 * _BLOCK_BYTES // (4 * max(free.size, 1)))
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
        sample.shared.add_covariance(hess, _BLEND * sample.level[j], free)
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


def _null_spaces(covariance, free, penalty, plain):
    """Collinear directions of each receiver that no penalty holds, or None: steps stay off them."""
    null, known = [None] * plain.size, {}
    if covariance is None or not np.isfinite(covariance).all():
        return null
    for j in np.flatnonzero(plain):
        chosen = np.flatnonzero(free[:, j])
        pull = penalty.hessian(j, chosen)
        key = chosen.tobytes(), pull.tobytes() if pull.any() else b""
        if key not in known:
            space, _ = split_space(covariance[np.ix_(chosen, chosen)] + pull)
            known[key] = space if space.size else None
        null[j] = known[key]
    return null


def split_space(gram):
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


def cholesky(matrix):
    """Cholesky factor, with as much of the diagonal added as rounding asks for."""
    if matrix.shape[0] == 0:
        return np.zeros((0, 0)), True
    scale = max(np.trace(matrix) / matrix.shape[0], np.finfo(float).tiny)
    jitter = 0.0
    for _ in range(8):
        try:
            damped = np.array(matrix, order="F")  # which LAPACK factorises in place
            damped[np.diag_indices_from(damped)] += jitter
            return scipy.linalg.cho_factor(damped, True, overwrite_a=True, check_finite=False)
        except LinAlgError:
            jitter = max(1e-14 * scale, 100 * jitter)
    return scale * np.eye(matrix.shape[0]), True


def cho_solve(factor, g):
    """The inverse of a factorised matrix times g."""
    if g.size == 0:
        return g
    return scipy.linalg.cho_solve(factor, g, check_finite=False)
