"""The view of a fit that everything else sees, against the model and the data behind it."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

import fastglm
from fastglm._fitted import Fitted, mean_count

RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(0.4, size=(300, 3)).astype(float)
COUNTS[40:60, 1] = np.nan
X = fastglm.basis.RaisedCosineLogConv(3, 10, label="history").compute_features(COUNTS)
WEIGHT, OFFSET = RNG.integers(0, 3, 300), RNG.normal(size=(300, 1))
GIVEN = {"sample_weight": WEIGHT, "offset": OFFSET}


@pytest.fixture(scope="module")
def model():
    return fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=0.1).fit(
        X, COUNTS, **GIVEN
    )


def test_a_view_of_other_counts_forgets_what_it_knew_of_the_first(model):
    other = COUNTS.copy()
    other[100:200, 0] = np.nan
    first, second = (Fitted.of(model, X, y, **GIVEN) for y in (COUNTS, other))
    known = ("n_bins", "total", "mean_count")
    before = [getattr(first, name) for name in known]
    seen = first.seeing(second.y)
    for name, value in zip(known, before, strict=True):
        np.testing.assert_array_equal(getattr(seen, name), getattr(second, name))
        assert getattr(first, name) is value
        assert not np.array_equal(value, getattr(seen, name))


def test_the_parameters_of_a_model(model):
    fit = Fitted.of(model)
    np.testing.assert_array_equal(fit.coef, model.coef_)
    np.testing.assert_array_equal(fit.scale, 1)
    assert (fit.family.name, fit.loss.link, fit.regularizer) == ("Poisson", "exp", "Ridge")
    assert (fit.strength, fit.single, fit.receivers) == (0.1, False, None)
    assert fit.adjusted
    assert fit.usable.all()
    assert fit.mask.all()
    one = fastglm.GLM(feature_mask=np.arange(9) < 5).fit(X, COUNTS[:, 0])
    fit = Fitted.of(one)
    assert fit.coef.shape == (9, 1)
    assert fit.single
    np.testing.assert_array_equal(fit.mask[:, 0], np.arange(9) < 5)
    assert not fit.adjusted


def test_the_data_of_a_fit(model):
    fit = Fitted.of(model, X, COUNTS, **GIVEN)
    kept = X.valid & (WEIGHT > 0)
    known = kept[:, None] & np.isfinite(COUNTS)
    np.testing.assert_array_equal(fit.kept, kept)
    np.testing.assert_array_equal(fit.n_bins, known.sum(axis=0))
    np.testing.assert_allclose(fit.total, (WEIGHT[:, None] * known).sum(axis=0))
    sums = (WEIGHT[:, None] * np.where(known, COUNTS, 0)).sum(axis=0)
    np.testing.assert_allclose(fit.mean_count, sums / fit.total)
    assert (mean_count(fit.y, np.zeros(300, bool)) == 0).all()


def test_rates_rows_and_derivatives(model):
    fit = Fitted.of(model, X, COUNTS, **GIVEN)
    mu = model.predict(X, OFFSET)
    for valid in (None, X.valid, np.arange(300) > 200):
        found = np.full(mu.shape, np.nan)
        for index, some in fit.rates(valid):
            found[index] = some
        expected = mu.copy()
        expected[~(fit.kept if valid is None else valid)] = np.nan
        np.testing.assert_array_equal(found, expected)
    for block, rows in fit.rows():
        np.testing.assert_array_equal(rows, np.asarray(X)[block])
        loss, residual, curvature = fit.derivatives(block, rows, np.array([1, 2]))
        known = np.isfinite(COUNTS[block, 1:])
        expected = np.where(known, (mu - COUNTS * np.log(mu))[block, 1:], 0)
        np.testing.assert_allclose(loss, expected, rtol=1e-9)
        np.testing.assert_allclose(curvature, np.where(known, mu[block, 1:], 0), rtol=1e-12)
        left = np.where(known, (mu - COUNTS)[block, 1:], 0)
        np.testing.assert_allclose(residual, left, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(
            fit.expected_curvature(block, rows), np.where(np.isnan(COUNTS[block]), 0, mu[block])
        )
        np.testing.assert_array_equal(fit.weights(block)[:, 0], WEIGHT[block])
    (block,) = (block for block, _ in fit.rows())
    np.testing.assert_array_equal(block, np.flatnonzero(fit.kept))


def test_other_coefficients_of_the_same_data(model):
    fit = Fitted.of(model, X, COUNTS, **GIVEN)
    assert [f.size for f in fit.free] == [9, 9, 9]
    other = fit.at(np.zeros((9, 3)), np.full(3, 0.5), np.full(3, 2.0))
    index, mu = next(other.rates())
    np.testing.assert_allclose(mu, np.exp(0.5 + OFFSET[index]) * np.ones(3))
    assert (other.scale == 2).all()
    np.testing.assert_array_equal(fit.coef, model.coef_)


def test_what_is_refused(model):
    with pytest.raises(NotFittedError, match="is not fitted yet; call fit"):
        Fitted.of(fastglm.GLM())
    with pytest.raises(ValueError, match="X has 3 features, but PopulationGLM is expecting 9"):
        Fitted.of(model, COUNTS)
    with pytest.raises(ValueError, match=r"y has shape \(300, 2\); .* as in the fit"):
        Fitted.of(model, X, COUNTS[:, :2], **GIVEN)
    with pytest.raises(ValueError, match="fitted with offset; pass the offset of these bins"):
        Fitted.of(model, X, COUNTS, sample_weight=WEIGHT)
    assert Fitted.of(model, X, COUNTS, needs=()).weight is None
    labelled = fastglm.PopulationGLM(feature_mask={"history": [1, 1, 0]}).fit(X, COUNTS)
    with pytest.raises(ValueError, match="has labels of features; pass the features X as well"):
        Fitted.of(labelled).mask  # noqa: B018
    np.testing.assert_array_equal(Fitted.of(labelled, X).mask.all(axis=0), [True, True, False])
