"""The oracle of the fuzzer against known optima and peers, and a small part of the fuzzer."""

import fuzz
import fuzz_cases
import numpy as np
import oracle
import pytest


def receiver(X, y, link, ridge=0.0, groups=(), weight=None, offset=None):
    n, p = X.shape
    weight = np.ones(n) if weight is None else weight
    offset = np.zeros(n) if offset is None else offset
    ridge = np.full(p, ridge)
    return oracle.Receiver(X, np.asarray(y, float), weight, offset, link, ridge, list(groups))


def lasso(p, size):
    return [(np.array([f]), size) for f in range(p)]


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 4)) * [1.0, 3.0, 0.1, 1.0]
    eta = X @ [0.5, -0.1, 2.0, 0.0] - 0.3
    more = np.random.default_rng(1)
    y = {
        "exp": rng.poisson(np.exp(eta)),
        "softplus": rng.poisson(np.log1p(np.exp(eta))),
        "logistic": rng.random(400) < 1 / (1 + np.exp(-eta)),
        "cloglog": rng.random(400) < -np.expm1(-np.exp(eta)),
        "identity": eta + rng.normal(size=400),
        "Gamma one_over_x": more.gamma(2.0, 0.5 / (0.2 + np.abs(eta))),
        "Gamma exp": more.gamma(2.0, np.exp(eta) / 2),
        "Gamma softplus": more.gamma(2.0, np.log1p(np.exp(eta)) / 2),
        "NegativeBinomial exp": more.poisson(np.exp(eta) * more.gamma(2.0, 0.5, 400)),
        "NegativeBinomial softplus": more.poisson(
            np.log1p(np.exp(eta)) * more.gamma(2.0, 0.5, 400)
        ),
    }
    return X, {link: np.asarray(v, float) for link, v in y.items()}, rng


@pytest.mark.parametrize("link", oracle.FAMILIES)
def test_the_derivatives_are_those_of_the_loss(link):
    low = {"Gamma": -3.0}.get(oracle.FAMILIES[link], -40.0)
    eta = np.r_[np.linspace(0.1 if "over" in link else low, 4, 80), 5.5].astype(np.longdouble)
    h = np.longdouble(1e-6)
    for count in (0.0, 1.0):
        y = np.full(len(eta), count)
        slope, bend = oracle.derivatives(eta.astype(float), y, link, 0.6)
        low, high = (sum(oracle.parts(eta + s * h, y, link, 0.6)) for s in (-1, 1))
        np.testing.assert_allclose(slope, (high - low) / (2 * h), rtol=1e-7, atol=1e-10)
        before, after = (
            oracle.derivatives((eta + s * h).astype(float), y, link, 0.6)[0] for s in (-1, 1)
        )
        np.testing.assert_allclose(bend, (after - before) / 2e-6, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("link", oracle.FAMILIES)
def test_the_oracle_agrees_with_statsmodels(data, link):
    sm = pytest.importorskip("statsmodels.api")
    X, y, rng = data
    weight, offset = rng.integers(1, 4, size=400).astype(float), rng.normal(size=400) / 3
    links = sm.families.links
    family = {
        "exp": lambda: sm.families.Poisson(),
        "logistic": lambda: sm.families.Binomial(),
        "cloglog": lambda: sm.families.Binomial(links.CLogLog()),
        "identity": lambda: sm.families.Gaussian(),
        "Gamma exp": lambda: sm.families.Gamma(links.Log()),
        "NegativeBinomial exp": lambda: sm.families.NegativeBinomial(alpha=1.0),
    }
    if link not in family:
        pytest.skip("statsmodels has no such link")
    Z = sm.add_constant(X)
    theirs = sm.GLM(y[link], Z, family[link](), freq_weights=weight, offset=offset)
    theirs = theirs.fit(tol=1e-14, maxiter=200)
    r = receiver(X, y[link], link, weight=weight, offset=offset)
    ours = oracle.solve(r)
    np.testing.assert_allclose(ours.coef, theirs.params[1:], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(ours.intercept, theirs.params[0], rtol=1e-7)
    assert ours.gap < 1e-15
    scale = theirs.scale
    errors = oracle.standard_errors(r, ours.coef, ours.intercept, "expected", scale)
    np.testing.assert_allclose(errors, theirs.bse[1:], rtol=1e-6)


def test_the_oracle_agrees_with_scikit_learn(data):
    from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression, PoissonRegressor

    X, y, _ = data
    ours = oracle.solve(receiver(X, y["exp"], "exp", ridge=0.02))
    theirs = PoissonRegressor(alpha=0.02, tol=1e-12, solver="newton-cholesky").fit(X, y["exp"])
    np.testing.assert_allclose(ours.coef, theirs.coef_, rtol=1e-7, atol=1e-9)
    ours = oracle.solve(receiver(X, y["logistic"], "logistic", ridge=0.02))
    theirs = LogisticRegression(C=1 / (400 * 0.02), tol=1e-12, solver="newton-cholesky")
    theirs = theirs.fit(X, y["logistic"])
    np.testing.assert_allclose(ours.coef, theirs.coef_[0], rtol=1e-7, atol=1e-9)
    ours = oracle.solve(receiver(X, y["identity"], "identity", groups=lasso(4, 0.3)))
    theirs = Lasso(alpha=0.15, tol=1e-14, max_iter=100_000).fit(X, y["identity"])
    np.testing.assert_allclose(ours.coef, theirs.coef_, rtol=1e-6, atol=1e-7)
    groups = lasso(4, 0.1)
    ours = oracle.solve(receiver(X, y["identity"], "identity", ridge=0.1, groups=groups))
    theirs = ElasticNet(alpha=0.1, l1_ratio=0.5, tol=1e-14, max_iter=100_000)
    theirs = theirs.fit(X, y["identity"])
    np.testing.assert_allclose(ours.coef, theirs.coef_, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("link", ["exp", "logistic", "softplus", "Gamma one_over_x"])
def test_norms_of_groups_agree_with_proximal_gradients(data, link):
    import naive_glm

    X, y, _ = data
    groups = [(np.array([0, 1]), 0.05), (np.array([2, 3]), 0.02)]
    ours = oracle.solve(receiver(X, y[link], link, groups=groups))
    coef, _, value = naive_glm.family_fit(X, y[link], link, groups=groups)
    assert abs(ours.value - value) < 1e-12
    np.testing.assert_allclose(ours.coef, coef, atol=1e-5)


@pytest.mark.parametrize("shift", [1e3, 1e6, 1e9])
@pytest.mark.parametrize("groups", [[], lasso(4, 0.03)])
def test_the_zero_of_a_column_does_not_matter_to_the_oracle(data, shift, groups):
    X, y, _ = data
    X = np.round(X * 2**20) / 2**20  # the shifted columns are exact
    far = X + np.round(shift)
    near = oracle.solve(receiver(X, y["exp"], "exp", groups=groups))
    away = oracle.solve(receiver(far, y["exp"], "exp", groups=groups))
    assert abs(near.value - away.value) < 1e-13
    np.testing.assert_allclose(away.coef, near.coef, atol=1e-6)


@pytest.mark.parametrize("link", ["exp", "softplus", "logistic", "cloglog"])
def test_separated_bins_are_found_and_cost_nothing(data, link):
    X, y, rng = data
    rare = (rng.random(400) < 0.1).astype(float)
    y = np.where(rare == 1, 0.0, y[link])
    found = oracle.solve(receiver(np.column_stack([X, rare]), y, link))
    rest = rare == 0
    inside = oracle.solve(receiver(X[rest], y[rest], link))
    assert found.separated == rare.sum()
    assert abs(found.value - inside.value * rest.mean()) < 1e-12


def test_the_oracle_takes_the_least_norm_in_the_units_of_the_user(data):
    X, y, _ = data
    twins = np.column_stack([X, 1000 * X[:, 0], np.full(400, 2.0)])
    best = oracle.solve(receiver(twins, y["exp"], "exp"))
    null = np.zeros((6, 2))
    null[[0, 4], 0], null[5, 1] = [1000, -1], 1.0
    null /= np.linalg.norm(null, axis=0)
    assert best.null.shape == (6, 2)
    np.testing.assert_allclose(best.null @ best.null.T, null @ null.T, atol=1e-12)


def test_a_copy_that_differs_by_rounding_is_no_feature_of_the_oracle(data):
    """Also beside a ridge on other features, whose part of a direction is rounding."""
    X, y, _ = data
    far = np.column_stack([X, X[:, 0] - 1e8])
    ridge = np.array([0.0, 0.02, 0.02, 0.02, 0.0])
    noisy, plain = receiver(far, y["exp"], "exp"), receiver(X, y["exp"], "exp")
    noisy.ridge, plain.ridge = ridge, ridge[:4]
    assert abs(oracle.solve(noisy).value - oracle.solve(plain).value) < 1e-9


class Perturbed(fuzz_cases.Case):
    """A case whose fit is left a little away from its optimum, and does not say so."""

    def model(self):
        model = super().model()
        fit = model.fit

        def perturbed(*args, **kwargs):
            fit(*args, **kwargs).coef_ += 0.01
            return model

        model.fit = perturbed
        return model


def test_a_fit_away_from_its_optimum_is_found():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    y = rng.poisson(1.0, size=(300, 2)).astype(float)
    given = (0, X, X, y, "exp", "None")
    facts = {"ridge": np.zeros((3, 2)), "norms": [[], []]}
    found, covered, ended = fuzz.check(fuzz_cases.Case(*given, **facts))
    assert (found, covered) == ([], {"status converged"})
    assert ended == dict.fromkeys(("status converged", *fuzz.ENDS[1:]), 2)
    found, *_ = fuzz.check(Perturbed(*given, **facts))
    assert {"wrong certificate", "false objective_", "grad_norm_"} <= {kind for kind, _ in found}


@pytest.mark.slow
def test_some_fits_hold_against_the_oracle():
    """The first of the cases that `python tests/fuzz.py` draws, with few bins."""
    found, covered, ended = fuzz.run(range(20), largest=300)
    serious = {
        kind: cases for kind, cases in found.items() if kind not in ("not converged", "hang")
    }
    assert not serious, fuzz.show(serious, covered, ended)
    assert covered["cases"] == 20
