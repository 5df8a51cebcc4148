"""What NeMoS has and fastglm has not, each with a sentence that says so."""

from __future__ import annotations

from typing import NoReturn

_CLASSIFIERS = "fastglm has no GLMs of categories; use NeMoS's ClassifierGLM for them."
_HMM = "fastglm has no GLM with hidden states (GLM-HMM); use NeMoS for it."
_SENTENCES = {
    "CategoricalObservations": _CLASSIFIERS,
    "ClassifierGLM": _CLASSIFIERS,
    "ClassifierPopulationGLM": _CLASSIFIERS,
    "GLMHMM": _HMM,
    "glm_hmm": _HMM,
    "solvers": (
        "fastglm has no registry of solvers, since its steps are exact Newton steps; use NeMoS to "
        "write a solver of your own."
    ),
    "steps": (
        "fastglm fits to the optimum in one call, and has no single stochastic steps; use NeMoS "
        "for them, stochastic_fit for data that come chunk by chunk, or update(X, y) for new data."
    ),
}


def refuse(name: str, module: str) -> NoReturn:
    """Raise NotImplementedError for what NeMoS has, else AttributeError; for ``__getattr__``."""
    if name in _SENTENCES:
        raise NotImplementedError(_SENTENCES[name])
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


def refuse_steps() -> NoReturn:
    """Raise NotImplementedError for a single step of a solver."""
    raise NotImplementedError(_SENTENCES["steps"])


class OneCall:
    """NeMoS's methods of a model that take single steps of a solver."""

    def initialize_params(self, X: object, y: object) -> NoReturn:
        """Not available: raises NotImplementedError. `fit` needs no start."""
        refuse_steps()

    def initialize_solver_and_state(self, X: object, y: object, init_params: object) -> NoReturn:
        """Not available: raises NotImplementedError; see `fit`."""
        refuse_steps()
