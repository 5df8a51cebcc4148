"""Conditions on the columns of units, such as ``quality == 'good' and rate > 0.5``.

A condition is parsed and evaluated here, and never run as code.
"""

from __future__ import annotations

import ast
import operator
import warnings

import numpy as np

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


def select(where: str, columns: dict[str, np.ndarray], source: str) -> np.ndarray:
    """The units that a condition keeps, a boolean array.

    Parameters
    ----------
    where : str
        Names of columns, numbers, texts, comparisons, ``in``, ``and``, ``or`` and ``not``.
    columns : dict of str to ndarray of shape (n_units,)
        One of them is ``id``.
    source : str
        Name of the recording, for errors.

    Raises
    ------
    ValueError
        If the condition is none, does not fit the columns, or keeps no unit.
    """
    n_units = columns["id"].size
    node = _parse(where)
    try:
        keep = np.asarray(_evaluate(node, columns, where, source))
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
        raise ValueError(f"{source}: none of {n_units} units has {where}. There, {values}.")
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


def _evaluate(node, columns, where, source):
    """Value of an expression of names of columns, constants, comparisons, and, or and not."""

    def value(n):
        return _evaluate(n, columns, where, source)

    if isinstance(node, ast.Name):
        if node.id not in columns:
            raise ValueError(
                f"{source} has no column {node.id!r} with one value a unit; it has "
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
