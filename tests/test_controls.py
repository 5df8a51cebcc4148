"""Recordings without synapses: what moves and what stays, and what the recipe says of them."""

import numpy as np
import pytest

import fastglm
from fastglm.connectivity.controls import (
    CONTROLS,
    false_discoveries,
    jittered,
    reciprocal,
    shifted,
    turned,
)
from fastglm.features.events import Events

EPOCHS = np.array([[0, 480], [520, 1000]])


def counts_of(seed=0):
    counts = np.random.default_rng(seed).poisson(0.1, size=(1000, 3))
    counts[480:520] = 0
    return counts


@pytest.mark.parametrize("name", CONTROLS)
def test_every_count_stays_in_its_epoch(name):
    counts = counts_of()
    moved = CONTROLS[name](Events.of(counts), EPOCHS, 0.001).toarray()
    for start, stop in EPOCHS:
        np.testing.assert_array_equal(moved[start:stop].sum(axis=0), counts[start:stop].sum(axis=0))
    assert moved.sum() == counts.sum()
    assert (moved != counts).any()


def test_jitter_keeps_counts_of_windows():
    counts = counts_of()
    moved = jittered(Events.of(counts), EPOCHS, 0.001).toarray()
    for start, stop in EPOCHS:
        for low in range(start, stop, 50):
            part = slice(low, min(low + 50, stop))
            np.testing.assert_array_equal(moved[part].sum(axis=0), counts[part].sum(axis=0))
    other = jittered(Events.of(counts), EPOCHS, 0.001, seed=1).toarray()
    assert (other != moved).any()


def test_a_shift_is_one_of_each_cell():
    counts = counts_of()
    moved = shifted(Events.of(counts), EPOCHS, 0.001).toarray()
    by = set()
    for start, stop in EPOCHS:
        for unit in range(3):
            train, after = counts[start:stop, unit], moved[start:stop, unit]
            fits = [k for k in range(stop - start) if np.array_equal(np.roll(train, k), after)]
            assert len(fits) == 1
            assert 48 <= fits[0] <= 432
            by.add((unit, fits[0]))
    assert len(by) == 3


def test_time_runs_backwards_in_each_epoch():
    counts = counts_of()
    moved = turned(Events.of(counts), EPOCHS, 0.001).toarray()
    for start, stop in EPOCHS:
        np.testing.assert_array_equal(moved[start:stop], counts[start:stop][::-1])
    # What is found both ways in the data may be found both ways again.
    found = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0]], bool)
    assert false_discoveries("reversed", found, found) == 1
    assert false_discoveries("jittered", found, found) == 3
    assert reciprocal(found, found) == 2


def test_outside_epochs_and_unknown_counts():
    counts = counts_of()
    counts[490, 0] = 5
    assert jittered(Events.of(counts), EPOCHS, 0.001).amplitudes.sum() == counts.sum() - 5
    unknown = counts.astype(float)
    unknown[3, 1] = np.nan
    with pytest.raises(ValueError, match="leave controls out"):
        shifted(Events.of(unknown), EPOCHS, 0.001)


def test_the_recipe_counts_what_controls_find():
    rng = np.random.default_rng(0)
    counts = rng.binomial(1, 0.03, size=(20_000, 15))
    counts[3:, 1] |= counts[:-3, 0] & rng.binomial(1, 0.6, size=19_997)
    family = {"observation_model": "Bernoulli", "inverse_link_function": "cloglog"}
    found = fastglm.infer_connectivity(counts, 0.001, controls=tuple(CONTROLS), **family)
    assert found.significant().sum() == 1
    assert found.controls == {"jittered": 0, "shifted": 0, "reversed": 0, "reciprocal": 0}
    assert "1 in the data: jittered 0, shifted 0, reversed 0" in found.settings["controls"]
    with pytest.raises(ValueError, match="control is 'other'; expected one of"):
        fastglm.infer_connectivity(counts, 0.001, controls=["other"])


def test_a_control_that_finds_as_much_is_a_warning():
    """Drive of 200 ms that raises two cells and lowers two, and too few cells for a null."""
    rng = np.random.default_rng(1)
    drive = np.repeat(rng.choice([0.0, 0.1], size=200), 200)
    counts = rng.binomial(1, np.column_stack([drive, drive, 0.1 - drive, 0.1 - drive]))
    with pytest.warns(UserWarning, match="jittered: as many couplings as in the data"):
        found = fastglm.infer_connectivity(counts, 0.001, controls=["jittered"])
    assert found.controls["jittered"] >= found.significant().sum()


def test_what_is_found_among_impossible_pairs():
    """They are fitted as all others; a warning says when they are found as often."""
    rng = np.random.default_rng(0)
    counts = rng.binomial(1, 0.02, size=(20_000, 3))
    counts[3:, 1] += counts[:-3, 0] * rng.binomial(1, 0.5, size=19_997)
    impossible = np.zeros((3, 3), dtype=bool)
    impossible[2] = True
    found = fastglm.infer_connectivity(counts, 0.001, null="model", impossible=impossible)
    assert found.controls == {"impossible": 0}
    assert "impossible 0 of 2 such pairs" in found.settings["controls"]
    assert np.isfinite(found.p_value[2]).all()
    impossible[0, 1] = True
    with pytest.warns(UserWarning, match="impossible pairs: couplings are found as often as among"):
        again = fastglm.infer_connectivity(counts, 0.001, null="model", impossible=impossible)
    assert again.controls == {"impossible": 1}
    np.testing.assert_array_equal(again.p_value, found.p_value)
    with pytest.raises(ValueError, match=r"impossible has shape \(2, 2\) .* expected booleans"):
        fastglm.infer_connectivity(counts, 0.001, impossible=np.zeros((2, 2), bool))
