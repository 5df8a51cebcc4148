"""From spikes to a fitted model, or to a map of couplings, in one call."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastglm._checks import check_choice, is_number
from fastglm._inputs import read_counts
from fastglm._pynapple import pynapple_type, read_values
from fastglm.basis.cosines import RaisedCosineLogConv
from fastglm.connectivity import CouplingMap, coupling_map
from fastglm.connectivity.controls import CONTROLS, false_discoveries
from fastglm.features.events import Events
from fastglm.features.held import hold
from fastglm.features.history import HistoryColumns
from fastglm.features.matrix import FeatureMatrix, hstack
from fastglm.glm import GLM, PopulationGLM
from fastglm.io import read_model
from fastglm.observation_models import ObservationModel, as_observation_model
from fastglm.recordings.spikes import SpikeTimes
from fastglm.recordings.times import check_bin_size, has_unit, read_number
from fastglm.recordings.units import read_trains, read_units

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_WINDOW = 0.1  # seconds of history that fit_coupling takes

# Choices of infer_connectivity.
_REACH, _N_FUNCS = 0.05, 6  # seconds; synapses act within 50 ms, most of it in the first ten
_FEWEST_LAGS = 5  # of coarse bins
_TIMESCALES = 0.02, 0.1, 1.0, 10.0  # seconds of the activity of all cells
_COUPLING, _OWN, _SHARED = 0.2, 1.0, 1.0  # standard deviations that the ridge expects, in eta


def fit_coupling(
    units: object,
    bin_size: float = 0.005,
    window: float | None = None,
    basis: object | None = None,
    regularizer: str | object | None = "Ridge",
    regularizer_strength: ArrayLike | None = 1e-4,
    *,
    observation_model: str | ObservationModel = "Poisson",
    clip: bool = False,
    epochs: object | None = None,
    t_start: float | None = None,
    t_stop: float | None = None,
    progress: bool | Callable[[int], object] | None = None,
    checkpoint: str | Path | None = None,
    **settings: object,
) -> PopulationGLM:
    """Fit all-to-all coupling to spike times.

    The result is the same as from
    ``PopulationGLM(...).fit(basis.compute_features(counts, epochs), counts)``, but the counts are
    never a table. Spikes of one bin and unit become one event. Memory: 16 bytes for each event, 48
    with the features, and one byte for each bin, so that bins of 0.1 ms are possible. The fit
    itself takes up to ``memory_budget``.

    Parameters
    ----------
    units : TsGroup, SpikeTimes, dict of arrays, or list of arrays
        Spike times in seconds, ascending: pynapple's TsGroup, the result of `fastglm.load_spikes`,
        or an array (or Ts, or Neo's SpikeTrain) for each unit. Keys of a dict, ids of a file and
        the index of a TsGroup name the cells of the coupling map. Times with a unit (quantities,
        Neo, pint, astropy) are converted to seconds, here and in all other arguments.
    bin_size : float
        Seconds.
    window : float, optional
        Length of history, seconds. Default: 0.1, or the window of the basis.
    basis : convolution basis, optional
        Default: ``RaisedCosineLogConv`` with 8 functions, or as many as lags in a shorter window.
    regularizer, regularizer_strength
        As in `PopulationGLM`.
    observation_model : str or ObservationModel, default "Poisson"
        As in `PopulationGLM`.
    clip : bool, default False
        Cut counts at 1: several spikes of a unit in a bin count as one, for receivers and for
        senders. Bernoulli observations need this unless bins are short enough.
    epochs : array of shape (n_epochs, 2) or IntervalSet, optional
        Observed intervals, seconds. Default: the time support, the intersection of the supports
        of several Ts or SpikeTrains, the segments of the recording, or one epoch. No history
        crosses from one epoch to the next. Spikes outside all epochs are left out.
    t_start, t_stop : float, optional
        Range, seconds; epochs are cut to it. Default for arrays: 0, and the end of the bin of the
        last spike. Unix times need t_start.
    progress, checkpoint
        As in ``fit``.
    **settings
        Further parameters of `PopulationGLM`, such as ``inverse_link_function`` or
        ``feature_mask``.

    Returns
    -------
    PopulationGLM
        The fitted model with further attributes that other functions take:

        - ``X_``: FeatureMatrix of shape (n_bins, n_features). From a TsGroup it has times, so that
          predictions are TsdFrames.
        - ``counts_``: `Events` of shape (n_bins, n_units), for the argument y of functions;
          ``counts_.toarray()`` is the table.
        - ``basis_`` and ``bin_size_``.
        - ``epochs_``: ndarray of shape (n_epochs, 2), first bin and one past the last.

        Pickles keep these attributes (48 bytes an event); `save_params` does not.

    Raises
    ------
    ValueError
        If units are not spike times, epochs or parameters do not fit them, a unit has several
        spikes in a bin with Bernoulli observations, or `fit` raises; if the first spike is so late
        that t_start is missing, or times without a stated range can hardly be seconds.

    Notes
    -----
    Arrays are binned as by `fastglm.bin_spikes`: in whole bins from the start of each epoch on. A
    TsGroup is binned as by ``units.count(bin_size)``: the last bin of an epoch may reach beyond its
    end by less than half a bin.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> rng = np.random.default_rng(0)
    >>> units = {name: np.sort(rng.uniform(0, 60, 500)) for name in ("a", "b", "c")}
    >>> model = fastglm.fit_coupling(units, bin_size=0.005, window=0.1, t_stop=60)
    >>> model.coef_.shape, bool(model.converged_.all())
    ((24, 3), True)
    >>> model.coupling_map(model.X_, model.counts_)
    CouplingMap of 3 senders x 3 receivers, 0 couplings with q <= 0.05
    >>> model.predict(model.X_).shape
    (12000, 3)
    """
    bin_size, window = read_number(bin_size, "bin_size"), read_number(window, "window")
    check_bin_size(bin_size)
    events, bounds, columns = read_units(units, bin_size, epochs, t_start, t_stop)
    events = cut_counts(events, clip, observation_model, units, bin_size, columns.names)
    basis = _read_basis(basis, window, bin_size)
    X = basis.compute_features(events, epochs=bounds)
    if regularizer is None:
        regularizer_strength = None
    model = PopulationGLM(
        observation_model,
        regularizer=regularizer,
        regularizer_strength=regularizer_strength,
        **settings,
    )
    model.fit(X, events, progress=progress, checkpoint=checkpoint)
    X.columns[0].inputs = model.receivers_ = columns
    model.X_, model.counts_, model.basis_ = X, events, basis
    model.bin_size_, model.epochs_ = bin_size, bounds
    return model


def cut_counts(
    events: Events,
    clip: bool,
    observation_model: str | ObservationModel,
    units: object,
    bin_size: float,
    names: list,
) -> Events:
    """Events of spike times; with ``clip`` counts are cut at 1.

    Raises
    ------
    ValueError
        If a count is above 1, ``clip`` is False, and the observations are Bernoulli.
    """
    several, family = events.amplitudes > 1, as_observation_model(observation_model)
    if not several.any():
        return events
    if clip:
        amplitudes = np.minimum(events.amplitudes, 1.0)
        cut = Events(events.bins, events.units, amplitudes, events.shape)
        cut.timeline, cut.columns = events.timeline, events.columns
        return cut
    if family.largest is None:
        return events
    first = int(several.argmax())
    gap = _shortest_interval(units)
    digits = 10.0 ** (np.floor(np.log10(gap)) - 1) if gap > 0 else 1.0
    shorter = f"use bins of at most {1e3 * np.floor(gap / digits) * digits:g} ms, or "
    raise ValueError(
        f"Unit {names[events.units[first]]} has {events.amplitudes[first]:g} spikes in bin "
        f"{events.bins[first]} of {1e3 * bin_size:g} ms, and {several.mean():.1%} of the bins with "
        f"spikes have several; {family.name} observations are 0 or {family.largest}. To go on, "
        f"{shorter if gap > 0 else ''}cut the counts at 1: clip=True, on the command line --clip."
    )


def _shortest_interval(units):
    """The shortest time between two spikes of one unit, seconds."""
    if isinstance(units, SpikeTimes):
        order = np.lexsort((units.spike_times, units.unit))
        starts = np.flatnonzero(np.diff(units.unit[order])) + 1
        trains = np.split(units.spike_times[order], starts)
    elif pynapple_type(units) == "TsGroup":
        trains = [units[name].t for name in units.index]
    else:
        trains = read_trains(units).times
    return min(float(np.diff(train).min(initial=np.inf)) for train in trains)


def _read_basis(basis, window, bin_size):
    if window is not None and not (is_number(window) and window / bin_size >= 0.5):
        raise ValueError(f"window is {window!r}; expected at least one bin of {bin_size} s.")
    if basis is None:
        size = max(round((_WINDOW if window is None else window) / bin_size), 1)
        if size < 2:
            raise ValueError(
                f"A window of one bin of {bin_size} s is too short for raised cosines; pass a "
                "longer window, or basis=fastglm.basis.HistoryConv(1)."
            )
        return RaisedCosineLogConv(min(8, size), window_size=size, label="coupling")
    size = getattr(basis, "window_size", None)
    if size is None:
        raise ValueError(
            f"basis is {basis!r}; expected a convolution basis, such as RaisedCosineLogConv."
        )
    if window is not None and round(window / bin_size) != size:
        raise ValueError(
            f"window is {window} s, {round(window / bin_size)} bins of {bin_size} s, but the basis "
            f"has window_size={size}; leave window out, or make the basis with "
            f"window_size={round(window / bin_size)}."
        )
    return basis


def infer_connectivity(
    counts: object,
    bin_size: float = 0.001,
    epochs: object | None = None,
    *,
    null: str = "empirical",
    controls: Sequence[str] = (),
    observation_model: str | ObservationModel = "Poisson",
    inverse_link_function: str | Callable | None = None,
    clip: bool = False,
    progress: bool | Callable[[int], object] | None = None,
) -> CouplingMap:
    """Who drives whom, with choices that suit most recordings.

    Every cell is fitted on the history of all cells and on the activity of the whole population at
    several timescales. The result holds the couplings with their uncertainty; its ``settings`` list
    the choices.

    Parameters
    ----------
    counts : array of shape (n_bins, n_cells), or spike times
        Counts: events per bin, dense or sparse, a list of trials, or a TsdFrame. Spike times: a
        TsGroup, the result of `fastglm.load_spikes`, or a dict or list with the spike times
        (seconds) of each cell. A list of one-dimensional arrays holds spike times, and so does a
        list of lists that differ in length or hold numbers that are not whole.
    bin_size : float
        Seconds. A TsdFrame has its own bin size.
    epochs : array of shape (n_epochs, 2) or IntervalSet, optional
        No history crosses from one epoch to the next. For counts: first bin and one past the last
        of every epoch. For spike times: start and stop in seconds.
    null : {"empirical", "model"}
        What a coupling must depart from: the bulk of all filters, which shows what cells that were
        not recorded do, or zero. With fewer than 200 pairs of cells, or bins above 5 ms, no bulk
        can be learned: the result then has p-values against zero, and says so.
    controls : sequence of {"jittered", "shifted", "reversed"}
        Recordings without synapses that are made from this one and go the same way; see
        `fastglm.connectivity.controls`. ``controls`` of the result has the number of discoveries of
        each. Each takes as long as the data.
    observation_model, inverse_link_function
        As in `PopulationGLM`; Poisson or Bernoulli.
    clip : bool, default False
        As in `fit_coupling`, for spike times.
    progress : bool or callable, optional
        As in `PopulationGLM.fit`.

    Returns
    -------
    CouplingMap
        ``strength`` is the area of each filter. ``model`` is the fitted model; other functions take
        ``model.X_`` and ``model.counts_`` as X and y.

    Raises
    ------
    ValueError
        If there are fewer than two cells, the counts, bin size or epochs are not usable, or the
        observations are Gaussian, which are not events.

    Notes
    -----
    No choice looks at the outcome:

    - Window and basis: 50 ms, or 5 bins if 5 bins are longer; six raised cosines in log time.
    - Covariates: the pooled events of all cells, filtered by ``exp(-lag / tau)`` with tau = 20 ms,
      100 ms, 1 s and 10 s. They keep common drive of all cells from appearing as coupling.
      Timescales below two bins are left out.
    - Penalty: a ridge, read as a Gaussian prior on changes of eta (of the log rate with the
      exponential link). For couplings the standard deviation sd is 0.2 for a basis function of mean
      area; it is inversely proportional to the area, so that all functions contribute alike to the
      strength. For own history and covariates sd is 1. The strength of the ridge is
      ``1 / (n_bins * sd**2)``.
    - Uncertainty: observed information.
    - Test: the departure from an empirical null in the shape of a synapse; see
      `fastglm.connectivity.null` and `fastglm.connectivity.scan`. Against zero the significance is
      overstated wherever unobserved cells drive several recorded ones.

    Cost of the uncertainty: at most ``n_bins * n_features**2 * n_cells`` operations; see
    `fastglm.inference.uncertainty`. The null takes seconds for 10,000 pairs.

    Examples
    --------
    >>> import numpy as np, fastglm
    >>> rng = np.random.default_rng(0)
    >>> counts = rng.binomial(1, 0.02, size=(20_000, 3))
    >>> counts[3:, 1] += counts[:-3, 0] * rng.binomial(1, 0.5, size=19_997)  # 0 drives 1
    >>> couplings = fastglm.infer_connectivity(counts, bin_size=0.001, null="model")
    >>> couplings
    CouplingMap of 3 senders x 3 receivers, 1 couplings with q <= 0.05
    >>> bool(couplings.significant()[0, 1]), couplings.settings["window"]
    (True, '50 ms (50 bins)')
    """
    check_choice("null", null, ("empirical", "model"))
    bin_size = read_number(bin_size, "bin_size")
    check_bin_size(bin_size)
    loss = as_observation_model(observation_model).loss(inverse_link_function)
    if not loss.observation_model.event_based:
        raise ValueError(
            f"infer_connectivity expects couplings of {_COUPLING:g} in log rate, which "
            f"{loss.family} observations do not have; use fit_coupling or PopulationGLM with "
            f"observation_model={loss.family!r}, and its coupling_map."
        )
    for name in controls:
        check_choice("control", name, tuple(CONTROLS))
    columns = None
    if _are_spike_times(counts):
        units = counts
        counts, epochs, columns = read_units(units, bin_size, epochs)
        counts = cut_counts(counts, clip, observation_model, units, bin_size, columns.names)
    elif clip:
        raise ValueError("clip goes with spike times; for counts pass counts.clip(max=1).")
    elif pynapple_type(counts) == "TsdFrame" and counts.shape[0] > 1:
        bin_size = read_values(counts, "counts")[1].bin_size
    family = {
        "observation_model": observation_model,
        "inverse_link_function": inverse_link_function,
    }
    result = _infer(counts, epochs, bin_size, null, family, columns, progress)
    _add_controls(result, controls, null, family)
    return result


def _infer(counts, epochs, bin_size, null, family, columns=None, progress=None):
    """The map of counts; see `infer_connectivity`."""
    window = max(round(_REACH / bin_size), _FEWEST_LAGS)
    basis = RaisedCosineLogConv(min(_N_FUNCS, window), window, label="coupling")
    history = basis.compute_features(counts, epochs)
    block = history.columns[0]
    if block.n_senders < 2:
        raise ValueError(
            f"counts hold {block.n_senders} cell; expected at least two, in columns. For one cell "
            "fit fastglm.GLM to its own history."
        )
    timescales = [tau for tau in _TIMESCALES if tau >= 2 * bin_size]
    shared = [_pooled(block, round(tau / bin_size, 3)) for tau in timescales]
    X = hstack([history, *[matrix for matrix in shared if matrix is not None]])
    model = PopulationGLM(
        **family,
        regularizer="Ridge",
        regularizer_strength=_strengths(X, block, basis.kernel_),
        solver_kwargs={"tol": 1e-10},  # a hundredth of the resolution of the standard errors
    )
    model.fit(X, counts, progress=progress)
    if columns is not None:
        block.inputs = model.receivers_ = columns
    result = coupling_map(model, X, counts, label="coupling", null=null, bin_size=bin_size)
    model.X_, model.counts_, model.basis_ = X, read_counts(model, counts, X), basis
    model.bin_size_, loss = bin_size, result.loss
    result.settings.update(
        {
            "bin size": f"{1e3 * bin_size:g} ms",
            "window": f"{1e3 * window * bin_size:g} ms ({window} bins)",
            "basis": f"{basis.n_basis_funcs} raised cosines in log time",
            "covariates": "activity of all cells over "
            + (", ".join(f"{tau:g} s" for tau in timescales) or "no timescale: bins are too long"),
            "observations": f"{loss.family}, link {loss.link}",
            "penalty": f"ridge; couplings of {_COUPLING:g} in {loss.eta_name} are expected, own "
            f"history and covariates of {_OWN:g}",
            "strength": "area of the filter over its lags",
            "uncertainty": "observed information, Benjamini-Hochberg over pairs",
            "null": result.null.sentence,
        }
    )
    return result


def _add_controls(result, controls, null, family):
    """Number of discoveries of each control, and a warning where one finds as much as the data."""
    model = result.model
    block = model.X_.columns[0]
    epochs = _epochs_of(block)
    found = result.significant()
    for name in controls:
        events = CONTROLS[name](model.counts_, epochs, model.bin_size_)
        largest = as_observation_model(family["observation_model"]).largest
        if largest is not None:
            events.amplitudes = np.minimum(events.amplitudes, largest)
        control = _infer(events, epochs, model.bin_size_, null, family)
        result.controls[name] = false_discoveries(name, found, control.significant())
    text = ", ".join(f"{name} {number}" for name, number in result.controls.items())
    if text:
        result.settings["controls"] = f"discoveries beside {found.sum()} in the data: {text}"
    as_many = [name for name, number in result.controls.items() if number >= max(found.sum(), 1)]
    if as_many:
        warnings.warn(
            f"{' and '.join(as_many)}: as many couplings as in the data are found "
            f"({text}; {found.sum()} in the data), where none can be.",
            UserWarning,
            stacklevel=3,
        )


def _are_spike_times(counts):
    if isinstance(counts, SpikeTimes | dict) or pynapple_type(counts) == "TsGroup":
        return True
    if type(counts).__name__ == "SpikeTrainList":  # Neo
        return True
    if not isinstance(counts, list | tuple) or len(counts) == 0:
        return False
    if all(
        (isinstance(one, np.ndarray) and one.ndim == 1) or pynapple_type(one) == "Ts"
        for one in counts
    ):
        return True
    return all(map(has_unit, counts)) or _are_lists_of_times(counts)


def _are_lists_of_times(counts):
    """Whether lists of numbers differ in length, or hold numbers that are no counts."""
    try:
        table = np.asarray(counts, dtype=np.float64)
    except (TypeError, ValueError):  # rows of different lengths, or no numbers
        try:
            return all(np.asarray(one, dtype=np.float64).ndim == 1 for one in counts)
        except (TypeError, ValueError):
            return False
    known = table[np.isfinite(table)]
    return table.ndim == 2 and bool((known != np.round(known)).any())


def _strengths(X, block, kernel):
    """Ridge of every coefficient and receiver."""
    n_bins, n = max(int(X.valid.sum()), 1), block.n_senders
    area = kernel.sum(axis=0)
    prior = np.full((X.shape[1], n), _SHARED)
    prior[: block.n_columns] = np.tile(_COUPLING * area.mean() / area, n)[:, None]
    for j in range(n):
        prior[j * block.n_funcs : (j + 1) * block.n_funcs, j] = _OWN
    return 1 / (n_bins * prior**2)


def _epochs_of(block):
    """First bin and one past the last of each epoch that is longer than the history's window."""
    # A stretch of complete bins is an epoch without its first window.
    edges = np.flatnonzero(np.diff(block.complete.astype(np.int8), prepend=0, append=0))
    return edges.reshape(-1, 2) - [block.kernel.shape[0], 0]


def _pooled(block, tau):
    """Past events of all cells, filtered over tau bins, with variance 1; None without events.

    A timescale within the window is one more sender. A longer timescale has mean 0 and is kept at a
    quarter of the timescale.
    """
    events, window = block.events, block.kernel.shape[0]
    rate = events.amplitudes.sum() / events.n_bins
    if rate == 0:
        return None
    label = f"activity_{tau:g}"
    if tau <= window:
        kernel = np.exp(-np.arange(window) / tau)[:, None]
        kernel /= np.sqrt(rate * (kernel**2).sum())
        pooled = Events(
            events.bins, np.zeros_like(events.units), events.amplitudes, (events.n_bins, 1)
        )
        column = HistoryColumns(pooled, kernel, block.shift, label, complete=block.complete)
        return FeatureMatrix([column])
    from scipy.signal import lfilter  # here: a twentieth of the time of `import fastglm`

    every = max(int(tau / 4), 1)
    starts, values = [], []
    for start, stop in _epochs_of(block):
        low, high = np.searchsorted(events.bins, [start, stop])
        begins = np.arange(start, stop, every)
        total = np.bincount(
            (events.bins[low:high] - start) // every, events.amplitudes[low:high], begins.size
        )
        # The filtered sum at the end of each block; the mean of the epoch fills the time before it.
        decay = np.exp(-every / tau)
        before = decay * total.mean() / (1 - decay)
        after, _ = lfilter([decay], [1, -decay], total, zi=[decay * before])
        starts.append(begins)
        values.append(np.concatenate([[before], after[:-1]]))
    if not starts:
        return None
    values, starts = np.concatenate(values), np.concatenate(starts)
    spread = values.std()
    if spread == 0:
        return None
    return hold((values - values.mean()) / spread, events.n_bins, starts=starts, label=label)


def load_model(path: str | Path) -> GLM | PopulationGLM:
    """Read a model that ``save_params`` or the command line wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, is not a model of fastglm, or is of a newer version.
    """
    return read_model(path, {"GLM": GLM, "PopulationGLM": PopulationGLM})


__all__ = ["fit_coupling", "infer_connectivity", "load_model"]
