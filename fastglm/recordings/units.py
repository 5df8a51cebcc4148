"""Spike times of units, from any container, as events in bins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastglm._checks import is_number
from fastglm._pynapple import Columns, Timeline, intersect, make_support, pynapple_type
from fastglm.recordings.spikes import (
    SpikeTimes,
    as_epochs,
    check_lengths,
    check_segments,
    check_spikes,
    count_events,
    end_of_last_bin,
    full_bins,
)

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
    """Events of the counts, epochs in bins, and `Columns` of the units; see `fit_coupling`."""
    if pynapple_type(units) == "TsGroup":
        return _read_group(units, bin_size, epochs, t_start, t_stop)
    if isinstance(units, SpikeTimes):
        spikes = units.spike_times, units.unit, units.n_units
        names, own, whole = units.names, units.segments, (units.t_start, units.t_stop)
    else:
        spikes, names = _concatenate(units)
        low = 0.0 if t_start is None and epochs is None else float(spikes[0].min(initial=0.0))
        spikes = check_spikes(*spikes, min(low, 0.0), None)
        start = low if t_start is None else t_start
        _check_range(start, t_stop)
        whole = start, end_of_last_bin(spikes[0], start, bin_size)
        own = None
    if epochs is not None:
        given = check_segments(epochs, -np.inf, np.inf)
        own = given if own is None else intersect(given, own)
    segments = _cut(own, whole, t_start, t_stop)
    lengths = full_bins(segments, bin_size)
    events = count_events(*spikes, bin_size, segments, lengths)
    columns = Columns(list(range(spikes[2])) if names is None else names)
    events.columns = columns
    return events, as_epochs(lengths), columns


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
    events = count_events(
        spike_times, unit, len(times), bin_size, segments, lengths, _HALF_NANOSECOND
    )
    events.columns = columns
    events.timeline = Timeline(support, grid=(segments[:, 0], lengths, bin_size), columns=columns)
    return events, as_epochs(lengths), columns


def _cut(segments, whole, t_start, t_stop):
    """The segments, or the whole range, inside t_start and t_stop."""
    _check_range(t_start, t_stop)
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


def _check_range(t_start, t_stop):
    for name, value in (("t_start", t_start), ("t_stop", t_stop)):
        if value is not None and not is_number(value):
            raise ValueError(f"{name} is {value!r}; expected seconds.")
    if t_start is not None and t_stop is not None and t_stop <= t_start:
        raise ValueError(
            f"The recording runs from {t_start} to {t_stop} s; expected t_start < t_stop."
        )


def _concatenate(units):
    """Spike times, units and number of units of a list or dict of arrays, and the names."""
    if not isinstance(units, dict | list | tuple) or len(units) == 0:
        raise ValueError(
            f"units is a {type(units).__name__}; expected a TsGroup, the result of load_spikes, or "
            "a list or dict with an array of spike times for each unit. Counts go into "
            "basis.compute_features and PopulationGLM.fit."
        )
    names = list(units) if isinstance(units, dict) else None
    times = []
    for name, values in units.items() if names is not None else enumerate(units):
        array = np.asarray(values.t if pynapple_type(values) is not None else values)
        array = array.astype(np.float64) if array.size == 0 else array
        if array.ndim != 1 or array.dtype.kind not in "fiu":
            raise ValueError(
                f"unit {name!r} has shape {array.shape} and dtype {array.dtype}; expected a "
                "one-dimensional array of spike times in seconds."
            )
        times.append(array)
    unit = np.repeat(np.arange(len(times)), [t.size for t in times])
    return (np.concatenate(times), unit, len(times)), names
