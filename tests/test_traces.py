"""Dense responses: a table that is kept as it is gives what its events give."""

import numpy as np
import pytest
import scipy.sparse
from sklearn.linear_model import Ridge

import fastglm
from fastglm._batches.checkpoint import fingerprint
from fastglm.basis import RaisedCosineLogConv
from fastglm.features import Events, Traces


def table(n_bins=5000, n=3, missing=0.01, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(2, 1, (n_bins, n))
    values[rng.random(values.shape) < missing] = np.nan
    return values


def problem(n_bins=3000, missing=0.0):
    rng = np.random.default_rng(1)
    counts = rng.poisson(0.1, (n_bins, 4))
    X = RaisedCosineLogConv(5, 20).compute_features(counts)
    rows = np.asarray(X)
    y = np.nan_to_num(rows) @ rng.normal(size=(20, 3)) + rng.normal(size=(n_bins, 3)) + 50
    y[rng.random(y.shape) < missing] = np.nan
    return X, rows, y


def gaussian(**kwargs):
    kwargs = {"regularizer": "Ridge", "regularizer_strength": 0.01, **kwargs}
    return fastglm.PopulationGLM(observation_model="Gaussian", **kwargs)


@pytest.mark.parametrize("dtype", [float, np.float32])
def test_verbs_are_those_of_the_events(dtype):
    values = table().astype(dtype)
    traces, events = Traces(values), Events.of(values)
    rng = np.random.default_rng(0)
    weight = rng.random(len(values)) * (rng.random(len(values)) < 0.7)
    center = np.array([1.5, 2.0, -1.0])
    np.testing.assert_allclose(traces.sums(weight), events.sums(weight), rtol=1e-12)
    expected = np.nansum(weight[:, None] * (values.astype(float) - center) ** 2, axis=0)
    np.testing.assert_allclose(traces.squares(weight, center), expected, rtol=1e-5)
    np.testing.assert_allclose(events.squares(weight, center), expected, rtol=1e-12)
    index = np.array([0, 17, 4095, 4096, 4999])
    np.testing.assert_array_equal(traces.rows(index), events.rows(index))
    np.testing.assert_array_equal(traces.select([2, 0]).rows(index), values[index][:, [2, 0]])
    np.testing.assert_array_equal(traces.part(10, 90).rows(np.arange(80)), values[10:90])
    missing = np.argwhere(np.isnan(values))
    np.testing.assert_array_equal(np.column_stack([traces.bins, traces.units]), missing)
    assert traces.shape == values.shape
    assert traces.toarray() is values


def test_squares_of_counts_count_the_bins_without_events():
    counts = np.random.default_rng(0).poisson(0.1, (400, 2)).astype(float)
    weight, center = np.linspace(0, 1, 400), np.array([0.1, 0.3])
    expected = (weight[:, None] * (counts - center) ** 2).sum(axis=0)
    np.testing.assert_allclose(Events.of(counts).squares(weight, center), expected, rtol=1e-12)


@pytest.mark.parametrize("missing", [0.0, 0.01])
def test_the_fit_is_the_textbook_ridge_without_a_pass(missing):
    X, rows, y = problem(missing=missing)
    model = gaussian().fit(X, y)
    assert (model.n_passes_ == 0).all()
    assert (model.status_ == "converged").all()
    for j in range(3):
        known = X.valid & ~np.isnan(y[:, j])
        alpha = 0.01 * known.sum() / 2  # our loss has no half, theirs is a sum
        theirs = Ridge(alpha, solver="cholesky").fit(rows[known], y[known, j])
        np.testing.assert_allclose(model.coef_[:, j], theirs.coef_, atol=1e-10)
        np.testing.assert_allclose(model.intercept_[j], theirs.intercept_, rtol=1e-10)
        left = y[known, j] - theirs.predict(rows[known])
        expected = np.mean(left**2) + 0.005 * theirs.coef_ @ theirs.coef_
        np.testing.assert_allclose(model.objective_[j], expected, rtol=1e-9)


@pytest.mark.parametrize("regularizer", ["Lasso", "ElasticNet", "GroupLasso", None])
def test_every_penalty_has_the_optimum_of_exact_hessians(regularizer):
    X, _, y = problem()
    mask = np.random.default_rng(3).random((20, 3)) < 0.6
    kwargs = {
        "regularizer": regularizer,
        "regularizer_strength": None if regularizer is None else 0.02,
        "feature_mask": mask,
        "solver_kwargs": {"tol": 1e-20},
    }
    model = gaussian(**kwargs).fit(X, y)
    exact = gaussian(**kwargs, solver_name="newton-cholesky").fit(X, y)
    assert (model.n_passes_ == 0).all()
    np.testing.assert_allclose(model.objective_, exact.objective_, rtol=1e-10)
    np.testing.assert_allclose(model.coef_, exact.coef_, atol=1e-7)
    assert not model.coef_[~mask].any()


def test_weights_and_offsets_stand_beside_each_other():
    X, rows, y = problem()
    rng = np.random.default_rng(2)
    weight, offset = rng.random(len(y)), rng.normal(size=y.shape)
    model = gaussian().fit(X, y, sample_weight=weight, offset=offset)
    kept = X.valid
    alpha = 0.01 * weight[kept].sum() / 2
    theirs = Ridge(alpha, solver="cholesky")
    theirs.fit(rows[kept], (y - offset)[kept], sample_weight=weight[kept])
    np.testing.assert_allclose(model.coef_, theirs.coef_.T, atol=1e-10)
    np.testing.assert_allclose(model.intercept_, theirs.intercept_, rtol=1e-10)


def test_collinear_features_have_the_optimum_of_least_norm():
    X, rows, y = problem()
    twice = np.column_stack([rows, rows[:, :3]])
    model = gaussian(regularizer=None, regularizer_strength=None).fit(twice, y)
    kept = X.valid
    centred = twice[kept] - twice[kept].mean(axis=0)
    expected = np.linalg.lstsq(centred, y[kept] - y[kept].mean(axis=0), rcond=1e-10)[0]
    np.testing.assert_allclose(model.coef_, expected, atol=1e-8)


def test_a_budget_that_does_not_hold_the_gram_matrix_takes_passes():
    X, _, y = problem()
    small = gaussian(memory_budget="60MB")
    assert {b.method for b in gaussian().plan(X, y).batches} == {"normal-equations"}
    tiny = gaussian(solver_name="newton-cg", solver_kwargs={"tol": 1e-18}).fit(X, y)
    np.testing.assert_allclose(tiny.coef_, small.fit(X, y).coef_, atol=1e-7)
    assert (tiny.n_passes_ > 0).all()


def test_the_plan_counts_the_sums_of_a_table():
    X, _, y = problem()
    many = np.tile(y, (1, 20))
    few, more = (gaussian().plan(X, part).seconds for part in (y, many))
    assert 15 < more / few < 20.1
    assert gaussian().plan(X, scipy.sparse.csr_array(many > 1)).seconds < few


def test_a_table_is_part_of_the_key_of_a_checkpoint(tmp_path):
    X, _, y = problem()
    path = tmp_path / "fit.checkpoint"
    gaussian().fit(X, y, checkpoint=path)
    y[100, 1] += 1
    with pytest.raises(ValueError, match="is a checkpoint of other data"):
        gaussian().fit(X, y, checkpoint=path)
    assert fingerprint(*Traces(y).arrays()) == fingerprint(y)


def test_a_number_that_is_not_finite_is_named_with_its_place():
    X, _, y = problem()
    y[2100, 2] = np.inf
    with pytest.raises(ValueError, match="y holds inf in bin 2100 of receiver 2; Gaussian"):
        gaussian().fit(X, y)
