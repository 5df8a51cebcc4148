"""Exact Hessians from rows of X."""

import numpy as np

from fastglm._engine.linear import cho_solve, cholesky
from fastglm._engine.space import find_space
from fastglm._kernels.dots import column_dot
from fastglm._kernels.threads import run_threads
from fastglm._products.weighted_gram import WeightedGram, symmetric

_DENSE_BYTES = 1 << 28  # rows that are kept between passes
_ROUNDING = 4 * np.finfo(np.float64).eps  # of a number that is computed from a few others
_LOST = 1e-12  # a pivot, or a variance, that a Hessian in float64 does not hold
_NEAR = 1e-8  # a pivot of the Hessian, scaled to a unit diagonal, that may be rounding
_BLOCK_BYTES = 1 << 21  # rows that are worked on at a time: a core's L2 and part of L3 hold them


class DenseProblem:
    """Exact Hessians from rows of X in blocks: for few features or tight masks.

    Cost of an iteration: n_bins * p_j^2 multiply-adds for a receiver with p_j free features.
    Memory: at most `_DENSE_BYTES` of rows, and p_j^2 float64 a receiver. If all rows fit into
    `_DENSE_BYTES`, they are built once; otherwise once a pass for all receivers.

    Features that are collinear, or nearly so, get coordinates of their own (`space`), which cost a
    QR factor of their rows. A receiver then moves in these coordinates.
    """

    method = "newton-cholesky"
    exact = True  # steps are Newton's
    rough = False
    polish = 3
    n_passes = 1  # of an evaluation
    _REFRESH = 1e-8  # a decrement above this is due for a new Hessian

    def __init__(self, products, observed, free, penalty, loss):
        self.products, self.observed, self.loss = products, observed, loss
        self.free, self.features = free, [np.flatnonzero(column) for column in free.T]
        index = np.flatnonzero(products.valid)
        self.n_bins = index.size
        row_bytes = 8 * max(products.shape[1], 1)
        n_rows = max(256, _BLOCK_BYTES // row_bytes)
        self.blocks = np.array_split(index, -(-self.n_bins // n_rows))
        self._kept = {} if self.n_bins * row_bytes <= _DENSE_BYTES else None
        n = penalty.n_receivers
        self.hess, self.last_hess = [None] * n, [None] * n
        self.certain = np.ones(n, bool)  # always float64
        self.rounding, self.floor = np.full(n, 1e-13), np.zeros(n)
        self.size = self._sizes()  # of the features as the rows hold them
        self.given_size = np.hypot(self.size, products.taken)  # and as they were given
        self.set_penalty(penalty)

    def set_penalty(self, penalty):
        """Another penalty for the same data; the Hessians of the last points stay."""
        n = penalty.n_receivers
        self.penalty = penalty
        self.plain = (penalty.unpenalised(self.products.shape[1]) & self.free).any(axis=0)
        self.factor, self.mean, self.total = [None] * n, [None] * n, np.zeros(n)
        self.space, self.slope, self.load = [None] * n, [None] * n, [None] * n
        self.searched, self.lost, self._spaces = np.zeros(n, bool), np.zeros(n, bool), {}
        self.last, self.drift = np.full(n, np.inf), np.zeros(n)
        self.due = np.ones(n, bool)

    def _sizes(self):
        """Root mean square of every feature, (n_features,)."""
        squares = np.zeros(self.products.shape[1])
        with np.errstate(over="ignore"):  # features whose squares overflow
            for k in range(len(self.blocks)):
                squares += (self._block(k)[0].rows[:, :-1] ** 2).sum(axis=0)
        return np.sqrt(squares / self.n_bins)

    def _block(self, k):
        """Rows and counts of block k, kept between passes where all blocks fit into memory."""
        if self._kept is not None and k in self._kept:
            return self._kept[k]
        rows, counts = self.products.rows(self.blocks[k]), self.observed(self.blocks[k])
        # Not packed: packing would compile kernels during the first small fit.
        gram = WeightedGram(np.column_stack([rows, np.ones(len(rows))]), pack=False)
        if self._kept is not None:
            self._kept[k] = gram, counts
        return gram, counts

    def evaluate(self, active, coef, intercept):
        """Objective, gradient and, where it is due, the Hessian at the given points."""
        self.active, self.point = active, (coef, intercept)
        objective, grad_intercept = np.zeros(active.size), np.zeros(active.size)
        grad, reach = np.zeros_like(coef), self._reach(coef, intercept)
        for j in active:
            self.hess[j], self.slope[j], self.load[j] = None, 0.0, 0.0
        # Features outside a receiver's fit whose fixed coefficients are not 0: they add to eta.
        fixed = [
            np.setdiff1d(np.flatnonzero(coef[:, k]), self.features[j]) for k, j in enumerate(active)
        ]

        def add(k):
            j = active[k]
            free = self.features[j]
            Z = rows if free.size == rows.shape[1] else rows[:, free]
            eta = Z @ coef[free, k] + intercept[k]
            if fixed[k].size:
                eta += rows[:, fixed[k]] @ coef[fixed[k], k]
            if shift is not None:
                eta += shift[:, j if shift.shape[1] > 1 else 0]
            loss, residual, curvature = self.loss.derivatives(eta, counts[:, j])
            if weight is not None:
                loss, residual, curvature = weight * loss, weight * residual, weight * curvature
            objective[k] += loss.sum()
            if not np.isfinite(objective[k]):
                return
            terms = np.abs(residual)
            if self.loss.high is None:  # else the residual has no rounding of the counts
                terms = terms + 2 * np.abs(counts[:, j]) * (1.0 if weight is None else weight)
            own, terms = terms.sum(), terms + curvature * reach[k]
            grad[free, k] += Z.T @ residual
            grad_intercept[k] += residual.sum()
            if self.space[j] is not None:
                Z = self.space[j].of(Z)
                self.slope[j] = self.slope[j] + Z.T @ residual
            self.load[j] += np.append(np.abs(Z).T @ terms, [terms.sum(), own])
            if self.due[j]:
                self._add_hessian(j, gram, Z, curvature)

        for block in range(len(self.blocks)):
            gram, counts = self._block(block)
            rows = gram.rows[:, :-1]
            index, shift, weight = self.blocks[block], None, None
            if self.observed.offset is not None:
                shift = self.observed.offset[index]
            if self.observed.weight is not None:
                weight = self.observed.weight[index]
            with np.errstate(over="ignore", invalid="ignore"):  # a trial point may be far off
                run_threads(add, range(active.size), rows.size * active.size)
        penalised = np.zeros_like(coef)
        for k, j in enumerate(active):
            penalised[self.features[j], k] = coef[self.features[j], k]
        pull = self.penalty.times(penalised, active)
        objective = objective / self.n_bins + 0.5 * column_dot(penalised, pull)
        for k, j in enumerate(active):
            free = self.features[j]
            grad[free, k] = grad[free, k] / self.n_bins + pull[free, k]
            own = _ROUNDING * reach[k] * np.ravel(self.load[j])[-1] / self.n_bins
            self.rounding[j] = max(1e-13, np.nan_to_num(own / (1 + abs(objective[k]))))
        return objective, grad, grad_intercept / self.n_bins

    def _reach(self, coef, intercept):
        """Size of the terms of eta at some points; eta is rounded in proportion to it."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self.given_size @ np.abs(coef) + np.abs(intercept)

    def _add_hessian(self, j, gram, Z, curvature):
        """Add the Hessian of the summed loss over some rows, the intercept last."""
        space, n = self.space[j], Z.shape[1] + 1
        if self.hess[j] is None:
            self.hess[j] = np.zeros((n, n))
        if space is None:
            gram.add(curvature, np.append(self.features[j], gram.rows.shape[1] - 1), self.hess[j])
        else:
            own = WeightedGram(np.column_stack([Z, np.ones(len(Z))]), pack=False)
            own.add(curvature, np.arange(n), self.hess[j])

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
            found = self._newton(j, grad[free, k], grad_intercept[k], coef[free, k])
            d, step_intercept[k], decrement[k] = found
            self.floor[j] = self._floor(j)
            step[free, k] = d if space is None else space.basis @ d
            if space is not None:  # coordinates are centred
                step_intercept[k] -= space.mean @ step[free, k]
            self.drift[j] = step_intercept[k] + grad_intercept[k] / self.total[j]
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

    def _floor(self, j):
        """The decrement that rounding of the gradient allows at the last point."""
        space, factor, load = self.space[j], self.factor[j], self.load[j] / self.n_bins
        if space is not None:  # its rows are rounded in proportion to the features
            size = self.size[self.features[j]]
            noise = np.linalg.norm(space.basis * size[:, None], axis=0)
            load = load + np.append(noise, [0.0, 0.0]) * load[-1]
        units = np.append(factor.unit, np.sqrt(self.total[j]))
        return 0.5 * ((_ROUNDING * load[:-1] / units) ** 2).sum()

    def _pull(self, j):
        """Hessian of the penalty of a receiver over its free features."""
        return self.penalty.hessian(j, self.features[j])

    def harmless(self, active, grad, grad_intercept):
        """None: every step must lower the objective."""
        return np.zeros(active.size, bool)

    # --- for proximal steps ---

    def forget(self, receivers=slice(None)):
        """Begin a new fit of some receivers: the first pass makes Hessians."""
        self.due[receivers] = True

    def curvature(self, j, coef, intercept, features):
        """Schur complement of the Hessian of the last pass that made one; see `Curvature`."""
        if self.hess[j] is not None:
            self._look_for_lost(j)
            self.last_hess[j] = symmetric(self.hess[j]) / self.n_bins
            self.hess[j] = None
        place = np.searchsorted(self.features[j], features)
        data = self.last_hess[j]
        total, mean = data[-1, -1], data[-1, place] / data[-1, -1]
        return data[np.ix_(place, place)] - np.outer(total * mean, mean), mean, total

    def _look_for_lost(self, j):
        """Note whether the rows see directions that the Hessian has lost."""
        if self.searched[j]:
            return
        self.searched[j] = True
        pivot = self._reduce(j)
        if pivot is not None and pivot < _LOST:
            self.lost[j] = self._find_space(j).smallest ** 2 < _LOST

    def learn(self, receivers, step, step_intercept, change, change_intercept):
        """Nothing: Hessians are exact."""

    def fill(self, active):
        """Receivers of the next pass: all."""
        return active

    def trust(self, j):
        """Lower bound of the true curvature, as a part of the model's."""
        return 1.0

    def announce(self, receivers, decrement):
        """Ask the next pass for new Hessians where the decrement is large."""
        self.due[receivers] = decrement > self._REFRESH

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
        """Eliminate the intercept from a Hessian and factorise it; returns the smallest pivot."""
        bordered, self.factor[j] = self.hess[j], None
        if not np.isfinite(bordered).all():
            return None
        hess, moment, total = bordered[:-1, :-1], bordered[-1, :-1], bordered[-1, -1]
        mean = moment / total
        schur, pull = hess - np.outer(moment, mean), self._pull(j)
        if self.space[j] is not None:
            pull = self.space[j].basis.T @ pull @ self.space[j].basis
        schur = (schur + schur.T) / (2 * self.n_bins) + pull
        self.mean[j], self.total[j] = mean, total / self.n_bins
        self.factor[j] = cholesky(schur)
        return 0.0 if self.factor[j].jitter else self.factor[j].pivot

    def _find_space(self, j):
        """The `Space` of a receiver's free features; receivers with the same features share it."""
        free, pull = self.features[j], self._pull(j)
        key = free.tobytes(), pull.tobytes()

        def blocks():
            for block in range(len(self.blocks)):
                yield self._block(block)[0].rows[:, free]

        if key not in self._spaces:
            self._spaces[key] = find_space(blocks, self.given_size[free], pull)
        return self._spaces[key]

    def least_norm(self, receivers, coef, intercept):
        """Take the directions out that change neither eta nor the penalty, in place."""
        for k, j in enumerate(receivers):
            space, free = self.space[j], self.features[j]
            if space is not None and space.null.size:
                along = space.null @ (space.null.T @ coef[free, k])
                coef[free, k] -= along
                intercept[k] += space.mean @ along

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
                    eta = rows @ coef[:, k] + intercept[k]
                    if shift is not None:
                        eta += shift[:, k if shift.shape[1] > 1 else 0]
                    change *= self.loss.pace(eta)
                largest[k] = max(largest[k], change.max(initial=0))
        return largest
