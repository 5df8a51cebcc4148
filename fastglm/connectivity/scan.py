"""Whether a filter departs from the null in the shape of a synapse.

The shapes s_d of a synapse at delays d of 0 to 19 ms are those of `fastglm.connectivity.synapse`,
with a decay of 6 ms. For a filter c whose null is normal with mean m and covariance S

    z_d = s_d' S^-1 (c - m) / sqrt(s_d' S^-1 s_d)

is standard normal for every d, and the statistic is the z_d of largest modulus. Slow drive moves
the whole filter: it is in S, and S^-1 takes it out of z_d.

The probability of the largest |z_d| under the null is bounded as for a smooth path of standard
normal numbers (Davies, 1977):

    P(max |z_d| > u) <= 2 Phi(-u) + (path / pi) exp(-u^2 / 2)

where path is the length of the way of ``S^-1/2 s_d / |S^-1/2 s_d|`` on the sphere, the sum of the
angles between neighbours.

What unobserved input does is less regular than a normal number: it is a sum of a few inputs. The
more of z_d it is, the more this shows. With ``share_d = 1 - s_d' S^-1 V S^-1 s_d / s_d' S^-1 s_d``,
the part of the variance of z_d that is not error, a part ``0.35 share_d^3`` of the pairs is taken
to have four times the confounding, which makes z_d wider by ``sqrt(1 + 3 share_d)``: 0.5 % of the
pairs at a share of a quarter, 12 % at 0.7. The number is from networks with known connections.

What a filter is made of are coincidences, spikes of the receiver under the shape after a spike of
the sender. Their number is a Poisson number and not a normal one: 2 where 0.1 are expected are not
six standard deviations. For the exponential shape a sum of weights has the skewness of a Poisson
number with mean ``m = 2.25 s_d' V^-1 s_d``. A positive z_d stands for ``k = m + z_d sqrt(m)``
coincidences, and becomes the root of their deviance, ``sqrt(2 (k log(k / m) - k + m))``. A negative
one stays: the estimate of a log rate errs to the other side.

Most pairs have no coupling, so the median of |z| must agree with its median under the null (central
matching: Efron, 2004). The ratio of the two, over pairs with at least five coincidences, divides z.

Pairs of one channel are scanned without their first 2 ms; see `fastglm.connectivity.shadows`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from fastglm._kernels.threads import run_threads
from fastglm.connectivity.filters import Filters, evenly, in_parts
from fastglm.connectivity.null import Bulk, is_slow
from fastglm.connectivity.shadows import n_hidden, without
from fastglm.connectivity.synapse import shapes

_DECAY = 0.006  # seconds
_ODD, _WIDER = 0.35, 4.0  # part of the pairs with more confounding at a share of 1, and how much
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
    coincidences, share : ndarrays of shape (n_filters,)
        m and share_d, at the delay.
    scale : float
        The median of |z| over its median under the null.
    calibration : float
        How often a filter of the null has a p-value of 0.01, over 0.01; p-values are times it.
    slow : ndarray of bool, shape (n_filters,), or False
        Whether slow input explains the filter better than a synapse; its p-value is 1.
    """

    z: np.ndarray
    delay: np.ndarray
    path: np.ndarray
    coincidences: np.ndarray
    share: np.ndarray
    scale: float = 1.0
    calibration: float = 1.0
    slow: np.ndarray | bool = False

    @property
    def p_value(self) -> np.ndarray:
        """Of ``|z| / scale``, by the bound for the maximum."""
        p = np.empty(self.z.size)
        for part in in_parts(p.size):
            u, share = np.abs(self.z[part]) / self.scale, self.share[part]
            wider, odd = u / np.sqrt(1 + (_WIDER - 1) * share), _ODD * share**3
            p[part] = (1 - odd) * largest_p_value(u, self.path[part])
            p[part] += odd * largest_p_value(wider, self.path[part])
        np.minimum(1, self.calibration * p, out=p)
        p[self.slow] = 1.0
        return p


def largest_p_value(u: np.ndarray, path: np.ndarray) -> np.ndarray:
    """The bound for ``P(max |z_d| > u)`` of standard normal z_d on a path."""
    return np.minimum(1, 2 * special.ndtr(-u) + path / np.pi * np.exp(-0.5 * u * u))


@dataclass
class Against:
    """A null that filters are scanned against.

    Attributes
    ----------
    mean : array of shape (n_filters, k), or 0
        m.
    confounding : array of shape (n_filters, k, k), optional
        What S has beyond V; an object that makes the rows which are read will do.
    bulk : Bulk, optional
        Whose slow input a filter may be.
    """

    mean: np.ndarray | float = 0.0
    confounding: object = None
    bulk: Bulk | None = None


def scan(
    filters: Filters, mean: np.ndarray | float = 0.0, confounding: np.ndarray | None = None
) -> Scan:
    """The scan of filters against one null; see `Against`."""
    return scans(filters, [Against(mean, confounding)])[0]


def scans(filters: Filters, nulls: list[Against]) -> list[Scan]:
    """The scans of filters against some nulls.

    Memory: 41 bytes a filter for each scan, and ``16 k (k + 20)`` bytes for each of some thousand
    filters that a thread works on.

    Parameters
    ----------
    filters : Filters
    nulls : list of Against
    """
    delays, coef = synapses(filters)
    n = len(filters.coef)
    found = [Scan(*np.zeros((5, n)), slow=np.zeros(n, bool)) for _ in nulls]

    def add(item):
        part, first, hidden = item
        own = filters.covariance[part]
        white = _whitened(np.linalg.cholesky(own), coef[first:], hidden)
        coincidences = _SKEWNESS * (white**2).sum(axis=1)
        for out, null in zip(found, nulls, strict=True):
            total = own if null.confounding is None else own + null.confounding[part]
            ways = Ways(total, coef[first:], hidden)
            residual = filters.coef[part] - (null.mean[part] if np.ndim(null.mean) else null.mean)
            z = ways.departures(residual[:, :, None])[:, :, 0]
            z = np.where(z > 0, deviance_root(z, coincidences), z)
            best = np.arange(len(z)), np.abs(z).argmax(axis=1)
            out.z[part], out.delay[part] = z[best], delays[first + best[1]]
            out.coincidences[part], out.path[part] = coincidences[best], ways.path
            if null.confounding is not None:
                out.share[part] = ways.share(best, null.confounding[part])
            if null.bulk is not None:
                out.slow[part] = is_slow(filters, null.bulk, part, total)

    run_threads(add, list(_parts(filters, delays)))
    for out, null in zip(found, nulls, strict=True):
        out.scale = _scale(out, filters, null, coef)
    return found


def _parts(filters, delays):
    """Numbers of filters that are scanned at a time, their first delay, and what is hidden."""
    early = n_hidden(len(filters.kernel), filters.bin_size) * filters.bin_size
    late = min(np.searchsorted(delays, early - 1e-9), len(delays) - 1)
    for shadowed, first in ((False, 0), (True, late)):
        rows = np.flatnonzero(filters.shadowed == shadowed)
        for part in in_parts(rows.size):
            yield rows[part], first, filters.hidden if shadowed else None


def synapses(filters: Filters) -> tuple[np.ndarray, np.ndarray]:
    """Delays of the scan in seconds, and the coefficients of s_d, (n_delays, k)."""
    return shapes(filters.kernel, filters.bin_size, _DECAY)


class Ways:
    """The unit vectors ``S^-1/2 s_d`` of every filter, ``unit`` of shape (n_filters, n_delays, k).

    Parameters
    ----------
    covariance : ndarray of shape (n_filters, k, k)
        S.
    coef : ndarray of shape (n_delays, k)
        s_d.
    hidden : ndarray of shape (k, n_directions), optional
        What is left out of them.
    """

    def __init__(self, covariance: np.ndarray, coef: np.ndarray, hidden: np.ndarray | None = None):
        self.root = np.linalg.cholesky(covariance)
        white = _whitened(self.root, coef, hidden)
        size = np.linalg.norm(white, axis=1, keepdims=True)
        self.unit = (white / np.maximum(size, np.finfo(float).tiny)).transpose(0, 2, 1)

    def departures(self, residual: np.ndarray) -> np.ndarray:
        """z_d of residuals (n_filters, k, m): (n_filters, n_delays, m)."""
        return self.unit @ np.linalg.solve(self.root, residual)

    @property
    def path(self) -> np.ndarray:
        """The length of the way of every filter, radians."""
        cosine = (self.unit[:, 1:] * self.unit[:, :-1]).sum(axis=2)
        return np.arccos(np.clip(cosine, -1, 1)).sum(axis=1)

    def share(self, best: tuple, confounding: np.ndarray) -> np.ndarray:
        """share_d of every filter at one delay."""
        x = np.linalg.solve(self.root.transpose(0, 2, 1), self.unit[best][:, :, None])[:, :, 0]
        return np.einsum("na,nab,nb->n", x, confounding, x)


def deviance_root(z: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """The root of the deviance of a Poisson number that is z > 0 deviations above its mean."""
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = z / np.sqrt(mean)
        root = np.sqrt(2 * mean * ((1 + excess) * np.log1p(excess) - excess))
    # The series where the difference cancels.
    return np.where(excess < 1e-4, z * (1 - excess / 6), root)


def _scale(found, filters, null, coef):
    """The median of |z| over what it is under the null, of pairs that are not of one channel.

    At least 1 where most pairs are sparse, and a half elsewhere.
    """
    lit = filters.lit
    if lit.size == 0:
        return 1.0
    many, least = lit[found.coincidences[lit] >= _MANY], 0.5
    if 2 * len(many) < len(lit):
        many, least = lit, 1.0
    some = evenly(many, _SAMPLE)
    draws = np.random.default_rng(0).normal(size=(len(some), coef.shape[1], _DRAWS))
    total = filters.covariance[some]
    if null.confounding is not None:
        total = total + null.confounding[some]
    expected = np.median(np.abs(Ways(total, coef).unit @ draws).max(axis=1))
    return max(least, np.median(np.abs(found.z[many])) / expected) if expected > 0 else 1.0


def _whitened(root, coef, hidden=None):
    """Shapes in units of the errors of each filter, (n_filters, k, n_delays)."""
    # Before NumPy 2 a table beside a stack of matrices is a stack of vectors.
    white = np.linalg.solve(root, np.broadcast_to(coef.T, (len(root), *coef.T.shape)))
    return without(hidden, root, white)
