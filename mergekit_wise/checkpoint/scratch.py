"""A temporary folder that another run removes if the process is killed. Knows no file format.

A run holds a lock on its folder, as on a partial output (`writing`). A folder that nobody has locked was left behind.
Where the file system has no locks, nothing is removed.
"""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mergekit_wise.checkpoint.writing import locked, new_folder, owned, uninterrupted


@contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder in `parent` whose name begins with `prefix`, which is removed at the end of the block.

    Those of killed runs are removed first. Raises OSError if it cannot be created.
    """
    remove_abandoned_folders(parent, prefix)
    with uninterrupted():
        folder, descriptor = owned(
            lambda: parent / f"{prefix}{os.getpid()}-{os.urandom(4).hex()}", lambda path: new_folder(path, 0o700)
        )
    try:
        yield folder
    finally:
        with uninterrupted():
            shutil.rmtree(folder, ignore_errors=True)
            if descriptor is not None:
                os.close(descriptor)


def remove_abandoned_folders(parent: Path, prefix: str) -> None:
    """Remove the folders with `prefix` in `parent` that no running process has locked."""
    if sys.platform == "win32":  # which has no such locks
        return
    named = re.compile(re.escape(prefix) + r"\d+-[0-9a-f]{8}")
    with suppress(OSError):  # a folder that may be written but not read
        for name in filter(named.fullmatch, os.listdir(parent)):
            folder = parent / name
            if folder.is_dir() and not folder.is_symlink():
                with suppress(OSError), locked(folder):
                    shutil.rmtree(folder, ignore_errors=True)
