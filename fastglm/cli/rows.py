"""Rows of the table on the terminal, pairs of a name and a text."""

from __future__ import annotations

import numpy as np

from fastglm import _html
from fastglm.observation_models import as_observation_model


def fit_rows(model: object, X: object, y: object, seconds: float) -> list[tuple[str, str]]:
    """How the fit went, and how well it describes the counts."""
    family = as_observation_model(model.observation_model)
    known = np.isfinite(model.objective_)
    rows = [
        ("time", f"{seconds:.2f} s, compilation included on first use"),
        ("status", _html.tally(model.status_)),
        ("mean objective", f"{model.objective_[known].mean():.10g}"),
        (
            "certificate",
            f"largest Newton decrement {np.nanmax(model.newton_decrement_):.1e}, "
            f"largest gradient {np.nanmax(model.grad_norm_):.1e}",
        ),
    ]
    if family.event_based:
        score = model.score(X, y, score_type="pseudo-r2-McFadden")
        scale = [("scale", _html.span(model.scale_))] if family.fits_scale else []
        return [*rows, *scale, ("pseudo-R2 (McFadden)", f"{score:.4f}")]
    score = model.score(X, y, score_type="pseudo-r2-Cohen")
    return [*rows, ("scale", _html.span(model.scale_)), ("R2", f"{score:.4f}")]


def recording_rows(file: object, spikes: object, model: object) -> list[tuple[str, str]]:
    """What was read, and the bins that it makes."""
    X, epochs = model.X_, len(model.epochs_)
    return [
        ("recording", str(file)),
        ("units, spikes", f"{spikes.n_units}, {spikes.spike_times.size}"),
        (
            "bins",
            f"{X.shape[0]} of {model.bin_size_ * 1e3:g} ms in {epochs} epochs, "
            f"{int(X.valid.sum())} with history",
        ),
    ]


def found_rows(couplings: object, q: float) -> list[tuple[str, str]]:
    """How many couplings are found, and the null that they depart from; none without tests."""
    if not couplings.tested:
        return []
    found = couplings.significant(q)
    of = int(np.isfinite(couplings.q_value).sum())
    exciting = int((couplings.strength[found] > 0).sum())
    n = int(found.sum())
    text = f"{n:,} of {of:,} found (q <= {q:g}): {exciting:,} exciting, {n - exciting:,} inhibiting"
    return [("couplings", text), ("null", couplings.null.sentence)]


def strongest_rows(couplings: object, q: float) -> list[tuple[str, str]]:
    """The five strongest couplings between different cells."""
    text = ", ".join(
        f"{couplings.senders[i]} -> {couplings.receivers[j]} ({couplings.strength[i, j]:+.3g})"
        for i, j in couplings.strongest(5, q)
    )
    return [("strongest (filter area)", text)] if text else []


def recovery_rows(adjacency: np.ndarray | None, couplings: object) -> list[tuple[str, str]]:
    """Rows about how well filter areas find the true connections, if these are known."""
    from sklearn.metrics import roc_auc_score

    if adjacency is None:
        return []
    between, rows = ~couplings.own_history, []
    for name, sign in (("excitatory", 1), ("inhibitory", -1)):
        linked = sign * np.asarray(adjacency)[between] > 0
        if linked.any() and not linked.all():
            auc = roc_auc_score(linked, sign * couplings.strength[between])
            rows.append((f"{name} links", f"{linked.sum()}, area under ROC {auc:.3f}"))
    return rows


def true_rows(adjacency: np.ndarray | None, couplings: object, q: float) -> list[tuple[str, str]]:
    """How many of the couplings that are found are true, if the true ones are known."""
    if adjacency is None or not couplings.tested:
        return []
    found, linked = couplings.significant(q), np.asarray(adjacency) != 0
    text = f"{int((found & linked).sum()):,} of {int(found.sum()):,} found are true links"
    return [("truth", f"{text}, of {int((linked & ~couplings.own_history).sum()):,}")]


def channel_rows(model: object, channel: str | None) -> list[tuple[str, str]]:
    """The number of couplings between cells of one channel, if there are some."""
    from fastglm.connectivity.shadows import read_channels

    cells = model.receivers_
    same, source = read_channels(channel, cells, cells, (len(cells.names),) * 2, True)
    if not same.any():
        return []
    n = len(same) * (len(same) - 1)
    return [("pairs of one channel", f"{same.sum():,} of {n:,} couplings ({source})")]
