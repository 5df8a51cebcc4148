"""The same call gives the same bits: beside other work, from several threads, and resumed."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import fastglm
from fastglm._batches import cost
from fastglm._batches import fit as engine
from fastglm._engine.observed import Observed
from fastglm._kernels.threads import single_threaded_blas
from fastglm._products.local import Local
from fastglm.basis import RaisedCosineLogConv
from fastglm.features import hstack
from fastglm.features.events import Events

pytestmark = pytest.mark.slow  # fits of 20 receivers


def problem(n_cells=20, n_bins=3000, rate=0.1):
    counts = np.random.default_rng(0).poisson(rate, (n_bins, n_cells))
    return RaisedCosineLogConv(3, window_size=20).compute_features(counts), counts


def model(**kwargs):
    args = {"regularizer": "Ridge", "regularizer_strength": 1e-3, "solver_name": "newton-cg"}
    return fastglm.PopulationGLM(**{**args, **kwargs})


def assert_same_bits(a, b, receivers=slice(None)):
    for name in ("coef_", "intercept_", "objective_", "newton_decrement_", "n_passes_"):
        one, two = (getattr(fit, name)[..., receivers] for fit in (a, b))
        np.testing.assert_array_equal(one, two, err_msg=name)


def own_masks(n_cells, part=0.3):
    senders = np.random.default_rng(1).random((n_cells, n_cells)) < part
    return np.repeat(senders, 3, axis=0)


def one_mask(n_cells):
    return np.repeat(np.arange(n_cells) < 4, 3)[:, None].repeat(n_cells, axis=1)


@pytest.mark.parametrize("speed", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("slow", ["events", "rows", "hessian"])
def test_a_measured_rate_changes_no_batch(monkeypatch, slow, speed):
    """Whatever a stopwatch says: only the time that a plan shows depends on it."""
    X, counts = problem(rate=1.0)
    typical = vars(cost.TYPICAL)
    known = model(solver_name="auto").plan(X, counts)
    monkeypatch.setattr(cost, "_SMALL_WORK", 0)
    rates = cost.Rates(**{**typical, slow: speed * typical[slow]})
    monkeypatch.setattr("fastglm.glm.measure_rates", lambda: rates)
    found = model(solver_name="auto").plan(X, counts)
    assert found.rates is rates
    assert len(found.batches) == len(known.batches)
    for a, b in zip(found.batches, known.batches, strict=True):
        np.testing.assert_array_equal(a.receivers, b.receivers)
        assert (a.method, a.products, a.lanes, a.bytes) == (b.method, b.products, b.lanes, b.bytes)


def test_a_fit_asks_no_stopwatch(monkeypatch):
    X, counts = problem()
    monkeypatch.setattr(cost, "_SMALL_WORK", 0)
    monkeypatch.setattr(cost, "_best_time", None)  # a call would fail
    cost.measure_rates.cache_clear()
    assert model().fit(X, counts).converged_.all()


@pytest.mark.parametrize("masks", [None, own_masks(14)], ids=["all to all", "own masks"])
def test_fits_from_several_threads(masks):
    X, counts = problem(14)
    alone = model(feature_mask=masks).fit(X, counts)
    with ThreadPoolExecutor(2) as pool:
        fits = [pool.submit(model(feature_mask=masks).fit, X, counts) for _ in range(3)]
        for fit in fits:
            assert_same_bits(fit.result(), alone)


def test_a_fit_that_ends_leaves_blas_to_the_others():
    def n_threads():
        return {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"}

    with threadpool_limits(2, user_api="blas"):
        assert n_threads() == {2}
        first, second = single_threaded_blas(), single_threaded_blas()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert n_threads() == {1}
        second.__exit__(None, None, None)
        assert n_threads() == {2}


def test_blas_has_one_thread_until_the_last_fit_ends():
    before = [lib["num_threads"] for lib in threadpool_info()]
    begun, done = threading.Event(), threading.Event()

    def other():
        with single_threaded_blas():
            begun.set()
            done.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    begun.wait(10)
    X, counts = problem(6)
    model().fit(X, counts)
    assert {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"} == {1}
    done.set()
    thread.join()
    assert [lib["num_threads"] for lib in threadpool_info()] == before


def test_threads_change_no_bit():
    X, counts = problem(14)
    fits = []
    for n_threads in (1, numba.config.NUMBA_NUM_THREADS):
        numba.set_num_threads(n_threads)
        fits.append(model(feature_mask=own_masks(14)).fit(X, counts))
    assert_same_bits(*fits)


def interrupt_after(monkeypatch, n_batches):
    """Press Ctrl-C between two batches."""
    fit_task, begun = engine.fit_task, []

    def interrupted(*args):
        begun.append(1)
        if len(begun) > n_batches:
            raise KeyboardInterrupt
        return fit_task(*args)

    monkeypatch.setattr(engine, "fit_task", interrupted)


@pytest.mark.parametrize(
    ("mask", "budget", "n_done"),
    [
        (None, "58MB", 16),  # two batches
        (one_mask(18), "54MB", 16),  # the second batch has two receivers, too few for a tile
        (own_masks(18), "1GB", 15),  # the sums of all features serve 18 receivers, and would not 3
    ],
    ids=["batches", "one mask", "own masks"],
)
def test_a_fit_goes_on_with_the_bits_of_one_that_was_not_interrupted(
    monkeypatch, tmp_path, mask, budget, n_done
):
    X, counts = problem(18)
    numba.set_num_threads(1)  # own masks in turn
    try:
        args = {"feature_mask": mask, "memory_budget": budget}
        plan = model(**args).plan(X, counts)
        sizes = np.cumsum([batch.receivers.size for batch in plan.batches])
        n_batches = int(np.flatnonzero(sizes == n_done)[0]) + 1
        assert n_batches < len(plan.batches)
        whole, path = model(**args).fit(X, counts), tmp_path / "fit.checkpoint"
        with monkeypatch.context() as patch:
            interrupt_after(patch, n_batches)
            with pytest.raises(KeyboardInterrupt, match=f"{n_done} of 18 receivers finished"):
                model(**args).fit(X, counts, checkpoint=path)
        again = model(**args).fit(X, counts, checkpoint=path)
    finally:
        numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    assert_same_bits(again, whole)


@pytest.mark.parametrize("masks", [None, own_masks(14), one_mask(14)])
def test_a_receiver_alone_has_the_objective_that_it_has_in_company(masks):
    X, counts = problem(14)
    company = model(feature_mask=masks).fit(X, counts)
    for j in (0, 7):
        mask = None if masks is None else masks[:, [j]]
        alone = model(feature_mask=mask).fit(X, counts[:, [j]])
        np.testing.assert_allclose(alone.objective_[0], company.objective_[j], rtol=1e-13)
        assert alone.status_[0] == company.status_[j]
        if masks is None:  # the batches are the same
            np.testing.assert_array_equal(alone.coef_[:, 0], company.coef_[:, j])


def test_sums_of_a_receiver_do_not_depend_on_the_others(monkeypatch):
    """Of history, and of columns whose rows are built at the events, some at a time."""
    monkeypatch.setattr("fastglm._products.rows._EVENTS", 100)
    X, counts = problem(14)
    products = Local(hstack([X, np.random.default_rng(1).normal(size=(len(counts), 12))]))
    known = products.moments(Observed(Events.of(counts)))
    for some in ([0], [9], [3, 4, 12], [13]):
        found = products.moments(Observed(Events.of(counts[:, some])))
        np.testing.assert_array_equal(found.xty, known.xty[:, some])


def test_exact_hessians_take_over_whoever_else_is_in_the_batch(monkeypatch):
    """A receiver without a ridge gets them after some steps; one with a ridge does not."""
    monkeypatch.setattr("fastglm._engine.batch._PATIENCE", 2)
    X, counts = problem(6)
    company = model(regularizer_strength=[1e-4, 0.0, 0.0, 0.0, 0.0, 1e-4]).fit(X, counts)
    methods = ["newton-cg", *4 * ["newton-cholesky"], "newton-cg"]
    np.testing.assert_array_equal(company.solver_result_.method, methods)
    for j in (0, 5):
        alone = model(regularizer_strength=1e-4).fit(X, counts[:, [j]])
        assert alone.n_iter_[0] > 2
        np.testing.assert_array_equal(alone.coef_[:, 0], company.coef_[:, j])
