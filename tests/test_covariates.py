"""Bases of covariates, products, slow covariates and pipelines, on every path to the solver."""

import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import Pipeline

import fastglm
from fastglm import basis
from fastglm._products.sums import column_sums, gram, moments
from fastglm._products.sweep import Sweep
from fastglm.basis import (
    AdditiveBasis,
    BSplineEval,
    CustomBasis,
    CyclicBSplineEval,
    FourierEval,
    HistoryConv,
    IdentityEval,
    MSplineEval,
    MultiplicativeBasis,
    OrthExponentialEval,
    RaisedCosineLinearEval,
    RaisedCosineLogConv,
    RaisedCosineLogEval,
    TransformerBasis,
    Zero,
)
from fastglm.features import (
    DenseColumns,
    Events,
    FeatureMatrix,
    HistoryColumns,
    ProductColumns,
    SlowColumns,
    hold,
    hstack,
)

EVALS = [
    RaisedCosineLinearEval(4),
    RaisedCosineLogEval(4, time_scaling=5.0),
    BSplineEval(5, order=3),
    CyclicBSplineEval(5),
    MSplineEval(5),
    OrthExponentialEval(2, [1.0, 4.0]),
    IdentityEval(),
    FourierEval(3),
    CustomBasis([np.sin, np.cos]),
    Zero(),
]
each_eval = pytest.mark.parametrize("b", EVALS, ids=lambda b: type(b).__name__)
PATHS = ["newton-cholesky", "newton-cg"]
each_path = pytest.mark.parametrize("path", PATHS)
N = 600


def rng(seed=0):
    return np.random.default_rng(seed)


def poisson_counts(n_bins=N, n_cells=3, seed=0):
    return rng(seed).poisson(0.4, (n_bins, n_cells))


# --- hold: a covariate at its own rate ------------------------------------------------------------


def holds():
    """What `hold` gives and the array that it stands for."""
    values = rng(1).normal(size=(60, 2))
    values[7, 1] = np.nan
    t = np.arange(N)
    samples = rng(2).integers(-1, 60, N // 3).repeat(3)
    starts = np.sort(rng(3).choice(np.arange(4, N), 60, replace=False))
    at = np.searchsorted(starts, t, side="right") - 1
    expected = np.where(at[:, None] >= 0, values[at], np.nan)
    yield "every", hold(values, N, every=10), values[t // 10]
    yield "every 10.25", hold(values[:59], N, every=10.25), values[(t / 10.25).astype(int)]
    yield "starts", hold(values, N, starts=starts), expected
    yield (
        "before",
        hold(values, N, starts=starts - 200),
        values[np.searchsorted(starts - 200, t, side="right") - 1],
    )
    frames = np.where(samples[:, None] >= 0, values[samples], np.nan)
    yield "samples", hold(values, samples=samples), frames
    yield "1-d", hold(values[:, 0], N, every=10), values[t // 10, :1]
    yield "integers", hold(np.arange(60), N, every=10), (t // 10)[:, None]


each_hold = pytest.mark.parametrize(
    ("X", "dense"), [case[1:] for case in holds()], ids=[case[0] for case in holds()]
)


@each_hold
def test_a_held_covariate_is_the_expanded_array(X, dense):
    assert X.shape == dense.shape
    np.testing.assert_array_equal(np.asarray(X), dense)
    np.testing.assert_array_equal(X.valid, np.isfinite(dense).all(axis=1))
    for key in (slice(13, 57), slice(0, 1), [5, 3, 3, 599], [17, 17, 19], -1, slice(599, 600)):
        np.testing.assert_array_equal(X[key], dense[key])
    index = np.flatnonzero(X.valid)
    np.testing.assert_array_equal(X.rows(index, np.float32), dense[index].astype(np.float32))
    np.testing.assert_array_equal(X.nonnegative, np.nanmin(dense, axis=0) >= 0)
    positive = np.where(dense > 0, dense, np.inf)
    np.testing.assert_array_equal(X.smallest_positive(), positive.min(axis=0))


@each_hold
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_products_with_a_held_covariate(X, dense, dtype):
    history = HistoryConv(3).compute_features(poisson_counts())
    both, expected = hstack([history, X]), np.hstack([np.asarray(history), dense])
    expected = np.where(both.valid[:, None], expected, 0)
    coef, residual = rng(4).normal(size=(both.shape[1], 2)), rng(5).normal(size=(N, 2))
    residual[~both.valid] = 0
    sweep = Sweep(both, 2, dtype)
    sweep.n_rows = 128
    sweep.set_coef(coef)
    tolerance = 1e-10 if dtype == np.float64 else 1e-4
    for chunks in sweep.rounds():
        sweep.forward(chunks)
        for chunk in chunks:
            rows = slice(chunk.start, chunk.start + chunk.n_rows)
            eta, valid = sweep.get(chunk, 2), both.valid[rows]
            assert np.abs((eta - expected[rows] @ coef)[valid]).max(initial=0) < 30 * tolerance
            sweep.put(chunk, residual[rows])
        sweep.backward(chunks)
    grad = sweep.collect()[:, :2]
    np.testing.assert_allclose(grad, expected.T @ residual, atol=100 * tolerance)


@each_hold
def test_statistics_with_a_held_covariate(X, dense):
    counts = poisson_counts()
    history = HistoryConv(3).compute_features(counts)
    both = hstack([history, X])
    expected = np.hstack([np.asarray(history), dense])[both.valid]
    np.testing.assert_allclose(column_sums(both, both.valid), expected.sum(axis=0), atol=1e-10)
    np.testing.assert_allclose(gram(both, both.valid), expected.T @ expected, atol=1e-8)
    sums = moments(both, both.valid, Events.of(counts))
    np.testing.assert_allclose(sums.xty, expected.T @ counts[both.valid], atol=1e-8)


@each_hold
def test_select_of_a_held_covariate(X, dense):
    both = hstack([X, np.arange(N)])
    keep = np.arange(both.shape[1]) != 0
    part, index = both.select(keep)
    np.testing.assert_array_equal(np.asarray(part), np.asarray(both)[:, index])
    np.testing.assert_array_equal(part.valid, both.valid)
    assert set(np.flatnonzero(keep)) <= set(index)


@each_path
@pytest.mark.parametrize("link", ["exp", "softplus"])
def test_a_fit_with_a_held_covariate_is_that_of_the_array(path, link):
    values = rng(1).normal(size=(60, 2))
    values[11] = np.nan
    counts = poisson_counts()
    history = RaisedCosineLogConv(3, 8).compute_features(counts)
    X = hstack([history, hold(values, N, every=10)])
    dense = hstack([history, values[np.arange(N) // 10]])
    mask = rng(2).random((X.shape[1], 3)) < 0.8
    models = [
        fastglm.PopulationGLM(
            regularizer="Ridge",
            regularizer_strength=1e-3,
            solver_name=path,
            feature_mask=mask,
            inverse_link_function=link,
        ).fit(x, counts)
        for x in (X, dense)
    ]
    coef, rate, score = (1e-9, 1e-9, 1e-12) if path == "newton-cholesky" else (4e-7, 1e-6, 1e-9)
    # Sums are rounded differently: conjugate gradients end within sqrt(2 * 1e-16 / ridge).
    np.testing.assert_allclose(models[0].coef_, models[1].coef_, atol=coef)
    np.testing.assert_allclose(models[0].predict(X), models[1].predict(dense), rtol=rate)
    assert models[0].score(X, counts) == pytest.approx(models[1].score(dense, counts), abs=score)


def test_a_held_covariate_is_kept_at_its_own_rate():
    values = rng().normal(size=(2000, 4))
    X = hold(values, 200_000, every=100)
    kept = X.nbytes - X.valid.nbytes
    assert kept == values.nbytes + 2 * 2000 * 8
    features = BSplineEval(10).compute_features(X)
    assert features.shape == (200_000, 40)
    assert features.nbytes - features.valid.nbytes == 2000 * 40 * 8 + 2 * 2000 * 8
    assert features.blocks[0].values.shape == (2000, 40)


@pytest.mark.parametrize("b", [b for b in EVALS if not isinstance(b, OrthExponentialEval)])
def test_features_of_a_held_covariate(b):
    values = rng(1).random(size=(60, 2))
    values[3, 0] = np.nan
    X = b.compute_features(hold(values, N, every=10))
    assert isinstance(X.blocks[0], SlowColumns)
    expected = b.compute_features(values[np.arange(N) // 10])
    np.testing.assert_array_equal(X.valid, expected.valid)
    np.testing.assert_allclose(np.asarray(X), np.asarray(expected), atol=1e-14)
    np.testing.assert_array_equal(X.filters, expected.filters)
    one = b.compute_features(hold(values[:, 1], N, every=10))
    assert one.shape == (N, b.n_basis_funcs)
    assert b.input_shape == [()]


def test_what_no_bin_sees_has_no_part_in_the_range():
    values = np.array([100.0, 1.0, 2.0, 3.0, -50.0])
    X = BSplineEval(4).compute_features(hold(values, 40, starts=[-20, 0, 10, 25, 40]))
    expected = BSplineEval(4).compute_features(values[[1] * 10 + [2] * 15 + [3] * 15])
    np.testing.assert_allclose(np.asarray(X), np.asarray(expected), atol=1e-14)


def test_held_covariates_with_several_inputs():
    fourier = FourierEval(3, ndim=2)
    x, y = rng(1).random((2, 60))
    fine = rng(2).random(N)
    expected = fourier.compute_features(np.repeat(x, 10), np.repeat(y, 10))
    held = fourier.compute_features(hold(x, N, every=10), hold(y, N, every=10))
    assert isinstance(held.blocks[0], SlowColumns)
    np.testing.assert_allclose(np.asarray(held), np.asarray(expected), atol=1e-13)
    for other, dense in (
        (fine, fine),
        (hold(y[:30], N, every=20), np.repeat(y[:30], 20)),
    ):
        mixed = fourier.compute_features(hold(x, N, every=10), other)
        assert isinstance(mixed.blocks[0], DenseColumns)
        expected = fourier.compute_features(np.repeat(x, 10), dense)
        np.testing.assert_allclose(np.asarray(mixed), np.asarray(expected), atol=1e-13)

    with pytest.raises(
        ValueError, match=r"shapes \[\(597,\), \(600,\)\]; a product needs the same"
    ):
        fourier.compute_features(hold(x, N, every=10), hold(y, N - 3, every=10))


def test_a_fit_with_an_integer_covariate():
    counts, x = poisson_counts(), rng(1).integers(-3, 4, N)
    history = HistoryConv(3).compute_features(counts)
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-3)
    expected = clone(model).fit(hstack([history, x.astype(float)]), counts).coef_
    for given in (x, x.astype(np.int8), hold(x, N, every=1)):
        coef = model.fit(hstack([history, given]), counts).coef_
        np.testing.assert_allclose(coef, expected, atol=1e-12)


def test_a_sum_takes_counts_and_a_held_covariate():
    counts, speed = poisson_counts(), rng(1).random(60)
    total = RaisedCosineLogConv(3, 8) + BSplineEval(4, label="speed")
    X = total.compute_features(counts, hold(speed, N, every=10), epochs=[[0, 200], [250, N]])
    expected = total.compute_features(counts, speed.repeat(10), epochs=[[0, 200], [250, N]])
    np.testing.assert_allclose(np.asarray(X), np.asarray(expected), atol=1e-14)
    assert not X.valid[200:258].any()
    assert X.labels == ["RaisedCosineLogConv", "speed"]


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"n_bins": 100}, "hold takes exactly one of"),
        ({"n_bins": 100, "every": 10, "starts": np.arange(10)}, "hold takes exactly one of"),
        ({"every": 10}, "n_bins is None; expected the number of bins"),
        ({"n_bins": 10.5, "every": 1}, "n_bins is 10.5; expected the number of bins"),
        ({"n_bins": 100, "every": 0.5}, "every is 0.5; expected the bins from one sample"),
        ({"n_bins": 100, "every": np.nan}, "every is nan; expected the bins from one sample"),
        ({"n_bins": 100, "every": 5}, r"10 samples, one every 5 bins, .* Pass every=10, or"),
        ({"n_bins": 100, "starts": np.arange(9)}, "starts has 9 entries for 10 samples"),
        ({"n_bins": 100, "starts": np.zeros(10)}, "ascending without repetition"),
        ({"n_bins": 100, "starts": np.arange(10) / 3}, "expected whole numbers in one dim"),
        ({"n_bins": 100, "samples": np.zeros(99)}, "samples has 99 entries; expected one for"),
        ({"samples": np.arange(12)}, "samples holds numbers from 0 to 11; values has samples 0 to"),
        ({"samples": [-2]}, "samples holds numbers from -2 to -2"),
        ({"samples": []}, "samples has 0 entries; expected one for each of the bins"),
    ],
)
def test_hold_says_what_it_wants(kwargs, match):
    with pytest.raises(ValueError, match=match):
        hold(np.arange(10.0), **kwargs)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (3.0, r"values have shape \(\); expected \(n_samples, ...\)"),
        (np.zeros((0, 2)), r"values have shape \(0, 2\)"),
    ],
)
def test_hold_reads_numbers(values, match):
    with pytest.raises(ValueError, match=match):
        hold(values, 10, every=10)


def test_a_sample_begins_in_its_bin_also_where_division_rounds():
    assert 309 / 10.3 < 30
    assert hold(np.arange(59.0), N, every=10.3)[308:310, 0].tolist() == [29, 30]


def test_hold_takes_a_sparse_array():
    values = rng().poisson(0.2, size=(6, 3))
    X = hold(scipy.sparse.csr_array(values), 12, every=2)
    np.testing.assert_array_equal(np.asarray(X), values.repeat(2, axis=0))


def test_rows_may_repeat():
    """Events share bins: two in bin 5 and none in bin 6 look like a range by their number."""
    X = FeatureMatrix([DenseColumns(np.arange(20.0)[:, None])])
    index = np.array([5, 5, 7])
    np.testing.assert_array_equal(X.rows(index)[:, 0], index)
    counts = np.zeros((20, 2))
    counts[[5, 5, 7], [0, 1, 0]] = 1
    sums = moments(X, X.valid, Events.of(counts))
    np.testing.assert_array_equal(sums.xty, [[12.0, 5.0]])


# --- products -------------------------------------------------------------------------------------


def products():
    counts, x, y = poisson_counts(), rng(1).random((N, 3)), rng(2).normal(size=(N, 3))
    x[30, 1], y[40, 2] = np.nan, np.inf
    held = hold(rng(3).random((60, 3)), N, every=10)
    yield "gain", RaisedCosineLogConv(3, 6) * BSplineEval(4), (counts, x)
    yield "dense", BSplineEval(4) * IdentityEval(), (x, y)
    yield "held", HistoryConv(3) * MSplineEval(4), (counts, held)
    yield "sum", (HistoryConv(2) + IdentityEval()) * BSplineEval(4), (counts, y, x)
    yield "three", HistoryConv(2) * IdentityEval() * BSplineEval(4), (counts, y, held)
    yield "one", BSplineEval(4) * FourierEval(2, ndim=2), (x[:, 0], y[:, 0], y[:, 2])


each_product = pytest.mark.parametrize(
    ("b", "inputs"), [case[1:] for case in products()], ids=[case[0] for case in products()]
)


def dense_product(b, inputs):
    """The features, from those of the factors."""
    if isinstance(b, AdditiveBasis | MultiplicativeBasis):
        n = b.basis1._n_inputs
        left, right = dense_product(b.basis1, inputs[:n]), dense_product(b.basis2, inputs[n:])
        if isinstance(b, AdditiveBasis):
            return np.concatenate([left, right], axis=2)
        return np.einsum("tij,tik->tijk", left, right).reshape(*left.shape[:2], -1)
    features = np.asarray(clone(b).compute_features(*inputs))  # a part has none of its own
    n_inputs = int(np.prod(b.input_shape[0], dtype=int))  # from compute_features of the whole
    return features.reshape(N, n_inputs, -1)


@each_product
def test_products_are_those_of_the_factors(b, inputs):
    X = b.compute_features(*inputs)
    with np.errstate(invalid="ignore"):
        expected = dense_product(b, inputs).reshape(N, -1)
    assert X.shape == expected.shape == (N, b.n_output_features)
    np.testing.assert_array_equal(X.valid, np.isfinite(expected).all(axis=1))
    finite = np.isfinite(expected)
    np.testing.assert_allclose(np.asarray(X)[finite], expected[finite], atol=1e-13)
    np.testing.assert_array_equal(np.isfinite(np.asarray(X)), finite)
    np.testing.assert_allclose(X[[7, 50, 50, 3]], np.asarray(X)[[7, 50, 50, 3]])
    known = expected[X.valid]
    assert (known[:, X.nonnegative] >= 0).all()
    rounding = 1e-9 * known.max(axis=0)
    lowest = np.where(known > rounding, known, np.inf).min(axis=0)
    assert (X.smallest_positive() <= lowest + 1e-15)[X.nonnegative].all()
    n_inputs = int(np.prod(b.input_shape[0], dtype=int))
    assert np.bincount(X.filters).tolist() == [X.shape[1] // n_inputs] * n_inputs


@each_product
def test_statistics_of_products(b, inputs):
    X = b.compute_features(*inputs)
    expected, counts = np.asarray(X)[X.valid], poisson_counts()
    np.testing.assert_allclose(column_sums(X, X.valid), expected.sum(axis=0), atol=1e-10)
    np.testing.assert_allclose(gram(X, X.valid), expected.T @ expected, atol=1e-9)
    sums = moments(X, X.valid, Events.of(counts))
    np.testing.assert_allclose(sums.xty, expected.T @ counts[X.valid], atol=1e-9)
    keep = np.zeros(X.shape[1], bool)
    keep[-1] = True
    part, index = X.select(keep)
    np.testing.assert_allclose(np.asarray(part)[X.valid], expected[:, index], atol=1e-14)
    assert part.shape[1] == X.shape[1] // int(np.prod(b.input_shape[0], dtype=int))


@each_path
@each_product
def test_fits_with_products(b, inputs, path):
    X, counts = b.compute_features(*inputs), poisson_counts()
    dense = np.asarray(X)
    mask = np.ones((X.shape[1], 3), bool)
    mask[:2, 1] = False
    models = [
        fastglm.PopulationGLM(
            regularizer="Ridge", regularizer_strength=1e-2, solver_name=path, feature_mask=mask
        ).fit(x, counts)
        for x in (X, dense)
    ]
    coef, rate = (1e-8, 1e-7) if path == "newton-cholesky" else (1.5e-7, 1e-6)
    # Sums are rounded differently: conjugate gradients end within sqrt(2 * 1e-16 / ridge).
    np.testing.assert_allclose(models[0].coef_, models[1].coef_, atol=coef)
    np.testing.assert_allclose(models[0].predict(X), models[1].predict(dense), rtol=rate)


def test_products_keep_their_factors_only():
    counts = rng().random((20_000, 10)) < 0.01
    speed = rng(1).random((20_000, 1)).repeat(10, axis=1)
    history = RaisedCosineLogConv(5, 100).compute_features(counts)
    covariate = BSplineEval(4).compute_features(speed)
    X = (RaisedCosineLogConv(5, 100) * BSplineEval(4)).compute_features(counts, speed)
    assert X.shape == (20_000, 200)
    assert X.nbytes <= history.nbytes + covariate.nbytes


def test_factors_need_inputs_of_the_same_shape():
    x = rng().random((20, 2))
    with pytest.raises(ValueError, match="a product needs the same shape in each"):
        (BSplineEval(4) * MSplineEval(4)).compute_features(x, x[:, 0])
    with pytest.raises(ValueError, match="a product needs the same shape in each"):
        (BSplineEval(4) * MSplineEval(4)).set_input_shape(2, 3)
    with pytest.raises(ValueError, match="have 20 and 19 samples; expected the same number"):
        (BSplineEval(4) * MSplineEval(4)).compute_features(x, x[1:])
    with pytest.raises(ValueError, match="a product needs the same shape in each"):
        FourierEval(3, ndim=2).compute_features(x, x[:, 0])


def test_two_bases_of_waves_are_not_multiplied():
    with pytest.raises(ValueError, match="Two bases of cosines and sines cannot be multiplied"):
        FourierEval(3) * (BSplineEval(4) * FourierEval(2))


def test_values_of_several_dimensions_are_not_multiplied_at_several_inputs():
    two = CustomBasis([lambda x: np.stack([x, x**2], axis=1)])
    x = rng().random((20, 2))
    assert (two * BSplineEval(4)).compute_features(x[:, 0], x[:, 1]).shape == (20, 8)
    with pytest.raises(ValueError, match="multiplies functions with values of several dimensions"):
        (two * BSplineEval(4)).compute_features(x, x)


# --- bases of covariates --------------------------------------------------------------------------


@each_eval
def test_clone_pickle_and_parameters(b):
    x = rng().random((50, 2))
    X = b.compute_features(x)
    copies = [clone(b)]
    if not isinstance(b, CustomBasis):
        copies.append(pickle.loads(pickle.dumps(b)))
    for copy in copies:
        assert copy is not b
        assert copy.n_output_features == b.n_output_features  # NeMoS's clones know their inputs
        np.testing.assert_array_equal(np.asarray(copy.compute_features(x)), np.asarray(X))
    assert type(b).__name__ in repr(b)
    again = type(b)(**b.get_params())
    np.testing.assert_array_equal(np.asarray(again.compute_features(x)), np.asarray(X))


@each_eval
def test_an_epoch_bounds_the_rows(b):
    x = rng().random(50)
    X = b.compute_features(x, epochs=[[0, 20], [30, 50]])
    expected = np.asarray(b.compute_features(x))
    expected[20:30] = np.nan
    np.testing.assert_array_equal(np.asarray(X), expected)
    assert X.valid.sum() == 40
    trials = b.compute_features([x[:20], x[20:]])
    np.testing.assert_array_equal(np.asarray(trials), np.asarray(b.compute_features(x)))


@each_eval
def test_samples_of_other_types(b):
    x = rng().poisson(3.0, size=(40, 2))
    expected = np.asarray(b.compute_features(x.astype(float)))
    for given in (x, x.astype(np.float32), scipy.sparse.csr_array(x), x.tolist()):
        np.testing.assert_array_equal(np.asarray(b.compute_features(given)), expected)


@each_eval
def test_a_constant_covariate_is_no_error(b):
    if not isinstance(b, OrthExponentialEval | CustomBasis):
        values = np.asarray(b.compute_features(np.full(9, 3.0)))
        assert np.isfinite(values).all()
        assert (values == values[0]).all()


@each_eval
def test_a_number_of_inputs_that_is_not_taken(b):
    with pytest.raises(TypeError, match=r"3 inputs for 1 bases; .* takes one input for each"):
        b.compute_features(*rng().random((3, 9)))


def test_a_column_without_a_finite_sample():
    x = rng().random((20, 2))
    x[:, 1] = np.nan
    X = np.asarray(BSplineEval(4).compute_features(x))
    assert np.isfinite(X[:, :4]).all()
    assert np.isnan(X[:, 4:]).all()
    with pytest.raises(ValueError, match="hold no finite number; a range needs one"):
        BSplineEval(4).compute_features(x[:, 1])
    assert np.isnan(np.asarray(BSplineEval(4, bounds=(0, 1)).compute_features(x[:, 1]))).all()


@pytest.mark.parametrize("value", [(1, 0), (1, 1), (0, np.nan), (0, 1, 2)])
def test_bounds_are_a_pair(value):
    with pytest.raises(ValueError, match=r"bounds is .*; expected a pair of numbers, low < high"):
        BSplineEval(4, bounds=value)


@pytest.mark.parametrize("value", ["ab", 3, ("x", 1), (None, 1), (0, None)])
def test_bounds_are_numbers(value):
    with pytest.raises(TypeError, match=r"bounds is .*; expected a pair of numbers, low < high"):
        BSplineEval(4, bounds=value)


@pytest.mark.parametrize(
    ("x", "error", "match"),
    [
        (["a", "b"], TypeError, "Samples could not be read as numbers"),
    ],
)
def test_samples_that_cannot_be_read(x, error, match):
    with pytest.raises(error, match=match):
        BSplineEval(4).compute_features(x)


def test_a_number_is_one_sample():
    for b in (BSplineEval(4, bounds=(0, 5)), RaisedCosineLogConv(2, window_size=2)):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "1 of 1 epochs are shorter")
            one, many = (np.asarray(b.compute_features(x)) for x in (3.0, np.array([3.0])))
        np.testing.assert_array_equal(one, many)


def test_evaluate_says_what_it_wants():
    total, x = BSplineEval(4) + MSplineEval(4), rng().random((9, 2))
    with pytest.raises(ValueError, match=r"shapes \[\(9,\), \(8,\)\]; expected the same shape"):
        total.evaluate(x[:, 0], x[1:, 0])
    with pytest.raises(ValueError, match=r"shapes \[\(9, 2\), \(9,\)\]; expected the same shape"):
        total.evaluate(x, x[:, 0])


@pytest.mark.parametrize("value", [-1, (3, 1), (-1, 2), np.array([1.5])])
def test_frequencies_are_not_negative_and_whole(value):
    with pytest.raises(ValueError, match=r"frequencies holds .*; expected a number k >= 0"):
        FourierEval(value)


@pytest.mark.parametrize("value", [2.5, [0.5], "ab", (1, 2.0)])
def test_frequencies_are_integers(value):
    with pytest.raises(TypeError, match=r"frequencies holds .*; expected a number k >= 0"):
        FourierEval(value)


def test_a_number_of_dimensions_is_no_text():
    with pytest.raises(TypeError, match="ndim is 'a'; expected a positive integer"):
        FourierEval(3, ndim="a")


def test_other_frequencies_that_do_not_fit():
    with pytest.raises(ValueError, match="frequencies is a list of 3; expected one entry for"):
        FourierEval([1, 2, 3], ndim=2)
    with pytest.raises(ValueError, match="bounds holds 2 pairs; expected one for each of the 1"):
        FourierEval(3, bounds=[(0, 1), (0, 1)])
    with pytest.raises(ValueError, match=r"frequency_mask gives an array of shape \(2,\)"):
        FourierEval(3, frequency_mask=[0, 1])
    with pytest.raises(ValueError, match="frequency_mask gives an array of shape"):
        FourierEval(3, frequency_mask=lambda f: 2 * f)
    with pytest.raises(ValueError, match="frequency_mask is 'some'; expected 'no-intercept'"):
        FourierEval(3, frequency_mask="some")
    with pytest.warns(UserWarning, match="frequencies are not ascending; they are sorted"):
        assert FourierEval(np.array([3, 1])).frequencies[0].tolist() == [1, 3]


def test_custom_bases_that_cannot_be_read():
    with pytest.raises(ValueError, match=r"funcs is \[3\]; expected functions"):
        CustomBasis([3])
    with pytest.raises(ValueError, match=r"The functions take \[1, 2\] inputs; expected the same"):
        CustomBasis([lambda x: x, lambda x, y: x])
    with pytest.raises(ValueError, match="return 3 rows for 9 samples"):
        CustomBasis([lambda x: x[:3]]).compute_features(np.arange(9))
    image = CustomBasis([lambda x: x.mean(axis=(1, 2))], ndim_input=3)
    with pytest.raises(ValueError, match=r"have shape \(9, 2\); expected at least ndim_input = 3"):
        image.compute_features(np.ones((9, 2)))
    with pytest.raises(ValueError, match="takes inputs of 3 axes, which have no grid"):
        image.evaluate_on_grid(5)


def test_functions_of_images():
    images = rng().random((20, 4, 3, 2))
    image = CustomBasis([lambda x: x.mean(axis=(1, 2)), lambda x: x.max(axis=(1, 2))], ndim_input=3)
    X = image.compute_features(images)
    assert image.split_by_feature(X)["CustomBasis"].shape == (20, 2, 2)
    np.testing.assert_allclose(X[:, 1], images[..., 0].max(axis=(1, 2)))
    with pytest.warns(UserWarning, match=r"were told inputs of shapes \[\(\), \(2,\)\]"):
        product = image * BSplineEval(4)  # it was given two images a sample, and is given one
    values = product.compute_features(images[..., 0], rng(1).random(20))
    assert values.shape == (20, 8)


def test_an_identity_keeps_the_values():
    x = rng().normal(size=(30, 2))
    np.testing.assert_array_equal(np.asarray(IdentityEval().compute_features(x)), x)


def test_nothing_cannot_be_fitted():
    X = Zero().compute_features(np.arange(9))
    assert X.shape == (9, 0)
    with pytest.raises(ValueError, match=r"X has shape \(9, 0\); expected at least one feature"):
        fastglm.GLM().fit(X, np.ones(9))


def test_nothing_beside_something_changes_nothing():
    x, y = rng().random(N), poisson_counts()[:, 0]
    X = (Zero() + BSplineEval(5)).compute_features(x, x)
    model = fastglm.GLM(regularizer="Ridge", regularizer_strength=1e-3)
    expected = clone(model).fit(BSplineEval(5).compute_features(x), y)
    np.testing.assert_allclose(model.fit(X, y).coef_, expected.coef_, atol=1e-12)


# --- trees ----------------------------------------------------------------------------------------


def test_parts_are_found_by_label():
    total = HistoryConv(3, label="history") + BSplineEval(4) * MSplineEval(5)
    assert total["history"].window_size == 3
    assert isinstance(total["(BSplineEval * MSplineEval)"], MultiplicativeBasis)
    assert total["MSplineEval"].n_basis_funcs == 5
    assert [b.label for b in total] == ["history", "(BSplineEval * MSplineEval)"]
    assert len(total) == 2
    assert BSplineEval(4)["BSplineEval"].n_basis_funcs == 4
    with pytest.raises(IndexError, match=r"No basis has the label 'x'; there are \['"):
        total["x"]
    with pytest.raises(IndexError, match="A basis is indexed with labels, not with 0"):
        total[0]


@pytest.mark.parametrize("operation", [lambda b: b * 1.5, lambda b: b + 1, lambda b: b * True])
def test_what_is_no_arithmetic_of_bases(operation):
    with pytest.raises(TypeError, match="unsupported operand"):
        operation(BSplineEval(4))


def test_repetitions_that_make_no_sense():
    with pytest.raises(TypeError, match=r"The exponent of a basis is .*; expected an integer"):
        BSplineEval(4) ** 1.5
    with pytest.raises(ValueError, match="cannot be repeated 0 times; expected at least 1"):
        BSplineEval(4) * 0
    with pytest.raises(ValueError, match=r"with the labels \['a'\] cannot be repeated"):
        BSplineEval(4, label="a") ** 2
    with pytest.raises(TypeError, match="basis1 is 3; expected a basis"):
        AdditiveBasis(3, BSplineEval(4))


def test_parameters_by_label_say_what_there_is():
    total = BSplineEval(4, label="a") + BSplineEval(5)
    with pytest.raises(ValueError, match=r"has no parameter 'b__order'; there are \['BSplineEval'"):
        total.set_params(b__order=2)
    with pytest.raises(TypeError, match="a cannot be set to 3; expected a basis"):
        total.set_params(a=3)
    total.set_params(a__order=2, a__n_basis_funcs=2, label="both")
    assert (total["a"].order, total.label) == (2, "both")
    total.set_params(basis2=MSplineEval(6), a=CyclicBSplineEval(7))
    assert [b.label for b in total] == ["a", "MSplineEval"]
    assert total.get_params(deep=False)["label"] == "both"
    assert "both" in repr(total)


def test_a_part_that_is_replaced_keeps_its_input():
    total = BSplineEval(4, label="a") + BSplineEval(5)
    total.set_input_shape(2, 3)
    total.set_params(a=MSplineEval(6))
    assert total.n_output_features == 2 * 6 + 3 * 5


def test_composites_can_be_cloned_and_pickled():
    total = HistoryConv(3, label="h") + BSplineEval(4) * MSplineEval(5)
    x = rng().random(30)
    X = total.compute_features(poisson_counts(30), x, x)
    for copy in (clone(total), pickle.loads(pickle.dumps(total))):
        assert copy.n_output_features == total.n_output_features
        np.testing.assert_array_equal(
            np.asarray(copy.compute_features(poisson_counts(30), x, x)), np.asarray(X)
        )


# --- pipelines ------------------------------------------------------------------------------------


def test_a_search_over_the_basis_and_the_strength():
    x = rng().uniform(size=(400, 1))
    y = rng(1).poisson(np.exp(np.sin(7 * x[:, 0])))
    pipeline = Pipeline(
        [
            ("basis", RaisedCosineLinearEval(4, bounds=(0, 1)).to_transformer()),
            ("glm", fastglm.GLM(regularizer="Ridge")),
        ]
    )
    grid = {"basis__n_basis_funcs": [2, 6], "glm__regularizer_strength": [1e-3, 10.0]}
    search = GridSearchCV(pipeline, grid, cv=KFold(3)).fit(x, y)
    assert search.best_params_ == {"basis__n_basis_funcs": 6, "glm__regularizer_strength": 1e-3}
    assert search.predict(x).shape == (400,)
    scores = []
    for train, test in KFold(3).split(x):
        b = RaisedCosineLinearEval(6, bounds=(0, 1))
        model = fastglm.GLM(regularizer="Ridge", regularizer_strength=1e-3)
        model.fit(b.compute_features(x[train, 0]), y[train])
        scores.append(model.score(b.compute_features(x[test, 0]), y[test]))
    assert search.best_score_ == pytest.approx(np.mean(scores), abs=1e-12)


def test_a_search_over_the_bases_themselves_for_a_population():
    counts = poisson_counts(300)
    x = np.hstack([counts, rng(1).random((300, 1))])
    total = RaisedCosineLogConv(2, 5, label="coupling") + BSplineEval(4, label="speed")
    pipeline = Pipeline(
        [
            ("basis", total.set_input_shape(3, 1).to_transformer()),
            ("glm", fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-2)),
        ]
    )
    grid = {"basis__speed": [Zero(), MSplineEval(5)], "basis__coupling__n_basis_funcs": [2, 3]}
    search = GridSearchCV(pipeline, grid, cv=KFold(2)).fit(x, counts)
    best = search.best_estimator_["basis"]
    assert best.n_output_features == search.best_estimator_["glm"].coef_.shape[0]
    assert [b.label for b in best] == ["coupling", "speed"]


def test_a_transformer_shows_its_basis():
    transformer = BSplineEval(5, label="a").to_transformer()
    assert transformer.n_basis_funcs == 5
    transformer.n_basis_funcs = 6
    assert transformer.basis.n_basis_funcs == 6
    assert transformer.set_params(order=3) is transformer
    assert transformer.get_params(deep=False) == {"basis": transformer.basis}
    assert transformer.get_params()["order"] == 3
    assert TransformerBasis(transformer).basis.order == 3
    with pytest.raises(ValueError, match="a has no attribute 'orders' that could be set"):
        transformer.orders = 3
    with pytest.raises(AttributeError, match="orders"):
        _ = transformer.orders
    with pytest.raises(ValueError, match="not both"):
        transformer.set_params(basis=MSplineEval(5), order=3)
    with pytest.raises(TypeError, match="basis is 3; expected a basis"):
        transformer.set_params(basis=3)
    assert transformer.set_params(basis=MSplineEval(7)).n_basis_funcs == 7
    again = pickle.loads(pickle.dumps(transformer))
    assert again.n_basis_funcs == clone(transformer).n_basis_funcs == 7
    assert "MSplineEval" in repr(transformer)


def test_arithmetic_of_transformers():
    a, b = BSplineEval(4).to_transformer(), MSplineEval(5)
    for result, n in ((a + b, 9), (b + a, 9), (a * b, 20), (b * a, 20), (a * 2, 8), (a**2, 16)):
        assert isinstance(result, TransformerBasis)
        assert result.n_basis_funcs == n
    both = a + b
    assert isinstance(both["MSplineEval"], TransformerBasis)
    assert [t.label for t in both] == ["BSplineEval", "MSplineEval"]
    assert len(both) == 2


def test_a_transformer_wants_its_columns():
    transformer = (BSplineEval(4) + HistoryConv(2)).set_input_shape((2, 2), 3).to_transformer()
    x = rng().random((20, 7))
    assert transformer.fit_transform(x).shape == (20, 4 * 4 + 3 * 2)
    assert transformer.transform(scipy.sparse.csr_array(x)).shape == (20, 22)
    for bad in (x[:, :6], x[:, 0]):
        with pytest.raises(ValueError, match=r"expected \(n_bins, 7\), the inputs of .* side by"):
            transformer.fit(bad)
    assert transformer.set_input_shape(1, 1).fit(x[:, :2]) is transformer


def test_every_public_basis_has_an_example_or_a_sibling_with_one():
    for name in basis.__all__:
        assert "----------" in getattr(basis, name).__doc__


def test_events_and_held_features_give_different_keys(tmp_path):
    """A checkpoint knows the runs of a slow covariate, not only its values."""
    counts, values = poisson_counts(), rng(1).normal(size=60)
    path = tmp_path / "fit.npz"
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-3)
    model.fit(hold(values, N, every=10), counts, checkpoint=path)
    other = hold(values, samples=rng(2).permutation(60).repeat(10))
    with pytest.raises(ValueError, match="is a checkpoint of other data or settings"):
        model.fit(other, counts, checkpoint=path)


def test_the_arrays_of_a_product_are_those_of_its_factors():
    dense, history = DenseColumns(np.ones((4, 2))), HistoryColumns(np.ones((4, 1)), np.eye(2))
    shape, *arrays = ProductColumns([dense], [history], 1).arrays()
    np.testing.assert_array_equal(shape, [1, 1])  # inputs, and blocks of the left factor
    assert len(arrays) == 5
