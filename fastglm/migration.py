"""Models of NeMoS as models of fastglm: the same settings, and the coefficients if there are any.

Nothing of NeMoS is imported: a model is read through its parameters, so that one that was unpickled
or built elsewhere will do.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastglm._fitted import store_imported
from fastglm.glm import GLM, PopulationGLM
from fastglm.observation_models import as_observation_model
from fastglm.regularizer import GroupLasso, as_regularizer, same_groups

_CLASSES = {"GLM": GLM, "PopulationGLM": PopulationGLM}


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
        receivers to each other.

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
    names = [c.__name__ for c in type(model).__mro__ if c.__name__ in _CLASSES]
    if not names or not hasattr(model, "get_params"):
        raise TypeError(
            f"model is of type {type(model).__name__}; expected a GLM or PopulationGLM of NeMoS."
        )
    fit = {name: getattr(model, name, None) for name in ("coef_", "intercept_", "scale_")}
    return _convert(_CLASSES[names[0]], model.get_params(deep=False), fit)


def read_nemos(path, data: dict, mapping: dict | None = None) -> GLM | PopulationGLM:
    """The model of fastglm that is the same as one that NeMoS's ``save_params`` wrote.

    Parameters
    ----------
    path : str or Path
        For errors.
    data : dict of arrays
        What the file holds.
    mapping : dict, optional
        The link and the regularizer by their names, where they are the user's own.

    Raises
    ------
    ValueError
        As `from_nemos`, and if the file is not one of NeMoS.
    """
    saved = _unfold(data)
    kind = _CLASSES.get(str(saved.get("model_class")).rpartition(".")[2])
    if kind is None:
        raise ValueError(f"{path} holds a {saved.get('model_class')}; expected a GLM of NeMoS.")
    penalty = saved["regularizer"]
    for name in ("observation_model", "regularizer"):
        saved[name] = str(saved[name]["class"]).rpartition(".")[2]
    saved |= mapping or {}
    own = saved["regularizer"]
    if own == "GroupLasso":
        saved["regularizer"] = GroupLasso(_read_mask(path, penalty))
    elif callable(own) and not isinstance(own, type):  # a function that makes it
        saved["regularizer"] = own()
    fit = {name: saved.get(name) for name in ("coef_", "intercept_", "scale_")}
    return _convert(kind, saved, fit)


def _read_mask(path, penalty):
    """The mask of a group lasso in a file; None where NeMoS was given none."""
    mask = penalty.get("params", {}).get("mask")
    if isinstance(mask, str):  # `PICKLED`
        raise ValueError(
            f"{path} has a GroupLasso whose mask NeMoS has pickled. It is not read, since a pickle "
            'can run code. Give the mask again: mapping_dict={"regularizer": lambda: '
            "fastglm.regularizer.GroupLasso(mask)}. NeMoS's default is np.ones((1, n_features))."
        )
    return mask


def is_nemos(data: dict) -> bool:
    """Whether the arrays of a file are a model that NeMoS wrote."""
    return any(name.endswith("strkey:model_class") for name in data)


def _unfold(data):
    """The nested dict whose paths NeMoS writes as "dict::strkey:a::item::strkey:b"."""
    found = {}
    for path, value in data.items():
        keys, place = [part.removeprefix("strkey:") for part in path.split("::")[1::2]], found
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        nothing = value.ndim == 0 and value.dtype.kind == "f" and np.isnan(value)
        place[keys[-1]] = None if nothing else value.item() if value.ndim == 0 else value
    return found


def _convert(kind, given, fit):
    """A model of fastglm from the parameters and the fit of one of NeMoS."""
    try:
        family = as_observation_model(given["observation_model"])
    except ValueError:
        name = _name(given["observation_model"]).removesuffix("Observations")
        raise ValueError(
            f"The model has {name} observations, which fastglm has not. Keep NeMoS for this model."
        ) from None
    settings = {"inverse_link_function": family.loss(given["inverse_link_function"]).link}
    if family.name != PopulationGLM().observation_model.name:
        settings["observation_model"] = family if family.get_params() else family.name
    mask, coef = (
        _array(values, name)
        for values, name in ((given.get("feature_mask"), "feature_mask"), (fit["coef_"], "coef_"))
    )
    own = given["regularizer"]
    regularizer = as_regularizer(own() if isinstance(own, type) else _name(own))
    strength = given["regularizer_strength"]
    if isinstance(strength, tuple):  # of an elastic net, with its ratio
        strength = tuple(_array(part, "regularizer_strength") for part in strength)
    else:
        strength = _array(strength, "regularizer_strength")
    name = str(regularizer)
    settings["regularizer"] = regularizer if isinstance(own, type) else name
    if name == "GroupLasso":
        groups = getattr(own, "mask", None)
        groups, strength = _groups(groups, strength, mask, coef)
        settings["regularizer"] = GroupLasso(groups)
    if name != "UnRegularized":
        settings["regularizer_strength"] = strength
    ours = kind(feature_mask=mask, **settings)
    if coef is not None:
        scale = fit["scale_"] if family.has_scale else None
        store_imported(ours, coef, fit["intercept_"], scale)
    return ours


def _name(given):
    """A name that is given as such, or by an object of a class of that name."""
    return given if isinstance(given, str) else type(given).__name__


def _array(value, name):
    """An array of NumPy, a number, or a dict of them."""
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, Mapping):
        return {label: _array(part, name) for label, part in value.items()}
    if isinstance(value, list | tuple):
        return [_array(part, name) for part in value]
    if not hasattr(value, "shape"):
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
    first, strength = same_groups(groups, 1.0 if strength is None else strength)
    masked = isinstance(feature_mask, np.ndarray) and not feature_mask.all()
    if np.ndim(strength) == 1:
        strength = np.asarray(strength)[:, None]
    if masked:
        left = first @ (feature_mask.reshape(len(feature_mask), -1) != 0)
        strength = strength * np.sqrt(first.sum(axis=1)[:, None] / np.maximum(left, 1))
    return first, strength
