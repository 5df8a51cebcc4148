"""Observation models: distributions of the counts around their predicted mean.

An `ObservationModel` is a family. It gives log likelihood, deviance, residuals and scale as
functions of the counts y and their mean mu. A `Loss` is a family with a link. It gives the mean
``mu(eta)`` and the loss of a bin with its derivatives as functions of ``eta = b + x.c``. The fit
minimises the loss:

    log p(y | mu, scale) = -precision(scale) * loss(eta, y) + terms without eta

================  ==========  ========================  ========================================
family            link        mean                      loss
================  ==========  ========================  ========================================
Poisson           exp         ``exp(eta)``              ``mu - y * log(mu)``
Poisson           softplus    ``log(1 + exp(eta))``     ``mu - y * log(mu)``
Bernoulli         logistic    ``1 / (1 + exp(-eta))``   ``-y * log(mu) - (1 - y) * log(1 - mu)``
Bernoulli         cloglog     ``1 - exp(-exp(eta))``    ``-y * log(mu) - (1 - y) * log(1 - mu)``
Gaussian          identity    ``eta``                   ``(y - mu)**2``
Gamma             one_over_x  ``1 / eta``               ``y / mu + log(mu)``
Gamma             exp         ``exp(eta)``              ``y / mu + log(mu)``
Gamma             softplus    ``log(1 + exp(eta))``     ``y / mu + log(mu)``
NegativeBinomial  exp         ``exp(eta)``              with ``v = 1 + scale * mu``,
                                                        ``log(v) / scale
                                                        - y * log(scale * mu / v)``
NegativeBinomial  softplus    ``log(1 + exp(eta))``     the same
================  ==========  ========================  ========================================

Names, links and losses are the same as in NeMoS, so that a strength of a regularizer means the
same. A file holds a family: an `ObservationModel`, a `Loss` for each of its links, and a line in
`_MODELS` here. A loss has a pointwise kernel.
"""

from __future__ import annotations

from typing import NoReturn

from fastglm._absent import refuse
from fastglm._checks import shown
from fastglm.observation_models.bernoulli import BernoulliObservations
from fastglm.observation_models.family import RESIDUAL_KINDS, ObservationModel, pseudo_r2
from fastglm.observation_models.gamma import GammaObservations
from fastglm.observation_models.gaussian import GaussianObservations
from fastglm.observation_models.loss import LOG_ZERO, Loss
from fastglm.observation_models.negative_binomial import NegativeBinomialObservations
from fastglm.observation_models.poisson import PoissonExp, PoissonObservations

_MODELS = {
    model.name: model
    for model in (
        PoissonObservations,
        BernoulliObservations,
        GaussianObservations,
        GammaObservations,
        NegativeBinomialObservations,
    )
}
FAMILIES = tuple(_MODELS)  # names


def as_observation_model(given: object) -> ObservationModel:
    """The observation model that a name or an object stands for.

    Parameters
    ----------
    given : None, str or object
        None stands for Poisson. A name may end in "Observations" or "Observations()". An object is
        an `ObservationModel` or belongs to NeMoS; an object of NeMoS is recognised by the name of
        its class, and its parameters are kept.

    Raises
    ------
    ValueError
        If there is no such model.

    Examples
    --------
    >>> from fastglm.observation_models import as_observation_model
    >>> as_observation_model("Bernoulli")
    BernoulliObservations()
    """
    if isinstance(given, ObservationModel):
        return given
    if given is None:
        return PoissonObservations()
    name = given if isinstance(given, str) else type(given).__name__
    model = _MODELS.get(name.removesuffix("()").removesuffix("Observations"))
    if model is None:
        names = ", ".join(map(repr, _MODELS))
        raise ValueError(
            f"observation_model is {shown(given)}; expected one of {names}, or an object such as "
            "PoissonObservations()."
        )
    own = model()
    params = (
        {}
        if isinstance(given, str)
        else {k: getattr(given, k, v) for k, v in own.get_params().items()}
    )
    return own.set_params(**params)


def __getattr__(name: str) -> NoReturn:
    refuse(name, __name__)


__all__ = [
    "FAMILIES",
    "LOG_ZERO",
    "RESIDUAL_KINDS",
    "BernoulliObservations",
    "GammaObservations",
    "GaussianObservations",
    "Loss",
    "NegativeBinomialObservations",
    "ObservationModel",
    "PoissonExp",
    "PoissonObservations",
    "as_observation_model",
    "pseudo_r2",
]
