"""The claimed gap bounds the true one, also where float64 and flat directions make that hard."""

import itertools

import numpy as np
import oracle
import pytest
from sklearn.exceptions import ConvergenceWarning

import fastglm
from fastglm._algebra.linear import has_slope, null_basis
from fastglm._algebra.sparse_model import Model
from fastglm._batches.fit import tasks_of
from fastglm._engine import batch
from fastglm._engine.events import EventProblem
from fastglm._engine.exact import DenseProblem
from fastglm._engine.lbfgs import Steps
from fastglm._engine.limits import gap_at_infinity
from fastglm._engine.rows import Rows
from fastglm._inputs import read_problem
from fastglm.features import hstack
from fastglm.model_selection import regularization_path
from fastglm.regularizer import GroupLasso


def receiver(X, y, link, ridge=0.0, groups=(), offset=0.0):
    """The problem of one receiver by the formulas, over the rows that are known."""
    X = np.asarray(X, float)
    known = np.isfinite(X).all(axis=1)
    n, p = int(known.sum()), X.shape[1]
    shift = np.broadcast_to(offset, len(X))[known]
    ridge = np.broadcast_to(np.asarray(ridge, float), p)
    return oracle.Receiver(X[known], y[known], np.ones(n), shift, link, ridge, list(groups))


def lasso(sizes):
    return [(np.array([f]), size) for f, size in enumerate(sizes) if size > 0]


def gap_of(model, problem):
    best = oracle.solve(problem)
    value = problem.value(np.ravel(model.coef_), float(np.ravel(model.intercept_)[0]))
    return float(value - best.value), best


def exact_of(model, X, y):
    """The problem of a single receiver with exact Hessians."""
    given = read_problem(model, X, y[:, None])
    some = given.X, given.observed, given.X.valid, given.free, [given.penalty], given.settings
    rows = Rows(tasks_of(*some).products, given.observed)
    return DenseProblem(rows, given.free, given.penalty, given.settings.loss)


def silent_at_different_sizes(rng, n, part, rate):
    """A feature of a part of the bins, of sizes 0.01 to 1, and counts that are 0 there."""
    up = np.where(rng.random(n) < part, 10.0 ** rng.uniform(-2, 0, size=n), 0.0)
    return up, np.where(up > 0, 0, rng.random(n) < rate).astype(float)


def holds(model, problem):
    """Whether the fit has converged, and its claim is true."""
    gap, best = gap_of(model, problem)
    claim = float(model.newton_decrement_[0])
    assert model.converged_.all(), (model.status_, claim, gap)
    assert gap <= 2 * claim + 1e-9 * best.scale, (claim, gap)


@pytest.mark.parametrize("mean", [1e7, 1e8])
@pytest.mark.parametrize("link", ["exp", "identity"])
@pytest.mark.parametrize(("regularizer", "strength"), [("Ridge", 1e-3), ("Lasso", 1e-9)])
def test_products_far_from_zero_keep_their_digits(link, mean, regularizer, strength):
    """Rows of exact Hessians are centred; float32 and X'X do not hold what varies."""
    rng = np.random.default_rng(3)
    n = 600
    counts = np.full((n, 1), 2.0)  # a steady input: all that varies of the product is the factor
    z = rng.normal(size=(n, 1))
    basis = fastglm.basis.RaisedCosineLogConv(2, 5) * fastglm.basis.IdentityEval()
    X = basis.compute_features(counts, mean + z)
    y = rng.poisson(np.exp(0.5 * z[:, 0] - 0.5)).astype(float)
    family = "Poisson" if link == "exp" else "Gaussian"
    penalty = {"ridge": strength} if regularizer == "Ridge" else {"groups": lasso([strength] * 2)}
    for solver in ("newton-cholesky", "newton-cg"):
        model = fastglm.GLM(
            family,
            link,
            regularizer=regularizer,
            regularizer_strength=strength,
            solver_name=solver,
        ).fit(X, y)
        holds(model, receiver(X, y, link, **penalty))


def test_a_sum_of_columns_that_hardly_varies_is_a_feature_of_an_elastic_net():
    """Two columns of opposite waves, whose sum is a small covariate: float32 has no factor."""
    rng = np.random.default_rng(0)
    n = 300
    wave, small = rng.normal(size=n), rng.normal(size=n)
    X = np.column_stack([1e6 * wave, small - 1e6 * wave, rng.normal(size=n)])
    y = rng.poisson(np.exp(0.5 * small - 1)).astype(float)
    elastic = fastglm.regularizer.ElasticNet(0.5)
    model = fastglm.GLM(regularizer=elastic, regularizer_strength=1e-3)
    model.fit(X, y)
    groups = lasso([5e-4] * 3)
    holds(model, receiver(X, y, "exp", ridge=5e-4, groups=groups))


@pytest.mark.parametrize("apart", [1e-7, 3e-8])
@pytest.mark.parametrize("name", ["Lasso", "GroupLasso"])
def test_nearly_equal_columns_have_a_certificate(name, apart):
    """Where no Hessian holds their difference, the penalty bounds what is left along it."""
    rng = np.random.default_rng(1)
    n = 400
    x = rng.normal(size=n)
    X = np.column_stack([x, x + apart * rng.normal(size=n), rng.normal(size=n)])
    y = rng.poisson(np.exp(0.4 * x - 1)).astype(float)
    if name == "GroupLasso":
        mask = np.array([[1, 1, 0], [0, 0, 1]])
        name = fastglm.regularizer.GroupLasso(mask=mask)
        groups = [(np.array([0, 1]), 0.01 * np.sqrt(2)), (np.array([2]), 0.01)]
    else:
        groups = lasso([0.01] * 3)
    model = fastglm.GLM(regularizer=name, regularizer_strength=0.01).fit(X, y)
    holds(model, receiver(X, y, "exp", groups=groups))


@pytest.mark.parametrize("tol", [1e-6, 1e-8])
@pytest.mark.parametrize("apart", [1e-4, 1e-5])
def test_a_loose_tolerance_beside_nearly_equal_columns(apart, tol):
    """What an inner solution leaves is weighed by the Hessian, not by its diagonal."""
    rng = np.random.default_rng(0)
    x, z, u = rng.normal(size=(3, 400))
    X, sizes = np.column_stack([x, x + apart * z, u]), np.array([0.0, 0.0, 0.02])
    y = rng.poisson(np.exp(0.4 * z - 1)).astype(float)
    model = fastglm.PopulationGLM(
        regularizer="Lasso", regularizer_strength=sizes[:, None], solver_kwargs={"tol": tol}
    ).fit(X, y[:, None])
    holds(model, receiver(X, y, "exp", groups=lasso(sizes)))


def models(rng):
    """Models of a proximal step with groups of several sizes, some nearly singular."""
    for n, sizes, rank in ((5, [1] * 5, 5), (6, [2, 3, 1], 6), (6, [1] * 6, 4), (8, [3, 3, 2], 5)):
        A = rng.normal(size=(rank, n))
        starts = np.append(0, np.cumsum(sizes))
        weight = rng.uniform(0.05, 0.8, size=len(sizes))
        c = rng.normal(size=n) * (rng.random(n) < 0.7)
        yield Model(A.T @ A / rank, A.T @ rng.normal(size=rank), c, starts, weight)


def least(model):
    """The minimum of a model by many proximal gradients."""
    z, bound = model.c.copy(), np.linalg.eigvalsh(model.schur)[-1]
    for _ in range(20_000):
        u = z - (model.g + model.schur @ (z - model.c)) / bound
        for (a, b), w in zip(itertools.pairwise(model.starts), model.weight, strict=True):
            size = np.linalg.norm(u[a:b])
            u[a:b] *= max(0.0, 1 - w / (bound * size)) if size > 0 else 0.0
        z = u
    return z, model.value(z)


def test_the_minimum_of_a_model_and_the_bound_of_its_gap():
    rng = np.random.default_rng(0)
    for model in models(rng):
        z, slope = model.minimum(1e-12)
        best, value = least(model)
        assert abs(model.value(z) - value) < 1e-11
        assert np.allclose(slope, model.g + model.schur @ (z - model.c))
        np.testing.assert_array_equal(z[np.abs(best) < 1e-9], 0.0)
        rounding = np.zeros(z.size), np.zeros(z.size)
        for off in (1e-1, 1e-4, 1e-7):
            at = z + off * rng.normal(size=z.size)
            at_slope = model.g + model.schur @ (at - model.c)
            reach = 2 * np.abs(best) + 1e-3
            gap = model.gap(at, at_slope, reach, rounding)
            assert model.value(at) - value <= gap * (1 + 1e-6) + 1e-13


def test_a_column_far_from_zero_hides_no_direction_of_others():
    """Two columns are nearly equal; the squares of a third one are rounded more than their gap."""
    apart, part = 3e-14, 1e-12
    schur = np.array([[1, 1 - apart, 0], [1 - apart, 1, 0], [0, 0, 1.0]])
    slope = np.array([part, -part, 0]) / np.sqrt(2)
    model = Model(schur, slope, np.ones(3), np.arange(4), np.zeros(3))
    gap = model.gap(np.ones(3), slope, 1e3, (np.array([0, 0, 50.0]), np.full(3, 1e-9)))
    assert part**2 / (2 * apart) <= gap <= part**2 / apart


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("maxiter", [1, 2, 100])
def test_least_norm_leaves_the_objective_true(maxiter):
    """Directions that are taken out are rounded, and the columns along them are large."""
    rng = np.random.default_rng(0)
    n = 120
    counts = (np.arange(n) % 2 == 0).astype(float)[:, None]
    x = 3e8 + rng.normal(size=(n, 1))
    conv = fastglm.basis.RaisedCosineLogConv(2, 5)
    X = (conv + conv * fastglm.basis.IdentityEval()).compute_features(counts, counts, x)
    X = hstack([X, counts.repeat(2, axis=1) * [1.0, 0.5]])
    y = rng.poisson(3.0, size=n).astype(float)
    given = {"solver_name": "newton-cholesky", "solver_kwargs": {"maxiter": maxiter}}
    model = fastglm.GLM(**given).fit(X, y)
    problem = receiver(X, y, "exp")
    value = problem.value(np.ravel(model.coef_), float(np.ravel(model.intercept_)[0]))
    assert abs(float(model.objective_[0]) - value) < 1e-9
    if maxiter == 100:
        holds(model, problem)


def limit_beside_a_large_rate(n=200):
    """A feature of silent bins alone, in which another feature raises eta by 40, and the counts."""
    rng = np.random.default_rng(0)
    rare = (rng.random(n) < 0.2).astype(float)
    x = np.where(rare == 1, 80.0, rng.normal(size=n))
    y = np.where(rare == 1, 0, rng.poisson(np.exp(0.5 * x.clip(max=3)))).astype(float)
    return np.column_stack([rare, x]), y


def test_limits_rule_over_large_rates_beside_a_penalty():
    (X, y), sizes = limit_beside_a_large_rate(), [0.0, 1e-3]
    model = fastglm.PopulationGLM(
        regularizer="Lasso", regularizer_strength=np.array(sizes)[:, None]
    )
    with pytest.warns(ConvergenceWarning, match="separated"):
        model.fit(X, y[:, None])
    gap, _ = gap_of(model, receiver(X, y, "exp", groups=lasso(sizes)))
    assert gap <= 2 * float(model.newton_decrement_[0]) + 1e-13


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("solver", ["newton-cg", "newton-cholesky"])
def test_limits_on_a_path_are_moved_on_with_the_strength_of_each_fit(solver):
    """The feature at its limit is of no group."""
    X, y = limit_beside_a_large_rate()
    model = fastglm.PopulationGLM(regularizer=GroupLasso([[0, 1]]), solver_name=solver)
    path = regularization_path(model, X, y[:, None], [0.1, 0.01, 0.001])
    assert (path.status == "separated").all()
    for k, strength in enumerate([0.1, 0.01, 0.001]):
        problem = receiver(X, y, "exp", groups=lasso([0.0, strength]))
        best = oracle.solve(problem)
        value = problem.value(path.coef[k, :, 0], path.intercept[k, 0])
        assert value - best.value <= 2 * path.newton_decrement[k, 0] + 1e-13


@pytest.mark.parametrize("link", ["exp", "softplus", "logistic", "cloglog"])
@pytest.mark.parametrize("penalty", ["ridge", "lasso"])
def test_what_is_left_at_infinity_is_in_the_claim(link, penalty):
    """Bins that fall at different rates: a step sees the fastest of them."""
    rng = np.random.default_rng(0)
    n = 120
    x = rng.normal(size=n)
    up, y = silent_at_different_sizes(rng, n, 0.4, 0.5)
    X = np.column_stack([up, x])
    strength = [[0.0], [0.01]]
    family = "Poisson" if link in ("exp", "softplus") else "Bernoulli"
    name = "Lasso" if penalty == "lasso" else "Ridge"
    model = fastglm.PopulationGLM(
        family, link, regularizer=name, regularizer_strength=np.array(strength)
    )
    exact = exact_of(model, X, y)
    kwargs = {"ridge": [0, 0.01]} if penalty == "ridge" else {"groups": lasso([0, 0.01])}
    r = receiver(X, y, link, **kwargs)
    rest = receiver(X[up == 0, 1:], y[up == 0], link)
    part = (up == 0).mean()
    rest.ridge = np.array([0.01 / part]) if penalty == "ridge" else rest.ridge
    rest.groups = lasso([0.01 / part]) if penalty == "lasso" else []
    best = oracle.solve(rest)
    for far in (60.0, 300.0, 3000.0):
        coef = np.array([[-far], best.coef * 1.001])
        bound, away = gap_at_infinity(
            exact, np.arange(1), coef.astype(float), np.array([best.intercept])
        )
        gap = float(r.value(coef[:, 0], best.intercept) - part * best.value)
        assert away.all()
        assert gap <= bound[0] * (1 + 1e-3) + 1e-14
        assert bound[0] <= 1.1 * gap + 1e-14


@pytest.mark.parametrize("link", ["exp", "logistic"])
@pytest.mark.filterwarnings("ignore:separated")
def test_a_sparse_fit_with_bins_at_infinity_ends(link):
    """Two unpenalised features go to infinity together, in long steps with new Hessians."""
    rng = np.random.default_rng(0)
    n = 150
    x, u = rng.normal(size=(2, n))
    up, y = silent_at_different_sizes(rng, n, 0.4, 0.4)
    X, sizes = np.column_stack([up - 0.3 * x, x, u]), [0.0, 0.0, 0.02]
    model = fastglm.PopulationGLM(
        "Poisson" if link == "exp" else "Bernoulli",
        link,
        regularizer="Lasso",
        regularizer_strength=np.array(sizes)[:, None],
        solver_name="newton-cholesky",
    )
    model.fit(X, y[:, None])
    holds(model, receiver(X, y, link, groups=lasso(sizes)))
    assert model.n_iter_[0] < 30


def test_a_slow_sparse_fit_of_a_quadratic_loss_is_not_separated():
    rng = np.random.default_rng(0)
    x, z, u = rng.normal(size=(3, 300))
    X = np.column_stack([x, x + 1e-4 * z, u])
    y = x + z + rng.normal(size=300)
    sizes = np.array([0.0, 0.0, 0.02])
    model = fastglm.PopulationGLM(
        "Gaussian", "identity", regularizer="Lasso", regularizer_strength=sizes[:, None]
    ).fit(X, y[:, None])
    assert list(model.status_) == ["converged"]
    holds(model, receiver(X, y, "identity", groups=lasso(sizes)))


def test_bins_at_infinity_of_the_oracle_cost_nothing_for_bernoulli_counts():
    """It moves them as far as the direction is steep, in the sign of their counts."""
    rng = np.random.default_rng(0)
    n = 80
    x, rare = rng.normal(size=n), (rng.random(n) < 0.3).astype(float)
    y = np.where(rare == 1, x > 0, rng.random(n) < 0.5).astype(float)
    X = np.column_stack([x, rare, rare * x])
    found = oracle.solve(receiver(X, y, "logistic"))
    inside = oracle.solve(receiver(X[rare == 0], y[rare == 0], "logistic"))
    assert found.separated == rare.sum()
    assert abs(found.value - inside.value * np.mean(rare == 0)) < 1e-13


def test_rounding_of_collinear_columns_is_no_feature_of_the_oracle():
    rng = np.random.default_rng(0)
    n = 500
    x = np.linspace(-1, 1, n)
    X = np.column_stack([0.6 * (x + 2e7), 3e-4 * (x - 4e8), rng.normal(size=n)])
    y = rng.poisson(1.0, size=n).astype(float)
    both, one = (oracle.solve(receiver(X[:, k], y, "exp")) for k in ([0, 1, 2], [0, 2]))
    assert abs(both.value - one.value) < 1e-10
    steady = 1e5 * (1 + np.finfo(float).eps * rng.integers(-1, 2, size=(n, 1)))
    without, beside = (oracle.solve(receiver(Z, y, "exp")) for Z in (X, np.hstack([X, steady])))
    assert without.value == pytest.approx(beside.value, abs=1e-14)


def separated_along_two(rng, n=400, rare=False):
    """Columns whose difference is large in bins without events alone, and the counts."""
    X = rng.normal(size=(n, 6))
    X[:, 1] = X[:, 0] + (rng.random(n) < 0.1)
    hit = X[:, 1] - X[:, 0] > 0.5
    if rare:  # in bins where the rest of eta is high
        X[:, 5] = rng.random(n) < 0.03
        hit |= X[:, 5] > 0
    y = np.where(hit, 0, rng.poisson(np.exp(0.3 * X[:, 2] + 1))).astype(float)
    return X, y


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("tol", [1e-5, 1e-16])
@pytest.mark.parametrize("link", ["exp", "softplus"])
def test_a_start_far_along_a_separated_direction(link, tol):
    """Where an earlier fit has ended, events show neither slope nor curvature along it."""
    X, y = separated_along_two(np.random.default_rng(0))
    given = {"solver_name": "newton-cg", "solver_kwargs": {"tol": tol}}
    first = fastglm.GLM("Poisson", link, **given).fit(X, y)
    again = fastglm.GLM("Poisson", link, **given).fit(X, y, (first.coef_, first.intercept_))
    for model in (first, again):
        assert model.status_[0] in ("separated", "converged" if tol > 1e-10 else "")
        gap, best = gap_of(model, receiver(X, y, link))
        assert gap <= 2 * model.newton_decrement_[0] + 1e-13 * best.scale


@pytest.mark.parametrize("mean", [0.003, 1.0])
def test_bins_of_a_rare_event_are_not_at_infinity(mean):
    """Curvatures are low beside the mean one; a fit from its optimum needs no exact Hessian."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 3))
    y = rng.poisson(mean * np.exp(X @ [0.3, -0.2, 0.1])).astype(float)
    first = fastglm.GLM(solver_name="newton-cg").fit(X, y)
    again = fastglm.GLM(solver_name="newton-cg").fit(X, y, (first.coef_, first.intercept_))
    assert again.n_passes_[0] <= 4


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("link", ["exp", "softplus"])
def test_limits_that_are_moved_on_beside_a_separated_direction(link):
    for seed in range(4):
        X, y = separated_along_two(np.random.default_rng(seed), rare=True)
        given = {"solver_name": "newton-cg", "solver_kwargs": {"tol": 1e-6}}
        model = fastglm.GLM("Poisson", link, **given).fit(X, y)
        gap, best = gap_of(model, receiver(X, y, link))
        assert model.status_[0] == "separated"
        assert gap <= 2 * model.newton_decrement_[0] + 1e-13 * best.scale


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("tol", [1e-6, 1e-9])
@pytest.mark.parametrize("link", ["exp", "softplus"])
def test_a_loose_tolerance_where_all_but_two_bins_lie_at_infinity(link, tol):
    """A decrement that falls by a factor of e is half of the gap; chord steps see less of it."""
    for seed in (3, 7):
        rng = np.random.default_rng(seed)
        X, y = rng.normal(size=(60, 10)), np.zeros(60)
        X[:, 3:6] = X[:, :3] + 0.02 * X[:, 3:6]
        y[rng.choice(60, 2, replace=False)] = 1
        model = fastglm.GLM("Poisson", link, solver_kwargs={"tol": tol}).fit(X, y)
        gap, best = gap_of(model, receiver(X, y, link))
        assert model.converged_[0]
        assert gap <= 2 * model.newton_decrement_[0] + 1e-13 * best.scale


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("tol", [1e-6, 1e-9])
def test_a_hessian_of_rounding_proves_nothing(tol):
    """Far along separated directions of units that differ, the curvature is rounding."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        X, y = rng.normal(size=(60, 14)), np.zeros(60)
        X[:, 4:8] = X[:, :4] + 1e-3 * X[:, 4:8]
        y[rng.choice(60, 3, replace=False)] = 1
        model = fastglm.GLM(solver_kwargs={"tol": tol}).fit(X, y)
        gap, best = gap_of(model, receiver(X, y, "exp"))
        assert model.converged_[0]
        assert gap <= 2 * model.newton_decrement_[0] + 1e-13 * best.scale


def test_a_collinear_direction_has_no_part_of_rounding():
    """What rounding adds to it is a large coefficient beside a feature of a small unit."""
    rng = np.random.default_rng(0)
    z, u, v = rng.normal(size=(3, 300))
    X = np.column_stack([0.1 * z - 4e7, z, 1e-7 * u, v])
    y = rng.poisson(np.exp(0.4 * z + 0.6 * u - 1)).astype(float)
    model = fastglm.GLM(solver_name="newton-cholesky").fit(X, y)
    holds(model, receiver(X, y, "exp"))
    assert np.abs(model.coef_[:2]).max() < 1  # the least norm: 0.04 and 0.4
    assert abs(model.coef_[0] - 0.1 * model.coef_[1]) < 1e-6


@pytest.mark.parametrize("level", [0.0, 2e5])
def test_gaussian_counts_far_from_zero_beside_a_product(level):
    """X'Y does not hold the digits of a product with a time, and the rows do."""
    rng = np.random.default_rng(0)
    h, t, u = rng.random(400), 1e8 + rng.normal(size=400), rng.normal(size=400)
    X = np.column_stack([h, t * h, u])
    y = level + h * (t - 1e8) + 0.5 * rng.normal(size=400)
    model = fastglm.GLM("Gaussian").fit(X, y)
    holds(model, receiver(X, y, "identity"))


@pytest.mark.parametrize("seed", range(6))
def test_a_loose_tolerance_with_weights_that_differ_much(seed):
    """The curvature on a sample is poor where few bins have most of the weight."""
    rng = np.random.default_rng(seed)
    basis = fastglm.basis.BSplineEval(7, bounds=(0, 1), order=3)
    x, weight = rng.random((1500, 1)), 10.0 ** rng.uniform(-3, 3, size=1500)
    X = basis.compute_features(x)
    y = rng.poisson(np.exp(np.sin(6 * x[:, 0]) - 1)).astype(float)
    model = fastglm.GLM(solver_name="newton-cg", solver_kwargs={"tol": 1e-6})
    model.fit(X, y, sample_weight=weight)
    problem = oracle.Receiver(np.asarray(X), y, weight, np.zeros(1500), "exp", np.zeros(7), [])
    holds(model, problem)


def test_a_trial_point_of_a_sparse_fit_may_overflow(monkeypatch):
    """Sums over rates of infinity are no number; the point is rejected without a warning."""
    evaluate = EventProblem.evaluate

    def overflow(self, *point):
        assert np.isnan(np.add(np.inf, -np.inf))
        return evaluate(self, *point)

    monkeypatch.setattr(EventProblem, "evaluate", overflow)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 3)), rng.poisson(0.5, size=200)
    given = {"regularizer": "Lasso", "regularizer_strength": 1e-2, "solver_name": "newton-cg"}
    for start in (None, (np.ones(3), np.zeros(1))):
        assert fastglm.GLM(**given).fit(X, y, start).converged_.all()


def test_a_search_without_a_step_proves_nothing(monkeypatch):
    """Where the sample gives no step, the decrement is 0 at any slope; rows take over."""

    def no_step(self, moved, point, grad, grad_intercept, tol, polishing):
        self.expected[:] = 0  # the next sums are in float64
        return 0 * grad, 0 * grad_intercept, 0 * grad_intercept, 0

    monkeypatch.setattr(Steps, "step", no_step)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    y = rng.poisson(np.exp(0.3 * X[:, 0] - 1)).astype(float)
    model = fastglm.GLM(solver_name="newton-cg", solver_kwargs={"tol": 1e-4}).fit(X, y)
    holds(model, receiver(X, y, "exp"))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("seed", range(3))
def test_limits_of_a_sparse_fit_beside_a_separated_direction(seed):
    X, y = separated_along_two(np.random.default_rng(seed), rare=True)
    sizes = np.array([0, 0, 0.01, 0.01, 0.01, 0])
    given = {"solver_name": "newton-cg", "solver_kwargs": {"tol": 1e-6}}
    model = fastglm.PopulationGLM(
        regularizer="Lasso", regularizer_strength=sizes[:, None], **given
    ).fit(X, y[:, None])
    gap, best = gap_of(model, receiver(X, y, "exp", groups=lasso(sizes)))
    assert gap <= 2 * model.newton_decrement_[0] + 1e-13 * best.scale


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("seed", range(2, 8))
def test_a_feature_that_only_bins_at_a_limit_told_apart(seed):
    """Beside the limit its values are so small that the preconditioner takes them for nothing."""
    rng = np.random.default_rng(seed)
    n = 300
    gone, few = np.zeros(n), np.zeros(n)
    gone[:14] = rng.uniform(0.2, 1, size=14)
    few[:20] = np.r_[rng.uniform(0.1, 0.6, size=14), 2e-4 * rng.random(6)]
    x = rng.normal(size=n)
    y = (rng.random(n) < 0.3).astype(float)
    y[:14], y[14:20] = 0, [1, 0, 1, 1, 0, 1]
    X = np.column_stack([gone, few, x])
    given = {"solver_name": "newton-cg", "solver_kwargs": {"tol": 1e-6}}
    model = fastglm.GLM("Bernoulli", **given).fit(X, y)
    holds(model, receiver(X, y, "logistic"))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("solver", ["newton-cg", "newton-cholesky"])
@pytest.mark.parametrize("link", ["exp", "logistic"])
def test_a_loose_tolerance_where_bins_are_on_their_way_to_infinity(link, solver):
    """Far from the optimum a step sees a part of what they leave: exact Hessians go on to 1e-10."""
    rng = np.random.default_rng(0)
    n = 500
    x = rng.normal(size=n)
    up, y = silent_at_different_sizes(rng, n, 0.2, 0.3)
    X = np.column_stack([up - 0.3 * x, x])
    family = "Poisson" if link == "exp" else "Bernoulli"
    model = fastglm.GLM(family, link, solver_name=solver, solver_kwargs={"tol": 1e-4})
    model.fit(X, y)
    holds(model, receiver(X, y, link))
    assert model.newton_decrement_[0] < 4e-10


@pytest.mark.parametrize("far", [3.0, 6.0, 12.0])
def test_a_bin_that_only_a_tiny_direction_moves_is_in_the_claim(far):
    """The Hessian, the square of the rows, does not hold that direction."""
    rng = np.random.default_rng(0)
    n = 200
    x, alone = rng.normal(size=n), np.zeros(n)
    alone[7] = 1e-9
    X = np.column_stack([x, x + alone])
    y = rng.poisson(np.exp(0.3 * x - 1)).astype(float)
    y[7] = 0
    rest = np.arange(n) != 7
    best = oracle.solve(receiver(X[rest, :1], y[rest], "exp"))
    coef = np.array([[best.coef[0] + far * 1e9], [-far * 1e9]])
    model = fastglm.PopulationGLM(solver_name="newton-cholesky")
    bound, away = gap_at_infinity(exact_of(model, X, y), np.arange(1), coef, [best.intercept])
    left = np.exp(best.coef[0] * x[7] + best.intercept - far) / n
    assert away.all()
    assert left <= bound[0] * (1 + 1e-3)
    assert bound[0] <= 1.1 * left + 1e-9


@pytest.mark.parametrize("solver", ["newton-cholesky", "newton-cg"])
@pytest.mark.parametrize("link", ["exp", "softplus"])
def test_a_direction_that_coefficients_do_not_hold_is_none(link, solver):
    """A wave whose phase is rounded is alternating but for 1e-13 of its size."""
    rng = np.random.default_rng(0)
    t = np.arange(1200)
    wave = np.sin(np.pi * t + 0.6)
    X = np.column_stack([t % 2, 1e-6 * wave, wave, rng.normal(size=t.size)])
    y = rng.poisson(np.exp(0.3 * X[:, 0] + 0.3 * X[:, 3] - 1)).astype(float)
    model = fastglm.GLM("Poisson", link, solver_name=solver).fit(X, y)
    holds(model, receiver(X, y, link))
    assert np.abs(model.coef_).max() < 1e7


@pytest.mark.parametrize("products", ["auto", "events"])
@pytest.mark.parametrize("offset", [0.0, 4e5])
@pytest.mark.parametrize("solver", ["auto", "newton-cg"])
def test_the_objective_of_gaussian_counts_far_from_zero(solver, offset, products):
    """X'Y of counts at 1e6 standard deviations from zero has lost the digits of their slope."""
    rng = np.random.default_rng(0)
    X = 20 + rng.normal(size=(500, 4))
    y = 1e6 + X[:, 0] + 0.5 * rng.normal(size=500)
    shift = offset + rng.normal(size=500)
    weight = rng.uniform(0.5, 2, size=500)
    model = fastglm.GLM("Gaussian", solver_name=solver, solver_kwargs={"products": products})
    model.fit(X, y, offset=shift, sample_weight=weight)
    problem = receiver(X, y, "identity", offset=shift)
    problem.weight = weight
    value = float(problem.value(model.coef_, float(model.intercept_[0])))
    assert abs(model.objective_[0] - value) < 3e-11
    holds(model, problem)


def test_a_slope_along_a_collinear_direction_of_small_units():
    """It is judged in units of its own, where a basis mixes it with one of larger units."""
    size = np.array([1e-8, 4e-8, 1.0, 1.0])
    small, large = np.array([4, -1, 0, 0]) / np.sqrt(17), np.array([0, 0, 1, -1]) / np.sqrt(2)
    null = np.column_stack([small + large, small - large]) / np.sqrt(2)
    for part, expected in ((1e-8, True), (1e-15, False)):
        slope = part * size * np.array([1, -1, 0, 0])
        assert has_slope(null, size, slope, 1.0) is expected


def test_a_loose_tolerance_is_judged_by_an_exact_hessian_where_that_costs_little(monkeypatch):
    """Few steps may not know the curvature: here they take the gap for a thousandth of it."""
    step = Steps.step

    def hopeful(*args):
        found = step(*args)
        return *found[:2], 1e-3 * found[2], found[3]

    monkeypatch.setattr(Steps, "step", hopeful)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 6))
    y = rng.poisson(np.exp(X @ rng.normal(0, 0.5, 6))).astype(float)
    model = fastglm.GLM(
        regularizer="Ridge",
        regularizer_strength=1e-3,
        solver_name="newton-cg",
        solver_kwargs={"tol": 1e-4},
    )
    holds(model.fit(X, y), receiver(X, y, "exp", ridge=1e-3))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("power", [28, 34, 40])
def test_least_norm_beside_copies_in_very_small_units(power, seed):
    """Every coefficient to its own digits: copies share an effect in proportion to their units."""
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=(2, 500))
    X = np.column_stack([2e6 * x, 2.0**-power * x, 2.0 ** (2 - power) * x, z])
    y = rng.poisson(np.exp(0.5 * x - 0.5)).astype(float)
    model = fastglm.GLM(solver_name="newton-cholesky").fit(X, y)
    holds(model, receiver(X, y, "exp"))
    share = np.ravel(model.coef_)[:3] / np.array([2e6, 2.0**-power, 2.0 ** (2 - power)])
    np.testing.assert_allclose(share, share[0], rtol=1e-6)


def test_a_null_space_has_the_digits_of_every_unit():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 6))
    X /= np.linalg.norm(X, axis=0)
    unit = np.array([1e9, 1.0, 1e-9, 3.0, 2.0, 1e-3])
    found = null_basis(np.linalg.svd(X)[2][3:].T, unit)
    np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-14)
    terms = np.abs(X * unit) @ np.abs(found)
    assert (np.abs(X * unit @ found) < 1e-13 * terms.max(axis=0)).all()


@pytest.mark.filterwarnings("ignore:separated")
@pytest.mark.parametrize("seed", [11, 12])
def test_a_norm_has_a_slope_where_a_limit_has_taken_all_bins(seed):
    """A penalised feature whose bins lie at infinity belongs to 0, and the way there is gap."""
    rng, n, k = np.random.default_rng(seed), 60, 9
    quiet = np.arange(n) < 15
    limit = np.where(quiet, rng.random(n), 0.0)
    inside = np.where(quiet[:, None], rng.random((n, k)) * (rng.random((n, k)) < 0.4), 0.0)
    z = rng.normal(size=(n, k))
    y = ((rng.random(n) < 0.3) & ~quiet).astype(float)
    X = np.column_stack([limit, inside, z + inside])
    group = np.append(-1, np.arange(2 * k) % 3)
    model = fastglm.GLM(
        "Bernoulli",
        regularizer=GroupLasso(mask=np.array([group == g for g in range(3)]).astype(int)),
        regularizer_strength=1e-4,
        solver_name="newton-cg",
        solver_kwargs={"tol": 1e-6},
    ).fit(X, y)
    size = 1e-4 * np.sqrt(2 * k / 3)
    problem = receiver(
        X, y, "logistic", groups=[(np.flatnonzero(group == g), size) for g in range(3)]
    )
    gap, best = gap_of(model, problem)
    assert model.status_[0] == "separated"
    assert gap <= 2 * model.newton_decrement_[0] + 1e-12 * best.scale


@pytest.mark.parametrize("link", ["exp", "identity"])
@pytest.mark.parametrize("seed", range(3))
def test_rounding_of_one_pair_does_not_hide_another_pair_of_its_size(link, seed):
    """Copies that differ by 4e-9 are two features, beside a copy whose last digit is 7e-9."""
    rng = np.random.default_rng(seed)
    x, small, z, noise = rng.normal(size=(4, 800))
    X = np.column_stack([x, z + 5e7, x + 4e-9 * small, z])
    eta = 0.3 * x + 0.5 * z + 0.4 * (X[:, 2] - x) / 4e-9
    y = rng.poisson(np.exp(eta)).astype(float) if link == "exp" else eta + 0.5 * noise
    model = fastglm.GLM("Poisson" if link == "exp" else "Gaussian").fit(X, y)
    apart = np.column_stack([x, z, (X[:, 2] - x) / 4e-9])
    best = oracle.solve(receiver(apart, y, link))
    value = float(receiver(X, y, link).value(np.ravel(model.coef_), model.intercept_[0]))
    assert model.status_[0] == "converged"
    assert abs(value - best.value) < 1e-9


@pytest.mark.parametrize("unit", [1e-3, 1e-6, 1e-9])
def test_a_direction_that_only_the_ridge_of_a_large_copy_sees(unit):
    """The copy in small units has no penalty, and takes all of the effect."""
    rng = np.random.default_rng(4)
    x, z = rng.normal(size=(2, 400))
    X = np.column_stack([x, z, unit * x, 2 * z])
    y = rng.poisson(np.exp(0.5 * x - 0.5)).astype(float)
    ridge = np.array([1e-3, 0.0, 0.0, 0.0])
    model = fastglm.GLM(
        regularizer="Ridge", regularizer_strength=ridge, solver_name="newton-cholesky"
    )
    holds(model.fit(X, y), receiver(X, y, "exp", ridge=ridge))
    assert abs(np.ravel(model.coef_)[0]) < 1e-8


@pytest.mark.parametrize("regularizer", ["Lasso", "Ridge"])
def test_a_first_decrement_may_fall_as_slowly_as_any(regularizer):
    """Fits that go on near an optimum at infinity: counts are 0 where a feature is large."""
    rng = np.random.default_rng(0)
    up, y = silent_at_different_sizes(rng, 300, 0.3, 0.5)
    X = np.column_stack([up, rng.normal(size=300)])
    kwargs = {"regularizer": regularizer, "regularizer_strength": 1e-7}
    kwargs["solver_name"] = "newton-cholesky"
    ridge, groups = (1e-7, ()) if regularizer == "Ridge" else (0.0, lasso([1e-7, 1e-7]))
    init = None
    for tol in np.logspace(-2, -8, 19):  # each fit begins where the last one ended
        model = fastglm.GLM(solver_kwargs={"tol": tol}, **kwargs).fit(X, y, init)
        holds(model, receiver(X, y, "exp", ridge, groups))
        init = np.ravel(model.coef_), np.ravel(model.intercept_)


def test_entries_of_rounding_leave_a_direction_one_by_one():
    """A small entry that is needed does not keep the others, which are large in small units."""
    rng = np.random.default_rng(0)
    x, w, z = rng.normal(size=(3, 300))
    far = 1e9 + 20 * (x + 1e-7 * w)
    X = np.column_stack([x, far, w, 1e-7 * z])
    y = (0.7 * x + 0.5 * z + rng.normal(size=300)).astype(float)
    model = fastglm.GLM(observation_model="Gaussian", solver_name="newton-cholesky").fit(X, y)
    moved = np.ravel(model.coef_) * X.std(axis=0)
    np.testing.assert_allclose(np.ravel(model.coef_)[1], 20 * np.ravel(model.coef_)[0], rtol=1e-3)
    assert np.abs(moved).max() < 1.0


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("strength", [1e-5, 1e-3])
def test_a_direction_that_only_rows_see_is_in_the_claim_of_a_sparse_fit(strength):
    """Columns add up to a covariate far from zero, whose variance their products do not hold."""
    rng = np.random.default_rng(1)
    z, place = rng.normal(size=400), rng.integers(4, size=400)
    X = (8e8 + z)[:, None] * (place[:, None] == np.arange(4))
    y = rng.poisson(np.exp(0.5 * z - 0.5)).astype(float)
    model = fastglm.GLM(
        regularizer="Lasso",
        regularizer_strength=strength,
        solver_name="newton-cholesky",
        solver_kwargs={"tol": 1e-6},
    ).fit(X, y)
    gap, _ = gap_of(model, receiver(X, y, "exp", groups=lasso([strength] * 4)))
    claim = model.newton_decrement_[0] if model.converged_[0] else np.inf
    assert gap <= 2 * claim + 1e-9


def test_a_hidden_slope_counts_where_the_rows_see_the_direction():
    schur, zero = np.ones((2, 2)), np.zeros(2)
    model = Model(schur, zero, zero, np.arange(3), zero)
    rounding = zero, np.full(2, 1e-12)
    asked = []
    assert model.gap(zero, zero, 1e3, rounding, lambda *of: asked.append(of)) == 0
    n, least = asked[0]
    assert n == 1
    assert 0 < least < 1e-13
    assert model.gap(zero, zero, 1e3, rounding, lambda *of: True) > 1e-10


def test_rows_see_directions_that_are_not_theirs_alone():
    """Curvatures take a hundredth of a square; a direction that is collinear in rows counts not."""
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=(3, 200))
    X = np.column_stack([a, a + 1e-6 * b, c, c])
    problem = exact_of(fastglm.PopulationGLM(), X, rng.poisson(1.0, size=200))
    features = np.arange(4)
    assert problem.sees(features, 2, 1e-13)
    assert not problem.sees(features, 2, 1e-15)
    assert not problem.sees(features, 1, 1e-13)  # the copies
    assert not problem.sees(features[2:], 1, 1.0)


@pytest.mark.parametrize("regularizer", ["UnRegularized", "Ridge", "Lasso", "GroupLasso"])
@pytest.mark.parametrize("products", ["events", "rows"])
@pytest.mark.parametrize("unit", [1e-25, 1e-19, 1e19, 1e25])
def test_units_whose_squares_float32_does_not_hold(regularizer, products, unit):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 4))
    X[:, 1] += X[:, 0]
    y = rng.poisson(np.exp(X @ [0.4, -0.3, 0.2, 0.0] - 1)).astype(float)
    power = {"UnRegularized": 0, "Ridge": 2}.get(regularizer, 1)
    objectives = []
    for size in (1.0, unit):
        chosen = GroupLasso(mask=np.kron(np.eye(2), np.ones(2)))
        model = fastglm.GLM(
            regularizer=chosen if regularizer == "GroupLasso" else regularizer,
            regularizer_strength=0.03 * size**power if power else None,
            solver_name="newton-cg",
            solver_kwargs={"products": products},
        ).fit(X * size, y)
        assert model.converged_.all()
        objectives.append(model.objective_[0])
    np.testing.assert_allclose(*objectives, rtol=1e-12)


def test_a_column_whose_square_float32_does_not_hold_among_others():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    y = rng.poisson(np.exp(X @ [0.4, -0.3, 0.0] - 0.5)).astype(float)
    X[:, 0] *= 1e20
    model = fastglm.GLM(
        regularizer="Ridge", regularizer_strength=1e36, solver_name="newton-cg"
    ).fit(X, y)
    holds(model, receiver(X, y, "exp", ridge=1e36))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("seed", [0, 2])
def test_what_rounding_hides_is_in_the_claim_of_a_separated_receiver(seed):
    """Two columns differ by 3e-12 of themselves, and eta is a difference of terms of 1e12."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(60)
    w = rng.standard_normal(60)
    far, rare = 4e3 + 10 * a, (np.arange(60) % 12 == 0) * 1.0
    X = np.column_stack([far, np.linspace(-1, 1, 60), far * (1 + 3e-12 * w), a**2 - 1, rare])
    y = rng.random(60) < 1 / (1 + np.exp(-X[:, 3] - 0.5 * a - w))
    y[rare > 0] = 0
    model = fastglm.GLM(observation_model="Bernoulli").fit(X, y.astype(float))
    assert model.status_ == "separated"
    gap, best = gap_of(model, receiver(X, y.astype(float), "logistic"))
    claim = model.newton_decrement_[0]
    assert 1e-9 < claim < 1e-6
    assert gap <= 2 * claim + 1e-11 * best.scale


def test_a_search_that_ends_above_constant_rates_begins_there_again(monkeypatch):
    """Whatever its decrement says."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 3))
    y = rng.poisson(np.exp(0.5 * X[:, 0] - 0.5)).astype(float)
    search = batch._Fit._minimize

    def astray(self, problem, *args, **kwargs):
        result = search(self, problem, *args, **kwargs)
        if problem.method == EventProblem.method:
            result.coef[:], result.intercept[:] = 40.0, 1e3
            result.objective[:], result.newton_decrement[:] = 1e200, 1e180
            result.status[:] = "stalled"
        return result

    monkeypatch.setattr(batch._Fit, "_minimize", astray)
    holds(fastglm.GLM(solver_name="newton-cg").fit(X, y), receiver(X, y, "exp"))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("solver", ["newton-cg", "auto"])
@pytest.mark.parametrize(("part", "effect"), [(1e-9, 3e-5), (1e-10, 3e-4), (1e-8, 0.5)])
def test_rows_judge_a_direction_whose_square_is_rounding(part, effect, solver):
    """``X'X`` takes it for collinear, and the slope along it is hidden beside the columns."""
    rng = np.random.default_rng(0)
    h, w = rng.exponential(size=300), rng.normal(size=300)
    X = np.column_stack([h, 1e5 * (1 + part * w) * h])
    y = 0.3 * h + effect * w * h
    model = fastglm.GLM(observation_model="Gaussian", solver_name=solver).fit(X, y)
    gap, best = gap_of(model, receiver(X, y, "identity"))
    claim = model.newton_decrement_[0] if model.converged_[0] else np.inf
    assert gap <= 2 * claim + 1e-9 * best.scale


@pytest.mark.parametrize("regularizer", ["UnRegularized", "Lasso"])
def test_few_steps_leave_some_for_the_judge_of_a_loose_tolerance(monkeypatch, regularizer):
    rng = np.random.default_rng(3)
    X = rng.normal(size=(200, 2))
    y = rng.poisson(np.exp(0.3 * X[:, 0])).astype(float)
    judged, exact = [], batch._Fit._exact

    def asked(self, rest, penalty):
        judged.extend(rest)
        return exact(self, rest, penalty)

    monkeypatch.setattr(batch._Fit, "_exact", asked)
    strength = None if regularizer == "UnRegularized" else 1e-3
    fastglm.GLM(
        regularizer=regularizer,
        regularizer_strength=strength,
        solver_name="newton-cg",
        solver_kwargs={"tol": 1e-4, "maxiter": 9},
    ).fit(X, y)
    assert judged == [0]


@pytest.mark.parametrize("seed", [0, 8])
def test_weights_that_differ_much_where_exact_hessians_cost_too_much(seed, monkeypatch):
    """The first decrement below the tolerance may be one of a poor curvature."""
    monkeypatch.setattr(
        batch._Fit, "_cheap", lambda self, result, part=1.0: np.zeros(result.status.size, bool)
    )
    test_a_loose_tolerance_with_weights_that_differ_much(seed)


def test_a_model_without_a_minimum_ends_the_search_on_the_sample():
    """No further pass would change it, and exact Hessians find the optimum from there."""
    rng = np.random.default_rng(3)
    z = rng.normal(size=(600, 1))
    basis = fastglm.basis.RaisedCosineLogConv(2, 5) * fastglm.basis.IdentityEval()
    X = basis.compute_features(np.full((600, 1), 2.0), 1e8 + z)
    y = rng.poisson(np.exp(0.5 * z[:, 0] - 0.5)).astype(float)
    model = fastglm.GLM(regularizer="Lasso", regularizer_strength=1e-9, solver_name="newton-cg")
    holds(model.fit(X, y), receiver(X, y, "exp", groups=lasso([1e-9] * 2)))
    assert model.n_passes_[0] < 30


def test_losses_of_bins_are_those_of_columns_far_from_zero():
    """The rows of exact Hessians are centred, the coefficients are not."""
    rng = np.random.default_rng(0)
    basis = fastglm.basis.RaisedCosineLogConv(2, 5) * fastglm.basis.IdentityEval()
    X = basis.compute_features(np.full((200, 1), 2.0), 1e6 + rng.normal(size=(200, 1)))
    rows, coef = np.asarray(X)[X.valid], np.array([0.5, -0.3])
    y, intercept = rng.poisson(1.0, size=200).astype(float), 1.0 - rows.mean(axis=0) @ coef
    problem = exact_of(fastglm.PopulationGLM(), X, y)
    assert problem.shift.any()
    eta, share, excess, *_ = (
        np.concatenate(part) for part in zip(*problem.losses(0, coef, intercept), strict=True)
    )
    expected, y = rows @ coef + intercept, y[X.valid]
    np.testing.assert_allclose(eta, expected, atol=1e-8)
    np.testing.assert_allclose(share, 1 / len(rows))
    least = np.where(y > 0, y - y * np.log(np.where(y > 0, y, 1.0)), 0.0)
    np.testing.assert_allclose(excess, np.exp(expected) - y * expected - least, atol=1e-6)


@pytest.mark.parametrize("link", ["exp", "logistic"])
def test_no_gap_is_left_at_the_optimum_of_a_lasso(link):
    """Features at zero have a slope, which the weights of their norms hold."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 4))
    y = (rng.random(150) < 1 / (1 + np.exp(-X[:, 0]))).astype(float)
    family = "Poisson" if link == "exp" else "Bernoulli"
    model = fastglm.PopulationGLM(family, regularizer="Lasso", regularizer_strength=0.1)
    best = oracle.solve(receiver(X, y, link, groups=lasso([0.1] * 4)))
    assert 0 < np.count_nonzero(best.coef) < 4
    at = best.coef[:, None], np.array([best.intercept])
    bound, away = gap_at_infinity(exact_of(model, X, y), np.arange(1), *at)
    assert not away.any()
    assert bound[0] < 1e-14
