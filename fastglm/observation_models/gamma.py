"""Gamma observations, numbers above 0: one_over_x, exponential and softplus link."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaln

from fastglm import _kernels as kernels
from fastglm.observation_models.family import ObservationModel, first_place
from fastglm.observation_models.loss import ExpLink, Loss, SoftplusLink

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class GammaOneOverX(Loss):
    """``mu = 1 / eta``: loss ``y * eta - log(eta)``, residual ``y - mu``, curvature ``mu**2``.

    The loss is convex. It is infinite where eta is not above 0, so that no fit ends there.
    """

    family, link = "Gamma", "one_over_x"
    eta_name = "1 / mean"
    least = 0.0
    kernel = staticmethod(kernels.gamma_one_over_x)

    def mean(self, eta: ArrayLike) -> np.ndarray:
        """``1 / eta``; inf, its limit, where eta is not above 0."""
        with np.errstate(divide="ignore"):
            return 1 / np.abs(np.maximum(eta, 0.0))  # -0.0 is no sign

    def eta(self, mean: ArrayLike) -> np.ndarray:
        """``1 / mean``."""
        with np.errstate(divide="ignore"):
            return 1 / np.asarray(mean)

    def slope(self, eta: ArrayLike) -> np.ndarray:
        """``-mu**2``."""
        return -np.square(self.mean(eta))

    def derivatives(
        self, eta: ArrayLike, y: ArrayLike
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Loss, residual and curvature of every bin."""
        below = np.asarray(eta) <= 0
        eta = np.where(below, 1.0, eta)
        mu = 1 / eta
        found = y * eta - np.log(eta), y - mu, np.square(mu) * np.ones_like(y, float)
        return tuple(
            np.where(below, end, part)
            for end, part in zip((np.inf, -np.inf, np.inf), found, strict=True)
        )

    def pace(self, eta: ArrayLike) -> np.ndarray:
        """``1 / eta``: eta has the unit of ``1 / y``, and its relative change counts."""
        return self.mean(eta)

    def expected_curvature(self, eta: ArrayLike) -> np.ndarray:
        """``mu**2``."""
        return np.square(self.mean(eta))


class GammaExp(ExpLink):
    """``mu = exp(eta)``: with ``z = y / mu``, loss ``z + eta``, residual ``1 - z``, curvature z."""

    family = "Gamma"
    eta_name, multiplied = "log mean", "mean"
    predictable = False  # y / mu, whose mean is 1 at every eta
    kernel = staticmethod(kernels.gamma_exp)
    simulator = staticmethod(kernels.simulate_gamma_exp)

    def derivatives(
        self, eta: ArrayLike, y: ArrayLike
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Loss, residual and curvature of every bin."""
        ratio = y * self.mean(-np.asarray(eta))
        return ratio + eta, 1 - ratio, ratio

    def count_part(self, eta: ArrayLike, y: ArrayLike) -> np.ndarray:
        """``y / mu``."""
        return y * self.mean(-np.asarray(eta))

    def expected_curvature(self, eta: ArrayLike) -> np.ndarray:
        """1."""
        return np.ones_like(eta)


class GammaSoftplus(SoftplusLink):
    """``mu = s(eta) = log(1 + exp(eta))``: loss ``y / s + log(s)``, which is not convex in eta."""

    family = "Gamma"
    convex = False
    kernel = staticmethod(kernels.gamma_softplus)
    simulator = staticmethod(kernels.simulate_gamma_softplus)

    def derivatives(
        self, eta: ArrayLike, y: ArrayLike
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Loss, residual and curvature of every bin."""
        eta = np.maximum(eta, -700.0)
        mu = self.mean(eta)
        slope = np.exp(eta - mu)
        ratio, excess = slope / mu, y / mu
        return (
            excess + np.log(mu),
            ratio * (1 - excess),
            ratio * ((1 - slope - ratio) - excess * (1 - slope - 2 * ratio)),
        )

    def count_part(self, eta: ArrayLike, y: ArrayLike) -> np.ndarray:
        """``s' / s * y / s``."""
        eta = np.maximum(eta, -700.0)
        mu = self.mean(eta)
        return np.exp(eta - mu) / mu * (y / mu)

    def expected_curvature(self, eta: ArrayLike) -> np.ndarray:
        """``(s' / s)^2``."""
        eta = np.maximum(eta, -80)
        mu = self.mean(eta)
        return np.square(np.exp(eta - mu) / mu)


class GammaObservations(ObservationModel):
    """Numbers above 0, such as fluorescence, with mean mu and variance ``scale * mu**2``.

    y has a gamma distribution of shape ``1 / scale``. The scale is Pearson's statistic, the sum of
    ``(y / mu - 1)**2``, over ``n - n_free``. With the link one_over_x, the canonical one, eta must
    be above 0: a row where it is not has no mean, and the log likelihood of its count is minus
    infinity.

    Examples
    --------
    >>> from fastglm.observation_models import GammaObservations
    >>> GammaObservations().loss()
    GammaOneOverX()
    """

    name = "Gamma"
    losses = {"one_over_x": GammaOneOverX, "exp": GammaExp, "softplus": GammaSoftplus}  # noqa: RUF012
    estimates_scale = positive = True
    event_based = False
    kurtosis, some = 6.0, 1.0

    def check(self, values: np.ndarray, bins: np.ndarray, receivers: np.ndarray) -> None:
        """Raise ValueError where a number is not above 0, or infinite."""
        place = first_place((values <= 0) | np.isinf(values), values, bins, receivers)
        if place:
            raise ValueError(
                f"y holds {place}; Gamma observations are finite numbers above 0, or NaN where a "
                "bin is left out."
            )

    def log_probability(self, y: ArrayLike, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """``(k - 1) log(y) - k (y / mu + log(mu) - log(k)) - gammaln(k)``, ``k = 1 / scale``."""
        with np.errstate(divide="ignore", invalid="ignore"):
            k = 1 / np.asarray(scale, float)
            return (k - 1) * np.log(y) - k * (y / mu + np.log(mu) - np.log(k)) - gammaln(k)

    def unit_deviance(self, y: ArrayLike, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """``2 * (y / mu - 1 - log(y / mu))`` of every entry; the scale has no effect."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = y / np.asarray(mu)
            return 2 * (ratio - 1 - np.log(ratio))

    def variance(self, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """``scale * mu**2``."""
        return scale * np.square(mu)

    def sample(self, rng: np.random.Generator, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """Numbers above 0, float64."""
        drawn = rng.gamma(1 / np.asarray(scale, float), np.multiply(mu, scale))
        return np.maximum(drawn, np.finfo(float).tiny)  # a small shape underflows

    def precision(self, scale: ArrayLike) -> float | np.ndarray:
        """``1 / scale``; infinity where the scale is 0."""
        with np.errstate(divide="ignore"):
            return 1 / np.asarray(scale, float)
