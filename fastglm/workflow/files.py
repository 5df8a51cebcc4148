"""Models from files."""

from __future__ import annotations

from pathlib import Path

from fastglm._files import read_npz
from fastglm.glm import GLM, PopulationGLM
from fastglm.io import describe_model, read_mapping, read_model
from fastglm.migration import is_nemos, read_nemos


def load_model(path: str | Path, mapping_dict: dict | None = None) -> GLM | PopulationGLM:
    """Read a model that ``save_params`` or the command line wrote, of fastglm or of NeMoS.

    Parameters
    ----------
    path : str or Path
    mapping_dict : dict, optional
        Functions and classes of the user's own, which a file has by name only:
        ``{"regularizer": MyRegularizer, "inverse_link_function": my_function}``. NeMoS pickles the
        mask of a group lasso; ``{"regularizer": lambda: GroupLasso(mask)}`` gives it again.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, is not a model, is of a newer version, has a function or class of
        the user's that is not in ``mapping_dict``, or is of NeMoS and has a pickled mask or what
        fastglm has not.

    Examples
    --------
    >>> import tempfile, fastglm
    >>> model = fastglm.GLM(regularizer="Ridge", regularizer_strength=0.1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save_params(f"{folder}/model.npz")
    ...     fastglm.load_model(f"{folder}/model.npz")
    GLM(inverse_link_function='exp', regularizer='Ridge', regularizer_strength=0.1)
    """
    classes = {"GLM": GLM, "PopulationGLM": PopulationGLM}
    data = read_npz(path, "a model", pickles=True)
    if is_nemos(data):
        return read_nemos(path, data, read_mapping(mapping_dict))
    return read_model(path, data, classes, mapping_dict)


def inspect_npz(path: str | Path) -> None:
    """Print what a file of a model holds: its class, parameters and fit.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or is not a model.
    """
    data = read_npz(path, "a model", pickles=True)
    if is_nemos(data):
        parts = [(name, value) for name, value in sorted(data.items())]
    else:
        parts = describe_model(path, data)
    width = max(len(name) for name, _ in parts) + 2
    print("\n".join(f"{name:<{width}}{value}" for name, value in parts))


__all__ = ["inspect_npz", "load_model"]
