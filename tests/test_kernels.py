"""Every kernel against the naive loops, over odd shapes; the same bits whatever runs beside it."""

import decimal
import functools
import inspect
import itertools
import math
import os

import naive
import numba
import numpy as np
import pytest
import scipy.special

from fastglm import _kernels as kernels
from fastglm._kernels import threads
from fastglm._products import history as products
from fastglm._products import sums as statistics
from fastglm._products import sweep as sweeps
from fastglm._products.pieces import Chunk, pieces
from fastglm._products.sweep import Sweep
from fastglm.features import DenseColumns, Events, FeatureMatrix, HistoryColumns
from fastglm.observation_models import BernoulliObservations, PoissonObservations

PURE = bool(numba.config.DISABLE_JIT)
PAD, LANES, SEGMENT = kernels.PAD, kernels.LANES, kernels.SEGMENT

compiled_only = pytest.mark.skipif(PURE, reason="concerns compiled code")

# n_bins, n_senders, window_size, n_receivers
SHAPES = [
    (1, 1, 1, 1),
    (1, 1, 9, 1),
    (5, 2, 11, 3),  # window longer than the record
    (20, 3, 8, 5),  # one block of lags
    (33, 2, 7, LANES + 1),  # a second tile with one receiver
    (40, 9, 3, 2),  # more senders than groups of the backward pass
    (64, 1, 64, 1),  # one narrow block
    (130, 2, 70, 2),  # narrow blocks that are not full
    pytest.param((1500, 3, 37, 2 * LANES + 3), marks=pytest.mark.slow),  # two segments
    pytest.param((2 * SEGMENT, 2, 100, 3), marks=pytest.mark.slow),
]
EVENTS = ["binary", "multiple", "signed", "empty"]
BATCHES = [(np.float64, LANES), (np.float32, LANES), (np.float64, 1), (np.float32, 1)]


def make_counts(rng, n_bins, n_senders, events="multiple"):
    if events == "binary":
        return (rng.random((n_bins, n_senders)) < 0.2).astype(float)
    if events == "multiple":
        return rng.poisson(0.7, (n_bins, n_senders)).astype(float)
    if events == "signed":
        return rng.normal(size=(n_bins, n_senders)) * (rng.random((n_bins, n_senders)) < 0.4)
    return np.zeros((n_bins, n_senders))


def make_problem(shape, events="multiple", n_funcs=3, seed=0):
    n_bins, n_senders, window_size, n_receivers = shape
    rng = np.random.default_rng(seed)
    counts = make_counts(rng, n_bins, n_senders, events)
    kernel = rng.normal(size=(window_size, n_funcs))
    coef = rng.normal(size=(n_senders * n_funcs, n_receivers))
    residual = rng.normal(size=(n_bins, n_receivers))
    return counts, kernel, coef, residual


@functools.cache
def reference(shape, events):
    """The problem, its naive features, and those of the absolute values, which bound roundings."""
    counts, kernel, coef, residual = make_problem(shape, events)
    X, magnitude = naive.history(counts, kernel), naive.history(abs(counts), abs(kernel))
    return counts, kernel, coef, residual, X, magnitude


def history_matrix(counts, kernel):
    return FeatureMatrix([HistoryColumns(counts, kernel)])


def forward(X, coef, dtype=np.float64, lanes=LANES, products="events"):
    sweep = Sweep(X, coef.shape[1], dtype, lanes, products)
    sweep.set_coef(coef)
    out = np.empty((X.shape[0], coef.shape[1]), dtype)
    for chunks in sweep.rounds():
        sweep.forward(chunks)
        for chunk in chunks:
            out[chunk.start : chunk.start + chunk.n_rows] = sweep.get(chunk, coef.shape[1])
    return out


def backward(X, residual, dtype=np.float64, lanes=LANES, products="events"):
    sweep = Sweep(X, residual.shape[1], dtype, lanes, products)
    for chunks in sweep.rounds():
        for chunk in chunks:
            sweep.put(chunk, residual[chunk.start : chunk.start + chunk.n_rows])
        sweep.backward(chunks)
    return sweep.collect()[:, : residual.shape[1]]


def assert_close(actual, expected, magnitude, dtype=np.float64):
    """Within a few roundings of the sum of the absolute terms."""
    bound = 8 * np.finfo(dtype).eps * magnitude
    error = np.abs(actual - expected)
    assert (error <= bound).all(), (error / np.maximum(bound, 1e-300)).max()


# --- causal history -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("events", EVENTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_history_rows_equal_the_naive_loops(shape, events, dtype):
    counts, kernel, _, _, expected, magnitude = reference(shape, events)
    rows = history_matrix(counts, kernel).rows(np.arange(shape[0]), dtype)
    assert rows.dtype == dtype
    assert_close(rows, expected, magnitude, dtype)


def test_history_rows_at_scattered_bins_equal_those_of_all_bins():
    counts, kernel, _, _ = make_problem((700, 2, 9, 1))
    X = history_matrix(counts, kernel)
    index = np.flatnonzero(np.random.default_rng(1).random(700) < 0.6)  # over two segments
    np.testing.assert_array_equal(X.rows(index), X.rows(np.arange(700))[index])


def test_history_rows_of_no_bins_are_empty():
    counts, kernel, _, _ = make_problem((5, 2, 3, 1))
    assert history_matrix(counts, kernel).rows(np.arange(0)).shape == (0, 6)


@pytest.mark.parametrize(("dtype", "lanes"), BATCHES)
@pytest.mark.parametrize("events", EVENTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_equals_the_naive_product(shape, events, dtype, lanes):
    counts, kernel, coef, _, X, magnitude = reference(shape, events)
    eta = forward(history_matrix(counts, kernel), coef, dtype, lanes)
    assert_close(eta, X @ coef, magnitude @ abs(coef), dtype)


@pytest.mark.parametrize(("dtype", "lanes"), BATCHES)
@pytest.mark.parametrize("events", EVENTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_backward_equals_the_naive_gradient(shape, events, dtype, lanes):
    counts, kernel, _, residual, X, magnitude = reference(shape, events)
    grad = backward(history_matrix(counts, kernel), residual, dtype, lanes)
    assert_close(grad, X.T @ residual, magnitude.T @ abs(residual), dtype)


@pytest.mark.parametrize("products", ["events", "rows"])
@pytest.mark.parametrize("lanes", [LANES, 1])
def test_products_equal_plain_loops_over_the_formula(lanes, products):
    counts, kernel, coef, residual = make_problem((12, 2, 5, 3))
    X = naive.history(counts, kernel)
    matrix = history_matrix(counts, kernel)
    how = {"lanes": lanes, "products": products}
    np.testing.assert_allclose(forward(matrix, coef, **how), naive.product(X, coef), 1e-12)
    np.testing.assert_allclose(
        backward(matrix, residual, **how), naive.gradient(X, residual), 1e-11
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_products_from_rows_equal_those_from_events(dtype):
    counts, kernel, coef, residual = make_problem((1300, 4, 30, LANES + 5))
    X = history_matrix(counts, kernel)
    rows = X.rows(np.arange(1300))
    both = forward(X, coef, dtype, products="rows"), backward(X, residual, dtype, products="rows")
    magnitude = abs(rows) @ abs(coef), abs(rows).T @ abs(residual)
    assert_close(both[0], forward(X, coef, dtype), 4 * magnitude[0], dtype)
    assert_close(both[1], backward(X, residual, dtype), 4 * magnitude[1], dtype)


def test_groups_of_senders_add_up(monkeypatch):
    counts, kernel, coef, _ = make_problem((300, 20, 9, 3))
    whole = history_matrix(counts, kernel)
    assert len(products.sender_groups(whole.blocks[0])) == 1
    monkeypatch.setattr(products, "_GROUP_BYTES", 0)
    grouped = history_matrix(counts, kernel)
    assert len(products.sender_groups(grouped.blocks[0])) == 3
    np.testing.assert_allclose(forward(grouped, coef), forward(whole, coef), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    "start", [0, 1_000_003]
)  # the first chunk, and one that others come before
def test_segments_of_one_receiver_join_without_a_seam(start, dtype):
    """Events beside the edges of segments, whose windows run over them, and of the chunk."""
    rng, window_size = np.random.default_rng(0), 30
    n_rows = 2 * kernels.NARROW_SEGMENT + 100
    edges = np.append(np.arange(0, n_rows, kernels.NARROW_SEGMENT), n_rows)
    near = edges[:, None] + np.arange(-window_size - 2, 3)
    bins = np.unique(np.append(near, rng.integers(0, n_rows, 50)))
    bins = bins[(bins >= (-start if start == 0 else -50)) & (bins < n_rows + 5)] + start
    events = Events(
        bins.astype(np.int32),
        rng.integers(0, 3, bins.size).astype(np.int32),
        rng.normal(size=bins.size),
        (start + n_rows + 10, 3),
    )
    kernel = rng.normal(size=(window_size, 2))
    X = FeatureMatrix([HistoryColumns(events, kernel)])
    rows = np.zeros((n_rows, 6))
    for t, i, amplitude in zip(events.bins - start, events.units, events.amplitudes, strict=True):
        for lag in range(window_size):
            if 0 <= t + 1 + lag < n_rows:
                rows[t + 1 + lag, 2 * i : 2 * i + 2] += amplitude * kernel[lag]
    coef, residual = rng.normal(size=(6, 1)), rng.normal(size=(n_rows, 1))
    sweep = Sweep(X, 1, dtype, 1)
    assert sweep.n_rows >= n_rows
    sweep.set_coef(coef)
    chunk = Chunk(0, start, n_rows)
    sweep.forward([chunk])
    tolerance = {np.float64: 1e-13, np.float32: 1e-5}[dtype]
    np.testing.assert_allclose(sweep.get(chunk, 1), rows @ coef, atol=tolerance)
    sweep.put(chunk, residual)
    sweep.backward([chunk])
    np.testing.assert_allclose(sweep.collect(), rows.T @ residual, atol=100 * tolerance)


@pytest.mark.parametrize("shift", [-2, 1, 3, 9])
@pytest.mark.parametrize("lanes", [LANES, 1])
def test_a_shifted_window_sees_later_bins_in_both_products(shift, lanes):
    counts, kernel, coef, residual = make_problem((25, 2, 6, 3))
    X = FeatureMatrix([HistoryColumns(counts, kernel, shift)])
    expected = naive.history(counts, kernel, shift)
    np.testing.assert_allclose(X.rows(np.arange(25)), expected, atol=1e-13)
    np.testing.assert_allclose(forward(X, coef, lanes=lanes), expected @ coef, atol=1e-12)
    np.testing.assert_allclose(backward(X, residual, lanes=lanes), expected.T @ residual, 1e-10)


@pytest.mark.parametrize("n_bins", [127, 128, 129, 300])
@pytest.mark.parametrize("lanes", [LANES, 1])
def test_chunks_join_without_a_seam(monkeypatch, n_bins, lanes):
    counts, kernel, coef, residual = make_problem((n_bins, 2, 20, 2))
    X = history_matrix(counts, kernel)
    whole = forward(X, coef, lanes=lanes), backward(X, residual, lanes=lanes)
    monkeypatch.setattr(sweeps, "CHUNK", 128)
    np.testing.assert_allclose(forward(X, coef, lanes=lanes), whole[0], atol=1e-13)
    np.testing.assert_allclose(backward(X, residual, lanes=lanes), whole[1], atol=1e-12)


def test_tiles_that_are_not_listed_are_left_alone():
    counts, kernel, coef, residual = make_problem((30, 2, 9, 2 * LANES))
    X = history_matrix(counts, kernel)
    sweep = Sweep(X, 2 * LANES)
    sweep.set_coef(coef, np.array([1]))
    chunk = Chunk(0, 0, 30)
    sweep.forward([chunk])
    eta = sweep.get(chunk, 2 * LANES).copy()
    sweep.put(chunk, residual)
    sweep.backward([chunk])
    grad = sweep.collect()
    assert not eta[:, :LANES].any()
    assert not grad[:, :LANES].any()
    np.testing.assert_array_equal(eta[:, LANES:], forward(X, coef)[:, LANES:])
    np.testing.assert_array_equal(grad[:, LANES:], backward(X, residual)[:, LANES:])


def test_the_pads_of_eta_stay_zero():
    counts, kernel, coef, _ = make_problem((13, 2, 5, 3))
    sweep = Sweep(history_matrix(counts, kernel), 3)
    sweep.set_coef(coef)
    sweep.forward([Chunk(0, 0, 13)])
    eta = sweep.etas[0]
    assert not eta[:, : PAD * LANES].any()
    assert not eta[:, (PAD + 13) * LANES :].any()


def test_collect_starts_the_gradient_anew():
    counts, kernel, _, residual = make_problem((13, 2, 5, 3))
    sweep = Sweep(history_matrix(counts, kernel), 3)
    chunk = Chunk(0, 0, 13)
    sweep.put(chunk, residual)
    sweep.backward([chunk])
    assert sweep.collect().any()
    assert not sweep.collect().any()


def test_dense_and_history_blocks_side_by_side_share_the_products():
    counts, kernel, coef, residual = make_problem((40, 2, 9, 3))
    dense = np.random.default_rng(3).normal(size=(40, 2))
    X = FeatureMatrix([HistoryColumns(counts, kernel), DenseColumns(dense)])
    expected = np.hstack([naive.history(counts, kernel), dense])
    coef = np.vstack([coef, [[0.5, -1.0, 2.0], [1.5, 0.0, 3.0]]])
    np.testing.assert_allclose(forward(X, coef), expected @ coef, atol=1e-12)
    np.testing.assert_allclose(backward(X, residual), expected.T @ residual, atol=1e-12)


def test_project_filters_weighs_the_kernel_with_the_coefficients():
    rng = np.random.default_rng(0)
    kernel, coef = rng.normal(size=(5, 3)), rng.normal(size=(2 * 3, 2 * 4))
    filters = np.zeros((2, 5 + 2 * PAD, 4))
    kernels.project_filters(kernel, coef, 4, filters)
    expected = np.einsum("lb,ibk->ilk", kernel, coef.reshape(2, 3, 8)[:, :, 4:])
    np.testing.assert_allclose(filters[:, PAD : PAD + 5], expected, atol=1e-14)
    assert not filters[:, :PAD].any()
    assert not filters[:, PAD + 5 :].any()


def test_collect_filters_adds_to_the_gradient():
    rng = np.random.default_rng(0)
    kernel, lag_sums = rng.normal(size=(5, 3)), rng.normal(size=(2, 8, 4))  # 3 spare lags
    grad = np.ones((2 * 3, 2 * 4))
    kernels.collect_filters(kernel, lag_sums, 4, grad)
    expected = np.ones((6, 8))
    expected[:, 4:] += np.einsum("lb,ilk->ibk", kernel, lag_sums[:, :5]).reshape(6, 4)
    np.testing.assert_allclose(grad, expected, atol=1e-14)


# --- the same bits ------------------------------------------------------------------------------


def everything(X, coef, residual, dtype, lanes):
    eta = forward(X, coef, dtype, lanes)
    values, _, sums = run_poisson(POISSON, 0.1 * eta, residual, lanes=lanes, dtype=dtype)
    rows = X.rows(np.arange(X.shape[0]))
    pairs = statistics.gram(X, X.valid)
    return eta, backward(X, residual, dtype, lanes), rows, values, sums, pairs


@compiled_only
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two threads")
@pytest.mark.parametrize(("dtype", "lanes"), BATCHES)
def test_the_bits_do_not_depend_on_the_number_of_threads(dtype, lanes):
    counts, kernel, coef, residual = make_problem((5000, 9, 37, LANES + 3))
    X = history_matrix(counts, kernel)
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        one = everything(X, coef, residual, dtype, lanes)
        numba.set_num_threads(2)
        two = everything(X, coef, residual, dtype, lanes)
    finally:
        numba.set_num_threads(before)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("n_threads", [1, 2, 3, 16])
@pytest.mark.parametrize("n_tiles", [1, 3])
def test_pieces_cover_every_row_of_a_round_once(n_threads, n_tiles):
    chunks = [Chunk(0, 0, 2 * SEGMENT), Chunk(1, 2 * SEGMENT, 2 * SEGMENT), Chunk(2, 4096, 70)]
    tiles, n = np.arange(5, 5 + n_tiles), 5 * n_tiles
    seen = {(tile, chunk.slot): np.zeros(chunk.n_rows, int) for tile in tiles for chunk in chunks}
    edges = np.arange(n_threads + 1) * n // n_threads
    for first, last in itertools.pairwise(edges.tolist()):
        for piece in pieces(chunks, tiles, SEGMENT, first, last):
            assert piece.begin % SEGMENT == 0
            seen[piece.tile, piece.chunk.slot][piece.begin : piece.end] += 1
    assert all((rows == 1).all() for rows in seen.values())


@pytest.mark.parametrize("n_threads", [2, 5])
def test_threads_share_a_round_of_chunks(n_threads, monkeypatch):
    monkeypatch.setattr(threads.numba, "get_num_threads", lambda: n_threads)
    monkeypatch.setattr(sweeps, "CHUNK", 128)
    counts, kernel, coef, residual = make_problem((1000, 4, 9, 3))
    sweep = Sweep(history_matrix(counts, kernel), 3)
    sizes = [len(chunks) for chunks in sweep.rounds()]
    assert sum(sizes) == 8
    assert sizes[0] == min(8, 4 * n_threads)
    X = naive.history(counts, kernel)
    np.testing.assert_allclose(forward(sweep.X, coef), X @ coef, atol=1e-12)
    np.testing.assert_allclose(backward(sweep.X, residual), X.T @ residual, atol=1e-11)


@compiled_only
def test_a_last_chunk_that_is_short_has_the_same_bits_beside_others(monkeypatch):
    """It has fewer segments, whose sums NumPy adds in another order than with zeros behind them."""
    monkeypatch.setattr(sweeps, "CHUNK", SEGMENT)  # 16 segments of a tile of one receiver
    rng, n_bins = np.random.default_rng(0), 43 * SEGMENT + 5
    X = FeatureMatrix([DenseColumns(rng.normal(size=(n_bins, 1)))])
    values, found = rng.normal(size=(n_bins, 8)), []
    for n_threads in (1, 2, 16):
        monkeypatch.setattr(threads.numba, "get_num_threads", lambda n=n_threads: n)
        found.append(statistics.project(X, X.valid, values, lanes=1))
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])


def test_chunks_without_a_valid_bin_are_left_out(monkeypatch):
    monkeypatch.setattr(sweeps, "CHUNK", 128)
    counts, kernel, _, _ = make_problem((1000, 2, 9, 1))
    valid = np.zeros(1000, bool)
    valid[[130, 999]] = True
    rounds = Sweep(history_matrix(counts, kernel), 1).rounds(valid)
    assert [chunk.start for chunks in rounds for chunk in chunks] == [128, 896]


@pytest.mark.parametrize("company", [0.0, 1e30, np.nan])
@pytest.mark.parametrize(("dtype", "lanes"), BATCHES)
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_a_receivers_bits_do_not_depend_on_the_other_columns(dtype, lanes, company):
    counts, kernel, coef, residual = make_problem((70, 3, 11, 5))
    X = history_matrix(counts, kernel)
    other_coef, other_residual = np.full((9, 5), company), np.full((70, 5), company)
    other_coef[:, 2], other_residual[:, 2] = coef[:, 2], residual[:, 2]
    for batch, other in [
        (forward(X, coef, dtype, lanes), forward(X, other_coef, dtype, lanes)),
        (backward(X, residual, dtype, lanes), backward(X, other_residual, dtype, lanes)),
    ]:
        np.testing.assert_array_equal(batch[:, 2], other[:, 2])


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(("dtype", "lanes"), BATCHES)
def test_a_receivers_bits_do_not_depend_on_its_place(dtype, lanes, dense):
    counts, kernel, coef, residual = make_problem((70, 3, 11, LANES + 4))
    X = history_matrix(counts, kernel)
    if dense:
        X = FeatureMatrix([DenseColumns(X.rows(np.arange(70)))])
    together = forward(X, coef, dtype, lanes), backward(X, residual, dtype, lanes)
    for j in (1, LANES - 1, LANES + 3):
        alone = (
            forward(X, coef[:, [j]], dtype, lanes),
            backward(X, residual[:, [j]], dtype, lanes),
        )
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_array_equal(a[:, j], b[:, 0])


@compiled_only
def test_kernels_enclose_numbers_only():
    """A function enclosed in another is never found in Numba's cache: 7 s in every process."""
    files = [value for value in vars(kernels).values() if inspect.ismodule(value)]
    compiled = {
        name: f for file in files for name, f in vars(file).items() if hasattr(f, "py_func")
    }
    assert len(compiled) > 30
    for name, kernel in compiled.items():
        enclosed = [cell.cell_contents for cell in kernel.py_func.__closure__ or ()]
        assert all(isinstance(value, int | float) for value in enclosed), name


@compiled_only
@pytest.mark.parametrize(("dtype", "lanes"), BATCHES)
def test_another_shape_compiles_nothing_anew(dtype, lanes):
    used = (
        kernels.history_rows,
        kernels.project_filters,
        kernels.collect_filters,
        kernels.history_forward,
        kernels.history_forward_narrow,
        kernels.history_backward,
        kernels.history_backward_narrow,
        kernels.poisson_exp,
        kernels.count_pairs,
    )

    def signatures(shape):
        counts, kernel, coef, residual = make_problem(shape)
        everything(history_matrix(counts, kernel), coef, residual, dtype, lanes)
        return [set(kernel.signatures) for kernel in used]

    assert signatures((300, 2, 9, LANES)) == signatures((5000, 3, 1, LANES + 2))


# --- exp ----------------------------------------------------------------------------------------


def exact_exp(x):
    with decimal.localcontext(prec=40):
        return [decimal.Decimal(float(v)).exp() for v in x]


def exp_array(x):
    out = np.empty(len(x))
    with np.errstate(all="ignore"):
        kernels.exp_array(np.asarray(x), out)
    return out


def relative_error(values, exact):
    with decimal.localcontext(prec=40):
        pairs = zip(values, exact, strict=True)
        return np.array([float(abs(decimal.Decimal(float(v)) / e - 1)) for v, e in pairs])


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1.0, 30.0, 708.0])
def test_exp_is_accurate_to_an_ulp_and_a_half(scale):
    x = np.random.default_rng(0).uniform(-scale, scale, 500)
    assert relative_error(exp_array(x), exact_exp(x)).max() < 3e-16


def test_exp_is_accurate_at_the_edges_of_its_reduction():
    halves = (np.arange(-1021, 1023) + 0.5) * np.log(2)
    x = np.concatenate([np.nextafter(halves, -np.inf), halves, np.nextafter(halves, np.inf)])
    x = np.append(x, [709.78, -708.39, 0.0])
    assert relative_error(exp_array(x), exact_exp(x)).max() < 3e-16


def test_exp_of_zero_is_exactly_one():
    np.testing.assert_array_equal(exp_array(np.array([0.0, -0.0])), 1.0)


def test_exp_goes_to_zero_through_the_subnormal_numbers():
    x = np.linspace(-708.5, -745.1, 300)
    error = [
        abs(decimal.Decimal(float(v)) - e) for v, e in zip(exp_array(x), exact_exp(x), strict=1)
    ]
    assert max(error) <= decimal.Decimal("5e-324")


def test_exp_overflows_to_inf_and_underflows_to_zero():
    x = np.array([709.79, 710.0, 1e4, 1e300, np.inf, -745.2, -746.0, -1e4, -1e300, -np.inf])
    np.testing.assert_array_equal(exp_array(x), [np.inf] * 5 + [0.0] * 5)


@compiled_only
def test_exp_of_nan_is_nan():
    np.testing.assert_array_equal(exp_array(np.array([1.0, np.nan]))[1:], np.nan)


@compiled_only
def test_exp_of_float32_is_accurate_in_float64():
    x = np.random.default_rng(0).uniform(-700, 700, 500).astype(np.float32)
    assert relative_error(exp_array(x), exact_exp(x)).max() < 3e-16
    special = np.array([-np.inf, np.inf, 3e38, -3e38, np.nan], np.float32)
    np.testing.assert_array_equal(exp_array(special), [0.0, np.inf, np.inf, 0.0, np.nan])


@pytest.mark.parametrize("n", [0, 1, 3, 4097])
def test_exp_array_fills_every_length(n):
    x = np.linspace(-3, 3, n)
    np.testing.assert_allclose(exp_array(x), np.exp(x), rtol=1e-15)


# --- observation model --------------------------------------------------------------------------


def pack(values, lanes, dtype):
    """Rows by receivers in the layout of the kernels: tiles, zeros around the rows."""
    n_rows, n = values.shape
    n_tiles = -(-n // lanes)
    padded = np.zeros((2 * PAD + n_rows, n_tiles * lanes), dtype)
    padded[PAD : PAD + n_rows, :n] = values
    tiles = padded.reshape(-1, n_tiles, lanes).transpose(1, 0, 2)
    return np.ascontiguousarray(tiles).reshape(n_tiles, -1)


def unpack(values, lanes, n, pad=PAD):
    n_tiles = values.shape[0]
    rows = values.reshape(n_tiles, -1, lanes).transpose(1, 0, 2).reshape(-1, n_tiles * lanes)
    return rows[pad : rows.shape[0] - pad, :n]


def run_poisson(loss, eta, counts, intercept=None, valid=None, start=0, lanes=LANES, dtype=float):
    """New eta, the pads of its layout, and sums of the kernel of a loss."""
    n_rows, n = eta.shape
    n_tiles = -(-n // lanes)
    n_segments = -(-n_rows // SEGMENT)
    offsets = np.full(n_tiles * lanes, -1e5, dtype)  # of lanes without a receiver
    offsets[:n] = 0.0 if intercept is None else intercept
    valid = np.ones(start + n_rows, bool) if valid is None else valid
    valid = valid if loss.exponential else valid.astype(dtype)  # weights of the bins
    sums = np.full((n_tiles, n_segments, 2, lanes), -7.0)
    values, y = pack(eta, lanes, dtype), pack(counts, lanes, dtype)
    with np.errstate(all="ignore"):
        for tile in range(n_tiles):
            own = offsets[tile * lanes : (tile + 1) * lanes]
            args = own, np.ones_like(own), valid, start, 0, n_rows, sums[tile]
            loss.kernel(values[tile], y[tile], *args)
    pads = np.concatenate([values[:, : PAD * lanes], values[:, (PAD + n_rows) * lanes :]], axis=1)
    sums = sums.transpose(1, 2, 0, 3).reshape(n_segments, 2, -1)[:, :, :n]
    return unpack(values, lanes, n), pads, sums


def poisson_problem(n_rows, n, seed=0):
    rng = np.random.default_rng(seed)
    eta, y = rng.normal(0, 3, (n_rows, n)), rng.poisson(1.0, (n_rows, n)).astype(float)
    return eta, y, rng.normal(size=n)


def softplus_parts(eta, y):
    return naive.softplus_loss(eta, y), naive.softplus_residual(eta, y)


def exp_parts(eta, y):
    return (np.exp(eta),) * 2  # what is linear in y is the caller's


POISSON, SOFTPLUS = (PoissonObservations().loss(name) for name in ("exp", "softplus"))
LOSSES = [(POISSON, exp_parts), (SOFTPLUS, softplus_parts)]


@pytest.mark.parametrize(("loss", "parts"), LOSSES)
@pytest.mark.parametrize(("dtype", "lanes"), BATCHES)
@pytest.mark.parametrize(("n_rows", "n"), [(1, 1), (9, 3), (30, LANES + 1), (SEGMENT + 70, 1)])
def test_poisson_kernels_equal_the_formulas(loss, parts, n_rows, n, dtype, lanes):
    if PURE and n_rows * lanes > 2000:
        lanes = 1
    eta, y, intercept = poisson_problem(n_rows, n)
    eta, intercept = eta.astype(dtype), intercept.astype(dtype)
    valid = np.random.default_rng(1).random(n_rows + 5) < 0.7
    values, pads, sums = run_poisson(loss, eta, y, intercept, valid, 5, lanes, dtype)
    exact = eta.astype(float) + intercept.astype(float)
    loss, residual = (part * valid[5:, None] for part in parts(exact, y))
    rtol = 1e-12 if dtype == np.float64 else 4e-6  # eta + intercept rounds in float32
    np.testing.assert_allclose(values, residual, rtol=rtol, atol=rtol)
    assert not pads.any()
    for s in range(sums.shape[0]):
        rows = slice(s * SEGMENT, (s + 1) * SEGMENT)
        expected = [part[rows].sum(axis=0) for part in (loss, residual)]
        np.testing.assert_allclose(sums[s], expected, rtol=30 * rtol, atol=30 * rtol)


@pytest.mark.parametrize(("loss", "parts"), LOSSES)
def test_the_residual_is_the_derivative_of_the_loss(loss, parts):
    eta = np.linspace(-12, 8, 41)[None, :].repeat(3, axis=0)
    y = np.array([0.0, 1.0, 7.0])[:, None].repeat(41, axis=1)
    loss_up, loss_down = np.empty_like(eta), np.empty_like(eta)
    step = 1e-5
    for row in range(3):  # a row at a time: the sums are then those of the row
        one = slice(row, row + 1)
        loss_up[row] = run_poisson(loss, eta[one] + step, y[one])[2][0, 0]
        loss_down[row] = run_poisson(loss, eta[one] - step, y[one])[2][0, 0]
    residual, _, _ = run_poisson(loss, eta, y)
    scale = 1 + y + np.exp(eta) if loss is POISSON else 1 + y
    assert (abs((loss_up - loss_down) / (2 * step) - residual) < 2e-9 * scale).all()


@pytest.mark.parametrize("loss", [POISSON, SOFTPLUS])
def test_expected_curvature_is_the_mean_over_counts_of_the_model(loss):
    eta = np.linspace(-4, 2, 7)
    mu = loss.mean(eta)
    y = np.arange(80)[:, None]
    chance = np.exp(y * np.log(mu) - mu - scipy.special.gammaln(y + 1))
    step = 1e-5
    up, down = (loss.derivatives(eta + d, y.astype(float))[1] for d in (step, -step))
    mean = (chance * (up - down) / (2 * step)).sum(axis=0)
    np.testing.assert_allclose(loss.expected_curvature(eta), mean, rtol=1e-7)


@pytest.mark.parametrize(("dtype", "lanes"), BATCHES)
def test_poisson_exp_shows_overflow_as_inf(dtype, lanes):
    eta = np.array([[0.0, 800.0], [0.0, 0.0]])
    values, _, sums = run_poisson(POISSON, eta, eta, lanes=lanes, dtype=dtype)
    assert values[0, 1] == np.inf
    np.testing.assert_array_equal(sums[0], [[2.0, np.inf]] * 2)


@compiled_only
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_poisson_exp_shows_nan(dtype):
    eta = np.array([[0.0, np.nan]])
    _, _, sums = run_poisson(POISSON, eta, eta, dtype=dtype)
    np.testing.assert_array_equal(sums[0], [[1.0, np.nan]] * 2)


@pytest.mark.parametrize(("dtype", "lanes"), BATCHES)
def test_poisson_exp_ignores_what_stands_in_invalid_rows(dtype, lanes):
    eta = np.array([[0.0, 0.0], [np.nan, 800.0]])
    valid = np.array([True, False])
    values, _, sums = run_poisson(POISSON, eta, eta, valid=valid, dtype=dtype, lanes=lanes)
    np.testing.assert_array_equal(sums[0], 1.0)
    assert not values[1].any()


def test_softplus_stays_finite_where_its_rate_underflows():
    eta = np.array([[-40.0, -300.0, -690.0]])
    y = np.array([[2.0, 2.0, 2.0]])
    residual, _, sums = run_poisson(SOFTPLUS, eta, y)
    np.testing.assert_allclose(residual, -y, rtol=1e-12)
    np.testing.assert_allclose(sums[0, 0], -y[0] * eta[0], rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", [SOFTPLUS, BernoulliObservations().loss("cloglog")])
def test_losses_go_on_where_a_mean_underflows(loss, dtype):
    """The logarithm of a mean that underflows is eta: the loss of an event has no plateau."""
    eta = np.array([[-90.0, -1e3, -4e5, -1e20, -np.inf]])
    y = np.array([[1.0, 1.0, 1.0, 1.0, 0.0]])
    expected = np.where(y > 0, -eta, 0)[0]
    residual, _, sums = run_poisson(loss, eta, y, dtype=dtype)
    np.testing.assert_allclose(sums[0, 0], expected, rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(residual, -y, rtol=1e-6, atol=1e-30)
    value, slope, _ = loss.derivatives(eta[0], y[0])
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(slope, -y[0], rtol=1e-12, atol=1e-300)


def test_softplus_is_linear_far_above_zero():
    eta = np.array([[50.0, 1e3, 1e6]])
    residual, _, sums = run_poisson(SOFTPLUS, eta, np.ones((1, 3)))
    np.testing.assert_allclose(sums[0, 0], eta[0] - np.log(eta[0]), rtol=1e-14)
    np.testing.assert_allclose(residual, 1 - 1 / eta, rtol=1e-14)


def exp_of(values, dtype, lanes=1):
    """The kernel's exp of some values, one receiver."""
    with np.errstate(all="ignore"):
        out = run_poisson(POISSON, values[:, None], values[:, None], lanes=lanes, dtype=dtype)
    return out[0][:, 0]


@compiled_only
@pytest.mark.parametrize("lanes", [LANES, 1])
@pytest.mark.parametrize(
    ("dtype", "low", "high", "error"),
    [(np.float32, -87.3, 88.7, 1.5e-7), (np.float64, -708.0, 709.7, 3e-16)],
)
def test_exp_inside_the_pass_is_right_to_the_stated_error(dtype, low, high, error, lanes):
    """The pass may reorder its sums; what it calls must not be reordered with them."""
    x = np.linspace(low, high, 200_001).astype(dtype)
    exact = np.array([math.exp(v) for v in x.tolist()])  # NumPy 1.26's own is off by 2e-16
    ratio = exp_of(x, dtype, lanes) / exact
    assert abs(ratio - 1).max() < error


@compiled_only
def test_float32_exp_underflows_overflows_and_passes_nan_on():
    x = np.array([-np.inf, -200, -104, -95, 88.72, 88.74, 500, np.inf, np.nan], np.float32)
    out = exp_of(x, np.float32)
    assert (out[:3] == 0).all()
    assert out[3] == pytest.approx(np.exp(-95.0), abs=1.5e-45)  # the smallest float32
    assert np.isfinite(out[4])
    assert (out[5:8] == np.inf).all()
    assert np.isnan(out[8])


@pytest.mark.parametrize(
    ("log", "dtype", "reach", "error"),
    [(kernels.log, np.float64, 700.0, 3e-16), (kernels.log32, np.float32, 87.0, 2e-7)],
)
def test_log_is_right_to_the_stated_error(log, dtype, reach, error):
    x = np.exp(np.concatenate([np.linspace(-reach, reach, 3001), np.linspace(-0.5, 0.5, 3001)]))
    x = x.astype(dtype)
    exact = np.log(x.astype(float))
    with np.errstate(over="ignore"):
        found = np.array([log(v) for v in x], float)
    assert (abs(found - exact) / np.maximum(abs(exact), 1)).max() < error


@compiled_only
@pytest.mark.parametrize("lanes", [LANES, 1])
@pytest.mark.parametrize(
    ("dtype", "lowest", "error"), [(np.float32, -80.0, 5e-7), (np.float64, -690.0, 2e-15)]
)
def test_softplus_inside_the_pass_is_right_to_the_stated_error(dtype, lowest, error, lanes):
    """Without counts the residual is the logistic function, and the loss is softplus."""
    eta = np.linspace(lowest, 80, 20_001).astype(dtype)[:, None]
    residual, _, sums = run_poisson(SOFTPLUS, eta, 0 * eta, lanes=lanes, dtype=dtype)
    exact = eta.astype(float)
    np.testing.assert_allclose(residual, scipy.special.expit(exact), rtol=error)
    np.testing.assert_allclose(sums[:, 0].sum(), np.logaddexp(0, exact).sum(), rtol=error)


@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (7, 129, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_aligned_zeros_begin_on_a_cache_line(shape, dtype):
    array = kernels.aligned_zeros(shape, dtype)
    assert array.shape == shape
    assert array.dtype == dtype
    assert array.ctypes.data % 64 == 0
    assert array.flags.c_contiguous
    assert not array.any()


@pytest.mark.parametrize("part", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("n_rows", [1, 31, 32, 33, 100])
@pytest.mark.parametrize("n_columns", [1, 7, 40])
def test_weighted_gram_of_packed_rows(n_rows, n_columns, part):
    rng = np.random.default_rng(n_rows + n_columns)
    rows = rng.normal(size=(n_rows, n_columns)) * (rng.random((n_rows, n_columns)) < part)
    weights = rng.random(n_rows) * (rng.random(n_rows) < 0.8)
    n_blocks = -(-n_rows // kernels.GRAM_BLOCK)
    sizes = np.zeros(n_blocks, np.int64)
    columns = np.zeros((n_blocks, n_columns), np.int64)
    values = np.full((n_blocks, kernels.GRAM_BLOCK * n_columns), np.nan)
    kernels.pack_rows(rows, sizes, columns, values)
    for k in range(n_blocks):
        block = rows[k * kernels.GRAM_BLOCK : (k + 1) * kernels.GRAM_BLOCK]
        assert columns[k, : sizes[k]].tolist() == np.flatnonzero(block.any(axis=0)).tolist()
    padded = np.zeros(n_blocks * kernels.GRAM_BLOCK)
    padded[:n_rows] = weights
    for chosen in (np.arange(n_columns), np.arange(0, n_columns, 3)):
        place = np.full(n_columns, -1)
        place[chosen] = np.arange(chosen.size)
        out = np.tri(chosen.size)  # is added to
        kernels.add_weighted_gram(sizes, columns, values, padded, place, out)
        expected = np.zeros((chosen.size, chosen.size))
        for t in range(n_rows):
            expected += weights[t] * np.outer(rows[t, chosen], rows[t, chosen])
        expected = np.tril(expected + 1)
        np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-12)


def nothing_held():
    return np.zeros(0, np.int64), np.zeros((0, 0), np.float32)


@pytest.mark.parametrize("size", [1, 4])  # lasso, and groups of four
def test_the_factor_of_a_system_nearby_gives_the_same_minimum(size):
    rng = np.random.default_rng(0)
    n = 40
    rows = rng.normal(size=(200, n)) @ (np.eye(n) + 0.05 * rng.normal(size=(n, n)))
    g, c = 0.5 * rng.normal(size=n), np.zeros(n)
    starts, features = np.arange(0, n + 1, size), 3 * np.arange(n)

    def solve(scale, strength, *held):
        S = (rows.T @ (scale[:, None] * rows) / len(rows)).astype(np.float32)
        weights = np.full(n // size, strength * size**0.7)
        found = kernels.solve_groups(S, g, c, starts, weights, 1e-9, features, *held)
        return S, weights, found

    flat, bent = np.ones(200), 1 + 0.1 * rng.random(200)
    _, _, (_, _, *held) = solve(flat, 0.3, *nothing_held())
    S, weights, (cold, slope, *_) = solve(bent, 0.28, *nothing_held())
    _, _, (warm, _, *after) = solve(bent, 0.28, *held)
    np.testing.assert_array_equal(after[0], held[0])  # conjugate gradients did it all
    np.testing.assert_allclose(warm, cold, atol=1e-6)
    assert 0 < (warm == 0).sum() < n
    np.testing.assert_allclose(slope, g + S @ cold, atol=1e-9)
    # The optimality condition, group by group.
    for first, strength in zip(starts, weights, strict=False):
        part = slice(first, first + size)
        norm = np.linalg.norm(warm[part])
        pull = strength * warm[part] / norm if norm else np.zeros(size)
        left = np.linalg.norm((g + S @ warm)[part] + pull)
        assert left <= (1e-6 if norm else strength)
    # A factor of something else is replaced.
    other = [held[0], held[1] * (1 + 30 * rng.random((n, 1)))[: len(held[1])].astype(np.float32)]
    _, _, (renewed, _, *now) = solve(bent, 0.28, *other)
    np.testing.assert_allclose(renewed, cold, atol=1e-6)
    assert not np.array_equal(now[1], other[1])
