"""The one call: known couplings are found, choices are written down, what drives all is not."""

import numpy as np
import pytest
import scipy.sparse

import fastglm
from fastglm.connectivity.nuisance import pooled
from fastglm.features.history import HistoryColumns


def chain(n_bins=60_000, seed=0):
    """Five cells: 0 drives 1 after 3 bins, 2 silences 3 for ten."""
    rng = np.random.default_rng(seed)
    counts = rng.binomial(1, [0.02, 0.02, 0.05, 0.05, 0.02], size=(n_bins, 5))
    counts[3:, 1] |= counts[:-3, 0] & rng.binomial(1, 0.3, size=n_bins - 3)
    for lag in range(1, 11):
        counts[lag:, 3] &= ~(counts[:-lag, 2] & rng.binomial(1, 0.6, size=n_bins - lag))
    return counts


@pytest.fixture(scope="module")
def found():
    counts = chain()
    return counts, fastglm.infer_connectivity(counts, 0.001)


def test_known_couplings_are_found_and_no_others(found):
    _, couplings = found
    assert np.argwhere(couplings.significant(0.01)).tolist() == [[0, 1], [2, 3]]
    filters, _, _ = couplings.filters()
    assert filters[:, 0, 1].argmax() == 2  # lag 3
    assert couplings.strength[0, 1] > 0
    assert couplings.strength[2, 3] == couplings.strength.min() < -5


def test_the_ridge_is_the_stated_prior(found):
    _, couplings = found
    model = couplings.model
    kernel = model.basis_.kernel_
    n_bins = model.X_.valid.sum()
    strength = model.regularizer_strength
    area = kernel.sum(axis=0)
    np.testing.assert_allclose(
        strength[:6, 1], (area / area.mean()) ** 2 / (n_bins * 0.2**2), rtol=1e-12
    )
    np.testing.assert_allclose(strength[:6, 0], 1 / n_bins, rtol=1e-12)
    np.testing.assert_allclose(strength[30:], 1 / n_bins, rtol=1e-12)
    assert model.X_.shape == (60_000, 5 * 6 + 4)
    assert couplings.settings["window"] == "50 ms (50 bins)"


def test_activity_is_the_filtered_past_of_all_cells(found):
    counts, couplings = found
    total = counts.sum(axis=1)
    columns = np.asarray(couplings.model.X_[:5000])[:, 30:]
    lags = np.arange(50)
    fast = np.convolve(total, np.exp(-lags / 20.0))[:5000]
    r = np.corrcoef(columns[100:, 0], fast[99:-1])[0, 1]
    assert r == pytest.approx(1, abs=1e-6)
    # Slow ones: what has decayed of whole blocks of a quarter of the timescale, never the future.
    every, tau = 25, 100
    blocks = total[: 60_000 // every * every].reshape(-1, every).sum(axis=1)
    state, expected = np.exp(-every / tau) * blocks.mean() / (1 - np.exp(-every / tau)), []
    for block in blocks:
        expected.append(state)
        state = np.exp(-every / tau) * (state + block)
    r = np.corrcoef(columns[50:, 1], np.repeat(expected, every)[50:5000])[0, 1]
    assert r == pytest.approx(1, abs=1e-9)


def test_trials_spike_times_and_sparse_counts_are_the_same(found):
    counts, couplings = found
    sparse = fastglm.infer_connectivity(scipy.sparse.csr_array(counts), 0.001)
    np.testing.assert_allclose(sparse.strength, couplings.strength, rtol=1e-9, atol=1e-12)
    times = {name: (np.flatnonzero(counts[:, k]) + 0.5) * 1e-3 for k, name in enumerate("abcde")}
    named = fastglm.infer_connectivity(times, epochs=[[0, 60]])
    np.testing.assert_allclose(named.strength, couplings.strength, rtol=1e-9, atol=1e-12)
    assert named.senders.tolist() == list("abcde")
    trials = fastglm.infer_connectivity(np.split(counts[:20_000], 4), 0.001)
    pieces = fastglm.infer_connectivity(
        counts[:20_000], 0.001, epochs=np.arange(0, 20_000, 5000)[:, None] + [0, 5000]
    )
    np.testing.assert_array_equal(trials.strength, pieces.strength)


def test_coarse_bins_have_a_window_of_five():
    couplings = fastglm.infer_connectivity(chain(5000), bin_size=0.05)
    assert couplings.settings["window"] == "250 ms (5 bins)"
    assert couplings.settings["covariates"] == "activity of all cells over 0.1 s, 1 s, 10 s"


def test_silent_cells_and_silence():
    counts = chain(5000)
    counts[:, 4] = 0
    with pytest.warns(fastglm.glm.ConvergenceWarning, match="silent"):
        couplings = fastglm.infer_connectivity(counts, 0.001)
    assert np.isnan(couplings.q_value[0, 4])
    assert pooled(HistoryColumns(np.zeros((99, 2)), np.ones((5, 1))), 9) is None


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="counts hold 1 cell; expected at least two"):
        fastglm.infer_connectivity(chain(500)[:, :1], 0.001)
    with pytest.raises(ValueError, match="bin_size"):
        fastglm.infer_connectivity(chain(500), bin_size=0)


@pytest.mark.parametrize("link", [None, "cloglog"])
def test_bernoulli_observations_find_the_same(link):
    counts = chain(20_000)
    poisson = fastglm.infer_connectivity(counts, 0.001)
    couplings = fastglm.infer_connectivity(
        counts, 0.001, observation_model="Bernoulli", inverse_link_function=link
    )
    assert np.argwhere(couplings.significant(0.01)).tolist() == [[0, 1], [2, 3]]
    assert couplings.settings["observations"] == f"Bernoulli, link {link or 'logistic'}"
    eta = "log rate" if link else "log odds"
    assert couplings.settings["penalty"].startswith(f"ridge; couplings of 0.2 in {eta} are")
    filters = couplings.filters()[0][:, 0, 1], poisson.filters()[0][:, 0, 1]
    np.testing.assert_allclose(filters[0][2], filters[1][2], rtol=0.2)  # lag 3


def test_what_has_no_log_rate_and_no_spike_times_is_refused():
    counts = np.zeros((100, 2))
    with pytest.raises(ValueError, match="in log rate, which Gaussian observations do not have"):
        fastglm.infer_connectivity(counts, 0.001, observation_model="Gaussian")
    with pytest.raises(ValueError, match=r"clip goes with spike times; for counts pass counts\."):
        fastglm.infer_connectivity(counts, 0.001, clip=True)
    with pytest.raises(ValueError, match=r"y holds 2 in bin .* Pass counts\.clip\(max=1\)\?"):
        fastglm.infer_connectivity(counts + 2, 0.001, observation_model="Bernoulli")
