"""The estimators among scikit-learn's tools: its checks, pipelines, searches, names, pickles."""

import pickle

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastglm

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(120, 3))
Y = RNG.poisson(np.exp(0.3 * Z[:, :2]))
NAMES = ["speed", "angle", "light"]

# Checks of scikit-learn that do not apply, with the reason; listed in docs/conventions.md as well.
NOT_MET = {
    "GLM": {
        "check_supervised_y_2d": "y in a column is an error that points to PopulationGLM",
    },
    "PopulationGLM": {
        "check_regressor_multioutput": "the check's y is negative, and counts are not",
    },
}


class Binary:
    """y above its mean: the checks' own y are not 0 or 1."""

    def fit(self, X, y, **kwargs):
        return super().fit(X, self._cut(y), **kwargs)

    def score(self, X, y, **kwargs):
        return super().score(X, self._cut(y), **kwargs)

    @staticmethod
    def _cut(y):
        y = np.asarray(y)
        y = y.astype(float) if y.dtype == object else y
        numbers = y.dtype.kind in "fiu" and np.isfinite(y).all()
        return 1 * (y > y.mean()) if numbers else y if y.ndim else None


class BinaryGLM(Binary, fastglm.GLM):
    """A GLM of any y."""


class BinaryPopulationGLM(Binary, fastglm.PopulationGLM):
    """A population of any y."""


ESTIMATORS = [
    fastglm.GLM(),
    fastglm.PopulationGLM(),
    fastglm.GLM("Gaussian"),
    fastglm.PopulationGLM("Gaussian"),
    BinaryGLM("Bernoulli", regularizer="Ridge", regularizer_strength=1e-2),
    BinaryPopulationGLM("Bernoulli", "cloglog", regularizer="Ridge", regularizer_strength=1e-2),
]


def not_met(estimator):
    """The checks that an estimator need not meet."""
    exceptions = dict(NOT_MET[type(estimator).__name__.removeprefix("Binary")])
    if estimator.observation_model.name != "Poisson":
        exceptions.pop("check_regressor_multioutput", None)
    return exceptions


def _checks():
    if tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 6):
        return pytest.mark.skip(reason="expected_failed_checks came with scikit-learn 1.6")
    from sklearn.utils.estimator_checks import parametrize_with_checks

    return parametrize_with_checks(ESTIMATORS, expected_failed_checks=not_met)


@_checks()
@pytest.mark.filterwarnings("ignore")  # of fits to the checks' data, which separate
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


def test_exceptions_are_in_the_docs():
    from pathlib import Path

    text = (Path(__file__).parent.parent / "docs" / "conventions.md").read_text()
    for exceptions in NOT_MET.values():
        for name in exceptions:
            assert name in text


@pytest.mark.skipif(
    not hasattr(sklearn.utils, "get_tags"), reason="tags are objects since scikit-learn 1.6"
)
def test_tags_follow_the_family():
    for name, positive in (("Poisson", True), ("Bernoulli", True), ("Gaussian", False)):
        tags = sklearn.utils.get_tags(fastglm.GLM(name))
        assert tags.target_tags.positive_only is positive
        assert tags.regressor_tags.poor_score
        assert tags.target_tags.single_output
    assert sklearn.utils.get_tags(fastglm.PopulationGLM()).target_tags.multi_output
    assert sklearn.utils.get_tags(fastglm.GLM("unknown")).target_tags.positive_only


def test_clone_and_pickle():
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=0.1)
    assert clone(model).get_params() == model.get_params()
    model.fit(Z, Y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(Z), model.predict(Z))
    assert not hasattr(clone(model), "coef_")


def test_fits_in_processes_of_joblib():
    joblib = pytest.importorskip("joblib")
    model = fastglm.GLM(regularizer="Ridge", regularizer_strength=0.1)
    here = [clone(model).fit(Z, y).coef_ for y in Y.T]
    fitted = joblib.Parallel(n_jobs=2, backend="threading")(
        joblib.delayed(clone(model).fit)(Z, y) for y in Y.T
    )
    for coef, other in zip(here, fitted, strict=True):
        np.testing.assert_array_equal(coef, other.coef_)


def test_search_takes_the_strength_with_the_best_held_out_likelihood():
    grid = [1e-3, 0.1, 10.0]
    search = GridSearchCV(
        fastglm.PopulationGLM(regularizer="Ridge"), {"regularizer_strength": grid}, cv=4
    ).fit(Z, Y)
    scores = [
        cross_val_score(
            fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=s), Z, Y, cv=4
        ).mean()
        for s in grid
    ]
    assert search.best_params_["regularizer_strength"] == grid[int(np.argmax(scores))]
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], scores, rtol=1e-12)


def test_search_slices_weights_and_offsets():
    weight, offset = RNG.integers(0, 3, 120), RNG.normal(size=120)
    model = fastglm.GLM(regularizer="Ridge")
    search = GridSearchCV(model, {"regularizer_strength": [0.1]}, cv=3, refit=False)
    search.fit(Z, Y[:, 0], sample_weight=weight, offset=offset)
    train, test = np.arange(40, 120), np.arange(40)
    model = clone(model).set_params(regularizer_strength=0.1)
    model.fit(Z[train], Y[train, 0], sample_weight=weight[train], offset=offset[train])
    # Scorers are given weights since scikit-learn 1.7.
    scored = hasattr(search, "_check_scorers_accept_sample_weight")
    weights = {"sample_weight": weight[test]} if scored else {}
    assert search.cv_results_["split0_test_score"][0] == pytest.approx(
        model.score(Z[test], Y[test, 0], **weights), rel=1e-12
    )


def test_pipeline_equals_its_steps():
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=0.1)
    piped = make_pipeline(StandardScaler(), model).fit(Z, Y)
    scaled = (Z - Z.mean(axis=0)) / Z.std(axis=0)
    np.testing.assert_allclose(
        piped.predict(Z), clone(model).fit(scaled, Y).predict(scaled), rtol=1e-9
    )


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_names_of_features(library):
    frames = pytest.importorskip(library)
    frame = frames.DataFrame(dict(zip(NAMES, Z.T, strict=True)))
    model = fastglm.PopulationGLM().fit(frame, frames.DataFrame({"a": Y[:, 0], "b": Y[:, 1]}))
    assert list(model.feature_names_in_) == NAMES
    assert model.n_features_in_ == 3
    np.testing.assert_array_equal(model.coef_, fastglm.PopulationGLM().fit(Z, Y).coef_)
    with pytest.raises(ValueError, match="must be in the same order as they were in fit"):
        model.predict(frame[NAMES[::-1]])
    other = frames.DataFrame(dict(zip([*NAMES[:2], "dark"], Z.T, strict=True)))
    with pytest.raises(ValueError, match=r"unseen at fit time:\n- dark\n.*now missing:\n- light"):
        model.score(other, Y)
    with pytest.warns(UserWarning, match="X does not have valid feature names, but Population"):
        model.predict(Z)
    model.fit(Z, Y)
    assert not hasattr(model, "feature_names_in_")
    with pytest.warns(UserWarning, match="X has feature names, but PopulationGLM was fitted with"):
        model.predict(frame)


def test_names_of_mixed_type():
    pandas = pytest.importorskip("pandas")
    with pytest.raises(TypeError, match="only supported if all input features have string names"):
        fastglm.GLM().fit(pandas.DataFrame(Z, columns=["a", "b", 3]), Y[:, 0])
    # Numbers are no names.
    assert not hasattr(fastglm.GLM().fit(pandas.DataFrame(Z), Y[:, 0]), "feature_names_in_")


def test_sparse_features():
    import scipy.sparse

    with pytest.raises(ValueError, match="X is a SciPy sparse array; expected a dense one"):
        fastglm.GLM().fit(scipy.sparse.csr_array(Z), Y[:, 0])


def test_counts_are_needed():
    with pytest.raises(ValueError, match="GLM requires y to be passed, but the target y is None"):
        fastglm.GLM().fit(Z, None)


def test_set_output():
    pandas = pytest.importorskip("pandas")
    basis = fastglm.basis.BSplineEval(4, bounds=(0, 1), label="speed")
    basis = basis + fastglm.basis.HistoryConv(3, label="history").set_input_shape(2)
    step = basis.to_transformer()
    inputs = np.column_stack([RNG.random(120), Y])
    dense = np.asarray(step.transform(inputs))
    frame = clone(step.set_output(transform="pandas")).fit_transform(inputs)
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns[3:6]) == ["speed_3", "history_0_0", "history_0_1"]
    np.testing.assert_array_equal(frame.to_numpy(), dense)
    with sklearn.config_context(transform_output="pandas"):
        assert isinstance(basis.to_transformer().transform(inputs), pandas.DataFrame)
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=0.1)
    named = make_pipeline(step, clone(model)).fit(inputs, Y)
    assert named[-1].feature_names_in_[0] == "speed_0"
    unnamed = make_pipeline(basis.to_transformer(), model).fit(inputs, Y)
    np.testing.assert_allclose(named[-1].coef_, unnamed[-1].coef_, rtol=1e-6, atol=1e-9)
