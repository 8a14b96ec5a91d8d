"""The reference restricted to a shift's classes."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mergekit_wise.datasets.dataset import Dataset, Suite
from mergekit_wise.datasets.renaming import renamed
from mergekit_wise.datasets.subsets import companions
from mergekit_wise.errors import SuiteError


def image(index):
    return Image.new("L", (2, 2), index)


REFERENCE = Dataset("imagenet", "ImageNet", tuple("abcde"), np.array([0, 1, 2, 3, 4, 2]), image, vocabulary="imagenet")
SHIFT = Dataset(
    "r", "R", ("two", "four or zero"), np.array([0, 1]), image, columns=((2,), (4, 0)), vocabulary="imagenet"
)


def test_it_holds_the_images_of_the_shifts_classes_under_its_labels():
    """With the columns of the shift, so that a head predicts among its classes alone."""
    (found,) = companions(Suite("s", REFERENCE, (SHIFT,)))
    assert found.labels.tolist() == [1, 0, 1, 0]
    assert [found.image(i).getpixel((0, 0)) for i in range(4)] == [0, 2, 4, 5]
    assert (found.columns, found.classnames, found.name) == (SHIFT.columns, SHIFT.classnames, "reference-of-r")
    assert [found.sample(i) for i in range(4)] == ["0", "2", "4", "5"]


def test_shifts_with_all_classes_have_none():
    """Nor have those of another vocabulary, or without a reference."""
    plain = replace(SHIFT, columns=None)
    other = replace(SHIFT, vocabulary="")
    assert companions(Suite("s", REFERENCE, (plain, other))) == ()
    assert companions(Suite("s", None, (SHIFT,))) == ()


def dataset(classes, columns=None, vocabulary="imagenet"):
    """A data set with nothing in it but names."""
    names = tuple(f"class {number}" for number in range(classes))
    return Dataset("x", "X", names, np.zeros(1, np.int64), lambda i: None, columns=columns, vocabulary=vocabulary)


THOUSAND = tuple(f"name {number}" for number in range(1000))


def test_as_many_names_as_classes_take_their_place():
    """Templates too, each without the other."""
    changed = renamed(dataset(2), ("a", "b"), None)
    assert (changed.classnames, changed.templates) == (("a", "b"), ("a photo of a {}.",))
    changed = renamed(dataset(2), None, ("{}",))
    assert (changed.classnames, changed.templates) == (("class 0", "class 1"), ("{}",))


def test_names_of_all_of_imagenet_fit_a_part_of_it():
    """Those of the part's classes are taken."""
    assert renamed(dataset(2, ((7,), (900,))), THOUSAND, None).classnames == ("name 7", "name 900")


@pytest.mark.parametrize(
    ("which", "names", "message"),
    [
        (dataset(3), ("a", "b"), "2 class names were given for 3 classes"),
        (dataset(3), THOUSAND, "1000 class names were given for 3 classes"),
        (dataset(2, ((7,), (8,)), "other"), THOUSAND, "1000 class names were given for 2"),
        (dataset(2, ((7,), (8, 9))), THOUSAND, "several of ImageNet's"),
    ],
)
def test_names_that_fit_nothing_are_refused(which, names, message):
    """Rather than left out without a word."""
    with pytest.raises(SuiteError, match=f"X: .*{message}"):
        renamed(which, names, None)
