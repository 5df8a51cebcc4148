"""Quasi-Newton steps for many features: gradients from all events, curvature from a few bins.

There are three layers, and each is the preconditioner of the one above it:

1. All events (`EventProblem`): a pass gives objective and gradient.
2. A sample of bins (`SampleProblem`): the Hessian on some twenty bins a feature. Their rows are
   kept in memory, and the Hessian is inverted by conjugate gradients.
3. The covariance of the features (`Spectrum`): the shape of every Hessian where rates vary little.
   It is diagonalised once for all receivers and ridge values, and scaled to each diagonal.

`Steps` joins them by limited-memory BFGS (Nocedal, 1980) whose initial matrix is the layer below.
On a quadratic objective this is the preconditioned method of conjugate gradients. Every pass gives
a true gradient at a new point; no pass is spent on a more exact solution for one step.

The sample also gives the starting point. Of the objective ``mean(exp(eta)) - mean(y * eta)`` only
the first term needs bins, because ``X'Y`` gives the second exactly. The optimum on a sample is
therefore off by the noise of the sampled rates alone. The variance of the rates is smaller than the
variance of the counts by the mean count per bin, which is 0.01 at 1 ms and 10 Hz.
"""

import weakref

import numpy as np

from fastglm._kernels.dots import column_dot
from fastglm._kernels.threads import cut, run_threads

# Mean square changes of eta over a step. Below `_SMALL` the Hessian is nearly constant; below
# `_TINY` the change of a float32 gradient is mostly rounding.
_SMALL, _TINY = 0.05, 1e-10
# Two steps agree if ``y1's2`` and ``y2's1`` differ by less, relative to the steps' own curvatures.
_ASYMMETRY = 0.1


class Steps:
    """Limited-memory BFGS steps, whose initial matrix is the inverse of a preconditioner.

    The intercept is eliminated from the preconditioner M with the means ``m = X'w / sum(w)`` of the
    problem. ``problem.precondition(residual, columns)`` inverts the Schur complement alone, for
    lanes padded to whole tiles.

    The decrement is ``g' H g / (2 * theta)`` with the quasi-Newton matrix H. Theta is the smallest
    Ritz value of ``M^-1 S`` on the span of the small steps so far, and at most `THETA`. On a small
    step s the change y of the gradient is ``S s``. H is exact on that span, and as good as M beside
    it.
    """

    _PAIRS = 10
    bytes_per_feature = 12 * _PAIRS + 250  # pairs in float32, and arrays that a step needs
    THETA = 0.5

    def __init__(self, problem, n_receivers, lanes, scaled=False):
        # The problem owns its steps. A strong reference back would be a cycle, which keeps a batch
        # (0.8 GB at 831 cells) until the garbage collector runs.
        self.problem, self.lanes, self.scaled = weakref.proxy(problem), lanes, scaled
        shape = (n_receivers, problem.free.shape[0] + 1)
        # Every pair has the step s, the change y of the gradient, M s, and the weight 1 / (s . y).
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
        # Two loops over the pairs of each receiver: newest first, then oldest first.
        n_recent = min(int(self.n_pairs[receivers].max()), self._PAIRS)
        recent = (self.n_pairs[receivers] - 1 - np.arange(n_recent)[:, None]) % self._PAIRS
        q, first = g.copy(), []
        for slot in recent:
            s, y = self.pairs[:2, slot, receivers]
            first.append(self.weights[slot, receivers] * _row_dot(s, q))
            q -= first[-1][:, None] * y
        d, image = self._solve(moved, q.T).T, q
        if self.scaled:
            d /= self._curvature_of_last(moved, receivers)[:, None]
        for slot, weight in zip(recent[::-1], reversed(first), strict=True):
            s, y, ms = self.pairs[:, slot, receivers]
            weight = (weight - self.weights[slot, receivers] * _row_dot(y, d))[:, None]
            d += weight * s
            image += weight * ms
        decrement = 0.5 * _row_dot(g, d) / self.theta[receivers]
        self.direction[receivers], self.image[receivers] = d, image
        # A step usually lowers the decrement by a factor of ten. A receiver that float32 sums call
        # converged takes its step all the same, and float64 sums judge the next point.
        self.expected[receivers] = 0.15 * decrement
        decrement = problem.claim(moved, g, decrement)
        ended = problem.certain[receivers] & (decrement <= tol) & (not problem.rough)
        ended &= polishing | (problem.polish == 0)
        d = np.where(ended, 0.0, -d.T)
        return d[:-1], d[-1], decrement, 0

    def _curvature_of_last(self, moved, receivers):
        """Curvature along the last change of the gradient, in units of the preconditioner's.

        It divides the initial matrix (Nocedal, 1980; Liu & Nocedal, 1989): 1 without a pair.
        """
        last, has = (self.n_pairs[receivers] - 1) % self._PAIRS, self.n_pairs[receivers] > 0
        y = self.pairs[1, last, receivers].astype(np.float64)
        ratio = _row_dot(y, self._solve(moved, y.T).T) * self.weights[last, receivers]
        return np.where(has & np.isfinite(ratio) & (ratio > 0), ratio, 1.0)

    def harmless(self, point, grad, grad_intercept):
        """Whether the step to each trial point is so small that the gradient is linear along it.

        Such a step may be too long along its direction. The next step knows the pair of this one,
        and gains as much as after a search for the best length.
        """
        receivers = self.problem.active
        g = np.vstack([np.where(self.problem.free[:, receivers], grad, 0.0), grad_intercept]).T
        with np.errstate(invalid="ignore", over="ignore"):
            moved = _row_dot(point.T - self.point[receivers], g - self.grad[receivers])
        return self.known[receivers] & (moved < _SMALL * self.total[receivers])

    def _remember(self, moved, receivers, point, g):
        """Store the pairs of the last steps whose curvature is positive."""
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
        tiles = np.flatnonzero(np.bincount(moved // self.lanes))
        columns = (tiles[:, None] * self.lanes + np.arange(self.lanes)).ravel()
        z = np.zeros_like(residual)
        z[:, columns] = problem.precondition(residual[:, columns], columns)
        z = z[:, moved]
        with np.errstate(divide="ignore", invalid="ignore"):  # rates that underflow
            return np.vstack([z, q[-1] / total - column_dot(mean, z)])

    def _smallest_ritz_value(self, receivers):
        """Smallest eigenvalue of ``M^-1 S`` on the span of each receiver's steps."""
        parts = [receivers[slice(*ends)] for ends in cut(receivers.size)]
        work = self._PAIRS * receivers.size * self.point.shape[1]
        return np.concatenate(run_threads(self._ritz_values, parts, work))

    def _ritz_values(self, receivers):
        """The same for some receivers."""
        s, y, ms = self.pairs[:, :, receivers].transpose(0, 2, 1, 3)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            a, b = (m.astype(np.float64) for m in (y @ s.swapaxes(1, 2), ms @ s.swapaxes(1, 2)))
            known = np.isfinite(a).all(axis=(1, 2)) & np.isfinite(b).all(axis=(1, 2))
            a[~known] = b[~known] = 0.0
            # Mean square change of eta over each step, times the curvature.
            moved, size = (np.diagonal(m, axis1=1, axis2=2) for m in (a, b))
            total = self.total[receivers, None]
            use = (size > 0) & (moved > _TINY * total) & (moved < _SMALL * total)
            use = self._consistent(a, use, receivers)
            scale = np.where(use, 1 / np.sqrt(size), 0.0)
        scale = scale[:, :, None] * scale[:, None, :]
        values, vectors = np.linalg.eigh(scale * (b + b.swapaxes(1, 2)))
        # Nearly dependent steps give rounding only: their directions are left out, and take an
        # eigenvalue above all others.
        keep = (values > 1e-3 * values[:, -1:]) & (values > 0)
        vectors = vectors * (keep / np.sqrt(np.where(keep, values, 1.0)))[:, None, :]
        image = vectors.swapaxes(1, 2) @ (scale * (a + a.swapaxes(1, 2))) @ vectors
        above = 1 + np.abs(image).sum(axis=2).max(axis=1, initial=0)
        image += np.where(keep, 0.0, above[:, None])[:, :, None] * np.eye(keep.shape[1])
        smallest = np.linalg.eigvalsh(image)[:, 0]
        return np.where(keep.any(axis=1), np.maximum(smallest, 1e-6), np.inf)

    def _consistent(self, products, use, receivers):
        """The newest steps that agree on the curvature: for each two of them ``y1's2 = y2's1``.

        Steps from before the rates changed do not agree. Their Ritz values may be negative, and the
        decrement would then be far too large.
        """
        scale = np.sqrt(np.diagonal(products, axis1=1, axis2=2))
        odd = np.abs(products - products.swapaxes(1, 2)) / (scale[:, :, None] * scale[:, None, :])
        agree = odd <= _ASYMMETRY
        kept, everyone = np.zeros_like(use), np.arange(receivers.size)
        for age in range(self._PAIRS):
            slot = (self.n_pairs[receivers] - 1 - age) % self._PAIRS
            fine = use[everyone, slot] & (agree[everyone, slot] | ~kept).all(axis=1)
            kept[everyone, slot] = fine & (age < self.n_pairs[receivers])
        return kept


def _row_dot(a, b):
    """``(a * b).sum(axis=1)`` of contiguous copies: NumPy's order of sums depends on strides."""
    return np.einsum("ij,ij->i", np.ascontiguousarray(a), np.ascontiguousarray(b))
