"""How strong an unobserved input must be to make a coupling vanish.

A referee's question is: could a cell that was not recorded, or a drive that both cells share,
explain this coupling? For least squares Cinelli and Hazlett (2020) answer with the *robustness
value*: the share of the residual variance of both sides that such an input must explain. This is
the same for a GLM.

At the optimum a GLM is a problem of weighted least squares in eta, with weights ``w_t h_t`` (the
weight of a bin times the curvature of its loss) and precision a. All variances here are weighted
by them, and ``n = a sum_t w_t h_t``. An unobserved input Z adds ``gamma Z`` to eta. It is not
correlated with the rest of the model, but with the filtered past of one sender: the k columns x_g
of its filter c, whose covariance V is ``(n var(x_g | rest))^-1``. With ``u = cov(x_g, Z)`` the fit
without Z moves c by ``gamma n V u``, and Z explains the share ``R_x = n u' V u / var(Z)`` of what
the rest of the model leaves of the sender's past. (For one column this is the squared partial
correlation, the same from both sides.) With u along ``V^-1 c`` every lag moves alike, and the part
that is taken off the filter is

    q = sqrt(R_y R_x / (1 - R_x)) / f,    f^2 = W / E,    R_y = n gamma^2 var(Z | x_g) / E

where ``W = c' V^-1 c`` is the filter's Wald statistic, and E is what R_y is a share of. With one
column, and the residual sum of squares over the scale as E, which is the number of degrees of
freedom of least squares, this is Cinelli and Hazlett's bound. In bins of events nearly all residual
variance is that of a Poisson number. No input explains it, its share is tiny for any input (1 % for
a coupling of 10 standard errors in 900 s at 1 ms), and it halves with the bin. The scale here is
therefore what the model explains of the receiver, which does not depend on the bin:

    E = a sum_t w_t h_t (x_t' c - mean)^2

over all features. To second order this is twice what they add to the log likelihood; an offset is
not explained. E grows with the recording as W does, so the value converges. The filter itself has
the share f^2 of E, and the *sensitivity value* is the share R = R_y = R_x at which q is 1,

    R^2 / (1 - R) = f^2,    R = (sqrt(f^4 + 4 f^2) - f^2) / 2

For shares that differ the filter vanishes at ``R_y R_x / (1 - R_x) = f^2``. The Wald test at a
level with the quantile z^2 of chi-squared is lost before. With Z in the model V is ``V / (1 - R)``,
and with ``b^2 = z^2 / E`` what remains is at the quantile where

    R^2 + (2 b + f^2) R + b^2 - f^2 = 0

Why the whole filter. A coupling has vanished when it is zero at every lag, whatever the basis and
the bin. The area can vanish sooner, with ``(s / e)^2`` in place of W for the strength s and its
standard error e: slow lags decide the error of an area, so that a synapse that is certain can have
an area that is not. In the shape of a synapse (`fastglm.connectivity.scan`) it is the square of z
against zero. `robustness` takes either.

A ridge makes the value too small (``V^-1`` then holds the prior, and a filter that is held near
zero needs a larger R_x), and so do coefficients that fit noise, which are in E. W of an uncoupled
pair is about k, so the value of a coupling that is not significant says nothing. An input so strong
that the weights change, or one that stands for several senders at once, is not covered.

Source: C. Cinelli and C. Hazlett, Making sense of sensitivity: extending omitted variable bias,
Journal of the Royal Statistical Society B 82 (2020) 39-67, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from fastglm._checks import check_share
from fastglm._fitted import Fitted
from fastglm.inference import SANDWICHES, Test, Uncertainty

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass
class Explained:
    """What a model explains, the scale of sensitivity values.

    Attributes
    ----------
    total : ndarray of shape (n_receivers,) or None
        E. NaN for receivers without standard errors; None if nothing is known of it.
    part : ndarray of shape (n_senders, n_receivers) or None
        W, what the filter alone explains.
    degrees : ndarray of int, shape (n_senders, n_receivers), or None
        Coefficients of the filter.
    why : str
        Why nothing is known.
    """

    total: np.ndarray | None = None
    part: np.ndarray | None = None
    degrees: np.ndarray | None = None
    why: str = "couplings were not tested"


def read_explained(fit: Fitted, errors: Uncertainty, test: Test) -> Explained:
    """What a fit explains.

    Parameters
    ----------
    fit : Fitted
    errors : Uncertainty
        Those of a sandwich and those after a lasso are not the inverse of an information, and there
        is no sensitivity value.
    test : Test
        The Wald test of the filters of all senders.
    """
    if errors.kind in SANDWICHES:
        return Explained(why=f"kind={errors.kind!r} has no information; pass kind='observed'")
    if fit.penalty.sparse.any():
        return Explained(
            why=f"after {fit.regularizer} coefficients that are not zero have no free covariance"
        )
    return Explained(errors.explained, test.statistic, test.degrees, "")


def robustness(part: ArrayLike, total: ArrayLike, critical: ArrayLike = 0.0) -> np.ndarray:
    """The share at which a coupling vanishes, or is at the quantile of a test.

    Parameters
    ----------
    part : array of shape (..., n_receivers)
        W, or the square of a number over its standard error.
    total : array of shape (n_receivers,)
        E.
    critical : array of shape (..., n_receivers)
        0, or the quantile of chi-squared at which the test is lost.

    Returns
    -------
    ndarray
        Between 0 and 1; 0 where the part is not above ``critical``, NaN where nothing is explained.

    Examples
    --------
    >>> from fastglm.connectivity.sensitivity import robustness
    >>> robustness([25.0, 400.0], 500.0).round(3), robustness([25.0, 400.0], 500.0, 3.84).round(3)
    (array([0.2 , 0.58]), array([0.122, 0.527]))
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        total = np.where(np.asarray(total) > 0, total, np.nan)
        f2, b = np.asarray(part) / total, np.sqrt(critical / total)
        # The root of the quadratic equation, without its difference.
        root = np.sqrt(f2 * (f2 + 4 * b + 4))
        share = 2 * (f2 - b * b) / (2 * b + f2 + root)
    return np.where(f2 > b * b, share, np.where(np.isnan(f2), np.nan, 0.0))


def sensitivity(couplings: object, level: float | None = None) -> np.ndarray:
    """Sensitivity values of all couplings, in per cent; see `CouplingMap.sensitivity`.

    Parameters
    ----------
    couplings : CouplingMap
    level : float, optional
        What makes the Wald test insignificant at that level, in place of a filter of zero.

    Raises
    ------
    ValueError
        If the level is not between 0 and 1.
    """
    if level is not None:
        check_share("level", level)
    explained = couplings.explained
    if explained.total is None:
        return np.full(couplings.strength.shape, np.nan)
    critical = 0.0
    if level is not None:
        critical = stats.chi2.ppf(level, np.maximum(explained.degrees, 1))
    return 100 * robustness(_parts(couplings), explained.total, critical)


def _parts(couplings):
    """W; NaN for own histories and without a finite standard error."""
    known = np.isfinite(couplings.standard_error) & ~couplings.own_history
    return np.where(known, couplings.explained.part, np.nan)


def sentence(couplings: object, i: int, j: int, level: float) -> str:
    """What an unobserved input must do to the coupling of sender i and receiver j, for a reader."""
    doubtful = sensitivity(couplings, level)[i, j]
    value = sensitivity(couplings)[i, j]
    sender, receiver = couplings.senders[i], couplings.receivers[j]
    if np.isnan(value):
        why = _why_not(couplings, i, j)
        return f"The coupling of {sender} to {receiver} has no sensitivity value: {why}."
    eta = couplings.loss.eta_name
    text = (
        f"An unobserved input would have to explain at least {_percent(value)} of what the model "
        f"explains of {receiver}'s {eta}, and as much of {sender}'s past activity given the rest "
        "of the model, to make this coupling vanish; "
    )
    if doubtful > 0:
        text += f"{_percent(doubtful)} of both would make it insignificant at {level:.4g}."
    else:
        text += f"it is insignificant at {level:.4g} as it is."
    return f"{text}{_strongest_other(couplings, i, j)}"


def _percent(value):
    """Two digits, or as many as a number has before the point."""
    return f"{value:.0f} %" if value >= 9.95 else f"{value:.2g} %"


def _strongest_other(couplings, i, j):
    """How much the strongest of the receiver's other couplings explains, a sentence or nothing."""
    share = _parts(couplings)[:, j] / couplings.explained.total[j]
    share[i] = np.nan
    if np.isnan(share).all():
        return ""
    k = int(np.nanargmax(share))
    return (
        f" The strongest other coupling of {couplings.receivers[j]}, from {couplings.senders[k]}, "
        f"explains {_percent(100 * share[k])}."
    )


def _why_not(couplings, i, j):
    """Why a coupling has no sensitivity value."""
    if couplings.explained.why:
        return couplings.explained.why
    if couplings.own_history[i, j]:
        return "it is an own history"
    if couplings.absent[i, j]:
        return "it is not in the fit"
    if not couplings.explained.total[j] > 0:
        return "the model explains nothing of the receiver"
    return "the data do not determine it"
