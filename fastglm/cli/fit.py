"""``fastglm fit``: coupling between all units of a recording."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from fastglm import _html
from fastglm.cli.covariates import covariates_of
from fastglm.cli.files import check_recording, for_each, load, write_results
from fastglm.cli.options import (
    file_options,
    model_options,
    read_job,
    result_options,
)
from fastglm.cli.rows import (
    channel_rows,
    fit_rows,
    found_rows,
    recording_rows,
    recovery_rows,
    strongest_rows,
)
from fastglm.cli.terminal import print_table

BIN_SIZE, WINDOW, N_BASIS = 0.005, 0.1, 8  # of `fastglm.fit_coupling`
_SUMMARY = ("status", "units", "spikes", "bins", "pseudo-R2", "time")


@click.command()
@file_options
@model_options(BIN_SIZE, WINDOW, N_BASIS)
@result_options("observed where a table, a picture or a page is written", "model", "Model")
def fit(
    files: tuple[Path, ...],
    out: Path | None,
    table: Path | None,
    plot: Path | None,
    report: Path | None,
    **options: object,
) -> None:
    """Fit coupling between all units: as fastglm.fit_coupling.

    A FILE is any path that fastglm.load_spikes reads: NWB, a folder of Kilosort or Phy, a table of
    units and times, or .npz. With several FILEs, --out, --table, --plot and --report are folders.
    If a file fails, the error is reported, all other files are fitted, and the exit code is 1.
    """
    paths = {"out": out, "table": table, "plot": plot, "report": report}
    job = read_job(default_window=WINDOW, default_n_basis=N_BASIS, **options)
    for_each(files, paths, _SUMMARY, lambda file, own: _fit_file(file, job, own))


def _fit_file(file, job, paths):
    """Fit one recording, print its table, write its files; returns its row of the last table."""
    spikes = load(file, job)
    model, seconds = _fit_spikes(file, spikes, job)
    X, counts = model.X_, model.counts_
    couplings = _couplings(model, job, wanted=any(map(paths.get, ("table", "plot", "report"))))
    about_fit = fit_rows(model, X, counts, seconds)
    rows = [
        *recording_rows(file, spikes, model),
        ("features", f"{X.shape[1]}: {_features(X)}"),
        ("observations", f"{job.model.name}, link {job.link}{', counts cut at 1' * job.clip}"),
        ("penalty", _penalty(model, job)),
        *about_fit,
        *recovery_rows(spikes.adjacency, couplings),
        *channel_rows(model, job.channel),
        *found_rows(couplings, job.q),
        *strongest_rows(couplings, job.q),
    ]
    print_table(rows)
    if paths["out"] is not None:
        _write_model(file, job, paths["out"], spikes, model)
    write_results(couplings, file, job, paths, seconds, {})
    found = dict(about_fit)
    return (
        found["status"],
        str(spikes.n_units),
        str(spikes.spike_times.size),
        str(X.shape[0]),
        found.get("pseudo-R2 (McFadden)") or found["R2"],
        f"{seconds:.2f} s",
    )


def _features(X):
    history = X.histories[0][0]
    parts = [f"{history.n_senders} senders x {history.n_funcs}"]
    return ", ".join([*parts, *(f"{one.label} {one.n_columns}" for one in X.blocks[1:])])


def _penalty(model, job):
    if job.regularizer == "UnRegularized":
        return "none"
    if job.strength is None:
        strength = np.asarray(model.regularizer_strength)
        return f"{job.regularizer}, {_html.span(strength)} (couplings of 0.2 in log rate expected)"
    return f"{job.regularizer}, {job.strength:g}"


def _fit_spikes(file, spikes, job):
    """The fitted model of a recording and the duration of the fit."""
    import fastglm

    check_recording(spikes, job, WINDOW)
    covariates = covariates_of(file, job)
    begin = time.perf_counter()
    model = fastglm.fit_coupling(spikes, covariates=covariates, **job.arguments())
    return model, time.perf_counter() - begin


def _couplings(model, job, wanted):
    """The map of a fitted model; with standard errors where they are wanted."""
    from fastglm._fitted import Fitted
    from fastglm.connectivity import coupling_map, point_estimates
    from fastglm.inference import affordable

    kind, fit = job.kind, Fitted.of(model, model.X_, model.counts_)
    if kind is None:
        kind = "observed" if wanted and affordable(fit) else "none"
        if wanted and kind == "none":
            click.echo(
                f"Standard errors and tests are left out: {fit.coef.shape[0]:,} features and "
                f"{fit.n_receivers:,} receivers would take long. --standard-errors observed "
                "computes them.",
                err=True,
            )
    if kind != "none":
        return coupling_map(
            model, model.X_, model.counts_, kind, null=job.null, channel=job.channel
        )
    history = model.X_.histories[0][0]
    names = None if model.receivers_ is None else np.asarray(model.receivers_.names)
    couplings = point_estimates(
        fit.coef[: history.n_columns],
        history.kernel,
        senders=names,
        receivers=names,
        model=model,
        loss=fit.loss,
    )
    return replace(couplings, bin_size=job.bin_size, mean_count=fit.mean_count)


def _write_model(file, job, path, spikes, model):
    from fastglm.io import save_model

    metadata = {
        "recording": file.absolute().name,
        "bin_size": job.bin_size,
        "basis": type(model.basis_).__name__,
        "basis_params": dict(model.basis_.get_params(deep=False)),
    }
    if spikes.names is not None:
        metadata["units"] = spikes.names
    save_model(model, path, metadata)
    click.echo(f"model: {path}")
