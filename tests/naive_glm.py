"""Fits from the textbook: dense, one receiver at a time, numpy only."""

import numpy as np


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
