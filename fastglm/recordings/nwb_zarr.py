"""NWB in Zarr stores, read with hdmf-zarr, which knows how NWB is laid out in them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastglm._checks import import_extra
from fastglm._files import one_line
from fastglm.recordings import nwb, nwb_objects
from fastglm.recordings.table import Units

_LONGEST = 200  # characters of an error of hdmf
_MARKS = (".zgroup", ".zmetadata", "zarr.json")  # of Zarr's formats 2 and 3


def is_store(path: Path) -> bool:
    """Whether a folder is a Zarr store."""
    return any((path / name).is_file() for name in _MARKS)


def read_units(path: Path, where: str | None = None, epochs: str | None = None) -> Units:
    """The units of a store, as from an HDF5 file of the same session."""
    with opened(path) as store:
        return nwb.read_units(store, where, epochs)


@contextmanager
def opened(path: Path) -> Iterator[nwb.Store]:
    """The `Store` of a Zarr store."""
    library = import_extra("hdmf_zarr")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of versions of schemas, which the units do not use
            io = library.NWBZarrIO(str(path), mode="r")
            file = io.read()
    except Exception as error:  # hdmf and Zarr raise many types
        # The last part of hdmf's errors is the reason; the others are the store as text.
        reason = one_line(error.args[-1] if error.args else error)[:_LONGEST]
        raise ValueError(f"{path} could not be read by hdmf-zarr: {reason}") from None
    with io:
        yield nwb_objects.store_of(file)
