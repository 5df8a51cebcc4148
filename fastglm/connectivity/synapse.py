"""What the filter of a synapse looks like, and that of slow input.

A synapse acts at one delay d, rises fast and decays within milliseconds:

    s_d(lag) = exp(-(lag - d) / tau) for lag >= d, else 0,    d = 0, 1, ... 19 ms

Cells that fire one after the other, because others drive them, have filters that rise as slowly as
they decay:

    b_m(lag) = exp(-(lag - m)^2 / (2 * 15^2 ms^2)),    m = 0, 10, 20 ... ms up to the window
"""

from __future__ import annotations

import numpy as np
import scipy.linalg

_LATEST, _STEP = 0.019, 0.001  # seconds
_SLOW, _MIDDLES = 0.015, 0.01  # seconds: width of slow filters, and distance of their middles
_LIKE = 1 / 3  # norm of what a basis makes of a shape, in parts of the norm of the shape


def shapes(
    kernel: np.ndarray, bin_size: float, decay: float, step: float = _STEP
) -> tuple[np.ndarray, np.ndarray]:
    """Delays in seconds, and the coefficients of the shape of each, (n_delays, k).

    A bin of the filter holds the mean of the shape over the lags that it stands for. Left out are
    delays of which the basis makes less than a third, such as the end of a window.

    Parameters
    ----------
    kernel : ndarray of shape (window_size, k)
        Values of the basis functions at lags 1 to window_size.
    bin_size, decay, step : float
        Seconds; tau, and the distance of the delays, at least one bin.
    """
    latest = min(_LATEST, (kernel.shape[0] - 1) * bin_size)
    delays = np.arange(0, latest + 1e-9, max(step, bin_size))
    edges = bin_size * np.arange(kernel.shape[0] + 1)
    since = np.maximum(edges[None, :] - delays[:, None], 0)
    mean = -np.diff(np.exp(-since / decay), axis=1) * decay / bin_size
    coef = scipy.linalg.lstsq(kernel, mean.T)[0].T
    likeness = np.linalg.norm(coef @ kernel.T, axis=1) / np.linalg.norm(mean, axis=1)
    kept = likeness >= min(_LIKE, likeness.max())
    return delays[kept], coef[kept]


def slow_shapes(kernel: np.ndarray, bin_size: float) -> np.ndarray:
    """Coefficients of the filters b_m of slow input, (n_middles, k)."""
    lags = bin_size * (np.arange(kernel.shape[0]) + 0.5)
    middles = np.arange(0, lags[-1], max(_MIDDLES, bin_size))
    filters = np.exp(-0.5 * ((lags - middles[:, None]) / _SLOW) ** 2)
    return scipy.linalg.lstsq(kernel, filters.T)[0].T
