import contextlib
import gc
import os
import sys
import warnings

import hypothesis
import numpy as np
import pytest


def pytest_configure(config):
    """With FASTGLM_STRICT=1, as in CI, a deprecated call of our own is an error.

    Python blames the module whose line made the call. A filter in a file is a regular expression;
    one of the command line, ``-W``, names a single module and would miss ``fastglm.glm``.
    """
    if os.environ.get("FASTGLM_STRICT", "0") == "1":
        for kind in ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning"):
            config.addinivalue_line("filterwarnings", f"error::{kind}:(fastglm|test_|naive)")
    # Workers compile side by side; processes that compile ahead would share their cores.
    os.environ.setdefault("FASTGLM_COMPILE_AHEAD", "0")


def pytest_collection_modifyitems(items):
    """In pure Python the heavy tests would take minutes and cover nothing more."""
    if os.environ.get("NUMBA_DISABLE_JIT", "0") == "1":
        skip = pytest.mark.skip(reason="heavy in pure Python")
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(skip)


def pytest_collection_finish():
    """The garbage collector no longer visits what was imported: a visit takes a second.

    At its first example hypothesis looks for what refers to the random numbers of NumPy, by the
    collector. So it has one before.
    """
    hypothesis.find(hypothesis.strategies.booleans(), bool)
    gc.collect()
    gc.freeze()


@pytest.fixture
def page():
    """Counts of the coupling page of NeMoS's documentation."""
    return np.random.RandomState(42).poisson(size=(100, 4))


@pytest.fixture(scope="module")
def dask():
    """A client with two workers, processes of one thread."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module", autouse=True)
def _settled_modules():
    """At its first draw hypothesis reads ``__file__`` of every module in memory.

    Lazy modules, such as neo behind NeMoS, are imported by that: inside a strategy, where they
    draw random numbers, which hypothesis forbids.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in list(sys.modules.values()):
            with contextlib.suppress(Exception):
                _ = module.__file__
