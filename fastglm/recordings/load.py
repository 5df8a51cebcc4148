"""The one door for recordings: `load_spikes` finds the reader of a path, a file or an object."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from fastglm._files import reading
from fastglm.recordings import (
    blocks,
    kilosort,
    npz,
    nwb_hdf5,
    nwb_objects,
    nwb_zarr,
    sortings,
    tables,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fastglm.recordings.spikes import SpikeTimes

_WANTED = (
    "a path, a file opened in mode 'rb', an h5py.File, an NWBFile of PyNWB, a sorting or analyzer "
    "of SpikeInterface, or a Block, Segment or list of SpikeTrains of Neo"
)
_OTHERS = (
    "What SpikeInterface or Neo read, such as spikeinterface.load(folder), goes in as an object."
)


def load_spikes(
    path: str | Path | object,
    where: str | None = None,
    epochs: str | ArrayLike | None = None,
    *,
    keep_invalid: bool = False,
) -> SpikeTimes:
    """Read a recording from a file, a folder or an object, and choose units and epochs of it.

    Parameters
    ----------
    path : str, Path, or an object
        One of these:

        - an NWB file, of which the units table is read; as the path of an HDF5 file or Zarr store,
          an ``h5py.File``, an ``NWBFile`` of PyNWB, or an open binary file, such as those of fsspec
          or remfile, which stays open;
        - a folder of Kilosort 2 to 4 or of Phy, or the ``params.py`` in it. Times are samples over
          the ``sample_rate`` of ``params.py``. Columns of ``cluster_*.tsv`` are columns of the
          units, and ``channel`` is that of the template. Without ``where`` the units that are
          labelled as noise (``group``, else ``KSLabel``) are left out, and the log says how many.
          The recording begins at 0 and ends with the raw file, if it is where ``params.py`` says,
          else with the last spike;
        - a table with a row for each spike, ``.csv``, ``.tsv`` or ``.parquet``, read with pandas.
          The column of times (seconds) is called time, times, spike_time, spike_times, timestamp,
          t or seconds; that of units, which may be texts, unit, cell, neuron or cluster, each also
          with ``_id``. Columns that are constant within each unit are columns of the units;
        - the path of an ``.npz`` file with the arrays ``spike_times`` (seconds), ``unit``,
          ``n_units``, ``t_start``, ``t_stop`` and optionally ``segments`` (n_segments, 2),
          ``adjacency`` (n_units, n_units) and ``channel`` (n_units,), the electrode or tetrode of
          each unit;
        - a ``BaseSorting`` or ``SortingAnalyzer`` of SpikeInterface. Columns are the properties,
          and of an analyzer the quality metrics and ``channel``, that of the template;
        - a list of ``SpikeTrain``, a ``Segment`` or a ``Block`` of Neo. Trains of several segments
          are one unit by their names, else by their places. Columns are the annotations.

        Segments of SpikeInterface and Neo are put end to end where their times overlap.
    where : str, optional
        The units to read: a condition such as ``"quality == 'good' and rate > 0.5"`` on columns
        with one value for each unit. It may hold names of columns, numbers, texts, comparisons,
        ``in``, ``and``, ``or`` and ``not``. It is never run as code.
    epochs : str, array of shape (n_epochs, 2) or IntervalSet, optional
        Segments of the recording. "obs" stands for the times when all chosen units were observed
        (``obs_intervals`` of NWB, ``segments`` of ``.npz``, of others their segments). Another name
        stands for a table of intervals of NWB, such as "trials", or for epochs of Neo. An array
        holds intervals in seconds. All epochs are cut to the observed times. Default: "obs" if the
        recording has such times, else from the first to the last spike.
    keep_invalid : bool, default False
        The table ``invalid_times`` of NWB is left out of all epochs, unless this is True.

    Returns
    -------
    SpikeTimes
        ``names`` are the ids of the units, ``metadata`` the columns of one value for each unit.
        ``invalid`` is the time left out as invalid.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If a library that the format needs is not installed.
    ValueError
        If the file is of no known format, is open in another process, an array is missing in it,
        the condition does not fit its columns or keeps no unit, spikes or epochs are not as
        described, or spikes hold placeholders such as NaN.

    Warns
    -----
    UserWarning
        If spikes are sorted, segments lack a train of a unit, observed intervals are merged, or
        trials that do not end after their start are left out; if times are float32, or can hardly
        be seconds.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np, fastglm
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "recording.npz")
    ...     np.savez(path, spike_times=[0.1, 0.2], unit=[0, 1], n_units=2, t_start=0, t_stop=1)
    ...     spikes = fastglm.load_spikes(path)
    >>> spikes.bin(0.1)[0].sum(axis=0)
    array([1, 1])
    """
    name = epochs if isinstance(epochs, str) else None  # of a table of intervals
    if not isinstance(path, str | os.PathLike):
        return _object_reader(path)(path, where, name).recording(epochs, keep_invalid)
    path = _existing(path)
    with reading(path, "a recording"):
        read_units = _file_reader(path)
        if read_units is None:
            return npz.read_recording(path, where, epochs)
        return read_units(path, where, name).recording(epochs, keep_invalid)


def as_recording(units: object) -> object:
    """The recording of a path or an object that `load_spikes` reads; all else as it is."""
    if isinstance(units, str | os.PathLike) or _known_object(units) is not None:
        return load_spikes(units)
    return units


# --- objects ---


def _known_object(value):
    """The reader of an object; None if no format has such objects."""
    if type(value).__module__.partition(".")[0] == "h5py":
        return nwb_hdf5.read_units
    if nwb_objects.is_nwb_file(value):
        return nwb_objects.read_units
    if sortings.is_sorting(value):
        return sortings.read_units
    if blocks.is_neo(value):
        return blocks.read_units
    return None


def _object_reader(value):
    reader = _known_object(value)
    if reader is not None:
        return reader
    if hasattr(value, "read") and hasattr(value, "seek"):
        if hasattr(value, "encoding"):
            raise ValueError("load_spikes got a file opened as text; open it in mode 'rb'.")
        return nwb_hdf5.read_units
    raise ValueError(f"load_spikes got a {type(value).__name__}; expected {_WANTED}.")


# --- files ---


def _existing(path):
    """The path of a file or folder that is there."""
    if isinstance(path, str) and "://" in path:
        raise ValueError(
            f"{path} is an address; open it and pass the open file, such as "
            "load_spikes(fsspec.open(address).open())."
        )
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    return path


def _file_reader(path):
    """The reader of a file or folder; None for an ``.npz`` file."""
    if path.is_dir():
        return _folder_reader(path)
    if path.name == "params.py":
        return lambda path, *choice: kilosort.read_units(path.parent, *choice)
    if path.suffix.lower() in tables.ENDINGS:
        return tables.read_units
    if path.suffix == ".nwb" or _begins_with(path, b"\x89HDF\r\n\x1a\n"):
        return nwb_hdf5.read_units
    if path.suffix == ".npz" or _begins_with(path, b"PK"):
        return None
    raise ValueError(
        f"{path} could not be read as a recording: expected .nwb (HDF5), "
        f"{', '.join(tables.ENDINGS)}, .npz, or a folder of Kilosort, Phy or Zarr. {_OTHERS}"
    )


def _folder_reader(path):
    if (path / kilosort.TIMES).is_file():
        return kilosort.read_units
    if nwb_zarr.is_store(path):
        return nwb_zarr.read_units
    inside = sorted(path.glob(f"*/{kilosort.TIMES}"))
    hint = f" The folder {inside[0].parent} in it has some." if inside else ""
    raise FileNotFoundError(
        f"There is no file at {path}, which is a folder, but neither one of Kilosort or Phy, with "
        f"{kilosort.TIMES}, nor a Zarr store of NWB.{hint} {_OTHERS}"
    )


def _begins_with(path, mark):
    with open(path, "rb") as file:
        return file.read(len(mark)) == mark
