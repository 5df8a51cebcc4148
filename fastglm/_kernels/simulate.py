"""Spikes of a recurrent network, bin by bin."""

import math

from numba import njit

from fastglm._kernels.tiles import FASTMATH


@njit(cache=True, fastmath=FASTMATH)
def simulate_bins(
    rng,
    filters,
    linked,
    starts,
    window_size,
    drive,
    softplus,
    max_count,
    pending,
    begin,
    end,
    counts,
    rates,
):
    """Draw bins ``begin`` to ``end`` of a recurrent network; return the bin that ran away or -1.

    ``linked[starts[i] : starts[i + 1]]`` are the receivers of sender i, and
    ``filters[starts[i] * window_size :]`` begins with its (window_size, n_linked) weights.
    ``pending`` is a ring of ``window_size`` rows: row ``t % window_size`` holds what past events
    add to eta of bin t, and every new event adds its filters to the rows ahead of it.
    """
    n_cells = pending.shape[1]
    for t in range(begin, end):
        slot = t % window_size
        ahead = pending[slot]
        for j in range(n_cells):
            eta = ahead[j] + drive[t - begin, j]
            ahead[j] = 0.0
            if softplus:
                rate = max(eta, 0.0) + math.log1p(math.exp(-abs(eta)))
            else:
                rate = math.exp(min(eta, 700.0))
            rates[t - begin, j] = rate
            if not rate <= max_count:
                return t
            counts[t - begin, j] = rng.poisson(rate)
        for i in range(n_cells):
            count = counts[t - begin, i]
            if count > 0:
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
    return -1
