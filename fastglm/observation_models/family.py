"""Families: distributions of the counts of a bin, given their mean and a scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from sklearn.base import BaseEstimator

from fastglm._checks import check_choice, shown
from fastglm.observation_models.loss import Loss

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

RESIDUAL_KINDS = ("response", "pearson", "deviance")
# Names of links in JAX, SciPy and NeMoS.
# Names in JAX, SciPy and NeMoS.
_LINK_NAMES = {"sigmoid": "logistic", "expit": "logistic", "inv_cloglog": "cloglog"}
_ETA = np.linspace(-4.05, 3.95, 41)  # where functions are compared with links; without 0


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
    scale : float
        The scale, where it is not estimated.
    estimates_scale : bool
        The variance is a multiple of the scale, which is estimated after the fit.
    fits_scale : bool
        The scale is estimated together with the coefficients, by maximum likelihood: the family
        has `scale_derivatives`.
    event_based : bool
        Counts are events, so that time rescaling applies.
    whole : bool
        y must hold whole numbers.
    positive : bool
        y must be above 0.
    kurtosis : float
        Excess kurtosis of y as a multiple of the scale; for events without ``1 / variance``.
    some : float
        A possible y, which stands where y is not known.
    largest : int or None
        The largest count that is possible, if there is one.
    simulated_link : str or None
        Default link of `fastglm.simulation.simulate_recurrent`, if it is not that of a fit.
    """

    name = None
    losses = {}  # noqa: RUF012
    scale = 1.0
    estimates_scale = fits_scale = False
    event_based = True
    whole = positive = False
    kurtosis = some = 0.0
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
        name = next(iter(self.losses)) if link is None else _link_name(link, self)
        if name not in self.losses:
            names = ", ".join(map(repr, self.losses))
            raise ValueError(
                f"inverse_link_function is {shown(link)}; {self.name} observations take {names} "
                "or a function with the same values."
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

    def probability_of_event(self, mu: ArrayLike, scale: ArrayLike | None = None) -> np.ndarray:
        """Probability of a count above 0.

        Raises
        ------
        ValueError
            If counts of the family are not events.
        """
        raise ValueError(
            f"{self.name} observations are not events; rescaled times and probabilities of an "
            "event need Poisson, Bernoulli or negative binomial observations."
        )

    def hazard(self, mu: ArrayLike, scale: ArrayLike | None = None) -> np.ndarray:
        """``-log P(y = 0)``: the rescaled time of a bin.

        Raises
        ------
        ValueError
            If counts of the family are not events.
        """
        with np.errstate(divide="ignore"):
            return -np.log1p(-self.probability_of_event(mu, scale))

    def residuals(
        self,
        y: ArrayLike,
        mu: ArrayLike,
        kind: str = "response",
        scale: ArrayLike | None = None,
    ) -> np.ndarray:
        """Residuals of every entry.

        Parameters
        ----------
        y, mu : ndarray
        kind : {"response", "pearson", "deviance"}
            ``y - mu``; ``(y - mu) / sqrt(variance)``, with the scale in the variance; or
            ``sign(y - mu) * sqrt(deviance / dispersion)``.
        scale : float or ndarray of shape (n_receivers,), optional
            Default: that of the family. With the fitted scale, Pearson and deviance residuals have
            a variance near 1.
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
        scale = self.scale if scale is None else scale
        with np.errstate(divide="ignore", invalid="ignore"):
            if kind == "pearson":
                variance = self.variance(mu, scale)
                residual = (y - mu) / np.sqrt(variance)
                # 0 / 0 where the mean has underflowed, or is at its end: the limit is 0.
                return np.where((variance == 0) & (y == mu), 0.0, residual)
            deviance = np.maximum(self.deviance(y, mu, scale), 0) / self.dispersion(scale)
            return np.sign(y - mu) * np.sqrt(deviance)

    def pseudo_r2(
        self,
        y: ArrayLike,
        mu: ArrayLike,
        score_type: str = "pseudo-r2-McFadden",
        scale: ArrayLike | None = None,
        aggregate_sample_scores: Callable = np.nanmean,
    ) -> float | np.ndarray:
        """Pseudo-R2 as in NeMoS: the null model is the mean of y of each receiver.

        Parameters
        ----------
        y, mu : ndarray of shape (n_bins,) or (n_bins, n_receivers)
            A bin where either is NaN does not count.
        score_type : {"pseudo-r2-McFadden", "pseudo-r2-Cohen"}
            McFadden: ``1 - LL / LL0`` of the log likelihoods, both with the fitted scale (D.
            McFadden, "Conditional logit analysis of qualitative choice behavior", 1974). Cohen:
            ``1 - D / D0`` of the deviances (Cohen et al., "Applied multiple
            regression/correlation analysis", 3rd edition, 2002, p. 502).
        scale : float or ndarray of shape (n_receivers,), optional
            Default: that of the family.
        aggregate_sample_scores : callable, default np.nanmean
            Function of the values of all entries, NaN where a bin does not count. Log likelihoods
            or deviances are compared after it.

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
        y, mu = np.asarray(y), np.asarray(mu)
        y = np.where(np.isnan(mu), np.nan, y)
        null = np.broadcast_to(np.nanmean(y, axis=0), y.shape)
        scale = self.scale if scale is None else scale
        of = self.deviance if score_type == "pseudo-r2-Cohen" else self.log_likelihood
        model, base = (aggregate_sample_scores(of(y, m, scale)) for m in (mu, null))
        return pseudo_r2(model, base)

    @property
    def has_scale(self) -> bool:
        """Whether the distribution has a scale beside the mean."""
        return self.estimates_scale or self.fits_scale or "scale" in self.get_params()

    def dispersion(self, scale: ArrayLike) -> ArrayLike:
        """Factor of the variance: the scale, if it is estimated after the fit, else 1."""
        return scale if self.estimates_scale else 1.0

    def squares(self, y: ArrayLike, mu: ArrayLike) -> np.ndarray:
        """``(y - mu)**2 / variance(mu, 1)`` of every entry: Pearson's statistic is their sum."""
        return np.square(y - mu) / self.variance(mu, 1.0)

    def estimate_scale(
        self, y: ArrayLike, mu: ArrayLike, dof_resid: ArrayLike
    ) -> float | np.ndarray:
        """Scale of each receiver, by `scale_from`; NaN entries are skipped.

        Parameters
        ----------
        y, mu : ndarray of shape (n_bins,) or (n_bins, n_receivers)
        dof_resid : int or ndarray of shape (n_receivers,)
            Number of known entries less that of the free coefficients, the intercept included.
        """
        return self.scale_from(np.nansum(self.squares(y, mu), axis=0), dof_resid)

    def scale_from(self, squares: ArrayLike, dof_resid: ArrayLike) -> float | np.ndarray:
        """Scale of each receiver from the sum of its `squares`, which chunks may add up.

        It is ``squares / dof_resid``, NaN where ``dof_resid`` is not above 0. A family whose scale
        is not estimated after the fit gives its own.
        """
        if not self.estimates_scale:
            shape = np.broadcast_shapes(np.shape(squares), np.shape(dof_resid))
            return np.full(shape, self.scale, float)[()]
        dof_resid = np.asarray(dof_resid, float)
        return squares / np.where(dof_resid > 0, dof_resid, np.nan)

    def scale_derivatives(
        self, y: ArrayLike, mu: ArrayLike, scale: ArrayLike
    ) -> tuple[np.ndarray, np.ndarray]:
        """First two derivatives of `log_likelihood` in the scale, of every entry.

        At the scale 0 the second one is its mean over counts of the model.
        """
        raise NotImplementedError(f"The scale of {self.name} observations is not fitted.")

    def precision(self, scale: ArrayLike) -> float | np.ndarray:
        """Factor a with ``log_likelihood = -a * loss + terms without eta``: 1."""
        return np.ones(np.shape(scale))[()]


def _link_name(link, family):
    """Name of an inverse link function: a name such as "jax.nn.softplus", or a function.

    A function is the link whose values it has where the link has some, whatever its name. JAX's are
    float32.
    """
    if isinstance(link, str):
        name = link.rpartition(".")[2]
        return _LINK_NAMES.get(name, name)
    try:
        with np.errstate(all="ignore"):
            values = np.asarray(link(_ETA), np.float64)
    except Exception:  # whatever a function of the user raises
        return None
    for name, loss in family.losses.items():
        with np.errstate(all="ignore"):
            mean = loss(family).mean(_ETA)
        known = np.isfinite(mean)
        same_shape = values.shape == mean.shape
        if same_shape and np.allclose(values[known], mean[known], rtol=1e-5, atol=0):
            return name
    return None


def first_place(bad, values, bins, receivers):
    """The first bad value with its bin and receiver, in words; None if no value is bad."""
    if not bad.any():
        return None
    k = int(np.argmax(bad))
    return f"{values[k]:g} in bin {bins[k]} of receiver {receivers[k]}"
