"""Convolution of any series with given kernels, as an array."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastglm._checks import as_dense_numbers
from fastglm._pynapple import read_values
from fastglm.basis.leaf import Conv


class _Given(Conv):
    """A basis whose kernel is an array."""

    def __init__(self, kernel, conv_kwargs):
        self.kernel = kernel
        self.window_size, self.n_basis_funcs = kernel.shape
        self.label = "kernel"
        self.conv_kwargs = conv_kwargs

    def _functions(self, u):
        return self.kernel


def create_convolutional_predictor(
    basis_matrix: np.ndarray,
    time_series: object,
    predictor_causality: str = "causal",
    shift: bool | None = None,
    axis: int = 0,
    batch_size_samples: int | None = None,
    batch_size_channels: int | None = None,
    batch_size_basis: int | None = None,
) -> object:
    """Series convolved with the columns of a matrix, stored as arrays.

    ``out[t, ..., b] = sum_l basis_matrix[l, b] * series[t - 1 - l, ...]`` for a causal predictor,
    with NaN where the window is not whole. ``compute_features`` of a basis does the same without
    storing it: use that for a fit.

    Parameters
    ----------
    basis_matrix : array of shape (window_size, n_basis_funcs)
        Row 0 weighs lag 1.
    time_series : array, Tsd, TsdFrame or TsdTensor, or a dict or list of them
        No window crosses from one interval of a time support to the next.
    predictor_causality : {"causal", "anti-causal", "acausal"}
        Whether the window lies before a bin, behind it or around it.
    shift : bool, optional
        Whether a causal or anti-causal predictor leaves out its own bin. Default: it does.
    axis : int, default 0
        Axis of the bins, of an array without times.
    batch_size_samples, batch_size_channels, batch_size_basis : int, optional
        Accepted as in NeMoS, without effect: memory is bounded anyway.

    Returns
    -------
    array of shape (n_bins, ..., n_basis_funcs), or TsdFrame or TsdTensor; a dict or list of them
        The axis of the bins stays where it was.

    Raises
    ------
    ValueError
        If ``basis_matrix`` does not have two dimensions, a series is shorter than the window, or
        the causality is not known.

    Examples
    --------
    >>> import numpy as np
    >>> from fastglm.convolve import create_convolutional_predictor
    >>> create_convolutional_predictor(np.array([[1.0], [0.5]]), np.array([1.0, 0, 0, 2, 0]))[:, 0]
    array([nan, nan, 0.5, 0. , 2. ])
    """
    kernel = as_dense_numbers(basis_matrix, "basis_matrix").astype(np.float64)
    if kernel.ndim != 2 or 0 in kernel.shape:
        raise ValueError(
            f"basis_matrix has shape {kernel.shape}; expected (window_size, n_basis_funcs)."
        )
    kwargs = {"predictor_causality": predictor_causality}
    if shift is not None:
        kwargs["shift"] = shift
    return _convolve(_Given(kernel, kwargs), time_series, axis)


def _convolve(basis, series, axis):
    if isinstance(series, Mapping):
        return {key: _convolve(basis, part, axis) for key, part in series.items()}
    if isinstance(series, list | tuple) and all(hasattr(part, "shape") for part in series):
        return [_convolve(basis, part, axis) for part in series]
    values, timeline = read_values(series, "time_series")
    values = as_dense_numbers(values, "time_series")
    if values.ndim == 0 or not -values.ndim <= axis < values.ndim:
        raise ValueError(f"time_series has shape {values.shape}, which has no axis {axis}.")
    values = np.moveaxis(values, axis, 0)
    if values.shape[0] < basis.window_size:
        raise ValueError(
            f"time_series has {values.shape[0]} bins along axis {axis}; expected at least the "
            f"window of {basis.window_size}. Pass another axis?"
        )
    X = basis.compute_features(values if timeline is None else timeline.wrap(values))
    out = np.asarray(X).reshape(*values.shape, -1)
    return np.moveaxis(out, 0, axis % values.ndim) if timeline is None else timeline.wrap(out)


__all__ = ["create_convolutional_predictor"]
