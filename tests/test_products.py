"""Every verb of the products' protocol, in memory and in shards, against NumPy on dense arrays."""

import inspect
import pickle
import warnings

import naive
import naive_glm
import numpy as np
import pytest

import fastglm
from fastglm._batches.fit import Tasks
from fastglm._batches.plan import plan_fit
from fastglm._engine.batch import Settings, fit_task
from fastglm._engine.observed import Observed
from fastglm._kernels import LANES, SEGMENT
from fastglm._penalty import ridge
from fastglm._products import protocol
from fastglm._products.local import Local
from fastglm._products.shards import Shards
from fastglm.features import Events, FeatureMatrix, ProductColumns, hold
from fastglm.observation_models import as_observation_model
from fastglm.recordings.stream import from_events

MODELS = [as_observation_model(name) for name in ("Poisson", "Bernoulli", "Gaussian")]
LOSSES = [model.loss(link) for model in MODELS for link in model.losses]
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=[loss.link for loss in LOSSES])


class Recording:
    """A small recording: counts, a basis, epochs, its products, and the same as dense arrays."""

    def __init__(self, n_bins, n_cells, window, n_funcs=2, epochs=None, keep=1.0, seed=0):
        rng = np.random.default_rng(seed)
        self.counts = rng.poisson(0.6, (n_bins, n_cells)).astype(float)
        self.counts[0] = 1  # never without events
        if n_funcs > 1 and window >= n_funcs:
            self.basis = fastglm.basis.RaisedCosineLinearConv(n_funcs, window)
        else:
            self.basis = fastglm.basis.HistoryConv(window)
        self.epochs = np.array([[0, n_bins]] if epochs is None else epochs)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "1 of 3 epochs are shorter", UserWarning)
            self.X = self.basis.compute_features(self.counts, epochs=self.epochs)
        rows = naive.features(self.counts, self.basis.kernel_, self.epochs)
        self.valid = np.isfinite(rows).all(axis=1)
        assert np.array_equal(self.X.valid, self.valid)
        if keep < 1:
            self.valid &= rng.random(n_bins) < keep
        self.rows = np.where(self.valid[:, None], np.nan_to_num(rows), 0.0)
        self.events = Events.of(self.counts)

    def products(self, kind):
        if kind == "local":
            return Local(self.X, self.valid)
        n_bins, n = len(self.counts), {"one shard": 1, "shards": 4}[kind]
        edges = np.unique(np.linspace(0, n_bins, n + 1).astype(int))
        return Shards(from_events(self.events, self.basis, edges, self.epochs)).restrict(self.valid)


TWO = "two segments"
# n_bins, n_cells, window and more of `Recording`
RECORDINGS = {
    "one bin": lambda: Recording(3, 1, 2, 1, seed=1),  # and two of history
    "one sender": lambda: Recording(50, 1, 3),
    "several": lambda: Recording(90, 3, 5),
    "epochs": lambda: Recording(90, 2, 6, epochs=[[0, 30], [30, 34], [40, 90]]),
    "a hole in the bins": lambda: Recording(120, LANES + 1, 4, keep=0.6),
    "window as long as a shard": lambda: Recording(40, 2, 17),
    TWO: lambda: Recording(SEGMENT + 90, 2, 7, keep=0.9),
}
every_kind = pytest.mark.parametrize("kind", ["local", "shards"])
MIXED = "columns of every kind"


def mixed():
    """Columns of every kind side by side, in memory alone."""
    rng, n_bins = np.random.default_rng(3), 150
    recording = Recording(n_bins, 2, 4, epochs=[[0, 70], [75, 150]])
    stimulus, few = rng.normal(size=(n_bins, 11)), rng.normal(size=(n_bins, 2))
    stimulus[20:25] = np.nan
    slow = hold(rng.normal(size=(16, 2)), n_bins, every=9.7)
    product = FeatureMatrix([ProductColumns(slow.blocks, recording.X.blocks, 1)])
    recording.X = np.hstack([recording.X, stimulus, slow, few, product])
    dense = np.asarray(recording.X)
    assert dense.shape[1] == 4 + 11 + 2 + 2 + 8
    recording.valid = np.isfinite(dense).all(axis=1)
    recording.rows = np.where(recording.valid[:, None], np.nan_to_num(dense), 0.0)
    return recording


def problem(name, kind):
    recording = mixed() if name == MIXED else RECORDINGS[name]()
    return recording, recording.products(kind)


PAIRS = [
    pytest.param(name, kind, marks=[pytest.mark.slow] if name == TWO else [])
    for name in RECORDINGS
    for kind in ("local", "one shard", "shards")
    if name == "several" or kind != "one shard"
]
PAIRS.append((MIXED, "local"))
every_pair = pytest.mark.parametrize(("name", "kind"), PAIRS)


def bound(terms):
    """Some roundings of sums of the given absolute values."""
    return 1e-13 * (1 + np.abs(terms))


# --- sums and maps over bins --------------------------------------------------------------------


def test_both_kinds_have_every_verb_of_the_protocol():
    for verb, function in vars(protocol.Products).items():
        if verb.startswith("_"):
            continue
        for kind in (Local, Shards):
            assert hasattr(kind, verb), (kind, verb)
            if verb in ("parts", "passes"):
                continue
            theirs = list(inspect.signature(getattr(kind, verb)).parameters)
            assert len(theirs) == len(inspect.signature(function).parameters), (kind, verb)
    products = RECORDINGS["several"]().products("shards")
    for name in protocol.Products.__annotations__:
        assert hasattr(products, name)


@every_pair
def test_rows_and_sizes(name, kind):
    recording, products = problem(name, kind)
    rows, valid = recording.rows, recording.valid
    assert products.shape == rows.shape
    assert products.n_bins == valid.sum()
    np.testing.assert_array_equal(products.valid, valid)
    index = np.flatnonzero(valid)
    some = index[np.random.default_rng(0).random(index.size) < 0.5]
    for chosen in (index, some, index[:0]):
        for dtype in (np.float64, np.float32):
            found = products.rows(chosen, dtype)
            assert found.dtype == dtype
            assert found.shape == (chosen.size, rows.shape[1])
            np.testing.assert_allclose(
                found, rows[chosen], atol=2e-6 if dtype is np.float32 else 1e-12
            )
    assert products.nonnegative.shape == (rows.shape[1],)
    assert (rows[:, products.nonnegative] >= 0).all()
    least = products.smallest_positive()
    for k in np.flatnonzero(products.nonnegative):
        positive = rows[rows[:, k] > 1e-12, k]
        assert (positive >= least[k] * (1 - 1e-12)).all()


@every_pair
def test_sums_over_bins(name, kind):
    recording, products = problem(name, kind)
    rows, n_bins = recording.rows, len(recording.counts)
    rng = np.random.default_rng(1)
    weight, values = rng.gamma(2.0, size=n_bins), rng.normal(size=(n_bins, 3))
    magnitude = np.abs(rows)
    for w in (None, weight):
        own = np.ones(n_bins) if w is None else w
        np.testing.assert_allclose(
            products.gram(w), (rows * own[:, None]).T @ rows,
            atol=bound((magnitude * own[:, None]).T @ magnitude).max(), rtol=0,
        )  # fmt: skip
        np.testing.assert_allclose(products.column_sums(w), rows.T @ own, rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(products.project(values), rows.T @ values, rtol=1e-11, atol=1e-11)


@every_pair
@pytest.mark.parametrize("weighted", [False, True])
def test_moments(name, kind, weighted):
    recording, products = problem(name, kind)
    rows, valid, n_bins = recording.rows, recording.valid, len(recording.counts)
    weight = np.random.default_rng(2).gamma(2.0, size=n_bins) if weighted else None
    events = products.events() if kind != "local" else recording.events
    found = products.moments(Observed(events, weight))
    own = np.ones(n_bins) if weight is None else weight
    y = recording.counts * own[:, None] * valid[:, None]
    np.testing.assert_allclose(found.xty, rows.T @ y, rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(found.x, rows.T @ own, rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(found.sum_y, y.sum(axis=0), rtol=1e-12)
    known = products.moments(Observed(events, weight), found.x)
    np.testing.assert_array_equal(known.xty, found.xty)


@every_pair
def test_selected_columns_and_fewer_bins(name, kind):
    recording, products = problem(name, kind)
    rng = np.random.default_rng(4)
    columns = rng.random(recording.rows.shape[1]) < 0.4
    columns[-1] = True
    fewer = recording.valid & (rng.random(len(recording.counts)) < 0.7)
    part, index = products.select(columns)
    assert set(np.flatnonzero(columns)) <= set(index)
    rows, at = recording.rows[:, index], np.flatnonzero(recording.valid)
    assert part.shape == rows.shape
    np.testing.assert_allclose(part.rows(at), rows[at], atol=1e-12)
    np.testing.assert_allclose(part.gram(), rows.T @ rows, atol=1e-10)
    again, place = part.select(columns[index])  # of what is left
    np.testing.assert_allclose(again.gram(), rows[:, place].T @ rows[:, place], atol=1e-10)
    inside = part.restrict(fewer)
    assert inside.n_bins == fewer.sum()
    np.testing.assert_array_equal(inside.valid, fewer)
    kept = np.where(fewer[:, None], rows, 0)
    np.testing.assert_allclose(inside.gram(), kept.T @ kept, atol=1e-10)
    np.testing.assert_allclose(inside.column_sums(), kept.sum(axis=0), atol=1e-10)
    whole, used = products.work(), products.work(columns)
    assert all(0 <= b <= a * (1 + 1e-12) for a, b in zip(whole, used, strict=True))


@every_pair
def test_parts_and_what_bins_see(name, kind):
    recording, products = problem(name, kind)
    rows, valid = recording.rows, recording.valid
    gram, seen = np.zeros((rows.shape[1],) * 2), np.zeros(len(valid), int)
    for first, part in products.parts():
        gram += part.gram()
        seen[first : first + part.shape[0]] += part.valid
        at = np.flatnonzero(part.valid)
        np.testing.assert_allclose(part.rows(at), rows[first + at], atol=1e-12)
    np.testing.assert_array_equal(seen, valid)  # every bin of the fit in one part
    np.testing.assert_allclose(gram, rows.T @ rows, atol=1e-10)
    index = np.flatnonzero(valid)
    activity = products.seen(index)
    assert activity.shape == index.shape
    assert np.isfinite(activity).all()
    assert (activity >= 0).all()


# --- passes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", [LANES, 1])
@pytest.mark.parametrize("multiply", ["events", "rows"])
@every_pair
def test_forward(name, kind, multiply, lanes):
    recording, products = problem(name, kind)
    rows, valid = recording.rows, recording.valid
    for n in (1, 3, LANES + 1):
        coef = np.random.default_rng(5).normal(size=(rows.shape[1], n))
        passes = products.passes(n, lanes, multiply)
        for precise, tolerance in ((True, 1e-11), (False, 2e-4)):
            eta, times = np.zeros((len(valid), n)), np.zeros(len(valid), int)
            for chunk in passes.forward(coef, precise, seen=True):
                keep = np.arange(len(valid))[chunk.index][chunk.valid]
                eta[keep] = chunk.eta[chunk.valid]
                times[keep] += 1
                assert chunk.seen.shape == chunk.valid.shape
            np.testing.assert_array_equal(times, valid)
            np.testing.assert_allclose(eta, rows @ coef, atol=tolerance)
    # A walk in each precision, side by side.
    for exact, rough in zip(passes.forward(coef), passes.forward(coef, False), strict=True):
        assert exact.index == rough.index
        np.testing.assert_allclose(exact.eta[exact.valid], rough.eta[rough.valid], atol=2e-4)


def counts_for(loss, recording):
    """Counts that the family can have, from the recording's."""
    if loss.family == "Bernoulli":
        return recording.counts.clip(max=1)
    if loss.family == "Gaussian":
        noise = np.random.default_rng(6).normal(size=recording.counts.shape)
        return np.where(recording.counts > 0, recording.counts + noise, 0)
    return recording.counts


def expected_sums(loss, recording, y, coef, intercept, weight, offset):
    """Loss, its derivative and X' of it, summed by the formulas."""
    eta = recording.rows @ coef + intercept + offset
    own = (weight * recording.valid)[:, None]
    if loss.linear_counts:  # a pass sums the cumulant, which is the loss of y = 0
        y = np.zeros_like(y)
    value = naive_glm.family_loss(eta, y, loss.link)
    residual = naive_glm.family_derivatives(eta.T, y.T, loss.link)[0].T
    residual = residual * own
    return (value * own).sum(axis=0), residual.sum(axis=0), recording.rows.T @ residual


@pytest.mark.parametrize("lanes", [LANES, 1])
@pytest.mark.parametrize("given", ["nothing", "weight", "both"])
@every_pair
@every_loss
def test_evaluate(loss, name, kind, given, lanes):
    """A whole pass, in both precisions, with weights, offsets and counts."""
    recording, products = problem(name, kind)
    n_bins, n_cells = recording.counts.shape
    rng = np.random.default_rng(7)
    y = counts_for(loss, recording)
    weight, offset = np.ones(n_bins), np.zeros((n_bins, 1))
    if given in ("weight", "both"):
        weight = rng.gamma(2.0, size=n_bins) * (rng.random(n_bins) < 0.9)
        weight[~recording.valid] = 0
        weight[recording.valid] += 0.01
    if given == "both":
        offset = rng.normal(size=(n_bins, n_cells if lanes > 1 else 1))
    observed = Observed(
        Events.of(y),
        weight if given in ("weight", "both") else None,
        offset if given == "both" else None,
    )
    receivers = rng.permutation(n_cells)[: max(1, n_cells - 1)]
    n = receivers.size
    coef = rng.normal(size=(recording.rows.shape[1], n)) * 0.3
    intercept = rng.normal(size=n) * 0.5
    own = offset if offset.shape[1] == 1 else offset[:, receivers]
    expected = expected_sums(loss, recording, y[:, receivers], coef, intercept, weight, own)
    size = np.abs(recording.rows).T @ np.ones(n_bins) + n_bins
    passes = products.passes(n, lanes, "events")
    for precise, tolerance in ((True, 1e-12), (False, 3e-6), (True, 1e-12)):
        found = passes.evaluate(observed, loss, receivers, coef, intercept, precise)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.dtype == np.float64
            scale = 10 * (n_bins + np.abs(theirs).max() + size.max())
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * scale)


# --- tasks travel -------------------------------------------------------------------------------


@pytest.mark.slow
@every_kind
@pytest.mark.parametrize(
    ("family", "method"),
    [
        ("Poisson", "newton-cg"),
        ("Poisson", "newton-cholesky"),
        ("Bernoulli", "newton-cg"),
        ("Gaussian", "newton-cg"),
        ("Gaussian", "auto"),
    ],
)
def test_tasks_travel(family, method, kind):
    """A task that was pickled gives the same result, bit by bit; so do tasks made elsewhere."""
    recording = Recording(400, 4, 6, epochs=[[0, 200], [210, 400]])
    if family == "Bernoulli":
        recording.counts = recording.counts.clip(max=1)
        recording.events = Events.of(recording.counts)
        recording.X = recording.basis.compute_features(recording.counts, epochs=recording.epochs)
    products = recording.products(kind)
    observed = Observed(recording.events if kind == "local" else products.events())
    settings = Settings(as_observation_model(family).loss(), 1e-14, 100, method, "auto", 1e9)
    free = np.ones((products.shape[1], 4), bool)
    free[:2, 1] = free[2:, 3] = False
    penalties = [ridge(np.full(4, strength)) for strength in (1e-2, 1e-3)]
    tasks = Tasks(products, observed, free, penalties, None, settings)
    plan = plan_fit(products, np.arange(4), free, settings)
    elsewhere = pickle.loads(pickle.dumps(tasks))
    for batch in plan.batches:
        task = tasks.of(batch)
        travelled = pickle.loads(pickle.dumps(task))
        here = fit_task(task)
        for there in (fit_task(travelled), fit_task(elsewhere.of(batch))):
            for a, b in zip(here, there, strict=True):
                for name in ("coef", "intercept", "objective", "status", "n_passes"):
                    np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert (here[0].status == "converged").all()
        assert pickle.loads(pickle.dumps(here[0])).status.tolist() == here[0].status.tolist()
