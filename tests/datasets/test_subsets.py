"""The reference restricted to a shift's classes."""

from dataclasses import replace

import numpy as np
from PIL import Image

from mergekit_wise.datasets.dataset import Dataset, Suite
from mergekit_wise.datasets.subsets import companions


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
