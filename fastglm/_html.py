"""HTML for notebooks: small tables that take the colours of the page around them.

Styles are inline, because notebook viewers remove style sheets. The only colour is a transparent
grey, which suits light and dark pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_LINE = "1px solid rgba(128,128,128,.35)"
_CELL = f"padding:.15em 1em .15em 0;border:0;border-bottom:{_LINE};vertical-align:top;"
_MOST_ROWS = 30


def table(
    title: str, rows: list, head: Sequence[str] | None = None, note: str = "", below: str = ""
) -> str:
    """A table of escaped texts; with a head, columns of numbers are aligned to the right.

    Parameters
    ----------
    title, note : str
        Texts above and below the table.
    rows : list of sequences of str
    head : sequence of str, optional
    below : str
        HTML under the table, not escaped.
    """
    left_out = len(rows) - _MOST_ROWS
    if left_out > 0:
        rows, note = rows[:_MOST_ROWS], f"{left_out:,} more rows. {note}".strip()
    sides = [
        "right" if head is not None and all(map(_is_number, column)) else "left"
        for column in zip(*rows, strict=True)
    ]
    lines = [("td", "", row) for row in rows]
    if head is not None and rows:
        lines.insert(0, ("th", "opacity:.7;font-weight:600;", head))
    body = ""
    for tag, style, texts in lines:
        body += '<tr style="background:none">'
        for text, side in zip(texts, sides, strict=True):
            body += f'<{tag} style="{_CELL}text-align:{side};{style}">{escape(text)}</{tag}>'
        body += "</tr>"
    style = "border-collapse:collapse;border:0;margin:.3em 0;font-variant-numeric:tabular-nums"
    inner = f'<table style="{style}"><tbody>{body}</tbody></table>' if body else ""
    note = f'<div style="opacity:.7">{escape(note)}</div>' if note else ""
    return (
        '<div class="fastglm" style="overflow-x:auto;line-height:1.4">'
        f"<strong>{escape(title)}</strong>{inner}{below}{note}</div>"
    )


def _is_number(text):
    return text[:1] in set("-+0123456789\N{EN DASH}") and " " not in text


def curves(values: np.ndarray, width: int = 240, height: int = 56) -> str:
    """Columns of an array over its rows, as a small drawing in the colour of the text."""
    n_points, n = values.shape
    low, high = min(values.min(), 0.0), values.max()
    scale = (height - 4) / ((high - low) or 1.0)
    lines = []
    for k, column in enumerate(values.T):
        points = " ".join(
            f"{width * t / max(n_points - 1, 1):.1f},{height - 2 - scale * (v - low):.1f}"
            for t, v in enumerate(column)
        )
        opacity = 0.35 + 0.65 * k / max(n - 1, 1)
        lines.append(f'<polyline points="{points}" stroke-opacity="{opacity:.2f}"/>')
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" fill="none" '
        f'stroke="currentColor" stroke-width="1.2" style="display:block">{"".join(lines)}</svg>'
    )


def number(value: float, form: str = ".3g") -> str:
    """A number as text; a dash stands for NaN."""
    return f"{value:{form}}" if value == value else "\N{EN DASH}"


def span(values: np.ndarray, form: str = ".3g") -> str:
    """One number, or the smallest and the largest; NaN is skipped."""
    known = values[values == values]
    if known.size == 0:
        return "\N{EN DASH}"
    low, high = f"{known.min():{form}}", f"{known.max():{form}}"
    return low if low == high else f"{low} to {high}"


def tally(names: np.ndarray) -> str:
    """Number of each name, the most frequent first: "8 converged, 1 silent"."""
    names = [str(name) or "not fitted" for name in names.ravel()]
    found = sorted(set(names), key=lambda name: (-names.count(name), name))
    return ", ".join(f"{names.count(name):,} {name}" for name in found)


def size(n_bytes: float) -> str:
    """An amount of memory: "1.2 GB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.3g} {unit}"
    return f"{n_bytes:.0f} B"


def duration(seconds: float) -> str:
    """A time: "3.4 min"."""
    for unit, size, limit in (
        ("ms", 1e-3, 1),
        ("s", 1, 100),
        ("min", 60, 6000),
        ("h", 3600, float("inf")),
    ):
        if seconds < limit:
            return f"{float(f'{seconds / size:.2g}'):g} {unit}"
