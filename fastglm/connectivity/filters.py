"""The filters of pairs as the null sees them: without the prior of the ridge.

A posterior filter of a poorly determined pair is narrower than its covariance. With the prior
precision D of a filter and ``V^-1 = L + D``, the filter that the data alone would give has the
coefficients ``L^-1 V^-1 c`` and the covariance ``L^-1``.

Memory: the coefficients are held, ``8 k`` bytes a pair for k functions, and 25 bytes of numbers.
Covariances (``8 k^2``) are made where they are read, some thousand at a time, from those of the
fit: a second copy would be most of the memory of a map.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fastglm._fitted import Fitted
from fastglm._kernels.threads import run_threads
from fastglm.basis.cosines import RaisedCosineLogConv
from fastglm.connectivity.shadows import hidden_directions
from fastglm.inference import Uncertainty

_KEPT = 0.02  # part of the information that the ridge leaves at least
_MAX_FUNCS, _FEW = 8, 6  # coefficients of a filter in the bulk, and what more become
_UNKNOWN = 1e4  # variance of a coefficient that the data do not determine, in median variances
_FLAT = 1e-9  # least eigenvalue of a covariance, in parts of the largest
_CHUNK = 4096  # filters at a time


@dataclass
class Filters:
    """Filters of pairs, one row each, as the bulk sees them.

    Attributes
    ----------
    pairs : ndarray of shape (n_filters, 2)
        Numbers of sender and receiver.
    coef : ndarray of shape (n_filters, k)
    covariance : array of shape (n_filters, k, k)
        An ndarray, or `Unshrunk`, which makes the rows that are read.
    kernel : ndarray of shape (window_size, k)
        Values of the basis functions at lags 1 to window_size.
    reverse : ndarray of shape (n_filters,)
        Row of the pair's other direction; -1 where there is none.
    bin_size : float
        Seconds.
    shadowed : ndarray of bool, shape (n_filters,)
        Pairs of one channel, which tell the bulk nothing. Default: none.
    variance : ndarray of shape (k,)
        The median variance of each coefficient. Default: that of ``covariance``.
    """

    pairs: np.ndarray
    coef: np.ndarray
    covariance: np.ndarray | Unshrunk
    kernel: np.ndarray
    reverse: np.ndarray
    bin_size: float
    shadowed: np.ndarray | None = None
    variance: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.shadowed is None:
            self.shadowed = np.zeros(len(self.pairs), dtype=bool)
        if self.variance is None:
            self.variance = _medians(np.diagonal(self.covariance, axis1=1, axis2=2))

    @property
    def lit(self) -> np.ndarray:
        """Numbers of the pairs that are not of one channel."""
        return np.flatnonzero(~self.shadowed)

    @property
    def hidden(self) -> np.ndarray:
        """Coefficients along which the first 2 ms move a filter; see `shadows`."""
        return hidden_directions(self.kernel, self.bin_size)


def in_parts(n: int) -> Iterator[slice]:
    """Some thousand of n filters at a time."""
    for start in range(0, n, _CHUNK):
        yield slice(start, min(start + _CHUNK, n))


def evenly(numbers: np.ndarray, most: int) -> np.ndarray:
    """At most so many of some numbers, at equal distances."""
    at = np.linspace(0, numbers.size - 1, min(numbers.size, most)).astype(np.int64)
    return numbers[np.unique(at)]


def read_filters(
    fit: Fitted,
    uncertainty: Uncertainty,
    kernel: np.ndarray,
    first: int,
    left_out: np.ndarray,
    bin_size: float,
    same_channel: np.ndarray | None = None,
) -> Filters:
    """Filters of all pairs with a covariance, without the prior of the ridge.

    Parameters
    ----------
    fit : Fitted
    uncertainty : Uncertainty
    kernel : ndarray of shape (window_size, k)
    first : int
        Number of the first filter of the history.
    left_out : ndarray of bool, shape (n_senders, n_receivers)
        Own histories.
    bin_size : float
        Seconds.
    same_channel : ndarray of bool, shape (n_senders, n_receivers), optional

    Returns
    -------
    Filters
        More than eight coefficients become those of six raised cosines that come closest. A
        coefficient that the data do not determine has a variance of 1e4 median variances. Pairs of
        which a coefficient is outside the fit are left out.
    """
    n_senders, k = len(left_out), kernel.shape[1]
    inside = (uncertainty.filters >= first) & (uncertainty.filters < first + n_senders)
    columns = np.flatnonzero(inside).reshape(-1, k)
    covariance = uncertainty.covariance[first : first + n_senders]
    known = ~left_out
    for i, own in enumerate(covariance):
        known[i] &= np.isfinite(uncertainty.coef[columns[i]]).all(axis=0)
        known[i] &= ~np.isnan(own).any(axis=(1, 2))
    pairs, onto = np.argwhere(known), None
    if k > _MAX_FUNCS:
        few = RaisedCosineLogConv(min(_FEW, len(kernel)), len(kernel)).kernel_
        onto, kernel = np.linalg.lstsq(few, kernel, rcond=None)[0], few
    rows = Unshrunk(fit, uncertainty.coef, covariance, columns, pairs, onto)
    coef, variance = rows.read()
    row = np.full((max(known.shape),) * 2, -1)
    row[tuple(pairs.T)] = np.arange(len(pairs))
    square = known.shape[0] == known.shape[1] and np.diag(left_out).all()
    reverse = row[pairs[:, 1], pairs[:, 0]] if square else np.full(len(pairs), -1)
    shadowed = None if same_channel is None else same_channel[known]
    return Filters(pairs, coef, rows, kernel, reverse, bin_size, shadowed, variance)


class Unshrunk:
    """Covariances of filters without the ridge's prior, as an array that makes the rows it gives.

    Parameters
    ----------
    fit : Fitted
    coef : ndarray of shape (n_features, n_receivers)
    covariance : list of ndarrays of shape (n_receivers, k, k)
        For each sender, with the prior.
    columns : ndarray of shape (n_senders, k)
        Features of each sender.
    pairs : ndarray of shape (n_filters, 2)
    onto : ndarray of shape (n, k) or None
        From coefficients to those of fewer functions.
    """

    def __init__(self, fit, coef, covariance, columns, pairs, onto):
        self.fit, self.coef, self.posterior = fit, coef, covariance
        self.columns, self.pairs, self.onto = columns, pairs, onto
        penalty = fit.penalty
        self.ridge = np.broadcast_to(penalty.ridge, fit.coef.shape)
        self.blocks = None
        if penalty.matrix is not None:
            self.blocks = np.stack([penalty.matrix[some][:, some].toarray() for some in columns])
        self.n_funcs = columns.shape[1] if onto is None else len(onto)
        self.typical = self._typical()

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, rows):
        pairs = self.pairs[rows]
        if len(pairs) <= _CHUNK:
            return self.filters(rows)[1]
        rows = np.arange(len(self.pairs))[rows]
        out = np.empty((rows.size, self.n_funcs, self.n_funcs))

        def read(part):
            out[part] = self.filters(rows[part])[1]

        run_threads(read, list(in_parts(rows.size)))
        return out

    def filters(self, rows: slice | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients and covariances of some rows."""
        sender, receiver = self.pairs[rows].T
        k = self.columns.shape[1]
        covariance = np.empty((sender.size, k, k))
        # The rows of one sender at a time; they stand together.
        edges = np.flatnonzero(np.diff(sender, prepend=-1, append=-1))
        for begin, end in pairwise(edges):
            covariance[begin:end] = self.posterior[sender[begin]][receiver[begin:end]]
        if self.typical is not None:
            replace_infinite(covariance, self.typical)
        coef = self.coef[self.columns[sender], receiver[:, None]]
        coef, covariance = unshrunk(coef, covariance, self._prior(sender, receiver))
        if self.onto is not None:
            coef, covariance = coef @ self.onto.T, self.onto @ covariance @ self.onto.T
        return coef, covariance

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients of all rows, (n_filters, k), and the median of each variance, (k,)."""
        n = len(self.pairs)
        coef, variance = np.empty((n, self.n_funcs)), np.empty((n, self.n_funcs))

        def read(part):
            coef[part], covariance = self.filters(part)
            variance[part] = np.diagonal(covariance, axis1=1, axis2=2)

        run_threads(read, list(in_parts(n)))
        return coef, _medians(variance)

    def _prior(self, sender, receiver):
        """Precision of the prior of some filters, (n, k, k)."""
        fit, k = self.fit, self.columns.shape[1]
        prior = np.zeros((sender.size, k, k))
        prior[:, range(k), range(k)] = self.ridge[self.columns[sender], receiver[:, None]]
        if self.blocks is not None:
            prior += fit.penalty.strength[receiver][:, None, None] * self.blocks[sender]
        return prior * (fit.total * fit.precision)[receiver][:, None, None]

    def _typical(self):
        """The median of the finite variances of each coefficient; None where all are finite."""
        edges = np.searchsorted(self.pairs[:, 0], np.arange(len(self.columns) + 1))
        cuts = [self.pairs[begin:end, 1] for begin, end in pairwise(edges)]
        each = list(zip(self.posterior, cuts, strict=True))
        if all(np.isfinite(own[some]).all() for own, some in each):
            return None
        number = range(self.columns.shape[1])
        return np.array(
            [_typical(np.concatenate([v[some, a, a] for v, some in each])) for a in number]
        )


def _typical(variance):
    """The median of those that are finite, or 1."""
    finite = variance[np.isfinite(variance)]
    return np.median(finite) if finite.size else 1.0


def _medians(values):
    """The median of each column, one at a time: a median copies what it sorts."""
    if not len(values):
        return np.ones(values.shape[1])
    return np.array([np.median(column) for column in values.T])


def replace_infinite(covariance: np.ndarray, typical: np.ndarray) -> None:
    """Coefficients that the data do not determine become far and independent, in place.

    Parameters
    ----------
    covariance : ndarray of shape (n_filters, k, k)
    typical : ndarray of shape (k,)
        Variances; theirs are 1e4 times as large.
    """
    open_ = ~np.isfinite(np.diagonal(covariance, axis1=1, axis2=2))
    covariance[open_[:, :, None] | open_[:, None, :]] = 0.0
    row, at = np.nonzero(open_)
    covariance[row, at, at] = _UNKNOWN * typical[at]


def unshrunk(coef: np.ndarray, covariance: np.ndarray, prior: np.ndarray) -> tuple:
    """Filters and covariances without the ridge's prior.

    Parameters
    ----------
    coef : ndarray of shape (n_filters, k)
    covariance : ndarray of shape (n_filters, k, k)
    prior : ndarray of shape (n_filters, k, k)
        Precision of the prior, D.

    Returns
    -------
    coef, covariance : ndarrays
        ``L^-1 V^-1 c`` and ``L^-1``, where the eigenvalues of ``L = V^-1 - D`` relative to V^-1 are
        at least 0.02: what the data say by less than a fiftieth stays shrunk.
    """
    values, vectors = np.linalg.eigh(covariance)
    values = np.maximum(values, np.maximum(_FLAT * values[:, -1:], np.finfo(float).tiny))
    root = vectors * np.sqrt(values)[:, None, :]
    relative = np.swapaxes(root, 1, 2) @ prior @ root
    values, vectors = np.linalg.eigh(relative)
    kept = np.clip(1 - values, _KEPT, 1)
    forward = root @ vectors  # V = forward forward', L^-1 = forward / kept forward'
    white = np.linalg.solve(forward, coef[:, :, None])[:, :, 0]
    coef = (forward @ (white / kept)[:, :, None])[:, :, 0]
    return coef, (forward / kept[:, None, :]) @ np.swapaxes(forward, 1, 2)
