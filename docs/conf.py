"""How the pages become a site: ``make docs`` writes it to docs/_build/html."""

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
