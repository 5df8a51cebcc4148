"""Temporal bases: their kernels, their features, the splitting of what is fitted, NeMoS as peer."""

import copy
import functools
import inspect
import operator
import warnings

import naive
import numpy as np
import pytest
import scipy.integrate
from sklearn.base import clone

from fastglm import basis
from fastglm.basis import (
    AdditiveBasis,
    BSplineConv,
    CyclicBSplineConv,
    HistoryConv,
    MSplineConv,
    OrthExponentialConv,
    RaisedCosineLinearConv,
    RaisedCosineLogConv,
)

RATES = np.array([1.0, 3.0, 8.0])
# class, its arguments without the window
CASES = [
    (HistoryConv, {}),
    (RaisedCosineLinearConv, {"n_basis_funcs": 4}),
    (RaisedCosineLinearConv, {"n_basis_funcs": 5, "width": 1.5}),
    (RaisedCosineLogConv, {"n_basis_funcs": 4}),
    (RaisedCosineLogConv, {"n_basis_funcs": 2, "width": 3.0, "time_scaling": 2.5}),
    (RaisedCosineLogConv, {"n_basis_funcs": 5, "enforce_decay_to_zero": False}),
    (BSplineConv, {"n_basis_funcs": 6}),
    (BSplineConv, {"n_basis_funcs": 3, "order": 1}),
    (BSplineConv, {"n_basis_funcs": 4, "order": 4}),
    (CyclicBSplineConv, {"n_basis_funcs": 6}),
    (CyclicBSplineConv, {"n_basis_funcs": 4, "order": 2}),
    (MSplineConv, {"n_basis_funcs": 6}),
    (MSplineConv, {"n_basis_funcs": 5, "order": 3}),
    (OrthExponentialConv, {"n_basis_funcs": 3, "decay_rates": RATES}),
]
IDS = ["-".join([c.__name__, *(f"{v}" for v in k.values() if np.ndim(v) == 0)]) for c, k in CASES]
CAUSALITIES = [
    {},
    {"predictor_causality": "causal", "shift": True},
    {"predictor_causality": "causal", "shift": False},
    {"predictor_causality": "anti-causal"},
    {"predictor_causality": "anti-causal", "shift": False},
    {"predictor_causality": "acausal"},
]

each_case = pytest.mark.parametrize(("cls", "kwargs"), CASES, ids=IDS)
each_causality = pytest.mark.parametrize("conv_kwargs", CAUSALITIES)


def poisson_counts(n_bins, n_senders, seed=0):
    return np.random.default_rng(seed).poisson(0.6, (n_bins, n_senders)).astype(float)


# --- kernels ------------------------------------------------------------------------------------


def test_history_kernel_is_the_identity():
    np.testing.assert_array_equal(HistoryConv(7).kernel_, np.eye(7))


@pytest.mark.parametrize("window_size", [1, 2, 3, 17, 100])
@pytest.mark.parametrize(("n", "width"), [(2, 2.0), (3, 1.5), (8, 3.0)])
def test_raised_cosine_kernels_equal_the_formula(n, width, window_size):
    linear = RaisedCosineLinearConv(n, window_size, width=width).kernel_
    expected = naive.raised_cosine_linear(n, window_size, width)
    np.testing.assert_allclose(linear, expected, rtol=0, atol=1e-12)
    for time_scaling in (0.5, 50.0):
        for decay in (True, False):
            log = RaisedCosineLogConv(n, window_size, width, time_scaling, decay).kernel_
            expected = naive.raised_cosine_log(n, window_size, width, time_scaling, decay)
            np.testing.assert_allclose(log, expected, rtol=0, atol=1e-12)


def test_raised_cosine_log_kernel_of_the_documentation():
    expected = [[1, 0.5, 0], [0, 0, 0.263], [0, 0, 0]]
    np.testing.assert_allclose(RaisedCosineLogConv(3, window_size=3).kernel_, expected, atol=5e-4)


def test_raised_cosine_log_decays_to_zero_at_the_end_only_if_asked():
    assert RaisedCosineLogConv(5, 20).kernel_[-1].max() < 1e-15
    assert RaisedCosineLogConv(5, 20, enforce_decay_to_zero=False).kernel_[-1, -1] == 1


@pytest.mark.parametrize("window_size", [1, 2, 9, 50])
@pytest.mark.parametrize(("n", "order"), [(1, 1), (3, 1), (3, 2), (4, 4), (7, 4), (6, 5)])
def test_spline_kernels_equal_the_recursion(n, order, window_size):
    u = np.linspace(0, 1, window_size)
    for cls, formula in [(BSplineConv, naive.bspline), (MSplineConv, naive.mspline)]:
        kernel = cls(n, window_size, order).kernel_
        np.testing.assert_allclose(kernel, formula(u, n, order), rtol=0, atol=1e-12)
    if order > 1:
        kernel = CyclicBSplineConv(n, window_size, order).kernel_
        np.testing.assert_allclose(kernel, naive.cyclic_bspline(u, n, order), rtol=0, atol=1e-12)


@pytest.mark.parametrize("cls", [BSplineConv, CyclicBSplineConv, MSplineConv])
@pytest.mark.parametrize(("n", "order", "window_size"), [(3, 2, 9), (4, 3, 13), (5, 4, 31)])
def test_splines_are_zero_where_they_begin_or_end(cls, n, order, window_size):
    """A column of the rounding of a knot would be a feature, of whatever size."""
    kernel = cls(n, window_size, order).kernel_
    assert kernel[kernel != 0].min() > 1e-5


@pytest.mark.parametrize("cls", [BSplineConv, CyclicBSplineConv])
@pytest.mark.parametrize("order", [2, 3, 4])
def test_b_splines_sum_to_one(cls, order):
    np.testing.assert_allclose(cls(7, 101, order).kernel_.sum(axis=1), 1, rtol=1e-14)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_m_splines_integrate_to_one(order):
    n_intervals = 5
    nodes, weights = np.polynomial.legendre.leggauss(order)  # exact on each polynomial piece
    edges = np.linspace(0, 1, n_intervals + 1)
    u = (edges[:-1, None] + (nodes + 1) / (2 * n_intervals)).ravel()
    values = MSplineConv(n_intervals + order - 1, 10, order).evaluate(np.r_[0, u, 1])[1:-1]
    integrals = np.tile(weights / (2 * n_intervals), n_intervals) @ values
    np.testing.assert_allclose(integrals, 1, rtol=1e-13)


def test_m_splines_integrate_to_one_over_the_range_of_the_samples():
    points = np.linspace(3, 7, 4001)
    values = MSplineConv(6, 10).evaluate(points)
    np.testing.assert_allclose(scipy.integrate.trapezoid(values, points, axis=0), 1, rtol=1e-5)


def test_cyclic_splines_close_the_circle_with_two_derivatives():
    grid, values = CyclicBSplineConv(6, 10).evaluate_on_grid(10_001)
    step = grid[1]
    np.testing.assert_allclose(values[0], values[-1], atol=1e-13)
    for order in (1, 2):
        slopes = np.diff(values, order, axis=0) / step**order
        np.testing.assert_allclose(slopes[0], slopes[-1], atol=6 * step * 6 ** (order + 1))


@pytest.mark.parametrize("order", [2, 3, 4])
def test_cyclic_splines_are_shifts_of_each_other(order):
    n = 8
    _, values = CyclicBSplineConv(n, 10, order).evaluate_on_grid(5 * n + 1)
    for b in range(n):
        shifted = np.roll(values[:-1, 0], 5 * b)
        np.testing.assert_allclose(values[:-1, b], shifted, atol=1e-12)


def test_orthogonalised_exponentials_are_orthonormal_and_span_the_exponentials():
    kernel = OrthExponentialConv(3, 40, RATES).kernel_
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(3), atol=1e-13)
    exponentials = np.exp(-np.linspace(0, 1, 40)[:, None] * RATES)
    np.testing.assert_allclose(kernel @ (kernel.T @ exponentials), exponentials, atol=1e-13)


def test_dependent_exponentials_give_fewer_columns():
    near = OrthExponentialConv(3, 20, [1.0, 1.0 + 1e-15 * 4, 2.0])
    assert near.kernel_.shape == (20, 2)
    X = near.compute_features(poisson_counts(50, 4))
    assert X.shape == (50, 8)
    assert near.split_by_feature(np.zeros(8), axis=0)["OrthExponentialConv"].shape == (4, 2)


@each_case
def test_kernels_are_contiguous_float64(cls, kwargs):
    kernel = cls(window_size=12, **kwargs).kernel_
    assert kernel.dtype == np.float64
    assert kernel.flags.c_contiguous
    assert kernel.shape[0] == 12


@each_case
def test_the_kernel_is_the_basis_on_a_grid_of_the_window(cls, kwargs):
    b = cls(window_size=12, **kwargs)
    grid, values = b.evaluate_on_grid(12)
    np.testing.assert_array_equal(grid, np.linspace(0, 1, 12))
    np.testing.assert_array_equal(values, b.kernel_)


def test_evaluate_rescales_the_points_to_the_unit_interval():
    b = RaisedCosineLinearConv(4, 10)
    grid, values = b.evaluate_on_grid(9)
    np.testing.assert_allclose(b.evaluate(3 + 2 * grid), values, atol=1e-14)


def test_evaluate_keeps_the_order_of_the_points_and_lets_nan_through():
    b = RaisedCosineLogConv(4, 10)
    values = b.evaluate([1.0, np.nan, 0.0, 0.5])
    np.testing.assert_allclose(values[[2, 3, 0]], b.evaluate_on_grid(3)[1], atol=1e-15)
    assert np.isnan(values[1]).all()


def test_evaluate_keeps_the_shape_of_the_points_and_rescales_each_column():
    points = np.random.default_rng(0).normal(size=(9, 2, 3))
    b = BSplineConv(5, 10)
    values = b.evaluate(points)
    assert values.shape == (9, 2, 3, 5)
    np.testing.assert_allclose(values[:, 1, 2], b.evaluate(points[:, 1, 2]), atol=1e-15)


# --- parameters ---------------------------------------------------------------------------------


def test_defaults():
    log = RaisedCosineLogConv(3, 10)
    assert (log.width, log.time_scaling, log.enforce_decay_to_zero) == (2.0, 50.0, True)
    assert RaisedCosineLinearConv(3, 10).width == 2.0
    for cls in (BSplineConv, CyclicBSplineConv, MSplineConv):
        assert cls(5, 10).order == 4
    assert HistoryConv(3).conv_kwargs is None


@each_case
def test_the_default_label_is_the_name_of_the_class(cls, kwargs):
    assert cls(window_size=8, **kwargs).label == cls.__name__
    assert cls(window_size=8, label=None, **kwargs).label == cls.__name__
    assert cls(window_size=8, label="mine", **kwargs).label == "mine"


@each_case
def test_clone_keeps_every_parameter(cls, kwargs):
    b = cls(window_size=8, label="x", conv_kwargs={"shift": False}, **kwargs)
    copy = clone(b)
    assert copy is not b
    for name, value in b.get_params().items():
        np.testing.assert_array_equal(copy.get_params()[name], value)
    np.testing.assert_array_equal(copy.kernel_, b.kernel_)


def test_set_params_changes_the_kernel():
    b = RaisedCosineLogConv(3, 10).set_params(n_basis_funcs=5, window_size=20, time_scaling=3.0)
    np.testing.assert_array_equal(b.kernel_, RaisedCosineLogConv(5, 20, time_scaling=3.0).kernel_)


def test_the_number_of_functions_of_a_history_is_its_window():
    b = HistoryConv(5).set_params(window_size=9)
    assert b.n_basis_funcs == 9


@pytest.mark.parametrize("value", [0, -3, 2.5, True])
@pytest.mark.parametrize("name", ["window_size", "n_basis_funcs", "order"])
def test_sizes_must_be_positive_integers(name, value):
    kwargs = {"n_basis_funcs": 5, "window_size": 10, "order": 3, name: value}
    with pytest.raises(ValueError, match=f"{name} is {value}; expected a positive integer"):
        BSplineConv(**kwargs)


@pytest.mark.parametrize("value", [np.int32(10), 10.0])
def test_sizes_may_be_integers_of_any_type(value):
    b = HistoryConv(value)
    assert type(b.window_size) is int
    assert b.window_size == 10


@pytest.mark.parametrize("n_samples", [0, 1.5])
def test_a_grid_needs_a_positive_number_of_points(n_samples):
    with pytest.raises(ValueError, match=r"n_samples is .*; expected a positive integer"):
        HistoryConv(3).evaluate_on_grid(n_samples)


def test_a_window_must_be_given():
    with pytest.raises(ValueError, match="You must provide a window_size"):
        HistoryConv(None)


@pytest.mark.parametrize("cls", [RaisedCosineLinearConv, RaisedCosineLogConv])
def test_raised_cosines_need_two_functions(cls):
    with pytest.raises(ValueError, match=f"n_basis_funcs is 1; {cls.__name__} needs at least 2"):
        cls(1, 10)


@pytest.mark.parametrize("width", [1.0, 0.5, -2.0, 2.3, np.nan])
def test_width_must_be_above_one_and_a_multiple_of_one_half(width):
    with pytest.raises(ValueError, match=f"width is {width}; expected a number greater than 1"):
        RaisedCosineLogConv(4, 10, width=width)


@pytest.mark.parametrize("time_scaling", [0, -1.0, np.nan])
def test_time_scaling_must_be_positive(time_scaling):
    with pytest.raises(ValueError, match=f"time_scaling is {time_scaling}; expected a number"):
        RaisedCosineLogConv(4, 10, time_scaling=time_scaling)


def test_a_cyclic_spline_needs_order_two():
    with pytest.raises(ValueError, match="order is 1; CyclicBSplineConv needs at least 2"):
        CyclicBSplineConv(4, 10, order=1)


@pytest.mark.parametrize("cls", [BSplineConv, CyclicBSplineConv, MSplineConv])
def test_splines_need_as_many_functions_as_their_order(cls):
    with pytest.raises(ValueError, match=f"n_basis_funcs is 3 and order 4; {cls.__name__} needs"):
        cls(3, 10)


@pytest.mark.parametrize("rates", [[1.0], [[1.0, 2.0]], 3.0])
def test_each_function_needs_a_decay_rate(rates):
    with pytest.raises(ValueError, match=r"decay_rates has shape .*; expected one rate for each"):
        OrthExponentialConv(2, 10, rates)


def test_decay_rates_must_differ():
    with pytest.raises(ValueError, match="decay_rates holds a rate twice"):
        OrthExponentialConv(2, 10, [1.0, 1.0])


def test_exponentials_need_a_window_as_long_as_their_number():
    with pytest.raises(ValueError, match="2 points for 3 exponentials; OrthExponentialConv"):
        OrthExponentialConv(3, 2, RATES).compute_features(np.ones((9, 1)))


@pytest.mark.parametrize("axis", [0, 1])
def test_conv_kwargs_take_no_axis(axis):
    with pytest.raises(ValueError, match="conv_kwargs holds `axis`; the bins are always axis 0"):
        HistoryConv(3, conv_kwargs={"axis": axis})


def test_conv_kwargs_take_no_unknown_name():
    with pytest.raises(ValueError, match=r"conv_kwargs holds \['causality'\]; expected names"):
        HistoryConv(3, conv_kwargs={"causality": "causal"})


def test_conv_kwargs_take_no_unknown_causality():
    with pytest.raises(ValueError, match="predictor_causality is 'future'; expected one of"):
        HistoryConv(3, conv_kwargs={"predictor_causality": "future"})


def test_an_acausal_window_has_no_shift():
    with pytest.raises(ValueError, match="shift=True needs a causal or anti-causal predictor"):
        HistoryConv(3, conv_kwargs={"predictor_causality": "acausal", "shift": True})


def test_the_batch_sizes_of_nemos_change_nothing():
    counts = poisson_counts(20, 2)
    batched = HistoryConv(3, conv_kwargs={"batch_size_samples": 7, "batch_size_channels": 1})
    expected = np.asarray(HistoryConv(3).compute_features(counts))
    np.testing.assert_array_equal(np.asarray(batched.compute_features(counts)), expected)


# --- features -----------------------------------------------------------------------------------


@each_case
def test_features_equal_the_formula(cls, kwargs):
    counts = poisson_counts(30, 3)
    b = cls(window_size=9, **kwargs)
    expected = naive.features(counts, b.kernel_)
    np.testing.assert_allclose(np.asarray(b.compute_features(counts)), expected, atol=1e-12)


@each_causality
@pytest.mark.parametrize("window_size", [1, 2, 5, 6])
def test_conv_kwargs_move_the_window(window_size, conv_kwargs):
    counts = poisson_counts(20, 2)
    kwargs = {"causality": conv_kwargs.get("predictor_causality", "causal")}
    shift = naive.window_shift(window_size, shift=conv_kwargs.get("shift", True), **kwargs)
    b = RaisedCosineLogConv(3, window_size, conv_kwargs=conv_kwargs)
    expected = naive.features(counts, b.kernel_, [(0, 12), (12, 20)], shift)
    features = np.asarray(b.compute_features(counts, epochs=[(0, 12), (12, 20)]))
    np.testing.assert_allclose(features, expected, atol=1e-12)


def test_a_bin_never_sees_itself_or_the_future():
    counts = np.zeros((9, 1))
    counts[4] = 1
    features = np.asarray(HistoryConv(3).compute_features(counts))
    expected = np.zeros((9, 3))
    expected[[5, 6, 7], [0, 1, 2]] = 1
    expected[:3] = np.nan
    np.testing.assert_array_equal(features, expected)


def test_columns_are_sender_major():
    counts = np.zeros((9, 2))
    counts[4, 1] = 1
    features = np.asarray(HistoryConv(3).compute_features(counts))
    np.testing.assert_array_equal(features[6], [0, 0, 0, 0, 1, 0])


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, object])
def test_counts_of_any_numeric_dtype(dtype):
    counts = (poisson_counts(20, 2) > 0).astype(dtype)
    expected = naive.features(counts, np.eye(3))
    np.testing.assert_array_equal(np.asarray(HistoryConv(3).compute_features(counts)), expected)


def test_a_sum_of_bases_puts_its_features_side_by_side():
    counts, speed = poisson_counts(20, 2), poisson_counts(20, 1, seed=1)
    total = HistoryConv(3) + RaisedCosineLogConv(2, 5)
    expected = np.hstack(
        [
            naive.features(counts, np.eye(3)),
            naive.features(speed, naive.raised_cosine_log(2, 5)),
        ]
    )
    X = total.compute_features(counts, speed)
    np.testing.assert_allclose(np.asarray(X), expected, atol=1e-12)
    np.testing.assert_array_equal(X.valid, np.isfinite(expected).all(axis=1))


def test_a_sum_of_bases_hands_on_the_epochs():
    counts = poisson_counts(20, 2)
    epochs = [(0, 9), (11, 20)]
    X = (HistoryConv(3) + HistoryConv(2)).compute_features(counts, counts, epochs=epochs)
    np.testing.assert_array_equal(np.flatnonzero(~X.valid), [0, 1, 2, 9, 10, 11, 12, 13])


@pytest.mark.parametrize("inputs", [0, 1, 3])
def test_a_sum_takes_one_input_for_each_basis(inputs):
    total = HistoryConv(3) + HistoryConv(2)
    counts = [poisson_counts(20, 2)] * inputs
    match = f"{inputs} inputs for 2 bases; .* takes one input for each"
    with pytest.raises(TypeError, match=match):
        total.compute_features(*counts)
    with pytest.raises(ValueError, match=match):
        total.set_input_shape(*counts)
    with pytest.raises(TypeError, match=match):
        total.evaluate_on_grid(*[5] * inputs)


@pytest.mark.parametrize(
    ("counts", "match"),
    [
        ([[1, 2], [3]], "Counts could not be read as numbers; expected real numbers"),
        ([np.zeros((5, 2)), np.zeros((5, 3))], r"Trials have shapes \[\(5, 2\), \(5, 3\)\]"),
        (np.broadcast_to(np.uint8(0), (2**31, 1)), "Counts have 2147483648 bins; at most"),
    ],
)
def test_counts_that_cannot_be_read(counts, match):
    with pytest.raises(ValueError, match=match):
        HistoryConv(3).compute_features(counts)


def test_a_second_input_is_a_type_error():
    counts = poisson_counts(40, 2)
    for call in (HistoryConv(3).compute_features, HistoryConv(3).evaluate):
        with pytest.raises(TypeError, match="takes one input"):
            call(counts, counts)
    with pytest.raises(TypeError, match=r"Epochs are given by name: compute_features\(counts, ep"):
        HistoryConv(3).compute_features(counts, [(0, 20)])


@pytest.mark.parametrize(
    "whole", [HistoryConv(3) + HistoryConv(2), HistoryConv(3) * HistoryConv(2)]
)
def test_a_part_computes_no_features_of_its_own(whole):
    """They would change the shape of the whole's inputs, and the split of its features."""
    counts = poisson_counts(40, 2)
    whole.compute_features(counts, counts)
    for part in (whole.basis1, whole["HistoryConv_1"], (whole + HistoryConv(4)).basis1):
        with pytest.raises(ValueError, match=r"is a part of .*; call compute_features"):
            part.compute_features(*[counts[:, 0]] * len(part.input_shape))
    assert whole.input_shape == [(2,), (2,)]
    assert copy.deepcopy(whole.basis1).compute_features(counts[:, 0]).shape == (40, 3)
    assert whole.basis1.evaluate([0.0, 1.0]).shape == (2, 3)


def test_trials_take_no_epochs():
    with pytest.raises(ValueError, match="epochs cannot be given with a list of trials"):
        HistoryConv(3).compute_features([np.zeros((5, 2))] * 2, epochs=[(0, 5)])


# --- labels and splitting -----------------------------------------------------------------------


def labels(total):
    return list(total.split_by_feature(np.zeros(total.n_output_features), axis=0))


def test_default_labels_are_numbered_on_addition():
    total = HistoryConv(3) + HistoryConv(2) + BSplineConv(4, 5) + HistoryConv(1)
    total.set_input_shape(2, 2, 2, 2)
    assert labels(total) == ["HistoryConv", "HistoryConv_1", "BSplineConv", "HistoryConv_2"]


def test_default_labels_are_numbered_when_sums_are_added():
    total = (HistoryConv(3) + HistoryConv(2)) + (HistoryConv(3) + HistoryConv(2))
    total.set_input_shape(1, 1, 1, 1)
    assert labels(total) == ["HistoryConv", "HistoryConv_1", "HistoryConv_2", "HistoryConv_3"]


def test_a_label_that_a_user_chose_may_not_stand_twice():
    with pytest.raises(ValueError, match="Two bases have the label 'coupling'"):
        HistoryConv(3, label="coupling") + BSplineConv(4, 5, label="coupling")


def test_addition_leaves_the_summands_alone():
    first, second = HistoryConv(3), HistoryConv(2)
    total = first + second
    total.set_input_shape(4, 4)
    assert (first.label, second.label) == ("HistoryConv", "HistoryConv")
    assert first.n_output_features is None


def test_addition_keeps_what_the_summands_know_of_their_inputs():
    first, second = HistoryConv(3).set_input_shape(2), HistoryConv(2).set_input_shape(5)
    assert (first + second).n_output_features == 3 * 2 + 2 * 5
    assert (first + second + second).n_output_features == 3 * 2 + 2 * 5 + 2 * 5


def test_a_sum_has_a_name_of_its_own_or_that_of_its_parts():
    assert (HistoryConv(3) + BSplineConv(4, 5)).label == "(HistoryConv + BSplineConv)"
    assert AdditiveBasis(HistoryConv(3), HistoryConv(3), label="all").label == "all"


def test_only_bases_can_be_added():
    with pytest.raises(TypeError, match="unsupported operand"):
        HistoryConv(3) + 1


def test_number_of_functions_and_features_of_a_sum():
    total = HistoryConv(3) + BSplineConv(4, 5)
    assert total.n_basis_funcs == 7
    assert total.n_output_features is None
    assert total.set_input_shape(2, 5).n_output_features == 3 * 2 + 4 * 5


@pytest.mark.parametrize("xi", [4, (4,), np.zeros((9, 4))])
def test_set_input_shape_takes_a_number_a_shape_or_an_array(xi):
    assert HistoryConv(3).set_input_shape(xi).n_output_features == 12


def test_split_of_coefficients_is_sender_by_function_by_receiver():
    b = HistoryConv(3, label="history")
    b.compute_features(poisson_counts(9, 2))
    coef = np.arange(6 * 4).reshape(6, 4)
    parts = b.split_by_feature(coef, axis=0)
    assert list(parts) == ["history"]
    assert parts["history"].shape == (2, 3, 4)
    np.testing.assert_array_equal(parts["history"][1, 2], coef[5])


def test_split_of_a_one_dimensional_input_has_no_sender_axis():
    b = HistoryConv(3)
    X = b.compute_features(poisson_counts(9, 1)[:, 0])
    assert X.shape == (9, 3)
    assert b.split_by_feature(np.zeros((3, 5)), axis=0)["HistoryConv"].shape == (3, 5)


def test_split_of_an_input_with_several_axes_keeps_them():
    b = HistoryConv(3)
    X = b.compute_features(poisson_counts(9, 10).reshape(9, 2, 5))
    assert X.shape == (9, 30)
    assert b.split_by_feature(np.zeros((30, 4)), axis=0)["HistoryConv"].shape == (2, 5, 3, 4)


def test_split_of_a_sum_follows_the_columns():
    total = HistoryConv(3) + BSplineConv(4, 5, label="speed")
    counts = poisson_counts(9, 2)
    X = total.compute_features(counts, counts[:, 0])
    parts = total.split_by_feature(X)
    assert {k: v.shape for k, v in parts.items()} == {"HistoryConv": (9, 2, 3), "speed": (9, 4)}
    np.testing.assert_array_equal(parts["speed"], np.asarray(X)[:, 6:])


@pytest.mark.parametrize("axis", [1, -1])
def test_split_along_any_axis(axis):
    b = HistoryConv(3).set_input_shape(2)
    assert b.split_by_feature(np.zeros((5, 6)), axis=axis)["HistoryConv"].shape == (5, 2, 3)
    assert b.split_by_feature(np.zeros((5, 6)))["HistoryConv"].shape == (5, 2, 3)


def test_split_needs_to_know_the_inputs():
    with pytest.raises(ValueError, match="HistoryConv does not know its number of inputs yet"):
        HistoryConv(3).split_by_feature(np.zeros(6), axis=0)


@pytest.mark.parametrize(("shape", "axis"), [((6, 4), 1), ((5, 4), 0), ((6,), 1)])
def test_split_needs_the_axis_of_the_features(shape, axis):
    with pytest.raises(ValueError, match=f"expected 6 features along axis {axis}. Pass the axis"):
        HistoryConv(3).set_input_shape(2).split_by_feature(np.zeros(shape), axis=axis)


def test_the_grid_of_a_sum_has_an_axis_for_each_basis():
    total = HistoryConv(3) + BSplineConv(4, 5)
    x, y, values = total.evaluate_on_grid(3, 6)
    assert x.shape == y.shape == (3, 6)
    assert values.shape == (3, 6, 7)
    np.testing.assert_array_equal(x[:, 2], np.linspace(0, 1, 3))
    np.testing.assert_array_equal(values[:, 4, :3], np.eye(3))
    np.testing.assert_array_equal(values[1, :, 3:], BSplineConv(4, 6).kernel_)


# --- NeMoS --------------------------------------------------------------------------------------


@pytest.fixture
def nemos():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jax = pytest.importorskip("jax")
        nemos = pytest.importorskip("nemos")
        before = jax.config.jax_enable_x64
        jax.config.update("jax_enable_x64", True)
        yield nemos.basis
        jax.config.update("jax_enable_x64", before)


def nemos_features(peer, counts, epochs=None):
    """NeMoS's features, each epoch on its own."""
    out = np.full((counts.shape[0], peer.n_basis_funcs * counts.shape[1]), np.nan)
    for begin, end in [(0, len(counts))] if epochs is None else epochs:
        features = np.asarray(peer.compute_features(counts[begin:end]))
        assert features.dtype == np.float64
        out = out[:, : features.shape[1]]
        out[begin:end] = features
    return out


@each_case
@pytest.mark.parametrize("window_size", [4, 5, 50])
def test_kernels_are_those_of_nemos(nemos, cls, kwargs, window_size):
    peer = getattr(nemos, cls.__name__)(window_size=window_size, **kwargs)
    expected = np.asarray(peer.evaluate_on_grid(window_size)[1])
    kernel = cls(window_size=window_size, **kwargs).kernel_
    np.testing.assert_allclose(kernel, expected, rtol=1e-12, atol=1e-12)


@each_case
def test_evaluate_is_that_of_nemos(nemos, cls, kwargs):
    points = np.array([0.1, 0.4, 3.0, 2.2, 1.7])
    if cls is HistoryConv:
        points = np.linspace(0, 1, 5)
    peer = getattr(nemos, cls.__name__)(window_size=5, **kwargs)
    values = cls(window_size=5, **kwargs).evaluate(points)
    np.testing.assert_allclose(values, np.asarray(peer.evaluate(points)), rtol=1e-12, atol=1e-12)


@each_case
@each_causality
def test_features_are_those_of_nemos(nemos, cls, kwargs, conv_kwargs):
    counts = poisson_counts(60, 3)
    counts[31, 1] = np.nan
    kwargs = {**kwargs, "window_size": 8, "conv_kwargs": conv_kwargs}
    expected = nemos_features(getattr(nemos, cls.__name__)(**kwargs), counts)
    features = np.asarray(cls(**kwargs).compute_features(counts))
    np.testing.assert_allclose(features, expected, rtol=1e-12, atol=1e-12)


@each_causality
@pytest.mark.parametrize("window_size", [7, 8])
def test_epochs_are_those_of_nemos(nemos, conv_kwargs, window_size):
    """Among them epochs of one bin less than the window, as long, and of one bin more."""
    counts = poisson_counts(70, 2)
    edges = np.cumsum([0, 20, window_size - 1, window_size, window_size + 1, 2])
    epochs = np.column_stack([edges[:-1], edges[1:]])
    kwargs = {"n_basis_funcs": 3, "window_size": window_size, "conv_kwargs": conv_kwargs}
    expected = nemos_features(nemos.RaisedCosineLogConv(**kwargs), counts, epochs)
    # The fixture ignores the warnings of both.
    features = np.asarray(RaisedCosineLogConv(**kwargs).compute_features(counts, epochs=epochs))
    np.testing.assert_allclose(features, expected, rtol=1e-12, atol=1e-12)


def test_sums_are_those_of_nemos(nemos):
    counts = poisson_counts(40, 2)

    def total(module):
        return module.HistoryConv(3) + module.BSplineConv(5, 6) + module.HistoryConv(2)

    ours, peer = total(basis), total(nemos)
    expected = np.asarray(peer.compute_features(counts, counts[:, 0], counts))
    X = ours.compute_features(counts, counts[:, 0], counts)
    np.testing.assert_allclose(np.asarray(X), expected, rtol=1e-12, atol=1e-12)
    coef = np.random.default_rng(0).normal(size=(X.shape[1], 2))
    parts, peer_parts = ours.split_by_feature(coef, axis=0), peer.split_by_feature(coef, axis=0)
    assert list(parts) == list(peer_parts)
    for label, part in parts.items():
        np.testing.assert_array_equal(part, peer_parts[label])


@pytest.mark.parametrize("cls", dict.fromkeys(c for c, _ in CASES))
def test_parameters_and_defaults_are_those_of_nemos(nemos, cls):
    def parameters(c):
        return [(p.name, p.default) for p in inspect.signature(c).parameters.values()]

    assert parameters(cls) == parameters(getattr(nemos, cls.__name__))


def test_trials_may_have_one_dimension():
    X = basis.HistoryConv(2).compute_features([np.ones(6), np.ones(4)])
    assert X.shape == (10, 2)
    assert np.flatnonzero(~X.valid).tolist() == [0, 1, 6, 7]


def test_a_sum_can_be_cloned():
    both = clone(basis.HistoryConv(3) + basis.HistoryConv(4))
    assert [b.label for b in both] == ["HistoryConv", "HistoryConv_1"]


@pytest.mark.parametrize("cls", [basis.BSplineConv, basis.MSplineConv, basis.CyclicBSplineConv])
def test_splines_keep_missing_points(cls):
    values = cls(5, 10).evaluate([0.0, np.nan, 1.0])
    assert np.isnan(values[1]).all()
    np.testing.assert_allclose(values[[0, 2]], cls(5, 10).evaluate([0.0, 1.0]))


def test_parameters_are_checked_together():
    spline = basis.BSplineConv(4, 10).set_params(order=5, n_basis_funcs=5)
    assert spline.kernel_.shape == (10, 5)
    with pytest.raises(ValueError, match="at least as many functions as its order"):
        basis.BSplineConv(6, 10).set_params(n_basis_funcs=2)


@pytest.mark.parametrize("value", ["abc", None, np.inf, 2.5, True])
def test_sizes_that_are_no_positive_integers_are_refused(value):
    with pytest.raises(ValueError, match=r"n_basis_funcs is .*; expected a positive integer"):
        basis.BSplineConv(value, 10)


def test_a_sum_of_many_bases_is_shown():
    """That of scikit-learn takes twice as long for every part."""
    parts = [RaisedCosineLogConv(3, 10, label=f"cell {k}") for k in range(25)]
    whole = functools.reduce(operator.add, parts)
    text = repr(whole)
    assert text.startswith("AdditiveBasis(basis1=AdditiveBasis(")
    assert text.endswith("label='cell 24', n_basis_funcs=3, time_scaling=50.0, window_size=10))")
    assert len(text) <= 703
    transformer = whole.set_input_shape(*[1] * 25).to_transformer()
    assert repr(transformer).startswith("TransformerBasis(basis=AdditiveBasis")
    two = HistoryConv(3) * HistoryConv(4)
    two.label = "pair"
    assert repr(two) == (
        "MultiplicativeBasis(basis1=HistoryConv(window_size=3), "
        "basis2=HistoryConv(label='HistoryConv_1', window_size=4), label='pair')"
    )


def test_numbers_of_default_labels_are_given_by_the_whole():
    basis = HistoryConv(3, label="HistoryConv_1")
    assert basis.label == "HistoryConv"
    both = basis + HistoryConv(4)
    both.basis1.label = "HistoryConv_1"
    assert [part.label for part in both] == ["HistoryConv", "HistoryConv_1"]
    assert [part.window_size for part in both] == [3, 4]


def test_evaluate_without_samples():
    spline = basis.BSplineEval(5)
    for part in (HistoryConv(3), spline, spline + spline):
        with pytest.raises(TypeError, match=r"^0 inputs for "):
            part.evaluate()
