"""What is kept for later runs in the user's cache: a list of it, and its removal."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergekit_wise.api.result_object import ResultObject
from mergekit_wise.cache import KINDS, Cache, Entry
from mergekit_wise.errors import OutputError
from mergekit_wise.option_types import takes
from mergekit_wise.options import CacheClearOptions, CacheLsOptions
from mergekit_wise.wording import plural


@dataclass(frozen=True, slots=True, repr=False)
class CacheList(ResultObject):
    """The entries of the cache in its folder, last used first, their `size` together and its `limit` in bytes."""

    folder: Path
    entries: tuple[Entry, ...]
    size: int
    limit: int

    def _summary(self) -> str:
        return f"{self.folder}, {plural(len(self.entries), 'entry')}, {self.size:,} of {self.limit:,} bytes"

    def _entry(self) -> Mapping[str, Any]:
        return {"folder": self.folder, "size": self.size, "limit": self.limit, "entries": list(self._rows())}

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        return [
            {"kind": each.kind, "what": each.label, "key": each.key, "size": each.size, "used": each.used}
            for each in self.entries
        ]


@dataclass(frozen=True, slots=True, repr=False)
class CacheCleared(ResultObject):
    """The entries that were `removed` from the cache's folder, and those that stay because other runs use them."""

    folder: Path
    removed: tuple[Entry, ...]
    in_use: tuple[Entry, ...]

    def _summary(self) -> str:
        return f"{self.folder}, {plural(len(self.removed), 'entry')} removed, {len(self.in_use):,} in use"

    def _entry(self) -> Mapping[str, Any]:
        freed = sum(entry.size for entry in self.removed)
        return {"folder": self.folder, "removed": len(self.removed), "freed": freed, "in_use": len(self.in_use)}


@takes(CacheLsOptions)
def list_cache(options: CacheLsOptions) -> CacheList:
    """List what is kept for later runs: zero-shot heads, decoded images, features.

    Raises:
        UsageError: ``WISE_CACHE_LIMIT`` is not a size.
    """
    cache = Cache.open()
    entries = tuple(sorted(cache.entries(), key=lambda entry: -entry.used))
    return CacheList(cache.folder, entries, sum(entry.size for entry in entries), cache.limit)


@takes(CacheClearOptions)
def clear_cache(options: CacheClearOptions) -> CacheCleared:
    """Remove what is kept for later runs, of one kind or all, unless another run uses it at this moment.

    Raises:
        OutputError: entries are in a folder that cannot be written.
        UsageError: ``WISE_CACHE_LIMIT`` is not a size.
    """
    cache = Cache.open()
    kinds = KINDS if options.kind is None else (options.kind,)
    removed, in_use = cache.clear(kinds, options.older_than or 0)
    fixed = [entry for entry in in_use if not os.access(cache.folder / entry.kind, os.W_OK)]
    if fixed:
        raise OutputError(
            f"{cache.folder / fixed[0].kind}: cannot be written, so {plural(len(fixed), 'entry')} there cannot be "
            "removed. Make the folder writable, or set WISE_CACHE to another one."
        )
    return CacheCleared(cache.folder, tuple(removed), tuple(in_use))
