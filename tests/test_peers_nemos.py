"""Models and keys that come from NeMoS and JAX, where they are installed."""

import subprocess
import sys
import warnings

import numpy as np
import pytest

import fastglm
from fastglm.observation_models import as_observation_model

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


@pytest.mark.parametrize("family", ["Bernoulli", "Gaussian", "Gamma", "NegativeBinomial"])
def test_families(data, family):
    """Same predictions, scores and scale; a fit of ours has the same optimum."""
    X, counts = (part[8:] for part in data)  # NeMoS counts rows of NaN in the scale
    noise = np.random.default_rng(1).normal(size=counts.shape)
    y = {
        "Bernoulli": counts.clip(max=1),
        "Gaussian": counts + noise,
        "Gamma": counts + np.exp(noise),
        "NegativeBinomial": counts,
    }[family]
    settings = {"regularizer": "Ridge", "regularizer_strength": 0.02, **EXACT}
    model = family
    if family == "NegativeBinomial":
        model = nemos.observation_models.NegativeBinomialObservations(scale=0.3)
    theirs = peer(observation_model=model, **settings)
    quietly(theirs.fit, X, y)
    ours = fastglm.from_nemos(theirs)
    assert as_observation_model(ours.observation_model).name == family
    assert set(ours.status_) == {"imported"}
    np.testing.assert_allclose(ours.predict(X), np.asarray(theirs.predict(X)), rtol=1e-10)
    for score in ("log-likelihood", "pseudo-r2-McFadden", "pseudo-r2-Cohen"):
        expected = float(quietly(lambda s=score: theirs.score(X, y, score_type=s)))
        assert ours.score(X, y, score) == pytest.approx(expected, rel=1e-8)
    scale = np.broadcast_to(np.asarray(theirs.scale_), 3)
    np.testing.assert_allclose(ours.scale_, scale)
    ours.fit(X, y)
    np.testing.assert_allclose(ours.coef_, np.asarray(theirs.coef_), atol=1e-6)
    np.testing.assert_allclose(ours.scale_, scale, rtol=1e-6)


def test_what_fastglm_has_not_is_said():
    with pytest.raises(TypeError, match="model is of type dict; expected a GLM or PopulationGLM"):
        fastglm.from_nemos({})
    theirs = peer()
    theirs.get_params = lambda deep=True: {"observation_model": "CategoricalObservations"}
    with pytest.raises(ValueError, match="The model has Categorical observations, which"):
        fastglm.from_nemos(theirs)
    with pytest.raises(ValueError, match=r"inverse_link_function is .*take 'exp', 'softplus'"):
        fastglm.from_nemos(peer(inverse_link_function=jax.nn.relu))
    with pytest.raises(ValueError, match="without a fit the number of features is not known"):
        fastglm.from_nemos(peer(regularizer="GroupLasso"))


@pytest.mark.filterwarnings("ignore:FeaturePytree is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"regularizer": "Ridge", "regularizer_strength": 0.2},
        {"regularizer": "Ridge", "regularizer_strength": {"a": 0.1, "b": 0.5}},
        {
            "regularizer": "Ridge",
            "regularizer_strength": {"a": [[0.1, 0.2], [0.3, 0.4]], "b": [[0.5, 0.1]]},
        },
        {"feature_mask": {"a": np.array([1, 0]), "b": np.array([1, 1])}},
    ],
)
def test_trees_of_features(settings):
    """The same coefficients in the same shape, from a tree of either package, and carried over."""
    rng = np.random.default_rng(0)
    leaves = {"b": rng.normal(size=(80, 1)), "a": rng.normal(size=(80, 2))}
    y = rng.poisson(1, size=(80, 2))
    theirs = peer(**settings, **EXACT)
    quietly(theirs.fit, nemos.pytrees.FeaturePytree(**leaves), y)
    carried = fastglm.from_nemos(theirs)
    for X in (leaves, fastglm.pytrees.FeaturePytree(**leaves)):
        ours = fastglm.PopulationGLM(**settings).fit(X, y)
        for name, coef in theirs.coef_.items():
            np.testing.assert_allclose(ours.coef_[name], coef, atol=1e-6)
            np.testing.assert_array_equal(carried.coef_[name], coef)
        np.testing.assert_allclose(ours.predict(X), carried.predict(X), rtol=1e-5)
    np.testing.assert_allclose(carried.fit(leaves, y).coef_["a"], ours.coef_["a"], atol=1e-8)


def test_groups_of_three_axes():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 4)), rng.poisson(1, size=(200, 2))
    mask = np.zeros((4, 4, 2))
    mask[0, :2, 0] = mask[1, 2:, 0] = mask[2, :2, 1] = mask[3, 2:, 1] = 1
    strength = np.array([0.02, 0.05, 0.03, 0.01])
    theirs = peer(
        regularizer=nemos.regularizer.GroupLasso(mask=mask),
        regularizer_strength=strength,
        **PROXIMAL,
    )
    quietly(theirs.fit, X, y)
    group_lasso = fastglm.regularizer.GroupLasso(mask)
    ours = fastglm.PopulationGLM(regularizer=group_lasso, regularizer_strength=strength)
    np.testing.assert_allclose(ours.fit(X, y).coef_, theirs.coef_, atol=1e-6)
    expected = ours.coef_
    group_lasso.mask = nemos.glm.params.GLMParams(mask, None)
    np.testing.assert_array_equal(ours.fit(X, y).coef_, expected)


# --- files that NeMoS wrote ---


@pytest.mark.parametrize(
    "settings",
    [
        {"regularizer": "Ridge", "regularizer_strength": 0.1, **EXACT},
        {"inverse_link_function": jax.nn.softplus, **EXACT},
        {"observation_model": "Gaussian", "feature_mask": MASK, **EXACT},
    ],
)
def test_a_file_of_nemos_is_read(data, tmp_path, settings):
    X, y = (part[8:] for part in data)
    theirs = peer(**settings)
    theirs.save_params(tmp_path / "before.npz")
    assert not hasattr(fastglm.load_model(tmp_path / "before.npz"), "coef_")
    quietly(theirs.fit, X, y)
    theirs.save_params(tmp_path / "model.npz")
    ours = fastglm.load_model(tmp_path / "model.npz")
    np.testing.assert_array_equal(ours.coef_, theirs.coef_)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-9)
    np.testing.assert_allclose(ours.score(X, y), theirs.score(X, y), rtol=1e-9)
    for name in ("regularizer", "observation_model"):
        assert type(getattr(ours, name)).__name__ == type(getattr(theirs, name)).__name__


def test_a_group_lasso_of_nemos_is_read(data, tmp_path, capsys):
    """A mask that is an array is read; the tree of a fitted model is pickled and is not."""
    X, y = (part[8:] for part in data)
    mask = np.repeat(np.eye(3), 2, axis=1)
    theirs = nemos.glm.GLM(
        regularizer=nemos.regularizer.GroupLasso(mask), regularizer_strength=0.02, **PROXIMAL
    )
    theirs.save_params(tmp_path / "before.npz")
    before = fastglm.load_model(tmp_path / "before.npz")
    np.testing.assert_array_equal(before.regularizer.mask, mask)
    quietly(theirs.fit, X, y[:, 0])
    theirs.save_params(path := tmp_path / "model.npz")
    with pytest.raises(ValueError, match=r"pickled. It is not read.*Give the mask again"):
        fastglm.load_model(path)
    again = {"regularizer": lambda: fastglm.regularizer.GroupLasso(mask)}
    ours = fastglm.load_model(path, mapping_dict=again)
    np.testing.assert_array_equal(ours.coef_, theirs.coef_)
    np.testing.assert_allclose(ours.fit(X, y[:, 0]).coef_, theirs.coef_, atol=1e-6)
    fastglm.inspect_npz(path)
    assert "mask  pickled, which is not read" in capsys.readouterr().out


# --- functions ---


@pytest.mark.parametrize("causality", ["causal", "anti-causal", "acausal"])
@pytest.mark.parametrize("shape", [(40,), (40, 3), (40, 2, 3)])
def test_convolutions(causality, shape):
    rng = np.random.default_rng(0)
    kernel, series = rng.normal(size=(7, 2)), rng.normal(size=shape)
    args = kernel, series, causality
    expected = nemos.convolve.create_convolutional_predictor(*args)
    found = fastglm.convolve.create_convolutional_predictor(*args)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    if len(shape) == 2:
        args = kernel, {"a": series.T, "b": [series.T]}
        expected = nemos.convolve.create_convolutional_predictor(*args, axis=1)
        found = fastglm.convolve.create_convolutional_predictor(*args, axis=1)
        np.testing.assert_allclose(found["a"], expected["a"], atol=1e-12)
        np.testing.assert_allclose(found["b"][0], expected["b"][0], atol=1e-12)


def test_filters_of_a_simulation():
    for given in ({}, {"excit_a": 4.3, "inhib_b": 2.0}, {"upper_percentile": 0.9}):
        expected = nemos.simulation.difference_of_gammas(50, **given)
        found = fastglm.simulation.difference_of_gammas(50, **given)
        np.testing.assert_allclose(found, expected, atol=1e-12)
    for size in (0, 1):
        expected = nemos.simulation.difference_of_gammas(size)
        np.testing.assert_array_equal(fastglm.simulation.difference_of_gammas(size), expected)
    filters = np.random.default_rng(0).normal(size=(50, 2, 3))
    kernel = fastglm.basis.RaisedCosineLogConv(6, 50).kernel_
    np.testing.assert_allclose(
        fastglm.simulation.regress_filter(filters, kernel),
        nemos.simulation.regress_filter(filters, kernel),
        atol=1e-12,
    )


@pytest.mark.parametrize("add_intercept", [True, False])
def test_columns_that_identify_a_model(add_intercept):
    x = np.random.default_rng(0).random((2, 200))
    x[0, 3] = np.nan
    basis = fastglm.basis.BSplineEval(5) + fastglm.basis.CyclicBSplineEval(6)
    X = basis.compute_features(*x)
    theirs, ours = nemos.identifiability_constraints, fastglm.identifiability_constraints
    _, columns = theirs.apply_identifiability_constraints(np.asarray(X), add_intercept)
    found, kept = ours.apply_identifiability_constraints(X, add_intercept)
    np.testing.assert_array_equal(kept, columns)
    np.testing.assert_allclose(found, np.asarray(X)[:, kept])
    by_part = nemos.basis.BSplineEval(5) + nemos.basis.CyclicBSplineEval(6)
    by_part.compute_features(*x)
    _, columns = theirs.apply_identifiability_constraints_by_basis_component(
        by_part, np.asarray(X), add_intercept
    )
    _, kept = ours.apply_identifiability_constraints_by_basis_component(basis, X, add_intercept)
    np.testing.assert_array_equal(kept, columns)


def test_scores_of_predictions():
    rng = np.random.default_rng(0)
    y, mu = rng.poisson(1.0, 50), rng.gamma(1.0, size=50)
    ours, theirs = (
        m.PoissonObservations() for m in (fastglm.observation_models, nemos.observation_models)
    )
    for kind in ("pseudo-r2-McFadden", "pseudo-r2-Cohen"):
        expected = theirs.pseudo_r2(jax.numpy.array(y), jax.numpy.array(mu), kind)
        np.testing.assert_allclose(ours.pseudo_r2(y, mu, kind), expected, rtol=1e-9)
    unknown = np.r_[mu, np.nan]
    np.testing.assert_allclose(ours.pseudo_r2(np.r_[y, 3], unknown), ours.pseudo_r2(y, mu))


def test_degrees_of_freedom_of_the_residuals(data):
    X, y = (part[8:] for part in data)
    for settings in ({}, {"regularizer": "Ridge"}):
        theirs = peer(**settings)
        quietly(theirs.fit, X, y)
        ours = fastglm.PopulationGLM(**settings).fit(X, y)
        np.testing.assert_array_equal(ours.dof_resid_, theirs.dof_resid_)


def test_defaults_are_the_same_objects_by_name():
    for name in ("UnRegularized", "Ridge", "Lasso", "ElasticNet", "GroupLasso"):
        ours, theirs = fastglm.GLM(regularizer=name), peer("GLM", regularizer=name)
        assert ours.regularizer_strength == theirs.regularizer_strength
        for attribute in ("regularizer", "observation_model"):
            pair = getattr(ours, attribute), getattr(theirs, attribute)
            assert type(pair[0]).__name__ == type(pair[1]).__name__
    eta = np.linspace(-2, 2, 5)
    np.testing.assert_allclose(ours.inverse_link_function(eta), theirs.inverse_link_function(eta))
    for model in (ours, theirs):
        model.set_params(regularizer="Ridge", regularizer_strength=2.0)
        model.set_params(regularizer="Lasso")
        assert model.regularizer_strength == 1.0


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
