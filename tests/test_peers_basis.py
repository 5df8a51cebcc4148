"""Bases of covariates, sums, products and transformers: the values of NeMoS."""

import functools
import inspect
import operator
import warnings

import numpy as np
import pytest
from sklearn.base import clone

import fastglm
from fastglm import basis

RATES = np.array([1.0, 3.0, 8.0])
CASES = [
    ("RaisedCosineLinearEval", {"n_basis_funcs": 4}),
    ("RaisedCosineLinearEval", {"n_basis_funcs": 5, "width": 1.5}),
    ("RaisedCosineLogEval", {"n_basis_funcs": 4}),
    ("RaisedCosineLogEval", {"n_basis_funcs": 3, "time_scaling": 2.0}),
    ("RaisedCosineLogEval", {"n_basis_funcs": 5, "enforce_decay_to_zero": False}),
    ("BSplineEval", {"n_basis_funcs": 6}),
    ("BSplineEval", {"n_basis_funcs": 3, "order": 1}),
    ("CyclicBSplineEval", {"n_basis_funcs": 6}),
    ("CyclicBSplineEval", {"n_basis_funcs": 4, "order": 2}),
    ("MSplineEval", {"n_basis_funcs": 6}),
    ("MSplineEval", {"n_basis_funcs": 5, "order": 3}),
    ("OrthExponentialEval", {"n_basis_funcs": 3, "decay_rates": RATES}),
    ("IdentityEval", {}),
    ("FourierEval", {"frequencies": 4}),
    ("FourierEval", {"frequencies": (2, 5), "frequency_mask": "all"}),
    ("FourierEval", {"frequencies": 3, "frequency_mask": "all"}),
    ("FourierEval", {"frequencies": np.array([1, 4]), "frequency_mask": None}),
    ("FourierEval", {"frequencies": 4, "frequency_mask": np.array([1, 0, 1, 1])}),
    ("FourierEval", {"frequencies": 5, "frequency_mask": lambda f: f % 2 == 0}),
]
IDS = [f"{name}-{k}" for k, (name, _) in enumerate(CASES)]
each_case = pytest.mark.parametrize(("name", "kwargs"), CASES, ids=IDS)
ALL = (
    [name for name in basis.__all__ if name.endswith(("Eval", "Conv"))]
    + ["Zero", "CustomBasis", "AdditiveBasis", "MultiplicativeBasis", "TransformerBasis"]
)  # fmt: skip


@pytest.fixture
def nemos():
    """NeMoS's bases in float64, whose own warnings are its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jax = pytest.importorskip("jax")
        peer = pytest.importorskip("nemos")
        before = jax.config.jax_enable_x64
        jax.config.update("jax_enable_x64", True)
        yield peer.basis
        jax.config.update("jax_enable_x64", before)


def pair(nemos, name, kwargs):
    return getattr(basis, name)(**kwargs), getattr(nemos, name)(**kwargs)


def samples(*shape, seed=0):
    return np.random.default_rng(seed).normal(2, 1.5, size=shape)


def same(actual, expected):
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=1e-9, atol=1e-11)


def test_the_names_are_those_of_nemos(nemos):
    # Category, of NeMoS 0.2.9, makes columns of labels; see docs/coming-from-nemos.md.
    assert set(nemos.__all__) - {"Category"} <= set(basis.__all__)


@pytest.mark.parametrize("name", ALL)
def test_parameters_are_those_of_nemos(nemos, name):
    def parameters(cls):
        signature = inspect.signature(cls).parameters.values()
        return [(p.name, repr(p.default)) for p in signature]

    assert parameters(getattr(basis, name)) == parameters(getattr(nemos, name))


@each_case
@pytest.mark.parametrize("shape", [(40,), (40, 1), (40, 3), (40, 2, 2)])
def test_features_are_those_of_nemos(nemos, name, kwargs, shape):
    ours, peer = pair(nemos, name, kwargs)
    x = samples(*shape)
    x[7] = np.nan
    X = ours.compute_features(x)
    expected = np.asarray(peer.compute_features(x))
    same(X, expected)
    np.testing.assert_array_equal(X.valid, np.isfinite(expected).all(axis=1))
    assert ours.n_output_features == peer.n_output_features == X.shape[1]
    assert ours.n_basis_funcs == peer.n_basis_funcs
    assert ours.input_shape == peer.input_shape
    ours_split, peer_split = ours.split_by_feature(X), peer.split_by_feature(expected)
    assert list(ours_split) == list(peer_split)
    for label, part in ours_split.items():
        same(part, peer_split[label])
    n_inputs = int(np.prod(shape[1:], dtype=int))
    assert np.bincount(X.filters).tolist() == [X.shape[1] // n_inputs] * n_inputs


@each_case
@pytest.mark.parametrize("shape", [(40,), (40, 3)])
@pytest.mark.parametrize("fill_value", [np.nan, -1.0])
def test_bounds_are_those_of_nemos(nemos, name, kwargs, shape, fill_value):
    kwargs = {**kwargs, "bounds": (0.5, 3.0), "fill_value": fill_value}
    if name == "FourierEval":
        del kwargs["fill_value"]  # a period: samples beyond it are wrapped
    ours, peer = pair(nemos, name, kwargs)
    x = samples(*shape)
    x[3] = np.nan
    x[4] = 0.5
    x[5] = 3.0
    same(ours.compute_features(x), peer.compute_features(x))
    if name != "OrthExponentialEval":
        inside = np.clip(x, 0.5, 3.0)
        same(ours.evaluate(inside), peer.evaluate(inside))


@each_case
def test_evaluate_keeps_the_shape_as_nemos(nemos, name, kwargs):
    ours, peer = pair(nemos, name, kwargs)
    x = samples(20, 3, 2)
    same(ours.evaluate(x), peer.evaluate(x))


@each_case
@pytest.mark.parametrize("bounds", [None, (-2.0, 5.0)])
def test_the_grid_is_that_of_nemos(nemos, name, kwargs, bounds):
    ours, peer = pair(nemos, name, {**kwargs, "bounds": bounds})
    for mine, expected in zip(ours.evaluate_on_grid(30), peer.evaluate_on_grid(30), strict=True):
        same(mine, expected)


def test_a_fourier_basis_of_two_inputs(nemos):
    masks = ["no-intercept", "all", np.tri(3, 4), lambda f, g: f + g < 3]
    for bounds in (None, (0.0, 4.0), [(0.0, 4.0), (1.0, 2.0)]):
        for mask in masks:
            kwargs = {"frequencies": [3, np.arange(4)], "ndim": 2, "bounds": bounds}
            ours, peer = pair(nemos, "FourierEval", {**kwargs, "frequency_mask": mask})
            same(ours.masked_frequencies, peer.masked_frequencies)
            for x in (samples(25), samples(25, 2)):
                y = x[::-1] ** 2
                same(ours.compute_features(x, y), peer.compute_features(x, y))
                assert ours.n_output_features == peer.n_output_features
            for mine, expected in zip(
                ours.evaluate_on_grid(4, 5), peer.evaluate_on_grid(4, 5), strict=True
            ):
                same(mine, expected)


def power(n, x, shift=0):
    return (x + shift) ** n


def distance(scale, x, y):
    return np.stack([np.abs(x - y) * scale, x * y], axis=1)


def test_custom_bases(nemos):
    funcs = [functools.partial(power, n) for n in (1, 2, 3)]
    for kwargs in ({}, {"basis_kwargs": {"shift": 1}}, {"bounds": (1, 3), "fill_value": 0.0}):
        for shape in ((20,), (20, 3), (20, 2, 2)):
            ours, peer = pair(nemos, "CustomBasis", {"funcs": funcs, **kwargs})
            x = samples(*shape)
            X, expected = ours.compute_features(x), np.asarray(peer.compute_features(x))
            same(X, expected)
            same(ours.evaluate(x), peer.evaluate(x))
            assert ours.n_output_features == peer.n_output_features
            same(
                ours.split_by_feature(X)["CustomBasis"],
                peer.split_by_feature(expected)["CustomBasis"],
            )


def test_a_custom_basis_of_two_inputs_with_several_values(nemos):
    funcs = [functools.partial(distance, s) for s in (1.0, 2.0)]
    for shape in ((20,), (20, 3)):
        ours, peer = pair(nemos, "CustomBasis", {"funcs": funcs})
        x, y = samples(*shape), samples(*shape, seed=1)
        X, expected = ours.compute_features(x, y), np.asarray(peer.compute_features(x, y))
        same(X, expected)
        assert ours.output_shape == peer.output_shape == (2,)
        # NeMoS counts the columns of the second input once more.
        assert ours.n_output_features == expected.shape[1]
        parts = ours.split_by_feature(X)["CustomBasis"]
        assert parts.shape == (20, 2, *shape[1:], 2)


def total(module):
    return (
        module.BSplineEval(5, label="speed")
        + module.RaisedCosineLogConv(3, 6)
        + module.CyclicBSplineEval(4) * module.MSplineEval(5, bounds=(-1, 4))
        + module.Zero()
        + module.BSplineEval(4)
    )


def inputs():
    counts = np.random.default_rng(2).poisson(0.5, (60, 2)).astype(float)
    return (
        samples(60),
        counts,
        samples(60, 2),
        samples(60, 2, seed=1),
        samples(60),
        samples(60, seed=4),
    )


def test_sums_and_products(nemos):
    ours, peer = total(basis), total(nemos)
    X, expected = ours.compute_features(*inputs()), np.asarray(peer.compute_features(*inputs()))
    same(X, expected)
    assert ours.label == peer.label
    assert len(ours) == len(peer) == 5
    assert [b.label for b in ours] == [b.label for b in peer]
    assert ours.n_output_features == peer.n_output_features
    parts, peer_parts = ours.split_by_feature(X), peer.split_by_feature(expected)
    assert list(parts) == list(peer_parts)
    for label, part in parts.items():
        same(part, peer_parts[label])
    for label in ("speed", "MSplineEval", "(CyclicBSplineEval * MSplineEval)", "BSplineEval"):
        assert ours[label].label == label
        assert ours[label].n_basis_funcs == peer[label].n_basis_funcs


def test_products_with_a_convolution(nemos):
    counts = np.random.default_rng(2).poisson(0.5, (50, 3)).astype(float)
    x = samples(50, 3)
    x[20, 1] = np.nan
    for build in (
        lambda m: m.RaisedCosineLogConv(3, 6) * m.BSplineEval(5),
        lambda m: m.HistoryConv(4) * m.BSplineConv(4, 5),
        lambda m: m.HistoryConv(4) * m.Zero(),
        lambda m: m.BSplineEval(4) * m.FourierEval(3),
    ):
        ours, peer = build(basis), build(nemos)
        y = counts if "Conv" in ours.basis2.label else x
        same(ours.compute_features(counts, y), peer.compute_features(counts, y))


def test_products_of_sums_with_one_input_each(nemos):
    """With several, NeMoS's product mixes the inputs of a sum."""

    def build(module):
        return (module.BSplineEval(4) + module.MSplineEval(5)) * module.RaisedCosineLinearEval(3)

    x, y, z = samples(30, 3).T
    ours = build(basis)
    same(ours.compute_features(x, y, z), build(nemos).compute_features(x, y, z))
    same(ours.evaluate(x, y, z), build(nemos).evaluate(x, y, z))
    several = samples(30, 2)
    X = np.asarray(ours.compute_features(several, several, several))
    for k in range(2):
        one = np.asarray(build(basis).compute_features(*[several[:, k]] * 3))
        same(X[:, k * 27 : (k + 1) * 27], one)


def test_evaluate_of_sums_and_products(nemos):
    x, y = samples(30), samples(30, seed=1)
    for build in (
        lambda m: m.BSplineEval(5) + m.RaisedCosineLinearEval(4),
        lambda m: m.BSplineEval(5) * m.RaisedCosineLinearEval(4),
    ):
        same(build(basis).evaluate(x, y), build(nemos).evaluate(x, y))
    product = [m.BSplineEval(5) * m.MSplineEval(5) for m in (basis, nemos)]
    values = [p.evaluate(samples(30, 2), samples(30, 2, seed=1)) for p in product]
    same(*values)


def test_evaluate_takes_samples_of_any_shape(nemos):
    """A function of one's own gives one axis of all inputs; in a product they keep their shape."""
    funcs = [np.sin, np.cos]
    x = samples(6, 2, 3)
    for build in (
        lambda m: m.BSplineEval(5) * m.CustomBasis(funcs),
        lambda m: m.CustomBasis(funcs) * m.BSplineEval(5),
        lambda m: m.CustomBasis(funcs) * m.CustomBasis(funcs, label="again"),
    ):
        mine, expected = build(basis).evaluate(x, x + 1), build(nemos).evaluate(x, x + 1)
        assert mine.shape == expected.shape
        same(mine, expected)


def test_evaluate_of_functions_with_several_values_has_the_columns_of_features(nemos):
    """NeMoS 0.2.9 evaluates no such product; its features of one input are the values here."""
    funcs = [functools.partial(distance, s) for s in (1.0, 2.0)]
    x, y, z = (samples(20, seed=k) for k in range(3))
    for build in (
        lambda m: m.BSplineEval(5) * m.CustomBasis(funcs),
        lambda m: m.CustomBasis(funcs) * m.BSplineEval(5),
        lambda m: m.CustomBasis(funcs) + m.BSplineEval(5),
    ):
        inputs = (x, y, z)
        same(build(basis).evaluate(*inputs), build(nemos).compute_features(*inputs))
    several = np.stack([x, y], axis=1)
    values = (basis.BSplineEval(5) * basis.CustomBasis(funcs)).evaluate(several, several, several)
    for k, one in enumerate((x, y)):
        product = nemos.BSplineEval(5, bounds=None) * nemos.CustomBasis(funcs)
        same(values[:, k], product.compute_features(one, one, one))


def test_sums_evaluate_samples_of_several_dimensions(nemos):
    """As NeMoS 0.2.9; 0.2.8 takes one dimension, so its summands are put side by side here."""
    x, y = samples(20, 3), samples(20, 3, seed=1)
    total = basis.BSplineEval(5) + basis.MSplineEval(4)
    expected = [nemos.BSplineEval(5).evaluate(x), nemos.MSplineEval(4).evaluate(y)]
    same(total.evaluate(x, y), np.concatenate(expected, axis=-1))


def test_grids_of_sums_and_products(nemos):
    def build(module):
        return module.BSplineEval(5) * module.FourierEval(3) + module.MSplineEval(5)

    mine = build(basis).evaluate_on_grid(3, 4, 6)
    for ours, expected in zip(mine, build(nemos).evaluate_on_grid(3, 4, 6), strict=True):
        same(ours, expected)


@pytest.mark.parametrize("operation", [lambda b: b * 3, lambda b: 2 * b, lambda b: b**3])
def test_repetition(nemos, operation):
    ours, peer = (operation(m.BSplineEval(5)) for m in (basis, nemos))
    assert ours.label == peer.label
    assert ours.n_basis_funcs == peer.n_basis_funcs
    x = [samples(20, seed=k) for k in range(ours.label.count("BSpline"))]
    same(ours.compute_features(*x), peer.compute_features(*x))


def test_parameters_by_label(nemos):
    ours, peer = total(basis), total(nemos)
    assert set(ours.get_params()) == set(peer.get_params())
    for b in (ours, peer):
        b.set_params(speed__n_basis_funcs=7, MSplineEval__order=2)
        b.set_params(RaisedCosineLogConv__window_size=5, basis2__n_basis_funcs=6)
    same(ours.compute_features(*inputs()), peer.compute_features(*inputs()))
    ours, peer = total(basis), total(nemos)  # NeMoS replaces no part of a sum that knows its inputs
    for b, module in ((ours, basis), (peer, nemos)):
        b.set_params(speed=module.MSplineEval(4), BSplineEval=module.IdentityEval())
    assert ours.label == peer.label
    same(ours.compute_features(*inputs()), peer.compute_features(*inputs()))
    assert ours.n_output_features == peer.n_output_features


@pytest.mark.parametrize(
    "params",
    [
        lambda m: {"basis2__n_basis_funcs": 7, "basis2": m.BSplineEval(5, label="d")},
        lambda m: {"c__n_basis_funcs": 7, "c": m.BSplineEval(5)},
        lambda m: {"b": m.MSplineEval(6), "basis1": m.BSplineEval(5) + m.BSplineEval(4)},
    ],
)
def test_parameters_that_are_set_with_a_part_are_those_of_the_new_part(nemos, params):
    results = []
    for m in (basis, nemos):
        total = m.BSplineEval(5, label="a") + m.BSplineEval(5, label="b")
        total = (total + m.BSplineEval(5, label="c")).set_params(**params(m))
        results.append([(part.label, part.n_basis_funcs) for part in total])
    assert results[0] == results[1]


def test_a_label_cannot_be_given_twice_in_nested_parts(nemos):
    """The inner sum is put into the new outer one, whose label it shares."""
    for m in (basis, nemos):
        sums = [
            m.AdditiveBasis(m.BSplineEval(9), m.BSplineEval(8), label="twice") for _ in range(2)
        ]
        whole = m.BSplineEval(4) + m.BSplineEval(5) + m.BSplineEval(6) + m.BSplineEval(7)
        inner, outer = whole.basis1.basis1.label, whole.basis1.label
        with pytest.raises(ValueError, match=r"label"):
            whole.set_params(**{inner: sums[0], outer: sums[1]})


def test_a_part_that_is_set_needs_the_parts_that_are_set_in_it(nemos):
    for m in (basis, nemos):
        total = m.BSplineEval(5, label="a") + m.BSplineEval(5, label="b") + m.MSplineEval(5)
        with pytest.raises(ValueError, match=r"q has no parts|for estimator 'q'"):
            total.set_params(b=m.MSplineEval(6), basis1=m.BSplineEval(5, label="q"))


@pytest.mark.parametrize("label", [1, 1.5, True, ("a",), ["a"]])
def test_a_label_is_a_string(nemos, label):
    for m in (basis, nemos):
        with pytest.raises(TypeError, match="string"):
            m.BSplineEval(5, label=label)
        with pytest.raises(TypeError, match="string"):
            m.CustomBasis([np.sin], label=label)
        one = m.HistoryConv(3)
        with pytest.raises(TypeError, match="string"):
            one.set_params(label=label)


def test_labels_are_renumbered(nemos):
    for module in (basis, nemos):
        both = module.BSplineEval(5) + module.BSplineEval(4) + module.BSplineEval(6)
        both.set_params(BSplineEval=module.MSplineEval(4))
        assert [b.label for b in both] == ["MSplineEval", "BSplineEval", "BSplineEval_1"]


def test_input_shapes(nemos):
    for xi in (1, 3, (4, 5), np.ones((10, 4, 5))):
        shapes = [m.BSplineEval(5).set_input_shape(xi) for m in (basis, nemos)]
        assert shapes[0].input_shape == shapes[1].input_shape
        assert shapes[0].n_output_features == shapes[1].n_output_features
    both = [
        (m.BSplineEval(5) + m.HistoryConv(2)).set_input_shape(2, (3, 2)) for m in (basis, nemos)
    ]
    assert both[0].input_shape == both[1].input_shape
    assert clone(both[0]).n_output_features == both[1].n_output_features == 22


@pytest.mark.parametrize("operation", [lambda a, b: a + b, lambda a, b: a * b])
def test_a_part_is_told_no_shape_of_its_own(nemos, operation):
    for m in (basis, nemos):
        whole = operation(m.BSplineEval(5, label="a"), m.CustomBasis([np.sin], label="b"))
        for part in (whole.basis1, whole["b"], operation(whole, m.Zero()).basis1):
            with pytest.raises(ValueError, match=r"is a part of|on a child basis"):
                part.set_input_shape(*[2] * len(part.input_shape or [None]))
        with pytest.raises(ValueError, match=r"is a part of|on a child basis"):
            whole.basis1.setup_basis(np.ones((9, 2)))
        with pytest.raises(ValueError, match=r"is a part of|on a child basis"):
            whole.to_transformer().basis1.set_input_shape(2)
        assert whole.set_input_shape(2, 2).input_shape == [(2,), (2,)]
        assert clone(whole.basis1).set_input_shape(3).n_output_features == 15


@pytest.mark.parametrize(
    "build",
    [
        lambda m: m.BSplineEval(5).set_input_shape(3) * m.MSplineEval(4).set_input_shape(2),
        lambda m: m.BSplineEval(5).set_input_shape(3) * m.MSplineEval(4),
        lambda m: m.MSplineEval(4) * m.RaisedCosineLogConv(3, 6).set_input_shape(3),
        lambda m: (m.BSplineEval(5) + m.HistoryConv(2)).set_input_shape(3, 2) * m.MSplineEval(4),
        lambda m: (m.BSplineEval(5) + m.HistoryConv(2)).set_input_shape(3, 2) ** 2,
    ],
)
def test_a_product_of_other_shapes_forgets_them_with_a_warning(nemos, build):
    for m in (basis, nemos):
        with pytest.warns(UserWarning, match="shapes"):
            product = build(m)
        assert set(product.input_shape) == {None}


@pytest.mark.parametrize(
    "build",
    [
        lambda m: m.BSplineEval(5).set_input_shape(3) * m.MSplineEval(4).set_input_shape(3),
        lambda m: m.BSplineEval(5).set_input_shape(1) * m.MSplineEval(4),
        lambda m: m.BSplineEval(5).set_input_shape(3) + m.MSplineEval(4),
    ],
)
def test_shapes_that_go_together_are_kept_without_a_warning(nemos, build):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert build(basis).input_shape == build(nemos).input_shape


@pytest.mark.parametrize(
    "replace",
    [lambda b, new: setattr(b, "basis1", new), lambda b, new: b.set_params(basis1=new)],
)
def test_a_factor_of_another_shape_is_refused(nemos, replace):
    for m in (basis, nemos):
        product = (m.BSplineEval(5) * m.MSplineEval(4)).set_input_shape(2, 2)
        with pytest.raises(ValueError, match="same shape"):
            replace(product, m.BSplineEval(6).set_input_shape(3))
    product = (basis.BSplineEval(5) * basis.MSplineEval(4)).set_input_shape(2, 2)
    with pytest.raises(ValueError, match="same shape"):
        replace(product, basis.BSplineEval(6).set_input_shape(3))
    assert product.n_basis_funcs == 20  # nothing was changed
    replace(product, basis.BSplineEval(6))
    assert product.n_output_features == 48


@pytest.mark.parametrize("shape", [(0,), (0, 2), (12, 0), (0, 0), (12, 0, 2)])
def test_no_samples_have_values_and_features_without_numbers(shape):
    """As NeMoS 0.2.9; 0.2.8 refuses them."""
    nothing, one = np.zeros(shape), samples(12)
    for b in (
        *(getattr(basis, name)(**kwargs) for name, kwargs in CASES),
        basis.Zero(),
        basis.Category(3),
        basis.FourierEval(3, ndim=2),
        basis.HistoryConv(3),
        basis.OrthExponentialConv(2, window_size=8, decay_rates=[1.0, 2.0]),
        basis.BSplineEval(5) + basis.RaisedCosineLogConv(4, window_size=8),
        basis.BSplineEval(5) * basis.RaisedCosineLogConv(4, window_size=8),
    ):
        values, X = (
            np.asarray(method(*[nothing] * b._n_inputs))
            for method in (b.evaluate, b.compute_features)
        )
        n_funcs = b.evaluate(*[one] * b._n_inputs).shape[-1]
        assert values.shape == (*shape, n_funcs)
        assert X.shape == (shape[0], n_funcs * int(np.prod(shape[1:])))
        assert b.n_output_features == X.shape[1]
    own = basis.CustomBasis([np.sin, np.cos])
    X = own.compute_features(nothing)
    assert X.shape == (shape[0], own.n_output_features) == (shape[0], 2 * int(np.prod(shape[1:])))


def test_nothing_is_not_fitted():
    for X in (basis.HistoryConv(3).compute_features(np.zeros((9, 0))), np.zeros((9, 0))):
        with pytest.raises(
            ValueError, match=r"X has shape \(9, 0\); expected at least one feature"
        ):
            fastglm.GLM().fit(X, np.ones(9))


def test_no_samples_keep_their_times():
    nap = pytest.importorskip("pynapple")
    empty = nap.Tsd(t=np.arange(9.0), d=np.ones(9)).restrict(nap.IntervalSet(2.2, 2.4))
    for b in (basis.BSplineEval(5), basis.RaisedCosineLogConv(5, window_size=8)):
        for values in (b.compute_features(empty), b.evaluate(empty)):
            assert isinstance(values, nap.TsdFrame)
            assert values.shape == (0, 5)


@pytest.mark.parametrize("mask", [[1, 0, 1, 1], lambda f: f > 1])
def test_other_frequencies_set_a_mask_back(nemos, mask):
    for m in (basis, nemos):
        same_ones, others, both = (m.FourierEval(4, frequency_mask=mask) for _ in range(3))
        same_ones.frequencies = (0, 4)
        same(same_ones.masked_frequencies, [[0, 2, 3] if isinstance(mask, list) else [2, 3]])
        with pytest.warns(UserWarning, match="no-intercept"):
            others.set_params(frequencies=(1, 5))
        assert others.frequency_mask == "no-intercept"
        assert others.n_basis_funcs == 8
        both.set_params(frequency_mask=[0, 1, 1], frequencies=3)
        same(both.masked_frequencies, [[1, 2]])


@pytest.mark.parametrize("operation", [operator.add, operator.mul])
def test_a_part_computes_no_features_of_its_own(nemos, operation):
    x = samples(20, 2)
    for m in (basis, nemos):
        whole = operation(m.BSplineEval(5, label="x"), m.MSplineEval(4))
        for part in (whole.basis1, whole.basis2, whole["x"]):
            with pytest.raises(ValueError, match=r"is a part of|on a child basis"):
                part.compute_features(x)
        assert whole.input_shape == [None, None]


def test_a_convolution_takes_one_input(nemos):
    x = samples(20)
    for m in (basis, nemos):
        with pytest.raises(TypeError):
            m.HistoryConv(3).compute_features(x, x)
        with pytest.raises(TypeError):
            m.HistoryConv(3).evaluate(x, x)


def test_categories_have_a_grid_of_their_own():
    """As NeMoS 0.2.9: the categories and the identity, and names are none of the numbers."""
    for categories in (3, ["b", "a", "c"], [2, 10, 3]):
        category = basis.Category(categories)
        grid, values = category.evaluate_on_grid(3)
        np.testing.assert_array_equal(grid, category.categories)
        np.testing.assert_array_equal(values, np.eye(3))
        for n in ((0,), (2,), (100,), (), (3, 3)):
            with pytest.raises(ValueError, match=r"has a grid of its 3 categories"):
                category.evaluate_on_grid(*n)
    *_, values = (basis.Category(["b", "a"]) * basis.BSplineEval(4)).evaluate_on_grid(2, 5)
    assert values.shape == (2, 5, 8)
    names = basis.Category(3).evaluate(np.array(["a", "b"]))
    np.testing.assert_array_equal(names, np.zeros((2, 3)))
    numbers = basis.Category(["1", "2"]).evaluate(np.array([10, 2]))
    np.testing.assert_array_equal(numbers, [[0, 0], [0, 1]])


def test_transformers(nemos):
    X = np.column_stack([x.reshape(60, -1) for x in inputs()])
    results = []
    for module in (basis, nemos):
        transformer = total(module).set_input_shape(1, 2, 2, 2, 1, 1).to_transformer()
        transformer = clone(transformer).set_params(speed__n_basis_funcs=6)
        results.append(transformer.fit_transform(X))
        results.append(transformer.fit(X).transform(X[:50]))
        assert transformer.n_output_features == results[-1].shape[1]
    same(results[0], results[2])
    same(results[1], results[3])
