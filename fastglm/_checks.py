"""Checks of the numbers that users give."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def whole_numbers(name: str, values: ArrayLike) -> np.ndarray:
    """Values as a one-dimensional array of int64.

    Raises
    ------
    ValueError
        If the values are not whole numbers in one dimension.
    """
    array = as_numbers(values, name)
    if array.ndim != 1 or not (array == np.round(array)).all():
        raise ValueError(
            f"{name} has shape {array.shape}; expected whole numbers in one dimension."
        )
    return array.astype(np.int64)


def as_numbers(values: ArrayLike, name: str) -> np.ndarray | scipy.sparse.sparray:
    """Values as an array of real numbers; a SciPy sparse array stays sparse.

    Raises
    ------
    ValueError
        If the values are ragged, complex, or not numbers.
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


def positive_int(name: str, value: object) -> int:
    """The value as an int.

    Raises
    ------
    ValueError
        If the value is not a positive whole number.
    """
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not 1 <= value < np.inf or int(value) != value:
        raise ValueError(f"{name} is {value!r}; expected a positive integer.")
    return int(value)


def is_number(value: object) -> bool:
    """Whether a value is a single finite real number; a bool is not a number."""
    real = isinstance(value, int | float | np.integer | np.floating)
    return real and not isinstance(value, bool) and bool(np.isfinite(value))


def check_memory(what: str, n_bytes: float, remedy: str) -> None:
    """Raise ValueError if something takes more than the memory of the machine."""
    try:
        memory = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):  # the system does not tell
        memory = 1e12
    if n_bytes > memory:
        raise ValueError(
            f"{what} would take {n_bytes / 1e9:,.3g} GB, and the machine has {memory / 1e9:,.3g}; "
            f"{remedy}."
        )


def check_share(name: str, value: float, example: float = 0.95) -> None:
    """Raise ValueError if a value is not between 0 and 1."""
    if not 0 < value < 1:
        raise ValueError(
            f"{name} is {value}; expected a number between 0 and 1, such as {example}."
        )
