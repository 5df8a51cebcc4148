"""How a page looks, and what it does: its style sheet and its one script.

Without the script the page is complete. With it, a click on the head of a column sorts a table, and
every picture can be saved as SVG and as PNG.
"""

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --line: #d9dee3;
  --ground: #fff; --panel: #f5f7f9; --warn: #b34700; --note: #0b62a0; }
@media screen and (prefers-color-scheme: dark) {
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
.beside + h3 { margin-top: 1.5rem; }
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
.tests dl { grid-template-columns: 1fr; gap: 0; }
.tests dd { margin-bottom: .5rem; }
.pictures figure { flex: 1 1 19rem; }
.panels { display: grid; gap: .5rem;
  grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); }
.beside > figure { flex: 1 1 var(--width); }
figure { margin: 0; width: 100%; max-width: var(--width); }
figcaption { color: var(--soft); font-size: .85rem; margin-top: .25rem; }
svg { display: block; width: 100%; height: auto; overflow: visible; color: var(--ink); }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
.save { color: var(--soft); font-size: .75rem; text-align: right; }
.save button { margin-left: .75em; text-decoration: underline; }
button { all: unset; cursor: pointer; }
button:focus-visible { outline: 2px solid var(--note); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem .25rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; }
thead th { color: var(--soft); font-weight: 600; }
th[aria-sort="ascending"] button::after { content: " \\2191"; }
th[aria-sort="descending"] button::after { content: " \\2193"; }
tbody th { font-weight: 400; }
summary { cursor: pointer; margin-bottom: .5rem; }
@media (max-width: 30rem) { dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; } }
@media print {
  :root { color-scheme: light; }
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  .save { display: none; }
  .beside { display: block; }
  .beside figure, .pictures figure { margin-bottom: 1rem; }
  figure, tr, li, dt, dd, .tiles { break-inside: avoid; }
  h2, h3, dt, summary { break-after: avoid; }
  .wide { overflow: visible; }
  th, td { padding-right: .5rem; white-space: normal; }
}
"""

SCRIPT = """
"use strict";
(() => {
  const ink = "#1b1f24", scale = 4;

  function number(text) {
    const value = text.replace(/\\u2212/g, "-").replace(/[,<]/g, "");
    return /^\\s*[-+]?[\\d.]/.test(value) ? parseFloat(value) : NaN;
  }
  function before(a, b) {
    const x = number(a), y = number(b);
    if (!isNaN(x) && !isNaN(y)) return x - y;
    return a.localeCompare(b, undefined, { numeric: true });
  }
  function sort(table, column) {
    const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
    const down = heads[column].ariaSort === "ascending";
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
    const text = (row) => row.cells[column].textContent, none = (row) => text(row) === "\\u2013";
    const rows = [...body.rows].sort((a, b) =>
      none(a) - none(b) || (down ? before(text(b), text(a)) : before(text(a), text(b))));
    body.append(...rows);
  }
  for (const table of document.querySelectorAll("table"))
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.append(...head.childNodes);
      button.title = "sort";
      button.onclick = () => sort(table, column);
      head.append(button);
    });

  function drawing(svg) {
    const copy = svg.cloneNode(true), [, , width, height] = svg.getAttribute("viewBox").split(" ");
    copy.setAttribute("width", width);
    copy.setAttribute("height", height);
    copy.setAttribute("color", ink);
    copy.setAttribute("style", "font-family: sans-serif; stroke-linejoin: round");
    const text = new XMLSerializer().serializeToString(copy);
    return { text, width: scale * width, height: scale * height };
  }
  function save(blob, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }
  function vector(svg, name) {
    save(new Blob([drawing(svg).text], { type: "image/svg+xml" }), name + ".svg");
  }
  function pixels(svg, name) {
    const { text, width, height } = drawing(svg), image = new Image();
    image.onload = () => {
      const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
      [canvas.width, canvas.height] = [width, height];
      pen.fillStyle = "white";
      pen.fillRect(0, 0, width, height);
      pen.drawImage(image, 0, 0, width, height);
      canvas.toBlob((blob) => save(blob, name + ".png"), "image/png");
    };
    image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(text);
  }
  for (const svg of document.querySelectorAll("figure svg")) {
    const line = document.createElement("div"), label = svg.getAttribute("aria-label");
    const name = label.replace(/[^\\w]+/g, "-").replace(/^-|-$/g, "").slice(0, 50);
    line.className = "save";
    for (const [text, act] of [["SVG", vector], ["PNG", pixels]]) {
      const button = document.createElement("button");
      button.textContent = text;
      button.title = "save this picture as " + text;
      button.onclick = () => act(svg, name);
      line.append(button);
    }
    svg.after(line);
  }
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
})();
"""
