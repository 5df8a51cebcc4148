"""Fitted models in files, ``.npz`` without pickle."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array, issparse

from fastglm._checks import as_numbers
from fastglm._engine.result import Result
from fastglm._fitted import Fitted, store
from fastglm._inputs import read_settings
from fastglm._pynapple import Columns
from fastglm.observation_models import as_observation_model
from fastglm.recordings.spikes import read_npz
from fastglm.regularizer import REGULARIZERS, ElasticNet, as_regularizer

_FORMAT = "fastglm-model"
_VERSION = 1


def model_path(path) -> Path:
    """The file that a model is written to: ``.npz`` is appended where it is missing.

    Raises
    ------
    ValueError
        If the path is a folder, or lies in one that does not exist.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; expected the name of a file.")
    if not path.resolve().parent.is_dir():
        raise ValueError(f"There is no folder {path.resolve().parent} to write to.")
    return path if path.suffix == ".npz" else path.with_name(path.name + ".npz")


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
        arrays.update({f"mask_{label}": _dense(m) for label, m in mask.items()})
    elif mask is not None:
        arrays["mask"] = _dense(mask)
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
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            np.savez_compressed(file, header=np.array(json.dumps(header, default=_plain)), **arrays)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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


def _dense(mask):
    return as_numbers(mask.toarray() if issparse(mask) else mask, "feature_mask")


def _texts(values):
    values = [v.item() if isinstance(v, np.generic) else v for v in values]
    return [v if isinstance(v, str | int | float | None) else str(v) for v in values]


def _read_names(names):
    """What `store` takes, from what `_names` wrote."""
    features, receivers = names.get("features"), names.get("receivers")
    return {
        "names": None if features is None else np.array(features, dtype=object),
        "receivers": None if receivers is None else Columns(receivers, names.get("metadata", {})),
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
    except (KeyError, TypeError, ValueError):
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
        scale = data.get("scale", np.ones(result.intercept.size)).astype(float)
        if scale.shape != result.intercept.shape:
            raise ValueError(f"scale has shape {scale.shape} for {result.intercept.size} receivers")
        model = kind(**_read_params(params, data))
        read_settings(model)  # raises on what no model has
        store(
            model,
            result,
            scale=scale,
            **header.get("fit", {}),
            **_read_names(header.get("names", {})),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is a damaged model file: {error}.") from None
    model.metadata_ = metadata
    return model


def _read_params(params, data):
    """The parameters of a model: those of the header with the arrays."""
    strength, ratio = (_number(data.get(name)) for name in ("strength", "ratio"))
    params["regularizer_strength"] = strength if ratio is None else (strength, ratio)
    if isinstance(params["regularizer"], dict):
        params["regularizer"] = _regularizer(data, **params["regularizer"])
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
    arrays = {f.name: data[f"result_{f.name}"] for f in _FIELDS}
    result = Result(**arrays)
    n = result.intercept.size
    shapes = {name: a.shape for name, a in arrays.items() if name != "coef"}
    if result.coef.ndim != 2 or result.coef.shape[1] != n:
        raise ValueError(f"coef has shape {result.coef.shape} for {n} receivers")
    if any(shape != (n,) for shape in shapes.values()):
        raise ValueError(f"shapes {shapes} for {n} receivers")
    return result


def _regularizer(data, sparse, **kind):
    """The regularizer that `save_model` wrote."""
    own = {k[12:]: _number(v) for k, v in data.items() if k.startswith("regularizer_")}
    for name in sparse:
        shape, (row, column, values) = own[name][0, :2].astype(int), own[name][1:].T
        at = row.astype(int), column.astype(int)
        own[name] = csr_array((values, at), shape=tuple(shape))
    return REGULARIZERS[kind["class"]](**own)


def _number(array):
    """An array of no dimensions as a number."""
    return array if array is None or array.ndim else float(array)


__all__ = ["model_path", "read_model", "save_model"]
