"""The page "your data": its lines run word for word, in order, and give what they promise."""

import re
import shlex
import warnings
from pathlib import Path

import numpy as np
import pytest

import fastglm
from fastglm.cli import main

PAGE = Path(__file__).parents[1] / "docs" / "data.md"


def blocks(section):
    """The Python of a section, and its commands."""
    if not PAGE.is_file():
        pytest.skip("the docs are not here")
    text = re.split(r"^## ", PAGE.read_text(), flags=re.M)
    text = next(part for part in text if part.startswith(section))
    commands = re.findall(r"^    (fastglm (?:.*\\\n)*.*)$", text, flags=re.M)
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S), commands


def run(code, names):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyNWB and its dependencies
        exec(code, names)


def array_path(times, epochs):
    """The fit of a table of counts, 5 ms and 20 lags."""
    unit = np.repeat(np.arange(len(times)), [t.size for t in times])
    counts, epochs = fastglm.bin_spikes(
        np.concatenate(times), unit, 0.005, epochs=epochs, t_stop=601
    )
    basis = fastglm.basis.RaisedCosineLogConv(8, window_size=20)
    X = basis.compute_features(counts, epochs=epochs)
    return fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-4).fit(X, counts)


@pytest.mark.slow
def test_pynapple(tmp_path, monkeypatch):
    nap = pytest.importorskip("pynapple")
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    (first, second), _ = blocks("pynapple")
    names = {}
    run(first, names)
    reference = array_path(names["times"], [[0, 200], [250, 600]])
    np.testing.assert_allclose(names["model"].coef_, reference.coef_, rtol=0, atol=1e-12)
    assert names["coupling"].significant()[0, 1]
    assert Path("coupling.png").stat().st_size > 5000
    assert "</html>" in Path("report.html").read_text()
    assert isinstance(names["rates"], nap.TsdFrame)
    assert list(names["rates"]["area"]) == ["CA1", "CA1", "CA3"]
    run(second, names)
    assert isinstance(names["residuals"], nap.TsdFrame)
    assert names["both"].coef_.shape == (29, 3)
    assert isinstance(names["part"], nap.TsdFrame)
    assert names["half"].coef_.shape == (29, 3)
    assert isinstance(names["hz"], nap.TsdFrame)
    assert names["drive"].shape == (50_000, 24)
    assert names["X"].valid.sum() == 40_000 - 20 + 10_000 - 20


@pytest.mark.slow
def test_nwb_and_the_command_line(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pynwb")
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    (make, fit), _ = blocks("NWB")
    names = {}
    run(make, names)
    run(fit, names)
    reference = array_path(names["times"][:2], [[0, 200], [250, 600]])
    np.testing.assert_allclose(names["model"].coef_, reference.coef_, rtol=0, atol=1e-12)
    assert names["coupling"].senders.tolist() == [0, 1]
    assert names["in_trials"].segments.tolist()[3:5] == [[180, 200], [250, 280]]
    for name in ("coupling.png", "report.html"):
        assert Path(name).stat().st_size > 5000
        Path(name).unlink()
    _, (one, several) = blocks("The command line")
    main(shlex.split(one.replace("\\\n", ""))[1:])
    assert Path("coupling.png").stat().st_size > 5000
    assert "</html>" in Path("report.html").read_text()
    reference = array_path(names["times"][:2], names["in_trials"].segments)
    loaded = fastglm.load_model("model.npz")
    np.testing.assert_allclose(loaded.coef_, reference.coef_, rtol=0, atol=1e-12)
    for name in ("monday.nwb", "tuesday.nwb"):
        Path(name).write_bytes(Path("session.nwb").read_bytes())
    main(shlex.split(several)[1:])
    assert [path.name for path in sorted(Path("reports").iterdir())] == [
        "monday.html",
        "tuesday.html",
    ]
    assert "2 sessions: 2 done\n" in capsys.readouterr().out


def test_a_table_of_units_and_times():
    pytest.importorskip("pandas")
    (code,), _ = blocks("A table of units and times")
    names = {}
    run(code, names)
    assert names["spikes"].names == ["a", "b"]
    assert names["spikes"].metadata["area"] == ["CA1", "CA3"]
