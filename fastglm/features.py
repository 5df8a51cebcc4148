"""The feature matrix: rows for people, products for the solver, never stored.

A `FeatureMatrix` is a row of column blocks. A history block keeps the events of its senders and a
kernel; a dense block keeps an ordinary array (stimulus, position, running speed); a slow block
keeps one row a sample of what is sampled more slowly than the bins; a product block keeps its
factors. People see an array of shape (n_bins, n_features); the solver sees a `Sweep`, which
computes ``X C`` and ``X' R`` chunk by chunk, and `FeatureMatrix.rows`, which builds any few rows.
"""

from functools import cached_property, reduce

import numpy as np
import scipy.sparse
from numpy.lib.mixins import NDArrayOperatorsMixin

from fastglm import _html
from fastglm import _kernels as kernels
from fastglm._threads import run_threads
from fastglm._times import Columns, common_timeline, read_values

CHUNK = 8192  # bins a chunk of a full tile: 512 KB of float32, half of a core's L2
# Float32 filters of a group of senders, and events of it that a block of bins sees at least: twice
# the bytes, the filters of a float64 pass, stay in a core's L2 (512 KB). At 8 Hz groups of 17 in
# place of 64 made such a pass 1.2 times as fast; at 0.5 Hz as small ones cost a factor of 1.5.
_GROUP_BYTES, _GROUP_EVENTS = 1 << 18, 10
_ROWS = 512  # rows of a dense block that one thread multiplies at a time
_FEW_COLUMNS = 8  # up to which an ordinary block goes without BLAS and its temporaries
_SMALL_PRODUCT = 1 << 22  # BLAS orders the sums of a product below 1e6 by its width
_ROUNDING = 1e-12  # a kernel entry above minus this is not negative
_NO_FEATURES = (
    "X has shape {0}; expected at least one feature: 0 feature(s) (shape={0}) while a minimum of 1 "
    "is required."
)
_FEW_UNITS = 8  # units of which one is selected: looking at all events takes longer than sorting
_NEGLIGIBLE = 1e-6  # a kernel entry below this part of the peak does not count as support


class Events:
    """The entries of a table of counts that are not zero, sorted by bin.

    Attributes
    ----------
    bins, units : ndarrays of int32, shape (n_events,)
    amplitudes : ndarray of float64, shape (n_events,)
        The counts; NaN where they are not known.
    n_bins, n_units : int
    """

    timeline = None  # when the bins are, where the counts came with times
    ndim = 2

    def __init__(self, bins, units, amplitudes, shape):
        self.bins, self.units, self.amplitudes = bins, units, amplitudes
        self.n_bins, self.n_units = shape

    @classmethod
    def of(cls, counts):
        """Events of an array or a SciPy sparse array of shape (n_bins, n_units), or of events."""
        if isinstance(counts, Events):
            return counts
        n_units = counts.shape[1]
        if scipy.sparse.issparse(counts):
            # Column by column: rows would take an entry a bin, 36 million an hour at 0.1 ms.
            table = counts.tocsc()
            if not table.has_canonical_format:
                table = table.copy()
                table.sum_duplicates()
            kept = np.flatnonzero(table.data)
            order = kept[np.argsort(table.indices[kept], kind="stable")]
            units = np.repeat(np.arange(n_units, dtype=np.int32), np.diff(table.indptr))[order]
            bins, amplitudes = table.indices[order], table.data[order]
        else:
            # Finding them block by block on booleans is ten times as fast as np.nonzero.
            places = [np.zeros(0, np.int64)]
            size = max(1, (1 << 20) // max(n_units, 1))
            for start in range(0, counts.shape[0], size):
                places.append(np.flatnonzero(counts[start : start + size] != 0) + start * n_units)
            bins, units = np.divmod(np.concatenate(places), n_units)
            amplitudes = counts[bins, units]
        return cls(
            bins.astype(np.int32),
            units.astype(np.int32),
            amplitudes.astype(np.float64),
            counts.shape,
        )

    @property
    def n_events(self):
        """Number of bins and units with events."""
        return self.bins.shape[0]

    def __repr__(self):
        return f"Events(shape={self.shape}, n_events={self.n_events})"

    @property
    def shape(self):
        """Shape of the table, (n_bins, n_units)."""
        return self.n_bins, self.n_units

    def toarray(self):
        """The table, in the smallest signed integer type that holds it; float64 if it has NaN."""
        whole = np.array_equal(self.amplitudes, np.round(self.amplitudes))
        largest = int(np.abs(self.amplitudes).max(initial=1)) if whole else 0
        dtype = np.min_scalar_type(-largest - 1) if whole else np.float64
        table = np.zeros(self.shape, dtype)
        table[self.bins, self.units] = self.amplitudes
        return table

    def take(self, keep):
        """The events that a boolean array keeps."""
        shape = self.n_bins, self.n_units
        return Events(self.bins[keep], self.units[keep], self.amplitudes[keep], shape)

    @cached_property
    def by_unit(self):
        """Places of the events sorted by unit, then by bin, and where those of each unit begin."""
        # Of 16 bits at most, NumPy sorts by digits, ten times as fast.
        order = np.argsort(self.units.astype(np.min_scalar_type(self.n_units)), kind="stable")
        starts = np.searchsorted(self.units[order], np.arange(self.n_units + 1))
        return order.astype(np.min_scalar_type(order.size)), starts

    def select(self, units):
        """The events of some units, which are renumbered in the given order."""
        if len(units) * _FEW_UNITS <= self.n_units:
            order, starts = self.by_unit
            places = [order[starts[i] : starts[i + 1]] for i in units]
            keep = np.concatenate([order[:0], *places])
            units_of = np.repeat(np.arange(len(units), dtype=np.int32), np.diff(starts)[units])
            if len(units) > 1:
                at = np.argsort(keep, kind="stable")
                keep, units_of = keep[at], units_of[at]
            shape = self.n_bins, len(units)
            return Events(self.bins[keep], units_of, self.amplitudes[keep], shape)
        number = np.full(self.n_units, -1, np.int32)
        number[units] = np.arange(len(units))
        # Places, not booleans: a few of many are found three times as fast.
        keep = np.flatnonzero(number[self.units] >= 0)
        units_of = number[self.units[keep]]
        return Events(self.bins[keep], units_of, self.amplitudes[keep], (self.n_bins, len(units)))

    def shift(self, n_bins):
        """The events that many bins later."""
        shape = self.n_bins, self.n_units
        return Events(self.bins + np.int32(n_bins), self.units, self.amplitudes, shape)

    def rows(self, index):
        """The table's rows at some ascending bins, float64."""
        out = np.zeros((len(index), self.n_units))
        if len(index):
            low, high = np.searchsorted(self.bins, [index[0], index[-1] + 1])
            place = np.searchsorted(index, self.bins[low:high])
            hit = index[place] == self.bins[low:high]
            out[place[hit], self.units[low:high][hit]] = self.amplitudes[low:high][hit]
        return out


class HistoryColumns:
    """Causal history of every sender, weighted by a temporal kernel.

    Column ``i * n_funcs + b`` is ``sum_l kernel[l, b] * counts[t + shift - 1 - l, i]``.

    Parameters
    ----------
    counts : ndarray of shape (n_bins, n_senders), or Events
        Finite; only the entries that are not zero are kept (two orderings, 32 bytes an event).
    kernel : ndarray of shape (window_size, n_funcs)
        Row 0 weighs lag 1.
    shift : int
        Bins by which the window is moved into the future; 0 is strictly causal.
    label : str
    complete : ndarray of bool, shape (n_bins,), optional
        Bins whose whole window lies inside one epoch; all by default.
    missing : ndarray of int, shape (n_missing, 2), optional
        Bin and sender of every count that is not known (NaN in the input).
    """

    may_be_nan = False  # `rows` gives numbers where `mark` writes NaN
    inputs = None  # what the senders are called, where they have names

    def __init__(self, counts, kernel, shift=0, label="history", complete=None, missing=None):
        self.kernel = np.ascontiguousarray(kernel, dtype=np.float64)
        events = counts if isinstance(counts, Events) else Events.of(counts)
        self._set_events(events.shift(-shift))
        self.label = label
        self.complete = np.ones(events.n_bins, bool) if complete is None else complete
        self.missing = missing
        self.shift = shift

    def _set_events(self, events):
        self._events, self.n_bins = events, events.n_bins
        order, self.starts = events.by_unit
        self.bins_by_sender = events.bins[order]
        self.amplitudes_by_sender = events.amplitudes[order]
        del events.by_unit  # 4 bytes an event, which nobody asks for again

    @property
    def events(self):
        """The events sorted by bin."""
        if self._events is None:
            order = np.argsort(self.bins_by_sender, kind="stable")
            units = np.repeat(np.arange(self.n_senders, dtype=np.int32), np.diff(self.starts))
            self._events = Events(
                self.bins_by_sender[order],
                units[order],
                self.amplitudes_by_sender[order],
                (self.n_bins, self.n_senders),
            )
        return self._events

    @cached_property
    def groups(self):
        """The events of some senders at a time, whose filters stay in the second-level cache."""
        events, window_size = self.events, self.kernel.shape[0]
        span = window_size + 2 * kernels.PAD
        seen = self.n_events * (window_size + kernels.BLOCK) / max(self.n_bins * self.n_senders, 1)
        size = max(
            8, _GROUP_BYTES // (4 * kernels.LANES * span), int(_GROUP_EVENTS / max(seen, 1e-9))
        )
        if events.n_units <= size:
            return [events]
        group = events.units // size
        return [events.take(group == g) for g in range(int(group.max(initial=0)) + 1)]

    @property
    def n_senders(self):
        """Number of senders."""
        return self.starts.size - 1

    @property
    def n_funcs(self):
        """Number of basis functions."""
        return self.kernel.shape[1]

    @property
    def n_columns(self):
        """Number of columns."""
        return self.n_senders * self.n_funcs

    @property
    def n_events(self):
        """Number of bins and senders with events."""
        return self.bins_by_sender.size

    def arrays(self):
        """The arrays that the columns follow from."""
        events = self.events
        return [self.kernel, events.bins, events.units, events.amplitudes]

    @property
    def valid(self):
        """Rows that are complete and have seen no missing count."""
        valid = self.complete
        if self.missing is not None:
            valid = valid.copy()
            for seen, _ in self._missing_rows():
                valid[seen] = False
        return valid

    @property
    def reach(self):
        """Bins before a row and bins after it whose counts the row depends on."""
        return max(self.kernel.shape[0] - self.shift, 0), max(self.shift - 1, 0)

    def _missing_rows(self):
        """Slice of the rows that see each missing count, and its sender."""
        window_size = self.kernel.shape[0]
        for t, sender in self.missing:
            first = t + 1 - self.shift
            yield slice(max(first, 0), max(first + window_size, 0)), sender

    def mark(self, index, out):
        """Write NaN where the rows ``index`` (ascending) are not known."""
        out[~self.complete[index]] = np.nan
        if self.missing is not None:
            for seen, sender in self._missing_rows():
                inside = slice(*np.searchsorted(index, [seen.start, seen.stop]))
                out[inside, sender * self.n_funcs : (sender + 1) * self.n_funcs] = np.nan

    @property
    def nonnegative(self):
        """True for a column that can never be negative."""
        positive_sender = np.ones(self.n_senders, bool)
        positive_sender[self.events.units[self.events.amplitudes < 0]] = False
        return np.outer(positive_sender, (self.kernel >= -_ROUNDING).all(axis=0)).ravel()

    def smallest_positive(self):
        """A lower bound, per column, of the values above zero that the column can take."""
        amplitude = np.full(self.n_senders, np.inf)
        np.minimum.at(amplitude, self.events.units, self.events.amplitudes)
        floor = _NEGLIGIBLE * self.kernel.max(axis=0)
        positive = np.where(self.kernel > floor, self.kernel, np.inf).min(axis=0)
        return np.outer(amplitude, positive).ravel()

    def rows(self, index, out):
        """Write the rows at the ascending bins ``index`` into ``out``."""
        kernels.launch(
            kernels.history_rows,
            self.events.bins,
            self.events.units,
            self.events.amplitudes,
            self.kernel,
            index,
            out,
        )

    def select(self, columns):
        """The block with only the senders that have a column in the boolean array ``columns``.

        Returns the block and the index of its columns in this one.
        """
        senders = np.flatnonzero(columns.reshape(self.n_senders, self.n_funcs).any(1))
        block = object.__new__(HistoryColumns)
        block.__dict__.update(self.__dict__, missing=None, _events=None)
        block.__dict__.pop("groups", None)
        sizes = np.diff(self.starts)[senders]
        block.starts = np.concatenate([[0], np.cumsum(sizes)])
        # Sorted by bin where that is asked for: a product for one receiver does not.
        parts = [slice(self.starts[i], self.starts[i + 1]) for i in senders]
        for name in ("bins_by_sender", "amplitudes_by_sender"):
            values = getattr(self, name)
            setattr(block, name, np.concatenate([values[:0], *(values[part] for part in parts)]))
        index = senders[:, None] * self.n_funcs + np.arange(self.n_funcs)
        return block, index.ravel()

    def sweep(self, n_tiles, lanes, dtype, products="events"):
        """Products with one batch of receivers, from the events or from blocks of rows."""
        sweep = _HistorySweep if products == "events" else _DenseSweep
        return sweep(self, n_tiles, lanes, dtype)


class _HistorySweep:
    """Products of a history block with one batch of receivers, straight from the events.

    Memory: filters and lag sums, ``n_senders * (2 * window_size + 2 * PAD + BLOCK)`` values a
    receiver; nothing grows with the number of bins.
    """

    def __init__(self, block, n_tiles, lanes, dtype):
        self.block, self.lanes = block, lanes
        self.window_size = block.kernel.shape[0]
        size = kernels.BLOCK if lanes == kernels.LANES else kernels.NARROW_BLOCK
        n_lags = -(-self.window_size // size) * size
        span = self.window_size + 2 * kernels.PAD
        self.filters = kernels.aligned_zeros((n_tiles, block.n_senders, span, lanes), dtype)
        self.lag_sums = kernels.aligned_zeros((n_tiles, block.n_senders, n_lags * lanes))
        self.amplitudes = []  # of every group
        if lanes > 1:
            self.amplitudes = [g.amplitudes.astype(dtype, copy=False) for g in block.groups]
        self.amplitudes_by_sender = block.amplitudes_by_sender.astype(dtype, copy=False)

    def set_coef(self, coef, tiles):
        kernels.launch(
            kernels.project_filters,
            self.block.kernel,
            coef,
            self.lanes,
            tiles,
            self.filters,
        )

    def forward(self, start, n_rows, tiles, eta):
        block, filters = self.block, self.filters.reshape(self.filters.shape[0], -1)
        rest = filters, self.window_size, start, n_rows, tiles, eta
        if self.lanes == 1:
            own = block.bins_by_sender, block.starts, self.amplitudes_by_sender
            kernels.launch(kernels.history_forward_narrow, *own, *rest)
            return
        for events, amplitudes in zip(block.groups, self.amplitudes, strict=True):
            own = events.bins, events.units, amplitudes
            kernels.launch(kernels.history_forward, *own, *rest)

    def backward(self, start, n_rows, tiles, residual):
        kernels.launch(
            kernels.history_backward,
            self.block.bins_by_sender,
            self.block.starts,
            self.amplitudes_by_sender,
            residual,
            self.window_size,
            start,
            n_rows,
            self.lanes,
            tiles,
            self.lag_sums,
        )

    def collect(self, grad):
        lag_sums = self.lag_sums.reshape(*self.lag_sums.shape[:2], -1, self.lanes)
        kernels.launch(kernels.collect_filters, self.block.kernel, lag_sums, self.lanes, grad)
        self.lag_sums[:] = 0


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
    reach = 0, 0  # a row depends on its own bin alone

    def __init__(self, values, label="columns", n_funcs=None, complete=None):
        self.values = values
        self.label = label
        self.n_funcs = values.shape[1] if n_funcs is None else n_funcs
        self.complete = complete

    @property
    def n_columns(self):
        """Number of columns."""
        return self.values.shape[1]

    def arrays(self):
        """The arrays that the columns follow from."""
        return [np.asarray(self.values)]

    @property
    def valid(self):
        """Rows inside an epoch, without NaN or infinity."""
        valid = self._spread(_finite(self.values))
        return valid if self.complete is None else valid & self.complete

    def _spread(self, of_row):
        """An entry of every row of ``values`` as one of every bin."""
        return of_row

    def mark(self, index, out):
        """Write NaN outside the epochs; other NaN stand in the values themselves."""
        if self.complete is not None:
            out[~self.complete[index]] = np.nan

    @property
    def nonnegative(self):
        """True for a column without negative values."""
        return np.fmin.reduce(self.values, axis=0, initial=0) >= 0

    def smallest_positive(self):
        """The smallest value above zero of each column."""
        return np.where(self.values > 0, self.values, np.inf).min(axis=0, initial=np.inf)

    def rows(self, index, out):
        """Write the rows at the ascending bins ``index``, which may repeat, into ``out``."""
        if _is_range(index):
            out[:] = self.values[index[0] : index[-1] + 1]
        else:
            out[:] = self.values[index]

    def select(self, columns):
        """The block with the columns of a boolean array, and their index in this one."""
        index = np.flatnonzero(columns)
        if index.size == self.n_columns:
            return self, index
        block = object.__new__(type(self))
        block.__dict__.update(self.__dict__, values=self.values[:, index], n_funcs=index.size)
        return block, index

    def runs(self, start, n_rows):
        """Values, edges and samples of the runs of some bins, as the kernels take them."""
        every = np.arange(n_rows + 1)
        return self.values[start : start + n_rows], every, every[:-1]

    def sweep(self, n_tiles, lanes, dtype, products="rows"):
        """Products with one batch of receivers."""
        few = self.n_columns <= _FEW_COLUMNS
        return (_RunSweep if few else _DenseSweep)(self, n_tiles, lanes, dtype)


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
        values,
        starts,
        samples,
        n_bins,
        label="held",
        n_funcs=None,
        complete=None,
        sample_shape=None,
    ):
        super().__init__(values, label, n_funcs, complete)
        self.starts, self.samples, self.n_bins = starts, samples, n_bins
        self.sample_shape = values.shape[1:] if sample_shape is None else sample_shape

    def arrays(self):
        """The arrays that the columns follow from."""
        return [self.values, self.starts, self.samples]

    def _spread(self, of_row):
        known = np.append(of_row, False)  # the last one is that of sample -1
        return np.repeat(known[self.samples], np.diff(self.starts, append=self.n_bins))

    def with_values(self, values, label, n_funcs, complete):
        """Other columns with the same runs."""
        return SlowColumns(values, self.starts, self.samples, self.n_bins, label, n_funcs, complete)

    def rows(self, index, out):
        """Write the rows at the ascending bins ``index``, which may repeat, into ``out``."""
        if _is_range(index):
            _, edges, samples = self.runs(index[0], index.size)
            samples = np.repeat(samples, np.diff(edges))
        else:
            samples = self.samples[np.searchsorted(self.starts, index, side="right") - 1]
        out[:] = self.values[samples]
        out[samples < 0] = np.nan

    def runs(self, start, n_rows):
        """Values, edges and samples of the runs of some bins, as the kernels take them."""
        low, high = np.searchsorted(self.starts, [start + 1, start + n_rows])
        edges = np.append(self.starts[low - 1 : high] - start, n_rows)
        edges[0] = 0
        return self.values, edges, self.samples[low - 1 : high]

    def sweep(self, n_tiles, lanes, dtype, products="rows"):
        """Products with one batch of receivers."""
        return _RunSweep(self, n_tiles, lanes, dtype)


class ProductColumns:
    """Products of the columns of two factors, input by input, built where rows are asked for.

    With ``n_inputs`` inputs, a and b columns an input in the factors, column
    ``(i * a + j) * b + k`` is column j of input i on the left times column k of it on the right.

    Parameters
    ----------
    left, right : tuples of blocks
        Each with ``n_inputs`` times some columns, input-major.
    n_inputs : int
    label : str
    """

    may_be_nan = True
    inputs = None

    def __init__(self, left, right, n_inputs, label="product"):
        self.factors = tuple(left), tuple(right)
        self.n_inputs, self.label = n_inputs, label
        sizes = [sum(c.n_columns for c in blocks) // n_inputs for blocks in self.factors]
        self.n_funcs = sizes[0] * sizes[1]

    @property
    def n_columns(self):
        """Number of columns."""
        return self.n_inputs * self.n_funcs

    def arrays(self):
        """The arrays that the columns follow from."""
        return [a for blocks in self.factors for c in blocks for a in c.arrays()]

    @property
    def valid(self):
        """Rows that are valid in all blocks of both factors."""
        return np.logical_and.reduce([c.valid for blocks in self.factors for c in blocks])

    @property
    def reach(self):
        """Bins before a row and bins after it whose counts the row depends on."""
        return _farthest([c for blocks in self.factors for c in blocks])

    def _outer(self, function, operation):
        """The operation on ``function(block)``, (n, n_columns) or (n_columns,), of both factors."""
        left, right = (
            np.concatenate(
                [_by_input(function(c), self.n_inputs, c.n_columns) for c in blocks], axis=-1
            )
            for blocks in self.factors
        )
        with np.errstate(invalid="ignore"):
            product = operation(left[..., :, None], right[..., None, :])
        return product.reshape(*product.shape[:-3], self.n_columns)

    @property
    def nonnegative(self):
        """True for a column whose factors can never be negative."""
        return self._outer(lambda c: c.nonnegative, np.logical_and)

    def smallest_positive(self):
        """A lower bound, per column that is never negative, of its values above zero."""
        return self._outer(lambda c: c.smallest_positive(), np.multiply)

    def rows(self, index, out):
        """Write the rows at the ascending bins ``index`` into ``out``."""

        def rows(block):
            part = np.empty((index.size, block.n_columns), out.dtype)
            block.rows(index, part)
            return part

        out[:] = self._outer(rows, np.multiply)

    def mark(self, index, out):
        """Write NaN where a factor is not known."""

        def unknown(block):
            part = np.zeros((index.size, block.n_columns))
            block.mark(index, part)
            return np.isnan(part)

        out[self._outer(unknown, np.logical_or)] = np.nan

    def select(self, columns):
        """The block with only the inputs that have a column in the boolean array ``columns``."""
        inputs = columns.reshape(self.n_inputs, self.n_funcs).any(axis=1)
        left, right = (
            [c.select(np.repeat(inputs, c.n_columns // self.n_inputs))[0] for c in blocks]
            for blocks in self.factors
        )
        block = ProductColumns(left, right, int(inputs.sum()), self.label)
        return block, np.flatnonzero(np.repeat(inputs, self.n_funcs))

    def sweep(self, n_tiles, lanes, dtype, products="rows"):
        """Products with one batch of receivers."""
        return _DenseSweep(self, n_tiles, lanes, dtype)


def _farthest(blocks):
    """The longest reach of some blocks, back and ahead."""
    return tuple(max(c.reach[side] for c in blocks) for side in (0, 1))


def _by_input(values, n_inputs, n_columns):
    return values.reshape(*values.shape[:-1], n_inputs, n_columns // n_inputs)


def _is_range(index):
    """True for bins that follow each other without a gap or a repetition."""
    if index.size == 0 or index[-1] - index[0] + 1 != index.size:
        return False
    return bool((np.diff(index) == 1).all())


def _finite(values):
    """Rows without NaN or infinity."""
    finite = np.ones(values.shape[0], bool)
    if values.dtype.kind == "f":
        for start in range(0, finite.shape[0], CHUNK):
            block = slice(start, start + CHUNK)
            finite[block] = np.isfinite(values[block]).all(axis=1)
    return finite


class _DenseSweep:
    """Products of blocks of rows: BLAS on some rows and all receivers at a time.

    The shape of a product follows from the tiles alone, and small ones are done tile by tile (see
    `tiled_dot`): the bits of a receiver do not depend on the others. The rows of a chunk are built
    once for both ways.
    """

    _at, _rows = None, None

    def __init__(self, block, n_tiles, lanes, dtype):
        self.block, self.lanes, self.dtype = block, lanes, dtype
        self.coef = np.zeros((block.n_columns, 0), dtype)
        self.grad = np.zeros((block.n_columns, n_tiles * lanes))

    def set_coef(self, coef, tiles):
        self.coef = np.ascontiguousarray(coef[:, _lanes_of(tiles, self.lanes)], self.dtype)

    def _values(self, start, n_rows):
        if self._at != (start, n_rows):
            self._rows = np.empty((n_rows, self.block.n_columns), self.dtype)
            self.block.rows(np.arange(start, start + n_rows), self._rows)
            if self.block.may_be_nan:  # such rows are not valid
                self._rows[~np.isfinite(self._rows)] = 0
            self._at = start, n_rows
        return self._rows

    def _interior(self, eta, n_rows):
        eta = eta.reshape(eta.shape[0], -1, self.lanes)
        return eta[:, kernels.PAD : kernels.PAD + n_rows]

    def forward(self, start, n_rows, tiles, eta):
        values, out = self._values(start, n_rows), self._interior(eta, n_rows)

        def block(first):
            part = slice(first, first + _ROWS)
            product = tiled_dot(values[part], self.coef, self.lanes)
            product = product.reshape(product.shape[0], tiles.size, self.lanes)
            for k, tile in enumerate(tiles):
                out[tile, part] += product[:, k]

        run_threads(block, range(0, n_rows, _ROWS), values.size)

    def backward(self, start, n_rows, tiles, residual):
        values, residual = self._values(start, n_rows), self._interior(residual, n_rows)

        def block(first):
            part = slice(first, first + _ROWS)
            stacked = residual[tiles, part].transpose(1, 0, 2).reshape(-1, tiles.size * self.lanes)
            return tiled_dot(values[part].T, stacked, self.lanes)

        for part in run_threads(block, range(0, n_rows, _ROWS), values.size):
            self.grad[:, _lanes_of(tiles, self.lanes)] += part

    def collect(self, grad):
        grad += self.grad
        self.grad[:] = 0


class _RunSweep:
    """Products of columns that are constant over runs of bins, or of a few ordinary columns.

    An addition a bin and receiver each way, and ``n_columns`` multiply-adds a run and receiver.
    Memory: the kernel's sums, ``n_columns`` values a receiver and segment of a chunk, and the
    samples in the precision of the pass.
    """

    def __init__(self, block, n_tiles, lanes, dtype):
        self.block, self.lanes, self.dtype = block, lanes, dtype
        wide = lanes == kernels.LANES
        self._forward = kernels.runs_forward if wide else kernels.runs_forward_narrow
        self._backward = kernels.runs_backward if wide else kernels.runs_backward_narrow
        self.coef = np.zeros((n_tiles, block.n_columns * lanes), dtype)
        self.grad = np.zeros((n_tiles, block.n_columns * lanes))
        self.sums = np.zeros((n_tiles, 0, block.n_columns * lanes), dtype)
        self._at, self._chunk, self._given = None, None, None

    def set_coef(self, coef, tiles):
        part = coef[:, _lanes_of(tiles, self.lanes)].reshape(len(coef), tiles.size, self.lanes)
        self.coef[: tiles.size] = part.transpose(1, 0, 2).reshape(tiles.size, -1)

    def _runs(self, start, n_rows):
        """The runs of a chunk, looked up once for both ways."""
        if self._at != (start, n_rows):
            values, edges, samples = self.block.runs(start, n_rows)
            if values is not self._given:  # those of slow columns are the same for every chunk
                self._given, self._taken = values, np.array(values, self.dtype, order="C")
                self._taken[~np.isfinite(self._taken)] = 0  # such rows are not valid
            self._at, self._chunk = (start, n_rows), (self._taken, edges, samples)
        return self._chunk

    def forward(self, start, n_rows, tiles, eta):
        kernels.launch(self._forward, *self._runs(start, n_rows), self.coef, tiles, eta)

    def backward(self, start, n_rows, tiles, residual):
        n_segments = -(-n_rows // kernels.SEGMENT)
        if self.sums.shape[1] < n_segments:
            self.sums = np.zeros((len(self.sums), n_segments, self.sums.shape[2]), self.dtype)
        kernels.launch(self._backward, *self._runs(start, n_rows), residual, tiles, self.sums)
        self.grad[tiles] += self.sums[: tiles.size, :n_segments].sum(axis=1, dtype=np.float64)

    def collect(self, grad):
        n = len(grad)
        tiles = self.grad.reshape(len(self.grad), n, self.lanes)
        grad += tiles.transpose(1, 0, 2).reshape(n, len(tiles) * self.lanes)
        self.grad[:] = 0


def _lanes_of(tiles, lanes):
    return (tiles[:, None] * lanes + np.arange(lanes)).ravel()


def tiled_dot(rows, v, lanes):
    """``rows @ v``, the same bits for a column whatever the others are."""
    with np.errstate(over="ignore", invalid="ignore"):
        if rows.size * lanes > _SMALL_PRODUCT:
            return rows @ v
        tiles = range(0, v.shape[1], lanes)
        return np.concatenate([rows @ v[:, k : k + lanes] for k in tiles], axis=1)


def column_dot(a, b):
    """``(a * b).sum(axis=0)``, the same bits for a column whatever the others are.

    NumPy adds up a single column in another order than one of several.
    """
    return np.einsum("ij,ij->i", np.ascontiguousarray(a.T), np.ascontiguousarray(b.T))


class Sweep:
    """``X C`` and ``X' R`` of one batch of receivers, one chunk of bins at a time.

    Set the coefficients, walk over the chunks with `forward`, turn ``eta`` into a residual in
    place, hand it to `backward`, and `collect` the gradient at the end. ``products`` says how
    history blocks are multiplied: "events" or "rows".
    """

    def __init__(self, X, n_receivers, dtype=np.float64, lanes=kernels.LANES, products="events"):
        self.X, self.lanes = X, lanes
        self.n_tiles = -(-n_receivers // lanes)
        self.n_receivers = self.n_tiles * lanes  # padded
        self.tiles = np.arange(self.n_tiles)
        self.parts = [c.sweep(self.n_tiles, lanes, dtype, products) for c in X.columns]
        # A tile of any width fills the same memory.
        block = kernels.NARROW_BLOCK
        self.n_rows = min(CHUNK * kernels.LANES // lanes, -(-X.shape[0] // block) * block)
        self.eta = kernels.aligned_zeros(
            (self.n_tiles, (self.n_rows + 2 * kernels.PAD) * lanes), dtype
        )

    def set_coef(self, coef, tiles=None):
        """Take the coefficients, shape (n_features, n_receivers), and the tiles to work on."""
        self.tiles = np.arange(self.n_tiles) if tiles is None else tiles
        padded = np.zeros((coef.shape[0], self.n_receivers))
        padded[:, : coef.shape[1]] = coef
        for part, (start, stop) in zip(self.parts, self.X.column_ranges, strict=True):
            part.set_coef(padded[start:stop], self.tiles)

    def chunks(self):
        """Start and number of rows of every chunk."""
        for start in range(0, self.X.shape[0], self.n_rows):
            yield start, min(self.n_rows, self.X.shape[0] - start)

    def forward(self, start, n_rows):
        """``X[start : start + n_rows] @ coef`` in the layout of the kernels, without intercept."""
        self.eta[:] = 0
        for part in self.parts:
            part.forward(start, n_rows, self.tiles, self.eta)
        self.eta[:, (kernels.PAD + n_rows) * self.lanes :] = 0
        return self.eta

    def put(self, values):
        """Copy ``values`` of shape (n_rows, n_receivers) into the layout of the kernels."""
        n_rows, n = values.shape
        self.eta[:] = 0
        out = self.eta.reshape(self.n_tiles, -1, self.lanes)
        for tile in range(self.n_tiles):
            width = min(self.lanes, n - tile * self.lanes)
            if width > 0:
                out[tile, kernels.PAD : kernels.PAD + n_rows, :width] = values[
                    :, tile * self.lanes : tile * self.lanes + width
                ]
        return self.eta

    def add(self, values):
        """Add values of shape (n_rows, 1 or n_receivers) to ``eta``."""
        n_rows, n = values.shape
        out = self.eta.reshape(self.n_tiles, -1, self.lanes)[:, kernels.PAD : kernels.PAD + n_rows]
        for tile in self.tiles:
            if n == 1:
                out[tile] += values
            else:
                part = values[:, tile * self.lanes : (tile + 1) * self.lanes]
                out[tile][:, : part.shape[1]] += part

    def get(self, n_rows, n):
        """The first ``n`` receivers of the chunk as an array of shape (n_rows, n)."""
        eta = self.eta.reshape(self.n_tiles, -1, self.lanes)
        eta = eta[:, kernels.PAD : kernels.PAD + n_rows]
        return eta.transpose(1, 0, 2).reshape(n_rows, -1)[:, :n]

    def backward(self, start, n_rows, residual):
        """Add ``X[start : start + n_rows].T @ residual``."""
        for part in self.parts:
            part.backward(start, n_rows, self.tiles, residual)

    def collect(self):
        """What `backward` has added up, shape (n_features, n_receivers); starts anew."""
        grad = np.zeros((self.X.shape[1], self.n_receivers))
        for part, (start, stop) in zip(self.parts, self.X.column_ranges, strict=True):
            part.collect(grad[start:stop])
        return grad


def _describe(c):
    """A block of columns in words."""
    if hasattr(c, "kernel"):
        lags = f"{c.kernel.shape[0]:,} bins"
        return f"history of {c.n_senders:,} cells over {lags}, {c.n_funcs} functions each"
    names = {"SlowColumns": "kept at their own rate", "ProductColumns": "products, not stored"}
    return names.get(type(c).__name__, "an array")


class FeatureMatrix(NDArrayOperatorsMixin):
    """Array-like of shape (n_bins, n_features) that keeps events and kernels, not values.

    Made by ``compute_features`` of a basis. Slicing rows (``X[10:]``), ``np.asarray(X)`` and NumPy
    functions give ordinary float64 arrays of what was asked for; ``fit``, ``predict`` and
    ``score`` of the models never build it. ``np.hstack([X, stimulus])`` stays a FeatureMatrix.

    Attributes
    ----------
    shape, ndim, size, dtype
        As of the array that it stands for.
    valid : ndarray of bool, shape (n_bins,)
        Rows without NaN: the whole window lies inside one epoch and has seen no NaN.
    labels : list of str
        Label of each block of columns.
    timeline : Timeline or None
        When the bins are, for features of pynapple's objects: ``X[:]`` and predictions are then
        TsdFrames.
    """

    ndim = 2
    dtype = np.dtype(np.float64)

    def __init__(self, columns, valid=None, timeline=None):
        self.columns = tuple(columns)
        self.timeline = timeline
        if valid is None:
            valid = reduce(np.logical_and, (c.valid for c in self.columns))
        self.valid = valid
        edges = np.cumsum([0] + [c.n_columns for c in self.columns])
        self.column_ranges = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
        self.shape = (valid.shape[0], int(edges[-1]))

    @property
    def size(self):
        """Number of entries."""
        return self.shape[0] * self.shape[1]

    @property
    def labels(self):
        """Label of each block of columns."""
        return [c.label for c in self.columns]

    @property
    def reach(self):
        """Bins before a row and bins after it whose counts the row depends on."""
        return _farthest(self.columns)

    @property
    def filters(self):
        """Number of the filter of every feature: a sender's, or a block of ordinary columns."""
        groups, first = [], 0
        for c in self.columns:
            size = max(c.n_funcs, 1)
            groups.append(first + np.arange(c.n_columns) // size)
            first += c.n_columns // size
        return np.concatenate(groups)

    @property
    def nbytes(self):
        """Bytes that are kept, not those of the array that it stands for."""
        return self.valid.nbytes + sum(_nbytes(c) for c in self.columns)

    @property
    def nonnegative(self):
        """True for a column that can never be negative."""
        return np.concatenate([c.nonnegative for c in self.columns])

    def smallest_positive(self):
        """A lower bound, per column, of its values above zero."""
        return np.concatenate([c.smallest_positive() for c in self.columns])

    def __len__(self):
        return self.shape[0]

    def __repr__(self):
        blocks = ", ".join(f"{c.label}: {c.n_columns}" for c in self.columns)
        return (
            f"FeatureMatrix(shape={self.shape}, columns=({blocks}), "
            f"valid_rows={int(self.valid.sum())}, kept={self.nbytes / 1e6:.3g} MB)"
        )

    def _repr_html_(self):
        n_bins, n_features = self.shape
        rows = [[c.label, _describe(c), f"{c.n_columns:,}"] for c in self.columns]
        note = (
            f"{int(self.valid.sum()):,} rows are complete. {self.nbytes / 1e6:.3g} MB are kept, as "
            f"an array it would be {8e-6 * self.size:.3g} MB."
        )
        head = ["label", "what", "columns"]
        return _html.table(f"Features, {n_bins:,} bins x {n_features:,}", rows, head, note)

    def rows(self, index, dtype=np.float64):
        """The rows at the ascending bins ``index``, which should be valid."""
        index = np.asarray(index)
        parts = []
        for c in self.columns:
            part = np.empty((index.size, c.n_columns), dtype)
            c.rows(index, part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def __getitem__(self, key):
        key = key if isinstance(key, tuple) else (key,)
        values, rows = self._take(key), key[0] if key else None
        if self.timeline is None or not isinstance(rows, slice) or (rows.step or 1) < 0:
            return values
        columns = None
        if values.ndim == 2:
            columns = self._describe().take(np.arange(self.shape[1])[key[1:]].ravel())
        return self.timeline.wrap(values, columns, rows)

    def _describe(self):
        """Number of every feature, with its label, input and function."""
        parts = []
        for c in self.columns:
            inputs = c.inputs or Columns(list(range(max(c.n_columns // max(c.n_funcs, 1), 1))))
            number, size = np.arange(c.n_columns), max(c.n_columns // len(inputs.names), 1)
            inputs = inputs.take(number // size)
            own = {"label": [c.label] * c.n_columns, "input": inputs.names}
            parts.append({**inputs.metadata, **own, "function": list(number % size)})
        metadata = {}
        for name in dict.fromkeys(name for part in parts for name in part):
            given = (p.get(name, [None] * len(p["label"])) for p in parts)
            metadata[name] = [value for values in given for value in values]
        return Columns(list(range(self.shape[1])), metadata)

    def _take(self, key):
        if not key or any(k is Ellipsis for k in key) or np.ndim(key[0]) > 1:
            return np.asarray(self)[key]
        index = np.arange(self.shape[0])[key[0]]
        order, inverse = np.unique(index, return_inverse=True)
        values = self.rows(order)
        for c, (start, stop) in zip(self.columns, self.column_ranges, strict=True):
            c.mark(order, values[:, start:stop])
        if not np.array_equal(order, index):
            values = values[inverse.reshape(np.shape(index))]
        if np.ndim(index) == 0:
            return values.reshape(-1)[key[1:]]
        # Beside an array of rows, an array of columns is taken pairwise, as NumPy does.
        rows = slice(None) if isinstance(key[0], slice) else np.arange(index.size)
        return values[(rows, *key[1:])]

    @property
    def T(self):
        """The transpose, as an ordinary array."""
        return np.asarray(self).T

    def __array__(self, dtype=None, copy=None):
        if copy is False:
            raise ValueError("A FeatureMatrix keeps no array that could be shared; use copy=None.")
        return self._take((slice(None),)).astype(dtype or self.dtype, copy=False)

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        inputs = [np.asarray(x) if isinstance(x, FeatureMatrix) else x for x in inputs]
        return getattr(ufunc, method)(*inputs, **kwargs)

    def __array_function__(self, func, types, args, kwargs):
        if func is np.hstack or (
            func is np.concatenate and (kwargs.get("axis") or (*args, 0)[1]) in (1, -1)
        ):
            return hstack(args[0])
        return func(*_to_arrays(args), **_to_arrays(kwargs))

    def select(self, columns):
        """The matrix with only the senders and columns that the boolean ``columns`` needs.

        Returns it and the index of its columns in this one.
        """
        blocks, indices = [], []
        for c, (start, stop) in zip(self.columns, self.column_ranges, strict=True):
            if columns[start:stop].any():
                block, index = c.select(columns[start:stop])
                blocks.append(block)
                indices.append(index + start)
        if not blocks:  # the mask leaves nothing in: one column that is never used
            empty = DenseColumns(np.broadcast_to(0.0, (self.shape[0], 1)), "none")
            return FeatureMatrix([empty], self.valid), np.zeros(1, int)
        return FeatureMatrix(blocks, self.valid), np.concatenate(indices)


def _nbytes(block):
    """Bytes of the arrays of a block and of its factors."""
    kept = {**vars(block), **vars(getattr(block, "events", block))}
    own = sum(v.nbytes for v in kept.values() if isinstance(v, np.ndarray))
    return own + sum(_nbytes(c) for blocks in getattr(block, "factors", ()) for c in blocks)


def _to_arrays(value):
    """Replace every FeatureMatrix inside tuples, lists and dicts by its array."""
    if isinstance(value, FeatureMatrix):
        return np.asarray(value)
    if isinstance(value, list | tuple):
        return type(value)(_to_arrays(v) for v in value)
    if isinstance(value, dict):
        return {k: _to_arrays(v) for k, v in value.items()}
    return value


def hstack(blocks):
    """Put feature matrices and ordinary arrays of the same n_bins side by side.

    ``np.hstack`` and ``np.concatenate(..., axis=1)`` call this when one of the blocks is a
    `FeatureMatrix`. A one-dimensional array is one column.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> counts = np.random.default_rng(0).poisson(0.1, size=(500, 3))
    >>> history = fastglm.basis.HistoryConv(5).compute_features(counts)
    >>> fastglm.features.hstack([history, np.linspace(0, 1, 500)]).shape
    (500, 16)
    """
    matrices = [
        b if isinstance(b, FeatureMatrix) else as_feature_matrix(b, one_column=True) for b in blocks
    ]
    names = [f"block {k}" for k in range(len(matrices))]
    timeline = common_timeline([m.timeline for m in matrices], names)
    n_bins = {m.shape[0] for m in matrices}
    if len(n_bins) != 1:
        raise ValueError(
            f"Blocks have {[m.shape[0] for m in matrices]} rows; expected the same number in "
            "each. Compute them from the same bins."
        )
    return FeatureMatrix([c for m in matrices for c in m.columns], timeline=timeline)


def hold(values, n_bins=None, *, every=None, starts=None, samples=None, label="held"):
    """A covariate that is sampled more slowly than the bins, kept at its own rate.

    Row t of the matrix is the sample that bin t sees: ``values[floor(t / every)]``, or the last
    sample whose start is not after t, or ``values[samples[t]]``. Give exactly one of the three.

    Parameters
    ----------
    values : array of shape (n_samples,) or (n_samples, ...)
        Samples in order of time. NaN spreads to the bins that see it.
    n_bins : int
        Not needed with ``samples``.
    every : float, optional
        Bins from one sample to the next, not below 1; need not be whole (33.3 for a camera at
        30 Hz beside bins of 1 ms).
    starts : array of int, shape (n_samples,), optional
        First bin of every sample, ascending. Bins before the first are NaN.
    samples : array of int, shape (n_bins,), optional
        Number of the sample of every bin, such as the frame of a film that is shown repeatedly;
        -1 for none (NaN).
    label : str

    Returns
    -------
    FeatureMatrix of shape (n_bins, n_columns)
        Beside the samples it keeps 16 bytes a run of bins with the same sample. Put it beside
        others with `hstack`, or give it to an Eval basis in place of an array: the features are
        then evaluated and kept once a sample.

    Raises
    ------
    ValueError
        If not exactly one way is given, or it does not fit the samples and bins.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> speed = np.random.default_rng(0).random(100)  # 100 Hz, beside bins of 1 ms
    >>> held = fastglm.features.hold(speed, 1000, every=10)
    >>> held.shape, bool((held[250:260, 0] == speed[25]).all())
    ((1000, 1), True)
    >>> X = fastglm.basis.BSplineEval(5).compute_features(held)
    >>> X.shape, X.columns[0].values.shape
    ((1000, 5), (100, 5))
    """
    array = as_numbers(values, "values")
    if scipy.sparse.issparse(array):
        array = array.toarray()
    if array.ndim == 0 or 0 in array.shape:
        raise ValueError(
            f"values have shape {array.shape}; expected (n_samples, ...), at least one sample."
        )
    if sum(way is not None for way in (every, starts, samples)) != 1:
        raise ValueError(
            "hold takes exactly one of `every` (bins a sample), `starts` (first bin of each "
            "sample) and `samples` (sample of each bin)."
        )
    n_samples = array.shape[0]
    if samples is not None:
        samples = _whole("samples", samples)
        if samples.size == 0 or (n_bins is not None and samples.shape[0] != n_bins):
            raise ValueError(
                f"samples has {samples.shape[0]} entries; expected one for each of the "
                f"{n_bins or 'bins'}."
            )
        if samples.min() < -1 or samples.max() >= n_samples:
            raise ValueError(
                f"samples holds numbers from {samples.min()} to {samples.max()}; values has "
                f"samples 0 to {n_samples - 1}, and -1 means none."
            )
        n_bins = samples.shape[0]
        starts = np.flatnonzero(np.diff(samples, prepend=-2))
        samples = samples[starts]
    else:
        if isinstance(n_bins, bool) or not np.isscalar(n_bins) or not 1 <= n_bins == int(n_bins):
            raise ValueError(f"n_bins is {n_bins!r}; expected the number of bins.")
        n_bins = int(n_bins)
        if every is not None:
            starts = _regular_starts(n_samples, n_bins, every)
        else:
            starts = _whole("starts", starts)
            if starts.shape[0] != n_samples or (np.diff(starts) <= 0).any():
                raise ValueError(
                    f"starts has {starts.shape[0]} entries for {n_samples} samples; expected the "
                    "first bin of each, ascending without repetition."
                )
        samples = np.arange(starts.shape[0])
        # Runs that begin in the recording, and the one that it begins in.
        inside = (starts < n_bins) & (np.append(starts[1:], n_bins) > 0)
        starts, samples = np.maximum(starts[inside], 0), samples[inside]
        if starts.size == 0 or starts[0] > 0:
            starts, samples = np.append(0, starts), np.append(-1, samples)
    used = np.unique(samples[samples >= 0])
    if used.size < n_samples:  # what no bin sees has no part in ranges and signs
        array = array[used]
        samples = np.where(samples < 0, -1, np.searchsorted(used, samples))
    block = SlowColumns(
        array.reshape(array.shape[0], -1),
        starts.astype(np.int64),
        samples.astype(np.int64),
        n_bins,
        label,
        sample_shape=array.shape[1:],
    )
    return FeatureMatrix([block])


def _regular_starts(n_samples, n_bins, every):
    """First bins of samples that come at regular intervals."""
    if not 1 <= every < np.inf:
        raise ValueError(f"every is {every}; expected the bins from one sample to the next, >= 1.")
    expected = int(np.ceil(n_bins / every))
    if abs(n_samples - expected) > 1:
        raise ValueError(
            f"{n_samples} samples, one every {every} bins, do not cover {n_bins} bins, which take "
            f"{expected}. Pass every={n_bins / n_samples:.6g}, or `starts`?"
        )
    # The last bin before which sample k has begun; a rounding error is no bin.
    return np.ceil(np.arange(n_samples) * every - 1e-9 * every).astype(np.int64)


def _whole(name, values):
    array = as_numbers(values, name)
    if array.ndim != 1 or not (array == np.round(array)).all():
        raise ValueError(
            f"{name} has shape {array.shape}; expected whole numbers in one dimension."
        )
    return array.astype(np.int64)


def as_feature_matrix(X, one_column=False):
    """A FeatureMatrix as it is; anything else as one dense block of columns.

    ``one_column`` lets an array of one dimension be a column.

    Raises
    ------
    ValueError
        If X is not numeric or does not have two dimensions.
    """
    if isinstance(X, FeatureMatrix):
        if X.shape[1] == 0:
            raise ValueError(_NO_FEATURES.format(X.shape))
        return X
    X, timeline = read_values(X, "X")
    values = as_numbers(X, "X")
    if scipy.sparse.issparse(values):
        raise ValueError(
            "X is a SciPy sparse array; expected a dense one (X.toarray()), or the features of a "
            "basis, which are never stored."
        )
    if one_column and values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2:
        raise ValueError(
            f"X has {values.ndim} dimensions; expected (n_bins, n_features). Reshape your data?"
        )
    if values.shape[1] == 0:
        raise ValueError(_NO_FEATURES.format(values.shape))
    block = DenseColumns(values)
    block.inputs = timeline.columns if timeline is not None else None
    return FeatureMatrix([block], timeline=timeline)


def as_numbers(values, name):
    """Values as an array of real numbers; a SciPy sparse array stays one.

    Raises
    ------
    ValueError
        If they are ragged, complex, or no numbers.
    """
    try:
        array = values if scipy.sparse.issparse(values) else np.asarray(values)
        if array.dtype.kind == "O":
            array = array.astype(np.float64)
    except (TypeError, ValueError):
        array = np.asarray("ragged")
    if array.dtype.kind not in "fiub":
        raise ValueError(
            f"{name} could not be read as numbers; expected real numbers, bins in rows, the "
            "same number of columns in each row."
            + (" Complex data not supported." if array.dtype.kind == "c" else "")
        )
    return array
