"""Bars appear where somebody waits, and nowhere else; fits say before they begin what they cost."""

import io
import logging
import sys
import time
import types

import numpy as np
import pytest

import fastglm
from fastglm import _progress, _remarks
from fastglm._batches import fit
from fastglm._inputs import read_problem
from fastglm._kernels import compiler
from fastglm._products.shards import Shards
from fastglm._progress import Progress, somebody_waits
from fastglm.recordings.stream import from_events


class Terminal(io.StringIO):
    def isatty(self):
        return True


def look(monkeypatch):
    """A terminal, and bars that appear after 0.05 s; pytest sets its own between fixtures."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(_progress, "_AFTER", 0.05)
    monkeypatch.setattr(_progress, "_EVERY", 0.02)
    return screen


def wait_for(screen, text):
    end = time.monotonic() + 20
    while text not in screen.getvalue() and time.monotonic() < end:
        time.sleep(0.01)
    return text in screen.getvalue()


def test_a_bar_appears_when_it_lasts_and_vanishes(monkeypatch):
    screen = look(monkeypatch)
    with Progress("counting", 4) as progress:
        progress.to(1, "one of four")
        assert wait_for(screen, "counting:  25%")
        assert wait_for(screen, "one of four")
    assert screen.getvalue().endswith("\r")  # the line is empty again


def test_what_is_short_shows_nothing(monkeypatch):
    screen = look(monkeypatch)
    monkeypatch.setattr(_progress, "_AFTER", 60.0)
    with Progress("counting", 4) as progress:
        progress.add()
    assert screen.getvalue() == ""


@pytest.mark.parametrize("show", [None, False])
def test_nothing_is_shown_where_nobody_waits(monkeypatch, show):
    screen = io.StringIO() if show is None else Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(_progress, "_AFTER", 0.0)
    with Progress("counting", 4, show) as progress:
        time.sleep(0.05)
        assert not progress.shown
    assert screen.getvalue() == ""


def test_the_log_has_a_line_a_minute_where_nobody_waits(monkeypatch, caplog):
    clock = iter([0.0, 59.0, 61.0, 62.0, 125.0])
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(_progress.time, "monotonic", lambda: next(clock))
    with caplog.at_level("INFO", "fastglm.progress"), Progress("counting", 4) as progress:
        progress.to(1)
        progress.to(2, "two of four")
        progress.add()
        progress.add()
    assert caplog.messages == [
        "counting: 50 %, after 61 s, two of four",
        "counting: 100 %, after 125 s, two of four",
    ]


@pytest.mark.parametrize("show", [False, True])
def test_what_is_shown_or_unwanted_is_not_logged(monkeypatch, caplog, show):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(_progress, "_LINE_EVERY", 0.0)
    with caplog.at_level("INFO", "fastglm.progress"), Progress("counting", 4, show) as progress:
        progress.add()
    assert caplog.messages == []


def test_one_bar_at_a_time(monkeypatch):
    screen = look(monkeypatch)
    with Progress("outer", 2) as outer, Progress("inner", 2) as inner:
        assert (outer.shown, inner.shown) == (True, False)
        assert wait_for(screen, "outer")
    with Progress("later", 2) as later:
        assert later.shown
    assert "inner" not in screen.getvalue()


def test_true_draws_a_bar_at_once_and_leaves_it(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    with Progress("counting", 4, show=True) as progress:
        progress.to(4)
    assert "counting: 100%" in screen.getvalue().split("\r")[-1]


def test_a_bar_of_unknown_length_shows_the_time(monkeypatch):
    screen = look(monkeypatch)
    with Progress("thinking"):
        assert wait_for(screen, "thinking: 00:00")


def test_a_notebook_is_a_place_where_somebody_waits(monkeypatch):
    assert not somebody_waits()
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    assert somebody_waits()
    shell.config = {"TerminalIPythonApp": {}}
    assert not somebody_waits()
    monkeypatch.setattr(sys, "stderr", None)
    assert not somebody_waits()


def test_a_fit_and_its_standard_errors_show_a_bar(monkeypatch):
    screen = look(monkeypatch)
    monkeypatch.setattr(_progress, "_AFTER", 0.0)
    counts = np.random.default_rng(0).poisson(0.1, (20_000, 6))
    X = fastglm.basis.RaisedCosineLogConv(5, window_size=50).compute_features(counts)
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-4).fit(X, counts)
    model.standard_errors(X, counts)
    text = screen.getvalue()
    assert "fitting: " in text
    assert "standard errors: " in text
    screen.truncate(0)
    model.fit(X, counts, progress=False)
    assert screen.getvalue() == ""


def test_a_fit_that_is_interrupted_ends_its_bar(monkeypatch):
    """A bar that stays open keeps all later ones from the screen."""

    def interrupt(*_, **rest):
        raise KeyboardInterrupt

    look(monkeypatch)
    monkeypatch.setattr(fit, "fit_tasks", interrupt)
    counts, basis = np.random.default_rng(0).poisson(0.1, (200, 2)), fastglm.basis.HistoryConv(3)
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-3)
    problem = read_problem(model, basis.compute_features(counts), counts)
    shards = Shards(from_events(problem.y, basis, [0, 200]))
    rest = problem.free, [problem.penalty], problem.settings
    for call in (
        lambda: fit.fit_penalties(problem.X, problem.observed, problem.valid, *rest),
        lambda: fit.fit_shards(shards, *rest),
    ):
        with pytest.raises(KeyboardInterrupt):
            call()
        with Progress("later") as later:
            assert later.shown


def test_compiling_is_said_in_the_bar_and_once_in_the_log(monkeypatch, caplog):
    screen = look(monkeypatch)
    found = compiler._Compilations()
    monkeypatch.setattr(_progress, "compilations", found)
    ours, other = (
        types.SimpleNamespace(
            data={"dispatcher": types.SimpleNamespace(py_func=types.SimpleNamespace(__module__=m))}
        )
        for m in ("fastglm._kernels.sums", None)
    )
    with caplog.at_level(logging.INFO, "fastglm"), Progress("fitting", 4):
        found.on_start(other)
        assert found.running == 0
        for _ in range(2):
            found.on_start(ours)
        assert wait_for(screen, "compiling kernels, on this machine's first use only")
        for _ in range(2):
            found.on_end(ours)
        found.on_end(other)
    assert found.running == 0
    assert caplog.messages == ["compiling kernels, on this machine's first use only"]


# --- what a fit says before it begins ---


def sparse_cells(n_cells=30, n_bins=30_000):
    """Cells that are silent for ten bins after each event."""
    rng = np.random.default_rng(1)
    counts = np.zeros((n_bins, n_cells), int)
    for j in range(n_cells):
        at = np.cumsum(10 + rng.geometric(0.01, n_bins // 100))
        counts[at[at < n_bins], j] = 1
    return counts


def test_a_large_fit_of_separable_data_is_warned_of(monkeypatch):
    counts = sparse_cells()
    X = fastglm.basis.RaisedCosineLogConv(8, window_size=20).compute_features(counts)
    monkeypatch.setattr(_remarks, "is_large", lambda *_: True)
    monkeypatch.setattr(fastglm.glm, "_solve", lambda *_: pytest.skip("the fit began"))
    message = r"no penalty, and receiver 0, 1, .* never fire .* regularizer_strength=0\.0008"
    with pytest.warns(UserWarning, match=message), pytest.raises(pytest.skip.Exception):
        fastglm.PopulationGLM().fit(X, counts)
    with pytest.raises(pytest.skip.Exception):  # a warning would be an error
        fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-4).fit(X, counts)
    some = np.random.default_rng(0).poisson(0.5, (3000, 2))  # nothing separates
    X = fastglm.basis.RaisedCosineLogConv(3, window_size=20).compute_features(some)
    with pytest.raises(pytest.skip.Exception):
        fastglm.PopulationGLM().fit(X, some)


def test_a_ridge_that_leaves_nothing_says_so():
    """What is left is what it says: against a fit whose ridge is the one that it names."""
    counts = np.random.default_rng(0).poisson(0.01, (20_000, 3))
    counts[2:, 1] += counts[:-2, 0]
    X = fastglm.basis.RaisedCosineLogConv(4, window_size=10).compute_features(counts)
    message = r"strength 1\.0 leaves 0\.1 % .* regularizer_strength=0\.001, which"
    with pytest.warns(UserWarning, match=message):
        strong = fastglm.PopulationGLM(regularizer="Ridge").fit(X, counts)
    weak = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-3).fit(X, counts)
    assert np.abs(strong.coef_).max() < 0.01 * np.abs(weak.coef_).max()
    # No warning, which would be an error, where it was chosen or there is no history.
    fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=10.0).fit(X, counts)
    dense = np.random.default_rng(0).normal(size=(100, 2))
    fastglm.GLM(regularizer="Ridge").fit(dense, counts[:100, 0])
