"""Decoded images on disk, at the model's size, so that later runs with the same images and preprocessing decode none.

A file of the cache holds, for some images of a data set in the order of their indices:

- pixels, uint8 [n, 3, H, W],
- the CRC-32 of the pixels of each image, uint32 [n],
- which images could not be read, in JSON,
- the size of that text, a CRC-32 of it and of the sums before it, and `MAGIC`.

Its key holds all that pixels depend on: the files of the images and when they were changed, how they are decoded,
resized and cropped, and the versions of the libraries that do so. Images that are damaged on disk, or that could not be
read before, are decoded again. Knows no model.
"""

import hashlib
import json
import struct
import zlib
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import IO, Self

import numpy as np
from numpy.typing import NDArray

from mergekit_wise import __version__
from mergekit_wise.cache import Cache, key_of
from mergekit_wise.datasets.addresses import is_address
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.datasets.fingerprint import images_identity
from mergekit_wise.evaluation.image_batches import Bad, Batch, Indices, Preprocessing, decode, decoded
from mergekit_wise.models.transform import Preprocess
from mergekit_wise.wording import plural

KIND = "images"

MAGIC = b"wiseimg1"

LIBRARIES = ("pillow", "torchvision", "open_clip_torch", "timm", "numpy")
"""Those that pixels may depend on."""

_END = struct.Struct("<QI8s")

_AHEAD = 2
"""Batches that are read from the disk in advance."""


@dataclass(frozen=True, slots=True)
class ImageCache:
    """What `decoded` gives, from the disk if an earlier run has kept it.

    Attributes:
        cache: where it is kept.
        note: called once for each data set and sentence.
    """

    cache: Cache
    note: Callable[[str], object]
    _noted: set[str] = field(default_factory=set)
    _keys: dict[int, tuple[Dataset, str | None]] = field(default_factory=dict)

    @classmethod
    def open(cls, note: Callable[[str], object]) -> Self:
        """In the user's cache. Raises UsageError if its limit is not a size."""
        return cls(Cache.open(note), note)

    def decoded(
        self,
        dataset: Dataset,
        preprocess: Preprocessing,
        batches: Sequence[Indices],
        batch_size: int,
        *,
        workers: int,
        hold: int,
    ) -> Generator[Batch, None, None]:
        """See `image_batches.decoded`. Images are kept when all of `batches` were decoded."""
        order = np.unique(np.concatenate([np.zeros(0, np.int64), *batches]))
        facts = self._facts(dataset, preprocess)
        if facts is None or not isinstance(preprocess, Preprocess) or not len(order):
            return decoded(dataset, preprocess, batches, batch_size, workers=workers, hold=hold)
        some = [len(order), hashlib.sha256(order.astype("<i8").tobytes()).hexdigest()]
        key = key_of(f"{dataset.name}, {plural(len(order), 'image')}", [facts, some])
        path = self.cache.find(KIND, key)
        kept = None if path is None else Kept.open(path, order, preprocess.shape)
        if kept is not None:
            self._note_once(f"{dataset.title}: decoded images are read from the cache ({kept.path})")
            return self._read(kept, dataset, preprocess, batches, batch_size)
        size = len(order) * prod(preprocess.shape)
        source = decoded(dataset, preprocess, batches, batch_size, workers=workers, hold=hold)
        return self._storing(source, dataset, key, order) if self.cache.make_room(size) else source

    def _facts(self, dataset: Dataset, preprocess: Preprocessing) -> str | None:
        """A digest of what the pixels of any image depend on; None for images that cannot be kept, which is said."""
        at = id(dataset)
        if at not in self._keys or self._keys[at][0] is not dataset:
            self._keys[at] = (dataset, images_identity(dataset))
        identity = self._keys[at][1]
        if identity is None or not isinstance(preprocess, Preprocess):
            why = "they are transformed by a function"
            if identity is None:
                on_server = is_address(dataset.sample(0))
                why = "they are on a server" if on_server else "nothing says that later runs would get the same ones"
            self._note_once(f"{dataset.title}: decoded images are not kept in the cache, because {why}")
            return None
        versions = {"mergekit_wise": __version__, **{name: version(name) for name in LIBRARIES}}
        facts = [identity, {**asdict(preprocess), "is_cropped": dataset.is_cropped}, versions]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def _read(
        self, kept: "Kept", dataset: Dataset, preprocess: Preprocess, batches: Sequence[Indices], batch_size: int
    ) -> Generator[Batch, None, None]:
        with kept, ThreadPoolExecutor(1) as pool:
            coming: deque[Future[tuple[NDArray[np.uint8], NDArray[np.bool_]]]] = deque()
            for number, indices in enumerate(batches):
                for ahead in range(number + len(coming), min(number + _AHEAD, len(batches))):
                    coming.append(pool.submit(kept.read, batches[ahead], batch_size))
                pixels, is_good = coming.popleft().result()
                bad: list[Bad] = []
                for row in np.flatnonzero(~is_good):
                    pixels[row] = 0
                    bad += decode(dataset, preprocess, indices[row : row + 1], pixels[row : row + 1])
                yield Batch(pixels, indices, tuple(bad))
        if kept.damaged:
            self._note_once(f"{dataset.title}: {plural(kept.damaged, 'damaged image')} in the cache, decoded again")
            with suppress(OSError):
                kept.path.unlink()

    def _storing(
        self, source: Generator[Batch, None, None], dataset: Dataset, key: str, order: Indices
    ) -> Generator[Batch, None, None]:
        writer = Writer(self.cache, key, order)
        try:
            with closing(source):
                for batch in source:
                    writer.add(batch)
                    yield batch
            if images_identity(dataset) == self._keys[id(dataset)][1]:  # else files were written in the meantime
                writer.finish()
        finally:
            writer.give_up()

    def _note_once(self, sentence: str) -> None:
        if sentence not in self._noted:
            self._noted.add(sentence)
            self.note(sentence)


@dataclass(slots=True)
class Kept:
    """Images of a file of the cache; `damaged` counts those whose pixels are not what was written."""

    path: Path
    file: IO[bytes]
    order: Indices
    shape: tuple[int, ...]
    sums: NDArray[np.uint32]
    unreadable: frozenset[int]
    damaged: int = 0

    @classmethod
    def open(cls, path: Path, order: Indices, shape: tuple[int, ...]) -> Self | None:
        """The file with the images `order`, sorted; None if its end is damaged or it does not fit."""
        pixels, table = len(order) * prod(shape), 4 * len(order)
        try:
            with ExitStack() as stack:
                file = stack.enter_context(path.open("rb"))
                size = file.seek(0, 2)
                file.seek(max(0, size - _END.size))
                length, total, magic = _END.unpack(file.read(_END.size))
                if magic != MAGIC or size != pixels + table + length + _END.size:
                    return None
                file.seek(pixels)
                end = file.read(table + length)
                if zlib.crc32(end) != total:
                    return None
                stack.pop_all()
        except (OSError, struct.error):
            return None
        return cls(path, file, order, shape, np.frombuffer(end, "<u4", len(order)), frozenset(json.loads(end[table:])))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()

    def read(self, indices: Indices, batch_size: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Pixels [batch_size, 3, H, W], with zeros after the last of the images, and which of these are right."""
        pixels = np.zeros((batch_size, *self.shape), np.uint8)
        is_good = np.zeros(len(indices), np.bool_)
        size = prod(self.shape)
        for row, place in enumerate(np.searchsorted(self.order, indices).tolist()):
            if place in self.unreadable:
                continue
            with suppress(OSError):
                self.file.seek(place * size)
                self.file.readinto(pixels[row].data)  # type: ignore[attr-defined]
            is_good[row] = zlib.crc32(pixels[row].data) == self.sums[place]
            self.damaged += not is_good[row]
        return pixels, is_good


class Writer:
    """Writes an entry between other work; an error of the disk ends the entry and nothing else."""

    def __init__(self, cache: Cache, key: str, order: Indices) -> None:
        self._order, self._unreadable = order, set[int]()
        self._sums, self._is_there = np.zeros(len(order), "<u4"), np.zeros(len(order), np.bool_)
        self._stack: ExitStack | None = ExitStack()
        path = self._stack.enter_context(cache.storing(KIND, key))
        self._try(lambda stack: self._open(stack, path))

    def add(self, batch: Batch) -> None:
        """Write the images of a batch."""
        self._try(lambda _: self._add(batch))

    def finish(self) -> None:
        """Make the file an entry, if all images were added."""
        if self._is_there.all():
            self._try(lambda _: self._end())
            if self._stack is not None:
                self._stack.close()
                self._stack = None

    def give_up(self) -> None:
        """Leave no entry, unless it is finished."""
        self._leave(_Unfinished())

    def _open(self, stack: ExitStack, path: Path) -> None:
        self._file = stack.enter_context(path.open("wb"))

    def _add(self, batch: Batch) -> None:
        self._unreadable |= {index for index, _ in batch.bad}
        for pixels, place in zip(batch.pixels, np.searchsorted(self._order, batch.indices).tolist(), strict=False):
            self._file.seek(place * pixels.nbytes)
            self._file.write(pixels.data)
            self._sums[place], self._is_there[place] = zlib.crc32(pixels.data), True

    def _end(self) -> None:
        places = np.searchsorted(self._order, sorted(self._unreadable)).tolist()
        end = self._sums.tobytes() + json.dumps(places).encode()
        self._file.seek(0, 2)
        self._file.write(end + _END.pack(len(end) - self._sums.nbytes, zlib.crc32(end), MAGIC))
        self._file.flush()

    def _try(self, work: Callable[[ExitStack], None]) -> None:
        if self._stack is None:
            return
        try:
            work(self._stack)
        except OSError as error:
            self._leave(error)  # the cache says it, once

    def _leave(self, error: Exception) -> None:
        if self._stack is not None:
            stack, self._stack = self._stack, None
            stack.__exit__(type(error), error, error.__traceback__)


class _Unfinished(Exception):
    """An entry is not complete."""
