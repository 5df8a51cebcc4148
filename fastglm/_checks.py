"""Checks of the numbers that users give."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_LONGEST = 80  # characters of a value that an error shows


def as_dense_numbers(values: ArrayLike, name: str) -> np.ndarray:
    """As `as_numbers`; a sparse array becomes a dense one."""
    return as_numbers(values.toarray() if scipy.sparse.issparse(values) else values, name)


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

    An entry that is masked, None or the NA of pandas is NaN. Text is never read as a number.

    Raises
    ------
    TypeError
        If the values are text, or other objects that are not numbers.
    ValueError
        If the values are ragged, too large for float64, or complex.
    """
    kind, wrong, more = "", TypeError, ""
    try:
        array = values if scipy.sparse.issparse(values) else np.asarray(values)
        more = _first_text(array) if array.dtype.kind in "OUST" else ""
        if array.dtype.kind == "O" and not more:
            array = _from_objects(array)
        kind = array.dtype.kind
    except TypeError as error:
        more = f" NumPy says: {error}."
    except (OverflowError, ValueError, RuntimeError):  # RuntimeError: arrays of other libraries
        wrong = ValueError
    if kind == "c":
        wrong, more = ValueError, " Complex data not supported."
    if not kind or kind not in "fiub":
        raise wrong(
            f"{name} could not be read as numbers; expected real numbers, bins in rows, the "
            f"same number of columns in each row.{more}"
        )
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        array = array if array.dtype.kind == "f" else array.astype(np.float64)
        array = np.where(np.ma.getmaskarray(values), np.nan, array)
    return array


def _from_objects(array):
    """An array of objects as float64; None and the NA of pandas are NaN."""
    missing = [value is None or type(value).__name__ == "NAType" for value in array.flat]
    missing = np.array(missing, bool).reshape(array.shape)
    return np.where(missing, np.nan, array).astype(np.float64)


def _first_text(array):
    """A sentence about the first text in an array; empty if there is none."""
    for k, value in enumerate(array.flat):
        if isinstance(value, str | bytes):
            place = ", ".join(map(str, np.unravel_index(k, array.shape)))
            value = str(value) if isinstance(value, str) else bytes(value)
            return f" The first text is {value!r}" + (f" at [{place}]." if place else ".")
    return ""


def column_names(values: object) -> list | None:
    """Names of the columns of a table, of a Series, or of the second axis of a DataArray.

    None if there are no names, or only the numbers 0, 1, 2, ...
    """
    names = None
    if hasattr(values, "columns") and (hasattr(values, "iloc") or hasattr(values, "__dataframe__")):
        names = list(getattr(values, "column_names", values.columns))
    elif hasattr(values, "to_frame") and getattr(values, "name", None) not in (None, ""):
        names = [values.name]
    elif hasattr(values, "coords") and len(getattr(values, "dims", ())) == 2:
        axis = values.dims[1]
        names = np.asarray(values.coords[axis]).tolist() if axis in values.coords else None
    return None if names == list(range(len(names or ()))) else names


def read_trials(values: object, name: str, ndims: tuple[int, ...]) -> list[ArrayLike] | None:
    """Arrays of numbers from a list of trials; None if the values are no such list.

    A trial is an array, a table or a sparse array with bins first.

    Parameters
    ----------
    values : object
    name : str
        In errors.
    ndims : tuple of int
        Numbers of dimensions that a trial may have.

    Raises
    ------
    ValueError
        If trials differ in the number or the names of their columns, or are not numbers.
    """
    if not isinstance(values, list | tuple) or len(values) == 0:
        return None
    if not all(len(getattr(trial, "shape", ())) in ndims for trial in values):
        return None
    names = [column_names(trial) for trial in values]
    for k, other in enumerate(names):
        if other != names[0] and len(values[0].shape) > 1:
            raise ValueError(
                f"Trial {k} of {name} has columns {other}, and the first trial {names[0]}; "
                "expected the same columns in the same order."
            )
    trials = [as_numbers(trial, name) for trial in values]
    if len({trial.shape[1:] for trial in trials}) != 1:
        raise ValueError(
            f"Trials have shapes {[trial.shape for trial in trials]}; {name} takes trials of "
            "shape (n_bins, n_units) with the same n_units in each."
        )
    return trials


def join(trials: list[ArrayLike]) -> np.ndarray | scipy.sparse.sparray:
    """Trials put end to end; sparse if one of them is."""
    if any(scipy.sparse.issparse(trial) for trial in trials):
        return scipy.sparse.vstack([scipy.sparse.csc_array(trial) for trial in trials], "csc")
    return np.concatenate(trials)


def positive_int(name: str, value: object) -> int:
    """The value as an int.

    Raises
    ------
    ValueError
        If the value is not a positive whole number.
    """
    if not is_number(value) or not 1 <= value < 2**62 or int(value) != value:
        raise ValueError(f"{name} is {value!r}; expected a positive integer.")
    return int(value)


def is_number(value: object) -> bool:
    """Whether a value is a single finite real number; a bool is not a number."""
    real = isinstance(value, int | float | np.integer | np.floating)
    if not real or isinstance(value, bool):
        return False
    try:
        return bool(np.isfinite(float(value)))
    except OverflowError:  # a whole number of more than 308 digits
        return False


def check_choice(name: str, value: object, choices: Iterable, wanted: str | None = None) -> None:
    """Raise ValueError if a value is none of some names.

    Parameters
    ----------
    name : str
    value : object
        Anything: what is no text is no name.
    choices : iterable of str
    wanted : str, optional
        What is expected, for the error. Default: one of the choices.
    """
    if isinstance(value, str) and value in choices:
        return
    wanted = f"one of {list(choices)}" if wanted is None else wanted
    raise ValueError(f"{name} is {shown(value)}; expected {wanted}.")


def shown(value: object) -> str:
    """A value in one line of an error; of an array only its shape."""
    shape = getattr(value, "shape", ())
    if isinstance(shape, tuple) and shape:
        return f"{type(value).__name__} of shape {shape}"
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def rounding(*values: object) -> float:
    """Seconds by which times of the size of the largest may be off: two steps of float64.

    A time in Unix seconds is known to 0.2 us, a time of an hour to 0.5 ps.
    """
    largest = max((float(np.abs(v).max(initial=0.0)) for v in map(np.asarray, values)), default=0.0)
    return 2 * float(np.spacing(largest))


@cache
def installed_memory(unknown: float) -> float:
    """Bytes of memory that the machine has; ``unknown`` if the system does not tell."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return unknown


@cache
def group_limit(groups: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> float:
    """Least memory limit of the control groups that hold this process, in bytes; inf for none.

    In a container the file of its own group may stand at the root, so every folder up to the root
    is asked, once in a process: a small fit takes hardly longer than the files.
    """
    try:
        lines = Path(groups).read_text().splitlines()
    except OSError:
        return np.inf
    limit = np.inf
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):  # "" is version 2
            continue
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        folder = Path(root, "memory" if controllers else "")
        for part in ("", *Path(path).parts):
            folder = folder / part.lstrip("/")
            try:
                limit = min(limit, float((folder / name).read_text()))
            except (OSError, ValueError):  # no such folder here, or "max"
                continue
    return limit if limit > 0 else np.inf


def check_memory(what: str, n_bytes: float, remedy: str) -> None:
    """Raise ValueError if something takes more than the memory of the machine or the container."""
    memory, limit = installed_memory(1e12), group_limit()
    has = "the machine has" if memory <= limit else "the container may take"
    if n_bytes > min(memory, limit):
        raise ValueError(
            f"{what} would take {n_bytes / 1e9:,.3g} GB, and {has} {min(memory, limit) / 1e9:,.3g};"
            f" {remedy}."
        )


def import_extra(name: str) -> object:
    """A library that fastglm works without; raises ImportError with how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ImportError(f"This needs {name}: pip install {name}") from None


def check_share(name: str, value: float, example: float = 0.95) -> None:
    """Raise ValueError if a value is not between 0 and 1."""
    if not is_number(value) or not 0 < value < 1:
        raise ValueError(
            f"{name} is {value!r}; expected a number between 0 and 1, such as {example}."
        )


class _DefaultKey(int):
    """A seed that nobody gave, which `random_state` may replace."""


DEFAULT_KEY = _DefaultKey(0)


def read_key(random_key: object, random_state: object = None) -> np.random.Generator:
    """A random generator from a seed, a generator, or a key of JAX (raw or typed).

    ``random_state`` is the same by the name of scikit-learn, and may be a RandomState.

    Raises
    ------
    ValueError
        If both are given, or it is none of these.
    """
    if random_state is not None:
        if random_key is not None and random_key is not DEFAULT_KEY:
            raise ValueError(
                f"random_key is {random_key!r} and random_state {random_state!r}; they are two "
                "names of one argument, pass one of them."
            )
        if isinstance(random_state, np.random.RandomState):
            return np.random.Generator(random_state._bit_generator)
        random_key = random_state
    if str(getattr(random_key, "dtype", "")).startswith("key<"):
        # Only JAX can read a typed key; it is in memory if such a key exists.
        random_key = np.asarray(sys.modules["jax"].random.key_data(random_key))
    elif type(random_key).__module__.split(".")[0] in ("jax", "jaxlib"):
        random_key = np.asarray(random_key)
    try:
        return np.random.default_rng(random_key)
    except (TypeError, ValueError):
        name = "random_key" if random_state is None else "random_state"
        raise ValueError(
            f"{name} is {random_key!r}; expected an integer, a NumPy generator, a key of JAX, "
            "or None."
        ) from None
