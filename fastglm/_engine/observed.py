"""What is known of every bin beside its features: counts, a weight, and an offset of eta.

With weights w and offsets o every receiver minimises, over the bins whose weight is not 0,

    sum_t w_t * loss(b + x_t.c + o_tj, y_tj) / sum_t w_t + penalty_j(c)

which is the problem without them for weights of mean 1, counts ``w * y`` in ``X'Y``, and one vector
added to eta. Where the link is exponential, ``w * exp(eta) = exp(eta + log(w))``, so that vector
holds the weights as well and the kernels need not know.
"""

import numpy as np


class Observed:
    """Counts of some receivers over the bins of a fit, with their weights and offsets.

    Parameters
    ----------
    events : Events
        The counts that are not zero.
    weight : ndarray of shape (n_bins,), optional
        Of mean 1 over the bins of the fit.
    offset : ndarray of shape (n_bins, 1) or (n_bins, n_receivers), optional
    """

    def __init__(self, events, weight=None, offset=None):
        self.events, self.weight, self.offset = events, weight, offset

    @property
    def plain(self):
        """Without weights and offsets."""
        return self.weight is None and self.offset is None

    @property
    def weight_of_bins(self):
        """The weights, or 1."""
        return 1.0 if self.weight is None else self.weight

    def __call__(self, index):
        """Counts of the bins ``index`` (ascending), shape (index.size, n_receivers)."""
        return self.events.rows(index)

    def select(self, receivers):
        """Those of some receivers."""
        whole = np.array_equal(receivers, np.arange(self.events.n_units))
        events = self.events if whole else self.events.select(receivers)
        return Observed(events, self.weight, columns(self.offset, receivers))

    def within(self, valid):
        """Weights scaled to mean 1 over the valid bins."""
        if self.weight is None:
            return self
        return Observed(self.events, self.weight / self.weight[valid].mean(), self.offset)

    def weighted_events(self):
        """The events, each as many as its weight."""
        if self.weight is None:
            return self.events
        events = self.events.take(slice(None))
        events.amplitudes = events.amplitudes * self.weight[events.bins]
        return events

    def shift(self, index, canonical):
        """What is added to eta: shape (index.size, 1 or n_receivers), None for nothing."""
        parts = [] if self.offset is None else [self.offset[index]]
        if canonical and self.weight is not None:
            # Bins of weight 0 are not in the fit; the kernels pass over a finite number there.
            parts.append(np.log(np.maximum(self.weight[index], 1e-300))[:, None])
        return sum(parts) if parts else None

    def factor(self, index, canonical):
        """What loss and derivatives are multiplied by, shape (index.size, 1), None for 1."""
        if canonical or self.weight is None:
            return None
        return self.weight[index][:, None]

    def lift(self, valid):
        """Log of the mean of ``w * exp(o)``: by this much the intercept starts lower."""
        if self.offset is None:
            return 0.0
        shift = self.shift(np.flatnonzero(valid), True)
        top = shift.max(axis=0)
        return top + np.log(np.exp(shift - top).mean(axis=0))

    def linear(self, valid):
        """``sum_t w_t * y_tj * o_tj`` over the valid bins: a constant of the objective."""
        events = self.weighted_events()
        total = np.zeros(events.n_units)
        if self.offset is not None:
            keep = valid[events.bins]
            bins, units = events.bins[keep], events.units[keep]
            column = units if self.offset.shape[1] > 1 else 0
            products = events.amplitudes[keep] * self.offset[bins, column]
            total += np.bincount(units, products, events.n_units)
        return total


def columns(offset, receivers):
    """The offsets of some receivers; one column is everybody's."""
    return offset if offset is None or offset.shape[1] == 1 else offset[:, receivers]
