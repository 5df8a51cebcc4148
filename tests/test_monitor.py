"""Nothing is lost: interruption, checkpoints that survive a kill, and the progress bar."""

import contextlib
import io
import logging
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import fastglm
from fastglm._batches import checkpoint, monitor
from fastglm._batches import fit as engine
from fastglm._engine import newton as newton_loop
from fastglm._engine.events import EventProblem
from fastglm._engine.result import Result
from fastglm.basis import RaisedCosineLogConv

pytestmark = pytest.mark.slow  # fits of 40 receivers


def problem(n_cells=40, n_bins=2000):
    counts = np.random.default_rng(0).poisson(0.1, (n_bins, n_cells))
    return RaisedCosineLogConv(3, window_size=20).compute_features(counts), counts


def model(**kwargs):
    args = {"solver_name": "newton-cg", "memory_budget": "66MB"}
    return fastglm.PopulationGLM(
        regularizer="Ridge", regularizer_strength=1e-3, **{**args, **kwargs}
    )


def interrupt_after(monkeypatch, n_passes):
    """Press Ctrl-C in the middle of a pass."""
    evaluate = EventProblem.evaluate
    calls = []

    def interrupted(self, *args):
        calls.append(1)
        if len(calls) > n_passes:
            raise KeyboardInterrupt
        return evaluate(self, *args)

    monkeypatch.setattr(EventProblem, "evaluate", interrupted)
    return calls


@pytest.fixture
def finished():
    X, counts = problem()
    return model().fit(X, counts)


def n_passes_of_first_batch(whole, X, counts):
    first = model().plan(X, counts).batches[0].receivers
    return first, int(whole.n_passes_[first].max())


def test_an_interrupt_leaves_what_is_finished(monkeypatch, finished):
    X, counts = problem()
    first, passes = n_passes_of_first_batch(finished, X, counts)
    assert first.size < 40
    interrupt_after(monkeypatch, passes + 2)
    half = model()
    with pytest.raises(KeyboardInterrupt, match=rf"{first.size} of 40 receivers finished"):
        half.fit(X, counts)
    done = half.status_ == "converged"
    np.testing.assert_array_equal(np.flatnonzero(done), first)
    np.testing.assert_array_equal(half.coef_[:, done], finished.coef_[:, done])
    assert (half.status_[~done] == "interrupted").all()
    assert not half.converged_[~done].any()
    assert np.isfinite(half.predict(X)[30:, done]).all()


def test_an_interrupt_in_the_last_pass_of_a_batch_ends_the_fit():
    """The search has nobody left that could be interrupted."""
    X, counts = problem()
    fitted, done = model(), []
    first = fitted.plan(X, counts).batches[0].receivers

    def press(n):
        done.append(n)
        if sum(done) >= first.size:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted.fit(X, counts, progress=press)
    assert fitted.converged_[first].all()
    assert (fitted.status_ == "interrupted").sum() == 40 - first.size


def test_receivers_that_were_not_begun_are_nan(monkeypatch):
    X, counts = problem()
    interrupt_after(monkeypatch, 0)
    half = model()
    with pytest.raises(KeyboardInterrupt, match="0 of 40 receivers finished"):
        half.fit(X, counts)
    last = model().plan(X, counts).batches[-1].receivers
    assert np.isnan(half.coef_[:, last]).all()


def test_a_checkpoint_goes_on_where_it_was(monkeypatch, tmp_path, finished):
    X, counts = problem()
    path = tmp_path / "fit.checkpoint"
    first, passes = n_passes_of_first_batch(finished, X, counts)
    with monkeypatch.context() as patch:
        interrupt_after(patch, passes + 2)
        with pytest.raises(KeyboardInterrupt):
            model().fit(X, counts, checkpoint=path)
    calls = interrupt_after(monkeypatch, 10**6)
    again = model().fit(X, counts, checkpoint=path)
    assert again.converged_.all()
    np.testing.assert_array_equal(again.coef_[:, first], finished.coef_[:, first])
    np.testing.assert_allclose(again.coef_, finished.coef_, atol=1e-7)
    rest = np.setdiff1d(np.arange(40), first)
    assert len(calls) <= finished.n_passes_[rest].max() * 2
    calls.clear()
    once_more = model().fit(X, counts, checkpoint=path)  # nothing is left to do
    assert not calls
    np.testing.assert_array_equal(once_more.coef_, again.coef_)


def test_a_batch_that_was_under_way_goes_on_from_its_last_point(monkeypatch, tmp_path, finished):
    X, counts = problem()
    path = tmp_path / "fit.checkpoint"
    monkeypatch.setattr(monitor, "_SAVE_EVERY", 0.0)
    monkeypatch.setattr(monitor, "_SAVE_PART", 0.0)
    _, passes = n_passes_of_first_batch(finished, X, counts)
    with monkeypatch.context() as patch:
        interrupt_after(patch, passes - 1)
        # As if killed: the interrupt gets no chance to write.
        patch.setattr(newton_loop, "KeyboardInterrupt", ZeroDivisionError, raising=False)
        with pytest.raises(KeyboardInterrupt):
            model().fit(X, counts, checkpoint=path)
    calls = interrupt_after(monkeypatch, 10**6)
    again = model().fit(X, counts, checkpoint=path)
    assert again.converged_.all()
    np.testing.assert_allclose(again.coef_, finished.coef_, atol=1e-7)
    n_batches = len(model().plan(X, counts).batches)
    assert len(calls) < n_batches * passes


@pytest.mark.filterwarnings("ignore:separated")
@pytest.mark.parametrize("penalty", ["UnRegularized", "Lasso"])
def test_a_checkpoint_within_a_batch_has_no_last_word(monkeypatch, tmp_path, penalty):
    """Other steps follow the search that is watched, and change statuses and coefficients."""
    counts = (np.random.default_rng(3).random((2000, 4)) < [0.004, 0.01, 0.02, 0.2]).astype(float)
    X = RaisedCosineLogConv(3, window_size=20).compute_features(counts)
    strength = None if penalty == "UnRegularized" else 1e-6
    kept, path = [], tmp_path / "fit.checkpoint"
    save = monitor.Monitor._save

    def saving(self):
        save(self)
        kept.append(path.read_bytes())

    def fitted():
        return fastglm.PopulationGLM(
            regularizer=penalty, regularizer_strength=strength, solver_name="newton-cg"
        ).fit(X, counts, checkpoint=path)

    monkeypatch.setattr(monitor, "_SAVE_EVERY", 0.0)
    monkeypatch.setattr(monitor, "_SAVE_PART", 0.0)
    monkeypatch.setattr(monitor.Monitor, "_save", saving)
    whole = fitted()
    assert len(kept) > 5
    for state in kept[2], kept[-1]:
        path.write_bytes(state)
        again = fitted()
        np.testing.assert_array_equal(again.status_, whole.status_)
        np.testing.assert_allclose(again.objective_, whole.objective_, rtol=1e-8)


def own_senders(n_cells):
    """A mask with which every receiver is a batch of its own."""
    mask = np.random.default_rng(1).random((n_cells, n_cells)) < 0.3
    return {"feature_mask": np.repeat(mask, 3, axis=0), "memory_budget": None}


def test_a_batch_is_appended_to_a_checkpoint_that_is_written_once(monkeypatch, tmp_path):
    X, counts = problem(12)
    save, add, calls = checkpoint.Checkpoint.save, checkpoint.Checkpoint.add, []
    monkeypatch.setattr(
        checkpoint.Checkpoint, "save", lambda self, *a: calls.append("save") or save(self, *a)
    )
    monkeypatch.setattr(
        checkpoint.Checkpoint, "add", lambda self, *a: calls.append(len(a[0])) or add(self, *a)
    )
    path = tmp_path / "fit.checkpoint"
    fitted = model(**own_senders(12)).fit(X, counts, checkpoint=path)
    assert calls.count("save") == 1
    calls.remove("save")
    assert sum(calls) == 12
    assert len(calls) > 6
    monkeypatch.setattr(engine, "fit_task", None)
    again = model(**own_senders(12)).fit(X, counts, checkpoint=path)
    np.testing.assert_array_equal(again.coef_, fitted.coef_)
    assert again.solver_result_.method.tolist() == fitted.solver_result_.method.tolist()


def test_an_interrupt_while_the_last_batch_is_saved_does_not_lose_it(monkeypatch, tmp_path):
    X, counts = problem(12)
    add, left, used = checkpoint.Checkpoint.add, np.ones(12, bool), []

    def interrupted(self, receivers, result):
        used.append(self)
        left[receivers] = False
        if not left.any():
            self._appends = False  # a record has begun
            raise KeyboardInterrupt
        add(self, receivers, result)

    monkeypatch.setattr(checkpoint.Checkpoint, "add", interrupted)
    with pytest.raises(KeyboardInterrupt, match="12 of 12 receivers finished"):
        model(**own_senders(12)).fit(X, counts, checkpoint=tmp_path / "c")
    assert len(used) > 6
    assert (used[0].load(36, 12).status == "converged").all()


def test_every_batch_is_in_the_checkpoint_before_it_is_told(tmp_path, monkeypatch, caplog):
    """A process that is killed now loses no batch that has ended."""
    X, counts = problem(12)
    path, own, seen = tmp_path / "fit.checkpoint", [], []

    class Spy(checkpoint.Checkpoint):
        def __init__(self, path, key):
            own.append(self)
            super().__init__(path, key)

    class Look(logging.Handler):
        def emit(self, record):
            told = re.match(r"fit: (\d+) of 12 receivers, ", record.getMessage())
            if told:
                seen.append((int(told[1]), (own[0].load(36, 12).status != "").sum()))

    monkeypatch.setattr("fastglm.glm.Checkpoint", Spy)
    handler, logger = Look(), logging.getLogger("fastglm")
    logger.addHandler(handler)
    with caplog.at_level("INFO", logger="fastglm"):
        model(**own_senders(12)).fit(X, counts, checkpoint=path)
    logger.removeHandler(handler)
    assert len(seen) > 6
    assert all(told == saved for told, saved in seen)


KILLED = """
import sys, numpy as np, fastglm
from fastglm._batches import monitor
monitor._SAVE_EVERY = 0.0
sys.path.insert(0, {tests!r})
from test_monitor import model, problem
X, counts = problem(n_cells=32, n_bins=30_000)
print("begun", flush=True)
while True:
    tight = dict(solver_kwargs=dict(tol=1e-20), memory_budget="95MB")
    model(**tight).fit(X, counts, checkpoint={path!r})
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_checkpoint_survives_kill_9(tmp_path):
    path = tmp_path / "fit.checkpoint"
    code = KILLED.format(tests=os.path.dirname(__file__), path=str(path))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    process.stdout.readline()
    deadline = time.monotonic() + 120
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL  # it was still at work
    assert path.exists()
    process.stdout.close()
    X, counts = problem(n_cells=32, n_bins=30_000)
    tight = {"solver_kwargs": {"tol": 1e-20}, "memory_budget": "95MB"}
    again = model(**tight).fit(X, counts, checkpoint=path)
    whole = model(**tight).fit(X, counts)
    assert again.converged_.all()
    np.testing.assert_allclose(again.coef_, whole.coef_, atol=1e-8)


@pytest.mark.parametrize(
    "change",
    [
        {"counts": 1},
        {"model": {"regularizer_strength": 2e-3}},
        {"model": {"solver_kwargs": {"tol": 1e-9}}},
        {"model": {"inverse_link_function": "softplus"}},
        {"model": {"feature_mask": {"RaisedCosineLogConv": np.ones(40, bool)}}, "same": True},
    ],
)
def test_a_checkpoint_of_another_fit_is_refused(tmp_path, change):
    X, counts = problem()
    path = tmp_path / "fit.checkpoint"
    model().fit(X, counts, checkpoint=path)
    other = counts.copy()
    other[1000, 3] += change.get("counts", 0)
    again = model().set_params(**change.get("model", {}))
    if change.get("same"):  # a mask of ones is no mask
        again.fit(X, other, checkpoint=path)
        return
    with pytest.raises(ValueError, match="a checkpoint of other data or settings"):
        again.fit(X, other, checkpoint=path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", "npz"])
def test_a_file_that_is_no_checkpoint_is_refused_and_kept(tmp_path, content):
    X, counts = problem()
    path = tmp_path / "fit.checkpoint"
    if content == "npz":
        with open(path, "wb") as file:
            np.savez(file, format="other")
        content = path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a checkpoint of fastglm, or is damaged"):
        model().fit(X, counts, checkpoint=path)
    assert path.read_bytes() == content


def test_a_folder_that_is_not_there_is_named(tmp_path):
    X, counts = problem()
    with pytest.raises(ValueError, match=r"there is no folder .*missing"):
        model().fit(X, counts, checkpoint=tmp_path / "missing" / "fit.checkpoint")


def some_result(n_features=3, n=4):
    result = Result.empty(n_features, n)
    result.coef[:] = np.random.default_rng(0).normal(size=result.coef.shape)
    result.status[:2] = "converged"
    return result


def same(result, other):
    for name, values in vars(result).items():
        np.testing.assert_array_equal(values, getattr(other, name))


@contextlib.contextmanager
def few_bytes(size=1000):
    """Files cannot grow beyond 1 kB, as on a full disk; gives a function of another size.

    The report of the tests may be such a file, so the context ends before a test does.
    """
    resource = pytest.importorskip("resource")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))

    limit(size)
    try:
        yield limit
    finally:
        limit(old[0])


def test_a_write_that_fails_leaves_the_old_checkpoint(tmp_path):
    saved = checkpoint.Checkpoint(tmp_path / "a", "key")
    saved.save(some_result())
    before = (tmp_path / "a").read_bytes()
    full = pytest.raises(OSError, match="File too large")
    with few_bytes(len(before) // 2), full:
        saved.save(some_result())
    assert (tmp_path / "a").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_records_replace_what_was_there(tmp_path):
    saved, result = checkpoint.Checkpoint(tmp_path / "a", "key"), some_result()
    saved.add(np.array([1]), result)  # of all receivers, since nothing was there
    same(saved.load(3, 4), result)
    size = (tmp_path / "a").stat().st_size
    result.coef[:], result.status[2] = 7.0, "stalled"
    saved.add(np.array([3, 2]), result)
    assert (tmp_path / "a").stat().st_size < 2 * size
    found = saved.load(3, 4)
    assert found.status.tolist() == ["converged", "converged", "stalled", ""]
    assert (found.coef == 7).all(axis=0).tolist() == [False, False, True, True]


def test_a_record_that_is_cut_off_is_left_out_and_written_over(tmp_path):
    saved, first = checkpoint.Checkpoint(tmp_path / "a", "key"), some_result()
    saved.save(first)
    size = (tmp_path / "a").stat().st_size
    second = some_result()
    second.coef[:] = 1.0
    saved.add(np.array([2]), second)
    whole = (tmp_path / "a").read_bytes()
    for stop in range(size, len(whole)):
        (tmp_path / "a").write_bytes(whole[:stop])
        same(checkpoint.Checkpoint(tmp_path / "a", "key").load(3, 4), first)
    again = checkpoint.Checkpoint(tmp_path / "a", "key")
    again.add(np.array([0]), second)  # of all, so that nothing follows half a record
    same(again.load(3, 4), second)
    for stop in range(size):
        (tmp_path / "a").write_bytes(whole[:stop])
        with pytest.raises(ValueError, match="is not a checkpoint of fastglm, or is damaged"):
            saved.load(3, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_features": 4}, "a checkpoint of other data or settings"),
        ({"n": 3}, "a checkpoint of other data or settings"),
        ({"key": "other"}, "a checkpoint of other data or settings"),
    ],
)
def test_a_checkpoint_of_another_shape_is_refused(tmp_path, change, message):
    checkpoint.Checkpoint(tmp_path / "a", "key").save(some_result())
    given = {"n_features": 3, "n": 4, "key": "key"} | change
    other = checkpoint.Checkpoint(tmp_path / "a", given.pop("key"))
    with pytest.raises(ValueError, match=message):
        other.load(**given)


def test_a_checkpoint_of_another_version_is_refused(tmp_path):
    saved = checkpoint.Checkpoint(tmp_path / "a", "key")
    saved.save(some_result())
    content = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(content.replace(b"checkpoint 2", b"checkpoint 3"))
    with pytest.raises(ValueError, match="a checkpoint of another version of fastglm"):
        saved.load(3, 4)


def test_no_changed_byte_of_a_checkpoint_is_taken(tmp_path):
    saved = checkpoint.Checkpoint(tmp_path / "a", "key")
    saved.save(some_result())
    content = (tmp_path / "a").read_bytes()
    for at in range(len(content)):
        (tmp_path / "a").write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        with pytest.raises(
            ValueError, match=r"is not a checkpoint|other data|other version|another"
        ):
            saved.load(3, 4)


@pytest.mark.parametrize("batches", ["wide", "single"])
def test_a_checkpoint_that_cannot_be_written_warns_and_the_fit_goes_on(tmp_path, batches):
    X, counts = problem(12)
    args = own_senders(12) if batches == "single" else {}
    whole = model(**args).fit(X, counts)
    warned = pytest.warns(match=r"checkpoint .*c\.npz could not be written .*File too large")
    with warned as told, few_bytes():
        kept = model(**args).fit(X, counts, checkpoint=tmp_path / "c.npz")
    assert len(told) == 1
    np.testing.assert_array_equal(kept.coef_, whole.coef_)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_has_room_again_gets_the_checkpoint(tmp_path):
    X, counts = problem(12)
    path, args, room = tmp_path / "c", own_senders(12), []

    def progress(new):
        room.append(new)
        if len(room) == 4:
            limit(10**7)

    with pytest.warns(match="could not be written"), few_bytes() as limit:
        fitted = model(**args).fit(X, counts, progress=progress, checkpoint=path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "fit_task", None)
        again = model(**args).fit(X, counts, checkpoint=path)
    np.testing.assert_array_equal(again.coef_, fitted.coef_)


def test_a_folder_is_no_checkpoint(tmp_path):
    X, counts = problem(2)
    with pytest.raises(ValueError, match="a folder; expected the name of a file"):
        model().fit(X, counts, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="checkpoint is 5; expected the name of a file"):
        model().fit(X, counts, checkpoint=5)


def test_fingerprints_tell_arrays_apart():
    a = np.arange(6)
    keys = {
        checkpoint.fingerprint(*parts)
        for parts in ([a], [a.reshape(2, 3)], [a.astype(float)], [a[::-1]], [a, 1], [a, "1"])
    }
    assert len(keys) == 6
    assert checkpoint.fingerprint(a[::2]) == checkpoint.fingerprint(a[::2].copy())


def test_the_bar_shows_receivers_passes_and_time_left(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    X, counts = problem()
    model().fit(X, counts, progress=True)
    last = screen.getvalue().split("\r")[-1]
    assert "fitting: 100%" in last
    assert "40 of 40 receivers, pass" in last
    assert "<" in last  # time left


WITHOUT_WIDGETS = """
import sys, types, warnings
warnings.simplefilter("always")
shell = types.SimpleNamespace(config={"IPKernelApp": {}})
sys.modules["IPython"] = types.SimpleNamespace(get_ipython=lambda: shell)
sys.modules["ipykernel.zmqshell"] = types.SimpleNamespace()
sys.modules["ipywidgets"] = None
from fastglm._progress import import_tqdm
print(import_tqdm().__module__)
"""


def test_a_notebook_without_widgets_gets_text_and_no_warning():
    """tqdm.auto warns there that ipywidgets is missing."""
    quiet = subprocess.run(
        [sys.executable, "-c", WITHOUT_WIDGETS], capture_output=True, text=True, check=True
    )
    assert quiet.stdout.startswith("tqdm.")
    assert "notebook" not in quiet.stdout
    assert quiet.stderr == ""
    code = WITHOUT_WIDGETS.replace("import_tqdm().__module__", "__import__('tqdm.auto')")
    loud = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "IProgress not found" in loud.stderr  # what users are kept from


def lines(caplog, level):
    return [r.getMessage() for r in caplog.records if r.levelname == level]


def test_the_log_has_a_line_for_every_batch_and_a_summary(caplog):
    X, counts = problem()
    counts[:, 7] = 0
    whole = model()
    with caplog.at_level("INFO", logger="fastglm"), pytest.warns(match="silent"):
        whole.fit(X, counts)
    batches = whole.plan(X, counts).batches
    assert len(batches) > 1
    assert lines(caplog, "DEBUG") == []
    *each, summary = lines(caplog, "INFO")
    assert len(each) == 1 + len(batches)  # and the silent
    assert re.fullmatch(r"fit: 1 of 40 receivers, 1 now in .* s: 1 silent", each[0])
    first = batches[0].receivers.size
    assert re.fullmatch(
        rf"fit: {1 + first} of 40 receivers, {first} now in .* s: {first} converged", each[1]
    )
    assert each[-1].startswith("fit: 40 of 40 receivers")
    assert re.fullmatch(r"fit: ended after .* s: (.*)", summary)[1] == repr(whole.solver_result_)


def test_the_log_has_every_pass_for_those_who_debug(caplog):
    X, counts = problem()
    with caplog.at_level("DEBUG", logger="fastglm"):
        whole = model(memory_budget="1GB").fit(X, counts)
    passes = lines(caplog, "DEBUG")
    assert len(passes) == whole.n_passes_.max()
    assert re.fullmatch(r"fit: pass 1, 40 of 40 receivers go on, largest decrement .*", passes[0])
    assert passes[-1] == f"fit: pass {len(passes)}, 0 of 40 receivers go on"


def test_folds_and_paths_are_logged_by_name(caplog):
    X, counts = problem(n_cells=3)
    with caplog.at_level("INFO", logger="fastglm"):
        fastglm.model_selection.cross_validate(
            fastglm.PopulationGLM(regularizer="Ridge"), X, counts, [1e-2, 1e-3], folds=2
        )
    starts = [line.split(":")[0] for line in lines(caplog, "INFO")]
    assert list(dict.fromkeys(starts)) == ["path", "fold 1 of 2", "fold 2 of 2", "fit"]
    caplog.clear()
    with caplog.at_level("INFO", logger="fastglm"):
        model().fit(X, counts).score(X, counts, score_type="pseudo-r2-Cohen")
    assert {line.split(":")[0] for line in lines(caplog, "INFO")} == {"fit"}


def test_nothing_is_logged_unless_asked(capfd):
    X, counts = problem(n_cells=3)
    model().fit(X, counts)
    assert capfd.readouterr() == ("", "")
    handlers = logging.getLogger("fastglm").handlers
    assert [type(h) for h in handlers] == [logging.NullHandler]


def test_an_interrupt_is_in_the_log(monkeypatch, caplog):
    X, counts = problem()
    interrupt_after(monkeypatch, 0)
    with caplog.at_level("INFO", logger="fastglm"), pytest.raises(KeyboardInterrupt):
        model().fit(X, counts)
    assert lines(caplog, "INFO")[-1].endswith("40 receivers x 120 features: 40 interrupted")
