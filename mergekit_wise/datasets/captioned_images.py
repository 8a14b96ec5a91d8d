"""Images with captions as the rest of the package sees them: several captions of an image are kept together.

This module knows nothing of how captions are stored, nor of models.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.datasets.fingerprint import fingerprint
from mergekit_wise.datasets.subsets import image_within, subset
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import plural, shown

if TYPE_CHECKING:
    from PIL import Image

    from mergekit_wise.datasets.folders import FolderImages
    from mergekit_wise.datasets.webdataset import TarImages

MAX_CAPTIONS = 5_000_000
"""The most captions that are held in memory."""


@dataclass(frozen=True, slots=True)
class CaptionedImages:
    """Images of one distribution, each with one or more captions.

    Attributes:
        name: for records ("flickr30k").
        title: for tables.
        image: decodes image i to RGB; picklable, because worker processes call it.
        sample: the name of image i for messages: a path, or a member of a tar.
        size: the stored size of image i in bytes.
        captions: of each image, without blanks around them, none of them empty or twice.
        location: where the data set was found.
        notes: sentences on what was left out when the data set was opened.
    """

    name: str
    title: str
    image: "Callable[[int], Image.Image]"
    sample: Callable[[int], str]
    size: Callable[[int], int]
    captions: tuple[tuple[str, ...], ...]
    location: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def texts(self) -> tuple[str, ...]:
        """All captions, those of the first image first."""
        return tuple(caption for captions in self.captions for caption in captions)

    @property
    def images(self) -> Dataset:
        """The images alone, with the label 0 and without classes."""
        return Dataset(
            self.name,
            self.title,
            (),
            np.zeros(len(self), np.int64),
            self.image,
            sample=self.sample,
            size=self.size,
            location=self.location,
            notes=self.notes,
        )

    @classmethod
    def of(
        cls, name: str, images: "FolderImages | TarImages", found: "Gathered", location: Path, notes: Iterable[str] = ()
    ) -> "CaptionedImages":
        """Stored images, in the order of those that were `found`, with their captions."""
        every = (*notes, *found.notes)
        return cls(name, name, images.image, images.sample, images.size, found.captions, str(location), every)

    def renamed(self, name: str) -> "CaptionedImages":
        """The same under another name."""
        return replace(self, name=name, title=name)

    @property
    def fingerprint(self) -> str:
        """The first 16 hex digits of a SHA-256 over the images, as in `fingerprint`, and all captions."""
        digest = hashlib.sha256(fingerprint(self.images).encode())
        for captions in self.captions:
            digest.update("\n".join(("", str(len(captions)), *captions)).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]


def captioned_subset(found: CaptionedImages, rows: NDArray[np.int64]) -> CaptionedImages:
    """The images with the indices `rows`, int64 [n], in that order, with their captions."""
    part = subset(found.images, rows)
    assert part.size is not None
    captions = tuple(found.captions[row] for row in rows.tolist())
    return replace(found, image=part.image, sample=part.sample, size=part.size, captions=captions)


def limited_captions(found: CaptionedImages, count: int, seed: int = 0) -> CaptionedImages:
    """A simple random subset of `count` images with their captions, in their old order; all if there are no more.

    A smaller subset is contained in a larger one with the same `seed`.
    """
    if count >= len(found):
        return found
    return captioned_subset(found, np.sort(np.random.default_rng(seed).permutation(len(found))[:count]))


def with_pixels(found: CaptionedImages, most: int | None) -> CaptionedImages:
    """The same with images of up to `most` pixels; None keeps the limit of `decoding.MAX_PIXELS`."""
    return found if most is None else replace(found, image=partial(image_within, found.image, most))


class Gathered(NamedTuple):
    """Images by name, the captions of each, and sentences on what was left out."""

    images: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def gather(pairs: Iterable[tuple[str, str]], where: Path | str, most: int = MAX_CAPTIONS) -> Gathered:
    """Collect the captions of each image, in the order in which images and captions first appear.

    Empty captions, captions that an image has twice, and images that have no others are left out, and the notes say so;
    they also say if different images have the same caption, of which only one can be the right answer to a query.

    Raises SuiteError, naming `where`, if no caption is left, or if there are more than `most`.
    """
    found: dict[str, dict[str, None]] = {}
    empty, twice, count = list[str](), list[str](), 0
    for image, caption in pairs:
        captions, text = found.setdefault(image, {}), caption.strip()
        if not text:
            empty.append(image)
        elif text in captions:
            twice.append(image)
        else:
            captions[text] = None
            count += 1
        if count > most:
            raise SuiteError(
                f"{where}: expected at most {most:,} captions, which are held in memory. Divide the data set."
            )
    if not count:
        raise SuiteError(f"{where}: expected captions of images, found {'empty ones alone' if empty else 'none'}.")
    without = [image for image, captions in found.items() if not captions]
    images = tuple(image for image, captions in found.items() if captions)
    kept = tuple(tuple(found[image]) for image in images)
    notes = [
        f"left out {plural(len(names), what)}, such as {of}{shown(names[0])}"
        for what, of, names in (
            ("empty caption", "one of ", empty),
            ("repeated caption", "one of ", twice),
            ("uncaptioned image", "", without),
        )
        if names
    ]
    times = Counter(text for captions in kept for text in captions)
    if shared := [text for text, number in times.items() if number > 1]:
        notes.append(
            f"{plural(len(shared), 'caption')} of more than one image, such as {shown(shared[0])!r}; each image's own "
            "counts as a text of its own"
        )
    return Gathered(images, kept, tuple(notes))
