"""Explained deviance and bits per spike, in the bins of the fit and in held-out bins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from fastglm import _html
from fastglm._batches.fit import fit_penalties
from fastglm._engine.observed import Observed
from fastglm._fitted import Fitted, fitted_scale, rates
from fastglm._inputs import Problem, read_problem
from fastglm._scores import Impossible, null_rates, warn_impossible
from fastglm.model_selection import split

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass
class HeldOut:
    """Scores of held-out bins, fold by fold.

    Attributes
    ----------
    deviance_explained : ndarray of shape (n_folds, n_receivers)
    bits_per_spike : ndarray of shape (n_folds, n_receivers)
        NaN for Gaussian observations, which are not events.
    log_likelihood : ndarray of shape (n_folds, n_receivers)
        Mean over the held-out bins, with its normalisation and the scale of the fit.
    status : ndarray of str, shape (n_folds, n_receivers)
        How each fit ended, as ``status_`` of a model.
    n_impossible : ndarray of int, shape (n_folds, n_receivers)
        Number of held-out bins to whose count the fit gives probability 0, such as an event inside
        the dead time that it has learned. One of them makes the scores minus infinity.
    possible : HeldOut or None
        The same scores without these bins; None if there are none.
    """

    deviance_explained: np.ndarray
    bits_per_spike: np.ndarray
    log_likelihood: np.ndarray
    status: np.ndarray
    n_impossible: np.ndarray | None = None
    possible: HeldOut | None = None

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
    skip_impossible: bool = False,
) -> np.ndarray:
    """Part of the deviance that the model explains, receiver by receiver.

    The value is ``1 - D / D0``. D is the deviance of the model, for Poisson observations
    ``2 sum_t y log(y / mu) - (y - mu)``. D0 is the deviance of the receiver's mean count over the
    same bins. A value of 1 is perfect, 0 is as good as the mean count, and a negative value is
    worse. For Gaussian observations the value is R2. For counts of mostly 0 and 1, even the true
    rate explains much less than 1.

    Parameters
    ----------
    model : PopulationGLM or GLM
        Fitted.
    X, y, sample_weight, offset
        As in `fit`, of any bins. With an offset, the null model is an intercept with the same
        offset.
    skip_impossible : bool, default False
        As in ``PopulationGLM.score``.

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
    return _possible(fit, skip_impossible).deviance_explained()


def bits_per_spike(
    model: object,
    X: object,
    y: object,
    *,
    sample_weight: ArrayLike | None = None,
    offset: ArrayLike | None = None,
    skip_impossible: bool = False,
) -> np.ndarray:
    """Information of the model about each event, beyond the mean count, in bits.

    The value is ``(LL - LL0) / (n_events log 2)``. LL is the log likelihood of the model, and LL0
    is the log likelihood of the receiver's mean count over the same bins (Pillow et al., 2008).

    Parameters
    ----------
    model, X, y, sample_weight, offset, skip_impossible
        As in `deviance_explained`.

    Returns
    -------
    ndarray of shape (n_receivers,)
        NaN for a receiver without events.

    Raises
    ------
    ValueError
        As in `deviance_explained`, or if the observations are Gaussian, which are not events.

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
            f"{fit.family.name} observations are not events; bits per spike need Poisson, "
            "Bernoulli or negative binomial observations. deviance_explained has no such limit."
        )
    return _possible(fit, skip_impossible).bits_per_spike()


def _possible(fit, skip):
    """The sums of a fit; with ``skip`` without impossible counts, else with a warning of them."""
    sums = explained(fit)
    if not sums.impossible.found:
        return sums
    if skip:
        return explained(sums.impossible.without(fit))
    what = "Scores are minus infinity; skip_impossible=True leaves these bins out"
    sums.impossible.warn(fit, what, level=4)
    return sums


def cross_validated(
    model: object,
    X: object,
    y: object,
    folds: object = 5,
    *,
    groups: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    offset: ArrayLike | None = None,
) -> HeldOut:
    """Scores of held-out bins: the model is fitted again without each fold.

    The null model is the receiver's mean count over the bins of the fit. A held-out score of 0 is
    therefore the score of a constant rate, and a negative score is worse.

    Parameters
    ----------
    model : PopulationGLM or GLM
        Its parameters hold for every fit. The model is not changed and need not be fitted.
    X, y, sample_weight, offset
        As in `fit`.
    folds, groups
        As in `fastglm.model_selection.cross_validate`. No window reaches from the fitted bins into
        the scored bins or back.

    Returns
    -------
    HeldOut
        NaN if all counts of the fit are 0, or for Bernoulli all 1, and in the cases of
        `deviance_explained` and `bits_per_spike`.

    Raises
    ------
    ValueError
        If X and y cannot be fitted, or a fold leaves no bins to fit or to score.

    Warns
    -----
    UserWarning
        If scores are minus infinity; ``possible`` of the result has them without the bins.

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
    parts = split(problem.X, folds, problem.y, groups=groups, places=problem.places)
    return held_out(problem, parts)


def held_out(problem: Problem, parts: Iterable, what: str = "") -> HeldOut:
    """The `HeldOut` scores of some pairs of bins to fit and bins to score, as `split` gives them.

    ``what`` names the model in the log. A warning points to the caller's caller.
    """
    y, kept = problem.y, problem.valid
    scores = [
        _score_fold(problem, train & kept, test & kept, log=f"{what}fold {k + 1}")
        for k, (train, test) in enumerate(parts)
    ]
    first, second, third, status, number, *possible = map(np.array, zip(*scores, strict=True))
    if not number.any():
        return HeldOut(first, second, third, status, number)
    sentence = "Held-out scores are minus infinity; `possible` has them without these bins"
    warn_impossible(number.sum(axis=0), y.columns, sentence, level=4)
    possible = HeldOut(*possible, status, np.zeros_like(number))
    return HeldOut(first, second, third, status, number, possible)


def _score_fold(problem, train, test, log):
    """Scores, statuses and numbers of impossible counts of one fold, and the scores without them.

    The fit is to the bins ``train``, and the scores are of the bins ``test``.
    """
    X, observed, settings, y = problem.X, problem.observed, problem.settings, problem.y
    loss = settings.loss
    (result,) = fit_penalties(
        X, observed, train, problem.free, [problem.penalty], settings, log=log
    )
    scale = fitted_scale(replace(problem, valid=train), result)
    loss = loss.at(scale)
    null = null_rates(loss, observed, train)
    lost = _without_null(loss, null(np.flatnonzero(train)[:1]))

    def held_out(observed):
        chunks = rates(X, result.coef, result.intercept, loss, observed.offset, test)
        family = loss.observation_model
        sums = _sum_up(family, observed, test, chunks, null, scale, likelihood=True)
        values = sums.deviance_explained(), sums.bits_per_spike(), sums.log_likelihood
        return [np.where(lost, np.nan, value) for value in values], sums.impossible

    values, impossible = held_out(observed)
    possible = values
    if impossible.found:
        possible, _ = held_out(Observed(impossible.forget(y), observed.weight, observed.offset))
    number = np.where(lost, 0, impossible.number(y.n_units))
    return (*values, result.status, number, *possible)


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

    deviance: np.ndarray
    null: np.ndarray  # deviance of the null model
    varies: np.ndarray  # bool: whether the counts vary
    events: np.ndarray  # 0 if counts are not events
    dispersion: np.ndarray
    log_likelihood: np.ndarray  # mean over the bins
    impossible: Impossible

    def deviance_explained(self):
        return 1 - _divide(self.deviance, np.where(self.varies, self.null, 0.0))

    def bits_per_spike(self):
        # The log likelihood is -deviance / (2 dispersion) plus terms that all models share.
        gain = (self.null - self.deviance) / (2 * self.dispersion)
        return _divide(gain, self.events * np.log(2))


def explained(fit: Fitted) -> _Sums:
    """The sums behind deviance explained and bits per spike, in one pass over the bins."""
    observed = Observed(fit.y, fit.weight, fit.offset)
    null = null_rates(fit.loss, observed, fit.kept)
    return _sum_up(fit.family, observed, fit.kept, fit.rates(), null, fit.scale)


def _sum_up(family, observed, kept, chunks, null, scale, likelihood=False) -> _Sums:
    """Sums of deviances chunk by chunk, and of log likelihoods with ``likelihood``.

    ``chunks`` are bins and means of the ``kept`` bins; ``null`` gives the means of the null model.
    """
    y = observed.events
    deviance, base, total = np.zeros((3, y.n_units))
    low, high = np.full(y.n_units, np.inf), np.full(y.n_units, -np.inf)
    counted, impossible = _Counted(observed, kept), Impossible()
    # If the null mean is the same in all bins, bins without an event enter by their number. For
    # Gaussian observations sums of this kind would cancel.
    constant = observed.offset is None and family.event_based
    for index, mu in chunks:
        if index.size == 0:
            continue
        counts = y.rows(index)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = family.unit_deviance(counts, mu, scale)
            value = impossible.add(index, counts, mu, value, np.inf)
            deviance += _total(value, observed.weight, index)
            if not constant:
                value = family.unit_deviance(counts, null(index), scale)
                base += _total(value, observed.weight, index)
            if likelihood:
                value = family.log_probability(counts, mu, scale)
                value = np.where(np.isinf(mu) & ~np.isnan(counts), -np.inf, value)
                total += _total(value, observed.weight, index)
        if not family.event_based:
            low = np.fmin(low, np.fmin.reduce(counts, axis=0))
            high = np.fmax(high, np.fmax.reduce(counts, axis=0))
    if constant:
        base = counted.deviance(family, null(np.flatnonzero(kept)[:1]), scale)
    varies = counted.vary() if family.event_based else high > low
    events = counted.sum if family.event_based else np.zeros(y.n_units)
    size = counted.size
    dispersion, mean = family.dispersion(scale), _divide(total, size)
    return _Sums(deviance, base, varies, events, dispersion, mean, impossible)


def _total(values, weight, index):
    """Weighted sum over the bins whose count is known, (n_receivers,)."""
    if weight is not None:
        values = weight[index, None] * values
    # Receiver by receiver: the bits of a sum must not depend on the number of receivers.
    return np.nansum(np.ascontiguousarray(values.T), axis=1)


class _Counted:
    """Sums that depend on the counts of some bins alone, from their events.

    For Gaussian observations only ``size`` is valid, because their numbers are not listed as
    events.
    """

    def __init__(self, observed, kept):
        y, weight = observed.events, observed.weight
        inside = kept[y.bins]
        self.units, self.counts, self.n = y.units[inside], y.amplitudes[inside], y.n_units
        self.weights = np.ones(self.units.size) if weight is None else weight[y.bins[inside]]
        self.known = ~np.isnan(self.counts)
        whole = float(kept.sum()) if weight is None else weight[kept].sum()
        self.size = whole - self._add(np.where(self.known, 0.0, self.weights))
        self.sum = self._add(np.where(self.known, self.weights * self.counts, 0.0))
        empty = self.size - self._add(np.where(self.known, self.weights, 0.0))
        self.empty = np.where(empty > 1e-12 * self.size, empty, 0.0)  # weight of bins of count 0

    def _add(self, values):
        return np.bincount(self.units, values, self.n)

    def vary(self):
        """Whether a receiver has two different counts, (n_receivers,)."""
        low, high = np.full(self.n, np.inf), np.full(self.n, -np.inf)
        np.fmin.at(low, self.units, self.counts)
        np.fmax.at(high, self.units, self.counts)
        return np.where(self.empty > 0, np.fmax(high, 0) > np.fmin(low, 0), high > low)

    def deviance(self, family, mean, scale):
        """Deviance from one mean of every receiver."""
        mean, units = np.broadcast_to(mean, (1, self.n))[0], self.units
        with np.errstate(divide="ignore", invalid="ignore"):
            empty = np.where(
                self.empty > 0, self.empty * family.unit_deviance(0.0, mean, scale), 0.0
            )
            value = self.weights * family.unit_deviance(self.counts, mean[units], scale[units])
        return empty + self._add(np.where(self.known, value, 0.0))


def _divide(a, b):
    """``a / b``, NaN where b is 0."""
    return np.where(b == 0, np.nan, a / np.where(b == 0, 1.0, b))


def read_fit(
    model: object,
    X: object,
    y: object,
    sample_weight: ArrayLike | None = None,
    offset: ArrayLike | None = None,
    needs: tuple[str, ...] = ("sample_weight", "offset"),
) -> Fitted:
    """The fit with its data; raises if no row of X is valid."""
    fit = Fitted.of(model, X, y, sample_weight=sample_weight, offset=offset, needs=needs)
    if not fit.X.valid.any():
        raise ValueError(
            f"None of the {fit.X.shape[0]} rows of X is finite. A row needs a whole window of "
            "history in its epoch: use longer epochs or a shorter window."
        )
    return fit
