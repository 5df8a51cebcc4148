"""Which units a sorter took from one channel, by a column of the table of units.

The column is taken by its name and only if it can be one of channels: several units share a label,
and no label is that of more than 20 units, which would be a probe.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NAMES = (
    ("channel", "ch", "channel_id", "peak_channel", "peak_channel_id", "max_channel")
    + ("main_channel", "best_channel", "tetrode", "tetrode_id", "electrode", "electrode_id")
    + ("electrodes", "electrode_group")
)
_MOST = 20  # units of one electrode or tetrode


def find_channels(metadata: dict) -> str | None:
    """The name of the first column that can be one of channels; None if there is none.

    Parameters
    ----------
    metadata : dict of str to list
        Columns, one entry for each unit.
    """
    lower = {str(name).lower(): name for name in metadata}
    for name in NAMES:
        if name in lower:
            numbers = number_labels(metadata[lower[name]])
            sizes = np.bincount(numbers[numbers >= 0], minlength=1)
            if 2 <= sizes.max() <= _MOST:
                return lower[name]
    return None


def number_labels(labels: Sequence) -> np.ndarray:
    """Equal labels as equal numbers; -1 for labels that say nothing: None, NaN and empty texts."""
    found, numbers = {}, []
    for label in labels:
        label = label.item() if isinstance(label, np.generic) else label
        label = label if isinstance(label, str | int | float | None) else str(label)
        empty = label is None or label != label or label == ""
        numbers.append(-1 if empty else found.setdefault(label, len(found)))
    return np.array(numbers, dtype=np.int64)


def largest_channel(template: np.ndarray, index: np.ndarray | None = None) -> int:
    """The channel on which a template is largest from peak to peak.

    Parameters
    ----------
    template : ndarray of shape (n_samples, n_channels)
    index : ndarray of int, shape (n_channels,), optional
        The channel of each column; below 0 where a column is empty. Default: 0, 1, 2, ...
    """
    with np.errstate(invalid="ignore", over="ignore"):  # of a template that is not finite
        size = np.ptp(template.astype(np.float64), axis=0)
    size[~np.isfinite(size)] = -1
    if index is None:
        return int(size.argmax())
    return int(index[np.where(index < 0, -1.0, size).argmax()])
