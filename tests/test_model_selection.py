"""Paths against single fits; cross-validation against loops; folds that do not leak."""

import math
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from oracle import LINKS
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, TimeSeriesSplit
from sklearn.pipeline import Pipeline

import fastglm
from fastglm import regularizer as reg
from fastglm.model_selection import cross_validate, regularization_path, split
from fastglm.simulation import random_network

PATHS = ("newton-cholesky", "newton-cg")
NAMES = ("Ridge", "Lasso", "ElasticNet", "GroupLasso", "Quadratic")
WINDOW, FUNCS, CELLS = 6, 3, 4
BASIS = fastglm.basis.RaisedCosineLinearConv(FUNCS, window_size=WINDOW)


@cache
def coupled(n_bins=900):
    """Cell 0 drives cell 1, which inhibits cell 2; cell 3 is alone."""
    rng = np.random.default_rng(0)
    counts = np.zeros((n_bins, CELLS))
    for t in range(n_bins):
        eta = np.full(CELLS, -1.0)
        eta[1] += 0.6 * counts[max(t - 3, 0) : t, 0].sum()
        eta[2] -= 0.5 * counts[max(t - 4, 0) : t, 1].sum()
        counts[t] = rng.poisson(np.exp(eta))
    counts.setflags(write=False)
    return counts


@cache
def features():
    return BASIS.compute_features(coupled())


def kind_of(name):
    return reg.Quadratic(np.diag([1.0, 2.0, 3.0])) if name == "Quadratic" else name


def sparse(name):
    return name in ("Lasso", "ElasticNet", "GroupLasso")


def model_of(name, path=None, **more):
    return fastglm.PopulationGLM(regularizer=kind_of(name), solver_name=path, **more)


# --- paths ---


def test_rounding_of_a_gradient_is_no_curvature():
    """The first optimum has no coefficients: its last step is as short as rounding.

    Where such a step went from float32 to float64 sums, the change of the gradient made curvatures
    1e5 times as large. The fits of the next strengths ended at 1e-4 from their optima, and claimed
    1e-9.
    """
    basis = fastglm.basis.RaisedCosineLogConv(4, 100)
    counts = random_network(4, basis, mean_rate_hz=20.0, strength=0.3).simulate(5000, 1)
    X = basis.compute_features(counts)
    rows, y = np.asarray(X)[X.valid], counts[X.valid]
    slope = np.abs(rows.T @ (y - y.mean(axis=0)) / len(y)).max()
    strengths = slope * np.geomspace(1, 1e-2, 10)[:4]
    model = fastglm.PopulationGLM(regularizer="Lasso", solver_name="newton-cg")
    exact = regularization_path(model, X, counts, strengths)
    model.set_params(solver_kwargs={"tol": 1e-8})
    loose = regularization_path(model, X, counts, strengths)
    gap = loose.objective - exact.objective
    assert (loose.status == "converged").all()
    assert (gap <= loose.newton_decrement + 1e-13).all()


@pytest.mark.parametrize("seed", [1, 8])
def test_claims_are_made_with_the_curvature_of_their_point(seed):
    """Senders of few events whose coefficients fall leave no curvature in the bins after them.

    The model of an earlier point, or one with a part of the shared curvature, claims too little.
    """
    rng = np.random.default_rng(seed)
    counts = (rng.random((2000, 5)) < rng.uniform(0.003, 0.1, 5)).astype(float)
    X = fastglm.basis.RaisedCosineLogConv(6, 40).compute_features(counts)
    model = fastglm.PopulationGLM(regularizer="GroupLasso", solver_name="newton-cg")
    exact = regularization_path(model, X, counts, 6)
    model.set_params(solver_kwargs={"tol": 1e-8})
    loose = regularization_path(model, X, counts, 6)
    gap = loose.objective - exact.objective
    assert (loose.status == "converged").all()
    assert (gap <= 1.1 * loose.newton_decrement + 1e-13).all()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_single_fits(name, path):
    X, counts = features(), coupled()
    model = model_of(name, path)
    found = regularization_path(model, X, counts, 6)
    assert (found.status == "converged").all()
    assert (np.diff(found.strengths, axis=0) < 0).all()
    assert found.grad_norm.max() < 1e-7
    for k, row in enumerate(found.strengths):
        cold = clone(model).set_params(regularizer_strength=row).fit(X, counts)
        np.testing.assert_allclose(found.objective[k], cold.objective_, atol=1e-12)
        np.testing.assert_allclose(found.coef[k], cold.coef_, atol=1e-6)
        np.testing.assert_allclose(found.intercept[k], cold.intercept_, atol=1e-6)
        np.testing.assert_array_equal(found.coef[k] == 0, cold.coef_ == 0)
    if sparse(name):
        np.testing.assert_array_equal(found.n_nonzero, (found.coef != 0).sum(axis=1))
        assert (found.n_nonzero[0] == 0).all()
        assert (found.n_nonzero[-1] > 0).all()
    assert not hasattr(model, "coef_")


@pytest.mark.parametrize("name", ["Lasso", "ElasticNet", "GroupLasso"])
@pytest.mark.parametrize("link", ["exp", "softplus"])
def test_a_sparse_path_begins_where_the_first_feature_enters(name, link):
    """From the gradient at the mean rate, and down to a thousandth."""
    rows, y = np.asarray(features())[WINDOW:], coupled()[WINDOW:]
    model = model_of(name, inverse_link_function=link)
    found = regularization_path(model, features(), coupled(), 4)
    mean = y.mean(axis=0)
    residual = (1 - y / mean) * (mean if link == "exp" else -np.expm1(-mean))
    grad = rows.T @ residual / len(y)
    if name == "GroupLasso":
        grad = np.linalg.norm(grad.reshape(CELLS, FUNCS, CELLS), axis=1) / math.sqrt(FUNCS)
    least = np.abs(grad).max(axis=0) * (2 if name == "ElasticNet" else 1)
    np.testing.assert_allclose(found.strengths[0], least, rtol=2e-6)
    np.testing.assert_allclose(found.strengths[-1], least / 1000, rtol=2e-6)
    below = clone(model).set_params(regularizer_strength=0.99 * least).fit(features(), coupled())
    assert ((below.coef_ != 0).sum(axis=0) > 0).all()


@pytest.mark.parametrize("name", ["Ridge", "Quadratic"])
def test_a_ridge_path_spans_priors(name):
    """Variance of the log rate: 0.01 from all features together, up to 1 from each."""
    rows = np.asarray(features())[WINDOW:]
    mask = np.ones((FUNCS * CELLS, CELLS))
    mask[:6, 2] = 0
    found = regularization_path(model_of(name, feature_mask=mask), features(), coupled(), 3)
    weakest = rows.var(axis=0).mean() / len(rows) / (2.0 if name == "Quadratic" else 1.0)
    np.testing.assert_allclose(found.strengths[-1], weakest)
    np.testing.assert_allclose(found.strengths[0], 100 * mask.sum(axis=0) * weakest)
    np.testing.assert_allclose(found.strengths[1] ** 2, found.strengths[0] * found.strengths[2])


def test_strengths_are_sorted_for_every_receiver():
    each = np.array([[0.1, 0.01, 0.3, 0.2], [0.2, 0.1, 0.0, 0.1]])
    found = regularization_path(model_of("Lasso"), features(), coupled(), each)
    np.testing.assert_array_equal(found.strengths, [[0.2, 0.1, 0.3, 0.2], [0.1, 0.01, 0.0, 0.1]])
    same = regularization_path(model_of("Lasso"), features(), coupled(), [0.01, 0.2, 0.1])
    np.testing.assert_array_equal(same.strengths, np.tile([[0.2], [0.1], [0.01]], CELLS))


@pytest.mark.parametrize("pair", [(1.0, 0.9), [1.0, 0.9]])
def test_the_ratio_of_a_pair_holds_on_the_path(pair):
    model = model_of("ElasticNet", regularizer_strength=pair)
    of_object = fastglm.PopulationGLM(regularizer=reg.ElasticNet(0.9))
    found = regularization_path(model, features(), coupled(), 4)
    same = regularization_path(of_object, features(), coupled(), 4)
    np.testing.assert_array_equal(found.coef, same.coef)


def test_the_path_of_one_receiver():
    one = fastglm.GLM(regularizer="GroupLasso")
    found = regularization_path(one, features(), coupled()[:, 1], 5)
    many = regularization_path(model_of("GroupLasso"), features(), coupled(), 5)
    np.testing.assert_array_equal(found.coef[:, :, 0], many.coef[:, :, 1])
    cv = cross_validate(one, features(), coupled()[:, 1], 5, folds=3)
    assert cv.model.coef_.shape == (FUNCS * CELLS,)


# --- folds ---


def depends(make, counts):
    """Which rows change when the counts of a bin do, found by changing them."""
    before = np.nan_to_num(np.asarray(make(counts)))
    out = np.zeros((len(counts),) * 2, bool)
    for u in range(len(counts)):
        changed = counts.copy()
        changed[u] += 1
        out[:, u] = (np.nan_to_num(np.asarray(make(changed))) != before).any(axis=1)
    return out


SPEED = np.random.default_rng(5).random(60)


def product(counts, **more):
    basis = fastglm.basis.HistoryConv(4) * fastglm.basis.BSplineEval(4, bounds=(0, 1))
    return basis.compute_features(counts, np.repeat(SPEED[:, None], 2, axis=1), **more)


def two_windows(counts, **more):
    both = fastglm.basis.HistoryConv(3, conv_kwargs={"predictor_causality": "acausal"})
    basis = fastglm.basis.HistoryConv(5) + both
    return basis.compute_features(counts, counts, **more)


def history(causality):
    basis = fastglm.basis.HistoryConv(5, conv_kwargs={"predictor_causality": causality})
    return basis.compute_features


MAKERS = {
    "causal": history("causal"),
    "acausal": history("acausal"),
    "anti-causal": history("anti-causal"),
    "product": product,
    "two windows": two_windows,
}
TRIALS = np.repeat([0, 1, 2], 20)
FOLDS = {
    "blocks": 3,
    "trials": TRIALS,
    "some trials": np.where(TRIALS == 1, -1, TRIALS),
    "splitter": KFold(3),
    "time series": TimeSeriesSplit(2),
}


def parts_of(folds, valid):
    """Train and test of every fold as sets of bins, before anything is dropped."""
    n = len(valid)
    if isinstance(folds, int):
        inside = np.flatnonzero(valid)
        ends = [inside[-(-len(inside) * (k + 1) // folds) - 1] + 1 for k in range(folds - 1)]
        edges = [0, *ends, n]
        parts = [set(range(a, b)) for a, b in pairwise(edges)]
        return [(set(range(n)) - part, part) for part in parts]
    if hasattr(folds, "split"):
        return [(set(a), set(b)) for a, b in folds.split(np.zeros((n, 1)))]
    labels = sorted(set(folds[folds >= 0]))
    tests = [set(np.flatnonzero(folds == f)) for f in labels]
    return [(set(range(n)) - part, part) for part in tests]


@pytest.mark.parametrize("epochs", [None, [[0, 20], [20, 40], [40, 60]], [[2, 25], [30, 60]]])
@pytest.mark.parametrize("folds", FOLDS)
@pytest.mark.parametrize("maker", MAKERS)
def test_folds_hold_every_row_that_does_not_look_across(maker, folds, epochs):
    counts = np.random.default_rng(1).poisson(0.7, size=(60, 2)).astype(float)

    def make(values):
        return MAKERS[maker](values, epochs=epochs)

    X, folds = make(counts), FOLDS[folds]
    looks_at = depends(make, counts)
    expected = []
    for train, test in parts_of(folds, X.valid):
        fold = []
        for part in (train, test):
            kept = [
                t for t in sorted(part) if X.valid[t] and set(np.flatnonzero(looks_at[t])) <= part
            ]
            fold.append(kept)
        expected.append(fold)
    found = [[list(np.flatnonzero(part)) for part in fold] for fold in split(X, folds)]
    assert found == expected


def test_a_block_that_begins_with_an_epoch_keeps_its_rows():
    counts = coupled(60)
    X = BASIS.compute_features(counts, epochs=[[0, 30], [30, 60]])
    (train, test), _ = split(X, 2)
    np.testing.assert_array_equal(np.flatnonzero(test), np.arange(6, 30))
    np.testing.assert_array_equal(np.flatnonzero(train), np.arange(36, 60))


def test_reach_of_every_block():
    counts = coupled(60)[:, :2]
    assert fastglm.basis.HistoryConv(5).compute_features(counts).reach == (5, 0)
    assert product(counts).reach == (4, 0)
    assert two_windows(counts).reach == (5, 1)
    assert fastglm.features.as_feature_matrix(counts).reach == (0, 0)
    assert fastglm.features.hold(SPEED[:6], 60, every=10).reach == (0, 0)
    both = fastglm.features.hstack([product(counts), SPEED])
    assert both.reach == (4, 0)


# --- cross-validation ---


def log_likelihood(y, mu):
    return np.mean([k * math.log(m) - m - math.lgamma(k + 1) for k, m in zip(y, mu, strict=True)])


@cache
def by_hand(name, n_strengths, folds=3):
    """Scores from single fits to the rows of every fold, one receiver at a time."""
    strengths = regularization_path(model_of(name), features(), coupled(), n_strengths).strengths
    rows, counts = np.asarray(features()), coupled()
    blocks = np.array_split(np.arange(WINDOW, len(counts)), folds)
    kind = kind_of(name)
    if name == "GroupLasso":
        kind = reg.GroupLasso(np.repeat(np.eye(CELLS), FUNCS, axis=1))
    if name == "Quadratic":
        kind = reg.Quadratic(np.kron(np.eye(CELLS), kind.matrix))
    scores = np.full((len(strengths), folds, CELLS), np.nan)
    for f, block in enumerate(blocks):
        # The first block has the bins before it to itself.
        own = set(block) | (set(range(WINDOW)) if f == 0 else set())
        test = [t for t in block if set(range(t - WINDOW, t + 1)) <= own]
        train = [t for t in range(WINDOW, len(counts)) if not set(range(t - WINDOW, t + 1)) & own]
        for s, row in enumerate(strengths):
            for j in range(CELLS):
                model = fastglm.GLM(regularizer=kind, regularizer_strength=row[j])
                model.fit(rows[train], counts[train, j])
                mu = np.exp(rows[test] @ model.coef_ + model.intercept_[0])
                scores[s, f, j] = log_likelihood(counts[test, j], mu)
    return scores


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", NAMES)
def test_cross_validation_is_a_loop_of_single_fits(name, path):
    X, counts = features(), coupled()
    cv = cross_validate(model_of(name, path), X, counts, 4, folds=3)
    scores = by_hand(name, 4)
    # The fits of the folds end early: see the notes of cross_validate.
    np.testing.assert_allclose(cv.scores, scores, atol=1e-4 if sparse(name) else 5e-5)
    for j in range(CELLS):
        means = [np.mean(scores[s, :, j]) for s in range(4)]
        best = max(range(4), key=means.__getitem__)
        assert cv.chosen[j] == best
        assert cv.strength[j] == cv.strengths[best, j]
        alone = model_of(name, path, regularizer_strength=cv.strength[j])
        alone.fit(X, counts[:, [j]])
        np.testing.assert_array_equal(cv.model.coef_[:, j], alone.coef_[:, 0])
    assert len(set(cv.chosen)) > 1
    np.testing.assert_allclose(cv.mean_score, cv.scores.mean(axis=1))
    spread = cv.scores.std(axis=1, ddof=1) / math.sqrt(3)
    np.testing.assert_allclose(cv.standard_error, spread)


@pytest.mark.parametrize("name", ["Ridge", "Lasso"])
def test_the_rule_of_one_standard_error(name):
    X, counts = features(), coupled()
    best = cross_validate(model_of(name), X, counts, 6, folds=4)
    cv = cross_validate(model_of(name), X, counts, 6, folds=4, rule="one-standard-error")
    np.testing.assert_array_equal(cv.scores, best.scores)
    for j in range(CELLS):
        mean = [cv.scores[s, :, j].mean() for s in range(6)]
        top = int(np.argmax(mean))
        error = cv.scores[top, :, j].std(ddof=1) / 2
        expected = next(s for s in range(6) if mean[s] >= mean[top] - error)
        assert cv.chosen[j] == expected <= best.chosen[j]
    assert (cv.chosen < best.chosen).any()
    assert (cv.strength >= best.strength).all()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["Ridge", "GroupLasso"])
def test_a_receiver_chooses_the_same_whoever_else_is_there(name, path):
    X, counts = features(), coupled()
    together = cross_validate(model_of(name, path), X, counts, 4, folds=3)
    for some in ([2], [3, 1]):
        fewer = cross_validate(model_of(name, path), X, counts[:, some], 4, folds=3)
        np.testing.assert_array_equal(fewer.scores, together.scores[:, :, some])
        np.testing.assert_array_equal(fewer.model.coef_, together.model.coef_[:, some])


def test_epochs_and_trials_as_folds():
    counts = coupled()
    X = BASIS.compute_features(counts, epochs=[[0, 300], [300, 600], [600, 900]])
    fold = np.repeat([0, 1, 2], 300)
    cv = cross_validate(model_of("Ridge"), X, counts, [0.1, 0.001], folds=fold)
    rows = np.asarray(X)
    for f in range(3):
        test = list(range(300 * f + WINDOW, 300 * (f + 1)))
        train = [t for t in range(900) if t // 300 != f and t % 300 >= WINDOW]
        model = model_of("Ridge", regularizer_strength=0.001).fit(rows[train], counts[train])
        expected = model.score(rows[test], counts[test], aggregate_sample_scores=per_receiver)
        np.testing.assert_allclose(cv.scores[1, f], expected, atol=2e-5)
    blocks = cross_validate(model_of("Ridge"), X, counts, [0.1, 0.001], folds=3)
    np.testing.assert_array_equal(blocks.scores, cv.scores)
    splitter = cross_validate(model_of("Ridge"), X, counts, [0.1, 0.001], folds=KFold(3))
    np.testing.assert_array_equal(splitter.scores, cv.scores)


def per_receiver(values):
    return values.mean(axis=0)


def test_missing_counts_and_silent_receivers():
    counts = coupled().copy()
    counts[:, 0] = 0
    counts[:320, 1] = np.nan
    with pytest.warns(UserWarning, match=r"silent \(receiver 0\)"):
        cv = cross_validate(model_of("Ridge"), features(), counts, 3, folds=3)
    assert np.isnan(cv.scores[:, 0, 1]).all()
    assert np.isfinite(cv.scores[:, 1:, 1]).all()
    np.testing.assert_allclose(cv.mean_score[:, 1], cv.scores[:, 1:, 1].mean(axis=1))
    np.testing.assert_allclose(cv.scores[:, :, 0], 0, atol=1e-12)
    with pytest.warns(UserWarning, match="silent"):
        cross_validate(model_of("Ridge"), features(), counts, 3, rule="one-standard-error")
    # A receiver that is known in a single fold has no standard error, and takes the best.
    counts[:620, 1] = np.nan
    with pytest.warns(UserWarning, match="silent"):
        cv = cross_validate(
            model_of("Ridge"), features(), counts, 3, folds=3, rule="one-standard-error"
        )
    assert np.isnan(cv.standard_error[:, 1]).all()


# --- inside scikit-learn ---


def test_grid_search_over_strengths():
    X, counts = features(), coupled()
    grid = {"regularizer_strength": [1.0, 0.01, 0.0001]}
    search = GridSearchCV(model_of("Ridge"), grid, cv=KFold(3)).fit(X, counts)
    rows = np.asarray(X)
    for k, strength in enumerate(grid["regularizer_strength"]):
        for f, (train, test) in enumerate(KFold(3).split(counts)):
            model = model_of("Ridge", regularizer_strength=strength)
            score = model.fit(rows[train], counts[train]).score(rows[test], counts[test])
            assert search.cv_results_[f"split{f}_test_score"][k] == pytest.approx(score, abs=1e-12)
    best = int(np.argmax(search.cv_results_["mean_test_score"]))
    assert search.best_params_["regularizer_strength"] == grid["regularizer_strength"][best]
    np.testing.assert_allclose(search.predict(X[10:20]), search.best_estimator_.predict(X)[10:20])


def test_pipeline_and_grid_search_over_penalties():
    counts = coupled()
    steps = Pipeline([("basis", BASIS.to_transformer()), ("model", model_of("Ridge"))])
    grid = [
        {
            "model__regularizer": ["Lasso", reg.ElasticNet(0.8)],
            "model__regularizer_strength": [0.1, 0.003],
        },
        {"model__regularizer": [reg.GroupLasso()], "model__regularizer_strength": [0.003]},
    ]
    search = GridSearchCV(steps, grid, cv=KFold(2)).fit(counts, counts)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert len(set(search.cv_results_["mean_test_score"])) == 5
    model = search.best_estimator_.named_steps["model"]
    again = clone(model).fit(features(), counts)
    np.testing.assert_array_equal(model.coef_, again.coef_)


# --- families, weights and offsets ---

WEIGHT = np.random.default_rng(1).integers(0, 4, size=900)
OFFSET = 0.3 * np.random.default_rng(2).normal(size=(900, CELLS)) + 2.0


def of_family(link):
    counts = coupled()
    if LINKS[link] == "Bernoulli":
        return counts.clip(max=1)
    noise = np.random.default_rng(3).normal(size=counts.shape)
    return counts - 0.3 + noise if LINKS[link] == "Gaussian" else counts


def adjusted(bins=slice(None), columns=slice(None)):
    return {"sample_weight": WEIGHT[bins], "offset": OFFSET[bins][:, columns]}


@pytest.mark.parametrize("given", [{}, adjusted()], ids=["plain", "adjusted"])
@pytest.mark.parametrize("name", ["Ridge", "Lasso"])
@pytest.mark.parametrize("link", LINKS)
def test_paths_of_every_family(link, name, given):
    X, counts = features(), of_family(link)
    model = model_of(name, observation_model=LINKS[link], inverse_link_function=link)
    found = regularization_path(model, X, counts, 4, **given)
    for k, row in enumerate(found.strengths):
        cold = clone(model).set_params(regularizer_strength=row).fit(X, counts, **given)
        np.testing.assert_allclose(found.objective[k], cold.objective_, rtol=1e-12)
        np.testing.assert_allclose(found.coef[k], cold.coef_, atol=1e-6)
        np.testing.assert_allclose(found.intercept[k], cold.intercept_, atol=1e-6)
    if name == "Lasso":  # it begins where the first feature enters
        assert (found.n_nonzero[0] == 0).all()
        below = clone(model).set_params(regularizer_strength=0.99 * found.strengths[0])
        assert ((below.fit(X, counts, **given).coef_ != 0).sum(axis=0) > 0).all()


@pytest.mark.parametrize("given", [False, True], ids=["plain", "adjusted"])
@pytest.mark.parametrize("link", LINKS)
def test_cross_validation_of_every_family(link, given):
    """Scores against single fits to the rows of each fold, with the fitted scale."""
    X, counts = features(), of_family(link)
    model = model_of("Ridge", observation_model=LINKS[link], inverse_link_function=link)
    cv = cross_validate(model, X, counts, 3, folds=2, **(adjusted() if given else {}))
    valid = X.valid & (WEIGHT > 0) if given else None
    for f, (train, test) in enumerate(split(X, 2, valid=valid)):
        for s, row in enumerate(cv.strengths):
            for j in range(CELLS):
                one = fastglm.GLM(LINKS[link], link, "Ridge", row[j])
                some = adjusted(train, j) if given else {}
                one.fit(np.asarray(X)[train], counts[train, j], **some)
                some = adjusted(test, j) if given else {}
                expected = one.score(np.asarray(X)[test], counts[test, j], **some)
                assert cv.scores[s, f, j] == pytest.approx(expected, abs=2e-4)
    best = clone(model).set_params(regularizer_strength=cv.strength)
    best.fit(X, counts, **(adjusted() if given else {}))
    np.testing.assert_array_equal(cv.model.coef_, best.coef_)
    assert cv.model.weighted_ is cv.model.shifted_ is given


def test_the_ridge_of_a_gaussian_path_follows_the_noise():
    """Ten times the counts have the same strengths, which are in units of the noise."""
    counts = of_family("identity")
    model = model_of("Ridge", observation_model="Gaussian")
    one, ten = (regularization_path(model, features(), k * counts, 3) for k in (1, 10))
    np.testing.assert_allclose(one.strengths, ten.strengths)
    np.testing.assert_allclose(10 * one.coef, ten.coef, atol=1e-8)


# --- errors ---


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"rule": "worst"}, "rule is 'worst'; expected one of"),
        ({"folds": 1}, "folds is 1; expected an integer of at least 2"),
        ({"folds": 2.5}, "folds is 2.5; expected an integer"),
        ({"folds": True}, "folds is True; expected an integer"),
        ({"folds": np.zeros(900, int)}, "folds names a single fold"),
        ({"folds": np.zeros(10, int)}, r"folds has shape \(10,\) and dtype int"),
        ({"folds": np.zeros(900)}, "dtype float64; expected an integer for each of the 900 bins"),
        ({"folds": 800}, "Fold 1 has .* and 0 to score, beside those whose window crosses an edge"),
        ({"folds": np.arange(900) % 2}, "Fold 0 has 0 bins to fit .* use fewer or longer folds"),
        ({"strengths": 0}, "strengths is 0; expected an integer or an array"),
        ({"strengths": True}, "strengths is True; expected an integer"),
        ({"strengths": 2.5}, "strengths is 2.5; expected an integer"),
        (
            {"strengths": np.ones((2, 3))},
            r"strengths has shape \(2, 3\); expected \(n_strengths,\)",
        ),
        ({"strengths": []}, r"strengths has shape \(0,\)"),
        ({"strengths": [1.0, -1.0]}, "strengths must be finite and not negative"),
        ({"strengths": [1.0, np.inf]}, "strengths must be finite and not negative"),
    ],
)
def test_errors(change, match):
    with pytest.raises(ValueError, match=match):
        cross_validate(model_of("Ridge"), features(), coupled(), **change)


def test_a_model_without_a_regularizer_has_no_path():
    for function in (cross_validate, regularization_path):
        with pytest.raises(ValueError, match="model has no regularizer; pass one"):
            function(fastglm.PopulationGLM(), features(), coupled())
