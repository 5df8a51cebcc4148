"""The command line from end to end: tables, files, exit codes, and which stream gets what."""

import re
import subprocess
import sys
import warnings

import numpy as np
import pytest

import fastglm
from fastglm.cli import main
from fastglm.simulation import random_network
from fastglm.workflow import sessions

BIN = 0.01
N_UNITS, N_BINS = 3, 600


def write_recording(path, counts, **more):
    """Save the counts as spikes at the centres of their bins."""
    bins, unit = np.nonzero(counts)
    repeats = counts[bins, unit]
    bins, unit = np.repeat(bins, repeats), np.repeat(unit, repeats)
    order = np.lexsort((bins, unit))
    np.savez(
        path,
        spike_times=(bins[order] + 0.5) * BIN,
        unit=unit[order],
        n_units=counts.shape[1],
        t_start=0.0,
        t_stop=counts.shape[0] * BIN,
        **more,
    )
    return str(path)


@pytest.fixture(scope="module")
def counts():
    basis = fastglm.basis.RaisedCosineLogConv(3, window_size=5)
    network = random_network(N_UNITS, basis, mean_rate_hz=15, bin_size=BIN, random_key=3)
    return network.simulate(N_BINS, 1)


@pytest.fixture(scope="module")
def recording(counts, tmp_path_factory):
    return write_recording(tmp_path_factory.mktemp("data") / "rec.npz", counts)


def fit_arguments(recording, *more):
    return [
        *("fit", recording, "--bin-size", str(BIN), "--window", "0.05"),
        *("--n-basis", "4", "--ridge", "1e-3"),
        *more,
    ]


def table(text):
    """The rows that were printed, name to value."""
    return dict(re.split(r"  +", line, maxsplit=1) for line in text.splitlines() if "  " in line)


def read_picture(path):
    image = pytest.importorskip("matplotlib.image").imread(path)
    assert min(image.shape[:2]) > 300
    assert image[..., :3].std() > 0.01  # not blank
    return image


# --- demo ---


@pytest.mark.slow
def test_demo_prints_a_table_and_saves_a_picture(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    folder = tmp_path / "new" / "folder"
    main(["demo", "--cells", "4", "--seconds", "20", "--out", str(folder)])
    out, err = capsys.readouterr()
    rows = table(out)
    assert rows["cells, bins"] == "4, 20000 of 1 ms"
    assert rows["status"] == "4 converged"
    assert "largest Newton decrement" in rows["certificate"]
    assert "correlation" in rows["true and fitted areas"]
    assert f"picture: {folder / 'fastglm-demo.png'}" in out
    assert err == ""  # no bar where nobody looks
    read_picture(folder / "fastglm-demo.png")


@pytest.mark.slow
def test_demo_repeats_with_the_seed(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    objectives = []
    for seed in ("3", "3", "4"):
        main(["demo", "--cells", "6", "--seconds", "10", "--seed", seed, "--out", str(tmp_path)])
        objectives.append(table(capsys.readouterr().out)["mean objective"])
    assert objectives[0] == objectives[1] != objectives[2]


# --- fit ---


def test_fit_prints_the_table_and_nothing_else(recording, counts, capsys):
    main(fit_arguments(recording))
    out, err = capsys.readouterr()
    rows = table(out)
    assert rows["recording"] == recording
    assert rows["units, spikes"] == f"3, {counts.sum()}"
    assert rows["bins"] == "600 of 10 ms in 1 epochs, 595 with history"
    assert rows["features"] == "12: 3 senders x 4"
    assert rows["status"] == "3 converged"
    assert float(rows["mean objective"]) > 0
    assert rows["certificate"].startswith("largest Newton decrement ")
    assert 0 < float(rows["pseudo-R2 (McFadden)"]) < 1
    assert rows["strongest (filter area)"].count("->") == 5
    assert rows["time"].endswith("s, compilation included on first use")
    assert err == ""  # no bar where nobody looks


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("raised-cosine-log", "RaisedCosineLogConv"),
        ("raised-cosine-linear", "RaisedCosineLinearConv"),
        ("history", "HistoryConv"),
        ("bspline", "BSplineConv"),
    ],
)
def test_every_basis_gives_the_fit_of_the_library(
    recording, counts, tmp_path, capsys, option, name
):
    path = tmp_path / "model.npz"
    main(fit_arguments(recording, "--basis", option, "--out", str(path)))
    assert f"model: {path}" in capsys.readouterr().out
    loaded = fastglm.load_model(path)
    assert loaded.metadata_["recording"] == "rec.npz"
    assert loaded.metadata_["bin_size"] == BIN
    assert loaded.metadata_["basis"] == name
    basis = getattr(fastglm.basis, name)(**loaded.metadata_["basis_params"])
    assert basis.window_size == 5
    X = basis.compute_features(counts)
    assert X.shape[1] == N_UNITS * (5 if option == "history" else 4)
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-3).fit(X, counts)
    np.testing.assert_allclose(loaded.coef_, model.coef_, rtol=0, atol=1e-9)
    np.testing.assert_allclose(loaded.predict(X), model.predict(X), rtol=1e-9)


def test_ridge_is_the_strength(recording, tmp_path):
    coef = {}
    for strength in ("1e-3", "5"):
        path = tmp_path / f"{strength}.npz"
        main([*fit_arguments(recording)[:-1], strength, "--out", str(path)])
        model = fastglm.load_model(path)
        assert str(model.regularizer) == "Ridge"
        assert model.regularizer_strength == float(strength)
        coef[strength] = np.linalg.norm(model.coef_)
    assert coef["5"] < 0.1 * coef["1e-3"]


def test_unregularized_has_no_penalty(tmp_path, capsys):
    counts = np.random.default_rng(0).poisson(0.6, (500, 2))
    recording = write_recording(tmp_path / "rec.npz", counts)
    path = tmp_path / "model.npz"
    arguments = ["--bin-size", str(BIN), "--window", "0.02", "--basis", "history"]
    arguments += ["--regularizer", "unregularized"]
    main(["fit", recording, *arguments, "--out", str(path)])
    rows = table(capsys.readouterr().out)
    assert rows["status"] == "2 converged"
    assert rows["penalty"] == "none"
    loaded = fastglm.load_model(path)
    X = fastglm.basis.HistoryConv(2).compute_features(counts)
    model = fastglm.PopulationGLM().fit(X, counts)
    np.testing.assert_allclose(loaded.coef_, model.coef_, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [bool, int, float])
def test_mask_switches_off_couplings(recording, tmp_path, dtype):
    mask = np.array([[1, 0, 1], [1, 1, 0], [0, 1, 1]], dtype)
    np.save(tmp_path / "mask.npy", mask)
    path = tmp_path / "model.npz"
    main(fit_arguments(recording, "--mask", str(tmp_path / "mask.npy"), "--out", str(path)))
    coef = fastglm.load_model(path).coef_.reshape(3, 4, 3)  # sender, function, receiver
    np.testing.assert_array_equal((coef != 0).any(axis=1), mask.astype(bool))


def test_plot_saves_a_picture(recording, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    path = tmp_path / "fit.png"
    main(fit_arguments(recording, "--plot", str(path)))
    assert f"picture: {path}" in capsys.readouterr().out
    read_picture(path)


@pytest.mark.filterwarnings("default::sklearn.exceptions.ConvergenceWarning")
def test_a_silent_unit_warns_in_one_line_and_is_drawn(counts, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    silenced = counts * np.array([1, 1, 0], counts.dtype)
    recording = write_recording(tmp_path / "silent.npz", silenced)
    main(fit_arguments(recording, "--plot", str(tmp_path / "fit.png")))
    out, err = capsys.readouterr()
    assert table(out)["status"] == "2 converged, 1 silent"
    assert err.count("warning: ") == 1
    assert "warning: silent (receiver 2): no events" in err
    assert ".py" not in err  # no line of source
    read_picture(tmp_path / "fit.png")


def test_known_links_are_scored(counts, tmp_path, capsys):
    adjacency = np.array([[0, 1, 0], [-1, 0, 0], [0, 1, 0]])
    recording = write_recording(tmp_path / "truth.npz", counts, adjacency=adjacency)
    main(fit_arguments(recording))
    rows = table(capsys.readouterr().out)
    assert re.fullmatch(r"2, area under ROC [01]\.\d{3}", rows["excitatory links"])
    assert re.fullmatch(r"1, area under ROC [01]\.\d{3}", rows["inhibitory links"])


def test_segments_are_epochs(counts, tmp_path, capsys):
    recording = write_recording(tmp_path / "rec.npz", counts, segments=[[0.0, 2.0], [3.0, 6.0]])
    main(fit_arguments(recording))
    rows = table(capsys.readouterr().out)
    assert rows["bins"] == "500 of 10 ms in 2 epochs, 490 with history"


def test_the_command_runs_as_a_module(recording, tmp_path):
    path = tmp_path / "model.npz"
    command = [sys.executable, "-m", "fastglm.cli", *fit_arguments(recording, "--out", str(path))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert table(done.stdout)["status"] == "3 converged"
    assert done.stderr == ""
    assert fastglm.load_model(path).coef_.shape == (12, 3)
    command = [*command[:4], str(tmp_path / "nowhere.npz"), *command[5:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"fastglm: error: There is no file .*nowhere\.npz\.\n", done.stderr)


# --- bad input ---


def check_refused(capsys, arguments, message):
    """Exit code 2, one line on standard error, nothing on standard output."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"fastglm: error: [^\r\n]+\n", err)
    assert re.search(message, err)


def replaced(arguments, option, value):
    arguments = list(arguments)
    arguments[arguments.index(option) + 1] = value
    return arguments


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--bin-size", "0", r"--bin-size is 0\.0; expected seconds above 0"),
        ("--bin-size", "-0.01", r"--bin-size is -0\.01"),
        ("--bin-size", "nan", "--bin-size is nan"),
        ("--bin-size", "inf", "--bin-size is inf"),
        ("--bin-size", "fast", "'fast' is not a valid float"),
        ("--window", "0.001", r"--window is 0\.001 s; expected at least one bin of 0\.01 s"),
        ("--window", "-1", r"--window is -1\.0 s"),
        ("--window", "nan", "--window is nan s"),
        ("--window", "inf", "--window is inf s"),
        ("--n-basis", "0", "n_basis_funcs is 0; expected a positive integer"),
        ("--n-basis", "many", "'many' is not a valid integer"),
        ("--ridge", "strong", "'strong' is not a valid float"),
    ],
)
def test_bad_numbers_are_refused(recording, capsys, option, value, message):
    check_refused(capsys, replaced(fit_arguments(recording), option, value), message)


def test_a_bin_longer_than_the_recording_is_refused(recording, capsys):
    arguments = ["fit", recording, "--bin-size", "10", "--window", "100"]
    check_refused(capsys, arguments, r"No bin of 10\.0 s fits into the recording")


def test_an_unknown_basis_is_refused_with_the_choices(recording, capsys):
    arguments = fit_arguments(recording, "--basis", "wavelet")
    check_refused(capsys, arguments, "'wavelet' is not one of 'raised-cosine-log', .*'bspline'")


def test_too_few_splines_are_refused(recording, capsys):
    arguments = replaced(fit_arguments(recording, "--basis", "bspline"), "--n-basis", "2")
    check_refused(capsys, arguments, "BSplineConv needs at least as many functions as its order")


def test_a_missing_recording_is_refused(tmp_path, capsys):
    arguments = fit_arguments(str(tmp_path / "nowhere.npz"))
    check_refused(capsys, arguments, r"There is no file .*nowhere\.npz")


def test_a_folder_is_not_a_recording(tmp_path, capsys):
    check_refused(capsys, fit_arguments(str(tmp_path)), "There is no file")


def test_a_foreign_npz_is_refused(tmp_path, capsys):
    np.savez(tmp_path / "foreign.npz", a=np.ones(3))
    check_refused(capsys, fit_arguments(str(tmp_path / "foreign.npz")), "has no spike_times")


def test_a_text_file_is_refused(tmp_path, capsys):
    (tmp_path / "notes.npz").write_text("no spikes\nhere\n")
    arguments = fit_arguments(str(tmp_path / "notes.npz"))
    check_refused(capsys, arguments, "could not be read as a recording")


def test_unsorted_spikes_are_refused(tmp_path, capsys):
    path = tmp_path / "rec.npz"
    np.savez(path, spike_times=[0.5, 0.1], unit=[0, 0], n_units=1, t_start=0.0, t_stop=1.0)
    check_refused(capsys, fit_arguments(str(path)), r"rec\.npz: spike_times of unit 0 are not asc")


@pytest.mark.parametrize("family", ["poisson", "bernoulli"])
def test_a_range_that_is_far_too_large_is_said_alone(tmp_path, capsys, family):
    """Without the doubts about its times, and before a bar."""
    path = tmp_path / "rec.npz"
    np.savez(path, spike_times=[0.5, 0.6], unit=[0, 1], n_units=2, t_start=0.0, t_stop=2e6)
    arguments = fit_arguments(str(path), "--family", family)
    with pytest.raises(SystemExit):
        main(arguments)
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "2 spikes in 200,000,000 bins of 0.01 s" in error


def test_doubts_about_times_are_said_where_they_are_fitted(tmp_path, capsys):
    path = tmp_path / "rec.npz"
    times = np.arange(1.0, 2e4, 500)
    np.savez(path, spike_times=times, unit=np.zeros(40, int), n_units=1, t_start=0.0, t_stop=2e4)
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # as where nobody asks for more
        main(fit_arguments(str(path)))
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith("warning: ")
    assert "are times in ms or samples" in first


def test_a_mask_of_wrong_shape_is_refused(recording, tmp_path, capsys):
    np.save(tmp_path / "mask.npy", np.ones((12, 3)))
    arguments = fit_arguments(recording, "--mask", str(tmp_path / "mask.npy"))
    check_refused(capsys, arguments, r"mask\.npy has shape \(12, 3\); expected a map of .*\(3, 3\)")


def test_a_missing_mask_is_refused(recording, tmp_path, capsys):
    arguments = fit_arguments(recording, "--mask", str(tmp_path / "nowhere.npy"))
    check_refused(capsys, arguments, r"There is no file .*nowhere\.npy")


def test_a_mask_that_is_no_array_is_refused(recording, tmp_path, capsys):
    (tmp_path / "mask.npy").write_text("1 0\n0 1\n")
    arguments = fit_arguments(recording, "--mask", str(tmp_path / "mask.npy"))
    check_refused(capsys, arguments, r"mask\.npy could not be read as an \.npy array")


@pytest.mark.parametrize("option", ["--out", "--plot"])
def test_a_missing_folder_is_refused_before_the_fit(recording, tmp_path, capsys, option):
    if option == "--plot":
        pytest.importorskip("matplotlib")
    arguments = fit_arguments(recording, option, str(tmp_path / "nowhere" / "file.png"))
    check_refused(capsys, arguments, "There is no folder .*nowhere to write to")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit"], "Missing argument 'FILE...'"),
        (["infer"], "Missing argument 'FILE...'"),
        (["fit", "a.npz", "--colour", "red"], "No such option"),
        (["fly"], "No such command 'fly'"),
        (["demo", "--cells", "1"], "'--cells': 1 is not in the range"),
        (["demo", "--seconds", "1"], "'--seconds': 1.0 is not in the range"),
        (["demo", "--seed", "x"], "'x' is not a valid integer"),
    ],
)
def test_bad_usage_is_refused(capsys, arguments, message):
    check_refused(capsys, arguments, message)


def test_demo_into_a_file_is_refused(recording, capsys):
    check_refused(capsys, ["demo", "--out", recording], "is a file")


@pytest.mark.parametrize("seconds", ["inf", "nan", "1e9"])
def test_demo_of_no_length_is_refused(capsys, seconds):
    check_refused(capsys, ["demo", "--seconds", seconds], "--seconds.*(is|number) .*10.*100000")


@pytest.mark.parametrize("seed", ["-1", "1.5"])
def test_demo_of_no_seed_is_refused(capsys, seed):
    check_refused(capsys, ["demo", "--seed", seed], f"'--seed': .*{seed}")


def test_demo_into_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    (tmp_path / "fastglm-demo.png").mkdir()
    check_refused(capsys, ["demo", "--out", str(tmp_path)], "fastglm-demo.png is a folder")


@pytest.mark.parametrize("option", ["--out", "--report", "--plot"])
def test_outputs_are_checked_before_the_recording_is_read(tmp_path, capsys, option):
    pytest.importorskip("matplotlib")
    name = {"--out": "a.npz", "--report": "a.html", "--plot": "a.png"}[option]
    (tmp_path / name).mkdir()
    arguments = fit_arguments(str(tmp_path / "none.npz"), option, str(tmp_path / name))
    check_refused(capsys, arguments, "is a folder; expected the name of a file")


def test_the_mask_is_read_before_the_recording(tmp_path, capsys):
    arguments = fit_arguments(str(tmp_path / "none.npz"), "--mask", str(tmp_path / "none.npy"))
    check_refused(capsys, arguments, r"There is no file .*none\.npy")
    head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000,)}  \n"
    (tmp_path / "none.npy").write_bytes(b"\x93NUMPY\x01\x00F\x00" + head)
    check_refused(capsys, arguments, r"none\.npy could not be read as an \.npy array")


@pytest.mark.parametrize(
    "where",
    [
        "not " * 120 + "id > 0",
        "not " * 100_000 + "id > 0",
        "(" * 300 + "id > 0" + ")" * 300,
        "id > 0 and (id < 9 or (" * 60 + "id > 0" + "))" * 60,
        "[" * 150 + "id" + "]" * 150 + " == 0",
        "id > " + "-" * 90 + "1",
    ],
)
def test_a_condition_nested_without_end_is_refused(tmp_path, capsys, where):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        units = file.create_group("units")
        units["id"], units["spike_times"] = [0, 1], [0.1, 0.2, 0.3]
        units["spike_times_index"] = [2, 3]
    arguments = fit_arguments(str(tmp_path / "a.nwb"), "--where", where)
    check_refused(capsys, arguments, "which is no condition; .* at most 50 levels deep")


def test_a_fault_of_ours_is_one_line_too(recording, capsys, monkeypatch):
    def fault(*arguments):
        raise KeyError("several\nlines")

    monkeypatch.setattr(fastglm, "load_spikes", fault)
    monkeypatch.delenv("FASTGLM_TRACEBACK", raising=False)
    check_refused(capsys, fit_arguments(recording), "KeyError: .* fault of fastglm; please report")
    monkeypatch.setenv("FASTGLM_TRACEBACK", "1")
    with pytest.raises(KeyError):
        main(fit_arguments(recording))


def test_a_fit_that_is_too_large_is_one_line(recording, capsys, monkeypatch):
    def full(*arguments):
        raise MemoryError("Unable to allocate 58 TiB")

    monkeypatch.setattr(fastglm, "load_spikes", full)
    check_refused(capsys, fit_arguments(recording), "The memory is not enough. Unable to alloc")


@pytest.fixture
def without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "fastglm.plotting", raising=False)
    monkeypatch.delattr(fastglm, "plotting", raising=False)


@pytest.mark.usefixtures("without_matplotlib")
def test_a_picture_without_matplotlib_is_refused_before_the_fit(recording, tmp_path, capsys):
    arguments = fit_arguments(recording, "--plot", str(tmp_path / "fit.png"))
    check_refused(capsys, arguments, r"Pictures need matplotlib: .*fastglm\[plot\]")


@pytest.mark.usefixtures("without_matplotlib")
def test_fit_works_without_matplotlib(recording, capsys):
    main(fit_arguments(recording))
    assert table(capsys.readouterr().out)["status"] == "3 converged"


def test_an_interrupt_exits_with_130(recording, capsys, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(fastglm, "load_spikes", interrupt)
    with pytest.raises(SystemExit) as stop:
        main(fit_arguments(recording))
    assert stop.value.code == 130
    assert capsys.readouterr().err.strip() == "fastglm: interrupted"


# --- help ---


def test_version(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"fastglm, version {fastglm.__version__}\n"


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_the_commands(capsys, flag):
    main([flag])
    out, err = capsys.readouterr()
    assert "fit " in out
    assert "demo " in out
    assert err == ""


def test_no_arguments_give_help(capsys):
    main([])
    assert "Usage: fastglm" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("fit", "--bin-size --window --basis --n-basis --ridge --mask --out --plot"),
        ("demo", "--out --cells --seconds --seed"),
    ],
)
def test_help_of_a_command_names_its_options(capsys, command, options):
    main([command, "--help"])
    out = capsys.readouterr().out
    for option in options.split():
        assert option in out


@pytest.mark.parametrize("ridge", ["-1", "nan", "inf"])
def test_a_bad_ridge_is_refused_before_the_bar(recording, capsys, ridge):
    check_refused(capsys, [*fit_arguments(recording)[:-1], ridge], "negative|ridge|regularizer_str")


def test_a_mask_of_other_values_is_refused_before_the_bar(recording, tmp_path, capsys):
    np.save(tmp_path / "mask.npy", np.full((3, 3), 2))
    arguments = fit_arguments(recording, "--mask", str(tmp_path / "mask.npy"))
    check_refused(capsys, arguments, "other values than 0 and 1")


@pytest.mark.filterwarnings("default")
def test_a_window_longer_than_the_recording_is_refused(recording, capsys):
    check_refused(capsys, ["fit", recording, "--bin-size", "0.01", "--window", "100"], "window")


def test_a_picture_of_unknown_format_is_refused_before_the_fit(recording, tmp_path, capsys):
    check_refused(capsys, fit_arguments(recording, "--plot", str(tmp_path / "a.foo")), "foo")


def test_a_folder_as_model_is_refused_before_the_fit(recording, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_refused(capsys, fit_arguments(recording, "--out", "."), "")


def test_the_path_of_the_model_is_the_one_written(recording, tmp_path, capsys):
    main(fit_arguments(recording, "--out", str(tmp_path / "model")))
    assert f"model: {tmp_path / 'model.npz'}" in capsys.readouterr().out


def test_main_leaves_showwarning_alone(recording, capsys):
    import warnings

    before = warnings.showwarning
    main(["--version"])
    assert warnings.showwarning is before


@pytest.mark.parametrize("bin_size", ["1e-320", "1e-12"])
def test_a_tiny_bin_is_refused(recording, capsys, bin_size):
    window = "0.1" if bin_size == "1e-320" else "1e-11"
    check_refused(capsys, ["fit", recording, "--bin-size", bin_size, "--window", window], "")


@pytest.mark.slow
def test_demo_of_a_network_without_links(tmp_path, capsys):
    main(["demo", "--cells", "3", "--seconds", "10", "--seed", "3", "--out", str(tmp_path)])
    assert "nan" not in capsys.readouterr().out


# --- several files ---


def test_several_files_end_in_a_table_and_a_failed_one_stops_nobody(
    recording, counts, tmp_path, capsys
):
    (tmp_path / "in").mkdir()
    other = write_recording(tmp_path / "in" / "other.npz", counts[:400])
    damaged = tmp_path / "in" / "damaged.npz"
    damaged.write_bytes(b"no zip")
    folder = tmp_path / "new" / "models"
    arguments = [recording, str(damaged), str(tmp_path / "in" / "none.npz"), other]
    with pytest.raises(SystemExit) as stop:
        main(["fit", *arguments, *fit_arguments("")[2:], "--out", str(folder)])
    assert stop.value.code == 1
    out, err = capsys.readouterr()
    head, *rows = (re.split(r"  +", line) for line in out.splitlines()[:5])
    assert head == ["session", "status", "units", "spikes", "bins", "found", "score", "time"]
    assert [row[0] for row in rows] == ["damaged", "none", "other", "rec"]
    assert rows[3][1:5] == ["3 converged", "3", str(counts.sum()), "600"]
    assert rows[0][1:] == rows[1][1:] == ["failed"]
    assert rows[2][1:5] == ["3 converged", "3", str(counts[:400].sum()), "400"]
    assert f"fastglm: error: damaged: {damaged} could not be read" in err
    assert "There is no file" in err
    assert err.endswith("fastglm: error: 2 of 4 sessions failed\n")
    assert sorted(path.name for path in folder.glob("*.npz")) == [
        *("other.couplings.npz", "other.npz", "rec.couplings.npz", "rec.npz"),
    ]
    one = tmp_path / "one.npz"
    main(fit_arguments(other, "--out", str(one)))
    np.testing.assert_array_equal(
        fastglm.load_model(folder / "other.npz").coef_, fastglm.load_model(one).coef_
    )


def test_what_nobody_foresaw_in_one_file_stops_nobody(recording, counts, tmp_path, monkeypatch):
    other = write_recording(tmp_path / "other.npz", counts)
    load = sessions.load_spikes

    def broken(path, *more):
        if path.name == "rec.npz":
            raise KeyError("units")
        return load(path, *more)

    monkeypatch.setattr(sessions, "load_spikes", broken)
    with pytest.raises(SystemExit) as stop:
        main(["fit", recording, other, *fit_arguments("")[2:], "--out", str(tmp_path / "models")])
    assert stop.value.code == 1
    assert (tmp_path / "models" / "other.npz").is_file()


def test_several_files_that_all_fit_exit_with_nothing(recording, counts, tmp_path, capsys):
    other = write_recording(tmp_path / "other.npz", counts)
    main(["fit", recording, other, *fit_arguments("")[2:], "--out", str(tmp_path / "models")])
    assert "2 sessions: 2 done\n" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--out", "--plot", "--report"])
def test_outputs_of_several_files_are_folders(recording, counts, tmp_path, capsys, option):
    pytest.importorskip("matplotlib")
    other = write_recording(tmp_path / "other.npz", counts)
    two = ["fit", recording, other, *fit_arguments("")[2:], "--out", str(tmp_path / "models")]
    check_refused(capsys, [*two, option, "one.npz"], "with several files it is a folder")
    two[1] = other
    check_refused(capsys, two, "other.npz stands twice")


# --- the page, and NWB ---


def test_a_report_is_written_beside_the_table(recording, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    path = tmp_path / "fit.html"
    main(fit_arguments(recording, "--report", str(path)))
    assert f"report: {path}" in capsys.readouterr().out
    page = path.read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "rec.npz" in page
    assert "RaisedCosineLogConv" in page


@pytest.mark.parametrize(
    ("name", "message"),
    [("page.txt", "expected it to end in .html"), ("none/page.html", "There is no folder")],
)
def test_a_report_that_cannot_be_written_is_refused_at_once(
    recording, tmp_path, capsys, name, message
):
    pytest.importorskip("matplotlib")
    with pytest.raises(SystemExit) as stop:
        main(fit_arguments(recording, "--report", str(tmp_path / name)))
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert message in err
    assert "fitting" not in err


def write_session(path, counts):
    """The spikes of the counts in the data sets that a units table has."""
    h5py = pytest.importorskip("h5py")
    times = [np.repeat((np.arange(len(c)) + 0.5) * BIN, c) for c in counts.T]
    with h5py.File(path, "w") as file:
        units = file.create_group("units")
        units["id"] = np.arange(20, 20 + len(times))
        units["spike_times"] = np.concatenate(times)
        units["spike_times_index"] = np.cumsum([t.size for t in times])
        units["rate"] = counts.sum(axis=0) / (len(counts) * BIN)
        trials = file.create_group("intervals/trials")
        trials["start_time"], trials["stop_time"] = np.array([0.0, 3.0]), np.array([2.0, 5.0])
    return str(path)


def test_a_session_is_fitted_with_chosen_units_and_trials(counts, tmp_path, capsys):
    session = write_session(tmp_path / "session.nwb", counts)
    rates = counts.sum(axis=0) / (len(counts) * BIN)
    limit = np.sort(rates)[:2].mean()
    where = f"rate > {limit}"
    path = tmp_path / "model.npz"
    more = ("--where", where, "--epochs", "trials", "--out", str(path))
    main(fit_arguments(session, *more))
    rows = table(capsys.readouterr().out)
    chosen = np.flatnonzero(rates > limit)
    assert rows["units, spikes"] == f"2, {counts[:, chosen].sum()}"
    assert rows["bins"] == "400 of 10 ms in 2 epochs, 390 with history"
    names = [str(20 + k) for k in chosen]
    assert f"{names[0]} -> {names[1]}" in rows["strongest (filter area)"]
    loaded = fastglm.load_model(path)
    assert loaded.metadata_["units"] == (20 + chosen).tolist()
    inside = np.concatenate([counts[:200, chosen], counts[300:500, chosen]])
    basis = fastglm.basis.RaisedCosineLogConv(4, window_size=5)
    X = basis.compute_features(inside, epochs=[[0, 200], [200, 400]])
    reference = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-3)
    np.testing.assert_allclose(loaded.coef_, reference.fit(X, inside).coef_, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--where", "depth > 1"), "has no column 'depth'"),
        (("--epochs", "sleep"), "has no intervals 'sleep'; expected 'obs' or one of ['trials']"),
        (("--epochs", "obs"), "has no obs_intervals"),
    ],
)
def test_what_a_session_lacks_is_named(counts, tmp_path, capsys, more, message):
    session = write_session(tmp_path / "session.nwb", counts)
    with pytest.raises(SystemExit) as stop:
        main(fit_arguments(session, *more))
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_missing_extra_is_one_line(counts, tmp_path, capsys, monkeypatch):
    session = write_session(tmp_path / "session.nwb", counts)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(SystemExit) as stop:
        main(fit_arguments(session))
    assert stop.value.code == 2
    assert (
        capsys.readouterr().err
        == "fastglm: error: NWB files need h5py: pip install 'fastglm[nwb]'\n"
    )


# --- families ---


@pytest.mark.parametrize(
    ("options", "family", "link", "row"),
    [
        ((), "Poisson", "exp", "Poisson, link exp"),
        (("--link", "softplus"), "Poisson", "softplus", "Poisson, link softplus"),
        (
            ("--family", "bernoulli", "--clip"),
            "Bernoulli",
            "logistic",
            "Bernoulli, link logistic, counts cut at 1",
        ),
        (
            ("--family", "Bernoulli", "--link", "cloglog", "--clip"),
            "Bernoulli",
            "cloglog",
            "Bernoulli, link cloglog, counts cut at 1",
        ),
        (("--family", "gaussian"), "Gaussian", "identity", "Gaussian, link identity"),
    ],
)
def test_families_and_links(recording, counts, tmp_path, capsys, options, family, link, row):
    paths = [tmp_path / name for name in ("model.npz", "fit.png", "fit.html")]
    pytest.importorskip("matplotlib")
    outputs = [x for pair in zip(("--out", "--plot", "--report"), paths, strict=True) for x in pair]
    main(fit_arguments(recording, *options, *map(str, outputs)))
    out, err = capsys.readouterr()
    rows = table(out)
    assert rows["observations"] == row
    model = fastglm.load_model(paths[0])
    if "--clip" in options:
        counts = counts.clip(max=1)
    X = fastglm.basis.RaisedCosineLogConv(4, 5).compute_features(counts)
    expected = fastglm.PopulationGLM(
        family, link, regularizer="Ridge", regularizer_strength=1e-3
    ).fit(X, counts)
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-10)
    np.testing.assert_allclose(model.scale_, expected.scale_, rtol=1e-10)
    kind = "pseudo-r2-McFadden"
    if family == "Gaussian":
        kind = "pseudo-r2-Cohen"
        assert rows["scale"].count(" to ") == 1
    score = expected.score(X, counts, score_type=kind)
    assert rows["R2" if family == "Gaussian" else "pseudo-R2 (McFadden)"] == f"{score:.4f}"
    assert "warning" not in err
    read_picture(paths[1])
    assert f"Coupled {family} GLM of rec.npz" in paths[2].read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--family", "gamma"),
            "'gamma' is not one of 'poisson', 'bernoulli', 'gaussian', 'negativebinomial'",
        ),
        (("--link", "logistic"), "--link is logistic; poisson takes exp or softplus"),
        (("--family", "gaussian", "--link", "exp"), "--link is exp; gaussian takes identity"),
    ],
)
def test_families_and_links_that_are_not_known(recording, capsys, options, message):
    check_refused(capsys, fit_arguments(recording, *options), message)


def test_several_spikes_in_a_bin_offer_shorter_bins_and_clip(tmp_path, capsys):
    path = tmp_path / "rec.npz"
    np.savez(path, spike_times=[0.101, 0.1046, 0.5], unit=[0, 0, 1], n_units=2, t_start=0, t_stop=6)
    arguments = fit_arguments(str(path), "--family", "bernoulli")
    message = (
        "Unit 0 has 2 spikes in bin 10 of 10 ms.*use bins of at most 3.[56] ms, or cut.*--clip"
    )
    check_refused(capsys, arguments, message)


def test_the_package_is_a_command():
    out = subprocess.run(
        [sys.executable, "-m", "fastglm", "--version"], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == f"fastglm, version {fastglm.__version__}"
