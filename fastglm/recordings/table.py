"""The table of units, as every format gives it, and the recording that some of them make."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from fastglm._pynapple import intersect
from fastglm.recordings.conditions import select
from fastglm.recordings.intervals import (
    check_segments,
    ends_after_start,
    in_order,
    merge,
    overlap,
    subtract,
)
from fastglm.recordings.spikes import SpikeTimes
from fastglm.recordings.times import doubt_seconds, warn_of_doubt
from fastglm.recordings.trains import check_spikes

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

INVALID = "invalid_times"  # the table of NWB that says when data are not to be used
_SHOWN = 5  # units that a warning names


@dataclass
class Units:
    """The chosen units of a recording.

    Attributes
    ----------
    source : str
        Name of the file or object, for errors.
    spike_times : ndarray, shape (n_spikes,)
        Seconds, ascending within each unit.
    unit : ndarray of int, shape (n_spikes,)
    ids : list
    segments : ndarray of shape (n_segments, 2) or None
        None if nothing says when the units were observed.
    invalid : ndarray of shape (n_intervals, 2)
        Times that the recording calls invalid, ascending.
    t_start, t_stop : float
        Range of all spikes of the recording and of the segments.
    n_spikes, n_active : int
        Spikes of the whole recording, and its units with spikes.
    columns : dict of str to list
        Columns with one value for each unit.
    certain : bool
        Whether times are known to be seconds.
    """

    source: str
    spike_times: np.ndarray
    unit: np.ndarray
    ids: list
    segments: np.ndarray | None
    invalid: np.ndarray
    t_start: float
    t_stop: float
    n_spikes: int
    n_active: int
    columns: dict
    certain: bool = False

    def recording(
        self, epochs: str | ArrayLike | None = None, keep_invalid: bool = False
    ) -> SpikeTimes:
        """The units as `SpikeTimes`.

        Parameters
        ----------
        epochs : str or array of shape (n_epochs, 2), optional
            An array cuts the segments. A name has been followed when the units were chosen.
        keep_invalid : bool
            Keep the invalid times.
        """
        try:
            spikes = check_spikes(
                self.spike_times, self.unit, len(self.ids), self.t_start, self.t_stop
            )
            segments = check_segments(self.segments, self.t_start, self.t_stop)
            segments = within(segments, epochs)
        except ValueError as error:
            raise ValueError(f"{self.source}: {error}") from None
        self._check_seconds(stated=self.segments is not None or epochs is not None)
        invalid = 0.0
        if not keep_invalid and not (isinstance(epochs, str) and epochs == INVALID):
            before = segments
            segments = subtract(before, self.invalid)
            invalid = float(np.diff(before).sum() - np.diff(segments).sum())
        if len(segments) == 0:
            raise ValueError(
                f"{self.source}: all of the epochs are in {INVALID}; keep_invalid=True keeps them."
            )
        return SpikeTimes(
            *spikes[:3],
            self.t_start,
            self.t_stop,
            segments,
            names=self.ids,
            invalid=invalid,
            resolution=spikes.resolution,
            metadata=self.columns,
        )

    def _check_seconds(self, stated):
        """Raise, or warn where a range was stated, if times can hardly be seconds."""
        if self.certain:
            return
        doubt = doubt_seconds(self.n_spikes, self.n_active, self.t_stop - self.t_start)
        if doubt and not stated:
            raise ValueError(f"{self.source}: {doubt} If they are seconds, give epochs.")
        warn_of_doubt(doubt, f"{self.source}: ")


@dataclass
class UnitTable:
    """All units of a recording whose spike times are in memory.

    Attributes
    ----------
    source : str
        Name of the file or object, for errors.
    trains : list of ndarray
        Spike times of each unit, seconds.
    ids : list
    columns : dict of str to sequence
        One value for each unit; None where a unit has none.
    observed : list of ndarray of shape (n_intervals, 2), or None
        When each unit was observed; None if nothing says so.
    intervals : mapping of str to ndarray of shape (n_intervals, 2)
        Named intervals that may be epochs, seconds.
    certain : bool
        Whether times are known to be seconds.
    """

    source: str
    trains: list[np.ndarray]
    ids: list
    columns: Mapping[str, Sequence] = field(default_factory=dict)
    observed: list[np.ndarray] | None = None
    intervals: Mapping[str, np.ndarray] = field(default_factory=dict)
    certain: bool = False

    def choose(self, where: str | None = None, epochs: str | None = None) -> Units:
        """The units that a condition keeps, and the named intervals as their epochs."""
        if not self.ids:
            raise ValueError(f"{self.source} has no units.")
        columns = {str(name): as_column(values) for name, values in self.columns.items()}
        columns["id"] = as_column(self.ids)
        chosen = np.arange(len(self.ids))
        if where is not None:
            chosen = np.flatnonzero(select(where, columns, self.source))
        del columns["id"]
        ids = [self.ids[k] for k in chosen]
        trains = in_order_of_time([self.trains[k] for k in chosen], ids, self.source)
        segments = None
        if self.observed is not None:
            segments = observed_together([self.observed[k] for k in chosen], ids, self.source)
        if epochs is not None:
            segments = self._named(epochs, segments)
        check_some_time(segments, len(ids), self.source)
        known = np.array([t for times in [*self.trains, *trains] for t in _ends(times)])
        known = known if segments is None else np.append(known, segments)
        if known.size == 0:
            raise ValueError(f"{self.source} has no spikes.")
        return Units(
            self.source,
            np.concatenate(trains),
            np.repeat(np.arange(len(chosen)), [times.size for times in trains]),
            ids,
            segments,
            np.zeros((0, 2)),
            float(known.min()),
            float(known.max()),
            sum(times.size for times in self.trains),
            sum(times.size > 0 for times in self.trains),
            {name: values[chosen].tolist() for name, values in columns.items()},
            self.certain,
        )

    def column(self, name: str) -> Sequence:
        """The values of a column; None for every unit if there is no such column."""
        return self.columns.get(name, [None] * len(self.ids))

    def take(self, index: np.ndarray) -> UnitTable:
        """The table of some of the units."""
        return replace(
            self,
            trains=[self.trains[k] for k in index],
            ids=[self.ids[k] for k in index],
            columns={name: [values[k] for k in index] for name, values in self.columns.items()},
            observed=None if self.observed is None else [self.observed[k] for k in index],
        )

    def _named(self, epochs, segments):
        """The segments inside intervals that have a name."""
        if epochs == "obs":
            if segments is None:
                raise ValueError(
                    f"{self.source} does not say when its units were observed, which epochs='obs' "
                    "asks for; leave epochs out, or give intervals in seconds."
                )
            return segments
        if epochs not in self.intervals:
            known = f"one of {sorted(self.intervals)}" if self.intervals else "intervals in seconds"
            raise ValueError(f"{self.source} has no intervals {epochs!r}; expected {known}.")
        given = self.intervals[epochs]
        given = in_order(given[ends_after_start(given, f"{self.source}: {epochs}")])
        return inside(given, segments, epochs, self.source)


# --- columns ---


def as_column(values: Sequence) -> np.ndarray:
    """One value for each unit as numbers, truth values, or texts in an array of objects.

    Missing entries (None, NaN) are NaN among numbers and empty among texts.
    """
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    known = [value for value in values if not _is_missing(value)]
    if len(known) == len(values) and all(isinstance(value, bool) for value in values):
        return np.array(values)
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        if len(known) < len(values) or any(isinstance(value, float) for value in known):
            return np.array([np.nan if _is_missing(v) else v for v in values], dtype=np.float64)
        if all(abs(value) < 2**63 for value in known):
            return np.array(values, dtype=np.int64)
    column = np.empty(len(values), dtype=object)
    column[:] = ["" if _is_missing(value) else str(value) for value in values]
    return column


def _is_missing(value):
    if value is None or type(value).__name__ == "NAType":  # of pandas
        return True
    return isinstance(value, float) and value != value


# --- intervals ---


def observed_together(observed: list[np.ndarray], ids: list, source: str) -> np.ndarray:
    """When all units were observed, from the intervals of each, (n_segments, 2).

    Warns
    -----
    UserWarning
        If intervals of a unit overlap; they are merged.
    """
    common, merged = None, []
    seen = {}  # most often all units have the same intervals
    for name, own in zip(ids, observed, strict=True):
        key = own.tobytes()
        if key not in seen:
            own = in_order(own)
            seen[key] = overlap(own)
            own = merge(own)
            common = own if common is None else intersect(common, own)
        if seen[key]:
            merged.append(name)
    if merged:
        warnings.warn(
            f"{source}: obs_intervals of {listed(merged)} overlap; they were merged.",
            UserWarning,
            stacklevel=6,
        )
    return common


def inside(
    intervals: np.ndarray, segments: np.ndarray | None, name: str, source: str
) -> np.ndarray:
    """Named intervals, in order of their starts, cut to the segments.

    Raises
    ------
    ValueError
        If there is none, or they overlap.
    """
    if overlap(intervals):
        raise ValueError(
            f"{source}: {name} overlap in time; expected intervals that follow each other."
        )
    if len(intervals) == 0:
        raise ValueError(f"{source}: no row of {name} ends after its start.")
    return intervals if segments is None else intersect(intervals, segments)


def check_some_time(segments: np.ndarray | None, n_units: int, source: str) -> None:
    """Raise ValueError if segments are known and there is none."""
    if segments is not None and len(segments) == 0:
        raise ValueError(
            f"{source}: there is no time in the epochs when all {n_units} units were observed. "
            "Select units that were recorded together with `where`."
        )


def within(segments: np.ndarray, epochs: str | ArrayLike | None) -> np.ndarray:
    """The parts of the segments inside epochs in seconds; None and names leave them as they are."""
    if epochs is None or isinstance(epochs, str):
        return segments
    segments = intersect(check_segments(epochs, -np.inf, np.inf), segments)
    if len(segments) == 0:
        raise ValueError("epochs have no time in common with the recording; they are seconds.")
    return segments


# --- spikes ---


def in_order_of_time(spikes: list[np.ndarray], ids: list, source: str) -> list[np.ndarray]:
    """Spike times of units, each ascending; one warning names those that were not.

    Raises
    ------
    ValueError
        If a unit holds placeholders: NaN, or numbers that are no times of spikes.
    """
    unsorted = []
    for k, times in enumerate(spikes):
        times = spikes[k] = times if times.dtype.kind == "f" else times.astype(np.float64)
        bad = _placeholders(times)
        if bad:
            raise ValueError(
                f"{source}: spike_times of unit {ids[k]} hold {bad}, which looks like a "
                f'placeholder and no spike. Leave the unit out with where="id != {ids[k]!r}", or '
                "pass the spike times of each unit as arrays, without it."
            )
        if (np.diff(times) < 0).any():
            spikes[k] = np.sort(times)
            unsorted.append(ids[k])
    if unsorted:
        warnings.warn(
            f"{source}: spike_times of {listed(unsorted)} were not in order of time; they were "
            "sorted.",
            UserWarning,
            stacklevel=6,
        )
    return spikes


def _placeholders(times):
    """Description of values that stand for no spike; empty if there are none.

    These are NaN and infinity; a whole number as only negative time, unless all times are whole and
    in order; and zeros after times that are in order without them.
    """
    if not np.isfinite(times).all():
        return f"NaN or infinity ({int((~np.isfinite(times)).sum())} of {times.size})"
    in_order = (np.diff(times) >= 0).all()
    low, count = np.unique(times[times < 0], return_counts=True)
    if low.size == 0 and not in_order and (np.diff(times[times > 0]) >= 0).all():
        low, count = np.zeros(1), [(times == 0).sum()]
    if low.size != 1 or low[0] != np.round(low[0]):
        return ""
    if in_order and times.size > 1 and (times == np.round(times)).all():
        return ""
    return f"{low[0]:g} ({count[0]} of {times.size})"


def _ends(times):
    """The first and the last time that can be a spike, if there are some."""
    times = times[can_be_spikes(times)]
    return [times.min(), times.max()] if times.size else []


def can_be_spikes(times: np.ndarray) -> np.ndarray:
    """Which times are finite and no placeholders, as far as one time can show."""
    return np.isfinite(times) & ((times >= 0) | (times != np.round(times)))


def listed(ids: list) -> str:
    """The first units of a list and the number of the others, as words."""
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return f"unit{'s' * (len(ids) > 1)} {', '.join(map(str, ids[:_SHOWN]))}{more}"
