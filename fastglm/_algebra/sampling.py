"""Samples of bins: their size, and how they are drawn."""

from dataclasses import dataclass

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


def draw(products, n_sample, leverage=None):
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
        del part  # frees the memory before the next part is read
    if len(parts) > 1:  # the rows of one part are not copied
        parts = [tuple(np.concatenate(found) for found in zip(*parts, strict=True))]
    return Sample(*parts[0], False)


def _draw_part(part, n_sample, leverage):
    """Sampled bins of a part of the products, and the number of bins each stands for."""
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
    """n ascending numbers drawn in proportion to their chance.

    The summed chance is cut into n equal intervals, and one number is drawn at random from each. A
    period of the data can not coincide with the draw.
    """
    ladder = np.cumsum(chance)
    places = (np.arange(n) + rng.random(n)) * (ladder[-1] / n)
    return np.minimum(np.searchsorted(ladder, places), chance.size - 1)


BLEND = 0.02  # part of the shared curvature that is added to a sampled one
