"""Images without classes are found wherever they lie, and whatever is left out or ignored is counted and named."""

import os

import numpy as np
import pytest

from mergekit_wise.datasets.digits import ENTRIES
from mergekit_wise.datasets.fingerprint import fingerprint
from mergekit_wise.datasets.subsets import limited
from mergekit_wise.datasets.unlabelled import open_each_unlabelled, open_unlabelled, with_classes_of
from mergekit_wise.errors import SuiteError, UsageError
from tests.datasets.made_files import encoded, reds, write_image, write_tar


def test_images_at_any_depth_are_found_and_folders_are_no_classes(tmp_path):
    """Images beside class folders count, too; every label is 0, and a note says that the folders' names are ignored."""
    write_image(tmp_path / "one.png", 1)
    write_image(tmp_path / "cat" / "two.png", 2)
    write_image(tmp_path / "dog" / "deep" / "three.png", 3)
    (tmp_path / "readme.txt").write_text("no image")
    found = open_unlabelled(tmp_path)
    assert sorted(reds(found)) == [1, 2, 3]
    assert found.labels.dtype == np.int64
    assert found.labels.tolist() == [0, 0, 0]
    assert found.notes == (
        "read images from 2 folders below it, whose names are ignored: 'cat', 'dog/deep'",
        "left out 1 file without image content: 'readme.txt'",
    )


def test_a_link_that_leads_back_is_followed_once_and_counted(tmp_path):
    """A loop of links gives each image once; a link to nothing is named."""
    write_image(tmp_path / "a" / "x.png")
    os.symlink(tmp_path, tmp_path / "a" / "loop")
    os.symlink("itself", tmp_path / "itself")
    found = open_unlabelled(tmp_path)
    assert len(found) == 1
    assert any("1 link to folders" in note for note in found.notes)
    assert any("1 link to nothing: 'itself'" in note for note in found.notes)


@pytest.mark.parametrize("place", ["one.tar", "folder", "parts"])
def test_every_image_of_tars_is_read_and_labels_are_ignored(tmp_path, place):
    """With labels or without: each image is read, in the order of the tar, and labels and other files are counted."""
    members = [
        ("a.png", encoded(3)),
        ("a.cls", 7),
        ("b.png", encoded(4)),
        ("b.json", "not read"),
        ("._b.png", b"x"),
        ("c.jpg", encoded(5)),
        ("notes.md", "x"),
    ]
    path = {
        "one.tar": tmp_path / "one.tar",
        "folder": tmp_path / "folder" / "0.tar",
        "parts": tmp_path / "parts" / "test" / "0.tar",
    }[place]
    write_tar(path, *members)
    found = open_unlabelled(tmp_path / place)
    assert reds(found) == [3, 4, 5]
    assert found.labels.tolist() == [0, 0, 0]
    assert found.notes == (
        "ignored in the tars: 1 hidden or system file, such as '._b.png'",
        "ignored in the tars: 2 labels, such as 'a.cls'",
        "ignored in the tars: 1 other file, such as 'notes.md'",
    )


def test_images_that_webdataset_would_put_into_one_sample_are_said(tmp_path):
    """Nothing tells a mask from an image without labels, so both count, and the note names two of them."""
    path = write_tar(tmp_path / "x.tar", ("a.png", encoded(1)), ("a.seg.png", encoded(2)), ("b.png", encoded(3)))
    found = open_unlabelled(path)
    assert reds(found) == [1, 2, 3]
    assert "2 images in the tars share a name up to the first dot, such as 'a.png' and 'a.seg.png'" in found.notes[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.mkdir(), "found no image"),
        (lambda p: (p.mkdir(), (p / "x.txt").write_text("x")), "left out 1 file without image content: 'x.txt'"),
        (lambda p: None, "no such folder or file"),
        (lambda p: write_image(p), "is a single image"),
        (lambda p: p.write_text("text"), "is no tar"),
        (lambda p: (write_image(p / "a.png"), write_tar(p / "a.tar", ("b.png", encoded()))), "both tars and 1 image"),
        (lambda p: os.symlink(p, p), "no such folder or file"),
    ],
)
def test_what_holds_no_images_is_refused(tmp_path, make, message):
    """The message says what was found; nothing is taken for a set of no images."""
    place = tmp_path / "given"
    make(place)
    with pytest.raises(SuiteError, match=message):
        open_unlabelled(place)


@pytest.mark.parametrize("members", [(), (("a.cls", 1),)])
def test_a_tar_without_images_is_refused(tmp_path, members):
    """An empty tar, and one that holds labels alone."""
    with pytest.raises(SuiteError, match="expected images in 1 tar, found none"):
        open_unlabelled(write_tar(tmp_path / "x.tar", *members))


@pytest.mark.parametrize(("name", "advice"), [("x.tar.gz", "gunzip"), ("x.zip", "unzip")])
def test_archives_are_refused_with_the_command_that_unpacks_them(tmp_path, name, advice):
    """No archive is read at an offset."""
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SuiteError, match=advice):
        open_unlabelled(tmp_path / name)


def test_a_folder_that_is_named_twice_or_lies_in_another_is_refused(tmp_path):
    """Its images would count twice."""
    write_image(tmp_path / "a" / "x.png")
    with pytest.raises(UsageError, match="named twice"):
        open_each_unlabelled([tmp_path / "a", tmp_path / "." / "a"], ())
    with pytest.raises(UsageError, match="lies in"):
        open_each_unlabelled([tmp_path / "a", tmp_path], ())


def test_folders_of_one_name_get_names_of_their_own(tmp_path):
    """Two folders called x are told apart by their paths, as is one that is called like a data set of the run."""
    write_image(tmp_path / "a" / "x" / "1.png")
    write_image(tmp_path / "b" / "x" / "1.png")
    write_image(tmp_path / "digits" / "1.png")
    (reference,) = [entry.open(None) for entry in ENTRIES if entry.name == "digits"]
    paths = [tmp_path / "a" / "x", tmp_path / "b" / "x", tmp_path / "digits"]
    assert [each.title for each in open_each_unlabelled(paths, [reference])] == list(map(str, paths))


def test_the_classes_are_those_of_the_reference_and_a_part_can_be_drawn(tmp_path):
    """The images have the reference's names; a drawn part has its number of images and another fingerprint."""
    for number in range(9):
        write_image(tmp_path / f"{number}.png", number)
    (reference,) = [entry.open(None) for entry in ENTRIES if entry.name == "digits"]
    found = with_classes_of(open_unlabelled(tmp_path), reference)
    assert found.classnames == reference.classnames
    part = limited(found, 4, seed=1)
    assert len(set(reds(part))) == 4
    assert fingerprint(part) != fingerprint(found)
