"""Reading what users give to a model, once."""

import warnings

import numpy as np

from fastglm._checks import as_numbers
from fastglm._pynapple import read_values

_SHOWN = 5  # names that a message lists


def feature_names(X):
    """Names of the columns of a DataFrame, or None if it has none or they are not strings.

    Raises
    ------
    TypeError
        If some are strings and some are not.
    """
    if not (hasattr(X, "columns") and (hasattr(X, "iloc") or hasattr(X, "__dataframe__"))):
        return None
    names = np.array(list(X.columns), dtype=object)
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


def keep_names(model, names):
    """Set ``feature_names_in_``, or take it away."""
    if names is not None:
        model.feature_names_in_ = names
    elif hasattr(model, "feature_names_in_"):
        del model.feature_names_in_


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
    if not np.isfinite(weight).all() or (weight < 0).any() or not weight.any():
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
            f"n_receivers) = {(n_bins, n)}. It is added to the log of the rate: for exposures pass "
            "np.log(exposure)."
        )
    if not np.isfinite(values).all():
        raise ValueError(
            "offset holds NaN or infinity; give these bins sample_weight 0 and any finite offset."
        )
    return values


def _read(name, values):
    values, _ = read_values(values, name)
    return as_numbers(values, name).astype(np.float64)


def read_binary(mask):
    array = np.asarray(mask)
    if array.dtype != bool:
        if not np.isin(array, (0, 1)).all():
            raise ValueError(
                "feature_mask holds other values than 0 and 1; pass weights > 0 instead?"
            )
        array = array.astype(bool)
    return array
