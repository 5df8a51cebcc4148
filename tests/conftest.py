import os

import numpy as np
import pytest


def pytest_collection_modifyitems(items):
    """In pure Python the heavy tests would take minutes and cover nothing more."""
    if os.environ.get("NUMBA_DISABLE_JIT", "0") == "1":
        skip = pytest.mark.skip(reason="heavy in pure Python")
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(skip)


@pytest.fixture
def page():
    """Counts of the coupling page of NeMoS's documentation."""
    return np.random.RandomState(42).poisson(size=(100, 4))
