"""How sure a fit is: standard errors, bands, Wald, likelihood-ratio and score tests.

The fit of a receiver minimises ``mean loss + penalty``, so its log posterior is, up to a constant,
``-a * n * (mean loss + penalty)``: n is the number of bins (with weights, their sum) and a the
precision of its family, 1 for Poisson and Bernoulli observations and ``1 / (2 * scale)`` for
Gaussian ones. With the Hessian of the summed loss, ``H = sum_t w_t h_t z_t z_t'`` over the bins of
the fit, ``z_t = (x_t, 1)`` over the features that its mask leaves in, weights w, and the curvature
h of the loss (mu, for Poisson observations with the exponential link), the information is
``a * (H + n P)``, where P is the Hessian of the quadratic penalty. H is summed in float64, from
pairs of events or from rows of X, block by block. With ``A = H + n P`` the covariance of
(coef, intercept) is

| kind | covariance | holds if |
|---|---|---|
| "observed" | ``A^-1 / a`` | the model is right |
| "expected" | the same, h averaged over counts of the model | the model is right |
| "robust" | ``A^-1 B A^-1`` | the mean is right, whatever the noise |
| "blocks" | the same, B from sums over blocks of time | residuals depend inside blocks |

where ``B = sum_t w_t r_t^2 z_t z_t'`` with the slope r of the loss (``mu - y``, there), and a part
of the model for sparse cells, below. "expected" differs from "observed" for links that are not
canonical, softplus and cloglog, and is what statsmodels reports. "robust" (White, 1982) covers
over- and underdispersed counts, "blocks" (Liang & Zeger, 1986) residuals that depend on each other.
With a ridge "observed" is the covariance of the posterior whose prior is the penalty: its intervals
hold the truth at their level on average over coefficients drawn from the prior, bias included
(Nychka, 1988); they are not confidence intervals for a coefficient much larger than the prior
expects. After lasso or group lasso they are conditional on the selected features and too narrow:
use `score_test`, or fit the selected features again on other data.

B needs events. Between two sparse cells it rests on the few bins in which the receiver fires within
the sender's filter, and without such a coincidence it is almost 0, while the score is not. Alone it
makes p < 0.05 in most pairs of independent cells with fewer than 600 events each. For each feature
the effective number of events, in the attribute ``effective_events``, is

    n = (sum_t w_t h_t x_t^2)^2 / (sum_t w_t h_t^2 e_t x_t^4 + (p + 1) sum_b s_b^2)
    s_b = sum_{t in b} w_t h_t x_t^2

with x the centred feature, p the features of its filter, h the expected curvature, e the excess
kurtosis of a count (1 over its variance, for Gaussian observations 0), and blocks b of time, for
"robust" of one bin. It is near the number of coincidences that chance makes. The model's own B is
added to B with the share ``30 / n - 1``, between 0 and 1: nothing is added from n = 30 on, and all
of it up to n = 15, where standard errors are up to 1.41 times too large. (``1e-11 n P`` is added
for directions in which features cancel but for rounding.) P-values hold however few the events are.
But from few events no one can tell whether counts are more variable than the model says. Prefer
"observed" for maps of sparse cells, and for maps of ridge fits, whose prior keeps couplings without
evidence near zero. "robust" and "blocks" are for couplings between cells with many events, and for
counts that are plainly not those of the family. No kind covers input that the model lacks.

Weights count rows: all of this is what the rows, each repeated as often as its weight, would give.
So "robust" takes the repeats of a row for independent bins, while in "blocks" they share their
block. Weights that are not counts of rows, such as importances, go with "blocks"; ``block_size=1``
then is ``B = sum_t w_t^2 r_t^2 z_t z_t'``, and w^2 stands for w in the effective number of events.

Coefficients without a finite optimum or in a collinear direction have the standard error inf;
those outside the fit (masked, or set to zero by the penalty) have NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy import stats

from fastglm import _html
from fastglm._algebra.inverse import inverse_root
from fastglm._batches.fit import fit_penalties
from fastglm._checks import check_choice, positive_int
from fastglm._effective import ENOUGH, effective_events
from fastglm._fitted import Fitted
from fastglm._information import add_penalty, information, squares
from fastglm._inputs import read_penalty, read_problem
from fastglm._kernels.threads import run_threads, single_threaded_blas
from fastglm._progress import Progress

SANDWICHES = ("robust", "blocks")
KINDS = ("observed", "expected", *SANDWICHES)
_ROWS = 2048  # rows of the sample that are built at a time
_PAIRS = 512  # products of two features at a time
_NULL = 1e-10  # eigenvalue of the scaled information below which a direction is not determined
# Part of a penalty's information that the scores vary by at least. A ridge settles directions in
# which features cancel but for rounding, and a sandwich there would be rounding.
_LEAST = 1e-11
_BLOCK_WINDOWS = 10  # windows in a block of time, unless said
_MOST_FEATURES, _MOST_WORK = 1500, 3e12  # of one receiver, and of all; see `affordable`
_SCORE_BINS = 100_000  # bins that the information of a score test is taken from, unless said


@dataclass
class Uncertainty:
    """Standard errors of a fit and the covariance of every filter.

    Attributes
    ----------
    coef : ndarray of shape (n_features, n_receivers)
    standard_errors : ndarray of shape (n_features, n_receivers)
    intercept_standard_errors : ndarray of shape (n_receivers,)
    kind : str
    filters : ndarray of int, shape (n_features,)
        Filter of every feature.
    covariance : list of ndarray, one for each filter
        Of shape (n_receivers, size, size) for the size features of the filter.
    effective_events : ndarray of shape (n_features, n_receivers) or None
        Events that a sandwich rests on; see the head of `fastglm.inference`. None for "observed"
        and "expected".
    explained : ndarray of shape (n_receivers,) or None
        ``a sum_t w_t h_t (x_t'c - mean)^2`` with the mean weighted by ``w_t h_t``: to second order
        twice what the features add to the log likelihood. NaN outside the fit; None for a sandwich.
    """

    coef: np.ndarray
    standard_errors: np.ndarray
    intercept_standard_errors: np.ndarray
    kind: str
    filters: np.ndarray
    covariance: list
    effective_events: np.ndarray | None = None
    explained: np.ndarray | None = None

    def __repr__(self):
        n_features, n = self.coef.shape
        errors = _html.span(self.standard_errors[np.isfinite(self.standard_errors)])
        return (
            f"Uncertainty ({self.kind}) of {n_features:,} features x {n:,} receivers in "
            f"{len(self.covariance):,} filters; standard errors {errors}{self._few()}"
        )

    def _few(self):
        """For how many coefficients events are few, in words; empty for none."""
        few = 0 if self.effective_events is None else int((self.effective_events < ENOUGH).sum())
        if few == 0:
            return ""
        of = int(np.isfinite(self.effective_events).sum())
        return (
            f"; {few:,} of {of:,} coefficients have fewer than {ENOUGH} effective events and take "
            "a part of the model's variance"
        )

    def wald_test(self):
        """Wald test of every filter against zero.

        ``c' V^-1 c`` for the coefficients c of a filter and their covariance V has a chi-squared
        distribution with as many degrees of freedom as V has rank.

        Returns
        -------
        Test
            Of shape (n_filters, n_receivers); NaN outside the fit and where nothing is determined.
        """
        n = self.coef.shape[1]
        statistic = np.full((len(self.covariance), n), np.nan)
        degrees = np.zeros(statistic.shape, np.int64)
        for g, covariance in enumerate(self.covariance):
            c = self.coef[self.filters == g].T
            finite = np.isfinite(np.einsum("jaa->ja", covariance))
            degrees[g] = finite.sum(axis=1)
            for known in np.unique(finite[degrees[g] > 0], axis=0):
                some = np.flatnonzero((finite == known).all(axis=1))
                v, own = covariance[some][:, known][:, :, known], c[some][:, known]
                rounding = np.finfo(float).eps * known.sum()
                solved = np.linalg.pinv(v, rounding) @ own[:, :, None]
                statistic[g, some] = (own * solved[:, :, 0]).sum(axis=1)
        return Test(statistic, degrees)

    def linear(self, g, weights):
        """Value and standard error of linear combinations of the coefficients of filter g.

        Parameters
        ----------
        g : int
        weights : ndarray of shape (n_combinations, size)

        Returns
        -------
        value, standard_error : ndarrays of shape (n_combinations, n_receivers)
            NaN outside the fit, inf where a coefficient with a weight is not determined.
        """
        c = self.coef[self.filters == g]
        value = weights @ c
        v = self.covariance[g]
        variance, finite = np.einsum("jaa->ja", v), np.where(np.isfinite(v), v, 0.0)
        error = np.sqrt(np.einsum("jab,ab->aj", weights @ finite, weights).clip(min=0))
        error[(weights != 0) @ np.isinf(variance).T] = np.inf
        outside = np.isnan(variance).all(axis=1)
        value[:, outside] = error[:, outside] = np.nan
        return value, error

    def bands(self, kernel, level=0.95, filters=None):
        """Every filter over its lags, with pointwise bands of a level.

        Parameters
        ----------
        kernel : ndarray of shape (window_size, n_basis_funcs)
            Of the basis: ``basis.kernel_``.
        level : float
        filters : array of int, optional
            Which; by default all that have n_basis_funcs coefficients.

        Returns
        -------
        filters, lower, upper : ndarrays of shape (window_size, n_filters, n_receivers)

        Raises
        ------
        ValueError
            If no filter has that many coefficients, or the level is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level is {level}; expected a number between 0 and 1, such as 0.95.")
        kernel = np.asarray(kernel)
        if filters is None:
            filters = np.arange(len(self.covariance))
        chosen = [g for g in filters if self.covariance[g].shape[1] == kernel.shape[1]]
        if not chosen:
            raise ValueError(
                f"kernel has shape {kernel.shape}, but no filter has {kernel.shape[1]} "
                "coefficients; pass the kernel_ of the basis of the fit."
            )
        z = stats.norm.ppf(0.5 + level / 2)
        value, error = zip(*(self.linear(g, kernel) for g in chosen), strict=True)
        value, error = np.stack(value, axis=1), np.stack(error, axis=1)
        return value, value - z * error, value + z * error


@dataclass
class Test:
    """Chi-squared tests of filters.

    Attributes
    ----------
    statistic : ndarray of shape (n_filters, n_receivers)
    degrees : ndarray of int
        Degrees of freedom.
    """

    statistic: np.ndarray
    degrees: np.ndarray

    __test__ = False  # not one of pytest's

    def __repr__(self):
        n_filters, n = self.statistic.shape
        found, tested = int((self.q_value <= 0.05).sum()), int((self.degrees > 0).sum())
        return (
            f"Test of {n_filters:,} filters x {n:,} receivers: {found:,} of {tested:,} with "
            "q <= 0.05"
        )

    def select(self, filters) -> Test:
        """The tests of some filters, a slice or numbers."""
        return Test(self.statistic[filters], self.degrees[filters])

    @property
    def p_value(self):
        """Probability of such a statistic or a larger one if the filter is zero."""
        with np.errstate(invalid="ignore"):
            p = stats.chi2.sf(self.statistic, np.maximum(self.degrees, 1))
        return np.where(self.degrees > 0, p, np.nan)

    @property
    def q_value(self):
        """Benjamini-Hochberg q-values over the whole map."""
        return benjamini_hochberg(self.p_value)


def benjamini_hochberg(p_value):
    """q-values: the smallest false-discovery rate at which a test is among the discoveries.

    ``q_(i) = min_{k >= i} m p_(k) / k`` over the m p-values that are not NaN (Benjamini & Hochberg,
    1995).

    Examples
    --------
    >>> import fastglm
    >>> fastglm.inference.benjamini_hochberg([0.01, 0.04, 0.03, float("nan")]).round(3)
    array([0.03, 0.04, 0.04,  nan])
    """
    p = np.asarray(p_value, np.float64)
    q, known = np.full(p.shape, np.nan), np.isfinite(p)
    values = p[known]
    if ((values < 0) | (values > 1)).any():
        raise ValueError("p_value holds numbers outside 0 to 1.")
    order = np.argsort(values)
    ranked = values[order] * values.size / np.arange(1, values.size + 1)
    ranked = np.minimum.accumulate(ranked[::-1])[::-1]
    out = np.empty_like(values)
    out[order] = np.minimum(ranked, 1.0)
    q[known] = out
    return q


def uncertainty(
    model, X, y, kind="observed", block_size=None, *, sample_weight=None, offset=None
) -> Uncertainty:
    """Standard errors of a fitted model and the covariance of every filter.

    Parameters
    ----------
    model : PopulationGLM or GLM
        Fitted to X and y.
    X, y, sample_weight, offset
        As in `fit`.
    kind : {"observed", "expected", "robust", "blocks"}
        See the head of `fastglm.inference`.
    block_size : int, optional
        Bins in a block of time, for "blocks"; ten windows by default.

    Returns
    -------
    Uncertainty

    Raises
    ------
    ValueError
        If the model is not fitted to data of this shape, the kind is not known, or the fit had
        weights or offsets that are not given.

    Notes
    -----
    Time: the smaller of two counts, and ``p_j^3 / 3`` for the inverse of a receiver with p_j free
    features. From rows it is ``n_bins * p_j^2 / 2`` multiply-adds a receiver, as much as one exact
    Hessian. From pairs of events it is ``window_size / 2`` additions for a pair of events whose
    windows meet, and ``window_size^2 * n_basis_funcs`` multiply-adds for a pair of senders, both
    for each receiver. "robust" takes twice as long and two more passes, and "blocks" always takes
    rows.

    Memory: ``4 * n_features^2`` bytes for each receiver that is held and ``8 * n_features^2`` while
    it is inverted, in as many threads as there are. From pairs of events as many receivers are held
    as fit into 512 MB, at least 8, of more than 5,791 features 4, of more than 8,190 features 2 and
    of more than 11,583 features 1: 3.2 GB at most up to 16,382 features, and then
    ``12 * n_features^2``. "robust" takes ``8 * n_features^2`` and ``32 * n_features^2``. From rows
    a matrix takes ``8 * n_features^2`` from the start. Beside them are 64 MB of weights for every 8
    receivers, or up to 512 MB for all of them where two senders have few events together; and
    ``8 * n_features * n_basis_funcs * n_receivers`` bytes for the filters' covariance.
    """
    check_choice("kind", kind, KINDS)
    fit = Fitted.of(model, X, y, sample_weight=sample_weight, offset=offset)
    if not fit.kept.any():
        raise ValueError(
            f"None of the {fit.X.shape[0]} rows of X is finite with a weight above 0; standard "
            "errors need the bins of a fit."
        )
    if block_size is not None:
        block_size = positive_int("block_size", block_size)
    block_size = block_size or _BLOCK_WINDOWS * (sum(fit.X.reach) or 100)
    n_features, n = fit.coef.shape
    filters = fit.X.filters
    covariance = [np.full((n, size, size), np.nan) for size in np.bincount(filters)]
    out = Uncertainty(
        fit.coef, np.full((n_features, n), np.nan), np.full(n, np.nan), kind, filters, covariance
    )
    if kind in SANDWICHES:
        out.effective_events = np.full((n_features, n), np.nan)
    else:
        out.explained = np.full(n, np.nan)
    n_usable = int(fit.usable.sum())
    with single_threaded_blas(), Progress("standard errors", n_usable) as progress:
        floor = _floor(fit)
        for some, matrices in information(fit, kind, block_size, progress):
            _fill(out, fit, some, matrices, block_size, floor)
    return out


def affordable(fit: Fitted) -> bool:
    """Whether standard errors from rows take minutes at most: 1,500 features, 3e12 operations."""
    n_free = fit.mask.sum(axis=0).astype(float)
    work = float(fit.kept.sum()) * float((n_free**2).sum())
    return n_free.max() <= _MOST_FEATURES and work <= _MOST_WORK


def _fill(out, fit, some, matrices, block_size, floor):
    """Write the covariance of some receivers, from what `information` yields."""
    if out.kind in SANDWICHES:
        effective = effective_events(fit, some, block_size if out.kind == "blocks" else None)
        for k, j in enumerate(some):
            out.effective_events[fit.free[j], j] = effective.number[fit.free[j], k]

    def invert(k):
        j = some[k]
        free = fit.free[j]
        fisher, meat = matrices(k)
        if meat is None:
            with np.errstate(invalid="ignore"):  # the precision of a perfect fit is infinite
                out.explained[j] = fit.precision[j] * _explained(fisher, fit.coef[free, j])
        else:
            meat += effective.part(k, free, fisher) / fit.precision[j]
            add_penalty(fit, j, meat, _LEAST)
        add_penalty(fit, j, fisher)
        left, right, marked = _factors(fisher, meat, np.append(floor[free, j], 0.0))
        if np.any(fit.shift):  # the intercept of features as they were given is b - shift'c
            left[:, -1] -= left[:, :-1] @ fit.shift[free]
            if right is not left:
                right[:, -1] -= right[:, :-1] @ fit.shift[free]
        # The covariance of a sandwich does not depend on the scale.
        scale = 1 / fit.precision[j] if meat is None else 1.0
        _put(out, j, free, left, right, marked, scale)

    run_threads(invert, range(some.size))


def _explained(fisher, coef):
    """``sum_t w_t h_t (x_t'c - mean)^2`` of one receiver, from its information."""
    of_input = fisher[:-1, :-1] @ coef
    total, mean = fisher[-1, -1], fisher[-1, :-1] @ coef
    return max(coef @ of_input - (mean**2 / total if total > 0 else 0.0), 0.0)


@np.errstate(over="ignore", invalid="ignore")  # where next to nothing is determined
def _put(out, j, free, left, right, marked, scale):
    """Write the covariance ``scale * left'right`` of a receiver's free features and intercept."""
    of = out.filters[free]
    edges = np.flatnonzero(np.diff(of, prepend=-1, append=-1))
    for begin, end in pairwise(edges):
        g = of[begin]
        block = scale * (left[:, begin:end].T @ right[:, begin:end])
        block[marked[begin:end]] = block[:, marked[begin:end]] = np.inf
        place = free[begin:end] - np.searchsorted(out.filters, g)
        out.covariance[g][j][np.ix_(place, place)] = block
        out.standard_errors[free[begin:end], j] = np.sqrt(np.diag(block).clip(min=0))
    variance = np.inf if marked[-1] else scale * (left[:, -1] @ right[:, -1])
    out.intercept_standard_errors[j] = np.sqrt(max(variance, 0))


def _floor(fit):
    """Information below which a coefficient counts as not determined, (n_features, n_receivers).

    A part of what it would be at the receiver's mean: where a feature is only active at rates of
    zero (separation), nothing is left.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        curvature = np.nan_to_num(fit.loss.expected_curvature(fit.loss.eta(fit.mean_count)))
    return _NULL * np.outer(squares(fit), curvature)


def likelihood_ratio_test(model, X, y, pairs=None, *, sample_weight=None, offset=None) -> Test:
    """Likelihood-ratio tests: the model is fitted again without a filter.

    ``2 * (LL - LL_0)`` against a chi-squared distribution with as many degrees of freedom as the
    filter has free coefficients, both log likelihoods with the scale of the model. One fit of the
    receivers concerned for each sender.

    Parameters
    ----------
    model : PopulationGLM or GLM
        Fitted to X and y.
    X, y, sample_weight, offset
        As in `fit`.
    pairs : iterable of (filter, receiver), optional
        Which to test; all by default.

    Returns
    -------
    Test
        NaN where no test was asked for, or the filter is not in the fit.

    Raises
    ------
    ValueError
        As in `uncertainty`.
    """
    fit = Fitted.of(model, X, y, sample_weight=sample_weight, offset=offset)
    problem = read_problem(model, X, y, sample_weight, offset)
    filters, n = fit.X.filters, fit.n_receivers
    n_filters = int(filters.max()) + 1
    wanted = np.zeros((n_filters, n), bool)
    if pairs is None:
        wanted[:] = True
    else:
        for g, j in pairs:
            wanted[g, j] = True
    statistic, degrees = np.full((n_filters, n), np.nan), np.zeros((n_filters, n), np.int64)
    whole = _sum_of_losses(fit, slice(None))
    for g in range(n_filters):
        inside = filters == g
        receivers = np.flatnonzero(wanted[g] & fit.mask[inside].any(axis=0) & fit.usable)
        if receivers.size == 0:
            continue
        null = _sum_of_losses(_without(fit, problem, inside, receivers), receivers)
        difference = 2 * fit.precision[receivers] * (null - whole[receivers])
        statistic[g, receivers] = np.maximum(difference, 0)
        degrees[g, receivers] = fit.mask[inside][:, receivers].sum(axis=0)
    return Test(statistic, degrees)


def _without(fit, problem, features, receivers):
    """The fit of some receivers without some features; of the other receivers as it is."""
    free = problem.free & ~features[:, None]
    penalty = read_penalty(fit.model, problem.X, free).select(receivers=receivers)
    (result,) = fit_penalties(
        problem.X,
        problem.observed.select(receivers),
        problem.valid,
        free[:, receivers],
        [penalty],
        replace(problem.settings, loss=fit.loss.select(receivers)),
        log="test",
    )
    coef, intercept = fit.coef.copy(), np.array(fit.model.intercept_, float)
    coef[:, receivers] = result.coef
    intercept[receivers] = result.intercept - problem.intercept_of(result.coef, receivers)
    return fit.at(coef, intercept)


def _sum_of_losses(fit, receivers):
    """Weighted sum of the losses of some receivers over the bins of the fit."""
    total = 0.0
    for block, rows in fit.rows():
        loss, _, _ = fit.derivatives(block, rows, receivers)
        total = total + (fit.weights(block) * loss).sum(axis=0)
    return total


def score_test(model, X, y, max_bins=_SCORE_BINS, *, sample_weight=None, offset=None) -> Test:
    """Score tests of all filters that a model leaves out, without fitting one of them.

    For a filter i that the mask of receiver j keeps out, with the fitted rates mu of j,

        U = -X_i' r,   V = I_ii - I_ir I_rr^-1 I_ri,   a * U' V^-1 U ~ chi-squared

    where r is the slope of the loss (``mu - y`` for Poisson observations with the exponential
    link), I the Hessian of the loss at the fitted model over the filter i and the features r of
    the fit, intercept included, and a the precision of the family (Rao, 1948). A model that keeps
    only each cell's own history tests all ``n^2`` couplings at once.

    Parameters
    ----------
    model : PopulationGLM or GLM
        Fitted to X and y with a ``feature_mask``.
    X, y, sample_weight, offset
        As in `fit`.
    max_bins : int or None
        The scores U are exact. The information is taken from that many evenly spread bins, which
        puts the statistic off by about ``sqrt(2 / (max_bins * mean count))``; None takes all.

    Returns
    -------
    Test
        NaN where the filter is in the fit.

    Notes
    -----
    Time: one pass, and ``max_bins * n_features * n_receivers * (n_basis_funcs + p)`` multiply-adds,
    p the features in the fit of a receiver.
    """
    fit = Fitted.of(model, X, y, sample_weight=sample_weight, offset=offset)
    with single_threaded_blas():
        return _score_test(fit, max_bins)


def _score_test(fit, max_bins):
    filters, n = fit.X.filters, fit.n_receivers
    members = [np.flatnonzero(filters == g) for g in range(int(filters.max()) + 1)]
    score = _scores(fit)
    diagonal, cross, own = _sampled_information(fit, members, max_bins)
    shape = len(members), n
    statistic, degrees = np.full(shape, np.nan), np.zeros(shape, np.int64)

    def test(j):
        if not fit.usable[j]:
            return
        inside = own[j].copy()
        add_penalty(fit, j, inside)
        solved = np.linalg.lstsq(inside, cross[j].T, rcond=1e-12)[0]
        for g, m in enumerate(members):
            if np.isin(m, fit.free[j]).any():
                continue
            block = np.zeros((m.size, m.size))
            block[np.tril_indices(m.size)] = diagonal[g][:, j]
            block = block + np.tril(block, -1).T
            v = block - cross[j][m] @ solved[:, m]
            values, vectors = np.linalg.eigh(0.5 * (v + v.T))
            # What float32 leaves of a direction that is not there must not be divided by.
            kept = values > 1e-5 * max(np.diag(block).max(), 1e-30)
            if kept.any():
                u = vectors[:, kept].T @ score[m, j]
                statistic[g, j] = fit.precision[j] * (u * u / values[kept]).sum()
                degrees[g, j] = kept.sum()

    run_threads(test, range(n))
    return Test(statistic, degrees)


def _scores(fit):
    """``-X' r`` of all features and receivers over the bins of the fit, in float64."""
    total = np.zeros(fit.coef.shape)
    for block, rows in fit.rows():
        _, residual, _ = fit.derivatives(block, rows)
        total -= rows.T @ (fit.weights(block) * residual)
    return total


def _sampled_information(fit, members, max_bins):
    """What score tests need of the information, from some of the bins of the fit.

    Returns
    -------
    diagonal : list of ndarray of shape (n_pairs, n_receivers), one for each filter
        Lower triangle of the filter's own block.
    cross : list of ndarray of shape (n_features, p + 1), one for each receiver
        All features against the p that are in the fit and, last, the intercept.
    own : list of ndarray of shape (p + 1, p + 1)
    """
    n_features, n = fit.coef.shape
    index = np.flatnonzero(fit.kept)
    if max_bins is not None and index.size > max_bins:
        index = index[np.linspace(0, index.size - 1, max_bins).astype(np.int64)]
    weight = np.ones(fit.X.shape[0]) if fit.weight is None else fit.weight
    factor = weight[fit.kept].sum() / weight[index].sum()
    # Products of two features of a filter: the blocks on the diagonal for all receivers at a time.
    lower = [np.tril_indices(m.size) for m in members]
    a = np.concatenate([m[i] for m, (i, _) in zip(members, lower, strict=True)])
    b = np.concatenate([m[k] for m, (_, k) in zip(members, lower, strict=True)])
    diagonal = np.zeros((a.size, n))
    cross = [np.zeros((n_features, fit.free[j].size + 1)) for j in range(n)]
    own = [np.zeros((fit.free[j].size + 1,) * 2) for j in range(n)]
    for start in range(0, index.size, _ROWS):
        block = index[start : start + _ROWS]
        rows = fit.X.rows(block, np.float32)
        _, _, curvature = fit.derivatives(block, rows.astype(np.float64))
        weights = (factor * fit.weights(block) * curvature).astype(np.float32)

        def blocks(first, rows=rows, weights=weights):
            part = slice(first, first + _PAIRS)
            diagonal[part] += (rows[:, a[part]] * rows[:, b[part]]).T @ weights

        def crossing(j, rows=rows, weights=weights):
            chosen = np.column_stack([rows[:, fit.free[j]], np.ones(len(rows), np.float32)])
            weighted = chosen * weights[:, [j]]
            cross[j] += rows.T @ weighted
            own[j] += chosen.T @ weighted

        run_threads(blocks, range(0, a.size, _PAIRS))
        run_threads(crossing, range(n))
    sizes = [i.size for i, _ in lower]
    return np.split(diagonal, np.cumsum(sizes)[:-1]), cross, own


def _factors(bread, meat, floor):
    """Two matrices and which coefficients are not determined.

    The first one's transpose times the second is the inverse of the information, or the sandwich.
    Without a sandwich they are the same, the inverse of the Cholesky factor: the blocks of single
    filters are all that is needed of the inverse, which would take half as long again. ``floor`` is
    what a coefficient's own information must exceed. The matrix without a sandwich takes the place
    of ``bread``.
    """
    scale = np.sqrt(np.diag(bread).clip(min=0))  # beside a lasso a Hessian may bend down
    empty = ~(scale**2 > floor)
    inverse = np.where(empty, 0, 1 / np.where(empty, 1, scale))
    marked = empty.copy()
    # The information in units of each coefficient, with 1 for those that it does not see.
    bread *= inverse[:, None]
    bread *= inverse
    bread[empty, empty] = 1.0
    root = inverse_root(bread, 1 / _NULL)
    if root is None:
        bread[~np.isfinite(bread)] = 0
        values, vectors = np.linalg.eigh(bread)  # reads the lower triangle
        null = values <= _NULL * max(values[-1], 1e-300)
        marked |= (np.abs(vectors[:, null]) > 1e-6).any(axis=1)
        root = (vectors[:, ~null] / np.sqrt(values[~null])).T
    root *= inverse
    if meat is None:
        return root, root, marked
    inv = root.T @ root
    return inv, meat @ inv, marked
