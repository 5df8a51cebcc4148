"""The interfaces between the parts of the engine.

A search (`newton.minimize`, `proximal.minimize`) moves receivers. A problem gives it objective,
gradient and the next step. A problem owns a `Descent`, which turns gradients into steps, and may
have a `Curvature`, a model of the Hessian. An `Executor` decides where tasks run.

Receivers are numbers within the batch. ``active`` are the receivers of the last `Problem.evaluate`;
``moved`` are places among them. Arrays of coefficients have shape (n_features, n), arrays of
intercepts (n,).
"""

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Protocol

import numpy as np


class Problem(Protocol):
    """Objective, gradient and steps of a batch, for `newton.minimize`.

    Attributes
    ----------
    method : str
        The entry of `Result.method`.
    exact : bool
        Whether steps are Newton's.
    rough : bool
        Whether a fit may end with a step that no pass evaluates.
    polish : int
        Most steps that follow below the tolerance.
    n_passes : int
        Passes over the data that an evaluation takes.
    free : ndarray of bool, shape (n_features, n_receivers)
        The features in each receiver's fit.
    plain : ndarray of bool, shape (n_receivers,)
        Whether a free coefficient has no penalty.
    certain : ndarray of bool, shape (n_receivers,)
        Whether the last evaluation can certify an optimum.
    rounding : ndarray of shape (n_receivers,)
        Relative rounding of the objective.
    flat : ndarray of bool, shape (n_receivers,), or False
        Whether the last Hessian has directions of which a decrement says nothing.
    floor : ndarray of shape (n_receivers,)
        The decrement that rounding of the gradient allows: no smaller one can be claimed.
    """

    def evaluate(self, active, coef, intercept):
        """Objective (n,), gradient (n_features, n) and slope of the intercept (n,) at points."""

    def step(self, moved, grad, grad_intercept, tol, polishing):
        """Steps from accepted points: coefficients, intercepts, decrements, and passes spent."""

    def harmless(self, active, grad, grad_intercept) -> np.ndarray:
        """Whether each trial point is accepted at any objective, (n,)."""

    def largest_change(self, receivers, step, coef, intercept) -> np.ndarray:
        """Largest change of eta in any bin by steps to some points, times `Loss.pace` there."""

    def least_norm(self, receivers, coef, intercept):
        """Take the directions out that change neither eta nor the penalty, in place."""

    def unresolved(self, coef, intercept, cheap=False) -> np.ndarray:
        """Receivers whose optimum needs exact Hessians of rows, (n_receivers,).

        A square below 1e-12 is no evidence that rows do not see a direction: they are asked where
        that is ``cheap``.
        """


class Uncentred:
    """What `Curvature` asks of a problem that reads columns as they are, for its ``free``."""

    @cached_property
    def shift(self):
        """Nothing: columns are read as they are; see `Curvature`."""
        return np.zeros(self.free.shape[0])

    def noise(self, j, features):
        """None is known; see `Curvature`."""
        return np.zeros(features.size)

    def sees(self, features, n, least):
        """There are no rows to see with; see `Curvature`."""
        return False

    def lowest(self, j):
        """No bound of the mean loss from below; see `Curvature`."""
        return -np.inf

    def outdated(self, j, coef, intercept, features):
        """No model is that of an earlier point; see `Curvature`."""
        return False


class Curvature(Protocol):
    """A model of the Hessian over a few features, for `proximal.minimize`.

    Attributes
    ----------
    shift : ndarray of shape (n_features,)
        What the problem takes off the columns before it sums.
    """

    def curvature(self, j, coef, intercept, features):
        """Hessian of the mean loss of receiver j over some features, the intercept eliminated.

        Returns the Schur complement, which the caller may change, the row of the intercept divided
        by its diagonal entry, and this entry.
        """

    def learn(self, receivers, step, step_intercept, change, change_intercept):
        """Correct the models by the changes of the gradients over steps."""

    def noise(self, j, features) -> np.ndarray:
        """Rounding of the gradient of receiver j at the last point, 0 where it is not known."""

    def sees(self, features, n, least) -> bool:
        """Whether rows see one of n directions whose squares, of scaled features, are so small."""

    def lowest(self, j) -> float:
        """A bound of the mean loss of receiver j from below."""

    def trust(self, j) -> float:
        """Lower bound of the true curvature, as a part of the model's."""

    def outdated(self, j, coef, intercept, features) -> bool:
        """Whether a model of an earlier point has far more curvature than this point.

        It is forgotten then. A claim that ends a fit is not made from it.
        """

    def fill(self, active) -> np.ndarray:
        """Receivers of the next pass."""

    def announce(self, receivers, decrement):
        """Take the decrements at the points before the next pass."""

    def forget(self, receivers=slice(None)):
        """Begin a new fit of some receivers."""


class Descent(Protocol):
    """Steps from gradients: `lbfgs.Steps`.

    Its problem has ``active``, ``free``, ``certain``, ``rough`` and ``precondition``. It also has
    ``mean`` and ``total``, the moments of the curvature of the active receivers, and ``claim``,
    which turns decrements into the gaps that are claimed.
    """

    def step(self, moved, point, grad, grad_intercept, tol, polishing):
        """Steps, decrements and passes spent; see `Problem.step`."""

    def harmless(self, point, grad, grad_intercept) -> np.ndarray:
        """Whether the step to each trial point is so small that the gradient is linear along it."""

    def forget(self, receivers=slice(None)):
        """Begin anew for some receivers."""


class Preconditioner(Protocol):
    """An approximate inverse of every receiver's Schur complement: `SampleProblem`."""

    def set_point(self, active, coef, intercept):
        """Take the curvatures at a point."""

    def solve(self, residual, columns) -> np.ndarray:
        """The inverse times residuals; ``columns`` are places among the active receivers."""


class Executor(Protocol):
    """Where tasks run."""

    def run(self, items: Iterable, function: Callable, take: Callable, stop: Callable):
        """Call ``take(item, function(item))`` as items are done."""
