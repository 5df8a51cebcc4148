"""How the site is built: ``sphinx-build -W docs site``. Nothing in it needs a network to read."""

import importlib.util
import os
import re
import runpy
from pathlib import Path

import matplotlib
from docutils.nodes import SkipNode, literal_block
from latex2mathml.converter import convert
from sphinx_gallery.sorting import ExplicitOrder

import fastglm

project, author = "fastglm", "The fastglm developers"
copyright = author
version = release = fastglm.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["examples", "_build", "**sg_execution_times.rst"]
templates_path = ["_templates"]
default_role = "py:obj"  # a name in single backticks is a link where there is such a thing
highlight_language = "python3"
myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 3
# Pages that are not there yet: the site builds without them.
suppress_warnings = ["toc.not_readable", "config.cache"]

# --- reference ---

# The names that one types; their own modules are not listed beside them.
NAMES = [
    *("infer_connectivity", "fit_coupling", "fit_sessions", "collect_sessions"),
    *("workflow.Sessions", "workflow.Session"),
    *("PopulationGLM", "GLM"),
    *("load_spikes", "bin_spikes", "load_model", "load_couplings", "from_nemos", "inspect_npz"),
    "Workers",
]
MODULES = [
    "observation_models",
    "basis",
    "features",
    "recordings",
    "regularizer",
    "model_selection",
    "inference",
    "connectivity",
    "diagnostics",
    "simulation",
    "plotting",
    "report",
    "io",
    "pytrees",
    "convolve",
    "identifiability_constraints",
    "fetch",
    "utils",
]
autosummary_generate = True
# A package lists what its files define.
autosummary_ignore_module_all = False
# What other modules call but nobody types: not in the reference.
autosummary_context = {
    "hidden": [
        *NAMES,
        *("DenseColumns", "HistoryColumns", "ProductColumns", "SlowColumns"),
        "TraceColumns",
        *("as_regularizer", "check_path", "demo_figure", "fit_figure", "gain_eigenvalues"),
        *("describe_model", "is_container", "is_nemos", "is_tree", "leaves", "lengths_of", "paths"),
        *("model_path", "read_key", "read_mapping", "read_model", "read_nemos", "same_groups"),
        *("shape_of", "split", "stack", "strongest"),
    ]
}
autodoc_member_order = "bysource"
autodoc_typehints = "none"
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

# --- gallery ---

EXAMPLES = [
    "spikes_to_connectivity",
    "head_direction",
    "choosing_a_penalty",
    "significance",
    "masks",
    "trials_and_gaps",
    "slow_covariates",
    "diagnostics",
    "scaling_up",
    "own_recording",
]


def style(gallery_conf, name):
    """Figures of every example: transparent, so that they suit a dark page as well."""
    matplotlib.rcdefaults()
    matplotlib.rcParams.update(
        {
            "figure.figsize": (7, 4),
            "figure.facecolor": "none",
            "axes.facecolor": "none",
            "savefig.facecolor": "none",
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "font.size": 10,
            "figure.constrained_layout.use": True,
        }
    )


sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "within_subsection_order": ExplicitOrder([f"{name}.py" for name in EXAMPLES]),
    "reset_modules": (style,),
    "image_srcset": ["2x"],
    "matplotlib_animations": False,
    "remove_config_comments": True,
    "show_signature": False,
    "show_memory": False,
    "min_reported_time": 1e9,
    "capture_repr": ("_repr_html_", "__repr__"),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "plot_gallery": True,
}

# --- pages ---

html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = "fastglm"
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "fastglm"},
    "navbar_persistent": ["search-button"],
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 6,
    "show_toc_level": 2,
    "show_prev_next": True,
    "footer_start": [],
    "footer_end": [],
    "navigation_with_keys": False,
}
# No empty list of sections beside pages that have none.
html_sidebars = {page: [] for page in ("index", "search", "genindex", "py-modindex")}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


# --- what the docstrings' plain text needs to be set well ---


def plain_text(app, what, name, obj, options, lines):
    """Indented formulas become literal blocks, tables of bars become tables.

    Only before the first section and inside Notes: elsewhere indentation means parameters.
    """
    out, open_, k = [], True, 0
    while k < len(lines):
        line = lines[k]
        if k + 1 < len(lines) and re.fullmatch(r"-{3,}", lines[k + 1].strip()):
            open_ = line.strip() == "Notes"
            out += lines[k : k + 2]
            k += 2
            continue
        if open_ and line.startswith("| ") and lines[k + 1].startswith("|-"):
            rows = [line]
            k += 2
            while k < len(lines) and lines[k].startswith("|"):
                rows.append(lines[k])
                k += 1
            out += [".. list-table::", "   :header-rows: 1", ""]
            for row in rows:
                cells = [c.strip() for c in re.split(r"(?:^|(?<=\s))\|(?=\s|$)", row)[1:-1]]
                out += [f"   {'* ' if c == 0 else '  '}- {cell}" for c, cell in enumerate(cells)]
            out.append("")
            continue
        before = lines[k - 1] if k else ""
        if open_ and line.startswith("    ") and not before.strip() and not _in_markup(lines, k):
            out += ["::", ""]
            while k < len(lines) and (lines[k].startswith("    ") or not lines[k].strip()):
                out.append(lines[k])
                k += 1
            continue
        # The star of *args is no emphasis.
        out.append(line if "`" in line else re.sub(r"(?<=[(\s])\*(?=\w)", r"\\*", line))
        k += 1
    lines[:] = out


def _in_markup(lines, k):
    """Whether the block that begins at line k belongs to a directive or a ``::``."""
    above = next((x for x in reversed(lines[:k]) if x.strip()), "")
    return above.endswith("::") or above.lstrip().startswith((".. ", ":"))


def _inline_math(self, node):
    self.body.append(convert(node.astext()))
    raise SkipNode


def _block_math(self, node):
    self.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    raise SkipNode


def sessions(app, doctree):
    """Indented blocks of Markdown that are Python sessions get their colours."""
    for node in doctree.findall(literal_block):
        if node.astext().startswith(">>> "):
            node["language"] = "pycon"


def skip(app, what, name, obj, skipped, options):
    """Leave out what a class inherits from other packages."""
    origin = getattr(getattr(obj, "fget", None) or obj, "__module__", None)
    return True if origin and not origin.startswith("fastglm") else None


REFERENCE = """\
API reference
=============

Everything that is public, from its docstrings. ``import fastglm as nmo`` gives the names that code
written for NeMoS's coupling GLMs uses. :doc:`Which call is for whom </which-call>` says where to
begin.

.. rubric:: What one calls

.. autosummary::
   :toctree: .
   :nosignatures:

{names}

.. rubric:: Modules

.. autosummary::
   :toctree: .
   :recursive:

{modules}
"""


def write_reference(folder):
    """Write the first page of the reference, with the modules that this version has."""
    there = [m for m in MODULES if importlib.util.find_spec(f"fastglm.{m}")]
    folder.mkdir(exist_ok=True)
    text = REFERENCE.format(
        names="\n".join(f"   ~fastglm.{name}" for name in NAMES),
        modules="\n".join(f"   fastglm.{m}" for m in there),
    )
    page = folder / "index.rst"
    if not page.exists() or page.read_text() != text:
        page.write_text(text)


def run_tutorials(app):
    """Write tutorials anew if ``FASTGLM_RECORDINGS`` names the folder with their public files."""
    folder = os.environ.get("FASTGLM_RECORDINGS")
    if folder:
        tutorials = runpy.run_path(str(Path(app.srcdir, "tutorials", "run.py")))
        for page in tutorials["PAGES"]:
            tutorials["refresh"](page, Path(folder))


def setup(app):
    """Connect the functions above."""
    app.connect("builder-inited", run_tutorials)
    app.connect("autodoc-process-docstring", plain_text, priority=100)
    app.add_html_math_renderer("mathml", (_inline_math, None), (_block_math, None))
    app.connect("doctree-read", sessions)
    app.connect("autodoc-skip-member", skip)
    write_reference(Path(app.srcdir, "api"))
