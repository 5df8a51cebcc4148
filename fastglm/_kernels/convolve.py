"""Causal convolution of dense traces by BLAS; not compiled.

The rows of `n` bins are one product. With a stretch of samples that begins ``window_size`` bins
before the first of them, ``out[s, i * B + b] = sum_r samples[r, i] * bands[r, s * B + b]``, where
the columns of ``bands`` for bin s hold the kernel, reversed and moved s rows down.
"""

import numpy as np

_WIDE = 1024  # numbers of the kernels side by side: BLAS is then at its full speed
_MOST_BINS = 64  # of one product; each adds a row of zeros to the kernels


def convolution_bands(kernel, n_senders, dtype):
    """The matrix of a convolution, shape (window_size + n - 1, n * n_funcs), for n bins at a time.

    A bin costs ``window_size + n - 1`` multiply-adds for each column. n is as small as the size of
    the products allows: 8 for 128 senders.
    """
    window_size, n_funcs = kernel.shape
    n = min(_MOST_BINS, max(_WIDE // n_senders, 8), max(_WIDE // n_funcs, 1))
    bands = np.zeros((window_size + n - 1, n * n_funcs), dtype)
    row, item = bands.strides
    strides = row + n_funcs * item, row, item  # from the band of one bin to that of the next
    np.ndarray((n, window_size, n_funcs), dtype, bands, strides=strides)[:] = kernel[::-1]
    return bands


def convolve(samples, bands, window_size, out):
    """Write the rows of consecutive bins into ``out``, shape (n_rows, n_senders * n_funcs).

    ``samples``, of shape (n_rows + window_size - 1, n_senders), begin with the last lag of the
    first row. They are finite: a band multiplies the others by zero.
    """
    n_rows, n_senders = out.shape[0], samples.shape[1]
    span = bands.shape[0]
    n = span - window_size + 1
    n_funcs, whole = bands.shape[1] // n, n_rows // n
    if whole:
        samples = np.ascontiguousarray(samples)
        row, item = samples.strides
        shape, strides = (whole, n_senders, span), (n * row, item, row)
        stretches = np.ndarray(shape, samples.dtype, samples, strides=strides)
        found = np.matmul(stretches, bands).reshape(whole, n_senders, n, n_funcs)
        out[: whole * n].reshape(whole, n, n_senders, n_funcs)[:] = found.transpose(0, 2, 1, 3)
    left = n_rows - whole * n
    if left:
        rest = samples[whole * n :].T @ bands[: window_size + left - 1, : left * n_funcs]
        rest = rest.reshape(n_senders, left, n_funcs)
        out[whole * n :].reshape(left, n_senders, n_funcs)[:] = rest.transpose(1, 0, 2)


def convolve_apart(windows, bands, out):
    """The same for rows that are apart, from windows of shape (n_rows, window_size, n_senders)."""
    window_size = windows.shape[1]
    n_funcs = bands.shape[1] // (bands.shape[0] - window_size + 1)
    found = windows.transpose(0, 2, 1) @ bands[:window_size, :n_funcs]
    out[:] = found.reshape(out.shape)
