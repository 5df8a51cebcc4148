"""Choices of the one call: window, basis, own history, mask and penalty."""

import numpy as np
import pytest

import fastglm
from fastglm.basis import BSplineConv, BSplineEval, RaisedCosineLogConv
from fastglm.features import hstack


def three(n_bins=8000, seed=0):
    """Three cells: 0 drives 1 after 3 bins."""
    rng = np.random.default_rng(seed)
    counts = rng.binomial(1, 0.05, size=(n_bins, 3))
    counts[3:, 1] |= counts[:-3, 0] & rng.binomial(1, 0.4, size=n_bins - 3)
    return counts


COUNTS = three()


def infer(**choices):
    return fastglm.infer_connectivity(COUNTS, 0.001, null="model", **choices)


@pytest.fixture(scope="module")
def default():
    return infer()


def test_what_is_not_given_is_as_before_bit_by_bit(default):
    basis = RaisedCosineLogConv(6, window_size=50, label="coupling")
    for same in (
        infer(window=0.05),
        infer(basis=basis),
        infer(mask=np.ones((3, 3))),
        infer(regularizer=fastglm.regularizer.Ridge(), covariates={}),
    ):
        np.testing.assert_array_equal(same.strength, default.strength)
        np.testing.assert_array_equal(same.p_value, default.p_value)
    assert set(default.settings) == {
        *("bin size", "window", "basis", "covariates", "observations", "penalty", "strength"),
        *("uncertainty", "null", "channels", "synchrony"),
    }


def test_window_and_basis_are_chosen(default):
    short = infer(window=0.02)
    assert short.settings["window"] == "20 ms (20 bins)"
    assert short.kernel.shape == (20, 6)
    splines = infer(basis=BSplineConv(5, window_size=30))
    assert splines.settings["basis"] == "5 BSplineConv"
    assert splines.significant().sum() == default.significant().sum() == 1
    assert splines.model.X_.labels[0] == "BSplineConv"


def test_the_own_history_has_a_window_and_a_basis_of_its_own(default):
    given = infer(own_window=0.2, window=0.03)
    X, n = given.model.X_, 8000
    assert X.labels[:2] == ["coupling", "own history"]
    assert given.settings["own history"] == "200 ms (200 bins), 6 raised cosines in log time"
    assert given.own_history.diagonal().all()
    assert given.absent.diagonal().all()
    assert np.argwhere(given.significant()).tolist() == [[0, 1]]
    assert given.significant().sum() == 1
    # The same by hand: two histories and a mask.
    population = RaisedCosineLogConv(6, 30, label="coupling").compute_features(COUNTS)
    own = RaisedCosineLogConv(6, 200, label="own history").compute_features(COUNTS)
    np.testing.assert_array_equal(
        np.asarray(X)[250:, :36], np.asarray(hstack([population, own]))[250:]
    )
    mask = np.ones((X.shape[1], 3), bool)
    mask[:18] = np.repeat(~np.eye(3, dtype=bool), 6, axis=0)
    mask[18:36] = np.repeat(np.eye(3, dtype=bool), 6, axis=0)
    np.testing.assert_array_equal(given.model.feature_mask, mask)
    area = population.blocks[0].kernel.sum(axis=0)
    strength = given.model.regularizer_strength * X.valid.sum()
    np.testing.assert_allclose(strength[6:12, 0], (area / area.mean()) ** 2 / 0.04)
    np.testing.assert_allclose(strength[18:24, 0], 1.0)
    itself = given.model.coupling_map(X, COUNTS, label="own history")
    assert np.isfinite(itself.strength.diagonal()).all()
    np.testing.assert_array_equal(np.isnan(itself.standard_error), ~np.eye(3, dtype=bool))
    assert n - X.valid.sum() == 200


def test_own_history_of_spike_times():
    times = [(np.flatnonzero(column) + 0.5) * 1e-3 for column in COUNTS.T]
    model = fastglm.fit_coupling(
        dict(zip("abc", times, strict=True)), 0.001, 0.03, t_stop=8.0,
        own_basis=RaisedCosineLogConv(5, window_size=100), mask=~np.eye(3, k=1, dtype=bool),
    )  # fmt: skip
    assert model.X_.shape == (8000, 3 * 8 + 3 * 5)
    blocks = model.coef_[:24].reshape(3, 8, 3), model.coef_[24:].reshape(3, 5, 3)
    fitted = [np.abs(block).sum(axis=1) > 0 for block in blocks]
    np.testing.assert_array_equal(fitted[1], np.eye(3, dtype=bool))
    np.testing.assert_array_equal(fitted[0], ~np.eye(3, dtype=bool) & ~np.eye(3, k=1, dtype=bool))
    couplings = model.coupling_map(model.X_, model.counts_)
    assert couplings.senders.tolist() == ["a", "b", "c"]
    own = model.coupling_map(model.X_, model.counts_, label="own history")
    assert own.senders.tolist() == ["a", "b", "c"]


def test_couplings_that_the_mask_leaves_out_are_not_fitted():
    mask = np.ones((3, 3), int)
    mask[0, 2] = mask[2, 1] = 0
    given = infer(mask=mask, controls=["shifted"])
    assert given.settings["couplings"] == "7 of 9 are fitted"
    np.testing.assert_array_equal(given.absent, mask == 0)
    np.testing.assert_array_equal(np.isfinite(given.q_value), (mask > 0) & ~np.eye(3, dtype=bool))
    assert given.controls == {"shifted": 0}


def test_penalties_are_chosen():
    weak = infer(regularizer_strength=1e-6)
    assert weak.settings["penalty"] == "Ridge, strength 1e-06"
    none = infer(regularizer=None)
    assert none.settings["penalty"] == "none"
    np.testing.assert_allclose(none.strength, weak.strength, rtol=0.05, atol=0.05)
    lasso = fastglm.infer_connectivity(
        COUNTS, 0.001, regularizer="Lasso", regularizer_strength=1e-3
    )
    assert "after Lasso" in lasso.settings["null"]
    with pytest.raises(ValueError, match="regularizer is 'Lasso' without regularizer_strength"):
        infer(regularizer="Lasso")


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"window": 0.0001}, "window is 0.0001; expected at least one bin"),
        ({"own_window": "x"}, "own_window is 'x'; expected at least one bin"),
        ({"own_window": 0.001}, r"own_window of one bin .*own_basis=fastglm"),
        ({"basis": BSplineEval(5)}, "basis is .*; expected a convolution basis"),
        ({"own_basis": 3}, "own_basis is 3; expected a convolution basis"),
        (
            {"own_basis": RaisedCosineLogConv(4, 20), "own_window": 0.03},
            "own_window is 0.03 s, 30 bins .* window_size=20; leave own_window out",
        ),
        (
            {"basis": RaisedCosineLogConv(4, 20, conv_kwargs={"shift": False})},
            "expected a basis that sees earlier bins only",
        ),
        ({"mask": np.ones((2, 3))}, r"mask has shape \(2, 3\); expected .* = \(3, 3\)"),
        ({"mask": np.full((3, 3), 0.5)}, "mask holds other values than 0 and 1"),
        ({"covariates": {"coupling": COUNTS[:, 0]}}, "'coupling' has the label of a history"),
    ],
)
def test_choices_that_do_not_fit_are_refused(choices, message):
    with pytest.raises(ValueError, match=message):
        infer(**choices)


def test_two_masks_are_one_too_many():
    times = [(np.flatnonzero(column) + 0.5) * 1e-3 for column in COUNTS.T]
    with pytest.raises(ValueError, match="feature_mask goes without mask, own_window"):
        fastglm.fit_coupling(times, 0.001, mask=np.ones((3, 3)), feature_mask=np.ones((24, 3)))
