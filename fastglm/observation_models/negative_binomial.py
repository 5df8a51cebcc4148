"""Negative binomial counts, more variable than Poisson counts: exponential and softplus link."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaln, xlogy

from fastglm import _kernels as kernels
from fastglm._checks import is_number, shown
from fastglm.observation_models.family import ObservationModel, first_place
from fastglm.observation_models.loss import LOG_ZERO, ExpLink, Loss, SoftplusLink, raised

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_POISSON = 1e-200  # a scale at which log(1 + scale * mu) / scale is mu
_TABLE = 10_000  # counts up to which a sum over the events of a bin is added up
_SERIES = 0.25  # scale * mu below which differences of logarithms are series


class NegativeBinomialLoss(Loss):
    """With ``v = 1 + scale * mu``, loss ``log(v) / scale - y * log(scale * mu / v)``.

    Its terms without eta are those of NeMoS. At scale 0 it is the loss of Poisson counts, without
    the constant ``y * log(scale)``.
    """

    family = "NegativeBinomial"
    low = LOG_ZERO

    def __init__(self, observation_model: ObservationModel | None = None) -> None:
        super().__init__(observation_model)
        self.open_scale = self.observation_model.fits_scale
        self.scale = 0.0 if self.open_scale else float(self.observation_model.scale)

    def at(self, scale: ArrayLike) -> Loss:
        """The loss of receivers with some scales."""
        other = copy.copy(self)
        other.scale, other.open_scale = np.asarray(scale, float), False
        return other

    def _parts(self, eta, mu):
        """Scale, v, ``log(v) / scale`` and the logarithm of the scale, in the precision of eta."""
        scale = np.asarray(self.scale, np.result_type(eta, np.float32))
        tiny = np.maximum(scale, _POISSON if scale.itemsize > 4 else 1e-30)
        return (
            scale,
            1 + scale * mu,
            np.log1p(tiny * mu) / tiny,
            np.log(np.where(scale > 0, scale, 1)),
        )


class NegativeBinomialExp(NegativeBinomialLoss, ExpLink):
    """``mu = exp(eta)``: residual ``(mu - y) / v``, curvature ``(1 + scale * y) * mu / v**2``.

    The loss is convex in eta.
    """

    eta_name, multiplied = "log rate", "rate"
    kernel = staticmethod(kernels.negative_binomial_exp)
    simulator = staticmethod(kernels.simulate_negative_binomial_exp)

    def derivatives(
        self, eta: ArrayLike, y: ArrayLike
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Loss, residual and curvature of every bin."""
        mu = self.mean(eta)
        scale, v, part, log_scale = self._parts(eta, mu)
        return (
            part - y * (log_scale + eta - scale * part),
            (mu - y) / v,
            (1 + scale * y) * (mu / v) / v,
        )

    def expected_curvature(self, eta: ArrayLike) -> np.ndarray:
        """``mu / v``."""
        scale = np.asarray(self.scale, np.result_type(eta, np.float32))
        with np.errstate(divide="ignore"):
            return 1 / (self.mean(-np.asarray(eta)) + scale)


class NegativeBinomialSoftplus(NegativeBinomialLoss, SoftplusLink):
    """``mu = s(eta) = log(1 + exp(eta))``: residual ``s' * (s - y) / (s * v)``.

    The loss is not convex in eta: it grows as ``log(eta) / scale`` for large eta.
    """

    convex = False
    kernel = staticmethod(kernels.negative_binomial_softplus)
    simulator = staticmethod(kernels.simulate_negative_binomial_softplus)

    def derivatives(
        self, eta: ArrayLike, y: ArrayLike
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Loss, residual and curvature of every bin."""
        eta, below = raised(eta)
        mu = self.mean(eta)
        scale, v, part, log_scale = self._parts(eta, mu)
        slope = np.exp(eta - mu)
        ratio = slope / mu
        residual = (slope - y * ratio) / v
        bend = y * ratio * ratio * (1 + 2 * scale * mu) - scale * slope * slope
        return (
            part - y * (log_scale + np.log(mu) - below - scale * part),
            residual,
            (1 - slope) * residual + bend / (v * v),
        )

    def expected_curvature(self, eta: ArrayLike) -> np.ndarray:
        """``s'^2 / (s * v)``."""
        eta = np.maximum(eta, -80)
        mu = self.mean(eta)
        slope = np.exp(eta - mu)
        return slope * slope / (mu * self._parts(eta, mu)[1])


class NegativeBinomialObservations(ObservationModel):
    """Counts with mean mu and variance ``mu + scale * mu**2``: Poisson counts of a varying rate.

    Parameters
    ----------
    scale : float or "estimate", default 1.0
        A number above 0 is the scale of every receiver, as in NeMoS. "estimate" is maximum
        likelihood: every receiver has its own scale, which is fitted together with its coefficients
        and becomes ``scale_`` of the model. Counts that vary less than Poisson counts have their
        optimum at scale 0, which is the Poisson fit; their status says so.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> from fastglm.observation_models import NegativeBinomialObservations
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(5000, 2))
    >>> mu = np.exp(X @ [0.5, -0.2])
    >>> family = NegativeBinomialObservations("estimate")
    >>> y = family.sample(rng, mu, scale=0.7)
    >>> fastglm.GLM(family).fit(X, y).scale_.round(1)
    array([0.7])
    """

    name = "NegativeBinomial"
    losses = {"exp": NegativeBinomialExp, "softplus": NegativeBinomialSoftplus}  # noqa: RUF012
    whole = True
    kurtosis = 6.0

    def __init__(self, scale: float | str = 1.0) -> None:
        self.scale = scale

    @property
    def fits_scale(self) -> bool:
        """Whether the scale is fitted together with the coefficients."""
        return isinstance(self.scale, str)

    def loss(self, link: str | Callable | None = None) -> Loss:
        """The `Loss` with a link, by default exp.

        Raises
        ------
        ValueError
            If the family has no such link, or the scale is not possible.
        """
        scale = self.scale
        known = scale == "estimate" if isinstance(scale, str) else is_number(scale) and scale > 0
        if not known or (not isinstance(scale, str) and not np.isfinite(scale)):
            raise ValueError(
                f"scale of NegativeBinomialObservations is {shown(scale)}; expected a number above "
                "0, or 'estimate'. For scale 0 use PoissonObservations()."
            )
        return super().loss(link)

    def _given(self, scale):
        """A given scale, or that of the family."""
        scale = self.scale if scale is None else scale
        if isinstance(scale, str):
            raise ValueError(
                "The scale of these NegativeBinomialObservations is estimated by a fit; pass a "
                "scale, such as scale_ of a fitted model."
            )
        return np.asarray(scale, float)

    def check(self, values: np.ndarray, bins: np.ndarray, receivers: np.ndarray) -> None:
        """Raise ValueError where a count is negative, infinite or not a whole number."""
        with np.errstate(invalid="ignore"):
            bad = ~((values >= 0) & (values == np.floor(values)) & np.isfinite(values))
        place = first_place(bad & ~np.isnan(values), values, bins, receivers)
        if place:
            raise ValueError(
                f"y holds {place}; negative binomial observations are whole numbers of at least 0, "
                "or NaN where a bin is left out."
            )

    def log_probability(
        self, y: ArrayLike, mu: ArrayLike, scale: ArrayLike | None = None
    ) -> np.ndarray:
        """Log probability of every entry; at scale 0 that of Poisson counts.

        With ``k = 1 / scale`` it is ``gammaln(y + k) - gammaln(k) - gammaln(y + 1)
        + y log(mu / (k + mu)) + k log(k / (k + mu))``.
        """
        scale, y, mu = self._given(scale), np.asarray(y, float), np.asarray(mu, float)
        tiny = np.maximum(scale, _POISSON)
        with np.errstate(divide="ignore", invalid="ignore"):
            part = np.log1p(tiny * mu)
            return xlogy(y, mu) - y * part - part / tiny - gammaln(y + 1) + _rising(y, scale)

    def unit_deviance(
        self, y: ArrayLike, mu: ArrayLike, scale: ArrayLike | None = None
    ) -> np.ndarray:
        """Twice what `log_probability` lacks to its value at ``mu = y``."""
        scale, y, mu = self._given(scale), np.asarray(y, float), np.asarray(mu, float)
        tiny = np.maximum(scale, _POISSON)
        with np.errstate(divide="ignore", invalid="ignore"):
            # log((1 + scale y) / (1 + scale mu)) without a difference of nearly equal numbers
            ratio = np.log1p(tiny * (y - mu) / (1 + tiny * mu))
            return 2 * (xlogy(y, y) - xlogy(y, mu) - y * ratio - ratio / tiny)

    def variance(self, mu: ArrayLike, scale: ArrayLike | None = None) -> np.ndarray:
        """``mu + scale * mu**2``."""
        return mu + self._given(scale) * np.square(mu)

    def sample(
        self, rng: np.random.Generator, mu: ArrayLike, scale: ArrayLike | None = None
    ) -> np.ndarray:
        """Counts, int64: Poisson counts whose means have a gamma distribution."""
        scale, mu = self._given(scale), np.asarray(mu, float)
        shape = 1 / np.where(scale > 0, scale, 1.0)
        rate = np.where(scale > 0, rng.gamma(shape, mu / shape), mu)
        return np.asarray(rng.poisson(rate), np.int64)

    def probability_of_event(self, mu: ArrayLike, scale: ArrayLike | None = None) -> np.ndarray:
        """``1 - (1 + scale * mu)**(-1 / scale)``."""
        return -np.expm1(-self.hazard(mu, scale))

    def hazard(self, mu: ArrayLike, scale: ArrayLike | None = None) -> np.ndarray:
        """``log(1 + scale * mu) / scale``."""
        tiny = np.maximum(self._given(scale), _POISSON)
        return np.log1p(tiny * np.asarray(mu)) / tiny

    def scale_derivatives(
        self, y: ArrayLike, mu: ArrayLike, scale: ArrayLike
    ) -> tuple[np.ndarray, np.ndarray]:
        """First two derivatives of `log_probability` in the scale, of every entry.

        With ``u = scale * mu``, ``A(u) = (u - log(1 + u)) / u**2`` and sums over ``0 <= i < y``:

            sum i / (1 + scale i) + (mu - y) mu / (1 + u) - mu**2 A(u)
            -sum i^2 / (1 + scale i)^2 - (mu - y) mu**2 / (1 + u)^2 - mu**3 A'(u)

        No term is large where the scale is small. At scale 0 the second one is its mean over
        counts of the model, ``-mu**2 / 2``.
        """
        y, mu, scale = (np.asarray(values, float) for values in (y, mu, scale))
        u = scale * mu
        first, second = _sums(y, scale)
        area, bend = _areas(u)
        off = (mu - y) * mu / (1 + u)
        slope = first + off - np.square(mu) * area
        curvature = -second - off * mu / (1 + u) - mu**3 * bend
        return slope, np.where(scale > 0, curvature, -np.square(mu) / 2)


def _sum_below(y, scale, term, slope, integral):
    """``sum_{i < y} term(i)`` of every count y.

    A table has it for counts up to `_TABLE`. Beyond, the formula of Euler and Maclaurin goes on
    with the slope of the term, and its integral from 0. All take x and scale; the last axis of y is
    that of the scales, if there are several.
    """
    counts = np.where(np.isfinite(y), y, 0.0)
    size = int(min(counts.max(initial=0), _TABLE + 1))
    i = np.arange(size, dtype=float).reshape(-1, *(1,) * scale.ndim)
    first = np.zeros((1, *scale.shape))
    table = np.cumsum(np.concatenate([first, term(i, scale) + first]), axis=0)

    def at(place):
        return table[place] if scale.ndim == 0 else table[place, np.arange(scale.size)]

    def smooth(x):
        return integral(x, scale) - term(x, scale) / 2 + slope(x, scale) / 12

    value = at(np.minimum(counts, size).astype(np.int64))
    if (counts > size).any():
        value = np.where(counts > size, at(size) + smooth(counts) - smooth(float(size)), value)
    return np.where(np.isnan(y), np.nan, value)


def _rising(y, scale):
    """``sum_{i < y} log(1 + scale i)``: that is ``gammaln(y + k) - gammaln(k) - y log(k)``."""

    def integral(x, scale):
        u = scale * x
        return x * u * (1 - (1 + u) * _areas(u)[0])

    return _sum_below(
        y, scale, lambda x, s: np.log1p(s * x), lambda x, s: s / (1 + s * x), integral
    )


def _sums(y, scale):
    """``sum i / (1 + scale i)`` and ``sum i^2 / (1 + scale i)^2`` over ``0 <= i < y``."""
    first = _sum_below(
        y,
        scale,
        lambda x, s: x / (1 + s * x),
        lambda x, s: 1 / (1 + s * x) ** 2,
        lambda x, s: x**2 * _areas(s * x)[0],
    )
    second = _sum_below(
        y,
        scale,
        lambda x, s: (x / (1 + s * x)) ** 2,
        lambda x, s: 2 * x / (1 + s * x) ** 3,
        lambda x, s: -(x**3) * _areas(s * x)[1],
    )
    return first, second


def _areas(u):
    """``A(u) = (u - log(1 + u)) / u^2`` and its derivative, by series where u is small."""
    small = u < _SERIES
    large, near = np.where(small, 1.0, u), np.where(small, u, 0.0)
    area = (large - np.log1p(large)) / np.square(large)
    bend = (1 / (1 + large) - 2 * area) / large
    series, slope = np.zeros_like(near), np.zeros_like(near)
    for n in range(30, -1, -1):  # the last power of 1/4 is 1e-18
        slope = slope * -near + series * -1.0
        series = series * -near + 1 / (n + 2)
    return np.where(small, series, area), np.where(small, slope, bend)
