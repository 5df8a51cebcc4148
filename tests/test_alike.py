"""Rows of exact Hessians that stand for many bins: the sums are those of all bins."""

import numpy as np
import pytest

import fastglm
from fastglm._algebra.space import find_space
from fastglm._engine.observed import Observed
from fastglm._engine.rows import Rows
from fastglm._inputs import as_feature_matrix
from fastglm._products.alike import alike
from fastglm._products.local import Local
from fastglm.basis import HistoryConv, RaisedCosineLogConv
from fastglm.features import Events, hstack
from fastglm.observation_models import as_observation_model

pytestmark = pytest.mark.filterwarnings("ignore:separated")
N = 8000
POISSON = as_observation_model("Poisson").loss("exp")


def sparse_counts(n_cells=3, rate=0.004, seed=0, n_bins=N):
    rng = np.random.default_rng(seed)
    counts = (rng.random((n_bins, n_cells)) < rate).astype(float)
    counts[rng.integers(n_bins, size=5), 0] = 2  # an event of another size
    return counts


def matrices():
    counts, other = sparse_counts(), sparse_counts(2, seed=1)
    one = RaisedCosineLogConv(3, 12)
    return {
        "one history": one.compute_features(counts),
        "raw lags": HistoryConv(6).compute_features(counts),
        "two histories": hstack(
            [one.compute_features(counts), HistoryConv(4).compute_features(other)]
        ),
        "epochs": one.compute_features(counts, epochs=[[0, 3000], [3005, 7500]]),
        "anti-causal": RaisedCosineLogConv(
            3, 12, conv_kwargs={"predictor_causality": "anti-causal"}
        ).compute_features(counts),
        "some senders": one.compute_features(counts)[:, 3:],
    }


@pytest.mark.parametrize("name", matrices())
def test_bins_of_a_group_have_the_same_row(name):
    X = matrices()[name]
    products, rows = Local(X), np.asarray(X)
    index = np.flatnonzero(products.valid)
    found = alike(products, index)
    assert found.first.size < 0.5 * index.size
    assert (np.diff(found.first) > 0).all()
    np.testing.assert_array_equal(rows[index], rows[index[found.first]][found.of[index]])
    np.testing.assert_array_equal(np.bincount(found.of[index]), found.times)
    assert (found.of[np.setdiff1d(np.arange(N), index)] == -1).all()
    # Rows with one event or none are told apart only where they differ.
    seldom = found.times[np.count_nonzero(rows[index[found.first]], axis=1) == 0]
    assert seldom.max() > 0.5 * index.size or name == "two histories"


def test_rows_that_are_worth_nothing_stay():
    X = RaisedCosineLogConv(3, 12).compute_features(sparse_counts(rate=0.2))
    assert alike(Local(X), np.flatnonzero(X.valid)) is None
    few = RaisedCosineLogConv(3, 12).compute_features(sparse_counts(n_bins=4000))
    assert alike(Local(few), np.flatnonzero(few.valid)) is None
    dense = as_feature_matrix(np.zeros((N, 2)))
    assert alike(Local(dense), np.arange(N)) is None
    sizes = sparse_counts() * np.random.default_rng(2).random((N, 3))  # each event has its own
    X = HistoryConv(40).compute_features(sizes)
    assert alike(Local(X), np.flatnonzero(X.valid)) is None


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_sums_over_rows_are_those_over_bins(shift):
    """Moments and sizes, also where columns are centred."""
    X = RaisedCosineLogConv(3, 12).compute_features(sparse_counts())
    products, y = Local(X), Observed(Events.of(sparse_counts(4, 0.05, 3)))
    plain, short = Rows(products, y), Rows(products, y, POISSON)
    for rows in (plain, short) if shift else ():
        rows.shift[:] = 1e5
        rows._kept = None
        rows._centre(np.arange(9), np.full(9, 1e5))
    assert sum(len(block.rows) for block in short) < 0.5 * sum(len(block.rows) for block in plain)
    assert short.n_bins == plain.n_bins
    np.testing.assert_allclose(short.size, plain.size, rtol=1e-12)
    for one, other in zip(short.moments, plain.moments, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-9)
    some = np.array([1, 3])
    for one, other in zip(short.select(some), plain.select(some), strict=False):
        assert one.counts.shape[0] == other.counts.shape[0] == 2
    total = sum(block.counts @ block.times for block in short.select(some))
    np.testing.assert_allclose(total, y.sums(products)[some])


@pytest.mark.parametrize("regularizer", ["UnRegularized", "Ridge", "Lasso"])
def test_the_fit_is_that_of_all_bins(monkeypatch, regularizer):
    counts = sparse_counts(4, 0.01)
    X = RaisedCosineLogConv(3, 12).compute_features(counts)
    strength = None if regularizer == "UnRegularized" else 1e-4

    def fitted(receivers=slice(None)):
        return fastglm.PopulationGLM(
            regularizer=regularizer, regularizer_strength=strength, solver_name="newton-cholesky"
        ).fit(X, counts[:, receivers])

    short = fitted()
    few = fitted(slice(1, 3))
    np.testing.assert_array_equal(few.coef_, short.coef_[:, 1:3])  # whatever the others are
    monkeypatch.setattr("fastglm._engine.rows.alike", lambda *given: None)
    plain = fitted()
    np.testing.assert_array_equal(short.status_, plain.status_)
    np.testing.assert_allclose(
        short.solver_result_.objective, plain.solver_result_.objective, rtol=1e-12
    )
    finite = plain.status_ == "converged"
    np.testing.assert_allclose(short.coef_[:, finite], plain.coef_[:, finite], atol=1e-7)
    assert (short.newton_decrement_ < 1e-12).all()


@pytest.mark.parametrize("collinear", [False, True])
def test_separated_receivers_have_the_gap_of_all_bins(monkeypatch, collinear):
    """Spaces of collinear features and gaps at infinity weigh each row by its bins."""
    counts = sparse_counts(3, 0.003, seed=5)
    X = RaisedCosineLogConv(3, 12).compute_features(counts)
    if collinear:
        X = hstack([X, HistoryConv(12).compute_features(counts[:, :1])])

    def fitted():
        return fastglm.PopulationGLM(
            solver_name="newton-cholesky", solver_kwargs={"tol": 1e-8}
        ).fit(X, counts)

    short = fitted()
    monkeypatch.setattr("fastglm._engine.rows.alike", lambda *given: None)
    plain = fitted()
    assert "separated" in plain.status_
    np.testing.assert_array_equal(short.status_, plain.status_)
    np.testing.assert_allclose(
        short.solver_result_.objective, plain.solver_result_.objective, atol=3e-8
    )


def test_a_space_of_rows_is_that_of_the_bins_they_stand_for():
    rng = np.random.default_rng(4)
    rows, times = rng.normal(size=(12, 4)) + 3, rng.integers(1, 400, 12)
    rows[:, 3] = rows[:, 0] + 1e-6 * rows[:, 2]
    size, pull = np.sqrt((rows**2).mean(axis=0)), np.zeros((4, 4))
    short = find_space(lambda: [(rows, times.astype(float))], size, pull)
    plain = find_space(lambda: [(np.repeat(rows, times, axis=0), None)], size, pull)
    np.testing.assert_allclose(short.mean, plain.mean, rtol=1e-13)
    assert short.smallest == pytest.approx(plain.smallest, rel=1e-6)
    one, other = (np.abs(space.of(rows)) for space in (short, plain))
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_other_fits_take_every_bin():
    """Weights, offsets, counts that are not linear in the loss, and tables of numbers."""
    X = RaisedCosineLogConv(3, 12).compute_features(sparse_counts())
    products, y = Local(X), Events.of(sparse_counts(2, seed=3))
    softplus = as_observation_model("Poisson").loss("softplus")
    logistic = as_observation_model("Bernoulli").loss()
    for observed, loss in (
        (Observed(y, weight=np.ones(N)), POISSON),
        (Observed(y, offset=np.ones((N, 1))), POISSON),
        (Observed(y), softplus),
        (Observed(y), logistic),
        (Observed(y), None),
    ):
        rows = Rows(products, observed, loss)
        assert sum(len(block.rows) for block in rows) == products.n_bins
        assert all(block.times is None for block in rows)
