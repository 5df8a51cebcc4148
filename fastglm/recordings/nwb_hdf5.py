"""NWB in HDF5 files, read with h5py alone.

The units table is five data sets of the file, and their layout has not changed since NWB 2.0. PyNWB
would bring pandas and the schemas of all extensions, and would read the whole file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fastglm.recordings import nwb
from fastglm.recordings.table import Units

_SERIES = ("processing", "acquisition", "stimulus/presentation")  # groups that hold series
_TEXTS = 1 << 25  # bytes of texts that are read before their length is looked at


def read_units(source: object, where: str | None = None, epochs: str | None = None) -> Units:
    """The units of a file: a Path, an ``h5py.File``, or a binary file object."""
    with opened(source) as store:
        return nwb.read_units(store, where, epochs)


@contextmanager
def opened(source: object) -> Iterator[nwb.Store]:
    """The `Store` of a file; a file that was given open stays open."""
    try:
        import h5py
    except ImportError:
        raise ImportError("NWB files need h5py: pip install 'fastglm[nwb]'") from None
    if isinstance(source, h5py.Group):
        if not source:
            raise ValueError("The h5py.File is closed; open it again, or give its path.")
        yield _File(source, f"{source.file.filename}")
        return
    path = str(source if isinstance(source, Path) else getattr(source, "name", source))
    try:
        file = h5py.File(source, "r")
    except Exception as error:  # a file object may raise anything
        raise ValueError(f"{path} could not be read as NWB: {_reason(error)}") from None
    with file:
        yield _File(file, path)


def _reason(error):
    """Why HDF5 could not open a file, and what to do."""
    text = str(error)
    if "lock" in text:
        return (
            "another process holds a lock on it, because it is open for writing there (a "
            "notebook?). Close it there, or read a copy of the file."
        )
    if "already open" in text:
        return (
            "it is open for writing, here or in another process, or was not closed. Close it "
            "there; after a crash, h5clear -s FILE takes the mark away."
        )
    if isinstance(error, PermissionError):
        return "permission denied."
    return "it is not an HDF5 file, or it is damaged."


@contextmanager
def _reading(path):
    """Any error of h5py as a ValueError that names the file; h5py raises many types."""
    try:
        yield
    except Exception as error:
        text = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} could not be read as NWB: it is damaged ({text}).") from None


class _File:
    """A `Store` in a file."""

    def __init__(self, file, path):
        self._file, self.path = file, path

    def table(self, name):
        with _reading(self.path):
            found = self._file.get(name)
            return _Group(found, self._file, self.path) if hasattr(found, "items") else None

    def interval_names(self):
        with _reading(self.path):
            return list(self._file.get("intervals", {}))

    def series(self):
        found = {}

        def add(name, one):
            if not hasattr(one, "items") or "data" not in one:
                return
            if "timestamps" in one or "rate" in getattr(one.get("starting_time"), "attrs", {}):
                found[f"{place}/{name}"] = _Series(one, self._file, self.path)

        with _reading(self.path):
            for place in _SERIES:
                if place in self._file:
                    self._file[place].visititems(add)
        return found


class _Group:
    """A `Table` in a file."""

    def __init__(self, group, file, path):
        self._group, self._file, self._path = group, file, path

    def get(self, name):
        with _reading(self._path):
            if name not in self._group:
                return None
            return _Data(self._group[name], self._file, self._path)

    def columns(self):
        import h5py

        with _reading(self._path):
            found = {k: v for k, v in self._group.items() if isinstance(v, h5py.Dataset)}
        return {name: _Data(data, self._file, self._path) for name, data in found.items()}


class _Series:
    """A `Series` in a file."""

    def __init__(self, group, file, path):
        self._group, self._path = group, path
        with _reading(path):
            self._data = _Data(group["data"], file, path)
            self._attributes = dict(group["data"].attrs)
            given = group.get("timestamps")
        self._timestamps = None if given is None else _Data(given, file, path)
        self.shape = self._data.shape

    def times(self):
        if self._timestamps is not None:
            return self._timestamps.values().astype(np.float64)
        with _reading(self._path):
            start = self._group["starting_time"]
            return nwb.regular_times(start[()], start.attrs["rate"], self.shape[0])

    def values(self):
        if self._data.kind not in "fiub":
            raise ValueError(f"{self._path}: {self._group.name} does not hold numbers.")
        factor, add = (
            self._attributes.get(n, d) for n, d in (("conversion", 1.0), ("offset", 0.0))
        )
        values = self._data.values()
        return values if (factor, add) == (1.0, 0.0) else values * factor + add


class _Data:
    """A `Column` in a file."""

    def __init__(self, data, file, path):
        self._data, self._file, self._path = data, file, path
        self.kind = data.dtype.kind if hasattr(data, "dtype") else ""
        self.shape = getattr(data, "shape", None)

    def __getitem__(self, index):
        with _reading(self._path):
            return self._data[index]

    def check(self, n_values):
        with _reading(self._path):
            declared = n_values * self._data.dtype.itemsize
            stored = declared if self._data.is_virtual else self._data.id.get_storage_size()
        nwb.check_stored(self._path, self._data.name, declared, stored)

    def values(self):
        self.check(self._data.size)
        return self[()]

    def plain(self):
        import h5py

        if h5py.check_string_dtype(self._data.dtype) is not None:
            return self._texts()
        if "elements" in self._data.attrs:  # indices into a list of names
            with _reading(self._path):
                names = self._file[self._data.attrs["elements"]]
            names, values = _Data(names, self._file, self._path)._texts(), self.values()
            with _reading(self._path):
                return names[values]
        return self.values() if self.kind in "fiub" else None

    def labels(self):
        import h5py

        if h5py.check_ref_dtype(self._data.dtype) is not h5py.Reference:
            return self.plain()
        links = self.values()
        with _reading(self._path):
            return [self._file[one].name.rpartition("/")[2] for one in links]

    def _texts(self):
        """All texts, an array of objects; raises ValueError as `values` does.

        A text of variable length stands elsewhere in the file, and many entries may refer to one.
        They are read in parts, until they are longer than the file.
        """
        data, path = self._data, self._path
        with _reading(path):
            texts = data.asstr()
            size = data.file.id.get_filesize()
        self.check(data.size)
        if data.ndim != 1 or data.dtype.kind != "O":
            with _reading(path):
                return texts[()]
        _check_heaps(data, path)
        parts, n_read, step = [], 0, max(_TEXTS // max(size, 1), 8)
        for first in range(0, data.size, step):
            with _reading(path):
                parts.append(texts[first : first + step])
            n_read += sum(map(len, parts[-1]))
            if n_read > nwb.SMALL + size:
                raise ValueError(
                    f"{path} could not be read as NWB: the texts of {data.name} are longer than "
                    f"the file, which holds {size} bytes."
                )
        return np.concatenate([np.zeros(0, object), *parts])


def _check_heaps(data, path):
    """Raise ValueError if a collection that holds the texts of contiguous data is damaged.

    HDF5 walks through a collection (a "global heap") from object to object. Where the size of a
    free one is 0 it never ends, in a call that nothing interrupts. Collections that cannot be read
    here, such as those of streams, are left to it.
    """
    offset = data.id.get_offset()
    name = data.file.filename
    if offset is None or data.file.userblock_size or not os.path.isfile(name):
        return
    size = os.path.getsize(name)
    entry = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])
    entries = np.fromfile(name, entry, data.size, offset=offset)
    with open(name, "rb") as file:
        for address in np.unique(entries["address"][entries["length"] > 0]).tolist():
            file.seek(min(address, size))
            head = file.read(16)
            if head[:4] != b"GCOL":
                continue  # HDF5 says so
            n_bytes = min(int.from_bytes(head[8:], "little"), size - address)
            if not _ends(head + file.read(max(n_bytes - 16, 0))):
                raise ValueError(
                    f"{path} could not be read as NWB: the texts of {data.name} are damaged."
                )


def _ends(heap):
    """Whether a walk through the objects of a collection ends; its header has 16 bytes."""
    place = 16
    while place + 16 <= len(heap):
        index = int.from_bytes(heap[place : place + 2], "little")
        n_bytes = int.from_bytes(heap[place + 8 : place + 16], "little")
        step = n_bytes if index == 0 else 16 + -(-n_bytes // 8) * 8
        if step < 16:
            return False
        place += step
    return True
