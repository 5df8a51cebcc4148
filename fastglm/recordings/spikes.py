"""Recordings: when units fired and when they were observed, from files to events in bins.

Spikes are placed in bins without a table of all bins: memory follows the number of spikes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fastglm import _html
from fastglm._pynapple import Columns
from fastglm.features.events import Events
from fastglm.recordings.intervals import check_segments
from fastglm.recordings.times import (
    check_bin_size,
    check_default_start,
    end_of_last_bin,
    read_number,
)
from fastglm.recordings.trains import Spikes, check_spikes

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(repr=False)
class SpikeTimes:
    """A recording: when each unit fired, and when it was observed.

    Attributes
    ----------
    spike_times : ndarray of float64, shape (n_spikes,)
        Seconds, ascending within each unit.
    unit : ndarray of int, shape (n_spikes,)
        0 to n_units - 1.
    n_units : int
    t_start, t_stop : float
        Seconds.
    segments : ndarray of shape (n_segments, 2)
        Observed intervals in seconds. One interval from t_start to t_stop if the file has none.
    adjacency : ndarray of shape (n_units, n_units) or None
        True weight from sender (row) to receiver (column), if it is known.
    names : list or None
        Names of the units, if they have names.
    invalid : float
        Seconds that ``invalid_times`` of the file take from the segments.
    resolution : float
        Seconds by which spike times may be off because a file holds them as float32; else 0.
    metadata : dict of str to list
        Columns of the table of units with one value for each unit.
    """

    spike_times: np.ndarray
    unit: np.ndarray
    n_units: int
    t_start: float
    t_stop: float
    segments: np.ndarray
    adjacency: np.ndarray | None = None
    names: list | None = None
    invalid: float = 0.0
    resolution: float = 0.0
    metadata: dict = field(default_factory=dict)

    def __repr__(self) -> str:
        n = len(self.segments)
        parts = "" if n == 1 else f" in {n:,} segments"
        units = "1 unit" if self.n_units == 1 else f"{self.n_units:,} units"
        invalid = f", without {self.invalid:,.6g} s of invalid_times" if self.invalid else ""
        return (
            f"SpikeTimes of {units}: {self.spike_times.size:,} spikes, "
            f"{self._seconds():,.6g} s{parts}{invalid}"
        )

    def _repr_html_(self):
        names = range(self.n_units) if self.names is None else self.names
        sizes = np.bincount(self.unit, minlength=self.n_units)
        seconds = self._seconds()
        rows = [
            [str(name), f"{size:,}", _html.number(size / seconds if seconds else np.nan)]
            for name, size in zip(names, sizes, strict=True)
        ]
        return _html.table(repr(self), rows, ["unit", "spikes", "rate (Hz)"])

    def _seconds(self):
        """Time for which the units were observed, in seconds."""
        return float(np.diff(self.segments).sum())

    def bin(self, bin_size: float) -> tuple[np.ndarray, np.ndarray]:
        """Counts of shape (n_bins, n_units) and epochs in bins; see `bin_spikes`."""
        events, epochs = self.events(bin_size)
        return events.toarray(), epochs

    def events(self, bin_size: float) -> tuple[Events, np.ndarray]:
        """The counts that are not zero, as `fastglm.features.Events`, and epochs in bins.

        ``compute_features`` and ``fit`` take the events in place of counts. Memory: about 100 bytes
        a spike while the events are made and 16 bytes a spike afterwards; the number of bins has no
        effect.
        """
        bin_size = read_number(bin_size, "bin_size")
        check_bin_size(bin_size)
        events, epochs = self.checked().events(bin_size, self.segments, stated=True)
        events.columns = (
            None if self.names is None else Columns(list(self.names), dict(self.metadata))
        )
        return events, epochs

    def checked(self) -> Spikes:
        """The spikes without the recording. Doubts about their times were said when it was made."""
        return Spikes(self.spike_times, self.unit, self.n_units, self.resolution, True)


def bin_spikes(
    spike_times: ArrayLike,
    unit: ArrayLike,
    bin_size: float,
    *,
    n_units: int | None = None,
    t_start: float | None = None,
    t_stop: float | None = None,
    epochs: ArrayLike | None = None,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Count spikes in bins.

    Bin k of an epoch that starts at a holds the spikes with ``a + k * bin_size <= t`` and
    ``t < a + (k + 1) * bin_size``. A spike less than a millionth of a bin before an edge counts as
    on the edge, and so does one that is nearer to it than times of its size are known: 0.5 us for
    Unix times. Epochs are put end to end. Spikes outside all epochs are left out, and so is the
    end of an epoch that does not fill a bin.

    Parameters
    ----------
    spike_times : array of shape (n_spikes,)
        Seconds, ascending within each unit. Times with a unit (quantities, Neo, pint, astropy) are
        converted, here and in all other arguments.
    unit : array of int, shape (n_spikes,)
    bin_size : float
        Seconds.
    n_units : int, optional
        Default: the largest unit plus one.
    t_start, t_stop : float, optional
        Range of the recording in seconds. Default: 0, and the end of the last spike's bin. Unix
        times need t_start.
    epochs : array of shape (n_epochs, 2) or IntervalSet, optional
        Observed intervals in seconds.

    Returns
    -------
    counts : ndarray of shape (n_bins, n_units)
        In int32, or in int64 where sums of products of the counts need it.
    epochs : ndarray of int, shape (n_epochs, 2)
        First bin and one past the last of every epoch, for ``compute_features``. Returned only if
        ``epochs`` is given.

    Raises
    ------
    ValueError
        If times are NaN, not ascending within a unit or out of range, units are negative, not
        integers or too large, or epochs overlap; if the first spike is so late that t_start is
        missing; if neither t_stop nor epochs are given and the times can hardly be seconds.

    Warns
    -----
    UserWarning
        If times are float32, or can hardly be seconds although t_stop or epochs are given, or
        epochs that do not end after their start are left out.

    Examples
    --------
    >>> import fastglm
    >>> fastglm.bin_spikes([0.001, 0.004, 0.002], [0, 0, 1], bin_size=0.002)
    array([[1, 0],
           [0, 1],
           [1, 0]], dtype=int32)
    """
    bin_size, t_start, t_stop = (
        read_number(value, name)
        for name, value in (("bin_size", bin_size), ("t_start", t_start), ("t_stop", t_stop))
    )
    check_bin_size(bin_size)
    start = 0.0 if t_start is None else t_start
    spikes = check_spikes(spike_times, unit, n_units, start, t_stop)
    if t_start is None and epochs is None:
        check_default_start(spikes.spike_times)
    stated = t_stop is not None or epochs is not None
    if t_stop is None:
        t_stop = end_of_last_bin(spikes.spike_times, start, bin_size, spikes.resolution)
    segments = check_segments(epochs, start, float(t_stop))
    events, bounds = spikes.events(bin_size, segments, stated)
    return events.toarray() if epochs is None else (events.toarray(), bounds)
