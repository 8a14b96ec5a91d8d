"""Atomic writing: a file or folder appears whole or not at all. Knows bytes and offsets, no tensors.

Everything is written to a hidden sibling of the output, which replaces the output at the end. If anything fails before
that, the sibling is removed and an earlier output stays as it was. If there is an earlier output, the sibling is
flushed to disk before it replaces it, so that one of the two survives a power failure. A new file is left to the system
to flush, as `cp` leaves it.

A run holds a lock on its sibling. A sibling that nobody has locked was left by a run that was killed, and the next run
with the same output removes it. On file systems without locks nothing is removed.
"""

import errno
import os
import re
import shutil
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from mergekit_wise.checkpoint.mapped import watching
from mergekit_wise.errors import OutputError

SUFFIX = ".partial"

UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What file systems answer to requests that they do not know."""


RESERVED = 1 << 20
"""Bytes from which on it is worth while to set the space of a file aside."""


class Writer(Protocol):
    """Writes at any offset of a file; may be called from several threads at once."""

    def __call__(self, offset: int, data: NDArray[Any] | bytes) -> None:
        """Write all of `data`, bytes or a contiguous array, from byte `offset` on."""


def write_atomically(output: Path, content: bytes | str) -> None:
    """Replace `output` by a file with this content (a text as UTF-8), or write it into a pipe or a device.

    Raises OutputError.
    """
    data = content.encode() if isinstance(content, str) else content
    if _is_special(output):
        try:
            with output.open("wb", buffering=0) as file:
                file.write(data)
        except OSError as error:
            raise OutputError(f"{output}: writing failed: {error.strerror}.") from error
        return
    with writing(output, len(data)) as write:
        write(0, data)


@contextmanager
def writing(output: Path, size: int) -> Iterator[Writer]:
    """Write a file of `size` bytes in pieces, which becomes `output` when the block ends without an exception.

    Raises OutputError if the folder is missing or not writable, or if the disk is too small or fills up.
    """

    def create(partial: Path, target: Path) -> int:
        _check_file(output, target, size)
        return _new_file(partial)

    with _replacing(output, create) as (_, target, descriptor):
        os.ftruncate(descriptor, size)
        _reserve(descriptor, size)
        yield _writer(descriptor)
        if target.exists():
            _flush(descriptor)


@contextmanager
def writing_file(output: Path) -> Iterator[Path]:
    """A path to write a file of any size at, which becomes `output` when the block ends without an exception.

    It is not flushed to disk: for files whose readers check what they hold. Raises OutputError as `writing` does.
    """

    def create(partial: Path, target: Path) -> int:
        _check_file(output, target, 0)
        return _new_file(partial)

    with _replacing(output, create) as (partial, _, _):
        yield partial


@contextmanager
def writing_folder(output: Path, copies: Mapping[str, Path]) -> Iterator[Path]:
    """Fill a folder that holds copies of files, by their paths in it; it becomes `output` at the end of the block.

    Raises OutputError if `output` exists and is not empty, or cannot be created.
    """

    def create(partial: Path, target: Path) -> int | None:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise OutputError(f"{output}: already exists, and only an empty folder can be replaced. Give another name.")
        return new_folder(partial)

    with _replacing(output, create) as (partial, _, _):
        for name, source in copies.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, partial / name)
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


def require_output(output: Path) -> None:
    """Raise OutputError, before any work is done, unless a file can be written; nothing is created or changed."""
    require_folder(output)
    if output.is_dir():
        raise OutputError(f"{output}: is a folder, and a file is to be written. Give another name.")
    _require_access(output if _is_special(output) else Path(os.path.realpath(output)).parent, output)


def require_output_folder(folder: Path) -> None:
    """Raise OutputError, before any work is done, unless a folder exists or can be created, and be written into."""
    require_folder(folder)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is a file, and a folder is needed. Give another name.")
    _require_access(folder if folder.exists() else Path(os.path.realpath(folder)).parent, folder)


def _require_access(written: Path, output: Path) -> None:
    if not os.access(written, os.W_OK):
        raise OutputError(f"{output}: cannot be written: {written} is not writable. Choose another place.")


def partial_name(target: Path) -> Path:
    """A hidden path next to `target` that no other run uses."""
    return target.with_name(f".{target.name}.{os.getpid()}-{os.urandom(4).hex()}{SUFFIX}")


def remove_abandoned(target: Path) -> None:
    """Remove the partial files and folders of `target` that no running process has locked."""
    for partial in partials_of(target):
        with suppress(OSError), locked(partial):
            _remove(partial)


def partials_of(target: Path) -> list[Path]:
    """The partial files and folders of `target`, by running and by killed processes."""
    named = re.compile(re.escape(f".{target.name}.") + r"\d+-[0-9a-f]{8}" + re.escape(SUFFIX))
    try:
        return [target.parent / name for name in os.listdir(target.parent) if named.fullmatch(name)]
    except OSError:  # a folder that may be written but not read
        return []


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file or folder. Raises OSError if another run holds it or there are no locks.

    Windows needs no lock, because it does not remove open files.
    """
    if sys.platform == "win32":
        yield
        return
    # Network file systems lock only what is open for writing, which a folder cannot be.
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until the block ends. Blocks are short: no file is half registered or half removed.

    Signals reach the main thread only, so that in other threads there is nothing to wait for.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    requests: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in handlers:
            signal.signal(number, lambda number, _: requests.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if requests:
            signal.raise_signal(requests[0])


Create = Callable[[Path, Path], int | None]
"""Creates a partial file or folder for a target, and opens it."""


@contextmanager
def _replacing(output: Path, create: Create) -> Iterator[tuple[Path, Path, int]]:
    """Create a partial file or folder and yield it with its target, which it replaces at the end, and its descriptor.

    The descriptor of a folder serves for the lock alone.
    """
    target = Path(os.path.realpath(output))  # resolve() raises an error for a link to itself
    partial, descriptor = target, None
    try:
        require_folder(output)
        _refuse_hub_link(output, target)
        remove_abandoned(target)
        with uninterrupted():
            partial, descriptor = owned(lambda: partial_name(target), lambda path: create(path, target))
        yield partial, target, -1 if descriptor is None else descriptor
        with uninterrupted():
            if sys.platform == "win32" and descriptor is not None:  # where an open file cannot be renamed
                os.close(descriptor)
                descriptor = None
            partial.replace(target)
    except OSError as error:
        raise OutputError(f"{output}: writing failed: {error.strerror}. {_advice(error)}") from error
    finally:
        with uninterrupted():
            if partial != target:
                _remove(partial)
            if descriptor is not None:
                os.close(descriptor)


def _new_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)


def new_folder(path: Path, mode: int = 0o777) -> int | None:
    """Create a folder and open it for its lock, again if another run took it for an abandoned one in between.

    None on Windows, which has no such locks.
    """
    while True:
        path.mkdir(mode=mode)
        if sys.platform == "win32":
            return None
        with suppress(FileNotFoundError):
            return os.open(path, os.O_RDONLY)


def owned(name: Callable[[], Path], create: Callable[[Path], int | None]) -> tuple[Path, int | None]:
    """Create a file or folder under a new name and lock it, again if another run took it for an abandoned one.

    `create` returns its descriptor, if it can be locked.
    """
    while True:
        partial = name()
        try:
            descriptor = create(partial)
            if descriptor is None:
                return partial, None
            try:
                _lock(descriptor)
            except BlockingIOError:  # another run is about to remove it
                pass
            except OSError:  # no locks here: nobody takes it for an abandoned one
                return partial, descriptor
            else:
                if partial.exists():
                    return partial, descriptor
            os.close(descriptor)
        except BaseException:
            _remove(partial)
            raise


def _lock(descriptor: int) -> None:
    """Raises BlockingIOError if another process holds the lock, another OSError if the file system has none."""
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _reserve(descriptor: int, size: int) -> None:
    """Let the file system set space aside: it does so faster at once than piece by piece, and a full disk shows now.

    Raises OSError if there is no space.
    """
    if watching is None or size < RESERVED:
        return
    try:
        watching.reserve(descriptor, size)
    except OSError as error:  # what some file systems cannot do is no fault
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise


def _flush(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (*UNSUPPORTED, errno.EINVAL):
            raise


def _refuse_hub_link(output: Path, target: Path) -> None:
    if output.is_symlink() and target.parent.name == "blobs":
        raise OutputError(
            f"{output}: is a link into the cache of the Hugging Face hub, where all revisions share {target.name}. "
            "Give another name."
        )


def _remove(partial: Path) -> None:
    with suppress(OSError):  # a read-only disk refuses to remove even what does not exist
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def _is_special(path: Path) -> bool:
    """Whether `path` is a device or a pipe, or a link to one."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _check_file(output: Path, target: Path, size: int) -> None:
    if target.is_dir():
        raise OutputError(f"{output}: is a folder. Give the name of a file with -o.")
    if _is_special(output):
        raise OutputError(f"{output}: is a device or a pipe, which a file would replace. Give another name with -o.")
    free = free_bytes(target.parent)
    if free is not None and free < size:
        raise OutputError(
            f"{output}: needs {size:,} bytes, but only {free:,} are free in {target.parent}. "
            "Free some space or write elsewhere."
        )


def free_bytes(folder: Path) -> int | None:
    """Bytes that a user may still write to the disk of `folder`; None if the file system does not say."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return usage.free if usage.total else None  # some network file systems answer 0 free bytes of 0


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
    if error.errno in UNSUPPORTED:
        return "This file system cannot do that: write to another disk and copy the output. Nothing was left behind."
    return "Nothing was left behind; an earlier output is untouched."
