"""A small part of the mutated files of `fuzz_files`; any number by hand."""

import numpy as np
import pytest
from fuzz_files import KINDS, fuzz


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files_are_refused_in_a_line_or_read_right(kind):
    if kind == "nwb":
        pytest.importorskip("h5py")
    if kind == "table":
        pytest.importorskip("pandas")
    counts, failures = fuzz(kind, 40, seed=4)
    assert failures == []
    outcomes = {outcome for _, outcome in counts}
    assert outcomes == {"read", "refused"}
    assert len({how for how, _ in counts}) > 6


class Careless(KINDS["npz"]):
    """A reader as it would be without guards."""

    def read(self, path):
        with np.load(path) as archive:
            return {name: archive[name] for name in archive.files}

    def check(self, found, name):
        assert set(found) == set(self.expected)
        for key, value in found.items():
            np.testing.assert_array_equal(value, self.expected[key])


def test_a_reader_without_guards_is_found_out(monkeypatch):
    monkeypatch.setitem(KINDS, "npz", Careless)
    _, failures = fuzz("npz", 30, seed=0)
    wrong = " ".join(text for *_, text in failures)
    assert "BadZipFile" in wrong
    assert "AssertionError" in wrong
