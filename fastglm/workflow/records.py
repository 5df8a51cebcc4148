"""A folder of sessions: what was asked for, what is finished, and all of it as two tables.

For each session the folder has ``<session>.npz`` and ``<session>.session.json``, which is written
last: a session is finished if it says so. ``sessions.json`` lists the sessions that were asked for,
so that a missing one is noticed. Nothing else is read, and every file appears whole or not at all.
"""

from __future__ import annotations

import glob
import json
import operator
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import joblib
import numpy as np

from fastglm import _html
from fastglm._checks import import_extra
from fastglm._files import as_path, check_version, reading, replacing
from fastglm.connectivity import load_couplings
from fastglm.connectivity.files import frame_of, write_columns

if TYPE_CHECKING:
    from fastglm.connectivity import CouplingMap

_FORMAT, _VERSION = "fastglm-session", 1
_ENDING, _LIST = ".session.json", "sessions.json"
STATES = ("done", "failed", "missing")


@dataclass
class Session:
    """One recording of many, and what became of it.

    Attributes
    ----------
    name : str
    file : str
        The recording, with its whole path.
    state : {"done", "failed", "missing"}
    error : str
        Why it failed, in a sentence.
    units, spikes, bins : int or None
        Of the fit.
    statuses : dict
        Number of receivers of each status.
    score : float or None
        Pseudo-R2 of the fitted bins: McFadden's, of Gaussian and Gamma observations Cohen's.
    seconds : float or None
        That the fit took.
    warnings : list of str
        Empty if a thread that is not the first of its process did the session.
    outputs : dict
        Names of the files in the folder: "couplings", and of `fit_coupling` also "model".
    settings : dict
        Settings of the fit as texts that identify them.
    stamp : list of int
        Size and time of the recording when it was read.
    also : str
        What else was done with the map, as a text that identifies it.
    """

    name: str
    file: str
    state: str = "missing"
    error: str = ""
    units: int | None = None
    spikes: int | None = None
    bins: int | None = None
    statuses: dict = field(default_factory=dict)
    score: float | None = None
    seconds: float | None = None
    warnings: list = field(default_factory=list)
    outputs: dict = field(default_factory=dict)
    settings: dict = field(default_factory=dict)
    stamp: list = field(default_factory=list)
    also: str = ""

    def write(self, folder: Path) -> None:
        """Write the session to its folder."""
        path = folder / f"{self.name}{_ENDING}"
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, {"format": _FORMAT, "version": _VERSION, **asdict(self)})

    @property
    def status(self) -> str:
        """The statuses in words: "8 converged, 1 silent"."""
        return tally(self.statuses)

    def is_whole(self, folder: Path) -> bool:
        """Whether it is done, and its files are there."""
        return self.state == "done" and all(
            (folder / name).is_file() for name in self.outputs.values()
        )


def tally(statuses: dict[str, int]) -> str:
    """Numbers of each status in words."""
    return _html.tally(np.repeat(list(statuses), list(statuses.values())))


def _write(path, data):
    with replacing(path) as file:
        file.write(json.dumps(data, indent=1, ensure_ascii=False).encode())


def read_session(folder: Path, name: str) -> Session | None:
    """The session of a folder; None if there is none.

    Raises
    ------
    ValueError
        If its file is damaged, or of a newer version.
    """
    path = folder / f"{name}{_ENDING}"
    if not path.is_file():
        return None
    with reading(path, "a session"):
        data = json.loads(path.read_bytes())
        if data.pop("format") != _FORMAT:
            raise ValueError("it is no session of fastglm")
        check_version(path, data.pop("version"), _VERSION)
        return Session(**{one.name: data[one.name] for one in fields(Session)})


# --- names ---


def find_files(files: object) -> list[Path]:
    """Paths of recordings from paths and patterns such as ``recordings/*.nwb``.

    Raises
    ------
    ValueError
        If a pattern matches nothing, there is no file at all, or a file stands twice.
    """
    if isinstance(files, str | os.PathLike):
        files = [files]
    found = []
    for one in map(as_path, files):
        text = str(one)
        if one.exists() or not glob.has_magic(text):
            found.append(one)
            continue
        matches = sorted(glob.glob(text, recursive=True))
        if not matches:
            raise ValueError(f"No file matches {text}.")
        found += map(Path, matches)
    if not found:
        raise ValueError("files is empty; expected paths of recordings, or a pattern of them.")
    counts = Counter(os.path.abspath(path) for path in found)
    twice = [path for path, number in counts.items() if number > 1]
    if twice:
        raise ValueError(f"{twice[0]} stands twice; give each recording once.")
    return found


def name_sessions(files: list[Path]) -> dict[str, Path]:
    """Recordings by the names of their sessions, in the order of the names.

    The name is that of the file without its ending. If two would have the same, all names are paths
    from the folder that holds all files, and if that is not enough, with their endings.

    Raises
    ------
    ValueError
        If files on different drives have the same name.
    """
    whole = [Path(os.path.abspath(path)) for path in files]
    names = [path.stem for path in whole]
    if len(set(names)) < len(names):
        try:
            root = os.path.commonpath([path.parent for path in whole])
        except ValueError:
            raise ValueError(
                "Recordings on different drives have the same name; fit them in two calls."
            ) from None
        ends = [path.relative_to(root) for path in whole]
        names = [path.with_suffix("").as_posix() for path in ends]
        if len(set(names)) < len(names):
            names = [path.as_posix() for path in ends]
    return dict(sorted(zip(names, whole, strict=True)))


# --- what makes a session another one ---


def stamp(path: Path) -> list[int]:
    """Size of a file, or of all in a folder, and time of the last change; empty if unreadable."""
    try:
        parts = path.rglob("*") if path.is_dir() else [path]
        states = [part.stat() for part in parts]
    except OSError:
        return []
    changed = max((one.st_mtime_ns for one in states), default=0)  # a folder may be empty
    return [sum(one.st_size for one in states), changed]


def identify(value: object) -> str:
    """A text that is the same for equal settings, in every process."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, Path):
        return f"{value} {stamp(value)}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {identify(value[key])}" for key in value) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(identify, value)) + "]"
    if callable(value) and hasattr(value, "__qualname__"):  # functions and classes
        return f"{value.__module__}.{value.__qualname__}"
    kind = type(value).__qualname__
    if hasattr(value, "get_params"):
        return f"{kind} {identify(value.get_params(deep=False))}"
    if is_dataclass(value):
        return f"{kind} {identify({one.name: getattr(value, one.name) for one in fields(value)})}"
    try:
        return f"{kind} {joblib.hash(value)}"
    except Exception:  # any: of what cannot be pickled
        raise ValueError(
            f"An object of type {kind} among the settings cannot be pickled, and so a second call "
            "could not tell whether it is the same; pass a function or an object of a module."
        ) from None


# --- folders ---


class Sessions(Mapping):
    """The sessions of a folder: a mapping from the names of the finished ones to their maps.

    ``for name, couplings in sessions.items()`` reads one map after the other.

    Attributes
    ----------
    folder : Path
    all : dict of str to Session
        Every session that was asked for, finished or not, in the order of the names.
    """

    def __init__(self, folder: Path, sessions: Iterable[Session]):
        self.folder = folder
        self.all = {one.name: one for one in sorted(sessions, key=lambda one: one.name)}

    def __getitem__(self, name: str) -> CouplingMap:
        one = self.all[name]
        if one.state != "done":
            raise KeyError(f"{name} is {one.state}{': ' * bool(one.error)}{one.error}")
        return load_couplings(self.folder / one.outputs["couplings"])

    def __iter__(self) -> Iterator[str]:
        return (name for name, one in self.all.items() if one.state == "done")

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"{self.count()} in {self.folder}"

    def count(self) -> str:
        """The number of sessions in each state: "40 sessions: 39 done, 1 failed"."""
        states = [one.state for one in self.all.values()]
        found = [f"{states.count(state):,} {state}" for state in STATES if state in states]
        return f"{len(states):,} session{'s' * (len(states) != 1)}: {', '.join(found) or 'none'}"

    @property
    def failed(self) -> dict[str, str]:
        """Why each session that failed did so, in a sentence."""
        return {name: one.error for name, one in self.all.items() if one.state == "failed"}

    @property
    def missing(self) -> list[str]:
        """Sessions that were asked for, and are neither done nor failed."""
        return [name for name, one in self.all.items() if one.state == "missing"]

    def statuses(self) -> dict[str, int]:
        """Number of receivers of each status in all sessions."""
        return dict(sum((Counter(one.statuses) for one in self.all.values()), Counter()))

    def to_frame(self) -> object:
        """One row for each coupling of each session, a pandas DataFrame.

        The columns are those of `CouplingMap.to_frame` after the name of the session. q-values are
        those of the session: they are over its couplings, not over those of all sessions.

        Raises
        ------
        ImportError
            If pandas is not installed.
        ValueError
            If no session is finished, or a map is damaged.
        """
        return frame_of(self._tables())

    def write_table(self, path: str | Path) -> None:
        """Write `to_frame` to ``.csv``, which needs no pandas, or to ``.parquet``."""
        write_columns(self._tables(), as_path(path))

    def _tables(self):
        """The columns of each finished session."""
        if not len(self):
            raise ValueError(f"{self.folder} has no finished session: {self.count()}.")
        for name, couplings in self.items():
            yield {"session": np.full(couplings.strength.size, name), **couplings.columns()}

    def summary(self, q: float = 0.05) -> object:
        """One row for each session, a pandas DataFrame.

        Parameters
        ----------
        q : float
            Largest q-value of the couplings that are counted as "found".

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        return import_extra("pandas").DataFrame(self.summary_columns(q))

    def write_summary(self, path: str | Path, q: float = 0.05) -> None:
        """Write `summary` to ``.csv``, which needs no pandas, or to ``.parquet``."""
        write_columns([self.summary_columns(q)], as_path(path))

    def summary_columns(self, q: float = 0.05) -> dict[str, list]:
        """The columns of `summary` by name."""
        every = self.all.values()
        found = {name: _found(couplings, q) for name, couplings in self.items()}
        names = ("file", "state", "units", "spikes", "bins", "status", "score")
        return {
            "session": list(self.all),
            **{name: [getattr(one, name) for one in every] for name in names},
            "found": [found.get(name) for name in self.all],
            "warnings": [" ".join(one.warnings) for one in every],
            "error": [one.error for one in every],
        }


def _found(couplings, q):
    """The number of couplings with at most that q-value; None without tests."""
    return int(couplings.significant(q).sum()) if couplings.tested else None


def collect_sessions(folder: str | Path) -> Sessions:
    """The sessions of a folder that `fit_sessions` or the command line wrote.

    Parameters
    ----------
    folder : str or Path
        What was ``out``.

    Returns
    -------
    Sessions
        It knows what failed and what is missing, and gives all couplings as one table.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or it has no sessions.
    ValueError
        If a file of it is damaged, or of a newer version.

    See Also
    --------
    fit_sessions : Its example collects the sessions too.
    """
    folder = as_path(folder)
    listed = read_list(folder)
    if not listed:
        raise FileNotFoundError(
            f"{folder} has no sessions; expected the folder that fit_sessions or fastglm infer "
            "--out has written to."
        )
    return Sessions(folder, [_as_it_is(folder, name, file) for name, file in listed.items()])


def _as_it_is(folder, name, file):
    """The session of a folder; missing if it is not there, or its files are not."""
    one = read_session(folder, name)
    if one is None or (one.state == "done" and not one.is_whole(folder)):
        return Session(name, file)
    return one


def read_list(folder: Path) -> dict[str, str]:
    """The files of all sessions that were asked for, by their names; empty if there is no list."""
    path = folder / _LIST
    if not path.is_file():
        return {}
    with reading(path, "a list of sessions"):
        data = json.loads(path.read_bytes())
        check_version(path, data["version"], _VERSION)
        return {str(name): str(file) for name, file in data["sessions"].items()}


def write_list(folder: Path, sessions: dict[str, Path]) -> None:
    """Add sessions to the list of a folder, which is made where it is missing.

    Raises
    ------
    ValueError
        If a file is in the list under another name.
    """
    listed = read_list(folder)
    names = {file: name for name, file in listed.items()}
    for name, file in sessions.items():
        if names.get(str(file), name) != name:
            raise ValueError(
                f"{file} is the session {names[str(file)]} of {folder}, and would now be {name}, "
                "since names are paths where two recordings have the same name; give another "
                "folder."
            )
    every = listed | {name: str(file) for name, file in sessions.items()}
    if every != listed:
        data = {
            "format": f"{_FORMAT}s",
            "version": _VERSION,
            "sessions": dict(sorted(every.items())),
        }
        _write(folder / _LIST, data)


def read_share(share: object) -> tuple[int, int]:
    """The numbers i and n of ``"i/n"`` or ``(i, n)``.

    Raises
    ------
    ValueError
        If they are no whole numbers, or i is not from 1 to n.
    """
    parts = share.split("/") if isinstance(share, str) else share
    try:
        i, n = (int(part) if isinstance(part, str) else operator.index(part) for part in parts)
        good = 1 <= i <= n
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(
            f"task is {share!r}; expected i/n with i from 1 to n, such as 1/4 for the first of 4."
        )
    return i, n
