"""Events: the entries of a table of counts that are not zero."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import scipy.sparse

from fastglm._checks import column_names
from fastglm._pynapple import Columns, Timeline
from fastglm.features.ranges import offsets, spans, spread

_BLOCK = 4096  # events that are added up at a time
_WIDEST = 2**31 - 1  # the largest sum of products of counts in int32
_FEW_UNITS = 8  # if at most one unit in 8 is selected, sorting beats a pass over all events


class Events:
    """The entries of a table of counts that are not zero, sorted by bin.

    Attributes
    ----------
    bins, units : ndarrays of int32, shape (n_events,)
    amplitudes : ndarray of float64, shape (n_events,)
        The counts; NaN if not known.
    n_bins, n_units : int
    """

    timeline = None  # times of the bins, if the counts came with times
    columns = None  # `Columns`: names of the units, if they have names
    grid = None  # `recordings.bins.Grid`: seconds of the bins, if they come from spike times
    ndim = 2
    values = None  # all numbers of the table; only in `Traces`

    def __init__(
        self, bins: np.ndarray, units: np.ndarray, amplitudes: np.ndarray, shape: tuple[int, int]
    ) -> None:
        self.bins, self.units, self.amplitudes = bins, units, amplitudes
        self.n_bins, self.n_units = shape

    @classmethod
    def of(cls, counts: np.ndarray | scipy.sparse.sparray | Events) -> Events:
        """Events of an array or a SciPy sparse array of shape (n_bins, n_units), or of events."""
        if isinstance(counts, Events):
            return counts
        n_units = counts.shape[1]
        if scipy.sparse.issparse(counts):
            # By columns: row pointers take one entry a bin, 36 million for an hour of 0.1 ms bins.
            table = counts.tocsc()
            if not table.has_canonical_format:
                table = table.copy()
                table.sum_duplicates()
            kept = np.flatnonzero(table.data)
            order = kept[np.argsort(table.indices[kept], kind="stable")]
            units = np.repeat(np.arange(n_units, dtype=np.int32), np.diff(table.indptr))[order]
            bins, amplitudes = table.indices[order], table.data[order]
        else:
            # np.flatnonzero on blocks of booleans is ten times as fast as np.nonzero on the table.
            places = [np.zeros(0, np.int64)]
            size = max(1, (1 << 20) // max(n_units, 1))
            for start in range(0, counts.shape[0], size):
                places.append(np.flatnonzero(counts[start : start + size] != 0) + start * n_units)
            bins, units = np.divmod(np.concatenate(places), n_units)
            amplitudes = counts[bins, units]
        return cls(
            bins.astype(np.int32),
            units.astype(np.int32),
            amplitudes.astype(np.float64),
            counts.shape,
        )

    @property
    def n_events(self) -> int:
        """Number of entries that are not zero."""
        return self.bins.shape[0]

    def __repr__(self) -> str:
        return f"Events(shape={self.shape}, n_events={self.n_events})"

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the table, (n_bins, n_units)."""
        return self.n_bins, self.n_units

    def toarray(self) -> np.ndarray:
        """The table in int32, or a wider type where sums of products of its counts need one.

        The type is int64 where the squares of a unit's counts add up to more than int32 holds, and
        float64 where counts are not whole or not known. ``counts.T @ counts`` never wraps around.
        """
        whole = np.array_equal(self.amplitudes, np.round(self.amplitudes))
        dtype = np.float64
        if whole:
            squares = np.bincount(self.units, self.amplitudes**2, 1).max()
            dtype = np.int32 if squares <= _WIDEST else np.int64
        table = np.zeros(self.shape, dtype)
        table[self.bins, self.units] = self.amplitudes
        return table

    def take(self, keep: np.ndarray) -> Events:
        """The events for which the boolean array ``keep`` is True."""
        shape = self.n_bins, self.n_units
        return Events(self.bins[keep], self.units[keep], self.amplitudes[keep], shape)

    def forget(self, bins: np.ndarray, units: np.ndarray) -> Events:
        """The same events, with the counts of some bins and units not known."""
        place = self.bins.astype(np.int64) * self.n_units + self.units
        gone = np.unique(bins.astype(np.int64) * self.n_units + units)
        kept = ~np.isin(place, gone)
        amplitudes = np.concatenate([self.amplitudes[kept], np.full(gone.size, np.nan)])
        place = np.concatenate([place[kept], gone])
        order = np.argsort(place, kind="stable")
        bins, units = (part.astype(np.int32) for part in np.divmod(place[order], self.n_units))
        return Events(bins, units, amplitudes[order], self.shape)

    @cached_property
    def by_unit(self) -> tuple[np.ndarray, np.ndarray]:
        """Order of the events by unit, then by bin, and the first place of each unit in it."""
        # NumPy sorts integers of at most 16 bits by digits, ten times as fast as wider ones.
        order = np.argsort(self.units.astype(np.min_scalar_type(self.n_units)), kind="stable")
        starts = np.searchsorted(self.units[order], np.arange(self.n_units + 1))
        return order.astype(np.min_scalar_type(order.size)), starts

    def trains(self) -> list[np.ndarray]:
        """The bins of each unit's events, ascending."""
        order, starts = self.by_unit
        return np.split(self.bins[order], starts[1:-1])

    def select(self, units: np.ndarray) -> Events:
        """The events of some units; the units are renumbered in the given order."""
        if len(units) * _FEW_UNITS <= self.n_units:
            order, starts = self.by_unit
            places = [order[starts[i] : starts[i + 1]] for i in units]
            keep = np.concatenate([order[:0], *places])
            units_of = np.repeat(np.arange(len(units), dtype=np.int32), np.diff(starts)[units])
            if len(units) > 1:
                at = np.argsort(keep, kind="stable")
                keep, units_of = keep[at], units_of[at]
            shape = self.n_bins, len(units)
            return Events(self.bins[keep], units_of, self.amplitudes[keep], shape)
        number = np.full(self.n_units, -1, np.int32)
        number[units] = np.arange(len(units))
        # Indexing by places is three times as fast as by booleans if few of many are kept.
        keep = np.flatnonzero(number[self.units] >= 0)
        units_of = number[self.units[keep]]
        return Events(self.bins[keep], units_of, self.amplitudes[keep], (self.n_bins, len(units)))

    def matches(self, events: Events) -> bool:
        """Whether the known entries that are not 0 are at the places of the given events."""
        known = ~np.isnan(self.amplitudes)
        bins, units = self.bins[known], self.units[known]
        return np.array_equal(bins, events.bins) and np.array_equal(units, events.units)

    def arrays(self) -> list[np.ndarray]:
        """The arrays that hold the counts."""
        return [self.bins, self.units, self.amplitudes]

    def sums(self, weight: np.ndarray | None = None) -> np.ndarray:
        """Sum of every unit's known counts, weighted by bin where weights are given, (n_units,)."""
        known = ~np.isnan(self.amplitudes)
        values = np.where(known, self.amplitudes, 0.0)
        if weight is not None:
            values *= weight[self.bins]
        return np.bincount(self.units, values, self.n_units)

    def missing(self, weight: np.ndarray) -> np.ndarray:
        """Sum of the weights of the bins where a unit's count is not known, (n_units,)."""
        gone = np.isnan(self.amplitudes)
        if not gone.any():
            return np.zeros(self.n_units)
        return np.bincount(self.units[gone], weight[self.bins[gone]], self.n_units)

    def squares(self, weight: np.ndarray, center: np.ndarray) -> np.ndarray:
        """Weighted sum of squares of every unit's known counts around a center, (n_units,)."""
        total, rest = np.zeros(self.n_units), np.full(self.n_units, weight.sum())
        # Equal numbers that are added one by one round in one direction; blocks of them do not.
        for start in range(0, self.n_events, _BLOCK):
            some = slice(start, start + _BLOCK)
            units, amplitudes, at = self.units[some], self.amplitudes[some], weight[self.bins[some]]
            off = np.where(np.isnan(amplitudes), 0.0, amplitudes - center[units])
            total += np.bincount(units, at * off**2, self.n_units)
            rest -= np.bincount(units, at, self.n_units)  # to bins without an event
        return total + rest * center**2

    def part(self, first: int, stop: int) -> Events:
        """The events of the bins from ``first`` to ``stop``; the bins are renumbered from 0."""
        if (first, stop) == (0, self.n_bins):
            return self
        low, high = np.searchsorted(self.bins, [first, stop])
        bins, shape = self.bins[low:high] - np.int32(first), (stop - first, self.n_units)
        return Events(bins, self.units[low:high], self.amplitudes[low:high], shape)

    def cut(self, ranges: np.ndarray, before: int) -> Events:
        """The events of some ranges of bins, put end to end; the first with the bins ``before``."""
        first = ranges[:, 0].copy()
        first[0] -= before
        low = np.searchsorted(self.bins, first)
        high = np.searchsorted(self.bins, ranges[:, 1])
        some, moved = spans(low, high), np.repeat(offsets(ranges), high - low)
        shape = int((ranges[:, 1] - ranges[:, 0]).sum()), self.n_units
        bins = (self.bins[some] + moved).astype(np.int32)
        return Events(bins, self.units[some], self.amplitudes[some], shape)

    def at(self, bins: np.ndarray) -> Events:
        """The events of some ascending bins, renumbered from 0."""
        place = np.searchsorted(bins, self.bins)
        kept = np.append(bins, -1)[place] == self.bins
        shape = bins.size, self.n_units
        return Events(place[kept].astype(np.int32), self.units[kept], self.amplitudes[kept], shape)

    def spread(self, places: np.ndarray | None, n_bins: int) -> Events:
        """The events with bin t at ``places[t]`` of ``n_bins``; other bins have none."""
        if places is None:
            return self
        bins, shape = places[self.bins].astype(np.int32), (n_bins, self.n_units)
        events = Events(bins, self.units, self.amplitudes, shape)
        events.columns = self.columns
        return events

    def shift(self, n_bins: int) -> Events:
        """The events moved ``n_bins`` bins later."""
        shape = self.n_bins, self.n_units
        return Events(self.bins + np.int32(n_bins), self.units, self.amplitudes, shape)

    def rows(self, index: np.ndarray) -> np.ndarray:
        """Rows of the table at ascending bins, float64."""
        out = np.zeros((len(index), self.n_units))
        if len(index):
            low, high = np.searchsorted(self.bins, [index[0], index[-1] + 1])
            place = np.searchsorted(index, self.bins[low:high])
            hit = index[place] == self.bins[low:high]
            out[place[hit], self.units[low:high][hit]] = self.amplitudes[low:high][hit]
        return out


class Traces(Events):
    """A table whose numbers are mostly not zero: calcium traces, field potentials.

    All numbers are in ``values``. As `Events`, it lists the entries that are not known (NaN).

    Parameters
    ----------
    values : ndarray of shape (n_bins, n_units)
        Kept by reference.
    """

    _ROWS = 4096  # bins of one block

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        bins, units = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
        for start in self._starts(values.shape[0]):
            at, unit = np.nonzero(np.isnan(values[start : start + self._ROWS]))
            bins.append((at + start).astype(np.int32))
            units.append(unit.astype(np.int32))
        bins = np.concatenate(bins)
        super().__init__(bins, np.concatenate(units), np.full(bins.size, np.nan), values.shape)

    def _starts(self, n_bins):
        return range(0, n_bins, self._ROWS)

    def __repr__(self) -> str:
        return f"Traces(shape={self.shape})"

    def matches(self, events: Events) -> bool:
        """Whether the known entries that are not 0 are at the places of the given events."""
        for start in self._starts(self.n_bins):
            values = self.values[start : start + self._ROWS]
            at, unit = np.nonzero((values != 0) & ~np.isnan(values))
            low, high = np.searchsorted(events.bins, [start, start + len(values)])
            same = np.array_equal(at + start, events.bins[low:high])
            if not (same and np.array_equal(unit, events.units[low:high])):
                return False
        return True

    def arrays(self) -> list[np.ndarray]:
        """The array of numbers."""
        return [self.values]

    def toarray(self) -> np.ndarray:
        """The table."""
        return self.values

    def rows(self, index: np.ndarray) -> np.ndarray:
        """Rows of the table at ascending bins, float64."""
        return self.values[index].astype(np.float64)

    def forget(self, bins: np.ndarray, units: np.ndarray) -> Traces:
        """The same numbers, with those of some bins and units not known."""
        values = self.values.astype(np.float64)
        values[bins, units] = np.nan
        return Traces(values)

    def select(self, units: np.ndarray) -> Traces:
        """The numbers of some units."""
        return Traces(self.values[:, units])

    def part(self, first: int, stop: int) -> Traces:
        """The numbers of the bins from ``first`` to ``stop``."""
        return self if (first, stop) == (0, self.n_bins) else Traces(self.values[first:stop])

    def at(self, bins: np.ndarray) -> Traces:
        """The numbers of some bins."""
        return Traces(self.values[bins])

    def spread(self, places: np.ndarray | None, n_bins: int) -> Traces:
        """The numbers with bin t at ``places[t]`` of ``n_bins``; others are 0."""
        if places is None:
            return self
        events = Traces(spread(self.values, places, n_bins))
        events.columns = self.columns
        return events

    def sums(self, weight: np.ndarray) -> np.ndarray:
        """Sum of every unit's known numbers, weighted by bin, (n_units,)."""
        total = np.zeros(self.n_units)
        for start in self._starts(self.n_bins):
            some = slice(start, start + self._ROWS)
            total += weight[some] @ np.nan_to_num(self.values[some].astype(np.float64))
        return total

    def squares(self, weight: np.ndarray, center: np.ndarray) -> np.ndarray:
        """Weighted sum of squares of every unit's known numbers around a center, (n_units,)."""
        total = np.zeros(self.n_units)
        for start in self._starts(self.n_bins):
            some = slice(start, start + self._ROWS)
            total += weight[some] @ np.nan_to_num(self.values[some] - center) ** 2
        return total


def columns_of(values: object, timeline: Timeline | None = None) -> Columns | None:
    """Names of the columns of counts or covariates; None if they have none.

    Parameters
    ----------
    values : object
        As the user gave them: a table, a Series, `Events`, or a list of trials.
    timeline : Timeline, optional
        Of the values, if they are pynapple's.
    """
    if timeline is not None and timeline.columns is not None:
        return timeline.columns
    if isinstance(values, Events):
        return values.columns
    if isinstance(values, list | tuple) and len(values):
        values = values[0]
    names = column_names(values)
    return None if names is None else Columns(names)
