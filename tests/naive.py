"""The formulas of the conventions as plain loops: slow, obvious, and ignorant of fastglm."""

import numpy as np

# --- features -----------------------------------------------------------------------------------


def history(counts, kernel, shift=0):
    """``sum_l kernel[l, b] * counts[t + shift - 1 - l, i]``; bins outside the record count 0."""
    n_bins, n_senders = counts.shape
    window_size, n_funcs = kernel.shape
    out = np.zeros((n_bins, n_senders * n_funcs))
    for t in range(n_bins):
        for i in range(n_senders):
            for b in range(n_funcs):
                for l in range(window_size):
                    s = t + shift - 1 - l
                    if 0 <= s < n_bins:
                        out[t, i * n_funcs + b] += kernel[l, b] * counts[s, i]
    return out


def features(counts, kernel, epochs=None, shift=0):
    """History inside each epoch; NaN where the window is not complete or holds a NaN."""
    counts = np.asarray(counts, dtype=float)
    n_bins, n_senders = counts.shape
    window_size, n_funcs = kernel.shape
    out = np.full((n_bins, n_senders * n_funcs), np.nan)
    for begin, end in [(0, n_bins)] if epochs is None else epochs:
        for t in range(begin, end):
            seen = [t + shift - 1 - l for l in range(window_size)]
            if min(seen) < begin or max(seen) >= end:
                continue
            for i in range(n_senders):
                for b in range(n_funcs):
                    terms = [kernel[l, b] * counts[s, i] for l, s in enumerate(seen)]
                    out[t, i * n_funcs + b] = sum(terms)
    return out


def window_shift(window_size, causality="causal", shift=True):
    """Bins by which the window lies later than the strictly causal one, as in NeMoS."""
    if causality == "causal":  # the last bin of the window is t - 1, or t without shift
        return 0 if shift else 1
    if causality == "anti-causal":  # the first bin of the window is t + 1, or t without shift
        return window_size + (1 if shift else 0)
    return window_size - (window_size - 1) // 2  # as many bins before t as after


def product(X, coef):
    """``X @ coef`` by loops."""
    out = np.zeros((X.shape[0], coef.shape[1]))
    for t in range(X.shape[0]):
        for j in range(coef.shape[1]):
            for p in range(X.shape[1]):
                out[t, j] += X[t, p] * coef[p, j]
    return out


def gradient(X, residual):
    """``X.T @ residual`` by loops."""
    out = np.zeros((X.shape[1], residual.shape[1]))
    for p in range(X.shape[1]):
        for j in range(residual.shape[1]):
            for t in range(X.shape[0]):
                out[p, j] += X[t, p] * residual[t, j]
    return out


# --- bases --------------------------------------------------------------------------------------


def raised_cosine_linear(n, window_size, width=2.0):
    return _cosines(np.linspace(0, 1, window_size), np.linspace(0, 1, n), width)


def raised_cosine_log(n, window_size, width=2.0, time_scaling=50.0, decay=True):
    u = np.linspace(0, 1, window_size)
    x = np.log(time_scaling * u + 1) / np.log(time_scaling + 1)
    return _cosines(x, np.linspace(0, 1 - width / (n + width - 1) if decay else 1, n), width)


def _cosines(x, peaks, width):
    spacing = peaks[1] - peaks[0]
    out = np.zeros((len(x), len(peaks)))
    for l in range(len(x)):
        for b in range(len(peaks)):
            phase = np.pi * (x[l] - peaks[b]) / (spacing * width)
            out[l, b] = 0.5 * (np.cos(min(max(phase, -np.pi), np.pi)) + 1)
    return out


def _knots(n, order):
    return np.array([0.0] * (order - 1) + list(np.linspace(0, 1, n - order + 2)) + [1.0] * order)


def bspline(u, n, order=4):
    """Cox and de Boor's recursion with clamped ends, the last interval closed."""
    knots = _knots(n, order)

    def value(x, b, k):
        left, right = knots[b], knots[b + k]
        if k == 1:
            return float(left <= x < right or (x == right == 1 and left < right))
        out = 0.0
        if knots[b + k - 1] > left:
            out += (x - left) / (knots[b + k - 1] - left) * value(x, b, k - 1)
        if right > knots[b + 1]:
            out += (right - x) / (right - knots[b + 1]) * value(x, b + 1, k - 1)
        return out

    return np.array([[value(x, b, order) for b in range(n)] for x in u])


def mspline(u, n, order=4):
    knots = _knots(n, order)
    scale = [order / (knots[b + order] - knots[b]) for b in range(n)]
    return bspline(u, n, order) * scale


def cyclic_bspline(u, n, order=4):
    """Cardinal B-splines with n knots a turn, summed over the turns."""

    def cardinal(x, k):  # support [0, k)
        if k == 1:
            return float(0 <= x < 1)
        return (x * cardinal(x, k - 1) + (k - x) * cardinal(x - 1, k - 1)) / (k - 1)

    turns = range(-order - 1, order + 2)
    return np.array(
        [
            [sum(cardinal(x * n - b + order - 1 + m * n, order) for m in turns) for b in range(n)]
            for x in u
        ]
    )


# --- observation model --------------------------------------------------------------------------


def softplus(eta):
    return np.log1p(np.exp(-np.abs(eta))) + np.maximum(eta, 0)


def softplus_loss(eta, y):
    return softplus(eta) - y * np.log(softplus(eta))


def softplus_residual(eta, y):
    slope = 1 / (1 + np.exp(-eta))
    return slope * (1 - y / softplus(eta))


def softplus_curvature(eta, y):
    s, slope = softplus(eta), 1 / (1 + np.exp(-eta))
    return slope * (1 - slope) * (1 - y / s) + y * (slope / s) ** 2


# --- simulation ---------------------------------------------------------------------------------


def recurrent_eta(counts, coupling, kernel, intercepts, drive=None, init_y=None):
    """eta of every bin from the counts before it; ``coupling[j, i, b]``, receiver first."""
    n_bins, n_cells = counts.shape
    window_size, n_funcs = kernel.shape
    past = np.zeros((window_size, n_cells)) if init_y is None else init_y
    record = np.concatenate([past, counts])
    eta = np.zeros((n_bins, n_cells))
    for t in range(n_bins):
        for j in range(n_cells):
            eta[t, j] = intercepts[j] + (0 if drive is None else drive[t, j])
            for i in range(n_cells):
                for l in range(window_size):
                    for b in range(n_funcs):
                        y = record[window_size + t - 1 - l, i]
                        eta[t, j] += coupling[j, i, b] * kernel[l, b] * y
    return eta
