"""What many cells share, as features beside the couplings: drift, activity, factors of residuals.

`infer_connectivity` has the pooled activity at four timescales. The functions here offer more.
`slow_drift` is a covariate of all cells. The other two leave the receiver out, so that no cell
explains itself; beside the features they return a mask, which says which features each cell may
use, for ``PopulationGLM(feature_mask=...)``.

*Leaving the receiver out.* Let ``P = sum_i f_i`` be the past events of all cells, filtered over a
timescale, and f_j the same of the receiver j alone. The activity of the others is ``P - f_j``. A
term ``beta (P - f_j)`` for each receiver would take a column for each receiver. But
``beta P + gamma f_j`` contains it, with ``gamma = -beta``: one column for all receivers, and one
of its own for each cell. The second term is own history at that timescale. So a fit with P alone is
one with ``P - f_j`` whose own history has ``beta f_j`` added. Where the own history of the fit can
follow the timescale, nothing is lost. With a ridge the two differ by the prior of gamma.

*Factors of residuals.* The first principal components of what a first fit leaves over, in windows
of some 30 ms. Scores of the same window hold the receiver's own events, from which it would predict
itself; its own part is therefore subtracted, and every cell has scores of its own. They see the
same time and, once smoothed, the next windows, as a latent variable does. They are no history, and
take up a part of couplings that are as slow as the windows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastglm._checks import is_number, positive_int
from fastglm._fitted import Fitted
from fastglm.basis.identity import HistoryConv
from fastglm.basis.splines import BSplineEval
from fastglm.features.events import Events
from fastglm.features.held import hold
from fastglm.features.history import HistoryColumns
from fastglm.features.matrix import FeatureMatrix, hstack
from fastglm.recordings.times import check_bin_size

TIMESCALES = 0.02, 0.1, 1.0, 10.0  # seconds
_WINDOW = 0.05  # seconds of history: a shorter timescale is a history, a longer one is held
_PER_TIMESCALE = 20  # samples of a spline between two knots


def slow_drift(
    n_bins: int, bin_size: float, timescale: float = 60.0, label: str = "drift"
) -> FeatureMatrix:
    """Cubic splines of time with a knot every ``timescale``, held at their own rate.

    Parameters
    ----------
    n_bins : int
    bin_size, timescale : float
        Seconds.
    label : str

    Returns
    -------
    FeatureMatrix of shape (n_bins, n_knots + 2)
        20 samples for each knot are kept. The splines add up to 1: beside an intercept a ridge
        chooses the shortest of equal answers.

    Raises
    ------
    ValueError
        If the timescale is shorter than two bins.

    Examples
    --------
    >>> from fastglm.connectivity import slow_drift
    >>> drift = slow_drift(600_000, 0.001, timescale=60)  # ten minutes
    >>> drift.shape, drift.blocks[0].values.shape
    ((600000, 13), (200, 13))
    """
    check_bin_size(bin_size)
    n_bins, tau = positive_int("n_bins", n_bins), _in_bins(timescale, bin_size)
    every = max(int(tau / _PER_TIMESCALE), 1)
    n_samples = -(-n_bins // every)
    middle = np.minimum((np.arange(n_samples) + 0.5) * every, n_bins)
    splines = BSplineEval(int(np.ceil(n_bins / tau)) + 3, bounds=(0, n_bins), label=label)
    return splines.compute_features(hold(middle, n_bins, every=every))


def population_activity(
    counts: object,
    bin_size: float,
    timescales: Sequence[float] = TIMESCALES,
    epochs: object | None = None,
) -> tuple[FeatureMatrix, np.ndarray]:
    """Past activity of all cells but the receiver, at several timescales.

    Parameters
    ----------
    counts : array of shape (n_bins, n_cells), or what else ``compute_features`` takes
    bin_size : float
        Seconds.
    timescales : sequence of float
        Time constants of the exponential filters, seconds.
    epochs : optional
        As in ``compute_features``.

    Returns
    -------
    X : FeatureMatrix of shape (n_bins, n_timescales * (1 + n_cells))
        For each timescale a column of all cells ("activity") and one of each cell
        ("own_activity"), all with variance 1. Together they hold the activity of the others; see
        the head of this module. Timescales above 50 ms are kept at a quarter of themselves: 32
        bytes for each cell and timescale.
    mask : ndarray of bool, shape (n_features, n_cells)
        A cell takes its own column only.

    Raises
    ------
    ValueError
        If a timescale is shorter than two bins, or counts and epochs are not usable.

    Examples
    --------
    >>> import numpy as np
    >>> from fastglm.connectivity import population_activity
    >>> counts = np.random.default_rng(0).poisson(0.02, size=(20_000, 5))
    >>> X, mask = population_activity(counts, 0.001, timescales=(0.02, 1.0))
    >>> X.shape, mask.sum(axis=0).tolist()
    ((20000, 12), [4, 4, 4, 4, 4])
    >>> X.labels
    ['activity_20', 'own_activity_20', 'activity_1000', 'own_activity_1000']
    """
    check_bin_size(bin_size)
    window = max(round(_WINDOW / bin_size), 1)
    (block,) = HistoryConv(window).compute_features(counts, epochs=epochs).blocks
    block = block.by_events()
    parts, masks, n = [], [], block.n_senders
    for timescale in timescales:
        tau = round(_in_bins(timescale, bin_size), 3)
        both = pooled(block, tau), _of_each(block, tau)
        for part, free in zip(both, (np.ones((1, n), bool), np.eye(n, dtype=bool)), strict=True):
            if part is not None:
                parts.append(part)
                masks.append(free)
    if not parts:
        raise ValueError("counts hold no event whose activity could be followed.")
    return hstack(parts), np.concatenate(masks)


def residual_factors(
    model: object,
    X: object,
    y: object,
    bin_size: float,
    n_factors: int = 3,
    width: float = 0.03,
    smoothing: float = 0.05,
) -> tuple[FeatureMatrix, np.ndarray]:
    """Latent factors of what a first fit leaves over, without the receiver, held at their own rate.

    With events y and rates mu, the residual of a cell in a window is
    ``sum(y - mu) / sqrt(sum(mu))``. Smoothed over time, it is a table R of windows x cells, with
    principal axes W. The scores for receiver j are ``R W - r_j w_j'``, divided by their standard
    deviation.

    Parameters
    ----------
    model, X, y
        A fitted `PopulationGLM` and the data of its fit.
    bin_size : float
        Seconds.
    n_factors : int
    width, smoothing : float
        Length of a window, and standard deviation of the Gaussian that smooths, seconds.

    Returns
    -------
    X : FeatureMatrix of shape (n_bins, n_cells * n_factors)
        Factors of receiver 0, of receiver 1, ... Memory: 8 bytes for each window and column.
    mask : ndarray of bool, shape (n_cells * n_factors, n_cells)
        A cell takes the factors of the others only.

    Raises
    ------
    ValueError
        If the model does not fit the data, there are not more cells than factors, or the windows
        are shorter than a bin.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> from fastglm.connectivity import residual_factors
    >>> rng = np.random.default_rng(0)
    >>> up = np.repeat(rng.random(200) < 0.5, 100)[:, None]  # a state that all cells share
    >>> counts = rng.poisson(np.where(up, 0.03, 0.01), size=(20_000, 8))
    >>> X = fastglm.basis.RaisedCosineLogConv(3, window_size=20).compute_features(counts)
    >>> model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-3)
    >>> factors, mask = residual_factors(model.fit(X, counts), X, counts, 0.001, n_factors=1)
    >>> factors.shape, mask.sum(axis=0).tolist()
    ((20000, 8), [1, 1, 1, 1, 1, 1, 1, 1])
    >>> bool(abs(np.corrcoef(np.asarray(factors)[:, 0], up[:, 0])[0, 1]) > 0.6)
    True
    """
    check_bin_size(bin_size)
    fit, every = Fitted.of(model, X, y), width / bin_size
    n_bins, n, k = fit.X.shape[0], fit.n_receivers, positive_int("n_factors", n_factors)
    if k >= n:
        raise ValueError(f"n_factors is {k}; expected fewer than the {n} cells.")
    if not (is_number(every) and round(every) >= 1):
        raise ValueError(f"width is {width!r}; expected at least one bin of {bin_size} s.")
    every = round(every)
    table = _residuals(fit, every)
    if smoothing > 0:
        from scipy.ndimage import gaussian_filter1d  # late, as in `pooled`

        table = gaussian_filter1d(table, smoothing / bin_size / every, axis=0)
    table -= table.mean(axis=0)
    axes = np.linalg.eigh(table.T @ table)[1][:, : -k - 1 : -1]
    scores = (table @ axes)[:, None, :] - table[:, :, None] * axes
    spread = scores.std(axis=0)
    factors = hold(scores / np.where(spread > 0, spread, 1.0), n_bins, every=every, label="factors")
    factors.blocks[0].n_funcs = k
    if fit.places is not None:
        factors = factors.take_rows(fit.places)
    return factors, np.repeat(np.eye(n, dtype=bool), k, axis=0)


def _residuals(fit, every):
    """Residuals of every window, in standard deviations, (n_windows, n_cells)."""
    n = fit.n_receivers
    number = -(-fit.X.shape[0] // every)
    expected = np.zeros((number, n))
    for index, mu in fit.rates():
        if index.size:
            first = np.flatnonzero(np.diff(index // every, prepend=-1))
            np.add.at(expected, index[first] // every, np.add.reduceat(mu, first, axis=0))
    events = fit.y.take(fit.kept[fit.y.bins] & np.isfinite(fit.y.amplitudes))
    place = events.bins // every * n + events.units
    seen = np.bincount(place, events.amplitudes, number * n).reshape(number, n)
    return (seen - expected) / np.sqrt(np.where(expected > 0, expected, 1.0))


def _in_bins(timescale, bin_size):
    if not is_number(timescale) or timescale < 2 * bin_size:
        raise ValueError(
            f"timescale is {timescale!r}; expected seconds, at least two bins of {bin_size} s."
        )
    return timescale / bin_size


# --- activity ---


def pooled(block: HistoryColumns, tau: float) -> FeatureMatrix | None:
    """Past events of all cells, filtered over tau bins, with variance 1; None without events.

    A timescale within the window is one more sender. A longer timescale has mean 0 and is kept at a
    quarter of the timescale.
    """
    block = block.by_events()
    events = block.events
    if events.n_events == 0:
        return None
    shape = events.n_bins, 1
    together = Events(events.bins, np.zeros_like(events.units), events.amplitudes, shape)
    return _filtered(block, together, tau, f"activity_{tau:g}")


def _of_each(block, tau):
    """The same of every cell alone; None without events."""
    if block.events.n_events == 0:
        return None
    return _filtered(block, block.events, tau, f"own_activity_{tau:g}")


def _filtered(block, events, tau, label):
    """Past events, filtered over tau bins, a column for each unit."""
    window, rate = block.kernel.shape[0], events.amplitudes.sum() / events.n_bins
    if tau > window:
        return _slow(events, block.epochs, tau, label)
    kernel = np.exp(-np.arange(window) / tau)[:, None]
    kernel /= np.sqrt(rate / events.n_units * (kernel**2).sum())
    column = HistoryColumns(events, kernel, block.shift, label, complete=block.complete)
    return FeatureMatrix([column])


def _slow(events, epochs, tau, label):
    from scipy.signal import lfilter  # here: a twentieth of the time of `import fastglm`

    every, n = max(int(tau / 4), 1), events.n_units
    starts, values = [], []
    for start, stop in epochs:
        low, high = np.searchsorted(events.bins, [start, stop])
        begins = np.arange(start, stop, every)
        m = begins.size
        place = (events.bins[low:high] - start) // every + m * events.units[low:high].astype(int)
        total = np.bincount(place, events.amplitudes[low:high], n * m).reshape(n, m)
        # The filtered sum at the end of each block; the mean of the epoch fills the time before it.
        decay = np.exp(-every / tau)
        before = decay * total.mean(axis=1, keepdims=True) / (1 - decay)
        after, _ = lfilter([decay], [1, -decay], total, zi=decay * before)
        starts.append(begins)
        values.append(np.concatenate([before, after[:, :-1]], axis=1))
    if not starts:
        return None
    values, starts = np.concatenate(values, axis=1), np.concatenate(starts)
    spread = values.std(axis=1, keepdims=True)
    if not spread.any():
        return None
    values = (values - values.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0)
    held = hold(np.ascontiguousarray(values.T), events.n_bins, starts=starts, label=label)
    held.blocks[0].n_funcs = 1
    return held


__all__ = ["population_activity", "residual_factors", "slow_drift"]
