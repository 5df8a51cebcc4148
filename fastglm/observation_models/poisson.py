"""Poisson counts: exponential and softplus link."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaln, xlogy

from fastglm import _kernels as kernels
from fastglm.observation_models.family import ObservationModel, first_place
from fastglm.observation_models.loss import LOG_ZERO, ExpLink, SoftplusLink, raised

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class PoissonExp(ExpLink):
    """``mu = exp(eta)``: loss ``mu - y * eta``, residual ``mu - y``, curvature ``mu``."""

    family = "Poisson"
    eta_name, multiplied = "log rate", "rate"
    linear_counts = exponential = True
    low = LOG_ZERO
    kernel = staticmethod(kernels.poisson_exp)
    simulator = staticmethod(kernels.simulate_poisson_exp)
    cumulant = expected_curvature = ExpLink.mean

    def derivatives(
        self, eta: ArrayLike, y: ArrayLike
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Loss, residual and curvature of every bin."""
        mu = self.mean(eta)
        return mu - y * eta, mu - y, mu


class PoissonSoftplus(SoftplusLink):
    """``mu = s(eta) = log(1 + exp(eta))``: loss ``s - y * log(s)``, which is convex in eta."""

    family = "Poisson"
    low = LOG_ZERO
    kernel = staticmethod(kernels.poisson_softplus)
    simulator = staticmethod(kernels.simulate_poisson_softplus)

    def derivatives(
        self, eta: ArrayLike, y: ArrayLike
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Loss, residual and curvature of every bin."""
        eta, below = raised(eta)
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
        place = first_place(np.isinf(values), values, bins, receivers)
        if place:
            raise ValueError(
                "y holds infinite counts; expected finite numbers or NaN (bin left out). For "
                f"Poisson observations the first is {place}."
            )
        place = first_place(values < 0, values, bins, receivers)
        if place:
            raise ValueError(
                "y holds negative counts; expected the number of events in each bin. For Poisson "
                f"observations the first is {place}."
            )

    def log_probability(self, y: ArrayLike, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """``y * log(mu) - mu - gammaln(y + 1)`` of every entry, with ``0 * log(0) = 0``."""
        return xlogy(y, mu) - mu - gammaln(y + 1)

    def unit_deviance(self, y: ArrayLike, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """``2 * (y * log(y / mu) - (y - mu))`` of every entry, with ``0 * log(0) = 0``."""
        return 2 * (xlogy(y, y) - xlogy(y, mu) - (y - mu))

    def variance(self, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """``mu``."""
        return mu

    def sample(self, rng: np.random.Generator, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """Counts, int64."""
        return np.asarray(rng.poisson(mu), np.int64)

    def probability_of_event(self, mu: ArrayLike, scale: ArrayLike | None = None) -> np.ndarray:
        """``1 - exp(-mu)``."""
        return -np.expm1(-np.asarray(mu))

    def hazard(self, mu: ArrayLike, scale: ArrayLike | None = None) -> np.ndarray:
        """``mu``."""
        return mu
