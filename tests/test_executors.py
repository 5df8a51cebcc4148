"""Fits on the workers of somebody else: the answer stays, whatever happens to the workers."""

import multiprocessing
import os
import re
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from unittest.mock import Mock

import numba
import numpy as np
import pytest
from test_monitor import few_bytes

import fastglm
from fastglm._batches import fit as engine
from fastglm._batches import jobs, mapped
from fastglm._batches.plan import plan_fit
from fastglm._inputs import read_problem
from fastglm._products.local import Local
from fastglm.basis import RaisedCosineLogConv
from fastglm.model_selection import cross_validate, regularization_path

pytestmark = pytest.mark.slow  # processes that load the package

N_CELLS = 36
BASIS = RaisedCosineLogConv(2, window_size=10)
COUNTS = np.random.default_rng(0).poisson(0.1, (800, N_CELLS))
X = BASIS.compute_features(COUNTS)
MASK = np.repeat(np.random.default_rng(1).random((N_CELLS, N_CELLS)) < 0.3, 2, axis=0)
RIDGE = {"regularizer": "Ridge", "regularizer_strength": 1e-3}
WIDE = {**RIDGE, "solver_name": "newton-cg"}  # three tiles
SINGLE = {**RIDGE, "solver_name": "newton-cholesky"}  # as many batches as tasks
KINDS = {
    "wide": WIDE,
    "single": SINGLE,
    "own senders": {**WIDE, "feature_mask": MASK},
    "groups of senders": {**WIDE, "feature_mask": np.repeat(MASK[:, :2], 18, axis=1)},
    "normal equations": {**RIDGE, "observation_model": "Gaussian"},
    "lasso": {"regularizer": "Lasso", "regularizer_strength": 3e-3},
}


def fit(kind="wide", **kwargs):
    return fastglm.PopulationGLM(**KINDS[kind]).fit(X, COUNTS, **kwargs)


_plain = {}


def plain(kind="wide"):
    if kind not in _plain:
        _plain[kind] = fit(kind)
    return _plain[kind]


def same_bits(model, other):
    for name, values in vars(model.solver_result_).items():
        np.testing.assert_array_equal(values, getattr(other.solver_result_, name), err_msg=name)


def same_optimum(model, other):
    np.testing.assert_allclose(model.objective_, other.objective_, rtol=0, atol=1e-13)
    np.testing.assert_allclose(model.coef_, other.coef_, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(model.status_, other.status_)


# --- executors that are no others' ---


class Done:
    """A job with what a fit asks of it, and nothing more."""

    def __init__(self, value):
        self.value = value

    def done(self):
        return True

    def result(self):
        return self.value


class Inline:
    """Runs a job when it is submitted; remembers its arguments."""

    def __init__(self):
        self.calls = []

    def submit(self, function, *arguments):
        self.calls.append(arguments)
        return Done(function(*arguments))


class FirstAlone(Inline):
    """The first job ends, the others never do."""

    def submit(self, function, *arguments):
        if self.calls:
            job = Done(None)
            job.done = lambda: False
            return job
        return super().submit(function, *arguments)


# --- the executors of others ---


@pytest.fixture(scope="module")
def threads():
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.mark.parametrize("name", ["threads", "dask"])
def test_the_answer_is_that_of_a_plain_fit(request, name):
    done = []
    model = fit(executor=request.getfixturevalue(name), progress=done.append)
    same_bits(model, plain())
    assert sum(done) == N_CELLS
    assert len(done) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_batch_goes_to_workers(dask, kind):
    here = Inline()
    model = fit(kind, executor=dask.get_executor())
    same_bits(model, fit(kind, executor=fastglm.Workers(here, n_workers=2)))
    same_optimum(model, plain(kind))
    assert 1 < len(here.calls) < 8


# --- workers that are lost; the real ones at the end ---


def test_a_pool_that_takes_nothing_costs_a_warning_alone():
    pool = ThreadPoolExecutor(2)
    pool.shutdown()
    with pytest.warns(UserWarning, match="The executor lost 3 of 3 tasks .*shutdown") as told:
        model = fit(executor=pool)
    assert len(told) == 1
    same_bits(model, plain())


def test_a_pool_that_is_broken_costs_one_warning_a_fit():
    counts = COUNTS.astype(float)
    counts[5, :18] = np.nan  # batches of other bins
    pool = ThreadPoolExecutor(2)
    pool.shutdown()
    with fastglm.Workers(pool) as workers:
        for _ in range(2):
            with pytest.warns(UserWarning, match="The executor lost .* tasks") as told:
                fastglm.PopulationGLM(**WIDE).fit(X, counts, executor=workers)
            assert len(told) == 1


class Leaving(Inline):
    """An executor of Dask, and its client, whose scheduler goes after so many answers."""

    def __init__(self, n_answers):
        super().__init__()
        self._client, self.n_answers = self, n_answers

    def nthreads(self):
        self.n_answers -= 1
        if self.n_answers < 0:
            raise OSError("the scheduler has gone")
        return {"tcp://one:1": 2}

    def submit(self, *_):
        raise OSError("the scheduler has gone")

    scatter = submit


@pytest.mark.parametrize("n_answers", [0, 1])
def test_a_scheduler_that_has_gone_costs_one_warning(n_answers):
    with pytest.warns(UserWarning, match="lost 3 of 3 tasks .*scheduler has gone") as told:
        model = fit(executor=Leaving(n_answers))
    assert len(told) == 1
    same_bits(model, plain())


def test_dask_is_asked_once_a_fit_and_its_last_answer_stays():
    pool = Leaving(2)
    workers = fastglm.Workers(pool)
    for n_left in (1, 0, -1):
        with workers:
            assert (workers.n_workers, workers.n_tasks, workers.sharing) == (2, 4, 2)
        assert pool.n_answers == n_left


def test_a_task_that_is_lost_is_submitted_once_more():
    class Losing(Inline):
        def submit(self, function, *arguments):
            job = super().submit(function, *arguments)
            if len(self.calls) == 2:
                job.result = lambda: 1 / 0
            return job

    pool = Losing()
    same_bits(fit(executor=fastglm.Workers(pool, n_workers=2)), plain())
    assert len(pool.calls) == 4


def test_an_error_of_the_fit_is_the_users(monkeypatch):
    def fail(*_):
        raise FloatingPointError("an error of the solver")

    monkeypatch.setattr(engine, "fit_task", fail)
    for pool in (Inline(), ThreadPoolExecutor(1)):
        with pytest.raises(FloatingPointError, match="an error of the solver"):
            fit(executor=pool)


# --- interrupts and checkpoints ---


def interrupt(_):
    raise KeyboardInterrupt


def test_an_interrupt_leaves_what_is_finished_and_a_checkpoint_goes_on(tmp_path, threads):
    path, half = tmp_path / "fit.checkpoint", fastglm.PopulationGLM(**WIDE)
    pool = fastglm.Workers(FirstAlone(), n_workers=2)
    with pytest.raises(KeyboardInterrupt, match="of 36 receivers finished"):
        half.fit(X, COUNTS, executor=pool, progress=interrupt, checkpoint=path)
    done = half.status_ == "converged"
    assert 0 < done.sum() < N_CELLS
    assert (half.status_[~done] == "interrupted").all()
    np.testing.assert_array_equal(half.coef_[:, done], plain().coef_[:, done])
    left = Inline()
    model = fit(executor=fastglm.Workers(left, n_workers=2), checkpoint=path)
    same_bits(model, plain())
    fitted = np.concatenate([batch.receivers for _, group, *_ in left.calls for batch in group])
    np.testing.assert_array_equal(np.sort(fitted), np.flatnonzero(~done))


def test_an_interrupt_while_a_task_is_taken_loses_none_of_its_receivers(caplog):
    """They are taken twice, and told once."""
    pool, told, half = Inline(), [], fastglm.PopulationGLM(**KINDS["own senders"])

    def progress(n):
        told.append(n)
        if len(told) == 2:
            raise KeyboardInterrupt

    workers = fastglm.Workers(pool, n_workers=2)
    with caplog.at_level("INFO", logger="fastglm"), pytest.raises(KeyboardInterrupt):
        half.fit(X, COUNTS, executor=workers, progress=progress)
    assert (half.status_ == "converged").all()
    assert told == [sum(b.receivers.size for b in group) for _, group, *_ in pool.calls]
    assert told[1] > 1
    assert re.findall(r"fit: (\d+) of 36", caplog.text)[-1] == "36"


def test_an_interrupt_while_a_result_is_read_does_not_lose_it():
    class Pressed(FirstAlone):
        def submit(self, function, *arguments):
            job = super().submit(function, *arguments)
            job.result = Mock(side_effect=[KeyboardInterrupt, job.value])
            return job

    half = fastglm.PopulationGLM(**WIDE)
    with pytest.raises(KeyboardInterrupt, match="of 36 receivers finished"):
        half.fit(X, COUNTS, executor=fastglm.Workers(Pressed(), n_workers=2))
    assert (half.status_ == "converged").any()


@pytest.mark.parametrize("name", ["threads", "dask"])
def test_workers_are_free_after_an_interrupt(request, name):
    pool, half = request.getfixturevalue(name), fastglm.PopulationGLM(**SINGLE)
    with pytest.raises(KeyboardInterrupt):
        half.fit(X, COUNTS, executor=pool, progress=interrupt)
    done = half.status_ == "converged"
    assert done.any()
    np.testing.assert_allclose(half.coef_[:, done], plain("single").coef_[:, done], atol=1e-6)
    same_bits(fit(executor=pool), plain())


def test_a_worker_stops_when_nobody_waits_any_more():
    store = mapped.Store()
    call = jobs.Call(count_forever, store.put("value"), 1, 1, {})
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(jobs.work, call, None, 0, None)
        assert COUNTING.wait(60)
        store.close()
        with pytest.raises(RuntimeError, match="interrupted in the worker"):
            job.result(60)


COUNTING = threading.Event()


def count_forever(value, item, n_threads, check):
    COUNTING.set()
    while True:
        check()
        time.sleep(1e-3)


# --- what tasks share ---


def test_shared_parts_are_made_and_written_once_and_told(dask, monkeypatch, caplog):
    made, put = [], mapped.Store.put
    monkeypatch.setattr(mapped.Store, "put", lambda *a: made.append(1) or put(*a))
    with caplog.at_level("INFO", logger="fastglm"):
        fit(executor=dask)
    assert len(made) == 1
    text = [line for line in caplog.messages if "share" in line]
    assert len(text) == 1
    assert re.fullmatch(
        r"fit: parts that all batches share took \S+ of \S+ s \(\d+ %\); "
        r"2 workers, \S+ \S+ written once for them",
        text[0],
    )


def test_arrays_that_values_have_in_common_are_one_file(tmp_path):
    store, large = mapped.Store(tmp_path), np.arange(100_000.0)
    first = store.put({"large": large, "small": np.arange(3)})
    written = store.n_bytes
    second = store.put([large, "another"])
    assert store.n_bytes - written < 1000
    found = mapped.load(first)
    np.testing.assert_array_equal(found["large"], large)
    assert found is mapped.load(first)
    found["large"][0] = 7.0  # of this process alone
    np.testing.assert_array_equal(mapped.load(second)[0], large)
    assert first.wanted
    store.close()
    assert not first.wanted
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_cut_off_is_written_anew(tmp_path):
    store, large = mapped.Store(tmp_path), np.arange(100_000.0)
    with few_bytes(), pytest.raises(OSError, match="File too large"):
        store.put(large)
    np.testing.assert_array_equal(mapped.load(store.put(large)), large)
    store.close()


def test_a_process_keeps_two_values():
    store = mapped.Store()
    for k in range(3):
        mapped.load(store.put(k))
    assert len(mapped._kept) == 2
    store.close()


def test_values_are_kept_while_a_job_runs_and_forgotten_after_it(monkeypatch):
    """Jobs that end meanwhile do not count."""
    monkeypatch.setattr(mapped, "_IDLE", 0.01)
    store = mapped.Store()
    reference = store.put("value")

    def work(function):
        return jobs.work(jobs.Call(function, reference, 1, 1, {}), None, 0, None)

    def long_job(*_):
        work(lambda *_: None)
        time.sleep(0.2)
        return list(mapped._kept)

    assert reference.key in work(long_job)
    deadline = time.monotonic() + 10
    while mapped._kept and time.monotonic() < deadline:
        time.sleep(1e-3)
    assert not mapped._kept
    store.close()


def test_no_value_is_forgotten_while_another_is_read():
    store = mapped.Store()
    with mapped._lock:
        mapped.load(store.put("value"))
        thread = threading.Thread(target=mapped._forget)
        thread.start()
        thread.join(0.1)
        assert mapped._kept
    thread.join()
    assert not mapped._kept
    store.close()


def hide(there):
    """Whether the files of a value are seen in this process."""
    mapped._kept.clear()
    if there:
        vars(mapped).pop("open", None)
    else:
        mapped.open = open_nothing


def open_nothing(path, *_):
    raise FileNotFoundError(path)


def test_workers_that_do_not_see_the_files_get_bytes_once():
    pool = Inline()
    hide(False)
    try:
        model = fit(executor=fastglm.Workers(pool, n_workers=1, n_threads=1))
    finally:
        hide(True)
    same_bits(model, plain())
    assert sum(sent is not None for *_, sent in pool.calls) == 1


def test_workers_of_dask_on_other_machines(dask):
    dask.run(hide, False)
    try:
        same_bits(fit(executor=dask), plain())
    finally:
        dask.run(hide, True)


def test_a_context_keeps_the_files_between_fits(tmp_path):
    pool = Inline()
    with fastglm.Workers(pool, n_workers=2, folder=tmp_path) as workers:
        fit(executor=workers)
        written = workers.n_bytes
        fit(executor=workers)
        assert workers.n_bytes == written > 0
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


# --- threads ---


@pytest.mark.parametrize(
    ("given", "sharing", "expected"),
    [
        ({"SLURM_CPUS_PER_TASK": "6"}, 1, 6),
        ({"SLURM_CPUS_PER_TASK": "6", "OMP_NUM_THREADS": "1"}, 2, 3),
        ({"SLURM_CPUS_PER_TASK": "64"}, 1, 8),
        ({"OMP_NUM_THREADS": "2"}, 4, 2),
        ({}, 4, 2),
        ({}, 16, 1),
    ],
)
def test_threads_that_a_worker_was_given(monkeypatch, given, sharing, expected):
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 8)
    for name in ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, number in given.items():
        monkeypatch.setenv(name, number)
    assert jobs.given_threads(sharing) == expected


def test_workers_leave_the_threads_as_they_found_them():
    before, seen = numba.get_num_threads(), []

    class Looking(Inline):
        def submit(self, function, *arguments):
            job = super().submit(function, *arguments)
            seen.append((arguments[0].n_threads, numba.get_num_threads()))
            return job

    fit(executor=fastglm.Workers(Looking(), n_workers=1, n_threads=1))
    assert set(seen) == {(1, before)}


def test_what_an_executor_tells(dask, threads):
    loky = pytest.importorskip("loky").ProcessPoolExecutor(2)
    for pool in (dask, loky, ProcessPoolExecutor(2), threads):
        workers = fastglm.Workers(pool)
        assert (workers.n_workers, workers.n_tasks, workers.sharing) == (2, 4, 2)
    unknown = fastglm.Workers(Inline())
    assert (unknown.n_workers, unknown.sharing) == (None, 1)
    assert unknown.n_tasks == 4 * os.cpu_count()


# --- plans ---


@pytest.mark.parametrize("kind", ["wide", "own senders", "groups of senders", "normal equations"])
@pytest.mark.parametrize("n_tasks", [1, 2, 5, 100])
def test_a_divided_plan_has_every_receiver_once_in_whole_tiles(kind, n_tasks):
    problem = read_problem(fastglm.PopulationGLM(**KINDS[kind]), X, COUNTS)
    products, everyone = Local(X, problem.valid), np.arange(N_CELLS)
    plan = plan_fit(products, everyone, problem.free, problem.settings)
    before, seconds = len(plan.batches), plan.seconds
    plan.divide(n_tasks, 1)
    assert before <= len(plan.batches) <= before + n_tasks
    receivers = np.concatenate([batch.receivers for batch in plan.batches])
    np.testing.assert_array_equal(np.sort(receivers), everyone)
    np.testing.assert_allclose(plan.seconds, seconds)
    if kind == "wide":
        sizes = [batch.receivers.size for batch in plan.batches]
        assert len(sizes) == min(n_tasks, 3)
        assert all(size % 16 == 0 for size in sizes[:-1])


def test_batches_that_share_a_machine_share_its_memory():
    problem = read_problem(fastglm.PopulationGLM(**SINGLE), X, COUNTS)
    plan = plan_fit(Local(X, problem.valid), np.arange(N_CELLS), problem.free, problem.settings)
    (batch,) = plan.batches
    plan.memory_budget = batch.bytes
    plan.divide(2, 8)
    assert len(plan.batches) == 8


# --- who takes an executor ---


def test_paths_and_folds_have_the_same_answer(dask):
    model = fastglm.PopulationGLM(regularizer="GroupLasso")
    here, there = (regularization_path(model, X, COUNTS, 4, executor=e) for e in (None, dask))
    for name in ("coef", "objective", "status"):
        np.testing.assert_array_equal(getattr(here, name), getattr(there, name))
    model = fastglm.PopulationGLM(regularizer="Ridge", solver_name="newton-cg")
    here, there = (
        cross_validate(model, X, COUNTS, [1e-2, 1e-3], folds=2, executor=e) for e in (None, dask)
    )
    np.testing.assert_array_equal(here.scores, there.scores)
    same_bits(here.model, there.model)


def test_connectivity_and_coupling_have_the_same_answer(threads):
    few = COUNTS[:, :4]
    here, there = (
        fastglm.infer_connectivity(few, 0.001, null="model", controls=["jittered"], executor=e)
        for e in (None, threads)
    )
    np.testing.assert_allclose(here.strength, there.strength, rtol=0, atol=1e-9)
    assert here.controls == there.controls
    times = [0.001 * np.flatnonzero(column) for column in few.T]
    here, there = (fastglm.fit_coupling(times, 0.001, executor=e) for e in (None, threads))
    same_optimum(there, here)


def test_names_and_times_of_counts_stay_here():
    """Objects of other libraries need not be there in a worker."""
    nap = pytest.importorskip("pynapple")
    frame = nap.TsdFrame(t=0.001 * np.arange(len(COUNTS)), d=COUNTS)
    pool = Inline()
    features = BASIS.compute_features(frame)
    model = fastglm.PopulationGLM(**WIDE).fit(
        features, frame, executor=fastglm.Workers(pool, n_workers=1)
    )
    np.testing.assert_array_equal(model.coef_, plain().coef_)
    assert model.receivers_.names == list(range(N_CELLS))


@pytest.mark.parametrize(
    ("executor", "message"),
    [
        (5, r"executor is 5; expected an object with submit\(\)"),
        ("dask", r"executor is 'dask'; expected an object with submit\(\)"),
        (ProcessPoolExecutor, r"executor is <class .*; expected an object with submit\(\)"),
    ],
)
def test_what_cannot_submit_is_refused(executor, message):
    model = fastglm.PopulationGLM(**RIDGE)
    for call in (
        lambda: fit(executor=executor),
        lambda: cross_validate(model, X, COUNTS, 2, executor=executor),
        lambda: regularization_path(model, X, COUNTS, 2, executor=executor),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_numbers_and_folders_of_workers_are_checked(tmp_path):
    for name in ("n_workers", "n_threads"):
        with pytest.raises(ValueError, match=f"{name} is 0; expected a positive integer"):
            fastglm.Workers(Inline(), **{name: 0})
    with pytest.raises(ValueError, match="missing', which is no folder; create it first"):
        fastglm.Workers(Inline(), folder=tmp_path / "missing")


# --- workers that are killed ---


def die(path, function, *arguments):
    """Do a job, and end by SIGKILL before its result goes out, for the first time."""
    result = function(*arguments)
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return result
    os.kill(os.getpid(), signal.SIGKILL)


class Deadly:
    """An executor whose second job kills its worker."""

    def __init__(self, pool, path):
        self.pool, self.path, self.n = pool, path, 0

    def __getattr__(self, name):  # such as the number of workers
        return getattr(self.pool, name)

    def submit(self, function, *arguments):
        self.n += 1
        if self.n == 2:
            return self.pool.submit(die, self.path, function, *arguments)
        return self.pool.submit(function, *arguments)


needs_kill = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")


def pids(client):
    return set(client.run(os.getpid).values())


@needs_kill
def test_the_others_do_what_a_killed_worker_of_dask_has_left(dask, tmp_path):
    before = pids(dask)
    pool = Deadly(dask.get_executor(), tmp_path / "killed")
    model = fit("single", executor=fastglm.Workers(pool, n_workers=4))
    assert pool.n == 8
    assert (tmp_path / "killed").exists()
    same_bits(model, fit("single", executor=fastglm.Workers(Inline(), n_workers=4)))
    same_optimum(model, plain("single"))
    assert len(before - pids(dask)) == 1


@needs_kill
@pytest.mark.parametrize("name", ["processes", "loky"])
def test_this_process_does_what_a_broken_pool_has_left(name, tmp_path):
    if name == "loky":
        pool = pytest.importorskip("loky").ProcessPoolExecutor(1)
    else:
        pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    same_bits(fit(executor=fastglm.Workers(pool, n_workers=2)), plain())
    deadly = Deadly(pool, tmp_path / "killed")
    with pytest.warns(UserWarning, match=r"The executor lost \d of 3 tasks \(.*") as told:
        model = fit(executor=fastglm.Workers(deadly, n_workers=2))
    assert len(told) == 1
    assert (tmp_path / "killed").exists()
    same_bits(model, plain())
    pool.shutdown()
