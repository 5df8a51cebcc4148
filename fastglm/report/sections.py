"""Sections of a page: facts about a fit as tables and pictures."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import sys
from functools import partial
from html import escape

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from fastglm import _html, plotting
from fastglm.plotting.common import lags_of, plain
from fastglm.plotting.couplings import arrow
from fastglm.report.facts import LEVEL, Facts
from fastglm.report.page import listed, picture, section, table

_N_ROWS, _N_FILTERS = 20, 12
_DASH = "\N{EN DASH}"


def tiles(facts: Facts, q: float) -> str:
    """The numbers at the top of the page."""
    fit, couplings = facts.fit, facts.couplings
    shown = [
        (f"{int(fit.converged.sum())} of {fit.n_receivers}", "receivers at their optimum"),
        (_largest(fit.model.newton_decrement_, ".0e"), "largest gap to it, predicted"),
    ]
    if facts.bits_per_spike is not None:
        shown.append((_median(facts.bits_per_spike), "in-sample bits per spike, median"))
    else:
        shown.append((_median(facts.deviance_explained), "in-sample R\u00b2, median"))
    if couplings is not None:
        possible = int(np.isfinite(couplings.q_value).sum())
        if possible:
            found = f"{int(couplings.significant(q).sum()):,}"
            shown.insert(0, (found, f"of {possible:,} couplings with q\u00a0\u2264\u00a0{q:g}"))
        else:
            shown.insert(0, (f"{couplings.strength.size:,}", "couplings, not tested"))
    items = "".join(f"<div><b>{escape(a)}</b><span>{escape(b)}</span></div>" for a, b in shown)
    return f'<div class="tiles">{items}</div>'


def attention(facts: Facts) -> str:
    """Notes about problems, warnings first."""
    if not facts.notes:
        return section("Attention", "<p>Nothing needs attention.</p>")
    order = sorted(facts.notes, key=lambda note: note[0] != "warning")
    items = "".join(
        f'<li class="{level}"><b>{level.capitalize()}.</b> {escape(text)}</li>'
        for level, text in order
    )
    return section("Attention", f'<ul class="notes">{items}</ul>')


def fitted(facts: Facts, bin_size: float | None, basis: object, recording: str | None) -> str:
    """Data, features, family and penalty."""
    fit, X = facts.fit, facts.fit.X
    n_stretches = int((np.diff(fit.kept.astype(np.int8), prepend=0) == 1).sum())
    n_bins = fit.by_row(fit.kept).size
    bins = f"{n_bins:,}"
    if bin_size is not None:
        bins += f" of {1e3 * bin_size:g} ms, {_html.duration(n_bins * bin_size)}"
    what = "bins with complete history" + (" and a weight above 0" if fit.weighted else "")
    blocks = "; ".join(f"{c.label}: {_columns(c, bin_size)}" for c in X.blocks)
    rows = [
        *([("recording", recording)] if recording else []),
        ("bins", bins),
        (
            "in the fit",
            f"{int(fit.kept.sum()):,} {what}, {n_stretches} stretch{'es' * (n_stretches != 1)}",
        ),
        *_counts(facts, bin_size),
        ("features", f"{X.shape[1]:,} {_DASH} {blocks}"),
        *([("basis", type(basis).__name__)] if basis is not None else []),
        ("in the fit of a receiver", _span(facts.n_free, "features")),
        ("observations", fit.family.name),
        ("link", fit.loss.link),
        *(
            [("scale", _span(fit.scale))]
            if fit.family.estimates_scale or fit.family.fits_scale
            else []
        ),
        ("penalty", _penalty(fit)),
        *([("offset", "given")] if fit.shifted else []),
    ]
    drawn = [c for c, _ in X.histories if 1 < c.n_funcs <= 30 and c.kernel.shape[0] > 1]
    body = listed(rows) + (_basis_picture(drawn[0], bin_size) if drawn else "")
    return section("What was fitted", f'<div class="beside">{body}</div>')


def _columns(block, bin_size):
    """A description of a block of features in words."""
    if not block.lags:
        names = [] if block.inputs is None else [str(name) for name in block.inputs.names]
        listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        return _number(block.n_columns, "column") + (f" ({listed})" if names else "")
    window = _number(block.kernel.shape[0], "bin")
    if bin_size is not None:
        window = f"{1e3 * bin_size * block.kernel.shape[0]:g} ms ({window})"
    senders, functions = _number(block.n_senders, "cell"), _number(block.n_funcs, "function")
    return f"history of {senders} over {window}, {functions} each"


def _number(n, what):
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def _counts(facts, bin_size):
    """Rows about the counts of the receivers."""
    n = f"{facts.names.size:,}"
    if not facts.fit.family.event_based:
        return [("receivers", n), ("means", _span(facts.fit.mean_count, form=".3g"))]
    rates, unit = _rates(facts, bin_size)
    return [
        ("receivers", f"{n}, {int(facts.n_events.sum()):,} events"),
        ("rates", f"median {np.median(rates):.3g} {unit}, {rates.min():.3g} to {rates.max():.3g}"),
    ]


def _rates(facts, bin_size):
    rates = facts.fit.mean_count
    return (rates, "events per bin") if bin_size is None else (rates / bin_size, "Hz")


def _basis_picture(block, bin_size):
    figure = Figure(figsize=(3.6, 2.0), layout="constrained")
    ax = figure.subplots()
    lag, label = lags_of(block.kernel.shape[0], bin_size)
    colours = matplotlib.colormaps["cividis"](np.linspace(0.25, 0.9, block.n_funcs))
    for values, colour in zip(block.kernel.T, colours, strict=True):
        ax.plot(lag, values, color=colour, lw=1.4)
    ax.set(xlabel=label, ylabel="weight", xlim=(0, lag[-1]))
    plain(ax)
    return picture(figure, f"The {block.n_funcs} functions of which every filter is made.")


def certificate(facts: Facts, seconds: float | None) -> str:
    """Distance of every receiver from its optimum, and the cost of the fit."""
    model, names = facts.fit.model, facts.names
    gap, slope = model.newton_decrement_, model.grad_norm_
    rows = [
        ("status", _html.tally(model.status_)),
        ("largest Newton decrement", _largest(gap, ".1e") + _whose(gap, names)),
        ("largest gradient entry", _largest(slope, ".1e") + _whose(slope, names)),
        ("Newton steps", _span(model.n_iter_)),
        ("passes over the data", _span(model.n_passes_)),
        *([("time", _html.duration(seconds))] if seconds is not None else []),
    ]
    return section(
        "Certificate",
        "<p>Every receiver is a convex problem of its own. The decrement predicts how far its mean "
        "objective is above the minimum; below about 1e-16 nothing is left in double precision."
        f"</p>{listed(rows)}",
    )


def couplings(facts: Facts, q: float) -> str:
    """The map of couplings beside a table of the strongest."""
    found = facts.couplings
    if found is None:
        return ""
    side = _side(max(found.strength.shape))
    figure = Figure(figsize=(side, 0.96 * side), layout="constrained")
    plotting.plot_connectivity(found, q, ax=figure.subplots())
    caption = "Area of every filter, senders down, receivers across; red excites, blue inhibits."
    drawn = picture(figure, caption, raster=True)
    head, rows = _coupling_rows(found, found.strongest(_N_ROWS, q))
    below = table(head, rows) if rows else "<p>No coupling between different cells.</p>"
    return section(
        "Who drives whom",
        f'<p>{escape(_explained(found))}</p><div class="beside">{drawn}'
        f'<div class="tests"><h3>What was tested</h3>{listed(_tests(found))}</div></div>'
        f"<h3>The strongest {len(rows)}</h3>{below}{_others(found, len(rows))}",
    )


def _others(found, n_shown):
    """Where the couplings are that the table does not have."""
    n = found.strength.size
    if n <= n_shown:
        return ""
    return (
        f"<p>A table of all {n:,}: CouplingMap.to_frame(), or --table couplings.csv on the command "
        "line.</p>"
    )


def _side(n):
    """Side of a map of n cells, inches: a cell of a large one is still a dot."""
    return float(np.interp(n, [40, 100, 400], [4.7, 6.0, 7.5]))


def _tests(found):
    """Null, confounding, controls and pairs that stand apart, in words."""
    said = found.settings
    rows = [("null", found.null.sentence)]
    if np.isfinite(found.null.confounding):
        rows.append(("confounding", f"{found.null.confounding:.2g} standard errors"))
    if found.controls:
        controls = said.get("controls") or ", ".join(f"{k} {n}" for k, n in found.controls.items())
    else:
        controls = "none was run; infer_connectivity(..., controls=...) counts false discoveries"
    rows.append(("controls", controls))
    if found.channel:
        rows.append(("pairs of one channel", found.channel))
    if "synchrony" in said:
        rows.append(("synchrony", said["synchrony"]))
    return rows


def contributions(facts: Facts) -> str:
    """What each block of features adds in bins that its fit has not seen."""
    found = facts.contributions
    if found is None:
        return ""
    figure = Figure(figsize=(2 + 1.3 * len(found.without), 3.2), layout="constrained")
    plotting.plot_contributions(found, ax=figure.subplots())
    caption = (
        "What each block adds to the held-out score. A dot is a receiver, with its standard error; "
        "the line is the median."
    )
    return section(
        "Does coupling help?",
        "<p>Cross-validated: every score is of bins that the fit has not seen.</p>"
        f"{picture(figure, caption)}",
    )


def _coupling_rows(found, pairs):
    """Head and rows of the table of couplings; without tests or a factor it has fewer columns."""
    tested, factor = found.uncertainty is not None, found.loss.multiplied
    form = ".2f" if max((abs(found.strength[pair]) for pair in pairs), default=0) >= 0.5 else ".2g"
    columns = [("coupling", lambda i, j: arrow(found, i, j)),
               ("strength", lambda i, j: _signed(found.strength[i, j], form))]  # fmt: skip
    if tested:
        columns.append(("SE", lambda i, j: f"{found.standard_error[i, j]:.2g}"))
    if factor:
        columns.append(("gain", lambda i, j: f"{_gain(found.gain[i, j])} %"))
    if np.isfinite(found.delay).any():
        columns.append(("delay", lambda i, j: f"{found.delay[i, j]:.0f} ms"))
    sensitivity = found.sensitivity
    if np.isfinite(sensitivity).any():
        columns.append(("sensitivity", lambda i, j: _html.number(sensitivity[i, j], ".2g") + " %"))
    if tested:
        columns.append(("q", lambda i, j: _q(found.q_value[i, j])))
    return [name for name, _ in columns], [[cell(i, j) for _, cell in columns] for i, j in pairs]


def _explained(found):
    """Meaning of the columns of the table of couplings."""
    eta, factor = found.loss.eta_name, found.loss.multiplied
    parts = [f"Strength is the area of the filter ({eta} \N{MULTIPLICATION SIGN} bins)"]
    if found.uncertainty is not None:
        parts.append("SE its standard error")
    if factor:
        parts.append(f"gain the change of the {factor} at the lag where it is largest")
    if found.uncertainty is None:
        return ", ".join(parts) + "."
    if np.isfinite(found.delay).any():
        parts.append("delay that of the synapse which is most like the filter")
    if np.isfinite(found.sensitivity).any():
        parts.append(
            "sensitivity how much an unobserved input must explain, of what the model explains of "
            "the receiver and of the sender's past alike, to make the coupling vanish"
        )
    test = "the Wald test of the whole filter"
    if found.null.name == "empirical":
        test = "the test of that likeness"
    parts.append(f"q the false-discovery rate (Benjamini\N{EN DASH}Hochberg) of {test}")
    return ", ".join(parts) + "; significant couplings come first."


def filters(facts: Facts, bin_size: float | None) -> str:
    """The filters of the strongest couplings over their lags."""
    found = facts.couplings
    pairs = [] if found is None else found.strongest(_N_FILTERS)
    if not pairs:
        return ""
    axes = [Figure(figsize=(2.3, 1.95), layout="constrained").subplots() for _ in pairs]
    plotting.plot_filters(found, pairs, bin_size, LEVEL, axes=axes)
    pictures = [picture(ax.figure, ax.get_title(loc="left"), caption=False) for ax in axes]
    factor, eta = found.loss.multiplied, found.loss.eta_name
    what = f"The factor by which one event changes the {factor}" if factor else f"Change of {eta}"
    lag = "bins" if bin_size is None else "milliseconds"
    band = f", with pointwise {100 * LEVEL:g} % bands" if found.uncertainty else ""
    return section(
        "Filters of the strongest couplings",
        f"<p>{what}, over the lag in {lag}{band}; one scale for all.</p>"
        f'<div class="panels">{"".join(pictures)}</div>',
    )


def describes(facts: Facts) -> str:
    """Explained deviance, time rescaling and stability."""
    rescaling = facts.rescaling
    r2 = "" if facts.fit.family.event_based else " (R\u00b2)"
    rows = [(f"deviance explained{r2}, in-sample", _span(facts.deviance_explained, form=".3g"))]
    if rescaling is not None:
        tested = np.isfinite(rescaling.statistic)
        inside = rescaling.statistic[tested] <= rescaling.band(LEVEL)[tested]
        rows += [
            ("bits per spike, in-sample", _span(facts.bits_per_spike, form=".3g")),
            ("time rescaling, in-sample", f"{int(inside.sum())} of {int(tested.sum())} receivers "
             f"inside the {100 * LEVEL:g} % band"),
        ]  # fmt: skip
    if np.isfinite(facts.radius):
        follow = "events that follow from one event" if r2 == "" else "growth of a deviation"
        text = f"{facts.radius:.3g}: {follow}, by the strongest mode"
        if facts.stability is not None:
            n = facts.stability.n_growing
            text += "; no mode grows" if n == 0 else f"; {n} mode{'s grow' if n > 1 else ' grows'}"
        rows.append(("spectral radius", text))
    pictures = [] if rescaling is None or not tested.any() else _rescaling_pictures(facts)
    return section(
        "Does the model describe the data?",
        "<p>In-sample: of the bins that were fitted, so better than of others. "
        "fastglm.diagnostics.cross_validated and contributions score bins that a fit has not seen."
        "</p>"
        f'{listed(rows)}<div class="pictures">{"".join(pictures)}</div>',
    )


def _rescaling_pictures(facts):
    shown = partial(dict, names=facts.names, level=LEVEL)
    pictures = []
    for draw, arguments, caption in (
        (
            plotting.plot_ks_distances,
            shown(),
            "Kolmogorov-Smirnov distance of the rescaled intervals; above 1 the model fails the "
            "test.",
        ),
        (
            plotting.plot_ks,
            shown(difference=True),
            "Distribution of rescaled intervals, less the uniform one, of the receivers that are "
            "farthest outside; dashed: bands.",
        ),
        (
            plotting.plot_autocorrelation,
            shown(),
            "Autocorrelation of their intervals, independent if the model is right.",
        ),
    ):
        figure = Figure(figsize=(4.3, 3.1), layout="constrained")
        draw(facts.rescaling, ax=figure.subplots(), **arguments)
        pictures.append(picture(figure, caption))
    return pictures


def receivers(facts: Facts, bin_size: float | None) -> str:
    """A table with one row for each receiver."""
    model, number = facts.fit.model, _html.number
    columns = [("receiver", facts.names)]
    if facts.fit.family.event_based:
        rates, _ = _rates(facts, bin_size)
        columns += [
            ("events", [f"{int(n):,}" for n in facts.n_events]),
            ("rate" if bin_size is None else "Hz", [f"{rate:.3g}" for rate in rates]),
        ]
    else:
        columns += [
            ("mean", [f"{mean:.3g}" for mean in facts.fit.mean_count]),
            ("scale", [number(scale, ".3g") for scale in facts.fit.scale]),
        ]
    columns += [
        ("status", model.status_.astype(str)),
        ("decrement", [number(value, ".0e") for value in model.newton_decrement_]),
        ("passes", model.n_passes_.astype(str)),
        ("deviance, in-sample", [number(value, ".3f") for value in facts.deviance_explained]),
    ]
    if facts.rescaling is not None:
        part = facts.rescaling.statistic / facts.rescaling.band(LEVEL)
        columns += [
            ("bits, in-sample", [number(value, ".3f") for value in facts.bits_per_spike]),
            ("KS / band", [number(value, ".2f") for value in part]),
        ]
    head, cells = zip(*columns, strict=True)
    rows = list(zip(*cells, strict=True))
    return section(
        "Receivers",
        f"<details{' open' if len(rows) <= 15 else ''}><summary>All {len(rows):,} receivers"
        f"</summary>{table(head, rows)}</details>",
    )


def settings(facts: Facts, basis: object, more: dict | None) -> str:
    """Parameters of the model and the basis, versions, machine and time."""
    params = facts.fit.model.get_params(deep=False)
    rows = [(name, _short(value)) for name, value in params.items() if value is not None]
    if basis is not None:
        given = ", ".join(f"{k}={v!r}" for k, v in basis.get_params(deep=False).items())
        rows.append(("basis", f"{type(basis).__name__}({given})"))
    rows += [(str(name), _short(value)) for name, value in (more or {}).items()]
    rows += [
        ("versions", f"{_versions()}; Python {platform.python_version()}"),
        ("machine", f"{platform.system()} {platform.machine()}"),
        ("written", datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")),
    ]
    return section("Settings and versions", listed(rows))


def _versions():
    # The running version: a checkout need not be installed.
    own = f"fastglm {sys.modules['fastglm'].__version__}"
    packages = ("numpy", "scipy", "numba", "scikit-learn", "matplotlib")
    return ", ".join([own, *(f"{name} {importlib.metadata.version(name)}" for name in packages)])


def _penalty(fit):
    if fit.regularizer == "UnRegularized":
        return "none"
    strength = fit.strength
    if isinstance(strength, tuple):
        return f"{fit.regularizer}, strength {strength[0]:g}, ratio {strength[1]:g}"
    return f"{fit.regularizer}, strength {_span(np.asarray(strength, np.float64).ravel())}"


def _span(values, unit="", form=".4g"):
    """One number, or the median and the range."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    unit = f" {unit}" if unit else ""
    if known.size == 0:
        return _DASH
    low, middle, high = (f"{v:{form}}" for v in (known.min(), np.median(known), known.max()))
    return f"{low}{unit}" if low == high else f"median {middle}{unit}, {low} to {high}"


def _median(values):
    known = values[np.isfinite(values)]
    return f"{np.median(known):.2f}" if known.size else _DASH


def _largest(values, form):
    known = values[np.isfinite(values)]
    return f"{known.max():{form}}" if known.size else _DASH


def _whose(values, names):
    """Name of the receiver with the largest value."""
    known = np.where(np.isfinite(values), values, -np.inf)
    return f" (receiver {names[known.argmax()]})" if np.isfinite(values).any() else ""


def _signed(value, form):
    return f"{value:+{form}}".replace("-", "\N{MINUS SIGN}")


def _gain(percent):
    """Three digits, and no power of ten: -61.3, +1,210."""
    return _signed(float(f"{percent:.3g}"), ",g")


def _q(q):
    return "< 0.0001" if q < 1e-4 else _html.number(q, ".2g")


def _short(value):
    if isinstance(value, np.ndarray) and value.size > 12:
        return f"array of shape {value.shape}"
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 400 else text[:400] + " \N{HORIZONTAL ELLIPSIS}"
