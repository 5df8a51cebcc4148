"""Same-bin synchrony: events that two cells have in one bin beyond what their pasts predict.

A filter begins one bin after the event of its sender, so it says nothing about the same bin. What
two cells do there has no direction: common input, an electrical synapse, a synapse faster than the
bin, or one event that a sorter gave to two cells. With the expected counts mu of the fit, the
variances v(mu) of its family (mu for Poisson, ``mu (1 - mu)`` for Bernoulli) and weights w

    S_ij = sum_t w_t (y_ti - mu_ti) (y_tj - mu_tj)        V_ij = sum_t w_t v(mu_ti) v(mu_tj)

S is the number of coincidences beyond the expected ones. If two cells are independent in a bin,
given what was before, then S has the mean 0 and the variance V, and ``z = S / sqrt(V)`` is nearly
standard normal. What the pasts predict is in mu and does not count.

Coincidences may be few. The third moment of ``y - mu`` of a Poisson number is mu, so S is as skewed
as a Poisson number of mean V. A positive z has the p-value of the root of the deviance of that
number, as in `fastglm.connectivity.scan`; a negative one has that of a normal number, which is too
large.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from fastglm._checks import import_extra
from fastglm._fitted import Fitted
from fastglm.connectivity.scan import deviance_root
from fastglm.inference import benjamini_hochberg

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(repr=False)
class Synchrony:
    """Same-bin synchrony of every pair of cells; arrays are symmetric, with NaN on the diagonal.

    Attributes
    ----------
    z : ndarray of shape (n_cells, n_cells)
        ``S / sqrt(V)``; NaN for cells without a usable fit.
    strength : ndarray of shape (n_cells, n_cells)
        Excess coincidences for each event of the rarer cell, ``S / min(n_i, n_j)``. NaN for
        Gaussian observations, which are not events.
    correlation : ndarray of shape (n_cells, n_cells)
        Of the residuals ``y - mu``, ``S_ij / sqrt(S_ii S_jj)``.
    p_value, q_value : ndarrays of shape (n_cells, n_cells)
        Two-sided, and Benjamini-Hochberg over unordered pairs.
    excess, variance : ndarrays of shape (n_cells, n_cells)
        S and V. For Poisson observations V is the number of coincidences that are expected.
    cells : ndarray
        Names, or numbers.
    """

    z: np.ndarray
    strength: np.ndarray
    correlation: np.ndarray
    p_value: np.ndarray
    q_value: np.ndarray
    excess: np.ndarray
    variance: np.ndarray
    cells: np.ndarray = field(repr=False)

    def __repr__(self) -> str:
        n = self.z.shape[0]
        found = int(np.triu(self.significant()).sum())
        return f"Synchrony of {n * (n - 1) // 2:,} pairs, {found:,} with q <= 0.05"

    def significant(self, q: float = 0.05) -> np.ndarray:
        """Whether the q-value of each pair is at most q, a boolean array."""
        with np.errstate(invalid="ignore"):
            return self.q_value <= q

    def to_frame(self) -> object:
        """One row for each unordered pair, a pandas DataFrame.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pandas = import_extra("pandas")
        upper = np.triu_indices(len(self.cells), 1)
        columns = {"cell": self.cells[upper[0]], "other": self.cells[upper[1]]}
        for name in ("z", "strength", "correlation", "p_value", "q_value", "excess"):
            columns[name] = getattr(self, name)[upper]
        return pandas.DataFrame(columns)


def synchrony(
    model: object,
    X: object,
    y: object,
    *,
    sample_weight: ArrayLike | None = None,
    offset: ArrayLike | None = None,
) -> Synchrony:
    """Same-bin synchrony of all pairs of receivers of a fitted model; see the head of the module.

    Bins where the count of either cell is not known are left out of a pair.

    Parameters
    ----------
    model : PopulationGLM
        Fitted.
    X, y, sample_weight, offset
        As in `fit`.

    Returns
    -------
    Synchrony

    Raises
    ------
    ValueError
        If there is one receiver only, X or y does not fit the model, or weights or offsets of the
        fit are missing.

    Notes
    -----
    One pass over the bins, ``2 n_bins n_cells**2`` multiply-adds. Memory: ``8 n_cells (7 n_cells
    + 4 n)`` bytes, n being the bins of a chunk, beside what a pass takes.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> from fastglm.connectivity import synchrony
    >>> rng = np.random.default_rng(0)
    >>> counts = rng.binomial(1, 0.02, size=(20_000, 4))
    >>> counts[:, :2] |= rng.binomial(1, 0.005, size=(20_000, 1))  # input that 0 and 1 share
    >>> X = fastglm.basis.RaisedCosineLogConv(4, window_size=20).compute_features(counts)
    >>> found = synchrony(fastglm.PopulationGLM().fit(X, counts), X, counts)
    >>> found, bool(found.significant()[0, 1])
    (Synchrony of 6 pairs, 1 with q <= 0.05, True)
    """
    fit = Fitted.of(model, X, y, sample_weight=sample_weight, offset=offset)
    n = fit.n_receivers
    if n < 2:
        raise ValueError(
            "The model has one receiver, and synchrony is of pairs; fit a PopulationGLM to several."
        )
    excess, variance = _sums(fit)
    own = np.diag(excess)
    events = fit.mean_count * fit.total if fit.family.event_based else np.full(n, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(variance > 0, excess / np.sqrt(variance), np.nan)
        strength = np.where(np.isnan(z), np.nan, excess / np.minimum.outer(events, events))
        correlation = np.where(np.isnan(z), np.nan, excess / np.sqrt(np.outer(own, own)))
    left_out = np.eye(n, dtype=bool) | np.isnan(z)
    for values in (z, strength, correlation):
        values[left_out] = np.nan
    p = _p_value(z, variance, fit.family.event_based)
    q, upper = np.full((n, n), np.nan), np.triu_indices(n, 1)
    q[upper] = q.T[upper] = benjamini_hochberg(p[upper])
    cells = np.arange(n) if fit.receivers is None else np.asarray(fit.receivers.names)
    return Synchrony(z, strength, correlation, p, q, excess, variance, cells)


def _sums(fit):
    """S and V, (n_receivers, n_receivers); NaN for receivers without a usable fit."""
    n = fit.n_receivers
    excess, variance = np.zeros((2, n, n))
    for index, mu in fit.rates():
        counts = fit.y.rows(index)
        known = ~np.isnan(counts) & fit.usable
        with np.errstate(over="ignore", invalid="ignore"):
            residual = np.where(known, counts - mu, 0.0)
            spread = np.where(known, fit.family.variance(mu, fit.scale), 0.0)
        if fit.weight is not None:
            root = np.sqrt(fit.weight[index, None])
            residual, spread = root * residual, root * spread
        excess += residual.T @ residual
        variance += spread.T @ spread
    variance[~fit.usable] = variance[:, ~fit.usable] = np.nan
    return excess, variance


def _p_value(z, variance, events):
    """Two-sided; see the head of the module."""
    if events:
        with np.errstate(invalid="ignore"):
            z = np.where(z > 0, deviance_root(z, variance), z)
    return np.minimum(2 * special.ndtr(-np.abs(z)), 1.0)
