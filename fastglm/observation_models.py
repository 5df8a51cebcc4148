"""Observation models: distributions of the counts around their predicted mean.

An `ObservationModel` is a family. It gives log likelihood, deviance, residuals and scale as
functions of the counts y and their mean mu. A `Loss` is a family with a link. It gives the mean
``mu(eta)`` and the loss of a bin with its derivatives as functions of ``eta = b + x.c``. The fit
minimises the loss:

    log p(y | mu, scale) = -precision(scale) * loss(eta, y) + terms without eta

==========  =========  ========================  ==============================================
family      link       mean                      loss
==========  =========  ========================  ==============================================
Poisson     exp        ``exp(eta)``              ``mu - y * log(mu)``
Poisson     softplus   ``log(1 + exp(eta))``     ``mu - y * log(mu)``
Bernoulli   logistic   ``1 / (1 + exp(-eta))``   ``-y * log(mu) - (1 - y) * log(1 - mu)``
Bernoulli   cloglog    ``1 - exp(-exp(eta))``    ``-y * log(mu) - (1 - y) * log(1 - mu)``
Gaussian    identity   ``eta``                   ``(y - mu)**2``
==========  =========  ========================  ==============================================

Names, links and losses are the same as in NeMoS, so that a strength of a regularizer means the
same. A new family takes one `ObservationModel` here, and one `Loss` and one pointwise kernel for
each of its links.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import bernoulli, expit, factorial, gammaln, logit, xlog1py, xlogy
from sklearn.base import BaseEstimator

from fastglm import _kernels as kernels
from fastglm._checks import check_choice, shown

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_LOWEST = -700.0  # eta whose exponential has not underflowed
LOG_ZERO = -50.0  # eta that stands for a mean of zero: exp(-50) = 2e-22 events per bin

# --- losses: the engine sees these ---------------------------------------------------------------


class Loss:
    """Pointwise loss of a bin as a function of eta, with its derivatives.

    Parameters
    ----------
    observation_model : ObservationModel, optional
        The family with its parameters. Default: made from ``family``.

    Attributes
    ----------
    family, link : str
        Names.
    linear_counts : bool
        ``loss = cumulant(eta) - count_factor * y * eta + constant(y)``. The counts then enter
        objective and gradient through ``X'Y`` alone, and the kernel does not read them.
    count_factor : float
    exponential : bool
        The cumulant, the mean and the curvature are all ``exp(eta)``.
    constant_curvature : bool
        The curvature is 2 everywhere.
    kernel : callable
        The compiled loss and residual of a chunk. Its argument for the bins holds weights; that
        of `fastglm._kernels.poisson_exp` holds booleans, and its weights are part of eta. A loss
        without a kernel is computed in NumPy from `derivatives`.
    simulator : callable
        The compiled simulation of a recurrent network; see `fastglm._kernels.simulate`. A loss
        without one is drawn in NumPy.
    low, high : float or None
        Eta that stands for an optimum at minus or plus infinity; None where the loss has no such
        optimum.
    pace : function of eta, or None
        ``|d log(loss) / d eta|`` where the loss goes to 0. None where it is at most 1. A Newton
        step along a direction in which the loss falls to 0 changes eta by one over it.
    eta_name : str
        Name of eta in tables and pictures of couplings.
    multiplied : str or None
        Name of the quantity that a change of eta by h multiplies by ``exp(h)``; None where there is
        no such quantity.
    """

    family = link = multiplied = None
    eta_name = "input"
    linear_counts = exponential = constant_curvature = False
    count_factor = 1.0
    low = high = pace = None
    kernel = simulator = None

    def __init__(self, observation_model: ObservationModel | None = None) -> None:
        self.observation_model = as_observation_model(observation_model or self.family)

    @property
    def key(self) -> tuple:
        """Family, link and parameters of the family, as texts and numbers."""
        params = self.observation_model.get_params()
        return self.family, self.link, *(v for item in sorted(params.items()) for v in item)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __eq__(self, other):
        same = type(self) is type(other)
        return same and self.observation_model == other.observation_model

    def __hash__(self):
        return hash((type(self), self.observation_model))

    def mean(self, eta: ArrayLike) -> np.ndarray:
        """Mean mu of the counts."""
        raise NotImplementedError

    def eta(self, mean: ArrayLike) -> np.ndarray:
        """Inverse of `mean`: minus or plus infinity at the ends of the range of the mean."""
        raise NotImplementedError

    def slope(self, eta: ArrayLike) -> np.ndarray:
        """Derivative of `mean`."""
        raise NotImplementedError

    def cumulant(self, eta: ArrayLike) -> np.ndarray:
        """The terms of the loss without counts; only where ``linear_counts`` is True."""
        raise NotImplementedError(f"The counts are not linear in the loss of {self!r}.")

    def derivatives(
        self, eta: ArrayLike, y: ArrayLike
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Loss, residual and curvature: the loss and its two derivatives with respect to eta.

        The curvature is the observed curvature. It is at least 0.
        """
        raise NotImplementedError

    def expected_curvature(self, eta: ArrayLike) -> np.ndarray:
        """Mean of the curvature over counts drawn from the model."""
        raise NotImplementedError

    def constant(self, y: ArrayLike) -> np.ndarray:
        """Terms of the loss without eta; only where ``linear_counts`` is True."""
        return np.zeros(np.shape(y))

    def ends(self, sum_y: ArrayLike, n: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Receivers whose optimal intercept lies at infinity.

        Parameters
        ----------
        sum_y : array_like of shape (n_receivers,)
            Sum of (weighted) counts over the bins of the fit.
        n : float or array_like of shape (n_receivers,)
            Number of bins of the fit, or sum of their weights.

        Returns
        -------
        status : ndarray of str, shape (n_receivers,)
            "silent" where no count is above 0, "saturated" where every count is 1, else "".
        eta : ndarray of shape (n_receivers,)
            `low` for silent and `high` for saturated receivers; for all others the optimal
            intercept without features, ``eta(sum_y / n)``.
        """
        sum_y, n = np.broadcast_arrays(np.asarray(sum_y, float), np.asarray(n, float))
        status = np.full(sum_y.shape, "", "<U9")
        with np.errstate(divide="ignore", invalid="ignore"):
            eta = np.asarray(self.eta(sum_y / n), float).copy()
        if self.high is not None:
            saturated = n - sum_y <= 1e-12 * n  # weights leave a rounding error
            status[saturated], eta[saturated] = "saturated", self.high
        if self.low is not None:
            silent = sum_y == 0
            status[silent], eta[silent] = "silent", self.low
        return status, eta

    def separated(
        self, x: np.ndarray, xty: np.ndarray, nonnegative: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Features whose optimal coefficient lies at infinity, whatever the other features are.

        Take a feature that is never negative and not always 0. Its coefficient runs to minus
        infinity if the feature is 0 in every bin with an event, ``X'y = 0``. If no count is above
        1, the coefficient runs to plus infinity where the feature is 0 in every bin without an
        event, ``X'(1 - y) = 0``.

        Parameters
        ----------
        x : ndarray of shape (n_features,) or (n_features, n_receivers)
            ``X'1`` over the bins of the fit.
        xty : ndarray of shape (n_features, n_receivers)
            ``X'y``.
        nonnegative : ndarray of bool, shape (n_features,)

        Returns
        -------
        low, high : ndarray of bool, shape (n_features, n_receivers)
        """
        x = x[:, None] if x.ndim == 1 else x
        active = nonnegative[:, None] & (x > 0)
        never = np.zeros(xty.shape, bool)
        low = never if self.low is None else active & (xty <= 1e-12 * x)
        high = never if self.high is None else active & (x - xty <= 1e-12 * x)
        return low, high


def _raised(eta):
    """eta, raised to where its exponential has not underflowed, and by how much.

    Below, the logarithm of a mean ``exp(eta)`` is eta.
    """
    raised = np.maximum(eta, _LOWEST)
    return raised, np.minimum(raised - eta, 1e30)  # finite: times a count of 0


class PoissonExp(Loss):
    """``mu = exp(eta)``: loss ``mu - y * eta``, residual ``mu - y``, curvature ``mu``."""

    family, link = "Poisson", "exp"
    eta_name, multiplied = "log rate", "rate"
    linear_counts = exponential = True
    low = LOG_ZERO
    kernel = staticmethod(kernels.poisson_exp)
    simulator = staticmethod(kernels.simulate_poisson_exp)

    def mean(self, eta: ArrayLike) -> np.ndarray:
        """Expected events per bin; inf where exp overflows."""
        with np.errstate(over="ignore"):
            return np.exp(eta)

    slope = cumulant = expected_curvature = mean

    def eta(self, mean: ArrayLike) -> np.ndarray:
        """``log(mean)``."""
        with np.errstate(divide="ignore"):
            return np.log(mean)

    def derivatives(
        self, eta: ArrayLike, y: ArrayLike
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Loss, residual and curvature of every bin."""
        mu = self.mean(eta)
        return mu - y * eta, mu - y, mu


class PoissonSoftplus(Loss):
    """``mu = s(eta) = log(1 + exp(eta))``: loss ``s - y * log(s)``, which is convex in eta."""

    family, link = "Poisson", "softplus"
    low = LOG_ZERO
    kernel = staticmethod(kernels.poisson_softplus)
    simulator = staticmethod(kernels.simulate_poisson_softplus)

    def mean(self, eta: ArrayLike) -> np.ndarray:
        """Expected events per bin."""
        return np.logaddexp(0.0, eta)

    def eta(self, mean: ArrayLike) -> np.ndarray:
        """``log(exp(mean) - 1)``."""
        with np.errstate(divide="ignore"):
            return mean + np.log(-np.expm1(-mean))

    def slope(self, eta: ArrayLike) -> np.ndarray:
        """The logistic function."""
        return expit(eta)

    def derivatives(
        self, eta: ArrayLike, y: ArrayLike
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Loss, residual and curvature of every bin."""
        eta, below = _raised(eta)
        mu = self.mean(eta)
        slope = np.exp(eta - mu)  # logistic function
        ratio = slope / mu
        curvature = slope * (1 - slope) - y * ratio * (1 - slope - ratio)
        return (
            mu - y * (np.log(mu) - below),
            slope - y * ratio,
            np.maximum(curvature, 0.0),
        )

    def expected_curvature(self, eta: ArrayLike) -> np.ndarray:
        """``s'^2 / s``."""
        eta = np.maximum(eta, -80)
        mu = self.mean(eta)
        slope = np.exp(eta - mu)
        return slope * slope / mu


class BernoulliLogistic(Loss):
    """``mu = 1 / (1 + exp(-eta))``: loss ``log(1 + exp(eta)) - y * eta``, residual ``mu - y``.

    Loss and residual are computed from ``exp(-|eta|)``, so that they keep their digits at both
    ends: at eta = 50 and y = 1 they are 2e-22 and -2e-22. The curvature is ``mu * (1 - mu)``.
    """

    family, link = "Bernoulli", "logistic"
    eta_name, multiplied = "log odds", "odds"
    linear_counts = True
    low, high = LOG_ZERO, 50.0  # 1 - mu = 2e-22
    kernel = staticmethod(kernels.bernoulli_logistic)
    simulator = staticmethod(kernels.simulate_bernoulli_logistic)

    def mean(self, eta: ArrayLike) -> np.ndarray:
        """Probability of an event."""
        return expit(eta)

    def eta(self, mean: ArrayLike) -> np.ndarray:
        """``log(mean / (1 - mean))``."""
        return logit(mean)

    def slope(self, eta: ArrayLike) -> np.ndarray:
        """``mu * (1 - mu)``."""
        return expit(eta) * expit(-np.asarray(eta))

    expected_curvature = slope

    def cumulant(self, eta: ArrayLike) -> np.ndarray:
        """``log(1 + exp(eta))``."""
        return np.logaddexp(0.0, eta)

    def derivatives(
        self, eta: ArrayLike, y: ArrayLike
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Loss, residual and curvature of every bin."""
        eta = np.asarray(eta)
        up, down = expit(eta), expit(-eta)
        loss = _times(1 - y, np.maximum(eta, 0.0)) + _times(y, np.maximum(-eta, 0.0))
        loss = loss + np.log1p(np.exp(-np.abs(eta)))
        return loss, (1 - y) * up - y * down, up * down * np.ones_like(y, float)


class BernoulliCloglog(Loss):
    """``mu = 1 - exp(-m)``, ``m = exp(eta)``: whether a Poisson count with mean m is above 0.

    With ``r = m / (exp(m) - 1)``, loss, residual and curvature are

    - ``m``, ``m`` and ``m`` where y = 0;
    - ``-log(mu)``, ``-r`` and ``r * (m / mu - 1)`` where y = 1.

    They are linear in y between 0 and 1. Their relative errors are below 1e-12 from eta = -50 to
    eta = 6, where ``exp(-m)`` is 6e-176. The loss is convex in eta.
    """

    family, link = "Bernoulli", "cloglog"
    eta_name, multiplied = "log rate", "rate"
    low, high = LOG_ZERO, 4.0  # 1 - mu = exp(-exp(4)) = 2e-24
    kernel = staticmethod(kernels.bernoulli_cloglog)
    simulator = staticmethod(kernels.simulate_bernoulli_cloglog)

    def mean(self, eta: ArrayLike) -> np.ndarray:
        """Probability of an event."""
        return -np.expm1(-_exp(eta))

    def eta(self, mean: ArrayLike) -> np.ndarray:
        """``log(-log(1 - mean))``."""
        with np.errstate(divide="ignore"):
            return np.log(-np.log1p(-np.asarray(mean)))

    def slope(self, eta: ArrayLike) -> np.ndarray:
        """``m * exp(-m)``."""
        return np.exp(np.asarray(eta) - _exp(eta))

    def derivatives(
        self, eta: ArrayLike, y: ArrayLike
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Loss, residual and curvature of every bin."""
        eta, below = _raised(eta)
        m = _exp(eta)
        finite = np.minimum(m, 1000.0)  # exp(-1000) is 0: keeps inf * 0 away
        mu = -np.expm1(-finite)
        r = finite * np.exp(-finite) / mu
        # -log(mu): near mu = 1 from 1 - mu, near mu = 0 from mu (Maechler, 2012, "log1mexp").
        with np.errstate(divide="ignore"):
            loss = np.where(m > np.log(2), -np.log1p(-np.exp(-finite)), -np.log(mu))
        loss += below
        silent = _times(1 - y, m)
        return silent + y * loss, silent - y * r, silent + y * r * _excess(finite, mu)

    def pace(self, eta: ArrayLike) -> np.ndarray:
        """m, from 1 to 100: the loss of y = 1 ends as ``exp(-m)``.

        A bin with a larger m adds nothing to any sum.
        """
        return np.exp(np.clip(eta, 0.0, np.log(100.0)))

    def expected_curvature(self, eta: ArrayLike) -> np.ndarray:
        """``slope^2 / (mu * (1 - mu)) = m^2 / (exp(m) - 1)``."""
        m = np.minimum(_exp(np.maximum(eta, -80.0)), 1000.0)  # not 0 in float32
        return m * (m * np.exp(-m) / -np.expm1(-m))


class GaussianIdentity(Loss):
    """``mu = eta``: loss ``(y - mu)**2``, residual ``2 * (mu - y)``, curvature 2."""

    family, link = "Gaussian", "identity"
    eta_name = "mean"
    linear_counts = constant_curvature = True
    count_factor = 2.0
    kernel = staticmethod(kernels.gaussian_identity)
    simulator = staticmethod(kernels.simulate_gaussian_identity)

    def mean(self, eta: ArrayLike) -> np.ndarray:
        """``eta``."""
        return eta

    def eta(self, mean: ArrayLike) -> np.ndarray:
        """``mean``."""
        return mean

    def slope(self, eta: ArrayLike) -> np.ndarray:
        """1."""
        return np.ones_like(eta, float)

    def cumulant(self, eta: ArrayLike) -> np.ndarray:
        """``eta**2``."""
        return np.square(eta)

    def derivatives(
        self, eta: ArrayLike, y: ArrayLike
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Loss, residual and curvature of every bin."""
        difference = eta - y
        return difference * difference, 2 * difference, np.full(np.shape(difference), 2.0)

    def expected_curvature(self, eta: ArrayLike) -> np.ndarray:
        """2."""
        return np.full(np.shape(eta), 2.0)

    def constant(self, y: ArrayLike) -> np.ndarray:
        """``y**2``."""
        return np.square(y)


def _exp(eta):
    with np.errstate(over="ignore"):
        return np.exp(eta)


def _times(y, x):
    """``y * x`` with ``0 * inf = 0``."""
    with np.errstate(invalid="ignore"):
        return np.where(y == 0, 0.0, y * x)


# m / (1 - exp(-m)) = 1 + m / 2 + sum_k B_2k m^2k / (2k)!, with Bernoulli's numbers.
_EVEN = np.arange(2, 18, 2)
_BERNOULLI = bernoulli(16)[_EVEN] / factorial(_EVEN)


def _excess(m, mu):
    """``m / mu - 1`` for ``mu = 1 - exp(-m)``: a series below 0.5, where the terms cancel."""
    square = np.minimum(m, 0.5) ** 2
    series = np.zeros_like(square)
    for coefficient in _BERNOULLI[::-1]:
        series = (series + coefficient) * square
    return np.where(m < 0.5, m / 2 + series, m / mu - 1)


RESIDUAL_KINDS = ("response", "pearson", "deviance")

# --- families -----------------------------------------------------------------------------------


def pseudo_r2(model: ArrayLike, null: ArrayLike) -> float | np.ndarray:
    """``1 - model / null`` of two sums; NaN where the null model is perfect."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return 1 - np.where(np.equal(null, 0), np.nan, np.divide(model, null))[()]


class ObservationModel(BaseEstimator):
    """A family of distributions of the counts of a bin, given their mean.

    y and mu are arrays of shape (n_bins,) or (n_bins, n_receivers). NaN is an unknown count.
    ``scale`` is a float or an array of shape (n_receivers,).

    Attributes
    ----------
    name : str
    losses : dict of str to type
        Class of the loss of every link; the first link is the default.
    estimates_scale : bool
        The scale is estimated after the fit. If False, it is 1.
    event_based : bool
        Counts are events, so that time rescaling applies.
    whole : bool
        y must hold whole numbers.
    largest : int or None
        The largest count that is possible, if there is one.
    simulated_link : str or None
        Default link of `fastglm.simulation.simulate_recurrent`, if it is not that of a fit.
    """

    name = None
    losses = {}  # noqa: RUF012
    estimates_scale = False
    event_based = True
    whole = False
    largest = simulated_link = None

    def __eq__(self, other):
        return type(self) is type(other) and self.get_params() == other.get_params()

    def __hash__(self):
        return hash((type(self), tuple(sorted(self.get_params().items()))))

    def loss(self, link: str | Callable | None = None) -> Loss:
        """The `Loss` with a link, by default the first of ``losses``.

        Raises
        ------
        ValueError
            If the family has no such link.
        """
        name = next(iter(self.losses)) if link is None else _link_name(link)
        if name not in self.losses:
            names = ", ".join(map(repr, self.losses))
            raise ValueError(
                f"inverse_link_function is {shown(link)}; {self.name} observations take {names} "
                "or a function of that name."
            )
        return self.losses[name](self)

    def check(self, values: np.ndarray, bins: np.ndarray, receivers: np.ndarray) -> None:
        """Raise ValueError if the family has no such count.

        Parameters
        ----------
        values, bins, receivers : ndarray of shape (n_entries,)
            Known counts, and the bin and receiver of each count. Zeros may be left out.
        """
        raise NotImplementedError

    def log_likelihood(self, y: ArrayLike, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """``log p(y | mu, scale)`` of every entry, with its normalisation."""
        raise NotImplementedError

    def deviance(self, y: ArrayLike, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """Unscaled deviance of every entry, ``2 * scale * (log p(y | y) - log p(y | mu))``."""
        raise NotImplementedError

    def variance(self, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """Variance of y."""
        raise NotImplementedError

    def sample(self, rng: np.random.Generator, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """Counts drawn with a `numpy.random.Generator`, shape of mu."""
        raise NotImplementedError

    def probability_of_event(self, mu: ArrayLike) -> np.ndarray:
        """Probability of a count above 0.

        Raises
        ------
        ValueError
            If counts of the family are not events.
        """
        raise ValueError(
            f"{self.name} observations are not events; rescaled times and probabilities of an "
            "event need Poisson or Bernoulli observations."
        )

    def hazard(self, mu: ArrayLike) -> np.ndarray:
        """``-log P(y = 0)``: the rescaled time of a bin.

        Raises
        ------
        ValueError
            If counts of the family are not events.
        """
        with np.errstate(divide="ignore"):
            return -np.log1p(-self.probability_of_event(mu))

    def residuals(
        self, y: ArrayLike, mu: ArrayLike, kind: str = "response", scale: ArrayLike = 1.0
    ) -> np.ndarray:
        """Residuals of every entry.

        Parameters
        ----------
        y, mu : ndarray
        kind : {"response", "pearson", "deviance"}
            ``y - mu``; ``(y - mu) / sqrt(variance)``, with the scale in the variance; or
            ``sign(y - mu) * sqrt(deviance / scale)``.
        scale : float or ndarray of shape (n_receivers,)
            With the fitted scale, Pearson and deviance residuals have a variance near 1.
            ``resid_pearson`` and ``resid_deviance`` of statsmodels have scale 1;
            ``family.resid_dev(y, mu, scale=scale)`` of statsmodels divides as here.

        Raises
        ------
        ValueError
            If the kind is not known.
        """
        check_choice("kind", kind, RESIDUAL_KINDS)
        if kind == "response":
            return y - mu
        with np.errstate(divide="ignore", invalid="ignore"):
            if kind == "pearson":
                variance = self.variance(mu, scale)
                residual = (y - mu) / np.sqrt(variance)
                # 0 / 0 where the mean has underflowed, or is at its end: the limit is 0.
                return np.where((variance == 0) & (y == mu), 0.0, residual)
            deviance = np.maximum(self.deviance(y, mu), 0) / scale
            return np.sign(y - mu) * np.sqrt(deviance)

    def pseudo_r2(
        self,
        y: ArrayLike,
        mu: ArrayLike,
        score_type: str = "pseudo-r2-McFadden",
        scale: ArrayLike = 1.0,
        aggregate: Callable = np.mean,
    ) -> float | np.ndarray:
        """Pseudo-R2 as in NeMoS: the null model is the mean of y of each receiver.

        Parameters
        ----------
        y, mu : ndarray of shape (n_bins,) or (n_bins, n_receivers)
            Without NaN, unless the aggregate skips NaN.
        score_type : {"pseudo-r2-McFadden", "pseudo-r2-Cohen"}
            McFadden: ``1 - LL / LL0`` of the log likelihoods, both with the fitted scale (D.
            McFadden, "Conditional logit analysis of qualitative choice behavior", 1974). Cohen:
            ``1 - D / D0`` of the deviances (Cohen et al., "Applied multiple
            regression/correlation analysis", 3rd edition, 2002, p. 502).
        scale : float or ndarray of shape (n_receivers,)
        aggregate : callable, default np.mean
            Function of the values of all entries; log likelihoods or deviances are compared after
            it.

        Returns
        -------
        float, or ndarray
            NaN where the null model is perfect, as for a silent receiver.

        Raises
        ------
        ValueError
            If the score type is not known.
        """
        check_choice("score_type", score_type, ("pseudo-r2-McFadden", "pseudo-r2-Cohen"))
        null = np.broadcast_to(np.nanmean(y, axis=0), np.shape(y))
        cohen = score_type == "pseudo-r2-Cohen"
        model, base = (
            aggregate(self.deviance(y, m) if cohen else self.log_likelihood(y, m, scale))
            for m in (mu, null)
        )
        return pseudo_r2(model, base)

    def scale(self, y: ArrayLike, mu: ArrayLike, n_free: ArrayLike) -> float | np.ndarray:
        """Scale of each receiver, by `scale_from`; NaN entries are skipped.

        Parameters
        ----------
        y, mu : ndarray of shape (n_bins,) or (n_bins, n_receivers)
        n_free : int or ndarray of shape (n_receivers,)
            Number of free coefficients, the intercept included.
        """
        deviance = self.deviance(y, mu)
        n = (~np.isnan(deviance)).sum(axis=0)
        return self.scale_from(np.nansum(deviance, axis=0), n, n_free)

    def scale_from(
        self, deviance: ArrayLike, n: ArrayLike, n_free: ArrayLike
    ) -> float | np.ndarray:
        """Scale of each receiver from the sum of its deviance over its n bins: 1.

        The sum can be taken chunk by chunk.
        """
        return np.ones(np.broadcast_shapes(*map(np.shape, (deviance, n, n_free))))[()]

    def precision(self, scale: ArrayLike) -> float | np.ndarray:
        """Factor a with ``log_likelihood = -a * loss + terms without eta``: 1."""
        return np.ones(np.shape(scale))[()]


class PoissonObservations(ObservationModel):
    """Counts with ``P(y) = exp(-mu) * mu**y / y!``: variance mu, scale 1.

    Counts that are not whole numbers are accepted; ``gamma(y + 1)`` then replaces ``y!``.

    Examples
    --------
    >>> from fastglm.observation_models import PoissonObservations
    >>> PoissonObservations().loss("softplus")
    PoissonSoftplus()
    """

    name = "Poisson"
    losses = {"exp": PoissonExp, "softplus": PoissonSoftplus}  # noqa: RUF012
    simulated_link = "softplus"

    def check(self, values: np.ndarray, bins: np.ndarray, receivers: np.ndarray) -> None:
        """Raise ValueError where a count is infinite or negative."""
        place = _first(np.isinf(values), values, bins, receivers)
        if place:
            raise ValueError(
                "y holds infinite counts; expected finite numbers or NaN (bin left out). For "
                f"Poisson observations the first is {place}."
            )
        place = _first(values < 0, values, bins, receivers)
        if place:
            raise ValueError(
                "y holds negative counts; expected the number of events in each bin. For Poisson "
                f"observations the first is {place}."
            )

    def log_likelihood(self, y: ArrayLike, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """``y * log(mu) - mu - gammaln(y + 1)`` of every entry, with ``0 * log(0) = 0``."""
        return xlogy(y, mu) - mu - gammaln(y + 1)

    def deviance(self, y: ArrayLike, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """``2 * (y * log(y / mu) - (y - mu))`` of every entry, with ``0 * log(0) = 0``."""
        return 2 * (xlogy(y, y) - xlogy(y, mu) - (y - mu))

    def variance(self, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """``mu``."""
        return mu

    def sample(self, rng: np.random.Generator, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """Counts, int64."""
        return np.asarray(rng.poisson(mu), np.int64)

    def probability_of_event(self, mu: ArrayLike) -> np.ndarray:
        """``1 - exp(-mu)``."""
        return -np.expm1(-np.asarray(mu))

    def hazard(self, mu: ArrayLike) -> np.ndarray:
        """``mu``."""
        return mu


class BernoulliObservations(ObservationModel):
    """An event or none, with ``P(y = 1) = mu``: variance ``mu * (1 - mu)``, scale 1.

    Examples
    --------
    >>> from fastglm.observation_models import BernoulliObservations
    >>> BernoulliObservations().loss()
    BernoulliLogistic()
    """

    name = "Bernoulli"
    losses = {"logistic": BernoulliLogistic, "cloglog": BernoulliCloglog}  # noqa: RUF012
    largest = 1
    whole = True

    def check(self, values: np.ndarray, bins: np.ndarray, receivers: np.ndarray) -> None:
        """Raise ValueError where a count is neither 0 nor 1."""
        bad = (values != 0) & (values != 1) & ~np.isnan(values)
        place = _first(bad, values, bins, receivers)
        if place:
            remedy = " Pass counts.clip(max=1)?" if _only_above(values[bad]) else ""
            raise ValueError(f"y holds {place}; Bernoulli observations are 0 or 1.{remedy}")

    def log_likelihood(self, y: ArrayLike, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """``y * log(mu) + (1 - y) * log(1 - mu)`` of every entry, with ``0 * log(0) = 0``."""
        return xlogy(y, mu) + xlog1py(1 - y, -np.asarray(mu))

    def deviance(self, y: ArrayLike, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """``-2 * log_likelihood`` of every entry, where y is 0 or 1."""
        own = xlogy(y, y) + xlogy(1 - y, 1 - y)
        return 2 * (own - self.log_likelihood(y, mu))

    def variance(self, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """``mu * (1 - mu)``."""
        return mu * (1 - mu)

    def sample(self, rng: np.random.Generator, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """0 or 1, int64."""
        return np.asarray(rng.random(np.shape(mu)) < mu, np.int64)

    def probability_of_event(self, mu: ArrayLike) -> np.ndarray:
        """``mu``."""
        return mu


class GaussianObservations(ObservationModel):
    """Real numbers, normal around mu with variance ``scale``; each receiver has its own scale.

    The loss is ``(y - mu)**2`` as in NeMoS, without a factor of one half: the same penalty has half
    the strength in glum and scikit-learn. The scale is the sum of squares over ``n - n_free``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastglm.observation_models import GaussianObservations
    >>> float(GaussianObservations().scale(np.array([1.0, 2.0, 3.0]), 2.0, n_free=1))
    1.0
    """

    name = "Gaussian"
    losses = {"identity": GaussianIdentity}  # noqa: RUF012
    estimates_scale = True
    event_based = False

    def check(self, values: np.ndarray, bins: np.ndarray, receivers: np.ndarray) -> None:
        """Raise ValueError where a number is infinite."""
        place = _first(np.isinf(values), values, bins, receivers)
        if place:
            raise ValueError(
                f"y holds {place}; Gaussian observations are finite numbers, or NaN where a bin "
                "is left out."
            )

    def log_likelihood(self, y: ArrayLike, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """``-log(2 pi scale) / 2 - (y - mu)**2 / (2 scale)`` of every entry."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return -0.5 * np.log(2 * np.pi * scale) - np.square(y - mu) / (2 * scale)

    def deviance(self, y: ArrayLike, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """``(y - mu)**2`` of every entry; the scale has no effect."""
        return np.square(y - mu)

    def variance(self, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """``scale``."""
        shape = np.broadcast_shapes(np.shape(mu), np.shape(scale))
        return np.broadcast_to(np.asarray(scale, float), shape)

    def sample(self, rng: np.random.Generator, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """Numbers, float64."""
        return np.asarray(rng.normal(mu, np.sqrt(scale)), np.float64)

    def scale_from(
        self, deviance: ArrayLike, n: ArrayLike, n_free: ArrayLike
    ) -> float | np.ndarray:
        """``deviance / (n - n_free)``; NaN where n is at most n_free."""
        rest = np.asarray(n, float) - n_free
        return deviance / np.where(rest > 0, rest, np.nan)

    def precision(self, scale: ArrayLike) -> float | np.ndarray:
        """``1 / (2 * scale)``; infinity where the scale is 0."""
        with np.errstate(divide="ignore"):
            return 1 / (2 * np.asarray(scale, float))


_LINK_NAMES = {"sigmoid": "logistic", "expit": "logistic"}  # names in JAX and SciPy


def _link_name(link):
    """Name of an inverse link function, which is given by name or as a function."""
    name = link if isinstance(link, str) else getattr(link, "__name__", None)
    return _LINK_NAMES.get(name, name)


def _first(bad, values, bins, receivers):
    """The first bad value with its bin and receiver, in words; None if no value is bad."""
    if not bad.any():
        return None
    k = int(np.argmax(bad))
    return f"{values[k]:g} in bin {bins[k]} of receiver {receivers[k]}"


def _only_above(values):
    return bool(((values > 1) & np.isfinite(values)).all())


_MODELS = {
    model.name: model
    for model in (PoissonObservations, BernoulliObservations, GaussianObservations)
}
FAMILIES = tuple(_MODELS)  # names


def as_observation_model(given: object) -> ObservationModel:
    """The observation model that a name or an object stands for.

    Parameters
    ----------
    given : None, str or object
        None stands for Poisson. A name may end in "Observations" or "Observations()". An object is
        an `ObservationModel` or belongs to NeMoS; an object of NeMoS is recognised by the name of
        its class.

    Raises
    ------
    ValueError
        If there is no such model.

    Examples
    --------
    >>> from fastglm.observation_models import as_observation_model
    >>> as_observation_model("Bernoulli")
    BernoulliObservations()
    """
    if isinstance(given, ObservationModel):
        return given
    if given is None:
        return PoissonObservations()
    name = given if isinstance(given, str) else type(given).__name__
    model = _MODELS.get(name.removesuffix("()").removesuffix("Observations"))
    if model is None:
        names = ", ".join(map(repr, _MODELS))
        raise ValueError(
            f"observation_model is {shown(given)}; expected one of {names}, or an object such as "
            "PoissonObservations()."
        )
    return model()


__all__ = [
    "BernoulliObservations",
    "GaussianObservations",
    "ObservationModel",
    "PoissonObservations",
    "as_observation_model",
]
