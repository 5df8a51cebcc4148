"""The facts of a page: numbers, couplings, diagnostics, and notes about problems."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fastglm import connectivity, diagnostics
from fastglm._engine.result import STATUSES
from fastglm._fitted import Fitted
from fastglm._inputs import read_counts
from fastglm.diagnostics.explained import explained, read_fit
from fastglm.features.matrix import as_feature_matrix
from fastglm.inference import affordable
from fastglm.plotting.common import names_of

LEVEL = 0.95  # level of bands
_MOST_MODES = 150  # cells; modes of larger networks are not counted


@dataclass
class Facts:
    """All facts about a fit that the page shows; arrays are of shape (n_receivers,)."""

    fit: Fitted
    names: np.ndarray
    n_events: np.ndarray  # in the bins of the fit
    n_missing: np.ndarray
    n_free: np.ndarray
    deviance_explained: np.ndarray
    bits_per_spike: np.ndarray | None = None  # None if counts are not events
    rescaling: diagnostics.Rescaling | None = None  # None if counts are not events
    couplings: connectivity.CouplingMap | None = None
    itself: bool = False  # the population drives itself
    stability: diagnostics.Stability | None = None
    radius: float = np.nan
    contributions: diagnostics.Contributions | None = None
    notes: list = field(default_factory=list)  # (level, sentence)


def gather(
    model: object,
    X: object,
    y: object,
    standard_errors: str | bool | None,
    names: np.ndarray | list | None,
    adjust: dict,
    test: dict,
    couplings: connectivity.CouplingMap | None = None,
) -> Facts:
    """All facts about a fit; see `fastglm.report.write_report`.

    ``adjust`` has its ``sample_weight`` and ``offset``, ``test`` its ``null``, ``bin_size`` and
    ``channel``. Without ``couplings`` the map is made here.
    """
    fit = read_fit(model, X, y, **adjust)
    sums = explained(fit)
    facts = Facts(
        fit,
        _names(names, fit),
        fit.y.sums(fit.kept),
        fit.y.missing(fit.kept).astype(int),
        fit.mask.sum(axis=0),
        sums.deviance_explained(),
    )
    if fit.family.event_based:
        facts.bits_per_spike = sums.bits_per_spike()
        facts.rescaling = diagnostics.time_rescaling(model, X, y, **adjust)
    if couplings is not None:
        facts.couplings = couplings
        facts.itself = couplings.own is None and bool(couplings.own_history.any())
    elif fit.X.histories:
        named = names is not None or fit.receivers is not None
        _add_couplings(facts, model, X, y, standard_errors, {**adjust, **test}, named)
    if facts.couplings is not None:
        _add_stability(facts)
    facts.notes = _notes(facts) + facts.notes
    return facts


def _names(names, fit):
    if names is None and fit.receivers is not None:
        names = fit.receivers.names
    return names_of(names, fit.n_receivers, prefix="")


def _add_couplings(facts, model, X, y, standard_errors, how, named):
    fit, free = facts.fit, facts.n_free
    given = as_feature_matrix(X)
    block, first = connectivity.history_of(given)
    facts.itself = block.is_history_of(read_counts(model, y), given.bins)
    senders = facts.names if facts.itself else None
    if senders is None and block.inputs is not None:
        senders = np.array([str(name) for name in block.inputs.names])
    names = {"senders": senders, "receivers": facts.names}
    if standard_errors or (standard_errors is None and affordable(fit)):
        kind = standard_errors if isinstance(standard_errors, str) else "observed"
        if not (named or facts.itself):
            names["receivers"] = None  # a part of the senders has their numbers
        facts.couplings = connectivity.coupling_map(model, X, y, kind, **names, **how)
        facts.names = np.array([str(name) for name in facts.couplings.receivers])
        return
    some = (fit.X.filters >= first) & (fit.X.filters < first + block.n_senders)
    facts.couplings = connectivity.point_estimates(
        fit.coef[some], block.kernel, itself=facts.itself, first_filter=first, model=model,
        loss=fit.loss, **names,
    )  # fmt: skip
    why = ""
    if standard_errors is None:
        why = f" because {int(free.max()):,} features and {free.size:,} receivers would take long"
    facts.notes.append(
        ("note", f"Standard errors and tests were left out{why}; couplings are shown as "
         "estimated, noise included. write_report(..., standard_errors=True) computes them.")
    )  # fmt: skip


def _add_stability(facts):
    fit, kernel = facts.fit, facts.couplings.kernel
    alone = fit.coef.shape[0] == fit.n_receivers * kernel.shape[1]
    if not (facts.itself and alone and np.isfinite(fit.coef).all()):
        return
    if fit.n_receivers <= _MOST_MODES:
        facts.stability = diagnostics.stability(fit.model, kernel, fit.mean_count)
        facts.radius = facts.stability.radius
    else:
        facts.radius = diagnostics.spectral_radius(fit.model, kernel, fit.mean_count)


def _notes(facts):
    """Notes about problems, each a level and a sentence."""
    notes = [*_notes_of_data(facts), *_notes_of_rescaling(facts)]
    if facts.stability is not None and not facts.stability.stable:
        n = facts.stability.n_growing
        notes.append(
            ("note", f"The linearised network has {n} growing mode{'s' * (n != 1)} at the recorded "
             "rates: simulations from it may run away.")
        )  # fmt: skip
    if facts.couplings is not None and facts.couplings.uncertainty is not None:
        notes += _notes_of_couplings(facts)
    return notes


def _notes_of_data(facts):
    fit, names = facts.fit, facts.names
    for status, (sentence, *_) in STATUSES.items():
        found = fit.status == status
        if status != "converged" and found.any():
            level = (
                "note"
                if status in ("silent", "saturated", "separated", "underdispersed")
                else "warning"
            )
            yield level, f"{_these(found, names, ('is', 'are'))} {status}: {sentence}."
    few, what = _few(facts)
    if few.any():
        yield (
            "warning",
            f"{_these(few, names)} fewer {what} than features: the estimates rest on the penalty. "
            "Use fewer basis functions, a mask, or a longer recording.",
        )
    if facts.n_missing.any():
        yield (
            "note",
            f"{_these(facts.n_missing > 0, names)} missing counts: bins are left out of the fit "
            "of a receiver where its count is missing.",
        )


def _few(facts):
    """Receivers with fewer observations than features, and the kind of observation."""
    fit = facts.fit
    if not fit.family.event_based:
        return fit.n_bins < facts.n_free, "bins"
    few = (facts.n_events < facts.n_free) & (facts.n_events > 0)
    if fit.loss.high is None:
        return few, "events"
    empty = fit.n_bins - facts.n_events
    return few | ((empty < facts.n_free) & (empty > 0)), "bins with, or without, an event"


def _notes_of_rescaling(facts):
    rescaling = facts.rescaling
    if rescaling is None:
        return
    many = rescaling.n_extra > 0.05 * np.maximum(facts.n_events, 1)
    if many.any():
        yield (
            "note",
            f"{_these(many, facts.names)} more than 5 % of their events beyond the first "
            "of a bin: time rescaling does not see these. Use smaller bins.",
        )
    outside = rescaling.statistic > rescaling.band(LEVEL)
    tested = np.isfinite(rescaling.statistic)
    if outside.any():
        yield (
            "warning" if outside.mean() > 0.5 else "note",
            f"{int(outside.sum())} of {int(tested.sum())} tested receivers leave the 95 % band of "
            "the KS test: their events do not come when the model expects them. A longer window, "
            "finer bins or covariates for slow shared drive may help; significance then "
            'overstates. standard_errors="blocks" allows for residuals that depend on each other '
            "within ten windows, where cells have many events, and not for missing input.",
        )


def _notes_of_couplings(facts):
    couplings, penalty = facts.couplings, facts.fit.regularizer
    open_ = np.isinf(couplings.standard_error) & ~couplings.own_history
    if open_.any():
        yield (
            "warning",
            f"The data do not determine {int(open_.sum())} of {open_.size} couplings: they are "
            "hatched and not among the strongest. A ridge of 1e-4 or so settles them.",
        )
    if couplings.channel:
        yield ("note", couplings.channel)
    if penalty in ("Lasso", "ElasticNet", "GroupLasso"):
        yield (
            "note",
            f"{penalty} has selected couplings: standard errors are conditional on that and too "
            "small.",
        )
    elif penalty == "Ridge":
        yield (
            "note",
            "With a ridge, confidence intervals have their level on average over couplings of the "
            "size that the penalty expects, not for each coupling.",
        )


def _these(found, names, verbs=("has", "have")):
    """Names of the found receivers, as the subject of a sentence."""
    listed = ", ".join(names[found][:8])
    n = int(found.sum())
    verb = verbs[n != 1]
    more = f" and {n - 8} more" if n > 8 else ""
    return f"{n} receiver{'s' * (n != 1)} ({listed}{more}) {verb}"
