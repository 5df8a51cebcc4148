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
@click.argument("file", type=click.Path(path_type=Path))
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
    "--mask",
    "mask_path",
    default=None,
    type=click.Path(path_type=Path),
    help="Sender-by-receiver map of 0 and 1, .npy.",
)
@click.option("--out", default=None, type=click.Path(path_type=Path), help="Model, .npz.")
@click.option("--plot", default=None, type=click.Path(path_type=Path), help="Picture.")
def fit(file, bin_size, window, basis_name, n_basis, ridge, mask_path, out, plot):
    """Fit all-to-all coupling to a recording FILE (.npz)."""
    import fastglm
    from fastglm.io import model_path, save_model

    plotting = _plotting() if plot else None
    out = None if out is None else model_path(out)
    if plot is not None:
        plotting.check_path(plot)
    if ridge is not None and not (np.isfinite(ridge) and ridge >= 0):
        raise ValueError(f"--ridge is {ridge}; expected a strength of at least 0.")
    if not (np.isfinite(bin_size) and bin_size > 0):
        raise ValueError(f"--bin-size is {bin_size}; expected seconds above 0.")
    n_lags = window / bin_size
    if not (np.isfinite(n_lags) and n_lags >= 0.5):
        raise ValueError(f"--window is {window} s; expected at least one bin of {bin_size} s.")
    window_size = round(n_lags)
    cls = getattr(fastglm.basis, _BASES[basis_name])
    arguments = (window_size,) if basis_name == "history" else (n_basis, window_size)
    basis = cls(*arguments, label="coupling")
    spikes = fastglm.load_spikes(file)
    counts, epochs = spikes.bin(bin_size)
    longest = int((epochs[:, 1] - epochs[:, 0]).max())
    if window_size >= longest:
        raise ValueError(
            f"--window of {window_size} bins leaves no bin of the longest epoch, {longest} bins; "
            "use a shorter window."
        )
    X = basis.compute_features(counts, epochs=epochs)
    n_units = spikes.n_units
    mask = None
    if mask_path is not None:
        mask = _read_map(mask_path, n_units, X.shape[1] // n_units)
    model = fastglm.PopulationGLM(
        regularizer=None if ridge is None else "Ridge",
        regularizer_strength=ridge,
        feature_mask=mask,
    )
    seconds_taken = _timed_fit(model, X, counts)
    kernel = basis.kernel_
    areas = _areas(model.coef_, n_units, kernel)
    rows = [
        ("recording", str(file)),
        ("units, spikes", f"{n_units}, {spikes.spike_times.size}"),
        (
            "bins",
            f"{counts.shape[0]} of {bin_size * 1e3:g} ms in {len(epochs)} epochs, "
            f"{int(X.valid.sum())} with history",
        ),
        ("features", f"{X.shape[1]}: {n_units} senders x {X.shape[1] // n_units}"),
        *_fit_rows(model, X, counts, seconds_taken),
        *_recovery_rows(spikes.adjacency, areas),
        *_strongest_rows(model, areas),
    ]
    _print_table(rows)
    if out is not None:
        metadata = {
            "recording": file.name,
            "bin_size": bin_size,
            "basis": cls.__name__,
            "basis_params": dict(basis.get_params(deep=False)),
        }
        save_model(model, out, metadata)
        click.echo(f"model: {out}")
    if plot is not None:
        plotting.fit_figure(
            areas,
            _filters(model.coef_, n_units, kernel),
            bin_size,
            plot,
            flagged=model.status_ != "converged",
        )
        click.echo(f"picture: {plot}")


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


def _strongest_rows(model, areas):
    """The five largest couplings between receivers whose fit is regular."""
    areas = np.where(np.eye(len(areas), dtype=bool), 0.0, areas)
    areas = np.where(model.status_ == "converged", areas, 0.0)
    order = np.argsort(-np.abs(areas), axis=None)[:5]
    pairs = [np.unravel_index(k, areas.shape) for k in order if areas.flat[k] != 0]
    text = ", ".join(f"{i} -> {j} ({areas[i, j]:+.2f})" for i, j in pairs)
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
    except (ValueError, OSError) as error:
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
