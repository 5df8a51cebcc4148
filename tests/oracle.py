"""Optima of penalised GLMs from the formulas of the documentation, with NumPy and SciPy alone.

The problem of one receiver, over the rows where its features and its count are known:

    minimise  sum_t w_t loss(eta_t, y_t) / sum_t w_t + sum_f ridge_f c_f^2 / 2 + sum_g size_g |c_g|
    with      eta_t = x_t . c + b + o_t

The value that `solve` returns is attained: it is the objective at a point, in long doubles. A fit
whose objective is higher is above its optimum, however well or badly the oracle has converged.

- Columns are centred by a constant near their mean, which the intercept takes up, and scaled.
- Without norms, the coordinates are those in which the Hessian at the mean rate is the identity,
  from a singular value decomposition of rows and ridge together. Newton's method is damped.
- Norms are smoothed by a barrier whose strength goes to 0 (Boyd & Vandenberghe, 2004, chapter 11).
- Bins at infinity are found by linear programmes, and left out of the objective.
"""

from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
from scipy.optimize import brentq, linprog
from scipy.special import expit, gammaln, xlog1py, xlogy

CUT = 1e-10  # singular value of scaled columns below which they count as collinear
EPS = np.finfo(float).eps
LINKS = {
    "exp": "Poisson",
    "softplus": "Poisson",
    "logistic": "Bernoulli",
    "cloglog": "Bernoulli",
    "identity": "Gaussian",
}
# Links that several families have, with the name of the family.
MORE = ("Gamma one_over_x", "Gamma exp", "Gamma softplus")
MORE += ("NegativeBinomial exp", "NegativeBinomial softplus")
FAMILIES = {**LINKS, **{link: link.split()[0] for link in MORE}}

# --- formulas of a bin --------------------------------------------------------------------------


def mean(eta, link):
    """Expected count of a bin."""
    link = link.split()[-1]
    if link == "exp":
        return np.exp(eta)
    if link == "softplus":
        return np.logaddexp(0, eta)
    if link == "one_over_x":
        return 1 / np.where(eta > 0, eta, np.nan)
    if link == "logistic":
        return expit(eta)
    return -np.expm1(-np.exp(eta)) if link == "cloglog" else eta


def log_mean(eta, link):
    """``log(mean)``, with all digits where the mean is near 0 or 1."""
    link = link.split()[-1]
    if link == "one_over_x":
        return -np.log(np.where(eta > 0, eta, np.nan))
    if link == "exp":
        return eta
    if link == "softplus":
        low = np.minimum(eta, -30)
        return np.where(eta < -30, low - np.exp(low) / 2, np.log(mean(np.maximum(eta, -30), link)))
    if link == "logistic":
        return -np.logaddexp(0, -eta)
    low, m = np.minimum(eta, -30), np.exp(np.maximum(eta, -30))
    high = np.where(m > 0.7, np.log1p(-np.exp(-m)), np.log(-np.expm1(-np.minimum(m, 0.7))))
    return np.where(eta < -30, low - np.exp(low) / 2, high)


def parts(eta, y, link, scale=1.0):
    """Two terms whose sum is the loss of a bin; the scale is that of negative binomial counts."""
    if link.startswith("Gamma"):
        middle = log_mean(eta, link)
        ratio = y * (eta if link.endswith("one_over_x") else np.exp(-middle))
        return tuple(np.where(np.isnan(middle), np.inf, part) for part in (ratio, middle))
    if link.startswith("NegativeBinomial"):
        rest = np.log1p(scale * mean(eta, link)) if scale else 0.0 * eta
        first = rest / scale if scale else mean(eta, link)
        log_scale = np.log(scale) if scale else 0.0
        return first, -np.where(y == 0, 0, y * (log_scale + log_mean(eta, link) - rest))
    if link in ("exp", "softplus"):
        return mean(eta, link), -np.where(y == 0, 0, y * log_mean(eta, link))
    if link == "logistic":
        return (1 - y) * np.logaddexp(0, eta), -y * log_mean(eta, link)
    if link == "cloglog":
        zero, one = np.where(y == 1, 0, np.exp(eta)), log_mean(eta, link)
        return (1 - y) * zero, -np.where(y == 0, 0, y * one)
    return (y - eta) ** 2, np.zeros_like(eta)


def derivatives(eta, y, link, scale=1.0):
    """First and second derivative of the loss of a bin."""
    if link in MORE:
        return _by_the_chain(eta, y, link, scale)
    if link == "exp":
        return np.exp(eta) - y, np.exp(eta)
    if link == "identity":
        return 2 * (eta - y), np.full(len(eta), 2.0)
    if link == "logistic":
        return (1 - y) * expit(eta) - y * expit(-eta), expit(eta) * expit(-eta)
    m = np.exp(eta)
    if link == "softplus":
        near = np.maximum(eta, -20)
        slope, size = expit(eta), mean(near, link)
        ratio = np.where(eta < -20, 1 - m / 2, expit(near) / size)  # of log(mean)
        bend = np.where(eta < -20, -m / 2, ratio * (1 - slope - ratio))
        return slope - y * ratio, slope * (1 - slope) - y * bend
    m = np.minimum(m, 700.0)
    ratio = m * np.exp(-m) / -np.expm1(-np.maximum(m, 1e-300))
    ratio = np.where(m < 1e-9, 1 - m / 2, ratio)
    excess = np.where(m < 1e-4, m / 2 + m * m / 12, m / -np.expm1(-np.maximum(m, 1e-300)) - 1)
    return (1 - y) * np.exp(eta) - y * ratio, (1 - y) * np.exp(eta) + y * ratio * excess


def _by_the_chain(eta, y, link, scale):
    """From the derivatives of ``log(mean)`` in eta, and those of the loss in ``log(mean)``."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        mu = mean(eta, link)
        if link.endswith("one_over_x"):
            slope, bend = -mu, mu**2
        elif link.endswith("exp"):
            slope, bend = np.ones(len(eta)), np.zeros(len(eta))
        else:
            near = np.maximum(eta, -20)
            logistic = expit(near)
            slope = np.where(eta < -20, 1 - np.exp(eta) / 2, logistic / mean(near, link))
            bend = np.where(eta < -20, -np.exp(eta) / 2, slope * (1 - logistic - slope))
        if link.startswith("Gamma"):
            first, second = 1 - y / mu, y / mu
        else:
            v = 1 + scale * mu
            first, second = (mu - y) / v, mu * (1 + scale * y) / v / v
        return first * slope, second * slope**2 + first * bend


def expected_curvature(eta, link, scale=1.0):
    if link in MORE:
        y = mean(eta, link)
        return _by_the_chain(eta, y, link, scale)[1]
    if link == "softplus":
        return expit(eta) ** 2 / mean(eta, link)
    if link == "cloglog":
        m = np.exp(eta)
        return m * m * np.exp(-m) / -np.expm1(-m)
    return derivatives(eta, np.zeros(len(eta)), link)[1]


def log_likelihood(y, mu, link, scale=1.0):
    family = FAMILIES[link]
    if family == "Gamma":
        k = 1 / np.asarray(scale)
        return (k - 1) * np.log(y) - k * (y / mu + np.log(mu / k)) - gammaln(k)
    if family == "NegativeBinomial":
        small = np.asarray(scale) < 1e-5  # where logarithms of gamma functions cancel
        k = 1 / np.where(small, 1.0, scale)
        value = gammaln(y + k) - gammaln(k) - gammaln(y + 1) + k * np.log(k / (k + mu))
        near = xlogy(y, mu) - mu - gammaln(y + 1) + scale / 2 * ((y - mu) ** 2 - y)
        return np.where(small, near, value + xlogy(y, mu / (k + mu)))
    if family == "Poisson":
        return xlogy(y, mu) - mu - gammaln(y + 1)
    if family == "Bernoulli":
        return xlogy(y, mu) + xlog1py(1 - y, -mu)
    return -0.5 * np.log(2 * np.pi * scale) - (y - mu) ** 2 / (2 * scale)


def deviance(y, mu, link, scale=1.0):
    family = FAMILIES[link]
    if family == "Gamma":
        return 2 * (y / mu - 1 - np.log(y / mu))
    if family == "NegativeBinomial":
        s = np.maximum(scale, 1e-12)
        ratio = np.log1p(s * (y - mu) / (1 + s * mu))
        return 2 * (xlogy(y, y) - xlogy(y, mu) - (y + 1 / s) * ratio)
    if family == "Poisson":
        return 2 * (xlogy(y, y) - xlogy(y, mu) - (y - mu))
    if family == "Bernoulli":
        return -2 * (xlogy(y, mu) + xlog1py(1 - y, -mu))
    return (y - mu) ** 2


def residuals(eta, y, kind, link, scale=1.0):
    """Residuals from eta, so that they keep their digits where a mean is near 0 or 1."""
    mu = mean(eta, link)
    if kind == "response":
        return y - mu
    if link in MORE:
        if kind == "pearson":
            by_scale = scale * mu**2
            return (y - mu) / np.sqrt(by_scale + (0 if FAMILIES[link] == "Gamma" else mu))
        dispersion = scale if FAMILIES[link] == "Gamma" else 1.0
        size = np.maximum(deviance(y, mu, link, scale), 0) / dispersion
        return np.sign(y - mu) * np.sqrt(size)
    if FAMILIES[link] == "Gaussian":
        return (y - eta) / np.sqrt(scale)
    if FAMILIES[link] == "Bernoulli":
        log_odds = eta if link == "logistic" else log_mean(eta, link) + np.exp(eta)
        if kind == "pearson":
            return np.where(y == 1, np.exp(-log_odds / 2), -np.exp(log_odds / 2))
        zero = np.logaddexp(0, eta) if link == "logistic" else np.exp(eta)
        return np.where(y == 1, np.sqrt(-2 * log_mean(eta, link)), -np.sqrt(2 * zero))
    if kind == "pearson":
        root = np.exp(log_mean(eta, link) / 2)
        return np.where(y == 0, -root, (y - mu) / np.where(y == 0, 1, root))
    known = np.where(y == 0, 1.0, y)
    value = np.where(y == 0, mu, y * (np.log(known) - log_mean(eta, link)) - (y - mu))
    return np.sign(y - mu) * np.sqrt(2 * np.maximum(value, 0))


# --- the problem of a receiver ------------------------------------------------------------------


@dataclass
class Receiver:
    """Rows that count, features that are free, and the penalty."""

    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    offset: np.ndarray
    link: str
    ridge: np.ndarray
    groups: list  # of (features, size)
    scale: float = 1.0

    @property
    def share(self):
        return self.weight / self.weight.sum()

    def penalty(self, coef):
        value = 0.5 * np.sum(self.ridge * coef**2)
        return value + sum(size * np.sqrt(np.sum(coef[f] ** 2)) for f, size in self.groups)

    def terms(self, eta):
        with np.errstate(over="ignore"):
            return parts(eta, self.y.astype(eta.dtype), self.link, self.scale)

    def loss(self, eta):
        first, second = self.terms(eta)
        return np.sum(self.share * (first + second))

    def value(self, coef, intercept):
        """The objective at a point of the user's, in long doubles."""
        coef = np.asarray(coef, np.longdouble)
        eta = self.X.astype(np.longdouble) @ coef + np.longdouble(intercept) + self.offset
        return self.loss(eta) + self.penalty(coef)

    def gradient(self, coef, intercept):
        """Gradient of the smooth part, the intercept last, and a bound of its rounding."""
        coef = np.asarray(coef, np.longdouble)
        eta = self.X.astype(np.longdouble) @ coef + np.longdouble(intercept) + self.offset
        slope, bend = derivatives(eta.astype(float), self.y, self.link, self.scale)
        error = EPS * (np.abs(self.X) @ np.abs(coef) + abs(intercept) + np.abs(self.offset))
        noise = self.share * (4 * EPS * (np.abs(slope) + self.y + 1) + 4 * bend * error)
        Z = np.column_stack([self.X, np.ones(len(self.y))])
        grad = Z.T @ (self.share * slope).astype(np.longdouble)
        grad[:-1] += self.ridge * coef
        return grad.astype(float), (np.abs(Z).T @ noise).astype(float)


@dataclass
class Optimum:
    """The lowest objective that the oracle attains.

    Attributes
    ----------
    value : float
    gap : float
        How far the value may be above the infimum, by the oracle's own certificate.
    scale : float
        Mean size of the terms of the objective.
    slack : float
        What it costs to round the oracle's point to float64 in the user's units.
    separated : int
        Bins that lie at infinity.
    condition : float
        Smallest singular value of the scaled columns that counts, over the largest.
    null : ndarray of shape (n_features, n_directions)
        Directions along which the features are collinear.
    coef, intercept : ndarray, float
    sure : bool
        No direction is between collinear and not.
    X : ndarray of long doubles, shape (n_bins, n_features), or None
        The features without what rounding has left along collinear directions, if there are any.
    noise : ndarray of bool, shape (n_features,)
        Columns that are constant up to rounding, and not constant.
    """

    value: float
    gap: float
    scale: float
    slack: float = 0.0
    separated: int = 0
    condition: float = 1.0
    null: np.ndarray | None = None
    coef: np.ndarray | None = None
    intercept: float = np.nan
    sure: bool = True
    X: np.ndarray | None = None
    noise: np.ndarray | None = None


def null_intercept(y, share, offset, link, scale=1.0):
    """Optimal intercept without features; infinite where all counts are at an end."""
    rate = np.sum(share * y)
    if FAMILIES[link] == "Gamma":
        return _null_gamma(y, share, offset, link)
    if link == "identity":
        return np.sum(share * (y - offset))
    if rate == 0:
        return -np.inf
    if FAMILIES[link] == "Bernoulli" and np.all(y == 1):
        return np.inf
    if link == "exp":
        top = offset.max()
        return np.log(rate) - top - np.log(np.sum(share * np.exp(offset - top)))

    def slope(b):
        return np.sum(share * derivatives(b + offset, y, link, scale)[0])

    low, high = -offset.max() - 1.0, -offset.min() + 1.0
    while slope(low) > 0:
        low -= max(1.0, abs(low))
    while slope(high) < 0:
        high += max(1.0, abs(high))
    return brentq(slope, low, high, xtol=1e-13, rtol=1e-13)


def _null_gamma(y, share, offset, link):
    if link.endswith("exp"):
        top = -offset.min()
        return np.log(np.sum(share * y * np.exp(-offset - top))) + top

    def slope(b):
        return np.sum(share * derivatives(b + offset, y, link)[0])

    if link.endswith("one_over_x"):
        low = -offset.min() + 1e-13 * (np.abs(offset).max() + 1 / y.max())
        high = -offset.min() + 2 / y.min()
    else:
        low, high = -offset.max() - 1.0, -offset.min() + 1.0
        while slope(low) > 0:
            low -= max(1.0, abs(low))
        while slope(high) < 0:
            high += max(1.0, abs(high))
    return brentq(slope, low, high, xtol=1e-13, rtol=1e-13)


def solve(receiver: Receiver) -> Optimum:
    r, n = receiver, len(receiver.y)
    start = null_intercept(r.y, r.share, r.offset, r.link, r.scale)
    if np.isinf(start):  # silent or saturated
        return Optimum(0.0, 0.0, 1.0 / n, separated=n, coef=np.zeros(r.X.shape[1]), intercept=start)
    Z, shift, size = centred(r.X, r.share)
    level = np.sum(r.share * expected_curvature(start + r.offset, r.link, r.scale))
    frame = _Frame(r, Z, size, max(level, 1e-300), shift)
    fit = frame.fit(r, start)
    found = fit
    if FAMILIES[r.link] not in ("Gaussian", "Gamma") and fit.curvature < 1e-5:
        for least in (1e-8, 1e-6, 1e-4):
            limit = _at_infinity(r, frame, start, least)
            if limit is None:
                break
            if limit.value <= fit.value + min(fit.gap, 1e-12):
                found = limit
                break
    first, second = r.terms((r.offset + start).astype(np.longdouble))
    null = abs(np.sum(r.share * (first + second)))
    terms = r.terms(_eta(r, frame.wide, found.coef, found.level))
    size_of_terms = float(np.sum(r.share * sum(map(np.abs, terms))) + r.penalty(found.coef))
    scale = float(max(size_of_terms, null, 1 / n))
    coef = found.coef.astype(float)
    intercept = float(found.level - np.sum(shift * found.coef))
    judge = r if frame.X is None else replace(r, X=frame.X)
    slack = 0.0 if found.separated else max(0.0, float(judge.value(coef, intercept) - found.value))
    return Optimum(
        float(found.value),
        float(found.gap),
        scale,
        slack,
        found.separated,
        frame.condition,
        frame.null,
        coef,
        intercept,
        frame.sure,
        frame.X,
        (size == 0) & (np.ptp(r.X, axis=0) > 0),
    )


def centred(X, share):
    """Columns minus a constant near their mean, that constant, and root mean squares.

    A column that is constant up to rounding becomes 0, and so does its size. The subtraction is
    exact where the mean is far from 0 (Sterbenz).
    """
    shift = share @ X
    Z = X - shift
    # Not the distance from the mean, whose own rounding grows with the number of rows.
    constant = np.ptp(X, axis=0) <= 64 * EPS * np.abs(X).max(axis=0, initial=0)
    Z[:, constant] = 0.0
    top = np.abs(Z).max(axis=0, initial=0)
    top[top == 0] = 1.0
    size = top * np.sqrt(share @ (Z / top) ** 2)
    return Z, shift, size


def _eta(r, wide, coef, level):
    return wide @ coef.astype(np.longdouble) + np.longdouble(level) + r.offset


@dataclass
class _Fit:
    """A point in centred columns: ``eta = Z @ coef + level + offset``."""

    coef: np.ndarray  # long doubles
    level: float
    value: float
    gap: float
    curvature: float  # smallest eigenvalue of the scaled Hessian
    separated: int = 0


class _Frame:
    """Coordinates of a receiver: ``coef = basis @ a``, where the Hessian is near the identity."""

    def __init__(self, r, Z, size, level, shift):
        self.Z, self.size, self.shift = Z, size, shift
        # Beside coefficients of 1e9 the rounding of centred columns would be a feature.
        self.wide = np.where(size > 0, r.X.astype(np.longdouble) - shift, 0.0)
        live = np.flatnonzero(size > 0)
        root = np.sqrt(r.share * level)
        A = np.concatenate([root[:, None] * Z[:, live], np.diag(np.sqrt(r.ridge[live]))])
        norm = np.sqrt((A**2).sum(axis=0))
        norm[norm == 0] = 1.0
        # A combination of columns that is constant up to rounding is no feature, as a column is
        # none: it is what rounding has left of collinear columns, and other digits beyond the
        # sixteenth would give another optimum. In units of the columns' rounding it is as small as
        # that, whatever else there is.
        unit = root.max(initial=0) * np.sqrt(len(Z)) * EPS
        unit *= np.abs(r.X[:, live]).max(axis=0, initial=0)
        unit[unit == 0] = 1.0
        _, S, Vt = np.linalg.svd(A / unit, full_matrices=False)
        noise = Vt[S <= 100]
        rows = Z[:, live], self.wide[:, live]
        A, *rows = (part - part / unit @ noise.T @ noise * unit for part in (A, *rows))
        _, S, Vt = np.linalg.svd(A / norm, full_matrices=False)
        keep = CUT * S.max(initial=0) < S
        self.condition = float(S[keep].min() / S.max()) if keep.any() else 1.0
        self.sure = not ((1e-13 * S.max(initial=0) < S) & (1e-8 * S.max(initial=0) > S)).any()
        self.X = None
        if not keep.all():
            for columns, part in zip((Z, self.wide), rows, strict=True):
                columns[:, live] = (part / norm) @ Vt[keep].T @ Vt[keep] * norm
            self.X = np.where(size > 0, shift + self.wide, r.X)
        self.basis = np.zeros((len(size), int(keep.sum())))
        self.basis[live] = Vt[keep].T / S[keep] / norm[:, None]
        self.columns = self._columns(self.basis)
        self.root = np.sqrt(r.ridge)[:, None] * self.basis
        self.null = self._null(r, live, Vt, S, keep, norm)

    def _columns(self, basis):
        if self.condition > 1e-5:
            return self.Z @ basis
        return (self.Z.astype(np.longdouble) @ basis.astype(np.longdouble)).astype(float)

    def _null(self, r, live, Vt, S, keep, norm):
        """Directions of the user's coefficients that change neither eta nor a penalty."""
        rest = np.linalg.svd(Vt[keep], full_matrices=True)[2][int(keep.sum()) :]
        dead = np.flatnonzero(self.size == 0)
        out = np.zeros((len(self.size), len(rest) + len(dead)))
        out[live, : len(rest)] = rest.T / norm[:, None]
        out[dead, len(rest) + np.arange(len(dead))] = 1.0
        penalised = r.ridge > 0
        for features, size in r.groups:
            penalised[features] |= size > 0
        if penalised.any() or not out.size:
            return out[:, :0]
        return np.linalg.qr(out / np.sqrt((out**2).sum(axis=0)))[0]

    def fit(self, r, level):
        return self._norms(r, level) if any(s > 0 for _, s in r.groups) else self._smooth(r, level)

    def _smooth(self, r, level):
        G = np.column_stack([self.columns, np.ones(len(r.y))])
        P = np.column_stack([self.root, np.zeros(len(self.root))])
        theta = np.append(np.zeros(G.shape[1] - 1), level)
        theta, gap, curvature, _ = _newton(G, r, theta, _Quadratic(P))
        coef = self.basis.astype(np.longdouble) @ theta[:-1]
        return self._point(r, coef, theta[-1], gap, curvature)

    def _norms(self, r, level):
        scale = np.where(self.size > 0, self.size, 1.0)
        G = np.column_stack([self.Z / scale, np.ones(len(r.y))])
        theta, n_groups = np.append(np.zeros(len(scale)), level), len(r.groups)
        size = abs(float(r.loss(level + r.offset))) + 1e-300
        mu, best = 0.1 * size / n_groups, None
        while mu > 1e-14 * size / n_groups:
            steps = 100 if best is None else 30
            theta, gap, curvature, done = _newton(G, r, theta, _Barrier(r, scale, mu), steps)
            best = (theta, 2 * n_groups * mu + gap, curvature) if done or best is None else best
            mu /= 10
        theta, gap, curvature = best
        coef = theta[:-1].astype(np.longdouble) / scale
        found = self._point(r, coef, theta[-1], gap, curvature)
        snapped = coef.copy()
        for features, weight in r.groups:
            if weight * np.sqrt(np.sum(snapped[features] ** 2)) < 1e-9 * size:
                snapped[features] = 0
        other = self._point(r, snapped, theta[-1], gap, curvature)
        return other if other.value < found.value else found

    def _point(self, r, coef, level, gap, curvature):
        value = r.loss(_eta(r, self.wide, coef, level)) + r.penalty(coef)
        return _Fit(coef, level, value, gap, curvature)


class _Quadratic:
    def __init__(self, root):
        self.root, self.hess = root, root.T @ root

    def __call__(self, theta):
        step = self.root @ theta
        return 0.5 * step @ step

    def derivatives(self, theta):
        return self.root.T @ (self.root @ theta), self.hess


class _Barrier:
    """Ridge, and norms ``w |c|`` as the minimum over t of ``w t - mu log(t^2 - |c|^2)``."""

    def __init__(self, r, scale, mu):
        self.ridge, self.scale, self.mu = r.ridge / scale**2, scale, mu
        self.groups = [(f, w) for f, w in r.groups if w > 0]

    def __call__(self, theta):
        value, mu = 0.5 * np.sum(self.ridge * theta[:-1] ** 2), self.mu
        for f, w in self.groups:
            t = self._top(theta[f] / self.scale[f], w)[0]
            value += w * t - mu * np.log(2 * mu * t / w)
        return value

    def _top(self, c, w):
        root = np.sqrt(self.mu**2 + w * w * (c @ c))
        return (self.mu + root) / w, root

    def derivatives(self, theta):
        grad, hess = np.append(self.ridge * theta[:-1], 0.0), np.diag(np.append(self.ridge, 0.0))
        for f, w in self.groups:
            D, c = 1 / self.scale[f], theta[f] / self.scale[f]
            t, root = self._top(c, w)
            v = D * c
            grad[f] += w * v / t
            hess[f, f] += w * D * D / t
            hess[np.ix_(f, f)] -= w * w / (t * t * root) * np.outer(v, v)
        return grad, hess


def _newton(G, r, theta, penalty, steps=150):
    """Damped Newton steps; point, predicted gap, smallest scaled eigenvalue, whether it ended."""
    share, link = r.share, r.link
    crooked = link in MORE and link.endswith("softplus")  # not convex

    def value(theta):
        with np.errstate(over="ignore", invalid="ignore"):
            first, second = parts(G @ theta + r.offset, r.y, link, r.scale)
            rough = np.sum(share * np.abs(first)) + np.sum(share * np.abs(second))
            return np.sum(share * (first + second)) + penalty(theta), rough

    now, rough = value(theta)
    gap, smallest = np.inf, 1.0
    for _ in range(steps):
        slope, bend = derivatives(G @ theta + r.offset, r.y, link, r.scale)
        grad, of_penalty = penalty.derivatives(theta)
        grad = grad + G.T @ (share * slope)
        hess = of_penalty + (G * (share * bend)[:, None]).T @ G
        if crooked and np.isfinite(hess).all() and np.linalg.eigvalsh(hess)[0] <= 0:
            bend = expected_curvature(G @ theta + r.offset, link, r.scale)
            hess = of_penalty + (G * (share * bend)[:, None]).T @ G
        if not np.isfinite(hess).all():
            break
        jacobi = 1 / np.sqrt(np.maximum(np.diag(hess), 1e-290))
        jacobi[np.diag(hess) <= 0] = 0.0
        scaled = hess * jacobi * jacobi[:, None]
        try:
            values, V = np.linalg.eigh(scaled)
        except np.linalg.LinAlgError:  # another algorithm
            values, V = scipy.linalg.eigh(scaled, driver="ev")
        smallest = min(values[0], np.diag(hess).min())
        step = -jacobi * (V @ ((V.T @ (jacobi * grad)) / np.maximum(values, 1e-15)))
        gap = -grad @ step / 2
        far = np.abs(G @ step).max()
        if link.endswith(("exp", "cloglog")) and far > 8:
            step *= 8 / far
        length, floor = 1.0, 4 * EPS * (rough + abs(now))
        while True:
            new, new_rough = value(theta + length * step)
            if new <= now + 1e-4 * length * (grad @ step) + floor or length < 1e-12:
                break
            length /= 2
        if not new <= now + floor:
            return theta, gap, smallest, gap < 1e-10 * rough
        done = gap <= 1e-18 * (rough + abs(now))
        theta, now, rough = theta + length * step, new, new_rough
        if done:
            return theta, gap, smallest, True
    return theta, gap, smallest, False


# --- optima at infinity -------------------------------------------------------------------------


def _at_infinity(r, frame, start, least):
    """The fit of the rows that do not separate, moved towards infinity; None if all rows stay.

    A change of eta below ``least`` counts as rounding of the linear programme.
    """
    free = r.ridge == 0
    for features, size in r.groups:
        free[features] &= size == 0
    free &= frame.size > 0
    index = np.flatnonzero(free)
    A = frame.Z[:, index] / frame.size[index]
    U, S, Vt = np.linalg.svd(A, full_matrices=False)
    keep = CUT * S.max(initial=0) < S
    G = np.column_stack([U[:, keep] * np.sqrt(len(r.y)), np.ones(len(r.y))])
    direction, away = _recession(G, r.y, FAMILIES[r.link] != "Bernoulli", least)
    if not away.any():
        return None
    move = np.zeros(len(free), np.longdouble)
    back = Vt[keep].T / S[keep] * np.sqrt(len(r.y))
    move[index] = (back @ direction[:-1]) / frame.size[index]
    rest = replace(r, weight=np.where(away, 0.0, r.weight))
    part = rest.weight.sum() / r.weight.sum()
    if away.all() or part == 0:
        point = _Fit(np.zeros(len(free), np.longdouble), start, 0.0, 0.0, 0.0)
    else:
        rest = replace(
            rest, ridge=r.ridge / part, groups=[(f, size / part) for f, size in r.groups]
        )
        point = frame_of(rest, frame).fit(rest, _start_of(rest, start))
        point.gap *= part
    best = None
    sign = np.where((r.y > 0) & (FAMILIES[r.link] == "Bernoulli"), -1.0, 1.0)
    slack = -(sign * (G @ direction))[away].max()
    for reach in (3.0, 10.0, 30.0, 60.0):
        length = reach / max(slack, 1e-11)
        coef, level = point.coef + length * move, point.level + length * direction[-1]
        value = r.loss(_eta(r, frame.wide, coef, level)) + r.penalty(coef)
        # Far along it, rounding of collinear columns moves the rows that stay.
        value = max(value, part * point.value)
        if best is None or value < best.value:
            best = _Fit(coef, level, value, point.gap, 0.0, int(away.sum()))
    return best


def frame_of(rest, frame):
    """Coordinates for the rows that stay."""
    inside = rest.weight > 0
    Z, _, size = centred(frame.Z[inside], rest.share[inside])
    # The columns stay centred as they are, so that the point is one of the whole problem.
    del Z
    Z = frame.Z.copy()
    Z[:, size == 0] = 0.0
    return _Frame(rest, Z, size, 1.0, frame.shift)


def _start_of(rest, start):
    inside = rest.weight > 0
    own = rest.y[inside], rest.share[inside], rest.offset[inside]
    level = null_intercept(*own, rest.link, rest.scale)
    return level if np.isfinite(level) else start


def _recession(G, y, poisson, least):
    """A direction along which the most rows go to infinity at no cost, and these rows.

    Counts of 0 may go to minus infinity. Events stay (Poisson), or may go to plus infinity
    (Bernoulli).
    """
    away = np.zeros(len(y), bool)
    if poisson:
        events = y > 0
        _, S, Vt = np.linalg.svd(G[events], full_matrices=True)
        rank = int((1e-9 * S.max(initial=0) < S).sum())
        N, rows = Vt[rank:].T, np.flatnonzero(~events)
        A = G[rows] @ N
    else:
        N, rows = np.eye(G.shape[1]), np.arange(len(y))
        A = np.where(y > 0, -1.0, 1.0)[:, None] * G
    left = np.ones(len(rows), bool)
    options = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
    while N.shape[1] and left.any():
        found = linprog(A[left].sum(axis=0), A, np.zeros(len(A)), bounds=(-1, 1), options=options)
        gone = left & (A @ found.x < -least) if found.x is not None else np.zeros(len(A), bool)
        if not gone.any():
            break
        left &= ~gone
    if not (~left).any():
        return np.zeros(G.shape[1]), away
    # Of these directions the one whose smallest change of eta is largest.
    wide = np.column_stack([A, np.where(left, 0.0, 1.0)])
    bounds = [(-1, 1)] * N.shape[1] + [(0, None)]
    found = linprog(np.append(np.zeros(N.shape[1]), -1.0), wide, np.zeros(len(A)), bounds=bounds,
                    options=options)  # fmt: skip
    if found.x is None or found.x[-1] <= 0:
        return np.zeros(G.shape[1]), away
    away[rows[~left]] = True
    return N @ found.x[:-1], away


# --- standard errors ----------------------------------------------------------------------------


def _of_few_events(r, G, eta, bend, filters, away, scale):
    """What the model adds to the middle of a sandwich of columns and, last, ones.

    ``away`` is what the columns lack to be centred over all bins of the fit.
    """
    G, back = G.copy(), np.eye(G.shape[1])
    G[:, :-1] += away
    back[:-1, -1] = -away
    h, mu = expected_curvature(eta, r.link, r.scale), mean(eta, r.link)
    family = FAMILIES[r.link]
    with np.errstate(all="ignore"):
        spread = {"Poisson": mu, "Bernoulli": mu * (1 - mu)}.get(family, np.inf)
        if family == "NegativeBinomial":
            spread = mu + r.scale * mu**2
        kurtosis = np.where(spread > 0, h * (h / spread), 0.0)
        kurtosis += {"Gamma": 6 * scale, "NegativeBinomial": 6 * r.scale}.get(family, 0.0) * h**2
        size = np.append(np.sum(filters[:, None] == filters, axis=1), 1)
        variance, fourth = (r.weight * h) @ G**2, (r.weight * kurtosis) @ G**4
        n = variance**2 / (fourth + (size + 1) * ((r.weight * h**2) @ G**4))
        share = np.clip(30 / n - 1, 0, 1)
    fisher = (G * (r.weight * bend)[:, None]).T @ G
    root = np.sqrt(share * variance / np.diag(fisher))
    part = fisher * np.outer(root, root) * {"Gaussian": 2 * scale, "Gamma": scale}.get(family, 1.0)
    return back @ part @ back.T


def standard_errors(r, coef, intercept, kind, scale=1.0, filters=None, center=None):
    """Standard errors of the coefficients and, last, of the intercept in centred columns.

    ``filters`` and ``center`` are those of the columns, and their means over all bins of the fit;
    by default each is a filter of its own, and these are the bins of the receiver.

    None where the information is too near to singular for float64 to say.
    """
    Z, shift, size = centred(r.X, r.share)
    if (size == 0).any():
        return None
    away = np.zeros(len(size)) if center is None else (shift - center) / size
    eta = (r.X.astype(np.longdouble) @ coef + np.longdouble(intercept) + r.offset).astype(float)
    slope, bend = derivatives(eta, r.y, r.link, r.scale)
    if kind == "expected":
        bend = expected_curvature(eta, r.link, r.scale)
    G = np.column_stack([Z / size, np.ones(len(r.y))])
    A = (G * (r.weight * bend)[:, None]).T @ G
    A += r.weight.sum() * np.diag(np.append(r.ridge / size**2, 0.0))
    d = 1 / np.sqrt(np.diag(A))
    least = 1e-3 if kind == "robust" else 1e-7
    if not np.isfinite(d).all() or np.linalg.eigvalsh(A * d * d[:, None])[0] < least:
        return None
    inverse = np.linalg.inv(A * d * d[:, None]) * d * d[:, None]
    if kind == "robust":
        filters = np.arange(len(size)) if filters is None else filters
        middle = (G * (r.weight * slope**2)[:, None]).T @ G
        middle += _of_few_events(r, G, eta, bend, filters, away, scale)
        middle += 1e-11 * r.weight.sum() * np.diag(np.append(r.ridge / size**2, 0.0))
        inverse = inverse @ middle @ inverse
    else:
        inverse = inverse * {"Gaussian": 2 * scale, "Gamma": scale}.get(FAMILIES[r.link], 1.0)
    return np.sqrt(np.diag(inverse))[:-1] / size
