"""Ranges of bins put end to end, and columns in runs of inputs: what `cut` and `pick` share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np


def ranges_of(bins: np.ndarray, window: int) -> np.ndarray:
    """Ranges that hold some ascending bins, (n_ranges, 2): first bin, and one past the last.

    A gap of more than two windows is left out, but for the window before the next bin. What lies
    in one range then does not reach into the bins of the next one. The first range begins at its
    first bin.
    """
    if bins.size == 0:
        return np.zeros((1, 2), np.int64)
    gaps = np.flatnonzero(np.diff(bins) - 1 > 2 * window)
    starts = np.append(bins[0], bins[gaps + 1] - window)
    return np.column_stack([starts, np.append(bins[gaps], bins[-1]) + 1])


def offsets(ranges: np.ndarray) -> np.ndarray:
    """What is added to a bin of each range where the ranges are put end to end, (n_ranges,)."""
    sizes = ranges[:, 1] - ranges[:, 0]
    return np.cumsum(sizes) - sizes - ranges[:, 0]


def places_in(ranges: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Where some bins of the ranges are when the ranges are put end to end."""
    return bins + offsets(ranges)[np.searchsorted(ranges[:, 0], bins, side="right") - 1]


def end_to_end(values: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """The rows of the ranges; a view if there is one range."""
    parts = [values[first:stop] for first, stop in ranges]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def spans(low: np.ndarray, high: np.ndarray) -> slice | np.ndarray:
    """The numbers from each low to below each high; a slice if there is one pair."""
    if low.size == 1:
        return slice(int(low[0]), int(high[0]))
    sizes = high - low
    return np.arange(sizes.sum()) + np.repeat(low - np.cumsum(sizes) + sizes, sizes)


def spread(values: np.ndarray, places: np.ndarray | None, n_bins: int) -> np.ndarray:
    """Values of rows at the places of the rows among all bins, and 0 elsewhere."""
    if places is None:
        return values
    out = np.zeros((n_bins, *values.shape[1:]), values.dtype)
    out[places] = values
    return out


def runs_of(columns: np.ndarray, n_funcs: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Columns as runs of ascending inputs with the same functions: (inputs, functions) of each.

    Column ``i * n_funcs + b`` is function b of input i.
    """
    runs = []
    for i, group in itertools.groupby(columns.tolist(), key=lambda column: column // n_funcs):
        funcs = [column % n_funcs for column in group]
        if runs and runs[-1][1] == funcs and i > runs[-1][0][-1]:
            runs[-1][0].append(i)
        else:
            runs.append(([i], funcs))
    for inputs, funcs in runs:
        yield np.array(inputs), np.array(funcs)


def as_slice(index: np.ndarray) -> slice | np.ndarray:
    """Numbers that follow each other as a slice, which selects a view; others as they are."""
    if index.size and (np.diff(index) == 1).all():
        return slice(int(index[0]), int(index[-1]) + 1)
    return index
