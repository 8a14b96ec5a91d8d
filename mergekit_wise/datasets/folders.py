"""Images in class folders, in the order of torchvision's ImageFolder.

Nothing is left out in silence: hidden and system files, links that lead nowhere, files that are no images, images
without a class and classes without an image are counted and named in `FolderImages.notes`.
"""

import os
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mergekit_wise.datasets.decoding import decode
from mergekit_wise.datasets.image_formats import EXTENSIONS, HEAD_BYTES, ending_of, is_image, unread_format
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import listed, plural

_Identity = tuple[int, int]
"""What a folder has in common with all links to it: the numbers of its disk and of its place there."""

_SHOWN = 3
"""How many names a note gives."""

_ENDINGS = frozenset(extension[1:] for extension in EXTENSIONS)

_SYSTEM = frozenset(
    (
        *("__macosx", "$recycle.bin", "recycler", "system volume information", "thumbs.db", "ehthumbs.db"),
        *("desktop.ini", "lost+found", "@eadir", "@tmp", "@recycle", "#recycle", "#snapshot", "icon\r"),
        *("network trash folder", "temporary items", "__pycache__"),
    )
)
"""Files and folders that operating systems, network disks and tools create, in lower case, besides hidden ones."""


@dataclass(frozen=True, slots=True)
class FolderImages:
    """Image files by index: `paths` are relative to `root`; `border` pixels are cropped on each side.

    `notes` are sentences on what was left out when the folders were listed.
    """

    root: str
    paths: tuple[str, ...]
    border: int = 0
    notes: tuple[str, ...] = ()

    def image(self, index: int) -> Image.Image:
        """Image `index` in RGB. Raises SuiteError, naming the file, if it cannot be read or decoded."""
        path = self.sample(index)
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            raise SuiteError(f"{path}: cannot be read: {error.strerror}.") from error
        return decode(data, path, self.border)

    def sample(self, index: int) -> str:
        """The path of image `index`."""
        return f"{self.root}{os.sep}{self.paths[index]}"

    def size(self, index: int) -> int:
        """The size of the file in bytes."""
        try:
            return os.stat(self.sample(index)).st_size
        except OSError as error:
            raise SuiteError(f"{self.sample(index)}: cannot be read: {error.strerror}.") from error


def class_folders(root: Path) -> tuple[str, ...]:
    """The names of the folders in `root`, sorted as strings, without hidden folders and those of systems and tools."""
    return tuple(sorted(e.name for e in _entries(str(root)) if not is_system(e.name) and e.is_dir()))


def as_text(name: str) -> str:
    r"""The name of a file or folder as text that any file can hold: bytes that are no UTF-8 become ``\xe9``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def is_system(name: str) -> bool:
    """Whether a file or folder is hidden, or one that operating systems and tools create: no class and no image."""
    return name.startswith(".") or name.lower() in _SYSTEM


def list_images(root: Path, label_of: Mapping[str, int], border: int = 0) -> tuple[FolderImages, NDArray[np.int64]]:
    """The images in the folders that are keys of `label_of`, and their labels, int64 [N].

    Folders are in the order of their names as strings; files below them, at any depth, are in ImageFolder's order. A
    folder that does not exist counts as empty. Files are recognised by the endings of their names, those with other
    endings by their first bytes. A folder that is reached again through a link is not listed again.

    Raises SuiteError if there is no image at all, or if a folder cannot be listed.
    """
    start, left = len(str(root)) + 1, _LeftOut(str(root))
    _look_beside_classes(str(root), left)
    above = {_identity(place) for place in (str(root), *map(str, Path(root).resolve().parents))}
    paths: list[str] = []
    labels: list[int] = []
    for folder in sorted(label_of):
        place = os.path.join(root, folder)
        if not os.path.isdir(place):
            continue
        found = [path[start:] for path in _images_below(place, above, left)]
        if not found:
            left.classes.append(folder)
        paths += found
        labels += [label_of[folder]] * len(found)
    if not paths:
        what = f" Besides, {'; '.join(left.notes())}." if left.notes() else ""
        raise SuiteError(
            f"{root}: expected images ({' '.join(EXTENSIONS[:4])} ...) in class folders, found none "
            f"in {plural(len(label_of), 'folder')} such as {next(iter(sorted(label_of)), 'none')!r}.{what}"
        )
    return FolderImages(str(root), tuple(paths), border, left.notes()), np.array(labels, dtype=np.int64)


def list_all_images(root: Path) -> FolderImages:
    """The images below `root`, at any depth, perhaps none; the names of folders mean nothing. Else as `list_images`.

    Raises SuiteError if a folder cannot be listed.
    """
    start, left = len(str(root)) + 1, _LeftOut(str(root))
    above = {_identity(str(place)) for place in root.resolve().parents}
    paths = tuple(path[start:] for path in _images_below(str(root), above, left))
    return FolderImages(str(root), paths, notes=left.notes())


@dataclass(slots=True)
class _LeftOut:
    """Collects the paths, below `root`, of what is no image with a class."""

    root: str
    system: list[str] = field(default_factory=list)
    nowhere: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    unread: dict[str, list[str]] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    recognised: list[str] = field(default_factory=list)

    def notes(self) -> tuple[str, ...]:
        """A sentence for each kind of which there are some."""
        lines = (
            (f"{plural(len(self.classes), 'class folder')} without an image", self.classes),
            (f"left out {plural(len(self.beside), 'image')} beside the class folders", self.beside),
            (f"left out {plural(len(self.others), 'file')} without image content", self.others),
            (f"left out {plural(len(self.closed), 'file')} that cannot be opened", self.closed),
            (f"left out {plural(len(self.nowhere), 'link')} to nothing", self.nowhere),
            (f"left out {plural(len(self.again), 'link')} to folders that are listed anyway", self.again),
            (f"left out {plural(len(self.system), 'hidden or system entry')}", self.system),
            (
                f"recognised {plural(len(self.recognised), 'image')} by content, in spite of the ending of the name",
                self.recognised,
            ),
        )
        unread = (
            f"left out {plural(len(names), 'file')}: {_named(names)}. Found {kind}"
            for kind, names in self.unread.items()
        )
        return (*unread, *(f"{line}: {_named(names)}" for line, names in lines if names))

    def name(self, path: str) -> str:
        """A path as notes show it."""
        return path[len(self.root) + 1 :]

    def put(self, path: str) -> None:
        """Take note of a file that is no image, or none that is read."""
        try:
            head = _head(path)
        except OSError:
            self.closed.append(self.name(path))
            return
        kind = unread_format(head, ending_of(path))
        (self.others if kind is None else self.unread.setdefault(kind, [])).append(self.name(path))


def _named(names: list[str]) -> str:
    return listed(map(repr, sorted(names)), _SHOWN)


def _look_beside_classes(root: str, left: _LeftOut) -> None:
    """Take note of what lies in `root` and is no class folder."""
    for entry in _entries(root):
        if is_system(entry.name):
            left.system.append(entry.name)
        elif entry.is_symlink() and not os.path.exists(entry.path):
            left.nowhere.append(entry.name)
        elif not entry.is_dir():
            if _shows_image(entry, left):
                left.beside.append(entry.name)
            else:
                left.put(entry.path)


def _images_below(folder: str, above: Set[_Identity], left: _LeftOut) -> Iterator[str]:
    """The paths of the images at any depth below `folder`; a folder that links reach, too, is listed once.

    `above` are the folders that hold `folder`, which no link in it may lead to.
    """
    listed_already = set(above)
    found: list[tuple[str, list[str]]] = []
    folders, links = [folder], list[str]()
    # Folders come before links, so that what can be reached without a link keeps its path.
    while folders or links:
        is_link, place = (False, folders.pop()) if folders else (True, links.pop())
        identity = _identity(place)
        if identity in listed_already or (is_link and _leads_back(place)):
            left.again.append(left.name(place))
            continue
        listed_already.add(identity)
        files: list[str] = []
        found.append((place, files))
        for entry in _entries(place):
            if is_system(entry.name):
                left.system.append(left.name(entry.path))
            elif ending_of(entry.name) in _ENDINGS and entry.is_file(follow_symlinks=False):
                files.append(entry.name)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif entry.is_symlink() and not os.path.exists(entry.path):
                left.nowhere.append(left.name(entry.path))
            elif entry.is_dir():
                links.append(entry.path)
            elif _shows_image(entry, left):
                files.append(entry.name)
            else:
                left.put(entry.path)
    for place, files in sorted(found):
        for name in sorted(files):
            yield f"{place}{os.sep}{name}"


def _shows_image(entry: os.DirEntry[str], left: _LeftOut) -> bool:
    """Whether a file is an image by the ending of its name, or else by its first bytes."""
    ending = ending_of(entry.name)
    if ending in _ENDINGS:
        return entry.is_file()  # no pipe, which would be waited for
    try:
        known = entry.is_file() and is_image(_head(entry.path), ending)
    except OSError:
        return False
    if known:
        left.recognised.append(left.name(entry.path))
    return known


def _head(path: str) -> bytes:
    """The first bytes of a file; none of a pipe or a device."""
    if not os.path.isfile(path):
        return b""
    with open(path, "rb", buffering=0) as file:
        return file.read(HEAD_BYTES)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise SuiteError(f"{folder}: cannot be listed: {error.strerror}.") from error


def _identity(folder: str) -> _Identity:
    try:
        stat = os.stat(folder)
    except OSError as error:
        raise SuiteError(f"{folder}: cannot be listed: {error.strerror}.") from error
    return stat.st_dev, stat.st_ino


def _leads_back(link: str) -> bool:
    """Whether a link leads to a folder that it is in itself."""
    target, here = os.path.realpath(link), os.path.realpath(os.path.dirname(link))
    return os.path.commonpath((target, here)) == target
