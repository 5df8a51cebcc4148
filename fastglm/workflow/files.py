"""Models from files."""

from __future__ import annotations

from pathlib import Path

from fastglm.glm import GLM, PopulationGLM
from fastglm.io import read_model


def load_model(path: str | Path) -> GLM | PopulationGLM:
    """Read a model that ``save_params`` or the command line wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, is not a model of fastglm, or is of a newer version.
    """
    return read_model(path, {"GLM": GLM, "PopulationGLM": PopulationGLM})


__all__ = ["load_model"]
