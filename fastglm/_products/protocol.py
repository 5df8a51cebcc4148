"""The interface between the solver and an implementation of X: sums and maps over bins.

The solver reads the features through these methods alone. `local.Local` holds X in memory, and
`shards.Shards` holds a range of bins at a time. A GPU or another machine is another implementation.
The unit of work is a whole pass. The loop over chunks lies inside an implementation, where it keeps
eta in the cache.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np


class Sums(NamedTuple):
    """Sums of a pass over the valid bins, in float64, for n receivers."""

    loss: np.ndarray  # (n,): sum of w * loss, or of w * cumulant if counts are linear
    residual: np.ndarray  # (n,): sum of the residual, the derivative of that term in eta
    grad: np.ndarray  # (n_features, n): X' times the residual


class Chunk(NamedTuple):
    """Some bins of a pass forward."""

    index: slice  # bins
    eta: np.ndarray  # (n_rows, n): X C, without intercept and offset
    valid: np.ndarray  # (n_rows,)
    seen: np.ndarray | None  # (n_rows,): the activity of each bin; see `Products.seen`


class Passes(Protocol):
    """Products of X with the receivers of a batch."""

    def evaluate(
        self,
        observed,
        loss,
        receivers: np.ndarray,
        coef: np.ndarray,
        intercept: np.ndarray,
        precise: bool,
    ) -> Sums:
        """One whole pass: forward, pointwise, backward.

        ``receivers`` (n,) are numbers in ``observed``; coef is (n_features, n), intercept (n,). If
        ``precise``, all sums run in float64; else the sums inside a chunk run in float32.
        """

    def forward(
        self, coef: np.ndarray, precise: bool = True, seen: bool = False
    ) -> Iterator[Chunk]:
        """``X C`` of every bin, chunk by chunk; if ``seen``, with the activity of each bin.

        One walk in float64 and one in float32 may go side by side.
        """


class Products(Protocol):
    """X over the valid bins.

    Attributes
    ----------
    shape : tuple
        (n_bins, n_features), invalid bins included.
    valid : ndarray of bool, shape (n_bins,)
    n_bins : int
        Number of valid bins.
    nonnegative : ndarray of bool, shape (n_features,)
        True for a column that can never be negative.
    taken : ndarray of shape (n_features,)
        What was taken off each column; it carries the rounding of the column as it was.
    columns : sequence of blocks of columns
        Used for estimates of cost; see `kinds`.
    concurrent : bool
        Whether threads may walk over the bins side by side.
    """

    def passes(self, n_receivers: int, lanes: int, multiply: str) -> Passes:
        """Products with that many receivers; ``multiply`` is "events" or "rows"."""

    def parts(self) -> Iterator[tuple[int, "Products"]]:
        """Consecutive ranges of bins: the first bin, and `Products` in memory."""

    def total(self, function: Callable, observed=None):
        """The sum over the parts of ``function(part, its observations)``.

        Arrays and named tuples of arrays are added. The function can be pickled: the parts may lie
        on other machines.
        """

    def rows(self, index: np.ndarray, dtype=np.float64) -> np.ndarray:
        """The rows at ascending valid bins."""

    def seen(self, index: np.ndarray) -> np.ndarray:
        """The activity of some bins: events inside their windows, scaled to mean 1."""

    def gram(self, weight: np.ndarray | None = None) -> np.ndarray:
        """``X'X``, (n_features, n_features), or ``X' diag(weight) X``, which reads all rows."""

    def project(self, values: np.ndarray) -> np.ndarray:
        """``X' values`` for values of shape (n_bins, n)."""

    def column_sums(self, weight: np.ndarray | None = None) -> np.ndarray:
        """``X'1``, or ``X' weight``."""

    def moments(self, observed, known: np.ndarray | None = None):
        """``X'Y``, ``X'1`` and the sums of Y, with the weights, as `sums.Moments`.

        ``known`` is ``X'1``, if it has been computed already.
        """

    def smallest_positive(self) -> np.ndarray:
        """A lower bound, per column, of its values above zero."""

    def select(self, columns: np.ndarray) -> tuple["Products", np.ndarray]:
        """Products with the senders of some columns, and the index of the columns they hold."""

    def restrict(self, valid: np.ndarray) -> "Products":
        """The products over fewer bins."""

    def work(self, used: np.ndarray | None = None):
        """`kinds.Work` of one product for one receiver, with the ``used`` features or all."""
