"""Covariates that are sampled more slowly than the bins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse

from fastglm._checks import as_numbers, is_number, whole_numbers
from fastglm.features.dense import SlowColumns
from fastglm.features.matrix import FeatureMatrix

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def hold(
    values: ArrayLike,
    n_bins: int | None = None,
    *,
    every: float | None = None,
    starts: ArrayLike | None = None,
    samples: ArrayLike | None = None,
    label: str = "held",
) -> FeatureMatrix:
    """A covariate that is sampled more slowly than the bins, kept at its own rate.

    Row t of the matrix is one sample. Exactly one argument says which:

    - ``every``: sample ``floor(t / every)``;
    - ``starts``: the last sample whose first bin is not after t;
    - ``samples``: sample ``samples[t]``.

    Parameters
    ----------
    values : array of shape (n_samples,) or (n_samples, ...)
        Samples in order of time. NaN spreads to all bins of the sample.
    n_bins : int
        Not needed with ``samples``.
    every : float, optional
        Bins from one sample to the next, at least 1. The number need not be whole: it is 33.3 for
        a camera at 30 Hz and bins of 1 ms.
    starts : array of int, shape (n_samples,), optional
        First bin of every sample, ascending. Bins before the first sample are NaN.
    samples : array of int, shape (n_bins,), optional
        Number of the sample of every bin, such as the frame of a film that is shown repeatedly.
        -1 stands for no sample (NaN).
    label : str

    Returns
    -------
    FeatureMatrix of shape (n_bins, n_columns)
        The matrix keeps the samples and 16 bytes for each run of bins with the same sample. It
        goes beside other matrices with `hstack`. An Eval basis takes it in place of an array; the
        features are then evaluated and kept once for each sample.

    Raises
    ------
    ValueError
        If not exactly one of ``every``, ``starts`` and ``samples`` is given, or it does not fit the
        samples and bins.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> speed = np.random.default_rng(0).random(100)  # 100 Hz, beside bins of 1 ms
    >>> held = fastglm.features.hold(speed, 1000, every=10)
    >>> held.shape, bool((held[250:260, 0] == speed[25]).all())
    ((1000, 1), True)
    >>> X = fastglm.basis.BSplineEval(5).compute_features(held)
    >>> X.shape, X.blocks[0].values.shape
    ((1000, 5), (100, 5))
    """
    array = as_numbers(values, "values")
    if scipy.sparse.issparse(array):
        array = array.toarray()
    if array.ndim == 0 or 0 in array.shape:
        raise ValueError(
            f"values have shape {array.shape}; expected (n_samples, ...), at least one sample."
        )
    if sum(way is not None for way in (every, starts, samples)) != 1:
        raise ValueError(
            "hold takes exactly one of `every` (bins a sample), `starts` (first bin of each "
            "sample) and `samples` (sample of each bin)."
        )
    n_samples = array.shape[0]
    if samples is not None:
        samples = whole_numbers("samples", samples)
        if samples.size == 0 or (n_bins is not None and samples.shape[0] != n_bins):
            raise ValueError(
                f"samples has {samples.shape[0]} entries; expected one for each of the "
                f"{n_bins or 'bins'}."
            )
        if samples.min() < -1 or samples.max() >= n_samples:
            raise ValueError(
                f"samples holds numbers from {samples.min()} to {samples.max()}; values has "
                f"samples 0 to {n_samples - 1}, and -1 means none."
            )
        n_bins = samples.shape[0]
        starts = np.flatnonzero(np.diff(samples, prepend=-2))
        samples = samples[starts]
    else:
        if not is_number(n_bins) or not 1 <= n_bins == int(n_bins):
            raise ValueError(f"n_bins is {n_bins!r}; expected the number of bins.")
        n_bins = int(n_bins)
        if every is not None:
            starts = _regular_starts(n_samples, n_bins, every)
        else:
            starts = whole_numbers("starts", starts)
            if starts.shape[0] != n_samples or (np.diff(starts) <= 0).any():
                raise ValueError(
                    f"starts has {starts.shape[0]} entries for {n_samples} samples; expected the "
                    "first bin of each, ascending without repetition."
                )
        samples = np.arange(starts.shape[0])
        # Runs that begin in the recording, and the run that is under way at its first bin.
        inside = (starts < n_bins) & (np.append(starts[1:], n_bins) > 0)
        starts, samples = np.maximum(starts[inside], 0), samples[inside]
        if starts.size == 0 or starts[0] > 0:
            starts, samples = np.append(0, starts), np.append(-1, samples)
    used = np.unique(samples[samples >= 0])
    if used.size < n_samples:  # unused samples must not enter ranges and signs
        array = array[used]
        samples = np.where(samples < 0, -1, np.searchsorted(used, samples))
    block = SlowColumns(
        array.reshape(array.shape[0], -1),
        starts.astype(np.int64),
        samples.astype(np.int64),
        n_bins,
        label,
        sample_shape=array.shape[1:],
    )
    return FeatureMatrix([block])


def _regular_starts(n_samples, n_bins, every):
    """First bins of samples that come at regular intervals."""
    if not is_number(every) or every < 1:
        raise ValueError(
            f"every is {every!r}; expected the bins from one sample to the next, >= 1."
        )
    expected = int(np.ceil(n_bins / every))
    if abs(n_samples - expected) > 1:
        raise ValueError(
            f"{n_samples} samples, one every {every} bins, do not cover {n_bins} bins, which take "
            f"{expected}. Pass every={n_bins / n_samples:.6g}, or `starts`?"
        )
    # The first bin at or after the start of sample k; a rounding error adds no bin.
    return np.ceil(np.arange(n_samples) * every - 1e-9 * every).astype(np.int64)
