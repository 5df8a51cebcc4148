"""fastglm: exact, fully coupled GLMs of neural populations.

``import fastglm as nmo`` runs code written for NeMoS's coupling GLMs: ``basis``, ``glm`` and
``simulation`` have the names that its users type.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastglm._absent import refuse

if TYPE_CHECKING:
    from fastglm import (
        basis,
        connectivity,
        convolve,
        diagnostics,
        features,
        fetch,
        glm,
        identifiability_constraints,
        inference,
        model_selection,
        observation_models,
        pytrees,
        recordings,
        regularizer,
        simulation,
        styles,
        utils,
        workflow,
    )
    from fastglm import plotting as plotting
    from fastglm import report as report
    from fastglm._batches.executors import Workers
    from fastglm.connectivity import load_couplings
    from fastglm.glm import GLM, PopulationGLM
    from fastglm.migration import from_nemos
    from fastglm.recordings import bin_spikes, load_spikes
    from fastglm.workflow import (
        collect_sessions,
        fit_coupling,
        fit_sessions,
        infer_connectivity,
        inspect_npz,
        load_model,
    )

logging.getLogger("fastglm").addHandler(logging.NullHandler())
__version__ = "0.1.0"
__all__ = [
    "GLM",
    "PopulationGLM",
    "Workers",
    "__version__",
    "basis",
    "bin_spikes",
    "collect_sessions",
    "connectivity",
    "convolve",
    "diagnostics",
    "features",
    "fetch",
    "fit_coupling",
    "fit_sessions",
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
    "recordings",
    "regularizer",
    "simulation",
    "styles",
    "utils",
    "workflow",
]

# Modules, classes and functions that are imported when they are first used.
_MODULES = (
    *("basis", "connectivity", "convolve", "diagnostics", "features", "fetch", "glm"),
    *("identifiability_constraints", "inference", "model_selection", "observation_models"),
    *("pytrees", "recordings", "regularizer", "simulation", "styles", "utils", "workflow"),
)
_WITH_MATPLOTLIB = ("plotting", "report")  # of the extra "plot": not in __all__
_FROM = {
    "GLM": "fastglm.glm",
    "PopulationGLM": "fastglm.glm",
    "Workers": "fastglm._batches.executors",
    "bin_spikes": "fastglm.recordings",
    "collect_sessions": "fastglm.workflow",
    "fit_coupling": "fastglm.workflow",
    "fit_sessions": "fastglm.workflow",
    "from_nemos": "fastglm.migration",
    "infer_connectivity": "fastglm.workflow",
    "inspect_npz": "fastglm.workflow",
    "load_couplings": "fastglm.connectivity",
    "load_model": "fastglm.workflow",
    "load_spikes": "fastglm.recordings",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES or name in _WITH_MATPLOTLIB:
        return import_module(f"fastglm.{name}")
    if name in _FROM:
        return getattr(import_module(_FROM[name]), name)
    refuse(name, __name__)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_WITH_MATPLOTLIB})
