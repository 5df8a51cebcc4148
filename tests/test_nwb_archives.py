"""NWB files as archives have them: odd intervals, odd spikes, missing columns, open and locked."""

import io
import subprocess
import sys
import tracemalloc
import warnings

import numpy as np
import pytest

import fastglm

h5py = pytest.importorskip("h5py")


def make_times(n_units=3, seed=0):
    rng = np.random.default_rng(seed)
    return [np.sort(rng.uniform(0, 40, 120)) for _ in range(n_units)]


def write(path, times, obs=None, **tables):
    """A file with the data sets of the units table, and tables of intervals."""
    with h5py.File(path, "w") as file:
        units = file.create_group("units")
        units["id"] = 20 + np.arange(len(times))
        for name, rows in {"spike_times": times, "obs_intervals": obs}.items():
            if rows is not None:
                units[name] = np.concatenate([np.asarray(r) for r in rows])
                units[f"{name}_index"] = np.cumsum([len(r) for r in rows])
        for name, rows in tables.items():
            bounds = np.asarray(rows, float).reshape(-1, 2)
            file[f"intervals/{name}/start_time"] = bounds[:, 0]
            file[f"intervals/{name}/stop_time"] = bounds[:, 1]
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.nwb"


def quietly(*arguments, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fastglm.load_spikes(*arguments, **settings)


# --- intervals ---


def test_observed_intervals_that_overlap_or_repeat_are_merged(path):
    same = [[0, 10], [5, 20], [20, 25], [30, 40]]
    repeated = [[30, 38], [0, 22], [0, 22]]
    write(path, make_times(4), [same, same, repeated, [[0, 40]]])
    message = r"file.nwb: obs_intervals of units 20, 21, 22 overlap; they were merged"
    with pytest.warns(UserWarning, match=message) as caught:
        spikes = fastglm.load_spikes(path)
    assert len(caught) == 1
    np.testing.assert_array_equal(spikes.segments, [[0, 20], [20, 22], [30, 38]])
    with pytest.warns(UserWarning, match="units 20, 21 overlap"):
        spikes = fastglm.load_spikes(path, "id < 22", epochs=[[3, 31]])
    np.testing.assert_array_equal(spikes.segments, [[3, 20], [20, 25], [30, 31]])
    np.testing.assert_array_equal(fastglm.load_spikes(path, "id == 23").segments, [[0, 40]])


def test_observed_intervals_that_touch_within_rounding_are_not_merged(path):
    first = np.arange(50) * 0.7
    stop = np.append(first[1:], 35.0)
    stop[::3] += 2 * np.spacing(stop[::3])
    write(path, make_times(2), [np.c_[first, stop]] * 2)
    spikes = fastglm.load_spikes(path)
    np.testing.assert_array_equal(spikes.segments[:, 0], first)


def test_trials_without_a_duration_are_left_out(path):
    trials = [[0, 3], [4, 4], [8, 6], [10, np.nan], [12, 15]]
    write(path, make_times(), trials=trials)
    message = (
        r"file.nwb: trials: row 1 \(4 to 4 s\), row 2 \(8 to 6 s\), row 3 \(10 to nan s\) of 5 "
        "rows do not end after their start; they are left out"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        spikes = fastglm.load_spikes(path, epochs="trials")
    assert len(caught) == 1
    np.testing.assert_array_equal(spikes.segments, [[0, 3], [12, 15]])
    write(path, make_times(), trials=[[5, 5]])
    with (
        pytest.warns(UserWarning, match="row 0"),
        pytest.raises(ValueError, match="no row of trials ends after its start"),
    ):
        fastglm.load_spikes(path, epochs="trials")


def test_rows_of_observed_intervals_without_a_duration_are_left_out(path):
    write(path, make_times(2), [[[0, 10], [10, 10], [20, 30]], [[5, 5], [0, 40]]])
    with pytest.warns(UserWarning, match=r"obs_intervals: row 1 .*, row 3 .* of 5 rows") as caught:
        spikes = fastglm.load_spikes(path)
    assert len(caught) == 1
    np.testing.assert_array_equal(spikes.segments, [[0, 10], [20, 30]])


def test_invalid_times_are_left_out_of_the_epochs(path):
    invalid = [[12, 14], [2, 3.5], [13, 16], [39, 99]]
    times = [np.append(t, 40.0) for t in make_times()]
    write(path, times, [[[0, 40]]] * 3, invalid_times=invalid, trials=[[0, 15], [20, 30]])
    spikes = fastglm.load_spikes(path)
    np.testing.assert_array_equal(spikes.segments, [[0, 2], [3.5, 12], [16, 39]])
    assert repr(spikes).endswith("33.5 s in 3 segments, without 6.5 s of invalid_times")
    assert spikes.invalid == 6.5
    assert spikes.bin(0.5)[0].shape == (67, 3)
    in_trials = fastglm.load_spikes(path, epochs="trials")
    np.testing.assert_array_equal(in_trials.segments, [[0, 2], [3.5, 12], [20, 30]])
    assert in_trials.invalid == 4.5
    part = fastglm.load_spikes(path, epochs=[[11.5, 13]])
    np.testing.assert_array_equal(part.segments, [[11.5, 12]])
    whole = fastglm.load_spikes(path, keep_invalid=True)
    np.testing.assert_array_equal(whole.segments, [[0, 40]])
    assert "invalid" not in repr(whole)
    only = fastglm.load_spikes(path, epochs="obs")
    np.testing.assert_array_equal(only.segments, spikes.segments)
    with pytest.raises(ValueError, match=r"all of the epochs are in invalid_times; keep_invalid"):
        fastglm.load_spikes(path, epochs=[[12.5, 15]])


def test_invalid_times_may_be_the_epochs_or_be_empty(path):
    write(path, make_times(), invalid_times=[[3, 5]])
    spikes = fastglm.load_spikes(path, epochs="invalid_times")
    np.testing.assert_array_equal(spikes.segments, [[3, 5]])
    write(path, make_times(), invalid_times=[])
    assert fastglm.load_spikes(path).invalid == 0


# --- spikes ---


@pytest.mark.parametrize("change", ["reversed", "shuffled", "negative"])
def test_spikes_out_of_order_are_sorted(path, change):
    times = make_times(8)
    given = [t.copy() for t in times]
    for k in range(1, 8):
        t = given[k]
        if change == "negative":
            times[k] = t = t - 5.25
        given[k] = t[::-1] if change == "reversed" else np.random.default_rng(k).permutation(t)
    write(path, given)
    message = r"spike_times of units 21, 22, 23, 24, 25 and 2 more were not in order of time"
    with pytest.warns(UserWarning, match=message) as caught:
        spikes = fastglm.load_spikes(path)
    assert len(caught) == 1
    for k in range(8):
        np.testing.assert_array_equal(spikes.spike_times[spikes.unit == k], times[k])
    assert spikes.t_start == min(t[0] for t in times)
    assert fastglm.load_spikes(path, "id == 20").n_units == 1


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda t: np.append(t, [-1.0, -1.0]), r"-1 \(2 of 122\)"),
        (lambda t: np.append(t, -999.0), r"-999 \(1 of 121\)"),
        (lambda t: np.append(-1.0, t), r"-1 \(1 of 121\)"),
        (lambda t: np.array([-1.0]), r"-1 \(1 of 1\)"),
        (lambda t: np.append(3.0, np.append(t, -1.0)), r"-1 \(1 of 122\)"),
        (lambda t: np.append(t, [0.0, 0.0, 0.0]), r"0 \(3 of 123\)"),
        (lambda t: np.append(t, np.nan), r"NaN or infinity \(1 of 121\)"),
        (lambda t: np.append(np.inf, t), r"NaN or infinity"),
    ],
)
def test_placeholders_are_refused_with_a_remedy(path, change, found):
    times = make_times()
    write(path, [times[0], change(times[1]), times[2]])
    message = rf"file.nwb: spike_times of unit 21 hold {found}"
    with pytest.raises(ValueError, match=message) as error:
        fastglm.load_spikes(path)
    where = str(error.value).partition('where="')[2].partition('"')[0]
    spikes = fastglm.load_spikes(path, where)
    assert spikes.names == [20, 22]
    assert spikes.t_start == min(times[0][0], times[2][0])  # the placeholder is no time
    assert spikes.t_stop == max(times[0][-1], times[2][-1])


def test_times_of_float32_are_warned_about(path):
    ticks = np.unique(np.random.default_rng(0).integers(0, 80_000, 2000))
    write(path, [(ticks * 0.01).astype(np.float32)], [[[0, 800.0]]])
    with pytest.warns(UserWarning, match="spike_times are float32, which has steps of 6.1e-05 s"):
        spikes = fastglm.load_spikes(path)
    np.testing.assert_array_equal(spikes.bin(0.01)[0][:, 0], np.bincount(ticks, minlength=80_000))


def test_times_in_ms_are_refused_unless_the_file_says_when_it_was_recorded(path):
    times = [1000 * t for t in make_times()]
    write(path, times)
    with pytest.raises(ValueError, match=r"file.nwb: .* 11.1 hours at 0.003 .*, give epochs"):
        fastglm.load_spikes(path)
    with pytest.warns(UserWarning, match="file.nwb: .*are times in ms or samples"):
        fastglm.load_spikes(path, epochs=[[0, 30_000]])
    write(path, times, [[[0, 40_000]]] * 3)
    with pytest.warns(UserWarning, match="are times in ms or samples"):
        assert fastglm.load_spikes(path).n_units == 3


def test_a_sparse_unit_of_a_long_recording_is_read(path):
    rng = np.random.default_rng(0)
    write(path, [np.sort(rng.uniform(0, 9000, n)) for n in (40, 9000)])
    assert fastglm.load_spikes(path, "id == 20").spike_times.size == 40


def test_negative_times_before_an_event_are_spikes(path):
    times = [np.array([-2.0, -1.0, 0.0, 3.0]), np.array([-1.0, 2.0, 4.0]), np.array([-1.5, 0.25])]
    write(path, times)
    spikes = fastglm.load_spikes(path)
    np.testing.assert_array_equal(spikes.spike_times, np.concatenate(times))
    assert spikes.t_start == -2


# --- columns ---


def test_one_unit_needs_no_index(path):
    times = make_times(1)
    write(path, times, [[[0, 10], [15, 40]]])
    with h5py.File(path, "a") as file:
        del file["units/spike_times_index"], file["units/obs_intervals_index"]
    spikes = fastglm.load_spikes(path)
    np.testing.assert_array_equal(spikes.spike_times, times[0])
    np.testing.assert_array_equal(spikes.segments, [[0, 10], [15, 40]])


@pytest.mark.parametrize("name", ["spike_times", "obs_intervals"])
def test_several_units_need_an_index(path, name):
    write(path, make_times(), [[[0, 40]]] * 3)
    with h5py.File(path, "a") as file:
        del file[f"units/{name}_index"]
    with pytest.raises(ValueError, match=rf"file.nwb has no column {name}_index, .* its 3 units"):
        fastglm.load_spikes(path)


@pytest.mark.parametrize("index", [[40, 20, 360], [120, 240], [120, 240, 361], [0.5, 1, 2]])
def test_an_index_that_does_not_fit_is_refused(path, index):
    write(path, make_times())
    with h5py.File(path, "a") as file:
        del file["units/spike_times_index"]
        file["units/spike_times_index"] = np.array(index)
    with pytest.raises(ValueError, match=r"file.nwb: spike_times_index (has|does)"):
        fastglm.load_spikes(path)


def test_data_sets_of_other_shapes_are_refused(path):
    def change(name, values):
        write(path, make_times(), [[[0, 40]]] * 3, trials=[[0, 9]])
        with h5py.File(path, "a") as file:
            del file[name]
            file[name] = values

    for name, values, message in (
        ("units/spike_times", np.zeros((360, 2)), r"spike_times has shape \(360, 2\)"),
        ("units/spike_times", ["a"] * 360, "spike_times does not hold numbers"),
        ("units/id", np.zeros((3, 1), int), r"id has shape \(3, 1\)"),
        ("units/obs_intervals", np.zeros(3), r"obs_intervals have shape \(3,\)"),
        ("intervals/trials/stop_time", np.zeros(2), r"trials has \(1,\) starts and \(2,\) stops"),
    ):
        change(name, values)
        with pytest.raises(ValueError, match=message):
            fastglm.load_spikes(path, epochs="trials")


# --- files ---


def test_a_file_that_another_process_holds_is_named(path):
    write(path, make_times())
    code = "import h5py, sys; f = h5py.File(sys.argv[1], 'a'); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        other.stdout.readline()
        try:
            with pytest.raises(ValueError, match=r"file.nwb .* another process holds a lock on it"):
                fastglm.load_spikes(path)
        finally:
            other.communicate("\n")
    assert fastglm.load_spikes(path).n_units == 3


def test_a_file_that_a_crash_left_open_is_named(path):
    write(path, make_times())
    code = (
        "import h5py, os, sys; f = h5py.File(sys.argv[1], 'w', libver='latest')\n"
        "f['x'] = 1; f.flush(); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    with pytest.raises(ValueError, match=r"file.nwb .* open for writing, .* h5clear -s FILE"):
        fastglm.load_spikes(path)


def test_open_files_are_read_and_stay_open(path):
    times = make_times()
    content = write(path, times, trials=[[1, 9]]).read_bytes()

    def check(given):
        spikes = fastglm.load_spikes(given, "id != 21", "trials")
        np.testing.assert_array_equal(spikes.spike_times, np.concatenate([times[0], times[2]]))
        np.testing.assert_array_equal(spikes.segments, [[1, 9]])

    for mode in ("r", "a"):
        with h5py.File(path, mode) as file:
            check(file)
            check(file["/"])
            assert file["units/id"][0] == 20
    with open(path, "rb") as file:
        check(file)
        assert not file.closed
    memory = io.BytesIO(content)
    check(memory)
    with h5py.File(memory, "r") as file:
        check(file)
    with h5py.File(path, "r") as file:
        pass
    with pytest.raises(ValueError, match=r"h5py.File is closed"):
        fastglm.load_spikes(file)
    with pytest.raises(ValueError, match="could not be read as NWB: it is not an HDF5 file"):
        fastglm.load_spikes(io.BytesIO(b"no HDF5"))
    with open(path) as file, pytest.raises(ValueError, match="as text; open it in mode 'rb'"):
        fastglm.load_spikes(file)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("https://example.org/a.nwb", "is an address; open it and pass the open file"),
        (3, "load_spikes got a int; expected a path"),
        ([[0.1, 0.2]], "load_spikes got a list"),
    ],
)
def test_what_is_no_file_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        fastglm.load_spikes(given)


def test_a_data_set_that_is_only_declared_takes_no_memory(path):
    write(path, make_times())
    with h5py.File(path, "a") as file:
        del file["units/spike_times"], file["units/spike_times_index"]
        file["units"].create_dataset("spike_times", (10**13,), "f8", chunks=(1000,))
        file["units/spike_times_index"] = np.array([5, 10, 10**13])
    with pytest.raises(ValueError, match=r"spike_times declares 8e\+13 bytes and holds 0"):
        fastglm.load_spikes(path)


def add_names(file, values, **table):
    """A column of indices into a table of names."""
    file["units/note"] = np.array(values, np.int32)
    file["units/note"].attrs["elements"] = file.create_dataset("names", **table).ref


@pytest.mark.parametrize(
    ("add", "message"),
    [
        (
            lambda file: file.create_dataset("units/note", (3,), "S1000000000", chunks=(3,)),
            r"note declares 3e\+09 bytes and holds 0",
        ),
        (
            lambda file: add_names(file, [0, 0, 0], shape=(10**12,), dtype="S8", chunks=(1000,)),
            r"names declares 8e\+12 bytes and holds 0",
        ),
        (
            lambda file: add_names(file, [0, 1, 2], data=[b"a", b"b"]),
            r"could not be read as NWB: it is damaged \(index 2",
        ),
    ],
    ids=["text", "names", "index"],
)
def test_columns_that_are_only_declared_take_no_memory(path, add, message):
    write(path, make_times(3))
    with h5py.File(path, "a") as file:
        add(file)
    with pytest.raises(ValueError, match=message):
        fastglm.load_spikes(path, "id > 20")


def test_numbers_of_many_units_that_are_only_declared_take_no_memory(path):
    write(path, make_times(3))
    with h5py.File(path, "a") as file:
        del file["units/id"]
        file.create_dataset("units/id", data=np.zeros(10**6, np.int64), compression="gzip")
        file.create_dataset("units/note", (10**6,), "f8", chunks=(1000,))
    with pytest.raises(ValueError, match=r"note declares 8e\+06 bytes and holds 0"):
        fastglm.load_spikes(path, "id > 20")


def test_one_long_text_does_not_widen_all(path):
    write(path, make_times(3))
    texts = ["x" * 10**6] + ["good"] * 2999
    with h5py.File(path, "a") as file:
        units = file["units"]
        del units["id"], units["spike_times_index"]
        units["spike_times"][:] = np.sort(units["spike_times"][()])
        size = units["spike_times"].size
        units["id"], units["spike_times_index"] = np.arange(3000), np.full(3000, size)
        units["quality"] = texts
    tracemalloc.start()
    spikes = fastglm.load_spikes(path, "quality != 'good' and quality not in ['bad']")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert spikes.n_units == 1
    assert peak < 1e8  # as one array of texts, 12 GB


def test_damaged_files_are_named_in_one_line(path):
    write(path, make_times(2), [[[0, 40]]] * 2, trials=[[0, 9]])
    content, errors = path.read_bytes(), []
    rng = np.random.default_rng(0)
    for at in rng.choice(len(content), 150, replace=False):
        path.write_bytes(content[:at] + rng.bytes(5) + content[at + rng.integers(0, 6) :])
        try:
            quietly(path, "id > 0", "trials")
        except ValueError as error:
            errors.append(str(error))
    assert len(errors) > 75
    assert all("\n" not in text and "file.nwb" in text for text in errors)


@pytest.mark.parametrize("copies", [0, 299])
def test_many_references_to_one_long_text_take_no_memory(path, copies):
    write(path, make_times(300))
    texts = np.array(["x" * 10**6] + ["good"] * 299, object)
    with h5py.File(path, "a") as file:
        data = file.create_dataset("units/note", data=texts, dtype=h5py.string_dtype())
        place = data.id.get_offset()
    content = bytearray(path.read_bytes())  # an entry is the place of its text, 16 bytes
    content[place : place + 16 * (1 + copies)] = content[place : place + 16] * (1 + copies)
    path.write_bytes(content)
    tracemalloc.start()
    if copies:
        with pytest.raises(ValueError, match=r"texts of /units/note are longer than the file"):
            fastglm.load_spikes(path, "note != 'good'")
    else:
        assert fastglm.load_spikes(path, "note != 'good'").n_units == 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1e8  # all of the copies are 300 MB


def test_a_collection_of_texts_that_never_ends_is_refused(path):
    write(path, make_times(3))
    with h5py.File(path, "a") as file:
        data = file.create_dataset("units/quality", data=["good", "bad", "good"])
        place = data.id.get_offset()
    assert fastglm.load_spikes(path, "quality == 'good'").n_units == 2
    content = bytearray(path.read_bytes())
    heap = int.from_bytes(content[place + 4 : place + 12], "little")
    assert content[heap : heap + 4] == b"GCOL"
    content[heap + 16 : heap + 32] = bytes(16)  # a free object of no size: HDF5 stays there
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"file.nwb could .*: the texts of /units/quality are dam"):
        fastglm.load_spikes(path, "quality == 'good'")
