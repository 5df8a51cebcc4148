"""Parameters of a model: given, read, set; labels of a basis; times through a pipeline."""

import copy
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import fastglm
from fastglm.basis import BSplineEval, MSplineEval, RaisedCosineLogConv

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 3))
Y = RNG.poisson(np.exp(0.3 * X[:, 0]))


# --- parameters ---


def test_parameters_are_read_as_objects_and_kept_as_given():
    model = fastglm.GLM()
    assert isinstance(model.observation_model, fastglm.observation_models.PoissonObservations)
    assert isinstance(model.regularizer, fastglm.regularizer.UnRegularized)
    assert model.regularizer_strength is None
    np.testing.assert_array_equal(model.inverse_link_function(np.zeros(2)), 1.0)
    assert set(model.get_params().values()) == {"Poisson", None}
    assert fastglm.GLM(regularizer="Ridge").regularizer_strength == 1.0
    assert fastglm.GLM(regularizer="ElasticNet").regularizer_strength == (1.0, 0.5)
    assert fastglm.GLM(inverse_link_function=np.exp).inverse_link_function is np.exp


def test_what_cannot_be_read_is_an_error_of_fit():
    model = fastglm.GLM(observation_model="Weibull", regularizer="Nothing")
    assert (model.observation_model, model.regularizer) == ("Weibull", "Nothing")
    with pytest.raises(ValueError, match="observation_model is 'Weibull'"):
        model.fit(X, Y)


def test_a_new_regularizer_has_its_own_strength():
    model = fastglm.GLM(regularizer="Ridge", regularizer_strength=2.0)
    model.set_params(regularizer="Lasso")
    assert model.regularizer_strength == 1.0
    fresh = fastglm.GLM(regularizer="Lasso").fit(X, Y).coef_
    np.testing.assert_array_equal(model.fit(X, Y).coef_, fresh)
    model.set_params(regularizer="Ridge", regularizer_strength=0.3)
    assert clone(model).regularizer_strength == 0.3
    pipeline = make_pipeline(model).set_params(glm__regularizer="Lasso")
    assert pipeline[-1].regularizer_strength == 1.0


# --- labels ---


@pytest.mark.parametrize(
    "change",
    [
        lambda basis: setattr(basis["a"], "label", "b"),
        lambda basis: setattr(basis, "label", "a"),
        lambda basis: basis.set_params(a__label="b"),
        lambda basis: basis.set_params(basis1=BSplineEval(4, label="b")),
        lambda basis: setattr(basis, "basis1", BSplineEval(4, label="b")),
        lambda basis: setattr(pickle.loads(pickle.dumps(basis))["a"], "label", "b"),
    ],
)
def test_a_label_that_another_part_has_is_refused(change):
    basis = BSplineEval(4, label="a") + BSplineEval(5, label="b")
    with pytest.raises(ValueError, match=r"label '[ab]'"):
        change(basis)
    assert [part.label for part in basis] == ["a", "b"]
    parts = basis.set_input_shape(1, 1).split_by_feature(np.zeros((2, 9)))
    assert {label: part.shape[1] for label, part in parts.items()} == {"a": 4, "b": 5}


@pytest.mark.parametrize("label", ["BSplineEval", "BSplineEval_2", "AdditiveBasis"])
def test_the_name_of_another_class_is_no_label(label):
    basis = MSplineEval(4, label="a")
    for change in (
        lambda: MSplineEval(4, label=label),
        lambda: setattr(basis, "label", label),
        lambda: setattr(basis * basis.__class__(4, label="b"), "label", label),
    ):
        with pytest.raises(ValueError, match=f"label '{label}' is the name of another class"):
            change()
    assert basis.label == "a"


def test_a_label_of_a_sum_that_is_its_default_is_none():
    total = BSplineEval(4, label="a") + BSplineEval(5, label="b")
    for default in ("(a + b)", "AdditiveBasis", None):
        total.label = "both"
        assert total.get_params(deep=False)["label"] == "both"
        total.label = default
        assert total.label == "(a + b)"
        assert total.get_params(deep=False)["label"] is None


def test_a_copy_of_a_part_stands_on_its_own():
    basis = BSplineEval(4, label="a") + BSplineEval(5, label="b")
    part = copy.deepcopy(basis["a"])
    part.label = "b"
    assert basis["a"].label == "a"


# --- times through a pipeline ---


@pytest.fixture
def session():
    nap = pytest.importorskip("pynapple")
    support = nap.IntervalSet([0.0, 10.0], [4.0, 16.0])
    t = np.concatenate([np.arange(0.05, 4, 0.1), np.arange(10.05, 16, 0.1)])
    counts = RNG.poisson(0.5, size=(t.size, 2))
    return nap.TsdFrame(t=t, d=counts, time_support=support, columns=["a", "b"])


def test_a_transformer_keeps_times_and_epochs(session):
    basis = RaisedCosineLogConv(3, 10)
    features = basis.to_transformer().set_input_shape(2).fit_transform(session)
    np.testing.assert_array_equal(features, basis.compute_features(session))
    np.testing.assert_array_equal(features[:].t, session.t)
    again = basis.to_transformer().set_input_shape(2).transform(session, None)
    np.testing.assert_array_equal(again, features)
    pipeline = make_pipeline(
        basis.to_transformer().set_input_shape(2), fastglm.GLM(regularizer="Ridge")
    )
    rate = pipeline.fit(session, session[:, 0]).predict(session)
    np.testing.assert_array_equal(rate.t, session.t)
    np.testing.assert_array_equal(rate.time_support.values, session.time_support.values)


def test_no_history_crosses_the_bins_that_a_fold_leaves_out(session):
    some = np.r_[0:15, 25 : len(session)]
    basis = RaisedCosineLogConv(3, 10)
    features = basis.to_transformer().set_input_shape(2).transform(session[some])
    known = np.isfinite(features[:].values[:, 0])
    expected = np.r_[10:15, 25:30, 40 : len(some)]  # no window at 15, where bins are missing
    np.testing.assert_array_equal(np.flatnonzero(known), expected)
    whole = np.asarray(basis.compute_features(session))
    np.testing.assert_allclose(features[:].values[known], whole[some][known], rtol=1e-13)


def test_a_search_over_samples_with_times(session):
    pipeline = make_pipeline(
        RaisedCosineLogConv(3, 5).to_transformer().set_input_shape(2),
        fastglm.GLM(regularizer="Ridge"),
    )
    search = GridSearchCV(pipeline, {"glm__regularizer_strength": [0.1, 1.0]}, cv=3)
    search.fit(session, session[:, 0])
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
