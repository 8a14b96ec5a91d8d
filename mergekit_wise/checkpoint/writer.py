"""Writing a file that is there whole or not at all. Knows bytes and offsets, no tensors.

The bytes go to a sibling of the output, which is renamed over it at the end. Whatever happens before that, the sibling
is removed and an earlier output stays as it was. Where there is one, the sibling is flushed to disk before it takes its
place: should the power fail, one of the two is whole. A new file is left to the system to flush, as `cp` leaves it.
"""

import errno
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint.layout import plan_layout
from mergekit_wise.checkpoint.litter import owning, partial_name, remove_litter
from mergekit_wise.checkpoint.tensors import TensorInfo
from mergekit_wise.errors import OutputError


class Writer(Protocol):
    """Puts bytes at an offset of the file; may be called from several threads at once."""

    def __call__(self, offset: int, data: NDArray[np.generic]) -> None:
        """Write all of `data`, a contiguous array, from byte `offset` on."""


def refuse_overwriting(output: Path, inputs: tuple[Path, ...]) -> None:
    """Raise OutputError if `output` is one of `inputs`, whatever they are called."""
    for source in inputs:
        with suppress(OSError):  # one of the two is not there
            if output.samefile(source):
                raise OutputError(f"{output}: the output is one of the inputs. Give another name with -o.")


def require_folder(output: Path) -> None:
    """Raise OutputError if `output` would lie in a folder that is not there: no output makes one, which hides slips."""
    folder = Path(os.path.realpath(output)).parent
    if not folder.is_dir():
        raise OutputError(f"{output}: the folder {folder} does not exist. Create it first.")


@contextmanager
def writing(output: Path, size: int) -> Iterator[Writer]:
    """Write a file of `size` bytes. On leaving without an exception it becomes `output`.

    Raises OutputError if the folder is missing or refuses, or if the disk is too small or fills up.
    """
    target = Path(os.path.realpath(output))  # resolve() has no answer for a link in a circle
    partial = partial_name(target)
    try:
        _check(output, target, size)
        remove_litter(target)
        partial.touch(exist_ok=False)
        with owning(partial):
            with partial.open("r+b") as file:
                file.truncate(size)
                yield _writer(file.fileno())
                if target.exists():
                    os.fsync(file.fileno())
            partial.replace(target)
    except OSError as error:
        raise OutputError(f"{output}: writing failed: {error.strerror}. {_advice(error)}") from error
    finally:
        with suppress(OSError):  # a read-only disk and a name too long refuse to remove what is not there, too
            partial.unlink(missing_ok=True)


def write_safetensors(
    output: Path, tensors: Mapping[str, tuple[TensorInfo, NDArray[np.generic]]], metadata: Mapping[str, str]
) -> None:
    """Write tensors that are in memory, as carriers of their dtypes. Raises OutputError."""
    layout = plan_layout((info for info, _ in tensors.values()), metadata)
    with writing(output, layout.size) as write:
        write(0, np.frombuffer(layout.header, np.uint8))
        for info in layout.infos:
            write(layout.offsets[info.name], np.ascontiguousarray(tensors[info.name][1]))


def _check(output: Path, target: Path, size: int) -> None:
    require_folder(output)
    if target.is_dir():
        raise OutputError(f"{output}: is a folder. Give the name of a file with -o.")
    if target.exists() and not target.is_file():
        raise OutputError(f"{output}: is a device or a pipe, which a file would replace. Give another name with -o.")
    free = _free_bytes(target.parent)
    if free < size:
        raise OutputError(
            f"{output}: needs {size:,} bytes, but only {free:,} are free in {target.parent}. "
            "Free some space or write elsewhere."
        )


def _free_bytes(folder: Path) -> int:
    import shutil  # 10 ms that only a writer needs

    return shutil.disk_usage(folder).free


def _writer(descriptor: int) -> Writer:
    if sys.platform == "win32":  # no pwrite: position and write under a lock
        lock = threading.Lock()

        def write_locked(offset: int, data: NDArray[np.generic]) -> None:
            with lock:
                os.lseek(descriptor, offset, os.SEEK_SET)
                view = memoryview(data).cast("B")
                while view:
                    view = view[os.write(descriptor, view) :]

        return write_locked

    def write(offset: int, data: NDArray[np.generic]) -> None:
        view = data.view(np.uint8).reshape(-1).data
        while view:  # a signal or a nearly full disk cuts a write short
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written

    return write


def _advice(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Free some space or write elsewhere; nothing was left behind."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "Choose a folder that you may write to."
    return "Nothing was left behind; an earlier output is untouched."
