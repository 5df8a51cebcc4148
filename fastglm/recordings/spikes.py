"""Recordings: when units fired and when they were observed, from files to events in bins.

Spikes are placed in bins without a table of all bins: memory follows the number of spikes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastglm import _html
from fastglm._checks import is_number
from fastglm._files import read_npz, reading
from fastglm._pynapple import Columns, intersect
from fastglm.features.events import Events
from fastglm.recordings.intervals import check_segments, subtract
from fastglm.recordings.times import (
    check_bin_size,
    check_default_start,
    doubt_seconds,
    end_of_last_bin,
    read_number,
    warn_of_doubt,
)
from fastglm.recordings.trains import Spikes, check_spikes

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_MANY_UNITS = 100_000  # of a file: more need spikes, since every unit takes memory


@dataclass(repr=False)
class SpikeTimes:
    """A recording: when each unit fired, and when it was observed.

    Attributes
    ----------
    spike_times : ndarray of float64, shape (n_spikes,)
        Seconds, ascending within each unit.
    unit : ndarray of int, shape (n_spikes,)
        0 to n_units - 1.
    n_units : int
    t_start, t_stop : float
        Seconds.
    segments : ndarray of shape (n_segments, 2)
        Observed intervals in seconds. One interval from t_start to t_stop if the file has none.
    adjacency : ndarray of shape (n_units, n_units) or None
        True weight from sender (row) to receiver (column), if it is known.
    names : list or None
        Names of the units, if they have names.
    invalid : float
        Seconds that ``invalid_times`` of the file take from the segments.
    resolution : float
        Seconds by which spike times may be off because a file holds them as float32; else 0.
    metadata : dict of str to list
        Columns of the table of units with one value for each unit.
    """

    spike_times: np.ndarray
    unit: np.ndarray
    n_units: int
    t_start: float
    t_stop: float
    segments: np.ndarray
    adjacency: np.ndarray | None = None
    names: list | None = None
    invalid: float = 0.0
    resolution: float = 0.0
    metadata: dict = field(default_factory=dict)

    def __repr__(self) -> str:
        n = len(self.segments)
        parts = "" if n == 1 else f" in {n:,} segments"
        units = "1 unit" if self.n_units == 1 else f"{self.n_units:,} units"
        invalid = f", without {self.invalid:,.6g} s of invalid_times" if self.invalid else ""
        return (
            f"SpikeTimes of {units}: {self.spike_times.size:,} spikes, "
            f"{self._seconds():,.6g} s{parts}{invalid}"
        )

    def _repr_html_(self):
        names = range(self.n_units) if self.names is None else self.names
        sizes = np.bincount(self.unit, minlength=self.n_units)
        seconds = self._seconds()
        rows = [
            [str(name), f"{size:,}", _html.number(size / seconds if seconds else np.nan)]
            for name, size in zip(names, sizes, strict=True)
        ]
        return _html.table(repr(self), rows, ["unit", "spikes", "rate (Hz)"])

    def _seconds(self):
        """Time for which the units were observed, in seconds."""
        return float(np.diff(self.segments).sum())

    def bin(self, bin_size: float) -> tuple[np.ndarray, np.ndarray]:
        """Counts of shape (n_bins, n_units) and epochs in bins; see `bin_spikes`."""
        events, epochs = self.events(bin_size)
        return events.toarray(), epochs

    def events(self, bin_size: float) -> tuple[Events, np.ndarray]:
        """The counts that are not zero, as `fastglm.features.Events`, and epochs in bins.

        ``compute_features`` and ``fit`` take the events in place of counts. Memory: about 100 bytes
        a spike while the events are made and 16 bytes a spike afterwards; the number of bins has no
        effect.
        """
        bin_size = read_number(bin_size, "bin_size")
        check_bin_size(bin_size)
        events, epochs = self.checked().events(bin_size, self.segments, stated=True)
        events.columns = (
            None if self.names is None else Columns(list(self.names), dict(self.metadata))
        )
        return events, epochs

    def checked(self) -> Spikes:
        """The spikes without the recording. Doubts about their times were said when it was made."""
        return Spikes(self.spike_times, self.unit, self.n_units, self.resolution, True)


def load_spikes(
    path: str | Path | object,
    where: str | None = None,
    epochs: str | ArrayLike | None = None,
    *,
    keep_invalid: bool = False,
) -> SpikeTimes:
    """Read a recording from an NWB file or an ``.npz`` file.

    Parameters
    ----------
    path : str, Path, h5py.File or binary file object
        An NWB file (HDF5), of which the units table is read; or the path of an ``.npz`` file with
        the arrays ``spike_times`` (seconds), ``unit``, ``n_units``, ``t_start``, ``t_stop`` and
        optionally ``segments`` (n_segments, 2), ``adjacency`` (n_units, n_units) and ``channel``
        (n_units,), the electrode or tetrode of each unit. Open files, such as those of fsspec or
        remfile, are read as NWB and stay open.
    where : str, optional
        The units of an NWB file to read: a condition such as
        ``"quality == 'good' and rate > 0.5"`` on columns of the units table with one value for each
        unit. It may hold names of columns, numbers, texts, comparisons, ``in``, ``and``, ``or`` and
        ``not``. It is never run as code.
    epochs : str, array of shape (n_epochs, 2) or IntervalSet, optional
        Segments of the recording. "obs" stands for the times when all chosen units were observed
        (``obs_intervals`` of NWB, ``segments`` of ``.npz``). Another name stands for a table of
        intervals of an NWB file, such as "trials". An array holds intervals in seconds. All epochs
        are cut to the observed times of the file. Default: "obs" if the file has such times, else
        from the first to the last spike of the file.
    keep_invalid : bool, default False
        The table ``invalid_times`` of an NWB file is left out of all epochs, unless this is True.

    Returns
    -------
    SpikeTimes
        ``names`` are the ids of the units table, ``metadata`` its columns of one value for each
        unit. ``invalid`` is the time left out as invalid.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If the file is NWB and h5py is not installed.
    ValueError
        If the file is neither NWB nor ``.npz``, is open in another process, an array is missing in
        it, the condition does not fit its columns or keeps no unit, spikes or epochs are not as
        described, or spikes hold placeholders such as NaN.

    Warns
    -----
    UserWarning
        If spikes of an NWB file are sorted, observed intervals are merged, or trials that do not
        end after their start are left out; if times are float32, or can hardly be seconds.

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
    path = _read_path(path)
    if not isinstance(path, Path):
        return _load_nwb(path, where, epochs, keep_invalid)
    with reading(path, "a recording"):
        if path.suffix == ".nwb" or _is_hdf5(path):
            return _load_nwb(path, where, epochs, keep_invalid)
        return _load_npz(path, where, epochs)


def _read_path(path):
    """A path as Path, or an open file as it is."""
    library = type(path).__module__.partition(".")[0]
    if hasattr(path, "read") and hasattr(path, "encoding"):
        raise ValueError("load_spikes got a file opened as text; open it in mode 'rb'.")
    if library == "h5py" or (hasattr(path, "read") and hasattr(path, "seek")):
        return path
    if library in ("pynwb", "hdmf", "hdmf_zarr", "zarr"):
        known = getattr(path, "container_source", None) or getattr(path, "source", None)
        example = f", here {known}" if isinstance(known, str) else ""
        raise ValueError(
            f"load_spikes got a {type(path).__name__} of {library}; expected the path of an HDF5 "
            f"file{example}, an h5py.File, or a file opened in mode 'rb'."
        )
    if isinstance(path, str) and "://" in path:
        raise ValueError(
            f"{path} is an address; open it and pass the open file, such as "
            "load_spikes(fsspec.open(address).open())."
        )
    if not isinstance(path, str | os.PathLike):
        raise ValueError(
            f"load_spikes got a {type(path).__name__}; expected a path, an h5py.File, or a file "
            "opened in mode 'rb'."
        )
    path = Path(path)
    if path.is_dir():
        raise FileNotFoundError(
            f"There is no file at {path}, which is a folder. Zarr stores of NWB are not read: "
            "export them to HDF5, such as with pynwb.NWBHDF5IO(file, 'w').export(src_io)."
        )
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    return path


def bin_spikes(
    spike_times: ArrayLike,
    unit: ArrayLike,
    bin_size: float,
    *,
    n_units: int | None = None,
    t_start: float | None = None,
    t_stop: float | None = None,
    epochs: ArrayLike | None = None,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Count spikes in bins.

    Bin k of an epoch that starts at a holds the spikes with ``a + k * bin_size <= t`` and
    ``t < a + (k + 1) * bin_size``. A spike less than a millionth of a bin before an edge counts as
    on the edge, and so does one that is nearer to it than times of its size are known: 0.5 us for
    Unix times. Epochs are put end to end. Spikes outside all epochs are left out, and so is the
    end of an epoch that does not fill a bin.

    Parameters
    ----------
    spike_times : array of shape (n_spikes,)
        Seconds, ascending within each unit. Times with a unit (quantities, Neo, pint, astropy) are
        converted, here and in all other arguments.
    unit : array of int, shape (n_spikes,)
    bin_size : float
        Seconds.
    n_units : int, optional
        Default: the largest unit plus one.
    t_start, t_stop : float, optional
        Range of the recording in seconds. Default: 0, and the end of the last spike's bin. Unix
        times need t_start.
    epochs : array of shape (n_epochs, 2) or IntervalSet, optional
        Observed intervals in seconds.

    Returns
    -------
    counts : ndarray of shape (n_bins, n_units)
        In int32, or in int64 where sums of products of the counts need it.
    epochs : ndarray of int, shape (n_epochs, 2)
        First bin and one past the last of every epoch, for ``compute_features``. Returned only if
        ``epochs`` is given.

    Raises
    ------
    ValueError
        If times are NaN, not ascending within a unit or out of range, units are negative, not
        integers or too large, or epochs overlap; if the first spike is so late that t_start is
        missing; if neither t_stop nor epochs are given and the times can hardly be seconds.

    Warns
    -----
    UserWarning
        If times are float32, or can hardly be seconds although t_stop or epochs are given, or
        epochs that do not end after their start are left out.

    Examples
    --------
    >>> import fastglm
    >>> fastglm.bin_spikes([0.001, 0.004, 0.002], [0, 0, 1], bin_size=0.002)
    array([[1, 0],
           [0, 1],
           [1, 0]], dtype=int32)
    """
    bin_size, t_start, t_stop = (
        read_number(value, name)
        for name, value in (("bin_size", bin_size), ("t_start", t_start), ("t_stop", t_stop))
    )
    check_bin_size(bin_size)
    start = 0.0 if t_start is None else t_start
    spikes = check_spikes(spike_times, unit, n_units, start, t_stop)
    if t_start is None and epochs is None:
        check_default_start(spikes.spike_times)
    stated = t_stop is not None or epochs is not None
    if t_stop is None:
        t_stop = end_of_last_bin(spikes.spike_times, start, bin_size, spikes.resolution)
    segments = check_segments(epochs, start, float(t_stop))
    events, bounds = spikes.events(bin_size, segments, stated)
    return events.toarray() if epochs is None else (events.toarray(), bounds)


def _load_npz(path, where, epochs):
    if where is not None:
        raise ValueError(
            f"{path} has no columns of units for where={where!r}; that needs an NWB file."
        )
    if isinstance(epochs, str) and epochs != "obs":
        raise ValueError(
            f"{path} has no intervals {epochs!r}; an .npz file has segments only (epochs='obs')."
        )
    data = read_npz(path, "a recording")
    wanted = ("spike_times", "unit", "n_units", "t_start", "t_stop")
    missing = [name for name in wanted if name not in data]
    if missing:
        raise ValueError(
            f"{path} has no {', '.join(missing)}; a recording holds {', '.join(wanted)}."
        )
    for name in ("n_units", "t_start", "t_stop"):
        if data[name].size != 1 or not is_number(data[name].item()):
            raise ValueError(f"{path}: {name} is not one finite number.")
    n_units, t_start, t_stop = (data[name].item() for name in ("n_units", "t_start", "t_stop"))
    spikes = check_spikes(data["spike_times"], data["unit"], n_units, t_start, t_stop)
    segments = _within(check_segments(data.get("segments"), t_start, t_stop), epochs)
    n_units = spikes.n_units
    if n_units > max(_MANY_UNITS, 100 * spikes.spike_times.size):
        raise ValueError(
            f"{path}: n_units is {n_units:,}, and there are {spikes.spike_times.size} spikes; "
            "expected the number of units."
        )
    adjacency = data.get("adjacency")
    if adjacency is not None and (
        adjacency.shape != (n_units, n_units) or adjacency.dtype.kind not in "fiub"
    ):
        raise ValueError(
            f"{path}: adjacency has shape {adjacency.shape}; expected {(n_units, n_units)}, "
            f"numbers (dtype {adjacency.dtype})."
        )
    channel = data.get("channel")
    if channel is not None and (channel.shape != (n_units,) or channel.dtype.kind not in "iufUS"):
        raise ValueError(
            f"{path}: channel has shape {channel.shape}; expected {(n_units,)}, numbers or texts "
            f"(dtype {channel.dtype})."
        )
    warn_of_doubt(spikes.doubt(segments), f"{path}: ")
    return SpikeTimes(
        *spikes[:3],
        t_start,
        t_stop,
        segments,
        adjacency,
        resolution=spikes.resolution,
        metadata={} if channel is None else {"channel": channel.tolist()},
    )


def _load_nwb(source, where, epochs, keep_invalid):
    from fastglm.recordings import nwb

    named = epochs if isinstance(epochs, str) else None
    found = nwb.read_units(source, where, named)
    try:
        spikes = check_spikes(
            found.spike_times, found.unit, len(found.ids), found.t_start, found.t_stop
        )
        segments = check_segments(found.segments, found.t_start, found.t_stop)
        segments = _within(segments, epochs)
    except ValueError as error:
        raise ValueError(f"{found.path}: {error}") from None
    doubt = doubt_seconds(found.n_spikes, found.n_active, found.t_stop - found.t_start)
    if doubt and found.segments is None and epochs is None:
        raise ValueError(f"{found.path}: {doubt} If they are seconds, give epochs.")
    warn_of_doubt(doubt, f"{found.path}: ")
    invalid = 0.0
    if not keep_invalid and named != nwb.INVALID:
        before = segments
        segments = subtract(before, found.invalid)
        invalid = float(np.diff(before).sum() - np.diff(segments).sum())
    if len(segments) == 0:
        raise ValueError(
            f"{found.path}: all of the epochs are in {nwb.INVALID}; keep_invalid=True keeps them."
        )
    return SpikeTimes(
        *spikes[:3],
        found.t_start,
        found.t_stop,
        segments,
        names=found.ids,
        invalid=invalid,
        resolution=spikes.resolution,
        metadata=found.columns,
    )


def _within(segments, epochs):
    """The parts of the segments inside the epochs, seconds."""
    if epochs is None or isinstance(epochs, str):
        return segments
    segments = intersect(check_segments(epochs, -np.inf, np.inf), segments)
    if len(segments) == 0:
        raise ValueError("epochs have no time in common with the recording; they are seconds.")
    return segments


def _is_hdf5(path):
    with open(path, "rb") as file:
        return file.read(8) == b"\x89HDF\r\n\x1a\n"
