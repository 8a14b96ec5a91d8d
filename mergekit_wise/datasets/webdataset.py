"""Images in tars, as clip-benchmark's data sets on the Hugging Face hub have them.

A folder holds ``test/0.tar``, ``test/1.tar`` ..., how many in ``test/nshards.txt``; a sample is two members with one
name, an image and its class number in ``.cls``. Knows nothing of what the classes mean.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mergekit_wise.datasets.class_names import read_classnames, read_templates
from mergekit_wise.datasets.decoding import EXTENSIONS, decode
from mergekit_wise.datasets.shards import Shards
from mergekit_wise.datasets.tar_index import Member, tar_members
from mergekit_wise.errors import SuiteError


@dataclass(frozen=True, slots=True, eq=False)
class TarImages:
    """Images by number: `shard` int32, `offset` and `length` int64, all [N]; `border` is cropped on each side."""

    shards: Shards
    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    names: tuple[str, ...]
    border: int = 0

    def image(self, index: int) -> Image.Image:
        """Image `index` in RGB; SuiteError names the member if it cannot be decoded."""
        data = self.shards.read(int(self.shard[index]), int(self.offset[index]), self.size(index))
        return decode(data, self.sample(index), self.border)

    def sample(self, index: int) -> str:
        """The tar and the member that image `index` is."""
        return f"{self.shards.paths[int(self.shard[index])]}:{self.names[index]}"

    def size(self, index: int) -> int:
        """The bytes of the encoded image."""
        return int(self.length[index])


@dataclass(frozen=True, slots=True, eq=False)
class TarSet:
    """What a folder of tars holds: `labels` int64 [N], and the texts that lie beside the tars, None where none do."""

    images: TarImages
    labels: NDArray[np.int64]
    classnames: tuple[str, ...] | None
    templates: tuple[str, ...] | None


def has_tars(folder: Path) -> bool:
    """Whether `folder` is laid out as this module reads it."""
    return bool(_shard_paths(folder))


def open_tars(folder: Path, border: int = 0) -> TarSet:
    """Index the tars of `folder`: one walk over their headers, and no image decoded.

    Raises SuiteError if a tar is missing or damaged, if a sample lacks its image or its label, or if there is none.
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
    """The tars of the test part, or of the folder itself, by number."""
    for place in (folder / "test", folder):
        counted = place / "nshards.txt"
        if counted.is_file():
            return tuple(place / f"{number}.tar" for number in range(_count(counted)))
        inside = list(place.iterdir()) if place.is_dir() else []
        found = [path for path in inside if path.name.endswith(".tar") and not path.name.startswith(".")]
        # Beside class folders lies what they were unpacked from.
        if found and not any(path.is_dir() for path in inside):
            return tuple(sorted(found, key=lambda path: (len(path.name), path.name)))
    return ()


def _count(path: Path) -> int:
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    if not text.isdecimal() or not 0 < int(text) <= 1_000_000:
        raise SuiteError(f"{path}: expected the number of tars beside it, found {text[:40]!r}.")
    return int(text)


def _samples(shards: Shards, number: int) -> Iterator[tuple[Member, int]]:
    """Image and label of every sample of one tar, in the order of the images."""
    path = shards.paths[number]
    if not os.path.exists(path):
        raise SuiteError(
            f"{path}: is missing; nshards.txt beside it counts {len(shards.paths)} tars. Go on with the download."
        )
    images: dict[str, Member] = {}
    labels: dict[str, int] = {}
    for member in tar_members(lambda start, size: shards.read(number, start, size), shards.length(number), path):
        key, extension = _split(member.name)
        if extension == ".cls":
            labels[key] = _label(member, path)
        elif extension in EXTENSIONS:
            if key in images:
                raise SuiteError(f"{path}: holds two images called {key!r}; which one counts cannot be told.")
            images[key] = member
    if halves := sorted(images.keys() ^ labels.keys()):
        lacks = ".cls file" if halves[0] in images else "image"
        raise SuiteError(f"{path}: the sample {halves[0]!r} has no {lacks}; {len(halves)} samples are such halves.")
    return ((member, labels[key]) for key, member in images.items())


def _split(name: str) -> tuple[str, str]:
    """A member's sample and its extension, cut at the first dot of the last part, as webdataset does."""
    stem, _, extension = name[name.rfind("/") + 1 :].partition(".")
    return name[: name.rfind("/") + 1] + stem, f".{extension.lower()}"


def _label(member: Member, path: str) -> int:
    text = member.head.decode("ascii", "replace").strip()
    if not text.isdecimal() or len(text) > 9:
        raise SuiteError(f"{path}:{member.name}: expected a class number, found {text[:40]!r}.")
    return int(text)
