"""SpikeInterface's objects: a ``BaseSorting``, or a ``SortingAnalyzer`` with its metrics.

They are known by their methods, so that SpikeInterface is never imported here. Any of its readers
makes such an object.
"""

from __future__ import annotations

import numpy as np

from fastglm.recordings.channels import largest_channel
from fastglm.recordings.intervals import end_to_end
from fastglm.recordings.table import Units, UnitTable


def is_sorting(value: object) -> bool:
    """Whether a value is a sorting, or an analyzer that has one."""
    return _is_analyzer(value) or (
        hasattr(value, "get_unit_spike_train") and hasattr(value, "unit_ids")
    )


def _is_analyzer(value):
    return hasattr(value, "sorting") and hasattr(value, "get_extension")


def read_units(value: object, where: str | None = None, epochs: str | None = None) -> Units:
    """The units of a sorting, and what an analyzer knows of them.

    Times are those of ``get_unit_spike_train(..., return_times=True)``: frames over the sampling
    frequency, or the times of a registered recording. A segment ends with its recording, if that is
    known, else with the frame of its last spike. Segments whose times overlap, such as those that
    all begin at 0, are put end to end. Columns are the properties of one value for each unit. From
    an analyzer come its quality metrics, and ``channel``, where the template is largest.
    """
    analyzer = value if _is_analyzer(value) else None
    sorting = value if analyzer is None else value.sorting
    n_segments, units = sorting.get_num_segments(), list(sorting.unit_ids)
    trains = [
        [sorting.get_unit_spike_train(unit, k, return_times=True) for unit in units]
        for k in range(n_segments)
    ]
    ranges = np.array([_range(sorting, analyzer, units, k, trains[k]) for k in range(n_segments)])
    shifts = end_to_end(ranges)
    segments = ranges + shifts[:, None]
    columns = _properties(sorting)
    if analyzer is not None:
        columns |= _metrics(analyzer, units) | _channels(analyzer)
    return UnitTable(
        type(value).__name__,
        [
            np.concatenate([np.asarray(one[k]) + t for one, t in zip(trains, shifts, strict=True)])
            for k in range(len(units))
        ],
        [unit.item() if isinstance(unit, np.generic) else unit for unit in units],
        columns,
        [segments] * len(units),
        certain=True,
    ).choose(where, epochs)


def _range(sorting, analyzer, units, segment, trains):
    """Start and stop of a segment, seconds."""
    rate = float(sorting.get_sampling_frequency())
    start = sorting.get_start_time(segment) if hasattr(sorting, "get_start_time") else 0.0
    if analyzer is not None:
        n_samples = analyzer.get_num_samples(segment)
    elif sorting.has_recording():
        n_samples = sorting.get_num_samples(segment)
    else:
        frames = [sorting.get_unit_spike_train(unit, segment) for unit in units]
        n_samples = max((int(f.max()) + 1 for f in frames if f.size), default=1)
    stop = float(start) + n_samples / rate
    last = max((float(t.max()) for t in trains if t.size), default=start)
    # The times of a recording may have gaps, which its number of samples does not show.
    return float(start), stop if last <= stop else last + 1 / rate


def _properties(sorting):
    """Properties with one number, truth value or text for each unit."""
    found = {key: np.asarray(sorting.get_property(key)) for key in sorting.get_property_keys()}
    return {key: list(v) for key, v in found.items() if v.ndim == 1 and v.dtype.kind in "biufUSO"}


def _metrics(analyzer, units):
    """Quality metrics, if the analyzer has them."""
    metrics = analyzer.get_extension("quality_metrics")
    if metrics is None:
        return {}
    table = metrics.get_data().loc[units]
    return {str(name): table[name].tolist() for name in table.columns}


def _channels(analyzer):
    """The id of the channel where the template of each unit is largest, if there are templates."""
    templates = analyzer.get_extension("templates")
    if templates is None:
        return {}
    shapes = templates.get_data(operator="average")  # (n_units, n_samples, n_channels)
    ids = np.asarray(analyzer.channel_ids)
    return {"channel": [ids[largest_channel(shape)] for shape in shapes]}
