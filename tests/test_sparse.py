"""Sandwich covariances of sparse cells: p-values hold, and many events leave them as they are."""

import numpy as np
import pytest

import fastglm
from fastglm import _effective, inference

SECONDS, BIN = 600.0, 0.005


@pytest.fixture(scope="module")
def sparse():
    """Ten independent Poisson cells at 0.03 to 19 Hz."""
    rng = np.random.default_rng(5)
    rates = np.exp(np.linspace(np.log(0.03), np.log(19), 10))
    units = [np.sort(rng.uniform(0, SECONDS, rng.poisson(r * SECONDS))) for r in rates]
    model = fastglm.fit_coupling(units, BIN, t_start=0, t_stop=SECONDS)
    return model, np.array([t.size for t in units])


def p_values(model, kind):
    u = inference.uncertainty(model, model.X_, model.counts_, kind)
    n = len(u.covariance)
    return u.wald_test().p_value[~np.eye(n, dtype=bool)], u


@pytest.mark.parametrize("kind", inference.KINDS)
def test_pairs_without_a_coupling_are_seldom_significant(sparse, kind):
    model, events = sparse
    p, u = p_values(model, kind)
    assert events.min() < 30
    assert events.max() > 10_000
    assert np.isfinite(p).all()
    assert (p < 0.05).mean() <= 0.07
    assert np.isfinite(u.standard_errors).all()


@pytest.mark.parametrize("kind", inference.SANDWICHES)
def test_a_sandwich_alone_finds_what_is_not_there(sparse, kind, monkeypatch):
    model, events = sparse
    held, _ = p_values(model, kind)
    monkeypatch.setattr(_effective, "ENOUGH", 0)
    bare, _ = p_values(model, kind)
    few = np.maximum.outer(events, events)[~np.eye(10, dtype=bool)] < 600
    assert (bare[few] < 0.05).mean() > 0.5
    assert (held[few] < 0.05).mean() == 0


def test_effective_events_are_the_coincidences_of_chance(sparse):
    """Of one bin: events of both over the bins, for a function of one lag."""
    model, events = sparse
    _, u = p_values(model, "robust")
    assert model.basis_.kernel_[:, 0].tolist() == [1.0] + [0.0] * 19
    chance = np.outer(events, events) * BIN / SECONDS
    few = (events[:, None] < 600) & (events < 600)
    np.testing.assert_allclose(u.effective_events[::8][few], chance[few], rtol=0.3)


def test_the_result_says_for_how_many_coefficients_events_are_few(sparse):
    model, _ = sparse
    _, u = p_values(model, "robust")
    few = int((u.effective_events < _effective.ENOUGH).sum())
    assert 0 < few < u.coef.size
    assert f"{few:,} of 800 coefficients have fewer than 30 effective events" in repr(u)
    _, u = p_values(model, "observed")
    assert u.effective_events is None
    assert "effective" not in repr(u)


def test_a_direction_in_which_features_cancel_is_not_tested_against_rounding(sparse):
    """At 5 ms the second function is half the first within one bin, and rounding beyond it."""
    model, _ = sparse
    _, u = p_values(model, "robust")
    direction = np.array([[-1.0, 2.0, 0, 0, 0, 0, 0, 0]])
    kernel = model.basis_.kernel_ @ direction[0]
    assert np.abs(kernel[0]) < 1e-15
    for g in range(10):
        value, error = u.linear(g, direction)
        assert (np.abs(value) < 3 * error + 1e-6).all()


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_many_events_leave_the_sandwich_as_it_is(factor, monkeypatch):
    """Counts twice or half as variable as Poisson ones, which "robust" is for."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(4000, 3))
    mu = np.exp(0.2 * X[:, :1] + 0.5)
    n = np.round(2 * mu).astype(int)
    y = rng.negative_binomial(mu, 0.5) if factor > 1 else rng.binomial(n, 0.5)
    model = fastglm.PopulationGLM().fit(X, y)
    robust, model_based = (
        inference.uncertainty(model, X, y, kind) for kind in ("robust", "observed")
    )
    assert (robust.effective_events > 2 * _effective.ENOUGH).all()
    ratio = (robust.standard_errors / model_based.standard_errors) ** 2
    np.testing.assert_allclose(ratio, factor, rtol=0.25)
    monkeypatch.setattr(_effective, "ENOUGH", 0)
    bare = inference.uncertainty(model, X, y, "robust")
    np.testing.assert_array_equal(bare.standard_errors, robust.standard_errors)


def test_where_a_feature_is_zero_does_not_change_its_effective_events():
    rng = np.random.default_rng(2)
    x = (rng.random((3000, 2)) < 0.01).astype(float)
    y = rng.poisson(0.05, size=(3000, 1))
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-3)
    found = [
        inference.uncertainty(model.fit(x + shift, y), x + shift, y, "robust")
        for shift in (0.0, 3.0)
    ]
    assert (found[0].effective_events < _effective.ENOUGH / 2).all()
    np.testing.assert_allclose(found[0].effective_events, found[1].effective_events, rtol=1e-6)
    np.testing.assert_allclose(found[0].standard_errors, found[1].standard_errors, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_weights_that_are_no_counts_go_with_blocks_at_any_scale(scale):
    rng = np.random.default_rng(3)
    x, weight = rng.normal(size=(600, 2)), rng.uniform(0.5, 1.5, 600)
    y = rng.poisson(0.1, size=(600, 1))
    found = []
    for given in (weight, scale * weight):
        model = fastglm.PopulationGLM().fit(x, y, sample_weight=given)
        found.append(inference.uncertainty(model, x, y, "blocks", 30, sample_weight=given))
    assert (found[0].effective_events < _effective.ENOUGH).all()
    np.testing.assert_allclose(found[0].effective_events, found[1].effective_events, rtol=1e-6)
    np.testing.assert_allclose(found[0].standard_errors, found[1].standard_errors, rtol=1e-6)


def test_chunks_of_bins_do_not_cut_blocks(monkeypatch):
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(1000, 2)), rng.poisson(0.1, size=(1000, 2))
    model = fastglm.PopulationGLM().fit(x, y)
    whole = inference.uncertainty(model, x, y, "blocks", 70)
    monkeypatch.setattr("fastglm._fitted._ROWS", 97)
    parts = inference.uncertainty(model, x, y, "blocks", 70)
    np.testing.assert_allclose(whole.effective_events, parts.effective_events, rtol=1e-12)
