"""A fingerprint changes with the data and with nothing else."""

import hashlib
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.dataset import Metric
from mergekit_wise.datasets.fingerprint import fingerprint
from mergekit_wise.datasets.own_folders import open_folder
from mergekit_wise.errors import SuiteError


@pytest.fixture
def folder(tmp_path):
    """A data set with two classes of two images each."""
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 3), (len(name), 1, 2)).save(tmp_path / "set" / name)
    with (tmp_path / "set" / "b" / "2.png").open("ab") as file:
        file.write(b"0")  # compressed files differ in size
    return tmp_path / "set"


def test_it_is_sixteen_hex_digits_of_a_sha_256(folder):
    """The fingerprint is the digest of the names, labels and sizes, computed here independently."""
    rows = [("a/1.png", 0), ("a/2.png", 0), ("b/1.png", 1), ("b/2.png", 1)]
    text = "4 2\n" + "".join(f"/{name}\0{label}\0{(folder / name).stat().st_size}\n" for name, label in rows)
    assert fingerprint(open_folder(folder)) == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_uncompressed_images_of_one_size_are_told_apart_by_their_content(tmp_path):
    """Two corruptions as BMP, under the same names and with files of the same size, have different fingerprints."""
    for folder, value in (("weak", 10), ("strong", 90), ("copy", 10)):
        for name in ("a/1.bmp", "b/2.bmp"):
            (tmp_path / folder / "test" / name).parent.mkdir(parents=True)
            Image.new("RGB", (3, 3), (value, 1, 2)).save(tmp_path / folder / "test" / name)
    weak, strong, copy = (fingerprint(open_folder(tmp_path / each / "test")) for each in ("weak", "strong", "copy"))
    assert weak == copy != strong


def test_it_does_not_depend_on_where_the_data_is(folder, tmp_path):
    """A copy of the data set in another folder has the same fingerprint."""
    shutil.copytree(folder, tmp_path / "elsewhere" / "other")
    assert fingerprint(open_folder(folder)) == fingerprint(open_folder(tmp_path / "elsewhere" / "other"))


@pytest.mark.parametrize("change", ["less", "more", "renamed", "resized", "relabelled"])
def test_it_changes_with_every_change_of_the_data(folder, change):
    """The fingerprint changes if a file is removed, added, renamed, resized or moved to another class."""
    before = fingerprint(open_folder(folder))
    path = folder / "a" / "1.png"
    if change == "less":
        path.unlink()
    elif change == "more":
        shutil.copy(path, folder / "a" / "3.png")
    elif change == "renamed":
        path.rename(folder / "a" / "0.png")
    elif change == "resized":
        path.write_bytes(path.read_bytes() + b"\0")
    else:
        path.rename(folder / "b" / "0.png")
    assert fingerprint(open_folder(folder)) != before


def test_no_image_is_decoded(folder):
    """Files that are not images have a fingerprint, although they cannot be decoded."""
    for path in folder.rglob("*.png"):
        path.write_bytes(b"not an image")
    dataset = open_folder(folder)
    assert len(fingerprint(dataset)) == 16
    with pytest.raises(SuiteError, match="expected an image"):
        dataset.image(0)


def test_images_that_are_not_stored_are_identified_by_name():
    """The data sets of digits have different fingerprints, although their labels are the same."""
    prints = {fingerprint(dataset) for dataset in open_suite("digits").datasets}
    assert len(prints) == 8


def test_labels_are_part_of_it(folder):
    """The same files with other labels have another fingerprint."""
    dataset = open_folder(folder)
    other = replace(dataset, labels=np.array([0, 1, 0, 1]))
    assert fingerprint(other) != fingerprint(dataset)


@pytest.mark.parametrize("change", ["groups", "accepted", "no answers"])
def test_it_changes_with_all_that_the_metric_knows_of_images(folder, change):
    """Other groups, further labels and classes that are no answers give another number for the same images."""
    dataset, several = open_folder(folder), [frozenset({0}), frozenset({0, 1}), frozenset({1}), frozenset({1})]
    changes = {
        "groups": [{"metric": Metric("worst-group", {"g": np.array(rows)})} for rows in ([0, 1], [1, 2])],
        "accepted": [{"metric": Metric(accepted=tuple(sets))} for sets in (several, several[::-1])],
        "no answers": [{"no_answers": frozenset({label})} for label in (0, 1)],
    }[change]
    found = {fingerprint(replace(dataset, **each)) for each in changes}
    assert len({*found, fingerprint(dataset)}) == 3
