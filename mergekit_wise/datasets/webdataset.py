"""Images in tars, as webdataset reads them and as clip-benchmark's data sets on the Hugging Face hub have them.

A folder holds ``test/0.tar``, ``test/1.tar`` ... and their number in ``test/nshards.txt``, or the tars themselves. The
samples in a tar are found by `tar_samples`.
"""

import os
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mergekit_wise.datasets.class_names import read_classnames, read_templates
from mergekit_wise.datasets.decoding import decode
from mergekit_wise.datasets.fingerprint import file_identity
from mergekit_wise.datasets.splits import choose_part, part_folder, part_names, role_in, role_of, usable
from mergekit_wise.datasets.tar_index import Member
from mergekit_wise.datasets.tar_samples import Contents, Sample, read_images, read_samples
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import listed, plural

_LONGEST_COUNT = 1 << 10
"""How many characters of nshards.txt are read."""

_MAX_DESCRIPTORS = 64
"""How many files a process keeps open; further files are opened for each read."""

COMPRESSED = (".tar.gz", ".tgz")
"""Endings of tars that cannot be read at an offset."""


class Readable(Protocol):
    """Files that are read at any offset, on disks or on servers."""

    paths: tuple[str, ...]

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """At most `size` bytes of file number `shard`. Raises SuiteError if it cannot be read."""


class Shards:
    """Files that are read at any offset.

    Threads and forked processes may share an object: reads keep no position, and no descriptor is closed before the
    object is deleted. A pickled copy opens its own descriptors.
    """

    def __init__(
        self,
        paths: tuple[str, ...],
        max_descriptors: int = _MAX_DESCRIPTORS,
        identities: tuple[tuple[int, ...], ...] | None = None,
    ) -> None:
        """No file is opened before it is read; `identities` are those of the files when they were listed, now."""
        self.paths = paths
        self.max_descriptors = max_descriptors
        self.identities = tuple(map(file_identity, paths)) if identities is None else identities
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
        return Shards, (self.paths, self.max_descriptors, self.identities)


def _close(descriptors: dict[int, int]) -> None:
    while descriptors:
        os.close(descriptors.popitem()[1])


@dataclass(frozen=True, slots=True, eq=False)
class TarImages:
    """Images by number.

    `shard` is int32, `offset` and `length` are int64, all [N]; `border` pixels are cropped on each side.
    """

    shards: Readable
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
    are no such files; `notes` are sentences on what was left out.
    """

    images: TarImages
    labels: NDArray[np.int64]
    classnames: tuple[str, ...] | None
    templates: tuple[str, ...] | None
    notes: tuple[str, ...] = ()


def has_tars(folder: Path, part: str = "test") -> bool:
    """Whether `folder` holds tars that `open_tars` would read for that part."""
    parts = part_names(folder, _holds_tars)
    return usable(parts, part) if parts else _holds_tars(folder)


def open_tars(
    folder: Path,
    border: int = 0,
    part: str = "test",
    classnames: tuple[str, ...] | None = None,
    *,
    leave_out_incomplete: bool = False,
) -> TarSet:
    """Index the tars of the `part` of `folder` from their headers; no image is decoded.

    Labels that are names are looked up in `classnames`, or else in ``classnames.txt``; one of the two is needed. Labels
    that are numbers are those of the latter. Samples without an image or a label are an error unless they are to be
    left out.

    Raises SuiteError if a tar is missing, damaged or compressed, if a sample lacks its image or label, if there is no
    sample, or if the part is not clear.
    """
    place, notes = part_folder(folder, part, _holds_tars)
    paths, more = _shard_paths(place, part)
    beside = _texts_beside(place)
    own = read_classnames(beside / "classnames.txt") if (beside / "classnames.txt").is_file() else None
    prompts = beside / "zeroshot_classification_templates.txt"
    shards = Shards(tuple(map(str, paths)))
    return tar_set(
        shards,
        read_samples(shards.paths, shards.read, leave_out_incomplete=leave_out_incomplete),
        place,
        border,
        classnames,
        own,
        read_templates(prompts) if prompts.is_file() else None,
        (*notes, *more),
    )


def open_tar(path: Path, classnames: tuple[str, ...] | None = None, *, leave_out_incomplete: bool = False) -> TarSet:
    """Index one tar; see `open_tars`."""
    shards = Shards((str(path),))
    contents = read_samples(shards.paths, shards.read, leave_out_incomplete=leave_out_incomplete)
    return tar_set(shards, contents, path, 0, classnames, None, None, ())


def open_all_images(place: Path) -> tuple[TarImages, tuple[str, ...]]:
    """Every image of a tar, or of a folder of tars, without labels; and sentences on what was left out.

    Of a folder with parts, the test part is opened (see `splits`). Raises SuiteError as `open_tars` does, but for
    labels, or if there is no image.
    """
    paths, notes = ((place,), ()) if place.is_file() else tar_paths(place)
    shards = Shards(tuple(map(str, paths)))
    found = read_images(shards.paths)
    if not found.members:
        what = f" Besides, {'; '.join(found.notes)}." if found.notes else ""
        raise SuiteError(f"{place}: expected images in {plural(len(paths), 'tar')}, found none.{what}")
    return tar_images(shards, found.members), (*notes, *found.notes)


def tar_paths(folder: Path, part: str = "test") -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The tars of the `part` of a folder, and notes on the choice. Raises SuiteError as `open_tars` does for tars."""
    place, notes = part_folder(folder, part, _holds_tars)
    paths, more = _shard_paths(place, part)
    return paths, (*notes, *more)


def tar_images(shards: Readable, members: Sequence[tuple[int, Member]], border: int = 0) -> TarImages:
    """Images by the numbers of their tars and their members."""
    return TarImages(
        shards,
        shard=np.array([shard for shard, _ in members], dtype=np.int32),
        offset=np.array([member.offset for _, member in members], dtype=np.int64),
        length=np.array([member.size for _, member in members], dtype=np.int64),
        names=tuple(member.name for _, member in members),
        border=border,
    )


def tar_set(
    shards: Readable,
    contents: Contents,
    place: Path | str,
    border: int,
    given: tuple[str, ...] | None,
    own: tuple[str, ...] | None,
    templates: tuple[str, ...] | None,
    notes: tuple[str, ...],
) -> TarSet:
    """The data set of the samples in `shards`.

    Args:
        shards: the tars.
        contents: their samples.
        place: where they are, for messages.
        border: pixels to crop on each side of an image.
        given: class names of the user's.
        own: class names beside the tars.
        templates: templates beside the tars.
        notes: come first.
    """
    samples = contents.samples
    if not samples:
        raise SuiteError(
            f"{place}: expected tars with images and .cls files, found no sample in them. A label may also be in a "
            ".json or .txt file of the image's name."
        )
    images = tar_images(shards, [(sample.shard, sample.image) for sample in samples], border)
    labels = _labels(samples, given or own, shards, place)
    numbered = all(isinstance(sample.label, int) for sample in samples)  # these are positions in the tars' own list
    return TarSet(images, labels, own if numbered and own else given or own, templates, (*notes, *contents.notes))


def _labels(
    samples: tuple[Sample, ...], classnames: tuple[str, ...] | None, shards: Readable, place: Path | str
) -> NDArray[np.int64]:
    """The class numbers, int64 [N], where names are looked up among `classnames`."""
    named = sorted({sample.label for sample in samples if isinstance(sample.label, str)})
    if named and classnames is None:
        raise SuiteError(
            f"{place}: its labels are names, {plural(len(named), 'name')} such as {listed(map(repr, named), 3)}, and "
            "the order of the classes is unknown. List the class names in classnames.txt next to the tars, one per "
            "line, in the order of the model's classes."
        )
    number_of = {name: number for number, name in enumerate(classnames or ())}
    for sample in samples:
        if isinstance(sample.label, str) and sample.label not in number_of:
            raise SuiteError(
                f"{shards.paths[sample.shard]}:{sample.image.name}: its label {sample.label!r} is not among the "
                f"{plural(len(number_of), 'class name')}."
            )
    return np.array(
        [number_of[label] if isinstance(label := sample.label, str) else label for sample in samples], dtype=np.int64
    )


def _texts_beside(place: Path) -> Path:
    """The folder of classnames.txt: that of the tars, or the one above a part."""
    own = (place / "classnames.txt", place / "zeroshot_classification_templates.txt")
    is_part = role_of(place.resolve().name) is not None
    return place.resolve().parent if is_part and not any(path.is_file() for path in own) else place


def _holds_tars(place: Path) -> bool:
    """Whether the folder itself holds tars that are a data set."""
    return (place / "nshards.txt").is_file() or bool(_loose_tars(place)) or bool(compressed_tars(place))


def _loose_tars(place: Path) -> list[Path]:
    inside = list(place.iterdir()) if place.is_dir() else []
    tars = [path for path in inside if path.name.endswith(".tar") and not path.name.startswith(".")]
    # A tar next to class folders is usually the archive from which they were unpacked.
    if any(path.is_dir() and role_of(path.name) is None and not path.name.startswith(".") for path in inside):
        return []
    return sorted(tars, key=lambda path: (len(path.name), path.name))


def compressed_tars(place: Path) -> list[Path]:
    """The compressed tars in a folder that has neither folders nor tars that could be what they were made from."""
    inside = list(place.iterdir()) if place.is_dir() else []
    if any(path.is_dir() or path.name.endswith(".tar") for path in inside if not path.name.startswith(".")):
        return []
    return sorted(path for path in inside if path.name.endswith(COMPRESSED) and not path.name.startswith("."))


def _shard_paths(place: Path, part: str) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The tars of a part in a folder, in the order of their numbers, and notes on the choice."""
    if packed := compressed_tars(place):
        endings = " ".join(sorted({f"{place}/*{end}" for end in COMPRESSED for p in packed if p.name.endswith(end)}))
        raise SuiteError(
            f"{packed[0]}: compressed tars cannot be read at an offset; found {len(packed)} of them. "
            f"Run: gunzip {endings}"
        )
    tars = _loose_tars(place)
    if (place / "nshards.txt").is_file():
        counted = _counted(place / "nshards.txt")
        beside = [path.name for path in tars if path not in counted]
        note = f"{plural(len(beside), 'tar')} that nshards.txt does not count not read: {listed(beside, 3)}"
        return counted, (note,) if beside else ()
    by_part: dict[str, list[Path]] = {}
    for path in tars:
        by_part.setdefault(role_in(path.name), []).append(path)
    # A path that names a part is the user's own choice.
    if len(by_part) == 1 and ("" in by_part or role_of(place.resolve().name)):
        return tuple(tars), ()
    if unnamed := by_part.pop("", []):
        raise SuiteError(
            f"{place}: the part of {unnamed[0].name} is unclear beside tars of the parts "
            f"{listed(map(repr, by_part))}. Move each part into a folder of its own, such as {place}/train."
        )
    choice = choose_part(
        tuple(by_part), part, place, lambda name: f"move its tars into {place / name} and give that path"
    )
    return tuple(by_part[choice.name]), choice.notes


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
