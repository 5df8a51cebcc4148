"""Times as users give them: their unit, what they can resolve, and whether they can be seconds."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from fastglm._checks import is_number, rounding

_EDGE = 1e-6  # bins: a spike less than this before an edge counts as on the edge
_COARSE = 0.1  # bins: times that are known less well than this are warned about
# Mean rates of recorded units are above 0.1 Hz, and times in ms divide them by 1,000.
_LONG, _SPARSE = 3600.0, 0.05  # seconds; spikes a second and unit
_DURATIONS = ("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)


# --- units of time ---


def as_seconds(values: object, name: str) -> object:
    """Values with a unit of time as an array of seconds; all other values as they are.

    Units of quantities and Neo, pint, astropy and ``timedelta64`` are known, also inside lists.

    Raises
    ------
    ValueError
        If the unit is not one of time, or entries are masked.
    """
    if np.ma.is_masked(values):
        raise ValueError(f"{name} has masked entries; remove them, such as by .compressed().")
    convert = _conversion(values)
    if convert is not None:
        try:
            return np.asarray(convert())
        except Exception as error:  # every library has its own
            raise ValueError(
                f"{name} has a unit that is not one of time ({error}); expected seconds."
            ) from None
    if isinstance(values, list | tuple) and not all(isinstance(v, int | float) for v in values):
        return [as_seconds(value, name) for value in values]
    if _kind(values) == "O":
        return as_seconds(values.tolist(), name) if values.ndim else values
    return values


def has_unit(values: object) -> bool:
    """Whether values, or some of a list of them, have a unit of time or of something else."""
    if isinstance(values, list | tuple):
        return any(has_unit(v) for v in values if not isinstance(v, int | float))
    if _kind(values) == "O" and values.ndim:
        return has_unit(values.tolist())
    return _conversion(values) is not None


def read_number(value: object, name: str) -> object:
    """A number with a unit of time as seconds; any other value as it is.

    Raises
    ------
    ValueError
        If the unit is not one of time, or there are several numbers.
    """
    if value is None or not has_unit(value):
        return value
    array = np.asarray(as_seconds(value, name))
    if array.size != 1:
        raise ValueError(f"{name} has shape {array.shape}; expected one number of seconds.")
    return float(array.item())


def _conversion(values) -> Callable[[], object] | None:
    """A function that gives values in seconds; None for values without a unit."""
    if _kind(values) == "m":
        return lambda: np.asarray(values) / np.timedelta64(1, "s")
    if hasattr(values, "rescale") and hasattr(values, "magnitude"):  # quantities, Neo
        return lambda: values.rescale("s").magnitude
    if hasattr(values, "to") and hasattr(values, "magnitude"):  # pint
        return lambda: values.to("s").magnitude
    if hasattr(values, "to_value") and hasattr(values, "unit"):  # astropy
        return lambda: values.to_value("s")
    return None


def _kind(values):
    return getattr(getattr(values, "dtype", None), "kind", None)


# --- numbers ---


def check_bin_size(bin_size: float) -> None:
    """Raise ValueError if the bin size is not a number of seconds above 0."""
    if not (is_number(bin_size) and bin_size > 0):
        raise ValueError(f"bin_size is {bin_size!r}; expected seconds above 0.")


def check_range(t_start: float | None, t_stop: float | None) -> None:
    """Raise ValueError if the ends of a range are not numbers in order; None is an open end."""
    for name, value in (("t_start", t_start), ("t_stop", t_stop)):
        if value is not None and not is_number(value):
            raise ValueError(f"{name} is {value!r}; expected seconds.")
    if t_start is not None and t_stop is not None and t_stop <= t_start:
        raise ValueError(
            f"The recording runs from {t_start} to {t_stop} s; expected t_start < t_stop."
        )


# --- resolution ---


def resolution_of(times: np.ndarray, name: str) -> float:
    """Seconds by which times may be off because of their type; 0 for float64 and integers.

    Warns
    -----
    UserWarning
        If the times are of a shorter type than float64.
    """
    if times.dtype.kind != "f" or times.dtype.itemsize >= 8 or times.size == 0:
        return 0.0
    largest = np.abs(times).max()
    step = float(np.spacing(largest))
    warnings.warn(
        f"{name} are {times.dtype}, which has steps of {step:.2g} s at {float(largest):.6g} s; "
        "spikes may be counted in the bin beside theirs. Keep times as float64.",
        UserWarning,
        stacklevel=3,
    )
    return 2 * step


def edge_of(bin_size: float, *times: object, resolution: float = 0.0) -> float:
    """Seconds before an edge of a bin within which a spike counts as on the edge.

    Parameters
    ----------
    bin_size : float
    *times
        Ends of the recording or of its segments, seconds.
    resolution : float
        Seconds by which spike times may be off; see `resolution_of`.
    """
    return min(max(_EDGE * bin_size, rounding(*times), resolution), bin_size / 2)


def warn_of_short_bins(bin_size: float, *times: object) -> None:
    """Warn if bins are so short that float64 does not place a spike in them."""
    known = rounding(*times)
    if known > _COARSE * bin_size:
        largest = max(float(np.abs(v).max()) for v in map(np.asarray, times))
        warnings.warn(
            f"At {largest:.10g} s float64 holds times to {known:.2g} s, and bins are "
            f"{bin_size:.2g} s; spikes may be counted in the bin beside theirs. Subtract the start "
            "of the recording from integer clock ticks before you convert them to seconds.",
            UserWarning,
            stacklevel=3,
        )


def end_of_last_bin(
    spike_times: np.ndarray, start: float, bin_size: float, resolution: float = 0.0
) -> float:
    """End of the bin of the last spike, in seconds."""
    last = spike_times.max(initial=start)
    edge = edge_of(bin_size, start, last + bin_size, resolution=resolution)
    return float(start + (np.floor((last - start + edge) / bin_size) + 1) * bin_size)


# --- plausibility ---


def check_default_start(spike_times: np.ndarray) -> None:
    """Raise ValueError if a recording that begins at 0 would be silent for most of its time.

    Unix times are the common case: the recording would begin in 1970.
    """
    if spike_times.size == 0:
        return
    first, last = float(spike_times.min()), float(spike_times.max())
    if first > max(_LONG, last - first):
        raise ValueError(
            f"The first spike is at {first:.10g} s, and t_start is 0 by default, so that the "
            f"recording would begin with {_duration(first)} without a spike. Give t_start in the "
            f"same clock, such as t_start={np.floor(first):.0f}."
        )


def doubt_seconds(n_spikes: int, n_units: int, seconds: float) -> str:
    """A question where times can hardly be seconds, since the units would be almost silent.

    Parameters
    ----------
    n_spikes : int
    n_units : int
        Units with spikes.
    seconds : float
        Duration, if the times are seconds.

    Returns
    -------
    str
        Empty where nothing is odd.
    """
    rate = n_spikes / max(n_units, 1) / seconds if seconds > 0 else np.inf
    if n_spikes == 0 or seconds <= _LONG or rate >= _SPARSE:
        return ""
    return (
        f"The recording would last {_duration(seconds)} at {rate:.2g} spikes a second: are times "
        "in ms or samples? Expected seconds: divide by 1000, or by the sampling rate."
    )


def warn_of_doubt(doubt: str, prefix: str = "") -> None:
    """Warn with the result of `doubt_seconds`, if there is one."""
    if doubt:
        warnings.warn(prefix + doubt, UserWarning, stacklevel=4)


def _duration(seconds):
    for name, size in _DURATIONS:
        if seconds >= size:
            return f"{seconds / size:,.1f} {name}"
    return f"{seconds:.2g} s"
