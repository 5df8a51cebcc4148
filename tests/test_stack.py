"""Receivers with the same features share arrays, and none depends on the others."""

import numpy as np
import pytest

import fastglm
from fastglm._algebra.linear import cho_solve, cholesky, factorise, solve_each
from fastglm._engine import rows, stack
from fastglm._engine.exact import DenseProblem
from fastglm._engine.observed import Observed
from fastglm._engine.rows import Rows
from fastglm._engine.stack import dots, multiply_each, pieces, run_of, weighted_grams
from fastglm._penalty import ridge
from fastglm._products.local import Local
from fastglm.features import Events
from fastglm.features.matrix import as_feature_matrix
from fastglm.observation_models import NegativeBinomialObservations, PoissonObservations

NAMES = ("intercept_", "objective_", "newton_decrement_", "grad_norm_", "n_passes_", "status_")
N = 5  # receivers


def data(seed=0, n_bins=150, n_features=6, rate=1.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_bins, n_features))
    eta = 0.3 * x @ rng.normal(size=(n_features, N)) + np.log(rate)
    return rng, x, rng.poisson(np.exp(eta)).astype(float)


def columns(values, j):
    return values[:, [j]] if np.ndim(values) == 2 else values


def assert_alone_as_together(x, y, mask=None, weight=None, offset=None, strength=None, **settings):
    """Every receiver by itself has the bits that it has with all others; returns the fit of all."""
    settings |= {"solver_name": "newton-cholesky"}
    if strength is not None:
        settings |= {"regularizer_strength": strength}

    def fit(own, y, offset):
        return fastglm.PopulationGLM(**{**settings, **own}).fit(
            x, y, sample_weight=weight, offset=offset
        )

    together = fit({} if mask is None else {"feature_mask": mask}, y, offset)
    for j in range(y.shape[1]):
        own = {} if mask is None else {"feature_mask": columns(mask, j)}
        if np.ndim(strength) == 2:
            own["regularizer_strength"] = columns(strength, j)
        alone = fit(own, columns(y, j), columns(offset, j))
        for name in NAMES:
            assert getattr(alone, name)[0] == getattr(together, name)[j], (name, j)
        np.testing.assert_array_equal(alone.coef_[:, 0], together.coef_[:, j])
    return together


def masks(rng, n_features=6):
    """Two receivers with one mask, two with another, and one with all features."""
    some, others = rng.random((2, n_features)) < 0.6
    return np.column_stack([some, others, np.ones(n_features, bool), some, others])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("regularizer", [None, "Ridge", "Lasso"])
@pytest.mark.parametrize(
    ("family", "link"),
    [
        ("Poisson", "exp"),
        ("Poisson", "softplus"),
        ("Gamma", "softplus"),
        (NegativeBinomialObservations(0.5), "softplus"),
        ("Bernoulli", "cloglog"),
    ],
)
def test_a_receiver_does_not_depend_on_the_others(family, link, regularizer, masked):
    """With weights and an offset, and where its Hessian may bend down."""
    rng, x, y = data()
    y = y + 0.5 if family == "Gamma" else np.minimum(y, 1) if family == "Bernoulli" else y
    model = assert_alone_as_together(
        x,
        y,
        masks(rng) if masked else None,
        None if family == "Gamma" else 2 * rng.random(len(x)),  # its counts are no events
        0.1 * rng.normal(size=len(x)),
        observation_model=family,
        inverse_link_function=link,
        regularizer=regularizer,
        strength=None if regularizer is None else 0.02,
    )
    assert model.converged_.all()


@pytest.mark.parametrize("masked", [False, True])
def test_every_receiver_has_its_own_offset(masked):
    """Centred offsets have the order of sums that NumPy has for a table."""
    rng, x, y = data()
    offset, mask = rng.normal(size=y.shape), masks(rng) if masked else np.ones((6, N), bool)
    model = fastglm.PopulationGLM(feature_mask=mask, solver_name="newton-cholesky")
    model.fit(x, y, offset=offset)
    for j in range(N):
        alone = fastglm.GLM(feature_mask=mask[:, j], solver_name="newton-cholesky")
        alone.fit(x, y[:, j], offset=offset[:, j])
        np.testing.assert_allclose(model.coef_[:, j], alone.coef_, rtol=1e-12)


@pytest.mark.parametrize("pull", [0.0, 1e-3])
def test_collinear_features_of_receivers_that_share_coordinates(pull):
    """Receivers 1 and 3 have a ridge along a direction, and so other coordinates."""
    _, x, y = data()
    x = np.column_stack([x[:, :3], x[:, 0] + 1e-9 * x[:, 1], 2 * x[:, 1], 1e6 + x[:, 5]])
    strength = np.zeros((6, N))
    strength[4, [1, 3]] = pull
    model = assert_alone_as_together(x, y, regularizer="Ridge", strength=strength)
    assert model.converged_.all()
    rest = fastglm.PopulationGLM(solver_name="newton-cholesky").fit(x[:, [0, 1, 2, 5]], y)
    np.testing.assert_allclose(model.objective_, rest.objective_, rtol=1e-5 if pull else 1e-13)


def test_a_receiver_at_infinity_beside_others():
    _, x, y = data()
    x[:, 1] = np.where(y[:, 2] > 0, 0.0, np.abs(x[:, 1])) - x[:, 0]  # the sum is 0 at its events
    with pytest.warns(match="separated"):
        model = assert_alone_as_together(x, y)
    assert (model.status_ == "separated").tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("masked", [False, True])
def test_the_bits_depend_neither_on_pieces_nor_on_threads(monkeypatch, masked):
    """One receiver at a time, some, or all; and on two threads, which take turns."""
    rng, x, y = data(n_bins=4000, n_features=12)
    mask = masks(rng, 12) if masked else None

    def fit():
        return fastglm.PopulationGLM(feature_mask=mask, solver_name="newton-cholesky").fit(x, y)

    whole = fit()
    monkeypatch.setattr(rows, "_BLOCK_BYTES", 1 << 17)
    cut = fit()  # blocks of bins change the order of sums
    assert not np.array_equal(whole.coef_, cut.coef_)
    np.testing.assert_allclose(whole.coef_, cut.coef_, atol=1e-9)
    for numbers in (1, 40_000):
        monkeypatch.setattr(stack, "_NUMBERS", numbers)
        for n_threads in (1, 2):
            monkeypatch.setattr(f"{DenseProblem.__module__}.run_threads", on_threads(n_threads))
            model = fit()
            for name in ("coef_", *NAMES):
                np.testing.assert_array_equal(getattr(model, name), getattr(cut, name))


def on_threads(number):
    def run(function, items, work):
        order = items if number == 1 else items[::-1]
        return [function(item) for item in order]

    return run


def problem(x, y, mask=None, loss=None):
    found = Rows(Local(as_feature_matrix(x)), Observed(Events.of(y)))
    free = np.ones((x.shape[1], y.shape[1]), bool) if mask is None else mask
    penalty = ridge(np.zeros(y.shape[1]))
    return DenseProblem(found, free, penalty, loss or PoissonObservations().loss())


def test_a_point_that_overflows_leaves_the_last_hessian():
    _, x, y = data()
    x[:, 2] += 1e6
    dense, everyone, features = problem(x, y), np.arange(N), np.arange(6)
    point = np.zeros((6, N)), np.zeros(N)
    dense.evaluate(everyone, *point)
    before = dense.curvature(1, point[0][:, 1], 0.0, features)
    np.testing.assert_allclose(before[1], x.mean(axis=0), rtol=1e-9)  # every mean is 1
    assert not np.isfinite(dense.evaluate(everyone, 1e4 + point[0], point[1])[0]).any()
    for ours, theirs in zip(dense.curvature(1, point[0][:, 1], 0.0, features), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_steps_of_some_receivers_are_those_of_all():
    """Also of receivers whose features overflow, which have none."""
    rng, x, y = data()
    mask = masks(rng)
    mask[0] = [False, True, True, False, True]
    x[:, 0] *= 1e200
    dense, everyone = problem(x, y, mask), np.arange(N)
    point = np.zeros((6, N)), np.zeros(N)
    _, grad, slope = dense.evaluate(everyone, *point)
    step, step_intercept, decrement, passes = dense.step(everyone, grad, slope, 1e-16, None)
    assert passes == 0
    assert np.isnan(decrement).tolist() == [False, True, True, False, True]
    assert not step[:, np.isnan(decrement)].any()
    some = np.array([0, 2, 3])
    again = problem(x, y, mask)
    _, grad, slope = again.evaluate(some, *(values[..., some] for values in point))
    moved = np.array([0, 2])
    found = again.step(moved, grad[:, moved], slope[moved], 1e-16, None)
    expected = step[:, [0, 3]], step_intercept[[0, 3]], decrement[[0, 3]], 0
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(again.floor[[0, 3]], dense.floor[[0, 3]])
    np.testing.assert_array_equal(again.drift[[0, 3]], dense.drift[[0, 3]])


def test_the_rows_of_a_fit_are_built_once(monkeypatch):
    """For moments, sizes and passes, and where a feature is at its limit."""
    rng, x, y = data()
    x[:, 0] = rng.random(len(x)) < 0.1
    y[x[:, 0] > 0, 1] = 0
    read, build = [], Local.rows
    monkeypatch.setattr(Local, "rows", lambda self, index: read.append(1) or build(self, index))
    with pytest.warns(match="separated"):
        fastglm.PopulationGLM(solver_name="newton-cholesky").fit(x, y)
    assert len(read) == 1


def test_moments_are_those_of_the_columns_as_they_are():
    rng, x, y = data()
    x[:, 2] += 1e7
    weight = rng.random(len(x))
    weight /= weight.mean()
    products_of_x = Local(as_feature_matrix(x))
    found = Rows(products_of_x, Observed(Events.of(y), weight)).moments
    np.testing.assert_allclose(found.x, weight @ x, rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(found.xty, x.T @ (weight[:, None] * y), rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(found.sum_y, weight @ y, rtol=1e-12)


# --- arrays ---


@pytest.mark.parametrize("order", ["C", "F"])
def test_weighted_gram_matrices(order):
    rng = np.random.default_rng(0)
    z = np.array(rng.normal(size=(50, 4)), order=order)
    weights = rng.random((3, 50))
    weights[1] -= 0.5
    found = weighted_grams(z, weights)
    for part, w in zip(found, weights, strict=True):
        np.testing.assert_allclose(part, z.T @ (w[:, None] * z), rtol=1e-12, atol=1e-13)
        np.testing.assert_array_equal(part, weighted_grams(z, w[None])[0])


def test_products_of_rows():
    rng = np.random.default_rng(0)
    a, b, matrix = rng.normal(size=(3, 7)), rng.normal(size=(3, 7)), rng.normal(size=(5, 7))
    np.testing.assert_allclose(dots(a, b), (a * b).sum(axis=1), rtol=1e-14)
    np.testing.assert_allclose(dots(a, b[0]), a @ b[0], rtol=1e-14)
    np.testing.assert_allclose(multiply_each(matrix, a), a @ matrix.T, rtol=1e-13)


@pytest.mark.parametrize(
    ("index", "expected"),
    [([], slice(0, 0)), ([3], slice(3, 4)), ([2, 3, 4], slice(2, 5)), ([2, 4], None)],
)
def test_a_run_of_numbers_is_a_slice(index, expected):
    index = np.array(index, int)
    found = run_of(index)
    np.testing.assert_array_equal(np.arange(9)[found], index)
    assert isinstance(found, slice) is (expected is not None)


def test_pieces_fit_into_the_cache(monkeypatch):
    monkeypatch.setattr(stack, "_NUMBERS", 100)
    assert [len(range(7)[some]) for some in pieces(7, 30)] == [3, 3, 1]
    assert len(pieces(7, 1000)) == 7
    assert len(pieces(7, 0)) == 1


def test_factors_of_a_stack_are_those_of_its_matrices():
    """Also of one that is singular, and of one with a row of zeros."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(4, 5, 5))
    matrices = root @ root.swapaxes(1, 2)
    matrices[1, 3] = matrices[1, :, 3] = 0
    matrices[2] = np.outer(root[2, 0], root[2, 0])
    g = rng.normal(size=(4, 5))
    lower, unit, jitter = factorise(matrices)
    assert (jitter > 0).tolist() == [False, True, True, False]
    found = solve_each(lower, unit, g)
    for k, matrix in enumerate(matrices):
        alone = cholesky(matrix)
        assert alone.jitter == jitter[k]
        np.testing.assert_array_equal(alone.lower, lower[k])
        np.testing.assert_array_equal(cho_solve(alone, g[k]), found[k])
        damped = np.diag(unit[k]) @ lower[k] @ lower[k].T @ np.diag(unit[k])
        left = damped - matrix - jitter[k] * np.diag(unit[k] ** 2)
        assert np.abs(left).max() < 1e-13 * np.abs(matrix).max()


def test_a_matrix_that_bends_down_far_has_the_factor_of_its_diagonal():
    factor = cholesky(np.array([[1.0, 5.0], [5.0, 4.0]]))
    np.testing.assert_array_equal(factor.lower, np.eye(2))
    assert factor.jitter == 1
    np.testing.assert_array_equal(factor.unit, [1, 2])


def test_the_floor_of_a_claim_is_what_rounding_of_the_gradient_allows():
    """Each term is rounded in proportion to its size, and to the terms of eta in it."""
    rng, x, y = data()
    x[:, 2] += 1e6  # is centred: the intercept of x as it was given has large terms
    strength, weight = 0.1, rng.random(len(x))
    weight /= weight.mean()
    found = Rows(Local(as_feature_matrix(x)), Observed(Events.of(y), weight))
    free = np.ones((6, N), bool)
    dense = DenseProblem(found, free, ridge(np.full(N, strength)), PoissonObservations().loss())
    coef, everyone = 0.1 * rng.normal(size=(6, N)), np.arange(N)
    z = x - found.shift
    intercept = 0.3 - found.shift @ coef
    _, grad, slope = dense.evaluate(everyone, coef, intercept)
    dense.step(everyone, grad, slope, 1e-16, None)
    eps, n = np.finfo(float).eps, len(x)
    for j in everyone:
        mu = np.exp(z @ coef[:, j] + 0.3)
        reach = found.size @ np.abs(coef[:, j]) + 0.3
        terms = weight * (np.abs(mu - y[:, j]) + 2 * y[:, j] + mu * reach)
        total = np.mean(weight * mu)
        mean = (weight * mu) @ z / n / total
        unit = (weight * mu) @ (z - mean) ** 2 / n + strength
        error = 4 * eps * np.abs(z).T @ terms / n
        away = np.abs(intercept[j]) + np.abs(found.shift) @ np.abs(coef[:, j])
        last = 4 * eps * (terms.mean() + total * away)
        expected = 0.5 * ((error**2 / unit).sum() + last**2 / total)
        assert dense.floor[j] == pytest.approx(expected, rel=1e-6)


def test_the_objective_and_the_gradient_have_the_penalty():
    """Of the free features alone, whatever the others add to eta."""
    rng, x, y = data()
    mask = masks(rng)
    found, strength = Rows(Local(as_feature_matrix(x)), Observed(Events.of(y))), rng.random((6, N))
    dense = DenseProblem(found, mask, ridge(strength), PoissonObservations().loss())
    coef, intercept, some = 0.2 * rng.normal(size=(6, N)), rng.normal(size=N), np.array([0, 2, 3])
    objective, grad, slope = dense.evaluate(some, coef[:, some], intercept[some])
    for k, j in enumerate(some):
        eta = x @ coef[:, j] + intercept[j]
        residual, own = np.exp(eta) - y[:, j], np.where(mask[:, j], coef[:, j], 0)
        value = np.mean(np.exp(eta) - y[:, j] * eta) + 0.5 * strength[:, j] @ own**2
        assert objective[k] == pytest.approx(value, rel=1e-12)
        expected = np.where(mask[:, j], x.T @ residual / len(x) + strength[:, j] * own, 0)
        np.testing.assert_allclose(grad[:, k], expected, rtol=1e-10, atol=1e-13)
        assert slope[k] == pytest.approx(residual.mean(), rel=1e-10)


def test_a_direction_that_rows_do_not_see_is_taken_out():
    """It changes no eta. Coordinates are rounded in proportion to the features."""
    rng, x, y = data()
    x[:, 3] = 2 * x[:, 0] + 5  # of a constant, which the intercept takes up
    dense, everyone = problem(x, y), np.arange(N)
    coef, intercept = rng.normal(size=(6, N)), rng.normal(size=N)
    assert not dense.least_norm(everyone, coef.copy(), intercept.copy())  # nobody has looked yet
    _, grad, slope = dense.evaluate(everyone, 0 * coef, 0 * intercept)
    dense.step(everyone, grad, slope, 1e-16, None)
    assert [found.space is None for found in dense.stacks] == [True, False]
    eta = x @ coef + intercept
    assert dense.least_norm(everyone, coef, intercept)
    np.testing.assert_allclose(2 * coef[0] - coef[3], 0, atol=1e-12)
    np.testing.assert_allclose(x @ coef + intercept, eta, atol=1e-12)
    own, size = dense.stacks[1], dense.size
    noise = np.linalg.norm(own.space.basis * size[:, None], axis=0)
    error = 4 * np.finfo(float).eps * noise * np.abs(1 - y).mean(axis=0)[:, None]
    least = 0.5 * ((error / own.unit[:, :-1]) ** 2).sum(axis=1)
    assert (dense.floor > least).all()
    own.left[:] = 0
    without = dense._floor(own, slice(None), 0 * coef.T, 0 * intercept)
    assert (dense.floor > without + least).all()
