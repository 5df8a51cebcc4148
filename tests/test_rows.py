"""Rows and columns of a feature matrix: selections keep the events, fits see only their bins."""

import pickle
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastglm
from fastglm._inputs import cut
from fastglm.basis import BSplineEval, HistoryConv, IdentityEval, RaisedCosineLinearConv
from fastglm.features import DenseColumns, Events, FeatureMatrix, as_feature_matrix, hold, hstack
from fastglm.features.ranges import ranges_of
from fastglm.model_selection import cross_validate, split
from fastglm.recordings.covariates import read_covariates

TIGHT = {"tol": 1e-21}
N_BINS = 3000


def make_model(solver_name="newton-cg", **kwargs):
    return fastglm.PopulationGLM(
        regularizer="Ridge",
        regularizer_strength=1e-3,
        solver_name=solver_name,
        solver_kwargs=TIGHT,
        **kwargs,
    )


def make_counts(n_bins=N_BINS, n_cells=3, seed=0):
    return np.random.default_rng(seed).poisson(0.2, (n_bins, n_cells)).astype(float)


def make_matrix(counts, gaps=True):
    """Every kind of block: histories, stored, slow and products, over epochs."""
    n_bins, n_cells = counts.shape
    rng = np.random.default_rng(1)
    epochs = [(0, n_bins // 3), (n_bins // 3 + 2, n_bins)] if gaps else None
    history = RaisedCosineLinearConv(3, 8, label="history")
    future = HistoryConv(2, conv_kwargs={"predictor_causality": "anti-causal"}, label="future")
    gain = RaisedCosineLinearConv(2, 5) * IdentityEval()
    speed = hold(rng.random(-(-n_bins // 10)), n_bins, every=10)
    return np.hstack(
        [
            history.compute_features(counts, epochs=epochs),
            BSplineEval(5, label="place").compute_features(rng.random((n_bins, 2))),
            BSplineEval(4, label="speed").compute_features(speed),
            gain.compute_features(counts, rng.random((n_bins, n_cells)), epochs=epochs),
            future.compute_features(counts[:, :1]),
        ]
    )


@pytest.fixture(scope="module")
def data():
    """A matrix of every kind of block, its array, and counts."""
    counts = make_counts()
    counts[[700, 2400], [1, 2]] = np.nan
    X = make_matrix(counts)
    return X, np.asarray(X), make_counts(seed=2)


def some_rows(name):
    mask = np.zeros(N_BINS, bool)
    mask[100:400] = mask[404:690] = mask[1003:1100] = mask[1900:2350] = mask[2500:2999] = True
    random = np.random.default_rng(3).random(N_BINS) < 0.5
    return {
        "half": slice(N_BINS // 2, None),
        "first half": slice(N_BINS // 2),
        "stretches": mask,
        "scattered": random,
        "numbers": np.flatnonzero(mask),
        "every third": slice(1, None, 3),
    }[name]


ROWS = ["half", "first half", "stretches", "scattered", "numbers", "every third"]


@pytest.mark.parametrize("rows", ROWS)
def test_selected_rows_are_those_of_the_array(data, rows):
    X, array, _ = data
    rows = some_rows(rows)
    part = X[rows]
    assert isinstance(part, FeatureMatrix)
    assert all(a is b for a, b in zip(part.blocks, X.blocks, strict=True))
    np.testing.assert_array_equal(np.asarray(part), array[rows])
    np.testing.assert_array_equal(part.valid, np.isfinite(array[rows]).all(axis=1))
    again = part[::2][5:]
    np.testing.assert_array_equal(np.asarray(again), array[rows][::2][5:])
    np.testing.assert_array_equal(np.asarray(pickle.loads(pickle.dumps(again))), np.asarray(again))
    index = np.flatnonzero(part.valid)[:7]
    np.testing.assert_array_equal(part.rows(index), array[rows][index])


@pytest.mark.parametrize("rows", ROWS)
def test_a_fit_to_selected_rows_is_that_to_the_stored_rows(data, rows):
    X, array, y = data
    rows = some_rows(rows)
    weight = np.random.default_rng(4).random(len(array[rows]))
    offset = np.random.default_rng(5).normal(size=len(array[rows]))
    kwargs = {"sample_weight": weight, "offset": offset}
    model = make_model().fit(X[rows], y[rows], **kwargs)
    stored = make_model().fit(array[rows], y[rows], **kwargs)
    np.testing.assert_allclose(model.coef_, stored.coef_, rtol=0, atol=1e-9)
    np.testing.assert_allclose(model.intercept_, stored.intercept_, rtol=0, atol=1e-9)
    for one, other in (
        (model.predict(X[rows], offset), stored.predict(array[rows], offset)),
        (
            model.residuals(X[rows], y[rows], "pearson", offset),
            stored.residuals(array[rows], y[rows], "pearson", offset),
        ),
        (
            model.standard_errors(X[rows], y[rows], **kwargs),
            stored.standard_errors(array[rows], y[rows], **kwargs),
        ),
    ):
        np.testing.assert_allclose(one, other, rtol=1e-7)
    assert model.score(X[rows], y[rows], **kwargs) == pytest.approx(
        stored.score(array[rows], y[rows], **kwargs), rel=1e-10
    )
    drawn, rates = model.simulate(0, X[rows], offset=offset)
    assert drawn.shape == rates.shape == y[rows].shape


@pytest.mark.parametrize("family", ["Poisson", "Gaussian"])
@pytest.mark.parametrize("solver", ["newton-cg", "newton-cholesky"])
def test_every_solver_sees_the_bins_of_the_rows(family, solver):
    counts = make_counts(12_000, 6, seed=6)
    X, y = RaisedCosineLinearConv(4, 30).compute_features(counts), make_counts(12_000, 2, seed=7)
    rows = np.r_[500:3000, 4000:4600, 9000:12_000]
    model = make_model(observation_model=family, solver_name=solver)
    stored = make_model(observation_model=family, solver_name=solver)
    model.fit(X[rows], y[rows])
    stored.fit(np.asarray(X)[rows], y[rows])
    np.testing.assert_allclose(model.coef_, stored.coef_, rtol=0, atol=1e-9)
    np.testing.assert_allclose(model.scale_, stored.scale_, rtol=1e-10)


def test_the_history_of_the_first_row_reaches_over_the_cut():
    counts = make_counts()
    late = HistoryConv(4).compute_features(counts)[1000:]
    assert late.valid.all()
    np.testing.assert_array_equal(late[0], counts[996:1000][::-1].T.ravel())


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(st.data())
def test_a_cut_matrix_has_the_same_rows_whatever_is_selected(data):
    n_bins = data.draw(st.integers(2, 90))
    counts = np.random.default_rng(data.draw(st.integers(0, 99))).poisson(0.4, (n_bins, 2)) * 1.0
    for t in data.draw(st.lists(st.integers(0, n_bins - 1), max_size=2)):
        counts[t, t % 2] = np.nan
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[0-9]+ of [0-9]+ epochs are shorter")
        X = make_matrix(counts, gaps=n_bins > 30)
    array = np.asarray(X)
    cuts = sorted(data.draw(st.sets(st.integers(0, n_bins), min_size=2, max_size=6)))
    keep = np.zeros(n_bins, bool)
    for first, stop in zip(cuts[::2], cuts[1::2], strict=False):
        keep[first:stop] = True
    part = X[keep]
    np.testing.assert_array_equal(np.asarray(part), array[keep])
    matrix, places = part.cut()
    places = np.arange(len(part)) if places is None else places
    np.testing.assert_array_equal(np.asarray(matrix)[places], array[keep])
    assert matrix.bins is None
    assert int(matrix.valid.sum()) == int(np.isfinite(array[keep]).all(axis=1).sum())
    assert matrix.shape[0] <= n_bins
    columns = data.draw(st.lists(st.integers(0, X.shape[1] - 1), min_size=1, max_size=12))
    chosen = part[:, columns]
    assert isinstance(chosen, FeatureMatrix)
    np.testing.assert_array_equal(np.asarray(chosen), array[keep][:, columns])
    np.testing.assert_array_equal(chosen.valid, np.isfinite(array[keep][:, columns]).all(axis=1))


def test_long_gaps_are_left_out_of_a_fit():
    bins = np.r_[0:10, 15:20, 100:120, 400:401]
    np.testing.assert_array_equal(ranges_of(bins, 5), [[0, 20], [95, 120], [395, 401]])
    X = HistoryConv(5).compute_features(make_counts(1000))[bins]
    matrix, places = X.cut()
    assert matrix.shape[0] == 51
    np.testing.assert_array_equal(places, np.r_[0:10, 15:20, 25:45, 50:51])
    assert matrix.blocks[0].n_events < X.blocks[0].n_events / 10


# --- columns ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "columns",
    [
        slice(0, 3),
        slice(None, None, 3),
        [0, 1, 2, 6, 7, 8],
        [4, 2, 2],
        slice(9, 19),
        [11, 10, 30, 0],
        slice(23, 29),
        [28, 24, 23],
        np.arange(31) % 2 == 0,
        slice(None, None, -1),
    ],
    ids=str,
)
def test_selected_columns_are_not_stored(data, columns):
    X, array, y = data
    assert X.shape[1] == 31
    part = X[:, columns]
    assert isinstance(part, FeatureMatrix)
    np.testing.assert_array_equal(np.asarray(part), array[:, columns])
    np.testing.assert_array_equal(part.valid, np.isfinite(array[:, columns]).all(axis=1))
    model, stored = make_model().fit(part, y), make_model().fit(array[:, columns], y)
    np.testing.assert_allclose(model.predict(part), stored.predict(part), rtol=1e-8)


def test_selected_columns_keep_labels_and_filters():
    X = RaisedCosineLinearConv(3, 8, label="history").compute_features(make_counts())
    part = X[:, 3:]
    assert len(part.blocks) == 1
    assert part.labels == ["history"]
    np.testing.assert_array_equal(part.filters, [0, 0, 0, 1, 1, 1])
    one = X[:, ::3]  # the first function of every sender
    assert len(one.blocks) == 1
    assert one.blocks[0].kernel.shape == (8, 1)
    np.testing.assert_array_equal(one.filters, [0, 1, 2])


def test_no_columns_are_an_empty_array(data):
    assert data[0][:, []].shape == (N_BINS, 0)


# --- what is made of selected rows --------------------------------------------------------------


@pytest.mark.parametrize("rows", ["half", "stretches"])
def test_selected_rows_stand_beside_arrays(data, rows):
    X, array, y = data
    rows = some_rows(rows)
    stimulus = np.random.default_rng(8).normal(size=(len(array[rows]), 2))
    both = np.hstack([X[rows], stimulus, X[rows][:, :3]])
    assert isinstance(both, FeatureMatrix)
    expected = np.hstack([array[rows], stimulus, array[rows][:, :3]])
    np.testing.assert_array_equal(np.asarray(both), expected)
    model, stored = make_model().fit(both, y[rows]), make_model().fit(expected, y[rows])
    np.testing.assert_allclose(model.predict(both), stored.predict(expected), rtol=1e-8)
    mixed = hstack([as_feature_matrix(stimulus), X[rows]])
    np.testing.assert_array_equal(np.asarray(mixed), np.hstack([stimulus, array[rows]]))


def test_other_rows_stand_beside_each_other_by_their_numbers(data):
    X = data[0]
    one, other = X[some_rows("stretches")], X[: int(some_rows("stretches").sum())]
    both = np.hstack([one, other])
    np.testing.assert_array_equal(np.asarray(both), np.hstack([np.asarray(one), np.asarray(other)]))


@pytest.mark.parametrize("form", ["of every row", "pairs"])
def test_folds_are_of_the_selected_rows(form):
    bins = np.r_[3:40, 60:64, 66:110]
    X = HistoryConv(5).compute_features(make_counts(120))
    folds = np.arange(bins.size) // 10 % 3
    matrix, places = X[bins].cut()
    given = folds if form == "of every row" else [(folds != f, folds == f) for f in range(3)]
    for f, (train, test) in enumerate(split(matrix, given, places=places)):
        for part, own, other in ((train, folds != f, folds == f), (test, folds == f, folds != f)):
            expected = [
                bool(mine) and t >= 5 and not np.isin(bins[other], np.arange(t - 5, t)).any()
                for t, mine in zip(bins, own, strict=True)
            ]
            np.testing.assert_array_equal(part[places], expected)
            assert part.sum() == sum(expected)


def test_cross_validation_scores_the_selected_rows(data):
    X, _, y = data
    rows = some_rows("stretches")
    found = cross_validate(make_model(), X[rows], y[rows], [1e-3, 1e-1], folds=3)
    assert found.scores.shape == (2, 3, 3)
    assert found.model.predict(X[rows]).shape == y[rows].shape
    scores = fastglm.diagnostics.cross_validated(make_model(), X[rows], y[rows], folds=3)
    assert np.isfinite(scores.bits_per_spike).all()
    with pytest.raises(ValueError, match=f"each of the {int(rows.sum())} bins"):
        cross_validate(make_model(), X[rows], y[rows], [1e-3], folds=np.zeros(N_BINS, int))


def test_scikit_learn_slices_without_storing(data):
    sklearn = pytest.importorskip("sklearn.model_selection")
    X, array, y = data
    valid = np.isfinite(array).all(axis=1)
    found = sklearn.cross_val_score(make_model(), X[valid], y[valid], cv=3)
    expected = sklearn.cross_val_score(make_model(), array[valid], y[valid], cv=3)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    shuffled = sklearn.KFold(3, shuffle=True, random_state=0)
    found = sklearn.cross_val_score(make_model(), X[valid], y[valid], cv=shuffled)
    expected = sklearn.cross_val_score(make_model(), array[valid], y[valid], cv=shuffled)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_selected_rows_serve_as_covariates(data):
    X, array, _ = data

    class Bins:
        n_bins, epochs, grid = 1500, np.array([[0, 1500]]), None

    for rows in (slice(1500, None), slice(None, None, 2)):
        given = read_covariates(X[rows], Bins())
        assert given.bins is None
        np.testing.assert_array_equal(np.asarray(given), array[rows])


def test_residual_factors_have_the_selected_rows(data):
    X, _, y = data
    rows = some_rows("stretches")
    factors, _ = fastglm.connectivity.residual_factors(
        make_model().fit(X[rows], y[rows]), X[rows], y[rows], 0.001, n_factors=1
    )
    assert factors.shape == (int(rows.sum()), 3)


@pytest.mark.parametrize("rows", ["half", "stretches", "scattered"])
@pytest.mark.parametrize("causality", ["causal", "anti-causal"])
def test_a_map_of_selected_rows_knows_which_cells_drive_themselves(rows, causality):
    counts, rows = make_counts(), some_rows(rows)
    basis = RaisedCosineLinearConv(2, 5, conv_kwargs={"predictor_causality": causality})
    X = basis.compute_features(counts)[rows]
    for y, itself in ((counts[rows], True), (make_counts(seed=9)[rows], False)):
        found = make_model().fit(X, y).coupling_map(X, y)
        assert np.isnan(np.diag(found.q_value)).all() == itself


def test_products_refuse_a_matrix_that_is_not_cut(data):
    from fastglm._products.local import Local

    with pytest.raises(ValueError, match=r"rows of some bins alone; expected the matrix of X\.cut"):
        Local(data[0][5:])


# --- memory -------------------------------------------------------------------------------------


def peak(function):
    """Bytes that a call allocates at most."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def large():
    counts = (np.random.default_rng(0).random((60_000, 20)) < 0.01).astype(np.int8)
    return counts, RaisedCosineLinearConv(5, 50).compute_features(counts)


def test_a_selection_allocates_a_few_bytes_a_bin_whatever_the_features(large):
    """At 1e6 bins 40 bytes a bin are 40 MB, and 800 features of half of them would be 3.2 GB."""
    _, X = large
    n_bins = X.shape[0]
    mask = np.arange(n_bins) % 20_000 < 10_000
    for select in (lambda: X[n_bins // 2 :], lambda: X[mask], lambda: X[::2]):
        assert peak(select) < 40 * n_bins + 1e5


def test_a_fit_to_half_takes_the_memory_of_a_recording_of_half(large):
    counts, X = large
    half = len(counts) // 2
    alone = RaisedCosineLinearConv(5, 50).compute_features(counts[half:])
    late, y = X[half:], counts[half:, :2]
    make_model().fit(late[:2000], y[:2000])  # compiles
    whole = peak(lambda: make_model().fit(alone, y))
    selected = peak(lambda: make_model().fit(late, y))
    events = 28 * alone.blocks[0].n_events  # of the cut
    assert selected < whole + events + 24 * half
    plans = [make_model().plan(M, y).peak_bytes for M in (alone, late)]
    assert plans[0] == pytest.approx(plans[1], rel=0.01)


def test_reductions_take_a_block_at_a_time(large):
    _, X = large
    assert peak(lambda: np.nanmean(X, axis=0)) < 0.9 * 8 * X.size
    assert peak(lambda: X[100:].max()) < 0.4 * 8 * X.size
    assert peak(lambda: X @ np.ones(X.shape[1])) < 0.4 * 8 * X.size
    assert peak(lambda: np.isnan(X)) < 0.6 * 8 * X.size  # an eighth is the result


def test_a_dense_block_of_one_stretch_is_a_view():
    values = np.random.default_rng(0).random((100, 4))
    (block,) = FeatureMatrix([DenseColumns(values)])[20:60].cut()[0].blocks
    assert np.shares_memory(block.values, values)


def test_counts_weights_and_offsets_stand_at_the_bins_of_their_rows():
    rng, bins = np.random.default_rng(0), np.r_[20:25, 30:40, 90:95]
    X = HistoryConv(4).compute_features(make_counts(100))[bins]
    y, weight, offset = rng.poisson(1.0, (20, 2)), rng.random(20), rng.normal(size=(20, 1))
    matrix, places, (events, *rest) = cut(X, Events.of(y), weight, offset)
    table = events.toarray()
    for found, own in zip((table, *rest), (y, weight, offset), strict=True):
        assert len(found) == matrix.shape[0]
        np.testing.assert_array_equal(found[places], own)
        assert not np.delete(found, places, axis=0).any()
