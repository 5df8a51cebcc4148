"""Same-bin synchrony: against loops, under independence, and what it finds."""

import numpy as np
import pytest
from scipy import stats

import fastglm
from fastglm.connectivity import synchrony

BASIS = fastglm.basis.RaisedCosineLogConv(3, window_size=10)


def naive(y, mu, variance, weight):
    """S and V, bin by bin."""
    n_bins, n = y.shape
    excess, total = np.zeros((2, n, n))
    for t in range(n_bins):
        for i in range(n):
            for j in range(n):
                a, b = y[t, i] - mu[t, i], y[t, j] - mu[t, j]
                if np.isfinite(a) and np.isfinite(b):
                    excess[i, j] += weight[t] * a * b
                    total[i, j] += weight[t] * variance[t, i] * variance[t, j]
    return excess, total


@pytest.mark.parametrize("family", ["Poisson", "Bernoulli", "Gaussian"])
def test_it_is_the_sum_over_bins(family):
    """With weights, an offset, unknown counts, epochs, and bins of weight 0."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.3, size=(200, 3)).astype(float)
    if family == "Bernoulli":
        counts = counts.clip(max=1)
    X = BASIS.compute_features(counts, epochs=[[0, 80], [80, 200]])
    y = counts if family != "Gaussian" else counts + rng.normal(size=counts.shape)
    y[50:60, 1] = np.nan
    weight = rng.choice([0.0, 0.5, 1.0, 3.0], size=200)
    offset = 0.1 * rng.normal(size=(200, 1))
    given = {"sample_weight": weight, "offset": offset}
    model = fastglm.PopulationGLM(family, regularizer="Ridge", regularizer_strength=1e-3)
    model.fit(X, y, **given)
    found = synchrony(model, X, y, **given)
    mu = model.predict(X, offset=offset)
    variance = {
        "Poisson": mu,
        "Bernoulli": mu * (1 - mu),
        "Gaussian": np.broadcast_to(model.scale_, mu.shape),
    }[family]
    excess, total = naive(y, mu, variance, weight)
    between = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(found.excess, excess, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.variance, total, rtol=1e-9)
    np.testing.assert_allclose(found.z[between], (excess / np.sqrt(total))[between], rtol=1e-8)
    size = np.sqrt(np.diag(excess))
    np.testing.assert_allclose(
        found.correlation[between], (excess / np.outer(size, size))[between], rtol=1e-8
    )
    for values in (found.z, found.strength, found.correlation, found.p_value, found.q_value):
        assert np.isnan(np.diag(values)).all()
        np.testing.assert_array_equal(values, values.T)
    if family == "Gaussian":
        assert np.isnan(found.strength).all()
    else:
        inside = X.valid & (weight > 0)
        events = np.nansum(weight[inside, None] * y[inside], axis=0)
        rarer = np.minimum.outer(events, events)
        np.testing.assert_allclose(found.strength[between], (excess / rarer)[between], rtol=1e-8)


@pytest.fixture(scope="module")
def cells():
    """Forty cells of 0.2 to 50 Hz."""
    rng = np.random.default_rng(1)
    rate = np.geomspace(2e-4, 0.05, 40)
    counts = rng.poisson(rate, size=(100_000, 40))
    X = BASIS.compute_features(counts)
    settings = {"regularizer": "Ridge", "regularizer_strength": 1e-3}
    return counts, X, fastglm.PopulationGLM(**settings).fit(X, counts)


def test_independent_cells_are_standard_normal(cells):
    counts, X, model = cells
    found = synchrony(model, X, counts)
    upper = np.triu_indices(40, 1)
    z, p = found.z[upper], found.p_value[upper]
    many = found.variance[upper] > 5
    assert many.sum() > 150
    assert stats.kstest(z[many], "norm").pvalue > 0.01
    assert (p < 0.05).mean() < 0.06  # where few coincidences are expected it is less
    assert (p < 0.001).mean() < 0.005
    assert (2 * stats.norm.sf(np.abs(z)) < 0.001).mean() > 0.005  # without the skewness
    assert found.significant().sum() == 0


def test_shared_input_is_found_and_predicted_coincidences_are_not():
    rng = np.random.default_rng(2)
    counts = rng.poisson(0.02, size=(40_000, 5))
    counts[:, :2] += rng.poisson(0.002, size=(40_000, 1))
    counts[:, 2] = counts[:, 2].clip(max=1)
    counts[2:, 3:] += rng.binomial(1, 0.3, size=(39_998, 2)) * counts[:-2, 2:3]
    frame = {name: counts[:, k] for k, name in enumerate("abcde")}
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(frame)
    X = fastglm.basis.HistoryConv(3).compute_features(frame)
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-6).fit(X, frame)
    found = synchrony(model, X, frame)
    assert np.argwhere(np.triu(found.significant())).tolist() == [[0, 1]]
    assert found.strength[0, 1] == pytest.approx(0.002 / 0.022, rel=0.3)
    assert repr(found) == "Synchrony of 10 pairs, 1 with q <= 0.05"
    table = found.to_frame()
    assert len(table) == 10
    assert table.sort_values("q_value").iloc[0, :2].tolist() == ["a", "b"]
    # Two receivers of one sender coincide; the history of the sender says so.
    other = np.corrcoef(counts[:, 3], counts[:, 4])[0, 1]
    assert other > 0.05
    assert found.z[3, 4] < 3


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_cells_without_a_fit_and_single_receivers():
    rng = np.random.default_rng(3)
    counts = rng.poisson(0.1, size=(2000, 3))
    counts[:, 1] = 0
    X = BASIS.compute_features(counts)
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-3).fit(X, counts)
    found = synchrony(model, X, counts)
    assert np.isnan(found.z[1]).all()
    assert np.isnan(found.q_value[1]).all()
    assert np.isfinite(found.z[0, 2])
    one = fastglm.GLM(regularizer="Ridge", regularizer_strength=1e-3).fit(X, counts[:, 0])
    with pytest.raises(ValueError, match="one receiver, and synchrony is of pairs"):
        synchrony(one, X, counts[:, 0])
