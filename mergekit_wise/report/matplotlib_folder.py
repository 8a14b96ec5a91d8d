"""A folder for matplotlib's cache of fonts that later runs find again.

Where the home folder is missing or read-only, matplotlib makes a new temporary folder each time, which stays behind if
the process is killed.
"""

import os
import sys
import tempfile
from pathlib import Path

VARIABLE = "MPLCONFIGDIR"
"""The environment variable that names matplotlib's folder."""


def choose_folder() -> None:
    """Set `VARIABLE`, before matplotlib is imported, if matplotlib would make a temporary folder.

    A variable that is set already, and matplotlib's own folders in the user's home, are left alone.
    """
    if os.environ.get(VARIABLE) or all(_usable(folder) for folder in _own_folders()):
        return
    for folder in (_cache() / "mergekit_wise" / "matplotlib", Path(tempfile.gettempdir(), f"mergekit_wise-{_user()}")):
        if _usable(folder) and _owned(folder):
            os.environ[VARIABLE] = str(folder)
            return


def _own_folders() -> tuple[Path, ...]:
    """Where matplotlib keeps its settings and its cache by default."""
    if not sys.platform.startswith(("linux", "freebsd")):
        return (_home() / ".matplotlib",)
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or _home() / ".config")
    return settings / "matplotlib", _cache() / "matplotlib"


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache")


def _home() -> Path:
    return Path(os.path.expanduser("~"))


def _user() -> str:
    return str(os.getuid()) if sys.platform != "win32" else "user"


def _usable(folder: Path) -> bool:
    """Whether a folder exists, or can be created, and files can be written to it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _owned(folder: Path) -> bool:
    """Whether a folder is this user's, and no link: others may create files among the temporary ones."""
    return sys.platform == "win32" or (folder.lstat().st_uid == os.getuid() and not folder.is_symlink())
