"""Arguments of an unexpected kind or size: a sentence of ours, before memory is taken."""

import tracemalloc

import numpy as np
import pytest
import scipy.sparse

import fastglm
from fastglm.basis import (
    BSplineConv,
    BSplineEval,
    CustomBasis,
    HistoryConv,
    RaisedCosineLinearEval,
    RaisedCosineLogConv,
    RaisedCosineLogEval,
)

COUNTS = np.random.default_rng(0).poisson(0.2, (300, 2))
HUGE = 10**400


NO_NUMBERS = ["3", [2.0], 1j, {}, np.nan, np.inf, HUGE]


@pytest.mark.parametrize("value", [*NO_NUMBERS, None, 1.7e308, 1.3])
def test_a_width_is_a_number(value):
    for make in (lambda: RaisedCosineLogConv(5, 20, width=value),
                 lambda: RaisedCosineLinearEval(5, width=value)):  # fmt: skip
        with pytest.raises(ValueError, match=r"width is .*; expected a number greater than 1"):
            make()


@pytest.mark.parametrize("value", [*NO_NUMBERS, -1, 0])
def test_a_time_scaling_is_a_number(value):
    for make in (lambda: RaisedCosineLogConv(5, 20, time_scaling=value),
                 lambda: RaisedCosineLogEval(5, time_scaling=value)):  # fmt: skip
        with pytest.raises(ValueError, match=r"time_scaling is .*; expected a number above 0"):
            make()


@pytest.mark.parametrize("scaling", [1e-320, 1e-12, 1e-4])
def test_a_small_time_scaling_is_the_linear_axis(scaling):
    log = RaisedCosineLogConv(5, 20, time_scaling=scaling, enforce_decay_to_zero=False).kernel_
    linear = fastglm.basis.RaisedCosineLinearConv(5, 20).kernel_
    assert np.isfinite(log).all()
    if scaling > 1e-300:  # numbers below are few
        np.testing.assert_allclose(log, linear, atol=10 * scaling + 1e-14)


def test_the_largest_time_scaling_gives_numbers():
    assert np.isfinite(RaisedCosineLogConv(5, 20, time_scaling=1.7e308).kernel_).all()


@pytest.mark.parametrize("value", ["no", [], np.array([1, 2]), 0.5, None])
def test_a_decay_is_true_or_false(value):
    with pytest.raises(ValueError, match=r"enforce_decay_to_zero is .*; expected True or False"):
        RaisedCosineLogConv(5, 20, enforce_decay_to_zero=value)


@pytest.mark.parametrize("value", ["0", None, [1, 2], np.inf, 1j, HUGE])
def test_a_fill_value_is_a_number(value):
    with pytest.raises(ValueError, match=r"fill_value is .*; expected a number or NaN"):
        BSplineEval(5, bounds=(0, 1), fill_value=value)
    assert np.isnan(BSplineEval(5).fill_value)


@pytest.mark.parametrize("value", ["causal", 5, [("shift", True)], np.array([1])])
def test_conv_kwargs_are_a_dict(value):
    with pytest.raises(ValueError, match=r"conv_kwargs is .*; expected a dict or None"):
        HistoryConv(3, conv_kwargs=value)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"funcs": None}, ValueError, "funcs is None; expected functions"),
        ({"funcs": 5}, ValueError, "funcs is 5; expected functions"),
        ({"output_shape": 1.5}, TypeError, "output_shape is 1.5; expected whole numbers"),
        ({"basis_kwargs": "a"}, ValueError, "basis_kwargs is 'a'; expected a dict"),
    ],
)
def test_what_a_custom_basis_takes(arguments, error, message):
    with pytest.raises(error, match=message):
        CustomBasis(**{"funcs": [np.sin], **arguments})


@pytest.mark.parametrize("name", ["n_basis_funcs", "window_size"])
@pytest.mark.parametrize("value", [HUGE, 1e300, "5", [5]])
def test_numbers_of_functions_and_bins_are_whole(name, value):
    with pytest.raises(ValueError, match=f"{name} is .*; expected a positive integer"):
        RaisedCosineLogConv(**{"n_basis_funcs": 5, "window_size": 20, name: value})


def test_a_kernel_beyond_the_memory_is_refused_before_it_is_made():
    for basis in (HistoryConv(10**6), RaisedCosineLogConv(8, 10**11), BSplineConv(10**11, 20)):
        with pytest.raises(ValueError, match=r"The kernel of .* would take .* GB, and the machine"):
            _ = basis.kernel_
        with pytest.raises(ValueError, match="use a shorter window or fewer functions"):
            basis.compute_features(COUNTS)


@pytest.mark.parametrize("basis", [RaisedCosineLogConv(8, 10**7), HistoryConv(10**4)])
def test_a_window_longer_than_all_epochs_is_refused_before_memory_is_taken(basis):
    def refuse():
        with pytest.raises(ValueError, match="longer than the longest epoch"):
            fastglm.fit_coupling([[0.1, 0.5], [0.2]], bin_size=0.01, basis=basis)

    refuse()  # modules load with their first use
    tracemalloc.start()
    for epochs in (None, [[0, 100], [150, 300]]):
        with pytest.raises(ValueError, match=r"longer than the longest epoch, \d+ bins; use a sho"):
            basis.compute_features(COUNTS, epochs=epochs)
    refuse()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_a_window_that_an_epoch_can_use_is_taken_however_long():
    counts = scipy.sparse.coo_array(([1.0], ([0], [0])), shape=(7_000_000, 1))
    X = RaisedCosineLogConv(2, 6_500_000).compute_features(counts)
    assert X.valid.sum() == 500_000


def test_coefficients_beyond_the_memory_are_refused_before_they_are_made():
    n = 10**6
    events = fastglm.features.Events(
        np.zeros(1, np.int32), np.zeros(1, np.int32), np.ones(1), (100, n)
    )
    X = HistoryConv(3).compute_features(events)
    with pytest.raises(ValueError, match=r"coefficients of 3,000,000 features and 1,000,000 recei"):
        fastglm.PopulationGLM(regularizer="Ridge").fit(X, events)


def test_epochs_of_nullable_columns_are_bins():
    pandas = pytest.importorskip("pandas")
    epochs = pandas.DataFrame({"start": [0, 100], "stop": [80, 250]}).astype("UInt16")
    expected = HistoryConv(3).compute_features(COUNTS, epochs=[[0, 80], [100, 250]])
    found = HistoryConv(3).compute_features(COUNTS, epochs=epochs)
    np.testing.assert_array_equal(found.valid, expected.valid)
    epochs.loc[1, "stop"] = pandas.NA
    with pytest.raises(ValueError, match="epochs"):
        HistoryConv(3).compute_features(COUNTS, epochs=epochs)


@pytest.mark.parametrize("form", [scipy.sparse.csr_array, scipy.sparse.coo_matrix])
def test_a_sparse_mask_is_a_mask_and_is_saved(tmp_path, form):
    mask = np.random.default_rng(1).random((6, 2)) < 0.5
    X = HistoryConv(3).compute_features(COUNTS)
    fits = [
        fastglm.PopulationGLM(regularizer="Ridge", feature_mask=given).fit(X, COUNTS)
        for given in (mask, form(mask.astype(float)))
    ]
    np.testing.assert_array_equal(fits[0].coef_, fits[1].coef_)
    fits[1].save_params(tmp_path / "model.npz")
    loaded = fastglm.load_model(tmp_path / "model.npz")
    np.testing.assert_array_equal(loaded.feature_mask, mask)


def test_rows_of_different_lengths_are_refused():
    ragged = [[1], [2, 3]]
    X = HistoryConv(3).compute_features(COUNTS)
    with pytest.raises(ValueError, match="feature_mask holds other values than 0 and 1"):
        fastglm.PopulationGLM(regularizer="Ridge", feature_mask=ragged).fit(X, COUNTS)
    for arguments in ({"spike_times": ragged}, {"unit": ragged}, {"epochs": ragged}):
        given = {"spike_times": [0.1, 0.2], "unit": [0, 1], "bin_size": 0.1, **arguments}
        with pytest.raises(
            ValueError, match=r"expected (a one-dimensional|start and stop|one unit)"
        ):
            fastglm.bin_spikes(**given)


@pytest.mark.parametrize("value", [None, 5, [], b"a.npz", np.nan])
def test_a_path_is_text_or_a_path(value):
    model = fastglm.GLM().fit(np.random.default_rng(0).normal(size=(50, 1)), COUNTS[:50, 0])
    for use in (model.save_params, fastglm.load_model):
        with pytest.raises(ValueError, match=r"The path is .*; expected the name of a file"):
            use(value)


@pytest.mark.parametrize("value", [np.inf, HUGE, 1e301])
def test_a_budget_without_end_is_refused(value):
    X = HistoryConv(3).compute_features(COUNTS)
    with pytest.raises(ValueError, match=r"memory_budget is .*; expected bytes"):
        fastglm.PopulationGLM(regularizer="Ridge", memory_budget=value).fit(X, COUNTS)
