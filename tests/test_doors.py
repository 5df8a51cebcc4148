"""What comes in: containers, missing values, text, tables without rows, and what scores say."""

import warnings

import numpy as np
import pytest
import scipy.sparse
from sklearn.model_selection import (
    GroupKFold,
    GroupShuffleSplit,
    KFold,
    LeaveOneGroupOut,
    StratifiedKFold,
)
from sklearn.pipeline import make_pipeline

import fastglm
from fastglm import GLM, PopulationGLM
from fastglm.basis import (
    BSplineEval,
    CyclicBSplineEval,
    FourierEval,
    HistoryConv,
    IdentityEval,
    MSplineEval,
    OrthExponentialEval,
    RaisedCosineLinearEval,
    RaisedCosineLogConv,
    RaisedCosineLogEval,
)
from fastglm.features.events import Events
from fastglm.model_selection import cross_validate, split
from fastglm.observation_models import BernoulliObservations, PoissonObservations

RNG = np.random.default_rng(3)
COUNTS = RNG.poisson(0.3, (120, 2))
BASIS = HistoryConv(2)
FEATURES = RNG.normal(size=(120, 2))
RIDGE = {"regularizer": "Ridge", "regularizer_strength": 1e-3}


def gaps(values=COUNTS):
    """Floats with NaN where the containers below have a hole."""
    values = values.astype(float)
    values[5:8, 1] = values[40, 0] = np.nan
    return values


def masked():
    hole = np.isnan(gaps())
    return np.ma.MaskedArray(np.where(hole, 99, COUNTS), hole)


def nullable(dtype="Int16"):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(COUNTS).astype(dtype)
    return table.mask(np.isnan(gaps()))


def mixed():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"a": COUNTS[:, 0].astype(object), "b": COUNTS[:, 1].astype(float)})
    table.loc[40, "a"] = None
    table.loc[5:7, "b"] = np.nan
    return table


def arrow():
    pytest.importorskip("pyarrow")
    return nullable("int64[pyarrow]")


CONTAINERS = {
    "masked": masked,
    "masked floats": lambda: np.ma.masked_invalid(gaps()),
    "Int16": nullable,
    "Float32": lambda: nullable("Float32"),
    "arrow": arrow,
    "objects": mixed,
    "lists": lambda: [[None if np.isnan(v) else v for v in row] for row in gaps().tolist()],
}


@pytest.mark.parametrize("make", CONTAINERS.values(), ids=CONTAINERS)
def test_what_is_missing_in_a_container_is_nan(make):
    values, expected = make(), gaps()
    X = BASIS.compute_features(values)
    np.testing.assert_array_equal(X[:], BASIS.compute_features(expected)[:])
    np.testing.assert_array_equal(
        IdentityEval().compute_features(values)[:], IdentityEval().compute_features(expected)[:]
    )
    model, like = (PopulationGLM(**RIDGE).fit(FEATURES, y) for y in (values, expected))
    np.testing.assert_array_equal(model.coef_, like.coef_)
    model, like = (PopulationGLM(**RIDGE).fit(x, COUNTS) for x in (values, expected))
    np.testing.assert_array_equal(model.coef_, like.coef_)
    held = fastglm.features.hold(values, 240, every=2)
    np.testing.assert_array_equal(held[::2], expected)


def test_masked_and_nullable_weights_offsets_and_epochs():
    pandas = pytest.importorskip("pandas")
    weight, offset = RNG.integers(1, 3, 120), RNG.normal(size=120)
    like = PopulationGLM(**RIDGE).fit(FEATURES, COUNTS, sample_weight=weight, offset=offset)
    for w, o in (
        (pandas.Series(weight, dtype="UInt8"), pandas.Series(offset, dtype="Float64")),
        (np.ma.MaskedArray(weight), scipy.sparse.csr_array(offset[:, None])),
    ):
        model = PopulationGLM(**RIDGE).fit(FEATURES, COUNTS, sample_weight=w, offset=o)
        np.testing.assert_array_equal(model.coef_, like.coef_)
    weights = np.ma.MaskedArray(weight, weight > 1)
    with pytest.raises(ValueError, match=r"sample_weight holds .* NaN weights"):
        PopulationGLM(**RIDGE).fit(FEATURES, COUNTS, sample_weight=weights)
    epochs = pandas.DataFrame({"start": [0, 60], "stop": [50, 120]}, dtype="Int32")
    X = BASIS.compute_features(COUNTS, epochs=epochs)
    like = BASIS.compute_features(COUNTS, epochs=epochs.to_numpy(int))
    np.testing.assert_array_equal(X[:], like[:])
    epochs.iloc[1, 0] = pandas.NA
    with pytest.raises(ValueError, match="epochs holds numbers that are not whole bins"):
        BASIS.compute_features(COUNTS, epochs=epochs)


@pytest.mark.parametrize("kind", ["csr_array", "csc_array", "coo_matrix", "nullable", "masked"])
def test_masks_of_any_container(kind, tmp_path):
    dense = np.array([[1, 0], [1, 1], [0, 1], [1, 1]])
    X = BASIS.compute_features(COUNTS)
    if kind == "nullable":
        mask = pytest.importorskip("pandas").DataFrame(dense).astype("boolean")
    else:
        mask = np.ma.MaskedArray(dense) if kind == "masked" else getattr(scipy.sparse, kind)(dense)
    model = PopulationGLM(feature_mask=mask, **RIDGE).fit(X, COUNTS)
    like = PopulationGLM(feature_mask=dense, **RIDGE).fit(X, COUNTS)
    np.testing.assert_array_equal(model.coef_, like.coef_)
    assert (model.coef_[dense == 0] == 0).all()
    model.save_params(tmp_path / "model.npz")
    loaded = fastglm.load_model(tmp_path / "model.npz")
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


def test_a_mask_with_a_missing_entry_is_refused():
    pandas = pytest.importorskip("pandas")
    mask = pandas.DataFrame(np.ones((2, 2), bool)).astype("boolean")
    mask.iloc[0, 0] = pandas.NA
    with pytest.raises(ValueError, match="feature_mask holds other values than 0 and 1"):
        PopulationGLM(feature_mask=mask).fit(FEATURES, COUNTS)


# --- trials ---


def trials(kind):
    parts = COUNTS[:50], COUNTS[50:]
    if kind == "jax":
        return list(map(pytest.importorskip("jax.numpy").asarray, parts))
    if kind == "tables":
        return list(map(pytest.importorskip("pandas").DataFrame, parts))
    if kind == "nullable":
        return [t.astype("Int64") for t in trials("tables")]
    make = {"masked": np.ma.MaskedArray, "sparse": scipy.sparse.csr_array, "tuple": np.asarray}
    return tuple(map(make[kind], parts))


@pytest.mark.parametrize("kind", ["jax", "tables", "nullable", "masked", "sparse", "tuple"])
def test_trials_of_any_container(kind):
    X = BASIS.compute_features(trials(kind))
    like = BASIS.compute_features([COUNTS[:50], COUNTS[50:]])
    np.testing.assert_array_equal(X[:], like[:])
    model = PopulationGLM(**RIDGE).fit(X, trials(kind))
    np.testing.assert_array_equal(model.coef_, PopulationGLM(**RIDGE).fit(like, COUNTS).coef_)


def test_a_missing_count_in_a_trial_stays_missing():
    parts = [masked()[:50], masked()[50:]]
    like = BASIS.compute_features([gaps()[:50], gaps()[50:]])
    np.testing.assert_array_equal(BASIS.compute_features(parts)[:], like[:])


def test_trials_of_one_receiver():
    X = BASIS.compute_features([COUNTS[:50], COUNTS[50:]])
    model = GLM(**RIDGE).fit(X, [COUNTS[:50, 0], COUNTS[50:, 0]])
    np.testing.assert_array_equal(model.coef_, GLM(**RIDGE).fit(X, COUNTS[:, 0]).coef_)


def test_trials_with_columns_in_another_order_are_refused():
    pandas = pytest.importorskip("pandas")
    first = pandas.DataFrame(COUNTS[:50], columns=["a", "b"])
    with pytest.raises(ValueError, match=r"Trial 1 of Counts has columns \['b', 'a'\]"):
        BASIS.compute_features([first, first[["b", "a"]]])


def test_lists_of_lists_of_times_are_spike_times():
    arrays = [np.sort(RNG.uniform(0, 20, 90)), np.sort(RNG.uniform(0, 20, 90))]
    like = fastglm.infer_connectivity(arrays, 0.01).strength
    for units in ([a.tolist() for a in arrays], tuple(map(tuple, arrays))):
        np.testing.assert_array_equal(fastglm.infer_connectivity(units, 0.01).strength, like)
    fewer = [arrays[0].round() + np.arange(90), arrays[1].round()[::9]]  # whole, but no table
    found = fastglm.infer_connectivity([a.tolist() for a in fewer], 0.1).strength
    np.testing.assert_array_equal(found, fastglm.infer_connectivity(fewer, 0.1).strength)
    table = COUNTS.tolist()  # whole numbers, the same number in each row
    np.testing.assert_array_equal(
        fastglm.infer_connectivity(table, 0.001).strength,
        fastglm.infer_connectivity(COUNTS, 0.001).strength,
    )


# --- text and other arguments of an unexpected kind ---


@pytest.mark.parametrize(
    ("error", "use", "message"),
    [
        (
            ValueError,
            lambda: RaisedCosineLogConv(4, 9, time_scaling="30"),
            "time_scaling is '30'; expected a",
        ),
        (
            ValueError,
            lambda: RaisedCosineLogEval(4, time_scaling=np.inf),
            "time_scaling is inf; expected a",
        ),
        (
            ValueError,
            lambda: RaisedCosineLogConv(4, 9, time_scaling=[5]),
            r"time_scaling is \[5\]; expected",
        ),
        (
            ValueError,
            lambda: RaisedCosineLinearEval(4, width="3"),
            "width is '3'; expected a number greater",
        ),
        (
            ValueError,
            lambda: RaisedCosineLinearEval(4, width=None),
            "width is None; expected a number",
        ),
        (
            ValueError,
            lambda: RaisedCosineLogConv(4, 9j),
            r"window_size is 9j; expected a positive integer",
        ),
        (
            ValueError,
            lambda: RaisedCosineLogConv("4", 9),
            "n_basis_funcs is '4'; expected a positive integer",
        ),
        (
            TypeError,
            lambda: BSplineEval(5, bounds=("0", "1")),
            "bounds is .*; expected a pair of numbers",
        ),
        (
            TypeError,
            lambda: BSplineEval(5, bounds="01"),
            "bounds is '01'; expected a pair of numbers",
        ),
        (
            ValueError,
            lambda: BSplineEval(5, bounds=(0, np.inf)),
            "bounds is .*; expected a pair of numbers",
        ),
        (TypeError, lambda: FourierEval(("1", "3")), "frequencies holds .*; expected a number"),
        (
            TypeError,
            lambda: FourierEval(np.array(["1"])),
            "frequencies could not be read as numbers",
        ),
        (
            ValueError,
            lambda: OrthExponentialEval(2, [1.0, np.nan]),
            "decay_rates is .*; expected finite",
        ),
        (
            ValueError,
            lambda: GLM(solver_kwargs={"tol": "1e-8"}).fit(FEATURES, COUNTS[:, 0]),
            "tol='1e-8'",
        ),
        (
            ValueError,
            lambda: GLM(solver_kwargs={"maxiter": np.inf}).fit(FEATURES, COUNTS[:, 0]),
            "maxiter=inf; expected tol > 0 and maxiter >= 1",
        ),
        (
            TypeError,
            lambda: GLM().fit(np.array([["1", 2.0]] * 120, object), COUNTS[:, 0]),
            r"X could not be read as numbers; .* The first text is '1' at \[0, 0\]",
        ),
        (
            TypeError,
            lambda: BASIS.compute_features([["0", 1], [1, 0]]),
            "Counts could not be read as numbers; .* The first text is '0'",
        ),
        (
            ValueError,
            lambda: BSplineEval(5, fill_value="none"),
            "fill_value is 'none'; expected a number or",
        ),
        (
            ValueError,
            lambda: HistoryConv(3, conv_kwargs="causal"),
            "conv_kwargs is 'causal'; expected a dict",
        ),
        (
            ValueError,
            lambda: fastglm.inference.uncertainty(
                GLM(**RIDGE).fit(FEATURES, COUNTS[:, 0]), FEATURES, COUNTS[:, 0], "blocks", "10"
            ),
            "block_size is '10'; expected a positive integer",
        ),
        (
            ValueError,
            lambda: fastglm.features.hold([1.0, 2.0], 4, every="2"),
            "every is '2'; expected the bins from one sample to the next",
        ),
        (
            ValueError,
            lambda: fastglm.features.hold([1.0, 2.0], "4", every=2),
            "n_bins is '4'; expected",
        ),
        (
            ValueError,
            lambda: cross_validate(PopulationGLM(**RIDGE), FEATURES, COUNTS, folds="three"),
            "folds is 'three'; expected an integer",
        ),
        (
            TypeError,
            lambda: cross_validate(PopulationGLM(**RIDGE), FEATURES, COUNTS, ["weak"]),
            "strengths could not be read as numbers",
        ),
        (
            ValueError,
            lambda: cross_validate(PopulationGLM(**RIDGE), FEATURES, COUNTS, "ten"),
            "strengths is 'ten'; expected an integer",
        ),
    ],
)
def test_text_and_other_kinds_are_refused_by_name(error, use, message):
    with pytest.raises(error, match=message):
        use()


@pytest.mark.parametrize("scaling", [1e-30, 1e-9, 1e300])
@pytest.mark.parametrize("width", [2.0, 1e17])
def test_kernels_are_finite_for_any_scaling_and_width(scaling, width):
    kernel = RaisedCosineLogConv(5, 20, width=width, time_scaling=scaling).kernel_
    assert np.isfinite(kernel).all()


def test_a_small_scaling_is_linear_time():
    near = RaisedCosineLogConv(4, 15, time_scaling=1e-12, enforce_decay_to_zero=False).kernel_
    linear = fastglm.basis.RaisedCosineLinearConv(4, 15).kernel_
    np.testing.assert_allclose(near, linear, rtol=0, atol=1e-10)


# --- no rows ---


@pytest.mark.parametrize("family", ["Poisson", "Bernoulli", "Gaussian"])
def test_a_table_without_rows(family):
    y = COUNTS.clip(max=1)
    model, one = (
        m(family, **RIDGE).fit(FEATURES, t) for m, t in ((PopulationGLM, y), (GLM, y[:, 0]))
    )
    nothing, none = FEATURES[:0], y[:0]
    assert model.predict(nothing).shape == (0, 2)
    assert one.predict(nothing).shape == (0,)
    assert [part.shape for part in model.simulate(0, nothing)] == [(0, 2), (0, 2)]
    step = BSplineEval(4).set_input_shape(2).to_transformer()
    pipeline = make_pipeline(step, GLM(family, **RIDGE))
    assert pipeline.fit(FEATURES, y[:, 0]).predict(nothing).shape == (0,)
    for kind in ("response", "pearson", "deviance"):
        assert model.residuals(nothing, none, kind).shape == (0, 2)
        assert one.residuals(nothing, none[:, 0], kind).shape == (0,)
    for use in (
        lambda: model.score(nothing, none),
        lambda: model.score(nothing, none, sample_weight=[]),
        lambda: model.standard_errors(nothing, none),
        lambda: fastglm.diagnostics.deviance_explained(model, nothing, none),
        lambda: PopulationGLM(family).fit(nothing, none),
    ):
        with pytest.raises(ValueError, match=r"No bin|0 rows|None of the"):
            use()


# --- a domain is learned in a pipeline ---

UNBOUNDED = {
    "linear": RaisedCosineLinearEval(5),
    "log": RaisedCosineLogEval(5),
    "b": BSplineEval(5),
    "cyclic": CyclicBSplineEval(5),
    "m": MSplineEval(5),
    "fourier": FourierEval(3),
    "exponentials": OrthExponentialEval(3, [0.5, 2.0, 7.0]),
    "sum": BSplineEval(5, label="x") + RaisedCosineLinearEval(4, label="y"),
    "product": MSplineEval(4, label="x") * FourierEval(2, ndim=1, label="y"),
}


@pytest.mark.parametrize("basis", UNBOUNDED.values(), ids=UNBOUNDED)
def test_a_sample_has_the_same_features_in_every_batch(basis):
    x = RNG.uniform(-3, 7, (200, 2))[:, : basis._n_inputs]
    step = basis.to_transformer().fit(x)
    whole = step.transform(x)[:]
    assert np.isfinite(whole).all()
    for some in (slice(0, 1), slice(30, 37)):
        np.testing.assert_allclose(step.transform(x[some])[:], whole[some], rtol=0, atol=1e-12)
    np.testing.assert_allclose(whole, basis.compute_features(*x.T)[:], rtol=0, atol=1e-9)
    pipeline = make_pipeline(basis.to_transformer(), GLM(**RIDGE))
    pipeline.fit(x, RNG.poisson(1.0, 200))
    np.testing.assert_allclose(pipeline.predict(x[:4]), pipeline.predict(x)[:4], rtol=1e-10)


def test_every_column_learns_its_own_range():
    x = np.column_stack([RNG.uniform(0, 1, 80), RNG.uniform(10, 500, 80)])
    step = BSplineEval(4).set_input_shape(2).to_transformer().fit(x)
    np.testing.assert_array_equal(step.transform(x[:3])[:], step.transform(x)[:3])


def test_a_sample_beyond_the_learned_range_is_out_of_bounds():
    x = np.linspace(0.1, 0.7, 50)[:, None]
    step = BSplineEval(4, fill_value=-1.0).to_transformer().fit(x)
    values = step.transform([[0.1], [0.7], [0.71], [0.0]])[:]
    assert (values[:2] >= 0).all()
    assert (values[2:] == -1).all()
    (grid, _) = step.basis.evaluate_on_grid(5)
    np.testing.assert_allclose(grid, np.linspace(0.1, 0.7, 5))


def test_what_was_learned_goes_with_a_clone_or_a_new_parameter():
    from sklearn.base import clone

    x = np.linspace(0, 1, 30)[:, None]
    step = OrthExponentialEval(2, [1.0, 4.0]).to_transformer().fit(x)
    for other in (clone(step), step.set_params(decay_rates=[2.0, 3.0])):
        wide = other.fit(4 * x)
        np.testing.assert_array_equal(wide.transform(4 * x[:5])[:], wide.transform(4 * x)[:5])
    assert np.isfinite(clone(step).transform(9 * x)[:]).all()  # not fitted: its own range


def test_a_fit_without_a_finite_sample_is_refused():
    with pytest.raises(ValueError, match="hold no finite number; a range needs one"):
        BSplineEval(4).to_transformer().fit(np.full((5, 1), np.nan))


# --- folds ---


@pytest.mark.parametrize(
    ("error", "train"),
    [
        (ValueError, [0.5, 1]),
        (TypeError, ["a", "b"]),
        (ValueError, [-1, 2]),
        (ValueError, [0, 120]),
    ],
)
def test_bins_of_a_fold_that_are_none(error, train):
    X = fastglm.features.as_feature_matrix(FEATURES)
    with pytest.raises(error, match="folds"):
        list(split(X, [(train, [3, 4])]))


def test_a_fold_without_bins_to_score():
    X = fastglm.features.as_feature_matrix(FEATURES)
    with pytest.raises(ValueError, match="0 to score"):
        list(split(X, [([0, 1], [])]))


def test_splitters_by_group_keep_groups_together():
    groups = np.repeat(["mouse 1", "mouse 2", "mouse 3", "mouse 4"], 30)
    X = fastglm.features.as_feature_matrix(FEATURES)
    for splitter in (
        GroupKFold(2),
        LeaveOneGroupOut(),
        GroupShuffleSplit(3, random_state=0),
    ):
        for train, test in split(X, splitter, groups=groups):
            assert not set(groups[train]) & set(groups[test])
    model = PopulationGLM(**RIDGE)
    cv = cross_validate(model, FEATURES, COUNTS, [0.1, 1.0], GroupKFold(4), groups=groups)
    numbers = np.repeat([3, 2, 1, 0], 30)  # the folds that GroupKFold makes, in any order
    like = cross_validate(model, FEATURES, COUNTS, [0.1, 1.0], numbers)
    np.testing.assert_allclose(cv.mean_score, like.mean_score, rtol=1e-10)
    held = fastglm.diagnostics.cross_validated(
        model, FEATURES, COUNTS, LeaveOneGroupOut(), groups=groups
    )
    assert held.log_likelihood.shape == (4, 2)


def test_splitters_that_stratify_and_lists_of_pairs():
    y = COUNTS[:, 0].clip(max=1)
    cv = cross_validate(GLM(**RIDGE), FEATURES, y, [1.0], StratifiedKFold(3))
    assert np.isfinite(cv.scores).all()
    pairs = list(KFold(3).split(FEATURES))
    listed, direct = (
        cross_validate(GLM(**RIDGE), FEATURES, y, [1.0], folds).scores
        for folds in (pairs, KFold(3))
    )
    np.testing.assert_array_equal(listed, direct)


def test_nullable_folds():
    pandas = pytest.importorskip("pandas")
    folds = pandas.Series(np.repeat([0, 1, 2], 40), dtype="Int8")
    model = PopulationGLM(**RIDGE)
    scores = cross_validate(model, FEATURES, COUNTS, [1.0], folds).scores
    like = cross_validate(model, FEATURES, COUNTS, [1.0], folds.to_numpy(int)).scores
    np.testing.assert_array_equal(scores, like)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"folds": GroupKFold(2)}, "cannot split the 120 bins: .* Splitters by group need groups"),
        ({"folds": GroupKFold(2), "groups": [1, 2]}, r"groups has shape \(2,\); expected a group"),
        ({"folds": 3, "groups": np.zeros(120)}, "groups go with a splitter such as GroupKFold"),
        ({"folds": [([0, 1], [130])]}, "folds names bins beyond the 120 bins of X"),
    ],
)
def test_folds_that_cannot_be_made(arguments, message):
    with pytest.raises(ValueError, match=message):
        cross_validate(PopulationGLM(**RIDGE), FEATURES, COUNTS, [1.0], **arguments)


# --- scores and residuals ---


@pytest.mark.parametrize("family", ["Poisson", "Bernoulli"])
@pytest.mark.parametrize("kind", ["pseudo-r2-McFadden", "pseudo-r2-Cohen"])
def test_a_perfect_null_model_has_no_pseudo_r2(family, kind):
    y = COUNTS.clip(max=1)
    y[:, 0] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PopulationGLM(family, **RIDGE).fit(FEATURES, y)
        one = GLM(family).fit(FEATURES, y[:, 0])
    each = model.score(FEATURES, y, kind, lambda v: v.mean(axis=0))
    assert np.isnan(each[0])
    assert each[1] == pytest.approx(0, abs=0.2)
    assert np.isnan(one.score(FEATURES, y[:, 0], kind))
    found = one.observation_model and BernoulliObservations() if family == "Bernoulli" else None
    found = found or PoissonObservations()
    assert np.isnan(found.pseudo_r2(np.zeros(5), np.full(5, 1e-22), kind))


def test_residuals_where_the_mean_underflows():
    y, mu = np.array([0.0, 0.0, 2.0, np.nan]), np.array([0.0, 4.0, 4.0, 0.0])
    found = PoissonObservations().residuals(y, mu, "pearson")
    np.testing.assert_array_equal(found, [0.0, -2.0, -1.0, np.nan])
    found = BernoulliObservations().residuals(np.array([0.0, 1.0]), np.array([0.0, 1.0]), "pearson")
    np.testing.assert_array_equal(found, [0.0, 0.0])
    model = GLM().fit(FEATURES, COUNTS[:, 0])
    model.intercept_[:] = -800  # exp(-800) is 0
    residuals = model.residuals(FEATURES, np.zeros(120), "pearson")
    np.testing.assert_array_equal(residuals, np.zeros(120))


def dead():
    """A model whose rate of receiver 1 is 0 in bin 7 (and where the feature is 1), and counts."""
    X = np.zeros((60, 1))
    X[[7, 20, 41]] = 1.0
    y = RNG.poisson(1.0, (60, 2)) + 1.0
    y[[20, 41], 1] = 0.0
    model = PopulationGLM().fit(np.arange(60.0)[:, None] % 2, y)
    model.coef_[:] = [[0.1, -2000.0]]
    return model, X, y


def test_a_count_where_the_rate_is_zero_is_named_and_can_be_left_out():
    model, X, y = dead()
    assert y[7, 1] > 0
    without = y.copy()
    without[7, 1] = np.nan
    for kind in ("log-likelihood", "pseudo-r2-McFadden", "pseudo-r2-Cohen"):
        expected = model.score(X, without, kind)
        with pytest.warns(UserWarning, match=r"minus infinity; .* receiver 1 \(1\) \(number of b"):
            assert model.score(X, y, kind) == -np.inf
        assert model.score(X, y, kind, skip_impossible=True) == expected
        assert np.isfinite(expected)
        with pytest.warns(UserWarning, match="receiver 1"):
            each = model.score(X, y, kind, lambda v: np.nanmean(v, axis=0))
        assert np.isneginf(each).tolist() == [False, True]
    for measure in (
        fastglm.diagnostics.deviance_explained,
        fastglm.diagnostics.bits_per_spike,
    ):
        with pytest.warns(UserWarning, match=r"skip_impossible=True leaves .* receiver 1 \(1\)"):
            assert measure(model, X, y)[1] == -np.inf
        found = measure(model, X, y, skip_impossible=True)
        np.testing.assert_array_equal(found, measure(model, X, without))


def test_a_rate_that_overflows_is_not_left_out_of_a_score():
    model, X, y = dead()
    model.coef_[:] = [[0.1, 2000.0]]
    with pytest.warns(UserWarning, match=r"receiver 1 \(3\)"):
        assert model.score(X, y) == -np.inf
    with pytest.warns(UserWarning, match=r"receiver 1 \(3\)"):
        assert fastglm.diagnostics.deviance_explained(model, X, y)[1] == -np.inf


def excluded(n_bins=90):
    """No event where the feature is 1, but one in bin 80 where the feature is 20."""
    X, y = np.zeros((n_bins, 1)), np.tile([[1, 0], [0, 1]], (n_bins // 2, 1))
    X[1::6] = 1.0
    y[1::6, 1] = 0
    X[80], y[80] = 20.0, [0, 3]
    return X, y


@pytest.mark.filterwarnings("ignore:separated")
def test_held_out_scores_tell_of_counts_that_training_excludes():
    X, y = excluded()
    folds = np.repeat([0, 1, 2], 30)
    with pytest.warns(UserWarning, match=r"`possible` has them .* receiver 1 \(1\) \(number"):
        held = fastglm.diagnostics.cross_validated(PopulationGLM(), X, y, folds)
    without = y.astype(float)
    without[80, 1] = np.nan
    like = fastglm.diagnostics.cross_validated(PopulationGLM(), X, without, folds)
    np.testing.assert_array_equal(held.n_impossible, [[0, 0], [0, 0], [0, 1]])
    for name in ("log_likelihood", "deviance_explained", "bits_per_spike"):
        found = getattr(held, name)
        assert found[2, 1] == -np.inf
        assert np.isfinite(found).sum() == 5
        # Only the scored bins are fewer: the fits of the other folds have seen bin 80.
        assert getattr(held.possible, name)[2, 1] == getattr(like, name)[2, 1]
    assert like.possible is None


@pytest.mark.filterwarnings("ignore:separated")
def test_cross_validation_tells_of_counts_that_training_excludes():
    X, y = excluded()
    X[80] = 5000.0  # a small ridge holds the coefficient near zero
    folds = np.repeat([0, 1, 2], 30)
    with pytest.warns(UserWarning, match=r"Held-out scores are minus .* receiver 1 \(1\)"):
        cv = cross_validate(PopulationGLM(**RIDGE), X, y, [1e-2, 1e-3], folds)
    assert cv.n_impossible[:, 2].tolist() == [[0, 1], [0, 1]]
    assert np.isneginf(cv.scores[:, 2, 1]).all()
    assert np.isfinite(cv.possible_scores).all()
    known = cv.n_impossible == 0
    np.testing.assert_array_equal(cv.scores[known], cv.possible_scores[known])


def test_a_strength_is_chosen_among_scores_of_minus_infinity(monkeypatch):
    from fastglm import model_selection

    scores = np.full((3, 2, 2), -1.0)
    possible, number = scores.copy(), np.zeros((3, 2, 2), int)
    possible[:, :, 1] = [[-3.0, -3.0], [-2.0, -1.5], [-2.0, -1.0]]
    number[:, 0, 1] = [2, 1, 1]
    scores[:, 0, 1] = -np.inf
    scores[2, :, 0] = -0.5
    monkeypatch.setattr(
        model_selection, "_held_out_scores", lambda *args: (scores, possible, number)
    )
    with pytest.warns(UserWarning, match=r"Held-out scores are minus infinity.* receiver 1 \(1\)"):
        cv = cross_validate(PopulationGLM(**RIDGE), FEATURES, COUNTS, [3.0, 2.0, 1.0], folds=2)
    assert cv.chosen.tolist() == [2, 2]
    assert cv.n_impossible is number
    assert cv.possible_scores is possible


def test_events_forget_counts_and_absent_ones():
    y = np.array([[0, 2], [1, 0], [0, 0], [3, 1]])
    bins, units = np.array([0, 2, 3]), np.array([1, 0, 0])
    expected = y.astype(float)
    expected[bins, units] = np.nan
    np.testing.assert_array_equal(Events.of(y).forget(bins, units).toarray(), expected)


def test_simulated_counts_multiply_without_wrapping():
    network = fastglm.simulation.random_network(3, HistoryConv(2), mean_rate_hz=20_000)
    for sparse in (False, True):
        counts = network.simulate(400, 0, sparse=sparse)
        product = counts.T @ counts
        product = product.toarray() if sparse else product
        dense = (counts.toarray() if sparse else counts).astype(float)
        np.testing.assert_array_equal(product, dense.T @ dense)


def test_sparse_strengths_and_starts():
    strength = np.array([[0.0, 1.0], [2.0, 0.5]])
    like = PopulationGLM(regularizer="Ridge", regularizer_strength=strength).fit(FEATURES, COUNTS)
    model = PopulationGLM(
        regularizer="Ridge", regularizer_strength=scipy.sparse.csr_array(strength)
    ).fit(FEATURES, COUNTS, init_params=(scipy.sparse.csr_array((2, 2)), np.zeros(2)))
    np.testing.assert_allclose(model.coef_, like.coef_, rtol=0, atol=1e-8)
