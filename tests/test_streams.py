"""Fits of data that come chunk by chunk, and of data that are appended, are fits of all."""

import gc
import itertools
import pickle
import tracemalloc

import numpy as np
import pytest

import fastglm
from fastglm._streams import Chunks, read_stream
from fastglm.features import Events
from fastglm.recordings import stream_spikes
from fastglm.recordings.stream import RawColumn, UnitFile

BASIS = fastglm.basis.RaisedCosineLogConv(3, 20)
BIN = 0.001


@pytest.fixture(scope="module")
def counts():
    """Counts of a coupled network."""
    net = fastglm.simulation.random_network(4, BASIS, random_key=1, mean_rate_hz=40)
    return net.simulate(4000, 0)


class Loader:
    """Chunks that are made anew in each pass."""

    def __init__(self, chunks):
        self.chunks, self.n_passes, self.n_chunks = chunks, 0, 0

    def __iter__(self):
        self.n_passes += 1
        for chunk in self.chunks:
            self.n_chunks += 1
            yield chunk


def cut_at(X, y, edges):
    return [(X[a:b], y[a:b]) for a, b in itertools.pairwise(edges)]


def ridge(**kwargs):
    kwargs = {"regularizer": "Ridge", "regularizer_strength": 1e-4, **kwargs}
    return fastglm.PopulationGLM(**kwargs)


def assert_same(model, whole, atol=1e-6):
    np.testing.assert_array_equal(model.status_, whole.status_)
    np.testing.assert_allclose(model.objective_, whole.objective_, rtol=1e-13, atol=0)
    np.testing.assert_allclose(model.coef_, whole.coef_, rtol=0, atol=atol)
    np.testing.assert_allclose(model.intercept_, whole.intercept_, rtol=0, atol=atol)
    np.testing.assert_allclose(model.scale_, whole.scale_, rtol=1e-7)
    np.testing.assert_array_equal(model.dof_resid_, whole.dof_resid_)
    assert model.weighted_ is whole.weighted_ is False


EDGES = {
    "one chunk": [0, 4000],
    "chunks of any length": [0, 1500, 1507, 1507, 1600, 4000],
    "the first one without a whole window": [0, 10, 4000],
    "many": [*range(0, 4001, 800)],
}


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize("solver", ["newton-cg", "newton-cholesky"])
def test_chunks_are_the_whole(counts, edges, solver):
    """X is cut with its histories: no row is lost."""
    X = BASIS.compute_features(counts)
    loader = Loader(cut_at(X, counts, EDGES[edges]))
    model = ridge(solver_name=solver).stochastic_fit(loader)
    assert_same(model, ridge(solver_name=solver).fit(X, counts))
    assert model.converged_.all()
    assert loader.n_chunks <= loader.n_passes * len(loader.chunks)


PENALTIES = {
    "lasso": {"regularizer": "Lasso", "regularizer_strength": 1e-3},
    "groups": {"regularizer": "GroupLasso", "regularizer_strength": 1e-3},
    "one of each receiver": {"regularizer_strength": np.array([1e-4, 1e-3, 1e-5, 1e-2])},
}


@pytest.mark.parametrize("penalty", PENALTIES)
def test_penalties_of_chunks(counts, penalty):
    X = BASIS.compute_features(counts)
    kwargs = {**{"regularizer": "Ridge"}, **PENALTIES[penalty]}
    model = ridge(**kwargs).stochastic_fit(cut_at(X, counts, [0, 900, 4000]))
    assert_same(model, ridge(**kwargs).fit(X, counts))


FAMILIES = ["Bernoulli", "Gaussian", "Gamma", "NegativeBinomial"]


@pytest.mark.parametrize("family", FAMILIES)
def test_families_of_chunks(counts, family):
    X, y = BASIS.compute_features(counts), counts.clip(max=1)
    if family == "Gamma":
        y = np.random.default_rng(0).gamma(2.0, 1 + counts)
    if family == "Gaussian":
        y = 3 + counts + np.random.default_rng(0).normal(size=counts.shape)
    if family == "NegativeBinomial":
        y = counts * np.random.default_rng(0).integers(1, 4, counts.shape)
    kwargs = {"observation_model": family}
    kwargs["inverse_link_function"] = "exp" if family == "Gamma" else None
    model = ridge(**kwargs).stochastic_fit(Loader(cut_at(X, y, [0, 900, 4000])))
    assert_same(model, ridge(**kwargs).fit(X, y))


def test_epochs_masks_and_missing_values(counts):
    """Every chunk loses its own first window; receivers lack counts in bins of their own."""
    y = counts.astype(float)
    y[100:300, 1] = y[2500:2600, 3] = y[700, :] = np.nan
    chunks = [
        (BASIS.compute_features(counts[a:b], epochs=[[0, 500], [520, b - a]]), y[a:b])
        for a, b in ((0, 1200), (1200, 2000), (2000, 4000))
    ]
    X, mask = np.concatenate([np.asarray(X) for X, _ in chunks]), np.ones((12, 4), bool)
    mask[:6, 2] = mask[3:, 0] = False
    model = ridge(feature_mask=mask).stochastic_fit(Loader(chunks))
    assert_same(model, ridge(feature_mask=mask).fit(X, y))
    assert (model.coef_[~mask] == 0).all()
    pieces = [(X[X.valid.nonzero()[0][::2]], y[X.valid.nonzero()[0][::2]]) for X, y in chunks]
    half = np.concatenate([np.asarray(X) for X, _ in pieces])
    model = ridge().stochastic_fit(pieces)
    assert_same(model, ridge().fit(half, np.concatenate([y for _, y in pieces])))


def test_small_masks_in_chunks(counts):
    """A batch with the senders of its mask alone."""
    X = BASIS.compute_features(counts)
    mask = np.repeat(np.eye(4, dtype=bool), 3, axis=0)
    kwargs = {"feature_mask": mask, "solver_name": "newton-cg"}
    model = ridge(**kwargs).stochastic_fit(cut_at(X, counts, [0, 1000, 4000]))
    assert_same(model, ridge(**kwargs).fit(X, counts))


@pytest.mark.parametrize("solver", ["newton-cg", "newton-cholesky"])
def test_columns_far_from_zero_are_centred_by_all_chunks(counts, solver):
    """A clock has another mean in each chunk; a constant is one in all of them."""
    t = np.arange(4000.0)
    rest = np.column_stack([1e6 + t, np.full(4000, 7.0), np.sin(t / 50)])
    X = fastglm.features.hstack([BASIS.compute_features(counts), rest])
    chunks = Loader(cut_at(X, counts, [0, 1000, 1100, 4000]))
    model = ridge(solver_name=solver).stochastic_fit(chunks)
    assert_same(model, ridge(solver_name=solver).fit(X, counts))


def test_arrays_trees_and_one_receiver(counts):
    X, y = np.random.default_rng(0).normal(size=(4000, 3)), counts[:, 0]
    glm = fastglm.GLM().stochastic_fit(cut_at(X, y, [0, 2000, 4000]))
    assert_same(glm, fastglm.GLM().fit(X, y))
    assert glm.coef_.shape == (3,)
    trees = [({"a": X[:2000]}, y[:2000]), ({"a": X[2000:]}, y[2000:])]
    assert glm.stochastic_fit(Loader(trees)).coef_["a"].shape == (3,)


def test_names_of_receivers_come_from_the_chunks(counts):
    pandas = pytest.importorskip("pandas")
    X, y = BASIS.compute_features(counts), pandas.DataFrame(counts, columns=list("abcd"))
    model = ridge().stochastic_fit(cut_at(X, y, [0, 2000, 4000]))
    assert model.receivers_.names == list("abcd")
    chunks = [(X[:2000], y[:2000]), (X[2000:], y[2000:][list("bacd")])]
    with pytest.raises(ValueError, match=r"Chunk 1 .* cells in the same order"):
        ridge().stochastic_fit(chunks)


def test_a_start_and_progress(counts):
    X, done = BASIS.compute_features(counts), []
    chunks = cut_at(X, counts, [0, 2000, 4000])
    model = ridge(solver_name="newton-cg").stochastic_fit(chunks)
    n_passes, start = model.n_passes_.sum(), (model.coef_, model.intercept_)
    model.stochastic_fit(chunks, init_params=start, progress=done.append)
    assert model.n_passes_.sum() < n_passes
    assert sum(done) == 4


def test_an_interrupt_leaves_what_is_finished(counts):
    class Stops(Loader):
        def __iter__(self):
            if self.n_passes == 5:
                raise KeyboardInterrupt
            yield from super().__iter__()

    model = ridge(solver_name="newton-cg")
    with pytest.raises(KeyboardInterrupt, match="interrupted with 0 of 4"):
        model.stochastic_fit(Stops(cut_at(BASIS.compute_features(counts), counts, [0, 9, 4000])))
    assert (model.status_ == "interrupted").all()


# --- what is refused ---


def test_loaders_of_one_pass_are_refused(counts):
    chunks = cut_at(BASIS.compute_features(counts), counts, [0, 2000, 4000])
    for once in (iter(chunks), (chunk for chunk in chunks)):
        with pytest.raises(ValueError, match="can be used once; a fit makes many passes"):
            ridge().stochastic_fit(once)

    class Spent:
        def __init__(self):
            self.walk = iter(chunks)

        def __iter__(self):
            return self.walk

    with pytest.raises(ValueError, match="gave 2 chunks in its first pass, and 0 in another"):
        ridge().stochastic_fit(Spent())
    for nothing in (None, 3, lambda: chunks):
        with pytest.raises(TypeError, match="expected a loader"):
            ridge().stochastic_fit(nothing)


def test_loaders_that_shuffle_are_refused(counts):
    X, rng = BASIS.compute_features(counts), np.random.default_rng(0)

    class Shuffled:
        def __iter__(self):
            order = np.sort(rng.permutation(4000)[:1000])
            yield X[order], counts[order]

    with pytest.raises(ValueError, match=r"Chunk 0 .* pass shuffle=False"):
        ridge().stochastic_fit(Shuffled())


def test_chunks_that_do_not_fit_are_refused(counts):
    X, other = BASIS.compute_features(counts), fastglm.basis.RaisedCosineLogConv(3, 21)
    model = ridge()
    with pytest.raises(ValueError, match=r"has no chunk; expected pairs \(X, y\)"):
        model.stochastic_fit([])
    with pytest.raises(ValueError, match=r"Chunk 0 .* expected a pair \(X, y\)"):
        model.stochastic_fit([X, counts])
    with pytest.raises(ValueError, match="X of chunk 1 has 4000 rows and y 5"):
        model.stochastic_fit([(X, counts), (X, counts[:5])])
    for wrong in (other.compute_features(counts), X[:, :6]):
        with pytest.raises(ValueError, match=r"Chunk 1 has .* with one basis"):
            model.stochastic_fit([(X, counts), (wrong, counts)])
    with pytest.raises(ValueError, match="No chunk of the loader has a row"):
        model.stochastic_fit([(X[:10], counts[:10])])


def test_settings_of_descents_are_named_once(counts):
    chunks = [(BASIS.compute_features(counts), counts)]
    with pytest.warns(UserWarning, match=r"\['num_epochs'\] are settings of descents"):
        ridge().stochastic_fit(chunks, num_epochs=10)
    with pytest.warns(UserWarning, match=r"solver_kwargs \['stepsize'\] are settings"):
        ridge(solver_kwargs={"stepsize": 0.1}).stochastic_fit(chunks)


# --- update ---


def test_updates_are_the_fit_of_all(counts):
    X = BASIS.compute_features(counts)
    whole, model = ridge().fit(X, counts), ridge()
    for a, b in ((0, 2000), (2000, 2100), (2100, 4000)):
        model.update(X[a:b], counts[a:b])
    assert_same(model, whole)
    again = pickle.loads(pickle.dumps(model)).update(X[:50], counts[:50])
    assert again.dof_resid_[0] == whole.dof_resid_[0] + 30


def test_updates_of_one_receiver(counts):
    X, model = BASIS.compute_features(counts), fastglm.GLM()
    for some in (slice(0, 2000), slice(2000, 4000)):
        model.update(X[some], counts[some, 1])
    assert_same(model, fastglm.GLM().fit(X, counts[:, 1]))


def test_an_update_begins_at_the_last_point(counts):
    X, kwargs = BASIS.compute_features(counts), {"solver_name": "newton-cg"}
    model = ridge(**kwargs).fit(X[:3900], counts[:3900])
    with pytest.raises(ValueError, match="keeps no data of its fit"):
        model.update(X[3900:], counts[3900:])
    model.update(X[3900:], counts[3900:], earlier=(X[:3900], counts[:3900]))
    whole = ridge(**kwargs).fit(X, counts)
    assert_same(model, whole)
    assert model.n_passes_.sum() < whole.n_passes_.sum()


def test_a_fit_forgets_what_updates_kept(counts):
    X = BASIS.compute_features(counts)
    model = ridge().update(X, counts).fit(X, counts)
    with pytest.raises(ValueError, match="keeps no data"):
        model.update(X, counts)


def test_a_cell_that_was_silent_may_fire_later(counts):
    y = counts.copy()
    y[:2000, 2] = 0
    X = BASIS.compute_features(y)
    model = ridge()
    with pytest.warns(UserWarning, match="silent"):
        model.update(X[:2000], y[:2000])
    assert_same(model.update(X[2000:], y[2000:]), ridge().fit(X, y))


def test_a_refused_update_changes_nothing(counts):
    X = BASIS.compute_features(counts)
    model = ridge().update(X[:2000], counts[:2000])
    before = model.coef_
    with pytest.raises(ValueError, match="X has 100 rows and y 99"):
        model.update(X[2000:2100], counts[2000:2099])
    with pytest.raises(ValueError, match="Chunk 1 has"):
        model.update(X[2000:, :6], counts[2000:])
    assert model.coef_ is before
    assert_same(model.update(X[2000:], counts[2000:]), ridge().fit(X, counts))


def test_updates_with_stored_columns_weights_or_single_steps_are_refused(counts):
    X = BASIS.compute_features(counts)
    for plain in (np.asarray(X), fastglm.features.hstack([X, np.arange(4000.0)])):
        with pytest.raises(NotImplementedError, match="chunk of a plain X cannot be forgotten"):
            ridge().update(plain, counts)
    model = ridge().fit(X, counts, sample_weight=np.ones(4000))
    with pytest.raises(ValueError, match="had sample_weight or offset"):
        model.update(X, counts, earlier=(X, counts))
    for step in (lambda: model.update(None, None, X, counts), named_step(model, X, counts)):
        with pytest.raises(NotImplementedError, match="no single stochastic steps"):
            step()


def named_step(model, X, y):
    return lambda: model.update(params=None, opt_state=None, X=X, y=y)


# --- spikes on disk ---


def spikes_of(counts):
    """Times and units of counts, in the middle of their bins."""
    events = Events.of(counts)
    amount = events.amplitudes.astype(int)
    ids = np.array([3, 5, 8, 13])
    return np.repeat((events.bins + 0.5) * BIN, amount), np.repeat(ids[events.units], amount)


def write_npy(folder, times, units):
    np.save(folder / "t.npy", times), np.save(folder / "u.npy", units)
    return folder / "t.npy", folder / "u.npy"


def write_raw(folder, times, units):
    times.tofile(folder / "t.f64"), units.astype(np.int32).tofile(folder / "u.i32")
    return folder / "t.f64", folder / "u.i32"


def write_parquet(folder, times, units):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({"unit": units, "spike_time": times})
    frame.to_parquet(folder / "s.parquet", row_group_size=37)
    return (folder / "s.parquet",)


def write_nwb(folder, times, units, kind=np.int64):
    with pytest.importorskip("h5py").File(folder / "s.nwb", "w") as file:
        ids, sizes = np.unique(units, return_counts=True)
        table = file.create_group("units")
        table["spike_times"] = times[np.argsort(units, kind="stable")]
        table["spike_times_index"], table["id"] = np.cumsum(sizes).astype(kind), ids
    return (folder / "s.nwb",)


FORMATS = [write_npy, write_raw, write_parquet, write_nwb]


@pytest.mark.parametrize("write", FORMATS, ids=lambda write: write.__name__[6:])
def test_files_of_spikes_are_the_whole(counts, tmp_path, write):
    paths = write(tmp_path, *spikes_of(counts))
    shards = stream_spikes(*paths, basis=BASIS, bin_size=BIN, spikes=200, t_stop=4.0)
    assert (shards.n_units, shards.n_bins, len(shards)) == (4, 4000, -(-counts.sum() // 200))
    assert shards.ids == [3, 5, 8, 13]
    model = ridge().stochastic_fit(shards)
    assert_same(model, ridge().fit(BASIS.compute_features(counts), counts))
    assert model.receivers_.names == [3, 5, 8, 13]
    assert repr(shards).startswith("SpikeStream of 4 units, 4,000 bins, in ")


@pytest.mark.parametrize(
    "epochs",
    [
        [[0, 1500], [1600, 4000]],
        [[1000, 2000], [3000, 4000]],  # shards lie outside all of them
    ],
)
def test_epochs_and_another_beginning_of_files(counts, tmp_path, epochs):
    times, units = spikes_of(counts)
    paths = write_npy(tmp_path, times + 100, units)
    seconds = 100 + BIN * np.array(epochs)
    kwargs = {"basis": BASIS, "bin_size": BIN, "spikes": 50}
    shards = stream_spikes(*paths, t_start=100, t_stop=104, epochs=seconds, **kwargs)
    X = BASIS.compute_features(counts, epochs=epochs)
    assert_same(ridge().stochastic_fit(shards), ridge().fit(X, counts))


@pytest.mark.parametrize("kind", [np.int64, np.uint64])  # of the index of the spikes
def test_ranges_of_a_file_by_unit_are_its_counts(counts, tmp_path, monkeypatch, kind):
    monkeypatch.setattr("fastglm.recordings.stream._BLOCK", 7)
    (path,) = write_nwb(tmp_path, *spikes_of(counts), kind)
    file = UnitFile.scan(path, BIN, lambda n: 3, 0.0)
    assert file.n_spikes == counts.sum()
    for first, stop in ((0, 4000), (0, 1), (17, 1300), (2999, 3000), (3500, 4200)):
        found = file.read(first, stop).toarray()
        np.testing.assert_array_equal(found[: 4000 - first], counts[first:stop])
        assert not found[4000 - first :].any()


def test_a_file_without_spikes_has_one_bin(tmp_path):
    (path,) = write_nwb(tmp_path, np.zeros(0), np.zeros(0, int))
    assert UnitFile.scan(path, BIN, lambda n: 1, 2).n_bins == 1


def test_files_that_are_not_spikes_are_refused(counts, tmp_path):
    times, units = spikes_of(counts)
    t, u = write_npy(tmp_path, times, units)
    kwargs = {"basis": BASIS, "bin_size": BIN}
    with pytest.raises(ValueError, match="has the times alone; pass the file"):
        stream_spikes(t, **kwargs)
    with pytest.raises(ValueError, match="bin_size is 0; expected seconds"):
        stream_spikes(t, u, basis=BASIS, bin_size=0)
    with pytest.raises(ValueError, match="spikes is 0"):
        stream_spikes(t, u, spikes=0, **kwargs)
    with pytest.raises(ValueError, match=r"No bin of 0\.001 s fits into .* from 0\.0 to 0\.0004 s"):
        stream_spikes(t, u, t_stop=0.0004, **kwargs)
    with pytest.raises(ValueError, match=r"times begin before 1 s; pass t_start"):
        stream_spikes(t, u, t_start=1, **kwargs)
    with pytest.raises(ValueError, match="The units are float64; expected the number"):
        stream_spikes(t, t, **kwargs)
    with pytest.raises(ValueError, match=r"times are int64; expected seconds\. Divide samples"):
        stream_spikes(u, u, **kwargs)
    np.save(u, units[1:])
    with pytest.raises(ValueError, match="one of each for every spike"):
        stream_spikes(t, u, **kwargs)
    np.save(t, times.reshape(1, -1))
    with pytest.raises(ValueError, match="expected one number for each"):
        stream_spikes(t, u, **kwargs)
    for wrong in (times[::-1], np.append(times[:-1], np.nan)):
        with pytest.raises(ValueError, match="times are not sorted; sort the spikes"):
            stream_spikes(*write_npy(tmp_path, wrong, units), **kwargs)
    (path,) = write_nwb(tmp_path, times[::-1], units)
    with pytest.raises(ValueError, match="the times of unit 3 are not sorted"):
        stream_spikes(path, **kwargs)
    (path,) = write_nwb(tmp_path, times, units)
    for late in (0.5, 2, 1000):  # bins after the last spike
        with pytest.raises(ValueError, match=r"the times begin before .* s; pass t_start"):
            stream_spikes(path, t_start=times[-1] + late * BIN, **kwargs)
    with pytest.importorskip("h5py").File(path, "a") as file:
        del file["units"]
    with pytest.raises(ValueError, match="no table of units"):
        stream_spikes(path, **kwargs)
    paths = write_npy(tmp_path, times, units)
    with pytest.raises(TypeError, match=r"basis is IdentityEval.* expected one with a window"):
        stream_spikes(*paths, basis=fastglm.basis.IdentityEval(), bin_size=BIN)
    ahead = fastglm.basis.HistoryConv(5, conv_kwargs={"predictor_causality": "anti-causal"})
    with pytest.raises(ValueError, match=r"bins ahead\. Shards need a causal window"):
        stream_spikes(*paths, basis=ahead, bin_size=BIN)


def test_a_column_on_disk_is_read_as_it_is_asked_for(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(100, dtype=np.uint16))
    column = RawColumn.of_npy(tmp_path / "a.npy")
    assert len(column) == 100
    for some in (slice(0, 100), slice(98, 200), slice(50, 50), slice(3, 7)):
        np.testing.assert_array_equal(column[some], np.arange(100)[some])


# --- memory ---


def test_memory_does_not_grow_with_chunks():
    """Three times as many chunks take no more memory: some kB for each, and nothing for a bin."""
    rng, peaks = np.random.default_rng(0), []
    counts = (rng.random((50_000, 5)) < 0.02).astype(np.uint8)

    class Repeated:
        def __init__(self, n):
            self.n = n

        def __iter__(self):
            for k in range(self.n):
                yield BASIS.compute_features(np.roll(counts, k, axis=0)), counts

    kwargs = {"solver_name": "newton-cg", "solver_kwargs": {"maxiter": 1}}
    for n in (1, 2, 6):
        gc.collect()
        if n > 1:  # the first one brings what is made once
            tracemalloc.start()
        with pytest.warns(UserWarning, match="max_iter"):
            ridge(**kwargs).stochastic_fit(Repeated(n))
        if n > 1:
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] - peaks[0] < 0.25 * 4 * 50_000


def test_what_is_kept_of_a_loader_is_small(counts):
    X = BASIS.compute_features(counts)
    chunks = Chunks(ridge(), Loader(cut_at(X, counts, [0, 2000, 4000])))
    assert chunks.X.shape[0] <= 1000
    problem = read_stream(ridge(), [(X, counts)])
    assert problem.valid.size <= 1000
    assert len(list(problem.parts())) == 1
