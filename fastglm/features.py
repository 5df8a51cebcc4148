"""The feature matrix: rows for people, products for the solver, never stored.

A `FeatureMatrix` is a row of column blocks. A history block keeps the events of its senders and a
kernel; a dense block keeps an ordinary array (stimulus, position, running speed). People see an
array of shape (n_bins, n_features); the solver sees a `Sweep`, which computes ``X C`` and
``X' R`` chunk by chunk, and `FeatureMatrix.rows`, which builds any few rows.
"""

import numpy as np
import scipy.sparse
from numpy.lib.mixins import NDArrayOperatorsMixin

from fastglm import _kernels as kernels
from fastglm._threads import run_threads

CHUNK = 8192  # bins a chunk of a full tile: 512 KB of float32, half of a core's L2
_GROUP_BYTES = (
    64 * 100 * 64
)  # filters of senders that stay in a core's L2, 4 bytes x 16 lanes a lag
_ROWS = 512  # rows of a dense block that one thread multiplies at a time
_SMALL_PRODUCT = 1 << 22  # BLAS orders the sums of a product below 1e6 by its width
_ROUNDING = 1e-12  # a kernel entry above minus this is not negative
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

    def __init__(self, bins, units, amplitudes, shape):
        self.bins, self.units, self.amplitudes = bins, units, amplitudes
        self.n_bins, self.n_units = shape

    @classmethod
    def of(cls, counts):
        """Events of an array or a SciPy sparse array of shape (n_bins, n_units)."""
        n_units = counts.shape[1]
        if scipy.sparse.issparse(counts):
            table = counts.tocsr()
            if not table.has_canonical_format:
                table = table.copy()
                table.sum_duplicates()
            units, amplitudes = table.indices, table.data
            bins = np.repeat(np.arange(table.shape[0], dtype=np.int32), np.diff(table.indptr))
            kept = amplitudes != 0
            bins, units, amplitudes = bins[kept], units[kept], amplitudes[kept]
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

    def take(self, keep):
        """The events that a boolean array keeps."""
        shape = self.n_bins, self.n_units
        return Events(self.bins[keep], self.units[keep], self.amplitudes[keep], shape)

    def select(self, units):
        """The events of some units, which are renumbered in the given order."""
        number = np.full(self.n_units, -1, np.int32)
        number[units] = np.arange(len(units))
        units_of = number[self.units]
        keep = units_of >= 0
        return Events(
            self.bins[keep], units_of[keep], self.amplitudes[keep], (self.n_bins, len(units))
        )

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

    def __init__(self, counts, kernel, shift=0, label="history", complete=None, missing=None):
        self.kernel = np.ascontiguousarray(kernel, dtype=np.float64)
        events = counts if isinstance(counts, Events) else Events.of(counts)
        self._set_events(events.shift(-shift))
        self.label = label
        self.complete = np.ones(events.n_bins, bool) if complete is None else complete
        self.missing = missing
        self.shift = shift

    def _set_events(self, events):
        self.events = events
        # Forward, the filters of one group of senders at a time stay in the second-level cache.
        self.groups = [events]
        size = max(8, _GROUP_BYTES // (4 * kernels.LANES * self.kernel.shape[0]))
        if events.n_units > size:
            group = events.units // size
            self.groups = [events.take(group == g) for g in range(int(group.max(initial=0)) + 1)]
        order = np.argsort(events.units, kind="stable")
        self.bins_by_sender = events.bins[order]
        self.amplitudes_by_sender = events.amplitudes[order]
        self.starts = np.searchsorted(events.units[order], np.arange(self.n_senders + 1))

    @property
    def n_senders(self):
        """Number of senders."""
        return self.events.n_units

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
        return self.events.n_events

    @property
    def valid(self):
        """Rows that are complete and have seen no missing count."""
        valid = self.complete.copy()
        if self.missing is not None:
            for seen, _ in self._missing_rows():
                valid[seen] = False
        return valid

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
        block.__dict__.update(self.__dict__, missing=None)
        block._set_events(self.events.select(senders))
        index = senders[:, None] * self.n_funcs + np.arange(self.n_funcs)
        return block, index.ravel()

    def sweep(self, n_tiles, lanes, dtype, products="events"):
        """Products with one batch of receivers, from the events or from blocks of rows."""
        sweep = _HistorySweep if products == "events" else _RowsSweep
        return sweep(self, n_tiles, lanes, dtype)


class _HistorySweep:
    """Products of a history block with one batch of receivers, straight from the events.

    Memory: filters and lag sums, ``n_senders * (2 * window_size + 2 * PAD + BLOCK)`` values a
    receiver; nothing grows with the number of bins.
    """

    def __init__(self, block, n_tiles, lanes, dtype):
        self.block, self.lanes = block, lanes
        self.window_size = block.kernel.shape[0]
        if lanes == kernels.LANES:
            self._forward, self._backward = (
                kernels.history_forward,
                kernels.history_backward,
            )
            size = kernels.BLOCK
        else:
            self._forward = kernels.history_forward_narrow
            self._backward = kernels.history_backward_narrow
            size = kernels.NARROW_BLOCK
        n_lags = -(-self.window_size // size) * size
        span = self.window_size + 2 * kernels.PAD
        self.filters = kernels.aligned_zeros((n_tiles, block.n_senders, span, lanes), dtype)
        self.lag_sums = kernels.aligned_zeros((n_tiles, block.n_senders, n_lags * lanes))
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
        filters = self.filters.reshape(self.filters.shape[0], -1)
        for events, amplitudes in zip(self.block.groups, self.amplitudes, strict=True):
            kernels.launch(
                self._forward,
                events.bins,
                events.units,
                amplitudes,
                filters,
                self.window_size,
                start,
                n_rows,
                tiles,
                eta,
            )

    def backward(self, start, n_rows, tiles, residual):
        kernels.launch(
            self._backward,
            self.block.bins_by_sender,
            self.block.starts,
            self.amplitudes_by_sender,
            residual,
            self.window_size,
            start,
            n_rows,
            tiles,
            self.lag_sums,
        )

    def collect(self, grad):
        lag_sums = self.lag_sums.reshape(*self.lag_sums.shape[:2], -1, self.lanes)
        kernels.launch(kernels.collect_filters, self.block.kernel, lag_sums, self.lanes, grad)
        self.lag_sums[:] = 0


class DenseColumns:
    """Ordinary columns: an array of shape (n_bins, n_columns), kept by reference."""

    def __init__(self, values, label="columns"):
        self.values = values
        self.label = label
        self.n_events = values.size
        self.complete = np.ones(values.shape[0], bool)

    @property
    def n_columns(self):
        """Number of columns."""
        return self.values.shape[1]

    @property
    def valid(self):
        """Rows without NaN or infinity."""
        if self.values.dtype.kind != "f":
            return self.complete
        valid = np.empty(self.values.shape[0], bool)
        for start in range(0, valid.shape[0], CHUNK):
            block = slice(start, start + CHUNK)
            valid[block] = np.isfinite(self.values[block]).all(axis=1)
        return valid

    def mark(self, index, out):
        """NaN stands in the values themselves."""

    @property
    def nonnegative(self):
        """True for a column without negative values."""
        return np.nanmin(self.values, axis=0, initial=np.inf) >= 0

    def smallest_positive(self):
        """The smallest value above zero of each column."""
        return np.where(self.values > 0, self.values, np.inf).min(axis=0)

    def rows(self, index, out):
        """Write the rows at the ascending bins ``index`` into ``out``."""
        if index.size and index[-1] - index[0] + 1 == index.size:
            out[:] = self.values[index[0] : index[-1] + 1]
        else:
            out[:] = self.values[index]

    def select(self, columns):
        """The block with the columns of a boolean array, and their index in this one."""
        index = np.flatnonzero(columns)
        if index.size == self.n_columns:
            return self, index
        return DenseColumns(self.values[:, index], self.label), index

    def sweep(self, n_tiles, lanes, dtype, products="rows"):
        """Products with one batch of receivers."""
        return _DenseSweep(self, n_tiles, lanes, dtype)


class _DenseSweep:
    """Products of a dense block: BLAS on some rows and all receivers at a time.

    The shape of a product follows from the tiles alone, and small ones are done tile by tile (see
    `tiled_dot`): the bits of a receiver do not depend on the others.
    """

    def __init__(self, block, n_tiles, lanes, dtype):
        self.block, self.lanes, self.dtype = block, lanes, dtype
        self.coef = np.zeros((block.n_columns, 0), dtype)
        self.grad = np.zeros((block.n_columns, n_tiles * lanes))

    def set_coef(self, coef, tiles):
        self.coef = np.ascontiguousarray(coef[:, _lanes_of(tiles, self.lanes)], self.dtype)

    def _values(self, start, n_rows):
        values = self.block.values[start : start + n_rows].astype(self.dtype)
        values[~np.isfinite(values)] = 0  # rows that are not finite are not valid
        return values

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


class _RowsSweep(_DenseSweep):
    """Products of a history block from rows that are built for a chunk and used both ways."""

    _at, _rows = None, None

    def _values(self, start, n_rows):
        if self._at != (start, n_rows):
            self._rows = np.empty((n_rows, self.block.n_columns), self.dtype)
            self.block.rows(np.arange(start, start + n_rows), self._rows)
            self._at = start, n_rows
        return self._rows


def _lanes_of(tiles, lanes):
    return (tiles[:, None] * lanes + np.arange(lanes)).ravel()


def tiled_dot(rows, v, lanes):
    """``rows @ v``, the same bits for a column whatever the others are."""
    with np.errstate(over="ignore", invalid="ignore"):
        if rows.size * lanes > _SMALL_PRODUCT:
            return rows @ v
        tiles = range(0, v.shape[1], lanes)
        return np.concatenate([rows @ v[:, k : k + lanes] for k in tiles], axis=1)


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
    """

    ndim = 2
    dtype = np.dtype(np.float64)

    def __init__(self, columns, valid=None):
        self.columns = tuple(columns)
        if valid is None:
            valid = np.logical_and.reduce([c.valid for c in self.columns])
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
    def filters(self):
        """Number of the filter of every feature: a sender's, or a block of ordinary columns."""
        groups, first = [], 0
        for c in self.columns:
            size = getattr(c, "n_funcs", c.n_columns)
            groups.append(first + np.arange(c.n_columns) // size)
            first += c.n_columns // size
        return np.concatenate(groups)

    @property
    def nbytes(self):
        """Bytes that are kept, not those of the array that it stands for."""
        total = self.valid.nbytes
        for c in self.columns:
            kept = {**vars(c), **vars(getattr(c, "events", c))}
            arrays = [v for v in kept.values() if isinstance(v, np.ndarray)]
            total += sum(a.nbytes for a in arrays)
        return total

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
        return self[:].astype(dtype or self.dtype, copy=False)

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
    matrices = [as_feature_matrix(_column(b)) for b in blocks]
    n_bins = {m.shape[0] for m in matrices}
    if len(n_bins) != 1:
        raise ValueError(
            f"Blocks have {[m.shape[0] for m in matrices]} rows; expected the same number in "
            "each. Compute them from the same bins."
        )
    return FeatureMatrix([c for m in matrices for c in m.columns])


def _column(block):
    return block[:, None] if isinstance(block, np.ndarray) and block.ndim == 1 else block


def as_feature_matrix(X):
    """A FeatureMatrix as it is; anything else as one dense block of columns.

    Raises
    ------
    ValueError
        If X is not numeric or does not have two dimensions.
    """
    if isinstance(X, FeatureMatrix):
        return X
    values = as_numbers(X, "X")
    if values.ndim != 2:
        raise ValueError(
            f"X has {values.ndim} dimensions; expected (n_bins, n_features). Reshape it?"
        )
    if values.shape[1] == 0:
        raise ValueError(f"X has shape {values.shape}; expected at least one feature.")
    return FeatureMatrix([DenseColumns(values)])


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
        )
    return array
