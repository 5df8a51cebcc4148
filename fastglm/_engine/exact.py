"""Exact Hessians from rows of X."""

from typing import NamedTuple

import numpy as np

from fastglm._algebra.linear import CONSTANT, never_bends_down
from fastglm._algebra.space import find_space
from fastglm._engine.stack import Stack, dots, multiply_each, pieces, run_of, weighted_grams
from fastglm._kernels.dots import column_dot
from fastglm._kernels.threads import run_threads
from fastglm._products.weighted_gram import symmetric

_EPS = np.finfo(np.float64).eps
_ROUNDING = 4 * _EPS  # of a number that is computed from a few others
_FLAT = 1e-13  # a smaller pivot may be rounding altogether
_WEIGHED = 100.0  # most by which curvatures make a square smaller
_NEAR = 1e-8  # a pivot of the Hessian, scaled to a unit diagonal, that may be rounding


class DenseProblem:
    """Exact Hessians from `Rows`: for few features or tight masks.

    Cost of an iteration: n_bins * p_j^2 multiply-adds for a receiver with p_j free features.
    Memory: the rows, and p_j^2 float64 a receiver.

    Receivers with the same features are a `Stack`. Features that are collinear, or nearly so, get
    coordinates of their own (`space`), which cost a QR factor of their rows. A receiver then moves
    in these coordinates, with a stack of those that share them.

    Gradients and steps that this class takes and returns are those of the columns as they are given
    to `Rows`, which centres some.

    ``flat`` are receivers whose last Hessian has directions with the curvature of rounding, of
    which a decrement says nothing.
    """

    method = "newton-cholesky"
    exact = True  # steps are Newton's
    rough = False
    polish = 3
    n_passes = 1  # of an evaluation
    _REFRESH = 1e-8  # a decrement above this is due for a new Hessian

    def __init__(self, rows, free, penalty, loss):
        self.rows, self.free, self.loss, self.whole = rows, free, loss, bool(free.all())
        everything = np.arange(len(free))
        self.features = [everything if self.whole else np.flatnonzero(column) for column in free.T]
        self.n_bins, self.size, self.shift = rows.n_bins, rows.size, rows.shift
        self.given_size = rows.given_size
        self.shifted, self.far = bool(rows.shift.any()), bool(rows.taken.any())
        n = penalty.n_receivers
        self.certain = np.ones(n, bool)  # False where the Hessian has no factor; see `_reduce`
        self.rounding, self.floor = np.full(n, 1e-13), np.zeros(n)
        self.set_penalty(penalty)

    def set_penalty(self, penalty):
        """Another penalty for the same data."""
        n = penalty.n_receivers
        self.penalty = penalty
        self.plain = (penalty.unpenalised(len(self.free)) & self.free).any(axis=0)
        self.stacks, self.stack_of, self.place = [], np.zeros(n, np.int64), np.zeros(n, np.int64)
        alike = {}
        for j, features in enumerate(self.features):
            alike.setdefault(b"" if self.whole else features.tobytes(), []).append(j)
        for receivers in alike.values():
            self._stack(np.array(receivers))
        self.searched, self._spaces = np.zeros(n, bool), {}
        self.last, self.drift = np.full(n, np.inf), np.zeros(n)
        self.due, self.flat = np.ones(n, bool), np.zeros(n, bool)

    def _stack(self, receivers, *coordinates):
        """Put receivers with the same features, in the same coordinates, into a `Stack`."""
        self.stack_of[receivers] = len(self.stacks)
        self.place[receivers] = np.arange(receivers.size)
        rest = self.features[receivers[0]], len(self.free), self.loss.convex
        self.stacks.append(Stack(receivers, *rest, *coordinates))
        self._asked = None
        return self.stacks[-1]

    def _parts(self, receivers):
        """Some ascending receivers, a `_Part` for each stack; kept until others are asked for."""
        if receivers is self._asked:
            return self._found
        if len(self.stacks) == 1:
            found = [_part(self.stacks[0], np.arange(receivers.size), receivers)]
        else:
            of = self.stack_of[receivers]
            order = np.argsort(of, kind="stable")
            groups = np.split(order, np.flatnonzero(np.diff(of[order])) + 1)
            places = self.place[receivers]
            found = [_part(self.stacks[of[k[0]]], k, places[k]) for k in groups if k.size]
        self._asked, self._found = receivers, found
        return found

    @np.errstate(over="ignore", invalid="ignore")  # a trial point may be far off
    def evaluate(self, active, coef, intercept):
        """Objective, gradient and, where it is due, the Hessian at the given points."""
        self.active, self.point = active, (coef, intercept)
        sums = _Sums(*np.zeros((3, active.size)), np.zeros(coef.shape[::-1]))
        point = np.ascontiguousarray(coef.T)
        level = intercept + dots(point, self.shift) if self.shifted else intercept
        reach = dots(np.abs(point), self.size) + np.abs(level)  # eta is rounded in proportion to it
        # Features outside a receiver's fit whose fixed coefficients are not 0: they add to eta.
        fixed = None if self.whole else (coef != 0) & ~self.free[:, active]
        point = point, level, reach, fixed
        n_rows, cut = len(self.rows.block(0).rows), []
        for part in self._parts(active):
            part.stack.begin(part.run)
            cut += part.cut(n_rows * part.stack.load.shape[1])
        for number, block in enumerate(self.rows):

            def add(part, block=block, first=number == 0):
                self._add(*part, block, point, sums, first)

            run_threads(add, cut, block.rows.size * active.size)
        objective, grad = self._penalise(active, coef, sums)
        own = _ROUNDING * reach * sums.terms / self.n_bins / (1 + np.abs(objective))
        self.rounding[active] = np.fmax(1e-13, own)
        return objective, grad, sums.intercept / self.n_bins

    def _add(self, stack, k, places, at, run, j, block, point, sums, first):
        """Add the bins of a block to the sums of a `_Part` of the pass."""
        coef, level, reach, fixed = point
        rows, weight = block.rows[:, stack.bordered], block.weight
        Z, own = rows[:, :-1], coef[at] if stack.whole else coef[at][:, stack.features]
        eta = multiply_each(Z, own) + level[at, None]
        if fixed is not None:
            for row, number in enumerate(k.tolist()):
                beside = fixed[:, number]
                if beside.any():
                    eta[row] += block.rows[:, :-1][:, beside] @ coef[number, beside]
        if block.offset is not None:
            eta += block.offset[j if len(block.offset) > 1 else 0]
        loss, y = self.loss.select(stack.receivers[places, None]), block.counts[j]
        value, residual, curvature = loss.derivatives(eta, y)
        if weight is not None:
            value, residual, curvature = weight * value, weight * residual, weight * curvature
        sums.objective[at] += value.sum(axis=1)
        terms = np.abs(residual)
        if stack.space is not None:
            stack.left[run] += terms.sum(axis=1)
        if loss.high is None:  # else the residual has no rounding of the counts
            part = 2 * loss.count_part(eta, y)
            terms += part if weight is None else part * weight
        sums.terms[at] += terms.sum(axis=1)
        terms += (curvature if loss.convex else np.abs(curvature)) * reach[at, None]
        slope = multiply_each(Z.T, residual)
        if stack.whole:
            sums.grad[at] += slope
        else:
            sums.grad[k[:, None], stack.features] += slope
        sums.intercept[at] += residual.sum(axis=1)
        if stack.space is not None:
            Z = stack.space.of(Z)
            rows = np.column_stack([Z, np.ones(len(Z))])
            stack.slope[run] += multiply_each(Z.T, residual)
        stack.load[run, :-1] += multiply_each(np.abs(Z).T, terms)
        stack.load[run, -1] += terms.sum(axis=1)
        # No Hessian takes the place of the last one where the objective overflows.
        due = (self.due[j] & np.isfinite(sums.objective[at])).nonzero()[0]
        if due.size:
            due, place = run_of(due), run if due.size == places.size else run_of(places[due])
            stack.fresh[place] = True
            _put(stack.hess, place, weighted_grams(rows, curvature[due]), first)
            if not loss.convex:
                curvature = loss.expected_curvature(eta)
                curvature = curvature if weight is None else weight * curvature
                _put(stack.expected, place, weighted_grams(rows, curvature[due]), first)

    def _penalise(self, active, coef, sums):
        """The objective and its gradient, from sums of losses over bins."""
        objective, grad = sums.objective / self.n_bins, sums.grad.T
        if self.shifted:
            grad += self.shift[:, None] * sums.intercept
        grad /= self.n_bins
        if self.penalty.quadratic:
            inside = coef if self.whole else np.where(self.free[:, active], coef, 0.0)
            pull = self.penalty.times(inside, active)
            objective += 0.5 * column_dot(inside, pull)
            grad += pull
        if not self.whole:
            grad[~self.free[:, active]] = 0.0
        return objective, grad

    @np.errstate(divide="ignore")  # curvatures that underflow
    def step(self, moved, grad, grad_intercept, tol, polishing):
        """Newton steps at the accepted points, their decrements, and passes spent (none)."""
        step, step_intercept = np.zeros(grad.shape[::-1]), np.zeros(moved.size)
        decrement, at = np.zeros(moved.size), run_of(moved)
        active, (coef, intercept) = self.active, self.point
        index = active if moved.size == active.size else active[moved]
        coef, intercept = coef[:, at], intercept[at]
        for stack, k, places, _, run, _ in self._parts(index):
            new = stack.fresh[run].nonzero()[0]
            if new.size:
                self._factorise(stack, places[new], coef, intercept, k[new])
        self.active = active
        for part in self._parts(index):
            known = part.stack.known[part.run]
            if not known.all():  # features whose squares overflow
                decrement[part.k[~known]] = np.nan
                part = _part(part.stack, part.k[known], part.places[known])
            stack, _, places, k, run, j = part
            point, slope, slope_intercept = coef.T[k], grad.T[k], grad_intercept[k]
            d, step_intercept[k], decrement[k] = self._newton(
                stack, places, point, slope, slope_intercept
            )
            self.floor[j] = self._floor(stack, run, point, intercept[k])
            if stack.space is not None:  # coordinates are centred
                d = multiply_each(stack.space.basis, d)
                step_intercept[k] -= dots(d, stack.space.mean + self.shift[stack.features])
            if stack.whole:
                step[k] = d
            else:
                step[np.arange(moved.size)[k, None], stack.features] = d
            self.flat[j] = (stack.jitter[run] > 0) | (stack.pivot[run] < _FLAT)
            self.drift[j] = step_intercept[k] + slope_intercept / stack.total[run]
            if self.shifted:
                self.drift[j] += dots(step[k], self.shift)
            # A step with the last factor (a chord step) suffices if it gains two digits.
            self.announce(j, decrement[k])
        return step.T, step_intercept, decrement, 0

    def _newton(self, stack, places, coef, grad, grad_intercept):
        """Newton's steps of receivers of a stack in its coordinates, and their decrements."""
        if stack.space is not None:
            pull = multiply_each(stack.pull, coef[:, stack.features])
            grad = stack.slope[places] / self.n_bins + multiply_each(stack.space.basis.T, pull)
        elif not stack.whole:
            grad = grad[:, stack.features]
        return stack.newton(places, grad, grad_intercept)

    def _floor(self, stack, run, coef, intercept):
        """The decrements that rounding of the gradients allows at the last points."""
        load, unit = stack.load[run] / self.n_bins, stack.unit[run]
        if stack.space is not None:  # its rows are rounded in proportion to the features
            size = self.size[stack.features]
            noise = np.linalg.norm(stack.space.basis * size[:, None], axis=0)
            load[:, :-1] += noise * (stack.left[run, None] / self.n_bins)
        return self._hidden(load, unit, stack.total[run], coef, intercept)

    def _hidden(self, load, unit, total, coef, intercept):
        """The decrements that rounding allows, for loads and units of features and intercepts.

        The intercept of the columns as they were given is rounded in proportion to its terms.
        """
        away = np.abs(intercept)
        if self.far:
            away = away + dots(np.abs(coef), self.rows.taken)
        load[:, -1] += total * away
        return 0.5 * ((_ROUNDING * load / unit) ** 2).sum(axis=-1)

    def _pull(self, j):
        """Hessian of the penalty of a receiver over its free features."""
        return self.penalty.hessian(j, self.features[j])

    def harmless(self, active, grad, grad_intercept):
        """None: every step must lower the objective."""
        return np.zeros(active.size, bool)

    # --- for proximal steps ---

    def forget(self, receivers=slice(None)):
        """Begin a new fit of some receivers: the first pass makes Hessians."""
        self.due[receivers], self.last[receivers] = True, np.inf

    def curvature(self, j, coef, intercept, features):
        """Schur complement of the Hessian of the last pass that made one; see `Curvature`."""
        stack, at = self.stacks[self.stack_of[j]], self.place[j]
        if stack.fresh[at]:
            for sums in (stack.hess, stack.expected):
                if sums is not None:
                    sums[at] = symmetric(sums[at]) / self.n_bins
            stack.fresh[at] = False
        place = np.searchsorted(stack.features, features)
        schur, mean, total = self._complement(stack.hess[at], place)
        if not self.loss.convex:
            expected = self._complement(stack.expected[at], place)
            pull = self.penalty.hessian(j, features)
            self.certain[j] = total > 0 and never_bends_down(schur + pull, expected[0] + pull)
            if not self.certain[j]:
                schur, mean, total = expected
        curved = np.diag(schur)
        unit = np.where(curved > CONSTANT * total * mean**2, np.sqrt(curved.clip(min=0)), np.inf)
        load = stack.load[at, np.append(place, -1)] / self.n_bins
        unit = np.append(unit, np.sqrt(total))
        self.floor[j] = self._hidden(load[None], unit, total, coef[None], intercept)[0]
        return schur, mean + self.shift[features], total

    @staticmethod
    def _complement(data, place):
        """Schur complement over some features, the mean row of the intercept, and its entry."""
        total, mean = data[-1, -1], data[-1, place] / data[-1, -1]
        return data[np.ix_(place, place)] - np.outer(total * mean, mean), mean, total

    def noise(self, j, features):
        """Rounding of the gradient of receiver j at the last point, for some features."""
        stack, place = self.stacks[self.stack_of[j]], np.searchsorted(self.features[j], features)
        return _ROUNDING * stack.load[self.place[j], place] / self.n_bins

    def sees(self, features, n, least):
        """Whether rows see one of n directions of some features that ``X'X`` does not hold.

        The features are scaled to a variance of 1. ``least`` is the largest square that rounding
        can hide. Curvatures weigh the rows, by which a square that rounding hides may be larger in
        the rows themselves.
        """
        space = self._space_of(features, np.zeros((features.size, features.size)))
        return n > space.null.shape[1] and space.smallest**2 < _WEIGHED * least

    def lowest(self, j):
        """A bound of the mean loss of receiver j from below: every bin at its own optimum."""
        total, loss = 0.0, self.loss.select(j)
        for block in self.rows:
            least = loss.least_loss(block.counts[j])
            total += (least if block.weight is None else block.weight * least).sum()
        return total / self.n_bins

    # --- for bins at infinity ---

    def rows_of(self, j, block):
        """Rows of receiver j's features in a block, centred, and a column of ones."""
        return self.rows.block(block).rows[:, self.stacks[self.stack_of[j]].bordered]

    def losses(self, j, coef, intercept):
        """Of the bins of each block: eta, share, loss above its least, residual and curvature.

        The last one is whether the bin is sent to infinity: none is.
        """
        level, loss = intercept + self.shift @ coef, self.loss.select(j)
        for block in self.rows:
            y, n = block.counts[j], len(block.rows)
            eta = block.rows[:, :-1] @ coef + level
            if block.offset is not None:
                eta += block.offset[j if len(block.offset) > 1 else 0]
            value, residual, curvature = loss.derivatives(eta, y)
            share = np.ones(n) if block.weight is None else block.weight
            away = np.zeros(n, bool)
            yield eta, share / self.n_bins, value - loss.least_loss(y), residual, curvature, away

    def learn(self, receivers, step, step_intercept, change, change_intercept):
        """Nothing: Hessians are exact."""

    def fill(self, active):
        """Receivers of the next pass: all."""
        return active

    def trust(self, j):
        """Lower bound of the true curvature, as a part of the model's."""
        return 1.0

    def outdated(self, j, coef, intercept, features):
        """No: see `_REFRESH`."""
        return False

    def expect(self, receivers, decrement):
        """Nothing: sums are always in float64."""

    def announce(self, receivers, decrement):
        """Ask the next pass for new Hessians where the decrement is large, or hardly falls."""
        slow = decrement > np.maximum(0.01 * self.last[receivers], 1e-20)
        self.due[receivers] = (decrement > self._REFRESH) | slow
        self.last[receivers] = decrement

    def _factorise(self, stack, places, coef, intercept, numbers):
        """Factorise Schur complements, in coordinates that are not collinear.

        ``numbers`` are the receivers' columns among the points.
        """
        self._reduce(stack, places)
        near = (stack.jitter[places] > 0) | (stack.pivot[places] <= _NEAR)
        near &= stack.known[places] & ~self.searched[stack.receivers[places]]
        found = {}
        for k in near.nonzero()[0]:
            j = stack.receivers[places[k]]
            self.searched[j], space = True, self._find_space(j)
            if space.null.size or space.smallest**2 < _NEAR:
                found.setdefault(id(space), (space, []))[1].append(k)
        for space, some in found.values():
            receivers = stack.receivers[places[some]]
            own = self._stack(receivers, space, self._pull(receivers[0]))
            self.due[receivers] = True
            some = numbers[some]
            self.evaluate(receivers, coef[:, some], intercept[some])
            self._reduce(own, np.arange(receivers.size))

    def _reduce(self, stack, places):
        """Eliminate the intercept from Hessians and factorise them.

        Where the Hessian of a loss that is not convex has no factor, that of the expected curvature
        gives the step, and nothing is certain.
        """
        stack.known[places] = stack.fresh[places] = False
        for some in pieces(places.size, stack.hess[0].size):
            some = places[some]
            self._eliminate(stack, some, stack.hess)
            if not self.loss.convex:
                certain = stack.known[some] & ~(stack.jitter[some] > 0)
                self.certain[stack.receivers[some]] = certain
                self._eliminate(stack, some[~certain], stack.expected)

    def _eliminate(self, stack, places, hess):
        """Factorise the Schur complements of some Hessians, as far as these are finite."""
        bordered = hess[run_of(places)]
        fine = np.isfinite(bordered).all(axis=(1, 2))
        if not self.loss.convex:
            fine &= bordered[:, -1, -1] > 0
        if not fine.all():
            places, bordered = places[fine], bordered[fine]
        if not places.size:
            return
        run, n = run_of(places), self.n_bins
        moment, total = bordered[:, -1, :-1], bordered[:, -1, -1]
        mean = moment / total[:, None]
        schur = bordered[:, :-1, :-1] - moment[:, :, None] * mean[:, None]
        schur = schur + schur.swapaxes(1, 2)
        schur /= 2 * n
        if stack.space is not None:
            schur += (stack.space.basis.T @ stack.pull @ stack.space.basis).T
        else:
            if self.penalty.quadratic:
                self.penalty.add_hessians(stack.receivers[run], stack.features, schur)
            if self.shifted:
                mean += self.shift[stack.features]
        stack.take(places, mean, total / n, schur)

    def _find_space(self, j):
        """The `Space` of a receiver's free features; receivers with the same features share it."""
        free, pull = self.features[j], self._pull(j)
        key = free.tobytes(), pull.tobytes()
        if key not in self._spaces:
            self._spaces[key] = self._space_of(free, pull)
        return self._spaces[key]

    def _space_of(self, features, pull):
        """The `Space` of some features, with the Hessian of their penalty."""

        def blocks():
            for block in self.rows:
                yield block.rows[:, features], block.times

        return find_space(blocks, self.given_size[features], pull)

    def least_norm(self, receivers, coef, intercept):
        """Take the directions out that change neither eta nor the penalty, in place.

        Returns whether there are any.
        """
        turned = False
        for stack, numbers, *_ in self._parts(receivers):
            space, free = stack.space, stack.features
            for k in () if space is None or not space.null.size else numbers:
                along = space.null @ (space.null.T @ coef[free, k])
                coef[free, k] -= along
                intercept[k] += (space.mean + self.shift[free]) @ along
                turned = True
        return turned

    def largest_change(self, receivers, step, coef, intercept):
        """Largest change of eta in any bin by steps to some points, times `Loss.pace` there."""
        largest = np.zeros(receivers.size)
        for block in self.rows:
            rows = block.rows[:, :-1]
            for k, j in enumerate(receivers):
                free = self.features[j]
                d = step[free, k]
                change = np.abs(rows[:, free] @ d + self.drift[j])
                if self.loss.pace is not None:
                    eta = rows @ coef[:, k] + intercept[k] + self.shift @ coef[:, k]
                    if block.offset is not None:
                        eta += block.offset[j if len(block.offset) > 1 else 0]
                    change *= self.loss.pace(eta)
                largest[k] = max(largest[k], change.max(initial=0))
        return largest


class _Part(NamedTuple):
    """Some of the active receivers that share a stack; their numbers as slices where possible."""

    stack: Stack
    k: np.ndarray  # numbers among the active receivers
    places: np.ndarray  # in the stack
    at: slice | np.ndarray  # k
    run: slice | np.ndarray  # places
    j: slice | np.ndarray  # numbers in the batch

    def cut(self, size):
        """Parts whose arrays of ``size`` numbers a receiver fit into a core's cache."""
        ranges = pieces(self.k.size, size)
        if len(ranges) == 1:
            return [self]
        return [_part(self.stack, self.k[some], self.places[some]) for some in ranges]


def _part(stack, k, places):
    return _Part(stack, k, places, run_of(k), run_of(places), run_of(stack.receivers[places]))


class _Sums(NamedTuple):
    """Sums of a pass over the bins, for each active receiver."""

    objective: np.ndarray
    intercept: np.ndarray  # gradient of the intercept
    terms: np.ndarray  # size of the terms of the gradient without those of eta
    grad: np.ndarray  # (n_active, n_features)


def _put(sums, places, parts, first):
    """Begin sums of some places with parts, or add these."""
    if first:
        sums[places] = parts
    else:
        sums[places] += parts
