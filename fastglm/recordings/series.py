"""Series and events that a file holds beside its spikes: position, speed, trials.

| file | series | events |
|---|---|---|
| ``.npz`` | an array ``NAME`` with its times in ``NAME_time``; those of ``PREFIX_x`` and \
``PREFIX_y`` may stand in ``PREFIX_time`` | an array ``NAME_times`` without ``NAME`` |
| NWB | a ``TimeSeries`` (``SpatialSeries``, ...), by its name or the end of its path | a table of \
intervals: ``trials`` are the starts, ``trials.COLUMN`` another column of times |
| ``.csv``, ``.tsv``, ``.parquet`` | a column; another one has the times | |

`load_series` gives them as `fastglm.infer_connectivity` takes covariates: a series is a pair of
times and values, events are a list of times.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastglm._checks import shown
from fastglm._files import read_npz
from fastglm.recordings import nwb_hdf5, nwb_zarr, tables
from fastglm.recordings.nwb import Series, Store
from fastglm.recordings.table import INVALID

_TIMES = "_time", "_times", "_timestamps"
_RECORDING = ("spike_times", "unit", "n_units", "t_start", "t_stop", "segments", "adjacency")
_MOST_COLUMNS = 8  # of a series that is listed: others are raw data


def load_series(path: str | Path, name: str) -> tuple[np.ndarray, np.ndarray] | list[np.ndarray]:
    """A series or events of a file; see the head of this module.

    Parameters
    ----------
    path : str or Path
    name : str
        As in the file.

    Returns
    -------
    (times, values), or [times] of events
        Times in seconds, values in the units of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file holds no such series, several, or one without times. The sentence lists what
        there is.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np
    >>> from fastglm.recordings import load_series
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "recording.npz")
    ...     np.savez(path, speed=[1.0, 2.0], speed_time=[0.0, 0.1])
    ...     times, values = load_series(path, "speed")
    >>> values
    array([1., 2.])
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    kind = _kind(path)
    if kind == "npz":
        return _of_npz(read_npz(path, "a recording"), name, path)
    if kind == "table":
        return _of_table(path, name)
    if kind == "nwb":
        with _store(path) as store:
            return _of_store(store, name)
    raise ValueError(
        f"{path} has no {name!r}: series are read from NWB, .npz and tables. Put them into such a "
        "file."
    )


def series_names(path: str | Path) -> list[str]:
    """What `load_series` finds in a file by name; empty for formats that have no series."""
    path = Path(path)
    kind = _kind(path)
    if kind == "npz":
        return _names_of_npz(read_npz(path, "a recording"))
    if kind == "nwb":
        with _store(path) as store:
            return _names_of_store(store)
    return []


def _kind(path):
    if path.is_dir():
        return "nwb" if nwb_zarr.is_store(path) else ""
    with open(path, "rb") as file:
        mark = file.read(4)
    if path.suffix.lower() in tables.ENDINGS:
        return "table"
    return {b"\x89HDF": "nwb", b"PK\x03\x04": "npz"}.get(mark, "")


def _store(path):
    return nwb_zarr.opened(path) if path.is_dir() else nwb_hdf5.opened(path)


# --- .npz ---


def _names_of_npz(data):
    found = [name for name in data if _times_of(data, name) is not None]
    events = [name.removesuffix("_times") for name in data if name.endswith("_times")]
    return found + [
        name for name in events if name not in data and f"{name}_times" != "spike_times"
    ]


def _times_of(data, name):
    """Name of the array with the times of a series; None if it is no series."""
    if name in _RECORDING or name.endswith(_TIMES) or data[name].ndim not in (1, 2):
        return None
    prefixes = [name, name.rpartition("_")[0]]
    places = [prefix + ending for prefix in prefixes for ending in _TIMES if prefix]
    found = [p for p in places if p in data and len(data[p]) == len(data[name])]
    return found[0] if found else None


def _of_npz(data, name, path):
    times = f"{name}_times"
    if name in data and _times_of(data, name) is not None:
        return data[_times_of(data, name)], data[name]
    if name not in data and times in data and times != "spike_times":
        return [data[times]]
    why = f"{name!r} without times ({name}_time)" if name in data else f"no {name!r}"
    raise ValueError(f"{path} has {why}; {_known(_names_of_npz(data))}.")


def _known(names):
    return f"it has the series {', '.join(names)}" if names else "it has no series"


# --- tables ---


def _of_table(path, name):
    frame = tables.read_frame(path)
    lower = {str(column).strip().lower(): column for column in frame.columns}
    times = [lower[known] for known in tables.TIMES if known in lower]
    if not times or name not in frame.columns or name == times[0]:
        raise ValueError(
            f"{path} has the columns {', '.join(map(str, frame.columns))}; expected {shown(name)} "
            f"and a column of times, called {', '.join(tables.TIMES)}."
        )
    values = frame[name].to_numpy()
    if values.dtype.kind not in "fiub":
        raise ValueError(f"{path}: {name} does not hold numbers.")
    return tables.times_of(frame[times[0]], path), values


# --- NWB ---


def _of_store(store: Store, name):
    table, _, column = name.partition(".")
    if table in store.interval_names():
        return [_events_of(store, table, column or "start_time")]
    series = store.series()
    found = {place: one for place, one in series.items() if _is_called(place, name)}
    exact = {place: one for place, one in found.items() if place.rpartition("/")[2] == name}
    found = exact or found
    if len(found) != 1:
        names = _known(_names_of_store(store))
        several = f"several series {name!r}: {', '.join(found)}; give the end of a path"
        raise ValueError(
            f"{store.path} has {several}." if found else f"{store.path} has no {name!r}; {names}."
        )
    ((place, one),) = found.items()
    times, values = one.times(), one.values()
    if times.ndim != 1 or len(values) != times.size:
        raise ValueError(
            f"{store.path}: {place} has {times.shape} times and values of shape {values.shape}."
        )
    return times, values


def _is_called(place, name):
    """Whether a name is the end of a path, or the name of a container in it."""
    return f"/{place}".endswith(f"/{name}") or f"/{name}/" in f"/{place}"


def _events_of(store, table, column):
    found = store.table(f"intervals/{table}").get(column)
    values = None if found is None else found.plain()
    if values is None or np.asarray(values).dtype.kind not in "fiu":
        raise ValueError(f"{store.path}: {table} has no column of times {column!r}.")
    values = np.asarray(values, np.float64)
    return np.sort(values[np.isfinite(values)])


def _names_of_store(store):
    series = store.series()
    small = [place for place, one in series.items() if _is_small(one)]
    ends = [place.rpartition("/")[2] for place in small]
    short = [e if ends.count(e) == 1 else p for e, p in zip(ends, small, strict=True)]
    return [*short, *(name for name in store.interval_names() if name != INVALID)]


def _is_small(one: Series):
    shape = one.shape or ()
    return len(shape) == 1 or (len(shape) == 2 and shape[1] <= _MOST_COLUMNS)


__all__ = ["load_series", "series_names"]
