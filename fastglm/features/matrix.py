"""The feature matrix: rows for people, columns for the solver, never stored.

A `FeatureMatrix` is a row of blocks of columns; `fastglm.features` lists the kinds of block. People
see an array of shape (n_bins, n_features). The solver computes ``X C`` and ``X' R`` chunk by chunk
with `fastglm._products`, and builds single rows with `FeatureMatrix.rows`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse
from numpy.lib.mixins import NDArrayOperatorsMixin

from fastglm import _html
from fastglm._checks import as_numbers
from fastglm._pynapple import Columns, Timeline, common_timeline, read_values
from fastglm.features.dense import DenseColumns
from fastglm.features.events import columns_of
from fastglm.features.product import farthest

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

_NO_FEATURES = (
    "X has shape {0}; expected at least one feature: 0 feature(s) (shape={0}) while a minimum of 1 "
    "is required."
)


class FeatureMatrix(NDArrayOperatorsMixin):
    """Array-like of shape (n_bins, n_features) that keeps events and kernels, not values.

    ``compute_features`` of a basis makes it. Slices of rows (``X[10:]``), ``np.asarray(X)`` and
    NumPy functions give ordinary float64 arrays. ``fit``, ``predict`` and ``score`` of the models
    never build the whole array. ``np.hstack([X, stimulus])`` stays a FeatureMatrix.

    Attributes
    ----------
    shape, ndim, size, dtype
        As of the array that the matrix stands for.
    valid : ndarray of bool, shape (n_bins,)
        Rows without NaN. The whole window of such a row lies inside one epoch and holds no NaN.
    labels : list of str
        Label of each block of columns.
    timeline : Timeline or None
        Times of the bins, for features of pynapple's objects. ``X[:]`` and predictions are then
        TsdFrames.
    """

    ndim = 2
    dtype = np.dtype(np.float64)

    def __init__(
        self,
        columns: Iterable[object],
        valid: np.ndarray | None = None,
        timeline: Timeline | None = None,
    ) -> None:
        self.columns = tuple(columns)
        self.timeline = timeline
        if valid is None:
            valid = reduce(np.logical_and, (c.valid for c in self.columns))
        self.valid = valid
        edges = np.cumsum([0] + [c.n_columns for c in self.columns])
        self.column_ranges = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
        self.shape = (valid.shape[0], int(edges[-1]))

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.shape[0] * self.shape[1]

    @property
    def labels(self) -> list[str]:
        """Label of each block of columns."""
        return [c.label for c in self.columns]

    @property
    def reach(self) -> tuple[int, int]:
        """Bins before a row and bins after it whose counts the row depends on."""
        return farthest(self.columns)

    @property
    def histories(self) -> list[tuple[object, int]]:
        """Blocks of histories of senders, each with the number of its first filter."""
        first = np.cumsum([0] + [c.n_columns // max(c.n_funcs, 1) for c in self.columns])
        return [(c, int(f)) for c, f in zip(self.columns, first, strict=False) if c.lags]

    @property
    def filters(self) -> np.ndarray:
        """Number of the filter of every feature; a sender or a block of columns is a filter."""
        groups, first = [], 0
        for c in self.columns:
            size = max(c.n_funcs, 1)
            groups.append(first + np.arange(c.n_columns) // size)
            first += c.n_columns // size
        return np.concatenate(groups)

    @property
    def nbytes(self) -> int:
        """Bytes that the matrix keeps; the array that it stands for takes more."""
        return self.valid.nbytes + sum(_nbytes(c) for c in self.columns)

    @property
    def nonnegative(self) -> np.ndarray:
        """For each column, whether it can never be negative."""
        return np.concatenate([c.nonnegative for c in self.columns])

    def smallest_positive(self) -> np.ndarray:
        """For each column, a lower bound of its values above zero."""
        return np.concatenate([c.smallest_positive() for c in self.columns])

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        blocks = ", ".join(f"{c.label}: {c.n_columns}" for c in self.columns)
        return (
            f"FeatureMatrix(shape={self.shape}, columns=({blocks}), "
            f"valid_rows={int(self.valid.sum())}, kept={self.nbytes / 1e6:.3g} MB)"
        )

    def _repr_html_(self):
        n_bins, n_features = self.shape
        rows = [[c.label, c.describe(), f"{c.n_columns:,}"] for c in self.columns]
        note = (
            f"{int(self.valid.sum()):,} rows are complete. {self.nbytes / 1e6:.3g} MB are kept, as "
            f"an array it would be {8e-6 * self.size:.3g} MB."
        )
        head = ["label", "what", "columns"]
        return _html.table(f"Features, {n_bins:,} bins x {n_features:,}", rows, head, note)

    def rows(self, index: np.ndarray, dtype: DTypeLike = np.float64) -> np.ndarray:
        """The rows at the ascending bins ``index``; the rows should be valid."""
        index = np.asarray(index)
        parts = []
        for c in self.columns:
            part = np.empty((index.size, c.n_columns), dtype)
            c.rows(index, part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def __getitem__(self, key: object) -> object:
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
    def T(self) -> np.ndarray:
        """The transpose, as an ordinary array."""
        return np.asarray(self).T

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
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

    def centred(self) -> tuple:
        """The matrix with columns that are far from zero centred, and what was taken off each.

        With ``eta = X @ coef + intercept`` that moves ``shift @ coef`` into the intercept.

        Returns
        -------
        FeatureMatrix
        shift : ndarray of shape (n_features,)
        """
        blocks, shifts = zip(*(c.centred() for c in self.columns), strict=True)
        shift = np.concatenate(shifts)
        if not shift.any():
            return self, shift
        return FeatureMatrix(blocks, self.valid, self.timeline), shift

    @property
    def taken(self) -> np.ndarray:
        """What centring took off each column, (n_features,)."""
        off = (np.zeros(c.n_columns) if c.taken is None else c.taken for c in self.columns)
        return np.concatenate(list(off))

    def select(self, columns: np.ndarray) -> tuple[FeatureMatrix, np.ndarray]:
        """The matrix with only the senders and columns that the boolean ``columns`` needs.

        Returns the matrix and the numbers of its columns in this matrix.
        """
        blocks, indices = [], []
        for c, (start, stop) in zip(self.columns, self.column_ranges, strict=True):
            if columns[start:stop].any():
                block, index = c.select(columns[start:stop])
                blocks.append(block)
                indices.append(index + start)
        if not blocks:  # the mask leaves nothing: one column that is never used
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


def hstack(blocks: Iterable[FeatureMatrix | ArrayLike]) -> FeatureMatrix:
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


def as_feature_matrix(X: object, one_column: bool = False) -> FeatureMatrix:
    """X as a FeatureMatrix: itself if it is one, else one dense block of columns.

    With ``one_column`` an array of one dimension is one column.

    Raises
    ------
    ValueError
        If X is not numeric or does not have two dimensions.
    """
    if isinstance(X, FeatureMatrix):
        if X.shape[1] == 0:
            raise ValueError(_NO_FEATURES.format(X.shape))
        return X
    given, (X, timeline) = X, read_values(X, "X")
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
    block.inputs = columns_of(given, timeline)
    return FeatureMatrix([block], timeline=timeline)
