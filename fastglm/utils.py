"""Helpers that pages written for NeMoS call ``nmo.utils``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastglm._pynapple import common_timeline, read_values
from fastglm.features.matrix import FeatureMatrix, hstack


def pynapple_concatenate_jax(arrays: Sequence, axis: int = 0) -> object:
    """Arrays put end to end along an axis, with the times of those that have some.

    Features side by side (``axis=1`` or ``-1``) stay a `FeatureMatrix`; see
    `fastglm.features.hstack`.

    Parameters
    ----------
    arrays : list of arrays, `FeatureMatrix` or objects of pynapple
    axis : int, default 0

    Raises
    ------
    ValueError
        If the arrays have different times, or other axes differ in length.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> fastglm.utils.pynapple_concatenate_jax([np.ones((3, 2)), np.zeros((3, 1))], -1).shape
    (3, 3)
    """
    if axis in (1, -1) and any(isinstance(a, FeatureMatrix) for a in arrays):
        return hstack(arrays)
    values, timelines = zip(*(read_values(a, "arrays") for a in arrays), strict=True)
    if axis == 0 and any(timelines):
        return read_values(list(arrays), "arrays")[1].wrap(np.concatenate(values))
    timeline = common_timeline(timelines, [f"array {k}" for k in range(len(values))])
    out = np.concatenate(values, axis=axis)
    return out if timeline is None else timeline.wrap(out)


def one_over_x(x: np.ndarray) -> np.ndarray:
    """``1 / x``: the default mean function of Gamma observations."""
    return 1 / x


__all__ = ["one_over_x", "pynapple_concatenate_jax"]
