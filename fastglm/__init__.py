"""fastglm: exact, fully coupled Poisson GLMs of neural populations.

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
    regularizer,
    simulation,
)
from fastglm.coupling import fit_coupling
from fastglm.glm import GLM, PopulationGLM
from fastglm.io import load_model
from fastglm.migration import from_nemos
from fastglm.recipe import infer_connectivity
from fastglm.recording import bin_spikes, load_spikes

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
    "regularizer",
    "simulation",
]
