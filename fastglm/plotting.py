"""Pictures of coupling; needs matplotlib (the extra ``plot``)."""

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

_BLUE, _GREY = "#0072B2", "#666666"
_MAP = "RdBu_r"


def check_path(path):
    """Raise ValueError if a picture cannot be written to the path: folder or file type."""
    types = FigureCanvasBase.get_supported_filetypes()
    if path.suffix[1:].lower() not in types:
        raise ValueError(
            f"{path} has no known type of picture; expected one of {', '.join(sorted(types))}."
        )
    if not path.resolve().parent.is_dir():
        raise ValueError(f"There is no folder {path.resolve().parent} to write to.")


def connectivity(ax, areas, limit=None, title=None):
    """Draw the areas of the coupling filters, senders down and receivers across.

    The diagonal (a cell's own history) is left out; colours end at ``limit``, by default the
    99th percentile of the rest.

    Returns
    -------
    matplotlib.image.AxesImage
    """
    n = len(areas)
    shown = np.ma.masked_where(np.eye(n, dtype=bool), areas)
    if limit is None:
        limit = _limit(areas)
    colours = matplotlib.colormaps[_MAP].with_extremes(bad="0.85")
    image = ax.imshow(shown, cmap=colours, vmin=-limit, vmax=limit, interpolation="nearest")
    ax.set(xlabel="receiver", ylabel="sender", title=title)
    ticks = matplotlib.ticker.MaxNLocator(6, integer=True)
    ax.xaxis.set_major_locator(ticks)
    ax.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6, integer=True))
    return image


def _limit(areas):
    off = np.abs(areas[~np.eye(len(areas), dtype=bool)])
    off = off[np.isfinite(off)]
    return max(float(np.quantile(off, 0.99)) if off.size else 0.0, 1e-12)


def coupling_filter(ax, fitted, bin_size, true=None, title=None):
    """Draw one filter over lag, with the truth where it is known."""
    lag = (np.arange(len(fitted)) + 1) * bin_size * 1e3
    ax.axhline(0, color="0.8", lw=0.8)
    if true is not None:
        ax.plot(lag, true, color=_GREY, lw=3, alpha=0.5, label="true")
    ax.plot(lag, fitted, color=_BLUE, lw=1.5, label="fitted")
    ax.set_title(title, fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)


def demo_figure(true, fitted, true_filters, fitted_filters, bin_size, path):
    """Save true and fitted connectivity side by side over six filters with their truth."""
    figure = Figure(figsize=(10, 8.2), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    axes = top.subplots(1, 2)
    limit = _limit(true)
    connectivity(axes[0], true, limit, "true connectivity")
    image = connectivity(axes[1], fitted, limit, "fitted connectivity")
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
    image = connectivity(ax, areas, _limit(regular))
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


def _examples(areas):
    """Six pairs: the strongest by area, at most half of them negative."""
    off = np.where(np.eye(len(areas), dtype=bool), 0.0, np.nan_to_num(areas))
    order = np.argsort(-np.abs(off), axis=None)
    pairs = [np.unravel_index(k, off.shape) for k in order]
    negative = [p for p in pairs if off[p] < 0][:3]
    positive = [p for p in pairs if off[p] > 0][: 6 - len(negative)]
    return positive + negative


def _filter_grid(figure, pairs, filters, bin_size, true=None):
    axes = figure.subplots(2, 3, sharex=True).ravel()
    for ax, (i, j) in zip(axes, pairs, strict=False):
        coupling_filter(
            ax,
            filters[i, :, j],
            bin_size,
            None if true is None else true[i, :, j],
            f"{i} \N{RIGHTWARDS ARROW} {j}",
        )
    for ax in axes[len(pairs) :]:
        ax.set_visible(False)
    if true is not None and pairs:
        axes[0].legend(frameon=False, fontsize=8)
    figure.supxlabel("lag (ms)", fontsize=9)
    figure.supylabel("change of log rate", fontsize=9)
