"""Pictures: what is drawn are the numbers, at sizes from 4 to 434 cells, without a warning."""

import doctest
import io
from dataclasses import replace

import numpy as np
import pytest

import fastglm

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.collections import EllipseCollection  # noqa: E402
from matplotlib.colors import to_rgb  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from fastglm import plotting  # noqa: E402
from fastglm.connectivity import CouplingMap, point_estimates  # noqa: E402
from fastglm.diagnostics import Rescaling  # noqa: E402
from fastglm.model_selection import CrossValidation, Path  # noqa: E402
from fastglm.observation_models import as_observation_model  # noqa: E402

N, WINDOW, FUNCS = 4, 20, 3


@pytest.fixture(autouse=True)
def _closed():
    """Every test draws its figures to the end and closes them."""
    yield
    try:
        for number in plt.get_fignums():
            plt.figure(number).savefig(io.BytesIO(), dpi=60)
    finally:
        plt.close("all")


@pytest.fixture(scope="module")
def data():
    basis = fastglm.basis.RaisedCosineLogConv(FUNCS, window_size=WINDOW)
    network = fastglm.simulation.random_network(
        N, basis, mean_rate_hz=40, connection_probability=0.5, strength=0.5, random_key=2
    )
    counts = network.simulate(6000, 1)
    return basis, basis.compute_features(counts), counts


@pytest.fixture(scope="module")
def model(data):
    _, X, counts = data
    return fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-4).fit(X, counts)


@pytest.fixture(scope="module")
def couplings(data, model):
    return model.coupling_map(*data[1:])


@pytest.fixture(scope="module")
def rescaling(data, model):
    return fastglm.diagnostics.time_rescaling(model, *data[1:])


def made_up(n, m=None, itself=True, names=None, seed=0):
    """A map with numbers from nowhere."""
    rng = np.random.default_rng(seed)
    m = n if m is None else m
    strength, error = rng.normal(size=(n, m)), rng.uniform(0.1, 0.5, (n, m))
    q = rng.random((n, m))
    if itself:
        np.fill_diagonal(q, np.nan)
        np.fill_diagonal(strength, -50)
    senders = np.arange(n) if names is None else np.array(names)
    receivers = np.arange(m) if names is None else np.array(names)
    kernel = np.ones((5, 1))
    return CouplingMap(
        strength, error, strength / 5, strength, q, q, senders, receivers, kernel, 0, None, None
    )


# --- connectivity ---


def dots(ax):
    [found] = [c for c in ax.collections if isinstance(c, EllipseCollection)] or [None]
    return None if found is None else {(int(i), int(j)) for j, i in found.get_offsets()}


@pytest.mark.parametrize("n", [4, 12, 40])
def test_the_matrix_shows_the_strengths_and_a_dot_for_each_significant_one(n):
    couplings = made_up(n)
    ax = plotting.plot_connectivity(couplings, q=0.3)
    shown = ax.images[0].get_array()
    np.testing.assert_array_equal(shown.mask, np.eye(n, dtype=bool))
    np.testing.assert_array_equal(shown.compressed(), couplings.strength[~np.eye(n, dtype=bool)])
    significant = couplings.q_value <= 0.3
    assert significant.any()
    assert dots(ax) == {(i, j) for i, j in np.argwhere(significant)}
    drawn = next(c for c in ax.collections if isinstance(c, EllipseCollection))
    key = next(line for line in ax.get_legend().legend_handles if line.get_label().startswith("q"))
    assert {to_rgb(colour) for colour in drawn.get_facecolor()} == {to_rgb("white")}
    assert key.get_markerfacecolor() == "white"
    assert plotting.plot_connectivity(couplings, legend=False).get_legend() is None
    size = np.quantile(np.abs(couplings.strength[significant]), 0.99)
    assert ax.images[0].get_clim() == (-size, size)  # the diagonal of -50 is not in it
    own = ax.images[1].get_array()[..., 3] == 1
    np.testing.assert_array_equal(own, np.eye(n, dtype=bool))


def test_large_maps_fade_what_is_not_significant():
    couplings = made_up(434)
    ax = plotting.plot_connectivity(couplings)
    assert dots(ax) is None
    veil = ax.images[1].get_array()[..., 3]
    between = ~np.eye(434, dtype=bool)
    faded = ~(couplings.q_value <= 0.05) & between
    np.testing.assert_array_equal(veil[between] > 0, faded[between])
    ax.figure.canvas.draw()
    for axis in (ax.xaxis, ax.yaxis):
        ticks = axis.get_majorticklocs()
        assert 5 <= ticks.size <= 30
        assert ticks[1] - ticks[0] in (10, 20, 50, 100)


def test_a_square_of_a_larger_map_shows_its_strongest_coupling():
    n, square = 1000, 3
    couplings = made_up(n)
    ax = plotting.plot_connectivity(couplings, q=0.01)
    shown, over = (image.get_array() for image in ax.images)
    assert shown.shape == (334, 334)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels[-1] == "a square is the strongest of 3 \N{MULTIPLICATION SIGN} 3"
    rng = np.random.default_rng(1)
    for r, c in [*rng.integers(334, size=(200, 2)), (0, 0), (333, 333), (0, 333)]:
        part = np.s_[square * r : square * r + square, square * c : square * c + square]
        size = np.where(couplings.own_history[part], -1, np.abs(couplings.strength[part]))
        found = (couplings.q_value[part] <= 0.01) & (size >= 0)
        best = np.where(found, size, -1) if found.any() else size
        if best.max() < 0:  # the last square holds an own history alone
            assert shown.mask[r, c]
            continue
        assert shown[r, c] == couplings.strength[part].flat[best.argmax()]
        own = couplings.own_history[part].any() and not found.any()
        assert over[r, c, 3] == (1 if own else 0 if found.any() else 0.72)
    assert ax.get_xlim() == (-0.5, n - 0.5)
    assert ax.get_ylim() == (n - 0.5, -0.5)


def test_cells_are_sorted_by_strength_by_groups_or_as_told():
    couplings = made_up(30)
    rng = np.random.default_rng(2)
    group = rng.permutation(30) % 3
    couplings.strength[:] = rng.normal(size=(30, 30)) * (1 + group)
    linked = (group[:, None] == group) & (rng.random((30, 30)) < 0.5)
    couplings.q_value[:] = np.where(linked, 0.001, 1.0)
    np.fill_diagonal(couplings.q_value, np.nan)

    def drawn(order):
        ax = plotting.plot_connectivity(couplings, order=order)
        names = [int(ax.xaxis.get_major_formatter()(k, 0)) for k in range(30)]
        expected = couplings.strength[names][:, names]
        shown = ax.images[0].get_array()
        np.testing.assert_array_equal(shown.compressed(), expected[~shown.mask])
        assert shown.mask.diagonal().all()
        marked = np.nan_to_num(couplings.q_value[names][:, names], nan=1) <= 0.05
        assert dots(ax) == {(i, j) for i, j in np.argwhere(marked)}
        return names

    assert (np.diff(group[drawn("groups")]) != 0).sum() == 2
    size = np.where(couplings.significant(), np.abs(couplings.strength), 0)
    total = (size.sum(axis=0) + size.sum(axis=1))[drawn("strength")]
    assert (np.diff(total) <= 0).all()
    told = rng.permutation(30)
    assert drawn(told) == told.tolist()
    senders, receivers = rng.permutation(6), rng.permutation(4)
    other = made_up(6, 4, itself=False)
    ax = plotting.plot_connectivity(other, order=(senders, receivers))
    expected = other.strength[senders][:, receivers]
    np.testing.assert_array_equal(ax.images[0].get_array(), expected)
    plotting.plot_connectivity(other, order="groups")


@pytest.mark.parametrize(("n", "width"), [(4, 2), (12, 2), (12, 5), (30, 2.5), (100, 4)])
def test_labels_of_cells_never_touch(n, width):
    figure = plt.figure(figsize=(width, width), layout="constrained")
    ax = plotting.plot_connectivity(made_up(n), bar=False, ax=figure.subplots())
    figure.canvas.draw()
    for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
        boxes = [t.get_window_extent() for t in labels if t.get_text()]
        assert len(boxes) > 1
        assert sum(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k]) == 0


def test_long_names_stand_upright_and_nothing_is_cut_off():
    names = [f"tetrode {k} unit" for k in range(6)]
    ax = plotting.plot_connectivity(made_up(6, names=names))
    ax.figure.canvas.draw()
    assert [t.get_text() for t in ax.get_xticklabels()] == names
    assert {t.get_rotation() for t in ax.get_xticklabels()} == {90}
    page = ax.figure.bbox
    legend = ax.get_legend().get_window_extent()
    labels = [t.get_window_extent() for t in ax.get_xticklabels()]
    assert not any(legend.overlaps(box) for box in labels)
    for box in [legend, *labels]:
        assert page.x0 <= box.x0 < box.x1 <= page.x1
        assert page.y0 <= box.y0 < box.y1 <= page.y1


def test_couplings_without_a_number_are_marked_and_not_coloured():
    couplings = made_up(5)
    couplings.standard_error[0, 1] = np.inf  # not determined
    couplings.standard_error[2, 3] = couplings.q_value[2, 3] = np.nan  # masked
    ax = plotting.plot_connectivity(couplings)
    hidden = np.eye(5, dtype=bool)
    hidden[0, 1] = hidden[2, 3] = True
    np.testing.assert_array_equal(ax.images[0].get_array().mask, hidden)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == [
        "q \u2264 0.05",
        "own history",
        "not in the fit",
        "not determined",
    ]
    assert ax.images[1].get_array()[0, 1, 3] == 0  # the hatch of the ground is seen
    assert ax.patch.get_hatch()


@pytest.mark.parametrize("tested", [True, False])
def test_a_silent_receiver_is_not_in_the_fit_with_and_without_tests(data, tested):
    basis, X, counts = data
    silenced = counts * (np.arange(counts.shape[1]) != 2)
    with pytest.warns(match="silent"):
        model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-4).fit(
            X, silenced
        )
    couplings = model.coupling_map(X, silenced)
    if not tested:
        couplings = point_estimates(model.coef_, basis.kernel_, itself=False, model=model)
    ax = plotting.plot_connectivity(couplings)
    assert "not in the fit" in [t.get_text() for t in ax.get_legend().get_texts()]
    assert ax.patch.get_hatch() is None
    np.testing.assert_array_equal(ax.images[1].get_array()[:, 2, 0], 0.92)


def test_a_map_without_tests_marks_nothing():
    couplings = made_up(5)
    couplings.q_value[:] = couplings.standard_error[:] = np.nan
    ax = plotting.plot_connectivity(couplings)
    assert ax.images[0].get_array().count() == 20
    assert dots(ax) is None
    couplings.standard_error[:] = np.inf  # nothing left to colour, so no scale of colours
    assert len(plotting.plot_connectivity(couplings).figure.axes) == 1


def test_senders_that_are_not_the_receivers_have_no_own_history():
    for couplings in (made_up(4, itself=False), made_up(20, 2, itself=False)):
        ax = plotting.plot_connectivity(couplings, value="peak")
        assert ax.images[0].get_array().count() == couplings.peak.size
        np.testing.assert_array_equal(ax.images[0].get_array(), couplings.peak)


def test_a_plain_matrix_is_drawn_as_it_is():
    matrix = np.random.default_rng(0).normal(size=(3, 5))
    matrix[1, 2] = np.nan
    ax = plotting.plot_connectivity(matrix)
    np.testing.assert_array_equal(ax.images[0].get_array().filled(np.nan), matrix)
    assert "coupling" in [a.get_ylabel() or a.get_xlabel() for a in ax.figure.axes[1:]]


def test_values_in_units_that_do_not_change_with_the_bin(data, model, couplings):
    with pytest.raises(ValueError, match="The map has no strength_ms"):
        plotting.plot_connectivity(couplings, value="strength_ms")
    in_ms = model.coupling_map(*data[1:], bin_size=0.005)
    for value in ("strength_ms", "added_spikes"):
        ax = plotting.plot_connectivity(in_ms, value=value)
        shown, own = ax.images[0].get_array(), in_ms.own_history
        np.testing.assert_array_equal(shown.data[~own], getattr(in_ms, value)[~own])


def test_axes_are_used_as_given_and_the_bar_can_be_left_out():
    figure, ax = plt.subplots()
    assert plotting.plot_connectivity(made_up(4), bar=False, limit=2.0, ax=ax) is ax
    assert figure.axes == [ax]
    assert ax.images[0].get_clim() == (-2, 2)


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"q": 0}, "q is 0; expected a number between 0 and 1"),
        ({"value": "size"}, "value is 'size'; expected one of"),
        ({"mark": "stars"}, "mark is 'stars'; expected"),
        ({"limit": -1}, "limit is -1; expected a number above 0"),
        ({"order": "size"}, "order is 'size'; expected"),
        ({"order": [0, 1, 1, 2]}, "every number of 4 senders and of 4 receivers once"),
        ({"order": (0, 1)}, "every number of 4 senders"),
    ],
)
def test_connectivity_stops_at_the_door(kwargs, match):
    with pytest.raises(ValueError, match=match):
        plotting.plot_connectivity(made_up(4), **kwargs)
    assert not plt.get_fignums()


# --- filters ---


def band(ax):
    """Lower and upper edge of the band."""
    vertices = ax.collections[0].get_paths()[0].vertices
    x = np.unique(vertices[:, 0])
    return np.array([[f(vertices[vertices[:, 0] == v, 1]) for v in x] for f in (min, max)])


def test_filters_are_multipliers_of_the_rate_with_their_bands(couplings):
    pairs = [(0, 1), (2, 2), (3, 0)]
    axes = plotting.plot_filters(couplings, pairs, bin_size=0.002, level=0.9)
    h, lower, upper = couplings.filters(0.9)
    for ax, (i, j) in zip(axes, pairs, strict=True):
        line = ax.lines[1]
        np.testing.assert_allclose(line.get_xdata(), 2.0 * np.arange(1, WINDOW + 1))
        np.testing.assert_allclose(line.get_ydata(), np.exp(h[:, i, j]), rtol=1e-12)
        np.testing.assert_allclose(band(ax)[0], np.exp(lower[:, i, j]), rtol=1e-12)
        np.testing.assert_allclose(band(ax)[1], np.exp(upper[:, i, j]), rtol=1e-12)
        low, high = ax.get_ylim()
        assert low * high == pytest.approx(1)  # doubling is as high as halving is deep
        assert ax.get_ylim() == axes[0].get_ylim()
        assert high > np.exp(np.abs([lower, upper])[:, :, i, j].max())
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("lag (ms)", "rate multiplier")
    assert axes[1].get_title(loc="left") == "2 \N{RIGHTWARDS ARROW} 2, own"
    own = plotting.plot_filters(couplings, pairs, share=False)
    assert len({ax.get_ylim() for ax in own}) == 3
    assert own[0].get_xlabel() == "lag (bins)"


def test_the_strongest_significant_couplings_are_shown_by_default(couplings):
    axes = plotting.plot_filters(couplings)
    strength = np.where(np.eye(N, dtype=bool), 0, np.abs(couplings.strength))
    strength[~couplings.significant()] *= 1e-6
    order = np.argsort(-strength, axis=None)[:6]
    expected = [f"{k // N} \N{RIGHTWARDS ARROW} {k % N}" for k in order]
    assert [ax.get_title(loc="left") for ax in axes] == expected
    _, given = plt.subplots(1, 2)
    assert list(plotting.plot_filters(couplings, axes=given)) == list(given)


def test_undetermined_filters_have_no_band_and_say_so(data):
    """Without a ridge, refractory cells separate."""
    basis, X, _ = data
    counts = np.zeros((6000, 2))
    counts[::50, 0] = counts[7::61, 1] = 1
    X = basis.compute_features(counts)
    with pytest.warns(match="separated"):
        model = fastglm.PopulationGLM().fit(X, counts)
    couplings = model.coupling_map(X, counts)
    assert np.isinf(couplings.standard_error[0, 0])
    [ax] = plotting.plot_filters(couplings, [(0, 0)])
    known = np.isfinite(couplings.uncertainty.linear(0, couplings.kernel)[1][:, 0])
    assert (band(ax)[0].size == known.sum()) if known.any() else ax.texts[0].get_text()
    assert 1e-4 < ax.get_ylim()[0] < 1
    assert (0, 0) not in plotting.strongest(couplings, 4)


@pytest.mark.parametrize(
    ("family", "link", "scale", "label", "area"),
    [
        ("Poisson", "softplus", "linear", "change of input", "input"),
        ("Bernoulli", "logistic", "log", "odds multiplier", "log odds"),
        ("Bernoulli", "cloglog", "log", "rate multiplier", "log rate"),
        ("Gaussian", "identity", "linear", "change of mean", "mean"),
    ],
)
def test_pictures_say_what_a_filter_changes(couplings, family, link, scale, label, area):
    couplings = replace(couplings, loss=as_observation_model(family).loss(link))
    [ax] = plotting.plot_filters(couplings, [(0, 1)])
    assert (ax.get_yscale(), ax.get_ylabel()) == (scale, label)
    drawn = ax.lines[1].get_ydata()
    h = couplings.filters()[0][:, 0, 1]
    np.testing.assert_allclose(drawn, np.exp(h) if scale == "log" else h)
    bar = plotting.plot_connectivity(couplings).figure.axes[1]
    assert bar.get_ylabel() == f"filter area ({area} \N{MULTIPLICATION SIGN} bins)"


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.8, 1.25, [0.8, 0.9, 1.0, 1.1, 1.2]),
        (0.2, 5, [0.25, 0.5, 1, 2, 4]),
        (1e-3, 1e3, [1e-3, 1e-2, 0.1, 1, 10, 100, 1e3]),
    ],
)
def test_gains_have_round_ticks(low, high, ticks):
    np.testing.assert_allclose(plotting.couplings._GainLocator().tick_values(low, high), ticks)


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"pairs": [(0, 4)]}, r"pairs holds \[\(0, 4\)\]; expected numbers of a sender below 4"),
        ({"pairs": []}, "pairs holds nothing"),
        ({"level": 1}, "level is 1; expected"),
        ({"bin_size": 0}, "bin_size is 0; expected seconds"),
    ],
)
def test_filters_stop_at_the_door(couplings, kwargs, match):
    with pytest.raises(ValueError, match=match):
        plotting.plot_filters(couplings, **kwargs)
    assert not plt.get_fignums()


def test_too_few_axes(couplings):
    with pytest.raises(ValueError, match="axes has 1 axes; expected 2, one for each pair"):
        plotting.plot_filters(couplings, [(0, 1), (1, 0)], axes=plt.subplots()[1])


# --- diagnostics ---


def test_ks_curves_are_the_distribution_of_the_intervals(rescaling):
    ax = plotting.plot_ks(rescaling, receivers=2, level=0.99)
    curve = next(line for line in ax.lines if str(line.get_label()).startswith("receiver 2"))
    u, share = curve.get_data()
    intervals = rescaling.intervals[2]
    np.testing.assert_allclose(share, [np.mean(intervals < v) + 0.5 / intervals.size for v in u])
    assert np.abs(share - u).max() == pytest.approx(rescaling.statistic[2], abs=1 / intervals.size)
    edges = [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "--"]
    np.testing.assert_allclose(edges, np.array([-1, 1]) * rescaling.band(0.99)[2])
    flat = plotting.plot_ks(rescaling, receivers=2, difference=True)
    curve = next(line for line in flat.lines if str(line.get_label()).startswith("receiver 2"))
    np.testing.assert_allclose(curve.get_ydata(), share - u)
    assert flat.get_ylim()[1] > max(rescaling.band()[2], rescaling.statistic[2])


def test_ks_shows_the_receivers_that_are_farthest_outside():
    rng = np.random.default_rng(0)
    intervals = [rng.random(100) for _ in range(6)] + [np.zeros(0)]
    statistic = np.array([0.1, 0.5, 0.2, 0.4, 0.3, 0.05, np.nan])
    n = np.array([u.size for u in intervals])
    rescaling = Rescaling(intervals, statistic, statistic, n, 0 * n, 0 * n)
    ax = plotting.plot_ks(rescaling)
    labels = [t.get_text().split(":")[0] for t in ax.get_legend().get_texts()]
    assert labels == ["receiver 1", "receiver 3", "receiver 4", "receiver 2"]
    ax = plotting.plot_ks_distances(rescaling)
    drawn = np.concatenate([line.get_xydata() for line in ax.lines[:2]])
    drawn = drawn[np.argsort(drawn[:, 0])]
    np.testing.assert_allclose(drawn[:, 1], (statistic / rescaling.band())[:6])
    inside, outside = (line.get_ydata() for line in ax.lines[:2])
    assert (inside <= 1).all()
    assert (outside > 1).all()
    with pytest.raises(ValueError, match="Receiver 6 was not tested"):
        plotting.plot_ks(rescaling, receivers=[0, 6])
    with pytest.raises(ValueError, match="receiver is 7; expected a number from 0 to 6"):
        plotting.plot_ks(rescaling, receivers=[7])
    with pytest.raises(ValueError, match="receivers holds 7 receivers"):
        plotting.plot_ks(rescaling, receivers=range(7))
    with pytest.raises(ValueError, match="names has shape"):
        plotting.plot_ks_distances(rescaling, names=["a"])
    rescaling.statistic[:] = np.nan
    with pytest.raises(ValueError, match="No receiver has the 5 intervals"):
        plotting.plot_ks_distances(rescaling)


def test_autocorrelation_is_drawn_with_its_band(rescaling):
    correlation, limit = rescaling.autocorrelation(12)
    ax = plotting.plot_autocorrelation(rescaling, [0, 3], n_lags=12)
    for j in (0, 3):
        line = next(one for one in ax.lines if one.get_label() == f"receiver {j}")
        np.testing.assert_allclose(line.get_ydata(), correlation[:, j])
        np.testing.assert_allclose(line.get_xdata(), np.arange(1, 13), atol=0.36)
    levels = {abs(line.get_ydata()[0]) for line in ax.lines if line.get_linestyle() == "--"}
    np.testing.assert_allclose(sorted(levels), sorted(limit[[0, 3]]))
    plotting.plot_autocorrelation(rescaling, 1)
    with pytest.raises(ValueError, match="n_lags is 0"):
        plotting.plot_autocorrelation(rescaling, n_lags=0)


# --- penalties ---


def test_the_path_of_a_receiver_coefficients_or_filters(data):
    _, X, counts = data
    model = fastglm.PopulationGLM(regularizer="GroupLasso")
    path = fastglm.model_selection.regularization_path(model, X, counts, 6)
    ax = plotting.plot_path(path, 1, groups=X.filters, names=["a", "b", "c", "d"], chosen=1e-3)
    lines = {line.get_label(): line for line in ax.lines}
    for g, name in enumerate("abcd"):
        expected = np.linalg.norm(path.coef[:, g * FUNCS : (g + 1) * FUNCS, 1], axis=1)
        np.testing.assert_allclose(lines[name].get_ydata(), expected)
        np.testing.assert_array_equal(lines[name].get_xdata(), path.strengths[:, 1])
    assert lines["chosen"].get_xdata()[0] == 1e-3
    assert ax.get_xlim()[0] > ax.get_xlim()[1]  # the strongest on the left
    ax = plotting.plot_path(path, 1, n_named=2)
    drawn = sorted(tuple(line.get_ydata()) for line in ax.lines[1:])
    np.testing.assert_allclose(drawn, sorted(map(tuple, path.coef[:, :, 1].T)))
    assert len(ax.get_legend().get_texts()) == 2
    for kwargs, match in (
        ({"receiver": 4}, "receiver is 4; expected a number from 0 to 3"),
        ({"groups": [0, 1]}, "Pass X.filters?"),
        ({"names": ["a"]}, "names has shape"),
    ):
        with pytest.raises(ValueError, match=match):
            plotting.plot_path(path, **kwargs)


def test_a_path_down_to_no_penalty():
    strengths = np.array([[1.0], [0.1], [0.0]])
    blank = np.zeros((3, 1))
    path = Path(strengths, np.ones((3, 2, 1)), *(blank,) * 6)
    assert plotting.plot_path(path).get_xscale() == "symlog"


def test_cross_validation_shows_differences_fold_by_fold():
    rng = np.random.default_rng(0)
    strengths = np.repeat([[1.0], [0.1], [0.01]], 2, axis=1)
    scores = rng.normal(-1, 0.1, (3, 5, 2))
    scores[1] += 1.0
    scores[:, 4, 0] = np.nan  # a fold without bins for receiver 0
    scores[:, :, 1] = np.nan
    cv = CrossValidation(strengths, scores, np.array([1, 0]), "one-standard-error", None)
    ax = plotting.plot_cross_validation(cv)
    curve = ax.lines[0]
    less = (scores - scores[1])[:, :4, 0]
    np.testing.assert_allclose(curve.get_ydata(), less.mean(axis=1))
    np.testing.assert_allclose(curve.get_ydata()[1], 0)
    error = less.std(axis=1, ddof=1) / 2
    np.testing.assert_allclose(np.diff(band(ax), axis=0)[0], 2 * error[::-1], atol=1e-12)
    heights = [line.get_ydata()[0] for line in ax.lines[1:]]
    assert np.isclose(heights, -scores[1, :4, 0].std(ddof=1) / 2).any()  # what the rule asks for
    assert ax.lines[-1].get_xydata().tolist() == [[0.1, 0.0]]
    with pytest.raises(ValueError, match="Receiver 1 has no held-out score"):
        plotting.plot_cross_validation(cv, 1)


# --- colours, examples, old pictures ---


def test_colours_differ_for_the_colour_blind():
    """Severe deuteranomaly and protanomaly as in Machado, Oliveira & Fernandes (2009)."""
    deutan = [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]
    protan = [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]
    colours = np.array([to_rgb(c) for c in plotting.common.COLOURS])
    ends = matplotlib.colormaps[plotting.couplings._MAP]([0.1, 0.9])[:, :3]
    luminance = np.array([0.2126, 0.7152, 0.0722])
    for seen in (np.eye(3), np.array(deutan), np.array(protan)):
        for group, least in ((colours, 0.12), (ends, 0.3)):
            c = (group**2.2 @ seen.T).clip(0, 1) ** (1 / 2.2)
            # Hue and lightness count, lightness twice.
            points = np.column_stack([c, 2 * c @ luminance])
            apart = np.linalg.norm(points[:, None] - points, axis=-1)
            assert apart[np.triu_indices(len(group), 1)].min() > least


def test_examples_of_the_docstrings():
    modules = plotting.couplings, plotting.rescaling, plotting.selection
    results = [doctest.testmod(module) for module in modules]
    assert sum(result.attempted for result in results) > 30
    assert sum(result.failed for result in results) == 0


def test_a_missing_matplotlib_says_what_to_install(monkeypatch):
    import importlib
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "fastglm.plotting")
    with pytest.raises(ImportError, match=r"pip install 'fastglm\[plot\]'"):
        importlib.import_module("fastglm.plotting")


@pytest.fixture
def saved(monkeypatch):
    """Figures that are saved to files, in the order of saving."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: figures.append(figure))
    return figures


def test_the_picture_of_a_fit_shows_the_map_and_its_strongest_filters(data, model, saved, tmp_path):
    coef = model.coef_.copy()
    couplings = point_estimates(coef, data[0].kernel_, receivers=np.array(list("abcd")))
    couplings.standard_error[:, 3] = np.inf  # a receiver without a regular optimum
    plotting.fit_figure(couplings, 0.001, tmp_path / "fit.png")
    [figure] = saved
    matrix, *filters = (ax for ax in figure.axes if ax.get_visible() and ax.get_label() == "")
    hidden = np.eye(4, dtype=bool)
    hidden[:, 3] = True
    np.testing.assert_array_equal(matrix.images[0].get_array().mask, hidden)
    labels = [text.get_text() for text in matrix.get_legend().get_texts()]
    assert labels == ["own history", "not determined"]
    titles = [ax.get_title(loc="left") for ax in filters]
    pairs = couplings.strongest(12)
    negative = [pair for pair in pairs if couplings.strength[pair] < 0][:3]
    positive = [pair for pair in pairs if couplings.strength[pair] > 0][: 6 - len(negative)]
    expected = [f"{i} \N{RIGHTWARDS ARROW} {'abcd'[j]}" for i, j in positive + negative]
    assert sorted(t for t in titles if t) == sorted(expected)


def test_the_picture_of_the_demo_lays_fitted_filters_over_true_ones(data, model, saved, tmp_path):
    basis, *_ = data
    rng = np.random.default_rng(0)
    true = point_estimates(rng.normal(size=(N * FUNCS, N)), basis.kernel_)
    fitted = point_estimates(model.coef_, basis.kernel_)
    plotting.demo_figure(true, fitted, 0.001, tmp_path / "demo.png")
    [figure] = saved
    assert [ax.get_legend() is None for ax in figure.axes[:2]] == [True, False]
    titles = [ax.get_title() for ax in figure.axes[:2]]
    assert titles == ["true connectivity", "fitted connectivity"]
    assert figure.axes[0].images[0].get_clim() == figure.axes[1].images[0].get_clim()
    panels = [ax for ax in figure.axes if ax.get_title(loc="left")]
    assert len(panels) == 6
    for ax in panels:
        i, j = (int(part) for part in ax.get_title(loc="left").split(" \N{RIGHTWARDS ARROW} "))
        lines = {line.get_label(): line.get_ydata() for line in ax.lines}
        for label, couplings in (("true", true), ("fitted", fitted)):
            h = basis.kernel_ @ couplings.coef[i, :, j]
            np.testing.assert_allclose(lines[label], np.exp(h))
            assert ax.get_ylim()[1] > np.exp(np.abs(h).max()) or np.abs(h).max() > np.log(900)


def test_a_network_without_links_can_be_drawn(data, saved, tmp_path):
    nothing = point_estimates(np.zeros((N * FUNCS, N)), data[0].kernel_)
    plotting.demo_figure(nothing, nothing, 0.001, tmp_path / "demo.png")
    plotting.fit_figure(nothing, 0.001, tmp_path / "fit.png")
    assert len(saved) == 2


def test_the_style_lets_a_page_ask_for_a_tight_layout():
    """NeMoS's pages call it below `plt.style.use(nmo.styles.plot_style)`, without a warning."""
    with plt.style.context(fastglm.styles.plot_style):
        plt.figure()
        plt.subplot(121)
        plt.tight_layout()


def test_paths_of_pictures(tmp_path):
    with pytest.raises(ValueError, match="no known type of picture"):
        plotting.check_path(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="There is no folder"):
        plotting.check_path(tmp_path / "b" / "a.png")
