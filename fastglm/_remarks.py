"""What a fit says by itself: what it will cost and keep before it begins, and how it ended."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from fastglm import _html
from fastglm._batches.cost import events_a_feature, is_large
from fastglm._batches.plan import plan_fit
from fastglm._engine.result import STATUSES
from fastglm._penalty import COUPLING, strength_of_prior
from fastglm._products.kinds import kind_of
from fastglm._products.local import Local
from fastglm.regularizer import Ridge, as_regularizer

# Rounding of a feature is named if it moves eta by more; its size is taken from some rows.
_COARSE, _SOME_ROWS = 1e-8, 1000
_NO_EFFECT = 0.02  # part of the likeliest effect below which a ridge has left nothing
_SLOWER = 4.0  # a fit without a penalty takes so many times as long where features separate
_LISTED = 10  # receivers that a sentence names


def before(model: object, problem: object) -> None:
    """Warn before a fit begins, of a long way to infinity or of a ridge that leaves nothing.

    Warns
    -----
    UserWarning
        If a large fit has no penalty and its data separate, or the default ridge of 1.0 leaves less
        than a fiftieth of any effect of a history.
    """
    for remark in (_long_way(problem), _no_effect(model, problem)):
        if remark:
            warnings.warn(remark, UserWarning, stacklevel=3)


def _long_way(problem):
    """A sentence on a large fit without a penalty whose data separate, or an empty text.

    The features of `Loss.separated` are seen in ``X'Y``, which costs a part of a pass.
    """
    X, y, valid, loss = problem.X, problem.y, problem.valid, problem.settings.loss
    products = Local(X, valid)
    if loss.low is None or not is_large(products, y.n_units):
        return ""
    open_ = problem.penalty.unpenalised(X.shape[1]) & problem.free
    if not open_.any():
        return ""
    moments = products.moments(problem.observed)
    low, high = loss.separated(moments.x, moments.xty, X.nonnegative)
    parted = ((low | high) & open_).any(axis=0)
    if not parted.any():
        return ""
    receivers, n_bins = np.arange(y.n_units), int(valid.sum())
    strength = strength_of_prior(n_bins, COUPLING)
    events = events_a_feature(X, n_bins, y.sums(valid), np.full(y.n_units, strength))
    plan = plan_fit(products, receivers, problem.free, problem.settings, events)
    return (
        f"There is no penalty, and {_listed(parted, y.columns)} never fire where some features are "
        "active, as cells never fire right after a spike: these coefficients have no finite "
        "optimum. The fit ends, but its cost grows: about "
        f"{_html.duration(_SLOWER * plan.seconds)} or more, and {_html.duration(plan.seconds)} "
        f"with regularizer='Ridge', regularizer_strength={strength:.1g}."
    )


def _no_effect(model, problem):
    """A sentence on a ridge of 1.0 that leaves nothing of any history, or an empty text.

    With the curvature h of the loss at the mean count and an eigenvalue v of a sender's part of
    ``X'X / n_bins``, a ridge leaves ``h v / (h v + strength)`` of an effect, for independent
    senders.
    """
    strength = model.regularizer_strength
    default = strength is None or (np.isscalar(strength) and strength == 1.0)
    if not (default and isinstance(as_regularizer(model.regularizer), Ridge)):
        return ""
    histories = [block for block, _ in problem.X.histories]
    if not histories:
        return ""
    loss, n_bins = problem.settings.loss, int(problem.valid.sum())
    mean = problem.y.sums(problem.valid) / n_bins
    with np.errstate(all="ignore"):
        curvature = np.nan_to_num(loss.expected_curvature(loss.eta(mean)), posinf=0.0)
    largest = max(kind_of(c).curvature(c, n_bins)[0].max(initial=0.0) for c in histories)
    kept = curvature * largest / (curvature * largest + 1.0)
    if not 0 < kept.max(initial=0.0) < _NO_EFFECT:
        return ""
    strength = strength_of_prior(n_bins, COUPLING)
    return (
        f"A ridge of strength 1.0 leaves {100 * kept.max():.1g} % of the effects of the history, "
        "or less: the couplings are near 0 whatever the data say. The strength is on the mean loss "
        f"of {n_bins:,} bins; pass regularizer_strength={strength:.1g}, which expects "
        "couplings of about 0.2, or choose it by fastglm.model_selection.cross_validate."
    )


def after(problem: object, result: object) -> None:
    """Warn once of receivers that ended otherwise than "converged", with the remedies.

    Warns
    -----
    ConvergenceWarning
    """
    status, columns, parts = result.status, problem.y.columns, []
    if (status == "converged").all():
        return
    for name, (sentence, *_) in STATUSES.items():
        found = status == name
        if name != "converged" and found.any():
            parts.append(f"{name} ({_listed(found, columns)}): {sentence}")
    if parts:
        text = "; ".join(parts) + "." + _coarse_feature(problem, result)
        warnings.warn(text, ConvergenceWarning, stacklevel=3)


def _listed(found, columns):
    """The receivers of a boolean array by name, "receiver 0, 3 and 5 more"."""
    names = range(found.size) if columns is None else columns.names
    receivers = np.flatnonzero(found)
    listed = ", ".join(str(names[j]) for j in receivers[:_LISTED])
    more = f" and {receivers.size - _LISTED} more" if receivers.size > _LISTED else ""
    return f"receiver {listed}{more}"


def _coarse_feature(problem, result):
    """A sentence on the feature whose rounding may have ended a search, or an empty text."""
    lost = np.isin(result.status, ("stalled", "max_iter"))
    if not lost.any():
        return ""
    some = np.flatnonzero(problem.valid)[:_SOME_ROWS]
    with np.errstate(over="ignore", invalid="ignore"):
        size = np.hypot(np.sqrt((problem.X.rows(some) ** 2).mean(axis=0)), problem.shift)
        noise = np.finfo(np.float64).eps * size * np.abs(result.coef[:, lost]).max(axis=1)
    worst = int(np.nan_to_num(noise).argmax())
    if not noise[worst] > _COARSE:
        return ""
    name = worst if problem.names is None else repr(problem.names[worst])
    return (
        f" Rounding of feature {name} alone moves eta by {noise[worst]:.0e}: center or scale it, "
        "or leave out a feature that is nearly collinear with it."
    )
