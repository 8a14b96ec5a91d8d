"""Tables as HTML for a notebook's cell, in the style of the page but without its script. Knows tables only."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from mergekit_wise.report.table import Table

MOST_ROWS = 100
"""Rows of a table; a notebook keeps every output in its file."""


def as_html(tables: Sequence[Table], most: int = MOST_ROWS) -> str:
    """One table below the other, each with its title and at most `most` rows; a line says how many are left out."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    template = files("mergekit_wise.report").joinpath("notebook.html.j2").read_text("utf-8")
    shown = [(replace(table, body=table.body[:most]), len(table.body[most:])) for table in tables]
    return environment.from_string(template).render(tables=shown)
