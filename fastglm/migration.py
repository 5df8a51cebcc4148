"""Models of NeMoS as models of fastglm: the same settings, and the coefficients if there are any.

Nothing of NeMoS is imported: a model is read through its parameters, so that one that was unpickled
or built elsewhere will do.
"""

from __future__ import annotations

import numpy as np

from fastglm._engine.result import Result
from fastglm._fitted import store
from fastglm.glm import GLM, PopulationGLM
from fastglm.observation_models import as_observation_model
from fastglm.regularizer import GroupLasso, as_regularizer


def from_nemos(model) -> GLM | PopulationGLM:
    """The model of fastglm that is the same as one of NeMoS, fitted or not.

    Its objective is that of NeMoS receiver by receiver,

        mean_t loss(eta, y) + penalty(coef),   eta = X @ coef + intercept,

    so `fit` of the returned model finds the optimum that NeMoS's `fit` approaches. Solvers are not
    carried over: the optimum does not depend on them.

    Parameters
    ----------
    model : nemos.glm.GLM or nemos.glm.PopulationGLM
        With an observation model and a link that fastglm has (`fastglm.observation_models`).

    Returns
    -------
    GLM or PopulationGLM
        With the same family, link, regularizer, strength and mask. If the model is fitted,
        ``coef_`` of shape (n_features, n_receivers) or (n_features,) and ``intercept_`` are copies
        in float64, `predict`, `score` and `simulate` work, and ``status_`` is "imported": how far
        the coefficients are from the optimum is not known before a fit.

    Raises
    ------
    TypeError
        If it is not a GLM of NeMoS.
    ValueError
        If it has what fastglm has not: other observations, another link, groups that bind
        receivers to each other, parameters that are trees of arrays.

    Notes
    -----
    The group lasso of NeMoS has all features of a receiver in one group unless it is given a mask.
    Its ``dim_g`` counts masked features, that of fastglm does not: where there is a
    ``feature_mask`` the returned model has a strength for each group and receiver,
    ``strength * sqrt(dim_g / n_left)``, which makes the two the same.

    Examples
    --------
    With ``model = nemos.glm.PopulationGLM(regularizer="Ridge", regularizer_strength=0.1)`` it is
    ``fastglm.from_nemos(model)``. Anything with the parameters of such a model is read:

    >>> import fastglm
    >>> fastglm.from_nemos(fastglm.GLM(regularizer="Ridge", regularizer_strength=0.1))
    GLM(inverse_link_function='exp', regularizer='Ridge', regularizer_strength=0.1)
    """
    classes = {"GLM": GLM, "PopulationGLM": PopulationGLM}
    kinds = [classes[c.__name__] for c in type(model).__mro__ if c.__name__ in classes]
    if not kinds or not hasattr(model, "get_params"):
        raise TypeError(
            f"model is of type {type(model).__name__}; expected a GLM or PopulationGLM of NeMoS."
        )
    given = model.get_params(deep=False)
    try:
        family = as_observation_model(given["observation_model"])
    except ValueError:
        name = _name(given["observation_model"]).removesuffix("Observations")
        raise ValueError(
            f"The model has {name} observations, which fastglm has not. Keep NeMoS for this model."
        ) from None
    settings = {"inverse_link_function": family.loss(given["inverse_link_function"]).link}
    if family.name != PopulationGLM().observation_model:
        settings["observation_model"] = family.name
    mask, coef = _array(given.get("feature_mask"), "feature_mask"), getattr(model, "coef_", None)
    coef = _array(coef, "coef_")
    regularizer, strength = (
        as_regularizer(_name(given["regularizer"])),
        given["regularizer_strength"],
    )
    if isinstance(strength, tuple):  # of an elastic net, with its ratio
        strength = tuple(_array(part, "regularizer_strength") for part in strength)
    else:
        strength = _array(strength, "regularizer_strength")
    regularizer, settings["regularizer"] = str(regularizer), str(regularizer)
    if regularizer == "GroupLasso":
        groups = getattr(given["regularizer"], "mask", None)
        groups, strength = _groups(groups, strength, mask, coef)
        settings["regularizer"] = GroupLasso(groups)
    if regularizer != "UnRegularized":
        settings["regularizer_strength"] = strength
    ours = kinds[0](feature_mask=mask, **settings)
    if coef is not None:
        coef = coef.reshape(len(coef), -1).astype(np.float64)
        result = Result.empty(*coef.shape)
        result.coef[:], result.intercept[:] = coef, np.asarray(model.intercept_)
        result.status[:] = "imported"
        scale = getattr(model, "scale_", None) if family.estimates_scale else None
        if scale is not None:
            scale = np.broadcast_to(np.asarray(scale, np.float64), result.intercept.shape).copy()
        store(ours, result, scale=scale)
    return ours


def _name(given):
    """A name that is given as such, or by an object of a class of that name."""
    return given if isinstance(given, str) else type(given).__name__


def _array(value, name):
    """An array of NumPy, or a number; dictionaries are only masks."""
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, dict) and name == "feature_mask":
        return {label: np.asarray(part) for label, part in value.items()}
    if isinstance(value, dict) or not hasattr(value, "shape"):
        raise ValueError(
            f"{name} of the model is a {type(value).__name__}; expected an array. Stack the "
            "features to one array of shape (n_bins, n_features) and fit the model to that."
        )
    return np.asarray(value) if value.shape else float(value)


def _groups(groups, strength, feature_mask, coef):
    """Groups of shape (n_groups, n_features), and their strengths.

    NeMoS's are of shape (n_groups, n_features, n_receivers), or without the last axis.
    """
    groups = getattr(groups, "coef", groups)
    shaped = coef if coef is not None else feature_mask
    if groups is None:
        if not isinstance(shaped, np.ndarray):
            raise ValueError(
                "GroupLasso has no mask, and without a fit the number of features is not known. "
                "NeMoS would take all features of a receiver as one group: give that mask, "
                "np.ones((1, n_features)), or use fastglm.PopulationGLM(regularizer='GroupLasso'), "
                "whose groups are the filters."
            )
        groups = np.ones((1, len(shaped)))
    groups = np.asarray(groups)
    each = groups[:, :, None] if groups.ndim == 2 else groups  # of every receiver, maybe of all
    if groups.ndim == 3 and ((groups != 0).any(axis=1).sum(axis=1) > 1).any():
        raise ValueError(
            "Some group of GroupLasso holds features of several receivers; in fastglm every "
            "receiver is fitted on its own. Give each receiver its own groups."
        )
    order = [_sorted(each[:, :, j]) for j in range(each.shape[2])]
    first = each[order[0], :, 0]
    if not all(np.array_equal(each[o, :, j], first) for j, o in enumerate(order)):
        raise ValueError(
            "The groups of GroupLasso differ between receivers; fastglm has the same groups for "
            "all. Fit receivers with other groups as models of their own."
        )
    strength = 1.0 if strength is None else strength
    masked = isinstance(feature_mask, np.ndarray) and not feature_mask.all()
    if masked or np.ndim(strength):
        strength = np.broadcast_to(strength, len(each))
        strength = np.stack([strength[o] for o in order], axis=1)
    if masked:
        left = first @ (feature_mask.reshape(len(feature_mask), -1) != 0)
        strength = strength * np.sqrt(first.sum(axis=1)[:, None] / np.maximum(left, 1))
    return first, strength


def _sorted(groups):
    """Groups that hold something, by their first feature."""
    there = np.flatnonzero(groups.any(axis=1))
    return there[np.argsort(groups[there].argmax(axis=1))]
