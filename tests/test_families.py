"""Every family against an independent Newton and against peers, and what lies at infinity."""

import itertools
import warnings
from pathlib import Path

import naive_glm
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

import fastglm
from fastglm.observation_models import NegativeBinomialObservations

DATA = Path(__file__).parents[2] / "shared" / "data"
# The reference names a link with its family where several families have it.
FAMILIES = [
    ("Bernoulli", "logistic"),
    ("Bernoulli", "cloglog"),
    ("Gaussian", "identity"),
    ("Gamma", "Gamma one_over_x"),
    ("Gamma", "Gamma exp"),
    ("Gamma", "Gamma softplus"),
    ("NegativeBinomial", "NegativeBinomial exp"),
    ("NegativeBinomial", "NegativeBinomial softplus"),
]
OLD = FAMILIES[:3]
PATHS = ["newton-cholesky", "newton-cg", "auto"]
STRENGTH = 0.02
WINDOW, N_FUNCS = 8, 3

pytestmark = pytest.mark.slow


def of(family, link, *args, **kwargs):
    """A model of a family, with a link as the reference names it."""
    if family == "NegativeBinomial":
        family = NegativeBinomialObservations(naive_glm.SCALE)
    return fastglm.PopulationGLM(family, link.split()[-1], *args, **kwargs)


every_family = pytest.mark.parametrize(("family", "link"), FAMILIES, ids=[f[1] for f in FAMILIES])
# "auto" is one of the others, but for Gaussian observations, which it solves from X'X.
FITS = [(*f, path) for f in FAMILIES for path in PATHS[: 3 if f[0] == "Gaussian" else 2]]
every_fit = pytest.mark.parametrize(
    ("family", "link", "path"), FITS, ids=[f"{f[1]}-{f[2]}" for f in FITS]
)


def population(link, n_bins=600, n=3, seed=0):
    """Features of spiking senders and a stimulus, and y drawn from a model of the family."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(0.35, (n_bins, 3))
    basis = fastglm.basis.RaisedCosineLogConv(N_FUNCS, WINDOW)
    X = np.hstack([basis.compute_features(counts), rng.normal(size=(n_bins, 2))])
    coef = rng.normal(size=(X.shape[1], n)) * 0.5 * (rng.random((X.shape[1], n)) < 0.7)
    eta = np.nan_to_num(np.asarray(X)) @ coef - 0.9
    if link.endswith("one_over_x"):
        eta = 0.2 + 0.3 * np.abs(eta)
    mu = naive_glm.family_mean(eta, link)
    if link == "identity":
        return X, 30.0 + mu + rng.normal(size=mu.shape)  # far from zero, as a fluorescence
    if link.startswith("Gamma"):
        unit = 1.0 if link.endswith("softplus") else 20.0
        return X, unit * rng.gamma(3.0, mu / 3.0)
    if link.startswith("NegativeBinomial"):
        return X, rng.poisson(rng.gamma(1 / naive_glm.SCALE, mu * naive_glm.SCALE)).astype(float)
    return X, (rng.random(mu.shape) < mu).astype(float)


def filters(X):
    """Groups of the features of a sender; ordinary columns are one."""
    first = [0, 3, 6, 9, 11]
    groups = [np.arange(a, b) for a, b in itertools.pairwise(first)]
    assert first[-1] == X.shape[1]
    return groups


# name: parameters of the model, and a function from X to what the reference takes
PENALTIES = {
    "none": ((None, None), lambda X: {}),
    "ridge": (("Ridge", STRENGTH), lambda X: {"ridge": STRENGTH}),
    "lasso": (
        ("Lasso", STRENGTH),
        lambda X: {"groups": [(np.array([k]), STRENGTH) for k in range(X.shape[1])]},
    ),
    "group lasso": (
        ("GroupLasso", STRENGTH),
        lambda X: {"groups": [(g, STRENGTH * np.sqrt(g.size)) for g in filters(X)]},
    ),
}


def restrict(terms, free):
    """What the reference takes where only some features are in the fit."""
    place = np.cumsum(free) - 1
    groups = [(place[g[free[g]]], size) for g, size in terms.get("groups", ()) if free[g].any()]
    return {**terms, "groups": groups} if groups else terms


def compare(model, X, y, link, terms, weight=None, offset=None, coef_tol=1e-5):
    """Every receiver beside the reference: objective to 1e-8, coefficients to 1e-5."""
    rows, mask = np.asarray(X), model.feature_mask
    for j in range(y.shape[1]):
        free = np.ones(X.shape[1], bool) if mask is None else np.asarray(mask)[:, j] > 0
        w = np.ones(len(y)) if weight is None else weight
        o = np.zeros(len(y)) if offset is None else offset.reshape(len(y), -1)
        if offset is not None:
            o = o[:, j if o.shape[1] > 1 else 0]
        kept = np.isfinite(rows).all(axis=1) & np.isfinite(y[:, j]) & (w > 0)
        coef, intercept, best = naive_glm.family_fit(
            rows[kept][:, free], y[kept, j], link, w[kept], o[kept], **restrict(terms, free)
        )
        assert model.status_[j] == "converged"
        assert model.objective_[j] == pytest.approx(best, abs=1e-8)
        np.testing.assert_allclose(model.coef_[free, j], coef, rtol=0, atol=coef_tol)
        assert model.intercept_[j] == pytest.approx(intercept, abs=coef_tol)
        assert not model.coef_[~free, j].any()
        if "groups" in terms:
            np.testing.assert_array_equal(model.coef_[free, j] == 0, coef == 0)


# --- the reference ------------------------------------------------------------------------------


@pytest.mark.parametrize("link", ["exp", "softplus", *(link for _, link in FAMILIES)])
def test_the_reference_has_the_derivatives_of_its_loss(link):
    eta = np.linspace(0.3 if link.endswith("one_over_x") else -3, 1.5, 10)
    step = 1e-6
    for y in (0.0, 1.0, 2.7):
        residual, curvature = naive_glm.family_derivatives(eta, y, link)
        up, down = (naive_glm.family_loss(eta + d, y, link) for d in (step, -step))
        np.testing.assert_allclose((up - down) / (2 * step), residual, atol=1e-8)
        up, down = (naive_glm.family_derivatives(eta + d, y, link)[0] for d in (step, -step))
        np.testing.assert_allclose((up - down) / (2 * step), curvature, atol=1e-8)


def test_the_reference_is_a_minimum_of_plain_loops():
    X, y = population("cloglog", 60, 1)
    rows, y = np.asarray(X)[WINDOW:], y[WINDOW:, 0]
    weight, offset = np.linspace(0.5, 2, len(y)), np.linspace(-1, 1, len(y))

    def objective(theta):
        total = 0.0
        for x, yt, w, o in zip(rows, y, weight, offset, strict=True):
            mu = 1 - np.exp(
                -np.exp(sum(a * b for a, b in zip(x, theta, strict=False)) + theta[-1] + o)
            )
            total += w * (-yt * np.log(mu) - (1 - yt) * np.log(1 - mu))
        return total / weight.sum() + 0.05 * sum(c * c for c in theta[:-1])

    coef, intercept, best = naive_glm.family_fit(rows, y, "cloglog", weight, offset, ridge=0.1)
    theta = np.append(coef, intercept)
    assert objective(theta) == pytest.approx(best, abs=1e-12)
    for k in range(theta.size):
        for side in (-1e-4, 1e-4):
            assert objective(theta + side * np.eye(theta.size)[k]) > best


# --- objective and coefficients, receiver by receiver -------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("penalty", PENALTIES)
@every_fit
def test_every_family_reaches_the_optimum(family, link, penalty, masked, path):
    X, y = population(link)
    mask = None
    if masked:
        mask = np.random.default_rng(4).random((X.shape[1], 3)) < 0.6
        if penalty == "group lasso":  # whole groups
            for group in filters(X):
                mask[group] = mask[group[0]]
    (regularizer, strength), terms = PENALTIES[penalty]
    model = of(family, link, regularizer, strength, path, {"tol": 1e-18}, feature_mask=mask).fit(
        X, y
    )
    compare(model, X, y, link, terms(X))


@pytest.mark.parametrize("given", ["weight", "offset", "missing", "all"])
@every_fit
def test_weights_offsets_and_missing_counts(family, link, given, path):
    X, y = population(link, seed=1)
    rng, kwargs = np.random.default_rng(2), {}
    if given in ("weight", "all"):
        kwargs["sample_weight"] = rng.gamma(2.0, size=len(y)) * (rng.random(len(y)) < 0.9)
    if given == "offset":
        kwargs["offset"] = rng.normal(size=len(y)) * 0.5 + 0.3
    if given == "all":
        kwargs["offset"] = rng.normal(size=y.shape) * 0.5 - 0.2
    if "offset" in kwargs and link.endswith("one_over_x"):
        kwargs["offset"] = kwargs["offset"] / 100  # y is about 100
    if given in ("missing", "all"):
        y[rng.random(y.shape) < 0.1] = np.nan
        y[200:300] = np.nan
    model = of(family, link, "Ridge", STRENGTH, path, {"tol": 1e-18})
    model.fit(X, y, **kwargs)
    weight, offset = kwargs.get("sample_weight"), kwargs.get("offset")
    compare(model, X, y, link, {"ridge": STRENGTH}, weight, offset)


@pytest.mark.parametrize("penalty", ["lasso", "group lasso"])
@every_family
def test_sparse_penalties_with_weights_and_offsets(family, link, penalty):
    X, y = population(link, n_bins=400, seed=3)
    rng = np.random.default_rng(5)
    weight, offset = rng.gamma(2.0, size=len(y)), rng.normal(size=y.shape) * 0.4
    if link.endswith("one_over_x"):
        offset /= 100
    y[rng.random(y.shape) < 0.05] = np.nan
    (regularizer, strength), terms = PENALTIES[penalty]
    path = "newton-cg" if penalty == "lasso" else "newton-cholesky"
    model = of(family, link, regularizer, strength, path, {"tol": 1e-18})
    model.fit(X, y, sample_weight=weight, offset=offset)
    compare(model, X, y, link, terms(X), weight, offset)


def test_a_mean_far_from_zero_is_no_harm_to_float32():
    """Sums of ``eta^2`` in float32 lost the residuals, and quasi-Newton steps never ended."""
    X, y = population("identity")
    for shift in (-30.0, 1000.0):
        model = fastglm.PopulationGLM(
            "Gaussian", None, "Ridge", STRENGTH, "newton-cg", {"tol": 1e-14}
        ).fit(X, y + shift)
        compare(model, X, y + shift, "identity", {"ridge": STRENGTH})
        assert model.n_passes_.max() < 20


# --- peers --------------------------------------------------------------------------------------
# A peer takes rows, y, ridge, lasso, weight and offset in our units, and gives (coef, intercept).
# Their objectives are ours times a factor: the Gaussian loss of scikit-learn's Lasso and of glum
# has a half, that of scikit-learn's Ridge is a sum, and C of LogisticRegression is 1 / (n * ridge).


def optional(name):
    """Import a peer, whose own warnings are its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, exc_type=ImportError)


def by_statsmodels(link, rows, y, weight, offset, start, **_):
    sm = optional("statsmodels.api")
    families = sm.families
    family = {
        "logistic": lambda: families.Binomial(),
        "cloglog": lambda: families.Binomial(families.links.CLogLog()),
        "identity": lambda: families.Gaussian(),
        "Gamma one_over_x": lambda: families.Gamma(),
        "Gamma exp": lambda: families.Gamma(families.links.Log()),
        "NegativeBinomial exp": lambda: families.NegativeBinomial(alpha=naive_glm.SCALE),
    }[link]()
    rows = np.column_stack([rows, np.ones(len(y))])
    # Frequencies of observations; their sum does not change the optimum.
    model = sm.GLM(y, rows, family=family, freq_weights=weight, offset=offset)
    theta = model.fit(start, tol=1e-14, tol_criterion="params", maxiter=200).params
    return theta[:-1], theta[-1]


def by_scikit_learn(link, rows, y, weight, ridge, lasso, **_):
    from sklearn.linear_model import GammaRegressor, Lasso, LogisticRegression, Ridge

    n = weight.sum()
    if link == "identity" and lasso:
        peer = Lasso(alpha=lasso / 2, tol=1e-12, max_iter=100_000)
    elif link == "identity":
        peer = Ridge(alpha=n * ridge / 2, solver="cholesky")
    elif link == "Gamma exp":
        peer = GammaRegressor(alpha=ridge, solver="newton-cholesky", tol=1e-10)
    else:
        peer = LogisticRegression(C=1 / (n * ridge), solver="newton-cholesky", tol=1e-10)
    peer.fit(rows, y, sample_weight=weight)
    return peer.coef_.ravel(), float(np.ravel(peer.intercept_)[0])


def by_glum(link, rows, y, weight, offset, ridge, lasso):
    glum = optional("glum")
    family, name, factor = {
        "logistic": ("binomial", "logit", 1.0),
        "cloglog": ("binomial", "cloglog", 1.0),
        "identity": ("normal", "identity", 0.5),
        "Gamma exp": ("gamma", "log", 1.0),
        "NegativeBinomial exp": (f"negative.binomial({naive_glm.SCALE})", "log", 1.0),
    }[link]
    strength = ridge + lasso
    peer = glum.GeneralizedLinearRegressor(
        family=family,
        link=name,
        alpha=factor * strength,
        l1_ratio=lasso / strength if strength else 0.0,
        gradient_tol=1e-11,
        max_iter=2000,
    )
    peer.fit(rows, y, sample_weight=weight, offset=offset)
    return peer.coef_, peer.intercept_


def by_nemos(link, rows, y, ridge, lasso, group=False, **_):
    optional("nemos")
    import jax
    import nemos

    jax.config.update("jax_enable_x64", True)
    kwargs = {"regularizer": "Ridge", "regularizer_strength": ridge, "solver_name": "LBFGS"}
    if lasso:
        kwargs = {"regularizer": "Lasso", "regularizer_strength": lasso}
        if group:
            mask = np.zeros((4, rows.shape[1]))
            for k, features in enumerate([range(3), range(3, 6), range(6, 9), range(9, 11)]):
                mask[k, list(features)] = 1
            kwargs["regularizer"] = nemos.regularizer.GroupLasso(mask=mask)
        kwargs["solver_name"] = "ProximalGradient"
    inverse = {
        "cloglog": lambda eta: 1 - jax.numpy.exp(-jax.numpy.exp(eta)),
        "Gamma softplus": jax.nn.softplus,
    }.get(link)
    family = {"identity": "Gaussian"}.get(link, "Bernoulli")
    if link.startswith("Gamma"):
        family = "Gamma"
    if link.startswith("NegativeBinomial"):
        family = nemos.observation_models.NegativeBinomialObservations(scale=naive_glm.SCALE)
    peer = nemos.glm.GLM(
        observation_model=family,
        inverse_link_function=inverse,
        solver_kwargs={"tol": 1e-13, "maxiter": 20_000},
        **kwargs,
    )
    peer.fit(rows, y)
    return np.asarray(peer.coef_), float(peer.intercept_[0])


PEERS = {
    "statsmodels": by_statsmodels,
    "scikit-learn": by_scikit_learn,
    "glum": by_glum,
    "nemos": by_nemos,
}
# peer, link, kind of penalty, and whether it takes weights and offsets
CASES = [
    *(("statsmodels", link, "none", "both") for _, link in FAMILIES if "softplus" not in link),
    *(("glum", link, "ridge", "both") for _, link in OLD),
    ("glum", "cloglog", "lasso", "both"),
    ("glum", "Gamma exp", "ridge", "both"),
    ("glum", "NegativeBinomial exp", "ridge", "both"),
    ("glum", "NegativeBinomial exp", "lasso", "both"),
    ("scikit-learn", "logistic", "ridge", "weight"),
    ("scikit-learn", "identity", "ridge", "weight"),
    ("scikit-learn", "identity", "lasso", "weight"),
    ("scikit-learn", "Gamma exp", "ridge", "weight"),
    ("nemos", "cloglog", "ridge", ""),
    ("nemos", "Gamma softplus", "ridge", ""),
    ("nemos", "logistic", "group lasso", ""),
]


@pytest.mark.parametrize(("peer", "link", "kind", "given"), CASES)
def test_peers(peer, link, kind, given):
    X, y = population(link, seed=6)
    rng, rows = np.random.default_rng(7), np.asarray(X)[WINDOW:]
    weight, offset = np.ones(len(y)), np.zeros(len(y))
    if given:
        weight = rng.gamma(2.0, size=len(y))
    if given == "both":
        offset = rng.normal(size=len(y)) * (0.004 if "one_over_x" in link else 0.4)
    ridge, lasso = {"none": (0.0, 0.0), "ridge": (STRENGTH, 0.0)}.get(kind, (0.0, STRENGTH))
    (regularizer, strength), terms = PENALTIES[kind]
    family = {name: f for f, name in FAMILIES}[link]
    model = of(family, link, regularizer, strength, solver_kwargs={"tol": 1e-18}).fit(
        X, y, sample_weight=weight if given else None, offset=offset if given == "both" else None
    )
    extra = {"group": True} if kind == "group lasso" else {}
    # A receiver of NeMoS compiles for seconds.
    for j in range(1 if peer == "nemos" else y.shape[1]):
        known = y[WINDOW:, j], weight[WINDOW:], offset[WINDOW:]
        extra |= {"weight": known[1], "offset": known[2], "ridge": ridge, "lasso": lasso}
        if peer == "statsmodels":  # from elsewhere its steps leave the range of one_over_x
            near = 0.97 * np.append(model.coef_[:, j], model.intercept_[j])
            extra["start"] = near if link.endswith("one_over_x") else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            coef, intercept = PEERS[peer](link, rows, known[0], **extra)
        Z = np.column_stack([rows, np.ones(len(rows))])
        theirs, ours = (
            naive_glm.family_objective(Z, known[0], np.append(*found), link, *known[1:], **terms(X))
            for found in ((coef, intercept), (model.coef_[:, j], model.intercept_[j]))
        )
        assert model.objective_[j] == pytest.approx(ours, abs=1e-11)
        assert ours == pytest.approx(theirs, abs=1e-8)
        assert ours <= theirs + 1e-12
        np.testing.assert_allclose(model.coef_[:, j], coef, rtol=0, atol=1e-5)
        assert model.intercept_[j] == pytest.approx(intercept, abs=1e-5)


# --- scales that are fitted with the coefficients -------------------------------------------------

ESTIMATE = NegativeBinomialObservations("estimate")


def overdispersed(link="exp", n_bins=500, seed=3):
    """Counts of three receivers with scales of 0.1, 0.8 and 3."""
    X, _ = population("NegativeBinomial exp", n_bins, seed=seed)
    rng = np.random.default_rng(seed)
    coef = 0.4 * rng.normal(size=(X.shape[1], 3)) * (rng.random((X.shape[1], 3)) < 0.7)
    mu = naive_glm.family_mean(np.nan_to_num(np.asarray(X)) @ coef + 0.7, link)
    return X, ESTIMATE.sample(rng, mu, np.array([0.1, 0.8, 3.0])).astype(float)


@pytest.mark.parametrize("given", ["nothing", "ridge", "all"])
@pytest.mark.parametrize("path", PATHS[:2])
@pytest.mark.parametrize("link", ["exp", "softplus"])
def test_fitted_scales_are_those_of_the_joint_likelihood(link, path, given):
    X, y = overdispersed(link)
    rng, ridge, kwargs = np.random.default_rng(4), 0.0 if given == "nothing" else STRENGTH, {}
    mask = np.ones((X.shape[1], 3), bool)
    if given == "all":
        kwargs = {
            "sample_weight": rng.gamma(2.0, size=len(y)),
            "offset": 0.3 * rng.normal(size=y.shape),
        }
        mask[rng.random(mask.shape) < 0.3] = False
        y[100:120, 1] = np.nan
    penalty = ("Ridge", ridge) if ridge else (None, None)
    model = fastglm.PopulationGLM(ESTIMATE, link, *penalty, path, feature_mask=mask)
    model.fit(X, y, **kwargs)
    assert list(model.status_) == ["converged"] * 3
    assert (model.newton_decrement_ <= 1e-16).all()
    rows = np.asarray(X)
    weight, offset = kwargs.get("sample_weight", np.ones(len(y))), kwargs.get("offset", 0 * y)
    for j in range(3):
        kept, free = np.isfinite(rows).all(axis=1) & np.isfinite(y[:, j]), mask[:, j]
        own = rows[kept][:, free], y[kept, j], weight[kept], offset[kept, j]
        coef, intercept, scale = naive_glm.negative_binomial_fit(*own, ridge, link)
        assert model.scale_[j] == pytest.approx(scale, rel=1e-6)
        np.testing.assert_allclose(model.coef_[free, j], coef, rtol=0, atol=1e-6)
        assert model.intercept_[j] == pytest.approx(intercept, abs=1e-6)


@pytest.mark.parametrize("path", PATHS[:2])
def test_fitted_scales_are_those_of_statsmodels(path):
    discrete = optional("statsmodels.discrete.discrete_model")
    X, y = overdispersed(seed=5)
    rows = np.asarray(X)[WINDOW:]
    model = fastglm.PopulationGLM(ESTIMATE, solver_name=path).fit(X, y)
    for j in range(3):
        peer = discrete.NegativeBinomial(y[WINDOW:, j], np.column_stack([rows, np.ones(len(rows))]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            start = 1.02 * np.append(model.coef_[:, j], [model.intercept_[j], model.scale_[j]])
            theirs = peer.fit(start, method="newton", disp=0, tol=1e-13, maxiter=200)
        np.testing.assert_allclose(model.coef_[:, j], theirs.params[:-2], rtol=0, atol=1e-6)
        assert model.scale_[j] == pytest.approx(theirs.params[-1], rel=1e-6)
        likelihood = fastglm.GLM(ESTIMATE, solver_name=path).fit(X, y[:, j]).score(X, y[:, j])
        assert len(rows) * likelihood == pytest.approx(theirs.llf, abs=1e-7)


@pytest.mark.parametrize("penalty", ["Lasso", "GroupLasso"])
@pytest.mark.parametrize("path", PATHS[:2])
def test_fitted_scales_beside_sparse_penalties(path, penalty):
    """At the fitted scale the fit is that with the scale given, and the likelihood is largest."""
    X, y = overdispersed(seed=6)
    model = fastglm.PopulationGLM(ESTIMATE, None, penalty, STRENGTH, path).fit(X, y)
    assert list(model.status_) == ["converged"] * 3
    assert (model.coef_ == 0).any()
    for j, scale in enumerate(model.scale_):
        given = NegativeBinomialObservations(float(scale))
        fixed = fastglm.GLM(given, None, penalty, STRENGTH, path).fit(X, y[:, j])
        np.testing.assert_allclose(model.coef_[:, j], fixed.coef_, rtol=0, atol=1e-7)
        mu, known = fixed.predict(X)[WINDOW:], y[WINDOW:, j]
        slope, curvature = (part.mean() for part in ESTIMATE.scale_derivatives(known, mu, scale))
        assert abs(scale * slope) < 1e-8
        assert curvature < 0


@pytest.mark.parametrize("path", PATHS[:2])
def test_counts_that_vary_less_than_poisson_have_the_poisson_fit(path):
    X, y = overdispersed(seed=7)
    rng, rows = np.random.default_rng(0), np.nan_to_num(np.asarray(X))
    y[:, 0] = rng.binomial(8, 1 / (1 + np.exp(-0.3 * rows[:, -1])))
    model = fastglm.PopulationGLM(ESTIMATE, solver_name=path)
    with pytest.warns(ConvergenceWarning, match=r"underdispersed \(receiver 0\): .* scale 0"):
        model.fit(X, y)
    assert list(model.status_) == ["underdispersed", "converged", "converged"]
    assert model.converged_.all()
    assert model.scale_[0] == 0
    assert (model.scale_[1:] > 0).all()
    poisson = fastglm.GLM(solver_name=path).fit(X, y[:, 0])
    np.testing.assert_allclose(model.coef_[:, 0], poisson.coef_, rtol=0, atol=1e-7)
    assert model.objective_[0] == pytest.approx(poisson.objective_[0], abs=1e-12)
    errors = model.standard_errors(X, y)[:, 0]
    np.testing.assert_allclose(errors, poisson.standard_errors(X, y[:, 0]), rtol=1e-6)
    scores = model.score(X, y, aggregate_sample_scores=lambda x: x.mean(axis=0))
    assert scores[0] == pytest.approx(poisson.score(X, y[:, 0]), abs=1e-10)


@pytest.mark.parametrize("path", PATHS[:2])
def test_a_fitted_scale_does_not_depend_on_the_others(path):
    X, y = overdispersed(seed=8)
    y = np.column_stack([y, np.zeros(len(y)), y[:, 0]])
    model = fit_quietly(ESTIMATE, None, "Ridge", 1e-3, path, data=(X, y))
    assert list(model.status_) == ["converged"] * 3 + ["silent", "converged"]
    assert model.scale_[3] == 0
    assert np.isfinite(model.score(X, y))
    for j in (0, 2):
        alone = fastglm.GLM(ESTIMATE, None, "Ridge", 1e-3, path).fit(X, y[:, j])
        np.testing.assert_allclose(model.coef_[:, j], alone.coef_, rtol=0, atol=1e-9)
        assert model.scale_[j] == pytest.approx(alone.scale_[0], rel=1e-8)


@pytest.mark.parametrize("path", PATHS[:2])
def test_no_receiver_is_done_while_its_scale_is_open(path, tmp_path, monkeypatch):
    """A fit that is interrupted between two scales goes on from its checkpoint to the same end."""
    from fastglm._batches import monitor

    X, y = overdispersed(seed=10)
    whole = fastglm.PopulationGLM(ESTIMATE, None, "Ridge", 1e-3, path)
    n_done = []
    whole.fit(X, y, progress=n_done.append)
    assert sum(n_done) == 3
    monkeypatch.setattr(monitor, "_SAVE_EVERY", 0.0)
    monkeypatch.setattr(monitor, "_SAVE_PART", 0.0)
    for stop in (3, 9):
        file, passes = tmp_path / f"{stop}.checkpoint", iter(range(1000))
        tell = monitor.Monitor._tell

        def interrupted(*args, tell=tell, passes=passes, stop=stop):
            tell(*args)
            if next(passes) == stop:
                raise KeyboardInterrupt

        model = fastglm.PopulationGLM(ESTIMATE, None, "Ridge", 1e-3, path)
        with monkeypatch.context() as patch:
            patch.setattr(monitor.Monitor, "_tell", interrupted)
            with pytest.raises(KeyboardInterrupt):
                model.fit(X, y, checkpoint=file)
        assert not np.isin(model.status_, ("converged",)).any() or stop > 3
        model.fit(X, y, checkpoint=file)
        assert list(model.status_) == ["converged"] * 3
        np.testing.assert_allclose(model.scale_, whole.scale_, rtol=1e-7)
        np.testing.assert_allclose(model.coef_, whole.coef_, rtol=0, atol=1e-7)


def test_fits_with_open_scales_are_saved_searched_and_tested(tmp_path):
    from fastglm.model_selection import cross_validate

    X, y = overdispersed(n_bins=900, seed=9)
    model = fastglm.PopulationGLM(ESTIMATE, None, "Ridge", 1e-2).fit(X, y)
    model.save_params(tmp_path / "model.npz")
    again = fastglm.load_model(tmp_path / "model.npz")
    assert again.observation_model == ESTIMATE
    np.testing.assert_array_equal(again.scale_, model.scale_)
    assert again.score(X, y) == model.score(X, y)
    checkpoint = tmp_path / "fit.checkpoint"
    fastglm.PopulationGLM(ESTIMATE, None, "Ridge", 1e-2).fit(X, y, checkpoint=checkpoint)
    resumed = fastglm.PopulationGLM(ESTIMATE, None, "Ridge", 1e-2)
    resumed.fit(X, y, checkpoint=checkpoint)
    np.testing.assert_array_equal(resumed.scale_, model.scale_)
    found = cross_validate(fastglm.PopulationGLM(ESTIMATE, None, "Ridge"), X, y, [1e-3, 1e-2], 3)
    assert np.isfinite(found.scores).all()
    theirs = fastglm.inference.likelihood_ratio_test(model, X, y)
    assert ((theirs.statistic[np.isfinite(theirs.statistic)]) > -1e-6).all()
    assert "scale_" in model.__dict__


# --- the range of one_over_x ----------------------------------------------------------------------


def test_rows_outside_of_the_range_of_one_over_x():
    """They have no mean: NaN with one warning, and a score of minus infinity with their number."""
    rng = np.random.default_rng(0)
    X = rng.uniform(0, 1, (400, 1))
    y = rng.gamma(4.0, 1 / (0.1 + X) / 4, (400, 1)) * np.array([[1.0, 2.0]])
    model = fastglm.PopulationGLM("Gamma").fit(X, y)
    edge = -model.intercept_ / model.coef_[0]
    far = np.linspace(edge.min() - 0.3, 1, 50)[:, None]
    with pytest.warns(UserWarning, match=r"eta is not above 0 in rows of receiver 0 \(") as caught:
        mu = model.predict(far)
    assert len(caught) == 1
    np.testing.assert_array_equal(np.isnan(mu), far <= edge)
    n_outside = np.isnan(mu).sum(axis=0)
    assert f"1 ({n_outside[1]} rows)" in str(caught[0].message)
    known = rng.gamma(1.0, 1.0, (50, 2))
    with pytest.warns(
        UserWarning, match=rf"minus infinity; .* 0 \({n_outside[0]}\), 1 \({n_outside[1]}"
    ):
        assert model.score(far, known) == -np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inside = model.score(far, known, skip_impossible=True)
    likelihood = fastglm.observation_models.GammaObservations()
    expected = np.nanmean(likelihood.log_probability(known, mu, model.scale_))
    assert inside == pytest.approx(expected, rel=1e-12)
    residuals = model.residuals(far, known)
    np.testing.assert_array_equal(np.isnan(residuals), np.isnan(mu))
    with pytest.warns(UserWarning, match="these predictions are NaN"):
        drawn, _ = model.simulate(0, far)
    np.testing.assert_array_equal(np.isnan(drawn), np.isnan(mu))


@pytest.mark.parametrize("path", PATHS[:2])
def test_a_start_outside_of_the_range_is_left(path):
    X, y = population("Gamma one_over_x")
    start = np.full((11, 3), -5.0), np.full(3, -1.0)
    model = fastglm.PopulationGLM("Gamma", None, "Ridge", STRENGTH, path, {"tol": 1e-18})
    compare(model.fit(X, y, start), X, y, "Gamma one_over_x", {"ridge": STRENGTH})
    steep = 0.03 * np.random.default_rng(0).normal(size=len(y))  # three times 1 / y
    model = fastglm.PopulationGLM("Gamma", None, "Ridge", 1e-6, path).fit(X, y, offset=steep)
    assert (model.status_ == "converged").all()
    assert np.nanmin(model.predict(X, steep)) > 0


@pytest.mark.parametrize("unit", [1e-6, 1e6])
@pytest.mark.parametrize("link", ["Gamma one_over_x", "Gamma exp"])
def test_the_unit_of_gamma_observations_does_not_matter(link, unit):
    X, y = population(link)
    model, other = (of("Gamma", link, solver_kwargs={"tol": 1e-18}) for _ in range(2))
    model.fit(X, y), other.fit(X, y * unit)
    assert list(other.status_) == ["converged"] * 3
    np.testing.assert_allclose(other.scale_, model.scale_, rtol=1e-9)
    np.testing.assert_allclose(other.predict(X), unit * model.predict(X), rtol=1e-7)


def test_a_sparse_table_of_gamma_observations_has_zeros():
    import scipy.sparse

    X, y = population("Gamma exp", n_bins=100)
    table = scipy.sparse.csr_array(y)
    model = fastglm.PopulationGLM("Gamma", "exp").fit(X, table)
    np.testing.assert_array_equal(
        model.coef_, fastglm.PopulationGLM("Gamma", "exp").fit(X, y).coef_
    )
    y[40, 2] = 0
    with pytest.raises(ValueError, match="y holds 0 in bin 40 of receiver 2; Gamma"):
        fastglm.PopulationGLM("Gamma", "exp").fit(X, scipy.sparse.csr_array(y))


# --- losses that are not convex -------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [None, "Lasso"])
@pytest.mark.parametrize("path", PATHS[:2])
@pytest.mark.parametrize(("family", "link"), [FAMILIES[5], FAMILIES[7]])
def test_an_optimum_of_a_loss_that_is_not_convex_bends_up(family, link, path, penalty):
    """From starts where the Hessian bends down: a stationary point whose Hessian bends up."""
    X, y = population(link, n_bins=300, seed=2)
    rng, rows = np.random.default_rng(1), np.asarray(X)[WINDOW:]
    for size in (1.0, 5.0, 20.0):
        start = size * rng.normal(size=(11, 3)), 10 * rng.normal(size=3)
        model = of(family, link, penalty, penalty and 1e-3, path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(X, y, start)
        for j in np.flatnonzero(model.status_ == "converged"):
            free = model.coef_[:, j] != 0
            Z = np.column_stack([rows[:, free], np.ones(len(rows))])
            eta = Z @ np.append(model.coef_[free, j], model.intercept_[j])
            residual, curvature = naive_glm.family_derivatives(eta, y[WINDOW:, j], link)
            slope = Z.T @ residual / len(Z)
            slope[:-1] += (1e-3 if penalty else 0.0) * np.sign(model.coef_[free, j])
            assert np.abs(slope).max() < 1e-6
            assert np.linalg.eigvalsh((Z * curvature[:, None]).T @ Z)[0] > 0


def test_a_saddle_is_not_converged():
    """y = 0 at one value of a feature: eta runs to where the loss bends down, and is flat."""
    x = np.repeat([1.0, -1.0], 100)[:, None]
    loss = NegativeBinomialObservations(5.0).loss("softplus")
    assert loss.derivatives(np.array([20.0]), np.zeros(1))[2] < 0
    y = np.r_[np.zeros(50), np.full(50, 40.0), np.ones(100)]
    model = fastglm.GLM(
        NegativeBinomialObservations(5.0), "softplus", solver_name="newton-cholesky"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y, (np.array([30.0]), np.array([30.0])))
    eta = model.coef_[0] * x[:, 0] + model.intercept_[0]
    bend = loss.derivatives(eta, y)[2]
    hessian = np.column_stack([x, np.ones(200)]).T @ (
        bend[:, None] * np.column_stack([x, np.ones(200)])
    )
    assert (model.status_[0] == "converged") == (np.linalg.eigvalsh(hessian)[0] > 0)


# --- recordings and dense y ---------------------------------------------------------------------


@pytest.mark.skipif(not DATA.is_dir(), reason="the recordings are not here")
@pytest.mark.parametrize("link", ["logistic", "cloglog"])
def test_a_recording_cut_to_events_or_none(link):
    """Three cells of locust10_al at 1 ms, its first 40 s, masked and not, both ways."""
    spikes = fastglm.load_spikes(DATA / "locust10_al.npz")
    counts, epochs = spikes.events(0.001)
    some = counts.part(0, 40_000).select(np.arange(3))
    y = some.toarray().clip(max=1).astype(float)
    epochs = np.clip(epochs, 0, 40_000)
    basis = fastglm.basis.RaisedCosineLogConv(4, 60)
    X = basis.compute_features(some, epochs=epochs[epochs[:, 1] > epochs[:, 0]])
    mask = np.ones((12, 3), bool)
    mask[:4, 1] = mask[8:, 0] = False
    for path, free in (("newton-cg", None), ("newton-cholesky", mask), ("newton-cg", mask)):
        model = fastglm.PopulationGLM(
            "Bernoulli", link, "Ridge", 1e-4, path, {"tol": 1e-20}, feature_mask=free
        ).fit(X, y)
        compare(model, X, y, link, {"ridge": 1e-4})


@pytest.mark.parametrize("masked", [False, True])
def test_dense_receivers_of_spiking_senders(masked):
    """Calcium traces: slow, continuous, in no bin zero, some of them not known."""
    rng = np.random.default_rng(8)
    counts = rng.poisson(0.08, (2500, 5))
    basis = fastglm.basis.RaisedCosineLogConv(4, 30)
    X = basis.compute_features(counts, epochs=[[0, 1000], [1000, 2500]])
    coef = rng.normal(size=(20, 6)) * (rng.random((20, 6)) < 0.3)
    noise = np.cumsum(rng.normal(size=(2500, 6)), axis=0) * 0.02 + rng.normal(size=(2500, 6))
    y = 100.0 + np.nan_to_num(np.asarray(X)) @ coef + noise
    y[:400, 3] = np.nan
    mask = np.kron(rng.random((5, 6)) < 0.6, np.ones((4, 1))) > 0 if masked else None
    for regularizer, strength, path in (
        (None, None, "auto"),
        ("Ridge", 0.1, "auto"),
        ("Ridge", 0.1, "newton-cg"),
    ):
        model = fastglm.PopulationGLM(
            "Gaussian", None, regularizer, strength, path, {"tol": 1e-18}, feature_mask=mask
        ).fit(X, y)
        compare(model, X, y, "identity", {"ridge": strength or 0.0})
        assert path != "auto" or not model.n_passes_.any()


# --- what lies at infinity ----------------------------------------------------------------------

BINARY = ["logistic", "cloglog"]
DEFINED = {"silent", "saturated", "separated", "converged"}


def fit_quietly(*args, weight=None, data=None, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return fastglm.PopulationGLM(*args, **kwargs).fit(*data, sample_weight=weight)


@pytest.mark.parametrize("penalty", [None, "Ridge", "Lasso"])
@pytest.mark.parametrize("path", PATHS[:2])
@pytest.mark.parametrize("link", BINARY)
def test_receivers_that_never_or_always_fire(link, path, penalty):
    X, y = population(link, n=4)
    alone = fit_quietly("Bernoulli", link, penalty, path and None, path, data=(X, y[:, :2]))
    y[:, 2], y[:, 3] = 0, 1
    y[:100, 2:] = np.nan
    model = fit_quietly("Bernoulli", link, penalty, None, path, data=(X, y))
    assert list(model.status_) == ["converged", "converged", "silent", "saturated"]
    assert model.converged_.all()
    mu = model.predict(X)[WINDOW:]
    assert np.isfinite(mu).all()
    assert mu[:, 2].max() < 1e-20
    assert mu[:, 3].min() == 1
    assert not model.coef_[:, 2:].any()
    assert np.isfinite(model.score(X, y))
    np.testing.assert_allclose(model.coef_[:, :2], alone.coef_, atol=1e-7)  # nobody else's trouble


def test_a_receiver_is_saturated_where_it_counts():
    """Silent or saturated in the bins of weight above 0 and with a history alone."""
    X, y = population("logistic")
    weight = np.ones(len(y))
    weight[::2] = 0
    y[1::2, 0], y[::2, 0] = 1, 0
    y[1::2, 1], y[::2, 1] = 0, 1
    model = fit_quietly("Bernoulli", data=(X, y), weight=weight)
    assert list(model.status_) == ["saturated", "silent", "converged"]
    inside = fit_quietly("Bernoulli", data=(X, y))
    assert not set(inside.status_) & {"saturated", "silent"}


def side_problem(rng, sides):
    """A feature that decides y wherever it is active, and one that does not."""
    x, y = np.zeros((500, 3)), (rng.random((500, 1)) < 0.4).astype(float)
    x[:, 2] = rng.normal(size=500)
    for k, side in enumerate(sides):
        active = np.arange(500) % 7 == k
        x[active, k] = 0.5 + rng.random(active.sum())
        y[active] = side
    return x, y


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("sides", [(0, 0), (1, 1), (0, 1)])
@pytest.mark.parametrize("path", PATHS[:2])
@pytest.mark.parametrize("link", BINARY)
def test_a_feature_that_decides_on_either_side(link, path, sides, sign):
    """The coefficient is at infinity; the others are those of a fit without the decided bins."""
    x, y = side_problem(np.random.default_rng(9), sides)
    x[:, :2] *= sign  # a negative feature is not seen beforehand, but found on the way
    model = fit_quietly("Bernoulli", link, None, None, path, {"tol": 1e-18}, data=(x, y))
    assert list(model.status_) == ["separated"]
    assert np.isfinite(model.coef_).all()
    mu = model.predict(x)
    decided = x[:, :2].any(axis=1)
    assert np.isfinite(mu).all()
    np.testing.assert_allclose(mu[decided], y[decided], atol=1e-7)
    rest = ~decided
    coef, intercept, _ = naive_glm.family_fit(x[rest][:, 2:], y[rest, 0], link)
    assert model.coef_[2, 0] == pytest.approx(coef[0], abs=1e-5)
    assert model.intercept_[0] == pytest.approx(intercept, abs=1e-5)
    for k, side in enumerate(sides):
        assert sign * (2 * side - 1) * model.coef_[k, 0] > 3
    ridge = fastglm.PopulationGLM("Bernoulli", link, "Ridge", 1e-3, path).fit(x, y)
    assert list(ridge.status_) == ["converged"]
    mask = np.array([[0], [0], [1]])
    masked = fastglm.PopulationGLM("Bernoulli", link, solver_name=path, feature_mask=mask).fit(x, y)
    assert list(masked.status_) == ["converged"]


@pytest.mark.parametrize("path", PATHS[:2])
@pytest.mark.parametrize("link", BINARY)
def test_a_direction_of_several_features_that_decides(link, path):
    rng = np.random.default_rng(10)
    x = rng.normal(size=(400, 3))
    direction = x @ [1.0, -2.0, 0.5]
    y = np.column_stack([direction > 0.3, direction > 0.3, direction > 0.3]).astype(float)
    y[:3, 1] = 1 - y[:3, 1]  # errors: a finite optimum
    y[:, 2] = rng.random(400) < 0.5
    model = fit_quietly("Bernoulli", link, None, None, path, data=(x, y))
    assert list(model.status_) == ["separated", "converged", "converged"]
    mu = model.predict(x)
    np.testing.assert_allclose(mu[:, 0], y[:, 0], atol=1e-6)
    assert model.objective_[0] < 1e-8
    for j in (1, 2):
        coef, intercept, best = naive_glm.family_fit(x, y[:, j], link)
        assert model.objective_[j] == pytest.approx(best, abs=1e-8)
        np.testing.assert_allclose(model.coef_[:, j], coef, atol=1e-5)
        assert model.intercept_[j] == pytest.approx(intercept, abs=1e-5)


@pytest.mark.parametrize("path", PATHS[:2])
@pytest.mark.parametrize("link", BINARY)
def test_a_history_that_decides_on_both_sides(link, path):
    """Cells after which a receiver always fires, and one after which it never does."""
    rng = np.random.default_rng(11)
    counts = np.zeros((3000, 3))
    counts[100::100, 0], counts[150::100, 1] = 1, 1
    counts[:, 2] = rng.random(3000) < 0.1
    y = (rng.random((3000, 1)) < 0.3).astype(float)
    for lag in (1, 2):
        y[100 + lag :: 100], y[150 + lag :: 100] = 1, 0
    X = fastglm.basis.HistoryConv(2).compute_features(counts)
    model = fit_quietly("Bernoulli", link, None, None, path, data=(X, y))
    assert list(model.status_) == ["separated"]
    mu = model.predict(X)
    assert np.isfinite(mu[2:]).all()
    for lag in (1, 2):
        assert mu[100 + lag :: 100].min() > 1 - 1e-10
        assert mu[150 + lag :: 100].max() < 1e-10
    assert np.isfinite(model.standard_errors(X, y)[4:]).all()


def has_no_finite_optimum(x, y):
    """Whether a direction leaves no bin on the wrong side (Albert & Anderson, 1984)."""
    from scipy.optimize import linprog

    sides = (2 * y - 1)[:, None] * np.column_stack([x, np.ones(len(y))])
    bounds = [(-1, 1)] * sides.shape[1]
    best = linprog(-sides.sum(axis=0), A_ub=-sides, b_ub=np.zeros(len(y)), bounds=bounds)
    return -best.fun > 1e-7


@pytest.mark.parametrize("path", PATHS[:2])
@pytest.mark.parametrize("link", BINARY)
def test_statuses_agree_with_a_linear_program(link, path):
    """Small problems at random; about half have no finite optimum."""
    found = []
    for seed in [*range(20), 41, 69, 110, 172, 206]:
        rng = np.random.default_rng(seed)
        shape = int(rng.choice([15, 40, 200])), int(rng.integers(1, 4))
        kind, n = rng.choice(["whole", "normal", "binary", "negative"]), shape[0]
        if kind == "normal":
            x = rng.normal(size=shape)
        elif kind == "whole":
            x = rng.integers(-2, 3, shape).astype(float)
        else:
            x = rng.integers(0, 2, shape) * (1.0 if kind == "binary" else -1.0)
        eta = x @ rng.normal(size=shape[1]) * rng.choice([0.5, 2, 20]) + rng.normal() * 2
        mode = rng.choice(["drawn", "decided", "half"])
        y = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
        if mode == "decided":
            y = (eta > 0).astype(float)
        if mode == "half":
            y = np.where(x[:, 0] != 0, rng.integers(0, 2), rng.random(n) < 0.5).astype(float)
        if y.min() == y.max():
            continue
        model = fit_quietly("Bernoulli", link, None, None, path, data=(x, y[:, None]))
        expected = "separated" if has_no_finite_optimum(x, y) else "converged"
        assert list(model.status_) == [expected], seed
        assert np.isfinite(model.predict(x)).all()
        found.append(expected)
    assert 5 < found.count("converged") < len(found) - 5


def test_curvatures_in_float32_are_known_far_below_zero():
    """Several features at their limits add up: NaN there stalled a receiver at its start."""
    for model in ("Poisson", "Bernoulli", "Gaussian"):
        model = fastglm.observation_models.as_observation_model(model)
        for link in model.losses:
            eta = np.array([-700, -200, -104, -90, 0, 80], np.float32)
            curvature = model.loss(link).expected_curvature(eta)
            assert np.isfinite(curvature).all()
            assert (np.asarray(curvature[:4]) <= (2.0 if model.name == "Gaussian" else 1e-30)).all()


# --- a y that a family cannot have --------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "value", "message"),
    [
        ("Bernoulli", 2.0, r"2 in bin 50 of receiver 1; Bernoulli .* Pass counts.clip\(max=1\)\?"),
        ("Bernoulli", -1.0, "-1 in bin 50 of receiver 1; Bernoulli observations are 0 or 1"),
        ("Bernoulli", 0.5, "0.5 in bin 50 of receiver 1; Bernoulli observations are 0 or 1"),
        ("Bernoulli", np.inf, "inf in bin 50 of receiver 1; Bernoulli observations are 0 or 1"),
        ("Gaussian", np.inf, "inf in bin 50 of receiver 1; Gaussian observations are finite"),
        ("Gaussian", -np.inf, "-inf in bin 50 of receiver 1; Gaussian observations are finite"),
        ("Poisson", -1.0, "Poisson observations the first is -1 in bin 50 of receiver 1"),
    ],
)
def test_impossible_counts_name_family_value_and_place(family, value, message):
    X, y = population("logistic", n_bins=150)
    y[50, 1] = value
    model = fastglm.PopulationGLM(family, None, "Ridge", 1e-2)
    with pytest.raises(ValueError, match=message):
        model.fit(X, y)
    model.fit(X, np.where(y == value, np.nan, y))  # not known is no trouble
    with pytest.raises(ValueError, match=message):
        model.score(X, y)
