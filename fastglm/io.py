"""Models in files, ``.npz`` without pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields

import numpy as np
from scipy.sparse import csr_array, issparse

from fastglm._checks import as_dense_numbers, shown, whole_numbers
from fastglm._engine.result import STATUSES, Result
from fastglm._files import check_version, describe, npz_path, replacing
from fastglm._fitted import Fitted, store
from fastglm._inputs import read_mask, read_settings
from fastglm._pynapple import Columns
from fastglm.observation_models import as_observation_model
from fastglm.pytrees import is_container, leaves, lengths_of
from fastglm.regularizer import REGULARIZERS, ElasticNet, as_regularizer

_FORMAT = "fastglm-model"
_VERSION = 1
_LATER = {"scale": 1.0, "dof": np.nan}  # arrays that files of earlier versions have not


def save_model(model, path, metadata=None) -> None:
    """Write a model to ``.npz``, fitted or not; `fastglm.load_model` reads it.

    A link or regularizer of the user's own is written as its name: `read_model` is then given the
    function or class.

    Parameters
    ----------
    model : GLM or PopulationGLM
    path : str or Path
        ``.npz`` is appended where it is missing. The file appears whole or not at all.
    metadata : dict, optional
        Anything that JSON can hold; comes back as ``model.metadata_``.

    Raises
    ------
    ValueError
        If the observation model or the regularizer is not known, or no file can be written there.
    """
    path = npz_path(path)
    fit = Fitted.of(model) if hasattr(model, "coef_") else None
    params, arrays = model.get_params(deep=False), {}
    _put(arrays, "mask", params.pop("feature_mask"))
    family = as_observation_model(model.observation_model)
    params["observation_model"] = {"class": family.name, "params": family.get_params()}
    params["inverse_link_function"] = _link(model, family)
    kind, strength = as_regularizer(model.regularizer), params.pop("regularizer_strength")
    if isinstance(kind, ElasticNet) and isinstance(strength, tuple | list):
        strength, ratio = strength
        _put(arrays, "ratio", ratio)
    _put(arrays, "strength", strength)
    if not isinstance(params["regularizer"], str | None):
        own = {name: v for name, v in kind.get_params().items() if v is not None}
        params["regularizer"] = {"class": _class_name(kind), "sparse": []}
        for name, value in own.items():
            if issparse(value):  # its shape and entries
                params["regularizer"]["sparse"].append(name)
                at = value.tocoo()
                value = [[*at.shape, 0], *zip(at.row, at.col, at.data, strict=True)]
            arrays[f"regularizer_{name}"] = np.asarray(value, float)
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "class": type(model).__name__,
        "params": params,
        "fit": None,
        "metadata": getattr(model, "metadata_", {}) if metadata is None else metadata,
    }
    if fit is not None:
        arrays |= {f"result_{f.name}": getattr(model.solver_result_, f.name) for f in _FIELDS}
        # The user may have set other coefficients after the fit.
        arrays |= {"result_coef": fit.coef, "result_intercept": fit.intercept}
        arrays |= {"scale": fit.scale, "dof": model.dof_resid_}
        header["fit"] = {"weighted": fit.weighted, "shifted": fit.shifted}
        header["names"] = _names(model)
        if is_container(model.coef_):
            header["shape"] = lengths_of(model.coef_)
    arrays["header"] = np.array(json.dumps(header, default=_plain))
    with replacing(path) as file:
        np.savez_compressed(file, **arrays)


def _put(arrays, name, values):
    """Add values to the arrays of a file; a dict as one array for each of its labels."""
    if isinstance(values, Mapping):
        for label, part in leaves(values, lambda node: isinstance(node, Mapping)).items():
            arrays[f"{name}_{label}"] = as_dense_numbers(part, name)
    elif values is not None:
        arrays[name] = as_dense_numbers(values, name)


def _get(data, name):
    """What `_put` added: an array, a number, a dict, or None."""
    start = f"{name}_"
    parts = {k.removeprefix(start): _number(v) for k, v in data.items() if k.startswith(start)}
    return parts or _number(data.get(name))


def _link(model, family):
    """The name of a link, or a dict with the name of a function of the user's."""
    given = model.get_params(deep=False)["inverse_link_function"]
    try:
        return family.loss(given).link
    except ValueError:
        if not callable(given):
            raise
        return {"function": _full_name(given)}


def _class_name(kind):
    """The name of a regularizer of fastglm, or the full name of a class of the user's."""
    own = type(kind)
    return own.__name__ if REGULARIZERS.get(own.__name__) is own else _full_name(own)


def _full_name(thing):
    return f"{thing.__module__}.{getattr(thing, '__qualname__', thing)}"


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


_FIELDS = [field for field in fields(Result) if field.name != "scale"]  # that of the model


def read_model(path, data, classes, mapping=None):
    """The model that `save_model` wrote.

    Parameters
    ----------
    path : str or Path
        For errors.
    data : dict of arrays
        What the file holds; see `fastglm._files.read_npz`.
    classes : dict of str to type
        Models by the names of their classes.
    mapping : dict, optional
        Functions and classes of the user's own, by the names of the parameters that they are for:
        ``{"regularizer": MyRegularizer, "inverse_link_function": my_function}``.

    Raises
    ------
    ValueError
        If the file is damaged, is not a model of fastglm, is of a newer version, or has a function
        or class of the user's that is not in the mapping.
    """
    mapping = read_mapping(mapping)
    try:
        header = json.loads(str(data["header"]))
        if header["format"] != _FORMAT:
            raise KeyError("format")
        version, kind = int(header["version"]), classes[header["class"]]
        params, metadata = dict(header["params"]), header["metadata"]
    except Exception:  # whatever the values of a foreign header raise
        raise _foreign(path) from None
    check_version(path, version, _VERSION)
    _check_own(path, params, mapping)
    try:
        fitted = header.get("fit", {}) is not None
        result = _read_result(data) if fitted else None
        n_features = len(result.coef) if fitted else np.inf
        model = kind(**_read_params(params, data, n_features, mapping))
        if "inverse_link_function" not in mapping:  # a function of the user's is one of fit
            read_settings(model)  # raises on what no model has
        if fitted:
            _read_fit(model, result, data, header)
    except Exception as error:  # whatever foreign values raise on their way
        text = describe(error).removeprefix("ValueError: ").rstrip(".")
        raise ValueError(f"{path} is a damaged model file: {text}.") from None
    model.metadata_ = metadata
    return model


def _foreign(path):
    return ValueError(f"{path} is not a model of fastglm; expected a file that save_params wrote.")


def describe_model(path, data) -> list[tuple[str, object]]:
    """What a file of `save_model` holds, as names and values.

    Raises
    ------
    ValueError
        If it is not a model of fastglm.
    """
    try:
        header = json.loads(str(data["header"]))
        parts = [("class", header["class"]), *header["params"].items()]
        parts += [(name, header[name]) for name in ("fit", "metadata")]
    except Exception:  # whatever the values of a foreign header raise
        raise _foreign(path) from None
    return parts + [(name, value) for name, value in data.items() if name != "header"]


def read_mapping(mapping: dict | None) -> dict:
    """The functions and classes of the user's that `read_model` is given.

    Raises
    ------
    ValueError
        If it is no dict of them by the names of parameters.
    """
    mapping = {} if mapping is None else mapping
    known = ("inverse_link_function", "regularizer")
    if not isinstance(mapping, dict) or not set(mapping) <= {*known}:
        raise ValueError(f"mapping_dict is {shown(mapping)}; expected a dict with keys of {known}.")
    for name, value in mapping.items():
        if not callable(value):
            raise ValueError(f"mapping_dict[{name!r}] is {value!r}; expected a function or class.")
    return mapping


def _check_own(path, params, mapping):
    """Raise ValueError if a function or class of the user's is not in the mapping."""
    link, kind = params.get("inverse_link_function"), params.get("regularizer")
    for name, given, key in (
        ("inverse_link_function", link, "function"),
        ("regularizer", kind, "class"),
    ):
        own = given.get(key) if isinstance(given, dict) else None
        if own is not None and own not in REGULARIZERS and name not in mapping:
            short = str(own).rpartition(".")[2]
            raise ValueError(
                f"{path} has the {name} {own}, which is not of fastglm; pass mapping_dict="
                f"{{{name!r}: {short}}}."
            )


def _read_fit(model, result, data, header):
    """Set what a fit has left in a file."""
    # Files of versions with Poisson observations only have no scale and no flags.
    scale, dof = (data.get(k, np.full(result.intercept.size, v)) for k, v in _LATER.items())
    for name, values in (("scale", scale), ("dof", dof)):
        if values.shape != result.intercept.shape or values.dtype.kind != "f":
            raise ValueError(
                f"{name} has shape {values.shape} and dtype {values.dtype} for "
                f"{result.intercept.size} receivers"
            )
    flags = {"weighted": False, "shifted": False} | header.get("fit", {})
    if len(flags) > 2 or not all(isinstance(flag, bool) for flag in flags.values()):
        raise ValueError(f"fit is {flags}")
    _check_shapes(model, result)
    names = _read_names(header.get("names", {}), *result.coef.shape)
    shape = header.get("shape")
    if shape is not None and sum(leaves(shape, is_container).values()) != len(result.coef):
        raise ValueError(f"the tree {shape} does not hold {len(result.coef)} features")
    store(model, result, scale=scale, dof=dof, shape=shape, **flags, **names)


def _read_params(params, data, n_features, mapping):
    """The parameters of a model: those of the header with the arrays."""
    strength, ratio = (_get(data, name) for name in ("strength", "ratio"))
    params["regularizer_strength"] = strength if ratio is None else (strength, ratio)
    if isinstance(params["regularizer"], dict):
        own = mapping.get("regularizer")
        params["regularizer"] = _regularizer(data, n_features, own, **params["regularizer"])
    family = params["observation_model"]
    if isinstance(family, dict):
        params["observation_model"] = _family(**family)
    params["feature_mask"] = _get(data, "mask")
    return params | {k: v for k, v in mapping.items() if k == "inverse_link_function"}


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
    n = arrays["intercept"].size
    result = Result(**arrays, scale=data.get("scale", np.ones(n)))
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
            if not _fits(mask, n_features, n) or not np.isin(mask, (0, 1)).all():
                raise ValueError(f"mask of {label!r} is no 0 or 1 for each of {n} receivers")
    else:
        read_mask(model, (n_features, n))
    kind, strength = as_regularizer(model.regularizer), model.regularizer_strength
    parts = strength if isinstance(strength, tuple) else (strength,)
    parts = [v for p in parts for v in (p.values() if isinstance(p, dict) else (p,))]
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
        if values.ndim not in (2, 3) or values.shape[1] > n_features:
            raise ValueError(f"{name} has shape {values.shape} for {n_features} features")


def _fits(values, n_features, n):
    """Whether strengths are a number, one a receiver, or at most one a feature and receiver."""
    if n == 1 and values.ndim == 1:
        values = values[:, None]
    table = values.ndim == 2 and values.shape[1] == n and len(values) <= n_features
    return table or values.shape in ((), (n,))


def _regularizer(data, n_features, own_class, sparse, **kind):
    """The regularizer that `save_model` wrote."""
    own = {k[12:]: _number(v) for k, v in data.items() if k.startswith("regularizer_")}
    for name in sparse:
        shape = whole_numbers("shape", own[name][0, :2])
        if shape.max() > n_features:
            raise ValueError(f"{name} has shape {tuple(shape)} for {n_features} features")
        at = (whole_numbers("index", values) for values in own[name][1:, :2].T)
        own[name] = csr_array((own[name][1:, 2], tuple(at)), shape=tuple(shape))
    return (own_class or REGULARIZERS[kind["class"]])(**own)


def _number(array):
    """An array of no dimensions as a number."""
    return array if array is None or array.ndim else float(array)


__all__ = ["describe_model", "read_mapping", "read_model", "save_model"]
