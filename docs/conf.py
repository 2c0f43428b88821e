"""The documentation site: `make docs` writes it to build/docs."""

import os
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

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
myst_heading_anchors = 3  # a link may name a heading: page.md#the-heading

# The pages show what the commands of this tree print, with the Python that builds the site.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
os.environ["PYTHONPATH"] = str(ROOT)
os.environ["COLUMNS"] = "88"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
# -n reports references without a target. Types of other projects have no target here.
nitpick_ignore_regex = [("py:(class|obj|data)", r".*")]


def _as_rst(_app, _what, _name, _object, _options, lines: list[str]) -> None:
    """Docstrings are plain text: backticks mean code, an indented block after a blank line too."""
    blank = indented = False
    result: list[str] = []
    for line in lines:
        starts = line.startswith("    ") and blank and not indented
        if starts and result and not any(part.startswith("Args:") for part in result):
            result += ["::", ""]
        indented = line.startswith("    ") or (indented and not line.strip())
        blank = not line.strip()
        if indented and "::" in result:
            result.append(line)
        else:
            result.append(re.sub(r"(?<!`)`([^`\n]+)`(?!`)", r"``\1``", line.replace("*", r"\*")))
    lines[:] = result


def setup(app) -> None:
    app.connect("autodoc-process-docstring", _as_rst, priority=100)  # before napoleon
