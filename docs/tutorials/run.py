"""Run the code of tutorials, and put what it prints and draws into their pages.

    FASTGLM_RECORDINGS=~/recordings python docs/tutorials/run.py culture

``FASTGLM_RECORDINGS`` names the folder with the public files that the pages download. A page is
the source of its own results. Its blocks of ``python`` run in order, in that folder. What a block
prints replaces the block of ``text`` after it, and what ``plt.show()`` shows becomes the file of
the next picture. A page without its file stays as it is.
"""

import contextlib
import io
import os
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
PAGES = sorted(page.stem for page in HERE.glob("*.md") if page.stem != "index")
BLOCK = re.compile(r"^```python\n(.*?)^```\n", re.M | re.S)
PRINTED = re.compile(r"\s*```text\n.*?^```\n", re.M | re.S)
PICTURE = re.compile(r"^!\[.*?\]\((.*?)\)", re.M | re.S)


def run(text: str, folder: Path, pictures: Path) -> str:
    """The page with the results of its code.

    Parameters
    ----------
    text : str
        The page, Markdown.
    folder : Path
        Where the code runs.
    pictures : Path
        The folder of the page: paths of pictures are relative to it.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    out, names, start = [], {"__name__": "__main__"}, 0
    shown = []

    def show():
        name = PICTURE.findall(text)[len(shown)]
        shown.append(name)
        plt.gcf().savefig(pictures / name, dpi=140)
        plt.close("all")

    before, plt.show = plt.show, show
    try:
        with contextlib.chdir(folder):
            for block in BLOCK.finditer(text):
                out.append(text[start : block.end()])
                printed = io.StringIO()
                with contextlib.redirect_stdout(printed):
                    exec(compile(block[1], "<page>", "exec"), names)
                old = PRINTED.match(text, block.end())
                start = old.end() if old else block.end()
                if printed.getvalue():
                    out.append(f"\n```text\n{printed.getvalue().rstrip()}\n```\n")
    finally:
        plt.show = before
    if len(shown) != len(PICTURE.findall(text)):
        raise ValueError(f"The page has other pictures than the {len(shown)} that its code shows.")
    return "".join(out) + text[start:]


def source(text: str) -> str | None:
    """The name of the public file that a page downloads."""
    found = re.search(r"^    curl .*/([^/\s]+)$", text, flags=re.M)
    return found and found[1].replace("%20", " ")


def refresh(name: str, folder: Path) -> bool:
    """Write a page anew; False where its file is not in the folder."""
    page = HERE / f"{name}.md"
    text = page.read_text(encoding="utf-8")
    if not (folder / source(text)).exists():
        return False
    page.write_text(run(text, folder, HERE), encoding="utf-8")
    return True


if __name__ == "__main__":
    given = os.environ.get("FASTGLM_RECORDINGS")
    if given is None:
        sys.exit("FASTGLM_RECORDINGS is not set; expected the folder with the public files.")
    for page in sys.argv[1:] or PAGES:
        print(page, "written" if refresh(page, Path(given)) else "has no file; it stays as it is")
