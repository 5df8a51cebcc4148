"""Weights and offsets: repeated rows, other libraries, and what is refused."""

import itertools

import numpy as np
import pytest

import fastglm

RNG = np.random.default_rng(0)
N_BINS, N_CELLS = 1500, 3
COUNTS = RNG.poisson(0.3, size=(N_BINS, N_CELLS))
X = fastglm.basis.RaisedCosineLogConv(3, window_size=15).compute_features(COUNTS)
DENSE = np.asarray(X)
WEIGHT = RNG.integers(0, 4, size=N_BINS)
OFFSETS = {1: RNG.normal(size=N_BINS), N_CELLS: RNG.normal(size=(N_BINS, N_CELLS)), 0: None}
# The rows as often as their weights.
REPEATED = np.repeat(np.arange(N_BINS), WEIGHT)
REPEATED = REPEATED[X.valid[REPEATED]]
SETTINGS = list(
    itertools.product(
        ("exp", "softplus"),
        ("newton-cholesky", "newton-cg"),
        (("Ridge", 1e-3), ("Lasso", 3e-3), (None, None)),
    )
)


def model_of(link, solver, penalty, **kwargs):
    return fastglm.PopulationGLM(
        inverse_link_function=link,
        solver_name=solver,
        regularizer=penalty[0],
        regularizer_strength=penalty[1],
        # The decrement bounds the objective; coefficients are as exact as its root.
        solver_kwargs={"tol": 1e-22},
        **kwargs,
    )


@pytest.mark.parametrize("n_columns", OFFSETS)
@pytest.mark.parametrize(("link", "solver", "penalty"), SETTINGS)
def test_weights_are_repeated_rows(link, solver, penalty, n_columns):
    offset = OFFSETS[n_columns]
    model = model_of(link, solver, penalty)
    model.fit(X, COUNTS, sample_weight=WEIGHT, offset=offset)
    # The same rows, repeated; the offset there is tested against others below.
    given = None if offset is None else offset[REPEATED]
    other = model_of(link, "newton-cholesky", penalty)
    other.fit(DENSE[REPEATED], COUNTS[REPEATED], offset=given)
    assert set(model.status_) == {"converged"}
    np.testing.assert_allclose(model.coef_, other.coef_, rtol=0, atol=1e-8)
    np.testing.assert_allclose(model.intercept_, other.intercept_, rtol=0, atol=1e-8)
    np.testing.assert_allclose(model.objective_, other.objective_, rtol=1e-13)
    for score in ("log-likelihood", "pseudo-r2-McFadden", "pseudo-r2-Cohen"):
        np.testing.assert_allclose(
            model.score(X, COUNTS, score, sample_weight=WEIGHT, offset=offset),
            other.score(DENSE[REPEATED], COUNTS[REPEATED], score, offset=given),
            rtol=1e-8,
        )


@pytest.mark.parametrize("link", ["exp", "softplus"])
def test_offset_is_a_feature_whose_coefficient_is_one(link):
    """The objective, from its formula, has a gradient of 0 at the fit."""
    offset = OFFSETS[N_CELLS]
    model = model_of(link, "newton-cg", ("Ridge", 1e-2)).fit(X, COUNTS, offset=offset)
    rows = X.valid
    eta = DENSE[rows] @ model.coef_ + model.intercept_ + offset[rows]
    mu = np.exp(eta) if link == "exp" else np.log1p(np.exp(eta))
    slope = mu if link == "exp" else 1 / (1 + np.exp(-eta))
    residual = slope * (1 - COUNTS[rows] / mu)
    grad = DENSE[rows].T @ residual / rows.sum() + 1e-2 * model.coef_
    assert np.abs(grad).max() < 1e-9
    assert np.abs(residual.mean(axis=0)).max() < 1e-9
    np.testing.assert_allclose(model.predict(X, offset)[rows], mu, rtol=1e-12)
    loss = mu - COUNTS[rows] * np.log(mu)
    penalty = 0.5e-2 * (model.coef_**2).sum(axis=0)
    np.testing.assert_allclose(model.objective_, loss.mean(axis=0) + penalty, rtol=1e-12)


@pytest.mark.parametrize("link", ["exp", "softplus"])
@pytest.mark.parametrize("lanes", [1, 16])
def test_masks_batches_and_missing_counts(link, lanes):
    """Receivers with their own masks and missing counts, in batches, are fits of their own."""
    mask = np.ones((9, N_CELLS), bool)
    mask[:6, 1] = mask[3:, 2] = False
    if lanes == 16:
        mask[:, 1:] = True
    counts = COUNTS.astype(float)
    counts[100:160, 2] = np.nan
    offset = OFFSETS[N_CELLS]
    model = model_of(link, "newton-cg", ("Ridge", 1e-2), feature_mask=mask)
    model.fit(X, counts, sample_weight=WEIGHT, offset=offset)
    for j in range(N_CELLS):
        known = X.valid & np.isfinite(counts[:, j]) & (WEIGHT > 0)
        alone = fastglm.GLM(
            inverse_link_function=link, regularizer="Ridge", regularizer_strength=1e-2
        )
        alone.fit(
            DENSE[known][:, mask[:, j]],
            counts[known, j],
            sample_weight=WEIGHT[known] * 2.5,  # only their ratios matter
            offset=offset[known, j],
        )
        np.testing.assert_allclose(model.coef_[mask[:, j], j], alone.coef_, atol=1e-8)
        assert not model.coef_[~mask[:, j], j].any()


def test_bins_of_weight_zero_are_left_out():
    counts = COUNTS.copy()
    weight = np.ones(N_BINS)
    weight[200:900] = 0
    model = fastglm.PopulationGLM().fit(X, counts, sample_weight=weight)
    missing = counts.astype(float)
    missing[200:900] = np.nan
    np.testing.assert_allclose(
        model.coef_, fastglm.PopulationGLM().fit(X, missing).coef_, rtol=0, atol=1e-9
    )
    # Counts there are history all the same, but nobody's events.
    silent = np.zeros(N_BINS, int)
    silent[300] = 1
    with pytest.warns(fastglm.glm.ConvergenceWarning, match="silent"):
        alone = fastglm.GLM().fit(X, silent, sample_weight=weight)
    assert alone.status_[0] == "silent"


def test_weights_of_one_and_offsets_of_zero_change_nothing():
    plain = model_of("exp", "newton-cg", ("Ridge", 1e-2)).fit(X, COUNTS)
    model = model_of("exp", "newton-cg", ("Ridge", 1e-2))
    model.fit(X, COUNTS, sample_weight=np.ones(N_BINS), offset=np.zeros(N_BINS))
    np.testing.assert_allclose(model.coef_, plain.coef_, rtol=0, atol=1e-10)
    np.testing.assert_array_equal(model.predict(X), model.predict(X, np.zeros(N_BINS)))


def test_large_offsets_start_near_enough():
    """An exposure in nanoseconds shifts the intercept by log(1e9), and nothing else."""
    offset = OFFSETS[1]
    for link_solver in ("newton-cg", "newton-cholesky"):
        near = model_of("exp", link_solver, ("Ridge", 1e-2)).fit(X, COUNTS, offset=offset)
        far = model_of("exp", link_solver, ("Ridge", 1e-2)).fit(X, COUNTS, offset=offset + 800.0)
        np.testing.assert_allclose(far.coef_, near.coef_, rtol=0, atol=1e-8)
        np.testing.assert_allclose(far.intercept_, near.intercept_ - 800.0, rtol=0, atol=1e-8)


def test_peer_scikit_learn():
    from sklearn.linear_model import PoissonRegressor

    rows = X.valid & (WEIGHT > 0)  # scikit-learn 1.4 takes the others for a flat objective
    peer = PoissonRegressor(alpha=1e-2, solver="newton-cholesky", tol=1e-12, max_iter=1000)
    peer.fit(DENSE[rows], COUNTS[rows, 1], sample_weight=WEIGHT[rows])
    model = fastglm.GLM(
        regularizer="Ridge", regularizer_strength=1e-2, solver_kwargs={"tol": 1e-22}
    ).fit(X, COUNTS[:, 1], sample_weight=WEIGHT)
    np.testing.assert_allclose(model.coef_, peer.coef_, rtol=0, atol=1e-8)
    assert model.intercept_[0] == pytest.approx(peer.intercept_, abs=1e-8)


def test_peer_statsmodels():
    sm = pytest.importorskip("statsmodels.api")
    rows = X.valid & (WEIGHT > 0)
    exposure = np.exp(OFFSETS[1])
    peer = sm.GLM(
        COUNTS[rows, 0],
        sm.add_constant(DENSE[rows]),
        family=sm.families.Poisson(),
        freq_weights=WEIGHT[rows],
        exposure=exposure[rows],
    ).fit(tol=1e-15)
    model = fastglm.GLM(solver_kwargs={"tol": 1e-22})
    model.fit(X, COUNTS[:, 0], sample_weight=WEIGHT, offset=np.log(exposure))
    np.testing.assert_allclose(model.coef_, peer.params[1:], rtol=0, atol=1e-8)
    np.testing.assert_allclose(model.intercept_[0], peer.params[0], rtol=0, atol=1e-8)
    explained = model.score(
        X, COUNTS[:, 0], "pseudo-r2-Cohen", sample_weight=WEIGHT, offset=np.log(exposure)
    )
    assert explained == pytest.approx(1 - peer.deviance / peer.null_deviance, rel=1e-8)
    likelihood = model.score(X, COUNTS[:, 0], sample_weight=WEIGHT, offset=np.log(exposure))
    assert likelihood == pytest.approx(peer.llf / WEIGHT[rows].sum(), rel=1e-10)


def test_a_checkpoint_knows_weights_and_offsets(tmp_path):
    path = tmp_path / "fit.npz"
    fastglm.PopulationGLM().fit(X, COUNTS, checkpoint=path, sample_weight=WEIGHT)
    fastglm.PopulationGLM().fit(X, COUNTS, checkpoint=path, sample_weight=WEIGHT)
    with pytest.raises(ValueError, match="checkpoint of other data or settings"):
        fastglm.PopulationGLM().fit(X, COUNTS, checkpoint=path, sample_weight=WEIGHT + 1)
    with pytest.raises(ValueError, match="checkpoint of other data or settings"):
        fastglm.PopulationGLM().fit(
            X, COUNTS, checkpoint=path, sample_weight=WEIGHT, offset=OFFSETS[1]
        )


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"sample_weight": WEIGHT[:-1]}, r"sample_weight.shape == \(1499,\), expected \(1500,\)"),
        ({"sample_weight": -np.ones(N_BINS)}, "sample_weight holds negative, infinite or NaN"),
        ({"sample_weight": np.full(N_BINS, np.nan)}, "sample_weight holds negative, infinite"),
        ({"sample_weight": np.zeros(N_BINS)}, "or only zeros"),
        ({"sample_weight": np.arange(N_BINS) < 5}, "Every bin that has a history .* weight 0"),
        ({"offset": np.ones((N_BINS, 2))}, r"offset has shape \(1500, 2\); .*np.log\(exposure\)"),
        ({"offset": np.full(N_BINS, -np.inf)}, "offset holds NaN or infinity; give these bins"),
    ],
)
def test_what_is_refused(given, match):
    with pytest.raises(ValueError, match=match):
        fastglm.PopulationGLM().fit(X, COUNTS, **given)


def test_what_weights_do_not_go_with():
    model = fastglm.PopulationGLM().fit(X, COUNTS, sample_weight=WEIGHT)
    with pytest.raises(ValueError, match="sample_weight goes with the mean only"):
        model.score(X, COUNTS, aggregate_sample_scores=np.sum, sample_weight=WEIGHT)
    with pytest.raises(ValueError, match="fitted with sample_weight; pass the sample_weight of"):
        model.standard_errors(X, COUNTS)
    assert model.standard_errors(X, COUNTS, sample_weight=WEIGHT).shape == (9, N_CELLS)
    # A fit without weights needs none.
    assert model.fit(X, COUNTS).standard_errors(X, COUNTS).shape == (9, N_CELLS)


def test_residuals_need_the_offset_of_the_fit():
    offset = OFFSETS[N_CELLS]
    model = fastglm.PopulationGLM().fit(X, COUNTS, offset=offset)
    with pytest.raises(ValueError, match="fitted with offset; pass the offset of these bins"):
        model.residuals(X, COUNTS)
    left = model.residuals(X, COUNTS, offset=offset)
    np.testing.assert_array_equal(left, COUNTS - model.predict(X, offset))
    np.testing.assert_allclose(np.nanmean(left, axis=0), 0, atol=1e-9)
    rates = model.simulate(0, X, offset)[1]
    np.testing.assert_array_equal(rates, model.predict(X, offset))
