"""Observations of every bin: counts, a weight, and an offset of eta.

With weights w and offsets o every receiver minimises, over the bins whose weight is not 0,

    sum_t w_t * loss(b + x_t.c + o_tj, y_tj) / sum_t w_t + penalty_j(c)

This is the problem without weights and offsets, with weights of mean 1 and one vector (the *shift*)
added to eta. If the loss is exponential, ``w * exp(eta) = exp(eta + log(w))``, so the shift holds
the log of the weights as well.
"""

from functools import partial

import numpy as np

_ROWS = 8192  # bins whose counts are a table at a time
_FAR = 100.0  # standard deviations from zero beyond which ``X'Y`` has lost digits of its slope


class Observed:
    """Counts of some receivers over the bins of a fit, with their weights and offsets.

    Parameters
    ----------
    events : Events
        The counts that are not zero.
    weight : ndarray of shape (n_bins,), optional
        Its mean over the bins of the fit is 1.
    offset : ndarray of shape (n_bins, 1) or (n_bins, n_receivers), optional
    """

    def __init__(self, events, weight=None, offset=None):
        self.events, self.weight, self.offset = events, weight, offset

    @property
    def plain(self):
        """Whether there are neither weights nor offsets."""
        return self.weight is None and self.offset is None

    @property
    def sparse(self):
        """Whether the counts are events, without weights and offsets."""
        return self.plain and self.events.values is None

    @property
    def weight_of_bins(self):
        """The weights, or 1."""
        return 1.0 if self.weight is None else self.weight

    def __call__(self, index):
        """Counts of the bins ``index`` (ascending), shape (index.size, n_receivers)."""
        return self.events.rows(index)

    def select(self, receivers):
        """The observations of some receivers."""
        whole = np.array_equal(receivers, np.arange(self.events.n_units))
        events = self.events if whole else self.events.select(receivers)
        return Observed(events, self.weight, columns(self.offset, receivers))

    def within(self, valid):
        """The same with weights scaled to mean 1 over the valid bins."""
        if self.weight is None:
            return self
        return Observed(self.events, self.weight / self.weight[valid].mean(), self.offset)

    def prepare(self):
        """Sort the events by receiver once, before threads select receivers."""
        self.events.by_unit  # noqa: B018

    def part(self, first, stop):
        """The observations of the bins from ``first`` to ``stop``, renumbered from 0."""
        bins = slice(first, stop)
        weight, offset = (v if v is None else v[bins] for v in (self.weight, self.offset))
        return Observed(self.events.part(first, stop), weight, offset)

    def shift(self, index, exponential, receivers=None):
        """The vector added to eta, shape (n, 1 or n_receivers); None for nothing.

        It includes the log of the weights if the loss is exponential.
        """
        offset = self.offset
        if receivers is not None:
            offset = columns(offset, receivers)
        parts = [] if offset is None else [offset[index]]
        if exponential and self.weight is not None:
            # Bins of weight 0 are not in the fit. Their shift only has to be finite.
            parts.append(np.log(np.maximum(self.weight[index], 1e-300))[:, None])
        return sum(parts) if parts else None

    def factor(self, index, exponential):
        """The factor of loss and derivatives, shape (n, 1); None for 1."""
        if exponential or self.weight is None:
            return None
        return self.weight[index][:, None]

    def without_offset(self, products, moments):
        """``X'w(y - o - m)``, the means m of ``y - o``, and its summed squares around them.

        For a quadratic loss. The sums are centred, so that no term is much larger than their total.
        Where counts are so far from zero that ``X'Y`` has lost digits, they are centred first.
        """
        if self.offset is not None:
            pull = self.offset * np.reshape(self.weight_of_bins, (-1, 1))
            pull = np.where(products.valid[:, None], pull, 0.0)
            xty, sum_y = moments.xty - products.project(pull), moments.sum_y - pull.sum(axis=0)
            moments = moments._replace(xty=xty, sum_y=sum_y)
        mean = moments.sum_y / products.n_bins
        if self.offset is not None:
            squares = np.zeros(mean.size)
            for some in _blocks(products.valid):
                off, factor = self.around(some, mean), self.factor(some, False)
                squares += (off**2 if factor is None else factor * off**2).sum(axis=0)
        else:
            squares = products.total(partial(_squares, mean=mean), self)
        xty = moments.xty - np.outer(moments.x, mean)
        far = np.flatnonzero(mean**2 * products.n_bins > _FAR**2 * squares)
        if far.size:
            xty[:, far] = self._centred(products, moments, far, mean)
        return xty, mean, squares

    def _centred(self, products, moments, receivers, mean):
        """``X'w(y - o - m)`` of some receivers from counts that are centred bin by bin."""
        off = _Centred(self, receivers, mean)
        rounded = sum(off[some].sum(axis=0) for some in _blocks(products.valid)) / products.n_bins
        return products.project(off) - np.outer(moments.x, rounded)

    def around(self, index, mean):
        """``y - o - m`` in some bins."""
        y = self(index)
        return (y if self.offset is None else y - self.offset[index]) - mean

    def _weights(self, valid):
        """Weight of every bin, 0 where it is not in the fit."""
        return np.where(valid, self.weight_of_bins, 0.0)

    def _in_the_fit(self, valid):
        """Bins, receivers, counts and weights of the events in some bins."""
        keep = valid[self.events.bins]
        bins = self.events.bins[keep]
        weight = np.broadcast_to(self.weight_of_bins, valid.shape)[bins]
        return bins, self.events.units[keep], self.events.amplitudes[keep], weight

    def sums(self, products):
        """Weighted sum of every receiver's counts over the valid bins."""
        return products.total(_sums, self)

    def start(self, loss, mean, products):
        """Intercepts at which constant rates have about the mean of the counts.

        The log of the mean of ``w * exp(o)`` is subtracted, by which offsets o raise the log of a
        mean rate. This is exact for an exponential loss without features. A loss without a limit at
        low eta keeps its intercept: its offsets are about 0. Where eta must be above a least one,
        all offsets leave it there.
        """
        intercept = loss.eta(mean)
        if self.offset is None or (loss.least is None and loss.low is None):
            return intercept
        if loss.least is not None:
            return intercept - np.minimum(self.offset[products.valid].min(axis=0), 0.0)
        shift = self.shift(np.flatnonzero(products.valid), True)
        top = shift.max(axis=0)
        return intercept - (top + np.log(np.exp(shift - top).mean(axis=0)))

    def beyond(self, intercept, receivers, products):
        """Intercepts at infinity, so that eta is beyond them in every bin with any offset."""
        if self.offset is None:
            return intercept
        offset = columns(self.offset, receivers)[products.valid]
        low, high = offset.min(axis=0), offset.max(axis=0)
        return intercept - np.where(intercept < 0, np.maximum(high, 0), np.minimum(low, 0))

    def at_constant(self, loss, intercept, products):
        """Mean of ``w * cumulant`` without features, (n_receivers,)."""
        if self.offset is None:
            return loss.cumulant(intercept)
        total = 0.0
        for some in _blocks(products.valid):
            value = loss.cumulant(self.offset[some] + intercept)
            factor = self.factor(some, False)
            total = total + (value if factor is None else factor * value).sum(axis=0)
        return total / products.n_bins

    def constant(self, loss, products):
        """The part of the summed loss without coefficients, for losses with linear counts.

        ``sum_t w_t (constant(y_tj) - count_factor * y_tj * o_tj)`` over the valid bins.
        """
        return products.total(partial(_constant, loss=loss), self)


class _Centred:
    """``w(y - o - m)`` of some receivers, as an array that is made for the bins that are read."""

    def __init__(self, observed, receivers, mean):
        self.observed, self.receivers, self.mean = observed, receivers, mean
        self.shape = observed.events.n_bins, receivers.size

    def __getitem__(self, bins):
        index = np.arange(*bins.indices(self.shape[0])) if isinstance(bins, slice) else bins
        weight = np.broadcast_to(self.observed.weight_of_bins, self.shape[:1])[index]
        return weight[:, None] * self.observed.around(index, self.mean)[:, self.receivers]


# Sums over a part of the products, for `Products.total`.


def _sums(part, own):
    return own.events.sums(own._weights(part.valid))


def _squares(part, own, mean):
    return own.events.squares(own._weights(part.valid), mean)


def _constant(part, own, loss):
    bins, units, counts, weight = own._in_the_fit(part.valid)
    values = weight * loss.constant(counts)
    if own.offset is not None:
        column = units if own.offset.shape[1] > 1 else 0
        values = values - loss.count_factor * weight * counts * own.offset[bins, column]
    return np.bincount(units, values, own.events.n_units)


def _blocks(valid):
    """Numbers of the bins of the fit, some at a time."""
    index = np.flatnonzero(valid)
    for first in range(0, index.size, _ROWS):
        yield index[first : first + _ROWS]


def columns(offset, receivers):
    """The offsets of some receivers; a single column belongs to all receivers."""
    return offset if offset is None or offset.shape[1] == 1 else offset[:, receivers]
