"""The answer of a fit does not depend on where a covariate's zero is."""

import numpy as np
import pytest

import fastglm
from fastglm.features import hold, hstack

FAMILIES = [
    ("Poisson", "exp"),
    ("Poisson", "softplus"),
    ("Bernoulli", "logistic"),
    ("Bernoulli", "cloglog"),
    ("Gaussian", "identity"),
]


def problem(family, n_bins=3000, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_bins, 2))
    history = fastglm.basis.RaisedCosineLogConv(3, 10).compute_features(
        rng.poisson(0.2, (n_bins, 2))
    )
    eta = x @ [[0.4, -0.3], [0.2, 0.5]] - 0.5
    y = rng.poisson(np.exp(eta))
    if family == "Bernoulli":
        y = y.clip(max=1)
    elif family == "Gaussian":
        y = eta + rng.normal(size=eta.shape)
    return history, x, y


def fit(history, columns, y, **kwargs):
    kwargs = {"regularizer": "Ridge", "regularizer_strength": 1e-3, **kwargs}
    kwargs["solver_kwargs"] = {"tol": 1e-18}
    return fastglm.PopulationGLM(**kwargs).fit(hstack([history, columns]), y)


@pytest.mark.parametrize("solver", ["newton-cholesky", "newton-cg"])
@pytest.mark.parametrize("mean", [30.0, 1e5, -1.7e9])
@pytest.mark.parametrize(("family", "link"), FAMILIES)
def test_a_column_far_from_zero(family, link, mean, solver):
    history, x, y = problem(family)
    kwargs = {"observation_model": family, "inverse_link_function": link, "solver_name": solver}
    near = fit(history, x, y, **kwargs)
    far = fit(history, x + [mean, 0], y, **kwargs)
    digits = 1e-6 + 1e-15 * abs(mean)  # of x itself
    np.testing.assert_allclose(far.coef_, near.coef_, atol=digits)
    np.testing.assert_allclose(far.objective_, near.objective_, rtol=1e-9 + 1e-15 * abs(mean))
    assert far.converged_.all()
    expected = near.intercept_ - mean * far.coef_[-2]
    np.testing.assert_allclose(far.intercept_, expected, atol=1e-6 * max(1, abs(mean)) ** 0.9)


@pytest.mark.parametrize("regularizer", ["Lasso", "ElasticNet", "GroupLasso", None])
def test_every_penalty(regularizer):
    history, x, y = problem("Poisson")
    strength = None if regularizer is None else 0.02
    kwargs = {"regularizer": regularizer, "regularizer_strength": strength}
    near = fit(history, x, y, **kwargs)
    far = fit(history, x + [1e6, -300], y, **kwargs)
    np.testing.assert_allclose(far.coef_, near.coef_, atol=1e-6)
    np.testing.assert_array_equal(far.coef_ == 0, near.coef_ == 0)


@pytest.mark.parametrize("value", [1.0, -1000.1, 1e9])
@pytest.mark.parametrize("regularizer", ["Ridge", None])
def test_a_constant_column_is_the_intercepts(regularizer, value):
    history, x, y = problem("Poisson")
    strength = None if regularizer is None else 1e-3
    kwargs = {"regularizer": regularizer, "regularizer_strength": strength}
    columns = np.column_stack([x, np.full(len(x), value)])
    model, without = fit(history, columns, y, **kwargs), fit(history, x, y, **kwargs)
    assert (model.coef_[-1] == 0).all()
    np.testing.assert_allclose(model.coef_[:-1], without.coef_, atol=1e-7)
    np.testing.assert_allclose(model.intercept_, without.intercept_, atol=1e-7)


def test_held_columns():
    history, x, y = problem("Poisson")
    slow = x[::10]
    near = fit(history, hold(slow, len(x), every=10), y)
    far = fit(history, hold(slow + [1.7e9, 0], len(x), every=10), y)
    np.testing.assert_allclose(far.coef_, near.coef_, atol=2e-6)


def test_weights_offsets_and_a_start():
    history, x, y = problem("Poisson")
    rng = np.random.default_rng(1)
    adjusted = {"sample_weight": rng.random(len(x)), "offset": rng.normal(size=y.shape)}
    kwargs = {"regularizer": "Ridge", "regularizer_strength": 1e-3}
    kwargs["solver_kwargs"] = {"tol": 1e-18}
    near = fastglm.PopulationGLM(**kwargs).fit(hstack([history, x]), y, **adjusted)
    X = hstack([history, x + [5e4, 0]])
    far = fastglm.PopulationGLM(**kwargs).fit(X, y, **adjusted)
    np.testing.assert_allclose(far.coef_, near.coef_, atol=1e-6)
    again = fastglm.PopulationGLM(**kwargs)
    again.fit(X, y, init_params=(far.coef_, far.intercept_), **adjusted)
    np.testing.assert_allclose(again.coef_, far.coef_, atol=1e-6)
    assert (again.n_iter_ <= 2).all()


def test_predictions_and_paths():
    history, x, y = problem("Poisson")
    X, shifted = hstack([history, x]), hstack([history, x + [1e6, 0]])
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-3)
    mu = model.fit(X, y).predict(X)
    np.testing.assert_allclose(model.fit(shifted, y).predict(shifted), mu, rtol=1e-5)
    path = fastglm.model_selection.regularization_path
    near, far = (path(model, matrix, y, 4) for matrix in (X, shifted))
    np.testing.assert_allclose(far.coef, near.coef, atol=1e-5)


def test_columns_near_zero_are_left_alone():
    _, x, _ = problem("Poisson")
    matrix = fastglm.features.as_feature_matrix(x)
    same, shift = matrix.centred()
    assert same is matrix
    assert not shift.any()


@pytest.mark.parametrize("kind", ["observed", "expected", "robust"])
def test_standard_errors_do_not_depend_on_the_zero(kind):
    history, x, y = problem("Poisson")
    mean = 2e7
    near, far = hstack([history, x]), hstack([history, x + [mean, 0]])
    args = {"regularizer": "Ridge", "regularizer_strength": 1e-3, "solver_kwargs": {"tol": 1e-20}}
    uncertainty = fastglm.inference.uncertainty
    ours, theirs = (
        uncertainty(fastglm.PopulationGLM(**args).fit(X, y), X, y, kind) for X in (far, near)
    )
    np.testing.assert_allclose(ours.standard_errors, theirs.standard_errors, rtol=1e-6)
    # Beside a mean so large, the intercept is as uncertain as the slope times the mean.
    expected = mean * ours.standard_errors[-2]
    np.testing.assert_allclose(ours.intercept_standard_errors, expected, rtol=1e-4)
