"""The empirical null: its likelihood by hand, what it finds, and when it says why not."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse
from scipy import stats

import fastglm
from fastglm.connectivity import filters as reading
from fastglm.connectivity import null, scan
from fastglm.connectivity.empirical import empirical_test
from fastglm.connectivity.filters import Filters, unshrunk
from fastglm.connectivity.null import _Likelihood, cut_reverse, fit_bulk
from fastglm.connectivity.synapse import shapes, slow_shapes

KERNEL = fastglm.basis.RaisedCosineLogConv(6, 50).kernel_
K = KERNEL.shape[1]


def spread(rng, size=1.0):
    root = rng.normal(size=(K, K))
    return size**2 * (root @ root.T / K + 0.3 * np.eye(K))


def drawn(n_cells=40, coupled=0, confounding=0.0, seed=0, amplitude=2.0):
    """Filters of a population: errors, what unobserved input does, and some synapses."""
    rng = np.random.default_rng(seed)
    pairs = np.argwhere(~np.eye(n_cells, dtype=bool))
    n = len(pairs)
    covariance = np.stack([spread(rng, 0.1) for _ in range(10)])[rng.integers(10, size=n)]
    coef = np.linalg.cholesky(covariance) @ rng.normal(size=(n, K, 1))
    wide = confounding * spread(rng, 0.1)
    size = np.exp(0.2 * rng.normal(size=(2, n_cells)))
    factor = size[0, pairs[:, 0]] * size[1, pairs[:, 1]]
    root = np.linalg.cholesky(wide + 1e-12 * np.eye(K))
    coef = coef + np.sqrt(factor)[:, None, None] * (root @ rng.normal(size=(n, K, 1)))
    delays, synapses = shapes(KERNEL, 0.001, 0.006)
    linked = rng.choice(n, coupled, replace=False)
    at = rng.integers(1, 10, size=coupled)
    coef = coef[:, :, 0]
    coef[linked] += amplitude * rng.choice([-1, 1], (coupled, 1)) * synapses[at]
    row = np.full((n_cells, n_cells), -1)
    row[tuple(pairs.T)] = np.arange(n)
    filters = Filters(pairs, coef, covariance, KERNEL, row[pairs[:, 1], pairs[:, 0]], 0.001)
    return filters, wide, linked, 1e3 * delays[at]


PLAIN = SimpleNamespace(regularizer="Ridge()", penalty=SimpleNamespace(sparse=np.zeros(1, bool)))
LASSO = SimpleNamespace(regularizer="Lasso()", penalty=SimpleNamespace(sparse=np.ones(1, bool)))


SYNAPSES, SLOW = shapes(KERNEL, 0.001, 0.006, 0.006)[1], slow_shapes(KERNEL, 0.001)[::2]


def likelihood(filters, reverse=False):
    """The problem of the bulk, and a point near its start."""
    other = cut_reverse(filters) if reverse else np.zeros((len(filters.coef), 0))
    problem = _Likelihood(filters.coef, filters.covariance, filters.pairs, other, SYNAPSES, SLOW)
    x = problem.start()
    return problem, x + 0.1 * np.random.default_rng(1).normal(size=x.size)


def test_the_likelihood_is_the_sum_of_normal_densities():
    filters, _, _, _ = drawn(n_cells=6, coupled=3)
    problem, x = likelihood(filters)
    delta, root, a, b, free, _ = problem.parts(x)
    least = np.repeat([0.03 / 13, 0.003 / 9], [13, 9])  # one part of its own, 4 and 3 shapes
    weights = (1 - 0.033) * free + np.r_[0, least]
    assert weights.sum() == pytest.approx(1)
    error = np.linalg.inv(problem.covariance)
    synapses = np.r_[SYNAPSES, SLOW] / problem.unit
    seen = np.median(np.einsum("sk,nkl,sl->ns", synapses, error, synapses), axis=0)
    synapses /= np.sqrt(seen)[:, None]
    total = 0.0
    for p, (i, j) in enumerate(filters.pairs):
        s = problem.covariance[p] + np.exp(a[i] + b[j]) * root @ root.T
        parts = [s, 25 * s]
        parts += [s + g * np.outer(one, one) for one in synapses for g in (10, 60, 400)]
        density = [
            stats.multivariate_normal.pdf(problem.coef[p] - delta, cov=part) for part in parts
        ]
        total += np.log(weights @ density)
    total -= (a @ a + b @ b) / (2 * 0.2**2)
    assert problem(x)[0] == pytest.approx(-total / len(filters.pairs), rel=1e-11)


@pytest.mark.parametrize("reverse", [False, True])
def test_its_gradient_is_that_of_differences(reverse):
    problem, x = likelihood(drawn(n_cells=7, coupled=4)[0], reverse)
    steps = 1e-5 * np.eye(x.size)
    slope = [(problem(x + step)[0] - problem(x - step)[0]) / 2e-5 for step in steps]
    np.testing.assert_allclose(problem(x)[1], slope, atol=1e-8)


def test_every_update_of_the_weights_raises_the_likelihood():
    problem, x = likelihood(drawn(n_cells=12, coupled=30)[0])
    value = [problem(x)[0]]
    for _ in range(5):
        x = problem.updated(x)
        value.append(problem(x)[0])
    assert (np.diff(value) < 0).all()
    assert value[0] - value[-1] > 1e-3


def test_the_prior_of_a_ridge_is_undone():
    """The posterior of linear regression, and its least squares."""
    rng = np.random.default_rng(3)
    x, prior = rng.normal(size=(50, 4)), np.diag([1.0, 3.0, 10.0, 0.5])
    y = x @ rng.normal(size=4) + rng.normal(size=50)
    covariance = np.linalg.inv(x.T @ x + prior)
    coef, free = unshrunk((covariance @ x.T @ y)[None], covariance[None], prior[None])
    np.testing.assert_allclose(coef[0], np.linalg.lstsq(x, y, rcond=None)[0], rtol=1e-9)
    np.testing.assert_allclose(free[0], np.linalg.inv(x.T @ x), rtol=1e-9)


def test_what_unobserved_input_does_is_learned_beside_synapses():
    filters, wide, _, _ = drawn(coupled=150, confounding=2.0)
    bulk = fit_bulk(filters)
    learned, true = np.diag(bulk.spread), np.diag(wide)
    np.testing.assert_allclose(learned, true, rtol=0.4)
    assert 0.05 < bulk.outliers < 0.2


def test_small_synapses_do_not_widen_what_unobserved_input_does():
    alone, _, _, _ = drawn(confounding=0.5)
    beside, _, linked, _ = drawn(coupled=200, confounding=0.5, amplitude=0.5)
    spreads = [np.diag(fit_bulk(filters).spread) for filters in (alone, beside)]
    assert (spreads[1] < 1.5 * spreads[0]).all()  # 3 times without parts of their own
    found, _ = empirical_test(PLAIN, beside)
    chosen = np.flatnonzero(fastglm.inference.benjamini_hochberg(found.p_value) <= 0.05)
    assert np.isin(linked, chosen).mean() > 0.7


def test_slow_input_of_some_pairs_is_no_coupling():
    filters, _, linked, _ = drawn(coupled=60)
    rng = np.random.default_rng(6)
    slow = rng.choice(np.setdiff1d(np.arange(len(filters.coef)), linked), 150, replace=False)
    bumps = slow_shapes(KERNEL, 0.001)
    filters.coef[slow] += 0.3 * bumps[rng.integers(1, 4, 150)]
    found, _ = empirical_test(PLAIN, filters)
    share = []
    for slow_ones in (found.slow, False):
        found.slow = slow_ones
        q = fastglm.inference.benjamini_hochberg(found.p_value)
        assert (q[linked] <= 0.05).mean() > 0.9
        share.append((q[slow] <= 0.05).mean())
    assert share[0] < 0.6 * share[1]
    assert share[1] > 0.8


@pytest.mark.parametrize("confounding", [0.0, 1.0])
def test_p_values_of_unconnected_pairs_are_uniform_in_their_tail(confounding, monkeypatch):
    monkeypatch.setattr(scan, "_ODD", 0.0)  # what is drawn is normal
    filters, _, _, _ = drawn(n_cells=60, confounding=confounding)
    found, _ = empirical_test(PLAIN, filters)
    assert 0.3 < found.calibration < 1
    for level in (0.01, 0.05):
        assert 0.5 * level < (found.p_value < level).mean() < 1.5 * level


def test_what_is_mostly_confounding_has_larger_p_values():
    u, one = np.array([4.0, 4.0]), np.ones(2)
    p = scan.Scan(u, one, 5 * one, 100 * one, np.array([0.0, 1.0])).p_value
    assert p[0] == pytest.approx(scan.largest_p_value(4.0, 5.0))
    assert p[1] == pytest.approx(0.65 * p[0] + 0.35 * scan.largest_p_value(2.0, 5.0))


def test_the_part_of_odd_pairs_grows_with_the_confounding():
    """Filters whose confounding has a tail, of errors that are small or large beside it."""
    found = []
    for confounding in (0.3, 3.0):
        filters, wide, _, _ = drawn(n_cells=60, confounding=confounding)
        rng = np.random.default_rng(8)
        some = rng.choice(len(filters.coef), 180, replace=False)
        filters.coef[some] += rng.normal(size=(180, K)) @ np.linalg.cholesky(3 * wide).T
        departed, _ = empirical_test(PLAIN, filters)
        q = fastglm.inference.benjamini_hochberg(departed.p_value)
        found.append((q <= 0.05).sum())
    assert max(found) <= 4


def test_a_filter_that_decays_slowly_may_be_a_synapse():
    filters, _, _, _ = drawn(confounding=0.5)
    some = np.random.default_rng(9).choice(len(filters.coef), 80, replace=False)
    filters.coef[some] += 0.5 * slow_shapes(KERNEL, 0.001)[0]
    found, _ = empirical_test(PLAIN, filters)
    assert found.slow[some].mean() < 0.1
    assert (fastglm.inference.benjamini_hochberg(found.p_value)[some] <= 0.05).mean() > 0.5


@pytest.mark.parametrize("confounding", [0.0, 2.0])
def test_nothing_is_found_without_couplings(confounding):
    filters, _, _, _ = drawn(confounding=confounding)
    found, facts = empirical_test(PLAIN, filters)
    q = fastglm.inference.benjamini_hochberg(found.p_value)
    assert facts.name == "empirical"
    assert (q <= 0.05).sum() <= 1
    if confounding:  # which zero as the null takes for couplings
        flat = np.einsum(
            "pa,pab,pb->p", filters.coef, np.linalg.inv(filters.covariance), filters.coef
        )
        naive = fastglm.inference.benjamini_hochberg(stats.chi2.sf(flat, K))
        assert (naive <= 0.05).sum() > 50
        assert 1 < facts.confounding < 2


def test_synapses_are_found_with_their_delays():
    filters, _, linked, delays = drawn(coupled=60, confounding=1.0)
    found, _ = empirical_test(PLAIN, filters)
    q = fastglm.inference.benjamini_hochberg(found.p_value)
    chosen = np.flatnonzero(q <= 0.05)
    assert np.isin(linked, chosen).mean() > 0.9
    assert (~np.isin(chosen, linked)).mean() < 0.1
    assert np.median(np.abs(1e3 * found.delay[linked] - delays)) <= 1


def test_p_values_of_the_scan_bound_the_largest_of_normal_numbers():
    rng = np.random.default_rng(4)
    n, covariance = 4000, np.stack([spread(rng)] * 4000)
    coef = np.linalg.cholesky(covariance) @ rng.normal(size=(n, K, 1))
    # So small a covariance belongs to many coincidences.
    filters = Filters(
        np.zeros((n, 2), int), 1e-4 * coef[:, :, 0], 1e-8 * covariance, KERNEL, np.full(n, -1), 1e-3
    )
    p = scan.scan(filters).p_value
    for level in (0.01, 0.05, 0.1):
        assert 0.4 * level < (p < level).mean() < 1.25 * level


def test_few_coincidences_are_a_poisson_number():
    for mean, count in ((0.1, 3), (2.0, 9), (50.0, 80)):
        z = (count - mean) / np.sqrt(mean)
        exact = stats.norm.isf(stats.poisson.sf(count - 1, mean))
        root = scan.deviance_root(np.array([z]), np.array([mean]))[0]
        assert abs(root - exact) < 0.35
        assert root < z
    assert scan.deviance_root(np.array([3.0]), np.array([1e14]))[0] == pytest.approx(3)


def test_common_input_of_both_directions_is_no_coupling():
    filters, _, _, _ = drawn(n_cells=40)
    rng = np.random.default_rng(5)
    shared = rng.normal(size=(40, 40))
    shared = (shared + shared.T)[tuple(filters.pairs.T)]
    filters.coef += 0.4 * np.sign(shared)[:, None] * np.abs(shared)[:, None] ** 1.5 * 0.3
    one = scan.scan(filters, fit_bulk(filters).mean)
    found, _ = empirical_test(PLAIN, filters)
    count = [(fastglm.inference.benjamini_hochberg(s.p_value) <= 0.05).sum() for s in (one, found)]
    assert count[0] > 100
    assert count[1] <= 2


# --- when there is none ---


def test_it_falls_back_and_says_why():
    filters, _, _, _ = drawn(n_cells=14)
    found, facts = empirical_test(PLAIN, filters)
    assert found is None
    assert "182 pairs" in facts.why
    assert "unobserved input is not accounted for, because 182 pairs" in facts.sentence

    filters, _, _, _ = drawn(n_cells=20)
    filters.bin_size = 0.01
    assert "bins of 10 ms" in empirical_test(PLAIN, filters)[1].why

    filters.bin_size = 0.001
    assert "Lasso" in empirical_test(LASSO, filters)[1].why

    filters, _, _, _ = drawn(n_cells=30, coupled=260)  # of 870
    assert empirical_test(PLAIN, filters)[1].name == "empirical"
    filters, _, _, _ = drawn(n_cells=40, coupled=900, amplitude=8.0)
    assert "most pairs must be unconnected" in empirical_test(PLAIN, filters)[1].why


def test_few_pairs_and_coarse_bins_are_said():
    filters, _, _, _ = drawn(n_cells=20)
    filters.bin_size = 0.002
    _, facts = empirical_test(PLAIN, filters)
    assert facts.name == "empirical"
    assert facts.n_pairs == 380
    assert "38% of what was found is used" in facts.why
    assert "Bins of 2 ms lose the fine timing" in facts.sentence


# --- in the map ---


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(0)
    counts = rng.binomial(1, 0.02, size=(30_000, 16))
    counts[3:, 1] |= counts[:-3, 0] & rng.binomial(1, 0.5, size=29_997)
    return counts


def test_the_recipe_uses_it_and_says_so(counts):
    couplings = fastglm.infer_connectivity(counts, 0.001)
    assert couplings.null.name == "empirical"
    assert "empirical null of 240 pairs" in repr(couplings)
    assert couplings.settings["null"] == couplings.null.sentence
    assert np.argwhere(couplings.significant()).tolist() == [[0, 1]]
    assert 0 <= couplings.delay[0, 1] <= 3
    assert couplings.z[0, 1] > 8
    assert np.isnan(np.diag(couplings.z)).all()
    assert "delay" in couplings._repr_html_()
    model = fastglm.infer_connectivity(counts, 0.001, null="model")
    assert model.null.name == "model"
    assert not model.null.why
    np.testing.assert_array_equal(model.strength, couplings.strength)
    assert (model.p_value != couplings.p_value).any()
    few = fastglm.infer_connectivity(counts[:, :4], 0.001)
    assert few.null.name == "model"
    assert "no empirical null: 12 pairs" in repr(few)
    np.testing.assert_array_equal(few.p_value, few.uncertainty.wald_test().p_value[:4])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", ["expected", "robust", "blocks"])
def test_every_kind_of_error_and_what_is_masked_or_unknown(counts, kind):
    counts = counts.copy()
    counts[:, 5] = 0  # a silent cell: without a ridge its filters are not determined
    basis = fastglm.basis.RaisedCosineLogConv(4, 30)
    X = basis.compute_features(counts)
    mask = np.ones((16, 16), bool)
    mask[3, 4] = False
    model = fastglm.PopulationGLM(feature_mask=np.repeat(mask, 4, axis=0)).fit(X, counts)
    couplings = model.coupling_map(X, counts, kind, null="empirical", bin_size=0.001)
    assert couplings.null.name == "empirical"
    assert couplings.significant()[0, 1]
    assert couplings.significant().sum() <= 3
    assert np.isnan(couplings.p_value[3, 4])
    assert not couplings.significant()[5].any()


def test_other_bases_and_receivers_that_are_no_senders(counts):
    basis = fastglm.basis.HistoryConv(20)
    X = basis.compute_features(counts)
    y = np.column_stack([counts[:, 1], np.roll(counts[:, :14], 7, axis=0)])
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-4).fit(X, y)
    couplings = model.coupling_map(X, y, null="empirical", bin_size=0.001)
    assert couplings.null.n_pairs == 239  # receiver 0 is sender 1
    assert np.argwhere(couplings.own_history).tolist() == [[1, 0]]
    assert couplings.significant()[0, 0]
    with pytest.raises(ValueError, match="bin_size is missing"):
        model.coupling_map(X, y, null="empirical")
    with pytest.raises(ValueError, match="null is 'other'; expected one of"):
        model.coupling_map(X, y, null="other", bin_size=0.001)
    plain = model.coupling_map(X, y)
    assert np.isnan(plain.delay).all()


def test_filters_that_say_nothing_are_no_departure():
    """Covariances of 0 and without end, and a basis that makes no shape of a synapse."""
    coef, free = unshrunk(np.zeros((1, 3)), np.zeros((1, 3, 3)), np.eye(3)[None])
    assert np.isfinite(coef).all()
    assert np.isfinite(free).all()
    covariance = np.stack([np.diag([1.0, np.inf, 2.0]), np.diag([3.0, np.inf, np.inf])])
    typical = [reading._typical(v) for v in np.diagonal(covariance, axis1=1, axis2=2).T]
    reading.replace_infinite(covariance, np.array(typical))
    np.testing.assert_allclose(covariance[1], np.diag([3.0, 1e4, 2e4]))
    filters = Filters(
        np.array([[0, 1]]), np.ones((1, 2)), np.eye(2)[None], np.zeros((30, 2)), -np.ones(1), 0.001
    )
    found = scan.scan(filters)
    assert found.z[0] == 0
    assert found.p_value[0] == 1


def test_more_pairs_than_the_sample_have_the_same_bulk(monkeypatch):
    filters, _, _, _ = drawn(confounding=1.0)
    whole = fit_bulk(filters, fit_bulk(filters))
    monkeypatch.setattr(null, "_SAMPLE", 1000)
    part = fit_bulk(filters, fit_bulk(filters))
    assert part.mean.shape == whole.mean.shape
    np.testing.assert_allclose(np.diag(part.spread), np.diag(whole.spread), rtol=0.4)
    monkeypatch.setattr(reading, "_CHUNK", 100)
    a = scan.scan(filters)
    monkeypatch.undo()
    np.testing.assert_array_equal(a.z, scan.scan(filters).z)


# --- memory ---


def read(k=4, n=30, onto=None, smooth=False, open_=False):
    """Filters of a made-up fit with a ridge, as a map reads them."""
    rng = np.random.default_rng(7)
    root = rng.normal(size=(n, n, k, k))
    covariance = list(0.1 * root @ root.swapaxes(2, 3) + 0.01 * np.eye(k))
    if open_:
        covariance[2][5, 1] = covariance[2][5, :, 1] = np.inf
    matrix = scipy.sparse.csr_array(np.eye(n * k)) if smooth else None
    penalty = SimpleNamespace(
        ridge=np.full((1, n), 0.5),
        matrix=matrix,
        strength=np.full(n, 0.3),
        sparse=np.zeros(n, bool),
    )
    coef = rng.normal(size=(n * k, n))
    fit = SimpleNamespace(
        coef=coef, penalty=penalty, total=np.ones(n), precision=np.ones(n), regularizer="Ridge()"
    )
    errors = fastglm.inference.Uncertainty(
        coef, np.ones(coef.shape), np.ones(n), "observed", np.repeat(np.arange(n), k), covariance
    )
    kernel = fastglm.basis.RaisedCosineLogConv(k, 50).kernel_
    return fit, reading.read_filters(fit, errors, kernel, 0, np.eye(n, dtype=bool), 0.001)


@pytest.mark.parametrize("how", [{}, {"smooth": True}, {"open_": True}, {"k": 10}])
def test_covariances_are_the_same_whenever_they_are_read(how, monkeypatch):
    _, filters = read(**how)
    whole = filters.covariance[:]
    assert whole.shape == (870, *(filters.coef.shape[1],) * 2)
    some = np.array([4, 800, 3, 401])
    np.testing.assert_array_equal(filters.covariance[some], whole[some])
    monkeypatch.setattr(reading, "_CHUNK", 100)
    np.testing.assert_array_equal(filters.covariance[:], whole)
    _, parts = read(**how)
    np.testing.assert_array_equal(parts.coef, filters.coef)
    medians = np.median(np.diagonal(whole, axis1=1, axis2=2), axis=0)
    np.testing.assert_array_equal(filters.variance, medians)


def test_the_null_is_that_of_covariances_that_are_held(monkeypatch):
    monkeypatch.setattr(null, "_STEPS", 3)
    fit, filters = read()
    held = Filters(
        filters.pairs, filters.coef, filters.covariance[:], filters.kernel, filters.reverse, 0.001
    )
    (one, facts), (other, same) = (empirical_test(fit, each) for each in (filters, held))
    assert facts.confounding == same.confounding
    np.testing.assert_array_equal(one.p_value, other.p_value)


def test_reading_filters_holds_no_second_copy_of_their_covariances(monkeypatch):
    monkeypatch.setattr(reading, "_CHUNK", 20)
    monkeypatch.setattr(scan, "_SAMPLE", 10)
    k, n = 8, 60
    _, filters = read(k, n)
    rows, pairs = filters.covariance, n * (n - 1)
    second = 8 * k * k * pairs
    tracemalloc.start()
    try:
        rows.read()
        assert tracemalloc.get_traced_memory()[1] < second / 2
        tracemalloc.reset_peak()
        scan.scan(filters)
        assert tracemalloc.get_traced_memory()[1] < second
    finally:
        tracemalloc.stop()
