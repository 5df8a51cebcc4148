"""Penalties: independent optima, subgradient conditions, strengths of every shape, errors."""

import pickle
from functools import cache

import naive_glm
import numba
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

import fastglm
from fastglm import regularizer as reg

PATHS = ("newton-cholesky", "newton-cg")
LINKS = ("exp", "softplus")
WINDOW, FUNCS, CELLS = 6, 3, 4


@cache
def coupled(n_bins=500, n_cells=CELLS, seed=0):
    """Counts of cells of which the first excites the second and is inhibited by the third."""
    rng = np.random.default_rng(seed)
    counts = np.zeros((n_bins, n_cells))
    for t in range(n_bins):
        eta = np.full(n_cells, -1.2)
        eta[1] += 0.7 * counts[max(t - 3, 0) : t, 0].sum()
        eta[0] -= 0.6 * counts[max(t - 4, 0) : t, 2].sum()
        counts[t] = rng.poisson(np.exp(eta))
    counts.setflags(write=False)
    return counts


@cache
def problem(n_bins=500):
    basis = fastglm.basis.RaisedCosineLinearConv(FUNCS, window_size=WINDOW)
    counts = coupled(n_bins)
    X = basis.compute_features(counts)
    return X, counts, np.asarray(X)[WINDOW:], counts[WINDOW:]


def null_gradient(rows, y):
    return rows.T @ (y.mean(axis=0) - y) / len(y)


def weak(rows, y):
    """A strength at which the lasso leaves some coefficients of every receiver."""
    return 0.15 * np.abs(null_gradient(rows, y)).max(axis=0).min()


def usual(name, rows, y):
    """The same for groups, of which the half would set none to zero."""
    return weak(rows, y) * (2 if name == "GroupLasso" else 1)


def groups_of(name, strength, ratio=0.5, free=None, n_features=FUNCS * CELLS):
    """Ridge and groups of one receiver, straight from the formulas."""
    strength = np.broadcast_to(strength, n_features)
    free = np.ones(n_features, bool) if free is None else free
    if name == "Ridge":
        return {"ridge": strength}
    if name == "Lasso":
        return {"groups": [([f], strength[f]) for f in range(n_features)]}
    if name == "ElasticNet":
        groups = [([f], ratio * strength[f]) for f in range(n_features)]
        return {"groups": groups, "ridge": (1 - ratio) * strength}
    filters = np.arange(n_features).reshape(-1, FUNCS)
    return {
        "groups": [
            (group[free[group]], strength[group[0]] * np.sqrt(free[group].sum()))
            for group in filters
            if free[group].any()
        ]
    }


def fit(X, y, name, strength, path, **more):
    model = fastglm.PopulationGLM(
        regularizer=name, regularizer_strength=strength, solver_name=path, **more
    )
    return model.fit(X, y)


@cache
def reference(name, j, link="exp"):
    _, _, rows, y = problem()
    parts = groups_of(name, usual(name, rows, y))
    return naive_glm.proximal_fit(rows, y[:, j], **parts, link=link)


# --- optima ---


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("name", ["Ridge", "Lasso", "ElasticNet", "GroupLasso"])
def test_the_optimum_is_that_of_proximal_gradients(name, link, path):
    X, counts, rows, y = problem()
    strength = usual(name, rows, y)
    model = fit(X, counts, name, strength, path, inverse_link_function=link)
    assert (model.status_ == "converged").all()
    parts = groups_of(name, strength)
    zeros = 0
    for j in range(CELLS):
        coef, intercept = model.coef_[:, j], model.intercept_[j]
        best = reference(name, j, link)
        value = naive_glm.penalised(rows, y[:, j], *best, **parts, link=link)
        ours = naive_glm.penalised(rows, y[:, j], coef, intercept, **parts, link=link)
        assert ours == pytest.approx(value, abs=1e-10)
        assert model.objective_[j] == pytest.approx(ours, abs=1e-12)
        breach = naive_glm.breach(rows, y[:, j], coef, intercept, **parts, link=link)
        assert breach < 1e-7
        assert model.grad_norm_[j] < 1e-7
        np.testing.assert_array_equal(coef == 0, best[0] == 0)
        zeros += (coef == 0).sum()
    assert (zeros == 0) if name == "Ridge" else (4 < zeros < model.coef_.size)


@pytest.mark.parametrize("path", PATHS)
def test_ratio_one_is_lasso_and_ratio_zero_is_ridge(path):
    X, counts, rows, y = problem()
    strength = weak(rows, y)
    for ratio, name in ((1.0, "Lasso"), (0.0, "Ridge")):
        net = fit(X, counts, "ElasticNet", (strength, ratio), path)
        same = fit(X, counts, name, strength, path)
        np.testing.assert_allclose(net.coef_, same.coef_, atol=1e-7)
        np.testing.assert_array_equal(net.coef_ == 0, same.coef_ == 0)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["Lasso", "ElasticNet", "GroupLasso"])
def test_the_least_strength_that_sets_all_to_zero(name, path):
    """From the gradient at the mean rate: just above nothing is left, just below something is."""
    X, counts, rows, y = problem()
    grad = null_gradient(rows, y)
    if name == "GroupLasso":
        grad = np.linalg.norm(grad.reshape(CELLS, FUNCS, -1), axis=1) / np.sqrt(FUNCS)
    least = np.abs(grad).max(axis=0) * (2 if name == "ElasticNet" else 1)
    above = fit(X, counts, name, least * (1 + 1e-6), path)
    assert (above.coef_ == 0).all()
    np.testing.assert_allclose(np.exp(above.intercept_), y.mean(axis=0), rtol=1e-7)
    below = fit(X, counts, name, least * 0.99, path)
    assert ((below.coef_ != 0).sum(axis=0) >= 1).all()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("name", ["ElasticNet", "GroupLasso"])
def test_more_features_than_bins(name, link, path):
    rng = np.random.default_rng(3)
    rows, y = rng.normal(size=(40, 90)), rng.poisson(1.0, size=(40, 2))
    mask = np.repeat(np.eye(30), 3, axis=1)
    kind = reg.GroupLasso(mask) if name == "GroupLasso" else name
    model = fit(rows, y, kind, 0.1, path, inverse_link_function=link)
    assert model.converged_.all()
    parts = groups_of(name, 0.1, n_features=90)
    for j in range(2):
        point = model.coef_[:, j], model.intercept_[j]
        assert naive_glm.breach(rows, y[:, j], *point, **parts, link=link) < 1e-7
        assert (model.coef_[:, j] == 0).any()


@pytest.mark.parametrize("path", PATHS)
def test_collinear_features_have_an_optimum(path):
    _, _, rows, y = problem()
    twice = np.hstack([rows, rows])
    strength = weak(rows, y)
    model = fit(twice, y, "Lasso", strength, path)
    for j in range(CELLS):
        parts = groups_of("Lasso", strength, n_features=twice.shape[1])
        point = model.coef_[:, j], model.intercept_[j]
        assert naive_glm.breach(twice, y[:, j], *point, **parts) < 1e-7
        best = naive_glm.penalised(rows, y[:, j], *reference("Lasso", j), **parts_of_lasso())
        assert model.objective_[j] == pytest.approx(best, abs=1e-10)


def parts_of_lasso():
    _, _, rows, y = problem()
    return groups_of("Lasso", weak(rows, y))


# --- strengths ---


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["Ridge", "Lasso", "ElasticNet", "GroupLasso"])
def test_strength_of_each_receiver(name, path):
    X, counts, rows, y = problem()
    strengths = weak(rows, y) * np.array([0.3, 1.0, 3.0, 0.0])
    model = fit(X, counts, name, strengths, path)
    for j, strength in enumerate(strengths):
        alone = fit(X, counts[:, [j]], name, strength, path)
        np.testing.assert_array_equal(model.coef_[:, j], alone.coef_[:, 0])
        assert model.intercept_[j] == alone.intercept_[0]
        point = model.coef_[:, j], model.intercept_[j]
        assert naive_glm.breach(rows, y[:, j], *point, **groups_of(name, strength)) < 1e-7


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["Ridge", "Lasso", "ElasticNet"])
def test_strength_of_each_coefficient(name, path):
    X, counts, rows, y = problem()
    factor = np.random.default_rng(0).uniform(0.2, 2, size=(rows.shape[1], CELLS))
    factor[::4] = 0
    strengths = weak(rows, y) * factor
    model = fit(X, counts, name, strengths, path)
    for j in range(CELLS):
        parts = groups_of(name, strengths[:, j])
        point = model.coef_[:, j], model.intercept_[j]
        assert naive_glm.breach(rows, y[:, j], *point, **parts) < 1e-7
        best = naive_glm.proximal_fit(rows, y[:, j], **parts)
        value = naive_glm.penalised(rows, y[:, j], *best, **parts)
        assert model.objective_[j] == pytest.approx(value, abs=1e-10)
    if name != "Ridge":
        assert (model.coef_ == 0).any()
        assert (model.coef_[::4] != 0).all()


@pytest.mark.parametrize("path", PATHS)
def test_strength_of_each_group(path):
    X, counts, rows, y = problem()
    factor = np.random.default_rng(1).uniform(0.2, 2, size=(CELLS, CELLS))
    factor[0] = 0
    strengths = weak(rows, y) * factor
    model = fit(X, counts, "GroupLasso", strengths, path)
    for j in range(CELLS):
        parts = groups_of("GroupLasso", np.repeat(strengths[:, j], FUNCS))
        point = model.coef_[:, j], model.intercept_[j]
        assert naive_glm.breach(rows, y[:, j], *point, **parts) < 1e-7
    size = np.linalg.norm(model.coef_.reshape(CELLS, FUNCS, CELLS), axis=1)
    assert (size[0] > 0).all()
    assert (size == 0).any()


def test_pairs_of_strength_and_ratio():
    X, counts, rows, y = problem()
    strength = weak(rows, y)
    pair = fit(X, counts, "ElasticNet", (strength, 0.8), None)
    of_object = fit(X, counts, reg.ElasticNet(0.8), strength, None)
    each = fit(X, counts, "ElasticNet", (np.full(CELLS, strength), np.full(CELLS, 0.8)), None)
    listed = fit(X, counts, "ElasticNet", [strength, 0.8], None)
    half = fit(X, counts, "ElasticNet", strength, None)
    for model in (of_object, each, listed):
        np.testing.assert_array_equal(pair.coef_, model.coef_)
    assert not np.allclose(pair.coef_, half.coef_)
    ratios = np.linspace(0, 1, CELLS)
    model = fit(X, counts, "ElasticNet", (strength, ratios), None)
    for j in range(CELLS):
        parts = groups_of("ElasticNet", strength, ratios[j])
        point = model.coef_[:, j], model.intercept_[j]
        assert naive_glm.breach(rows, y[:, j], *point, **parts) < 1e-7


def test_default_strength_is_one():
    X, counts, _, _ = problem()
    for name in ("Ridge", "Lasso", "ElasticNet", "GroupLasso"):
        given, default = fit(X, counts, name, 1.0, None), fit(X, counts, name, None, None)
        np.testing.assert_array_equal(given.coef_, default.coef_)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["Ridge", "Lasso", "ElasticNet", "GroupLasso", "Quadratic"])
def test_strength_zero_is_no_penalty(name, path):
    X, counts, _, _ = problem()
    kind = reg.Quadratic(np.eye(FUNCS)) if name == "Quadratic" else name
    model = fit(X, counts, kind, 0.0, path)
    plain = fastglm.PopulationGLM(solver_name=path).fit(X, counts)
    np.testing.assert_array_equal(model.coef_, plain.coef_)
    np.testing.assert_array_equal(model.status_, plain.status_)


def test_a_strength_without_a_regularizer_warns():
    X, counts, _, _ = problem()
    with pytest.warns(UserWarning, match="not used without a regularizer"):
        fit(X, counts, None, 0.1, None)


# --- groups ---


@pytest.mark.parametrize("path", PATHS)
def test_groups_by_a_mask(path):
    """One group across filters, one feature in no group, the rest in another."""
    X, counts, rows, y = problem()
    mask = np.zeros((3, rows.shape[1]))
    mask[0, [0, 4, 8]] = 1
    mask[1, [1, 2, 3, 5]] = 1
    mask[2, [6, 7, 9, 10]] = 1
    strength = 1.5 * weak(rows, y)
    model = fit(X, counts, reg.GroupLasso(mask), strength, path)
    groups = [(np.flatnonzero(row), strength * np.sqrt(row.sum())) for row in mask]
    for j in range(CELLS):
        point = model.coef_[:, j], model.intercept_[j]
        assert naive_glm.breach(rows, y[:, j], *point, groups) < 1e-7
        best = naive_glm.proximal_fit(rows, y[:, j], groups)
        value = naive_glm.penalised(rows, y[:, j], *best, groups)
        assert model.objective_[j] == pytest.approx(value, abs=1e-10)
    assert (model.coef_[11] != 0).all()
    assert (model.coef_ == 0).any()
    # A strength for each group.
    each = np.array([0.5, 1.0, 2.0])[:, None] * np.full((3, CELLS), strength)
    model = fit(X, counts, reg.GroupLasso(mask), each, path)
    groups = [(g, w * f) for (g, w), f in zip(groups, (0.5, 1.0, 2.0), strict=True)]
    for j in range(CELLS):
        point = model.coef_[:, j], model.intercept_[j]
        assert naive_glm.breach(rows, y[:, j], *point, groups) < 1e-7


def test_the_mask_of_every_filter_is_the_default():
    X, counts, rows, y = problem()
    mask = np.repeat(np.eye(CELLS), FUNCS, axis=1)
    given = fit(X, counts, reg.GroupLasso(mask), weak(rows, y), None)
    default = fit(X, counts, "GroupLasso", weak(rows, y), None)
    np.testing.assert_array_equal(given.coef_, default.coef_)


def test_a_group_without_features_changes_nothing():
    X, counts, rows, y = problem()
    mask = np.repeat(np.eye(CELLS), FUNCS, axis=1)
    empty = np.vstack([mask, np.zeros(mask.shape[1])])
    strengths = np.full((CELLS + 1, CELLS), weak(rows, y))
    given = fit(X, counts, reg.GroupLasso(empty), strengths, None)
    default = fit(X, counts, "GroupLasso", weak(rows, y), None)
    np.testing.assert_array_equal(given.coef_, default.coef_)


def test_ordinary_columns_are_a_group():
    X, counts, _, _ = problem()
    stimulus = np.random.default_rng(8).normal(size=(len(counts), 2))
    both = fastglm.features.hstack([X, stimulus])
    model = fit(both, counts, "GroupLasso", 0.02, None)
    zero = model.coef_[-2:] == 0
    np.testing.assert_array_equal(zero[0], zero[1])
    rows = np.asarray(both)[WINDOW:]
    for j in range(CELLS):
        groups = groups_of("GroupLasso", 0.02)["groups"] + [([12, 13], 0.02 * np.sqrt(2))]
        point = model.coef_[:, j], model.intercept_[j]
        assert naive_glm.breach(rows, counts[WINDOW:, j], *point, groups) < 1e-7


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["Ridge", "Lasso", "ElasticNet", "GroupLasso"])
def test_a_mask_equals_dropping_the_columns(name, path):
    X, counts, rows, y = problem()
    mask = np.random.default_rng(5).random((rows.shape[1], CELLS)) < 0.6
    mask[:FUNCS, 0] = False
    mask[:, 3] = False
    strength = 0.5 * weak(rows, y)
    model = fit(X, counts, name, strength, path, feature_mask=mask)
    assert (model.coef_[~mask] == 0).all()
    assert (model.coef_[:, 3] == 0).all()
    for j in range(3):
        free = mask[:, j]
        kind = name
        if name == "GroupLasso":
            kind = reg.GroupLasso(np.repeat(np.eye(CELLS), FUNCS, axis=1)[:, free])
        dropped = fit(rows[:, free], y[:, [j]], kind, strength, path)
        np.testing.assert_allclose(model.coef_[free, j], dropped.coef_[:, 0], atol=1e-7)
        assert model.objective_[j] == pytest.approx(dropped.objective_[0], abs=1e-12)
        parts = groups_of(name, strength, free=free)
        if name != "GroupLasso":
            parts["groups"] = [(g, w) for g, w in parts.get("groups", ()) if free[g[0]]]
        masked = np.where(free, rows, 0.0)
        point = model.coef_[:, j], model.intercept_[j]
        assert naive_glm.breach(masked, y[:, j], *point, **parts) < 1e-7


# --- every receiver on its own ---


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["Lasso", "ElasticNet", "GroupLasso", "Quadratic"])
def test_a_receiver_has_the_same_bits_whoever_else_is_fitted(name, path):
    counts = coupled(300, 19)
    X = fastglm.basis.RaisedCosineLinearConv(FUNCS, WINDOW).compute_features(counts)
    kind = reg.Quadratic(np.diag([1.0, 2.0, 3.0])) if name == "Quadratic" else name
    together = fit(X, counts, kind, 0.02, path)
    for some in ([0], [18, 7, 1], [*range(18, 0, -1)]):
        fewer = fit(X, counts[:, some], kind, 0.02, path)
        np.testing.assert_array_equal(fewer.coef_, together.coef_[:, some])
        np.testing.assert_array_equal(fewer.intercept_, together.intercept_[some])


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="needs two threads")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["Lasso", "GroupLasso", "Quadratic"])
def test_the_bits_do_not_depend_on_the_number_of_threads(name, path):
    counts = coupled(300, 19)
    X = fastglm.basis.RaisedCosineLinearConv(FUNCS, WINDOW).compute_features(counts)
    kind = reg.Quadratic(np.diag([1.0, 2.0, 3.0])) if name == "Quadratic" else name
    before, found = numba.get_num_threads(), []
    try:
        for n_threads in (1, 2):
            numba.set_num_threads(n_threads)
            found.append(fit(X, counts, kind, 0.02, path))
    finally:
        numba.set_num_threads(before)
    np.testing.assert_array_equal(found[0].coef_, found[1].coef_)
    np.testing.assert_array_equal(found[0].intercept_, found[1].intercept_)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["Lasso", "ElasticNet", "GroupLasso"])
def test_silent_receivers_and_missing_counts(name, path):
    X, counts, rows, y = problem()
    changed = counts.copy()
    changed[:, 1] = 0
    changed[50:120, 2] = np.nan
    strength = weak(rows, y)
    with pytest.warns(ConvergenceWarning, match=r"silent \(receiver 1\)"):
        model = fit(X, changed, name, strength, path)
    assert model.status_.tolist() == ["converged", "silent", "converged", "converged"]
    assert (model.coef_[:, 1] == 0).all()
    whole = fit(X, counts, name, strength, path)
    np.testing.assert_array_equal(model.coef_[:, 0], whole.coef_[:, 0])
    known = np.isfinite(changed[WINDOW:, 2])
    point = model.coef_[:, 2], model.intercept_[2]
    parts = groups_of(name, strength)
    assert naive_glm.breach(rows[known], y[known, 2], *point, **parts) < 1e-7
    # The rows where every receiver is known would give another optimum.
    assert naive_glm.breach(rows, y[:, 2], *point, **parts) > 1e-4


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["Lasso", "ElasticNet", "GroupLasso"])
def test_separated_features_have_a_finite_optimum(name, path):
    """A norm in the penalty stops the coefficient that would run to minus infinity."""
    rng = np.random.default_rng(0)
    rows = (rng.random((300, 3)) < 0.2).astype(float)
    y = rng.poisson(0.5, size=(300, 1)).astype(float)
    y[rows[:, 0] > 0] = 0
    with pytest.warns(ConvergenceWarning, match="separated"):
        fastglm.PopulationGLM(solver_name=path).fit(rows, y)
    kind = reg.GroupLasso(np.eye(3)) if name == "GroupLasso" else name
    model = fit(rows, y, kind, 1e-3, path)
    assert model.status_.tolist() == ["converged"]
    assert -20 < model.coef_[0, 0] < -2
    parts = groups_of("Lasso" if name == "GroupLasso" else name, 1e-3, n_features=3)
    point = model.coef_[:, 0], model.intercept_[0]
    assert naive_glm.breach(rows, y[:, 0], *point, **parts) < 1e-7


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["Lasso", "GroupLasso"])
def test_the_start_does_not_matter(name, path):
    X, counts, rows, y = problem()
    strength = weak(rows, y)
    cold = fit(X, counts, name, strength, path)
    rng = np.random.default_rng(2)
    start = 0.3 * rng.normal(size=cold.coef_.shape), rng.normal(size=CELLS)
    model = clone(cold).fit(X, counts, init_params=start)
    np.testing.assert_allclose(model.objective_, cold.objective_, atol=1e-12)
    np.testing.assert_array_equal(model.coef_ == 0, cold.coef_ == 0)
    again = clone(cold).fit(X, counts, init_params=(cold.coef_, cold.intercept_))
    # Two passes, or one beside the closed form, judge the start.
    assert again.n_passes_.max() <= (3 if path == "newton-cholesky" else 5)
    np.testing.assert_allclose(again.coef_, cold.coef_, atol=1e-7)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["Lasso", "GroupLasso", "Quadratic"])
def test_a_checkpoint_goes_on(name, path, tmp_path):
    X, counts, rows, y = problem()
    strength = weak(rows, y)
    kind = reg.Quadratic(np.eye(FUNCS)) if name == "Quadratic" else name
    file = tmp_path / "fit.ckpt"
    whole = fit(X, counts, kind, strength, path)
    first = clone(whole).fit(X, counts, checkpoint=file)
    np.testing.assert_array_equal(first.coef_, whole.coef_)
    again = clone(whole).fit(X, counts, checkpoint=file)
    np.testing.assert_array_equal(again.coef_, whole.coef_)
    other = clone(whole).set_params(regularizer_strength=2 * strength)
    with pytest.raises(ValueError, match="other data or settings"):
        other.fit(X, counts, checkpoint=file)
    if name == "GroupLasso":
        grouped = clone(whole).set_params(regularizer=reg.GroupLasso(np.eye(rows.shape[1])))
        with pytest.raises(ValueError, match="other data or settings"):
            grouped.fit(X, counts, checkpoint=file)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["Lasso", "GroupLasso"])
def test_an_interrupted_fit_goes_on(name, path, tmp_path, monkeypatch):
    X, counts, rows, y = problem()
    file = tmp_path / "fit.ckpt"
    model = fastglm.PopulationGLM(
        regularizer=name, regularizer_strength=weak(rows, y), solver_name=path
    )
    monkeypatch.setattr("fastglm._batches.monitor._SAVE_EVERY", 0.0)

    from fastglm._batches.monitor import Monitor

    passes = []

    class Stops(Monitor):
        def _show(self, *args):
            passes.append(args)
            if len(passes) == 5:
                raise KeyboardInterrupt

    monkeypatch.setattr("fastglm.glm.Monitor", Stops)
    with pytest.raises(KeyboardInterrupt, match="interrupted"):
        model.fit(X, counts, checkpoint=file)
    assert (model.status_ == "interrupted").any()
    monkeypatch.undo()
    model.fit(X, counts, checkpoint=file)
    assert (model.status_ == "converged").all()
    whole = clone(model).fit(X, counts)
    np.testing.assert_allclose(model.objective_, whole.objective_, atol=1e-12)
    np.testing.assert_array_equal(model.coef_ == 0, whole.coef_ == 0)


def test_the_plan_knows_sparse_penalties():
    X, counts, _, _ = problem()
    plan = fastglm.PopulationGLM(regularizer="GroupLasso").plan(X, counts)
    assert plan.n_receivers == CELLS


# --- Quadratic ---


def second_differences(n):
    D = np.diff(np.eye(n), 2, axis=0)
    return D.T @ D


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("size", ["filter", "all"])
def test_quadratic_is_an_augmented_newton(size, path):
    _, _, _, _ = problem()
    counts = coupled()
    X = fastglm.basis.HistoryConv(5).compute_features(counts)
    rows, y = np.asarray(X)[5:], counts[5:]
    if size == "filter":
        matrix = second_differences(5)
        full = np.kron(np.eye(CELLS), matrix)
    else:
        A = np.random.default_rng(0).normal(size=(30, 20))
        matrix = full = A.T @ A / 30
    strengths = np.array([0.05, 0.5, 1.0, 5.0])
    model = fit(X, counts, reg.Quadratic(matrix), strengths, path)
    assert model.converged_.all()
    for j, strength in enumerate(strengths):
        coef, intercept = naive_glm.newton_fit(rows, y[:, j], strength * full)
        best = naive_glm.penalised(rows, y[:, j], coef, intercept, matrix=strength * full)
        assert model.objective_[j] == pytest.approx(best, abs=1e-11)
        point = model.coef_[:, j], model.intercept_[j]
        assert naive_glm.breach(rows, y[:, j], *point, matrix=strength * full) < 1e-7
        np.testing.assert_allclose(model.coef_[:, j], coef, atol=1e-6)


@pytest.mark.parametrize("path", PATHS)
def test_quadratic_of_the_identity_is_ridge(path):
    X, counts, _, _ = problem()
    quadratic = fit(X, counts, reg.Quadratic(np.eye(FUNCS)), 0.01, path)
    ridge = fit(X, counts, "Ridge", 0.01, path)
    np.testing.assert_allclose(quadratic.objective_, ridge.objective_, atol=1e-12)
    np.testing.assert_allclose(quadratic.coef_, ridge.coef_, atol=1e-7)


@pytest.mark.parametrize("path", PATHS)
def test_quadratic_zero_matrix_is_no_penalty(path):
    X, counts, _, _ = problem()
    model = fit(X, counts, reg.Quadratic(np.zeros((FUNCS, FUNCS))), 1.0, path)
    plain = fastglm.PopulationGLM(solver_name=path).fit(X, counts)
    np.testing.assert_allclose(model.coef_, plain.coef_, atol=1e-7)
    np.testing.assert_allclose(model.objective_, plain.objective_, atol=1e-12)


@pytest.mark.parametrize("path", PATHS)
def test_quadratic_with_a_mask(path):
    X, counts, rows, y = problem()
    mask = np.random.default_rng(5).random((rows.shape[1], CELLS)) < 0.6
    matrix = second_differences(FUNCS) + 0.1 * np.eye(FUNCS)
    full = np.kron(np.eye(CELLS), matrix)
    model = fit(X, counts, reg.Quadratic(matrix), 0.1, path, feature_mask=mask)
    for j in range(CELLS):
        free = mask[:, j]
        part = 0.1 * full[np.ix_(free, free)]
        coef, intercept = naive_glm.newton_fit(rows[:, free], y[:, j], part)
        best = naive_glm.penalised(rows[:, free], y[:, j], coef, intercept, matrix=part)
        assert model.objective_[j] == pytest.approx(best, abs=1e-11)
        assert (model.coef_[~free, j] == 0).all()


def test_quadratic_takes_a_sparse_matrix():
    scipy_sparse = pytest.importorskip("scipy.sparse")
    X, counts, _, _ = problem()
    matrix = second_differences(FUNCS)
    dense = fit(X, counts, reg.Quadratic(matrix), 0.1, None)
    sparse = fit(X, counts, reg.Quadratic(scipy_sparse.csr_array(matrix)), 0.1, None)
    np.testing.assert_array_equal(dense.coef_, sparse.coef_)


# --- errors ---


@pytest.mark.parametrize("name", ["Ridge", "Lasso", "ElasticNet", "GroupLasso", "Quadratic"])
@pytest.mark.parametrize(
    ("strength", "match"),
    [
        (-0.1, "must be finite and not negative"),
        (np.nan, "must be finite and not negative"),
        (np.inf, "must be finite and not negative"),
        ([0.1, -0.1, 0.1, 0.1], "must be finite and not negative"),
        (np.ones(3), r"regularizer_strength has shape \(3,\); expected a number, \(n_receivers,\)"),
        (np.ones((4, 12)), r"regularizer_strength has shape \(4, 12\)"),
        (np.ones((1, 1, 4)), r"regularizer_strength has shape \(1, 1, 4\)"),
    ],
)
def test_strengths_that_are_none(name, strength, match):
    X, counts, _, _ = problem()
    if name == "ElasticNet" and isinstance(strength, list):
        strength = np.array(strength)  # a list is a pair
    kind = reg.Quadratic(np.eye(FUNCS)) if name == "Quadratic" else name
    with pytest.raises(ValueError, match=match):
        fit(X, counts, kind, strength, None)


def test_quadratic_takes_no_strength_of_each_coefficient():
    X, counts, _, _ = problem()
    with pytest.raises(ValueError, match=r"regularizer_strength has shape \(12, 4\)"):
        fit(X, counts, reg.Quadratic(np.eye(FUNCS)), np.ones((12, 4)), None)


@pytest.mark.parametrize(
    ("kind", "strength", "match"),
    [
        ("ElasticNet", (0.1, 1.5), "ratio is 1.5; expected numbers from 0 to 1"),
        ("ElasticNet", (0.1, -0.5), "ratio must be finite and not negative"),
        ("ElasticNet", (0.1, np.ones(3)), r"ratio has shape \(3,\)"),
        (reg.ElasticNet(2.0), 0.1, "ratio is 2; expected"),
        (
            reg.GroupLasso(np.ones((2, 5))),
            0.1,
            r"shape \(2, 5\); expected \(n_groups, n_features\)",
        ),
        (reg.GroupLasso(np.ones(12)), 0.1, r"shape \(12,\); expected \(n_groups, n_features\)"),
        (reg.GroupLasso(np.ones((2, 12))), 0.1, "every feature in one group at most"),
        (reg.GroupLasso(0.5 * np.ones((1, 12))), 0.1, "must hold 0 and 1"),
        (reg.GroupLasso(np.eye(12)), np.ones((4, 4)), r"one for each group, \(12, 4\)"),
        (reg.Quadratic(np.ones((2, 3))), 0.1, r"shape \(2, 3\); expected a square matrix"),
        (reg.Quadratic(np.eye(5)), 0.1, r"shape \(5, 5\); expected \(n_features, n_features\)"),
        (reg.Quadratic(-np.eye(3)), 0.1, "negative eigenvalue"),
        (reg.Quadratic(np.diag([1.0, 1.0, -1e-3])), 0.1, "negative eigenvalue"),
        (reg.Quadratic(np.triu(np.ones((3, 3)))), 0.1, "not finite and symmetric"),
        (reg.Quadratic(np.full((3, 3), np.nan)), 0.1, "not finite and symmetric"),
        (
            reg.Quadratic(np.eye(6)),
            0.1,
            r"shape \(6, 6\); .* or the size of a filter, which is one of \[3\]",
        ),
        ("Bridge", 0.1, "regularizer is 'Bridge'; expected None, one of"),
        ("Quadratic", 0.1, "regularizer is 'Quadratic'; expected None, one of"),
    ],
)
def test_errors(kind, strength, match):
    X, counts, _, _ = problem()
    with pytest.raises(ValueError, match=match):
        fit(X, counts, kind, strength, None)


# --- objects ---

OBJECTS = [
    reg.UnRegularized(),
    reg.Ridge(),
    reg.Lasso(),
    reg.ElasticNet(0.7),
    reg.GroupLasso(),
    reg.GroupLasso(np.repeat(np.eye(CELLS), FUNCS, axis=1)),
    reg.Quadratic(second_differences(FUNCS)),
]


@pytest.mark.parametrize("kind", OBJECTS, ids=repr)
def test_objects_are_cloned_and_pickled(kind):
    for copy in (clone(kind), pickle.loads(pickle.dumps(kind))):
        assert type(copy) is type(kind)
        assert copy is not kind
        for name, value in kind.get_params().items():
            np.testing.assert_array_equal(copy.get_params()[name], value)
    model = fastglm.PopulationGLM(regularizer=kind)
    assert type(clone(model).regularizer) is type(kind)
    assert str(kind) == type(kind).__name__


def test_parameters_of_the_object_are_parameters_of_the_model():
    model = fastglm.PopulationGLM(regularizer=reg.ElasticNet(0.7))
    assert model.get_params()["regularizer__ratio"] == 0.7
    model.set_params(regularizer__ratio=0.2)
    assert model.regularizer.ratio == 0.2


def test_names_and_objects_are_the_same():
    X, counts, rows, y = problem()
    for name in ("Ridge", "Lasso", "ElasticNet", "GroupLasso"):
        of_name = fit(X, counts, name, weak(rows, y), None)
        of_object = fit(X, counts, reg.REGULARIZERS[name](), weak(rows, y), None)
        np.testing.assert_array_equal(of_name.coef_, of_object.coef_)


@pytest.mark.parametrize("kind", [*OBJECTS[1:], "Lasso"], ids=repr)
@pytest.mark.parametrize("shape", ["default", "number", "receiver", "coefficient"])
def test_models_are_saved_with_their_penalty(kind, shape, tmp_path):
    X, counts, rows, _ = problem()
    if shape == "coefficient" and "Quadratic" in str(kind):
        pytest.skip("a quadratic form has one strength a receiver")
    n = CELLS if "Group" in str(kind) else rows.shape[1]
    strength = {
        "default": None,
        "number": 0.01,
        "receiver": np.linspace(0.01, 0.02, CELLS),
        "coefficient": np.full((n, CELLS), 0.01),
    }[shape]
    check_saved(fit(X, counts, kind, strength, None), tmp_path)


@pytest.mark.parametrize(
    "pair",
    [(0.01, 0.3), (np.linspace(0.01, 0.02, CELLS), 0.3), (0.01, np.linspace(0, 1, CELLS)), [1, 1]],
)
def test_pairs_are_saved(pair, tmp_path):
    X, counts, _, _ = problem()
    check_saved(fit(X, counts, "ElasticNet", pair, None), tmp_path)


def check_saved(model, folder):
    X, counts, _, _ = problem()
    model.save_params(folder / "model")
    loaded = fastglm.load_model(folder / "model.npz")
    np.testing.assert_array_equal(loaded.coef_, model.coef_)
    assert str(loaded.regularizer) == str(model.regularizer)
    assert type(loaded.regularizer) is type(model.regularizer)
    given, back = model.regularizer_strength, loaded.regularizer_strength
    if isinstance(given, tuple | list):
        assert isinstance(back, tuple)
        assert len(back) == 2
        for a, b in zip(given, back, strict=True):
            np.testing.assert_array_equal(a, b)
    elif given is None:
        assert back is None
    else:
        np.testing.assert_array_equal(given, back)
        assert np.ndim(given) == np.ndim(back)
    again = clone(loaded).fit(X, counts)
    np.testing.assert_array_equal(again.coef_, model.coef_)


def test_a_single_receiver():
    X, counts, rows, y = problem()
    for name in ("Lasso", "ElasticNet", "GroupLasso"):
        strength = weak(rows, y)
        one = fastglm.GLM(regularizer=name, regularizer_strength=strength)
        one.fit(X, counts[:, 1])
        many = fit(X, counts, name, strength, None)
        np.testing.assert_array_equal(one.coef_, many.coef_[:, 1])
    weights = np.linspace(0, 2, rows.shape[1])
    one = fastglm.GLM(regularizer="Lasso", regularizer_strength=strength * weights)
    one.fit(X, counts[:, 1])
    column = fit(X, counts[:, [1]], "Lasso", strength * weights[:, None], None)
    np.testing.assert_array_equal(one.coef_, column.coef_[:, 0])


@pytest.mark.parametrize("matrix", [second_differences(FUNCS), np.eye(FUNCS * CELLS)])
def test_a_sparse_matrix_is_saved(matrix, tmp_path):
    scipy_sparse = pytest.importorskip("scipy.sparse")
    X, counts, _, _ = problem()
    kind = reg.Quadratic(scipy_sparse.csr_array(matrix))
    model = fit(X, counts, kind, 0.1, None)
    model.save_params(tmp_path / "model")
    loaded = fastglm.load_model(tmp_path / "model.npz")
    np.testing.assert_array_equal(loaded.regularizer.matrix.toarray(), matrix)
    np.testing.assert_array_equal(clone(loaded).fit(X, counts).coef_, model.coef_)
