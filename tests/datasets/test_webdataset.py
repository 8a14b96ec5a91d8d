"""Tars of images: pairs by name, read at any place, from any process."""

import io
import multiprocessing
import os
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from mergekit_wise.datasets import shards
from mergekit_wise.datasets.webdataset import has_tars, open_tars
from mergekit_wise.errors import SuiteError


def encoded(seed, form="PNG", size=(9, 7)):
    """Bytes of a picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **({"lossless": True} if form == "WEBP" else {}))
    return buffer.getvalue()


def write_tar(path, members):
    """A tar as webdataset's writer makes them: a fractional time, hence pax headers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1700000000.5
            tar.addfile(info, io.BytesIO(data))


def sample(number, label, extension="png"):
    """The two members of a sample."""
    form = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "PNG": "PNG"}[extension]
    return [(f"s{number:07d}.{extension}", encoded(number, form)), (f"s{number:07d}.cls", str(label).encode())]


@pytest.fixture
def folder(tmp_path):
    """Five samples in two tars, in every kind of file."""
    first = [*sample(0, 3, "jpg"), *sample(1, 0, "webp"), *sample(2, 1, "png")]
    write_tar(tmp_path / "test" / "0.tar", first)
    write_tar(tmp_path / "test" / "1.tar", [*reversed(sample(3, 2, "jpeg")), *sample(4, 0, "PNG")])
    (tmp_path / "test" / "nshards.txt").write_text("2\n")
    (tmp_path / "classnames.txt").write_text("ant\nbee\ncat\ndog\n")
    (tmp_path / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\nart of the {c}.\n")
    return tmp_path


def test_samples_are_those_of_the_tars_in_their_order(folder):
    """Pixels as Pillow decodes them, labels as the .cls files say, whichever member comes first."""
    tars = open_tars(folder)
    assert tars.labels.dtype == np.int64
    assert tars.labels.tolist() == [3, 0, 1, 2, 0]
    for index, form in enumerate(["JPEG", "WEBP", "PNG", "JPEG", "PNG"]):
        expected = np.asarray(Image.open(io.BytesIO(encoded(index, form))).convert("RGB"))
        assert np.array_equal(np.asarray(tars.images.image(index)), expected)
        assert tars.images.size(index) == len(encoded(index, form))
    assert tars.images.sample(3) == f"{folder}/test/1.tar:s0000003.jpeg"


def test_texts_beside_the_tars_are_read(folder):
    """clip-benchmark's place for a class name becomes ours; without the files nothing is told."""
    tars = open_tars(folder)
    assert tars.classnames == ("ant", "bee", "cat", "dog")
    assert tars.templates == ("a photo of a {}.", "art of the {}.")
    (folder / "classnames.txt").unlink()
    assert open_tars(folder).classnames is None


def test_tars_are_taken_by_number_where_nobody_counts_them(tmp_path):
    """10.tar comes after 9.tar."""
    for number in range(11):
        write_tar(tmp_path / f"{number}.tar", sample(number, number))
    assert open_tars(tmp_path).labels.tolist() == list(range(11))


def test_a_folder_without_tars_is_none(tmp_path):
    """Nor is one that does not exist."""
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "a.jpg").touch()
    assert not has_tars(tmp_path)
    assert not has_tars(tmp_path / "nowhere")


def test_a_pickled_copy_gives_the_same_images(folder):
    """As spawned workers get it."""
    images = open_tars(folder).images
    copy = pickle.loads(pickle.dumps(images.image))
    assert np.array_equal(np.asarray(copy(4)), np.asarray(images.image(4)))


def _sums(image, indices, queue):
    queue.put([int(np.asarray(image(index)).astype(int).sum()) for index in indices])


def test_forked_processes_read_at_the_same_time(folder):
    """The same files, descriptors shared, no position between them."""
    images = open_tars(folder).images
    expected = [int(np.asarray(images.image(index)).astype(int).sum()) for index in range(5)]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_sums, args=(images.image, range(5), queue)) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert [queue.get(timeout=30) for _ in workers] == [expected] * 3
    for worker in workers:
        worker.join()


def test_few_descriptors_are_kept_and_all_are_closed(folder, monkeypatch):
    """A data set may have more tars than a process may open files."""
    monkeypatch.setattr(shards, "_KEPT", 1)
    before = len(os.listdir("/proc/self/fd"))
    images = open_tars(folder).images
    for index in range(5):
        images.image(index)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    del images
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("text", "shown"), [(b"seven", "'seven'"), (b"", "''"), (b"-1", "'-1'"), (b"1.0", "'1.0'"), (b"9" * 400, "9999")]
)
def test_an_unreadable_label_is_refused_with_its_member(tmp_path, text, shown):
    """And with what was found in it."""
    write_tar(tmp_path / "0.tar", [("s1.png", encoded(0)), ("s1.cls", text)])
    with pytest.raises(SuiteError, match=rf"0\.tar:s1\.cls: expected a class number, found '?{shown}"):
        open_tars(tmp_path)


@pytest.mark.parametrize(("kept", "lacks"), [(0, ".cls file"), (1, "image")])
def test_half_a_sample_is_refused(tmp_path, kept, lacks):
    """A label that was lost would make the data set smaller."""
    write_tar(tmp_path / "0.tar", [*sample(0, 1), sample(7, 1)[kept]])
    with pytest.raises(SuiteError, match=rf"sample 's0000007' has no {lacks}; 1 samples"):
        open_tars(tmp_path)


def test_two_images_of_one_sample_are_refused(tmp_path):
    """Which one counts is not guessed."""
    write_tar(tmp_path / "0.tar", [*sample(0, 1), ("s0000000.jpg", encoded(1, "JPEG"))])
    with pytest.raises(SuiteError, match="two images called 's0000000'"):
        open_tars(tmp_path)


def test_a_missing_tar_is_refused(folder):
    """nshards.txt says how many there are."""
    (folder / "test" / "1.tar").unlink()
    with pytest.raises(SuiteError, match=r"1\.tar: is missing; nshards.txt beside it counts 2 tars"):
        open_tars(folder)


@pytest.mark.parametrize("text", ["", "two", "0", "-1", "99999999999"])
def test_a_count_that_is_none_is_refused(folder, text):
    """And shown."""
    (folder / "test" / "nshards.txt").write_text(text)
    with pytest.raises(SuiteError, match=r"nshards\.txt: expected the number of tars"):
        open_tars(folder)


def test_tars_without_samples_are_refused(tmp_path):
    """Zero images are no data set."""
    write_tar(tmp_path / "0.tar", [("readme.txt", b"hello")])
    with pytest.raises(SuiteError, match="found no sample"):
        open_tars(tmp_path)


def test_an_image_that_cannot_be_decoded_is_named(tmp_path):
    """The tar and the member; opening the data set does not decode it."""
    write_tar(tmp_path / "0.tar", [("s1.jpg", encoded(0, "JPEG", (60, 60))[:-400]), ("s1.cls", b"0")])
    tars = open_tars(tmp_path)
    with pytest.raises(SuiteError, match=r"0\.tar:s1\.jpg: expected an image, found [\d,]+ bytes"):
        tars.images.image(0)


def test_a_tar_that_goes_away_is_a_sentence(folder):
    """Between indexing and reading, in a process that has not opened it yet."""
    copy = pickle.loads(pickle.dumps(open_tars(folder).images))
    (folder / "test" / "0.tar").unlink()
    with pytest.raises(SuiteError, match=r"0\.tar: cannot be read"):
        copy.image(0)
