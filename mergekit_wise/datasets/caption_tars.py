"""Image-caption pairs in tars, as img2dataset and clip-benchmark's data sets have them.

The captions of ``0001.jpg`` are the lines of ``0001.txt``, or the caption in ``0001.json``.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mergekit_wise.datasets.captioned_images import CaptionedImages, gather
from mergekit_wise.datasets.folders import as_text
from mergekit_wise.datasets.image_formats import EXTENSIONS
from mergekit_wise.datasets.splits import role_of
from mergekit_wise.datasets.tar_index import Member, tar_members
from mergekit_wise.datasets.tar_samples import is_hidden
from mergekit_wise.datasets.webdataset import Shards, has_tars, tar_images, tar_paths
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import plural, shown

_KEYS = ("caption", "captions", "title", "text")
_LONGEST = 1 << 20
"""The most bytes of a member with captions."""


@dataclass(slots=True)
class _Fields:
    """What a tar has for one name."""

    images: list[Member] = field(default_factory=list)
    text: Member | None = None
    json: Member | None = None


def open_caption_tars(place: Path, part: str = "test") -> CaptionedImages:
    """The images and captions of a tar, or of the `part` of a folder of tars (see `open_tars`).

    Raises SuiteError if a tar is missing, damaged or compressed, or if an image has no captions.
    """
    if place.is_dir() and not has_tars(place, part):
        raise SuiteError(
            f"{place}: expected tars with images and captions, found none. For images in folders, give a table of "
            "their paths and captions."
        )
    paths, notes = ((place,), ()) if place.is_file() else tar_paths(place, part)
    shards = Shards(tuple(map(str, paths)))
    members: dict[str, tuple[int, Member]] = {}
    pairs: list[tuple[str, str]] = []
    alone: list[str] = []
    for shard, path in enumerate(shards.paths):
        for name, fields in _fields(path).items():
            if not fields.images:
                alone.append(name)
                continue
            image = fields.images[0]
            if len(fields.images) > 1:
                raise SuiteError(f"{path}: {name!r} is both {image.name!r} and {fields.images[1].name!r}. Remove one.")
            key = f"{path}:{image.name}"
            members[key] = (shard, image)
            pairs += [(key, caption) for caption in _captions(shards, shard, fields, key)]
    if alone:
        notes = (*notes, f"left out {plural(len(alone), 'text')} of no image in the tars, such as {alone[0]!r}")
    if not members:
        raise SuiteError(f"{place}: expected tars with images and captions, found no image.")
    found = gather(pairs, place)
    images = tar_images(shards, [members[key] for key in found.images])
    folder = place.resolve()
    name = as_text(place.stem if place.is_file() else (folder.parent if role_of(folder.name) else folder).name)
    return CaptionedImages.of(name, images, found, place, notes)


def _fields(path: str) -> dict[str, _Fields]:
    """The members of a tar by what precedes their last dot, in the order of the tar."""
    found: dict[str, _Fields] = {}
    for member in tar_members(path):
        if is_hidden(member.name):
            continue
        name, _, ending = member.name.rpartition(".")
        ending = f".{ending.lower()}"
        if ending in EXTENSIONS:
            found.setdefault(name, _Fields()).images.append(member)
        elif ending == ".txt":
            found.setdefault(name, _Fields()).text = member
        elif ending == ".json":
            found.setdefault(name, _Fields()).json = member
    return found


def _captions(shards: Shards, shard: int, fields: _Fields, key: str) -> Iterator[str]:
    """The captions of an image; an empty one if its text is empty. Raises SuiteError if it has no text."""
    member = fields.text or fields.json
    where = f"{shards.paths[shard]}:{member.name}" if member else key
    if member is None:
        raise SuiteError(f"{where}: has no caption: there is no .txt and no .json of its name. Download the tar again.")
    if member.size > _LONGEST:
        raise SuiteError(f"{where}: expected captions of at most {_LONGEST:,} bytes, found {member.size:,}.")
    content = shards.read(shard, member.offset, member.size)
    try:
        text = content.decode("utf-8-sig")
        found = text.splitlines() if member is fields.text else _of_json(text)
    except (ValueError, RecursionError) as error:
        raise SuiteError(f"{where}: expected captions in UTF-8: {error}.") from error
    yield from found or [""]


def _of_json(text: str) -> list[str]:
    value: Any = json.loads(text)
    key = next((key for key in _KEYS if key in value), None) if isinstance(value, dict) else None
    found = value[key] if key is not None else value
    captions = found if isinstance(found, list) else [found]
    if not all(isinstance(caption, str) for caption in captions) or isinstance(found, dict):
        raise ValueError(f"there is no caption under {', '.join(map(repr, _KEYS))}, but {shown(repr(found))}")
    return captions
