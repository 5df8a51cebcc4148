"""Samples of bins: their size, and how they are drawn."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

_SAMPLE, _MIN_SAMPLE = 20, 2000  # sampled bins a feature, and the least number of them
_POOL, _UNIFORM = 4, 0.3  # bins whose leverage is computed for each one drawn; part drawn evenly
# A late receiver's bins a feature, the least number of them, and the part drawn evenly. With 24
# features and 20,000 bins, 240 own bins took the slowest of 32 receivers 135 passes; 5000 took 13.
_OWN, _MIN_OWN, EVEN = 5, 5000, 0.2


def sample_size(n_features, n_bins, memory_budget=np.inf):
    """Number of sampled bins: `_SAMPLE` a feature, in at most four tenths of the memory."""
    fits = memory_budget / (10 * max(n_features, 1))
    return int(min(max(_MIN_SAMPLE, min(_SAMPLE * n_features, fits)), n_bins))


def own_size(n_features, n_bins):
    """Number of bins that are drawn for a late receiver."""
    return min(max(_OWN * n_features, _MIN_OWN), n_bins)


def n_own_factors(n_features, memory_budget):
    """Most late receivers of a batch: their float32 factors take a tenth of the memory.

    Room for three more factors is left: one is made at a time, in float64 and then in float32.
    There are none below 100 MB, which the other parts of a fit need.
    """
    return int(max((memory_budget - 1e8) / (40 * max(n_features, 1) ** 2) - 3, 0))


@dataclass
class Sample:
    """A sample of the bins of a fit."""

    index: np.ndarray  # (n_sample,), ascending
    share: np.ndarray  # (n_sample, 1): number of bins that each stands for, scaled to mean 1
    rows: np.ndarray  # (n_sample, n_features), float32
    whole: bool  # whether the sample holds all bins

    def select(self, columns):
        """The same bins with only some features."""
        return Sample(self.index, self.share, self.rows.T[columns].T, self.whole)


class Pool(NamedTuple):
    """Bins among which a sample is drawn by leverage."""

    index: np.ndarray
    likely: np.ndarray  # in proportion to the chance that a bin is among them
    rng: np.random.Generator


def draw(products, n_sample, leverage=None, pool=None):
    """A `Sample` of the valid bins, drawn by leverage if it is given, else by activity.

    A bin of high leverage (a burst, a rare sender) may be the only one with its direction. An even
    draw would miss it, or would let it stand for many bins: the slowest of 50 receivers would take
    17 passes to 1e-8 instead of 11.

    Parameters
    ----------
    products : Products
    n_sample : int
    leverage : function of (products, index), optional
        The leverage of some bins of a part of the products.
    pool : Pool, optional
        From `gather`, of products that have one part.
    """
    if n_sample >= products.n_bins:
        index = np.flatnonzero(products.valid)
        rows = products.rows(index, np.float32)
        return Sample(index, np.ones((index.size, 1), np.float32), rows, True)
    parts = []
    for first, part in products.parts():
        n = int(np.ceil(n_sample * part.n_bins / products.n_bins))
        if part.n_bins:
            if leverage is None:
                index, share = _draw_by_activity(part, n)
            else:
                index, share = _draw_by_leverage(part, n, leverage, pool or gather(part, n))
            parts.append((index + first, share, part.rows(index, np.float32)))
        del part  # frees the memory before the next part is read
    if len(parts) > 1:  # the rows of one part are not copied
        parts = [tuple(np.concatenate(found) for found in zip(*parts, strict=True))]
    return Sample(*parts[0], False)


def gather(part, n_sample):
    """A `Pool` of a part of the products for a sample of so many bins, drawn by activity."""
    index, likely, rng = _by_activity(part)
    pool = _stratified(rng, likely, min(_POOL * n_sample, index.size))
    return Pool(index[pool], likely[pool], rng)


def _by_activity(part):
    """The valid bins, the chance of each in proportion to its activity, and a generator."""
    index = np.flatnonzero(part.valid)
    return index, _UNIFORM + (1 - _UNIFORM) * part.seen(index), np.random.default_rng(0)


def _draw_by_activity(part, n_sample):
    """Sampled bins of a part of the products, and the number of bins each stands for."""
    index, chance, rng = _by_activity(part)
    return _distinct(index, chance, _stratified(rng, chance, n_sample))


def _draw_by_leverage(part, n_sample, leverage, pool):
    """The same among the bins of a pool."""
    chance = leverage(part, pool.index)
    average = (chance / pool.likely).sum() / (1 / pool.likely).sum()
    chance = _UNIFORM + (1 - _UNIFORM) * chance / max(average, 1e-30)
    return _distinct(pool.index, chance, _stratified(pool.rng, chance / pool.likely, n_sample))


def _distinct(index, chance, drawn):
    """The bins that are drawn, once each, and the number of bins each stands for."""
    drawn, times = np.unique(drawn, return_counts=True)
    share = times / chance[drawn]
    share *= drawn.size / share.sum()
    return index[drawn], share[:, None].astype(np.float32)


def _stratified(rng, chance, n):
    """n ascending numbers drawn in proportion to their chance.

    The summed chance is cut into n equal intervals, and one number is drawn at random from each. A
    period of the data can not coincide with the draw.
    """
    ladder = np.cumsum(chance)
    places = (np.arange(n) + rng.random(n)) * (ladder[-1] / n)
    return np.minimum(np.searchsorted(ladder, places), chance.size - 1)


BLEND = 0.02  # part of the shared curvature that is added to a sampled one
