"""``fastglm infer``: who drives whom, by the recipe."""

from __future__ import annotations

import time
from pathlib import Path

import click

from fastglm import _html
from fastglm.cli.covariates import covariates_of, what_else
from fastglm.cli.files import check_recording, for_each, load, read_pairs, write_results
from fastglm.cli.options import file_options, model_options, read_job, result_options
from fastglm.cli.rows import found_rows, recording_rows, strongest_rows, true_rows
from fastglm.cli.terminal import print_table

BIN_SIZE, WINDOW, N_BASIS = 0.001, 0.05, 6  # of `fastglm.infer_connectivity`
_SUMMARY = ("status", "units", "spikes", "bins", "found", "time")
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
def infer(
    files: tuple[Path, ...],
    controls: tuple[str, ...],
    impossible_path: Path | None,
    out: Path | None,
    table: Path | None,
    plot: Path | None,
    report: Path | None,
    **options: object,
) -> None:
    """Find who drives whom: as fastglm.infer_connectivity.

    Every unit is fitted on the history of all units, on the activity of all units at several
    timescales and on the covariates, with a penalty that suits most recordings. Couplings are
    tested, and the choices are listed.

    A FILE is any path that fastglm.load_spikes reads: NWB, a folder of Kilosort or Phy, a table of
    units and times, or .npz. With several FILEs, --out, --table, --plot and --report are folders.
    If a file fails, the error is reported, all other files go on, and the exit code is 1.
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
    for_each(files, paths, _SUMMARY, lambda file, own: _infer_file(file, job, own, more))


def _infer_file(file, job, paths, more):
    """Infer the couplings of one recording; returns its row of the last table."""
    import fastglm

    spikes = load(file, job)
    check_recording(spikes, job, WINDOW)
    covariates = covariates_of(file, job)
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
    write_results(couplings, file, job, paths, seconds, chosen)
    return (
        _html.tally(model.status_),
        str(spikes.n_units),
        str(spikes.spike_times.size),
        str(model.X_.shape[0]),
        str(int(couplings.significant(job.q).sum())),
        f"{seconds:.2f} s",
    )


def _left_out(file, job):
    """What the file holds that the model does not know, a row."""
    text = what_else(file, job.covariates)
    return [("left out", text)] if text else []
