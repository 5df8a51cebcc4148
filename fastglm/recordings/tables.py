"""Tables of (unit, time) in CSV and parquet files, one row for each spike."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastglm._checks import import_extra, shown
from fastglm.recordings.table import Units, UnitTable
from fastglm.recordings.times import as_seconds

TEXTS, PARQUET = (".csv", ".tsv"), (".parquet", ".pq")
ENDINGS = TEXTS + PARQUET
TIMES = ("time", "times", "spike_time", "spike_times", "timestamp", "timestamps", "t", "seconds")
_UNITS = ("unit", "unit_id", "cell", "cell_id", "neuron", "neuron_id", "cluster", "cluster_id")
_SEPARATORS = "\t;,"
_RATIO = 100  # bytes of times that one byte of a file may stand for: times differ
_SMALL = 1 << 20


def read_units(path: Path, where: str | None = None, epochs: str | None = None) -> Units:
    """The units of a table, in order of their names.

    Columns are found by their names, in any case of letters: the time in seconds, and the unit,
    numbers or texts. Columns that are constant within each unit become columns of the units.
    """
    frame, time, unit = _read(path)
    codes, ids = import_extra("pandas").factorize(frame[unit], sort=True)
    if (codes < 0).any():
        raise ValueError(f"{path}: row {int((codes < 0).argmax()) + 1} has no {unit}.")
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes, minlength=len(ids))
    table = UnitTable(
        str(path),
        np.split(times_of(frame[time], path)[order], np.cumsum(sizes)[:-1]) if len(ids) else [],
        _names(ids),
        _constant(frame.drop(columns=[time, unit]), codes, order, sizes),
    )
    table.columns[unit] = table.ids
    return table.choose(where, epochs)


def _read(path):
    """The table, and the names of its columns of times and of units."""
    if path.suffix.lower() in PARQUET:
        frame = read_frame(path)
        return frame, *columns_of_spikes(frame.columns, path)
    time, unit = columns_of_spikes(read_frame(path, nrows=0).columns, path)
    # Texts become numbers in `times_of`: pandas 2 rounds the last bit of a number.
    return read_frame(path, dtype={time: str}), time, unit


def read_frame(path: Path, **options: object) -> object:
    """The table of a file as a DataFrame; options are those of texts."""
    pandas = import_extra("pandas")
    if path.suffix.lower() in PARQUET:
        parquet = import_extra("pyarrow.parquet")
        n_rows, size = parquet.read_metadata(path).num_rows, path.stat().st_size
        if 8 * n_rows > _SMALL + _RATIO * size:
            raise ValueError(f"{path} declares {n_rows:,} rows and holds {size:,} bytes.")
        return pandas.read_parquet(path, engine="pyarrow")
    with open(path, "rb") as file:
        header = file.readline()
    separator = max(_SEPARATORS, key=lambda mark: header.count(mark.encode()))
    return pandas.read_csv(
        path, sep=separator, encoding="utf-8-sig", skipinitialspace=True, **options
    )


def columns_of_spikes(columns: object, path: object) -> list:
    """The names of the columns of times and of units."""
    found = {str(name).strip().lower(): name for name in reversed(columns)}
    names = []
    for what, usual in (("times", TIMES), ("units", _UNITS)):
        known = [found[name] for name in usual if name in found]
        if not known:
            raise ValueError(
                f"{path} has the columns {', '.join(shown(str(name)) for name in columns)}, and "
                f"none of {what}; expected one called {', '.join(usual)}."
            )
        names.append(known[0])
    return names


def times_of(column: object, path: Path) -> np.ndarray:
    """Times in seconds; those of a parquet file in the type of the file."""
    kind = column.dtype.kind
    if kind == "m":
        return as_seconds(column.to_numpy(), str(path))
    if kind in "iuf":
        values = column.to_numpy()
        return values if values.dtype.kind != "O" else column.to_numpy(float, na_value=np.nan)
    try:
        return column.to_numpy(object, na_value=np.nan).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: {shown(column.name)} does not hold numbers ({str(error)[:80]}); expected "
            "seconds."
        ) from None


def _names(ids):
    """Names of units as plain numbers or texts; whole numbers of floats are integers."""
    ids = list(ids)
    if all(isinstance(name, float | np.floating) and name == int(name) for name in ids):
        return [int(name) for name in ids]
    return [name.item() if isinstance(name, np.generic) else name for name in ids]


def _constant(frame, codes, order, sizes):
    """The first value of each unit of the columns that are constant within units."""
    first = order[np.cumsum(sizes) - sizes]
    columns = {}
    for name in frame.columns:
        values, _ = import_extra("pandas").factorize(frame[name])
        if (values == values[first][codes]).all():
            columns[str(name)] = frame[name].iloc[first].tolist()
    return columns
