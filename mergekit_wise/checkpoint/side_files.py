"""The files that go with the weights in a folder of the Hugging Face Hub, for a folder with merged weights."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mergekit_wise.checkpoint.folder import MAX_MODULES, MODULES, WEIGHT_KINDS
from mergekit_wise.wording import listed


@dataclass(frozen=True, slots=True)
class SideFiles:
    """The files to copy, by their paths within the folder, and notes on those that need a word."""

    copies: dict[str, Path]
    notes: tuple[str, ...]


def side_files(folder: Path) -> SideFiles:
    """Configuration, tokenizer and preprocessor: all but weights and hidden files; and the subfolders of `MODULES`.

    A link that leads out of the folder is left out, unless it leads into the cache that the hub keeps for the folder.
    """
    found = [path for path in _files(folder) if not path.name.endswith(WEIGHT_KINDS)]
    parts = [path for name in _modules(folder) for path in sorted((folder / name).rglob("*")) if _is_plain(path)]
    copies = {path.relative_to(folder).as_posix(): path for path in (*found, *parts) if _is_own(path, folder)}
    left_out = [path.relative_to(folder).as_posix() for path in (*found, *parts) if not _is_own(path, folder)]
    weights = [name for name in copies if name.endswith(WEIGHT_KINDS)]
    notes = []
    if left_out:
        notes.append(f"not copied, because they are links to somewhere else: {listed(left_out)}")
    if weights:
        notes.append(f"copied from {folder.name}, not merged: {listed(weights)}")
    return SideFiles(copies, tuple(notes))


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if _is_plain(path))


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")


def _is_own(path: Path, folder: Path) -> bool:
    """Whether a file lies in the folder or, for a folder of the hub's cache, among the cache's blobs."""
    real, home = path.resolve(), folder.resolve()
    cache = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    return real.is_relative_to(home) or real.is_relative_to(cache)


def _modules(folder: Path) -> list[str]:
    """The subfolders that `MODULES` names; none if it is missing or unreadable."""
    path = folder / MODULES
    try:
        if not path.is_file() or path.stat().st_size > MAX_MODULES:
            return []
        modules = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    paths = [entry.get("path") for entry in modules if isinstance(entry, dict)] if isinstance(modules, list) else []
    named = {PurePosixPath(name) for name in paths if isinstance(name, str) and name and "\0" not in name}
    return sorted(str(name) for name in named if not name.is_absolute() and ".." not in name.parts and name.parts)
