"""Spikes from a network: the model runs forward, and each bin is drawn given its past.

    eta[t, j] = intercept[j] + drive[t, j] + sum_{i, l} filters[i, l, j] * counts[t - 1 - l, i]

Lags are those of the features: bin t never depends on its own counts.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse
from scipy.special import gammaincinv, gammaln, xlogy

from fastglm import _kernels as kernels
from fastglm._checks import DEFAULT_KEY, as_numbers, positive_int, read_key
from fastglm._progress import Progress
from fastglm.observation_models import (
    ObservationModel,
    PoissonExp,
    as_observation_model,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_CHUNK = 8192  # bins of one call of a compiled kernel; interrupts are seen between calls
_MOST_EVENTS = 1000.0  # per bin, above which a network counts as running away


@dataclass
class Network:
    """A network with known connectivity, as `random_network` makes it.

    Attributes
    ----------
    coupling_coef : ndarray of shape (n_receivers, n_senders, n_basis_funcs)
    intercepts : ndarray of shape (n_cells,)
    kernel : ndarray of shape (window_size, n_basis_funcs)
    adjacency : ndarray of shape (n_senders, n_receivers)
        Sign of every connection: 1, -1 or 0; the diagonal is 0.
    """

    coupling_coef: np.ndarray
    intercepts: np.ndarray
    kernel: np.ndarray
    adjacency: np.ndarray

    def __repr__(self) -> str:
        n_excite, n_inhibit = ((self.adjacency * sign > 0).sum() for sign in (1, -1))
        return (
            f"Network of {self.intercepts.size:,} cells: {n_excite:,} exciting and "
            f"{n_inhibit:,} inhibiting connections over {self.kernel.shape[0]:,} bins"
        )

    @property
    def filters(self) -> np.ndarray:
        """Coupling filters of shape (n_senders, window_size, n_receivers)."""
        return np.einsum("lb,jib->ilj", self.kernel, self.coupling_coef)

    @property
    def coef(self) -> np.ndarray:
        """The couplings in the layout of a fitted model: (n_features, n_receivers)."""
        n_receivers, n_senders, n_funcs = self.coupling_coef.shape
        return self.coupling_coef.transpose(1, 2, 0).reshape(n_senders * n_funcs, n_receivers)

    def simulate(
        self,
        n_bins: int,
        random_key: object = None,
        progress: bool | Callable[[int], object] | None = None,
        sparse: bool = False,
        *,
        random_state: object = None,
    ) -> np.ndarray | scipy.sparse.csr_array:
        """Counts of shape (n_bins, n_cells), int32, with the exponential link.

        The simulation stops with an error if a rate exceeds 50 events per bin. Memory: four bytes
        for each bin and cell. With ``sparse`` the counts are a SciPy sparse array: eight bytes for
        each event and four for each bin. ``progress`` may be called with the number of bins of
        each chunk; else as in `PopulationGLM.fit`. ``random_state`` is the name of scikit-learn
        for ``random_key``.
        """
        n_cells = self.intercepts.size
        counts = [] if sparse else np.zeros((n_bins, n_cells), np.int32)
        network = self.kernel, self.coupling_coef, self.intercepts
        rng, show = read_key(random_key, random_state), False if callable(progress) else progress
        chunks = _simulate(network, n_bins, rng, PoissonExp(), 50.0, show=show)
        for start, chunk, _ in chunks:
            if sparse:
                counts.append(scipy.sparse.csr_array(chunk.astype(np.int32)))
            else:
                counts[start : start + chunk.shape[0]] = chunk
            if callable(progress):
                progress(chunk.shape[0])
        return scipy.sparse.vstack(counts, format="csr") if sparse else counts


def random_network(
    n_cells: int,
    basis: object,
    mean_rate_hz: float = 8.5,
    bin_size: float = 0.001,
    connection_probability: float = 0.1,
    strength: float = 0.3,
    random_key: object = DEFAULT_KEY,
    *,
    random_state: object = None,
) -> Network:
    """A sparse network with lognormal rates and refractory cells, for examples and tests.

    Each cell connects to a random tenth of the other cells. One cell in five inhibits; all others
    excite. Each cell suppresses itself at short lags. All couplings are scaled down if the spectral
    radius of the network, linearised at its baseline, would exceed one half. With a large
    ``strength`` the nonlinear network can still run away.

    Parameters
    ----------
    n_cells : int
    basis : basis with ``kernel_``
    mean_rate_hz : float, default 8.5
        Mean of the lognormal baseline rates (sigma 0.7), before coupling.
    bin_size : float, default 0.001
        Seconds.
    connection_probability : float, default 0.1
    strength : float, default 0.3
        Scale of the coupling coefficients, in units of log rate (the link is exponential).
    random_key : int or numpy Generator, default 0
    random_state : int, numpy RandomState or Generator, optional
        The name of scikit-learn for ``random_key``; one of them.

    Returns
    -------
    Network
    """
    rng = read_key(random_key, random_state)
    kernel = basis.kernel_
    n_funcs = kernel.shape[1]
    linked = rng.random((n_cells, n_cells)) < connection_probability
    np.fill_diagonal(linked, False)
    sign = np.where(rng.random(n_cells) < 0.2, -1, 1)  # Dale's law: a sign per sender
    adjacency = (linked * sign[:, None]).astype(np.int8)
    size = rng.gamma(4.0, 0.25, (n_cells, n_cells)) * strength
    shape = np.exp(-0.5 * ((np.arange(n_funcs) - 0.3 * n_funcs) / 1.2) ** 2)
    coef = (adjacency * size).T[:, :, None] * shape  # (receiver, sender, function)
    # Balance: the mean input of a receiver is subtracted from its intercept.
    rates = rng.lognormal(-0.5 * 0.7**2, 0.7, n_cells) * mean_rate_hz * bin_size
    area = np.einsum("b,jib->ij", kernel.sum(axis=0), coef)
    # The gain of the linearised network is area * rate; it runs away at a spectral radius of 1.
    radius = np.abs(gain_eigenvalues(area, rates)).max(initial=0)
    scale = min(1.0, 0.5 / max(radius, 1e-9))
    coef, area = coef * scale, area * scale
    coef[np.arange(n_cells), np.arange(n_cells)] = np.where(
        np.arange(n_funcs) < max(1, n_funcs // 4), -3.0, -0.3
    ) * np.exp(-np.arange(n_funcs) / n_funcs)
    return Network(coef, np.log(rates) - rates @ area, kernel, adjacency)


def difference_of_gammas(
    ws: int,
    upper_percentile: float = 0.99,
    inhib_a: float = 1.0,
    excit_a: float = 2.0,
    inhib_b: float = 1.0,
    excit_b: float = 2.0,
) -> np.ndarray:
    """A coupling filter with an exciting and an inhibiting lobe, of norm 1.

    ``p(x; excit_a, excit_b) - p(x; inhib_a, inhib_b)`` with the density of the Gamma distribution
    ``p(x; a, b) = b^a x^(a-1) exp(-b x) / Gamma(a)``.

    Parameters
    ----------
    ws : int
        Length of the filter in bins, from 0 on. They go from 0 to the larger of the two quantiles.
    upper_percentile : float in [0, 1)
        Quantile at the last bin.
    inhib_a, excit_a : float above 0
        Shapes a.
    inhib_b, excit_b : float above 0
        Rates b.

    Returns
    -------
    ndarray of shape (ws,)

    Raises
    ------
    ValueError
        If a shape or rate is not above 0, or the quantile is not in [0, 1).

    Examples
    --------
    >>> import numpy as np
    >>> from fastglm.simulation import difference_of_gammas
    >>> filter_ = difference_of_gammas(100)
    >>> filter_.shape, bool(abs(np.linalg.norm(filter_) - 1) < 1e-12)
    ((100,), True)
    """
    given = {"inhib_a": inhib_a, "excit_a": excit_a, "inhib_b": inhib_b, "excit_b": excit_b}
    for name, value in given.items():
        if not value > 0:
            raise ValueError(f"{name} is {value!r}; expected a number above 0.")
    if not 0 <= upper_percentile < 1:
        raise ValueError(f"upper_percentile is {upper_percentile!r}; expected 0 <= it < 1.")
    lobes = (excit_a, excit_b), (inhib_a, inhib_b)
    last = max(gammaincinv(a, upper_percentile) / b for a, b in lobes)
    x = np.linspace(0, last, 0 if ws == 0 else positive_int("ws", ws))
    excite, inhibit = (b * np.exp(xlogy(a - 1, b * x) - b * x - gammaln(a)) for a, b in lobes)
    return (excite - inhibit) / np.linalg.norm(excite - inhibit)


def regress_filter(coupling_filters: ArrayLike, eval_basis: ArrayLike) -> np.ndarray:
    """Coefficients of filters in a basis, by least squares.

    Parameters
    ----------
    coupling_filters : array of shape (window_size, n_receivers, n_senders)
    eval_basis : array of shape (window_size, n_basis_funcs)
        ``basis.kernel_``, or the values of ``evaluate_on_grid``.

    Returns
    -------
    ndarray of shape (n_receivers, n_senders, n_basis_funcs)
        As `simulate_recurrent` takes them. Of several solutions the one of least norm.

    Raises
    ------
    ValueError
        If the numbers of dimensions or the windows differ from these.

    Examples
    --------
    >>> import fastglm
    >>> from fastglm.simulation import difference_of_gammas, regress_filter
    >>> kernel = fastglm.basis.RaisedCosineLogConv(10, 100).kernel_
    >>> regress_filter(difference_of_gammas(100)[:, None, None], kernel).shape
    (1, 1, 10)
    """
    filters = as_numbers(coupling_filters, "coupling_filters").astype(np.float64)
    kernel = as_numbers(eval_basis, "eval_basis").astype(np.float64)
    if filters.ndim != 3 or kernel.ndim != 2 or len(filters) != len(kernel):
        raise ValueError(
            f"coupling_filters has shape {filters.shape} and eval_basis {kernel.shape}; expected "
            "(window_size, n_receivers, n_senders) and (window_size, n_basis_funcs)."
        )
    weights = np.linalg.lstsq(kernel, filters.reshape(len(filters), -1), rcond=None)[0]
    return np.moveaxis(weights.reshape(-1, *filters.shape[1:]), 0, -1)


def gain_eigenvalues(area: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Eigenvalues of the gain ``area[i, j] * slopes[j]`` of a linearised network.

    Parameters
    ----------
    area : ndarray of shape (n_senders, n_receivers)
        Sum of every filter over its lags.
    slopes : ndarray of shape (n_receivers,)
        Slope of the mean with respect to eta at the point of linearisation. For the exponential
        link it is the expected events per bin.

    Returns
    -------
    ndarray of complex, shape (n_cells,)
        The largest modulus is the spectral radius: the number of events that follow from one event
        in the strongest mode. A real part of at least 1 means excitation that sustains itself; a
        negative real part means feedback that damps.
    """
    return np.linalg.eigvals(area * slopes)


def simulate_recurrent(
    coupling_coef: ArrayLike,
    feedforward_coef: ArrayLike | None = None,
    intercepts: ArrayLike | None = None,
    random_key: object = None,
    feedforward_input: ArrayLike | None = None,
    coupling_basis_matrix: ArrayLike | None = None,
    init_y: ArrayLike | None = None,
    inverse_link_function: str | Callable | None = None,
    *,
    observation_model: str | ObservationModel = "Poisson",
    scale: ArrayLike | None = None,
    n_bins: int | None = None,
    max_rate: float | None = None,
    random_state: object = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Simulate a population with recurrent coupling at compiled speed.

    Counts ``y[t, j]`` are drawn with the mean

        mu[t, j] = g(intercepts[j] + feedforward_input[t, j] @ feedforward_coef[j]
                     + sum_{i, b, l} coupling_coef[j, i, b] * K[l, b] * y[t - 1 - l, i])

    Arguments, their order and the default link are the same as in NeMoS. The default link here is
    softplus, and the default link of a Poisson fit is exp: for such a model pass
    ``inverse_link_function="exp"``.

    Parameters
    ----------
    coupling_coef : array of shape (n_receivers, n_senders, n_basis_funcs)
        From a model: ``basis.split_by_feature(model.coef_, axis=0)[label].transpose(2, 0, 1)``.
    feedforward_coef : array of shape (n_neurons, n_inputs), optional
    intercepts : array of shape (n_neurons,)
    random_key : int, array of int, key of JAX, or numpy Generator, optional
        Seed; None draws a fresh seed. A key of JAX is taken as a seed: the draws differ from the
        draws of JAX.
    feedforward_input : array of shape (n_bins, n_neurons, n_inputs), optional
        Without it, ``n_bins`` is required.
    coupling_basis_matrix : array of shape (window_size, n_basis_funcs), optional
        ``basis.kernel_``; row 0 is lag 1. Default: raw lags, one coefficient a lag.
    init_y : array of shape (window_size, n_neurons), optional
        Counts before the first bin; the last row is the most recent. Default: zeros.
    inverse_link_function : str or a function of that name, optional
        A link of the family. Default: "softplus" for Poisson, as in NeMoS; "logistic" for
        Bernoulli; else that of a fit.
    observation_model : str or ObservationModel, default "Poisson"
        A name such as "Poisson", or an object of `fastglm.observation_models`.
    scale : float or array of shape (n_neurons,), optional
        Scale of Gaussian, Gamma and negative binomial counts, such as ``model.scale_``. Default:
        that of the family, 1. The scale of Poisson and Bernoulli counts is always 1.
    n_bins : int, optional
    max_rate : float, optional
        Mean of a bin, for Gaussian its absolute value, above which the network counts as running
        away. Default: 1000 events per bin; 1e100 for Gaussian.
    random_state : int, numpy RandomState or Generator, optional
        The name of scikit-learn for ``random_key``; one of them.

    Returns
    -------
    counts : ndarray of shape (n_bins, n_neurons)
        int64; float64 for Gaussian and Gamma.
    rates : ndarray of float64, shape (n_bins, n_neurons)
        The mean of every bin: expected events, or the probability of an event for Bernoulli.

    Raises
    ------
    ValueError
        If shapes do not fit each other, or the family has no such link or scale.
    RuntimeError
        If a rate exceeds ``max_rate``. The message names the bin and the neuron.

    Warns
    -----
    UserWarning
        If the network, linearised at its baseline (no events, mean drive), sustains its own
        excitation. The gain then has an eigenvalue whose real part is at least 1.

    Notes
    -----
    Cost: ``n_events * window_size * n_neurons`` additions, and one draw and one exp for each bin
    and neuron. For Gaussian observations every bin is an event.

    Examples
    --------
    >>> import numpy as np
    >>> from fastglm.simulation import simulate_recurrent
    >>> coupling = -np.ones((2, 2, 5))  # everybody silences everybody for 5 bins
    >>> counts, rates = simulate_recurrent(
    ...     coupling, intercepts=[-1, -1], n_bins=1000, random_key=0, inverse_link_function="exp"
    ... )
    >>> counts.shape, bool(rates.max() <= np.exp(-1))
    ((1000, 2), True)
    """
    coupling, kernel, intercepts = _read_network(coupling_coef, coupling_basis_matrix, intercepts)
    n_neurons = intercepts.size
    drive, n_bins = _read_drive(feedforward_input, feedforward_coef, n_bins, n_neurons)
    if init_y is not None:
        init_y = _expect("init_y", init_y, (kernel.shape[0], n_neurons))
    family = as_observation_model(observation_model)
    link = family.simulated_link if inverse_link_function is None else inverse_link_function
    loss = family.loss(link)
    sd = np.sqrt(_read_scale(scale, family, n_neurons))
    if max_rate is None:
        max_rate = _MOST_EVENTS if family.event_based else 1e100
    if not 0 < max_rate <= (1e9 if family.event_based else np.inf):
        raise ValueError(f"max_rate is {max_rate}; expected events per bin up to 1e9.")
    baseline = intercepts if drive is None else intercepts + drive.mean(axis=0)
    _warn_of_excitation(kernel, coupling, baseline, loss, max_rate)
    counts = np.empty((n_bins, n_neurons), np.int64 if family.event_based else np.float64)
    rates = np.empty((n_bins, n_neurons))
    network = kernel, coupling, intercepts
    rng = read_key(random_key, random_state)
    chunks = _simulate(network, n_bins, rng, loss, max_rate, drive, init_y, sd)
    for start, new_counts, new_rates in chunks:
        counts[start : start + new_counts.shape[0]] = new_counts
        rates[start : start + new_counts.shape[0]] = new_rates
    return counts, rates


def _read_network(coupling_coef, kernel, intercepts):
    coupling = as_numbers(coupling_coef, "coupling_coef").astype(np.float64)
    if coupling.ndim != 3 or coupling.shape[0] != coupling.shape[1]:
        raise ValueError(
            f"coupling_coef has shape {coupling.shape}; expected (n_receivers, n_senders, "
            "n_basis_funcs) with as many receivers as senders. From a model: "
            "split_by_feature(coef_, axis=0)[label].transpose(2, 0, 1)."
        )
    coupling = _expect("coupling_coef", coupling, coupling.shape)
    n_neurons, _, n_funcs = coupling.shape
    kernel = np.eye(n_funcs) if kernel is None else kernel
    kernel = _expect("coupling_basis_matrix", kernel, (None, n_funcs))
    if kernel.shape[0] == 0:
        raise ValueError("coupling_basis_matrix has no rows; expected one for each lag.")
    return coupling, kernel, _expect("intercepts", intercepts, (n_neurons,))


def _read_drive(inputs, weights, n_bins, n_neurons):
    """Drive of the inputs in eta, (n_bins, n_neurons) or None, and the number of bins."""
    drive = None
    if inputs is not None:
        inputs = _expect("feedforward_input", inputs, (None, n_neurons, None))
        weights = _expect("feedforward_coef", weights, (n_neurons, inputs.shape[2]))
        drive = np.einsum("ik,tik->ti", weights, inputs)
        if n_bins not in (None, drive.shape[0]):
            raise ValueError(
                f"n_bins is {n_bins} but feedforward_input has {drive.shape[0]} bins; leave "
                "n_bins out."
            )
        n_bins = drive.shape[0]
    elif n_bins is None:
        raise ValueError("Give n_bins, or feedforward_input of shape (n_bins, ...).")
    if not isinstance(n_bins, int | np.integer) or n_bins < 1:
        raise ValueError(f"n_bins is {n_bins!r}; expected a positive integer.")
    return drive, n_bins


def _read_scale(scale, family, n_neurons):
    """Scale of every neuron; None stands for that of the family."""
    if scale is None and family.fits_scale:
        raise ValueError(
            f"scale is None, and the scale of {family!r} is estimated by a fit; pass scale, such "
            "as scale_ of a fitted model."
        )
    values = np.asarray(family.scale if scale is None else scale, np.float64)
    if values.ndim == 0:
        values = np.full(n_neurons, float(values))
    values = _expect("scale", values, (n_neurons,))
    # Scale 0 of a family that fits its scale stands for Poisson counts.
    if not ((values > 0) | (family.has_scale and not family.estimates_scale and values == 0)).all():
        raise ValueError(f"scale is {scale!r}; expected variances above 0.")
    if scale is not None and not family.has_scale and (values != 1).any():
        raise ValueError(
            f"scale is {scale!r}; {family.name} observations have the scale 1. Leave scale out."
        )
    return values


def _warn_of_excitation(kernel, coupling, baseline, loss, max_rate):
    """Warn if the network, linearised at its baseline, sustains its own excitation."""
    area = np.einsum("b,jib->ij", kernel.sum(axis=0), coupling)
    # Above max_rate the run ends anyway.
    slopes = np.minimum(loss.slope(baseline), max_rate)
    leading = gain_eigenvalues(area, slopes).real.max(initial=0)
    if leading >= 1:
        grow = "without limit" if loss.high is None else "until every bin has an event"
        warnings.warn(
            f"The network excites itself: linearised at its baseline, an event is followed by "
            f"{leading:.3g} events, and from 1 on rates may grow {grow}; lower the coupling "
            "or the intercepts.",
            UserWarning,
            stacklevel=3,
        )


def _simulate(network, n_bins, rng, loss, max_rate, drive=None, init_y=None, sd=None, show=None):
    """Yield ``(start, counts, rates)`` for chunk after chunk of bins.

    ``network`` is kernel, coupling and intercepts, ``show`` whether there is a bar.
    """
    kernel, coupling, intercepts = network
    window_size, n_neurons = kernel.shape[0], coupling.shape[0]
    pending = np.zeros((window_size, n_neurons))
    if init_y is not None:
        filters = np.einsum("lb,jib->ilj", kernel, coupling)
        for lag in range(1, window_size + 1):  # row -lag lies lag bins back
            reach = window_size + 1 - lag
            pending[:reach] += np.einsum("i,ilj->lj", init_y[-lag], filters[:, lag - 1 :])
    links = _pack(kernel, coupling)
    draw = loss.simulator or partial(_draw_bins, loss)
    sd = np.ones(n_neurons) if sd is None else sd
    dtype = np.int64 if loss.observation_model.event_based else np.float64
    with Progress("simulating", n_bins, show) as progress:
        for start in range(0, n_bins, _CHUNK):
            n_rows = min(_CHUNK, n_bins - start)
            # pending is a ring: bin t uses row t % window_size, so chunks keep absolute bins.
            eta = np.tile(np.asarray(intercepts, dtype=np.float64), (n_rows, 1))
            if drive is not None:
                eta += drive[start : start + n_rows]
            counts = np.zeros((n_rows, n_neurons), dtype)
            rates = np.zeros((n_rows, n_neurons))
            stopped = draw(rng, links, sd, float(max_rate), pending, start, eta, counts, rates)
            if stopped >= 0:
                _raise_runaway(rates[stopped], start + stopped, max_rate, loss)
            progress.to(start + n_rows)
            yield start, counts, rates


def _draw_bins(loss, rng, network, sd, limit, pending, first, eta, counts, rates):
    """As a compiled kernel, for families without one; about 20 us a bin."""
    for row in range(eta.shape[0]):
        ahead = pending[(first + row) % pending.shape[0]]
        rates[row] = loss.mean(eta[row] + ahead)
        ahead[:] = 0.0
        if not (np.abs(rates[row]) <= limit).all():
            return row
        counts[row] = loss.observation_model.sample(rng, rates[row], sd**2)
        kernels.send_counts(counts[row], network, pending, first + row)
    return -1


def _raise_runaway(rates, t, max_rate, loss):
    cell = int(np.argmax(~(np.abs(rates) <= max_rate)))
    if not loss.observation_model.event_based:
        raise RuntimeError(
            f"The network ran away: neuron {cell} has a mean of {rates[cell]:.3g} in bin {t}, "
            f"beyond max_rate={max_rate:g}. Its feedback grows from bin to bin; lower the coupling "
            "or fit with a ridge."
        )
    raise RuntimeError(
        f"The network ran away: neuron {cell} expects {rates[cell]:.3g} events in bin {t}, more "
        f"than max_rate={max_rate:g}. Its excitation feeds itself; lower the coupling or the "
        "intercepts, fit with a ridge, or use softplus."
    )


def _pack(kernel, coupling):
    """Filters of the existing connections, their receivers, and the first place of each sender.

    If a tenth of all connections exist, an event costs a tenth, and the filters of 831 cells take
    55 MB instead of 552 MB.
    """
    filters, linked, starts = [], [], [0]
    for i in range(coupling.shape[1]):
        receivers = np.flatnonzero(coupling[:, i].any(axis=1))
        filters.append((kernel @ coupling[receivers, i].T).ravel())
        linked.append(receivers)
        starts.append(starts[-1] + receivers.size)
    return np.concatenate(filters), np.concatenate(linked), np.array(starts)


def _expect(name, value, shape):
    """A float64 array of the given shape (None: any length), finite."""
    wanted = "(" + ", ".join("any" if s is None else str(s) for s in shape) + ",)"
    if value is None:
        raise ValueError(f"{name} is missing; expected an array of shape {wanted}.")
    array = np.asarray(value, dtype=np.float64)
    fits = array.ndim == len(shape) and all(
        s in (None, n) for s, n in zip(shape, array.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name} has shape {array.shape}; expected {wanted}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity; expected finite numbers.")
    return array
