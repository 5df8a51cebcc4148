"""The shape of the package: imports point downwards, and an import is cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fastglm

PACKAGE = Path(fastglm.__file__).parent
# From the ground up: a module may import what stands before it, and its own package.
FLOORS = (
    (
        "_absent",
        "_kernels",
        "_html",
        "_checks",
        "_files",
        "_processes",
        "_progress",
        "_pynapple",
        "pytrees",
        "features",
        "basis",
        "recordings",
    )
    + (
        "observation_models",
        "_penalty",
        "regularizer",
        "_products",
        "_algebra",
        "_engine",
        "_batches",
    )
    + (
        "_parameters",
        "_inputs",
        "_streams",
        "_fitted",
        "_effective",
        "_scores",
        "_information",
        "_remarks",
        "io",
        "simulation",
        "inference",
        "_summary",
        "model_selection",
        "diagnostics",
    )
    + ("identifiability_constraints", "convolve", "fetch", "styles", "utils", "solvers", "glm_hmm")
    + ("connectivity", "glm", "migration", "workflow", "plotting", "report")
    + ("__init__", "cli", "__main__")
)
FILES = sorted(PACKAGE.rglob("*.py"))


def home(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path):
    """Modules of the package that a file imports anywhere, late imports included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "fastglm":
            inner = node.module.split(".")[1:]
            yield from inner[:1] if inner else [a.name for a in node.names]
        elif isinstance(node, ast.Import):
            yield from ["__init__" for a in node.names if a.name.split(".")[0] == "fastglm"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    floor = FLOORS.index(home(path))
    found = {name if name in FLOORS else "__init__" for name in imported(path)}
    assert {name for name in found - {home(path)} if FLOORS.index(name) >= floor} == set()


def test_compiled_functions_live_in_one_package():
    compiled = {home(path) for path in FILES if "njit" in path.read_text()}
    assert compiled == {"_kernels"}


def test_import_needs_no_optional_package():
    code = (
        "import sys, fastglm; "
        "names = 'matplotlib click tqdm nemos jax pynapple h5py neo pynwb '"
        "'spikeinterface hdmf_zarr'; names = names.split(); "
        "print([m for m in names if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.strip() == "[]"


def test_import_leaves_what_a_fit_does_not_need():
    """The recipe and its methods load with their first use; every public name is there."""
    code = (
        "import sys, fastglm\n"
        "assert 'fastglm.workflow' not in sys.modules\n"
        "assert set(fastglm.__all__) <= set(dir(fastglm))\n"
        "assert all(hasattr(fastglm, name) for name in fastglm.__all__)\n"
        "assert not hasattr(fastglm, 'no_such_name')\n"
        "assert 'fastglm.workflow' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_module_loads_on_first_use():
    code = (
        "import sys, fastglm\n"
        "assert 'fastglm.simulation' in sys.modules or fastglm.simulation.random_network\n"
        "assert fastglm.recordings.load_spikes is fastglm.load_spikes\n"
        "names = [n for n in fastglm._MODULES if not hasattr(fastglm, n)]\n"
        "assert names == [], names\n"
        "assert {'plotting', 'report'} <= set(dir(fastglm)) - set(fastglm.__all__)\n"
        "try:\n"
        "    import matplotlib\n"
        "except ImportError:\n"
        "    sys.exit()\n"
        "assert fastglm.plotting.plot_connectivity and fastglm.report.write_report\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
