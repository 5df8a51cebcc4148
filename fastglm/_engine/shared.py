"""Parts that all receivers of a feature matrix share: covariance, spectrum, sampled rows."""

from functools import cached_property, partial

import numpy as np
import scipy.linalg

from fastglm._algebra.linear import centre
from fastglm._algebra.sampling import Sample, draw, gather, sample_size
from fastglm._kernels.dots import tiled_dot
from fastglm._kernels.threads import ahead, run_threads
from fastglm._kernels.tiles import LANES

BLOCK_BYTES = 1 << 22  # rows that one thread works on at a time
_DOUBLE_SPECTRUM = 1500  # most features at which X'X is diagonalised in float64
_APART = 1e3  # ratio of standard deviations beyond which features are scaled for a spectrum
_FAR = 1e12  # a standard deviation whose products with others float32 may not hold
SKETCH = 64  # random directions from which leverage is estimated


class RowBlocks:
    """A matrix cut into blocks of rows; a thread works on one block at a time.

    Sums over blocks run in a fixed order, and columns are multiplied in whole tiles of ``lanes``.
    The bits depend neither on the number of threads nor on the other receivers.
    """

    def __init__(self, values, lanes):
        self.values, self.lanes = values, lanes
        size = max(64, BLOCK_BYTES // (4 * max(values.shape[1], 1)))
        self.starts = range(0, values.shape[0], size)
        self.size = size

    def map(self, function):
        """Sum over the blocks of ``function(rows, slice)``, a tuple of arrays."""

        def block(start):
            part = slice(start, start + self.size)
            return function(self.values[part], part)

        total = None
        # Eight blocks at a time: every block at work holds a partial sum.
        for first in range(0, len(self.starts), 8):
            for parts in run_threads(block, self.starts[first : first + 8]):
                if total is None:
                    total = [part.astype(np.float64) for part in parts]
                else:
                    for sum_, part in zip(total, parts, strict=True):
                        sum_ += part
        return total

    def dot(self, rows, v):
        """``rows @ v``; the bits of a column do not depend on the other columns."""
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


class Spectrum:
    """Eigenvalues and eigenvectors of the covariance of the features, ``X'X / n - x x'``.

    Features whose standard deviation is far from that of the others are scaled to it first: float32
    holds no eigenvalues that lie further apart. ``unit`` is the scale of each feature, mostly 1.

    Memory: ``4 * n_features**2`` bytes, three times that while it is made.
    """

    def __init__(self, covariance, lanes):
        self.unit = units(np.diag(covariance))
        if (self.unit != 1).any():
            covariance = covariance / self.unit / self.unit[:, None]
        values, vectors = np.linalg.eigh(covariance)  # SciPy's holds the interpreter's lock
        self.values = np.maximum(values, 0).astype(np.float32)[:, None]
        self.vectors = RowBlocks(np.ascontiguousarray(vectors.T, np.float32), lanes)

    def leverage(self, products, index, mean):
        """``(x - mean)' covariance^-1 (x - mean)`` of the rows at some bins.

        With more than `SKETCH` features it is an estimate with an error of 18 %: the square of the
        whitened row on `SKETCH` random directions (Drineas, Magdon-Ismail, Mahoney & Woodruff,
        2012).
        """
        floor = 1e-6 * float(self.values.max(initial=0))
        root = np.where(self.values > floor, 1 / np.sqrt(np.maximum(self.values, 1e-30)), 0)
        whiten = (root * self.vectors.values).T
        if whiten.shape[1] > SKETCH:
            directions = np.random.default_rng(0).standard_normal((whiten.shape[1], SKETCH))
            whiten = whiten @ (directions / np.sqrt(SKETCH)).astype(np.float32)
        whiten = np.ascontiguousarray(whiten / self.unit[:, None].astype(np.float32))
        mean, size = mean.astype(np.float32), self.vectors.size
        leverage = []
        for first in range(0, index.size, 8 * size):
            rows = products.rows(index[first : first + 8 * size], np.float32)

            def block(start, rows=rows):
                centred = rows[start : start + size] - mean
                return np.sum((centred @ whiten) ** 2, axis=1)

            leverage += run_threads(block, range(0, rows.shape[0], size))
        return np.concatenate(leverage).astype(np.float64)

    def covariance(self, v):
        """The covariance times the columns of v."""
        unit = self.unit[:, None]
        return unit * self.vectors.weighted(self.values, unit * v)[0]

    def solve(self, level, ridge, v):
        """Inverse of ``level * covariance + ridge * unit**2`` times v, for each column."""
        # Rounding leaves small numbers in the place of zero eigenvalues: they are not divided by.
        floor = 1e-6 * level * max(float(self.values.max(initial=0)), 1e-30)
        weights = 1 / np.maximum(level * self.values + ridge, floor)
        unit = self.unit[:, None]
        return self.vectors.weighted(weights.astype(np.float32), v / unit)[0] / unit


def scale_to(shared, level, ridge, diagonal):
    """A scale for each feature and receiver that gives the shared model a diagonal.

    The model is ``level * covariance + ridge * unit**2``, and d times it times d with the scale d.
    Where the model has no diagonal, d is 1.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        model = level * shared.diagonal[:, None] + ridge * shared.spectrum.unit[:, None] ** 2
        scale = np.sqrt(diagonal / model)
    return np.where(np.isfinite(scale) & (scale > 0), scale, 1.0)


def units(variance):
    """A scale for each feature: 1 within a factor of `_APART` of the middle standard deviation.

    Where float32 may not hold squares of the middle one, that is a part of every scale.
    """
    spread = np.sqrt(variance.clip(min=0).astype(np.float64))
    varied = spread[spread > 0]
    if not varied.size:
        return np.ones(spread.size)
    middle = np.median(varied)
    ratio = np.where(spread > 0, spread / middle, 1.0)
    common = 1.0 if 1 / _FAR < middle < _FAR else middle
    return common * np.where((ratio > _APART) | (ratio < 1 / _APART), ratio, 1.0)


class Shared:
    """Parts that all receivers of a feature matrix share: covariance and sampled rows.

    ``gram`` becomes the covariance in place. ``sample`` is a `Sample`, or a number of bins, which
    are then drawn by leverage when they are first asked for. The spectrum, which leverage needs,
    and the bins among which is drawn are made on threads of their own until then: one thread takes
    for the spectrum what others take for ``X'Y``.
    """

    gram = True  # whether ``X'X`` was formed

    def __init__(self, products, gram, column_sums, sample, lanes):
        self.n_bins, self.lanes, self.sums = products.n_bins, lanes, column_sums
        mean = column_sums / self.n_bins
        covariance = gram  # in place: at 6,648 features each copy is 350 MB
        covariance /= self.n_bins
        centre(covariance, mean)
        if not np.isfinite(covariance).all():  # features whose squares overflow
            covariance = np.eye(covariance.shape[0])
            self._keeps = False
        else:
            self._keeps = covariance.shape[0] <= _DOUBLE_SPECTRUM
        if covariance.shape[0] > _DOUBLE_SPECTRUM:
            covariance = covariance.astype(np.float32)
        del gram
        self.diagonal = np.diag(covariance).astype(np.float64)
        self._covariance, self._ahead = covariance, None
        if not self.direct:
            self._ahead = ahead(partial(Spectrum, covariance, lanes))
        if isinstance(sample, Sample):
            self.sample = sample
        else:
            one_part = products.concurrent and sample < products.n_bins
            pool = ahead(partial(gather, products, sample)) if one_part else None
            self._to_draw = products, sample, mean, pool

    def __getstate__(self):
        """What is made later is made before it travels."""
        self.prepare()
        return vars(self)

    def prepare(self):
        """Make what is only made at its first use, for parts of it and for workers."""
        self.sample  # noqa: B018
        if not self.direct:
            self.spectrum  # noqa: B018

    @cached_property
    def sample(self):
        """The sampled bins and their rows."""
        products, n_sample, mean, pool = self._to_draw

        def leverage(part, index):
            return self.spectrum.leverage(part, index, mean)

        found = draw(products, n_sample, leverage, pool and pool())
        del self._to_draw
        return found

    @cached_property
    def rows(self):
        """The sampled rows, in blocks."""
        return RowBlocks(self.sample.rows, self.lanes)

    @property
    def index(self):
        """The sampled bins."""
        return self.sample.index

    @property
    def share(self):
        """Number of bins that each sampled one stands for, scaled to mean 1."""
        return self.sample.share

    @property
    def whole(self):
        """Whether the sample holds all bins."""
        return self.sample.whole

    @property
    def covariance(self):
        """Covariance in float64; None if there are many features, or if it is not finite."""
        return self._covariance if self._keeps else None

    @cached_property
    def spectrum(self):
        """The diagonalised covariance."""
        made, self._ahead = self._ahead, None
        found = Spectrum(self._covariance, self.lanes) if made is None else made()
        if not self._keeps:
            self._covariance = None
        return found

    @cached_property
    def eigenvalues(self):
        """Eigenvalues of the covariance, scaled as in `Spectrum`."""
        if not self.direct:
            return self.spectrum.values
        unit = self.unit
        return scipy.linalg.eigvalsh(self._covariance / unit / unit[:, None], check_finite=False)

    @property
    def unit(self):
        """The scale of each feature in the spectrum."""
        return units(self.diagonal)

    @property
    def direct(self):
        """Whether systems are factorised: a single receiver does not pay for a spectrum."""
        return self.lanes == 1 and self._keeps

    def times(self, v):
        """The covariance times the columns of v."""
        if self.direct:
            return tiled_dot(self._covariance, v, self.lanes)
        return self.spectrum.covariance(v)

    def restrict(self, valid):
        """The same with the valid ones of the sampled bins, for a fit to a part of the bins."""
        keep = valid[self.index]
        if keep.all() and self.n_bins == valid.sum():
            return self
        self.prepare()  # once for all parts
        part = object.__new__(Shared)
        part.__dict__.update(self.__dict__)
        part.__dict__.pop("rows", None)
        part.n_bins, part.sums = int(valid.sum()), None
        share = self.share[keep] if len(self.share) == keep.size else np.ones((keep.sum(), 1))
        share = (share * (len(share) / share.sum())).astype(np.float32)
        part.sample = Sample(self.index[keep], share, self.sample.rows[keep], self.whole)
        return part

    def add_covariance(self, matrix, level, features):
        """Add ``level * covariance`` of some features; only its diagonal if it is not kept."""
        if self.covariance is None:
            matrix[np.diag_indices(features.size)] += level * self.diagonal[features]
        elif features.size == self.covariance.shape[0]:
            matrix += level * self.covariance
        else:
            matrix += level * self.covariance[np.ix_(features, features)]


class Common:
    """Sums and a sample of all features, from which receivers take the part of their masks.

    Memory: ``8 * n_features**2 + 4 * n_sample * n_features`` bytes. While it is made, the larger of
    the two terms comes a second time, and ``4 * n_bins``.
    """

    def __init__(self, products, n_sample):
        self.gram, self.sums = products.gram(), products.column_sums()
        self.sample = draw(products, n_sample)
        # Features are rows in memory: a tenth of them are copied ten times as fast.
        self.sample.rows = np.ascontiguousarray(self.sample.rows.T).T

    def share(self, products, columns, lanes):
        """The `Shared` part of fits with some columns; the products hold these columns."""
        gram, sample = self.gram[np.ix_(columns, columns)], self.sample.select(columns)
        return Shared(products, gram, self.sums[columns], sample, lanes)


def share(products, memory_budget, lanes=LANES):
    """The `Shared` part of the fits with some products."""
    n_sample = sample_size(products.shape[1], products.n_bins, memory_budget)
    sums = products.column_sums()
    return Shared(products, products.gram(), sums, n_sample, lanes)
