"""Histories and covariates side by side, and which couplings are fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastglm._checks import as_dense_numbers, is_number
from fastglm._pynapple import Columns
from fastglm.basis.cosines import RaisedCosineLogConv
from fastglm.features.history import HistoryColumns
from fastglm.features.matrix import FeatureMatrix, hstack
from fastglm.recordings.times import read_number

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

OWN = "own history"  # label of the own history where it is a block of its own


@dataclass
class Design:
    """The features of a population: histories first, then what else drives the cells.

    Attributes
    ----------
    X : FeatureMatrix
    population : HistoryColumns
        History of all cells. With ``own`` it is the history of the other cells.
    own : HistoryColumns or None
        History of the receiver itself, where it has a window or a basis of its own.
    """

    X: FeatureMatrix
    population: HistoryColumns
    own: HistoryColumns | None

    @classmethod
    def of(cls, counts: object, epochs: object, basis: object, own_basis: object | None) -> Design:
        """The histories of counts."""
        X = basis.compute_features(counts, epochs=epochs)
        (population,), own = X.blocks, None
        if own_basis is not None:
            itself = own_basis.compute_features(counts, epochs=epochs)
            (own,) = itself.blocks
            own.label = OWN
            X = hstack([X, itself])
        return cls(X, population, own)

    def add(self, *matrices: FeatureMatrix | None) -> None:
        """Put further features beside those that are there; None adds nothing."""
        more = [matrix for matrix in matrices if matrix is not None]
        if more:
            self.X = hstack([self.X, *more])

    def name(self, columns: Columns | None) -> None:
        """Give the senders of the histories names."""
        for block in (self.population, self.own):
            if block is not None and columns is not None:
                block.inputs = columns

    def feature_mask(self, mask: ArrayLike | None) -> np.ndarray | None:
        """Which features each cell is fitted on, (n_features, n_cells); None for all.

        Parameters
        ----------
        mask : array of bool, shape (n_cells, n_cells), or None
            Couplings that are fitted, senders in rows; on the diagonal own histories.

        Raises
        ------
        ValueError
            If the mask has another shape, or holds other values than 0 and 1.
        """
        n = self.population.n_senders
        if mask is None and self.own is None:
            return None
        mask = np.ones((n, n), bool) if mask is None else _read_mask(mask, n)
        itself = np.eye(n, dtype=bool)
        free = np.ones((self.X.shape[1], n), bool)
        other = mask if self.own is None else mask & ~itself
        free[: self.population.n_columns] = np.repeat(other, self.population.n_funcs, axis=0)
        if self.own is not None:
            start = self.population.n_columns
            free[start : start + self.own.n_columns] = np.repeat(
                mask & itself, self.own.n_funcs, axis=0
            )
        return free


def _read_mask(mask, n):
    array = as_dense_numbers(mask, "mask")
    if array.shape != (n, n):
        raise ValueError(
            f"mask has shape {array.shape}; expected (n_senders, n_receivers) = ({n}, {n})."
        )
    if array.dtype != bool and not np.isin(array, (0, 1)).all():
        raise ValueError("mask holds other values than 0 and 1; expected which couplings to fit.")
    return array.astype(bool)


def read_basis(
    basis: object | None,
    window: float | None,
    bin_size: float,
    default: float,
    n_funcs: int,
    fewest: int = 1,
    name: str = "window",
) -> object:
    """The convolution basis that was chosen, or raised cosines in log time over the window.

    Parameters
    ----------
    basis : convolution basis or None
    window : float or None
        Seconds.
    bin_size : float
        Seconds.
    default : float
        Seconds of the window if there is neither.
    n_funcs : int
        Functions of the default basis, if there are as many lags.
    fewest : int
        Lags of the default window at least.
    name : str
        Of the argument ``window``.

    Raises
    ------
    ValueError
        If the window is shorter than a bin, the basis is not one of lags, or both differ.
    """
    window = read_number(window, name)
    if window is not None and not (is_number(window) and window / bin_size >= 0.5):
        raise ValueError(f"{name} is {window!r}; expected at least one bin of {bin_size} s.")
    if basis is None:
        size = (
            max(round(default / bin_size), fewest) if window is None else round(window / bin_size)
        )
        size = max(size, 1)
        if size < 2:
            raise ValueError(
                f"A {name} of one bin of {bin_size} s is too short for raised cosines; pass a "
                f"longer {name}, or {name.replace('window', 'basis')}="
                "fastglm.basis.HistoryConv(1)."
            )
        return RaisedCosineLogConv(min(n_funcs, size), window_size=size, label="coupling")
    size = getattr(basis, "window_size", None)
    if size is None:
        raise ValueError(
            f"{name.replace('window', 'basis')} is {basis!r}; expected a convolution basis, such "
            "as RaisedCosineLogConv."
        )
    if window is not None and round(window / bin_size) != size:
        raise ValueError(
            f"{name} is {window} s, {round(window / bin_size)} bins of {bin_size} s, but the basis "
            f"has window_size={size}; leave {name} out, or make the basis with "
            f"window_size={round(window / bin_size)}."
        )
    return basis


def read_own_basis(basis: object | None, window: float | None, bin_size: float, n_funcs: int):
    """The basis of the own history; None where it has neither window nor basis of its own."""
    if basis is None and window is None:
        return None
    return read_basis(basis, window, bin_size, 0.0, n_funcs, name="own_window")
