"""How strong a penalty: paths over strengths for all receivers at once, and cross-validation.

Every receiver chooses its own strength. A path starts each fit where the last one ended, with the
curvature that is already known; folds share the Gram matrix, its spectrum and the sampled bins of
the whole recording, which only speed a fit up and do not change its optimum.

Folds are contiguous stretches of time: neighbouring bins are not independent. History never leaks
across an edge: the bins whose window reaches into the other side, the first window of a held-out
block and the first window after it, are in neither part.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from sklearn.base import clone

from fastglm import _html
from fastglm._batches.executors import opened
from fastglm._batches.fit import fit_penalties
from fastglm._batches.plan import plan_fit
from fastglm._checks import as_numbers, check_choice, is_number, whole_numbers
from fastglm._engine.batch import share_batch
from fastglm._fitted import fitted_scale, rates
from fastglm._inputs import read_penalty, read_problem
from fastglm._kernels.threads import single_threaded_blas
from fastglm._products.local import Local
from fastglm._products.sums import moments
from fastglm._progress import Progress
from fastglm._scores import mean_log_likelihood, null_intercepts, null_rates, warn_impossible
from fastglm.features.events import Events
from fastglm.regularizer import ElasticNet, UnRegularized, as_regularizer

RULES = ("best", "one-standard-error")
_N_STRENGTHS, _SPARSE_RANGE = 10, 1e-3
_ROWS = 4096  # rows that are built at a time
# Decrement before the last step of the fit of a fold, which gains a factor of ten: part of what
# noise adds to the objective, n_features / (2 n_bins).
_FOLD_TOL = 1e-3


@dataclass
class Path:
    """Fits of all receivers with a row of strengths, strongest first.

    Attributes
    ----------
    strengths : ndarray of shape (n_strengths, n_receivers)
    coef : ndarray of shape (n_strengths, n_features, n_receivers)
    intercept, objective, grad_norm, newton_decrement : ndarrays of shape (n_strengths, n_receivers)
        As the attributes of a fitted `PopulationGLM`.
    status, n_passes : ndarrays of shape (n_strengths, n_receivers)
    features, receivers : list or None
        Names of the columns of X and y, if they have names.
    """

    strengths: np.ndarray
    coef: np.ndarray
    intercept: np.ndarray
    objective: np.ndarray
    grad_norm: np.ndarray
    newton_decrement: np.ndarray
    status: np.ndarray
    n_passes: np.ndarray
    features: list | None = None
    receivers: list | None = None

    def __repr__(self):
        n_strengths, n_features, n = self.coef.shape
        return (
            f"Path of {n_strengths} strengths ({_html.span(self.strengths)}) for {n:,} receivers x "
            f"{n_features:,} features: {_html.tally(self.status)}"
        )

    def _repr_html_(self):
        rows = [
            [
                _html.span(strength),
                f"{np.median(n_nonzero):.4g}",
                _html.tally(status),
                _html.number(np.fmax.reduce(decrement), ".0e"),
            ]
            for strength, n_nonzero, status, decrement in zip(
                self.strengths, self.n_nonzero, self.status, self.newton_decrement, strict=True
            )
        ]
        head = ["strength", "not zero, median", "status", "largest decrement"]
        return _html.table(repr(self), rows, head)

    @property
    def n_nonzero(self):
        """Number of coefficients that are not zero, (n_strengths, n_receivers)."""
        return (self.coef != 0).sum(axis=1)


@dataclass
class CrossValidation:
    """Held-out scores of a row of strengths, and the model with each receiver's own.

    Attributes
    ----------
    strengths : ndarray of shape (n_strengths, n_receivers)
        Strongest first.
    scores : ndarray of shape (n_strengths, n_folds, n_receivers)
        Mean held-out log-likelihood per bin; NaN for a fold without bins for a receiver. Minus
        infinity where the fit gives probability 0 to a held-out count, such as an event inside the
        dead time that it has learned.
    chosen : ndarray of int, shape (n_receivers,)
        Row of the strengths.
    rule : str
    model : PopulationGLM
        Fitted to all bins with ``strength``.
    possible_scores : ndarray of shape (n_strengths, n_folds, n_receivers)
        The scores without bins whose count has probability 0.
    n_impossible : ndarray of int, shape (n_strengths, n_folds, n_receivers)
        Number of these bins.
    """

    strengths: np.ndarray
    scores: np.ndarray
    chosen: np.ndarray
    rule: str
    model: object
    possible_scores: np.ndarray | None = None
    n_impossible: np.ndarray | None = None

    def __repr__(self):
        n_strengths, n_folds, n = self.scores.shape
        return (
            f"CrossValidation of {n_strengths} strengths in {n_folds} folds for {n:,} receivers, "
            f"rule {self.rule!r}: strength {_html.span(self.strength)}"
        )

    def _repr_html_(self):
        times = np.bincount(self.chosen, minlength=len(self.strengths))
        rows = [
            [_html.span(strength), _html.number(score, ".5g"), str(n)]
            for strength, score, n in zip(
                self.strengths, self.mean_score.mean(axis=1), times, strict=True
            )
        ]
        head = ["strength", "held-out log-likelihood a bin", "receivers that chose it"]
        return _html.table(repr(self), rows, head)

    @property
    def strength(self):
        """The chosen strength of every receiver."""
        return self.strengths[self.chosen, np.arange(self.chosen.size)]

    @property
    def mean_score(self):
        """Mean over the folds, (n_strengths, n_receivers)."""
        return _mean_and_error(self.scores)[0]

    @property
    def standard_error(self):
        """Standard error of the mean over the folds, (n_strengths, n_receivers)."""
        return _mean_and_error(self.scores)[1]


def regularization_path(
    model, X, y, strengths=None, *, sample_weight=None, offset=None, executor=None
) -> Path:
    """Fit all receivers with a row of strengths.

    Parameters
    ----------
    model : PopulationGLM
        With a ``regularizer``; its other parameters hold for every fit. Not changed.
    X, y, sample_weight, offset
        As in `fit`.
    strengths : int or array of shape (n_strengths,) or (n_strengths, n_receivers), optional
        An integer is a number of strengths: from the least that sets all penalised coefficients
        to zero, down to a thousandth (lasso, elastic net, group lasso); or, as priors (ridge),
        from one under which all features together move eta by 0.1 to one under which each moves it
        by 1, for Gaussian observations in standard deviations of the noise. Default 10.
    executor : object, optional
        As in `fit`.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        If the model has no regularizer, or strengths are negative or of another shape.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> counts = np.random.default_rng(0).poisson(0.2, size=(3000, 4))
    >>> X = fastglm.basis.RaisedCosineLogConv(5, window_size=50).compute_features(counts)
    >>> model = fastglm.PopulationGLM(regularizer="GroupLasso")
    >>> path = fastglm.model_selection.regularization_path(model, X, counts, 8)
    >>> path.coef.shape, int(path.n_nonzero[0].max())
    ((8, 20, 4), 0)
    """
    problem = read_problem(model, X, y, sample_weight, offset)
    strengths = _strengths(model, problem, strengths)
    penalties = _penalties(model, problem, strengths)
    with opened(executor) as workers:
        results = _fit_path(problem, problem.valid, penalties, "path", workers=workers)
    for result in results:
        problem.uncenter(result)
    names = ("coef", "intercept", "objective", "grad_norm", "newton_decrement", "status")
    stacked = {name: np.stack([getattr(r, name) for r in results]) for name in names}
    features, receivers = problem.names, problem.y.columns
    return Path(
        strengths,
        **stacked,
        n_passes=np.stack([r.n_passes for r in results]),
        features=None if features is None else list(features),
        receivers=None if receivers is None else list(receivers.names),
    )


def _penalties(model, problem, strengths):
    rows = _with_ratio(model, strengths)
    return [read_penalty(model, problem.X, problem.free, row) for row in rows]


def _fit_path(problem, valid, penalties, log, shared=None, guide=None, workers=None):
    """Results of some bins of a problem with every penalty."""
    return fit_penalties(
        problem.X,
        problem.observed,
        valid,
        problem.free,
        penalties,
        problem.settings,
        shared,
        guide,
        log,
        workers,
    )


def cross_validate(
    model,
    X,
    y,
    strengths=None,
    folds=5,
    rule="best",
    *,
    groups=None,
    sample_weight=None,
    offset=None,
    executor=None,
) -> CrossValidation:
    """Choose each receiver's strength by its held-out log-likelihood, and fit with it.

    Parameters
    ----------
    model : PopulationGLM
        With a ``regularizer``. Not changed.
    X, y, sample_weight, offset
        As in `fit`. With weights, scores are those of repeated rows.
    strengths
        As in `regularization_path`.
    folds : int, array of int of shape (n_bins,), splitter, or list of pairs
        A number of contiguous blocks; the fold of every bin (of its epoch or trial), negative for a
        bin in no fold's held-out part; a splitter of scikit-learn; or pairs of bins to fit and bins
        to score.
    rule : {"best", "one-standard-error"}
        The strength with the highest mean score; or the strongest one whose mean score is within
        one standard error of it. If all strengths have a score of minus infinity, the strength is
        one with the fewest bins of probability 0, and of these the one with the best score without
        these bins.
    groups : array of shape (n_bins,), optional
        Group of every bin, numbers or texts, for splitters that take groups (``GroupKFold``).
    executor : object, optional
        As in `fit`: for the fits of every fold, and the last one. Held-out bins are scored in this
        process.

    Returns
    -------
    CrossValidation

    Raises
    ------
    ValueError
        If a fold leaves no bins to fit or to score, or as `regularization_path`.

    Warns
    -----
    UserWarning
        If the scores of a receiver are minus infinity for all strengths.

    Notes
    -----
    The fits of the folds start from those to all bins, and end where the objective is off by a
    thousandth of what noise adds to it, ``n_features / (2 n_bins)``, or less: that is far below the
    noise of a held-out score. The last fit, to all bins, ends at the model's ``tol``.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> counts = np.random.default_rng(0).poisson(0.2, size=(3000, 4))
    >>> X = fastglm.basis.RaisedCosineLogConv(5, window_size=50).compute_features(counts)
    >>> model = fastglm.PopulationGLM(regularizer="Ridge")
    >>> cv = fastglm.model_selection.cross_validate(model, X, counts, 6, folds=3)
    >>> cv.scores.shape, cv.strength.shape, cv.model.coef_.shape
    ((6, 3, 4), (4,), (20, 4))
    """
    check_choice("rule", rule, RULES)
    problem = read_problem(model, X, y, sample_weight, offset)
    strengths = _strengths(model, problem, strengths)
    rest = problem.y, problem.valid, groups, problem.places
    parts = list(split(problem.X, folds, *rest))
    with opened(executor) as workers, Progress("cross-validation", len(parts) + 1) as progress:
        found = _held_out_scores(model, problem, strengths, parts, progress, workers)
    scores, possible, n_impossible = found
    chosen = _choose(scores, rule)
    lost = np.isneginf(_mean_and_error(scores)[0]).all(axis=0)
    if lost.any():
        number = n_impossible.sum(axis=1)
        mean = np.nan_to_num(_mean_and_error(possible)[0], nan=-np.inf)
        mean = np.where(number == number.min(axis=0), mean, -np.inf)
        chosen = np.where(lost, mean.argmax(axis=0), chosen)
        number = np.where(lost, number.min(axis=0), 0)
        what = "Held-out scores are minus infinity; possible_scores leaves these bins out"
        warn_impossible(number, problem.y.columns, what, level=3)
    final = clone(model)
    best = strengths[chosen, np.arange(chosen.size)]
    final.set_params(regularizer_strength=_with_ratio(model, [best])[0])
    final.fit(X, y, sample_weight=sample_weight, offset=offset, executor=executor)
    return CrossValidation(strengths, scores, chosen, rule, final, possible, n_impossible)


def _held_out_scores(model, problem, strengths, parts, progress, workers):
    """Mean log likelihoods of held-out bins, also without impossible counts, and their number.

    Three arrays of shape (n_strengths, n_folds, n_receivers).
    """
    X, y, observed, settings = problem.X, problem.y, problem.observed, problem.settings
    noise = X.shape[1] / (2 * problem.valid.sum())
    loose = replace(settings, tol=max(settings.tol, _FOLD_TOL * noise), rough=True)
    rough, penalties = replace(problem, settings=loose), _penalties(model, problem, strengths)
    products, sparse = Local(X, problem.valid), any(p.sparse.any() for p in penalties)
    plan = plan_fit(products, np.arange(y.n_units), problem.free, settings, sparse=sparse)
    shared = guide = None
    whole = [b for b in plan.batches if b.method == "newton-cg" and not b.selected]
    if whole:
        with single_threaded_blas():
            shared = share_batch(products, whole[0], settings.memory_budget)
    if not all(penalty.sparse.all() for penalty in penalties):
        guide = _fit_path(rough, problem.valid, penalties, "path", shared, workers=workers)
    progress.to(1, "the path of all bins is done")
    loss, scores = settings.loss, np.full((3, len(strengths), len(parts), y.n_units), np.nan)
    for k, (train, test) in enumerate(parts):
        log = f"fold {k + 1} of {len(parts)}"
        results = _fit_path(rough, train, penalties, log, shared, guide, workers)
        for s, result in enumerate(results):
            scale = fitted_scale(replace(problem, valid=train, penalty=penalties[s]), result)
            mu = rates(X, result.coef, result.intercept, loss, observed.offset, test)
            scores[:, s, k] = mean_log_likelihood(
                mu, y, loss.observation_model, scale, observed.weight
            )
        progress.to(k + 2, f"fold {k + 1} of {len(parts)} is done")
    return scores[0], scores[1], scores[2].astype(int)


def split(X, folds, y=None, valid=None, groups=None, places=None):
    """Bins to fit and bins to score of every fold, as boolean arrays.

    A bin whose window reaches from one part into the other is in neither. ``valid`` are the bins of
    the whole fit, by default those of X. ``y`` are the counts, which splitters that stratify see.
    ``places`` are the bins that folds are about; see `Problem`.
    """
    valid, reach = X.valid if valid is None else valid, X.reach
    rows = slice(None) if places is None else places
    for k, labels in enumerate(_labels(folds, y, valid[rows], groups, rows)):
        # Bins in gaps between the rows belong to neither part, and may be seen by both.
        train, test = np.ones((2, valid.size), bool)
        train[rows], test[rows] = labels
        parts = (
            valid & train & ~_sees(~train, *reach),
            valid & test & ~_sees(~test, *reach),
        )
        if not parts[0].any() or not parts[1].any():
            raise ValueError(
                f"Fold {k} has {int(parts[0].sum())} bins to fit and {int(parts[1].sum())} to "
                "score, beside those whose window crosses an edge; use fewer or longer folds."
            )
        yield parts


def _labels(folds, y, valid, groups, rows):
    """Pairs of boolean arrays over the rows, to fit and to score, as the folds say."""
    if hasattr(folds, "split") and not isinstance(folds, str):
        return _masks(_split_by(folds, y, valid.size, groups, rows), valid.size)
    if groups is not None:
        raise ValueError(
            f"groups go with a splitter such as GroupKFold(), but folds is {folds!r}. Pass the "
            "fold of every bin as folds?"
        )
    if _are_pairs(folds):
        return _masks(folds, valid.size)
    return _blocks(folds, valid)


def _split_by(splitter, y, n_bins, groups, rows):
    """Pairs of bins to fit and bins to score, of a splitter of scikit-learn."""
    if groups is not None:
        groups = np.asarray(groups)
        if groups.shape != (n_bins,):
            raise ValueError(
                f"groups has shape {groups.shape}; expected a group for each of the {n_bins} bins."
            )
    target = None
    if y is not None and y.n_units == 1 and not np.isnan(y.amplitudes).any():
        target = y.rows(np.arange(y.n_bins)[rows])[:, 0]  # splitters that stratify need it
    try:
        return list(splitter.split(np.zeros((n_bins, 1)), target, groups))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{splitter!r} cannot split the {n_bins} bins: {error} Splitters by group need groups, "
            "and those that stratify a single receiver without missing counts."
        ) from error


def _are_pairs(folds):
    """Whether folds are a list of (bins to fit, bins to score)."""
    if not isinstance(folds, list | tuple) or len(folds) == 0:
        return False
    return all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in folds) and all(
        np.ndim(part) == 1 for pair in folds for part in pair
    )


def _masks(pairs, n_bins):
    """Boolean arrays of pairs of bins, which are numbers or booleans."""
    labels = []
    for pair in pairs:
        parts = np.zeros((2, n_bins), bool)
        for part, bins in zip(parts, pair, strict=True):
            bins = np.asarray(bins)
            if bins.dtype == bool:
                inside = bins.size == n_bins
            else:
                bins = whole_numbers("folds", bins)
                inside = bins.min(initial=0) >= 0 and bins.max(initial=0) < n_bins
            if not inside:
                raise ValueError(f"folds names bins beyond the {n_bins} bins of X.")
            part[bins] = True
        labels.append(tuple(parts))
    return labels


def _blocks(folds, valid):
    """Boolean arrays of contiguous blocks, or of the folds that are given for every bin."""
    if np.ndim(folds) == 0:
        if not is_number(folds) or int(folds) != folds or folds < 2:
            raise ValueError(f"folds is {folds!r}; expected an integer of at least 2.")
        # As many bins of the fit in each. What lies before a bin of the fit belongs to its block:
        # one that begins with an epoch has that epoch's first window.
        rank = np.cumsum(valid) - valid
        folds = np.minimum(rank * int(folds) // max(int(valid.sum()), 1), int(folds) - 1)
    of_bin = np.asarray(folds)
    if of_bin.shape != valid.shape or of_bin.dtype.kind not in "iuO":  # O: nullable integers
        raise ValueError(
            f"folds has shape {of_bin.shape} and dtype {of_bin.dtype}; expected an integer for "
            f"each of the {valid.size} bins."
        )
    of_bin = whole_numbers("folds", of_bin)
    labels = [(of_bin != f, of_bin == f) for f in np.unique(of_bin[of_bin >= 0])]
    if len(labels) < 2:
        raise ValueError("folds names a single fold; expected at least 2.")
    return labels


def _sees(mask, back, ahead):
    """Bins with a bin of the mask at most ``back`` bins before them or ``ahead`` after them."""
    n_before = np.concatenate([[0], np.cumsum(mask)])
    t = np.arange(mask.size)
    return n_before[np.minimum(t + ahead + 1, mask.size)] > n_before[np.maximum(t - back, 0)]


def _choose(scores, rule):
    mean, error = (
        np.nan_to_num(part, nan=low)
        for part, low in zip(_mean_and_error(scores), (-np.inf, 0.0), strict=True)
    )
    best = mean.argmax(axis=0)
    if rule == "best":
        return best
    each = np.arange(best.size)
    return (mean >= mean[best, each] - error[best, each]).argmax(axis=0)


def _mean_and_error(scores):
    """Mean over the folds and its standard error; NaN where there is no fold, or a single one."""
    n = np.isfinite(scores).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(scores, axis=1) / n
        squares = np.nansum((scores - mean[:, None]) ** 2, axis=1)
        return mean, np.sqrt(np.where(n > 1, squares / (n - 1), np.nan) / n)


def _with_ratio(model, rows):
    """Strengths as the regularizer of the model takes them."""
    given = model.regularizer_strength
    kind = as_regularizer(model.regularizer)
    pair = isinstance(kind, ElasticNet) and isinstance(given, tuple | list)
    return [(row, given[1]) if pair else row for row in rows]


def _strengths(model, problem, strengths):
    """Rows of strengths, strongest first, (n_strengths, n_receivers)."""
    if isinstance(as_regularizer(model.regularizer), UnRegularized):
        raise ValueError(
            "model has no regularizer; pass one, such as PopulationGLM(regularizer='Ridge')."
        )
    n = problem.n_receivers
    number = _N_STRENGTHS if strengths is None else strengths
    if np.ndim(number) == 0:
        if not is_number(number) or int(number) != number or number < 1:
            raise ValueError(f"strengths is {strengths!r}; expected an integer or an array.")
        largest, span = _largest_strength(model, problem)
        return largest * span ** np.linspace(0, 1, int(number))[:, None]
    rows = as_numbers(strengths, "strengths").astype(np.float64)
    rows = rows[:, None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or rows.shape[1] not in (1, n) or rows.size == 0:
        raise ValueError(
            f"strengths has shape {np.shape(strengths)}; expected (n_strengths,) or (n_strengths, "
            f"n_receivers) with n_receivers = {n}."
        )
    if not (np.isfinite(rows).all() and (rows >= 0).all()):
        raise ValueError("strengths must be finite and not negative.")
    rows = np.broadcast_to(rows, (rows.shape[0], n))
    return -np.sort(-rows, axis=0)


def _largest_strength(model, problem):
    """Where a path begins for every receiver, and the part of it where it ends."""
    X, free, n = problem.X, problem.free, problem.n_receivers
    unit = read_penalty(model, X, free, _with_ratio(model, [np.ones(n)])[0])
    if unit.sparse.any():
        grad = np.where(free, _null_gradient(problem), 0.0)
        size = np.zeros(unit.weight.shape)
        np.add.at(size, unit.group_of, grad**2)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(unit.weight > 0, np.sqrt(size) / unit.weight, 0.0)
        # A little above: rounding must not let the first feature in.
        return np.maximum((1 + 1e-6) * ratio.max(axis=0), 1e-12), _SPARSE_RANGE
    index = np.flatnonzero(problem.valid)
    index = index[np.linspace(0, index.size - 1, min(index.size, 2000)).astype(np.int64)]
    spread = float(np.mean(X.rows(index).var(axis=0)))
    # A ridge s is a prior under which a feature x moves eta with the variance
    # count_factor * var(x) / (n_bins s), for Gaussian observations in units of the noise's: from
    # 0.01 for all features together to 1 for each.
    n_free = np.maximum(free.sum(axis=0), 1)
    level = np.where(unit.level > 0, unit.level, 1.0)
    weight = problem.observed.weight
    n_bins = problem.valid.sum() if weight is None else weight[problem.valid].sum()
    factor = 100 * problem.settings.loss.count_factor
    return factor * n_free * max(spread, 1e-12) / (n_bins * level), 0.01 / n_free


def _null_gradient(problem):
    """Gradient of the mean loss where only intercepts are fitted, (n_features, n_receivers)."""
    X, y, loss, observed = problem.X, problem.y, problem.settings.loss, problem.observed
    if not observed.plain:
        return _weighted_gradient(problem)
    if y.values is None:
        y = Events(y.bins, y.units, np.nan_to_num(y.amplitudes), (y.n_bins, y.n_units))
    sums = moments(X, problem.valid, y)
    n_bins = problem.valid.sum()
    mean = sums.sum_y / n_bins
    grad = sums.xty / n_bins - np.outer(sums.x / n_bins, mean)
    # The residual is linear in the count, with a slope that the constant rate sets.
    if loss.linear_counts:
        return loss.count_factor * grad
    eta = loss.eta(np.clip(mean, 1e-12, np.inf if loss.high is None else 1 - 1e-12))
    return grad * (loss.derivatives(eta, 0.0)[1] - loss.derivatives(eta, 1.0)[1])


def _weighted_gradient(problem):
    """The same with weights or offsets: one pass over the bins, ``X' r``."""
    X, y, loss, observed = problem.X, problem.y, problem.settings.loss, problem.observed
    if observed.offset is None:
        intercept, offset = null_rates(loss, observed, problem.valid), np.zeros((y.n_bins, 1))
        intercept = loss.eta(intercept(None))
    else:
        intercept, offset = null_intercepts(loss, observed, problem.valid), observed.offset
    total, grad = np.zeros(y.n_units), np.zeros((X.shape[1], y.n_units))
    index = np.flatnonzero(problem.valid)
    for start in range(0, index.size, _ROWS):
        block = index[start : start + _ROWS]
        counts = y.rows(block)
        known = ~np.isnan(counts)
        weight = known * (1.0 if observed.weight is None else observed.weight[block, None])
        eta = np.broadcast_to(intercept + offset[block], counts.shape)
        _, residual, _ = loss.derivatives(eta, np.where(known, counts, 0.0))
        grad += X.rows(block).T @ (weight * np.where(known, residual, 0.0))
        total += weight.sum(axis=0)
    return grad / np.maximum(total, 1e-300)
