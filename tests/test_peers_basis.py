"""Bases of covariates, sums, products and transformers: the values of NeMoS."""

import functools
import inspect
import warnings

import numpy as np
import pytest
from sklearn.base import clone

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
