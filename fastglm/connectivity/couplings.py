"""Who drives whom: the map of couplings of a fitted model, with its uncertainty.

The coupling of a sender to a receiver is a filter h over lags 1 to W: one event of the sender adds
h(l) to the receiver's eta l bins later. eta is the log rate with the exponential link and cloglog,
the log odds with the logistic link, the mean with the identity link, and the input of the link with
softplus. The summary of a filter is

- ``strength``: the area ``sum_l h(l)``, in units of eta times bins. A positive strength excites, a
  negative one inhibits. To first order, one event of the sender adds ``strength * slope`` to the
  expected counts of the receiver; ``slope`` is the derivative of its mean with respect to eta, with
  the exponential link its expected events per bin;
- ``peak``: the value of h that is farthest from zero, in units of eta;
- ``gain``: ``100 * (exp(peak) - 1)``, a change in percent at the lag of the peak. The change is of
  the rate with the exponential link and cloglog, and of the odds with the logistic link. With
  softplus and identity ``exp(h)`` multiplies nothing, and the gain is NaN;
- ``standard_error``: of the strength;
- ``strength_ms``: the strength in units that do not change with the bin, eta times milliseconds;
- ``added_spikes``: spikes that one event of the sender adds to the receiver at its mean count m,
  ``sum_l mean(eta_m + h(l)) - m`` with ``mean(eta_m) = m``, all else the same. With the exponential
  link this is ``m sum_l (exp(h(l)) - 1)``;
- ``z``: how far the filter departs from the null in the shape of a synapse, in standard deviations
  and with its sign, and ``delay``, the delay of that synapse; see `fastglm.connectivity.scan`;
- ``p_value``: against the null that was chosen. ``null="model"`` is the Wald test of the whole
  filter against zero. It also detects a filter whose parts cancel in the strength, and everything
  that unobserved cells do. ``null="empirical"`` tests z against the bulk of all filters; see
  `fastglm.connectivity.null`;
- ``q_value``: Benjamini-Hochberg over all couplings between different cells;
- ``sensitivity``: how much an unobserved input must explain to make the coupling vanish, in
  per cent; see `fastglm.connectivity.sensitivity`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from fastglm import _html, inference
from fastglm._checks import check_choice, import_extra
from fastglm._fitted import Fitted
from fastglm._inputs import read_counts
from fastglm.connectivity import sensitivity
from fastglm.connectivity.empirical import Null, empirical_test
from fastglm.connectivity.filters import read_filters
from fastglm.connectivity.scan import scan
from fastglm.connectivity.sensitivity import Explained, read_explained
from fastglm.connectivity.shadows import read_channels, sentence
from fastglm.connectivity.synchrony import Synchrony
from fastglm.features.events import Traces
from fastglm.features.history import HistoryColumns
from fastglm.features.matrix import FeatureMatrix, as_feature_matrix
from fastglm.observation_models import Loss, PoissonExp
from fastglm.recordings.times import check_bin_size, read_number

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import ArrayLike


_N_SHOWN = 10  # couplings in a notebook
_WITHOUT_COUPLINGS = "silent", "saturated"  # statuses whose receivers have no couplings


@dataclass
class CouplingMap:
    """Couplings of every sender to every receiver.

    Attributes
    ----------
    strength, standard_error : ndarrays of shape (n_senders, n_receivers)
        Area of the filter (eta x bins) and its standard error. The standard error is NaN if the
        coupling is not in the fit, and inf if the data do not determine the coupling.
    peak, gain : ndarrays of shape (n_senders, n_receivers)
        Value of the filter that is farthest from zero (eta), and the change that it makes at its
        lag: of the rate or of the odds, in percent. The gain is NaN with softplus and identity.
    z, delay : ndarrays of shape (n_senders, n_receivers)
        Departure from the null in the shape of a synapse, in standard deviations, and its delay in
        ms. NaN without a bin size, without tests, and for own histories.
    null : Null
        What the p-values are against, and what limits it; `Null.sentence` is for readers.
    explained : Explained
        What the model explains of each receiver, which `sensitivity` is measured by.
    controls : dict
        Number of discoveries in each control of `infer_connectivity`. All of them are false, but
        for "reciprocal": couplings that the reversed control repeats and that go both ways.
    same_channel : ndarray of bool, shape (n_senders, n_receivers)
        Pairs of cells of one channel, whose first 2 ms are no evidence; see
        `fastglm.connectivity.shadows`.
    channel : str
        A sentence about them: their number, which column says so, and what is left out.
    synchrony : Synchrony or None
        What pairs of cells do in the same bin; of `infer_connectivity`.
    p_value, q_value : ndarrays of shape (n_senders, n_receivers)
        Against the null. q-values are over couplings between different cells: they are NaN on
        the diagonal of a population that drives itself, and inf for couplings without a test.
    senders, receivers : ndarrays
        Names of the cells, or their numbers.
    kernel : ndarray of shape (window_size, n_basis_funcs)
    uncertainty : fastglm.inference.Uncertainty or None
    model : PopulationGLM or None
    settings : dict
        The choices of `infer_connectivity`; empty for other fits.
    coef : ndarray of shape (n_senders, n_basis_funcs, n_receivers)
        Coefficients of the filters.
    loss : fastglm.observation_models.Loss
        Family and link. ``loss.eta_name`` is the name of eta.
    bin_size : float or None
        Seconds.
    mean_count : ndarray of shape (n_receivers,) or None
        Mean count of each receiver in a bin.
    own : ndarray of bool, shape (n_senders, n_receivers), or None
        Own histories where the receivers are a part of the senders. Default: the diagonal of a
        population that drives itself.
    """

    strength: np.ndarray
    standard_error: np.ndarray
    peak: np.ndarray
    gain: np.ndarray
    p_value: np.ndarray
    q_value: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray
    kernel: np.ndarray = field(repr=False)
    first_filter: int = field(repr=False)
    uncertainty: object = field(repr=False)
    model: object = field(repr=False)
    settings: dict = field(default_factory=dict, repr=False)
    coef: np.ndarray | None = field(default=None, repr=False)
    loss: Loss = field(default_factory=PoissonExp, repr=False)
    z: np.ndarray | None = None
    delay: np.ndarray | None = None
    null: Null = field(default_factory=Null)
    controls: dict = field(default_factory=dict)
    explained: Explained = field(default_factory=Explained, repr=False)
    same_channel: np.ndarray | None = None
    channel: str = ""
    synchrony: Synchrony | None = field(default=None, repr=False)
    bin_size: float | None = None
    mean_count: np.ndarray | None = field(default=None, repr=False)
    own: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.same_channel is None:
            self.same_channel = np.zeros(self.strength.shape, dtype=bool)

    def __repr__(self) -> str:
        n_senders, n_receivers = self.strength.shape
        return (
            f"CouplingMap of {n_senders} senders x {n_receivers} receivers, "
            f"{int(self.significant().sum())} couplings with q <= 0.05"
            f"{self._short_null()}{self._short_channel()}"
        )

    def _short_null(self):
        if self.null.name == "empirical":
            return f", empirical null of {self.null.n_pairs:,} pairs"
        return f"; no empirical null: {self.null.why}" if self.null.why else ""

    def _short_channel(self):
        n = int(self.same_channel.sum())
        return f"; {n:,} pairs of one channel" if n else ""

    def _repr_html_(self):
        found = np.argwhere(self.significant())
        found = found[np.argsort(-np.abs(self.strength[tuple(found.T)]), kind="stable")]
        rows = [
            [
                f"{self.senders[i]} \N{RIGHTWARDS ARROW} {self.receivers[j]}",
                f"{self.strength[i, j]:+.3g}",
                f"{self.standard_error[i, j]:.2g}",
                _html.number(self.gain[i, j], "+.3g") + "%" * bool(self.loss.multiplied),
                _html.number(self.delay[i, j], ".0f"),
                f"{self.q_value[i, j]:.2g}",
            ]
            for i, j in found[:_N_SHOWN]
        ]
        more = f"{len(found) - _N_SHOWN:,} weaker ones are not shown." * (len(found) > _N_SHOWN)
        head = ["coupling", "strength", "SE", "gain", "delay (ms)", "q"] if rows else None
        return _html.table(repr(self), rows, head, more)

    def significant(self, q: float = 0.05) -> np.ndarray:
        """Whether the q-value of each coupling is at most q, a boolean array."""
        with np.errstate(invalid="ignore"):
            return self.q_value <= q

    @property
    def strength_ms(self) -> np.ndarray:
        """Area of every filter in eta x milliseconds; NaN where the bin size is not known."""
        return self.strength * (np.nan if self.bin_size is None else 1e3 * self.bin_size)

    @property
    def added_spikes(self) -> np.ndarray:
        """Spikes that one event of a sender adds to a receiver at its mean rate.

        The sum over the lags of the filter; see the head of the module.

        Returns
        -------
        ndarray of shape (n_senders, n_receivers)
            NaN where the filter is not in the fit, or the mean counts are not known.
        """
        if self.mean_count is None:
            return np.full(self.strength.shape, np.nan)
        out, mean = np.empty(self.strength.shape), self.mean_count
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            eta = np.asarray(self.loss.eta(mean))
            for i, coef in enumerate(self.coef):
                out[i] = (self.loss.mean(eta + self.kernel @ coef) - mean).sum(axis=0)
        return out

    @property
    def sensitivity(self) -> np.ndarray:
        """How much an unobserved input must explain to make each coupling vanish, in per cent.

        The share of what the model explains of the receiver, and as much of the sender's past given
        the rest of the model; see `fastglm.connectivity.sensitivity`.

        Returns
        -------
        ndarray of shape (n_senders, n_receivers)
            NaN for own histories and couplings without a finite standard error, after a lasso, and
            with the kinds "robust" and "blocks"; `sentence` says why.
        """
        return sensitivity.sensitivity(self)

    def sensitivity_of_test(self, level: float = 0.95) -> np.ndarray:
        """As `sensitivity`, to make the Wald test of each filter insignificant at the level.

        Returns
        -------
        ndarray of shape (n_senders, n_receivers)
            0 where it is insignificant as it is.

        Raises
        ------
        ValueError
            If the level is not between 0 and 1.
        """
        return sensitivity.sensitivity(self, level)

    def sentence(self, sender: object, receiver: object, level: float = 0.95) -> str:
        """What an unobserved input must do to make a coupling vanish, for a paper or a referee.

        Parameters
        ----------
        sender, receiver
            Names of the cells, or their numbers where they have no names.
        level : float
            Of the Wald test of the filter.

        Raises
        ------
        ValueError
            If there is no such cell, or the level is not between 0 and 1.
        """
        i = _place(self.senders, sender, "sender")
        j = _place(self.receivers, receiver, "receiver")
        return sensitivity.sentence(self, i, j, level)

    @property
    def own_history(self) -> np.ndarray:
        """Whether the sender is the receiver, a boolean array.

        The diagonal of a population that drives itself, and the histories of the receivers where
        they are a part of the senders.
        """
        if self.own is not None:
            return self.own.copy()
        n, m = self.strength.shape
        itself = n == m and np.isnan(np.diag(self.q_value)).all()
        return np.eye(n, m, dtype=bool) & itself

    @property
    def absent(self) -> np.ndarray:
        """Couplings that are not in the fit, a boolean array.

        The mask leaves them out, or their receiver is silent or saturated and has no couplings.
        Without tests, couplings that the mask leaves out look like couplings of strength 0.
        """
        absent = ~np.isfinite(self.strength)
        if self.tested:
            absent |= np.isnan(self.standard_error)
        if self.model is not None:
            absent |= np.isin(self.model.status_, _WITHOUT_COUPLINGS)
        return absent

    @property
    def tested(self) -> bool:
        """Whether couplings were tested."""
        return bool(np.isfinite(self.q_value).any())

    def strongest(self, number: int, q: float = 0.05) -> list[tuple[int, int]]:
        """Pairs of the strongest couplings between different cells, significant ones first.

        Returns
        -------
        list of (int, int)
            Numbers of sender and receiver, at most ``number`` pairs. Couplings that the data do
            not determine are left out.
        """
        size = np.abs(self.strength)
        left_out = self.own_history | ~np.isfinite(size) | np.isinf(self.standard_error)
        left_out |= size == 0
        if self.tested:
            left_out |= ~np.isfinite(self.standard_error)
        size = np.where(left_out, -1.0, size)
        order = np.lexsort((-size.ravel(), ~self.significant(q).ravel()))
        order = order[size.ravel()[order] >= 0][:number]
        return [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, size.shape), strict=True)]

    def filters(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every filter over its lags, with pointwise bands.

        Returns
        -------
        filters, lower, upper : ndarrays of shape (window_size, n_senders, n_receivers)
            Memory: three arrays of that size.

        Raises
        ------
        ValueError
            If the level is not between 0 and 1, or there are no standard errors.
        """
        if self.uncertainty is None:
            raise ValueError(
                "This map has no standard errors of its filters, as one from a file or without "
                "tests has none. The filters themselves are couplings.kernel @ couplings.coef."
            )
        numbers = self.first_filter + np.arange(self.strength.shape[0])
        return self.uncertainty.bands(self.kernel, level, numbers)

    def to_frame(self) -> object:
        """One row for each pair, a pandas DataFrame.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        return import_extra("pandas").DataFrame(self.columns())

    def columns(self) -> dict[str, np.ndarray]:
        """The columns of `to_frame` by name, each with an entry for every pair."""
        n, m = self.strength.shape
        columns = {"sender": np.repeat(self.senders, m), "receiver": np.tile(self.receivers, n)}
        columns.update({name: values.ravel() for name, values in self._numbers().items()})
        columns["same_channel"] = self.same_channel.ravel()
        return columns

    def to_networkx(self, q: float = 0.05) -> object:
        """Directed graph of the couplings between different cells whose q-value is at most q.

        Edges carry ``weight`` (the strength) and the other numbers; all cells are nodes.

        Raises
        ------
        ImportError
            If networkx is not installed.
        """
        networkx = import_extra("networkx")
        graph = networkx.DiGraph()
        graph.add_nodes_from(np.union1d(self.senders, self.receivers).tolist())
        values = self._numbers()
        for i, j in np.argwhere(self.significant(q)):
            numbers = {name: float(values[name][i, j]) for name in values}
            numbers["weight"] = numbers["strength"]
            graph.add_edge(self.senders[i].item(), self.receivers[j].item(), **numbers)
        return graph

    def save(self, path: str | Path) -> None:
        """Write the map to ``.npz``; `fastglm.load_couplings` reads it.

        The model, the covariances of the filters and the synchrony are not in the file.

        Parameters
        ----------
        path : str or Path
            ``.npz`` is appended where it is missing. The file appears whole or not at all.

        Raises
        ------
        ValueError
            If no file can be written there.
        """
        from fastglm.connectivity.files import save_couplings

        save_couplings(self, path)

    def _numbers(self):
        """Every number of a coupling, arrays of shape (n_senders, n_receivers)."""
        return {name: getattr(self, name) for name in _NUMBERS}


_NUMBERS = (
    *("strength", "standard_error", "strength_ms", "added_spikes", "peak", "gain"),
    *("z", "delay", "p_value", "q_value", "sensitivity"),
)


def coupling_map(
    model: object,
    X: object,
    y: object,
    kind: str = "observed",
    label: str | None = None,
    senders: Sequence | np.ndarray | None = None,
    receivers: Sequence | np.ndarray | None = None,
    *,
    null: str = "model",
    bin_size: float | None = None,
    channel: Sequence | np.ndarray | str | bool | None = None,
    sample_weight: ArrayLike | None = None,
    offset: ArrayLike | None = None,
) -> CouplingMap:
    """The couplings of a fitted model with their uncertainty.

    Parameters
    ----------
    model : PopulationGLM or GLM
        Fitted to X and y, with X from a convolution basis.
    X, y, sample_weight, offset
        As in `fit`.
    kind : {"observed", "expected", "robust", "blocks"}
        How standard errors are computed; see `fastglm.inference`.
    label : str, optional
        Label of the history in X, if X has several. Default: the first history.
    senders, receivers : sequence, optional
        Names of the cells. Default: names of the columns of a table or of the units, or numbers.
    null : {"model", "empirical"}
        What p-values are against. "model": the filter is zero, and nothing unobserved acts.
        "empirical": filters of unconnected pairs are like the bulk of all filters. The second needs
        200 pairs and bins of at most 5 ms; without them the result has the model's p-values and
        says why.
    bin_size : float, optional
        Seconds. Default: that of the times of X, or of `fit_coupling`. The empirical null and the
        delays need it.
    channel : sequence, str, ndarray of bool or False, optional
        The channel (electrode, tetrode, peak channel) of each cell: labels, the name of a column of
        the table of units, or the pairs themselves, booleans of shape (n_senders, n_receivers). The
        first 2 ms of pairs of one channel are left out of z, of the delay and of the empirical
        null; see `fastglm.connectivity.shadows`. Default: the column of the recording that is
        called channel, ch, peak_channel, max_channel, tetrode, electrodes, electrode_group or the
        like, if cells share its labels and no label has more than 20. False: none.

    Returns
    -------
    CouplingMap

    Raises
    ------
    ValueError
        If X has no history, names or channels do not fit, or the empirical null is asked for
        without a bin size.

    Notes
    -----
    Memory of a pair whose filter has k coefficients: ``8 k (k + 2)`` bytes for the standard errors,
    which the map keeps, and ``24 k + 215`` while it is tested. The empirical null takes up to
    ``3.2e6 k^2`` bytes beside that, and standard errors what `fastglm.inference.uncertainty` says.

    Receivers may be a part of the senders, such as ``y = counts[:, [4, 1]]`` with X of all cells. A
    receiver is known by its events: its own history is not a coupling, and without other names it
    has the name of its sender.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> counts = np.random.default_rng(0).poisson(0.2, size=(3000, 4))
    >>> X = fastglm.basis.RaisedCosineLogConv(5, window_size=50).compute_features(counts)
    >>> model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-4)
    >>> model.fit(X, counts).coupling_map(X, counts)
    CouplingMap of 4 senders x 4 receivers, 0 couplings with q <= 0.05
    """
    check_choice("null", null, ("model", "empirical"))
    X = as_feature_matrix(X)
    bin_size = _bin_size(bin_size, model, X, null)
    u = inference.uncertainty(model, X, y, kind, sample_weight=sample_weight, offset=offset)
    fit = Fitted.of(model, X, y, sample_weight=sample_weight, offset=offset)
    block, first = history_of(X, label)
    counts = read_counts(model, y)
    itself = block.is_history_of(counts, X.bins)
    own = np.zeros((block.n_senders, fit.n_receivers), bool)
    if not itself and isinstance(block, HistoryColumns) and not isinstance(counts, Traces):
        own = block.own_of(counts, X.bins)
    named = receivers is not None or fit.receivers is not None
    senders = _names(senders, block.inputs, block.n_senders, "senders")
    receivers = _names(receivers, fit.receivers, fit.n_receivers, "receivers")
    if not named and not itself and own.any(axis=0).all():
        receivers = senders[own.argmax(axis=0)]  # a part of the senders, which have names
    couplings = _summarise(fit, u, block.kernel, first, True if itself else own, senders, receivers)
    same, source = read_channels(
        channel, block.inputs, fit.receivers, couplings.strength.shape, itself
    )
    couplings = replace(couplings, same_channel=same & ~couplings.own_history, bin_size=bin_size)
    if bin_size is not None:
        couplings = _judged(couplings, fit, null, bin_size)
    couplings.channel = sentence(
        same, source, len(block.kernel), bin_size, couplings.null.name == "model"
    )
    return couplings


def _bin_size(given, model, X, null):
    """Seconds, or None where nothing says it."""
    if given is not None:
        bin_size = read_number(given, "bin_size")
        check_bin_size(bin_size)
        return bin_size
    bin_size = getattr(model, "bin_size_", None)
    if bin_size is None and X.timeline is not None:
        bin_size = X.timeline.bin_size
    if bin_size is None and null == "empirical":
        raise ValueError(
            "bin_size is missing, and null='empirical' looks for filters as fast as synapses; pass "
            "bin_size= in seconds."
        )
    return bin_size


def _judged(couplings, fit, null, bin_size):
    """The map with the scan of its filters and the p-values of the null."""
    filters = read_filters(
        fit, couplings.uncertainty, couplings.kernel, couplings.first_filter,
        couplings.own_history, bin_size, couplings.same_channel,
    )  # fmt: skip
    found, facts, p = None, Null(), couplings.p_value
    if null == "empirical":
        found, facts = empirical_test(fit, filters)
    pairs = tuple(filters.pairs.T)
    if found is not None:
        p = np.full(p.shape, np.nan)
        p[pairs] = found.p_value
    elif len(filters.pairs):
        found = scan(filters)
    z, delay = np.full(p.shape, np.nan), np.full(p.shape, np.nan)
    if found is not None:
        z[pairs], delay[pairs] = found.z, 1e3 * found.delay
    q = couplings.q_value
    if p is not couplings.p_value:
        q = inference.benjamini_hochberg(np.where(couplings.own_history, np.nan, p))
    return replace(couplings, p_value=p, q_value=q, z=z, delay=delay, null=facts)


def point_estimates(
    coef: np.ndarray,
    kernel: np.ndarray,
    *,
    itself: bool | np.ndarray = True,
    senders: Sequence | np.ndarray | None = None,
    receivers: Sequence | np.ndarray | None = None,
    first_filter: int = 0,
    model: object = None,
    loss: Loss | None = None,
) -> CouplingMap:
    """Couplings without standard errors and tests.

    Parameters
    ----------
    coef : ndarray of shape (n_senders * n_basis_funcs, n_receivers)
        Coefficients of the history alone, sender-major.
    kernel : ndarray of shape (window_size, n_basis_funcs)
    itself : bool or ndarray of bool, shape (n_senders, n_receivers)
        Whether the senders are the receivers, or which sender is which receiver.
    senders, receivers : ndarray, optional
        Names. Default: numbers.
    first_filter : int
        Number of the history's first filter among all filters of the features.
    model : PopulationGLM or GLM, optional
        Receivers that are silent or saturated have no couplings. The couplings of other receivers
        whose status is not "converged" count as not determined.
    loss : Loss, optional
        Default: Poisson with the exponential link.

    Returns
    -------
    CouplingMap
        Standard errors and p-values are NaN, or inf for couplings that are not determined. q-values
        are inf.
    """
    loss = PoissonExp() if loss is None else loss
    coef = coef.reshape(-1, kernel.shape[1], coef.shape[1])
    n_senders, _, n = coef.shape
    strength = np.einsum("b,ibj->ij", kernel.sum(axis=0), coef)
    peak = np.empty(strength.shape)
    for i in range(n_senders):
        h = kernel @ coef[i]
        peak[i] = h[np.abs(h).argmax(axis=0), np.arange(n)]
    gain = np.full(strength.shape, np.nan)
    if loss.multiplied:
        with np.errstate(over="ignore"):
            gain = 100 * np.expm1(peak)
    error = np.full(strength.shape, np.nan)
    if model is not None:
        status = model.status_
        error[:, (status != "converged") & ~np.isin(status, _WITHOUT_COUPLINGS)] = np.inf
    q = np.full(strength.shape, np.inf)
    own = itself if isinstance(itself, np.ndarray) and itself.any() else None
    if own is not None:
        q[own] = np.nan
    elif not isinstance(itself, np.ndarray) and itself:
        np.fill_diagonal(q, np.nan)
    senders = np.arange(n_senders) if senders is None else senders
    receivers = np.arange(n) if receivers is None else receivers
    return CouplingMap(
        strength, error, peak, gain, error, q, senders, receivers, kernel, first_filter, None,
        model, coef=coef, loss=loss, z=np.full(q.shape, np.nan), delay=np.full(q.shape, np.nan),
        own=own,
    )  # fmt: skip


def _summarise(fit, u, kernel, first, itself, senders, receivers):
    n_senders = len(senders)
    inside = (u.filters >= first) & (u.filters < first + n_senders)
    estimates = point_estimates(
        u.coef[inside], kernel, itself=itself, senders=senders, receivers=receivers,
        first_filter=first, model=fit.model, loss=fit.loss,
    )  # fmt: skip
    area = kernel.sum(axis=0, keepdims=True)
    error = np.concatenate([u.linear(first + i, area)[1] for i in range(n_senders)])
    test = u.wald_test().select(slice(first, first + n_senders))
    p, explained = test.p_value, read_explained(fit, u, test)
    q = inference.benjamini_hochberg(np.where(estimates.own_history, np.nan, p))
    return replace(estimates, standard_error=error, p_value=p, q_value=q, uncertainty=u,
                   explained=explained, mean_count=fit.mean_count)  # fmt: skip


def history_of(X: FeatureMatrix, label: str | None = None) -> tuple[HistoryColumns, int]:
    """The history with the label, or the first history, and the number of its first filter.

    Raises
    ------
    ValueError
        If X has no such history, or the label is no text.
    """
    labels = [c.label for c, _ in X.histories]
    if not (label is None or isinstance(label, str)):
        raise ValueError(
            f"label is of type {type(label).__name__}; expected the label of one history, a text, "
            f"or None. X has {labels or 'none'}."
        )
    for c, first in X.histories:
        if label is None or c.label == label:
            return c, first
    wanted = "" if label is None else f" labelled {label!r}"
    raise ValueError(
        f"X has no history{wanted}; expected features of a convolution basis, "
        f"such as RaisedCosineLogConv. It has {labels or 'none'}."
    )


def _names(names, columns, n, what):
    if names is None and columns is None:
        return np.arange(n)
    names = columns.names if names is None else names
    if not np.iterable(names):
        raise ValueError(f"{what} is {names!r}; expected a name for each of {n}.")
    # A name that is a tuple is one name, and numbers beside texts are texts.
    names = np.asarray([name if np.isscalar(name) else str(name) for name in names])
    if names.shape != (n,):
        raise ValueError(f"{what} has shape {names.shape}; expected a name for each of {n}.")
    return names


def _place(names, name, what):
    """Number of the cell with a name."""
    found = [k for k, other in enumerate(names.tolist()) if other == name or str(other) == name]
    if len(found) != 1:
        some = ", ".join(str(other) for other in names[:_N_SHOWN])
        more = ", ..." * (len(names) > _N_SHOWN)
        number = f"{len(found)} {what}s have that name" if found else f"no {what} has that name"
        raise ValueError(f"{what} is {name!r}, and {number}; expected one of {some}{more}.")
    return found[0]
