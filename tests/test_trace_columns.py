"""Dense senders: a history of values gives what the stored array and the events give."""

import tracemalloc

import naive
import numba
import numpy as np
import pytest

import fastglm
from fastglm._batches.checkpoint import fingerprint
from fastglm._batches.fit import key_of
from fastglm._inputs import read_problem
from fastglm._kernels.convolve import convolution_bands, convolve, convolve_apart
from fastglm._products.local import Local
from fastglm.basis import BSplineEval, HistoryConv, RaisedCosineLogConv
from fastglm.connectivity import population_activity
from fastglm.features import (
    DenseColumns,
    Events,
    FeatureMatrix,
    HistoryColumns,
    ProductColumns,
    TraceColumns,
    Traces,
    hstack,
)
from fastglm.inference import score_test
from fastglm.report import write_report

BASIS = RaisedCosineLogConv(3, window_size=8)
FAMILIES = ("Poisson", "Bernoulli", "Gaussian")
CAUSALITIES = ("causal", "anti-causal", "acausal")


def traces(n_bins=1500, n_senders=4, seed=0, mean=0.0):
    """Slow traces with noise, in multiples of 2^-10, so that large means are added exactly."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n_bins, n_senders))
    for t in range(1, n_bins):
        values[t] += 0.8 * values[t - 1]
    return np.round(values * 1024) / 1024 + mean


def holed(values, seed=1):
    """The traces with single values and a stretch that are not known."""
    values = values.copy()
    values[np.random.default_rng(seed).random(values.shape) < 0.003] = np.nan
    values[len(values) // 2 :][:20, 1] = np.nan
    values[len(values) // 3, 0] = np.inf
    return values


def by_events(X):
    """The same features from events."""
    return FeatureMatrix([c.by_events() for c in X.blocks])


def responses(X, family, n=3, seed=2):
    """Data of a family that depend on the features."""
    rng = np.random.default_rng(seed)
    rows = np.nan_to_num(np.asarray(X))
    rows -= rows[X.valid].mean(axis=0)
    eta = rows @ rng.normal(scale=0.3 / rows.std() / np.sqrt(rows.shape[1]), size=(X.shape[1], n))
    draw = {
        "Poisson": lambda: rng.poisson(np.exp(eta - 1)),
        "Bernoulli": lambda: rng.random(eta.shape) < 1 / (1 + np.exp(-eta)),
        "Gaussian": lambda: 5 + eta + rng.normal(size=eta.shape),
    }
    return draw[family]().astype(float)


def ridge(family, **kwargs):
    args = {"regularizer": "Ridge", "regularizer_strength": 1e-3, "solver_kwargs": {"tol": 1e-20}}
    return fastglm.PopulationGLM(family, **{**args, **kwargs})


# --- values ---


@pytest.mark.parametrize("mean", [0.0, 3e4])
@pytest.mark.parametrize("causality", CAUSALITIES)
@pytest.mark.parametrize(
    ("n_bins", "n_senders", "window_size", "n_funcs"),
    [(60, 3, 6, 2), (200, 1, 31, 3), (90, 130, 3, 1), (40, 2, 60, 3), (700, 2, 4, 4)],
)
def test_rows_are_those_of_the_formula(n_bins, n_senders, window_size, n_funcs, causality, mean):
    rng = np.random.default_rng(n_bins)
    values, kernel = traces(n_bins, n_senders, mean=mean), rng.normal(size=(window_size, n_funcs))
    shift = naive.window_shift(window_size, causality)
    expected = naive.features(values, kernel, shift=shift)
    complete = np.isfinite(expected).all(axis=1)
    block = TraceColumns(values, kernel, shift, complete=complete)
    X = FeatureMatrix([block])
    np.testing.assert_array_equal(X.valid, complete)
    size = 1 + np.abs(values).max() * np.abs(kernel).sum()
    np.testing.assert_allclose(np.asarray(X), expected, rtol=0, atol=1e-15 * size)
    some = np.sort(rng.integers(0, n_bins, 9))  # with repetitions
    for index in (some, np.arange(n_bins)[3:-2], some[[0, -1]], some[:1], some[:0]):
        for dtype, digits in ((np.float64, 1e-15), (np.float32, 1e-6)):
            out = np.empty((index.size, X.shape[1]), dtype)
            block.rows(index, out)
            known = complete[index]
            np.testing.assert_allclose(out[known], expected[index][known], atol=digits * size)
            assert np.isfinite(out).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int16, np.uint8])
def test_numbers_of_every_dtype_are_kept_as_they_are(dtype):
    values = np.random.default_rng(0).integers(1, 200, (300, 3)).astype(dtype)
    X = BASIS.compute_features(values)
    assert X.blocks[0].values.dtype == dtype
    assert X.nbytes < values.nbytes + 10 * len(values)
    expected = naive.features(values, BASIS.kernel_)
    np.testing.assert_allclose(np.asarray(X), expected, rtol=1e-13, atol=1e-12)


def test_the_matrix_does_not_change_with_the_array_it_was_made_of():
    values = traces(200)
    X = BASIS.compute_features(values)
    before = np.asarray(X)
    values[:] = 0
    np.testing.assert_array_equal(np.asarray(X), before)
    values = traces(200)
    values.flags.writeable = False  # such as a memory map that is read
    assert np.shares_memory(BASIS.compute_features(values).blocks[0].values, values)


def test_density_alone_decides():
    values = np.zeros((40, 2))
    values[:20] = 0.5
    assert isinstance(BASIS.compute_features(values).blocks[0], HistoryColumns)
    values[20, 0] = np.nan
    assert isinstance(BASIS.compute_features(values).blocks[0], TraceColumns)
    assert isinstance(BASIS.compute_features(Events.of(values)).blocks[0], HistoryColumns)


@pytest.mark.parametrize("causality", CAUSALITIES)
def test_gaps_and_epochs_hide_the_rows_that_see_them(causality):
    values, epochs = holed(traces(400)), np.array([[0, 150], [150, 160], [170, 400]])
    basis = RaisedCosineLogConv(3, 12, conv_kwargs={"predictor_causality": causality})
    with pytest.warns(UserWarning, match="1 of 3 epochs are shorter"):
        X = basis.compute_features(values, epochs=epochs)
    shift = naive.window_shift(12, causality)
    known = np.where(np.isfinite(values), values, np.nan)
    expected = naive.features(known, basis.kernel_, epochs, shift)
    np.testing.assert_allclose(np.asarray(X), expected, atol=1e-12)
    np.testing.assert_array_equal(X.valid, np.isfinite(expected).all(axis=1))
    index = np.array([20, 21, 130, 260, 399])
    np.testing.assert_allclose(X[index], expected[index], atol=1e-12)
    events = by_events(X)
    np.testing.assert_array_equal(events.valid, X.valid)
    np.testing.assert_allclose(np.asarray(events), np.asarray(X), atol=1e-12)


def test_a_product_of_bases_takes_traces():
    values, place = holed(traces(300, 2))[:, :1], np.linspace(0, 1, 300)[:, None]
    X = (RaisedCosineLogConv(3, 8) * BSplineEval(4)).compute_features(values, place)
    history, rows = BASIS.compute_features(values), BSplineEval(4).compute_features(place)
    expected = np.asarray(history)[:, :, None] * np.asarray(rows)[:, None]
    np.testing.assert_allclose(np.asarray(X), expected.reshape(300, -1), atol=1e-12)


@pytest.mark.parametrize("n_senders", [1, 7])
def test_blocks_of_a_convolution_are_the_formula(n_senders):
    rng = np.random.default_rng(0)
    samples, kernel = rng.normal(size=(150, n_senders)), rng.normal(size=(11, 3))
    expected = naive.history(samples, kernel)[11:]
    bands = convolution_bands(kernel, n_senders, np.float64)
    out = np.empty((139, n_senders * 3))
    convolve(samples[:-1], bands, 11, out)
    np.testing.assert_allclose(out, expected, atol=1e-13)
    at = np.array([0, 50, 138])
    out = np.empty((3, n_senders * 3))
    convolve_apart(samples[at[:, None] + np.arange(11)], bands, out)
    np.testing.assert_allclose(out, expected[at], atol=1e-13)


# --- what is known of the columns ---


def test_signs_and_least_values_are_those_of_the_events():
    values = np.abs(traces(300)) + 0.01
    values[:, 1] -= 1
    values[5, 2] = np.nan
    X = HistoryConv(3).compute_features(values)
    np.testing.assert_array_equal(X.nonnegative, by_events(X).nonnegative)
    least, expected = X.smallest_positive(), by_events(X).smallest_positive()
    positive = X.nonnegative
    np.testing.assert_allclose(least[positive], expected[positive])
    centred, _ = HistoryConv(3).compute_features(values + 100).centred()
    assert not centred.nonnegative.any()


def test_a_history_is_that_of_the_same_cells_in_any_form():
    values = traces(600, 3, mean=4)
    block = BASIS.compute_features(values).blocks[0]
    hole = holed(values)
    hole[~np.isfinite(hole)] = np.nan
    for y in (values, 3 * values - 1, hole):
        assert block.is_history_of(Traces(y))
    for y in (values[:, ::-1], values[:-1], traces(600, 3, seed=5)):
        assert not block.is_history_of(Traces(y))
    counts = np.random.default_rng(0).poisson(2.0, (600, 3))
    block = BASIS.compute_features(counts).blocks[0]
    assert isinstance(block, TraceColumns)
    assert block.is_history_of(Events.of(np.minimum(counts, 1)))
    assert not block.is_history_of(Events.of(counts[:, ::-1]))


def test_activity_of_the_population_takes_dense_counts():
    counts = np.random.default_rng(0).poisson(1.5, (4000, 3))
    dense, _ = population_activity(counts, 0.01, timescales=(0.1, 2.0))
    events, _ = population_activity(Events.of(counts), 0.01, timescales=(0.1, 2.0))
    np.testing.assert_allclose(np.asarray(dense), np.asarray(events), atol=1e-12)


def test_the_key_of_a_checkpoint_holds_the_values():
    values = traces(300)
    y, keys = responses(BASIS.compute_features(values), "Gaussian"), set()
    for at in (0, 1):
        values[at, 0] += 1
        model = ridge("Gaussian")
        problem = read_problem(model, BASIS.compute_features(values), y)
        rest = problem.free, problem.penalty, None, problem.settings
        keys.add(key_of(problem.X, problem.observed, *rest))
    assert len(keys) == 2


def test_the_key_of_a_checkpoint_holds_the_senders():
    """Parts of a matrix share the values of all senders."""
    X, keys = BASIS.compute_features(traces(300)), set()
    y = responses(X, "Gaussian")
    for part in (X[:, :6], X[:, 6:], X[:, :3], X[:, 3:6], X[:, 9:]):
        problem = read_problem(ridge("Gaussian"), part, y)
        rest = problem.free, problem.penalty, None, problem.settings
        keys.add(key_of(problem.X, problem.observed, *rest))
    assert len(keys) == 5


def test_the_key_of_a_checkpoint_holds_the_factors_of_a_product():
    blocks = [DenseColumns(np.full((5, 2), float(k))) for k in range(3)]
    ways = (blocks[:1], blocks[1:], 1), (blocks[:2], blocks[2:], 1), (blocks[:1], blocks[1:], 2)
    assert len({fingerprint(*ProductColumns(*way).arrays()) for way in ways}) == 3


# --- products ---


@pytest.mark.parametrize("mean", [0.0, 50.0])
@pytest.mark.parametrize("select", [False, True])
def test_products_are_those_of_the_stored_rows(mean, select):
    rng = np.random.default_rng(0)
    spikes = rng.poisson(0.1, (9000, 2))
    X = hstack([BASIS.compute_features(holed(traces(9000, 13, mean=mean))),
                RaisedCosineLogConv(2, 10).compute_features(spikes)])  # fmt: skip
    X, _ = X.centred()
    if select:
        X, index = X.select(rng.random(X.shape[1]) < 0.1)
        assert 3 <= X.shape[1] == index.size < 30
        assert X.blocks[0].values.shape == (9000, 13)  # not copied
    rows = np.where(X.valid[:, None], np.nan_to_num(np.asarray(X)), 0.0)
    products, n = Local(X), 5
    values, weight = rng.normal(size=(9000, n)), rng.random(9000)
    for found, expected in (
        (products.gram(), rows.T @ rows),
        (products.gram(weight), rows.T @ (weight[:, None] * rows)),
        (products.project(values), rows.T @ values),
        (products.column_sums(), rows.sum(axis=0)),
        (products.column_sums(weight), weight @ rows),
    ):
        size = 1e-12 * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=size)
    coef = rng.normal(size=(X.shape[1], n))
    for lanes in (1, 16):
        passes = products.passes(n, lanes)
        for precise, digits in ((True, 1e-14), (False, 1e-5)):
            eta = np.concatenate([chunk.eta.copy() for chunk in passes.forward(coef, precise)])
            expected = rows @ coef
            size = digits * np.abs(expected).max()
            np.testing.assert_allclose(eta[X.valid], expected[X.valid], rtol=0, atol=size)
    assert products.activity.shape == (9000,)
    assert products.activity.mean() == pytest.approx(1, rel=1e-5)


# --- fits ---


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("solver_name", ["auto", "newton-cg", "newton-cholesky"])
def test_a_fit_is_that_of_the_stored_array_and_of_the_events(family, solver_name):
    epochs = np.array([[0, 600], [600, 1500]])
    X = BASIS.compute_features(holed(traces()), epochs=epochs)
    rng, y = np.random.default_rng(3), responses(X, family)
    y[700, 0] = np.nan
    weight, offset = rng.random(1500), 0.1 * rng.normal(size=(1500, 1))
    mask = np.ones((12, 3), bool)
    mask[3:, 1] = False  # one sender, and a mask of its own
    mask[4, 2] = False
    model = ridge(family, feature_mask=mask, solver_name=solver_name)
    given = {"sample_weight": weight, "offset": offset}
    model.fit(X, y, **given)
    assert (model.status_ == "converged").all()
    for other in (np.asarray(X), by_events(X)):
        theirs = ridge(family, feature_mask=mask, solver_name=solver_name)
        theirs.fit(other, y, **given)
        np.testing.assert_allclose(model.coef_, theirs.coef_, atol=1e-8)
        np.testing.assert_allclose(model.intercept_, theirs.intercept_, atol=1e-8)
        np.testing.assert_allclose(model.objective_, theirs.objective_, rtol=1e-12)
        predicted = model.predict(X, offset=offset), theirs.predict(other, offset=offset)
        np.testing.assert_allclose(*predicted, rtol=1e-7)
        scores = model.score(X, y, offset=offset), theirs.score(other, y, offset=offset)
        np.testing.assert_allclose(*scores, rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("regularizer", [None, "Lasso", "GroupLasso"])
def test_every_penalty_takes_traces(family, regularizer):
    X = BASIS.compute_features(traces())
    y, strength = responses(X, family), None if regularizer is None else 0.01
    args = {"regularizer": regularizer, "regularizer_strength": strength}
    model, theirs = ridge(family, **args).fit(X, y), ridge(family, **args).fit(by_events(X), y)
    np.testing.assert_allclose(model.objective_, theirs.objective_, rtol=1e-11)
    np.testing.assert_allclose(model.coef_, theirs.coef_, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_couplings_and_errors_are_those_of_the_events(family):
    X = BASIS.compute_features(traces())
    y = responses(X, family)
    mask = np.ones((12, 3), bool)
    mask[6:] = False
    model = ridge(family, feature_mask=mask).fit(X, y)
    own, theirs = model.coupling_map(X, y), model.coupling_map(by_events(X), y)
    for name in ("strength", "standard_error", "p_value"):
        np.testing.assert_allclose(getattr(own, name), getattr(theirs, name), rtol=1e-6)
    tested = [score_test(model, x, y).p_value for x in (X, by_events(X))]
    np.testing.assert_allclose(*tested, rtol=1e-4)  # their information is summed in float32


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("solver_name", ["auto", "newton-cg", "newton-cholesky"])
@pytest.mark.parametrize("mean", [1e6, 2.0**30])
def test_a_large_mean_takes_no_digits(family, solver_name, mean):
    """Raw counts of a converter: the standard deviation is 1.7, and the mean up to 1e9."""
    X = BASIS.compute_features(traces())
    y = responses(X, family)
    model, far = (ridge(family, solver_name=solver_name) for _ in range(2))
    model.fit(X, y)
    moved = BASIS.compute_features(traces() + mean * np.array([1, -1, 1, 0]))
    far.fit(moved, y)
    assert (far.status_ == "converged").all()
    np.testing.assert_allclose(far.coef_, model.coef_, atol=1e-8)
    np.testing.assert_allclose(far.objective_, model.objective_, rtol=1e-11)
    moved_by = np.repeat(mean * np.array([1, -1, 1, 0]), 3) * np.tile(BASIS.kernel_.sum(axis=0), 4)
    expected = model.intercept_ - moved_by @ model.coef_
    np.testing.assert_allclose(far.intercept_, expected, rtol=0, atol=1e-8 * mean)
    np.testing.assert_allclose(far.predict(moved), model.predict(X), rtol=1e-14 * mean + 1e-6)


def test_a_trace_that_begins_late_keeps_its_digits():
    values = traces(9000, 2) + 2.0**30
    late = values.copy()
    late[:5000, 0] = np.nan  # the first block of bins has no number of it
    block = BASIS.compute_features(late).blocks[0]
    np.testing.assert_allclose(block.mean[0], values[5000:, 0].mean(), rtol=1e-15)
    np.testing.assert_allclose(block.spread[0], values[5000:, 0].std(), rtol=1e-6)


def test_a_constant_trace_gets_no_coefficient():
    values = traces(mean=2)
    values[:, 2] = 0.1
    X = BASIS.compute_features(values)
    rows = np.asarray(X)[X.valid][:, 6:9]
    np.testing.assert_array_equal(rows, np.broadcast_to(rows[0], rows.shape))
    model = fastglm.PopulationGLM("Gaussian").fit(X, responses(X, "Gaussian"))
    assert (model.coef_[6:9] == 0).all()
    assert (model.status_ == "converged").all()


@pytest.mark.slow
def test_a_receiver_has_the_same_bits_in_company_and_alone():
    X = BASIS.compute_features(traces(3000, 6))
    y = responses(X, "Poisson", n=20)
    model = ridge("Poisson", solver_name="newton-cg").fit(X, y)
    alone = ridge("Poisson", solver_name="newton-cg").fit(X, y[:, 4:8])
    np.testing.assert_array_equal(model.coef_[:, 4:8], alone.coef_)


def test_one_thread_and_several_have_the_same_bits():
    X, before, found = BASIS.compute_features(traces(9000, 20)), numba.get_num_threads(), []
    values = np.random.default_rng(0).normal(size=(9000, 5))
    try:
        for n_threads in (1, before):
            numba.set_num_threads(n_threads)
            products = Local(X)
            found.append((np.asarray(X)[X.valid], products.gram(), products.project(values)))
    finally:
        numba.set_num_threads(before)
    for one, several in zip(*found, strict=True):
        np.testing.assert_array_equal(one, several)


@pytest.mark.slow
def test_a_report_describes_a_history_of_traces(tmp_path):
    pytest.importorskip("matplotlib")
    values = traces(600, 3)
    X = BASIS.compute_features(values)
    model = ridge("Gaussian").fit(X, values)
    path = tmp_path / "report.html"
    write_report(path, model, X, values, bin_size=0.01)
    assert "history of 3 cells" in path.read_text()
    assert "from their values" in X._repr_html_()
    own = model.coupling_map(X, values)
    assert own.own_history.diagonal().all()
    assert own.own_history.sum() == 3


# --- memory ---


def measured(function):
    tracemalloc.start()
    result = function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result, peak


@pytest.mark.slow
@pytest.mark.parametrize("family", ["Poisson", "Gaussian"])
def test_memory_is_what_the_page_says_whatever_the_length(family):
    """8 bytes a value, the plan's bytes, and some arrays of n_bins: none of n_bins x n_features."""
    n_senders, peaks, sizes = 40, [], (30_000, 60_000)
    basis = RaisedCosineLogConv(4, 10)
    for n_bins in sizes:
        rng = np.random.default_rng(0)
        values = rng.normal(size=(n_bins, n_senders))
        y = values[:, :3] if family == "Gaussian" else rng.poisson(0.1, (n_bins, 3))
        model = ridge(family, solver_name="auto" if family == "Gaussian" else "newton-cg")
        X, peak = measured(lambda values=values: basis.compute_features(values))
        assert X.nbytes <= 8 * values.size + 2 * n_bins + 10_000
        assert peak < 8 * values.size + 8e6
        plan = model.plan(X, y)
        _, peak = measured(lambda y=y, X=X, model=model: model.fit(X, y))
        assert peak < plan.peak_bytes + 100 * n_bins
        peaks.append(peak)
    grown = (peaks[1] - peaks[0]) / (sizes[1] - sizes[0])
    assert grown < 100  # bytes a bin; the stored columns take 1280, and events 1120


def test_the_plan_counts_the_rows_of_a_chunk():
    X = BASIS.compute_features(traces(9000, 20))
    y = responses(X, "Poisson")
    model = ridge("Poisson", solver_name="newton-cg")
    rows = 12 * 8192 * X.shape[1]
    assert model.plan(X, y).peak_bytes > rows + 5e7
    assert model.plan(X, y).batches[0].products == "rows"
    with pytest.raises(ValueError, match="a batch of 16 receivers with 60 features needs"):
        ridge("Poisson", solver_name="newton-cg", memory_budget="50MB").plan(X, y)


# --- rows and columns of their own ---------------------------------------------------------------


@pytest.mark.parametrize("causality", ["causal", "anti-causal", "acausal"])
@pytest.mark.parametrize(
    "rows",
    [slice(0, 40), slice(37, 300), slice(250, None), np.r_[3:60, 200:290], np.arange(5, 300, 29)],
)
def test_rows_and_columns_of_traces_keep_their_values(causality, rows):
    """Models see a cut of the bins; selections of columns are blocks of their own."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 3)) + [0, 50, 1e6]
    values[123, 1] = np.nan
    basis = RaisedCosineLogConv(4, 9, conv_kwargs={"predictor_causality": causality})
    X = basis.compute_features(values)
    stored = np.asarray(X)
    index = np.arange(300)[rows]
    np.testing.assert_allclose(np.asarray(X[rows]), stored[rows], rtol=1e-13)
    matrix, places = X.take_rows(index).cut()
    places = np.arange(index.size) if places is None else places
    known = np.isfinite(stored[index]).all(axis=1)
    np.testing.assert_array_equal(matrix.valid[places], known)
    np.testing.assert_allclose(matrix.rows(places[known]), stored[index][known], rtol=1e-12)
    by_events = FeatureMatrix([c.by_events() for c in matrix.blocks])
    np.testing.assert_array_equal(by_events.valid[places], known)
    np.testing.assert_allclose(by_events.rows(places[known]), stored[index][known], rtol=1e-9)
    some = np.array([7, 0, 1, 9])
    np.testing.assert_allclose(np.asarray(X[:, some]), stored[:, some], rtol=1e-13, atol=1e-13)
    centred, shift = matrix.centred()
    np.testing.assert_allclose(
        centred.rows(places[known]) + shift, stored[index][known], rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("causality", CAUSALITIES)
def test_the_activity_of_a_bin_is_that_of_the_values_that_it_sees(causality):
    values, basis = traces(90, 3), HistoryConv(7, conv_kwargs={"predictor_causality": causality})
    shift, expected = naive.window_shift(7, causality), np.zeros(90)
    away = (np.abs(values - values.mean(axis=0)) / values.std(axis=0)).sum(axis=1)
    for t in range(90):
        for lag in range(1, 8):
            if 0 <= t - lag + shift < 90:
                expected[t] += away[t - lag + shift]
    X = basis.compute_features(values)
    assert isinstance(X.blocks[0], TraceColumns)
    found, sees = Local(X).activity, X.valid  # other bins are not in the fit
    ratio = found[sees] / expected[sees]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)


def test_a_sender_that_is_not_known_for_long_may_be_negative_later():
    """The values are read in blocks, of which the first knows nothing of the sender."""
    values = np.ones((9000, 2))
    values[:5000, 1] = np.nan
    values[8000, 1] = -1.0
    block = TraceColumns(values, np.ones((3, 1)))
    assert block.nonnegative.tolist() == [True, False]
