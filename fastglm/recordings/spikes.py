"""Recordings: when units fired and when they were observed, from files to events in bins.

Spikes are placed in bins without a table of all bins: memory follows the number of spikes.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastglm import _html
from fastglm._checks import is_number
from fastglm._pynapple import intersect, read_intervals
from fastglm.features.events import Events

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_MAX_BINS = 2**31 - 2**20  # bins are counted in 32 bits
_EDGE = 1e-6  # bins: a spike less than this before an edge counts as on the edge


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
    """

    spike_times: np.ndarray
    unit: np.ndarray
    n_units: int
    t_start: float
    t_stop: float
    segments: np.ndarray
    adjacency: np.ndarray | None = None
    names: list | None = None

    def __repr__(self) -> str:
        n = len(self.segments)
        parts = "" if n == 1 else f" in {n:,} segments"
        units = "1 unit" if self.n_units == 1 else f"{self.n_units:,} units"
        return (
            f"SpikeTimes of {units}: {self.spike_times.size:,} spikes, "
            f"{self._seconds():,.6g} s{parts}"
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
        check_bin_size(bin_size)
        lengths = full_bins(self.segments, bin_size)
        events = count_events(
            self.spike_times, self.unit, self.n_units, bin_size, self.segments, lengths
        )
        return events, as_epochs(lengths)


def load_spikes(
    path: str | Path, where: str | None = None, epochs: str | ArrayLike | None = None
) -> SpikeTimes:
    """Read a recording from an NWB file or an ``.npz`` file.

    Parameters
    ----------
    path : str or Path
        An NWB file (HDF5), of which the units table is read; or an ``.npz`` file with the arrays
        ``spike_times`` (seconds), ``unit``, ``n_units``, ``t_start``, ``t_stop`` and optionally
        ``segments`` (n_segments, 2) and ``adjacency`` (n_units, n_units).
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

    Returns
    -------
    SpikeTimes
        ``names`` are the ids of the units table.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If the file is NWB and h5py is not installed.
    ValueError
        If the file is neither NWB nor ``.npz``, an array is missing in it, the condition does not
        fit its columns or keeps no unit, or spikes or epochs are not as described.

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
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.suffix == ".nwb" or _is_hdf5(path):
        return _load_nwb(path, where, epochs)
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
    try:
        spike_times, unit, n_units = check_spikes(
            data["spike_times"], data["unit"], n_units, t_start, t_stop
        )
        segments = check_segments(data.get("segments"), t_start, t_stop)
        segments = _within(segments, epochs)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    adjacency = data.get("adjacency")
    if adjacency is not None and adjacency.shape != (n_units, n_units):
        raise ValueError(
            f"{path}: adjacency has shape {adjacency.shape}; expected {(n_units, n_units)}."
        )
    return SpikeTimes(spike_times, unit, n_units, t_start, t_stop, segments, adjacency)


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
    on the edge. Epochs are put end to end. Spikes outside all epochs are left out, and so is the
    end of an epoch that does not fill a bin.

    Parameters
    ----------
    spike_times : array of shape (n_spikes,)
        Seconds, ascending within each unit.
    unit : array of int, shape (n_spikes,)
    bin_size : float
        Seconds.
    n_units : int, optional
        Default: the largest unit plus one.
    t_start, t_stop : float, optional
        Range of the recording in seconds. Default: 0, and the end of the last spike's bin.
    epochs : array of shape (n_epochs, 2) or IntervalSet, optional
        Observed intervals in seconds.

    Returns
    -------
    counts : ndarray of shape (n_bins, n_units)
        In the smallest signed integer type that holds the counts.
    epochs : ndarray of int, shape (n_epochs, 2)
        First bin and one past the last of every epoch, for ``compute_features``. Returned only if
        ``epochs`` is given.

    Raises
    ------
    ValueError
        If times are NaN, not ascending within a unit or out of range, units are negative, not
        integers or too large, or epochs overlap.

    Examples
    --------
    >>> import fastglm
    >>> fastglm.bin_spikes([0.001, 0.004, 0.002], [0, 0, 1], bin_size=0.002)
    array([[1, 0],
           [0, 1],
           [1, 0]], dtype=int8)
    """
    check_bin_size(bin_size)
    start = 0.0 if t_start is None else t_start
    spike_times, unit, n_units = check_spikes(spike_times, unit, n_units, start, t_stop)
    if t_stop is None:
        t_stop = end_of_last_bin(spike_times, start, bin_size)
    segments = check_segments(epochs, start, float(t_stop))
    lengths = full_bins(segments, bin_size)
    counts = count_events(spike_times, unit, n_units, bin_size, segments, lengths).toarray()
    return counts if epochs is None else (counts, as_epochs(lengths))


def end_of_last_bin(spike_times: np.ndarray, start: float, bin_size: float) -> float:
    """End of the bin of the last spike, in seconds."""
    last = spike_times.max(initial=start)
    return start + (np.floor((last - start) / bin_size + _EDGE) + 1) * bin_size


def full_bins(segments: np.ndarray, bin_size: float) -> np.ndarray:
    """Number of bins that fit into each segment."""
    with np.errstate(over="ignore"):
        return check_lengths(np.diff(segments)[:, 0] / bin_size + _EDGE, bin_size, segments)


def check_lengths(lengths: np.ndarray, bin_size: float, segments: np.ndarray) -> np.ndarray:
    """Numbers of bins, rounded down; raises if there is no bin, or there are too many."""
    lengths = np.floor(lengths)
    if lengths.sum() > _MAX_BINS:
        raise ValueError(
            f"Bins of {bin_size} s would be {lengths.sum():.3g}, more than {_MAX_BINS}; use wider "
            "bins."
        )
    if lengths.sum() < 1:
        raise ValueError(
            f"No bin of {bin_size} s fits into the recording from {segments[0, 0]} to "
            f"{segments[-1, 1]} s."
        )
    return lengths.astype(np.int64)


def as_epochs(lengths: np.ndarray) -> np.ndarray:
    """First bin and one past the last of every segment, from its number of bins.

    Segments without a bin are left out.
    """
    stops = np.cumsum(lengths)
    return np.column_stack([stops - lengths, stops])[lengths > 0]


def count_events(
    spike_times: np.ndarray,
    unit: np.ndarray,
    n_units: int,
    bin_size: float,
    segments: np.ndarray,
    lengths: np.ndarray,
    edge: float | None = None,
) -> Events:
    """The counts that are not zero in bins of segments put end to end, as `Events`.

    A spike less than ``edge`` (seconds) before the edge of a bin counts as on the edge. Spikes are
    in the order of `check_spikes`; spikes outside the segments are left out.
    """
    edge = _EDGE * bin_size if edge is None else edge
    begins = np.cumsum(lengths) - lengths
    segment = np.searchsorted(segments[:, 0] - edge, spike_times, side="right") - 1
    segment = segment.clip(min=0)
    offset = np.floor((spike_times - segments[segment, 0] + edge) / bin_size)
    inside = (offset >= 0) & (offset < lengths[segment]) & (spike_times <= segments[segment, 1])
    bins = begins[segment[inside]] + offset[inside].astype(np.int64)
    cells, counts = np.unique(bins * n_units + unit[inside], return_counts=True)
    bins, units = np.divmod(cells, n_units)
    return Events(
        bins.astype(np.int32),
        units.astype(np.int32),
        counts.astype(np.float64),
        (int(lengths.sum()), n_units),
    )


def check_bin_size(bin_size: float) -> None:
    """Raise ValueError if the bin size is not a number of seconds above 0."""
    if not (is_number(bin_size) and bin_size > 0):
        raise ValueError(f"bin_size is {bin_size!r}; expected seconds above 0.")


def check_spikes(
    spike_times: ArrayLike, unit: ArrayLike, n_units: int, t_start: float, t_stop: float
) -> tuple[np.ndarray, np.ndarray, int]:
    """Checked spike times (float64), units (int64) and number of units."""
    spike_times = _numbers("spike_times", spike_times).astype(np.float64)
    unit = _numbers("unit", unit)
    if spike_times.shape != unit.shape:
        raise ValueError(
            f"spike_times has {spike_times.size} entries and unit {unit.size}; expected one unit "
            "for each spike."
        )
    if not np.isfinite(spike_times).all():
        bad = np.flatnonzero(~np.isfinite(spike_times))
        raise ValueError(
            f"spike_times holds NaN or infinity ({bad.size} times, first at index {bad[0]}); "
            "remove those spikes."
        )
    if unit.dtype.kind == "f" and not (np.isfinite(unit).all() and (unit == np.floor(unit)).all()):
        raise ValueError("unit holds numbers that are not integers; expected 0, 1, 2, ...")
    if (np.abs(unit) >= 2**31).any():
        raise ValueError("unit holds numbers beyond 2**31; units count from 0.")
    unit = unit.astype(np.int64)
    if (unit < 0).any():
        raise ValueError(
            f"unit holds negative numbers (smallest {unit.min()}); expected 0, 1, 2, ..."
        )
    largest = int(unit.max(initial=-1))
    if n_units is None:
        n_units = largest + 1
    if not is_number(n_units) or n_units != int(n_units) or n_units < 1:
        raise ValueError(
            f"n_units is {n_units}; expected a positive integer (there are {spike_times.size} "
            "spikes)."
        )
    if largest >= n_units:
        raise ValueError(
            f"unit goes up to {largest}, but n_units is {n_units}; units count from 0."
        )
    stop = np.inf if t_stop is None else t_stop
    known = is_number(t_start) and (t_stop is None or is_number(t_stop))
    if not (known and stop > t_start):
        raise ValueError(
            f"The recording runs from {t_start} to {stop} s; expected t_start < t_stop."
        )
    outside = (spike_times < t_start) | (spike_times > stop)
    if outside.any():
        first = spike_times[outside][0]
        kind = " (negative)" if first < 0 and t_start == 0 else ""
        raise ValueError(
            f"{int(outside.sum())} spike times are out of range{kind}, first {first} s; expected "
            f"{t_start} to {stop} s. Give t_start and t_stop?"
        )
    order = np.argsort(unit, kind="stable")
    falls = (np.diff(spike_times[order]) < 0) & (np.diff(unit[order]) == 0)
    if falls.any():
        index = order[1:][falls][0]
        raise ValueError(
            f"spike_times of unit {unit[index]} are not ascending at index {index}; sort them: "
            "order = np.lexsort((spike_times, unit))."
        )
    return spike_times, unit, int(n_units)


def _numbers(name, values):
    array = np.asarray(values)
    if array.size == 0:
        array = array.astype(np.float64)
    if array.ndim != 1 or array.dtype.kind not in "fiu":
        raise ValueError(
            f"{name} has shape {array.shape} and dtype {array.dtype}; expected a one-dimensional "
            "array of numbers."
        )
    return array


def check_segments(segments: ArrayLike | None, t_start: float, t_stop: float) -> np.ndarray:
    """Checked intervals in seconds, (n_segments, 2); None is one interval of the whole range."""
    if segments is None:
        return np.array([[t_start, t_stop]])
    segments = np.asarray(read_intervals(segments), dtype=np.float64)
    if segments.ndim != 2 or segments.shape[1] != 2 or segments.shape[0] == 0:
        raise ValueError(
            f"epochs has shape {segments.shape}; expected (n_epochs, 2), start and stop in seconds."
        )
    if not np.isfinite(segments).all() or (segments[:, 1] <= segments[:, 0]).any():
        raise ValueError("epochs must be finite and each stop after its start.")
    if (segments[1:, 0] < segments[:-1, 1]).any():
        raise ValueError("epochs must be ascending and not overlapping; sort or merge them.")
    # Rounding errors of the last digit are accepted.
    slack = 1e-9 * max(abs(t_start), abs(t_stop), 1.0)
    if segments[0, 0] < t_start - slack or segments[-1, 1] > t_stop + slack:
        raise ValueError(
            f"epochs run from {segments[0, 0]} to {segments[-1, 1]} s, out of the recording's "
            f"range {t_start} to {t_stop} s."
        )
    return segments


def _load_nwb(path, where, epochs):
    from fastglm.recordings import nwb

    named = epochs if isinstance(epochs, str) else None
    spike_times, unit, names, segments, (t_start, t_stop) = nwb.read_units(path, where, named)
    t_start, t_stop = float(t_start), float(t_stop)
    try:
        spike_times, unit, n_units = check_spikes(spike_times, unit, len(names), t_start, t_stop)
        segments = check_segments(segments, t_start, t_stop)
        segments = _within(segments, epochs)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return SpikeTimes(spike_times, unit, n_units, t_start, t_stop, segments, names=names)


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


def read_npz(path: str | Path, what: str) -> dict[str, np.ndarray]:
    """All arrays of an ``.npz`` file, without pickle."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except _UNREADABLE:
        raise ValueError(
            f"{path} could not be read as {what}: it is not an .npz file of plain arrays, or it "
            "is damaged."
        ) from None


# NumPy, zipfile and zlib raise these on a damaged file, or a file of another type.
_UNREADABLE = (
    AttributeError,
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)
