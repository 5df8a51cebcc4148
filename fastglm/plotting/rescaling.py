"""Pictures of time rescaling."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes

from fastglm.diagnostics import Rescaling
from fastglm.plotting.common import (
    BLUE,
    COLOURS,
    GREY,
    SMALL,
    VERMILLION,
    above,
    axes_of,
    check_receiver,
    names_of,
    plain,
)
from fastglm.plotting.couplings import cell_ticks

_MOST_POINTS = 2000  # points of a curve: more than the pixels of a page


def plot_ks(
    rescaling: Rescaling,
    receivers: int | Iterable[int] | None = None,
    level: float = 0.95,
    difference: bool = False,
    names: Sequence | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Distribution of rescaled intervals against the uniform one, with the band of the KS test.

    If a curve leaves its band, the model does not describe the receiver.

    Parameters
    ----------
    rescaling : fastglm.diagnostics.Rescaling
    receivers : int or iterable of int, optional
        At most six. Default: the four receivers with the largest ratio of distance to band.
    level : float
        Level of the band ``c / sqrt(n_intervals)``.
    difference : bool
        Draw the difference from uniform. With thousands of events the band is too narrow to be seen
        without it.
    names : sequence, optional
        Names of the receivers. Default: those of the counts, or numbers.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If a receiver does not exist or was not tested, the names do not fit, or the level is not
        between 0 and 1.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> from fastglm.plotting import plot_ks
    >>> counts = np.random.default_rng(0).poisson(0.2, size=(2000, 4))
    >>> X = fastglm.basis.RaisedCosineLogConv(4, window_size=20).compute_features(counts)
    >>> model = fastglm.PopulationGLM().fit(X, counts)
    >>> ax = plot_ks(fastglm.diagnostics.time_rescaling(model, X, counts), receivers=[0, 1])
    >>> ax.get_xlabel()
    'uniform quantile'
    """
    band = rescaling.band(level)
    receivers = _tested(rescaling, receivers, band)
    names = names_of(rescaling.names if names is None else names, band.size)
    ax = axes_of(ax, (4.2, 4.0) if not difference else (4.6, 3.2))
    x = np.array([0.0, 1.0])
    base = 0 * x if difference else x
    ax.plot(x, base, color=GREY, lw=0.8)
    for j, colour in zip(receivers, COLOURS, strict=False):
        u = np.sort(rescaling.intervals[j])
        some = np.unique(np.linspace(0, u.size - 1, min(u.size, _MOST_POINTS)).astype(np.int64))
        share = (some + 0.5) / u.size
        label = f"{names[j]}: {rescaling.statistic[j]:.3f}, band {band[j]:.3f}"
        curve = share - u[some] if difference else share
        ax.plot(u[some], curve, color=colour, lw=1.5, label=label)
        if len(receivers) == 1:
            ax.fill_between(x, base - band[j], base + band[j], color=colour, alpha=0.15, lw=0)
        for side in (-1, 1):
            ax.plot(x, base + side * band[j], color=colour, lw=0.8, ls=(0, (4, 3)))
    ax.set_xlim(0, 1)
    if difference:
        ax.set_ylabel("empirical share \N{MINUS SIGN} quantile")
        top = max(1.25 * max(band[j] for j in receivers),
                  1.1 * max(rescaling.statistic[j] for j in receivers))  # fmt: skip
        ax.set_ylim(-top, top)
        ax.legend(**above(1))
    else:
        ax.set(ylim=(0, 1), aspect="equal", ylabel="empirical share")
        ax.legend(fontsize=SMALL, frameon=False, loc="upper left", handlelength=1.2)
    ax.set_xlabel("uniform quantile")
    plain(ax)
    return ax


def plot_ks_distances(
    rescaling: Rescaling,
    level: float = 0.95,
    names: Sequence | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Ratio of KS distance to band of every receiver; above 1 the model fails the test.

    Parameters
    ----------
    rescaling : fastglm.diagnostics.Rescaling
    level : float
    names : sequence, optional
        Names of the receivers. Default: those of the counts, or numbers.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
        Receivers without a test have no dot.

    Raises
    ------
    ValueError
        If no receiver was tested, the names do not fit, or the level is not between 0 and 1.
    """
    part = rescaling.statistic / rescaling.band(level)
    if not np.isfinite(part).any():
        raise ValueError("No receiver has the 5 intervals that a KS test needs; nothing to draw.")
    names = names_of(rescaling.names if names is None else names, part.size, "")
    ax = axes_of(ax, (4.6, 3.2))
    number = np.arange(part.size)
    size = 5 if part.size <= 60 else 3
    for chosen, colour, marker, label in (
        (part <= 1, BLUE, "o", "inside"),
        (part > 1, VERMILLION, "^", "outside"),
    ):
        ax.plot(number[chosen], part[chosen], ls="", marker=marker, ms=size, color=colour,
                label=f"{chosen.sum()} {label}")  # fmt: skip
    ax.axhline(1, color=GREY, lw=0.8, ls=(0, (4, 3)))
    top = float(np.nanmax(part))
    if top > 20:
        ax.set_yscale("log")
        ax.set_ylim(bottom=min(0.3, 0.8 * float(np.nanmin(part))))
    else:
        ax.set_ylim(0, max(1.3, 1.1 * top))
    ax.set(xlabel="receiver", ylabel=f"KS distance / {100 * level:g} % band")
    ax.set_xlim(-0.7, part.size - 0.3)
    cell_ticks(ax.xaxis, names)
    ax.legend(**above(2))
    plain(ax)
    return ax


def plot_autocorrelation(
    rescaling: Rescaling,
    receivers: int | Iterable[int] | None = None,
    n_lags: int = 20,
    level: float = 0.95,
    names: Sequence | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Autocorrelation of the rescaled intervals, which are independent if the model is right.

    Parameters
    ----------
    rescaling : fastglm.diagnostics.Rescaling
    receivers : int or iterable of int, optional
        As in `plot_ks`.
    n_lags : int
    level : float
        Level of the band in which one correlation of independent intervals lies.
    names : sequence, optional
        Names of the receivers. Default: those of the counts, or numbers.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        As in `plot_ks`, or if n_lags is not a positive integer.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> from fastglm.plotting import plot_autocorrelation
    >>> counts = np.random.default_rng(0).poisson(0.2, size=(2000, 4))
    >>> X = fastglm.basis.RaisedCosineLogConv(4, window_size=20).compute_features(counts)
    >>> model = fastglm.PopulationGLM().fit(X, counts)
    >>> rescaling = fastglm.diagnostics.time_rescaling(model, X, counts)
    >>> plot_autocorrelation(rescaling, 2, n_lags=10).get_xlabel()
    'lag (intervals)'
    """
    correlation, band = rescaling.autocorrelation(n_lags, level)
    receivers = _tested(rescaling, receivers, rescaling.band(level))
    names = names_of(rescaling.names if names is None else names, band.size)
    ax = axes_of(ax, (4.6, 3.2))
    lags = np.arange(1, n_lags + 1)
    ax.axhline(0, color=GREY, lw=0.8)
    # Side by side: receivers must not hide each other.
    width = 0.7 if len(receivers) > 1 else 0.0
    for k, (j, colour) in enumerate(zip(receivers, COLOURS, strict=False)):
        x = lags + width * (k / max(len(receivers) - 1, 1) - 0.5)
        values = correlation[:, j]
        ax.vlines(x, 0, np.nan_to_num(values), color=colour, lw=1.2)
        ax.plot(x, values, ls="", marker="o", ms=3, color=colour, label=str(names[j]))
        if len(receivers) == 1:
            ax.axhspan(-band[j], band[j], color=colour, alpha=0.15, lw=0)
        for side in (-1, 1):
            ax.axhline(side * band[j], color=colour, lw=0.8, ls=(0, (4, 3)))
    top = np.nanmax(np.abs(correlation[:, receivers]), initial=0)
    top = max(1.15 * top, 1.5 * max(band[j] for j in receivers))
    ax.set(xlabel="lag (intervals)", ylabel="autocorrelation", ylim=(-top, top))
    ax.set_xlim(0.3, n_lags + 0.7)
    ax.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, integer=True))
    ax.legend(**above(3))
    plain(ax)
    return ax


def _tested(rescaling, receivers, band):
    """Receivers to draw, checked. Default: the largest ratios of distance to band."""
    n = rescaling.statistic.size
    if receivers is None:
        part = np.nan_to_num(rescaling.statistic / band, nan=-1.0)
        receivers = np.argsort(-part)[: min(4, int((part >= 0).sum()))]
    receivers = [int(j) for j in np.atleast_1d(receivers)]
    if not 1 <= len(receivers) <= len(COLOURS):
        raise ValueError(
            f"receivers holds {len(receivers)} receivers that were tested; expected 1 to "
            f"{len(COLOURS)}."
        )
    for j in receivers:
        check_receiver(j, n)
        if not np.isfinite(rescaling.statistic[j]):
            raise ValueError(f"Receiver {j} was not tested: it has fewer than 5 intervals.")
    return receivers
