"""The whole fit: receivers are sorted into batches, and batches go through the solver."""

import gc
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from fastglm._algebra.sampling import sample_size
from fastglm._batches.checkpoint import fingerprint
from fastglm._batches.executors import Serial, Threads
from fastglm._batches.monitor import Monitor
from fastglm._batches.plan import plan_fit
from fastglm._engine.batch import Task, fit_task
from fastglm._engine.observed import Observed
from fastglm._engine.quadratic import normal_equations
from fastglm._engine.result import Result
from fastglm._engine.scales import fit_scales
from fastglm._engine.shared import Common, share
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

    Returns
    -------
    list of Result
        One a penalty.
    """
    results = [Result.empty(X.shape[1], observed.events.n_units) for _ in penalties]
    monitor = Monitor(results[-1], settings.tol, log=log)
    with single_threaded_blas():
        for some, receivers in by_missing(valid, observed.events):
            tasks = tasks_of(X, observed, some, free, penalties, settings)
            tasks.guide = guide
            if shared is not None:
                tasks.shared = shared.restrict(some)
            fit_tasks(tasks, receivers, results, monitor)
    monitor.close()
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
    with single_threaded_blas():
        fit_tasks(tasks, np.arange(observed.events.n_units), results, monitor)
    monitor.close()
    return results


def fit_tasks(
    tasks: "Tasks",
    receivers: np.ndarray,
    results: list[Result],
    monitor: Monitor,
    left: np.ndarray | None = None,
) -> None:
    """Fit receivers of `Tasks` and write into ``results``, which has one for each penalty.

    ``left`` are those of them that are fitted, by default all. The batches are made for all: a fit
    that goes on after an interruption has the batches, and so the bits, of one that was not
    interrupted.
    """
    products, observed, settings = tasks.products, tasks.observed, tasks.settings
    left = receivers if left is None else left
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
    plans = [
        plan_fit(products, some, tasks.free, settings, weighted=weighted, dense=dense)
        for some in _alike(tasks.penalties, receivers)
    ]
    for plan in plans:
        plan.restrict(left)
    Execution(tasks, monitor, results).run(plans)


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
    done &= np.isin(receivers, left)
    ended, own = receivers[done], loss.select(done)
    intercept[done] = tasks.observed.beyond(intercept[done], ended, tasks.products.valid)
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

    def of(self, batch) -> Task:
        """The task of a batch."""
        receivers, features, products = batch.receivers, slice(None), self.products
        free, shared = self.free[:, receivers], self.shared
        if batch.selected:
            products, features = products.select(free.any(axis=1))
            free, shared = free[features], self._share(products, features, batch)
        elif batch.method == "normal-equations":
            self.normal = self.normal or normal_equations(products, self.observed.weight)
            shared = self.normal
        elif batch.method == "newton-cg" and shared is None:
            shared = self.shared = share(products, self.settings.memory_budget)
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
    """Runs the tasks of plans, and stores their results as they are done."""

    def __init__(self, tasks: Tasks, monitor: Monitor, results: list[Result]):
        self.tasks, self.monitor, self.results = tasks, monitor, results

    def run(self, plans: list) -> None:
        """Fit the batches with all features first, then the batches with some features."""
        batches = [batch for plan in plans for batch in plan.batches]
        n_sample = max((plan.common for plan in plans), default=0)
        self._run(Serial(), [batch for batch in batches if not batch.selected])
        self.tasks.shared = None
        if n_sample and any(batch.selected for batch in batches):
            self.tasks.common = Common(self.tasks.products, n_sample)
        self._run(Serial(), [batch for batch in batches if batch.selected and not batch.alone])
        for plan in plans:
            alone = [batch for batch in plan.batches if batch.alone]
            if alone:
                self.tasks.observed.prepare()
                at_once = plan.at_once
                self._run(Threads(at_once) if at_once > 1 else Serial(), alone)

    def _run(self, executor, batches):
        executor.run(batches, self._fit, self._take, self.monitor.stop)

    def _fit(self, batch):
        task = self.tasks.of(batch)
        watch = self.monitor.watch(batch.receivers, task.features)
        solve = fit_scales if task.settings.loss.open_scale else fit_task
        return solve(task, watch), task.features

    def _take(self, batch, done):
        solved, features = done
        with self.monitor.lock:
            for result, one in zip(self.results, solved, strict=False):
                result.put(batch.receivers, one, features)
            self.monitor.end(batch.receivers)
        if (solved[-1].status == "interrupted").any():
            raise KeyboardInterrupt
        # The first call of a compiled kernel leaves a cycle of frames, which holds the batch in
        # memory. A collection takes 0.1 s, and 1 s where many libraries are loaded.
        some = batch.receivers.size < self.results[0].intercept.size
        if some and not batch.alone and batch.bytes > _LARGE:
            gc.collect()


def _alike(penalties: list, receivers: np.ndarray) -> list[np.ndarray]:
    """Receivers in groups: within a group, each penalty is sparse for all receivers or for none.

    Sparse and smooth penalties take different steps, and no receiver's steps may depend on the
    others.
    """
    if receivers.size == 0:
        return []
    sparse = np.array([penalty.sparse[receivers] for penalty in penalties])
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
