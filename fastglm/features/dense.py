"""Ordinary columns, and columns kept at their own rate."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fastglm.features.ranges import as_slice, end_to_end, offsets, runs_of, spans

_ROWS = 8192  # rows checked together
ROUNDING = 8 * np.finfo(np.float64).eps  # a deviation, as a part of the mean, that is rounding
FAR = 3.0  # standard deviations from zero beyond which a column is centred for a fit


class DenseColumns:
    """Ordinary columns: an array of shape (n_bins, n_columns), kept by reference.

    Parameters
    ----------
    values : ndarray of shape (n_bins, n_columns)
    label : str
    n_funcs : int, optional
        Number of columns of one input, its filter. Default: all columns.
    complete : ndarray of bool, shape (n_bins,), optional
        Bins inside an epoch. Default: all bins.
    """

    may_be_nan = True
    inputs = None
    lags = 0
    reach = 0, 0  # a row depends on its own bin alone
    # What is taken off every row, which columns are constant but for rounding, and what was taken
    # off in all; see `centred`.
    shift = flat = taken = None

    def __init__(
        self,
        values: np.ndarray,
        label: str = "columns",
        n_funcs: int | None = None,
        complete: np.ndarray | None = None,
    ) -> None:
        self.values = values
        self.label = label
        self.n_funcs = values.shape[1] if n_funcs is None else n_funcs
        self.complete = complete

    @property
    def n_columns(self) -> int:
        """Number of columns."""
        return self.values.shape[1]

    def describe(self) -> str:
        """A description of the columns in words."""
        return "an array"

    def arrays(self) -> list[np.ndarray]:
        """The arrays that determine the columns."""
        return [np.asarray(self.values)]

    @property
    def valid(self) -> np.ndarray:
        """Rows that lie inside an epoch and hold neither NaN nor infinity."""
        valid = self._spread(finite_rows(self.values))
        return valid if self.complete is None else valid & self.complete

    def _spread(self, of_row):
        """One entry for every bin, from one entry for every row of ``values``."""
        return of_row

    def mark(self, index: np.ndarray, out: np.ndarray) -> None:
        """Write NaN outside the epochs; all other NaN are in ``values``."""
        if self.complete is not None:
            out[~self.complete[index]] = np.nan

    @property
    def nonnegative(self) -> np.ndarray:
        """For each column, whether it holds no negative value."""
        if self.shift is not None:
            return np.zeros(self.n_columns, bool)
        return np.fmin.reduce(self.values, axis=0, initial=0) >= 0

    def smallest_positive(self) -> np.ndarray:
        """The smallest value of each column that is above zero by more than rounding."""
        rounding = 1e-12 * np.fmax.reduce(self.values, axis=0, initial=0)
        return np.where(self.values > rounding, self.values, np.inf).min(axis=0, initial=np.inf)

    def rows(self, index: np.ndarray, out: np.ndarray) -> None:
        """Write the rows at the ascending bins ``index``, which may repeat, into ``out``."""
        some = slice(index[0], index[-1] + 1) if is_range(index) else index
        out[:] = self._shifted(self.values[some])

    def _shifted(self, values: np.ndarray) -> np.ndarray:
        if self.shift is None:
            return values
        values = values - self.shift
        values[:, self.flat] = 0
        return values

    def centred(self):
        """The block with columns that are far from zero centred, and what was taken off each.

        Of a column whose mean is many standard deviations from zero, ``X'X`` loses the digits of
        ``(mean / sd)^2``. A column is read relative to its first number, so that its mean and its
        standard deviation keep their digits. A column that is constant, but for rounding, becomes
        exactly 0.
        """
        _, mean, spread = self.moments()
        return self.around(mean, spread)

    def moments(self) -> tuple[int, np.ndarray, np.ndarray]:
        """Number of rows that are known, and mean and standard deviation of each column in them."""
        known = finite_rows(self.values)
        mean, spread = mean_and_spread(
            (
                self.values[start : start + _ROWS][known[start : start + _ROWS]]
                for start in range(0, known.size, _ROWS)
            ),
            self.n_columns,
        )
        return int(known.sum()), mean, spread

    def around(self, mean: np.ndarray, spread: np.ndarray) -> tuple:
        """As `centred`, with a mean and a standard deviation of each column that are known."""
        far = np.isfinite(spread) & (np.abs(mean) > FAR * spread)
        if not far.any():
            return self, np.zeros(self.n_columns)
        block = object.__new__(type(self))
        shift = np.where(far, mean, 0.0)
        flat = far & (spread <= ROUNDING * np.abs(mean))
        block.__dict__.update(self.__dict__, shift=shift, flat=flat, taken=shift)
        return block, shift

    def select(self, columns: np.ndarray) -> tuple[DenseColumns, np.ndarray]:
        """The block with the columns of a boolean array, and their numbers in this block."""
        index = np.flatnonzero(columns)
        if index.size == self.n_columns:
            return self, index
        return self._of_columns(index, index.size), index

    def _of_columns(self, index, n_funcs):
        block, index = object.__new__(type(self)), as_slice(index)
        block.__dict__.update(self.__dict__, values=self.values[:, index], n_funcs=n_funcs)
        for name in ("shift", "flat", "taken"):
            if getattr(self, name) is not None:
                setattr(block, name, getattr(self, name)[index])
        return block

    def pick(self, columns: np.ndarray) -> list[DenseColumns]:
        """Blocks with the given columns, in the given order, side by side."""
        n_funcs, blocks = max(self.n_funcs, 1), []
        for inputs, funcs in runs_of(columns, n_funcs):
            block = self._of_columns((inputs[:, None] * n_funcs + funcs).ravel(), funcs.size)
            if self.inputs is not None and len(self.inputs.names) * n_funcs == self.n_columns:
                block.inputs = self.inputs.take(inputs)
            blocks.append(block)
        return blocks

    def cut(self, ranges: np.ndarray) -> DenseColumns:
        """The columns over some ranges of bins, put end to end; a view of a single range."""
        block = object.__new__(type(self))
        block.__dict__.update(self.__dict__, values=end_to_end(self.values, ranges))
        if self.complete is not None:
            block.complete = end_to_end(self.complete, ranges)
        return block

    def runs(self, start: int, n_rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values, edges and samples of the runs that cover some bins, as the kernels take them."""
        every = np.arange(n_rows + 1)
        return self._shifted(self.values[start : start + n_rows]), every, every[:-1]


class SlowColumns(DenseColumns):
    """Columns that are constant over runs of bins; one row is kept for each sample.

    `hold` makes this block. Row t is ``values[samples[r]]``; r is the last run that starts at or
    before t. Products and rows expand a chunk of bins at a time.

    Parameters
    ----------
    values : ndarray of shape (n_samples, n_columns)
    starts : ndarray of int, shape (n_runs,)
        First bin of every run, ascending from 0.
    samples : ndarray of int, shape (n_runs,)
        Row of ``values`` during the run; -1 if the values are not known (NaN).
    n_bins : int
    label, n_funcs, complete
        As in `DenseColumns`.
    sample_shape : tuple, optional
        Shape of one sample as it was given. Default: (n_columns,).
    """

    def __init__(
        self,
        values: np.ndarray,
        starts: np.ndarray,
        samples: np.ndarray,
        n_bins: int,
        label: str = "held",
        n_funcs: int | None = None,
        complete: np.ndarray | None = None,
        sample_shape: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(values, label, n_funcs, complete)
        self.starts, self.samples, self.n_bins = starts, samples, n_bins
        self.sample_shape = values.shape[1:] if sample_shape is None else sample_shape

    def around(self, mean: np.ndarray, spread: np.ndarray) -> tuple:
        """As `DenseColumns.around`, with samples of its own."""
        block, shift = super().around(mean, spread)
        if block is not self:
            block.values, block.shift = block._shifted(self.values), None
        return block, shift

    def describe(self) -> str:
        """A description of the columns in words."""
        return "kept at their own rate"

    def arrays(self) -> list[np.ndarray]:
        """The arrays that determine the columns."""
        return [self.values, self.starts, self.samples]

    def _spread(self, of_row):
        known = np.append(of_row, False)  # the last entry is sample -1
        return np.repeat(known[self.samples], np.diff(self.starts, append=self.n_bins))

    def cut(self, ranges: np.ndarray) -> SlowColumns:
        """The columns over some ranges of bins, put end to end, with the same samples."""
        low = np.searchsorted(self.starts, ranges[:, 0], side="right") - 1
        high = np.maximum(np.searchsorted(self.starts, ranges[:, 1]), low + 1)
        some, n_runs = spans(low, high), high - low
        starts = np.maximum(self.starts[some], np.repeat(ranges[:, 0], n_runs))
        block = object.__new__(SlowColumns)
        block.__dict__.update(
            self.__dict__,
            starts=starts + np.repeat(offsets(ranges), n_runs),
            samples=self.samples[some],
            n_bins=int((ranges[:, 1] - ranges[:, 0]).sum()),
        )
        if self.complete is not None:
            block.complete = end_to_end(self.complete, ranges)
        return block

    def with_values(
        self, values: np.ndarray, label: str, n_funcs: int, complete: np.ndarray | None
    ) -> SlowColumns:
        """Other columns with the same runs."""
        return SlowColumns(values, self.starts, self.samples, self.n_bins, label, n_funcs, complete)

    def rows(self, index: np.ndarray, out: np.ndarray) -> None:
        """Write the rows at the ascending bins ``index``, which may repeat, into ``out``."""
        if is_range(index):
            _, edges, samples = self.runs(index[0], index.size)
            samples = np.repeat(samples, np.diff(edges))
        else:
            samples = self.samples[np.searchsorted(self.starts, index, side="right") - 1]
        out[:] = self.values[samples]
        out[samples < 0] = np.nan

    def runs(self, start: int, n_rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values, edges and samples of the runs that cover some bins, as the kernels take them."""
        low, high = np.searchsorted(self.starts, [start + 1, start + n_rows])
        edges = np.append(self.starts[low - 1 : high] - start, n_rows)
        edges[0] = 0
        return self.values, edges, self.samples[low - 1 : high]


def is_range(index: np.ndarray) -> bool:
    """True for bins that follow each other without a gap or a repetition."""
    if index.size == 0 or index[-1] - index[0] + 1 != index.size:
        return False
    return bool((index[1:] - index[:-1] == 1).all())


def mean_and_spread(blocks: Iterable[np.ndarray], n_columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the finite numbers of each column, from blocks of rows.

    Numbers are read relative to the first one of their column, so that the standard deviation of a
    column far from zero keeps its digits.
    """
    first, (n, total, squares) = np.full(n_columns, np.nan), np.zeros((3, n_columns))
    with np.errstate(over="ignore", invalid="ignore"):
        for block in blocks:
            known = np.isfinite(block)
            begins = np.flatnonzero(np.isnan(first) & known.any(axis=0))
            if begins.size:
                first[begins] = block[known[:, begins].argmax(axis=0), begins]
            some = np.where(known, block - first, 0.0)
            n += known.sum(axis=0)
            total += some.sum(axis=0)
            squares += (some**2).sum(axis=0)
        off = total / np.maximum(n, 1)
        spread = np.sqrt(np.maximum(squares / np.maximum(n, 1) - off**2, 0))
        return np.where(np.isnan(first), 0.0, first) + off, spread


def finite_rows(values: np.ndarray) -> np.ndarray:
    """Rows without NaN or infinity, (n_rows,)."""
    finite = np.ones(values.shape[0], bool)
    if values.dtype.kind == "f":
        for start in range(0, finite.shape[0], _ROWS):
            block = slice(start, start + _ROWS)
            finite[block] = np.isfinite(values[block]).all(axis=1)
    return finite
