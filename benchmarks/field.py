"""Methods of the field that tell connections from spike trains, written anew from their papers.

All but the directed tiling coefficient start from the cross-correlograms of 1 ms bins
(`Correlograms`). A method returns an `Answer`. Delays of 1 to 20 ms are searched throughout,
because the networks of the yardstick have such delays; published windows are shorter (1 to 6 ms).

Sources
-------
difference, peak : Perkel, Gerstein & Moore, Biophys. J. 7 (1967).
coincidence index : Chiappalone et al., Int. J. Neural Syst. 17 (2007).
smoothed correlogram : Stark & Abeles, J. Neurosci. Methods 179 (2009); English et al., Neuron 96
    (2017).
directed tiling coefficient : Cutts & Eglen, J. Neurosci. 34 (2014); its directed form: Donner et
    al., PLoS Comput. Biol. 20 (2024).
transfer entropy : Schreiber, Phys. Rev. Lett. 85 (2000); delays: Ito et al., PLoS ONE 6 (2011).
GLMCC : Kobayashi et al., Nat. Commun. 10 (2019).
ensemble : Donner et al. (2024), whose network is trained on simulations of their own.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse
from scipy import stats
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

BIN = 0.001  # seconds
LONGEST = 20  # bins: the longest delay that is searched
REACH = 50  # bins: half the window of a correlogram
HOLLOW, WIDTH = 0.6, 10.0  # part of the middle that is left out; sd of the Gaussian, bins
TILE = 7  # bins of a tile
FADE, STIFFNESS, ALPHA = 4.0, 4000.0, 0.001  # GLMCC: bins, 2 / gamma of the paper, level


@dataclass
class Answer:
    """What a method says of every pair; [i, j] is from cell i to cell j.

    Attributes
    ----------
    score : ndarray of shape (n_cells, n_cells)
        Positive for excitation, negative for inhibition; its modulus ranks pairs.
    p : ndarray of the same shape, or None
        P-values, corrected for the delays that were searched.
    own : ndarray of bool of the same shape, or None
        What the method takes for a connection at its own threshold.
    earlier : float
        Processor seconds of work that was done before, for several methods.
    """

    score: np.ndarray
    p: np.ndarray | None = None
    own: np.ndarray | None = None
    earlier: float = 0.0


class Correlograms:
    """Numbers of coincidences of binary trains at 1 ms.

    ``pairs[l, i, j]`` is the number of bins t with cell i in t and cell j in t + l.
    """

    def __init__(self, trains, seconds):
        self.n_cells, self.n_bins = len(trains), round(seconds / BIN)
        bins = [np.unique((train / BIN + 1e-6).astype(np.int64)) for train in trains]
        self.bins = [b[b < self.n_bins] for b in bins]
        self.events = np.array([b.size for b in self.bins], float)

    @cached_property
    def counts(self):
        """Sparse table of shape (n_bins, n_cells)."""
        return self._table(self.bins)

    @cached_property
    def pairs(self):
        """Lags 0 to 70."""
        most = REACH + LONGEST
        return np.stack([_lagged(self.counts, self.counts, lag) for lag in range(most + 1)])

    @property
    def causal(self):
        """Lags 1 to 20."""
        return self.pairs[1 : LONGEST + 1]

    @cached_property
    def expected(self):
        """Coincidences in a bin of independent cells."""
        return np.maximum(np.outer(self.events, self.events) / self.n_bins, 1e-9)

    def both_sides(self, reach):
        """Lags -reach to reach."""
        back = self.pairs[reach:0:-1].transpose(0, 2, 1)
        return np.concatenate([back, self.pairs[: reach + 1]])

    def after_each_other(self):
        """As `pairs`, lags 0 to 20, with bins of j whose last bin has an event of j as well."""
        twice = [b[1:][np.diff(b) == 1] for b in self.bins]
        other = self._table(twice)
        return np.stack([_lagged(self.counts, other, lag) for lag in range(LONGEST + 1)])

    def _table(self, bins):
        rows, columns = (
            np.concatenate(bins),
            np.repeat(np.arange(len(bins)), [b.size for b in bins]),
        )
        shape = self.n_bins, self.n_cells
        return scipy.sparse.csr_array((np.ones(rows.size), (rows, columns)), shape=shape)


def _lagged(a, b, lag):
    return (a[: a.shape[0] - lag].T @ b[lag:]).toarray()


# --- methods --------------------------------------------------------------------------------------


def difference(c):
    """Events of j 2 to 15 ms after those of i, minus the reverse, in standard deviations."""
    after = c.pairs[2:16].sum(axis=0)
    z = (after - after.T) / np.sqrt(np.maximum(after + after.T, 1))
    return Answer(z, 2 * stats.norm.sf(np.abs(z)))


def peak(c):
    """The most unlikely bin of the correlogram, if cells were independent."""
    return _extreme(c.causal, np.broadcast_to(c.expected, c.causal.shape))


def smoothed(c):
    """The most unlikely bin, if the correlogram were its own hollow Gaussian average.

    The average is slow rates' part; the middle counts 0.4 of what it would, so that a peak does
    not explain itself. ``own``: p below 0.001 after correction.
    """
    lags = np.arange(-REACH, REACH + 1)
    weight = np.exp(-0.5 * (lags / WIDTH) ** 2)
    weight[REACH] *= 1 - HOLLOW
    every = c.both_sides(REACH + LONGEST)
    slow = np.empty_like(c.causal)
    for k in range(LONGEST):
        first = LONGEST + k + 1  # of lags -49 + k to 51 + k
        slow[k] = np.tensordot(weight / weight.sum(), every[first : first + lags.size], 1)
    answer = _extreme(c.causal, np.maximum(slow, 1e-9))
    answer.own = answer.p < ALPHA
    return answer


def _extreme(counts, expected):
    """Signed logarithm of the smallest mid-p of Poisson counts over the first axis."""
    at = stats.poisson.logpmf(counts, expected) - np.log(2)
    high = np.logaddexp(stats.poisson.logsf(counts, expected), at).min(axis=0)
    low = np.logaddexp(stats.poisson.logcdf(counts - 1, expected), at).min(axis=0)
    smallest = np.minimum(high, low)
    score = np.where(high < low, -smallest, smallest)
    return Answer(score, np.exp(np.minimum(smallest + np.log(2 * len(counts)), 0.0)))


def coincidence_index(c):
    """The part of the correlogram of +-50 ms that lies at delays of 1 to 20 ms.

    If the correlogram is flat, the part is that of a binomial of its total.
    """
    total, some = c.both_sides(REACH).sum(axis=0), c.causal.sum(axis=0)
    part = LONGEST / (2 * REACH + 1)
    z = (some - part * total) / np.sqrt(np.maximum(total, 1) * part * (1 - part))
    return Answer(z, 2 * stats.norm.sf(np.abs(z)))


def tiling(c):
    """Directed spike time tiling coefficient of tiles of 7 ms, without surrogates.

    Half of what tiles after events of i say of j, and half of what tiles before events of j say of
    i: (part of events within tiles - part of time in tiles) / (1 - their product).
    """
    gaps = [np.diff(b, append=b[-1:] + TILE) for b in c.bins]
    covered = np.array([np.minimum(gap, TILE).sum() / c.n_bins for gap in gaps])
    score = np.zeros((c.n_cells, c.n_cells))
    for i, j in np.argwhere(~np.eye(c.n_cells, dtype=bool)):
        before, after = c.bins[i], c.bins[j]
        if before.size == 0 or after.size == 0:
            continue
        # Events of the other train in the tile (t, t + 7], or [t - 7, t).
        later = np.searchsorted(after, [before, before + TILE], side="right")
        earlier = np.searchsorted(before, [after - TILE, after], side="left")
        sent, heard = (np.mean(last > first) for first, last in (later, earlier))
        score[i, j] = 0.5 * (sent - covered[j]) / (1 - sent * covered[j])
        score[i, j] += 0.5 * (heard - covered[i]) / (1 - heard * covered[i])
    return Answer(score)


def transfer_entropy(c):
    """Largest transfer entropy over delays, one bin of either history.

    ``TE(d) = sum p(y, y', x) log(p(y | y', x) / p(y | y'))`` with y = s_j(t), y' = s_j(t - 1) and
    x = s_i(t - d). 2 n_bins TE is chi-squared with two degrees of freedom if x says nothing.
    """
    x, y = c.events[:, None], c.events[None, :]
    twice = c.after_each_other()
    both = np.diag(c.pairs[1])[None, :]  # y and y'
    best, sign = np.zeros((c.n_cells, c.n_cells)), np.ones((c.n_cells, c.n_cells))
    for d in range(1, LONGEST + 1):
        xy, x_past, all_three = c.pairs[d], c.pairs[d - 1], twice[d]
        entropy = np.zeros_like(best)
        for past in (True, False):
            n = np.maximum(y + 0 * x if past else c.n_bins - y + 0 * x, 1)  # bins with this y'
            n_x = x_past if past else x - x_past
            n_y = both if past else y - both
            n_xy = all_three if past else xy - all_three
            for a, ab in ((n_x, n_xy), (n - n_x, n_y - n_xy)):
                for joint, share in ((ab, n_y / n), (a - ab, 1 - n_y / n)):
                    entropy += _kl(joint, a * share)
        sign = np.where(entropy > best, np.sign(xy - c.expected), sign)
        best = np.maximum(best, entropy)
    return Answer(sign * best, np.minimum(LONGEST * stats.chi2.sf(2 * best, 2), 1.0))


def _kl(counts, expected):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(counts > 0, counts * np.log(counts / expected), 0.0)


def glmcc(c):
    """A correlogram as exp(slow + J_ij f(lag) + J_ji f(-lag)), f(l) = exp(-(l - d) / 4 ms), l >= d.

    The slow part is a penalised walk. The delay of a pair is the most likely one; J is compared
    with its standard deviation under J = 0, 1.57 / sqrt(4 ms x coincidences per ms). ``own``: the
    paper's level of 0.001 for each pair, and more than 10 coincidences in 4 ms.
    """
    row, column = np.tril_indices(c.n_cells, -1)
    counts = c.both_sides(REACH)[:, row, column]
    best, z = np.full(row.size, -np.inf), np.zeros((2, row.size))
    state = np.log(np.maximum(counts.mean(axis=0), 0.1)) + 0 * counts, np.zeros((2, row.size))
    for delay in range(1, LONGEST + 1):
        lag = np.arange(-REACH, REACH + 1) * np.array([[1], [-1]])
        shape = np.where(lag >= delay, np.exp(-(np.maximum(lag, delay) - delay) / FADE), 0.0)
        value, *state = _newton(counts, shape, *state)
        ahead = (lag >= delay) & (lag < delay + FADE)
        near = np.stack([FADE * np.exp(state[0][side]).mean(axis=0) for side in ahead])
        new = np.where(near > 10, state[1] * np.sqrt(near) / 1.57, 0.0)
        z, best = np.where(value > best, new, z), np.maximum(value, best)
    both = np.zeros((c.n_cells, c.n_cells))
    both[row, column], both[column, row] = z
    p = np.minimum(LONGEST * 2 * stats.norm.sf(np.abs(both)), 1.0)
    return Answer(both, p, np.abs(both) > stats.norm.isf(ALPHA / 2))


def _newton(counts, shape, slow, strength):
    """Log posterior, slow part (n_lags, n_pairs) and both J of all pairs by Newton's method."""
    value = _posterior(counts, shape, slow, strength)
    for _ in range(30):
        mu = np.exp(np.minimum(slow + shape.T @ strength, 50.0))
        gradient = counts - mu - STIFFNESS * _curved(slow)
        between = mu * shape[:, :, None]  # Hessian between slow part and J
        first, *other = _tridiagonal(mu, np.stack([gradient, *between]))
        slope = shape @ (counts - mu)
        # The Hessian of both J without the slow part; they meet through the slow part only.
        left = np.stack([[-(b * o).sum(axis=0) for o in other] for b in between])
        left[[0, 1], [0, 1]] += (between * shape[:, :, None]).sum(axis=1) + 1e-6
        right = slope - (between * first).sum(axis=1)
        determinant = left[0, 0] * left[1, 1] - left[0, 1] * left[1, 0]
        jump = np.stack([left[1, 1] * right[0] - left[0, 1] * right[1],
                         left[0, 0] * right[1] - left[1, 0] * right[0]]) / determinant  # fmt: skip
        step = first - jump[0] * other[0] - jump[1] * other[1]
        part = np.minimum(1.0, 1.0 / np.maximum(np.abs(jump).max(axis=0), 1e-9))
        part[np.abs(strength).max(axis=0) > 10] = 0.0  # no coincidence at all: J has no maximum
        least = value - 1e-9 * np.abs(value)
        for _ in range(10):
            new = _posterior(counts, shape, slow + part * step, strength + part * jump)
            if (new >= least).all():
                break
            part = np.where(new >= least, part, part / 2)
        part = np.where(new >= least, part, 0.0)
        slow, strength = slow + part * step, strength + part * jump
        gain, value = new - value, np.where(part > 0, new, value)
        if gain.max() < 1e-4:
            break
    return value, slow, strength


def _posterior(counts, shape, slow, strength):
    eta = np.minimum(slow + shape.T @ strength, 50.0)
    walk = np.diff(slow, axis=0)
    return (counts * eta - np.exp(eta)).sum(axis=0) - STIFFNESS / 2 * (walk**2).sum(axis=0)


def _curved(slow):
    """Half the gradient of the sum of squared steps."""
    walk = np.diff(slow, axis=0)
    nothing = np.zeros_like(slow[:1])
    return np.concatenate([nothing, walk]) - np.concatenate([walk, nothing])


def _tridiagonal(weight, columns):
    """Solutions x of ``(diag(weight) + STIFFNESS x walk) x = columns``; lags are the axis -2."""
    ratio, solved, n = np.empty_like(weight), np.empty_like(columns), len(weight)
    for k in range(n):
        diagonal = weight[k] + STIFFNESS * (2 if 0 < k < n - 1 else 1)
        right = columns[:, k]
        if k > 0:
            diagonal = diagonal + STIFFNESS * ratio[k - 1]
            right = right + STIFFNESS * solved[:, k - 1]
        ratio[k] = -STIFFNESS / diagonal
        solved[:, k] = right / diagonal
    for k in range(n - 2, -1, -1):
        solved[:, k] -= ratio[k] * solved[:, k + 1]
    return solved


METHODS = {
    "correlogram, after minus before": difference,
    "correlogram, largest bin": peak,
    "coincidence index": coincidence_index,
    "directed tiling coefficient": tiling,
    "smoothed correlogram": smoothed,
    "transfer entropy": transfer_entropy,
    "GLMCC": glmcc,
}


class Ensemble:
    """A small network over the scores of all `METHODS`, trained on populations with known links.

    Its inputs are the scores of a pair and of the other direction and the logarithm of the expected
    coincidences; its outputs the probabilities of inhibition, nothing and excitation. It sees at
    most ten unconnected pairs for every connected one. ``own``: something is more likely than
    nothing.
    """

    def __init__(self, examples, seed=0):
        """``examples``: pairs of `Correlograms` and adjacency."""
        rng = np.random.default_rng(seed)
        inputs, kinds = [], []
        for c, adjacency in examples:
            off = ~np.eye(c.n_cells, dtype=bool)
            kind = np.sign(adjacency)[off].astype(int)
            none = np.flatnonzero(kind == 0)
            few = rng.choice(none, min(none.size, 10 * np.count_nonzero(kind)), replace=False)
            chosen = np.sort(np.concatenate([np.flatnonzero(kind), few]))
            inputs.append(self._inputs(c)[chosen])
            kinds.append(kind[chosen])
        layers = MLPClassifier((10, 10), alpha=1e-2, max_iter=2000, random_state=seed)
        self.network = make_pipeline(StandardScaler(), layers)
        self.network.fit(np.concatenate(inputs), np.concatenate(kinds))

    def __call__(self, c):
        n, off = c.n_cells, ~np.eye(c.n_cells, dtype=bool)
        inhibits, _, excites = self.network.predict_proba(self._inputs(c)).T
        score, own = np.zeros((n, n)), np.zeros((n, n), bool)
        score[off] = np.where(excites >= inhibits, 1, -1) * (excites + inhibits)
        own[off] = excites + inhibits > 0.5
        return Answer(score, None, own)

    @staticmethod
    def _inputs(c):
        off = ~np.eye(c.n_cells, dtype=bool)
        columns = [np.log(c.expected)[off]]
        for method in METHODS.values():
            score = method(c).score
            squashed = np.sign(score) * np.log1p(np.abs(score))
            columns += [squashed[off], squashed.T[off]]
        return np.stack(columns, axis=1)
