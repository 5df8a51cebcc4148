"""Simulated networks: the lag convention, the seed, what runs away, networks to try things on."""

import inspect
import warnings

import naive
import numpy as np
import pytest

import fastglm
from fastglm import simulation
from fastglm._checks import read_key
from fastglm.basis import HistoryConv, RaisedCosineLogConv
from fastglm.observation_models import as_observation_model
from fastglm.simulation import Network, random_network, simulate_recurrent

LINKS = {"exp": np.exp, "softplus": naive.softplus}
LINK = pytest.mark.parametrize("link", LINKS)
ONE = np.zeros((1, 1, 1))  # one neuron that does not hear itself


def make_network(n_cells=3, n_funcs=2, window_size=4, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "coupling_coef": rng.normal(0, 0.4, (n_cells, n_cells, n_funcs)),
        "intercepts": rng.normal(-0.5, 0.3, n_cells),
        "coupling_basis_matrix": rng.normal(0, 0.5, (window_size, n_funcs)),
    }


def expected_rates(counts, network, link, drive=None, init_y=None):
    eta = naive.recurrent_eta(
        counts,
        network["coupling_coef"],
        network["coupling_basis_matrix"],
        network["intercepts"],
        drive,
        init_y,
    )
    return LINKS[link](eta)


# --- rates --------------------------------------------------------------------------------------


@LINK
@pytest.mark.parametrize(("n_bins", "window_size"), [(1, 1), (1, 6), (3, 6), (60, 1), (60, 4)])
def test_rates_follow_from_the_counts_before(link, n_bins, window_size):
    network = make_network(window_size=window_size)
    counts, rates = simulate_recurrent(
        **network, n_bins=n_bins, random_key=1, inverse_link_function=link
    )
    assert counts.shape == rates.shape == (n_bins, 3)
    assert (counts.dtype, rates.dtype) == (np.int64, np.float64)
    np.testing.assert_allclose(rates, expected_rates(counts, network, link), rtol=1e-10)
    if n_bins == 60:
        assert counts.sum() > 20  # there is something to see


@LINK
def test_counts_before_the_first_bin_and_the_drive_enter_the_rates(link):
    network, rng = make_network(), np.random.default_rng(2)
    init_y = rng.integers(1, 4, (4, 3))
    inputs, weights = rng.normal(-0.5, 0.5, (40, 3, 2)), rng.uniform(0.5, 1.0, (3, 2))
    counts, rates = simulate_recurrent(
        **network,
        feedforward_coef=weights,
        feedforward_input=inputs,
        init_y=init_y,
        random_key=1,
        inverse_link_function=link,
    )
    drive = (inputs * weights).sum(axis=2)
    expected = expected_rates(counts, network, link, drive, init_y)
    np.testing.assert_allclose(rates, expected, rtol=1e-10)
    silent = expected_rates(counts, network, link, drive)
    assert abs(rates[:4] - silent[:4]).min() > 1e-6  # init_y was seen, for a window
    np.testing.assert_allclose(rates[4:], silent[4:], rtol=1e-10)


def test_the_last_row_of_init_y_is_the_most_recent():
    coupling = np.array([[[1.0, 0.0, 0.0]]])  # lag 1 alone
    _, rates = simulate_recurrent(
        coupling, intercepts=[-30.0], init_y=[[0], [0], [2]], n_bins=3, inverse_link_function="exp"
    )
    np.testing.assert_allclose(np.log(rates[:, 0]), [-28, -30, -30])


def test_coupling_goes_from_the_second_axis_to_the_first():
    coupling = np.zeros((2, 2, 1))
    coupling[0, 1] = 3.0  # neuron 1 excites neuron 0
    _, rates = simulate_recurrent(
        coupling, intercepts=[-30, -30], init_y=[[0, 1]], n_bins=1, inverse_link_function="exp"
    )
    np.testing.assert_allclose(np.log(rates), [[-27, -30]])


def test_without_a_kernel_the_coefficients_are_raw_lags():
    network = make_network(n_funcs=4)
    raw = {**network, "coupling_basis_matrix": np.eye(4)}
    with_eye = simulate_recurrent(**raw, n_bins=30, random_key=0)
    del raw["coupling_basis_matrix"]
    without = simulate_recurrent(**raw, n_bins=30, random_key=0)
    for a, b in zip(with_eye, without, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("chunk", [1, 7, 20])
@pytest.mark.parametrize("window_size", [1, 5, 9])
def test_the_window_reaches_over_the_edge_of_a_chunk(monkeypatch, chunk, window_size):
    network = make_network(window_size=window_size)
    init_y = np.ones((window_size, 3))
    whole = simulate_recurrent(**network, n_bins=40, init_y=init_y, random_key=3)
    monkeypatch.setattr(simulation, "_CHUNK", chunk)
    parts = simulate_recurrent(**network, n_bins=40, init_y=init_y, random_key=3)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(a, b)
    expected = expected_rates(parts[0], network, "softplus", init_y=init_y)
    np.testing.assert_allclose(parts[1], expected, rtol=1e-10)


def test_the_default_link_is_softplus():
    _, rates = simulate_recurrent(ONE, intercepts=[1.0], n_bins=1)
    np.testing.assert_allclose(rates, np.log1p(np.exp(1.0)), rtol=1e-15)


@LINK
def test_a_drive_far_below_zero_silences(link):
    counts, rates = simulate_recurrent(
        ONE, intercepts=[-1e4], n_bins=50, random_key=0, inverse_link_function=link
    )
    assert not counts.any()
    np.testing.assert_array_equal(rates, 0)


def test_softplus_is_linear_far_above_zero():
    counts, rates = simulate_recurrent(ONE, intercepts=[900.0], n_bins=50, random_key=0)
    np.testing.assert_array_equal(rates, 900)
    assert abs(counts.mean() - 900) < 5 * np.sqrt(900 / 50)


@LINK
def test_the_drive_acts_in_its_own_bin(link):
    inputs = np.full((20, 2, 1), -1.0)
    inputs[7, 1] = 3.0
    _, rates = simulate_recurrent(
        np.zeros((2, 2, 1)),
        np.ones((2, 1)),
        [0, 0],
        feedforward_input=inputs,
        inverse_link_function=link,
    )
    np.testing.assert_allclose(rates, LINKS[link](inputs[:, :, 0]), rtol=1e-14)


@pytest.mark.parametrize("rate", [0.01, 1.0, 40.0])  # below and above 10: two ways to draw
def test_counts_are_poisson(rate):
    counts, _ = simulate_recurrent(
        np.zeros((2, 2, 1)),
        intercepts=np.log([rate, rate]),
        n_bins=5000,
        random_key=0,
        inverse_link_function="exp",
    )
    n = counts.size
    assert abs(counts.mean() - rate) < 4 * np.sqrt(rate / n)
    assert abs(counts.var() - rate) < 4 * np.sqrt((rate + 2 * rate**2) / n)


# --- the seed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [3, [0, 42], np.array([0, 42], np.uint32)])
def test_the_same_seed_gives_the_same_spikes(seed):
    first, second = (
        simulate_recurrent(**make_network(), n_bins=50, random_key=seed)[0] for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("a", "b"), [(0, 1), (None, None), ([0, 1], [1, 0])])
def test_another_seed_gives_other_spikes(a, b):
    first, second = (
        simulate_recurrent(**make_network(), n_bins=50, random_key=key)[0] for key in (a, b)
    )
    assert (first != second).any()


def test_a_generator_is_taken_and_moves_on():
    rng = np.random.default_rng(5)
    first, second = (
        simulate_recurrent(**make_network(), n_bins=50, random_key=rng)[0] for _ in range(2)
    )
    seeded = simulate_recurrent(**make_network(), n_bins=50, random_key=5)[0]
    np.testing.assert_array_equal(first, seeded)
    assert (first != second).any()


# --- what goes wrong ----------------------------------------------------------------------------


@LINK
def test_a_network_that_runs_away_names_the_neuron_and_the_bin(link):
    inputs = np.zeros((10, 2, 1))
    inputs[7, 1] = 1e6
    match = "neuron 1 expects .* events in bin 7, more than max_rate=1000"
    with pytest.raises(RuntimeError, match=match):
        simulate_recurrent(
            np.zeros((2, 2, 1)),
            np.ones((2, 1)),
            [-1, -1],
            feedforward_input=inputs,
            inverse_link_function=link,
        )


def test_a_network_that_excites_itself_warns_and_runs_away():
    warns = pytest.warns(UserWarning, match=r"The network excites itself: .* 2.72 events")
    with warns, pytest.raises(RuntimeError, match="The network ran away: neuron 0 expects"):
        simulate_recurrent(
            np.ones((1, 1, 1)), None, [1.0], 0, n_bins=1000, inverse_link_function="exp"
        )


def test_the_highest_rate_can_be_chosen():
    with pytest.raises(RuntimeError, match=r"neuron 0 expects 10 events in bin 0, .*max_rate=9"):
        simulate_recurrent(ONE, intercepts=[10.0], n_bins=5, max_rate=9)
    assert simulate_recurrent(ONE, intercepts=[10.0], n_bins=5, max_rate=11)[0].shape == (5, 1)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"coupling_coef": np.zeros((2, 2))}, r"coupling_coef has shape \(2, 2\); expected"),
        ({"coupling_coef": np.zeros((2, 3, 1))}, r"coupling_coef has shape \(2, 3, 1\)"),
        ({"intercepts": None}, r"intercepts is missing; expected an array of shape \(2,\)"),
        ({"intercepts": [0.0]}, r"intercepts has shape \(1,\); expected \(2,\)"),
        ({"intercepts": [0.0, np.nan]}, "intercepts holds NaN or infinity; expected finite"),
        (
            {"coupling_basis_matrix": np.ones((4, 2))},
            r"coupling_basis_matrix has shape \(4, 2\); expected \(any, 1,\)",
        ),
        ({"init_y": np.ones((2, 2))}, r"init_y has shape \(2, 2\); expected \(1, 2,\)"),
        ({"init_y": np.full((1, 2), np.inf)}, "init_y holds NaN or infinity"),
        ({"n_bins": None}, "Give n_bins, or feedforward_input"),
        ({"feedforward_input": np.ones((5, 2))}, r"feedforward_input has shape \(5, 2\)"),
        ({"feedforward_input": np.ones((5, 3, 1))}, r"feedforward_input has shape \(5, 3, 1\)"),
        ({"feedforward_input": np.ones((5, 2, 1))}, "feedforward_coef is missing"),
        (
            {"feedforward_input": np.ones((5, 2, 1)), "feedforward_coef": np.ones((2, 3))},
            r"feedforward_coef has shape \(2, 3\); expected \(2, 1,\)",
        ),
        (
            {"feedforward_input": np.ones((6, 2, 1)), "feedforward_coef": np.ones((2, 1))},
            "n_bins is 5 but feedforward_input has 6 bins; leave n_bins out",
        ),
        (
            {"inverse_link_function": "tanh"},
            "inverse_link_function is 'tanh'; Poisson observations take 'exp'",
        ),
    ],
)
def test_arguments_that_do_not_fit(changes, match):
    arguments = {"coupling_coef": np.zeros((2, 2, 1)), "intercepts": [0.0, 0.0], "n_bins": 5}
    with pytest.raises(ValueError, match=match):
        simulate_recurrent(**{**arguments, **changes})


def test_a_link_may_be_a_function():
    given = {**make_network(), "n_bins": 30, "random_key": 0}
    for link, name in ((np.exp, "exp"), (naive.softplus, "softplus")):
        first, second = (
            simulate_recurrent(**given, inverse_link_function=one)[0] for one in (link, name)
        )
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("link", ["log", np.log, 3, "logistic"])
def test_links_that_are_not_known(link):
    with pytest.raises(ValueError, match=r"inverse_link_function is .*; Poisson observations take"):
        simulate_recurrent(**make_network(), n_bins=5, inverse_link_function=link)


# --- families -----------------------------------------------------------------------------------

FAMILIES = [
    ("Poisson", "exp"),
    ("Poisson", "softplus"),
    ("Bernoulli", "logistic"),
    ("Bernoulli", "cloglog"),
    ("Gaussian", "identity"),
    ("NegativeBinomial", "exp"),
    ("NegativeBinomial", "softplus"),
    ("Gamma", "exp"),
    ("Gamma", "softplus"),
]
SCALED = "Gaussian", "Gamma", "NegativeBinomial"
MEANS = {
    **LINKS,
    "logistic": lambda eta: 1 / (1 + np.exp(-eta)),
    "cloglog": lambda eta: 1 - np.exp(-np.exp(eta)),
    "identity": lambda eta: eta,
}


@pytest.mark.parametrize(("family", "link"), FAMILIES)
def test_means_of_every_family_follow_from_the_counts_before(family, link):
    network = make_network()
    network["coupling_coef"] *= 0.5
    scale = [0.5, 1.0, 2.0] if family in SCALED else None
    counts, means = simulate_recurrent(
        **network,
        n_bins=60,
        random_key=1,
        inverse_link_function=link,
        observation_model=family,
        scale=scale,
        init_y=np.ones((4, 3)),
    )
    eta = naive.recurrent_eta(
        counts,
        network["coupling_coef"],
        network["coupling_basis_matrix"],
        network["intercepts"],
        None,
        np.ones((4, 3)),
    )
    np.testing.assert_allclose(means, MEANS[link](eta), rtol=1e-10)
    assert counts.dtype == (np.float64 if family in ("Gaussian", "Gamma") else np.int64)
    if family == "Bernoulli":
        assert set(np.unique(counts)) == {0, 1}


@pytest.mark.parametrize(("family", "link"), FAMILIES)
def test_a_family_without_a_kernel_draws_the_same(monkeypatch, family, link):
    network = make_network()
    given = {
        **network,
        "coupling_coef": 0.5 * network["coupling_coef"],
        "n_bins": 50,
        "random_key": 3,
        "inverse_link_function": link,
        "observation_model": family,
        "scale": [0.5, 1.0, 2.0] if family in SCALED else None,
    }
    compiled = simulate_recurrent(**given)
    loss = as_observation_model(family).losses[link]
    monkeypatch.setattr(loss, "simulator", None)
    plain = simulate_recurrent(**given)
    for a, b in zip(compiled, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)
    with pytest.raises(RuntimeError, match="The network ran away: neuron"):
        simulate_recurrent(**given, max_rate=0.05)


@pytest.mark.parametrize(
    ("family", "link", "mean", "variance"),
    [
        ("Bernoulli", "logistic", 0.3, 0.21),
        ("Bernoulli", "cloglog", 0.3, 0.21),
        ("Gaussian", "identity", -2.0, 2.5),
    ],
)
def test_mean_and_variance_of_a_family(family, link, mean, variance):
    eta = {"logistic": np.log(3 / 7), "cloglog": np.log(-np.log(0.7)), "identity": mean}[link]
    counts, means = simulate_recurrent(
        np.zeros((2, 2, 1)),
        intercepts=[eta, eta],
        n_bins=20_000,
        random_key=0,
        observation_model=family,
        inverse_link_function=link,
        scale=2.5 if family == "Gaussian" else None,
    )
    np.testing.assert_allclose(means, mean, rtol=1e-12)
    assert abs(counts.mean() - mean) < 4 * np.sqrt(variance / counts.size)
    assert counts.var() == pytest.approx(variance, rel=0.03)


@pytest.mark.parametrize(("family", "link"), FAMILIES[1:5:2] + FAMILIES[4:6])
def test_the_default_link_of_a_family(family, link):
    given = {**make_network(), "n_bins": 20, "random_key": 0, "observation_model": family}
    if (family, link) == ("Bernoulli", "cloglog"):
        link = "logistic"
    first, second = (
        simulate_recurrent(**given, inverse_link_function=one)[0] for one in (None, link)
    )
    np.testing.assert_array_equal(first, second)


def test_a_drive_far_from_zero_ends_bernoulli_at_none_and_always():
    for link in ("logistic", "cloglog"):
        counts, means = simulate_recurrent(
            np.zeros((2, 2, 1)),
            intercepts=[-1e4, 1e4],
            n_bins=50,
            random_key=0,
            observation_model="Bernoulli",
            inverse_link_function=link,
        )
        np.testing.assert_allclose(means, [[0, 1]] * 50, atol=1e-300)
        np.testing.assert_array_equal(counts, [[0, 1]] * 50)


def test_a_gaussian_network_that_grows_runs_away():
    given = {"coupling_coef": np.full((1, 1, 1), -2.0), "intercepts": [0.0], "n_bins": 1000}
    with pytest.raises(RuntimeError, match=r"neuron 0 has a mean of .* beyond max_rate=1e"):
        simulate_recurrent(**given, observation_model="Gaussian", random_key=0)


def test_bernoulli_excitation_ends_at_an_event_in_every_bin():
    given = {"coupling_coef": np.full((1, 1, 1), 9.0), "intercepts": [0.0], "n_bins": 100}
    with pytest.warns(UserWarning, match="rates may grow until every bin has an event"):
        counts, _ = simulate_recurrent(**given, observation_model="Bernoulli", random_key=0)
    assert counts.mean() > 0.9


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"scale": 2.0}, "scale is 2.0; Poisson observations have the scale 1"),
        ({"observation_model": "Gaussian", "scale": 0.0}, "scale is 0.0; expected variances above"),
        ({"observation_model": "Gaussian", "scale": [1.0]}, r"scale has shape \(1,\); expected"),
        ({"observation_model": "Tweedie"}, "observation_model is 'Tweedie'; expected one of"),
        (
            {"observation_model": "Bernoulli", "inverse_link_function": "exp"},
            "inverse_link_function is 'exp'; Bernoulli observations take 'logistic', 'cloglog'",
        ),
    ],
)
def test_what_a_family_does_not_take(changes, match):
    with pytest.raises(ValueError, match=match):
        simulate_recurrent(**make_network(), n_bins=5, **changes)


# --- networks to try things on ------------------------------------------------------------------


def test_shapes_of_a_random_network():
    basis = RaisedCosineLogConv(4, 12)
    network = random_network(7, basis)
    assert network.coupling_coef.shape == (7, 7, 4)
    assert network.intercepts.shape == (7,)
    assert network.adjacency.shape == (7, 7)
    assert network.filters.shape == (7, 12, 7)
    assert network.coef.shape == (28, 7)
    np.testing.assert_array_equal(network.kernel, basis.kernel_)


def test_the_adjacency_is_the_sign_of_the_coupling():
    network = random_network(30, RaisedCosineLogConv(4, 12), connection_probability=0.2)
    assert not network.adjacency.diagonal().any()
    others = ~np.eye(30, dtype=bool)
    area = network.filters.sum(axis=1)
    np.testing.assert_array_equal(np.sign(area[others]), network.adjacency[others])
    assert (area.diagonal() < 0).all()  # refractory
    assert 0.1 < (network.adjacency != 0)[others].mean() < 0.3


def test_every_sender_excites_or_inhibits():
    adjacency = random_network(40, HistoryConv(3)).adjacency
    assert ((adjacency >= 0).all(axis=1) | (adjacency <= 0).all(axis=1)).all()
    assert set(np.unique(adjacency)) == {-1, 0, 1}


@pytest.mark.parametrize("n_funcs", [2, 8])
def test_filters_are_the_kernel_times_the_coupling(n_funcs):
    network = random_network(4, RaisedCosineLogConv(n_funcs, 12), connection_probability=0.5)
    filters = np.zeros((4, 12, 4))
    for i, l, j in np.ndindex(filters.shape):
        filters[i, l, j] = network.kernel[l] @ network.coupling_coef[j, i]
    np.testing.assert_allclose(network.filters, filters, atol=1e-13)


def test_the_coefficients_are_those_of_a_model_of_the_features():
    basis = RaisedCosineLogConv(3, 6)
    network = random_network(4, basis, mean_rate_hz=200, connection_probability=0.5)
    counts, rates = simulate_recurrent(
        network.coupling_coef,
        intercepts=network.intercepts,
        coupling_basis_matrix=network.kernel,
        n_bins=80,
        random_key=0,
        inverse_link_function="exp",
    )
    X = basis.compute_features(counts)
    assert X[6:].any()
    eta = X[6:] @ network.coef + network.intercepts
    np.testing.assert_allclose(eta, np.log(rates[6:]), rtol=0, atol=1e-10)


def test_a_network_simulates_with_the_exponential_link():
    network = random_network(4, RaisedCosineLogConv(3, 6), mean_rate_hz=200)
    counts = network.simulate(80, random_key=0)
    assert counts.shape == (80, 4)
    assert counts.dtype == np.int32
    assert counts.any()
    expected, _ = simulate_recurrent(
        network.coupling_coef,
        intercepts=network.intercepts,
        coupling_basis_matrix=network.kernel,
        n_bins=80,
        random_key=0,
        inverse_link_function="exp",
    )
    np.testing.assert_array_equal(counts, expected)


def test_progress_counts_the_bins(monkeypatch):
    monkeypatch.setattr(simulation, "_CHUNK", 30)
    done = []
    random_network(2, HistoryConv(3)).simulate(80, random_key=0, progress=done.append)
    assert done == [30, 30, 20]


def test_mean_counts_are_near_mean_rates():
    network = random_network(5, RaisedCosineLogConv(3, 6), mean_rate_hz=200)
    counts, rates = simulate_recurrent(
        network.coupling_coef,
        intercepts=network.intercepts,
        coupling_basis_matrix=network.kernel,
        n_bins=3000,
        random_key=0,
        inverse_link_function="exp",
    )
    expected = rates.sum(axis=0)
    assert (abs(counts.sum(axis=0) - expected) < 4 * np.sqrt(expected)).all()


@pytest.mark.slow
def test_a_random_network_fires_near_the_rate_that_was_asked_for():
    network = random_network(50, RaisedCosineLogConv(8, 100), mean_rate_hz=8.5, random_key=1)
    counts = network.simulate(50_000, random_key=0)
    assert counts.mean() / 0.001 == pytest.approx(8.5, rel=0.3)


def test_the_same_key_gives_the_same_network():
    first, second, other = (random_network(5, HistoryConv(3), random_key=k) for k in (1, 1, 2))
    np.testing.assert_array_equal(first.coupling_coef, second.coupling_coef)
    np.testing.assert_array_equal(first.intercepts, second.intercepts)
    assert (first.intercepts != other.intercepts).any()


@pytest.mark.parametrize("connection_probability", [0.0, 1.0])
def test_networks_without_and_with_every_connection(connection_probability):
    network = random_network(6, HistoryConv(3), connection_probability=connection_probability)
    n_links = np.count_nonzero(network.adjacency)
    assert n_links == connection_probability * 6 * 5
    assert network.simulate(200, random_key=0).shape == (200, 6)


def test_a_network_may_be_made_by_hand():
    network = Network(np.zeros((2, 2, 1)), np.log([0.5, 2.0]), np.eye(1), np.zeros((2, 2)))
    counts = network.simulate(4000, random_key=0)
    np.testing.assert_allclose(counts.mean(axis=0), [0.5, 2.0], atol=0.1)


# --- NeMoS --------------------------------------------------------------------------------------


@pytest.fixture
def nemos():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield pytest.importorskip("nemos")


def test_the_arguments_and_their_order_are_those_of_nemos(nemos):
    peer = list(inspect.signature(nemos.simulation.simulate_recurrent).parameters)
    parameters = list(inspect.signature(simulate_recurrent).parameters)
    assert parameters[: len(peer)] == peer


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_bins": -1}, "n_bins is -1; expected a positive integer"),
        ({"n_bins": 2.5}, "n_bins is 2.5"),
        ({"max_rate": np.inf}, "max_rate is inf"),
        ({"coupling_basis_matrix": np.zeros((0, 1))}, "has no rows"),
        ({"coupling_coef": np.full((1, 1, 1), np.nan)}, "coupling_coef holds NaN"),
    ],
)
def test_numbers_that_make_no_simulation_are_refused(changes, message):
    given = {"coupling_coef": np.zeros((1, 1, 1)), "intercepts": [0.0], "n_bins": 3}
    with pytest.raises(ValueError, match=message):
        simulate_recurrent(**(given | changes))


def test_a_network_stops_before_it_runs_away():
    one = np.zeros((1, 1, 1))
    hot = Network(one, np.array([np.log(60.0)]), np.eye(1), np.zeros((1, 1)))
    with pytest.raises(RuntimeError, match="more than max_rate=50"):
        hot.simulate(10, 0)
    warm = Network(one, np.array([np.log(49.0)]), np.eye(1), np.zeros((1, 1)))
    expected, _ = simulate_recurrent(
        one, intercepts=[np.log(49.0)], n_bins=5000, random_key=0, inverse_link_function="exp"
    )
    np.testing.assert_array_equal(warm.simulate(5000, 0), expected)


@pytest.mark.parametrize("key", ["seed", -1, 0.5])
def test_what_is_no_seed_is_said(key):
    with pytest.raises(ValueError, match=r"random_key is .*; expected an integer, a NumPy gener"):
        simulate_recurrent(**make_network(), n_bins=5, random_key=key)


# --- random_state, the name of scikit-learn ---


def test_random_state_is_random_key():
    basis = fastglm.basis.RaisedCosineLogConv(3, window_size=10)
    network = fastglm.simulation.random_network(3, basis, random_state=5)
    same = fastglm.simulation.random_network(3, basis, random_key=5)
    np.testing.assert_array_equal(network.coupling_coef, same.coupling_coef)
    counts = network.simulate(500, random_state=2)
    np.testing.assert_array_equal(counts, network.simulate(500, 2))
    X = np.zeros((50, 1))
    model = fastglm.GLM().fit(np.arange(50.0)[:, None] / 50, np.ones(50, int))
    drawn = model.simulate(feedforward_input=X, random_state=3)[0]
    np.testing.assert_array_equal(drawn, model.simulate(3, X)[0])
    legacy = np.random.RandomState(1)
    assert read_key(None, legacy).random() == np.random.RandomState(1).random()


def test_two_names_of_one_key_are_refused():
    basis = fastglm.basis.RaisedCosineLogConv(3, window_size=10)
    with pytest.raises(ValueError, match="random_key is 0 and random_state 0; they are two names"):
        fastglm.simulation.random_network(3, basis, random_key=0, random_state=0)
    with pytest.raises(ValueError, match="random_state is 'a'; expected an integer"):
        fastglm.simulation.random_network(3, basis, random_state="a")
    with pytest.raises(ValueError, match="feedforward_input is missing"):
        fastglm.GLM().simulate(random_state=0)
