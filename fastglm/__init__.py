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
    convolve,
    features,
    glm,
    inference,
    observation_models,
    pytrees,
    regularizer,
    simulation,
    styles,
    utils,
)
from fastglm._absent import refuse
from fastglm.connectivity import load_couplings
from fastglm.glm import GLM, PopulationGLM
from fastglm.recordings import bin_spikes, load_spikes

if TYPE_CHECKING:
    from fastglm import diagnostics, fetch, identifiability_constraints, model_selection
    from fastglm.migration import from_nemos
    from fastglm.workflow import fit_coupling, infer_connectivity, inspect_npz, load_model

logging.getLogger("fastglm").addHandler(logging.NullHandler())
__version__ = "0.1.0"
__all__ = [
    "GLM",
    "PopulationGLM",
    "__version__",
    "basis",
    "bin_spikes",
    "connectivity",
    "convolve",
    "diagnostics",
    "features",
    "fetch",
    "fit_coupling",
    "from_nemos",
    "glm",
    "identifiability_constraints",
    "infer_connectivity",
    "inference",
    "inspect_npz",
    "load_couplings",
    "load_model",
    "load_spikes",
    "model_selection",
    "observation_models",
    "pytrees",
    "regularizer",
    "simulation",
    "styles",
    "utils",
]

# Imported when they are first used: no model needs them.
_MODULES = ("diagnostics", "fetch", "identifiability_constraints", "model_selection")
_FUNCTIONS = {
    "fit_coupling": "fastglm.workflow",
    "from_nemos": "fastglm.migration",
    "infer_connectivity": "fastglm.workflow",
    "inspect_npz": "fastglm.workflow",
    "load_model": "fastglm.workflow",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"fastglm.{name}")
    if name in _FUNCTIONS:
        return getattr(import_module(_FUNCTIONS[name]), name)
    refuse(name, __name__)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
