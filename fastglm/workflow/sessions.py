"""Many recordings, each fitted by the same call: here, in processes, on a cluster.

`one_session` is all that a worker does: it reads one recording, fits it, and writes its files. It
is a function of values that can be pickled, and its result is small. Who distributes the sessions
is an executor of another library, or an array of jobs of which each takes its share.
"""

from __future__ import annotations

import inspect
import logging
import os
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from fastglm._checks import check_choice
from fastglm._files import as_path, check_output, describe, one_line, sentence
from fastglm._kernels.threads import kernel_threads
from fastglm._progress import Progress, quiet
from fastglm.glm import PopulationGLM
from fastglm.observation_models import as_observation_model
from fastglm.recordings import load_spikes
from fastglm.workflow.coupling import fit_coupling, map_of, save_fit
from fastglm.workflow.recipe import infer_connectivity
from fastglm.workflow.records import (
    Session,
    Sessions,
    find_files,
    identify,
    name_sessions,
    read_list,
    read_session,
    read_share,
    stamp,
    write_list,
)

_METHODS = {"infer_connectivity": infer_connectivity, "fit_coupling": fit_coupling}
_OF_THE_MAP = ("kind", "null", "channel")  # settings that `fit_coupling` has not
_OWN = ("counts", "units", "epochs", "covariates", "progress", "checkpoint")
_UNTESTED = (
    "Standard errors and tests are left out, since they would take long; kind='observed', on the "
    "command line --standard-errors observed, computes them."
)
_POLL = 0.05  # seconds between looks at jobs
_LOGGER = logging.getLogger("fastglm.sessions")


def fit_sessions(
    files: str | Path | Sequence[str | Path],
    out: str | Path,
    method: str = "infer_connectivity",
    *,
    where: str | None = None,
    epochs: object | None = None,
    covariates: object | None = None,
    executor: object | None = None,
    task: str | tuple[int, int] | None = None,
    n_threads: int | None = None,
    also: Callable | None = None,
    progress: bool | None = None,
    **settings: object,
) -> Sessions:
    """Fit many recordings, each by the same call, and keep each result as soon as it is there.

    A session is one recording. Its map goes to ``out/<session>.npz``. A session that fails leaves
    a sentence there, and the others go on. A second call with the same arguments does what is not
    finished: sessions that are new, failed or were interrupted, and those whose recording has
    changed.

    Parameters
    ----------
    files : str, Path, or sequence of them
        Recordings that `load_spikes` reads, or patterns such as ``"recordings/*.nwb"``. A session
        has the name of its file without the ending. If two files would have the same name, all
        names are paths from the folder that holds all files: ``"mouse1/monday"``.
    out : str or Path
        Folder of the results, made where it is missing.
    method : {"infer_connectivity", "fit_coupling"}
        The call. `fit_coupling` writes its model to ``<session>.npz``, for `load_model`, and the
        map to ``<session>.couplings.npz``.
    where, epochs
        As in `load_spikes`, of every recording.
    covariates : dict, FeatureMatrix or callable, optional
        As in the call. A function gets the path of a recording and returns its covariates.
    executor : object, optional
        Where the sessions run: anything with ``submit(function, *args)`` that returns jobs with
        ``done()`` and ``result()``, such as executors of `concurrent.futures`, loky and mpi4py, and
        ``dask.distributed.Client(...).get_executor()``. Default: here, one after another.
    task : str or (int, int), optional
        ``"i/n"``: only the i-th of n shares of the sessions, i from 1 to n. Every n-th session in
        the order of the names belongs to a share, so all tasks need the same files.
    n_threads : int, optional
        Threads of each session. Default: all. Workers that share a machine should share its cores.
    also : callable, optional
        Called as ``also(couplings, session)`` after each fit, by the worker, where
        ``couplings.model`` still has the model and the data: for pictures, pages and diagnostics.
        ``session.name`` and ``session.file`` are texts.
    progress : bool, optional
        A bar of sessions. Default: where somebody waits for more than two seconds.
    **settings
        Of the call. With `fit_coupling` also ``kind``, ``null`` and ``channel`` of `coupling_map`;
        without ``kind`` standard errors are left out where they would take long.

    Returns
    -------
    Sessions
        Those of this call, with the finished ones as a mapping from names to maps.
        `collect_sessions` gives those of the whole folder.

    Raises
    ------
    ValueError
        If a file stands twice, a pattern matches nothing, the folder cannot be written or has
        sessions of other settings, or settings are not those of the call. What is wrong with one
        recording is no error.

    Warns
    -----
    UserWarning
        At the end, if sessions failed or had warnings.

    Notes
    -----
    Settings are compared as texts. A function among them is known by its name, and a change of its
    code is not noticed.

    An interrupt keeps what is finished, and cancels the jobs that have not begun. If a worker is
    lost, its session counts as failed.

    Examples
    --------
    Two recordings of one folder, here one after the other:

    >>> import tempfile, pathlib
    >>> import numpy as np, fastglm
    >>> rng = np.random.default_rng(0)
    >>> folder = tempfile.TemporaryDirectory()
    >>> for day in ("monday", "tuesday"):
    ...     times, unit = np.sort(rng.uniform(0, 20, (3, 200))).ravel(), np.repeat(range(3), 200)
    ...     np.savez(pathlib.Path(folder.name, day), spike_times=times, unit=unit, n_units=3,
    ...              t_start=0, t_stop=20)
    >>> out = pathlib.Path(folder.name, "maps")
    >>> sessions = fastglm.fit_sessions(f"{folder.name}/*.npz", out, bin_size=0.01)
    >>> sessions.count()
    '2 sessions: 2 done'
    >>> for name, couplings in sessions.items():
    ...     print(name, couplings.strength.shape)
    monday (3, 3)
    tuesday (3, 3)

    Another process, or another day, finds them in the folder:

    >>> sessions = fastglm.collect_sessions(out)
    >>> sessions.count(), sessions["monday"].strength.shape
    ('2 sessions: 2 done', (3, 3))
    >>> folder.cleanup()
    """
    found, _ = run_sessions(
        files, out, method, where=where, epochs=epochs, covariates=covariates, executor=executor,
        task=task, n_threads=n_threads, also=also, progress=progress, **settings,
    )  # fmt: skip
    _warn(found)
    return found


def _warn(sessions):
    """One warning about all sessions that failed or had warnings."""
    failed = [f"{name}: {error}" for name, error in sessions.failed.items()]
    warned = [f"{one.name}: {one.warnings[0]}" for one in sessions.all.values() if one.warnings]
    if not failed and not warned:
        return
    texts = [
        f"{len(found)} of {len(sessions.all)} sessions {what}, the first is {found[0]}"
        for found, what in ((failed, "failed"), (warned, "had warnings"))
        if found
    ]
    warnings.warn(
        f"{' '.join(texts)} The attribute `all` of the result has all of them.",
        UserWarning,
        stacklevel=3,
    )


# --- one session ---


@dataclass(frozen=True)
class Work:
    """What is done to every recording; a value that can be pickled.

    Attributes
    ----------
    folder : Path
    method : str
    where, epochs, covariates, also, n_threads
        As in `fit_sessions`.
    settings : dict
        Of the call.
    identity : dict of str
        All that decides the result, as texts.
    """

    folder: Path
    method: str
    where: str | None
    epochs: object | None
    covariates: object | None
    also: Callable | None
    n_threads: int | None
    settings: dict
    identity: dict

    def session(self, name: str, file: Path) -> Session:
        """A session of which nothing is done."""
        return Session(
            name, str(file), settings=self.identity, stamp=stamp(file), also=identify(self.also)
        )

    def outputs(self, name: str) -> dict[str, str]:
        """Names of the files of a session."""
        if self.method == "fit_coupling":
            return {"couplings": f"{name}.couplings.npz", "model": f"{name}.npz"}
        return {"couplings": f"{name}.npz"}

    def is_finished(self, name: str, file: Path, one: Session | None) -> bool:
        """Whether nothing is left to do for a recording, as a session of the folder says."""
        if one is None or not one.is_whole(self.folder):
            return False
        also = self.also is None or one.also == identify(self.also)
        return also and one.settings == self.identity and one.stamp == stamp(file)


def one_session(work: Work, name: str, file: Path) -> Session:
    """Fit one recording and write its files, the session last; what is wrong is in the session."""
    session = work.session(name, file)
    with quiet(), kernel_threads(work.n_threads), _heard() as heard:
        try:
            _fit(work, session, file)
            session.state = "done"
        except Exception as error:  # one recording stops nobody
            if os.environ.get("FASTGLM_TRACEBACK"):
                traceback.print_exc()
            session = replace(work.session(name, file), state="failed", error=sentence(error))
    session.warnings = list(dict.fromkeys(one_line(one.message) for one in heard))
    session.write(work.folder)
    return session


def _fit(work, session, file):
    """Fit a recording, write its map and its model, and say in the session what they are."""
    spikes = load_spikes(file, work.where, work.epochs)
    covariates = work.covariates
    if callable(covariates):
        covariates = _call("covariates", covariates, file)
    settings = dict(work.settings)
    paths = {what: work.folder / name for what, name in work.outputs(session.name).items()}
    paths["couplings"].parent.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    if work.method == "fit_coupling":
        chosen = {name: settings.pop(name) for name in _OF_THE_MAP if name in settings}
        model = fit_coupling(spikes, covariates=covariates, progress=False, **settings)
        couplings = map_of(model, **chosen)
        if chosen.get("kind") is None and couplings.uncertainty is None:
            warnings.warn(_UNTESTED, UserWarning, stacklevel=2)
        save_fit(model, paths["model"], file, spikes.names)
    else:
        couplings = infer_connectivity(spikes, covariates=covariates, progress=False, **settings)
        model = couplings.model
    session.seconds = time.perf_counter() - begin
    session.units, session.spikes = spikes.n_units, int(spikes.spike_times.size)
    session.bins, session.statuses = model.X_.shape[0], dict(Counter(model.status_.tolist()))
    session.score = _score(model)
    couplings.save(paths["couplings"])
    session.outputs = work.outputs(session.name)
    if work.also is not None:
        _call("also", work.also, couplings, session)


def _call(name, function, *arguments):
    """The result of a function of the user; what it raises says whose it is."""
    try:
        return function(*arguments)
    except (ValueError, OSError, ImportError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(f"{name} raised {describe(error)}.") from error


def _score(model):
    """Pseudo-R2 of the bins of the fit."""
    family = as_observation_model(model.observation_model)
    kind = "pseudo-r2-McFadden" if family.event_based else "pseudo-r2-Cohen"
    return float(model.score(model.X_, model.counts_, score_type=kind))


@contextmanager
def _heard():
    """A list of the warnings inside; empty in a thread, since threads share the filters."""
    if threading.current_thread() is not threading.main_thread():
        yield []
        return
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for kind in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", kind)
        yield heard


# --- all of them ---


def run_sessions(
    files, out, method, *, where, epochs, covariates, executor, task, n_threads, also, progress,
    **settings,
) -> tuple[Sessions, set[str]]:  # fmt: skip
    """As `fit_sessions`, without a warning; also the names of those that were finished before."""
    check_choice("method", method, tuple(_METHODS))
    _check_settings(method, settings)
    _check_executor(executor)
    share = (1, 1) if task is None else read_share(task)
    folder = Path(os.path.abspath(as_path(out)))  # workers may run in another folder
    recordings = [file for file in find_files(files) if Path(os.path.abspath(file)) != folder]
    every = name_sessions(recordings)
    identity = {"method": method, "where": where, "epochs": epochs, "covariates": covariates}
    identity = {name: identify(value) for name, value in (identity | settings).items()}
    work = Work(folder, method, where, epochs, covariates, also, n_threads, settings, identity)
    _check_outputs(work, every)
    _check_folder(folder, every, identity)
    mine = dict(list(every.items())[share[0] - 1 :: share[1]])
    old = {name: read_session(folder, name) for name in mine}
    left = {name: f for name, f in mine.items() if not work.is_finished(name, f, old[name])}
    found = {name: one for name, one in old.items() if name not in left}
    before = set(found)
    with Progress("sessions", len(mine), progress) as bar:
        bar.to(len(before))
        for one in _results(executor, work, left):
            found[one.name] = one
            took = "" if one.seconds is None else f" in {one.seconds:.1f} s"
            _LOGGER.info("%d of %d: %s %s%s", len(found), len(mine), one.name, one.state, took)
            n_failed = sum(one.state == "failed" for one in found.values())
            bar.to(len(found), f"{n_failed:,} failed" if n_failed else "")
    return Sessions(folder, found.values()), before


def _results(executor, work, left):
    """Sessions as they end."""
    if executor is None:
        for name, file in left.items():
            yield _result(work, name, file, partial(one_session, work, name, file))
        return
    jobs = {}
    try:
        for name, file in left.items():
            try:
                jobs[name] = executor.submit(one_session, work, name, file)
            except Exception as error:  # a broken pool takes no more
                yield _lost(work, name, file, error)
        while jobs:
            ended = [name for name, job in jobs.items() if job.done()]
            for name in ended:
                yield _result(work, name, left[name], jobs.pop(name).result)
            if not ended:
                time.sleep(_POLL)
    finally:  # an interrupt: what has not begun does not begin
        for job in jobs.values():
            getattr(job, "cancel", bool)()


def _result(work, name, file, result):
    try:
        return result()
    except Exception as error:  # of a worker, of the way to it, or of a full disk
        return _lost(work, name, file, error)


def _lost(work, name, file, error):
    """The session of a job that has no result; what its worker wrote may be whole."""
    with suppress(ValueError, OSError):
        one = read_session(work.folder, name)
        if work.is_finished(name, file, one):
            return one
    text = f"Its worker gave no result ({describe(error)}); the same call does it again."
    if isinstance(error, OSError):
        text = sentence(error)
    elif isinstance(error, BrokenExecutor):
        text = (
            "Its process, or another one of its pool, ended before there was a result, often "
            "because the memory was full; the same call does it again."
        )
    one = replace(work.session(name, file), state="failed", error=text)
    with suppress(OSError):
        one.write(work.folder)
    return one


# --- checks ---


def _check_settings(method, settings):
    """Raise ValueError if a setting is none of the call."""
    known = set(inspect.signature(_METHODS[method]).parameters) - {"settings"}
    if method == "fit_coupling":
        known |= set(PopulationGLM().get_params(deep=False)) | set(_OF_THE_MAP)
    unknown = sorted(set(settings) - known.difference(_OWN))
    if unknown:
        raise ValueError(
            f"{', '.join(unknown)} is no setting of {method} for many recordings; expected some of "
            f"{', '.join(sorted(known.difference(_OWN)))}."
        )


def _check_executor(executor):
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise ValueError(
            f"executor is of type {type(executor).__name__}; expected an object with submit, such "
            "as concurrent.futures.ProcessPoolExecutor(4), or get_executor() of a client of Dask."
        )


def _check_outputs(work, every):
    """Raise ValueError if two sessions would write one file, or one would write to a recording."""
    names = Counter(output for name in every for output in work.outputs(name).values())
    twice = [output for output, number in names.items() if number > 1]
    if twice:
        raise ValueError(f"Two sessions would write {twice[0]}; give one recording another name.")
    lost = [file for file in every.values() if file in {work.folder / name for name in names}]
    if lost:
        raise ValueError(f"{lost[0]} is a recording, and would be replaced; give another folder.")


def _check_folder(folder, every, identity):
    """Make the folder and list the sessions; refuses finished sessions of other settings."""
    if folder.is_file():
        raise ValueError(f"{folder} is a file; expected a folder for the results.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{folder} cannot be made: {error.strerror}.") from None
    for name in {**read_list(folder), **every}:
        one = read_session(folder, name)
        if one is None or not one.is_whole(folder) or one.settings == identity:
            continue
        differ = [
            key
            for key in {**one.settings, **identity}
            if one.settings.get(key) != identity.get(key)
        ]
        there, here = (which.get(differ[0], "not given") for which in (one.settings, identity))
        raise ValueError(
            f"{folder} has sessions of other settings: {', '.join(differ)} differ for {name} "
            f"({differ[0]} was {there[:60]}, and is {here[:60]}). Give another folder, or delete "
            "this one."
        )
    check_output(folder / "sessions.json")
    write_list(folder, every)


__all__ = ["fit_sessions", "run_sessions"]
