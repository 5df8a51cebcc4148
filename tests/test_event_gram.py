"""Weighted Gram matrices from pairs of events, against sums over rows, and what is made of them."""

import tracemalloc

import numpy as np
import pytest
from oracle import LINKS

import fastglm
from fastglm import _information, inference
from fastglm._algebra import inverse
from fastglm._kernels import pairs
from fastglm._products import event_gram
from fastglm._products.event_gram import LANES, EventGram, lanes_of, triangle_bytes
from fastglm._products.weighted_gram import mirror
from fastglm.features import HistoryColumns
from fastglm.features.events import Events
from fastglm.features.matrix import FeatureMatrix

LOG = fastglm.basis.RaisedCosineLogConv


def sparse_counts(n_bins, n_cells, seed=0, rate=0.05):
    return np.random.default_rng(seed).poisson(rate, size=(n_bins, n_cells))


def gram_of_rows(X, weight):
    """``Z' diag(weight) Z`` by a loop over the bins; the column of ones is last."""
    rows = np.nan_to_num(np.column_stack([np.asarray(X), np.ones(X.shape[0])]))
    out = np.zeros((rows.shape[1],) * 2)
    for z, w in zip(rows, weight, strict=True):
        out += w * np.outer(z, z)
    return out


def check(X, seed=0, step=None, **kwargs):
    """All matrices of an `EventGram` against the sums over rows, in pieces of ``step`` bins."""
    n_bins = X.shape[0]
    n = LANES + 3  # a tile and a part of one
    weights = np.random.default_rng(seed).random((n_bins, n)) * X.valid[:, None]
    gram = EventGram(X, n, **kwargs)
    for start in range(0, n_bins, step or n_bins):
        gram.add(start, weights[start : start + (step or n_bins)])
    gram.finish()
    for k in range(n):
        expected = gram_of_rows(X, weights[:, k])
        found = gram.matrix(k, np.arange(gram.size))
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12 * expected.max())
    return gram


def several(n_bins=120):
    """Two histories of different length, one of them around the bin, and columns without events."""
    rng = np.random.default_rng(1)
    counts = sparse_counts(n_bins, 3)
    ahead = LOG(2, window_size=7, conv_kwargs={"predictor_causality": "acausal"})
    blocks = [
        LOG(4, window_size=13).compute_features(counts),
        rng.normal(size=(n_bins, 2)),
        ahead.compute_features(1.5 * sparse_counts(n_bins, 2, 2)),
        fastglm.features.hold(rng.normal(size=-(-n_bins // 10)), n_bins, every=10),
    ]
    return fastglm.features.hstack(blocks)


def test_histories_and_rows():
    gram = check(several())
    assert len(gram.histories) == 2
    assert gram.columns.tolist() == [12, 13, 18, 19]


@pytest.mark.parametrize("lanes", [1, 2])
def test_fewer_lanes(lanes):
    gram = check(several(), lanes=lanes)
    n_tiles = -(-(LANES + 3) // lanes)
    assert gram.triangles.shape == (n_tiles, 20 * 21 // 2, lanes)
    assert gram.triangles.nbytes == n_tiles * triangle_bytes(19, lanes)
    assert gram.n_rows == 120


def test_tiles_have_fewer_lanes_where_their_triangles_are_above_a_gigabyte():
    edges = [5791, 8190, 11583]
    assert [lanes_of(n) for n in (1, *edges)] == [8, 8, 4, 2]
    assert [lanes_of(n + 1) for n in edges] == [4, 2, 1]
    assert lanes_of(16_000) == lanes_of(10**6) == 1
    assert [lanes_of(n, 2) for n in (4094, 4095)] == [8, 4]
    for n in (5791, 5792, 8190, 8191, 11583, 16_000):
        assert triangle_bytes(n, lanes_of(n)) <= 1 << 30


def test_senders_in_groups_have_the_same_bits(monkeypatch):
    X = several(300)
    weight = np.random.default_rng(0).random((300, LANES)) * X.valid[:, None]
    found = []
    for keys in (1 << 14, 2 * (13 + 13 - 1), 1):  # all senders, two at a time, and one
        monkeypatch.setattr(pairs, "_KEYS", keys)
        gram = EventGram(X, LANES)
        gram.add(0, weight)
        gram.finish()
        found.append(gram.triangles)
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])


@pytest.mark.parametrize("step", [1, 17])
def test_pieces_and_chunks_leave_no_seam(step, monkeypatch):
    monkeypatch.setattr(event_gram, "_ROWS", 8)
    monkeypatch.setattr(event_gram, "_CHUNK_BYTES", 8 * 20 * 19)
    gram = check(several(60), step=step)
    assert gram.n_rows == 19


@pytest.mark.parametrize(("events", "expected"), [(40, 5000), (400, 1000), (100, None)])
def test_chunks_are_longer_where_two_senders_have_few_pairs_of_events(
    events, expected, monkeypatch
):
    # Three of the four pairs of senders are wanted, with 19 distances each.
    n_lags, n_bins = 10, 5000
    rng = np.random.default_rng(0)
    counts = np.zeros((n_bins, 2))
    for cell in range(2):
        counts[rng.choice(n_bins, events, replace=False), cell] = 1
    monkeypatch.setattr(event_gram, "_ROWS", 8)
    monkeypatch.setattr(event_gram, "_TILE_BYTES", 8 * 1000 * (LANES + 1))
    X = fastglm.basis.RaisedCosineLogConv(4, n_lags).compute_features(counts)
    gram = EventGram(X, LANES)
    if expected is None:
        bins = np.nonzero(counts)[0]
        met = (np.abs(bins[:, None] - bins) < n_lags).sum() * 3 / 4
        expected = 4 * 3 * (2 * n_lags - 1) / met * n_bins
    assert gram.n_rows == int(expected)
    assert EventGram(X, 1, lanes=1).n_rows == int(expected)  # pairs in memory are as many
    monkeypatch.setattr(event_gram, "_CHUNK_BYTES", 8 * 500 * (LANES + 1))
    assert EventGram(X, LANES).n_rows == EventGram(X, LANES, lanes=1).n_rows == 500


@pytest.mark.parametrize("n_bins", [1, 2, 5, 6, 7, 30])
@pytest.mark.parametrize("n_cells", [1, 3])
def test_records_shorter_than_the_window(n_bins, n_cells):
    counts = sparse_counts(n_bins, n_cells, rate=0.3).astype(float)
    counts[0, 0] = -2.5
    block = HistoryColumns(counts, np.random.default_rng(0).normal(size=(6, 6)))
    gram = check(FeatureMatrix([block]))
    assert len(gram.histories) == 1


def test_several_events_of_a_sender_in_a_bin_and_before_the_record():
    bins = np.array([-3, 0, 4, 4, 4, 5, 11], np.int32)
    events = Events(bins, np.zeros(7, np.int32), np.arange(1.0, 8), (14, 1))
    block = HistoryColumns(events, np.random.default_rng(0).random((5, 3)))
    assert len(check(FeatureMatrix([block])).histories) == 1


def test_a_kernel_of_zeros_and_gaps():
    kernel = np.zeros((9, 3))
    kernel[[2, 6], 1], kernel[8, 2] = 1.0, -3.0
    check(FeatureMatrix([HistoryColumns(sparse_counts(80, 2), kernel)]))


def test_dense_histories_are_rows():
    counts = np.random.default_rng(0).poisson(2.0, size=(40, 2))
    X = LOG(3, window_size=10).compute_features(counts)
    gram = check(X)
    assert not gram.histories
    assert gram.columns.size == gram.size


def test_entries_that_no_receiver_wants_stay_zero():
    X = LOG(3, window_size=10).compute_features(sparse_counts(150, 4, rate=0.1))
    wanted = np.zeros((12, 2), bool)
    wanted[:6, 0] = wanted[9:, 1] = True
    weight = np.random.default_rng(3).random((150, LANES)) * X.valid[:, None]
    expected = gram_of_rows(X, weight[:, 2])
    gram, diagonal = EventGram(X, LANES, wanted), EventGram(X, LANES, diagonal=True)
    for one in (gram, diagonal):
        one.add(0, weight)
        one.finish()
    senders = np.arange(12) // 3
    met = (wanted.astype(int) @ wanted.T.astype(int)) > 0
    found = gram.matrix(2, np.arange(12))
    np.testing.assert_allclose(found[met], expected[:12, :12][met], rtol=1e-12)
    assert not found[~met].any()
    some = np.array([0, 4, 12])
    np.testing.assert_allclose(gram.matrix(2, some), expected[np.ix_(some, some)], rtol=1e-12)
    same = senders[:, None] == senders
    found = diagonal.matrix(2, np.arange(12))
    np.testing.assert_allclose(found[same], expected[:12, :12][same], rtol=1e-12)
    assert not found[~same].any()


def test_one_thread_and_several_have_the_same_bits():
    numba = pytest.importorskip("numba")
    before, found = numba.get_num_threads(), []
    X = several(300)
    weight = np.random.default_rng(0).random((300, LANES)) * X.valid[:, None]
    try:
        for n_threads in (1, before):
            numba.set_num_threads(n_threads)
            gram = EventGram(X, LANES)
            gram.add(0, weight)
            gram.finish()
            found.append(gram.triangles)
    finally:
        numba.set_num_threads(before)
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 300])
def test_mirror_copies_the_lower_triangle(size):
    matrix = np.random.default_rng(0).normal(size=(size, size))
    expected = np.tril(matrix) + np.tril(matrix, -1).T
    for order in "CF":
        np.testing.assert_array_equal(mirror(np.array(matrix, order=order)), expected)


# --- standard errors ---


def fitted(link, adjusted):
    """A model of 18 receivers (three tiles) with a mask and unknown counts, and its arguments."""
    rng, n = np.random.default_rng(4), 18
    counts = sparse_counts(400, n, 5, 0.1).astype(float)
    basis = LOG(2, window_size=6)
    X = fastglm.features.hstack([basis.compute_features(counts), 9 + rng.normal(size=(400, 1))])
    y = counts - 0.1 + rng.normal(size=counts.shape) if LINKS[link] == "Gaussian" else counts
    y = (y > 0).astype(float) if LINKS[link] == "Bernoulli" else y
    given = {}
    if adjusted:
        y[50:60, 3] = np.nan
        weight = rng.integers(0, 3, 400).astype(float)
        given = {"sample_weight": weight, "offset": 0.1 * rng.normal(size=(400, n))}
    mask = rng.random((X.shape[1], n)) < 0.5
    mask[:, 7] = True
    model = fastglm.PopulationGLM(
        LINKS[link], link, regularizer="Ridge", regularizer_strength=1e-2, feature_mask=mask
    )
    return model.fit(X, y, **given), X, y, given


@pytest.mark.parametrize("kind", ["observed", "expected", "robust"])
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("adjusted", [False, True])
def test_standard_errors_are_those_from_rows(kind, link, adjusted, monkeypatch):
    model, X, y, given = fitted(link, adjusted)
    rows = inference.uncertainty(model, X, y, kind, **given)
    made = []

    def from_events(*args):
        made.append(args[1])
        return by_events(*args)

    by_events = _information._from_events
    monkeypatch.setattr(_information, "_from_events", from_events)
    monkeypatch.setattr(_information, "_SMALL", 0.0)
    monkeypatch.setattr(_information, "_TILES", 2)
    monkeypatch.setattr(_information, "by_events", lambda *args: True)
    events = inference.uncertainty(model, X, y, kind, **given)
    assert [len(some) for some in made] == [16, 2]
    for name in ("standard_errors", "intercept_standard_errors"):
        np.testing.assert_allclose(getattr(events, name), getattr(rows, name), rtol=1e-9)
    for one, other in zip(events.covariance, rows.covariance, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-9 * np.nanmax(np.abs(other)))
    fit = inference.Fitted.of(model, X, y, **given)
    expected = sum((fit.weights(block) * z**2).sum(axis=0) for block, z in fit.rows())
    np.testing.assert_allclose(_information.squares(fit), expected, rtol=1e-12)


def held_at_a_time(monkeypatch):
    """Receivers whose matrices are held together, where memory is short; the errors are right."""
    model, X, y, _ = fitted("exp", False)
    rows = inference.uncertainty(model, X, y)
    sizes = []

    def from_events(fit, some, *args):
        sizes.append(some.size)
        return by_events(fit, some, *args)

    by_events = _information._from_events
    monkeypatch.setattr(_information, "_from_events", from_events)
    monkeypatch.setattr(_information, "by_events", lambda *args: True)
    monkeypatch.setattr(_information, "MATRIX_BYTES", 1)
    events = inference.uncertainty(model, X, y)
    np.testing.assert_allclose(events.standard_errors, rows.standard_errors, rtol=1e-9)
    return sizes


def test_receivers_are_eight_at_a_time_where_memory_is_short(monkeypatch):
    assert held_at_a_time(monkeypatch) == [8, 8, 2]


def test_receivers_are_one_at_a_time_where_a_triangle_fills_the_memory(monkeypatch):
    monkeypatch.setattr(event_gram, "_MOST_BYTES", 1)
    monkeypatch.setattr(_information, "_SMALL", 0.0)  # squares of the features from events as well
    assert held_at_a_time(monkeypatch) == [1] * 18


def by_hand(X, n):
    """A model of n receivers with some coefficients."""
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-4)
    model.coef_ = np.full((X.shape[1], n), 1e-3)
    model.intercept_, model.scale_ = np.full(n, -3.0), np.ones(n)
    model.status_ = np.full(n, "converged")
    model.converged_ = np.ones(n, bool)
    model.weighted_ = model.shifted_ = False
    model.receivers_ = None
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "whole", "matrices"),
    [("observed", 4096, 1.5), ("observed", 0, 1.5), ("robust", 4096, 5.0)],
)
def test_memory_of_large_maps_is_a_triangle_and_a_matrix(kind, whole, matrices, monkeypatch):
    """Peak beside X and the counts, in units of a square matrix of all features, 8 bytes each."""
    monkeypatch.setattr(_information, "_SMALL", 0.0)
    monkeypatch.setattr(_information, "by_events", lambda *args: True)
    monkeypatch.setattr(_information, "MATRIX_BYTES", 1)
    monkeypatch.setattr(event_gram, "_MOST_BYTES", 1)
    monkeypatch.setattr(inverse, "_BLOCK", 32)
    monkeypatch.setattr(inverse, "_WHOLE", whole)
    counts = sparse_counts(400, 120, rate=0.01)
    X = LOG(8, window_size=20).compute_features(counts)
    model, y = by_hand(X, 3), counts[:, :3]
    inference.uncertainty(model, X[:50], y[:50], kind)  # kernels and libraries are loaded
    tracemalloc.start()
    try:
        inference.uncertainty(model, X, y, kind)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.1 * matrices * 8 * 961**2 + 2e6


def choice(rate, n_bins=200_000, n_cells=30, extra=0):
    """Whether the errors of all pairs come from events at some events a bin and cell."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(rate, size=(n_bins, n_cells))
    X = LOG(6, window_size=50).compute_features(counts)
    if extra:
        X = fastglm.features.hstack([X, rng.normal(size=(n_bins, extra))])
    fit = inference.Fitted.of(by_hand(X, n_cells), X, counts)
    return _information.by_events(fit, np.arange(n_cells))


def test_tiles_of_fewer_lanes_take_more_time_for_each_receiver(monkeypatch):
    X, wanted = several(), np.ones((19, 1), bool)
    work = {lanes: event_gram.event_work(X, wanted, lanes) for lanes in (1, LANES)}
    assert work[1] == pytest.approx(5 / 12 * work[LANES])
    assert work[LANES] == event_gram.event_work(X, wanted)
    fit = inference.Fitted.of(by_hand(X, 18), X, np.zeros((120, 18)))
    sizes = []
    monkeypatch.setattr(_information, "_SMALL", 0.0)
    monkeypatch.setattr(event_gram, "_MOST_BYTES", triangle_bytes(19, 2))
    monkeypatch.setattr(
        _information, "event_work", lambda _, used, lanes: sizes.append((used.shape[1], lanes)) or 0
    )
    assert _information.by_events(fit, np.arange(17))
    assert sizes == [(2, 2)] * 8 + [(1, 2)]


@pytest.mark.slow
def test_numbers_of_events_decide():
    assert choice(0.002)
    assert not choice(0.3)  # 15 events in a window: rows are full
    assert not choice(0.002, n_bins=200)  # kernels would have to be loaded
    assert not choice(0.002, n_bins=20_000, extra=70)


@pytest.mark.parametrize("n", [1, LANES + 1])
def test_memory_of_the_triangles_is_what_the_plan_takes(n):
    X = LOG(3, window_size=8).compute_features(sparse_counts(50, 2))
    assert EventGram(X, n).triangles.nbytes == -(-n // LANES) * triangle_bytes(X.shape[1])


def test_each_two_histories_meet_once():
    """The entries of a pair are those at and below the diagonal: the later history has the rows."""
    corners = [(row, column) for _, row, _, column, _ in EventGram(several(), 1).pairs]
    assert sorted(corners) == [(0, 0), (14, 0), (14, 14)]
