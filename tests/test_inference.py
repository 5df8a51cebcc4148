"""Standard errors and tests against the textbook in NumPy, statsmodels and full refits."""

import naive_inference as naive
import numpy as np
import pytest
from oracle import FAMILIES, LINKS
from scipy import stats

import fastglm
from fastglm import _effective, inference
from fastglm._algebra import inverse

N_FUNCS, N_CELLS = 3, 3


def recording(n_bins=1500, seed=0):
    """Counts, features of three senders with a covariate beside them, and the covariate."""
    rng = np.random.default_rng(seed)
    drive = rng.normal(size=n_bins)
    counts = rng.poisson(np.exp(-1.2 + 0.3 * drive[:, None]), size=(n_bins, N_CELLS))
    basis = fastglm.basis.RaisedCosineLogConv(N_FUNCS, window_size=12)
    X = fastglm.features.hstack([basis.compute_features(counts), drive[:, None]])
    return counts.astype(float), X


def dense(X, counts, j, features=slice(None)):
    """Z with the ones last, y and bins of a receiver."""
    rows = np.asarray(X)
    kept = np.isfinite(rows).all(axis=1) & np.isfinite(counts[:, j])
    z = rows[kept][:, features]
    return np.column_stack([z, np.ones(len(z))]), counts[kept, j], np.flatnonzero(kept)


def theta(model, j, features=slice(None)):
    return np.append(model.coef_[features, j], model.intercept_[j])


def of_family(counts, link, seed=0):
    """Counts as a family may have them, with NaN where they had it."""
    family = FAMILIES[link]
    if family == "Bernoulli":
        return np.where(np.isnan(counts), np.nan, counts > 0)
    noise = np.random.default_rng(seed).normal(size=counts.shape)
    if family == "Gamma":
        return 0.5 + np.abs(counts - 0.4 + noise)
    return counts - 0.4 + noise if family == "Gaussian" else counts


def model_of(link, strength=None, kind=fastglm.PopulationGLM, **kwargs):
    family = FAMILIES[link]
    if family == "NegativeBinomial":
        family = fastglm.observation_models.NegativeBinomialObservations(0.7)
    return kind(
        family,
        link.split()[-1],
        regularizer=None if strength is None else "Ridge",
        regularizer_strength=strength,
        solver_kwargs={"tol": 1e-22},
        **kwargs,
    )


def precision_of(model, j):
    return 1 / (2 * model.scale_[j]) if model.observation_model.name == "Gaussian" else 1.0


@pytest.mark.parametrize("kind", ["observed", "expected", "robust", "blocks"])
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("strength", [None, 1e-2])
def test_standard_errors_are_those_of_the_textbook(kind, link, strength):
    counts, X = recording()
    counts[100:160, 1] = np.nan
    counts = of_family(counts, link)
    mask = np.ones((X.shape[1], N_CELLS), bool)
    mask[3:6, 2] = False
    model = model_of(link, strength, feature_mask=mask).fit(X, counts)
    u = inference.uncertainty(model, X, counts, kind, block_size=100)
    for j in range(N_CELLS):
        free = np.flatnonzero(mask[:, j])
        z, y, bins = dense(X, counts, j, free)
        penalty = None if strength is None else strength * np.eye(free.size)
        v = naive.covariance(
            z, y, theta(model, j, free), link, penalty, kind, bins // 100, precision_of(model, j),
            u.filters[free], np.nanmean(np.asarray(X), axis=0)[free],
        )  # fmt: skip
        np.testing.assert_allclose(u.standard_errors[free, j], np.sqrt(np.diag(v))[:-1], rtol=1e-6)
        np.testing.assert_allclose(u.intercept_standard_errors[j], np.sqrt(v[-1, -1]), rtol=1e-6)
        filter_ = np.flatnonzero(u.filters == 0)
        np.testing.assert_allclose(u.covariance[0][j], v[:3, :3], rtol=1e-6, atol=1e-10)
        c = model.coef_[filter_, j]
        statistic = c @ np.linalg.solve(v[:3, :3], c)
        np.testing.assert_allclose(u.wald_test().statistic[0, j], statistic, rtol=1e-5)
        if link == "identity":
            rss = ((y - z @ theta(model, j, free)) ** 2).sum()
            assert model.scale_[j] == pytest.approx(rss / (len(y) - free.size - 1), rel=1e-12)
    assert np.isnan(u.standard_errors[3:6, 2]).all()


FAMILIES_OF_STATSMODELS = {
    "exp": lambda sm: sm.families.Poisson(),
    "logistic": lambda sm: sm.families.Binomial(),
    "cloglog": lambda sm: sm.families.Binomial(sm.families.links.CLogLog()),
    "identity": lambda sm: sm.families.Gaussian(),
    "Gamma one_over_x": lambda sm: sm.families.Gamma(),
    "Gamma exp": lambda sm: sm.families.Gamma(sm.families.links.Log()),
    "NegativeBinomial exp": lambda sm: sm.families.NegativeBinomial(alpha=0.7),
}
# Links whose sandwich in statsmodels has the expected information.
EXPECTED = "cloglog", "Gamma exp", "NegativeBinomial exp"


@pytest.mark.filterwarnings("ignore:The InversePower link")
@pytest.mark.parametrize("link", FAMILIES_OF_STATSMODELS)
@pytest.mark.parametrize("adjusted", [False, True])
def test_peer_statsmodels(link, adjusted, monkeypatch):
    """Standard errors, scale and likelihood-ratio tests, with weights and an offset too."""
    monkeypatch.setattr(_effective, "ENOUGH", 0)  # HC0 has no part of the model
    sm = pytest.importorskip("statsmodels.api")
    counts, X = recording(seed=1)
    counts = of_family(counts, link)
    rng = np.random.default_rng(2)
    given = {}
    if adjusted:
        size = 0.03 if link.endswith("one_over_x") else 0.3
        given = {"sample_weight": rng.integers(0, 4, 1500), "offset": size * rng.normal(size=1500)}
    model = model_of(link).fit(X, counts, **given)
    kinds = ["expected", "observed"] + ["robust"] * (not adjusted)
    errors = {kind: inference.uncertainty(model, X, counts, kind, **given) for kind in kinds}
    test = inference.likelihood_ratio_test(model, X, counts, [(0, 1)], **given)
    for j in range(N_CELLS):
        z, y, bins = dense(X, counts, j)
        weight = given.get("sample_weight", np.ones(1500))[bins]
        z, y, some = z[weight > 0], y[weight > 0], {"freq_weights": weight[weight > 0]}
        if adjusted:
            some["offset"] = given["offset"][bins][weight > 0]
        family = FAMILIES_OF_STATSMODELS[link](sm)
        peer = sm.GLM(y, z, family=family, **some).fit(tol=1e-14, maxiter=100)
        if FAMILIES[link] != "NegativeBinomial":  # whose scale is no factor of the variance
            np.testing.assert_allclose(model.scale_[j], peer.scale, rtol=1e-10)
        np.testing.assert_allclose(
            errors["expected"].standard_errors[:, j], peer.bse[:-1], rtol=1e-6
        )
        hessian = peer.model.hessian(peer.params, observed=True, scale=peer.scale)
        np.testing.assert_allclose(
            errors["observed"].standard_errors[:, j],
            np.sqrt(np.diag(np.linalg.inv(-hessian)))[:-1],
            rtol=1e-6,
        )
        if not adjusted and link not in EXPECTED:
            peer = sm.GLM(y, z, family=family).fit(tol=1e-14, maxiter=100, cov_type="HC0")
            np.testing.assert_allclose(
                errors["robust"].standard_errors[:, j], peer.bse[:-1], rtol=1e-6
            )
        if j == 1:
            null = sm.GLM(y, z[:, 3:], family=family, **some).fit(tol=1e-14, maxiter=100)
            expected = (null.deviance - peer.deviance) / peer.scale
            assert test.statistic[0, 1] == pytest.approx(expected, rel=1e-6)


# Of every ten bins, as many rows in each block of ten.
WEIGHT = np.concatenate(
    [np.random.default_rng(k).permutation([0, 1, 2, 3, 0, 1, 2, 3, 1, 2]) for k in range(60)]
)


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("n_columns", [1, 2])
def test_weights_are_repeated_rows(link, n_columns):
    """Everything that inference gives, with offsets, a ridge, a mask and missing counts."""
    rng = np.random.default_rng(5)
    rows, offset = rng.normal(size=(600, 4)), 0.2 * rng.normal(size=(600, n_columns))
    counts = rng.poisson(np.exp(0.3 * rows[:, :2] - 0.5 + offset)).astype(float)
    counts[100:130, 1] = np.nan
    counts = of_family(counts, link)
    mask = np.ones((4, 2), bool)
    mask[3] = False
    again = np.repeat(np.arange(600), WEIGHT)
    weighted = {"sample_weight": WEIGHT, "offset": offset}
    repeated = {"offset": offset[again]}
    X, Z = (fastglm.features.hstack([v[:, :2], v[:, 2:3], v[:, 3:]]) for v in (rows, rows[again]))
    model = model_of(link, 1e-2, feature_mask=mask).fit(X, counts, **weighted)
    other = model_of(link, 1e-2, feature_mask=mask).fit(Z, counts[again], **repeated)
    np.testing.assert_allclose(model.scale_, other.scale_, rtol=1e-9)
    sizes = {"blocks": (10, 15)}
    for kind in inference.KINDS:
        a, b = sizes.get(kind, (None, None))
        one = inference.uncertainty(model, X, counts, kind, a, **weighted)
        two = inference.uncertainty(other, Z, counts[again], kind, b, **repeated)
        np.testing.assert_allclose(one.standard_errors, two.standard_errors, rtol=1e-8)
        np.testing.assert_allclose(
            one.intercept_standard_errors, two.intercept_standard_errors, rtol=1e-8
        )
        np.testing.assert_allclose(one.wald_test().p_value, two.wald_test().p_value, rtol=1e-6)
    for test, rtol in ((inference.likelihood_ratio_test, 1e-7), (inference.score_test, 1e-5)):
        one, two = test(model, X, counts, **weighted), test(other, Z, counts[again], **repeated)
        np.testing.assert_allclose(one.statistic, two.statistic, rtol=rtol)
        np.testing.assert_array_equal(one.degrees, two.degrees)


@pytest.mark.parametrize("link", LINKS)
def test_likelihood_ratio_is_that_of_two_fits(link):
    counts, X = recording(seed=2)
    counts = of_family(counts, link)
    model = model_of(link).fit(X, counts)
    test = inference.likelihood_ratio_test(model, X, counts, pairs=[(1, 0)])
    z, y, _ = dense(X, counts, 0)
    small = np.delete(z, [3, 4, 5], axis=1)
    full, null = naive.newton(z, y, link), naive.newton(small, y, link)
    likelihoods = (naive.log_likelihood(*case, link) for case in ((z, y, full), (small, y, null)))
    expected = 2 * precision_of(model, 0) * np.subtract(*likelihoods)
    assert test.statistic[1, 0] == pytest.approx(expected, rel=1e-6)
    assert test.p_value[1, 0] == pytest.approx(stats.chi2.sf(expected, 3), rel=1e-5)
    assert np.isnan(test.statistic).sum() == test.statistic.size - 1


@pytest.mark.parametrize("penalty", [("GroupLasso", 3e-3), ("ElasticNet", (2e-3, 0.5))])
def test_likelihood_ratio_tests_of_sparse_fits(penalty):
    """The fit without a filter has the strengths of its receiver, and a pair stays a pair."""
    counts, X = recording(seed=2)
    counts, X = counts[:, :2], fastglm.features.hstack([np.asarray(X)[:, :3], np.asarray(X)[:, 3:]])
    model = fastglm.PopulationGLM(regularizer=penalty[0], regularizer_strength=penalty[1])
    model.fit(X, counts)
    test = inference.likelihood_ratio_test(model, X, counts)
    mask = np.ones((X.shape[1], 2), bool)
    mask[:3] = False
    small = fastglm.PopulationGLM(
        regularizer=penalty[0], regularizer_strength=penalty[1], feature_mask=mask
    ).fit(X, counts)
    total = X.valid.sum() * 2
    difference = model.score(X, counts, aggregate_sample_scores=lambda x: x.sum(axis=0))
    difference = difference - small.score(
        X, counts, aggregate_sample_scores=lambda x: x.sum(axis=0)
    )
    np.testing.assert_allclose(test.statistic[0], np.maximum(2 * difference, 0), atol=1e-6 * total)


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("strength", [None, 1e-2])
def test_score_tests_of_all_pairs_are_raos(link, strength):
    """Every cell with the covariate only; couplings are tested without being fitted."""
    counts, X = recording(seed=3)
    counts[200:260, 1] = np.nan
    counts = of_family(counts, link)
    mask = np.zeros((X.shape[1], N_CELLS), bool)
    mask[-1] = True
    model = model_of(link, strength, feature_mask=mask).fit(X, counts)
    test = inference.score_test(model, X, counts)
    for j in range(N_CELLS):
        z, y, _ = dense(X, counts, j)
        inside = z[:, [-2, -1]]
        penalty = None if strength is None else strength * np.eye(1)
        at = theta(model, j, [-1])
        for i in range(N_CELLS):
            extra = z[:, 3 * i : 3 * i + 3]
            expected = naive.score_statistic(
                inside, extra, y, at, link, penalty, precision_of(model, j)
            )
            assert test.statistic[i, j] == pytest.approx(expected, rel=5e-5)


@pytest.mark.parametrize(
    ("link", "kind"), [*((link, "observed") for link in LINKS), ("exp", "robust")]
)
def test_bands_cover_what_they_say(link, kind):
    """Of 1,500 coefficients of a simulated population, 95 % lie inside 1.96 standard errors."""
    rng = np.random.default_rng(11)
    rows, coef = rng.normal(size=(800, 3)), 0.3 * rng.normal(size=(3, 500))
    eta = rows @ coef - (0.5 if LINKS[link] != "Gaussian" else 0.0)
    loss = fastglm.observation_models.as_observation_model(LINKS[link]).loss(link)
    scale = 2.0 if link == "identity" else 1.0
    counts = loss.observation_model.sample(rng, loss.mean(eta), scale)
    model = fastglm.PopulationGLM(LINKS[link], link, solver_name="newton-cholesky")
    u = inference.uncertainty(model.fit(rows, counts), rows, counts, kind)
    inside = np.abs(model.coef_ - coef) <= stats.norm.ppf(0.975) * u.standard_errors
    assert abs(inside.mean() - 0.95) < 0.015
    if link == "identity":
        assert model.scale_.mean() == pytest.approx(2.0, rel=0.01)


def test_a_saturated_receiver_has_no_errors():
    counts, X = recording(400, seed=7)
    counts = of_family(counts, "logistic")
    counts[:, 1] = 1
    counts[:, 2] = 0
    with pytest.warns(fastglm.glm.ConvergenceWarning, match="saturated"):
        model = fastglm.PopulationGLM("Bernoulli").fit(X, counts)
    assert list(model.status_) == ["converged", "saturated", "silent"]
    assert model.converged_.all()
    np.testing.assert_allclose(model.predict(X)[20:, 1:], [[1.0, 0.0]] * 380, atol=1e-20)
    u = inference.uncertainty(model, X, counts)
    assert np.isnan(u.standard_errors[:, 1:]).all()
    assert np.isfinite(u.standard_errors[:, 0]).all()


def test_false_discovery_control_is_benjamini_and_hochbergs():
    p = np.random.default_rng(0).beta(0.5, 2, size=200)
    np.testing.assert_allclose(inference.benjamini_hochberg(p), naive.q_values(p), rtol=1e-12)
    np.testing.assert_allclose(
        inference.benjamini_hochberg(p), stats.false_discovery_control(p), rtol=1e-12
    )
    p[:3] = np.nan
    q = inference.benjamini_hochberg(p)
    assert np.isnan(q[:3]).all()
    np.testing.assert_allclose(q[3:], stats.false_discovery_control(p[3:]), rtol=1e-12)


def test_what_is_not_determined_is_never_a_number():
    counts, X = recording(seed=4)
    rows = np.asarray(X)[:, :4].copy()
    rows[:, 3] = rows[:, 2]  # collinear
    model = fastglm.PopulationGLM().fit(rows, counts)
    u = inference.uncertainty(model, rows, counts)
    assert np.isinf(u.standard_errors[2:]).all()
    assert np.isfinite(u.standard_errors[:2]).all()
    silent = counts.copy()
    silent[:, 1] = 0
    with pytest.warns(fastglm.glm.ConvergenceWarning, match="silent"):
        model = fastglm.PopulationGLM().fit(X, silent)
    u = inference.uncertainty(model, X, silent)
    assert np.isnan(u.standard_errors[:, 1]).all()
    assert np.isfinite(u.standard_errors[:, 0]).all()


def test_bad_input_is_refused():
    counts, X = recording(200)
    model = fastglm.PopulationGLM().fit(X, counts)
    with pytest.raises(ValueError, match="kind is 'HC3'; expected one of"):
        inference.uncertainty(model, X, counts, "HC3")
    with pytest.raises(ValueError, match="as in the fit"):
        inference.uncertainty(model, X, counts[:, :2])
    with pytest.raises(ValueError, match="numbers outside 0 to 1"):
        inference.benjamini_hochberg([0.5, 1.5])
    u = inference.uncertainty(model, X, counts)
    with pytest.raises(ValueError, match="level is 95"):
        u.bands(np.ones((12, 3)), 95)
    with pytest.raises(ValueError, match="no filter has 5 coefficients"):
        u.bands(np.ones((12, 5)))
    for name, given in (("sample_weight", np.ones(200) * 2), ("offset", np.zeros((200, 3)))):
        adjusted = fastglm.PopulationGLM().fit(X, counts, **{name: given})
        for test in (
            inference.uncertainty,
            inference.likelihood_ratio_test,
            inference.score_test,
            fastglm.connectivity.coupling_map,
            fastglm.PopulationGLM.standard_errors,
        ):
            with pytest.raises(ValueError, match=f"fitted with {name}; pass the {name} of these"):
                test(adjusted, X, counts)


def test_separated_features_of_either_side_have_no_errors():
    """One feature is only active where there are events, one where there are none."""
    rng = np.random.default_rng(8)
    y = (rng.random(400) < 0.3).astype(int)
    on, off = np.flatnonzero(y)[:20], np.flatnonzero(y == 0)[:20]
    rows = np.zeros((400, 3))
    rows[on, 0] = rows[off, 1] = 1
    rows[:, 2] = rng.normal(size=400)
    with pytest.warns(fastglm.glm.ConvergenceWarning, match="separated"):
        model = fastglm.GLM("Bernoulli").fit(rows, y)
    errors = model.standard_errors(rows, y)
    assert np.isinf(errors[:2]).all()
    rest = np.setdiff1d(np.arange(400), [*on, *off])
    alone = fastglm.GLM("Bernoulli").fit(rows[rest, 2:], y[rest])
    assert errors[2] == pytest.approx(alone.standard_errors(rows[rest, 2:], y[rest])[0], rel=1e-5)


# --- the inverse in place ---


@pytest.mark.parametrize("whole", [4096, 0])
@pytest.mark.parametrize("size", [1, 20, 53])
def test_the_inverse_takes_the_place_of_the_information(size, whole, monkeypatch):
    monkeypatch.setattr(inverse, "_BLOCK", 20)
    monkeypatch.setattr(inverse, "_WHOLE", whole)
    z = np.random.default_rng(0).normal(size=(2 * size, size))
    matrix = z.T @ z
    expected = np.linalg.inv(matrix)
    root, other, marked = inference._factors(matrix, None, np.zeros(size))
    assert root is other
    assert np.shares_memory(root, matrix)
    assert not marked.any()
    np.testing.assert_allclose(root.T @ root, expected, rtol=1e-7, atol=1e-9)


def test_blocks_have_the_same_bits_on_any_number_of_threads(monkeypatch):
    numba = pytest.importorskip("numba")
    monkeypatch.setattr(inverse, "_BLOCK", 20)
    monkeypatch.setattr(inverse, "_WHOLE", 0)
    z, before, found = np.random.default_rng(0).normal(size=(200, 150)), numba.get_num_threads(), []
    try:
        for n_threads in (1, before):
            numba.set_num_threads(n_threads)
            found.append(inverse.inverse_root(z.T @ z, 1e10))
    finally:
        numba.set_num_threads(before)
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("apart", [0.0, 1e-7])  # of which Cholesky's factor sees the first
@pytest.mark.parametrize("whole", [4096, 0])
@pytest.mark.parametrize("size", [2, 53])
def test_a_direction_that_is_lost_leaves_the_information_to_its_spectrum(
    size, whole, apart, monkeypatch
):
    monkeypatch.setattr(inverse, "_BLOCK", 20)
    monkeypatch.setattr(inverse, "_WHOLE", whole)
    z = np.random.default_rng(0).normal(size=(2 * size, size))
    z[:, -1] = z[:, 0] + apart * z[:, -1]
    matrix = z.T @ z
    expected = np.linalg.pinv(matrix, 1e-10, hermitian=True)[1:-1, 1:-1]
    root, _, marked = inference._factors(matrix, None, np.zeros(size))
    assert marked.tolist() == [True, *[False] * (size - 2), True]
    np.testing.assert_allclose((root.T @ root)[1:-1, 1:-1], expected, rtol=1e-6, atol=1e-9)
