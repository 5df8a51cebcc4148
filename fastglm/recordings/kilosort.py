"""Folders of Kilosort 2 to 4 and of Phy: what a sorter writes, and what a person made of it.

| file | what is read |
|---|---|
| ``spike_times.npy`` | sample of each spike |
| ``spike_clusters.npy``, else ``spike_templates.npy`` | its unit |
| ``params.py`` | sampling rate, and the raw file; parsed, never run |
| ``cluster_*.tsv``, ``cluster_*.csv`` | labels and other columns of the units |
| ``templates.npy`` and ``channel_map.npy`` | the channel of each unit |

Nothing is unpickled: ``ops.npy`` of Kilosort 4 is not opened.
"""

from __future__ import annotations

import ast
import csv
import logging
import warnings
from pathlib import Path

import numpy as np

from fastglm._checks import is_number
from fastglm._files import open_npy, read_npy
from fastglm.recordings.channels import largest_channel
from fastglm.recordings.table import Units, UnitTable

TIMES = "spike_times.npy"  # by which a folder is known
_KEYS = ("cluster_id", "id")  # names of the first column of a table of clusters
_WHAT = "spikes of Kilosort"

logger = logging.getLogger("fastglm")


def read_units(folder: Path, where: str | None = None, epochs: str | None = None) -> Units:
    """The units of a folder; without a condition all but those that are labelled as noise.

    A spike at sample n is at ``n / sample_rate`` seconds. The recording begins at 0 and ends with
    the raw file of ``params.py``, if that is there, else with the sample of the last spike.
    """
    params = _read_params(folder / "params.py")
    rate = params.get("sample_rate")
    if not (is_number(rate) and rate > 0):
        raise ValueError(
            f"{folder}: params.py is missing, or has no sample_rate above 0; write a file "
            "params.py with the line sample_rate = 30000., in Hz."
        )
    samples = _whole(folder / TIMES)
    if samples.min(initial=0) < 0:
        raise ValueError(
            f"{folder}: {TIMES} has {int((samples < 0).sum())} samples below 0, first "
            f"{samples[samples < 0][0]}; expected samples from the start of the recording."
        )
    templates = folder / "spike_templates.npy"
    path = folder / "spike_clusters.npy"
    clusters = _whole(path if path.is_file() else templates, samples.size)
    ids, unit = np.unique(clusters, return_inverse=True)
    columns = _columns(folder, ids)
    own = [columns[name] for name in ("channel", "ch") if None not in columns.get(name, [None])]
    if own:
        columns["channel"] = own[0]
    elif (folder / "templates.npy").is_file() and templates.is_file():
        shapes = _most_frequent(unit, _whole(templates, samples.size), len(ids))
        columns["channel"] = _channels(folder, shapes)
    order = np.argsort(unit, kind="stable")
    trains = np.split(samples[order] / float(rate), np.cumsum(np.bincount(unit))[:-1])
    stop = _n_samples(folder, params, int(samples.max(initial=0)) + 1) / float(rate)
    table = UnitTable(
        str(folder),
        trains if len(ids) else [],
        ids.tolist(),
        columns | {"cluster_id": ids.tolist()},
        [np.array([[0.0, stop]])] * len(ids),
        certain=True,
    )
    if where is None:
        table = _without_noise(table)
    return table.choose(where, epochs)


def _without_noise(table):
    """The table without units whose label, of a person or else of Kilosort, is noise."""
    labels = [
        group if group not in (None, "", "unsorted") else label
        for group, label in zip(*(table.column(name) for name in ("group", "KSLabel")), strict=True)
    ]
    keep = np.array([label != "noise" for label in labels], dtype=bool)
    if keep.all():
        return table
    if not keep.any():
        raise ValueError(
            f'{table.source}: all of {keep.size} units are labelled noise; where="group == '
            "'noise'\" takes them."
        )
    logger.info(
        f"{table.source}: {(~keep).sum()} of {keep.size} units are labelled noise and left out; a "
        "condition (where) takes their place."
    )
    return table.take(np.flatnonzero(keep))


# --- arrays ---


def _whole(path, size=None):
    """A file of whole numbers, one for each spike, int64."""
    if not path.is_file():
        raise ValueError(
            f"{path.parent} has no {path.name}; expected a folder of Kilosort or Phy, with "
            f"{TIMES}, spike_clusters.npy (or spike_templates.npy) and params.py."
        )
    values = read_npy(path, _WHAT)
    if values.dtype.kind not in "iuf" or values.size != max(values.shape, default=0):
        raise ValueError(
            f"{path} has shape {values.shape} and dtype {values.dtype}; expected a whole number "
            "for each spike."
        )
    values = values.ravel()
    with np.errstate(invalid="ignore"):
        whole = values.astype(np.int64)
    if not (whole == values).all():
        raise ValueError(
            f"{path} holds numbers that are not whole; expected "
            f"{'samples, not seconds' if path.name == TIMES else 'numbers of units'}."
        )
    if size is not None and whole.size != size:
        raise ValueError(
            f"{path} has {whole.size} entries and {TIMES} {size}; expected one for each spike."
        )
    return whole


# --- params.py ---


def _read_params(path):
    """Assignments of plain values in ``params.py``, as a dict; all else in it is passed over."""
    if not path.is_file():
        return {}
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"{path} could not be read: it is not a file of Python.") from None
    params = {}
    for line in tree.body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            try:
                params[line.targets[0].id] = ast.literal_eval(line.value)
            except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
                continue
    return params


def _n_samples(folder, params, least):
    """Samples of the recording: of its raw files, if they are there, else the least number."""
    found = _raw_samples(folder, params)
    if 0 < found < least:
        warnings.warn(
            f"{folder}: the raw file of params.py has {found:,} samples, and the last spike is at "
            f"sample {least - 1:,}; the recording ends with that spike.",
            UserWarning,
            stacklevel=5,
        )
    return max(found, least)


def _raw_samples(folder, params):
    """Samples of the raw files that the parameters name; 0 if that is not known."""
    paths, n_channels = params.get("dat_path"), params.get("n_channels_dat")
    paths = paths if isinstance(paths, list | tuple) else [paths]
    try:
        frame = np.dtype(params.get("dtype", "V0")).itemsize * n_channels
        sizes = [(folder / path).stat().st_size for path in paths if (folder / path).is_file()]
        if len(sizes) < len(paths) or not frame > 0:
            return 0
        return sum(int(size - params.get("offset", 0)) // frame for size in sizes)
    except (OSError, TypeError, ValueError, SyntaxError, OverflowError):
        return 0  # the values are not those of Phy


# --- columns ---


def _columns(folder, ids):
    """Columns of all tables of clusters; those of a table of their own go before cluster_info."""
    paths = [path for ending in ("tsv", "csv") for path in folder.glob(f"cluster_*.{ending}")]
    place = {int(name): k for k, name in enumerate(ids)}
    columns = {}
    for path in sorted(paths, key=lambda path: (path.stem != "cluster_info", path.name)):
        for name, values in _read_clusters(path).items():
            column = columns.setdefault(name, [None] * len(ids))
            for cluster, value in values.items():
                if cluster in place and value is not None:
                    column[place[cluster]] = value
    return columns


def _read_clusters(path):
    """Columns of one table, each a dict of cluster to value."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
        rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} could not be read as a table of clusters: {error}.") from None
    names = rows[0] if rows else []
    key = next((names.index(name) for name in _KEYS if name in names), None)
    if key is None:
        raise ValueError(
            f"{path} has the columns {names}; expected {' or '.join(_KEYS)} and columns of units."
        )
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(names) or not row[key].strip().isdecimal():
            raise ValueError(
                f"{path}: row {number} is {row[:5]}; expected the number of a cluster and "
                f"{len(names) - 1} more values."
            )
    clusters = [int(row[key]) for row in rows[1:]]
    return {
        name: dict(zip(clusters, _as_values([row[k] for row in rows[1:]]), strict=True))
        for k, name in enumerate(names)
        if k != key
    }


def _as_values(texts):
    """Texts of a column as numbers, if all that are not empty are numbers; empty ones are None."""
    texts = [text.strip() or None for text in texts]
    for kind in (int, float):
        try:
            return [None if text is None else kind(text) for text in texts]
        except ValueError:
            continue
    return texts


# --- channels ---


def _most_frequent(unit, template, n_units):
    """The template that most spikes of each unit have."""
    names, number = np.unique(template, return_inverse=True)
    pairs, counts = np.unique(unit * names.size + number, return_counts=True)
    own, number = np.divmod(pairs, max(names.size, 1))
    order = np.lexsort((counts, own))
    last = np.searchsorted(own[order], np.arange(n_units), side="right") - 1
    return names[number[order[last]]]


def _channels(folder, shapes):
    """The channel where each of some templates is largest, as numbers of the raw file."""
    path = folder / "templates.npy"
    templates = open_npy(path, _WHAT)
    if templates.ndim != 3 or templates.dtype.kind not in "fiu":
        raise ValueError(
            f"{path} has shape {templates.shape}; expected (n_templates, n_samples, n_channels)."
        )
    if shapes.size and not (shapes.min() >= 0 and shapes.max() < len(templates)):
        raise ValueError(
            f"{folder}: spike_templates.npy goes from {shapes.min()} to {shapes.max()}, and "
            f"templates.npy has {len(templates)} templates."
        )
    index = _optional(folder / "template_ind.npy", folder / "templates_ind.npy")
    if index is not None and index.shape != (len(templates), templates.shape[2]):
        raise ValueError(
            f"{folder}: the channels of the templates have shape {index.shape}; expected "
            f"{(len(templates), templates.shape[2])}."
        )
    numbers = _optional(folder / "channel_map.npy")
    channels = []
    for shape in shapes:
        own = None if index is None else index[shape].astype(np.int64)
        channel = largest_channel(templates[shape], own)
        known = numbers is not None and 0 <= channel < numbers.size
        channels.append(int(numbers.flat[channel]) if known else channel)
    return channels


def _optional(*paths):
    """The first array that is there, of whole numbers; None without one."""
    for path in filter(Path.is_file, paths):
        values = read_npy(path, _WHAT)
        known = values.dtype.kind in "iuf" and (np.abs(values.astype(np.float64)) < 2**31).all()
        if not (known and (values == np.round(values)).all()):
            raise ValueError(f"{path} has dtype {values.dtype}; expected numbers of channels.")
        return values
    return None
