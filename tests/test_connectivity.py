"""The map of couplings against numbers made one by one from the coefficients and a full inverse."""

import re

import naive_inference as naive
import numpy as np
import pytest
from scipy import stats

import fastglm
from fastglm import connectivity, inference
from fastglm.observation_models import as_observation_model

N_CELLS, N_FUNCS, WINDOW = 4, 3, 15


@pytest.fixture(scope="module")
def fitted():
    """Cell 0 excites 1 and silences 2; 3 is in no link. Counts, X, model."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.15, size=(6000, N_CELLS))
    counts[2:, 1] += counts[:-2, 0] * rng.binomial(1, 0.4, size=5998)
    for lag in range(1, 5):
        counts[lag:, 2] *= 1 - np.minimum(counts[:-lag, 0], 1) * rng.binomial(1, 0.7, 6000 - lag)
    basis = fastglm.basis.RaisedCosineLogConv(N_FUNCS, WINDOW)
    X = basis.compute_features(counts)
    return counts, X, fastglm.PopulationGLM().fit(X, counts)


def by_hand(X, counts, model, i, j):
    """Filter, area, its standard error and the p-value of one pair, from the inverse of all."""
    z = np.column_stack([np.asarray(X)[WINDOW:], np.ones(len(counts) - WINDOW)])
    theta = np.append(model.coef_[:, j], model.intercept_[j])
    covariance = naive.covariance(z, counts[WINDOW:, j], theta)
    part = slice(N_FUNCS * i, N_FUNCS * (i + 1))
    c, v = model.coef_[part, j], covariance[part, part]
    kernel = X.blocks[0].kernel
    area = kernel.sum(axis=0)
    p = stats.chi2.sf(c @ np.linalg.solve(v, c), N_FUNCS)
    return kernel @ c, area @ c, np.sqrt(area @ v @ area), p


def test_every_number_is_that_of_the_pair(fitted):
    counts, X, model = fitted
    couplings = model.coupling_map(X, counts)
    filters, _, _ = couplings.filters()
    for i in range(N_CELLS):
        for j in range(N_CELLS):
            h, area, error, p = by_hand(X, counts, model, i, j)
            peak = h[np.abs(h).argmax()]
            np.testing.assert_allclose(filters[:, i, j], h, rtol=1e-12, atol=1e-15)
            assert couplings.strength[i, j] == pytest.approx(area, rel=1e-12)
            assert couplings.standard_error[i, j] == pytest.approx(error, rel=1e-6)
            assert couplings.peak[i, j] == pytest.approx(peak, rel=1e-12)
            assert couplings.gain[i, j] == pytest.approx(100 * (np.exp(peak) - 1), rel=1e-9)
            assert couplings.p_value[i, j] == pytest.approx(p, rel=1e-4, abs=1e-200)
    off = ~np.eye(N_CELLS, dtype=bool)
    assert np.isnan(np.diag(couplings.q_value)).all()
    np.testing.assert_allclose(
        couplings.q_value[off], stats.false_discovery_control(couplings.p_value[off]), rtol=1e-12
    )


def test_the_links_and_their_signs_are_found(fitted):
    counts, X, model = fitted
    couplings = model.coupling_map(X, counts)
    assert np.argwhere(couplings.significant(0.01)).tolist() == [[0, 1], [0, 2]]
    assert couplings.strength[0, 1] > 0 > couplings.strength[0, 2]
    assert repr(couplings) == ("CouplingMap of 4 senders x 4 receivers, 2 couplings with q <= 0.05")


@pytest.mark.parametrize("kind", inference.KINDS)
def test_the_kind_of_errors_is_the_one_asked_for(fitted, kind):
    counts, X, model = fitted
    u = inference.uncertainty(model, X, counts, kind)
    area = X.blocks[0].kernel.sum(axis=0, keepdims=True)
    expected = np.vstack([u.linear(i, area)[1] for i in range(N_CELLS)])
    couplings = model.coupling_map(X, counts, kind)
    np.testing.assert_array_equal(couplings.standard_error, expected)
    assert couplings.uncertainty.kind == kind


def test_of_several_histories_the_one_with_the_label(fitted):
    counts, _, _ = fitted
    stimulus = np.random.default_rng(1).poisson(0.3, size=(6000, 2))
    drive = np.random.default_rng(2).normal(size=(6000, 1))
    coupling = fastglm.basis.RaisedCosineLogConv(N_FUNCS, WINDOW, label="coupling")
    events = fastglm.basis.RaisedCosineLogConv(2, 8, label="events")
    X = fastglm.features.hstack(
        [drive, events.compute_features(stimulus), coupling.compute_features(counts)]
    )
    model = fastglm.PopulationGLM().fit(X, counts)
    first = model.coupling_map(X, counts)
    assert first.strength.shape == (2, N_CELLS)
    np.testing.assert_allclose(
        first.strength,
        np.einsum("b,ibj->ij", events.kernel_.sum(0), model.coef_[1:5].reshape(2, 2, -1)),
    )
    assert np.isfinite(first.q_value).all()  # senders are not the receivers: no diagonal
    couplings = model.coupling_map(X, counts, label="coupling")
    assert couplings.strength.shape == (N_CELLS, N_CELLS)
    area = coupling.kernel_.sum(axis=0)
    expected = np.einsum("b,ibj->ij", area, model.coef_[5:].reshape(N_CELLS, N_FUNCS, -1))
    np.testing.assert_allclose(couplings.strength, expected)
    filters, _, _ = couplings.filters()
    np.testing.assert_allclose(filters.sum(axis=0), expected)
    with pytest.raises(ValueError, match=r"no history labelled 'stim'.*\['events', 'coupling'\]"):
        model.coupling_map(X, counts, label="stim")
    for label in (np.array(["coupling", "stim"]), ["coupling"], 1):
        with pytest.raises(ValueError, match=r"label is of type \w+; expected the label of one"):
            model.coupling_map(X, counts, label=label)


def test_pairs_outside_the_mask_are_no_number(fitted):
    counts, X, _ = fitted
    kept = np.ones((N_CELLS, N_CELLS), bool)
    kept[3, 0] = kept[0, 3] = False
    model = fastglm.PopulationGLM(feature_mask=np.repeat(kept, N_FUNCS, axis=0)).fit(X, counts)
    couplings = model.coupling_map(X, counts)
    for name in ("standard_error", "p_value", "q_value"):
        np.testing.assert_array_equal(np.isnan(getattr(couplings, name))[~kept], True)
    assert np.isfinite(couplings.p_value[kept]).all()
    tested = kept & ~np.eye(N_CELLS, dtype=bool)
    np.testing.assert_allclose(
        couplings.q_value[tested], stats.false_discovery_control(couplings.p_value[tested])
    )
    assert not couplings.significant(1.0)[~kept].any()


def test_a_pair_that_the_data_do_not_determine_has_infinite_error(fitted):
    counts, _, _ = fitted
    counts = counts.copy()
    counts[:, 3] = 0  # a silent sender, fitted without a penalty
    X = fastglm.basis.RaisedCosineLogConv(N_FUNCS, WINDOW).compute_features(counts)
    with pytest.warns(fastglm.glm.ConvergenceWarning):
        model = fastglm.PopulationGLM().fit(X, counts)
    couplings = model.coupling_map(X, counts)
    assert not np.isfinite(couplings.standard_error[3, :3]).any()
    assert np.isfinite(couplings.standard_error[:3, :3]).all()
    assert not couplings.significant(1.0)[3].any()


def test_one_receiver(fitted):
    counts, X, model = fitted
    one = fastglm.GLM().fit(X, counts[:, 1])
    couplings = one.coupling_map(X, counts[:, 1])
    whole = model.coupling_map(X, counts)
    assert couplings.strength.shape == (N_CELLS, 1)
    np.testing.assert_allclose(couplings.strength[:, 0], whole.strength[:, 1], rtol=1e-6)
    np.testing.assert_allclose(couplings.standard_error[:, 0], whole.standard_error[:, 1], 1e-6)


def test_names(fitted):
    counts, X, model = fitted
    couplings = model.coupling_map(X, counts, senders=list("abcd"), receivers=list("wxyz"))
    assert couplings.senders.tolist() == list("abcd")
    assert couplings.receivers.tolist() == list("wxyz")
    with pytest.raises(ValueError, match=re.escape("senders has shape (2,); expected a name for")):
        model.coupling_map(X, counts, senders=["a", "b"])


def test_without_a_history(fitted):
    counts, _, _ = fitted
    rows = np.random.default_rng(3).normal(size=(6000, 2))
    model = fastglm.PopulationGLM().fit(rows, counts)
    with pytest.raises(ValueError, match="has no history; expected features of a convolution"):
        model.coupling_map(rows, counts)


def test_frame(fitted):
    pytest.importorskip("pandas")
    counts, X, model = fitted
    couplings = model.coupling_map(X, counts, senders=list("abcd"), receivers=list("abcd"))
    frame = couplings.to_frame()
    assert len(frame) == N_CELLS**2
    row = frame[(frame.sender == "a") & (frame.receiver == "c")].iloc[0]
    for name in ("strength", "standard_error", "peak", "gain", "p_value", "q_value"):
        assert row[name] == getattr(couplings, name)[0, 2]


def test_graph(fitted):
    networkx = pytest.importorskip("networkx")
    counts, X, model = fitted
    couplings = model.coupling_map(X, counts, senders=list("abcd"), receivers=list("abcd"))
    graph = couplings.to_networkx(0.01)
    assert isinstance(graph, networkx.DiGraph)
    assert set(graph.edges) == {("a", "b"), ("a", "c")}
    assert set(graph.nodes) == set("abcd")
    assert graph["a"]["b"]["weight"] == couplings.strength[0, 1]
    assert graph["a"]["c"]["q_value"] == couplings.q_value[0, 2]
    assert networkx.to_numpy_array(graph, nodelist=list("abcd"))[0, 2] < 0


@pytest.mark.parametrize(
    ("method", "package"), [("to_frame", "pandas"), ("to_networkx", "networkx")]
)
def test_what_is_missing_is_named(fitted, monkeypatch, method, package):
    counts, X, model = fitted
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(ImportError, match=f"pip install {package}"):
        getattr(model.coupling_map(X, counts), method)()


def test_public_names():
    assert set(connectivity.__all__) == {
        *("CouplingMap", "Null", "Synchrony"),
        *("coupling_map", "load_couplings", "synchrony"),
        *("population_activity", "residual_factors", "slow_drift"),
    }


def test_couplings_without_tests_have_the_same_estimates(fitted):
    counts, X, model = fitted
    tested = model.coupling_map(X, counts)
    plain = connectivity.point_estimates(model.coef_, X.blocks[0].kernel, model=model)
    for name in ("strength", "peak", "gain"):
        np.testing.assert_allclose(getattr(plain, name), getattr(tested, name), rtol=1e-12)
    np.testing.assert_array_equal(plain.own_history, np.eye(N_CELLS, dtype=bool))
    assert tested.tested
    assert not plain.tested
    assert not plain.significant().any()
    between = np.where(np.eye(N_CELLS, dtype=bool), 0, np.abs(plain.strength))
    order = [divmod(int(k), N_CELLS) for k in np.argsort(-between, axis=None)[:5]]
    assert plain.strongest(5) == order
    model = fastglm.PopulationGLM().fit(X, counts)
    model.status_ = np.where(np.arange(N_CELLS) == 1, "separated", model.status_)
    some = connectivity.point_estimates(model.coef_, X.blocks[0].kernel, model=model)
    assert np.isinf(some.standard_error[:, 1]).all()
    assert not any(j == 1 for _, j in some.strongest(20))
    assert np.isnan(
        connectivity.point_estimates(
            model.coef_,
            X.blocks[0].kernel,
            loss=as_observation_model("Gaussian").loss(),
        ).gain
    ).all()


@pytest.mark.parametrize("hole", [False, True])
def test_a_dense_population_that_drives_itself_has_its_own_history(hole):
    rng = np.random.default_rng(0)
    y = rng.normal(size=(9000, 3))
    X = fastglm.basis.HistoryConv(2).compute_features(y)
    model = fastglm.PopulationGLM("Gaussian").fit(X, y)
    assert np.isnan(np.diag(model.coupling_map(X, y).q_value)).all()
    y[8500, 1] = 0.0 if hole else 5.0
    assert model.coupling_map(X, y).own_history.any() != hole


# --- units, and files -----------------------------------------------------------------------------


def test_added_spikes_are_those_of_the_mean_rate(fitted):
    counts, X, model = fitted
    couplings = model.coupling_map(X, counts)
    for i in range(N_CELLS):
        for j in range(N_CELLS):
            h = by_hand(X, counts, model, i, j)[0]
            expected = counts[WINDOW:, j].mean() * (np.exp(h) - 1).sum()
            assert couplings.added_spikes[i, j] == pytest.approx(expected, rel=1e-9)
    assert np.isnan(couplings.strength_ms).all()  # nobody has said how long a bin is
    in_ms = model.coupling_map(X, counts, bin_size=0.002).strength_ms
    np.testing.assert_allclose(in_ms, 2 * couplings.strength, rtol=1e-12)


def test_added_spikes_of_another_link(fitted):
    counts, X, _ = fitted
    events = np.minimum(counts, 1)
    model = fastglm.PopulationGLM("Bernoulli").fit(X, events)
    couplings = model.coupling_map(X, events)
    mean = events[WINDOW:].mean(axis=0)
    h = np.einsum("lb,ibj->lij", couplings.kernel, couplings.coef)
    up = 1 / (1 + np.exp(-(np.log(mean / (1 - mean)) + h)))
    np.testing.assert_allclose(couplings.added_spikes, (up - mean).sum(axis=0), rtol=1e-9)


def test_a_map_is_the_same_from_its_file(fitted, tmp_path):
    counts, X, model = fitted
    names = ["a", "b", "c", "d"]
    couplings = model.coupling_map(
        X, counts, senders=names, receivers=names, bin_size=0.001, channel=[1, 1, 2, 3]
    )
    couplings.settings["window"] = np.float64(0.015)
    couplings.save(tmp_path / "map")
    found = fastglm.load_couplings(tmp_path / "map.npz")
    for name in (*connectivity.couplings._NUMBERS, "same_channel", "own_history", "absent"):
        np.testing.assert_array_equal(getattr(found, name), getattr(couplings, name), name)
    for name in ("senders", "receivers", "kernel", "coef", "mean_count"):
        np.testing.assert_array_equal(getattr(found, name), getattr(couplings, name), name)
    assert repr(found) == repr(couplings)
    assert (found.channel, found.controls, found.bin_size) == (couplings.channel, {}, 0.001)
    assert found.settings == {"window": 0.015}
    assert found.null.sentence == couplings.null.sentence
    assert found.sentence("a", "b") == couplings.sentence("a", "b")
    assert (found.loss.family, found.loss.link) == ("Poisson", "exp")
    with pytest.raises(ValueError, match="no standard errors of its filters"):
        found.filters()
    pytest.importorskip("pandas")
    assert found.to_frame().equals(couplings.to_frame())


@pytest.mark.filterwarnings("ignore:silent")
@pytest.mark.parametrize("tested", [True, False])
def test_what_is_absent_stays_absent_in_a_file(fitted, tmp_path, tested):
    counts, X, _ = fitted
    counts = counts.copy()
    counts[:, 3] = 0
    model = fastglm.PopulationGLM().fit(X, counts)
    couplings = model.coupling_map(X, counts)
    if not tested:
        couplings = connectivity.point_estimates(
            model.coef_, couplings.kernel, itself=False, model=model
        )
    couplings.save(tmp_path / "map.npz")
    found = fastglm.load_couplings(tmp_path / "map.npz")
    assert couplings.absent[:, 3].all()
    np.testing.assert_array_equal(found.absent, couplings.absent)
    assert found.tested == couplings.tested


def test_files_that_are_no_map_are_refused(fitted, tmp_path):
    counts, X, model = fitted
    path = tmp_path / "map.npz"
    with pytest.raises(FileNotFoundError):
        fastglm.load_couplings(path)
    model.save_params(path)
    with pytest.raises(ValueError, match="is not a map of fastglm"):
        fastglm.load_couplings(path)
    model.coupling_map(X, counts).save(path)
    data = dict(np.load(path))
    np.savez(path, **{**data, "strength": data["strength"][1:]})
    with pytest.raises(ValueError, match="damaged map of couplings: strength has shape"):
        fastglm.load_couplings(path)
    newer = str(data["header"]).replace('"version": 1', '"version": 2')
    np.savez(path, **{**data, "header": np.array(newer)})
    with pytest.raises(ValueError, match="format version 2"):
        fastglm.load_couplings(path)
    with pytest.raises(ValueError, match="There is no folder"):
        model.coupling_map(X, counts).save(tmp_path / "nowhere" / "map.npz")


def test_receivers_that_are_a_part_of_the_senders_have_own_histories(tmp_path):
    rng = np.random.default_rng(5)
    counts = rng.binomial(1, 0.05, size=(5000, 6))
    X = fastglm.basis.RaisedCosineLogConv(3, 20).compute_features(counts)
    ridge = {"regularizer": "Ridge", "regularizer_strength": 1e-4}
    y = np.column_stack([counts[:, [4, 1]], rng.binomial(1, 0.05, size=5000)])
    part = fastglm.PopulationGLM(**ridge).fit(X, y).coupling_map(X, y, bin_size=0.001)
    assert np.argwhere(part.own_history).tolist() == [[1, 1], [4, 0]]
    assert part.receivers.tolist() == [0, 1, 2]  # not all are senders
    y = counts[:, [4, 1]]
    part = fastglm.PopulationGLM(**ridge).fit(X, y).coupling_map(X, y, bin_size=0.001)
    assert part.receivers.tolist() == [4, 1]
    whole = fastglm.PopulationGLM(**ridge).fit(X, counts).coupling_map(X, counts, bin_size=0.001)
    np.testing.assert_allclose(part.strength, whole.strength[:, [4, 1]], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(part.z, whole.z[:, [4, 1]], rtol=1e-4, atol=1e-4)
    assert np.isnan(part.q_value[[4, 1], [0, 1]]).all()
    assert np.isfinite(part.q_value).sum() == 10
    assert not set(part.strongest(100)) & {(4, 0), (1, 1)}
    part.save(tmp_path / "part.npz")
    loaded = fastglm.load_couplings(tmp_path / "part.npz")
    np.testing.assert_array_equal(loaded.own_history, part.own_history)


def test_a_table_is_written_piece_by_piece(tmp_path, monkeypatch):
    from fastglm.connectivity import files

    counts = np.random.default_rng(6).poisson(0.2, size=(2000, 5))
    X = fastglm.basis.RaisedCosineLogConv(3, 20).compute_features(counts)
    couplings = fastglm.PopulationGLM().fit(X, counts).coupling_map(X, counts)
    files.write_table(couplings, tmp_path / "whole.csv")
    monkeypatch.setattr(files, "_ROWS", 10)
    files.write_table(couplings, tmp_path / "pieces.csv")
    text = (tmp_path / "whole.csv").read_text()
    assert text.count("\n") == 26
    assert (tmp_path / "pieces.csv").read_text() == text
