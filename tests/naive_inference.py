"""Standard errors and tests from the textbook: dense, one receiver at a time, numpy only.

``theta`` is (coef, intercept), Z has the column of ones last. ``penalty`` is the Hessian of the
quadratic penalty of the mean loss over the coefficients. A log likelihood is ``-precision * loss``
and terms without theta. Weights are how often each row is there.
"""

import numpy as np


def mean(eta, link="exp"):
    """Mean count; eta may be complex."""
    if link == "exp":
        return np.exp(eta)
    if link == "softplus":
        return np.log(1 + np.exp(eta))
    if link == "logistic":
        return 1 / (1 + np.exp(-eta))
    if link == "cloglog":
        return 1 - np.exp(-np.exp(eta))
    return eta


def loss(eta, y, link="exp"):
    """Loss of a family, which its link tells."""
    mu = mean(eta, link)
    if link in ("exp", "softplus"):
        return mu - y * np.log(mu)
    if link in ("logistic", "cloglog"):
        return -y * np.log(mu) - (1 - y) * np.log(1 - mu)
    return (y - mu) ** 2


def slope(eta, y, link="exp"):
    """Derivative of the loss with respect to eta; eta may be complex."""
    mu = mean(eta, link)
    if link == "exp":
        return mu - y
    if link == "softplus":
        return (1 - y / mu) / (1 + np.exp(-eta))
    if link == "logistic":
        return mu - y
    if link == "cloglog":
        m = np.exp(eta)
        return (1 - y) * m - y * m * np.exp(-m) / mu
    return 2 * (mu - y)


def curvature(eta, y, link="exp"):
    """Its derivative, by a complex step."""
    return np.imag(slope(eta + 1e-30j, y, link)) / 1e-30


def expected_curvature(eta, link="exp"):
    """Its mean over y: it is linear in y, so that y can be its mean."""
    return curvature(eta, mean(eta, link), link)


def newton(Z, y, link="exp", penalty=None, offset=0.0, weight=None, n_iter=60):
    """The optimum, by full Newton steps on the coefficients and the intercept."""
    n, size = Z.shape
    weight = np.ones(n) if weight is None else weight
    ridge = np.zeros((size, size))
    if penalty is not None:
        ridge[:-1, :-1] = penalty
    rate = np.average(y, weights=weight)
    start = {
        "exp": np.log,
        "softplus": lambda r: np.log(np.expm1(r)),
        "logistic": lambda r: np.log(r / (1 - r)),
        "cloglog": lambda r: np.log(-np.log(1 - r)),
        "identity": lambda r: r,
    }
    theta = np.zeros(size)
    theta[-1] = start[link](rate)
    for _ in range(n_iter):
        eta = Z @ theta + offset
        gradient = Z.T @ (weight * slope(eta, y, link)) / weight.sum() + ridge @ theta
        curved = weight * curvature(eta, y, link)
        hessian = (Z * curved[:, None]).T @ Z / weight.sum() + ridge
        theta = theta - np.linalg.solve(hessian, gradient)
    return theta


def information(Z, y, theta, link="exp", penalty=None, kind="observed"):
    """Hessian of the sum of the losses and of n times the penalty, bin by bin."""
    eta = Z @ theta
    weights = expected_curvature(eta, link) if kind == "expected" else curvature(eta, y, link)
    total = np.zeros((Z.shape[1],) * 2)
    for z, w in zip(Z, weights, strict=True):
        total += w * np.outer(z, z)
    if penalty is not None:
        total[:-1, :-1] += len(Z) * penalty
    return total


def effective_events(Z, theta, center, link="exp", filters=None, blocks=None):
    """Events behind the entry of each feature, and of the ones, of the middle of a sandwich."""
    blocks = np.arange(len(Z)) if blocks is None else blocks
    mu, h = mean(Z @ theta, link), expected_curvature(Z @ theta, link)
    variance = {"exp": mu, "softplus": mu, "identity": np.inf}.get(link, mu * (1 - mu))
    numbers = []
    for f in range(Z.shape[1]):
        last = f == Z.shape[1] - 1
        size = 1 if last else sum(filters == filters[f])
        x = np.ones(len(Z)) if last else Z[:, f] - center[f]
        fourth = sum(h**2 * x**4 / variance)
        squares = sum(sum((h * x**2)[blocks == b]) ** 2 for b in set(blocks))
        numbers.append(sum(h * x**2) ** 2 / (fourth + (size + 1) * squares))
    return np.array(numbers)


def model_part(Z, y, theta, center, link="exp", filters=None, blocks=None, precision=1.0):
    """The model's covariance of the scores, as far as there are fewer than 30 events."""
    events = effective_events(Z, theta, center, link, filters, blocks)
    share = np.minimum(1, np.maximum(0, 30 / events - 1))
    move = np.eye(Z.shape[1])
    move[:-1, -1] = center
    centred = Z @ np.linalg.inv(move).T  # the ones stay
    eta = Z @ theta
    seen, meant = curvature(eta, y, link), expected_curvature(eta, link)
    fisher = (centred * seen[:, None]).T @ centred
    variance = (centred**2).T @ meant
    root = np.sqrt(share * variance / np.diag(fisher))
    return precision * move @ (fisher * np.outer(root, root)) @ move.T


def covariance(Z, y, theta, link="exp", penalty=None, kind="observed", blocks=None, precision=1.0,
               filters=None, center=None):  # fmt: skip
    """``A^-1``, or the sandwich ``A^-1 B A^-1`` over bins or over blocks of them.

    ``center`` is the mean of the columns over all bins of the fit.
    """
    bread = np.linalg.inv(precision * information(Z, y, theta, link, penalty, kind))
    if kind in ("observed", "expected"):
        return bread
    scores = precision * Z * slope(Z @ theta, y, link)[:, None]
    if kind == "robust":
        more = model_part(Z, y, theta, center, link, filters, None, precision)
        return bread @ (sum(np.outer(u, u) for u in scores) + more) @ bread
    numbers = sorted(set(blocks.tolist()))
    meat = 0
    for number in numbers:
        u = sum(scores[k] for k in range(len(scores)) if blocks[k] == number)
        meat = meat + np.outer(u, u)
    more = model_part(Z, y, theta, center, link, filters, blocks, precision)
    return bread @ (meat * len(numbers) / (len(numbers) - 1) + more) @ bread


def log_likelihood(Z, y, theta, link="exp", precision=1.0):
    """Without terms that do not depend on theta."""
    return -precision * sum(loss(Z @ theta, y, link))


def score_statistic(Z, extra, y, theta, link="exp", penalty=None, precision=1.0):
    """Rao's statistic of columns that the model of Z leaves out."""
    eta = Z @ theta
    w = precision * curvature(eta, y, link)[:, None]
    inside = precision * information(Z, y, theta, link, penalty)
    cross = (extra * w).T @ Z
    variance = (extra * w).T @ extra - cross @ np.linalg.inv(inside) @ cross.T
    u = -precision * extra.T @ slope(eta, y, link)
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
