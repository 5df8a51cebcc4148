"""Columns that are the history of senders with a value in most bins: traces, field potentials."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from itertools import pairwise

import numpy as np

from fastglm._kernels.convolve import convolution_bands, convolve, convolve_apart
from fastglm._kernels.threads import run_threads
from fastglm.features.dense import FAR, ROUNDING, finite_rows, is_range, mean_and_spread
from fastglm.features.events import Events
from fastglm.features.history import History, HistoryColumns
from fastglm.features.ranges import end_to_end

_ROWS = 4096  # bins that are looked at together
_STRETCH, _STRETCH_BYTES = 512, 1 << 22  # most bins that are convolved together, and their rows
_APART = 8  # rows are convolved one by one if they are fewer than one bin in 8
_SHARED = 0.5  # part of the variance that two forms of one trace have in common
_WINDOW_BYTES = 1 << 21  # windows of rows that are convolved one by one


class TraceColumns(History):
    """History of senders that are not 0 in most bins: it keeps the values as they are.

    Rows are convolved block by block when they are asked for. With a window of W bins and B
    functions a row costs about ``n_senders * B * (W + 8)`` multiply-adds of BLAS. A product with
    n receivers costs ``n_senders * B * n``.

    A sender whose mean is far from zero is convolved without it. The mean adds
    ``mean * kernel.sum(axis=0)`` to every complete row, exactly: a row that sees beyond its epoch
    is not complete. `centred` leaves the sum out. The columns so keep the digits of what varies.

    Parameters
    ----------
    values : ndarray of shape (n_bins, n_senders)
        Numbers; NaN and infinity are not known. A copy is kept, of the same dtype: 8 bytes a value
        of float64, 4 of float32, 2 of int16. An array that cannot be written is kept itself.
    kernel, shift, label, complete
        As in `History`.
    """

    # Of ``values``: the columns of the senders in the block, and the row after the window of bin 0.
    senders, ahead = slice(None), 0

    def __init__(
        self,
        values: np.ndarray,
        kernel: np.ndarray,
        shift: int = 0,
        label: str = "history",
        complete: np.ndarray | None = None,
    ) -> None:
        super().__init__(kernel, values.shape[0], shift, label, complete)
        self.ahead = shift
        self.values = np.array(values, order="C") if values.flags.writeable else values
        self.gaps = not finite_rows(self.values).all()
        self.mean, self.spread = mean_and_spread(self._blocks(), values.shape[1])
        self.pivot = np.where(self._far(), self.mean, 0.0)
        self.flat = (self.pivot != 0) & (self.spread <= ROUNDING * np.abs(self.mean))

    def _far(self):
        """Senders whose columns may be more than `FAR` standard deviations from zero."""
        # The columns of white noise are the farthest: their values average out over the window.
        area, size = np.abs(self.kernel.sum(axis=0)), np.sqrt((self.kernel**2).sum(axis=0))
        ratio = np.max(area / np.where(size > 0, size, 1.0), initial=1.0)
        return np.isfinite(self.spread) & (np.abs(self.mean) * ratio > FAR * self.spread)

    def _blocks(self) -> Iterator[np.ndarray]:
        """The values of the senders, in blocks of bins."""
        for start in range(0, len(self.values), _ROWS):
            yield self.values[start : start + _ROWS, self.senders]

    def _rows_of_bins(self, bins):
        """Rows of the values at some bins; those next to them where a cut has left none."""
        return (bins + self.ahead - self.shift).clip(0, len(self.values) - 1)

    @property
    def n_senders(self) -> int:
        """Number of senders."""
        return self.mean.size

    def describe(self) -> str:
        """A description of the columns in words."""
        return f"{super().describe()}, from their values"

    def arrays(self) -> list[np.ndarray]:
        """The arrays that determine the columns."""
        senders = np.arange(self.values.shape[1])[self.senders]
        return [self.kernel, np.array([self.shift, self.ahead]), senders, self.values]

    def by_events(self) -> HistoryColumns:
        """The same columns with the values as events, 28 bytes each."""
        values = self.values[:, self.senders]
        unknown = ~np.isfinite(values)
        events = Events.of(np.where(unknown, 0, values)).shift(self.shift - self.ahead)
        events = Events(*events.arrays(), (self.n_bins, self.n_senders))
        missing = np.argwhere(unknown) + [self.shift - self.ahead, 0]
        rest = self.kernel, self.shift, self.label, self.complete
        block = HistoryColumns(events, *rest, missing=missing)
        block.inputs = self.inputs
        return block

    # --- which rows are known ---

    @property
    def valid(self) -> np.ndarray:
        """Rows whose window lies inside one epoch and holds no unknown value."""
        if not self.gaps:
            return self.complete
        unknown = np.append(0, np.cumsum(~finite_rows(self.values)))
        stop, n_rows = np.arange(self.n_bins) + self.ahead, len(self.values)
        seen = unknown[stop.clip(0, n_rows)] - unknown[(stop - self.lags).clip(0, n_rows)]
        return self.complete & (seen == 0)

    def mark(self, index: np.ndarray, out: np.ndarray) -> None:
        """Write NaN where the rows at the ascending bins ``index`` are not known."""
        out[~self.complete[index]] = np.nan
        for rows in _stretches(index, _ROWS) if self.gaps and index.size else ():
            first = index[rows][0] + self.ahead - self.lags
            values = self._padded(first, index[rows][-1] + self.ahead)
            unknown = np.zeros((len(values) + 1, self.n_senders), np.int32)
            np.cumsum(~np.isfinite(values), axis=0, out=unknown[1:])
            start = index[rows] + self.ahead - self.lags - first
            hidden = unknown[start + self.lags] != unknown[start]
            out[rows][np.repeat(hidden, self.n_funcs, axis=1)] = np.nan

    def _padded(self, first, stop):
        """Rows of the values less the pivot, float64, with 0 where there are none."""
        out = np.zeros((stop - first, self.n_senders))
        low, high = max(first, 0), min(stop, len(self.values))
        if low < high:
            part = out[low - first : high - first]
            np.subtract(self.values[low:high, self.senders], self.pivot, out=part)
        return out

    # --- values ---

    @property
    def nonnegative(self) -> np.ndarray:
        """For each column, whether it can never be negative."""
        least = reduce(np.fmin, (np.fmin.reduce(part, axis=0) for part in self._blocks()))
        return self._signs(~(least < 0) & (self.taken is None))

    def smallest_positive(self) -> np.ndarray:
        """For each column, a lower bound of its values above zero."""
        least = np.full(self.n_senders, np.inf)
        for part in self._blocks():
            least = np.minimum(least, np.where(part > 0, part, np.inf).min(axis=0))
        return self._least(least)

    def activity(self) -> np.ndarray:
        """Summed distance of the senders from their means, in standard deviations, (n_bins,)."""
        varies = np.isfinite(self.spread) & (self.spread > 0)
        scale = np.where(varies, 1 / np.where(varies, self.spread, 1.0), 0.0)
        found = []
        for part in self._blocks():
            away = np.abs(part - self.mean)
            away[~np.isfinite(away)] = 0
            found.append(away @ scale)
        return np.concatenate(found)[self._rows_of_bins(np.arange(self.n_bins))]

    def centred(self) -> tuple[TraceColumns, np.ndarray]:
        """The block with senders that are far from zero centred, and what is taken off each column.

        See `DenseColumns.centred`. A sender that is constant, but for rounding, is 0 then.
        """
        if not self.pivot.any():
            return self, np.zeros(self.n_columns)
        block = object.__new__(TraceColumns)
        taken = np.outer(self.pivot, self.kernel.sum(axis=0)).ravel()
        block.__dict__.update(self.__dict__, taken=taken)
        return block, taken

    def rows(self, index: np.ndarray, out: np.ndarray) -> None:
        """Write the rows at the ascending bins ``index``, which may repeat, into ``out``."""
        if index.size == 0:
            return
        bands = convolution_bands(self.kernel, self.n_senders, out.dtype)
        if index.size * _APART < index[-1] - index[0]:
            size = max(1, _WINDOW_BYTES // (8 * self.lags * self.n_senders))
            pieces = [slice(k, k + size) for k in range(0, index.size, size)]
            convolved = self._apart
        else:
            size = max(64, min(_STRETCH, _STRETCH_BYTES // (8 * self.n_columns)))
            pieces, convolved = list(_stretches(index, size)), self._together
        back = None
        if self.taken is None and self.pivot.any():
            back = np.outer(self.pivot, self.kernel.sum(axis=0)).ravel()

        def work(piece):
            convolved(index[piece], bands, out[piece])
            if back is not None:
                out[piece] += back

        with np.errstate(over="ignore", invalid="ignore"):
            run_threads(work, pieces, out.size * self.lags)

    def _together(self, index, bands, out):
        """Rows of bins that lie close to each other."""
        first, n = index[0], index[-1] - index[0] + 1
        begin = first + self.ahead - self.lags
        samples = self._clean(self._padded(begin, begin + n + self.lags - 1), out.dtype)
        if is_range(index):
            convolve(samples, bands, self.lags, out)
            return
        every = np.empty((n, self.n_columns), out.dtype)
        convolve(samples, bands, self.lags, every)
        out[:] = every[index - first]

    def _apart(self, index, bands, out):
        """Rows of bins that are far apart, each from its own window."""
        seen, n_rows = (
            index[:, None] + (self.ahead - self.lags) + np.arange(self.lags),
            len(self.values),
        )
        windows = self.values[seen.clip(0, n_rows - 1)][..., self.senders] - self.pivot
        windows[(seen < 0) | (seen >= n_rows)] = 0
        convolve_apart(self._clean(windows, out.dtype), bands, out)

    def _clean(self, samples, dtype):
        """Samples with 0 where they are not known, and for flat senders, in a dtype."""
        if self.gaps:
            samples[~np.isfinite(samples)] = 0
        if self.flat.any():
            samples[..., self.flat] = 0
        return samples.astype(dtype, copy=False)

    def is_history_of(self, counts: Events, bins: np.ndarray | None = None) -> bool:
        """Whether the senders are the cells of some counts, where both are known.

        ``bins`` are those of the counts, by default all.
        They are the same if zeros stand at the same places. Where no value is zero, each cell must
        share half of its variance with its sender, in whatever units.
        """
        bins = np.arange(self.n_bins) if bins is None else bins
        if counts.shape != (bins.size, self.n_senders):
            return False
        sums, zeros, first = np.zeros((6, self.n_senders)), False, None
        for start in range(0, bins.size, _ROWS):
            rows = np.arange(start, min(start + _ROWS, bins.size))
            own = self.values[self._rows_of_bins(bins[rows])][:, self.senders]
            other = counts.rows(rows)
            known = np.isfinite(own) & np.isfinite(other)
            if (((own == 0) != (other == 0)) & known).any():
                return False
            zeros |= bool(((own == 0) & known).any())
            first = other[0] if first is None else first
            a, b = (np.where(known, x - at, 0.0) for x, at in ((own, self.mean), (other, first)))
            sums += [part.sum(axis=0) for part in (known, a, b, a * a, b * b, a * b)]
        n, a, b, aa, bb, ab = sums
        varied = (n * aa - a * a) * (n * bb - b * b)
        return zeros or bool(((n * ab - a * b) ** 2 >= _SHARED * varied).all())

    def select(self, columns: np.ndarray) -> tuple[TraceColumns, np.ndarray]:
        """The block with only the senders that have a column in the boolean array ``columns``.

        The values are those of this block: none is copied.
        """
        used = np.flatnonzero(columns.reshape(self.n_senders, self.n_funcs).any(axis=1))
        index = (used[:, None] * self.n_funcs + np.arange(self.n_funcs)).ravel()
        return self._of_senders(used), index

    def _of_senders(self, senders):
        """The block of some senders, in the given order."""
        if np.array_equal(senders, np.arange(self.n_senders)):
            return self
        block = object.__new__(TraceColumns)
        block.__dict__.update(self.__dict__, senders=np.arange(self.values.shape[1])[self.senders])
        for name in ("senders", "mean", "spread", "pivot", "flat"):
            setattr(block, name, getattr(block, name)[senders])
        if self.taken is not None:
            block.taken = self.taken.reshape(-1, self.n_funcs)[senders].ravel()
        return block

    def _pick(self, senders, funcs):
        block = object.__new__(TraceColumns)
        block.__dict__.update(self._of_senders(senders).__dict__)
        if self.inputs is not None:
            block.inputs = self.inputs.take(senders)
        if self.taken is not None:
            block.taken = block.taken.reshape(-1, self.n_funcs)[:, funcs].ravel()
        block.kernel = np.ascontiguousarray(self.kernel[:, funcs])
        return block

    def cut(self, ranges: np.ndarray) -> TraceColumns:
        """The columns over some ranges of bins, put end to end; see `HistoryColumns.cut`.

        One range is a view of the values.
        """
        block = object.__new__(TraceColumns)
        block.__dict__.update(self.__dict__, complete=end_to_end(self.complete, ranges))
        stored = ranges + self.ahead  # rows after the windows
        block.ahead = int(min(self.lags, max(stored[0, 0], 0)))
        stored[0, 0] -= block.ahead
        n_rows = len(self.values)
        if stored[0, 0] < 0 or stored[-1, 1] > n_rows:  # no complete row sees what is not there
            rows = np.concatenate([np.arange(*some) for some in stored]).clip(0, n_rows - 1)
            block.values = self.values[rows]
        else:
            block.values = end_to_end(self.values, stored)
        block.n_bins = block.complete.size
        return block


def is_dense(counts: np.ndarray) -> bool:
    """Whether more than half of the numbers of a table are not zero.

    As events they would take more than 14 bytes a number. Products with 16 receivers are then
    faster from blocks of rows than from events, whatever the window.
    """
    return 2 * np.count_nonzero(counts) > counts.size


def _stretches(index, n_bins):
    """Slices of ascending bins that lie within some bins of each other."""
    starts = range(index[0], index[-1] + 1, n_bins)
    edges = [*np.searchsorted(index, starts).tolist(), index.size]
    for low, high in pairwise(edges):
        if low < high:
            yield slice(low, high)
