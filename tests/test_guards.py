"""Single lines that hold a promise: each of these tests fails if its line is left out."""

import copy
import tracemalloc
import types
from statistics import NormalDist

import numpy as np
import pytest

import fastglm
from fastglm._algebra.linear import centre, cho_solve, cholesky, null_spaces
from fastglm._algebra.sampling import BLEND, sample_size
from fastglm._algebra.sparse_model import Model
from fastglm._batches import cost, monitor
from fastglm._batches import fit as batches
from fastglm._batches.cost import Batch
from fastglm._batches.plan import plan_fit
from fastglm._engine import batch, newton, proximal
from fastglm._engine.batch import _Fit
from fastglm._engine.events import EventProblem
from fastglm._engine.exact import DenseProblem
from fastglm._engine.late import _FIRST, LateReceivers
from fastglm._engine.lbfgs import Steps
from fastglm._engine.observed import Observed
from fastglm._engine.preconditioner import SampleProblem, SingleProblem
from fastglm._engine.quadratic import Normal, QuadraticProblem
from fastglm._engine.result import SETTLED, USABLE
from fastglm._engine.rows import Rows
from fastglm._engine.shared import Spectrum
from fastglm._inputs import read_mask, read_penalty, read_problem
from fastglm._kernels import LANES
from fastglm._penalty import Penalty, ridge
from fastglm._products.kinds import kind_of
from fastglm._products.local import Local
from fastglm.features import Events
from fastglm.features.history import HistoryColumns
from fastglm.features.matrix import FeatureMatrix, as_feature_matrix
from fastglm.inference import Uncertainty
from fastglm.observation_models import (
    BernoulliObservations,
    GaussianObservations,
    PoissonObservations,
)
from fastglm.recordings.intervals import check_segments
from fastglm.recordings.stream import SpikeFile
from fastglm.recordings.trains import count_events
from fastglm.recordings.units import read_units

PATHS = ["newton-cholesky", "newton-cg"]


# --- the search ---


class Uphill:
    """A flat parabola in sums that are rounded to 1e-6, and a step up its slope."""

    method, exact, rough, polish, n_passes = "test", False, False, 0, 1
    plain, rounding, floor = np.zeros(1, bool), np.full(1, 1e-6), np.zeros(1)

    def __init__(self, certain):
        self.certain = np.array([certain])

    def expect(self, receivers, decrement):
        pass

    def evaluate(self, active, coef, intercept):
        return 1 + 0.5 * (coef**2).sum(axis=0), coef.copy(), np.zeros(1)

    def step(self, moved, grad, grad_intercept, tol, polishing):
        return grad, grad_intercept, np.full(1, 1e-3), 0

    def harmless(self, active, grad, grad_intercept):
        return np.zeros(active.size, bool)


@pytest.mark.parametrize("certain", [False, True])
def test_a_step_uphill_is_stalled(certain):
    """Rounding would hide the rise of the objective, and the search would climb."""
    start = np.full((1, 1), 1e-3)
    result = newton.minimize(Uphill(certain), start, np.zeros(1), 1e-16, 50)
    assert list(result.status) == ["stalled"]
    assert result.n_passes[0] <= 2  # the second sums an uncertain point in float64
    np.testing.assert_array_equal(result.coef, start)


def test_a_start_that_is_worse_than_the_retreat_is_given_up():
    problem = Uphill(True)
    problem.rounding = np.zeros(2)
    search = newton.Search(problem, np.array([[3.0, 0.1]]), np.array([0.5, 0.5]), 1e-16, 50)
    search.begin(np.full((1, 2), 0.2), np.full(2, 0.7), np.full(2, 1.1))
    np.testing.assert_array_equal(search.result.coef, [[0.2, 0.1]])
    np.testing.assert_array_equal(search.result.intercept, [0.7, 0.5])


class Overflowing(Uphill):
    """Sums that are not finite in float64, and a step that takes no empty set of receivers."""

    def evaluate(self, active, coef, intercept):
        return np.full(active.size, np.inf), np.zeros(coef.shape), np.zeros(active.size)

    def step(self, moved, grad, grad_intercept, tol, polishing):
        raise AssertionError(f"steps of {moved.size} receivers")


def test_a_stalled_point_whose_float64_sums_overflow_claims_nothing():
    search = newton.Search(Overflowing(False), np.zeros((1, 1)), np.zeros(1), 1e-16, 50)
    search.result.status[:], search.result.newton_decrement[:] = "stalled", 1e-9
    search.settle()
    assert search.result.newton_decrement[0] == np.inf


class Polished(Uphill):
    """An optimum whose further steps raise the objective by more than its rounding."""

    exact, polish, rounding = True, 2, np.full(1, 1e-13)

    def evaluate(self, active, coef, intercept):
        return 1 + 1e-9 * np.abs(coef).sum(axis=0), np.full((1, 1), 1e-10), np.zeros(1)

    def step(self, moved, grad, grad_intercept, tol, polishing):
        return -np.ones((1, 1)), np.zeros(1), np.full(1, 1e-20), 0


def test_a_polish_that_fails_leaves_a_converged_point():
    result = newton.minimize(Polished(True), np.zeros((1, 1)), np.zeros(1), 1e-16, 50)
    assert list(result.status) == ["converged"]
    assert list(result.n_passes) == [2]
    assert result.coef[0, 0] == 0


@pytest.mark.parametrize(
    ("regularizer", "penalty", "away"),
    [
        ("Ridge", lambda c: 0.5e-2 * (c**2).sum(axis=0), 1.0),
        ("Lasso", lambda c: 1e-2 * np.abs(c).sum(axis=0), 0.1),
    ],
)
def test_the_objective_of_a_search_cut_short_is_that_of_its_point(regularizer, penalty, away):
    """Far from the optimum sums run in float32; what is reported does not."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.3, (2000, 3))
    X = fastglm.basis.RaisedCosineLogConv(3, window_size=15).compute_features(counts)
    args = {"regularizer": regularizer, "regularizer_strength": 1e-2, "solver_name": "newton-cg"}
    model = fastglm.PopulationGLM(solver_kwargs={"maxiter": 1}, **args)
    with pytest.warns(match="max_iter"):
        model.fit(X, counts, init_params=(away * rng.normal(size=(9, 3)), np.zeros(3)))
    rows, y = np.asarray(X)[X.valid], counts[X.valid]
    eta = rows @ model.coef_ + model.intercept_
    expected = (np.exp(eta) - y * eta).mean(axis=0) + penalty(model.coef_)
    np.testing.assert_allclose(model.objective_, expected, rtol=1e-13)


class OneGoesOn(Uphill):
    """Two receivers whose first steps change eta by one; then the second one stays where it is."""

    plain = np.ones(2, bool)
    rounding, floor = np.full(2, 1e-13), np.zeros(2)
    left = iter([([-1.0, -1.0], [1.0, 1e-11]), ([-1.0, 0.0], [1.0, 1e-15])])

    def evaluate(self, active, coef, intercept):
        return np.zeros(active.size), np.zeros(coef.shape), np.zeros(active.size)

    def step(self, moved, grad, grad_intercept, tol, polishing):
        step, decrement = next(self.left)
        return np.array([step]), np.zeros(2), np.array(decrement), 0

    def largest_change(self, receivers, step, coef, intercept):
        return np.abs(step[0])


def test_a_receiver_is_judged_by_its_last_step_whoever_goes_on():
    problem = OneGoesOn(True)
    problem.certain = np.ones(2, bool)
    search = newton.Search(problem, np.zeros((1, 2)), np.zeros(2), 1e-14, 50)
    search.advance()
    search.advance()
    assert list(search.result.status) == ["", "separated"]


def problem_of(model, x, y):
    """The problem of a batch of two receivers and three features, by events."""
    read = read_problem(model, as_feature_matrix(x), y)
    tasks = batches.tasks_of(
        read.X, read.observed, read.valid, read.free, [read.penalty], read.settings
    )
    plan = Batch(np.arange(2), "newton-cg", "events", LANES, False, 3, 0.0, 0.0)
    fit = _Fit(tasks.of(plan), None)
    fit._prepare(read.penalty, read.free)
    return fit.problem


def test_a_slope_along_a_collinear_direction_is_not_resolved():
    """The slope is that of the loss, without the penalty."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3))
    y = rng.poisson(np.exp(x @ [[0.4, -0.2], [0.1, 0.3], [0.0, -0.5]] - 1))
    plain = fastglm.PopulationGLM().fit(x, y)
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=0.1)
    problem = problem_of(model, x, y)
    problem.collinear = [None, np.array([[0.6], [0.8], [0.0]])]
    problem.near[:] = False
    for off, expected in (([0, 0, 0], False), ([0.8, -0.6, 0], True), ([0.6, 0.8, 0], True)):
        coef = plain.coef_ + 0.01 * np.array(off)[:, None]
        assert problem.unresolved(coef, plain.intercept_).tolist() == [False, expected]
    problem.near[0] = True
    assert problem.unresolved(plain.coef_, plain.intercept_).tolist() == [True, False]


def test_a_residual_of_zero_does_not_end_the_loop_over_receivers():
    hess = {0: np.diag([2.0, 4.0]), 1: np.diag([8.0, 16.0])}
    sample = types.SimpleNamespace(
        active=np.arange(2), weights=np.ones((5, 2)), free=np.ones((2, 2), bool), _factors={},
        blend=0.0, _kept_hessian=lambda j, *args: (hess[j], None),
        _reduce=lambda data, chosen, dtype: (data.copy(), None, None),
        penalty=ridge(np.zeros(2)),
    )  # fmt: skip
    found = SingleProblem.solve(sample, np.array([[0.0, 8.0], [0.0, 8.0]]), np.arange(2))
    np.testing.assert_allclose(found, [[0, 1], [0, 0.5]], rtol=1e-5)


def test_the_closed_form_is_exact_for_uncorrelated_features_of_any_units():
    variance, level = np.array([1.0, 1e12, 3.0, 1e-12]), np.array([0.5, 2.0])
    penalty = ridge(np.array([0.1, 0.7]))
    shared = types.SimpleNamespace(spectrum=Spectrum(np.diag(variance), 1), diagonal=variance)
    assert (shared.spectrum.unit != 1).any()
    sample = types.SimpleNamespace(
        level=level, penalty=penalty, shared=shared, _pad=lambda values: values
    )
    found = SampleProblem._closed_form(sample, np.ones((4, 2)))
    np.testing.assert_allclose(found, 1 / (level * variance[:, None] + penalty.ridge), rtol=1e-4)


def test_the_closed_form_of_a_single_receiver_solves_its_free_features():
    rng = np.random.default_rng(0)
    root, right = rng.normal(size=(4, 4)), rng.normal(size=(4, 1))
    covariance, chosen = root @ root.T, [0, 2, 3]

    def add_covariance(matrix, level, features):
        matrix += level * covariance[np.ix_(features, features)]

    sample = object.__new__(SingleProblem)
    sample.free, sample.level, sample._even = np.array([[1], [0], [1], [1]], bool), [0.5], {}
    sample.penalty = ridge(np.array([0.3]))
    sample.shared = types.SimpleNamespace(
        diagonal=np.diag(covariance), add_covariance=add_covariance
    )
    hess = 0.5 * covariance[np.ix_(chosen, chosen)] + 0.3 * np.eye(3)
    found = sample._closed_form(right)
    np.testing.assert_allclose(found[chosen], np.linalg.solve(hess, right[chosen]), rtol=1e-4)
    assert found[1, 0] == 0


def test_late_receivers_are_preconditioned_by_their_own_factors():
    problem = types.SimpleNamespace(
        active=np.array([4, 6, 9]),
        late=types.SimpleNamespace(
            has=lambda receivers: receivers == 6, solve=lambda j, residual: j * residual
        ),
        sample=types.SimpleNamespace(solve=lambda residual, columns: 100 * residual),
        off_null=lambda z, place, receivers: z,
    )
    found = EventProblem.precondition(problem, np.ones((2, 4)), np.arange(4))
    np.testing.assert_array_equal(found, [[100, 6, 100, 100]] * 2)


def test_the_factor_of_a_late_receiver_is_that_of_its_own_bins():
    """Curvatures of the bins, the shared covariance and the ridge, without the held feature."""
    rng = np.random.default_rng(0)
    rows, weights = rng.normal(size=(600, 4)) + [0, 1, 2, -3], rng.uniform(0.1, 2, size=600)
    free, ridge_of_both = np.array([[1, 1], [1, 0], [1, 1], [1, 1]], bool), np.array([0.1, 0.3])
    covariance, level = np.diag([1.0, 2.0, 3.0, 4.0]), np.array([0.5, 2.0])

    def add_covariance(matrix, level, features):
        matrix += level * covariance[np.ix_(features, features)]

    late = object.__new__(LateReceivers)
    late.objective = types.SimpleNamespace(
        free=free, n_bins=800, penalty=ridge(ridge_of_both),
        products=types.SimpleNamespace(rows=lambda index, dtype: rows[index].astype(dtype)),
    )  # fmt: skip
    late.sample = types.SimpleNamespace(
        level=level, shared=types.SimpleNamespace(add_covariance=add_covariance)
    )
    late.factors = {1: late._factorise(1, np.arange(600), weights)}
    off = rows[:, free[:, 1]] - np.average(rows[:, free[:, 1]], axis=0, weights=weights)
    schur = (weights * off.T) @ off / 800 + np.diag(BLEND * 2 * np.array([1, 3, 4]) + 0.3)
    expected, right = np.zeros(4), np.array([1.0, 5.0, -2.0, 0.5])
    expected[free[:, 1]] = np.linalg.solve(schur, right[free[:, 1]])
    np.testing.assert_allclose(late.solve(1, right), expected, rtol=1e-4)


def test_late_receivers_of_a_new_fit_begin_anew():
    late = object.__new__(LateReceivers)
    late.factors = {0: "first", 1: "second"}
    late.n_steps, late.n_left = np.array([7, 8]), np.array([9.0, 10.0])
    late.next, late.last = np.array([12, 13]), np.array([1e-3, 1e-4])
    late.forget(np.array([1]))
    assert late.factors == {0: "first"}
    assert (late.n_steps.tolist(), late.n_left.tolist()) == ([7, 0], [9.0, 0.0])
    assert (late.next.tolist(), late.last.tolist()) == ([12, _FIRST], [1e-3, np.inf])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("weight", 10.0 ** np.arange(2, 9))
def test_one_event_in_many_bins_is_not_separated(path, weight):
    """The optimum is far, and finite: the coefficient is the log of the ratio of two rates."""
    model = fastglm.GLM(solver_name=path)
    model.fit([[0], [0], [1], [1]], [1, 0, 0, 1], sample_weight=[weight, weight, weight, 1])
    assert list(model.status_) == ["converged"]
    assert model.coef_[0] == pytest.approx(np.log(2 / (weight + 1)), rel=1e-6)


def test_steps_grow_along_a_direction_without_an_end():
    """Each Newton step along it changes eta by one: to a loss of 1e-10 they would be 27."""
    x = np.random.default_rng(0).normal(size=(300, 2))
    y = (x @ [1.0, 1.0] > 1.2).astype(int)
    model = fastglm.GLM(observation_model="Bernoulli", solver_name="newton-cholesky")
    with pytest.warns(match="separated"):
        model.fit(x, y)
    assert model.n_iter_[0] < 20


class Spheres:
    """Two receivers whose preconditioner is the identity."""

    free, active, rough = np.ones((3, 2), bool), np.arange(2), False
    certain, mean, total, polish = np.zeros(2, bool), np.zeros((3, 2)), np.ones(2), 0

    def claim(self, moved, grad, decrement):
        return decrement

    def precondition(self, residual, columns):
        return residual


def test_steps_along_all_directions_find_the_least_ratio_of_the_curvatures():
    """Of the curvature S to the curvature M that the preconditioner takes it for."""
    rng = np.random.default_rng(2)
    root = np.eye(3) + 0.3 * rng.normal(size=(3, 3))
    M, S = root @ root.T, root @ np.diag([0.4, 0.15, 0.3]) @ root.T

    class Quadratic(Spheres):
        def precondition(self, residual, columns):
            return np.linalg.solve(M, residual)

    problem = Quadratic()
    steps, point = Steps(problem, 2, 1), np.zeros((4, 2))
    point[:3] = 0.1 * rng.normal(size=(3, 2))
    for _ in range(6):
        args = S @ point[:3], np.zeros(2), 1e-16, np.zeros(2, bool)
        step = steps.step(np.arange(2), point.copy(), *args)
        point[:3] += step[0]
    np.testing.assert_allclose(steps.theta, 0.15, rtol=1e-5)


def test_a_receiver_that_begins_anew_forgets_its_steps():
    """The loops over pairs go as far as the receiver with most pairs needs."""
    rng, problem, everyone = np.random.default_rng(0), Spheres(), np.arange(2)
    steps = Steps(problem, 2, 1)
    scale = np.array([[1.0], [2.0], [3.0]])
    for _ in range(12):  # more than the pairs that are kept
        coef = rng.normal(size=(3, 2))
        args = np.vstack([coef, np.zeros(2)]), scale * coef, np.zeros(2), 1e-16, np.zeros(2, bool)
        steps.step(everyone, *args)
    assert list(steps.n_pairs) == [11, 11]
    remembered = steps.step(everyone, *args)[0]
    steps.forget(np.array([0]))
    found = steps.step(everyone, *args)[0]
    np.testing.assert_array_equal(found[:, 0], -args[1][:, 0])
    np.testing.assert_array_equal(found[:, 1], remembered[:, 1])
    assert not np.allclose(remembered[:, 0], found[:, 0])


def test_the_claim_of_a_first_step_bounds_the_gap_of_a_quadratic():
    """The curvature is 1, or half of what the preconditioner takes it for."""
    for curvature in (1.0, 0.5):
        problem, coef = Spheres(), np.array([[1.0, 0.3], [-2.0, 0.1], [0.5, 0.0]])
        steps, point = Steps(problem, 2, 1), np.vstack([coef, np.zeros(2)])
        args = curvature * coef, np.zeros(2), 1e-16, np.zeros(2, bool)
        claim = steps.step(np.arange(2), point, *args)[2]
        gap = 0.5 * curvature * (coef**2).sum(axis=0)
        assert (gap <= claim * (1 + 1e-12)).all()


def test_a_decrement_that_rises_is_separated_only_near_zero():
    """Rounding is left of the curvature where a decrement of 1e-8 rises; far off it may rise."""
    problem = Uphill(True)
    problem.plain = np.ones(4, bool)
    search = newton.Search(problem, np.zeros((1, 4)), np.zeros(4), 1e-16, 50)
    search.fell[:] = 2, 2, 2, 1
    was = np.array([1e-4, 1e-8, 1e-8, 1e-8])
    search._separate(np.arange(4), np.array([1.0, 1e-3, 1e-6, 1e-3]), was)
    assert list(search.result.status) == ["", "separated", "", ""]
    assert 1e-8 <= search.result.newton_decrement[1] < 1e-7  # the last one that was true


def test_a_trace_of_an_event_under_a_feature_is_not_separated():
    x, nonnegative = np.full(3, 4.0), np.ones(3, bool)
    loss = PoissonObservations().loss()
    low, _ = loss.separated(x, 4 * np.array([[1e-9], [1e-17], [0.0]]), nonnegative)
    assert low.ravel().tolist() == [False, True, True]


@pytest.mark.parametrize("path", PATHS)
def test_a_penalty_keeps_a_feature_from_its_limit(path):
    """Features 0 and 1 are active in silent bins only; a ridge pulls the second."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 3))
    x[:, 0], x[:, 1] = rng.random((2, 600)) < [[0.1], [0.2]]
    y = rng.poisson(np.exp(0.3 * x[:, 2] - 0.5))
    y[x[:, :2].any(axis=1)] = 0
    strength = np.array([0, 0.05, 0])
    args = {"regularizer": "Ridge", "solver_name": path}
    with pytest.warns(match="separated"):
        model = fastglm.GLM(regularizer_strength=strength, **args).fit(x, y)
    rest = x[:, 0] == 0  # bins whose rate does not go to 0; the mean loss is over all bins
    args["regularizer_strength"] = strength[1:] / rest.mean()
    other = fastglm.GLM(**args).fit(x[rest, 1:], y[rest])
    assert list(other.status_) == ["converged"]
    np.testing.assert_allclose(model.coef_[1:], other.coef_, atol=1e-6)
    np.testing.assert_allclose(model.intercept_, other.intercept_, atol=1e-6)


def test_rounding_of_a_kernel_is_not_a_value_of_it():
    """A separated coefficient is the eta of rate 0 over the least value of its feature."""
    rng = np.random.default_rng(0)
    counts = (rng.random((2000, 2)) < 0.05).astype(int)
    kernel = np.array([[1.0, 0.2], [1e-17, 1e-17], [0.5, 0.4]])
    X = FeatureMatrix([HistoryColumns(counts[:, :1], kernel)])
    np.testing.assert_allclose(X.smallest_positive(), [0.5, 0.2])
    active = np.asarray(X)[:, 0] > 1e-6
    y = counts[:, 1] * ~active
    with pytest.warns(match="separated"):
        model = fastglm.GLM(feature_mask=[1, 0]).fit(X, y)
    assert -1e3 < model.coef_[0] < 0
    assert model.predict(X)[active].max() < 1e-15
    np.testing.assert_allclose(model.predict(X)[~active], y[~active].mean(), rtol=1e-8)


# --- the start ---


@pytest.mark.parametrize("path", PATHS)
def test_an_offset_that_all_bins_share_costs_no_digits_and_no_passes(path):
    rng = np.random.default_rng(0)
    x, counts = rng.normal(size=(1000, 3)), rng.poisson(1.0, (1000, 2))
    args = {"regularizer": "Ridge", "regularizer_strength": 1e-3, "solver_name": path}
    offset = np.full((1000, 2), [3e6, -2e5])
    plain = fastglm.PopulationGLM(**args).fit(x, counts, offset=0 * offset)
    model = fastglm.PopulationGLM(**args).fit(x, counts, offset=offset)
    np.testing.assert_array_equal(model.n_passes_, plain.n_passes_)
    np.testing.assert_array_equal(model.coef_, plain.coef_)
    np.testing.assert_allclose(model.intercept_ + offset[0], plain.intercept_, atol=1e-9)


@pytest.mark.parametrize("path", ["auto", *PATHS])
@pytest.mark.parametrize("family", ["Poisson", "Bernoulli", "Gaussian"])
def test_the_answer_keeps_nothing_that_the_start_has_along_collinear_features(family, path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2))
    y = (x[:, 0] + rng.normal(size=400) > 0.5).astype(int)
    single = fastglm.GLM(family).fit(x, y)
    expected = single.coef_[[0, 1, 0]] / [2, 1, 2]
    # A start near the optimum; one that is worse than none would be left out.
    start = 0.9 * expected + [7, 0, -7], single.intercept_
    model = fastglm.GLM(family, solver_name=path).fit(x[:, [0, 1, 0]], y, init_params=start)
    assert list(model.status_) == ["converged"]
    np.testing.assert_allclose(model.coef_, expected, atol=1e-6)


def test_large_offsets_do_not_overflow_in_the_start():
    events = Events.of(np.array([[0.0], [3.0], [1.0]]))
    offset = np.array([[-2000.0], [1500.0], [1500.0]])
    loss = PoissonObservations().loss()
    with np.errstate(all="raise", under="ignore"):
        whole = types.SimpleNamespace(valid=np.ones(3, bool))
        start = Observed(events, offset=offset).start(loss, np.array([4 / 3]), whole)
    np.testing.assert_allclose(start, np.log(2) - 1500)


@pytest.mark.parametrize("path", PATHS)
def test_offsets_that_switch_bins_off_and_on(path):
    rng = np.random.default_rng(0)
    on = np.arange(400) % 4 == 0
    x, offset = rng.normal(size=(400, 2)), np.where(on, 900.0, -900.0)
    y = rng.poisson(2.0, 400) * on
    model = fastglm.GLM(solver_name=path).fit(x, y, offset=offset)
    other = fastglm.GLM().fit(x[on], y[on])
    assert list(model.status_) == ["converged"]
    np.testing.assert_allclose(model.coef_, other.coef_, atol=1e-6)
    np.testing.assert_allclose(model.intercept_, other.intercept_ - 900, atol=1e-6)


def test_a_kept_hessian_is_made_anew_where_curvatures_or_features_change():
    class Sample:
        models, free = {}, np.ones((3, 1), bool)
        _worth_keeping = staticmethod(lambda j, features: features)
        _sampled_hessian = staticmethod(lambda j, features, weights, blend: weights + blend)

    def kept(features, level):
        weights = np.full(64, level)
        return SampleProblem._kept_hessian(
            Sample, 0, np.array(features), lambda part: weights[part], 0.0
        )

    first, place = kept([0, 2], 1.0)
    assert list(place) == [0, 1, 2]
    assert kept([0, 2], 1.2)[0] is first
    assert list(kept([2], 1.2)[1]) == [1, 2]
    assert kept([0, 2], 4.0)[0][0] == 4.0
    assert kept([0, 1], 4.0)[0] is not kept([0, 2], 4.0)[0]


@pytest.mark.parametrize("moved", [[0], [1], [0, 1]])
def test_a_kept_hessian_gives_the_change_of_the_gradient_over_the_last_step(moved):
    """Features 1 and 3 are known. The change is that of the loss, without the ridge."""
    data = np.diag([2.0, 3.0, 1.0]).astype(np.float32)
    known, place = np.array([1, 3]), np.array([-1, 0, -1, 1])
    problem = types.SimpleNamespace(
        penalty=ridge(np.array([0.25])),
        sample=types.SimpleNamespace(models={0: (known, place, None, data)}),
        _was_rounded=np.full(1, 1e-6), _learned=np.zeros(1),
    )  # fmt: skip
    step, true = np.zeros((4, 1)), np.array([[4.0, 1, 0.5], [1, 5, 0.2], [0.5, 0.2, 2]])
    step[known[moved], 0] = 0.5
    loss = true @ np.append(step[known, 0], 0.1)
    change = 0.25 * step
    change[known, 0] += loss[:2]
    args = np.array([0]), step, np.array([0.1])
    EventProblem.learn(problem, *args, change, loss[2:])
    np.testing.assert_allclose(data @ np.append(step[known, 0], 0.1), loss, rtol=1e-5)
    learned, step[2] = data.copy(), 1.0  # a feature that is not known
    EventProblem.learn(problem, *args, 2 * change, loss[2:])
    np.testing.assert_array_equal(data, learned)
    step[2], problem._was_rounded[:] = (
        0.0,
        1.0,
    )  # as large as the sums; it is known at the next step
    for _ in range(2):
        EventProblem.learn(problem, *args, 2 * change, loss[2:])
        np.testing.assert_array_equal(data, learned)
        problem._was_rounded[:] = 1e-6
    EventProblem.learn(problem, *args, 2 * change, loss[2:])
    assert (data != learned).any()


@pytest.mark.parametrize("kept", [1 << 28, 0])  # bytes of rows
def test_every_block_of_rows_is_centred(monkeypatch, kept):
    rng = np.random.default_rng(2)
    h, t = rng.normal(size=700), 1e6 + rng.normal(size=700)
    y = rng.poisson(np.exp(0.3 * h - 1))
    monkeypatch.setattr("fastglm._engine.rows._BLOCK_BYTES", 1)  # three blocks of rows
    monkeypatch.setattr("fastglm._engine.rows._DENSE_BYTES", kept)
    products = Local(as_feature_matrix(np.column_stack([h, t])))
    found = Rows(products, Observed(Events.of(y[:, None])))
    np.testing.assert_allclose(found.shift, [0, t.mean()])
    np.testing.assert_allclose(found.size, [np.sqrt((h**2).mean()), t.std()], rtol=1e-9)
    assert found.n_blocks == 3
    centred = np.vstack([block.rows for block in found])
    np.testing.assert_allclose(centred[:, 1], t - t.mean(), atol=1e-8)


def test_directions_are_collinear_where_neither_rows_nor_a_ridge_see_them():
    """The first two features are the same, and the ridge of a receiver may outweigh them."""
    x = np.random.default_rng(0).normal(size=(400, 2))[:, [0, 0, 1]]
    strengths = np.array([[0, 0, 2], [0, 2, 0], [2, 2, 0], [0, 0, 0]]).T
    free, some = np.ones((3, 4), bool), np.array([True, True, True, False])
    found, near = null_spaces(np.cov(x.T), free, Penalty(strengths), some)
    assert not near.any()
    assert [space is None for space in found] == [False, True, True, True]
    np.testing.assert_allclose(np.abs(found[0]), [[np.sqrt(0.5)], [np.sqrt(0.5)], [0]], atol=1e-9)
    np.testing.assert_allclose(x @ found[0], 0, atol=1e-9)


def test_a_ridge_that_float32_does_not_see_calls_for_exact_hessians():
    """The first two features differ by 1e-4 of their size."""
    z = np.random.default_rng(0).normal(size=(400, 3))
    x = np.column_stack([z[:, 0], z[:, 0] + 1e-4 * z[:, 1], z[:, 2]])
    y, strengths = np.tile([[1], [3], [0], [4]], (100, 2)), np.array([1e-9, 1e-3])
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=strengths)
    problem = problem_of(model, x, y)
    for strength, near in zip(strengths, problem.near, strict=True):
        values = np.linalg.eigvalsh(y[:, 0].mean() * np.cov(x.T) + strength * np.eye(3))
        assert near == (values[0] < np.finfo(np.float32).eps * values[-1])
    assert problem.unresolved(np.zeros((3, 2)), np.zeros(2)).tolist() == [True, False]


def test_a_cell_that_fires_in_every_bin_has_a_constant_history():
    """Its variance on sampled bins is rounding, and no curvature is divided by it."""
    rng = np.random.default_rng(0)
    counts, y = (rng.random((500, 8)) < 0.05).astype(int), rng.poisson(0.5, (500, 2))
    counts[:, 0] = 1
    X = fastglm.basis.RaisedCosineLogConv(2, window_size=12).compute_features(counts)
    model = fastglm.PopulationGLM(solver_name="newton-cg").fit(X, y)
    np.testing.assert_allclose(model.coef_[:2], 0, atol=1e-12)
    rows, valid = np.asarray(X)[X.valid], X.valid
    slope = rows.T @ (np.exp(rows @ model.coef_ + model.intercept_) - y[valid]) / valid.sum()
    np.testing.assert_allclose(slope, 0, atol=1e-6)


def test_a_search_from_constant_rates_takes_no_pass_beside_its_own(monkeypatch):
    """Its bins did not begin at infinity, and exact Hessians of many features would take long."""
    rng, passes = np.random.default_rng(0), []
    x = rng.normal(size=(3000, 3))
    y = rng.poisson(np.exp(x @ [2.0, 1.0, 0.5] - 2))
    evaluate = EventProblem.evaluate
    monkeypatch.setattr(EventProblem, "evaluate", lambda *args: passes.append(1) or evaluate(*args))
    model = fastglm.PopulationGLM(solver_name="newton-cg", solver_kwargs={"tol": 1e-12})
    model.fit(x, y[:, None])
    assert list(model.status_) == ["converged"]
    assert np.exp(x @ model.coef_).min() < 1e-4 * np.exp(x @ model.coef_).mean()
    assert model.n_passes_[0] == len(passes)


# --- paths of penalties ---


@pytest.mark.parametrize("family", ["Poisson", "Bernoulli"])
def test_the_sample_of_the_next_penalty_has_the_gradient_of_all_events(family):
    """It is given at the last optimum. Elsewhere it is the slope of the objective."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3))
    y = (rng.random((300, 2)) < 0.3).astype(float)
    model = fastglm.PopulationGLM(family, regularizer="Ridge", regularizer_strength=0.1)
    sample, both = problem_of(model, x, y).sample, np.arange(2)
    coef, intercept = 0.3 * rng.normal(size=(3, 2)), np.array([-1.0, -0.5])
    given, given_intercept = rng.normal(size=(3, 2)), np.array([0.3, -0.2])
    sample.begin_near(coef, intercept, given, given_intercept)
    _, grad, grad_intercept = sample.evaluate(both, coef, intercept)
    np.testing.assert_allclose(grad, given + 0.1 * coef, atol=1e-5)
    np.testing.assert_allclose(grad_intercept, given_intercept, atol=1e-5)
    step, along = 0.3 * rng.normal(size=(3, 2)), np.array([0.2, -0.3])
    *ends, middle = (
        sample.evaluate(both, coef + t * step, intercept + t * along) for t in (0.9, 1.1, 1.0)
    )
    slope = (middle[1] * step).sum(axis=0) + middle[2] * along
    np.testing.assert_allclose((ends[1][0] - ends[0][0]) / 0.2, slope, rtol=1e-2)


def path_of(model, strengths, guide=None):
    """Results of the fits of one problem with several strengths, each from the one before."""
    rng = np.random.default_rng(3)
    counts = rng.poisson(0.2, (3000, 3))
    counts[1:, 0] += 2 * (rng.random(2999) < 0.3 * counts[:-1, 1])
    X = fastglm.basis.RaisedCosineLogConv(4, window_size=20).compute_features(counts)
    problem = read_problem(model, X, counts)
    penalties = [read_penalty(model, X, problem.free, strength) for strength in strengths]
    return batches.fit_penalties(
        X, problem.observed, problem.valid, problem.free, penalties, problem.settings, guide=guide
    )


def test_a_guide_at_the_optimum_is_where_a_fit_begins():
    model = fastglm.PopulationGLM(regularizer="Ridge", solver_name="newton-cg")
    strengths = [1e-2, 1e-3, 1e-4]
    found = path_of(model, strengths)
    again = path_of(model, strengths, guide=found)
    # The fits without a guide took six to eight.
    assert max(result.n_passes.max() for result in again) <= 5
    for ours, theirs in zip(again, found, strict=True):
        np.testing.assert_allclose(ours.coef, theirs.coef, atol=1e-7)


@pytest.mark.parametrize(("path", "n_passes"), [("newton-cholesky", 0), ("newton-cg", 1)])
def test_the_same_sparse_penalty_again_takes_no_pass(path, n_passes):
    """The next fit begins with the objective and the gradient at the end of the last one.

    With sums in both precisions one pass in float64 makes the certificate.
    """
    model = fastglm.PopulationGLM(regularizer="Lasso", solver_name=path)
    first, again = path_of(model, [1e-2, 1e-2])
    assert set(first.status) == set(again.status) == {"converged"}
    assert again.n_passes.max() == n_passes
    np.testing.assert_allclose(again.coef, first.coef, atol=1e-7)
    np.testing.assert_allclose(again.objective, first.objective, rtol=1e-14)


def test_what_is_separated_is_so_at_every_penalty_of_a_path():
    """A sum of the first two features tells the events apart, and neither has a penalty."""
    x = np.random.default_rng(0).normal(size=(300, 4))
    y = (x[:, 0] + x[:, 1] > 1.2).astype(int)
    penalty = fastglm.regularizer.GroupLasso(np.array([[0, 0, 1, 1]]))
    model = fastglm.GLM("Bernoulli", regularizer=penalty, solver_name="newton-cholesky")
    path = fastglm.model_selection.regularization_path(model, x, y, [0.1, 0.01])
    assert path.status.ravel().tolist() == ["separated", "separated"]


@pytest.mark.parametrize("path", PATHS)
def test_a_path_of_penalties_makes_its_problem_once(monkeypatch, path):
    """What it keeps would be made again: rows, sampled bins and Hessians."""
    kind = DenseProblem if path == "newton-cholesky" else EventProblem
    made, make = [], kind.__init__
    monkeypatch.setattr(kind, "__init__", lambda self, *args: made.append(1) or make(self, *args))
    path_of(fastglm.PopulationGLM(regularizer="Ridge", solver_name=path), [1e-1, 1e-2, 1e-3])
    assert len(made) == 1


def test_exact_hessians_take_over_with_the_penalties_of_the_receiver(monkeypatch):
    last = np.array([False, False, True])
    monkeypatch.setattr(EventProblem, "unresolved", lambda *args: last)
    strengths = np.array([[1e-3, 1e-2, 5e-2], [5e-4, 5e-3, 1e-3]])
    found, expected = (
        path_of(fastglm.PopulationGLM(regularizer="Lasso", solver_name=path), strengths)
        for path in ("newton-cg", "newton-cholesky")
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert list(ours.method == "newton-cholesky") == list(last)
        np.testing.assert_allclose(ours.coef, theirs.coef, atol=1e-6)


@pytest.mark.parametrize(("module", "regularizer"), [(proximal, "Lasso"), (batch, "Ridge")])
def test_a_fit_that_has_not_ended_goes_on_with_exact_hessians(monkeypatch, module, regularizer):
    minimize = module.minimize

    def short(problem, first, second, tol, maxiter, *args):
        maxiter = 1 if problem.method == "newton-cg" else maxiter
        return minimize(problem, first, second, tol, maxiter, *args)

    monkeypatch.setattr(module, "minimize", short)
    found, expected = (
        path_of(fastglm.PopulationGLM(regularizer=regularizer, solver_name=path), [5e-3])[0]
        for path in ("newton-cg", "newton-cholesky")
    )
    assert set(found.method) == {"newton-cholesky"}
    assert set(found.status) == {"converged"}
    np.testing.assert_allclose(found.coef, expected.coef, atol=1e-6)


@pytest.mark.parametrize("budget", [1e5, 4e5, 1e9])
def test_exact_hessians_of_a_batch_fit_into_a_quarter_of_the_memory(budget):
    """A Hessian, its factor and their copies are 32 bytes an entry."""
    fit = types.SimpleNamespace(
        products=types.SimpleNamespace(shape=(1000, 24)),
        settings=types.SimpleNamespace(memory_budget=budget),
    )
    result = types.SimpleNamespace(status=np.array(["max_iter", "interrupted"] + ["stalled"] * 10))
    rest = np.ones(12, bool)
    rest[4] = False
    groups = _Fit._at_once(fit, rest, result)
    assert np.concatenate(groups).tolist() == [0, 2, 3, 5, 6, 7, 8, 9, 10, 11]
    assert max(len(group) for group in groups) == min(budget / 4 // (32 * 25**2), 10)


def test_a_constant_feature_has_no_covariance():
    """Its variance and its covariances would be rounding of its mean square."""
    x = np.random.default_rng(0).normal(size=(500, 3)).astype(float)
    x[:, 1] = 1234.567
    gram = x.T @ x / 500
    centre(gram, x.mean(axis=0))
    assert not gram[1].any()
    assert not gram[:, 1].any()
    np.testing.assert_allclose(gram, np.cov(x.T, bias=True), atol=1e-11)


def test_a_curvature_below_zero_by_rounding_bounds_no_gap():
    """Along it the model falls by no more than its slope times the distance that is left."""
    model = Model(np.diag([-1e-18, 4.0]), np.zeros(2), np.zeros(2), np.arange(3), np.zeros(2))
    slope, reach = np.array([0.5, 2.0]), np.full(2, 3.0)
    gap = model.gap(np.zeros(2), slope, reach, (np.zeros(2), np.zeros(2)))
    assert gap == pytest.approx(0.5 * 3 + 2.0**2 / (2 * 4), rel=1e-12)


def test_the_inverse_of_a_singular_matrix_is_finite():
    factor = cholesky(np.array([[4.0, 0, 0], [0, 0, 0], [0, 0, 1e-8]]))
    np.testing.assert_allclose(cho_solve(factor, np.array([8.0, 0, 3e-8])), [2, 0, 3], rtol=1e-9)


def test_the_preconditioner_of_a_path_has_the_present_ridge():
    """With the ridge of the first fit, each step of the second would be far too long."""
    model = fastglm.PopulationGLM(regularizer="Ridge", solver_name="newton-cg")
    _, second = path_of(model, [1e-6, 10.0])
    assert set(second.status) == {"converged"}
    assert second.n_passes.max() <= 6


@pytest.mark.parametrize("scale", [np.ones(5), np.array([1, 1e6, 1, 3, 1e-6])])
def test_the_spectrum_is_that_of_the_covariance_in_any_units(scale):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(50, 5)) + rng.normal(size=(50, 1))) * scale
    covariance, level, ridge = np.cov(x.T), np.array([0.5, 2.0]), np.array([0.1, 3.0])
    spectrum, right = Spectrum(covariance.copy(), 1), rng.normal(size=(5, 2))
    unit = spectrum.unit
    found = spectrum.solve(level, ridge, unit[:, None] * right) * unit[:, None]
    for k in range(2):
        scaled = level[k] * covariance / np.outer(unit, unit) + ridge[k] * np.eye(5)
        expected = np.linalg.solve(scaled, right[:, k])
        np.testing.assert_allclose(found[:, k], expected, rtol=1e-4, atol=1e-5)
    found = spectrum.covariance(right / unit[:, None]) / unit[:, None]
    expected = covariance / np.outer(unit, unit) @ right
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    products = types.SimpleNamespace(rows=lambda index, dtype: x[index].astype(dtype))
    leverage = spectrum.leverage(products, np.arange(50), x.mean(axis=0))
    off = (x - x.mean(axis=0)) / scale
    expected = np.einsum("ti,ti->t", off, np.linalg.solve(off.T @ off / 49, off.T).T)
    np.testing.assert_allclose(leverage, expected, rtol=1e-3)


@pytest.mark.parametrize("regularizer", [None, "Ridge", "Lasso"])
def test_the_gradient_of_a_quadratic_fit_is_that_of_its_mask(regularizer):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    model = fastglm.GLM("Gaussian", regularizer=regularizer, feature_mask=[1, 0, 1])
    if regularizer:
        model.set_params(regularizer_strength=0.1)
    model.fit(x, x @ [1.0, -1.0, 0.5] + rng.normal(size=200))
    assert model.grad_norm_[0] < 1e-8


# --- interrupts and checkpoints ---


def two_batches():
    """Counts of two receivers, whose missing counts put them in batches of their own."""
    rng = np.random.default_rng(1)
    x, offset = rng.normal(size=(300, 2)), 3 + rng.normal(size=300)
    counts = rng.poisson(1.0, (300, 2)).astype(float)
    counts[10:20, 1] = np.nan
    return x, counts, offset


def test_an_interrupt_gives_offsets_back_to_the_intercept(monkeypatch):
    x, counts, offset = two_batches()
    whole = fastglm.PopulationGLM().fit(x, counts, offset=offset)
    fit_task, calls = batches.fit_task, []

    def first_only(*args):
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        return fit_task(*args)

    monkeypatch.setattr(batches, "fit_task", first_only)
    half = fastglm.PopulationGLM()
    with pytest.raises(KeyboardInterrupt, match="1 of 2 receivers finished"):
        half.fit(x, counts, offset=offset)
    done = half.status_ == "converged"
    assert done.sum() == 1
    np.testing.assert_array_equal(half.intercept_[done], whole.intercept_[done])
    np.testing.assert_array_equal(half.coef_[:, done], whole.coef_[:, done])


def test_what_is_saved_inside_a_batch_does_not_count_as_finished(monkeypatch, tmp_path):
    """A batch may still change what it has: it has not ended when its results are saved."""
    monkeypatch.setattr(monitor, "_SAVE_EVERY", -1.0)
    monkeypatch.setattr(monitor, "_SAVE_PART", 0.0)
    x, counts, _ = two_batches()
    fit_task = batches.fit_task

    def and_stop(*args):
        fit_task(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(batches, "fit_task", and_stop)
    half = fastglm.PopulationGLM()
    with pytest.raises(KeyboardInterrupt, match="0 of 2 receivers finished"):
        half.fit(x, counts, checkpoint=tmp_path / "fit.checkpoint")
    assert (tmp_path / "fit.checkpoint").exists()
    assert list(half.status_) == ["interrupted"] * 2


# --- the plan ---


def test_the_plan_holds_the_factors_of_late_receivers(monkeypatch):
    counts = np.random.default_rng(0).poisson(0.02, (2000, 40))
    X = fastglm.basis.RaisedCosineLogConv(5, window_size=20).compute_features(counts)
    model = fastglm.PopulationGLM(
        solver_name="newton-cg", regularizer="Ridge", memory_budget="200MB"
    )
    problem = read_problem(model, X, counts)

    def peak():
        products = Local(X, X.valid)
        return plan_fit(products, np.arange(40), problem.free, problem.settings).peak_bytes

    n_own = min(cost.n_own_factors(200, 200e6), 40)
    assert n_own > 0
    whole = peak()
    monkeypatch.setattr(cost, "n_own_factors", lambda *args: 0)
    assert whole - peak() >= n_own * np.zeros((200, 200), np.float32).nbytes


# --- inference ---


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_bands_have_their_level(level):
    deviation, kernel = np.array([0.5, 2.0]), np.array([[1.0, 0.0], [0.0, 3.0]])
    found = Uncertainty(
        np.array([[1.0], [-1.0]]), deviation[:, None], np.ones(1), "observed", np.zeros(2, int),
        [np.diag(deviation**2)[None]],
    )  # fmt: skip
    value, lower, upper = (v.ravel() for v in found.bands(kernel, level))
    half = NormalDist().inv_cdf(0.5 + level / 2) * kernel @ deviation
    np.testing.assert_allclose(value, [1.0, -3.0])
    np.testing.assert_allclose(upper - value, half)
    np.testing.assert_allclose(value - lower, half)


def test_a_history_spans_the_bins_that_see_an_event():
    counts = np.zeros((40, 2))
    counts[[7, 20, 21], [1, 0, 1]] = 1
    X = fastglm.basis.HistoryConv(5).compute_features(counts)
    seen = np.flatnonzero(np.nan_to_num(np.asarray(X)).any(axis=1))
    (block,) = X.blocks
    assert isinstance(block, HistoryColumns)
    assert kind_of(block).span(block, 40) == (seen[0], seen[-1] + 1) == (8, 27)


def test_coefficients_of_few_effective_events_are_counted_in_words():
    nothing = np.zeros((3, 1)), np.ones((3, 1)), np.ones(1), "robust", np.zeros(3, int), []
    said = "2 of 3 coefficients have fewer than 30 effective events"
    assert said in repr(Uncertainty(*nothing, np.array([[3.0], [29.9], [30.0]])))
    for enough in (None, np.array([[30.0], [1e3], [np.nan]])):
        assert repr(Uncertainty(*nothing, enough)).endswith("standard errors 1")


# --- products ---


LOSSES = [
    (family, link)
    for family in (PoissonObservations, BernoulliObservations, GaussianObservations)
    for link in family.losses
]


@pytest.mark.parametrize("precise", [False, True])
@pytest.mark.parametrize(("family", "link"), LOSSES)
def test_a_loss_without_a_kernel_has_the_sums_of_its_formulas(family, link, precise):
    rng = np.random.default_rng(0)
    counts = (rng.random((500, 3)) < 0.3).astype(float)
    X = fastglm.basis.RaisedCosineLogConv(2, window_size=10).compute_features(counts)
    valid = X.valid & (rng.random(500) < 0.8)
    weight, offset = rng.uniform(0.5, 2, 500), rng.normal(size=(500, 3))
    observed = Observed(Events.of(counts), weight, offset).within(valid)
    coef, intercept = rng.normal(size=(6, 2)) / 2, np.array([-1.0, 0.2])
    loss, receivers = family().loss(link), np.array([0, 2])
    plain = copy.copy(loss)
    plain.kernel = None
    expected, found = (
        Local(X, valid).passes(3).evaluate(observed, some, receivers, coef, intercept, precise)
        for some in (loss, plain)
    )
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12 if precise else 1e-4)


@pytest.mark.parametrize("every", [1, 4, 100])
def test_ranges_of_a_spike_file_may_end_after_its_spikes(tmp_path, every):
    times, units = np.array([0.05, 0.15, 0.16, 1.25]), np.array([0, 1, 0, 1], np.int32)
    times.tofile(tmp_path / "times")
    units.tofile(tmp_path / "units")
    file = SpikeFile.scan(str(tmp_path / "times"), str(tmp_path / "units"), 2, 0.1, every)
    expected = fastglm.bin_spikes(times, units, 0.1, n_units=2, t_stop=5.0)
    for first, stop in ((0, 50), (12, 40), (2, 12), (20, 50)):
        found = file.read(first, stop).toarray()
        np.testing.assert_array_equal(found, expected[first:stop])


# --- input ---


@pytest.mark.parametrize("row", [0, 4095, 4096, 4999])
def test_a_table_of_traces_is_checked_to_its_end(row):
    y = np.zeros((5000, 2))
    y[row, 1] = np.inf
    model = fastglm.PopulationGLM("Gaussian")
    with pytest.raises(ValueError, match=f"inf in bin {row} of receiver 1"):
        model.fit(np.ones((5000, 1)), y)


def test_a_mask_of_labels_needs_the_features():
    model = fastglm.GLM(feature_mask={"speed": [1]})
    with pytest.raises(ValueError, match="pass the features X as well"):
        read_mask(model, (2, 1))


def test_the_statuses_that_are_settled_and_usable():
    ended = {"converged", "separated", "underdispersed"}
    assert set(SETTLED) == {*ended, "silent", "saturated"}
    assert set(USABLE) == {*ended, "max_iter", "stalled", "imported"}


# --- recordings ---


def test_a_spike_after_the_end_of_a_segment_is_left_out():
    """The last bin may reach beyond the segment."""
    times, unit = np.array([0.24, 0.26, 1.24, 1.26]), np.zeros(4, int)
    segments, lengths = np.array([[0, 0.25], [1, 1.25]]), np.array([3, 3])
    events = count_events(times, unit, 1, 0.1, segments, lengths, 1e-7)
    assert events.toarray().ravel().tolist() == [0, 0, 1, 0, 0, 1]


def test_a_warning_names_five_units_and_the_number_of_the_others(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "session.nwb"
    with h5py.File(path, "w") as file:
        file["units/id"] = np.arange(20, 28)
        file["units/spike_times"] = np.tile([1.0, 0.5], 8)
        file["units/spike_times_index"] = np.arange(2, 17, 2)
    with pytest.warns(match="units 20, 21, 22, 23, 24 and 3 more were not in order of time"):
        found = fastglm.load_spikes(path)
    np.testing.assert_array_equal(found.spike_times, np.tile([0.5, 1.0], 8))


def test_spikes_of_a_recording_made_by_hand_stay_in_their_bins():
    """Its times are taken as exact, unless it has a resolution."""
    times, whole = np.array([0.06, 0.19, 0.2, 0.299]), np.array([[0.0, 0.4]])
    spikes = fastglm.recordings.SpikeTimes(times, np.zeros(4, int), 1, 0.0, 0.4, whole)
    assert spikes.bin(0.1)[0].ravel().tolist() == [1, 1, 2, 0]
    spikes.resolution = 0.005
    assert spikes.bin(0.1)[0].ravel().tolist() == [1, 1, 1, 1]


def test_the_range_of_a_recording_is_a_segment_of_float64():
    assert check_segments(None, 0, 10).dtype == np.float64


def test_a_range_that_ends_before_it_starts_is_refused_for_loaded_spikes_too(tmp_path):
    path = tmp_path / "recording.npz"
    np.savez(path, spike_times=[0.1, 4.0], unit=[0, 1], n_units=2, t_start=0, t_stop=5)
    loaded = fastglm.load_spikes(path)
    with pytest.raises(ValueError, match="expected t_start < t_stop"):
        read_units(loaded, 0.1, None, 3.0, 2.0)


def test_a_bin_knows_a_spike_of_float32_by_its_steps():
    """At 1 s they are 0.12 us; 0.9996 s is not on the edge of the bin that begins at 1 s."""
    times = np.array([0.0005, 0.9996, 1.0], np.float32)
    with pytest.warns(match="float32"):
        counts = fastglm.bin_spikes(times, np.zeros(3, int), 0.001)
    assert np.flatnonzero(counts).tolist() == [0, 999, 1000]


def test_an_hour_has_3600_seconds():
    with pytest.raises(ValueError, match=r"would begin with 1\.0 hours without a spike"):
        fastglm.bin_spikes([3600.5, 3601.0], [0, 0], 1.0)


def test_a_series_of_a_table_holds_numbers(tmp_path):
    pytest.importorskip("pandas")
    path = tmp_path / "track.csv"
    path.write_text("time;speed;place\n0.5;3;a\n1.5;4;b\n")
    times, values = fastglm.recordings.load_series(path, "speed")
    assert (times.tolist(), values.tolist()) == ([0.5, 1.5], [3, 4])
    with pytest.raises(ValueError, match="place does not hold numbers"):
        fastglm.recordings.load_series(path, "place")


def test_a_series_of_nwb_is_in_the_unit_of_its_conversion(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "track.nwb"
    with h5py.File(path, "w") as file:
        file["processing/behavior/speed/timestamps"] = np.array([0.5, 1.5])
        file["processing/behavior/speed/data"] = np.array([3.0, 4.0])
        file["processing/behavior/speed/data"].attrs.update(conversion=0.5, offset=1.0)
    times, values = fastglm.recordings.load_series(path, "speed")
    assert (times.tolist(), values.tolist()) == ([0.5, 1.5], [2.5, 3.0])


def test_units_are_32_bits():
    with pytest.raises(ValueError, match=r"beyond 2\*\*31"):
        fastglm.bin_spikes([0.5], [2**31], 0.1)


def test_trials_without_a_stop_are_left_out(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "session.nwb"
    with h5py.File(path, "w") as file:
        file["units/id"] = np.arange(2)
        file["units/spike_times"] = np.array([0.5, 2.5, 4.5, 1.0, 4.0])
        file["units/spike_times_index"] = np.array([3, 5])
        file["intervals/trials/start_time"] = np.array([0.0, 2.0, np.nan, 4.0, 4.2])
        file["intervals/trials/stop_time"] = np.array([1.5, 3.0, 3.5, np.nan, np.inf])
    with pytest.warns(match="trials: row 2 .*, row 3 .*, row 4 .* left out"):
        found = fastglm.load_spikes(path, epochs="trials")
    np.testing.assert_array_equal(found.segments, [[0, 1.5], [2, 3]])


# --- sums and steps of the problems ---


def quadratic_of(rng, n_receivers=3, n_features=4, n_bins=50, free=None):
    """The normal equations of columns far from zero, and what they were made of."""
    x = rng.normal(size=(n_bins, n_features)) + rng.normal(size=n_features)
    y = rng.normal(size=(n_bins, n_receivers)) + 3
    free = np.ones((n_features, n_receivers), bool) if free is None else free
    off = y - y.mean(axis=0)
    sums = x.T @ off, y.mean(axis=0), (off**2).sum(axis=0)
    normal = Normal(np.cov(x.T, bias=True), x.mean(axis=0), n_bins, x.sum(axis=0))
    return QuadraticProblem(normal, *sums, free, ridge(np.full(n_receivers, 0.3))), x, y


def test_normal_equations_have_the_objective_and_the_gradient_of_the_rows():
    rng = np.random.default_rng(0)
    problem, x, y = quadratic_of(rng)
    coef, intercept, everyone = rng.normal(size=(4, 3)), rng.normal(size=3), np.arange(3)
    off = y - x @ coef - intercept
    objective, grad, grad_intercept = problem.evaluate(everyone, coef, intercept)
    expected = (off**2).mean(axis=0) + 0.15 * (coef**2).sum(axis=0)
    np.testing.assert_allclose(objective, expected, rtol=1e-12)
    np.testing.assert_allclose(grad, -2 * x.T @ off / 50 + 0.3 * coef, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(grad_intercept, -2 * off.mean(axis=0), rtol=1e-12)


def test_normal_equations_keep_the_factors_of_a_few_masks_only():
    rng, n, p = np.random.default_rng(0), 40, 100
    free = np.ones((p, n), bool)
    free[np.arange(n), np.arange(n)] = False  # of each receiver another one
    problem, _, _ = quadratic_of(rng, n, p, 300, free)
    everyone = np.arange(n)
    _, grad, grad_intercept = problem.evaluate(everyone, np.zeros((p, n)), np.zeros(n))
    tracemalloc.start()
    try:
        step, *_ = problem.step(everyone, grad, grad_intercept, 1e-16, np.zeros(n, bool))
        kept = tracemalloc.get_traced_memory()[0] - step.nbytes
    finally:
        tracemalloc.stop()
    assert kept < 20 * 8 * p**2


def test_a_trial_point_is_harmless_only_where_eta_hardly_changes():
    """On a sphere the mean square change of eta is the squared length of the step."""
    problem, start = Spheres(), np.array([[1.0, 1.0], [0, 0], [0, 0], [0, 0]])
    steps = Steps(problem, 2, 1)
    assert not steps.harmless(start, start[:3], start[3]).any()  # nothing is known yet
    steps.step(np.arange(2), start, start[:3], start[3], 1e-16, np.zeros(2, bool))
    for length, expected in ((0.1, True), (0.5, False)):
        point = start * (1 - length)
        assert list(steps.harmless(point, point[:3], point[3])) == [expected] * 2


def test_the_factor_of_a_single_receiver_has_the_present_ridge():
    """The Hessian on the sample is kept from the last penalty, its factor is not."""
    data = np.diag([2.0, 4.0])
    sample = object.__new__(SingleProblem)
    sample.active, sample.free = np.arange(1), np.ones((2, 1), bool)
    sample.weights, sample._even, sample._factors = np.ones((5, 1)), {}, {}
    sample.blend, sample._kept_hessian = 0.0, lambda *args: (data, None)
    sample._reduce = lambda data, chosen, dtype: (data.copy(), None, None)
    for strength in (0.0, 6.0):
        sample.set_penalty(ridge(np.full(1, strength)))
        found = sample.solve(np.ones((2, 1)), np.arange(1))
        np.testing.assert_allclose(found[:, 0], 1 / (np.array([2, 4]) + strength), rtol=1e-5)


def test_the_own_bins_of_a_late_receiver_have_the_hessian_of_all_bins():
    """They are drawn where its curvature is: here most of it lies in few of the bins."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40_000, 3))
    x[:, 0] = 7.0 * (rng.random(40_000) < 2e-3)
    y = rng.poisson(0.1, size=(40_000, 2))
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=0.1)
    problem, both = problem_of(model, x, y), np.arange(2)
    coef, intercept = np.array([[1.0, 0.9], [0.3, -0.2], [0.1, 0.4]]), np.array([-3.0, -2.0])
    problem.evaluate(both, coef, intercept)
    ones, total = np.column_stack([x, np.ones(40_000)]), problem.total[:2]
    for j, index, weights in problem.late._draw(both, np.vstack([coef, intercept]), total):
        assert 1000 <= index.size <= 7500
        curvature = np.exp(x @ coef[:, j] + intercept[j])
        expected = (ones.T * curvature) @ ones
        found = (ones[index].T * weights) @ ones[index]
        size = np.sqrt(np.diag(expected))
        np.testing.assert_allclose(
            found / np.outer(size, size), expected / np.outer(size, size), atol=0.05
        )


def test_products_with_the_sampled_hessian_leave_masked_features_out():
    rng, both = np.random.default_rng(0), np.arange(2)
    x = rng.normal(size=(300, 3))
    mask = np.array([[1, 1], [1, 0], [0, 1]])
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=0.1, feature_mask=mask)
    sample = problem_of(model, x, rng.poisson(0.5, size=(300, 2))).sample
    coef, intercept = 0.3 * rng.normal(size=(3, 2)) * mask, np.array([-1.0, -0.5])
    sample.set_point(both, coef, intercept)
    v = np.zeros((3, LANES))
    v[:, :2] = rng.normal(size=(3, 2)) * mask
    found = sample.product(v, np.arange(LANES))[:, :2]
    curvature = np.exp(x @ coef + intercept)
    for k in range(2):
        off = x - np.average(x, axis=0, weights=curvature[:, k])
        schur = (off.T * curvature[:, k]) @ off / 300 + 0.1 * np.eye(3)
        schur += BLEND * sample.level[k] * np.cov(x.T, bias=True)
        np.testing.assert_allclose(found[:, k], mask[:, k] * (schur @ v[:, k]), atol=1e-5)


def test_passes_of_a_search_count_beside_those_after_its_point_of_least_norm():
    """A large part along a collinear direction is taken out, which rounds eta."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    y = rng.poisson(np.exp(x @ [0.5, -0.3] - 0.5))
    model = fastglm.GLM(solver_name="newton-cholesky")
    model.fit(x[:, [0, 1, 0]], y, init_params=([1e5 + 0.3, -0.1, -1e5], [-0.4]))
    expected = fastglm.GLM().fit(x, y).coef_[[0, 1, 0]] / [2, 1, 2]
    np.testing.assert_allclose(model.coef_, expected, atol=1e-9)
    assert model.n_passes_[0] > model.n_iter_[0] >= 4  # each step takes a pass


def test_the_sample_has_the_size_of_the_table_of_memory():
    """At most twenty bins a feature, whose float32 rows take four tenths of the budget."""
    assert sample_size(1000, 10**6) == 20_000
    assert sample_size(1000, 10**6, memory_budget=1e8) * 4 * 1000 == 0.4 * 1e8
    assert sample_size(1000, 700) == 700
