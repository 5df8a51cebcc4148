"""Goodness of fit: log likelihoods and pseudo-R2, summed chunk by chunk."""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np

from fastglm._batches.fit import any_known, fit_penalties
from fastglm._checks import check_choice
from fastglm._engine.batch import Settings
from fastglm._engine.observed import Observed
from fastglm._fitted import Fitted, mean_count
from fastglm.features.matrix import as_feature_matrix
from fastglm.observation_models import pseudo_r2
from fastglm.regularizer import UnRegularized

SCORES = ("log-likelihood", "pseudo-r2-McFadden", "pseudo-r2-Cohen")


_SHOWN = 10  # receivers that a warning lists


def score(fit: Fitted, score_type="log-likelihood", aggregate=np.mean, skip_impossible=False):
    """Score of a fit over the bins where a count is known; see `PopulationGLM.score`.

    Raises
    ------
    ValueError
        If the score type is not known, no bin can be scored, or an aggregate is to be weighted.
    """
    check_choice("score_type", score_type, SCORES)
    y, weight, family = fit.y, fit.weight, fit.family
    if weight is not None and aggregate is not np.mean:
        raise ValueError(
            "sample_weight goes with the mean only; weigh the scores in aggregate_sample_scores "
            "instead."
        )
    kept = fit.kept & any_known(y)
    if not kept.any():
        raise ValueError("No bin has finite X and y, so there is nothing to score.")
    against_null = score_type != "log-likelihood"
    null = null_rates(fit.loss, Observed(y, weight, fit.offset), kept) if against_null else None
    total = _RunningMean if aggregate is np.mean else partial(_Collect, fit.single)
    model, base, impossible = total(), total(), Impossible()
    cohen = score_type == "pseudo-r2-Cohen"

    def value(counts, mu):
        with np.errstate(divide="ignore", invalid="ignore"):
            if cohen:
                return family.unit_deviance(counts, mu, fit.scale)
            return family.log_probability(counts, mu, fit.scale)

    for index, mu in fit.rates(kept):
        counts, weights = y.rows(index), None if weight is None else weight[index, None]
        values = impossible.add(index, counts, mu, value(counts, mu), np.inf if cohen else -np.inf)
        model.add(values, weights)
        if against_null:
            base.add(value(counts, null(index)), weights)
    result = model.result(aggregate)
    if against_null:
        result = pseudo_r2(result, base.result(aggregate))
    if impossible.found:
        without = impossible.without(fit)
        if (without.kept & any_known(without.y)).any():
            rest = score(without, score_type, aggregate)
        else:
            rest = result * np.nan
        if skip_impossible:
            return rest
        bad = "is minus infinity" if np.isneginf(result).any() else "holds impossible counts"
        number = f" and gives {rest:.6g}" if np.ndim(rest) == 0 else ""
        what = f"The score {bad}; skip_impossible=True leaves these bins out{number}"
        impossible.warn(fit, what, level=4)
    return result


class Impossible:
    """Counts to which a fit gives probability 0, such as an event where its rate is 0.

    One of them makes a log likelihood minus infinity, whatever all other counts are.
    """

    def __init__(self):
        self.bins, self.receivers = [], []

    def add(self, index, counts, mu, values, worst):
        """The values of a chunk, with ``worst`` for impossible counts."""
        bad = ~np.isnan(counts) & ((values == worst) | (np.isnan(values) & np.isinf(mu)))
        if bad.any():
            rows, receivers = np.nonzero(bad)
            self.bins.append(index[rows])
            self.receivers.append(receivers)
            values = np.where(bad, worst, values)
        return values

    @property
    def found(self):
        """Whether there are such counts."""
        return len(self.bins) > 0

    def number(self, n_receivers):
        """Number of them of every receiver, int of shape (n_receivers,)."""
        receivers = np.concatenate([np.zeros(0, int), *self.receivers])
        return np.bincount(receivers, minlength=n_receivers)

    def forget(self, y):
        """Counts without them: they are not known."""
        return y.forget(np.concatenate(self.bins), np.concatenate(self.receivers))

    def without(self, fit):
        """A fit that sees these counts as not known."""
        return fit.seeing(self.forget(fit.y))

    def warn(self, fit, what, level):
        """Warn with the receivers and the number of their impossible counts."""
        warn_impossible(self.number(fit.n_receivers), fit.receivers, what, level + 1)


def warn_impossible(n_impossible, columns, what, level):
    """Warn that receivers have counts of probability 0; ``what`` says what follows."""
    receivers = np.flatnonzero(n_impossible)
    names = range(n_impossible.size) if columns is None else columns.names
    listed = ", ".join(f"{names[j]} ({n_impossible[j]})" for j in receivers[:_SHOWN])
    more = f" and {receivers.size - _SHOWN} more" if receivers.size > _SHOWN else ""
    warnings.warn(
        f"{what}. The fit gives probability 0 to counts of receiver {listed}{more} (number of "
        "bins), such as an event inside the dead time that it has learned, or a bin whose eta is "
        "outside of the range of the link.",
        UserWarning,
        stacklevel=level,
    )


def null_rates(loss, observed, kept):
    """A function of bins: the rates of the model without features, the offsets included.

    Parameters
    ----------
    loss : Loss
    observed : Observed
    kept : ndarray of bool, shape (n_bins,)
        Bins that the model without features is fitted to.
    """
    if observed.offset is None:
        mean = mean_count(observed.events, kept, observed.weight)
        return lambda index: mean
    intercept = null_intercepts(loss, observed, kept)
    return lambda index: loss.mean(intercept + observed.offset[index])


def null_intercepts(loss, observed, kept):
    """Optimal intercepts without features, (n_receivers,)."""
    nothing = as_feature_matrix(np.zeros((observed.events.n_bins, 1)))
    free = np.zeros((1, observed.events.n_units), bool)
    center = observed.offset[kept].mean(axis=0)
    centered = Observed(observed.events, observed.weight, observed.offset - center)
    penalty = UnRegularized().penalty(None, nothing, free)
    settings = Settings(loss, 1e-16, 100, "newton-cholesky", "rows", 1e9)
    (result,) = fit_penalties(nothing, centered, kept, free, [penalty], settings, log="null")
    return result.intercept - center


def mean_log_likelihood(rates, y, family, scale, weight=None):
    """Weighted mean log likelihood a bin of every receiver.

    Parameters
    ----------
    rates : iterator of (bins, mu)
        As `Fitted.rates` yields them.
    y : Events
    family : ObservationModel
    scale : ndarray of shape (n_receivers,)
    weight : ndarray of shape (n_bins,), optional

    Returns
    -------
    mean : ndarray of shape (n_receivers,)
        NaN where no count is known; minus infinity where one is impossible.
    possible : ndarray of shape (n_receivers,)
        The mean without impossible counts.
    n_impossible : ndarray of int, shape (n_receivers,)
    """
    total, size, impossible = np.zeros(y.n_units), np.zeros(y.n_units), Impossible()
    for index, mu in rates:
        counts = y.rows(index)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = family.log_probability(counts, mu, scale)
        value = impossible.add(index, counts, mu, value, -np.inf)
        known = value > -np.inf  # False for NaN
        factor = 1.0 if weight is None else weight[index, None]
        # One receiver in a row: the bits must not depend on how many there are.
        total += np.ascontiguousarray(np.where(known, factor * value, 0.0).T).sum(axis=1)
        size += (factor * known).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        possible = np.where(size > 0, total / size, np.nan)
    n_impossible = impossible.number(y.n_units)
    return np.where(n_impossible > 0, -np.inf, possible), possible, n_impossible


class _RunningMean:
    """Mean over all entries that are not NaN, without keeping them."""

    def __init__(self):
        self.total, self.n = 0.0, 0

    def add(self, values, weights=None):
        known = ~np.isnan(values)
        if weights is None:
            self.total += float(np.sum(values, where=known))
            self.n += int(known.sum())
        else:
            self.total += float(np.sum(weights * values, where=known))
            self.n += float(np.sum(np.broadcast_to(weights, values.shape), where=known))

    def result(self, aggregate):
        return self.total / self.n if self.n else np.nan


class _Collect:
    """All entries, for an aggregate of the user's."""

    def __init__(self, single):
        self.single, self.parts = single, []

    def add(self, values, weights=None):
        self.parts.append(values)

    def result(self, aggregate):
        values = np.concatenate(self.parts)
        return aggregate(values[:, 0] if self.single else values)
