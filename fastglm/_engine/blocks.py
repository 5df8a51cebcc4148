"""The curvature of many features as blocks: what a fit uses where memory does not hold ``X'X``.

The covariance of the features is approximated by its blocks along the diagonal, one for each group
of neighbouring senders, and by a few directions that many blocks share:

    C  ~  B + U diag(e) U',      B = blockdiag(B_1, B_2, ...)

The blocks are exact and each is diagonalised. The shared directions are the leading ones of the
whitened rest ``B^-1/2 (C - B) B^-1/2``. Subspace iteration finds them by products of X alone
(Halko, Martinsson & Tropp, 2011). For independent senders the rest is noise, and the blocks are all
there is. Rates that rise and fall together are a few directions.

The Hessian of a receiver is modelled as ``level * C + ridge``, with its mean curvature ``level``.
Limited-memory BFGS corrects it from one gradient to the next. Memory is ``4 * n_features`` bytes
times the size of a block and a few directions. There is no sample of bins.
"""

import numpy as np
import scipy.linalg
from scipy.special import xlog1py

from fastglm._algebra.linear import centre
from fastglm._engine.events import PRECISE, EventProblem
from fastglm._engine.lbfgs import Steps
from fastglm._engine.observed import Observed
from fastglm._engine.shared import Spectrum, scale_to
from fastglm._kernels.dots import column_dot, tiled_dot
from fastglm._kernels.threads import run_threads
from fastglm._kernels.tiles import LANES
from fastglm.features import Events
from fastglm.observation_models import GaussianObservations

BLOCK = 512  # features of a block: their products take less than a twentieth of a pass
N_SHARED = LANES  # shared directions: a pass has as many lanes
ROUNDS = 3  # passes that find them
_LEAST = 0.2  # of a block's variance: a weaker shared direction costs more than it saves
_FLOOR = 1e-3  # of the mean variance: directions of blocks below it are not divided by less


class BlockSpectrum:
    """The covariance of the features as blocks and shared directions; see the module.

    Parameters
    ----------
    blocks : list of tuple (features, Spectrum)
    lanes : int

    Attributes
    ----------
    unit : ndarray of shape (n_features,)
        The scale of each feature, as in `Spectrum`.
    values : ndarray of shape (n_features, 1), float32
        Eigenvalues of the blocks.
    """

    def __init__(self, blocks, lanes):
        self._blocks, self.lanes = blocks, lanes
        n_features = sum(features.size for features, _ in blocks)
        self.unit, self.values = np.ones(n_features), np.zeros((n_features, 1), np.float32)
        for features, spectrum in blocks:
            self.unit[features] = spectrum.unit
            self.values[features] = spectrum.values
        self._along = np.zeros((n_features, 0), np.float32)  # U in the eigenvectors of the blocks
        self._strength = np.zeros(0)  # e

    def find_shared(self, times):
        """Find the shared directions; ``times(v)`` is the covariance times the columns of v."""
        unit, values = self.unit[:, None], self.values.astype(np.float64)
        root = np.sqrt(values + _FLOOR * values.mean() + 1e-300)
        own = values / root**2

        def rest(q):
            image = times(self._from_eigenvectors(q / root) / unit)
            return self._to_eigenvectors(image / unit) / root - own * q

        basis = np.random.default_rng(0).standard_normal((self.unit.size, N_SHARED))
        basis = scipy.linalg.qr(basis, mode="economic", check_finite=False)[0]
        for _ in range(ROUNDS - 1):
            basis = scipy.linalg.qr(rest(basis), mode="economic", check_finite=False)[0]
        inner = basis.T @ rest(basis)
        strength, turn = np.linalg.eigh(0.5 * (inner + inner.T))
        keep = strength > _LEAST
        self._along = (root * (basis @ turn[:, keep])).astype(np.float32)
        self._strength = strength[keep]

    def solve(self, level, ridge, v):
        """Inverse of ``level * covariance + ridge * unit**2`` times v, for each column."""
        unit = self.unit[:, None]
        floor = 1e-6 * level * max(float(self.values.max(initial=0)), 1e-30)
        weights = (1 / np.maximum(level * self.values + ridge, floor)).astype(np.float32)
        z = weights * self._to_eigenvectors(v / unit)
        if self._strength.size:
            for k in range(v.shape[1]):  # a column at a time: its bits depend on no other
                weighted = weights[:, k, None] * self._along
                inner = self._along.T @ weighted + np.diag(1 / (level[k] * self._strength))
                z[:, k] -= weighted @ np.linalg.solve(inner, self._along.T @ z[:, k])
        return self._from_eigenvectors(z) / unit

    def _to_eigenvectors(self, v):
        return self._multiply(v, lambda vectors: vectors)

    def _from_eigenvectors(self, v):
        return self._multiply(v, lambda vectors: vectors.T)

    def _multiply(self, v, orient):
        """The vectors of every block times its rows of v, in float32."""
        v, out = v.astype(np.float32), np.empty(v.shape, np.float32)

        def one(block):
            features, spectrum = block
            out[features] = tiled_dot(orient(spectrum.vectors.values), v[features], self.lanes)

        run_threads(one, self._blocks, out.size)
        return out


class SharedBlocks:
    """What receivers share where ``X'X`` is not formed; it stands for `shared.Shared`.

    Parameters
    ----------
    products : Products
    lanes : int
    multiply : "events" or "rows"
    """

    gram, covariance = False, None  # of all features
    direct = whole = False
    index = np.zeros(0, int)  # there is no sample

    def __init__(self, products, lanes, multiply):
        self.n_bins, self.lanes, self.sums = products.n_bins, lanes, products.column_sums()
        mean, self.diagonal = self.sums / self.n_bins, np.zeros(products.shape[1])
        blocks = []
        for features, gram in _grams(products):
            gram /= self.n_bins
            centre(gram, mean[features])
            if not np.isfinite(gram).all():  # features whose squares overflow
                gram = np.eye(features.size)
            self.diagonal[features] = np.diag(gram)
            blocks.append((features, Spectrum(gram, lanes)))
        self.spectrum = BlockSpectrum(blocks, lanes)
        if lanes > 1 and len(blocks) > 1:  # a single receiver does not pay for the passes
            self.spectrum.find_shared(_covariance(products, mean, multiply))

    def prepare(self):
        """Nothing: all is made at once."""

    @property
    def unit(self):
        """The scale of each feature in the spectrum."""
        return self.spectrum.unit

    def restrict(self, valid):
        """The same for a fit to a part of the bins."""
        part = object.__new__(SharedBlocks)
        part.__dict__.update(self.__dict__)
        part.n_bins, part.sums = int(valid.sum()), None
        return part


def _grams(products):
    """Yield the features of each block, senders whole, and their ``X'X``."""
    n_features = products.shape[1]
    known = np.zeros(n_features, bool)
    while not known.all():
        wanted = np.zeros(n_features, bool)
        wanted[np.flatnonzero(~known)[:BLOCK]] = True
        part, index = products.select(wanted)
        new = np.flatnonzero(~known[index])
        known[index] = True
        gram = part.gram()
        yield index[new], gram if new.size == index.size else gram[np.ix_(new, new)]


def _covariance(products, mean, multiply):
    """A function that multiplies the covariance of the features with columns, by a pass each.

    The residual of a Gaussian loss without counts is twice eta.
    """
    none, shape = np.zeros(0, np.int32), (products.shape[0], N_SHARED)
    loss, nothing = GaussianObservations().loss(), Observed(Events(none, none, np.zeros(0), shape))
    passes, everyone = products.passes(N_SHARED, LANES, multiply), np.arange(N_SHARED)

    def times(v):
        found = passes.evaluate(nothing, loss, everyone, v, -(mean @ v), False)
        return (found.grad - np.outer(mean, found.residual)) / (loss.count_factor * products.n_bins)

    return times


class BlockModel:
    """A model of every receiver's Hessian from blocks; it stands for `SampleProblem`.

    It is ``level * C + penalty'``, where ``level`` is the mean curvature at a receiver's point.
    """

    def __init__(self, shared, level):
        self.shared, self.level = shared, level

    def set_penalty(self, penalty):
        """Another penalty for the same data."""
        self.penalty = penalty

    def is_floored(self):
        """Receivers whose ridge is too small for float32: none is known without ``X'X``."""
        return np.zeros(self.level.size, bool)

    def solve(self, residual, level, receivers):
        """The inverse of the model of some receivers times a residual of each."""
        level = np.maximum(level, 1e-30)
        ridge, pull = self.penalty.level[receivers], self.penalty.diagonal(receivers)
        diagonal = level * self.shared.diagonal[:, None] + pull
        scale = scale_to(self.shared, level, ridge, diagonal)
        return self.shared.spectrum.solve(level, ridge, residual / scale) / scale


class BlockProblem(EventProblem):
    """`EventProblem` whose steps are preconditioned with blocks of ``X'X``.

    A pass of a loss that is neither exponential nor quadratic is followed by another, which sums
    the moments of its curvatures.

    The certificate needs no model of the Hessian, if every free coefficient has a ridge ``r_f``.
    The mean loss is convex, so the objective without ``r_f c_f^2 / 2`` is convex as well, and so is
    its minimum over the intercept. With the gradient ``g`` of that minimum,

        f(b, c) - min f  <=  (f(b, c) - min_b f(b, c)) + sum_f g_f^2 / (2 r_f)

    The means ``m = X'w / sum(w)`` of the curvatures and the slope ``g_b`` of the intercept give
    ``g = g_c - m g_b``. For an exponential loss that is exact: the best intercept multiplies all
    rates by ``1 - u`` with ``u = g_b / s`` and the mean rate s, and the first term is
    ``s (u + (1 - u) log(1 - u))``. For other losses both terms hold to first order in ``g_b`` and
    are claimed twice. Without a ridge, or where the loss is not convex, the claim is that of
    `lbfgs.Steps`.
    """

    def __init__(self, objective, shared, level, lanes, tol, rough):
        super().__init__(objective, BlockModel(shared, level), lanes, tol, rough, n_own=0)
        self.steps = Steps(self, self.plain.size, lanes, scaled=True)
        loss = objective.loss
        self.n_passes = 1 if loss.exponential or loss.constant_curvature else 2

    def set_penalty(self, penalty):
        """Another penalty for the same data."""
        super().set_penalty(penalty)
        ridge = np.where(self.free, penalty.ridge, np.inf)
        self._strong = self.loss.convex & (ridge > 0).all(axis=0)

    def precondition(self, residual, columns):
        """The inverse of the model, for free features."""
        z, place = np.zeros_like(residual), np.flatnonzero(columns < self.active.size)
        active = columns[place]
        receivers = self.active[active]
        inverse = self.sample.solve(residual[:, place], self.total[active], receivers)
        z[:, place] = np.where(self.free[:, receivers], inverse, 0.0)
        return z

    def claim(self, moved, grad, decrement):
        """Bounds of the gaps at the accepted points; see the class."""
        receivers, total = self.active[moved], self.total[moved]
        slope = grad[:, :-1].T - self.mean[:, moved] * grad[:, -1]
        slope = np.where(self.free[:, receivers], slope, 0.0)
        root = np.sqrt(self.penalty.ridge[:, receivers])
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            part = np.divide(slope, root, out=np.zeros_like(slope), where=slope != 0)
            bound = 0.5 * column_dot(part, part)
            u = grad[:, -1] / total
            if self.loss.exponential:
                u = np.minimum(u, 1.0)  # but for rounding it is below
                bound += total * (u + xlog1py(1 - u, -u))
            else:
                bound = (1 if self.loss.constant_curvature else 2) * (bound + 0.5 * total * u**2)
        bound = np.where(self._strong[receivers], bound, decrement)
        # Sums in float32 serve until the bound is near the tolerance, or they hold no decrement.
        near = 0.15 * decrement <= PRECISE
        self.expect(receivers, 0.15 * np.where(near, decrement, bound))
        return bound

    def _set_point(self, n, known=False):
        if not known:
            self.mean, self.total = self.objective.curvatures(
                self.active, self.point[:-1], self.point[-1]
            )
