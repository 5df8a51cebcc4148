"""fastglm: exact, fully coupled GLMs of neural populations.

``import fastglm as nmo`` runs code written for NeMoS's coupling GLMs: ``basis``, ``glm`` and
``simulation`` have the names that its users type.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastglm import (
    basis,
    connectivity,
    features,
    glm,
    inference,
    observation_models,
    regularizer,
    simulation,
)
from fastglm.connectivity import load_couplings
from fastglm.glm import GLM, PopulationGLM
from fastglm.recordings import bin_spikes, load_spikes

if TYPE_CHECKING:
    from fastglm import diagnostics, model_selection
    from fastglm.migration import from_nemos
    from fastglm.workflow import fit_coupling, infer_connectivity, load_model

logging.getLogger("fastglm").addHandler(logging.NullHandler())
__version__ = "0.1.0"
__all__ = [
    "GLM",
    "PopulationGLM",
    "__version__",
    "basis",
    "bin_spikes",
    "connectivity",
    "diagnostics",
    "features",
    "fit_coupling",
    "from_nemos",
    "glm",
    "infer_connectivity",
    "inference",
    "load_couplings",
    "load_model",
    "load_spikes",
    "model_selection",
    "observation_models",
    "regularizer",
    "simulation",
]

# Imported when they are first used: no model needs them.
_MODULES = ("diagnostics", "model_selection")
_FUNCTIONS = {
    "fit_coupling": "fastglm.workflow",
    "from_nemos": "fastglm.migration",
    "infer_connectivity": "fastglm.workflow",
    "load_model": "fastglm.workflow",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"fastglm.{name}")
    if name in _FUNCTIONS:
        return getattr(import_module(_FUNCTIONS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
