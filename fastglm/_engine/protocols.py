"""What the parts of the engine owe each other.

A search (`newton.minimize`, `proximal.minimize`) moves receivers; a problem tells it objective,
gradient and the next step. Which way a step goes (a `Descent`) and what it knows of the curvature
(a `Curvature`) are parts of a problem. An `Executor` decides where tasks run.

Receivers are numbers of the batch. ``active`` are those of the last `Problem.evaluate`; ``moved``
are places among them. Arrays of coefficients are (n_features, n), those of intercepts (n,).
"""

from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np


class Problem(Protocol):
    """Objective, gradient and steps of a batch: what `newton.minimize` asks for.

    Attributes
    ----------
    method : str
        For `Result.method`.
    exact : bool
        Whether steps are Newton's.
    rough : bool
        Whether a fit may end with a step that is not judged.
    polish : int
        Steps below the tolerance that polish the end.
    n_passes : int
        Passes over the data that an evaluation takes.
    plain : ndarray of bool, shape (n_receivers,)
        Whether no penalty holds some free coefficient.
    certain : ndarray of bool, shape (n_receivers,)
        Whether the last evaluation can certify an optimum.
    rounding : ndarray of shape (n_receivers,)
        Relative rounding of the objective.
    """

    def evaluate(self, active, coef, intercept):
        """Objective (n,), gradient (n_features, n) and slope of the intercept (n,) at points."""

    def step(self, moved, grad, grad_intercept, tol, polishing):
        """Steps from accepted points: coefficients, intercepts, decrements, and passes spent."""

    def harmless(self, active, grad, grad_intercept) -> np.ndarray:
        """Trial points that are taken whatever the objective."""

    def largest_change(self, receivers, step) -> np.ndarray:
        """Largest change of eta in any bin that each step makes."""


class Curvature(Protocol):
    """A model of the Hessian over a few features: what `proximal.minimize` asks for beside."""

    def curvature(self, j, coef, intercept, features):
        """Hessian of the mean loss of receiver j, float32, the intercept last, and where in it
        some features are."""

    def learn(self, receivers, step, step_intercept, change, change_intercept):
        """Correct the models by how steps have changed the gradients."""

    def trust(self, j) -> float:
        """Part of its curvature that a model is sure of."""

    def fill(self, active) -> np.ndarray:
        """Receivers of the next pass."""

    def announce(self, receivers, decrement):
        """Decrements of the points before the next pass."""

    def forget(self, receivers=slice(None)):
        """Some receivers begin a new fit."""


class Descent(Protocol):
    """Which way a step goes: `lbfgs.Steps`.

    The problem that owns it has ``active``, ``free``, ``certain``, ``rough``, the moments of the
    curvature ``mean`` and ``total`` of the active receivers, and ``precondition``.
    """

    def step(self, moved, point, grad, grad_intercept, tol, polishing):
        """Steps, decrements and passes spent; see `Problem.step`."""

    def harmless(self, point, grad, grad_intercept) -> np.ndarray:
        """Trial points so near that the gradient is linear in between."""

    def forget(self, receivers=slice(None)):
        """Some receivers begin anew."""


class Preconditioner(Protocol):
    """Something near the inverse of every receiver's Schur complement: `SampleProblem`."""

    def set_point(self, active, coef, intercept):
        """Take the curvatures at a point."""

    def solve(self, residual, columns) -> np.ndarray:
        """The inverse times residuals, whose columns are places among the active receivers."""


class Executor(Protocol):
    """Where tasks run."""

    def run(self, items: Iterable, function: Callable, take: Callable, stop: Callable):
        """Call ``take(item, function(item))`` for items as they get done."""
