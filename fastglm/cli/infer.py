"""``fastglm infer``: who drives whom, by the recipe."""

from __future__ import annotations

import time
from pathlib import Path

import click

from fastglm import _html
from fastglm.cli.covariates import what_else
from fastglm.cli.files import check_outputs, check_recording, load, read_pairs, write_results
from fastglm.cli.options import (
    file_options,
    model_options,
    read_job,
    result_options,
    session_options,
)
from fastglm.cli.rows import found_rows, recording_rows, strongest_rows, true_rows
from fastglm.cli.sessions import Distribution, fit_many
from fastglm.cli.terminal import print_table
from fastglm.workflow.records import find_files

BIN_SIZE, WINDOW, N_BASIS = 0.001, 0.05, 6  # of `fastglm.infer_connectivity`
_SETTINGS = ("window", "covariates", "penalty", "channels", "synchrony", "controls")


@click.command()
@file_options
@model_options(BIN_SIZE, WINDOW, N_BASIS)
@click.option(
    "--controls",
    multiple=True,
    type=click.Choice(["jittered", "shifted", "reversed"]),
    help="Recordings without synapses that are made from this one and go the same way; may be "
    "repeated. Each takes as long as the data.",
)
@click.option(
    "--impossible",
    "impossible_path",
    type=click.Path(path_type=Path),
    help="Pairs that anatomy cannot connect: sender-by-receiver map of 0 and 1, .npy.",
)
@result_options("observed", "empirical", "Map of couplings")
@session_options
def infer(
    files: tuple[Path, ...],
    controls: tuple[str, ...],
    impossible_path: Path | None,
    out: Path | None,
    table: Path | None,
    plot: Path | None,
    report: Path | None,
    jobs: int,
    scheduler: str | None,
    task: str | None,
    **options: object,
) -> None:
    """Find who drives whom: as fastglm.infer_connectivity.

    Every unit is fitted on the history of all units, on the activity of all units at several
    timescales and on the covariates, with a penalty that suits most recordings. Couplings are
    tested, and the choices are listed.

    A FILE is any path that fastglm.load_spikes reads: NWB, a folder of Kilosort or Phy, a table of
    units and times, or .npz. With several FILEs, --out, --table, --plot and --report are folders,
    and --out has a map of each. A file that fails stops no other. A second call does what is not
    finished. fastglm collect makes one table of all.
    """
    paths = {"out": out, "table": table, "plot": plot, "report": report}
    if options["kind"] == "none":
        raise ValueError(
            "--standard-errors is none, and couplings are tested by them; use fastglm fit."
        )
    job = read_job(default_window=WINDOW, default_n_basis=N_BASIS, **options)
    if not job.model.event_based:
        raise ValueError(
            f"--family is {options['family']}, which are no events; use fastglm fit --family."
        )
    impossible = None if impossible_path is None else read_pairs(impossible_path)
    more = {"controls": controls, "impossible": impossible}
    files, how = find_files(files), Distribution(jobs, scheduler, task)
    if how.of_many(files):
        fit_many(files, paths, job, "infer_connectivity", how, "observed", **more)
    else:
        _infer_file(files[0], job, check_outputs(paths), more)


def _infer_file(file, job, paths, more):
    """Infer the couplings of one recording, print its table, write its files."""
    import fastglm

    spikes = load(file, job)
    check_recording(spikes, job, WINDOW)
    covariates = job.covariates(file)
    begin = time.perf_counter()
    couplings = fastglm.infer_connectivity(
        spikes,
        covariates=covariates,
        kind=job.kind or "observed",
        null=job.null,
        channel=job.channel,
        **job.arguments(),
        **more,
    )
    seconds = time.perf_counter() - begin
    model, chosen = couplings.model, couplings.settings
    rows = [
        *recording_rows(file, spikes, model),
        *((name, chosen[name]) for name in _SETTINGS if name in chosen),
        *_left_out(file, job),
        ("status", _html.tally(model.status_)),
        *found_rows(couplings, job.q),
        *true_rows(spikes.adjacency, couplings, job.q),
        *strongest_rows(couplings, job.q),
        ("time", f"{seconds:.2f} s"),
    ]
    print_table(rows)
    if paths["out"] is not None:
        couplings.save(paths["out"])
        click.echo(f"couplings: {paths['out']}")
    write_results(couplings, file, job, paths, seconds)


def _left_out(file, job):
    """What the file holds that the model does not know, a row."""
    text = what_else(file, job.covariates.wanted)
    return [("left out", text)] if text else []
