"""From spike times to a fit: equal to the path over arrays, with memory by the spikes."""

import pickle
import re
import tracemalloc

import numpy as np
import pytest
from sklearn.base import clone

import fastglm
from fastglm.features import Events
from fastglm.recordings.spikes import SpikeTimes
from fastglm.recordings.units import read_units

BIN = 0.005
EPOCHS = np.array([[0.0, 15.0], [20.0, 29.9987]])  # a gap, and a last bin that is not whole
NAMES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def times():
    """Three units; the second follows the first by 20 ms."""
    rng = np.random.default_rng(2)
    times = [np.sort(rng.uniform(0, 30, n)) for n in (600, 300, 500)]
    times[1] = np.sort(np.concatenate([times[1], times[0][:300] + 0.02]))
    times[2][5] = times[2][4]  # two in one bin
    return times


def flat(times):
    return np.concatenate(times), np.repeat(np.arange(len(times)), [t.size for t in times])


def make_basis():
    return fastglm.basis.RaisedCosineLogConv(5, window_size=20)


def array_path(counts, epochs, basis=None, **settings):
    X = (basis or make_basis()).compute_features(counts, epochs=epochs)
    settings = {"regularizer": "Ridge", "regularizer_strength": 1e-4, **settings}
    return X, fastglm.PopulationGLM(**settings).fit(X, counts)


def same_fit(model, reference):
    np.testing.assert_allclose(model.coef_, reference.coef_, rtol=0, atol=1e-12)
    np.testing.assert_allclose(model.intercept_, reference.intercept_, rtol=0, atol=1e-12)
    assert (model.status_ == "converged").all()


@pytest.fixture(scope="module")
def fitted(times):
    units = dict(zip(NAMES, times, strict=True))
    return fastglm.fit_coupling(units, BIN, 0.1, make_basis(), epochs=EPOCHS)


# --- the same fit as that of arrays ---


def test_a_dict_of_times_gives_the_fit_of_the_counts(fitted, times):
    counts, epochs = fastglm.bin_spikes(*flat(times), BIN, epochs=EPOCHS, t_stop=30.1)
    X, reference = array_path(counts, epochs)
    same_fit(fitted, reference)
    np.testing.assert_array_equal(fitted.counts_.toarray(), counts)
    np.testing.assert_array_equal(fitted.epochs_, epochs)
    np.testing.assert_array_equal(fitted.X_, X)
    np.testing.assert_array_equal(fitted.predict(fitted.X_), reference.predict(X))
    assert isinstance(fitted.predict(fitted.X_), np.ndarray)


@pytest.mark.slow
def test_a_list_of_times_is_binned_from_zero_to_the_last_spike(times):
    counts = fastglm.bin_spikes(*flat(times), 0.002)
    model = fastglm.fit_coupling(times, bin_size=0.002, window=0.04)
    basis = fastglm.basis.RaisedCosineLogConv(8, window_size=20)
    same_fit(model, array_path(counts, None, basis)[1])
    assert model.basis_.window_size == 20
    assert model.coupling_map(model.X_, model.counts_).senders.tolist() == [0, 1, 2]


@pytest.mark.slow
def test_the_range_cuts_spikes_and_epochs(times):
    model = fastglm.fit_coupling(times, BIN, 0.1, t_start=5.0, t_stop=25.0, epochs=EPOCHS)
    kept = [t[(t >= 5) & (t <= 25)] for t in times]
    counts, epochs = fastglm.bin_spikes(
        *flat(kept), BIN, t_start=5.0, t_stop=25.0, epochs=[[5, 15], [20, 25]]
    )
    basis = fastglm.basis.RaisedCosineLogConv(8, window_size=20)
    same_fit(model, array_path(counts, epochs, basis)[1])
    longer = fastglm.fit_coupling(times, BIN, 0.1, t_stop=40.0)  # nothing happened
    assert longer.X_.shape[0] == 8000


def test_a_recording_gives_the_fit_of_its_counts(times, tmp_path):
    spike_times, unit = flat(times)
    np.savez(
        tmp_path / "recording.npz",
        spike_times=spike_times,
        unit=unit,
        n_units=3,
        t_start=-1.0,
        t_stop=31.0,
        segments=EPOCHS,
    )
    spikes = fastglm.load_spikes(tmp_path / "recording.npz")
    model = fastglm.fit_coupling(spikes, BIN, basis=make_basis(), epochs=[[10, 25]])
    counts, epochs = fastglm.bin_spikes(
        spike_times, unit, BIN, epochs=[[10, 15], [20, 25]], t_stop=31
    )
    same_fit(model, array_path(counts, epochs)[1])
    events, bounds = spikes.events(BIN)
    counts, epochs = spikes.bin(BIN)
    np.testing.assert_array_equal(events.toarray(), counts)
    np.testing.assert_array_equal(bounds, epochs)


def test_settings_reach_the_model(times):
    mask = np.repeat(np.eye(3, dtype=bool), 5, axis=0)
    model = fastglm.fit_coupling(
        times, BIN, None, make_basis(), None, feature_mask=mask, solver_name="newton-cholesky"
    )
    assert model.get_params()["regularizer"] is None
    assert model.regularizer_strength is None
    assert (model.coef_[~mask] == 0).all()
    assert clone(model).get_params()["solver_name"] == "newton-cholesky"
    strong = fastglm.fit_coupling(times, BIN, None, make_basis(), regularizer_strength=1.0)
    assert np.abs(strong.coef_).sum() < np.abs(model.coef_[mask]).sum() / 10


# --- one more line ---


def test_what_is_kept_goes_into_the_other_functions(fitted, tmp_path):
    couplings = fitted.coupling_map(fitted.X_, fitted.counts_)
    assert couplings.senders.tolist() == couplings.receivers.tolist() == NAMES
    assert couplings.significant()[0, 1]
    assert np.isnan(couplings.q_value.diagonal()).all()  # senders are seen to be the receivers
    errors = fitted.standard_errors(fitted.X_, fitted.counts_)
    assert errors.shape == fitted.coef_.shape
    assert np.isfinite(errors).all()
    dense = fitted.counts_.toarray()
    score = fitted.score(fitted.X_, fitted.counts_, "pseudo-r2-McFadden")
    assert score == fitted.score(fitted.X_, dense, "pseudo-r2-McFadden")
    explained = fastglm.diagnostics.deviance_explained(fitted, fitted.X_, fitted.counts_)
    np.testing.assert_array_equal(
        explained, fastglm.diagnostics.deviance_explained(fitted, fitted.X_, dense)
    )
    assert fitted.basis_.split_by_feature(fitted.coef_, axis=0)[fitted.basis_.label].shape[0] == 3
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict(again.X_), fitted.predict(fitted.X_))


def test_events_are_counts_for_one_receiver_too(fitted):
    one = fitted.counts_.select([1])
    model = fastglm.GLM(regularizer="Ridge", regularizer_strength=1e-4).fit(fitted.X_, one)
    np.testing.assert_allclose(model.coef_, fitted.coef_[:, 1], rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=r"y has shape \(4999, 3\); expected \(n_bins,\)"):
        model.fit(fitted.X_, fitted.counts_)


def test_a_table_of_events_holds_any_count():
    bins, units = np.array([0, 2], np.int32), np.array([1, 0], np.int32)
    table = Events(bins, units, np.array([1.0, 200.0]), (3, 2)).toarray()
    assert table.dtype == np.int32
    np.testing.assert_array_equal(table, [[0, 1], [0, 0], [200, 0]])
    assert repr(Events(bins, units, units, (3, 2))) == "Events(shape=(3, 2), n_events=2)"
    table = Events(bins, units, np.array([0.5, np.nan]), (3, 2)).toarray()
    np.testing.assert_array_equal(table, [[0, 0.5], [0, 0], [np.nan, 0]])


# --- pynapple ---


def make_group(nap, times, support):
    return nap.TsGroup(
        {k: nap.Ts(t) for k, t in zip((3, 7, 8), times, strict=True)},
        time_support=nap.IntervalSet(support),
        metadata={"area": ["CA1", "CA3", "CA1"]},
    )


@pytest.mark.parametrize(
    "bin_size", [0.005, 1 / 30, 0.0333, pytest.param(1e-4, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("end", [29.0, 28.9971, 28.99987])  # whole bins, less and more than half
def test_events_of_a_group_are_its_counts(times, bin_size, end):
    nap = pytest.importorskip("pynapple")
    ticks = [np.round(t, 4) for t in times]  # many spikes on the edges of bins
    units = make_group(nap, ticks, [[0.5, 10.0], [10.2, end]])
    counts = units.count(bin_size)
    events, epochs, columns = read_units(units, bin_size)
    assert events.shape == counts.shape
    np.testing.assert_array_equal(events.toarray(), counts.values)
    np.testing.assert_allclose(events.timeline.t, counts.t, rtol=0, atol=2e-9)
    X = make_basis().compute_features(counts)
    np.testing.assert_array_equal(X.timeline.epochs, epochs)
    assert columns.names == [3, 7, 8]


def test_a_group_gives_the_fit_of_its_counts_and_results_with_times(times):
    nap = pytest.importorskip("pynapple")
    units = make_group(nap, times, EPOCHS)
    model = fastglm.fit_coupling(units, bin_size=BIN, window=0.1, basis=make_basis())
    counts = units.count(BIN)
    same_fit(model, array_path(counts.values, [[0, 3000], [3000, 5000]])[1])
    rates = model.predict(model.X_)
    assert isinstance(rates, nap.TsdFrame)
    np.testing.assert_allclose(rates.t, counts.t, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(rates.time_support.values, EPOCHS)
    assert list(rates.columns) == [3, 7, 8]
    assert list(rates["area"]) == ["CA1", "CA3", "CA1"]
    assert model.coupling_map(model.X_, model.counts_).senders.tolist() == [3, 7, 8]
    residuals = model.residuals(model.X_, counts)
    assert isinstance(residuals, nap.TsdFrame)
    assert list(residuals["area"]) == ["CA1", "CA3", "CA1"]
    np.testing.assert_array_equal(residuals.values, counts.values - rates.values)
    assert abs(np.nanmean(residuals.values)) < 1e-9  # the intercept's equation


def test_a_group_in_some_epochs_is_its_counts_there(times):
    nap = pytest.importorskip("pynapple")
    units = make_group(nap, times, EPOCHS)
    inside = nap.IntervalSet([2.0, 12.0], [8.0, 26.0])
    model = fastglm.fit_coupling(units, BIN, basis=make_basis(), epochs=inside, t_stop=24.0)
    counts = units.count(BIN, ep=nap.IntervalSet([2.0, 12.0, 20.0], [8.0, 15.0, 24.0]))
    _, reference = array_path(counts, None)
    same_fit(model, reference)
    np.testing.assert_allclose(model.X_.timeline.t, counts.t, rtol=0, atol=1e-9)
    listed = fastglm.fit_coupling(
        [units[k] for k in units], BIN, basis=make_basis(), epochs=nap.IntervalSet(2.0, 8.0)
    )
    assert listed.X_.shape == (1200, 15)
    assert listed.X_.timeline is None
    with pytest.raises(ValueError, match="Nothing is left of the recording"):
        fastglm.fit_coupling(units, BIN, epochs=nap.IntervalSet(40, 50))


# --- memory ---


def test_an_hour_at_a_tenth_of_a_millisecond_takes_memory_by_the_spikes():
    rng = np.random.default_rng(0)
    n_spikes, n_units, n_bins = 50_000, 50, 36_000_000
    times = [np.sort(rng.uniform(0, 3600, n_spikes // n_units)) for _ in range(n_units)]
    events, _, _ = read_units(times, 1e-4, t_stop=3600.0)  # what is loaded once is loaded
    tracemalloc.start()
    events, epochs, _ = read_units(times, 1e-4, t_stop=3600.0)
    kept, peak = tracemalloc.get_traced_memory()
    assert kept < 24 * n_spikes
    assert peak < 200 * n_spikes
    X = fastglm.basis.RaisedCosineLogConv(8, window_size=1000).compute_features(
        events, epochs=epochs
    )
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # One byte a bin says which rows are known; counts would take n_units bytes.
    assert kept < 80 * n_spikes + 1.01 * n_bins
    assert peak < 200 * n_spikes + 1.01 * n_bins
    assert X.shape == (n_bins, 8 * n_units)


@pytest.mark.slow
def test_bins_of_a_tenth_of_a_millisecond_give_the_fit_of_the_counts(times):
    model = fastglm.fit_coupling(times, bin_size=1e-4, window=0.01, epochs=[[0, 10]])
    counts, epochs = fastglm.bin_spikes(*flat(times), 1e-4, epochs=[[0, 10]], t_stop=31)
    basis = fastglm.basis.RaisedCosineLogConv(8, window_size=100)
    same_fit(model, array_path(counts, epochs, basis)[1])


# --- what does not fit ---


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (np.zeros((10, 2)), r"units is a ndarray; expected a TsGroup.*compute_features"),
        ([], "units is a list; expected a TsGroup"),
        ([np.zeros((2, 2))], r"unit 0 has shape \(2, 2\) and dtype float64"),
        ({"x": ["a"]}, "unit 'x' has shape"),
        ([[0.2, 0.1]], "not ascending at index 1"),
        ([[np.nan, 0.1]], "NaN or infinity"),
        ([[-0.5, 0.1]], r"out of range \(negative\), first -0.5 s"),
    ],
)
def test_units_that_are_no_spike_times_are_refused(units, message):
    with pytest.raises(ValueError, match=message):
        fastglm.fit_coupling(units)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bin_size": 0}, "bin_size is 0; expected seconds"),
        ({"window": 0.001}, "window is 0.001; expected at least one bin of 0.005 s"),
        ({"window": 0.005}, "A window of one bin of 0.005 s is too short"),
        ({"basis": fastglm.basis.IdentityEval()}, "expected a convolution basis"),
        (
            {"basis": make_basis(), "window": 0.2},
            "window is 0.2 s, 40 bins of 0.005 s, but the basis has window_size=20",
        ),
        ({"t_start": 3, "t_stop": 2}, "The recording runs from 3 to 2 s"),
        ({"t_start": "x"}, "t_start is 'x'; expected seconds"),
        ({"epochs": [[5, 6]], "t_stop": 2}, "Nothing is left of the recording"),
        ({"epochs": [[5, 4]]}, "each stop after its start"),
        ({"t_stop": 1e9, "bin_size": 1e-4}, "use wider bins"),
        ({"epochs": [[0, 1e-3]]}, "No bin of 0.005 s fits into the recording from 0.0 to 0.001 s"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(times, arguments, message):
    with pytest.raises(ValueError, match=message):
        fastglm.fit_coupling(times, **arguments)


# --- families ---


def test_the_default_window_is_a_tenth_of_a_second(times):
    assert fastglm.fit_coupling(times, BIN).basis_.window_size == 20


def test_counts_cut_at_1_are_those_of_an_array_that_is_cut(times):
    counts, epochs = fastglm.bin_spikes(*flat(times), BIN, epochs=[[0, 30]])
    assert counts.max() > 1
    _, reference = array_path(counts.clip(max=1), epochs, observation_model="Bernoulli")
    model = fastglm.fit_coupling(
        times, BIN, basis=make_basis(), t_stop=30.0, observation_model="Bernoulli", clip=True
    )
    same_fit(model, reference)
    np.testing.assert_array_equal(model.counts_.toarray(), counts.clip(max=1))
    poisson = fastglm.fit_coupling(times, BIN, basis=make_basis(), t_stop=30.0, clip=True)
    same_fit(poisson, array_path(counts.clip(max=1), epochs)[1])
    gaussian = fastglm.fit_coupling(
        times, BIN, basis=make_basis(), t_stop=30.0, observation_model="Gaussian"
    )
    same_fit(gaussian, array_path(counts, epochs, observation_model="Gaussian")[1])


def as_spike_times(units):
    times, unit = flat(list(units.values()))
    order = np.argsort(times, kind="stable")
    names = np.array(list(units))
    return SpikeTimes(times[order], unit[order], len(units), 0.0, 30.1, None, names)


@pytest.mark.parametrize("form", ["dict", "spikes", "pynapple"])
@pytest.mark.parametrize("function", [fastglm.fit_coupling, fastglm.infer_connectivity])
def test_several_spikes_in_a_bin_name_the_bins_that_do(times, form, function):
    units = dict(zip(NAMES, [*times[:2], np.array([1.0, 1.0023, 2.0, 2.5])], strict=True))
    if form == "spikes":
        units = as_spike_times(units)
    if form == "pynapple":
        nap = pytest.importorskip("pynapple")
        units = nap.TsGroup({k: nap.Ts(t) for k, t in enumerate(units.values())})
    shortest = min(np.diff(times[0]).min(), np.diff(times[1]).min())
    match = (
        r"(Unit|unit) .* spikes in bin \d+ of 5 ms, .* use bins of at most ([\d.e-]+) ms, or cut"
    )
    with pytest.raises(ValueError, match=match) as error:
        function(units, bin_size=BIN, observation_model="Bernoulli")
    most = float(re.search(match, str(error.value))[2]) / 1e3
    assert 0.9 * shortest < most <= shortest


def test_two_spikes_at_once_can_only_be_cut(times):
    with pytest.raises(ValueError, match="To go on, cut the counts at 1: clip=True"):
        fastglm.fit_coupling(times, BIN, observation_model="Bernoulli")


# --- counts that vary more than Poisson counts ---


@pytest.fixture(scope="module")
def bursts():
    """Counts of three cells with negative binomial noise of scale 0.8; the second follows the
    first. Spike times of the same counts."""
    rng = np.random.default_rng(0)
    kernel, counts = make_basis().kernel_, np.zeros((6020, 3), int)
    for t in range(20, len(counts)):
        drive = kernel.T @ counts[t - 20 : t, 0][::-1] @ [0.5, 0.3, 0.1, 0.0, 0.0]
        mu = np.exp(-1.2 + np.array([0.0, drive, 0.0]))
        counts[t] = rng.poisson(mu * rng.gamma(1 / 0.8, 0.8, size=3))
    counts = counts[20:]
    starts = np.arange(len(counts)) * BIN
    return counts, [np.repeat(starts + BIN / 2, column) for column in counts.T]


@pytest.mark.parametrize("scale", [0.8, "estimate", None])
def test_negative_binomial_cells_from_spike_times(bursts, scale):
    counts, times = bursts
    family = fastglm.observation_models.NegativeBinomialObservations
    family = "NegativeBinomial" if scale is None else family(scale)
    whole = {"t_start": 0.0, "t_stop": len(counts) * BIN}
    model = fastglm.fit_coupling(times, BIN, basis=make_basis(), observation_model=family, **whole)
    _, reference = array_path(counts, None, observation_model=family)
    same_fit(model, reference)
    np.testing.assert_allclose(model.scale_, reference.scale_, rtol=1e-9)
    if scale == "estimate":
        np.testing.assert_allclose(model.scale_, 0.8, atol=0.15)
    else:
        np.testing.assert_array_equal(model.scale_, 1.0 if scale is None else scale)


def test_a_map_of_negative_binomial_cells(bursts):
    counts, times = bursts
    family = fastglm.observation_models.NegativeBinomialObservations("estimate")
    for given, scale in ((family, 0.8), ("NegativeBinomial", 1.0)):
        found = fastglm.infer_connectivity(
            times, BIN, [[0.0, len(counts) * BIN]], basis=make_basis(), observation_model=given
        )
        assert (found.q_value < 0.01).sum() == 1
        assert found.q_value[0, 1] < 0.01
        assert found.strength[0, 1] > 0
        np.testing.assert_allclose(found.model.scale_, scale, atol=0.15 if given is family else 0)
