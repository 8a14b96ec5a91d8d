"""Files that later runs can reuse, in the cache folder, with a limit on their size. Knows nothing of what is in them.

An entry is a file ``FOLDER/KIND/KEY``. Its key says all that its content depends on (`key_of`), so that an entry never
becomes wrong: what has changed has another key. Entries appear whole or not at all, as outputs do. If all entries
together exceed the limit, those that were used least recently are removed.

A run holds a lock on the entries that it uses, so that no other run removes them. Several runs may store the same
entry; the last one stays. A cache only saves work: if it cannot be written, a note says so, once, and the run goes on.

The folder of a kind is private to the user. If it is a link, or belongs to somebody else, it is not used: somebody
else could have put other numbers there.
"""

import hashlib
import json
import os
import re
import stat
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from mergekit_wise.checkpoint.writing import SUFFIX, free_bytes, locked, writing_file
from mergekit_wise.errors import OutputError, UsageError
from mergekit_wise.wording import parse_size

KINDS = ("heads", "images", "features", "listings")
"""What is kept: zero-shot heads, decoded images, image features, listings of data sets."""

FOLDER_VARIABLE, LIMIT_VARIABLE = "WISE_CACHE", "WISE_CACHE_LIMIT"

DEFAULT_LIMIT = "20GB"

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")

_LABEL = 80
"""Characters of a key that people read."""

_keeps: ContextVar[bool] = ContextVar("keeps", default=True)


def cache_folder() -> Path:
    """``$WISE_CACHE``, else ``$XDG_CACHE_HOME/mergekit_wise``, else ``~/.cache/mergekit_wise``.

    A relative ``$XDG_CACHE_HOME`` is ignored, as the XDG specification demands: every working folder would have a cache
    of its own. A user without a home folder, as in some containers, has one beside temporary files. Raises UsageError
    if ``$WISE_CACHE`` names the home folder of an unknown user.
    """
    if own := os.environ.get(FOLDER_VARIABLE):
        try:
            return Path(own).expanduser()
        except RuntimeError:
            raise UsageError(f"{FOLDER_VARIABLE}={own}: there is no such home folder. Give a whole path.") from None
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if home.is_absolute():
        return home / "mergekit_wise"
    try:
        return Path("~/.cache").expanduser() / "mergekit_wise"
    except RuntimeError:
        from tempfile import gettempdir

        return Path(gettempdir(), f"mergekit_wise-{os.getuid()}")


@contextmanager
def keeping(keep: bool) -> Iterator[None]:
    """Unless `keep`, `is_keeping` is false while the block runs, in this thread.

    For what opens data sets: the functions of a data set's entry, which other packages write, too, get a folder alone.
    """
    token = _keeps.set(keep and _keeps.get())
    try:
        yield
    finally:
        _keeps.reset(token)


def is_keeping() -> bool:
    """Whether entries may be read and stored; see `keeping`."""
    return _keeps.get()


def key_of(label: str, facts: object) -> str:
    """A key: what people see in a list, and a digest of all that the content depends on, a value for JSON."""
    text = re.sub(r"[^A-Za-z0-9._+]+", "-", label).strip("-._+")[:_LABEL] or "entry"
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return f"{text}-{digest[:32]}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in the cache.

    Attributes:
        kind: one of `KINDS`.
        key: its name.
        size: in bytes.
        used: when it was stored or found last, in seconds since 1970.
    """

    kind: str
    key: str
    size: int
    used: float

    @property
    def label(self) -> str:
        """The part of the key for people."""
        return re.sub(r"-[0-9a-f]{32}$", "", self.key)


class Cache:
    """The entries in a folder.

    Args:
        folder: holds a folder for each kind; created when the first entry is stored.
        limit: of all entries together, in bytes. They also never take more than half of what the disk could hold.
        note: is called once with a sentence if entries cannot be stored.
    """

    def __init__(self, folder: Path, limit: int, note: Callable[[str], object] = str) -> None:
        self.folder, self._limit, self._note = folder, limit, note
        self._held: list[int] = []
        self._has_noted = False
        weakref.finalize(self, _close, self._held)

    @classmethod
    def open(cls, note: Callable[[str], object] = str, folder: Path | None = None) -> "Cache":
        """The user's cache, or the one in `folder`. Raises UsageError if ``$WISE_CACHE_LIMIT`` is not a size."""
        limit = parse_size(os.environ.get(LIMIT_VARIABLE) or DEFAULT_LIMIT, LIMIT_VARIABLE)
        return cls(folder or cache_folder(), limit, note)

    @property
    def limit(self) -> int:
        """What all entries together may take, in bytes."""
        return self._limit_beside(sum(entry.size for entry in self.entries()))

    def find(self, kind: str, key: str) -> Path | None:
        """The file of an entry, which counts as used now and is not removed before this object is; None without one.

        The disk may have damaged it: whoever reads it checks what it holds, and stores it again.
        """
        path = self._path(kind, key)
        if not _is_private(path.parent):
            return None
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
        except OSError:
            return None
        self._held.append(descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        if sys.platform != "win32":  # where an open file cannot be removed
            import fcntl

            with suppress(OSError):  # being removed at this moment, which does not matter; or no locks here
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        with suppress(OSError):  # a read-only disk
            os.utime(path)
        return path if path.exists() else None

    @contextmanager
    def storing(self, kind: str, key: str) -> Iterator[Path]:
        """A file to write, which becomes an entry when the block ends, in place of an earlier one.

        If the block raises an exception, there is no entry; nor if other entries cannot make room for it, which are
        then left alone. An OSError or OutputError, as of a full disk, then ends the
        block, not the run; so a block does nothing but write. Whoever writes between other work enters this context in
        an ExitStack and leaves it with ``stack.__exit__(*sys.exc_info())`` where writing fails.
        """
        path = self._path(kind, key)
        try:
            with ExitStack() as stack:
                try:
                    _create_private(path.parent)
                    partial = stack.enter_context(writing_file(path))
                except (OSError, OutputError) as error:
                    self._cannot_store(_reason(error))
                    partial = Path(os.devnull, key)  # where writing fails
                yield partial
                if not self._make_room(partial.stat().st_size, written=True, replaced=(kind, key)):
                    raise OutputError(f"{key}: there is no room for it.")  # said already
        except (OSError, OutputError) as error:
            self._cannot_store(_reason(error))

    def make_room(self, size: int) -> bool:
        """Remove entries until another of `size` bytes fits; say whether it does. None is removed if it never will."""
        return self._make_room(size)

    def _make_room(self, size: int, *, written: bool = False, replaced: tuple[str, str] | None = None) -> bool:
        """See `make_room`; the new entry may be `written` to the disk already, and one is `replaced` by it."""
        others = [entry for entry in self.entries() if (entry.kind, entry.key) != replaced]
        total = sum(entry.size for entry in others)
        limit = self._limit_beside(total + size if written else total)
        for entry in sorted(others, key=lambda entry: entry.used) if size <= limit else []:
            if total + size > limit and self.remove(entry):
                total -= entry.size
        if total + size > limit:
            self._cannot_store(f"its limit is {limit:,} bytes ({LIMIT_VARIABLE}, and half of what the disk has free)")
        return total + size <= limit

    def entries(self) -> list[Entry]:
        """All entries, by kind and key. Files that a killed run left unfinished are removed."""
        found = []
        for kind in KINDS:
            for path in _files(self.folder / kind):
                if path.name.startswith(".") and path.name.endswith(SUFFIX):
                    with suppress(OSError), locked(path):
                        path.unlink()
                elif _KEY.fullmatch(path.name):
                    with suppress(OSError):  # removed by another run
                        facts = path.lstat()
                        if stat.S_ISREG(facts.st_mode):
                            found.append(Entry(kind, path.name, facts.st_size, facts.st_mtime))
        return found

    def remove(self, entry: Entry) -> bool:
        """Remove an entry unless a run uses it; say whether it is removed."""
        path = self._path(entry.kind, entry.key)
        try:
            with locked(path):
                path.unlink()
        except FileNotFoundError:
            return True
        except BlockingIOError:
            return False
        except OSError:  # no locks here, or not writable
            with suppress(OSError):
                path.unlink()
        return not path.exists()

    def clear(self, kinds: tuple[str, ...] = KINDS, older_than: float = 0) -> tuple[list[Entry], list[Entry]]:
        """Remove the entries of `kinds` that nobody has used for `older_than` days: those removed, and those in use."""
        before = time.time() - older_than * 24 * 3600
        chosen = [entry for entry in self.entries() if entry.kind in kinds and entry.used <= before]
        removed = [entry for entry in chosen if self.remove(entry)]
        return removed, [entry for entry in chosen if entry not in removed]

    def _path(self, kind: str, key: str) -> Path:
        if kind not in KINDS or not _KEY.fullmatch(key):
            raise ValueError(f"no name of an entry: {kind}/{key}")
        return self.folder / kind / key

    def _limit_beside(self, used: int) -> int:
        """The limit where entries take `used` bytes of the disk: half of these and of what is free, or less."""
        existing = next((path for path in (self.folder, *self.folder.parents) if os.path.isdir(path)), self.folder)
        free = free_bytes(existing)
        return self._limit if free is None else min(self._limit, (used + free) // 2)

    def _cannot_store(self, reason: str) -> None:
        if not self._has_noted:
            self._has_noted = True
            self._note(f"nothing more can be kept for later runs in {self.folder}: {reason}")


def _reason(error: Exception) -> str:
    cause = error if isinstance(error, OSError) else error.__cause__
    return (cause.strerror if isinstance(cause, OSError) else None) or str(error).rstrip(".")


def _create_private(folder: Path) -> None:
    """Create a folder of a kind. Raises OSError, also if somebody else could have put files there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not folder.is_symlink():
        folder.chmod(0o700)  # a folder of an earlier version; refused for one of another user
    if not _is_private(folder):
        raise PermissionError(0, f"{folder.name} there is a link or belongs to somebody else")


def _is_private(folder: Path) -> bool:
    """Whether a path is a folder, no link, of this user, into which nobody else may write."""
    try:
        facts = folder.lstat()
    except OSError:
        return False
    if sys.platform == "win32":
        return stat.S_ISDIR(facts.st_mode)
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid() and not facts.st_mode & 0o022


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir()) if _is_private(folder) else []
    except OSError:
        return []


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)
