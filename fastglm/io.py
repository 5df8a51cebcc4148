"""Spikes in, models out: recordings in ``.npz``, binning, saved models. No pickle anywhere."""

import json
import os
import zipfile
import zlib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array, issparse

from fastglm import _newton as newton
from fastglm.regularizer import REGULARIZERS, ElasticNet, as_regularizer

_FORMAT = "fastglm-model"
_VERSION = 1
_MAX_BINS = 2**31 - 2**20  # bins are counted in 32 bits


@dataclass
class SpikeTimes:
    """A recording: when each unit fired, and when it was observed.

    Attributes
    ----------
    spike_times : ndarray of float64, shape (n_spikes,)
        Seconds, ascending within each unit.
    unit : ndarray of int, shape (n_spikes,)
        0 to n_units - 1.
    n_units : int
    t_start, t_stop : float
        Seconds.
    segments : ndarray of shape (n_segments, 2)
        Observed intervals in seconds; one from t_start to t_stop if the file has none.
    adjacency : ndarray of shape (n_units, n_units) or None
        True weight from sender (row) to receiver (column), where it is known.
    """

    spike_times: np.ndarray
    unit: np.ndarray
    n_units: int
    t_start: float
    t_stop: float
    segments: np.ndarray
    adjacency: np.ndarray | None = None

    def bin(self, bin_size):
        """Counts of shape (n_bins, n_units) and epochs in bins; see `bin_spikes`."""
        return bin_spikes(
            self.spike_times,
            self.unit,
            bin_size,
            n_units=self.n_units,
            t_start=self.t_start,
            t_stop=self.t_stop,
            epochs=self.segments,
        )


def load_spikes(path):
    """Read a recording from an ``.npz`` file.

    Parameters
    ----------
    path : str or Path
        With arrays ``spike_times`` (seconds), ``unit``, ``n_units``, ``t_start``, ``t_stop`` and
        optionally ``segments`` (n_segments, 2) and ``adjacency`` (n_units, n_units).

    Returns
    -------
    SpikeTimes

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not an ``.npz`` file, an array is missing, or the spikes are not as described.
    """
    data = _read_npz(path, "a recording")
    wanted = ("spike_times", "unit", "n_units", "t_start", "t_stop")
    missing = [name for name in wanted if name not in data]
    if missing:
        raise ValueError(
            f"{path} has no {', '.join(missing)}; a recording holds {', '.join(wanted)}."
        )
    for name in ("n_units", "t_start", "t_stop"):
        if data[name].size != 1 or not _is_number(data[name].item()):
            raise ValueError(f"{path}: {name} is not one finite number.")
    n_units, t_start, t_stop = (data[name].item() for name in ("n_units", "t_start", "t_stop"))
    try:
        spike_times, unit, n_units = _check_spikes(
            data["spike_times"], data["unit"], n_units, t_start, t_stop
        )
        segments = _check_segments(data.get("segments"), t_start, t_stop)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    adjacency = data.get("adjacency")
    if adjacency is not None and adjacency.shape != (n_units, n_units):
        raise ValueError(
            f"{path}: adjacency has shape {adjacency.shape}; expected {(n_units, n_units)}."
        )
    return SpikeTimes(spike_times, unit, n_units, t_start, t_stop, segments, adjacency)


def bin_spikes(
    spike_times,
    unit,
    bin_size,
    *,
    n_units=None,
    t_start=None,
    t_stop=None,
    epochs=None,
):
    """Count spikes in bins.

    Bin k of an epoch that starts at a holds the spikes of ``a + k * bin_size <= t``
    ``< a + (k + 1) * bin_size``; a spike less than a millionth of a bin before an edge counts as
    on it. Epochs are put end to end; what does not fill a last bin, and spikes outside all
    epochs, are left out.

    Parameters
    ----------
    spike_times : array of shape (n_spikes,)
        Seconds, ascending within each unit.
    unit : array of int, shape (n_spikes,)
    bin_size : float
        Seconds.
    n_units : int, optional
        Default: the largest unit plus one.
    t_start, t_stop : float, optional
        Range of the recording in seconds. Default: 0, and the end of the last spike's bin.
    epochs : array of shape (n_epochs, 2), optional
        Observed intervals in seconds.

    Returns
    -------
    counts : ndarray of shape (n_bins, n_units)
        In the smallest signed integer type that holds them.
    epochs : ndarray of int, shape (n_epochs, 2)
        First bin and one past the last of every epoch, for ``compute_features``. Only if
        ``epochs`` is given.

    Raises
    ------
    ValueError
        If times are NaN, not ascending within a unit or out of range, units are negative, not
        integers or too large, or epochs overlap.

    Examples
    --------
    >>> import fastglm
    >>> fastglm.bin_spikes([0.001, 0.004, 0.002], [0, 0, 1], bin_size=0.002)
    array([[1, 0],
           [0, 1],
           [1, 0]], dtype=int8)
    """
    if not (_is_number(bin_size) and bin_size > 0):
        raise ValueError(f"bin_size is {bin_size!r}; expected seconds above 0.")
    start = 0.0 if t_start is None else t_start
    spike_times, unit, n_units = _check_spikes(spike_times, unit, n_units, start, t_stop)
    if t_stop is None:
        last = spike_times.max(initial=start)
        t_stop = start + (np.floor((last - start) / bin_size + 1e-6) + 1) * bin_size
    segments = _check_segments(epochs, start, float(t_stop))
    with np.errstate(over="ignore"):
        lengths = np.floor((segments[:, 1] - segments[:, 0]) / bin_size + 1e-6)
    if lengths.sum() > _MAX_BINS:
        raise ValueError(
            f"Bins of {bin_size} s would be {lengths.sum():.3g}, more than {_MAX_BINS}; use wider "
            "bins."
        )
    if lengths.sum() < 1:
        raise ValueError(
            f"No bin of {bin_size} s fits into the recording from {start} to {t_stop} s."
        )
    stops = np.cumsum(lengths.astype(np.int64))
    begins = np.concatenate([[0], stops[:-1]])
    edges = segments[:, 0] - 1e-6 * bin_size
    epoch = np.searchsorted(edges, spike_times, side="right") - 1
    epoch = epoch.clip(min=0)
    offset = np.floor((spike_times - segments[epoch, 0]) / bin_size + 1e-6)
    inside = (offset >= 0) & (offset < lengths[epoch])
    bins = (begins[epoch] + offset.astype(np.int64))[inside]
    flat = bins * n_units + unit[inside]
    cells, times = np.unique(flat, return_counts=True)
    counts = np.zeros((int(stops[-1]), n_units), np.min_scalar_type(-int(times.max(initial=1)) - 1))
    counts.ravel()[cells] = times
    if epochs is None:
        return counts
    return counts, np.column_stack([begins, stops])[lengths > 0]


def _check_spikes(spike_times, unit, n_units, t_start, t_stop):
    """Spike times in float64, units in int64 and their number, checked."""
    spike_times = _numbers("spike_times", spike_times).astype(np.float64)
    unit = _numbers("unit", unit)
    if spike_times.shape != unit.shape:
        raise ValueError(
            f"spike_times has {spike_times.size} entries and unit {unit.size}; expected one unit "
            "for each spike."
        )
    if not np.isfinite(spike_times).all():
        bad = np.flatnonzero(~np.isfinite(spike_times))
        raise ValueError(
            f"spike_times holds NaN or infinity ({bad.size} times, first at index {bad[0]}); "
            "remove those spikes."
        )
    if unit.dtype.kind == "f" and not (np.isfinite(unit).all() and (unit == np.floor(unit)).all()):
        raise ValueError("unit holds numbers that are not integers; expected 0, 1, 2, ...")
    if (np.abs(unit) >= 2**31).any():
        raise ValueError("unit holds numbers beyond 2**31; units count from 0.")
    unit = unit.astype(np.int64)
    if (unit < 0).any():
        raise ValueError(
            f"unit holds negative numbers (smallest {unit.min()}); expected 0, 1, 2, ..."
        )
    largest = int(unit.max(initial=-1))
    if n_units is None:
        n_units = largest + 1
    if not _is_number(n_units) or n_units != int(n_units) or n_units < 1:
        raise ValueError(
            f"n_units is {n_units}; expected a positive integer (there are {spike_times.size} "
            "spikes)."
        )
    if largest >= n_units:
        raise ValueError(
            f"unit goes up to {largest}, but n_units is {n_units}; units count from 0."
        )
    stop = np.inf if t_stop is None else t_stop
    known = _is_number(t_start) and (t_stop is None or _is_number(t_stop))
    if not (known and stop > t_start):
        raise ValueError(
            f"The recording runs from {t_start} to {stop} s; expected t_start < t_stop."
        )
    outside = (spike_times < t_start) | (spike_times > stop)
    if outside.any():
        first = spike_times[outside][0]
        kind = " (negative)" if first < 0 and t_start == 0 else ""
        raise ValueError(
            f"{int(outside.sum())} spike times are out of range{kind}, first {first} s; expected "
            f"{t_start} to {stop} s. Give t_start and t_stop?"
        )
    order = np.argsort(unit, kind="stable")
    falls = (np.diff(spike_times[order]) < 0) & (np.diff(unit[order]) == 0)
    if falls.any():
        index = order[1:][falls][0]
        raise ValueError(
            f"spike_times of unit {unit[index]} are not ascending at index {index}; sort them: "
            "order = np.lexsort((spike_times, unit))."
        )
    return spike_times, unit, int(n_units)


def _is_number(value):
    """Whether a value is one finite real number (and not a bool)."""
    real = isinstance(value, int | float | np.integer | np.floating)
    return real and not isinstance(value, bool) and bool(np.isfinite(value))


def _numbers(name, values):
    array = np.asarray(values)
    if array.size == 0:
        array = array.astype(np.float64)
    if array.ndim != 1 or array.dtype.kind not in "fiu":
        raise ValueError(
            f"{name} has shape {array.shape} and dtype {array.dtype}; expected a one-dimensional "
            "array of numbers."
        )
    return array


def _check_segments(segments, t_start, t_stop):
    if segments is None:
        return np.array([[t_start, t_stop]])
    segments = np.asarray(segments, dtype=np.float64)
    if segments.ndim != 2 or segments.shape[1] != 2 or segments.shape[0] == 0:
        raise ValueError(
            f"epochs has shape {segments.shape}; expected (n_epochs, 2), start and stop in seconds."
        )
    if not np.isfinite(segments).all() or (segments[:, 1] <= segments[:, 0]).any():
        raise ValueError("epochs must be finite and each stop after its start.")
    if (segments[1:, 0] < segments[:-1, 1]).any():
        raise ValueError("epochs must be ascending and not overlapping; sort or merge them.")
    # A rounding error of the last digit is not out of range.
    slack = 1e-9 * max(abs(t_start), abs(t_stop), 1.0)
    if segments[0, 0] < t_start - slack or segments[-1, 1] > t_stop + slack:
        raise ValueError(
            f"epochs run from {segments[0, 0]} to {segments[-1, 1]} s, out of the recording's "
            f"range {t_start} to {t_stop} s."
        )
    return segments


# --- models ---


def model_path(path):
    """The file that a model is written to: ``.npz`` is appended where it is missing.

    Raises
    ------
    ValueError
        If the path is a folder, or lies in one that does not exist.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; expected the name of a file.")
    if not path.resolve().parent.is_dir():
        raise ValueError(f"There is no folder {path.resolve().parent} to write to.")
    return path if path.suffix == ".npz" else path.with_name(path.name + ".npz")


def save_model(model, path, metadata=None):
    """Write a fitted model to ``.npz``; `load_model` reads it.

    Parameters
    ----------
    model : GLM or PopulationGLM
    path : str or Path
        ``.npz`` is appended where it is missing. The file appears whole or not at all.
    metadata : dict, optional
        Anything that JSON can hold; comes back as ``model.metadata_``.
    """
    path = model_path(path)
    params = model.get_params(deep=False)
    arrays = {f"result_{f.name}": getattr(model.solver_result_, f.name) for f in _FIELDS}
    mask = params.pop("feature_mask")
    if isinstance(mask, dict):
        arrays.update({f"mask_{label}": np.asarray(m) for label, m in mask.items()})
    elif mask is not None:
        arrays["mask"] = np.asarray(mask)
    params["inverse_link_function"] = model._link().name
    params["observation_model"] = "Poisson"
    kind, strength = as_regularizer(model.regularizer), params.pop("regularizer_strength")
    if isinstance(kind, ElasticNet) and isinstance(strength, tuple | list):
        strength, arrays["ratio"] = (np.asarray(part, float) for part in strength)
    if strength is not None:
        arrays["strength"] = np.asarray(strength, float)
    if not isinstance(model.regularizer, str | None):
        own = {name: v for name, v in kind.get_params().items() if v is not None}
        params["regularizer"] = {"class": str(kind), "sparse": [k for k in own if issparse(own[k])]}
        for name, value in own.items():
            if issparse(value):  # its shape and entries
                at = value.tocoo()
                value = [[*at.shape, 0], *zip(at.row, at.col, at.data, strict=True)]
            arrays[f"regularizer_{name}"] = np.asarray(value, float)
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "class": type(model).__name__,
        "params": params,
        "metadata": getattr(model, "metadata_", {}) if metadata is None else metadata,
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            np.savez_compressed(file, header=np.array(json.dumps(header, default=_plain)), **arrays)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _plain(value):
    """NumPy's scalars and arrays as JSON has them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{value!r} cannot be saved in a model file: JSON has no such type.")


_FIELDS = fields(newton.Result)


def load_model(path):
    """Read a model that ``save_params`` or the command line wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, is not a model of fastglm, or is of a newer version.
    """
    from fastglm import glm

    data = _read_npz(path, "a model")
    try:
        header = json.loads(str(data["header"]))
        if header["format"] != _FORMAT:
            raise KeyError("format")
        version = int(header["version"])
        cls = {"GLM": glm.GLM, "PopulationGLM": glm.PopulationGLM}[header["class"]]
        params, metadata = dict(header["params"]), header["metadata"]
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{path} is not a model of fastglm; expected a file that save_params wrote."
        ) from None
    if version > _VERSION:
        raise ValueError(
            f"{path} has format version {version}; this fastglm reads up to {_VERSION}. Upgrade "
            "fastglm."
        )
    try:
        arrays = {f.name: data[f"result_{f.name}"] for f in _FIELDS}
        result = newton.Result(**arrays)
        n = result.intercept.size
        shapes = {name: a.shape for name, a in arrays.items() if name != "coef"}
        if result.coef.ndim != 2 or result.coef.shape[1] != n:
            raise ValueError(f"coef has shape {result.coef.shape} for {n} receivers")
        if any(shape != (n,) for shape in shapes.values()):
            raise ValueError(f"shapes {shapes} for {n} receivers")
        strength, ratio = (_number(data.get(name)) for name in ("strength", "ratio"))
        params["regularizer_strength"] = strength if ratio is None else (strength, ratio)
        if isinstance(params["regularizer"], dict):
            params["regularizer"] = _regularizer(data, **params["regularizer"])
        masks = {k[5:]: v for k, v in data.items() if k.startswith("mask_")}
        if masks or "mask" in data:
            params["feature_mask"] = masks or data["mask"]
        model = cls(**params)
        model._tolerances(), model._method(), model._link()  # raise on what no model has
        model._store(result)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is a damaged model file: {error}.") from None
    model.n_features_in_ = result.coef.shape[0]
    model.metadata_ = metadata
    return model


def _regularizer(data, sparse, **kind):
    """The regularizer that `save_model` wrote."""
    own = {k[12:]: _number(v) for k, v in data.items() if k.startswith("regularizer_")}
    for name in sparse:
        shape, (row, column, values) = own[name][0, :2].astype(int), own[name][1:].T
        at = row.astype(int), column.astype(int)
        own[name] = csr_array((values, at), shape=tuple(shape))
    return REGULARIZERS[kind["class"]](**own)


def _number(array):
    """An array of no dimensions as a number."""
    return array if array is None or array.ndim else float(array)


def _read_npz(path, what):
    """All arrays of an ``.npz`` file, without pickle."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except _UNREADABLE:
        raise ValueError(
            f"{path} could not be read as {what}: it is not an .npz file of plain arrays, or it "
            "is damaged."
        ) from None


# What NumPy, zipfile and zlib raise on a file that is not what its name says.
_UNREADABLE = (
    AttributeError,
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)
