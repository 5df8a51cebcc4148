"""Losses of a bin as functions of eta: a family with a link, as the engine sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastglm.observation_models.family import ObservationModel

_LOWEST = -700.0  # eta whose exponential has not underflowed
LOG_ZERO = -50.0  # eta that stands for a mean of zero: exp(-50) = 2e-22 events per bin


def raised(eta):
    """eta, raised to where its exponential has not underflowed, and by how much.

    Below, the logarithm of a mean ``exp(eta)`` is eta.
    """
    high = np.maximum(eta, _LOWEST)
    return high, np.minimum(high - eta, 1e30)  # finite: times a count of 0


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
    convex : bool
        The loss is convex in eta. If False, its curvature may be negative, and an optimum is a
        local one.
    predictable : bool
        The curvature of a bin is near its mean over counts of the model. If False, curvatures that
        are sampled without counts may be far from the true ones.
    least : float or None
        Eta must be above it: at and below it the loss is infinite, and there is no mean. None where
        every eta has a mean.
    scale : float or ndarray of shape (n_receivers,)
        Scale of the family, where the loss depends on it (negative binomial); else 1.
    open_scale : bool
        The scale is still to be estimated, together with the coefficients.
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
    convex = predictable = True
    open_scale = False
    count_factor = scale = 1.0
    low = high = pace = least = None
    kernel = simulator = None

    def __init__(self, observation_model: ObservationModel | None = None) -> None:
        if observation_model is None:
            # Late, since a family names the classes of its losses.
            from fastglm.observation_models import as_observation_model

            observation_model = as_observation_model(self.family)
        self.observation_model = observation_model

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

    def at(self, scale: ArrayLike) -> Loss:
        """The loss of receivers with some scales; itself where it does not depend on a scale."""
        return self

    def select(self, receivers: object) -> Loss:
        """The loss of some of its receivers, given by an index of an array of receivers."""
        return self.at(self.scale[receivers]) if getattr(self.scale, "ndim", 0) else self

    def mean(self, eta: ArrayLike) -> np.ndarray:
        """Mean mu of the counts; inf where eta is not above ``least``, which is its limit there."""
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

        The curvature is the observed curvature. Where the loss is convex it is at least 0.
        """
        raise NotImplementedError

    def count_part(self, eta: ArrayLike, y: ArrayLike) -> ArrayLike:
        """Size of the term of the residual that holds the count, or more: it is rounded with it."""
        return np.abs(y)

    def least_loss(self, y: ArrayLike) -> np.ndarray:
        """The least loss of bins with some counts, (n_bins,): that of a mean of y."""
        least = np.zeros(np.size(y))
        if self.high is None:  # else it is 0 for counts of 0 and 1
            some = np.full(np.size(y), True) if self.low is None else np.asarray(y) > 0
            least[some] = self.derivatives(self.eta(y[some]), y[some])[0]
        return least

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
        n = np.asarray(n, float)
        sum_y = np.asarray(sum_y, float) + np.zeros(n.shape)
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


# --- links that several families have ------------------------------------------------------------


class ExpLink(Loss):
    """``mu = exp(eta)``."""

    link = "exp"

    def mean(self, eta: ArrayLike) -> np.ndarray:
        """Expected events per bin; inf where exp overflows."""
        with np.errstate(over="ignore"):
            return np.exp(eta)

    slope = mean

    def eta(self, mean: ArrayLike) -> np.ndarray:
        """``log(mean)``."""
        with np.errstate(divide="ignore"):
            return np.log(mean)


class SoftplusLink(Loss):
    """``mu = log(1 + exp(eta))``."""

    link = "softplus"

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
