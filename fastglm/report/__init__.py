"""One self-contained page about a fit: couplings, their uncertainty, diagnostics and warnings.

The page needs no other file: pictures are inline SVG, styles are in its head, and there are no
scripts. It follows the light or dark scheme of the reader's system. Pages need matplotlib (the
extra ``plot``).

| file | content |
|---|---|
| `facts` | all numbers and notes of the page |
| `sections` | the sections: facts as tables and pictures |
| `page` | HTML, pictures as SVG, and the style |
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib

from fastglm._checks import check_choice, check_share
from fastglm._files import replacing
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
    X: object,
    y: object,
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
) -> Path:
    """Write a page about a fitted model: certificate, couplings, filters, diagnostics, settings.

    Parameters
    ----------
    path : str or Path
        HTML file to write.
    model : PopulationGLM or GLM
        Fitted to X and y.
    X, y, sample_weight, offset
        As in `fit`.
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

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If the page cannot be written, X or y does not fit the model, weights or offsets of the fit
        are missing, or another argument is not valid.

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
    adjust = {"sample_weight": sample_weight, "offset": offset}
    test = {"null": null, "bin_size": bin_size, "channel": channel}
    facts = gather(model, X, y, standard_errors, names, adjust, test)
    with matplotlib.rc_context(page.PICTURE):
        parts = [
            sections.attention(facts),
            sections.fitted(facts, bin_size, basis, recording),
            sections.certificate(facts, seconds),
            sections.couplings(facts, q),
            sections.filters(facts, bin_size),
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


__all__ = ["check_path", "write_report"]
