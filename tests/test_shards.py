"""Fits in shards are those of the whole, wherever the cuts are; spikes come from files."""

import itertools
import tracemalloc
from pathlib import Path

import numba
import numpy as np
import pytest

import fastglm
from fastglm._batches.fit import fit_penalties, fit_shards
from fastglm._batches.plan import plan_fit
from fastglm._engine.batch import Settings
from fastglm._engine.observed import Observed
from fastglm._penalty import ridge
from fastglm._products.local import Local
from fastglm._products.shards import Shards
from fastglm.features import Events
from fastglm.observation_models import as_observation_model
from fastglm.recordings import stream
from fastglm.recordings.stream import SpikeFile, from_events, sources_of

DATA = Path(__file__).parents[2] / "shared" / "data"
BUDGET = 1e9


@pytest.fixture(scope="module")
def network():
    """Spikes of a coupled network, and epochs of which the cuts hit most."""
    basis = fastglm.basis.RaisedCosineLogConv(4, 30)
    net = fastglm.simulation.random_network(6, basis, random_key=1, mean_rate_hz=25)
    counts = net.simulate(6000, 0)
    epochs = np.array([[0, 1500], [1600, 1640], [1640, 4000], [4013, 6000]])
    return counts, basis, epochs


def settings_of(family, path, link=None, maxiter=100):
    loss = as_observation_model(family).loss(link)
    return Settings(loss, 1e-20, maxiter, path, "auto", BUDGET)


def both(events, basis, epochs, edges, settings, strength=1e-4, free=None):
    """The fit of the whole, and that of shards with these edges."""
    X = basis.compute_features(events, epochs=epochs)
    n = events.n_units
    free = np.ones((X.shape[1], n), bool) if free is None else free
    penalties = [ridge(np.full(n, s)) for s in np.atleast_1d(strength)]
    shards = Shards(from_events(events, basis, edges, epochs))
    np.testing.assert_array_equal(shards.valid, X.valid)
    whole = fit_penalties(X, Observed(events), X.valid, free, penalties, settings)
    return whole, fit_shards(shards, free, penalties, settings)


def assert_same(whole, parts):
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(b.status, a.status)
        np.testing.assert_allclose(b.objective, a.objective, rtol=1e-13, atol=0)
        np.testing.assert_allclose(b.coef, a.coef, rtol=0, atol=1e-6)
        np.testing.assert_allclose(b.intercept, a.intercept, rtol=0, atol=1e-6)


def seven(n_bins):
    return np.linspace(0, n_bins, 8).astype(int)


LINKS = [
    ("Poisson", "exp"),
    ("Poisson", "softplus"),
    ("Bernoulli", "logistic"),
    ("Bernoulli", "cloglog"),
    ("Gaussian", "identity"),
]


FITS = [(*link, "newton-cg") for link in LINKS]
FITS += [("Poisson", "exp", "newton-cholesky"), ("Bernoulli", "cloglog", "newton-cholesky")]
FITS += [("Gaussian", "identity", "auto")]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "link", "path"), FITS)
def test_seven_shards_are_the_whole(network, family, link, path):
    counts, basis, epochs = network
    counts = counts.clip(max=1) if family == "Bernoulli" else counts
    settings = settings_of(family, path, link=link)
    assert_same(*both(Events.of(counts), basis, epochs, seven(6000), settings))


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the recordings are not here")
@pytest.mark.parametrize("family", ["Poisson", "Bernoulli", "Gaussian"])
def test_seven_shards_of_a_recording(family):
    """locust10_al at 1 ms: 28 epochs, most of which a cut hits or a shard holds whole."""
    events, epochs = fastglm.load_spikes(DATA / "locust10_al.npz").events(0.001)
    if family == "Bernoulli":
        events.amplitudes = events.amplitudes.clip(max=1)
    basis = fastglm.basis.RaisedCosineLogConv(5, 60)
    edges = seven(events.n_bins)
    assert_same(*both(events, basis, epochs, edges, settings_of(family, "auto")))


EDGES = {
    "one shard": [0, 6000],
    "cuts on the edges of epochs": [0, 1500, 1600, 1640, 4000, 4013, 6000],
    "a bin off them": [0, 1499, 1501, 1601, 1639, 1641, 4012, 4014, 6000],
    "shards shorter than a window": [0, 7, 20, 2500, 2503, 2511, 5990, 6000],
    "a shard of a bin, and one without any": [0, 2500, 2501, 2501, 6000],
    "a shard between two epochs": [0, 1502, 1598, 4001, 4010, 6000],
}


@pytest.mark.slow
@pytest.mark.parametrize("edges", EDGES)
def test_cuts_anywhere(network, edges):
    counts, basis, epochs = network
    settings = settings_of("Poisson", "newton-cg")
    assert_same(*both(Events.of(counts), basis, epochs, EDGES[edges], settings))


@pytest.mark.slow
def test_paths_of_penalties(network):
    counts, basis, epochs = network
    settings = settings_of("Poisson", "newton-cg")
    both_ways = both(Events.of(counts), basis, epochs, seven(6000), settings, [1e-2, 1e-4])
    assert_same(*both_ways)


@pytest.mark.slow
def test_masks_in_shards(network):
    """Small masks, each with senders of its own."""
    counts, basis, epochs = network
    mask = np.repeat(np.random.default_rng(0).random((6, 6)) < 0.25, 4, axis=0)
    mask[:, 0] = False
    settings = settings_of("Poisson", "newton-cg")
    assert_same(*both(Events.of(counts), basis, epochs, seven(6000), settings, 1e-4, mask))


def test_products_of_one_reader_keep_one_shard(network):
    """Receivers with few features, and their counts, walk over the same shard."""
    counts, basis, epochs = network
    events, n_loads = Events.of(counts), []

    def read(first, stop):
        n_loads.append(first)
        return events.part(first, stop)

    shards = Shards(sources_of(read, basis, seven(6000), epochs))
    part, _ = shards.select(np.arange(24) < 8)
    fewer = part.restrict(part.valid & (np.arange(6000) % 3 > 0))
    observed = Observed(shards.events()).select(np.array([2, 4]))
    for products in (shards, part, fewer):
        n_loads.clear()
        total = products.total(lambda one, own: own.events.n_events, observed)
        assert len(n_loads) in (6, 7)  # the last one may be there from before
        assert total >= counts[:, [2, 4]].astype(bool).sum()
    assert len(shards.reader.parts) <= 3
    shards.load(2), part.load(2), fewer.load(2)
    n_loads.clear()
    shards.load(2), fewer.load(2), part.load(2)
    assert not n_loads
    shards.load(3)
    assert len(shards.reader.parts) == 1


def test_receivers_of_shards_do_not_go_side_by_side(network, monkeypatch):
    """Each thread would keep a shard of its own; one recording in memory has no such limit."""
    counts, basis, epochs = network
    events = Events.of(counts)
    shards = Shards(sources_of(events.part, basis, seven(6000), epochs))
    X = basis.compute_features(counts, epochs=epochs)
    free = np.repeat(np.random.default_rng(0).random((6, 6)) < 0.3, 4, axis=0)
    monkeypatch.setattr(numba, "get_num_threads", lambda: 4)
    plans = [
        plan_fit(products, np.arange(6), free, settings_of("Poisson", "newton-cg"))
        for products in (Local(X, X.valid), shards)
    ]
    assert plans[0].at_once > 1
    assert plans[1].at_once == 1


@pytest.mark.slow
def test_silent_saturated_and_separated_in_shards():
    """What lies at infinity follows from the sums of all shards, not of one."""
    rng = np.random.default_rng(2)
    counts = (rng.random((1400, 4)) < 0.2).astype(float)
    counts[:, 1] = 0  # silent
    counts[:, 2] = 1  # always there
    counts[:1000, 0] = 0  # silent in most shards
    counts[1:, 3] = np.where(counts[:-1, 0] > 0, 0, counts[1:, 3])  # never after cell 0
    basis = fastglm.basis.HistoryConv(2)
    for family in ("Poisson", "Bernoulli"):
        settings = settings_of(family, "newton-cholesky")
        whole, parts = both(Events.of(counts), basis, None, seven(1400), settings, 0.0)
        assert_same(whole, parts)
        third = "saturated" if family == "Bernoulli" else "converged"
        assert list(parts[0].status) == ["converged", "silent", third, "separated"]


def test_a_window_that_sees_later_bins_is_refused():
    counts = np.ones((100, 2))
    basis = fastglm.basis.HistoryConv(5, conv_kwargs={"predictor_causality": "anti-causal"})
    with pytest.raises(ValueError, match="causal"):
        Shards(from_events(Events.of(counts), basis, [0, 50, 100]))


def test_bins_that_no_shard_holds_are_refused(network):
    counts, basis, _ = network
    shards = Shards(from_events(Events.of(counts[:500]), basis, [0, 250, 500]))
    with pytest.raises(ValueError, match="No shard holds the bins from 0 to 400"):
        shards.events().part(0, 400)


# --- spike files --------------------------------------------------------------------------------


def write_spikes(folder, events, bin_size, every, shift=0.5):
    """Two raw files of the spikes, each as many as its count; ``shift`` in its bin."""
    amount = events.amplitudes.astype(int)
    names = str(folder / "times.f64"), str(folder / "units.i32")
    np.repeat((events.bins + shift) * bin_size, amount).astype(np.float64).tofile(names[0])
    np.repeat(events.units, amount).astype(np.int32).tofile(names[1])
    return SpikeFile.scan(*names, events.n_units, bin_size, every)


@pytest.mark.parametrize("shift", [0.5, 0.0, -1e-8])  # also on the edge, as it is rounded
@pytest.mark.parametrize("every", [1, 64, 1000, 5000])
def test_spike_files_hold_the_counts(tmp_path, every, shift, monkeypatch):
    monkeypatch.setattr(stream, "_BLOCK", 100)
    counts = np.random.default_rng(3).poisson(0.3, (1000, 3))
    counts[500:600] = 0
    file = write_spikes(tmp_path, Events.of(counts), 0.001, every, shift)
    marks = np.arange(0, 1000, every)
    np.testing.assert_array_equal(file.index[: marks.size], [counts[:m].sum() for m in marks])
    assert file.index[-1] == counts.sum()
    for first, stop in itertools.product((0, 1, 63, 64, 500, 990), (64, 65, 600, 999, 1000)):
        if first < stop:
            part = file.read(first, stop)
            assert part.shape == (stop - first, 3)
            np.testing.assert_array_equal(part.toarray(), counts[first:stop])
            assert (np.diff(part.bins) >= 0).all()


@pytest.mark.slow
def test_shards_of_a_file_are_the_whole(network, tmp_path):
    counts, basis, epochs = network
    events = Events.of(counts)
    file = write_spikes(tmp_path, events, 0.001, 500)
    edges = seven(6000)
    sources = sources_of(file.read, basis, edges, epochs)
    free, penalties = np.ones((24, 6), bool), [ridge(np.full(6, 1e-4))]
    X = basis.compute_features(events, epochs=epochs)
    for path in ("newton-cg", "newton-cholesky"):
        settings = settings_of("Poisson", path)
        whole = fit_penalties(X, Observed(events), X.valid, free, penalties, settings)
        assert_same(whole, fit_shards(Shards(sources), free, penalties, settings))


@pytest.mark.slow
def test_one_shard_is_in_memory_at_a_time(tmp_path):
    """Twice as many shards take no more memory."""
    basis = fastglm.basis.RaisedCosineLogConv(2, 10)
    rng, peaks = np.random.default_rng(4), {}
    for n_shards in (4, 8):
        n_bins = 5000 * n_shards
        counts = Events.of((rng.random((n_bins, 6)) < 0.2).astype(np.uint8))
        file = write_spikes(tmp_path, counts, 0.001, 2500)
        del counts
        sources = sources_of(file.read, basis, np.arange(0, n_bins + 1, 5000))
        masks = np.repeat(rng.random((6, 6)) < 0.4, 2, axis=0)
        for name, free in (("full", np.ones((12, 6), bool)), ("masked", masks)):
            settings = settings_of("Poisson", "newton-cg", maxiter=1)
            tracemalloc.start()
            fit_shards(Shards(sources), free, [ridge(np.full(6, 1e-3))], settings)
            peaks[n_shards, name] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    for name in ("full", "masked"):
        assert peaks[8, name] < 1.05 * peaks[4, name]
