"""Units of NWB files: spike times, ids, and when they were observed.

Files are read with h5py alone. The units table is five data sets of an HDF5 file, and their layout
has not changed since NWB 2.0. PyNWB would bring pandas and the schemas of all extensions, and would
read the whole file.
"""

from __future__ import annotations

import ast
import operator
from typing import TYPE_CHECKING

import numpy as np

from fastglm._pynapple import intersect

if TYPE_CHECKING:
    from pathlib import Path

_COMPARISONS = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: np.isin(a, b),
    ast.NotIn: lambda a, b: ~np.isin(a, b),
}


def read_units(
    path: Path, where: str | None = None, epochs: str | None = None
) -> tuple[np.ndarray, np.ndarray, list, np.ndarray | None, tuple[float, float]]:
    """Spike times, their units, ids, observed intervals and range of the units of a file.

    Parameters
    ----------
    path : Path
        An existing file.
    where : str, optional
        Condition on columns of the units table.
    epochs : None, "obs" or the name of a table of intervals, such as "trials"
        None takes the observed intervals, if the file has some.

    Returns
    -------
    spike_times, unit, ids, segments, (t_start, t_stop)
        ``segments`` is None if the file does not say when the units were observed.
    """
    try:
        import h5py
    except ImportError:
        raise ImportError("NWB files need h5py: pip install 'fastglm[nwb]'") from None
    try:
        file = h5py.File(path, "r")
    except OSError:
        raise ValueError(
            f"{path} could not be read as NWB: it is not an HDF5 file, or it is damaged."
        ) from None
    with file:
        table = file.get("units")
        if table is None or "spike_times" not in table or "id" not in table:
            raise ValueError(f"{path} has no table of units with spike times.")
        ids = table["id"][()]
        chosen = np.arange(ids.size)
        if where is not None:
            chosen = np.flatnonzero(_select(where, _columns(file, table, ids.size, h5py), path))
        if chosen.size == 0:
            raise ValueError(f"{path} has no units.")
        first, stop = _ranges(table, "spike_times")
        times = table["spike_times"]
        spikes = [times[first[k] : stop[k]] for k in chosen]
        segments = _observed(table, chosen, ids, path)
        if epochs == "obs" and segments is None:
            raise ValueError(f"{path} has no obs_intervals; use epochs='trials', or none.")
        if epochs not in (None, "obs"):
            given = _intervals(file, epochs, path)
            segments = given if segments is None else intersect(given, segments)
        if segments is not None and len(segments) == 0:
            raise ValueError(
                f"{path}: there is no time in the epochs when all {chosen.size} units were "
                "observed. Select units that were recorded together with `where`."
            )
        some = np.flatnonzero(stop > first)
        ends = np.concatenate([times[np.unique(first[some])], times[np.unique(stop[some] - 1)]])
    ends = np.concatenate([ends, [] if segments is None else segments.ravel()])
    if ends.size == 0:
        raise ValueError(f"{path} has no spikes.")
    unit = np.repeat(np.arange(chosen.size), [s.size for s in spikes])
    return np.concatenate(spikes), unit, ids[chosen].tolist(), segments, (ends.min(), ends.max())


def _ranges(table, name):
    """First entry and one past the last of every row of a ragged column."""
    stop = table[f"{name}_index"][()].astype(np.int64)
    return np.concatenate([[0], stop[:-1]]), stop


def _observed(table, chosen, ids, path):
    """Intervals in which all chosen units were observed; None if the file does not say."""
    if "obs_intervals" not in table:
        return None
    first, stop = _ranges(table, "obs_intervals")
    values, common, seen = table["obs_intervals"][()], None, set()
    for k in chosen:
        own = values[first[k] : stop[k]]
        if own.tobytes() in seen:  # most often all units have the same intervals
            continue
        seen.add(own.tobytes())
        own = _ascending(own, f"{path}: obs_intervals of unit {ids[k]}")
        common = own if common is None else intersect(common, own)
    return common


def _intervals(file, name, path):
    """Start and stop of every row of a table of intervals."""
    tables = file.get("intervals", {})
    table = tables.get(name)
    if table is None or "start_time" not in table:
        raise ValueError(
            f"{path} has no intervals {name!r}; expected 'obs' or one of {sorted(tables)}."
        )
    values = np.column_stack([table["start_time"][()], table["stop_time"][()]])
    return _ascending(values[np.isfinite(values).all(axis=1)], f"{path}: {name}")


def _ascending(values, name):
    """Intervals in order of time."""
    values = values[np.argsort(values[:, 0], kind="stable")]
    if (values[1:, 0] < values[:-1, 1]).any():
        raise ValueError(f"{name} overlap in time; expected intervals that follow each other.")
    return values


def _columns(file, table, n_units, h5py):
    """Columns with one number, truth value or text for each unit."""
    columns = {}
    for name, data in table.items():
        if not isinstance(data, h5py.Dataset) or data.shape != (n_units,):
            continue
        if f"{name}_index" in table or name.removesuffix("_index") in table.keys() - {name}:
            continue
        if h5py.check_string_dtype(data.dtype) is not None:
            columns[name] = data.asstr()[()].astype(str)
        elif "elements" in data.attrs:  # indices into a list of names
            columns[name] = file[data.attrs["elements"]].asstr()[()].astype(str)[data[()]]
        elif data.dtype.kind in "fiub":
            columns[name] = data[()]
    return columns


def _select(where, columns, path):
    """The units that a condition keeps, a boolean array."""
    n_units = columns["id"].size
    try:
        node = ast.parse(where.strip(), mode="eval").body
    except SyntaxError:
        raise ValueError(
            f"where is {where!r}, which is no condition; expected one such as \"quality == 'good'\""
            " or \"rate > 0.5 and area in ['CA1', 'CA3']\"."
        ) from None
    try:
        keep = np.asarray(_evaluate(node, columns, where, path))
    except TypeError:
        keep = np.array(None)
    if keep.dtype != bool or keep.shape != (n_units,):
        raise ValueError(
            f"where is {where!r}, which is not True or False for each unit; compare columns with "
            "values of their kind, and put parentheses around comparisons beside & and |."
        )
    if not keep.any():
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        values = "; ".join(
            f"{name} is {', '.join(map(str, np.unique(columns[name])[:8]))}"
            for name in sorted(names)
        )
        raise ValueError(f"{path}: none of {n_units} units has {where}. There, {values}.")
    return keep


def _evaluate(node, columns, where, path):
    """Value of an expression of names of columns, constants, comparisons, and, or and not."""

    def value(n):
        return _evaluate(n, columns, where, path)

    if isinstance(node, ast.Name):
        if node.id not in columns:
            raise ValueError(
                f"{path} has no column {node.id!r} with one value a unit; it has "
                f"{', '.join(sorted(columns))}."
            )
        return columns[node.id]
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        return [value(n) for n in node.elts]
    if isinstance(node, ast.BoolOp):
        combine = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        return combine.reduce([_truth(value(n)) for n in node.values])
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr):
        combine = np.logical_and if isinstance(node.op, ast.BitAnd) else np.logical_or
        return combine(_truth(value(node.left)), _truth(value(node.right)))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert):
        return ~_truth(value(node.operand))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -value(node.operand)
    if isinstance(node, ast.Compare) and all(type(op) in _COMPARISONS for op in node.ops):
        terms = [value(n) for n in (node.left, *node.comparators)]
        pairs = zip(node.ops, terms[:-1], terms[1:], strict=True)
        return np.logical_and.reduce([_COMPARISONS[type(op)](a, b) for op, a, b in pairs])
    raise ValueError(
        f"where is {where!r}, which has {ast.unparse(node)!r}; expected names of columns, numbers, "
        "texts, comparisons, in, and, or, not."
    )


def _truth(values):
    if np.asarray(values).dtype != bool:
        raise TypeError
    return np.asarray(values)
