"""Intervals of time: epochs, trials and observed times, in seconds."""

from __future__ import annotations

import warnings

import numpy as np

from fastglm._checks import rounding
from fastglm._pynapple import intersect, read_intervals
from fastglm.recordings.times import as_seconds, edge_of, has_unit

_TOUCH = 1e-6  # seconds: a shorter overlap is a rounding error
_MAX_BINS = 2**31 - 2**20  # bins are counted in 32 bits
_SHOWN = 5  # rows that a warning names


def check_segments(
    segments: object, t_start: float, t_stop: float, name: str = "epochs"
) -> np.ndarray:
    """Checked intervals in seconds, (n_segments, 2); None is one interval of the whole range.

    A stop that is past the next start by a rounding error is set to that start.

    Raises
    ------
    ValueError
        If there is no interval, or intervals are not finite, not ascending, overlap or leave the
        range.

    Warns
    -----
    UserWarning
        If intervals are left out because their stop is not after their start.
    """
    if segments is None:
        return np.array([[t_start, t_stop]], dtype=np.float64)
    try:
        given = np.asarray(as_seconds(_bounds(segments, name), name))
    except ValueError as error:
        if "inhomogeneous" not in str(error):
            raise
        raise ValueError(
            f"{name} has rows of different lengths; expected start and stop."
        ) from None
    if given.ndim != 2 or given.shape[1] != 2 or given.shape[0] == 0:
        raise ValueError(
            f"{name} has shape {given.shape}; expected (n_epochs, 2), start and stop in seconds."
        )
    if given.dtype.kind not in "fiu":
        raise ValueError(f"{name} has dtype {given.dtype}; expected seconds.")
    segments = given.astype(np.float64)
    if not np.isfinite(segments).all() or not (segments[:, 1] > segments[:, 0]).any():
        raise ValueError(f"{name} must be finite and each stop after its start.")
    step = np.spacing(np.abs(given).max()) if given.dtype.kind == "f" else 0.0
    segments = segments[ends_after_start(segments, name)]
    segments = close_touching(segments, 2 * float(step))
    if overlap(segments):
        raise ValueError(f"{name} must be ascending and not overlapping; sort or merge them.")
    slack = max(_TOUCH, rounding(segments[[0, -1]]))
    if segments[0, 0] < t_start - slack or segments[-1, 1] > t_stop + slack:
        raise ValueError(
            f"{name} run from {segments[0, 0]} to {segments[-1, 1]} s, out of the recording's "
            f"range {t_start} to {t_stop} s."
        )
    return segments


def _bounds(intervals, name):
    """Starts and stops of an IntervalSet or of Neo's Epoch; other values as they are."""
    if has_unit(intervals) and hasattr(intervals, "durations"):
        starts = as_seconds(intervals, name)
        return np.column_stack([starts, starts + as_seconds(intervals.durations, name)])
    return read_intervals(intervals)


def ends_after_start(
    intervals: np.ndarray, name: str, rows: np.ndarray | None = None
) -> np.ndarray:
    """Which intervals end after their start, a boolean array; one warning names the others.

    Parameters
    ----------
    intervals : ndarray of shape (n_intervals, 2)
    name : str
        The table, with its file where it has one.
    rows : ndarray of int, optional
        Their rows in the table. Default: 0, 1, 2, ...
    """
    keep = np.isfinite(intervals).all(axis=1) & (intervals[:, 1] > intervals[:, 0])
    if not keep.all():
        rows = np.arange(len(keep)) if rows is None else rows
        bad = [
            f"row {row} ({start:.6g} to {stop:.6g} s)"
            for row, (start, stop) in zip(rows[~keep], intervals[~keep], strict=True)
        ]
        more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        warnings.warn(
            f"{name}: {', '.join(bad[:_SHOWN])}{more} of {len(keep)} rows do not end after their "
            "start; they are left out.",
            UserWarning,
            stacklevel=3,
        )
    return keep


def close_touching(intervals: np.ndarray, step: float = 0.0) -> np.ndarray:
    """Ascending intervals, of which none ends past the next start by a rounding error.

    Parameters
    ----------
    intervals : ndarray of float64, shape (n_intervals, 2)
    step : float
        Seconds by which bounds may be off beyond a microsecond.
    """
    after = intervals[:-1, 1] - intervals[1:, 0]
    touching = (after > 0) & (after <= max(_TOUCH, step, rounding(intervals)))
    touching &= intervals[1:, 0] > intervals[:-1, 0]
    stops = intervals[:, 1].copy()
    stops[:-1][touching] = intervals[1:, 0][touching]
    return np.column_stack([intervals[:, 0], stops])


def in_order(intervals: np.ndarray) -> np.ndarray:
    """Intervals in order of their starts, touching ones closed; see `close_touching`."""
    return close_touching(intervals[np.argsort(intervals[:, 0], kind="stable")])


def overlap(intervals: np.ndarray) -> bool:
    """Whether intervals in order of their starts overlap."""
    return bool((intervals[1:, 0] < intervals[:-1, 1]).any())


def merge(intervals: np.ndarray) -> np.ndarray:
    """Union of intervals in order of their starts; those that overlap become one."""
    if len(intervals) == 0:
        return intervals
    reached = np.maximum.accumulate(intervals[:, 1])
    first = np.flatnonzero(np.append(True, intervals[1:, 0] >= reached[:-1]))
    return np.column_stack([intervals[first, 0], np.maximum.reduceat(intervals[:, 1], first)])


def subtract(intervals: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The parts of ascending intervals that lie in none of the others, also ascending."""
    if len(other) == 0:
        return intervals
    gaps = np.column_stack([np.append(-np.inf, other[:, 1]), np.append(other[:, 0], np.inf)])
    return intersect(intervals, gaps[gaps[:, 1] > gaps[:, 0]])


def end_to_end(ranges: np.ndarray) -> np.ndarray:
    """What to add to the times of each segment, so that segments follow each other, (n_segments,).

    It is 0 where the segments follow each other already. Else each begins where the last one ends.

    Parameters
    ----------
    ranges : ndarray of shape (n_segments, 2)
        Start and stop of each segment in its own clock, seconds.
    """
    if not overlap(ranges):
        return np.zeros(len(ranges))
    stops = ranges[0, 1] + np.cumsum(np.append(0.0, np.diff(ranges[1:])[:, 0]))
    return np.append(0.0, stops[:-1] - ranges[1:, 0])


# --- bins ---


def full_bins(segments: np.ndarray, bin_size: float, resolution: float = 0.0) -> np.ndarray:
    """Number of bins that fit into each segment."""
    edge = edge_of(bin_size, segments, resolution=resolution)
    with np.errstate(over="ignore"):
        return check_lengths((np.diff(segments)[:, 0] + edge) / bin_size, bin_size, segments)


def check_lengths(lengths: np.ndarray, bin_size: float, segments: np.ndarray) -> np.ndarray:
    """Numbers of bins, rounded down; raises if there is no bin, or there are too many."""
    lengths = np.floor(lengths)
    if lengths.sum() > _MAX_BINS:
        raise ValueError(
            f"Bins of {bin_size} s would be {lengths.sum():.3g} from {segments[0, 0]:.10g} to "
            f"{segments[-1, 1]:.10g} s, more than {_MAX_BINS}; use wider bins, or check that all "
            "times are seconds."
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
