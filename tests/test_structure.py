"""The shape of the package: imports point one way, and an import is cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fastglm

PACKAGE = Path(fastglm.__file__).parent
# What each module may import of the package at its head.
MAY_IMPORT = {
    "_kernels": set(),
    "_html": set(),
    "_threads": set(),
    "_times": set(),
    "features": {"_html", "_kernels", "_threads", "_times"},
    "_families": {"features"},
    "_composition": {"_html", "_times", "features"},
    "_leaf": {"_composition", "_families", "_times", "features"},
    "basis": {"_composition", "_families", "_leaf"},
    "_poisson": {"_kernels"},
    "_statistics": {"_kernels", "features"},
    "_names": set(),
    "_observed": {"_times", "features"},
    "_quasi_newton": {"_kernels", "_observed", "_poisson", "_threads", "features"},
    "_newton": {
        "_html",
        "_kernels",
        "_poisson",
        "_proximal",
        "_quasi_newton",
        "_statistics",
        "_threads",
        "features",
    },
    "_penalty": set(),
    "_proximal": {"_kernels", "_threads", "features"},
    "regularizer": {"_penalty", "features"},
    "simulation": {"_kernels", "_poisson", "features"},
    "_plan": {"_html", "_kernels", "_newton", "_quasi_newton", "_threads", "features"},
    "_monitor": {"_html", "_newton"},
    "glm": {
        "_monitor",
        "_names",
        "_newton",
        "_observed",
        "_plan",
        "_poisson",
        "_threads",
        "_times",
        "features",
        "regularizer",
        "simulation",
    },
    "inference": {"_html", "_kernels", "_threads"},
    "connectivity": {"_html", "inference"},
    "model_selection": {
        "_html",
        "_newton",
        "_plan",
        "_poisson",
        "_statistics",
        "_threads",
        "features",
        "glm",
        "regularizer",
    },
    "diagnostics": {"_html", "_poisson", "features", "glm", "model_selection", "simulation"},
    "_nwb": {"_times"},
    "recording": {"_html", "_times", "features"},
    "coupling": {"_times", "basis", "glm", "recording"},
    "io": {"_newton", "recording", "regularizer"},
    "plotting": set(),
    "recipe": {"_times", "basis", "connectivity", "coupling", "features", "glm", "recording"},
    "report": {
        "_newton",
        "connectivity",
        "diagnostics",
        "features",
        "glm",
        "plotting",
        "regularizer",
    },
    "migration": {"_newton", "glm", "regularizer", "simulation"},
    "cli": {"__version__"},
    "__init__": {
        "basis",
        "connectivity",
        "coupling",
        "diagnostics",
        "features",
        "glm",
        "inference",
        "io",
        "migration",
        "model_selection",
        "recipe",
        "recording",
        "regularizer",
        "simulation",
    },
}


@pytest.mark.parametrize("module", sorted(MAY_IMPORT))
def test_imports_point_one_way(module):
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    found = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "fastglm":
            inner = node.module.split(".")[1:]
            found |= set(inner) if inner else {a.name for a in node.names}
    assert found <= MAY_IMPORT[module]


def test_every_module_is_listed():
    assert {p.stem for p in PACKAGE.glob("*.py")} == set(MAY_IMPORT)


def test_compiled_functions_live_in_one_file():
    for path in PACKAGE.glob("*.py"):
        if path.stem != "_kernels":
            assert "njit" not in path.read_text()


def test_import_needs_no_optional_package():
    code = (
        "import sys, fastglm; "
        "names = 'matplotlib click tqdm nemos jax pynapple h5py'.split(); "
        "print([m for m in names if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.strip() == "[]"
