"""Picture of what each block of features adds to the held-out score."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from fastglm.diagnostics import Contributions
from fastglm.plotting.common import BLUE, GREY, SMALL, VERMILLION, axes_of, plain


def plot_contributions(
    contributions: Contributions, measure: str | None = None, ax: Axes | None = None
) -> Axes:
    """What each block of features adds to the held-out score of every receiver.

    A dot is a receiver: the mean over the folds of the score less that without the block. Its bar
    is one standard error to both sides. Within a block the receivers are sorted. The line is the
    median.

    Parameters
    ----------
    contributions : fastglm.diagnostics.Contributions
    measure : {"bits_per_spike", "deviance_explained"}, optional
        Default: bits per spike, or deviance explained for Gaussian observations.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If the measure is unknown, or no receiver has a score.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> from fastglm.plotting import plot_contributions
    >>> counts = np.random.default_rng(0).poisson(0.2, size=(2000, 4))
    >>> X = fastglm.basis.RaisedCosineLogConv(4, window_size=20).compute_features(counts)
    >>> model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-3)
    >>> found = fastglm.diagnostics.contributions(model, X, counts, folds=3)
    >>> plot_contributions(found).get_ylabel()
    'gain in held-out bits per spike'
    """
    measure = contributions.measure if measure is None else measure
    blocks = list(contributions.without)
    gains = [contributions.gain(block, measure) for block in blocks]
    if not any(np.isfinite(gain).any() for gain in gains):
        raise ValueError("No receiver has a held-out score in every fold; nothing to draw.")
    ax = axes_of(ax, (1.6 + 1.5 * len(blocks), 3.4))
    ax.axhline(0, color=GREY, lw=0.8)
    for k, (block, gain) in enumerate(zip(blocks, gains, strict=True)):
        error = contributions.standard_error(block, measure)
        order = np.argsort(gain)
        order = order[np.isfinite(gain[order])]
        place = k + 0.7 * ((np.arange(order.size) + 0.5) / max(order.size, 1) - 0.5)
        bars = np.nan_to_num(error[order])
        ax.errorbar(place, gain[order], bars, fmt="o", ms=3, lw=0.8, color=BLUE)
        if order.size:
            middle = np.median(gain[order])
            ax.plot([k - 0.38, k + 0.38], [middle, middle], color=VERMILLION, lw=1.5)
    ax.set_xticks(range(len(blocks)), blocks)
    ax.set_xlim(-0.6, len(blocks) - 0.4)
    ax.set_ylabel(f"gain in held-out {measure.replace('_', ' ')}")
    plain(ax)
    ax.tick_params(axis="x", labelsize=SMALL + 1)
    return ax
