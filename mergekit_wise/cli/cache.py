"""The commands ``wise cache ...``: what is kept for later runs."""

import time
from typing import TYPE_CHECKING

import typer

from mergekit_wise.cli.command import Group
from mergekit_wise.wording import plural

if TYPE_CHECKING:
    from mergekit_wise.options import CacheClearOptions, CacheLsOptions

cache = typer.Typer(
    cls=Group, help="List or remove what is kept for later runs.", no_args_is_help=True, rich_markup_mode=None
)


@cache.callback()
def _group() -> None:
    """List or remove what is kept for later runs."""


def ls(options: "CacheLsOptions", json: bool) -> None:
    """List what is kept for later runs: zero-shot heads, decoded images, features."""
    from rich.table import Table
    from rich.text import Text

    from mergekit_wise.api.cache import list_cache
    from mergekit_wise.cli.console import out, show_json
    from mergekit_wise.option_types import run
    from mergekit_wise.wording import in_bytes

    found = run(list_cache, options)
    if json:
        show_json(found.to_dict())
        return
    if found.entries:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for title, justify in (("Kind", "left"), ("What", "left"), ("Size", "right"), ("Last used", "left")):
            table.add_column(title, justify=justify, overflow="fold", no_wrap=title != "What")  # type: ignore[arg-type]
        for entry in found.entries:
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
            table.add_row(*map(Text, (entry.kind, entry.label, in_bytes(entry.size), when)))
        out.print(table)
        out.print()
    entries = plural(len(found.entries), "entry")
    out.print(f"{found.folder}: {entries}, {in_bytes(found.size)} of {in_bytes(found.limit)}", soft_wrap=True)


def clear(options: "CacheClearOptions", json: bool) -> None:
    """Remove what is kept for later runs. What another run is using stays."""
    from mergekit_wise.api.cache import clear_cache
    from mergekit_wise.cli.console import out, show_json
    from mergekit_wise.option_types import run
    from mergekit_wise.wording import in_bytes

    cleared = run(clear_cache, options)
    if json:
        show_json(cleared.to_dict())
        return
    freed = sum(entry.size for entry in cleared.removed)
    kept = f"; {plural(len(cleared.in_use), 'entry')} in use by other runs stay" if cleared.in_use else ""
    removed = plural(len(cleared.removed), "entry")
    out.print(f"{cleared.folder}: removed {removed}, {in_bytes(freed)} freed{kept}", soft_wrap=True)
