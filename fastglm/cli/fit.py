"""``fastglm fit``: coupling between all units of a recording."""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np

from fastglm import _html
from fastglm.cli.files import check_outputs, check_recording, load, write_results
from fastglm.cli.options import (
    file_options,
    model_options,
    read_job,
    result_options,
    session_options,
)
from fastglm.cli.rows import (
    channel_rows,
    fit_rows,
    found_rows,
    recording_rows,
    recovery_rows,
    strongest_rows,
)
from fastglm.cli.sessions import Distribution, fit_many
from fastglm.cli.terminal import print_table
from fastglm.workflow.coupling import map_of, save_fit
from fastglm.workflow.records import find_files

BIN_SIZE, WINDOW, N_BASIS = 0.005, 0.1, 8  # of `fastglm.fit_coupling`


@click.command()
@file_options
@model_options(BIN_SIZE, WINDOW, N_BASIS)
@result_options("observed where a table, a picture or a page is written", "model", "Model")
@session_options
def fit(
    files: tuple[Path, ...],
    out: Path | None,
    table: Path | None,
    plot: Path | None,
    report: Path | None,
    jobs: int,
    scheduler: str | None,
    task: str | None,
    **options: object,
) -> None:
    """Fit coupling between all units: as fastglm.fit_coupling.

    A FILE is any path that fastglm.load_spikes reads: NWB, a folder of Kilosort or Phy, a table of
    units and times, or .npz. With several FILEs, --out, --table, --plot and --report are folders,
    and --out has a model and a map of each. A file that fails stops no other. A second call does
    what is not finished. fastglm collect makes one table of all.
    """
    paths = {"out": out, "table": table, "plot": plot, "report": report}
    job = read_job(default_window=WINDOW, default_n_basis=N_BASIS, **options)
    files, how = find_files(files), Distribution(jobs, scheduler, task)
    if how.of_many(files):
        fit_many(files, paths, job, "fit_coupling", how, None)
    else:
        _fit_file(files[0], job, check_outputs(paths))


def _fit_file(file, job, paths):
    """Fit one recording, print its table, write its files."""
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
        save_fit(model, paths["out"], file, spikes.names)
        click.echo(f"model: {paths['out']}")
    write_results(couplings, file, job, paths, seconds)


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
    covariates = job.covariates(file)
    begin = time.perf_counter()
    model = fastglm.fit_coupling(spikes, covariates=covariates, **job.arguments())
    return model, time.perf_counter() - begin


def _couplings(model, job, wanted):
    """The map of a fitted model; with standard errors where they are wanted."""
    kind = job.kind or (None if wanted else "none")
    couplings = map_of(model, kind, job.null, job.channel)
    if kind is None and couplings.uncertainty is None:
        click.echo(
            f"Standard errors and tests are left out: {model.X_.shape[1]:,} features and "
            f"{len(model.status_):,} receivers would take long. --standard-errors observed "
            "computes them.",
            err=True,
        )
    return couplings
