"""The same optimum as scikit-learn, statsmodels, glum and NeMoS, each where it is installed."""

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import PoissonRegressor

import fastglm

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import cases

SEED = Path(__file__).parents[2] / "shared" / "seeds" / "raw_history_feature.txt"


def optional(name):
    """Import a peer, whose own warnings are its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, exc_type=ImportError)


@pytest.fixture
def tiny():
    counts = np.random.default_rng(3).poisson(0.3, size=(800, 4))
    return fastglm.basis.RaisedCosineLogConv(3, 12).compute_features(counts), counts


@pytest.mark.parametrize("path", ["newton-cholesky", "newton-cg"])
@pytest.mark.parametrize("ridge", [0.0, 1e-4, 1e-2])
def test_scikit_learn(tiny, ridge, path):
    X, counts = tiny
    model = fastglm.PopulationGLM(
        regularizer="Ridge", regularizer_strength=ridge, solver_name=path
    ).fit(X, counts)
    rows = np.asarray(X)[12:]
    for j in range(4):
        peer = PoissonRegressor(alpha=ridge, solver="newton-cholesky", tol=1e-10)
        peer.fit(rows, counts[12:, j])
        np.testing.assert_allclose(model.coef_[:, j], peer.coef_, atol=1e-5)
        assert model.intercept_[j] == pytest.approx(peer.intercept_, abs=1e-5)


def test_statsmodels(tiny):
    optional("statsmodels")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import statsmodels.api as sm
    X, counts = tiny
    model = fastglm.PopulationGLM().fit(X, counts)
    rows = sm.add_constant(np.asarray(X)[12:])
    for j in range(4):
        peer = sm.GLM(counts[12:, j], rows, family=sm.families.Poisson()).fit(tol=1e-12)
        np.testing.assert_allclose(model.coef_[:, j], peer.params[1:], atol=1e-8)
        assert model.score(X, counts, aggregate_sample_scores=per_receiver)[j] == (
            pytest.approx(peer.llf / len(rows), abs=1e-10)
        )
        for kind in ("response", "pearson", "deviance"):
            residuals = model.residuals(X, counts, kind)
            assert np.isnan(residuals[:12]).all()
            np.testing.assert_allclose(
                residuals[12:, j], getattr(peer, f"resid_{kind}"), rtol=1e-6, atol=1e-8
            )


def per_receiver(values):
    return values.mean(axis=0)


@pytest.mark.parametrize("name", ["scikit-learn newton-cholesky", "glum", "NeMoS LBFGS float64"])
def test_every_implementation_of_the_benchmarks_reaches_the_optimum(name):
    module = {"glum": "glum", "NeMoS LBFGS float64": "nemos"}.get(name)
    if module:
        optional(module)
    case = cases.CASES["page"]()
    case.ridge = 0.01
    function, most = cases.IMPLEMENTATIONS[name]
    receivers = np.arange(case.counts.shape[1])[:most]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        coef, intercept = function(case, receivers)
    ours = cases.fit_fastglm(case, receivers)
    objective, _ = cases.judge(case, receivers, coef, intercept)
    best, gradient = cases.judge(case, receivers, *ours)
    assert gradient < 1e-12
    assert (best <= objective + 1e-13).all()
    np.testing.assert_allclose(objective, best, atol=1e-8)


# --- penalties ---


def penalised(rows, y, coef, intercept, ridge=0.0, matrix=None, lasso=0.0, groups=()):
    """The mean loss plus penalty, apart from fastglm."""
    coef = np.asarray(coef, float).ravel()
    eta = rows @ coef + float(np.ravel(intercept)[0])
    value = np.mean(np.exp(eta) - y * eta) + 0.5 * np.sum(ridge * coef**2)
    value += np.sum(lasso * np.abs(coef))
    if matrix is not None:
        value += 0.5 * coef @ matrix @ coef
    return value + sum(weight * np.linalg.norm(coef[group]) for group, weight in groups)


def difference(n):
    D = np.diff(np.eye(n), axis=0)
    return D.T @ D


STRENGTH = 0.01
FACTOR = np.linspace(0.2, 2.0, 12)
FILTERS = [(np.arange(3 * i, 3 * i + 3), STRENGTH * np.sqrt(3)) for i in range(4)]
# name: (regularizer, strength, terms of the objective)
PENALTIES = {
    "Ridge": ("Ridge", STRENGTH, {"ridge": STRENGTH}),
    "Lasso": ("Lasso", STRENGTH, {"lasso": STRENGTH}),
    "ElasticNet": ("ElasticNet", (STRENGTH, 0.7), {
        "ridge": 0.3 * STRENGTH, "lasso": 0.7 * STRENGTH}),
    "GroupLasso": ("GroupLasso", STRENGTH, {"groups": FILTERS}),
    "Lasso of each coefficient": (
        "Lasso", STRENGTH * np.tile(FACTOR[:, None], 4), {"lasso": STRENGTH * FACTOR}),
    "Quadratic": (fastglm.regularizer.Quadratic(difference(3)), STRENGTH, {
        "matrix": STRENGTH * np.kron(np.eye(4), difference(3))}),
}  # fmt: skip


def solve_glum(name, rows, y):
    glum = optional("glum")
    kwargs = {
        "Ridge": {"l1_ratio": 0.0},
        "Lasso": {"l1_ratio": 1.0},
        "ElasticNet": {"l1_ratio": 0.7},
        "Lasso of each coefficient": {"l1_ratio": 1.0, "P1": FACTOR},
        "Quadratic": {"l1_ratio": 0.0, "P2": np.kron(np.eye(4), difference(3))},
    }[name]
    model = glum.GeneralizedLinearRegressor(
        family="poisson", alpha=STRENGTH, gradient_tol=1e-10, max_iter=1000, **kwargs
    )
    model.fit(rows, y)
    return model.coef_, model.intercept_


def solve_nemos(name, rows, y):
    optional("nemos")
    import jax
    import nemos

    jax.config.update("jax_enable_x64", True)
    kind, strength = name, STRENGTH
    if name == "GroupLasso":
        kind = nemos.regularizer.GroupLasso(mask=np.repeat(np.eye(4), 3, axis=1))
    if name == "ElasticNet":
        strength = STRENGTH, 0.7
    model = nemos.glm.GLM(
        regularizer=kind,
        regularizer_strength=strength,
        solver_name="LBFGS" if name == "Ridge" else "ProximalGradient",
        solver_kwargs={"tol": 1e-12, "maxiter": 20_000},
    )
    model.fit(rows, y)
    return model.coef_, model.intercept_


def solve_skglm(name, rows, y):
    skglm = optional("skglm")
    model = skglm.GeneralizedLinearEstimator(
        skglm.datafits.Poisson(),
        skglm.penalties.L1(STRENGTH),
        skglm.solvers.ProxNewton(tol=1e-12, max_iter=200, fit_intercept=True),
    )
    model.fit(rows, y)
    return model.coef_, model.intercept_


PEERS = {
    **{f"glum, {name}": (solve_glum, name) for name in PENALTIES if name != "GroupLasso"},
    **{f"NeMoS, {name}": (solve_nemos, name) for name in list(PENALTIES)[:4]},
    "skglm, Lasso": (solve_skglm, "Lasso"),
}


@pytest.mark.parametrize("path", ["newton-cholesky", "newton-cg"])
@pytest.mark.parametrize("peer", PEERS)
def test_penalised_objectives(tiny, peer, path):
    solve, name = PEERS[peer]
    kind, strength, terms = PENALTIES[name]
    X, counts = tiny
    model = fastglm.PopulationGLM(
        regularizer=kind, regularizer_strength=strength, solver_name=path
    ).fit(X, counts)
    rows, y = np.asarray(X)[12:], counts[12:, 0].astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        coef, intercept = solve(name, rows, y)
    coef = np.asarray(coef).ravel()
    theirs = penalised(rows, y, coef, intercept, **terms)
    ours = penalised(rows, y, model.coef_[:, 0], model.intercept_[0], **terms)
    assert model.objective_[0] == pytest.approx(ours, abs=1e-13)
    assert ours == pytest.approx(theirs, abs=1e-8)
    assert ours <= theirs + 1e-13
    np.testing.assert_array_equal(model.coef_[:, 0] == 0, coef == 0)
    if name not in ("Ridge", "Quadratic"):
        assert 0 < (coef == 0).sum() < coef.size


def test_nemos_scores_and_softplus(page):
    optional("nemos")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import jax
        import nemos

        jax.config.update("jax_enable_x64", True)
    basis = fastglm.basis.HistoryConv(4)
    X = np.asarray(basis.compute_features(page))
    for link, function in (("exp", jax.numpy.exp), ("softplus", jax.nn.softplus)):
        ours = fastglm.PopulationGLM(
            inverse_link_function=link, regularizer="Ridge", regularizer_strength=0.01
        ).fit(X, page)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peer = nemos.glm.PopulationGLM(
                inverse_link_function=function,
                regularizer="Ridge",
                regularizer_strength=0.01,
                solver_name="LBFGS",
                solver_kwargs={"tol": 1e-12, "maxiter": 5000},
            ).fit(X, page)
            np.testing.assert_allclose(ours.coef_, peer.coef_, atol=1e-5)
            for score in ("log-likelihood", "pseudo-r2-McFadden", "pseudo-r2-Cohen"):
                assert ours.score(X, page, score_type=score) == pytest.approx(
                    float(peer.score(X, page, score_type=score)), abs=1e-8
                )
        # A function of JAX is known by its name.
        model = fastglm.PopulationGLM(inverse_link_function=function)
        assert fastglm._inputs.read_loss(model).link == link


def test_nemos_simulation_has_the_same_lags():
    """The rates that NeMoS reports for its own spikes are ours for the same spikes."""
    optional("nemos")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import jax
        import nemos

        jax.config.update("jax_enable_x64", True)
    rng = np.random.default_rng(0)
    kernel = fastglm.basis.RaisedCosineLogConv(3, 7).kernel_
    coupling, intercepts = rng.normal(size=(2, 2, 3)) * 0.3, np.array([-1.0, -0.5])
    start = rng.poisson(1.0, size=(7, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spikes, rates = nemos.simulation.simulate_recurrent(
            coupling,
            np.ones((2, 1)),
            intercepts,
            jax.random.key(1),
            np.zeros((50, 2, 1)),
            kernel,
            start,
            jax.numpy.exp,
        )
    history = np.vstack([start, np.asarray(spikes)])
    X = fastglm.features.FeatureMatrix([fastglm.features.HistoryColumns(history, kernel)])
    coef = coupling.transpose(1, 2, 0).reshape(6, 2)
    np.testing.assert_allclose(np.exp(X[7:] @ coef + intercepts), rates, rtol=1e-10)
    ours, own_rates = fastglm.simulation.simulate_recurrent(
        coupling,
        np.ones((2, 1)),
        intercepts,
        1,
        np.zeros((50, 2, 1)),
        kernel,
        start,
        jax.numpy.exp,
    )
    np.testing.assert_allclose(own_rates[0], rates[0], rtol=1e-10)
    assert ours.shape == spikes.shape


@pytest.mark.skipif(not SEED.is_file(), reason="the page is not here")
def test_the_page_runs_with_only_the_import_changed(monkeypatch):
    """Its code as it stands, and its printed tables to 5e-4."""
    pyplot = optional("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    text = SEED.read_text()
    code, tables = page_code(text)
    namespace = {}
    assert "import nemos as nmo" in code
    exec(code.replace("import nemos as nmo", "import fastglm as nmo"), namespace)
    pyplot.close("all")
    model, masked = namespace["model"], namespace["model_with_mask"]
    np.testing.assert_allclose(model.coef_, tables[0], atol=5e-4)
    np.testing.assert_allclose(masked.coef_, tables[1], atol=5e-4)
    assert namespace["X2"].shape == (100, 12)
    assert namespace["split_coef"][2, :, 3].tolist() == [0.0] * 10


def page_code(text):
    """The statements of the page, and its two tables of coefficients."""
    import ast
    import re

    lines = text.splitlines()
    code, k = [], 0
    while k < len(lines):
        for end in range(len(lines), k, -1):
            chunk = "\n".join(lines[k:end])
            if (
                end - k > 12
                or "Array(" in chunk
                or not re.match(r"[a-z_0-9, ]+ = |import |np\.|plt\.|print\(|mask\[", chunk)
            ):
                continue
            try:
                ast.parse(chunk)
            except SyntaxError:
                continue
            code.append(chunk)
            k = end - 1
            break
        k += 1
    number = r"-?\d+\.\d*(?:e-?\d+)?"
    rows = [
        [float(v) for v in re.findall(number, line)]
        for line in lines
        if re.fullmatch(rf"(?:Array\(\[)?\s*\[+(?:\s*{number}\s*,?){{4}}\s*\]+.*", line.strip())
    ]
    assert len(rows) == 80
    return "\n".join(code), [np.array(rows[:40]), np.array(rows[40:])]
