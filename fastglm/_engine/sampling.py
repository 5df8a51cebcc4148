"""Some bins in the place of all: how many, and which."""

from dataclasses import dataclass

import numpy as np

_SAMPLE, _MIN_SAMPLE = 20, 2000  # sampled bins a feature, and at least
_POOL, _UNIFORM = 4, 0.3  # bins looked at for each one drawn; part drawn evenly
# Own bins a feature, and at least; part of them drawn evenly. Four cells, 20 s at 1 ms, a ridge of
# 1e-6: with 240 bins for 24 features the slowest of 32 receivers took 135 passes, with 5000 13.
_OWN, _MIN_OWN, EVEN = 5, 5000, 0.2


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


@dataclass
class Sample:
    """Some bins in the place of all."""

    index: np.ndarray  # (n_sample,), ascending
    share: np.ndarray  # (n_sample, 1): how many bins each stands for, 1 in the mean
    rows: np.ndarray  # (n_sample, n_features), float32
    whole: bool  # the sample is all bins

    def select(self, columns):
        """The same bins with only some features."""
        return Sample(self.index, self.share, self.rows.T[columns].T, self.whole)


def draw(products, n_sample, leverage=None):
    """A `Sample` of the valid bins, drawn by their leverage, or where none is given by activity.

    A bin of high leverage (a burst, a rare sender) stands alone for its direction: drawn evenly, it
    is missed, or counts for many. With it the slowest of 50 receivers took 11 passes to 1e-8
    instead of 17.

    Parameters
    ----------
    products : Products
    n_sample : int
    leverage : function of (products, index), optional
        Of some bins of a part of the products.
    """
    if n_sample >= products.n_bins:
        index = np.flatnonzero(products.valid)
        rows = products.rows(index, np.float32)
        return Sample(index, np.ones((index.size, 1), np.float32), rows, True)
    parts = []
    for first, part in products.parts():
        n = int(np.ceil(n_sample * part.n_bins / products.n_bins))
        if part.n_bins:
            index, share = _draw_part(part, n, leverage)
            parts.append((index + first, share, part.rows(index, np.float32)))
    index, share, rows = (np.concatenate(found) for found in zip(*parts, strict=True))
    return Sample(index, share, rows, False)


def _draw_part(part, n_sample, leverage):
    """Bins of a part of the products, and how many of its bins each stands for."""
    index, rng = np.flatnonzero(part.valid), np.random.default_rng(0)
    likely = _UNIFORM + (1 - _UNIFORM) * part.seen(index)
    if leverage is None:
        pool, chance = np.arange(index.size), likely
        drawn = _stratified(rng, likely, n_sample)
    else:
        pool = _stratified(rng, likely, min(_POOL * n_sample, index.size))
        likely = likely[pool]
        chance = leverage(part, index[pool])
        average = (chance / likely).sum() / (1 / likely).sum()
        chance = _UNIFORM + (1 - _UNIFORM) * chance / max(average, 1e-30)
        drawn = _stratified(rng, chance / likely, n_sample)
    drawn, times = np.unique(drawn, return_counts=True)
    share = times / chance[drawn]
    share *= drawn.size / share.sum()
    return index[pool[drawn]], share[:, None].astype(np.float32)


def _stratified(rng, chance, n):
    """n numbers drawn in proportion to their chance, one from each of n equal stretches of it.

    Ascending. No period can hide in them.
    """
    ladder = np.cumsum(chance)
    places = (np.arange(n) + rng.random(n)) * (ladder[-1] / n)
    return np.minimum(np.searchsorted(ladder, places), chance.size - 1)


BLEND = 0.02  # part of the shared curvature that is added to a sampled one
