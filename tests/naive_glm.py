"""Fits from the textbook: dense, one receiver at a time, numpy only."""

import numpy as np
import scipy.optimize
from scipy.special import digamma, gammaln


def objective(X, y, coef, intercept, ridge=0.0, link="exp"):
    eta = X @ coef + intercept
    mu = np.exp(eta) if link == "exp" else np.logaddexp(0, eta)
    return np.mean(mu - y * np.log(mu)) + 0.5 * ridge * coef @ coef


def gradient(X, y, coef, intercept, ridge=0.0):
    residual = np.exp(X @ coef + intercept) - y
    return X.T @ residual / len(y) + ridge * coef, residual.mean()


def fit(X, y, ridge=0.0, n_iter=200):
    """Newton's method with halving on (coef, intercept); minimum-norm steps."""
    Z = np.column_stack([X, np.ones(len(y))])
    penalty = np.append(np.full(X.shape[1], ridge), 0.0)
    theta = np.append(np.zeros(X.shape[1]), np.log(y.mean()))

    def value(theta):
        with np.errstate(over="ignore"):
            eta = Z @ theta
            return np.mean(np.exp(eta) - y * eta) + 0.5 * penalty @ theta**2

    for _ in range(n_iter):
        mu = np.exp(Z @ theta)
        grad = Z.T @ (mu - y) / len(y) + penalty * theta
        hess = (Z * mu[:, None]).T @ Z / len(y) + np.diag(penalty)
        step = -np.linalg.lstsq(hess, grad, rcond=1e-13)[0]
        length = 1.0
        while value(theta + length * step) > value(theta) + 1e-15 and length > 1e-8:
            length /= 2
        theta = theta + length * step
        if abs(grad @ step) < 1e-26:
            break
    return theta[:-1], theta[-1]


# --- penalties: a ridge for each coefficient, a quadratic form, and norms of groups ---
# ``groups`` is a list of (features, weight); a feature in none has no norm.


def penalised(X, y, coef, intercept, groups=(), ridge=0.0, matrix=None, link="exp"):
    value = objective(X, y, coef, intercept, 0.0, link) + 0.5 * np.sum(ridge * coef**2)
    if matrix is not None:
        value += 0.5 * coef @ matrix @ coef
    return value + sum(weight * np.linalg.norm(coef[group]) for group, weight in groups)


def smooth_gradient(X, y, coef, intercept, ridge=0.0, matrix=None, link="exp"):
    eta = X @ coef + intercept
    mu = np.exp(eta) if link == "exp" else np.logaddexp(0, eta)
    residual = mu - y
    if link == "softplus":
        residual = residual / mu * -np.expm1(-mu)  # d mu / d eta = 1 - exp(-mu)
    grad = X.T @ residual / len(y) + ridge * coef
    if matrix is not None:
        grad = grad + matrix @ coef
    return grad, residual.mean()


def breach(X, y, coef, intercept, groups=(), ridge=0.0, matrix=None, link="exp"):
    """Largest entry by which a point misses the subgradient conditions of the optimum."""
    grad, grad_intercept = smooth_gradient(X, y, coef, intercept, ridge, matrix, link)
    worst, alone = abs(grad_intercept), np.ones(len(coef), bool)
    for group, weight in groups:
        alone[group] = False
        size, g = np.linalg.norm(coef[group]), grad[group]
        if size > 0:
            worst = max(worst, np.abs(g + weight * coef[group] / size).max())
        else:
            worst = max(worst, np.linalg.norm(g) - weight)
    return max(worst, np.abs(grad[alone]).max(initial=0))


def proximal_fit(X, y, groups=(), ridge=0.0, matrix=None, link="exp", n_iter=50_000, tol=1e-11):
    """Accelerated proximal gradients (Beck & Teboulle, 2009) with restarts, run long."""
    mean = X.mean(axis=0)
    Z = X - mean  # the intercept takes the means, so that one step length suits all

    def shrink(coef, step):
        coef = coef.copy()
        for group, weight in groups:
            size = np.linalg.norm(coef[group])
            coef[group] *= max(0.0, 1 - step * weight / size) if size > 0 else 0.0
        return coef

    def smooth(coef, intercept):
        with np.errstate(over="ignore"):
            return penalised(Z, y, coef, intercept, (), ridge, matrix, link)

    rate = y.mean()
    point = np.append(np.zeros(X.shape[1]), np.log(rate) if link == "exp" else rate)
    ahead, momentum, step = point, 1.0, 1.0
    for _ in range(n_iter):
        g, g_b = smooth_gradient(Z, y, ahead[:-1], ahead[-1], ridge, matrix, link)
        value = smooth(ahead[:-1], ahead[-1])
        grad = np.append(g, g_b)
        while True:
            new = ahead - step * grad
            new[:-1] = shrink(new[:-1], step)
            move = new - ahead
            bound = value + grad @ move + move @ move / (2 * step)
            if smooth(new[:-1], new[-1]) <= bound + 1e-15 * abs(value):
                break
            step /= 2
        done = np.abs(move).max() / step < tol
        if (ahead - new) @ (new - point) > 0:
            momentum = 1.0
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = new + (momentum - 1) / following * (new - point)
        point, momentum = new, following
        if done:
            break
    else:
        raise RuntimeError("the reference has not converged")
    return point[:-1], point[-1] - mean @ point[:-1]


def newton_fit(X, y, matrix, n_iter=100):
    """Dense Newton with a quadratic form over the coefficients, the intercept beside it."""
    Z = np.column_stack([X, np.ones(len(y))])
    Q = np.zeros((Z.shape[1],) * 2)
    Q[:-1, :-1] = matrix
    theta = np.append(np.zeros(X.shape[1]), np.log(y.mean()))
    for _ in range(n_iter):
        mu = np.exp(Z @ theta)
        grad = Z.T @ (mu - y) / len(y) + Q @ theta
        step = np.linalg.solve((Z * mu[:, None]).T @ Z / len(y) + Q, -grad)
        theta = theta + step
        if abs(grad @ step) < 1e-28:
            break
    return theta[:-1], theta[-1]


# --- families: independent Newton and accelerated gradients, dense, with weights and offsets ---
# ``link`` tells the family, with its name where several have the link: "Gamma exp". Negative
# binomial counts have the scale `SCALE`. Z has the column of ones last, theta is (coef, intercept).
# Weights are how often each row is there.
SCALE = 0.8


def family_mean(eta, link):
    link = link.split()[-1]
    if link == "exp":
        return np.exp(eta)
    if link == "softplus":
        return np.log1p(np.exp(eta))
    if link == "one_over_x":
        return 1 / np.where(np.asarray(eta) > 0, eta, np.nan)
    if link == "logistic":
        return 1 / (1 + np.exp(-eta))
    if link == "cloglog":
        return -np.expm1(-np.exp(eta))
    return eta


def family_loss(eta, y, link):
    """Loss of every bin."""
    mu = family_mean(eta, link)
    if link in ("exp", "softplus"):
        return mu - y * np.log(mu)
    if link == "logistic":  # -y log(mu) - (1 - y) log(1 - mu)
        return np.log1p(np.exp(eta)) - y * eta
    if link == "cloglog":  # log(1 - mu) = -exp(eta)
        return -y * np.log(mu) + (1 - y) * np.exp(eta)
    if link.startswith("Gamma"):
        return y / mu + np.log(mu)
    if link.startswith("NegativeBinomial"):
        v = 1 + SCALE * mu
        return -y * np.log(SCALE * mu / v) + np.log(v) / SCALE
    return (y - mu) ** 2


def family_derivatives(eta, y, link):
    """First and second derivative of the loss of every bin in eta."""
    mu = family_mean(eta, link)
    if link == "exp":
        return mu - y, mu
    if link == "softplus":
        slope = 1 / (1 + np.exp(-eta))
        bend = slope * (1 - slope)
        return slope - y * slope / mu, bend - y * (bend / mu - slope**2 / mu**2)
    if link == "logistic":
        return mu - y, mu * (1 - mu)
    if link == "cloglog":
        m = np.exp(eta)
        slope = m * np.exp(-m)
        bend = slope * (1 - m)
        return (1 - y) * m - y * slope / mu, (1 - y) * m - y * (bend / mu - slope**2 / mu**2)
    if link == "identity":
        return 2 * (mu - y), np.full(len(eta), 2.0)
    if link.endswith("one_over_x"):
        first, second = -(mu**2), 2 * mu**3  # of the mean in eta
    elif link.endswith("exp"):
        first, second = mu, mu
    else:
        first = 1 / (1 + np.exp(-eta))
        second = first * (1 - first)
    if link.startswith("Gamma"):
        slope, bend = (mu - y) / mu**2, (2 * y - mu) / mu**3  # of the loss in the mean
    else:
        v = 1 + SCALE * mu
        slope = (mu - y) / (mu * v)
        bend = (y * (1 + 2 * SCALE * mu) - SCALE * mu**2) / (mu * v) ** 2
    return slope * first, bend * first**2 + slope * second


def family_objective(Z, y, theta, link, weight=1.0, offset=0.0, ridge=0.0, groups=()):
    loss = family_loss(Z @ theta + offset, y, link)
    coef = theta[:-1]
    value = np.average(loss, weights=np.broadcast_to(weight, len(y)))
    value += 0.5 * np.sum(ridge * coef**2)
    return value + sum(size * np.linalg.norm(coef[group]) for group, size in groups)


def family_fit(X, y, link, weight=1.0, offset=0.0, ridge=0.0, groups=()):
    """The optimum (coef, intercept), and the objective there.

    Newton's method with halving. With norms of groups, accelerated proximal gradients (Beck &
    Teboulle, 2009) with restarts.
    """
    mean = X.mean(axis=0) if groups else 0.0  # the intercept takes the means
    Z = np.column_stack([X - mean, np.ones(len(y))])
    weight = np.broadcast_to(np.asarray(weight, float), len(y))
    pull = np.append(np.broadcast_to(np.asarray(ridge, float), X.shape[1]), 0.0)
    rate = np.average(y, weights=weight)
    theta = np.zeros(Z.shape[1])
    theta[-1] = {
        "exp": lambda: np.log(rate),
        "softplus": lambda: np.log(np.expm1(rate)),
        "logistic": lambda: np.log(rate / (1 - rate)),
        "cloglog": lambda: np.log(-np.log1p(-rate)),
        "identity": lambda: rate,
        "one_over_x": lambda: 1 / rate - np.minimum(np.min(offset), 0.0),
    }[link.split()[-1]]()

    def value(theta, groups=groups):
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return family_objective(Z, y, theta, link, weight, offset, pull[:-1], groups)

    def derivatives(theta):
        residual, curvature = family_derivatives(Z @ theta + offset, y, link)
        gradient = Z.T @ (weight * residual) / weight.sum() + pull * theta
        hessian = (Z * (weight * curvature)[:, None]).T @ Z / weight.sum() + np.diag(pull)
        return gradient, hessian

    if groups:
        theta = _accelerated(theta, derivatives, value, groups)
    else:
        theta = _newton(theta, derivatives, value)
    return theta[:-1], theta[-1] - np.sum(mean * theta[:-1]), value(theta)


def _newton(theta, derivatives, value):
    for _ in range(200):
        gradient, hessian = derivatives(theta)
        step = -np.linalg.lstsq(hessian, gradient, rcond=1e-13)[0]
        length = 1.0
        while not value(theta + length * step) <= value(theta) + 1e-14 and length > 1e-8:
            length /= 2
        theta = theta + length * step
        if abs(gradient @ step) < 1e-26:
            return theta
    raise RuntimeError("the reference has not converged")


def _accelerated(theta, derivatives, value, groups, tol=1e-11):
    def shrink(point, step):
        for group, size in groups:
            norm = np.linalg.norm(point[group])
            point[group] *= max(0.0, 1 - step * size / norm) if norm > 0 else 0.0
        return point

    point, ahead, momentum, step = theta, theta, 1.0, 1.0
    for _ in range(50_000):
        gradient, _ = derivatives(ahead)
        here = value(ahead, ())
        while True:
            new = shrink(ahead - step * gradient, step)
            move = new - ahead
            bound = here + gradient @ move + move @ move / (2 * step)
            if value(new, ()) <= bound + 1e-15 * abs(here):
                break
            step /= 2
        if np.abs(move).max() / step < tol:
            return new
        if (ahead - new) @ (new - point) > 0:
            momentum = 1.0
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = new + (momentum - 1) / following * (new - point)
        point, momentum = new, following
    raise RuntimeError("the reference has not converged")


def negative_binomial_fit(X, y, weight=1.0, offset=0.0, ridge=0.0, link="exp"):
    """The joint optimum (coef, intercept, scale) of likelihood and ridge, by its gradient."""
    Z = np.column_stack([X, np.ones(len(y))])
    weight = np.broadcast_to(np.asarray(weight, float), len(y)) / np.sum(weight + np.zeros(len(y)))
    pull = np.append(np.full(X.shape[1], ridge), 0.0)

    def value(theta):
        mu, k = family_mean(Z @ theta[:-1] + offset, link), np.exp(-theta[-1])
        each = gammaln(y + k) - gammaln(k) + y * np.log(mu / (k + mu)) + k * np.log(k / (k + mu))
        return -weight @ each + 0.5 * pull @ theta[:-1] ** 2

    def gradient(theta):
        eta, k = Z @ theta[:-1] + offset, np.exp(-theta[-1])
        mu = family_mean(eta, link)
        slope = mu if link == "exp" else 1 / (1 + np.exp(-eta))
        coef = Z.T @ (weight * slope * (mu - y) / (mu * (1 + mu / k))) + pull * theta[:-1]
        of_k = digamma(y + k) - digamma(k) + np.log(k / (k + mu)) + (mu - y) / (k + mu)
        return np.append(coef, k * (weight @ of_k))

    start = np.zeros(Z.shape[1] + 1)
    start[-2] = np.log(np.average(y, weights=weight)) if link == "exp" else 0.0
    found = scipy.optimize.minimize(value, start, jac=gradient, method="BFGS").x
    found = scipy.optimize.root(gradient, found, tol=1e-14).x
    return found[: X.shape[1]], found[-2], np.exp(found[-1])
