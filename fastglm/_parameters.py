"""Parameters of a model: kept as they were given, read as what they stand for.

`scikit-learn` copies a model from the very objects of its ``__init__``, and wants them checked in
`fit` only. ``get_params`` therefore gives what was given. The attributes give NeMoS's view of it:
objects in place of names, and the default in place of None.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Self

from sklearn.base import BaseEstimator

from fastglm.observation_models import as_observation_model
from fastglm.regularizer import ElasticNet, as_regularizer


class _Read:
    """A parameter that is kept as given; its attribute is ``read(model, given)``.

    What cannot be read is shown as it was given: its error is one of `fit`.
    """

    def __init__(self, read: Callable) -> None:
        self.read = read

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, model, owner=None):
        if model is None:
            return self
        try:
            given = vars(model)[self.name]
        except KeyError:
            raise AttributeError(self.name) from None
        try:
            return self.read(model, given)
        except (TypeError, ValueError):
            return given

    def __set__(self, model, given):
        vars(model)[self.name] = given


def _link(model, given):
    loss = as_observation_model(vars(model)["observation_model"]).loss(given)
    return given if callable(given) else loss.mean


def _strength(model, given):
    kind = as_regularizer(vars(model)["regularizer"])
    strength = kind.default_strength if given is None else given
    if isinstance(kind, ElasticNet) and not isinstance(strength, tuple | list):
        return strength, kind.ratio
    return strength


def _solver_kwargs(model, given):
    """A dict that the user may change in place: ``model.solver_kwargs["maxiter"] = 50``."""
    if given is None:
        given = vars(model)["solver_kwargs"] = {}
    return given


class Parameters(BaseEstimator):
    """The parameters of `PopulationGLM`, which explains them."""

    observation_model = _Read(lambda model, given: as_observation_model(given))
    inverse_link_function = _Read(_link)
    regularizer = _Read(lambda model, given: as_regularizer(given))
    regularizer_strength = _Read(_strength)
    solver_kwargs = _Read(_solver_kwargs)

    def __init__(
        self,
        observation_model="Poisson",
        inverse_link_function=None,
        regularizer=None,
        regularizer_strength=None,
        solver_name=None,
        solver_kwargs=None,
        feature_mask=None,
        memory_budget=None,
    ):
        self.observation_model = observation_model
        self.inverse_link_function = inverse_link_function
        self.regularizer = regularizer
        self.regularizer_strength = regularizer_strength
        self.solver_name = solver_name
        self.solver_kwargs = solver_kwargs
        self.feature_mask = feature_mask
        self.memory_budget = memory_budget

    @classmethod
    @cache  # scikit-learn reads the signature at every call
    def _get_param_names(cls):
        return super()._get_param_names()

    def get_params(self, deep: bool = True) -> dict[str, object]:
        """Parameters as they were given.

        Parameters
        ----------
        deep : bool, default True
            Also the parameters of parameters that are objects, such as ``regularizer__mask``.
        """
        params = {name: vars(self)[name] for name in self._get_param_names()}
        if deep:
            for name, value in list(params.items()):
                if hasattr(value, "get_params") and not isinstance(value, type):
                    own = value.get_params()
                    params.update((f"{name}__{key}", part) for key, part in own.items())
        return params

    def set_params(self, **params: object) -> Self:
        """Set parameters by name.

        A new ``regularizer`` without a ``regularizer_strength`` has the default strength: a
        strength of a ridge means nothing for a lasso.
        """
        if "regularizer" in params:
            params = {"regularizer_strength": None, **params}
        return super().set_params(**params)
