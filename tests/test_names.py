"""Names of columns and ids of units reach the map, the warning, the picture and the file."""

import numpy as np
import pytest

import fastglm
from fastglm import GLM, PopulationGLM
from fastglm.basis import BSplineEval, HistoryConv
from fastglm.model_selection import cross_validate, regularization_path

pandas = pytest.importorskip("pandas")

RNG = np.random.default_rng(5)
NAMES = ["CA1 4", "CA1 7", "CA3 2"]
COUNTS = pandas.DataFrame(RNG.poisson(0.3, (250, 3)), columns=NAMES)
COVARIATES = pandas.DataFrame(RNG.normal(size=(250, 2)), columns=["speed", "heading"])
RIDGE = {"regularizer": "Ridge", "regularizer_strength": 1e-2}


@pytest.fixture(scope="module")
def fitted():
    X = HistoryConv(2).compute_features(COUNTS)
    return X, PopulationGLM(**RIDGE).fit(X, COUNTS)


def test_names_reach_the_map(fitted):
    X, model = fitted
    couplings = model.coupling_map(X, COUNTS)
    assert couplings.senders.tolist() == couplings.receivers.tolist() == NAMES
    assert couplings.own_history.diagonal().all()
    assert set(couplings.to_frame()["sender"]) == set(NAMES)
    assert fastglm.infer_connectivity(COUNTS, 0.01).receivers.tolist() == NAMES


def test_ids_that_are_numbers_stay_numbers():
    counts = COUNTS.set_axis([17, 4, 31], axis=1)
    X = HistoryConv(2).compute_features(counts)
    couplings = PopulationGLM(**RIDGE).fit(X, counts).coupling_map(X, counts)
    assert couplings.senders.tolist() == [17, 4, 31]


def test_names_of_several_levels_are_one_name_each():
    counts = COUNTS.set_axis(pandas.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)]), axis=1)
    X = HistoryConv(2).compute_features(counts)
    couplings = PopulationGLM(**RIDGE).fit(X, counts).coupling_map(X, counts)
    assert couplings.senders.tolist() == ["('a', 1)", "('a', 2)", "('b', 1)"]


def test_names_reach_the_warning():
    counts = COUNTS.copy()
    counts["CA1 7"] = 0
    with pytest.warns(fastglm.glm.ConvergenceWarning, match=r"silent \(receiver CA1 7\)"):
        PopulationGLM(**RIDGE).fit(COVARIATES, counts)
    with pytest.warns(fastglm.glm.ConvergenceWarning, match=r"silent \(receiver CA1 7\)"):
        GLM(**RIDGE).fit(COVARIATES, counts["CA1 7"])


def test_names_reach_the_errors():
    counts = COUNTS.copy()
    counts.loc[9, "CA3 2"] = -1
    for family in ("Poisson", "Bernoulli"):
        with pytest.raises(ValueError, match="-1 in bin 9 of receiver CA3 2"):
            PopulationGLM(family).fit(COVARIATES, counts.clip(upper=1))


def test_names_reach_the_pictures(fitted):
    plotting = pytest.importorskip("fastglm.plotting")
    plt = pytest.importorskip("matplotlib.pyplot")
    X, model = fitted
    rescaling = fastglm.diagnostics.time_rescaling(model, X, COUNTS)
    assert rescaling.names == NAMES
    labels = [t.get_text() for t in plotting.plot_ks(rescaling, [2]).get_legend().get_texts()]
    assert labels[0].startswith("CA3 2: ")
    ax = plotting.plot_autocorrelation(rescaling, [1])
    assert ax.get_legend().get_texts()[0].get_text() == "CA1 7"
    path = regularization_path(PopulationGLM(**RIDGE), COVARIATES, COUNTS, 2)
    ax = plotting.plot_path(path, 1)
    assert ax.get_title(loc="left") == "CA1 7"
    texts = {t.get_text() for t in ax.get_legend().get_texts()}
    assert texts == {"speed", "heading"}
    cv = cross_validate(PopulationGLM(**RIDGE), COVARIATES, COUNTS, 2, folds=2)
    ax = plotting.plot_cross_validation(cv, 2)
    assert ax.get_title(loc="right").startswith("CA3 2: ")
    plt.close("all")


def test_names_reach_the_report(fitted, tmp_path):
    report = pytest.importorskip("fastglm.report")
    X, model = fitted
    X = fastglm.features.hstack([X, COVARIATES])
    model = PopulationGLM(**RIDGE).fit(X, COUNTS)
    text = report.write_report(
        tmp_path / "fit.html", model, X, COUNTS, standard_errors=False
    ).read_text()
    assert all(text.count(name) > 3 for name in NAMES)
    assert "2 columns (speed, heading)" in text


def test_names_of_senders_that_are_no_receivers_reach_the_report():
    pytest.importorskip("matplotlib")
    from fastglm.report.facts import gather

    X, y = HistoryConv(2).compute_features(COUNTS), COUNTS[["CA3 2"]].to_numpy()
    model = PopulationGLM(**RIDGE).fit(X, y)
    for standard_errors in (False, True):
        facts = gather(model, X, y, standard_errors, None, {}, {})
        assert facts.couplings.senders.tolist() == NAMES


def test_names_reach_the_file(fitted, tmp_path):
    X, model = fitted
    model.save_params(tmp_path / "coupling.npz")
    loaded = fastglm.load_model(tmp_path / "coupling.npz")
    assert loaded.receivers_.names == NAMES
    assert loaded.coupling_map(X, COUNTS).receivers.tolist() == NAMES
    plain = PopulationGLM(**RIDGE).fit(COVARIATES, COUNTS.to_numpy())
    plain.save_params(tmp_path / "plain.npz")
    loaded = fastglm.load_model(tmp_path / "plain.npz")
    assert loaded.feature_names_in_.tolist() == ["speed", "heading"]
    assert loaded.receivers_ is None
    np.testing.assert_array_equal(loaded.predict(COVARIATES), plain.predict(COVARIATES))
    with pytest.raises(ValueError, match="should match those that were passed during fit"):
        loaded.predict(COVARIATES[["heading", "speed"]])


def test_receivers_in_another_order_are_refused(fitted):
    X, model = fitted
    with pytest.raises(ValueError, match="y has the receivers of the fit in another order, CA3 2"):
        model.score(X, COUNTS[NAMES[::-1]])
    assert np.isfinite(model.score(X, COUNTS.to_numpy()))
    model.fit(X, COUNTS[NAMES[::-1]])  # a new fit may have any order
    assert model.receivers_.names == NAMES[::-1]
    model.fit(X, COUNTS)


def test_trials_covariates_and_data_arrays_have_names():
    parts = [COUNTS[:100], COUNTS[100:]]
    X = HistoryConv(2).compute_features(parts)
    assert X.blocks[0].inputs.names == NAMES
    assert PopulationGLM(**RIDGE).fit(X, parts).receivers_.names == NAMES
    X = BSplineEval(4, bounds=(-9, 9)).compute_features(COVARIATES)
    assert X.blocks[0].inputs.names == ["speed", "heading"]
    xarray = pytest.importorskip("xarray")
    array = xarray.DataArray(COUNTS.to_numpy(), dims=("time", "unit"), coords={"unit": NAMES})
    assert HistoryConv(2).compute_features(array).blocks[0].inputs.names == NAMES


def test_ids_of_a_recording_reach_the_fit():
    times = np.sort(RNG.uniform(0, 10, 80))
    spikes = fastglm.recordings.SpikeTimes(
        times, np.arange(80) % 2, 2, 0.0, 10.0, np.array([[0.0, 10.0]]), names=[12, 40]
    )
    events, epochs = spikes.events(0.01)
    X = HistoryConv(2).compute_features(events, epochs=epochs)
    model = PopulationGLM(**RIDGE).fit(X, events)
    assert model.receivers_.names == [12, 40]
    assert model.coupling_map(X, events).senders.tolist() == [12, 40]
    silent = {"a": times, "b": [], "c": times[:20]}
    with pytest.warns(fastglm.glm.ConvergenceWarning, match=r"silent \(receiver b\)"):
        fastglm.fit_coupling(silent, 0.01, basis=HistoryConv(2))
