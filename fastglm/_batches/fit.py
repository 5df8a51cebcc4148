"""The whole fit: receivers are sorted into batches, and batches go through the solver."""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from copy import copy
from dataclasses import dataclass, replace

import numpy as np

from fastglm._algebra.sampling import sample_size
from fastglm._batches.checkpoint import fingerprint
from fastglm._batches.executors import Serial, Threads, Workers
from fastglm._batches.monitor import Monitor
from fastglm._batches.plan import plan_fit, side_by_side
from fastglm._engine.batch import Task, fit_task, share_batch
from fastglm._engine.observed import Observed
from fastglm._engine.quadratic import normal_equations
from fastglm._engine.result import Result
from fastglm._engine.scales import fit_scales
from fastglm._engine.shared import Common
from fastglm._kernels.threads import single_threaded_blas
from fastglm._products.local import Local

_LARGE = 1e8  # bytes of a batch that is not left to the garbage collector


def fit_penalties(
    X,
    observed: Observed,
    valid: np.ndarray,
    free: np.ndarray,
    penalties: list,
    settings,
    shared=None,
    guide: list[Result] | None = None,
    log: str = "path",
    workers: Workers | None = None,
) -> list[Result]:
    """Fit every receiver with each of some penalties; every fit starts where the last one ended.

    Parameters
    ----------
    X : FeatureMatrix
    observed : Observed
        Counts of the receivers with weights and offsets.
    valid : ndarray of bool, shape (n_bins,)
        Bins of the fit; none of them has weight 0.
    free : ndarray of bool, shape (n_features, n_receivers)
    penalties : list of Penalty
    settings : Settings
    shared : `fastglm._engine.shared.Shared`, optional
        The shared part of X over the valid bins, or over more bins.
    guide : list of Result, optional
        Results of nearly the same problems: for a fold, the fits to all bins.
    log : str
        First word of the lines of the log.
    workers : Workers, optional
        Where the batches are fitted. Default: here.

    Returns
    -------
    list of Result
        One a penalty.
    """
    results = [Result.empty(X.shape[1], observed.events.n_units) for _ in penalties]
    monitor = Monitor(results[-1], settings.tol, log=log)
    with closing(monitor), single_threaded_blas():
        for some, receivers in by_missing(valid, observed.events):
            tasks = tasks_of(X, observed, some, free, penalties, settings)
            tasks.guide = guide
            if shared is not None:
                tasks.shared = shared.restrict(some)
            fit_tasks(tasks, receivers, results, monitor, workers=workers)
    return results


def tasks_of(
    X,
    observed: Observed,
    valid: np.ndarray,
    free: np.ndarray,
    penalties: list,
    settings,
    start: tuple | None = None,
) -> "Tasks":
    """The `Tasks` of a feature matrix over some bins."""
    if valid.any():
        observed = observed.within(valid)
    return Tasks(Local(X, valid), observed, free, penalties, start, settings)


def fit_shards(shards, free: np.ndarray, penalties: list, settings) -> list[Result]:
    """Fit every unit of `fastglm._products.shards.Shards` on the history of all units.

    Parameters
    ----------
    shards : Shards
        Without missing counts.
    free : ndarray of bool, shape (n_features, n_receivers)
    penalties : list of Penalty
    settings : Settings

    Returns
    -------
    list of Result
        One a penalty.
    """
    observed = Observed(shards.events())
    tasks = Tasks(shards, observed, free, penalties, None, settings)
    results = [Result.empty(shards.shape[1], observed.events.n_units) for _ in penalties]
    monitor = Monitor(results[-1], settings.tol, log="shards")
    with closing(monitor), single_threaded_blas():
        fit_tasks(tasks, np.arange(observed.events.n_units), results, monitor)
    return results


def fit_tasks(
    tasks: "Tasks",
    receivers: np.ndarray,
    results: list[Result],
    monitor: Monitor,
    left: np.ndarray | None = None,
    workers: Workers | None = None,
) -> None:
    """Fit receivers of `Tasks` and write into ``results``, which has one for each penalty.

    ``left`` are those of them that are fitted, by default all. The batches are made for all: a fit
    that goes on after an interruption has the batches, and so the bits, of one that was not
    interrupted. For ``workers`` there are more of them, and the workers fit them.
    """
    products, observed, settings = tasks.products, tasks.observed, tasks.settings
    left, n_receivers = receivers if left is None else left, receivers.size
    if left.size == 0:
        return
    if products.n_bins == 0:
        for result in results:
            result.coef[:, left] = result.intercept[left] = np.nan
            result.status[left] = "no_bins"
        monitor.end(left)
        return
    receivers = _set_ends(tasks, receivers, left, results, monitor)
    weighted, dense = observed.weight is not None, observed.events.values is not None
    sparse = any(penalty.sparse.any() for penalty in tasks.penalties)
    own = {"weighted": weighted, "dense": dense, "sparse": sparse}
    plans = [
        plan_fit(products, some, tasks.free, settings, **own)
        for some in _alike(tasks.penalties, receivers)
    ]
    for plan in plans:
        if workers is not None:
            plan.divide(workers.n_tasks, workers.sharing)
        if left.size < n_receivers:
            plan.restrict(left)
    Execution(tasks, monitor, results, workers).run(plans)


def _set_ends(
    tasks: "Tasks",
    receivers: np.ndarray,
    left: np.ndarray,
    results: list[Result],
    monitor: Monitor,
) -> np.ndarray:
    """Write the results of those left whose optimum lies at infinity; returns all others."""
    sums = tasks.observed.sums(tasks.products)[receivers]
    loss = tasks.settings.loss.select(receivers)
    status, intercept = loss.ends(sums, tasks.products.n_bins)
    done = status != ""
    others = receivers[~done]
    if left.size < receivers.size:
        done &= np.isin(receivers, left)
    ended, own = receivers[done], loss.select(done)
    intercept[done] = tasks.observed.beyond(intercept[done], ended, tasks.products)
    for result in results:
        result.status[ended] = status[done]
        result.intercept[ended] = intercept[done]
        result.objective[ended] = result.grad_norm[ended] = 0.0
        result.newton_decrement[ended] = 0.0
        result.scale[ended] = own.scale
    monitor.end(ended)
    return others


@dataclass
class Tasks:
    """The parts that the tasks of some receivers have in common; `of` makes each task."""

    products: object
    observed: object
    free: np.ndarray
    penalties: list
    start: tuple | None
    settings: object
    shared: object = None
    guide: list | None = None
    normal: object = None  # normal equations
    common: object = None  # sums and a sample of all features, if masks take theirs from them

    def __getstate__(self):
        """Counts travel without their times and names, which may be objects of another library."""
        events = copy(self.observed.events)
        for name in ("timeline", "columns", "grid"):
            vars(events).pop(name, None)
        observed = Observed(events, self.observed.weight, self.observed.offset)
        return {**vars(self), "observed": observed}

    def prepare(self, batches: list) -> None:
        """Make what some batches share, for workers that only read it."""
        for batch in batches:
            if batch.alone:
                self.observed.prepare()
            elif not batch.selected:
                self._of_all_features(batch)
        if self.shared is not None:
            self.shared.prepare()

    def of(self, batch) -> Task:
        """The task of a batch."""
        receivers, features, products = batch.receivers, slice(None), self.products
        free = self.free[:, receivers]
        if batch.selected:
            products, features = products.select(free.any(axis=1))
            free, shared = free[features], self._share(products, features, batch)
        else:
            shared = self._of_all_features(batch)
        start = self.start
        if start is not None:
            coef = np.where(free, start[0][features][:, receivers], 0.0)
            start = coef, start[1][receivers]
        return Task(
            products,
            self.observed.select(receivers),
            free,
            [penalty.select(features, receivers) for penalty in self.penalties],
            batch,
            replace(self.settings, loss=self.settings.loss.select(receivers)),
            start,
            shared,
            self.guide and [g.of(receivers, features) for g in self.guide],
            features,
        )

    def _of_all_features(self, batch):
        """What the batches with all features share, or None; made at the first call."""
        if batch.method == "normal-equations":
            self.normal = self.normal or normal_equations(self.products, self.observed.weight)
            return self.normal
        known = self.shared is not None and self.shared.gram is batch.gram
        if batch.method == "newton-cg" and not known:
            self.shared = share_batch(self.products, batch, self.settings.memory_budget)
        return self.shared

    def _share(self, products, features: np.ndarray, batch):
        """The shared part of a batch with some features, from that of all features, or None."""
        if self.common is None:
            return None
        # A receiver with many features draws its own sample: the common one has too few bins.
        budget, n_sample = self.settings.memory_budget, self.common.sample.index.size
        if sample_size(batch.n_features, products.n_bins, budget) > 2 * n_sample:
            return None
        return self.common.share(products, features, batch.lanes)


class Execution:
    """Runs the tasks of plans, and stores their results as they are done.

    Batches go in groups, mostly of one. ``seconds`` is the time of what all batches share, as far
    as it is made here for `Workers`.
    """

    def __init__(
        self,
        tasks: Tasks,
        monitor: Monitor,
        results: list[Result],
        workers: Workers | None = None,
    ):
        self.tasks, self.monitor, self.results, self.workers = tasks, monitor, results, workers
        self.seconds = 0.0

    def run(self, plans: list) -> None:
        """Fit the batches with all features first, then the batches with some features."""
        begin = time.monotonic()
        batches = [batch for plan in plans for batch in plan.batches]
        n_sample = max((plan.common for plan in plans), default=0)
        self._run(Serial(), [batch for batch in batches if not batch.selected])
        self.tasks.shared = None
        if n_sample and any(batch.selected for batch in batches):
            with self._timed():
                self.tasks.common = Common(self.tasks.products, n_sample)
        self._run(Serial(), [batch for batch in batches if batch.selected and not batch.alone])
        for plan in plans:
            at_once = plan.at_once
            alone = [batch for batch in plan.batches if batch.alone]
            self._run(Threads(at_once) if at_once > 1 else Serial(), alone)
        if self.workers is not None:
            self.monitor.tell_shared(self.seconds, time.monotonic() - begin, self.workers)

    def _run(self, executor, batches):
        if not batches:
            return
        groups = [[batch] for batch in batches]
        if self.workers is not None:
            with self._timed():
                self.tasks.prepare(batches)
                executor = self.workers.submitted(fit_batches, self.tasks)
            groups = _tasks_of_workers(batches, self.workers.n_tasks)
        elif any(batch.alone for batch in batches):
            self.tasks.observed.prepare()
        executor.run(groups, self._fit, self._take, self.monitor.stop)

    @contextmanager
    def _timed(self):
        begin = time.monotonic()
        yield
        self.seconds += time.monotonic() - begin

    def _fit(self, batches):
        return [_fit_batch(self.tasks, batch, self.monitor.watch) for batch in batches]

    def _take(self, batches, found):
        with self.monitor.lock:
            # All results are stored before any is told, where an interrupt may come.
            for batch, (solved, features) in zip(batches, found, strict=True):
                for result, one in zip(self.results, solved, strict=False):
                    result.put(batch.receivers, one, features)
            self.monitor.end(np.concatenate([batch.receivers for batch in batches]))
        # The first call of a compiled kernel leaves a cycle of frames, which holds the batch in
        # memory. A collection takes 0.1 s, and 1 s where many libraries are loaded.
        for batch in batches:
            some = batch.receivers.size < self.results[0].intercept.size
            if some and not batch.alone and batch.bytes > _LARGE:
                gc.collect()
        interrupted = any((solved[-1].status == "interrupted").any() for solved, _ in found)
        if interrupted or self.monitor.stopped:
            raise KeyboardInterrupt


def _fit_batch(tasks, batch, watch):
    """Results of a batch, and the features that they have; ``watch`` is that of `Monitor`."""
    task = tasks.of(batch)
    solve = fit_scales if task.settings.loss.open_scale else fit_task
    return solve(task, watch(batch.receivers, task.features)), task.features


def fit_batches(tasks: Tasks, batches: list, n_threads: int, check: Callable) -> list[tuple]:
    """Results of some batches, and the features that they have, in the process of a worker.

    Batches of single receivers go side by side, a thread each. ``check()`` is called after every
    pass.

    Raises
    ------
    KeyboardInterrupt
        If ``check`` has raised it.
    """
    found, number = [None] * len(batches), range(len(batches))
    room = tasks.settings.memory_budget // max(batch.bytes for batch in batches)
    at_once = side_by_side(len(batches), n_threads, room)

    def fit(k):
        return _fit_batch(tasks, batches[k], lambda *_: lambda solved: check())

    executor = Threads(at_once) if at_once > 1 else Serial()
    executor.run(number, fit, found.__setitem__, lambda: None)
    if any((solved[-1].status == "interrupted").any() for solved, _ in found):
        raise KeyboardInterrupt
    return found


def _tasks_of_workers(batches, n_tasks):
    """Batches in groups, the longest first; those of single receivers in about so many groups."""
    batches = sorted(batches, key=lambda batch: -batch.seconds)
    alone = [batch for batch in batches if batch.alone]
    groups = [alone[k::n_tasks] for k in range(min(n_tasks, len(alone)))]
    return [[batch] for batch in batches if not batch.alone] + groups


def _alike(penalties: list, receivers: np.ndarray) -> list[np.ndarray]:
    """Receivers in groups: within a group, each penalty is sparse for all receivers or for none.

    Sparse and smooth penalties take different steps, and no receiver's steps may depend on the
    others.
    """
    if receivers.size == 0:
        return []
    sparse = np.array([penalty.sparse[receivers] for penalty in penalties])
    if (sparse == sparse[:, :1]).all():
        return [receivers]
    _, group = np.unique(sparse, axis=1, return_inverse=True)
    return [receivers[group.ravel() == g] for g in range(group.max() + 1)]


def key_of(X, observed: Observed, free: np.ndarray, penalty, start: tuple | None, settings) -> str:
    """Fingerprint of all data and settings of a fit."""
    y = observed.events
    parts = [X.valid, free, *penalty.arrays(), y.n_units, *y.arrays()]
    for c in X.blocks:
        parts += c.arrays()
    parts += list(start or ())
    parts += [given for given in (observed.weight, observed.offset) if given is not None]
    parts += [*settings.loss.key, settings.tol, settings.maxiter, settings.method]
    return fingerprint(*parts)


def by_missing(valid: np.ndarray, y) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield ``(valid, receivers)`` for every pattern of missing counts, usually one."""
    missing = np.isnan(y.amplitudes)
    if not missing.any():
        yield valid, np.arange(y.n_units)
        return
    bins, units = y.bins[missing], y.units[missing]
    groups = {}
    for j in range(y.n_units):
        unknown = bins[units == j]
        groups.setdefault(unknown.tobytes(), (unknown, []))[1].append(j)
    for unknown, receivers in groups.values():
        known = valid.copy()
        known[unknown] = False
        yield known, np.array(receivers)


def any_known(y) -> np.ndarray:
    """Bins in which the count of at least one receiver is known."""
    missing = np.isnan(y.amplitudes)
    if not missing.any():  # `bincount` would take eight bytes a bin
        return np.ones(y.n_bins, bool)
    return np.bincount(y.bins[missing], minlength=y.n_bins) < y.n_units
