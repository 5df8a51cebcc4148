"""Whole figures, saved to files."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from fastglm._files import check_output, replacing
from fastglm.connectivity import CouplingMap
from fastglm.plotting.common import SMALL
from fastglm.plotting.couplings import colour_limit, draw_bar, draw_filters, plot_connectivity


def check_path(path: str | Path) -> None:
    """Raise ValueError if a picture cannot be written to the path: folder or file type."""
    path = Path(path)
    types = FigureCanvasBase.get_supported_filetypes()
    if path.suffix[1:].lower() not in types:
        raise ValueError(
            f"{path} has no known type of picture; expected one of {', '.join(sorted(types))}."
        )
    check_output(path)


def demo_figure(true: CouplingMap, fitted: CouplingMap, bin_size: float, path: str | Path) -> None:
    """Save true and fitted connectivity side by side, and below them six filters with their truth.

    Parameters
    ----------
    true, fitted : fastglm.connectivity.CouplingMap
    bin_size : float
        Seconds.
    path : Path
    """
    figure = Figure(figsize=(10, 8.6), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.3, 1))
    axes = top.subplots(1, 2)
    limit = colour_limit(true.strength[~true.own_history])
    for ax, couplings, title in zip(axes, (true, fitted), ("true", "fitted"), strict=True):
        # One legend for both: the fitted map has every mark of the true one.
        one = couplings is fitted
        plot_connectivity(couplings, limit=limit, bar=False, legend=one, ax=ax)
        ax.set_title(f"{title} connectivity", fontsize=10)
    drawn = axes[1].images[0]
    draw_bar(drawn, drawn.get_array().compressed(), axes, _label(fitted))
    grid = bottom.subplots(2, 3)
    pairs = _examples(true)
    draw_filters(fitted, pairs, grid, bin_size, true=true)
    if pairs:
        grid[0, 0].legend(frameon=False, fontsize=SMALL)
    _save(figure, path)


def fit_figure(
    couplings: CouplingMap,
    bin_size: float,
    path: str | Path,
    *,
    q: float = 0.05,
    value: str = "strength",
    mark: str = "auto",
    level: float = 0.95,
) -> None:
    """Save the fitted connectivity beside six of its strongest filters.

    Parameters
    ----------
    couplings : fastglm.connectivity.CouplingMap
    bin_size : float
        Seconds.
    path : Path
    q, value, mark
        As in `plot_connectivity`.
    level : float
        Level of the bands of filters.
    """
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.15))
    ax = plot_connectivity(couplings, q, value, mark, ax=left.subplots())
    ax.set_title("fitted connectivity", fontsize=10)
    draw_filters(couplings, _examples(couplings), right.subplots(2, 3), bin_size, level)
    _save(figure, path)


def _save(figure, path):
    kind = Path(path).suffix[1:].lower()
    with replacing(path) as file:
        # Tight: otherwise titles of subfigures are cut off at the top.
        figure.savefig(file, format=kind, dpi=150, bbox_inches="tight", pad_inches=0.1)


def _label(couplings):
    return f"filter area ({couplings.loss.eta_name} \N{MULTIPLICATION SIGN} bins)"


def _examples(couplings):
    """Six pairs: the strongest by area, at most half of them negative."""
    number = 100
    while True:
        pairs = couplings.strongest(number)
        negative = [pair for pair in pairs if couplings.strength[pair] < 0][:3]
        positive = [pair for pair in pairs if couplings.strength[pair] > 0][: 6 - len(negative)]
        if len(pairs) < number or len(negative) == len(positive) == 3:
            return positive + negative
        number *= 10
