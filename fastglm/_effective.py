"""How many events a sandwich covariance rests on, and the model's part where they are few.

A sandwich ``A^-1 B A^-1`` estimates ``B``, the covariance of the scores, from the data: from
squared residuals of bins, or of sums over blocks. Of two sparse cells B knows little. A bin without
an event adds ``mu^2`` to it where the model has ``mu``, so that without a coincidence B is almost
0, while the score is not: its square over B takes any size. Leverages (HC3) see none of that,
because ``mu`` is far below 1 in each bin.

For a centred feature x with weights w, the curvature h of the loss as the model expects it, and
the excess kurtosis e of a count (``1 / variance`` for events, 0 for Gaussian observations), the
variance of B's entry under the model is

    sum_t w_t h_t^2 e_t x_t^4 + 2 sum_b s_b^2,   s_b = sum_{t in b} w_t h_t x_t^2

with blocks b of one bin for "robust". The effective number of events is the square of the entry's
mean over that variance, with p + 1 in place of 2, for a Wald test of p coefficients sees all
directions of B (T^2 of Hotelling):

    n = (sum_t w_t h_t x_t^2)^2 / (sum_t w_t h_t^2 e_t x_t^4 + (p + 1) sum_b s_b^2)

For a sparse receiver and a function of the history of a sparse sender it is about the number of
coincidences that chance makes within the function. `Effective.part` is a share of the model's own
covariance of the scores, to be added to B: the whole of it up to half of `ENOUGH`, and nothing from
`ENOUGH` on. The square of a score over the sum is bounded by the number of coincidences, and so
p-values hold however few they are. The price is a standard error up to 1.41 times too large.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fastglm._fitted import Fitted

ENOUGH = 30  # effective events from which on a sandwich stands on its own


@dataclass
class Effective:
    """Effective events of some receivers; features in rows, the intercept last.

    Attributes
    ----------
    number : ndarray of shape (n_features + 1, n_receivers)
    variance : ndarray of shape (n_features + 1, n_receivers)
        Of the score of each centred feature under the model, ``sum_t w_t h_t x_t^2``.
    mean : ndarray of shape (n_features,)
        What was taken off the features.
    """

    number: np.ndarray
    variance: np.ndarray
    mean: np.ndarray

    def part(self, k: int, free: np.ndarray, fisher: np.ndarray) -> np.ndarray:
        """What to add to the covariance B of the scores of receiver k.

        Parameters
        ----------
        k : int
            Its place among the receivers.
        free : ndarray of int
            Features of its fit.
        fisher : ndarray of shape (free.size + 1, free.size + 1)
            Information without a penalty. Only the correlations of centred features are used.
        """
        rows = np.append(free, -1)
        weight = share(self.number[rows, k])
        part = fisher.copy()
        _move(part, -self.mean[free])
        own = np.diag(part)
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = np.where(own > 0, np.sqrt(weight * self.variance[rows, k] / own), 0.0)
        part *= np.outer(scale, scale)
        _move(part, self.mean[free])
        return part


def _move(matrix, mean):
    """Add ``mean`` to the features of a covariance of scores, the intercept's last, in place."""
    matrix[:-1] += np.outer(mean, matrix[-1])
    matrix[:, :-1] += np.outer(matrix[:, -1], mean)


def share(number: np.ndarray) -> np.ndarray:
    """The share of the model in the covariance of scores: 1 up to ``ENOUGH / 2``, then less."""
    with np.errstate(divide="ignore"):
        return np.clip(ENOUGH / np.asarray(number) - 1, 0.0, 1.0)


def effective_events(fit: Fitted, receivers: np.ndarray, block_size: int | None) -> Effective:
    """Effective number of events behind a sandwich.

    Parameters
    ----------
    fit : Fitted
    receivers : ndarray of int
    block_size : int or None
        Bins in a block of time; None for single bins.

    Notes
    -----
    Weights that are not whole numbers are no counts of rows; with blocks they enter as squares.
    """
    counts = fit.weight is None or bool((fit.weight == np.round(fit.weight)).all())
    power = 1 if counts or block_size is None else 2
    shape, mean = (fit.coef.shape[0] + 1, receivers.size), _means(fit)
    variance, fourth, sums = np.zeros(shape), np.zeros(shape), _Blocks(shape, block_size)
    for block, rows in fit.rows():
        curvature, kurtosis = _expected(fit, block, rows, receivers)
        weights = fit.weights(block) ** power
        again = weights**power  # of a fourth power
        square = np.column_stack([(rows - mean) ** 2, np.ones(len(rows))])
        variance += square.T @ (weights * curvature)
        fourth += (square**2).T @ (again * kurtosis)
        sums.add(block, square, weights * curvature, again * curvature**2)
    size = np.ones(shape)
    for k, j in enumerate(receivers):
        of = fit.X.filters[fit.free[j]]
        size[fit.free[j], k] = np.bincount(of, minlength=1)[of]
    with np.errstate(divide="ignore", invalid="ignore"):
        number = variance**2 / (fourth + (size + 1) * sums.total())
    return Effective(np.nan_to_num(number, nan=0.0), variance, mean)


def _means(fit):
    """Weighted mean of every feature over the bins of the fit."""
    total, size = np.zeros(fit.coef.shape[0]), 0.0
    for block, rows in fit.rows():
        weights = fit.weights(block)[:, 0]
        total, size = total + weights @ rows, size + weights.sum()
    return total / size


def _expected(fit, block, rows, receivers):
    """The curvature h that the model expects, and ``h^2`` times the excess kurtosis of counts.

    Both are 0 where the count is not known, or certain.
    """
    eta = fit.eta(block, rows, receivers)
    known = ~np.isnan(fit.y.rows(block)[:, receivers])
    with np.errstate(all="ignore"):
        loss, scale = fit.loss.select(receivers), fit.scale[receivers]
        curvature = np.where(known, loss.expected_curvature(eta), 0.0)
        kurtosis = fit.family.kurtosis * np.nan_to_num(scale) * curvature**2
        if fit.family.event_based:
            variance = fit.family.variance(loss.mean(eta), scale)
            kurtosis += np.where(variance > 0, curvature * (curvature / variance), 0.0)
    return curvature, kurtosis


class _Blocks:
    """The sum of squares of a score's variance in each block of time, over chunks of bins."""

    def __init__(self, shape, block_size):
        self.size, self.number = block_size, -1
        self.open, self.closed = np.zeros(shape), np.zeros(shape)

    def add(self, bins, square, variance, squared):
        """Consecutive bins: squares of their features, and the variance of their residuals."""
        if self.size is None:  # every bin is a block
            self.closed += (square**2).T @ squared
            return
        numbers = bins // self.size
        edges = np.flatnonzero(np.diff(numbers, prepend=-1, append=-1))
        for first, stop in pairwise(edges):
            if numbers[first] != self.number:
                self.closed += self.open**2
                self.number, self.open = numbers[first], 0.0
            self.open = self.open + square[first:stop].T @ variance[first:stop]

    def total(self):
        """Sum over all blocks."""
        return self.closed + self.open**2
