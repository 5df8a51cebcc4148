"""Drift, activity without the receiver, and factors of residuals."""

import numpy as np
import pytest

import fastglm
from fastglm.connectivity import population_activity, residual_factors, slow_drift
from fastglm.features.events import Events

COUNTS = np.random.default_rng(0).poisson(0.05, size=(6000, 4))


def filtered(train, tau):
    """sum over lags of exp(-(lag - 1) / tau), lag by lag."""
    out = np.zeros(train.size)
    for t in range(1, train.size):
        out[t] = out[t - 1] * np.exp(-1 / tau) + train[t - 1]
    return out


def test_drift_is_splines_of_time_at_their_own_rate():
    X = slow_drift(90_000, 0.01, timescale=100.0)
    values = np.asarray(X)
    assert X.shape == (90_000, 12)  # nine spans
    np.testing.assert_allclose(values.sum(axis=1), 1, rtol=1e-12)
    exact = fastglm.basis.BSplineEval(12, bounds=(0, 90_000)).evaluate(np.arange(90_000) + 0.5)
    assert np.abs(values - exact).max() < 0.1  # a twentieth of a span
    assert X.blocks[0].values.shape[0] == 180
    assert (values > 0).sum(axis=1).max() == 4
    assert slow_drift(7, 1.0, timescale=60).shape == (7, 4)
    for wrong in (0.5, "x"):
        with pytest.raises(ValueError, match=r"timescale is .*; expected seconds, at least two"):
            slow_drift(100, 1.0, wrong)


def test_activity_and_own_activity_are_filters_of_the_past():
    X, mask = population_activity(COUNTS, 0.001, timescales=(0.01, 0.2))
    assert X.labels == ["activity_10", "own_activity_10", "activity_200", "own_activity_200"]
    values = np.asarray(X)
    known = np.isfinite(values).all(axis=1)
    fast = np.column_stack([filtered(train, 10.0) for train in COUNTS.T])
    for column, expected in zip(range(1, 5), fast.T, strict=True):
        r = np.corrcoef(values[known, column], expected[known])[0, 1]
        assert r > 1 - 1e-4  # cut after 50 bins
    r = np.corrcoef(values[known, 0], fast.sum(axis=1)[known])[0, 1]
    assert r > 1 - 1e-4
    slow = np.column_stack([filtered(train, 200.0) for train in COUNTS.T])
    for column, expected in zip(range(6, 10), slow.T, strict=True):
        assert np.corrcoef(values[2000:, column], expected[2000:])[0, 1] > 0.8  # held for 50 bins
    np.testing.assert_allclose(values[known][:, 5:].std(axis=0), 1, rtol=0.05)
    np.testing.assert_array_equal(mask[[0, 5]], np.ones((2, 4), bool))
    np.testing.assert_array_equal(mask[1:5], np.eye(4, dtype=bool))
    np.testing.assert_array_equal(mask[6:], np.eye(4, dtype=bool))


@pytest.mark.parametrize("timescale", [0.01, 0.2])
def test_the_two_columns_hold_the_activity_of_the_others(timescale):
    X, mask = population_activity(COUNTS, 0.001, timescales=[timescale])
    values = np.asarray(X)
    known = np.isfinite(values).all(axis=1)
    for j in range(4):
        others = COUNTS.copy()
        others[:, j] = 0
        column = np.asarray(population_activity(others, 0.001, timescales=[timescale])[0])[:, 0]
        own = np.column_stack([values[:, mask[:, j]], np.ones(6000)])[known]
        assert own.shape[1] == 3
        rest = np.linalg.lstsq(own, column[known], rcond=None)[1]
        assert rest < 1e-18 * known.sum()


def test_activity_of_epochs_and_of_events_and_without_any():
    epochs = [[0, 2500], [3000, 6000]]
    X, _ = population_activity(COUNTS, 0.001, epochs=epochs)
    events, _ = population_activity(Events.of(COUNTS), 0.001, epochs=epochs)
    np.testing.assert_array_equal(np.asarray(X), np.asarray(events))
    assert not X.valid[2500:3000].any()
    with pytest.raises(ValueError, match="counts hold no event"):
        population_activity(0 * COUNTS, 0.001)


def test_factors_are_those_of_the_residuals_of_the_others():
    basis = fastglm.basis.RaisedCosineLogConv(2, window_size=10)
    X = basis.compute_features(COUNTS, epochs=[[0, 2990], [3000, 6000]])
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-3).fit(X, COUNTS)
    factors, mask = residual_factors(model, X, COUNTS, 0.001, 2, width=0.03, smoothing=0)
    mu = model.predict(X)
    table = np.zeros((200, 4))
    for w in range(200):
        rows = np.arange(30 * w, 30 * w + 30)
        rows = rows[X.valid[rows]]
        table[w] = (COUNTS[rows] - mu[rows]).sum(axis=0) / np.sqrt(mu[rows].sum(axis=0))
    table -= table.mean(axis=0)
    axes = np.linalg.svd(table, full_matrices=False)[2][:2].T
    values = np.asarray(factors)[::30].reshape(200, 4, 2)
    for j in range(4):
        others = np.delete(table, j, axis=1) @ np.delete(axes, j, axis=0)
        r = [np.corrcoef(values[:, j, f], others[:, f])[0, 1] for f in range(2)]
        np.testing.assert_allclose(np.abs(r), 1, rtol=1e-9)
    np.testing.assert_allclose(values.std(axis=0), 1)
    np.testing.assert_array_equal(mask, np.repeat(np.eye(4, dtype=bool), 2, axis=0))
    assert factors.filters.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    with pytest.raises(ValueError, match="n_factors is 4; expected fewer than the 4 cells"):
        residual_factors(model, X, COUNTS, 0.001, 4)
    with pytest.raises(ValueError, match=r"width is 0\.0001; expected at least one bin"):
        residual_factors(model, X, COUNTS, 0.001, width=0.0001)
