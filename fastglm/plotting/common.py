"""Colours, axes and names that all pictures share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#808080"  # grey is visible on white and on black
# Okabe & Ito without black, which vanishes on black, and yellow, which vanishes on white.
COLOURS = (BLUE, "#E69F00", "#009E73", "#CC79A7", "#56B4E9", VERMILLION)
SMALL = 8  # points


def axes_of(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """The given axes, or new axes in a new figure of this size (inches)."""
    return figure_of(size).subplots() if ax is None else ax


def figure_of(size: tuple[float, float]) -> Figure:
    """A new figure of pyplot; notebooks show it."""
    import matplotlib.pyplot as plt

    return plt.figure(figsize=size, layout="constrained")


def names_of(names: ArrayLike | None, n: int, prefix: str = "receiver ") -> np.ndarray:
    """Names of n receivers; numbers without names."""
    names = [f"{prefix}{k}" for k in range(n)] if names is None else names
    names = np.array([str(name) for name in names])  # one that is a tuple is one name
    if names.shape != (n,):
        raise ValueError(f"names has shape {names.shape}; expected a name for each of {n}.")
    return names


def plain(ax: Axes) -> None:
    """Remove the frame above and on the right."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=SMALL)


def lags_of(window_size: int, bin_size: float | None = None) -> tuple[np.ndarray, str]:
    """Lags of a window in milliseconds, or in bins without a bin size, and their label."""
    lags = np.arange(1, window_size + 1)
    return (lags, "lag (bins)") if bin_size is None else (lags * 1e3 * bin_size, "lag (ms)")


def above(n_columns: int) -> dict[str, object]:
    """Keyword arguments of a legend above the axes."""
    return {
        "loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": n_columns, "fontsize": SMALL,
        "frameon": False, "handlelength": 1.2, "columnspacing": 1.2, "borderaxespad": 0.2,
    }  # fmt: skip


def check_receiver(receiver: int, n: int) -> None:
    """Raise ValueError if there is no receiver with the number."""
    if not 0 <= receiver < n:
        raise ValueError(f"receiver is {receiver}; expected a number from 0 to {n - 1}.")
