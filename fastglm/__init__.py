"""fastglm: exact, fully coupled Poisson GLMs of neural populations.

``import fastglm as nmo`` runs code written for NeMoS's coupling GLMs: ``basis``, ``glm`` and
``simulation`` have the names that its users type.
"""

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
from fastglm.glm import GLM, PopulationGLM
from fastglm.io import bin_spikes, load_model, load_spikes
from fastglm.migration import from_nemos

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
    "from_nemos",
    "glm",
    "inference",
    "load_model",
    "load_spikes",
    "model_selection",
    "regularizer",
    "simulation",
]
