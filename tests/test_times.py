"""Times at the door: pynapple's objects in and out equal the arrays that they hold."""

import subprocess
import sys
import warnings

import numpy as np
import pytest

import fastglm
from fastglm._pynapple import Columns, Timeline, common_timeline, intersect
from fastglm.recordings.units import read_units

nap = pytest.importorskip("pynapple")

BIN = 0.01
INTERVALS = np.array([[0.0, 20.0], [30.003, 50.003], [60.0, 60.1]])  # the last: 10 bins
EPOCHS = np.array([[0, 2000], [2000, 4000], [4000, 4010]])


@pytest.fixture(scope="module")
def units():
    """Three units with names, areas and gaps in the recording; the second follows the first."""
    rng = np.random.default_rng(0)
    times = [np.sort(rng.uniform(0, 61, n)) for n in (700, 500, 900)]
    times[1] = np.sort(np.concatenate([times[1], times[0] + 0.03]))
    return nap.TsGroup(
        {name: nap.Ts(t) for name, t in zip((3, 7, 8), times, strict=True)},
        time_support=nap.IntervalSet(INTERVALS),
        metadata={"area": ["CA1", "CA3", "CA1"]},
    )


@pytest.fixture(scope="module")
def counts(units):
    return units.count(BIN)


def make_basis():
    return fastglm.basis.RaisedCosineLogConv(3, window_size=8, label="coupling")


def make_model():
    return fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-3)


@pytest.fixture(scope="module")
def fitted(counts):
    X = make_basis().compute_features(counts)
    return X, make_model().fit(X, counts)


@pytest.fixture(scope="module")
def of_arrays(counts):
    X = make_basis().compute_features(counts.values, epochs=EPOCHS)
    return X, make_model().fit(X, counts.values)


def same_times(result, like):
    assert isinstance(result, nap.TsdFrame)
    np.testing.assert_array_equal(result.t, like.t)
    np.testing.assert_array_equal(result.time_support.values, like.time_support.values)


# --- in ---


def test_the_time_support_is_the_epochs(fitted, of_arrays):
    (X, model), (expected, reference) = fitted, of_arrays
    first = [first + np.arange(8) for first in EPOCHS[:, 0]]
    assert not X.valid[np.concatenate(first)].any()  # no history across the gaps
    assert X.valid.sum() == 4010 - 3 * 8
    np.testing.assert_array_equal(X.valid, expected.valid)
    np.testing.assert_array_equal(np.asarray(X), np.asarray(expected))
    np.testing.assert_allclose(model.coef_, reference.coef_, rtol=0, atol=1e-12)
    np.testing.assert_allclose(model.intercept_, reference.intercept_, rtol=0, atol=1e-12)


def test_a_support_without_gaps_gives_another_fit(counts, fitted):
    X = make_basis().compute_features(counts.values)
    assert X.valid.sum() == 4010 - 8
    assert np.abs(make_model().fit(X, counts.values).coef_ - fitted[1].coef_).max() > 1e-6


def test_an_interval_set_as_epochs_takes_a_part_of_the_support(counts):
    inside = nap.IntervalSet([10.0, 25.0], [15.0, 40.003])  # from within a gap on
    X = make_basis().compute_features(counts, epochs=inside)
    expected = make_basis().compute_features(counts.values, epochs=[[1000, 1500], [2000, 3000]])
    np.testing.assert_array_equal(X.valid, expected.valid)
    bins = make_basis().compute_features(counts, epochs=[[1000, 3000]])  # over the gap
    expected = make_basis().compute_features(counts.values, epochs=[[1000, 2000], [2000, 3000]])
    np.testing.assert_array_equal(bins.valid, expected.valid)


def test_restricted_counts_fit_as_a_part_of_the_array(counts):
    part = counts.restrict(nap.IntervalSet(30.003, 50.003))
    X = make_basis().compute_features(part)
    model = make_model().fit(X, part)
    values = counts.values[2000:4000]
    reference = make_model().fit(make_basis().compute_features(values), values)
    np.testing.assert_allclose(model.coef_, reference.coef_, rtol=0, atol=1e-12)


def test_trials_are_a_list_of_frames(counts, of_arrays):
    trials = [counts.restrict(interval) for interval in counts.time_support]
    X = make_basis().compute_features(trials)
    model = make_model().fit(X, trials)
    np.testing.assert_allclose(model.coef_, of_arrays[1].coef_, rtol=0, atol=1e-12)
    same_times(model.predict(X), counts)


def test_a_covariate_with_times_stands_beside_the_history(counts, fitted, of_arrays):
    speed = nap.Tsd(t=counts.t, d=np.sin(counts.t), time_support=counts.time_support)
    X = np.hstack([fitted[0], fastglm.basis.BSplineEval(5, label="speed").compute_features(speed)])
    assert X.timeline is not None
    model = make_model().fit(X, counts)
    covariate = fastglm.basis.BSplineEval(5).compute_features(speed.values)
    reference = make_model().fit(np.hstack([of_arrays[0], covariate]), counts.values)
    np.testing.assert_allclose(model.coef_, reference.coef_, rtol=0, atol=1e-12)
    same_times(model.predict(X), counts)
    product = make_basis() * fastglm.basis.IdentityEval()
    gain = nap.TsdFrame(
        t=counts.t, d=np.column_stack([speed.values] * 3), time_support=counts.time_support
    )
    same_times(product.compute_features(counts, gain)[:], counts)


def test_weights_and_offsets_may_have_times(counts, fitted, of_arrays):
    weight = nap.Tsd(t=counts.t, d=1 + np.cos(counts.t) ** 2, time_support=counts.time_support)
    offset = nap.Tsd(t=counts.t, d=np.sin(counts.t), time_support=counts.time_support)
    model = make_model().fit(fitted[0], counts, sample_weight=weight, offset=offset)
    reference = make_model().fit(
        of_arrays[0], counts.values, sample_weight=weight.values, offset=offset.values
    )
    np.testing.assert_allclose(model.coef_, reference.coef_, rtol=0, atol=1e-12)
    same_times(model.predict(fitted[0], offset), counts)


def test_one_receiver_is_a_tsd(counts, fitted, of_arrays):
    model = fastglm.GLM(regularizer="Ridge", regularizer_strength=1e-3)
    model.fit(fitted[0], counts[:, 1])
    np.testing.assert_allclose(model.coef_, of_arrays[1].coef_[:, 1], rtol=0, atol=1e-12)
    rates = model.predict(fitted[0])
    assert isinstance(rates, nap.Tsd)
    np.testing.assert_array_equal(rates.t, counts.t)
    np.testing.assert_array_equal(rates.time_support.values, counts.time_support.values)
    one = make_basis().compute_features(counts[:, 1])
    assert one.shape == (4010, 3)
    assert one.timeline is not None


# --- out ---


def test_features_come_back_with_times_columns_and_metadata(counts, fitted):
    X = fitted[0][:]
    same_times(X, counts)
    np.testing.assert_array_equal(X["label"], ["coupling"] * 9)
    np.testing.assert_array_equal(X["input"], np.repeat([3, 7, 8], 3))
    np.testing.assert_array_equal(X["area"], np.repeat(["CA1", "CA3", "CA1"], 3))
    np.testing.assert_array_equal(X["function"], [0, 1, 2] * 3)
    np.testing.assert_array_equal(X.values, np.asarray(fitted[0]))
    part = fitted[0][1990:2010, 3:5]
    np.testing.assert_array_equal(part.t, counts.t[1990:2010])
    np.testing.assert_array_equal(part["input"], [7, 7])
    np.testing.assert_array_equal(part.values, np.asarray(fitted[0])[1990:2010, 3:5])
    column = fitted[0][:, 4]
    assert isinstance(column, nap.Tsd)
    assert isinstance(fitted[0][5], np.ndarray)  # one row has no interval
    assert isinstance(fitted[0][np.array([7, 3])], np.ndarray)


def test_features_by_label_are_tensors_with_times(counts, fitted):
    basis = make_basis()
    basis.compute_features(counts)
    coupling = basis.split_by_feature(fitted[0])["coupling"]
    assert isinstance(coupling, nap.TsdTensor)
    assert coupling.shape == (4010, 3, 3)
    np.testing.assert_array_equal(coupling.t, counts.t)


def test_predictions_come_back_as_the_counts_came(counts, fitted, of_arrays):
    rates = fitted[1].predict(fitted[0])
    same_times(rates, counts)
    assert list(rates.columns) == [3, 7, 8]
    np.testing.assert_array_equal(rates["area"], ["CA1", "CA3", "CA1"])
    expected = of_arrays[1].predict(of_arrays[0])
    np.testing.assert_allclose(rates.values, expected, rtol=1e-11)
    residuals = counts - rates.values
    same_times(residuals, counts)
    np.testing.assert_array_equal(residuals["area"], ["CA1", "CA3", "CA1"])
    drawn, rates = fitted[1].simulate(0, fitted[0])
    same_times(drawn, counts)
    same_times(rates, counts)
    assert fitted[1].score(fitted[0], counts) == pytest.approx(
        of_arrays[1].score(of_arrays[0], counts.values), rel=1e-12
    )


def test_predictions_of_plain_counts_have_plain_columns(counts, fitted):
    model = make_model().fit(fitted[0], counts.values)
    rates = model.predict(fitted[0])
    same_times(rates, counts)
    assert list(rates.columns) == [0, 1, 2]
    assert isinstance(model.predict(np.asarray(fitted[0])), np.ndarray)


def test_couplings_have_the_names_of_the_units(counts, fitted, of_arrays):
    couplings = fitted[1].coupling_map(fitted[0], counts)
    np.testing.assert_array_equal(couplings.senders, [3, 7, 8])
    np.testing.assert_array_equal(couplings.receivers, [3, 7, 8])
    expected = of_arrays[1].coupling_map(of_arrays[0], counts.values)
    np.testing.assert_allclose(couplings.standard_error, expected.standard_error, rtol=1e-9)
    assert couplings.significant()[0, 1]


# --- what does not fit ---


def test_other_bins_are_refused(counts, fitted, units):
    with pytest.raises(ValueError, match=r"X and y have different times: 4010 bins.*same bin size"):
        make_model().fit(fitted[0], units.count(0.02))
    with pytest.raises(ValueError, match=r"X and y have different times.*restrict both"):
        make_model().fit(fitted[0], counts.restrict(nap.IntervalSet(0, 20)))
    with pytest.raises(ValueError, match="X and y have different times"):
        fitted[1].score(fitted[0], units.count(0.02))


def test_the_same_bins_at_other_times_are_refused(counts, fitted):
    later = nap.TsdFrame(t=counts.t + 0.005, d=counts.values)
    with pytest.raises(ValueError, match=r"bin 0 is at 0.005 s in the one and at 0.01 s in"):
        make_model().fit(fitted[0], later)
    almost = nap.TsdFrame(t=counts.t + 1e-9, d=counts.values)  # a rounding error
    make_model().fit(fitted[0], almost)


def test_parts_with_other_times_are_refused(counts, fitted):
    late = nap.Tsd(t=counts.t + 1, d=counts.t)
    with pytest.raises(ValueError, match="block 0 and block 1 have different times"):
        np.hstack([fitted[0], fastglm.basis.IdentityEval().compute_features(late)])
    frame = nap.TsdFrame(t=counts.t + 1, d=counts.values)
    with pytest.raises(ValueError, match="have different times"):
        (make_basis() * fastglm.basis.IdentityEval()).compute_features(counts, frame)


def test_spike_times_are_not_counts(units):
    with pytest.raises(ValueError, match=r"Counts are spike times \(a TsGroup\).*fit_coupling"):
        make_basis().compute_features(units)
    with pytest.raises(ValueError, match=r"spike times \(a Ts\)"):
        make_basis().compute_features(units[3])
    with pytest.raises(ValueError, match="Counts are an IntervalSet"):
        make_basis().compute_features(units.time_support)


def test_irregular_bins_are_refused(counts):
    t = counts.t[:2000].copy()
    t[1500:] += 0.004
    with pytest.raises(ValueError, match=r"bins of 0.01 s, but the step after 14.995 s is 0.014 s"):
        make_basis().compute_features(nap.TsdFrame(t=t, d=counts.values[:2000]))


def test_intervals_need_times_and_bins(counts):
    with pytest.raises(ValueError, match=r"epochs is an IntervalSet, in seconds, but the counts"):
        make_basis().compute_features(counts.values, epochs=nap.IntervalSet(0, 10))
    with pytest.raises(ValueError, match=r"epochs hold none of the 4010 bins of 0.01 s"):
        make_basis().compute_features(counts, epochs=nap.IntervalSet(100, 110))


def test_trials_that_overlap_are_refused(counts):
    trials = [counts.restrict(nap.IntervalSet(0, 10)), counts.restrict(nap.IntervalSet(5, 15))]
    with pytest.raises(ValueError, match="2 trials that cannot be put end to end"):
        make_basis().compute_features(trials)


def test_spikes_are_binned_in_an_interval_set(units):
    inside = nap.IntervalSet([1.0, 30.003], [2.0, 31.003])
    times = [units[k].t for k in units]
    unit = np.repeat(np.arange(3), [t.size for t in times])
    counts, epochs = fastglm.bin_spikes(
        np.concatenate(times), unit, BIN, epochs=inside, t_stop=61.0
    )
    np.testing.assert_array_equal(counts, units.count(BIN, ep=inside).values)
    np.testing.assert_array_equal(epochs, [[0, 100], [100, 200]])


# --- pieces ---


def test_a_grid_is_the_times_that_it_stands_for(counts):
    grid = Timeline(counts.time_support, grid=(INTERVALS[:, 0], np.array([2000, 2000, 10]), BIN))
    np.testing.assert_allclose(grid.t, counts.t, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(grid.epochs, EPOCHS)
    assert (grid.n_bins, grid.bin_size) == (4010, BIN)
    times = Timeline(counts.time_support, counts.t)
    np.testing.assert_array_equal(times.epochs, EPOCHS)
    assert times.bin_size == pytest.approx(BIN)
    assert common_timeline([None, grid, times], ["a", "b", "c"]) is grid
    assert common_timeline([None, None], ["a", "b"]) is None
    assert str(grid) == "4010 bins of 0.01 s in 3 intervals from 0 to 60.1 s"
    assert Timeline(counts.time_support, counts.t[:1]).bin_size is None


@pytest.mark.parametrize("bin_size", [1e-5, 0.001, 0.005])
def test_bins_in_unix_time_are_regular(bin_size):
    start = 1_650_000_000.3
    first = nap.Tsd(t=start + np.arange(500) * bin_size, d=np.zeros(500))
    later = nap.Tsd(t=start + 10 + np.arange(3) * bin_size, d=np.zeros(3))
    timeline = Timeline(first.time_support.union(later.time_support), np.append(first.t, later.t))
    timeline.check_regular("Counts")
    assert timeline.bin_size == pytest.approx(bin_size, rel=1e-3 * 1e-5 / bin_size)
    shifted = Timeline(timeline.support, timeline.t + 2.5e-7)
    assert common_timeline([timeline, shifted], ["a", "b"]) is timeline
    with pytest.raises(ValueError, match="have different times"):
        common_timeline([timeline, Timeline(timeline.support, timeline.t + bin_size)], ["a", "b"])


def test_columns_of_a_group_have_no_rate(units):
    columns = Columns.of(units)
    assert columns.names == [3, 7, 8]
    assert columns.metadata == {"area": ["CA1", "CA3", "CA1"]}
    assert columns.take([2, 0]).names == [8, 3]


def test_intersections_equal_loops():
    rng = np.random.default_rng(1)
    for _ in range(50):
        a, b = (np.sort(rng.choice(40, 2 * rng.integers(1, 6), False)).reshape(-1, 2) for _ in "ab")
        naive = [(max(p[0], q[0]), min(p[1], q[1])) for p in a for q in b]
        naive = [pair for pair in naive if pair[0] < pair[1]]
        np.testing.assert_array_equal(intersect(a, b), np.reshape(naive, (-1, 2)))


def test_spikes_after_an_epoch_are_left_out_as_in_pynapple():
    units = nap.TsGroup({0: nap.Ts([0.03, 0.24, 0.26, 0.4])}, nap.IntervalSet(0, 1))
    epochs = nap.IntervalSet(0, 0.25)
    found, _, _ = read_units(units, 0.1, epochs)
    np.testing.assert_array_equal(found.toarray(), units.restrict(epochs).count(0.1).values)


def test_nothing_of_it_is_imported_without_its_objects():
    code = (
        "import sys; sys.modules['pynapple'] = None\n"  # an import raises
        "import numpy as np, fastglm\n"
        "counts = np.random.default_rng(0).poisson(0.2, (300, 2))\n"
        "X = fastglm.basis.HistoryConv(2).compute_features(counts, epochs=[[0, 100], [150, 300]])\n"
        "np.nanmean(X[5:], axis=0), X[5:] + 1, X[::2, :3].T\n"
        "print(fastglm.PopulationGLM().fit(X, counts).predict(X).shape, 'jax' in sys.modules)"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout.strip() == "(300, 2) False", out.stderr
