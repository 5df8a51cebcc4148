"""Names of features, as scikit-learn keeps them: those of the columns of a DataFrame."""

import warnings

import numpy as np

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


__all__ = ["check_names", "feature_names", "keep_names"]
