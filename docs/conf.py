"""How the pages become a site: ``make docs`` writes it to docs/_build/html."""

import re

from sphinx.application import Sphinx

from mergekit_wise import __version__

project = "mergekit_wise"
author = "the mergekit_wise developers"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"mergekit_wise {release}"
html_copy_source = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
# "--" begins an option, and quotes in commands are straight.
smartquotes = False
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_member_order = "bysource"
# Docstrings are written to be read in an editor: single backquotes name arguments and functions.
default_role = "code"


def _escape_names(app: Sphinx, what: str, name: str, documented: object, options: object, lines: list[str]) -> None:
    """Escape names such as scikit-learn's coef_, whose underscore makes them links in reStructuredText."""
    lines[:] = [re.sub(r"(?<![\w`])([A-Za-z]\w*)_(?![\w`])", r"\1\\_", line) for line in lines]


def setup(app: Sphinx) -> None:
    """Let Sphinx call `_escape_names` for every docstring."""
    app.connect("autodoc-process-docstring", _escape_names)
