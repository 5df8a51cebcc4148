"""The command line: ``fastglm demo`` and ``fastglm fit``."""

import sys
import time
import warnings
from pathlib import Path

import click
import numpy as np

from fastglm import __version__

_BASES = {
    "raised-cosine-log": "RaisedCosineLogConv",
    "raised-cosine-linear": "RaisedCosineLinearConv",
    "history": "HistoryConv",
    "bspline": "BSplineConv",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fastglm")
def cli():
    """Exact, fully coupled Poisson GLMs of neural populations."""


@cli.command()
@click.option(
    "--out",
    default=".",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the picture; made where it is missing.",
)
@click.option("--cells", default=20, show_default=True, type=click.IntRange(2, 200))
@click.option("--seconds", default=600.0, show_default=True, type=click.FloatRange(min=10.0))
@click.option("--seed", default=1, show_default=True, type=int)
def demo(out, cells, seconds, seed):
    """Simulate a network with known connectivity, fit it, compare, draw."""
    import fastglm
    from fastglm.simulation import random_network

    plotting = _plotting()
    bin_size = 0.001
    basis = fastglm.basis.RaisedCosineLogConv(6, window_size=60)
    network = random_network(cells, basis, bin_size=bin_size, strength=0.6, random_key=seed)
    with _progress(int(seconds / bin_size), "simulating", "bins") as bar:
        counts = network.simulate(int(seconds / bin_size), seed, bar.update)
    X = basis.compute_features(counts)
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-6)
    seconds_taken = _timed_fit(model, X, counts)
    kernel = basis.kernel_
    fitted = _areas(model.coef_, cells, kernel)
    true = _areas(network.coef, cells, kernel)
    off = ~np.eye(cells, dtype=bool)
    rows = [
        ("cells, bins", f"{cells}, {counts.shape[0]} of {bin_size * 1e3:g} ms"),
        ("mean rate", f"{counts.mean() / bin_size:.2f} Hz"),
        *_fit_rows(model, X, counts, seconds_taken),
        *_recovery_rows(network.adjacency, fitted),
    ]
    if true[off].any():
        correlation = np.corrcoef(true[off], fitted[off])[0, 1]
        rows.append(("true and fitted areas", f"correlation {correlation:.3f}"))
    _print_table(rows)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "fastglm-demo.png"
    plotting.demo_figure(
        true,
        fitted,
        _filters(network.coef, cells, kernel),
        _filters(model.coef_, cells, kernel),
        bin_size,
        path,
    )
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
    "--where", default=None, help="Units of NWB files, such as \"quality == 'good' and rate > 1\"."
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
@click.option("--out", default=None, type=click.Path(path_type=Path), help="Model, .npz.")
@click.option("--plot", default=None, type=click.Path(path_type=Path), help="Picture.")
@click.option("--report", default=None, type=click.Path(path_type=Path), help="Page, .html.")
def fit(
    files, bin_size, window, basis_name, n_basis, ridge, where, epochs, mask_path, out, plot, report
):
    """Fit all-to-all coupling to recordings, NWB or .npz.

    With several FILEs, --out, --plot and --report are folders. A file that fails is reported, the
    others are fitted, and the exit code is 1.
    """
    plotting = _plotting() if plot or report else None
    outputs = _outputs(files, {"out": out, "plot": plot, "report": report}, plotting)
    if ridge is not None and not (np.isfinite(ridge) and ridge >= 0):
        raise ValueError(f"--ridge is {ridge}; expected a strength of at least 0.")
    if not (np.isfinite(bin_size) and bin_size > 0):
        raise ValueError(f"--bin-size is {bin_size}; expected seconds above 0.")
    n_lags = window / bin_size
    if not (np.isfinite(n_lags) and n_lags >= 0.5):
        raise ValueError(f"--window is {window} s; expected at least one bin of {bin_size} s.")
    basis = _make_basis(basis_name, n_basis, round(n_lags))
    if len(files) == 1:
        _fit_file(files[0], basis, bin_size, ridge, where, epochs, mask_path, outputs[0])
        return
    rows, n_failed = [("file", *_SUMMARY)], 0
    for file, paths in zip(files, outputs, strict=True):
        try:
            row = _fit_file(file, basis, bin_size, ridge, where, epochs, mask_path, paths)
        except Exception as error:  # whatever is wrong with one file, the others go on
            known = isinstance(error, ValueError | OSError | ImportError)
            text = str(error) if known else f"{type(error).__name__}: {error}"
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


def _make_basis(name, n_basis, window_size):
    import fastglm

    cls = getattr(fastglm.basis, _BASES[name])
    arguments = (window_size,) if name == "history" else (n_basis, window_size)
    return cls(*arguments, label="coupling")


def _outputs(files, options, plotting):
    """Paths of model, picture and page for every file; all are checked before the first fit."""
    from fastglm.io import model_path

    given = {name: path for name, path in options.items() if path is not None}
    if len(files) > 1 and given:
        stems = [file.stem for file in files]
        twice = sorted({stem for stem in stems if stems.count(stem) > 1})
        if twice:
            raise ValueError(
                f"Several files are called {', '.join(twice)}, and what is written would be too; "
                "fit them one by one."
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
            one[name] = path / f"{file.stem}{ending}" if len(files) > 1 else path
        if one["out"] is not None:
            one["out"] = model_path(one["out"])
        if one["plot"] is not None:
            plotting.check_path(one["plot"])
        if one["report"] is not None:
            from fastglm.report import check_path

            check_path(one["report"])
        outputs.append(one)
    return outputs


def _fit_file(file, basis, bin_size, ridge, where, epochs, mask_path, paths):
    """Fit one recording, print its table, write what is asked for; a row of the last table."""
    import fastglm
    from fastglm.io import save_model
    from fastglm.recordings.spikes import as_epochs, full_bins

    spikes = fastglm.load_spikes(file, where, epochs)
    n_units, window_size = spikes.n_units, basis.window_size
    longest = int(np.diff(as_epochs(full_bins(spikes.segments, bin_size))).max())
    if window_size >= longest:
        raise ValueError(
            f"--window of {window_size} bins leaves no bin of the longest epoch, {longest} bins; "
            "use a shorter window."
        )
    mask = None
    kernel = basis.kernel_
    if mask_path is not None:
        mask = _read_map(mask_path, n_units, kernel.shape[1])
    begin = time.perf_counter()
    with _progress(n_units, "fitting", "receivers") as bar:
        model = fastglm.fit_coupling(
            spikes,
            bin_size,
            basis=basis,
            regularizer=None if ridge is None else "Ridge",
            regularizer_strength=ridge,
            feature_mask=mask,
            progress=bar.update,
        )
    seconds = time.perf_counter() - begin
    X, counts = model.X_, model.counts_
    areas = _areas(model.coef_, n_units, kernel)
    fit_rows = _fit_rows(model, X, counts, seconds)
    rows = [
        ("recording", str(file)),
        ("units, spikes", f"{n_units}, {spikes.spike_times.size}"),
        (
            "bins",
            f"{X.shape[0]} of {bin_size * 1e3:g} ms in {len(model.epochs_)} epochs, "
            f"{int(X.valid.sum())} with history",
        ),
        ("features", f"{X.shape[1]}: {n_units} senders x {X.shape[1] // n_units}"),
        *fit_rows,
        *_recovery_rows(spikes.adjacency, areas),
        *_strongest_rows(model, areas, spikes.names),
    ]
    _print_table(rows)
    if paths["out"] is not None:
        metadata = {
            "recording": file.name,
            "bin_size": bin_size,
            "basis": type(basis).__name__,
            "basis_params": dict(basis.get_params(deep=False)),
        }
        if spikes.names is not None:
            metadata["units"] = spikes.names
        save_model(model, paths["out"], metadata)
        click.echo(f"model: {paths['out']}")
    if paths["plot"] is not None:
        _plotting().fit_figure(
            areas,
            _filters(model.coef_, n_units, kernel),
            bin_size,
            paths["plot"],
            flagged=model.status_ != "converged",
        )
        click.echo(f"picture: {paths['plot']}")
    if paths["report"] is not None:
        from fastglm.report import write_report

        chosen = {"where": where, "epochs": epochs, "mask": mask_path and str(mask_path)}
        write_report(
            paths["report"],
            model,
            X,
            counts,
            bin_size=bin_size,
            basis=basis,
            recording=file.name,
            seconds=seconds,
            settings={name: value for name, value in chosen.items() if value is not None},
            names=spikes.names,
        )
        click.echo(f"report: {paths['report']}")
    found = dict(fit_rows)
    return (
        found["status"],
        str(n_units),
        str(spikes.spike_times.size),
        str(X.shape[0]),
        found["pseudo-R2 (McFadden)"],
        f"{seconds:.2f} s",
    )


def _timed_fit(model, X, y):
    begin = time.perf_counter()
    with _progress(y.shape[1], "fitting", "receivers") as bar:
        model.fit(X, y, progress=bar.update)
    return time.perf_counter() - begin


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


def _areas(coef, n_cells, kernel):
    """Area of every filter, sender by receiver: the change of log rate summed over lags."""
    return np.einsum("b,ibj->ij", kernel.sum(axis=0), coef.reshape(n_cells, -1, n_cells))


def _filters(coef, n_cells, kernel):
    """Filters of shape (n_senders, window_size, n_receivers)."""
    return np.einsum("lb,ibj->ilj", kernel, coef.reshape(n_cells, -1, n_cells))


def _read_map(path, n_units, n_funcs):
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f"There is no file {path}.") from None
    except (OSError, ValueError, EOFError):
        raise ValueError(f"{path} could not be read as an .npy array.") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError(f"{path} is an .npz archive; expected one array, .npy.")
    if array.shape != (n_units, n_units):
        raise ValueError(
            f"{path} has shape {array.shape}; expected a map of "
            f"(n_senders, n_receivers) = {(n_units, n_units)}."
        )
    if not np.isin(array, (0, 1)).all():
        raise ValueError(f"{path} holds other values than 0 and 1.")
    return np.repeat(array, n_funcs, axis=0)


def _fit_rows(model, X, y, seconds):
    names, times = np.unique(model.status_, return_counts=True)
    known = np.isfinite(model.objective_)
    return [
        ("time", f"{seconds:.2f} s, compilation included on first use"),
        (
            "status",
            ", ".join(f"{n} {name}" for name, n in zip(names, times, strict=True)),
        ),
        ("mean objective", f"{model.objective_[known].mean():.10g}"),
        (
            "certificate",
            f"largest Newton decrement {np.nanmax(model.newton_decrement_):.1e}, "
            f"largest gradient {np.nanmax(model.grad_norm_):.1e}",
        ),
        (
            "pseudo-R2 (McFadden)",
            f"{model.score(X, y, score_type='pseudo-r2-McFadden'):.4f}",
        ),
    ]


def _recovery_rows(adjacency, areas):
    """How well filter areas tell connections from none, where the truth is known."""
    from sklearn.metrics import roc_auc_score

    if adjacency is None:
        return []
    off = ~np.eye(len(areas), dtype=bool)
    rows = []
    for name, sign in (("excitatory", 1), ("inhibitory", -1)):
        linked = sign * np.asarray(adjacency)[off] > 0
        if linked.any() and not linked.all():
            auc = roc_auc_score(linked, sign * areas[off])
            rows.append((f"{name} links", f"{linked.sum()}, area under ROC {auc:.3f}"))
    return rows


def _strongest_rows(model, areas, names=None):
    """The five largest couplings between receivers whose fit is regular."""
    areas = np.where(np.eye(len(areas), dtype=bool), 0.0, areas)
    areas = np.where(model.status_ == "converged", areas, 0.0)
    order = np.argsort(-np.abs(areas), axis=None)[:5]
    pairs = [np.unravel_index(k, areas.shape) for k in order if areas.flat[k] != 0]
    names = range(len(areas)) if names is None else names
    text = ", ".join(f"{names[i]} -> {names[j]} ({areas[i, j]:+.2f})" for i, j in pairs)
    return [("strongest (filter area)", text)] if text else []


def _print_table(rows):
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name:<{width}}  {value}")


def main(arguments=None):
    """Entry point: exit code 2 and one line on standard error for bad input."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            cli.main(args=arguments, prog_name="fastglm", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
    except click.ClickException as error:
        _fail(error.format_message())
    except (ValueError, OSError, ImportError) as error:
        _fail(error)
    except (click.Abort, KeyboardInterrupt):
        click.echo("fastglm: interrupted", err=True)
        sys.exit(130)


def _show_warning(message, category, filename, lineno, file=None, line=None):
    click.echo(f"warning: {message}", err=True)


def _fail(message):
    click.echo(f"fastglm: error: {message}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
