"""Recordings that have no synapses any more: what is found in them is false.

- `jittered`: every event at a random time of its window of 50 ms. Slow drive stays, synapses go.
- `shifted`: every cell moved in time by a large amount of its own, around the end of each epoch.
  Nothing that cells share stays.
- `turned`: time runs backwards. A coupling from i to j must come back as one from j to i. What is
  found in the same direction in both is no synapse, but for pairs that are coupled both ways.
"""

from __future__ import annotations

import numpy as np

from fastglm.features.dense import DenseColumns, SlowColumns
from fastglm.features.events import Events
from fastglm.features.held import hold
from fastglm.features.matrix import FeatureMatrix

_WINDOW = 0.05  # seconds in which events are moved
_SMALLEST = 0.1  # part of an epoch by which a cell is moved at least


def jittered(events: Events, epochs: np.ndarray, bin_size: float, seed: int = 0) -> Events:
    """Events moved to random bins of their windows of 50 ms; windows count from each epoch's start.

    Parameters
    ----------
    events : Events
    epochs : ndarray of shape (n_epochs, 2)
        First bin and one past the last.
    bin_size : float
        Seconds.
    seed : int

    Returns
    -------
    Events
        Inside epochs only. Events that meet in a bin are added.
    """
    rng, width = np.random.default_rng(seed), max(round(_WINDOW / bin_size), 1)
    bins, units, start, stop = _single(events, epochs)
    low = start + (bins - start) // width * width
    high = np.minimum(low + width, stop)
    return _collected(rng.integers(low, high), units, events.shape)


def shifted(events: Events, epochs: np.ndarray, bin_size: float, seed: int = 0) -> Events:
    """Events of each cell moved by one amount in every epoch, from its end on to its start."""
    rng = np.random.default_rng(seed)
    bins, units, start, stop = _single(events, epochs)
    part = rng.uniform(_SMALLEST, 1 - _SMALLEST, events.n_units)[units]
    length = stop - start
    move = np.round(part * length).astype(np.int64)
    return _collected(start + (bins - start + move) % length, units, events.shape)


def turned(events: Events, epochs: np.ndarray, bin_size: float, seed: int = 0) -> Events:
    """Events with the time of every epoch reversed."""
    bins, units, start, stop = _single(events, epochs)
    return _collected(start + stop - 1 - bins, units, events.shape)


def turned_rows(X: FeatureMatrix, epochs: np.ndarray) -> FeatureMatrix:
    """Features with the rows of every epoch in reverse order.

    What drove a cell in a bin stays beside the events of that bin. A convolution becomes an array
    of 8 bytes an entry; columns that are kept at their own rate stay so.
    """
    rows = np.arange(X.shape[0])
    for start, stop in np.asarray(epochs, np.int64).reshape(-1, 2):
        rows[start:stop] = rows[start:stop][::-1]
    blocks = []
    for block in X.blocks:
        if isinstance(block, SlowColumns):
            samples = np.repeat(block.samples, np.diff(block.starts, append=block.n_bins))[rows]
            turned = hold(block.values, samples=samples, label=block.label).blocks
        else:
            turned = [DenseColumns(np.asarray(FeatureMatrix([block]))[rows], block.label)]
        blocks.extend(turned)
    return FeatureMatrix(blocks)


CONTROLS = {"jittered": jittered, "shifted": shifted, "reversed": turned}


def false_discoveries(name: str, found: np.ndarray, control: np.ndarray) -> int:
    """Number of discoveries of a control.

    Parameters
    ----------
    name : str
        Of `CONTROLS`.
    found, control : ndarrays of bool, shape (n_cells, n_cells)
        What is significant in the data and in the control.
    """
    if name == "reversed":
        return int((found & control & ~found.T).sum())
    return int(control.sum())


def reciprocal(found: np.ndarray, control: np.ndarray) -> int:
    """Number of couplings that a reversed control repeats and whose pair is coupled both ways.

    They may be true: with time reversed each direction stands for the other.

    Parameters
    ----------
    found, control : ndarrays of bool, shape (n_cells, n_cells)
        What is significant in the data and in the control.
    """
    return int((found & control & found.T).sum())


def _single(events, epochs):
    """Bin and unit of every single count inside epochs, and the start and stop of its epoch."""
    if np.isnan(events.amplitudes).any():
        raise ValueError(
            "counts are partly unknown (NaN), and controls move events in time; pass epochs "
            "without the unknown bins, or leave controls out."
        )
    epochs = np.asarray(epochs, np.int64).reshape(-1, 2)
    order = np.argsort(epochs[:, 0])
    starts, stops = epochs[order].T
    number = np.repeat(np.arange(events.n_events), events.amplitudes.astype(np.int64))
    bins, units = events.bins[number].astype(np.int64), events.units[number]
    at = np.searchsorted(starts, bins, side="right") - 1
    inside = (at >= 0) & (bins < stops[at])
    at = at[inside]
    return bins[inside], units[inside], starts[at], stops[at]


def _collected(bins, units, shape):
    """Events of single counts, those of one bin and unit as one."""
    place, amplitudes = np.unique(bins * shape[1] + units, return_counts=True)
    bins, units = np.divmod(place, shape[1])
    return Events(
        bins.astype(np.int32), units.astype(np.int32), amplitudes.astype(np.float64), shape
    )
