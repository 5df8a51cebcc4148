"""Spike times of units as arrays: checked, and counted in bins."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastglm._checks import is_number, rounding
from fastglm.features.events import Events
from fastglm.recordings.bins import Grid
from fastglm.recordings.intervals import as_epochs, full_bins
from fastglm.recordings.times import (
    as_seconds,
    doubt_seconds,
    edge_of,
    has_unit,
    resolution_of,
    warn_of_doubt,
    warn_of_short_bins,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_MAX_UNITS = 10_000_000  # ten times the largest recordings; units are counted in 32 bits
_MANY_BINS = 10**8  # a bin takes some 30 bytes in a fit; more bins need spikes
_FEWEST = 1e-6  # spikes a bin


class Spikes(NamedTuple):
    """Spike times that `check_spikes` has read.

    Attributes
    ----------
    spike_times : ndarray of float64, shape (n_spikes,)
    unit : ndarray of int64, shape (n_spikes,)
    n_units : int
    resolution : float
        Seconds by which the times may be off because of their type.
    certain : bool
        Whether the times came with a unit of time, so that they are seconds.
    """

    spike_times: np.ndarray
    unit: np.ndarray
    n_units: int
    resolution: float
    certain: bool

    def doubt(self, segments: np.ndarray) -> str:
        """A question where the times can hardly be seconds; see `doubt_seconds`."""
        if self.certain:
            return ""
        n_active = int(np.count_nonzero(np.bincount(self.unit)))
        return doubt_seconds(self.unit.size, n_active, float(np.diff(segments).sum()))

    def events(
        self, bin_size: float, segments: np.ndarray, stated: bool
    ) -> tuple[Events, np.ndarray]:
        """Events of the counts in bins of segments put end to end, and epochs in bins.

        Raises
        ------
        ValueError
            If the times can hardly be seconds and ``stated`` is False: nobody gave a range.
        """
        doubt = self.doubt(segments)
        if doubt and not stated:
            raise ValueError(f"{doubt} If they are seconds, give t_stop.")
        lengths = full_bins(segments, bin_size, self.resolution)
        check_n_bins(lengths, bin_size, self.unit.size)
        warn_of_doubt(doubt)
        warn_of_short_bins(bin_size, segments)
        edge = edge_of(bin_size, segments, resolution=self.resolution)
        return count_events(*self[:3], bin_size, segments, lengths, edge), as_epochs(lengths)


def count_events(
    spike_times: np.ndarray,
    unit: np.ndarray,
    n_units: int,
    bin_size: float,
    segments: np.ndarray,
    lengths: np.ndarray,
    edge: float,
) -> Events:
    """The counts that are not zero in bins of segments put end to end, as `Events` with a grid.

    A spike less than ``edge`` (seconds) before the edge of a bin counts as on the edge. Spikes are
    in the order of `check_spikes`; spikes outside the segments are left out.
    """
    n_bins = check_n_bins(lengths, bin_size, spike_times.size)
    begins = np.cumsum(lengths) - lengths
    segment = np.searchsorted(segments[:, 0] - edge, spike_times, side="right") - 1
    segment = segment.clip(min=0)
    offset = np.floor((spike_times - segments[segment, 0] + edge) / bin_size)
    inside = (offset >= 0) & (offset < lengths[segment]) & (spike_times <= segments[segment, 1])
    bins = begins[segment[inside]] + offset[inside].astype(np.int64)
    cells, counts = np.unique(bins * n_units + unit[inside], return_counts=True)
    bins, units = np.divmod(cells, n_units)
    events = Events(
        bins.astype(np.int32),
        units.astype(np.int32),
        counts.astype(np.float64),
        (n_bins, n_units),
    )
    events.grid = Grid(segments[lengths > 0, 0], lengths[lengths > 0], bin_size)
    return events


def check_n_bins(lengths: np.ndarray, bin_size: float, n_spikes: int) -> int:
    """Number of bins of all segments; raises ValueError if there are far too many for the spikes.

    A bin takes memory in a fit, whether it has spikes or not.
    """
    n_bins = int(lengths.sum())
    if n_bins > max(_MANY_BINS, n_spikes / _FEWEST):
        raise ValueError(
            f"{n_spikes} spikes in {n_bins:,} bins of {bin_size} s: the recording would "
            f"last {n_bins * bin_size / 86400:.3g} days. Are times in ms or samples, or is t_stop "
            "too large? Else use wider bins."
        )
    return n_bins


def check_spikes(
    spike_times: ArrayLike,
    unit: ArrayLike,
    n_units: int | None,
    t_start: float,
    t_stop: float | None,
) -> Spikes:
    """Checked spike times, in seconds.

    Raises
    ------
    ValueError
        If they are not spike times of n_units units between t_start and t_stop, ascending within
        each unit.

    Warns
    -----
    UserWarning
        If the times are float32.
    """
    certain = has_unit(spike_times)
    spike_times = as_vector("spike_times", as_seconds(spike_times, "spike_times"))
    unit = as_vector("unit", unit)
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
    resolution = resolution_of(spike_times, "spike_times")
    spike_times = spike_times.astype(np.float64)
    unit, n_units = _check_units(unit, n_units)
    _check_in_range(spike_times, t_start, t_stop, resolution)
    order = np.argsort(unit, kind="stable")
    falls = (np.diff(spike_times[order]) < 0) & (np.diff(unit[order]) == 0)
    if falls.any():
        index = order[1:][falls][0]
        raise ValueError(
            f"spike_times of unit {unit[index]} are not ascending at index {index}; sort them: "
            "order = np.lexsort((spike_times, unit))."
        )
    return Spikes(spike_times, unit, n_units, resolution, certain)


def _check_units(unit, n_units):
    """Units as int64, and their number."""
    if unit.dtype.kind == "f" and not (np.isfinite(unit).all() and (unit == np.floor(unit)).all()):
        raise ValueError("unit holds numbers that are not integers; expected 0, 1, 2, ...")
    if (np.abs(unit.astype(np.float64)) >= 2**31).any():
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
            f"n_units is {n_units}; expected a positive integer (there are {unit.size} spikes)."
        )
    if n_units > _MAX_UNITS:
        raise ValueError(
            f"n_units is {n_units}; at most {_MAX_UNITS:,} are supported. Units count from 0: are "
            "these ids? np.unique(unit, return_inverse=True) numbers them."
        )
    if largest >= n_units:
        raise ValueError(
            f"unit goes up to {largest}, but n_units is {n_units}; units count from 0."
        )
    return unit, int(n_units)


def _check_in_range(spike_times, t_start, t_stop, resolution):
    """Raise ValueError if spikes are out of the range by more than a rounding error."""
    stop = np.inf if t_stop is None else t_stop
    known = is_number(t_start) and (t_stop is None or is_number(t_stop))
    if not (known and stop > t_start):
        raise ValueError(
            f"The recording runs from {t_start} to {stop} s; expected t_start < t_stop."
        )
    slack = max(rounding(t_start, 0.0 if t_stop is None else t_stop), resolution)
    outside = (spike_times < t_start - slack) | (spike_times > stop + slack)
    if outside.any():
        first = spike_times[outside][0]
        kind = " (negative)" if first < 0 and t_start == 0 else ""
        raise ValueError(
            f"{int(outside.sum())} spike times are out of range{kind}, first {first} s; expected "
            f"{t_start} to {stop} s. Give t_start and t_stop?"
        )


def as_vector(name: str, values: ArrayLike) -> np.ndarray:
    """A one-dimensional array of numbers, in their own type; raises ValueError if it is none."""
    try:
        array = np.asarray(values)
    except ValueError:  # lists of different lengths
        array = np.asarray(values, dtype=object)
    if array.size == 0:
        array = array.astype(np.float64)
    if array.ndim != 1 or array.dtype.kind not in "fiu":
        raise ValueError(
            f"{name} has shape {array.shape} and dtype {array.dtype}; expected a one-dimensional "
            "array of numbers."
        )
    return array
