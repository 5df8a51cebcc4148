"""Rows of X with the counts, weights and offsets of their bins, in blocks."""

from copy import copy
from typing import NamedTuple

import numpy as np

from fastglm._algebra.space import ROUNDED, sum_rows
from fastglm._engine.stack import multiply_each
from fastglm._products.alike import alike
from fastglm._products.sums import Moments

_DENSE_BYTES = 1 << 28  # rows that are kept between passes
_FAR = 1e-4  # a column with a smaller standard deviation, as a part of its mean, is centred
_BLOCK_BYTES = 1 << 21  # rows that are worked on at a time: a core's L2 and part of L3 hold them


class Block(NamedTuple):
    """Some bins of a fit."""

    rows: np.ndarray  # (n, n_features + 1), a column of ones is the last
    counts: np.ndarray  # (n_receivers, n)
    offset: np.ndarray | None  # (1 or n_receivers, n)
    weight: np.ndarray | None  # (n,)
    times: np.ndarray | None  # (n,): bins that each row stands for

    def select(self, receivers):
        """The block with the counts of some receivers."""
        offset = self.offset
        if offset is not None and len(offset) > 1:
            offset = offset[receivers]
        return self._replace(counts=self.counts[receivers], offset=offset)


class Rows:
    """The rows of a fit: kept between passes where all fit into `_DENSE_BYTES`, else built anew.

    In sparse recordings most bins see one event or none, and many have the same row. Where the
    counts are linear in the loss, and there are neither weights nor offsets, one row with the mean
    of their counts stands for all of them, with their number as its weight.

    Columns that are far from zero, such as products of a time and a count, are centred: the mean
    would take the digits of eta and of the Hessian.

    Parameters
    ----------
    products : Products
    observed : Observed
    loss : Loss, optional
        Without it every bin has a row.

    Attributes
    ----------
    n_bins, n_blocks : int
        Bins of the fit, and blocks of rows.
    size : ndarray of shape (n_features,)
        Root mean square of every feature as the rows hold it.
    shift : ndarray of shape (n_features,)
        What is taken off the columns.
    moments : Moments
        Of the columns without the shift, with the weights.
    """

    def __init__(self, products, observed, loss=None):
        self.products, self.observed = products, observed
        index, n_features = np.flatnonzero(products.valid), products.shape[1]
        self.n_bins = index.size
        self._alike = self._events = None
        if loss is not None and loss.exponential and loss.linear_counts and observed.sparse:
            self._alike = alike(products, index)
        if self._alike is not None:
            index = index[self._alike.first]
        row_bytes = 8 * max(n_features, 1)
        self.n_blocks = -(-index.size // max(256, _BLOCK_BYTES // row_bytes))
        self._index = np.array_split(index, self.n_blocks) if self.n_blocks > 1 else [index]
        self._places = np.cumsum([0, *map(len, self._index)])
        self._kept = {} if index.size * row_bytes <= _DENSE_BYTES else None
        self.shift = np.zeros(n_features)
        with np.errstate(over="ignore", invalid="ignore"):  # features whose squares overflow
            self.moments, mean, square = self._sum(observed.sums(products))
            far = np.flatnonzero(square - mean**2 < (_FAR * mean) ** 2)
        self.size = np.sqrt(square)
        if far.size:
            self._centre(far, mean[far])
        self.taken = np.hypot(self.shift, products.taken)
        self.given_size = np.hypot(self.size, self.taken)  # of the features as they were given

    def __iter__(self):
        """The blocks."""
        return map(self.block, range(self.n_blocks))

    def block(self, k):
        """A block by its number."""
        if self._kept is not None and k in self._kept:
            return self._kept[k]
        index, observed = self._index[k], self.observed
        rows = np.ones((index.size, self.shift.size + 1))
        rows[:, :-1] = self.products.rows(index)
        if self.shift.any():
            rows[:, :-1] = np.where(self.size > 0, rows[:, :-1] - self.shift, 0.0)
        if self._alike is not None:
            times = self._alike.times[self._places[k] : self._places[k + 1]]
            block = Block(rows, self._mean_counts(k, times), None, times, times)
        else:
            counts = np.ascontiguousarray(observed(index).T)
            offset = observed.offset
            offset = None if offset is None else np.ascontiguousarray(offset[index].T)
            weight = None if observed.weight is None else observed.weight[index]
            block = Block(rows, counts, offset, weight, None)
        if self._kept is not None:
            self._kept[k] = block
        return block

    def _mean_counts(self, k, times):
        """Mean counts of the bins that the rows of a block stand for, (n_receivers, n)."""
        events = self.observed.events
        if self._events is None:
            group = self._alike.of[events.bins]
            order = np.argsort(group, kind="stable")[np.count_nonzero(group < 0) :]
            self._events = group[order], events.units[order], events.amplitudes[order]
        group, units, amplitudes = self._events
        first, stop = self._places[k : k + 2]
        some = slice(*np.searchsorted(group, [first, stop]))
        sums = np.zeros((events.n_units, stop - first))
        np.add.at(sums, (units[some], group[some] - first), amplitudes[some])
        return sums / times

    def select(self, receivers):
        """The rows with the counts of some receivers; rows that are kept are shared."""
        other, (xty, x, sum_y) = copy(self), self.moments
        other.observed, other._events = self.observed.select(receivers), None
        other.moments = Moments(xty[:, receivers], x, sum_y[receivers])
        if self._kept is not None:
            other._kept = {k: block.select(receivers) for k, block in self._kept.items()}
        return other

    def _sum(self, sum_y):
        """Moments, and mean and mean square of every column without weights."""
        sums, squares, x = np.zeros((3, self.shift.size))
        xty = np.zeros((sum_y.size, self.shift.size))
        for block in self:
            rows, y, weight = block.rows[:, :-1], block.counts, block.weight
            total = sum_rows(rows, block.times)
            sums += total
            squares += sum_rows(rows**2, block.times)
            x += total if weight is None else weight @ rows
            xty += multiply_each(rows.T, y if weight is None else weight * y)
        return Moments(xty.T, x, sum_y), sums / self.n_bins, squares / self.n_bins

    def _centre(self, far, mean):
        """Take the means off some columns. A column that is constant, but for rounding, is 0."""
        squares, kept = np.zeros(far.size), self._kept is not None
        self.shift[far] = mean
        for block in self:
            if kept:
                block.rows[:, far] -= mean
            squares += sum_rows(block.rows[:, far] ** 2, block.times)
        self.size[far] = np.sqrt(squares / self.n_bins)
        flat = far[self.size[far] <= ROUNDED * np.abs(mean)]
        self.size[flat] = 0
        for block in self if kept else ():
            block.rows[:, flat] = 0
