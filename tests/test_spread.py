"""`stochastic_fit` with an executor: workers read groups of shards, and their sums are merged."""

import gc
import itertools
import os
import signal
import threading
import tracemalloc
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from test_executors import Done, Inline, hide, needs_kill, pids, same_bits, same_optimum
from test_streams import cut_at, spikes_of, write_npy

import fastglm
from fastglm._batches import executors, mapped
from fastglm._batches.jobs import Unseen
from fastglm._batches.spread import groups_of
from fastglm._products.shards import Reader
from fastglm.recordings import stream_spikes

pytestmark = pytest.mark.slow  # processes that load the package

BASIS = fastglm.basis.RaisedCosineLogConv(3, 20)
NET = fastglm.simulation.random_network(4, BASIS, random_key=1, mean_rate_hz=40)
COUNTS = NET.simulate(4000, 0)
X = BASIS.compute_features(COUNTS)
CHUNKS = cut_at(X, COUNTS, [0, 700, 1500, 1507, 3000, 4000])
WIDE = {"regularizer": "Ridge", "regularizer_strength": 1e-4, "solver_name": "newton-cg"}


def fit(data=CHUNKS, model=fastglm.PopulationGLM, kwargs=None, **more):
    return model(**{**WIDE, **(kwargs or {})}).stochastic_fit(data, **more)


@pytest.fixture(scope="module")
def plain():
    return fit()


@pytest.fixture(scope="module")
def threads():
    with ThreadPoolExecutor(2) as pool:
        yield pool


def inline(n_workers=2):
    return fastglm.Workers(Inline(), n_workers=n_workers)


# --- the answer ---

MASK = np.repeat(np.eye(4, dtype=bool) | (np.arange(4) < 1), 3, axis=0)
KINDS = {
    "wide": {},
    "the senders of a mask": {"feature_mask": MASK},
    "lasso": {"regularizer": "Lasso", "regularizer_strength": 1e-3},
    "exact Hessians": {"solver_name": "newton-cholesky"},
    "a loss without linear counts": {"inverse_link_function": "softplus"},
    "normal equations": {"observation_model": "Gaussian", "solver_name": None},
    "a scale": {"observation_model": "NegativeBinomial"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_is_that_of_one_process(threads, kind):
    kwargs = KINDS[kind]
    y = (
        COUNTS * np.random.default_rng(0).integers(1, 4, COUNTS.shape)
        if kind == "a scale"
        else COUNTS
    )
    chunks, workers = cut_at(X, y, [0, 700, 1500, 1507, 3000, 4000]), inline(3)
    model = fit(chunks, kwargs=kwargs, executor=workers)
    same_optimum(model, fit(chunks, kwargs=kwargs))
    same_bits(model, fit(chunks, kwargs=kwargs, executor=fastglm.Workers(threads, n_workers=3)))
    assert workers.executor.calls


def test_counts_that_are_missing_in_some_receivers(threads):
    y = COUNTS.astype(float)
    y[100:300, 1] = y[2500:2600, 3] = y[700, :] = np.nan
    chunks = cut_at(X, y, [0, 1200, 2000, 4000])
    model = fit(chunks, executor=threads)
    same_optimum(model, fit(chunks))
    same_bits(model, fit(chunks, executor=inline()))


def test_columns_far_from_zero_and_one_receiver(threads):
    clock = np.column_stack([1e6 + np.arange(4000.0), np.sin(np.arange(4000) / 50)])
    chunks = cut_at(fastglm.features.hstack([X, clock]), COUNTS[:, 0], [0, 1000, 4000])
    model = fit(chunks, fastglm.GLM, executor=threads)
    same_optimum(model, fit(chunks, fastglm.GLM))


class Walked:
    """A loader that every process reads from its beginning."""

    def __iter__(self):
        yield from CHUNKS


def test_loaders_that_are_read_from_their_beginning(threads, plain):
    model = fit(Walked(), executor=threads)
    same_optimum(model, plain)
    same_bits(model, fit(executor=inline()))


def test_spikes_on_disk_whose_path_is_relative(tmp_path, monkeypatch):
    write_npy(tmp_path, *spikes_of(COUNTS))
    monkeypatch.chdir(tmp_path)
    shards = stream_spikes("t.npy", "u.npy", basis=BASIS, bin_size=0.001, spikes=200)
    model = fit(shards)
    monkeypatch.chdir("/")
    workers = inline()
    same_optimum(fit(shards, executor=workers), model)
    assert workers.executor.calls


def test_the_bits_are_those_of_any_executor_with_as_many_groups(threads, dask, plain):
    with pytest.importorskip("loky").ProcessPoolExecutor(2) as loky:
        one = dask.get_executor(workers=list(dask.nthreads())[:1])
        models = [fit(executor=pool) for pool in (threads, inline(), loky, dask, one)]
    for model in models[1:]:
        same_bits(model, models[0])
    same_optimum(models[0], plain)


# --- what goes where ---


def test_groups_are_consecutive_and_have_about_as_many_bins():
    class Source:
        def __init__(self, first, stop):
            self.first, self.stop = first, stop

    rng = np.random.default_rng(0)
    for n_sources, n_groups in itertools.product((1, 2, 7, 30), (1, 2, 3, 8, 100)):
        edges = np.cumsum([0, *rng.integers(1, 100, n_sources)])
        sources = [Source(*pair) for pair in itertools.pairwise(edges)]
        groups = groups_of(sources, n_groups)
        assert [k for group in groups for k in group] == list(range(n_sources))
        assert len(groups) <= n_groups
        sizes = [sources[g[-1]].stop - sources[g[0]].first for g in groups]
        assert max(sizes) <= edges[-1] / n_groups + 100
    equal = [Source(k, k + 1) for k in range(12)]
    assert [len(group) for group in groups_of(equal, 4)] == [3, 3, 3, 3]


def test_the_tree_of_additions_follows_from_the_number_of_values():
    for n, tree in ((1, "0"), (2, "(0 1)"), (5, "(((0 1) (2 3)) 4)"), (6, "(((0 1) (2 3)) (4 5))")):
        for order in itertools.permutations(range(n)):
            pairs = executors.Pairs(n, "({} {})".format)
            for k in order:
                pairs.put(k, str(k))
            assert pairs.total == tree


def test_the_chunks_are_written_once(monkeypatch):
    written, put = [], mapped.Store.put
    monkeypatch.setattr(mapped.Store, "put", lambda *a: written.append(1) or put(*a))
    workers = inline()
    fit(executor=workers)
    assert len(written) == 1
    assert len(workers.executor.calls) > 2 * 10  # passes
    fit(kwargs={"feature_mask": MASK}, executor=workers)
    assert len(written) == 2


def test_a_process_has_as_many_shards_as_threads_that_read(monkeypatch):
    made, init = [], Reader.__init__
    monkeypatch.setattr(Reader, "__init__", lambda *a: made.append(1) or init(*a))
    fit(executor=inline())
    assert len(made) == 2  # of this process, and of the one worker
    made.clear()
    with ThreadPoolExecutor(3) as pool:
        fit(executor=fastglm.Workers(pool, n_workers=5))
    assert 2 <= len(made) <= 4


class Repeated(Sequence):
    """Chunks that are made when they are read."""

    counts = (np.random.default_rng(0).random((5000, 5)) < 0.2).astype(np.uint8)

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, k):
        return BASIS.compute_features(np.roll(self.counts, k, axis=0)), self.counts


def test_memory_does_not_grow_with_chunks():
    """Twice as many chunks take no more memory; here with a worker's."""
    kwargs = {"solver_kwargs": {"maxiter": 1}}

    def peak(n):
        gc.collect()
        tracemalloc.start()
        with pytest.warns(UserWarning, match="max_iter"):
            fit(Repeated(n), kwargs=kwargs, executor=inline())
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(2)  # brings what is made once
    # Cycles that are not collected yet, and threads of other tests, only add.
    four, eight = (min(peak(n) for _ in range(3)) for n in (4, 8))
    assert eight < 1.05 * four


def test_files_that_have_changed_between_two_fits_are_read_again(tmp_path):
    """Nothing that is known of them tells: their counts, means and first rows are the same."""

    class Stored:
        def __iter__(self):
            yield np.load(tmp_path / "X.npy"), COUNTS[:2000]

    rng, signs = np.random.default_rng(0), np.repeat([1.0, -1.0], 500)[:, None]
    for _ in range(2):
        np.save(tmp_path / "X.npy", np.concatenate([signs, rng.permutation(signs)]))
        same_optimum(fit(Stored(), executor=inline(1)), fit(Stored()))


class Counted(Sequence):
    """A loader that counts what each process reads."""

    n_read = 0

    def __init__(self, chunks):
        self.chunks = chunks

    def __len__(self):
        return len(self.chunks)

    def __getitem__(self, k):
        type(self).n_read += k < len(self)
        return self.chunks[k]


def n_read():
    return Counted.n_read


def test_a_worker_of_dask_keeps_its_shard_between_passes(dask):
    before = dask.run(n_read)
    model = fit(Counted(cut_at(X, COUNTS, [0, 2000, 4000])), executor=dask)
    assert model.n_passes_.max() > 3
    assert [n - before[worker] for worker, n in dask.run(n_read).items()] == [1, 1]


def test_workers_that_do_not_see_the_files_get_bytes_once(plain):
    workers = inline(1)
    hide(False)
    try:
        model = fit(executor=workers)
    finally:
        hide(True)
    same_bits(model, plain)
    assert sum(sent is not None for *_, sent in workers.executor.calls) == 1


def test_workers_of_dask_on_other_machines(dask, monkeypatch):
    sent, send = [], fastglm.Workers.send
    monkeypatch.setattr(fastglm.Workers, "send", lambda *a: sent.append(1) or send(*a))
    dask.run(hide, False)
    try:
        model = fit(executor=dask)
    finally:
        dask.run(hide, True)
    same_bits(model, fit(executor=inline()))
    assert len(sent) == 1


# --- what is lost, and what is refused ---


def test_a_pool_that_takes_nothing_costs_one_warning(plain):
    pool = ThreadPoolExecutor(2)
    pool.shutdown()
    with pytest.warns(UserWarning, match="The executor lost 2 of 2 tasks .*shutdown") as told:
        model = fit(executor=pool)
    assert len(told) == 1
    same_optimum(model, plain)


class Closed:
    """A client of Dask that has lost its scheduler."""

    def nthreads(self, *_, **__):
        raise OSError("the scheduler has gone")

    submit = scatter = nthreads


class Closing(Closed):
    """A client that takes jobs, but has no workers that it tells of, and sends them no bytes."""

    def submit(self, *_, **__):
        return Done(Unseen())


@pytest.mark.parametrize("client", [Closed, Closing])
def test_a_cluster_that_has_gone_costs_one_warning(client):
    pool = Inline()
    pool._client = client()
    with pytest.warns(UserWarning, match=r"The executor lost 2 of 2 .*scheduler has gone") as told:
        model = fit(executor=fastglm.Workers(pool, n_workers=2, n_threads=1))
    assert len(told) == 1
    same_bits(model, fit(executor=inline()))


class Deadly(Counted):
    """A loader that kills the process of a worker in the middle of a pass, once."""

    def __init__(self, chunks, path):
        super().__init__(chunks)
        self.path, self.home = path, os.getpid()

    def __getitem__(self, k):
        chunk = super().__getitem__(k)
        if os.getpid() != self.home and self.n_read > 12 and not self.path.exists():
            self.path.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return chunk


@needs_kill
def test_the_others_do_what_a_killed_worker_of_dask_has_left(dask, tmp_path):
    before = pids(dask)
    model = fit(Deadly(CHUNKS, tmp_path / "killed"), executor=dask)
    assert (tmp_path / "killed").exists()
    assert len(before - pids(dask)) == 1
    same_bits(model, fit(executor=inline()))


@needs_kill
def test_this_process_does_what_a_broken_pool_has_left(tmp_path):
    pool = pytest.importorskip("loky").ProcessPoolExecutor(1)
    loader = Deadly(CHUNKS, tmp_path / "killed")
    with pytest.warns(UserWarning, match=r"The executor lost \d of 2 tasks \(.*") as told:
        model = fit(loader, executor=fastglm.Workers(pool, n_workers=2))
    assert len(told) == 1
    assert (tmp_path / "killed").exists()
    same_bits(model, fit(executor=inline()))
    pool.shutdown()


class Changing(Counted):
    """A loader whose copy in a worker gives other counts."""

    def __setstate__(self, state):
        self.chunks = [(X[:700], COUNTS[:700])] * 5


def test_an_error_of_the_loader_is_the_users():
    with pytest.raises(ValueError, match=r"Chunk 1 .* is not the one of its first pass"):
        fit(Changing(CHUNKS), executor=inline())


class Locked(Counted):
    def __init__(self, chunks):
        super().__init__(chunks)
        self.lock = threading.Lock()


def test_loaders_that_cannot_be_pickled_are_refused_where_workers_are_processes(threads, plain):
    Counted.n_read = 0
    with pytest.raises(TypeError, match=r"cannot be pickled .*lock.*other processes, which need"):
        fit(Locked(CHUNKS), executor=inline())
    assert Counted.n_read == 0
    same_optimum(fit(Locked(CHUNKS), executor=threads), plain)


def test_what_cannot_submit_is_refused():
    with pytest.raises(ValueError, match=r"executor is 5; expected an object with submit\(\)"):
        fit(executor=5)


class Interrupted(Inline):
    def submit(self, function, *arguments):
        if len(self.calls) == 12:
            raise KeyboardInterrupt
        return super().submit(function, *arguments)


def test_an_interrupt_leaves_nothing_behind(tmp_path):
    model, workers = (
        fastglm.PopulationGLM(**WIDE),
        fastglm.Workers(Interrupted(), 2, folder=tmp_path),
    )
    with pytest.raises(KeyboardInterrupt, match="interrupted with 0 of 4"):
        model.stochastic_fit(CHUNKS, executor=workers)
    assert (model.status_ == "interrupted").all()
    assert list(tmp_path.iterdir()) == []
