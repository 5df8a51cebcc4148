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
