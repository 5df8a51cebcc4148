"""Exact Hessians from rows of X."""

import numpy as np

from fastglm._algebra.linear import CONSTANT, cho_solve, cholesky, never_bends_down
from fastglm._algebra.space import ROUNDED, find_space
from fastglm._kernels.dots import column_dot
from fastglm._kernels.threads import run_threads
from fastglm._products.weighted_gram import WeightedGram, symmetric

_DENSE_BYTES = 1 << 28  # rows that are kept between passes
_EPS = np.finfo(np.float64).eps
_ROUNDING = 4 * _EPS  # of a number that is computed from a few others
_FLAT = 1e-13  # a smaller pivot may be rounding altogether
_WEIGHED = 100.0  # most by which curvatures make a square smaller
_NEAR = 1e-8  # a pivot of the Hessian, scaled to a unit diagonal, that may be rounding
_FAR = 1e-4  # a column with a smaller standard deviation, as a part of its mean, is centred
_BLOCK_BYTES = 1 << 21  # rows that are worked on at a time: a core's L2 and part of L3 hold them


class DenseProblem:
    """Exact Hessians from rows of X in blocks: for few features or tight masks.

    Cost of an iteration: n_bins * p_j^2 multiply-adds for a receiver with p_j free features.
    Memory: at most `_DENSE_BYTES` of rows, and p_j^2 float64 a receiver. If all rows fit into
    `_DENSE_BYTES`, they are built once; otherwise once a pass for all receivers.

    Features that are collinear, or nearly so, get coordinates of their own (`space`), which cost a
    QR factor of their rows. A receiver then moves in these coordinates.

    Columns that are far from zero, such as products of a time and a count, are read centred: the
    mean would take the digits of eta and of the Hessian. Gradients and steps that this class takes
    and returns are those of the columns as they are.

    ``flat`` are receivers whose last Hessian has directions with the curvature of rounding, of
    which a decrement says nothing.
    """

    method = "newton-cholesky"
    exact = True  # steps are Newton's
    rough = False
    polish = 3
    n_passes = 1  # of an evaluation
    _REFRESH = 1e-8  # a decrement above this is due for a new Hessian

    def __init__(self, products, observed, free, penalty, loss):
        self.products, self.observed, self.loss = products, observed, loss
        self.own = [loss.select(j) for j in range(free.shape[1])]  # of every receiver
        self.free, self.features = free, [np.flatnonzero(column) for column in free.T]
        self.bordered = [_joined(own, products.shape[1]) for own in self.features]
        index = np.flatnonzero(products.valid)
        self.n_bins = index.size
        row_bytes = 8 * max(products.shape[1], 1)
        n_rows = max(256, _BLOCK_BYTES // row_bytes)
        self.blocks = np.array_split(index, -(-self.n_bins // n_rows))
        self._kept = {} if self.n_bins * row_bytes <= _DENSE_BYTES else None
        n = penalty.n_receivers
        self.hess, self.last_hess = [None] * n, [None] * n
        self.expected = [None] * n  # Hessians of the expected curvature, if the loss is not convex
        self.certain = np.ones(n, bool)  # False where the Hessian has no factor; see `_reduce`
        self.rounding, self.floor = np.full(n, 1e-13), np.zeros(n)
        self.shift = np.zeros(products.shape[1])  # what is taken off the columns
        self.size, self.shift = self._sizes()
        self.taken = np.hypot(self.shift, products.taken)
        self.given_size = np.hypot(self.size, self.taken)  # of the features as they were given
        self.set_penalty(penalty)

    def set_penalty(self, penalty):
        """Another penalty for the same data; the Hessians of the last points stay."""
        n = penalty.n_receivers
        self.penalty = penalty
        self.plain = (penalty.unpenalised(self.products.shape[1]) & self.free).any(axis=0)
        self.factor, self.mean, self.total = [None] * n, [None] * n, np.zeros(n)
        self.space, self.slope, self.load = [None] * n, [None] * n, [None] * n
        self.searched, self._spaces = np.zeros(n, bool), {}
        self.left = np.zeros(n)  # summed size of the residuals
        self.last, self.drift = np.full(n, np.inf), np.zeros(n)
        self.due, self.flat = np.ones(n, bool), np.zeros(n, bool)

    def _sizes(self):
        """Root mean square of every feature as the rows hold it, and what is taken off it."""
        sums, squares = np.zeros((2, self.products.shape[1]))
        with np.errstate(over="ignore", invalid="ignore"):  # features whose squares overflow
            for k in range(len(self.blocks)):
                rows = self._block(k)[0].rows[:, :-1]
                sums += rows.sum(axis=0)
                squares += (rows**2).sum(axis=0)
            mean, square = sums / self.n_bins, squares / self.n_bins
            far = np.flatnonzero(square - mean**2 < (_FAR * mean) ** 2)
        size, shift = np.sqrt(square), np.zeros(mean.size)
        if far.size:
            shift[far], square = mean[far], np.zeros(far.size)
            for k in range(len(self.blocks)):
                rows = self._block(k)[0].rows
                rows[:, far] -= mean[far]
                square += (rows[:, far] ** 2).sum(axis=0)
            size[far] = np.sqrt(square / self.n_bins)
            flat = far[size[far] <= ROUNDED * np.abs(mean[far])]
            size[flat] = 0
            for gram, _ in (self._kept or {}).values():
                gram.rows[:, flat] = 0
        return size, shift

    def _block(self, k):
        """Rows and counts of block k, kept between passes where all blocks fit into memory."""
        if self._kept is not None and k in self._kept:
            return self._kept[k]
        rows, counts = self.products.rows(self.blocks[k]), self.observed(self.blocks[k])
        if self.shift.any():
            rows = np.where(self.size > 0, rows - self.shift, 0.0)
        # Not packed: packing would compile kernels during the first small fit.
        gram = WeightedGram(np.column_stack([rows, np.ones(len(rows))]), pack=False)
        if self._kept is not None:
            self._kept[k] = gram, counts
        return gram, counts

    def evaluate(self, active, coef, intercept):
        """Objective, gradient and, where it is due, the Hessian at the given points."""
        self.active, self.point = active, (coef, intercept)
        objective, grad_intercept = np.zeros(active.size), np.zeros(active.size)
        level = intercept + self.shift @ coef  # eta beside the centred columns
        grad, reach = np.zeros_like(coef), self._reach(coef, level)
        for j in active:
            self.hess[j] = self.expected[j] = None
            self.slope[j], self.load[j], self.left[j] = 0.0, 0.0, 0.0
        # Features outside a receiver's fit whose fixed coefficients are not 0: they add to eta.
        fixed = (coef != 0) & ~self.free[:, active]
        any_fixed = fixed.any(axis=0).tolist()
        terms_of_eta = np.zeros(active.size)

        def add(k):
            j = active[k]
            free = self.features[j]
            Z = rows if free.size == rows.shape[1] else rows[:, free]
            eta = Z @ coef[free, k] + level[k]
            if any_fixed[k]:
                eta += rows[:, fixed[:, k]] @ coef[fixed[:, k], k]
            if shift is not None:
                eta += shift[:, j if shift.shape[1] > 1 else 0]
            loss, residual, curvature = self.own[j].derivatives(eta, counts[:, j])
            if weight is not None:
                loss, residual, curvature = weight * loss, weight * residual, weight * curvature
            objective[k] += loss.sum()
            if not np.isfinite(objective[k]):
                return
            terms = np.abs(residual)
            self.left[j] += terms.sum()
            if self.loss.high is None:  # else the residual has no rounding of the counts
                part = 2 * self.own[j].count_part(eta, counts[:, j])
                terms = terms + part * (1.0 if weight is None else weight)
            own, terms = terms.sum(), terms + np.abs(curvature) * reach[k]
            grad[free, k] += Z.T @ residual
            grad_intercept[k] += residual.sum()
            if self.space[j] is not None:
                Z = self.space[j].of(Z)
                self.slope[j] = self.slope[j] + Z.T @ residual
            self.load[j] += _joined(np.abs(Z).T @ terms, terms.sum())
            terms_of_eta[k] += own
            if self.due[j]:
                self._add_hessian(self.hess, j, gram, Z, curvature)
                if not self.loss.convex:
                    curvature = self.own[j].expected_curvature(eta)
                    curvature = curvature if weight is None else weight * curvature
                    self._add_hessian(self.expected, j, gram, Z, curvature)

        for block in range(len(self.blocks)):
            gram, counts = self._block(block)
            rows = gram.rows[:, :-1]
            shift, weight = (
                None if values is None else values[self.blocks[block]]
                for values in (self.observed.offset, self.observed.weight)
            )
            with np.errstate(over="ignore", invalid="ignore"):  # a trial point may be far off
                run_threads(add, range(active.size), rows.size * active.size)
        objective = self._penalise(active, coef, objective, grad, grad_intercept)
        with np.errstate(over="ignore", invalid="ignore"):
            own = _ROUNDING * reach * terms_of_eta / self.n_bins / (1 + np.abs(objective))
        self.rounding[active] = np.maximum(1e-13, np.nan_to_num(own))
        return objective, grad, grad_intercept / self.n_bins

    def _penalise(self, active, coef, objective, grad, grad_intercept):
        """The objective from the sum of losses; the gradient from sums over bins, in place."""
        penalised = np.zeros_like(coef)
        for k, j in enumerate(active):
            penalised[self.features[j], k] = coef[self.features[j], k]
        pull = self.penalty.times(penalised, active)
        for k, j in enumerate(active):
            free = self.features[j]
            grad[free, k] += self.shift[free] * grad_intercept[k]
            grad[free, k] = grad[free, k] / self.n_bins + pull[free, k]
        return objective / self.n_bins + 0.5 * column_dot(penalised, pull)

    def _reach(self, coef, level):
        """Size of the terms of eta at some points; eta is rounded in proportion to it."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self.size @ np.abs(coef) + np.abs(level)

    def _add_hessian(self, sums, j, gram, Z, curvature):
        """Add the Hessian of the summed loss over some rows, the intercept last."""
        space, n = self.space[j], Z.shape[1] + 1
        if sums[j] is None:
            sums[j] = np.zeros((n, n))
        if space is None:
            gram.add(curvature, self.bordered[j], sums[j])
        else:
            own = WeightedGram(np.column_stack([Z, np.ones(len(Z))]), pack=False)
            own.add(curvature, np.arange(n), sums[j])

    @np.errstate(divide="ignore")  # curvatures that underflow
    def step(self, moved, grad, grad_intercept, tol, polishing):
        """Newton steps at the accepted points, their decrements, and passes spent (none)."""
        step, step_intercept = np.zeros_like(grad), np.zeros(moved.size)
        decrement = np.zeros(moved.size)
        coef, intercept = (values[..., moved] for values in self.point)
        active = self.active
        for k, j in enumerate(active[moved]):
            if self.hess[j] is not None:
                self._factorise(j, coef[:, [k]], intercept[[k]])
            if self.factor[j] is None:
                decrement[k] = np.nan  # features whose squares overflow
                continue
            free, space = self.features[j], self.space[j]
            self.flat[j] = self.factor[j].jitter > 0 or self.factor[j].pivot < _FLAT
            found = self._newton(j, grad[free, k], grad_intercept[k], coef[free, k])
            d, step_intercept[k], decrement[k] = found
            self.floor[j] = self._floor(j, coef[:, k], intercept[k])
            step[free, k] = d if space is None else space.basis @ d
            if space is not None:  # coordinates are centred
                step_intercept[k] -= (space.mean + self.shift[free]) @ step[free, k]
            self.drift[j] = step_intercept[k] + grad_intercept[k] / self.total[j]
            self.drift[j] += self.shift @ step[:, k]
            # A step with the last factor (a chord step) suffices if it gains two digits.
            slow = decrement[k] > max(0.01 * self.last[j], 1e-20)
            self.due[j] = decrement[k] > self._REFRESH or slow
            self.last[j] = decrement[k]
        self.active = active
        return step, step_intercept, decrement, 0

    def _newton(self, j, grad, grad_intercept, coef):
        """Newton's step of a receiver in its coordinates, and its decrement."""
        space, mean, factor = self.space[j], self.mean[j], self.factor[j]
        if space is not None:
            pull = self._pull(j) @ coef
            grad = self.slope[j] / self.n_bins + space.basis.T @ pull
        g = grad - mean * grad_intercept
        d = -cho_solve(factor, g)
        # A jitter leaves a part of the gradient, which the step does not remove.
        left = factor.jitter * factor.unit * d
        decrement = -0.5 * (g @ d) + 0.5 * (left @ left)
        decrement += 0.5 * grad_intercept**2 / self.total[j]
        return d, -grad_intercept / self.total[j] - mean @ d, decrement

    def _floor(self, j, coef, intercept):
        """The decrement that rounding of the gradient allows at the last point."""
        space, factor, load = self.space[j], self.factor[j], self.load[j] / self.n_bins
        if space is not None:  # its rows are rounded in proportion to the features
            size = self.size[self.features[j]]
            noise = np.linalg.norm(space.basis * size[:, None], axis=0)
            load = load + _joined(noise, 0.0) * (self.left[j] / self.n_bins)
        return self._hidden(load, factor.unit, self.total[j], coef, intercept)

    def _hidden(self, load, unit, total, coef, intercept):
        """The decrement that rounding allows, for loads of some features and of the intercept.

        The intercept of the columns as they were given is rounded in proportion to its terms.
        """
        away = np.abs(intercept) + self.taken @ np.abs(coef)
        error = _ROUNDING * _joined(load[:-1], load[-1] + total * away)
        return 0.5 * ((error / _joined(unit, np.sqrt(total))) ** 2).sum()

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
        if self.hess[j] is not None:
            known = [sums for sums in (self.hess[j], self.expected[j]) if sums is not None]
            self.last_hess[j] = [symmetric(sums) / self.n_bins for sums in known]
            self.hess[j] = None
        place = np.searchsorted(self.features[j], features)
        schur, mean, total = self._complement(self.last_hess[j][0], place)
        if not self.loss.convex:
            expected = self._complement(self.last_hess[j][1], place)
            pull = self.penalty.hessian(j, features)
            self.certain[j] = total > 0 and never_bends_down(schur + pull, expected[0] + pull)
            if not self.certain[j]:
                schur, mean, total = expected
        curved = np.diag(schur)
        unit = np.where(curved > CONSTANT * total * mean**2, np.sqrt(curved.clip(min=0)), np.inf)
        load = self.load[j][np.append(place, -1)] / self.n_bins
        self.floor[j] = self._hidden(load, unit, total, coef, intercept)
        return schur, mean + self.shift[features], total

    @staticmethod
    def _complement(data, place):
        """Schur complement over some features, the mean row of the intercept, and its entry."""
        total, mean = data[-1, -1], data[-1, place] / data[-1, -1]
        return data[np.ix_(place, place)] - np.outer(total * mean, mean), mean, total

    def noise(self, j, features):
        """Rounding of the gradient of receiver j at the last point, for some features."""
        place = np.searchsorted(self.features[j], features)
        return _ROUNDING * self.load[j][place] / self.n_bins

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
        total = 0.0
        for block, index in enumerate(self.blocks):
            least = self.own[j].least_loss(self._block(block)[1][:, j])
            weight = self.observed.weight
            total += (least if weight is None else weight[index] * least).sum()
        return total / self.n_bins

    # --- for bins at infinity ---

    def rows(self, block, j):
        """Rows of receiver j's features in a block, centred, and a column of ones."""
        rows = self._block(block)[0].rows
        return rows[:, self.bordered[j]]

    def losses(self, j, coef, intercept):
        """Of the bins of each block: eta, share, loss above its least, residual and curvature.

        The last one is whether the bin is sent to infinity: none is.
        """
        level = intercept + self.shift @ coef
        for block, index in enumerate(self.blocks):
            gram, counts = self._block(block)
            y, weight = counts[:, j], self.observed.weight
            eta = gram.rows[:, :-1] @ coef + level
            if self.observed.offset is not None:
                offset = self.observed.offset[index]
                eta += offset[:, j if offset.shape[1] > 1 else 0]
            loss, residual, curvature = self.own[j].derivatives(eta, y)
            share = np.ones(index.size) if weight is None else weight[index]
            away = np.zeros(index.size, bool)
            excess = loss - self.own[j].least_loss(y)
            yield eta, share / self.n_bins, excess, residual, curvature, away

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

    def _factorise(self, j, coef, intercept):
        """Factorise the Schur complement at a point, in coordinates that are not collinear."""
        pivot = self._reduce(j)
        if pivot is None or pivot > _NEAR or self.searched[j]:
            return
        self.searched[j] = True
        space = self._find_space(j)
        if space.null.size or space.smallest**2 < _NEAR:
            self.space[j], self.due[j] = space, True
            self.evaluate(np.array([j]), coef, intercept)
            self._reduce(j)

    def _reduce(self, j):
        """Eliminate the intercept from a Hessian and factorise it; returns the smallest pivot.

        Where the Hessian of a loss that is not convex has no factor, that of the expected curvature
        gives the step, and nothing is certain.
        """
        self.factor[j] = None
        if self.loss.convex:
            self._eliminate(j, self.hess[j])
        else:
            self.certain[j] = self._eliminate(j, self.hess[j])
            if not self.certain[j]:
                self._eliminate(j, self.expected[j])
        factor = self.factor[j]
        return None if factor is None else 0.0 if factor.jitter else factor.pivot

    def _eliminate(self, j, bordered):
        """Factorise a Hessian; returns whether it is positive definite."""
        hess, moment, total = bordered[:-1, :-1], bordered[-1, :-1], bordered[-1, -1]
        if not np.isfinite(bordered).all() or not (self.loss.convex or total > 0):
            return False
        mean = moment / total
        schur = hess - moment[:, None] * mean
        schur = (schur + schur.T) / (2 * self.n_bins)
        if self.space[j] is not None:
            schur += self.space[j].basis.T @ self._pull(j) @ self.space[j].basis
        else:
            self.penalty.add_hessian(j, self.features[j], schur)
            mean = mean + self.shift[self.features[j]]
        self.mean[j], self.total[j] = mean, total / self.n_bins
        self.factor[j] = cholesky(schur)
        return not self.factor[j].jitter

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
            for block in range(len(self.blocks)):
                yield self._block(block)[0].rows[:, features]

        return find_space(blocks, self.given_size[features], pull)

    def least_norm(self, receivers, coef, intercept):
        """Take the directions out that change neither eta nor the penalty, in place."""
        for k, j in enumerate(receivers):
            space, free = self.space[j], self.features[j]
            if space is not None and space.null.size:
                along = space.null @ (space.null.T @ coef[free, k])
                coef[free, k] -= along
                intercept[k] += (space.mean + self.shift[free]) @ along

    def largest_change(self, receivers, step, coef, intercept):
        """Largest change of eta in any bin by steps to some points, times `Loss.pace` there."""
        largest = np.zeros(receivers.size)
        for block, index in enumerate(self.blocks):
            rows = self._block(block)[0].rows[:, :-1]
            shift = self.observed.shift(index, False, receivers)
            for k, j in enumerate(receivers):
                free = self.features[j]
                d = step[free, k]
                change = np.abs(rows[:, free] @ d + self.drift[j])
                if self.loss.pace is not None:
                    eta = rows @ coef[:, k] + intercept[k] + self.shift @ coef[:, k]
                    if shift is not None:
                        eta += shift[:, k if shift.shape[1] > 1 else 0]
                    change *= self.loss.pace(eta)
                largest[k] = max(largest[k], change.max(initial=0))
        return largest


def _joined(values, last):
    """An array with one number more; `numpy.append` takes three times as long."""
    out = np.empty(values.size + 1, values.dtype)
    out[:-1], out[-1] = values, last
    return out
