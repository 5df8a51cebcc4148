"""Times at the door: pynapple's objects in and out, and sets of intervals.

`read_values` turns a Tsd, TsdFrame or TsdTensor into an array and a `Timeline`. `read_intervals`
turns an IntervalSet into starts and stops. `Timeline.wrap` gives results the times, the time
support, the columns and the metadata back. Objects are recognised by the module of their type, so
that pynapple is never imported before the user imports it.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fastglm._checks import rounding

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_TOLERANCE = 0.01  # bins; pynapple rounds times to 1e-9 s, 1e-5 of the smallest bins in use


def pynapple_type(value: object) -> str | None:
    """Name of the value's class in pynapple, such as "TsdFrame"; None for other values."""
    for cls in type(value).__mro__:
        if cls.__module__.startswith("pynapple."):
            return cls.__name__
    return None


def _slack(t, bin_size):
    """Seconds by which a time may differ from another and be the same."""
    return max(_TOLERANCE * bin_size, rounding(t))


@dataclass
class Columns:
    """Names of columns and their metadata.

    Attributes
    ----------
    names : list
    metadata : dict of str to list, one entry for each column
    """

    names: list
    metadata: dict = field(default_factory=dict)

    @classmethod
    def of(cls, value: object) -> Columns:
        """Columns of a TsdFrame, or units of a TsGroup."""
        group = pynapple_type(value) == "TsGroup"
        table = value.metadata
        # The metadata of a group hold the mean rate, which means nothing for a frame.
        names = [name for name in table.columns if not (group and name == "rate")]
        return cls(
            list(value.index if group else value.columns),
            {name: list(table[name]) for name in names},
        )

    def take(self, index: np.ndarray) -> Columns:
        """The columns with the numbers in ``index``."""
        metadata = {name: [values[i] for i in index] for name, values in self.metadata.items()}
        return Columns([self.names[i] for i in index], metadata)


class Timeline:
    """Times of the bins of an array.

    Parameters
    ----------
    support : pynapple's IntervalSet
    t : ndarray of shape (n_bins,), optional
        Middle of every bin, seconds.
    grid : tuple (starts, lengths, bin_size), optional
        In place of t: from each start (seconds) on, ``lengths`` bins of ``bin_size``.
    columns : Columns, optional
        Columns of the array.
    bin_size : float, optional
        Seconds of a bin, where the times are of some bins only. Default: the step of the times.
    """

    def __init__(
        self,
        support: object,
        t: np.ndarray | None = None,
        grid: tuple | None = None,
        columns: Columns | None = None,
        bin_size: float | None = None,
    ) -> None:
        self.support, self._t, self._grid, self.columns = support, t, grid, columns
        self._bin_size = bin_size

    @property
    def t(self) -> np.ndarray:
        """Times of the bins, seconds; the times of a grid are made on demand."""
        if self._t is not None:
            return self._t
        starts, lengths, bin_size = self._grid
        first = np.cumsum(lengths) - lengths
        number = np.arange(int(np.sum(lengths))) - np.repeat(first, lengths)
        return np.round(np.repeat(starts, lengths) + (number + 0.5) * bin_size, 9)

    @property
    def n_bins(self) -> int:
        """Number of bins."""
        return int(np.sum(self._grid[1])) if self._t is None else self._t.shape[0]

    @property
    def bin_size(self) -> float | None:
        """Seconds from one bin to the next; None if there is only one bin."""
        if self._grid is not None:
            return self._grid[2]
        if self._bin_size is not None or self.n_bins < 2:
            return self._bin_size
        steps = np.diff(self._t)
        size = float(np.median(steps))
        if rounding(self._t) > 1e-6 * size:  # Unix times: the rounded steps are right on average
            size = float(steps[np.abs(steps - size) <= _slack(self._t, size)].mean())
        return size

    @property
    def pynapple(self) -> object:
        """The module of pynapple that the times came from."""
        return importlib.import_module(type(self.support).__module__.partition(".")[0])

    def at(self, index: np.ndarray) -> Timeline:
        """The times of some bins, ascending."""
        return Timeline(self.support, self.t[index], bin_size=self.bin_size)

    @property
    def epochs(self) -> np.ndarray:
        """First bin and one past the last of every interval of the support with bins."""
        if self._t is None:
            stops = np.cumsum(self._grid[1])
            bounds = np.column_stack([stops - self._grid[1], stops])
        else:
            bounds = self.within(self.support.values)
        return bounds[bounds[:, 1] > bounds[:, 0]]

    def within(self, intervals: np.ndarray) -> np.ndarray:
        """First bin and one past the last inside each interval (seconds), (n_intervals, 2)."""
        t = self.t
        first = np.searchsorted(t, intervals[:, 0], side="left")
        stop = np.searchsorted(t, intervals[:, 1], side="right")
        first[1:] = np.maximum(first[1:], stop[:-1])  # a bin at a border counts once
        return np.column_stack([first, np.maximum(first, stop)])

    def split_at_gaps(self) -> Timeline:
        """The same times, with a support that ends where bins are missing inside an interval."""
        size = self.bin_size
        if self._t is None or size is None:
            return self
        last = np.flatnonzero(np.diff(self._t) > 1.5 * size)
        last = np.setdiff1d(last, self.epochs[:-1, 1] - 1)
        if last.size == 0:
            return self
        edges = self._t[last] + size / 2, self._t[last + 1] - size / 2
        support = self.support.values
        free = np.column_stack([[-np.inf, *edges[1]], [*edges[0], np.inf]])
        return Timeline(make_support(self.support, intersect(support, free)), self._t)

    def check_regular(self, name: str) -> None:
        """Raise ValueError if bins inside an epoch are not equally spaced."""
        if self._t is None or self.n_bins < 2:
            return
        steps, size = np.diff(self._t), self.bin_size
        off = np.abs(steps - size) > _slack(self._t, size)
        off[self.epochs[1:, 0] - 1] = False
        if off.any():
            first = int(np.flatnonzero(off)[0])
            raise ValueError(
                f"{name} have bins of {size:.6g} s, but the step after {self._t[first]:.6g} s is "
                f"{steps[first]:.6g} s inside one interval of the time support. Bin the spikes "
                "with units.count(bin_size), or make the gap a gap of the time support, which no "
                "history crosses."
            )

    def wrap(self, values: np.ndarray, columns: Columns | None = None) -> object:
        """Values as a Tsd, TsdFrame or TsdTensor with these times."""
        arguments = {"t": self.t, "d": values, "time_support": self.support}
        if np.ndim(values) == 1:
            return self.pynapple.Tsd(**arguments)
        if np.ndim(values) > 2:
            return self.pynapple.TsdTensor(**arguments)
        if columns is not None:
            arguments |= {"columns": columns.names, "metadata": columns.metadata}
        return self.pynapple.TsdFrame(**arguments)

    def __str__(self) -> str:
        if self.n_bins == 0:
            return "no bins"
        start, stop = self.support.values[0, 0], self.support.values[-1, 1]
        size = "" if self.bin_size is None else f" of {self.bin_size:.6g} s"
        return (
            f"{self.n_bins} bins{size} in {len(self.support)} intervals from {start:.6g} to "
            f"{stop:.6g} s"
        )


def read_values(values: object, name: str) -> tuple[object, Timeline | None]:
    """The array of an object of pynapple and its `Timeline`; other values as they are, and None.

    Parameters
    ----------
    values : Tsd, TsdFrame, TsdTensor, a list of them (trials in order of time), or anything else
    name : str
        Name of the values in errors.

    Raises
    ------
    ValueError
        If the values are spike times, which have no bins yet, or trials that overlap in time.
    """
    kind = pynapple_type(values)
    if kind in ("Ts", "TsGroup"):
        raise ValueError(
            f"{name} are spike times (a {kind}), which have no bins yet; pass "
            "units.count(bin_size), or fit the units with fastglm.fit_coupling."
        )
    if kind == "IntervalSet":
        raise ValueError(f"{name} are an IntervalSet; expected a Tsd, TsdFrame or array.")
    if kind is None:
        listed = isinstance(values, list | tuple) and len(values) > 0
        if not (
            listed and all(pynapple_type(v) in ("Tsd", "TsdFrame", "TsdTensor") for v in values)
        ):
            return values, None
        try:
            values = np.concatenate(values)
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"{name} are {len(values)} trials that cannot be put end to end: {error} Pass "
                "them in order of time, with the same columns, or as arrays."
            ) from None
    columns = Columns.of(values) if pynapple_type(values) == "TsdFrame" else None
    return values.values, Timeline(values.time_support, values.t, columns=columns)


def keeps_times(method: Callable) -> Callable:
    """A method of arrays that gives an object of pynapple where it is given some."""

    @functools.wraps(method)
    def of_any(self, *inputs):
        read = [read_values(x, "Samples") for x in inputs]
        names = [f"input {k}" for k in range(len(read))]
        timeline = common_timeline([timeline for _, timeline in read], names)
        out = method(self, *(values for values, _ in read))
        return out if timeline is None else timeline.wrap(out)

    return of_any


def read_intervals(intervals: object) -> object:
    """Starts and stops of an IntervalSet, seconds, (n_intervals, 2); other values as they are."""
    if pynapple_type(intervals) == "IntervalSet":
        return np.array(intervals.values)
    return intervals


def common_timeline(timelines: Sequence[Timeline | None], names: Sequence[str]) -> Timeline | None:
    """The timeline that all given timelines agree on; None agrees with every timeline.

    Raises
    ------
    ValueError
        If two timelines differ in their number of bins or in the times of the bins.
    """
    known = [(t, n) for t, n in zip(timelines, names, strict=True) if t is not None]
    if not known:
        return None
    one, first = known[0]
    for other, second in known[1:]:
        if other is one or (other._t is not None and other._t is one._t):
            continue
        if one.n_bins != other.n_bins:
            raise ValueError(
                f"{first} and {second} have different times: {one}; {other}. Bin both with the "
                "same bin size, and restrict both to the same epochs."
            )
        off = np.abs(one.t - other.t) > _slack(one.t, one.bin_size or np.inf)
        if off.any():
            bin_ = int(np.argmax(off))
            raise ValueError(
                f"{first} and {second} have different times: bin {bin_} is at "
                f"{one.t[bin_]:.9g} s in the one and at {other.t[bin_]:.9g} s in the other. Bin "
                "both with the same bin size and epochs, or bring one to the times of the other "
                "(value_from, interpolate)."
            )
    return one


def make_support(like: object, intervals: np.ndarray) -> object:
    """An IntervalSet with the given intervals, of the same class as ``like``."""
    with warnings.catch_warnings():
        # pynapple shortens an interval by a microsecond if the next starts at its stop.
        warnings.simplefilter("ignore", UserWarning)
        return type(like)(start=intervals[:, 0], end=intervals[:, 1])


def intersect(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Intersection of two sets of ascending intervals that do not overlap, (n, 2)."""
    a, b = np.asarray(a), np.asarray(b)
    low = np.searchsorted(b[:, 1], a[:, 0], side="right")
    high = np.searchsorted(b[:, 0], a[:, 1], side="left")
    number = np.maximum(high - low, 0)
    left = np.repeat(np.arange(len(a)), number)
    right = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number) + low[left]
    return np.column_stack(
        [np.maximum(a[left, 0], b[right, 0]), np.minimum(a[left, 1], b[right, 1])]
    )
