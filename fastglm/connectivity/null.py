"""What the filters of unconnected pairs look like, learned from the filters of all pairs.

Standard errors say how far a filter is from zero *in the model*. Cells that were not recorded,
shared drive and drift move every filter a little, by an amount that does not shrink as the
recording grows. Most pairs of a recording have no synapse. So the bulk of the filters shows what
such inputs do, and a coupling is a filter that the bulk does not explain (an empirical null:
Efron, 2004).

The filter of sender i and receiver j has the coefficients c_ij, with covariance V_ij. The bulk is

    c_ij = delta + u_ij + e_ij,    u_ij ~ N(0, a_i b_j T),    e_ij ~ N(0, V_ij)

delta is the mean shape, T the covariance over basis functions of what unobserved input does, and
a_i and b_j say how much of it a sender and a receiver have. Some filters hold a synapse on top: one
shape s of `fastglm.connectivity.synapse`, at one delay, of an amplitude that is N(0, g). With
``S_ij = V_ij + a_i b_j T`` the parameters maximise

    sum_ij log[  w_0 N(c_ij - delta; 0, S_ij) + w_1 N(c_ij - delta; 0, 25 S_ij)
               + sum_sg w_sg N(c_ij - delta; 0, S_ij + g s s') ]
      - sum_i (log a_i)^2 / (2 * 0.2^2) - sum_j (log b_j)^2 / (2 * 0.2^2)

over decays of 4 and 12 ms, delays of 0, 2, ... 18 ms, and amplitudes g of 10, 60 and 400 times the
variance with which a filter shows the shape, in the median. Synapses must not widen T, small ones
included: so they have parts of their own, which know their shape. Slow input of a part of the pairs
has such parts too. w_1 holds everything else. All but the first share eps of the weights, at least
0.03.

A second null has the mean ``delta + B c_ji``: what the other direction of a pair predicts of this
one. The matrix B is learned from the bulk too. Input that two cells share with no delay moves both
directions alike; a synapse moves one.

The ridge is undone before; see `fastglm.connectivity.filters`.

Memory: the bulk is fitted to 200,000 pairs at most, and all else goes over some thousand filters at
a time. Beside the filters there are ``8 k`` bytes a pair for the mean of the second null.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from fastglm._kernels.mixture import filter_likelihoods
from fastglm.connectivity.filters import Filters, evenly, in_parts
from fastglm.connectivity.shadows import inverse_without, without
from fastglm.connectivity.synapse import shapes, slow_shapes

_DECAYS, _STEP = (0.004, 0.012), 0.002  # seconds: shapes of synapses
_AMPLITUDES = np.array([10.0, 60.0, 400.0])  # variances, in those of the error of an amplitude
_WIDTH = 25.0  # of the part without a shape
_SIZE_SD = 0.2  # of log a_i and log b_j
_LEAST, _LEAST_SLOW = 0.03, 0.003  # weights of the other parts, and of those of slow input
_BEGIN = 2.0  # weights of the other parts where the search begins, in those that are least
_ROUNDS, _STEPS, _UPDATES = 2, 40, 10  # of the search: steps of L-BFGS, then of EM
_BETTER = 0.03  # part of the evidence for slow input that a synapse must reach less
_TINY = 1e-12  # part of the core that a weight beyond its floor has at least
_TASKS = 64  # of the kernel; a constant, so that sums have the same bits on all machines
_REVERSE = 4.0  # robust standard deviations at which a filter of the other direction is cut
_SAMPLE = 200_000  # pairs that the bulk is fitted to
_SAMPLE_OF_SHAPES = 2000  # pairs that say how well a filter shows a shape


@dataclass
class Bulk:
    """The distribution of the filters of unconnected pairs.

    Attributes
    ----------
    mean : ndarray of shape (n_filters, k)
        delta, and with the other direction ``delta + B c_ji``.
    spread : ndarray of shape (k, k)
        T.
    sender, receiver : ndarrays of shape (n_senders,) and (n_receivers,)
        a and b.
    outliers : float
        eps, without its floor: about the part of the pairs that is coupled.
    parameters : ndarray
        What the minimiser found, in its own units.
    shapes : ndarray of shape (n_shapes, k)
        What filters may hold beside the core, in units of which a filter shows one with an error of
        1 in the median: synapses, then slow input.
    log_weights : ndarray of shape (n_shapes, n_amplitudes)
    n_synapses : int
    """

    mean: np.ndarray
    spread: np.ndarray
    sender: np.ndarray
    receiver: np.ndarray
    outliers: float
    parameters: np.ndarray
    shapes: np.ndarray
    log_weights: np.ndarray
    n_synapses: int


def fit_bulk(filters: Filters, one: Bulk | None = None) -> Bulk:
    """The bulk of the filters by maximum likelihood; see the head of the module.

    Parameters
    ----------
    filters : Filters
    one : Bulk, optional
        The bulk whose mean is delta. With it the mean depends on the other direction of a pair, and
        the search begins there.
    """
    n, k = filters.coef.shape
    other = np.zeros((n, 0)) if one is None else cut_reverse(filters)
    some = evenly(filters.lit, _SAMPLE)
    kernel, bin_size = filters.kernel, filters.bin_size
    synapses = np.concatenate([shapes(kernel, bin_size, decay, _STEP)[1] for decay in _DECAYS])
    problem = _Likelihood(
        filters.coef[some], filters.covariance[some], filters.pairs[some], other[some], synapses,
        slow_shapes(kernel, bin_size),
    )  # fmt: skip
    start = problem.start()
    if one is not None:
        start[: one.parameters.size] = one.parameters
    for _ in range(_ROUNDS if one is None else 1):
        options = {"maxiter": _STEPS}
        start = minimize(problem, start, jac=True, method="L-BFGS-B", options=options).x
        for _ in range(_UPDATES):
            start = problem.updated(start)
    delta, root, a, b, weights, back = problem.parts(start)
    root = problem.unit[:, None] * root
    size = filters.pairs.max(axis=0) + 1
    sender, receiver = np.ones(size[0]), np.ones(size[1])
    sender[problem.senders], receiver[problem.receivers] = np.exp(a), np.exp(b)
    mean = np.broadcast_to(delta * problem.unit, (n, k))
    if other.size:
        for part in in_parts(n):
            other[part] = mean[part] + (other[part] / problem.unit) @ back.T * problem.unit
        mean = other
    outliers, weights = 1 - weights[0], problem.with_floor(weights)
    return Bulk(
        mean, root @ root.T, sender, receiver, outliers, start,
        problem.shapes * problem.unit, np.log(weights[2:].reshape(len(problem.shapes), -1)),
        len(synapses),
    )  # fmt: skip


class _Likelihood:
    """Minus the log-likelihood of the bulk per filter, and its gradient, for a minimiser.

    Coefficients are in units of their median standard errors. The parameters are delta, the lower
    triangle of K with ``T = K K'``, log a, log b, for each further part the logarithm of its weight
    over that of the core (both without their floor) and, row by row, B.
    """

    def __init__(self, coef, covariance, pairs, other, synapses, slow):
        self.unit = np.sqrt(np.median(np.diagonal(covariance, axis1=1, axis2=2), axis=0))
        self.coef = coef / self.unit
        self.covariance = covariance / np.outer(self.unit, self.unit)
        self.senders, self.sender = np.unique(pairs[:, 0], return_inverse=True)
        self.receivers, self.receiver = np.unique(pairs[:, 1], return_inverse=True)
        n, k = self.coef.shape
        self.triangle = np.tril_indices(k)
        self.other = other / self.unit if other.size else other
        self.shapes = _scaled(np.r_[synapses, slow] / self.unit, self.covariance)
        # Each part of the mixture beside the core has a weight of its own.
        n_own, n_slow = 1 + len(synapses) * _AMPLITUDES.size, len(slow) * _AMPLITUDES.size
        n_parts = n_own + n_slow
        self.floor = np.r_[
            0.0, np.full(n_own, _LEAST / n_own), np.full(n_slow, _LEAST_SLOW / max(n_slow, 1))
        ]
        sizes = [k, self.triangle[0].size, self.senders.size, self.receivers.size, n_parts]
        self.cuts = np.cumsum([*sizes, k * self.other.shape[1]])[:-1]
        tasks = min(_TASKS, n)
        self.out = (
            np.empty(n), np.empty((n, k)), np.empty(n), np.empty((tasks, 1 + n_parts)),
            np.empty((tasks, k, k)),
        )  # fmt: skip

    def start(self):
        k = self.coef.shape[1]
        x = [np.median(self.coef, axis=0), (0.5 * np.eye(k))[self.triangle]]
        x += [np.zeros(self.senders.size), np.zeros(self.receivers.size)]
        x += [np.log(_BEGIN * self.floor[1:])]
        return np.concatenate([*x, np.zeros(k * self.other.shape[1])])

    def parts(self, x):
        """delta, K, log a, log b, the weights of the mixture without their floor, B."""
        delta, lower, a, b, logits, reverse = np.split(x, self.cuts)
        k = delta.size
        root = np.zeros((k, k))
        root[self.triangle] = lower
        weights = np.exp(np.r_[0.0, logits] - max(logits.max(), 0.0))
        return delta, root, a, b, weights / weights.sum(), reverse.reshape(k, -1)

    def with_floor(self, free):
        return (1 - self.floor.sum()) * free + self.floor

    def updated(self, x):
        """A step of EM for the weights, in which the likelihood is flat for a minimiser."""
        self(x)
        free = self.parts(x)[4]
        free = free * self.out[3].sum(axis=0) / self.with_floor(free)
        x = x.copy()
        x[self.cuts[3] : self.cuts[4]] = np.log(np.maximum(free[1:] / free[0], _TINY))
        return x

    def __call__(self, x):
        delta, root, a, b, free, reverse = self.parts(x)
        n = self.coef.shape[0]
        residual = self.coef - delta
        if reverse.size:
            residual = residual - self.other @ reverse.T
        weights = self.with_floor(free)
        factor = np.exp(a[self.sender] + b[self.receiver])
        filter_likelihoods(
            residual, self.covariance, factor, root @ root.T, self.shapes, _AMPLITUDES, weights,
            _WIDTH, self.out,
        )  # fmt: skip
        value, pull, trace, parts, sums = self.out
        slope = (1 - self.floor.sum()) * parts.sum(axis=0) / weights
        prior = (a @ a + b @ b) / (2 * _SIZE_SD**2)
        gradient = [
            pull.sum(axis=0),
            (2 * sums.sum(axis=0) @ root)[self.triangle],
            np.bincount(self.sender, trace) - a / _SIZE_SD**2,
            np.bincount(self.receiver, trace) - b / _SIZE_SD**2,
            (free * (slope - free @ slope))[1:],
            (pull.T @ self.other).ravel() if reverse.size else [],
        ]
        return -(value.sum() - prior) / n, -np.concatenate(gradient) / n


def _scaled(synapses, covariance):
    """Shapes whose amplitude a filter shows with an error of 1, in the median."""
    some = np.linalg.inv(covariance[:: max(len(covariance) // _SAMPLE_OF_SHAPES, 1)])
    seen = np.einsum("ndj,dj->nd", synapses @ some, synapses)
    return synapses / np.sqrt(np.maximum(np.median(seen, axis=0), np.finfo(float).tiny))[:, None]


def slow_input(filters: Filters, bulk: Bulk, confounding: np.ndarray) -> np.ndarray:
    """Whether slow input explains a filter better than a synapse does, (n_filters,).

    Better is a log odds of more than 3 % of the evidence: no filter is just one shape. b_0 says
    nothing: it does not rise, and a synapse may decay as slowly.

    Parameters
    ----------
    filters : Filters
    bulk : Bulk
    confounding : array of shape (n_filters, k, k)
        ``a_i b_j T``.
    """
    slower = np.empty(len(filters.coef), bool)
    for part in in_parts(slower.size):
        total = filters.covariance[part] + confounding[part]
        slower[part] = is_slow(filters, bulk, part, total)
    return slower


def is_slow(
    filters: Filters, bulk: Bulk, part: slice | np.ndarray, total: np.ndarray
) -> np.ndarray:
    """`slow_input` for a part of the filters, whose S is ``total``."""
    inverse = np.linalg.inv(total)
    dark = filters.shadowed[part]
    if dark.any():
        inverse[dark] = inverse_without(filters.hidden, inverse[dark])
    way = bulk.shapes @ inverse
    seen = np.einsum("nsk,sk->ns", way, bulk.shapes)[:, :, None]
    residual = filters.coef[part] - bulk.mean[part]
    along = np.einsum("nsk,nk->ns", way, residual)[:, :, None]
    more = 1 + _AMPLITUDES * seen
    logs = 0.5 * (_AMPLITUDES * along**2 / more - np.log(more)) + bulk.log_weights
    own, slow = _log_sum(logs[:, : bulk.n_synapses]), _log_sum(logs[:, bulk.n_synapses + 1 :])
    return slow - own > _BETTER * np.abs(slow)


def _log_sum(logs):
    """``log sum exp`` over all axes but the first."""
    return np.logaddexp.reduce(logs.reshape(len(logs), -1), axis=1)


def cut_reverse(filters: Filters) -> np.ndarray:
    """Filters of the other direction less their median, cut at four robust deviations; 0 without.

    Synapses in the other direction must not decide what it predicts, and neither must the first
    2 ms of pairs of one channel: they are as in the median.
    """
    there, lit = filters.reverse >= 0, filters.lit
    if not there[lit].any():
        return np.zeros(filters.coef.shape)
    other = filters.coef[filters.reverse]
    other[~there] = np.nan
    # One column at a time: a median copies what it sorts.
    middle = np.array([np.nanmedian(column[lit]) for column in other.T])
    other -= middle
    width = [_REVERSE * 1.4826 * np.nanmedian(np.abs(column[lit])) for column in other.T]
    dark = np.flatnonzero(filters.shadowed & there)
    if dark.size:
        root = np.linalg.cholesky(filters.covariance[filters.reverse[dark]])
        white = np.linalg.solve(root, other[dark][:, :, None])
        other[dark] = (root @ without(filters.hidden, root, white))[:, :, 0]
    np.clip(other, np.negative(width), width, out=other)
    return np.nan_to_num(other, copy=False)
