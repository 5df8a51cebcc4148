"""Does the model describe the data: time rescaling, explained deviance, bits per spike, stability.

With the expected counts mu of a receiver, over the bins where its history is complete and its
count is known,

| question | measure | none is left to explain at |
|---|---|---|
| are events where the model expects them? | `time_rescaling` | uniform intervals |
| how much of the variation is explained? | `deviance_explained`, `bits_per_spike` | 1; no bound |
| and of data that was not fitted? | `cross_validated` | the same |
| what does the network do when it runs on its own? | `stability`, `spectral_radius` | |

All but the last work on any data, held-out data included. They go over the bins chunk by chunk:
memory does not grow with n_bins * n_features.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.special import gammaln, xlogy
from sklearn.base import clone

from fastglm import _html
from fastglm._poisson import LOG_ZERO
from fastglm.features import FeatureMatrix
from fastglm.glm import _mean_count, fit_penalties
from fastglm.model_selection import split
from fastglm.simulation import gain_eigenvalues, read_key

_FEWEST = 5  # intervals that end in an event, below which a receiver is not tested
_HIGHEST = 1000.0  # events per bin at which a mean field counts as running away
_ROUNDING = 1e-12


# --- time rescaling ---


@dataclass
class Rescaling:
    """Rescaled intervals of every receiver, uniform if the model is right.

    Attributes
    ----------
    intervals : list of ndarray, one for each receiver
        ``u = 1 - exp(-tau)`` in the order of time.
    statistic : ndarray of shape (n_receivers,)
        Kolmogorov-Smirnov distance of the intervals from the uniform distribution; NaN where fewer
        than 5 intervals end in an event.
    p_value : ndarray of shape (n_receivers,)
        Of the statistic, from its exact distribution.
    n_intervals : ndarray of int, shape (n_receivers,)
    n_censored : ndarray of int, shape (n_receivers,)
        How many of the intervals an edge cut off; a draw from the model completes them.
    n_extra : ndarray of int, shape (n_receivers,)
        Bins have that many events beyond their first, which the intervals do not see.
    """

    intervals: list
    statistic: np.ndarray
    p_value: np.ndarray
    n_intervals: np.ndarray
    n_censored: np.ndarray
    n_extra: np.ndarray

    def __repr__(self):
        tested = np.isfinite(self.statistic)
        n_inside = int((self.statistic[tested] <= self.band()[tested]).sum())
        return (
            f"Rescaling of {int(self.n_intervals.sum()):,} intervals of {tested.size:,} receivers: "
            f"{n_inside:,} of {int(tested.sum()):,} tested inside the 95 % band"
        )

    def band(self, level=0.95):
        """Distance that a right model exceeds with probability ``1 - level``.

        ``c / sqrt(n_intervals)``, c the quantile of Kolmogorov's distribution: 1.36 for 95 %,
        1.63 for 99 %.

        Returns
        -------
        ndarray of shape (n_receivers,)
            NaN where the statistic is.

        Raises
        ------
        ValueError
            If the level is not between 0 and 1.
        """
        return self._over_root(stats.kstwobign.ppf(_level(level)))

    def autocorrelation(self, n_lags=20, level=0.95):
        """Autocorrelation of the intervals, which are independent if the model is right.

        Of the intervals made Gaussian, ``z = Phi^-1(u)``, at lags of 1 to n_lags intervals. The
        intervals on both sides of an edge count as neighbours.

        Returns
        -------
        correlation : ndarray of shape (n_lags, n_receivers)
            NaN where the statistic is, and where the lag leaves no pair.
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
        correlation = np.full((n_lags, len(self.intervals)), np.nan)
        for j in np.flatnonzero(np.isfinite(self.statistic)):
            z = stats.norm.ppf(np.clip(self.intervals[j], 1e-300, 1 - 2**-53))
            z = z - z.mean()
            power = z @ z
            for lag in range(1, min(n_lags, z.size - 1) + 1):
                correlation[lag - 1, j] = z[lag:] @ z[:-lag] / power if power > 0 else np.nan
        return correlation, self._over_root(stats.norm.ppf(0.5 + _level(level) / 2))

    def _over_root(self, quantile):
        tested = np.isfinite(self.statistic)
        return np.where(tested, quantile / np.sqrt(np.maximum(self.n_intervals, 1)), np.nan)


def time_rescaling(model, X, y, random_key=0):
    """Test whether events come when the model expects them: time rescaling with discrete bins.

    Between two events the expected counts add up to an interval that is exponential with mean 1
    if the model is right. A bin only says that its event came somewhere inside, so the last bin
    enters with a random part r of its probability of an event, ``p = 1 - exp(-mu)``:

        tau = sum_{bins between} mu - log(1 - r p),   r uniform,   u = 1 - exp(-tau)

    which is exact for any bin size (Haslinger, Pipa & Brown, 2010). Without the random part (Brown
    et al., 2002) a right model fails as soon as p is not small.

    Parameters
    ----------
    model : PopulationGLM or GLM
        Fitted.
    X, y
        As in `fit`. For events that were fitted too, the p-values are somewhat large: parameters
        were chosen to make them so. Held-out events have exact ones.
    random_key : int, array of int, numpy Generator or None
        Seed of the random parts. Those of a receiver do not depend on the other receivers.

    Returns
    -------
    Rescaling

    Raises
    ------
    ValueError
        If X or y does not fit the model, or no row of X is finite.

    Notes
    -----
    Edges: an interval begins at an event or at the first bin of a stretch of bins with complete
    history and known counts, and lies inside it. The last one of each stretch has no event. Left
    out, long intervals would be missing, and a right model would fail on short epochs (Wiener,
    2003); so it is completed with a draw from the model, which is an exponential once more, as if
    p were 1 after the edge. ``n_censored`` tells how many: where they are a large part of the
    intervals, the test sees little. With ordinary features a row of NaN separates epochs.

    Bins with several events count as bins with an event: that indicator is what the test is about.
    Where ``n_extra`` is a large part of the events, use smaller bins.

    Memory: three numbers an interval, and one chunk of rates.

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
    X, y = _read(model, X, y)
    n = y.n_units
    parts, n_extra = [], np.zeros(n, np.int64)
    open_sum, is_open, last = np.zeros(n), np.zeros(n, bool), -2
    for index, mu in model._rates(X):
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
        rate = np.where(known, np.minimum(mu.T, 1e300), 0.0)  # infinity stands for an edge
        starts = np.ones(end.shape, bool)
        starts[:, 1:] = end[:, :-1]
        starts = np.flatnonzero(starts)
        stops = np.append(starts[1:], end.size) - 1  # last bin, inclusive
        total = np.add.reduceat(np.where(event, 0.0, rate).ravel(), starts)
        receiver = starts // index.size
        total += np.where((starts % index.size == 0) & is_open[receiver], open_sum[receiver], 0.0)
        hit, seen, closed = (a.ravel()[stops] for a in (event, known, end))
        left = ~closed  # only the last stretch of a receiver
        is_open = np.zeros(n, bool)
        is_open[receiver[left]], open_sum[receiver[left]] = True, total[left]
        done = closed & seen
        chance = np.where(hit, rate.ravel()[stops], np.inf)
        parts.append((receiver[done], total[done], chance[done]))
        last = index[-1]
    parts.append((np.flatnonzero(is_open), open_sum[is_open], np.full(is_open.sum(), np.inf)))
    receiver, total, chance = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.argsort(receiver, kind="stable")
    edges = np.searchsorted(receiver[order], np.arange(n + 1))
    statistic, p_value, n_censored = np.full(n, np.nan), np.full(n, np.nan), np.zeros(n, np.int64)
    intervals = []
    for j, rng in enumerate(read_key(random_key).spawn(n)):
        some = order[edges[j] : edges[j + 1]]
        p = -np.expm1(-chance[some])  # 1 after an edge
        u = -np.expm1(-total[some] + np.log1p(-rng.random(some.size) * p))
        n_censored[j] = np.isinf(chance[some]).sum()
        if u.size - n_censored[j] >= _FEWEST:
            statistic[j], p_value[j] = stats.kstest(u, "uniform")[:2]
        intervals.append(u)
    n_intervals = np.array([u.size for u in intervals])
    return Rescaling(intervals, statistic, p_value, n_intervals, n_censored, n_extra)


# --- how much is explained ---


@dataclass
class HeldOut:
    """Scores of the bins that a fit has not seen, fold by fold.

    Attributes
    ----------
    deviance_explained : ndarray of shape (n_folds, n_receivers)
    bits_per_spike : ndarray of shape (n_folds, n_receivers)
    log_likelihood : ndarray of shape (n_folds, n_receivers)
        Mean over the held-out bins of ``y*log(mu) - mu - gammaln(y + 1)``.
    status : ndarray of str, shape (n_folds, n_receivers)
        How each fit ended, as ``status_`` of a model.
    """

    deviance_explained: np.ndarray
    bits_per_spike: np.ndarray
    log_likelihood: np.ndarray
    status: np.ndarray

    def __repr__(self):
        n_folds, n = self.status.shape
        return (
            f"HeldOut scores of {n:,} receivers in {n_folds} folds: deviance explained "
            f"{_html.span(self.deviance_explained)}, bits per spike "
            f"{_html.span(self.bits_per_spike)}; {_html.tally(self.status)}"
        )


def deviance_explained(model, X, y):
    """Part of the deviance that the model explains, receiver by receiver.

    ``1 - D / D0`` with the deviance ``D = 2 sum_t y log(y / mu) - (y - mu)`` and D0 that of each
    receiver's mean count over the same bins: 1 is perfect, 0 no better than the mean, and below
    is worse. For counts of mostly 0 and 1 even the true rate is far from 1.

    Parameters
    ----------
    model : PopulationGLM or GLM
        Fitted.
    X, y
        As in `fit`; any bins.

    Returns
    -------
    ndarray of shape (n_receivers,)
        NaN where the counts do not vary.

    Raises
    ------
    ValueError
        If X or y does not fit the model, or no row of X is finite.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> X = np.random.default_rng(0).normal(size=(1000, 2))
    >>> y = np.exp(X @ [[0.5], [-0.2]] + 0.1)  # nothing but the rate
    >>> fastglm.diagnostics.deviance_explained(fastglm.PopulationGLM().fit(X, y), X, y).round(6)
    array([1.])
    """
    X, y = _read(model, X, y)
    return _deviance_explained(_sums(model, X, y), None)


def bits_per_spike(model, X, y):
    """Information about each event that the model has beyond the mean count, in bits.

    ``(LL - LL0) / (n_events log 2)`` with the log-likelihood LL of the model and LL0 of each
    receiver's mean count over the same bins (Pillow et al., 2008).

    Parameters
    ----------
    model : PopulationGLM or GLM
        Fitted.
    X, y
        As in `fit`; any bins.

    Returns
    -------
    ndarray of shape (n_receivers,)
        NaN for a receiver without events.

    Raises
    ------
    ValueError
        If X or y does not fit the model, or no row of X is finite.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> X = np.repeat([[0.0], [1.0]], 500, axis=0)
    >>> y = np.repeat([[0.0], [2.0]], 500, axis=0)  # the rate doubles where events are
    >>> model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-9).fit(X, y)
    >>> fastglm.diagnostics.bits_per_spike(model, X, y).round(3)
    array([1.])
    """
    X, y = _read(model, X, y)
    return _bits_per_spike(_sums(model, X, y), None)


def cross_validated(model, X, y, folds=5):
    """Scores of held-out bins: the model is fitted again without each fold.

    The null model is the receiver's mean count over the bins of the fit, so a held-out score of 0
    is what a constant rate would have reached, and may be negative.

    Parameters
    ----------
    model : PopulationGLM or GLM
        Its parameters hold for every fit. Not changed, and need not be fitted.
    X, y
        As in `fit`.
    folds
        As in `fastglm.model_selection.cross_validate`: the same bins are fitted and scored, and
        no window reaches from one part into the other.

    Returns
    -------
    HeldOut
        NaN where a receiver has no events in the bins of the fit, and as in `deviance_explained`
        and `bits_per_spike`.

    Raises
    ------
    ValueError
        If X and y cannot be fitted, or a fold leaves no bins to fit or to score.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> counts = np.random.default_rng(0).poisson(0.2, size=(2000, 4))
    >>> X = fastglm.basis.RaisedCosineLogConv(4, window_size=20).compute_features(counts)
    >>> scores = fastglm.diagnostics.cross_validated(fastglm.PopulationGLM(), X, counts, folds=3)
    >>> scores.bits_per_spike.shape, bool(scores.bits_per_spike.mean() < 0)  # nothing to explain
    ((3, 4), True)
    """
    X, y, free, settings = model._read(X, y)
    penalty = model._read_penalty(X, free)
    deviance, bits, log_likelihood, status = [], [], [], []
    for k, (train, test) in enumerate(split(X, folds, y.n_bins)):
        fold = clone(model)
        log = f"fold {k + 1}"
        fold._finish(fit_penalties(X, y, train, free, [penalty], settings, log=log)[0])
        null = _mean_count(y, train)
        null[null == 0] = np.nan  # silent, or no bins: there is no null model
        sums = _sums(fold, FeatureMatrix(X.columns, test), y)
        deviance.append(_deviance_explained(sums, null))
        bits.append(_bits_per_spike(sums, null))
        log_likelihood.append(_divide(sums.model - sums.factorial, sums.n_bins))
        log_likelihood[-1][np.isnan(null)] = np.nan
        status.append(fold.status_)
    return HeldOut(*map(np.array, (deviance, bits, log_likelihood, status)))


@dataclass
class _Sums:
    """Sums over the scored bins of every receiver, each of shape (n_receivers,)."""

    n_bins: np.ndarray
    y: np.ndarray
    model: np.ndarray  # y log(mu) - mu
    perfect: np.ndarray  # y log(y) - y
    factorial: np.ndarray  # gammaln(y + 1)

    def null(self, rate):
        """``y log(rate) - rate`` for a constant rate; by default the mean count."""
        rate = _divide(self.y, self.n_bins) if rate is None else rate
        return xlogy(self.y, rate) - self.n_bins * rate


def _sums(model, X, y):
    n_bins, total = np.zeros(y.n_units), np.zeros(y.n_units)
    for index, mu in model._rates(X):
        counts = y.rows(index)
        known = ~np.isnan(counts)
        n_bins += known.sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            total += np.where(known, xlogy(counts, mu) - mu, 0.0).sum(axis=0)
    inside = X.valid[y.bins] & ~np.isnan(y.amplitudes)
    counts, units = y.amplitudes[inside], y.units[inside]
    perfect, factorial = xlogy(counts, counts) - counts, gammaln(counts + 1)
    sums = (np.bincount(units, value, y.n_units) for value in (counts, perfect, factorial))
    y_sum, perfect, factorial = sums
    return _Sums(n_bins, y_sum, total, perfect, factorial)


def _deviance_explained(sums, null_rate):
    whole = sums.perfect - sums.null(null_rate)
    # Counts that do not vary leave what rounding makes of zero.
    varies = whole > _ROUNDING * (np.abs(sums.perfect) + sums.y)
    return 1 - _divide(sums.perfect - sums.model, np.where(varies, whole, 0.0))


def _bits_per_spike(sums, null_rate):
    return _divide(sums.model - sums.null(null_rate), sums.y * np.log(2))


def _divide(a, b):
    """``a / b``, NaN where b is 0."""
    return np.where(b == 0, np.nan, a / np.where(b == 0, 1.0, b))


# --- stability ---


@dataclass
class Stability:
    """A fitted network that runs on its own, linearised around its mean rates.

    Attributes
    ----------
    rates : ndarray of shape (n_cells,)
        Expected events per bin around which the network is linearised.
    gain : ndarray of shape (n_cells, n_cells)
        Events of a receiver (column) that one event of a sender (row) adds, over all lags.
    radius : float
        Largest modulus of the gain's eigenvalues.
    leading : float
        Their largest real part.
    n_growing : int
        Number of modes of the linearised network that grow from bin to bin.
    """

    rates: np.ndarray
    gain: np.ndarray
    radius: float
    leading: float
    n_growing: int

    def __repr__(self):
        return (
            f"Stability of {self.rates.size:,} cells: radius {self.radius:.3g}, {self.n_growing} "
            "growing modes"
        )

    @property
    def stable(self):
        """Whether every small deviation from the rates dies away."""
        return self.n_growing == 0


def spectral_radius(model, kernel, rates=None):
    """How many events follow from one event, by the network's strongest mode.

    The largest modulus of the eigenvalues of the gain ``G_ij = sum_l h_ij(l) * r_j``, where
    h_ij is the filter from sender i to receiver j and r_j the expected events per bin of j (for the
    softplus link, the slope of the link at that rate). Where all filters excite, the network is
    stable exactly if it is below 1, as a Hawkes process is. Inhibition and refractoriness can make
    it exceed 1 without harm, because a strong negative feedback that is spread over lags dies away:
    `stability` decides such cases.

    Parameters
    ----------
    model, kernel, rates
        As in `stability`.

    Returns
    -------
    float

    Raises
    ------
    ValueError, RuntimeError
        As `stability`.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> counts = np.random.default_rng(0).poisson(0.2, size=(2000, 4))
    >>> basis = fastglm.basis.RaisedCosineLogConv(4, window_size=20)
    >>> X = basis.compute_features(counts)
    >>> model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-2)
    >>> model = model.fit(X, counts)
    >>> fastglm.diagnostics.spectral_radius(model, basis.kernel_, counts.mean(axis=0)) < 1
    True
    """
    _, _, slopes, area, _ = _network(model, kernel, rates)
    return float(np.abs(gain_eigenvalues(area, slopes)).max())


def stability(model, kernel, rates=None):
    """Whether a fitted network that runs on its own stays near its mean rates.

    A small deviation x of the mean counts from the rates r obeys, with filters h_ij from sender i
    to receiver j and the slope s_j of the link (r_j for the exponential),

        x_j(t) = sum_{i, l} s_j h_ij(l) x_i(t - l).

    It dies away if ``f(w) = det(I - sum_l w^l h(l) diag(s))`` has no zero inside the unit circle.
    Their number, ``n_growing``, is how often f goes around 0 while w goes around the circle, which
    is exact for filters of any sign. The gain at w = 1 tells the same more simply where all filters
    excite (see `spectral_radius`); an odd number of real eigenvalues above 1 always makes a mode
    grow.

    Parameters
    ----------
    model : PopulationGLM or GLM
        Fitted to features of the population's own counts: as many receivers as senders, in the
        same order, and no other features.
    kernel : ndarray of shape (window_size, n_basis_funcs), or basis
        ``basis.kernel_``, or the basis.
    rates : array of shape (n_cells,), optional
        Expected events per bin (not Hz), best the mean counts of the recording. Default: rates that
        sustain themselves, ``r = g(intercept + sum_l h(l)' r)``, looked for from silence on; where
        filters are strong there may be others. That mean field ignores fluctuations, which raise
        the rates of an exponential link.

    Returns
    -------
    Stability

    Raises
    ------
    ValueError
        If the features are not those of the population on itself, or rates or kernel do not fit.
    RuntimeError
        If no rates are given and none sustain themselves: the mean field runs away.

    Notes
    -----
    Stable is said of small deviations. The exponential link amplifies more at higher rates, so a
    rare burst may still carry a stable network away: `fastglm.simulation.simulate_recurrent` shows
    it.

    Cost: ``n_cells**3`` for the gain and some 8 times for each lag for the modes.

    References
    ----------
    Hawkes, A. G. (1971). Spectra of some self-exciting and mutually exciting point processes.
    Biometrika 58.

    Gerhard, F., Deger, M. & Truccolo, W. (2017). On the stability and dynamics of stochastic
    spiking neuron models: nonlinear Hawkes process and point process GLMs. PLoS Computational
    Biology 13.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> counts = np.random.default_rng(0).poisson(0.2, size=(2000, 4))
    >>> basis = fastglm.basis.RaisedCosineLogConv(4, window_size=20)
    >>> X = basis.compute_features(counts)
    >>> model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-2)
    >>> stability = fastglm.diagnostics.stability(model.fit(X, counts), basis)
    >>> stability.gain.shape, stability.stable
    ((4, 4), True)
    """
    kernel, rates, slopes, area, coupling = _network(model, kernel, rates)
    values = gain_eigenvalues(area, slopes)
    n_growing = _n_growing(kernel, coupling * slopes)
    gain = area * slopes
    return Stability(rates, gain, float(np.abs(values).max()), float(values.real.max()), n_growing)


def _network(model, kernel, rates):
    """Kernel, rates, slopes of the link, summed filters, (sender, function, receiver) couplings."""
    model._check_fitted()
    link, coef = model._link(), model._coef()
    kernel = np.asarray(getattr(kernel, "kernel_", kernel), np.float64)
    n = coef.shape[1]
    if kernel.ndim != 2 or kernel.size == 0:
        raise ValueError(
            f"kernel has shape {kernel.shape}; expected (window_size, n_basis_funcs). Pass "
            "basis.kernel_, or the basis."
        )
    n_funcs = kernel.shape[1]
    if coef.shape[0] != n * n_funcs:
        raise ValueError(
            f"The model has {coef.shape[0]} features for {n} receivers and the kernel {n_funcs} "
            f"functions; expected {n} * {n_funcs}: the history of the same cells, and nothing "
            "else. Fit the population on itself with this basis."
        )
    lost = np.flatnonzero(~np.isfinite(coef).all(axis=0) | ~np.isfinite(model.intercept_))
    if lost.size:
        raise ValueError(
            f"Receivers {lost.tolist()[:10]} have no coefficients (see status_); expected a fit of "
            "every cell. Leave them out as senders and receivers."
        )
    coupling = coef.reshape(n, n_funcs, n)
    area = np.einsum("b,ibj->ij", kernel.sum(axis=0), coupling)
    if rates is None:
        rates = _sustained(area, np.asarray(model.intercept_), link)
    rates = np.asarray(rates, np.float64)
    if rates.shape != (n,) or not (np.isfinite(rates).all() and (rates >= 0).all()):
        raise ValueError(
            f"rates has shape {rates.shape}; expected {n} finite numbers, not negative, in events "
            "per bin. Pass counts.mean(axis=0)?"
        )
    eta = link.eta(np.maximum(rates, np.exp(LOG_ZERO)))
    return kernel, rates, _slope(link, eta), area, coupling


def _slope(link, eta):
    """``d mu / d eta``: the residual of a bin without events."""
    return link.derivatives(eta, 0.0)[1]


def _sustained(area, intercept, link):
    """Rates with ``r = g(intercept + r @ area)``, along ``dr/dt = g(...) - r`` from silence.

    Implicit Euler steps, longer as the gap closes, which end as Newton's.
    """
    rates, first = np.zeros(intercept.size), None
    for _ in range(1000):
        eta = intercept + rates @ area
        gap = link.rate(eta) - rates
        size = np.abs(gap).max()
        if not size <= _HIGHEST:
            break
        if size <= _ROUNDING * max(rates.max(), np.exp(LOG_ZERO)):
            return rates
        first = size if first is None else first
        system = (1 + size / first) * np.eye(rates.size) - area * _slope(link, eta)
        rates = np.maximum(rates + np.linalg.solve(system.T, gap), 0.0)
    raise RuntimeError(
        "No rates sustain themselves: the mean field of the network runs away, because its "
        "excitation feeds itself. Pass rates=counts.mean(axis=0), or fit with a ridge."
    )


def _n_growing(kernel, coupling):
    """Zeros of ``det(I - sum_l w^l h(l))`` inside the unit circle, by the argument principle."""
    window_size, n = kernel.shape[0], coupling.shape[2]
    lags = np.arange(1, window_size + 1)

    def sign(angle):
        weights = np.exp(1j * angle * lags) @ kernel
        return np.linalg.slogdet(np.eye(n) - np.einsum("b,ibj->ij", weights, coupling))[0]

    # The lower half of the circle mirrors the upper one. Steps are halved until none is wide.
    angles = np.linspace(0, np.pi, 8 * window_size + 1)
    signs = np.array([sign(a) for a in angles])
    for _ in range(40):
        steps = np.angle(signs[1:] * signs[:-1].conj())
        wide = np.flatnonzero(np.abs(steps) > np.pi / 4)
        if wide.size == 0:
            break
        middle = 0.5 * (angles[wide] + angles[wide + 1])
        angles = np.insert(angles, wide + 1, middle)
        signs = np.insert(signs, wide + 1, [sign(a) for a in middle])
    return int(np.rint(steps.sum() / np.pi))


# --- reading of inputs ---


def _read(model, X, y):
    """X and y as the model reads them; raises on what does not fit it."""
    X = model._check_fitted(X)
    y = model._read_counts(y, X)
    n = model._coef().shape[1]
    if (y.n_bins, y.n_units) != (X.shape[0], n):
        raise ValueError(
            f"y has shape {(y.n_bins, y.n_units)}; expected (n_bins, n_receivers) = "
            f"{(X.shape[0], n)}."
        )
    if not X.valid.any():
        raise ValueError(
            f"None of the {X.shape[0]} rows of X is finite. A row needs a whole window of history "
            "in its epoch: use longer epochs or a shorter window."
        )
    return X, y


def _level(level):
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; expected a number between 0 and 1, such as 0.95.")
    return level


__all__ = [
    "HeldOut",
    "Rescaling",
    "Stability",
    "bits_per_spike",
    "cross_validated",
    "deviance_explained",
    "spectral_radius",
    "stability",
    "time_rescaling",
]
