"""Spike times of units, from any container, as events in bins."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastglm._checks import rounding
from fastglm._pynapple import Columns, Timeline, intersect, make_support, pynapple_type
from fastglm.recordings.intervals import as_epochs, check_lengths, check_segments
from fastglm.recordings.spikes import SpikeTimes
from fastglm.recordings.times import (
    as_seconds,
    check_default_start,
    check_range,
    end_of_last_bin,
    has_unit,
    read_number,
    resolution_of,
    warn_of_doubt,
)
from fastglm.recordings.trains import Spikes, as_vector, check_spikes, count_events

if TYPE_CHECKING:
    from fastglm.features.events import Events

_HALF_NANOSECOND = 5e-10  # pynapple rounds times to nanoseconds


def read_units(
    units: object,
    bin_size: float,
    epochs: object | None = None,
    t_start: float | None = None,
    t_stop: float | None = None,
) -> tuple[Events, np.ndarray, Columns]:
    """Events of the counts, epochs in bins, and `Columns` of the units; see `fit_coupling`.

    ``grid`` of the events has the times of the bins.
    """
    t_start, t_stop = read_number(t_start, "t_start"), read_number(t_stop, "t_stop")
    if pynapple_type(units) == "TsGroup":
        return _read_group(units, bin_size, epochs, t_start, t_stop)
    stated = t_stop is not None or epochs is not None
    if isinstance(units, SpikeTimes):
        spikes = units.checked()
        names, own, whole = units.names, units.segments, (units.t_start, units.t_stop)
    else:
        trains = read_trains(units)
        names, own = trains.names, trains.support
        stated = stated or own is not None
        default_start = t_start is None and epochs is None and own is None
        times = np.concatenate(trains.times)
        low = 0.0 if default_start else min(float(times.min(initial=0.0)), 0.0)
        unit = np.repeat(np.arange(len(trains.times)), [t.size for t in trains.times])
        spikes = check_spikes(times, unit, len(trains.times), low, None)
        spikes = spikes._replace(resolution=trains.resolution, certain=trains.certain)
        if default_start:
            check_default_start(times)
        start = low if t_start is None else t_start
        check_range(start, t_stop)
        whole = start, end_of_last_bin(times, start, bin_size, trains.resolution)
    if epochs is not None:
        given = check_segments(epochs, -np.inf, np.inf)
        own = given if own is None else intersect(given, own)
    segments = _cut(own, whole, t_start, t_stop)
    events, bounds = spikes.events(bin_size, segments, stated)
    names = list(range(spikes.n_units)) if names is None else names
    columns = Columns(names, getattr(units, "metadata", None) or {})
    events.columns = columns
    return events, bounds, columns


def _read_group(units, bin_size, epochs, t_start, t_stop):
    """As `read_units`, for a TsGroup: in the bins of its ``count``, rounded to nanoseconds."""
    support = units.time_support
    segments = support.values
    if epochs is not None:
        segments = intersect(check_segments(epochs, -np.inf, np.inf), segments)
    segments = _cut(segments, None, t_start, t_stop)
    if not np.array_equal(segments, support.values):
        support = make_support(support, segments)
        segments = support.values
    bin_size = round(bin_size, 9)
    lengths = np.diff(segments)[:, 0] / bin_size + 0.5 + 1e-6
    lengths = check_lengths(lengths, bin_size, segments)
    columns = Columns.of(units)
    times = [units[name].t for name in columns.names]
    unit = np.repeat(np.arange(len(times)), [t.size for t in times])
    spike_times = np.concatenate(times)
    spikes = Spikes(spike_times, unit, len(times), 0.0, False)
    warn_of_doubt(spikes.doubt(segments))
    edge = max(_HALF_NANOSECOND, min(rounding(segments), bin_size / 2))
    events = count_events(*spikes[:3], bin_size, segments, lengths, edge)
    events.columns = columns
    events.timeline = Timeline(support, grid=(segments[:, 0], lengths, bin_size), columns=columns)
    return events, as_epochs(lengths), columns


def _cut(segments, whole, t_start, t_stop):
    """The segments, or the whole range, inside t_start and t_stop."""
    check_range(t_start, t_stop)
    if segments is None:
        segments = np.array([whole], dtype=np.float64)
        if t_stop is not None:  # the range may end after the last spike
            segments[0, 1] = t_stop
    if t_start is not None or t_stop is not None:
        low = -np.inf if t_start is None else t_start
        segments = intersect(segments, [[low, np.inf if t_stop is None else t_stop]])
    if len(segments) == 0:
        raise ValueError(
            "Nothing is left of the recording: epochs, t_start and t_stop have no time in common "
            "with each other or with the time support. All are seconds."
        )
    return segments


class Trains(NamedTuple):
    """Spike times of units in a list or dict.

    Attributes
    ----------
    times : list of ndarrays of float64
        Seconds, ascending.
    names : list or None
        Keys of a dict.
    support : ndarray of shape (n_intervals, 2) or None
        Times at which all units were observed; None if no unit says when it was.
    resolution : float
        Seconds by which the times may be off because of their type.
    certain : bool
        Whether all times came with a unit of time.
    """

    times: list[np.ndarray]
    names: list | None
    support: np.ndarray | None
    resolution: float
    certain: bool


def read_trains(units: object) -> Trains:
    """Spike times of each unit of a list or dict.

    Raises
    ------
    ValueError
        If a unit is no array of times in order, or the units were never observed together.
    """
    if type(units).__name__ == "SpikeTrainList":  # Neo
        units = list(units)
    if not isinstance(units, dict | list | tuple) or len(units) == 0:
        raise ValueError(
            f"units is a {type(units).__name__}; expected a TsGroup, the result of load_spikes, or "
            "a list or dict with an array of spike times for each unit. Counts go into "
            "basis.compute_features and PopulationGLM.fit."
        )
    names = list(units) if isinstance(units, dict) else None
    given = list(units.values()) if names is not None else list(units)
    times = [
        _read_train(name, values)
        for name, values in zip(names or range(len(given)), given, strict=True)
    ]
    short = [t for t in times if t.dtype.kind == "f" and t.dtype.itemsize < 8]
    resolution = resolution_of(np.concatenate(short), "spike times") if short else 0.0
    support = None
    for own in filter(lambda s: s is not None, map(_support, given)):
        support = own if support is None else intersect(support, own)
    if support is not None and len(support) == 0:
        raise ValueError(
            "The time supports of the units have no time in common, so that no bin has counts of "
            "all units. Leave units out, or pass their times as arrays with epochs."
        )
    certain = all(has_unit(values) for values, t in zip(given, times, strict=True) if t.size)
    return Trains([t.astype(np.float64) for t in times], names, support, resolution, certain)


def _read_train(name, values):
    """Times of one unit, seconds, in the type in which they were given."""
    if pynapple_type(values) is not None:
        values = values.t
    array = as_vector(f"unit {name!r}", as_seconds(values, f"unit {name!r}"))
    falls = np.flatnonzero(array[1:] < array[:-1])
    if falls.size:
        raise ValueError(
            f"Spike times of unit {name!r} are not ascending at index {falls[0] + 1}; sort them "
            "with np.sort."
        )
    return array


def _support(values):
    """When a unit was observed, (n_intervals, 2); None if it does not say."""
    if pynapple_type(values) is not None:
        support, t = values.time_support.values, values.t
        # Without a time support pynapple takes the first to the last spike.
        default = t.size > 0 and np.array_equal(support, [[t[0], t[-1]]])
        return None if default or len(support) == 0 else support
    if has_unit(values) and hasattr(values, "t_start") and hasattr(values, "t_stop"):  # Neo
        ends = [read_number(getattr(values, name), name) for name in ("t_start", "t_stop")]
        return np.array([ends])
    return None
