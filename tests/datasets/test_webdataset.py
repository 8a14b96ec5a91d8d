"""Images in tars: samples are pairs of members, and any process can read them at any offset."""

import io
import multiprocessing
import os
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from mergekit_wise.datasets.webdataset import Shards, has_tars, open_tars
from mergekit_wise.errors import SuiteError


def encoded(seed, form="PNG", size=(9, 7)):
    """The bytes of an image file with random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **({"lossless": True} if form == "WEBP" else {}))
    return buffer.getvalue()


def write_tar(path, members):
    """Write a tar as webdataset's writer does: with fractional times, hence with pax headers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1700000000.5
            tar.addfile(info, io.BytesIO(data))


def sample(number, label, extension="png"):
    """The two members of a sample: the image and its class number."""
    form = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "PNG": "PNG"}[extension]
    return [(f"s{number:07d}.{extension}", encoded(number, form)), (f"s{number:07d}.cls", str(label).encode())]


@pytest.fixture
def folder(tmp_path):
    """Five samples in two tars, in several image formats."""
    first = [*sample(0, 3, "jpg"), *sample(1, 0, "webp"), *sample(2, 1, "png")]
    write_tar(tmp_path / "test" / "0.tar", first)
    write_tar(tmp_path / "test" / "1.tar", [*reversed(sample(3, 2, "jpeg")), *sample(4, 0, "PNG")])
    (tmp_path / "test" / "nshards.txt").write_text("2\n")
    (tmp_path / "classnames.txt").write_text("ant\nbee\ncat\ndog\n")
    (tmp_path / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\nart of the {c}.\n")
    return tmp_path


def test_samples_are_those_of_the_tars_in_their_order(folder):
    """Pixels are those that Pillow decodes and labels those of the .cls files, whichever member comes first."""
    tars = open_tars(folder)
    assert tars.labels.dtype == np.int64
    assert tars.labels.tolist() == [3, 0, 1, 2, 0]
    for index, form in enumerate(["JPEG", "WEBP", "PNG", "JPEG", "PNG"]):
        expected = np.asarray(Image.open(io.BytesIO(encoded(index, form))).convert("RGB"))
        assert np.array_equal(np.asarray(tars.images.image(index)), expected)
        assert tars.images.size(index) == len(encoded(index, form))
    assert tars.images.sample(3) == f"{folder}/test/1.tar:s0000003.jpeg"


def test_texts_beside_the_tars_are_read(folder):
    """{c} in clip-benchmark's templates becomes {}; without the files there are no class names."""
    tars = open_tars(folder)
    assert tars.classnames == ("ant", "bee", "cat", "dog")
    assert tars.templates == ("a photo of a {}.", "art of the {}.")
    (folder / "classnames.txt").unlink()
    assert open_tars(folder).classnames is None


def test_tars_without_nshards_txt_are_in_the_order_of_their_numbers(tmp_path):
    """Tar 10 comes after tar 9, although it comes before it in the order of texts."""
    for number in range(11):
        write_tar(tmp_path / f"{number}.tar", sample(number, number))
    assert open_tars(tmp_path).labels.tolist() == list(range(11))


def test_a_folder_without_tars_has_none(tmp_path):
    """Neither has a folder that does not exist."""
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "a.jpg").touch()
    assert not has_tars(tmp_path)
    assert not has_tars(tmp_path / "nowhere")


def test_a_pickled_copy_gives_the_same_images(folder):
    """A spawned worker process gets such a copy."""
    images = open_tars(folder).images
    copy = pickle.loads(pickle.dumps(images.image))
    assert np.array_equal(np.asarray(copy(4)), np.asarray(images.image(4)))


def _sums(image, indices, queue):
    queue.put([int(np.asarray(image(index)).astype(int).sum()) for index in indices])


def test_forked_processes_read_at_the_same_time(folder):
    """Forked processes share descriptors, and no read moves the position of another."""
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


def test_few_descriptors_are_kept_and_all_are_closed(folder):
    """A data set may have more tars than a process may open files."""
    before = len(os.listdir("/proc/self/fd"))
    tars = Shards((str(folder / "test" / "0.tar"), str(folder / "test" / "1.tar")), max_descriptors=1)
    for shard in (0, 1, 0, 1):
        assert len(tars.read(shard, 0, 512)) == 512
    assert len(os.listdir("/proc/self/fd")) == before + 1
    del tars
    assert len(os.listdir("/proc/self/fd")) == before


def test_all_descriptors_of_a_data_set_are_closed_with_it(folder):
    """Indexing and decoding keep one descriptor for each tar until the data set is deleted."""
    before = len(os.listdir("/proc/self/fd"))
    images = open_tars(folder).images
    for index in range(5):
        images.image(index)
    assert len(os.listdir("/proc/self/fd")) == before + 2
    del images
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("text", "shown"), [(b"seven", "'seven'"), (b"", "''"), (b"-1", "'-1'"), (b"1.0", "'1.0'"), (b"9" * 400, "9999")]
)
def test_an_unreadable_label_is_refused_with_its_member(tmp_path, text, shown):
    """The error shows the tar, the member and the text that was found."""
    write_tar(tmp_path / "0.tar", [("s1.png", encoded(0)), ("s1.cls", text)])
    with pytest.raises(SuiteError, match=rf"0\.tar:s1\.cls: expected a class number, found '?{shown}"):
        open_tars(tmp_path)


@pytest.mark.parametrize(("kept", "lacks"), [(0, ".cls file"), (1, "image")])
def test_an_incomplete_sample_is_refused(tmp_path, kept, lacks):
    """An image without a label, or a label without an image, is a sign of damage."""
    write_tar(tmp_path / "0.tar", [*sample(0, 1), sample(7, 1)[kept]])
    with pytest.raises(SuiteError, match=rf"sample 's0000007' has no {lacks}"):
        open_tars(tmp_path)


def test_two_images_of_one_sample_are_refused(tmp_path):
    """A sample has one label, so it can have one image only."""
    write_tar(tmp_path / "0.tar", [*sample(0, 1), ("s0000000.jpg", encoded(1, "JPEG"))])
    with pytest.raises(SuiteError, match="two images named 's0000000'"):
        open_tars(tmp_path)


def test_a_missing_tar_is_refused(folder):
    """The error names the tar and gives the number of tars in nshards.txt."""
    (folder / "test" / "1.tar").unlink()
    with pytest.raises(SuiteError, match=r"1\.tar: is missing.* 2 tars"):
        open_tars(folder)


@pytest.mark.parametrize("text", ["", "two", "0", "-1", "99999999999"])
def test_a_count_that_is_not_a_positive_number_is_refused(folder, text):
    """The error names nshards.txt."""
    (folder / "test" / "nshards.txt").write_text(text)
    with pytest.raises(SuiteError, match=r"nshards\.txt: expected"):
        open_tars(folder)


def test_tars_without_samples_are_refused(tmp_path):
    """A tar without images and labels is not a data set."""
    write_tar(tmp_path / "0.tar", [("readme.txt", b"hello")])
    with pytest.raises(SuiteError, match="found no sample"):
        open_tars(tmp_path)


def test_an_image_that_cannot_be_decoded_is_named(tmp_path):
    """The error names the tar and the member; opening the data set does not decode the image."""
    write_tar(tmp_path / "0.tar", [("s1.jpg", encoded(0, "JPEG", (60, 60))[:-400]), ("s1.cls", b"0")])
    tars = open_tars(tmp_path)
    with pytest.raises(SuiteError, match=r"0\.tar:s1\.jpg: expected an image, found [\d,]+ bytes"):
        tars.images.image(0)


def test_a_tar_that_is_deleted_after_indexing_is_named(folder):
    """A process that has not opened the tar yet reports that it cannot be read."""
    copy = pickle.loads(pickle.dumps(open_tars(folder).images))
    (folder / "test" / "0.tar").unlink()
    with pytest.raises(SuiteError, match=r"0\.tar: cannot be read"):
        copy.image(0)
