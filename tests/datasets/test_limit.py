"""A part of a data set: balanced, the same for everyone, and judged as the whole is."""

import pickle

import numpy as np
import pytest
from PIL import Image

from mergekit_wise.datasets.dataset import Dataset, Metric
from mergekit_wise.datasets.fingerprint import fingerprint
from mergekit_wise.datasets.limit import limited
from mergekit_wise.errors import SuiteError

LABELS = np.repeat(np.arange(10), [50, 5, 20, 1, 0, 30, 30, 30, 30, 30])


def picture(index):
    """An image that says which it is."""
    return Image.new("RGB", (1, 1), (index % 256, index // 256, 0))


def sample(index):
    """Its name."""
    return f"/data/{index}"


def size(index):
    """Its bytes."""
    return 100 + index


def corrupt(index, pixels):
    """A change that depends on the image's number."""
    return pixels + np.uint8(index)


def dataset(metric=None, labels=None, **more):
    """226 images of ten classes, in an order that is not that of the classes."""
    labels = np.random.default_rng(5).permutation(LABELS) if labels is None else labels
    names = tuple(map(str, range(10)))
    return Dataset(
        "x", "X", names, labels, picture, metric=metric or Metric(), sample=sample, location="/data", size=size, **more
    )


def rows(part):
    """The chosen images' numbers in the whole."""
    return [int(part.sample(index).removeprefix("/data/")) for index in range(len(part))]


@pytest.mark.parametrize("count", [1, 7, 9, 10, 50, 100, 225])
def test_classes_are_as_equal_as_they_can_be(count):
    """No class has two more than another that still has some to give."""
    part = limited(dataset(), count, seed=3)
    assert len(part) == count
    taken, there = np.bincount(part.labels, minlength=10), np.bincount(LABELS, minlength=10)
    open_classes = taken[taken < there]
    if open_classes.size:
        assert taken.max() - open_classes.min() <= 1


@pytest.mark.parametrize("count", [1, 9, 60, 225])
def test_everything_of_an_image_goes_with_it(count):
    """Label, pixels, name, size, and the seed of its corruption."""
    whole = dataset(corrupt=corrupt)
    part = limited(whole, count)
    chosen = rows(part)
    assert chosen == sorted(set(chosen))
    assert np.array_equal(part.labels, whole.labels[chosen])
    for index, row in enumerate(chosen):
        assert part.image(index).getpixel((0, 0)) == (row, 0, 0)
        assert part.size(index) == 100 + row
        assert part.corrupt(index, np.zeros(1, np.uint8))[0] == row


def test_the_same_seed_gives_the_same_part_and_another_another():
    """And a smaller part is part of a larger one."""
    assert rows(limited(dataset(), 40, 1)) == rows(limited(dataset(), 40, 1))
    assert rows(limited(dataset(), 40, 1)) != rows(limited(dataset(), 40, 2))
    assert set(rows(limited(dataset(), 40, 1))) < set(rows(limited(dataset(), 41, 1)))


def test_results_of_two_people_can_be_compared():
    """These rows are written down here; if they change, records of parts are no longer comparable."""
    assert rows(limited(dataset(labels=np.arange(226) % 10), 6, 0)) == [11, 92, 108, 113, 117, 214]


def test_images_are_drawn_from_all_of_a_class():
    """Not its first ones: over many seeds each image of a class has the same chance."""
    times = np.zeros(226)
    for seed in range(300):
        times[rows(limited(dataset(), 45, seed))] += 1
    labels = dataset().labels
    fives = times[labels == 5]
    assert fives.mean() == pytest.approx(300 * 5.25 / 30, rel=0.1)
    assert fives.min() > 25
    assert fives.max() < 85


def test_a_part_as_large_as_the_whole_is_the_whole():
    """Nothing is reordered."""
    whole = dataset()
    assert limited(whole, 226) is whole
    assert limited(whole, 9999) is whole


@pytest.mark.parametrize("count", [0, -3])
def test_no_part_is_no_part(count):
    """Zero images are no data set."""
    with pytest.raises(SuiteError, match="expected at least 1"):
        limited(dataset(), count)


def test_groups_and_accepted_classes_are_counted_anew():
    """A group keeps its images that were chosen; one that lost all of them is gone."""
    groups = {"even": np.arange(0, 226, 2), "one": np.array([3]), "both": np.array([0, 1, 2])}
    accepted = tuple(frozenset({row % 10}) for row in range(226))
    part = limited(dataset(Metric("worst-group", groups, accepted)), 100)
    chosen = rows(part)
    assert [chosen[index] for index in part.metric.groups["even"]] == [row for row in chosen if row % 2 == 0]
    assert ("one" in part.metric.groups) == (3 in chosen)
    assert part.metric.accepted == tuple(frozenset({row % 10}) for row in chosen)
    assert part.metric.kind == "worst-group"
    tiny = limited(dataset(Metric("worst-group", {"a": np.array([chosen[0]]), "b": np.arange(226)})), 1)
    assert all(group.size for group in tiny.metric.groups.values())


def test_frames_that_are_judged_together_are_not_parted():
    """pm-10 of some frames is no pm-10."""
    with pytest.raises(SuiteError, match="X: frames are judged together"):
        limited(dataset(Metric("all-in-group", {"0": np.arange(3)})), 10)


def test_a_part_can_be_sent_to_a_worker():
    """By pickling."""
    part = limited(dataset(corrupt=corrupt), 10)
    image, change = pickle.loads(pickle.dumps((part.image, part.corrupt)))
    assert image(4).getpixel((0, 0)) == part.image(4).getpixel((0, 0))
    assert change(4, np.zeros(1, np.uint8)) == part.corrupt(4, np.zeros(1, np.uint8))


def test_a_part_has_a_fingerprint_of_its_own():
    """So that no record of it is taken for one of the whole."""
    prints = {fingerprint(limited(dataset(), count, seed)) for count, seed in [(10, 0), (10, 1), (11, 0), (226, 0)]}
    assert len(prints) == 4
