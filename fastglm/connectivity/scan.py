"""Whether a filter departs from the null in the shape of a synapse.

A synapse acts at one delay, rises fast and decays within milliseconds. Its shapes are

    s_d(lag) = exp(-(lag - d) / tau) for lag >= d, else 0,    d = 0, 1, ... 19 ms, tau = 6 ms

in coefficients of the basis. For a filter c whose null is normal with mean m and covariance S

    z_d = s_d' S^-1 (c - m) / sqrt(s_d' S^-1 s_d)

is standard normal for every d, and the statistic is the z_d of largest modulus. Slow drive moves
the whole filter: it is in S, and S^-1 takes it out of z_d.

The probability of the largest |z_d| under the null is bounded as for a smooth path of standard
normal numbers (Davies, 1977):

    P(max |z_d| > u) <= 2 Phi(-u) + (path / pi) exp(-u^2 / 2)

where path is the length of the way of ``S^-1/2 s_d / |S^-1/2 s_d|`` on the sphere, the sum of the
angles between neighbours.

What a filter is made of are coincidences, spikes of the receiver under the shape after a spike of
the sender. Their number is a Poisson number and not a normal one: 2 where 0.1 are expected are not
six standard deviations. For the exponential shape a sum of weights has the skewness of a Poisson
number with mean ``m = 2.25 s_d' V^-1 s_d``. A positive z_d stands for ``k = m + z_d sqrt(m)``
coincidences, and becomes the root of their deviance, ``sqrt(2 (k log(k / m) - k + m))``. A negative
one stays: the estimate of a log rate errs to the other side.

Most pairs have no coupling, so the median of |z| must agree with its median under the null (central
matching: Efron, 2004). The ratio of the two, over pairs with at least five coincidences, divides z.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from scipy import special

from fastglm.connectivity.null import Filters

_DECAY, _LATEST, _STEP = 0.006, 0.019, 0.001  # seconds


_LIKE = 1 / 3  # norm of what a basis makes of a shape, in parts of the norm of the shape
_CHUNK = 20_000  # filters that are scanned at a time
_SAMPLE, _DRAWS = 400, 50  # filters, and draws of each, for the median under the null
_SKEWNESS = 2.25  # mean of the Poisson number that is as skewed as the shape, in units of s' V^-1 s
_MANY = 5.0  # coincidences that make z nearly normal


@dataclass
class Scan:
    """The largest departure of every filter.

    Attributes
    ----------
    z : ndarray of shape (n_filters,)
        The signed z_d of largest modulus.
    delay : ndarray of shape (n_filters,)
        Its d, seconds.
    path : ndarray of shape (n_filters,)
        Radians.
    coincidences : ndarray of shape (n_filters,)
        m, at the delay.
    scale : float
        The median of |z| over its median under the null.
    """

    z: np.ndarray
    delay: np.ndarray
    path: np.ndarray
    coincidences: np.ndarray
    scale: float = 1.0

    @property
    def p_value(self) -> np.ndarray:
        """Of ``|z| / scale``, by the bound for the maximum."""
        u = np.abs(self.z) / self.scale
        return np.minimum(1, 2 * special.ndtr(-u) + self.path / np.pi * np.exp(-0.5 * u * u))


def shapes(kernel: np.ndarray, bin_size: float) -> tuple[np.ndarray, np.ndarray]:
    """Delays in seconds, and the coefficients of the shape of each, (n_delays, k).

    A bin of the filter holds the mean of the shape over the lags that it stands for. Left out are
    delays of which the basis makes less than a third, such as the end of a window.
    """
    latest = min(_LATEST, (kernel.shape[0] - 1) * bin_size)
    delays = np.arange(0, latest + 1e-9, max(_STEP, bin_size))
    edges = bin_size * np.arange(kernel.shape[0] + 1)
    since = np.maximum(edges[None, :] - delays[:, None], 0)
    mean = -np.diff(np.exp(-since / _DECAY), axis=1) * _DECAY / bin_size
    coef = scipy.linalg.lstsq(kernel, mean.T)[0].T
    likeness = np.linalg.norm(coef @ kernel.T, axis=1) / np.linalg.norm(mean, axis=1)
    kept = likeness >= min(_LIKE, likeness.max())
    return delays[kept], coef[kept]


def scan(
    filters: Filters, mean: np.ndarray | float = 0.0, confounding: np.ndarray | None = None
) -> Scan:
    """The scan of filters against a null.

    Memory: ``16 k (k + 20)`` bytes for each of 20,000 filters at a time.

    Parameters
    ----------
    filters : Filters
    mean : ndarray of shape (n_filters, k), or 0
        m.
    confounding : ndarray of shape (n_filters, k, k), optional
        What S has beyond V.
    """
    delays, coef = shapes(filters.kernel, filters.bin_size)
    residual, n = filters.coef - mean, len(filters.coef)
    covariance = filters.covariance + (0.0 if confounding is None else confounding)
    out = Scan(*np.empty((4, n)))
    for start in range(0, n, _CHUNK):
        part = slice(start, start + _CHUNK)
        z, way = _ways(residual[part], covariance[part], coef)
        white = _whitened(np.linalg.cholesky(filters.covariance[part]), coef)
        coincidences = _SKEWNESS * (white**2).sum(axis=1)
        z = np.where(z > 0, deviance_root(z, coincidences), z)
        best = np.arange(len(z)), np.abs(z).argmax(axis=1)
        out.z[part], out.delay[part] = z[best], delays[best[1]]
        out.coincidences[part] = coincidences[best]
        cosine = (way[:, 1:] * way[:, :-1]).sum(axis=2)
        out.path[part] = np.arccos(np.clip(cosine, -1, 1)).sum(axis=1)
    out.scale = _scale(out, residual, covariance, coef)
    return out


def deviance_root(z: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """The root of the deviance of a Poisson number that is z > 0 deviations above its mean."""
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = z / np.sqrt(mean)
        root = np.sqrt(2 * mean * ((1 + excess) * np.log1p(excess) - excess))
    # The series where the difference cancels.
    return np.where(excess < 1e-4, z * (1 - excess / 6), root)


def _scale(found, residual, covariance, coef):
    """The median of |z| over what it is under the null.

    At least 1 where most pairs are sparse, and a half elsewhere.
    """
    many = np.flatnonzero(found.coincidences >= _MANY)
    least = 0.5
    if 2 * len(many) < len(found.z):
        many, least = np.arange(len(found.z)), 1.0
    some = many[np.unique(np.linspace(0, len(many) - 1, min(len(many), _SAMPLE)).astype(np.int64))]
    _, way = _ways(residual[some], covariance[some], coef)
    draws = np.random.default_rng(0).normal(size=(len(some), way.shape[2], _DRAWS))
    expected = np.median(np.abs(way @ draws).max(axis=1))
    return max(least, np.median(np.abs(found.z[many])) / expected) if expected > 0 else 1.0


def _whitened(root, coef):
    """Shapes in units of the errors of each filter, (n_filters, k, n_delays)."""
    # Before NumPy 2 a table beside a stack of matrices is a stack of vectors.
    return np.linalg.solve(root, np.broadcast_to(coef.T, (len(root), *coef.T.shape)))


def _ways(residual, covariance, coef):
    """z_d of every filter, and the unit vectors ``S^-1/2 s_d``, (n_filters, n_delays, k)."""
    root = np.linalg.cholesky(covariance)
    white = _whitened(root, coef)
    size = np.linalg.norm(white, axis=1, keepdims=True)
    way = (white / np.maximum(size, np.finfo(float).tiny)).transpose(0, 2, 1)
    score = np.linalg.solve(root, residual[:, :, None])
    return (way @ score)[:, :, 0], way
