"""All-to-all coupling of spike times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastglm._fitted import Fitted
from fastglm._pynapple import pynapple_type
from fastglm.connectivity import CouplingMap, coupling_map, point_estimates
from fastglm.features.events import Events
from fastglm.glm import PopulationGLM
from fastglm.inference import affordable
from fastglm.io import save_model
from fastglm.observation_models import ObservationModel, as_observation_model
from fastglm.recordings.bins import Bins
from fastglm.recordings.covariates import read_covariates
from fastglm.recordings.load import as_recording
from fastglm.recordings.spikes import SpikeTimes
from fastglm.recordings.times import check_bin_size, read_number
from fastglm.recordings.units import read_trains, read_units
from fastglm.regularizer import Ridge, as_regularizer
from fastglm.workflow.design import Design, read_basis, read_own_basis
from fastglm.workflow.prior import ridge_of_prior

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_WINDOW, _N_FUNCS = 0.1, 8  # seconds of history, and the functions of its basis


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
    covariates: object | None = None,
    own_window: float | None = None,
    own_basis: object | None = None,
    mask: ArrayLike | None = None,
    progress: bool | Callable[[int], object] | None = None,
    checkpoint: str | Path | None = None,
    executor: object | None = None,
    **settings: object,
) -> PopulationGLM:
    """Fit all-to-all coupling to spike times, given what else drives the cells.

    Without covariates the result is the same as from
    ``PopulationGLM(...).fit(basis.compute_features(counts, epochs=epochs), counts)``, but the
    counts are never a table. Spikes of one bin and unit become one event. Memory: 16 bytes for each
    event, 48 with the features, and one byte for each bin, so that bins of 0.1 ms are possible. The
    fit itself takes up to ``memory_budget``.

    Parameters
    ----------
    units : TsGroup, SpikeTimes, dict of arrays, list of arrays, or a recording
        Spike times in seconds, ascending: pynapple's TsGroup, the result of `fastglm.load_spikes`,
        a path or an object that it reads (NWB, Kilosort, Phy, SpikeInterface, Neo, ...), or an
        array (or Ts, or Neo's SpikeTrain) for each unit. Keys of a dict, ids of a file and the
        index of a TsGroup name the cells of the coupling map. Times with a unit (quantities, Neo,
        pint, astropy) are converted to seconds, here and in all other arguments.
    bin_size : float
        Seconds.
    window : float, optional
        Length of history, seconds. Default: 0.1, or the window of the basis.
    basis : convolution basis, optional
        Default: ``RaisedCosineLogConv`` with 8 functions, or as many as lags in a shorter window.
    regularizer, regularizer_strength
        As in `PopulationGLM`. The strength None is for a ridge that of `infer_connectivity`, which
        expects couplings of 0.2 in log rate; see `fastglm.workflow.prior`.
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
    covariates : dict or FeatureMatrix, optional
        What else drives the cells: position, stimulus, speed, events of a task. A name goes with a
        value, or with a tuple of a basis and its inputs; `fastglm.recordings.covariates` has the
        table. Columns have the name as their label, and the penalty acts on them in their units.
    own_window, own_basis : optional
        Window (seconds) and convolution basis of each cell's own history, if they differ from those
        of the couplings. The own history is then a block of its own, "own history", and the
        couplings are between different cells.
    mask : array of bool, shape (n_units, n_units), optional
        Couplings that are fitted, senders in rows; on the diagonal own histories.
    progress, checkpoint, executor
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
        - ``basis_`` (of the couplings) and ``bin_size_``.
        - ``epochs_``: ndarray of shape (n_epochs, 2), first bin and one past the last.

        Pickles keep these attributes (48 bytes an event); `save_params` does not.

    Raises
    ------
    ValueError
        If units are not spike times, epochs, covariates or parameters do not fit them, a unit has
        several spikes in a bin with Bernoulli observations, or `fit` raises; if the first spike is
        so late that t_start is missing, or times without a stated range can hardly be seconds.

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
    bin_size = read_number(bin_size, "bin_size")
    check_bin_size(bin_size)
    units = as_recording(units)
    events, bounds, columns = read_units(units, bin_size, epochs, t_start, t_stop)
    events = cut_counts(events, clip, observation_model, units, bin_size, columns.names)
    basis = read_basis(basis, window, bin_size, _WINDOW, _N_FUNCS)
    own_basis = read_own_basis(own_basis, own_window, bin_size, _N_FUNCS)
    design = Design.of(events, bounds, basis, own_basis)
    bins = Bins(events.n_bins, bounds, events.grid)
    covariates = read_covariates(covariates, bins, design.X.labels)
    design.add(covariates)
    if mask is not None or own_basis is not None:
        if settings.get("feature_mask") is not None:
            raise ValueError(
                "feature_mask goes without mask, own_window and own_basis, which make one; pass "
                "mask, senders by receivers, alone."
            )
        settings["feature_mask"] = design.feature_mask(mask)
    if regularizer is None:
        regularizer_strength = None
    elif regularizer_strength is None and isinstance(as_regularizer(regularizer), Ridge):
        regularizer_strength = ridge_of_prior(design, covariates)
    model = PopulationGLM(
        observation_model,
        regularizer=regularizer,
        regularizer_strength=regularizer_strength,
        **settings,
    )
    X = design.X
    model.fit(X, events, progress=progress, checkpoint=checkpoint, executor=executor)
    design.name(columns)
    model.receivers_ = columns
    model.X_, model.counts_, model.basis_ = X, events, basis
    model.bin_size_, model.epochs_ = bin_size, bounds
    return model


def map_of(
    model: PopulationGLM,
    kind: str | None = None,
    null: str = "model",
    channel: object | None = None,
) -> CouplingMap:
    """The map of a model of `fit_coupling`.

    Parameters
    ----------
    model : PopulationGLM
    kind : str, optional
        As in `coupling_map`, or "none": without standard errors and tests. Default: "observed", or
        "none" where it would take long.
    null, channel
        As in `coupling_map`.
    """
    fit = Fitted.of(model, model.X_, model.counts_)
    if kind is None:
        kind = "observed" if affordable(fit) else "none"
    if kind != "none":
        return coupling_map(model, model.X_, model.counts_, kind, null=null, channel=channel)
    history = model.X_.histories[0][0]
    names = None if model.receivers_ is None else np.asarray(model.receivers_.names)
    couplings = point_estimates(
        fit.coef[: history.n_columns],
        history.kernel,
        senders=names,
        receivers=names,
        model=model,
        loss=fit.loss,
    )
    return replace(couplings, bin_size=model.bin_size_, mean_count=fit.mean_count)


def save_fit(model: PopulationGLM, path: Path, recording: Path, names: list | None) -> None:
    """Write a model of `fit_coupling` with what its file should say of the recording."""
    metadata = {
        "recording": recording.absolute().name,
        "bin_size": model.bin_size_,
        "basis": type(model.basis_).__name__,
        "basis_params": dict(model.basis_.get_params(deep=False)),
    }
    if names is not None:
        metadata["units"] = names
    save_model(model, path, metadata)


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
        cut.timeline, cut.columns, cut.grid = events.timeline, events.columns, events.grid
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


__all__ = ["cut_counts", "fit_coupling", "map_of", "save_fit"]
