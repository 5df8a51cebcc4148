"""Fitted models in files, ``.npz`` without pickle."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array, issparse

from fastglm._checks import as_dense_numbers, whole_numbers
from fastglm._engine.result import STATUSES, Result
from fastglm._files import as_path, check_output, describe, read_npz, replacing
from fastglm._fitted import Fitted, store
from fastglm._inputs import read_mask, read_settings
from fastglm._pynapple import Columns
from fastglm.observation_models import as_observation_model
from fastglm.regularizer import REGULARIZERS, ElasticNet, as_regularizer

_FORMAT = "fastglm-model"
_VERSION = 1


def model_path(path) -> Path:
    """The file that a model is written to: ``.npz`` is appended where it is missing.

    Raises
    ------
    ValueError
        If the path is a folder, or no file can be written there.
    """
    path = as_path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; expected the name of a file.")
    return check_output(path if path.suffix == ".npz" else path.with_name(path.name + ".npz"))


def save_model(model, path, metadata=None) -> None:
    """Write a fitted model to ``.npz``; `fastglm.load_model` reads it.

    Parameters
    ----------
    model : GLM or PopulationGLM
    path : str or Path
        ``.npz`` is appended where it is missing. The file appears whole or not at all.
    metadata : dict, optional
        Anything that JSON can hold; comes back as ``model.metadata_``.
    """
    path, fit = model_path(path), Fitted.of(model)
    params = model.get_params(deep=False)
    arrays = {f"result_{f.name}": getattr(model.solver_result_, f.name) for f in _FIELDS}
    arrays["scale"] = fit.scale
    mask = params.pop("feature_mask")
    if isinstance(mask, dict):
        for label, part in mask.items():
            arrays[f"mask_{label}"] = as_dense_numbers(part, "feature_mask")
    elif mask is not None:
        arrays["mask"] = as_dense_numbers(mask, "feature_mask")
    params["inverse_link_function"] = fit.loss.link
    params["observation_model"] = {"class": fit.family.name, "params": fit.family.get_params()}
    kind, strength = as_regularizer(model.regularizer), params.pop("regularizer_strength")
    if isinstance(kind, ElasticNet) and isinstance(strength, tuple | list):
        strength, arrays["ratio"] = (np.asarray(part, float) for part in strength)
    if strength is not None:
        arrays["strength"] = np.asarray(strength, float)
    if not isinstance(model.regularizer, str | None):
        own = {name: v for name, v in kind.get_params().items() if v is not None}
        params["regularizer"] = {"class": str(kind), "sparse": [k for k in own if issparse(own[k])]}
        for name, value in own.items():
            if issparse(value):  # its shape and entries
                at = value.tocoo()
                value = [[*at.shape, 0], *zip(at.row, at.col, at.data, strict=True)]
            arrays[f"regularizer_{name}"] = np.asarray(value, float)
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "class": type(model).__name__,
        "params": params,
        "fit": {"weighted": fit.weighted, "shifted": fit.shifted},
        "names": _names(model),
        "metadata": getattr(model, "metadata_", {}) if metadata is None else metadata,
    }
    arrays["header"] = np.array(json.dumps(header, default=_plain))
    with replacing(path) as file:
        np.savez_compressed(file, **arrays)


def _names(model):
    """Names of features and receivers, as numbers and texts."""
    names = {"features": getattr(model, "feature_names_in_", None)}
    if model.receivers_ is not None:
        names["receivers"] = model.receivers_.names
        for label, values in model.receivers_.metadata.items():
            names.setdefault("metadata", {})[label] = values
    return {
        key: {k: _texts(v) for k, v in value.items()} if isinstance(value, dict) else _texts(value)
        for key, value in names.items()
        if value is not None
    }


def _texts(values):
    values = [v.item() if isinstance(v, np.generic) else v for v in values]
    return [v if isinstance(v, str | int | float | None) else str(v) for v in values]


def _read_names(names, n_features, n):
    """What `store` takes, from what `_names` wrote."""
    features, receivers = names.get("features"), names.get("receivers")
    metadata = names.get("metadata", {})
    if features is not None and len(features) != n_features:
        raise ValueError(f"{len(features)} names for {n_features} features")
    if receivers is not None and {len(receivers), *map(len, metadata.values())} != {n}:
        raise ValueError(f"names or metadata of other length than {n} receivers")
    return {
        "names": None if features is None else np.array(features, dtype=object),
        "receivers": None if receivers is None else Columns(receivers, metadata),
    }


def _plain(value):
    """NumPy's scalars and arrays as JSON has them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{value!r} cannot be saved in a model file: JSON has no such type.")


_FIELDS = fields(Result)


def read_model(path, classes):
    """The model that `save_model` wrote.

    Parameters
    ----------
    path : str or Path
    classes : dict of str to type
        Models by the names of their classes.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, is not a model of fastglm, or is of a newer version.
    """
    data = read_npz(path, "a model")
    try:
        header = json.loads(str(data["header"]))
        if header["format"] != _FORMAT:
            raise KeyError("format")
        version, kind = int(header["version"]), classes[header["class"]]
        params, metadata = dict(header["params"]), header["metadata"]
    except Exception:  # whatever the values of a foreign header raise
        raise ValueError(
            f"{path} is not a model of fastglm; expected a file that save_params wrote."
        ) from None
    if version > _VERSION:
        raise ValueError(
            f"{path} has format version {version}; this fastglm reads up to {_VERSION}. Upgrade "
            "fastglm."
        )
    try:
        result = _read_result(data)
        # Files of versions with Poisson observations only have no scale and no flags.
        scale = data.get("scale", np.ones(result.intercept.size))
        if scale.shape != result.intercept.shape or scale.dtype.kind != "f":
            raise ValueError(
                f"scale has shape {scale.shape} and dtype {scale.dtype} for "
                f"{result.intercept.size} receivers"
            )
        flags = {"weighted": False, "shifted": False} | header.get("fit", {})
        if len(flags) > 2 or not all(isinstance(flag, bool) for flag in flags.values()):
            raise ValueError(f"fit is {flags}")
        model = kind(**_read_params(params, data, len(result.coef)))
        read_settings(model)  # raises on what no model has
        _check_shapes(model, result)
        names = _read_names(header.get("names", {}), *result.coef.shape)
        store(model, result, scale=scale, **flags, **names)
    except Exception as error:  # whatever foreign values raise on their way
        text = describe(error).removeprefix("ValueError: ").rstrip(".")
        raise ValueError(f"{path} is a damaged model file: {text}.") from None
    model.metadata_ = metadata
    return model


def _read_params(params, data, n_features):
    """The parameters of a model: those of the header with the arrays."""
    strength, ratio = (_number(data.get(name)) for name in ("strength", "ratio"))
    params["regularizer_strength"] = strength if ratio is None else (strength, ratio)
    if isinstance(params["regularizer"], dict):
        params["regularizer"] = _regularizer(data, n_features, **params["regularizer"])
    family = params["observation_model"]
    if isinstance(family, dict):
        params["observation_model"] = _family(**family)
    masks = {k[5:]: v for k, v in data.items() if k.startswith("mask_")}
    if masks or "mask" in data:
        params["feature_mask"] = masks or data["mask"]
    return params


def _family(params, **kind):
    """An observation model: its name, or an object where it has parameters."""
    model = as_observation_model(kind["class"])
    return type(model)(**params) if params else model.name


def _read_result(data):
    arrays, like = {}, Result.empty(1, 1)
    for name in (f.name for f in _FIELDS):
        array, dtype = data[f"result_{name}"], getattr(like, name).dtype
        if array.dtype.kind != dtype.kind:
            raise ValueError(f"{name} has dtype {array.dtype}, not {dtype}")
        arrays[name] = array
    result = Result(**arrays)
    n = result.intercept.size
    shapes = {name: a.shape for name, a in arrays.items() if name != "coef"}
    if result.coef.ndim != 2 or result.coef.shape[1] != n or result.coef.size == 0:
        raise ValueError(f"coef has shape {result.coef.shape} for {n} receivers")
    if any(shape != (n,) for shape in shapes.values()):
        raise ValueError(f"shapes {shapes} for {n} receivers")
    unknown = sorted({*result.status.tolist()} - {*STATUSES})
    if unknown:
        raise ValueError(f"status holds {unknown[0]!r}, which no receiver has")
    return result


def _check_shapes(model, result):
    """Raise ValueError if mask, penalty or receivers do not fit the coefficients."""
    n_features, n = result.coef.shape
    if model.single_receiver and n != 1:
        raise ValueError(f"{n} receivers in a {type(model).__name__}, which has one")
    if isinstance(model.feature_mask, dict):
        for label, mask in model.feature_mask.items():
            if mask.shape != (n,) or not np.isin(mask, (0, 1)).all():
                raise ValueError(f"mask of {label!r} is no 0 or 1 for each of {n} receivers")
    else:
        read_mask(model, (n_features, n))
    kind, strength = as_regularizer(model.regularizer), model.regularizer_strength
    parts = strength if isinstance(strength, tuple) else (strength,)
    for values in (*parts, getattr(kind, "ratio", None)):
        values = np.zeros(()) if values is None else np.asarray(values)
        if not _fits(values, n_features, n):
            raise ValueError(f"strength or ratio of shape {values.shape} for {n} receivers")
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise ValueError("strength or ratio is negative or not finite")
    for name in ("mask", "matrix"):
        values = getattr(kind, name, None)
        if values is None:
            continue
        if values.ndim != 2 or values.shape[1] > n_features:
            raise ValueError(f"{name} has shape {values.shape} for {n_features} features")


def _fits(values, n_features, n):
    """Whether strengths are a number, one a receiver, or at most one a feature and receiver."""
    if n == 1 and values.ndim == 1:
        values = values[:, None]
    table = values.ndim == 2 and values.shape[1] == n and len(values) <= n_features
    return table or values.shape in ((), (n,))


def _regularizer(data, n_features, sparse, **kind):
    """The regularizer that `save_model` wrote."""
    own = {k[12:]: _number(v) for k, v in data.items() if k.startswith("regularizer_")}
    for name in sparse:
        shape = whole_numbers("shape", own[name][0, :2])
        if shape.max() > n_features:
            raise ValueError(f"{name} has shape {tuple(shape)} for {n_features} features")
        at = (whole_numbers("index", values) for values in own[name][1:, :2].T)
        own[name] = csr_array((own[name][1:, 2], tuple(at)), shape=tuple(shape))
    return REGULARIZERS[kind["class"]](**own)


def _number(array):
    """An array of no dimensions as a number."""
    return array if array is None or array.ndim else float(array)


__all__ = ["model_path", "read_model", "save_model"]
