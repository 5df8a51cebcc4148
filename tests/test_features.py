"""The feature matrix: an array to people, events and kernels in memory."""

import itertools
import warnings

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastglm.basis import HistoryConv, RaisedCosineLinearConv
from fastglm.features import (
    DenseColumns,
    Events,
    FeatureMatrix,
    HistoryColumns,
    as_feature_matrix,
    hstack,
)


def poisson_counts(n_bins=20, n_senders=3, seed=0):
    return np.random.default_rng(seed).poisson(0.7, (n_bins, n_senders)).astype(float)


@pytest.fixture(params=["history", "history with NaN", "history beside dense"])
def pair(request):
    """A feature matrix and the array that it stands for."""
    counts = poisson_counts()
    if request.param == "history with NaN":
        counts[11, 1] = np.nan
    basis = RaisedCosineLinearConv(2, 4)
    X, dense = basis.compute_features(counts), naive.features(counts, basis.kernel_)
    if request.param == "history beside dense":
        stimulus = np.random.default_rng(1).normal(size=(20, 2))
        stimulus[15, 1] = np.nan
        return hstack([X, stimulus]), np.hstack([dense, stimulus])
    return X, dense


# --- an array to people -------------------------------------------------------------------------


def test_attributes_of_an_array(pair):
    X, dense = pair
    assert isinstance(X, FeatureMatrix)
    assert X.shape == dense.shape
    assert X.size == dense.size
    assert X.dtype == np.float64
    assert X.ndim == 2
    assert len(X) == 20


def test_asarray_gives_the_features(pair):
    X, dense = pair
    array = np.asarray(X)
    assert type(array) is np.ndarray
    assert array.dtype == np.float64
    np.testing.assert_allclose(array, dense, rtol=0, atol=1e-12)


def test_asarray_takes_a_dtype(pair):
    X, dense = pair
    assert np.asarray(X, dtype=np.float32).dtype == np.float32
    np.testing.assert_allclose(np.asarray(X, np.float32), dense, rtol=1e-6, atol=1e-6)


def test_an_array_without_a_copy_is_refused(pair):
    with pytest.raises(ValueError, match="keeps no array that could be shared; use copy=None"):
        pair[0].__array__(copy=False)


ODD_ROWS = np.arange(20) % 2 == 1


@pytest.mark.parametrize(
    "key",
    [
        slice(None),
        slice(10, None),
        slice(None, -3),
        slice(5, 15, 3),
        slice(15, 5, -2),
        slice(7, 7),
        3,
        -1,
        np.int64(5),
        [5, 2],
        [5, 2, 5, -1],
        np.array([], int),
        np.array([[4, 5, 6], [11, 12, 4]]),
        ODD_ROWS,
        list(ODD_ROWS),
        ...,
        (slice(None), 2),
        (slice(None), -1),
        (slice(10, None), slice(3, 5)),
        (slice(10, None), [0, 4, 1]),
        (..., 2),
        (7, slice(1, 4)),
        (ODD_ROWS, slice(None, None, 2)),
        (slice(None), np.arange(6) > 3),
    ],
    ids=str,
)
def test_indexing_is_that_of_the_array(pair, key):
    X, dense = pair
    if isinstance(key, tuple) and isinstance(key[1], np.ndarray):
        key = key[0], np.arange(X.shape[1]) > 3
    actual, expected = X[key], dense[key]
    assert isinstance(actual, FeatureMatrix | np.ndarray | np.floating)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)


def test_one_entry(pair):
    X, dense = pair
    assert X[9, 2] == pytest.approx(dense[9, 2], abs=1e-12)


@pytest.mark.parametrize("key", [20, -21, [3, 20]])
def test_rows_beyond_the_last_raise(pair, key):
    with pytest.raises(IndexError, match="out of bounds"):
        pair[0][key]


def test_columns_beyond_the_last_raise(pair):
    with pytest.raises(IndexError, match="out of bounds"):
        pair[0][:, 99]


def test_a_mask_of_another_length_raises(pair):
    with pytest.raises(IndexError, match="boolean index did not match"):
        pair[0][np.ones(19, bool)]


def test_iteration_gives_the_rows(pair):
    X, dense = pair
    rows = list(X)
    assert len(rows) == 20
    np.testing.assert_allclose(rows, dense, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "function",
    [
        np.isnan,
        np.exp,
        lambda X: np.nanmean(X[4:], axis=0),
        lambda X: np.nansum(X, axis=0),
        lambda X: np.where(np.isnan(X), 0, X),
        lambda X: np.nan_to_num(X),
        lambda X: X + 1,
        lambda X: 1 - X,
        lambda X: X / 2,
        lambda X: -X,
        lambda X: X > 0.5,
        lambda X: X @ np.arange(X.shape[1]),
        lambda X: np.ones((1, 20)) @ X,
        lambda X: X * X,
        lambda X: np.multiply(X, np.arange(20)[:, None]),
        lambda X: np.add.reduce(X, axis=1),
        lambda X: np.add(X, 1, out=np.empty(X.shape)),
        lambda X: np.vstack([X, X]),
        lambda X: np.concatenate([X, X]),
        lambda X: np.concatenate([X, X], axis=0),
        lambda X: np.concatenate([X, X], axis=None),
        lambda X: np.stack([X, X]),
        lambda X: np.split(X, 2)[1],
        lambda X: np.quantile(X[4:10], 0.5, axis=0),
    ],
)
def test_numpy_functions_give_arrays(pair, function):
    X, dense = pair
    actual = function(X)
    assert type(actual) is np.ndarray
    np.testing.assert_allclose(actual, function(dense), rtol=1e-12, atol=1e-12)


def test_repr_names_the_blocks_and_the_rows():
    X = hstack([HistoryConv(3, label="spikes").compute_features(poisson_counts()), np.ones(20)])
    text = repr(X)
    assert text.startswith("FeatureMatrix(shape=(20, 10), columns=(spikes: 9, columns: 1)")
    assert "valid_rows=17" in text


# --- stacking -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stack",
    [
        hstack,
        np.hstack,
        lambda blocks: np.concatenate(blocks, axis=1),
        lambda blocks: np.concatenate(blocks, axis=-1),
        lambda blocks: np.concatenate(blocks, 1),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_stacking_columns_stays_a_feature_matrix(pair, stack, first):
    X, dense = pair
    stimulus = np.random.default_rng(2).normal(size=(20, 2))
    blocks, arrays = ([X, stimulus], [dense, stimulus])
    if not first:
        blocks, arrays = blocks[::-1], arrays[::-1]
    stacked = stack(blocks)
    assert isinstance(stacked, FeatureMatrix)
    np.testing.assert_allclose(np.asarray(stacked), np.hstack(arrays), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(stacked.valid, np.isfinite(np.hstack(arrays)).all(axis=1))


def test_stacking_rows_gives_an_array(pair):
    X, dense = pair
    stacked = np.concatenate([X, X[:5]], axis=0)
    assert type(stacked) is np.ndarray
    np.testing.assert_allclose(stacked, np.concatenate([dense, dense[:5]]), rtol=0, atol=1e-12)


def test_stacking_keeps_the_labels_in_order():
    counts = poisson_counts()
    X = hstack(
        [
            HistoryConv(2, label="a").compute_features(counts),
            HistoryConv(3, label="b").compute_features(counts),
        ]
    )
    assert X.labels == ["a", "b"]
    assert X.column_ranges == [(0, 6), (6, 15)]


@pytest.mark.parametrize("dtype", [bool, np.int32, np.float32])
def test_a_dense_block_of_any_dtype(dtype):
    X = HistoryConv(2).compute_features(poisson_counts())
    stimulus = (poisson_counts(seed=3) > 0).astype(dtype)
    np.testing.assert_array_equal(np.hstack([X, stimulus])[:, 6:], stimulus)


def test_infinity_in_a_dense_block_is_kept_and_makes_the_row_invalid():
    values = np.ones((5, 2))
    values[3, 1] = np.inf
    X = as_feature_matrix(values)
    np.testing.assert_array_equal(X.valid, [True, True, True, False, True])
    np.testing.assert_array_equal(np.asarray(X), values)


@pytest.mark.parametrize("other", [np.ones((19, 2)), np.ones(21)])
def test_blocks_need_the_same_number_of_rows(pair, other):
    match = rf"Blocks have \[20, {len(other)}\] rows; expected the same number"
    with pytest.raises(ValueError, match=match):
        hstack([pair[0], other])
    with pytest.raises(ValueError, match=match):
        np.hstack([pair[0], other])


def test_a_feature_matrix_is_taken_as_it_is(pair):
    assert as_feature_matrix(pair[0]) is pair[0]


def test_a_list_of_rows_becomes_a_dense_block():
    X = as_feature_matrix([[1, 2], [3, 4], [5, 6]])
    assert X.shape == (3, 2)
    np.testing.assert_array_equal(np.asarray(X), [[1, 2], [3, 4], [5, 6]])


@pytest.mark.parametrize(
    ("X", "match"),
    [
        ([[1, 2], [3]], r"X could not be read as numbers; .* same number of columns in each row"),
        (np.ones((3, 2), complex), "X could not be read as numbers; expected real numbers"),
        (np.zeros((3, 0)), r"X has shape \(3, 0\); expected at least one feature"),
        (np.zeros(3), "X has 1 dimensions; expected .*Reshape your data"),
        (np.zeros((3, 2, 2)), "X has 3 dimensions"),
        (3.0, "X has 0 dimensions"),
    ],
)
def test_what_is_no_matrix(X, match):
    with pytest.raises(ValueError, match=match):
        as_feature_matrix(X)


# --- rows and columns for the solver ------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_rows_are_those_of_the_array(pair, dtype):
    X, dense = pair
    index = np.flatnonzero(X.valid)[::2]
    rows = X.rows(index, dtype)
    assert rows.dtype == dtype
    tolerance = 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(rows, dense[index], rtol=tolerance, atol=tolerance)


def test_valid_rows_are_those_without_nan(pair):
    X, dense = pair
    np.testing.assert_array_equal(X.valid, np.isfinite(dense).all(axis=1))


@pytest.mark.parametrize("keep", [[0], [5], [1, 2], [0, 1, 2, 3, 4, 5], [2, 6], [7]])
def test_select_keeps_the_senders_and_columns_that_are_needed(keep):
    counts = poisson_counts()
    history = RaisedCosineLinearConv(2, 4).compute_features(counts)
    X = np.hstack([history, np.random.default_rng(1).normal(size=(20, 2))])
    wanted = np.isin(np.arange(8), keep)
    selected, index = X.select(wanted)
    assert set(keep) <= set(index)
    senders = {c // 2 for c in keep if c < 6}
    assert set(index) == {2 * s + b for s in senders for b in (0, 1)} | {c for c in keep if c >= 6}
    # Dense senders are convolved by BLAS, whose sums may have an order for every number of columns.
    np.testing.assert_allclose(np.asarray(selected), np.asarray(X)[:, index], rtol=4e-16)
    np.testing.assert_array_equal(selected.valid, X.valid)


def test_select_of_nothing_is_one_column_of_zeros():
    X = HistoryConv(3).compute_features(poisson_counts())
    selected, index = X.select(np.zeros(9, bool))
    np.testing.assert_array_equal(np.asarray(selected), np.zeros((20, 1)))
    np.testing.assert_array_equal(selected.valid, X.valid)
    assert index.shape == (1,)


def test_select_does_not_forget_rows_that_saw_a_missing_count():
    counts = poisson_counts()
    counts[9, 2] = np.nan
    X = HistoryConv(3).compute_features(counts)
    selected, _ = X.select(np.arange(9) < 3)
    np.testing.assert_array_equal(np.flatnonzero(~selected.valid), [0, 1, 2, 10, 11, 12])


def test_columns_that_can_never_be_negative():
    counts = np.zeros((6, 2))
    counts[1], counts[3] = [1, 2], [2, -1]
    kernel = np.array([[1.0, 1.0], [0.5, -0.5]])
    X = FeatureMatrix([HistoryColumns(counts, kernel), DenseColumns(np.array([[0.0, -1.0]] * 6))])
    np.testing.assert_array_equal(X.nonnegative, [True, False, False, False, True, False])


def test_the_bound_of_the_positive_values_holds():
    counts = poisson_counts()
    kernel = np.array([[1.0, 0.2], [0.25, 0.0]])
    X = np.hstack([FeatureMatrix([HistoryColumns(counts, kernel)]), np.arange(20.0) / 4])
    values = np.asarray(X)
    lowest = np.where(values > 0, values, np.inf).min(axis=0)
    assert (X.smallest_positive() <= lowest).all()
    np.testing.assert_allclose(X.smallest_positive(), [0.25, 0.2] * 3 + [0.25])


def test_memory_is_that_of_the_events_not_of_the_matrix():
    counts = np.random.default_rng(0).random((20_000, 10)) < 0.01
    X = HistoryConv(100).compute_features(counts)
    n_events = int(counts.sum())
    kernel_and_flags = 8 * 100**2 + 2 * 20_000 + 8 * 11
    assert X.nbytes <= 32 * n_events + kernel_and_flags
    assert X.nbytes < X.size * 8 / 100


def test_memory_does_not_grow_with_the_window():
    counts = np.random.default_rng(0).random((1000, 3)) < 0.1
    short, long = (RaisedCosineLinearConv(2, w).compute_features(counts) for w in (10, 200))
    assert long.nbytes - short.nbytes == 190 * 2 * 8  # the kernel


# --- epochs and missing counts ------------------------------------------------------------------


def test_no_history_crosses_from_one_epoch_to_the_next():
    counts = poisson_counts()
    epochs = [(0, 8), (8, 15), (16, 20)]
    X = HistoryConv(3).compute_features(counts, epochs=epochs)
    np.testing.assert_array_equal(np.asarray(X), naive.features(counts, np.eye(3), epochs))
    incomplete = [0, 1, 2, 8, 9, 10, 15, 16, 17, 18]
    np.testing.assert_array_equal(np.flatnonzero(~X.valid), incomplete)


def test_trials_are_epochs():
    counts = poisson_counts()
    X = HistoryConv(3).compute_features([counts[:8], counts[8:13], counts[13:]])
    epochs = [(0, 8), (8, 13), (13, 20)]
    assert X.shape == (20, 9)
    np.testing.assert_array_equal(np.asarray(X), naive.features(counts, np.eye(3), epochs))


def test_epochs_may_be_whole_floats():
    counts = poisson_counts()
    X = HistoryConv(3).compute_features(counts, epochs=np.array([[0.0, 8.0], [8.0, 20.0]]))
    np.testing.assert_array_equal(np.flatnonzero(~X.valid), [0, 1, 2, 8, 9, 10])


@pytest.mark.parametrize("missing", [np.nan, np.inf, -np.inf])
def test_a_missing_count_spreads_to_the_rows_and_columns_that_see_it(missing):
    counts = poisson_counts(12, 2)
    counts[5, 1] = missing
    features = np.asarray(HistoryConv(3).compute_features(counts))
    expected = np.zeros((12, 6), bool)
    expected[:3] = True
    expected[6:9, 3:] = True
    np.testing.assert_array_equal(np.isnan(features), expected)


@pytest.mark.parametrize("t", [0, 11])
def test_a_missing_count_at_the_edge_of_the_record(t):
    counts = poisson_counts(12, 2)
    counts[t, 0] = np.nan
    features = np.asarray(HistoryConv(3).compute_features(counts))
    np.testing.assert_array_equal(features, naive.features(counts, np.eye(3)))


def test_the_input_is_left_alone():
    counts = poisson_counts()
    counts[3, 1] = np.nan
    before = counts.copy()
    HistoryConv(3).compute_features(counts)
    np.testing.assert_array_equal(counts, before)


def test_an_epoch_as_long_as_the_window_has_no_row_and_no_warning():
    X = HistoryConv(5).compute_features(poisson_counts(5))
    assert not X.valid.any()


@pytest.mark.parametrize(
    ("epochs", "match"),
    [
        (None, "1 of 1 epochs are shorter than the window of 50 bins; all their rows are NaN"),
        ([(0, 10), (10, 20)], "2 of 2 epochs are shorter than the window of 50 bins"),
    ],
)
def test_a_record_of_short_epochs_is_all_nan_with_one_warning(epochs, match):
    with pytest.warns(UserWarning, match=match) as caught:
        X = HistoryConv(50).compute_features(poisson_counts(), epochs=epochs)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert np.isnan(np.asarray(X)).all()
    assert not X.valid.any()


def test_short_epochs_among_long_ones_give_one_warning():
    epochs = [(0, 4), (4, 12), (12, 14), (14, 20)]
    counts = poisson_counts()
    with pytest.warns(UserWarning, match="2 of 4 epochs are shorter") as caught:
        X = HistoryConv(5).compute_features(counts, epochs=epochs)
    assert len(caught) == 1
    np.testing.assert_array_equal(np.asarray(X), naive.features(counts, np.eye(5), epochs))


@pytest.mark.parametrize(
    ("epochs", "match"),
    [
        ([0, 20], r"epochs has shape \(2,\); expected \(n_epochs, 2\)"),
        ([], r"epochs has shape \(0,\)"),
        (np.zeros((0, 2)), r"epochs has shape \(0, 2\)"),
        ([(0, 5, 9)], r"epochs has shape \(1, 3\)"),
        ([(0.0, 1.5)], "epochs holds numbers that are not whole bins. Divide times by bin_size"),
        ([(0.0, np.nan)], "epochs holds numbers that are not whole bins"),
        ([(0.0, np.inf)], "epochs holds numbers that are not whole bins"),
        ([(5, 5)], "epochs must be ascending, not empty and not overlapping"),
        ([(5, 2)], "epochs must be ascending"),
        ([(10, 20), (0, 10)], "epochs must be ascending"),
        ([(0, 11), (10, 20)], "epochs must be ascending"),
        ([(-1, 5)], "epochs run from bin -1 to 5; the counts have bins 0 to 20"),
        ([(0, 5), (5, 21)], "epochs run from bin 0 to 21; the counts have bins 0 to 20"),
    ],
)
def test_epochs_that_cannot_be_read(epochs, match):
    with pytest.raises(ValueError, match=match):
        HistoryConv(3).compute_features(poisson_counts(), epochs=epochs)


# --- anything that a user may hand in -----------------------------------------------------------


@st.composite
def problems(draw):
    n_bins, n_senders = draw(st.integers(1, 12)), draw(st.integers(1, 3))
    n_entries = n_bins * n_senders
    # Quarters: exact sums.
    entry = st.integers(-4, 12).map(lambda n: n / 4) | st.just(0.0) | st.just(np.nan)
    counts = draw(st.lists(entry, min_size=n_entries, max_size=n_entries))
    window_size = draw(st.integers(1, 8))
    cuts = draw(st.sets(st.integers(0, n_bins), min_size=2, max_size=6).map(sorted))
    gaps = draw(st.booleans())
    epochs = draw(st.none() | st.just(list(itertools.pairwise(cuts))[:: 2 if gaps else 1]))
    causality = draw(
        st.tuples(st.sampled_from(["causal", "anti-causal"]), st.booleans())
        | st.just(("acausal", False))
    )
    return np.reshape(counts, (n_bins, n_senders)), window_size, epochs, causality


@settings(max_examples=150, deadline=None, database=None, derandomize=True)
@given(problems(), st.booleans(), st.data())
def test_features_equal_the_loops_whatever_is_handed_in(problem, raw, data):
    counts, window_size, epochs, (causality, shift) = problem
    conv_kwargs = {"predictor_causality": causality, "shift": shift}
    cls, args = (HistoryConv, ()) if raw else (RaisedCosineLinearConv, (2,))
    basis = cls(*args, window_size=window_size, conv_kwargs=conv_kwargs)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[0-9]+ of [0-9]+ epochs are shorter")
        X = basis.compute_features(counts, epochs=epochs)
    move = naive.window_shift(window_size, causality, shift)
    expected = naive.features(counts, basis.kernel_, epochs, move)
    np.testing.assert_allclose(np.asarray(X), expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(X.valid, np.isfinite(expected).all(axis=1))
    key = data.draw(st.lists(st.integers(-len(counts), len(counts) - 1), max_size=5))
    np.testing.assert_allclose(X[np.array(key, int)], expected[key], rtol=0, atol=1e-12)


def test_indexing_is_numpys():
    X = HistoryConv(2).compute_features(np.arange(12).reshape(6, 2))
    A = np.asarray(X)
    keys = [
        (slice(2, 5), 1),
        ([3, 4], [0, 1]),
        (5, 2),
        (2, Ellipsis),
        (),
        (slice(None), [0, 3]),
        ([4, 2, 4], slice(1, 3)),
        np.arange(6) > 3,
        ([2, 3], 1),
        (Ellipsis, 0),
    ]
    for key in keys:
        got, expected = X[key], A[key]
        assert np.shape(got) == np.shape(expected)
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(X[np.isnan(A)], A[np.isnan(A)])
    np.testing.assert_array_equal(X.T, A.T)


@pytest.mark.parametrize("units", [[3], [7, 2], [0, 1, 2], list(range(0, 40, 2)), []])
def test_events_of_some_units_are_their_columns(units):
    counts = np.random.default_rng(0).poisson(0.1, size=(200, 40))
    events = Events.of(counts)
    some = events.select(np.array(units, int))
    np.testing.assert_array_equal(some.toarray(), counts[:, units])
    assert (np.diff(some.bins) >= 0).all()


def test_a_block_of_some_senders_is_that_of_their_counts():
    counts = np.random.default_rng(0).poisson(0.1, size=(200, 9))
    whole = HistoryConv(4).compute_features(counts)
    keep = np.repeat(np.isin(np.arange(9), [1, 5, 6]), 4)
    some, index = whole.select(keep)
    own = HistoryConv(4).compute_features(counts[:, [1, 5, 6]])
    np.testing.assert_array_equal(index, np.flatnonzero(keep))
    for name in ("starts", "bins_by_sender", "amplitudes_by_sender"):
        np.testing.assert_array_equal(getattr(some.blocks[0], name), getattr(own.blocks[0], name))
    for name in ("bins", "units", "amplitudes"):
        np.testing.assert_array_equal(
            getattr(some.blocks[0].events, name), getattr(own.blocks[0].events, name)
        )
