"""The command ``wise suites``."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mergekit_wise.options import SuitesOptions

if TYPE_CHECKING:
    from mergekit_wise.api.suites import Inventory, Shelf

_MANY = 20
"""Data sets of a suite that are listed one by one."""


def suites(options: SuitesOptions, json: bool) -> None:
    """List data sets and suites: which were found, and how to get the rest."""
    from mergekit_wise.api.suites import suites
    from mergekit_wise.cli.console import say, show_json
    from mergekit_wise.cli.progress import perform

    inventory = perform(suites, options)
    if json:
        show_json(_entry(inventory))
        return
    if inventory.root is None:
        say("No data folder given. Pass --data ROOT or set WISE_DATA.")
    _show_sets(inventory)
    _show_suites(inventory)


def _show_sets(inventory: "Inventory") -> None:
    from rich.text import Text

    from mergekit_wise.cli.console import out

    groups = _grouped(inventory)
    below = "" if inventory.root is None else f" under {inventory.root}"
    out.print(Text(f"Data sets{below}", style="bold"), soft_wrap=True)
    found = [(name, shelves) for name, shelves in groups if _state(shelves[0]) == "found"]
    _table(
        ("Data set", "Images", "Where"),
        [(name, _count(shelves), os.path.commonpath([shelf.location for shelf in shelves])) for name, shelves in found],
        [all(shelf.complete for shelf in shelves) for _, shelves in found],
    )
    for state, title in (("damaged", "Damaged"), ("missing", "Not found, with what to do")):
        some = [(name, shelves) for name, shelves in groups if _state(shelves[0]) == state]
        if some:
            out.print(Text(f"\n{title}", style="bold"))
        for name, shelves in some:
            out.tell(" ".join(_unique(shelf.problem or shelf.hint for shelf in shelves)), f"{name}: ", "yellow")


def _show_suites(inventory: "Inventory") -> None:
    from mergekit_wise.cli.console import out

    out.print()
    rows = [(name, f"{inventory.found(members)} of {len(members)}", title) for name, title, members in inventory.suites]
    _table(("Suite", "Data sets", ""), rows, [True] * len(rows))


def _table(heads: tuple[str, str, str], rows: list[tuple[str, str, str]], well: list[bool]) -> None:
    """Three columns, the second of numbers; rows that are not well stand out."""
    from rich.table import Table
    from rich.text import Text

    from mergekit_wise.cli.console import out

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(heads[0], no_wrap=True)
    table.add_column(heads[1], justify="right", no_wrap=True)
    table.add_column(heads[2], overflow="fold")
    for row, good in zip(rows, well, strict=True):
        table.add_row(*map(Text, row), style="" if good else "yellow")
    out.print(table)


def _grouped(inventory: "Inventory") -> list[tuple[str, list["Shelf"]]]:
    """Data sets one by one, but those of a suite as large as imagenet-c together, as far as they share their state."""
    large = [name for name, _, members in inventory.suites if len(members) > _MANY]
    groups: dict[tuple[str, str], list[Shelf]] = {}
    for shelf in inventory.shelves:
        suite = next((name for name in large if shelf.name.startswith(f"{name}-")), shelf.name)
        groups.setdefault((suite, _state(shelf)), []).append(shelf)
    return [
        (name if len(shelves) == 1 and shelves[0].name == name else f"{name} ({len(shelves)})", shelves)
        for (name, _), shelves in groups.items()
    ]


def _state(shelf: "Shelf") -> str:
    return "damaged" if shelf.problem else "missing" if shelf.images is None else "found"


def _count(shelves: list["Shelf"]) -> str:
    images = sum(shelf.images or 0 for shelf in shelves)
    expected = sum(shelf.expected or 0 for shelf in shelves)
    return f"{images:,}" if all(shelf.complete for shelf in shelves) else f"{images:,} of {expected:,}"


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _entry(inventory: "Inventory") -> dict[str, object]:
    sets = [
        {
            "name": shelf.name,
            "title": shelf.title,
            "images": shelf.images,
            "expected": shelf.expected,
            "complete": shelf.complete,
            "location": shelf.location or None,
            "problem": shelf.problem or None,
            "places": shelf.places,
            "hint": shelf.hint,
        }
        for shelf in inventory.shelves
    ]
    suites = [
        {"name": name, "title": title, "data_sets": members, "found": inventory.found(members)}
        for name, title, members in inventory.suites
    ]
    return {"root": inventory.root and str(inventory.root), "data_sets": sets, "suites": suites}
