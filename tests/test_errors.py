"""What the models refuse, what they warn of, and their manners as scikit-learn estimators."""

import inspect

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError

import fastglm
from fastglm import GLM, PopulationGLM

N_BINS, N_FEATURES, N_RECEIVERS = 40, 3, 2
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N_BINS, N_FEATURES))
Y = RNG.poisson(1.0, (N_BINS, N_RECEIVERS)).astype(float)


def fit(X=X, y=Y, init_params=None, **params):
    return PopulationGLM(**params).fit(X, y, init_params)


def fit_one(X=X, y=Y[:, 0], init_params=None, **params):
    return GLM(**params).fit(X, y, init_params)


def refused(message):
    return pytest.raises(ValueError, match=message)


# --- counts ---


def put(value):
    y = Y.copy()
    y[7, 1] = value
    return y


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (put(-1), "y holds negative counts; expected the number of events in each bin"),
        (put(np.inf), r"y holds infinite counts; expected finite numbers or NaN \(bin left out\)"),
        (put(-np.inf), "y holds infinite counts"),
        (-Y.astype(int), "y holds negative counts"),
        (Y[:, 0], r"y has shape \(40,\); expected \(n_bins, n_receivers\).*or y\[:, None\]"),
        (Y[:, :, None], r"y has shape \(40, 2, 1\); expected \(n_bins, n_receivers\)"),
        (Y[:, :0], r"y has shape \(40, 0\); expected \(n_bins, n_receivers\)"),
        (3.0, r"y has shape \(\); expected \(n_bins, n_receivers\)"),
        (Y[:20], "X has 40 rows and y 20; expected one row of each per bin"),
        ([Y[:20], Y[20:30]], "X has 40 rows and y 30"),
    ],
)
def test_bad_counts_are_refused(y, message):
    with refused(message):
        fit(y=y)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (Y, r"y has shape \(40, 2\); expected \(n_bins,\)\. For many receivers use PopulationGLM"),
        (Y[:, :1], r"y has shape \(40, 1\); expected \(n_bins,\)"),
        (-Y[:, 0], "y holds negative counts"),
        (Y[:20, 0], "X has 40 rows and y 20"),
    ],
)
def test_bad_counts_of_one_receiver_are_refused(y, message):
    with refused(message):
        fit_one(y=y)


FAMILIES = {
    "Bernoulli": (
        [
            (2, r"y holds 2 in bin 7 of receiver 1; Bernoulli .* Pass counts.clip\(max=1\)\?"),
            (0.5, r"y holds 0.5 in bin 7 of receiver 1; Bernoulli observations are 0 or 1\.$"),
            (-1, "y holds -1 in bin 7 of receiver 1; Bernoulli observations are 0 or 1"),
            (np.inf, "y holds inf in bin 7 of receiver 1; Bernoulli"),
        ]
    ),
    "Gaussian": [(np.inf, "y holds inf in bin 7 of receiver 1; Gaussian .* finite numbers")],
    "Poisson": [(-1, "For Poisson observations the first is -1 in bin 7 of receiver 1")],
}


@pytest.mark.parametrize(
    ("family", "value", "message"), [(f, *case) for f, cases in FAMILIES.items() for case in cases]
)
def test_counts_that_a_family_cannot_have_are_refused(family, value, message):
    fitted = fit(observation_model=family, y=Y.clip(max=1))
    y = Y.clip(max=1).astype(float)
    y[7, 1] = value
    for use in (
        lambda: fit(observation_model=family, y=y),
        lambda: fitted.score(X, y),
        lambda: fitted.residuals(X, y),
        lambda: fitted.plan(X, y),
        lambda: fitted.standard_errors(X, y),
    ):
        with refused(message):
            use()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"observation_model": "Tweedie"},
            "observation_model is 'Tweedie'; expected one of 'Poisson'",
        ),
        (
            {"observation_model": "Bernoulli", "inverse_link_function": "exp"},
            "inverse_link_function is 'exp'; Bernoulli observations take 'logistic', 'cloglog'",
        ),
        (
            {"observation_model": "Gaussian", "inverse_link_function": "exp"},
            "Gaussian observations take 'identity'",
        ),
    ],
)
def test_families_and_links_that_do_not_exist_are_refused(params, message):
    with refused(message):
        fit(**params)


def test_bad_counts_are_found_beyond_the_first_chunk():
    n_bins = 2 * 8192 + 5
    y = np.zeros((n_bins, 1))
    y[-1] = -1
    with refused("y holds negative counts"):
        fit(X=np.zeros((n_bins, 1)), y=y)


def test_a_refused_fit_leaves_the_model_unfitted():
    model = PopulationGLM()
    with refused("negative"):
        model.fit(X, -Y)
    with pytest.raises(NotFittedError):
        model.predict(X)


# --- what is no number, or no name ---

TEXT, OBJECTS = np.full(X.shape, "a"), np.array([[None, {}, 1.0]] * len(X))


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: fit(y=np.full(Y.shape, "a")), "y could not be read as numbers.* text is 'a'"),
        (lambda: fit(X=TEXT), r"X could not be read as numbers; expected real.* 'a' at \[0, 0\]"),
        (lambda: fit(X=OBJECTS), "X could not be read as numbers; expected real numbers"),
        (lambda: fit().predict(TEXT), "X could not be read as numbers"),
        (lambda: fit().score(TEXT, Y), "X could not be read as numbers"),
        (lambda: fit().simulate(0, TEXT), "X could not be read as numbers"),
        (lambda: fastglm.features.hold(["a"], 10, every=10), "values could not be read as num"),
        (lambda: fastglm.basis.HistoryConv(3).compute_features(TEXT), "Counts could not be read"),
        (lambda: fastglm.basis.HistoryConv(3).compute_features(OBJECTS), "Counts could not be"),
        (lambda: GLM().fit(X, Y[:, 0], sample_weight=["a"] * len(X)), "sample_weight could not"),
        (lambda: fit(regularizer=3), "regularizer is 3; expected None, one of"),
        (lambda: fit(solver_name=1), r"solver_name is 1; expected one of \['auto'"),
        (
            lambda: fit(regularizer="Ridge", regularizer_strength="strong"),
            "regularizer_strength is 'strong'; expected numbers",
        ),
        (
            lambda: fit(regularizer="ElasticNet", regularizer_strength=(0.1, 0.5, 0.2)),
            "has 3 parts; expected a pair",
        ),
        (lambda: fit(init_params=("a", "b")), "init_params could not be read as numbers"),
    ],
)
def test_another_type_is_a_type_error(use, message):
    with pytest.raises(TypeError, match=message):
        use()


# --- features ---


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (X[:, 0], r"X has 1 dimensions; expected \(n_bins, n_features\)\. Reshape your data\?"),
        (X[:, :, None], "X has 3 dimensions"),
        (X * np.nan, r"None of the 40 rows of X is finite\. A row needs a whole window of history"),
        (X[:39], "X has 39 rows and y 40"),
    ],
)
def test_bad_features_are_refused(features, message):
    with refused(message):
        fit(X=features)


def test_a_window_longer_than_the_recording_is_refused():
    basis = fastglm.basis.HistoryConv(50)
    with pytest.warns(UserWarning, match="shorter than the window of 50 bins"):
        history = basis.compute_features(Y)
    with refused("None of the 40 rows of X is finite.*longer epochs or a shorter window"):
        fit(X=history)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (
            X[:, :2],
            "X has 2 features, but PopulationGLM is expecting 3 features as input; compute them",
        ),
        (X[:, 0], "X has 1 dimensions"),
    ],
)
@pytest.mark.parametrize("method", ["predict", "score", "simulate"])
def test_features_that_do_not_fit_the_model_are_refused(features, message, method):
    model = fit()
    arguments = {"predict": (features,), "score": (features, Y), "simulate": (0, features)}
    with refused(message):
        getattr(model, method)(*arguments[method])


def test_features_of_other_senders_are_refused():
    basis = fastglm.basis.HistoryConv(2)
    model = fit(X=basis.compute_features(Y))
    with refused("X has 6 features, but PopulationGLM is expecting 4 features"):
        model.predict(basis.compute_features(np.hstack([Y, Y[:, :1]])))


# --- masks ---


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (
            np.ones((2, 3)),
            r"feature_mask has shape \(2, 3\); expected \(n_features, n_receivers\) = \(3, 2\)\. "
            r"Pass feature_mask\.T\?",
        ),
        (np.ones((3, 3)), r"shape \(3, 3\).*From a sender-by-receiver map: np\.repeat\(map, n_bas"),
        (np.ones(3), r"feature_mask has shape \(3,\)"),
        (np.full((3, 2), 0.5), "feature_mask holds other values than 0 and 1; pass weights > 0"),
        (np.full((3, 2), np.nan), "feature_mask holds other values than 0 and 1"),
        (np.full((3, 2), "a"), "feature_mask holds other values than 0 and 1"),
        ({"coupling": [1, 1]}, r"feature_mask has labels \['coupling'\]; the features have \['col"),
        (
            {"columns": [1, 1, 1]},
            r"feature_mask\['columns'\] has shape \(3,\); expected a numb",
        ),
        ({"columns": [0.5, 1]}, "feature_mask holds other values than 0 and 1"),
    ],
)
def test_bad_masks_are_refused(mask, message):
    with refused(message):
        fit(feature_mask=mask)


def test_the_hint_about_a_transposed_mask_is_only_for_transposed_masks():
    with pytest.raises(ValueError, match="feature_mask has shape") as error:
        fit(feature_mask=np.ones((4, 2)))
    assert "Pass feature_mask.T?" not in str(error.value)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([1, 0], r"feature_mask has shape \(2, 1\); expected .* = \(3, 1\)"),
        ([[1, 0, 1]], r"Pass feature_mask\.T\?"),
        ({"columns": [1, 0]}, r"feature_mask\['columns'\] has shape \(2, 1\).*\(3, 1\)"),
        ({"other": [1]}, r"feature_mask has labels \['other'\]"),
    ],
)
def test_bad_masks_of_one_receiver_are_refused(mask, message):
    with refused(message):
        fit_one(feature_mask=mask)


# --- parameters ---


@pytest.mark.parametrize("fit", [fit, fit_one])
@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"observation_model": "Tweedie"},
            "observation_model is 'Tweedie'; expected one of",
        ),
        ({"observation_model": 3}, "observation_model is 3; expected one of 'Poisson'"),
        (
            {"inverse_link_function": "log"},
            "inverse_link_function is 'log'; Poisson observ",
        ),
        ({"inverse_link_function": np.log}, "inverse_link_function is <ufunc 'log'>"),
        ({"inverse_link_function": 5}, "inverse_link_function is 5"),
        ({"regularizer": "Laso"}, r"regularizer is 'Laso'; expected None, one of \['UnRegul"),
        ({"solver_name": "newton"}, r"solver_name is 'newton'; expected one of \['auto', 'newton"),
        ({"solver_name": "lbfgs"}, "solver_name is 'lbfgs'"),
        ({"solver_kwargs": {"tols": 1}}, r"solver_kwargs holds \['tols'\]; expected 'tol'"),
        ({"solver_kwargs": {"tol": 0}}, "solver_kwargs has tol=0 and maxiter=100; expected tol > "),
        ({"solver_kwargs": {"tol": -1e-3}}, "expected tol > 0 and maxiter >= 1"),
        ({"solver_kwargs": {"tol": np.nan}}, "solver_kwargs has tol=nan"),
        ({"solver_kwargs": {"maxiter": 0}}, "tol=1e-16 and maxiter=0"),
    ],
)
def test_bad_parameters_are_refused(fit, params, message):
    with refused(message):
        fit(**params)


@pytest.mark.parametrize(
    ("strength", "message"),
    [
        (-1.0, "regularizer_strength must be finite and not negative; 0 is no penalty"),
        ([0.1, -0.1], "must be finite and not negative"),
        (np.inf, "must be finite and not negative"),
        ([np.nan, 1.0], "must be finite and not negative"),
        (
            [1.0, 2.0, 3.0],
            r"regularizer_strength has shape \(3,\); expected a number, .*= \(2,\)",
        ),
        ([[[1.0, 2.0]]], r"regularizer_strength has shape \(1, 1, 2\)"),
    ],
)
def test_bad_strengths_are_refused(strength, message):
    with refused(message):
        fit(regularizer="Ridge", regularizer_strength=strength)


def test_a_strength_for_each_receiver_does_not_fit_one_receiver():
    with refused(r"regularizer_strength has shape \(2,\).*\(n_receivers,\) = \(1,\)"):
        fit_one(regularizer="Ridge", regularizer_strength=[1.0, 2.0])


COEF, INTERCEPT = np.zeros((N_FEATURES, N_RECEIVERS)), np.zeros(N_RECEIVERS)


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ((COEF.T, INTERCEPT), r"init_params has shapes \(2, 3\) and \(2,\); expected"),
        ((COEF, np.zeros(3)), r"init_params has shapes \(3, 2\) and \(3,\)"),
        ((0.0, INTERCEPT), r"init_params has shapes \(\)"),
        ((COEF[:2], INTERCEPT), r"init_params has shapes \(2, 2\)"),
        ((COEF * np.nan, INTERCEPT), "init_params holds NaN or infinity; expected finite numbers"),
        ((COEF, INTERCEPT + np.inf), "init_params holds NaN or infinity"),
    ],
)
def test_bad_starting_points_are_refused(init, message):
    with refused(message):
        fit(init_params=init)


def test_a_bad_starting_point_of_one_receiver_is_refused():
    with refused(r"init_params has shapes \(2, 1\) and \(1,\); expected .*\(3, 1\) and \(1,\)"):
        fit_one(init_params=(np.zeros(2), np.zeros(1)))


# --- what is accepted although it looks odd ---


@pytest.mark.parametrize(
    "name",
    [
        "GradientDescent",
        "ProximalGradient",
        "LBFGS",
        "BFGS",
        "NonlinearCG",
        "SVRG",
        "ProxSVRG",
        "LBFGS[jaxopt]",
    ],
)
def test_solver_names_of_nemos_mean_auto(name):
    np.testing.assert_array_equal(fit(solver_name=name).coef_, fit().coef_)


@pytest.mark.parametrize("name", [None, "auto", "newton-cholesky", "newton-cg"])
def test_own_solver_names_agree(name):
    model = fit(solver_name=name)
    assert model.converged_.all()
    np.testing.assert_allclose(model.coef_, fit().coef_, rtol=0, atol=1e-5)


@pytest.mark.parametrize("model", ["Poisson", None])
def test_poisson_is_the_observation_model(model):
    np.testing.assert_array_equal(fit(observation_model=model).coef_, fit().coef_)


@pytest.mark.parametrize("y", [Y.astype(object), Y.astype(np.uint8), Y.tolist()])
def test_counts_of_any_numeric_kind_give_the_same_fit(y):
    np.testing.assert_array_equal(fit(y=y).coef_, fit().coef_)


def test_a_link_given_as_function_or_name_is_the_same():
    expected = fit(inverse_link_function="exp").coef_
    np.testing.assert_array_equal(fit(inverse_link_function=np.exp).coef_, expected)

    expected = fit(inverse_link_function="softplus").coef_
    for same in (lambda x: np.log1p(np.exp(x)), "jax.nn.softplus"):
        np.testing.assert_array_equal(fit(inverse_link_function=same).coef_, expected)


def test_a_function_is_no_link_for_its_name():
    def exp(x):
        return 2.0**x

    for other in (exp, lambda x: x**2, lambda x: 1 / 0):
        with refused("inverse_link_function is .*; Poisson .* a function with the same values"):
            fit(inverse_link_function=other)


# --- scores ---


@pytest.mark.parametrize("score_type", ["r2", "pseudo-r2", "log_likelihood", None])
def test_unknown_scores_are_refused(score_type):
    with refused(
        r"score_type is .*; expected one of \['log-likelihood', 'pseudo-r2-McFadden', 'ps"
    ):
        fit().score(X, Y, score_type=score_type)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (Y[:, :1], r"y has shape \(40, 1\); expected \(n_bins, n_receivers\) = \(40, 2\)"),
        (Y[:10], r"y has shape \(10, 2\); expected .* = \(40, 2\)"),
        (Y[:, 0], r"y has shape \(40,\); expected \(n_bins, n_receivers\)"),
        (-Y, "y holds negative counts"),
        (put(np.inf), "y holds infinite counts"),
        (Y * np.nan, "No bin has finite X and y, so there is nothing to score"),
    ],
)
def test_counts_that_cannot_be_scored_are_refused(y, message):
    with refused(message):
        fit().score(X, y)


def test_features_without_a_finite_row_cannot_be_scored():
    with refused("No bin has finite X and y"):
        fit().score(X * np.nan, Y)


@pytest.mark.parametrize("y", [Y, Y[:, :1]])
def test_counts_of_many_receivers_cannot_be_scored_by_one(y):
    with refused(r"expected \(n_bins,\)\. For many receivers use PopulationGLM"):
        fit_one().score(X, y)


# --- not fitted ---


@pytest.mark.parametrize("cls", [GLM, PopulationGLM])
@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("predict", (X,)),
        ("score", (X, Y)),
        ("simulate", (0, X)),
    ],
)
def test_a_model_that_is_not_fitted_says_so(cls, method, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = rf"This {cls.__name__} is not fitted yet; call fit\(X, y\) first"
    with pytest.raises(NotFittedError, match=message):
        getattr(cls(), method)(*arguments)
    assert list(tmp_path.iterdir()) == []


# --- warnings ---


def test_a_strength_without_regularizer_warns():
    with pytest.warns(UserWarning, match="regularizer_strength is not used without a regularizer"):
        model = fit(regularizer_strength=1.0)
    np.testing.assert_array_equal(model.coef_, fit().coef_)


def test_a_silent_receiver_warns():
    with pytest.warns(
        ConvergenceWarning, match=r"silent \(receiver 1\): no events, so the optimum"
    ):
        model = fit(y=Y * [1, 0])
    assert model.status_.tolist() == ["converged", "silent"]
    np.testing.assert_array_equal(model.coef_[:, 1], 0)


def test_a_receiver_without_counts_warns():
    with pytest.warns(ConvergenceWarning, match=r"no_bins \(receiver 0\): no bin has both a compl"):
        model = fit(y=Y * [np.nan, 1])
    assert model.status_.tolist() == ["no_bins", "converged"]
    assert np.isnan(model.coef_[:, 0]).all()
    assert model.converged_.tolist() == [False, True]


def test_a_separated_receiver_warns():
    early = np.arange(N_BINS) < 20
    with pytest.warns(
        ConvergenceWarning, match=r"separated \(receiver 0\): some features are only"
    ):
        model = fit(X=early[:, None] * 1.0, y=(~early)[:, None] * 1.0)
    assert model.status_.tolist() == ["separated"]
    assert np.isfinite(model.coef_).all()


def test_too_few_steps_warn():
    with pytest.warns(ConvergenceWarning, match=r"max_iter \(receiver 0, 1\): the iteration limit"):
        model = fit(solver_kwargs={"maxiter": 1})
    assert not model.converged_.any()


def test_one_warning_names_every_kind_of_trouble():
    y = np.column_stack([Y[:, 0], Y[:, 0] * 0, Y[:, 0] * np.nan, Y[:, 1] * 0])
    with pytest.warns(ConvergenceWarning) as caught:
        fit(y=y)
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "silent (receiver 1, 3): " in message
    assert "no_bins (receiver 2): " in message
    assert "; " in message
    assert message.endswith(".")
    assert "converged (" not in message


def test_a_long_list_of_receivers_is_cut():
    message = r"silent \(receiver 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more\)"
    with pytest.warns(ConvergenceWarning, match=message):
        fit(y=np.zeros((N_BINS, 12)))


@pytest.mark.parametrize("fit", [fit, fit_one])
def test_warnings_point_to_the_line_that_called_fit(fit):
    with pytest.warns(ConvergenceWarning, match="max_iter") as caught:
        fit(solver_kwargs={"maxiter": 1})
    assert caught[0].filename == __file__


# --- estimators of scikit-learn ---

PARAMS = {
    "observation_model": "Poisson",
    "inverse_link_function": "softplus",
    "regularizer": "Ridge",
    "regularizer_strength": 0.5,
    "solver_name": "newton-cg",
    "solver_kwargs": {"tol": 1e-8},
    "feature_mask": {"columns": [True]},
    "memory_budget": "2GB",
}


@pytest.mark.parametrize("cls", [GLM, PopulationGLM])
def test_parameters_are_those_of_the_constructor(cls):
    names = set(inspect.signature(cls).parameters)
    assert set(cls().get_params()) == names == set(PARAMS)
    assert cls(**PARAMS).get_params() == PARAMS


@pytest.mark.parametrize("cls", [GLM, PopulationGLM])
def test_every_parameter_can_be_set(cls):
    model = cls()
    assert model.set_params(**PARAMS) is model
    assert model.get_params() == PARAMS


@pytest.mark.parametrize("cls", [GLM, PopulationGLM])
def test_an_unknown_parameter_cannot_be_set(cls):
    with refused("Invalid parameter 'alpha' for estimator"):
        cls().set_params(alpha=1)
    with pytest.raises(TypeError, match="alpha"):
        cls(alpha=1)


@pytest.mark.parametrize("cls", [GLM, PopulationGLM])
def test_a_clone_has_the_parameters_and_no_fit(cls):
    model = cls(regularizer="Ridge", regularizer_strength=0.5)
    model.fit(X, Y if cls is PopulationGLM else Y[:, 0])
    copy = clone(model)
    assert type(copy) is cls
    assert copy.get_params() == model.get_params()
    assert not hasattr(copy, "coef_")
    copy.fit(X, Y if cls is PopulationGLM else Y[:, 0])
    np.testing.assert_array_equal(copy.coef_, model.coef_)


@pytest.mark.parametrize(
    ("cls", "mask", "strength"),
    [(PopulationGLM, np.eye(3, 2), np.array([0.1, 0.2])), (GLM, np.array([1, 0, 1]), 0.1)],
)
def test_array_parameters_are_cloned(cls, mask, strength):
    model = cls(regularizer="Ridge", regularizer_strength=strength, feature_mask=mask)
    copy = clone(model)
    assert copy.feature_mask is not mask
    np.testing.assert_array_equal(copy.feature_mask, mask)
    np.testing.assert_array_equal(copy.regularizer_strength, strength)
    y = Y if cls is PopulationGLM else Y[:, 0]
    np.testing.assert_array_equal(copy.fit(X, y).coef_, model.fit(X, y).coef_)


@pytest.mark.parametrize("cls", [GLM, PopulationGLM])
def test_fit_leaves_parameters_and_data_alone(cls):
    mask = np.ones((3, 2)) if cls is PopulationGLM else np.ones(3)
    kwargs = {"maxiter": 30}
    model = cls(feature_mask=mask, solver_kwargs=kwargs)
    y = (Y if cls is PopulationGLM else Y[:, 0]).copy()
    features = X.copy()
    assert model.fit(features, y) is model
    assert model.feature_mask is mask
    assert model.solver_kwargs is kwargs
    assert kwargs == {"maxiter": 30}
    np.testing.assert_array_equal(features, X)
    np.testing.assert_array_equal(y.reshape(N_BINS, -1), Y[:, : y.reshape(N_BINS, -1).shape[1]])


@pytest.mark.parametrize("cls", [GLM, PopulationGLM])
def test_a_parameter_is_checked_in_fit_not_in_the_constructor(cls):
    model = cls(regularizer="Lasso", solver_name="magic")
    with refused("solver_name is 'magic'"):
        model.fit(X, Y if cls is PopulationGLM else Y[:, 0])


@pytest.mark.parametrize(
    ("kwargs", "message"), [("fast", "solver_kwargs"), ({"tol": "a"}, "solver_kwargs")]
)
def test_solver_kwargs_of_wrong_type(kwargs, message):
    with refused(message):
        fit(solver_kwargs=kwargs)


@pytest.mark.parametrize("init", [np.zeros(3), (np.zeros((3, 2)),), 5])
def test_init_params_of_wrong_kind(init):
    with pytest.raises(TypeError, match=r"init_params is not a pair; expected \(coef, intercept\)"):
        fit(init_params=init)


def test_labels_of_mixed_type():
    with refused("feature_mask has labels"):
        fit(feature_mask={1: [1, 1], "a": [1, 1]})


@pytest.mark.parametrize("y", [[[1, 2], [3]], [Y[:20], Y[20:, :1]]])
def test_ragged_counts(y):
    with refused("y "):
        fit(y=y)


def test_complex_counts():
    with refused("y could not be read as numbers"):
        fit(y=Y + 0j)


def test_no_features():
    with refused("X has shape .*, 0.; expected at least one feature"):
        fit(X=X[:, :0])


def test_huge_features_never_raise_from_inside():
    with pytest.warns(match="stalled|scale"):
        fit(X=X * 1e200)


def test_progress_counts_receivers_without_bins():
    calls = []
    with pytest.warns(match="no_bins"):
        fastglm.PopulationGLM().fit(X, Y * [1, np.nan], progress=calls.append)
    assert sum(calls) == 2


def test_cohen_of_constant_counts():
    model = fit(y=np.ones(Y.shape))
    assert not np.isfinite(model.score(X, np.ones(Y.shape), "pseudo-r2-Cohen"))


def test_maxiter_as_numpy_integer_can_be_saved(tmp_path):
    fit(solver_kwargs={"maxiter": np.int64(30)}).save_params(tmp_path / "m.npz")
    fastglm.load_model(tmp_path / "m.npz")
