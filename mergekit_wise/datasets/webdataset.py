"""Images in tars, in the layout of clip-benchmark's data sets on the Hugging Face hub.

A folder holds ``test/0.tar``, ``test/1.tar`` ... and their number in ``test/nshards.txt``. A sample is two members with
the same name: an image, and its class number in ``.cls``.
"""

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mergekit_wise.datasets.class_names import read_classnames, read_templates
from mergekit_wise.datasets.decoding import decode
from mergekit_wise.datasets.image_formats import EXTENSIONS
from mergekit_wise.datasets.tar_index import Member, tar_members
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import plural

_LONGEST_COUNT = 1 << 10
"""How many characters of nshards.txt are read."""

_MAX_DESCRIPTORS = 64
"""How many files a process keeps open; further files are opened for each read."""


class Shards:
    """Files that are read at any offset.

    Threads and forked processes may share an object: reads keep no position, and no descriptor is closed before the
    object is deleted. A pickled copy opens its own descriptors.
    """

    def __init__(self, paths: tuple[str, ...], max_descriptors: int = _MAX_DESCRIPTORS) -> None:
        """No file is opened before it is read."""
        self.paths = paths
        self.max_descriptors = max_descriptors
        self._descriptors: dict[int, int] = {}
        weakref.finalize(self, _close, self._descriptors)

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """At most `size` bytes of file number `shard`. Raises SuiteError if it cannot be read."""
        try:
            with self._opened(shard) as descriptor:
                return os.pread(descriptor, size, offset)
        except OSError as error:
            raise SuiteError(f"{self.paths[shard]}: cannot be read: {error.strerror}.") from error

    @contextmanager
    def _opened(self, shard: int) -> Iterator[int]:
        if shard in self._descriptors:
            yield self._descriptors[shard]
            return
        descriptor = os.open(self.paths[shard], os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            full = len(self._descriptors) >= self.max_descriptors
            if full or self._descriptors.setdefault(shard, descriptor) != descriptor:
                os.close(descriptor)

    def __reduce__(self) -> Any:
        return Shards, (self.paths, self.max_descriptors)


def _close(descriptors: dict[int, int]) -> None:
    while descriptors:
        os.close(descriptors.popitem()[1])


@dataclass(frozen=True, slots=True, eq=False)
class TarImages:
    """Images by number.

    `shard` is int32, `offset` and `length` are int64, all [N]; `border` pixels are cropped on each side.
    """

    shards: Shards
    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    names: tuple[str, ...]
    border: int = 0

    def image(self, index: int) -> Image.Image:
        """Image `index` in RGB. Raises SuiteError, naming the tar and the member, if it cannot be decoded."""
        data = self.shards.read(int(self.shard[index]), int(self.offset[index]), self.size(index))
        return decode(data, self.sample(index), self.border)

    def sample(self, index: int) -> str:
        """The tar and the member of image `index`, separated by a colon."""
        return f"{self.shards.paths[int(self.shard[index])]}:{self.names[index]}"

    def size(self, index: int) -> int:
        """The size of the encoded image in bytes."""
        return int(self.length[index])


@dataclass(frozen=True, slots=True, eq=False)
class TarSet:
    """The contents of a folder of tars.

    `labels` are int64 [N]; `classnames` and `templates` come from text files next to the tars, and are None if there
    are no such files.
    """

    images: TarImages
    labels: NDArray[np.int64]
    classnames: tuple[str, ...] | None
    templates: tuple[str, ...] | None


def has_tars(folder: Path) -> bool:
    """Whether `folder` holds tars that `open_tars` would read."""
    return bool(_shard_paths(folder))


def open_tars(folder: Path, border: int = 0) -> TarSet:
    """Index the tars of `folder` from their headers; no image is decoded.

    Raises SuiteError if a tar is missing or damaged, if a sample lacks its image or label, or if there is no sample.
    """
    shards = Shards(tuple(str(path) for path in _shard_paths(folder)))
    samples = [(number, *sample) for number in range(len(shards.paths)) for sample in _samples(shards, number)]
    if not samples:
        raise SuiteError(f"{folder}: expected tars with images and .cls files, found no sample in them.")
    images = TarImages(
        shards,
        shard=np.array([number for number, _, _ in samples], dtype=np.int32),
        offset=np.array([member.offset for _, member, _ in samples], dtype=np.int64),
        length=np.array([member.size for _, member, _ in samples], dtype=np.int64),
        names=tuple(member.name for _, member, _ in samples),
        border=border,
    )
    labels = np.array([label for _, _, label in samples], dtype=np.int64)
    names, templates = folder / "classnames.txt", folder / "zeroshot_classification_templates.txt"
    return TarSet(
        images,
        labels,
        read_classnames(names) if names.exists() else None,
        read_templates(templates) if templates.exists() else None,
    )


def _shard_paths(folder: Path) -> tuple[Path, ...]:
    """The tars of the test part, or of the folder itself, in the order of their numbers."""
    for place in (folder / "test", folder):
        count_file = place / "nshards.txt"
        if count_file.is_file():
            return _counted(count_file)
        inside = list(place.iterdir()) if place.is_dir() else []
        tars = [path for path in inside if path.name.endswith(".tar") and not path.name.startswith(".")]
        # A tar next to class folders is usually the archive from which they were unpacked.
        if tars and not any(path.is_dir() for path in inside):
            return tuple(sorted(tars, key=lambda path: (len(path.name), path.name)))
    return ()


def _counted(path: Path) -> tuple[Path, ...]:
    """The tars that nshards.txt counts. Raises SuiteError if it holds no number, or if one of the tars is missing."""
    with path.open(encoding="utf-8", errors="replace") as file:
        text = file.read(_LONGEST_COUNT).strip()
    if not (text.isascii() and text.isdecimal() and len(text) < 8 and int(text)):
        raise SuiteError(f"{path}: expected the number of tars in this folder, found {text[:40]!r}.")
    tars = []
    for number in range(int(text)):
        tars.append(path.with_name(f"{number}.tar"))
        if not tars[-1].exists():  # no list is longer than the folder's
            raise SuiteError(
                f"{tars[-1]}: is missing; nshards.txt next to it counts {plural(int(text), 'tar')}. "
                "Resume the download."
            )
    return tuple(tars)


def _samples(shards: Shards, shard: int) -> list[tuple[Member, int]]:
    """The image and the label of every sample of one tar, in the order of the images."""
    path = shards.paths[shard]
    images: dict[str, Member] = {}
    labels: dict[str, int] = {}
    for member in tar_members(path):
        key, extension = _split(member.name)
        if extension == ".cls":
            labels[key] = _label(shards.read(shard, member.offset, min(member.size, 512)), f"{path}:{member.name}")
        elif extension in EXTENSIONS:
            if key in images:
                raise SuiteError(f"{path}: holds two images named {key!r}. Download it again.")
            images[key] = member
    if incomplete := sorted(images.keys() ^ labels.keys()):
        lacks = ".cls file" if incomplete[0] in images else "image"
        more = f"; {plural(len(incomplete), 'sample')} of this tar are incomplete" if len(incomplete) > 1 else ""
        raise SuiteError(f"{path}: the sample {incomplete[0]!r} has no {lacks}{more}. Download it again.")
    return [(member, labels[key]) for key, member in images.items()]


def _split(name: str) -> tuple[str, str]:
    """The sample and the extension of a member: cut at the first dot of the file name, as webdataset does."""
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return f"{folder}{slash}{stem}", f".{extension.lower()}"


def _label(content: bytes, where: str) -> int:
    text = content.decode("ascii", "replace").strip()
    if not text.isdecimal() or len(text) > 9:
        raise SuiteError(f"{where}: expected a class number, found {text[:40]!r}.")
    return int(text)
