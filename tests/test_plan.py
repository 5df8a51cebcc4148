"""The plan of a fit: batches, memory, costs; the same answers whatever the plan."""

import tracemalloc

import numpy as np
import pytest

import fastglm
from fastglm import _checks, _html
from fastglm._batches import cost, plan
from fastglm.basis import RaisedCosineLogConv

pytestmark = pytest.mark.slow  # fits of 20 to 60 receivers, and rates of compiled kernels


def network(n_bins=3000, n_cells=20, n_funcs=4, rate=0.05, seed=0):
    counts = np.random.default_rng(seed).poisson(rate, (n_bins, n_cells))
    return RaisedCosineLogConv(n_funcs, window_size=30).compute_features(counts), counts


def ridge_model(**kwargs):
    return fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-3, **kwargs)


@pytest.mark.parametrize(
    ("given", "n_bytes"),
    [
        (1000, 1000.0),
        (2.5e9, 2.5e9),
        ("2GB", 2e9),
        ("2 gb", 2e9),
        ("1.5 GiB", 1.5 * 2**30),
        ("300kB", 3e5),
        ("512MiB", 512 * 2**20),
        ("77", 77.0),
    ],
)
def test_a_budget_is_bytes_or_a_string(given, n_bytes):
    assert plan.read_budget(given) == n_bytes


@pytest.mark.parametrize("given", ["much", "2 GX", "-1GB", 0, -5, np.nan, True, [1], ""])
def test_a_budget_that_is_none_is_refused(given):
    X, counts = network()
    with pytest.raises(ValueError, match=r"memory_budget is .*; expected bytes, or a string such"):
        ridge_model(memory_budget=given).fit(X, counts)


def test_the_default_budget_does_not_depend_on_the_moment():
    before = plan.read_budget(None)
    taken = np.ones(40_000_000, np.uint8)
    assert 1e7 < plan.read_budget(None) == before < 1e14
    assert taken[-1] == 1


@pytest.mark.parametrize(
    ("line", "files", "limit"),
    [
        ("0::/", {"memory.max": "3000000"}, 3e6),
        ("0::/", {"memory.max": "max"}, np.inf),
        ("0::/a/b", {"a/memory.max": "5000", "a/b/memory.max": "max"}, 5e3),
        ("0::/a/b", {"a/memory.max": "5000", "a/b/memory.max": "4000"}, 4e3),
        ("0::/elsewhere", {"memory.max": "7000"}, 7e3),  # a container
        ("4:memory:/a", {"memory/a/memory.limit_in_bytes": "6000"}, 6e3),
        ("4:cpu,memory:/a", {"memory/memory.limit_in_bytes": "6000"}, 6e3),
        ("3:cpuset:/a", {"memory/a/memory.limit_in_bytes": "6000"}, np.inf),
    ],
)
def test_the_default_budget_keeps_to_a_container(tmp_path, line, files, limit):
    root = tmp_path / "groups"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    (tmp_path / "cgroup").write_text(f"9:name=systemd:/\n{line}\n")
    assert _checks.group_limit(tmp_path / "cgroup", root) == limit


def test_the_default_budget_of_a_system_without_control_groups(tmp_path):
    assert _checks.group_limit(tmp_path / "absent") == np.inf


def test_what_a_container_may_not_take_is_refused(monkeypatch):
    monkeypatch.setattr(_checks, "installed_memory", lambda unknown: 8e9)
    monkeypatch.setattr(_checks, "group_limit", lambda: 2e9)
    with pytest.raises(ValueError, match=r"It would take 3 GB, and the container may take 2; wait"):
        _checks.check_memory("It", 3e9, "wait")
    _checks.check_memory("It", 1e9, "wait")
    monkeypatch.setattr(_checks, "group_limit", lambda: np.inf)
    with pytest.raises(ValueError, match=r"It would take 9 GB, and the machine has 8; wait"):
        _checks.check_memory("It", 9e9, "wait")


def test_a_budget_that_is_too_small_says_what_is_needed():
    X, counts = network()
    model = ridge_model(memory_budget="1MB", solver_name="newton-cg")
    with pytest.raises(ValueError, match=r"memory_budget is 1 MB; a batch of 16 .* needs \d.* MB"):
        model.plan(X, counts)
    with pytest.raises(ValueError, match="memory_budget is 1 MB"):
        model.fit(X, counts)


@pytest.mark.parametrize("method", ["auto", "newton-cg", "newton-cholesky"])
@pytest.mark.parametrize("budget", [None, "60MB"])
@pytest.mark.parametrize("masked", [0.0, 0.2, 0.9])
def test_batches_hold_every_receiver_once(method, budget, masked):
    X, counts = network(n_cells=40)
    senders = np.random.default_rng(1).random((40, 40)) >= masked
    model = ridge_model(
        solver_name=method,
        memory_budget=budget if method == "newton-cg" else None,
        feature_mask=np.repeat(senders, 4, axis=0),
    )
    counts[:, 3] = 0  # silent: not fitted
    made = model.plan(X, counts)
    receivers = np.concatenate([batch.receivers for batch in made.batches])
    np.testing.assert_array_equal(np.sort(receivers), np.delete(np.arange(40), 3))
    assert made.n_receivers == 39
    assert made.peak_bytes <= made.memory_budget
    assert 0 < made.seconds < 100
    if method != "auto":
        assert {batch.method for batch in made.batches} == {method}


def test_more_memory_makes_fewer_batches():
    X, counts = network(n_cells=60)
    sizes = [
        len(ridge_model(solver_name="newton-cg", memory_budget=b).plan(X, counts).batches)
        for b in (6.1e7, 7e7, 1e9)
    ]
    assert sizes[0] > sizes[1] >= sizes[2] == 1


def test_the_plan_changes_no_answer():
    X, counts = network(n_cells=40)
    whole = ridge_model(solver_name="newton-cg", memory_budget="1GB").fit(X, counts)
    small = ridge_model(solver_name="newton-cg", memory_budget="60MB")
    assert len(small.plan(X, counts).batches) > 1
    small.fit(X, counts)
    np.testing.assert_allclose(small.coef_, whole.coef_, atol=1e-7)
    rows = ridge_model(solver_name="newton-cg", solver_kwargs={"products": "rows"}).fit(X, counts)
    np.testing.assert_allclose(rows.coef_, whole.coef_, atol=1e-7)


@pytest.mark.parametrize("products", ["events", "rows"])
def test_products_can_be_forced(products):
    X, counts = network()
    model = ridge_model(solver_name="newton-cg", solver_kwargs={"products": products})
    assert {batch.products for batch in model.plan(X, counts).batches} == {products}


def test_unknown_products_are_refused():
    X, counts = network()
    with pytest.raises(ValueError, match="products of solver_kwargs is 'gpu'; expected one of"):
        ridge_model(solver_kwargs={"products": "gpu"}).fit(X, counts)


def test_events_for_sparse_trains_and_rows_for_dense_ones():
    chosen = []
    for rate in (0.001, 3.0):
        X, counts = network(rate=rate)
        chosen.append(ridge_model(solver_name="newton-cg").plan(X, counts).batches[0].products)
    assert chosen == ["events", "rows"]


@pytest.mark.parametrize(
    ("n_bins", "n_cells", "method"),
    [
        (5000, 4, "newton-cholesky"),
        (1000, 10, "newton-cholesky"),
        (40_000, 4, "newton-cg"),
        (10_000, 10, "newton-cg"),
        (5000, 25, "newton-cg"),
    ],
)
def test_the_method_is_the_faster_one_whatever_the_receivers(n_bins, n_cells, method):
    """For all cells each of these takes at most two thirds of the time of the other."""
    X, counts = network(n_bins, n_cells, rate=0.02)
    for n in (1, n_cells):
        plan = ridge_model().plan(X, counts[:, :n])
        assert {batch.method for batch in plan.batches} == {method}


def test_a_batch_of_passes_takes_some_calls(monkeypatch):
    X, counts = network(n_bins=20_000)
    model = ridge_model(solver_name="newton-cg")
    seconds = model.plan(X, counts).seconds
    monkeypatch.setattr(cost.Cost, "calls", lambda self, n_free: 10.0 * n_free)
    assert model.plan(X, counts).seconds - seconds == pytest.approx(800, abs=1)


def test_a_sparse_mask_costs_in_proportion():
    """Receivers that hear a tenth of the senders are planned on these alone."""
    X, counts = network(n_bins=20_000, n_cells=100)
    heard = np.arange(100)[:, None] % 10 == np.arange(100) % 10
    mask = np.repeat(heard, 4, axis=0)
    model = ridge_model(solver_name="newton-cg")
    whole = model.plan(X, counts)
    tenth = ridge_model(solver_name="newton-cg", feature_mask=mask).plan(X, counts)
    assert len(tenth.batches) == 10  # receivers with the same mask share a batch
    assert {batch.n_features for batch in tenth.batches} == {40}
    assert tenth.seconds < 0.3 * whole.seconds


@pytest.mark.parametrize("ridge", [1e-6, 1e-3])
def test_events_a_feature_leave_out_what_a_ridge_holds(ridge):
    """Against the degrees of freedom of the Hessian at a constant rate, from rows of X."""
    X, counts = network(n_bins=40_000, rate=0.02)
    hess = 0.02 * np.cov(np.asarray(X)[X.valid].T)
    values = np.linalg.eigvalsh(hess)
    found = cost.events_a_feature(X, 40_000, counts.sum(axis=0), np.full(20, ridge))
    expected = counts.sum(axis=0) / (values / (values + ridge)).sum()
    np.testing.assert_allclose(found, expected, rtol=0.1)


def test_few_events_for_many_features_are_planned_to_take_longer():
    X, counts = network(n_bins=4000, n_cells=60, rate=0.02)  # 80 events for 240 features
    models = [
        fastglm.PopulationGLM(
            regularizer="Ridge", regularizer_strength=ridge, solver_name="newton-cg"
        )
        for ridge in (1e-7, 1.0)
    ]
    few, held = (model.plan(X, counts).seconds for model in models)
    assert few > 2 * held


def test_masks_that_are_shared_give_what_each_receiver_gives_alone():
    X, counts = network(n_cells=30)
    heard = np.arange(30)[:, None] % 5 == np.arange(30) % 5
    mask = np.repeat(heard, 4, axis=0)
    model = ridge_model(solver_name="newton-cg", feature_mask=mask).fit(X, counts)
    for j in (0, 17):
        alone = ridge_model(solver_name="newton-cholesky").fit(
            np.asarray(X)[:, mask[:, j]], counts[:, [j]]
        )
        np.testing.assert_allclose(model.coef_[mask[:, j], j], alone.coef_[:, 0], atol=1e-7)
        assert not model.coef_[~mask[:, j], j].any()


def test_many_masks_take_their_sums_from_those_of_all_features():
    X, counts = network(n_bins=9000, n_cells=40)
    mask = np.repeat(np.random.default_rng(0).random((40, 40)) < 0.3, 4, axis=0)
    model = ridge_model(solver_name="newton-cg", feature_mask=mask)
    assert model.plan(X, counts).common
    model.fit(X, counts)
    for j in (0, 11, 39):
        kept = mask[:, j]
        some = ridge_model(solver_name="newton-cg", feature_mask=mask[:, [j]])
        assert not some.plan(X, counts[:, [j]]).common
        some.fit(X, counts[:, [j]])
        np.testing.assert_allclose(model.coef_[:, j], some.coef_[:, 0], atol=1e-7)
        alone = ridge_model(solver_name="newton-cholesky")
        alone.fit(np.asarray(X)[:, kept], counts[:, [j]])
        np.testing.assert_allclose(model.coef_[kept, j], alone.coef_[:, 0], atol=1e-7)


def test_a_plan_reads_as_a_table():
    X, counts = network()
    text = str(ridge_model(solver_name="newton-cg", memory_budget="1GB").plan(X, counts))
    first, header, row = text.splitlines()
    assert first.startswith("20 receivers x 80 features, 2,970 bins: about ")
    assert first.endswith("of 1 GB beside the events")
    assert header.split() == [
        "batches", "receivers", "features", "method", "products", "memory", "time",
    ]  # fmt: skip
    assert row.split()[:4] == ["1", "20", "80", "newton-cg"]


def test_rates_of_this_machine_are_positive():
    rates = cost.measure_rates()
    assert all(value > 1e5 for value in vars(rates).values())
    assert cost.measure_rates() is rates  # once


@pytest.mark.parametrize("n_bins", [20_000, 80_000])
def test_memory_is_what_the_plan_says_whatever_the_length(n_bins):
    """Beside 32 bytes an event and 16 for the counts, one byte a bin for the valid rows."""
    X, counts = network(n_bins=n_bins, n_cells=48, rate=0.02)
    model = ridge_model(solver_name="newton-cg", solver_kwargs={"products": "events"})
    made = model.plan(X, counts)
    tracemalloc.start()
    model.fit(X, counts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    events = 80 * np.count_nonzero(counts) + 40 * n_bins
    assert peak < made.peak_bytes + events


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0321, "32 ms"), (0.573, "570 ms"), (4.21, "4.2 s"), (600, "10 min"), (7200, "2 h")],
)
def test_durations_read_well(value, text):
    assert _html.duration(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(12, "12 B"), (4200, "4.2 kB"), (5e6, "5 MB"), (2.25e9, "2.25 GB")]
)
def test_sizes_read_well(value, text):
    assert _html.size(value) == text
