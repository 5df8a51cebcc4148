"""NWB in PyNWB's objects: an ``NWBFile``, made in memory or read from HDF5 or Zarr.

PyNWB is never imported here: an ``NWBFile`` is known by the module and the name of its class. Only
what is asked for is read from the file behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import numpy as np

from fastglm._files import describe
from fastglm.recordings import nwb
from fastglm.recordings.table import Units

_OWN = ("epochs", "trials", "invalid_times")  # intervals that are attributes of an NWBFile


def is_nwb_file(value: object) -> bool:
    """Whether a value is an ``NWBFile`` of PyNWB."""
    return any(
        cls.__name__ == "NWBFile" and cls.__module__.partition(".")[0] == "pynwb"
        for cls in type(value).__mro__
    )


def read_units(value: object, where: str | None = None, epochs: str | None = None) -> Units:
    """The units of an ``NWBFile``, as from its file."""
    return nwb.read_units(store_of(value), where, epochs)


def store_of(value: object) -> nwb.Store:
    """The `Store` of an ``NWBFile``."""
    return _Store(value)


@contextmanager
def _reading(path) -> Iterator[None]:
    """Any error of the libraries behind an object as a ValueError."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"{path} could not be read through its NWBFile ({describe(error)}); is its io still "
            "open?"
        ) from None


class _Store:
    """A `Store` of an ``NWBFile``."""

    def __init__(self, file):
        self._file = file
        self.path = str(file.container_source or f"NWBFile {file.identifier!r}")

    def table(self, name):
        found = self._file.units if name == "units" else self._intervals().get(name)
        return None if found is None else _Table(found, self.path)

    def interval_names(self):
        return [name.partition("/")[2] for name in self._intervals()]

    def series(self):
        with _reading(self.path):
            found = [one for one in self._file.objects.values() if _is_series(one)]
            return {_place(one): _Series(one, self.path) for one in found}

    def _intervals(self):
        found = {f"intervals/{name}": getattr(self._file, name) for name in _OWN}
        found = {name: table for name, table in found.items() if table is not None}
        others = self._file.intervals or {}
        return found | {f"intervals/{name}": others[name] for name in others}


class _Table:
    """A `Table` of a ``DynamicTable``."""

    def __init__(self, table, path):
        self._columns = {one.name: _Column(one, path) for one in (table.id, *table.columns)}

    def get(self, name):
        return self._columns.get(name)

    def columns(self):
        return self._columns


class _Column:
    """A `Column` of a ``VectorData``."""

    def __init__(self, column, path):
        self._column, self._path = column, path

    @cached_property
    def _data(self):
        """An array, left on the disk if it is there; other objects than values as they are."""
        with _reading(self._path):
            data = self._column.data
            while any(cls.__name__ == "DataIO" for cls in type(data).__mro__):
                data = data.data  # how to write it, around what to write
            if hasattr(data, "dtype") and hasattr(data, "shape"):
                return data
            data = list(data)
            plain = str | bytes | int | float | np.generic | np.ndarray | list | tuple
            if all(isinstance(one, plain) for one in data):
                try:
                    return np.asarray(data)
                except ValueError:  # rows of different lengths
                    return np.array(data, dtype=object)
            objects = np.empty(len(data), dtype=object)
            objects[:] = data
            return objects

    @property
    def shape(self):
        with _reading(self._path):
            return tuple(self._data.shape)

    @property
    def kind(self):
        with _reading(self._path):
            return np.dtype(self._data.dtype).kind

    def check(self, n_values):
        with _reading(self._path):
            stored = _stored(self._data)
        if stored is not None:
            declared = n_values * np.dtype(self._data.dtype).itemsize
            nwb.check_stored(self._path, self._data.name, declared, stored)

    def __getitem__(self, index):
        with _reading(self._path):
            return np.asarray(self._data[index])

    def values(self):
        self.check(int(np.prod(self.shape, dtype=object)))
        return self[:]

    def plain(self):
        if any("Reference" in cls.__name__ for cls in type(self._data).__mro__):
            return None  # links on the disk, which a condition does not ask for
        values = self.values()
        elements = getattr(self._column, "elements", None)
        if elements is not None:  # indices into a list of names
            names = _Column(elements, self._path).plain()
            with _reading(self._path):
                return names[values]
        if values.dtype.kind in "fiub":
            return values
        texts = [one.decode() if isinstance(one, bytes) else one for one in values.tolist()]
        if not all(isinstance(one, str) for one in texts):
            return None
        return np.array(texts, dtype=object)

    def labels(self):
        values = self.plain()
        if values is None and all(hasattr(one, "name") for one in self.values()):
            return [one.name for one in self.values()]
        return values


class _Series:
    """A `Series` of a ``TimeSeries``."""

    def __init__(self, series, path):
        self._series, self._path = series, path

    @property
    def shape(self):
        with _reading(self._path):
            return tuple(np.shape(self._series.data))

    def times(self):
        with _reading(self._path):
            given = self._series.timestamps
            if given is not None:
                return np.asarray(given[:], np.float64)
            one = self._series
            return nwb.regular_times(one.starting_time, one.rate, self.shape[0])

    def values(self):
        with _reading(self._path):
            values = np.asarray(self._series.data[:])
            factor, add = self._series.conversion, getattr(self._series, "offset", 0.0)
        if values.dtype.kind not in "fiub":
            raise ValueError(f"{self._path}: {self._series.name} does not hold numbers.")
        return values if (factor, add) == (1.0, 0.0) else values * factor + add


def _is_series(one):
    return any(cls.__name__ == "TimeSeries" for cls in type(one).__mro__)


def _place(one):
    """Names of the containers around an object and its own, as a path."""
    names = []
    while one is not None and not is_nwb_file(one):
        names.append(one.name)
        one = one.parent
    return "/".join(reversed(names))


def _stored(data):
    """Bytes that a store holds of an array; None for an array in memory."""
    if hasattr(data, "nbytes_stored"):  # Zarr; a method in its version 3
        stored = data.nbytes_stored
        return stored() if callable(stored) else stored
    if hasattr(data, "is_virtual") and not data.is_virtual:  # HDF5
        return data.id.get_storage_size()
    return None
