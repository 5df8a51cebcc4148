"""A feature matrix with times is the TsdFrame that it stands for: same values, same times."""

import copy
import logging
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import fastglm
from fastglm.features import FeatureMatrix

nap = pytest.importorskip("pynapple")

BIN = 0.01
SUPPORT = nap.IntervalSet([0.0, 30.003], [20.0, 50.003])
AREAS = ["CA1", "CA3", "CA1"]


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(0)
    units = nap.TsGroup(
        {name: nap.Ts(np.sort(rng.uniform(0, 60, 600))) for name in (3, 7, 8)},
        time_support=SUPPORT,
        metadata={"area": AREAS},
    )
    return units.count(BIN)


def make_basis(**kwargs):
    return fastglm.basis.RaisedCosineLogConv(3, window_size=8, label="coupling", **kwargs)


def make_model():
    return fastglm.PopulationGLM(
        regularizer="Ridge", regularizer_strength=1e-3, solver_kwargs={"tol": 1e-21}
    )


OLD = not hasattr(nap, "compute_tuning_curves")  # before 0.10


def as_stored(X):
    """The TsdFrame that a matrix stands for."""
    return nap.TsdFrame(
        t=np.array(X.t),
        d=np.asarray(X),
        time_support=X.time_support,
        columns=X.columns,
        metadata=X.metadata,
    )


@pytest.fixture(scope="module")
def X(counts):
    return make_basis().compute_features(counts)


@pytest.fixture(scope="module")
def stored(X):
    return as_stored(X)


def same(found, expected):
    """The same values, times, time support, columns and metadata."""
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            same(found[key], value)
        return
    for kind in (nap.Tsd, nap.TsdFrame, nap.TsdTensor, nap.IntervalSet):
        assert isinstance(found, kind) == isinstance(expected, kind)
    if isinstance(expected, nap.Tsd | nap.TsdFrame | nap.TsdTensor):
        np.testing.assert_array_equal(found.t, expected.t)
        np.testing.assert_array_equal(found.time_support.values, expected.time_support.values)
        np.testing.assert_equal(found.rate, expected.rate)
    if isinstance(expected, nap.TsdFrame):
        assert list(found.columns) == list(expected.columns)
        assert list(found.metadata.columns) == list(expected.metadata.columns)
        for name in expected.metadata.columns:
            np.testing.assert_equal(list(found.metadata[name]), list(expected.metadata[name]))
    if np.asarray(expected).dtype.kind in "OUT":
        assert list(np.ravel(found)) == list(np.ravel(expected))
        return
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-12, atol=1e-13)


EPOCHS = nap.IntervalSet([1.0, 5.0, 19.5, 40.0], [3.333, 6.0, 33.0, 41.0])
FEW = nap.IntervalSet(2.0, 10.0)
EVENTS = nap.Ts(np.array([2.0, 5.0, 31.5]))
ANGLE = nap.Tsd(t=np.arange(0, 60, 0.1), d=np.arange(600) % 7 / 7)

METHODS = {
    "restrict": lambda X: X.restrict(EPOCHS),
    "restrict twice": lambda X: X.restrict(EPOCHS).restrict(FEW),
    "get": lambda X: X.get(3, 5),
    "get one": lambda X: X.get(3),
    "get in ms": lambda X: X.get(3000, 5000, time_units="ms"),
    "slice": lambda X: X[100:2000],
    "slice across a gap": lambda X: X[1990:2010],
    "step": lambda X: X[::3],
    "slice by time": lambda X: X[X.get_slice(3, 5)],
    "booleans": lambda X: X[X.t > 10],
    "booleans with times": lambda X: X[X.in_interval(EPOCHS)],
    "numbers": lambda X: X[[3, 10, 3000]],
    "row": lambda X: X[500],
    "row as rows": lambda X: X[500:501],
    "entry": lambda X: X[500, 3],
    "column": lambda X: X[:, 2],
    "columns": lambda X: X[:, [4, 2]],
    "both": lambda X: X[300:900, 3:5],
    "columns by metadata": lambda X: X[:, X.area == "CA1"],
    "loc": lambda X: X.loc[[3, 4]],
    "loc one": lambda X: X.loc[4],
    "groupby": lambda X: X.groupby("area"),
    "groupby several": lambda X: X.groupby(["area", "function"]),
    "get group": lambda X: X.groupby("area", get_group="CA3"),
    "groupby_apply": lambda X: X.groupby_apply("area", np.nansum),
    "metadata": lambda X: X["area"],
    "metadata of some names": lambda X: X[["area", "label"]],
    "metadata as attribute": lambda X: X.input,
    "get_info": lambda X: X.get_info("area"),
    "t": lambda X: X.t,
    "d": lambda X: X.d,
    "values": lambda X: X.values,
    "rate": lambda X: X.rate,
    "time_support": lambda X: X.time_support,
    "start and end": lambda X: np.array([X.start, X.end, X.end_time("ms")]),
    "times": lambda X: X.times("ms"),
    "shape": lambda X: np.array([*X.shape, X.ndim, X.size, len(X)]),
    "find_support": lambda X: X.find_support(0.02),
    "as_dataframe": lambda X: X.as_dataframe(),
    "as_units": lambda X: X.as_units("ms"),
    "as_array": lambda X: X.as_array(),
    "to_numpy": lambda X: X.to_numpy(),
    "dropna": lambda X: X.dropna(),
    "dropna keeps the support": lambda X: X.dropna(False),
    "smooth": lambda X: X.restrict(FEW).smooth(0.02, size_factor=10),
    "bin_average": lambda X: X.bin_average(0.1),
    "bin_average of epochs": lambda X: X.bin_average(0.1, ep=EPOCHS),
    "convolve": lambda X: X.dropna().convolve(np.ones(5)),
    "interpolate": lambda X: X.dropna().interpolate(EVENTS),
    "decimate": lambda X: X.dropna().decimate(4),
    "derivative": lambda X: X.derivative(),
    "count": lambda X: X.count(1.0),
    "time_diff": lambda X: X.time_diff(),
    "in_interval": lambda X: X.in_interval(EPOCHS),
    "to_trial_tensor": lambda X: X.to_trial_tensor(nap.IntervalSet([1, 5], [2, 6])),
    "find_peaks": lambda X: X.restrict(FEW).find_peaks()[0],
    "copy": lambda X: X.copy(),
    "value_from it": lambda X: EVENTS.value_from(X),
    "value_from another": lambda X: X.value_from(ANGLE),
    "tuning curves": lambda X: nap.compute_tuning_curves(X, ANGLE, bins=5),
    "response per epoch": lambda X: nap.compute_response_per_epoch(
        X.restrict(FEW), {"early": FEW, "late": EPOCHS}
    ),
    "perievent": lambda X: nap.compute_perievent(X, EVENTS, (0.2, 0.3)),
    "event triggered average": lambda X: nap.compute_event_triggered_average(
        X.dropna(), nap.TsGroup({0: EVENTS}), 0.1, (0.2, 0.3)
    ),
    "build_tensor": lambda X: nap.build_tensor(X, EPOCHS),
    "warp_tensor": lambda X: nap.warp_tensor(X.dropna(), nap.IntervalSet([1, 5], [2, 6]), 7),
    "filter": lambda X: nap.apply_lowpass_filter(X.dropna(), 10, fs=100),
    "hilbert": lambda X: nap.apply_hilbert_transform(X.dropna()).values.imag,
    "spectrum": lambda X: np.abs(nap.compute_fft(X.restrict(FEW), fs=100)),
    "wavelets": lambda X: np.abs(
        nap.compute_wavelet_transform(X.restrict(FEW)[:, :2], np.array([5.0, 9.0]), fs=100)
    ),
    "mean of columns": lambda X: np.nanmean(X, axis=0),
    "mean of rows": lambda X: np.nanmean(X[100:1990], axis=1),
    "mean": lambda X: X.dropna().mean(),
    "mean of rows kept as columns": lambda X: X.dropna().mean(axis=1, keepdims=True),
    "std": lambda X: np.nanstd(X, axis=0, ddof=1),
    "max": lambda X: np.nanmax(X),
    "any": lambda X: np.isnan(X).any(axis=1),
    "isnan": lambda X: np.isnan(X),
    "plus": lambda X: X + 1,
    "times a row": lambda X: np.arange(9) * X,
    "times a column": lambda X: X * np.arange(len(X))[:, None],
    "negative": lambda X: -X,
    "comparison": lambda X: X > 0.1,
    "equal": lambda X: X == 0,
    "matmul": lambda X: X @ np.ones(9),
    "matmul of several": lambda X: X @ np.ones((9, 2)),
    "dot": lambda X: X.dot(np.ones(9)),
    "where": lambda X: np.where(np.isnan(X), 0, X),
    "zeros_like": lambda X: np.zeros_like(X),
    "reshape": lambda X: X.reshape((len(X), 3, 3)),
    "ravel": lambda X: X.ravel(),
    "squeeze": lambda X: X.squeeze(),
    "transpose": lambda X: X.transpose(),
    "cumsum": lambda X: np.cumsum(X, axis=0),
    "split": lambda X: np.split(X, 2)[1],
    "vstack": lambda X: np.vstack([X[:50], X[50:]]),
}
UNSTORED = (
    ["restrict", "restrict twice", "get", "get in ms", "slice", "slice across a gap", "step"]
    + ["slice by time", "booleans", "booleans with times", "numbers", "row as rows", "columns"]
    + ["both", "columns by metadata", "loc", "get group", "dropna", "dropna keeps the support"]
)


def quietly(function, X):
    """What pynapple says of short epochs, it says of both; None if this pynapple has it not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function(X)
        except (AttributeError, TypeError):
            if not OLD:
                raise
            return None


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_those_of_the_tsdframe(X, stored, name):
    expected, found = (quietly(METHODS[name], one) for one in (stored, X))
    if expected is None:
        pytest.skip("this pynapple does not have it")
    same(found, expected)
    assert isinstance(found, FeatureMatrix) == (name in UNSTORED)


def test_it_is_a_tsdframe_and_a_feature_matrix(X, counts):
    assert isinstance(X, nap.TsdFrame)
    assert isinstance(X, FeatureMatrix)
    assert X.nap_class == "TsdFrame"
    assert not isinstance(make_basis().compute_features(counts.values), nap.TsdFrame)


# --- random epochs, gaps, selections and metadata -----------------------------------------------


@st.composite
def recordings(draw):
    """Counts with gaps, and epochs that begin and end anywhere."""
    n = draw(st.integers(1, 4))
    lengths = draw(st.lists(st.integers(4, 40), min_size=n, max_size=n))
    pauses = draw(st.lists(st.integers(2, 30), min_size=n, max_size=n))
    first = np.cumsum([p + k for p, k in zip(pauses, [0, *lengths[:-1]], strict=True)])
    ticks = np.concatenate([a + np.arange(k) for a, k in zip(first, lengths, strict=True)])
    support = nap.IntervalSet(first * BIN, (first + np.array(lengths)) * BIN)
    n_cells = draw(st.integers(1, 3))
    values = np.random.default_rng(draw(st.integers(0, 99))).poisson(0.5, (ticks.size, n_cells))
    metadata = {"depth": draw(st.lists(st.integers(0, 2), min_size=n_cells, max_size=n_cells))}
    counts = nap.TsdFrame(t=(ticks + 0.5) * BIN, d=values, time_support=support, metadata=metadata)
    edges = sorted(draw(st.sets(st.integers(0, 1500), min_size=2, max_size=8)))
    edges = np.array(edges[: len(edges) // 2 * 2]) / 1000
    return counts, nap.IntervalSet(edges[::2], edges[1::2])


@settings(max_examples=15, deadline=None, database=None, derandomize=True)
@given(recordings(), st.sampled_from(["causal", "anti-causal"]), st.data())
def test_a_matrix_is_its_tsdframe_whatever_is_selected(recording, causality, data):
    counts, epochs = recording
    assume(len(counts.restrict(epochs)) > 0)  # pynapple's own empty frames have no columns
    place = nap.Tsd(t=counts.t, d=np.sin(counts.t), time_support=counts.time_support)
    gain = counts.values[:, 0] + 1.0
    conv_kwargs = {"predictor_causality": causality}
    history = make_basis(conv_kwargs=conv_kwargs)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[0-9]+ of [0-9]+ epochs are shorter")
        basis = history + fastglm.basis.BSplineEval(4, bounds=(-1, 1), label="place")
        product = fastglm.basis.HistoryConv(2) * fastglm.basis.IdentityEval()
        X = np.hstack(
            [basis.compute_features(counts, place), product.compute_features(counts[:, 0], gain)]
        )
    X.set_info(color=np.arange(X.shape[1]) % 3)
    frame = as_stored(X)
    columns = data.draw(
        st.lists(st.integers(0, X.shape[1] - 1), min_size=2, max_size=5, unique=True)
    )
    start = data.draw(st.integers(0, len(X)))
    step = data.draw(st.integers(1, 4))
    keep = np.random.default_rng(data.draw(st.integers(0, 9))).random(len(X)) < 0.5
    low, high = sorted(data.draw(st.tuples(st.integers(0, 900), st.integers(0, 900))))
    for function in (
        lambda X: X.restrict(epochs),
        lambda X: X[start::step],
        lambda X: X[keep],
        lambda X: X[nap.Tsd(t=X.t, d=keep, time_support=X.time_support)],
        lambda X: X[:, columns],
        lambda X: X[:, columns].restrict(epochs),
        lambda X: X.restrict(epochs)[:, columns[0]],
        lambda X: X.loc[columns],
        lambda X: X.get(low / 1000, high / 1000),
        lambda X: X.dropna(),
        lambda X: X.restrict(epochs).dropna(False),
        lambda X: X.groupby("color", get_group=1),
        lambda X: X.restrict(epochs) * 2,
        lambda X: np.nansum(X.restrict(epochs), axis=0),
        lambda X: X.bin_average(0.03),
        lambda X: X[np.flatnonzero(keep)][:, columns].color,
        lambda X: X.in_interval(epochs),
        lambda X: EVENTS.value_from(X),
    ):
        expected = quietly(function, frame)
        if expected is not None:
            same(quietly(function, X), expected)
    assert isinstance(X.restrict(epochs), FeatureMatrix)
    same(X[epochs], frame.restrict(epochs))


# --- fits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [nap.IntervalSet(10, 45), EPOCHS])
def test_a_fit_to_epochs_is_that_to_the_stored_rows(X, stored, counts, epochs):
    part, y = X.restrict(epochs), counts.restrict(epochs)
    model, reference = make_model().fit(part, y), make_model().fit(stored.restrict(epochs), y)
    np.testing.assert_allclose(model.coef_, reference.coef_, rtol=0, atol=1e-9)
    np.testing.assert_allclose(model.intercept_, reference.intercept_, rtol=0, atol=1e-9)
    rates, expected = model.predict(part), reference.predict(stored.restrict(epochs))
    np.testing.assert_allclose(rates.values, expected.values, rtol=1e-8)
    np.testing.assert_array_equal(rates.t, expected.t)
    np.testing.assert_array_equal(rates.time_support.values, epochs.values)
    assert list(rates["area"]) == AREAS
    assert part[::2].timeline.bin_size == pytest.approx(BIN)
    assert model.coupling_map(part[::2], y[::2]).strength.shape == (3, 3)
    with pytest.raises(ValueError, match="X and y have different times"):
        make_model().fit(part, counts[: len(y)])


def test_a_fit_to_a_sum_with_covariates_restricted(counts):
    speed = nap.Tsd(t=counts.t, d=np.cos(counts.t), time_support=counts.time_support)
    basis = make_basis() + fastglm.basis.BSplineEval(5, label="speed")
    X = basis.compute_features(counts, speed)
    stored = as_stored(X)
    part = np.hstack([X.restrict(EPOCHS), counts.restrict(EPOCHS)[:, [0]]])
    assert isinstance(part, FeatureMatrix)
    assert isinstance(part, nap.TsdFrame)
    expected = np.hstack([stored.restrict(EPOCHS).values, counts.restrict(EPOCHS).values[:, [0]]])
    np.testing.assert_array_equal(np.asarray(part), expected)
    y = counts.restrict(EPOCHS)
    model, reference = make_model().fit(part, y), make_model().fit(expected, y)
    np.testing.assert_allclose(model.predict(part).values, reference.predict(expected), rtol=1e-7)


def test_the_pages_on_head_direction_run_with_one_cell_and_with_all(counts):
    """What NeMoS's tutorial on head direction does with features: halves, rates, tuning."""
    neuron, window = counts[:, 0], 8
    raw = fastglm.basis.HistoryConv(window).compute_features(neuron)
    assert np.where(np.isnan(raw[:, 0]))[0].size == 2 * window
    duration, start = raw.time_support.tot_length("s"), raw.time_support["start"][0]
    first_half = nap.IntervalSet(start, start + duration / 2)
    second_half = nap.IntervalSet(start + duration / 2, raw.time_support["end"][-1])
    basis = fastglm.basis.RaisedCosineLogConv(4, window_size=window, label="count_history")
    features = basis.compute_features(neuron)
    _, kernels = basis.evaluate_on_grid(window)
    for X in (raw, features):
        for half in (first_half, second_half):
            model = fastglm.GLM(solver_name="LBFGS", solver_kwargs={"tol": 1e-21})
            model.fit(X.restrict(half), neuron.restrict(half))
            reference = fastglm.GLM(solver_kwargs={"tol": 1e-21})
            reference.fit(as_stored(X).restrict(half).values, neuron.restrict(half).values)
            np.testing.assert_allclose(model.coef_, reference.coef_, rtol=0, atol=1e-8)
            score = model.score(
                X.restrict(half), neuron.restrict(half), score_type="pseudo-r2-Cohen"
            )
            assert np.isfinite(score)
    assert np.matmul(kernels, np.squeeze(model.coef_)).shape == (window,)
    rate = model.predict(features) * features.rate
    assert isinstance(rate, nap.Tsd)
    assert features.rate == pytest.approx(neuron.rate)
    everyone = fastglm.basis.RaisedCosineLogConv(4, window_size=window, label="population_history")
    X = everyone.compute_features(counts)
    model = make_model().fit(X, counts)
    rates = model.predict(X) * X.rate
    if not OLD:
        tuning = nap.compute_tuning_curves(rates, features=ANGLE, bins=5, range=(0, 1))
        assert tuning.shape == (3, 5)
    weights = everyone.split_by_feature(model.coef_, axis=0)["population_history"]
    assert np.einsum("jki,tk->ijt", weights, kernels).shape == (3, 3, window)


# --- metadata and what cannot be set ------------------------------------------------------------


def test_metadata_are_set_and_dropped(counts):
    X = make_basis().compute_features(counts)
    X.set_info(color=list("abcdefghi"))
    X["depth"] = np.arange(9)
    X.shank = np.arange(9) // 3
    assert list(X[:, [2, 1]]["color"]) == ["c", "b"]
    assert list(X.restrict(EPOCHS).depth) == list(range(9))
    assert list(X[10:]["shank"]) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert {"color", "depth", "shank", "area"} <= set(dir(X))
    if not OLD:
        X.drop_info("color")
        assert "color" not in X.metadata_columns
        X.restrict_info("depth")
        assert X.metadata_columns == ["depth"]
    for again in (pickle.loads(pickle.dumps(X)), copy.deepcopy(X)):
        same(again, as_stored(X))
        assert isinstance(again, FeatureMatrix)
    with pytest.raises(AttributeError, match="'values' is a reserved attribute"):
        X.values = np.zeros(X.shape)
    with pytest.raises(AttributeError, match="'bins' is of the FeatureMatrix"):
        X.bins = np.arange(9)
    with pytest.raises(TypeError, match=r"cannot be changed in place; change a copy, X = X\.copy"):
        X[0] = 1
    with pytest.raises(AttributeError, match="nothing"):
        X.nothing  # noqa: B018


def test_two_series_are_not_added(X, stored):
    for other in (X[:, ::-1], stored):
        for pair in ((X, other), (other, X), (stored, stored)):
            with pytest.raises(TypeError):
                np.add(*pair)


def test_as_many_rows_as_columns(X, stored):
    """The shape of a result does not say whether its first axis is time; its function does."""
    X, stored = X[100:109], stored[100:109]
    for function in (
        lambda X: X.mean(axis=0),
        lambda X: X.max(axis=1),
        lambda X: X.sum(1, keepdims=True),
        lambda X: X.transpose(),
        lambda X: X.argmax(axis=0),
        lambda X: X.round(1),
        lambda X: X.reshape(9, 3, 3),
        lambda X: X.dot(np.eye(9)),
    ):
        expected = stored.reshape((9, 3, 3)) if function(X).ndim == 3 else function(stored)
        same(function(X), expected)
    single = X.astype(np.float32)
    assert isinstance(single, nap.TsdFrame)
    assert single.dtype == np.float32
    np.testing.assert_array_equal(single.values, stored.values.astype(np.float32))
    same(X.flatten(), stored.values.ravel())
    same(X[np.array(["area", "label"])], stored[["area", "label"]])


def test_rows_out_of_order_have_no_times(X, stored):
    for rows in ([7, 3], [3, 3]):
        assert type(X[rows]) is np.ndarray
        np.testing.assert_array_equal(X[rows], stored.values[rows])


def test_a_key_must_hold_booleans(X):
    with pytest.raises(ValueError, match=r"indexed with a Tsd of float64; expected booleans"):
        X[nap.Tsd(t=X.t, d=np.zeros(len(X)))]


def test_without_times_the_message_says_where_they_come_from(counts):
    X = make_basis().compute_features(counts.values)
    with pytest.raises(AttributeError, match=r"X\.restrict needs times, and X has none"):
        X.restrict(EPOCHS)
    with pytest.raises(ValueError, match="Compute the features of a TsdFrame"):
        X[EPOCHS]


def test_what_is_stored_is_logged_once(X, caplog):
    with caplog.at_level(logging.INFO, logger="fastglm"):
        X.restrict(EPOCHS)[:, :3], X.mean(axis=0), X.dropna()
    assert not caplog.records
    with caplog.at_level(logging.INFO, logger="fastglm"):
        X * 2
    (record,) = caplog.records
    assert record.getMessage() == "an array of shape (4000, 9) is stored from features: 288 kB"
