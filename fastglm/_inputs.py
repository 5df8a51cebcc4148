"""Reading what users give to a model, once: everything that a fit needs, checked, in a `Problem`.

Functions take a model only to read its public parameters.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fastglm._batches.cost import PRODUCTS
from fastglm._batches.fit import Tasks, any_known, by_missing, tasks_of
from fastglm._batches.plan import read_budget
from fastglm._checks import (
    as_dense_numbers,
    as_numbers,
    check_choice,
    check_memory,
    column_names,
    is_number,
    join,
    read_trials,
    shown,
)
from fastglm._engine.batch import Settings
from fastglm._engine.observed import Observed
from fastglm._engine.result import Result
from fastglm._penalty import Penalty
from fastglm._pynapple import common_timeline, read_values
from fastglm.features.events import Events, Traces, columns_of
from fastglm.features.matrix import FeatureMatrix, as_feature_matrix
from fastglm.features.ranges import spread
from fastglm.observation_models import Loss, as_observation_model
from fastglm.pytrees import is_tree, leaves, shape_of, stack
from fastglm.regularizer import UnRegularized, as_regularizer

SOLVERS = ("auto", "newton-cholesky", "newton-cg")
_NEMOS_SOLVERS = (
    "GradientDescent",
    "ProximalGradient",
    "LBFGS",
    "BFGS",
    "NonlinearCG",
    "SVRG",
    "ProxSVRG",
)
# Arguments of NeMoS's descents beside tol and maxiter.
_DESCENT = frozenset(
    (
        *("acceleration", "adjoint", "batch_size", "decrease_factor", "has_aux", "init_params"),
        *("key", "linesearch_kwargs", "max_stepsize", "maxls", "memory_size", "method", "momentum"),
        *("norm", "options", "rtol", "scale_init_precond", "stepsize", "tags", "throw"),
        *("use_inverse", "verbose", "while_loop_kind"),
    )
)
_SHOWN = 5  # names that a message lists
_ROWS = 4096  # rows that are checked at a time


@dataclass(frozen=True)
class Problem:
    """What a fit is about.

    Attributes
    ----------
    X : FeatureMatrix
    observed : Observed
        Counts, weights and offsets. The offsets are centered: float32 has no room for what all
        bins share, and the intercept takes it up.
    center : ndarray of shape (1,) or (n_receivers,), or 0.0
        What was taken off the offsets.
    shift : ndarray of shape (n_features,)
        What was taken off the columns of X that are far from zero; see `FeatureMatrix.centred`.
    valid : ndarray of bool, shape (n_bins,)
        Bins of the fit: X is finite and the weight above 0.
    free : ndarray of bool, shape (n_features, n_receivers)
        What the mask leaves in.
    penalty : Penalty
    settings : Settings
    names : ndarray of str or None
        Of the features.
    places : ndarray of int or None
        Bins of X that are the rows of the matrix that was given; None if all are. The others lie in
        gaps between its rows, and are not valid. See `FeatureMatrix.cut`.
    shape : dict, list or None
        Of the tree that X was.
    """

    X: FeatureMatrix
    observed: Observed
    center: np.ndarray | float
    shift: np.ndarray
    valid: np.ndarray
    free: np.ndarray
    penalty: Penalty
    settings: Settings
    names: np.ndarray | None
    places: np.ndarray | None = None
    shape: dict | list | None = None

    @property
    def y(self) -> Events:
        """The counts."""
        return self.observed.events

    @property
    def n_receivers(self) -> int:
        """Number of receivers."""
        return self.observed.events.n_units

    @property
    def inside(self) -> np.ndarray:
        """The weight of every bin, 0 where it is not in the fit."""
        return np.where(self.valid, self.observed.weight_of_bins, 0.0)

    @property
    def size(self) -> np.ndarray:
        """Sum of the weights of every receiver's bins, (n_receivers,)."""
        return sum(part.inside.sum() - part.y.missing(part.inside) for part in self.parts())

    def parts(self) -> Iterator[Problem]:
        """The problem in parts that are in memory: here the whole."""
        yield self

    def by_missing(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield bins and receivers for every pattern of missing counts, usually one."""
        return by_missing(self.valid, self.y)

    def tasks(self, valid: np.ndarray, start: tuple | None) -> Tasks:
        """The `Tasks` over some bins, with coefficients and intercepts to start at."""
        rest = self.free, [self.penalty], self.settings, start
        return tasks_of(self.X, self.observed, valid, *rest)

    def uncenter(self, result: Result) -> Result:
        """A result with the intercepts that go with X and the offsets as they were given."""
        result.intercept -= self.intercept_of(result.coef)
        return result

    def intercept_of(self, coef, receivers=slice(None)) -> np.ndarray:
        """What centring adds to the intercepts of some receivers, (n_receivers,)."""
        center = (np.zeros(self.n_receivers) + self.center)[receivers]
        return center + self.shift @ np.nan_to_num(coef) if self.shift.any() else center


def read_problem(model, X, y, sample_weight=None, offset=None) -> Problem:
    """Parameters of a model and data for its fit; called by the method that a user calls.

    Parameters
    ----------
    model : PopulationGLM or GLM
    X, y, sample_weight, offset
        As in `fit`.

    Raises
    ------
    ValueError
        If something is not usable; the sentence says what was given and what is expected.

    Warns
    -----
    UserWarning
        If there is a strength without a regularizer, or `solver_kwargs` has settings of descents.
    """
    names = feature_names(X)
    settings = read_settings(model)
    given, X = X, as_feature_matrix(X)
    y = read_counts(model, y, X)
    n_bins, n = X.shape[0], y.n_units
    check_rows(X, y)
    if not X.valid.any():
        raise ValueError(
            f"None of the {n_bins} rows of X is finite. A row needs a whole window of history "
            "in its epoch: use longer epochs or a shorter window."
        )
    if not (X.valid & any_known(y)).any():
        raise ValueError("y is NaN in every bin that has a history; nothing to fit.")
    check_memory(  # a result, and what is stored of it
        f"The coefficients of {X.shape[1]:,} features and {n:,} receivers",
        16.0 * X.shape[1] * n,
        "use fewer basis functions or fewer cells at a time",
    )
    free = read_mask(model, (X.shape[1], n), X)
    weight, offset = read_weight(sample_weight, n_bins), read_offset(offset, n_bins, n)
    X, places, (y, weight, offset) = cut(X, y, weight, offset)
    X, shift = X.centred()
    valid, center = X.valid, 0.0
    if offset is not None:
        center = offset[valid].mean(axis=0)
        offset = offset - center
    if weight is not None:
        valid = valid & (weight > 0)
        if not (valid & any_known(y)).any():
            raise ValueError("Every bin that has a history and a count has weight 0.")
    warn_unused(model)
    penalty = read_penalty(model, X, free)
    observed = Observed(y, weight, offset)
    shape = shape_of(given) if is_tree(given) else None
    rest = free, penalty, settings, names, places, shape
    return Problem(X, observed, center, shift, valid, *rest)


def check_rows(X: FeatureMatrix, y: Events, name: str = "X") -> None:
    """Raise ValueError if features and counts have different numbers of rows."""
    if y.n_bins != X.shape[0]:
        raise ValueError(
            f"{name} has {X.shape[0]} rows and y {y.n_bins}; expected one row of each per bin."
        )


def warn_unused(model) -> None:
    """Warn of parameters that a fit does not use; called by what a method of a user calls.

    Warns
    -----
    UserWarning
        If there is a strength without a regularizer, or `solver_kwargs` has settings of descents.
    """
    unused = sorted(_DESCENT.intersection(_given(model, "solver_kwargs") or {}))
    if unused:
        warnings.warn(
            f"solver_kwargs {unused} are settings of descents and are not used: the steps are "
            "Newton steps, and the optimum does not depend on them.",
            UserWarning,
            stacklevel=4,
        )
    regularizer = as_regularizer(model.regularizer)
    if isinstance(regularizer, UnRegularized) and model.regularizer_strength is not None:
        warnings.warn(
            "regularizer_strength is not used without a regularizer; pass regularizer='Ridge'?",
            UserWarning,
            stacklevel=4,
        )


def cut(X: FeatureMatrix, y: Events | None, weight, offset) -> tuple:
    """A matrix over the bins that its rows need, the rows' places, and y, weight, offset there."""
    X, places = X.cut()
    n_bins = X.shape[0]
    y = y if y is None else y.spread(places, n_bins)
    parts = (v if v is None else spread(v, places, n_bins) for v in (weight, offset))
    return X, places, (y, *parts)


# --- parameters of a model ---


def read_loss(model) -> Loss:
    """The family of a model with its link."""
    link = _given(model, "inverse_link_function")
    return as_observation_model(model.observation_model).loss(link)


def read_settings(model) -> Settings:
    """Loss, tolerances, solver and memory of a model's fits.

    Raises
    ------
    ValueError
        If one of these parameters is not known, or not possible.
    """
    loss = read_loss(model)
    tol, maxiter, products = _read_solver_kwargs(_given(model, "solver_kwargs"))
    method = _read_solver(model.solver_name)
    return Settings(loss, tol, maxiter, method, products, read_budget(model.memory_budget))


def _read_solver(name):
    if name is None or (isinstance(name, str) and name.split("[")[0] in _NEMOS_SOLVERS):
        return "auto"
    if not isinstance(name, str):
        raise TypeError(f"solver_name is {shown(name)}; expected one of {list(SOLVERS)} or None.")
    check_choice("solver_name", name, SOLVERS, f"one of {list(SOLVERS)} or None")
    return str(name)


def _given(model, name):
    """A parameter as it was given: an attribute makes a function of a link, or a dict of None."""
    return model.get_params(deep=False)[name]


def _read_solver_kwargs(kwargs):
    if not isinstance(kwargs, dict | type(None)):
        raise ValueError(
            f"solver_kwargs is {shown(kwargs)}; expected a dict of 'tol' and 'maxiter'."
        )
    kwargs = {name: value for name, value in (kwargs or {}).items() if name not in _DESCENT}
    tol = kwargs.pop("tol", 1e-16)
    maxiter = kwargs.pop("maxiter", 100)
    products = kwargs.pop("products", "auto")
    if kwargs:
        raise ValueError(
            f"solver_kwargs holds {sorted(kwargs)}; expected 'tol', 'maxiter' and 'products' only."
        )
    check_choice("products of solver_kwargs", products, ("auto", *PRODUCTS))
    if not (is_number(tol) and is_number(maxiter) and tol > 0 and maxiter >= 1):
        raise ValueError(
            f"solver_kwargs has tol={tol!r} and maxiter={maxiter!r}; expected tol > 0 and "
            "maxiter >= 1."
        )
    return float(tol), int(maxiter), products


def read_penalty(model, X, free, strength=None) -> Penalty:
    """The penalty of every receiver, with the model's strength or another."""
    strength = model.regularizer_strength if strength is None else strength
    regularizer, single = as_regularizer(model.regularizer), model.single_receiver
    if isinstance(strength, tuple):  # of an elastic net, with its ratio
        strength = tuple(_of_features(part, X, free, single) for part in strength)
    elif isinstance(strength, Mapping):
        strength = regularizer.of_blocks(_of_features(strength, X, free, single), X)
    return regularizer.penalty(strength, X, free)


def read_mask(model, shape, X=None) -> np.ndarray:
    """What the mask of a model leaves in, as booleans.

    Parameters
    ----------
    model : PopulationGLM or GLM
    shape : tuple (n_features, n_receivers)
    X : FeatureMatrix, optional
        Needed where the mask has labels.

    Raises
    ------
    ValueError
        If it does not hold 0 and 1 only, has another shape, or labels that X has not.
    """
    mask, (n_features, n) = model.feature_mask, shape
    if mask is None:
        return np.ones(shape, bool)
    if isinstance(mask, Mapping):
        if X is None:
            raise ValueError("feature_mask has labels of features; pass the features X as well.")
        parts = {path: _read_binary(part) for path, part in _blocks(mask).items()}
        everywhere = np.ones(shape)
        return _by_block("feature_mask", parts, X, everywhere, model.single_receiver).astype(bool)
    mask = _read_binary(mask)
    if model.single_receiver and mask.ndim == 1:
        mask = mask[:, None]
    if mask.shape != (n_features, n):
        hint = (
            " Pass feature_mask.T?"
            if mask.shape == (n, n_features)
            else " From a sender-by-receiver map: np.repeat(map, n_basis_funcs, axis=0)."
        )
        raise ValueError(
            f"feature_mask has shape {mask.shape}; expected (n_features, n_receivers) = "
            f"({n_features}, {n}).{hint}"
        )
    return mask


def _blocks(values):
    """Values by the label of their block, from a dict that may be nested."""
    return leaves(values, lambda node: isinstance(node, Mapping))


def _by_block(name, parts, X, out, single):
    """Fill an array of shape (n_features, n_receivers) from values for blocks of features.

    A block is named by its label, or by a beginning of its path in a tree.
    """
    n, labels = out.shape[1], X.labels
    for label, values in parts.items():
        some = [k for k, known in enumerate(labels) if f"{known}/".startswith(f"{label}/")]
        if not some:
            raise ValueError(f"{name} has labels [{label!r}]; the features have {labels}.")
        start, stop = X.column_ranges[some[0]][0], X.column_ranges[some[-1]][1]
        size = stop - start
        if single and values.ndim == 1 and values.shape != (1,):
            values = values[:, None]
        if values.shape not in ((), (n,), (size, n)):
            raise ValueError(
                f"{name}[{label!r}] has shape {values.shape}; expected a number, (n_receivers,) = "
                f"({n},), or (n_features, n_receivers) of the block, ({size}, {n})."
            )
        out[start:stop] = values
    return out


def _of_features(strength, X, free, single):
    """A strength or ratio; one that is given by block as an array (n_features, n_receivers)."""
    if not isinstance(strength, Mapping):
        return strength
    name = "regularizer_strength"
    parts = {k: as_dense_numbers(v, name).astype(np.float64) for k, v in _blocks(strength).items()}
    full = _by_block(name, parts, X, np.full(free.shape, np.nan), single)
    if np.isnan(full).any():
        first = np.flatnonzero(np.isnan(full).any(axis=1))[0]
        missing = X.labels[np.searchsorted([stop for _, stop in X.column_ranges], first, "right")]
        raise ValueError(
            f"{name} has none for {missing!r}; expected one for each of {X.labels}, 0 for no "
            "penalty."
        )
    return full


def _read_binary(mask):
    try:
        array = as_dense_numbers(mask, "feature_mask")
    except (TypeError, ValueError):  # text, or rows of different lengths
        array = np.array([np.nan])
    if array.dtype != bool:
        if not np.isin(array, (0, 1)).all():
            raise ValueError(
                "feature_mask holds other values than 0 and 1; pass weights > 0 instead?"
            )
        array = array.astype(bool)
    return array


# --- data ---


def read_counts(model, y, X=None) -> Events:
    """Counts that a model is given as the events of its receivers.

    Parameters
    ----------
    model : PopulationGLM or GLM
    y : array, table, sparse array, `Events`, object of pynapple, or list of trials
    X : FeatureMatrix, optional
        Whose times must be those of y.

    Raises
    ------
    ValueError
        If y has another shape, or holds what the family of the model cannot have.
    """
    if y is None:
        raise ValueError(
            f"{type(model).__name__} requires y to be passed, but the target y is None; give "
            "the counts of the receivers."
        )
    given, (y, timeline) = y, (y, y.timeline) if isinstance(y, Events) else read_values(y, "y")
    if X is not None:
        common_timeline([X.timeline, timeline], ["X", "y"])
    if not isinstance(y, Events):
        trials = read_trials(y, "y", (1,) if model.single_receiver else (2,))
        y = as_numbers(y, "y") if trials is None else join(trials)
    y = _shape_counts(y, model.single_receiver)
    family, columns = as_observation_model(model.observation_model), columns_of(given, timeline)
    if family.positive and not isinstance(y, np.ndarray):  # what a sparse table leaves out is 0
        y = y.toarray()
    if isinstance(y, np.ndarray) and not family.event_based:
        events = Traces(y)
        for start in range(0, y.shape[0], _ROWS):
            block = y[start : start + _ROWS]
            bins, units = np.divmod(np.arange(block.size), block.shape[1])
            _check(family, columns, block.ravel(), bins + start, units)
    else:
        events = Events.of(y)
        _check(family, columns, events.amplitudes, events.bins, events.units)
    events.timeline, events.columns = timeline, columns
    return events


def _check(family, columns, values, bins, units):
    """The family's check of counts; its error has the names of the receivers."""
    try:
        family.check(values, bins, units)
    except ValueError:
        if columns is not None:
            family.check(values, bins, np.array([str(name) for name in columns.names])[units])
        raise


def check_receivers(model, y: Events) -> None:
    """Raise ValueError if y has the receivers of a fit in another order."""
    if y.columns is None or model.receivers_ is None:
        return
    given, known = (list(map(str, columns.names)) for columns in (y.columns, model.receivers_))
    if given != known and sorted(given) == sorted(known):
        raise ValueError(
            f"y has the receivers of the fit in another order, {_listed(given)}; expected "
            f"{_listed(known)}. Select the columns in that order?"
        )


def _listed(names):
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _shape_counts(y, single):
    if not single:
        if y.ndim != 2 or y.shape[1] == 0:
            raise ValueError(
                f"y has shape {y.shape}; expected (n_bins, n_receivers). For one receiver use "
                "GLM, or y[:, None]."
            )
        return y
    if isinstance(y, Events) and y.n_units == 1:
        return y
    if y.ndim != 1:
        raise ValueError(
            f"y has shape {y.shape}; expected (n_bins,). For many receivers use PopulationGLM."
        )
    return y[:, None]


def read_start(init_params, n_features, n):
    """Coefficients and intercepts where a fit begins, or None.

    Raises
    ------
    TypeError
        If they are no pair of numbers.
    ValueError
        If they have other shapes or are not finite.
    """
    if init_params is None:
        return None
    if not isinstance(init_params, tuple | list) or len(init_params) != 2:
        raise TypeError("init_params is not a pair; expected (coef, intercept).")
    coef, intercept = (_read("init_params", stack(part)) for part in init_params)
    intercept = intercept.ravel()
    coef = coef[:, None] if coef.ndim == 1 else coef
    if coef.shape != (n_features, n) or intercept.shape != (n,):
        raise ValueError(
            f"init_params has shapes {coef.shape} and {intercept.shape}; expected "
            f"(n_features, n_receivers) = {(n_features, n)} and ({n},)."
        )
    if not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
        raise ValueError("init_params holds NaN or infinity; expected finite numbers.")
    return coef, intercept


def feature_names(X):
    """Names of the columns of a DataFrame, or None if it has none or they are not strings.

    Raises
    ------
    TypeError
        If some are strings and some are not.
    """
    names = column_names(X) if hasattr(X, "columns") else None
    if names is None:
        return None
    names = np.array([*names, None], dtype=object)[:-1]  # a tuple stays one name
    strings = [isinstance(name, str) for name in names]
    if not any(strings):
        return None
    if not all(strings):
        raise TypeError(
            "Feature names are only supported if all input features have string names, but X has "
            f"names of types {sorted({type(name).__name__ for name in names})}. Use "
            "X.columns = X.columns.astype(str), or give X.to_numpy()."
        )
    return names


def check_names(model, X):
    """Compare the names of X with those of the fit.

    Raises
    ------
    ValueError
        If both have names and these differ, in order too.

    Warns
    -----
    UserWarning
        If only one of them has names.
    """
    given, known = feature_names(X), getattr(model, "feature_names_in_", None)
    if given is None and known is None:
        return
    if known is None or given is None:
        has, fitted = ("has", "without") if known is None else ("does not have valid", "with")
        warnings.warn(
            f"X {has} feature names, but {type(model).__name__} was fitted {fitted} feature names",
            UserWarning,
            stacklevel=4,
        )
        return
    if np.array_equal(given, known):
        return
    message = "The feature names should match those that were passed during fit.\n"
    for title, names in (
        ("Feature names unseen at fit time:", sorted(set(given) - set(known))),
        ("Feature names seen at fit time, yet now missing:", sorted(set(known) - set(given))),
    ):
        if names:
            shown = names[:_SHOWN] + (["..."] if len(names) > _SHOWN else [])
            message += title + "\n" + "".join(f"- {name}\n" for name in shown)
    if set(given) == set(known):
        message += "Feature names must be in the same order as they were in fit.\n"
    raise ValueError(message)


def read_weight(sample_weight, n_bins):
    """Weights of the bins as float64, or None.

    Raises
    ------
    ValueError
        If they are not n_bins finite numbers, none negative and some above 0.
    """
    if sample_weight is None:
        return None
    weight = _read("sample_weight", sample_weight)
    if weight.ndim == 0:
        weight = np.full(n_bins, float(weight))
    if weight.shape != (n_bins,):
        raise ValueError(
            f"sample_weight.shape == {weight.shape}, expected {(n_bins,)}: one weight for each bin."
        )
    if not np.isfinite(weight).all() or (weight < 0).any() or (n_bins and not weight.any()):
        raise ValueError(
            "sample_weight holds negative, infinite or NaN weights, or only zeros; expected how "
            "often each bin counts, 0 to leave it out."
        )
    return weight


def read_offset(offset, n_bins, n):
    """Offsets of eta as float64 of shape (n_bins, 1) or (n_bins, n), or None.

    Raises
    ------
    ValueError
        If they have another shape or are not finite.
    """
    if offset is None:
        return None
    values = _read("offset", offset)
    values = values[:, None] if values.ndim == 1 else values
    if values.shape not in ((n_bins, 1), (n_bins, n)):
        raise ValueError(
            f"offset has shape {values.shape}; expected (n_bins,) = ({n_bins},) or (n_bins, "
            f"n_receivers) = {(n_bins, n)}. It is added to eta: for exposures pass "
            "np.log(exposure)."
        )
    if not np.isfinite(values).all():
        raise ValueError(
            "offset holds NaN or infinity; give these bins sample_weight 0 and any finite offset."
        )
    return values


def _read(name, values):
    values, _ = read_values(values, name)
    return as_dense_numbers(values, name).astype(np.float64)
