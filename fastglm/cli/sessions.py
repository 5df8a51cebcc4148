"""Several files in one call, and ``fastglm collect``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numba

from fastglm._checks import check_share
from fastglm._files import one_line
from fastglm._processes import Processes
from fastglm._progress import somebody_waits
from fastglm.cli.files import plotting_of, write_results
from fastglm.cli.terminal import print_grid, print_table, shown_log
from fastglm.connectivity.files import check_table, write_columns
from fastglm.workflow import Sessions, collect_sessions
from fastglm.workflow.records import tally
from fastglm.workflow.sessions import run_sessions

_ENDINGS = {"out": ".npz", "table": ".csv", "plot": ".png", "report": ".html"}
_FILES = {".npz", ".csv", ".parquet", ".png", ".svg", ".pdf", ".html"}
_SHOWN = 10  # names of missing sessions


@dataclass(frozen=True)
class Distribution:
    """Who does the sessions: processes of this machine, a Dask scheduler, an array of jobs."""

    jobs: int
    scheduler: str | None
    task: str | None

    def of_many(self, files: list[Path]) -> bool:
        """Whether the files are sessions of a folder, and not one file with its own outputs."""
        distributed = self.jobs > 1 or self.scheduler is not None or self.task is not None
        return distributed or len(files) > 1

    @contextmanager
    def executor(self, number: int) -> Iterator[tuple[object | None, int | None]]:
        """The executor of a number of sessions, and the threads of each session."""
        if self.scheduler is not None:
            with _dask_client(self.scheduler) as client:
                yield client.get_executor(), None
        elif self.jobs > 1:
            n_jobs = min(self.jobs, number)
            with Processes(n_jobs) as executor:
                yield executor, max(1, numba.get_num_threads() // n_jobs)
        else:
            yield None, None


def _dask_client(address):
    try:
        from distributed import Client
    except ImportError:
        raise ValueError(
            "--scheduler needs Dask: python -m pip install 'fastglm[cluster]'."
        ) from None
    name = "scheduler_file" if Path(address).is_file() else "address"
    try:
        return Client(**{name: address})
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--scheduler is {address}, where no Dask scheduler answers: {one_line(error)}"
        ) from None


@dataclass(frozen=True)
class Pages:
    """What is written of a session beside its map, by the worker that fitted it.

    Attributes
    ----------
    job : Job
    folders : dict of str
        Of "table", "plot" and "report"; None where it is not asked for.
    """

    job: object
    folders: dict

    def __call__(self, couplings: object, session: object) -> None:
        """Write table, picture and page."""
        paths = {
            what: folder and Path(folder, f"{session.name}{_ENDINGS[what]}")
            for what, folder in self.folders.items()
        }
        for path in filter(None, paths.values()):
            path.parent.mkdir(parents=True, exist_ok=True)
        file, seconds = Path(session.file), session.seconds
        write_results(couplings, file, self.job, paths, seconds, say=lambda text: None)


def fit_many(
    files: list[Path],
    paths: dict,
    job: object,
    method: str,
    how: Distribution,
    kind: str | None,
    **more: object,
) -> None:
    """Fit the sessions of several files; ends in a table, and a failed one stops nobody.

    Parameters
    ----------
    files : list of Path
    paths : dict
        Folders: "out", which must be given, "table", "plot" and "report".
    job : Job
    method : str
        As in `fastglm.fit_sessions`.
    how : Distribution
    kind : str or None
        Of the standard errors, if no option says it.
    **more
        Settings of the method beside those of the job.
    """
    if how.scheduler is not None and how.jobs > 1:
        raise ValueError("--jobs are processes of this machine; leave it out with --scheduler.")
    _check_folders(paths, files)
    folders = {name: path and str(path.absolute()) for name, path in paths.items() if name != "out"}
    source = job.covariates.source  # workers may run in another folder
    job = replace(job, covariates=replace(job.covariates, source=source and source.absolute()))
    with (
        how.executor(len(files)) as (executor, n_threads),
        nullcontext() if somebody_waits() else shown_log("fastglm.sessions"),
    ):
        sessions, before = run_sessions(
            files,
            paths["out"],
            method,
            where=job.where,
            epochs=job.epochs,
            covariates=job.covariates if job.covariates.wanted else None,
            executor=executor,
            task=how.task,
            n_threads=n_threads,
            also=Pages(job, folders) if any(folders.values()) else None,
            progress=None,
            kind=job.kind or kind,
            null=job.null,
            channel=job.channel,
            **job.arguments(),
            **more,
        )
    _print(sessions, before, paths["out"], how.task, job.q)


def _check_folders(paths, files):
    """Raise ValueError if a path is no folder for results of the files; makes the folders."""
    if paths["out"] is None:
        raise ValueError(
            "--out is missing: with several files it is the folder of the results, where a second "
            "call finds what is finished."
        )
    for name, path in paths.items():
        if path is None:
            continue
        folder = Path(os.path.abspath(path))
        inside = [file for file in files if Path(os.path.abspath(file)).parent == folder]
        if any(file.suffix.lower() == _ENDINGS[name] for file in inside):
            raise ValueError(
                f"--{name} is {path}, the folder of recordings that end in {_ENDINGS[name]} and "
                "could be replaced; give another folder."
            )
        if path.is_dir():
            continue
        if path.exists() or path.suffix.lower() in _FILES:
            raise ValueError(f"--{name} is {path}; with several files it is a folder.")
        path.mkdir(parents=True)
    if paths["plot"] is not None or paths["report"] is not None:
        plotting_of()


def _print(sessions, before, out, task, q):
    """The table of the sessions of this call, and what went wrong in them."""
    columns = sessions.summary_columns(q)
    rows = [("session", "status", "units", "spikes", "bins", "found", "score", "time")]
    for k, one in enumerate(sessions.all.values()):
        found, score = columns["found"][k], one.score
        numbers = [one.units, one.spikes, one.bins, found]
        numbers = ["" if number is None else str(number) for number in numbers]
        score = "" if score is None else f"{score:.4f}"
        took = "" if one.seconds is None else f"{one.seconds:.2f} s"
        rows.append((one.name, one.status or one.state, *numbers, score, took))
    if len(rows) > 1:
        print_grid(rows)
    of = "" if task is None else f" of task {task}"
    done = f", {len(before)} of them by an earlier call" if before else ""
    click.echo(f"{sessions.count()}{of}{done}")
    click.echo(f"folder: {out}; fastglm collect {out} makes one table of all its sessions")
    for one in sessions.all.values():
        if one.name not in before:
            for text in one.warnings:
                click.echo(f"warning: {one.name}: {text}", err=True)
    if sessions.failed:
        _show_failed(sessions)
        number = f"{len(sessions.failed)} of {len(sessions.all)}"
        click.echo(f"fastglm: error: {number} sessions failed", err=True)
        sys.exit(1)


def _show_failed(sessions):
    for name, error in sessions.failed.items():
        click.echo(f"fastglm: error: {name}: {error}", err=True)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--table",
    type=click.Path(path_type=Path),
    help="Table with a row for each coupling of each session, .csv or .parquet.  "
    "[default: FOLDER/couplings.csv]",
)
@click.option(
    "--sessions",
    "summary",
    type=click.Path(path_type=Path),
    help="Table with a row for each session, .csv or .parquet.  [default: FOLDER/sessions.csv]",
)
@click.option("--q", default=0.05, show_default=True, help="Largest q-value of a find.")
def collect(folder: Path, table: Path | None, summary: Path | None, q: float) -> None:
    """Make one table of all sessions of a FOLDER: as fastglm.collect_sessions.

    FOLDER is what was --out of fastglm infer or fit. The table of couplings has the columns of
    --table after the name of the session. The table of sessions says which are done, failed, with
    the reason, or missing, and has their statuses and scores.
    """
    check_share("--q", q, 0.05)
    table, summary = table or folder / "couplings.csv", summary or folder / "sessions.csv"
    sessions = collect_sessions(folder)
    for path in (table, summary):
        check_table(path)
    columns = sessions.summary_columns(q)
    write_columns([columns], summary)
    if len(sessions):
        sessions.write_table(table)
    print_table(_collected(sessions, columns, q, table, summary))
    _show_failed(sessions)
    missing = sessions.missing
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        click.echo(
            f"missing: {', '.join(missing[:_SHOWN])}{more}; the same call of fastglm does them",
            err=True,
        )
    if not len(sessions):
        raise ValueError(f"{folder} has no finished session, so there is no table of couplings.")


def _collected(sessions: Sessions, columns: dict, q: float, table: Path, summary: Path) -> list:
    """Rows on what was collected."""
    rows = [("sessions", sessions.count().partition(": ")[2])]
    if len(sessions):
        found = [number for number in columns["found"] if number is not None]
        rows.append(("receivers", tally(sessions.statuses())))
        rows.append(("couplings", f"{sum(found):,} found (q <= {q:g})"))
        rows.append(("table", str(table)))
    return [*rows, ("table of sessions", str(summary))]


__all__ = ["Distribution", "collect", "fit_many"]
