"""Families: distributions of the counts of a bin, given their mean and a scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from sklearn.base import BaseEstimator

from fastglm._checks import check_choice, read_key, shown
from fastglm.observation_models.loss import Loss

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

RESIDUAL_KINDS = ("response", "pearson", "deviance")
# Names of links in JAX, SciPy and NeMoS.
_LINK_NAMES = {"sigmoid": "logistic", "expit": "logistic", "inv_cloglog": "cloglog"}
_ETA = np.linspace(-4.05, 3.95, 41)  # where functions are compared with links; without 0


def total(values: np.ndarray) -> float:
    """Sum over receivers of the mean over their bins; NaN entries do not count."""
    n = np.sum(~np.isnan(values), axis=0)
    sums = np.nansum(values, axis=0)
    return np.sum(sums / np.maximum(n, 1)) if np.any(n) else np.nan


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

    def log_probability(self, y: ArrayLike, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """``log p(y | mu, scale)`` of every entry, with its normalisation."""
        raise NotImplementedError

    def unit_deviance(self, y: ArrayLike, mu: ArrayLike, scale: ArrayLike = 1.0) -> np.ndarray:
        """``2 * dispersion * (log p(y | y) - log p(y | mu))`` of every entry."""
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
            ``sign(y - mu) * sqrt(deviance)``.
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
            return np.sign(y - mu) * np.sqrt(np.maximum(self.deviance(y, mu, scale), 0))

    # --- scores, with NeMoS's names, arguments and values ----------------------------------------

    def log_likelihood(
        self,
        y: ArrayLike,
        predicted_rate: ArrayLike,
        scale: ArrayLike | None = None,
        aggregate_sample_scores: Callable = total,
    ) -> float | np.ndarray:
        """Log likelihood: a number, ``sum_j mean_t log p(y_tj | mu_tj, scale_j)``.

        Parameters
        ----------
        y, predicted_rate : array_like of shape (n_bins,) or (n_bins, n_receivers)
        scale : float or ndarray of shape (n_receivers,), optional
            Default: that of the family.
        aggregate_sample_scores : callable, optional
            Function of the values of all entries, which are those of `log_probability`. Default:
            the mean over the bins, summed over the receivers. Bins with NaN do not count.

        Returns
        -------
        float, or what the aggregate returns

        Examples
        --------
        >>> import numpy as np
        >>> from fastglm.observation_models import PoissonObservations
        >>> y, mu, family = np.array([0, 1, 2]), np.array([0.5, 1.0, 1.5]), PoissonObservations()
        >>> float(family.log_likelihood(y, mu).round(4))
        -0.9607
        >>> float(family.log_likelihood(y, mu, aggregate_sample_scores=np.min).round(4))
        -1.3822
        """
        return aggregate_sample_scores(self._each(self.log_probability, y, predicted_rate, scale))

    def likelihood(
        self,
        y: ArrayLike,
        predicted_rate: ArrayLike,
        scale: ArrayLike | None = None,
        aggregate_sample_scores: Callable = total,
    ) -> float | np.ndarray:
        """``exp(log_likelihood)``, with the arguments of `log_likelihood`."""
        return np.exp(self.log_likelihood(y, predicted_rate, scale, aggregate_sample_scores))

    def deviance(
        self, y: ArrayLike, predicted_rate: ArrayLike, scale: ArrayLike | None = None
    ) -> np.ndarray:
        """Deviance of every entry, ``2 * (log p(y | y) - log p(y | mu))`` with the scale.

        Parameters
        ----------
        y, predicted_rate : array_like of shape (n_bins,) or (n_bins, n_receivers)
        scale : float or ndarray of shape (n_receivers,), optional
            Default: that of the family.

        Returns
        -------
        ndarray, shape of y
        """
        scale = self.scale if scale is None else scale
        return self._each(self.unit_deviance, y, predicted_rate, scale) / self.dispersion(scale)

    def pseudo_r2(
        self,
        y: ArrayLike,
        predicted_rate: ArrayLike,
        score_type: str = "pseudo-r2-McFadden",
        scale: ArrayLike | None = None,
        aggregate_sample_scores: Callable = total,
    ) -> float | np.ndarray:
        """Pseudo-R2, a number; the null model is the mean of y of each receiver.

        Parameters
        ----------
        y, predicted_rate : array_like of shape (n_bins,) or (n_bins, n_receivers)
            A bin where either is NaN does not count.
        score_type : {"pseudo-r2-McFadden", "pseudo-r2-Cohen"}
            McFadden: ``1 - LL / LL0`` of the log likelihoods, both with the fitted scale (D.
            McFadden, "Conditional logit analysis of qualitative choice behavior", 1974). Cohen:
            ``1 - D / D0`` of the unit deviances (Cohen et al., "Applied multiple
            regression/correlation analysis", 3rd edition, 2002, p. 502).
        scale : float or ndarray of shape (n_receivers,), optional
            Default: that of the family.
        aggregate_sample_scores : callable, optional
            As in `log_likelihood`. Log likelihoods or deviances are compared after it.

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
        y, mu = np.asarray(y, float), np.asarray(predicted_rate, float)
        y = np.where(np.isnan(mu), np.nan, y)
        null = np.broadcast_to(np.nanmean(y, axis=0), y.shape)
        of = self.unit_deviance if score_type == "pseudo-r2-Cohen" else self.log_probability
        model, base = (aggregate_sample_scores(self._each(of, y, m, scale)) for m in (mu, null))
        return pseudo_r2(model, base)

    def _each(self, of, y, mu, scale):
        """Values of all entries, NaN where they are not known, with a given scale or the own."""
        scale = self.scale if scale is None else scale
        scale = scale if isinstance(scale, str) else np.asarray(scale, float)
        with np.errstate(divide="ignore", invalid="ignore"):
            return of(np.asarray(y, float), np.asarray(mu, float), scale)

    @property
    def default_inverse_link_function(self) -> Callable:
        """Mean as a function of eta, with the default link."""
        return self.loss().mean

    def sample_generator(
        self, key: object, predicted_rate: ArrayLike, scale: ArrayLike | None = None
    ) -> np.ndarray:
        """Counts drawn with a seed, a NumPy generator or a key of JAX, shape of the rate."""
        scale = self.scale if scale is None else scale
        return self.sample(read_key(key), np.asarray(predicted_rate, float), scale)

    # --- scale -----------------------------------------------------------------------------------

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
        self, y: ArrayLike, predicted_rate: ArrayLike, dof_resid: ArrayLike
    ) -> float | np.ndarray:
        """Scale of each receiver, by `scale_from`; NaN entries are skipped.

        Parameters
        ----------
        y, predicted_rate : ndarray of shape (n_bins,) or (n_bins, n_receivers)
        dof_resid : int or ndarray of shape (n_receivers,)
            Number of known entries less that of the free coefficients, the intercept included.
        """
        return self.scale_from(np.nansum(self.squares(y, predicted_rate), axis=0), dof_resid)

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
        """First two derivatives of `log_probability` in the scale, of every entry.

        At the scale 0 the second one is its mean over counts of the model.
        """
        raise NotImplementedError(f"The scale of {self.name} observations is not fitted.")

    def precision(self, scale: ArrayLike) -> float | np.ndarray:
        """Factor a with ``log_probability = -a * loss + terms without eta``: 1."""
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
