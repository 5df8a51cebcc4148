"""The report in a browser: a table is sorted, pictures are saved, and the console stays empty."""

import json
import re
import shutil
import subprocess
from html import unescape

import numpy as np
import pytest

import fastglm

pytest.importorskip("matplotlib")

from fastglm.report import write_report

BROWSERS = "chromium", "chromium-browser", "google-chrome"
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), "")
QUIET = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]

# Before the page's own script: links that are clicked are kept, with what they hold.
BEFORE = """<script>
window.saved = [];
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[download]");
  if (!link) return;
  event.preventDefault();
  const one = { name: link.download };
  window.saved.push(one);
  fetch(link.href).then((reply) => reply.blob()).then(async (blob) => {
    one.type = blob.type;
    if (blob.type === "image/svg+xml") {
      const text = await blob.text();
      const parsed = new DOMParser().parseFromString(text, "image/svg+xml");
      one.drawn = parsed.querySelectorAll("path, image, use").length;
      one.broken = parsed.querySelector("parsererror") !== null || text.includes("var(");
    } else {
      const image = await createImageBitmap(blob);
      const canvas = new OffscreenCanvas(image.width, image.height);
      const pen = canvas.getContext("2d");
      pen.drawImage(image, 0, 0);
      const dots = pen.getImageData(0, 0, image.width, image.height).data;
      one.size = [image.width, image.height];
      one.dark = dots.filter((value, k) => k % 4 === 0 && value < 128).length;
    }
  });
});
</script>"""
# After it: everything is pressed, and what came of it is written into the page.
AFTER = """<script>
const seen = { sorted: [] };
const table = document.querySelector("table");
const strengths = () => [...table.tBodies[0].rows].map((row) => row.cells[1].textContent);
const head = table.tHead.rows[0].cells[1];
for (let k = 0; k < 2; k++) {
  head.querySelector("button").click();
  seen.sorted.push([head.getAttribute("aria-sort"), strengths()]);
}
seen.figures = document.querySelectorAll("figure svg").length;
for (const button of document.querySelectorAll(".save button")) button.click();
dispatchEvent(new Event("beforeprint"));
seen.closed = document.querySelectorAll("details:not([open])").length;
setTimeout(() => {
  seen.saved = window.saved;
  const out = document.createElement("pre");
  out.id = "seen";
  out.textContent = JSON.stringify(seen);
  document.body.append(out);
}, 8000);
</script>"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.2, size=(3000, 17))  # more receivers than are shown at once
    X = fastglm.basis.RaisedCosineLogConv(3, window_size=10).compute_features(counts)
    model = fastglm.PopulationGLM(regularizer="Ridge", regularizer_strength=1e-3).fit(X, counts)
    path = tmp_path_factory.mktemp("browser") / "report.html"
    write_report(path, model, X, counts, bin_size=0.001)
    return path


def press(page, folder):
    """What the scripts saw in the browser, whose console has to be empty."""
    call = [
        *(BROWSER, *QUIET, f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr"),
        *("--virtual-time-budget=20000", "--dump-dom", page.as_uri()),
    ]
    done = subprocess.run(call, capture_output=True, text=True, timeout=300, check=True)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    return json.loads(unescape(re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.S)[1]))


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="no Chromium on the PATH")
def test_the_report_in_a_browser(report, tmp_path):
    text = report.read_text()
    page = tmp_path / "page.html"
    page.write_text(text.replace("<head>", "<head>" + BEFORE).replace("</body>", AFTER + "</body>"))
    seen = press(page, tmp_path)
    if len([s for s in seen["saved"] if {"broken", "dark"} & set(s)]) < 2 * seen["figures"]:
        seen = press(page, tmp_path)  # a busy machine may not draw pictures in a browser's time

    (up, ascending), (down, descending) = seen["sorted"]
    numbers = [float(s.replace("\N{MINUS SIGN}", "-")) for s in ascending]
    assert (up, down) == ("ascending", "descending")
    assert len(numbers) == 20
    assert numbers == sorted(numbers)
    assert numbers[0] < 0 < numbers[-1]
    assert [float(s.replace("\N{MINUS SIGN}", "-")) for s in descending] == numbers[::-1]

    assert seen["figures"] == text.count("<figure")
    saved = {kind: [s for s in seen["saved"] if s["type"] == kind] for kind in
             ("image/svg+xml", "image/png")}  # fmt: skip
    for kind, end in (("image/svg+xml", ".svg"), ("image/png", ".png")):
        assert len(saved[kind]) == seen["figures"]
        assert all(one["name"].endswith(end) for one in saved[kind])
    assert not any(one["broken"] for one in saved["image/svg+xml"])
    assert min(one["drawn"] for one in saved["image/svg+xml"]) > 5
    assert min(one["dark"] for one in saved["image/png"]) > 500
    assert min(one["size"][0] for one in saved["image/png"]) > 400
    assert seen["closed"] == 0
