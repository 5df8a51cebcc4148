"""fastglm: exact, fully coupled GLMs of neural populations.

``import fastglm as nmo`` runs code written for NeMoS's coupling GLMs: ``basis``, ``glm`` and
``simulation`` have the names that its users type.
"""

import logging

from fastglm import (
    basis,
    connectivity,
    diagnostics,
    features,
    glm,
    inference,
    model_selection,
    observation_models,
    regularizer,
    simulation,
)
from fastglm.glm import GLM, PopulationGLM
from fastglm.migration import from_nemos
from fastglm.recordings import bin_spikes, load_spikes
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
    "load_model",
    "load_spikes",
    "model_selection",
    "observation_models",
    "regularizer",
    "simulation",
]
