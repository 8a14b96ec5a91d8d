"""Class folders are read as torchvision's ImageFolder reads them, and damaged images are refused."""

import os
import pickle

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import pil_loader

from mergekit_wise.datasets.custom import open_folder
from mergekit_wise.datasets.decoding import decode
from mergekit_wise.datasets.fingerprint import fingerprint
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


def listed_notes(root):
    return list_images(root, {name: label for label, name in enumerate(class_folders(root))})


SYSTEM = (".ipynb_checkpoints", "__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information")


@pytest.mark.parametrize("place", ["", "a", "a/deep"])
@pytest.mark.parametrize("name", SYSTEM)
def test_folders_of_systems_and_tools_are_no_classes_and_hold_no_images(tree, place, name):
    """Beside classes and inside them such a folder changes no image and no label, and one note names it."""
    before, labels = listed_notes(tree)
    save(tree / place / name / "x.png")
    after, labels_after = listed_notes(tree)
    assert after.paths == before.paths
    assert labels_after.tolist() == labels.tolist()
    (note,) = set(after.notes) - set(before.notes)
    assert "1 hidden or system entry" in note
    assert name in note


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini", "._x.jpg"])
def test_files_of_systems_are_counted_and_named_once(tree, name):
    """Three such files, beside classes and at two depths inside one, are one note with their number."""
    for place in ("", "a", "a/deep"):
        (tree / place / name).write_bytes(b"x")
    found, _ = listed_notes(tree)
    (note,) = [note for note in found.notes if "system" in note]
    assert "3 hidden or system entries" in note
    assert name in note


@pytest.mark.parametrize(
    ("name", "kind"),
    [("x", "JPEG"), ("x.data", "PNG"), ("v1.2", "WEBP"), ("x.img", "GIF"), ("y", "AVIF"), ("z", "TIFF")],
)
def test_an_image_with_another_ending_is_recognised_by_its_content(tree, name, kind):
    """It is listed at its place in the order of names, decoded as Pillow decodes it, and a note names it."""
    Image.new("RGB", (16, 16), (200, 30, 90)).save(tree / "a" / name, kind)
    found, labels = listed_notes(tree)
    path = os.path.join("a", name)
    assert path in found.paths
    index = found.paths.index(path)
    assert labels[index] == 0
    with Image.open(tree / path) as opened:
        assert np.array_equal(np.asarray(found.image(index)), np.asarray(opened.convert("RGB")))
    assert any("recognised 1 image" in note and name in note for note in found.notes)


def test_endings_of_images_that_torchvision_does_not_know_are_listed(tree):
    """Files that end with .jpe, .jfif or .avif are images."""
    for name, kind in (("k.jpe", "JPEG"), ("k.jfif", "JPEG"), ("k.avif", "AVIF"), ("k.jp2", "JPEG2000")):
        Image.new("RGB", (8, 8)).save(tree / "b" / name, kind)
    found, _ = listed_notes(tree)
    assert {"b/k.jpe", "b/k.jfif", "b/k.avif", "b/k.jp2"} < set(found.paths)
    assert not any("recognised" in note for note in found.notes)


def test_what_is_no_image_with_a_class_is_counted_and_named(tree):
    """Tables and texts, images beside the classes, images that are not read, and empty classes each have a note."""
    (tree / "a" / "boxes.csv").write_text("x,y\n")
    (tree / "b" / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    (tree / "d").mkdir()
    save(tree / "stray.png")
    found, labels = listed_notes(tree)
    assert len(labels) == 7
    notes = "\n".join(found.notes)
    for count, name in (
        ("3 files without image content", "a/boxes.csv"),
        ("1 image beside", "stray.png"),
        ("1 class folder without an image", "'d'"),
        ("1 file: 'b/photo.heic'", "pillow-heif"),
    ):
        (note,) = [note for note in found.notes if count in note]
        assert name in note
    assert notes.count("boxes.csv") == 1


def test_a_named_pipe_is_not_waited_for(tree):
    """A pipe has no end, so nothing is read from it, whatever its name is."""
    os.mkfifo(tree / "a" / "pipe.jpg")
    os.mkfifo(tree / "a" / "pipe")
    found, labels = listed_notes(tree)
    assert len(labels) == 7
    assert any("a/pipe.jpg" in note for note in found.notes)


@pytest.mark.parametrize("target", [".", "..", "deep", "../.."])
def test_a_link_back_gives_no_image_twice(tree, target):
    """ImageFolder lists images behind a loop dozens of times. A link to the class, above it, or beside adds nothing."""
    before, _ = listed_notes(tree)
    (tree / "a" / "again").symlink_to(target)
    after, _ = listed_notes(tree)
    assert after.paths == before.paths
    assert any("1 link to folders" in note and "a/again" in note for note in after.notes)


def test_links_that_lead_nowhere_are_named(tree):
    """A broken link to an image or to a folder is no image, and a note counts and names both."""
    (tree / "a" / "gone.jpg").symlink_to("nowhere.jpg")
    (tree / "b" / "away").symlink_to(tree / "no such folder")
    found, labels = listed_notes(tree)
    assert len(labels) == 7
    assert any("2 links to nothing" in note and "a/gone.jpg" in note and "b/away" in note for note in found.notes)


def test_names_that_are_no_utf8_are_read(tmp_path):
    """The image is decoded; class name and notes are text that any file can hold."""
    folder = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
    os.mkdir(folder)
    os.rename(save(tmp_path / "x.png"), os.path.join(folder, b"t\xff.png"))
    with open(os.path.join(folder, b"n\xff.txt"), "w") as file:
        file.write("no image")
    dataset = open_folder(tmp_path)
    assert dataset.image(0).size == (11, 8)
    assert dataset.classnames == ("caf\\xe9",)
    "".join((*dataset.classnames, *dataset.notes)).encode()
    assert len(fingerprint(dataset)) == 16


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_may_not_be_listed_is_an_error(tree):
    """Its images would be missing from the number."""
    (tree / "a" / "deep").chmod(0)
    with pytest.raises(SuiteError, match="deep: cannot be listed"):
        listed_notes(tree)


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


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1"])
def test_every_mode_becomes_rgb_as_torchvision_does_it(tmp_path, mode):
    """Greyscale, transparent, palette and 1-bit images are converted."""
    path = save(tmp_path / "x.png", mode=mode)
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
        "text": b"404 Not Found",
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
