"""Files and objects that labs have: written, read, fitted, and refused where they are damaged."""

import datetime
import io
import json
import logging
import struct
import sys

import numpy as np
import pytest

import fastglm
from fastglm.cli import main

RATE = 30000.0
N_SAMPLES = 900_000  # 30 s
LABELS = ["good", "mua", "noise", "good", ""]
CLUSTERS = [3, 4, 7, 20, 21]


def make_samples(seed=0):
    """Samples of the spikes of five units; the fourth follows the first."""
    rng = np.random.default_rng(seed)
    samples = [
        np.sort(rng.choice(N_SAMPLES - 700, n, replace=False)) for n in (300, 90, 40, 350, 60)
    ]
    samples[3] = np.unique(np.concatenate([samples[3], samples[0] + 450]))
    return samples


def in_order(samples, ids):
    """Samples of all units in order of time, and the unit of each."""
    every, unit = np.concatenate(samples), np.repeat(ids, [s.size for s in samples])
    order = np.argsort(every, kind="stable")
    return every[order], unit[order]


def same_fit(given, times, stop=N_SAMPLES / RATE, start=0.0):
    """Assert that a recording has the fit of arrays of seconds, to the last bit."""
    model = fastglm.fit_coupling(given, bin_size=0.005, window=0.05)
    epochs = [[start, stop]] if np.ndim(start) == 0 else start
    reference = fastglm.fit_coupling(list(times), bin_size=0.005, window=0.05, epochs=epochs)
    np.testing.assert_array_equal(model.coef_, reference.coef_)
    np.testing.assert_array_equal(model.intercept_, reference.intercept_)
    np.testing.assert_array_equal(model.epochs_, reference.epochs_)
    assert np.abs(model.coef_).max() > 0.01
    return model


# --- Kilosort and Phy ---


def write_kilosort(folder, **files):
    """A folder of Kilosort 2 with labels of Phy; ``files`` replace or remove some of its files."""
    folder.mkdir(exist_ok=True)
    samples, clusters = in_order(make_samples(), CLUSTERS)
    shapes = np.searchsorted(CLUSTERS, clusters)  # one template a unit
    shapes[clusters == 21] = 0  # split off from the first by hand
    templates = np.zeros((4, 20, 8), np.float32)
    for k, channel in enumerate((2, 2, 5, 7)):
        templates[k, 5:15, channel] = np.sin(np.arange(10))
        templates[k, 8:12, 1] = 0.5
    groups = "".join(f"{c}\t{g}\n" for c, g in zip(CLUSTERS, LABELS, strict=True) if g)
    labels = "".join(f"{c}\tgood\n" for c in CLUSTERS)
    rates = "".join(f"{c},{c / 2}\n" for c in CLUSTERS[1:])
    content = {
        "spike_times.npy": samples.astype(np.uint64)[:, None],
        "spike_clusters.npy": clusters.astype(np.int32),
        "spike_templates.npy": shapes.astype(np.uint32)[:, None],
        "templates.npy": templates,
        "channel_map.npy": np.arange(8, dtype=np.int32)[:, None] + 100,
        "params.py": "import os\ndat_path = r'raw.dat'\nn_channels_dat = 8\ndtype = 'int16'\n"
        "offset = 0\nsample_rate = 30000.\nhp_filtered = False\nos.remove('raw.dat')\n",
        "cluster_group.tsv": "cluster_id\tgroup\n" + groups,
        "cluster_KSLabel.tsv": "cluster_id\tKSLabel\n" + labels,
        "cluster_fr.csv": "cluster_id,fr\n" + rates,
    }
    for name, value in (content | files).items():
        if isinstance(value, str | bytes):
            (folder / name).write_bytes(value if isinstance(value, bytes) else value.encode())
        elif value is not None:
            np.save(folder / name, value)
    return folder


def seconds(*chosen):
    return [make_samples()[k] / RATE for k in chosen]


def test_a_folder_of_kilosort_is_read(tmp_path, caplog):
    folder = write_kilosort(tmp_path / "ks")
    with open(folder / "raw.dat", "wb") as file:
        file.truncate(N_SAMPLES * 8 * 2)
    with caplog.at_level(logging.INFO, "fastglm"):
        spikes = fastglm.load_spikes(folder)
    (record,) = caplog.records
    assert "1 of 5 units are labelled noise and left out" in record.getMessage()
    assert spikes.names == [3, 4, 20, 21]
    for k, times in enumerate(seconds(0, 1, 3, 4)):
        np.testing.assert_array_equal(spikes.spike_times[spikes.unit == k], times)
    np.testing.assert_array_equal(spikes.segments, [[0, 30]])
    assert (spikes.t_start, spikes.t_stop) == (0, 30)
    assert spikes.metadata["group"] == ["good", "mua", "good", ""]
    assert spikes.metadata["channel"] == [102, 102, 107, 102]
    np.testing.assert_array_equal(spikes.metadata["fr"], [np.nan, 2, 10, 10.5])
    assert (folder / "raw.dat").is_file()  # params.py was not run
    model = same_fit(folder, seconds(0, 1, 3, 4))
    couplings = model.coupling_map(model.X_, model.counts_)
    assert couplings.senders.tolist() == [3, 4, 20, 21]
    assert couplings.same_channel[0, 1]
    assert couplings.same_channel.sum() == 6
    same_fit(fastglm.load_spikes(folder / "params.py", "group == 'good'"), seconds(0, 3))


@pytest.mark.slow
def test_a_folder_gives_the_map_of_its_spikes(tmp_path):
    folder = write_kilosort(tmp_path)
    found = fastglm.infer_connectivity(folder, bin_size=0.005)
    expected = fastglm.infer_connectivity(fastglm.load_spikes(folder), bin_size=0.005)
    np.testing.assert_array_equal(found.strength, expected.strength)
    assert found.senders.tolist() == [3, 4, 20, 21]
    assert "6 couplings are between cells of one channel (column channel)" in found.channel
    assert found.same_channel.sum() == 6


@pytest.mark.parametrize(
    ("where", "chosen"),
    [
        ("group == 'good'", [0, 3]),
        ("group in ['noise', 'good']", [0, 2, 3]),
        ("group == '' and KSLabel == 'good'", [4]),
        ("fr > 3", [2, 3, 4]),
        ("cluster_id < 7 or id == 21", [0, 1, 4]),
        ("channel == 102", [0, 1, 4]),
    ],
)
def test_clusters_are_chosen_by_their_tables(tmp_path, where, chosen):
    spikes = fastglm.load_spikes(write_kilosort(tmp_path), where)
    assert spikes.names == [CLUSTERS[k] for k in chosen]
    for k, times in enumerate(seconds(*chosen)):
        np.testing.assert_array_equal(spikes.spike_times[spikes.unit == k], times)


def test_a_recording_without_its_raw_file_ends_with_the_last_spike(tmp_path):
    folder = write_kilosort(tmp_path)
    last = max(s.max() for s in make_samples())
    spikes = fastglm.load_spikes(folder, "group == 'mua'")
    np.testing.assert_array_equal(spikes.segments, [[0, (last + 1) / RATE]])
    cut = fastglm.load_spikes(folder, epochs=[[2.0, 5.0], [7.0, 90.0]])
    np.testing.assert_array_equal(cut.segments, [[2, 5], [7, (last + 1) / RATE]])
    (tmp_path / "raw.dat").write_bytes(bytes(16 * 1000))
    with pytest.warns(UserWarning, match=r"has 1,000 samples, and the last spike is at sample"):
        short = fastglm.load_spikes(folder)
    assert short.t_stop == spikes.t_stop


def test_several_raw_files_follow_each_other(tmp_path):
    lines = "dat_path = ['a.dat', 'b.dat']\nn_channels_dat = 8\ndtype = 'int16'\noffset = 16\n"
    folder = write_kilosort(tmp_path, **{"params.py": lines + "sample_rate = 30000"})
    for name in ("a.dat", "b.dat"):
        with open(folder / name, "wb") as file:
            file.truncate(16 + N_SAMPLES * 16)
    assert fastglm.load_spikes(folder).t_stop == 60


def test_a_folder_of_kilosort_4_has_labels_of_its_own(tmp_path):
    """No Phy, no templates of Kilosort 2, and a pickle that is not opened."""
    folder = write_kilosort(
        tmp_path,
        **{
            "ops.npy": b"no pickle",
            "cluster_group.tsv": None,
            "cluster_fr.csv": None,
            "cluster_KSLabel.tsv": "cluster_id\tKSLabel\n3\tgood\n4\tnoise\n7\tmua\n",
            "spike_times.npy": in_order(make_samples(), CLUSTERS)[0],
            "templates.npy": None,
        },
    )
    spikes = fastglm.load_spikes(folder)
    assert spikes.names == [3, 7, 20, 21]
    assert spikes.metadata["KSLabel"] == ["good", "mua", "", ""]
    assert "channel" not in spikes.metadata
    good = fastglm.load_spikes(folder, "KSLabel == 'good'")
    assert good.names == [3]


def test_without_clusters_there_are_templates(tmp_path):
    folder = write_kilosort(tmp_path, **{"spike_clusters.npy": None, "cluster_group.tsv": None})
    assert fastglm.load_spikes(folder).names == [0, 1, 2, 3]


def test_tables_of_phy_go_together(tmp_path):
    info = "id\tch\tgroup\tdepth\n" + "".join(f"{c}\t{c % 3}\tmua\t{c}.5\n" for c in CLUSTERS)
    folder = write_kilosort(tmp_path, **{"cluster_info.tsv": info})
    spikes = fastglm.load_spikes(folder, "id > 0")
    assert spikes.metadata["channel"] == spikes.metadata["ch"] == [c % 3 for c in CLUSTERS]
    assert spikes.metadata["group"] == ["good", "mua", "noise", "good", "mua"]  # its own table
    assert spikes.metadata["depth"] == [c + 0.5 for c in CLUSTERS]
    assert "id" not in spikes.metadata
    (folder / "cluster_channel.tsv").write_text(
        "cluster_id\tchannel\n" + "".join(f"{c}\t{c % 2}\n" for c in CLUSTERS)
    )
    spikes = fastglm.load_spikes(folder, "id > 0")
    assert spikes.metadata["channel"] == [c % 2 for c in CLUSTERS]


def test_empty_cells_of_a_table_are_missing(tmp_path):
    rows = "".join(
        f"{c}\t{fr}\t{label}\n"
        for c, fr, label in zip(
            CLUSTERS, ["1.5", "", " 2", "3", ""], [" good ", "mua", "", "good", "x"], strict=True
        )
    )
    folder = write_kilosort(
        tmp_path, **{"cluster_fr.csv": None, "cluster_fr.tsv": "cluster_id\tfr\tnote\n" + rows}
    )
    spikes = fastglm.load_spikes(folder, "id > 0")
    np.testing.assert_array_equal(spikes.metadata["fr"], [1.5, np.nan, 2, 3, np.nan])
    assert spikes.metadata["note"] == ["good", "mua", "", "good", "x"]
    assert fastglm.load_spikes(folder, "note == 'good' and fr > 2").names == [20]


def test_samples_and_neo_s_times_are_certainly_seconds(tmp_path):
    """Two spikes an hour, which as bare numbers would be asked about."""
    neo, pq = pytest.importorskip("neo"), pytest.importorskip("quantities")
    samples = np.arange(1, 9) * int(RATE) * 1800
    files = {"spike_times.npy": samples, "spike_clusters.npy": np.arange(8) % 2}
    folder = write_kilosort(tmp_path, **files, **{"spike_templates.npy": None})
    assert fastglm.load_spikes(folder).t_stop > 14_400
    trains = [neo.SpikeTrain(samples[k::2] / RATE * pq.s, t_stop=15_000) for k in (0, 1)]
    assert fastglm.load_spikes(trains).t_stop == 15_000
    sorting = Sorting(n_samples=15_000 * int(RATE))
    sorting.samples = [[samples[k::5] for k in range(5)]]
    assert fastglm.load_spikes(sorting).t_stop == 15_000


def test_sparse_templates_name_their_channels(tmp_path):
    templates = np.zeros((4, 20, 3), np.float32)
    templates[:, 5, 1] = 1
    templates[:, 6, 2] = 5  # of no channel
    index = np.array([[0, 3, -1]] * 4)
    files = {"templates.npy": templates, "template_ind.npy": index, "channel_map.npy": None}
    spikes = fastglm.load_spikes(write_kilosort(tmp_path, **files))
    assert spikes.metadata["channel"] == [3, 3, 3, 3]


def declares(shape, dtype="<i8"):
    head = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    head += b" " * (64 - (10 + len(head) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + bytes(80)


def pickled():
    out = io.BytesIO()
    np.save(out, np.array([{}], dtype=object), allow_pickle=True)
    return out.getvalue()


SAMPLES, NUMBERS = in_order(make_samples(), CLUSTERS)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"params.py": None}, "params.py is missing, or .*; write a file params.py with the line"),
        ({"params.py": "rate = 3"}, "has no sample_rate above 0"),
        ({"params.py": "sample_rate = 0"}, "has no sample_rate above 0"),
        ({"params.py": "sample_rate = -1"}, "has no sample_rate above 0"),
        ({"params.py": "sample_rate = open('x')"}, "has no sample_rate above 0"),
        ({"params.py": "sample_rate ="}, "params.py could not be read: it is not a file of Python"),
        ({"params.py": "(" * 10**5}, "params.py could not be read: it is not a file of Python"),
        (
            {"spike_clusters.npy": NUMBERS[:-1]},
            r"has \d+ entries and spike_times.npy \d+; expected",
        ),
        ({"spike_clusters.npy": None, "spike_templates.npy": None}, "has no spike_templates.npy"),
        ({"spike_times.npy": SAMPLES / RATE}, "not whole; expected samples, not seconds"),
        ({"spike_times.npy": SAMPLES - 5000}, "samples below 0, first -"),
        ({"spike_times.npy": SAMPLES.astype(str)}, "expected a whole number for each spike"),
        ({"spike_times.npy": SAMPLES[:100].reshape(10, 10)}, r"has shape \(10, 10\)"),
        ({"spike_times.npy": declares((10**13,))}, "spike_times.npy could not be read as spikes"),
        ({"spike_times.npy": pickled()}, "not an .npy file of a plain array"),
        ({"spike_times.npy": b"text"}, "not an .npy file of a plain array"),
        ({"templates.npy": declares((4, 10**7, 10**6))}, "templates.npy could not be read"),
        ({"templates.npy": np.zeros((2, 20, 8))}, "goes from 0 to 3, and templates.npy has 2"),
        ({"templates.npy": np.zeros((4, 8))}, r"has shape \(4, 8\); expected \(n_templates"),
        ({"templates_ind.npy": np.zeros((4, 7), int)}, r"have shape \(4, 7\); expected \(4, 8\)"),
        ({"channel_map.npy": np.zeros(8, "U3")}, "dtype <U3; expected numbers of channels"),
        ({"cluster_group.tsv": "a\tb\n1\t2\n"}, r"has the columns \['a', 'b'\]; expected cluster_"),
        ({"cluster_group.tsv": "cluster_id\tgroup\n3\n"}, r"row 2 is \['3'\]; expected the number"),
        ({"cluster_group.tsv": "cluster_id\tgroup\nx\ty\n"}, "row 2 is .* expected the number of"),
        ({"cluster_group.tsv": b"\xff\xfe\x00"}, "could not be read as a table of clusters"),
        (
            {
                "spike_times.npy": SAMPLES[:0],
                "spike_clusters.npy": NUMBERS[:0],
                "spike_templates.npy": None,
            },
            "has no units",
        ),
        (
            {
                "cluster_group.tsv": None,
                "cluster_KSLabel.tsv": "id\tKSLabel\n" + "".join(f"{c}\tnoise\n" for c in CLUSTERS),
            },
            "all of 5 units are labelled noise",
        ),
    ],
)
def test_damaged_folders_are_refused_in_one_line(tmp_path, files, message):
    folder = write_kilosort(tmp_path, **files)
    with pytest.raises(ValueError, match=message) as caught:
        fastglm.load_spikes(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_choices_that_do_not_fit_a_folder_are_refused(tmp_path):
    folder = write_kilosort(tmp_path / "ks")
    with pytest.raises(ValueError, match=r"has no column 'quality'.* it has KSLabel, channel, clu"):
        fastglm.load_spikes(folder, "quality > 3")
    with pytest.raises(ValueError, match="has no intervals 'trials'; expected intervals in sec"):
        fastglm.load_spikes(folder, epochs="trials")
    with pytest.raises(FileNotFoundError, match=r"The folder .*ks in it has some"):
        fastglm.load_spikes(tmp_path)
    assert fastglm.load_spikes(folder, epochs="obs").n_units == 4


def test_the_command_line_fits_a_folder(tmp_path, capsys, monkeypatch):
    folder = write_kilosort(tmp_path / "ks")
    arguments = ["--bin-size", "0.005", "--window", "0.05", "--ridge", "1e-4"]
    main(["fit", str(folder), *arguments, "--out", str(tmp_path / "all.npz")])
    out, err = capsys.readouterr()
    assert "4, " in out
    assert "1 of 5 units are labelled noise and left out" in err
    assert "6 of 12 couplings (column channel)" in out
    monkeypatch.chdir(folder)
    main(["fit", ".", *arguments, "--where", "group == 'good'", "--epochs", "obs"])
    out, err = capsys.readouterr()
    assert "pairs of one channel" not in out
    assert "noise" not in err
    assert logging.getLogger("fastglm").level == logging.NOTSET


# --- tables ---


def make_table(names=("b", "a", "c"), rows=slice(None)):
    """A table of the spikes of three units in order of time, with columns of all kinds."""
    pandas = pytest.importorskip("pandas")
    times, unit = in_order(seconds(0, 3, 1), np.arange(3))
    names = np.array(names)
    table = {"Unit": names[unit], "time": times, "area": np.array(["CA1", "CA3", "CA1"])[unit]}
    table |= {"tetrode": np.array([1, 1, 2])[unit], "amplitude": np.arange(times.size) % 7}
    return pandas.DataFrame(table).iloc[rows]


def write_table(path, frame):
    if path.suffix == ".parquet":
        pytest.importorskip("pyarrow")
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep={".tsv": "\t"}.get(path.suffix, ","))
    return path


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet"])
def test_a_table_of_units_and_times_is_read(tmp_path, ending):
    path = write_table(tmp_path / f"spikes{ending}", make_table())
    spikes = fastglm.load_spikes(path)
    assert spikes.names == ["a", "b", "c"]
    assert spikes.metadata == {
        "area": ["CA3", "CA1", "CA1"],
        "tetrode": [1, 1, 2],
        "Unit": ["a", "b", "c"],
    }
    times = seconds(3, 0, 1)
    ends = min(t.min() for t in times), max(t.max() for t in times)
    np.testing.assert_array_equal(spikes.segments, [ends])
    model = same_fit(path, times, ends[1], ends[0])
    couplings = model.coupling_map(model.X_, model.counts_)
    assert couplings.same_channel[0, 1]
    assert couplings.same_channel.sum() == 2
    chosen = fastglm.load_spikes(path, "area == 'CA1' and id != 'c'", epochs=[[1.0, 9.0]])
    assert chosen.names == ["b"]
    np.testing.assert_array_equal(chosen.spike_times, times[1])
    np.testing.assert_array_equal(chosen.segments, [[1, 9]])


def test_columns_of_a_table_are_found_by_their_names(tmp_path):
    frame = make_table([12, 5, 7]).drop(columns=["area", "tetrode", "amplitude"])
    expected = fastglm.load_spikes(write_table(tmp_path / "a.csv", frame))
    assert expected.names == [5, 7, 12]
    for unit, time in (("cell_id", "t"), ("Neuron", "Spike_Times"), ("cluster", "seconds")):
        path = tmp_path / f"{unit}.csv"
        frame.set_axis([unit, time], axis=1).iloc[:, ::-1].to_csv(path, index=False, sep=";")
        spikes = fastglm.load_spikes(path)
        assert spikes.names == expected.names
        np.testing.assert_array_equal(spikes.spike_times, expected.spike_times)
    marked = tmp_path / "marked.csv"  # as spreadsheets write it
    frame.set_axis(["unit", "t"], axis=1).to_csv(marked, index=False, encoding="utf-8-sig")
    assert fastglm.load_spikes(marked).names == expected.names
    path = write_table(tmp_path / "floats.csv", frame.astype({"Unit": float}))
    assert fastglm.load_spikes(path, "id > 5").names == [7, 12]


def test_times_of_a_table_may_have_a_unit_or_be_out_of_order(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = make_table()
    ticks = (1e6 * frame.time).round().astype(int)  # microseconds
    path = write_table(tmp_path / "a.parquet", frame.assign(time=ticks / 1e6))
    delta = pandas.to_timedelta(ticks, unit="us")
    other = write_table(tmp_path / "b.parquet", frame.assign(time=delta))
    one, two = map(fastglm.load_spikes, (path, other))
    np.testing.assert_array_equal(two.spike_times, one.spike_times)
    nullable = frame.time.astype("Float64")
    path = write_table(tmp_path / "d.parquet", frame.assign(time=nullable))
    np.testing.assert_array_equal(
        fastglm.load_spikes(path).spike_times,
        fastglm.load_spikes(write_table(tmp_path / "e.parquet", frame)).spike_times,
    )
    nullable.iloc[3] = None
    path = write_table(tmp_path / "d.parquet", frame.assign(time=nullable))
    with pytest.raises(ValueError, match=r"NaN or infinity .1 of"):
        fastglm.load_spikes(path)
    mixed = write_table(tmp_path / "c.csv", frame.iloc[::-1])
    with pytest.warns(UserWarning, match="units a, b, c were not in order of time; they were sort"):
        spikes = fastglm.load_spikes(mixed)
    np.testing.assert_array_equal(spikes.spike_times[spikes.unit == 0], seconds(3)[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a,time\n1,2\n",
            r"has the columns 'a', 'time', and none of units; expected one called un",
        ),
        ("unit,time_ms\n1,2\n", r"has the columns 'unit', 'time_ms', and none of times; expected "),
        ("unit,time\n", "has no units"),
        ("", "No columns to parse from file"),
        (
            "unit,time\n1,x\n",
            "'time' does not hold numbers .could not convert string to float: 'x'",
        ),
        ("unit,time\n1,2\n,3\n", "row 2 has no unit"),
        ("unit,time\n1,2\n1,\n", "unit 1 hold NaN or infinity"),
        ("unit,time\n1,2\n1,3,4\n", "Expected 2 fields in line 3, saw 3"),
        ("unit,time\na,1000\na,90000\n", "are times in ms or samples"),
        (
            "unit,time\n" + "".join(f"{k % 400},{10 * k}\n" for k in range(1200)),
            "at 0.00025 spikes a second: are times in ms or samples",
        ),
        ("unit,time\n1,2\n1,3\n2,-1\n2,5.5\n", "-1 .1 of 2., which looks like a placeholder"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tmp_path, text, message):
    pytest.importorskip("pandas")
    path = tmp_path / "spikes.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        fastglm.load_spikes(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_damaged_parquet_is_refused(tmp_path):
    path = write_table(tmp_path / "spikes.parquet", make_table())
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"spikes\.parquet"):
        fastglm.load_spikes(path)
    pandas = pytest.importorskip("pandas")
    n = 2_000_000
    frame = pandas.DataFrame({"unit": np.zeros(n, np.int8), "time": np.zeros(n, np.float32)})
    write_table(path, frame)
    with pytest.raises(ValueError, match=r"declares 2,000,000 rows and holds [\d,]+ bytes"):
        fastglm.load_spikes(path)


# --- SpikeInterface ---


class Sorting:
    """What SpikeInterface's sortings do, of the spikes of five units in some segments."""

    unit_ids = np.array(["a", "b", "c", "d", "e"])

    def __init__(self, n_segments=1, starts=None, n_samples=None):
        self.samples = [make_samples(k) for k in range(n_segments)]
        self.starts = starts or [0.0] * n_segments
        self.n_samples = n_samples

    def get_num_segments(self):
        return len(self.samples)

    def get_sampling_frequency(self):
        return RATE

    def get_start_time(self, segment):
        return self.starts[segment]

    def has_recording(self):
        return self.n_samples is not None

    def get_num_samples(self, segment):
        return self.n_samples

    def get_unit_spike_train(self, unit, segment, return_times=False):
        frames = self.samples[segment][self.unit_ids.tolist().index(unit)]
        return self.starts[segment] + frames / RATE if return_times else frames

    def get_property_keys(self):
        return ["quality", "snr", "location", "tetrode"]

    def get_property(self, key):
        values = {"quality": LABELS, "snr": [1.0, 2, np.nan, 4, 5], "location": np.ones((5, 2))}
        return np.array((values | {"tetrode": [1, 2, 1, 2, 3]})[key])


def shifted(n_segments, shift):
    """Times of five units in segments that begin ``shift`` seconds after each other."""
    parts = [[s / RATE + k * shift for s in make_samples(k)] for k in range(n_segments)]
    return [np.concatenate(one) for one in zip(*parts, strict=True)]


def test_a_sorting_is_read():
    sorting = Sorting(n_samples=N_SAMPLES)
    model = same_fit(sorting, seconds(0, 1, 2, 3, 4))
    assert model.coupling_map(model.X_, model.counts_).same_channel.sum() == 4  # of two tetrodes
    spikes = fastglm.load_spikes(sorting, "quality == 'good' and snr > 1")
    assert spikes.names == ["d"]
    assert spikes.metadata == {"quality": ["good"], "snr": [4.0], "tetrode": [2]}
    last = max(s.max() for s in make_samples())
    spikes = fastglm.load_spikes(Sorting(), epochs=[[4, 60]])
    np.testing.assert_array_equal(spikes.segments, [[4, (last + 1) / RATE]])
    with pytest.raises(ValueError, match=r"Sorting has no column 'area'.* it has id, quality, snr"):
        fastglm.load_spikes(sorting, "area == 'CA1'")


def test_segments_of_a_sorting_are_put_end_to_end():
    spikes = fastglm.load_spikes(Sorting(3, n_samples=N_SAMPLES))
    segments = [[0, 30], [30, 60], [60, 90]]
    np.testing.assert_array_equal(spikes.segments, segments)
    same_fit(spikes, shifted(3, 30.0), start=segments)
    counts, epochs = spikes.bin(0.005)
    assert epochs.tolist() == [[0, 6000], [6000, 12000], [12000, 18000]]
    alone = fastglm.bin_spikes(*in_seconds(make_samples(1)), 0.005, t_stop=30)
    np.testing.assert_array_equal(counts[6000:12000], alone)
    own = fastglm.load_spikes(Sorting(2, [100.0, 200.0], N_SAMPLES))  # clocks that go on
    np.testing.assert_array_equal(own.segments, [[100, 130], [200, 230]])
    same_fit(own, [t + 100 for t in shifted(2, 100.0)], start=[[100, 130], [200, 230]])


def in_seconds(samples):
    times, unit = in_order(samples, np.arange(len(samples)))
    return times / RATE, unit


@pytest.mark.filterwarnings("ignore")  # of SpikeInterface
def test_objects_of_spikeinterface_are_read(tmp_path):
    core = pytest.importorskip("spikeinterface.core")
    sorting = core.NumpySorting.from_unit_dict(dict(enumerate(make_samples())), RATE)
    sorting.set_property("quality", LABELS)
    last = (max(s.max() for s in make_samples()) + 1) / RATE
    same_fit(sorting, seconds(0, 1, 2, 3, 4), last)
    assert fastglm.load_spikes(sorting, "quality == 'mua'").names == [1]
    sorting.save(folder=tmp_path / "saved")
    same_fit(core.load(tmp_path / "saved"), seconds(0, 1, 2, 3, 4), last)


@pytest.mark.filterwarnings("ignore")  # of SpikeInterface
def test_an_analyzer_of_spikeinterface_brings_metrics_and_channels(tmp_path):
    core = pytest.importorskip("spikeinterface.core")
    recording, sorting = core.generate_ground_truth_recording(
        durations=[10.0, 10.0], num_units=5, num_channels=4, seed=0
    )
    analyzer = core.create_sorting_analyzer(sorting, recording, sparse=False)
    analyzer.compute(["random_spikes", "waveforms", "templates", "noise_levels"])
    analyzer.compute("quality_metrics", metric_names=["num_spikes"])
    spikes = fastglm.load_spikes(analyzer)
    np.testing.assert_array_equal(spikes.segments, [[0, 10], [10, 20]])
    rate = sorting.get_sampling_frequency()
    times = [
        np.concatenate([sorting.get_unit_spike_train(u, k) / rate + 10.0 * k for k in (0, 1)])
        for u in sorting.unit_ids
    ]
    same_fit(analyzer, times, start=spikes.segments)
    assert spikes.names == sorting.unit_ids.tolist()
    shapes = analyzer.get_extension("templates").get_data()
    expected = recording.channel_ids[np.ptp(shapes, axis=1).argmax(axis=1)]
    assert spikes.metadata["channel"] == expected.tolist()
    assert spikes.metadata["num_spikes"] == [t.size for t in times]
    fewest = min(t.size for t in times)
    assert fastglm.load_spikes(analyzer, f"num_spikes > {fewest}").n_units == 4


@pytest.mark.filterwarnings("ignore")  # of SpikeInterface
def test_a_folder_that_spikeinterface_wrote_for_phy_is_read(tmp_path, monkeypatch):
    core = pytest.importorskip("spikeinterface.core")
    exporters = pytest.importorskip("spikeinterface.exporters")
    similarity = pytest.importorskip("spikeinterface.postprocessing.template_similarity")
    if hasattr(similarity, "_compute_similarity_matrix_numpy"):  # the other compiles for 30 s
        plain = similarity._compute_similarity_matrix_numpy
        monkeypatch.setattr(similarity, "_compute_similarity_matrix", plain)
    recording, sorting = core.generate_ground_truth_recording(
        durations=[10.0], num_units=5, num_channels=4, seed=0
    )
    analyzer = core.create_sorting_analyzer(sorting, recording, sparse=False)
    analyzer.compute(["random_spikes", "waveforms", "templates"])
    options = {"compute_pc_features": False, "compute_amplitudes": False, "verbose": False}
    exporters.export_to_phy(analyzer, tmp_path / "phy", copy_binary=True, **options)
    spikes, expected = map(fastglm.load_spikes, (tmp_path / "phy", analyzer))
    for k in range(5):
        np.testing.assert_array_equal(
            spikes.spike_times[spikes.unit == k], expected.spike_times[expected.unit == k]
        )
    np.testing.assert_array_equal(spikes.segments, [[0, 10]])
    channels = [str(recording.channel_ids[k]) for k in spikes.metadata["channel"]]
    assert channels == expected.metadata["channel"]
    assert spikes.metadata["group"] == ["unsorted"] * 5


# --- Neo ---


def make_trains(part=0, names=True, stop=30.0):
    """Five spike trains of Neo in ms, with annotations."""
    neo, pq = pytest.importorskip("neo"), pytest.importorskip("quantities")
    return [
        neo.SpikeTrain(
            samples / 30 * pq.ms,
            t_stop=stop * pq.s,
            name=f"cell {k}" if names else None,
            quality=LABELS[k],
            channel_id=k // 2,
            shape=[1, 2],
        )
        for k, samples in enumerate(make_samples(part))
    ]


def make_block(n_segments=2, edit=lambda k, trains: trains, **options):
    """A block of Neo with an epoch in each segment, which all begin at 0."""
    neo, pq = pytest.importorskip("neo"), pytest.importorskip("quantities")
    block = neo.Block()
    for k in range(n_segments):
        segment = neo.Segment()
        segment.spiketrains.extend(edit(k, make_trains(k, **options)))
        segment.epochs.append(neo.Epoch([2, 10] * pq.s, [5.0, 5 + k] * pq.s, name="run"))
        block.segments.append(segment)
    return block


def test_spike_trains_of_neo_are_read():
    trains = make_trains()
    model = same_fit(trains, [t.rescale("s").magnitude for t in trains])
    couplings = model.coupling_map(model.X_, model.counts_)
    assert couplings.senders.tolist() == [f"cell {k}" for k in range(5)]
    assert couplings.same_channel.sum() == 4
    spikes = fastglm.load_spikes(trains, "quality == 'good' and id != 'cell 0'")
    assert spikes.names == ["cell 3"]
    assert spikes.metadata == {"quality": ["good"], "channel_id": [1]}
    np.testing.assert_array_equal(spikes.segments, [[0, 30]])
    assert fastglm.load_spikes(make_trains(names=False)).names == [0, 1, 2, 3, 4]
    assert fastglm.load_spikes(trains[0]).n_units == 1
    trains[1] = make_trains(stop=31.0)[1]
    spikes = fastglm.load_spikes([*trains[:2], make_trains(stop=29.98)[2]])
    np.testing.assert_array_equal(spikes.segments, [[0, 29.98]])  # observed together


@pytest.mark.parametrize("names", [True, False])
def test_segments_of_a_block_are_put_end_to_end(names):
    block, segments = make_block(names=names), [[0, 30], [30, 60]]
    spikes = fastglm.load_spikes(block)
    np.testing.assert_array_equal(spikes.segments, segments)
    times = [
        np.concatenate([a.rescale("s").magnitude, b.rescale("s").magnitude + 30.0])
        for a, b in zip(make_trains(0), make_trains(1), strict=True)
    ]
    same_fit(block, times, start=segments)
    same_fit([block], times, start=segments)  # as neo's readers give them
    same_fit(list(block.segments), times, start=segments)
    run = fastglm.load_spikes(block, epochs="run")
    np.testing.assert_array_equal(run.segments, [[2, 7], [10, 15], [32, 37], [40, 46]])
    one = fastglm.load_spikes(block.segments[1], epochs="run")
    np.testing.assert_array_equal(one.segments, [[2, 7], [10, 16]])
    np.testing.assert_array_equal(one.spike_times, fastglm.load_spikes(make_trains(1)).spike_times)


def test_trains_of_segments_go_together_by_name():
    expected = fastglm.load_spikes(make_block(3))
    block = make_block(3, lambda k, trains: trains[::-1] if k == 1 else trains)
    assert block.segments[1].spiketrains[0].name == "cell 4"
    spikes = fastglm.load_spikes(block)
    np.testing.assert_array_equal(spikes.spike_times, expected.spike_times)
    block = make_block(3, lambda k, trains: trains[:4] if k == 2 else trains)
    with pytest.warns(UserWarning, match="some of its 3 segments have no train of unit cell"):
        spikes = fastglm.load_spikes(block)
    np.testing.assert_array_equal(spikes.segments, [[0, 30], [30, 60]])
    spikes = fastglm.load_spikes(block, "id != 'cell 4'")
    np.testing.assert_array_equal(spikes.segments, [[0, 30], [30, 60], [60, 90]])


def test_what_neo_lacks_is_said():
    neo = pytest.importorskip("neo")
    block = make_block(edit=lambda k, trains: trains[k:], names=False)
    with pytest.raises(ValueError, match="segments with 4 and 5 spike trains, whose names are mis"):
        fastglm.load_spikes(block)
    pq = pytest.importorskip("quantities")
    apart = [neo.SpikeTrain([k + 0.5] * pq.s, t_start=k, t_stop=k + 1.0) for k in range(2)]
    with pytest.raises(ValueError, match="no time in the epochs when all 2 units were observed"):
        fastglm.load_spikes(apart)
    with pytest.raises(ValueError, match="Neo's Segment has no spike trains"):
        fastglm.load_spikes(neo.Segment())
    with pytest.raises(ValueError, match=r"Neo's Block has no intervals 'rest'; .* \['run'\]"):
        fastglm.load_spikes(make_block(), epochs="rest")
    with pytest.raises(ValueError, match=r"Neo's SpikeTrain has no column 'area'"):
        fastglm.load_spikes(make_trains(), "area == 'CA1'")


# --- PyNWB ---


def make_nwb():
    """An NWBFile in memory, with columns and intervals of all kinds."""
    pynwb = pytest.importorskip("pynwb")
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    file = pynwb.NWBFile("test", "made in memory", start)
    shank = file.create_electrode_group("shank", "-", "-", file.create_device("probe"))
    for _ in range(4):
        file.add_electrode(group=shank, location="CA1")
    file.add_unit_column("quality", "of the sorting")
    file.add_unit_column("area", "region", enum=["CA1", "CA3"])
    file.add_unit_column("axonal", "a truth value")
    file.add_unit_column("waveform", "three values")
    file.add_unit_column("tags", "some texts", index=True)
    for k, times in enumerate(seconds(0, 1, 2, 3, 4)):
        file.add_unit(
            id=10 + k,
            spike_times=times,
            obs_intervals=[[0.0, 12.0], [15.0, 28.0 + k % 2]],
            quality=LABELS[k],
            area=["CA1", "CA3"][k % 2],
            axonal=k == 2,
            waveform=[1.0, 2.0, k],
            tags=["x"] * (k + 1),
            electrodes=[k // 2],
            electrode_group=shank,
        )
    for row in ([1.0, 6.0], [10.0, 20.0]):
        file.add_trial(start_time=row[0], stop_time=row[1])
    sleep = pynwb.epoch.TimeIntervals(name="sleep", description="-")
    sleep.add_row(start_time=3.0, stop_time=9.0)
    file.add_time_intervals(sleep)
    file.add_invalid_time_interval(start_time=4.0, stop_time=5.0)
    return file


def same_recording(one, other):
    for name in ("spike_times", "unit", "segments"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in ("names", "invalid", "t_start", "t_stop", "resolution", "metadata"):
        assert getattr(one, name) == getattr(other, name)


CHOICES = (
    {},
    {"where": "quality == 'good' and area == 'CA1'"},
    {"where": "axonal or id > 13", "epochs": "trials"},
    {"epochs": "sleep"},
    {"epochs": [[2.0, 17.0]], "keep_invalid": True},
    {"epochs": "invalid_times"},
)


@pytest.mark.filterwarnings("ignore")  # of PyNWB
def test_an_nwb_file_in_memory_is_as_its_file(tmp_path):
    pynwb = pytest.importorskip("pynwb")
    file, path = make_nwb(), tmp_path / "session.nwb"
    before = [fastglm.load_spikes(file, **choice) for choice in CHOICES]
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(file)
    with pynwb.NWBHDF5IO(path, "r") as io:
        read = io.read()
        for choice, one in zip(CHOICES, before, strict=True):
            expected = fastglm.load_spikes(path, **choice)
            same_recording(one, expected)
            same_recording(fastglm.load_spikes(read, **choice), expected)
    assert before[0].metadata["electrode_group"] == ["shank"] * 5
    assert before[0].metadata["electrodes"] == ["0", "0", "1", "1", "2"]
    epochs = [[0, 4], [5, 12], [15, 28]]
    model = same_fit(file, seconds(0, 1, 2, 3, 4), start=epochs)
    assert model.coupling_map(model.X_, model.counts_).same_channel.sum() == 4
    with pytest.raises(ValueError, match=r"session.nwb could not be read .* is its io still open"):
        fastglm.load_spikes(read)


@pytest.mark.filterwarnings("ignore")  # of PyNWB
def test_what_an_nwb_file_lacks_is_said():
    pynwb = pytest.importorskip("pynwb")
    file = make_nwb()
    with pytest.raises(ValueError, match="NWBFile 'made in memory' has no column 'depth'"):
        fastglm.load_spikes(file, "depth > 3")
    with pytest.raises(ValueError, match=r"no intervals 'rest'; .*'invalid_times', 'sleep', 'tri"):
        fastglm.load_spikes(file, epochs="rest")
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    with pytest.raises(ValueError, match="has no table of units with spike times"):
        fastglm.load_spikes(pynwb.NWBFile("test", "id", start))
    with pytest.raises(ValueError, match="load_spikes got a Units; expected a path"):
        fastglm.load_spikes(file.units)


@pytest.mark.filterwarnings("ignore")  # of PyNWB and Zarr
def test_a_zarr_store_is_as_the_object_it_was_made_of(tmp_path):
    library = pytest.importorskip("hdmf_zarr")
    file, path = make_nwb(), tmp_path / "session.nwb.zarr"
    before = [fastglm.load_spikes(file, **choice) for choice in CHOICES]
    with library.NWBZarrIO(str(path), mode="w") as io:
        io.write(file)
    for choice, one in zip(CHOICES, before, strict=True):
        read = fastglm.load_spikes(path, **choice)
        for spikes in (one, read):  # hdmf-zarr 0.13 pickles links, and nothing is unpickled
            spikes.metadata.pop("electrode_group", None)
        same_recording(read, one)
    same_fit(path, seconds(0, 1, 2, 3, 4), start=[[0, 4], [5, 12], [15, 28]])
    with pytest.raises(ValueError, match=r"session.nwb.zarr has no column 'depth'"):
        fastglm.load_spikes(path, "depth > 3")


@pytest.mark.filterwarnings("ignore")  # of PyNWB and Zarr
def test_arrays_of_a_zarr_store_that_are_only_declared_take_no_memory(tmp_path):
    library = pytest.importorskip("hdmf_zarr")
    path = tmp_path / "session.nwb.zarr"
    with library.NWBZarrIO(str(path), mode="w") as io:
        io.write(make_nwb())
    (path / ".zmetadata").unlink()
    place = path / "units" / "obs_intervals" / ".zarray"
    if not place.is_file():
        pytest.skip("the test knows format 2 of Zarr")
    place.write_text(json.dumps(json.loads(place.read_text()) | {"shape": [10**11, 2]}))
    with pytest.raises(ValueError, match=r"obs_intervals declares 1.6e\+12 bytes and holds \d+"):
        fastglm.load_spikes(path)
    place = path / "units" / "id" / ".zarray"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"shape": [10**11]}))
    with pytest.raises(
        ValueError, match=r"could not be read by hdmf-zarr: Could not construct Units"
    ) as e:
        fastglm.load_spikes(path)
    assert len(str(e.value)) < 500


def test_folders_of_no_format_are_refused(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="but neither one of Kilosort or Phy, with spike_t"):
        fastglm.load_spikes(tmp_path)
    (tmp_path / "session.nex").write_bytes(b"NEX1")
    with pytest.raises(
        ValueError, match=r"session.nex could not be read .* SpikeInterface or Neo re"
    ):
        fastglm.load_spikes(tmp_path / "session.nex")
    with pytest.raises(FileNotFoundError, match=r"There is no file nowhere"):
        fastglm.fit_coupling("nowhere")
    (tmp_path / ".zgroup").write_text("{}")
    monkeypatch.setitem(sys.modules, "hdmf_zarr", None)
    with pytest.raises(ImportError, match="This needs hdmf_zarr: pip install hdmf_zarr"):
        fastglm.load_spikes(tmp_path)


@pytest.mark.parametrize("name", ["spikes.csv", "spikes.parquet"])
def test_tables_need_pandas(tmp_path, monkeypatch, name):
    (tmp_path / name).write_text("unit,time")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="This needs pandas: pip install pandas"):
        fastglm.load_spikes(tmp_path / name)


def test_a_template_that_is_not_finite_has_a_channel_among_the_finite_ones(tmp_path):
    templates = np.zeros((4, 20, 8))
    templates[:, 5, 3], templates[:, 6, 4], templates[:, 7, 6] = np.nan, np.inf, 1.0
    templates[:, 8:10, 2] = 1e308, -1e308  # from peak to peak it is no float64
    spikes = fastglm.load_spikes(write_kilosort(tmp_path, **{"templates.npy": templates}))
    assert spikes.metadata["channel"] == [106] * 4
