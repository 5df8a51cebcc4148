"""A page: its pieces of HTML, its pictures and its style."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from fastglm._files import check_output

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
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{escape(title)}</h1>\n{top}</header>\n{body}\n</main>\n</body>\n</html>\n"
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
        f'<figure style="max-width: {width:.0f}px"><svg {box} role="img" '
        f'aria-label="{escape(text)}">{inner}</svg>{below}</figure>'
    )


_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --line: #d9dee3;
  --ground: #fff; --panel: #f5f7f9; --warn: #b34700; --note: #0b62a0; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --soft: #9aa4ae; --line: #333b44; --ground: #14181c; --panel: #1c2228;
    --warn: #ff9a52; --note: #6fb7ec; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem; padding-top: .75rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 0 0 .5rem; }
p { margin: 0 0 1rem; max-width: 46rem; color: var(--soft); }
.tiles { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); }
.tiles div { background: var(--panel); border-radius: .5rem; padding: .75rem 1rem; }
.tiles b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.tiles span { color: var(--soft); font-size: .85rem; }
.notes { list-style: none; margin: 0; padding: 0; max-width: 50rem; }
.notes li { border-left: 4px solid var(--note); padding: .1rem 0 .1rem .8rem; margin: 0 0 .75rem;
  overflow-wrap: anywhere; }
.notes b { color: var(--note); }
.notes .warning { border-color: var(--warn); }
.notes .warning b { color: var(--warn); }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .3rem 1.25rem;
  margin: 0 0 1rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.beside, .pictures { display: flex; flex-wrap: wrap; gap: 1.5rem 2.5rem; align-items: flex-start; }
.beside > * { flex: 1 1 20rem; min-width: 0; }
.beside > :has(table) { flex: 1.3 1 26rem; }
.pictures figure { flex: 1 1 19rem; }
.panels { display: grid; gap: .5rem;
  grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); }
figure { margin: 0; width: 100%; }
figcaption { color: var(--soft); font-size: .85rem; margin-top: .25rem; }
svg { display: block; width: 100%; height: auto; overflow: visible; color: var(--ink); }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem .25rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; }
thead th { color: var(--soft); font-weight: 600; }
tbody th { font-weight: 400; }
summary { cursor: pointer; margin-bottom: .5rem; }
@media (max-width: 30rem) { dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; } }
"""
