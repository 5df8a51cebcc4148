"""How much of the variation is explained, in the bins of the fit and in others."""

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln, xlogy
from sklearn.base import clone

from fastglm import _html
from fastglm._engine.fit import fit_penalties, mean_count
from fastglm._engine.observed import Observed
from fastglm.features.matrix import FeatureMatrix
from fastglm.model_selection import split

_ROUNDING = 1e-12


@dataclass
class HeldOut:
    """Scores of the bins that a fit has not seen, fold by fold.

    Attributes
    ----------
    deviance_explained : ndarray of shape (n_folds, n_receivers)
    bits_per_spike : ndarray of shape (n_folds, n_receivers)
    log_likelihood : ndarray of shape (n_folds, n_receivers)
        Mean over the held-out bins of ``y*log(mu) - mu - gammaln(y + 1)``.
    status : ndarray of str, shape (n_folds, n_receivers)
        How each fit ended, as ``status_`` of a model.
    """

    deviance_explained: np.ndarray
    bits_per_spike: np.ndarray
    log_likelihood: np.ndarray
    status: np.ndarray

    def __repr__(self):
        n_folds, n = self.status.shape
        return (
            f"HeldOut scores of {n:,} receivers in {n_folds} folds: deviance explained "
            f"{_html.span(self.deviance_explained)}, bits per spike "
            f"{_html.span(self.bits_per_spike)}; {_html.tally(self.status)}"
        )


def deviance_explained(model, X, y):
    """Part of the deviance that the model explains, receiver by receiver.

    ``1 - D / D0`` with the deviance ``D = 2 sum_t y log(y / mu) - (y - mu)`` and D0 that of each
    receiver's mean count over the same bins: 1 is perfect, 0 no better than the mean, and below
    is worse. For counts of mostly 0 and 1 even the true rate is far from 1.

    Parameters
    ----------
    model : PopulationGLM or GLM
        Fitted.
    X, y
        As in `fit`; any bins.

    Returns
    -------
    ndarray of shape (n_receivers,)
        NaN where the counts do not vary.

    Raises
    ------
    ValueError
        If X or y does not fit the model, or no row of X is finite.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> X = np.random.default_rng(0).normal(size=(1000, 2))
    >>> y = np.exp(X @ [[0.5], [-0.2]] + 0.1)  # nothing but the rate
    >>> fastglm.diagnostics.deviance_explained(fastglm.PopulationGLM().fit(X, y), X, y).round(6)
    array([1.])
    """
    X, y = _read(model, X, y)
    return _deviance_explained(_sums(model, X, y), None)


def bits_per_spike(model, X, y):
    """Information about each event that the model has beyond the mean count, in bits.

    ``(LL - LL0) / (n_events log 2)`` with the log-likelihood LL of the model and LL0 of each
    receiver's mean count over the same bins (Pillow et al., 2008).

    Parameters
    ----------
    model : PopulationGLM or GLM
        Fitted.
    X, y
        As in `fit`; any bins.

    Returns
    -------
    ndarray of shape (n_receivers,)
        NaN for a receiver without events.

    Raises
    ------
    ValueError
        If X or y does not fit the model, or no row of X is finite.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> X = np.repeat([[0.0], [1.0]], 500, axis=0)
    >>> y = np.repeat([[0.0], [2.0]], 500, axis=0)  # the rate doubles where events are
    >>> model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-9).fit(X, y)
    >>> fastglm.diagnostics.bits_per_spike(model, X, y).round(3)
    array([1.])
    """
    X, y = _read(model, X, y)
    return _bits_per_spike(_sums(model, X, y), None)


def cross_validated(model, X, y, folds=5):
    """Scores of held-out bins: the model is fitted again without each fold.

    The null model is the receiver's mean count over the bins of the fit, so a held-out score of 0
    is what a constant rate would have reached, and may be negative.

    Parameters
    ----------
    model : PopulationGLM or GLM
        Its parameters hold for every fit. Not changed, and need not be fitted.
    X, y
        As in `fit`.
    folds
        As in `fastglm.model_selection.cross_validate`: the same bins are fitted and scored, and
        no window reaches from one part into the other.

    Returns
    -------
    HeldOut
        NaN where a receiver has no events in the bins of the fit, and as in `deviance_explained`
        and `bits_per_spike`.

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
    X, y, free, settings = model._read(X, y)
    penalty = model._read_penalty(X, free)
    deviance, bits, log_likelihood, status = [], [], [], []
    for k, (train, test) in enumerate(split(X, folds, y.n_bins)):
        fold = clone(model)
        log = f"fold {k + 1}"
        observed = Observed(y)
        fold._finish(fit_penalties(X, observed, train, free, [penalty], settings, log=log)[0])
        null = mean_count(y, train)
        null[null == 0] = np.nan  # silent, or no bins: there is no null model
        sums = _sums(fold, FeatureMatrix(X.columns, test), y)
        deviance.append(_deviance_explained(sums, null))
        bits.append(_bits_per_spike(sums, null))
        log_likelihood.append(_divide(sums.model - sums.factorial, sums.n_bins))
        log_likelihood[-1][np.isnan(null)] = np.nan
        status.append(fold.status_)
    return HeldOut(*map(np.array, (deviance, bits, log_likelihood, status)))


@dataclass
class _Sums:
    """Sums over the scored bins of every receiver, each of shape (n_receivers,)."""

    n_bins: np.ndarray
    y: np.ndarray
    model: np.ndarray  # y log(mu) - mu
    perfect: np.ndarray  # y log(y) - y
    factorial: np.ndarray  # gammaln(y + 1)

    def null(self, rate):
        """``y log(rate) - rate`` for a constant rate; by default the mean count."""
        rate = _divide(self.y, self.n_bins) if rate is None else rate
        return xlogy(self.y, rate) - self.n_bins * rate


def _sums(model, X, y):
    n_bins, total = np.zeros(y.n_units), np.zeros(y.n_units)
    for index, mu in model._rates(X):
        counts = y.rows(index)
        known = ~np.isnan(counts)
        n_bins += known.sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            total += np.where(known, xlogy(counts, mu) - mu, 0.0).sum(axis=0)
    inside = X.valid[y.bins] & ~np.isnan(y.amplitudes)
    counts, units = y.amplitudes[inside], y.units[inside]
    perfect, factorial = xlogy(counts, counts) - counts, gammaln(counts + 1)
    sums = (np.bincount(units, value, y.n_units) for value in (counts, perfect, factorial))
    y_sum, perfect, factorial = sums
    return _Sums(n_bins, y_sum, total, perfect, factorial)


def _deviance_explained(sums, null_rate):
    whole = sums.perfect - sums.null(null_rate)
    # Counts that do not vary leave what rounding makes of zero.
    varies = whole > _ROUNDING * (np.abs(sums.perfect) + sums.y)
    return 1 - _divide(sums.perfect - sums.model, np.where(varies, whole, 0.0))


def _bits_per_spike(sums, null_rate):
    return _divide(sums.model - sums.null(null_rate), sums.y * np.log(2))


def _divide(a, b):
    """``a / b``, NaN where b is 0."""
    return np.where(b == 0, np.nan, a / np.where(b == 0, 1.0, b))


def _read(model, X, y):
    """X and y as the model reads them; raises on what does not fit it."""
    X = model._check_fitted(X)
    y = model._read_counts(y, X)
    n = model._coef().shape[1]
    if (y.n_bins, y.n_units) != (X.shape[0], n):
        raise ValueError(
            f"y has shape {(y.n_bins, y.n_units)}; expected (n_bins, n_receivers) = "
            f"{(X.shape[0], n)}."
        )
    if not X.valid.any():
        raise ValueError(
            f"None of the {X.shape[0]} rows of X is finite. A row needs a whole window of history "
            "in its epoch: use longer epochs or a shorter window."
        )
    return X, y
