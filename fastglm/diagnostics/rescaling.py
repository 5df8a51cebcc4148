"""Time rescaling: a test whether events come when the model expects them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from fastglm._checks import DEFAULT_KEY, check_share, read_key
from fastglm.diagnostics.explained import read_fit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_FEWEST = 5  # a receiver with fewer intervals that end in an event is not tested


@dataclass
class Rescaling:
    """Rescaled intervals of every receiver, uniform if the model is right.

    Attributes
    ----------
    intervals : list of ndarray, one for each receiver
        ``u = 1 - exp(-tau)`` in the order of time.
    statistic : ndarray of shape (n_receivers,)
        Kolmogorov-Smirnov distance of the intervals from the uniform distribution. NaN if fewer
        than 5 intervals end in an event.
    p_value : ndarray of shape (n_receivers,)
        Of the statistic, from its exact distribution.
    n_intervals : ndarray of int, shape (n_receivers,)
    n_censored : ndarray of int, shape (n_receivers,)
        Number of intervals that an edge cut off; a draw from the model completes them.
    n_extra : ndarray of int, shape (n_receivers,)
        Number of events beyond the first event of their bin; the intervals do not see them.
    names : list or None
        Names of the receivers, if the counts of the fit had names.
    """

    intervals: list
    statistic: np.ndarray
    p_value: np.ndarray
    n_intervals: np.ndarray
    n_censored: np.ndarray
    n_extra: np.ndarray
    names: list | None = None

    def __repr__(self) -> str:
        tested = np.isfinite(self.statistic)
        n_inside = int((self.statistic[tested] <= self.band()[tested]).sum())
        return (
            f"Rescaling of {int(self.n_intervals.sum()):,} intervals of {tested.size:,} receivers: "
            f"{n_inside:,} of {int(tested.sum()):,} tested inside the 95 % band"
        )

    def band(self, level: float = 0.95) -> np.ndarray:
        """Distance that a correct model exceeds with probability ``1 - level``.

        The distance is ``c / sqrt(n_intervals)``. c is the quantile of Kolmogorov's distribution:
        1.36 for 95 %, 1.63 for 99 %.

        Returns
        -------
        ndarray of shape (n_receivers,)
            NaN where the statistic is NaN.

        Raises
        ------
        ValueError
            If the level is not between 0 and 1.
        """
        check_share("level", level)
        return self._over_root(stats.kstwobign.ppf(level))

    def autocorrelation(
        self, n_lags: int = 20, level: float = 0.95
    ) -> tuple[np.ndarray, np.ndarray]:
        """Autocorrelation of the intervals, which are independent if the model is right.

        The intervals are made Gaussian, ``z = Phi^-1(u)``, and compared at lags of 1 to n_lags
        intervals. The intervals on both sides of an edge count as neighbours.

        Returns
        -------
        correlation : ndarray of shape (n_lags, n_receivers)
            NaN where the statistic is NaN, and where no two intervals are that lag apart.
        band : ndarray of shape (n_receivers,)
            Size that one correlation of independent intervals exceeds with probability
            ``1 - level``.

        Raises
        ------
        ValueError
            If n_lags is not a positive integer, or the level is not between 0 and 1.
        """
        if not isinstance(n_lags, int | np.integer) or n_lags < 1:
            raise ValueError(f"n_lags is {n_lags!r}; expected a positive integer, such as 20.")
        check_share("level", level)
        correlation = np.full((n_lags, len(self.intervals)), np.nan)
        for j in np.flatnonzero(np.isfinite(self.statistic)):
            z = stats.norm.ppf(np.clip(self.intervals[j], 1e-300, 1 - 2**-53))
            z = z - z.mean()
            power = z @ z
            for lag in range(1, min(n_lags, z.size - 1) + 1):
                correlation[lag - 1, j] = z[lag:] @ z[:-lag] / power if power > 0 else np.nan
        return correlation, self._over_root(stats.norm.ppf(0.5 + level / 2))

    def _over_root(self, quantile):
        tested = np.isfinite(self.statistic)
        return np.where(tested, quantile / np.sqrt(np.maximum(self.n_intervals, 1)), np.nan)


def time_rescaling(
    model: object,
    X: object,
    y: object,
    random_key: object = DEFAULT_KEY,
    *,
    random_state: object = None,
    sample_weight: ArrayLike | None = None,
    offset: ArrayLike | None = None,
) -> Rescaling:
    """Test whether events come when the model expects them: time rescaling with discrete bins.

    A bin has an event with probability p. It adds ``-log(1 - p)`` to the rescaled interval between
    two events. For Poisson counts ``p = 1 - exp(-mu)``, and the bin adds mu; for Bernoulli
    ``p = mu``. If the model is right, the rescaled interval is exponential with mean 1. The time of
    an event inside its bin is not known, so the last bin enters with a random part r of its p:

        tau = sum_{bins between} -log(1 - p) - log(1 - r p),   r uniform,   u = 1 - exp(-tau)

    The intervals are exact for any bin size (Haslinger, Pipa & Brown, 2010). Without the random
    part (Brown et al., 2002) a correct model fails the test if p is not small.

    Parameters
    ----------
    model : PopulationGLM or GLM
        Fitted.
    X, y
        As in `fit`. Held-out events have exact p-values. For events of the fit the p-values are
        somewhat too large, because the parameters were fitted to these events.
    random_key : int, array of int, numpy Generator or None
        Seed of the random parts. The draws of a receiver do not depend on the other receivers.
    random_state : int, numpy RandomState or Generator, optional
        The name of scikit-learn for ``random_key``; one of them.
    sample_weight, offset
        As in `fit`. A bin of weight 0 is left out; other weights do not count.

    Returns
    -------
    Rescaling

    Raises
    ------
    ValueError
        If X or y does not fit the model, no row of X is finite, the fit had an offset and no offset
        is given, or the observations are Gaussian, which are not events.

    Notes
    -----
    Edges: a stretch is a run of bins with complete history and known counts. An interval begins at
    an event or at the first bin of a stretch, and lies inside the stretch. The last interval of a
    stretch has no event. If such intervals were left out, long intervals would be missing, and a
    correct model would fail on short epochs (Wiener, 2003). Therefore an exponential draw from the
    model completes them. ``n_censored`` is the number of completed intervals; if they are a large
    part of all intervals, the test has little power. With ordinary features a row of NaN separates
    epochs.

    Bins: a bin with several events counts as a bin with one event. If ``n_extra`` is a large part
    of the events, use smaller bins.

    Memory: three numbers for each interval, and one chunk of rates.

    References
    ----------
    Brown, E. N., Barbieri, R., Ventura, V., Kass, R. E. & Frank, L. M. (2002). The time-rescaling
    theorem and its application to neural spike train data analysis. Neural Computation 14.

    Haslinger, R., Pipa, G. & Brown, E. (2010). Discrete time rescaling theorem: determining
    goodness of fit for discrete time statistical models of neural spiking. Neural Computation 22.

    Wiener, M. C. (2003). An adjustment to the time-rescaling method for application to short-trial
    spike train data. Neural Computation 15.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> counts = np.random.default_rng(0).poisson(0.2, size=(2000, 4))
    >>> X = fastglm.basis.RaisedCosineLogConv(4, window_size=20).compute_features(counts)
    >>> model = fastglm.PopulationGLM().fit(X, counts)
    >>> rescaling = fastglm.diagnostics.time_rescaling(model, X, counts)
    >>> bool((rescaling.statistic < rescaling.band()).all())
    True
    """
    fit = read_fit(model, X, y, sample_weight, offset, needs=("offset",))
    receiver, total, chance, n_extra = _stretches(fit)
    n = fit.n_receivers
    order = np.argsort(receiver, kind="stable")
    edges = np.searchsorted(receiver[order], np.arange(n + 1))
    statistic, p_value, n_censored = np.full(n, np.nan), np.full(n, np.nan), np.zeros(n, np.int64)
    intervals = []
    for j, rng in enumerate(read_key(random_key, random_state).spawn(n)):
        some = order[edges[j] : edges[j + 1]]
        p = -np.expm1(-chance[some])  # 1 after an edge
        u = -np.expm1(-total[some] + np.log1p(-rng.random(some.size) * p))
        n_censored[j] = np.isinf(chance[some]).sum()
        if u.size - n_censored[j] >= _FEWEST:
            statistic[j], p_value[j] = stats.kstest(u, "uniform")[:2]
        intervals.append(u)
    n_intervals = np.array([u.size for u in intervals])
    names = None if fit.receivers is None else list(fit.receivers.names)
    return Rescaling(intervals, statistic, p_value, n_intervals, n_censored, n_extra, names)


def _stretches(fit):
    """Stretches of bins that end in an event or at an edge, in the order of time.

    Returns
    -------
    receiver : ndarray of int
    total : ndarray
        Sum of the hazard over the bins before the last bin.
    chance : ndarray
        Hazard of the last bin, which holds the event; infinity at an edge.
    n_extra : ndarray of int, shape (n_receivers,)
    """
    n, y = fit.n_receivers, fit.y
    parts, n_extra = [], np.zeros(n, np.int64)
    open_sum, is_open, last = np.zeros(n), np.zeros(n, bool), -2
    for index, mu in fit.rates():
        if index.size == 0:
            continue
        # Receiver by receiver, one after the other, so that sums over stretches are one reduceat.
        counts = y.rows(index).T
        known = ~np.isnan(counts)
        event = known & (counts > 0)
        n_extra += np.where(event, np.ceil(counts) - 1, 0).sum(axis=1).astype(np.int64)
        # A stretch that the last chunk left open goes on, or ends at an edge between the chunks.
        cut = is_open & (~known[:, 0] | (index[0] != last + 1))
        parts.append((np.flatnonzero(cut), open_sum[cut], np.full(cut.sum(), np.inf)))
        is_open &= ~cut
        end = event | ~known
        end[:, :-1] |= ~known[:, 1:] | (np.diff(index) != 1)
        hazard = np.minimum(
            fit.family.hazard(mu, fit.scale).T, 1e300
        )  # infinity stands for an edge
        hazard = np.where(known, hazard, 0.0)
        starts = np.ones(end.shape, bool)
        starts[:, 1:] = end[:, :-1]
        starts = np.flatnonzero(starts)
        stops = np.append(starts[1:], end.size) - 1  # last bin, inclusive
        total = np.add.reduceat(np.where(event, 0.0, hazard).ravel(), starts)
        receiver = starts // index.size
        total += np.where((starts % index.size == 0) & is_open[receiver], open_sum[receiver], 0.0)
        hit, seen, closed = (a.ravel()[stops] for a in (event, known, end))
        left = ~closed  # only the last stretch of a receiver
        is_open = np.zeros(n, bool)
        is_open[receiver[left]], open_sum[receiver[left]] = True, total[left]
        done = closed & seen
        chance = np.where(hit, hazard.ravel()[stops], np.inf)
        parts.append((receiver[done], total[done], chance[done]))
        last = index[-1]
    parts.append((np.flatnonzero(is_open), open_sum[is_open], np.full(is_open.sum(), np.inf)))
    receiver, total, chance = (np.concatenate(part) for part in zip(*parts, strict=True))
    return receiver, total, chance, n_extra
