"""Bins in seconds: when a bin is, and which sample a bin sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastglm._checks import rounding
from fastglm._pynapple import Timeline

_CHUNK = 1 << 20  # bins whose times are made together
_SLACK = 0.01  # bins by which a sample may come late; times are rounded to 1e-9 s


@dataclass(frozen=True)
class Grid:
    """Times of bins: stretches of bins of one size, put end to end.

    Attributes
    ----------
    starts : ndarray of shape (n_stretches,)
        Where the first bin of each stretch begins, seconds.
    lengths : ndarray of int, shape (n_stretches,)
        Bins of each stretch.
    bin_size : float
        Seconds.
    """

    starts: np.ndarray
    lengths: np.ndarray
    bin_size: float

    @classmethod
    def of(cls, timeline: Timeline, bin_size: float) -> Grid:
        """The grid of bins that have times; ``bin_size`` serves where each stretch is one bin."""
        bounds, t = timeline.epochs, timeline.t
        lengths = np.diff(bounds)[:, 0]
        steps = (lengths - 1).sum()
        if steps:
            bin_size = float((t[bounds[:, 1] - 1] - t[bounds[:, 0]]).sum() / steps)
        return cls(t[bounds[:, 0]] - bin_size / 2, lengths, bin_size)

    @property
    def n_bins(self) -> int:
        """Number of bins."""
        return int(self.lengths.sum())

    @property
    def ends(self) -> tuple[float, float]:
        """Start of the first bin and end of the last one, seconds."""
        return float(self.starts[0]), float(self.starts[-1] + self.lengths[-1] * self.bin_size)

    def middles(self, first: int, stop: int) -> np.ndarray:
        """Middle of every bin from ``first`` to ``stop``, seconds."""
        stops = np.cumsum(self.lengths)
        bins = np.arange(first, stop)
        stretch = np.searchsorted(stops, bins, side="right")
        number = bins - (stops - self.lengths)[stretch]
        return self.starts[stretch] + (number + 0.5) * self.bin_size

    @property
    def segments(self) -> np.ndarray:
        """Start and end of each stretch, seconds, (n_stretches, 2)."""
        return np.column_stack([self.starts, self.starts + self.lengths * self.bin_size])

    def runs(self, times: np.ndarray, until: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Runs of bins that see the same sample: their first bins, and the sample or -1.

        A bin sees the last sample that is not after its middle, if the sample still holds there.

        Parameters
        ----------
        times : ndarray of shape (n_samples,)
            Seconds, ascending.
        until : ndarray of shape (n_samples,)
            Until when a sample holds, seconds.
        """
        slack = min(max(_SLACK * self.bin_size, rounding(times)), self.bin_size / 2)
        starts, samples, last = [], [], -2
        for first in range(0, self.n_bins, _CHUNK):
            t = self.middles(first, min(first + _CHUNK, self.n_bins))
            seen = np.searchsorted(times, t + slack, side="right") - 1
            seen[t > until[seen] + slack] = -1
            change = np.flatnonzero(np.diff(seen, prepend=last))
            starts.append(first + change)
            samples.append(seen[change])
            last = seen[-1]
        return np.concatenate(starts), np.concatenate(samples)


@dataclass(frozen=True)
class Bins:
    """The bins that covariates go to.

    Attributes
    ----------
    n_bins : int
    epochs : ndarray of shape (n_epochs, 2)
        First bin and one past the last.
    grid : Grid or None
        Their times; None where nothing says them.
    """

    n_bins: int
    epochs: np.ndarray
    grid: Grid | None = None
