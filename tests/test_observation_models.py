"""Observation models: losses, families and their kernels, against formulas and peers."""

import itertools
import math
import os
import pickle
import warnings

import numpy as np
import pytest
import scipy.stats
from sklearn.base import clone
from sklearn.metrics import make_scorer
from sklearn.model_selection import cross_val_score

import fastglm
from fastglm import _kernels
from fastglm._engine.observed import Observed
from fastglm._kernels import LANES, PAD, SEGMENT, threads
from fastglm._products import sweep
from fastglm._products.local import Local
from fastglm.features import Events
from fastglm.observation_models import (
    BernoulliObservations,
    GammaObservations,
    GaussianObservations,
    NegativeBinomialObservations,
    ObservationModel,
    PoissonObservations,
    as_observation_model,
)

PURE = os.environ.get("NUMBA_DISABLE_JIT", "0") == "1"
compiled_only = pytest.mark.skipif(PURE, reason="of compiled code")
BATCHES = [(np.float64, LANES), (np.float32, LANES), (np.float64, 1), (np.float32, 1)]
MODELS = [
    PoissonObservations(),
    BernoulliObservations(),
    GaussianObservations(),
    GammaObservations(),
    NegativeBinomialObservations(),
]
LOSSES = [model.loss(link) for model in MODELS for link in model.losses]
BINARY = [loss for loss in LOSSES if loss.family == "Bernoulli"]


def name_of(value):
    return repr(value).removesuffix("()")


every_model = pytest.mark.parametrize("model", MODELS, ids=name_of)
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=name_of)


def refused(message):
    return pytest.raises(ValueError, match=message)


def counts_of(model, shape, seed=0):
    rng = np.random.default_rng(seed)
    mu = {"Bernoulli": 0.3, "Gaussian": -0.4}.get(model.name, 1.3)
    return model.sample(rng, np.full(shape, mu)).astype(float)


def etas_of(loss, low, high, n):
    """Some eta that the loss takes: of one_over_x those above 0."""
    return np.linspace(0.05 if loss.least == 0 else low, high, n)


# --- objects ------------------------------------------------------------------------------------


@every_model
def test_a_model_is_a_value(model):
    assert model == clone(model) == pickle.loads(pickle.dumps(model))
    assert hash(model) == hash(clone(model))
    assert repr(model) == f"{model.name}Observations()"
    assert model.get_params() == ({"scale": 1.0} if model.name == "NegativeBinomial" else {})
    assert sum(model == other for other in MODELS) == 1
    assert model != model.name


@every_loss
def test_a_loss_is_a_value_and_knows_its_family(loss):
    assert pickle.loads(pickle.dumps(loss)) == loss
    assert hash(pickle.loads(pickle.dumps(loss))) == hash(loss)
    assert loss.observation_model.name == loss.family
    assert loss.observation_model.loss(loss.link) == loss == type(loss)()
    assert sum(loss == other for other in LOSSES) == 1


def test_the_first_link_is_the_default():
    assert {model.name: list(model.losses) for model in MODELS} == {
        "Poisson": ["exp", "softplus"],
        "Bernoulli": ["logistic", "cloglog"],
        "Gaussian": ["identity"],
        "Gamma": ["one_over_x", "exp", "softplus"],
        "NegativeBinomial": ["exp", "softplus"],
    }
    assert all(model.loss().link == next(iter(model.losses)) for model in MODELS)


def test_another_link_is_refused():
    with refused(r"inverse_link_function is 'exp'; Bernoulli observations take 'logistic'"):
        BernoulliObservations().loss("exp")


@pytest.mark.parametrize("name", [model.name for model in MODELS])
@pytest.mark.parametrize("form", ["{}", "{}Observations", "{}Observations()"])
def test_models_are_found_by_name(name, form):
    assert as_observation_model(form.format(name)).name == name


def test_models_are_found_by_what_they_are():
    assert as_observation_model(None) == PoissonObservations()
    model = GaussianObservations()
    assert as_observation_model(model) is model
    theirs = type("BernoulliObservations", (), {})()
    assert as_observation_model(theirs) == BernoulliObservations()


@pytest.mark.parametrize("given", ["Tweedie", "CategoricalObservations()", "poisson", "", 3, [1]])
def test_other_models_are_refused(given):
    with refused("expected one of 'Poisson', .* 'NegativeBinomial', or an object such as"):
        as_observation_model(given)


def test_objects_of_nemos_are_recognised():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nemos = pytest.importorskip("nemos")
    for model in MODELS:
        theirs = getattr(nemos.observation_models, type(model).__name__)()
        assert as_observation_model(theirs) == model
    theirs = nemos.observation_models.NegativeBinomialObservations(scale=0.3)
    assert as_observation_model(theirs) == NegativeBinomialObservations(0.3)
    with refused("observation_model is .*Categorical"):
        as_observation_model(nemos.observation_models.CategoricalObservations())


def test_flags():
    def names(flag, things):
        return [name_of(thing).removesuffix("Observations") for thing in things if flag(thing)]

    assert names(lambda m: m.estimates_scale, MODELS) == ["Gaussian", "Gamma"]
    assert names(lambda m: m.has_scale, MODELS) == ["Gaussian", "Gamma", "NegativeBinomial"]
    assert names(lambda m: m.event_based, MODELS) == ["Poisson", "Bernoulli", "NegativeBinomial"]
    assert names(lambda m: m.whole, MODELS) == ["Bernoulli", "NegativeBinomial"]
    assert names(lambda m: m.positive, MODELS) == ["Gamma"]
    linear = ["PoissonExp", "BernoulliLogistic", "GaussianIdentity"]
    assert names(lambda loss: loss.linear_counts, LOSSES) == linear
    assert names(lambda loss: loss.exponential, LOSSES) == linear[:1]
    assert names(lambda loss: loss.constant_curvature, LOSSES) == linear[2:]
    assert names(lambda loss: loss.count_factor == 2, LOSSES) == linear[2:]
    crooked = ["GammaSoftplus", "NegativeBinomialSoftplus"]
    assert names(lambda loss: not loss.convex, LOSSES) == crooked
    assert names(lambda loss: loss.least is not None, LOSSES) == ["GammaOneOverX"]


# --- derivatives --------------------------------------------------------------------------------


@every_loss
def test_residual_and_curvature_are_derivatives_of_the_loss(loss):
    eta = etas_of(loss, -6, 2.5, 35)[None, :].repeat(6, axis=0)
    y = counts_of(loss.observation_model, (6, 1))
    step = 1e-5
    (up, r_up, _), (down, r_down, _) = (loss.derivatives(eta + d, y) for d in (step, -step))
    _, residual, curvature = loss.derivatives(eta, y)
    assert residual.shape == curvature.shape == (6, 35)
    np.testing.assert_allclose((up - down) / (2 * step), residual, rtol=1e-7, atol=1e-8)
    observed = (r_up - r_down) / (2 * step)
    np.testing.assert_allclose(observed, curvature, rtol=1e-6, atol=1e-8)
    assert (curvature >= 0).all() or not loss.convex
    if loss.high is None:
        part = loss.count_factor * loss.count_part(eta, y) * np.ones_like(eta)
        assert (np.abs(loss.derivatives(eta, 2 * y)[1] - residual) <= part + 1e-12).all()


@every_loss
def test_the_least_loss_is_that_of_a_mean_of_y(loss):
    y = counts_of(loss.observation_model, (30,))
    least = loss.least_loss(y)
    for eta in etas_of(loss, -6, 4, 200):
        assert (loss.derivatives(np.full(30, eta), y)[0] >= least - 1e-12).all()
    middle = (
        y if loss.family == "Gaussian" else y.clip(1e-9, np.inf if loss.high is None else 1 - 1e-9)
    )
    near = loss.derivatives(loss.eta(middle), y)[0]
    np.testing.assert_allclose(near, least, atol=1e-7)


@every_loss
def test_mean_its_inverse_and_its_slope(loss):
    eta = etas_of(loss, -6, 1.5, 20)
    np.testing.assert_allclose(loss.eta(loss.mean(eta)), eta, rtol=1e-12, atol=1e-12)
    slope = (loss.mean(eta + 1e-6) - loss.mean(eta - 1e-6)) / 2e-6
    np.testing.assert_allclose(loss.slope(eta), slope, rtol=1e-7, atol=1e-9)


def test_one_over_x_has_no_mean_at_and_below_zero():
    loss, eta = GammaObservations().loss(), np.array([-1.0, 0.0, np.nan, 2.0])
    np.testing.assert_array_equal(loss.mean(eta), [np.inf, np.inf, np.nan, 0.5])
    np.testing.assert_array_equal(
        loss.derivatives(eta, np.ones(4))[0][:3], [np.inf, np.inf, np.nan]
    )


@every_loss
def test_the_loss_is_the_negative_log_likelihood_times_the_precision(loss):
    model, eta = loss.observation_model, etas_of(loss, -4, 1.5, 12)
    y, scale = counts_of(model, (5, 1)), 0.7 if model.has_scale else 1.0
    loss = loss.at(scale)
    likelihood = model.log_probability(y, loss.mean(eta), scale)
    rest = likelihood + model.precision(scale) * loss.derivatives(eta, y)[0]
    np.testing.assert_allclose(rest, np.broadcast_to(rest[:, :1], rest.shape), atol=1e-12)


@every_loss
def test_where_counts_are_linear_the_cumulant_is_the_rest(loss):
    eta, y = np.linspace(-4, 3, 12), counts_of(loss.observation_model, (5, 1))
    if not loss.linear_counts:
        with pytest.raises(NotImplementedError, match="not linear in the loss of"):
            loss.cumulant(eta)
        return
    whole = loss.cumulant(eta) - loss.count_factor * y * eta + loss.constant(y)
    np.testing.assert_allclose(whole, loss.derivatives(eta, y)[0], rtol=1e-12, atol=1e-12)


@every_loss
def test_expected_curvature_is_the_mean_over_counts_of_the_model(loss):
    eta = etas_of(loss, -4, 1.5, 9)
    mu = loss.mean(eta)
    counts = {"Poisson": 80.0, "NegativeBinomial": 300.0}.get(loss.family, 2.0)
    y = np.arange(counts)[:, None]
    if not loss.observation_model.event_based:  # residuals are linear in y
        y = mu[None, :]
    step = 1e-5
    up, down = (loss.derivatives(eta + d, y)[1] for d in (step, -step))
    if not loss.observation_model.event_based:
        expected = ((up - down) / (2 * step))[0]
    else:
        chance = np.exp(loss.observation_model.log_probability(y, mu))
        expected = (chance * (up - down) / (2 * step)).sum(axis=0)
    np.testing.assert_allclose(loss.expected_curvature(eta), expected, rtol=1e-6)


def exact_bernoulli(link, eta, y):
    """Mean, loss, residual, observed and expected curvature in 200 digits."""
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(200):
        x = mpmath.mpf(float(eta))
        if link == "logistic":
            mu = 1 / (1 + mpmath.exp(-x))
            values = mu - y, mu * (1 - mu), mu * (1 - mu)
        else:
            m = mpmath.exp(x)
            mu, r = -mpmath.expm1(-m), m / mpmath.expm1(m)
            values = (-r, r * (m / mu - 1), m * r) if y else (m, m, m * r)
        loss = -mpmath.log(mu) if y else -mpmath.log(1 - mu)
        return [float(v) for v in (mu, loss, *values)]


@pytest.mark.parametrize("loss", BINARY, ids=name_of)
@pytest.mark.parametrize("y", [0.0, 1.0])
def test_bernoulli_losses_keep_their_digits_at_both_ends(loss, y):
    top = 6 if loss.link == "cloglog" else 60
    near = np.log([0.499999, 0.5, 0.500001, 0.6931, 0.6932])  # where branches meet
    eta = np.concatenate([np.linspace(-50, top, 113), np.linspace(-2, 2, 41), near])
    exact = np.array([exact_bernoulli(loss.link, x, y) for x in eta]).T
    values = loss.mean(eta), *loss.derivatives(eta, y), loss.expected_curvature(eta)
    for value, expected in zip(values, exact, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-12)


@pytest.mark.parametrize("loss", BINARY, ids=name_of)
def test_bernoulli_losses_have_limits(loss):
    eta, y = np.array([-1e4, 1e4]), np.array([0.0, 1.0])
    for value in loss.derivatives(eta, y):
        np.testing.assert_allclose(value, 0, atol=1e-300)
    assert (loss.derivatives(eta, 1 - y)[0] > 600).all()
    np.testing.assert_array_equal(loss.mean(eta), [0, 1])
    np.testing.assert_array_equal(loss.mean(np.array([-np.inf, np.inf])), [0, 1])
    np.testing.assert_array_equal(loss.eta(np.array([0.0, 1.0])), [-np.inf, np.inf])


def test_softplus_and_exp_are_those_of_before():
    before = pytest.importorskip("fastglm._poisson")
    eta, y = np.linspace(-800, 30, 300), counts_of(PoissonObservations(), (4, 1))
    for link, theirs in before.LINKS.items():
        loss = PoissonObservations().loss(link)
        pairs = zip(loss.derivatives(eta, y), theirs.derivatives(eta, y), strict=True)
        for own, other in pairs:
            np.testing.assert_array_equal(own, other)
        np.testing.assert_array_equal(loss.expected_curvature(eta), theirs.expected_curvature(eta))
        np.testing.assert_array_equal(loss.mean(eta), theirs.rate(eta))


# --- optima at infinity -------------------------------------------------------------------------


def test_the_ends_stand_for_probabilities_of_zero_and_one():
    for loss in LOSSES:
        if loss.low is not None:
            assert 0 < loss.mean(loss.low) < 1e-21
        if loss.high is not None:
            assert loss.derivatives(loss.high, 1.0)[0] < 1e-21
        assert loss.low == (-50.0 if loss.observation_model.event_based else None)
        assert loss.high == {"logistic": 50.0, "cloglog": 4.0}.get(loss.link)


@every_loss
def test_receivers_whose_intercept_has_no_finite_optimum(loss):
    status, eta = loss.ends(np.array([0.0, 3.0, 10.0]), 10)
    expected = ["" if loss.low is None else "silent", "", "" if loss.high is None else "saturated"]
    np.testing.assert_array_equal(status, expected)
    np.testing.assert_allclose(eta[1], loss.eta(0.3))
    assert np.isfinite(eta[1:]).all()
    assert eta[0] == (loss.eta(0.0) if loss.low is None else loss.low)
    assert eta[2] == (loss.eta(1.0) if loss.high is None else loss.high)


def test_saturation_survives_the_rounding_of_weights():
    weight = np.random.default_rng(0).random(1000)
    n = weight.sum()
    for sum_y in (n * (1 - 1e-15), n * (1 + 1e-15)):
        assert BernoulliObservations().loss().ends(np.array([sum_y]), n)[0] == ["saturated"]
    assert BernoulliObservations().loss().ends(np.array([n - 1e-9]), n)[0] == [""]


@every_loss
def test_features_whose_coefficient_has_no_finite_optimum(loss):
    X = np.array([[1, 0, 0, 1, -1], [0, 2, 0, 1, 0], [0, 0, 0, 1, 1], [1, 0, 0, 0, 0]], float)
    y = np.array([[0, 1], [1, 0], [1, 0], [0, 1]], float)
    low, high = loss.separated(X.sum(axis=0), X.T @ y, (X >= 0).all(axis=0))
    expected_low = np.array([[1, 0], [0, 1], [0, 0], [0, 0], [0, 0]], bool)
    expected_high = np.array([[0, 1], [1, 0], [0, 0], [0, 0], [0, 0]], bool)
    none = np.zeros((5, 2), bool)
    np.testing.assert_array_equal(low, none if loss.low is None else expected_low)
    np.testing.assert_array_equal(high, expected_high if loss.family == "Bernoulli" else none)
    own = np.repeat(X.sum(axis=0)[:, None], 2, axis=1)  # each receiver has bins of its own
    again = loss.separated(own, X.T @ y, (X >= 0).all(axis=0))
    np.testing.assert_array_equal(again, (low, high))


# --- checks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "value", "message"),
    [
        ("Poisson", -1, r"y holds negative counts; expected the number of events in each bin\. "),
        ("Poisson", -1, r"For Poisson observations the first is -1 in bin 17 of receiver 3\."),
        ("Poisson", np.inf, r"y holds infinite counts; expected finite numbers or NaN \(bin left"),
        ("Poisson", -np.inf, r"Poisson observations the first is -inf in bin 17 of receiver 3\."),
        ("Bernoulli", 2, r"y holds 2 in bin 17 of receiver 3; Bernoulli .* 0 or 1\. Pass counts"),
        ("Bernoulli", 2, r"Pass counts\.clip\(max=1\)\?$"),
        ("Bernoulli", 0.5, r"y holds 0\.5 in bin 17 of receiver 3; .* 0 or 1\.$"),
        ("Bernoulli", -1, r"y holds -1 in bin 17 of receiver 3; Bernoulli .* 0 or 1\.$"),
        ("Bernoulli", np.inf, r"y holds inf in bin 17 of receiver 3; Bernoulli .* 0 or 1\.$"),
        ("Gaussian", -np.inf, r"y holds -inf in bin 17 of receiver 3; Gaussian .* finite numbers"),
        ("Gamma", 0, r"y holds 0 in bin 17 of receiver 3; Gamma .* finite numbers above 0"),
        ("Gamma", -0.5, r"y holds -0\.5 in bin 17 of receiver 3; Gamma .* above 0"),
        ("Gamma", np.inf, r"y holds inf in bin 17 of receiver 3; Gamma .* above 0"),
        ("NegativeBinomial", -1, r"y holds -1 in bin 17 .* whole numbers of at least 0"),
        ("NegativeBinomial", 1.5, r"y holds 1\.5 in bin 17 .* whole numbers of at least 0"),
        ("NegativeBinomial", np.inf, r"y holds inf in bin 17 .* whole numbers of at least 0"),
    ],
)
def test_impossible_counts_are_refused(model, value, message):
    bins, receivers = np.array([4, 17, 18]), np.array([0, 3, 1])
    with refused(message):
        as_observation_model(model).check(np.array([1, value, value], float), bins, receivers)
    if np.isfinite(value) and value == int(value):
        with refused(message):
            as_observation_model(model).check(np.array([1, value, value]), bins, receivers)


@pytest.mark.parametrize(
    ("model", "values"),
    [
        ("Poisson", [0.5, 3, np.nan, 0]),
        ("Bernoulli", [1, 0, np.nan]),
        ("Gaussian", [-3.5, 1e300]),
        ("Gamma", [1e-300, np.nan, 7.5]),
        ("NegativeBinomial", [0, np.nan, 70000]),
    ],
)
def test_possible_counts_pass(model, values):
    places = np.arange(len(values))
    assert as_observation_model(model).check(np.array(values), places, places) is None
    nothing = np.zeros(0)
    assert as_observation_model(model).check(nothing, nothing, nothing) is None


# --- likelihood, deviance, residuals, scale ----------------------------------------------------


def test_log_likelihoods_are_those_of_scipy():
    rng = np.random.default_rng(0)
    mu, y = rng.random((20, 3)), rng.integers(0, 2, (20, 3))
    scale = np.array([0.5, 1.0, 3.0])
    poisson, bernoulli, gaussian, gamma, binomial = MODELS
    close = np.testing.assert_allclose
    close(poisson.log_probability(3 * y, mu), scipy.stats.poisson.logpmf(3 * y, mu), rtol=1e-12)
    close(bernoulli.log_probability(y, mu), scipy.stats.bernoulli.logpmf(y, mu), rtol=1e-12)
    normal = scipy.stats.norm.logpdf(y, mu, np.sqrt(scale))
    close(gaussian.log_probability(y, mu, scale), normal, rtol=1e-12)
    numbers = y + rng.random(y.shape)
    theirs = scipy.stats.gamma.logpdf(numbers, 1 / scale, scale=scale * mu)
    close(gamma.log_probability(numbers, mu, scale), theirs, rtol=1e-11, atol=1e-12)
    for counts in (y, 7 * y, 20_011 * y):
        theirs = scipy.stats.nbinom.logpmf(counts, 1 / scale, 1 / (1 + scale * mu))
        close(binomial.log_probability(counts, mu, scale), theirs, rtol=1e-9, atol=1e-9)
    close(binomial.log_probability(3 * y, mu, 0.0), scipy.stats.poisson.logpmf(3 * y, mu))


@pytest.mark.parametrize("counts", [[0, 1, 2, 7, 300], [20_000, 1_000_000]])
@pytest.mark.parametrize("scale", [1e-9, 1e-4, 0.1, 1.0, 30.0])
def test_derivatives_in_the_scale(counts, scale):
    """Against 60 digits, also where the terms of the usual formulas cancel, and at counts beyond
    the table of sums."""
    mpmath = pytest.importorskip("mpmath")
    model, y = NegativeBinomialObservations("estimate"), np.array(counts, float)
    mu = y * np.linspace(0.5, 1.7, y.size) + 0.3
    with mpmath.workdps(60):

        def likelihood(s, count, mean):
            k, m = 1 / s, mpmath.mpf(float(mean))
            rising = mpmath.loggamma(count + k) - mpmath.loggamma(k)
            return rising + count * mpmath.log(s * m / (1 + s * m)) - k * mpmath.log(1 + s * m)

        exact = np.array([
            [float(mpmath.diff(lambda s, c=c, m=m: likelihood(s, int(c), m), mpmath.mpf(scale), n))
             for c, m in zip(y, mu, strict=True)]
            for n in (1, 2)
        ])  # fmt: skip
    found = model.scale_derivatives(y, mu, scale)
    np.testing.assert_allclose(found[0], exact[0], rtol=1e-9)
    np.testing.assert_allclose(found[1], exact[1], rtol=1e-6)


def test_derivatives_in_the_scale_are_those_of_the_likelihood():
    model, y = NegativeBinomialObservations("estimate"), np.arange(12.0)[:, None]
    scale, mu, step = np.array([0.05, 0.8, 20.0]), 3.1, 1e-4
    up, here, down = (model.log_probability(y, mu, scale * (1 + k * step)) for k in (1, 0, -1))
    slope, curvature = model.scale_derivatives(y, mu, scale)
    np.testing.assert_allclose(scale * slope, (up - down) / (2 * step), rtol=1e-6, atol=1e-7)
    bend = (up - 2 * here + down) / step**2
    np.testing.assert_allclose(scale**2 * curvature, bend, rtol=1e-5, atol=1e-5)


def test_derivatives_in_the_scale_at_zero():
    """The slope is that of a test for overdispersion; its mean curvature is minus mu^2 / 2."""
    model, y, mu = NegativeBinomialObservations("estimate"), np.arange(60.0), 2.3
    slope, curvature = model.scale_derivatives(y, mu, 0.0)
    np.testing.assert_allclose(slope, ((y - mu) ** 2 - y) / 2, rtol=1e-12)
    near = model.scale_derivatives(y, mu, 1e-12)[1]
    mean = np.exp(PoissonObservations().log_probability(y, mu)) @ near
    np.testing.assert_allclose(curvature, mean, rtol=1e-8)
    with pytest.raises(NotImplementedError, match="The scale of Gamma observations is not fitted"):
        GammaObservations().scale_derivatives(y, mu, 1.0)


@pytest.mark.parametrize("scale", [0, -1.0, np.nan, np.inf, "estimated", True, None])
def test_impossible_scales_are_refused(scale):
    with refused("scale of NegativeBinomialObservations is .*; expected a number above 0, or 'est"):
        NegativeBinomialObservations(scale).loss()


def test_an_open_scale_has_no_likelihood():
    with refused("is estimated by a fit; pass a scale, such as scale_ of a fitted model"):
        NegativeBinomialObservations("estimate").log_probability(1.0, 1.0)
    loss = NegativeBinomialObservations("estimate").loss()
    assert loss.open_scale
    assert not loss.at(0.5).open_scale


def test_likelihood_and_deviance_at_the_ends_of_the_mean():
    y = np.array([0, 0, 1, 1])
    mu = np.array([0.0, 1.0, 0.0, 1.0])
    bernoulli = BernoulliObservations()
    with np.errstate(divide="ignore"):
        np.testing.assert_array_equal(bernoulli.log_probability(y, mu), [0, -np.inf, -np.inf, 0])
        np.testing.assert_array_equal(bernoulli.unit_deviance(y, mu), [0, np.inf, np.inf, 0])
    assert PoissonObservations().log_probability(0, 0.0) == 0
    assert PoissonObservations().unit_deviance(0, 0.0) == 0


@every_model
def test_the_deviance_is_twice_what_the_likelihood_lacks(model):
    y, scale = counts_of(model, (30, 2)), 0.7 if model.has_scale else 1.0
    mu = np.random.default_rng(1).uniform(0.1, 0.9, (30, 2))
    lack = model.log_probability(y, y, scale) - model.log_probability(y, mu, scale)
    expected = 2 * model.dispersion(scale) * lack
    np.testing.assert_allclose(model.unit_deviance(y, mu, scale), expected, atol=1e-12)
    assert model.dispersion(0.7) == (0.7 if model.estimates_scale else 1.0)


@every_model
def test_residuals_are_those_of_statsmodels(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        families = pytest.importorskip("statsmodels.api").families
    theirs = {"Bernoulli": families.Binomial}.get(model.name) or getattr(families, model.name)
    theirs = theirs(alpha=1.0) if model.name == "NegativeBinomial" else theirs()
    y = counts_of(model, (40,))
    mu = np.random.default_rng(1).uniform(0.1, 0.9, 40)
    close = np.testing.assert_allclose
    close(model.residuals(y, mu, "response"), y - mu)
    close(model.residuals(y, mu, "pearson"), (y - mu) / np.sqrt(theirs.variance(mu)))
    close(model.residuals(y, mu, "deviance"), theirs.resid_dev(y, mu), rtol=1e-10)
    close(model.unit_deviance(y, mu).sum(), theirs.deviance(y, mu), rtol=1e-10)
    scale = 0.6
    if model.estimates_scale:
        expected = (y - mu) / np.sqrt(scale * theirs.variance(mu))
        close(model.residuals(y, mu, "pearson", scale), expected)
        close(model.residuals(y, mu, "deviance", scale), theirs.resid_dev(y, mu, scale=scale))
    with refused(r"kind is 'anscombe'; expected one of \['response', 'pearson', 'deviance'\]"):
        model.residuals(y, mu, "anscombe")


@every_model
def test_residuals_where_the_mean_is_at_its_end(model):
    for kind in ("pearson", "deviance"):
        residuals = model.residuals(np.array([0.0]), np.array([0.0]), kind)
        assert residuals.shape == (1,)  # 0 / 0 is silent, as before


@every_model
def test_residuals_are_standardised(model):
    rng = np.random.default_rng(3)
    mu = rng.uniform(0.3, 0.7, 20000)
    scale = 2.0 if model.has_scale else 1.0
    pearson = model.residuals(model.sample(rng, mu, scale), mu, "pearson", scale)
    assert abs(pearson.var() - 1) < 0.1


@every_model
@pytest.mark.parametrize("shape", [(60,), (60, 3)])
def test_scores_are_those_of_nemos(model, shape):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nemos = pytest.importorskip("nemos")
        jax = pytest.importorskip("jax")
    y = counts_of(model, shape)
    mu = np.random.default_rng(1).uniform(0.1, 0.9, y.shape)
    theirs = getattr(nemos.observation_models, type(model).__name__)()
    scales = [(), (np.array([0.5, 1.0, 2.0])[: y[0].size],)] if model.estimates_scale else [()]
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        arrays = jax.numpy.array(y), jax.numpy.array(mu)
        for scale, (name, *more) in itertools.product(
            scales,
            [
                ("log_likelihood",),
                ("likelihood",),
                ("deviance",),
                ("pseudo_r2", "pseudo-r2-McFadden"),
                ("pseudo_r2", "pseudo-r2-Cohen"),
            ],
        ):
            expected = np.asarray(getattr(theirs, name)(*arrays, *more, *scale))
            found = getattr(model, name)(y, mu, *more, *scale)
            assert np.shape(found) == expected.shape == (y.shape if name == "deviance" else ())
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
            if name != "deviance":
                by = {"aggregate_sample_scores": jax.numpy.mean}
                expected = getattr(theirs, name)(*arrays, *more, *scale, **by)
                found = getattr(model, name)(*arrays, *more, *scale, **by)
                np.testing.assert_allclose(found, expected, rtol=1e-9)
        link = theirs.default_inverse_link_function
        np.testing.assert_allclose(model.default_inverse_link_function(mu), link(arrays[1]))
        key = jax.random.key(0)
        assert model.sample_generator(key=key, predicted_rate=arrays[1]).shape == shape
    finally:
        jax.config.update("jax_enable_x64", before)


LOG_PROBABILITIES = {
    "Poisson": lambda y, m: y * math.log(m) - m - math.lgamma(y + 1),
    "Bernoulli": lambda y, m: math.log(m if y else 1 - m),
    "Gaussian": lambda y, m: -((y - m) ** 2) / 2 - math.log(2 * math.pi) / 2,
    "Gamma": lambda y, m: -y / m - math.log(m),
    "NegativeBinomial": lambda y, m: y * math.log(m / (1 + m)) - math.log(1 + m),
}


@every_model
def test_scores_follow_from_the_formula(model):
    """A scale of 1; the mean over the known bins of each receiver, summed over the receivers."""
    y = counts_of(model, (12, 2)).astype(float)
    mu = np.random.default_rng(1).uniform(0.1, 0.9, y.shape)
    y[3, 0], mu[5, 1], mu[6, 1] = np.nan, np.nan, np.nan
    known = ~np.isnan(y + mu)
    each = [
        [LOG_PROBABILITIES[model.name](*pair) for pair in zip(y[k, j], mu[k, j], strict=True)]
        for j, k in enumerate(known.T)
    ]
    expected = sum(each[0]) / 11 + sum(each[1]) / 10
    assert model.log_likelihood(y, mu) == pytest.approx(expected, rel=1e-12)
    assert model.likelihood(y, mu) == pytest.approx(math.exp(expected), rel=1e-12)
    values = model.log_likelihood(y, mu, aggregate_sample_scores=lambda x: x)
    np.testing.assert_array_equal(np.isnan(values), ~known)
    np.testing.assert_allclose(values.T[known.T], np.concatenate(each), rtol=1e-12)
    whole = model.likelihood(y[known], mu[known], aggregate_sample_scores=np.prod)
    # NeMoS aggregates probabilities of Bernoulli observations, and log probabilities of others.
    log = values[known].sum() if model.name == "Bernoulli" else np.prod(values[known])
    assert whole == pytest.approx(math.exp(log))
    assert np.isnan(model.log_likelihood(np.full(3, np.nan), np.ones(3) / 2))


def test_a_scale_that_is_given_scales_the_deviance():
    y, mu = np.array([[1.0, 2.0], [3.0, 5.0]]), np.array([[2.0, 2.5], [2.0, 4.0]])
    for model in (GaussianObservations(), GammaObservations()):
        half = model.deviance(y, mu, scale=np.array([2.0, 1.0]))
        np.testing.assert_allclose(half * [2.0, 1.0], model.unit_deviance(y, mu))
    family = NegativeBinomialObservations(0.3)
    np.testing.assert_array_equal(family.deviance(y, mu), family.deviance(y, mu, 0.3))
    assert family.log_likelihood(y, mu) == family.log_likelihood(y, mu, 0.3)
    assert family.log_likelihood(y, mu) != family.log_likelihood(y, mu, 1.0)
    with refused("pass a scale, such as scale_ of a fitted model"):
        NegativeBinomialObservations("estimate").deviance(y, mu)


@pytest.mark.parametrize("name", ["log_likelihood", "pseudo_r2", "likelihood"])
def test_families_are_scorers(name):
    """As NeMoS's pages use them: the score of a fold is that of its held-out predictions."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 2))
    y = rng.poisson(np.exp(X @ [0.4, -0.3]))
    of = getattr(PoissonObservations(), name)
    found = cross_val_score(fastglm.GLM(), X, y, scoring=make_scorer(of), cv=3)
    rows = np.arange(300)
    for k, score in enumerate(found):
        test = rows // 100 == k
        model = fastglm.GLM().fit(X[~test], y[~test])
        assert score == pytest.approx(of(y[test], model.predict(X[test])), rel=1e-12)
    assert len(set(found)) == 3


@every_model
def test_pseudo_r2(model):
    y = counts_of(model, (50, 2))
    for score in ("pseudo-r2-McFadden", "pseudo-r2-Cohen"):
        null = np.broadcast_to(y.mean(axis=0), y.shape)
        assert abs(model.pseudo_r2(y, null, score)) < 1e-12
        each = model.pseudo_r2(y, null, score, aggregate_sample_scores=lambda v: v.mean(axis=0))
        assert each.shape == (2,)
    with refused(
        r"score_type is 'r2'; expected one of \['pseudo-r2-McFadden', 'pseudo-r2-Cohen'\]"
    ):
        model.pseudo_r2(y, null, "r2")


@every_model
def test_samples_have_the_mean_and_the_variance(model):
    mu, scale = np.full((40000, 2), 0.3), 1.7 if model.has_scale else 1.0
    y = model.sample(np.random.default_rng(0), mu, scale)
    assert y.dtype == (np.int64 if model.event_based else np.float64)
    assert y.shape == mu.shape
    np.testing.assert_allclose(y.mean(axis=0), 0.3, atol=0.04)
    np.testing.assert_allclose(y.var(axis=0), model.variance(mu[0], scale), rtol=0.05)
    if model.kurtosis or model.event_based:
        known = scipy.stats.gamma.stats(1 / scale, scale=0.3 * scale, moments="k")
        if model.event_based:
            known = {
                "Poisson": scipy.stats.poisson.stats(0.3, moments="k"),
                "Bernoulli": scipy.stats.bernoulli.stats(0.3, moments="k") + 6,
                "NegativeBinomial": scipy.stats.nbinom.stats(1 / 1.7, 1 / 1.51, moments="k"),
            }[model.name]
        part = 1 / model.variance(0.3, scale) if model.event_based else 0.0
        np.testing.assert_allclose(part + model.kurtosis * scale, known, rtol=1e-12)
    np.testing.assert_array_equal(y, model.sample(np.random.default_rng(0), mu, scale))
    assert model.sample(np.random.default_rng(0), 0.5).shape == ()


def test_scale_is_one_or_the_residual_variance():
    y = counts_of(GaussianObservations(), (30, 2))
    y[3, 1] = np.nan
    mu = np.full(y.shape, 0.1)
    for model in (MODELS[0], MODELS[1], MODELS[4]):
        np.testing.assert_array_equal(model.estimate_scale(np.abs(y), mu, 3), [1, 1])
        np.testing.assert_array_equal(model.precision(np.ones(2)), [1, 1])
    assert NegativeBinomialObservations(0.4).estimate_scale(np.abs(y[:, 0]), mu[:, 0], 3) == 0.4
    pearson = np.nansum((y / mu - 1) ** 2, axis=0)
    np.testing.assert_allclose(GammaObservations().estimate_scale(y, mu, 27), pearson / 27)
    np.testing.assert_allclose(GammaObservations().precision(np.array([0.5, 2.0])), [2, 0.5])
    model = GaussianObservations()
    squares = (y - mu) ** 2
    expected = squares[:, 0].sum() / 27, np.nansum(squares[:, 1]) / 25
    np.testing.assert_allclose(model.estimate_scale(y, mu, np.array([27, 25])), expected)
    parts = [np.nansum(squares[rows], axis=0) for rows in (slice(0, 9), slice(9, 30))]
    np.testing.assert_allclose(model.scale_from(sum(parts), np.array([27, 25])), expected)
    np.testing.assert_allclose(model.precision(np.array([0.5, 2.0])), [1, 0.25])
    assert np.isnan(model.estimate_scale(y[:3, 0], mu[:3, 0], 0))


def test_probability_of_an_event():
    mu = np.array([0.0, 1e-20, 0.3])
    expected = scipy.stats.poisson.sf(0, mu)
    np.testing.assert_allclose(PoissonObservations().probability_of_event(mu), expected, rtol=1e-9)
    np.testing.assert_array_equal(BernoulliObservations().probability_of_event(mu), mu)
    model, scale = NegativeBinomialObservations(), 0.6
    expected = scipy.stats.nbinom.sf(0, 1 / scale, 1 / (1 + scale * mu))
    np.testing.assert_allclose(model.probability_of_event(mu, scale)[2], expected[2], rtol=1e-12)
    np.testing.assert_allclose(model.probability_of_event(mu, scale)[:2], mu[:2], rtol=1e-12)
    for model in (GaussianObservations(), GammaObservations()):
        with refused(f"{model.name} observations are not events"):
            model.probability_of_event(mu)


@pytest.mark.parametrize(
    "method", ["check", "log_probability", "unit_deviance", "variance", "sample"]
)
def test_a_model_must_say_what_it_is(method):
    arguments = {"check": 3, "variance": 1}.get(method, 2)
    with pytest.raises(NotImplementedError):
        getattr(ObservationModel(), method)(*[1.0] * arguments)


# --- kernels ------------------------------------------------------------------------------------

WEIGHTED = [loss for loss in LOSSES if not loss.exponential]
every_kernel = pytest.mark.parametrize("loss", WEIGHTED, ids=name_of)
every_batch = pytest.mark.parametrize(("dtype", "lanes"), BATCHES)


def pack(values, lanes, dtype):
    """Rows by receivers in the layout of the kernels: tiles, zeros around the rows."""
    n_rows, n = values.shape
    n_tiles = -(-n // lanes)
    padded = np.zeros((2 * PAD + n_rows, n_tiles * lanes), dtype)
    padded[PAD : PAD + n_rows, :n] = values
    tiles = padded.reshape(-1, n_tiles, lanes).transpose(1, 0, 2)
    return np.ascontiguousarray(tiles).reshape(n_tiles, -1)


def unpack(values, lanes, n):
    n_tiles = values.shape[0]
    rows = values.reshape(n_tiles, -1, lanes).transpose(1, 0, 2).reshape(-1, n_tiles * lanes)
    return rows[PAD : rows.shape[0] - PAD, :n]


SCALE = 0.7  # of every receiver, where a loss depends on it


def run(kernel, eta, y, intercept=None, weight=None, start=0, lanes=LANES, dtype=float):
    """New eta, the pads of its layout, and sums, by segments."""
    n_rows, n = eta.shape
    n_tiles, n_segments = -(-n // lanes), -(-n_rows // SEGMENT)
    offsets = np.full(n_tiles * lanes, -50.0, dtype)  # of lanes without a receiver
    offsets[:n] = 0.0 if intercept is None else intercept
    weight = np.ones(start + n_rows, dtype) if weight is None else weight
    sums = np.full((n_tiles, n_segments, 2, lanes), -7.0)
    values, counts = pack(eta, lanes, dtype), pack(y, lanes, dtype)
    scales = np.full(n_tiles * lanes, SCALE, dtype)
    with np.errstate(all="ignore"):
        for tile in range(n_tiles):
            own = slice(tile * lanes, (tile + 1) * lanes)
            args = offsets[own], scales[own], weight, start, 0, n_rows, sums[tile]
            kernel(values[tile], counts[tile], *args)
    pads = np.concatenate([values[:, : PAD * lanes], values[:, (PAD + n_rows) * lanes :]], axis=1)
    sums = sums.transpose(1, 2, 0, 3).reshape(n_segments, 2, -1)[:, :, :n]
    return unpack(values, lanes, n), pads, sums


def parts(loss, eta, y):
    """Loss and residual, without what is linear in the counts where that is the caller's."""
    loss = loss.at(SCALE)
    if loss.linear_counts:
        return loss.cumulant(eta), loss.derivatives(eta, np.zeros_like(eta))[1]
    return loss.derivatives(eta, y)[:2]


@every_kernel
@every_batch
@pytest.mark.parametrize(("n_rows", "n"), [(1, 1), (9, 3), (30, LANES + 1), (SEGMENT + 70, 2)])
def test_kernels_equal_the_formulas(loss, dtype, lanes, n_rows, n):
    if PURE and n_rows * lanes > 2000:
        lanes = 1
    rng = np.random.default_rng(0)
    eta, intercept = rng.normal(0, 1.5, (n_rows, n)).astype(dtype), rng.normal(0, 0.5, n)
    intercept = intercept.astype(dtype)
    if loss.least is not None:
        eta, intercept = 0.2 + np.abs(eta), np.abs(intercept)
    y = counts_of(loss.observation_model, (n_rows, n)).astype(dtype)
    weight = (rng.integers(0, 3, n_rows + 5) * rng.random(n_rows + 5)).astype(dtype)
    values, pads, sums = run(loss.kernel, eta, y, intercept, weight, 5, lanes, dtype)
    exact, w = (eta + intercept).astype(float), weight[5:, None].astype(float)
    expected = [w * part for part in parts(loss, exact, y.astype(float))]
    rtol = 1e-14 if dtype == np.float64 else 3e-6  # exp(m) of cloglog amplifies rounding of m
    part = loss.count_part(exact, y.astype(float))
    size = 1 + np.abs(expected[1]) + w * (1 + np.exp(exact) + np.abs(y) + part)
    assert (np.abs(values - expected[1]) <= rtol * size).all()
    assert (values[weight[5:] == 0] == 0).all()
    assert not pads.any()
    for s in range(sums.shape[0]):
        rows = slice(s * SEGMENT, (s + 1) * SEGMENT)
        for total, part in zip(sums[s], expected, strict=True):
            scale = np.abs(part[rows]).sum(axis=0) + size[rows].sum(axis=0)
            assert (np.abs(total - part[rows].sum(axis=0)) <= rtol * scale).all()


def single(loss, eta, y, dtype, lanes):
    """Loss and residual of every eta, each as a receiver of its own in one bin."""
    eta = np.asarray(eta, dtype)[None, :]
    y = np.full_like(eta, y)
    values, _, sums = run(loss.kernel, eta, y, lanes=lanes, dtype=dtype)
    return sums[0, 0], values[0]


@every_kernel
@every_batch
@pytest.mark.parametrize("y", [0.0, 1.0])
def test_kernels_are_accurate_entry_by_entry(loss, dtype, lanes, y):
    top = 30 if loss.link != "cloglog" else 4
    eta = etas_of(loss, -30, top, 137 if PURE else 801).astype(dtype)
    exact = eta.astype(float)
    rtol = 1e-14 if dtype == np.float64 else 3e-7
    # A relative error of m = exp(eta) is one of m times it in exp(-m).
    growth = 1 + np.exp(exact) if loss.link == "cloglog" and y == 1 else 1.0
    for value, expected in zip(
        single(loss, eta, y, dtype, lanes), parts(loss, exact, np.full_like(exact, y)), strict=True
    ):
        # The loss of softplus, s - y log(s), and its residual are differences.
        differs = loss.link == "softplus" or loss.family in ("Gamma", "NegativeBinomial")
        floor = 1 + np.abs(exact) + loss.count_part(exact, y) if differs and y else 0.0
        if loss.family == "Gamma":
            floor = floor + 1 + np.abs(exact)
        assert (np.abs(value - expected) <= rtol * growth * (np.abs(expected) + floor)).all()


@every_kernel
@every_batch
@pytest.mark.parametrize("y", [0.0, 1.0])
def test_kernels_at_the_extremes(loss, dtype, lanes, y):
    far = 700.0 if dtype == np.float64 else 80.0
    eta = np.array([-far, -80.0, -30.0, 30.0, 80.0, far])
    rtol = 1e-13 if dtype == np.float64 else 4e-6
    for value, expected in zip(
        single(loss, eta, y, dtype, lanes), parts(loss, eta, np.full_like(eta, y)), strict=True
    ):
        # Entries next to 0 may underflow in float32.
        np.testing.assert_allclose(value, expected, rtol=rtol, atol=1e-30 if far < 100 else 1e-300)


@every_batch
def test_kernels_at_infinity(dtype, lanes):
    ends = [-np.inf, np.inf]
    bernoulli, gaussian = BernoulliObservations().loss(), GaussianObservations().loss()
    cumulant, mu = single(bernoulli, ends, 0, dtype, lanes)
    np.testing.assert_array_equal(cumulant, [0, np.inf])
    np.testing.assert_array_equal(mu, [0, 1])
    square, twice = single(gaussian, ends, 0, dtype, lanes)
    np.testing.assert_array_equal(square, [np.inf, np.inf])
    np.testing.assert_array_equal(twice, ends)
    cloglog = BernoulliObservations().loss("cloglog")
    loss, residual = single(cloglog, ends, 0, dtype, lanes)
    np.testing.assert_allclose(loss, [0, np.inf], atol=1e-34)
    np.testing.assert_allclose(residual, [0, np.inf], atol=1e-34)
    loss, residual = single(cloglog, ends, 1, dtype, lanes)
    np.testing.assert_allclose(
        loss, [1e30, 0], rtol=1e-6
    )  # stands for infinity, times a count of 0
    np.testing.assert_allclose(residual, [-1, 0], rtol=1e-6)


@every_batch
def test_one_over_x_is_infinite_outside_of_its_range(dtype, lanes):
    loss, residual = single(GammaObservations().loss(), [-np.inf, -1.0, 0.0], 1, dtype, lanes)
    np.testing.assert_array_equal(loss, np.inf)
    np.testing.assert_array_equal(residual, -np.inf)


@every_batch
@pytest.mark.parametrize("link", ["exp", "softplus"])
def test_a_scale_of_zero_is_poisson(dtype, lanes, link, monkeypatch):
    """In the kernels, with the counts' terms, and in the formulas."""
    monkeypatch.setattr(f"{__name__}.SCALE", 0.0)
    rng = np.random.default_rng(0)
    eta, y = rng.normal(size=(9, 3)), rng.poisson(1.0, (9, 3)).astype(float)
    loss = NegativeBinomialObservations("estimate").loss(link)
    poisson = PoissonObservations().loss(link).derivatives(eta, y)
    for ours, theirs in zip(loss.derivatives(eta, y), poisson, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)
    values, _, sums = run(loss.kernel, eta, y, lanes=lanes, dtype=dtype)
    rtol = 1e-12 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(values, poisson[1], rtol=rtol, atol=rtol)
    np.testing.assert_allclose(sums[0, 0], poisson[0].sum(axis=0), rtol=rtol)


@compiled_only
@every_kernel
@every_batch
def test_kernels_show_nan(loss, dtype, lanes):
    value, residual = single(loss, [0.3, np.nan], 1.0, dtype, lanes)
    np.testing.assert_array_equal(np.isnan(value), [False, True])
    np.testing.assert_array_equal(np.isnan(residual), [False, True])


@every_kernel
@every_batch
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 800.0])
def test_kernels_ignore_what_stands_in_bins_of_weight_zero(loss, dtype, lanes, bad):
    eta = np.array([[0.5, 0.5], [bad, bad], [0.5, 0.5]])
    y = np.ones_like(eta)
    weight = np.array([1, 0, 1], dtype)
    values, _, sums = run(loss.kernel, eta, y, weight=weight, dtype=dtype, lanes=lanes)
    expected, _, once = run(loss.kernel, eta[:1], y[:1], dtype=dtype, lanes=lanes)
    assert not values[1].any()
    np.testing.assert_array_equal(values[[0, 2]], expected[[0, 0]])
    np.testing.assert_array_equal(sums, 2 * once)


@every_kernel
@every_batch
def test_a_weight_is_as_many_rows(loss, dtype, lanes):
    eta = np.random.default_rng(0).normal(size=(5, 3))
    y = counts_of(loss.observation_model, (5, 3))
    often = np.array([2, 1, 0, 4, 1])
    values, _, sums = run(loss.kernel, eta, y, None, often.astype(dtype), 0, lanes, dtype)
    rows = np.repeat(np.arange(5), often)
    repeated, _, totals = run(loss.kernel, eta[rows], y[rows], None, None, 0, lanes, dtype)
    np.testing.assert_allclose(sums, totals, rtol=1e-6, atol=1e-6)
    first = np.searchsorted(rows, [0, 1, 3, 4])
    expected = repeated[first] * often[often > 0][:, None]
    np.testing.assert_allclose(values[often > 0], expected, rtol=1e-6)


@every_kernel
def test_kernels_leave_other_rows_alone(loss):
    n_rows = 2 * SEGMENT + 5
    eta, y = (pack(np.full((n_rows, 1), value), 1, float) for value in (0.5, 1.0))
    sums = np.full((3, 2, 1), -7.0)
    one = np.ones(1), np.ones(1), np.ones(n_rows)
    loss.kernel(eta[0], y[0], *one, 0, SEGMENT, 2 * SEGMENT, sums)
    values = unpack(eta, 1, 1)[:, 0]
    assert (values[:SEGMENT] == 0.5).all()
    assert (values[SEGMENT : 2 * SEGMENT] != 0.5).all()
    assert (values[2 * SEGMENT :] == 0.5).all()
    np.testing.assert_array_equal(sums[[0, 2]], -7)


@every_loss
@pytest.mark.parametrize("lanes", [LANES, 1])
def test_a_pass_has_the_same_bits_on_any_number_of_threads(loss, lanes, monkeypatch):
    """With offsets and weights, over chunks that threads share."""
    monkeypatch.setattr(sweep, "CHUNK", 256)
    n_bins = 300 if PURE else 20_000
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (n_bins, 3)).astype(float)
    X = fastglm.basis.RaisedCosineLogConv(3, 10).compute_features(y)
    X = fastglm.features.hstack([X, rng.normal(size=(n_bins, 2))])
    observed = Observed(Events.of(y), rng.random(n_bins), rng.normal(size=(n_bins, 3)))
    point = np.arange(3), 0.1 * rng.normal(size=(11, 3)), rng.normal(size=3)
    found = []
    for n_threads in (1, 2, 5):
        monkeypatch.setattr(threads.numba, "get_num_threads", lambda n=n_threads: n)
        found.append(Local(X).passes(3, lanes).evaluate(observed, loss, *point, True))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


# --- counts in tiles ----------------------------------------------------------------------------


@every_batch
@pytest.mark.parametrize(("start", "n_rows"), [(0, 40), (7, 1), (100, SEGMENT + 300), (1500, 64)])
def test_counts_are_scattered_into_tiles(dtype, lanes, start, n_rows):
    n, n_bins, n_events = 19, 2000, 3000
    rng = np.random.default_rng(0)
    bins = np.sort(rng.integers(0, n_bins, n_events))
    receivers = rng.integers(-2, n, n_events)
    amplitudes = rng.integers(1, 4, n_events).astype(float)
    dense = np.zeros((n_bins, n))
    keep = receivers >= 0
    np.add.at(dense, (bins[keep], receivers[keep]), amplitudes[keep])
    n_tiles = -(-n // lanes)
    room = SEGMENT + 400
    out = np.full((n_tiles, (room + 2 * PAD) * lanes), 5.0, dtype)
    for _ in range(2):  # what was there is cleared
        for tile in range(n_tiles):
            own = bins, receivers, amplitudes, tile * lanes, start
            for begin, end in itertools.pairwise([0, n_rows // 3, n_rows]):
                _kernels.scatter_counts(*own, begin, end, lanes, out[tile])
        rows = unpack(out, lanes, n)[:n_rows]
        expected = np.zeros((n_rows, n))
        part = dense[start : start + n_rows]
        expected[: part.shape[0]] = part
        np.testing.assert_array_equal(rows, expected)
        beyond = out[:, (PAD + n_rows) * lanes :]
        assert (out[:, : PAD * lanes] == 5).all()
        assert (beyond == 5).all()


def test_no_events_scatter_nothing():
    out, nothing = np.full(8 + 2 * PAD, 5.0), np.zeros(0, np.int64)
    _kernels.scatter_counts(nothing, nothing, np.zeros(0), 0, 0, 0, 8, 1, out)
    assert not out[PAD : PAD + 8].any()


@every_loss
@pytest.mark.parametrize("lanes", [LANES, 1])
def test_a_loss_without_a_kernel_is_computed_in_numpy(loss, lanes, monkeypatch):
    """The same pass, with weights and offsets, from `derivatives` in place of the kernel."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (300, 3)).astype(float)
    X = fastglm.basis.RaisedCosineLogConv(3, 10).compute_features(y)
    observed = Observed(Events.of(y), rng.random(300), rng.normal(size=(300, 3)))
    passes = Local(X).passes(3, lanes, "events")
    point = np.arange(3), rng.normal(size=(9, 3)) * 0.3, rng.normal(size=3)
    for precise, tolerance in ((True, 1e-11), (False, 1e-4)):
        compiled = passes.evaluate(observed, loss, *point, precise)
        with monkeypatch.context() as patch:
            patch.setattr(type(loss), "kernel", None)
            plain = passes.evaluate(observed, loss, *point, precise)
        for a, b in zip(plain, compiled, strict=True):
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())
