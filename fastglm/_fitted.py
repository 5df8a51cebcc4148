"""The one view of a fit: what a fitted model says about data, for everything that is built on it.

`Fitted` reads a model through its public attributes and has receivers in columns, whether the
model is a GLM or a PopulationGLM. `store` writes what a fit found to a model.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cached_property

import numpy as np
from sklearn.exceptions import NotFittedError

from fastglm._engine.observed import columns
from fastglm._engine.proximal import norms
from fastglm._engine.result import SETTLED, USABLE, Result, is_one_of
from fastglm._inputs import (
    check_names,
    check_receivers,
    cut,
    read_counts,
    read_loss,
    read_mask,
    read_offset,
    read_penalty,
    read_weight,
)
from fastglm._kernels.threads import single_threaded_blas
from fastglm._penalty import Penalty
from fastglm._products.local import Local
from fastglm._progress import Progress
from fastglm._pynapple import Columns
from fastglm.features.events import Events
from fastglm.features.matrix import as_feature_matrix
from fastglm.observation_models import ObservationModel
from fastglm.pytrees import is_container, paths, split, stack
from fastglm.regularizer import as_regularizer

_ROWS = 4096  # rows that are built at a time
_LITTLE = 1e-6  # part of the variance of the counts, which an objective is exact to 1e-15 of
_ADJUSTMENTS = ("sample_weight", "offset")


def _check_tree(model, X):
    """Raise ValueError if X is another tree than that of the fit."""
    given, known = paths(X), paths(model.coef_, is_container)
    if given != known:
        given, known = ("an array" if v is None else f"a tree of {v}" for v in (given, known))
        raise ValueError(f"X is {given}; expected {known}, as in the fit: coef_ has its shape.")


class Fitted:
    """A fitted model, and data if they are given, with receivers in columns.

    Attributes
    ----------
    model : PopulationGLM or GLM
    loss : Loss
        Mean, slope and derivatives as functions of eta.
    family : ObservationModel
    coef : ndarray of shape (n_features, n_receivers)
    intercept, scale : ndarrays of shape (n_receivers,)
        The scale is 1 for families that have none.
    status : ndarray of str, shape (n_receivers,)
    converged : ndarray of bool, shape (n_receivers,)
        At the minimum or infimum of the objective.
    usable : ndarray of bool, shape (n_receivers,)
        The coefficients are those of a fit that came near its optimum, and standard errors make
        sense.
    single : bool
        The model is a GLM of one receiver.
    receivers : Columns or None
        What the receivers are called.
    regularizer : str
    weighted, shifted, adjusted : bool
        The fit had weights; had offsets; had either.
    X : FeatureMatrix or None
        With columns that are far from zero centred; see `FeatureMatrix.centred`.
    shift : ndarray of shape (n_features,), or 0.0
        What was taken off the columns.
    coef, intercept : ndarrays of shape (n_features, n_receivers), (n_receivers,)
        The intercepts go with the centred columns.
    y : Events or None
    weight : ndarray of shape (n_bins,) or None
    offset : ndarray of shape (n_bins, 1) or (n_bins, n_receivers), or None
    kept : ndarray of bool, shape (n_bins,)
        Bins of the fit: X is finite and the weight above 0.
    places : ndarray of int or None
        Bins that are the rows of the matrix that was given; see `Problem`.
    timeline : Timeline or None
        Times of these rows.
    """

    def __init__(self, model, X=None, y=None, weight=None, offset=None):
        self.timeline = self.places = None
        if X is not None:
            self.timeline = X.timeline
            X, self.places, (y, weight, offset) = cut(X, y, weight, offset)
        self.model, self.y, self.weight, self.offset = model, y, weight, offset
        coef = stack(model.coef_)
        self.coef = coef if coef.ndim == 2 else coef[:, None]
        self.X, self.shift = (None, 0.0) if X is None else X.centred()
        self.intercept = np.asarray(model.intercept_) + self._moved(self.coef)
        self.scale = np.asarray(model.scale_)
        self.loss = read_loss(model).at(self.scale)
        self.family: ObservationModel = self.loss.observation_model
        self.status, self.converged = model.status_, model.converged_
        self.usable = is_one_of(self.status, *USABLE)
        self.single = model.single_receiver
        self.receivers: Columns | None = model.receivers_
        self.regularizer = str(as_regularizer(model.regularizer))
        self.weighted, self.shifted = model.weighted_, model.shifted_
        self.kept = None if X is None else X.valid
        if weight is not None:
            self.kept = self.kept & (weight > 0)

    @classmethod
    def of(
        cls, model, X=None, y=None, *, sample_weight=None, offset=None, needs=_ADJUSTMENTS
    ) -> Fitted:
        """The view of a model, with data if they are given.

        Parameters
        ----------
        model : PopulationGLM or GLM
        X, y, sample_weight, offset : optional
            As in `fit`. y needs X.
        needs : tuple of str
            Of "sample_weight" and "offset", what y needs again where the fit had some.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        ValueError
            If the data do not fit the model, or weights or offsets are missing.
        """
        if not (hasattr(model, "coef_") and hasattr(model, "intercept_")):
            raise NotFittedError(
                f"This {type(model).__name__} is not fitted yet; call fit(X, y) first."
            )
        if not hasattr(model, "status_"):  # set by hand
            store_imported(model, model.coef_, model.intercept_, getattr(model, "scale_", None))
        if X is None:
            return cls(model)
        check_names(model, X)
        _check_tree(model, X)
        X = as_feature_matrix(X)
        n_features, n = len(stack(model.coef_)), len(model.intercept_)
        if X.shape[1] != n_features:
            raise ValueError(
                f"X has {X.shape[1]} features, but {type(model).__name__} is expecting "
                f"{n_features} features as input; compute them with the same basis and senders."
            )
        if y is not None:
            y = read_counts(model, y, X)
            if (y.n_bins, y.n_units) != (X.shape[0], n):
                raise ValueError(
                    f"y has shape {(y.n_bins, y.n_units)}; expected (n_bins, n_receivers) = "
                    f"{(X.shape[0], n)}, as in the fit."
                )
            check_receivers(model, y)
            given = {"sample_weight": sample_weight, "offset": offset}
            had = {"sample_weight": model.weighted_, "offset": model.shifted_}
            for name in needs:
                if had[name] and given[name] is None:
                    raise ValueError(
                        f"This {type(model).__name__} was fitted with {name}; pass the {name} of "
                        "these bins as well."
                    )
        weight = read_weight(sample_weight, X.shape[0])
        return cls(model, X, y, weight, read_offset(offset, X.shape[0], n))

    def at(self, coef, intercept, scale=None) -> Fitted:
        """The same data seen with other coefficients, and intercepts for X as it was given."""
        other = copy.copy(self)
        other.coef, other.intercept = coef, intercept + self._moved(coef)
        if scale is not None:
            other.scale, other.loss = scale, self.loss.at(scale)
        other.__dict__.pop("free", None)
        return other

    def seeing(self, y: Events) -> Fitted:
        """The same fit and features with other counts."""
        other = copy.copy(self)
        other.y = y
        for name in ("n_bins", "total", "mean_count"):
            other.__dict__.pop(name, None)
        return other

    def by_row(self, values: np.ndarray) -> np.ndarray:
        """Values of every bin as values of every row of the matrix that was given."""
        return values if self.places is None else values[self.places]

    def _moved(self, coef):
        """What centring of X adds to the intercepts, (n_receivers,) or 0."""
        return self.shift @ np.nan_to_num(coef) if np.any(self.shift) else 0.0

    # --- what follows from the parameters ---

    @property
    def adjusted(self) -> bool:
        """Whether the fit had weights or offsets."""
        return self.weighted or self.shifted

    @property
    def n_receivers(self) -> int:
        """Number of receivers."""
        return self.intercept.size

    @property
    def strength(self):
        """The strength of the regularizer, as the model has it."""
        return self.model.regularizer_strength

    @cached_property
    def mask(self) -> np.ndarray:
        """What the mask leaves in, booleans of shape (n_features, n_receivers)."""
        return read_mask(self.model, self.coef.shape, self.X)

    @cached_property
    def penalty(self) -> Penalty:
        """The penalty of every receiver; needs X."""
        return read_penalty(self.model, self.X, self.mask)

    @cached_property
    def free(self) -> list:
        """Features in the fit of every receiver: in its mask, and not set to zero by a lasso.

        None where the receiver is not usable.
        """
        inside = free_features(self.mask, self.coef, self.penalty)
        return [np.flatnonzero(part) if ok else np.zeros(0, int)
                for part, ok in zip(inside.T, self.usable, strict=True)]  # fmt: skip

    @property
    def precision(self) -> np.ndarray:
        """Factor a of every receiver, ``log p(y) = -a * loss + terms without eta``."""
        return np.broadcast_to(self.family.precision(self.scale), (self.n_receivers,))

    # --- what follows from the data ---

    @cached_property
    def n_bins(self) -> np.ndarray:
        """Bins of the fit where the count is known, int of shape (n_receivers,)."""
        return int(self.kept.sum()) - self.y.missing(self.kept).astype(int)

    @cached_property
    def total(self) -> np.ndarray:
        """Sum of the weights over these bins: their number, where there are no weights."""
        if self.weight is None:
            return self.n_bins.astype(float)
        return self.weight[self.kept].sum() - self.y.missing(self.weight * self.kept)

    @cached_property
    def mean_count(self) -> np.ndarray:
        """Weighted mean of the known counts in the bins of the fit, (n_receivers,)."""
        return mean_count(self.y, self.kept, self.weight)

    def rates(self, valid: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Bins of each chunk, and their expected counts in float64, offsets included.

        Parameters
        ----------
        valid : ndarray of bool, shape (n_bins,), optional
            Which bins; those of the fit by default.

        Yields
        ------
        index : ndarray of int, shape (n_chunk,)
            Ascending; may be empty.
        mu : ndarray of shape (n_chunk, n_receivers)
        """
        valid = self.kept if valid is None else valid
        return rates(self.X, self.coef, self.intercept, self.loss, self.offset, valid)

    def rows(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Bins of the fit and their rows of X in float64, block by block."""
        index = np.flatnonzero(self.kept)
        with Progress("reading the bins", index.size) as progress:
            for start in range(0, index.size, _ROWS):
                progress.to(start)
                block = index[start : start + _ROWS]
                yield block, self.X.rows(block)

    def weights(self, block) -> np.ndarray:
        """Weights of some bins, (n, 1)."""
        return np.ones((len(block), 1)) if self.weight is None else self.weight[block, None]

    def derivatives(self, block, rows, receivers=slice(None)) -> tuple:
        """Loss, residual and curvature of some bins and receivers, each (n, n_receivers).

        0 where the count is not known; not weighted.

        Parameters
        ----------
        block : ndarray of int
            Ascending bins.
        rows : ndarray of shape (n, n_features)
            Their rows of X.
        receivers : slice or ndarray of int
        """
        eta = self.eta(block, rows, receivers)
        counts = self.y.rows(block)[:, receivers]
        known = ~np.isnan(counts)
        with np.errstate(over="ignore", invalid="ignore"):
            loss = self.loss.select(receivers)
            values = loss.derivatives(eta, np.where(known, counts, self.family.some))
        return tuple(np.where(known, value, 0.0) for value in values)

    def expected_curvature(self, block, rows, receivers=slice(None)) -> np.ndarray:
        """Mean of the curvature over counts drawn from the model; 0 where none is known."""
        known = ~np.isnan(self.y.rows(block)[:, receivers])
        with np.errstate(over="ignore", invalid="ignore"):
            value = self.loss.select(receivers).expected_curvature(self.eta(block, rows, receivers))
        return np.where(known, value, 0.0)

    def eta(self, block, rows, receivers=slice(None)) -> np.ndarray:
        """``X @ coef + intercept + offset`` of some bins and receivers."""
        eta = rows @ self.coef[:, receivers] + self.intercept[receivers]
        return eta if self.offset is None else eta + columns(self.offset, receivers)[block]


def rates(X, coef, intercept, loss, offset, valid):
    """Yield the valid bins of each chunk and their expected counts, in float64."""
    if valid.size == 0:
        return
    with single_threaded_blas(), Progress("reading the bins", valid.size) as progress:
        for chunk in Local(X, valid).passes(coef.shape[1]).forward(coef):
            progress.to(chunk.index.stop)
            inside = np.flatnonzero(chunk.valid)
            index = chunk.index.start + inside
            eta = chunk.eta[inside] + intercept
            yield index, loss.mean(eta if offset is None else eta + offset[index])


def mean_count(y: Events, kept, weight=None) -> np.ndarray:
    """Weighted mean of every receiver's known counts over some bins; 0 where there is none."""
    weight = np.ones(y.n_bins) if weight is None else weight
    inside = np.where(kept, weight, 0.0)
    total, size = y.sums(inside), weight[kept].sum() - y.missing(inside)
    return np.where(size > 0, total / np.where(size > 0, size, 1.0), 0.0)


def free_features(mask, coef, penalty) -> np.ndarray:
    """Features that a fit has not set to zero, booleans of shape (n_features, n_receivers)."""
    return mask & ((coef != 0) | ~penalty.sparse)


def residual_dof(problem, result: Result) -> np.ndarray:
    """Bins of every receiver, or the sum of their weights, less its free coefficients."""
    n_free = free_features(problem.free, result.coef, problem.penalty).sum(axis=0) + 1
    return problem.size - n_free


def fitted_scale(problem, result: Result) -> np.ndarray:
    """Scale of every receiver after a fit: that of the fit, or by the family's `scale_from`.

    With weights it is that of repeated rows. Where the loss is the squares (Gaussian) it follows
    from the objective; else, and where the fit is so good that little is left of the objective, the
    squares are summed up chunk by chunk.
    """
    loss = problem.settings.loss
    family = loss.observation_model
    if not family.estimates_scale:
        return result.scale if family.fits_scale else np.full(problem.n_receivers, family.scale)
    squares, size = _moments(problem)
    total = None
    if loss.constant_curvature:
        left = result.objective - _penalty_value(problem.penalty, result.coef)
        if not (left < _LITTLE * squares).any():
            total = left * size
    if total is None:
        total = _sum_of_squares(problem, result)
    return family.scale_from(total, residual_dof(problem, result))


def _moments(problem):
    """Variance of every receiver's known counts, and the sum of the weights of their bins."""
    size = problem.size
    known = np.maximum(size, 1e-300)
    mean = sum(part.y.sums(part.inside) for part in problem.parts()) / known
    return sum(part.y.squares(part.inside, mean) for part in problem.parts()) / known, size


def _penalty_value(penalty, coef):
    """Penalty of every receiver, (n_receivers,)."""
    value = 0.5 * (coef * penalty.times(coef, slice(None))).sum(axis=0)
    return value if penalty.weight is None else value + norms(penalty, coef, slice(None))


def _sum_of_squares(problem, result):
    """Weighted Pearson's statistic of every receiver, summed chunk by chunk."""
    loss, total = problem.settings.loss, np.zeros(problem.n_receivers)
    for part in problem.parts():
        y, observed = part.y, part.observed
        for index, mu in rates(
            part.X, result.coef, result.intercept, loss, observed.offset, part.valid
        ):
            value = loss.observation_model.squares(y.rows(index), mu)
            weight = 1.0 if observed.weight is None else observed.weight[index, None]
            total += np.where(np.isnan(value), 0.0, weight * value).sum(axis=0)
    return total


def store(
    model,
    result: Result,
    *,
    scale=None,
    weighted=False,
    shifted=False,
    names=None,
    receivers=None,
    shape=None,
    dof=None,
) -> None:
    """Set what a fit leaves on its model.

    Parameters
    ----------
    model : PopulationGLM or GLM
    result : Result
    scale : ndarray of shape (n_receivers,), optional
        1 by default.
    weighted, shifted : bool
        Whether the fit had weights, and offsets.
    names : ndarray of str, optional
        Of the features.
    receivers : Columns, optional
    shape : dict or list, optional
        Of the tree that X was; see `fastglm.pytrees.shape_of`.
    dof : ndarray of shape (n_receivers,), optional
        Degrees of freedom of the residuals. NaN by default.
    """
    vars(model).pop("_chunks", None)  # of `update`; this may be a fit to other data
    model.n_features_in_ = result.coef.shape[0]
    if names is not None:
        model.feature_names_in_ = names
    elif hasattr(model, "feature_names_in_"):
        del model.feature_names_in_
    model.solver_result_ = result
    coef = result.coef[:, 0] if model.single_receiver else result.coef
    model.coef_ = coef if shape is None else split(coef, shape)
    model.intercept_ = result.intercept
    model.scale_ = np.ones(result.intercept.size) if scale is None else scale
    model.dof_resid_ = np.full(result.intercept.size, np.nan) if dof is None else dof
    model.status_ = result.status
    model.converged_ = is_one_of(result.status, *SETTLED)
    model.objective_ = result.objective
    model.grad_norm_, model.newton_decrement_ = result.grad_norm, result.newton_decrement
    model.n_iter_, model.n_passes_ = result.n_iter, result.n_passes
    model.weighted_, model.shifted_ = weighted, shifted
    model.receivers_ = receivers


def store_imported(model, coef, intercept, scale=None) -> None:
    """Set coefficients that were found elsewhere on a model, with the status "imported".

    Parameters
    ----------
    model : PopulationGLM or GLM
    coef : array of shape (n_features, n_receivers) or (n_features,), or a tree of them
    intercept : array of shape (n_receivers,)
    scale : array of shape (n_receivers,), optional
        1 by default.

    Raises
    ------
    ValueError
        If the shapes do not fit each other.
    """
    tree, intercept = coef, np.atleast_1d(np.asarray(intercept, np.float64))
    coef = np.asarray(stack(coef), np.float64)
    wanted = 1 if model.single_receiver else 2
    n = coef.shape[1] if coef.ndim == 2 else 1
    if coef.ndim != wanted or intercept.shape != (n,):
        names = "(n_features,) and (1,)" if wanted == 1 else "(n_features, n) and (n,)"
        raise ValueError(
            f"coef_ and intercept_ of this {type(model).__name__} have shapes {coef.shape} and "
            f"{intercept.shape}; expected {names}."
        )
    result = Result.empty(len(coef), n)
    result.coef[:], result.intercept[:] = coef.reshape(-1, n), intercept
    result.status[:] = "imported"
    if scale is not None:
        scale = np.broadcast_to(np.asarray(scale, np.float64), intercept.shape).copy()
    store(model, result, scale=scale)
    if is_container(tree):
        model.coef_ = tree
