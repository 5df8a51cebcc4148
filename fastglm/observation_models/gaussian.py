"""Gaussian observations: identity link."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastglm import _kernels as kernels
from fastglm.observation_models.family import ObservationModel, first_place
from fastglm.observation_models.loss import Loss

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


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


class GaussianObservations(ObservationModel):
    """Real numbers, normal around mu with variance ``scale``; each receiver has its own scale.

    The loss is ``(y - mu)**2`` as in NeMoS, without a factor of one half: the same penalty has half
    the strength in glum and scikit-learn. The scale is the sum of squares over ``n - n_free``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastglm.observation_models import GaussianObservations
    >>> float(GaussianObservations().estimate_scale(np.array([1.0, 2.0, 3.0]), 2.0, 3 - 1))
    1.0
    """

    name = "Gaussian"
    losses = {"identity": GaussianIdentity}  # noqa: RUF012
    estimates_scale = True
    event_based = False

    def check(self, values: np.ndarray, bins: np.ndarray, receivers: np.ndarray) -> None:
        """Raise ValueError where a number is infinite."""
        place = first_place(np.isinf(values), values, bins, receivers)
        if place:
            raise ValueError(
                f"y holds {place}; Gaussian observations are finite numbers, or NaN where a bin "
                "is left out."
            )

    def log_probability(self, y: ArrayLike, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """``-log(2 pi scale) / 2 - (y - mu)**2 / (2 scale)`` of every entry."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return -0.5 * np.log(2 * np.pi * scale) - np.square(y - mu) / (2 * scale)

    def unit_deviance(self, y: ArrayLike, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """``(y - mu)**2`` of every entry; the scale has no effect."""
        return np.square(y - mu)

    def variance(self, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """``scale``."""
        shape = np.broadcast_shapes(np.shape(mu), np.shape(scale))
        return np.broadcast_to(np.asarray(scale, float), shape)

    def sample(self, rng: np.random.Generator, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """Numbers, float64."""
        return np.asarray(rng.normal(mu, np.sqrt(scale)), np.float64)

    def precision(self, scale: ArrayLike) -> float | np.ndarray:
        """``1 / (2 * scale)``; infinity where the scale is 0."""
        with np.errstate(divide="ignore"):
            return 1 / (2 * np.asarray(scale, float))
