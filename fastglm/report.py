"""One self-contained page about a fit: what it found, how sure, and what needs attention.

The page refers to nothing outside: pictures are inline SVG, styles are in its head, and there are
no scripts. It follows the light or dark scheme of the reader's system. Needs matplotlib (the extra
``plot``).
"""

import datetime
import hashlib
import importlib.metadata
import io
import platform
import re
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from fastglm import connectivity, diagnostics, plotting
from fastglm._engine.fit import mean_count, sum_counts
from fastglm._engine.result import STATUSES
from fastglm.features.matrix import as_feature_matrix
from fastglm.plotting.couplings import own_history
from fastglm.regularizer import as_regularizer

_MOST_FEATURES, _MOST_WORK = 1500, 3e12  # beyond which standard errors wait until asked for
_MOST_MODES = 150  # cells up to which the modes of the linearised network are counted
_N_ROWS, _N_FILTERS = 20, 12
_LEVEL = 0.95
_INK = "#010203"  # stands for the colour of the page's text until the page is written


def write_report(
    path,
    model,
    X,
    y,
    *,
    bin_size=None,
    basis=None,
    title=None,
    recording=None,
    seconds=None,
    settings=None,
    standard_errors=None,
    q=0.05,
    names=None,
):
    """Write a page about a fitted model: certificate, couplings, filters, diagnostics, settings.

    Parameters
    ----------
    path : str or Path
        HTML file to write.
    model : PopulationGLM or GLM
        Fitted to X and y.
    X, y
        As in `fit`.
    bin_size : float, optional
        Seconds. Rates are per bin and lags in bins without.
    basis : basis, optional
        That made X, for its name and parameters.
    title, recording : str, optional
        Heading, and where the counts come from.
    seconds : float, optional
        Time that the fit took.
    settings : dict, optional
        More to list, such as what `fastglm.infer_connectivity` chose.
    standard_errors : bool or {"observed", "robust", "blocks"}, optional
        Whether to compute them, and how. Default: the observed information, if no receiver has
        more than 1,500 features and ``n_bins * n_features**2 * n_receivers`` is at most 3e12 (some
        minutes); the page says so where they are left out.
    q : float
        q-value up to which a coupling counts as significant.
    names : sequence of str, optional
        Of the receivers, which are the senders too where the population drives itself. Default:
        those of the columns of the counts of the fit, or numbers.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If there is no folder to write to, X or y does not fit the model, or a number or name does
        not fit.

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
    if bin_size is not None and not (np.isfinite(bin_size) and bin_size > 0):
        raise ValueError(f"bin_size is {bin_size}; expected seconds above 0.")
    kinds = (None, True, False, "observed", "robust", "blocks")
    if not any(standard_errors is kind or standard_errors == kind for kind in kinds):
        raise ValueError(f"standard_errors is {standard_errors!r}; expected one of {kinds}.")
    fit = _read(model, X, y, standard_errors, q, names)
    style = {
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), _INK),
        **dict.fromkeys(("xtick.color", "ytick.color"), _INK),
        **dict.fromkeys(("figure.facecolor", "axes.facecolor"), "none"),
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.labelsize": 9,
    }
    with matplotlib.rc_context(style):
        sections = [
            _attention(fit),
            _fitted(fit, bin_size, basis, recording),
            _certificate(fit, seconds),
            _couplings(fit, q),
            _filters(fit, bin_size),
            _diagnostics(fit),
            _receivers(fit, bin_size),
            _settings(fit, basis, settings),
        ]
    title = title or "Coupled Poisson GLM" + (f" of {recording}" if recording else "")
    body = "\n".join(s for s in sections if s)
    path.write_text(
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{escape(title)}</h1>\n{_tiles(fit, q)}</header>\n{body}\n</main>\n</body>\n"
        "</html>\n",
        encoding="utf-8",
    )
    return path


def check_path(path):
    """Raise ValueError if no page can be written to the path."""
    path = Path(path)
    if not path.resolve().parent.is_dir():
        raise ValueError(f"There is no folder {path.resolve().parent} to write to.")
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{path} is not the name of a page; expected it to end in .html.")
    return path


@dataclass
class _Fit:
    """A fit and all that the page says about it."""

    model: object
    X: object
    names: np.ndarray
    n_events: np.ndarray  # in the bins of the fit
    rates: np.ndarray  # per bin
    n_missing: np.ndarray
    n_free: np.ndarray
    deviance_explained: np.ndarray
    bits_per_spike: np.ndarray
    rescaling: object
    couplings: object = None
    itself: bool = False
    stability: object = None
    radius: float = np.nan
    notes: list = field(default_factory=list)  # (level, sentence)


def _read(model, X, y, standard_errors, q, names):
    model._check_fitted()
    explained = diagnostics.deviance_explained(model, X, y)
    events, X = model._read_counts(y), as_feature_matrix(X)
    n = model._coef().shape[1]
    free = model._read_mask(X, n).sum(axis=0)
    columns = model._receiver_columns
    if names is None:
        names = np.arange(n) if columns is None else columns.names
    names = np.asarray(names).astype(str)
    if names.shape != (n,):
        raise ValueError(f"names has shape {names.shape}; expected a name for each of {n}.")
    inside = np.isnan(events.amplitudes) & X.valid[events.bins]
    fit = _Fit(
        model, X, names, sum_counts(events, X.valid), mean_count(events, X.valid),
        np.bincount(events.units[inside], minlength=n), free, explained,
        diagnostics.bits_per_spike(model, X, y), diagnostics.time_rescaling(model, X, y),
    )  # fmt: skip
    history = [c for c in X.columns if c.lags]
    if history:
        block, _ = connectivity._history(X, None)
        fit.itself = connectivity._same(block.events.shift(block.shift), events)
        senders = names if fit.itself else None
        work = float(X.valid.sum()) * float((free.astype(float) ** 2).sum())
        affordable = free.max() <= _MOST_FEATURES and work <= _MOST_WORK
        if standard_errors or (standard_errors is None and affordable):
            kind = standard_errors if isinstance(standard_errors, str) else "observed"
            fit.couplings = connectivity.coupling_map(
                model, X, y, kind, senders=senders, receivers=names
            )
        else:
            fit.couplings = _point_estimates(model, X, fit.itself, senders, names)
            why = (
                f" because {int(free.max()):,} features and {n:,} receivers would take long"
                if standard_errors is None
                else ""
            )
            fit.notes.append(
                ("note", f"Standard errors and tests were left out{why}; couplings are shown as "
                 "estimated, noise included. write_report(..., standard_errors=True) computes "
                 "them.")
            )  # fmt: skip
        square = fit.itself and model._coef().shape[0] == n * history[0].n_funcs
        if square and np.isfinite(model._coef()).all() and np.isfinite(model.intercept_).all():
            kernel = history[0].kernel
            if n <= _MOST_MODES:
                fit.stability = diagnostics.stability(model, kernel, fit.rates)
                fit.radius = fit.stability.radius
            else:
                fit.radius = diagnostics.spectral_radius(model, kernel, fit.rates)
    fit.notes = _notes(fit) + fit.notes
    return fit


def _point_estimates(model, X, itself, senders, receivers):
    """A coupling map without uncertainty: q-values are inf, not tested."""
    block, first = connectivity._history(X, None)
    kernel, n = block.kernel, block.n_senders
    coef = model._coef()
    h = np.empty((n, coef.shape[1]))
    strength, peak = h.copy(), h.copy()
    filters = X.filters
    for i in range(n):
        values = kernel @ coef[filters == first + i]
        strength[i] = values.sum(axis=0)
        peak[i] = np.take_along_axis(values, np.abs(values).argmax(axis=0)[None], axis=0)[0]
    unknown = np.full(strength.shape, np.nan)
    untested = np.full(strength.shape, np.inf)
    if itself:
        np.fill_diagonal(untested, np.nan)
    with np.errstate(over="ignore"):
        gain = 100 * np.expm1(peak)
    senders = np.arange(n) if senders is None else senders
    return connectivity.CouplingMap(
        strength, unknown, peak, gain, unknown, untested, senders, receivers, kernel, first,
        None, model,
    )  # fmt: skip


def _notes(fit):
    """What needs attention, in words."""
    model, notes = fit.model, []
    for status, sentence in STATUSES.items():
        found = model.status_ == status
        if status != "converged" and found.any():
            level = "note" if status in ("silent", "separated") else "warning"
            notes.append(
                (level, f"{_these(found, fit.names, ('is', 'are'))} {status}: {sentence}.")
            )
    few = (fit.n_events < fit.n_free) & (fit.n_events > 0)
    if few.any():
        notes.append(
            ("warning", f"{_these(few, fit.names)} fewer events than features: the estimates rest "
             "on the penalty. Use fewer basis functions, a mask, or a longer recording.")
        )  # fmt: skip
    if fit.n_missing.any():
        notes.append(
            ("note", f"{_these(fit.n_missing > 0, fit.names)} missing counts; those bins were "
             "left out for that receiver only.")
        )  # fmt: skip
    many = fit.rescaling.n_extra > 0.05 * np.maximum(fit.n_events, 1)
    if many.any():
        notes.append(
            ("note", f"{_these(many, fit.names)} more than 5 % of events in bins with several: "
             "time rescaling does not see them. Use smaller bins.")
        )  # fmt: skip
    outside = fit.rescaling.statistic > fit.rescaling.band(_LEVEL)
    tested = np.isfinite(fit.rescaling.statistic)
    if outside.any():
        notes.append(
            ("warning" if outside.mean() > 0.5 else "note",
             f"{int(outside.sum())} of {int(tested.sum())} tested receivers leave the 95 % band of "
             "the KS test: their events do not come when the model expects them. A longer window, "
             "finer bins or covariates for slow shared drive may help; significance then "
             "overstates, and standard_errors=\"blocks\" is safer.")
        )  # fmt: skip
    if fit.stability is not None and not fit.stability.stable:
        notes.append(
            ("note", f"The linearised network has {fit.stability.n_growing} growing modes at the "
             "recorded rates: simulations from it may run away.")
        )  # fmt: skip
    if fit.couplings is not None and fit.couplings.uncertainty is not None:
        open_ = np.isinf(fit.couplings.standard_error) & ~own_history(fit.couplings)
        if open_.any():
            notes.append(
                ("warning", f"The data do not determine {int(open_.sum())} of {open_.size} "
                 "couplings: they are hatched and not among the strongest. A ridge of 1e-4 or so "
                 "settles them.")
            )  # fmt: skip
        penalty = str(as_regularizer(model.regularizer))
        if penalty in ("Lasso", "ElasticNet", "GroupLasso"):
            notes.append(
                ("note", f"{penalty} has selected couplings: standard errors are conditional on "
                 "that and too small.")
            )  # fmt: skip
        elif penalty == "Ridge":
            notes.append(
                ("note", "With a ridge, intervals hold the truth on average over couplings of the "
                 "size that the penalty expects.")
            )  # fmt: skip
    return notes


def _these(found, names, verbs=("has", "have")):
    """Names of the receivers that were found, as the subject of a sentence."""
    listed = ", ".join(names[found][:8])
    n = int(found.sum())
    verb = verbs[n != 1]
    more = f" and {n - 8} more" if n > 8 else ""
    return f"{n} receiver{'s' * (n != 1)} ({listed}{more}) {verb}"


def _tiles(fit, q):
    model, couplings = fit.model, fit.couplings
    n = fit.names.size
    tiles = [
        (f"{int(model.converged_.sum())} of {n}", "receivers at their optimum"),
        (_number(_largest(model.newton_decrement_), ".0e"), "largest gap to it, predicted"),
        (f"{np.nanmedian(fit.bits_per_spike):.2f}" if np.isfinite(fit.bits_per_spike).any()
         else "\N{EN DASH}", "bits per spike, median"),
    ]  # fmt: skip
    if couplings is not None:
        possible = int(np.isfinite(couplings.q_value).sum())
        if possible:
            found = f"{int(couplings.significant(q).sum()):,}"
            tiles.insert(0, (found, f"of {possible:,} couplings with q\u00a0\u2264\u00a0{q:g}"))
        else:
            tiles.insert(0, (f"{couplings.strength.size:,}", "couplings, not tested"))
    items = "".join(f"<div><b>{escape(a)}</b><span>{escape(b)}</span></div>" for a, b in tiles)
    return f'<div class="tiles">{items}</div>'


def _attention(fit):
    if not fit.notes:
        return _section("Attention", "<p>Nothing needs attention.</p>")
    order = sorted(fit.notes, key=lambda note: note[0] != "warning")
    items = "".join(
        f'<li class="{level}"><b>{level.capitalize()}.</b> {escape(text)}</li>'
        for level, text in order
    )
    return _section("Attention", f'<ul class="notes">{items}</ul>')


def _fitted(fit, bin_size, basis, recording):
    X, valid = fit.X, fit.X.valid
    n_stretches = int((np.diff(valid.astype(np.int8), prepend=0) == 1).sum())
    bins = f"{valid.size:,}"
    if bin_size is not None:
        bins += f" of {1e3 * bin_size:g} ms, {_duration(valid.size * bin_size)}"
    rates = fit.rates if bin_size is None else fit.rates / bin_size
    unit = "events per bin" if bin_size is None else "Hz"
    blocks = []
    for c in X.columns:
        if c.lags:
            window = f"{c.kernel.shape[0]} bins"
            if bin_size is not None:
                window = f"{1e3 * bin_size * c.kernel.shape[0]:g} ms ({window})"
            text = f"history of {c.n_senders} cells over {window}, {c.n_funcs} functions each"
        else:
            text = f"{c.n_columns} columns"
        blocks.append(f"{c.label}: {text}")
    model = fit.model
    rows = [
        *([("recording", recording)] if recording else []),
        ("bins", bins),
        (
            "in the fit",
            f"{int(valid.sum()):,} bins with complete history, "
            f"{n_stretches} stretch{'es' * (n_stretches != 1)}",
        ),
        ("receivers", f"{fit.names.size:,}, {int(fit.n_events.sum()):,} events"),
        ("rates", f"median {np.median(rates):.3g} {unit}, {rates.min():.3g} to {rates.max():.3g}"),
        ("features", f"{X.shape[1]:,} \N{EN DASH} " + "; ".join(blocks)),
        *([("basis", type(basis).__name__)] if basis is not None else []),
        ("in the fit of a receiver", _span(fit.n_free, "features")),
        ("link", model._loss().link),
        ("penalty", _penalty(model)),
    ]
    pictures = []
    for c in X.columns:
        if c.lags and 1 < c.n_funcs <= 30 and c.kernel.shape[0] > 1:
            pictures.append(_basis_picture(c, bin_size))
    body = _list(rows) + ("".join(pictures[:1]))
    return _section("What was fitted", f'<div class="beside">{body}</div>')


def _basis_picture(block, bin_size):
    figure = Figure(figsize=(3.6, 2.0), layout="constrained")
    ax = figure.subplots()
    lag = np.arange(1, block.kernel.shape[0] + 1) * (1 if bin_size is None else 1e3 * bin_size)
    colours = matplotlib.colormaps["cividis"](np.linspace(0.25, 0.9, block.n_funcs))
    for values, colour in zip(block.kernel.T, colours, strict=True):
        ax.plot(lag, values, color=colour, lw=1.4)
    ax.set(xlabel="lag (bins)" if bin_size is None else "lag (ms)", xlim=(0, lag[-1]))
    ax.set_yticks([])
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(labelsize=8)
    return _picture(figure, f"The {block.n_funcs} functions of which every filter is made.")


def _certificate(fit, seconds):
    model = fit.model
    status, times = np.unique(model.status_, return_counts=True)
    worst = model.newton_decrement_
    rows = [
        ("status", ", ".join(f"{n} {s}" for s, n in zip(status, times, strict=True))),
        ("largest Newton decrement", f"{_largest(worst):.1e}" + _of(worst, fit.names)),
        ("largest gradient entry", f"{_largest(model.grad_norm_):.1e}"
         + _of(model.grad_norm_, fit.names)),
        ("Newton steps", _span(model.n_iter_)),
        ("passes over the data", _span(model.n_passes_)),
        *([("time", f"{seconds:.3g} s")] if seconds is not None else []),
    ]  # fmt: skip
    return _section(
        "Certificate",
        "<p>Every receiver is a convex problem of its own. The decrement predicts how far its mean "
        "objective is above the minimum; below about 1e-16 nothing is left in double precision."
        f"</p>{_list(rows)}",
    )


def _couplings(fit, q):
    couplings = fit.couplings
    if couplings is None:
        return ""
    tested = couplings.uncertainty is not None
    figure = Figure(figsize=(4.7, 4.5), layout="constrained")
    plotting.plot_connectivity(couplings, q, ax=figure.subplots())
    caption = "Area of every filter, senders down, receivers across; red excites, blue inhibits."
    picture = _picture(figure, caption, raster=True)
    pairs = plotting.strongest(couplings, _N_ROWS, q)
    exponential = fit.model._loss().exponential
    head = ["coupling", "strength", *(["SE"] if tested else []),
            *(["gain"] if exponential else []), *(["q"] if tested else [])]  # fmt: skip
    rows = []
    for i, j in pairs:
        row = [_arrow(couplings, i, j), _signed(couplings.strength[i, j])]
        if tested:
            row.append(f"{couplings.standard_error[i, j]:.2g}")
        if exponential:
            row.append(f"{_signed(couplings.gain[i, j], '.3g')} %")
        if tested:
            row.append(_q(couplings.q_value[i, j]))
        rows.append(row)
    text = (
        "Strength is the area of the filter (log rate \N{MULTIPLICATION SIGN} bins)"
        + (", SE its standard error" if tested else "")
        + (", gain the change of the rate at the lag where it is largest" if exponential else "")
        + (", q the false-discovery rate (Benjamini\N{EN DASH}Hochberg) of the Wald test of the "
           "whole filter" if tested else "")
        + ("; significant couplings come first." if tested else ".")
    )  # fmt: skip
    table = _table(head, rows) if rows else "<p>No coupling between different cells.</p>"
    return _section(
        "Who drives whom",
        f'<p>{text}</p><div class="beside">{picture}<div>'
        f"<h3>The strongest {len(rows)}</h3>{table}</div></div>",
    )


def _filters(fit, bin_size):
    couplings = fit.couplings
    pairs = [] if couplings is None else plotting.strongest(couplings, _N_FILTERS)
    if not pairs:
        return ""
    axes = [Figure(figsize=(1.95, 1.7), layout="constrained").subplots() for _ in pairs]
    plotting.plot_filters(couplings, pairs, bin_size, _LEVEL, axes=axes)
    pictures = []
    for ax in axes:
        ax.set(xlabel="", ylabel="")
        pictures.append(_picture(ax.figure, ax.get_title(loc="left"), caption=False))
    exponential = fit.model._loss().exponential
    lag = "bins" if bin_size is None else "milliseconds"
    what = "The factor by which one event changes the rate" if exponential else "Change of input"
    band = f", with pointwise {100 * _LEVEL:g} % bands" if couplings.uncertainty else ""
    return _section(
        "Filters of the strongest couplings",
        f"<p>{what}, over the lag in {lag}{band}; one scale for all.</p>"
        f'<div class="panels">{"".join(pictures)}</div>',
    )


def _diagnostics(fit):
    rescaling = fit.rescaling
    band = rescaling.band(_LEVEL)
    tested = np.isfinite(rescaling.statistic)
    inside = rescaling.statistic[tested] <= band[tested]
    rows = [
        ("deviance explained", _span(fit.deviance_explained, form=".3g")),
        ("bits per spike", _span(fit.bits_per_spike, form=".3g")),
        ("time rescaling", f"{int(inside.sum())} of {int(tested.sum())} receivers inside the "
         f"{100 * _LEVEL:g} % band"),
    ]  # fmt: skip
    if np.isfinite(fit.radius):
        text = f"{fit.radius:.3g}: events that follow from one event, by the strongest mode"
        if fit.stability is not None:
            stable = fit.stability.stable
            text += f"; {'no mode grows' if stable else f'{fit.stability.n_growing} modes grow'}"
        rows.append(("spectral radius", text))
    pictures = []
    if tested.any():
        for draw, caption in (
            (
                lambda ax: plotting.plot_ks_distances(rescaling, _LEVEL, fit.names, ax),
                "Kolmogorov-Smirnov distance of the rescaled intervals; above 1 the model fails "
                "the test.",
            ),
            (
                lambda ax: plotting.plot_ks(
                    rescaling, difference=True, names=fit.names, ax=ax, level=_LEVEL
                ),
                "Distribution of rescaled intervals, less the uniform one, of the receivers that "
                "are farthest outside; dashed: bands.",
            ),
            (
                lambda ax: plotting.plot_autocorrelation(
                    rescaling, names=fit.names, ax=ax, level=_LEVEL
                ),
                "Autocorrelation of their intervals, independent if the model is right.",
            ),
        ):
            figure = Figure(figsize=(4.3, 3.1), layout="constrained")
            draw(figure.subplots())
            pictures.append(_picture(figure, caption))
    return _section(
        "Does the model describe the data?",
        "<p>Of the bins that were fitted, so somewhat better than of others: "
        "fastglm.diagnostics.cross_validated scores bins that a fit has not seen.</p>"
        f'{_list(rows)}<div class="pictures">{"".join(pictures)}</div>',
    )


def _receivers(fit, bin_size):
    model, rescaling = fit.model, fit.rescaling
    part = rescaling.statistic / rescaling.band(_LEVEL)
    rates = fit.rates if bin_size is None else fit.rates / bin_size
    head = ["receiver", "events", "rate" if bin_size is None else "Hz", "status", "decrement",
            "passes", "deviance", "bits", "KS / band"]  # fmt: skip
    rows = [
        [
            fit.names[j],
            f"{int(fit.n_events[j]):,}",
            f"{rates[j]:.3g}",
            str(model.status_[j]),
            _number(model.newton_decrement_[j], ".0e"),
            str(int(model.n_passes_[j])),
            _number(fit.deviance_explained[j], ".3f"),
            _number(fit.bits_per_spike[j], ".3f"),
            _number(part[j], ".2f"),
        ]
        for j in range(fit.names.size)
    ]
    return _section(
        "Receivers",
        f"<details{' open' if len(rows) <= 15 else ''}><summary>All {len(rows):,} receivers"
        f"</summary>{_table(head, rows)}</details>",
    )


def _settings(fit, basis, settings):
    rows = []
    for name, value in fit.model.get_params(deep=False).items():
        if value is not None:
            rows.append((name, _short(value)))
    if basis is not None:
        given = ", ".join(f"{k}={v!r}" for k, v in basis.get_params(deep=False).items())
        rows.append(("basis", f"{type(basis).__name__}({given})"))
    rows += [(str(name), _short(value)) for name, value in (settings or {}).items()]
    packages = ("fastglm", "numpy", "scipy", "numba", "scikit-learn", "matplotlib")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    rows += [
        ("versions", f"{versions}; Python {platform.python_version()}"),
        ("machine", f"{platform.system()} {platform.machine()}"),
        ("written", datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")),
    ]
    return _section("Settings and versions", _list(rows))


def _duration(seconds):
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h"


def _penalty(model):
    regularizer = str(as_regularizer(model.regularizer))
    if regularizer == "UnRegularized":
        return "none"
    strength = model.regularizer_strength
    if strength is None:
        strength = as_regularizer(model.regularizer).default_strength
    if isinstance(strength, tuple):
        return f"{regularizer}, strength {strength[0]:g}, ratio {strength[1]:g}"
    values = np.asarray(strength, np.float64)
    return f"{regularizer}, strength {_span(values.ravel())}"


def _span(values, unit="", form=".4g"):
    """One number, or the median and the range."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    unit = f" {unit}" if unit else ""
    if known.size == 0:
        return "\N{EN DASH}"
    low, middle, high = (f"{v:{form}}" for v in (known.min(), np.median(known), known.max()))
    return f"{low}{unit}" if low == high else f"median {middle}{unit}, {low} to {high}"


def _largest(values):
    known = values[np.isfinite(values)]
    return known.max() if known.size else np.nan


def _of(values, names):
    """Which receiver has the largest value."""
    return f" (receiver {names[np.nanargmax(values)]})" if np.isfinite(values).any() else ""


def _number(value, form):
    return f"{value:{form}}" if np.isfinite(value) else "\N{EN DASH}"


def _signed(value, form=".2f"):
    return f"{value:+{form}}".replace("-", "\N{MINUS SIGN}")


def _q(q):
    return _number(q, ".2g") if not q < 1e-4 else "< 0.0001"


def _arrow(couplings, i, j):
    return f"{couplings.senders[i]} \N{RIGHTWARDS ARROW} {couplings.receivers[j]}"


def _short(value):
    if isinstance(value, np.ndarray) and value.size > 12:
        return f"array of shape {value.shape}"
    text = repr(value) if not isinstance(value, str) else value
    return text if len(text) <= 400 else text[:400] + " \N{HORIZONTAL ELLIPSIS}"


def _section(title, body):
    return f"<section><h2>{escape(title)}</h2>\n{body}</section>"


def _list(rows):
    items = "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in rows)
    return f"<dl>{items}</dl>"


def _table(head, rows):
    top = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(text)}</td>" for text in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _picture(figure, text, caption=True, raster=False):
    """A figure as inline SVG that takes the colour of the text around it."""
    file = io.StringIO()
    figure.savefig(file, format="svg", dpi=200 if raster else 72)
    svg = file.getvalue()
    tag, inner = re.search(r"<svg([^>]*)>(.*)</svg>", svg, flags=re.S).groups()
    inner = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", inner, flags=re.S)
    inner = inner.replace(_INK, "currentColor")
    # Names are kept where something refers to them, and differ between the pictures of a page.
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', inner))
    prefix = hashlib.sha256(inner.encode()).hexdigest()[:6]
    inner = re.sub(
        r' id="([^"]*)"', lambda m: f' id="{prefix}{m[1]}"' if m[1] in used else "", inner
    )
    inner = re.sub(r'(url\(|href=")#', rf"\1#{prefix}", inner)
    inner = re.sub(r"\s*\n\s*", " ", inner)
    box = re.search(r'viewBox="[^"]*"', tag)[0]
    width = float(re.search(r'width="([\d.]+)pt"', tag)[1]) / 0.75
    below = f"<figcaption>{escape(text)}</figcaption>" if caption else ""
    return (
        f'<figure style="max-width: {width:.0f}px"><svg {box} role="img" '
        f'aria-label="{escape(text)}">{inner}</svg>{below}</figure>'
    )


_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --line: #d9dee3;
  --ground: #fff; --panel: #f5f7f9; --warn: #b34700; --note: #0b62a0; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --soft: #9aa4ae; --line: #333b44; --ground: #14181c; --panel: #1c2228;
    --warn: #ff9a52; --note: #6fb7ec; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem; padding-top: .75rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 0 0 .5rem; }
p { margin: 0 0 1rem; max-width: 46rem; color: var(--soft); }
.tiles { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); }
.tiles div { background: var(--panel); border-radius: .5rem; padding: .75rem 1rem; }
.tiles b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.tiles span { color: var(--soft); font-size: .85rem; }
.notes { list-style: none; margin: 0; padding: 0; max-width: 50rem; }
.notes li { border-left: 4px solid var(--note); padding: .1rem 0 .1rem .8rem; margin: 0 0 .75rem;
  overflow-wrap: anywhere; }
.notes b { color: var(--note); }
.notes .warning { border-color: var(--warn); }
.notes .warning b { color: var(--warn); }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .3rem 1.25rem;
  margin: 0 0 1rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.beside, .pictures { display: flex; flex-wrap: wrap; gap: 1.5rem 2.5rem; align-items: flex-start; }
.beside > * { flex: 1 1 20rem; min-width: 0; }
.pictures figure { flex: 1 1 19rem; }
.panels { display: grid; gap: .5rem;
  grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); }
figure { margin: 0; width: 100%; }
figcaption { color: var(--soft); font-size: .85rem; margin-top: .25rem; }
svg { display: block; width: 100%; height: auto; overflow: visible; color: var(--ink); }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .9rem .25rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; }
thead th { color: var(--soft); font-weight: 600; }
tbody th { font-weight: 400; }
summary { cursor: pointer; margin-bottom: .5rem; }
@media (max-width: 30rem) { dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; } }
"""
