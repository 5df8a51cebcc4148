"""``fastglm infer``, and what it has in common with ``fit``: covariates, tables, penalties."""

import sys

import numpy as np
import pytest
from test_cli import BIN, check_refused, table, write_recording

import fastglm
from fastglm.cli import main
from fastglm.cli.covariates import read_wanted
from fastglm.connectivity.files import write_table
from fastglm.recordings import load_series
from fastglm.workflow.prior import COUPLING, OWN

N_BINS = 3000


@pytest.fixture(scope="module")
def counts():
    """Cell 0 drives cell 1 two bins later."""
    rng = np.random.default_rng(0)
    counts = rng.binomial(1, 0.1, (N_BINS, 3))
    counts[2:, 1] |= counts[:-2, 0] & rng.binomial(1, 0.6, N_BINS - 2)
    return counts


@pytest.fixture(scope="module")
def recording(counts, tmp_path_factory):
    """With a position of two coordinates at 50 Hz, a speed, and times of licks."""
    seconds = N_BINS * BIN
    t = np.arange(0, seconds, 0.02)
    more = {
        "place_time": t,
        "place_x": np.sin(t),
        "place_y": np.cos(t / 2),
        "speed": np.abs(np.cos(t)),
        "speed_time": t,
        "lick_times": np.array([1.0, 5.0, 9.5]),
        "lonely": np.zeros(7),
    }
    return write_recording(tmp_path_factory.mktemp("data") / "rec.npz", counts, **more)


def infer_arguments(recording, *more):
    return ["infer", recording, "--bin-size", str(BIN), "--window", "0.05", *more]


def test_infer_is_the_recipe(recording, tmp_path, capsys):
    path = tmp_path / "couplings.npz"
    main(infer_arguments(recording, "--null", "model", "--out", str(path)))
    out, err = capsys.readouterr()
    rows = table(out)
    assert err == ""
    expected = fastglm.infer_connectivity(
        fastglm.load_spikes(recording), BIN, window=0.05, null="model"
    )
    loaded = fastglm.load_couplings(path)
    np.testing.assert_array_equal(loaded.strength, expected.strength)
    np.testing.assert_array_equal(loaded.q_value, expected.q_value)
    assert rows["couplings"].startswith("1 of 6 found (q <= 0.05): 1 exciting, 0 inhibiting")
    assert rows["strongest (filter area)"].startswith("0 -> 1 (+")
    assert rows["status"] == "3 converged"
    assert rows["bins"] == "3000 of 10 ms in 1 epochs, 2995 with history"
    for name in ("window", "covariates", "penalty", "synchrony"):
        assert rows[name] == expected.settings[name]
    assert rows["left out"].startswith("place_x, place_y, speed, lick not used; --covariate NAME")


def test_the_choices_of_the_recipe_are_options(recording, tmp_path):
    path, mask, apart = (tmp_path / name for name in ("c.npz", "mask.npy", "apart.npy"))
    np.save(mask, np.triu(np.ones((3, 3))))
    np.save(apart, np.eye(3)[::-1].astype(int))
    options = ["--basis", "bspline", "--n-basis", "4", "--own-window", "0.1", "--mask", str(mask)]
    options += ["--standard-errors", "expected", "--null", "model", "--ridge", "1e-3"]
    options += ["--controls", "reversed", "--impossible", str(apart), "--family", "bernoulli"]
    main(infer_arguments(recording, *options, "--clip", "--out", str(path)))
    expected = fastglm.infer_connectivity(
        fastglm.load_spikes(recording), BIN, basis=fastglm.basis.BSplineConv(4, 5),
        own_window=0.1, mask=np.triu(np.ones((3, 3))), kind="expected", null="model",
        regularizer_strength=1e-3, controls=["reversed"], impossible=np.eye(3)[::-1],
        observation_model="Bernoulli", clip=True,
    )  # fmt: skip
    loaded = fastglm.load_couplings(path)
    np.testing.assert_array_equal(loaded.strength, expected.strength)
    np.testing.assert_array_equal(loaded.standard_error, expected.standard_error)
    assert loaded.controls == expected.controls
    assert loaded.settings["uncertainty"].startswith("expected information, ")
    assert loaded.settings["own history"] == expected.settings["own history"]


def test_covariates_come_from_the_file(recording, tmp_path):
    path = tmp_path / "c.npz"
    wanted = ["place_x,place_y", "speed:linear", "lick:past:3"]
    options = [text for one in wanted for text in ("--covariate", one)]
    options += ["--covariate-window", "0.2", "--null", "model"]
    main(infer_arguments(recording, *options, "--out", str(path)))
    data = np.load(recording)
    spline = fastglm.basis.BSplineEval(6) * fastglm.basis.BSplineEval(6)
    t = data["place_time"]
    covariates = {
        "place_x,place_y": (spline, (t, data["place_x"]), (t, data["place_y"])),
        "speed": (data["speed_time"], data["speed"]),
        "lick": (fastglm.basis.RaisedCosineLogConv(3, window_size=20), [data["lick_times"]]),
    }
    spikes = fastglm.load_spikes(recording)
    expected = fastglm.infer_connectivity(
        spikes, BIN, window=0.05, covariates=covariates, null="model"
    )
    loaded = fastglm.load_couplings(path)
    np.testing.assert_array_equal(loaded.strength, expected.strength)
    assert "place_x,place_y (36); speed (1); lick (3)" in loaded.settings["covariates"]


def test_covariates_of_another_file_are_those_of_the_recording(recording, tmp_path, capsys):
    pandas = pytest.importorskip("pandas")
    data = np.load(recording)
    other = tmp_path / "track.csv"
    frame = {"Time": data["place_time"], "x": data["place_x"]}
    pandas.DataFrame(frame).to_csv(other, index=False, float_format="%.17g")
    scores = []
    for more in (["x:spline:5", "--covariates-from", str(other)], ["place_x:spline:5"]):
        main(["fit", recording, "--bin-size", str(BIN), "--covariate", *more])
        rows = table(capsys.readouterr().out)
        assert rows["features"].endswith(" 5")
        scores.append(rows["mean objective"])
    assert scores[0] == scores[1]
    check_refused(
        capsys,
        ["fit", recording, "--covariate", "y", "--covariates-from", str(other)],
        "has the columns Time, x; expected 'y' and a column of times",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", r"has no 'nothing'; it has the series place_x, place_y, speed, lick"),
        ("lonely", r"has 'lonely' without times \(lonely_time\)"),
        ("speed:cubic", "expected NAME, NAME:FORM or NAME:FORM:N"),
        ("speed:spline:many", "expected a number of functions for N"),
        ("speed:linear:3", "a linear one has no functions"),
        ("lick:spline", "holds times of events; expected NAME or NAME:past"),
        ("place_x,place_y:past", "has 2 columns; the past is for series of one column"),
        ("place_x,place_y:linear", "give linear covariates one by one"),
    ],
)
def test_covariates_that_cannot_be_are_refused(recording, capsys, text, message):
    check_refused(capsys, infer_arguments(recording, "--covariate", text), message)


def test_a_covariate_stands_once():
    with pytest.raises(ValueError, match="--covariate speed stands twice"):
        read_wanted(("speed", "speed:linear"))


def test_fit_and_infer_write_tables(recording, tmp_path, capsys):
    pandas = pytest.importorskip("pandas")
    for command in ("infer", "fit"):
        path = tmp_path / f"{command}.csv"
        arguments = [command, recording, "--bin-size", str(BIN), "--null", "model"]
        main([*arguments, "--table", str(path)])
        assert f"table: {path}" in capsys.readouterr().out
        frame = pandas.read_csv(path)
        assert len(frame) == 9
        found = frame[frame.q_value <= 0.05]
        assert list(zip(found.sender, found.receiver, strict=True)) == [(0, 1)]
        assert np.isfinite(frame.added_spikes).all()


def test_a_table_needs_no_pandas_and_is_as_pandas_writes_it(recording, tmp_path, monkeypatch):
    path = tmp_path / "fit.csv"
    arguments = ["fit", recording, "--bin-size", str(BIN), "--table", str(path)]
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pandas", None)
        main(arguments)
    head, *rows = path.read_text().splitlines()
    assert head.startswith("sender,receiver,strength,")
    assert len(rows) == 9
    pytest.importorskip("pandas")
    model = fastglm.fit_coupling(fastglm.load_spikes(recording), bin_size=BIN)
    couplings = model.coupling_map(model.X_, model.counts_, bin_size=BIN)
    couplings.senders = couplings.receivers = np.array(['a, "b"', "c", "d"])
    write_table(couplings, path)
    assert path.read_text() == couplings.to_frame().to_csv(index=False)


def test_fit_and_infer_write_parquet(recording, tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    path = tmp_path / "fit.parquet"
    main(["fit", recording, "--bin-size", str(BIN), "--table", str(path)])
    assert len(pandas.read_parquet(path)) == 9


def test_a_table_of_another_format_is_refused_at_once(recording, tmp_path, capsys):
    arguments = infer_arguments("none.npz", "--table", str(tmp_path / "a.xlsx"))
    check_refused(capsys, arguments, r"expected it to end in \.csv or \.parquet")


def test_fit_computes_standard_errors_where_they_are_asked_for(recording, capsys):
    arguments = ["fit", recording, "--bin-size", str(BIN)]
    main(arguments)
    assert "couplings" not in table(capsys.readouterr().out)
    main([*arguments, "--standard-errors", "robust", "--q", "0.5"])
    assert "found (q <= 0.5)" in table(capsys.readouterr().out)["couplings"]


def test_a_table_without_standard_errors_has_its_units(recording, tmp_path):
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "fit.csv"
    arguments = ["fit", recording, "--bin-size", str(BIN), "--standard-errors", "none"]
    main([*arguments, "--table", str(path)])
    frame = pandas.read_csv(path)
    np.testing.assert_allclose(frame.strength_ms, 1e3 * BIN * frame.strength)
    assert np.isfinite(frame.added_spikes).all()
    assert frame.standard_error.isna().all()


def test_infer_draws_and_writes_a_page(recording, tmp_path, capsys):
    image = pytest.importorskip("matplotlib.image")
    plain, marked, page = (tmp_path / name for name in ("a.png", "b.png", "c.html"))
    arguments = infer_arguments(recording, "--null", "model")
    main([*arguments, "--plot", str(plain), "--mark", "none", "--report", str(page)])
    main([*arguments, "--plot", str(marked), "--mark", "dots", "--level", "0.5"])
    pictures = [image.imread(path) for path in (plain, marked)]
    assert pictures[0].shape != pictures[1].shape or (pictures[0] != pictures[1]).any()
    text = page.read_text(encoding="utf-8")
    assert "rec.npz" in text
    assert "couplings of 0.2 in log rate are expected" in text
    assert f"report: {page}" in capsys.readouterr().out


def test_the_default_ridge_of_both_is_the_prior(recording, tmp_path, capsys):
    path = tmp_path / "model.npz"
    main(["fit", recording, "--bin-size", str(BIN), "--window", "0.05", "--out", str(path)])
    assert "couplings of 0.2 in log rate" in table(capsys.readouterr().out)["penalty"]
    loaded = fastglm.load_model(path)
    kernel = fastglm.basis.RaisedCosineLogConv(5, window_size=5).kernel_
    area = kernel.sum(axis=0)
    strength = 1 / (2995 * (COUPLING * area.mean() / area) ** 2)
    expected = np.tile(strength, 3)[:, None] * np.ones((15, 3))
    for j in range(3):
        expected[5 * j : 5 * j + 5, j] = 1 / (2995 * OWN**2)
    np.testing.assert_allclose(loaded.regularizer_strength, expected, rtol=1e-12)
    model = fastglm.fit_coupling(
        fastglm.load_spikes(recording), BIN, 0.05, regularizer_strength=None
    )
    np.testing.assert_array_equal(model.coef_, loaded.coef_)


@pytest.mark.parametrize(("scale", "expected"), [("0.5", 0.5), ("estimate", "estimate")])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_scale_of_negative_binomial_counts(recording, tmp_path, capsys, scale, expected):
    path = tmp_path / "model.npz"
    arguments = ["fit", recording, "--bin-size", str(BIN), "--window", "0.05"]
    main([*arguments, "--family", "negativebinomial", "--scale", scale, "--out", str(path)])
    model = fastglm.load_model(path)
    assert model.observation_model.scale == expected
    assert ("scale" in table(capsys.readouterr().out)) == (scale == "estimate")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--scale", "1"), "--scale is 1; poisson has none, only negativebinomial has"),
        (("--family", "negativebinomial", "--scale", "-1"), "expected estimate, or a number above"),
        (("--family", "negativebinomial", "--scale", "big"), "--scale is big; expected estimate"),
        (("--regularizer", "lasso"), "--regularizer lasso needs --regularizer-strength"),
        (("--regularizer", "unregularized", "--ridge", "1"), "unregularized has no strength"),
        (("--family", "gaussian"), "--family is gaussian, which are no events"),
        (("--standard-errors", "none"), "couplings are tested by them; use fastglm fit"),
        (("--q", "2"), "--q is 2.0; expected a number between 0 and 1"),
        (("--level", "95"), "--level is 95.0; expected a number between 0 and 1"),
    ],
)
def test_choices_that_do_not_go_together(recording, capsys, options, message):
    check_refused(capsys, infer_arguments(recording, *options), message)


def test_infer_of_several_files_ends_in_a_table(recording, counts, tmp_path, capsys):
    other = write_recording(tmp_path / "other.npz", counts[:1500])
    main(["infer", recording, other, *infer_arguments("")[2:], "--out", str(tmp_path / "maps")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        *("session", "status", "units", "spikes", "bins", "found", "score", "time"),
    ]
    assert [line.split()[0] for line in lines[1:3]] == ["other", "rec"]
    assert sorted(path.name for path in (tmp_path / "maps").glob("*.npz")) == [
        *("other.npz", "rec.npz"),
    ]


def test_truth_of_the_file_is_compared(counts, tmp_path, capsys):
    adjacency = np.zeros((3, 3))
    adjacency[0, 1] = adjacency[2, 0] = 1
    path = write_recording(tmp_path / "truth.npz", counts, adjacency=adjacency)
    main(infer_arguments(path, "--null", "model"))
    assert table(capsys.readouterr().out)["truth"] == "1 of 1 found are true links, of 2"


# --- series of files ---


def write_session(path):
    pynwb = pytest.importorskip("pynwb")
    from datetime import UTC, datetime

    file = pynwb.NWBFile("a", "b", datetime(2020, 1, 1, tzinfo=UTC))
    behavior = file.create_processing_module("behavior", "what the animal did")
    t = np.arange(0, 4, 0.5)
    track = pynwb.behavior.SpatialSeries(
        name="track", data=np.column_stack([t, -t]), timestamps=t, reference_frame="room",
        conversion=0.01,
    )  # fmt: skip
    behavior.add(pynwb.behavior.Position(spatial_series=track))
    speed = pynwb.TimeSeries(name="speed", data=2 * t, rate=2.0, starting_time=1.0, unit="m/s")
    behavior.add(speed)
    file.add_acquisition(pynwb.TimeSeries(name="raw", data=np.zeros((4, 30)), rate=2.0, unit="V"))
    file.add_trial_column("cue_time", "of the cue")
    for start in (0.0, 2.0):
        file.add_trial(start_time=start, stop_time=start + 1, cue_time=start + 0.25)
    for times in ([0.5, 1.5], [0.7]):
        file.add_unit(spike_times=times)
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(file)
    return path


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_series_and_events_of_nwb(tmp_path):
    path = write_session(tmp_path / "a.nwb")
    t = np.arange(0, 4, 0.5)
    for name in ("track", "Position", "behavior/Position/track"):
        times, values = load_series(path, name)
        np.testing.assert_array_equal(times, t)
        np.testing.assert_allclose(values, 0.01 * np.column_stack([t, -t]))
    times, values = load_series(path, "speed")
    np.testing.assert_array_equal(times, 1.0 + np.arange(8) / 2)
    np.testing.assert_array_equal(values, 2 * t)
    np.testing.assert_array_equal(load_series(path, "trials")[0], [0.0, 2.0])
    np.testing.assert_array_equal(load_series(path, "trials.cue_time")[0], [0.25, 2.25])
    with pytest.raises(ValueError, match="has no 'x'; it has the series track, speed, trials"):
        load_series(path, "x")
    with pytest.raises(ValueError, match="trials has no column of times 'colour'"):
        load_series(path, "trials.colour")
    with pytest.raises(ValueError, match="has several series 'behavior'"):
        load_series(path, "behavior")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_series_of_a_zarr_store_are_those_of_the_file(tmp_path):
    zarr = pytest.importorskip("hdmf_zarr")
    pynwb = pytest.importorskip("pynwb")
    path, store = write_session(tmp_path / "a.nwb"), tmp_path / "a.zarr"
    with pynwb.NWBHDF5IO(path, "r") as io, zarr.NWBZarrIO(str(store), mode="w") as out:
        out.export(src_io=io, write_args={"link_data": False})
    for name in ("track", "speed"):
        for one, other in zip(load_series(path, name), load_series(store, name), strict=True):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(load_series(store, "trials.cue_time")[0], [0.25, 2.25])


def test_a_format_without_series_says_so(tmp_path):
    with pytest.raises(ValueError, match=r"series are read from NWB, \.npz and tables"):
        load_series(tmp_path, "x")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        load_series(tmp_path / "none", "x")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_series_goes_before_those_of_a_container_of_its_name(tmp_path):
    pynwb = pytest.importorskip("pynwb")
    from datetime import UTC, datetime

    file, path = pynwb.NWBFile("a", "b", datetime(2020, 1, 1, tzinfo=UTC)), tmp_path / "a.nwb"
    file.add_acquisition(pynwb.TimeSeries(name="speed", data=[1.0, 2.0], rate=2.0, unit="m/s"))
    wheel = pynwb.TimeSeries(name="wheel", data=[3.0, 4.0], rate=2.0, unit="m/s")
    file.add_acquisition(pynwb.behavior.BehavioralTimeSeries(name="raw", time_series=wheel))
    inner = pynwb.TimeSeries(name="belt", data=[5.0, 6.0], rate=2.0, unit="m/s")
    behavior = file.create_processing_module("behavior", "what the animal did")
    behavior.add(pynwb.behavior.BehavioralTimeSeries(name="speed", time_series=inner))
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(file)
    for name, expected in (("speed", [1.0, 2.0]), ("raw", [3.0, 4.0]), ("belt", [5.0, 6.0])):
        np.testing.assert_array_equal(load_series(path, name)[1], expected)
