"""Binning against loops over integer ticks; files that are whole, foreign or damaged."""

import gc
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastglm
from fastglm import bin_spikes, load_model, load_spikes
from fastglm.io import save_model

TICK = 1e-4  # seconds; a bin is PER_BIN ticks, so that the loops below need no rounding
PER_BIN = 10
BIN = 1e-3


def naive_counts(ticks, unit, n_units, epochs):
    """Counts and epochs by loops over integers; ``epochs`` in ticks."""
    rows, bounds = [], []
    for start, stop in epochs:
        n_bins = (stop - start) // PER_BIN
        if n_bins == 0:
            continue
        block = [[0] * n_units for _ in range(n_bins)]
        for tick, u in zip(ticks, unit, strict=True):
            if start <= tick < start + n_bins * PER_BIN:
                block[(tick - start) // PER_BIN][u] += 1
        bounds.append((len(rows), len(rows) + n_bins))
        rows += block
    return np.array(rows), np.array(bounds)


def random_spikes(seed, n_spikes, n_units, n_ticks):
    """Ticks ascending within units, units interleaved."""
    rng = np.random.default_rng(seed)
    ticks, unit = rng.integers(0, n_ticks, n_spikes), rng.integers(0, n_units, n_spikes)
    order = np.argsort(ticks, kind="stable")
    return ticks[order], unit[order]


# --- binning ---


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_units", [1, 4])
def test_counts_equal_loops_over_the_whole_recording(seed, n_units):
    ticks, unit = random_spikes(seed, 80, n_units, 200)
    counts = bin_spikes(ticks * TICK, unit, BIN, n_units=n_units, t_stop=200 * TICK)
    expected, _ = naive_counts(ticks, unit, n_units, [(0, 200)])
    np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize(
    "epochs",
    [
        [(0, 200)],
        [(30, 90)],
        [(0, 50), (50, 200)],
        [(0, 45), (60, 103), (150, 199)],  # gaps, and a partial last bin in each
        [(0, 9), (20, 61), (70, 75), (80, 90)],  # two of them shorter than a bin
        [(3, 33), (47, 200)],
    ],
)
def test_counts_and_epochs_equal_loops(epochs):
    ticks, unit = random_spikes(7, 150, 3, 200)
    counts, bounds = bin_spikes(
        ticks * TICK, unit, BIN, n_units=3, t_stop=200 * TICK, epochs=np.array(epochs) * TICK
    )
    expected, expected_bounds = naive_counts(ticks, unit, 3, epochs)
    np.testing.assert_array_equal(counts, expected)
    np.testing.assert_array_equal(bounds, expected_bounds)


@pytest.mark.parametrize("bin_size", [0.001, 0.003, 0.01, 0.1, 1 / 3])
def test_a_spike_on_an_edge_belongs_to_the_bin_that_starts_there(bin_size):
    edges = np.arange(300)  # 0.003 / 0.001 is 3.0000000000000004 or 2.9999999999999996
    counts = bin_spikes(edges * bin_size, np.zeros(300, int), bin_size)
    np.testing.assert_array_equal(counts, np.ones((300, 1)))


def test_a_spike_a_thousandth_of_a_bin_before_an_edge_stays_in_its_bin():
    assert bin_spikes([0.002999], [0], 0.001).argmax() == 2


def test_spikes_outside_all_epochs_are_left_out():
    counts, bounds = bin_spikes(
        [0.5e-3, 3.5e-3, 9.5e-3],
        [0, 0, 0],
        BIN,
        t_stop=0.01,
        epochs=[[0.001, 0.003], [0.005, 0.008]],
    )
    assert counts.shape == (5, 1)
    assert counts.sum() == 0
    np.testing.assert_array_equal(bounds, [[0, 2], [2, 5]])


def test_a_spike_in_the_partial_last_bin_is_left_out():
    counts = bin_spikes([0.0005, 0.0032], [0, 0], BIN, t_stop=0.0035)
    np.testing.assert_array_equal(counts, [[1], [0], [0]])


def test_default_range_ends_with_the_bin_of_the_last_spike():
    np.testing.assert_array_equal(bin_spikes([0.0025], [1], BIN), [[0, 0], [0, 0], [0, 1]])


def test_bins_start_at_t_start():
    counts = bin_spikes([-0.0015, 0.0005], [0, 0], BIN, t_start=-0.002, t_stop=0.001)
    np.testing.assert_array_equal(counts, [[1], [0], [1]])


@pytest.mark.parametrize(
    ("n_spikes", "dtype"), [(1, np.int32), (46340, np.int32), (46341, np.int64)]
)
def test_products_of_counts_do_not_wrap(n_spikes, dtype):
    counts = bin_spikes(np.full(n_spikes, 0.0015), np.zeros(n_spikes, int), BIN)
    assert counts.dtype == dtype
    np.testing.assert_array_equal(counts, [[0], [n_spikes]])
    assert int((counts.T @ counts)[0, 0]) == n_spikes**2


def test_one_spike():
    counts = bin_spikes([0.0], [0], BIN)
    np.testing.assert_array_equal(counts, [[1]])


def test_no_spikes_give_zeros_where_units_and_range_are_known():
    counts = bin_spikes([], [], BIN, n_units=3, t_stop=0.005)
    np.testing.assert_array_equal(counts, np.zeros((5, 3)))


def test_an_array_comes_back_without_epochs_and_a_pair_with_them():
    assert isinstance(bin_spikes([0.0], [0], BIN), np.ndarray)
    result = bin_spikes([0.0], [0], BIN, t_stop=0.002, epochs=[[0, 0.002]])
    assert isinstance(result, tuple)
    assert result[0].shape == (2, 1)
    assert result[1].dtype.kind == "i"
    np.testing.assert_array_equal(result[1], [[0, 2]])


def test_epochs_fit_compute_features():
    ticks, unit = random_spikes(0, 60, 2, 300)
    counts, epochs = bin_spikes(
        ticks * TICK, unit, BIN, n_units=2, t_stop=0.03, epochs=[[0, 0.01], [0.015, 0.03]]
    )
    X = fastglm.basis.HistoryConv(4).compute_features(counts, epochs=epochs)
    np.testing.assert_array_equal(np.flatnonzero(~X.valid), [0, 1, 2, 3, 10, 11, 12, 13])


def test_integral_floats_are_units():
    np.testing.assert_array_equal(bin_spikes([0.0, 0.0], [0.0, 1.0], BIN), [[1, 1]])


@settings(max_examples=60, deadline=None)
@given(
    spikes=st.lists(st.tuples(st.floats(0, 2), st.integers(0, 3)), min_size=1, max_size=60),
    bin_size=st.floats(0.003, 3),
)
def test_binning_conserves_the_spikes_of_every_unit(spikes, bin_size):
    spikes = sorted(spikes)
    times, unit = [t for t, _ in spikes], [u for _, u in spikes]
    counts = bin_spikes(times, unit, bin_size, n_units=4)
    np.testing.assert_array_equal(counts.sum(axis=0), np.bincount(unit, minlength=4))


@settings(max_examples=60, deadline=None)
@given(
    ticks=st.lists(st.integers(0, 120), max_size=40).map(sorted),
    edges=st.lists(st.integers(0, 120), min_size=2, max_size=6, unique=True).map(sorted),
)
def test_any_epochs_equal_loops(ticks, edges):
    epochs = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False)]
    unit = [t % 2 for t in ticks]
    expected, bounds = naive_counts(ticks, unit, 2, epochs)
    arguments = {"n_units": 2, "t_stop": 120 * TICK, "epochs": np.array(epochs) * TICK}
    times = np.array(ticks) * TICK
    if len(expected) == 0:
        with pytest.raises(ValueError, match=r"No bin of 0\.001 s fits into the recording"):
            bin_spikes(times, unit, BIN, **arguments)
        return
    counts, found = bin_spikes(times, unit, BIN, **arguments)
    np.testing.assert_array_equal(counts, expected)
    np.testing.assert_array_equal(found, bounds)


@pytest.mark.parametrize(
    ("times", "unit", "message"),
    [
        ([0.1, np.nan], [0, 0], r"NaN or infinity \(1 times, first at index 1\)"),
        ([np.inf, 0.1], [0, 1], r"NaN or infinity \(1 times, first at index 0\)"),
        ([0.2, 0.1], [0, 0], "spike_times of unit 0 are not ascending at index 1"),
        ([0.5, 0.3, 0.1, 0.2], [1, 0, 1, 0], "spike_times of unit 0 are not ascending at index 3"),
        ([-0.1, 0.1], [0, 0], r"1 spike times are out of range \(negative\), first -0.1 s"),
        ([0.1, 0.2], [0, -1], r"unit holds negative numbers \(smallest -1\)"),
        ([0.1, 0.2], [0, 0.5], "unit holds numbers that are not integers"),
        ([0.1, 0.2], [0, np.nan], "unit holds numbers that are not integers"),
        ([0.1, 0.2], [0], "spike_times has 2 entries and unit 1"),
        ([[0.1, 0.2]], [0, 0], r"spike_times has shape \(1, 2\) and dtype float64"),
        (["0.1"], [0], r"spike_times has shape \(1,\) and dtype <U3"),
        ([0.1 + 0j], [0], "dtype complex128; expected a one-dimensional array of numbers"),
        ([None], [0], "dtype object"),
        ([0.1], ["a"], r"unit has shape \(1,\) and dtype <U1"),
        ([0.1], [True], r"unit has shape \(1,\) and dtype bool"),
        ([0.1], [[0]], r"unit has shape \(1, 1\)"),
        ([], [], r"n_units is 0; expected a positive integer \(there are 0 spikes\)"),
    ],
)
def test_bad_spikes_are_refused(times, unit, message):
    with pytest.raises(ValueError, match=message):
        bin_spikes(times, unit, BIN)


@pytest.mark.parametrize("bin_size", [0, -0.001, np.nan, np.inf, None, [0.001]])
def test_bad_bin_size_is_refused(bin_size):
    with pytest.raises(ValueError, match=r"bin_size is .*; expected seconds above 0"):
        bin_spikes([0.1], [0], bin_size)


@pytest.mark.parametrize("n_units", [0, -1, 2.5, True])
def test_bad_n_units_is_refused(n_units):
    with pytest.raises(ValueError, match=rf"n_units is {n_units}; expected a positive integer"):
        bin_spikes([0.1], [0], BIN, n_units=n_units)


def test_a_unit_that_is_too_large_is_refused():
    with pytest.raises(ValueError, match="unit goes up to 3, but n_units is 3; units count from 0"):
        bin_spikes([0.1, 0.2], [0, 3], BIN, n_units=3)


@pytest.mark.parametrize(
    ("given_range", "message"),
    [
        ({"t_stop": 0.15}, r"1 spike times are out of range, first 0.2 s; expected 0.0 to 0.15 s"),
        ({"t_start": 0.15}, "out of range, first 0.1 s; expected 0.15 to inf s"),
        ({"t_start": 1, "t_stop": 0.5}, "runs from 1 to 0.5 s; expected t_start < t_stop"),
        ({"t_stop": 0.0}, "runs from 0.0 to 0.0 s"),
        ({"t_stop": np.nan}, "runs from 0.0 to nan s"),
        ({"t_start": np.nan}, "runs from nan"),
    ],
)
def test_bad_range_is_refused(given_range, message):
    with pytest.raises(ValueError, match=message):
        bin_spikes([0.1, 0.2], [0, 0], BIN, **given_range)


def test_a_recording_shorter_than_a_bin_is_refused():
    with pytest.raises(
        ValueError, match=r"No bin of 1.0 s fits into the recording from 0.0 to 0.5"
    ):
        bin_spikes([0.1], [0], 1.0, t_stop=0.5)


@pytest.mark.parametrize(
    ("epochs", "message"),
    [
        ([[0.5, 0.9], [0.0, 0.4]], "epochs must be ascending and not overlapping"),
        ([[0.0, 0.5], [0.4, 0.9]], "epochs must be ascending and not overlapping"),
        ([[0.5, 0.5]], "each stop after its start"),
        ([[0.5, 0.2]], "each stop after its start"),
        ([[0.0, np.nan]], "epochs must be finite"),
        ([[0.0, 1.5]], r"epochs run from 0.0 to 1.5 s, out of the recording's range 0.0 to 1.0 s"),
        ([[-0.5, 0.5]], "epochs run from -0.5 to 0.5 s, out of the recording's range"),
        ([0.0, 1.0], r"epochs has shape \(2,\); expected \(n_epochs, 2\)"),
        ([[0.0, 0.5, 1.0]], r"epochs has shape \(1, 3\)"),
        ([], r"epochs has shape \(0,\)"),
        (np.zeros((0, 2)), r"epochs has shape \(0, 2\)"),
    ],
)
def test_bad_epochs_are_refused(epochs, message):
    with pytest.raises(ValueError, match=message):
        bin_spikes([0.1], [0], BIN, t_stop=1.0, epochs=epochs)


# --- recordings ---


def recording(**changes):
    """Arrays of a recording of 3 units and 5 spikes; None leaves one out."""
    arrays = {
        "spike_times": np.array([0.1, 0.4, 0.2, 0.7, 0.75]),
        "unit": np.array([0, 0, 1, 1, 1], np.int32),
        "n_units": 3,
        "t_start": 0.0,
        "t_stop": 1.0,
    }
    arrays.update(changes)
    return {name: value for name, value in arrays.items() if value is not None}


def write_recording(path, **changes):
    np.savez(path, **recording(**changes))
    return path


def test_a_recording_comes_back_as_written(tmp_path):
    spikes = load_spikes(write_recording(tmp_path / "r.npz"))
    np.testing.assert_array_equal(spikes.spike_times, recording()["spike_times"])
    np.testing.assert_array_equal(spikes.unit, recording()["unit"])
    assert (spikes.n_units, spikes.t_start, spikes.t_stop) == (3, 0.0, 1.0)
    assert spikes.spike_times.dtype == np.float64
    assert spikes.adjacency is None


def test_without_segments_the_whole_recording_is_one(tmp_path):
    spikes = load_spikes(write_recording(tmp_path / "r.npz", t_start=0.05))
    np.testing.assert_array_equal(spikes.segments, [[0.05, 1.0]])


def test_segments_and_adjacency_are_read(tmp_path):
    adjacency = np.arange(9.0).reshape(3, 3)
    segments = np.array([[0.0, 0.3], [0.5, 1.0]])
    path = write_recording(tmp_path / "r.npz", segments=segments, adjacency=adjacency)
    spikes = load_spikes(str(path))
    np.testing.assert_array_equal(spikes.segments, segments)
    np.testing.assert_array_equal(spikes.adjacency, adjacency)


def test_bin_uses_range_units_and_segments_of_the_recording(tmp_path):
    path = write_recording(tmp_path / "r.npz", segments=[[0.0, 0.3], [0.5, 1.0]])
    counts, epochs = load_spikes(path).bin(0.1)
    np.testing.assert_array_equal(epochs, [[0, 3], [3, 8]])
    expected = np.zeros((8, 3))
    expected[1, 0] = expected[2, 1] = 1  # 0.1 and 0.2 s; 0.4 s lies in the gap
    expected[5, 1] = 2
    np.testing.assert_array_equal(counts, expected)


def test_a_missing_recording_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file .*nowhere\.npz"):
        load_spikes(tmp_path / "nowhere.npz")


@pytest.mark.parametrize("name", ["spike_times", "unit", "n_units", "t_start", "t_stop"])
def test_a_missing_array_is_named(tmp_path, name):
    path = write_recording(tmp_path / "r.npz", **{name: None})
    with pytest.raises(ValueError, match=rf"has no {name}; a recording holds"):
        load_spikes(path)


def test_a_foreign_npz_is_not_a_recording(tmp_path):
    np.savez(tmp_path / "foreign.npz", a=np.ones(3))
    with pytest.raises(ValueError, match="has no spike_times, unit, n_units, t_start, t_stop"):
        load_spikes(tmp_path / "foreign.npz")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x93NUMPY", b"\x80\x04]\x94K\x01a."])
@pytest.mark.parametrize("load", [load_spikes, load_model])
def test_a_file_that_is_no_npz_is_refused(tmp_path, content, load):
    (tmp_path / "r.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"could not be read as a (recording|model): it is not an"):
        load(tmp_path / "r.npz")


def test_pickled_arrays_are_refused(tmp_path):
    times = np.array([0.1, 0.4, 0.2, 0.7, 0.75], dtype=object)
    path = write_recording(tmp_path / "r.npz", spike_times=times)
    with pytest.raises(ValueError, match=r"is not an \.npz file of plain arrays"):
        load_spikes(path)


def test_a_flipped_byte_in_the_spikes_is_noticed(tmp_path):
    path = write_recording(tmp_path / "r.npz")
    content = bytearray(path.read_bytes())
    content[content.index(recording()["spike_times"].tobytes()) + 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="could not be read as a recording"):
        load_spikes(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_units": "three"}, r"r\.npz: n_units is not one finite number"),
        ({"t_stop": [1.0, 2.0]}, r"r\.npz: t_stop is not one finite number"),
        ({"n_units": 1}, r"r\.npz: unit goes up to 1, but n_units is 1"),
        ({"t_stop": 0.5}, r"r\.npz: 2 spike times are out of range"),
        ({"t_start": np.nan}, r"r\.npz: t_start is not one finite number"),
        ({"unit": np.zeros(4, int)}, r"r\.npz: spike_times has 5 entries and unit 4"),
        ({"segments": [[0.0, 2.0]]}, r"r\.npz: epochs run from 0.0 to 2.0 s"),
        ({"segments": [0.0, 1.0]}, r"r\.npz: epochs has shape \(2,\)"),
        ({"adjacency": np.ones((3, 2))}, r"adjacency has shape \(3, 2\); expected \(3, 3\)"),
    ],
)
def test_a_bad_recording_is_refused_with_its_path(tmp_path, changes, message):
    path = write_recording(tmp_path / "r.npz", **changes)
    with pytest.raises(ValueError, match=message):
        load_spikes(path)


# --- models ---


def population(**params):
    """A fitted population of 3, its features (4 coupling columns each, one of a stimulus)."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.5, (120, 3))
    history = fastglm.basis.HistoryConv(4, label="coupling").compute_features(counts)
    X = fastglm.features.hstack([history, rng.normal(size=(120, 1))])
    return fastglm.PopulationGLM(**params).fit(X, counts), X, counts


def single(**params):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(60, 3))
    y = rng.poisson(1.0, 60)
    return fastglm.GLM(**params).fit(X, y), X, y


ARRAY_MASK = np.random.default_rng(2).random((13, 3)) < 0.6
DICT_MASK = {"coupling": [True, False, True], "columns": np.array([0, 1, 1])}
MODELS = {
    "population": (population, {}),
    "population, array mask": (population, {"feature_mask": ARRAY_MASK}),
    "population, dict mask": (population, {"feature_mask": DICT_MASK}),
    "population, ridge": (population, {"regularizer": "Ridge", "regularizer_strength": 0.1}),
    "population, default ridge": (population, {"regularizer": "Ridge"}),
    "population, strength per receiver": (
        population,
        {"regularizer": "Ridge", "regularizer_strength": [0.1, 0.0, 2.0]},
    ),
    "population, softplus": (population, {"inverse_link_function": "softplus"}),
    "population, function as link": (population, {"inverse_link_function": np.exp}),
    "population, solver": (
        population,
        {"solver_name": "newton-cg", "solver_kwargs": {"tol": 1e-9, "maxiter": 50}},
    ),
    "single": (single, {}),
    "single, array mask": (single, {"feature_mask": np.array([1, 0, 1])}),
    "single, dict mask": (single, {"feature_mask": {"columns": [1]}}),
    "single, ridge": (single, {"regularizer": "Ridge", "regularizer_strength": 0.5}),
    "single, softplus": (single, {"inverse_link_function": "softplus"}),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_comes_back_as_saved(tmp_path, name):
    make, params = MODELS[name]
    model, X, y = make(**params)
    model.save_params(tmp_path / "model.npz")
    loaded = load_model(tmp_path / "model.npz")
    assert type(loaded) is type(model)
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    assert loaded.score(X, y) == model.score(X, y)
    for attribute in ("coef_", "intercept_", "status_", "converged_", "objective_", "grad_norm_"):
        np.testing.assert_array_equal(getattr(loaded, attribute), getattr(model, attribute))
    for attribute in ("newton_decrement_", "n_iter_", "n_passes_"):
        np.testing.assert_array_equal(getattr(loaded, attribute), getattr(model, attribute))
    assert loaded.n_features_in_ == model.n_features_in_


@pytest.mark.parametrize("name", MODELS)
def test_a_loaded_model_can_be_fitted_again_to_the_same_answer(tmp_path, name):
    make, params = MODELS[name]
    model, X, y = make(**params)
    model.save_params(tmp_path / "model.npz")
    loaded = load_model(tmp_path / "model.npz")
    np.testing.assert_array_equal(loaded.fit(X, y).coef_, model.coef_)


@pytest.mark.parametrize("family", ["Bernoulli", "Gaussian"])
@pytest.mark.parametrize("given", [{}, {"sample_weight": 2.0, "offset": np.full(60, 0.5)}])
def test_family_scale_and_what_a_fit_had_come_back(tmp_path, family, given):
    rng = np.random.default_rng(0)
    rows, y = rng.normal(size=(60, 2)), rng.integers(0, 2, (60, 3))
    link = {"Bernoulli": "cloglog", "Gaussian": "identity"}[family]
    model = fastglm.PopulationGLM(family, link, "Ridge", 0.1).fit(rows, y, **given)
    model.save_params(tmp_path / "model.npz")
    loaded = load_model(tmp_path / "model.npz")
    params = loaded.get_params(deep=False)
    assert (params["observation_model"], params["inverse_link_function"]) == (family, link)
    np.testing.assert_array_equal(loaded.scale_, model.scale_)
    assert loaded.weighted_ is loaded.shifted_ is bool(given)
    np.testing.assert_array_equal(
        loaded.standard_errors(rows, y, **given), model.standard_errors(rows, y, **given)
    )
    if given:
        with pytest.raises(ValueError, match="fitted with sample_weight; pass the sample_weight"):
            loaded.standard_errors(rows, y, offset=given["offset"])


def test_a_family_given_as_object_comes_back(tmp_path):
    family = fastglm.observation_models.GaussianObservations()
    rng = np.random.default_rng(0)
    model = fastglm.GLM(family).fit(rng.normal(size=(60, 2)), rng.normal(size=60))
    model.save_params(tmp_path / "model.npz")
    assert load_model(tmp_path / "model.npz").get_params()["observation_model"] == "Gaussian"


def test_files_without_scale_and_flags_are_read(saved):
    with np.load(saved) as archive:
        params = json.loads(str(archive["header"]))["params"]
    rewrite(saved, {"params": params | {"observation_model": "Poisson"}, "fit": {}}, scale=None)
    loaded = load_model(saved)
    assert (loaded.scale_ == 1).all()
    assert loaded.weighted_ is loaded.shifted_ is False


def test_parameters_come_back(tmp_path):
    params = {
        "regularizer": "Ridge",
        "regularizer_strength": [0.1, 0.0, 2.0],
        "solver_name": "newton-cholesky",
        "solver_kwargs": {"maxiter": 30},
        "feature_mask": ARRAY_MASK,
    }
    model, _, _ = population(**params)
    model.save_params(tmp_path / "model.npz")
    found = load_model(tmp_path / "model.npz").get_params()
    np.testing.assert_array_equal(found["feature_mask"], ARRAY_MASK)
    np.testing.assert_array_equal(found["regularizer_strength"], [0.1, 0.0, 2.0])
    assert found["regularizer"] == "Ridge"
    assert found["solver_name"] == "newton-cholesky"
    assert found["solver_kwargs"] == {"maxiter": 30}
    assert found["inverse_link_function"] == "exp"


def test_a_dict_mask_comes_back_as_a_dict(tmp_path):
    model, _, _ = population(feature_mask=DICT_MASK)
    model.save_params(tmp_path / "model.npz")
    found = load_model(tmp_path / "model.npz").feature_mask
    assert set(found) == {"coupling", "columns"}
    np.testing.assert_array_equal(found["coupling"], [True, False, True])


def test_metadata_comes_back(tmp_path):
    metadata = {"recording": "a.npz", "bin_size": 0.001, "list": [1, 2], "nested": {"x": None}}
    save_model(single()[0], tmp_path / "model.npz", metadata)
    assert load_model(tmp_path / "model.npz").metadata_ == metadata


def test_metadata_survives_loading_and_saving_again(tmp_path):
    save_model(single()[0], tmp_path / "first.npz", {"bin_size": 0.001})
    load_model(tmp_path / "first.npz").save_params(tmp_path / "second.npz")
    assert load_model(tmp_path / "second.npz").metadata_ == {"bin_size": 0.001}


def test_metadata_is_empty_by_default(tmp_path):
    single()[0].save_params(tmp_path / "model.npz")
    assert load_model(tmp_path / "model.npz").metadata_ == {}


@pytest.mark.parametrize(
    ("given_name", "name"),
    [("model", "model.npz"), ("model.npz", "model.npz"), ("model.v1", "model.v1.npz")],
)
def test_the_suffix_is_appended_where_it_is_missing(tmp_path, given_name, name):
    single()[0].save_params(str(tmp_path / given_name))
    assert [p.name for p in tmp_path.iterdir()] == [name]  # and no temporary file
    load_model(tmp_path / name)


def test_saving_replaces_an_older_model(tmp_path):
    single()[0].save_params(tmp_path / "model.npz")
    model, _, _ = population()
    model.save_params(tmp_path / "model.npz")
    np.testing.assert_array_equal(load_model(tmp_path / "model.npz").coef_, model.coef_)


def test_metadata_that_json_cannot_hold_leaves_the_old_file_alone(tmp_path):
    model, _, _ = single()
    model.save_params(tmp_path / "model.npz")
    before = (tmp_path / "model.npz").read_bytes()
    with pytest.raises(TypeError, match="JSON"):
        save_model(model, tmp_path / "model.npz", {"x": object()})
    assert [p.name for p in tmp_path.iterdir()] == ["model.npz"]
    assert (tmp_path / "model.npz").read_bytes() == before


def test_a_write_that_fails_half_way_leaves_the_old_file_alone(tmp_path, monkeypatch):
    model, _, _ = single()
    model.save_params(tmp_path / "model.npz")
    before = (tmp_path / "model.npz").read_bytes()

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="No space left"):
        model.save_params(tmp_path / "model.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["model.npz"]
    assert (tmp_path / "model.npz").read_bytes() == before


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file .*nowhere\.npz"):
        load_model(tmp_path / "nowhere.npz")


def rewrite(path, header=None, **changes):
    """Save the arrays of a model again with some changed; None leaves one out."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    if header is not None:
        arrays["header"] = np.array(json.dumps(json.loads(str(arrays["header"])) | header))
    arrays.update(changes)
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


@pytest.fixture
def saved(tmp_path):
    """Path of a saved population of 3 receivers and 13 features."""
    population()[0].save_params(tmp_path / "model.npz")
    return tmp_path / "model.npz"


def test_an_unchanged_rewrite_loads(saved):
    rewrite(saved, header={"version": 1})
    assert load_model(saved).coef_.shape == (13, 3)


def test_a_newer_version_is_refused(saved):
    rewrite(saved, header={"version": 99})
    with pytest.raises(ValueError, match=r"has format version 99; this fastglm reads up to 1\. Up"):
        load_model(saved)


@pytest.mark.parametrize(
    "header", [{"format": "other"}, {"class": "Lasso"}, {"version": "new"}, {"params": None}]
)
def test_a_header_of_another_program_is_refused(saved, header):
    rewrite(saved, header=header)
    with pytest.raises(ValueError, match="is not a model of fastglm; expected a file that save_pa"):
        load_model(saved)


@pytest.mark.parametrize("header", [None, np.array("no json {"), np.array("[1, 2]"), np.ones(2)])
def test_a_missing_or_foreign_header_is_refused(saved, header):
    rewrite(saved)
    with np.load(saved) as archive:
        arrays = {name: archive[name] for name in archive.files if name != "header"}
    if header is not None:
        arrays["header"] = header
    np.savez(saved, **arrays)
    with pytest.raises(ValueError, match="is not a model of fastglm"):
        load_model(saved)


def test_a_recording_is_not_a_model(tmp_path):
    path = write_recording(tmp_path / "r.npz")
    with pytest.raises(ValueError, match="is not a model of fastglm"):
        load_model(path)


def test_a_model_is_not_a_recording(saved):
    with pytest.raises(ValueError, match="has no spike_times"):
        load_spikes(saved)


@pytest.mark.parametrize(
    "name",
    [
        *("coef", "intercept", "objective", "grad_norm", "newton_decrement"),
        *("n_iter", "n_passes", "status", "method"),
    ],
)
def test_a_model_without_one_of_its_arrays_is_damaged(saved, name):
    rewrite(saved, **{f"result_{name}": None})
    with pytest.raises(ValueError, match=rf"is a damaged model file: .*result_{name}"):
        load_model(saved)


@pytest.mark.parametrize(
    "changes",
    [
        {"result_coef": np.zeros((13, 4))},
        {"result_coef": np.zeros(13)},
        {"result_intercept": np.zeros(2)},
        {"result_status": np.array(["converged"])},
        {"result_objective": np.zeros((3, 1))},
        {"scale": np.ones(2)},
    ],
)
def test_arrays_of_wrong_shape_are_refused(saved, changes):
    rewrite(saved, **changes)
    with pytest.raises(ValueError, match=r"is a damaged model file: .*shape"):
        load_model(saved)


@pytest.mark.parametrize(
    "params",
    [
        {"colour": 1},
        {"observation_model": {"class": "Tweedie", "params": {}}},
        {"observation_model": {"class": "NegativeBinomial", "params": {"scale": -1}}},
        {"solver_kwargs": {"tol": -1}},
        {"solver_kwargs": {"x": 1}},
    ],
)
def test_parameters_that_no_model_has_are_refused(saved, params):
    rewrite(saved, header={"params": params})
    with pytest.raises(ValueError, match="is a damaged model file"):
        load_model(saved)


@pytest.mark.parametrize("gap", [False, True])
def test_a_spike_a_rounding_error_before_an_epoch_counts_as_its_first(gap):
    edge = 0.1 + 0.2  # 0.30000000000000004
    first = [0.0, 0.1] if gap else [0.0, edge]
    counts, epochs = bin_spikes([0.3], [0], BIN, t_stop=0.6, epochs=[first, [edge, 0.6]])
    assert np.flatnonzero(counts).tolist() == [epochs[1, 0]]


@pytest.mark.parametrize("unit", [np.inf, 1e30, -np.inf])
def test_a_unit_that_no_integer_holds_is_refused(unit):
    with pytest.raises(ValueError, match=r"unit holds numbers that are not integers|unit"):
        bin_spikes([0.1], [unit], BIN)


@pytest.mark.parametrize("bin_size", ["0.001", "fast"])
def test_a_bin_size_that_is_text_is_refused(bin_size):
    with pytest.raises(ValueError, match=r"bin_size is .*; expected seconds above 0"):
        bin_spikes([0.1], [0], bin_size)


@pytest.mark.parametrize("n_units", [np.nan, "a", [2]])
def test_n_units_that_is_no_number_is_refused(n_units):
    with pytest.raises(ValueError, match=r"n_units is .*; expected a positive integer"):
        bin_spikes([0.1], [0], BIN, n_units=n_units)


def test_an_infinite_recording_is_refused():
    with pytest.raises(ValueError, match=r"t_start < t_stop|infin|finite"):
        bin_spikes([0.1], [0], BIN, t_stop=np.inf)


def test_arrays_of_one_entry_are_numbers(tmp_path):
    path = write_recording(tmp_path / "r.npz", n_units=np.array([3]), t_stop=np.array([1.0]))
    assert load_spikes(path).n_units == 3


@pytest.mark.parametrize("n_units", [np.nan, 2.7])
def test_a_number_of_units_that_is_no_integer_is_refused_with_the_path(tmp_path, n_units):
    path = write_recording(tmp_path / "r.npz", n_units=n_units)
    with pytest.raises(ValueError, match=r"r\.npz.*n_units|n_units.*r\.npz"):
        load_spikes(path)


@pytest.mark.parametrize("load", [load_spikes, load_model])
def test_an_npy_file_is_refused(tmp_path, load):
    np.save(tmp_path / "a.npy", np.ones(3))
    with pytest.raises(ValueError, match="could not be read as a"):
        load(tmp_path / "a.npy")


@pytest.mark.parametrize("part", [0.01, 0.5, 0.99])
def test_a_truncated_recording_is_refused(tmp_path, part):
    path = write_recording(tmp_path / "r.npz")
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(ValueError, match="could not be read as a recording"):
        load_spikes(path)
    gc.collect()  # a file left open would warn here


@pytest.mark.parametrize("part", [0.01, 0.5, 0.99])
def test_a_truncated_model_is_refused(saved, part):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(part * len(content))])
    with pytest.raises(ValueError, match="could not be read as a model"):
        load_model(saved)
    gc.collect()


def test_a_flipped_byte_is_noticed_or_harmless(saved):
    content = saved.read_bytes()
    coef = load_model(saved).coef_
    noticed = 0
    for index in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[index] ^= 0xFF
        saved.write_bytes(damaged)
        try:
            loaded = load_model(saved)
        except ValueError:
            noticed += 1
        else:
            np.testing.assert_array_equal(loaded.coef_, coef)
    assert noticed > 0.3 * len(content) / 7
