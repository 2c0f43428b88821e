"""The documentation site: `make docs` writes it to build/docs."""

import os
import re
import sys
import tomllib
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import error_tables  # noqa: E402

project = "grafp"
version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
release = version
html_title = f"grafp {version}"
html_theme = "furo"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinxcontrib.programoutput",
]
smartquotes = False  # `--help` stays as it is typed
myst_heading_anchors = 3  # a link may name a heading: page.md#the-heading

# The pages show what the commands of this tree print, with the Python that builds the site.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
os.environ["PYTHONPATH"] = str(ROOT)
os.environ["COLUMNS"] = "88"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
# -n reports references without a target. Types of other projects have no target here.
nitpick_ignore_regex = [("py:(class|obj|data)", r".*")]


def _as_rst(_app, what, _name, _object, _options, lines: list[str]) -> None:
    """Docstrings are plain text: backticks mean code, and so does an indented block of its own."""
    result: list[str] = []
    blank, in_block, in_section = True, False, False
    for line in lines:
        indented = line.startswith("    ")
        in_section = line == "Args:" or (in_section and (indented or not line))
        if not in_section and indented and blank and not in_block:
            result += ["::", ""]
            in_block = True
        elif line and not indented:
            in_block = False
        result.append(line if in_block else _inline(line))
        blank = not line
    if what in ("attribute", "data", "property"):
        result[:0] = ["..", ""]  # else napoleon takes "text: text" in the first line for a type
    lines[:] = result


def _inline(line: str) -> str:
    """One line: code in backticks, and nothing else that RST would take for markup."""
    parts = line.split("`")
    text = [re.sub(r"(\*|_(?!\w))", r"\\\1", part) for part in parts[::2]]
    parts[::2] = text
    return "``".join(parts) if len(parts) % 2 else line


class IncludeTable(SphinxDirective):
    """A table that error_tables.py makes of the source."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        text = getattr(error_tables, f"{self.arguments[0]}_table")()
        return self.parse_text_to_nodes(text)


def setup(app) -> None:
    app.add_directive("include-table", IncludeTable)
    app.connect("autodoc-process-docstring", _as_rst, priority=100)  # before napoleon
