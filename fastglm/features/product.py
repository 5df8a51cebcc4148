"""Products of columns of two factors."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fastglm.features.ranges import runs_of


class ProductColumns:
    """Products of the columns of two factors, input by input, built on demand.

    Let the factors have a and b columns for each of ``n_inputs`` inputs. Column
    ``(i * a + j) * b + k`` is the product of column j of input i in the left factor and column k of
    input i in the right factor.

    Parameters
    ----------
    left, right : tuples of blocks
        The number of columns of each factor is a multiple of ``n_inputs``; columns are input-major.
    n_inputs : int
    label : str
    """

    may_be_nan = True
    inputs = None
    lags = 0

    def __init__(
        self, left: Iterable[object], right: Iterable[object], n_inputs: int, label: str = "product"
    ) -> None:
        self.factors = tuple(left), tuple(right)
        self.n_inputs, self.label = n_inputs, label
        self.n_funcs = self._n_funcs_of(0) * self._n_funcs_of(1)

    @property
    def n_columns(self) -> int:
        """Number of columns."""
        return self.n_inputs * self.n_funcs

    taken = None  # centring takes nothing off

    def centred(self) -> tuple:
        """The block as it is: a product of shifted factors would be another feature."""
        return self, np.zeros(self.n_columns)

    def describe(self) -> str:
        """A description of the columns in words."""
        return "products, not stored"

    def arrays(self) -> list[np.ndarray]:
        """The arrays that determine the columns."""
        shape = np.array([self.n_inputs, len(self.factors[0])])
        return [shape, *(a for blocks in self.factors for c in blocks for a in c.arrays())]

    @property
    def valid(self) -> np.ndarray:
        """Rows that are valid in all blocks of both factors."""
        return np.logical_and.reduce([c.valid for blocks in self.factors for c in blocks])

    @property
    def reach(self) -> tuple[int, int]:
        """Bins before a row and bins after it whose counts the row depends on."""
        return farthest([c for blocks in self.factors for c in blocks])

    def _outer(self, function, operation):
        """``operation`` on ``function(block)`` of both factors, (n, n_columns) or (n_columns,)."""
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
    def nonnegative(self) -> np.ndarray:
        """For each column, whether both its factors can never be negative."""
        return self._outer(lambda c: c.nonnegative, np.logical_and)

    def smallest_positive(self) -> np.ndarray:
        """For each column that is never negative, a lower bound of its values above zero."""
        return self._outer(lambda c: c.smallest_positive(), np.multiply)

    def rows(self, index: np.ndarray, out: np.ndarray) -> None:
        """Write the rows at the ascending bins ``index`` into ``out``."""

        def rows(block):
            part = np.empty((index.size, block.n_columns), out.dtype)
            block.rows(index, part)
            return part

        out[:] = self._outer(rows, np.multiply)

    def mark(self, index: np.ndarray, out: np.ndarray) -> None:
        """Write NaN where a factor is not known."""

        def unknown(block):
            part = np.zeros((index.size, block.n_columns))
            block.mark(index, part)
            return np.isnan(part)

        out[self._outer(unknown, np.logical_or)] = np.nan

    def select(self, columns: np.ndarray) -> tuple[ProductColumns, np.ndarray]:
        """The block with only the inputs that have a column in the boolean array ``columns``."""
        inputs = columns.reshape(self.n_inputs, self.n_funcs).any(axis=1)
        left, right = (
            [c.select(np.repeat(inputs, c.n_columns // self.n_inputs))[0] for c in blocks]
            for blocks in self.factors
        )
        block = ProductColumns(left, right, int(inputs.sum()), self.label)
        return block, np.flatnonzero(np.repeat(inputs, self.n_funcs))

    def pick(self, columns: np.ndarray) -> list[ProductColumns]:
        """Blocks with the given columns, in the given order, side by side."""
        n_left, n_right = (self._n_funcs_of(side) for side in (0, 1))
        blocks = []
        for inputs, funcs in runs_of(columns, self.n_funcs):
            if np.array_equal(funcs, np.arange(self.n_funcs)):
                blocks.append(self._pick(inputs, np.arange(n_left), np.arange(n_right)))
                continue
            for i in inputs:
                runs = runs_of(funcs, n_right)
                blocks += [self._pick(np.array([i]), left, right) for left, right in runs]
        return blocks

    def _n_funcs_of(self, side):
        return sum(c.n_columns for c in self.factors[side]) // self.n_inputs

    def _pick(self, inputs, left, right):
        """Products of some functions of both factors, for some inputs."""
        factors = []
        for blocks, funcs in zip(self.factors, (left, right), strict=True):
            sizes = [c.n_columns // self.n_inputs for c in blocks]
            first = np.cumsum([0, *sizes])
            of_block = np.searchsorted(first, funcs, side="right") - 1
            cuts = np.flatnonzero(np.diff(of_block)) + 1
            parts = []
            for some in np.split(np.arange(funcs.size), cuts):
                k = of_block[some[0]]
                parts += blocks[k].pick(
                    (inputs[:, None] * sizes[k] + funcs[some] - first[k]).ravel()
                )
            factors.append(parts)
        block = ProductColumns(*factors, inputs.size, self.label)
        block.inputs = self.inputs and self.inputs.take(inputs)
        return block

    def cut(self, ranges: np.ndarray) -> ProductColumns:
        """The columns over some ranges of bins, put end to end; see the factors."""
        left, right = ([c.cut(ranges) for c in blocks] for blocks in self.factors)
        block = ProductColumns(left, right, self.n_inputs, self.label)
        block.inputs = self.inputs
        return block


def farthest(blocks: Iterable[object]) -> tuple[int, int]:
    """The longest reach of some blocks, back and ahead."""
    return tuple(max(c.reach[side] for c in blocks) for side in (0, 1))


def _by_input(values, n_inputs, n_columns):
    return values.reshape(*values.shape[:-1], n_inputs, n_columns // n_inputs)


def window(blocks: Iterable[object]) -> int:
    """The most bins of history that a row of some blocks sees, those of factors included."""
    own = [max(c.lags, *(window(f) for f in getattr(c, "factors", ((), ())))) for c in blocks]
    return max(own, default=0)
