"""Times as users have them: Unix clocks, float32, other units, epochs that touch, other scales."""

import numpy as np
import pytest

import fastglm
from fastglm import bin_spikes
from fastglm.recordings.intervals import merge, subtract
from fastglm.recordings.times import has_unit
from fastglm.recordings.units import read_trains, read_units

UNIX = 1_650_000_000.3  # no multiple of a bin, nor of a power of 2


def ticks_of(seed, n_ticks, n_spikes):
    rng = np.random.default_rng(seed)
    return np.unique(rng.integers(0, n_ticks, n_spikes))


class Quantity:
    """A number or an array with a unit of time, with the members of pint's class."""

    def __init__(self, values, seconds):
        self.magnitude, self.seconds = np.asarray(values), seconds

    def to(self, unit):
        if self.seconds is None:
            raise TypeError("Cannot convert from 'mV' to 's'")
        assert unit == "s"
        return Quantity(self.magnitude * self.seconds, 1.0)


# --- resolution ---


@pytest.mark.parametrize("start", [0.0, 86_400.7, 5e6, UNIX, -UNIX])
@pytest.mark.parametrize("per_bin", [1, 4])
def test_spikes_on_a_grid_are_in_their_bins_on_any_clock(start, per_bin):
    ticks = ticks_of(0, 40_000, 3000)  # 0.5 ms, no power of 2
    times, unit = start + ticks * 0.0005, np.zeros(ticks.size, int)
    expected = np.bincount(ticks // per_bin, minlength=40_000 // per_bin)
    counts = bin_spikes(times, unit, 0.0005 * per_bin, t_start=start, t_stop=start + 20)
    np.testing.assert_array_equal(counts[:, 0], expected)
    counts = bin_spikes(times, unit, 0.0005 * per_bin, t_start=start)  # to the last spike
    np.testing.assert_array_equal(counts[:, 0], expected[: ticks[-1] // per_bin + 1])
    events, _, _ = read_units([times], 0.0005 * per_bin, None, start, start + 20)
    np.testing.assert_array_equal(events.toarray()[:, 0], expected)


def test_a_spike_a_rounding_error_before_the_start_is_in_the_first_bin():
    early, late = np.nextafter(UNIX, 0), np.nextafter(UNIX + 1, np.inf)
    counts = bin_spikes([early, late], [0, 0], 0.1, t_start=UNIX, t_stop=UNIX + 1)
    assert counts[:, 0].tolist() == [1] + [0] * 9
    with pytest.raises(ValueError, match="1 spike times are out of range"):
        bin_spikes([UNIX - 1e-5], [0], 0.1, t_start=UNIX, t_stop=UNIX + 1)


def test_epochs_in_unix_time_have_all_their_bins():
    first = np.sort(np.random.default_rng(1).choice(1000, 60, replace=False)) * 30
    epochs = UNIX + np.column_stack([first, first + 20]) * 0.001
    ticks = ticks_of(2, 30_000, 4000)
    counts, bounds = bin_spikes(
        UNIX + ticks * 0.001, np.zeros(ticks.size, int), 0.001, epochs=epochs, t_stop=UNIX + 31
    )
    table = np.bincount(ticks, minlength=30_000)
    np.testing.assert_array_equal(counts[:, 0], np.concatenate([table[f : f + 20] for f in first]))
    np.testing.assert_array_equal(np.diff(bounds), 20)


def test_a_group_in_unix_time_is_in_its_bins():
    nap = pytest.importorskip("pynapple")
    ticks = ticks_of(3, 30_000, 3000)
    start = 1_650_000_000.0
    support = nap.IntervalSet(start, start + 30)
    units = nap.TsGroup({4: nap.Ts(start + ticks * 0.001)}, time_support=support)
    events, _, _ = read_units(units, 0.001)
    np.testing.assert_array_equal(events.toarray()[:, 0], np.bincount(ticks, minlength=30_000))


def test_times_of_float32_are_warned_about_and_rounded():
    ticks = ticks_of(4, 200_000, 4000)
    times = (ticks * 0.005).astype(np.float32)  # up to 1,000 s, steps of 0.06 ms
    with pytest.warns(UserWarning, match=r"spike_times are float32, which has steps of 6.1e-05 s"):
        counts = bin_spikes(times, np.zeros(ticks.size, int), 0.005, t_stop=1000)
    np.testing.assert_array_equal(counts[:, 0], np.bincount(ticks, minlength=200_000))
    with pytest.warns(UserWarning, match="spike times are float32"):
        events, _, _ = read_units({"a": ticks * 0.005, "b": times}, 0.005, t_stop=1000.0)
    table = events.toarray()
    np.testing.assert_array_equal(table[:, 0], table[:, 1])


def test_a_recording_of_float32_keeps_its_resolution(tmp_path):
    ticks = ticks_of(5, 200_000, 4000)
    np.savez(
        tmp_path / "r.npz", spike_times=(ticks * 0.005).astype(np.float32), n_units=1,
        unit=np.zeros(ticks.size, int), t_start=0.0, t_stop=1000.0,
    )  # fmt: skip
    with pytest.warns(UserWarning, match="float32"):
        spikes = fastglm.load_spikes(tmp_path / "r.npz")
    expected = np.bincount(ticks, minlength=200_000)
    np.testing.assert_array_equal(spikes.bin(0.005)[0][:, 0], expected)
    events, _, _ = read_units(spikes, 0.005)
    np.testing.assert_array_equal(events.toarray()[:, 0], expected)


def test_bins_that_a_clock_does_not_resolve_are_warned_about():
    times = UNIX + np.arange(50) * 0.01
    with pytest.warns(UserWarning, match=r"float64 holds times to 4.8e-07 s, and bins are 1e-06 s"):
        bin_spikes(times, np.zeros(50, int), 1e-6, t_start=UNIX, t_stop=UNIX + 0.5)


# --- where a recording begins ---


@pytest.mark.parametrize("first", [UNIX, 1.7e12, 40_000.0])  # seconds, ms, of the day
def test_a_late_first_spike_asks_for_t_start(first):
    times = first + np.sort(np.random.default_rng(0).uniform(0, 90, 400))
    for call in (
        lambda: bin_spikes(times, np.zeros(400, int), 1.0),
        lambda: bin_spikes(times, np.zeros(400, int), 0.01, t_stop=first + 90),
        lambda: fastglm.fit_coupling([times, times], 0.01),
        lambda: fastglm.infer_connectivity([times, times], 0.01),
    ):
        with pytest.raises(ValueError, match=r"t_start is 0 by default.*Give t_start"):
            call()
    counts = bin_spikes(times, np.zeros(400, int), 0.01, t_start=first)
    assert counts.shape[0] <= 9001
    assert counts.sum() == 400


def test_a_silent_first_half_hour_is_no_other_clock():
    assert bin_spikes([1800.0, 1801.0], [0, 0], 1.0).shape == (1802, 1)


# --- epochs ---


@pytest.mark.parametrize("start", [0.0, 7200.0, UNIX])
def test_epochs_that_touch_within_rounding_are_epochs(start):
    first = start + np.arange(400) * 0.3
    stop = np.append(first[1:], start + 120)
    stop[::2] += 2 * np.spacing(stop[::2])
    times = start + (np.arange(12_000) + 0.5) * 0.01
    counts, bounds = bin_spikes(
        times, np.zeros(12_000, int), 0.01, epochs=np.c_[first, stop], t_stop=start + 120.1
    )
    np.testing.assert_array_equal(bounds, 30 * np.c_[np.arange(400), np.arange(1, 401)])
    np.testing.assert_array_equal(counts, 1)


def test_epochs_of_float32_may_overlap_by_its_steps():
    edges = 5000 + np.arange(50) * 0.7
    epochs = np.c_[edges[:-1], edges[1:] + 1e-4].astype(np.float32)
    counts, bounds = bin_spikes([5000.0], [0], 0.1, epochs=epochs, t_stop=5100.0)
    assert len(bounds) == 49
    assert counts.sum() == 1


def test_an_overlap_of_a_millisecond_is_refused():
    with pytest.raises(ValueError, match="not overlapping"):
        bin_spikes([0.1], [0], 0.01, epochs=[[0, 0.5], [0.499, 1.0]], t_stop=1.0)


def test_empty_and_reversed_epochs_are_left_out():
    epochs = [[0.0, 1.0], [1.5, 1.5], [2.0, 3.0], [4.0, 3.5]]
    message = r"epochs: row 1 \(1.5 to 1.5 s\), row 3 \(4 to 3.5 s\) of 4 rows do not end after"
    with pytest.warns(UserWarning, match=message) as caught:
        _, bounds = bin_spikes([0.1], [0], 0.1, epochs=epochs, t_stop=5.0)
    assert len(caught) == 1
    np.testing.assert_array_equal(bounds, [[0, 10], [10, 20]])
    with pytest.warns(UserWarning, match="row 1"):
        _, bounds, _ = read_units([[0.1]], 0.1, epochs=epochs)
    np.testing.assert_array_equal(bounds, [[0, 10], [10, 20]])


def test_epochs_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="epochs has dtype datetime64"):
        bin_spikes([0.1], [0], 0.1, epochs=np.array([["2026-01-01", "2026-01-02"]], "M8[s]"))


def test_unions_and_differences_of_intervals_equal_loops():
    rng = np.random.default_rng(0)
    points = np.arange(40) + 0.5
    for _ in range(50):
        a, b = (np.sort(rng.integers(0, 41, (rng.integers(1, 7), 2)), axis=1) for _ in "ab")
        a, b = (x[x[:, 1] > x[:, 0]] for x in (a, b))
        a, b = (merge(x[np.argsort(x[:, 0])].astype(float)) for x in (a, b))
        for union in (a, b):
            assert (union[1:, 0] >= union[:-1, 1]).all()
        inside = [
            ((points[:, None] > x[:, 0]) & (points[:, None] < x[:, 1])).any(1) for x in (a, b)
        ]
        left = subtract(a, b)
        found = ((points[:, None] > left[:, 0]) & (points[:, None] < left[:, 1])).any(axis=1)
        np.testing.assert_array_equal(found, inside[0] & ~inside[1])


# --- other scales ---


@pytest.mark.parametrize("scale", [1e3, 2e4, 30_000.0])  # ms, and samples
def test_times_that_can_hardly_be_seconds_are_refused(scale):
    rng = np.random.default_rng(0)
    times = [np.sort(rng.uniform(0, 80, n)) for n in (300, 900)]
    unit = np.repeat([0, 1], [300, 900])
    message = r"would last [\d.,]+ (days|hours) at .* spikes a second: are times in ms or samples\?"
    for call in (
        lambda t: bin_spikes(np.concatenate(t), unit, 0.001),
        lambda t: fastglm.fit_coupling(t, 0.0001),  # more bins than there may be
        lambda t: fastglm.infer_connectivity(t, 0.005),
        lambda t: read_units(dict(enumerate(t)), 0.005, t_start=0.0),
    ):
        with pytest.raises(ValueError, match=message):
            call([scale * t for t in times])
    bin_spikes(np.concatenate(times), unit, 0.01)


def test_a_stated_range_makes_it_a_warning():
    times = np.sort(np.random.default_rng(0).uniform(0, 20_000, 200))
    with pytest.warns(UserWarning, match=r"5.6 hours at 0.01 spikes a second: are times in ms"):
        counts = bin_spikes(times, np.zeros(200, int), 1.0, t_stop=20_000.0)
    assert counts.shape == (20_000, 1)
    with pytest.warns(UserWarning, match="are times in ms or samples"):
        read_units([times], 1.0, epochs=[[0, 20_000.0]])
    nap = pytest.importorskip("pynapple")
    with pytest.warns(UserWarning, match="are times in ms or samples"):
        read_units(nap.TsGroup({0: nap.Ts(times)}), 1.0)


def test_a_recording_file_of_ms_is_warned_about(tmp_path):
    times = np.sort(np.random.default_rng(0).uniform(0, 90_000, 300))
    np.savez(
        tmp_path / "r.npz", spike_times=times, unit=np.zeros(300, int), n_units=1,
        t_start=0, t_stop=90_000,
    )  # fmt: skip
    with pytest.warns(UserWarning, match=r"r.npz: The recording would last 1.0 days at 0.0033"):
        fastglm.load_spikes(tmp_path / "r.npz")


@pytest.mark.parametrize("n_units", [2**31, 2**32 + 2, 3e10, 2_000_000_000])
def test_more_units_than_there_can_be_are_refused(n_units):
    with pytest.raises(ValueError, match=r"n_units is .*; at most 10,000,000 are supported"):
        bin_spikes([0.1, 0.2], [0, 1], 0.1, n_units=n_units)


def test_ids_in_place_of_units_are_refused():
    with pytest.raises(ValueError, match=r"are these ids\? np.unique"):
        bin_spikes([0.1], [2**31 - 1], 0.1)


# --- units of time ---

TIMES = np.array([1.5, 20.0, 2000.25, 3999.0])  # ms


def as_stub(ms):
    return Quantity(ms, 1e-3)


def as_quantities(ms):
    return ms * pytest.importorskip("quantities").ms


def as_pint(ms):
    return pytest.importorskip("pint").UnitRegistry().Quantity(ms, "ms")


def as_astropy(ms):
    return ms * pytest.importorskip("astropy.units").ms


def as_timedelta(ms):
    return (np.asarray(ms) * 1000).astype("m8[us]")


@pytest.mark.parametrize("unit", [as_stub, as_quantities, as_pint, as_astropy, as_timedelta])
def test_units_of_time_are_converted_in_every_argument(unit):
    labels = np.array([0, 1, 0, 1])
    expected = bin_spikes(
        TIMES / 1000, labels, 0.004, t_start=0.001, t_stop=4.1, epochs=[[0.01, 3], [3.5, 4]]
    )
    found = bin_spikes(
        unit(TIMES),
        labels,
        unit(4),
        t_start=unit(1),
        t_stop=unit(4100),
        epochs=unit(np.array([[10, 3000], [3500, 4000]])),
    )
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    trains = read_trains([unit(TIMES), [unit(t) for t in TIMES]])
    np.testing.assert_allclose(trains.times, [TIMES / 1000] * 2, rtol=1e-15)
    assert trains.certain
    events, _, _ = read_units([unit(TIMES)], 0.004, None, unit(1), unit(4100))
    other, _, _ = read_units([TIMES / 1000], 0.004, None, 0.001, 4.1)
    np.testing.assert_array_equal(events.toarray(), other.toarray())


def test_lists_of_numbers_with_units_are_converted():
    counts = bin_spikes([as_stub(1.5), Quantity(0.002, 1.0)], [0, 0], 0.001)
    np.testing.assert_array_equal(counts, [[0], [1], [1]])


def test_times_with_a_unit_are_seconds_however_few():
    times = as_stub(np.sort(np.random.default_rng(0).uniform(0, 2e7, 20)))  # 5.6 hours
    assert bin_spikes(times, np.zeros(20, int), 10.0).sum() == 20
    assert read_units([times], 10.0)[0].amplitudes.sum() == 20


def test_units_that_are_no_times_are_refused():
    volts = Quantity([0.1, 0.2], None)
    with pytest.raises(ValueError, match="spike_times has a unit that is not one of time"):
        bin_spikes(volts, [0, 0], 0.1)
    with pytest.raises(ValueError, match="unit 'a' has a unit that is not one of time"):
        fastglm.fit_coupling({"a": volts})
    with pytest.raises(ValueError, match=r"t_stop has shape \(2,\); expected one number"):
        bin_spikes([0.1], [0], 0.1, t_stop=as_stub([1, 2]))
    pq = pytest.importorskip("quantities")
    with pytest.raises(ValueError, match="epochs has a unit that is not one of time"):
        bin_spikes([0.1], [0], 0.1, epochs=[[0, 1]] * pq.mV)


def test_masked_times_are_refused():
    times = np.ma.array([0.1, 0.2], mask=[False, True])
    with pytest.raises(ValueError, match=r"spike_times has masked entries; remove them"):
        bin_spikes(times, [0, 0], 0.1)


def test_a_fit_in_ms_is_the_fit_in_seconds():
    rng = np.random.default_rng(0)
    times = [np.sort(rng.uniform(0, 8, 200)) for _ in range(2)]
    one = fastglm.fit_coupling(times, 0.01, 0.05, t_stop=8.0)
    other = fastglm.fit_coupling(
        [as_stub(1000 * t) for t in times], as_stub(10), as_stub(50), t_stop=as_stub(8000)
    )
    np.testing.assert_allclose(one.coef_, other.coef_, rtol=0, atol=1e-12)
    assert other.bin_size_ == 0.01


def test_spike_trains_of_neo_bring_their_range():
    neo, pq = pytest.importorskip("neo"), pytest.importorskip("quantities")
    rng = np.random.default_rng(0)
    times = [np.sort(rng.uniform(6000, 9000, 50)) for _ in range(2)]
    trains = [
        neo.SpikeTrain(times[0] * pq.ms, t_start=5 * pq.s, t_stop=10 * pq.s),
        neo.SpikeTrain(times[1] * pq.ms, t_start=4 * pq.s, t_stop=9.5 * pq.s),
    ]
    expected, _, _ = read_units([t / 1000 for t in times], 0.01, epochs=[[5, 9.5]])
    listed = neo.spiketrainlist.SpikeTrainList(items=trains)
    for given in (trains, listed, dict(zip("ab", trains, strict=True))):
        events, _, columns = read_units(given, 0.01)
        np.testing.assert_array_equal(events.toarray(), expected.toarray())
    assert columns.names == ["a", "b"]
    assert events.shape == (450, 2)
    epochs = neo.Epoch([5500, 8000] * pq.ms, durations=[1, 0.5] * pq.s)
    events, bounds, _ = read_units(trains, 0.01, epochs=epochs)
    np.testing.assert_array_equal(bounds, [[0, 100], [100, 150]])
    with pytest.raises(ValueError, match=r"Unit 0 has .* spikes in bin"):  # in seconds
        fastglm.fit_coupling(trains, 1.0, 3.0, observation_model="Bernoulli")


def test_supports_of_several_ts_are_intersected():
    nap = pytest.importorskip("pynapple")
    rng = np.random.default_rng(0)
    times = [np.sort(rng.uniform(0, 60, 100)) for _ in range(2)]
    supports = nap.IntervalSet([0, 30], [25, 55]), nap.IntervalSet(10, 60)
    units = [nap.Ts(t, time_support=s) for t, s in zip(times, supports, strict=True)]
    events, bounds, _ = read_units(units, 0.01)
    expected, _, _ = read_units(times, 0.01, epochs=[[10, 25], [30, 55]])
    np.testing.assert_array_equal(events.toarray(), expected.toarray())
    np.testing.assert_array_equal(bounds, [[0, 1500], [1500, 4000]])
    events, _, _ = read_units(units, 0.01, epochs=[[0, 12]])
    assert events.n_bins == 200
    plain = [nap.Ts(t) for t in times]  # no support but that of pynapple, the first to last spike
    events, _, _ = read_units(plain, 0.01)
    expected, _, _ = read_units([t.t for t in plain], 0.01)
    np.testing.assert_array_equal(events.toarray(), expected.toarray())
    apart = [units[0], nap.Ts(times[1], time_support=nap.IntervalSet(26, 29))]
    with pytest.raises(ValueError, match="time supports of the units have no time in common"):
        read_units(apart, 0.01)


# --- lists ---


def test_lists_of_times_are_spike_times_and_lists_of_counts_are_counts():
    rng = np.random.default_rng(0)
    arrays = [np.sort(rng.uniform(0, 20, n)) for n in (150, 150)]
    expected = fastglm.infer_connectivity(arrays, 0.01)
    for given in ([a.tolist() for a in arrays], tuple(tuple(a) for a in arrays)):
        found = fastglm.infer_connectivity(given, 0.01)
        np.testing.assert_array_equal(found.strength, expected.strength)
    ragged = [[1, 2, 5, 9], [3, 4, 8, 11, 15]]  # whole numbers, but no table
    with pytest.raises(ValueError, match="is 0; expected seconds"):
        fastglm.infer_connectivity(ragged, 0)
    counts = rng.poisson(0.3, (2000, 2))
    np.testing.assert_array_equal(
        fastglm.infer_connectivity(counts.tolist(), 0.01).strength,
        fastglm.infer_connectivity(counts, 0.01).strength,
    )


def test_a_unit_out_of_order_is_named():
    with pytest.raises(ValueError, match=r"unit 'b' are not ascending at index 2; sort them with"):
        fastglm.fit_coupling({"a": [0.1, 0.2], "b": [0.1, 0.5, 0.3]})


def test_units_inside_an_array_of_objects_are_seconds():
    times = np.empty(4, dtype=object)
    times[:] = [np.timedelta64(ms, "ms") for ms in (2, 10, 3_600_000, 7_200_000)]
    assert has_unit(times)
    assert not has_unit(times.astype("timedelta64[ms]").astype(float).astype(object))
    counts = fastglm.bin_spikes(times, [0] * 4, 60.0)  # long and sparse, and certainly seconds
    assert counts.sum() == 4
