"""The command line: ``fastglm demo`` and ``fastglm fit``."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from fastglm import __version__
from fastglm._checks import check_memory
from fastglm._files import check_declared, describe, npz_path, one_line
from fastglm.observation_models import FAMILIES, as_observation_model

_LOGGER = logging.getLogger("fastglm")
# Counts of spikes are not all above 0.
_FAMILIES = {name.lower(): name for name in FAMILIES if not as_observation_model(name).positive}
_BASES = {
    "raised-cosine-log": "RaisedCosineLogConv",
    "raised-cosine-linear": "RaisedCosineLinearConv",
    "history": "HistoryConv",
    "bspline": "BSplineConv",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fastglm")
def cli() -> None:
    """Exact, fully coupled GLMs of neural populations."""


@cli.command()
@click.option(
    "--out",
    default=".",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the picture; made where it is missing.",
)
@click.option("--cells", default=20, show_default=True, type=click.IntRange(2, 200))
@click.option("--seconds", default=600.0, show_default=True, type=click.FloatRange(10.0, 1e5))
@click.option("--seed", default=1, show_default=True, type=click.IntRange(min=0))
def demo(out: Path, cells: int, seconds: float, seed: int) -> None:
    """Simulate a network with known connectivity, fit it, compare, draw."""
    import fastglm
    from fastglm._fitted import Fitted
    from fastglm.connectivity import point_estimates
    from fastglm.simulation import random_network

    plotting = _plotting()
    if not np.isfinite(seconds):
        raise ValueError(f"--seconds is {seconds}; expected a number from 10 to 100000.")
    check_memory("The network", 3e-3 * cells * seconds * 1e6, "simulate fewer seconds")
    out.mkdir(parents=True, exist_ok=True)
    path = out / "fastglm-demo.png"
    plotting.check_path(path)
    bin_size = 0.001
    basis = fastglm.basis.RaisedCosineLogConv(6, window_size=60)
    network = random_network(cells, basis, bin_size=bin_size, strength=0.6, random_key=seed)
    with _progress(int(seconds / bin_size), "simulating", "bins") as bar:
        counts = network.simulate(int(seconds / bin_size), seed, bar.update)
    X = basis.compute_features(counts)
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-6)
    begin = time.perf_counter()
    with _progress(cells, "fitting", "receivers") as bar:
        model.fit(X, counts, progress=bar.update)
    seconds_taken = time.perf_counter() - begin
    true, fitted = (point_estimates(one.coef, basis.kernel_) for one in (network, Fitted.of(model)))
    rows = [
        ("cells, bins", f"{cells}, {counts.shape[0]} of {bin_size * 1e3:g} ms"),
        ("mean rate", f"{counts.mean() / bin_size:.2f} Hz"),
        *_fit_rows(model, X, counts, seconds_taken),
        *_recovery_rows(network.adjacency, fitted),
    ]
    between = ~true.own_history
    if true.strength[between].any():
        correlation = np.corrcoef(true.strength[between], fitted.strength[between])[0, 1]
        rows.append(("true and fitted areas", f"correlation {correlation:.3f}"))
    _print_table(rows)
    plotting.demo_figure(true, fitted, bin_size, path)
    click.echo(f"picture: {path}")


@cli.command()
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path)
)
@click.option("--bin-size", required=True, type=float, help="Seconds.")
@click.option("--window", required=True, type=float, help="Length of history, seconds.")
@click.option(
    "--basis",
    "basis_name",
    default="raised-cosine-log",
    show_default=True,
    type=click.Choice(list(_BASES)),
)
@click.option("--n-basis", default=8, show_default=True, help="Functions; not for history.")
@click.option("--ridge", default=None, type=float, help="Strength; no penalty without.")
@click.option(
    "--family",
    default="poisson",
    show_default=True,
    type=click.Choice(_FAMILIES, case_sensitive=False),
    help="Distribution of the counts of a bin.",
)
@click.option(
    "--link",
    default=None,
    help="exp or softplus (poisson, negativebinomial), logistic or cloglog (bernoulli), identity "
    "(gaussian). "
    "[default: the first]",
)
@click.option("--clip", is_flag=True, help="Count several spikes of a unit in a bin as one.")
@click.option(
    "--where",
    default=None,
    help="Units to read, a condition on their columns, such as \"quality == 'good' and rate > 1\".",
)
@click.option(
    "--epochs",
    default=None,
    metavar="obs|trials",
    help="Intervals to fit: obs_intervals, or a table of intervals of NWB files. "
    "[default: obs where there are some]",
)
@click.option(
    "--mask",
    "mask_path",
    default=None,
    type=click.Path(path_type=Path),
    help="Sender-by-receiver map of 0 and 1, .npy.",
)
@click.option(
    "--channel",
    default=None,
    metavar="COLUMN",
    help="Column of the units that names the channel of each: pairs of one channel are marked. "
    "[default: the recording's, if it has one]",
)
@click.option("--out", default=None, type=click.Path(path_type=Path), help="Model, .npz.")
@click.option("--plot", default=None, type=click.Path(path_type=Path), help="Picture.")
@click.option("--report", default=None, type=click.Path(path_type=Path), help="Page, .html.")
def fit(
    files: tuple[Path, ...],
    out: Path | None,
    plot: Path | None,
    report: Path | None,
    **options: object,
) -> None:
    """Fit all-to-all coupling to recordings: NWB, folders of Kilosort or Phy, or .npz.

    With several FILEs, --out, --plot and --report are folders. If a file fails, the error is
    reported, all other files are fitted, and the exit code is 1.
    """
    plotting = _plotting() if plot or report else None
    outputs = _outputs(files, {"out": out, "plot": plot, "report": report}, plotting)
    job = _read_job(**options)
    if len(files) == 1:
        _fit_file(files[0], job, outputs[0])
        return
    rows, n_failed = [("file", *_SUMMARY)], 0
    for file, paths in zip(files, outputs, strict=True):
        try:
            row = _fit_file(file, job, paths)
        except Exception as error:  # an error in one file must not stop the others
            text = _sentence(error)
            click.echo(
                f"fastglm: error: {text if str(file) in text else f'{file}: {text}'}", err=True
            )
            row, n_failed = ("failed", *[""] * (len(_SUMMARY) - 1)), n_failed + 1
        rows.append((str(file), *row))
        click.echo()
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(f"{v:<{w}}" for v, w in zip(row, widths, strict=True)).rstrip())
    if n_failed:
        click.echo(f"fastglm: error: {n_failed} of {len(files)} files failed", err=True)
        sys.exit(1)


_SUMMARY = ("status", "units", "spikes", "bins", "pseudo-R2", "time")


@dataclass(frozen=True)
class _Job:
    """Options that hold for every file."""

    basis: object
    bin_size: float
    ridge: float | None
    family: str
    link: str
    clip: bool
    where: str | None
    epochs: str | None
    channel: str | None
    mask_path: Path | None
    mask: np.ndarray | None


def _read_job(bin_size, window, basis_name, n_basis, ridge, family, link, mask_path, **more):
    """Options that hold for all files, checked before the first file is read."""
    if ridge is not None and not (np.isfinite(ridge) and ridge >= 0):
        raise ValueError(f"--ridge is {ridge}; expected a strength of at least 0.")
    if not (np.isfinite(bin_size) and bin_size > 0):
        raise ValueError(f"--bin-size is {bin_size}; expected seconds above 0.")
    n_lags = window / bin_size
    if not (np.isfinite(n_lags) and n_lags >= 0.5):
        raise ValueError(f"--window is {window} s; expected at least one bin of {bin_size} s.")
    model = as_observation_model(_FAMILIES[family.lower()])
    if link is not None and link not in model.losses:
        raise ValueError(f"--link is {link}; {family} takes {' or '.join(model.losses)}.")
    basis = _make_basis(basis_name, n_basis, round(n_lags))
    mask = None if mask_path is None else _read_map(mask_path)
    link = model.loss(link).link
    return _Job(basis, bin_size, ridge, model.name, link, mask_path=mask_path, mask=mask, **more)


def _make_basis(name, n_basis, window_size):
    import fastglm

    cls = getattr(fastglm.basis, _BASES[name])
    arguments = (window_size,) if name == "history" else (n_basis, window_size)
    return cls(*arguments, label="coupling")


def _outputs(files, options, plotting):
    """Paths of model, picture and page for every file, all checked before the first fit."""

    given = {name: path for name, path in options.items() if path is not None}
    if len(files) > 1 and given:
        stems = [file.absolute().stem for file in files]
        twice = sorted({stem for stem in stems if stems.count(stem) > 1})
        if twice:
            raise ValueError(
                f"Several files are called {', '.join(twice)}, and their output would have the "
                "same names; fit them one by one."
            )
        for name, path in given.items():
            if path.suffix or path.is_file():
                raise ValueError(f"--{name} is {path}; with several files it is a folder.")
            path.mkdir(parents=True, exist_ok=True)
    outputs = []
    for file in files:
        one = dict.fromkeys(options)
        for name, path in given.items():
            ending = {"out": ".npz", "plot": ".png", "report": ".html"}[name]
            one[name] = path / f"{file.absolute().stem}{ending}" if len(files) > 1 else path
        if one["out"] is not None:
            one["out"] = npz_path(one["out"])
        if one["plot"] is not None:
            plotting.check_path(one["plot"])
        if one["report"] is not None:
            from fastglm.report import check_path

            check_path(one["report"])
        outputs.append(one)
    return outputs


def _fit_file(file, job, paths):
    """Fit one recording, print its table, write its files; returns its row of the last table."""
    from fastglm._fitted import Fitted
    from fastglm.connectivity import point_estimates

    spikes = _load(file, job)
    model, seconds = _fit_spikes(spikes, job)
    X, counts = model.X_, model.counts_
    names = None if spikes.names is None else np.asarray(spikes.names)
    fit = Fitted.of(model)
    couplings = point_estimates(
        fit.coef, job.basis.kernel_, senders=names, receivers=names, model=model, loss=fit.loss
    )
    fit_rows = _fit_rows(model, X, counts, seconds)
    rows = [
        ("recording", str(file)),
        ("units, spikes", f"{spikes.n_units}, {spikes.spike_times.size}"),
        (
            "bins",
            f"{X.shape[0]} of {job.bin_size * 1e3:g} ms in {len(model.epochs_)} epochs, "
            f"{int(X.valid.sum())} with history",
        ),
        ("features", f"{X.shape[1]}: {spikes.n_units} senders x {X.shape[1] // spikes.n_units}"),
        ("observations", f"{job.family}, link {job.link}{', counts cut at 1' * job.clip}"),
        *fit_rows,
        *_recovery_rows(spikes.adjacency, couplings),
        *_channel_rows(model, job.channel),
        *_strongest_rows(couplings),
    ]
    _print_table(rows)
    _write(file, job, paths, spikes, model, couplings, seconds)
    found = dict(fit_rows)
    return (
        found["status"],
        str(spikes.n_units),
        str(spikes.spike_times.size),
        str(X.shape[0]),
        found.get("pseudo-R2 (McFadden)") or found["R2"],
        f"{seconds:.2f} s",
    )


def _load(file, job):
    """The spikes of a file; what is too large for its bins is said alone, without its doubts."""
    import fastglm
    from fastglm.recordings.intervals import full_bins
    from fastglm.recordings.trains import check_n_bins

    with warnings.catch_warnings(record=True) as caught, _shown_log():
        warnings.simplefilter("always")
        spikes = fastglm.load_spikes(file, job.where, job.epochs)
        lengths = full_bins(spikes.segments, job.bin_size, spikes.resolution)
        check_n_bins(lengths, job.bin_size, spikes.spike_times.size)
    for one in caught:
        warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    return spikes


@contextmanager
def _shown_log():
    """Shows what the library logs: what it left out by a rule of its own."""
    handler, level = _Echo(logging.INFO), _LOGGER.level
    _LOGGER.addHandler(handler)
    _LOGGER.setLevel(min(level or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        _LOGGER.setLevel(level)
        _LOGGER.removeHandler(handler)


class _Echo(logging.Handler):
    """A line on standard error for each record."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(record.getMessage(), err=True)


def _fit_spikes(spikes, job):
    """The fitted model of a recording and the duration of the fit."""
    import fastglm
    from fastglm.recordings.intervals import as_epochs, full_bins
    from fastglm.recordings.units import read_units
    from fastglm.workflow import cut_counts

    window_size = job.basis.window_size
    lengths = full_bins(spikes.segments, job.bin_size, spikes.resolution)
    longest = int(np.diff(as_epochs(lengths)).max())
    if window_size >= longest:
        raise ValueError(
            f"--window of {window_size} bins leaves no bin of the longest epoch, {longest} bins; "
            "use a shorter window."
        )
    mask = job.mask
    if mask is not None:
        if mask.shape != (spikes.n_units, spikes.n_units):
            raise ValueError(
                f"{job.mask_path} has shape {mask.shape}; expected a map of "
                f"(n_senders, n_receivers) = {(spikes.n_units, spikes.n_units)}."
            )
        mask = np.repeat(mask, job.basis.kernel_.shape[1], axis=0)
    if not job.clip and as_observation_model(job.family).largest is not None:
        # The error comes before the progress bar.
        events, _, columns = read_units(spikes, job.bin_size)
        cut_counts(events, False, job.family, spikes, job.bin_size, columns.names)
    begin = time.perf_counter()
    with _progress(spikes.n_units, "fitting", "receivers") as bar:
        model = fastglm.fit_coupling(
            spikes,
            job.bin_size,
            basis=job.basis,
            regularizer=None if job.ridge is None else "Ridge",
            regularizer_strength=job.ridge,
            observation_model=job.family,
            inverse_link_function=job.link,
            clip=job.clip,
            feature_mask=mask,
            progress=bar.update,
        )
    return model, time.perf_counter() - begin


def _write(file, job, paths, spikes, model, couplings, seconds):
    """Write model, picture and page, each only if its path is given."""
    if paths["out"] is not None:
        from fastglm.io import save_model

        metadata = {
            "recording": file.absolute().name,
            "bin_size": job.bin_size,
            "basis": type(job.basis).__name__,
            "basis_params": dict(job.basis.get_params(deep=False)),
        }
        if spikes.names is not None:
            metadata["units"] = spikes.names
        save_model(model, paths["out"], metadata)
        click.echo(f"model: {paths['out']}")
    if paths["plot"] is not None:
        _plotting().fit_figure(couplings, job.bin_size, paths["plot"])
        click.echo(f"picture: {paths['plot']}")
    if paths["report"] is not None:
        from fastglm.report import write_report

        mask = job.mask_path and str(job.mask_path)
        chosen = {"where": job.where, "epochs": job.epochs, "mask": mask, "clip": job.clip or None}
        chosen["channel"] = job.channel
        write_report(
            paths["report"],
            model,
            model.X_,
            model.counts_,
            bin_size=job.bin_size,
            basis=job.basis,
            recording=file.absolute().name,
            seconds=seconds,
            settings={name: value for name, value in chosen.items() if value is not None},
            names=spikes.names,
            channel=job.channel,
        )
        click.echo(f"report: {paths['report']}")


def _progress(total, description, unit):
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=description,
        unit=f" {unit}",
        unit_scale=total > 10_000,
        file=sys.stderr,
    )


def _plotting():
    try:
        from fastglm import plotting
    except ImportError:
        raise ValueError(
            "Pictures need matplotlib: python -m pip install 'fastglm[plot]'."
        ) from None
    return plotting


def _read_map(path):
    """A sender-by-receiver map of 0 and 1."""
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    with open(path, "rb") as file:
        if file.read(2) == b"PK":
            raise ValueError(f"{path} is an .npz archive; expected one array, .npy.")
        try:
            file.seek(0)
            check_declared(file, path.stat().st_size)
            file.seek(0)
            array = np.load(file, allow_pickle=False)
        except Exception:  # any: NumPy raises several types on a damaged file
            raise ValueError(f"{path} could not be read as an .npy array.") from None
    if array.dtype.kind not in "fiub" or not np.isin(array, (0, 1)).all():
        raise ValueError(f"{path} holds other values than 0 and 1.")
    return array


def _fit_rows(model, X, y, seconds):
    from fastglm import _html

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
        return [*rows, ("pseudo-R2 (McFadden)", f"{score:.4f}")]
    score = model.score(X, y, score_type="pseudo-r2-Cohen")
    return [*rows, ("scale", _html.span(model.scale_)), ("R2", f"{score:.4f}")]


def _recovery_rows(adjacency, couplings):
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


def _channel_rows(model, channel):
    """The number of couplings between cells of one channel, if there are some."""
    from fastglm.connectivity.shadows import read_channels

    cells = model.receivers_
    same, source = read_channels(channel, cells, cells, (len(cells.names),) * 2, True)
    if not same.any():
        return []
    n = len(same) * (len(same) - 1)
    return [("pairs of one channel", f"{same.sum():,} of {n:,} couplings ({source})")]


def _strongest_rows(couplings):
    """The five strongest couplings between different cells."""
    text = ", ".join(
        f"{couplings.senders[i]} -> {couplings.receivers[j]} ({couplings.strength[i, j]:+.3g})"
        for i, j in couplings.strongest(5)
    )
    return [("strongest (filter area)", text)] if text else []


def _print_table(rows):
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name:<{width}}  {value}")


def main(arguments: list[str] | None = None) -> None:
    """Entry point: exit code 2 and one line on standard error for bad input."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            cli.main(args=arguments, prog_name="fastglm", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
    except click.ClickException as error:
        _fail(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        click.echo("fastglm: interrupted", err=True)
        sys.exit(130)
    except Exception as error:  # whatever a file or an argument led to
        if os.environ.get("FASTGLM_TRACEBACK"):
            raise
        _fail(_sentence(error))


def _sentence(error):
    """An error as one line for users."""
    if isinstance(error, ValueError | OSError | ImportError):
        return one_line(error)
    if isinstance(error, MemoryError):
        return f"The memory is not enough. {one_line(error)}".strip()
    return (
        f"{describe(error)}. This is a fault of fastglm; please report it, with what "
        "FASTGLM_TRACEBACK=1 shows."
    )


def _show_warning(message, category, filename, lineno, file=None, line=None):
    click.echo(f"warning: {one_line(message)}", err=True)


def _fail(message):
    click.echo(f"fastglm: error: {one_line(message)}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
