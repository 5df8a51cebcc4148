"""Who drives whom: one call, with choices that suit most recordings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastglm._checks import check_choice
from fastglm._inputs import read_counts
from fastglm._kernels import ahead
from fastglm._pynapple import Columns, pynapple_type, read_values
from fastglm.connectivity import CouplingMap, coupling_map, synchrony
from fastglm.connectivity.controls import CONTROLS
from fastglm.connectivity.nuisance import TIMESCALES, pooled
from fastglm.features.matrix import FeatureMatrix
from fastglm.glm import PopulationGLM
from fastglm.inference import KINDS
from fastglm.observation_models import ObservationModel, as_observation_model
from fastglm.recordings.bins import Bins, Grid
from fastglm.recordings.covariates import read_covariates
from fastglm.recordings.load import as_recording
from fastglm.recordings.spikes import SpikeTimes
from fastglm.recordings.times import check_bin_size, has_unit, read_number
from fastglm.recordings.units import read_units
from fastglm.regularizer import Ridge, UnRegularized, as_regularizer
from fastglm.workflow.controls import add_controls, read_impossible
from fastglm.workflow.coupling import cut_counts
from fastglm.workflow.design import Design, read_basis, read_own_basis
from fastglm.workflow.prior import COUPLING, OWN, ridge_of_prior

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_REACH, _N_FUNCS = 0.05, 6  # seconds; synapses act within 50 ms, most of it in the first ten
_FEWEST_LAGS = 5  # of coarse bins
_UNCERTAINTY = {
    "observed": "observed information",
    "expected": "expected information",
    "robust": "residuals of every bin (robust)",
    "blocks": "residuals in blocks of time (robust)",
}
_BIN_SIZE = 0.001  # seconds; of spike times


def infer_connectivity(
    counts: object,
    bin_size: float | None = None,
    epochs: object | None = None,
    *,
    covariates: object | None = None,
    window: float | None = None,
    basis: object | None = None,
    own_window: float | None = None,
    own_basis: object | None = None,
    mask: ArrayLike | None = None,
    regularizer: object | None = "Ridge",
    regularizer_strength: ArrayLike | None = None,
    kind: str = "observed",
    null: str = "empirical",
    channel: Sequence | np.ndarray | str | bool | None = None,
    controls: Sequence[str] = (),
    impossible: ArrayLike | None = None,
    observation_model: str | ObservationModel = "Poisson",
    inverse_link_function: str | Callable | None = None,
    clip: bool = False,
    progress: bool | Callable[[int], object] | None = None,
    executor: object | None = None,
) -> CouplingMap:
    """Who drives whom, with choices that suit most recordings.

    Every cell is fitted on the history of all cells, on the activity of the whole population at
    several timescales, and on the covariates. The result holds the couplings with their
    uncertainty; its ``settings`` list the choices.

    Parameters
    ----------
    counts : array of shape (n_bins, n_cells), or spike times
        Counts: events per bin, dense or sparse, a list of trials, or a TsdFrame. Spike times: a
        TsGroup, the result of `fastglm.load_spikes`, a path or object that it reads (NWB, Kilosort,
        Phy, SpikeInterface, Neo, ...), or a dict or list with the spike times (seconds) of each
        cell. A list of one-dimensional arrays holds spike times, and so does a list of lists that
        differ in length or hold numbers that are not whole.
    bin_size : float, optional
        Seconds. Default for spike times: 0.001. A TsdFrame has its own; other counts need it.
    epochs : array of shape (n_epochs, 2) or IntervalSet, optional
        No history crosses from one epoch to the next. For counts: first bin and one past the last
        of every epoch. For spike times: start and stop in seconds.
    covariates : dict or FeatureMatrix, optional
        What else drives the cells: position, stimulus, speed, events of a task. A name goes with a
        value, or with a tuple of a basis and its inputs; `fastglm.recordings.covariates` has the
        table. Couplings are then those given the covariates.
    window : float, optional
        Length of the couplings' history, seconds.
    basis : convolution basis, optional
        Of the couplings; the window is then that of the basis.
    own_window, own_basis : optional
        The same of each cell's own history, as a block of its own ("own history"). The couplings
        are then between different cells, and the diagonal of the map is empty. Default: the own
        history is as a coupling.
    mask : array of bool, shape (n_cells, n_cells), optional
        Couplings that are fitted, senders in rows; on the diagonal own histories.
    regularizer, regularizer_strength
        As in `PopulationGLM`. Without a strength a ridge is the prior that the notes describe. A
        lasso has no empirical null.
    kind : {"observed", "expected", "robust", "blocks"}
        How standard errors are computed; see `fastglm.inference`.
    null : {"empirical", "model"}
        What a coupling must depart from: the bulk of all filters, which shows what cells that were
        not recorded do, or zero. With fewer than 200 pairs of cells, or bins above 5 ms, no bulk
        can be learned: the result then has p-values against zero, and says so.
    channel : sequence, str, ndarray of bool or False, optional
        The channel (electrode, tetrode, peak channel) from which the sorter took each cell: labels,
        the name of a column of the table of units, or the pairs themselves. The first 2 ms of pairs
        of one channel are left out; see `coupling_map`. Default: the recording's column, if it has
        one; ``settings`` say which.
    controls : sequence of {"jittered", "shifted", "reversed"}
        Recordings without synapses that are made from this one and go the same way; see
        `fastglm.connectivity.controls`. ``controls`` of the result has the number of discoveries of
        each. Each takes as long as the data. Covariates stay where they are, and are reversed with
        the cells.
    impossible : array of bool, shape (n_cells, n_cells), optional
        Pairs that anatomy cannot connect, senders in rows. They are fitted and tested as all
        others, and what is found among them is false: ``controls["impossible"]``.
    observation_model, inverse_link_function
        As in `PopulationGLM`; Poisson or Bernoulli.
    clip : bool, default False
        As in `fit_coupling`, for spike times.
    progress : bool or callable, optional
        As in `PopulationGLM.fit`.
    executor : object, optional
        As in `PopulationGLM.fit`. The executor fits, also the controls; standard errors and nulls
        are computed in this process.

    Returns
    -------
    CouplingMap
        ``strength`` is the area of each filter. ``model`` is the fitted model; other functions take
        ``model.X_`` and ``model.counts_`` as X and y. ``synchrony`` is what pairs of cells do in
        the same bin, which has no direction; see `fastglm.connectivity.synchrony`.

    Raises
    ------
    ValueError
        If there are fewer than two cells, counts have no bin size, the counts, bin size, epochs,
        covariates or choices are not usable, or the observations are Gaussian, which are not
        events.

    Warns
    -----
    UserWarning
        If a control finds as many couplings as the data, or impossible pairs are found as often as
        others.

    Notes
    -----
    No choice looks at the outcome:

    - Window and basis: 50 ms, or 5 bins if 5 bins are longer; six raised cosines in log time.
    - Shared activity: the pooled events of all cells, filtered by ``exp(-lag / tau)`` with
      tau = 20 ms, 100 ms, 1 s and 10 s. They keep common drive of all cells from appearing as
      coupling. Timescales below two bins are left out.
    - Penalty: a ridge, read as a Gaussian prior on changes of eta (of the log rate with the
      exponential link). For couplings the standard deviation sd is 0.2 for a basis function of mean
      area; it is inversely proportional to the area, so that all functions contribute alike to the
      strength. For own history and covariates sd is 1, for covariates of the user for a change by
      one standard deviation of the column, so that their units do not matter. The strength of the
      ridge is ``1 / (n_bins * sd**2)``; see `fastglm.workflow.prior`.
    - Uncertainty: observed information, unless ``kind`` says otherwise.
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
    check_choice("kind", kind, KINDS)
    ahead.prepare("RECIPE")
    bin_size = read_number(bin_size, "bin_size")
    if bin_size is not None:
        check_bin_size(bin_size)
    loss = as_observation_model(observation_model).loss(inverse_link_function)
    if not loss.observation_model.event_based:
        raise ValueError(
            f"infer_connectivity expects couplings of {COUPLING:g} in log rate, which "
            f"{loss.family} observations do not have; use fit_coupling or PopulationGLM with "
            f"observation_model={loss.family!r}, and its coupling_map."
        )
    for name in controls:
        check_choice("control", name, tuple(CONTROLS))
    data = _read(counts, epochs, bin_size, clip, observation_model)
    bin_size = data.bin_size
    recipe = Recipe(
        bin_size=bin_size,
        basis=_causal(read_basis(basis, window, bin_size, _REACH, _N_FUNCS, _FEWEST_LAGS)),
        own_basis=_causal(read_own_basis(own_basis, own_window, bin_size, _N_FUNCS)),
        mask=mask,
        regularizer=regularizer,
        strength=regularizer_strength,
        kind=kind,
        null=null,
        channel=channel,
        family={
            "observation_model": observation_model,
            "inverse_link_function": inverse_link_function,
        },
        progress=progress,
        executor=executor,
    )
    design = recipe.design(data.counts, data.epochs)
    bins = Bins(design.population.n_bins, design.population.epochs, data.grid)
    covariates = read_covariates(covariates, bins, design.X.labels)
    impossible = read_impossible(impossible, design.population.n_senders)
    result = recipe.couplings(data.counts, design, covariates, data.columns)
    result.synchrony = synchrony(result.model, result.model.X_, result.model.counts_)
    result.settings["synchrony"] = _synchronous(result)
    add_controls(result, controls, impossible, recipe, design.population.epochs, covariates)
    return result


class _Data(NamedTuple):
    """Counts with their epochs, and what is known of bins and cells."""

    counts: object
    epochs: object
    bin_size: float
    columns: Columns | None = None
    grid: Grid | None = None


def _read(counts, epochs, bin_size, clip, observation_model):
    """What `infer_connectivity` is given, as counts."""
    counts = as_recording(counts)
    if _are_spike_times(counts):
        bin_size = _BIN_SIZE if bin_size is None else bin_size
        events, bounds, columns = read_units(counts, bin_size, epochs)
        events = cut_counts(events, clip, observation_model, counts, bin_size, columns.names)
        return _Data(events, bounds, bin_size, columns, events.grid)
    if clip:
        raise ValueError("clip goes with spike times; for counts pass counts.clip(max=1).")
    if pynapple_type(counts) == "TsdFrame" and counts.shape[0] > 1:
        timeline = read_values(counts, "counts")[1]
        bin_size = timeline.bin_size
        return _Data(counts, epochs, bin_size, grid=Grid.of(timeline, bin_size))
    if bin_size is None:
        raise ValueError(
            "bin_size is missing: counts do not say how long their bins are, and window, "
            "timescales and null are in seconds. Pass bin_size= in seconds, such as 0.001, or "
            "spike times in place of counts."
        )
    return _Data(counts, epochs, bin_size)


def _causal(basis):
    """A basis that looks back only, or None."""
    kwargs = getattr(basis, "conv_kwargs", None) or {}
    if kwargs.get("predictor_causality", "causal") != "causal" or kwargs.get("shift") is False:
        raise ValueError(
            f"{basis.label} has conv_kwargs={kwargs}; expected a basis that sees earlier bins "
            "only, for a cell cannot drive what came before."
        )
    return basis


@dataclass(frozen=True)
class Recipe:
    """The choices of `infer_connectivity`, which data and controls go through alike.

    Attributes
    ----------
    bin_size : float
        Seconds.
    basis, own_basis : convolution basis
        ``own_basis`` is None if the own history is as a coupling.
    mask : array of bool, shape (n_cells, n_cells), or None
    regularizer, strength
        Without a strength, a ridge is the prior of the recipe.
    kind, null : str
    channel
        As in `infer_connectivity`.
    family : dict
        Observation model and link.
    progress : None, bool or callable
    executor : object or None
    """

    bin_size: float
    basis: object
    own_basis: object | None
    mask: object | None
    regularizer: object
    strength: object | None
    kind: str
    null: str
    channel: object | None
    family: dict
    progress: object | None = None
    executor: object | None = None

    def __post_init__(self) -> None:
        kind = as_regularizer(self.regularizer)
        if self.strength is None and not isinstance(kind, Ridge | UnRegularized):
            raise ValueError(
                f"regularizer is {self.regularizer!r} without regularizer_strength; expected a "
                "strength. Only a ridge has one by default, which expects couplings of "
                f"{COUPLING:g}."
            )

    @property
    def expects(self) -> bool:
        """Whether the penalty is the prior of the recipe."""
        return self.strength is None and isinstance(as_regularizer(self.regularizer), Ridge)

    def design(self, counts: object, epochs: object) -> Design:
        """The histories of counts."""
        design = Design.of(counts, epochs, self.basis, self.own_basis)
        if design.population.n_senders < 2:
            raise ValueError(
                f"counts hold {design.population.n_senders} cell; expected at least two, in "
                "columns. For one cell fit fastglm.GLM to its own history."
            )
        return design

    def couplings(
        self,
        counts: object,
        design: Design,
        covariates: FeatureMatrix | None = None,
        columns: object | None = None,
    ) -> CouplingMap:
        """The map of counts with their histories, given covariates."""
        timescales = [tau for tau in TIMESCALES if tau >= 2 * self.bin_size]
        for tau in timescales:
            design.add(pooled(design.population, round(tau / self.bin_size, 3)))
        design.add(covariates)
        X, strength = design.X, self.strength
        if self.expects:
            strength = ridge_of_prior(design, covariates)
        model = PopulationGLM(
            **self.family,
            regularizer=self.regularizer,
            regularizer_strength=strength,
            feature_mask=design.feature_mask(self.mask),
            solver_kwargs={"tol": 1e-10},  # a hundredth of the resolution of the standard errors
        )
        model.fit(X, counts, progress=self.progress, executor=self.executor)
        if columns is not None:
            design.name(columns)
            model.receivers_ = columns
        label = design.population.label
        result = coupling_map(
            model,
            X,
            counts,
            self.kind,
            label,
            null=self.null,
            bin_size=self.bin_size,
            channel=self.channel,
        )
        model.X_, model.counts_, model.basis_ = X, read_counts(model, counts, X), self.basis
        model.bin_size_, model.epochs_ = self.bin_size, design.population.epochs
        result.settings.update(self._settings(result, timescales, covariates))
        return result

    def _settings(self, result, timescales, covariates):
        """What was chosen, in words."""
        loss, model = result.loss, result.model
        activity = ", ".join(f"{tau:g} s" for tau in timescales)
        shared = f"activity of all cells over {activity or 'no timescale: bins are too long'}"
        settings = {
            "bin size": f"{1e3 * self.bin_size:g} ms",
            "window": self._window(self.basis),
            "basis": _functions(self.basis),
        }
        if self.own_basis is not None:
            own = f"{self._window(self.own_basis)}, {_functions(self.own_basis)}"
            settings["own history"] = own
        if covariates is not None:
            parts = zip(covariates.labels, covariates.blocks, strict=True)
            shared += "".join(f"; {label} ({block.n_columns})" for label, block in parts)
            valid = model.X_.valid
            settings["bins"] = f"{int(valid.sum()):,} of {valid.size:,} are known and used"
        settings["covariates"] = shared
        if self.mask is not None:
            mask = np.asarray(self.mask, bool)
            settings["couplings"] = f"{int(mask.sum()):,} of {mask.size:,} are fitted"
        return settings | {
            "observations": f"{loss.family}, link {loss.link}",
            "penalty": self._penalty(loss),
            "strength": "area of the filter over its lags",
            "uncertainty": f"{_UNCERTAINTY[self.kind]}, Benjamini-Hochberg over pairs",
            "null": result.null.sentence,
            "channels": result.channel or "no pairs of one channel are known",
        }

    def _window(self, basis):
        size = basis.window_size
        return f"{1e3 * size * self.bin_size:g} ms ({size} bins)"

    def _penalty(self, loss):
        if self.expects:
            return (
                f"ridge; couplings of {COUPLING:g} in {loss.eta_name} are expected, own history "
                f"and covariates of {OWN:g}"
            )
        if isinstance(as_regularizer(self.regularizer), UnRegularized):
            return "none"
        name = self.regularizer if isinstance(self.regularizer, str) else repr(self.regularizer)
        one = np.ndim(self.strength) == 0
        return f"{name}, strength {f'{self.strength:g}' if one else 'as given'}"


def _synchronous(result):
    """The number of synchronous pairs, in words; pairs of one channel apart."""
    pairs = np.triu_indices(len(result.receivers), 1)
    found, same = result.synchrony.significant()[pairs], result.same_channel[pairs]
    text = f"{int((found & ~same).sum()):,} of {int((~same).sum()):,} pairs"
    if same.any():
        text += f", and {int((found & same).sum()):,} of {int(same.sum()):,} of one channel,"
    return f"{text} differ in the same bin from what their pasts predict (q <= 0.05)"


def _functions(basis):
    name = type(basis).__name__
    if name == "RaisedCosineLogConv":
        name = "raised cosines in log time"
    return f"{basis.n_basis_funcs} {name}"


def _are_spike_times(counts):
    if isinstance(counts, SpikeTimes | dict) or pynapple_type(counts) == "TsGroup":
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


__all__ = ["infer_connectivity"]
