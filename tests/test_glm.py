"""Fits: known optima, invariances, masks, every status, every path of the solver."""

import gc
import warnings
from types import SimpleNamespace

import naive_glm
import numba
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

import fastglm
from fastglm import observation_models
from fastglm._algebra import sampling
from fastglm._batches import fit as batches
from fastglm._engine import late, result, shared
from fastglm._engine.events import EventProblem
from fastglm._engine.late import LateReceivers
from fastglm._kernels import threads
from fastglm.features import hstack
from fastglm.simulation import random_network

PATHS = ("newton-cholesky", "newton-cg")
# Conjugate gradients stop at a decrement of 1e-16: sqrt(2e-16 / curvature) in a coefficient.
COEF = {"newton-cholesky": 1e-8, "newton-cg": 1e-7}


def page_features(page):
    basis = fastglm.basis.HistoryConv(window_size=10, label="spike-history")
    return basis, basis.compute_features(page)


def page_mask():
    senders = np.ones((4, 4))
    senders[0, 1] = senders[1, 0] = senders[2, 3] = 0
    return np.repeat(senders, 10, axis=0)


def small_problem(n_bins=400, n_cells=3, seed=0, rate=0.3, window_size=6):
    counts = np.random.default_rng(seed).poisson(rate, size=(n_bins, n_cells))
    basis = fastglm.basis.RaisedCosineLinearConv(3, window_size=window_size)
    return basis.compute_features(counts), counts


# --- known optima ---


def test_page_of_nemos_reaches_the_exact_optimum(page):
    basis, X = page_features(page)
    assert X.shape == (100, 40)
    assert np.nansum(np.asarray(X)) == 3312
    model = fastglm.glm.PopulationGLM().fit(X, page)
    np.testing.assert_allclose(
        model.intercept_, [-0.278410, -0.343608, 0.067354, -0.379502], atol=5e-7
    )
    assert model.score(X, page) == pytest.approx(-1.0481927719, abs=1e-9)
    mcfadden = model.score(X, page, score_type="pseudo-r2-McFadden")
    assert mcfadden == pytest.approx(0.1891803423, abs=1e-9)
    cohen = model.score(X, page, score_type="pseudo-r2-Cohen")
    assert cohen == pytest.approx(0.3863549194, abs=1e-9)
    coupling = basis.split_by_feature(model.coef_, axis=0)["spike-history"]
    assert coupling.shape == (4, 10, 4)
    expected = "-0.22488 -0.091891 0.161205 -0.174912 0.000799 -0.058324 -0.040247 -0.265012"
    np.testing.assert_allclose(
        coupling[1, :, 2],
        [*map(float, expected.split()), -0.107907, 0.105542],
        atol=5e-7,
    )
    assert model.converged_.all()
    assert (model.status_ == "converged").all()


@pytest.mark.parametrize("path", PATHS)
def test_page_agrees_with_a_textbook_newton(page, path):
    _, X = page_features(page)
    model = fastglm.PopulationGLM(solver_name=path).fit(X, page)
    rows = np.asarray(X)[10:]
    for j in range(4):
        coef, intercept = naive_glm.fit(rows, page[10:, j])
        np.testing.assert_allclose(model.coef_[:, j], coef, atol=COEF[path])
        assert model.intercept_[j] == pytest.approx(intercept, abs=COEF[path])
        best = naive_glm.objective(rows, page[10:, j], coef, intercept)
        assert model.objective_[j] == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("path", PATHS)
def test_page_with_mask(page, path):
    _, X = page_features(page)
    mask = page_mask()
    model = fastglm.PopulationGLM(feature_mask=mask, solver_name=path).fit(X, page)
    tolerance = 5e-7 if path == "newton-cholesky" else 2e-6
    np.testing.assert_allclose(
        model.intercept_, [-0.836157, -0.303321, 0.067354, -0.142521], atol=tolerance
    )
    assert model.score(X, page) == pytest.approx(-1.0941248724, abs=1e-9)
    assert (model.coef_[mask == 0] == 0).all()
    assert (model.coef_[mask == 1] != 0).all()


@pytest.mark.parametrize("path", PATHS)
def test_collinear_features_give_the_optimum_of_least_norm(page, path):
    basis = fastglm.basis.RaisedCosineLogConv(3, window_size=3)
    X = basis.compute_features(page)
    model = fastglm.PopulationGLM(solver_name=path).fit(X, page)
    rows = np.asarray(X)[3:]
    _, singular, vectors = np.linalg.svd(rows - rows.mean(axis=0))
    null = vectors[singular < 1e-10]
    assert null.shape == (4, 12)
    assert np.abs(null @ model.coef_).max() < 1e-9
    reduced = rows @ np.linalg.qr(vectors[singular > 1e-10].T)[0]
    for j in range(4):
        coef, intercept = naive_glm.fit(reduced, page[3:, j])
        best = naive_glm.objective(reduced, page[3:, j], coef, intercept)
        assert model.objective_[j] == pytest.approx(best, abs=1e-11)


@pytest.mark.parametrize("path", PATHS)
def test_exact_rates_are_recovered(path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 4))
    coef = rng.normal(size=(4, 3)) * 0.4
    intercept = np.array([-1.0, 0.0, 0.5])
    model = fastglm.PopulationGLM(solver_name=path).fit(X, np.exp(X @ coef + intercept))
    np.testing.assert_allclose(model.coef_, coef, atol=COEF[path])
    np.testing.assert_allclose(model.intercept_, intercept, atol=COEF[path])
    np.testing.assert_allclose(model.predict(X), np.exp(X @ coef + intercept), rtol=1e-5)


@pytest.mark.parametrize("path", PATHS)
def test_exact_softplus_rates_are_recovered(path):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(300, 3))
    coef, intercept = rng.normal(size=(3, 2)), np.array([-1.0, 0.3])
    rates = np.logaddexp(0, X @ coef + intercept)
    model = fastglm.PopulationGLM(inverse_link_function="softplus", solver_name=path)
    model.fit(X, rates)
    np.testing.assert_allclose(model.coef_, coef, atol=COEF[path])
    np.testing.assert_allclose(model.predict(X), rates, rtol=1e-5)


@pytest.mark.parametrize("link", ["exp", "softplus"])
@pytest.mark.parametrize("path", PATHS)
def test_gradient_vanishes_by_finite_differences(path, link):
    X, counts = small_problem()
    model = fastglm.PopulationGLM(
        inverse_link_function=link,
        regularizer="Ridge",
        regularizer_strength=0.01,
        solver_name=path,
    ).fit(X, counts)
    rows, y = np.asarray(X)[6:], counts[6:, 1]
    coef, intercept = model.coef_[:, 1], model.intercept_[1]
    step = 1e-5
    for k in range(rows.shape[1]):
        shift = step * np.eye(rows.shape[1])[k]
        up = naive_glm.objective(rows, y, coef + shift, intercept, 0.01, link)
        down = naive_glm.objective(rows, y, coef - shift, intercept, 0.01, link)
        assert abs(up - down) / (2 * step) < 1e-7
    value = naive_glm.objective(rows, y, coef, intercept, 0.01, link)
    assert model.objective_[1] == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("path", PATHS)
def test_more_features_than_bins_with_ridge(path):
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(30, 80)), rng.poisson(1.0, size=(30, 2))
    model = fastglm.PopulationGLM(
        regularizer="Ridge", regularizer_strength=0.1, solver_name=path
    ).fit(X, y)
    assert model.converged_.all()
    for j in range(2):
        coef, intercept = naive_glm.fit(X, y[:, j], 0.1)
        np.testing.assert_allclose(model.coef_[:, j], coef, atol=COEF[path])
        assert model.intercept_[j] == pytest.approx(intercept, abs=COEF[path])


def test_ridge_strength_per_receiver():
    X, counts = small_problem()
    strengths = np.array([1e-3, 0.1, 0.0])
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=strengths).fit(
        X, counts
    )
    for j, strength in enumerate(strengths):
        coef, _ = naive_glm.fit(np.asarray(X)[6:], counts[6:, j], strength)
        np.testing.assert_allclose(model.coef_[:, j], coef, atol=1e-8)


def test_the_intercept_is_not_penalised():
    X, counts = small_problem()
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e6)
    model.fit(X, counts)
    assert np.abs(model.coef_).max() < 1e-5
    np.testing.assert_allclose(np.exp(model.intercept_), counts[6:].mean(axis=0), rtol=1e-4)


# --- the certificate ---


@pytest.mark.parametrize("path", PATHS)
def test_certificate_is_what_an_independent_gradient_says(path):
    X, counts = small_problem(n_bins=600)
    ridge = 1e-3
    model = fastglm.PopulationGLM(
        regularizer="Ridge", regularizer_strength=ridge, solver_name=path
    ).fit(X, counts)
    rows = np.asarray(X)[6:]
    for j in range(3):
        y, coef, intercept = counts[6:, j], model.coef_[:, j], model.intercept_[j]
        grad, grad_intercept = naive_glm.gradient(rows, y, coef, intercept, ridge)
        norm = max(np.abs(grad).max(), abs(grad_intercept))
        assert model.grad_norm_[j] == pytest.approx(norm, abs=1e-14)
        mu = np.exp(rows @ coef + intercept)
        Z = np.column_stack([rows, np.ones(len(rows))])
        hess = (Z * mu[:, None]).T @ Z / len(y)
        hess[:-1, :-1] += ridge * np.eye(rows.shape[1])
        g = np.append(grad, grad_intercept)
        decrement = 0.5 * g @ np.linalg.solve(hess, g)
        assert decrement <= max(model.newton_decrement_[j] * 1.01, 1e-28)
        assert model.newton_decrement_[j] <= 1e-16
    result = model.solver_result_
    assert result.coef is model.coef_
    assert set(result.method) == {path}
    assert (result.n_iter >= 1).all()
    assert (result.n_passes >= result.n_iter).all()


def test_loose_tolerance_takes_fewer_steps():
    X, counts = small_problem()
    tight = fastglm.PopulationGLM(solver_name="newton-cg").fit(X, counts)
    loose = fastglm.PopulationGLM(solver_name="newton-cg", solver_kwargs={"tol": 1e-4})
    loose.fit(X, counts)
    assert loose.converged_.all()
    assert loose.n_passes_.sum() < tight.n_passes_.sum()


# --- invariances ---


@pytest.mark.parametrize("path", PATHS)
def test_a_receiver_does_not_depend_on_the_others(path):
    X, counts = small_problem(n_bins=300, n_cells=19)
    args = {"regularizer": "Ridge", "regularizer_strength": 1e-4, "solver_name": path}
    together = fastglm.PopulationGLM(**args).fit(X, counts)
    for j in (0, 7, 18):
        alone = fastglm.PopulationGLM(**args).fit(X, counts[:, [j]])
        np.testing.assert_allclose(alone.coef_[:, 0], together.coef_[:, j], atol=1e-9)
        assert alone.intercept_[0] == pytest.approx(together.intercept_[j], abs=1e-9)


@pytest.mark.parametrize("path", PATHS)
def test_permuting_receivers_permutes_results(path):
    X, counts = small_problem(n_cells=5)
    order = np.array([3, 0, 4, 2, 1])
    model = fastglm.PopulationGLM(solver_name=path).fit(X, counts)
    permuted = fastglm.PopulationGLM(solver_name=path).fit(X, counts[:, order])
    np.testing.assert_allclose(permuted.coef_, model.coef_[:, order], atol=1e-9)


@pytest.mark.parametrize("path", PATHS)
def test_a_mask_equals_dropping_the_columns(path):
    X, counts = small_problem()
    mask = np.random.default_rng(5).random((X.shape[1], 3)) < 0.5
    args = {"regularizer": "Ridge", "regularizer_strength": 1e-3, "solver_name": path}
    masked = fastglm.PopulationGLM(feature_mask=mask, **args).fit(X, counts)
    for j in range(3):
        columns = np.asarray(X)[:, mask[:, j]]
        dropped = fastglm.GLM(**args).fit(columns, counts[:, j])
        np.testing.assert_allclose(masked.coef_[mask[:, j], j], dropped.coef_, atol=COEF[path])
        assert (masked.coef_[~mask[:, j], j] == 0).all()


@pytest.mark.parametrize("path", PATHS)
def test_empty_mask_leaves_the_mean_rate(path):
    X, counts = small_problem()
    mask = np.ones((X.shape[1], 3), bool)
    mask[:, 1] = False
    # A decrement of 1e-16 leaves a rate 2e-8 off; 1e-20 leaves it 2e-10 off.
    model = fastglm.PopulationGLM(
        feature_mask=mask, solver_name=path, solver_kwargs={"tol": 1e-20}
    ).fit(X, counts)
    assert (model.coef_[:, 1] == 0).all()
    assert np.exp(model.intercept_[1]) == pytest.approx(counts[6:, 1].mean(), rel=1e-9)


def test_bins_repeated_twice_change_nothing():
    X, counts = small_problem()
    rows, y = np.asarray(X)[6:], counts[6:]
    once = fastglm.PopulationGLM().fit(rows, y)
    twice = fastglm.PopulationGLM().fit(np.vstack([rows, rows]), np.vstack([y, y]))
    np.testing.assert_allclose(once.coef_, twice.coef_, atol=1e-9)


@pytest.mark.parametrize("path", PATHS)
def test_a_matrix_that_is_stored_gives_the_same_fit(path):
    X, counts = small_problem()
    lazy = fastglm.PopulationGLM(solver_name=path).fit(X, counts)
    stored = fastglm.PopulationGLM(solver_name=path).fit(np.asarray(X), counts)
    np.testing.assert_allclose(lazy.coef_, stored.coef_, atol=COEF[path])


@pytest.mark.parametrize("path", PATHS)
def test_covariates_beside_the_history(path):
    X, counts = small_problem()
    stimulus = np.random.default_rng(8).normal(size=(len(counts), 2))
    both = np.hstack([X, stimulus])
    assert isinstance(both, fastglm.features.FeatureMatrix)
    model = fastglm.PopulationGLM(solver_name=path).fit(both, counts)
    dense = np.column_stack([np.asarray(X), stimulus])
    for j in range(3):
        coef, _ = naive_glm.fit(dense[6:], counts[6:, j])
        np.testing.assert_allclose(model.coef_[:, j], coef, atol=COEF[path])


def test_epochs_equal_separate_recordings():
    rng = np.random.default_rng(2)
    trials = [rng.poisson(0.4, size=(n, 3)) for n in (80, 55, 120)]
    basis = fastglm.basis.HistoryConv(4)
    X = basis.compute_features(trials)
    model = fastglm.PopulationGLM().fit(X, trials)
    rows = np.vstack([np.asarray(basis.compute_features(t))[4:] for t in trials])
    y = np.vstack([t[4:] for t in trials])
    for j in range(3):
        coef, _ = naive_glm.fit(rows, y[:, j])
        np.testing.assert_allclose(model.coef_[:, j], coef, atol=1e-8)


@pytest.mark.parametrize("path", PATHS)
def test_missing_counts_are_left_out_of_their_receiver_only(path):
    X, counts = small_problem()
    y = counts.astype(float)
    y[50:90, 1] = np.nan
    model = fastglm.PopulationGLM(solver_name=path).fit(X, y)
    whole = fastglm.PopulationGLM(solver_name=path).fit(X, counts)
    np.testing.assert_allclose(model.coef_[:, 0], whole.coef_[:, 0], atol=1e-9)
    kept = np.r_[6:50, 90:400]
    coef, _ = naive_glm.fit(np.asarray(X)[kept], counts[kept, 1])
    np.testing.assert_allclose(model.coef_[:, 1], coef, atol=COEF[path])


def test_label_masks_switch_blocks(page):
    a = fastglm.basis.HistoryConv(3, label="short")
    b = fastglm.basis.RaisedCosineLinearConv(4, 9, label="long")
    X = (a + b).compute_features(page, page)
    mask = {"short": [1, 0, 1, 1], "long": [0, 1, 1, 1]}
    model = fastglm.PopulationGLM(feature_mask=mask).fit(X, page)
    parts = (a + b).set_input_shape(4, 4).split_by_feature(model.coef_, axis=0)
    assert (parts["short"][..., 1] == 0).all()
    assert (parts["long"][..., 0] == 0).all()
    assert (parts["short"][..., 2] != 0).all()


@pytest.mark.parametrize("path", PATHS)
def test_starting_point_does_not_matter(path):
    X, counts = small_problem()
    args = {"regularizer": "Ridge", "regularizer_strength": 1e-2, "solver_name": path}
    model = fastglm.PopulationGLM(**args).fit(X, counts)
    rng = np.random.default_rng(0)
    start = rng.normal(size=model.coef_.shape), rng.normal(size=3)
    other = fastglm.PopulationGLM(**args).fit(X, counts, init_params=start)
    np.testing.assert_allclose(other.coef_, model.coef_, atol=COEF[path])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("size", [1e4, 30.0])
def test_a_start_that_is_worse_than_none_is_left_out(path, size):
    X, counts = small_problem()
    start = np.full((X.shape[1], 3), size), np.zeros(3)
    model = fastglm.PopulationGLM(solver_name=path)
    model.fit(X, counts, init_params=start)
    assert model.converged_.all()
    expected = fastglm.PopulationGLM(solver_name=path).fit(X, counts)
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=COEF[path])


def test_glm_is_a_population_of_one():
    X, counts = small_problem()
    one = fastglm.GLM().fit(X, counts[:, 1])
    many = fastglm.PopulationGLM().fit(X, counts)
    assert one.coef_.shape == (X.shape[1],)
    assert one.intercept_.shape == (1,)
    np.testing.assert_allclose(one.coef_, many.coef_[:, 1], atol=1e-12)
    assert one.predict(X).shape == (len(counts),)
    np.testing.assert_allclose(one.predict(X)[6:], many.predict(X)[6:, 1])
    assert np.isfinite(one.score(X, counts[:, 1]))
    drawn, rates = one.simulate(0, X)
    assert drawn.shape == rates.shape == (len(counts),)


# --- every status ---


@pytest.mark.parametrize("path", PATHS)
def test_silent_receiver_breaks_nobody(path):
    X, counts = small_problem()
    y = counts.copy()
    y[:, 1] = 0
    model = fastglm.PopulationGLM(solver_name=path)
    with pytest.warns(ConvergenceWarning, match=r"silent \(receiver 1\)") as record:
        model.fit(X, y)
    assert len(record) == 1
    assert list(model.status_) == ["converged", "silent", "converged"]
    assert (model.coef_[:, 1] == 0).all()
    assert model.intercept_[1] == observation_models.LOG_ZERO
    assert model.predict(X)[6:, 1].max() < 1e-20
    whole = fastglm.PopulationGLM(solver_name=path).fit(X, counts)
    np.testing.assert_allclose(model.coef_[:, 0], whole.coef_[:, 0], atol=1e-9)
    assert np.isfinite(model.score(X, y))


@pytest.mark.parametrize("path", PATHS)
def test_a_receiver_that_fires_in_every_bin(path):
    X, counts = small_problem()
    y = np.column_stack([np.ones(len(counts), int), counts[:, 0] + 1])
    model = fastglm.PopulationGLM(solver_name=path).fit(X, y)
    assert model.converged_.all()
    # A decrement of 1e-16 leaves eta at sqrt(2e-16): 1.4e-8.
    np.testing.assert_allclose(model.coef_[:, 0], 0, atol=1e-8)
    np.testing.assert_allclose(model.predict(X)[6:, 0], 1, atol=1e-8)


@pytest.mark.parametrize("path", PATHS)
def test_separation_sets_the_feature_to_its_limit_and_leaves_the_rest_exact(path):
    rng = np.random.default_rng(4)
    counts = rng.poisson(0.2, size=(2000, 2))
    # Cell 0 never fires in the two bins after itself.
    for t in range(1, len(counts)):
        if counts[max(0, t - 2) : t, 0].any():
            counts[t, 0] = 0
    X = fastglm.basis.HistoryConv(5).compute_features(counts)
    model = fastglm.PopulationGLM(solver_name=path)
    with pytest.warns(ConvergenceWarning, match=r"separated \(receiver 0\)"):
        model.fit(X, counts)
    assert list(model.status_) == ["separated", "converged"]
    assert model.n_iter_.max() < 15
    assert (model.coef_[:2, 0] < -40).all()
    assert np.isfinite(model.coef_).all()
    # The limit: bins in the shadow carry no information on anything else.
    rows = np.asarray(X)[5:]
    lit = rows[:, :2].sum(axis=1) == 0
    coef, intercept = naive_glm.fit(rows[lit][:, 2:], counts[5:, 0][lit])
    np.testing.assert_allclose(model.coef_[2:, 0], coef, atol=COEF[path])
    assert model.intercept_[0] == pytest.approx(intercept, abs=COEF[path])
    assert model.predict(X)[5:, 0][~lit].max() < 1e-15
    np.testing.assert_allclose(
        model.predict(X)[5:, 0][lit],
        np.exp(rows[lit][:, 2:] @ coef + intercept),
        rtol=1e-5,
    )


@pytest.mark.parametrize("path", PATHS)
def test_separation_in_a_direction_of_several_features_is_noticed(path):
    rng = np.random.default_rng(6)
    X = rng.normal(size=(300, 3))
    y = rng.poisson(1.0, size=300)
    y[X[:, 0] + X[:, 1] > 0.5] = 0
    y[np.abs(X[:, 0] + X[:, 1]) < 2] = 0  # events only where the sum is far below 0
    X[:, 0] = np.where(X[:, 0] + X[:, 1] > -2, np.abs(X[:, 0]) - X[:, 1], -X[:, 1])
    model = fastglm.PopulationGLM(solver_name=path)
    with pytest.warns(ConvergenceWarning, match="separated"):
        model.fit(X, y[:, None])
    assert model.status_[0] == "separated"
    assert np.isfinite(model.coef_).all()
    assert model.n_iter_[0] <= 60


@pytest.mark.parametrize("path", PATHS)
def test_ridge_cures_separation(path):
    rng = np.random.default_rng(4)
    counts = rng.poisson(0.2, size=(1000, 2))
    counts[1:, 0][counts[:-1, 0] > 0] = 0
    X = fastglm.basis.HistoryConv(3).compute_features(counts)
    model = fastglm.PopulationGLM(
        regularizer="Ridge", regularizer_strength=1e-4, solver_name=path
    ).fit(X, counts)
    assert (model.status_ == "converged").all()


def test_iteration_limit():
    X, counts = small_problem()
    model = fastglm.PopulationGLM(solver_kwargs={"maxiter": 1})
    with pytest.warns(ConvergenceWarning, match=r"max_iter \(receiver 0, 1, 2\)"):
        model.fit(X, counts)
    assert (model.status_ == "max_iter").all()
    assert not model.converged_.any()
    assert np.isfinite(model.coef_).all()


def test_receiver_without_any_bin():
    X, counts = small_problem()
    y = counts.astype(float)
    y[:, 2] = np.nan
    with pytest.warns(ConvergenceWarning, match=r"no_bins \(receiver 2\)"):
        model = fastglm.PopulationGLM().fit(X, y)
    assert list(model.status_) == ["converged", "converged", "no_bins"]
    assert np.isnan(model.coef_[:, 2]).all()


def test_features_that_are_always_zero_get_coefficient_zero():
    X, counts = small_problem()
    padded = np.column_stack([np.asarray(X), np.zeros(len(counts))])
    for path in PATHS:
        model = fastglm.PopulationGLM(solver_name=path).fit(padded, counts)
        assert (model.coef_[-1] == 0).all()
        assert model.converged_.all()


def test_every_status_has_a_sentence():
    for name, (sentence, *_) in result.STATUSES.items():
        assert name
        assert len(sentence) > 20


# --- predictions and scores ---


def test_predict_keeps_every_row(page):
    _, X = page_features(page)
    model = fastglm.PopulationGLM().fit(X, page)
    mu = model.predict(X)
    assert mu.shape == (100, 4)
    assert np.isnan(mu[:10]).all()
    expected = np.exp(np.asarray(X)[10:] @ model.coef_ + model.intercept_)
    np.testing.assert_allclose(mu[10:], expected, rtol=1e-12)


def test_scores_follow_their_formulas(page):
    from scipy.special import gammaln, xlogy

    _, X = page_features(page)
    model = fastglm.PopulationGLM().fit(X, page)
    mu, y = model.predict(X)[10:], page[10:]
    null = y.mean(axis=0)
    ll = xlogy(y, mu) - mu - gammaln(y + 1)
    ll0 = xlogy(y, null) - null - gammaln(y + 1)
    dev = 2 * (xlogy(y, y) - xlogy(y, mu) - y + mu)
    dev0 = 2 * (xlogy(y, y) - xlogy(y, null) - y + null)
    assert model.score(X, page) == pytest.approx(ll.mean(), abs=1e-13)
    for name, value in (
        ("pseudo-r2-McFadden", 1 - ll.mean() / ll0.mean()),
        ("pseudo-r2-Cohen", 1 - dev.mean() / dev0.mean()),
    ):
        assert model.score(X, page, score_type=name) == pytest.approx(value, abs=1e-12)

    def per_receiver(values):
        return values.mean(axis=0)

    np.testing.assert_allclose(
        model.score(X, page, aggregate_sample_scores=per_receiver),
        ll.mean(axis=0),
        atol=1e-13,
    )
    np.testing.assert_allclose(
        model.score(
            X,
            page,
            score_type="pseudo-r2-McFadden",
            aggregate_sample_scores=per_receiver,
        ),
        1 - ll.mean(axis=0) / ll0.mean(axis=0),
        atol=1e-12,
    )


def test_simulate_draws_from_the_predicted_rates():
    X, counts = small_problem(n_bins=3000)
    model = fastglm.PopulationGLM().fit(X, counts)
    drawn, rates = model.simulate(0, X)
    np.testing.assert_array_equal(rates, model.predict(X))
    assert np.isnan(drawn[:6]).all()
    again, _ = model.simulate(0, X)
    np.testing.assert_array_equal(drawn, again)
    z = (drawn[6:] - rates[6:]).mean(axis=0) / np.sqrt(rates[6:].mean(axis=0) / 2994)
    assert np.abs(z).max() < 4
    rows, _ = model.simulate(0, np.asarray(X)[6:])
    assert rows.dtype == np.int64


def test_progress_counts_every_receiver():
    X, counts = small_problem()
    y = counts.copy()
    y[:, 0] = 0
    done = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fastglm.PopulationGLM().fit(X, y, progress=done.append)
    assert sum(done) == 3


# --- memory and paths ---


def masks_of_their_own(n_bins=500, n_cells=12, density=0.15):
    """Counts, features and a mask: every receiver hears other senders, two of them the same."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.1, size=(n_bins, n_cells))
    X = fastglm.basis.RaisedCosineLinearConv(3, 10).compute_features(counts)
    heard = rng.random((n_cells, n_cells)) < density
    heard[:, 1] = heard[:, 0]
    return X, counts, np.repeat(heard, 3, axis=0)


@pytest.mark.parametrize("regularizer", ["Ridge", "matrix", "UnRegularized"])
def test_arbitrary_masks_go_through_small_problems(regularizer):
    X, counts, mask = masks_of_their_own()
    strength = {"Ridge": 1e-3, "matrix": 1e-2, "UnRegularized": None}[regularizer]
    if regularizer == "matrix":
        regularizer = fastglm.regularizer.Quadratic(np.array([[2, -1, 0], [-1, 2, -1], [0, -1, 2]]))
    args = {"regularizer": regularizer, "regularizer_strength": strength, "feature_mask": mask}
    args["solver_kwargs"] = {"tol": 1e-18}  # a coefficient is as exact as the root of the gap
    cg = fastglm.PopulationGLM(solver_name="newton-cg", **args)
    assert sum(batch.alone for batch in cg.plan(X, counts).batches) >= 10
    cg.fit(X, counts)
    exact = fastglm.PopulationGLM(solver_name="newton-cholesky", **args).fit(X, counts)
    np.testing.assert_allclose(cg.coef_, exact.coef_, atol=COEF["newton-cg"])
    assert (cg.coef_[~mask] == 0).all()


def fit_masks(X, counts, mask, **kwargs):
    model = fastglm.PopulationGLM(
        regularizer="Ridge", regularizer_strength=1e-3, feature_mask=mask, solver_name="newton-cg"
    )
    return model.fit(X, counts, **kwargs)


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="needs two threads")
def test_receivers_side_by_side_have_the_bits_of_one_after_the_other():
    X, counts, mask = masks_of_their_own(3000)
    before, found = numba.get_num_threads(), []
    try:
        for n_threads in (1, 2):
            numba.set_num_threads(n_threads)
            model = fit_masks(X, counts, mask)
            found.append(model.coef_)
    finally:
        numba.set_num_threads(before)
    np.testing.assert_array_equal(*found)
    assert numba.get_num_threads() == before


def test_an_interrupt_side_by_side_leaves_what_is_finished():
    X, counts, mask = masks_of_their_own(3000)
    whole, done = fit_masks(X, counts, mask), []

    def press(n):
        done.append(n)
        if sum(done) >= 3:
            raise KeyboardInterrupt

    half = fastglm.PopulationGLM(**whole.get_params())
    with pytest.raises(KeyboardInterrupt, match="of 12 receivers finished"):
        half.fit(X, counts, progress=press)
    finished = half.converged_
    assert 3 <= finished.sum() < 12
    np.testing.assert_array_equal(half.coef_[:, finished], whole.coef_[:, finished])
    assert (half.status_[~finished] == "interrupted").all()


def test_an_error_in_one_of_many_masks_is_raised(monkeypatch):
    X, counts, mask = masks_of_their_own()
    evaluate, calls = EventProblem.evaluate, []

    def fails(self, *args):
        calls.append(1)
        if len(calls) > 8:
            raise ZeroDivisionError
        return evaluate(self, *args)

    monkeypatch.setattr(EventProblem, "evaluate", fails)
    with pytest.raises(ZeroDivisionError):
        fit_masks(X, counts, mask)


@pytest.mark.slow
def test_chunks_and_batches_change_nothing():
    """More bins than a chunk, more receivers than a tile, blocks of rows that are not kept."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.05, size=(9000, 20))
    X = fastglm.basis.RaisedCosineLogConv(4, 30).compute_features(counts)
    args = {"regularizer": "Ridge", "regularizer_strength": 1e-5}
    cg = fastglm.PopulationGLM(solver_name="newton-cg", **args).fit(X, counts)
    exact = fastglm.PopulationGLM(solver_name="newton-cholesky", **args).fit(X, counts)
    np.testing.assert_allclose(cg.objective_, exact.objective_, atol=1e-12)
    np.testing.assert_allclose(cg.coef_, exact.coef_, atol=2e-5)
    rows = np.asarray(X)[30:]
    coef, _ = naive_glm.fit(rows, counts[30:, 3], 1e-5)
    np.testing.assert_allclose(exact.coef_[:, 3], coef, atol=1e-8)


def test_hstack_of_two_histories_fits(page):
    a = fastglm.basis.HistoryConv(3).compute_features(page[:, :2])
    b = fastglm.basis.RaisedCosineLinearConv(3, 6).compute_features(page[:, 2:])
    both = hstack([a, b])
    model = fastglm.PopulationGLM().fit(both, page)
    rows = np.asarray(both)[6:]
    coef, _ = naive_glm.fit(rows, page[6:, 0])
    np.testing.assert_allclose(model.coef_[:, 0], coef, atol=1e-8)


def test_residuals_are_what_is_left_of_the_counts():
    counts = np.random.default_rng(5).poisson(0.4, size=(300, 3)).astype(float)
    counts[50:60, 1] = np.nan
    X = fastglm.basis.RaisedCosineLogConv(3, 10).compute_features(counts)
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-2).fit(X, counts)
    mu = model.predict(X)
    left = model.residuals(X, counts)
    np.testing.assert_array_equal(left, counts - mu)
    np.testing.assert_allclose(np.nanmean(left, axis=0), 0, atol=1e-12)  # the intercept's equation
    pearson = model.residuals(X, counts, "pearson")
    np.testing.assert_allclose(pearson, (counts - mu) / np.sqrt(mu))
    deviance = model.residuals(X, counts, "deviance")
    null = np.nanmean(np.where(np.isnan(mu), np.nan, counts), axis=0)
    d0 = poisson_deviance(counts, np.where(np.isnan(mu), np.nan, null))
    explained = 1 - np.nansum(deviance**2, axis=0) / np.nansum(d0, axis=0)
    np.testing.assert_allclose(
        explained, fastglm.diagnostics.deviance_explained(model, X, counts), rtol=1e-10
    )
    one = fastglm.GLM(regularizer="Ridge", regularizer_strength=1e-2).fit(X, counts[:, 0])
    np.testing.assert_allclose(one.residuals(X, counts[:, 0]), left[:, 0], atol=1e-8)
    with pytest.raises(ValueError, match=r"kind is 'raw'; expected one of \['response'"):
        model.residuals(X, counts, "raw")
    with pytest.raises(ValueError, match=r"expected \(n_bins, n_receivers\)"):
        model.residuals(X, counts[:, :2])


def poisson_deviance(y, mu):
    with np.errstate(divide="ignore", invalid="ignore"):
        return 2 * (np.where(y > 0, y * np.log(y / mu), 0) - (y - mu)) + 0 * y


@pytest.mark.slow
def test_receivers_that_take_long_get_bins_of_their_own(monkeypatch):
    """Events in bursts: the bins that all share hold little of what a few receivers see."""
    helped = []
    factorise = LateReceivers._factorise

    def counted(self, j, index, weights):
        helped.append(int(j))
        return factorise(self, j, index, weights)

    monkeypatch.setattr(LateReceivers, "_factorise", counted)
    rng = np.random.default_rng(0)
    burst = np.repeat(rng.random(600) < 0.02, 50) * 4.5
    rates = 0.003 * np.exp(burst)[:, None] * rng.lognormal(size=12)
    counts = rng.poisson(rates, size=(30_000, 12))
    X = fastglm.basis.RaisedCosineLogConv(6, 40).compute_features(counts)

    def fit(receivers, solver_name):
        model = fastglm.PopulationGLM(
            regularizer="Ridge",
            regularizer_strength=1e-5,
            solver_name=solver_name,
            solver_kwargs={"tol": 1e-13},
        )
        return model.fit(X, counts[:, receivers])

    model = fit(slice(None), "newton-cg")
    assert 0 < len(set(helped)) < 12
    assert (model.status_ == "converged").all()
    exact = fit(slice(None), "newton-cholesky")
    # Within sqrt(2 * 1e-13 / ridge) of the optimum.
    np.testing.assert_allclose(model.coef_, exact.coef_, atol=1.5e-4)
    for j in set(helped):
        alone = fit([j], "newton-cg")
        np.testing.assert_array_equal(alone.coef_[:, 0], model.coef_[:, j])


@pytest.mark.slow
@pytest.mark.parametrize("n_senders", [4, 12])  # tiles of one receiver, and whole ones
def test_bins_of_their_own_are_drawn_by_rates(monkeypatch, n_senders):
    drawn = []
    factorise = LateReceivers._factorise

    def counted(self, j, index, weights):
        objective, lanes = self.objective, self.sample.lanes
        per_feature = index.size / objective.free.shape[0]
        drawn.append((lanes, per_feature, weights.sum() / objective.n_bins))
        return factorise(self, j, index, weights)

    monkeypatch.setattr(LateReceivers, "_factorise", counted)
    monkeypatch.setattr(late, "_FIRST", 1)
    monkeypatch.setattr(late, "_LATE", 0)
    monkeypatch.setattr(LateReceivers, "_steps_a_factor", lambda self: np.zeros(1))
    monkeypatch.setattr(sampling, "_MIN_OWN", 0)
    counts = np.random.default_rng(0).poisson(0.02, size=(30_000, 12))
    X = fastglm.basis.RaisedCosineLogConv(6, 40).compute_features(counts)
    # Two receivers each have the same senders.
    first = 2 * (np.arange(12) // 2)
    senders = (np.arange(12)[:, None] - first) % 12 < n_senders
    model = fastglm.PopulationGLM(
        regularizer="Ridge",
        regularizer_strength=1e-5,
        solver_name="newton-cg",
        feature_mask=np.repeat(senders, 6, axis=0),
        solver_kwargs={"tol": 1e-8},  # with so few bins the last digits take long
    )
    model.fit(X, counts)
    lanes, per_feature, rate = np.array(drawn).T
    assert set(lanes) == {1 if n_senders == 4 else 16}
    # Five a feature are drawn, and weighted they stand for the mean rate.
    np.testing.assert_allclose(per_feature, 5, rtol=0.4)
    np.testing.assert_allclose(rate, 0.02, rtol=0.2)


@pytest.mark.slow
def test_factors_of_own_bins_stay_within_a_tenth_of_the_memory(monkeypatch):
    monkeypatch.setattr(late, "_FIRST", 1)
    monkeypatch.setattr(late, "_LATE", 0)
    monkeypatch.setattr(LateReceivers, "_steps_a_factor", lambda self: np.zeros(1))
    monkeypatch.setattr("fastglm._engine.batch.n_own_factors", lambda n_features, memory_budget: 3)
    held = []
    assist = LateReceivers.assist

    def counted(self, *args):
        passes = assist(self, *args)
        held.append(len(self.factors))
        return passes

    monkeypatch.setattr(LateReceivers, "assist", counted)
    counts = np.random.default_rng(0).poisson(0.02, size=(30_000, 12))
    X = fastglm.basis.RaisedCosineLogConv(6, 40).compute_features(counts)
    model = fastglm.PopulationGLM(
        regularizer="Ridge", regularizer_strength=1e-5, solver_name="newton-cg"
    )
    model.fit(X, counts)
    assert max(held) == 3
    assert (model.status_ == "converged").all()
    assert 4 * 800**2 * (sampling.n_own_factors(800, 1e9) + 3) <= 1e8
    assert sampling.n_own_factors(6648, 2.2e9) == 0


@pytest.mark.slow
@pytest.mark.parametrize("most", [0, 1024])  # all threads on one factor, and a factor each
def test_late_receivers_have_the_same_bits_on_any_number_of_threads(monkeypatch, most):
    monkeypatch.setattr(late, "_FIRST", 1)
    monkeypatch.setattr(late, "_LATE", 0)
    monkeypatch.setattr(late, "_BESIDE", most)
    monkeypatch.setattr(LateReceivers, "_steps_a_factor", lambda self: np.zeros(1))
    made, factorise = [], LateReceivers._factorise
    monkeypatch.setattr(
        LateReceivers,
        "_factorise",
        lambda self, j, *drawn: made.append(j) or factorise(self, j, *drawn),
    )
    counts = np.random.default_rng(0).poisson(0.02, size=(30_000, 12))
    X = fastglm.basis.RaisedCosineLogConv(6, 40).compute_features(counts)
    model = fastglm.PopulationGLM(
        regularizer="Ridge", regularizer_strength=1e-5, solver_name="newton-cg"
    )
    found, factors = [], []
    for n_threads in (1, 3):
        monkeypatch.setattr(threads.numba, "get_num_threads", lambda n=n_threads: n)
        found.append(model.fit(X, counts).coef_)
        factors.append(sorted(made))
        made.clear()
    assert factors[0] == factors[1] != []
    np.testing.assert_array_equal(*found)


def test_a_late_receiver_draws_some_bins_for_each_feature():
    assert sampling.own_size(3000, 10**6) == 15_000  # five a feature
    assert sampling.own_size(30, 10**6) == 5000  # but not too few
    assert sampling.own_size(3000, 2000) == 2000  # and no more than there are


@pytest.mark.slow
def test_bins_of_their_own_are_not_drawn_where_steps_are_cheaper(monkeypatch):
    """A factor on 4,000 bins with 160 features costs as much as some twelve steps."""
    factorised = []
    factorise = LateReceivers._factorise

    def counted(self, j, *args):
        factorised.append((j, self.late[j]))
        return factorise(self, j, *args)

    monkeypatch.setattr(LateReceivers, "_factorise", counted)
    counts = np.random.default_rng(0).poisson(0.02, size=(4000, 20))
    X = fastglm.basis.RaisedCosineLogConv(8, 40).compute_features(counts)
    model = fastglm.PopulationGLM(
        regularizer="Ridge",
        regularizer_strength=1e-4,
        solver_name="newton-cg",
        solver_kwargs={"tol": 1e-13},
    )
    model.fit(X, counts)
    assert (model.status_ == "converged").all()
    few = len(factorised)
    assert all(steps > 6 for _, steps in factorised)
    monkeypatch.setattr(LateReceivers, "_steps_a_factor", lambda self: np.zeros(20))
    model.fit(X, counts)
    assert few < len(factorised) - few


@pytest.mark.slow
# Seeds, and features up to which the covariance is kept.
@pytest.mark.parametrize(("seed", "n_kept"), [(1, 1500), (2, 1500), (3, 10), (4, 10)])
def test_few_events_and_next_to_no_ridge_take_few_passes(monkeypatch, seed, n_kept):
    """Optima far out: filters of sender and receiver that never met are held by the ridge alone."""
    monkeypatch.setattr(shared, "_DOUBLE_SPECTRUM", n_kept)
    basis = fastglm.basis.RaisedCosineLogConv(6, 60)
    network = random_network(4, basis, bin_size=1e-3, strength=0.6, random_key=seed)
    counts = network.simulate(20_000, seed)
    X = basis.compute_features(counts)
    model = fastglm.PopulationGLM(
        regularizer="Ridge", regularizer_strength=1e-6, solver_name="newton-cg"
    )
    model.fit(X, counts)
    assert (model.status_ == "converged").all()
    assert model.n_passes_.max() <= 20


@pytest.mark.slow
def test_a_tolerance_above_the_noise_of_the_start_takes_one_pass():
    """On 3,200 of 20,000 bins a start is 160 / 3,200 * 0.02 / 2 = 5e-4 above the optimum."""
    counts = np.random.default_rng(0).poisson(0.02, size=(20_000, 20))
    X = fastglm.basis.RaisedCosineLogConv(8, 40).compute_features(counts)
    settings = {"regularizer": "Ridge", "regularizer_strength": 1e-5, "solver_name": "newton-cg"}
    best = fastglm.PopulationGLM(**settings, solver_kwargs={"tol": 1e-12}).fit(X, counts)
    loose = fastglm.PopulationGLM(**settings, solver_kwargs={"tol": 1e-2}).fit(X, counts)
    assert (loose.status_ == "converged").all()
    assert loose.n_passes_.max() == 1
    gap = loose.objective_ - best.objective_
    assert (gap > 0).all()
    assert (gap < 2e-3).all()
    assert (gap < loose.newton_decrement_).all()


@pytest.mark.slow
def test_a_fit_leaves_nothing_behind():
    """No cycle keeps a batch in memory until the garbage collector comes by."""
    counts = np.random.default_rng(0).poisson(0.1, size=(3000, 4))
    X = fastglm.basis.RaisedCosineLogConv(4, 20).compute_features(counts)
    model = fastglm.PopulationGLM(
        regularizer="Ridge", regularizer_strength=1e-4, solver_name="newton-cg"
    )
    model.fit(X, counts)  # the first call of a compiled kernel does leave one
    gc.collect()
    gc.disable()
    try:
        model.fit(X, counts)
        left = [o for o in gc.get_objects() if isinstance(o, EventProblem)]
    finally:
        gc.enable()
    assert not left


@pytest.mark.parametrize(("large", "n_collections"), [(None, 0), (0.0, 2)])
def test_garbage_is_collected_after_large_batches(monkeypatch, large, n_collections):
    """A collection takes longer than a small fit; a plan of one batch needs none."""
    calls = []
    monkeypatch.setattr(batches, "gc", SimpleNamespace(collect=lambda: calls.append(1)))
    if large is not None:
        monkeypatch.setattr(batches, "_LARGE", large)
    X, counts = small_problem()
    y = counts.astype(float)
    model = fastglm.PopulationGLM(regularizer="Ridge").fit(X, y)
    assert not calls
    y[50, 0] = np.nan  # receivers of other bins are another batch
    model.fit(X, y)
    assert len(calls) == n_collections


# --- families -----------------------------------------------------------------------------------

FAMILIES = [
    ("Poisson", "exp"),
    ("Poisson", "softplus"),
    ("Bernoulli", "logistic"),
    ("Bernoulli", "cloglog"),
    ("Gaussian", "identity"),
]


def family_problem(family, n_bins=700):
    """Features, and counts of a family with some that are not known."""
    X, counts = small_problem(n_bins=n_bins, rate=0.5)
    y = counts.astype(float)
    if family == "Bernoulli":
        y = y.clip(max=1)
    if family == "Gaussian":
        y = y - 0.5 + np.random.default_rng(1).normal(size=y.shape)
    y[100:120, 1] = np.nan
    return X, y


def distribution(family, mu, scale):
    """Of SciPy, frozen: for log likelihoods and moments."""
    from scipy import stats

    if family == "Poisson":
        return stats.poisson(mu)
    return stats.bernoulli(mu) if family == "Bernoulli" else stats.norm(mu, np.sqrt(scale))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("strength", [None, 1e-2])
@pytest.mark.parametrize(("family", "link"), FAMILIES)
def test_every_family_reaches_a_textbook_newton(family, link, strength, path):
    import naive_inference

    X, y = family_problem(family)
    mask = np.ones((9, 3), bool)
    mask[3:6, 2] = False
    regularizer = None if strength is None else "Ridge"
    model = fastglm.PopulationGLM(
        family, link, regularizer, strength, path, {"tol": 1e-20}, feature_mask=mask
    ).fit(X, y)
    assert set(model.status_) == {"converged"}
    assert not model.coef_[3:6, 2].any()
    for j in range(3):
        free, known = mask[:, j], X.valid & np.isfinite(y[:, j])
        z = np.column_stack([np.asarray(X)[known][:, free], np.ones(known.sum())])
        penalty = None if strength is None else strength * np.eye(free.sum())
        theta = naive_inference.newton(z, y[known, j], link, penalty)
        np.testing.assert_allclose(model.coef_[free, j], theta[:-1], atol=1e-7)
        assert model.intercept_[j] == pytest.approx(theta[-1], abs=1e-7)
        alone = fastglm.GLM(
            family, link, regularizer, strength, path, {"tol": 1e-20}, feature_mask=free
        ).fit(X, y[:, j])
        np.testing.assert_allclose(alone.coef_, model.coef_[:, j], atol=1e-8)
        assert alone.scale_[0] == pytest.approx(model.scale_[j], rel=1e-9)


@pytest.mark.parametrize(("family", "link"), FAMILIES)
def test_scores_of_every_family(family, link):
    """Log likelihoods are SciPy's, and the null model has the scale of the fit."""
    X, y = family_problem(family)
    model = fastglm.PopulationGLM(family, link).fit(X, y)
    mu = model.predict(X)
    null = np.broadcast_to(np.nanmean(np.where(np.isnan(mu), np.nan, y), axis=0), mu.shape)

    def log_likelihood(mu):
        given = distribution(family, mu, model.scale_)
        return given.logpdf(y) if family == "Gaussian" else given.logpmf(y)

    with np.errstate(invalid="ignore"):
        ll, ll0 = (np.where(np.isnan(mu), np.nan, log_likelihood(m)) for m in (mu, null))
    assert model.score(X, y) == pytest.approx(np.nanmean(ll), rel=1e-12)
    found = model.score(X, y, "pseudo-r2-McFadden")
    assert found == pytest.approx(1 - np.nanmean(ll) / np.nanmean(ll0), rel=1e-10)
    np.testing.assert_allclose(
        model.score(X, y, aggregate_sample_scores=lambda x: np.nanmean(x, axis=0)),
        np.nanmean(ll, axis=0),
        rtol=1e-12,
    )
    squares = model.residuals(X, y, "deviance") ** 2 * model.scale_
    null_model = fastglm.PopulationGLM(family, link, feature_mask=np.zeros((9, 3))).fit(X, y)
    null_squares = null_model.residuals(X, y, "deviance") ** 2 * null_model.scale_
    assert model.score(X, y, "pseudo-r2-Cohen") == pytest.approx(
        1 - np.nansum(squares) / np.nansum(null_squares), rel=1e-8
    )


@pytest.mark.parametrize(("family", "link"), FAMILIES)
def test_residuals_and_draws_of_every_family(family, link):
    X, y = family_problem(family, n_bins=3000)
    model = fastglm.PopulationGLM(family, link).fit(X, y)
    mu = model.predict(X)
    spread = distribution(family, mu[6:], model.scale_).std()
    left = model.residuals(X, y, "pearson")
    np.testing.assert_allclose(left[6:], (y - mu)[6:] / spread, rtol=1e-10)
    np.testing.assert_allclose(np.nanvar(left, axis=0), 1, atol=0.15)
    drawn, rates = model.simulate(3, X)
    np.testing.assert_array_equal(rates, mu)
    assert np.isnan(drawn[:6]).all()
    z = ((drawn - mu)[6:] / spread).mean(axis=0) * np.sqrt(2994)
    assert np.abs(z).max() < 4
    np.testing.assert_allclose(((drawn - mu)[6:] / spread).var(axis=0), 1, atol=0.15)
    rows, _ = model.simulate(3, np.asarray(X)[6:])
    assert rows.dtype == (np.float64 if family == "Gaussian" else np.int64)


@pytest.mark.parametrize(("family", "link"), FAMILIES)
def test_the_scale_is_that_of_the_last_fit(family, link):
    X, y = family_problem(family)
    model = fastglm.PopulationGLM(family, link, "Lasso", 1e-2).fit(X, y)
    assert model.scale_.shape == (3,)
    if family != "Gaussian":
        assert (model.scale_ == 1).all()
        return
    left = model.residuals(X, y)
    n_free = (model.coef_ != 0).sum(axis=0) + 1
    n = np.isfinite(left).sum(axis=0)
    np.testing.assert_allclose(model.scale_, np.nansum(left**2, axis=0) / (n - n_free), rtol=1e-9)
    exact = np.asarray(X)[6:] @ np.ones((9, 3)) + 1.0  # nothing is left
    assert (model.set_params(regularizer=None, regularizer_strength=None).fit(
        np.asarray(X)[6:], exact).scale_ < 1e-20).all()  # fmt: skip
    few = fastglm.PopulationGLM(family, link, "Ridge", 1e-2).fit(np.asarray(X)[6:14], y[6:14])
    assert np.isnan(few.scale_).all()  # 8 bins for 10 coefficients
