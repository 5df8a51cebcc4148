"""A page: its pieces of HTML and its pictures."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from fastglm._files import check_output
from fastglm.report.look import SCRIPT, STYLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#010203"  # placeholder for the text colour of the page
PICTURE = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor"), "none"),
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.labelsize": 9,
}


def check_path(path: str | Path) -> Path:
    """Raise ValueError if no page can be written to the path."""
    path = check_output(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{path} is not the name of a page; expected it to end in .html.")
    return path


def whole(title: str, top: str, sections: Iterable[str]) -> str:
    """The page: a heading, the HTML under it, and the sections."""
    body = "\n".join(s for s in sections if s)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{escape(title)}</h1>\n{top}</header>\n{body}\n</main>\n"
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def section(title: str, body: str) -> str:
    """A section with its heading."""
    return f"<section><h2>{escape(title)}</h2>\n{body}</section>"


def listed(rows: Iterable[tuple[str, str]]) -> str:
    """A list of names with their texts, one row for each."""
    items = "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in rows)
    return f"<dl>{items}</dl>"


def table(head: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column holds the headings of its rows."""
    top = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(text)}</td>" for text in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def picture(figure: Figure, text: str, caption: bool = True, raster: bool = False) -> str:
    """A figure as inline SVG in the text colour of the page."""
    file = io.StringIO()
    figure.savefig(file, format="svg", dpi=200 if raster else 72)
    svg = file.getvalue()
    tag, inner = re.search(r"<svg([^>]*)>(.*)</svg>", svg, flags=re.S).groups()
    inner = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", inner, flags=re.S)
    inner = inner.replace(INK, "currentColor")
    # Ids are kept only if the picture refers to them; a prefix makes them unique on the page.
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', inner))
    prefix = hashlib.sha256(inner.encode()).hexdigest()[:6]
    inner = re.sub(
        r' id="([^"]*)"', lambda m: f' id="{prefix}{m[1]}"' if m[1] in used else "", inner
    )
    inner = re.sub(r'(url\(|href=")#', rf"\1#{prefix}", inner)
    inner = re.sub(r"\s*\n\s*", " ", inner)
    box = re.search(r'viewBox="[^"]*"', tag)[0]
    width = float(re.search(r'width="([\d.]+)pt"', tag)[1]) / 0.75
    below = f"<figcaption>{escape(text)}</figcaption>" if caption else ""
    return (
        f'<figure style="--width: {width:.0f}px"><svg {box} role="img" '
        f'aria-label="{escape(text)}">{inner}</svg>{below}</figure>'
    )
