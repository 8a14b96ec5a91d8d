"""Data sets that are made of the same images say so, and records and averages know it."""

import pytest

from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.subsets import limited
from tests.datasets.test_imagenet_c import make


def test_the_digits_are_the_same_scans_but_for_the_printed_ones():
    """Printed digits are drawn from fonts."""
    suite = open_suite("digits")
    keys = {dataset.name: dataset.same_images for dataset in suite.datasets}
    assert keys.pop("digits-printed") == ""
    assert set(keys.values()) == {"digits"}


def test_corruptions_are_the_images_of_their_original():
    """So they are of an original that itself has the images of others."""
    for name, key in (("digits", "digits"), ("digits-printed", "digits-printed")):
        assert {d.same_images for d in open_suite(f"synthetic:{name}").datasets} == {key}


def test_a_subset_is_still_of_the_same_images():
    """Subsets of two such data sets have images in common."""
    assert limited(open_suite("digits").reference, 20).same_images == "digits"


@pytest.fixture
def root(tmp_path):
    """A root with some of ImageNet-C and of ImageNet."""
    make(tmp_path / "imagenet-c" / "fog" / "4", 0)
    make(tmp_path / "imagenet" / "val", 0)
    return tmp_path


def test_imagenet_c_is_made_of_imagenets_validation_images(root):
    """ImageNet itself is the reference."""
    suite = open_suite("imagenet,imagenet-c-fog-4", root)
    assert [dataset.same_images for dataset in suite.datasets] == ["imagenet", "imagenet"]
