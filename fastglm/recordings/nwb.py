"""Units of NWB: spike times, ids, and when they were observed.

What the tables mean is here. Where they are kept is behind `Store`: in an HDF5 file (`nwb_hdf5`),
or in an object of PyNWB (`nwb_objects`).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from fastglm.recordings.conditions import select
from fastglm.recordings.intervals import ends_after_start, in_order, merge
from fastglm.recordings.table import (
    INVALID,
    Units,
    can_be_spikes,
    check_some_time,
    in_order_of_time,
    inside,
    observed_together,
)

SMALL = 1 << 20  # bytes that may be declared without being stored
_RATIO = 1100  # gzip shrinks at most 1,032-fold; a data set that claims more is only declared


class Column(Protocol):
    """A column of a table. Every access raises ValueError with the name of the store."""

    shape: tuple
    kind: str  # of its dtype; "fiub" are numbers and truth values

    def check(self, n_values: int) -> None:
        """Raise ValueError if so many values are more than the store holds."""

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        """Some of the values; an array of indices ascends."""

    def values(self) -> np.ndarray:
        """All values, checked."""

    def plain(self) -> np.ndarray | None:
        """Numbers, truth values or texts (as objects); None if it holds none of them."""

    def labels(self) -> np.ndarray | list | None:
        """As `plain`; of links the names of what they link to."""


class Table(Protocol):
    """A table of NWB."""

    def get(self, name: str) -> Column | None:
        """The column of a name; None if there is none."""

    def columns(self) -> dict[str, Column]:
        """All columns, indices of ragged ones included."""


class Series(Protocol):
    """Samples of a TimeSeries. Every access raises ValueError with the name of the store."""

    shape: tuple

    def times(self) -> np.ndarray:
        """Seconds of every sample."""

    def values(self) -> np.ndarray:
        """Every sample, in the unit of the series."""


class Store(Protocol):
    """Where the tables are."""

    path: str  # for errors

    def table(self, name: str) -> Table | None:
        """A table by its place, such as "units" or "intervals/trials"; None if there is none."""

    def interval_names(self) -> list[str]:
        """Names of the tables of intervals."""

    def series(self) -> dict[str, Series]:
        """All series by their paths."""


def read_units(store: Store, where: str | None = None, epochs: str | None = None) -> Units:
    """Spike times, ids, observed intervals and range of the units of a store.

    Parameters
    ----------
    store : Store
    where : str, optional
        Condition on columns of the units table.
    epochs : None, "obs" or the name of a table of intervals, such as "trials"
        None takes the observed intervals, if there are some.
    """
    path = store.path
    table, ids = _units_table(store)
    chosen = np.arange(ids.size)
    if where is not None:
        columns = {name: column.plain() for name, column in _single(table, ids.size).items()}
        columns = {name: values for name, values in columns.items() if values is not None}
        chosen = np.flatnonzero(select(where, columns, path))
    if chosen.size == 0:
        raise ValueError(f"{path} has no units.")
    first, stop = _ranges(table, "spike_times", ids.size, path)
    times = table.get("spike_times")
    times.check(int((stop - first)[chosen].sum()))
    spikes = [times[first[k] : stop[k]] for k in chosen]
    spikes = in_order_of_time(spikes, ids[chosen].tolist(), path)
    segments = _segments(store, table, chosen, ids, epochs)
    invalid = _table_of_intervals(store, INVALID)
    others = np.setdiff1d(np.flatnonzero(stop > first), chosen)
    ends = _ends(times, first[others], stop[others])
    spike_times = np.concatenate(spikes)
    known = [t for t in (ends, spike_times, segments) if t is not None and t.size]
    if not known:
        raise ValueError(f"{path} has no spikes.")
    return Units(
        path,
        spike_times,
        np.repeat(np.arange(chosen.size), [s.size for s in spikes]),
        ids[chosen].tolist(),
        segments,
        np.zeros((0, 2)) if invalid is None else merge(invalid),
        min(float(t.min()) for t in known),
        max(float(t.max()) for t in known),
        int((stop - first).sum()),
        int((stop > first).sum()),
        _columns_of(table, chosen, ids.size, path),
    )


def regular_times(start: float, rate: float, n_samples: int) -> np.ndarray:
    """Seconds of samples that follow each other at a rate.

    Raises
    ------
    ValueError
        If the rate is not above 0.
    """
    if not rate > 0:
        raise ValueError(f"A series has {rate} samples a second; expected a rate above 0.")
    return float(start) + np.arange(n_samples) / float(rate)


def check_stored(path: str, name: str, declared: int, stored: int) -> None:
    """Raise ValueError if a data set declares far more bytes than it holds."""
    if declared > SMALL + _RATIO * stored:
        raise ValueError(
            f"{path} could not be read as NWB: {name} declares {declared:.3g} bytes and holds "
            f"{stored}."
        )


def _numbers(table, name, path, kinds="fiu"):
    """A column of numbers; None if the table has none of that name."""
    column = table.get(name)
    if column is not None and (not column.kind or column.kind not in kinds):
        raise ValueError(f"{path}: {name} does not hold numbers.")
    return column


def _units_table(store):
    """The table of units and the ids of its rows."""
    path, table = store.path, store.table("units")
    if table is None or table.get("spike_times") is None or table.get("id") is None:
        raise ValueError(f"{path} has no table of units with spike times.")
    times = _numbers(table, "spike_times", path)
    if len(times.shape) != 1:
        raise ValueError(f"{path}: spike_times has shape {times.shape}; expected (n_spikes,).")
    ids = _numbers(table, "id", path, kinds="fiuOS").values()
    if ids.ndim != 1:
        raise ValueError(f"{path}: id has shape {ids.shape}; expected one id for each unit.")
    return table, ids


def _ranges(table, name, n_units, path):
    """First entry and one past the last of every row of a ragged column."""
    size = table.get(name).shape[0]
    index = _numbers(table, f"{name}_index", path, kinds="iu")
    if index is None:
        if n_units != 1:
            raise ValueError(
                f"{path} has no column {name}_index, which says where the {name} of each of its "
                f"{n_units} units end. Write the file with that column, or pass the spike times of "
                "each unit as arrays."
            )
        return np.array([0]), np.array([size])
    stop = index.values().astype(np.int64)
    first = np.concatenate([[0], stop.ravel()])[:-1]
    if stop.shape != (n_units,) or (stop < first).any() or (stop > size).any():
        raise ValueError(
            f"{path}: {name}_index has {stop.size} entries, of which some do not fit {n_units} "
            f"units and {size} {name}; expected numbers that ascend to {size}."
        )
    return first, stop


# --- spikes ---


def _ends(times, first, stop):
    """Times of the first and last spike of units that are not read, where they can be spikes."""
    if first.size == 0:
        return np.zeros(0)
    ends = np.column_stack([times[first], times[stop - 1]])
    ends = ends[np.isfinite(ends).all(axis=1) & (ends[:, 0] <= ends[:, 1])].ravel()
    return ends[can_be_spikes(ends)]


# --- intervals ---


def _segments(store, table, chosen, ids, epochs):
    """The observed times of the chosen units inside the epochs; None if neither is there."""
    path = store.path
    segments = _observed(table, chosen, ids, path)
    if epochs == "obs" and segments is None:
        raise ValueError(f"{path} has no obs_intervals; use epochs='trials', or none.")
    if epochs not in (None, "obs"):
        given = _table_of_intervals(store, epochs)
        if given is None:
            names = sorted(store.interval_names())
            raise ValueError(
                f"{path} has no intervals {epochs!r}; expected 'obs' or one of {names}."
            )
        segments = inside(given, segments, epochs, path)
    check_some_time(segments, chosen.size, path)
    return segments


def _observed(table, chosen, ids, path):
    """Intervals in which all chosen units were observed; None if nothing says so."""
    data = _numbers(table, "obs_intervals", path)
    if data is None:
        return None
    first, stop = _ranges(table, "obs_intervals", ids.size, path)
    values = data.values()
    if values.ndim != 2 or values.shape[1] != 2:
        raise ValueError(f"{path}: obs_intervals have shape {values.shape}; expected (n, 2).")
    values = values.astype(np.float64)
    rows = np.concatenate([np.arange(first[k], stop[k]) for k in chosen])
    keep = np.zeros(len(values), bool)
    keep[rows] = ends_after_start(values[rows], f"{path}: obs_intervals", rows)
    own = [values[first[k] : stop[k]][keep[first[k] : stop[k]]] for k in chosen]
    return observed_together(own, ids[chosen].tolist(), path)


def _table_of_intervals(store, name):
    """Start and stop of every row of a table, in order of time; None if there is no such table."""
    path, table = store.path, store.table(f"intervals/{name}")
    if table is None:
        return None
    bounds = [_numbers(table, f"{end}_time", path) for end in ("start", "stop")]
    if None in bounds:
        return None
    bounds = [column.values() for column in bounds]
    if bounds[0].ndim != 1 or bounds[0].shape != bounds[1].shape:
        raise ValueError(
            f"{path}: {name} has {bounds[0].shape} starts and {bounds[1].shape} stops."
        )
    values = np.column_stack(bounds).astype(np.float64)
    return in_order(values[ends_after_start(values, f"{path}: {name}")])


# --- columns ---


def _single(table, n_units):
    """Columns with one entry for each unit."""
    found = table.columns()
    ragged = {name for name in found if f"{name}_index" in found}
    return {
        name: one
        for name, one in found.items()
        if one.shape == (n_units,)
        and name not in ragged
        and name.removesuffix("_index") not in ragged
    }


def _columns_of(table, chosen, n_units, path):
    """Columns with one value for each chosen unit, lists; those that are damaged are left out.

    Columns of links hold the names of what they link to, such as the groups of electrodes. The
    electrodes of a unit are one text.
    """
    columns = {}
    try:
        found = _single(table, n_units)
    except ValueError:
        return columns
    for name in dict.fromkeys([*found, "electrodes"]):
        try:
            if name in found:
                values = found[name].labels()
            else:
                values = _electrodes(table, n_units, path)
            if values is not None and name != "id":
                columns[name] = np.asarray(values)[chosen].tolist()
        except (ValueError, IndexError):
            continue  # what was not asked for does not stop the reading of spikes
    return columns


def _electrodes(table, n_units, path):
    """Numbers of the electrodes of every unit, as texts; None if the table has none."""
    column = _numbers(table, "electrodes", path)
    if column is None:
        return None
    first, stop = _ranges(table, "electrodes", n_units, path)
    values = column.values()
    return [" ".join(map(str, np.sort(values[a:b]))) for a, b in zip(first, stop, strict=True)]
