"""Couplings given position and stimulus: every form of covariate, and what it explains."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

import fastglm
from fastglm.basis import BSplineEval, HistoryConv, RaisedCosineLogConv
from fastglm.connectivity.controls import turned_rows
from fastglm.features import hold, hstack
from fastglm.recordings.bins import Bins, Grid
from fastglm.recordings.covariates import read_covariates

BIN = 0.01
SEGMENTS = np.array([[1.0, 3.0], [5.0, 7.5]])
EPOCHS = np.array([[0, 200], [200, 450]])
RNG = np.random.default_rng(0)
TIMES = np.sort(RNG.uniform(0.5, 7.4, 60))
VALUES = RNG.normal(size=(60, 2))
EVENTS = np.sort(RNG.uniform(0, 8, 40))
BINS = Bins(450, EPOCHS, Grid(SEGMENTS[:, 0], np.array([200, 250]), BIN))


def middles():
    return np.concatenate([start + (np.arange(n) + 0.5) * BIN for start, n in ((1, 200), (5, 250))])


def held(times=TIMES, values=VALUES):
    """The last sample that is not after the middle of the bin, found bin by bin."""
    longest, rows = np.diff(times).max(), []
    for t in middles():
        before = np.flatnonzero(times <= t)
        known = before.size and t <= times[-1] + longest
        rows.append(values[before[-1]] if known else np.full(values.shape[1:], np.nan))
    return np.array(rows)


def counted(times=EVENTS):
    return np.array([((times >= t - BIN / 2) & (times < t + BIN / 2)).sum() for t in middles()])


def read(covariate, bins=BINS):
    return read_covariates({"x": covariate}, bins)


def test_bins_are_as_long_as_their_times_say():
    """The given length serves where no stretch has two bins."""
    t = np.concatenate([start + (np.arange(n) + 0.5) * BIN for start, n in ((1, 200), (5, 250))])
    grid = Grid.of(SimpleNamespace(epochs=EPOCHS, t=t), 2 * BIN)
    np.testing.assert_allclose(grid.bin_size, BIN, rtol=1e-12)
    np.testing.assert_allclose(grid.starts, SEGMENTS[:, 0], rtol=1e-12)
    single = Grid.of(SimpleNamespace(epochs=np.array([[0, 1], [1, 2]]), t=t[[0, 300]]), 2 * BIN)
    assert single.bin_size == 2 * BIN
    np.testing.assert_allclose(single.starts, t[[0, 300]] - BIN)


# --- forms ---


ARRAY = RNG.normal(size=450)
SPLINES = BSplineEval(5, bounds=(-4, 4))
KERNEL = RaisedCosineLogConv(4, window_size=20)
FORMS = {
    "vector": (ARRAY, lambda: ARRAY[:, None]),
    "columns": (held(), held),
    "list of numbers": (ARRAY.tolist(), lambda: ARRAY[:, None]),
    "samples": ((TIMES, VALUES), held),
    "one sampled column": ((TIMES, VALUES[:, 0]), lambda: held()[:, :1]),
    "features": (SPLINES.compute_features(ARRAY), lambda: SPLINES.compute_features(ARRAY)),
    "basis of a vector": ((SPLINES, ARRAY), lambda: SPLINES.compute_features(ARRAY)),
    "basis of samples": ((SPLINES, (TIMES, VALUES)), lambda: SPLINES.compute_features(held())),
    "basis of held": (
        (SPLINES, hold(ARRAY[:45], 450, every=10)),
        lambda: SPLINES.compute_features(np.repeat(ARRAY[:45], 10)),
    ),
    "two inputs": (
        (SPLINES * SPLINES, (TIMES, VALUES[:, 0]), ARRAY),
        lambda: (SPLINES * SPLINES).compute_features(held()[:, 0], ARRAY),
    ),
    "convolved vector": ((KERNEL, ARRAY), lambda: KERNEL.compute_features(ARRAY, epochs=EPOCHS)),
    "convolved samples": (
        (KERNEL, (TIMES, VALUES)),
        lambda: KERNEL.compute_features(held(), epochs=EPOCHS),
    ),
    "events": ((KERNEL, [EVENTS]), lambda: KERNEL.compute_features(counted(), epochs=EPOCHS)),
    "kinds of events": (
        (KERNEL, {"left": EVENTS[::2], "right": EVENTS[1::2]}),
        lambda: KERNEL.compute_features(
            np.column_stack([counted(EVENTS[::2]), counted(EVENTS[1::2])]), epochs=EPOCHS
        ),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_covariate_is_the_matrix_made_by_hand(form):
    given, expected = FORMS[form]
    X = read(given)
    expected = np.asarray(expected())
    assert np.isfinite(expected).all(axis=1).sum() > 300
    np.testing.assert_allclose(np.asarray(X), expected, rtol=0, atol=1e-8)
    assert X.labels == ["x"]


def test_samples_stay_at_their_own_rate_and_names_stay():
    X = read((SPLINES, (TIMES, VALUES)))
    assert X.blocks[0].values.shape[0] < 65
    X = read((KERNEL, {"left": EVENTS[::2], "right": EVENTS[1::2]}))
    assert X.blocks[0].inputs.names == ["left", "right"]
    fast = np.arange(0.9, 7.6, 0.004)
    X = read((fast, np.sin(fast)))  # faster than the bins
    np.testing.assert_allclose(np.asarray(X)[:, 0], held(fast, np.sin(fast)))
    both = read_covariates({"a": ARRAY, "b": (SPLINES + KERNEL, ARRAY, ARRAY)}, BINS)
    assert both.labels == ["a", "b.BSplineEval", "b.RaisedCosineLogConv"]
    assert read_covariates(both, BINS) is both
    assert read_covariates({}, BINS) is read_covariates(None, BINS) is None


@pytest.mark.parametrize("n_before", range(4))
def test_samples_may_begin_before_the_first_bin(n_before):
    times = 1.2 + 0.4 * np.arange(-n_before, 20)
    found = np.asarray(read((times, np.arange(times.size))))
    np.testing.assert_array_equal(found[:, 0], held(times, np.arange(times.size)))


def test_objects_of_pynapple_are_their_times_and_values():
    nap = pytest.importorskip("pynapple")
    support = nap.IntervalSet([0.4, 5.1], [2.0, 7.45])
    inside = ((middles() >= 0.4) & (middles() <= 2.0)) | (middles() >= 5.1)
    kept = (TIMES <= 2.0) | (TIMES >= 5.1)
    frame = nap.TsdFrame(t=TIMES, d=VALUES, time_support=support)
    expected = held(TIMES[kept], VALUES[kept])
    expected[~inside | (middles() > 7.45)] = np.nan
    first = TIMES[TIMES >= 5.1][0]
    expected[(middles() >= 5.1) & (middles() < first)] = np.nan  # no sample of this interval yet
    np.testing.assert_array_equal(np.asarray(read(frame)), expected)
    np.testing.assert_array_equal(np.asarray(read(frame[:, 0])), expected[:, :1])
    events = np.asarray(KERNEL.compute_features(counted(), epochs=EPOCHS))
    np.testing.assert_array_equal(np.asarray(read((KERNEL, nap.Ts(EVENTS)))), events)
    group = nap.TsGroup({3: nap.Ts(EVENTS), 5: nap.Ts(EVENTS[::2])})
    X = read((KERNEL, group))
    np.testing.assert_array_equal(np.asarray(X)[:, :4], events)
    assert X.blocks[0].inputs.names == [3, 5]


def test_bins_of_a_group_and_of_its_counts_see_the_same():
    nap = pytest.importorskip("pynapple")
    support = nap.IntervalSet(SEGMENTS[:, 0], SEGMENTS[:, 1] + 0.004)
    rng = np.random.default_rng(1)
    units = nap.TsGroup(
        {k: nap.Ts(np.sort(rng.uniform(1, 7.5, 300))) for k in (2, 9)}, time_support=support
    )
    counts = units.count(BIN)
    position = nap.TsdFrame(t=TIMES, d=VALUES, columns=["x", "y"])
    given = {"place": (SPLINES, position), "cue": (KERNEL, [EVENTS])}
    model = fastglm.fit_coupling(units, BIN, 0.1, covariates=given)
    X = np.asarray(model.X_)
    assert X.shape == (450, 2 * 8 + 2 * 5 + 4)
    beside = counts.value_from(position, mode="before")
    known, rows = np.isfinite(X).all(axis=1), np.searchsorted(counts.t, beside.t)
    by_hand = np.full((450, 10), np.nan)
    by_hand[rows] = np.asarray(SPLINES.compute_features(beside.values))
    np.testing.assert_allclose(X[known, 16:26], by_hand[known], rtol=0, atol=1e-8)
    from_counts = fastglm.infer_connectivity(counts, 0.001, covariates=given, null="model")
    from_units = fastglm.infer_connectivity(units, BIN, covariates=given, null="model")
    np.testing.assert_allclose(from_counts.strength, from_units.strength, rtol=1e-6)
    np.testing.assert_allclose(
        np.asarray(from_units.model.X_)[:, -14:], X[:, -14:], rtol=0, atol=1e-12
    )


# --- fits ---


def driven(n_bins=40_000, seed=0):
    """Three cells; a stimulus drives 0 at once and 1 four bins later."""
    rng = np.random.default_rng(seed)
    stimulus = np.repeat(rng.binomial(1, 0.1, n_bins // 5), 5).astype(float)
    drive = np.column_stack([stimulus, np.roll(stimulus, 4), 0 * stimulus])
    return rng.binomial(1, 0.01 + 0.1 * drive), stimulus


def test_a_shared_stimulus_is_a_coupling_without_it_and_none_with_it():
    counts, stimulus = driven()
    without = fastglm.infer_connectivity(counts, 0.001, null="model")
    assert without.q_value[0, 1] < 1e-6
    basis = HistoryConv(6, label="kernel")
    given = fastglm.infer_connectivity(
        counts,
        0.001,
        covariates={"now": stimulus, "past": (basis, stimulus)},
        null="model",
        controls=["jittered", "reversed"],
    )
    assert not given.significant().any()
    assert given.settings["covariates"].endswith("; now (1); past (6)")
    assert given.settings["bins"] == "39,950 of 40,000 are known and used"
    assert given.controls == {"jittered": 0, "reversed": 0, "reciprocal": 0}
    kernel = given.model.coupling_map(given.model.X_, counts, label="past").coef
    assert kernel[0, :, 1].argmax() in (3, 4)  # of the stimulus on cell 1


def test_covariates_have_a_prior_without_units():
    counts, _ = driven(10_000)
    speed = np.random.default_rng(1).gamma(2, 1.0, 10_000)
    one = fastglm.infer_connectivity(counts, 0.001, covariates={"speed": speed}, null="model")
    other = fastglm.infer_connectivity(
        counts,
        0.001,
        covariates={"speed": 1e6 + 1e3 * speed, "still": np.full(10_000, 7.0)},
        null="model",
    )
    np.testing.assert_allclose(other.strength, one.strength, rtol=0, atol=2e-3)
    strength = one.model.regularizer_strength[-1]
    expected = speed[50:].std() ** 2 / 9950
    np.testing.assert_allclose(strength, expected, rtol=1e-10)


def test_a_fit_with_covariates_is_that_of_the_matrix_made_by_hand():
    rng = np.random.default_rng(2)
    units = [np.sort(rng.uniform(1, 7.5, 400)) for _ in range(3)]
    covariates = {"place": (SPLINES, (TIMES, VALUES)), "speed": ARRAY, "cue": (KERNEL, [EVENTS])}
    model = fastglm.fit_coupling(units, BIN, 0.1, epochs=SEGMENTS, covariates=covariates)
    counts = model.counts_.toarray()
    history = RaisedCosineLogConv(8, window_size=10).compute_features(counts, epochs=EPOCHS)
    X = np.hstack(
        [
            np.asarray(history),
            np.asarray(SPLINES.compute_features(held())),
            ARRAY[:, None],
            np.asarray(KERNEL.compute_features(counted(), epochs=EPOCHS)),
        ]
    )
    np.testing.assert_allclose(np.asarray(model.X_), X, rtol=0, atol=1e-8)
    by_hand = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-4).fit(X, counts)
    np.testing.assert_allclose(model.coef_, by_hand.coef_, rtol=0, atol=1e-8)
    assert model.X_.labels == ["coupling", "place", "speed", "cue"]
    whole = fastglm.fit_coupling(
        units, BIN, 0.1, epochs=SEGMENTS, covariates=read_covariates(covariates, BINS)
    )
    np.testing.assert_allclose(whole.coef_, model.coef_, rtol=0, atol=1e-10)


def test_rows_that_are_turned_with_the_cells():
    X = hstack([read((KERNEL, [EVENTS])), read((TIMES, VALUES)), ARRAY])
    turned = turned_rows(X, EPOCHS)
    expected = np.asarray(X)
    for start, stop in EPOCHS:
        expected[start:stop] = expected[start:stop][::-1].copy()
    np.testing.assert_array_equal(np.asarray(turned), expected)
    assert turned.blocks[1].values.shape[0] < 65  # still at its own rate


# --- what does not fit ---


NO_TIMES = Bins(450, EPOCHS)


@pytest.mark.parametrize(
    ("covariate", "message"),
    [
        (ARRAY[:-1], r"'x' has shape \(449,\); expected 450 rows.*\(times, values\).*\[times\]"),
        (3.0, r"'x' has shape \(\); expected 450 rows"),
        (np.zeros((450, 2, 2)), "covariate 'x': X has 3 dimensions"),
        ([EVENTS], "'x' holds times of events; expected a convolution basis before"),
        ((SPLINES, [EVENTS]), "'x' holds times of events, and BSplineEval is evaluated at values"),
        ((EVENTS, KERNEL), r"'x' has its basis after its input; expected \(basis, input\)"),
        ((KERNEL, [EVENTS + 100]), "'x' has 40 events, none in the bins, which run from 1 to 7.5"),
        ((KERNEL, [EVENTS[::-1]]), "covariate 'x': .* not ascending"),
        ((TIMES, VALUES, VALUES), "'x' is a tuple of 3; expected"),
        ((TIMES, VALUES[1:]), r"'x' has 60 times and values of shape \(59, 2\)"),
        ((TIMES[::-1], VALUES), "times of covariate 'x' are not finite and ascending"),
        ((TIMES + 50, VALUES), "'x' has samples from .* and the bins run from 1 to 7.5 s"),
        ((TIMES * 1e-3, VALUES), "same clock"),
        (np.full(450, np.nan), "'x' is known in none of the 450 bins"),
        (hold(ARRAY, 449, every=1), "'x' is a FeatureMatrix of 449 rows; expected 450"),
    ],
)
def test_a_covariate_that_does_not_fit_is_named(covariate, message):
    with pytest.raises(ValueError, match=message):
        read(covariate)


def test_a_text_is_no_covariate():
    with pytest.raises(TypeError, match="covariate 'x' could not be read as numbers"):
        read("speed")


@pytest.mark.parametrize(
    ("covariate", "message"),
    [
        ((TIMES, VALUES), "'x' has times in seconds, and the counts have no times; pass spike"),
        ((KERNEL, {"cue": EVENTS}), "'x' has times in seconds"),
        ([[0.1], [0.2, 0.3]], "'x' is a list, and the counts have no times"),
        (ARRAY[:9], re.escape("expected 450 rows, one for each bin.") + "$"),
    ],
)
def test_counts_without_times_want_rows(covariate, message):
    with pytest.raises(ValueError, match=message):
        read(covariate, NO_TIMES)
    np.testing.assert_array_equal(np.asarray(read(ARRAY, NO_TIMES))[:, 0], ARRAY)
    trials = read(np.split(ARRAY, [200]), NO_TIMES)
    np.testing.assert_array_equal(np.asarray(trials)[:, 0], ARRAY)


def test_covariates_are_a_dict_with_names_of_their_own():
    with pytest.raises(ValueError, match=r"covariates is ndarray .*; expected a dict from names"):
        read_covariates(ARRAY, BINS)
    with pytest.raises(ValueError, match="'coupling' has the label of a history"):
        read_covariates({"coupling": ARRAY}, BINS, ["coupling"])
    with pytest.raises(ValueError, match="covariates is a FeatureMatrix of 449 rows"):
        read_covariates(hold(ARRAY, 449, every=1), BINS)
