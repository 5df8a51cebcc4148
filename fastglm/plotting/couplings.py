"""Pictures of couplings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.collections import EllipseCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy import linalg, stats
from scipy.cluster import hierarchy

from fastglm._checks import as_dense_numbers, check_choice, check_share
from fastglm.connectivity import CouplingMap, point_estimates
from fastglm.plotting.common import BLUE, GREY, SMALL, axes_of, figure_of, lags_of, plain
from fastglm.recordings.times import check_bin_size

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_MAP = "RdBu_r"
_OWN, _ABSENT = (0.72, 0.72, 0.72, 1.0), (0.92, 0.92, 0.92, 1.0)
_VEIL = (1.0, 1.0, 1.0, 0.72)  # over couplings that are not significant, if dots would be too small
_RING = 0.6  # points, around a dot
_MOST_DOTS = 40  # cells above which a dot is smaller than 3 points on a page
_MOST_SQUARES = 450  # cells above which a pair has less than a pixel of a page
_LONG = 8  # letters of a name beside which a q-value has room in a small panel
_N_WAYS = 20  # singular vectors that groups of cells are found in
_MANY, _APART = 100, 2.2  # names above which they stand apart, and by how many heights


strongest = CouplingMap.strongest


def plot_connectivity(
    couplings: CouplingMap | ArrayLike,
    q: float = 0.05,
    value: str = "strength",
    mark: str = "auto",
    limit: float | None = None,
    bar: bool = True,
    ax: Axes | None = None,
    legend: bool = True,
    order: str | ArrayLike | None = None,
) -> Axes:
    """Matrix of couplings, senders down and receivers across.

    The diagonal, a cell's own history, is grey and does not enter the scale of colours. Couplings
    that are not in the fit are light grey; all couplings of a silent receiver are among them.
    Couplings that the data do not determine are hatched.

    A page has no pixel for each pair of more than 450 cells, and most couplings would fall between
    the pixels. A square then stands for s x s pairs and shows the strongest of them: of the
    significant ones, if there are any. The legend says so.

    Parameters
    ----------
    couplings : fastglm.connectivity.CouplingMap or array of shape (n_senders, n_receivers)
        A plain matrix has no tests and no own histories; NaN is a coupling that is not there.
    q : float
        q-value up to which a coupling counts as significant.
    value : {"strength", "strength_ms", "added_spikes", "peak"}
        Area of the filter (eta x bins, or eta x ms), spikes that one event of the sender adds, or
        the value of the filter that is farthest from zero (eta). eta is the log rate with the
        exponential link and cloglog, the log odds with the logistic link.
    mark : {"auto", "dots", "fade", "none"}
        "dots" marks the significant couplings; "fade" fades all others. "auto" is "dots" up to 40
        cells and "fade" beyond.
    limit : float, optional
        Value at which the colours end. Default: the 99th percentile of the absolute values of the
        significant couplings; of all couplings if none is significant.
    bar : bool
        Whether to draw the bar of colours.
    ax : matplotlib Axes, optional
    legend : bool
        Whether to say below the matrix what marks and greys mean.
    order : {"strength", "groups"} or array of int, optional
        Order of the cells. "strength": by the sum of the absolute values of their significant
        couplings, largest first. "groups": cells with like couplings stand together (Ward's
        linkage in the leading singular vectors). An array has the numbers of the cells;
        a map whose senders are not its receivers takes two arrays, (senders, receivers). Default:
        as they are.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        If q is not between 0 and 1, value, mark, limit or order is not known, the map does not
        have the value, or a matrix does not have two dimensions.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> from fastglm.plotting import plot_connectivity
    >>> counts = np.random.default_rng(0).poisson(0.2, size=(3000, 4))
    >>> X = fastglm.basis.RaisedCosineLogConv(5, window_size=50).compute_features(counts)
    >>> model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-4)
    >>> ax = plot_connectivity(model.fit(X, counts).coupling_map(X, counts))
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('receiver', 'sender')
    """
    couplings, unit = _as_map(couplings)
    labels = {
        "strength": f"filter area ({unit} \N{MULTIPLICATION SIGN} bins)" if unit else "coupling",
        "strength_ms": f"filter area ({unit} \N{MULTIPLICATION SIGN} ms)",
        "added_spikes": "spikes added by a spike of the sender",
        "peak": f"filter peak ({unit})",
    }
    check_share("q", q, 0.05)
    check_choice("value", value, labels)
    check_choice("mark", mark, ("auto", "dots", "fade", "none"))
    if limit is not None and not (np.isfinite(limit) and limit > 0):
        raise ValueError(f"limit is {limit}; expected a number above 0.")
    values = getattr(couplings, value)
    if np.isnan(values).all() and not np.isnan(couplings.strength).all():
        raise ValueError(
            f"The map has no {value}: it knows no bin size or no mean counts. Pass bin_size= to "
            "coupling_map, which needs counts."
        )
    own, significant = couplings.own_history, couplings.significant(q)
    open_ = np.isinf(couplings.standard_error) & ~own
    absent = (couplings.absent | ~np.isfinite(values)) & ~own & ~open_
    shown = np.ma.masked_where(own | open_ | absent, values)
    if limit is None:
        limit = colour_limit(shown[significant & ~shown.mask] if significant.any() else shown)
    rows, columns = order_of(order, values, significant & ~shown.mask, shown.mask)
    senders, receivers = couplings.senders[rows], couplings.receivers[columns]
    values, own, open_, absent, significant = (
        one[rows][:, columns] for one in (values, own, open_, absent, significant)
    )
    ax = axes_of(ax, (5.2, 4.6) if max(values.shape) <= 100 else (7.5, 6.8))
    if mark == "auto":
        mark = "dots" if max(values.shape) <= _MOST_DOTS else "fade"
    mark = mark if couplings.tested else "none"
    square = -(-max(values.shape) // _MOST_SQUARES)
    at = _strongest_of(square, values, own | open_ | absent, significant)
    hidden = (own | open_ | absent)[at]
    shown = np.ma.masked_where(hidden, values[at])
    image = _draw_matrix(ax, shown, limit, senders, receivers, square)
    over = np.zeros((*shown.shape, 4))
    # Of a square without a coupling the diagonal shows, then what is not in the fit.
    inside = _any_of(square, own) & ~significant[at]
    over[absent[at]] = _ABSENT
    if mark == "fade":
        over[~significant[at] & ~hidden] = _VEIL
    over[inside] = _OWN
    if over.any():
        _draw_image(ax, over, square, values.shape)
    if mark == "dots":
        _draw_dots(ax, significant)
    if open_.any():
        ax.patch.set(hatch="/////", edgecolor="0.6", facecolor="white")
    if legend:
        _draw_keys(ax, _keys(mark, q, own, absent, open_, square), receivers)
    if bar and shown.count():
        draw_bar(image, shown.compressed(), ax, labels[value])
    return ax


def order_of(
    order: str | ArrayLike | None, values: np.ndarray, found: np.ndarray, hidden: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the senders and of the receivers in the order of a picture.

    Parameters
    ----------
    order : {"strength", "groups"}, array, pair of arrays or None
        As in `plot_connectivity`.
    values : ndarray of shape (n_senders, n_receivers)
    found, hidden : ndarrays of bool, like values
        Significant couplings, and those that do not count. All others count where none is found.

    Raises
    ------
    ValueError
        If there is no such order, or numbers are not those of the cells.
    """
    n, m = values.shape
    if order is None:
        return np.arange(n), np.arange(m)
    if isinstance(order, str):
        check_choice("order", order, ("strength", "groups"), "'strength', 'groups' or numbers")
        weights = np.where(found if found.any() else ~hidden, values, 0.0)
        by = _by_strength if order == "strength" else _by_groups
        if n == m:
            both = by(np.hstack([weights, weights.T]))
            return both, both
        return by(weights), by(weights.T)
    two = isinstance(order, tuple) and [np.ndim(one) for one in order] == [1, 1]
    given = [np.asarray(one) for one in (order if two else (order, order))]
    for one, size in zip(given, (n, m), strict=True):
        if one.ndim != 1 or not np.array_equal(np.sort(one), np.arange(size)):
            raise ValueError(
                f"order is {order!r:.60}; expected 'strength', 'groups', or every number of "
                f"{n} senders and of {m} receivers once."
            )
    return given[0], given[1]


def _by_strength(weights):
    """Rows by their sum of absolute values, largest first."""
    return np.argsort(-np.abs(weights).sum(axis=1), kind="stable")


def _by_groups(weights):
    """Rows with like weights side by side, and those without weights last.

    Ward's linkage of the rows in the twenty leading singular vectors of the sizes of the weights,
    divided by the roots of the sums of their row and column.
    """
    size = np.abs(weights)
    per_row, per_column = size.sum(axis=1), size.sum(axis=0)
    full, empty = np.flatnonzero(per_row > 0), np.flatnonzero(per_row == 0)
    if full.size > 2:
        some = size[full][:, per_column > 0] / np.sqrt(per_row[full, None])
        some /= np.sqrt(per_column[per_column > 0])
        first = max(full.size - _N_WAYS, 0)
        values, ways = linalg.eigh(some @ some.T, subset_by_index=(first, full.size - 1))
        tree = hierarchy.linkage(ways * np.sqrt(np.maximum(values, 0)), "ward")
        full = full[hierarchy.leaves_list(tree)]
    return np.concatenate([full, empty])


def _strongest_of(square, values, hidden, significant):
    """Where the strongest coupling of every square is, for indexing; significant ones first."""
    n, m = values.shape
    if square == 1:
        return np.ix_(np.arange(n), np.arange(m))
    size = np.where(hidden, -1.0, np.abs(values))
    size[significant & ~hidden] += 2 * np.max(size, initial=0.0) + 1
    rows, columns = -(-n // square), -(-m // square)
    padded = np.full((rows * square, columns * square), -2.0)
    padded[:n, :m] = size
    blocks = padded.reshape(rows, square, columns, square).transpose(0, 2, 1, 3)
    best = blocks.reshape(rows, columns, -1).argmax(axis=2)
    row, column = np.divmod(best, square)
    return row + square * np.arange(rows)[:, None], column + square * np.arange(columns)


def _any_of(square, where):
    """Whether something is in every square."""
    for axis in (0, 1):
        where = np.logical_or.reduceat(where, np.arange(0, where.shape[axis], square), axis=axis)
    return where


def _as_map(couplings):
    """A map, and the name of its eta; the map of a plain matrix has none."""
    if isinstance(couplings, CouplingMap):
        return couplings, couplings.loss.eta_name
    matrix = as_dense_numbers(couplings, "couplings").astype(float)
    if matrix.ndim != 2:
        raise ValueError(
            f"couplings has shape {matrix.shape}; expected a CouplingMap, or a matrix of "
            "(n_senders, n_receivers)."
        )
    return point_estimates(matrix, np.ones((1, 1)), itself=False), ""


def _keys(mark, q, own, absent, open_, square):
    """Entries of the legend for marks and grounds."""
    keys = []
    if mark == "dots":
        dot = {"marker": "o", "ms": 4.5, "mfc": "white", "mec": "black", "mew": _RING}
        keys.append(Line2D([], [], ls="", **dot, label=f"q \u2264 {q:g}"))
    elif mark == "fade":
        keys.append(Patch(color="#B2182B", label=f"q \u2264 {q:g}, others faded"))
    if own.any():
        keys.append(Patch(color=_OWN, label="own history"))
    if absent.any():
        keys.append(Patch(color=_ABSENT, label="not in the fit"))
    if open_.any():
        keys.append(Patch(hatch="/////", ec="0.6", fc="white", label="not determined"))
    if square > 1:
        label = f"a square is the strongest of {square} \N{MULTIPLICATION SIGN} {square}"
        keys.append(Line2D([], [], ls="", label=label))
    return keys


def _draw_keys(ax, keys, receivers):
    """The legend below the labels of the receivers."""
    if not keys:
        return
    # Four keys, or the long one of squares as a third, would be wider than a small matrix.
    most = 2 if any(key.get_label().startswith("a square") for key in keys) else 3
    below = 4.0 + 0.55 * max(len(t) for t in _texts(receivers)) * _upright(receivers)
    ax.legend(
        handles=keys, loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=below,
        ncols=2 if len(keys) > most else len(keys), fontsize=SMALL, frameon=False, handlelength=1.2,
        columnspacing=1.2, handletextpad=0.5,
    )  # fmt: skip


def draw_bar(
    image: ScalarMappable, drawn: np.ndarray, axes: Axes | Iterable[Axes], label: str
) -> None:
    """The scale of colours beside the axes; a pointed end means that values lie beyond it."""
    low, high = image.get_clim()
    beyond = (drawn < low).any(), (drawn > high).any()
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[beyond]
    bar = image.figure.colorbar(image, ax=axes, shrink=0.8, extend=extend, pad=0.03)
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=SMALL)
    bar.outline.set_visible(False)


def plot_filters(
    couplings: CouplingMap,
    pairs: Iterable[tuple[int, int]] | None = None,
    bin_size: float | None = None,
    level: float = 0.95,
    share: bool = True,
    axes: Axes | np.ndarray | None = None,
) -> np.ndarray:
    """Filters over lag with pointwise bands, as the factor by which an event changes the rate.

    The factor is ``exp(h(l))`` on a logarithmic axis: 2 doubles the rate, 0.5 halves it. With the
    logistic link the factor multiplies the odds. With softplus and identity there is no such
    factor, and h itself is drawn.

    Parameters
    ----------
    couplings : fastglm.connectivity.CouplingMap
        A map of causal features: row 0 of the kernel is lag 1.
    pairs : iterable of (int, int), optional
        Numbers of sender and receiver. Default: the six strongest couplings between different
        cells, significant couplings first; fewer if there are fewer axes.
    bin_size : float, optional
        Seconds. Without it, lags are in bins.
    level : float
        Level of the bands.
    share : bool
        Whether all filters have the same vertical scale.
    axes : matplotlib Axes or array of them, optional

    Returns
    -------
    ndarray of matplotlib Axes, one for each pair

    Raises
    ------
    ValueError
        If a pair does not exist, there are fewer axes than pairs, the level is not between 0 and
        1, or bin_size is not above 0.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> from fastglm.plotting import plot_filters
    >>> counts = np.random.default_rng(0).poisson(0.2, size=(3000, 4))
    >>> X = fastglm.basis.RaisedCosineLogConv(5, window_size=50).compute_features(counts)
    >>> model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-4)
    >>> couplings = model.fit(X, counts).coupling_map(X, counts)
    >>> axes = plot_filters(couplings, [(0, 1), (2, 3)], bin_size=0.001)
    >>> axes[0].get_title(loc="left"), axes[0].get_xlabel()
    ('0 → 1', 'lag (ms)')
    """
    check_share("level", level)
    if bin_size is not None:
        check_bin_size(bin_size)
    given = None if axes is None else np.atleast_1d(np.asarray(axes, dtype=object))
    if pairs is None:
        pairs = couplings.strongest(6 if given is None else min(6, given.size))
    pairs = [(int(i), int(j)) for i, j in pairs]
    n, m = couplings.strength.shape
    wrong = [pair for pair in pairs if not (0 <= pair[0] < n and 0 <= pair[1] < m)]
    if wrong or not pairs:
        raise ValueError(
            f"pairs holds {wrong[:3] or 'nothing'}; expected numbers of a sender below {n} and of "
            f"a receiver below {m}."
        )
    if given is None:
        n_columns = min(3, len(pairs)) if len(pairs) < 7 else int(np.ceil(np.sqrt(len(pairs))))
        n_rows = -(-len(pairs) // n_columns)
        figure = figure_of((2.1 * n_columns + 0.6, 1.75 * n_rows + 0.5))
        given = figure.subplots(n_rows, n_columns, squeeze=False)
    if given.size < len(pairs):
        raise ValueError(f"axes has {given.size} axes; expected {len(pairs)}, one for each pair.")
    draw_filters(couplings, pairs, given, bin_size, level, share)
    return given.ravel()[: len(pairs)]


def draw_filters(
    couplings: CouplingMap,
    pairs: list[tuple[int, int]],
    axes: np.ndarray,
    bin_size: float | None,
    level: float = 0.95,
    share: bool = False,
    true: CouplingMap | None = None,
) -> None:
    """Draw each filter into its own axes, over the true filter if ``true`` is given."""
    lag, lag_label = lags_of(couplings.kernel.shape[0], bin_size)
    factor = couplings.loss.multiplied
    for ax in axes.ravel()[len(pairs) :]:
        ax.set_visible(False)
    ends = []
    for ax, pair in zip(axes.ravel(), pairs, strict=False):
        ends.append(_draw_filter(ax, couplings, pair, lag, level))
        if true is not None:
            h = true.kernel @ true.coef[pair[0], :, pair[1]]
            ends[-1] = max(ends[-1], min(1.08 * np.abs(h).max(), np.log(1e3)))
            ax.plot(lag, np.exp(h) if factor else h, color=GREY, lw=3, alpha=0.5, zorder=1,
                    label="true")  # fmt: skip
        ax.set_xlim(0, lag[-1])
        ax.set_xlabel(lag_label, fontsize=SMALL)
        label = f"{factor} multiplier" if factor else f"change of {couplings.loss.eta_name}"
        ax.set_ylabel(label, fontsize=SMALL)
        plain(ax)
        ax.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
    for ax, end in zip(axes.ravel(), ends, strict=False):
        end = max(max(ends) if share else end, 1e-3)
        if factor:
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(_GainLocator())
            ax.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
            ax.yaxis.set_major_formatter(lambda gain, _: f"\N{MULTIPLICATION SIGN}{gain:g}")
        ax.set_ylim(*((np.exp(-end), np.exp(end)) if factor else (-end, end)))


def _draw_filter(ax, couplings, pair, lag, level):
    """Draw one filter with its band; returns the reach of its axis from no change."""
    i, j = pair
    factor = couplings.loss.multiplied
    h, error = _filter(couplings, i, j, level)
    known = np.isfinite(error)
    curves = [h, np.where(known, h - error, np.nan), np.where(known, h + error, np.nan)]
    reach = np.abs(np.where(known, curves, h)).max() if known.any() else np.abs(h).max()
    if factor:
        curves = np.exp(np.clip(curves, -300, 300))
    h, lower, upper = curves
    ax.axhline(1.0 if factor else 0.0, color=GREY, lw=0.8)
    ax.fill_between(lag, lower, upper, color=BLUE, alpha=0.25, lw=0)
    ax.plot(lag, h, color=BLUE, lw=1.6, label="fitted")
    ax.set_title(_title(couplings, i, j), loc="left", fontsize=9)
    if not known.any() and couplings.uncertainty is not None:
        text = "not in the fit" if couplings.absent[i, j] else "not determined"
        ax.text(0.97, 0.94, text, transform=ax.transAxes, ha="right", va="top",
                fontsize=SMALL)  # fmt: skip
    else:
        note = _q_text(couplings.q_value[i, j])
        if len(ax.get_title(loc="left")) <= _LONG:
            ax.set_title(note, loc="right", fontsize=SMALL, color=GREY)
        else:  # beside a long name it would lie on it
            ax.text(0.97, 0.97, note, transform=ax.transAxes, ha="right", va="top",
                    fontsize=SMALL, color=GREY)  # fmt: skip
    return min(1.08 * reach, np.log(1e3))


def _draw_matrix(ax, shown, limit, senders, receivers, square):
    """Draw a matrix of couplings with its labels."""
    colours = matplotlib.colormaps[_MAP].with_extremes(bad=(0, 0, 0, 0))
    n, m = len(senders), len(receivers)
    image = _draw_image(ax, shown, square, (n, m), cmap=colours, vmin=-limit, vmax=limit)
    ax.set_aspect("equal" if max(n, m) <= 4 * min(n, m) else "auto")
    ax.set(xlabel="receiver", ylabel="sender", facecolor="white")
    cell_ticks(ax.xaxis, receivers)
    cell_ticks(ax.yaxis, senders)
    return image


def _draw_image(ax, values, square, shape, **kwargs):
    """Draw a matrix with one pixel for each entry, in numbers of cells."""
    rows, columns = values.shape[:2]
    ends = (-0.5, columns * square - 0.5, rows * square - 0.5, -0.5)
    image = ax.imshow(
        values, interpolation="nearest", aspect=ax.get_aspect(), extent=ends, **kwargs
    )
    ax.set(xlim=(-0.5, shape[1] - 0.5), ylim=(shape[0] - 0.5, -0.5))
    return image


def _draw_dots(ax, significant):
    """Round dots of a third of a cell, alike on every colour, as in the legend."""
    n, m = significant.shape
    rows, columns = np.nonzero(significant)
    dots = EllipseCollection(
        0.3, 0.3, 0, units="x" if m >= n else "y", lw=_RING, facecolors="white",
        edgecolors="black", offsets=np.column_stack([columns, rows]), offset_transform=ax.transData,
    )  # fmt: skip
    ax.add_collection(dots, autolim=False)


def colour_limit(shown: np.ma.MaskedArray) -> float:
    """End of the scale of colours: the 0.99 quantile of the absolute values."""
    sizes = np.abs(np.ma.compressed(shown))
    return max(float(np.quantile(sizes, 0.99)) if sizes.size else 0.0, 1e-12)


def _filter(couplings, i, j, level):
    """One filter over its lags and half the width of its band; NaN without standard errors."""
    if couplings.uncertainty is None:
        h = couplings.kernel @ couplings.coef[i, :, j]
        return h, np.full(h.size, np.nan)
    value, error = couplings.uncertainty.linear(couplings.first_filter + i, couplings.kernel)
    return np.nan_to_num(value[:, j]), stats.norm.ppf(0.5 + level / 2) * error[:, j]


def arrow(couplings: CouplingMap, i: int, j: int) -> str:
    """Names of sender and receiver with an arrow between them."""
    return f"{couplings.senders[i]} \N{RIGHTWARDS ARROW} {couplings.receivers[j]}"


def _title(couplings, i, j):
    name = arrow(couplings, i, j)
    return f"{name}, own" if couplings.own_history[i, j] else name


def _q_text(q):
    if not np.isfinite(q):
        return ""
    return "q < 0.001" if q < 0.001 else f"q = {q:.2g}"


def _texts(names):
    return [str(name) for name in names]


def _upright(names):
    """Whether names of receivers need to stand upright: longer than three characters."""
    return max(map(len, _texts(names))) > 3


def cell_ticks(axis: Axis, names: np.ndarray) -> None:
    """Label an axis with the names of cells."""
    texts = _texts(names)
    upright = axis.axis_name == "x" and _upright(names)
    along = 1.25 if upright or axis.axis_name == "y" else 0.65 * max(map(len, texts)) + 0.6
    if len(texts) > _MANY:
        along = max(along, _APART)
    axis.set_major_locator(_CellLocator(len(texts), along * SMALL))
    axis.set_major_formatter(
        lambda x, _: texts[int(x)] if x == int(x) and 0 <= x < len(texts) else ""
    )
    axis.set_tick_params(labelsize=SMALL, labelrotation=90 if upright else 0)


class _CellLocator(matplotlib.ticker.Locator):
    """A tick at every cell if labels have room, else at every second, fifth, tenth and so on."""

    def __init__(self, n, points):
        self.n, self.points = n, points

    def __call__(self):
        axes = self.axis.axes
        box = axes.get_window_extent()
        length = (box.width if self.axis.axis_name == "x" else box.height) * 72 / axes.figure.dpi
        low, high = sorted(self.axis.get_view_interval())
        pitch = max(length, 1) / max(high - low, 1e-9)
        steps = (a * 10**b for b in range(9) for a in (1, 2, 5))
        step = next(s for s in steps if s * pitch >= self.points)
        ticks = np.arange(0, self.n, step)
        return ticks[(ticks >= low) & (ticks <= high)]

    def tick_values(self, vmin, vmax):
        return self()


class _GainLocator(matplotlib.ticker.Locator):
    """At most seven round multipliers of a rate: steps of a tenth, powers of 2, powers of 10."""

    def __call__(self):
        return self.tick_values(*sorted(self.axis.get_view_interval()))

    def tick_values(self, vmin, vmax):
        low, high = np.log2(vmin), np.log2(vmax)
        if high - low < 2.5:
            steps = matplotlib.ticker.MaxNLocator(5, steps=[1, 2, 5, 10])
            ticks = steps.tick_values(vmin, vmax)
        elif high - low < 7:
            step = -(-(high - low) // 6)
            ticks = 2.0 ** (step * np.arange(np.ceil(low / step), np.floor(high / step) + 1))
        else:
            low, high = np.log10(vmin), np.log10(vmax)
            step = -(-(high - low) // 6)
            ticks = 10.0 ** (step * np.arange(np.ceil(low / step), np.floor(high / step) + 1))
        return ticks[(ticks >= vmin) & (ticks <= vmax)]
