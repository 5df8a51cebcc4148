"""Standard errors and tests from the textbook: dense, one receiver at a time, numpy only.

``theta`` is (coef, intercept), Z has the column of ones last. ``penalty`` is the Hessian of the
quadratic penalty of the mean loss over the coefficients.
"""

import numpy as np


def slope(eta, y, link="exp"):
    """Derivative of ``mu - y * log(mu)`` with respect to eta; eta may be complex."""
    if link == "exp":
        return np.exp(eta) - y
    mu = np.log(1 + np.exp(eta))
    return (1 - y / mu) / (1 + np.exp(-eta))


def curvature(eta, y, link="exp"):
    """Its derivative, by a complex step."""
    return np.imag(slope(eta + 1e-30j, y, link)) / 1e-30


def newton(Z, y, link="exp", penalty=None, offset=0.0, n_iter=60):
    """The optimum, by full Newton steps on the coefficients and the intercept."""
    n, size = Z.shape
    ridge = np.zeros((size, size))
    if penalty is not None:
        ridge[:-1, :-1] = penalty
    rate = y.mean()
    theta = np.zeros(size)
    theta[-1] = np.log(rate) if link == "exp" else np.log(np.expm1(rate))
    for _ in range(n_iter):
        eta = Z @ theta
        gradient = Z.T @ slope(eta, y, link) / n + ridge @ theta
        hessian = (Z * curvature(eta, y, link)[:, None]).T @ Z / n + ridge
        theta = theta - np.linalg.solve(hessian, gradient)
    return theta


def information(Z, y, theta, link="exp", penalty=None):
    """Hessian of the sum of the losses and of n times the penalty, bin by bin."""
    weights = curvature(Z @ theta, y, link)
    total = np.zeros((Z.shape[1],) * 2)
    for z, w in zip(Z, weights, strict=True):
        total += w * np.outer(z, z)
    if penalty is not None:
        total[:-1, :-1] += len(Z) * penalty
    return total


def covariance(Z, y, theta, link="exp", penalty=None, kind="observed", blocks=None):
    """``A^-1``, or the sandwich ``A^-1 B A^-1`` over bins or over blocks of them."""
    bread = np.linalg.inv(information(Z, y, theta, link, penalty))
    if kind == "observed":
        return bread
    scores = Z * slope(Z @ theta, y, link)[:, None]
    if kind == "robust":
        return bread @ sum(np.outer(u, u) for u in scores) @ bread
    numbers = sorted(set(blocks.tolist()))
    meat = 0
    for number in numbers:
        u = sum(scores[k] for k in range(len(scores)) if blocks[k] == number)
        meat = meat + np.outer(u, u)
    return bread @ meat @ bread * len(numbers) / (len(numbers) - 1)


def log_likelihood(Z, y, theta, link="exp"):
    """``sum y log(mu) - mu``."""
    eta = Z @ theta
    mu = np.exp(eta) if link == "exp" else np.log(1 + np.exp(eta))
    return sum(y * np.log(mu) - mu)


def score_statistic(Z, extra, y, theta, link="exp", penalty=None):
    """Rao's statistic of columns that the model of Z leaves out."""
    eta = Z @ theta
    w = curvature(eta, y, link)[:, None]
    inside = information(Z, y, theta, link, penalty)
    cross = (extra * w).T @ Z
    variance = (extra * w).T @ extra - cross @ np.linalg.inv(inside) @ cross.T
    u = -extra.T @ slope(eta, y, link)
    return u @ np.linalg.solve(variance, u)


def q_values(p):
    """Benjamini-Hochberg by its definition: the smallest level at which a test is found.

    At level q the discoveries are the k smallest p-values for the largest k with
    ``p_(k) <= q * k / m``.
    """
    p = np.asarray(p, float)
    m = len(p)
    order = np.sort(p)
    levels = [order[k] * m / (k + 1) for k in range(m)]
    out = []
    for value in p:
        found = [levels[k] for k in range(m) if order[k] >= value]
        out.append(min(1.0, min(found)))
    return np.array(out)
