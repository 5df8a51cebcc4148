"""Tutorials: their code runs, word for word, on small files with the layout of the public ones."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.io

import fastglm

pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "tutorials"


@pytest.fixture(scope="module")
def runner():
    if not PAGES.is_dir():
        pytest.skip("the docs are not here")
    spec = importlib.util.spec_from_file_location("run_tutorials", PAGES / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def trains(n_cells, seconds, hz):
    """Random trains; cell 1 follows cell 0 after 4 ms."""
    rng = np.random.default_rng(0)
    times = [np.sort(rng.uniform(0.1, seconds - 0.1, int(hz * seconds))) for _ in range(n_cells)]
    times[1] = np.sort(np.append(times[1], times[0][::2] + 0.004))
    return times


def culture(folder):
    """As ExampleSpikeTrain.mat."""
    times = trains(16, 60, 8)
    weights = np.zeros((16, 16))
    weights[0, 1], weights[2, 3] = 6.0, -6.0  # the second is not in the spikes
    cells = np.empty(16, object)
    cells[:] = [np.unique((1000 * t).astype(np.int32) + 1) for t in times]
    data = {"TS_ms": cells, "SWM": weights, "recordingtime_ms": np.int32(60_000)}
    scipy.io.savemat(folder / "ExampleSpikeTrain.mat", {"data": data})


def place_cells(folder):
    """As PlaceCellDataAnimal1.mat."""
    t = np.arange(0, 60, 1 / 30)
    cells = np.empty(4, object)
    cells[:] = [{"spikeTimes": one[:, None]} for one in trains(4, 60, 2.9)]
    data = {"neuron": cells, "time": t, "x": 0.9 * np.sin(t), "y": 0.9 * np.cos(0.7 * t)}
    scipy.io.savemat(folder / "PlaceCellDataAnimal1.mat", data)


def retina(folder):
    """As the files of waverepo."""
    h5py = pytest.importorskip("h5py")
    times = trains(6, 60, 5)
    name = "Stafford2009_WT_37C_Dorsal_2008-10-11-3.h5"
    with h5py.File(folder / name, "w") as file:
        file["spikes"] = np.concatenate(times)
        file["sCount"] = np.array([one.size for one in times], np.int32)
        file["epos"] = 60.0 * np.vstack([np.arange(6) // 2, np.zeros(6)])
        file["summary/duration"] = np.array([60.0])


FILES = {"culture": culture, "place-cells": place_cells, "retina": retina}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_the_code_of_a_page_runs_on_the_layout_of_its_file(name, runner, tmp_path):
    text = (PAGES / f"{name}.md").read_text()
    FILES[name](tmp_path)
    assert (tmp_path / runner.source(text)).exists()
    (tmp_path / "docs" / "images").mkdir(parents=True)
    (tmp_path / "docs" / "tutorials").mkdir()
    out = runner.run(text, tmp_path, tmp_path / "docs" / "tutorials")
    code = runner.BLOCK.findall(text)
    assert runner.BLOCK.findall(out) == code
    drawn = sorted(path.name for path in (tmp_path / "docs" / "images").iterdir())
    pictures = runner.PICTURE.findall(text)
    assert drawn == sorted(Path(picture).name for picture in pictures)
    assert all((PAGES / picture).is_file() for picture in pictures)  # stored
    # What the page shows is of the public file; it has a result wherever the code prints one.
    stored, fresh = (len(re.findall(r"^```text$", page, flags=re.M)) for page in (text, out))
    assert stored == fresh > 2
    cells = re.search(r"^```text\n(\d+) cells, [\d,]+ spikes", out, flags=re.M)[1]
    assert cells == {"culture": "16", "place-cells": "4", "retina": "6"}[name]


def test_a_page_gets_what_its_code_prints_and_shows(runner, tmp_path):
    page = (
        "Text.\n\n```python\nprint(1 + 1)\n```\n\n```text\nold\n```\n\nMore.\n\n"
        "```python\nimport matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\n```\n\n"
        "![two points](a.png)\n\n```python\nx = 3\n```\n\nEnd.\n"
    )
    out = runner.run(page, tmp_path, tmp_path)
    assert out == page.replace("old", "2")
    assert (tmp_path / "a.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="other pictures than the 1 that its code shows"):
        runner.run(page + "\n![one more](b.png)\n", tmp_path, tmp_path)


def test_a_page_without_its_file_stays_as_it_is(runner, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "HERE", tmp_path)
    page = tmp_path / "one.md"
    page.write_text(
        "    curl -LO https://a.b/c/my%20file.mat\n\n```python\nprint(5)\n```\n\nEnd.\n"
    )
    before = page.read_text()
    assert not runner.refresh("one", tmp_path)
    assert page.read_text() == before
    (tmp_path / "my file.mat").write_text("")
    assert runner.refresh("one", tmp_path)
    assert page.read_text() == before.replace("\nEnd", "\n```text\n5\n```\n\nEnd")


def test_the_citation_has_the_version():
    path = ROOT / "CITATION.cff"
    if not path.is_file():
        pytest.skip("the repository is not here")
    assert f"\nversion: {fastglm.__version__}\n" in path.read_text()
