"""Pictures of regularisation paths and cross-validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from fastglm.model_selection import CrossValidation, Path
from fastglm.plotting.common import (
    BLUE,
    COLOURS,
    GREY,
    SMALL,
    VERMILLION,
    axes_of,
    check_receiver,
    names_of,
    plain,
)


def plot_path(
    path: Path,
    receiver: int = 0,
    groups: np.ndarray | None = None,
    names: Sequence | None = None,
    chosen: float | None = None,
    n_named: int = 6,
    ax: Axes | None = None,
) -> Axes:
    """Coefficients of a receiver over the strength of the penalty, strongest on the left.

    Parameters
    ----------
    path : fastglm.model_selection.Path
    receiver : int
    groups : array of int, shape (n_features,), optional
        Filter of every feature, such as ``X.filters``. The norm of each filter is then drawn in
        place of its coefficients.
    names : sequence, optional
        Names of the filters or coefficients. Default: those of the features, or numbers.
    chosen : float, optional
        A strength to mark, such as ``cross_validation.strength[receiver]``.
    n_named : int
        Number of curves with a colour and a name, at most six. The largest curves at the weakest
        penalty are named.
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
    check_receiver(receiver, n)
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
    names = path.features if names is None and groups is None else names
    names = names_of(names, values.shape[1], "")
    ax = axes_of(ax, (4.8, 3.6))
    x = path.strengths[:, receiver]
    order = np.argsort(-np.abs(np.nan_to_num(values[-1])))
    named = order[: min(n_named, len(COLOURS))]
    ax.axhline(0, color=GREY, lw=0.8)
    for g in order[::-1]:
        at = np.flatnonzero(named == g)
        style = {"color": GREY, "lw": 0.7, "alpha": 0.6}
        if at.size:
            style = {"color": COLOURS[at[0]], "lw": 1.7, "label": str(names[g])}
        ax.plot(x, values[:, g], **style)
    _strength_axis(ax, x)
    if chosen is not None:
        ax.axvline(chosen, color=VERMILLION, lw=1.2, ls=(0, (4, 3)), label="chosen")
    ax.set_ylabel("coefficient" if groups is None else "norm of the filter")
    handles, labels = ax.get_legend_handles_labels()
    n = len(named)  # drawn last, the largest on top; listed first
    ax.legend(handles[:n][::-1] + handles[n:], labels[:n][::-1] + labels[n:],
              title="coefficient" if groups is None else "filter", title_fontsize=SMALL,
              fontsize=SMALL, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0),
              handlelength=1.4)  # fmt: skip
    receiver = names_of(path.receivers, path.coef.shape[2])[receiver]
    ax.set_title(receiver, loc="left", fontsize=9)
    plain(ax)
    return ax


def plot_cross_validation(
    cross_validation: CrossValidation, receiver: int = 0, ax: Axes | None = None
) -> Axes:
    """Held-out score of a receiver over the strength of the penalty, and the chosen strength.

    The curve is the mean log likelihood per bin over the folds, minus the mean of the best
    strength. The band is one standard error of this difference to both sides. With the rule
    "one-standard-error" a dashed line shows the score that a strength must reach: one standard
    error of the best mean below it. This standard error is wider than the band, because folds
    differ in rate.

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
    check_receiver(receiver, cross_validation.strengths.shape[1])
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
    ax = axes_of(ax, (4.4, 3.4))
    x = cross_validation.strengths[:, receiver]
    chosen = cross_validation.chosen[receiver]
    ax.fill_between(x, mean - error, mean + error, color=BLUE, alpha=0.2, lw=0)
    ax.plot(x, mean, color=BLUE, lw=1.5, marker="o", ms=3.5)
    if cross_validation.rule == "one-standard-error" and n_folds > 1:
        ax.axhline(-reach, color=GREY, lw=0.8, ls=(0, (4, 3)))
    ax.axvline(x[chosen], color=VERMILLION, lw=1.2, ls=(0, (4, 3)))
    ax.plot(x[chosen], mean[chosen], ls="", marker="D", ms=6, color=VERMILLION)
    _strength_axis(ax, x)
    ax.set_ylabel("held-out log-likelihood per bin,\nless the best")
    ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
    ax.yaxis.get_offset_text().set_fontsize(SMALL)
    columns = getattr(cross_validation.model, "receivers_", None)
    names = names_of(None if columns is None else columns.names, len(cross_validation.chosen))
    ax.set_title(f"{names[receiver]}: {x[chosen]:.2g} chosen", loc="right", fontsize=9)
    plain(ax)
    return ax


def _strength_axis(ax, x):
    positive = x[x > 0]
    if positive.size == x.size:
        ax.set_xscale("log")
    elif positive.size:
        ax.set_xscale("symlog", linthresh=positive.min())
    ax.set_xlabel("strength of the penalty")
    ax.invert_xaxis()
