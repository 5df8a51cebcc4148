"""How sure a fit is: standard errors, bands, Wald, likelihood-ratio and score tests.

At the optimum of a receiver the observed information is ``H = sum_t w_t z_t z_t'`` over the bins
of its fit, with ``z_t = (x_t, 1)`` over the features that its mask leaves in and the curvature w of
the loss (mu, for the exponential link). It is summed in float64 from rows of X, block by block.
With ``A = H + n P``, where P is the Hessian of the quadratic penalty and n the number of bins, the
covariance of (coef, intercept) is

| kind | covariance | holds if |
|---|---|---|
| "observed" | ``A^-1`` | the model is right |
| "robust" | ``A^-1 B A^-1``, ``B = sum_t r_t^2 z_t z_t'`` | the rate is right, whatever the noise |
| "blocks" | the same, B summed over scores of blocks of time | residuals depend inside blocks |

"robust" (White, 1982) covers over- and underdispersed counts, "blocks" (Liang & Zeger, 1986)
residuals that depend on each other. With a ridge "observed" is the covariance of the posterior
whose prior is the penalty: its intervals hold the truth at their level on average over coefficients
drawn from the prior, bias included (Nychka, 1988); they are not confidence intervals for a
coefficient much larger than the prior expects. After lasso or group lasso they are conditional on
the selected features and too narrow: use `score_test`, or fit the selected features again on other
data.

Coefficients without a finite optimum or in a collinear direction have the standard error inf;
those outside the fit (masked, or set to zero by the penalty) have NaN.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from scipy import stats

from fastglm import _html
from fastglm._kernels.threads import run_threads, single_threaded_blas
from fastglm._products.weighted_gram import WeightedGram, symmetric

KINDS = ("observed", "robust", "blocks")
_ROWS = 4096  # rows that are built at a time
_MATRIX_BYTES = 1 << 29  # information matrices that are held at a time
_NULL = 1e-10  # eigenvalue of the scaled information below which a direction is not determined
_BLOCK_WINDOWS = 10  # windows in a block of time, unless said
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
    """

    coef: np.ndarray
    standard_errors: np.ndarray
    intercept_standard_errors: np.ndarray
    kind: str
    filters: np.ndarray
    covariance: list

    def __repr__(self):
        n_features, n = self.coef.shape
        errors = _html.span(self.standard_errors[np.isfinite(self.standard_errors)])
        return (
            f"Uncertainty ({self.kind}) of {n_features:,} features x {n:,} receivers in "
            f"{len(self.covariance):,} filters; standard errors {errors}"
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
            c = self.coef[self.filters == g]
            for j in range(n):
                known = np.isfinite(np.diag(covariance[j]))
                if known.any():
                    v = covariance[j][np.ix_(known, known)]
                    statistic[g, j] = c[known, j] @ np.linalg.lstsq(v, c[known, j], rcond=None)[0]
                    degrees[g, j] = known.sum()
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
        error = np.empty_like(value)
        used = weights != 0
        for j, v in enumerate(self.covariance[g]):
            finite = np.where(np.isfinite(v), v, 0.0)
            error[:, j] = np.sqrt(np.einsum("ab,bc,ac->a", weights, finite, weights).clip(min=0))
            open_ = used & np.isinf(np.diag(v))
            error[open_.any(axis=1), j] = np.inf
            if np.isnan(np.diag(v)).all():
                value[:, j] = error[:, j] = np.nan
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


def uncertainty(model, X, y, kind="observed", block_size=None):
    """Standard errors of a fitted model and the covariance of every filter.

    Parameters
    ----------
    model : PopulationGLM or GLM
        Fitted to X and y.
    X, y
        As in `fit`.
    kind : {"observed", "robust", "blocks"}
        See the head of `fastglm.inference`.
    block_size : int, optional
        Bins in a block of time, for "blocks"; ten windows by default.

    Returns
    -------
    Uncertainty

    Raises
    ------
    ValueError
        If the model is not fitted to data of this shape, or the kind is not known.

    Notes
    -----
    Time: ``n_bins * p_j^2`` multiply-adds for a receiver with p_j free features, as much as one
    exact Hessian; twice that for "robust". Memory: the matrices of as many receivers as fit into
    512 MB, and ``8 * n_features * n_basis_funcs * n_receivers`` bytes for the filters' covariance.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; expected one of {list(KINDS)}.")
    fit = _Fitted(model, X, y)
    block_size = block_size or _BLOCK_WINDOWS * (sum(fit.X.reach) or 100)
    n_features, n = fit.coef.shape
    filters = fit.X.filters
    sizes = np.bincount(filters)
    covariance = [np.full((n, size, size), np.nan) for size in sizes]
    errors, intercept_errors = np.full((n_features, n), np.nan), np.full(n, np.nan)
    step = max(1, int(_MATRIX_BYTES // (16 * (n_features + 1) ** 2)))
    with single_threaded_blas():
        for first in range(0, n, step):
            some = np.arange(first, min(first + step, n))
            bread, meat = fit.information(some, kind, block_size)

            def invert(k, some=some, bread=bread, meat=meat):
                j = some[k]
                if fit.free[j].size == 0 and not np.isfinite(fit.intercept[j]):
                    return
                floor = np.append(fit.floor(j), 0.0)
                cov, marked = _covariance(bread[k], None if meat is None else meat[k], floor)
                variance = np.diag(cov).copy()
                variance[marked] = np.inf
                free = fit.free[j]
                errors[free, j] = np.sqrt(variance[:-1].clip(min=0))
                intercept_errors[j] = np.sqrt(max(variance[-1], 0))
                for g in np.unique(filters[free]):
                    inside = np.flatnonzero(filters[free] == g)
                    place = free[inside] - np.flatnonzero(filters == g)[0]
                    block = cov[np.ix_(inside, inside)].copy()
                    out = marked[inside]
                    block[out] = block[:, out] = np.inf
                    covariance[g][j][np.ix_(place, place)] = block

            run_threads(invert, range(some.size))
    return Uncertainty(fit.coef, errors, intercept_errors, kind, filters, covariance)


def likelihood_ratio_test(model, X, y, pairs=None):
    """Likelihood-ratio tests: the model is fitted again without a filter.

    ``2 * (LL - LL_0)`` against a chi-squared distribution with as many degrees of freedom as the
    filter has free coefficients. One fit of the receivers concerned for each sender.

    Parameters
    ----------
    model : PopulationGLM or GLM
        Fitted to X and y.
    X, y
        As in `fit`.
    pairs : iterable of (filter, receiver), optional
        Which to test; all by default.

    Returns
    -------
    Test
        NaN where no test was asked for, or the filter is not in the fit.
    """
    from sklearn.base import clone

    fit = _Fitted(model, X, y)
    filters, n = fit.X.filters, fit.coef.shape[1]
    n_filters = int(filters.max()) + 1
    wanted = np.zeros((n_filters, n), bool)
    if pairs is None:
        wanted[:] = True
    else:
        for g, j in pairs:
            wanted[g, j] = True
    mask = fit.mask
    statistic, degrees = np.full((n_filters, n), np.nan), np.zeros((n_filters, n), np.int64)
    whole = fit.log_likelihood(fit.coef, fit.intercept)
    for g in range(n_filters):
        inside = filters == g
        receivers = np.flatnonzero(wanted[g] & mask[inside].any(axis=0) & fit.usable)
        if receivers.size == 0:
            continue
        without = mask[:, receivers].copy()
        without[inside] = False
        again = clone(model)
        again.set_params(feature_mask=without[:, 0] if fit.single else without)
        strength = np.asarray(model.regularizer_strength, dtype=object)
        if strength.ndim and strength.shape[-1] == n and not isinstance(strength, tuple):
            again.set_params(regularizer_strength=np.asarray(strength, float)[..., receivers])
        counts = fit.counts_of(receivers)
        again.fit(fit.X, counts)
        coef = again.coef_[:, None] if fit.single else again.coef_
        null = fit.log_likelihood(coef, again.intercept_, receivers)
        statistic[g, receivers] = np.maximum(2 * (whole[receivers] - null), 0)
        degrees[g, receivers] = mask[inside][:, receivers].sum(axis=0)
    return Test(statistic, degrees)


def score_test(model, X, y, max_bins=_SCORE_BINS):
    """Score tests of all filters that a model leaves out, without fitting one of them.

    For a filter i that the mask of receiver j keeps out, with the fitted rates mu of j,

        U = X_i' (y - mu),   V = I_ii - I_ir I_rr^-1 I_ri,   U' V^-1 U ~ chi-squared

    where I is the information at the fitted model, over the filter i and the features r of the fit,
    intercept included (Rao, 1948). A model that keeps only each cell's own history tests all
    ``n^2`` couplings at once.

    Parameters
    ----------
    model : PopulationGLM or GLM
        Fitted to X and y with a ``feature_mask``.
    X, y
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
    fit = _Fitted(model, X, y)
    with single_threaded_blas():
        return _score_test(fit, max_bins)


def _score_test(fit, max_bins):
    X, filters = fit.X, fit.X.filters
    n_features, n = fit.coef.shape
    n_filters = int(filters.max()) + 1
    score = fit.score()
    index = np.flatnonzero(fit.kept)
    if max_bins is not None and index.size > max_bins:
        index = index[np.linspace(0, index.size - 1, max_bins).astype(np.int64)]
    scale = fit.kept.sum() / index.size
    members = [np.flatnonzero(filters == g) for g in range(n_filters)]
    sizes = np.array([m.size for m in members])
    # Products of two features of a filter: the blocks on the diagonal for all receivers at a time.
    a, b = (np.concatenate(part) for part in zip(
        *((m[np.tril_indices(m.size)[0]], m[np.tril_indices(m.size)[1]]) for m in members),
        strict=True,
    ))  # fmt: skip
    diagonal = np.zeros((a.size, n))
    cross = [np.zeros((n_features, fit.free[j].size + 1)) for j in range(n)]
    own = [np.zeros((fit.free[j].size + 1,) * 2) for j in range(n)]
    for start in range(0, index.size, _ROWS // 2):
        block = index[start : start + _ROWS // 2]
        rows = X.rows(block, np.float32)
        weights = fit.curvature(block, rows).astype(np.float32)
        columns = range(0, a.size, 512)

        def blocks(first, rows=rows, weights=weights):
            part = slice(first, first + 512)
            diagonal[part] += (rows[:, a[part]] * rows[:, b[part]]).T @ weights

        def crossing(j, rows=rows, weights=weights):
            chosen = np.column_stack([rows[:, fit.free[j]], np.ones(len(rows), np.float32)])
            weighted = chosen * weights[:, [j]]
            cross[j] += rows.T @ weighted
            own[j] += chosen.T @ weighted

        run_threads(blocks, columns)
        run_threads(crossing, range(n))
    starts = np.concatenate([[0], np.cumsum(sizes * (sizes + 1) // 2)])
    statistic, degrees = np.full((n_filters, n), np.nan), np.zeros((n_filters, n), np.int64)

    def test(j):
        if not fit.usable[j]:
            return
        own_j = own[j] * scale
        own_j[:-1, :-1] += fit.n_penalty(j)
        solved = np.linalg.lstsq(own_j, cross[j].T * scale, rcond=1e-12)[0]
        for g, m in enumerate(members):
            if np.isin(m, fit.free[j]).any():
                continue
            block = np.zeros((m.size, m.size))
            block[np.tril_indices(m.size)] = diagonal[starts[g] : starts[g + 1], j] * scale
            block = block + np.tril(block, -1).T
            v = block - scale * cross[j][m] @ solved[:, m]
            values, vectors = np.linalg.eigh(0.5 * (v + v.T))
            # What float32 leaves of a direction that is not there must not be divided by.
            kept = values > 1e-5 * max(np.diag(block).max(), 1e-30)
            if kept.any():
                u = vectors[:, kept].T @ score[m, j]
                statistic[g, j] = (u * u / values[kept]).sum()
                degrees[g, j] = kept.sum()

    run_threads(test, range(n))
    return Test(statistic, degrees)


class _Fitted:
    """A fitted model and its data as inference reads them: many receivers, free features."""

    def __init__(self, model, X, y):
        self.model = model
        self.X = model._check_fitted(X)
        if model._adjusted:
            raise ValueError(
                "The model was fitted with sample_weight or offset, which standard errors do not "
                "know; repeat rows in place of weights."
            )
        self.y = model._read_counts(y, self.X)
        self.coef, self.intercept = model._coef(), np.asarray(model.intercept_)
        self.single = model.coef_.ndim == 1
        n = self.coef.shape[1]
        if (self.y.n_bins, self.y.n_units) != (self.X.shape[0], n):
            raise ValueError(
                f"y has shape {(self.y.n_bins, self.y.n_units)}; expected (n_bins, n_receivers) = "
                f"{(self.X.shape[0], n)}, as in the fit."
            )
        self.loss = model._loss()
        self.mask = model._read_mask(self.X, n)
        self.penalty = model._read_penalty(self.X, self.mask)
        known = ("converged", "separated", "max_iter", "stalled", "imported")
        self.usable = np.isin(model.status_, known)
        self.kept = self.X.valid.copy()
        # The penalty is one of the mean loss, and the mean is over the bins of each receiver.
        gone = np.isnan(self.y.amplitudes) & self.kept[self.y.bins]
        self.n_bins = self.kept.sum() - np.bincount(self.y.units[gone], minlength=n)
        inside = self.mask & ((self.coef != 0) | ~self.penalty.sparse)
        self.free = [np.flatnonzero(inside[:, j]) if self.usable[j] else np.zeros(0, int)
                     for j in range(n)]  # fmt: skip
        self.missing = bool(np.isnan(self.y.amplitudes).any())
        self._squares = None

    def counts_of(self, receivers):
        """Counts of some receivers as an array that `fit` takes."""
        import scipy.sparse

        events = self.y.select(receivers)
        shape = events.n_bins, events.n_units
        table = scipy.sparse.csr_array(
            (events.amplitudes, (events.bins, events.units)), shape=shape
        )
        if self.missing or self.single:
            table = table.toarray()
        return table[:, 0] if self.single else table

    def _rows(self):
        """Yield bins and rows of X, block by block."""
        index = np.flatnonzero(self.kept)
        for start in range(0, index.size, _ROWS):
            block = index[start : start + _ROWS]
            yield block, self.X.rows(block)

    def derivatives(self, block, rows, receivers):
        """Residual and curvature of some receivers; 0 where the count is not known."""
        eta = rows @ self.coef[:, receivers] + self.intercept[receivers]
        counts = self.y.rows(block)[:, receivers]
        known = ~np.isnan(counts)
        with np.errstate(over="ignore", invalid="ignore"):
            _, residual, curvature = self.loss.derivatives(eta, np.where(known, counts, 0.0))
        return np.where(known, residual, 0.0), np.where(known, curvature, 0.0)

    def curvature(self, block, rows):
        """Curvature of all receivers."""
        return self.derivatives(block, rows.astype(np.float64), slice(None))[1]

    def n_penalty(self, j):
        """The penalty's Hessian over the free features of receiver j, times its bins."""
        return self.n_bins[j] * self.penalty.hessian(j, self.free[j])

    def score(self):
        """``X' (y - mu)`` of all features and receivers, in float64."""
        total = np.zeros(self.coef.shape)
        for block, rows in self._rows():
            residual, _ = self.derivatives(block, rows, slice(None))
            total -= rows.T @ residual
        return total

    def floor(self, j):
        """Information below which a coefficient counts as not determined.

        A part of what it would be at the receiver's mean rate: where a feature is only active at
        rates of zero (separation), nothing is left.
        """
        if self._squares is None:
            self._squares = sum((rows**2).sum(axis=0) for _, rows in self._rows())
        known = ~np.isnan(self.y.amplitudes) & (self.y.units == j) & self.kept[self.y.bins]
        rate = self.y.amplitudes[known].sum() / self.n_bins[j]
        return _NULL * rate * self._squares[self.free[j]]

    def log_likelihood(self, coef, intercept, receivers=slice(None)):
        """``sum_t y log(mu) - mu`` of some receivers."""
        total = 0.0
        for block, rows in self._rows():
            counts = self.y.rows(block)[:, receivers]
            known = ~np.isnan(counts)
            loss, _, _ = self.loss.derivatives(rows @ coef + intercept, np.where(known, counts, 0))
            total = total - np.where(known, loss, 0.0).sum(axis=0)
        return total

    def information(self, receivers, kind, block_size):
        """Penalised information of some receivers, and what stands between for a sandwich.

        Lists of matrices over the free features and, last, the intercept.
        """
        used = [k for k, j in enumerate(receivers) if self.usable[j]]
        bread = [np.zeros((self.free[j].size + 1,) * 2) for j in receivers]
        meat = None if kind == "observed" else [np.zeros_like(matrix) for matrix in bread]
        scores = [{} for _ in receivers]
        for block, rows in self._rows():
            residual, curvature = self.derivatives(block, rows, receivers)
            gram = WeightedGram(np.column_stack([rows, np.ones(len(rows))]))

            def add(k, gram=gram, residual=residual, curvature=curvature, number=block):
                free = np.append(self.free[receivers[k]], gram.rows.shape[1] - 1)
                gram.add(curvature[:, k], free, bread[k])
                if kind == "robust":
                    gram.add(residual[:, k] ** 2, free, meat[k])
                elif kind == "blocks":
                    weighted = gram.rows[:, free] * residual[:, [k]]
                    number = number // block_size
                    edges = np.flatnonzero(np.diff(number, prepend=-1))
                    sums = np.add.reduceat(weighted, edges)
                    for at, part in zip(number[edges], sums, strict=True):
                        scores[k][at] = scores[k].get(at, 0.0) + part

            run_threads(add, used)
        for k in used:
            bread[k] = symmetric(bread[k])
            bread[k][:-1, :-1] += self.n_penalty(receivers[k])
            if kind == "robust":
                meat[k] = symmetric(meat[k])
            elif kind == "blocks":
                u = np.array(list(scores[k].values()))
                u = u[u.any(axis=1)]  # a block without a known count is none
                meat[k] = u.T @ u * (len(u) / max(len(u) - 1, 1))
        return bread, meat


def _covariance(bread, meat, floor):
    """Inverse of the information, or the sandwich, and which coefficients are not determined.

    ``floor`` is what a coefficient's own information must exceed.
    """
    size = bread.shape[0]
    scale = np.sqrt(np.diag(bread))
    empty = ~(scale**2 > floor)
    inverse = np.where(empty, 0, 1 / np.where(empty, 1, scale))
    unit = bread * np.outer(inverse, inverse)
    marked = empty.copy()
    try:
        unit[empty, empty] = 1.0
        factor = scipy.linalg.cho_factor(unit, lower=True, check_finite=False)
        inv = scipy.linalg.cho_solve(factor, np.eye(size), check_finite=False)
        sound = np.isfinite(inv).all() and np.diag(inv).max(initial=0) < 1 / _NULL
    except (np.linalg.LinAlgError, scipy.linalg.LinAlgError, ValueError):
        sound = False
    if not sound:
        unit[~np.isfinite(unit)] = 0
        values, vectors = np.linalg.eigh(unit)
        null = values <= _NULL * max(values[-1], 1e-300)
        marked |= (np.abs(vectors[:, null]) > 1e-6).any(axis=1)
        kept = vectors[:, ~null]
        inv = (kept / values[~null]) @ kept.T
    inv = inv * np.outer(inverse, inverse)
    return (inv if meat is None else inv @ meat @ inv), marked
