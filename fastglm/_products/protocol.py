"""The seam between the solver and whatever holds X: a few verbs, each a sum or a map over bins.

The solver sees nothing else of the features. `local.Local` holds them in memory, `shards.Shards` a
range of bins at a time; a GPU or another machine is one more implementation. The unit is a whole
pass, not a chunk: the loop over chunks stays inside, where it keeps eta in the cache.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np


class Sums(NamedTuple):
    """What a pass adds up over the valid bins, in float64, for n receivers."""

    loss: np.ndarray  # (n,): of w * loss, or of w * cumulant where counts are linear
    residual: np.ndarray  # (n,): of its derivative in eta
    grad: np.ndarray  # (n_features, n): X' of the same


class Chunk(NamedTuple):
    """Some bins of a pass forward."""

    index: slice  # bins
    eta: np.ndarray  # (n_rows, n): X C, without intercept and offset
    valid: np.ndarray  # (n_rows,)
    seen: np.ndarray | None  # (n_rows,): what each bin sees of the events, 1 in the mean


class Passes(Protocol):
    """Products of X with some receivers that go through the solver together."""

    def evaluate(self, observed, loss, receivers, coef, intercept, precise: bool) -> Sums:
        """One whole pass: forward, pointwise, backward.

        ``receivers`` (n,) are numbers in ``observed``; coef is (n_features, n), intercept (n,).
        Sums run in float64, or, unless ``precise``, in float32 inside a chunk.
        """

    def forward(self, coef, precise: bool = True, seen: bool = False) -> Iterator[Chunk]:
        """``X C`` of every bin, chunk by chunk."""


class Products(Protocol):
    """X over the valid bins.

    Attributes
    ----------
    shape : tuple
        (n_bins, n_features), invalid bins included.
    valid : ndarray of bool, shape (n_bins,)
    n_bins : int
        Valid bins.
    nonnegative : ndarray of bool, shape (n_features,)
        True for a column that can never be negative.
    columns : sequence of blocks of columns
        For costs; see `kinds`.
    """

    def passes(self, n_receivers: int, lanes: int, multiply: str) -> Passes:
        """Products with that many receivers, from "events" or from "rows"."""

    def parts(self) -> Iterator:
        """First bin, and `Products` in memory, of consecutive ranges of bins."""

    def rows(self, index, dtype=np.float64) -> np.ndarray:
        """The rows at ascending valid bins."""

    def seen(self, index) -> np.ndarray:
        """What some bins see of the events, 1 in the mean of all."""

    def gram(self, weight=None) -> np.ndarray:
        """``X'X``, (n_features, n_features), or ``X' diag(weight) X``, which reads all rows."""

    def project(self, values) -> np.ndarray:
        """``X' values`` for values of shape (n_bins, n)."""

    def column_sums(self, weight=None) -> np.ndarray:
        """``X'1``, or ``X' weight``."""

    def moments(self, observed, sums=None):
        """``X'Y``, ``X'1`` and the sums of Y, with the weights; see `sums.Moments`."""

    def smallest_positive(self) -> np.ndarray:
        """A lower bound, per column, of its values above zero."""

    def select(self, columns):
        """The products of the senders that some columns need, and the index of their columns."""

    def restrict(self, valid):
        """The products over fewer bins."""

    def work(self, used=None):
        """`kinds.Work` of one product for one receiver."""
