"""Stability of a fitted network that runs on its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastglm._checks import as_numbers
from fastglm._fitted import Fitted
from fastglm.observation_models import LOG_ZERO
from fastglm.simulation import gain_eigenvalues

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_ROUNDING = 1e-12
_HIGHEST = 1000.0  # events per bin above which a mean field counts as running away


@dataclass
class Stability:
    """A fitted network that runs on its own, linearised around its mean rates.

    Attributes
    ----------
    rates : ndarray of shape (n_cells,)
        Mean counts per bin around which the network is linearised.
    gain : ndarray of shape (n_cells, n_cells)
        Number of events of a receiver (column) that one event of a sender (row) adds over all lags.
    radius : float
        Largest modulus of the gain's eigenvalues.
    leading : float
        Largest real part of the gain's eigenvalues.
    n_growing : int
        Number of modes of the linearised network that grow from bin to bin.
    """

    rates: np.ndarray
    gain: np.ndarray
    radius: float
    leading: float
    n_growing: int

    def __repr__(self) -> str:
        return (
            f"Stability of {self.rates.size:,} cells: radius {self.radius:.3g}, {self.n_growing} "
            "growing modes"
        )

    @property
    def stable(self) -> bool:
        """Whether every small deviation from the rates dies away."""
        return self.n_growing == 0


def spectral_radius(model: object, kernel: object, rates: ArrayLike | None = None) -> float:
    """Number of events that follow from one event in the network's strongest mode.

    The spectral radius is the largest modulus of the eigenvalues of the gain
    ``G_ij = sum_l h_ij(l) * s_j``. h_ij is the filter from sender i to receiver j. s_j is the slope
    of the link at the rate of j: the expected events per bin for the exponential link, 1 for the
    identity. If all filters excite, the network is stable exactly if the radius is below 1, as a
    Hawkes process is. With inhibition or refractoriness a radius above 1 can be harmless, because
    strong negative feedback that is spread over lags dies away. `stability` decides such cases.

    Parameters
    ----------
    model, kernel, rates
        As in `stability`.

    Returns
    -------
    float

    Raises
    ------
    ValueError, RuntimeError
        As `stability`.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> counts = np.random.default_rng(0).poisson(0.2, size=(2000, 4))
    >>> basis = fastglm.basis.RaisedCosineLogConv(4, window_size=20)
    >>> X = basis.compute_features(counts)
    >>> model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-2)
    >>> model = model.fit(X, counts)
    >>> fastglm.diagnostics.spectral_radius(model, basis.kernel_, counts.mean(axis=0)) < 1
    True
    """
    _, _, slopes, area, _ = _network(model, kernel, rates)
    return float(np.abs(gain_eigenvalues(area, slopes)).max())


def stability(model: object, kernel: object, rates: ArrayLike | None = None) -> Stability:
    """Whether a fitted network that runs on its own stays near its mean rates.

    h_ij is the filter from sender i to receiver j. s_j is the slope of the link at the rate r_j:
    r_j for the exponential link, ``r_j * (1 - r_j)`` for the logistic link, 1 for the identity. A
    small deviation x of the mean counts from the rates r obeys

        x_j(t) = sum_{i, l} s_j h_ij(l) x_i(t - l).

    The deviation dies away if ``f(w) = det(I - sum_l w^l h(l) diag(s))`` has no zero inside the
    unit circle. ``n_growing`` is the number of such zeros: the number of turns of f around 0 while
    w turns once around the circle. It is exact for filters of any sign. If all filters excite, the
    gain at w = 1 decides alone (see `spectral_radius`). An odd number of real eigenvalues of the
    gain above 1 always makes a mode grow.

    Parameters
    ----------
    model : PopulationGLM or GLM
        Fitted to features of the population's own counts: as many receivers as senders, in the
        same order, and no other features.
    kernel : ndarray of shape (window_size, n_basis_funcs), or basis
        ``basis.kernel_``, or the basis.
    rates : array of shape (n_cells,), optional
        Expected events per bin (not Hz). The mean counts of the recording are best. Default: rates
        that sustain themselves, ``r = g(intercept + sum_l h(l)' r)``, found from silence on. With
        strong filters there may be further solutions. This mean field ignores fluctuations, which
        raise the rates with an exponential link.

    Returns
    -------
    Stability

    Raises
    ------
    ValueError
        If the features are not those of the population on itself, or rates or kernel do not fit.
    RuntimeError
        If no rates are given and no rates sustain themselves: the mean field runs away.

    Notes
    -----
    Stability concerns small deviations. The exponential link amplifies more at higher rates, so a
    rare burst may still carry a stable network away. `fastglm.simulation.simulate_recurrent` shows
    whether that happens.

    Cost: ``n_cells**3`` operations for the gain, and about 8 times as many for each lag of the
    window for the modes.

    References
    ----------
    Hawkes, A. G. (1971). Spectra of some self-exciting and mutually exciting point processes.
    Biometrika 58.

    Gerhard, F., Deger, M. & Truccolo, W. (2017). On the stability and dynamics of stochastic
    spiking neuron models: nonlinear Hawkes process and point process GLMs. PLoS Computational
    Biology 13.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> counts = np.random.default_rng(0).poisson(0.2, size=(2000, 4))
    >>> basis = fastglm.basis.RaisedCosineLogConv(4, window_size=20)
    >>> X = basis.compute_features(counts)
    >>> model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-2)
    >>> stability = fastglm.diagnostics.stability(model.fit(X, counts), basis)
    >>> stability.gain.shape, stability.stable
    ((4, 4), True)
    """
    kernel, rates, slopes, area, coupling = _network(model, kernel, rates)
    values = gain_eigenvalues(area, slopes)
    n_growing = _n_growing(kernel, coupling * slopes)
    gain = area * slopes
    return Stability(rates, gain, float(np.abs(values).max()), float(values.real.max()), n_growing)


def _network(model, kernel, rates):
    """Kernel, rates, slopes of the link, summed filters, (sender, function, receiver) couplings."""
    fit = Fitted.of(model)
    coef, n = fit.coef, fit.n_receivers
    kernel = np.asarray(getattr(kernel, "kernel_", kernel), np.float64)
    if kernel.ndim != 2 or kernel.size == 0:
        raise ValueError(
            f"kernel has shape {kernel.shape}; expected (window_size, n_basis_funcs). Pass "
            "basis.kernel_, or the basis."
        )
    n_funcs = kernel.shape[1]
    if coef.shape[0] != n * n_funcs:
        raise ValueError(
            f"The model has {coef.shape[0]} features for {n} receivers and the kernel {n_funcs} "
            f"functions; expected {n} * {n_funcs}: the history of the same cells, and nothing "
            "else. Fit the population on itself with this basis."
        )
    lost = np.flatnonzero(~np.isfinite(coef).all(axis=0) | ~np.isfinite(fit.intercept))
    if lost.size:
        names = range(n) if fit.receivers is None else fit.receivers.names
        raise ValueError(
            f"Receivers {[names[j] for j in lost[:10]]} have no coefficients (see status_); "
            "expected a fit of every cell. Leave them out as senders and receivers."
        )
    coupling = coef.reshape(n, n_funcs, n)
    area = np.einsum("b,ibj->ij", kernel.sum(axis=0), coupling)
    if rates is None:
        rates = _sustained(area, fit.intercept, fit.loss)
    rates = as_numbers(rates, "rates").astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        eta = np.asarray(fit.loss.eta(rates), np.float64)
    if rates.shape != (n,) or not np.isfinite(rates).all() or np.isnan(eta).any():
        high = ", at most 1" if fit.loss.high is not None else ""
        wanted = f", not negative{high}, in events per bin" if fit.loss.low is not None else ""
        raise ValueError(
            f"rates has shape {rates.shape}; expected {n} finite numbers{wanted}. Pass "
            "counts.mean(axis=0)?"
        )
    if fit.loss.low is not None:
        eta = np.clip(eta, fit.loss.low, fit.loss.high)
    return kernel, rates, fit.loss.slope(eta), area, coupling


def _sustained(area, intercept, loss):
    """Rates with ``r = g(intercept + r @ area)``, along ``dr/dt = g(...) - r`` from silence.

    Steps are implicit Euler steps. They grow as the gap closes and end as Newton steps. With the
    identity link there is one solution.
    """
    if loss.constant_curvature:
        return np.linalg.solve(np.eye(intercept.size) - area.T, intercept)
    rates, first = np.zeros(intercept.size), None
    for _ in range(1000):
        eta = intercept + rates @ area
        gap = loss.mean(eta) - rates
        size = np.abs(gap).max()
        if not size <= _HIGHEST:
            break
        if size <= _ROUNDING * max(rates.max(), np.exp(LOG_ZERO)):
            return rates
        first = size if first is None else first
        system = (1 + size / first) * np.eye(rates.size) - area * loss.slope(eta)
        rates = np.maximum(rates + np.linalg.solve(system.T, gap), 0.0)
    raise RuntimeError(
        "No rates sustain themselves: the mean field of the network runs away, because its "
        "excitation feeds itself. Pass rates=counts.mean(axis=0), or fit with a ridge."
    )


def _n_growing(kernel, coupling):
    """Zeros of ``det(I - sum_l w^l h(l))`` inside the unit circle, by the argument principle."""
    window_size, n = kernel.shape[0], coupling.shape[2]
    lags = np.arange(1, window_size + 1)

    def sign(angle):
        weights = np.exp(1j * angle * lags) @ kernel
        return np.linalg.slogdet(np.eye(n) - np.einsum("b,ibj->ij", weights, coupling))[0]

    # The lower half of the circle mirrors the upper one. Steps are halved until none is wide.
    angles = np.linspace(0, np.pi, 8 * window_size + 1)
    signs = np.array([sign(a) for a in angles])
    for _ in range(40):
        steps = np.angle(signs[1:] * signs[:-1].conj())
        wide = np.flatnonzero(np.abs(steps) > np.pi / 4)
        if wide.size == 0:
            break
        middle = 0.5 * (angles[wide] + angles[wide + 1])
        angles = np.insert(angles, wide + 1, middle)
        signs = np.insert(signs, wide + 1, [sign(a) for a in middle])
    return int(np.rint(steps.sum() / np.pi))
