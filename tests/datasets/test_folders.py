"""Class folders are read as torchvision's ImageFolder reads them, and damaged images are refused."""

import os
import pickle

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import pil_loader

from mergekit_wise.datasets.decoding import decode
from mergekit_wise.datasets.folders import class_folders, list_images
from mergekit_wise.errors import SuiteError


def save(path, seed=0, mode="RGB", size=(11, 8)):
    """Write an image of noise in the given mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


@pytest.fixture
def tree(tmp_path):
    """Three classes with nested folders, several image formats, and files that are not images."""
    for number, name in enumerate(
        ["b/2.jpg", "b/10.JPEG", "a/x.png", "a/deep/y.webp", "a/Z.bmp", "c/1.PNG", "a/deeper/still/w.tif"]
    ):
        save(tmp_path / name, number)
    (tmp_path / "readme.txt").write_text("not a class")
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    return tmp_path


def test_images_and_labels_are_those_of_torchvision(tree):
    """ImageFolder has the same files in the same order, and decodes the same pixels."""
    expected = ImageFolder(str(tree))
    images, labels = list_images(tree, {name: label for label, name in enumerate(class_folders(tree))})
    assert [images.sample(index) for index in range(len(labels))] == [path for path, _ in expected.samples]
    assert labels.dtype == np.int64
    assert labels.tolist() == expected.targets
    for index, (picture, _) in enumerate(expected):
        assert np.array_equal(np.asarray(images.image(index)), np.asarray(picture))
        assert images.size(index) == os.path.getsize(images.sample(index))


def test_hidden_files_and_folders_are_skipped(tree):
    """macOS and Jupyter create such files and folders."""
    (tree / ".ipynb_checkpoints").mkdir()
    (tree / "a" / "._x.jpg").write_bytes(b"\0\5\x16\7")
    assert class_folders(tree) == ("a", "b", "c")
    images, _ = list_images(tree, {"a": 0})
    assert not [path for path in images.paths if "._x" in path]


def test_linked_folders_are_followed(tree, tmp_path_factory):
    """Data sets often consist of symbolic links to other folders."""
    farm = tmp_path_factory.mktemp("farm")
    (farm / "a").symlink_to(tree / "a")
    assert class_folders(farm) == ("a",)
    assert len(list_images(farm, {"a": 0})[1]) == 4


def test_folders_without_images_are_refused(tmp_path):
    """A data set without images cannot be evaluated."""
    (tmp_path / "a").mkdir()
    with pytest.raises(SuiteError, match=r"expected images .* in class folders, found none in 1 folder such as 'a'"):
        list_images(tmp_path, {"a": 0})


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "I;16"])
def test_every_mode_becomes_rgb_as_torchvision_does_it(tmp_path, mode):
    """Greyscale, transparent, palette, 1-bit and 16-bit images are converted."""
    path = save(tmp_path / "x.png", mode="L" if mode == "I;16" else mode)
    if mode == "I;16":
        Image.fromarray(np.arange(88, dtype=np.uint16).reshape(8, 11) * 700).save(path)
    decoded = decode(path.read_bytes(), "x")
    assert decoded.mode == "RGB"
    assert np.array_equal(np.asarray(decoded), np.asarray(pil_loader(str(path))))


def test_a_cmyk_jpeg_becomes_rgb(tmp_path):
    """ImageNet contains a few CMYK images."""
    path = save(tmp_path / "x.jpg", mode="CMYK")
    assert np.array_equal(np.asarray(decode(path.read_bytes(), "x")), np.asarray(pil_loader(str(path))))


def test_the_exif_orientation_is_ignored(tmp_path):
    """Published accuracies ignore the orientation in EXIF, too."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "x.jpg", exif=exif)
    assert decode((tmp_path / "x.jpg").read_bytes(), "x").size == (20, 10)


def test_a_border_is_cropped_on_each_side(tmp_path):
    """Two pixels are removed at the left, right, top and bottom; too small an image is refused."""
    path = save(tmp_path / "x.png", size=(11, 8))
    whole = np.asarray(Image.open(path))
    assert np.array_equal(np.asarray(decode(path.read_bytes(), "x", border=2)), whole[2:-2, 2:-2])
    with pytest.raises(SuiteError, match="11 x 8 pixels has no 4 pixels"):
        decode(path.read_bytes(), "x", border=4)


def damaged(tmp_path):
    """Names and bytes of files that are not complete images."""
    jpeg = save(tmp_path / "whole.jpg", size=(64, 64)).read_bytes()
    png = save(tmp_path / "whole.png", size=(64, 64)).read_bytes()
    webp = save(tmp_path / "whole.webp", size=(64, 64)).read_bytes()
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0xFF
    return {
        "empty": b"",
        "half a jpeg": jpeg[: len(jpeg) // 2],
        "jpeg without its end": jpeg[:-300],
        "header of a jpeg": jpeg[:20],
        "half a png": png[: len(png) // 2],
        "png with a flipped byte": bytes(flipped),
        "half a webp": webp[: len(webp) // 2],
        "html": b"<html>404 Not Found</html>",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
    }


@pytest.mark.parametrize("case", range(9))
def test_an_incomplete_image_is_refused_with_its_path(tmp_path, case):
    """A truncated image is not padded with grey, and PostScript is not executed."""
    name, data = list(damaged(tmp_path).items())[case]
    path = tmp_path / "a" / f"{name}.jpg"
    path.parent.mkdir()
    path.write_bytes(data)
    images, _ = list_images(tmp_path, {"a": 0})
    with pytest.raises(SuiteError, match=rf"{name}\.jpg: expected an image, found {len(data):,} bytes"):
        images.image(0)


def test_an_image_that_is_deleted_after_listing_is_named(tree):
    """Reading it and asking for its size both fail; the error can be pickled, as worker processes need."""
    images, _ = list_images(tree, {"c": 0})
    (tree / "c" / "1.PNG").unlink()
    with pytest.raises(SuiteError, match=r"1\.PNG: cannot be read") as caught:
        images.image(0)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(SuiteError, match=r"1\.PNG: cannot be read"):
        images.size(0)
