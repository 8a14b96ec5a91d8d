"""The folders that ``wise`` reads and writes: how much room there is, what the cache holds, which data sets are there.

Data sets are looked for by the names of their folders alone; opening them would list millions of files.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from mergekit_wise.cache import FOLDER_VARIABLE, LIMIT_VARIABLE, Cache, cache_folder
from mergekit_wise.checkpoint.writing import free_bytes
from mergekit_wise.datasets.catalog import BUILT_IN, ROOT_VARIABLE, SUITES
from mergekit_wise.datasets.plugins import names_of_points
from mergekit_wise.diagnosis.finding import Finding, Section, place
from mergekit_wise.errors import UsageError
from mergekit_wise.wording import in_bytes, listed, plural

LITTLE = 2 * 10**9
"""Free bytes below which a disk is called nearly full: what a large checkpoint and its copy take."""

FULL = 0.95
"""The part of its limit at which the cache counts as full."""


def folders(data: Path | None, downloads: Path | None = None) -> Section:
    """The disks of the folders that are written, and what the cache holds.

    Args:
        data: the data folder, if there is one.
        downloads: where downloaded models are kept, if that is known.
    """
    found = [_written("working folder", Path.cwd())]
    try:
        found += [_written("cache", cache_folder(), f"set {FOLDER_VARIABLE} to a folder that can be written"), _used()]
    except UsageError as error:
        found.append(Finding("cache", "", "problem", str(error).rstrip(".")))
    if downloads is not None:
        found.append(_written("downloads", downloads, "set HF_HOME to a folder that can be written"))
    if data is not None and data.is_dir():
        found.append(_disk("data folder", data))
    return Section("Folders", tuple(found))


def _written(name: str, folder: Path, advice: str = "change to another folder") -> Finding:
    """A folder that outputs are written to. One that does not exist is created when it is needed."""
    existing = next((path for path in (folder, *folder.parents) if path.is_dir()), folder)
    if not os.access(existing, os.W_OK | os.X_OK):
        return Finding(name, place(folder), "problem", f"cannot be written; {advice}")
    return _disk(name, folder)


def _disk(name: str, folder: Path) -> Finding:
    existing = next((path for path in (folder, *folder.parents) if path.is_dir()), folder)
    free = free_bytes(existing)
    where = place(folder) if existing == folder else f"{place(folder)} (not created yet)"
    if free is None:
        return Finding(name, where)
    if free < LITTLE:
        return Finding(name, f"{where}, {in_bytes(free)} free", "problem", "the disk is nearly full")
    return Finding(name, f"{where}, {in_bytes(free)} free")


def _used() -> Finding:
    """What the cache holds, beside its limit. Raises UsageError if the limit is not a size."""
    cache = Cache.open()
    entries = cache.entries()
    used, limit = sum(entry.size for entry in entries), cache.limit
    value = f"{plural(len(entries), 'entry')}, {in_bytes(used)} of {in_bytes(limit)}"
    if used < FULL * limit or not entries:
        return Finding("kept in it", value)
    return Finding(
        "kept in it",
        value,
        "note",
        f"it is full: new entries replace those used least recently, or raise {LIMIT_VARIABLE}",
        "wise cache clear",
    )


def data_folder(given: Path | None, environment: Mapping[str, str] = os.environ) -> Path | None:
    """The data folder that a command would use, if it exists or not: the one given, or what ``WISE_DATA`` names."""
    named = environment.get(ROOT_VARIABLE)
    return given or (Path(named) if named else None)


def data_sets(root: Path | None, origin: str = ROOT_VARIABLE) -> Section:
    """The data folder, and of each suite how many data sets have a folder there.

    Args:
        root: the data folder; None if there is none.
        origin: what names it, an option or an environment variable.
    """
    found = [_root(root, origin)]
    there = {name for name, entry in BUILT_IN.items() if not entry.places}
    if root is not None and root.is_dir():
        there |= {name for name, entry in BUILT_IN.items() if any((root / each).exists() for each in entry.places)}
        outside = sorted(there - {member for suite in SUITES.values() for member in suite.members})
        outside = [name for name in outside if BUILT_IN[name].places]
        if outside:
            found.append(Finding("in no suite", listed(outside)))
    without = []
    for suite in SUITES.values():
        if count := sum(member in there for member in suite.members):
            found.append(Finding(suite.name, f"{count} of {plural(len(suite.members), 'data set')}"))
        else:
            without.append(suite.name)
    if without:
        found.append(Finding("not found", f"{', '.join(without)} ('wise suites' says how to get them)"))
    if others := sorted(names_of_points()):
        found.append(Finding("other packages'", listed(others)))
    return Section("Data sets", tuple(found))


def _root(root: Path | None, origin: str) -> Finding:
    if root is None:
        return Finding("data folder", "none", "note", f"give it with --data ROOT, or set {origin}")
    if not root.is_dir():
        return Finding("data folder", place(root), "problem", f"{origin} names no folder")
    return Finding("data folder", f"{place(root)} (from {origin})")
