"""How much of the variation is explained, in the bins of the fit and in others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from fastglm import _html
from fastglm._batches.fit import fit_penalties
from fastglm._engine.observed import Observed
from fastglm._fitted import Fitted, fitted_scale, rates
from fastglm._inputs import read_problem
from fastglm._scores import null_rates
from fastglm.features.events import Events
from fastglm.model_selection import split
from fastglm.observation_models import ObservationModel

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass
class HeldOut:
    """Scores of the bins that a fit has not seen, fold by fold.

    Attributes
    ----------
    deviance_explained : ndarray of shape (n_folds, n_receivers)
    bits_per_spike : ndarray of shape (n_folds, n_receivers)
        NaN for families that are not of events.
    log_likelihood : ndarray of shape (n_folds, n_receivers)
        Mean over the held-out bins, with its normalisation and the scale of the fit.
    status : ndarray of str, shape (n_folds, n_receivers)
        How each fit ended, as ``status_`` of a model.
    """

    deviance_explained: np.ndarray
    bits_per_spike: np.ndarray
    log_likelihood: np.ndarray
    status: np.ndarray

    def __repr__(self) -> str:
        n_folds, n = self.status.shape
        bits = f", bits per spike {_html.span(self.bits_per_spike)}"
        return (
            f"HeldOut scores of {n:,} receivers in {n_folds} folds: deviance explained "
            f"{_html.span(self.deviance_explained)}"
            f"{bits if np.isfinite(self.bits_per_spike).any() else ''}; {_html.tally(self.status)}"
        )


def deviance_explained(
    model: object,
    X: object,
    y: object,
    *,
    sample_weight: ArrayLike | None = None,
    offset: ArrayLike | None = None,
) -> np.ndarray:
    """Part of the deviance that the model explains, receiver by receiver.

    ``1 - D / D0`` with the deviance D of the family, for Poisson observations
    ``2 sum_t y log(y / mu) - (y - mu)``, and D0 that of each receiver's mean count over the same
    bins: 1 is perfect, 0 no better than the mean, and below is worse. For Gaussian observations it
    is R2. For counts of mostly 0 and 1 even the true rate is far from 1.

    Parameters
    ----------
    model : PopulationGLM or GLM
        Fitted.
    X, y, sample_weight, offset
        As in `fit`; any bins. With an offset the null model is an intercept with the same offsets.

    Returns
    -------
    ndarray of shape (n_receivers,)
        NaN where the counts do not vary.

    Raises
    ------
    ValueError
        If X or y does not fit the model, no row of X is finite, or weights or offsets of the fit
        are missing.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> X = np.random.default_rng(0).normal(size=(1000, 2))
    >>> y = np.exp(X @ [[0.5], [-0.2]] + 0.1)  # nothing but the rate
    >>> fastglm.diagnostics.deviance_explained(fastglm.PopulationGLM().fit(X, y), X, y).round(6)
    array([1.])
    """
    fit = read_fit(model, X, y, sample_weight, offset)
    return _sums_of(fit).deviance_explained()


def bits_per_spike(
    model: object,
    X: object,
    y: object,
    *,
    sample_weight: ArrayLike | None = None,
    offset: ArrayLike | None = None,
) -> np.ndarray:
    """Information about each event that the model has beyond the mean count, in bits.

    ``(LL - LL0) / (n_events log 2)`` with the log-likelihood LL of the model and LL0 of each
    receiver's mean count over the same bins (Pillow et al., 2008).

    Parameters
    ----------
    model, X, y, sample_weight, offset
        As in `deviance_explained`.

    Returns
    -------
    ndarray of shape (n_receivers,)
        NaN for a receiver without events.

    Raises
    ------
    ValueError
        As in `deviance_explained`, or if the family is not one of events.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> X = np.repeat([[0.0], [1.0]], 500, axis=0)
    >>> y = np.repeat([[0.0], [2.0]], 500, axis=0)  # the rate doubles where events are
    >>> model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-9).fit(X, y)
    >>> fastglm.diagnostics.bits_per_spike(model, X, y).round(3)
    array([1.])
    """
    fit = read_fit(model, X, y, sample_weight, offset)
    if not fit.family.event_based:
        raise ValueError(
            f"{fit.family.name} observations are not events; bits per spike need Poisson or "
            "Bernoulli observations. deviance_explained gives R2."
        )
    return _sums_of(fit).bits_per_spike()


def cross_validated(
    model: object,
    X: object,
    y: object,
    folds: object = 5,
    *,
    sample_weight: ArrayLike | None = None,
    offset: ArrayLike | None = None,
) -> HeldOut:
    """Scores of held-out bins: the model is fitted again without each fold.

    The null model is the receiver's mean count over the bins of the fit, so a held-out score of 0
    is what a constant rate would have reached, and may be negative.

    Parameters
    ----------
    model : PopulationGLM or GLM
        Its parameters hold for every fit. Not changed, and need not be fitted.
    X, y, sample_weight, offset
        As in `fit`.
    folds
        As in `fastglm.model_selection.cross_validate`: the same bins are fitted and scored, and
        no window reaches from one part into the other.

    Returns
    -------
    HeldOut
        NaN where the counts of the fit are all 0 (or, for Bernoulli, all 1), and as in
        `deviance_explained` and `bits_per_spike`.

    Raises
    ------
    ValueError
        If X and y cannot be fitted, or a fold leaves no bins to fit or to score.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> counts = np.random.default_rng(0).poisson(0.2, size=(2000, 4))
    >>> X = fastglm.basis.RaisedCosineLogConv(4, window_size=20).compute_features(counts)
    >>> scores = fastglm.diagnostics.cross_validated(fastglm.PopulationGLM(), X, counts, folds=3)
    >>> scores.bits_per_spike.shape, bool(scores.bits_per_spike.mean() < 0)  # nothing to explain
    ((3, 4), True)
    """
    problem = read_problem(model, X, y, sample_weight, offset)
    X, observed, settings = problem.X, problem.observed, problem.settings
    loss, family, kept = settings.loss, settings.loss.observation_model, problem.valid
    scores = []
    for k, (train, test) in enumerate(split(X, folds, observed.events.n_bins)):
        train, test = train & kept, test & kept
        (result,) = fit_penalties(
            X, observed, train, problem.free, [problem.penalty], settings, log=f"fold {k + 1}"
        )
        scale = fitted_scale(replace(problem, valid=train), result)
        null = null_rates(loss, observed, train)
        chunks = rates(X, result.coef, result.intercept, loss, observed.offset, test)
        sums = _sum_up(family, observed, chunks, null, scale, likelihood=True)
        lost = _without_null(loss, null(np.flatnonzero(train)[:1]))
        values = sums.deviance_explained(), sums.bits_per_spike(), sums.log_likelihood
        scores.append([np.where(lost, np.nan, value) for value in values] + [result.status])
    return HeldOut(*map(np.array, zip(*scores, strict=True)))


def _without_null(loss, mean):
    """Receivers whose null model lies at infinity."""
    with np.errstate(divide="ignore", invalid="ignore"):
        eta = np.asarray(loss.eta(mean)).reshape(-1, mean.shape[-1])[0]
    low = -np.inf if loss.low is None else loss.low
    high = np.inf if loss.high is None else loss.high
    return ~np.isfinite(eta) | (eta <= low) | (eta >= high)


@dataclass
class _Sums:
    """Weighted sums over the scored bins of every receiver, each of shape (n_receivers,)."""

    events: np.ndarray
    deviance: np.ndarray
    null: np.ndarray  # deviance of the null model
    varies: np.ndarray  # bool: whether the counts do
    scale: np.ndarray
    log_likelihood: np.ndarray  # mean over the bins

    def deviance_explained(self):
        return 1 - _divide(self.deviance, np.where(self.varies, self.null, 0.0))

    def bits_per_spike(self):
        # The log likelihood is -deviance / (2 scale), besides what no model changes.
        gain = (self.null - self.deviance) / (2 * self.scale)
        return _divide(gain, self.events * np.log(2))


def _sums_of(fit: Fitted) -> _Sums:
    observed = Observed(fit.y, fit.weight, fit.offset)
    null = null_rates(fit.loss, observed, fit.kept)
    return _sum_up(fit.family, observed, fit.rates(), null, fit.scale)


def _sum_up(
    family: ObservationModel,
    observed: Observed,
    chunks: Iterator,
    null: Callable,
    scale: np.ndarray,
    likelihood: bool = False,
) -> _Sums:
    """Deviances chunk by chunk, and log likelihoods where they are asked for."""
    y: Events = observed.events
    events, deviance, base, total, size = np.zeros((5, y.n_units))
    low, high = np.full(y.n_units, np.inf), np.full(y.n_units, -np.inf)
    for index, mu in chunks:
        if index.size == 0:
            continue
        counts = y.rows(index)
        known = ~np.isnan(counts)
        weight = 1.0 if observed.weight is None else observed.weight[index, None]

        def add(values, known=known, weight=weight):
            # Receiver by receiver: bits must not depend on how many there are.
            values = np.where(known, weight * values, 0.0)
            return np.ascontiguousarray(values.T).sum(axis=1)

        with np.errstate(divide="ignore", invalid="ignore"):
            deviance += add(family.deviance(counts, mu))
            base += add(family.deviance(counts, null(index)))
            if likelihood:
                total += add(family.log_likelihood(counts, mu, scale))
        events += add(counts)
        size += add(1.0)
        low = np.fmin(low, np.fmin.reduce(counts, axis=0))
        high = np.fmax(high, np.fmax.reduce(counts, axis=0))
    if not family.event_based:
        events[:] = 0.0
    return _Sums(events, deviance, base, high > low, scale, _divide(total, size))


def _divide(a, b):
    """``a / b``, NaN where b is 0."""
    return np.where(b == 0, np.nan, a / np.where(b == 0, 1.0, b))


def read_fit(model, X, y, sample_weight=None, offset=None, needs=("sample_weight", "offset")):
    """The view of a fit with data; raises where there is no bin to look at."""
    fit = Fitted.of(model, X, y, sample_weight=sample_weight, offset=offset, needs=needs)
    if not fit.X.valid.any():
        raise ValueError(
            f"None of the {fit.X.shape[0]} rows of X is finite. A row needs a whole window of "
            "history in its epoch: use longer epochs or a shorter window."
        )
    return fit
