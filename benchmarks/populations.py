"""Populations whose connections are known and most of whose inputs are not recorded.

`KINDS` maps a name to a function of a seed that returns a `Population`. Three kinds of cells are
connected (integrate-and-fire cells in balance, Izhikevich cells on several graphs, coupled GLMs
under hidden states). The others have no connection at all, and share something else: slow drive,
fast input, drift and steps of their rates, sequences. Most of either exist with and without
connections.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit


@dataclass
class Population:
    """Spike times in seconds of every recorded cell, and who projects to whom.

    ``adjacency[i, j]`` is the weight from cell i to cell j, 0 without a connection.
    """

    spikes: list
    adjacency: np.ndarray
    seconds: float


# --- cells that are connected ---


@njit(cache=True)
def _send(t, weights, delays, waiting):
    """A spike in bin t reaches the targets of its cell after their delays."""
    for k in range(weights.size):
        if weights[k] != 0:
            waiting[(t + delays[k]) % waiting.shape[0], k] += weights[k]


@njit(cache=True)
def _integrate_and_fire(weights, delays, drive, n_steps, step, rng):
    """Bins and cells of the spikes of leaky cells with synaptic currents of 3 ms."""
    n = weights.shape[0]
    longest = delays.max() + 1
    voltage, current = rng.random(n), np.zeros(n)
    rest, waiting = np.zeros(n, np.int64), np.zeros((longest, n))
    bins, cells = [np.int64(0)], [np.int64(0)]
    leak, decay = np.exp(-step / 20), np.exp(-step / 3)
    for t in range(n_steps):
        now = t % longest
        for j in range(n):
            current[j] = current[j] * decay + waiting[now, j]
            waiting[now, j] = 0.0
            if rest[j] > 0:
                rest[j] -= 1
                continue
            noise = 0.25 * np.sqrt(1 - leak**2) * rng.normal()
            voltage[j] = voltage[j] * leak + (1 - leak) * drive[j] + current[j] + noise
            if voltage[j] > 1:
                voltage[j], rest[j] = 0.0, int(2 / step)
                bins.append(t)
                cells.append(j)
                _send(t, weights[j], delays[j], waiting)
    return np.array(bins[1:]), np.array(cells[1:])


def balanced(seed, recorded=60, n=200, seconds=900.0, coupled=True):
    """Excitatory and inhibitory integrate-and-fire cells, of which a part is recorded."""
    rng = np.random.default_rng(seed)
    inhibitory = rng.random(n) < 0.2
    linked = rng.random((n, n)) < 0.1
    np.fill_diagonal(linked, False)
    size = rng.lognormal(0, 0.4, (n, n)) * np.where(inhibitory, -0.025, 0.008)[:, None]
    weights = np.where(linked, size, 0.0) * coupled
    step = 0.5
    delays = np.maximum(np.round(rng.uniform(1, 4, (n, n)) / step), 1).astype(np.int64)
    bins, cells = _integrate_and_fire(
        weights, delays, rng.normal(0.62, 0.05, n), int(seconds * 1e3 / step), step, rng
    )
    return _recorded(bins * step * 1e-3, cells, weights, rng.choice(n, recorded, False), seconds)


@njit(cache=True)
def _izhikevich(weights, starts, targets, delays, inhibitory, n_steps, rng):
    """Bins (1 ms) and cells of the spikes of Izhikevich cells with random input."""
    n = starts.size - 1
    longest = delays.max() + 1
    waiting = np.zeros((longest, n))
    a, b = np.where(inhibitory, 0.1, 0.02), np.full(n, 0.2)
    c, d = np.full(n, -65.0), np.where(inhibitory, 2.0, 8.0)
    v, u = np.full(n, -65.0), np.full(n, -13.0)
    bins, cells = [np.int64(0)], [np.int64(0)]
    for t in range(n_steps):
        now = t % longest
        for j in range(n):
            current = waiting[now, j]
            waiting[now, j] = 0.0
            if rng.random() < 0.0015:
                current += 20.0
            for _ in range(2):
                v[j] += 0.5 * (0.04 * v[j] ** 2 + 5 * v[j] + 140 - u[j] + current)
            u[j] += a[j] * (b[j] * v[j] - u[j])
            if v[j] >= 30:
                v[j] = c[j]
                u[j] += d[j]
                bins.append(t)
                cells.append(j)
                for e in range(starts[j], starts[j + 1]):
                    waiting[(t + delays[e]) % longest, targets[e]] += weights[e]
    return np.array(bins[1:]), np.array(cells[1:])


def izhikevich(seed, graph="random", recorded=100, n=1000, seconds=900.0, strength=6.0):
    """Izhikevich cells on a random graph, one with hubs, or a small world."""
    rng = np.random.default_rng(seed)
    inhibitory = np.arange(n) % 5 == 4
    degree = 30
    if graph == "hubs":
        popularity = rng.pareto(2.0, n) + 0.5
        p = popularity / popularity.mean()
        linked = rng.random((n, n)) < degree / n * np.outer(p, p).clip(max=20)
    elif graph == "small_world":
        linked = np.zeros((n, n), bool)
        for i in range(n):
            near = (i + rng.integers(1, 41, degree) * rng.choice([-1, 1], degree)) % n
            far = rng.integers(0, n, degree)
            linked[i, np.where(rng.random(degree) < 0.2, far, near)] = True
    else:
        linked = rng.random((n, n)) < degree / n
    np.fill_diagonal(linked, False)
    size = rng.uniform(0.5, 1.5, (n, n)) * np.where(inhibitory, -1.0, 1.0)[:, None] * strength
    weights = np.where(linked, size, 0.0)
    rows, targets = np.nonzero(linked)
    starts = np.searchsorted(rows, np.arange(n + 1))
    delays = rng.integers(1, 21, rows.size)
    delays[inhibitory[rows]] = 1
    bins, cells = _izhikevich(
        weights[rows, targets], starts, targets, delays, inhibitory, int(seconds * 1e3), rng
    )
    # A window of the ring keeps neighbours together; elsewhere any cells.
    first = rng.integers(n - 2 * recorded)
    near = first + rng.choice(2 * recorded, recorded, False)
    chosen = near if graph == "small_world" else rng.choice(n, recorded, False)
    return _recorded((bins + 0.5) * 1e-3, cells, weights, chosen, seconds)


@njit(cache=True)
def _log_linear(base, weights, delays, decay, own, hidden, loadings, rng):
    """Bins (1 ms) and cells of Bernoulli cells with rates ``exp(base + couplings + hidden)``."""
    n, longest = base.size, delays.max() + 1
    waiting, current = np.zeros((longest, n)), np.zeros(n)
    after = np.full(n, 1000.0)
    bins, cells = [np.int64(0)], [np.int64(0)]
    for t in range(hidden.shape[0]):
        now = t % longest
        for j in range(n):
            current[j] = current[j] * decay[j] + waiting[now, j]
            waiting[now, j] = 0.0
            after[j] += 1
            eta = base[j] + current[j] - own * np.exp(-after[j] / 5)
            for m in range(hidden.shape[1]):
                eta += loadings[m, j] * hidden[t, m]
            if rng.random() < np.exp(min(eta, -0.7)):
                after[j] = 0.0
                bins.append(t)
                cells.append(j)
                _send(t, weights[j], delays[j], waiting)
    return np.array(bins[1:]), np.array(cells[1:])


def states(seed, n=40, seconds=900.0, coupled=True, hidden=None, loading=0.7, rate=5.0):
    """Coupled GLMs under hidden states that raise some cells and lower others."""
    rng = np.random.default_rng(seed)
    n_bins = int(seconds * 1e3)
    weights = _links(rng, n) * coupled
    delays = rng.integers(1, 8, (n, n))
    hidden = _up_and_down(rng, n_bins) if hidden is None else hidden
    loadings = rng.normal(0, loading, (hidden.shape[1], n))
    bins, cells = _log_linear(
        np.log(1e-3 * rng.lognormal(np.log(rate), 0.4, n)), weights, delays,
        np.exp(-1 / rng.uniform(2, 8, n)), 3.0, hidden, loadings, rng,
    )  # fmt: skip
    return _recorded((bins + 0.5) * 1e-3, cells, weights, np.arange(n), seconds)


def _links(rng, n):
    """Weights of a sparse graph, a quarter of whose cells inhibit."""
    linked = (rng.random((n, n)) < 0.08) & ~np.eye(n, dtype=bool)
    sign = np.where(rng.random(n) < 0.25, -1.0, 1.0)[:, None]
    return linked * sign * rng.uniform(0.5, 1.3, (n, n))


def _up_and_down(rng, n_bins):
    """One state of -1 and 1 that holds 0.1 to 1 s, smoothed over 20 ms."""
    edges = np.cumsum(rng.uniform(100, 1000, n_bins // 300))
    state = 1.0 - 2.0 * (np.searchsorted(edges, np.arange(n_bins)) % 2)
    return np.convolve(state, np.full(20, 0.05), mode="same")[:, None]


# --- cells that share something else, by default not connected ---


def drive(seed, n=40, seconds=900.0):
    """Slow hidden drive at time constants of 50 ms, 300 ms and 2 s."""
    rng = np.random.default_rng(seed)
    hidden = np.empty((int(seconds * 1e3), 3))
    for m, tau in enumerate((50, 300, 2000)):
        noise = rng.normal(size=len(hidden)) * np.sqrt(2 / tau)
        hidden[:, m] = _filtered(noise, np.exp(-1 / tau))
    return states(seed, n, seconds, False, hidden, 0.4)


@njit(cache=True)
def _filtered(noise, decay):
    out = np.empty_like(noise)
    value = 0.0
    for t in range(noise.size):
        value = decay * value + noise[t]
        out[t] = value
    return out


def fast_input(seed, n=40, seconds=900.0, n_sources=30, coupled=False):
    """Unrecorded cells that each drive a third of the cells at delays of 1 to 6 ms."""
    rng = np.random.default_rng(seed)
    total = n + n_sources
    weights = np.zeros((total, total))
    weights[n:, :n] = (rng.random((n_sources, n)) < 0.3) * rng.uniform(0.8, 2.0, (n_sources, n))
    base = np.log(1e-3 * rng.lognormal(np.log(5), 0.4, total))
    delays = rng.integers(1, 7, (total, total))
    if coupled:
        weights[:n, :n] = _links(rng, n)
    bins, cells = _log_linear(
        base, weights, delays, np.full(total, np.exp(-1 / 4)), 3.0,
        np.zeros((int(seconds * 1e3), 1)), np.zeros((1, total)), rng,
    )  # fmt: skip
    return _recorded((bins + 0.5) * 1e-3, cells, weights, np.arange(n), seconds)


def steps(seed, n=40, seconds=900.0, coupled=False):
    """Cells whose rates step at times that all share."""
    rng = np.random.default_rng(seed)
    edges = np.cumsum(rng.uniform(5e3, 4e4, 200))
    number = np.searchsorted(edges, np.arange(int(seconds * 1e3)))
    hidden = rng.normal(size=(number[-1] + 1, 4))[number]
    return states(seed, n, seconds, coupled, hidden, 0.4)


def drift(seed, n=40, seconds=900.0, coupled=False):
    """Cells whose rates wander over a minute and over five, each its own mixture."""
    rng = np.random.default_rng(seed)
    hidden = np.empty((int(seconds * 1e3), 4))
    for m, tau in enumerate((6e4, 6e4, 3e5, 3e5)):
        noise = rng.normal(size=len(hidden)) * np.sqrt(2 / tau)
        noise[0] = rng.normal()
        hidden[:, m] = _filtered(noise, np.exp(-1 / tau))
    return states(seed, n, seconds, coupled, hidden, 0.5)


def sequences(seed, n=40, seconds=900.0, size=10):
    """Hidden sequences: groups of cells that fire one after the other, 15 ms apart."""
    rng = np.random.default_rng(seed)
    spikes = [rng.uniform(0, seconds, rng.poisson(4 * seconds)) for _ in range(n)]
    for _ in range(4):
        cells = rng.choice(n, size, False)
        begins = rng.uniform(0, seconds - 1, rng.poisson(seconds))
        for place, cell in enumerate(cells):
            some = begins[rng.random(begins.size) < 0.5]
            at = some + 0.015 * place + rng.normal(0, 0.01, some.size)
            spikes[cell] = np.concatenate([spikes[cell], at[(at > 0) & (at < seconds)]])
    spikes = [np.sort(train) for train in spikes]
    return Population(spikes, np.zeros((n, n)), seconds)


def _recorded(times, cells, weights, chosen, seconds):
    chosen = np.sort(chosen)
    order = np.argsort(cells, kind="stable")
    trains = np.split(times[order], np.searchsorted(cells[order], np.arange(1, len(weights))))
    return Population([trains[i] for i in chosen], weights[np.ix_(chosen, chosen)], seconds)


KINDS = {
    "balanced": balanced,
    "hubs": lambda seed: izhikevich(seed, "hubs"),
    "random graph": lambda seed: izhikevich(seed, strength=9.0),
    "small world": lambda seed: izhikevich(seed, "small_world", strength=9.0),
    "states": states,
    "fast input, connected": lambda seed: fast_input(seed, coupled=True),
    "drift, connected": lambda seed: drift(seed, coupled=True),
    "rate steps, connected": lambda seed: steps(seed, coupled=True),
    "slow drive": drive,
    "fast input": fast_input,
    "drift": drift,
    "rate steps": steps,
    "sequences": sequences,
    "balanced, no connection": lambda seed: balanced(seed, coupled=False),
    "states, no connection": lambda seed: states(seed, coupled=False),
}
