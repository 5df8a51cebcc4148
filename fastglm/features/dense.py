"""Ordinary columns, and columns kept at their own rate."""

from __future__ import annotations

import numpy as np

_ROWS = 8192  # that are looked at together


class DenseColumns:
    """Ordinary columns: an array of shape (n_bins, n_columns), kept by reference.

    Parameters
    ----------
    values : ndarray of shape (n_bins, n_columns)
    label : str
    n_funcs : int, optional
        Columns that belong to one input, its filter; all by default.
    complete : ndarray of bool, shape (n_bins,), optional
        Bins inside an epoch; all by default.
    """

    may_be_nan = True
    inputs = None
    lags = 0
    reach = 0, 0  # a row depends on its own bin alone

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
        """What the columns are, in words."""
        return "an array"

    def arrays(self) -> list[np.ndarray]:
        """The arrays that the columns follow from."""
        return [np.asarray(self.values)]

    @property
    def valid(self) -> np.ndarray:
        """Rows inside an epoch, without NaN or infinity."""
        valid = self._spread(_finite(self.values))
        return valid if self.complete is None else valid & self.complete

    def _spread(self, of_row):
        """An entry of every row of ``values`` as one of every bin."""
        return of_row

    def mark(self, index: np.ndarray, out: np.ndarray) -> None:
        """Write NaN outside the epochs; other NaN stand in the values themselves."""
        if self.complete is not None:
            out[~self.complete[index]] = np.nan

    @property
    def nonnegative(self) -> np.ndarray:
        """True for a column without negative values."""
        return np.fmin.reduce(self.values, axis=0, initial=0) >= 0

    def smallest_positive(self) -> np.ndarray:
        """The smallest value above zero of each column."""
        return np.where(self.values > 0, self.values, np.inf).min(axis=0, initial=np.inf)

    def rows(self, index: np.ndarray, out: np.ndarray) -> None:
        """Write the rows at the ascending bins ``index``, which may repeat, into ``out``."""
        if _is_range(index):
            out[:] = self.values[index[0] : index[-1] + 1]
        else:
            out[:] = self.values[index]

    def select(self, columns: np.ndarray) -> tuple[DenseColumns, np.ndarray]:
        """The block with the columns of a boolean array, and their index in this one."""
        index = np.flatnonzero(columns)
        if index.size == self.n_columns:
            return self, index
        block = object.__new__(type(self))
        block.__dict__.update(self.__dict__, values=self.values[:, index], n_funcs=index.size)
        return block, index

    def runs(self, start: int, n_rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values, edges and samples of the runs of some bins, as the kernels take them."""
        every = np.arange(n_rows + 1)
        return self.values[start : start + n_rows], every, every[:-1]


class SlowColumns(DenseColumns):
    """Columns that are constant over runs of bins, kept at their own rate: one row a sample.

    Made by `hold`. Row t is ``values[samples[r]]`` with the last run r that starts at or before t.
    Products and rows expand some bins at a time.

    Parameters
    ----------
    values : ndarray of shape (n_samples, n_columns)
    starts : ndarray of int, shape (n_runs,)
        First bin of every run; ascending, the first is 0.
    samples : ndarray of int, shape (n_runs,)
        Row of ``values`` that holds during the run; -1 where none is known (NaN).
    n_bins : int
    label, n_funcs, complete
        As in `DenseColumns`.
    sample_shape : tuple, optional
        Shape of one sample as it was given; default (n_columns,).
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

    def describe(self) -> str:
        """What the columns are, in words."""
        return "kept at their own rate"

    def arrays(self) -> list[np.ndarray]:
        """The arrays that the columns follow from."""
        return [self.values, self.starts, self.samples]

    def _spread(self, of_row):
        known = np.append(of_row, False)  # the last one is that of sample -1
        return np.repeat(known[self.samples], np.diff(self.starts, append=self.n_bins))

    def with_values(
        self, values: np.ndarray, label: str, n_funcs: int, complete: np.ndarray | None
    ) -> SlowColumns:
        """Other columns with the same runs."""
        return SlowColumns(values, self.starts, self.samples, self.n_bins, label, n_funcs, complete)

    def rows(self, index: np.ndarray, out: np.ndarray) -> None:
        """Write the rows at the ascending bins ``index``, which may repeat, into ``out``."""
        if _is_range(index):
            _, edges, samples = self.runs(index[0], index.size)
            samples = np.repeat(samples, np.diff(edges))
        else:
            samples = self.samples[np.searchsorted(self.starts, index, side="right") - 1]
        out[:] = self.values[samples]
        out[samples < 0] = np.nan

    def runs(self, start: int, n_rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values, edges and samples of the runs of some bins, as the kernels take them."""
        low, high = np.searchsorted(self.starts, [start + 1, start + n_rows])
        edges = np.append(self.starts[low - 1 : high] - start, n_rows)
        edges[0] = 0
        return self.values, edges, self.samples[low - 1 : high]


def _is_range(index):
    """True for bins that follow each other without a gap or a repetition."""
    if index.size == 0 or index[-1] - index[0] + 1 != index.size:
        return False
    return bool((np.diff(index) == 1).all())


def _finite(values):
    """Rows without NaN or infinity."""
    finite = np.ones(values.shape[0], bool)
    if values.dtype.kind == "f":
        for start in range(0, finite.shape[0], _ROWS):
            block = slice(start, start + _ROWS)
            finite[block] = np.isfinite(values[block]).all(axis=1)
    return finite
