"""Spikes on disk, shard by shard: features and counts of one range of bins in memory at a time.

`stream_spikes` is the public function. `SpikeFile` and `UnitFile` read a range of bins of a file,
`Source` makes the features of a shard of it.
"""

from __future__ import annotations

import itertools
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastglm._checks import import_extra, is_number, shown
from fastglm._pynapple import Columns
from fastglm.features import Events, FeatureMatrix
from fastglm.recordings import tables
from fastglm.recordings.times import check_bin_size, check_range

_BLOCK = 1 << 20  # spikes of a file that are looked at together
_ROUNDING = 1e-6  # part of a bin by which a spike before an edge belongs to the next bin
_MARKS = 8  # places of a file that are known in each shard
_HDF5 = (".nwb", ".h5", ".hdf5")
_filters = threading.Lock()  # warnings are ignored in one thread at a time


# --- shards -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """The source of a shard.

    Attributes
    ----------
    first, stop : int
        First bin of the shard, and one past its last bin.
    read : function of (first, stop)
        `Events` of a range of bins, numbered from 0. A range may begin before ``first``.
    basis : convolution basis
    epochs : ndarray of int, shape (n_epochs, 2)
        First bin and one past the last of every epoch of the whole recording.
    """

    first: int
    stop: int
    read: Callable
    basis: object
    epochs: np.ndarray

    @property
    def begin(self) -> int:
        """First bin of the halo."""
        return max(self.first - self.basis.window_size, 0)

    def load(self) -> tuple[FeatureMatrix, Events]:
        """The features from the halo on, and the events of the receivers."""
        events = self.read(self.begin, self.stop)
        epochs = np.clip(self.epochs, self.begin, self.stop) - self.begin
        epochs = epochs[epochs[:, 1] > epochs[:, 0]]
        # Features need an epoch. A shard outside all epochs is one, without a valid row.
        X = self._features(events, epochs if len(epochs) else None)
        X.valid[: self.first - self.begin if len(epochs) else None] = False
        return X, events

    def silent(self, n_units: int) -> FeatureMatrix:
        """The features of one bin without events.

        Raises
        ------
        ValueError
            If the window of the basis is not causal: it would need bins of the next shard.
        """
        none = np.zeros(0, np.int32)
        X = self._features(Events(none, none, np.zeros(0), (1, n_units)), np.array([[0, 1]]))
        if X.reach[1] > 0:
            raise ValueError(
                f"The window of the basis reaches {X.reach[1]} bins ahead. Shards need a "
                "causal window: predictor_causality='causal'."
            )
        return X

    def _features(self, events, epochs):
        with _filters, warnings.catch_warnings():
            # The rest of an epoch that a shard cuts may be shorter than a window.
            warnings.filterwarnings("ignore", "[0-9]+ of [0-9]+ epochs are shorter", UserWarning)
            return self.basis.compute_features(events, epochs=epochs)


def from_events(events: Events, basis: object, edges: object, epochs: object = None) -> list:
    """Sources of events in memory, cut at some bins."""
    return sources_of(events.part, basis, edges, epochs)


def sources_of(read: Callable, basis: object, edges: object, epochs: object = None) -> list:
    """Sources of one function of (first, stop), cut at some bins; by default in one epoch."""
    epochs = np.array([[edges[0], edges[-1]]]) if epochs is None else np.asarray(epochs)
    return [Source(int(a), int(b), read, basis, epochs) for a, b in itertools.pairwise(edges)]


# --- files --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RawColumn:
    """Numbers in a raw file, or in the data of an ``.npy`` file; a slice is read when asked for."""

    path: str
    dtype: object
    offset: int = 0  # bytes before the first number

    def __len__(self) -> int:
        return (Path(self.path).stat().st_size - self.offset) // np.dtype(self.dtype).itemsize

    def __getitem__(self, some: slice) -> np.ndarray:
        low, high, _ = some.indices(len(self))
        offset = self.offset + np.dtype(self.dtype).itemsize * low
        return np.fromfile(self.path, self.dtype, max(high - low, 0), offset=offset)

    @classmethod
    def of_npy(cls, path: str) -> RawColumn:
        """The column of an ``.npy`` file.

        Raises
        ------
        ValueError
            If it does not hold one column of numbers.
        """
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.ndim != 1 or array.dtype.kind not in "iuf":
            raise ValueError(
                f"{path} holds {array.dtype} of shape {array.shape}; expected one number for each "
                "spike."
            )
        return cls(path, array.dtype, array.offset)


@dataclass(frozen=True)
class ParquetColumn:
    """A column of a parquet file; the row groups of a slice are read when it is asked for."""

    path: str
    name: str
    edges: np.ndarray  # first row of every row group, and the number of rows

    @classmethod
    def of(cls, path: str) -> tuple[ParquetColumn, ParquetColumn]:
        """The columns of times and of units."""
        file = import_extra("pyarrow.parquet").ParquetFile(path)
        sizes = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
        edges = np.cumsum([0, *sizes])
        names = tables.columns_of_spikes(file.schema_arrow.names, path)
        return tuple(cls(path, name, edges) for name in names)

    def __len__(self) -> int:
        return int(self.edges[-1])

    def __getitem__(self, some: slice) -> np.ndarray:
        low, high, _ = some.indices(len(self))
        groups = np.flatnonzero((self.edges[:-1] < high) & (self.edges[1:] > low))
        file = import_extra("pyarrow.parquet").ParquetFile(self.path)
        rows = file.read_row_groups(groups.tolist(), columns=[self.name])
        first = self.edges[groups[0]] if groups.size else low
        return rows.column(0).slice(low - first, max(high - low, 0)).to_numpy()


@dataclass(frozen=True)
class SpikeFile:
    """Spikes in two columns, sorted by time: seconds, and units.

    ``index[k]`` is the number of the first spike in bin ``k * every`` or later; the last entry is
    the number of spikes. `SpikeFile.scan` makes it.

    Attributes
    ----------
    times, units
        What has a length and slices; the path of a raw file of float64, of int32.
    n_units : int
    bin_size : float
    every : int
    index : ndarray of int
    ids : ndarray, optional
        What the units are called in the file, ascending; without it, by numbers from 0.
    start : float
        Where bin 0 begins, seconds.
    """

    times: object
    units: object
    n_units: int
    bin_size: float
    every: int
    index: np.ndarray
    ids: np.ndarray | None = None
    start: float = 0.0

    @classmethod
    def scan(
        cls,
        times: object,
        units: object,
        n_units: int,
        bin_size: float,
        every: int,
        ids: np.ndarray | None = None,
        start: float = 0.0,
    ) -> SpikeFile:
        """Read the times once, for the index; 8 MB at a time.

        Raises
        ------
        ValueError
            If the times are not numbers, not sorted, or begin before the first bin.
        """
        times = RawColumn(times, np.float64) if isinstance(times, str) else times
        units = RawColumn(units, np.int32) if isinstance(units, str) else units
        found, n_spikes, last = [np.zeros(1, np.int64)], 0, -np.inf
        for part in _blocks(times):
            bins = _bins_of_sorted(part, last, bin_size, start, "The times")
            last, step = part[-1], bins // every
            # Each multiple of `every` up to the bin of a spike, that none before has reached.
            n_known = sum(known.size for known in found)
            wanted = np.arange(n_known, step[-1] + 1)
            found.append(n_spikes + np.searchsorted(step, wanted))
            n_spikes += part.size
        index = np.append(np.concatenate(found), n_spikes)
        return cls(times, units, n_units, bin_size, every, index, ids, start)

    def read(self, first: int, stop: int) -> Events:
        """`Events` of a range of bins."""
        low, high = (
            int(self.index[min(k, self.index.size - 1)])
            for k in (first // self.every, -(-stop // self.every))
        )
        bins = _bins(self.times[low:high], self.bin_size, self.start) - first
        units = self.units[low:high]
        if self.ids is not None:
            units = np.searchsorted(self.ids, units)
        return _events(bins, units, (stop - first, self.n_units), self.ids)


@dataclass(frozen=True)
class UnitFile:
    """Spikes in the units table of an NWB (HDF5) file: the times of one unit after another.

    ``index[k, i]`` is the number of unit i's first spike in bin ``k * every`` or later.
    """

    path: str
    bin_size: float
    every: int
    index: np.ndarray
    ids: np.ndarray
    n_bins: int
    start: float = 0.0

    @classmethod
    def scan(cls, path: str, bin_size: float, n_shards: Callable, start: float) -> UnitFile:
        """Read the times once, for the index; ``n_shards`` is a function of the number of spikes.

        Raises
        ------
        ValueError
            If there are no units, or the times of a unit are not sorted or begin too early.
        """
        with import_extra("h5py").File(path) as file:
            table = file.get("units")
            if table is None or "spike_times" not in table or "spike_times_index" not in table:
                raise ValueError(f"{path} has no table of units with spike_times.")
            times = table["spike_times"]
            # In uint64 they would become float64 beside the 0.
            edges = np.append(0, table["spike_times_index"][:].astype(np.int64))
            ids = table["id"][:] if "id" in table else np.arange(edges.size - 1)
            ends = [times[b - 1] for a, b in itertools.pairwise(edges) if b > a]
            last, what = np.array([max(ends, default=start)], float), f"{path}: the times"
            n_bins = int(_bins_of_sorted(last, -np.inf, bin_size, start, what)[0]) + 1
            every = -(-n_bins // (_MARKS * n_shards(len(times))))
            index = np.empty((-(-n_bins // every) + 1, ids.size), np.int64)
            for i, (low, high) in enumerate(itertools.pairwise(edges)):
                counts, before = np.zeros(len(index), np.int64), -np.inf
                for begin in range(low, high, _BLOCK):
                    part = times[begin : min(begin + _BLOCK, high)]
                    what = f"{path}: the times of unit {ids[i]}"
                    bins = _bins_of_sorted(part, before, bin_size, start, what)
                    counts[1:] += np.bincount(bins // every, minlength=len(index) - 1)
                    before = part[-1]
                index[:, i] = low + np.cumsum(counts)
        return cls(path, bin_size, every, index, ids, n_bins, start)

    @property
    def n_spikes(self) -> int:
        """Number of spikes."""
        return int((self.index[-1] - self.index[0]).sum())

    def read(self, first: int, stop: int) -> Events:
        """`Events` of a range of bins."""
        marks = first // self.every, min(-(-stop // self.every), len(self.index) - 1)
        low, high = self.index[min(marks[0], len(self.index) - 1)], self.index[marks[1]]
        with import_extra("h5py").File(self.path) as file:
            times = file["units/spike_times"]
            parts = [times[a:b] for a, b in zip(low, np.maximum(low, high), strict=True)]
        sizes = [part.size for part in parts]
        bins = _bins(np.concatenate(parts), self.bin_size, self.start) - first
        shape = stop - first, self.ids.size
        return _events(bins, np.repeat(np.arange(self.ids.size), sizes), shape, self.ids)


def _blocks(column) -> Iterator[np.ndarray]:
    """The numbers of a column, some at a time."""
    for first in range(0, len(column), _BLOCK):
        yield column[first : first + _BLOCK]


def _bins(times, bin_size, start=0.0):
    times = times - start if start else times
    return np.floor(times / bin_size + _ROUNDING).astype(np.int64)


def _bins_of_sorted(times, before, bin_size, start, what):
    """The bins of times that are seconds, not before the first bin, and ascend from ``before``."""
    if times.dtype.kind != "f":
        raise ValueError(
            f"{what} are {times.dtype}; expected seconds. Divide samples by their rate."
        )
    if not (times[0] >= before and (np.diff(times) >= 0).all()):
        raise ValueError(f"{what} are not sorted; sort the spikes by time.")
    bins = _bins(times, bin_size, start)
    if bins[0] < 0:
        raise ValueError(f"{what} begin before {start:g} s; pass t_start.")
    return bins


def _events(bins, units, shape, ids):
    """`Events` of the spikes that lie in the bins of a shape."""
    inside = (bins >= 0) & (bins < shape[0])
    cells, counts = np.unique(bins[inside] * shape[1] + units[inside], return_counts=True)
    del bins, units, inside
    bins, units = np.divmod(cells, shape[1])
    events = Events(bins.astype(np.int32), units.astype(np.int32), counts.astype(float), shape)
    events.columns = None if ids is None else Columns(ids.tolist())
    return events


# --- at the door --------------------------------------------------------------------------------


class SpikeStream(Sequence):
    """Shards of spikes on disk: ``stream[k]`` reads features and counts of shard k.

    `stream_spikes` makes it, and ``stochastic_fit`` of a model takes it. A shard begins with the
    bins of one window before it, so that the history of its own bins is whole; the rows of these
    bins are NaN in X.

    Attributes
    ----------
    n_bins, n_units : int
    ids : list
        What the units are called in the file.
    """

    def __init__(self, sources: list[Source], ids: list):
        self.sources, self.ids = sources, ids

    @property
    def n_units(self) -> int:
        """Number of units."""
        return len(self.ids)

    @property
    def n_bins(self) -> int:
        """Number of bins."""
        return self.sources[-1].stop

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, k: int) -> tuple[FeatureMatrix, Events]:
        return self.sources[k].load()

    def __repr__(self) -> str:
        return f"SpikeStream of {self.n_units} units, {self.n_bins:,} bins, in {len(self)} shards"


def stream_spikes(
    path: str | Path,
    units: str | Path | None = None,
    *,
    basis: object,
    bin_size: float,
    t_start: float = 0.0,
    t_stop: float | None = None,
    epochs: object = None,
    spikes: int = 1_000_000,
) -> SpikeStream:
    """Spikes in files that are larger than the memory, as shards for ``stochastic_fit``.

    Parameters
    ----------
    path : str or Path
        The times, in seconds:

        - an ``.npy`` file, or a raw file of float64, sorted by time; ``units`` is a second file;
        - a ``.parquet`` file with columns of times and units, as `fastglm.load_spikes` finds them,
          sorted by time; its row groups are read as they are needed;
        - an NWB file in HDF5 (``.nwb``, ``.h5``), whose table of units is read.
    units : str or Path, optional
        The unit of each spike: an ``.npy`` file of integers, or a raw file of int32.
    basis : convolution basis
        A causal one. The features of every unit's history are those of `fit`.
    bin_size : float
        Seconds.
    t_start, t_stop : float, optional
        Begin of the first bin, and end of the last one, in seconds. Default: 0, and the last spike.
    epochs : array of shape (n_epochs, 2), optional
        Start and end of every epoch, in seconds. A history does not reach over its edges. Default:
        one epoch.
    spikes : int
        About how many spikes a shard has: some 150 bytes each in memory.

    Returns
    -------
    SpikeStream

    Raises
    ------
    TypeError
        If the basis has no window.
    ValueError
        If a file is not what is expected, its times are not sorted or no seconds, or the window is
        not causal.

    Notes
    -----
    The times are read once here, for an index of the file. Each pass of a fit reads all shards.
    """
    path, units = (None if p is None else os.path.abspath(p) for p in (path, units))
    check_bin_size(bin_size)
    check_range(t_start, t_stop)
    if not is_number(spikes) or spikes < 1:
        raise ValueError(f"spikes is {spikes!r}; expected the number of spikes of a shard.")
    if not hasattr(basis, "window_size"):
        raise TypeError(f"basis is {shown(basis)}; expected one with a window, which convolves.")
    ending = Path(path).suffix.lower()

    def n_shards(n_spikes):
        return max(1, -(-n_spikes // int(spikes)))

    if ending in _HDF5:
        file = UnitFile.scan(path, bin_size, n_shards, t_start)
        n_bins, n_parts, ids = file.n_bins, n_shards(file.n_spikes), file.ids
    else:
        times, of = _columns(path, units, ending)
        if not len(times) == len(of) > 0:
            raise ValueError(
                f"{path} has {len(times)} times and {len(of)} units; expected one of each for "
                "every spike."
            )
        ids, n_parts = _distinct(of), n_shards(len(times))
        last = times[len(times) - 1 : len(times)]
        n_bins = int(_bins_of_sorted(last, -np.inf, bin_size, t_start, "The times")[0]) + 1
        every = max(1, -(-n_bins // (_MARKS * n_parts)))
        file = SpikeFile.scan(times, of, ids.size, bin_size, every, ids, t_start)
    if t_stop is not None:
        n_bins = round((t_stop - t_start) / bin_size)
        if n_bins == 0:
            raise ValueError(
                f"No bin of {bin_size} s fits into the recording from {t_start} to {t_stop} s."
            )
    if epochs is not None:
        epochs = np.rint((np.asarray(epochs, float) - t_start) / bin_size).astype(int)
        epochs = epochs.clip(0, n_bins)
    size = file.every * -(-n_bins // (file.every * n_parts))
    edges = np.append(np.arange(0, n_bins, size), n_bins)
    epochs = np.array([[0, n_bins]]) if epochs is None else epochs
    sources = sources_of(file.read, basis, edges, epochs)
    sources[0].silent(ids.size)  # raises if the basis sees later bins
    return SpikeStream(sources, ids.tolist())


def _columns(path, units, ending):
    """The columns of times and units of files that are sorted by time."""
    if ending in tables.PARQUET:
        return ParquetColumn.of(path)
    if units is None:
        raise ValueError(
            f"{path} has the times alone; pass the file with the unit of each spike as units."
        )
    read = RawColumn.of_npy
    times = read(path) if ending == ".npy" else RawColumn(path, np.float64)
    return times, read(units) if units.endswith(".npy") else RawColumn(units, np.int32)


def _distinct(column):
    """The ids of a column of units, ascending."""
    ids = np.zeros(0, np.int64)
    for part in _blocks(column):
        if part.dtype.kind not in "iu":
            raise ValueError(f"The units are {part.dtype}; expected the number of each unit.")
        ids = np.union1d(ids, part)
    return ids
