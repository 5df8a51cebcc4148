"""Diagnostics against loops, scikit-learn's deviance, companion matrices, and known models."""

import naive
import numpy as np
import pytest
from scipy import stats
from sklearn.exceptions import NotFittedError
from sklearn.metrics import d2_tweedie_score, r2_score

import fastglm
from fastglm._engine.result import Result
from fastglm._fitted import store
from fastglm._products import sweep
from fastglm.basis import HistoryConv, RaisedCosineLogConv
from fastglm.diagnostics import (
    Rescaling,
    bits_per_spike,
    cross_validated,
    deviance_explained,
    spectral_radius,
    stability,
    time_rescaling,
)
from fastglm.glm import GLM, PopulationGLM
from fastglm.model_selection import split
from fastglm.simulation import simulate_recurrent

SELF = np.array([-3.0, -2.0, -1.0, -0.5, -0.2])  # refractory, raw lags


def known_model(coef, intercept, **parameters):
    """A model with given coefficients, as if it were fitted."""
    coef, intercept = np.asarray(coef, float), np.asarray(intercept, float)
    model, result = PopulationGLM(**parameters), Result.empty(*coef.shape)
    result.coef[:], result.intercept[:], result.status[:] = coef, intercept, "converged"
    store(model, result)
    return model


def own_history(n, kernel=SELF):
    """Coefficients of raw lags with which each of n cells hears itself alone."""
    return np.einsum("ij,l->ilj", np.eye(n), kernel).reshape(-1, n)


def refractory_counts(n_bins, n, intercept, seed=0):
    rng, counts = np.random.default_rng(seed), np.zeros((n_bins, n))
    for t in range(n_bins):
        seen = counts[max(t - SELF.size, 0) : t][::-1]
        counts[t] = rng.poisson(np.exp(intercept + SELF[: len(seen)] @ seen))
    return counts


def constant_features(n_bins, epoch=None):
    """A feature that is 0; NaN in the first row of every epoch."""
    X = np.zeros((n_bins, 1))
    if epoch is not None:
        X[::epoch] = np.nan
    return X


def naive_intervals(mu, y, seed=0):
    """Rescaled intervals of one receiver by a loop; NaN in mu or y is an edge."""
    totals, chances, total, begun = [], [], 0.0, False
    for m, count in zip(mu, y, strict=True):
        if np.isnan(m) or np.isnan(count):
            if begun:
                totals.append(total)
                chances.append(1.0)
            total, begun = 0.0, False
        elif count > 0:
            totals.append(total)
            chances.append(1 - np.exp(-m))
            total, begun = 0.0, False
        else:
            total, begun = total + m, True
    if begun:
        totals.append(total)
        chances.append(1.0)
    r = seed.random(len(totals))
    tau = [t - np.log(1 - p * r) for t, p, r in zip(totals, chances, r, strict=True)]
    return 1 - np.exp(-np.array(tau)), int(np.sum(np.array(chances) == 1.0))


# --- time rescaling -----------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [64, 128, 8192])
def test_intervals_are_those_of_a_loop(monkeypatch, chunk):
    monkeypatch.setattr(sweep, "CHUNK", chunk)
    rng = np.random.default_rng(0)
    counts = rng.poisson([0.05, 0.3, 1.5, 0.0], (400, 4)).astype(float)
    X = rng.normal(0, 0.3, (400, 2))
    X[[0, 1, 63, 64, 100, 127, 200, 201, 399]] = np.nan
    counts[[5, 130, 131, 255, 256], [0, 1, 1, 2, 2]] = np.nan
    counts[::7, 3] = np.nan
    model = known_model(rng.normal(0, 1, (2, 4)), [-3, -1, 0.5, -2])
    found = time_rescaling(model, X, counts)
    mu = np.exp(X @ model.coef_ + model.intercept_)
    for j, seed in enumerate(np.random.default_rng(0).spawn(4)):
        expected, n_censored = naive_intervals(mu[:, j], counts[:, j], seed)
        np.testing.assert_allclose(found.intervals[j], expected, rtol=1e-10, atol=1e-14)
        assert found.n_intervals[j] == expected.size
        assert found.n_censored[j] == n_censored
        kept = np.isfinite(X[:, 0]) & (counts[:, j] > 1)
        assert found.n_extra[j] == (counts[kept, j] - 1).sum()
        if j < 3:
            ks = stats.kstest(expected, "uniform")
            assert found.statistic[j] == pytest.approx(ks.statistic, rel=1e-9)
            assert found.p_value[j] == pytest.approx(ks.pvalue, rel=1e-9)
    # No event, so nothing to test, however many stretches are cut off.
    assert np.isnan(found.statistic[3])
    assert np.isnan(found.p_value[3])
    assert np.isnan(found.band()[3])
    assert np.isnan(found.autocorrelation(3)[0][:, 3]).all()


@pytest.mark.parametrize("rate", [0.03, 0.3, 3.0])
def test_the_true_model_passes_and_one_without_refractoriness_fails(rate):
    n = 40
    counts = refractory_counts(1500, n, np.log(rate))
    X = HistoryConv(SELF.size).compute_features(counts)
    true = known_model(own_history(n), np.full(n, np.log(rate)))
    right = time_rescaling(true, X, counts, random_key=1)
    assert stats.kstest(right.p_value, "uniform").pvalue > 0.01
    assert (right.statistic > right.band()).sum() <= 6  # 2 are expected
    correlation, band = right.autocorrelation(5)
    assert (np.abs(correlation) > band).mean() < 0.1
    if rate > 0.1:
        mean = counts[SELF.size :].mean(axis=0)
        wrong = known_model(np.zeros_like(true.coef_), np.log(mean))
        fails = time_rescaling(wrong, X, counts, random_key=1)
        assert (fails.statistic > fails.band()).mean() > 0.9


def test_a_fitted_model_passes():
    counts = refractory_counts(1500, 3, np.log(0.3))
    X = HistoryConv(SELF.size).compute_features(counts)
    found = time_rescaling(PopulationGLM().fit(X, counts), X, counts)
    assert (found.statistic < found.band()).all()
    one = GLM().fit(X, counts[:, 0])
    alone = time_rescaling(one, X, counts[:, 0])
    np.testing.assert_allclose(alone.intervals[0], found.intervals[0], rtol=1e-6)


def test_without_the_discrete_correction_a_right_model_fails():
    rate = 0.7
    y = np.random.default_rng(0).poisson(rate, (2000, 1)).astype(float)
    model = known_model([[0.0]], [np.log(rate)])
    found = time_rescaling(model, constant_features(2000), y)
    assert found.statistic[0] < found.band()[0]
    bins_between = np.diff(np.flatnonzero(y[:, 0]))
    uncorrected = 1 - np.exp(-rate * bins_between)
    assert stats.kstest(uncorrected, "uniform").statistic > 3 * found.band()[0]


def test_short_epochs_do_not_make_a_right_model_fail():
    n, rate = 30, 0.1
    y = np.random.default_rng(0).poisson(rate, (3000, n)).astype(float)
    model = known_model(np.zeros((1, n)), np.full(n, np.log(rate)))
    found = time_rescaling(model, constant_features(3000, epoch=12), y)
    assert stats.kstest(found.p_value, "uniform").pvalue > 0.01
    assert (found.n_censored > 200).all()  # some 250 epochs
    # Those that end inside their epoch are too short.
    whole = [u for u in found.intervals[0] if u < 1 - np.exp(-rate * 11)]
    assert stats.kstest(whole, "uniform").pvalue < 1e-6


def test_intervals_do_not_cross_epochs():
    basis, rate = HistoryConv(4), 0.2
    one = np.random.default_rng(0).poisson(rate, (300, 2)).astype(float)
    both = basis.compute_features([one, one])
    model = known_model(np.zeros((8, 2)), np.log([rate, rate]))
    alone = time_rescaling(model, basis.compute_features(one), one)
    found = time_rescaling(model, both, np.vstack([one, one]))
    for j in range(2):
        assert found.n_intervals[j] == 2 * alone.n_intervals[j]
        assert found.n_censored[j] == 2 * alone.n_censored[j]


def test_a_receiver_does_not_depend_on_the_others_and_the_key_decides():
    y = np.random.default_rng(0).poisson(0.3, (500, 3)).astype(float)
    X, model = constant_features(500), known_model(np.zeros((1, 3)), np.log([0.3, 0.3, 0.3]))
    first = time_rescaling(model, X, y, random_key=4)
    y[:, 1] = 0
    second = time_rescaling(model, X, y, random_key=4)
    other = time_rescaling(model, X, y, random_key=5)
    np.testing.assert_array_equal(first.intervals[2], second.intervals[2])
    assert (first.intervals[2] != other.intervals[2]).any()


def test_a_rate_that_overflows_ends_its_interval_at_1():
    y = np.zeros((40, 1))
    y[5::5] = 1
    X = constant_features(40)
    X[[12, 20]] = 1.0  # between two events, and at one
    found = time_rescaling(known_model([[800.0]], [np.log(0.2)]), X, y)
    assert found.n_censored[0] == 1  # the last
    assert (found.intervals[0] == 1).sum() == 1
    assert np.isfinite(found.autocorrelation(2)[0]).all()


def test_bands_and_autocorrelation_of_known_intervals():
    rng = np.random.default_rng(0)
    z = np.zeros(4000)
    for t in range(1, z.size):
        z[t] = 0.6 * z[t - 1] + 0.8 * rng.normal()
    few = rng.random(3)
    intervals = [stats.norm.cdf(z), few]
    found = Rescaling(intervals, np.array([0.1, 0.5]), np.array([0.0, 0.5]), np.array([4000, 3]),
                      np.zeros(2, int), np.zeros(2, int))  # fmt: skip
    np.testing.assert_allclose(found.band(), 1.36 / np.sqrt([4000, 3]), rtol=2e-3)
    np.testing.assert_allclose(found.band(0.99), 1.63 / np.sqrt([4000, 3]), rtol=2e-3)
    correlation, band = found.autocorrelation(4)
    np.testing.assert_allclose(correlation[:, 0], 0.6 ** np.arange(1, 5), atol=0.06)
    np.testing.assert_allclose(band, 1.96 / np.sqrt([4000, 3]), rtol=1e-3)
    assert np.isnan(correlation[2:, 1]).all()  # three intervals have no third neighbour


@pytest.mark.parametrize("level", [0, 1, 95])
def test_levels_are_between_0_and_1(level):
    one = np.ones(1)
    with pytest.raises(ValueError, match=f"level is {level}; expected a number between 0 and 1"):
        Rescaling([one], one, one, one, one, one).band(level)


@pytest.mark.parametrize("n_lags", [0, 2.5])
def test_lags_are_positive_integers(n_lags):
    one = np.ones(1)
    with pytest.raises(ValueError, match=f"n_lags is {n_lags}; expected a positive integer"):
        Rescaling([one], one, one, one, one, one).autocorrelation(n_lags)


# --- how much is explained ----------------------------------------------------------------------


def explained_case(link="exp"):
    rng = np.random.default_rng(0)
    counts = rng.poisson([0.3, 1.0, 0.0, 2.0], (300, 4)).astype(float)
    X = HistoryConv(3).compute_features(counts)
    coef, intercept = rng.normal(0, 0.1, (12, 4)), [-1.0, 0.1, -3.0, 0.5]
    return known_model(coef, intercept, inverse_link_function=link), X, counts


@pytest.mark.parametrize("link", ["exp", "softplus"])
def test_deviance_explained_is_that_of_sklearn(link):
    model, X, counts = explained_case(link)
    counts[20:30, 1] = np.nan
    found, mu = deviance_explained(model, X, counts), model.predict(X)
    for j in (0, 1, 3):
        kept = np.isfinite(mu[:, j]) & np.isfinite(counts[:, j])
        expected = d2_tweedie_score(counts[kept, j], mu[kept, j], power=1)
        assert found[j] == pytest.approx(expected, rel=1e-10)
    assert np.isnan(found[2])  # silent


def test_deviance_explained_is_the_score_of_each_receiver():
    model, X, counts = explained_case()
    score = model.score(X, counts, "pseudo-r2-Cohen", lambda d: d.mean(axis=0))
    spike = counts.any(axis=0)
    np.testing.assert_allclose(deviance_explained(model, X, counts)[spike], score[spike], 1e-10)


def test_counts_that_do_not_vary_have_no_deviance_to_explain():
    y = np.full((50, 2), [3.0, 0.1])
    model = known_model(np.zeros((1, 2)), np.log([2.0, 0.1]))
    assert np.isnan(deviance_explained(model, constant_features(50), y)).all()


@pytest.mark.parametrize("link", ["exp", "softplus"])
def test_bits_per_spike_are_those_of_the_formula(link):
    model, X, counts = explained_case(link)
    counts[20:30, 1] = np.nan
    found, mu = bits_per_spike(model, X, counts), model.predict(X)
    for j in (0, 1, 3):
        kept = np.isfinite(mu[:, j]) & np.isfinite(counts[:, j])
        y, rate = counts[kept, j], mu[kept, j]
        model_ll = stats.poisson.logpmf(y, rate).sum()
        null_ll = stats.poisson.logpmf(y, y.mean()).sum()
        assert found[j] == pytest.approx((model_ll - null_ll) / (y.sum() * np.log(2)), rel=1e-9)
    assert np.isnan(found[2])  # no events


def test_one_receiver_is_a_population_of_one():
    _, X, counts = explained_case()
    one = GLM().fit(X, counts[:, 0])
    many = PopulationGLM().fit(X, counts[:, :1])
    for score in (deviance_explained, bits_per_spike):
        assert score(one, X, counts[:, 0]).shape == (1,)
        np.testing.assert_allclose(score(one, X, counts[:, 0]), score(many, X, counts[:, :1]))


def test_held_out_scores_are_those_of_fits_to_the_rest():
    rng = np.random.default_rng(0)
    counts = rng.poisson([0.4, 1.0, 0.0], (300, 3)).astype(float)
    counts[250:260, 0] = np.nan
    X = HistoryConv(2).compute_features(counts[:, [1]])
    model = PopulationGLM(regularizer="Ridge", regularizer_strength=[0.1, 0.2, 0.3])
    found = cross_validated(model, X, counts, folds=3)
    assert not hasattr(model, "coef_")
    rows = np.asarray(X)
    for k, (train, test) in enumerate(split(X, 3)):
        for j in (0, 1):
            some = [part & np.isfinite(counts[:, j]) for part in (train, test)]
            one = GLM(regularizer="Ridge", regularizer_strength=model.regularizer_strength[j])
            one.fit(rows[some[0]], counts[some[0], j])
            mu, y = one.predict(rows[some[1]]), counts[some[1], j]
            null = counts[some[0], j].mean()
            ll, ll_null = (stats.poisson.logpmf(y, m) for m in (mu, null))
            assert found.log_likelihood[k, j] == pytest.approx(ll.mean(), rel=1e-9)
            bits = (ll - ll_null).sum() / (y.sum() * np.log(2))
            assert found.bits_per_spike[k, j] == pytest.approx(bits, rel=1e-6, abs=1e-9)
            perfect = stats.poisson.logpmf(y, np.maximum(y, 1e-300))
            explained = 1 - (perfect - ll).sum() / (perfect - ll_null).sum()
            assert found.deviance_explained[k, j] == pytest.approx(explained, rel=1e-6, abs=1e-9)
    assert (found.status[:, :2] == "converged").all()
    assert (found.status[:, 2] == "silent").all()
    for score in (found.deviance_explained, found.bits_per_spike, found.log_likelihood):
        assert score.shape == (3, 3)
        assert np.isnan(score[:, 2]).all()


def test_a_coupling_that_is_there_is_found_in_held_out_bins():
    counts = refractory_counts(1500, 2, np.log(0.3))
    X = HistoryConv(SELF.size).compute_features(counts)
    found = cross_validated(PopulationGLM(), X, counts)
    assert found.bits_per_spike.shape == (5, 2)
    assert (found.bits_per_spike.mean(axis=0) > 0.2).all()
    with pytest.raises(ValueError, match="folds is 1; expected an integer of at least 2"):
        cross_validated(PopulationGLM(), X, counts, folds=1)


# --- stability ----------------------------------------------------------------------------------


def companion_eigenvalues(filters, slopes):
    """Eigenvalues of ``x(t) = sum_l (filters[:, l] * slopes)' x(t - l)``."""
    n, window_size, _ = filters.shape
    matrix = np.eye(n * window_size, k=-n)
    for l in range(window_size):
        matrix[:n, l * n : (l + 1) * n] = (filters[:, l] * slopes).T
    return np.linalg.eigvals(matrix)


def network_model(n=4, n_funcs=3, window_size=12, scale=1.0, seed=0, sign=None, link="exp"):
    rng = np.random.default_rng(seed)
    coef = scale * rng.normal(0, 1, (n * n_funcs, n))
    if sign is not None:
        coef = sign * np.abs(coef)
    model = known_model(coef, rng.normal(-2, 0.3, n), inverse_link_function=link)
    return model, RaisedCosineLogConv(n_funcs, window_size), rng.uniform(0.05, 0.3, n)


def filters_of(model, kernel):
    n = model.intercept_.size
    filters = np.zeros((n, kernel.shape[0], n))
    for i, l, j in np.ndindex(filters.shape):
        for b in range(kernel.shape[1]):
            filters[i, l, j] += kernel[l, b] * model.coef_[i * kernel.shape[1] + b, j]
    return filters


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0])
def test_growing_modes_are_those_of_the_companion_matrix(seed, scale):
    model, basis, rates = network_model(scale=scale, seed=seed)
    found = stability(model, basis.kernel_, rates)
    filters = filters_of(model, basis.kernel_)
    modes = companion_eigenvalues(filters, rates)
    assert found.n_growing == (np.abs(modes) > 1).sum()
    assert found.stable == (np.abs(modes).max() < 1)
    gain = filters.sum(axis=1) * rates
    np.testing.assert_allclose(found.gain, gain, rtol=1e-10, atol=1e-14)
    values = np.linalg.eigvals(gain)
    assert found.radius == pytest.approx(np.abs(values).max(), rel=1e-9)
    assert found.leading == pytest.approx(values.real.max(), rel=1e-9)
    assert spectral_radius(model, basis, rates) == found.radius


@pytest.mark.parametrize("factor", [0.5, 0.99, 1.01, 2.0])
def test_an_excitatory_network_is_stable_exactly_below_1(factor):
    model, basis, rates = network_model(sign=1)
    model.coef_ *= factor / spectral_radius(model, basis, rates)
    found = stability(model, basis, rates)
    assert found.radius == pytest.approx(found.leading) == pytest.approx(factor)
    assert found.stable == (factor < 1)
    modes = companion_eigenvalues(filters_of(model, basis.kernel_), rates)
    assert (np.abs(modes).max() < 1) == (factor < 1)


def test_refractoriness_over_many_lags_is_stable_though_its_radius_exceeds_1():
    model = known_model(np.full((20, 1), -1.0), [0.0])  # twenty raw lags
    found = stability(model, np.eye(20), [0.075])
    assert found.radius == pytest.approx(1.5)
    assert found.leading == pytest.approx(-1.5)
    assert found.stable
    sudden = stability(known_model([[-20.0]], [0.0]), np.eye(1), [0.075])
    assert sudden.leading == found.leading
    assert not sudden.stable


def test_the_slope_of_softplus_takes_the_place_of_the_rate():
    model, basis, rates = network_model(link="softplus")
    eta, h = np.log(np.expm1(rates)), 1e-6
    slopes = (naive.softplus(eta + h) - naive.softplus(eta - h)) / (2 * h)
    area = filters_of(model, basis.kernel_).sum(axis=1)
    np.testing.assert_allclose(stability(model, basis, rates).gain, area * slopes, rtol=1e-8)


@pytest.mark.parametrize("link", ["exp", "softplus"])
@pytest.mark.parametrize("scale", [0.05, 0.15, -30.0])
def test_the_rates_sustain_themselves(link, scale):
    sign = np.sign(scale) if abs(scale) > 1 else None
    model, basis, _ = network_model(scale=abs(scale), sign=sign, link=link)
    rates = stability(model, basis).rates
    eta = model.intercept_ + rates @ filters_of(model, basis.kernel_).sum(axis=1)
    expected = {"exp": np.exp, "softplus": naive.softplus}[link](eta)
    np.testing.assert_allclose(rates, expected, rtol=1e-9)


def test_the_lower_of_two_fixed_points_is_taken():
    # r = exp(-2 + 2 r) at 0.2032 and at 1.1; the upper one is not stable.
    found = stability(known_model([[2.0]], [-2.0]), np.eye(1))
    assert found.rates[0] == pytest.approx(np.exp(-2 + 2 * found.rates[0]), rel=1e-10)
    assert found.radius < 1
    with pytest.raises(RuntimeError, match=r"No rates sustain themselves.*rates=counts\.mean"):
        spectral_radius(known_model([[2.0]], [-1.0]), np.eye(1))


@pytest.mark.parametrize(("gain", "runs_away"), [(0.3, False), (0.9, True)])
def test_what_is_stable_stays_and_what_has_no_fixed_point_runs_away(gain, runs_away):
    # Two cells that excite each other over 20 lags; before feedback they have 0.3 events per bin.
    coupling = np.zeros((2, 2, 20))
    coupling[0, 1] = coupling[1, 0] = gain / 0.3 / 20
    intercepts = np.log([0.3, 0.3])
    model = known_model(coupling.transpose(1, 2, 0).reshape(40, 2), intercepts)
    assert spectral_radius(model, np.eye(20), [0.3, 0.3]) == pytest.approx(gain)
    arguments = {"intercepts": intercepts, "n_bins": 2000, "inverse_link_function": "exp"}
    if runs_away:
        with pytest.raises(RuntimeError, match="No rates sustain themselves"):
            stability(model, np.eye(20))
        with pytest.raises(RuntimeError, match="ran away"):
            simulate_recurrent(coupling, random_key=0, **arguments)
    else:
        found = stability(model, np.eye(20))
        assert found.stable
        counts, _ = simulate_recurrent(coupling, random_key=0, **arguments)
        # Fluctuations raise the rates a little above the mean field's.
        np.testing.assert_allclose(counts.mean(axis=0), found.rates, rtol=0.2)


@pytest.mark.parametrize(("intercept", "warns"), [(-0.1, False), (0.1, True)])
def test_the_simulator_warns_from_a_gain_of_1_on(intercept, warns):
    # Two cells that excite each other: eigenvalues exp(intercept) and its negative.
    coupling = np.array([[[0.0], [1.0]], [[1.0], [0.0]]])
    arguments = {"n_bins": 1, "random_key": 0, "inverse_link_function": "exp"}
    if warns:
        with pytest.warns(UserWarning, match=r"excites itself: .* 1\.11 events"):
            simulate_recurrent(coupling, intercepts=[intercept] * 2, **arguments)
    else:
        simulate_recurrent(coupling, intercepts=[intercept] * 2, **arguments)
    simulate_recurrent(-5 * np.eye(2)[:, :, None], intercepts=[intercept] * 2, **arguments)


def test_one_receiver_on_itself():
    counts = refractory_counts(500, 1, np.log(0.3))
    X = HistoryConv(5).compute_features(counts)
    one = GLM(regularizer="Ridge", regularizer_strength=0.01).fit(X, counts[:, 0])
    found = stability(one, HistoryConv(5))
    assert found.gain.shape == (1, 1)
    assert found.gain[0, 0] == pytest.approx(one.coef_.sum() * found.rates[0])


# --- what goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "rates", "match"),
    [
        (np.ones(3), None, r"kernel has shape \(3,\); expected \(window_size, n_basis_funcs\)"),
        (
            np.ones((5, 2)),
            None,
            r"12 features for 4 receivers and the kernel 2 functions; expected",
        ),
        (np.ones((5, 3)), [0.1], r"rates has shape \(1,\); expected 4 finite numbers"),
        (np.ones((5, 3)), [0.1, 0.1, -0.1, 0.1], "not negative, in events per bin"),
        (np.ones((5, 3)), [0.1, 0.1, np.nan, 0.1], "expected 4 finite numbers"),
    ],
)
def test_networks_that_do_not_fit(kernel, rates, match):
    model, _, _ = network_model()
    for function in (spectral_radius, stability):
        with pytest.raises(ValueError, match=match):
            function(model, kernel, rates)


def test_a_receiver_without_coefficients_is_named():
    model, basis, _ = network_model()
    model.coef_[:, 2] = np.nan
    with pytest.raises(ValueError, match=r"Receivers \[2\] have no coefficients"):
        stability(model, basis)


@pytest.mark.parametrize("function", [time_rescaling, deviance_explained, bits_per_spike])
def test_data_that_do_not_fit(function):
    model, X, counts = explained_case()
    with pytest.raises(ValueError, match=r"y has shape \(299, 4\); expected .* = \(300, 4\)"):
        function(model, X, counts[1:])
    with pytest.raises(ValueError, match="None of the 2 rows of X is finite"):
        function(model, np.full((2, 12), np.nan), counts[:2])
    with pytest.raises(ValueError, match="X has 3 features, but PopulationGLM is expecting 12"):
        function(model, np.zeros((300, 3)), counts)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        function(PopulationGLM(), X, counts)


# --- families, weights and offsets ----------------------------------------------------------------


def bernoulli_case(n_bins=4000, n=3, link="logistic", seed=0):
    """A model known to have made the events, dense features with a hole, events."""
    rng = np.random.default_rng(seed)
    X = rng.normal(0, 1, (n_bins, 2))
    X[[0, 100, 101]] = np.nan
    parameters = {"observation_model": "Bernoulli", "inverse_link_function": link}
    model = known_model(rng.normal(0, 0.3, (2, n)), np.linspace(-2, 0, n), **parameters)
    p = model.predict(X)
    y = (rng.random(p.shape) < np.nan_to_num(p)).astype(float)
    y[50, 1] = np.nan
    return model, X, y, p


@pytest.mark.parametrize("link", ["logistic", "cloglog"])
def test_bernoulli_intervals_are_those_of_a_loop(link):
    model, X, y, p = bernoulli_case(600, link=link)
    found = time_rescaling(model, X, y)
    for j, seed in enumerate(np.random.default_rng(0).spawn(3)):
        # A bin adds -log(1 - p) in place of mu; the loop's chance 1 - exp(-that) is p.
        expected, n_censored = naive_intervals(-np.log(1 - p[:, j]), y[:, j], seed)
        np.testing.assert_allclose(found.intervals[j], expected, rtol=1e-10, atol=1e-13)
        assert found.n_censored[j] == n_censored
    assert not found.n_extra.any()


def test_the_true_bernoulli_model_passes_and_poisson_of_the_same_means_fails():
    model, X, y, _ = bernoulli_case(6000, 40)
    right = time_rescaling(model, X, y, random_key=1)
    assert stats.kstest(right.p_value, "uniform").pvalue > 0.01
    # With mu = p, Poisson counts have fewer events above 0 and longer intervals.
    poisson = known_model(np.zeros_like(model.coef_), np.log(np.nanmean(y, axis=0)))
    wrong = time_rescaling(poisson, X, y, random_key=1)
    assert (wrong.statistic > wrong.band()).mean() > 0.5


def test_gaussian_observations_are_not_events():
    X = np.random.default_rng(0).normal(size=(50, 2))
    model = known_model(np.ones((2, 3)), np.zeros(3), observation_model="Gaussian")
    for function in (time_rescaling, bits_per_spike):
        with pytest.raises(ValueError, match="Gaussian observations are not events"):
            function(model, X, X @ np.ones((2, 3)))


@pytest.mark.parametrize("link", ["logistic", "cloglog"])
def test_explained_deviance_and_bits_of_bernoulli(link):
    model, X, y, p = bernoulli_case(link=link)
    y[:, 2] = 1.0  # saturated: nothing to explain
    deviance, bits = deviance_explained(model, X, y), bits_per_spike(model, X, y)
    for j in range(2):
        known = np.isfinite(p[:, j]) & np.isfinite(y[:, j])
        q, events = p[known, j], y[known, j]
        null = events.mean()
        ll = np.log(np.where(events == 1, q, 1 - q)).sum()
        ll0 = np.log(np.where(events == 1, null, 1 - null)).sum()
        assert deviance[j] == pytest.approx(1 - ll / ll0, rel=1e-10)
        assert bits[j] == pytest.approx((ll - ll0) / events.sum() / np.log(2), rel=1e-10)
    assert np.isnan(deviance[2])


def test_explained_deviance_of_gaussian_is_r2():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 2))
    y = X @ rng.normal(size=(2, 3)) + rng.normal(size=(300, 3))
    y[:, 2] = 7.0
    model = known_model(rng.normal(size=(2, 3)), np.zeros(3), observation_model="Gaussian")
    found = deviance_explained(model, X, y)
    for j in range(2):
        assert found[j] == pytest.approx(r2_score(y[:, j], X @ model.coef_[:, j]), rel=1e-10)
    assert np.isnan(found[2])


def test_weights_are_rows_repeated_and_offsets_enter_model_and_null():
    rng = np.random.default_rng(0)
    X, weight = rng.normal(size=(300, 2)), rng.integers(0, 4, 300)
    offset = rng.normal(0, 0.5, 300)
    y = rng.poisson(np.exp(0.3 * X[:, :1] + offset[:, None] - 0.5), (300, 2))
    model = fastglm.PopulationGLM().fit(X, y, sample_weight=weight, offset=offset)
    for function in (deviance_explained, bits_per_spike):
        with pytest.raises(ValueError, match="was fitted with sample_weight"):
            function(model, X, y, offset=offset)
        with pytest.raises(ValueError, match="was fitted with offset"):
            function(model, X, y, sample_weight=weight)
        found = function(model, X, y, sample_weight=weight, offset=offset)
        again = np.repeat(np.arange(300), weight)
        same = fastglm.PopulationGLM().fit(X[again], y[again], offset=offset[again])
        expected = function(same, X[again], y[again], offset=offset[again])
        np.testing.assert_allclose(found, expected, rtol=1e-8)
    eta = X @ model.coef_ + model.intercept_ + offset[:, None]
    ll = (weight[:, None] * (y * eta - np.exp(eta))).sum(axis=0)
    level = np.log((weight @ y) / (weight @ np.exp(offset)))  # the optimal intercept alone
    null = level + offset[:, None]
    ll0 = (weight[:, None] * (y * null - np.exp(null))).sum(axis=0)
    np.testing.assert_allclose(found, (ll - ll0) / (weight @ y) / np.log(2), rtol=1e-8)
    rescaling = time_rescaling(model, X, y, offset=offset, sample_weight=weight > 0)
    holes = np.where((weight > 0)[:, None], np.exp(eta), np.nan)
    for j, seed in enumerate(np.random.default_rng(0).spawn(2)):
        expected, _ = naive_intervals(holes[:, j], y[:, j], seed)
        np.testing.assert_allclose(rescaling.intervals[j], expected, rtol=1e-10)
    with pytest.raises(ValueError, match="was fitted with offset"):
        time_rescaling(model, X, y)


@pytest.mark.parametrize("family", ["Bernoulli", "Gaussian"])
def test_held_out_scores_of_a_family(family):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2))
    eta = X @ [[1.0, 0.0], [0.5, 0.0]]
    mean = 1 / (1 + np.exp(-eta)) if family == "Bernoulli" else eta
    y = rng.random(mean.shape) < mean if family == "Bernoulli" else rng.normal(mean)
    y = y.astype(float)
    model = PopulationGLM(observation_model=family)
    found = cross_validated(model, X, y, folds=4)
    family = fastglm.observation_models.as_observation_model(family)
    for k, (train, test) in enumerate(split(fastglm.features.as_feature_matrix(X), 4)):
        fold = PopulationGLM(observation_model=family.name).fit(X[train], y[train])
        ll = family.log_probability(y[test], fold.predict(X[test]), fold.scale_).mean(axis=0)
        np.testing.assert_allclose(found.log_likelihood[k], ll, rtol=1e-8)
        null = y[train].mean(axis=0)
        gap = [
            family.unit_deviance(y[test], mu).sum(axis=0) for mu in (fold.predict(X[test]), null)
        ]
        np.testing.assert_allclose(found.deviance_explained[k], 1 - gap[0] / gap[1], rtol=1e-7)
    assert (found.deviance_explained[:, 0] > 0.05).all()
    assert np.isnan(found.bits_per_spike).all() == (family.name == "Gaussian")
    assert ("bits per spike" in repr(found)) == (family.name == "Bernoulli")


def test_held_out_scores_with_weights_and_offsets():
    rng = np.random.default_rng(0)
    X, weight, offset = rng.normal(size=(300, 2)), rng.uniform(0, 2, 300), rng.normal(0, 1, 300)
    y = rng.poisson(np.exp(0.3 * X[:, :1] + offset[:, None] - 0.5), (300, 2))
    given = {"sample_weight": weight, "offset": offset}
    found = cross_validated(PopulationGLM(), X, y, folds=3, **given)
    without = cross_validated(PopulationGLM(), X, y, folds=3)
    assert (found.log_likelihood > without.log_likelihood + 0.1).all()
    for k, (train, test) in enumerate(split(fastglm.features.as_feature_matrix(X), 3)):
        some = {name: values[train] for name, values in given.items()}
        fold = PopulationGLM().fit(X[train], y[train], **some)
        mu = fold.predict(X[test], offset=offset[test])
        ll = stats.poisson.logpmf(y[test], mu)
        expected = np.average(ll, axis=0, weights=weight[test])
        np.testing.assert_allclose(found.log_likelihood[k], expected, rtol=1e-8)


@pytest.mark.parametrize(
    ("family", "link", "rates"),
    [
        ("Bernoulli", "logistic", [0.2, 0.5, 0.9]),
        ("Bernoulli", "cloglog", [0.2, 0.5, 0.9]),
        ("Gaussian", "identity", [-3.0, 0.0, 2.0]),
    ],
)
def test_stability_has_the_slope_of_the_family(family, link, rates):
    rng = np.random.default_rng(0)
    coef = rng.normal(0, 0.3, (6, 3))
    parameters = {"observation_model": family, "inverse_link_function": link}
    model = known_model(coef, [-1.0, 0.0, 0.5], **parameters)
    r = np.array(rates)
    with np.errstate(invalid="ignore"):
        cloglog = -(1 - r) * np.log(1 - r)
    slope = {"logistic": r * (1 - r), "cloglog": cloglog, "identity": 1 + 0 * r}
    found = stability(model, np.eye(2), rates)
    np.testing.assert_allclose(
        found.gain, coef.reshape(3, 2, 3).sum(axis=1) * slope[link], rtol=1e-12
    )
    own = stability(model, np.eye(2))  # rates that sustain themselves
    eta = model.intercept_ + own.rates @ coef.reshape(3, 2, 3).sum(axis=1)
    mean = {"logistic": 1 / (1 + np.exp(-eta)), "cloglog": 1 - np.exp(-np.exp(eta))}
    np.testing.assert_allclose(own.rates, mean.get(link, eta), rtol=1e-9)


def test_a_gaussian_network_is_stable_where_its_companion_matrix_is():
    for strength, stable in ((0.4, True), (0.6, False)):
        coef = np.array([[0.0, strength], [0.0, strength], [strength, 0.0], [strength, 0.0]])
        model = known_model(coef, np.zeros(2), observation_model="Gaussian")
        found = stability(model, np.eye(2))
        assert found.stable == stable
        first, second = coef.reshape(2, 2, 2).transpose(1, 0, 2)
        companion = np.block([[first, np.eye(2)], [second, np.zeros((2, 2))]])
        assert found.n_growing == (np.abs(np.linalg.eigvals(companion)) > 1).sum()


def test_rates_that_a_family_cannot_have():
    model = known_model(np.zeros((2, 2)), np.zeros(2), observation_model="Bernoulli")
    with pytest.raises(ValueError, match="2 finite numbers, not negative, at most 1, in events"):
        stability(model, np.eye(1), [0.5, 1.5])
    assert stability(model, np.eye(1), [0.0, 1.0]).stable
    gaussian = known_model(np.zeros((2, 2)), np.zeros(2), observation_model="Gaussian")
    with pytest.raises(ValueError, match=r"expected 2 finite numbers\. Pass counts"):
        stability(gaussian, np.eye(1), [0.5, np.nan])
