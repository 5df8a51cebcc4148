"""X in memory: the products of a feature matrix, from its events and from blocks of its rows."""

from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np

from fastglm import _kernels as kernels
from fastglm._products import sums
from fastglm._products.kinds import Work, kind_of
from fastglm._products.pieces import interior
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

    def total(self, function: Callable, observed=None):
        """``function(self, observed)``."""
        return function(self, observed)

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
        offsets = np.full(tiles.size * lanes, _NOBODY, sweep.dtype)
        offsets[:n] = intercept
        scales = np.ones_like(offsets)
        scales[:n] = loss.select(receivers).scale
        sweep.set_coef(coef, tiles)
        weights = valid
        if not loss.exponential:
            weights = np.where(valid, observed.weight_of_bins, 0).astype(sweep.dtype)
        kernel = loss.kernel or _numpy_kernel(loss)
        count = self._counter(sweep, observed, receivers, loss)
        shifts, found = {}, {}

        def finish(piece, eta):
            chunk, lane = piece.chunk, piece.tile * lanes
            shift = shifts[chunk.slot]
            if shift is not None:
                _add_rows(shift, piece, lanes, eta)
            own = offsets[lane : lane + lanes], scales[lane : lane + lanes], weights
            rows = chunk.start, piece.begin, piece.end, found[chunk.slot][piece.tile]
            kernel(eta, count(piece, eta), *own, *rows)

        totals = np.zeros((2, tiles.size * lanes))
        for chunks in sweep.rounds(valid):
            for chunk in chunks:
                shifts[chunk.slot] = observed.shift(chunk.bins, loss.exponential, receivers)
                n_segments = -(-chunk.n_rows // kernels.SEGMENT)
                found[chunk.slot] = np.zeros((tiles.size, n_segments, 2, lanes))
            sweep.forward(chunks, finish)
            for chunk in chunks:
                sums = found[chunk.slot].sum(axis=1)
                totals += sums.transpose(1, 0, 2).reshape(2, -1)
            sweep.backward(chunks)
        return Sums(totals[0, :n], totals[1, :n], sweep.collect()[:, :n])

    def _counter(self, sweep: Sweep, observed, receivers: np.ndarray, loss) -> Callable:
        """A function of a piece and its eta: the counts of its tile in the same layout."""
        if loss.linear_counts:  # the kernel does not read them
            return lambda piece, eta: eta
        events, lanes = observed.events, self.lanes
        tables = self._counts.setdefault(sweep.dtype, {})
        places = np.full(events.n_units, -1)
        places[receivers] = np.arange(len(receivers))
        places = places[events.units] if events.values is None else None

        def count(piece, eta):
            chunk, lane = piece.chunk, piece.tile * lanes
            if (chunk.slot, piece.tile) not in tables:
                tables[chunk.slot, piece.tile] = np.zeros_like(eta)
            out = tables[chunk.slot, piece.tile]
            if places is None:
                own = receivers[lane : lane + lanes]
                _copy_rows(events.values, own, piece, lanes, out)
            else:
                own = events.bins, places, events.amplitudes, lane, chunk.start
                kernels.scatter_counts(*own, piece.begin, piece.end, lanes, out)
            return out

        return count

    def forward(
        self, coef: np.ndarray, precise: bool = True, seen: bool = False
    ) -> Iterator[Chunk]:
        """``X C`` of every bin, chunk by chunk; if ``seen``, with the activity of each bin."""
        sweep, n = self.precise if precise else self.coarse, coef.shape[1]
        valid, tiles = self.products.valid, np.arange(-(-n // self.lanes))
        sweep.set_coef(coef, tiles)
        for chunks in sweep.rounds():
            sweep.forward(chunks)
            for chunk in chunks:
                bins = chunk.bins
                activity = self.products.activity[bins] if seen else None
                yield Chunk(bins, sweep.get(chunk, n), valid[bins], activity)


def _add_rows(values, piece, lanes, eta):
    """Add the rows of a piece, from values of shape (n_rows, 1 or n_receivers)."""
    rows = interior(eta, piece.begin, piece.end, lanes)
    some = values[piece.begin : piece.end]
    if values.shape[1] > 1:
        some = some[:, piece.tile * lanes : (piece.tile + 1) * lanes]
        rows = rows[:, : some.shape[1]]
    rows += some


def _copy_rows(values, receivers, piece, lanes, out):
    """The counts of a piece in the layout of the kernels, from a table of all of them.

    Lanes without a receiver keep any numbers: their sums are dropped.
    """
    first = piece.chunk.start
    own = values[first + piece.begin : first + piece.end, receivers]
    interior(out, piece.begin, piece.end, lanes)[:, : len(receivers)] = own


def _numpy_kernel(loss):
    """The kernel of a loss that has no compiled one; see `fastglm._kernels.pointwise`."""

    def kernel(eta, counts, intercept, scale, weight, start, begin, end, sums):
        lanes, own = intercept.size, loss.at(scale)
        for first in range(begin, end, kernels.SEGMENT):
            last = min(end, first + kernels.SEGMENT)
            values, y = (interior(array, first, last, lanes) for array in (eta, counts))
            of_bin = weight[start + first : start + last, None]
            x = values.astype(np.float64) + intercept
            with np.errstate(all="ignore"):
                if loss.linear_counts:
                    found = loss.cumulant(x), loss.count_factor * loss.mean(x)
                else:
                    found = own.derivatives(x, y.astype(np.float64))[:2]
                value, residual = (np.where(of_bin == 0, 0.0, of_bin * part) for part in found)
            values[:] = residual
            sums[first // kernels.SEGMENT] = value.sum(axis=0), residual.sum(axis=0)

    return kernel
