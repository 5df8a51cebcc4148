"""What an array does, for a matrix that builds its rows on demand.

Sums, means and the other reductions, products with a matrix and elementwise functions go block by
block: beside their result they take the memory of a block. All else stores the array first, and
says so in the log.
"""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from fastglm import _html

logger = logging.getLogger("fastglm")

_BLOCK = 1 << 20  # values of a block of rows: 8 MB
# Methods of an array, by way of the stored one. Those that change an array in place are left out.
METHODS = (
    ("argmax", "argmin", "argsort", "clip", "conj", "copy", "cumprod", "cumsum", "diagonal")
    + ("flatten", "item", "nonzero", "prod", "ravel", "repeat", "reshape", "round", "squeeze")
    + ("swapaxes", "take", "tobytes", "tolist", "trace", "transpose")
)
REDUCTIONS = ("all", "any", "dot", "max", "mean", "min", "std", "sum", "var")  # block by block


_known_to_jax = set()


def tell_jax(cls: type) -> None:
    """Have the functions of JAX take a class of matrices, if JAX has been imported.

    A matrix is a node of a tree whose leaf is its array: compiled functions see the array.
    """
    tree_util = getattr(sys.modules.get("jax"), "tree_util", None)
    if tree_util is None or cls in _known_to_jax:
        return
    _known_to_jax.add(cls)
    tree_util.register_pytree_node(
        cls, lambda X: ((np.asarray(X),), None), lambda _, leaves: leaves[0]
    )


class BlockwiseArray(NDArrayOperatorsMixin):
    """An array of float64 of shape (n_bins, n_columns) whose rows are built on demand.

    A class adds ``shape`` and ``values_of(first, stop, out)``, which writes rows.
    """

    ndim = 2
    dtype = np.dtype(np.float64)
    shape: tuple[int, int]

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.shape[0] * self.shape[1]

    @property
    def T(self) -> np.ndarray:
        """The transpose, as an ordinary array."""
        return np.asarray(self).T

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        for _, values in self.blockwise():
            yield from values.copy()

    def __setitem__(self, key: object, value: object) -> None:
        raise TypeError(
            "A FeatureMatrix is computed from its events and cannot be changed in place; change a "
            "copy, X = X.copy()."
        )

    def blockwise(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Bins and rows, some 8 MB at a time; the rows are overwritten by the next ones."""
        n_rows = max(1, min(_BLOCK // max(self.shape[1], 1), self.shape[0]))
        out = np.empty((n_rows, self.shape[1]))
        for first in range(0, self.shape[0], n_rows):
            stop = min(first + n_rows, self.shape[0])
            self.values_of(first, stop, out[: stop - first])
            yield slice(first, stop), out[: stop - first]

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("A FeatureMatrix keeps no array that could be shared; use copy=None.")
        dtype = self.dtype if dtype is None else np.dtype(dtype)
        out = _empty(self.shape, dtype)
        for rows, values in self.blockwise():
            out[rows] = values
        return out

    def __jax_array__(self) -> object:
        return importlib.import_module("jax.numpy").asarray(np.asarray(self))

    def astype(self, dtype: object, **kwargs: object) -> object:
        """The values in another type, stored."""
        return self.with_times(np.asarray(self, dtype).astype(dtype, copy=False, **kwargs))

    def stored(self) -> object:
        """The values, stored: an array, or a TsdFrame where the matrix has times."""
        return self.with_times(np.asarray(self))

    def with_times(self, values: object) -> object:
        """Results with one row for each row of the matrix: as they are, since it has no times."""
        return values

    def __getattr__(self, name: str) -> object:
        if name in REDUCTIONS:
            return lambda *args, **kwargs: getattr(np, name)(self, *args, **kwargs)
        if name in METHODS:
            return lambda *args, **kwargs: getattr(np.asarray(self), name)(*args, **kwargs)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if method == "__call__" and not kwargs and ufunc.nout == 1:
            if ufunc is np.matmul:
                found = self._times(inputs[1]) if inputs[0] is self else NotImplemented
            else:
                found = self._elementwise(ufunc, inputs)
            if found is not NotImplemented:
                return found
        return getattr(ufunc, method)(*(to_stored(x) for x in inputs), **kwargs)

    def __array_function__(self, func, types, args, kwargs):
        found = NotImplemented
        if func in _OF_SHAPE:
            plain = (np.broadcast_to(0.0, self.shape) if x is self else x for x in args)
            found = func(*plain, **kwargs)
            return self.with_times(found) if np.shape(found) == self.shape else found
        if args and args[0] is self:
            if func is np.dot and len(args) == 2 and not kwargs:
                found = self._times(args[1])
            elif func in _BY_BLOCKS:
                found = self._reduce(func, *args[1:], **kwargs)
        if found is not NotImplemented:
            return found
        return func(*to_stored(args), **to_stored(kwargs))

    def _times(self, other):
        """``X @ other`` for a vector or a matrix."""
        other = np.asarray(other)
        if other.ndim not in (1, 2) or other.shape[0] != self.shape[1]:
            return NotImplemented  # NumPy says what is wrong
        dtype = np.result_type(self.dtype, other.dtype)
        out = _empty((self.shape[0], *other.shape[1:]), dtype)
        for rows, values in self.blockwise():
            out[rows] = values @ other
        return self.with_times(out)

    def _elementwise(self, ufunc, inputs):
        try:
            shape = np.broadcast_shapes(*(np.shape(x) for x in inputs))
        except ValueError:
            return NotImplemented
        if shape != self.shape or 0 in shape or ufunc.signature is not None:
            return NotImplemented
        out = None
        for rows, values in self.blockwise():
            parts = (values if x is self else _rows_of(x, rows, shape[0]) for x in inputs)
            part = ufunc(*parts)
            if out is None:
                out = _empty(shape, part.dtype)
            out[rows] = part
        return self.with_times(out)

    def _reduce(self, func, axis=None, **kwargs):
        """A reduction block by block; NotImplemented for arguments that few use."""
        keepdims, ddof = kwargs.pop("keepdims", False), kwargs.pop("ddof", 0)
        axes = {None: (0, 1), (0, 1): (0, 1), 0: 0, -2: 0, 1: 1, -1: 1}
        if kwargs or axis not in axes or 0 in self.shape:
            return NotImplemented
        axis, by = axes[axis], _BY_BLOCKS[func]
        arguments = {"ddof": ddof} if by is _variance else {}
        if axis == 1:
            parts = [func(values, axis=1, **arguments) for _, values in self.blockwise()]
            found = np.concatenate(parts)
        else:
            found = by(func, (values for _, values in self.blockwise()), axis, **arguments)
        if keepdims:
            found = np.expand_dims(found, axis)
        return self.with_times(found) if axis == 1 else found


def _empty(shape, dtype):
    """An array for the results, with a line in the log that says how large it is."""
    out = np.empty(shape, dtype)
    logger.info("an array of shape %s is stored from features: %s", shape, _html.size(out.nbytes))
    return out


def _rows_of(x, rows, n_bins):
    """The part of an operand that goes with some rows."""
    return x[rows] if np.ndim(x) == 2 and np.shape(x)[0] == n_bins > 1 else x


def to_stored(value: object) -> object:
    """A value with every matrix inside tuples, lists and dicts stored."""
    if isinstance(value, BlockwiseArray):
        return value.stored()
    if isinstance(value, list | tuple):
        return type(value)(to_stored(v) for v in value)
    if isinstance(value, dict):
        return {k: to_stored(v) for k, v in value.items()}
    return value


# --- reductions: (function of NumPy, blocks of rows, axis 0 or (0, 1)) ---


def _same_again(func, blocks, axis):
    """A sum of sums, a maximum of maxima."""
    parts = [_PARTIAL.get(func, func)(values, axis=axis) for values in blocks]
    return func(np.array(parts), axis=0)


def _mean(func, blocks, axis):
    _, mean, _ = _moments(blocks, axis, func is np.nanmean)
    return mean


def _variance(func, blocks, axis, ddof=0):
    n, _, squares = _moments(blocks, axis, func in (np.nanvar, np.nanstd))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = squares / np.maximum(n - ddof, 0)
    if np.any(n <= ddof):
        warnings.warn("Degrees of freedom <= 0 for slice.", RuntimeWarning, stacklevel=2)
        value = np.where(n <= ddof, np.nan, value)[()]
    return np.sqrt(value) if func in (np.std, np.nanstd) else value


def _moments(blocks, axis, skip):
    """Number of values, their mean and summed squares around it; NaN left out if ``skip``.

    Blocks are joined as Chan, Golub & LeVeque (1983) do.
    """
    n, mean, squares = 0, 0.0, 0.0
    for values in blocks:
        known = ~np.isnan(values) if skip else np.ones((1, 1), bool)
        number = known.sum(axis=axis) if skip else values.size if axis == (0, 1) else len(values)
        filled = np.where(known, values, 0.0) if skip else values
        with np.errstate(divide="ignore", invalid="ignore"):
            part = filled.sum(axis=axis) / np.maximum(number, 1)
            off = np.where(known, filled - part, 0.0) if skip else filled - part
            total = n + number
            step = part - mean
            mean = mean + step * number / np.maximum(total, 1)
            squares = squares + (off**2).sum(axis=axis)
            squares = squares + step**2 * n * number / np.maximum(total, 1)
        n = total
    if np.any(n == 0):
        warnings.warn("Mean of empty slice", RuntimeWarning, stacklevel=2)
        mean = np.where(n == 0, np.nan, mean)[()]
    return n, mean, squares


# Functions that look at shape and type alone.
_OF_SHAPE = {np.shape, np.ndim, np.size, np.iscomplexobj, np.isrealobj, np.result_type}
_OF_SHAPE |= {np.zeros_like, np.ones_like, np.empty_like, np.full_like}
# A block may be all NaN where the matrix is not: its minimum is NaN, without a warning.
_PARTIAL = {np.nanmin: np.fmin.reduce, np.nanmax: np.fmax.reduce}
_BY_BLOCKS: dict[Callable, Callable] = {
    **dict.fromkeys(
        (np.sum, np.nansum, np.min, np.max, np.nanmin, np.nanmax, np.any, np.all), _same_again
    ),
    np.mean: _mean,
    np.nanmean: _mean,
    np.var: _variance,
    np.std: _variance,
    np.nanvar: _variance,
    np.nanstd: _variance,
}
