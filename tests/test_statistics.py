"""X'Y and X'X from pairs of events against sums over rows, with every kind of edge."""

import naive
import numpy as np
import pytest
import scipy.sparse

import fastglm
from fastglm._products import history as products
from fastglm._products import sums as statistics
from fastglm.basis import HistoryConv, RaisedCosineLogConv
from fastglm.features import Events, FeatureMatrix, HistoryColumns, hstack

N_BINS = 260


def some_counts(seed=0, n_cells=4, rate=0.15):
    counts = np.random.default_rng(seed).poisson(rate, (N_BINS, n_cells))
    counts[::7, 1] = 3
    counts[[0, -1], 2] = 2  # events at both ends
    return counts


def assert_statistics(X, y):
    """Both statistics equal the sums over the rows that are valid."""
    rows = np.asarray(X)[X.valid]
    expected = naive.gradient(rows, rows)
    size = 1e-12 * max(abs(expected).max(), 1)
    gram = statistics.gram(X, X.valid)
    np.testing.assert_allclose(gram, expected, rtol=0, atol=size)
    np.testing.assert_allclose(gram, gram.T, rtol=1e-14, atol=1e-3 * size)
    moments = statistics.moments(X, X.valid, Events.of(y))
    known = y[X.valid]
    np.testing.assert_allclose(moments.xty, naive.gradient(rows, known), rtol=0, atol=size)
    np.testing.assert_allclose(moments.x, rows.sum(axis=0), rtol=0, atol=size)
    np.testing.assert_allclose(moments.sum_y, known.sum(axis=0))


@pytest.mark.parametrize("causality", ["causal", "anti-causal", "acausal"])
@pytest.mark.parametrize(
    "epochs",
    [
        None,
        [[0, 100], [100, 260]],
        [[3, 90], [95, 100], [120, 258]],  # one shorter than the window, bins outside
        [[k, k + 25] for k in range(0, 250, 25)],  # more bins at the edges than inside
    ],
)
@pytest.mark.filterwarnings("ignore:1 of 3 epochs are shorter")
def test_statistics_equal_sums_over_rows(epochs, causality):
    counts = some_counts()
    basis = RaisedCosineLogConv(3, window_size=20, conv_kwargs={"predictor_causality": causality})
    y = np.random.default_rng(1).poisson(0.3, (N_BINS, 5))
    assert_statistics(basis.compute_features(counts, epochs=epochs), y)


def test_blocks_of_several_kernels_and_dense_columns():
    counts = some_counts()
    stimulus = np.random.default_rng(2).normal(size=(N_BINS, 2))
    stimulus[100] = np.nan
    X = hstack(
        [
            RaisedCosineLogConv(3, window_size=20).compute_features(counts),
            stimulus,
            HistoryConv(7).compute_features(counts[:, :2]),
        ]
    )
    assert_statistics(X, counts[:, :3])


def test_counts_that_are_not_known_leave_the_sums():
    counts = some_counts().astype(float)
    counts[[40, 41, 200], [0, 3, 1]] = np.nan
    X = HistoryConv(6).compute_features(counts)
    y = np.where(np.isnan(counts), 0, counts)
    assert_statistics(X, y)


def test_amplitudes_of_either_sign():
    rng = np.random.default_rng(3)
    counts = rng.normal(size=(N_BINS, 3)) * (rng.random((N_BINS, 3)) < 0.3)
    X = FeatureMatrix([HistoryColumns(counts, rng.normal(size=(9, 2)))])
    assert_statistics(X, counts)


def test_no_events():
    X = HistoryConv(4).compute_features(np.zeros((30, 2)))
    assert_statistics(X, np.zeros((30, 2)))


def test_tables_that_are_built_in_parts(monkeypatch):
    X = RaisedCosineLogConv(3, window_size=20).compute_features(some_counts())
    whole = statistics.gram(X, X.valid)
    monkeypatch.setattr(products, "_TABLE_BYTES", 1)
    monkeypatch.setattr(statistics, "_ROWS", 7)
    np.testing.assert_allclose(statistics.gram(X, X.valid), whole, rtol=1e-12)


# --- events -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [np.asarray, *(getattr(scipy.sparse, f"{k}_array") for k in ("csr", "csc", "coo", "lil"))],
)
def test_events_of_dense_and_sparse_counts(make):
    counts = some_counts()
    events = Events.of(make(counts))
    assert (events.n_bins, events.n_units) == counts.shape
    assert (np.diff(events.bins) >= 0).all()
    table = np.zeros(counts.shape)
    table[events.bins, events.units] = events.amplitudes
    np.testing.assert_array_equal(table, counts)


def test_sparse_counts_with_entries_given_twice_add_up():
    twice = scipy.sparse.coo_array(([1, 2, 5], ([3, 3, 4], [0, 0, 1])), shape=(6, 2))
    np.testing.assert_array_equal(Events.of(twice).rows(np.arange(6)), twice.toarray())


@pytest.mark.parametrize("index", [np.arange(N_BINS), np.arange(5, 9), np.array([0, 7, 8, 259])])
def test_rows_of_events_are_rows_of_the_table(index):
    counts = some_counts()
    np.testing.assert_array_equal(Events.of(counts).rows(index), counts[index])


def test_rows_of_no_bins():
    assert Events.of(some_counts()).rows(np.arange(0)).shape == (0, 4)


def test_sparse_counts_give_the_same_fit_and_score():
    counts = some_counts()
    args = {"regularizer": "Ridge", "regularizer_strength": 1e-3}
    results = []
    for y in (counts, scipy.sparse.csr_array(counts)):
        X = RaisedCosineLogConv(3, window_size=20).compute_features(y)
        model = fastglm.PopulationGLM(**args).fit(X, y)
        results.append((model.coef_, model.score(X, y), model.predict(X)))
    for dense, sparse in zip(*results, strict=True):
        np.testing.assert_array_equal(dense, sparse)
