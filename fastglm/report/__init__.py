"""One self-contained page about a fit: couplings, their uncertainty, diagnostics and warnings.

The page needs no other file: pictures are inline SVG, and style and script are in it. It follows
the light or dark scheme of the reader's system. Tables are sorted by a click on a heading, pictures
are saved as SVG or PNG, and nothing is fetched. Pages need matplotlib (the extra ``plot``).

| file | content |
|---|---|
| `facts` | all numbers and notes of the page |
| `sections` | the sections: facts as tables and pictures |
| `page` | HTML, and pictures as SVG |
| `look` | style and script |
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib

from fastglm._checks import check_choice, check_share
from fastglm._files import replacing
from fastglm.connectivity import CouplingMap
from fastglm.diagnostics import Contributions
from fastglm.inference import KINDS
from fastglm.recordings.times import check_bin_size
from fastglm.report import page, sections
from fastglm.report.facts import gather
from fastglm.report.page import check_path

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def write_report(
    path: str | Path,
    model: object,
    X: object | None = None,
    y: object | None = None,
    *,
    sample_weight: ArrayLike | None = None,
    offset: ArrayLike | None = None,
    bin_size: float | None = None,
    basis: object | None = None,
    title: str | None = None,
    recording: str | None = None,
    seconds: float | None = None,
    settings: dict | None = None,
    standard_errors: bool | str | None = None,
    null: str = "model",
    channel: Sequence | str | bool | None = None,
    q: float = 0.05,
    names: Sequence[str] | None = None,
    contributions: Contributions | None = None,
) -> Path:
    """Write a page about a fitted model: certificate, couplings, filters, diagnostics, settings.

    Parameters
    ----------
    path : str or Path
        HTML file to write.
    model : PopulationGLM, GLM or CouplingMap
        Fitted to X and y. The map of `fastglm.infer_connectivity` brings its model, tests,
        controls, bin size, basis and settings along.
    X, y, sample_weight, offset
        As in `fit`. Models of `fastglm.fit_coupling` and `fastglm.infer_connectivity` know their X
        and y.
    bin_size : float, optional
        Seconds. Without it, rates are per bin and lags in bins.
    basis : basis, optional
        The basis of X; its name and parameters are listed.
    title, recording : str, optional
        Heading, and source of the counts.
    seconds : float, optional
        Duration of the fit.
    settings : dict, optional
        Further settings to list, such as the choices of `fastglm.infer_connectivity`.
    standard_errors : bool or {"observed", "expected", "robust", "blocks"}, optional
        Whether to compute standard errors, and how. Default: from the observed information, if no
        receiver has more than 1,500 features and ``n_bins * n_features**2 * n_receivers`` is at
        most 3e12 (some minutes). If they are left out, the page says so.
    null : {"model", "empirical"}
        What couplings are tested against; see `fastglm.connectivity.coupling_map`.
    channel : sequence, str or False, optional
        The channel of each cell; see `fastglm.connectivity.coupling_map`.
    q : float
        q-value up to which a coupling counts as significant.
    names : sequence of str, optional
        Names of the receivers, and of the senders if the population drives itself. Default: names
        of the columns of the counts, or numbers.
    contributions : fastglm.diagnostics.Contributions, optional
        What blocks of features add to the held-out score, for a section of its own.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If the page cannot be written, X or y is missing or does not fit the model, a map has no
        model or comes with tests of another kind, weights or offsets of the fit are missing, or
        another argument is not valid.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np, fastglm
    >>> from fastglm.report import write_report
    >>> counts = np.random.default_rng(0).poisson(0.2, size=(3000, 4))
    >>> X = fastglm.basis.RaisedCosineLogConv(5, window_size=50).compute_features(counts)
    >>> model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_report(folder + "/fit.html", model.fit(X, counts), X, counts)
    ...     path.read_text()[:15]
    '<!DOCTYPE html>'
    """
    path = check_path(path)
    if bin_size is not None:
        check_bin_size(bin_size)
    check_share("q", q, 0.05)
    if not (standard_errors is None or isinstance(standard_errors, bool)):
        wanted = f"None, True, False or one of {list(KINDS)}"
        check_choice("standard_errors", standard_errors, KINDS, wanted)
    couplings = None
    if isinstance(model, CouplingMap):
        if standard_errors is not None or channel is not None or null != "model":
            raise ValueError(
                "standard_errors, null and channel make the tests of a map, and a CouplingMap has "
                "its tests; leave them out, or pass its model."
            )
        couplings, model = model, _model_of(model)
        names = couplings.receivers if names is None else names
        bin_size = couplings.bin_size if bin_size is None else bin_size
        basis = getattr(model, "basis_", None) if basis is None else basis
        settings = couplings.settings if settings is None else settings
    X, y = _data_of(model, X, y)
    adjust = {"sample_weight": sample_weight, "offset": offset}
    test = {"null": null, "bin_size": bin_size, "channel": channel}
    facts = gather(model, X, y, standard_errors, names, adjust, test, couplings)
    facts.contributions = contributions
    with matplotlib.rc_context(page.PICTURE):
        parts = [
            sections.attention(facts),
            sections.fitted(facts, bin_size, basis, recording),
            sections.certificate(facts, seconds),
            sections.couplings(facts, q),
            sections.filters(facts, bin_size),
            sections.contributions(facts),
            sections.describes(facts),
            sections.receivers(facts, bin_size),
            sections.settings(facts, basis, settings),
        ]
    if title is None:
        title = f"Coupled {facts.fit.family.name} GLM" + (f" of {recording}" if recording else "")
    text = page.whole(title, sections.tiles(facts, q), parts)
    with replacing(path) as file:
        file.write(text.encode())
    return path


def _model_of(couplings):
    if couplings.model is None:
        raise ValueError(
            "This map has no model, as one from a file has none; pass the map of "
            "infer_connectivity, or a fitted model with X and y."
        )
    return couplings.model


def _data_of(model, X, y):
    """X and y, or those that the model keeps."""
    found = [
        getattr(model, name, None) if given is None else given
        for given, name in ((X, "X_"), (y, "counts_"))
    ]
    if found[0] is None or found[1] is None:
        raise ValueError(
            "X or y is missing; expected those of the fit. Only models of fit_coupling and "
            "infer_connectivity keep theirs."
        )
    return found


__all__ = ["check_path", "write_report"]
