"""A feature matrix does what its array does; sums and means go block by block."""

import copy
import logging
import pickle
import warnings

import numpy as np
import pytest

import fastglm
from fastglm.basis import RaisedCosineLogConv
from fastglm.features import FeatureMatrix, arrays


def make_matrix():
    counts = np.random.default_rng(0).poisson(0.4, (300, 4)).astype(float)
    return RaisedCosineLogConv(3, window_size=10).compute_features(counts)


@pytest.fixture(params=["whole", "without NaN", "columns of some rows"])
def pair(request, monkeypatch):
    """A matrix and its array, in blocks of 7 rows."""
    X = make_matrix()
    monkeypatch.setattr(arrays, "_BLOCK", 7 * 12)
    if request.param == "without NaN":
        X = X[10:]
    if request.param == "columns of some rows":
        X = X[:, [4, 2, 7, 8]][20::3]
    return X, np.asarray(X)


def same(found, expected):
    assert type(found) is type(expected)
    assert np.asarray(found).dtype == np.asarray(expected).dtype
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)


REDUCTIONS = (
    [np.sum, np.mean, np.std, np.var, np.min, np.max, np.any, np.all]
    + [np.nansum, np.nanmean, np.nanstd, np.nanvar, np.nanmin, np.nanmax]
    + [np.median, np.argmax, np.count_nonzero]
)


@pytest.mark.parametrize("function", REDUCTIONS, ids=lambda f: f.__name__)
def test_reductions_are_those_of_the_array(pair, function):
    X, array = pair
    axes = (None, 0, 1, -1, -2, (0, 1))
    for axis in axes[:5] if function is np.argmax else axes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the first rows hold nothing but NaN
            same(function(X, axis=axis), function(array, axis=axis))
            if function not in (np.argmax, np.count_nonzero):
                kept = {"axis": axis, "keepdims": True}
                same(function(X, **kept), function(array, **kept))


@pytest.mark.parametrize("ddof", [0, 1, 2.5])
@pytest.mark.parametrize("function", [np.std, np.var, np.nanstd, np.nanvar])
def test_degrees_of_freedom(pair, function, ddof):
    X, array = pair
    same(function(X, axis=0, ddof=ddof), function(array, axis=0, ddof=ddof))


@pytest.mark.parametrize("function", [np.nanmean, np.nanvar, np.nanmax])
def test_columns_of_nan_alone_warn_as_in_numpy(function):
    X = make_matrix()[:10]
    for one in (X, np.asarray(X)):
        with pytest.warns(RuntimeWarning, match="Mean of empty|Degrees of freedom|All-NaN"):
            assert np.isnan(function(one, axis=0)).all()


def test_rarer_arguments_go_to_numpy(pair):
    X, array = pair
    for one in (lambda x: x.sum(dtype=np.float32), lambda x: np.max(x, initial=9.0)):
        np.testing.assert_allclose(one(X), one(array), rtol=1e-6)
    same(np.mean(X, axis=0, where=array > 0.5), np.mean(array, axis=0, where=array > 0.5))
    with pytest.raises(np.exceptions.AxisError):
        X.mean(axis=2)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.reshape(-1),
        lambda x: x.reshape(x.shape[1], -1),
        lambda x: x.squeeze(),
        lambda x: x.mean(0),
        lambda x: x.sum(1),
        lambda x: x.std(),
        lambda x: x.var(axis=0, ddof=1),
        lambda x: x.min(0),
        lambda x: x.max(),
        lambda x: x.any(),
        lambda x: x.all(1),
        lambda x: x.astype(np.float32),
        lambda x: x.astype(bool),
        lambda x: x.copy(),
        lambda x: x.ravel(),
        lambda x: x.flatten(),
        lambda x: x.dot(np.arange(x.shape[1])),
        lambda x: x.transpose(),
        lambda x: x.T,
        lambda x: x.argmax(0),
        lambda x: x.cumsum(axis=0),
        lambda x: x.clip(0, 1).round(2),
        lambda x: np.array(x.tolist()),
        lambda x: np.array([x.ndim, x.size, len(x), *x.shape]),
    ],
)
def test_methods_are_those_of_the_array(pair, function):
    same(function(pair[0]), function(pair[1]))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + 1,
        lambda x: 2 / (x + 1),
        lambda x: x * x,
        lambda x: x - x.mean(axis=0),
        lambda x: x - x.mean(axis=1)[:, None],
        lambda x: x[:, :1] * x,
        lambda x: x > 0.5,
        lambda x: x == x,
        lambda x: abs(-x) ** 2,
        lambda x: np.maximum(x, 0.2),
        lambda x: np.isnan(x),
        lambda x: np.isfinite(x).sum(),
        lambda x: x @ np.ones((x.shape[1], 3)),
        lambda x: x @ np.ones(x.shape[1]),
        lambda x: np.ones(x.shape[0]) @ x,
        lambda x: x.T @ x,
        lambda x: np.einsum("ti,tj->ij", x, x),
        lambda x: np.divmod(x, 2)[0],
        lambda x: np.add.outer(x[:3], x[:2]),
        lambda x: np.where(np.isnan(x), 0, x),
        lambda x: np.linalg.norm(x, axis=1),
        lambda x: np.zeros_like(x),
        lambda x: np.full_like(x, 2, dtype=int),
        lambda x: x[x > 0.4],
        lambda x: x[np.ix_([1, 2], [3, 0])],
        lambda x: x[None],
        lambda x: x[::-1],
        lambda x: x[[5, 3, 3]],
        lambda x: np.array(list(x)),
    ],
)
def test_arithmetic_is_that_of_the_array(pair, function):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(function(pair[0]), function(pair[1]))


def test_a_matrix_of_one_row_or_none():
    X = make_matrix()
    for part in (X[50:51], X[50:50], X[50:51, :1]):
        array = np.asarray(part)
        for function in (
            lambda x: x + 1,
            lambda x: x * np.ones((3, x.shape[1]))[: len(x)],
            lambda x: x.sum(axis=0),
            lambda x: x.all(),
            lambda x: x @ np.ones(x.shape[1]),
        ):
            same(function(part), function(array))


def test_what_does_not_fit_raises_as_in_numpy(pair):
    X, array = pair
    for function in (lambda x: x + np.ones((3, 3, 3)), lambda x: x @ np.ones(3)):
        for one in (X, array):
            with pytest.raises(ValueError, match=r"could not be broadcast|mismatch"):
                function(one)
    with pytest.raises(TypeError, match=r"cannot be changed in place; change a copy, X = X\.copy"):
        X[0, 0] = 1
    with pytest.raises(AttributeError, match="'FeatureMatrix' object has no attribute 'sort'"):
        X.sort()  # in place


def test_shapes_and_reductions_store_nothing(caplog):
    X = make_matrix()
    with caplog.at_level(logging.INFO, logger="fastglm"):
        np.shape(X), np.ndim(X), X.mean(axis=0), X[10:].max(), X[5:, :3]
        copy.deepcopy(X)
    assert not caplog.records
    with caplog.at_level(logging.INFO, logger="fastglm"):
        np.exp(X)
    (record,) = caplog.records
    assert record.getMessage() == "an array of shape (300, 12) is stored from features: 28.8 kB"


def test_a_pickle_and_a_copy_are_the_matrix(pair):
    X, array = pair
    for again in (pickle.loads(pickle.dumps(X)), copy.copy(X), copy.deepcopy(X)):
        assert type(again) is FeatureMatrix
        np.testing.assert_array_equal(np.asarray(again), array)
        np.testing.assert_array_equal(again.valid, X.valid)


def test_a_table_of_pandas(pair):
    pandas = pytest.importorskip("pandas")
    assert pandas.DataFrame(pair[0]).equals(pandas.DataFrame(pair[1]))


def test_functions_of_jax():
    jax = pytest.importorskip("jax")
    jnp, X = jax.numpy, make_matrix()[10:]  # made after the import of JAX
    array = np.asarray(X)
    for found, expected in (
        (jnp.asarray(X), array),
        (jnp.isnan(X), np.isnan(array)),
        (jnp.einsum("ti,i->t", X, np.ones(12)), array.sum(axis=1)),
        (jax.jit(lambda x: x.sum(axis=0))(X), array.sum(axis=0)),
        (jax.tree_util.tree_map(np.sum, {"a": X})["a"], array.sum()),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_reductions_of_a_model_see_the_rows_once():
    """A long matrix by blocks of the usual size, against its array."""
    counts = np.random.default_rng(1).poisson(0.1, (30_000, 5))
    X = fastglm.basis.RaisedCosineLogConv(8, window_size=40).compute_features(counts)
    array = np.asarray(X)
    np.testing.assert_allclose(np.nanmean(X, axis=0), np.nanmean(array, axis=0), rtol=1e-12)
    np.testing.assert_allclose(np.nanstd(X, axis=0), np.nanstd(array, axis=0), rtol=1e-12)
