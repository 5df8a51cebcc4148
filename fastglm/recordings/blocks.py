"""Neo's objects: spike trains, segments and blocks.

They are known by the module of their class, so that Neo is never imported here.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from fastglm.recordings.intervals import end_to_end
from fastglm.recordings.table import Units, UnitTable, listed
from fastglm.recordings.times import as_seconds, read_number


def is_neo(value: object) -> bool:
    """Whether a value is a SpikeTrain, Segment or Block of Neo, or a list of one kind of them."""
    return _kind(value) is not None


def _kind(value):
    """Name of Neo's class of a value, or of all entries of a list; None for other values."""
    for cls in type(value).__mro__:
        if cls.__module__.partition(".")[0] == "neo":
            name = cls.__name__.removesuffix("Proxy")
            if name == "SpikeTrainList":
                return "SpikeTrain"
            return name if name in ("SpikeTrain", "Segment", "Block") else None
    if isinstance(value, list | tuple) and len(value) and not isinstance(value[0], list | tuple):
        kinds = set(map(_kind, value))
        return kinds.pop() if len(kinds) == 1 else None
    return None


def read_units(value: object, where: str | None = None, epochs: str | None = None) -> Units:
    """The units of a list of spike trains, of a segment, or of all segments of a block.

    Trains of several segments are one unit if they have the same name, or the same place where
    names are missing or not unique. A unit is observed from ``t_start`` to ``t_stop`` of its
    trains. Segments whose times overlap, such as those that all begin at 0, are put end to end.
    Columns are the annotations of the trains. Epochs of the segments may be chosen by their names.
    """
    source = f"Neo's {_kind(value)}"
    parts = [part for part in _parts(value) if part.trains]
    if not parts:
        raise ValueError(f"{source} has no spike trains.")
    spans = [np.array([_span(train) for train in part.trains]) for part in parts]
    shifts = end_to_end(np.array([[own[:, 0].min(), own[:, 1].max()] for own in spans]))
    names, rows = _match([part.trains for part in parts], source)
    table = UnitTable(
        source,
        [np.concatenate([_times(train, shifts[k]) for k, train in row]) for row in rows],
        names,
        _annotations([row[0][1] for row in rows]),
        [np.array([_span(train) + shifts[k] for k, train in row]) for row in rows],
        _named_epochs(parts, shifts),
        certain=True,
    )
    some = [name for name, row in zip(names, rows, strict=True) if len(row) < len(parts)]
    if some and where is None:
        warnings.warn(
            f"{source}: some of its {len(parts)} segments have no train of {listed(some)}, and are "
            "left out; choose units that are in all segments with `where`.",
            UserWarning,
            stacklevel=3,
        )
    return table.choose(where, epochs)


class _Part(NamedTuple):
    """The trains and epochs of a segment."""

    trains: list
    epochs: list


def _parts(value):
    """The segments of a value, in order."""
    kind = _kind(value)
    if kind == "SpikeTrain":
        trains = [value] if hasattr(value, "t_start") else list(value)
        return [_Part([_loaded(train) for train in trains], [])]
    if isinstance(value, list | tuple):
        return [part for one in value for part in _parts(one)]
    if kind == "Block":
        return [part for segment in value.segments for part in _parts(segment)]
    return [_Part(*(list(map(_loaded, own)) for own in (value.spiketrains, value.epochs)))]


def _loaded(value):
    """A train or epoch; one that a reader left on the disk is read."""
    return value.load() if hasattr(value, "load") else value


def _match(trains, source):
    """Names of the units, and their trains as pairs of the number of the segment and the train."""
    names = [[train.name for train in own] for own in trains]
    if all(all(own) and len(set(own)) == len(own) for own in names):
        rows = {}
        for k, own in enumerate(trains):
            for train in own:
                rows.setdefault(train.name, []).append((k, train))
        return list(rows), list(rows.values())
    sizes = sorted({len(own) for own in trains})
    if len(sizes) > 1:
        raise ValueError(
            f"{source} has segments with {' and '.join(map(str, sizes))} spike trains, whose names "
            "are missing or not unique; give each train the name of its unit."
        )
    rows = [list(enumerate(row)) for row in zip(*trains, strict=True)]
    return list(range(sizes[0])), rows


def _times(train, shift):
    """Times of a train in seconds, in its type."""
    times = np.asarray(as_seconds(train, "spike times"))
    return np.add(times, shift, dtype=times.dtype)


def _span(train):
    """Start and stop of a train in seconds."""
    return np.array([read_number(getattr(train, end), end) for end in ("t_start", "t_stop")])


def _annotations(trains):
    """Annotations of one number, truth value or text, and None where a train has none."""
    keys = dict.fromkeys(key for train in trains for key in train.annotations)
    columns = {key: [train.annotations.get(key) for train in trains] for key in keys}
    plain = str | int | float | np.generic | None
    return {
        key: values for key, values in columns.items() if all(isinstance(v, plain) for v in values)
    }


def _named_epochs(parts, shifts):
    """Start and stop of all epochs of a name, seconds."""
    found = {}
    for part, shift in zip(parts, shifts, strict=True):
        for epoch in part.epochs:
            starts = as_seconds(epoch, "epochs") + shift
            bounds = np.column_stack([starts, starts + as_seconds(epoch.durations, "epochs")])
            found.setdefault(epoch.name, []).append(bounds)
    return {name: np.concatenate(bounds) for name, bounds in found.items() if name}
