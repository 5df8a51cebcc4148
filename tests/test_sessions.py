"""Many recordings: the same result whoever does them, resumed, and no failure stops another."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import types
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import pytest
from test_cli import check_refused, write_recording

import fastglm
from fastglm._processes import Processes
from fastglm.cli import main
from fastglm.cli import sessions as commands
from fastglm.workflow import coupling
from fastglm.workflow import sessions as module
from fastglm.workflow.records import find_files, identify, name_sessions, read_share

PAGE = Path(__file__).parents[1] / "docs" / "sessions.md"
OPTIONS = ["--bin-size", "0.01", "--window", "0.03", "--n-basis", "2"]
SETTINGS = {"method": "fit_coupling", "bin_size": 0.01, "window": 0.03}
RNG = np.random.default_rng(0)


def write_sessions(folder, n, n_bins=150):
    folder.mkdir(exist_ok=True)
    for k in range(n):
        write_recording(folder / f"s{k:02d}.npz", RNG.binomial(1, 0.2, (n_bins, 3)))
    return sorted(folder.iterdir())


@pytest.fixture(autouse=True)
def one_thread():
    """Threads take longer to begin than these small fits."""
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_sessions(tmp_path_factory.mktemp("data") / "recordings", 4)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*")}


def tables(folder):
    return [(folder / name).read_bytes() for name in ("couplings.csv", "sessions.csv")]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# --- the same from all ---


def test_four_tasks_give_the_table_of_one_call(tmp_path, capsys):
    recordings = list(map(str, write_sessions(tmp_path / "recordings", 16)))
    one, four = tmp_path / "one", tmp_path / "four"
    main(["fit", *recordings, *OPTIONS, "--out", str(one)])
    for i in (3, 1, 4, 2):
        assert len(list(four.glob("*.session.json"))) == 4 * [3, 1, 4, 2].index(i)
        main(["fit", *recordings, *OPTIONS, "--out", str(four), "--task", f"{i}/4"])
    for folder in (one, four):
        main(["collect", str(folder)])
    assert "sessions           16 done\n" in capsys.readouterr().out
    assert tables(one) == tables(four)
    rows = tables(one)[0].decode().splitlines()
    assert rows[0].startswith("session,sender,receiver,strength,standard_error,")
    assert len(rows) == 1 + 16 * 9
    model = fastglm.fit_coupling(
        fastglm.load_spikes(recordings[7]), 0.01, regularizer_strength=None,
        basis=fastglm.basis.RaisedCosineLogConv(2, window_size=3),
    )  # fmt: skip
    couplings = model.coupling_map(model.X_, model.counts_)
    row = rows[1 + 7 * 9 + 1].split(",")  # of cell 0 to cell 1
    assert row[:3] == ["s07", "0", "1"]
    assert float(row[3]) == couplings.strength[0, 1]
    assert float(row[rows[0].split(",").index("q_value")]) == couplings.q_value[0, 1]
    score = model.score(model.X_, model.counts_, score_type="pseudo-r2-McFadden")
    head, *rows = (line.split(",") for line in tables(one)[1].decode().splitlines())
    found = dict(zip(head, rows[7], strict=True))
    assert found["session"] == "s07"
    assert (found["state"], found["status"]) == ("done", "3 converged")
    assert (found["units"], found["bins"]) == ("3", "150")
    assert float(found["score"]) == score


def test_the_job_script_of_the_page_runs_as_it_stands(files, tmp_path, monkeypatch):
    """One of its two jobs in bash; the other one is the same call."""
    if not PAGE.is_file() or shutil.which("bash") is None:
        pytest.skip("the docs or bash are not here")
    (script,) = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text(), flags=re.M | re.S)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sessions.sh").write_text(script)
    shutil.copytree(files[0].parent, tmp_path / "recordings")
    command = tmp_path / "bin" / "fastglm"
    command.parent.mkdir()
    package = Path(fastglm.__file__).parents[1]
    command.write_text(
        f'#!/bin/sh\nPYTHONPATH="{package}" exec "{sys.executable}" -m fastglm "$@"\n'
    )
    command.chmod(0o755)
    slurm = {"SLURM_CPUS_PER_TASK": "1", "SLURM_ARRAY_TASK_COUNT": "2"}
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "sessions.sh"], capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, **slurm, "SLURM_ARRAY_TASK_ID": "1", "PATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 sessions: 2 done of task 1/2" in done.stdout
    assert "2 of 2: s02 done in " in done.stderr
    every = sorted(map(str, Path("recordings").iterdir()))
    main(["infer", *every, "--out", "maps", "--task", "2/2"])
    main(["infer", *every, "--out", "one"])
    for folder in ("maps", "one"):
        main(["collect", folder])
    assert tables(Path("maps")) == tables(Path("one"))


class Later:
    """An executor with what is asked of one, and no more: jobs end in the reverse order."""

    def __init__(self):
        self.jobs = []

    def submit(self, function, *args):
        self.jobs.append(Job(self, function, args))
        return self.jobs[-1]


class Job:
    def __init__(self, executor, function, args):
        self.executor, self.call = executor, (function, args)

    def done(self):
        if self.executor.jobs[-1] is self:
            self.executor.jobs.pop()
            return True
        return self not in self.executor.jobs

    def result(self):
        function, args = self.call
        return function(*args)


@pytest.mark.parametrize("kind", [Later, lambda: ThreadPoolExecutor(2)])
def test_an_executor_gives_what_this_process_gives(files, tmp_path, kind):
    here = fastglm.fit_sessions(files, tmp_path / "here", **SETTINGS)
    there = fastglm.fit_sessions(files, tmp_path / "there", executor=kind(), **SETTINGS)
    assert list(here) == list(there) == ["s00", "s01", "s02", "s03"]
    for name, couplings in here.items():
        np.testing.assert_array_equal(couplings.strength, there[name].strength)
        np.testing.assert_array_equal(couplings.q_value, there[name].q_value)
    for sessions in (here, there):
        sessions.write_table(sessions.folder / "couplings.csv")
        sessions.write_summary(sessions.folder / "sessions.csv")
    assert tables(tmp_path / "here") == tables(tmp_path / "there")


def test_a_process_that_ends_costs_its_own_job():
    with Processes(1) as executor:
        jobs = [executor.submit(*call) for call in ((abs, -1), (os._exit, 1), (os.getpid,))]
        assert jobs[0].result(60) == 1
        with pytest.raises(BrokenExecutor):
            jobs[1].result(60)
        assert jobs[2].result(60) != os.getpid()


def test_an_error_ends_the_processes():
    with contextlib.suppress(KeyboardInterrupt), Processes(1) as executor:
        executor.submit(os.getpid).result(60)
        running, waiting = (executor.submit(time.sleep, 600) for _ in range(2))
        while not running.running():
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert isinstance(running.exception(60), BrokenExecutor)
    assert waiting.cancelled()


@pytest.mark.slow
def test_processes_give_what_this_process_gives(files, tmp_path):
    here = fastglm.fit_sessions(files[:2], tmp_path / "here", **SETTINGS)
    with Processes(1) as executor:
        there = fastglm.fit_sessions(files[:2], tmp_path / "there", executor=executor, **SETTINGS)
    for name, couplings in here.items():
        np.testing.assert_array_equal(couplings.strength, there[name].strength)


def test_the_session_of_a_lost_process_has_a_sentence(files, tmp_path):
    class Lossy(ThreadPoolExecutor):
        def submit(self, function, work, name, file):
            return super().submit(self.lose if name == "s01" else function, work, name, file)

        def lose(self, *_):
            raise BrokenExecutor

    with Lossy(1) as executor, pytest.warns(UserWarning, match="1 of 4 sessions failed"):
        sessions = fastglm.fit_sessions(files, tmp_path / "maps", executor=executor, **SETTINGS)
    assert sessions.failed["s01"].startswith("Its process, or another one of its pool, ended")
    assert fastglm.fit_sessions(files, tmp_path / "maps", **SETTINGS).count().endswith(" 4 done")


@pytest.mark.parametrize(("jobs", "expected"), [("2", (2, 2)), ("9", (4, 1))])
def test_jobs_share_the_cores(files, tmp_path, capsys, monkeypatch, jobs, expected):
    made = []

    class Threads(ThreadPoolExecutor):
        def __init__(self, number):
            super().__init__(1)
            made.append(number)

        def submit(self, function, work, name, file):
            made.append(work.n_threads)
            return super().submit(function, work, name, file)

    monkeypatch.setattr(commands, "Processes", Threads)
    monkeypatch.setattr(numba, "get_num_threads", lambda: 4)
    arguments = [*map(str, files), *OPTIONS, "--out", str(tmp_path / "maps"), "--jobs", jobs]
    with monkeypatch.context() as fixed:
        fixed.setattr(numba, "set_num_threads", lambda number: None)
        main(["fit", *arguments])
    assert "4 sessions: 4 done\n" in capsys.readouterr().out
    assert made == [expected[0]] + 4 * [expected[1]]


def test_dask_is_its_executor(files, tmp_path, capsys, monkeypatch):
    """`--scheduler` hands the sessions to the executor of a client."""
    asked = []

    class Client:
        def __init__(self, **where):
            if "nowhere" in where.get("address", ""):
                raise OSError("Timed out")
            asked.append(where)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            asked.append("closed")

        def get_executor(self):
            return Later()

    monkeypatch.setitem(sys.modules, "distributed", types.SimpleNamespace(Client=Client))
    arguments = ["fit", *map(str, files), *OPTIONS, "--out", str(tmp_path / "maps"), "--scheduler"]
    main([*arguments, "tcp://node1:8786"])
    assert "4 sessions: 4 done\n" in capsys.readouterr().out
    (tmp_path / "scheduler.json").touch()
    main([*arguments, str(tmp_path / "scheduler.json")])
    assert "4 done, 4 of them by an earlier call" in capsys.readouterr().out
    assert asked == [
        {"address": "tcp://node1:8786"},
        "closed",
        {"scheduler_file": str(tmp_path / "scheduler.json")},
        "closed",
    ]
    check_refused(capsys, [*arguments, "nowhere"], "where no Dask scheduler answers: Timed out")
    check_refused(capsys, [*arguments, "a", "--jobs", "2"], "leave it out with --scheduler")
    monkeypatch.setitem(sys.modules, "distributed", None)
    check_refused(capsys, [*arguments, "a"], r"needs Dask: .*fastglm\[cluster\]")


def test_dask_for_real(files, tmp_path):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        sessions = fastglm.fit_sessions(
            files, tmp_path / "maps", executor=client.get_executor(), **SETTINGS
        )
    assert sessions.count() == "4 sessions: 4 done"


def test_threads_of_a_session(files, tmp_path):
    seen, before = [], numba.get_num_threads()

    def note(couplings, session):
        seen.append((session.name, couplings.model.X_.shape, numba.get_num_threads()))

    fastglm.fit_sessions(files[:1], tmp_path / "maps", n_threads=1, also=note, **SETTINGS)
    assert seen == [("s00", (150, 9), 1)]
    assert numba.get_num_threads() == before


def test_a_recipe_with_its_choices_and_covariates_of_each_recording(files, tmp_path):
    asked = []

    def covariates(path):
        asked.append(path.stem)
        return {"drift": (np.array([0.0, 0.7]), np.array([0.0, 1.0]))}

    settings = {"bin_size": 0.01, "window": 0.03, "null": "model", "kind": "expected"}
    sessions = fastglm.fit_sessions(
        files[:2], tmp_path / "maps", covariates=covariates,
        controls=("reversed",), **settings,
    )  # fmt: skip
    assert asked == ["s00", "s01"]
    expected = fastglm.infer_connectivity(
        fastglm.load_spikes(files[1]), covariates=covariates(files[1]), controls=("reversed",),
        **settings,
    )  # fmt: skip
    np.testing.assert_array_equal(sessions["s01"].strength, expected.strength)
    np.testing.assert_array_equal(sessions["s01"].standard_error, expected.standard_error)
    assert sessions["s01"].controls == expected.controls


# --- resumed ---


def test_a_second_call_does_what_is_not_finished(files, tmp_path):
    recordings = write_sessions(tmp_path / "recordings", 3)
    maps, seen = tmp_path / "maps", []

    def call(**more):
        seen.clear()
        return fastglm.fit_sessions(recordings, maps, also=note, **SETTINGS, **more)

    def note(couplings, session):
        seen.append(session.name)

    call(task="2/3")
    assert seen == ["s01"]
    call()
    assert seen == ["s00", "s02"]
    before = {path: path.stat().st_mtime_ns for path in maps.iterdir()}
    call()
    assert seen == []
    assert {path: path.stat().st_mtime_ns for path in maps.iterdir()} == before
    (maps / "s00.couplings.npz").unlink()
    assert fastglm.collect_sessions(maps).missing == ["s00"]
    call()
    assert seen == ["s00"]
    write_recording(recordings[2], RNG.binomial(1, 0.2, (160, 3)))
    sessions = call()
    assert seen == ["s02"]
    assert sessions.all["s02"].bins == 160
    recordings += write_sessions(tmp_path / "more", 1)
    recordings[-1] = recordings[-1].rename(tmp_path / "more" / "new.npz")
    call()
    assert seen == ["new"]


def test_what_is_done_beside_the_map_is_done_for_finished_sessions(files, tmp_path):
    seen = []

    def note(couplings, session):
        seen.append(session.name)

    fastglm.fit_sessions(files[:2], tmp_path / "maps", **SETTINGS)
    for expected in (["s00", "s01"], []):
        seen.clear()
        fastglm.fit_sessions(files[:2], tmp_path / "maps", also=note, **SETTINGS)
        assert seen == expected
    fastglm.fit_sessions(files[:2], tmp_path / "maps", **SETTINGS)
    assert seen == []


def test_other_settings_are_refused_where_sessions_are_finished(files, tmp_path):
    maps, bad = tmp_path / "maps", tmp_path / "bad.npz"
    bad.write_bytes(b"no zip")
    mask = np.ones((3, 3), bool)
    with pytest.warns(UserWarning, match="1 of 1 sessions failed"):
        fastglm.fit_sessions(bad, maps, **SETTINGS)
    fastglm.fit_sessions(files[0], maps, mask=mask, **SETTINGS)  # nothing was finished
    before = contents(maps)
    for change in (
        {"window": 0.04},
        {"mask": np.eye(3, dtype=bool)},
        {"method": "infer_connectivity"},
    ):
        (name,) = change
        with pytest.raises(
            ValueError, match=f"has sessions of other settings: {name} differ for s00"
        ):
            fastglm.fit_sessions(files[:2], maps, **{"mask": mask, **SETTINGS, **change})
    with pytest.raises(
        ValueError, match=r"window was 0\.03, and is not given\)\. Give another fold"
    ):
        fastglm.fit_sessions(files[0], maps, method="fit_coupling", bin_size=0.01, mask=mask)
    assert contents(maps) == before


def test_an_interrupt_keeps_what_is_finished(files, tmp_path):
    """Also one between a map and its session: the session is written last."""
    maps = tmp_path / "maps"

    def stop(couplings, session):
        if session.name == "s02":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fastglm.fit_sessions(files, maps, also=stop, **SETTINGS)
    found = fastglm.collect_sessions(maps)
    assert (list(found), found.missing) == (["s00", "s01"], ["s02", "s03"])
    assert (maps / "s02.couplings.npz").is_file()
    assert repr(found) == f"4 sessions: 2 done, 2 missing in {maps}"
    before = (maps / "s00.npz").stat().st_mtime_ns
    fastglm.fit_sessions(files, maps, **SETTINGS)
    assert (maps / "s00.npz").stat().st_mtime_ns == before
    assert fastglm.collect_sessions(maps).count() == "4 sessions: 4 done"


def test_an_interrupt_cancels_what_has_not_begun(files, tmp_path):
    cancelled = []

    class Waiting:
        def submit(self, function, work, name, file):
            return types.SimpleNamespace(
                done=lambda: name == "s00" or self.stop(), cancel=lambda: cancelled.append(name),
                result=lambda: function(work, name, file),
            )  # fmt: skip

        def stop(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fastglm.fit_sessions(files, tmp_path / "maps", executor=Waiting(), **SETTINGS)
    assert cancelled == ["s00", "s01", "s02", "s03"]


def test_files_appear_whole_or_not_at_all(files, tmp_path, monkeypatch):
    maps, save = tmp_path / "maps", np.savez_compressed

    def full(file, **arrays):
        save(file, **arrays)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(np, "savez_compressed", full)
        with pytest.warns(UserWarning, match="failed, the first is s00: .*No space left on device"):
            fastglm.fit_sessions(files[:1], maps, method="infer_connectivity", bin_size=0.01)
    assert names_in(maps) == ["s00.session.json", "sessions.json"]


def test_a_disk_without_space_for_a_sentence_is_a_failure(files, tmp_path, monkeypatch):
    monkeypatch.setattr(module.Session, "write", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.warns(UserWarning, match="2 of 2 sessions failed, the first is s00: full"):
        fastglm.fit_sessions(files[:2], tmp_path / "maps", **SETTINGS)


def test_the_session_of_a_lost_worker_may_be_whole(files, tmp_path):
    """A worker that ends after its last file has done its work."""

    class Lossy:
        def submit(self, function, work, name, file):
            if name == "s03":
                raise RuntimeError("the pool is broken")

            def result():
                if name != "s02":
                    function(work, name, file)
                raise RuntimeError("no\nanswer")

            return types.SimpleNamespace(done=lambda: True, result=result)

    with pytest.warns(UserWarning, match="2 of 4 sessions failed"):
        sessions = fastglm.fit_sessions(files, tmp_path / "maps", executor=Lossy(), **SETTINGS)
    assert list(sessions) == ["s00", "s01"]
    text = "Its worker gave no result (RuntimeError: {}); the same call does it again."
    expected = {"s02": text.format("no answer"), "s03": text.format("the pool is broken")}
    assert sessions.failed == fastglm.collect_sessions(tmp_path / "maps").failed == expected


# --- failures ---


def test_a_failed_session_stops_nobody(files, tmp_path, capsys):
    damaged, none = tmp_path / "damaged.npz", tmp_path / "none.npz"
    damaged.write_bytes(b"no zip")
    maps = tmp_path / "maps"
    arguments = ["fit", str(damaged), str(files[0]), str(none), *OPTIONS, "--out", str(maps)]
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 1
    out, err = capsys.readouterr()
    rows = [re.split(r"  +", line) for line in out.splitlines()[:4]]
    assert rows[0] == ["session", "status", "units", "spikes", "bins", "found", "score", "time"]
    assert [row[0] for row in rows[1:]] == ["damaged", "none", "s00"]
    assert [row[1] for row in rows[1:]] == ["failed", "failed", "3 converged"]
    assert f"fastglm: error: damaged: {damaged} could not be read as a recording" in err
    assert f"fastglm: error: none: There is no file {none}.\n" in err
    assert err.endswith("fastglm: error: 2 of 3 sessions failed\n")
    main(["collect", str(maps)])
    out, err = capsys.readouterr()
    assert "sessions           1 done, 2 failed\n" in out
    assert f"fastglm: error: none: There is no file {none}.\n" in err
    rows = (maps / "sessions.csv").read_text().splitlines()
    assert rows[2].startswith(f"none,{none},failed,,,,,,,,There is no file")
    shutil.copy(files[1], damaged)
    with pytest.raises(SystemExit):
        main(arguments)
    assert "3 sessions: 2 done, 1 failed, 1 of them by an earlier call" in capsys.readouterr().out


@pytest.mark.parametrize("listed", [True, False])
def test_a_folder_without_files_stops_nobody(files, tmp_path, monkeypatch, listed):
    """Also one that cannot be listed, such as a folder of a drive that is gone."""

    def fail(*_):
        raise OSError(5, "Input/output error")

    shutil.copy(files[0], tmp_path)
    (tmp_path / "empty").mkdir()
    if not listed:
        monkeypatch.setattr(Path, "rglob", fail)
    with pytest.warns(UserWarning, match="1 of 2 sessions failed, the first is empty: There is no"):
        sessions = fastglm.fit_sessions(f"{tmp_path}/*", tmp_path / "maps", **SETTINGS)
    assert list(sessions) == ["s00"]


def test_a_fault_of_a_function_of_the_user_says_whose_it_is(files, tmp_path, monkeypatch, capsys):
    def draw(*_):
        return {}["a"]

    with pytest.warns(UserWarning, match="1 of 1 sessions failed, the first is s00: also raised"):
        fastglm.fit_sessions(files[0], tmp_path / "maps", also=draw, **SETTINGS)
    monkeypatch.setattr(module, "load_spikes", draw)
    monkeypatch.setenv("FASTGLM_TRACEBACK", "1")
    with pytest.warns(UserWarning, match="This is a fault of fastglm"):
        fastglm.fit_sessions(files[0], tmp_path / "other", **SETTINGS)
    assert 'return {}["a"]' in capsys.readouterr().err


def test_warnings_are_kept_with_their_session(files, tmp_path, capsys):
    silent = tmp_path / "silent.npz"
    write_recording(silent, RNG.binomial(1, 0.2, (150, 3)) * np.array([1, 1, 0]))
    main(["fit", str(files[0]), str(silent), *OPTIONS, "--out", str(tmp_path / "maps")])
    out, err = capsys.readouterr()
    assert "silent   2 converged, 1 silent" in out
    assert err.count("warning: ") == 1
    assert "warning: silent: silent (receiver 2): no events" in err
    main(["collect", str(tmp_path / "maps")])
    assert "receivers          5 converged, 1 silent\n" in capsys.readouterr().out
    found = fastglm.collect_sessions(tmp_path / "maps").summary_columns()
    assert found["warnings"][0] == ""
    assert found["warnings"][1].startswith("silent (receiver 2): no events")
    with pytest.warns(UserWarning, match=r"1 of 2 sessions had warnings, the first is silent: sil"):
        fastglm.fit_sessions([files[0], silent], tmp_path / "other", **SETTINGS)


def test_a_map_without_tests_says_so(files, tmp_path, monkeypatch):
    monkeypatch.setattr(coupling, "affordable", lambda fit: False)
    with pytest.warns(UserWarning, match=r"1 of 1 sessions had warnings, .*: Standard errors and"):
        sessions = fastglm.fit_sessions(files[0], tmp_path / "maps", **SETTINGS)
    assert not sessions["s00"].tested
    assert sessions.summary_columns()["found"] == [None]


# --- names and shares ---


def test_names_are_unique(tmp_path):
    def named(*files):
        return {
            name: str(file) for name, file in name_sessions([Path(file) for file in files]).items()
        }

    assert named("/a/x/b.nwb", "/a/c.nwb") == {"b": "/a/x/b.nwb", "c": "/a/c.nwb"}
    assert list(named("/a/x/b.nwb", "/a/y/b.nwb", "/a/c.npz")) == ["c", "x/b", "y/b"]
    assert list(named("/a/b.nwb", "/a/b.npz")) == ["b.npz", "b.nwb"]
    assert list(named("/a/m1/kilosort4", "/a/m2/kilosort4")) == ["m1/kilosort4", "m2/kilosort4"]
    with pytest.raises(ValueError, match=r"b\.nwb stands twice; give each recording once"):
        find_files([tmp_path / "b.nwb", tmp_path / "x" / ".." / "b.nwb"])


def test_sessions_of_one_name_have_the_folders_of_their_files(files, tmp_path):
    for mouse in ("m1", "m2"):
        (tmp_path / mouse).mkdir()
        shutil.copy(files[0], tmp_path / mouse / "monday.npz")
    first = tmp_path / "m1" / "monday.npz"
    maps = tmp_path / "maps"
    sessions = fastglm.fit_sessions(tmp_path / "*" / "*.npz", maps, **SETTINGS)
    assert list(sessions) == ["m1/monday", "m2/monday"]
    assert (maps / "m2" / "monday.couplings.npz").is_file()
    sessions.write_table(tmp_path / "all.csv")
    assert (tmp_path / "all.csv").read_text().splitlines()[10].startswith("m2/monday,0,0,")
    with pytest.raises(
        ValueError, match=r"is the session m1/monday of .*, and would now be monday"
    ):
        fastglm.fit_sessions(first, maps, **SETTINGS)
    names = [tmp_path / name for name in ("a.npz", "a.couplings.npz")]
    with pytest.raises(ValueError, match=r"Two sessions would write a\.couplings\.npz"):
        fastglm.fit_sessions(names, maps, **SETTINGS)


def test_patterns(files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(files[0].parents[1])
    assert find_files("recordings/*.npz") == [Path("recordings", path.name) for path in files]
    assert find_files(["**/s0[12].npz", "other.npz"]) == [
        Path("recordings/s01.npz"), Path("recordings/s02.npz"), Path("other.npz"),
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"No file matches \*\.nwb\."):
        find_files("*.nwb")
    with pytest.raises(ValueError, match="files is empty"):
        find_files([])
    main(["fit", "recordings/s0[01].npz", *OPTIONS, "--out", str(tmp_path / "maps")])
    assert "2 sessions: 2 done\n" in capsys.readouterr().out
    check_refused(capsys, ["fit", "*.nwb"], r"No file matches \*\.nwb")


@pytest.mark.parametrize("bad", ["0/4", "5/4", "1", "a/b", "1/2/3", "1/0", (1.5, 2), 3])
def test_shares_that_are_none(bad, files, tmp_path):
    assert read_share("2/4") == read_share((2, 4)) == (2, 4)
    with pytest.raises(ValueError, match=r"task is .*; expected i/n with i from 1 to n"):
        fastglm.fit_sessions(files, tmp_path / "maps", task=bad)
    assert not (tmp_path / "maps").exists()


def test_a_share_may_be_empty(files, tmp_path, capsys):
    arguments = [str(files[0]), *OPTIONS, "--out", str(tmp_path / "maps"), "--task", "2/2"]
    main(["fit", *arguments])
    assert "0 sessions: none of task 2/2\n" in capsys.readouterr().out
    check_refused(capsys, ["collect", str(tmp_path)], "has no sessions")


# --- what cannot be ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "fit"}, "method"),
        ({"windw": 1}, "windw is no setting of infer_connectivity for many recordings; expected"),
        ({"checkpoint": "a"}, "checkpoint is no setting"),
        ({"executor": 4}, "executor is of type int; expected an object with submit"),
        ({"out": 3}, "The path is 3"),
        ({"covariates": (x for x in "a")}, "type generator among the settings cannot be pickled"),
    ],
)
def test_calls_that_cannot_be(files, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        fastglm.fit_sessions(**{"files": files, "out": tmp_path / "maps", **change})
    assert not (tmp_path / "maps").exists()


def test_folders_that_cannot_be(files, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file; expected a folder for the results"):
        fastglm.fit_sessions(files, tmp_path / "file")
    with pytest.raises(ValueError, match="cannot be made"):
        fastglm.fit_sessions(files, tmp_path / "file" / "maps")


def test_recordings_are_not_replaced(files, tmp_path, capsys):
    folder = files[0].parent
    before = contents(folder)
    with pytest.raises(ValueError, match=r"s00\.npz is a recording, and would be replaced"):
        fastglm.fit_sessions(files, folder, **SETTINGS)
    two = ["fit", *map(str, files[:2]), *OPTIONS]
    check_refused(capsys, [*two, "--out", str(folder)], r"--out is .*recordings that end in \.npz")
    (tmp_path / "a.csv").touch()
    tables = ["--out", str(tmp_path / "maps"), "--table", str(tmp_path)]
    for file in (tmp_path / "a.csv", tmp_path / "maps" / ".." / "a.csv"):
        check_refused(capsys, [*two, str(file), *tables], r"recordings that end in \.csv")
    assert contents(folder) == before


def test_the_folder_of_the_results_is_no_recording(files, tmp_path, monkeypatch):
    for name in ("data", "here"):
        (tmp_path / name).mkdir()
    shutil.copy(files[0], tmp_path / "data")
    monkeypatch.chdir(tmp_path / "here")
    for folder in (tmp_path / "data", tmp_path / "data", "../data"):
        sessions = fastglm.fit_sessions(f"{folder}/*", f"{folder}/maps", **SETTINGS)
        assert sessions.count() == "1 session: 1 done"


def test_several_files_need_a_folder(files, tmp_path, capsys):
    two = ["fit", *map(str, files[:2]), *OPTIONS]
    check_refused(
        capsys, two, "--out is missing: with several files it is the folder of the results"
    )
    for option in ("--out", "--table"):
        out = [] if option == "--out" else ["--out", str(tmp_path / "maps")]
        check_refused(capsys, [*two, *out, option, "a.csv"], f"{option} is a.csv; with several fil")
    check_refused(capsys, [*two, "--out", str(tmp_path / "x"), "--task", "9"], "expected i/n")


def test_settings_are_known_by_their_values():
    basis = fastglm.basis.RaisedCosineLogConv
    same = [
        (1, np.int64(1)),
        ([1, "a"], (1, "a")),
        (np.arange(3), np.arange(3)),
        (basis(3, window_size=9), basis(3, window_size=9)),
        ({"a": np.eye(2)}, {"a": np.eye(2)}),
    ]
    for one, other in same:
        assert identify(one) == identify(other)
    used = basis(3, window_size=9)
    used.compute_features(np.ones((20, 1)))
    assert identify(used) == identify(basis(3, window_size=9))
    large = np.zeros(10_000)
    changed = large.copy()
    changed[5000] = 1  # where a text of the array leaves it out
    differ = [
        (1, 1.5),
        ("1", 1),
        (large, changed),
        (basis(3, window_size=9), basis(3, window_size=8)),
        (np.sin, np.cos),
        ([1, 2], [12]),
        ({"a": 1}, {"b": 1}),
    ]
    for one, other in differ:
        assert identify(one) != identify(other)


def test_a_file_among_the_settings_is_known_by_its_size_and_time(tmp_path):
    path = tmp_path / "track.csv"
    texts = [identify(path)]
    for content in ("a", "ab"):
        path.write_text(content)
        texts.append(identify(path))
    assert len(set(texts)) == 3


# --- collected ---


def test_collected_in_frames_and_parquet(files, tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    times = np.sort(RNG.uniform(0, 1.5, (2, 30)))
    rows = "".join(f"{name},{t:.4f}\n" for name, one in zip("ab", times, strict=True) for t in one)
    (tmp_path / "texts.csv").write_text(f"unit,time\n{rows}")
    sessions = fastglm.fit_sessions(
        [*files[:2], tmp_path / "texts.csv"], tmp_path / "maps", **SETTINGS
    )
    frame = sessions.to_frame()
    assert frame["session"].tolist() == ["s00"] * 9 + ["s01"] * 9 + ["texts"] * 4
    assert frame["sender"].tolist()[-5:] == ["2", "a", "a", "b", "b"]
    np.testing.assert_array_equal(frame["strength"][9:18], sessions["s01"].strength.ravel())
    main(["collect", str(tmp_path / "maps"), "--table", str(tmp_path / "all.parquet")])
    pandas.testing.assert_frame_equal(pandas.read_parquet(tmp_path / "all.parquet"), frame)
    sessions.write_table(tmp_path / "all.csv")
    read = pandas.read_csv(tmp_path / "all.csv", dtype={"sender": str, "receiver": str})
    np.testing.assert_array_equal(read["q_value"], frame["q_value"])
    assert read["sender"].tolist() == frame["sender"].tolist()
    summary = sessions.summary(q=1.0)
    assert summary["found"].tolist() == [6, 6, 2]
    assert summary["state"].tolist() == ["done"] * 3


def test_what_is_missing_is_said(files, tmp_path, capsys):
    maps = tmp_path / "maps"
    arguments = ["fit", *map(str, files), *OPTIONS, "--out", str(maps), "--task"]
    main([*arguments, "1/4"])
    main(["collect", str(maps), "--sessions", str(tmp_path / "s.csv")])
    out, err = capsys.readouterr()
    assert "sessions           1 done, 3 missing\n" in out
    assert err.endswith("missing: s01, s02, s03; the same call of fastglm does them\n")
    assert [row.split(",")[2] for row in (tmp_path / "s.csv").read_text().splitlines()[1:]] == [
        "done", "missing", "missing", "missing",
    ]  # fmt: skip
    sessions = fastglm.collect_sessions(maps)
    with pytest.raises(KeyError, match="s01 is missing"):
        sessions["s01"]
    assert len(sessions) == 1
    for path in maps.glob("s00*"):
        path.unlink()
    with pytest.raises(SystemExit) as stop:
        main(["collect", str(maps)])
    assert stop.value.code == 2
    assert "has no finished session" in capsys.readouterr().err
    with pytest.raises(ValueError, match="has no finished session: 4 sessions: 4 missing"):
        fastglm.collect_sessions(maps).write_table(tmp_path / "all.csv")
    assert not (tmp_path / "all.csv").exists()


def test_folders_without_sessions(files, tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match="has no sessions; expected the folder that"):
            fastglm.collect_sessions(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: {**data, "format": "other"}, "it is no session of fastglm"),
        (lambda data: {**data, "version": 9}, "has format version 9; this fastglm reads up to 1"),
        (lambda data: {"format": data["format"], "version": 1}, "could not be read as a session"),
        (lambda data: [1], "could not be read as a session: it is damaged"),
    ],
)
def test_damaged_sessions_are_refused(files, tmp_path, change, message):
    fastglm.fit_sessions(files[:1], tmp_path / "maps", **SETTINGS)
    path = tmp_path / "maps" / "s00.session.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match=message):
        fastglm.collect_sessions(tmp_path / "maps")


# --- the command ---


def test_the_command_writes_pages_of_each_session(files, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    folders = {name: tmp_path / name for name in ("maps", "tables", "pictures")}
    arguments = [str(files[0]), "--bin-size", "0.01", "--window", "0.03", "--null", "model"]
    arguments += ["--out", str(folders["maps"]), "--table", str(folders["tables"]), "--task", "1/1"]
    main(["infer", *arguments])
    assert "table: " not in capsys.readouterr().out
    before = (folders["maps"] / "s00.npz").stat().st_mtime_ns
    assert names_in(folders["tables"]) == ["s00.csv"]
    main(["infer", *arguments])
    assert (folders["maps"] / "s00.npz").stat().st_mtime_ns == before
    main(["infer", *arguments, "--plot", str(folders["pictures"])])
    assert names_in(folders["pictures"]) == ["s00.png"]
    assert (folders["maps"] / "s00.npz").stat().st_mtime_ns > before
    rows = (folders["tables"] / "s00.csv").read_text().splitlines()
    main(["collect", str(folders["maps"])])
    table = (folders["maps"] / "couplings.csv").read_text().splitlines()
    assert [f"s00,{row}" for row in rows[1:]] == table[1:10]
    expected = fastglm.infer_connectivity(
        fastglm.load_spikes(files[0]), 0.01, window=0.03, null="model"
    )
    found = fastglm.load_couplings(folders["maps"] / "s00.npz")
    np.testing.assert_array_equal(found.q_value, expected.q_value)


def test_the_command_reads_covariates_of_each_file(files, tmp_path):
    t = np.arange(0, 1.5, 0.1)
    paths = []
    for name in ("a", "b"):
        more = {"speed": RNG.normal(size=t.size), "speed_time": t}
        counts = RNG.binomial(1, 0.2, (150, 3))
        paths.append(write_recording(tmp_path / f"{name}.npz", counts, **more))
    main(["fit", *paths, *OPTIONS, "--covariate", "speed:linear", "--out", str(tmp_path / "maps")])
    model = fastglm.load_model(tmp_path / "maps" / "b.npz")
    assert model.coef_.shape == (7, 3)
    assert model.metadata_["recording"] == "b.npz"
