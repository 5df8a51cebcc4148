"""Sorting's shadows: what pairs of one channel lose in their first two milliseconds.

A sorter sees one waveform at a time on a channel (an electrode, a tetrode, a peak channel). For a
millisecond or two after a spike of one cell it misses those of the others, which looks like
inhibition; and a waveform that it takes for two looks like synchrony. So what the pairs of one
channel do within 2 ms is no evidence.

Events that are lost or added at lag l move a filter along what the basis makes of a blip there:
``N = K^+ I_early``, the columns of the pseudo-inverse of the kernel K at the lags that hold
differences below 2 ms. With a filter in units of its errors the scan sees only the complement of
``S^-1/2 N``. That is the limit of a covariance ``S + w N N'`` as w grows, and z is that of a fit
without these lags, to first order. (``V N`` of the model's covariance V would do for a fit without
covariates; but the activity of all cells, which the recipe has beside the filters, holds the same
events.) Directions of which less than a twentieth lies in these lags stay, so that a basis with few
functions there keeps its power. Delays below 2 ms are left out too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastglm._pynapple import Columns
from fastglm.recordings.channels import find_channels, number_labels

_SHADOW = 0.002  # seconds
_LITTLE = 0.05  # share of a direction's norm in the hidden lags, below which it stays
_WAYS = "a label for each cell, the name of a column, a boolean array of pairs, or False"


def n_hidden(n_lags: int, bin_size: float) -> int:
    """Number of lags that hold differences below 2 ms; at least one.

    Events of two bins at lag l differ by ``l - 1`` to ``l + 1`` bins.
    """
    return min(max(int(np.ceil(_SHADOW / bin_size - 1e-9)), 1), n_lags)


def hidden_directions(kernel: np.ndarray, bin_size: float) -> np.ndarray:
    """Coefficients along which the hidden lags move a filter, (k, n_directions).

    Parameters
    ----------
    kernel : ndarray of shape (window_size, k)
    bin_size : float
        Seconds.
    """
    waves, sizes, coef = np.linalg.svd(kernel, full_matrices=False)
    rank = int((sizes > 1e-9 * sizes.max(initial=0.0)).sum())
    early = waves[: n_hidden(len(kernel), bin_size), :rank]
    _, share, ways = np.linalg.svd(early, full_matrices=False)
    return (coef[:rank].T / sizes[:rank]) @ ways[share > _LITTLE].T


def without(hidden: np.ndarray | None, root: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Filters in units of their errors, less what lies along hidden directions.

    Parameters
    ----------
    hidden : ndarray of shape (k, n_directions) or None
    root : ndarray of shape (n_filters, k, k)
        Cholesky factors of the errors.
    values : ndarray of shape (n_filters, k, n)
    """
    if hidden is None or hidden.shape[1] == 0:
        return values
    # Before NumPy 2 a table beside a stack of matrices is a stack of vectors.
    ways = np.linalg.solve(root, np.broadcast_to(hidden, (len(root), *hidden.shape)))
    ways = np.linalg.qr(ways)[0]
    left = values - ways @ (np.swapaxes(ways, 1, 2) @ values)
    # What is left of a column inside the directions is rounding.
    size, before = (np.linalg.norm(one, axis=1, keepdims=True) for one in (left, values))
    return np.where(size > 1e-6 * before, left, 0.0)


def inverse_without(hidden: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """``S^-1`` of filters, (n_filters, k, k), less what lies along hidden directions N.

    ``S^-1 - S^-1 N (N' S^-1 N)^-1 N' S^-1``, the limit of ``(S + w N N')^-1``.
    """
    along = inverse @ hidden
    return inverse - along @ np.linalg.solve(hidden.T @ along, np.swapaxes(along, 1, 2))


def read_channels(
    channel: Sequence | np.ndarray | str | bool | None,
    senders: Columns | None,
    receivers: Columns | None,
    shape: tuple[int, int],
    itself: bool,
) -> tuple[np.ndarray, str]:
    """Pairs of one channel, and where that comes from.

    Parameters
    ----------
    channel : array of shape (n_cells,), str, ndarray of bool (n_senders, n_receivers), False, None
        Labels; the name of a column of the table of units; the pairs themselves; none; or the
        column that can be one of channels.
    senders, receivers : Columns or None
    shape : (int, int)
        Numbers of senders and receivers.
    itself : bool
        Whether the senders are the receivers.

    Returns
    -------
    same : ndarray of bool, shape (n_senders, n_receivers)
        False for own histories.
    source : str
        "column NAME" or "given"; empty if nothing is known.

    Raises
    ------
    ValueError
        If there is no such column, or labels or pairs do not fit the cells.
    """
    if channel is None or isinstance(channel, bool):
        name = find_channels(senders.metadata) if channel is not False and senders else None
        if name is None or (not itself and (receivers is None or name not in receivers.metadata)):
            return np.zeros(shape, dtype=bool), ""
        channel = name
    if isinstance(channel, str):
        labels, source = _column(channel, senders, receivers, itself), f"column {channel}"
    else:
        given, source = np.asarray(channel, dtype=object), "given"
        if given.shape == shape and given.ndim == 2:
            return _pairs(np.asarray(channel), itself), source
        if not itself or given.shape != shape[:1]:
            wanted = f"{shape[0]} labels, or " if itself else ""
            raise ValueError(
                f"channel has shape {given.shape}; expected {wanted}a boolean array of "
                f"(n_senders, n_receivers) = {shape}."
            )
        labels = [list(given)] * 2
    numbers = number_labels([*labels[0], *labels[1]])
    one, other = np.split(numbers, [shape[0]])
    same = (one[:, None] == other) & (one[:, None] >= 0)
    return _pairs(same, itself), source


def _column(name, senders, receivers, itself):
    """Labels of senders and of receivers in a column of their tables."""
    tables = [senders, senders if itself else receivers]
    for table in tables:
        if table is None or name not in table.metadata:
            known = [] if table is None else list(table.metadata)
            raise ValueError(
                f"channel is {name!r}, but the cells have the columns {known or 'none'}; expected "
                f"{_WAYS}."
            )
    return [list(table.metadata[name]) for table in tables]


def _pairs(same, itself):
    if same.dtype != bool:
        raise ValueError(f"channel is an array of pairs of {same.dtype}; expected {_WAYS}.")
    return same & ~np.eye(*same.shape, dtype=bool) if itself else same.copy()


def sentence(
    same: np.ndarray, source: str, n_lags: int, bin_size: float | None, whole: bool
) -> str:
    """What a reader should know of pairs of one channel; empty if there are none.

    Parameters
    ----------
    same, source
        Of `read_channels`.
    n_lags : int
        Of the window.
    bin_size : float or None
        Seconds.
    whole : bool
        Whether p-values are still of the whole filter.
    """
    n = int(same.sum())
    if n == 0:
        return ""
    text = f"{n:,} couplings are between cells of one channel ({source})"
    if bin_size is None:
        return f"{text}; a sorter loses their spikes of the first 2 ms."
    hidden = n_hidden(n_lags, bin_size)
    whole_bins = ", as bins are not divided" if hidden * bin_size > _SHADOW + 1e-9 else ""
    bins = f"{1e3 * hidden * bin_size:g} ms{whole_bins}"
    if whole:
        return f"{text}; z and delay leave out their first {bins}, which the p-values do not."
    return f"{text}; the test leaves out their first {bins}."
