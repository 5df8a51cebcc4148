"""Pictures of couplings and of how well they fit; needs matplotlib (the extra ``plot``).

| function | picture |
|---|---|
| `plot_connectivity` | matrix of couplings, significant ones marked |
| `plot_filters` | filters over lag with their bands, as a multiplier of the rate |
| `plot_ks`, `plot_ks_distances` | time rescaling: distribution of intervals; all receivers |
| `plot_autocorrelation` | rescaled intervals against the ones before |
| `plot_path` | coefficients over the strength of the penalty |
| `plot_cross_validation` | held-out score over the strength, and the chosen one |

Each draws into the axes that it is given, or into a new figure of pyplot, and returns the axes.
Colours are those of Okabe and Ito and a map from blue over white to red, which people with any of
the common colour deficiencies tell apart.
"""

try:
    import matplotlib
except ImportError:
    raise ImportError("Pictures need matplotlib: pip install 'fastglm[plot]'") from None

import matplotlib.ticker
import numpy as np
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

_BLUE, _VERMILLION, _GREY = "#0072B2", "#D55E00", "#808080"  # the grey does on white and on black
# Okabe & Ito without black and yellow, which vanish on black and on white.
_COLOURS = (_BLUE, "#E69F00", "#009E73", "#CC79A7", "#56B4E9", _VERMILLION)
_MAP = "RdBu_r"
_OWN, _ABSENT = (0.72, 0.72, 0.72, 1.0), (0.92, 0.92, 0.92, 1.0)
_VEIL = (1.0, 1.0, 1.0, 0.72)  # over what is not significant, where dots would be too small
_MOST_DOTS = 40  # cells above which a dot is smaller than 3 points on a page
_SMALL = 8  # points
_MOST_POINTS = 2000  # of a curve: more than a page has pixels


# --- couplings ---


def plot_connectivity(
    couplings, q=0.05, value="strength", mark="auto", limit=None, bar=True, ax=None
):
    """Matrix of couplings, senders down and receivers across.

    The diagonal, a cell's own history, is grey and does not enter the scale of colours. Couplings
    that are not in the fit are light grey; those that the data do not determine are hatched.

    Parameters
    ----------
    couplings : fastglm.connectivity.CouplingMap
    q : float
        q-value up to which a coupling counts as significant.
    value : {"strength", "peak"}
        Area of the filter (log rate x bins), or its extreme value (log rate).
    mark : {"auto", "dots", "fade", "none"}
        Dots on the significant couplings, or the others faded; dots up to 40 cells.
    limit : float, optional
        Value at which the colours end. Default: the 99th percentile of the sizes of the
        significant couplings, or of all if there are none.
    bar : bool
        Whether to draw the bar of colours.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If q is not between 0 and 1, or value, mark or limit is not known.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> from fastglm.plotting import plot_connectivity
    >>> counts = np.random.default_rng(0).poisson(0.2, size=(3000, 4))
    >>> X = fastglm.basis.RaisedCosineLogConv(5, window_size=50).compute_features(counts)
    >>> model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-4)
    >>> ax = plot_connectivity(model.fit(X, counts).coupling_map(X, counts))
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('receiver', 'sender')
    """
    if not 0 < q < 1:
        raise ValueError(f"q is {q}; expected a number between 0 and 1, such as 0.05.")
    labels = {"strength": "filter area (log rate \N{MULTIPLICATION SIGN} bins)",
              "peak": "filter peak (log rate)"}  # fmt: skip
    if value not in labels:
        raise ValueError(f"value is {value!r}; expected one of {list(labels)}.")
    if mark not in ("auto", "dots", "fade", "none"):
        raise ValueError(f"mark is {mark!r}; expected 'auto', 'dots', 'fade' or 'none'.")
    if limit is not None and not (np.isfinite(limit) and limit > 0):
        raise ValueError(f"limit is {limit}; expected a number above 0.")
    values = getattr(couplings, value)
    own = _own(couplings)
    tested = np.isfinite(couplings.q_value).any()
    significant = couplings.significant(q)
    # Without tests there are no standard errors to tell what is determined.
    open_ = np.isinf(couplings.standard_error) & ~own
    absent = ~np.isfinite(values) & ~own & ~open_
    if tested:
        absent |= np.isnan(couplings.standard_error) & ~own
    shown = np.ma.masked_where(own | open_ | absent, values)
    if limit is None:
        limit = _limit(shown[significant & ~shown.mask] if significant.any() else shown)
    ax = _axes(ax, (5.2, 4.6) if max(values.shape) <= 100 else (7.5, 6.8))
    if mark == "auto":
        mark = "dots" if max(values.shape) <= _MOST_DOTS else "fade"
    mark = mark if tested else "none"
    image = _matrix(ax, shown, limit, couplings.senders, couplings.receivers)
    over = np.zeros((*values.shape, 4))
    over[own], over[absent] = _OWN, _ABSENT
    if mark == "fade":
        over[~significant & ~shown.mask] = _VEIL
    if over.any():
        _image(ax, over)
    keys = []
    if mark == "dots":
        _dots(ax, significant, np.abs(shown.filled(0)) / limit)
        keys.append(
            Line2D(
                [],
                [],
                ls="",
                marker="o",
                ms=4,
                color=matplotlib.rcParams["text.color"],
                label=f"q \u2264 {q:g}",
            )
        )
    elif mark == "fade":
        keys.append(Patch(color="#B2182B", label=f"q \u2264 {q:g}, others faded"))
    if own.any():
        keys.append(Patch(color=_OWN, label="own history"))
    if absent.any():
        keys.append(Patch(color=_ABSENT, label="not in the fit"))
    if open_.any():
        ax.patch.set(hatch="/////", edgecolor="0.6", facecolor="white")
        keys.append(Patch(hatch="/////", ec="0.6", fc="white", label="not determined"))
    if keys:
        below = 4.0 + 0.55 * max(len(t) for t in _texts(couplings.receivers)) * _upright(
            couplings.receivers
        )
        ax.legend(
            handles=keys, loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=below,
            ncols=2 if len(keys) > 3 else len(keys), fontsize=_SMALL, frameon=False,
            handlelength=1.2, columnspacing=1.2, handletextpad=0.5,
        )  # fmt: skip
    drawn = np.ma.compressed(shown)
    if bar and drawn.size:
        beyond = (drawn < -limit).any(), (drawn > limit).any()
        extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[beyond]
        scale = ax.figure.colorbar(image, ax=ax, shrink=0.8, extend=extend, pad=0.03)
        scale.set_label(labels[value], fontsize=9)
        scale.ax.tick_params(labelsize=_SMALL)
        scale.outline.set_visible(False)
    return ax


def plot_filters(couplings, pairs=None, bin_size=None, level=0.95, share=True, axes=None):
    """Filters over lag with pointwise bands, as the factor by which an event changes the rate.

    The factor is ``exp(h(l))`` on a logarithmic axis: 2 doubles the rate, 0.5 halves it. With the
    softplus link no such factor exists, and h itself is drawn.

    Parameters
    ----------
    couplings : fastglm.connectivity.CouplingMap
        Of causal features: row 0 of the kernel is lag 1.
    pairs : iterable of (int, int), optional
        Numbers of sender and receiver. Default: the six strongest couplings between different
        cells, significant ones first; fewer if there are fewer axes.
    bin_size : float, optional
        Seconds; lags are in bins without.
    level : float
        Of the bands.
    share : bool
        One scale of gain for all.
    axes : matplotlib Axes or array of them, optional

    Returns
    -------
    ndarray of matplotlib Axes, one for each pair

    Raises
    ------
    ValueError
        If a pair does not exist, there are fewer axes than pairs, the level is not between 0 and
        1, or bin_size is not above 0.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> from fastglm.plotting import plot_filters
    >>> counts = np.random.default_rng(0).poisson(0.2, size=(3000, 4))
    >>> X = fastglm.basis.RaisedCosineLogConv(5, window_size=50).compute_features(counts)
    >>> model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-4)
    >>> couplings = model.fit(X, counts).coupling_map(X, counts)
    >>> axes = plot_filters(couplings, [(0, 1), (2, 3)], bin_size=0.001)
    >>> axes[0].get_title(loc="left"), axes[0].get_xlabel()
    ('0 → 1', 'lag (ms)')
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; expected a number between 0 and 1, such as 0.95.")
    if bin_size is not None and not (np.isfinite(bin_size) and bin_size > 0):
        raise ValueError(f"bin_size is {bin_size}; expected seconds above 0.")
    given = None if axes is None else np.atleast_1d(np.asarray(axes, dtype=object))
    if pairs is None:
        pairs = strongest(couplings, 6 if given is None else min(6, given.size))
    pairs = [(int(i), int(j)) for i, j in pairs]
    n, m = couplings.strength.shape
    wrong = [pair for pair in pairs if not (0 <= pair[0] < n and 0 <= pair[1] < m)]
    if wrong or not pairs:
        raise ValueError(
            f"pairs holds {wrong[:3] or 'nothing'}; expected numbers of a sender below {n} and of "
            f"a receiver below {m}."
        )
    if given is None:
        n_columns = min(3, len(pairs)) if len(pairs) < 7 else int(np.ceil(np.sqrt(len(pairs))))
        n_rows = -(-len(pairs) // n_columns)
        figure = _figure((2.1 * n_columns + 0.6, 1.75 * n_rows + 0.5))
        given = figure.subplots(n_rows, n_columns, squeeze=False)
    if given.size < len(pairs):
        raise ValueError(f"axes has {given.size} axes; expected {len(pairs)}, one for each pair.")
    exponential = couplings.model._link().name == "exp"
    lag = np.arange(1, couplings.kernel.shape[0] + 1) * (1 if bin_size is None else 1e3 * bin_size)
    ends, grid = [], given if given.ndim == 2 else given[None, :]
    for ax in given.ravel()[len(pairs) :]:
        ax.set_visible(False)
    for k, (ax, (i, j)) in enumerate(zip(given.ravel(), pairs, strict=False)):
        h, error = _filter(couplings, i, j, level)
        known = np.isfinite(error)
        curves = [h, np.where(known, h - error, np.nan), np.where(known, h + error, np.nan)]
        reach = np.abs(np.where(known, curves, h)).max() if known.any() else np.abs(h).max()
        ends.append(min(1.08 * reach, np.log(1e3)))
        if exponential:
            curves = np.exp(np.clip(curves, -300, 300))
        h, lower, upper = curves
        ax.axhline(1.0 if exponential else 0.0, color=_GREY, lw=0.8)
        ax.fill_between(lag, lower, upper, color=_BLUE, alpha=0.25, lw=0)
        ax.plot(lag, h, color=_BLUE, lw=1.6)
        ax.set_title(_title(couplings, i, j), loc="left", fontsize=9)
        if not known.any() and couplings.uncertainty is not None:
            ax.text(0.97, 0.94, "not determined", transform=ax.transAxes, ha="right", va="top",
                    fontsize=_SMALL)  # fmt: skip
        else:
            note = _q_text(couplings.q_value[i, j])
            ax.set_title(note, loc="right", fontsize=_SMALL, color=_GREY)
        ax.set_xlim(0, lag[-1])
        if k + grid.shape[1] >= len(pairs):
            ax.set_xlabel("lag (bins)" if bin_size is None else "lag (ms)", fontsize=9)
        if k % grid.shape[1] == 0:
            ax.set_ylabel("rate multiplier" if exponential else "change of input", fontsize=9)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=_SMALL)
        ax.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
    for ax, end in zip(given.ravel(), ends, strict=False):
        end = max(max(ends) if share else end, 1e-3)
        if exponential:
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(_GainLocator())
            ax.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
            ax.yaxis.set_major_formatter(lambda gain, _: f"\N{MULTIPLICATION SIGN}{gain:g}")
        ax.set_ylim(*((np.exp(-end), np.exp(end)) if exponential else (-end, end)))
    return given.ravel()[: len(pairs)]


def strongest(couplings, number, q=0.05):
    """Pairs of the strongest couplings between different cells, significant ones first.

    Returns
    -------
    list of (int, int)
        At most ``number``; couplings that the data do not determine are left out.
    """
    size = np.abs(couplings.strength)
    left_out = (
        _own(couplings) | ~np.isfinite(size) | np.isinf(couplings.standard_error) | (size == 0)
    )
    if np.isfinite(couplings.q_value).any():
        left_out |= ~np.isfinite(couplings.standard_error)
    size = np.where(left_out, -1.0, size)
    order = np.lexsort((-size.ravel(), ~couplings.significant(q).ravel()))
    order = order[size.ravel()[order] >= 0][:number]
    return [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, size.shape), strict=True)]


# --- diagnostics ---


def plot_ks(rescaling, receivers=None, level=0.95, difference=False, names=None, ax=None):
    """Distribution of rescaled intervals against the uniform one, with the band of the KS test.

    A curve that leaves its band is of a receiver that the model does not describe.

    Parameters
    ----------
    rescaling : fastglm.diagnostics.Rescaling
    receivers : int or iterable of int, optional
        At most six. Default: the four whose distance is the largest part of its band.
    level : float
        Of the band, ``c / sqrt(n_intervals)``.
    difference : bool
        Draw the difference from uniform: with thousands of events the band is too narrow to see
        otherwise.
    names : sequence, optional
        Of the receivers; numbers by default.
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
    names = _names(names, band.size)
    ax = _axes(ax, (4.2, 4.0) if not difference else (4.6, 3.2))
    x = np.array([0.0, 1.0])
    base = 0 * x if difference else x
    ax.plot(x, base, color=_GREY, lw=0.8)
    for j, colour in zip(receivers, _COLOURS, strict=False):
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
        ax.legend(**_above(1))
    else:
        ax.set(ylim=(0, 1), aspect="equal", ylabel="empirical share")
        ax.legend(fontsize=_SMALL, frameon=False, loc="upper left", handlelength=1.2)
    ax.set_xlabel("uniform quantile")
    _plain(ax)
    return ax


def plot_ks_distances(rescaling, level=0.95, names=None, ax=None):
    """KS distance of every receiver as a part of its band: above 1 the model fails the test.

    Parameters
    ----------
    rescaling : fastglm.diagnostics.Rescaling
    level : float
    names : sequence, optional
        Of the receivers; numbers by default.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
        Receivers that were not tested have no dot.

    Raises
    ------
    ValueError
        If no receiver was tested, the names do not fit, or the level is not between 0 and 1.
    """
    part = rescaling.statistic / rescaling.band(level)
    if not np.isfinite(part).any():
        raise ValueError("No receiver has the 5 intervals that a KS test wants; nothing to draw.")
    names = _names(names, part.size, "")
    ax = _axes(ax, (4.6, 3.2))
    number = np.arange(part.size)
    size = 5 if part.size <= 60 else 3
    for chosen, colour, marker, label in (
        (part <= 1, _BLUE, "o", "inside"),
        (part > 1, _VERMILLION, "^", "outside"),
    ):
        ax.plot(number[chosen], part[chosen], ls="", marker=marker, ms=size, color=colour,
                label=f"{chosen.sum()} {label}")  # fmt: skip
    ax.axhline(1, color=_GREY, lw=0.8, ls=(0, (4, 3)))
    top = float(np.nanmax(part))
    if top > 20:
        ax.set_yscale("log")
        ax.set_ylim(bottom=min(0.3, 0.8 * float(np.nanmin(part))))
    else:
        ax.set_ylim(0, max(1.3, 1.1 * top))
    ax.set(xlabel="receiver", ylabel=f"KS distance / {100 * level:g} % band")
    ax.set_xlim(-0.7, part.size - 0.3)
    _cell_ticks(ax.xaxis, names)
    ax.legend(**_above(2))
    _plain(ax)
    return ax


def plot_autocorrelation(rescaling, receivers=None, n_lags=20, level=0.95, names=None, ax=None):
    """Autocorrelation of the rescaled intervals, which are independent if the model is right.

    Parameters
    ----------
    rescaling : fastglm.diagnostics.Rescaling
    receivers : int or iterable of int, optional
        As in `plot_ks`.
    n_lags : int
    level : float
        Of the band in which one correlation of independent intervals lies.
    names : sequence, optional
        Of the receivers; numbers by default.
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
    names = _names(names, band.size)
    ax = _axes(ax, (4.6, 3.2))
    lags = np.arange(1, n_lags + 1)
    ax.axhline(0, color=_GREY, lw=0.8)
    # Side by side, so that receivers do not hide each other.
    width = 0.7 if len(receivers) > 1 else 0.0
    for k, (j, colour) in enumerate(zip(receivers, _COLOURS, strict=False)):
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
    ax.legend(**_above(3))
    _plain(ax)
    return ax


# --- penalties ---


def plot_path(path, receiver=0, groups=None, names=None, chosen=None, n_named=6, ax=None):
    """Coefficients of a receiver over the strength of the penalty, strongest on the left.

    Parameters
    ----------
    path : fastglm.model_selection.Path
    receiver : int
    groups : array of int, shape (n_features,), optional
        Filter of every feature, such as ``X.filters``: the norm of each filter is drawn in place
        of its coefficients.
    names : sequence, optional
        Of the filters or coefficients; numbers by default.
    chosen : float, optional
        A strength to mark, such as ``cross_validation.strength[receiver]``.
    n_named : int
        How many curves have a colour and a name, at most six: the largest at the weakest penalty.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If the receiver does not exist, or groups or names do not fit.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> from fastglm.plotting import plot_path
    >>> counts = np.random.default_rng(0).poisson(0.2, size=(2000, 4))
    >>> X = fastglm.basis.RaisedCosineLogConv(4, window_size=20).compute_features(counts)
    >>> model = fastglm.PopulationGLM(regularizer="GroupLasso")
    >>> path = fastglm.model_selection.regularization_path(model, X, counts, 5)
    >>> plot_path(path, receiver=1, groups=X.filters).get_xscale()
    'log'
    """
    n_features, n = path.coef.shape[1:]
    _check_receiver(receiver, n)
    values = path.coef[:, :, receiver]
    if groups is not None:
        groups = np.asarray(groups)
        if groups.shape != (n_features,) or groups.dtype.kind not in "iu":
            raise ValueError(
                f"groups has shape {groups.shape}; expected an integer for each of {n_features} "
                "features. Pass X.filters?"
            )
        values = np.stack(
            [np.linalg.norm(values[:, groups == g], axis=1) for g in range(groups.max() + 1)],
            axis=1,
        )
    names = _names(names, values.shape[1], "")
    ax = _axes(ax, (4.8, 3.6))
    x = path.strengths[:, receiver]
    order = np.argsort(-np.abs(np.nan_to_num(values[-1])))
    named = order[: min(n_named, len(_COLOURS))]
    ax.axhline(0, color=_GREY, lw=0.8)
    for g in order[::-1]:
        at = np.flatnonzero(named == g)
        style = {"color": _GREY, "lw": 0.7, "alpha": 0.6}
        if at.size:
            style = {"color": _COLOURS[at[0]], "lw": 1.7, "label": str(names[g])}
        ax.plot(x, values[:, g], **style)
    _strength_axis(ax, x)
    if chosen is not None:
        ax.axvline(chosen, color=_VERMILLION, lw=1.2, ls=(0, (4, 3)), label="chosen")
    ax.set_ylabel("coefficient" if groups is None else "norm of the filter")
    handles, labels = ax.get_legend_handles_labels()
    n = len(named)  # drawn last, the largest on top; listed first
    ax.legend(handles[:n][::-1] + handles[n:], labels[:n][::-1] + labels[n:],
              title="coefficient" if groups is None else "filter", title_fontsize=_SMALL,
              fontsize=_SMALL, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0),
              handlelength=1.4)  # fmt: skip
    ax.set_title(f"receiver {receiver}", loc="left", fontsize=9)
    _plain(ax)
    return ax


def plot_cross_validation(cross_validation, receiver=0, ax=None):
    """Held-out score of a receiver over the strength of the penalty, and the chosen strength.

    The mean log-likelihood per bin over the folds, less that of the strength with the best mean,
    and the standard error of this difference to both sides. With the rule "one-standard-error" a
    line shows what had to be reached: a standard error of the best mean itself, which is larger,
    because folds differ in rate.

    Parameters
    ----------
    cross_validation : fastglm.model_selection.CrossValidation
    receiver : int
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If the receiver does not exist or has no held-out score.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> from fastglm.plotting import plot_cross_validation
    >>> counts = np.random.default_rng(0).poisson(0.2, size=(2000, 4))
    >>> X = fastglm.basis.RaisedCosineLogConv(4, window_size=20).compute_features(counts)
    >>> model = fastglm.PopulationGLM(regularizer="Ridge")
    >>> cv = fastglm.model_selection.cross_validate(model, X, counts, 5, folds=3)
    >>> plot_cross_validation(cv, receiver=1).get_xlabel()
    'strength of the penalty'
    """
    _check_receiver(receiver, cross_validation.strengths.shape[1])
    scores = cross_validation.scores[:, :, receiver]
    scores = scores[:, np.isfinite(scores).all(axis=0)]
    n_folds = scores.shape[1]
    if n_folds == 0:
        raise ValueError(f"Receiver {receiver} has no held-out score; nothing to draw.")
    best = int(scores.mean(axis=1).argmax())
    # Fold by fold: folds differ in rate by more than strengths differ in score.
    less = scores - scores[best]
    mean = less.mean(axis=1)
    error, reach = np.full(mean.size, np.nan), np.nan
    if n_folds > 1:
        error = less.std(axis=1, ddof=1) / np.sqrt(n_folds)
        reach = scores[best].std(ddof=1) / np.sqrt(n_folds)
    ax = _axes(ax, (4.4, 3.4))
    x = cross_validation.strengths[:, receiver]
    chosen = cross_validation.chosen[receiver]
    ax.fill_between(x, mean - error, mean + error, color=_BLUE, alpha=0.2, lw=0)
    ax.plot(x, mean, color=_BLUE, lw=1.5, marker="o", ms=3.5)
    if cross_validation.rule == "one-standard-error" and n_folds > 1:
        ax.axhline(-reach, color=_GREY, lw=0.8, ls=(0, (4, 3)))
    ax.axvline(x[chosen], color=_VERMILLION, lw=1.2, ls=(0, (4, 3)))
    ax.plot(x[chosen], mean[chosen], ls="", marker="D", ms=6, color=_VERMILLION)
    _strength_axis(ax, x)
    ax.set_ylabel("held-out log-likelihood per bin,\nless the best")
    ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
    ax.yaxis.get_offset_text().set_fontsize(_SMALL)
    ax.set_title(f"receiver {receiver}: {x[chosen]:.2g} chosen", loc="right", fontsize=9)
    _plain(ax)
    return ax


# --- what the command line draws ---


def check_path(path):
    """Raise ValueError if a picture cannot be written to the path: folder or file type."""
    types = FigureCanvasBase.get_supported_filetypes()
    if path.suffix[1:].lower() not in types:
        raise ValueError(
            f"{path} has no known type of picture; expected one of {', '.join(sorted(types))}."
        )
    if not path.resolve().parent.is_dir():
        raise ValueError(f"There is no folder {path.resolve().parent} to write to.")


def demo_figure(true, fitted, true_filters, fitted_filters, bin_size, path):
    """Save true and fitted connectivity side by side over six filters with their truth."""
    figure = Figure(figsize=(10, 8.2), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    axes = top.subplots(1, 2)
    for ax, areas, title in zip(axes, (true, fitted), ("true", "fitted"), strict=True):
        image = _areas(ax, areas, _limit(_between(true)))
        ax.set_title(f"{title} connectivity")
    bar = top.colorbar(image, ax=axes, shrink=0.85, extend="both")
    bar.set_label("filter area (log rate x bins)")
    _filter_grid(bottom, _examples(true), fitted_filters, bin_size, true_filters)
    figure.savefig(path, dpi=150)


def fit_figure(areas, filters, bin_size, path, flagged=None):
    """Save the fitted connectivity beside its six strongest filters.

    Receivers that are ``flagged`` (no regular optimum) are hatched and not among the examples.
    """
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.15))
    ax = left.subplots()
    flagged = np.zeros(len(areas), bool) if flagged is None else flagged
    regular = np.where(flagged, 0.0, areas)
    image = _areas(ax, areas, _limit(_between(regular)))
    for j in np.flatnonzero(flagged):
        ax.axvspan(j - 0.5, j + 0.5, fill=False, hatch="///", lw=0, ec="0.4")
    title = "fitted connectivity"
    if flagged.any():
        title += f"\n(hatched: {int(flagged.sum())} receivers without a regular optimum)"
    ax.set_title(title, fontsize=10)
    bar = left.colorbar(image, ax=ax, shrink=0.8, extend="both")
    bar.set_label("filter area (log rate x bins)")
    _filter_grid(right, _examples(regular), filters, bin_size)
    figure.savefig(path, dpi=150)


def _areas(ax, areas, limit):
    """Matrix of areas, the diagonal grey."""
    number = np.arange(len(areas))
    image = _matrix(ax, _between(areas), limit, number, number)
    own = np.zeros((*areas.shape, 4))
    own[number, number] = _OWN
    _image(ax, own)
    return image


def _between(areas):
    """Areas of couplings between different cells."""
    return np.ma.masked_where(np.eye(len(areas), dtype=bool) | ~np.isfinite(areas), areas)


def _examples(areas):
    """Six pairs: the strongest by area, at most half of them negative."""
    off = _between(areas).filled(0.0)
    order = np.argsort(-np.abs(off), axis=None)
    pairs = [np.unravel_index(k, off.shape) for k in order]
    negative = [p for p in pairs if off[p] < 0][:3]
    positive = [p for p in pairs if off[p] > 0][: 6 - len(negative)]
    return positive + negative


def _filter_grid(figure, pairs, filters, bin_size, true=None):
    axes = figure.subplots(2, 3, sharex=True).ravel()
    lag = (np.arange(filters.shape[1]) + 1) * bin_size * 1e3
    for ax, (i, j) in zip(axes, pairs, strict=False):
        ax.axhline(0, color="0.8", lw=0.8)
        if true is not None:
            ax.plot(lag, true[i, :, j], color="#666666", lw=3, alpha=0.5, label="true")
        ax.plot(lag, filters[i, :, j], color=_BLUE, lw=1.5, label="fitted")
        ax.set_title(f"{i} \N{RIGHTWARDS ARROW} {j}", fontsize=9)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=_SMALL)
    for ax in axes[len(pairs) :]:
        ax.set_visible(False)
    if true is not None and pairs:
        axes[0].legend(frameon=False, fontsize=_SMALL)
    figure.supxlabel("lag (ms)", fontsize=9)
    figure.supylabel("change of log rate", fontsize=9)


# --- parts ---


def _axes(ax, size):
    return _figure(size).subplots() if ax is None else ax


def _figure(size):
    """A new figure of pyplot, which notebooks show."""
    import matplotlib.pyplot as plt

    return plt.figure(figsize=size, layout="constrained")


def _matrix(ax, shown, limit, senders, receivers):
    colours = matplotlib.colormaps[_MAP].with_extremes(bad=(0, 0, 0, 0))
    image = _image(ax, shown, cmap=colours, vmin=-limit, vmax=limit)
    n, m = shown.shape
    ax.set_aspect("equal" if max(n, m) <= 4 * min(n, m) else "auto")
    ax.set(xlabel="receiver", ylabel="sender", facecolor="white")
    _cell_ticks(ax.xaxis, receivers)
    _cell_ticks(ax.yaxis, senders)
    return image


def _image(ax, values, **kwargs):
    return ax.imshow(values, interpolation="nearest", aspect=ax.get_aspect(), **kwargs)


def _dots(ax, significant, darkness):
    """Round dots of a third of a cell, white on dark colours."""
    n, m = significant.shape
    rows, columns = np.nonzero(significant)
    dots = EllipseCollection(
        0.3, 0.3, 0, units="x" if m >= n else "y", lw=0,
        offsets=np.column_stack([columns, rows]), offset_transform=ax.transData,
        facecolors=np.where(darkness[rows, columns] > 0.6, "white", "black"),
    )  # fmt: skip
    ax.add_collection(dots, autolim=False)


def _own(couplings):
    """Where a sender is the receiver: the diagonal of a population that drives itself."""
    n, m = couplings.strength.shape
    itself = n == m and np.isnan(np.diag(couplings.q_value)).all()
    return np.eye(n, m, dtype=bool) & itself


def _limit(shown):
    sizes = np.abs(np.ma.compressed(shown))
    return max(float(np.quantile(sizes, 0.99)) if sizes.size else 0.0, 1e-12)


def _filter(couplings, i, j, level):
    """One filter over its lags and half the width of its band: NaN without uncertainty."""
    from scipy import stats

    u = couplings.uncertainty
    if u is None:
        first = (couplings.first_filter + i) * couplings.kernel.shape[1]
        coef = couplings.model._coef()[first : first + couplings.kernel.shape[1], j]
        return couplings.kernel @ coef, np.full(couplings.kernel.shape[0], np.nan)
    value, error = u.linear(couplings.first_filter + i, couplings.kernel)
    return np.nan_to_num(value[:, j]), stats.norm.ppf(0.5 + level / 2) * error[:, j]


def _title(couplings, i, j):
    own = _own(couplings)[i, j]
    arrow = f"{couplings.senders[i]} \N{RIGHTWARDS ARROW} {couplings.receivers[j]}"
    return f"{arrow}, own" if own else arrow


def _q_text(q):
    if not np.isfinite(q):
        return ""
    return "q < 0.001" if q < 0.001 else f"q = {q:.2g}"


def _texts(names):
    return [str(name) for name in names]


def _upright(names):
    """Whether names of receivers need to stand upright: longer than three characters."""
    return max(map(len, _texts(names))) > 3


def _cell_ticks(axis, names):
    texts = _texts(names)
    upright = axis.axis_name == "x" and _upright(names)
    along = 1.25 if upright or axis.axis_name == "y" else 0.65 * max(map(len, texts)) + 0.6
    axis.set_major_locator(_CellLocator(len(texts), along * _SMALL))
    axis.set_major_formatter(
        lambda x, _: texts[int(x)] if x == int(x) and 0 <= x < len(texts) else ""
    )
    axis.set_tick_params(labelsize=_SMALL, labelrotation=90 if upright else 0)


class _CellLocator(matplotlib.ticker.Locator):
    """Every cell if the labels have room, else every second, fifth, tenth and so on."""

    def __init__(self, n, points):
        self.n, self.points = n, points

    def __call__(self):
        axes = self.axis.axes
        box = axes.get_window_extent()
        length = (box.width if self.axis.axis_name == "x" else box.height) * 72 / axes.figure.dpi
        low, high = sorted(self.axis.get_view_interval())
        pitch = max(length, 1) / max(high - low, 1e-9)
        steps = (a * 10**b for b in range(9) for a in (1, 2, 5))
        step = next(s for s in steps if s * pitch >= self.points)
        ticks = np.arange(0, self.n, step)
        return ticks[(ticks >= low) & (ticks <= high)]

    def tick_values(self, vmin, vmax):
        return self()


class _GainLocator(matplotlib.ticker.Locator):
    """At most seven round multipliers of a rate: steps of a tenth, powers of 2, powers of 10."""

    def __call__(self):
        return self.tick_values(*sorted(self.axis.get_view_interval()))

    def tick_values(self, vmin, vmax):
        low, high = np.log2(vmin), np.log2(vmax)
        if high - low < 2.5:
            steps = matplotlib.ticker.MaxNLocator(5, steps=[1, 2, 5, 10])
            ticks = steps.tick_values(vmin, vmax)
        elif high - low < 7:
            step = -(-(high - low) // 6)
            ticks = 2.0 ** (step * np.arange(np.ceil(low / step), np.floor(high / step) + 1))
        else:
            low, high = np.log10(vmin), np.log10(vmax)
            step = -(-(high - low) // 6)
            ticks = 10.0 ** (step * np.arange(np.ceil(low / step), np.floor(high / step) + 1))
        return ticks[(ticks >= vmin) & (ticks <= vmax)]


def _tested(rescaling, receivers, band):
    """Receivers to draw, checked; by default those that are farthest outside of their band."""
    n = rescaling.statistic.size
    if receivers is None:
        part = np.nan_to_num(rescaling.statistic / band, nan=-1.0)
        receivers = np.argsort(-part)[: min(4, int((part >= 0).sum()))]
    receivers = [int(j) for j in np.atleast_1d(receivers)]
    if not 1 <= len(receivers) <= len(_COLOURS):
        raise ValueError(
            f"receivers holds {len(receivers)} receivers that were tested; expected 1 to "
            f"{len(_COLOURS)}."
        )
    for j in receivers:
        _check_receiver(j, n)
        if not np.isfinite(rescaling.statistic[j]):
            raise ValueError(f"Receiver {j} was not tested: it has fewer than 5 intervals.")
    return receivers


def _names(names, n, prefix="receiver "):
    names = np.array([f"{prefix}{k}" for k in range(n)]) if names is None else np.asarray(names)
    if names.shape != (n,):
        raise ValueError(f"names has shape {names.shape}; expected a name for each of {n}.")
    return names


def _check_receiver(receiver, n):
    if not 0 <= receiver < n:
        raise ValueError(f"receiver is {receiver}; expected a number from 0 to {n - 1}.")


def _strength_axis(ax, x):
    positive = x[x > 0]
    if positive.size == x.size:
        ax.set_xscale("log")
    elif positive.size:
        ax.set_xscale("symlog", linthresh=positive.min())
    ax.set_xlabel("strength of the penalty")
    ax.invert_xaxis()


def _above(n_columns):
    """Arguments of a legend above the axes."""
    return {
        "loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": n_columns, "fontsize": _SMALL,
        "frameon": False, "handlelength": 1.2, "columnspacing": 1.2, "borderaxespad": 0.2,
    }  # fmt: skip


def _plain(ax):
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=_SMALL)


__all__ = [
    "plot_autocorrelation",
    "plot_connectivity",
    "plot_cross_validation",
    "plot_filters",
    "plot_ks",
    "plot_ks_distances",
    "plot_path",
    "strongest",
]
