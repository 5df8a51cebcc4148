"""Bernoulli observations, an event or none: logistic and cloglog link."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import bernoulli, expit, factorial, logit, xlog1py, xlogy

from fastglm import _kernels as kernels
from fastglm.observation_models.family import ObservationModel, first_place, total
from fastglm.observation_models.loss import LOG_ZERO, Loss, raised

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike


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
        eta, below = raised(eta)
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


def _product(probabilities):
    """Exponential of the mean of the logarithm over the bins, summed over the receivers."""
    with np.errstate(divide="ignore"):
        return np.exp(total(np.log(probabilities)))


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
        place = first_place(bad, values, bins, receivers)
        if place:
            remedy = " Pass counts.clip(max=1)?" if _only_above(values[bad]) else ""
            raise ValueError(f"y holds {place}; Bernoulli observations are 0 or 1.{remedy}")

    def log_probability(self, y: ArrayLike, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """``y * log(mu) + (1 - y) * log(1 - mu)`` of every entry, with ``0 * log(0) = 0``."""
        return xlogy(y, mu) + xlog1py(1 - y, -np.asarray(mu))

    def unit_deviance(self, y: ArrayLike, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """``-2 * log_probability`` of every entry, where y is 0 or 1."""
        own = xlogy(y, y) + xlogy(1 - y, 1 - y)
        return 2 * (own - self.log_probability(y, mu))

    def likelihood(
        self,
        y: ArrayLike,
        predicted_rate: ArrayLike,
        scale: ArrayLike | None = None,
        aggregate_sample_scores: Callable = _product,
    ) -> float | np.ndarray:
        """Likelihood: the aggregate of the probability of every entry, as in NeMoS.

        Its default is the exponential of `log_likelihood`.
        """
        return self.log_likelihood(
            y, predicted_rate, scale, lambda each: aggregate_sample_scores(np.exp(each))
        )

    def variance(self, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """``mu * (1 - mu)``."""
        return mu * (1 - mu)

    def sample(self, rng: np.random.Generator, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """0 or 1, int64."""
        return np.asarray(rng.random(np.shape(mu)) < mu, np.int64)

    def probability_of_event(self, mu: ArrayLike, scale: ArrayLike | None = None) -> np.ndarray:
        """``mu``."""
        return mu


def _only_above(values):
    return bool(((values > 1) & np.isfinite(values)).all())


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
