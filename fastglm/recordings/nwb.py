"""Units of NWB files: spike times, ids, and when they were observed.

Files are read with h5py alone. The units table is five data sets of an HDF5 file, and their layout
has not changed since NWB 2.0. PyNWB would bring pandas and the schemas of all extensions, and would
read the whole file.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastglm._pynapple import intersect
from fastglm.recordings.intervals import ends_after_start, in_order, merge, overlap

INVALID = "invalid_times"  # the table of NWB that says when data are not to be used
_RATIO = 1100  # gzip shrinks at most 1,032-fold; a data set that claims more is only declared
_SMALL = 1 << 20  # bytes that may be declared without being stored
_TEXTS = 1 << 25  # bytes of texts that are read before their length is looked at
_SHOWN = 5  # units that a warning names

_DEEPEST = 50  # levels of a condition
_UNFIT = TypeError, OverflowError  # of NumPy, where values of different kinds are compared
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


@dataclass
class Units:
    """What `read_units` finds in a file.

    Attributes
    ----------
    path : str
        Name of the file, for errors.
    spike_times : ndarray, shape (n_spikes,)
        Seconds, ascending within each unit.
    unit : ndarray of int, shape (n_spikes,)
    ids : list
    segments : ndarray of shape (n_segments, 2) or None
        None if the file does not say when the units were observed.
    invalid : ndarray of shape (n_intervals, 2)
        Times that the file calls invalid, ascending.
    t_start, t_stop : float
        Range of the spikes of the whole file and of the segments.
    n_spikes, n_active : int
        Spikes of the whole file, and its units with spikes.
    columns : dict of str to list
        Columns with one value for each unit.
    """

    path: str
    spike_times: np.ndarray
    unit: np.ndarray
    ids: list
    segments: np.ndarray | None
    invalid: np.ndarray
    t_start: float
    t_stop: float
    n_spikes: int
    n_active: int
    columns: dict


def read_units(source: object, where: str | None = None, epochs: str | None = None) -> Units:
    """Spike times, ids, observed intervals and range of the units of a file.

    Parameters
    ----------
    source : Path, h5py.File or binary file object
    where : str, optional
        Condition on columns of the units table.
    epochs : None, "obs" or the name of a table of intervals, such as "trials"
        None takes the observed intervals, if the file has some.
    """
    with _opened(source) as (file, path):
        table, ids = _units_table(file, path)
        chosen = np.arange(ids.size)
        if where is not None:
            columns = _columns(file, table, ids.size, path)
            chosen = np.flatnonzero(_select(where, columns, path))
        if chosen.size == 0:
            raise ValueError(f"{path} has no units.")
        first, stop = _ranges(table, "spike_times", ids.size, path)
        times = table["spike_times"]
        _check_stored(times, int((stop - first)[chosen].sum()), path)
        with _reading(path):
            spikes = [times[first[k] : stop[k]] for k in chosen]
        spikes = _in_order_of_time(spikes, ids[chosen].tolist(), path)
        segments = _segments(file, table, chosen, ids, epochs, path)
        invalid = _table_of_intervals(file, INVALID, path)
        others = np.setdiff1d(np.flatnonzero(stop > first), chosen)
        ends = _ends(times, first[others], stop[others], path)
        columns = _columns_of(file, table, chosen, ids.size, path)
    spike_times = np.concatenate(spikes)
    known = [t for t in (ends, spike_times, segments) if t is not None and t.size]
    if not known:
        raise ValueError(f"{path} has no spikes.")
    return Units(
        path,
        spike_times,
        np.repeat(np.arange(chosen.size), [s.size for s in spikes]),
        ids[chosen].tolist(),
        segments,
        np.zeros((0, 2)) if invalid is None else merge(invalid),
        min(float(t.min()) for t in known),
        max(float(t.max()) for t in known),
        int((stop - first).sum()),
        int((stop > first).sum()),
        columns,
    )


# --- files ---


@contextmanager
def _opened(source) -> Iterator[tuple[object, str]]:
    """The file and its name; a file that was given open stays open."""
    try:
        import h5py
    except ImportError:
        raise ImportError("NWB files need h5py: pip install 'fastglm[nwb]'") from None
    if isinstance(source, h5py.Group):
        if not source:
            raise ValueError("The h5py.File is closed; open it again, or give its path.")
        yield source, f"{source.file.filename}"
        return
    path = str(source if isinstance(source, Path) else getattr(source, "name", source))
    try:
        file = h5py.File(source, "r")
    except Exception as error:  # a file object may raise anything
        raise ValueError(f"{path} could not be read as NWB: {_reason(error)}") from None
    with file:
        yield file, path


def _reason(error):
    """Why HDF5 could not open a file, and what to do."""
    text = str(error)
    if "lock" in text:
        return (
            "another process holds a lock on it, because it is open for writing there (a "
            "notebook?). Close it there, or read a copy of the file."
        )
    if "already open" in text:
        return (
            "it is open for writing, here or in another process, or was not closed. Close it "
            "there; after a crash, h5clear -s FILE takes the mark away."
        )
    if isinstance(error, PermissionError):
        return "permission denied."
    return "it is not an HDF5 file, or it is damaged."


@contextmanager
def _reading(path):
    """Any error of h5py as a ValueError that names the file; h5py raises many types."""
    try:
        yield
    except Exception as error:
        text = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} could not be read as NWB: it is damaged ({text}).") from None


def _values(data, path):
    """Values of a data set; raises ValueError if it is damaged, or larger than what is stored."""
    _check_stored(data, data.size, path)
    with _reading(path):
        return data[()]


def _check_stored(data, n_values, path):
    """Raise ValueError if so many values of a data set are more than the file holds."""
    with _reading(path):
        declared = n_values * data.dtype.itemsize
        stored = declared if data.is_virtual else data.id.get_storage_size()
    if declared > _SMALL + _RATIO * stored:
        raise ValueError(
            f"{path} could not be read as NWB: {data.name} declares {declared:.3g} bytes and holds "
            f"{stored}."
        )


def _column(table, name, path, kinds="fiu"):
    """A data set of numbers; None if the table has none of that name."""
    with _reading(path):
        if name not in table:
            return None
        data = table[name]
        known = hasattr(data, "dtype") and data.dtype.kind in kinds
    if not known:
        raise ValueError(f"{path}: {name} does not hold numbers.")
    return data


def _units_table(file, path):
    """The table of units and the ids of its rows."""
    with _reading(path):
        table = file.get("units", {})
        found = hasattr(table, "items") and "spike_times" in table and "id" in table
    if not found:
        raise ValueError(f"{path} has no table of units with spike times.")
    times = _column(table, "spike_times", path)
    if times.ndim != 1:
        raise ValueError(f"{path}: spike_times has shape {times.shape}; expected (n_spikes,).")
    ids = _values(_column(table, "id", path, kinds="fiuOS"), path)
    if ids.ndim != 1:
        raise ValueError(f"{path}: id has shape {ids.shape}; expected one id for each unit.")
    return table, ids


def _ranges(table, name, n_units, path):
    """First entry and one past the last of every row of a ragged column."""
    with _reading(path):
        size = table[name].shape[0]
    index = _column(table, f"{name}_index", path, kinds="iu")
    if index is None:
        if n_units != 1:
            raise ValueError(
                f"{path} has no column {name}_index, which says where the {name} of each of its "
                f"{n_units} units end. Write the file with that column, or pass the spike times of "
                "each unit as arrays."
            )
        return np.array([0]), np.array([size])
    stop = _values(index, path).astype(np.int64)
    first = np.concatenate([[0], stop.ravel()])[:-1]
    if stop.shape != (n_units,) or (stop < first).any() or (stop > size).any():
        raise ValueError(
            f"{path}: {name}_index has {stop.size} entries, of which some do not fit {n_units} "
            f"units and {size} {name}; expected numbers that ascend to {size}."
        )
    return first, stop


# --- spikes ---


def _in_order_of_time(spikes, ids, path):
    """Spike times of units, each ascending; one warning names those that were not."""
    unsorted = []
    for k, times in enumerate(spikes):
        times = spikes[k] = times if times.dtype.kind == "f" else times.astype(np.float64)
        bad = _placeholders(times)
        if bad:
            raise ValueError(
                f"{path}: spike_times of unit {ids[k]} hold {bad}, which looks like a placeholder "
                f'and no spike. Leave the unit out with where="id != {ids[k]!r}", or pass the '
                "spike times of each unit as arrays, without it."
            )
        if (np.diff(times) < 0).any():
            spikes[k] = np.sort(times)
            unsorted.append(ids[k])
    if unsorted:
        warnings.warn(
            f"{path}: spike_times of {_listed(unsorted)} were not in order of time; they were "
            "sorted.",
            UserWarning,
            stacklevel=5,
        )
    return spikes


def _placeholders(times):
    """Description of values that stand for no spike; empty if there are none.

    These are NaN and infinity; a whole number as only negative time, unless all times are whole and
    in order; and zeros after times that are in order without them.
    """
    if not np.isfinite(times).all():
        return f"NaN or infinity ({int((~np.isfinite(times)).sum())} of {times.size})"
    in_order = (np.diff(times) >= 0).all()
    low, count = np.unique(times[times < 0], return_counts=True)
    if low.size == 0 and not in_order and (np.diff(times[times > 0]) >= 0).all():
        low, count = np.zeros(1), [(times == 0).sum()]
    if low.size != 1 or low[0] != np.round(low[0]):
        return ""
    if in_order and times.size > 1 and (times == np.round(times)).all():
        return ""
    return f"{low[0]:g} ({count[0]} of {times.size})"


def _ends(times, first, stop, path):
    """Times of the first and last spike of units that are not read, where they can be spikes."""
    if first.size == 0:
        return np.zeros(0)
    with _reading(path):
        ends = np.column_stack([times[first], times[stop - 1]])
    ends = ends[np.isfinite(ends).all(axis=1) & (ends[:, 0] <= ends[:, 1])].ravel()
    return ends[(ends >= 0) | (ends != np.round(ends))]  # see `_placeholders`


def _listed(ids):
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return f"unit{'s' * (len(ids) > 1)} {', '.join(map(str, ids[:_SHOWN]))}{more}"


# --- intervals ---


def _segments(file, table, chosen, ids, epochs, path):
    """The observed times of the chosen units inside the epochs; None if the file has neither."""
    segments = _observed(table, chosen, ids, path)
    if epochs == "obs" and segments is None:
        raise ValueError(f"{path} has no obs_intervals; use epochs='trials', or none.")
    if epochs not in (None, "obs"):
        given = _table_of_intervals(file, epochs, path)
        if given is None:
            with _reading(path):
                names = sorted(file.get("intervals", {}))
            raise ValueError(
                f"{path} has no intervals {epochs!r}; expected 'obs' or one of {names}."
            )
        if overlap(given):
            raise ValueError(
                f"{path}: {epochs} overlap in time; expected intervals that follow each other."
            )
        if len(given) == 0:
            raise ValueError(f"{path}: no row of {epochs} ends after its start.")
        segments = given if segments is None else intersect(given, segments)
    if segments is not None and len(segments) == 0:
        raise ValueError(
            f"{path}: there is no time in the epochs when all {chosen.size} units were observed. "
            "Select units that were recorded together with `where`."
        )
    return segments


def _observed(table, chosen, ids, path):
    """Intervals in which all chosen units were observed; None if the file does not say."""
    data = _column(table, "obs_intervals", path)
    if data is None:
        return None
    first, stop = _ranges(table, "obs_intervals", ids.size, path)
    values, common, merged = _values(data, path), None, []
    if values.ndim != 2 or values.shape[1] != 2:
        raise ValueError(f"{path}: obs_intervals have shape {values.shape}; expected (n, 2).")
    values = values.astype(np.float64)
    rows = np.concatenate([np.arange(first[k], stop[k]) for k in chosen])
    keep = np.zeros(len(values), bool)
    keep[rows] = ends_after_start(values[rows], f"{path}: obs_intervals", rows)
    seen = {}  # most often all units have the same intervals
    for k in chosen:
        own = values[first[k] : stop[k]][keep[first[k] : stop[k]]]
        key = own.tobytes()
        if key not in seen:
            own = in_order(own)
            seen[key] = overlap(own)
            own = merge(own)
            common = own if common is None else intersect(common, own)
        if seen[key]:
            merged.append(ids[k])
    if merged:
        warnings.warn(
            f"{path}: obs_intervals of {_listed(merged)} overlap; they were merged.",
            UserWarning,
            stacklevel=6,
        )
    return common


def _table_of_intervals(file, name, path):
    """Start and stop of every row of a table, in order of time; None if there is no such table."""
    with _reading(path):
        table = file.get(f"intervals/{name}", {})
        found = hasattr(table, "items") and "start_time" in table and "stop_time" in table
    if not found:
        return None
    bounds = [_values(_column(table, f"{end}_time", path), path) for end in ("start", "stop")]
    if bounds[0].ndim != 1 or bounds[0].shape != bounds[1].shape:
        raise ValueError(
            f"{path}: {name} has {bounds[0].shape} starts and {bounds[1].shape} stops."
        )
    values = np.column_stack(bounds).astype(np.float64)
    return in_order(values[ends_after_start(values, f"{path}: {name}")])


# --- conditions on columns ---


def _columns(file, table, n_units, path):
    """Columns with one number, truth value or text for each unit.

    Texts are objects: an array of the longest one's width takes memory that no file holds.
    """
    found = _datasets(table, n_units, path)
    values = {name: _values_or_texts(file, data, path) for name, data in found.items()}
    return {name: value for name, value in values.items() if value is not None}


def _datasets(table, n_units, path):
    """Data sets with one entry for each unit."""
    import h5py

    with _reading(path):
        found = {name: one for name, one in table.items() if isinstance(one, h5py.Dataset)}
        found = {name: one for name, one in found.items() if one.shape == (n_units,)}
        ragged = {name for name in table if f"{name}_index" in table}
    return {
        name: one
        for name, one in found.items()
        if name not in ragged and name.removesuffix("_index") not in ragged
    }


def _values_or_texts(file, data, path):
    """Numbers, truth values or texts of a data set; None if it holds none of them."""
    import h5py

    if h5py.check_string_dtype(data.dtype) is not None:
        return _texts(data, path)
    if "elements" in data.attrs:  # indices into a list of names
        with _reading(path):
            names = file[data.attrs["elements"]]
        names, values = _texts(names, path), _values(data, path)
        with _reading(path):
            return names[values]
    return _values(data, path) if data.dtype.kind in "fiub" else None


def _columns_of(file, table, chosen, n_units, path):
    """Columns with one value for each chosen unit, lists; those that are damaged are left out.

    Columns of links hold the names of what they link to, such as the groups of electrodes. The
    electrodes of a unit are one text.
    """
    columns = {}
    try:
        found = _datasets(table, n_units, path)
    except ValueError:
        return columns
    for name in dict.fromkeys([*found, "electrodes"]):
        try:
            if name in found:
                values = _linked(file, found[name], path)
            else:
                values = _electrodes(table, n_units, path)
            if values is not None and name != "id":
                columns[name] = np.asarray(values)[chosen].tolist()
        except (ValueError, IndexError):
            continue  # what was not asked for does not stop the reading of spikes
    return columns


def _linked(file, data, path):
    """Values of a data set; of links the names of what they link to."""
    import h5py

    if h5py.check_ref_dtype(data.dtype) is not h5py.Reference:
        return _values_or_texts(file, data, path)
    links = _values(data, path)
    with _reading(path):
        return [file[one].name.rpartition("/")[2] for one in links]


def _electrodes(table, n_units, path):
    """Numbers of the electrodes of every unit, as texts; None if the table has none."""
    values = _column(table, "electrodes", path)
    if values is None:
        return None
    first, stop = _ranges(table, "electrodes", n_units, path)
    values = _values(values, path)
    return [" ".join(map(str, np.sort(values[a:b]))) for a, b in zip(first, stop, strict=True)]


def _texts(data, path):
    """Texts of a data set, an array of objects; raises ValueError as `_values` does.

    A text of variable length stands elsewhere in the file, and many entries may refer to one. They
    are read in parts, until they are longer than the file.
    """
    with _reading(path):
        texts = data.asstr()
        size = data.file.id.get_filesize()
    _check_stored(data, data.size, path)
    if data.ndim != 1 or data.dtype.kind != "O":
        with _reading(path):
            return texts[()]
    parts, n_read, step = [], 0, max(_TEXTS // max(size, 1), 8)
    for first in range(0, data.size, step):
        with _reading(path):
            parts.append(texts[first : first + step])
        n_read += sum(map(len, parts[-1]))
        if n_read > _SMALL + size:
            raise ValueError(
                f"{path} could not be read as NWB: the texts of {data.name} are longer than the "
                f"file, which holds {size} bytes."
            )
    return np.concatenate([np.zeros(0, object), *parts])


def _select(where, columns, path):
    """The units that a condition keeps, a boolean array."""
    n_units = columns["id"].size
    node = _parse(where)
    try:
        keep = np.asarray(_evaluate(node, columns, where, path))
    except _UNFIT:
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


def _parse(where):
    """The tree of a condition; raises if it is none, or is nested too deeply to be evaluated."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # of escapes that are none
            node = ast.parse(where.strip(), mode="eval").body
    except (AttributeError, SyntaxError, ValueError, RecursionError, MemoryError):
        node = None
    level, depth = [node] if node else [], 0
    while level and depth <= _DEEPEST:
        level, depth = [n for one in level for n in ast.iter_child_nodes(one)], depth + 1
    if node is None or level:
        text = repr(where)
        raise ValueError(
            f"where is {text if len(text) < 200 else text[:200] + '...'}, which is no condition; "
            "expected one such as \"quality == 'good'\" or \"rate > 0.5 and area in ['CA1', "
            f"'CA3']\", at most {_DEEPEST} levels deep."
        )
    return node


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
    if isinstance(node, ast.List | ast.Tuple) and not any(
        isinstance(n, ast.List | ast.Tuple) for n in node.elts
    ):
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
        return np.logical_and.reduce([_compare(op, a, b) for op, a, b in pairs])
    raise ValueError(
        f"where is {where!r}, which has {ast.unparse(node)!r}; expected names of columns, numbers, "
        "texts, comparisons, in, and, or, not."
    )


def _compare(op, a, b):
    """A comparison of columns and constants."""
    try:
        return _COMPARISONS[type(op)](a, b)
    except ValueError:  # arrays of different shape
        raise TypeError from None


def _truth(values):
    if np.asarray(values).dtype != bool:
        raise TypeError
    return np.asarray(values)
