"""Atomic writing: a file or folder appears whole or not at all. Knows bytes and offsets, no tensors.

Everything is written to a hidden sibling of the output, which replaces the output at the end. If anything fails before
that, the sibling is removed and an earlier output stays as it was. If there is an earlier output, the sibling is
flushed to disk before it replaces it, so that one of the two survives a power failure. A new file is left to the system
to flush, as `cp` leaves it.

A run holds a lock on its sibling. A sibling that nobody has locked was left by a run that was killed, and the next run
with the same output removes it.
"""

import errno
import glob
import os
import secrets
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from mergekit_wise.errors import OutputError

SUFFIX = ".partial"


class Writer(Protocol):
    """Writes at any offset of a file; may be called from several threads at once."""

    def __call__(self, offset: int, data: NDArray[Any] | bytes) -> None:
        """Write all of `data`, bytes or a contiguous array, from byte `offset` on."""


def write_atomically(output: Path, content: bytes | str) -> None:
    """Replace `output` by a file with this content (a text as UTF-8). Raises OutputError."""
    data = content.encode() if isinstance(content, str) else content
    with writing(output, len(data)) as write:
        write(0, data)


@contextmanager
def writing(output: Path, size: int) -> Iterator[Writer]:
    """Write a file of `size` bytes in pieces, which becomes `output` when the block ends without an exception.

    Raises OutputError if the folder is missing or not writable, or if the disk is too small or fills up.
    """

    def create(partial: Path, target: Path) -> None:
        _check_file(output, target, size)
        partial.touch(exist_ok=False)

    with _replacing(output, create) as (partial, target), partial.open("r+b") as file:
        file.truncate(size)
        yield _writer(file.fileno())
        if target.exists():
            os.fsync(file.fileno())


@contextmanager
def writing_folder(output: Path, sources: list[Path]) -> Iterator[Path]:
    """Fill a folder that holds copies of `sources`; it becomes `output` when the block ends without an exception.

    Raises OutputError if `output` exists and is not empty, or cannot be created.
    """

    def create(partial: Path, target: Path) -> None:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise OutputError(f"{output}: already exists, and only an empty folder can be replaced. Give another name.")
        partial.mkdir()

    with _replacing(output, create) as (partial, _):
        for source in sources:
            shutil.copyfile(source, partial / source.name)
        yield partial


def refuse_overwriting(output: Path, inputs: tuple[Path, ...]) -> None:
    """Raise OutputError if `output` is one of `inputs`, even under another name."""
    for source in inputs:
        with suppress(OSError):  # one of the two does not exist
            if output.samefile(source):
                raise OutputError(f"{output}: the output is one of the inputs. Give another name with -o.")


def require_folder(output: Path) -> None:
    """Raise OutputError if the folder of `output` does not exist. It is never created: the path may have a typo."""
    folder = Path(os.path.realpath(output)).parent
    if not folder.is_dir():
        raise OutputError(f"{output}: the folder {folder} does not exist. Create it first.")


def partial_name(target: Path) -> Path:
    """A hidden path next to `target` that no other run uses."""
    return target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}")


def remove_abandoned(target: Path) -> None:
    """Remove the partial files and folders of `target` that no running process has locked."""
    for partial in target.parent.glob(f".{glob.escape(target.name)}.*{SUFFIX}"):
        with suppress(OSError), locked(partial):
            _remove(partial)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file or folder. Raises OSError if another run holds it.

    Windows needs no lock, because it does not remove open files.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _replacing(output: Path, create: Callable[[Path, Path], None]) -> Iterator[tuple[Path, Path]]:
    """Create a partial file or folder and yield it with its target, which it replaces at the end."""
    target = Path(os.path.realpath(output))  # resolve() raises an error for a link to itself
    partial = partial_name(target)
    try:
        require_folder(output)
        remove_abandoned(target)
        create(partial, target)
        with locked(partial):
            yield partial, target
            partial.replace(target)
    except OSError as error:
        raise OutputError(f"{output}: writing failed: {error.strerror}. {_advice(error)}") from error
    finally:
        _remove(partial)


def _remove(partial: Path) -> None:
    with suppress(OSError):  # a read-only disk refuses to remove even what does not exist
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def _check_file(output: Path, target: Path, size: int) -> None:
    if target.is_dir():
        raise OutputError(f"{output}: is a folder. Give the name of a file with -o.")
    if target.exists() and not target.is_file():
        raise OutputError(f"{output}: is a device or a pipe, which a file would replace. Give another name with -o.")
    free = free_bytes(target.parent)
    if free < size:
        raise OutputError(
            f"{output}: needs {size:,} bytes, but only {free:,} are free in {target.parent}. "
            "Free some space or write elsewhere."
        )


def free_bytes(folder: Path) -> int:
    """Bytes that a user may still write to the disk of `folder`."""
    return shutil.disk_usage(folder).free


def _writer(descriptor: int) -> Writer:
    lock = threading.Lock()

    def write(offset: int, data: NDArray[Any] | bytes) -> None:
        view = memoryview(data) if isinstance(data, bytes) else data.reshape(-1).view("u1").data
        while view:  # a signal or a nearly full disk cuts a write short
            if sys.platform == "win32":  # which has no pwrite
                with lock:
                    os.lseek(descriptor, offset, os.SEEK_SET)
                    written = os.write(descriptor, view)
            else:
                written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written

    return write


def _advice(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Free some space or write elsewhere; nothing was left behind."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "Choose a folder that you may write to."
    return "Nothing was left behind; an earlier output is untouched."
