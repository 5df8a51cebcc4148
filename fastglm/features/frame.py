"""The feature matrix as the TsdFrame that it stands for, if its counts came from pynapple.

`frame_class` makes a class that is a `FeatureMatrix` and a TsdFrame. Times, time support, columns
and metadata are those of small objects of pynapple. What selects rows (`restrict`, `dropna`,
slices) is asked of a Tsd that holds the numbers of the rows, so the answer is pynapple's own. All
other methods are inherited from TsdFrame and see ``values``, which is stored for them.

pynapple stays optional: the class is made from the module that the user's counts came from.
"""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np

from fastglm._pynapple import Columns, Timeline, pynapple_type
from fastglm.features.arrays import METHODS, REDUCTIONS, BlockwiseArray, to_stored
from fastglm.features.matrix import FeatureMatrix

_OWN = ("blocks", "timeline", "bins", "names", "valid", "column_ranges")


@lru_cache(maxsize=1)
def frame_class(pynapple: object) -> type:
    """The class of feature matrices with times, for the module of pynapple."""

    class FeatureFrame(_Frame, FeatureMatrix, pynapple.TsdFrame):
        """A `FeatureMatrix` that is a TsdFrame as well; see `fastglm.features.frame`."""

        __qualname__ = "FeatureFrame"

    return FeatureFrame


class _Frame:
    """What a `FeatureMatrix` with times does in another way than an array or a TsdFrame."""

    # --- what pynapple keeps of times and columns ---

    @cached_property
    def _numbers(self):
        """The numbers of the rows, a Tsd."""
        return self.timeline.wrap(np.arange(self.shape[0]))

    @cached_property
    def _table(self):
        """A TsdFrame of one row at most, with the columns and their metadata."""
        columns, t = super().describe(), self.timeline.t[:1]
        return self.timeline.pynapple.TsdFrame(
            t=t,
            d=np.zeros((t.size, self.shape[1])),
            time_support=self.timeline.support,
            columns=columns.names,
            metadata=columns.metadata,
        )

    def describe(self) -> Columns:
        """Names of the features and their metadata."""
        return Columns.of(self._table)

    @property
    def index(self):
        """Times of the rows, as pynapple keeps them."""
        return self._numbers.index

    @property
    def time_support(self):
        """Intervals that hold the rows."""
        return self._numbers.time_support

    @property
    def rate(self):
        """Rows a second of the time support."""
        return self._numbers.rate

    @property
    def columns(self):
        """Names of the features."""
        return self._table.columns

    @property
    def values(self):
        """The values, stored."""
        return np.asarray(self)

    def __getattr__(self, name):
        if name.startswith("__") or name in _OWN:
            raise AttributeError(name)
        kept = vars(self._table)  # such as the metadata
        if name in kept:
            return kept[name]
        if name in self._table.metadata_columns:
            return self._table.get_info(name)
        if name in REDUCTIONS or (name in METHODS and not hasattr(np, name)):
            return BlockwiseArray.__getattr__(self, name)
        if name == "reshape":  # pynapple takes a shape alone
            return lambda *shape, **kwargs: np.reshape(
                self, shape[0] if len(shape) == 1 else shape, **kwargs
            )
        return self.timeline.pynapple.TsdFrame.__getattr__(self, name)

    def __setattr__(self, name, value):
        if name in _OWN:
            if name in vars(self):
                raise AttributeError(
                    f"Cannot set attribute: {name!r} is of the FeatureMatrix. Use 'set_info()' to "
                    f"set {name!r} as metadata."
                )
            object.__setattr__(self, name, value)
        else:  # metadata, or an attribute that pynapple protects
            setattr(self._table, name, value)

    def __dir__(self):
        return sorted({*object.__dir__(self), *self._table.metadata_columns})

    def __setitem__(self, key, value):
        if not isinstance(key, str) or key in self.columns:
            super().__setitem__(key, value)
        self._table[key] = value

    def set_info(self, metadata=None, **kwargs):
        """Set metadata of the features; see pynapple."""
        self._table.set_info(metadata, **kwargs)

    def drop_info(self, key):
        """Drop metadata of the features; see pynapple."""
        return self._table.drop_info(key)

    def restrict_info(self, key):
        """Keep some metadata of the features; see pynapple."""
        return self._table.restrict_info(key)

    # --- rows and columns ---

    def __getitem__(self, key, **_):  # pynapple's `loc` says which columns it asks for
        if isinstance(key, str) or _are_names(key):
            names = [key] if isinstance(key, str) else list(key)
            known = all(name in self.columns for name in names)
            return self.loc[key] if known and names else self._table.get_info(key)
        if pynapple_type(key) == "IntervalSet":
            return self.restrict(key)
        if pynapple_type(key) in ("Tsd", "TsdFrame") and key.dtype != bool:
            raise ValueError(
                f"X is indexed with a {pynapple_type(key)} of {key.dtype}; expected booleans, or "
                "its values as numbers of rows."
            )
        if isinstance(key, tuple):
            return super().__getitem__(tuple(getattr(k, "values", k) for k in key))
        return super().__getitem__(getattr(key, "values", key))

    def restrict(self, iset):
        """The rows inside some intervals; each keeps its values, so its history reaches back."""
        return self._as(self._numbers.restrict(iset))

    def dropna(self, update_time_support=True):
        """The rows without NaN; see pynapple."""
        numbers = np.arange(self.shape[0], dtype=np.float64)
        doubtful = np.flatnonzero(~self.valid)  # NaN, or infinity
        for some, values in self.take_rows(doubtful).blockwise():
            numbers[doubtful[some][np.isnan(values).any(axis=1)]] = np.nan
        return self._as(self.timeline.wrap(numbers).dropna(update_time_support))

    def _as(self, numbers):
        """The rows of a Tsd of numbers, with its times and its time support."""
        size = self.timeline.bin_size
        timeline = Timeline(numbers.time_support, numbers.t, bin_size=size)
        return self.take_rows(np.asarray(numbers.values, np.int64), timeline)

    # --- results ---

    def with_times(self, values):
        """Results with one row for each row of the matrix, as an object of pynapple."""
        same = np.ndim(values) == 2 and values.shape[1] == self.shape[1]
        return self.timeline.wrap(values, self.describe() if same else None)

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        others = [x for x in inputs if x is not self]
        if any(pynapple_type(x) in ("Tsd", "TsdFrame", "TsdTensor") for x in others):
            # pynapple refuses: the times might differ.
            return getattr(ufunc, method)(*to_stored(inputs), **kwargs)
        return super().__array_ufunc__(ufunc, method, *inputs, **kwargs)


def _are_names(key):
    if isinstance(key, tuple) or not hasattr(key, "__iter__") or getattr(key, "ndim", 1) != 1:
        return False
    return len(key) > 0 and all(isinstance(k, str) for k in key)
