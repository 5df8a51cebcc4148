"""What pictures have in common: colours, axes, names."""

import numpy as np

BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#808080"  # the grey does on white and on black
# Okabe & Ito without black and yellow, which vanish on black and on white.
COLOURS = (BLUE, "#E69F00", "#009E73", "#CC79A7", "#56B4E9", VERMILLION)
SMALL = 8  # points


def axes_of(ax, size):
    """Axes to draw into: those given, or new ones."""
    return figure_of(size).subplots() if ax is None else ax


def figure_of(size):
    """A new figure of pyplot, which notebooks show."""
    import matplotlib.pyplot as plt

    return plt.figure(figsize=size, layout="constrained")


def names_of(names, n, prefix="receiver "):
    """Names of n receivers, or numbers."""
    names = np.array([f"{prefix}{k}" for k in range(n)]) if names is None else np.asarray(names)
    if names.shape != (n,):
        raise ValueError(f"names has shape {names.shape}; expected a name for each of {n}.")
    return names


def plain(ax):
    """Take the frame away above and on the right."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=SMALL)


def lags_of(window_size, bin_size=None):
    """Lags of a window in milliseconds, or in bins without a bin size, and their label."""
    lags = np.arange(1, window_size + 1)
    return (lags, "lag (bins)") if bin_size is None else (lags * 1e3 * bin_size, "lag (ms)")


def above(n_columns):
    """Arguments of a legend above the axes."""
    return {
        "loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": n_columns, "fontsize": SMALL,
        "frameon": False, "handlelength": 1.2, "columnspacing": 1.2, "borderaxespad": 0.2,
    }  # fmt: skip


def check_receiver(receiver, n):
    """Raise ValueError if there is no receiver of that number."""
    if not 0 <= receiver < n:
        raise ValueError(f"receiver is {receiver}; expected a number from 0 to {n - 1}.")
