"""What a killed run left behind, and how a later one knows. Knows names and locks, no formats.

Whoever writes beside an output holds a lock on what it writes. A partial file or folder without one has no owner.
"""

import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SUFFIX = ".partial"


def partial_name(target: Path) -> Path:
    """A hidden name beside `target` that no other run uses."""
    return target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}")


@contextmanager
def owning(partial: Path) -> Iterator[None]:
    """Hold the lock on a partial file or folder while the block runs."""
    descriptor = _lock(partial)
    try:
        yield
    finally:
        if descriptor is not None:  # pragma: no branch: on Windows alone there is none
            os.close(descriptor)


def remove_litter(target: Path) -> None:
    """Remove the partial files and folders beside `target` that no living run owns."""
    for partial in target.parent.glob(f".{glob_escape(target.name)}.*{SUFFIX}"):
        with suppress(OSError), owning(partial):
            if partial.is_dir():
                shutil.rmtree(partial, ignore_errors=True)
            else:
                partial.unlink(missing_ok=True)


def glob_escape(name: str) -> str:
    """`name` as a pattern that matches it alone."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _lock(path: Path) -> int | None:
    """A descriptor that holds the lock; OSError if another run holds it. None on Windows, which guards open files."""
    if sys.platform == "win32":
        return None
    import fcntl

    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
