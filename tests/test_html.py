"""What notebooks show: short, escaped, without colours of its own, and the numbers of the fit."""

import inspect
import re
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import BaseEstimator

import fastglm
from fastglm import _html
from fastglm.basis import BSplineEval, FourierEval, HistoryConv, IdentityEval, RaisedCosineLogConv

LABEL = "<script>alert('x')</script>"
recent = pytest.mark.skipif(
    not hasattr(BaseEstimator, "_html_repr"), reason="an older scikit-learn shows its own diagram"
)


class Balanced(HTMLParser):
    """Raises where tags do not nest."""

    def __init__(self, text):
        super().__init__()
        self.open = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def cells(html):
    """Rows of the tables of fastglm, as text."""
    Balanced(html)
    rows = re.findall(r"<tr style.*?</tr>", html, re.S)
    return [[unescape(c) for c in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)] for row in rows]


def shown(thing):
    if isinstance(thing, BaseEstimator):
        return thing._repr_mimebundle_()["text/html"]
    return thing._repr_html_()


@pytest.fixture(scope="module")
def data():
    counts = np.random.default_rng(0).poisson(0.3, size=(1500, 3))
    counts[:, 1] *= np.roll(counts[:, 0], 1) > 0
    basis = RaisedCosineLogConv(3, 10, label=LABEL)
    return basis, basis.compute_features(counts), counts


@pytest.fixture(scope="module")
def model(data):
    _, X, counts = data
    ridge = {"regularizer": "Ridge", "regularizer_strength": 1e-3}
    return fastglm.PopulationGLM(**ridge).fit(X, counts)


def test_repr_of_a_model_tells_how_its_fit_ended(data, model):
    unfitted = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-3)
    assert repr(unfitted) == "PopulationGLM(regularizer='Ridge', regularizer_strength=0.001)"
    gap = model.newton_decrement_.max()
    state = f"3 receivers x 9 features: 3 converged, largest decrement {gap:.1e}"
    assert repr(model) == f"{unfitted!r}\nfitted: {state}"
    assert repr(model.solver_result_) == state


def test_repr_of_a_large_mask_is_short():
    model = fastglm.PopulationGLM(feature_mask=np.ones((800, 100)))
    assert len(repr(model)) < 300


@recent
def test_a_model_in_a_notebook(data, model):
    _, _, counts = data
    html = shown(model)
    rows = dict(cells(html[html.index('<div class="fastglm"') :]))
    assert rows["receivers"] == "3"
    assert rows["features"] == "9"
    assert rows["status"] == "3 converged"
    assert rows["largest decrement"] == f"{model.newton_decrement_.max():.1e}"
    assert 'class="fastglm"' not in shown(fastglm.PopulationGLM())
    with config_context(display="text"):
        assert list(model._repr_mimebundle_()) == ["text/plain"]
    silent = counts.copy()
    silent[:, 2] = 0
    with pytest.warns(match="silent"):
        some = fastglm.PopulationGLM().fit(counts[:-1], silent[1:])
    assert "2 converged, 1 silent" in shown(some)


def test_spike_times_in_a_notebook():
    times, unit = np.array([0.5, 1.0, 1.5, 21.0]), np.array([0, 0, 0, 1])
    segments = np.array([[0.0, 2.0], [20.0, 22.0]])
    spikes = fastglm.recordings.SpikeTimes(times, unit, 2, 0.0, 22.0, segments, names=["a", "<b>"])
    assert repr(spikes) == "SpikeTimes of 2 units: 4 spikes, 4 s in 2 segments"
    assert cells(shown(spikes)) == [
        ["unit", "spikes", "rate (Hz)"],
        ["a", "3", "0.75"],
        ["<b>", "1", "0.25"],
    ]
    never = fastglm.recordings.SpikeTimes(times[:0], unit[:0], 1, 0.0, 0.0, np.zeros((1, 2)))
    assert repr(never) == "SpikeTimes of 1 unit: 0 spikes, 0 s"
    assert cells(shown(never))[1] == ["0", "0", "\N{EN DASH}"]


@recent
def test_a_basis_in_a_notebook(data):
    basis, _, _ = data
    assert cells(shown(basis)) == [
        ["part", "basis", "functions", "domain", "columns"],
        [LABEL, "RaisedCosineLogConv", "3", "window of 10 bins", "9"],
    ]
    assert shown(basis).count("<polyline") == 3
    whole = RaisedCosineLogConv(3, 10) + HistoryConv(4) * IdentityEval(bounds=(0, 5), label="speed")
    html = shown(whole)
    assert "<strong>RaisedCosineLogConv + (HistoryConv * speed)</strong>" in html
    assert cells(html)[1:] == [
        ["RaisedCosineLogConv"] * 2 + ["3", "window of 10 bins", "set by the inputs"],
        ["HistoryConv", "HistoryConv", "4", "window of 4 bins", "set by the inputs"],
        ["speed", "IdentityEval", "1", "0 to 5", "set by the inputs"],
    ]  # fmt: skip
    assert html.count("<polyline") == 3  # lags one by one are not drawn
    two = FourierEval(3, ndim=2, bounds=[(0, 1), (-1, 2.5)])
    assert cells(shown(two))[1][3] == "0 to 1, -1 to 2.5"
    assert cells(shown(BSplineEval(5)))[1][3] == "range of the samples"


def test_features_in_a_notebook(data):
    basis, X, counts = data
    html = shown(X)
    assert "Features, 1,500 bins x 9" in html
    what = "history of 3 cells over 10 bins, 3 functions each"
    assert cells(html)[1:] == [[LABEL, what, "9"]]
    assert f"1,490 rows are complete. {X.nbytes / 1e6:.3g} MB are kept" in html
    assert f"it would be {np.asarray(X).nbytes / 1e6:.3g} MB" in html
    slow = fastglm.features.hold(np.arange(15.0), n_bins=1500, every=100)
    whole = basis + IdentityEval(label="slow") + HistoryConv(2) * IdentityEval(label="gain")
    whole = whole + IdentityEval(label="fast")
    columns = np.ones((1500, 3))
    rows = cells(shown(whole.compute_features(counts, slow, counts, columns, np.ones(1500))))
    assert [row[1] for row in rows[2:]] == [
        "kept at their own rate",
        "products, not stored",
        "an array",
    ]


def test_couplings_in_a_notebook(data, model):
    couplings = model.coupling_map(*data[1:], senders=["a<", "b", "c"], receivers=["a<", "b", "c"])
    significant = couplings.significant()
    assert 0 < significant.sum() < 6
    rows = cells(shown(couplings))[1:]
    assert len(rows) == significant.sum()
    names = list(couplings.senders)
    strengths = []
    for name, strength, error, gain, delay, q in rows:
        i, j = map(names.index, name.split(" \N{RIGHTWARDS ARROW} "))
        assert significant[i, j]
        assert strength == f"{couplings.strength[i, j]:+.3g}"
        assert error == f"{couplings.standard_error[i, j]:.2g}"
        assert gain == f"{couplings.gain[i, j]:+.3g}%"
        assert delay == "\N{EN DASH}"  # nothing says how long a bin is
        assert q == f"{couplings.q_value[i, j]:.2g}"
        strengths.append(abs(couplings.strength[i, j]))
    assert strengths == sorted(strengths, reverse=True)
    couplings.q_value[:] = 0.5
    assert cells(shown(couplings)) == []


def test_paths_and_folds_in_a_notebook(data):
    _, X, counts = data
    lasso = fastglm.PopulationGLM(regularizer="Lasso")
    path = fastglm.model_selection.regularization_path(lasso, X, counts, [1e-1, 1e-3])
    assert repr(path) == (
        "Path of 2 strengths (0.001 to 0.1) for 3 receivers x 9 features: 6 converged"
    )
    rows = cells(shown(path))[1:]
    assert [row[:3] for row in rows] == [
        [f"{s:g}", f"{np.median(n):.4g}", "3 converged"]
        for s, n in zip([0.1, 0.001], path.n_nonzero, strict=True)
    ]
    ridge = fastglm.PopulationGLM(regularizer="Ridge")
    folds = fastglm.model_selection.cross_validate(ridge, X, counts, [1e-1, 1e-3], folds=3)
    assert repr(folds).startswith(
        "CrossValidation of 2 strengths in 3 folds for 3 receivers, rule 'best': strength "
    )
    rows = cells(shown(folds))[1:]
    assert [row[1] for row in rows] == [f"{v:.5g}" for v in folds.mean_score.mean(axis=1)]
    assert [int(row[2]) for row in rows] == [(folds.chosen == k).sum() for k in (0, 1)]


def test_a_plan_in_a_notebook(data):
    plan = fastglm.PopulationGLM().plan(*data[1:])
    text = str(plan)
    assert repr(plan) == text.splitlines()[0]
    assert repr(plan).startswith("3 receivers x 9 features, 1,490 bins: about ")
    rows = cells(shown(plan))
    assert rows[0] == text.splitlines()[1].split()
    assert " ".join(rows[1]).split() == text.splitlines()[2].split()


@recent
def test_nothing_is_taken_for_html_and_no_colour_is_set(data, model):
    basis, X, counts = data
    for thing in (basis, X, model.solver_result_, model.coupling_map(X, counts)):
        html = shown(thing)
        assert "<script" not in html
        assert not re.search(r"(?<!-)color:|#[0-9a-f]{3}|<style", html)


def test_a_long_table_says_what_it_leaves_out():
    html = _html.table("Title & more", [(str(k), "x") for k in range(1050)], note="Note.")
    assert len(cells(html)) == 30
    assert "1,020 more rows. Note." in html
    assert "Title &amp; more" in html


def test_numbers_as_words():
    assert _html.number(np.nan) == "\N{EN DASH}"
    assert _html.number(0.12345) == "0.123"
    assert _html.span(np.array([np.nan])) == "\N{EN DASH}"
    assert _html.span(np.array([2, 2, np.nan])) == "2"
    assert _html.span(np.array([2, 1, 30]), "d") == "1 to 30"
    assert _html.tally(np.array(["b", "", "b", "a"])) == "2 b, 1 a, 1 not fitted"


def test_reprs_of_results_are_a_line(data, model):
    basis, X, counts = data
    u = fastglm.inference.uncertainty(model, X, counts)
    errors = f"{u.standard_errors.min():.3g} to {u.standard_errors.max():.3g}"
    assert repr(u) == (
        f"Uncertainty (observed) of 9 features x 3 receivers in 3 filters; standard errors {errors}"
    )
    test = u.wald_test()
    found = (fastglm.inference.benjamini_hochberg(test.p_value) <= 0.05).sum()
    assert repr(test) == f"Test of 3 filters x 3 receivers: {found} of 9 with q <= 0.05"
    rescaling = fastglm.diagnostics.time_rescaling(model, X, counts)
    inside = (rescaling.statistic <= rescaling.band(0.95)).sum()
    assert repr(rescaling) == (
        f"Rescaling of {rescaling.n_intervals.sum():,} intervals of 3 receivers: {inside} of 3 "
        "tested inside the 95 % band"
    )
    held = fastglm.diagnostics.cross_validated(model, X, counts, folds=2)
    bits = f"{held.bits_per_spike.min():.3g} to {held.bits_per_spike.max():.3g}"
    assert repr(held).startswith("HeldOut scores of 3 receivers in 2 folds: deviance explained ")
    assert repr(held).endswith(f", bits per spike {bits}; 6 converged")
    stability = fastglm.diagnostics.stability(model, basis.kernel_)
    assert repr(stability) == (
        f"Stability of 3 cells: radius {stability.radius:.3g}, {stability.n_growing} growing modes"
    )
    network = fastglm.simulation.random_network(20, basis, random_key=0)
    links = (network.adjacency > 0).sum(), (network.adjacency < 0).sum()
    assert min(links) > 0
    assert repr(network) == (
        f"Network of 20 cells: {links[0]} exciting and {links[1]} inhibiting connections over "
        "10 bins"
    )


@recent
@pytest.mark.parametrize("name", sorted(set(fastglm.basis.__all__) - {"TransformerBasis"}))
def test_every_basis_is_shown(name):
    arguments = {
        "n_basis_funcs": 5,
        "window_size": 12,
        "decay_rates": np.arange(1, 6) / 5,
        "frequencies": 3,
        "funcs": [np.sin, np.cos],
        "basis1": HistoryConv(3),
        "basis2": IdentityEval(),
        "categories": ["a", "b", "c"],
    }
    cls = getattr(fastglm.basis, name)
    needed = inspect.signature(cls).parameters.values()
    basis = cls(**{p.name: arguments[p.name] for p in needed if p.default is p.empty})
    rows = cells(shown(basis))
    assert len(rows) == 1 + len(basis._leaves())
    assert rows[-1][2] == str(basis._leaves()[-1].n_basis_funcs)
    assert "class=" in basis.to_transformer()._repr_mimebundle_()["text/html"]
