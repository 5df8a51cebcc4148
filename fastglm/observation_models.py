"""The observation model: what turns eta and counts into loss, residual and curvature.

With link g, ``mu = g(eta)`` is the expected number of events per bin, and the loss of a bin is
``mu - y * log(mu)``, the negative log-likelihood without the terms that do not depend on the
model. Its first and second derivatives with respect to eta are ``residual`` and ``curvature``.
The next family is another class with these few lines.
"""

import numpy as np
from scipy.special import gammaln, xlogy

from fastglm import _kernels as kernels

LOG_ZERO = -50.0  # eta that stands for a rate of zero: exp(-50) = 2e-22 events per bin


class PoissonExp:
    """``mu = exp(eta)``: loss ``mu - y * eta``, residual ``mu - y``, curvature ``mu``.

    Canonical: the counts enter linearly, so the kernel never reads them. What they add to the
    objective and the gradient follows from ``X'Y``.
    """

    name = "exp"
    canonical = True
    pointwise = staticmethod(kernels.poisson_exp)

    @staticmethod
    def rate(eta):
        """Expected events per bin; inf where exp overflows."""
        with np.errstate(over="ignore"):
            return np.exp(eta)

    @staticmethod
    def eta(rate):
        """Inverse of `rate` for positive rates."""
        return np.log(rate)

    @classmethod
    def expected_curvature(cls, eta):
        """Mean of the curvature over counts drawn from the model."""
        return cls.rate(eta)

    @classmethod
    def derivatives(cls, eta, y):
        """Loss, residual and curvature of every bin."""
        mu = cls.rate(eta)
        return mu - y * eta, mu - y, mu


class PoissonSoftplus:
    """``mu = s(eta) = log(1 + exp(eta))``: loss ``s - y * log(s)``, which is convex in eta."""

    name = "softplus"
    canonical = False
    pointwise = staticmethod(kernels.poisson_softplus)

    @staticmethod
    def rate(eta):
        """Expected events per bin."""
        return np.logaddexp(0.0, eta)

    @staticmethod
    def eta(rate):
        """Inverse of `rate` for positive rates: ``log(exp(rate) - 1)``."""
        return rate + np.log(-np.expm1(-rate))

    @classmethod
    def expected_curvature(cls, eta):
        """Mean of the curvature over counts drawn from the model: ``s'^2 / s``."""
        eta = np.maximum(eta, -80)
        mu = cls.rate(eta)
        slope = np.exp(eta - mu)
        return slope * slope / mu

    @classmethod
    def derivatives(cls, eta, y):
        """Loss, residual and curvature of every bin."""
        eta = np.maximum(eta, -700.0)
        mu = cls.rate(eta)
        slope = np.exp(eta - mu)  # logistic function
        ratio = slope / mu
        curvature = slope * (1 - slope) - y * ratio * (1 - slope - ratio)
        return (
            mu - y * np.log(mu),
            slope - y * ratio,
            np.maximum(curvature, 0.0),
        )


LINKS = {"exp": PoissonExp, "softplus": PoissonSoftplus}


def log_likelihood(y, mu):
    """``y * log(mu) - mu - gammaln(y + 1)`` of every bin, with ``0 * log(0) = 0``."""
    return xlogy(y, mu) - mu - gammaln(y + 1)


def deviance(y, mu):
    """``2 * (y * log(y / mu) - (y - mu))`` of every bin, with ``0 * log(0) = 0``."""
    return 2 * (xlogy(y, y) - xlogy(y, mu) - (y - mu))


RESIDUALS = {
    "response": lambda y, mu: y - mu,
    "pearson": lambda y, mu: (y - mu) / np.sqrt(mu),
    "deviance": lambda y, mu: np.sign(y - mu) * np.sqrt(np.maximum(deviance(y, mu), 0)),
}
