"""What pages written for NeMoS type: trees of features, files, functions, and what is absent."""

import importlib
import json
import sys

import numpy as np
import pytest

import fastglm
from fastglm import pytrees

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 5))
Y = RNG.poisson(np.exp(0.3 * X[:, :1] + [0.0, 0.3]))
PARTS = {"b": X[:, 3:], "a": X[:, :3]}  # in the order of their names it is X


# --- trees of features ---

TREES = {
    "dict": (PARTS, ["a", "b"]),
    "tree": (pytrees.FeaturePytree(**PARTS), ["a", "b"]),
    "list": ([X[:, :3], X[:, 3:]], ["0", "1"]),
    "nested": ({"x": {"n": X[:, 2:4], "m": X[:, :2]}, "y": [X[:, 4:]]}, ["x/m", "x/n", "y/0"]),
}


@pytest.mark.parametrize("name", TREES)
def test_a_tree_is_its_leaves_side_by_side(name):
    tree, labels = TREES[name]
    assert fastglm.features.as_feature_matrix(tree).labels == labels
    plain = fastglm.PopulationGLM(regularizer="Ridge").fit(X, Y)
    model = fastglm.PopulationGLM(regularizer="Ridge").fit(tree, Y)
    assert pytrees.lengths_of(model.coef_) == pytrees.shape_of(tree)
    np.testing.assert_array_equal(pytrees.stack(model.coef_), plain.coef_)
    np.testing.assert_allclose(model.predict(tree), plain.predict(X), rtol=1e-14)
    np.testing.assert_allclose(model.score(tree, Y), plain.score(X, Y), rtol=1e-14)
    again = model.fit(tree, Y, init_params=(model.coef_, model.intercept_))
    np.testing.assert_allclose(pytrees.stack(again.coef_), plain.coef_, atol=1e-8)
    errors = model.standard_errors(tree, Y)
    np.testing.assert_allclose(errors, plain.standard_errors(X, Y), rtol=1e-7)


def test_another_tree_is_refused():
    model = fastglm.PopulationGLM(regularizer="Ridge").fit(PARTS, Y)
    for other in (X, {"c": X}, [X[:, :3], X[:, 3:]]):
        with pytest.raises(ValueError, match=r"X is .*; expected a tree of \['a', 'b'\]"):
            model.predict(other)
    with pytest.raises(ValueError, match=r"X is a tree of .*; expected an array"):
        fastglm.PopulationGLM(regularizer="Ridge").fit(X, Y).predict(PARTS)


def test_strengths_and_masks_by_block():
    def coef(X, **settings):
        return pytrees.stack(fastglm.PopulationGLM(**settings).fit(X, Y).coef_)

    rows = np.repeat([[0.1, 0.1], [2.0, 3.0]], [3, 2], axis=0)
    ridge = {"regularizer": "Ridge"}
    expected = coef(X, regularizer_strength=rows, **ridge)
    blocks = {"a": 0.1, "b": [2.0, 3.0]}
    np.testing.assert_array_equal(coef(PARTS, regularizer_strength=blocks, **ridge), expected)
    net = {"regularizer": "ElasticNet"}
    expected = coef(X, regularizer_strength=(rows, rows / 4), **net)
    pair = blocks, {"a": 0.025, "b": [0.5, 0.75]}
    np.testing.assert_array_equal(coef(PARTS, regularizer_strength=pair, **net), expected)
    mask = np.ones((5, 2), bool)
    mask[3:, 0] = mask[1, 1] = False
    given = {"b": [0, 1], "a": mask[:3]}
    np.testing.assert_array_equal(coef(PARTS, feature_mask=given), coef(X, feature_mask=mask))
    nested = {"x": {"m": [0, 1]}}
    found = coef(TREES["nested"][0], feature_mask=nested)
    assert (found[:2, 0] == 0).all()
    assert found[2:].all()


def test_groups_by_block():
    group_lasso = {"regularizer": "GroupLasso"}
    by_group = fastglm.GLM(regularizer_strength=[0.05, 0.2], **group_lasso).fit(PARTS, Y[:, 0])
    by_name = fastglm.GLM(regularizer_strength={"a": 0.05, "b": 0.2}, **group_lasso)
    by_name.fit(PARTS, Y[:, 0])
    np.testing.assert_array_equal(by_name.coef_["a"], by_group.coef_["a"])
    mask = np.repeat(np.eye(2), [3, 2], axis=1)
    own = fastglm.regularizer.GroupLasso(mask)
    strength = {"a": 0.05, "b": 0.2}
    model = fastglm.GLM(regularizer=own, regularizer_strength=strength).fit(PARTS, Y[:, 0])
    np.testing.assert_array_equal(model.coef_["a"], by_group.coef_["a"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"regularizer_strength": {"a": 0.1}}, "regularizer_strength has none for 'b'"),
        ({"regularizer_strength": {"c": 0.1}}, r"regularizer_strength has labels \['c'\]"),
        ({"regularizer_strength": {"a": np.ones(4), "b": 1}}, r"\['a'\] has shape \(4,\)"),
        ({"feature_mask": {"a": np.ones((4, 2))}}, r"feature_mask\['a'\] has shape \(4, 2\)"),
    ],
)
def test_blocks_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        fastglm.PopulationGLM(regularizer="Ridge", **settings).fit(PARTS, Y)


def test_a_feature_pytree():
    tree = pytrees.FeaturePytree(**PARTS)
    assert (tree.shape, len(tree), tree.ndim) == ((200,), 200, 1)
    np.testing.assert_array_equal(tree[:10]["a"], X[:10, :3])
    assert tree == pytrees.FeaturePytree(**PARTS) != tree[:10]
    assert repr(tree).startswith("b: shape (200, 2)")
    for name, value, message in (
        ("c", np.zeros(199), "c has 199 bins; expected 200"),
        ("c", "text", "c is 'text'; expected an array"),
        (3, X, "name of features is 3"),
    ):
        with pytest.raises(ValueError, match=message):
            tree[name] = value
    del tree["b"]
    assert list(tree) == ["a"]


def test_jax_goes_through_a_feature_pytree():
    jax = pytest.importorskip("jax")
    tree = pytrees.FeaturePytree(**PARTS)
    squares = jax.tree_util.tree_map(np.square, tree)
    assert isinstance(squares, pytrees.FeaturePytree)
    np.testing.assert_array_equal(squares["a"], X[:, :3] ** 2)
    assert jax.tree_util.tree_map(lambda x: x.shape, tree) == {"a": (200, 3), "b": (200, 2)}


# --- models set by hand, and files ---


def test_coefficients_set_by_hand():
    model = fastglm.PopulationGLM()
    model.coef_, model.intercept_ = np.full((5, 2), 0.1), np.zeros(2)
    np.testing.assert_allclose(model.predict(X), np.exp(X @ model.coef_))
    assert model.status_.tolist() == ["imported"] * 2
    one = fastglm.GLM()
    one.coef_, one.intercept_ = {"a": np.ones(3), "b": np.zeros(2)}, 0.5
    np.testing.assert_allclose(one.predict(PARTS), np.exp(X[:, :3].sum(axis=1) + 0.5))
    assert list(one.coef_) == ["a", "b"]
    bad = fastglm.GLM()
    bad.coef_, bad.intercept_ = np.ones((5, 2)), np.zeros(2)
    with pytest.raises(ValueError, match=r"shapes \(5, 2\) and \(2,\); expected \(n_features,\)"):
        bad.predict(X)


def test_what_is_set_after_a_fit_is_saved(tmp_path):
    model = fastglm.GLM().fit(X, Y[:, 0])
    model.coef_ = 2 * model.coef_
    model.save_params(tmp_path / "model.npz")
    np.testing.assert_array_equal(
        fastglm.load_model(tmp_path / "model.npz").predict(X), model.predict(X)
    )


@pytest.mark.parametrize("name", TREES)
def test_a_tree_comes_back_from_a_file(tmp_path, name):
    tree, labels = TREES[name]
    model = fastglm.PopulationGLM(
        regularizer="ElasticNet",
        regularizer_strength=(dict.fromkeys(labels, 0.1), 0.5),
        feature_mask={labels[0]: [0, 1]},
    ).fit(tree, Y)
    model.save_params(tmp_path / "model.npz")
    loaded = fastglm.load_model(tmp_path / "model.npz")
    np.testing.assert_array_equal(loaded.predict(tree), model.predict(tree))
    assert pytrees.lengths_of(loaded.coef_) == pytrees.lengths_of(model.coef_)
    np.testing.assert_array_equal(loaded.dof_resid_, model.dof_resid_)
    fit = loaded.fit(tree, Y).coef_
    np.testing.assert_array_equal(pytrees.stack(fit), pytrees.stack(model.coef_))


class MyRidge(fastglm.regularizer.Ridge):
    def __init__(self, number):
        self.number = number


def square(eta):
    return eta**2


def test_a_model_that_is_not_fitted_and_of_own_parts(tmp_path, capsys):
    path = tmp_path / "model.npz"
    plain = fastglm.GLM("Bernoulli", regularizer="Ridge", regularizer_strength=0.3)
    plain.save_params(path)
    loaded = fastglm.load_model(path)
    assert not hasattr(loaded, "coef_")
    assert loaded.regularizer_strength == 0.3
    model = fastglm.GLM(inverse_link_function=square, regularizer=MyRidge(10))
    model.save_params(path)
    fastglm.inspect_npz(path)
    assert "MyRidge" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"inverse_link_function .*square, which .* mapping_dict="):
        fastglm.load_model(path)
    with pytest.raises(ValueError, match=r"has the regularizer .*MyRidge, which is not of fastglm"):
        fastglm.load_model(path, mapping_dict={"inverse_link_function": square})
    mapping = {"inverse_link_function": square, "regularizer": MyRidge}
    loaded = fastglm.load_model(path, mapping_dict=mapping)
    assert loaded.inverse_link_function is square
    assert (type(loaded.regularizer), loaded.regularizer.number) == (MyRidge, 10)
    for bad, message in (
        ({"link": square}, "keys of"),
        ({"regularizer": 3}, "a function or class"),
    ):
        with pytest.raises(ValueError, match=message):
            fastglm.load_model(path, mapping_dict=bad)


def test_a_regularizer_of_ones_own_comes_back_with_its_fit(tmp_path):
    path = tmp_path / "model.npz"
    model = fastglm.GLM(regularizer=MyRidge(3), regularizer_strength=0.3).fit(X, Y[:, 0])
    model.save_params(path)
    loaded = fastglm.load_model(path, mapping_dict={"regularizer": MyRidge})
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


def test_what_is_no_model_is_not_inspected(tmp_path):
    np.savez(tmp_path / "other.npz", header=np.array(json.dumps({})))
    with pytest.raises(ValueError, match="is not a model of fastglm"):
        fastglm.inspect_npz(tmp_path / "other.npz")


# --- scores, samples, settings ---


def test_a_glm_is_scored_bin_by_bin_without_an_axis_of_receivers():
    model = fastglm.GLM().fit(X, Y[:, 0])
    for kind in ("log-likelihood", "pseudo-r2-McFadden", "pseudo-r2-Cohen"):
        mean = model.score(X, Y[:, 0], kind, lambda v: v.mean(axis=0))
        assert np.ndim(mean) == 0
        np.testing.assert_allclose(mean, model.score(X, Y[:, 0], kind))
    shapes = []
    model.score(X, Y[:, 0], aggregate_sample_scores=lambda v: shapes.append(v.shape) or 0.0)
    assert shapes == [(200,)]


def test_degrees_of_freedom_go_with_weights_and_zeros():
    weight = RNG.integers(0, 3, 200)
    assert fastglm.GLM().fit(X, Y[:, 0], sample_weight=weight).dof_resid_ == weight.sum() - 6
    sparse = fastglm.GLM(regularizer="Lasso", regularizer_strength=0.1).fit(X, Y[:, 0])
    assert sparse.dof_resid_ == 200 - 1 - np.count_nonzero(sparse.coef_)


def test_settings_of_descents_are_one_warning():
    kwargs = {"stepsize": 0.1, "acceleration": False, "maxiter": 50}
    model = fastglm.GLM(solver_kwargs=kwargs)
    with pytest.warns(
        UserWarning, match=r"\['acceleration', 'stepsize'\] are settings of descents"
    ) as w:
        model.fit(X, Y[:, 0])
    assert len(w) == 1
    np.testing.assert_array_equal(model.coef_, fastglm.GLM().fit(X, Y[:, 0]).coef_)


def test_evaluate_keeps_times():
    nap = pytest.importorskip("pynapple")
    x = nap.Tsd(t=np.arange(10.0), d=np.linspace(0, 1, 10))
    one = fastglm.basis.BSplineEval(5, bounds=(0, 1))
    for basis in (
        one,
        one + one,
        one * fastglm.basis.IdentityEval(),
        fastglm.basis.CustomBasis([np.sin]),
    ):
        inputs = [x] * basis._n_inputs
        found = basis.evaluate(*inputs)
        np.testing.assert_array_equal(found.t, x.t)
        np.testing.assert_array_equal(found.values, basis.evaluate(*(v.values for v in inputs)))


def test_exponentials_take_number_and_rates_one_by_one():
    basis = fastglm.basis.OrthExponentialConv(2, 10, [1.0, 2.0])
    kernel = basis.kernel_
    basis.set_params(n_basis_funcs=3)
    with pytest.warns(UserWarning, match="is 3, and there are 2 decay_rates: there is one functio"):
        np.testing.assert_array_equal(basis.kernel_, kernel)
    basis.set_params(decay_rates=[1.0, 2.0, 3.0])
    np.testing.assert_array_equal(
        basis.kernel_, fastglm.basis.OrthExponentialConv(3, 10, [1.0, 2.0, 3.0]).kernel_
    )


def test_the_zero_basis_has_no_bounds_to_set():
    assert fastglm.basis.Zero().bounds is None
    with pytest.raises(AttributeError, match="bounds"):
        fastglm.basis.Zero().bounds = (0, 1)


def test_a_transformer_takes_no_dict():
    step = fastglm.basis.BSplineEval(4).to_transformer()
    for use in (step.fit, step.transform):
        with pytest.raises(ValueError, match="X is a dict; expected an array"):
            use({"x": np.zeros((5, 1))})


def test_shapes_of_inputs_are_whole_numbers():
    for bad in (1.5, (1, 1.0 + 1e-9), (1, 1.0), 0, "2"):
        with pytest.raises(ValueError, match="A number of columns is"):
            fastglm.basis.BSplineEval(5).set_input_shape(bad)


def test_a_sum_has_the_bounds_of_its_inputs():
    one, two = fastglm.basis.BSplineEval(5, bounds=(0, 1)), fastglm.basis.HistoryConv(3)
    assert (one + two * one).bounds == [(0, 1), None, (0, 1)]


def test_a_single_sample():
    basis = fastglm.basis.BSplineEval(5, bounds=(0, 1))
    np.testing.assert_array_equal(basis.compute_features(0.5), basis.evaluate([0.5]))


# --- categories ---


def test_categories():
    basis = fastglm.basis.Category(["b", "a"], label="side")
    labels = np.array(["a", "c", "b"])
    np.testing.assert_array_equal(basis.compute_features(labels), [[1, 0], [0, 0], [0, 1]])
    np.testing.assert_array_equal(basis.evaluate(labels[:, None])[:, 0], [[1, 0], [0, 0], [0, 1]])
    strict = fastglm.basis.Category(["a", "b"], out_of_category=False)
    with pytest.raises(ValueError, match=r"hold \['c'\]; expected one of \['a', 'b'\]"):
        strict.compute_features(labels)
    with pytest.raises(ValueError, match=r"hold \['c'\]; expected one of \[0, 1\]"):
        fastglm.basis.Category(2, out_of_category=False).evaluate(np.array(["1", "c"])[1:])
    with pytest.raises(AttributeError, match="bounds"):
        basis.bounds = (0, 1)
    numbers = fastglm.basis.Category(3).compute_features(np.array([2, 0, np.nan]))
    np.testing.assert_array_equal(numbers, [[0, 0, 1], [1, 0, 0], [np.nan] * 3])
    product = basis * fastglm.basis.IdentityEval()
    np.testing.assert_array_equal(
        product.compute_features(labels, np.array([2.0, 3.0, 4.0])), [[2, 0], [0, 0], [0, 4]]
    )
    for bad in (["a", "a"], [], 0):
        with pytest.raises(ValueError, match="categories"):
            fastglm.basis.Category(bad)
    with pytest.raises(TypeError, match="out_of_category is 1"):
        fastglm.basis.Category(2, out_of_category=1)
    with pytest.raises(ValueError, match="has a grid of its 2 categories; it was asked for 5"):
        basis.evaluate_on_grid(5)


def test_categories_of_long_labels_are_told_apart():
    """A label of the samples that is longer than all categories is none of them."""
    found = fastglm.basis.Category(["a", "b"]).compute_features(np.array(["ab", "a"]))
    np.testing.assert_array_equal(found, [[0, 0], [1, 0]])


# --- functions with NeMoS's names ---


def test_convolutions_that_do_not_fit():
    convolve = fastglm.convolve.create_convolutional_predictor
    for kernel, series, message in (
        (np.ones(3), np.ones(9), r"basis_matrix has shape \(3,\)"),
        (np.ones((3, 1)), np.ones(2), "has 2 bins along axis 0"),
        (np.ones((3, 1)), 2.0, "which has no axis 0"),
    ):
        with pytest.raises(ValueError, match=message):
            convolve(kernel, series)
    with pytest.raises(ValueError, match="predictor_causality"):
        convolve(np.ones((3, 1)), np.ones(9), "backwards")


def test_convolutions_stop_at_gaps():
    nap = pytest.importorskip("pynapple")
    support = nap.IntervalSet([0.0, 10.0], [4.5, 15.5])
    series = nap.Tsd(t=np.r_[0:5, 10:16].astype(float), d=np.ones(11), time_support=support)
    found = fastglm.convolve.create_convolutional_predictor(np.ones((2, 1)), series)
    np.testing.assert_array_equal(found.t, series.t)
    np.testing.assert_array_equal(
        np.isnan(found.values[:, 0]), np.isin(np.arange(11), [0, 1, 5, 6])
    )


@pytest.mark.parametrize("bad", [{"inhib_a": 0}, {"excit_b": -1.0}, {"upper_percentile": 1.0}])
def test_gammas_that_do_not_exist(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        fastglm.simulation.difference_of_gammas(10, **bad)


def test_a_filter_of_no_bins_is_empty():
    assert fastglm.simulation.difference_of_gammas(0).shape == (0,)
    with pytest.raises(ValueError, match="ws is -1; expected a positive integer"):
        fastglm.simulation.difference_of_gammas(-1)


def test_filters_that_do_not_fit():
    with pytest.raises(ValueError, match=r"coupling_filters has shape \(5, 1\)"):
        fastglm.simulation.regress_filter(np.ones((5, 1)), np.ones((5, 2)))


def test_columns_of_bad_features():
    with pytest.raises(ValueError, match=r"feature_matrix has shape \(3,\)"):
        fastglm.identifiability_constraints.apply_identifiability_constraints(np.ones(3))


def test_arrays_put_end_to_end():
    nap = pytest.importorskip("pynapple")
    join = fastglm.utils.pynapple_concatenate_jax
    frame = nap.TsdFrame(t=np.arange(4.0), d=np.ones((4, 2)))
    beside = join([frame, np.zeros((4, 1))], -1)
    np.testing.assert_array_equal(beside.t, frame.t)
    assert beside.shape == (4, 3)
    later = nap.TsdFrame(t=np.arange(4.0) + 9, d=np.ones((4, 2)))
    assert join([frame, later]).shape == (8, 2)
    features = fastglm.basis.HistoryConv(2).compute_features(np.ones((9, 1)))
    assert isinstance(join([features, np.ones((9, 1))], axis=1), fastglm.features.FeatureMatrix)
    assert fastglm.utils.one_over_x(4.0) == 0.25


def test_recordings_without_a_network(tmp_path, monkeypatch):
    name = fastglm.fetch.DOWNLOADABLE_FILES[0]
    with pytest.raises(ValueError, match=r"dataset_name is 'other.nwb'; expected one of"):
        fastglm.fetch.fetch_data("other.nwb", tmp_path)
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match="pip install pooch"):
        fastglm.fetch.fetch_data(name, tmp_path)

    class Pooch:
        @staticmethod
        def retrieve(*args, **kwargs):
            raise OSError("no network")

    monkeypatch.setitem(sys.modules, "pooch", Pooch)
    monkeypatch.setenv("NEMOS_DATA_DIR", str(tmp_path))
    with pytest.raises(ConnectionError, match=f"put it in the folder {tmp_path}"):
        fastglm.fetch.fetch_data(name)
    (tmp_path / name).touch()
    assert fastglm.fetch.fetch_data(name) == str(tmp_path / name)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: fastglm.solvers,
        lambda: fastglm.glm_hmm,
        lambda: importlib.import_module("fastglm.solvers"),
        lambda: importlib.import_module("fastglm.glm_hmm"),
        lambda: fastglm.observation_models.CategoricalObservations,
        lambda: fastglm.regularizer.Ridge.allow_solver("mine"),
        lambda: fastglm.glm.ClassifierGLM,
        lambda: fastglm.glm.ClassifierPopulationGLM,
        lambda: fastglm.GLM().initialize_params(X, Y),
        lambda: fastglm.GLM().initialize_solver_and_state(X, Y, None),
        lambda: fastglm.GLM().update(None, None, X, Y),
    ],
)
def test_what_is_absent_says_so(ask):
    with pytest.raises(NotImplementedError, match="use NeMoS"):
        ask()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fastglm.glm.nothing
