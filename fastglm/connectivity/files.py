"""Maps of couplings in files: ``.npz`` without pickle, and tables."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from fastglm._checks import import_extra
from fastglm._files import check_output, check_version, describe, npz_path, read_npz, replacing
from fastglm.connectivity.couplings import CouplingMap
from fastglm.connectivity.empirical import Null
from fastglm.connectivity.sensitivity import Explained
from fastglm.observation_models import as_observation_model

_FORMAT, _VERSION = "fastglm-couplings", 1
_PAIRS = ("strength", "standard_error", "peak", "gain", "z", "delay", "p_value", "q_value")
_ROWS = 50_000  # of a table, that are numbers of Python at a time
_EXPLAINED = ("total", "part", "degrees")


def save_couplings(couplings: CouplingMap, path: str | Path) -> None:
    """Write a map to ``.npz``; see `CouplingMap.save`."""
    path = npz_path(path)
    arrays = {
        name: getattr(couplings, name) for name in (*_PAIRS, "same_channel", "kernel", "coef")
    }
    # What is absent by the status of a receiver stays so without the model.
    arrays["standard_error"] = np.where(couplings.absent, np.nan, couplings.standard_error)
    if not couplings.tested:
        arrays["strength"] = np.where(couplings.absent, np.nan, couplings.strength)
    if couplings.own is not None:
        arrays["own"] = couplings.own
    if couplings.mean_count is not None:
        arrays["mean_count"] = couplings.mean_count
    for name in _EXPLAINED:
        if getattr(couplings.explained, name) is not None:
            arrays[f"explained_{name}"] = getattr(couplings.explained, name)
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "senders": couplings.senders.tolist(),
        "receivers": couplings.receivers.tolist(),
        "first_filter": int(couplings.first_filter),
        "bin_size": couplings.bin_size,
        "family": [couplings.loss.family, couplings.loss.link],
        "null": asdict(couplings.null),
        "controls": couplings.controls,
        "settings": couplings.settings,
        "channel": couplings.channel,
        "why": couplings.explained.why,
    }
    arrays["header"] = np.array(json.dumps(header, default=_plain))
    with replacing(path) as file:
        np.savez_compressed(file, **arrays)


def _plain(value):
    """What JSON does not have: NumPy's numbers as numbers, anything else as text."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)


def write_table(couplings: CouplingMap, path: Path) -> None:
    """Write `CouplingMap.to_frame` to ``.csv``, which needs no pandas, or to ``.parquet``."""
    n = len(couplings.senders)
    step = max(1, _ROWS // max(len(couplings.receivers), 1))
    columns = couplings.columns()  # arrays; as numbers of Python they would take four times as much
    size = len(couplings.receivers) * step
    pieces = (
        {name: one[k * size : (k + 1) * size] for name, one in columns.items()}
        for k in range(max(1, -(-n // step)))
    )
    write_columns(pieces, path)


def write_columns(tables: Iterable[dict], path: Path) -> None:
    """Write tables of the same columns, one below the other, to ``.csv`` or ``.parquet``.

    Parameters
    ----------
    tables : iterable of dict
        Of names and of arrays or lists of one length. For ``.csv`` they are taken one by one.
    path : Path

    Raises
    ------
    ImportError
        If pandas or pyarrow is not installed, for ``.parquet``.
    ValueError
        If the path has another ending, or no file can be written there.
    """
    check_table(path)
    with replacing(path) as file:
        if path.suffix.lower() == ".parquet":
            frame_of(tables).to_parquet(file, index=False)
            return
        text = io.TextIOWrapper(file, "utf-8", newline="")
        rows = csv.writer(text, lineterminator="\n")
        try:
            for k, columns in enumerate(tables):
                if k == 0:
                    rows.writerow(columns)
                lists = (np.asarray(one).tolist() for one in columns.values())
                lists = (["" if v != v else v for v in one] for one in lists)
                rows.writerows(zip(*lists, strict=True))
        finally:
            text.detach()


def frame_of(tables: Iterable[dict]) -> object:
    """Tables of the same columns, one below the other, as a pandas DataFrame.

    If the ids of cells are numbers in one table and texts in another, they are texts in all.
    """
    pandas = import_extra("pandas")
    frame = pandas.concat([pandas.DataFrame(one) for one in tables], ignore_index=True)
    for name in {"sender", "receiver"}.intersection(frame.columns):
        if frame[name].dtype == object:
            frame[name] = frame[name].map(str)
    return frame


def check_table(path: Path) -> None:
    """Raise ValueError if no table can be written there, ImportError if a library is missing."""
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise ValueError(f"The table is {path}; expected it to end in .csv or .parquet.")
    if path.suffix.lower() == ".parquet":
        import_extra("pandas")
        import_extra("pyarrow")
    check_output(path)


def load_couplings(path: str | Path) -> CouplingMap:
    """Read a map of couplings that `CouplingMap.save` wrote.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    CouplingMap
        Its ``model``, ``uncertainty`` and ``synchrony`` are None: `CouplingMap.filters` has no
        bands.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, is not a map of fastglm, or is of a newer version.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np, fastglm
    >>> counts = np.random.default_rng(0).poisson(0.2, size=(2000, 3))
    >>> X = fastglm.basis.RaisedCosineLogConv(3, window_size=20).compute_features(counts)
    >>> couplings = fastglm.PopulationGLM().fit(X, counts).coupling_map(X, counts)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "couplings.npz")
    ...     couplings.save(path)
    ...     fastglm.load_couplings(path)
    CouplingMap of 3 senders x 3 receivers, 0 couplings with q <= 0.05
    """
    data = read_npz(path, "a map of couplings")
    try:
        header = json.loads(str(data.pop("header")))
        if header["format"] != _FORMAT:
            raise KeyError("format")
        version = int(header["version"])
    except Exception:  # whatever the values of a foreign header raise
        raise ValueError(
            f"{path} is not a map of fastglm; expected a file that CouplingMap.save wrote."
        ) from None
    check_version(path, version, _VERSION)
    try:
        return _read(header, data)
    except Exception as error:  # whatever foreign values raise on their way
        text = describe(error).removeprefix("ValueError: ").rstrip(".")
        raise ValueError(f"{path} is a damaged map of couplings: {text}.") from None


def _read(header, data):
    senders, receivers = np.array(header["senders"]), np.array(header["receivers"])
    shape, kernel, coef = (senders.size, receivers.size), data["kernel"], data["coef"]
    for name in (*_PAIRS, "same_channel"):
        kind = "b" if name == "same_channel" else "f"
        if data[name].shape != shape or data[name].dtype.kind != kind:
            raise ValueError(f"{name} has shape {data[name].shape} for {shape} cells")
    if kernel.ndim != 2 or coef.shape != (shape[0], kernel.shape[1], shape[1]):
        raise ValueError(f"coef has shape {coef.shape} for {shape} cells")
    mean_count = data.get("mean_count")
    if mean_count is not None and mean_count.shape != shape[1:]:
        raise ValueError(f"mean_count has shape {mean_count.shape} for {shape[1]} receivers")
    own = data.get("own")
    if own is not None and (own.shape != shape or own.dtype.kind != "b"):
        raise ValueError(f"own has shape {own.shape} for {shape} cells")
    explained = Explained(*(data.get(f"explained_{name}") for name in _EXPLAINED), header["why"])
    family, link = header["family"]
    return CouplingMap(
        **{name: data[name] for name in (*_PAIRS, "same_channel")},
        senders=senders, receivers=receivers, kernel=kernel, coef=coef,
        first_filter=int(header["first_filter"]), uncertainty=None, model=None,
        settings=dict(header["settings"]), loss=as_observation_model(family).loss(link),
        null=Null(**header["null"]), controls=dict(header["controls"]), explained=explained,
        channel=str(header["channel"]), bin_size=header["bin_size"], mean_count=mean_count, own=own,
    )  # fmt: skip
