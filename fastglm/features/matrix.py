"""The feature matrix: rows for people, columns for the solver, never stored.

A `FeatureMatrix` is a row of blocks of columns; `fastglm.features` lists the kinds of block. People
see an array of shape (n_bins, n_features), or a TsdFrame where the counts had times
(`fastglm.features.frame`). The solver computes ``X C`` and ``X' R`` chunk by chunk with
`fastglm._products`, and builds single rows with `FeatureMatrix.rows`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import reduce
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse

from fastglm import _html
from fastglm._checks import as_numbers
from fastglm._pynapple import Columns, Timeline, common_timeline, pynapple_type, read_values
from fastglm.features.arrays import BlockwiseArray, tell_jax
from fastglm.features.dense import DenseColumns
from fastglm.features.events import columns_of
from fastglm.features.product import farthest, window
from fastglm.features.ranges import places_in, ranges_of, spread
from fastglm.pytrees import is_tree, leaves

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

_NO_FEATURES = (
    "X has shape {0}; expected at least one feature: 0 feature(s) (shape={0}) while a minimum of 1 "
    "is required."
)

_OF_TIMES = ("restrict", "time_support", "rate", "t", "get", "loc", "index")  # of pynapple
_GET_TIMES = (
    ": its counts were an array. Compute the features of a TsdFrame, or select rows by their "
    "numbers, X[first:stop]."
)


class FeatureMatrix(BlockwiseArray):
    """Array-like of shape (n_bins, n_features) that keeps events and kernels, not values.

    ``compute_features`` of a basis makes it. ``fit``, ``predict`` and ``score`` of the models never
    build the whole array. Rows and columns can be selected as those of an array: ``X[1000:]``,
    ``X[mask]``, ``X[:, :8]``. A selection in ascending order is a FeatureMatrix again, which shares
    the events: every row keeps its values, so its history reaches back over the edge of the cut.
    ``np.hstack([X, stimulus])`` stays a FeatureMatrix as well.

    ``np.asarray(X)``, NumPy functions, arithmetic and the methods of an array give ordinary arrays.
    Sums, means, ``np.isnan`` and ``X @ coef`` go block by block. All else stores the array first,
    and the logger "fastglm" has a line with its size.

    For features of pynapple's objects the matrix is a TsdFrame too: every function of pynapple
    takes it, and it has ``restrict``, ``get``, ``time_support`` and the other methods. What is
    stored then has the times.

    Attributes
    ----------
    shape, ndim, size, dtype
        As of the array that the matrix stands for.
    blocks : tuple
        Blocks of columns, over the bins of the recording.
    bins : ndarray of int, shape (n_bins,), or None
        Ascending bins of the blocks that are the rows; None if all are.
    valid : ndarray of bool, shape (n_bins,)
        Rows without NaN. The whole window of such a row lies inside one epoch and holds no NaN.
    labels : list of str
        Label of each block of columns.
    timeline : Timeline or None
        Times of the bins, for features of pynapple's objects.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> counts = np.random.default_rng(0).poisson(0.2, size=(4000, 3))
    >>> X = fastglm.basis.RaisedCosineLogConv(4, window_size=20).compute_features(counts)
    >>> late = X[2000:]
    >>> late.shape, bool(late.valid.all()), np.nanmean(late, axis=0).shape
    ((2000, 12), True, (12,))
    >>> model = fastglm.PopulationGLM().fit(late, counts[2000:])
    """

    def __new__(
        cls, blocks: Iterable[object], valid: object = None, timeline: object = None, **rest: object
    ) -> FeatureMatrix:
        """The class for pynapple's objects where there are times."""
        if timeline is not None and cls is FeatureMatrix:
            from fastglm.features.frame import frame_class  # late, as it derives from this class

            cls = frame_class(timeline.pynapple)
        if cls is FeatureMatrix:  # JAX takes no TsdFrame
            tell_jax(cls)
        return super().__new__(cls)

    def __init__(
        self,
        blocks: Iterable[object],
        valid: np.ndarray | None = None,
        timeline: Timeline | None = None,
        *,
        bins: np.ndarray | None = None,
        names: Columns | None = None,
    ) -> None:
        self.blocks = tuple(blocks)
        self.timeline = timeline
        self.bins = bins
        self.names = names  # of the features, if a user has chosen among them
        if valid is None:
            valid = reduce(np.logical_and, (c.valid for c in self.blocks))
            valid = valid if bins is None else valid[bins]
        self.valid = valid
        self.column_ranges = list(
            pairwise(accumulate((c.n_columns for c in self.blocks), initial=0))
        )

    def __reduce__(self):
        names = None if self.timeline is None else self.describe()
        return _rebuild, (self.blocks, self.valid, self.timeline, self.bins, names)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows, and of features."""
        return self.valid.shape[0], self.column_ranges[-1][1]

    @property
    def labels(self) -> list[str]:
        """Label of each block of columns."""
        return [c.label for c in self.blocks]

    @property
    def reach(self) -> tuple[int, int]:
        """Bins before a row and bins after it whose counts the row depends on."""
        return farthest(self.blocks)

    @property
    def histories(self) -> list[tuple[object, int]]:
        """Blocks of histories of senders, each with the number of its first filter."""
        first = accumulate((c.n_columns // max(c.n_funcs, 1) for c in self.blocks), initial=0)
        return [(c, f) for c, f in zip(self.blocks, first, strict=False) if c.lags]

    @property
    def filters(self) -> np.ndarray:
        """Number of the filter of every feature; a sender or a block of columns is a filter."""
        groups, first = [], 0
        for c in self.blocks:
            size = max(c.n_funcs, 1)
            groups.append(first + np.arange(c.n_columns) // size)
            first += c.n_columns // size
        return np.concatenate(groups)

    @property
    def nbytes(self) -> int:
        """Bytes that the matrix keeps; the array that it stands for takes more."""
        own = self.valid.nbytes + (0 if self.bins is None else self.bins.nbytes)
        return own + sum(_nbytes(c) for c in self.blocks)

    @property
    def nonnegative(self) -> np.ndarray:
        """For each column, whether it can never be negative."""
        return np.concatenate([c.nonnegative for c in self.blocks])

    def smallest_positive(self) -> np.ndarray:
        """For each column, a lower bound of its values above zero."""
        return np.concatenate([c.smallest_positive() for c in self.blocks])

    def __repr__(self) -> str:
        blocks = ", ".join(f"{c.label}: {c.n_columns}" for c in self.blocks)
        return (
            f"FeatureMatrix(shape={self.shape}, columns=({blocks}), "
            f"valid_rows={int(self.valid.sum())}, kept={self.nbytes / 1e6:.3g} MB)"
        )

    def _repr_html_(self):
        n_bins, n_features = self.shape
        rows = [[c.label, c.describe(), f"{c.n_columns:,}"] for c in self.blocks]
        note = (
            f"{int(self.valid.sum()):,} rows are complete. {self.nbytes / 1e6:.3g} MB are kept, as "
            f"an array it would be {8e-6 * self.size:.3g} MB."
        )
        head = ["label", "what", "columns"]
        return _html.table(f"Features, {n_bins:,} bins x {n_features:,}", rows, head, note)

    def __getattr__(self, name: str) -> object:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name not in _OF_TIMES:
                raise
        raise AttributeError(f"X.{name} needs times, and X has none{_GET_TIMES}")

    # --- rows and columns ---

    def rows(self, index: np.ndarray, dtype: DTypeLike = np.float64) -> np.ndarray:
        """The rows at the ascending ``index``; the rows should be valid."""
        out = np.empty((len(index), self.shape[1]), dtype)
        self._fill(np.asarray(index), out)
        return out

    def values_of(self, first: int, stop: int, out: np.ndarray) -> None:
        """Write the rows from ``first`` to ``stop`` into ``out``, NaN where they are not known."""
        self._fill(np.arange(first, stop), out, mark=True)

    def _fill(self, index, out, mark=False):
        bins = index if self.bins is None else self.bins[index]
        for c, (start, stop) in zip(self.blocks, self.column_ranges, strict=True):
            part = out
            if len(self.blocks) > 1:
                part = np.empty((bins.size, c.n_columns), out.dtype)
            c.rows(bins, part)
            if mark:
                c.mark(bins, part)
            if part is not out:
                out[:, start:stop] = part

    def __getitem__(self, key: object) -> object:
        if pynapple_type(key) == "IntervalSet":
            raise ValueError(f"X is selected by an IntervalSet, and has no times{_GET_TIMES}")
        key = key if isinstance(key, tuple) else (key,)
        if any(k is Ellipsis for k in key):
            place = [k is Ellipsis for k in key].index(True)
            fill = (slice(None),) * (3 - len(key))
            key = key[:place] + fill + key[place + 1 :]
        if not 0 < len(key) <= 2 or any(k is None or np.ndim(k) > 1 for k in key):
            return np.asarray(self)[key]
        rows, columns = (*key, slice(None))[:2]
        index, some = np.arange(self.shape[0])[rows], np.arange(self.shape[1])[columns]
        if index.ndim == 0:
            return self._values(index.reshape(1))[0][columns]
        ascending = bool((np.diff(index) > 0).all())
        # Beside an array of rows, an array of columns is taken pairwise, as NumPy does.
        pairwise = not isinstance(rows, slice) and not isinstance(columns, slice)
        if not ascending or (pairwise and some.ndim):
            order, inverse = np.unique(index, return_inverse=True)
            values = self._values(order)[inverse]
            rows = slice(None) if isinstance(rows, slice) else np.arange(index.size)
            return values[rows, columns]
        found = self.take_rows(index)
        if some.ndim == 0:
            return found.with_times(np.asarray(found.take_columns(some[None]))[:, 0])
        return found.take_columns(some)

    def _values(self, index):
        """Rows at an ascending index, NaN where they are not known."""
        out = np.empty((index.size, self.shape[1]))
        self._fill(index, out, mark=True)
        return out

    def take_rows(self, index: np.ndarray, timeline: Timeline | None = None) -> FeatureMatrix:
        """The rows at an ascending index; with other times than theirs, if they are given."""
        if index.size == self.shape[0] and timeline is None:
            return self
        if timeline is None and self.timeline is not None:
            timeline = self.timeline.at(index)
        bins = index if self.bins is None else self.bins[index]
        names = None if timeline is None else self.describe()
        return FeatureMatrix(self.blocks, self.valid[index], timeline, bins=bins, names=names)

    def take_columns(self, columns: np.ndarray) -> FeatureMatrix | np.ndarray:
        """The features with some numbers, in the given order; an array if there are none."""
        if np.array_equal(columns, np.arange(self.shape[1])):
            return self
        if columns.size == 0:
            return np.empty((self.shape[0], 0))
        first = np.array([start for start, _ in self.column_ranges])
        of_block = np.searchsorted(first, columns, side="right") - 1
        blocks = []
        for some in np.split(np.arange(columns.size), np.flatnonzero(np.diff(of_block)) + 1):
            k = of_block[some[0]]
            blocks += self.blocks[k].pick(columns[some] - first[k])
        names = None if self.timeline is None else self.describe().take(columns)
        return FeatureMatrix(blocks, None, self.timeline, bins=self.bins, names=names)

    def describe(self) -> Columns:
        """Number of every feature, with its label, input and function; or what it was called."""
        if self.names is not None:
            return self.names
        parts = []
        for c in self.blocks:
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

    def cut(self) -> tuple[FeatureMatrix, np.ndarray | None]:
        """The matrix over the bins that its rows and their histories need, and the rows' places.

        Bins that are not rows are not valid. Long gaps between the rows are left out. Blocks of
        histories and of slow columns are as small as their events and samples; stored columns are
        copied if there are gaps.

        Returns
        -------
        FeatureMatrix
            Without times.
        places : ndarray of int, shape (n_bins,), or None
            Bin of every row; None if every bin is a row.
        """
        if self.bins is None:
            return FeatureMatrix(self.blocks, self.valid), None
        ranges = ranges_of(self.bins, window(self.blocks))
        blocks = [c.cut(ranges) for c in self.blocks]
        n_bins = int((ranges[:, 1] - ranges[:, 0]).sum())
        places = None if n_bins == self.bins.size else places_in(ranges, self.bins)
        return FeatureMatrix(blocks, spread(self.valid, places, n_bins)), places

    def unselected(self) -> FeatureMatrix:
        """The same rows as blocks that have these rows alone; stored if there are gaps."""
        if self.bins is None:
            return self
        matrix, places = self.cut()
        blocks = matrix.blocks if places is None else self.stored_blocks()
        names = None if self.timeline is None else self.describe()
        return FeatureMatrix(blocks, self.valid, self.timeline, names=names)

    def stored_blocks(self, bins: np.ndarray | None = None, n_bins: int = 0) -> list[DenseColumns]:
        """The blocks as ordinary columns; with ``bins``, at these places of n_bins rows."""
        values, blocks = np.asarray(self), []
        for c, (start, stop) in zip(self.blocks, self.column_ranges, strict=True):
            block = DenseColumns(spread(values[:, start:stop], bins, n_bins), c.label, c.n_funcs)
            block.inputs = c.inputs
            blocks.append(block)
        return blocks

    def __array_function__(self, func, types, args, kwargs):
        if func is np.hstack or (
            func is np.concatenate and (kwargs.get("axis") or (*args, 0)[1]) in (1, -1)
        ):
            return hstack(args[0])
        return super().__array_function__(func, types, args, kwargs)

    # --- what the solver asks ---

    def centred(self) -> tuple:
        """The matrix with columns that are far from zero centred, and what was taken off each.

        With ``eta = X @ coef + intercept`` that moves ``shift @ coef`` into the intercept.

        Returns
        -------
        FeatureMatrix
        shift : ndarray of shape (n_features,)
        """
        blocks, shifts = zip(*(c.centred() for c in self.blocks), strict=True)
        shift = np.concatenate(shifts)
        if not shift.any():
            return self, shift
        return FeatureMatrix(blocks, self.valid, self.timeline, bins=self.bins), shift

    @property
    def taken(self) -> np.ndarray:
        """What centring took off each column, (n_features,)."""
        off = (np.zeros(c.n_columns) if c.taken is None else c.taken for c in self.blocks)
        return np.concatenate(list(off))

    def select(self, columns: np.ndarray) -> tuple[FeatureMatrix, np.ndarray]:
        """The matrix with only the senders and columns that the boolean ``columns`` needs.

        Returns the matrix and the numbers of its columns in this matrix.
        """
        blocks, indices = [], []
        for c, (start, stop) in zip(self.blocks, self.column_ranges, strict=True):
            if columns[start:stop].any():
                block, index = c.select(columns[start:stop])
                blocks.append(block)
                indices.append(index + start)
        if not blocks:  # the mask leaves nothing: one column that is never used
            empty = DenseColumns(np.broadcast_to(0.0, (self.shape[0], 1)), "none")
            return FeatureMatrix([empty], self.valid), np.zeros(1, int)
        return FeatureMatrix(blocks, self.valid, bins=self.bins), np.concatenate(indices)


def _rebuild(blocks, valid, timeline, bins, names):
    return FeatureMatrix(blocks, valid, timeline, bins=bins, names=names)


def _nbytes(block):
    """Bytes of the arrays of a block and of its factors."""
    kept = {**vars(block), **vars(getattr(block, "events", block))}
    own = sum(v.nbytes for v in kept.values() if isinstance(v, np.ndarray))
    return own + sum(_nbytes(c) for blocks in getattr(block, "factors", ()) for c in blocks)


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
    blocks, bins = _side_by_side(matrices)
    return FeatureMatrix(blocks, timeline=timeline, bins=bins)


def _side_by_side(matrices):
    """Blocks of all matrices over bins that they share, and which of the bins are the rows."""
    selected = [m for m in matrices if m.bins is not None]
    gaps = [m for m in selected if np.any(np.diff(m.bins) > 1)]
    if not gaps:
        return [c for m in matrices for c in m.unselected().blocks], None
    bins, n_bins = gaps[0].bins, gaps[0].blocks[0].valid.size
    blocks = []
    for m in matrices:
        same = m.bins is not None and m.blocks[0].valid.size == n_bins
        same = same and np.array_equal(m.bins, bins)
        blocks += m.blocks if same else m.stored_blocks(bins, n_bins)
    return blocks, bins


def as_feature_matrix(X: object, one_column: bool = False) -> FeatureMatrix:
    """X as a FeatureMatrix: itself if it is one, else one dense block of columns.

    With ``one_column`` an array of one dimension is one column. Of a tree every leaf is a block
    with the path of the leaf as its label; see `fastglm.pytrees`.

    Raises
    ------
    ValueError
        If X is not numeric or does not have two dimensions.
    """
    if is_tree(X):
        return _from_tree(leaves(X))
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


def _from_tree(parts):
    """The leaves of a tree side by side."""
    matrices = []
    for path, part in parts.items():
        part = as_feature_matrix(part)
        blocks = [copy.copy(block) for block in part.blocks]
        for block in blocks:
            block.label = path if len(blocks) == 1 else f"{path}/{block.label}"
        matrices.append(FeatureMatrix(blocks, part.valid, part.timeline, bins=part.bins))
    return hstack(matrices)
