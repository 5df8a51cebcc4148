"""Statuses and results of a fit."""

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from fastglm import _html
from fastglm.observation_models import LOG_ZERO


class Status(NamedTuple):
    """The meaning of a status.

    Attributes
    ----------
    sentence : str
        The reason of the status, and a remedy.
    settled : bool
        Whether the objective is at its minimum or infimum.
    usable : bool
        Whether the coefficients are near a finite optimum, so that they have standard errors.
    """

    sentence: str
    settled: bool = False
    usable: bool = False


STATUSES = {
    "converged": Status("the Newton decrement is below the tolerance", settled=True, usable=True),
    "silent": Status(
        "no events, so the optimum has rate 0: coefficients are 0 and the intercept "
        f"{LOG_ZERO:.0f}; leave the receiver out, or record longer",
        settled=True,
    ),
    "saturated": Status(
        "an event in every bin, so the optimum has probability 1: coefficients are 0 and the "
        "intercept is so high that the probability is 1; leave the receiver out, or use smaller "
        "bins",
        settled=True,
    ),
    "separated": Status(
        "some features are only active in bins without events, or only in bins with events, so "
        "their coefficients have no finite optimum; they were set to values at which the model "
        "predicts these bins exactly, and the other coefficients are exact; use "
        "regularizer='Ridge' or mask these features",
        settled=True,
        usable=True,
    ),
    "underdispersed": Status(
        "the counts vary less than Poisson counts around the fitted means, so the likelihood is "
        "largest at scale 0: the fit is the Poisson fit, at its optimum; use "
        "PoissonObservations() for this receiver",
        settled=True,
        usable=True,
    ),
    "max_iter": Status(
        "the iteration limit was reached before the tolerance; raise "
        "solver_kwargs={'maxiter': ...} or use a stronger ridge",
        usable=True,
    ),
    "stalled": Status(
        "no step lowers the objective any further at this precision; check the scale of the "
        "features or use regularizer='Ridge'",
        usable=True,
    ),
    "overflow": Status(
        "the objective is not finite at constant rates, nor at init_params; check the scale of the "
        "offsets and counts"
    ),
    "interrupted": Status(
        "the fit was interrupted; the coefficients are the last ones of the fit, or NaN if it had "
        "not begun"
    ),
    "imported": Status(
        "the coefficients were imported, and their distance from the optimum is not known; fit the "
        "model with init_params=(coef_, intercept_) to start from them",
        usable=True,
    ),
    "no_bins": Status("no bin has both a complete history and a count; the coefficients are NaN"),
}
SETTLED = tuple(name for name, status in STATUSES.items() if status.settled)
USABLE = tuple(name for name, status in STATUSES.items() if status.usable)


@dataclass
class Result:
    """The result of a fit, one entry per receiver.

    Attributes
    ----------
    coef : (n_features, n_receivers)
    intercept : (n_receivers,)
    objective : (n_receivers,)
        Mean loss plus penalty at the returned point.
    grad_norm : (n_receivers,)
        Largest entry of the gradient over the free coefficients and the intercept.
    newton_decrement : (n_receivers,)
        Predicted gap of the objective to the optimum.
    n_iter : (n_receivers,)
        Newton steps.
    n_passes : (n_receivers,)
        Passes over the data in which the receiver took part; a pass is one X C and one X' R.
    status : (n_receivers,)
        A key of `STATUSES`.
    method : (n_receivers,)
        "newton-cholesky", "newton-cg" or "normal-equations".
    scale : (n_receivers,)
        Scale of the family in the loss: 1 where the loss has none.
    """

    coef: np.ndarray
    intercept: np.ndarray
    objective: np.ndarray
    grad_norm: np.ndarray
    newton_decrement: np.ndarray
    n_iter: np.ndarray
    n_passes: np.ndarray
    status: np.ndarray
    method: np.ndarray
    scale: np.ndarray

    @classmethod
    def empty(cls, n_features, n):
        """A result whose receivers have no values yet."""
        return cls(
            coef=np.zeros((n_features, n)),
            intercept=np.zeros(n),
            objective=np.full(n, np.nan),
            grad_norm=np.full(n, np.nan),
            newton_decrement=np.full(n, np.nan),
            n_iter=np.zeros(n, np.int64),
            n_passes=np.zeros(n, np.int64),
            status=np.full(n, "", dtype="<U16"),
            method=np.full(n, "", dtype="<U16"),
            scale=np.ones(n),
        )

    def __repr__(self):
        n_features, n = self.coef.shape
        known = self.newton_decrement[~np.isnan(self.newton_decrement)]
        gap = f", largest decrement {known.max():.1e}" if known.size else ""
        return (
            f"{n:,} receiver{'s' * (n != 1)} x {n_features:,} features: "
            f"{_html.tally(self.status)}{gap}"
        )

    def _repr_html_(self):
        n_features, n = self.coef.shape
        known = self.newton_decrement[~np.isnan(self.newton_decrement)]
        rows = [
            ("receivers", f"{n:,}"),
            ("features", f"{n_features:,}"),
            ("status", _html.tally(self.status)),
            ("largest decrement", f"{known.max():.1e}" if known.size else "not known"),
            ("Newton steps", _html.span(self.n_iter, "d")),
            ("passes over the data", _html.span(self.n_passes, "d")),
        ]
        return _html.table("Fit", rows)

    def of(self, receivers, features=slice(None)):
        """Coefficients and intercepts of some receivers; unknown ones are 0."""
        coef = self.coef[features][:, receivers]
        return np.nan_to_num(coef), np.nan_to_num(self.intercept[receivers])

    def copy_from(self, other, receivers):
        """Copy the values of some receivers from another result of the same size."""
        for field in fields(self):
            getattr(self, field.name)[..., receivers] = getattr(other, field.name)[..., receivers]

    def go_on(self, receivers, other):
        """Put the result of a search that went on from here: steps and passes add up."""
        other.n_iter += self.n_iter[receivers]
        other.n_passes += self.n_passes[receivers]
        self.put(receivers, other)

    def put(self, receivers, other, features=slice(None)):
        """Copy the result of a batch to its receivers and features."""
        if not isinstance(features, slice):
            features = features[:, None]
        self.coef[features, receivers] = other.coef
        for field in fields(self)[1:]:
            getattr(self, field.name)[receivers] = getattr(other, field.name)


def is_one_of(status, *names):
    """Whether each status is one of some; `numpy.isin` takes ten times as long."""
    found = np.zeros(status.shape, bool)
    for name in names:
        found |= status == name
    return found
