"""Counts of a recurrent network, bin by bin: a kernel for each family and link.

All kernels take the same arguments. ``eta`` holds the drive of every bin (row) and cell. ``sd`` is
the root of the scale of every cell: of normal numbers their standard deviation. ``pending`` is a
ring of ``window_size`` rows: row ``t % window_size`` holds the sum of the filters of past counts at
bin t. ``first`` is the bin of row 0. ``counts`` and ``rates`` are filled in. The result is the row
in which a mean exceeded ``limit``, or -1.

Each kernel calls its helpers by their global names, since Numba caches no function that encloses
other functions.
"""

import math

from fastglm._kernels.compiler import njit
from fastglm._kernels.tiles import FASTMATH


@njit(cache=True, fastmath=FASTMATH)
def _arrive(eta, pending, t):
    """Add the filters of past counts to a bin's eta, and clear its row of the ring."""
    ahead = pending[t % pending.shape[0]]
    for j in range(eta.shape[0]):
        eta[j] += ahead[j]
        ahead[j] = 0.0


@njit(cache=True, fastmath=FASTMATH)
def send_counts(counts, network, pending, t):
    """Add the filters of a bin's counts to the rows of later bins in the ring.

    ``linked[starts[i] : starts[i + 1]]`` are the receivers of sender i, and
    ``filters[starts[i] * window_size :]`` begins with its (window_size, n_linked) weights.
    """
    filters, linked, starts = network
    window_size, n_cells = pending.shape
    for i in range(n_cells):
        count = counts[i]
        if count != 0:
            n_linked = starts[i + 1] - starts[i]
            receivers = linked[starts[i] : starts[i + 1]]
            for l in range(window_size):
                row = pending[(t + 1 + l) % window_size]
                p = starts[i] * window_size + l * n_linked
                weights = filters[p : p + n_linked]
                if n_linked == n_cells:
                    for k in range(n_linked):
                        row[k] += count * weights[k]
                else:
                    for k in range(n_linked):
                        row[receivers[k]] += count * weights[k]


@njit(cache=True, fastmath=FASTMATH)
def simulate_poisson_exp(rng, network, sd, limit, pending, first, eta, counts, rates):
    """Poisson counts with mean ``exp(eta)``."""
    for row in range(eta.shape[0]):
        _arrive(eta[row], pending, first + row)
        for j in range(eta.shape[1]):
            mu = math.exp(min(eta[row, j], 700.0))
            rates[row, j] = mu
            if not mu <= limit:
                return row
            counts[row, j] = rng.poisson(mu)
        send_counts(counts[row], network, pending, first + row)
    return -1


@njit(cache=True, fastmath=FASTMATH)
def simulate_poisson_softplus(rng, network, sd, limit, pending, first, eta, counts, rates):
    """Poisson counts with mean ``log(1 + exp(eta))``."""
    for row in range(eta.shape[0]):
        _arrive(eta[row], pending, first + row)
        for j in range(eta.shape[1]):
            x = eta[row, j]
            mu = max(x, 0.0) + math.log1p(math.exp(-abs(x)))
            rates[row, j] = mu
            if not mu <= limit:
                return row
            counts[row, j] = rng.poisson(mu)
        send_counts(counts[row], network, pending, first + row)
    return -1


@njit(cache=True, fastmath=FASTMATH, error_model="numpy")
def simulate_bernoulli_logistic(rng, network, sd, limit, pending, first, eta, counts, rates):
    """An event or none, with probability ``1 / (1 + exp(-eta))``."""
    for row in range(eta.shape[0]):
        _arrive(eta[row], pending, first + row)
        for j in range(eta.shape[1]):
            mu = 1.0 / (1.0 + math.exp(min(-eta[row, j], 700.0)))
            rates[row, j] = mu
            if not mu <= limit:
                return row
            counts[row, j] = rng.random() < mu
        send_counts(counts[row], network, pending, first + row)
    return -1


@njit(cache=True, fastmath=FASTMATH)
def simulate_bernoulli_cloglog(rng, network, sd, limit, pending, first, eta, counts, rates):
    """An event or none, with probability ``1 - exp(-exp(eta))``."""
    for row in range(eta.shape[0]):
        _arrive(eta[row], pending, first + row)
        for j in range(eta.shape[1]):
            mu = -math.expm1(-math.exp(min(eta[row, j], 700.0)))
            rates[row, j] = mu
            if not mu <= limit:
                return row
            counts[row, j] = rng.random() < mu
        send_counts(counts[row], network, pending, first + row)
    return -1


@njit(cache=True, fastmath=FASTMATH)
def simulate_gaussian_identity(rng, network, sd, limit, pending, first, eta, counts, rates):
    """Normal numbers with mean ``eta``."""
    for row in range(eta.shape[0]):
        _arrive(eta[row], pending, first + row)
        for j in range(eta.shape[1]):
            mu = eta[row, j]
            rates[row, j] = mu
            if not abs(mu) <= limit:
                return row
            counts[row, j] = rng.normal(mu, sd[j])
        send_counts(counts[row], network, pending, first + row)
    return -1


@njit(cache=True, fastmath=FASTMATH)
def _exp_means(eta, limit, rates):
    """``exp(eta)`` of a bin; False where one exceeds the limit."""
    for j in range(eta.shape[0]):
        rates[j] = math.exp(min(eta[j], 700.0))
        if not rates[j] <= limit:
            return False
    return True


@njit(cache=True, fastmath=FASTMATH)
def _softplus_means(eta, limit, rates):
    """``log(1 + exp(eta))`` of a bin; False where one exceeds the limit."""
    for j in range(eta.shape[0]):
        rates[j] = max(eta[j], 0.0) + math.log1p(math.exp(-abs(eta[j])))
        if not rates[j] <= limit:
            return False
    return True


@njit(cache=True)
def _draw_gamma(rng, sd, mu, values):
    """Gamma numbers with mean mu and variance ``(sd * mu)**2``; above 0 where they underflow."""
    for j in range(mu.shape[0]):
        scale = sd[j] * sd[j]
        values[j] = max(rng.gamma(1.0 / scale, mu[j] * scale), 2.2250738585072014e-308)


@njit(cache=True)
def _draw_negative_binomial(rng, sd, mu, means, counts):
    """Poisson counts with gamma means of mean mu and variance ``(sd * mu)**2``; sd 0 is Poisson."""
    for j in range(mu.shape[0]):
        scale = sd[j] * sd[j]
        shape = 1.0 / scale if scale > 0.0 else 1.0
        drawn = rng.gamma(shape, mu[j] / shape)
        means[j] = drawn if scale > 0.0 else mu[j]
    for j in range(mu.shape[0]):
        counts[j] = rng.poisson(means[j])


@njit(cache=True)
def simulate_gamma_exp(rng, network, sd, limit, pending, first, eta, counts, rates):
    """Gamma numbers with mean ``exp(eta)``."""
    for row in range(eta.shape[0]):
        _arrive(eta[row], pending, first + row)
        if not _exp_means(eta[row], limit, rates[row]):
            return row
        _draw_gamma(rng, sd, rates[row], counts[row])
        send_counts(counts[row], network, pending, first + row)
    return -1


@njit(cache=True)
def simulate_gamma_softplus(rng, network, sd, limit, pending, first, eta, counts, rates):
    """Gamma numbers with mean ``log(1 + exp(eta))``."""
    for row in range(eta.shape[0]):
        _arrive(eta[row], pending, first + row)
        if not _softplus_means(eta[row], limit, rates[row]):
            return row
        _draw_gamma(rng, sd, rates[row], counts[row])
        send_counts(counts[row], network, pending, first + row)
    return -1


@njit(cache=True)
def simulate_negative_binomial_exp(rng, network, sd, limit, pending, first, eta, counts, rates):
    """Negative binomial counts with mean ``exp(eta)``."""
    for row in range(eta.shape[0]):
        _arrive(eta[row], pending, first + row)
        if not _exp_means(eta[row], limit, rates[row]):
            return row
        _draw_negative_binomial(rng, sd, rates[row], eta[row], counts[row])
        send_counts(counts[row], network, pending, first + row)
    return -1


@njit(cache=True)
def simulate_negative_binomial_softplus(
    rng, network, sd, limit, pending, first, eta, counts, rates
):
    """Negative binomial counts with mean ``log(1 + exp(eta))``."""
    for row in range(eta.shape[0]):
        _arrive(eta[row], pending, first + row)
        if not _softplus_means(eta[row], limit, rates[row]):
            return row
        _draw_negative_binomial(rng, sd, rates[row], eta[row], counts[row])
        send_counts(counts[row], network, pending, first + row)
    return -1
