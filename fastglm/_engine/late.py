"""Late receivers: each gets its own sample of bins, and a factor of its Hessian on them.

A receiver is *late* if it needs many more steps (see `_LATE`). Its rates are then close to zero in
most bins, because it has few events for its features, or because the events come in bursts. The
shared sample holds almost none of its curvature. Its own bins are drawn in proportion to its
curvatures and to the activity of the senders before each bin.
"""

import itertools

import numpy as np

from fastglm import _kernels as kernels
from fastglm._algebra.sampling import BLEND, EVEN, own_size
from fastglm._engine.shared import BLOCK_BYTES
from fastglm._kernels.dots import column_dot
from fastglm._kernels.threads import map_ahead, run_threads

# If a receiver needs more than `_LATE` further steps after `_FIRST` steps, it gets its own bins;
# they are drawn again every `_RENEW` steps. A step that gains less than a factor of `_LEAST_GAIN`
# counts as a gain of `_LEAST_GAIN`. Where a receiver has many features for its events, a factor
# costs as much as 10 or 20 steps; it is made only if it can save as many.
_LATE, _FIRST, _RENEW, _LEAST_GAIN = 6, 5, 5, 1.2
# Costs in float32 multiply-adds of BLAS: of an addition of an event, of a multiply-add in a float64
# Cholesky factor, and of the rate of a bin. They follow `TYPICAL` of `fastglm._batches.cost`, not
# the machine at hand, so that no result depends on the machine.
_ADDITION, _DOUBLE, _RATE = 2, 2.4, 120
_STRIPE = 128  # columns of a Hessian that one thread makes
_BESIDE = 1024  # most features of a Hessian that a thread makes alone: 8 MB


class LateReceivers:
    """The late receivers of a batch, and their factors.

    Parameters
    ----------
    objective : Objective
    sample : SampleProblem
        On the shared sample.
    n_most : int
        Most receivers that may have a factor at a time.
    """

    def __init__(self, objective, sample, n_most):
        self.objective, self.sample, self.n_most = objective, sample, n_most
        n = objective.free.shape[1]
        self.factors = {}  # (free features, factor) of a receiver, None where it has none
        self.n_steps, self.n_left = np.zeros(n, np.int64), np.zeros(n)
        self.next, self.last = np.zeros(n, np.int64), np.zeros(n)
        self.late = np.maximum(_LATE, np.broadcast_to(self._steps_a_factor(), n))
        self.forget()

    def forget(self, receivers=slice(None)):
        """Begin a new fit of some receivers."""
        for j in np.arange(self.n_left.size)[receivers]:
            self.factors.pop(j, None)
        self.n_steps[receivers], self.n_left[receivers] = 0, 0
        self.next[receivers], self.last[receivers] = _FIRST, np.inf

    def _steps_a_factor(self):
        """Number of steps that cost as much as a receiver's own factor, for each receiver."""
        products, free = self.objective.products, self.objective.free
        n_free, n_features, n_bins = free.sum(axis=0), free.shape[0], products.n_bins
        factor = own_size(n_features, n_bins) * n_free**2 / 2 + _DOUBLE * n_free**3 / 6
        work = products.work()
        one_way = _ADDITION * work.additions + work.products
        # On the sample: curvatures, their moments, and three products of conjugate gradients.
        step = 2 * one_way + _RATE * n_bins
        return factor / (step + 8 * self.sample.shared.index.size * n_features)

    def judge(self, receivers, decrement, tol):
        """Estimate how many steps receivers still need, if every step gains as the last one."""
        with np.errstate(divide="ignore", invalid="ignore"):
            gain = np.log(np.maximum(self.last[receivers] / decrement, _LEAST_GAIN))
            self.n_left[receivers] = np.log(decrement / np.broadcast_to(tol, gain.size)) / gain
        self.last[receivers] = decrement

    def assist(self, active, places, certain, point, total):
        """Give a factor to the late ones of the receivers ``active[places]``.

        ``certain`` and ``total`` belong to the active receivers; ``point`` holds their coefficients
        and intercepts. Returns whether each receiver has a new factor. A factor costs half a pass.
        """
        receivers = active[places]
        self.factors = {j: self.factors[j] for j in active if j in self.factors}
        self.n_steps[receivers] += 1
        if self.sample.shared.whole or not self.objective.loss.linear_counts:
            return np.zeros(receivers.size, bool)
        late = self.n_left[receivers] > self.late[receivers]
        late &= (self.n_steps[receivers] >= self.next[receivers]) & ~certain[places]
        if not late.any():
            return late
        new = np.flatnonzero(late & ~np.isin(receivers, list(self.factors)))
        room = max(self.n_most - len(self.factors), 0)
        late[new[np.argsort(-self.n_left[receivers[new]], kind="stable")[room:]]] = False
        if late.any():
            some = places[late]
            self.next[active[some]] = self.n_steps[active[some]] + _RENEW
            for j in active[some]:
                self.factors[j] = None
            drawn = list(self._draw(active[some], point[:, some], total[some]))
            factors = self._factorise_all(drawn)
            self.factors |= {j: factor for (j, _, _), factor in zip(drawn, factors, strict=True)}
        return late

    def has(self, receivers):
        """Whether each of some receivers has a factor."""
        return np.array([self.factors.get(j) is not None for j in receivers], bool)

    def solve(self, j, residual):
        """The inverse of receiver j's Schur complement times a vector."""
        free, factor = self.factors[j]
        z, right = np.zeros_like(residual), residual[free].astype(np.float32)
        kernels.solve_triangles(factor, right)
        z[free] = right
        return z

    def _draw(self, receivers, point, total):
        """Bins and weights of some receivers, drawn by their curvatures at this point."""
        objective, sample = self.objective, self.sample
        n, n_bins, shared = receivers.size, objective.n_bins, sample.shared
        n_draw = own_size(objective.free.shape[0], n_bins)
        # Rates and activity are correlated: their product on the shared bins scales the draw.
        sample.weigh(receivers, point[:-1], point[-1])
        weights = sample.weights[:, :n]
        seen = np.broadcast_to(objective.products.seen(shared.index)[:, None], weights.shape)
        together = column_dot(seen, weights) / (sample.total[:n] * shared.index.size)
        total = total * n_bins * (1 + together)

        def draw(chunk):
            curvature = self._curvature(chunk, receivers, point[-1])
            start = chunk.index.start
            # The random numbers are the same for every receiver, whoever else is fitted.
            uniform = np.random.default_rng(start).random(len(curvature))
            uniform[~chunk.valid] = np.inf
            likely = curvature * (1 + chunk.seen[:, None]) / total
            chance = n_draw * ((1 - EVEN) * likely + EVEN / n_bins)
            k, hit = np.nonzero((uniform[:, None] < chance).T)  # receiver by receiver
            weights = curvature[hit, k] / np.minimum(chance[hit, k], 1)
            first = np.searchsorted(k, np.arange(n + 1))
            return [(start + hit[i:j], weights[i:j]) for i, j in itertools.pairwise(first)]

        chunks = objective.passes.forward(point[:-1], precise=False, seen=True)
        kept = zip(*map_ahead(draw, chunks), strict=True)
        for j, parts in zip(receivers, kept, strict=True):
            index, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
            every = max(1, round(index.size / n_draw))  # the shared bins gave too small a total
            yield j, index[::every], weights[::every] * every

    def _curvature(self, chunk, receivers, intercept):
        """Weighted curvatures of the bins of a chunk, float64."""
        observed, loss = self.objective.observed, self.objective.loss
        eta = chunk.eta
        shift = observed.shift(chunk.index, loss.exponential, receivers)
        if shift is not None:
            eta = eta + shift.astype(eta.dtype)
        curvature = loss.expected_curvature(np.minimum(eta + intercept, 80.0))
        factor = observed.factor(chunk.index, loss.exponential)
        return curvature if factor is None else factor * curvature

    def _factorise_all(self, drawn):
        """Factors of receivers, from what was drawn: small ones side by side.

        Of a large one all threads make stripes.
        """
        receivers = [j for j, _, _ in drawn]
        n_free = self.objective.free[:, receivers].sum(axis=0).max()
        if n_free <= _BESIDE:
            return run_threads(lambda item: self._factorise(*item), drawn)
        return [self._factorise(*item) for item in drawn]

    def _factorise(self, j, index, weights):
        """Cholesky factor of the Schur complement on a receiver's own bins, None if it fails."""
        objective, sample = self.objective, self.sample
        free = np.flatnonzero(objective.free[:, j])
        hess, moment = np.zeros((free.size, free.size)), np.zeros(free.size)
        n_rows = max(256, BLOCK_BYTES // (8 * max(free.size, 1)))
        for first in range(0, index.size, n_rows):
            part = slice(first, first + n_rows)
            root = np.sqrt(weights[part]).astype(np.float32)
            rows = objective.products.rows(index[part], np.float32)[:, free] * root[:, None]

            def stripe(start, rows=rows):  # of the lower triangle: the bits depend on no thread
                columns = rows[:, start : start + _STRIPE]
                hess[start:, start : start + _STRIPE] += rows[:, start:].T @ columns

            run_threads(stripe, range(0, free.size, _STRIPE), rows.size * _STRIPE)
            moment += rows.T @ root
        mean = moment / max(float(weights.sum()), 1e-300)
        for row, value in zip(hess, moment, strict=True):
            row -= value * mean
        hess /= objective.n_bins
        sample.shared.add_covariance(hess, BLEND * sample.level[j], free)
        hess += objective.penalty.hessian(j, free)
        hess[np.diag_indices_from(hess)] *= 1 + 1e-7
        try:
            # NumPy's releases the interpreter's lock throughout, SciPy's does not.
            return free, np.linalg.cholesky(hess).astype(np.float32)
        except np.linalg.LinAlgError:
            return None
