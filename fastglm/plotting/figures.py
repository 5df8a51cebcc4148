"""Whole figures in files."""

import numpy as np
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from fastglm.plotting.couplings import OWN, draw_image, filter_grid, limit_of, matrix_of


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
        image = _areas(ax, areas, limit_of(_between(true)))
        ax.set_title(f"{title} connectivity")
    bar = top.colorbar(image, ax=axes, shrink=0.85, extend="both")
    bar.set_label("filter area (log rate x bins)")
    filter_grid(bottom, _examples(true), fitted_filters, bin_size, true_filters)
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
    image = _areas(ax, areas, limit_of(_between(regular)))
    for j in np.flatnonzero(flagged):
        ax.axvspan(j - 0.5, j + 0.5, fill=False, hatch="///", lw=0, ec="0.4")
    title = "fitted connectivity"
    if flagged.any():
        title += f"\n(hatched: {int(flagged.sum())} receivers without a regular optimum)"
    ax.set_title(title, fontsize=10)
    bar = left.colorbar(image, ax=ax, shrink=0.8, extend="both")
    bar.set_label("filter area (log rate x bins)")
    filter_grid(right, _examples(regular), filters, bin_size)
    figure.savefig(path, dpi=150)


def _areas(ax, areas, limit):
    """Matrix of areas, the diagonal grey."""
    number = np.arange(len(areas))
    image = matrix_of(ax, _between(areas), limit, number, number)
    own = np.zeros((*areas.shape, 4))
    own[number, number] = OWN
    draw_image(ax, own)
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
