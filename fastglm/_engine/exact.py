"""Exact Hessians from rows of X."""

import numpy as np

from fastglm._engine.linear import cho_solve, cholesky, split_space
from fastglm._kernels.dots import column_dot
from fastglm._kernels.threads import run_threads
from fastglm._products.weighted_gram import WeightedGram

_DENSE_BYTES = 1 << 28  # rows that are kept between passes
_ROUNDING = 1e-14  # variance, as a part of the mean square, that is rounding
_BLOCK_BYTES = 1 << 21  # rows that are worked on at a time: a core's L2 and part of L3 hold them


class DenseProblem:
    """Exact Hessians from rows of X in blocks: for few features or tight masks.

    Cost of an iteration: n_bins * p_j^2 multiply-adds for a receiver with p_j free features.
    Memory: at most `_DENSE_BYTES` of rows, and p_j^2 float64 a receiver. If all rows fit into
    `_DENSE_BYTES`, they are built once; otherwise once a pass for all receivers.
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
        self.rounding = np.full(n, 1e-13)
        self.set_penalty(penalty)

    def set_penalty(self, penalty):
        """Another penalty for the same data; the Hessians of the last points stay."""
        n = penalty.n_receivers
        self.penalty = penalty
        self.plain = (penalty.unpenalised(self.products.shape[1]) & self.free).any(axis=0)
        self.factor, self.mean, self.total = [None] * n, [None] * n, np.zeros(n)
        self.basis = [None] * n
        self.ranked = np.zeros(n, bool)
        self.last = np.full(n, np.inf)
        self.due = np.ones(n, bool)

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
        self.active = active
        objective, grad_intercept = np.zeros(active.size), np.zeros(active.size)
        grad = np.zeros_like(coef)
        self.hess = [None] * self.plain.size
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
            grad[free, k] += Z.T @ residual
            grad_intercept[k] += residual.sum()
            if self.due[j]:
                if self.hess[j] is None:
                    self.hess[j] = np.zeros((free.size + 1,) * 2)
                gram.add(curvature, np.append(free, rows.shape[1]), self.hess[j])

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
        return objective, grad, grad_intercept / self.n_bins

    def step(self, moved, grad, grad_intercept, tol, polishing):
        """Newton steps at the accepted points, their decrements, and passes spent (none)."""
        step, step_intercept = np.zeros_like(grad), np.zeros(moved.size)
        decrement = np.zeros(moved.size)
        for k, j in enumerate(self.active[moved]):
            if self.hess[j] is not None:
                if not np.isfinite(self.hess[j]).all():
                    decrement[k] = np.nan  # features whose squares overflow
                    continue
                self._factorise(j, self.hess[j])
            free, mean = self.features[j], self.mean[j]
            g = grad[free, k] - mean * grad_intercept[k]
            if self.basis[j] is not None:
                g = self.basis[j].T @ g
            d = -cho_solve(self.factor[j], g)
            decrement[k] = -0.5 * (g @ d) + 0.5 * grad_intercept[k] ** 2 / self.total[j]
            if self.basis[j] is not None:
                d = self.basis[j] @ d
            step[free, k] = d
            step_intercept[k] = -grad_intercept[k] / self.total[j] - mean @ d
            # A step with the last factor (a chord step) suffices if it gains two digits.
            slow = decrement[k] > max(0.01 * self.last[j], 1e-20)
            self.due[j] = decrement[k] > self._REFRESH or slow
            self.last[j] = decrement[k]
        return step, step_intercept, decrement, 0

    def harmless(self, active, grad, grad_intercept):
        """None: every step must lower the objective."""
        return np.zeros(active.size, bool)

    # --- for proximal steps ---

    def forget(self, receivers=slice(None)):
        """Begin a new fit of some receivers: the first pass makes Hessians."""
        self.due[receivers] = True

    def curvature(self, j, coef, intercept, features):
        """Hessian of the mean loss of receiver j, and the places of some features in it.

        It is the Hessian of the last pass that made one, in float32, with the intercept last.
        """
        if self.hess[j] is not None:
            self.last_hess[j] = (self.hess[j] / self.n_bins).astype(np.float32)
            self.hess[j] = None
        place = np.searchsorted(self.features[j], features)
        return self.last_hess[j], np.append(place, self.features[j].size)

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

    def _factorise(self, j, bordered):
        """Factorise the Schur complement; without ridge, on the row space of X."""
        hess, moment, total = bordered[:-1, :-1], bordered[-1, :-1], bordered[-1, -1]
        mean = moment / total
        schur = hess - np.outer(moment, mean)
        schur = (schur + schur.T) / (2 * self.n_bins) + self.penalty.hessian(j, self.features[j])
        self.mean[j], self.total[j] = mean, total / self.n_bins
        if not self.ranked[j] and self.plain[j]:
            # All curvatures are positive at the first point, so its Hessian has the rank of X. A
            # feature may be constant where the others do not rule the events out.
            constant = np.diag(schur) <= _ROUNDING * np.diag(hess) / self.n_bins
            schur[constant], schur[:, constant] = 0, 0
            null, rows = split_space(schur)
            self.basis[j] = rows if null.size else None
            self.ranked[j] = True
        if self.basis[j] is not None:
            schur = self.basis[j].T @ schur @ self.basis[j]
        self.factor[j] = cholesky(schur)

    def largest_change(self, receivers, step, coef, intercept):
        """Largest change of eta in any bin by steps to some points, times `Loss.pace` there."""
        largest = np.zeros(receivers.size)
        for block, index in enumerate(self.blocks):
            rows = self._block(block)[0].rows[:, :-1]
            shift = self.observed.shift(index, False, receivers)
            for k, j in enumerate(receivers):
                free = self.features[j]
                d = step[free, k]
                change = np.abs(rows[:, free] @ d - self.mean[j] @ d)
                if self.loss.pace is not None:
                    eta = rows @ coef[:, k] + intercept[k]
                    if shift is not None:
                        eta += shift[:, k if shift.shape[1] > 1 else 0]
                    change *= self.loss.pace(eta)
                largest[k] = max(largest[k], change.max(initial=0))
        return largest
