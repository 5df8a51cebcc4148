"""``model.summary()``: a fit as a readable table, in a terminal and in a notebook."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy import stats

from fastglm import _html, inference
from fastglm._engine.result import STATUSES
from fastglm._fitted import Fitted
from fastglm._scores import score
from fastglm.features.matrix import as_feature_matrix
from fastglm.regularizer import UnRegularized, as_regularizer

_MOST_ROWS = 30  # receivers or coefficients that are listed
_LEVEL = 0.95
_RULE = "="


@dataclass(repr=False)
class Summary:
    """A readable table of a fit; ``print(summary)`` shows it, and so does a notebook.

    Attributes
    ----------
    title : str
    rows : list of (str, str)
        What holds for the whole fit.
    head : list of str
    body : list of list of str
        A row for each coefficient of a `GLM`, or for each receiver of a `PopulationGLM`.
    notes : list of str
        Sentences.
    """

    title: str
    rows: list
    head: list
    body: list
    notes: list

    def __repr__(self) -> str:
        return self.as_text()

    def as_text(self) -> str:
        """The tables as text."""
        width = max(len(name) for name, _ in self.rows)
        lines = [f"{name:<{width}}  {value}" for name, value in self.rows]
        table = [self.head, *self.body]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        grid = [
            "  ".join(f"{v:<{w}}" if not k else f"{v:>{w}}"
                      for k, (v, w) in enumerate(zip(row, widths, strict=True))).rstrip()
            for row in table
        ]  # fmt: skip
        rule = _RULE * max(map(len, [self.title, *grid]))
        parts = [self.title, rule, *lines, rule, grid[0], "-" * len(rule), *grid[1:], rule]
        return "\n".join([*parts, *self.notes])

    def as_html(self) -> str:
        """The tables as HTML."""
        note = " ".join(self.notes)
        return _html.table(self.title, self.rows) + _html.table("", self.body, self.head, note)

    _repr_html_ = as_html


def summarise(model: object, X: object, y: object, sample_weight: object, offset: object):
    """The `Summary` of a fitted model; see `PopulationGLM.summary`."""
    if X is None and y is None and sample_weight is None and offset is None:
        X, y = getattr(model, "X_", None), getattr(model, "counts_", None)
    if (X is None) != (y is None):
        raise ValueError("summary got one of X and y; pass both, or none of them.")
    fit = Fitted.of(model) if X is None else Fitted.of(
        model, X, y, sample_weight=sample_weight, offset=offset
    )  # fmt: skip
    rows = [*_about(model, fit), *([] if X is None else _data(fit)), *_certificate(model)]
    adjust = {"sample_weight": sample_weight, "offset": offset}
    head, body, notes = _coefficients(model, X, y, adjust) if fit.single else _receivers(model, fit)
    if len(body) > _MOST_ROWS:
        notes = [f"{len(body) - _MOST_ROWS:,} more rows are not shown.", *notes]
        body = body[:_MOST_ROWS]
    for status in STATUSES:
        if status != "converged" and (fit.status == status).any():
            notes.append(f"{status}: {STATUSES[status].sentence}.")
    title = f"{type(model).__name__}: {fit.family.name} observations, link {fit.loss.link}"
    return Summary(title, rows, head, body, notes)


def _about(model, fit):
    kind = as_regularizer(model.regularizer)
    penalty = "none"
    if not isinstance(kind, UnRegularized):
        strength = model.regularizer_strength
        strength = kind.default_strength if strength is None else strength
        flat = [np.asarray(one, float).ravel() for one in _leaves(strength)]
        penalty = f"{fit.regularizer}, strength {_html.span(np.concatenate(flat))}"
    n_features, n = fit.coef.shape
    return [("receivers, features", f"{n:,}, {n_features:,}"), ("penalty", penalty)]


def _leaves(strength):
    if isinstance(strength, dict):
        return [leaf for one in strength.values() for leaf in _leaves(one)]
    return list(strength) if isinstance(strength, tuple | list) else [strength]


def _data(fit):
    rows = [("bins", f"{int(fit.kept.sum()):,} of {fit.kept.size:,}")]
    if fit.family.event_based:
        rows.append(("events", f"{int(fit.y.sums(fit.kept).sum()):,}"))
    kinds = {"mean log-likelihood": "log-likelihood", "pseudo-R2 (McFadden)": "pseudo-r2-McFadden"}
    found = ((name, score(fit, kind, skip_impossible=True)) for name, kind in kinds.items())
    return [*rows, *((name, f"{value:.5g}") for name, value in found)]


def _certificate(model):
    decrement = model.newton_decrement_[np.isfinite(model.newton_decrement_)]
    gap = f"{decrement.max():.1e}" if decrement.size else "not known"
    rows = [("status", _html.tally(model.status_)), ("largest gap to the optimum", gap)]
    if np.ptp(model.scale_) > 0 or (model.scale_ != 1).any():
        rows.append(("scale", _html.span(model.scale_)))
    return rows


def _coefficients(model, X, y, adjust):
    """Rows of a GLM: its coefficients, with tests if there are data."""
    values = np.append(model.intercept_, Fitted.of(model).coef[:, 0])
    names = ["intercept", *_feature_names(model, X)]
    if X is None:
        body = [[name, f"{v:.4g}"] for name, v in zip(names, values, strict=True)]
        return ["", "coef"], body, ["summary(X, y) adds scores, standard errors and tests."]
    found = inference.uncertainty(model, X, y, **adjust)
    errors = np.append(found.intercept_standard_errors, found.standard_errors[:, 0])
    with np.errstate(divide="ignore", invalid="ignore"):
        z = values / errors
    p = 2 * stats.norm.sf(np.abs(z))
    reach = stats.norm.ppf(0.5 + _LEVEL / 2) * errors
    columns = zip(names, values, errors, z, p, values - reach, values + reach, strict=True)
    body = [
        [name, *(_html.number(v, ".4g") for v in (c, e, t)), _html.number(q, ".3f"),
         _html.number(a, ".4g"), _html.number(b, ".4g")]
        for name, c, e, t, q, a, b in columns
    ]  # fmt: skip
    head = ["", "coef", "std err", "z", "P>|z|", "[0.025", "0.975]"]
    return head, body, ["Standard errors are from the observed information, the penalty included."]


def _feature_names(model, X):
    names = getattr(model, "feature_names_in_", None)
    if names is not None:
        return [str(name) for name in names]
    if X is None:
        return [str(k) for k in range(model.n_features_in_)]
    blocks = as_feature_matrix(X).blocks
    if len(blocks) == 1:
        return [str(k) for k in range(blocks[0].n_columns)]
    return [f"{one.label} {k}" for one in blocks for k in range(one.n_columns)]


def _receivers(model, fit):
    """Rows of a population: its receivers, with scores if there are data."""
    names = range(fit.n_receivers) if fit.receivers is None else fit.receivers.names
    columns = {
        "receiver": [str(name) for name in names],
        "status": fit.status.tolist(),
        "intercept": [_html.number(v, ".4g") for v in np.asarray(model.intercept_)],
        "objective": [_html.number(v, ".6g") for v in model.objective_],
        "gap": [_html.number(v, ".1e") for v in model.newton_decrement_],
        "passes": [str(v) for v in model.n_passes_],
    }
    if fit.y is not None:
        if fit.family.event_based:
            columns["events"] = [f"{int(v):,}" for v in fit.y.sums(fit.kept)]
        if fit.weight is None:
            each = score(fit, "pseudo-r2-McFadden", _by_receiver, skip_impossible=True)
            columns["pseudo-R2"] = [_html.number(v, ".4f") for v in each]
    body = [list(row) for row in zip(*columns.values(), strict=True)]
    return list(columns), body, [] if fit.y is not None else ["summary(X, y) adds scores."]


def _by_receiver(values):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice")  # of a receiver without counts
        return np.nanmean(values, axis=0)
