"""NWB files that PyNWB writes: units, conditions on their columns, intervals, the command line."""

import datetime
import subprocess
import sys
import warnings

import numpy as np
import pytest

import fastglm

h5py = pytest.importorskip("h5py")
BIN = 0.005
OBSERVED = [[0.0, 12.0], [15.0, 30.0]]
QUALITY = ["good", "noise", "good", "mua", "good"]
RATE = [8.0, 0.5, 15.0, 30.0, 9.5]
AREA = ["CA1", "CA1", "CA3", "CA3", "CA3"]


def make_times(seed=0):
    rng = np.random.default_rng(seed)
    times = [np.sort(rng.uniform(0, 30, n)) for n in (300, 40, 450, 900, 280)]
    times[2] = np.sort(np.concatenate([times[2], times[0] + 0.015]))
    return [np.sort(t[t < 30]) for t in times]


def write_nwb(path, times, observed=None, trials=None, n_columns=True):
    """A file as PyNWB makes it, with columns of texts, numbers, truth values and rows of arrays."""
    pynwb = pytest.importorskip("pynwb")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = pynwb.NWBFile("test", "id", datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))
        if n_columns:
            file.add_unit_column("quality", "of the sorting")
            file.add_unit_column("rate", "Hz")
            file.add_unit_column("area", "region", enum=["CA1", "CA3"])
            file.add_unit_column("axonal", "a truth value")
            file.add_unit_column("waveform", "three values")
            file.add_unit_column("tags", "some texts", index=True)
        for k, t in enumerate(times):
            row = {"spike_times": t, "id": 10 + k}
            if n_columns:
                row |= {"quality": QUALITY[k], "rate": RATE[k], "axonal": k == 2}
                row |= {"area": AREA[k], "waveform": [1.0, 2.0, k]}
                row |= {"tags": ["x"] * (k + 1)}
            if observed is not None:
                row["obs_intervals"] = observed[k]
            file.add_unit(**row)
        for start, stop in trials if trials is not None else ():
            file.add_trial(start_time=start, stop_time=stop)
        with pynwb.NWBHDF5IO(path, "w") as io:
            io.write(file)
    return path


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    path = tmp_path_factory.mktemp("nwb") / "session.nwb"
    observed = [OBSERVED] * 4 + [[[0.0, 20.0]]]
    trials = [[21.0, 29.0], [1.0, 6.0], [10.0, 18.0]]  # not in order, one over a gap
    return write_nwb(path, make_times(), observed, trials)


def same_spikes(spikes, chosen):
    times = make_times()
    assert spikes.n_units == len(chosen)
    assert spikes.names == [10 + k for k in chosen]
    for k, unit in enumerate(chosen):
        np.testing.assert_array_equal(spikes.spike_times[spikes.unit == k], times[unit])


# --- reading ---


def test_all_units_are_read_with_what_all_were_observed_in(session):
    spikes = fastglm.load_spikes(session)
    same_spikes(spikes, range(5))
    np.testing.assert_array_equal(spikes.segments, [[0, 12], [15, 20]])
    last = max(t.max() for t in make_times())
    assert (spikes.t_start, spikes.t_stop) == (0.0, last)
    assert spikes.adjacency is None


@pytest.mark.parametrize(
    ("where", "chosen"),
    [
        ("quality == 'good'", [0, 2, 4]),
        ("quality != 'good'", [1, 3]),
        ("quality == 'good' and rate > 8.5", [2, 4]),
        ("(quality == 'good') & (rate > 8.5)", [2, 4]),
        ("(quality == 'mua') | (rate < 1)", [1, 3]),
        ("quality in ['good', 'mua'] and not rate >= 10", [0, 4]),
        ("quality not in ('good', 'mua')", [1]),
        ("0.5 < rate <= 9.5", [0, 4]),
        ("rate > -1 and area == 'CA3'", [2, 3, 4]),
        ("axonal", [2]),
        ("~axonal and id < 12", [0, 1]),
        ("not (axonal or quality == 'good')", [1, 3]),
    ],
)
def test_units_are_chosen_by_columns(session, where, chosen):
    same_spikes(fastglm.load_spikes(session, where), chosen)


def test_intervals_follow_the_chosen_units(session):
    spikes = fastglm.load_spikes(session, "id < 14")
    np.testing.assert_array_equal(spikes.segments, OBSERVED)
    spikes = fastglm.load_spikes(session, "id < 14", epochs="obs")
    np.testing.assert_array_equal(spikes.segments, OBSERVED)
    spikes = fastglm.load_spikes(session, "id < 14", epochs="trials")
    np.testing.assert_array_equal(spikes.segments, [[1, 6], [10, 12], [15, 18], [21, 29]])
    spikes = fastglm.load_spikes(session, epochs=[[5.0, 16.0]])
    np.testing.assert_array_equal(spikes.segments, [[5, 12], [15, 16]])


def test_without_intervals_it_is_from_the_first_to_the_last_spike(tmp_path):
    times = [t + 100 for t in make_times()]
    path = write_nwb(tmp_path / "bare.nwb", times, n_columns=False)
    spikes = fastglm.load_spikes(path, "id == 11")
    first, last = min(t.min() for t in times), max(t.max() for t in times)
    np.testing.assert_array_equal(spikes.segments, [[first, last]])
    assert spikes.n_units == 1


@pytest.mark.slow
def test_a_session_gives_the_fit_of_its_counts(session):
    spikes = fastglm.load_spikes(session, where="quality == 'good'")
    model = fastglm.fit_coupling(spikes, bin_size=BIN, window=0.1)
    times = [make_times()[k] for k in (0, 2, 4)]
    counts, epochs = fastglm.bin_spikes(
        np.concatenate(times),
        np.repeat([0, 1, 2], [t.size for t in times]),
        BIN,
        t_stop=30.0,
        epochs=[[0, 12], [15, 20]],
    )
    basis = fastglm.basis.RaisedCosineLogConv(8, window_size=20)
    X = basis.compute_features(counts, epochs=epochs)
    reference = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-4).fit(X, counts)
    np.testing.assert_allclose(model.coef_, reference.coef_, rtol=0, atol=1e-12)
    couplings = model.coupling_map(model.X_, model.counts_)
    assert couplings.senders.tolist() == [10, 12, 14]
    assert couplings.significant()[0, 1]


# --- what does not fit ---


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("quality = 'good'", "which is no condition; expected one such as"),
        ("depth > 3", r"has no column 'depth' with one value a unit; it has area, axonal, id, qua"),
        ("waveform > 3", "has no column 'waveform' with one value"),
        ("tags == 'x'", "has no column 'tags' with one value"),
        ("spike_times > 3", "has no column 'spike_times'"),
        ("quality == 'best'", "none of 5 units has quality == 'best'. There, quality is good, mua"),
        ("rate", "which is not True or False for each unit"),
        ("True", "which is not True or False for each unit"),
        ("quality > 3", "compare columns with values of their kind"),
        ("quality == 'good' & rate > 3", "put parentheses around comparisons"),
        ("rate and axonal", "not True or False"),
        ("quality.startswith('g')", r"which has \"quality.startswith\('g'\)\"; expected names"),
        ("__import__('os')", "expected names of columns, numbers"),
        ("rate + 1 > 3", "expected names of columns"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(session, where, message):
    with pytest.raises(ValueError, match=message):
        fastglm.load_spikes(session, where)


def test_files_that_hold_no_units_are_refused(tmp_path):
    bare = write_nwb(tmp_path / "bare.nwb", make_times()[:2], n_columns=False)
    with pytest.raises(ValueError, match=r"has no obs_intervals; use epochs='trials'"):
        fastglm.load_spikes(bare, epochs="obs")
    with pytest.raises(
        ValueError, match=r"has no intervals 'trials'; expected 'obs' or one of \[\]"
    ):
        fastglm.load_spikes(bare, epochs="trials")
    empty = write_nwb(tmp_path / "empty.nwb", [], n_columns=False)
    with pytest.raises(ValueError, match="has no table of units with spike times"):
        fastglm.load_spikes(empty)
    text = tmp_path / "text.nwb"
    text.write_text("no HDF5")
    with pytest.raises(ValueError, match="could not be read as NWB: it is not an HDF5 file"):
        fastglm.load_spikes(text)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        fastglm.load_spikes(tmp_path / "none.nwb", "quality == 'good'")
    whole = bare.read_bytes()
    cut = tmp_path / "cut.nwb"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="could not be read as NWB"):
        fastglm.load_spikes(cut)


def test_a_closed_file_is_refused(session):
    with h5py.File(session) as file:
        assert fastglm.load_spikes(file).n_units > 0
    with pytest.raises(ValueError, match="is closed; open it again, or give its path"):
        fastglm.load_spikes(file)


def test_tables_without_rows_or_spikes_are_refused(tmp_path):
    with h5py.File(tmp_path / "rows.nwb", "w") as file:
        units = file.create_group("units")
        units["id"], units["spike_times"] = np.zeros(0, int), np.zeros(0)
        units["spike_times_index"] = np.zeros(0, int)
    with pytest.raises(ValueError, match=r"rows.nwb has no units"):
        fastglm.load_spikes(tmp_path / "rows.nwb")
    with h5py.File(tmp_path / "spikes.nwb", "w") as file:
        units = file.create_group("units")
        units["id"], units["spike_times"] = np.arange(2), np.zeros(0)
        units["spike_times_index"] = np.zeros(2, int)
    with pytest.raises(ValueError, match=r"spikes.nwb has no spikes"):
        fastglm.load_spikes(tmp_path / "spikes.nwb")


def test_intervals_that_do_not_fit_are_refused(session, tmp_path):
    apart = write_nwb(
        tmp_path / "apart.nwb", make_times()[:2], [[[0.0, 10.0]], [[12.0, 30.0]]], n_columns=False
    )
    with pytest.raises(ValueError, match="no time in the epochs when all 2 units were observed"):
        fastglm.load_spikes(apart)
    over = write_nwb(
        tmp_path / "over.nwb", make_times()[:2], trials=[[0.0, 5.0], [4.0, 9.0]], n_columns=False
    )
    with pytest.raises(ValueError, match="trials overlap in time"):
        fastglm.load_spikes(over, epochs="trials")
    with pytest.raises(ValueError, match="epochs have no time in common with the recording"):
        fastglm.load_spikes(session, epochs=[[50, 60]])


def test_conditions_and_trials_need_nwb(tmp_path):
    path = tmp_path / "recording.npz"
    np.savez(path, spike_times=[0.1, 0.4], unit=[0, 1], n_units=2, t_start=0, t_stop=1)
    with pytest.raises(ValueError, match="has no columns of units for where='id > 3'"):
        fastglm.load_spikes(path, "id > 3")
    with pytest.raises(ValueError, match=r"has no intervals 'trials'; an .npz file has segments"):
        fastglm.load_spikes(path, epochs="trials")
    part = fastglm.load_spikes(path, epochs=[[0.2, 0.9]])
    np.testing.assert_array_equal(part.segments, [[0.2, 0.9]])
    np.testing.assert_array_equal(part.bin(0.1)[0].sum(axis=0), [0, 1])


def test_without_h5py_one_line_says_what_to_install(session):
    code = (
        "import sys; sys.modules['h5py'] = None\n"  # an import raises
        "import fastglm\n"
        "try: fastglm.load_spikes(sys.argv[1])\n"
        "except ImportError as error: print(error)"
    )
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(session)], capture_output=True, text=True
    )
    assert out.stdout.strip() == "NWB files need h5py: pip install 'fastglm[nwb]'", out.stderr
