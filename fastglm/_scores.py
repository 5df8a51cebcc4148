"""Goodness of fit: log likelihoods and pseudo-R2, summed chunk by chunk."""

from __future__ import annotations

import numpy as np

from fastglm._batches.fit import any_known, fit_penalties
from fastglm._engine.batch import Settings
from fastglm._engine.observed import Observed
from fastglm._fitted import Fitted, mean_count
from fastglm.features.matrix import as_feature_matrix
from fastglm.regularizer import UnRegularized

SCORES = ("log-likelihood", "pseudo-r2-McFadden", "pseudo-r2-Cohen")


def score(fit: Fitted, score_type="log-likelihood", aggregate=np.mean):
    """Score of a fit over the bins where a count is known; see `PopulationGLM.score`.

    Raises
    ------
    ValueError
        If the score type is not known, no bin can be scored, or an aggregate is to be weighted.
    """
    if score_type not in SCORES:
        raise ValueError(f"score_type is {score_type!r}; expected one of {list(SCORES)}.")
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
    total = _RunningMean if aggregate is np.mean else _Collect
    model, base = total(), total()

    def value(counts, mu):
        if score_type == "pseudo-r2-Cohen":
            return family.deviance(counts, mu)
        return family.log_likelihood(counts, mu, fit.scale)

    for index, mu in fit.rates(kept):
        counts, weights = y.rows(index), None if weight is None else weight[index, None]
        model.add(value(counts, mu), weights)
        if against_null:
            base.add(value(counts, null(index)), weights)
    result = model.result(aggregate)
    if against_null:
        with np.errstate(divide="ignore", invalid="ignore"):
            # 0 / 0 where the null model is perfect: the score is NaN.
            result = 1 - np.divide(result, base.result(aggregate))
    return result


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
    ndarray of shape (n_receivers,)
        NaN where no count is known.
    """
    total, size = np.zeros(y.n_units), np.zeros(y.n_units)
    for index, mu in rates:
        value = family.log_likelihood(y.rows(index), mu, scale)
        known = ~np.isnan(value)
        factor = 1.0 if weight is None else weight[index, None]
        # One receiver in a row: the bits must not depend on how many there are.
        total += np.ascontiguousarray(np.where(known, factor * value, 0.0).T).sum(axis=1)
        size += (factor * known).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(size > 0, total / size, np.nan)


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
        return self.total / self.n


class _Collect:
    """All entries, for an aggregate of the user's."""

    def __init__(self):
        self.parts = []

    def add(self, values, weights=None):
        self.parts.append(values)

    def result(self, aggregate):
        return aggregate(np.concatenate(self.parts))
