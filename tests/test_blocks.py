"""Fits without X'X of all features: the same answers, true claims, and bounded memory."""

import tracemalloc

import numpy as np
import pytest

import fastglm
from fastglm._batches.cost import Cost
from fastglm._batches.fit import fit_penalties, fit_shards
from fastglm._engine import blocks
from fastglm._engine.batch import Settings
from fastglm._engine.observed import Observed
from fastglm._engine.shared import Spectrum
from fastglm._penalty import ridge
from fastglm._products.local import Local
from fastglm._products.shards import Shards
from fastglm.basis import RaisedCosineLogConv
from fastglm.features import Events
from fastglm.model_selection import regularization_path
from fastglm.observation_models import as_observation_model
from fastglm.recordings.stream import from_events

pytestmark = pytest.mark.slow  # fits by several families and methods


@pytest.fixture
def without_gram(monkeypatch):
    """A memory that never holds X'X, and blocks of two senders."""
    monkeypatch.setattr(Cost, "shared_bytes", lambda *_: (np.inf, np.inf))
    monkeypatch.setattr(Cost, "alone_bytes", lambda *_: np.inf)
    monkeypatch.setattr(Cost, "quadratic", lambda *_: [])
    monkeypatch.setattr(blocks, "BLOCK", 6)


def network(n_bins=3000, n_cells=8, rate=0.1, seed=0, together=0.5):
    """Counts of cells whose rates rise and fall together, and their history."""
    rng = np.random.default_rng(seed)
    drive = np.convolve(rng.normal(size=n_bins), np.ones(20) / np.sqrt(20), "same")
    counts = rng.poisson(rate * np.exp(together * drive)[:, None], (n_bins, n_cells))
    return RaisedCosineLogConv(3, window_size=12).compute_features(counts), counts


def model_of(family="Poisson", link=None, strength=1e-3, tol=1e-18, **kwargs):
    kwargs.setdefault("solver_name", "newton-cg")
    kwargs = {"regularizer": "Ridge", "regularizer_strength": strength, **kwargs}
    return fastglm.PopulationGLM(family, link, solver_kwargs={"tol": tol}, **kwargs)


def reference(family="Poisson", link=None, **kwargs):
    """A fit by exact Hessians of rows."""
    return model_of(family, link, tol=1e-20, **{**kwargs, "solver_name": "newton-cholesky"})


def observations(family, counts):
    """Observations of a family, from counts."""
    if family == "Bernoulli":
        return np.minimum(counts, 1)
    return counts + 0.5 if family in ("Gamma", "Gaussian") else counts


def is_by_blocks(model, X, y):
    return not any(batch.gram for batch in model.plan(X, y).batches)


FAMILIES = [
    ("Poisson", "exp"),
    ("Poisson", "softplus"),
    ("Bernoulli", "logistic"),
    ("Bernoulli", "cloglog"),
    ("Gamma", "exp"),
    ("Gaussian", None),
    ("NegativeBinomial", None),
]


@pytest.mark.parametrize(("family", "link"), FAMILIES)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_fit_by_blocks_is_the_plain_fit(without_gram, family, link, weighted):
    X, counts = network()
    y = observations(family, counts)
    weight = np.random.default_rng(1).uniform(0.2, 2.0, len(y)) if weighted else None
    offset = np.random.default_rng(2).normal(0, 0.2, len(y)) if weighted else None
    given = {"sample_weight": weight, "offset": offset}
    plain = reference(family, link).fit(X, y, **given)
    model = model_of(family, link)
    assert is_by_blocks(model, X, y)
    model.fit(X, y, **given)
    assert model.converged_.all(), model.status_
    np.testing.assert_allclose(model.coef_, plain.coef_, rtol=0, atol=1e-6)
    np.testing.assert_allclose(model.intercept_, plain.intercept_, rtol=0, atol=1e-6)
    np.testing.assert_allclose(model.objective_, plain.objective_, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("kept", [0.15, 0.8])
def test_masks_hold_without_a_gram_matrix(without_gram, kept):
    X, counts = network(n_cells=10)
    mask = np.repeat(np.random.default_rng(0).random((10, 10)) < kept, 3, axis=0)
    plain = reference(feature_mask=mask).fit(X, counts)
    model = model_of(feature_mask=mask)
    assert is_by_blocks(model, X, counts)
    model.fit(X, counts)
    assert model.converged_.all()
    assert not model.coef_[~mask].any()
    np.testing.assert_allclose(model.coef_, plain.coef_, rtol=0, atol=1e-6)
    np.testing.assert_allclose(model.objective_, plain.objective_, rtol=1e-13)


@pytest.mark.parametrize(("family", "link"), FAMILIES)
@pytest.mark.parametrize("tol", [1e-3, 1e-5, 1e-8, 1e-12])
def test_a_claim_is_above_the_gap(without_gram, family, link, tol):
    X, counts = network(rate=0.05, together=1.0)
    y = observations(family, counts)
    best = reference(family, link, strength=1e-4).fit(X, y).objective_
    model = model_of(family, link, strength=1e-4, tol=tol).fit(X, y)
    assert model.converged_.all()
    assert (model.newton_decrement_ <= tol).all()
    gap = model.objective_ - best
    assert (gap <= model.newton_decrement_ + 1e-14 * (1 + np.abs(best))).all()


def test_a_receiver_that_has_not_converged_says_so_and_claims_its_gap(without_gram):
    X, counts = network(rate=0.05, together=1.0)
    best = reference(strength=1e-5).fit(X, counts).objective_
    model = model_of(strength=1e-5)
    model.set_params(solver_kwargs={"tol": 1e-14, "maxiter": 3})
    with pytest.warns(UserWarning, match="max_iter"):
        model.fit(X, counts)
    assert (model.status_ == "max_iter").all()
    assert (model.objective_ - best <= model.newton_decrement_).all()
    assert (model.newton_decrement_ > 1e-14).all()


def test_features_without_a_ridge_are_fitted_too(without_gram):
    X, counts = network(rate=0.3)
    plain = reference(regularizer=None, regularizer_strength=None).fit(X, counts)
    model = model_of(regularizer=None, regularizer_strength=None).fit(X, counts)
    assert model.converged_.all()
    np.testing.assert_allclose(model.coef_, plain.coef_, rtol=0, atol=1e-6)
    np.testing.assert_allclose(model.objective_, plain.objective_, rtol=1e-13)


def test_covariates_and_histories_stand_side_by_side(without_gram):
    X, counts = network()
    slow = np.cumsum(np.random.default_rng(3).normal(size=(len(counts), 2)), axis=0)
    X = fastglm.features.hstack([X, 1e2 * slow / np.abs(slow).max(axis=0)])
    plain, model = reference().fit(X, counts), model_of().fit(X, counts)
    assert model.converged_.all()
    np.testing.assert_allclose(model.coef_, plain.coef_, rtol=0, atol=1e-6)
    np.testing.assert_allclose(model.objective_, plain.objective_, rtol=1e-13)


def test_a_receiver_by_blocks_does_not_depend_on_the_others(without_gram):
    X, counts = network(n_cells=20)
    together = model_of().fit(X, counts)
    alone = model_of().fit(X, counts[:, 7:9])
    np.testing.assert_array_equal(alone.coef_, together.coef_[:, 7:9])
    np.testing.assert_array_equal(alone.n_passes_, together.n_passes_[7:9])


def test_a_path_of_strengths_goes_by_blocks(without_gram):
    X, counts = network()
    strengths = [1e-2, 1e-3, 1e-4]
    found = regularization_path(model_of(), X, counts, strengths)
    for strength, coef in zip(found.strengths, found.coef, strict=True):
        plain = reference(strength=np.ravel(strength)[0]).fit(X, counts)
        np.testing.assert_allclose(coef, plain.coef_, rtol=0, atol=1e-6)


def test_a_sparse_penalty_needs_the_gram_matrix_and_says_what_memory(without_gram):
    X, counts = network()
    lasso = model_of(regularizer="Lasso")
    with pytest.raises(ValueError, match=r"a batch of 16 receivers .* needs"):
        lasso.fit(X, counts)


def test_shards_take_blocks_too(without_gram):
    _, counts = network()
    basis = RaisedCosineLogConv(3, window_size=12)
    whole = basis.compute_features(counts)
    events = Events.of(counts)
    epochs = np.array([[0, len(counts)]])
    shards = Shards(from_events(events, basis, [0, 1200, 3000], epochs))
    loss = as_observation_model("Poisson").loss()
    settings = Settings(loss, 1e-18, 100, "newton-cg", "auto", 1e9)
    free = np.ones((whole.shape[1], 8), bool)
    penalties = [ridge(np.full(8, 1e-3))]
    one = fit_penalties(whole, Observed(events), whole.valid, free, penalties, settings)[0]
    cut = fit_shards(shards, free, penalties, settings)[0]
    assert (cut.status == "converged").all()
    np.testing.assert_allclose(cut.coef, one.coef, rtol=0, atol=1e-8)


def test_blocks_and_shared_directions_solve_what_they_say():
    """The inverse is that of a dense matrix, and the directions hold what blocks share."""
    X, _ = network(n_cells=8, together=1.5)
    products = Local(X)
    rng = np.random.default_rng(0)
    n = X.shape[1]
    gram = products.gram() / products.n_bins
    mean = products.column_sums() / products.n_bins
    covariance = gram - np.outer(mean, mean)
    cut = [np.arange(0, 12), np.arange(12, n)]
    spectrum = blocks.BlockSpectrum(
        [(some, Spectrum(covariance[np.ix_(some, some)], 16)) for some in cut], 16
    )
    spectrum.find_shared(lambda v: covariance @ v)
    level, ridge, v = np.array([0.1, 2.0]), np.array([1e-3, 1e-2]), rng.normal(size=(n, 2))
    found = spectrum.solve(level, ridge, v)
    # 16 directions are more than the rank that two blocks share: the inverse is nearly exact.
    for k in range(2):
        exact = np.linalg.solve(level[k] * covariance + ridge[k] * np.eye(n), v[:, k])
        dropped = np.linalg.norm(found[:, k] - exact) / np.linalg.norm(exact)
        assert dropped < 0.1


def test_shared_directions_save_passes_where_cells_fire_together(without_gram, monkeypatch):
    X, counts = network(n_cells=24, rate=0.2, together=0.5)
    passes = model_of(strength=1e-5, tol=1e-10).fit(X, counts).n_passes_.mean()
    monkeypatch.setattr(blocks.BlockSpectrum, "find_shared", lambda self, times: None)
    alone = model_of(strength=1e-5, tol=1e-10).fit(X, counts).n_passes_.mean()
    assert passes < alone


def test_the_plan_leaves_the_gram_matrix_out_where_memory_does_not_hold_it():
    """A real budget, no patch: memory stays below one matrix of all features."""
    rng = np.random.default_rng(0)
    n_bins, n_cells = 2000, 400
    events = Events.of(rng.poisson(0.02, (n_bins, n_cells)))
    X = RaisedCosineLogConv(8, window_size=20).compute_features(events)
    y = events.select(np.arange(3))
    tight = model_of(memory_budget="140MB", tol=1e-10)
    plan = tight.plan(X, y)
    assert not plan.batches[0].gram
    assert plan.peak_bytes <= plan.memory_budget
    assert model_of(memory_budget="2GB").plan(X, y).batches[0].gram
    model_of(strength=10.0, memory_budget="140MB").fit(X[:500], y.part(0, 500))  # compiles
    tracemalloc.start()
    tight.fit(X, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert tight.converged_.all()
    assert peak < 8 * X.shape[1] ** 2
    assert peak < plan.peak_bytes
