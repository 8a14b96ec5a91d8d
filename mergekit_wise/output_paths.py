"""Keeps what a command writes apart from what it reads, before any work is done. Knows no option by name."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from mergekit_wise.errors import OutputError, UsageError


def require_apart(outputs: Mapping[str, Path], folders: Mapping[str, Path], inputs: Iterable[tuple[str, Path]]) -> None:
    """Compare files and folders by what they are, whatever name or link leads to them.

    Args:
        outputs: the path of each option that names a file to write.
        folders: the path of each option that names a folder to write files in, which several options may share.
        inputs: an option and a path, for everything that is read.

    Raises OutputError if an output is one of the inputs, UsageError if two outputs are the same file.
    """
    written = {option: path for option, path in {**outputs, **folders}.items() if not _is_stream(path)}
    read = [(option, path) for option, path in inputs if os.path.lexists(path)] if written else []
    for option, output in written.items():
        for source, path in read:
            if _same(output, path):
                raise OutputError(
                    f"{output}: the output of {option} is one of the inputs ({source}) and would be replaced. "
                    f"Give another name with {option}."
                )
    seen: dict[str, str] = {}
    for option, output in written.items():
        earlier = seen.setdefault(os.path.realpath(output), option)
        if earlier != option and not {earlier, option} <= folders.keys():
            raise UsageError(
                f"{output} is given for two outputs, {earlier} and {option}. Give each output a file of its own."
            )


def _same(output: Path, path: Path) -> bool:
    try:
        return output.samefile(path)
    except (OSError, ValueError):  # one of the two does not exist, or cannot
        return os.path.realpath(output) == os.path.realpath(path)


def _is_stream(path: Path) -> bool:
    """Whether a path leads to a device or a pipe, which any number of outputs may share."""
    try:
        return path.exists() and not path.is_file() and not path.is_dir()
    except (OSError, ValueError):
        return False
