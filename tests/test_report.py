"""The page about a fit: it refers to nothing outside, and its numbers are the model's."""

import re
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest

import fastglm
from fastglm import _html

pytest.importorskip("matplotlib")

from fastglm.report import check_path, write_report
from fastglm.report.look import SCRIPT

N, FUNCS, WINDOW = 5, 3, 12
MINUS = "\N{MINUS SIGN}"


class Page(HTMLParser):
    """Text of a page by section; raises where tags do not nest."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags, self.attributes, self.open = [], [], []
        self.feed(self.source)
        self.close()
        assert self.open == []
        parts = re.split(r"<h2>(.*?)</h2>", self.source)
        self.sections = dict(zip(parts[1::2], parts[2::2], strict=True))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def table(self, section):
        """Cells of the rows of the body."""
        body = re.search(r"<tbody>(.*?)</tbody>", self.sections[section], re.S)[1]
        rows = body.split("</tr>")[:-1]
        return [[unescape(c) for c in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", r)] for r in rows]

    def list(self, section):
        pairs = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", self.sections[section], re.S)
        return {unescape(a): unescape(b) for a, b in pairs}

    def notes(self):
        text = self.sections["Attention"]
        return [(a, unescape(b)) for a, b in re.findall(r'<li class="(\w+)">(.*?)</li>', text)]


@pytest.fixture(scope="module")
def data():
    basis = fastglm.basis.RaisedCosineLogConv(FUNCS, window_size=WINDOW)
    network = fastglm.simulation.random_network(
        N, basis, mean_rate_hz=40, connection_probability=0.5, strength=0.6, random_key=3
    )
    counts = network.simulate(5000, 1)
    return basis, basis.compute_features(counts), counts


def ridge(strength=1e-4, **kwargs):
    return fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=strength, **kwargs)


@pytest.fixture(scope="module")
def model(data):
    return ridge().fit(*data[1:])


@pytest.fixture(scope="module")
def page(data, model, tmp_path_factory):
    basis, X, counts = data
    path = write_report(
        tmp_path_factory.mktemp("report") / "fit.html", model, X, counts, bin_size=0.001,
        basis=basis, recording="a <b>bold</b> & name", seconds=1.25, settings={"chosen": "by hand"},
    )  # fmt: skip
    return Page(path)


def test_page_refers_to_nothing_outside(page):
    assert page.tags.count("script") == 1
    assert "link" not in page.tags
    assert not re.search(r"fetch|XMLHttp|import\(|eval|innerHTML|cookie", SCRIPT)
    for tag, name, value in page.attributes:
        assert not name.startswith("on")
        assert (tag, name) != ("script", "src")
        if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            assert value.startswith(("#", "data:image/png")), (tag, name)
    assert not re.search(r"url\((?!#)|@import|javascript:", page.source)
    assert not re.search(r"https?:", re.sub(r'xmlns(:\w+)?="[^"]*"', "", page.source))
    names = [value for _, name, value in page.attributes if name == "id"]
    assert len(names) == len(set(names))
    used = re.findall(r'(?:url\(|href=")#([^)"]+)', page.source)
    assert set(used) <= set(names)


def test_page_follows_the_scheme_of_the_reader(page):
    assert "prefers-color-scheme: dark" in page.source
    assert ("meta", "content", "width=device-width, initial-scale=1") in page.attributes
    assert "currentColor" in page.source
    assert "#010203" not in page.source  # what stood for it


def test_what_users_name_is_escaped(page):
    assert "<b>bold</b>" not in page.source
    assert page.list("What was fitted")["recording"] == "a <b>bold</b> & name"
    assert "a &lt;b&gt;bold&lt;/b&gt; &amp; name</h1>" in page.source


def test_certificate_is_the_models(page, model):
    certificate = page.list("Certificate")
    worst = int(model.newton_decrement_.argmax())
    largest = f"{model.newton_decrement_.max():.1e} (receiver {worst})"
    assert certificate["largest Newton decrement"] == largest
    steepest = int(model.grad_norm_.argmax())
    assert certificate["largest gradient entry"] == (
        f"{model.grad_norm_.max():.1e} (receiver {steepest})"
    )
    assert certificate["status"] == f"{N} converged"
    assert certificate["time"] == "1.2 s"


def test_receivers_are_the_models(page, model, data):
    _, X, counts = data
    rows = page.table("Receivers")
    seen = counts[X.valid]
    explained = fastglm.diagnostics.deviance_explained(model, X, counts)
    bits = fastglm.diagnostics.bits_per_spike(model, X, counts)
    rescaling = fastglm.diagnostics.time_rescaling(model, X, counts)
    part = rescaling.statistic / rescaling.band(0.95)
    assert rows == [
        [
            str(j),
            f"{seen[:, j].sum():,}",
            f"{seen[:, j].mean() / 0.001:.3g}",
            "converged",
            f"{model.newton_decrement_[j]:.0e}",
            str(model.n_passes_[j]),
            f"{explained[j]:.3f}",
            f"{bits[j]:.3f}",
            f"{part[j]:.2f}",
        ]
        for j in range(N)
    ]


def test_couplings_are_those_of_the_map(page, model, data):
    couplings = model.coupling_map(*data[1:], bin_size=0.001)
    rows = page.table("Who drives whom")
    assert len(rows) == N * (N - 1)
    pairs = []
    for name, strength, error, gain, delay, sensitivity, q in rows:
        i, j = map(int, name.split(" \N{RIGHTWARDS ARROW} "))
        pairs.append((i, j))
        assert strength == f"{couplings.strength[i, j]:+.2f}".replace("-", MINUS)
        assert error == f"{couplings.standard_error[i, j]:.2g}"
        assert gain == f"{couplings.gain[i, j]:+.3g} %".replace("-", MINUS)
        assert delay == f"{couplings.delay[i, j]:.0f} ms"
        assert sensitivity == f"{couplings.sensitivity[i, j]:.2g} %"
        value = couplings.q_value[i, j]
        assert q == ("< 0.0001" if value < 1e-4 else f"{value:.2g}")
    assert len(set(pairs)) == len(rows)
    significant = couplings.significant()
    k = int(significant.sum())
    assert 0 < k < len(rows)
    assert all(significant[p] for p in pairs[:k])
    assert not any(significant[p] for p in pairs[k:])
    strengths = np.abs([couplings.strength[p] for p in pairs[:k]])
    assert (np.diff(strengths) <= 0).all()
    assert f"<b>{k}</b><span>of {N * (N - 1)} couplings with q\u00a0\u2264\u00a00.05" in page.source


def test_what_was_fitted_and_how(page):
    fitted = page.list("What was fitted")
    assert fitted["bins"] == "5,000 of 1 ms, 5 s"
    assert fitted["in the fit"] == f"{5000 - WINDOW:,} bins with complete history, 1 stretch"
    assert fitted["features"].startswith(f"{N * FUNCS} \N{EN DASH} RaisedCosineLogConv: history")
    assert fitted["penalty"] == "Ridge, strength 0.0001"
    settings = page.list("Settings and versions")
    assert settings["chosen"] == "by hand"
    assert settings["basis"].startswith("RaisedCosineLogConv(")
    assert f"fastglm {fastglm.__version__}" in settings["versions"]


def test_silent_and_separated_receivers_are_said(data, tmp_path):
    counts = data[2].copy()
    counts[:, 2] = 0
    counts[:, 4] = np.arange(5000) % 9 == 0  # refractory for ever: its history separates
    X = fastglm.basis.HistoryConv(2).compute_features(counts)
    with pytest.warns(match="silent"):
        model = fastglm.PopulationGLM().fit(X, counts)
    assert model.status_[2] == "silent"
    assert model.status_[4] == "separated"
    page = Page(write_report(tmp_path / "fit.html", model, X, counts))
    status = page.list("Certificate")["status"]
    assert status == _html.tally(model.status_)
    text = " ".join(note for _, note in page.notes())
    assert "1 receiver (2) has silent" not in text
    assert re.search(r"1 receiver \(2\) is silent: ", text)
    assert re.search(r"\([0-9, ]*4\) (is|are) separated: ", text)
    rows = page.table("Receivers")
    assert rows[2][3] == "silent"
    assert rows[2][1] == "0"
    assert rows[2][6:] == ["\N{EN DASH}"] * 3
    assert rows[4][3] == "separated"
    assert "nan" not in re.sub("<style>.*?</style>|<svg.*?</svg>", "", page.source, flags=re.S)
    assert page.list("What was fitted")["bins"] == "5,000"


def test_few_events_and_missing_counts_are_said(data, tmp_path):
    basis, _, counts = data
    counts = counts.astype(float)
    counts[:, 1] = 0
    counts[[500, 900, 2000], 1] = 1
    counts[100:200, 3] = np.nan
    X = basis.compute_features(np.nan_to_num(counts))
    model = ridge(1e-2).fit(X, counts)
    page = Page(write_report(tmp_path / "fit.html", model, X, counts))
    notes = [note for _, note in page.notes()]
    assert any("1 receiver (1) has fewer events than features" in note for note in notes)
    assert any("1 receiver (3) has missing counts" in note for note in notes)
    levels = [level for level, _ in page.notes()]
    assert levels == sorted(levels, key=lambda level: level != "warning")


def test_lasso_says_what_its_errors_mean(data, tmp_path):
    _, X, counts = data
    model = fastglm.PopulationGLM(regularizer="Lasso", regularizer_strength=2e-3).fit(X, counts)
    page = Page(write_report(tmp_path / "fit.html", model, X, counts))
    assert any("Lasso has selected couplings" in note for _, note in page.notes())
    assert not any("With a ridge" in note for _, note in page.notes())


def test_ridge_says_what_its_intervals_mean(page):
    assert any("With a ridge" in note for _, note in page.notes())


def test_point_estimates_alone(data, model, tmp_path):
    _, X, counts = data
    page = Page(
        write_report(tmp_path / "fit.html", model, X, counts, standard_errors=False, title="Mine")
    )
    couplings = model.coupling_map(X, counts)
    for name, strength, gain in page.table("Who drives whom"):
        i, j = map(int, name.split(" \N{RIGHTWARDS ARROW} "))
        assert strength == f"{couplings.strength[i, j]:+.2f}".replace("-", MINUS)
        assert gain == f"{couplings.gain[i, j]:+.3g} %".replace("-", MINUS)
    assert any("Standard errors and tests were left out;" in note for _, note in page.notes())
    assert "<title>Mine</title>" in page.source
    assert "couplings, not tested" in page.source
    assert "<h1>Mine</h1>" in page.source


def test_standard_errors_wait_where_they_take_long(data, model, tmp_path, monkeypatch):
    _, X, counts = data
    monkeypatch.setattr(fastglm.inference, "_MOST_WORK", 1.0)
    page = Page(write_report(tmp_path / "fit.html", model, X, counts))
    assert any(f"{N * FUNCS} features and {N} receivers" in note for _, note in page.notes())
    page = Page(write_report(tmp_path / "fit.html", model, X, counts, standard_errors="robust"))
    robust = model.coupling_map(X, counts, "robust")
    name, _, error, _, _ = page.table("Who drives whom")[0]
    i, j = map(int, name.split(" \N{RIGHTWARDS ARROW} "))
    assert error == f"{robust.standard_error[i, j]:.2g}"


def test_a_map_brings_its_model_tests_and_controls(tmp_path):
    rng = np.random.default_rng(0)
    counts = rng.binomial(1, 0.05, size=(5000, 3))
    counts[2:, 1] |= counts[:-2, 0] & rng.binomial(1, 0.5, size=4998)
    couplings = fastglm.infer_connectivity(counts, 0.002, null="model", controls=("shifted",))
    model = couplings.model
    held_out = fastglm.diagnostics.contributions(
        model, model.X_, model.counts_, 2, blocks={"coupling": "coupling"}
    )
    page = Page(write_report(tmp_path / "fit.html", couplings, contributions=held_out))
    tested = page.list("Who drives whom")
    assert tested["null"] == couplings.null.sentence
    assert tested["controls"] == couplings.settings["controls"]
    assert tested["synchrony"] == couplings.settings["synchrony"]
    assert page.list("Settings and versions")["window"] == "50 ms (25 bins)"
    rows = page.table("Who drives whom")
    assert rows[0][0] == "0 \N{RIGHTWARDS ARROW} 1"
    assert rows[0][1] == f"{couplings.strength[0, 1]:+.2f}"
    assert "Cross-validated" in page.sections["Does coupling help?"]
    assert page.list("What was fitted")["bins"].startswith("5,000 of 2 ms")


def test_gains_have_no_powers_of_ten():
    assert fastglm.report.sections._gain(1214.2) == "+1,210"
    assert fastglm.report.sections._gain(-61.26) == f"{MINUS}61.3"


def test_names_of_the_cells(data, model, tmp_path):
    _, X, counts = data
    names = [f"cell <{k}>" for k in range(N)]
    page = Page(write_report(tmp_path / "fit.html", model, X, counts, names=names))
    assert [row[0] for row in page.table("Receivers")] == names
    assert page.table("Who drives whom")[0][0].count("cell <") == 2


@pytest.mark.parametrize("itself", [True, False])
def test_one_receiver(data, tmp_path, itself):
    basis, X, counts = data
    X = basis.compute_features(counts[:, :1]) if itself else X
    model = fastglm.GLM(regularizer="Ridge", regularizer_strength=1e-4).fit(X, counts[:, 0])
    page = Page(write_report(tmp_path / "fit.html", model, X, counts[:, 0]))
    assert len(page.table("Receivers")) == 1
    if itself:
        assert "No coupling between different cells" in page.sections["Who drives whom"]
        assert "Filters of the strongest couplings" not in page.sections
    else:
        assert len(page.table("Who drives whom")) == N - 1  # its own history is none


def test_receivers_that_are_a_part_of_the_senders_have_their_numbers(data, tmp_path):
    _, X, counts = data
    model = ridge().fit(X, counts[:, [3, 1]])
    page = Page(write_report(tmp_path / "fit.html", model, X, counts[:, [3, 1]]))
    assert [row[0] for row in page.table("Receivers")] == ["3", "1"]
    arrows = {row[0] for row in page.table("Who drives whom")}
    assert len(arrows) == 2 * (N - 1)
    assert {arrow[-1] for arrow in arrows} == {"3", "1"}
    assert f"A table of all {2 * N}" in page.sections["Who drives whom"]


def test_softplus_has_no_gain(data, tmp_path):
    _, X, counts = data
    model = ridge(inverse_link_function="softplus").fit(X, counts)
    page = Page(write_report(tmp_path / "fit.html", model, X, counts))
    assert len(page.table("Who drives whom")[0]) == 5
    assert page.list("What was fitted")["link"] == "softplus"


def test_features_without_history(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 3))
    y = rng.poisson(np.exp(X @ [[0.3, 0.0], [0.0, -0.2], [0.1, 0.1]] - 1))
    page = Page(write_report(tmp_path / "fit.htm", ridge().fit(X, y), X, y))
    assert "Who drives whom" not in page.sections
    assert "couplings" not in page.source
    assert len(page.table("Receivers")) == 2
    assert page.list("What was fitted")["features"].endswith("3 columns")


def test_raises(data, model, tmp_path):
    _, X, counts = data
    path = tmp_path / "fit.html"
    with pytest.raises(ValueError, match=r"There is no folder .*absent to write to"):
        write_report(tmp_path / "absent" / "fit.html", model, X, counts)
    with pytest.raises(ValueError, match=r"fit\.txt is not the name of a page.*\.html"):
        check_path(tmp_path / "fit.txt")
    with pytest.raises(ValueError, match="bin_size is -1; expected seconds above 0"):
        write_report(path, model, X, counts, bin_size=-1)
    with pytest.raises(
        ValueError, match="standard_errors is 'some'; expected None, True, False or"
    ):
        write_report(path, model, X, counts, standard_errors="some")
    with pytest.raises(ValueError, match=r"names has shape \(2,\); expected a name for each of 5"):
        write_report(path, model, X, counts, names=["a", "b"])
    with pytest.raises(ValueError, match="X or y is missing; expected those of the fit"):
        write_report(path, model)
    found = model.coupling_map(X, counts)
    with pytest.raises(ValueError, match="a CouplingMap has its tests; leave them out"):
        write_report(path, found, X, counts, null="empirical")
    found.save(tmp_path / "map.npz")
    with pytest.raises(ValueError, match="This map has no model, as one from a file has none"):
        write_report(path, fastglm.load_couplings(tmp_path / "map.npz"))
    with pytest.raises(ValueError, match="is not fitted yet"):
        write_report(path, fastglm.PopulationGLM(), X, counts)
    with pytest.raises(ValueError, match="is expecting 15 features"):
        write_report(path, model, X[:, :3], counts)
    assert not path.exists()


@pytest.mark.parametrize(
    ("family", "link", "factor"),
    [("Bernoulli", "logistic", "odds"), ("Bernoulli", "cloglog", "rate")],
)
def test_a_page_of_bernoulli_observations(data, tmp_path, family, link, factor):
    basis, _, counts = data
    counts = counts.clip(max=1)
    X = basis.compute_features(counts)
    model = ridge(observation_model=family, inverse_link_function=link).fit(X, counts)
    page = Page(write_report(tmp_path / "fit.html", model, X, counts, bin_size=0.001))
    assert "<title>Coupled Bernoulli GLM</title>" in page.source
    fitted = page.list("What was fitted")
    assert (fitted["observations"], fitted["link"]) == (family, link)
    assert "scale" not in fitted
    assert f"gain the change of the {factor} at the lag" in page.source
    assert f"one event changes the {factor}" in page.source
    rescaling = fastglm.diagnostics.time_rescaling(model, X, counts)
    part = rescaling.statistic / rescaling.band(0.95)
    assert [row[-1] for row in page.table("Receivers")] == [f"{p:.2f}" for p in part]


def test_a_page_of_gaussian_observations(tmp_path):
    rng = np.random.default_rng(0)
    y = rng.normal(size=(2000, 3))
    y[1:, 1] += 0.7 * y[:-1, 0]
    X = fastglm.basis.HistoryConv(3).compute_features(y)
    model = ridge(observation_model="Gaussian").fit(X, y)
    page = Page(write_report(tmp_path / "fit.html", model, X, y))
    assert "<title>Coupled Gaussian GLM</title>" in page.source
    fitted = page.list("What was fitted")
    low, middle, high = np.sort(model.scale_)
    assert fitted["scale"] == f"median {middle:.4g}, {low:.4g} to {high:.4g}"
    assert fitted["receivers"] == "3"
    shown = page.list("Does the model describe the data?")
    assert set(shown) == {"deviance explained (R\u00b2), in-sample", "spectral radius"}
    assert "one event" not in page.source
    assert "bits per spike" not in page.source
    assert "Change of mean, over the lag in bins" in page.source
    r2 = fastglm.diagnostics.deviance_explained(model, X, y)
    rows = page.table("Receivers")
    assert [row[2] for row in rows] == [f"{v:.3g}" for v in model.scale_]
    assert [row[-1] for row in rows] == [f"{v:.3f}" for v in r2]
    assert len(page.table("Who drives whom")[0]) == 5  # no gain
    first = page.table("Who drives whom")[0][0]
    assert first == "0 \N{RIGHTWARDS ARROW} 1"


def test_a_page_of_a_fit_with_weights_and_offsets(data, tmp_path):
    _, X, counts = data
    rng = np.random.default_rng(0)
    given = {"sample_weight": rng.integers(0, 3, 5000), "offset": rng.normal(0, 0.1, 5000)}
    model = ridge().fit(X, counts, **given)
    path = tmp_path / "fit.html"
    with pytest.raises(ValueError, match="was fitted with"):
        write_report(path, model, X, counts)
    page = Page(write_report(path, model, X, counts, **given))
    kept = X.valid & (given["sample_weight"] > 0)
    fitted = page.list("What was fitted")
    assert fitted["in the fit"].startswith(f"{kept.sum():,} bins with complete history and a weig")
    assert fitted["offset"] == "given"
    couplings = model.coupling_map(X, counts, **given)
    name, strength, error, *_ = page.table("Who drives whom")[0]
    i, j = map(int, name.split(" \N{RIGHTWARDS ARROW} "))
    assert strength == f"{couplings.strength[i, j]:+.2f}".replace("-", MINUS)
    assert error == f"{couplings.standard_error[i, j]:.2g}"
    bits = fastglm.diagnostics.bits_per_spike(model, X, counts, **given)
    assert [row[7] for row in page.table("Receivers")] == [f"{v:.3f}" for v in bits]


def test_a_receiver_with_an_event_in_nearly_every_bin_is_said(data, tmp_path):
    basis, _, counts = data
    counts = counts.clip(max=1)
    counts[:, 1] = 1
    counts[[500, 900, 2000], 1] = 0
    X = basis.compute_features(counts)
    model = ridge(1e-2, observation_model="Bernoulli").fit(X, counts)
    page = Page(write_report(tmp_path / "fit.html", model, X, counts))
    notes = [note for _, note in page.notes()]
    assert any("1 receiver (1) has fewer bins with, or without, an event than" in n for n in notes)
