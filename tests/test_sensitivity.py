"""Sensitivity values of couplings: the algebra in least squares, and inputs that are put in."""

import dataclasses
import re

import numpy as np
import pytest

import fastglm
from fastglm import connectivity
from fastglm._fitted import Fitted
from fastglm.connectivity.sensitivity import robustness
from fastglm.inference import uncertainty

FUNCS, WINDOW = 3, 12


def basis():
    return fastglm.basis.RaisedCosineLogConv(FUNCS, WINDOW)


def senders(n_bins, n=4, seed=0):
    return np.random.default_rng(seed).poisson(0.2, size=(n_bins, n))


def residuals(columns, values, weight):
    """What weighted least squares leaves of values."""
    root = np.sqrt(weight)[:, None]
    coef = np.linalg.lstsq(root * columns, root * values, rcond=None)[0]
    return values - columns @ coef


def unit(values, weight):
    return values / np.sqrt((weight * values**2).sum() / weight.sum())


CURVATURE = {
    "Gaussian": np.ones_like,
    "Poisson": np.exp,
    "Bernoulli": lambda eta: np.exp(eta) / (1 + np.exp(eta)) ** 2,
}


class Problem:
    """One receiver of some senders, its map, and inputs that are shared with sender 0."""

    def __init__(self, family, y_of, n_bins=20_000):
        self.family, self.rng = family, np.random.default_rng(1)
        counts = senders(n_bins)
        self.X = basis().compute_features(counts)
        self.rows = np.asarray(self.X)[WINDOW:]
        c = 0.35 * self.rng.normal(size=(self.rows.shape[1], 1))
        c[:FUNCS] = np.array([[0.3], [0.25], [0.1]])
        self.y_of, self.eta = y_of, self.rows @ c - 1.5
        self.y = self.draw(self.eta)
        self.model = self.fit(self.y)
        self.map = self.model.coupling_map(self.X, self.y)
        eta = self.rows @ self.model.coef_ + self.model.intercept_
        self.weight = CURVATURE[family](eta)[:, 0]
        self.rest = np.column_stack([self.rows[:, FUNCS:], np.ones(len(eta))])
        own = residuals(self.rest, self.rows[:, :FUNCS], self.weight)
        # What moves every lag alike is correlated with the columns as the filter itself is.
        self.along = unit((own @ self.model.coef_[:FUNCS])[:, 0], self.weight)

    def draw(self, eta):
        y = np.zeros((WINDOW + len(eta), 1))
        y[WINDOW:] = self.y_of(self.rng, eta)
        return y

    def fit(self, y, X=None):
        return fastglm.PopulationGLM(self.family).fit(self.X if X is None else X, y)

    def shared(self, share, beside):
        """An input of which sender 0 explains a share, and whose remainder is ``beside``."""
        columns = np.column_stack([self.rest, self.along])
        beside = unit(residuals(columns, beside[:, None], self.weight)[:, 0], self.weight)
        return np.sqrt(share) * self.along + np.sqrt(1 - share) * beside

    def explained(self):
        mean = np.average(self.rows @ self.model.coef_, axis=0, weights=self.weight)
        return (self.weight * ((self.rows @ self.model.coef_ - mean) ** 2)[:, 0]).sum()

    def remaining(self, share):
        """Part of the filter at equal shares, by the formula."""
        f2 = self.map.explained.part[0, 0] / self.map.explained.total[0]
        return 1 - np.sqrt(share * share / (1 - share) / f2)


@pytest.fixture(scope="module")
def gaussian():
    return Problem("Gaussian", lambda rng, eta: eta + rng.normal(size=eta.shape), 3000)


def test_least_squares_have_the_value_of_cinelli_and_hazlett(gaussian):
    n, p = gaussian.rest.shape[0], gaussian.rest.shape[1] + FUNCS
    t2 = gaussian.map.explained.part[0, 0]
    f2 = t2 / (n - p)
    assert robustness(t2, n - p) == pytest.approx(0.5 * (np.sqrt(f2**2 + 4 * f2) - f2), rel=1e-12)
    # The same with the variance that is explained in place of the variance that is left.
    y = gaussian.y[WINDOW:]
    left = ((y - gaussian.rows @ gaussian.model.coef_ - gaussian.model.intercept_) ** 2).sum()
    f2 *= left / gaussian.explained()
    expected = 50 * (np.sqrt(f2**2 + 4 * f2) - f2)
    assert gaussian.map.sensitivity[0, 0] == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.3])
def test_in_least_squares_such_an_input_leaves_what_the_formula_says(gaussian, factor):
    # Found among all inputs that y allows: with it in the fit, the strength is the formula's.
    share = factor * gaussian.map.sensitivity[0, 0] / 100
    y = gaussian.y[WINDOW:, 0]
    left = y - (gaussian.rows @ gaussian.model.coef_)[:, 0] - gaussian.model.intercept_
    columns = np.column_stack([gaussian.rest, gaussian.rows[:, :FUNCS]])
    noise = residuals(columns, np.random.default_rng(2).normal(size=(len(y), 1)), np.ones(len(y)))
    noise -= left[:, None] * (left @ noise) / (left @ left)
    size = share * gaussian.explained() / (left @ left)  # squared correlation with what is left
    assert size < 1
    beside = np.sqrt(size) * left / np.linalg.norm(left)
    beside += np.sqrt(1 - size) * noise[:, 0] / np.linalg.norm(noise)
    z = np.full((len(gaussian.y), 1), np.nan)
    z[WINDOW:, 0] = gaussian.shared(share, beside)
    X = fastglm.features.hstack([gaussian.X, z])
    model = gaussian.fit(gaussian.y, X)
    expected = gaussian.remaining(share) * gaussian.model.coef_[:FUNCS]
    np.testing.assert_allclose(model.coef_[:FUNCS], expected, atol=1e-7)
    variance = model.coef_[-1, 0] ** 2 * (1 - share) * len(y)
    assert variance == pytest.approx(share * gaussian.explained(), rel=1e-7)
    assert factor != 1 or np.abs(model.coef_[:FUNCS]).max() < 1e-7


def events(family):
    if family == "Poisson":
        return lambda rng, eta: rng.poisson(np.exp(eta))
    return lambda rng, eta: rng.binomial(1, 1 / (1 + np.exp(-eta)))


@pytest.mark.parametrize("family", ["Poisson", "Bernoulli"])
def test_events_with_such_an_input_lose_the_coupling(family):
    problem = Problem(family, events(family), 40_000)
    value = problem.map.sensitivity[0, 0] / 100
    assert 0.1 < value < 0.6
    noise = np.random.default_rng(3).normal(size=len(problem.weight))
    for factor in (0.5, 1.0, 1.5):
        share = factor * value
        # Its variance beside sender 0 is the share of what the model explains.
        gamma = np.sqrt(share * problem.explained() / problem.weight.sum() / (1 - share))
        z = problem.shared(share, noise)[:, None]
        y = problem.draw(problem.eta - gamma * z)
        couplings = problem.fit(y).coupling_map(problem.X, y)
        whole = problem.map.strength[0, 0]
        strength, error = couplings.strength[0, 0], couplings.standard_error[0, 0]
        assert abs(strength - whole * problem.remaining(share)) < 3 * error + 0.05 * whole
        assert abs(problem.remaining(share)) < 1e-9 or strength * problem.remaining(share) > 0


def test_an_input_that_drives_both_cells_moves_the_strength_by_what_the_shares_say():
    rng = np.random.default_rng(4)
    n, slow = 60_000, 0.98
    z = rng.normal(size=n)
    for t in range(1, n):
        z[t] = slow * z[t - 1] + np.sqrt(1 - slow**2) * z[t]
    own, coupling, drive = -0.5, 0.3, np.array([0.5, 0.4])
    c = np.array([[[own], [0.0]], [[coupling], [own]]])  # 0 drives 1
    y, _ = fastglm.simulation.simulate_recurrent(
        c, drive[:, None], np.array([-1.5, -1.5]), 5, np.repeat(z[:, None, None], 2, axis=1),
        np.ones((1, 1)), np.zeros((1, 2)), np.exp,
    )  # fmt: skip
    X = fastglm.basis.HistoryConv(1).compute_features(y)
    seen = fastglm.features.hstack([X, z[:, None]])
    couplings = fastglm.PopulationGLM().fit(X, y).coupling_map(X, y)
    model = fastglm.PopulationGLM().fit(seen, y)
    true = model.coupling_map(seen, y).strength[0, 1]
    assert true == pytest.approx(coupling, abs=0.1)
    # The shares of z, from regressions that are weighted by the fitted rates.
    rows = np.asarray(seen)[1:]
    weight = np.exp(rows @ model.coef_[:, 1] + model.intercept_[1])
    rest = np.column_stack([rows[:, 1], np.ones(len(rows))])
    x, hidden = residuals(rest, rows[:, [0, 2]], weight).T
    of_sender = (weight * x * hidden).sum() ** 2
    of_sender /= (weight * x**2).sum() * (weight * hidden**2).sum()
    of_receiver = model.coef_[2, 1] ** 2 * (weight * hidden**2).sum() * (1 - of_sender)
    of_receiver /= couplings.explained.total[1]
    shift = couplings.standard_error[0, 1] * np.sqrt(couplings.explained.total[1])
    shift *= np.sqrt(of_receiver * of_sender / (1 - of_sender))
    assert shift > 5 * couplings.standard_error[0, 1]
    assert couplings.strength[0, 1] - true == pytest.approx(shift, rel=0.1)


def test_the_test_is_lost_where_the_errors_with_the_input_say():
    part, total, critical = np.array([[6.25], [64.0], [900.0]]), np.array([400.0]), 3.84
    share = robustness(part, total, critical)
    left = np.sqrt(part) - np.sqrt(total * share * share / (1 - share))
    np.testing.assert_allclose(left**2 * (1 - share), critical, rtol=1e-9)
    assert (share < robustness(part, total)).all()
    np.testing.assert_array_equal(robustness([1.0, np.nan], 400.0, 3.84), [0, np.nan])
    assert np.isnan(robustness(3.0, 0.0))
    assert robustness(1e-12, 1.0) == pytest.approx(1e-6, rel=1e-5)
    assert robustness(1e18, 1.0) == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize(
    ("family", "link", "kind"),
    [
        ("Poisson", None, "observed"),
        ("Bernoulli", "cloglog", "observed"),
        ("Bernoulli", "cloglog", "expected"),
    ],
)
def test_what_is_explained_is_the_weighted_variance(family, link, kind):
    rng = np.random.default_rng(6)
    counts = senders(3000, 3)
    y = np.minimum(counts, 1).astype(float)
    y[rng.random(y.shape) < 0.05] = np.nan
    weight, offset = rng.integers(0, 3, 3000), rng.normal(0, 0.3, (3000, 3))
    X = basis().compute_features(counts)
    model = fastglm.PopulationGLM(family, link).fit(X, y, sample_weight=weight, offset=offset)
    fit = Fitted.of(model, X, y, sample_weight=weight, offset=offset)
    errors = uncertainty(model, X, y, kind, sample_weight=weight, offset=offset)
    found = errors.explained
    rows = np.asarray(X)[WINDOW:]
    input_ = rows @ model.coef_
    eta = input_ + model.intercept_ + offset[WINDOW:]
    known = ~np.isnan(y[WINDOW:])
    if kind == "expected":
        curvature = fit.loss.expected_curvature(eta)
    else:
        curvature = fit.loss.derivatives(eta, np.where(known, y[WINDOW:], 0.0))[2]
    h = np.where(known, curvature * weight[WINDOW:, None], 0.0)
    mean = (h * input_).sum(axis=0) / h.sum(axis=0)
    np.testing.assert_allclose(found, (h * (input_ - mean) ** 2).sum(axis=0), rtol=1e-9)


@pytest.fixture(scope="module")
def cells():
    """Cell 0 drives 1; 3 is silent."""
    counts = senders(6000)
    counts[2:, 1] += counts[:-2, 0] * np.random.default_rng(7).binomial(1, 0.4, 5998)
    counts[:, 3] = 0
    return counts, basis().compute_features(counts)


@pytest.fixture(scope="module")
def couplings(cells):
    counts, X = cells
    with pytest.warns(fastglm.glm.ConvergenceWarning, match="silent"):
        model = fastglm.PopulationGLM("Poisson", None, "Ridge", 1e-4).fit(X, counts)
    return model.coupling_map(X, counts, senders=list("abcd"), receivers=list("abcd"))


def test_the_map_has_a_value_for_each_pair(couplings):
    value = couplings.sensitivity
    between = ~np.eye(4, dtype=bool)
    between[:, 3] = False
    np.testing.assert_array_equal(np.isfinite(value[:3]), between[:3])
    f2 = couplings.uncertainty.wald_test().statistic / couplings.explained.total
    share = value[between] / 100
    np.testing.assert_allclose(share**2 / (1 - share), f2[between], rtol=1e-9)
    assert np.nanargmax(couplings.sensitivity_of_test()) == 1
    assert (couplings.sensitivity_of_test()[between] <= value[between]).all()
    pytest.importorskip("pandas")
    np.testing.assert_array_equal(couplings.to_frame()["sensitivity"], value.ravel())


def test_the_sentence_is_for_a_referee(couplings):
    value, doubt = couplings.sensitivity[0, 1], couplings.sensitivity_of_test(0.99)[0, 1]
    share = couplings.explained.part[:, 1] / couplings.explained.total[1]
    k = [0, 2, 3][int(np.argsort(share[[0, 2, 3]])[-2])]
    assert couplings.sentence("a", "b", 0.99) == (
        f"An unobserved input would have to explain at least {value:.0f} % of what the model "
        "explains of b's log rate, and as much of a's past activity given the rest of the model, "
        f"to make this coupling vanish; {doubt:.0f} % of both would make it insignificant at 0.99. "
        f"The strongest other coupling of b, from {'abcd'[k]}, explains {100 * share[k]:.2g} %."
    )
    assert "; it is insignificant at 0.95 as it is." in couplings.sentence("c", "a")


@pytest.mark.parametrize(
    ("pair", "why"),
    [("aa", "it is an own history"), ("ad", "it is not in the fit")],
)
def test_no_value_has_a_reason(couplings, pair, why):
    expected = f"The coupling of {pair[0]} to {pair[1]} has no sensitivity value: {why}."
    assert couplings.sentence(*pair) == expected


@pytest.mark.parametrize(
    ("settings", "kind", "why"),
    [
        (("Lasso", 1e-3), "observed", "after Lasso.* have no free covariance"),
        (("Ridge", 1e-4), "robust", "kind='robust' has no information; pass kind='observed'"),
        (("Ridge", 1e-4), "blocks", "kind='blocks' has no information"),
    ],
)
def test_without_an_information_there_is_none(cells, settings, kind, why):
    counts, X = cells
    counts = counts[:, :3]
    found = fastglm.PopulationGLM("Poisson", None, *settings).fit(X, counts)
    found = found.coupling_map(X, counts, kind)
    assert np.isnan(found.sensitivity).all()
    assert re.search(why, found.sentence(0, 1))


def test_what_is_outside_the_fit_or_not_determined_has_none(cells):
    counts, X = cells
    counts, mask = counts[:, :3], np.ones((4 * FUNCS, 3), bool)
    mask[:FUNCS, 1] = False
    model = fastglm.PopulationGLM(feature_mask=mask).fit(X, counts)
    found = model.coupling_map(X, counts)
    assert "it is not in the fit" in found.sentence(0, 1)
    assert "the data do not determine it" in found.sentence(3, 0)
    assert np.isfinite(found.sensitivity[1:3, 0]).all()
    plain = connectivity.point_estimates(model.coef_, X.blocks[0].kernel, model=model)
    assert np.isnan(plain.sensitivity).all()
    assert "couplings were not tested" in plain.sentence(0, 1)


def test_bad_names_and_levels(couplings):
    message = "sender is 'x', and no sender has that name; expected one of a, b, c, d."
    with pytest.raises(ValueError, match=re.escape(message)):
        couplings.sentence("x", "a")
    with pytest.raises(ValueError, match="receiver is 1, and no receiver has that name"):
        couplings.sentence("a", 1)
    for level in (0, 1, 95):
        with pytest.raises(ValueError, match=f"level is {level}; expected a number between 0"):
            couplings.sensitivity_of_test(level)


def test_a_name_of_two_cells_is_no_name(couplings):
    twins = dataclasses.replace(couplings, senders=np.array(list("aacd")))
    with pytest.raises(ValueError, match="2 senders have that name"):
        twins.sentence("a", "b")
