"""What blocks of features add to held-out scores, against fits with masks."""

import numpy as np
import pytest
from sklearn.model_selection import GroupKFold

import fastglm
from fastglm.basis import BSplineEval, RaisedCosineLogConv
from fastglm.diagnostics import contributions, cross_validated
from fastglm.features import hstack

N_BINS, N, N_FUNCS = 3000, 3, 3
HISTORY = RaisedCosineLogConv(N_FUNCS, 10, label="history")


@pytest.fixture(scope="module")
def data():
    """Counts of three cells that a covariate drives, with a coupling from 0 to 1."""
    rng = np.random.default_rng(0)
    position = np.sin(np.arange(N_BINS) / 30)
    counts = np.zeros((N_BINS, N))
    for t in range(N_BINS):
        drive = 1.0 * position[t] - 1.2 + np.array([0, 1.2, 0]) * counts[max(t - 1, 0), 0]
        counts[t] = rng.poisson(np.exp(drive))
    X = (HISTORY + BSplineEval(4, label="position")).compute_features(counts, position)
    return X, counts


def ridge(**given):
    return fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-3, **given)


def masks():
    """Masks that leave out coupling, own history and position."""
    own = np.repeat(np.eye(N, dtype=bool), N_FUNCS, axis=0)
    none, every = np.zeros((4, N), bool), np.ones((4, N), bool)
    return {
        "coupling": np.vstack([own, every]),
        "own history": np.vstack([~own, every]),
        "position": np.vstack([np.ones_like(own), none]),
    }


def test_gains_are_scores_less_those_of_masked_models(data):
    X, counts = data
    found = contributions(ridge(), X, counts, folds=3)
    full = cross_validated(ridge(), X, counts, folds=3)
    assert list(found.without) == list(masks())
    for name, mask in masks().items():
        rest = cross_validated(ridge(feature_mask=mask), X, counts, folds=3)
        for measure in ("bits_per_spike", "deviance_explained"):
            expected = getattr(full, measure) - getattr(rest, measure)
            np.testing.assert_allclose(found.by_fold(name, measure), expected, atol=1e-9)
            np.testing.assert_allclose(found.gain(name, measure), expected.mean(0), atol=1e-9)
    assert (found.gain("position") > 2 * found.standard_error("position")).all()
    coupling = found.gain("coupling") / found.standard_error("coupling")
    assert coupling[1] > 3 > max(coupling[[0, 2]])


def test_standard_error_takes_the_shared_bins_of_folds_into_account(data):
    X, counts = data
    found = contributions(ridge(), X, counts, folds=4)
    gains = found.by_fold("coupling")
    expected = np.sqrt((1 / 4 + 1 / 3) * ((gains - gains.mean(0)) ** 2).sum(0) / 3)
    np.testing.assert_allclose(found.standard_error("coupling"), expected, rtol=1e-12)


def test_blocks_by_label_and_by_features(data):
    X, counts = data
    left_out = masks()
    given = {
        "all": ["history", "position"],
        "place": "position",
        "first sender": np.arange(X.shape[1]) < N_FUNCS,
        "other cells": ~left_out["coupling"],
    }
    found = contributions(ridge(), X, counts, folds=3, blocks=given)
    default = contributions(ridge(), X, counts, folds=3)
    assert list(found.without) == list(given)
    np.testing.assert_array_equal(found.by_fold("place"), default.by_fold("position"))
    np.testing.assert_array_equal(found.by_fold("other cells"), default.by_fold("coupling"))
    # Without any feature a model has the score of its null model, a constant rate.
    np.testing.assert_allclose(found.without["all"].bits_per_spike, 0, atol=1e-9)
    mask = np.ones((X.shape[1], N), bool)
    mask[:N_FUNCS] = False
    rest = cross_validated(ridge(feature_mask=mask), X, counts, folds=3)
    np.testing.assert_allclose(
        found.without["first sender"].bits_per_spike, rest.bits_per_spike, atol=1e-9
    )


def test_a_mask_of_the_model_stays(data):
    X, counts = data
    own = masks()["coupling"]
    found = contributions(ridge(feature_mask=own), X, counts, folds=3)
    assert list(found.without) == ["own history", "position"]
    only = own & masks()["own history"]
    rest = cross_validated(ridge(feature_mask=only), X, counts, folds=3)
    np.testing.assert_allclose(
        found.without["own history"].bits_per_spike, rest.bits_per_spike, atol=1e-9
    )


def test_history_of_other_cells_goes_by_its_label(data):
    _, counts = data
    senders = np.random.default_rng(1).poisson(0.2, size=(N_BINS, 2))
    area = RaisedCosineLogConv(2, 10, label="other area").compute_features(senders)
    X = hstack([HISTORY.compute_features(counts), area])
    found = contributions(ridge(), X, counts, folds=3)
    assert list(found.without) == ["coupling", "own history", "other area"]


def test_a_single_receiver_and_gaussian_observations(data):
    X, counts = data
    rng = np.random.default_rng(2)
    y = 0.5 * counts[:, 0] + rng.normal(size=N_BINS)
    model = fastglm.GLM("Gaussian", regularizer="Ridge", regularizer_strength=1e-3)
    found = contributions(model, X, y, folds=3)
    assert found.measure == "deviance_explained"
    assert list(found.without) == ["history", "position"]
    assert found.gain("history").shape == (1,)


def test_weights_and_groups_reach_every_fit(data):
    X, counts = data
    weight = np.random.default_rng(3).random(N_BINS)
    given = {"sample_weight": weight, "groups": np.arange(N_BINS) // 500, "folds": GroupKFold(3)}
    found = contributions(ridge(), X, counts, **given)
    rest = cross_validated(ridge(feature_mask=masks()["position"]), X, counts, **given)
    np.testing.assert_allclose(
        found.without["position"].bits_per_spike, rest.bits_per_spike, atol=1e-9
    )


@pytest.mark.filterwarnings("ignore:separated")
def test_impossible_counts_are_left_out_of_both_scores():
    """Training excludes events where the feature is 1; bin 80 has one where it is 20."""
    X, y = np.zeros((90, 1)), np.tile([[1, 0], [0, 1]], (45, 1))
    X[1::6], y[1::6, 1] = 1.0, 0
    X[80], y[80] = 20.0, [0, 3]
    with pytest.warns(UserWarning, match="Held-out scores are minus infinity"):
        found = contributions(
            fastglm.PopulationGLM(), X, y, np.repeat([0, 1, 2], 30), blocks={"x": np.array([True])}
        )
    assert found.full.bits_per_spike[2, 1] == -np.inf
    expected = found.full.possible.bits_per_spike - found.without["x"].bits_per_spike
    np.testing.assert_array_equal(found.by_fold("x"), expected)
    assert np.isfinite(found.gain("x")).all()


def test_names_reach_the_table(data):
    pandas = pytest.importorskip("pandas")
    _, counts = data
    frame = pandas.DataFrame(counts, columns=["a", "b", "c"])
    X = HISTORY.compute_features(frame)
    found = contributions(ridge(), X, frame, folds=3)
    table = found.to_frame()
    assert table["receiver"].tolist() == ["a", "b", "c"] * 2
    assert table["block"].tolist() == ["coupling"] * 3 + ["own history"] * 3
    np.testing.assert_allclose(table["bits_per_spike_gain"][:3], found.gain("coupling"))
    assert "coupling" in repr(found)
    assert "receivers" in found._repr_html_()


@pytest.mark.parametrize(
    ("blocks", "sentence"),
    [
        ([], "expected a dict"),
        ({}, "expected a dict"),
        ({"a": "speed"}, r"names \['speed'\]; X has the labels \['history', 'position'\]"),
        ({"a": np.ones(3, bool)}, "expected a label, a list of labels, or booleans"),
        ({"a": np.ones(13)}, "type float64"),
        ({"a": np.zeros(13, bool)}, "leaves out no feature"),
    ],
)
def test_blocks_that_do_not_fit(data, blocks, sentence):
    X, counts = data
    with pytest.raises(ValueError, match=sentence):
        contributions(ridge(), X, counts, folds=3, blocks=blocks)


def test_picture_shows_every_receiver_once_a_block(data):
    plotting = pytest.importorskip("fastglm.plotting")
    X, counts = data
    found = contributions(ridge(), X, counts, folds=3)
    ax = plotting.plot_contributions(found)
    dots = [container.lines[0].get_ydata() for container in ax.containers]
    for block, shown in zip(found.without, dots, strict=True):
        np.testing.assert_array_equal(shown, np.sort(found.gain(block)))
    with pytest.raises(ValueError, match="measure"):
        plotting.plot_contributions(found, "r2")
    with pytest.raises(ValueError, match="block"):
        found.gain("speed")
