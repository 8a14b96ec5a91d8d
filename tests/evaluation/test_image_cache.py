"""Decoded images that are kept on disk are those that would be decoded, or they are decoded again."""

import io
import os
import tarfile
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image

from mergekit_wise.cache import Cache
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.datasets.folders import FolderImages
from mergekit_wise.datasets.subsets import image_within
from mergekit_wise.datasets.webdataset import open_tar
from mergekit_wise.errors import SuiteError
from mergekit_wise.evaluation import image_batches
from mergekit_wise.evaluation.image_batches import decoded
from mergekit_wise.evaluation.image_cache import ImageCache
from tests.evaluation.fakes import PREPROCESS, noise

COUNT = 21
ROW = 3 * 8 * 8


@pytest.fixture
def images(tmp_path):
    """A folder of images, of which the fourth cannot be read."""
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(COUNT):
        noise().image(index).save(folder / f"{index:02}.png")
    (folder / "03.png").write_bytes(b"no image")
    files = FolderImages(str(folder), tuple(f"{index:02}.png" for index in range(COUNT)))
    return Dataset("some", "Some", ("a",), np.zeros(COUNT, np.int64), files.image, sample=files.sample, size=files.size)


class Run:
    """What a run reads: pixels by index, unreadable images, notes; and the files in the cache after it."""

    def __init__(self, folder, dataset, order=None, size=8, preprocess=PREPROCESS, limit=1 << 30, workers=0):
        self.notes = []
        cache = ImageCache(Cache(folder, limit, self.notes.append), self.notes.append)
        order = np.arange(len(dataset)) if order is None else order
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        self.pixels, self.bad = {}, {}
        for batch in cache.decoded(dataset, preprocess, batches, size, workers=workers, hold=2):
            assert batch.pixels.shape[0] == size
            assert not batch.pixels[len(batch.indices) :].any()
            self.pixels |= {index: row.copy() for index, row in zip(batch.indices.tolist(), batch.pixels, strict=False)}
            self.bad |= dict(batch.bad)
        self.stored = [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []

    def __eq__(self, other):
        alike = all(np.array_equal(self.pixels[index], other.pixels[index]) for index in self.pixels)
        return self.pixels.keys() == other.pixels.keys() and alike and self.bad == other.bad


def reads_cache(run):
    return any("read from the cache" in note for note in run.notes)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_second_run_has_the_pixels_of_the_first(images, tmp_path, workers):
    """Whatever its batches and their order; they are those of a run without a cache."""
    first = Run(tmp_path / "cache", images, workers=workers)
    order = np.random.default_rng(0).permutation(COUNT)
    second = Run(tmp_path / "cache", images, order, size=5, workers=workers)
    (plain,) = decoded(images, PREPROCESS, [np.arange(COUNT)], COUNT, workers=0, hold=1)
    assert first == second
    assert not reads_cache(first)
    assert reads_cache(second)
    assert np.array_equal(np.stack([second.pixels[index] for index in range(COUNT)]), plain.pixels)
    assert second.bad == dict(plain.bad)
    assert list(second.bad) == [3]
    assert len(second.stored) == 1


def test_images_that_are_kept_are_not_decoded(images, tmp_path, monkeypatch):
    """Only those that could not be read are tried again."""
    seen, write = [], image_batches._write
    monkeypatch.setattr(image_batches, "_write", lambda *given: seen.append(given[2]) or write(*given))
    Run(tmp_path / "cache", images)
    assert seen == list(range(COUNT))
    Run(tmp_path / "cache", images)
    assert seen == [*range(COUNT), 3]


def test_pixels_that_the_disk_damaged_are_decoded_again(images, tmp_path):
    """A note counts them, and the next run keeps them again."""
    first = Run(tmp_path / "cache", images)
    (path,) = first.stored
    content = bytearray(path.read_bytes())
    content[5 * ROW + 7] ^= 1
    content[9 * ROW] ^= 128
    path.write_bytes(content)
    second = Run(tmp_path / "cache", images)
    assert second == first
    assert any("2 damaged images" in note for note in second.notes)
    assert not second.stored
    assert Run(tmp_path / "cache", images).stored


@pytest.mark.parametrize("change", ["cut", "longer", "end", "empty"])
def test_a_file_whose_end_is_damaged_is_not_used(images, tmp_path, change):
    """Images are decoded as if it were not there, and it is replaced."""
    first = Run(tmp_path / "cache", images)
    (path,) = first.stored
    content = path.read_bytes()
    end = bytes([content[COUNT * ROW] ^ 1])
    changed = {
        "cut": content[:-5],
        "longer": content + b"\0",
        "end": content[: COUNT * ROW] + end + content[COUNT * ROW + 1 :],
        "empty": b"",
    }[change]
    path.write_bytes(changed)
    second = Run(tmp_path / "cache", images)
    assert second == first
    assert not reads_cache(second)
    assert path.read_bytes() == content


def test_images_in_rows_of_files_are_kept(images, tmp_path):
    """As those of parquet files, whose samples are called after a file and two numbers."""
    rows = replace(images, sample=lambda index: f"{images.sample(index)}:0:{index}")
    Run(tmp_path / "cache", rows)
    assert reads_cache(Run(tmp_path / "cache", rows))


def test_images_that_changed_are_decoded(images, tmp_path):
    """Even if their size and modification time are as before."""
    first = Run(tmp_path / "cache", images)
    path = images.sample(5)
    times = os.stat(path)
    Image.new("RGB", (11, 9), "red").save(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    second = Run(tmp_path / "cache", images)
    assert not reads_cache(second)
    assert second.pixels[5][0].min() == 255
    assert not np.array_equal(first.pixels[5], second.pixels[5])


def bitmaps(path, seed):
    """A tar of uncompressed images, whose sizes and places are the same for every seed, and their labels."""
    with tarfile.open(path, "w") as tar:
        for index in range(3):
            noise().image(index + seed).save(content := io.BytesIO(), "BMP")
            for name, data in ((f"{index}.bmp", content.getvalue()), (f"{index}.cls", b"0")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def test_a_tar_that_was_replaced_after_it_was_listed_leaves_nothing_stale(tmp_path):
    """The run that has listed the first tar may read that one; a later run reads the other one."""
    path = tmp_path / "some.tar"

    def opened():
        images = open_tar(path).images
        labels = np.zeros(3, np.int64)
        return Dataset("some", "Some", ("a",), labels, images.image, sample=images.sample, size=images.size)

    bitmaps(path, 0)
    before = opened()
    bitmaps(tmp_path / "new.tar", 10)
    (tmp_path / "new.tar").replace(path)
    Run(tmp_path / "cache", before)
    after = Run(tmp_path / "cache", opened())
    wanted = [PREPROCESS.pixels(noise().image(index + 10)).numpy() for index in range(3)]
    assert np.array_equal([after.pixels[index] for index in range(3)], wanted)
    assert not reads_cache(after)
    assert reads_cache(Run(tmp_path / "cache", opened()))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: (data, replace(PREPROCESS, interpolation="bilinear")),
        lambda data: (replace(data, is_cropped=True), PREPROCESS),
        lambda data: (replace(data, image=FolderImages(*fields_of(data), border=1).image), PREPROCESS),
        lambda data: (replace(data, image=partial(image_within, data.image, 10)), PREPROCESS),
    ],
    ids=["interpolation", "is_cropped", "border", "limit"],
)
def test_other_preprocessing_or_decoding_is_another_entry(images, tmp_path, change):
    """Also what only the function knows that opens images."""
    Run(tmp_path / "cache", images)
    dataset, preprocess = change(images)
    other = Run(tmp_path / "cache", dataset, preprocess=preprocess)
    assert not reads_cache(other)
    assert len(other.stored) == 2


def fields_of(dataset):
    files = dataset.image.__self__
    return files.root, files.paths


def test_a_part_of_the_images_is_an_entry_of_its_own(images, tmp_path):
    """As of one of several processes that share a data set."""
    half = np.arange(0, COUNT, 2)
    Run(tmp_path / "cache", images)
    part = Run(tmp_path / "cache", images, half)
    assert not reads_cache(part)
    assert reads_cache(again := Run(tmp_path / "cache", images, half))
    assert again == part


def test_a_run_that_stops_keeps_nothing(images, tmp_path):
    """Whether it is closed early or an image ends it."""
    cache = ImageCache(Cache(tmp_path / "cache", 1 << 30), str)
    batches = [np.arange(8), np.arange(8, COUNT)]
    stream = cache.decoded(images, PREPROCESS, batches, 16, workers=0, hold=1)
    next(stream)
    stream.close()
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_images_that_change_during_a_run_are_not_kept(images, tmp_path):
    """Their pixels may be those of before or after."""
    cache = ImageCache(Cache(tmp_path / "cache", 1 << 30), str)
    stream = cache.decoded(images, PREPROCESS, [np.arange(8), np.arange(8, COUNT)], 16, workers=0, hold=1)
    next(stream)
    Image.new("RGB", (11, 9), "red").save(images.sample(1))
    list(stream)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


class Others:
    """Opens images as the data set of another package does, whose next version may do it in another way."""

    def __init__(self, image):
        self.image = image

    def __call__(self, index):
        return self.image(index)


@pytest.mark.parametrize(
    "change",
    [
        {"corrupt": lambda index, pixels: pixels},
        {"is_transformed": True},
        {"sample": str},
        {"image": lambda index: index},
        {"image": Others(Image.open)},
    ],
    ids=["corrupt", "is_transformed", "sample", "image", "code of others"],
)
def test_images_without_a_lasting_identity_are_not_kept(images, tmp_path, change):
    """Images that are made, changed at random or opened by a function that cannot be written down; a note says it."""
    notes = []
    cache = ImageCache(Cache(tmp_path / "cache", 1 << 30), notes.append)
    cache.decoded(replace(images, **change), PREPROCESS, [np.arange(8)], 8, workers=0, hold=1).close()
    assert not (tmp_path / "cache").exists()
    assert any("not kept" in note for note in notes)


def test_a_limit_that_is_too_low_keeps_nothing(images, tmp_path):
    """The images are decoded, and the cache says once why nothing is kept."""
    run = Run(tmp_path / "cache", images, limit=COUNT * ROW - 1)
    assert len(run.pixels) == COUNT
    assert len(run.notes) == 1
    assert not run.stored


def test_a_folder_that_cannot_be_written_ends_no_run(images, tmp_path):
    """A file is in the place of the cache's folder."""
    (tmp_path / "cache").write_text("")
    cache = ImageCache(Cache(tmp_path / "cache", 1 << 30, (notes := []).append), str)
    (batch,) = cache.decoded(images, PREPROCESS, [np.arange(COUNT)], COUNT, workers=0, hold=1)
    assert len(batch.indices) == COUNT
    assert len(notes) == 1


def test_an_error_of_an_image_is_no_error_of_the_cache(images, tmp_path):
    """What decoding raises reaches the caller."""
    cache = ImageCache(Cache(tmp_path / "cache", 1 << 30), str)
    with pytest.raises(SuiteError, match="broken"):
        for batch in cache.decoded(images, PREPROCESS, [np.arange(COUNT)], COUNT, workers=0, hold=1):
            raise SuiteError(f"broken {len(batch.indices)}")
