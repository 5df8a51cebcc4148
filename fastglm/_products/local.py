"""X in memory: the products of a feature matrix, from its events and from blocks of its rows."""

from collections.abc import Callable, Iterator
from functools import cached_property, partial

import numpy as np

from fastglm import _kernels as kernels
from fastglm._products import sums
from fastglm._products.kinds import Work, kind_of
from fastglm._products.protocol import Chunk, Sums
from fastglm._products.sweep import Sweep

_NOBODY = 1.0  # intercept of lanes without a receiver, at which all numbers are normal


class Local:
    """The `protocol.Products` of a `FeatureMatrix`.

    Parameters
    ----------
    X : FeatureMatrix
    valid : ndarray of bool, shape (n_bins,), optional
        Default: all bins with a complete history.
    """

    concurrent = True

    def __init__(self, X, valid: np.ndarray | None = None):
        if X.bins is not None:
            raise ValueError("X has the rows of some bins alone; expected the matrix of X.cut().")
        self.X, self.valid = X, X.valid if valid is None else valid
        self.n_bins = int(self.valid.sum())
        self.shape, self.columns = X.shape, X.blocks

    @property
    def nonnegative(self) -> np.ndarray:
        """True for a column that can never be negative."""
        return self.X.nonnegative

    def smallest_positive(self) -> np.ndarray:
        """A lower bound, per column, of its values above zero."""
        return self.X.smallest_positive()

    @property
    def taken(self) -> np.ndarray:
        """What was taken off each column."""
        return self.X.taken

    def parts(self) -> Iterator[tuple[int, "Local"]]:
        """One part with all bins."""
        yield 0, self

    def passes(
        self, n_receivers: int, lanes: int = kernels.LANES, multiply: str = "events"
    ) -> "LocalPasses":
        """Products with that many receivers."""
        return LocalPasses(self, n_receivers, lanes, multiply)

    def rows(self, index: np.ndarray, dtype=np.float64) -> np.ndarray:
        """The rows at ascending valid bins."""
        return self.X.rows(index, dtype)

    def gram(self, weight: np.ndarray | None = None) -> np.ndarray:
        """``X'X`` over the valid bins, or ``X' diag(weight) X``."""
        return sums.gram(self.X, self.valid, weight)

    def project(self, values: np.ndarray) -> np.ndarray:
        """``X' values`` over the valid bins, for values of shape (n_bins, n)."""
        return sums.project(self.X, self.valid, values)

    def column_sums(self, weight: np.ndarray | None = None) -> np.ndarray:
        """``X'1``, or ``X' weight``."""
        return sums.column_sums(self.X, self.valid, weight)

    def moments(self, observed, known: np.ndarray | None = None) -> sums.Moments:
        """``X'Y``, ``X'1`` and the sums of Y, with the weights; ``known`` is ``X'1``."""
        return sums.moments(self.X, self.valid, observed.events, observed.weight, known)

    def select(self, columns: np.ndarray) -> tuple["Local", np.ndarray]:
        """Products with the senders of some columns, and the index of the columns they hold."""
        X, index = self.X.select(columns)
        return Local(X, self.valid), index

    def restrict(self, valid: np.ndarray) -> "Local":
        """The products over fewer bins."""
        return self if valid is self.valid else Local(self.X, valid)

    def work(self, used: np.ndarray | None = None) -> Work:
        """Work of one product for one receiver, with the features of a boolean array or all."""
        total = Work(0, 0, 0)
        for block, (start, stop) in zip(self.columns, self.X.column_ranges, strict=True):
            some = None if used is None else used[start:stop]
            total += kind_of(block).work(block, some, self.shape[0])
        return total

    def seen(self, index: np.ndarray) -> np.ndarray:
        """The activity of some bins."""
        return self.activity[index]

    @cached_property
    def activity(self) -> np.ndarray:
        """Events inside the window of each bin, scaled to mean 1, (n_bins,).

        An event counts more if its sender is rare. For independent senders the activity is about
        proportional to the leverage, at the cost of one sum over the events.
        """
        total = np.zeros(self.shape[0], np.float32)
        for block in self.columns:
            kind_of(block).seen(block, total)
        total = np.maximum(np.cumsum(total, dtype=np.float64), 0)
        mean = total.mean()
        return (total / mean if mean > 0 else total + 1).astype(np.float32)


class LocalPasses:
    """The `protocol.Passes` of a matrix in memory, chunk by chunk.

    Memory: filters and their sums in both precisions (see `kinds`), and a chunk of bins.
    """

    def __init__(self, products: Local, n_receivers: int, lanes: int, multiply: str):
        self.products, self.lanes = products, lanes
        self._arguments = n_receivers, lanes, multiply
        self._counts = {}  # a chunk of counts in each precision, for kernels that read them

    @cached_property
    def precise(self) -> Sweep:
        """The sweep in float64."""
        n_receivers, lanes, multiply = self._arguments
        return Sweep(self.products.X, n_receivers, np.float64, lanes, multiply)

    @cached_property
    def coarse(self) -> Sweep:
        """The sweep in float32."""
        n_receivers, lanes, multiply = self._arguments
        return Sweep(self.products.X, n_receivers, np.float32, lanes, multiply)

    def evaluate(
        self,
        observed,
        loss,
        receivers: np.ndarray,
        coef: np.ndarray,
        intercept: np.ndarray,
        precise: bool,
    ) -> Sums:
        """Sums over the valid bins; see `protocol.Passes`."""
        sweep, valid = self.precise if precise else self.coarse, self.products.valid
        lanes, n = self.lanes, intercept.size
        tiles = np.arange(-(-n // lanes))
        offsets = np.full(tiles.size * lanes, _NOBODY, sweep.eta.dtype)
        offsets[:n] = intercept
        scales = np.ones_like(offsets)
        scales[:n] = loss.select(receivers).scale
        sweep.set_coef(coef, tiles)
        weights = valid
        if not loss.exponential:
            weights = np.where(valid, observed.weight_of_bins, 0).astype(sweep.eta.dtype)
        kernel = loss.kernel or _numpy_kernel(loss)
        count = self._counter(sweep, observed, receivers, loss)
        totals = np.zeros((2, tiles.size * lanes))
        found = np.zeros((tiles.size, -(-sweep.n_rows // kernels.SEGMENT), 2, lanes))
        for start, n_rows in sweep.chunks():
            if not valid[start : start + n_rows].any():
                continue  # such as a fold that is held out
            counts = count(start, n_rows)
            eta = sweep.forward(start, n_rows)
            shift = observed.shift(slice(start, start + n_rows), loss.exponential, receivers)
            if shift is not None:
                sweep.add(shift)
            kernels.launch(
                kernel, eta, counts, offsets, scales, weights, start, n_rows, lanes, tiles, found
            )
            sums = found[:, : -(-n_rows // kernels.SEGMENT)]
            totals += sums.sum(axis=1).transpose(1, 0, 2).reshape(2, -1)
            sweep.backward(start, n_rows, eta)
        return Sums(totals[0, :n], totals[1, :n], sweep.collect()[:, :n])

    def _counter(self, sweep: Sweep, observed, receivers: np.ndarray, loss) -> Callable:
        """A function that returns the counts of a chunk in the layout of the kernels."""
        if loss.linear_counts:  # the kernel does not read them
            return lambda start, n_rows: sweep.eta
        events, dtype = observed.events, sweep.eta.dtype
        out = self._counts.setdefault(dtype, np.zeros_like(sweep.eta))
        if events.values is not None:
            return partial(_copy_rows, events.values, receivers, self.lanes, out)
        places = np.full(events.n_units, -1)
        places[receivers] = np.arange(len(receivers))
        places = places[events.units]

        def count(start, n_rows):
            own = events.bins, places, events.amplitudes, self.lanes
            kernels.launch(kernels.scatter_counts, *own, start, n_rows, out)
            return out

        return count

    def forward(
        self, coef: np.ndarray, precise: bool = True, seen: bool = False
    ) -> Iterator[Chunk]:
        """``X C`` of every bin, chunk by chunk; if ``seen``, with the activity of each bin."""
        sweep, n = self.precise if precise else self.coarse, coef.shape[1]
        valid, tiles = self.products.valid, np.arange(-(-n // self.lanes))
        sweep.set_coef(coef, tiles)
        for start, n_rows in sweep.chunks():
            sweep.forward(start, n_rows)
            bins = slice(start, start + n_rows)
            activity = self.products.activity[bins] if seen else None
            yield Chunk(bins, sweep.get(n_rows, n), valid[bins], activity)


def _copy_rows(values, receivers, lanes, out, start, n_rows):
    """The counts of a chunk in the layout of the kernels, from a table of all of them.

    Lanes without a receiver keep any numbers: their sums are dropped.
    """
    some = slice(kernels.PAD * lanes, (kernels.PAD + n_rows) * lanes)
    for tile, first in enumerate(range(0, len(receivers), lanes)):
        rows, own = out[tile, some].reshape(n_rows, lanes), receivers[first : first + lanes]
        rows[:, : len(own)] = values[start : start + n_rows, own]
    return out


def _numpy_kernel(loss):
    """The kernel of a loss that has no compiled one; see `fastglm._kernels.pointwise`."""

    def kernel(eta, counts, intercept, scale, weight, start, n_rows, lanes, tiles, sums):
        rows, of_bin = (
            slice(kernels.PAD, kernels.PAD + n_rows),
            weight[start : start + n_rows, None],
        )
        for tile in tiles:
            values, y = (array[tile].reshape(-1, lanes)[rows] for array in (eta, counts))
            x = values.astype(np.float64) + intercept[tile * lanes : (tile + 1) * lanes]
            own = loss.at(scale[tile * lanes : (tile + 1) * lanes])
            with np.errstate(all="ignore"):
                if loss.linear_counts:
                    found = loss.cumulant(x), loss.count_factor * loss.mean(x)
                else:
                    found = own.derivatives(x, y.astype(np.float64))[:2]
                value, residual = (np.where(of_bin == 0, 0.0, of_bin * part) for part in found)
            values[:] = residual
            sums[tile] = 0
            sums[tile, 0] = value.sum(axis=0), residual.sum(axis=0)

    return kernel
