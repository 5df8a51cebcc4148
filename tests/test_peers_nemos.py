"""Models and keys that come from NeMoS and JAX, where they are installed."""

import subprocess
import sys
import warnings

import numpy as np
import pytest

import fastglm

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    nemos = pytest.importorskip("nemos", exc_type=ImportError)
    import jax

SOLVER = {"solver_kwargs": {"tol": 1e-12, "maxiter": 5000}}
EXACT = {"solver_name": "LBFGS", **SOLVER}
PROXIMAL = {"solver_name": "ProximalGradient", **SOLVER}


@pytest.fixture(autouse=True)
def _float64():
    jax.config.update("jax_enable_x64", True)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(5)
    counts = rng.poisson(0.5, size=(600, 3))
    X = np.asarray(fastglm.basis.RaisedCosineLogConv(2, 8).compute_features(counts))
    return X, counts


def quietly(function, *args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args)


def peer(kind="PopulationGLM", **settings):
    return quietly(lambda: getattr(nemos.glm, kind)(**settings))


MASK = np.repeat([[1, 0, 1], [1, 1, 1], [0, 1, 1]], 2, axis=0)
SAME = {
    "none": EXACT,
    "ridge": {"regularizer": "Ridge", "regularizer_strength": 0.02, **EXACT},
    "ridge of every coefficient": {
        "regularizer": "Ridge",
        "regularizer_strength": np.linspace(0.01, 0.3, 18).reshape(6, 3),
        **EXACT,
    },
    "softplus": {"inverse_link_function": jax.nn.softplus, **EXACT},
    "mask": {"feature_mask": MASK, "inverse_link_function": jax.numpy.exp, **EXACT},
    "lasso": {"regularizer": "Lasso", "regularizer_strength": 0.03, **PROXIMAL},
    "elastic net": {
        "regularizer": "ElasticNet",
        "regularizer_strength": (0.05, 0.3),
        **PROXIMAL,
    },
    "group lasso": {"regularizer": "GroupLasso", "regularizer_strength": 0.01, **PROXIMAL},
    "group lasso with a mask": {
        "regularizer": "GroupLasso",
        "regularizer_strength": 0.01,
        "feature_mask": MASK,
        **PROXIMAL,
    },
}


@pytest.mark.parametrize("name", SAME)
def test_population(data, name):
    """The same predictions, and a fit of ours finds the same optimum, whoever fitted first."""
    theirs, models = peer(**SAME[name]), []
    if name != "group lasso":  # whose groups NeMoS makes when it is fitted
        models = [fastglm.from_nemos(theirs)]
        assert not hasattr(models[0], "coef_")
    quietly(theirs.fit, *data)
    ours = fastglm.from_nemos(theirs)
    assert type(ours) is fastglm.PopulationGLM
    np.testing.assert_array_equal(ours.coef_, theirs.coef_)
    np.testing.assert_array_equal(ours.intercept_, theirs.intercept_)
    assert ours.coef_.dtype == np.float64
    assert (ours.status_ == "imported").all()
    assert not ours.converged_.any()
    expected = np.asarray(quietly(theirs.predict, data[0]))
    np.testing.assert_allclose(ours.predict(data[0]), expected, rtol=1e-12)
    assert ours.score(*data) == pytest.approx(float(quietly(theirs.score, *data)), abs=1e-12)
    for model in (ours, *models):
        model.fit(*data)
        assert (model.status_ == "converged").all()
        np.testing.assert_allclose(model.coef_, theirs.coef_, atol=2e-6)
        np.testing.assert_allclose(model.predict(data[0])[8:], expected[8:], rtol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"regularizer": "Ridge", "regularizer_strength": 0.02, **EXACT},
        {
            "regularizer": nemos.regularizer.GroupLasso(np.repeat(np.eye(3), 2, axis=1)),
            "regularizer_strength": np.array([0.03, 0.01, 0.0]),
            **PROXIMAL,
        },
    ],
)
def test_one_receiver(data, settings):
    X, counts = data
    theirs = peer("GLM", **settings)
    unfitted = fastglm.from_nemos(theirs)
    quietly(theirs.fit, X, counts[:, 0])
    ours = fastglm.from_nemos(theirs)
    assert type(ours) is fastglm.GLM
    assert ours.coef_.shape == (6,)
    expected = np.asarray(quietly(theirs.predict, X))
    np.testing.assert_allclose(ours.predict(X), expected, rtol=1e-12)
    for model in (unfitted, ours):
        np.testing.assert_allclose(model.fit(X, counts[:, 0]).coef_, theirs.coef_, atol=2e-6)


def test_float32_is_carried_over_as_it_is(data):
    jax.config.update("jax_enable_x64", False)
    theirs = peer(regularizer="Ridge", regularizer_strength=0.01)
    quietly(theirs.fit, *data)
    ours = fastglm.from_nemos(theirs)
    assert theirs.coef_.dtype == np.float32
    expected = np.asarray(quietly(theirs.predict, data[0]))
    np.testing.assert_allclose(ours.predict(data[0]), expected, rtol=1e-6)


def test_groups_of_receivers(data):
    """Their order is free, but they must be the same for all, and bind nobody to another."""
    groups = np.zeros((6, 6, 3))
    for j in range(3):
        groups[j, :2, j] = groups[3 + j, 2:, j] = 1
    strength = np.array([0.03, 0.01, 0.02, 0.0, 0.005, 0.01])
    settings = {"regularizer_strength": strength, **PROXIMAL}
    shuffled = np.array([4, 0, 5, 2, 1, 3])
    settings["regularizer_strength"] = strength[shuffled]
    theirs = peer(
        regularizer=nemos.regularizer.GroupLasso(mask=_tree(groups[shuffled])), **settings
    )
    quietly(theirs.fit, *data)
    ours = fastglm.from_nemos(theirs).fit(*data)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=2e-6)
    assert ours.regularizer.mask.shape == (2, 6)
    groups[0, 2:4, 0], groups[3, 2:4, 0] = 1, 0
    with pytest.raises(ValueError, match="groups of GroupLasso differ between receivers"):
        fastglm.from_nemos(peer(regularizer=nemos.regularizer.GroupLasso(mask=_tree(groups))))
    with pytest.raises(ValueError, match="holds features of several receivers"):
        fastglm.from_nemos(
            peer(regularizer=nemos.regularizer.GroupLasso(mask=_tree(np.ones((1, 6, 3)))))
        )


def _tree(groups):
    return nemos.glm.params.GLMParams(groups, None)


def test_it_is_saved(data, tmp_path):
    theirs = peer(**SAME["group lasso with a mask"])
    quietly(theirs.fit, *data)
    ours = fastglm.from_nemos(theirs)
    ours.save_params(tmp_path / "model.npz")
    again = fastglm.load_model(tmp_path / "model.npz")
    np.testing.assert_array_equal(again.predict(data[0]), ours.predict(data[0]))
    np.testing.assert_array_equal(again.fit(*data).coef_, ours.fit(*data).coef_)


def test_standard_errors_of_what_was_carried_over(data):
    theirs = peer(**SAME["ridge"])
    quietly(theirs.fit, *data)
    ours = fastglm.from_nemos(theirs)
    imported = ours.standard_errors(*data)
    fitted = ours.fit(*data).standard_errors(*data)
    np.testing.assert_allclose(imported[0], fitted[0], rtol=1e-4)


@pytest.mark.parametrize("family", ["Bernoulli", "Gaussian"])
def test_families(data, family):
    """Same predictions, scores and scale; a fit of ours has the same optimum."""
    X, counts = (part[8:] for part in data)  # NeMoS counts rows of NaN in the scale
    noise = np.random.default_rng(1).normal(size=counts.shape)
    y = counts.clip(max=1) if family == "Bernoulli" else counts + noise
    settings = {"regularizer": "Ridge", "regularizer_strength": 0.02, **EXACT}
    theirs = peer(observation_model=family, **settings)
    quietly(theirs.fit, X, y)
    ours = fastglm.from_nemos(theirs)
    assert ours.observation_model == family
    assert set(ours.status_) == {"imported"}
    np.testing.assert_allclose(ours.predict(X), np.asarray(theirs.predict(X)), rtol=1e-10)
    for score in ("log-likelihood", "pseudo-r2-McFadden", "pseudo-r2-Cohen"):
        expected = float(quietly(lambda s=score: theirs.score(X, y, score_type=s)))
        assert ours.score(X, y, score) == pytest.approx(expected, rel=1e-8)
    scale = np.broadcast_to(np.asarray(theirs.scale_), 3)
    np.testing.assert_allclose(ours.scale_, scale if family == "Gaussian" else 1.0)
    ours.fit(X, y)
    np.testing.assert_allclose(ours.coef_, np.asarray(theirs.coef_), atol=1e-6)
    if family == "Gaussian":
        np.testing.assert_allclose(ours.scale_, scale, rtol=1e-6)


def test_what_fastglm_has_not_is_said():
    with pytest.raises(TypeError, match="model is of type dict; expected a GLM or PopulationGLM"):
        fastglm.from_nemos({})
    with pytest.raises(ValueError, match="The model has Gamma observations, which"):
        fastglm.from_nemos(peer(observation_model="Gamma"))
    with pytest.raises(ValueError, match=r"inverse_link_function is .*take 'exp', 'softplus'"):
        fastglm.from_nemos(peer(inverse_link_function=jax.nn.relu))
    with pytest.raises(ValueError, match="without a fit the number of features is not known"):
        fastglm.from_nemos(peer(regularizer="GroupLasso"))
    strength = {"speed": 0.1, "coupling": 0.2}
    with pytest.raises(ValueError, match="regularizer_strength of the model is a dict; expected"):
        fastglm.from_nemos(peer(regularizer="Ridge", regularizer_strength=strength))


@pytest.mark.filterwarnings("ignore:FeaturePytree is deprecated:FutureWarning")
def test_trees_of_features():
    rng = np.random.default_rng(0)
    tree = nemos.pytrees.FeaturePytree(a=rng.normal(size=(50, 2)), b=rng.normal(size=(50, 1)))
    mask = {"a": np.array([1, 0]), "b": np.array([1, 1])}
    theirs = peer(feature_mask=mask)
    assert sorted(fastglm.from_nemos(theirs).feature_mask) == ["a", "b"]
    quietly(theirs.fit, tree, rng.poisson(1, size=(50, 2)))
    with pytest.raises(ValueError, match="coef_ of the model is a dict; expected an array"):
        fastglm.from_nemos(theirs)


def test_nothing_of_nemos_is_imported():
    code = (
        "import sys, fastglm; fastglm.from_nemos(fastglm.GLM(regularizer='Lasso')); "
        "print([m for m in ('nemos', 'jax') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_keys_of_jax_are_seeds():
    """Typed or not, the same key is the same seed, and another is another."""

    def draw(key):
        return fastglm.simulation.simulate_recurrent(
            np.full((2, 2, 3), -0.2), None, [-1.0, 0.0], key, n_bins=200
        )[0]

    typed, raw = draw(jax.random.key(3)), draw(jax.random.PRNGKey(3))
    np.testing.assert_array_equal(typed, raw)
    np.testing.assert_array_equal(typed, draw(jax.random.key(3)))
    assert (typed != draw(jax.random.key(4))).any()
    counts = np.random.default_rng(0).poisson(0.5, size=(300, 2))
    model = fastglm.PopulationGLM().fit(counts[:-1], counts[1:])
    first, _ = model.simulate(jax.random.key(3), counts)
    np.testing.assert_array_equal(first, model.simulate(jax.random.PRNGKey(3), counts)[0])


def coupling_page(nmo, counts):
    """What NeMoS's page on coupling does, in a few lines."""
    n_neurons = counts.shape[1]
    basis = nmo.basis.HistoryConv(window_size=10, label="spike-history")
    X = basis.compute_features(counts)
    strength = {"regularizer": "Ridge", "regularizer_strength": 0.01, **EXACT}
    model = nmo.glm.PopulationGLM(**strength).fit(X, counts)
    raised_cos = nmo.basis.RaisedCosineLogConv(3, window_size=3)
    X2 = raised_cos.compute_features(counts)
    reduced = nmo.glm.PopulationGLM(**strength).fit(X2, counts)
    mask = np.ones((n_neurons, n_neurons))
    mask[0, 1] = mask[1, 0] = mask[2, 3] = 0
    mask = np.repeat(mask, basis.n_basis_funcs, axis=0)
    masked = nmo.glm.PopulationGLM(feature_mask=mask, **strength).fit(X, counts)
    split = basis.split_by_feature(masked.coef_, axis=0)["spike-history"]
    return [X[10:], X2[10:], split[2, :, 3], split[3, :, 2]] + [
        model.coef_, reduced.coef_, masked.coef_, masked.intercept_
    ]  # fmt: skip


def test_the_coupling_page_gives_the_same_with_either_import(page):
    ours = coupling_page(fastglm, page)
    theirs = quietly(coupling_page, nemos, page)
    assert not ours[2].any()
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
