"""The answer of a fit does not depend on where a covariate's zero is."""

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

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


@pytest.mark.parametrize("apart", [1e-5, 1e-8])
@pytest.mark.parametrize("solver", ["auto", "newton-cg"])
@pytest.mark.parametrize(("family", "link"), FAMILIES)
def test_nearly_collinear_columns_are_two_features(family, link, solver, apart):
    _, x, y = problem(family, 1000)
    mixed = np.column_stack([x[:, 0], x[:, 0] + apart * x[:, 1]])
    args = {"observation_model": family, "inverse_link_function": link, "solver_name": solver}
    model = fastglm.PopulationGLM(**args).fit(mixed, y)
    expected = fastglm.PopulationGLM(**args).fit(x, y)
    assert model.converged_.all()
    np.testing.assert_allclose(model.objective_, expected.objective_, rtol=1e-9)
    np.testing.assert_allclose(apart * model.coef_[1], expected.coef_[1], rtol=1e-4)


def test_a_product_with_a_far_factor_beside_the_other_factor():
    rng = np.random.default_rng(2)
    h, t = rng.normal(size=2000), np.arange(2000) * 0.01
    y = rng.poisson(np.exp(0.3 * h - 1))
    near, far = (fastglm.GLM().fit(np.column_stack([h, h * time]), y) for time in (t, 1.7e9 + t))
    assert far.converged_.all()
    np.testing.assert_allclose(far.coef_[1], near.coef_[1], rtol=1e-5)
    np.testing.assert_allclose(far.objective_, near.objective_, rtol=1e-10)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
@pytest.mark.parametrize("regularizer", [None, "Ridge", "Lasso"])
@pytest.mark.parametrize("solver", ["auto", "newton-cg"])
def test_units_do_not_matter(scale, regularizer, solver):
    history, x, y = problem("Poisson", 2000)
    units = np.array([scale, 1.0])
    args = {"solver_name": solver, "regularizer": regularizer}
    strength = np.full(history.shape[1] + 2, 1e-3)[:, None] * np.ones(2)
    own = strength.copy()
    own[-2] *= scale**2 if regularizer == "Ridge" else scale
    if regularizer is None:
        strength = own = None
    model = fastglm.PopulationGLM(regularizer_strength=own, **args)
    model.fit(hstack([history, x * units]), y)
    expected = fastglm.PopulationGLM(regularizer_strength=strength, **args)
    expected.fit(hstack([history, x]), y)
    assert model.converged_.all()
    np.testing.assert_allclose(model.coef_[-2] * scale, expected.coef_[-2], rtol=1e-5)
    np.testing.assert_allclose(model.objective_, expected.objective_, rtol=1e-10)


@pytest.mark.parametrize("regularizer", ["Lasso", "GroupLasso"])
def test_the_gap_of_a_sparse_fit_is_not_below_0(regularizer):
    rng = np.random.default_rng(5)
    X = np.zeros((80, 2))
    X[:5, 0], X[:, 1] = 1e-45 * rng.random(5), rng.normal(size=80)
    y = rng.poisson(3, (80, 1))
    args = {"regularizer": regularizer, "regularizer_strength": 0.01}
    start = np.array([[-0.3], [0.2]]), np.array([0.5])
    model = fastglm.PopulationGLM(**args).fit(X, y, init_params=start)
    expected = fastglm.PopulationGLM(**args).fit(X, y)
    np.testing.assert_allclose(model.objective_, expected.objective_, rtol=1e-10)
    assert (model.newton_decrement_ >= 0).all()


def test_least_norm_does_not_depend_on_the_start():
    rng = np.random.default_rng(6)
    u = rng.uniform(size=2000)
    X = fastglm.basis.BSplineEval(5, bounds=(0, 1)).compute_features(u)
    y = rng.poisson(np.exp(np.sin(5 * u) - 1))[:, None]
    plain = fastglm.PopulationGLM().fit(X, y)
    start = rng.normal(size=(5, 1)) + 2, np.ones(1)
    other = fastglm.PopulationGLM().fit(X, y, init_params=start)
    np.testing.assert_allclose(other.coef_, plain.coef_, atol=1e-7)
    assert abs(plain.coef_.sum()) < 1e-7


def test_directions_are_not_lost_at_an_extreme_start():
    rng = np.random.default_rng(7)
    X = rng.normal(size=(2000, 12))
    y = rng.poisson(np.exp(0.1 * X.sum(axis=1)))[:, None]
    start = 6 * rng.normal(size=(12, 1)), np.zeros(1)
    model = fastglm.PopulationGLM().fit(X, y, init_params=start)
    expected = fastglm.PopulationGLM().fit(X, y)
    assert model.converged_.all()
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-6)


def test_a_constant_column_of_rounding_is_the_intercepts():
    history, x, y = problem("Poisson")
    noise = 0.3 * (1 + np.finfo(float).eps * np.random.default_rng(8).integers(-1, 2, len(x)))
    model = fit(
        history, np.column_stack([x, noise]), y, regularizer=None, regularizer_strength=None
    )
    assert (model.coef_[-1] == 0).all()


@pytest.mark.parametrize(("family", "link"), [("Poisson", "exp"), ("Bernoulli", "cloglog")])
def test_receivers_at_infinity_mind_their_offsets(family, link):
    rng = np.random.default_rng(9)
    X, offset = rng.normal(size=(300, 2)), 5 * rng.normal(size=300)
    y = np.column_stack([np.zeros(300), np.ones(300)])[:, : 1 + (family == "Bernoulli")]
    with pytest.warns(ConvergenceWarning, match="silent"):
        model = fastglm.PopulationGLM(family, link).fit(X, y, offset=offset)
    np.testing.assert_allclose(model.predict(X, offset=offset), y, atol=1e-20)


def test_limits_of_separated_features_rule_over_large_rates():
    rng = np.random.default_rng(10)
    n = 400
    silent = np.zeros(n)
    silent[:40] = rng.uniform(0.5, 1, 40)  # active only where there are no events
    drive = np.where(np.arange(n) < 40, 8.0, rng.normal(size=n))  # the rates would be large there
    y = rng.poisson(np.exp(2 + drive.clip(max=3)))
    y[:40] = 0
    with pytest.warns(ConvergenceWarning, match="separated"):
        model = fastglm.GLM().fit(np.column_stack([silent, drive]), y)
    rest = fastglm.GLM().fit(drive[40:, None], y[40:])
    assert model.status_ == "separated"
    np.testing.assert_allclose(model.coef_[1], rest.coef_[0], rtol=1e-8)
    assert model.predict(np.column_stack([silent, drive]))[:40].max() < 1e-20


def test_responses_in_float32_with_weights():
    rng = np.random.default_rng(11)
    X = rng.normal(size=(500, 3))
    y = (1000 + X @ [[0.1], [0.2], [0.3]] + rng.normal(size=(500, 1))).astype(np.float32)
    weight = rng.uniform(0.1, 2, 500)
    args = {"observation_model": "Gaussian"}
    model = fastglm.PopulationGLM(**args).fit(X, y, sample_weight=weight)
    expected = fastglm.PopulationGLM(**args).fit(X, y.astype(float), sample_weight=weight)
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-9)
