"""Receivers in batches, batches through the solver."""

import gc

import numpy as np

from fastglm._engine.batch import fit_batch
from fastglm._engine.checkpoint import fingerprint
from fastglm._engine.monitor import Monitor
from fastglm._engine.plan import make_plan
from fastglm._engine.result import Result
from fastglm._engine.sampling import sample_size
from fastglm._engine.shared import Common, share
from fastglm._kernels.threads import side_by_side, single_threaded_blas
from fastglm.observation_models import LOG_ZERO


def fit_penalties(
    X, observed, valid, free, penalties, settings, shared=None, guide=None, log="path"
):
    """Fit every receiver with each of some penalties, every fit from where the last one ended.

    Parameters
    ----------
    X : FeatureMatrix
    observed : Observed
        Counts of the receivers with weights and offsets.
    valid : ndarray of bool, shape (n_bins,)
        Bins to fit: none has weight 0.
    free : ndarray of bool, shape (n_features, n_receivers)
    penalties : list of Penalty
    settings : Settings
    shared : `fastglm._engine.shared.Shared`, optional
        Of X and a superset of the valid bins.
    guide : list of Result, optional
        Of nearly the same problems, such as those with all bins beside those without a fold.
    log : str
        What the lines of the log begin with.

    Returns
    -------
    list of Result
    """
    results = [Result.empty(X.shape[1], observed.events.n_units) for _ in penalties]
    monitor = Monitor(results[-1], settings.tol, log=log)
    with single_threaded_blas():
        for some, receivers in by_missing(valid, observed.events):
            fit_group(
                X, observed, some, receivers, free, penalties, None, settings, results, monitor,
                shared, guide,
            )  # fmt: skip
    monitor.close()
    return results


def fit_group(
    X, observed, valid, receivers, free, penalties, start, settings, results, monitor, shared=None,
    guide=None,
):  # fmt: skip
    """Fit the receivers that share their valid bins; write into ``results``, one a penalty."""
    n_bins = int(valid.sum())
    if n_bins == 0:
        for result in results:
            result.coef[:, receivers] = result.intercept[receivers] = np.nan
            result.status[receivers] = "no_bins"
        monitor.end(receivers)
        return
    sums = sum_counts(observed.events, valid)
    observed = observed.within(valid)
    silent = receivers[sums[receivers] == 0]
    for result in results:
        result.status[silent] = "silent"
        result.intercept[silent] = LOG_ZERO
        result.objective[silent] = result.grad_norm[silent] = 0.0
        result.newton_decrement[silent] = 0.0
    monitor.end(silent)
    receivers = receivers[sums[receivers] > 0]
    if shared is not None:
        shared = shared.restrict(valid)
    plans = [make_plan(X, n_bins, some, free, settings) for some in _alike(penalties, receivers)]
    batches = [batch for plan in plans for batch in plan.batches]
    n_sample, common = max((plan.common for plan in plans), default=0), None

    def solve(batch):
        """Results of a batch, one a penalty, and the features that they are of."""
        columns, part, batch_free, own = slice(None), X, free[:, batch.receivers], shared
        if batch.selected:
            part, columns = X.select(batch_free.any(axis=1))
            batch_free, own = batch_free[columns], None
            # Of few bins for its features a receiver learns less than from its own.
            wants = sample_size(batch.n_features, n_bins, settings.memory_budget)
            if common is not None and wants <= 2 * n_sample:
                own = common.share(part, valid, columns, batch.lanes)
        begin = None
        if start is not None:
            coef = np.where(batch_free, start[0][columns][:, batch.receivers], 0.0)
            begin = coef, start[1][batch.receivers]
        solved = fit_batch(
            part,
            valid,
            observed.select(batch.receivers),
            batch_free,
            [penalty.select(columns, batch.receivers) for penalty in penalties],
            begin,
            batch,
            settings,
            own,
            monitor.watch(batch.receivers, columns),
            guide and [g.of(batch.receivers, columns) for g in guide],
        )
        return solved, columns

    def take(batch, done):
        solved, columns = done
        with monitor.lock:
            for result, one in zip(results, solved, strict=False):
                result.put(batch.receivers, one, columns)
            monitor.end(batch.receivers)
        if (solved[-1].status == "interrupted").any():
            raise KeyboardInterrupt

    for batch in batches:
        if batch.selected:
            continue
        if batch.method == "newton-cg" and shared is None:
            shared = share(X, valid, settings.memory_budget)
        take(batch, solve(batch))
        # The first call of a compiled kernel leaves a cycle that holds the frames, and with them
        # the batch. A collection takes 0.1 s.
        if len(batches) > 1:
            gc.collect()
    shared = None
    if n_sample:
        common = Common(X, valid, n_sample)
    for batch in batches:
        if batch.selected and not batch.alone:
            take(batch, solve(batch))
    for plan in plans:
        alone = [batch for batch in plan.batches if batch.alone]
        if alone:
            observed.events.by_unit  # noqa: B018  sorted here, not by every thread
            side_by_side(solve, alone, plan.at_once, take, monitor.stop)


def _alike(penalties, receivers):
    """Receivers in groups that a penalty without a sparse part and one with it do not share.

    They take different steps, and no receiver's may depend on the others.
    """
    if receivers.size == 0:
        return []
    sparse = np.array([penalty.sparse[receivers] for penalty in penalties])
    _, group = np.unique(sparse, axis=1, return_inverse=True)
    return [receivers[group.ravel() == g] for g in range(group.max() + 1)]


def key_of(X, observed, free, penalty, start, settings):
    """Fingerprint of everything that a fit depends on."""
    y = observed.events
    parts = [X.valid, free, *penalty.arrays(), y.n_units, y.bins, y.units, y.amplitudes]
    for c in X.columns:
        parts += c.arrays()
    parts += list(start or ())
    parts += [given for given in (observed.weight, observed.offset) if given is not None]
    parts += [*settings.loss.key, settings.tol, settings.maxiter, settings.method]
    return fingerprint(*parts)


def by_missing(valid, y):
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


def sum_counts(y, valid):
    """Sum of each receiver over the valid bins where it is known."""
    known = valid[y.bins] & ~np.isnan(y.amplitudes)
    return np.bincount(y.units, np.where(known, y.amplitudes, 0.0), y.n_units)


def mean_count(y, valid):
    """Mean of every receiver over the valid bins where its count is known."""
    missing = np.isnan(y.amplitudes) & valid[y.bins]
    n_known = valid.sum() - np.bincount(y.units[missing], minlength=y.n_units)
    return sum_counts(y, valid) / np.maximum(n_known, 1)


def any_known(y):
    """Bins where the count of some receiver is known."""
    missing = np.isnan(y.amplitudes)
    if not missing.any():  # eight bytes a bin are a lot at 0.1 ms
        return np.ones(y.n_bins, bool)
    return np.bincount(y.bins[missing], minlength=y.n_bins) < y.n_units
