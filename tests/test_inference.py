"""Standard errors and tests against the textbook in NumPy, statsmodels and full refits."""

import naive_inference as naive
import numpy as np
import pytest
from scipy import stats

import fastglm
from fastglm import inference

N_FUNCS, N_CELLS = 3, 3


def recording(n_bins=1500, seed=0):
    """Counts, features of three senders with a covariate beside them, and the covariate."""
    rng = np.random.default_rng(seed)
    drive = rng.normal(size=n_bins)
    counts = rng.poisson(np.exp(-1.2 + 0.3 * drive[:, None]), size=(n_bins, N_CELLS))
    basis = fastglm.basis.RaisedCosineLogConv(N_FUNCS, window_size=12)
    X = fastglm.features.hstack([basis.compute_features(counts), drive[:, None]])
    return counts.astype(float), X


def dense(X, counts, j, features=slice(None)):
    """Z with the ones last, y and bins of a receiver."""
    rows = np.asarray(X)
    kept = np.isfinite(rows).all(axis=1) & np.isfinite(counts[:, j])
    z = rows[kept][:, features]
    return np.column_stack([z, np.ones(len(z))]), counts[kept, j], np.flatnonzero(kept)


def theta(model, j, features=slice(None)):
    return np.append(model.coef_[features, j], model.intercept_[j])


@pytest.mark.parametrize("kind", ["observed", "robust", "blocks"])
@pytest.mark.parametrize("link", ["exp", "softplus"])
@pytest.mark.parametrize("strength", [None, 1e-2])
def test_standard_errors_are_those_of_the_textbook(kind, link, strength):
    counts, X = recording()
    counts[100:160, 1] = np.nan
    mask = np.ones((X.shape[1], N_CELLS), bool)
    mask[3:6, 2] = False
    regularizer = {} if strength is None else {"regularizer": "Ridge"}
    model = fastglm.PopulationGLM(
        inverse_link_function=link, regularizer_strength=strength, feature_mask=mask, **regularizer
    ).fit(X, counts)
    u = inference.uncertainty(model, X, counts, kind, block_size=100)
    for j in range(N_CELLS):
        free = np.flatnonzero(mask[:, j])
        z, y, bins = dense(X, counts, j, free)
        penalty = None if strength is None else strength * np.eye(free.size)
        v = naive.covariance(z, y, theta(model, j, free), link, penalty, kind, bins // 100)
        np.testing.assert_allclose(u.standard_errors[free, j], np.sqrt(np.diag(v))[:-1], rtol=1e-6)
        np.testing.assert_allclose(u.intercept_standard_errors[j], np.sqrt(v[-1, -1]), rtol=1e-6)
        filter_ = np.flatnonzero(u.filters == 0)
        np.testing.assert_allclose(u.covariance[0][j], v[:3, :3], rtol=1e-6, atol=1e-10)
        c = model.coef_[filter_, j]
        statistic = c @ np.linalg.solve(v[:3, :3], c)
        np.testing.assert_allclose(u.wald_test().statistic[0, j], statistic, rtol=1e-5)
    assert np.isnan(u.standard_errors[3:6, 2]).all()


@pytest.mark.parametrize("kind", ["observed", "robust"])
def test_peer_statsmodels(kind):
    sm = pytest.importorskip("statsmodels.api")
    counts, X = recording(seed=1)
    model = fastglm.PopulationGLM().fit(X, counts)
    u = inference.uncertainty(model, X, counts, kind)
    for j in range(N_CELLS):
        z, y, _ = dense(X, counts, j)
        peer = sm.GLM(y, z, family=sm.families.Poisson()).fit(
            tol=1e-14, maxiter=100, cov_type="nonrobust" if kind == "observed" else "HC0"
        )
        np.testing.assert_allclose(u.standard_errors[:, j], peer.bse[:-1], rtol=1e-6)


def test_likelihood_ratio_is_that_of_two_fits():
    counts, X = recording(seed=2)
    model = fastglm.PopulationGLM().fit(X, counts)
    test = inference.likelihood_ratio_test(model, X, counts, pairs=[(1, 0)])
    z, y, _ = dense(X, counts, 0)
    small = np.delete(z, [3, 4, 5], axis=1)
    full, null = naive.newton(z, y), naive.newton(small, y)
    expected = 2 * (naive.log_likelihood(z, y, full) - naive.log_likelihood(small, y, null))
    assert test.statistic[1, 0] == pytest.approx(expected, rel=1e-6)
    assert test.p_value[1, 0] == pytest.approx(stats.chi2.sf(expected, 3), rel=1e-5)


@pytest.mark.parametrize("strength", [None, 1e-2])
def test_score_tests_of_all_pairs_are_raos(strength):
    """Every cell with the covariate only; couplings are tested without being fitted."""
    counts, X = recording(seed=3)
    counts[200:260, 1] = np.nan
    mask = np.zeros((X.shape[1], N_CELLS), bool)
    mask[-1] = True
    regularizer = {} if strength is None else {"regularizer": "Ridge"}
    model = fastglm.PopulationGLM(
        feature_mask=mask, regularizer_strength=strength, **regularizer
    ).fit(X, counts)
    test = inference.score_test(model, X, counts)
    for j in range(N_CELLS):
        z, y, _ = dense(X, counts, j)
        inside = z[:, [-2, -1]]
        penalty = None if strength is None else strength * np.eye(1)
        at = theta(model, j, [-1])
        for i in range(N_CELLS):
            extra = z[:, 3 * i : 3 * i + 3]
            expected = naive.score_statistic(inside, extra, y, at, penalty=penalty)
            assert test.statistic[i, j] == pytest.approx(expected, rel=1e-5)


def test_false_discovery_control_is_benjamini_and_hochbergs():
    p = np.random.default_rng(0).beta(0.5, 2, size=200)
    np.testing.assert_allclose(inference.benjamini_hochberg(p), naive.q_values(p), rtol=1e-12)
    np.testing.assert_allclose(
        inference.benjamini_hochberg(p), stats.false_discovery_control(p), rtol=1e-12
    )
    p[:3] = np.nan
    q = inference.benjamini_hochberg(p)
    assert np.isnan(q[:3]).all()
    np.testing.assert_allclose(q[3:], stats.false_discovery_control(p[3:]), rtol=1e-12)


def test_what_is_not_determined_is_never_a_number():
    counts, X = recording(seed=4)
    rows = np.asarray(X)[:, :4].copy()
    rows[:, 3] = rows[:, 2]  # collinear
    model = fastglm.PopulationGLM().fit(rows, counts)
    u = inference.uncertainty(model, rows, counts)
    assert np.isinf(u.standard_errors[2:]).all()
    assert np.isfinite(u.standard_errors[:2]).all()
    silent = counts.copy()
    silent[:, 1] = 0
    with pytest.warns(fastglm.glm.ConvergenceWarning, match="silent"):
        model = fastglm.PopulationGLM().fit(X, silent)
    u = inference.uncertainty(model, X, silent)
    assert np.isnan(u.standard_errors[:, 1]).all()
    assert np.isfinite(u.standard_errors[:, 0]).all()


def test_bad_input_is_refused():
    counts, X = recording(200)
    model = fastglm.PopulationGLM().fit(X, counts)
    with pytest.raises(ValueError, match="kind is 'HC3'; expected one of"):
        inference.uncertainty(model, X, counts, "HC3")
    with pytest.raises(ValueError, match="as in the fit"):
        inference.uncertainty(model, X, counts[:, :2])
    with pytest.raises(ValueError, match="numbers outside 0 to 1"):
        inference.benjamini_hochberg([0.5, 1.5])
    u = inference.uncertainty(model, X, counts)
    with pytest.raises(ValueError, match="level is 95"):
        u.bands(np.ones((12, 3)), 95)
    with pytest.raises(ValueError, match="no filter has 5 coefficients"):
        u.bands(np.ones((12, 5)))
    weighted = fastglm.PopulationGLM().fit(X, counts, sample_weight=np.ones(200) * 2)
    with pytest.raises(ValueError, match="sample_weight or offset"):
        inference.uncertainty(weighted, X, counts)
