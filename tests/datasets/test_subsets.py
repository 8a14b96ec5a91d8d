"""Data sets made from others: random subsets, the reference on a shift's classes, and other class names."""

import pickle
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from mergekit_wise.analysis import clopper_pearson
from mergekit_wise.datasets.dataset import Dataset, Metric, Suite
from mergekit_wise.datasets.fingerprint import fingerprint
from mergekit_wise.datasets.subsets import companions, few_shot, in_order_of, limited, with_names
from mergekit_wise.errors import SuiteError

LABELS = np.repeat(np.arange(10), [50, 5, 20, 1, 0, 30, 30, 30, 30, 30])


def picture(index):
    """An image whose pixel is its index."""
    return Image.new("RGB", (1, 1), (index % 256, index // 256, 0))


def sample(index):
    """The name of image `index`."""
    return f"/data/{index}"


def size(index):
    """The number of bytes of image `index`."""
    return 100 + index


def corrupt(index, pixels):
    """A corruption that depends on the image's index."""
    return pixels + np.uint8(index)


def labelled(metric=None, labels=None, **more):
    """226 images of ten classes in shuffled order."""
    labels = np.random.default_rng(5).permutation(LABELS) if labels is None else labels
    names = tuple(map(str, range(10)))
    return Dataset(
        "x", "X", names, labels, picture, metric=metric or Metric(), sample=sample, location="/data", size=size, **more
    )


def rows(part):
    """The indices that the images of a subset have in the whole data set."""
    return [int(part.sample(index).removeprefix("/data/")) for index in range(len(part))]


@pytest.mark.parametrize("count", [1, 7, 9, 10, 50, 100, 225])
def test_classes_of_a_balanced_draw_are_as_equal_as_they_can_be(count):
    """No class has two images more than a class that has images left."""
    part = limited(labelled(), count, seed=3, draw="balanced")
    assert len(part) == count
    taken, there = np.bincount(part.labels, minlength=10), np.bincount(LABELS, minlength=10)
    open_classes = taken[taken < there]
    if open_classes.size:
        assert taken.max() - open_classes.min() <= 1


@pytest.mark.parametrize("count", [1, 9, 60, 225])
def test_everything_of_an_image_goes_with_it(count):
    """A chosen image keeps its label, pixels, name, size and the seed of its corruption."""
    whole = labelled(corrupt=corrupt)
    part = limited(whole, count)
    chosen = rows(part)
    assert chosen == sorted(set(chosen))
    assert np.array_equal(part.labels, whole.labels[chosen])
    for index, row in enumerate(chosen):
        assert part.image(index).getpixel((0, 0)) == (row, 0, 0)
        assert part.size(index) == 100 + row
        assert part.corrupt(index, np.zeros(1, np.uint8))[0] == row


@pytest.mark.parametrize("draw", ["proportional", "balanced"])
def test_the_seed_decides_the_subset(draw):
    """The same seed gives the same subset, another seed another, and a smaller subset is part of a larger one."""
    assert rows(limited(labelled(), 40, 1, draw)) == rows(limited(labelled(), 40, 1, draw))
    assert rows(limited(labelled(), 40, 1, draw)) != rows(limited(labelled(), 40, 2, draw))
    parts = [set(rows(limited(labelled(), count, 1, draw))) for count in range(1, 226)]
    assert all(smaller < larger for smaller, larger in pairwise(parts))


@pytest.mark.parametrize(
    ("draw", "found"), [("balanced", [11, 92, 108, 113, 117, 214]), ("proportional", [11, 55, 108, 113, 150, 196])]
)
def test_results_of_two_people_can_be_compared(draw, found):
    """The rows are fixed here; if they change, results on subsets are no longer comparable."""
    assert rows(limited(labelled(labels=np.arange(226) % 10), 6, 0, draw)) == found


@pytest.mark.parametrize("count", [1, 9, 45, 113, 225])
def test_a_proportional_draw_has_the_same_share_of_every_class(count):
    """No class differs by more than one image from its share, give or take the rounding of the other nine classes."""
    there = np.bincount(LABELS, minlength=10)
    for seed in range(20):
        taken = np.bincount(limited(labelled(), count, seed).labels, minlength=10)
        assert taken.sum() == count
        assert np.abs(taken - there * count / 226).max() < 2


def test_every_image_has_the_same_chance_in_a_proportional_draw():
    """Over many seeds, images of rare and of common classes are drawn equally often."""
    times = np.zeros(226)
    for seed in range(3000):
        times[rows(limited(labelled(), 45, seed))] += 1
    by_class = np.bincount(labelled().labels, times, 10)[[0, 1, 2, 3, 5]] / np.array([50, 5, 20, 1, 30]) / 3000
    # Of the only image of a class, 3000 draws give the chance with a standard error of 0.0073.
    assert by_class == pytest.approx(45 / 226, abs=0.03)
    assert times.min() > 400


def covered(draw, count, seeds):
    """How often the interval of a subset's top-1 holds the whole set's, for a set with a long tail of hard classes."""
    sizes = np.round(np.geomspace(20, 600, 60)).astype(int)
    labels = np.repeat(np.arange(60), sizes)
    right = np.random.default_rng(0).random(len(labels)) < np.linspace(0.9, 0.4, 60)[labels]
    whole = replace(labelled(labels=labels), classnames=tuple(map(str, range(60))))
    found = 0
    for seed in seeds:
        chosen = right[rows(limited(whole, count, seed, draw))]
        low, high = clopper_pearson(int(chosen.sum()), count)
        found += low <= right.mean() <= high
    return found / len(seeds)


@pytest.mark.slow
@pytest.mark.parametrize("count", [100, 500, 2000])
def test_the_interval_of_a_subset_holds_the_accuracy_of_the_whole(count):
    """At least 94 % of the intervals of proportional draws do, and hardly any of balanced draws, which were used."""
    seeds = range(1000)
    assert covered("proportional", count, seeds) >= 0.94
    assert covered("balanced", count, seeds) < 0.5


def noted(metric, draw="proportional", count=20, **more):
    """The notes of a subset, in one text."""
    return " ".join(limited(labelled(metric, **more), count, draw=draw).notes)


def test_a_subset_says_what_its_metric_misses():
    """Classes without an image, groups without an image, and a balanced draw of unequal classes are noted."""
    for kind in ("mean-per-class", "macro-f1"):
        missing = len(set(LABELS.tolist()) - set(limited(labelled(), 20).labels.tolist()))
        assert f"{9 - missing} of 9 classes" in noted(Metric(kind))
        assert "--balanced" in noted(Metric(kind))
        # F1 depends on how many images the other classes have; a mean over classes does not.
        assert ("not an estimate" in noted(Metric(kind), "balanced")) is (kind == "macro-f1")
    chosen = rows(limited(labelled(), 20))
    left_out = np.setdiff1d(np.arange(226), chosen)[:3]
    groups = {"seen": np.array(chosen), "unseen": left_out, "empty": np.array([], int)}
    assert "no image of unseen, which" in noted(Metric("worst-group", groups))
    assert "not an estimate" in noted(None, "balanced")
    assert noted(None) == noted(None, "balanced", labels=np.arange(220) % 10) == ""


def test_images_are_drawn_from_all_of_a_class():
    """Over many seeds, each image of a class has the same chance to be drawn."""
    times = np.zeros(226)
    for seed in range(300):
        times[rows(limited(labelled(), 45, seed, "balanced"))] += 1
    labels = labelled().labels
    fives = times[labels == 5]
    assert fives.mean() == pytest.approx(300 * 5.25 / 30, rel=0.1)
    assert fives.min() > 25
    assert fives.max() < 85


def test_a_subset_as_large_as_the_data_set_is_the_data_set():
    """The data set itself is returned, so nothing is reordered."""
    whole = labelled()
    assert limited(whole, 226) is whole
    assert limited(whole, 9999) is whole


@pytest.mark.parametrize("count", [0, -3])
def test_an_empty_subset_is_refused(count):
    """A subset of zero or fewer images raises SuiteError."""
    with pytest.raises(SuiteError, match="at least 1"):
        limited(labelled(), count)


def test_groups_and_accepted_classes_are_counted_anew():
    """A group keeps its chosen images, and a group without any is left out."""
    groups = {"even": np.arange(0, 226, 2), "one": np.array([3]), "both": np.array([0, 1, 2])}
    accepted = tuple(frozenset({row % 10}) for row in range(226))
    part = limited(labelled(Metric("worst-group", groups, accepted)), 100)
    chosen = rows(part)
    assert [chosen[index] for index in part.metric.groups["even"]] == [row for row in chosen if row % 2 == 0]
    assert ("one" in part.metric.groups) == (3 in chosen)
    assert part.metric.accepted == tuple(frozenset({row % 10}) for row in chosen)
    assert part.metric.kind == "worst-group"
    tiny = limited(labelled(Metric("worst-group", {"a": np.array([chosen[0]]), "b": np.arange(226)})), 1)
    assert all(group.size for group in tiny.metric.groups.values())


def test_frames_of_one_group_are_not_separated():
    """A metric such as pm-10 needs all frames of a group, so a subset is refused and the option is named."""
    with pytest.raises(SuiteError, match="X: .*--limit"):
        limited(labelled(Metric("all-in-group", {"0": np.arange(3)})), 10)


def test_a_subset_can_be_sent_to_a_worker():
    """The functions of a subset survive pickling and give the same images."""
    part = limited(labelled(corrupt=corrupt), 10)
    image, change = pickle.loads(pickle.dumps((part.image, part.corrupt)))
    assert image(4).getpixel((0, 0)) == part.image(4).getpixel((0, 0))
    assert change(4, np.zeros(1, np.uint8)) == part.corrupt(4, np.zeros(1, np.uint8))


def test_a_subset_has_a_fingerprint_of_its_own():
    """Subsets of different sizes and seeds have different fingerprints, so their records are never confused."""
    prints = {fingerprint(limited(labelled(), count, seed)) for count, seed in [(10, 0), (10, 1), (11, 0), (226, 0)]}
    assert len(prints) == 4


def image(index):
    """An image of the reference whose pixel is its index."""
    return Image.new("L", (2, 2), index)


REFERENCE = Dataset("imagenet", "ImageNet", tuple("abcde"), np.array([0, 1, 2, 3, 4, 2]), image, vocabulary="imagenet")
SHIFT = Dataset(
    "r", "R", ("two", "four or zero"), np.array([0, 1]), image, columns=((2,), (4, 0)), vocabulary="imagenet"
)


def test_a_companion_holds_the_images_of_the_shifts_classes():
    """It has the labels and the columns of the shift, so that a head predicts among the shift's classes alone."""
    (found,) = companions(Suite("s", REFERENCE, (SHIFT,)))
    assert found.labels.tolist() == [1, 0, 1, 0]
    assert [found.image(i).getpixel((0, 0)) for i in range(4)] == [0, 2, 4, 5]
    assert (found.columns, found.classnames, found.name) == (SHIFT.columns, SHIFT.classnames, "reference-of-r")
    assert [found.sample(i) for i in range(4)] == ["0", "2", "4", "5"]


def test_shifts_with_all_classes_have_no_companion():
    """Shifts of another vocabulary and suites without a reference have no companion either."""
    plain = replace(SHIFT, columns=None)
    other = replace(SHIFT, vocabulary="")
    assert companions(Suite("s", REFERENCE, (plain, other))) == ()
    assert companions(Suite("s", None, (SHIFT,))) == ()


def named(classes, columns=None, vocabulary="imagenet"):
    """A data set whose class names alone matter."""
    names = tuple(f"class {number}" for number in range(classes))
    return Dataset("x", "X", names, np.zeros(1, np.int64), lambda i: None, columns=columns, vocabulary=vocabulary)


THOUSAND = tuple(f"name {number}" for number in range(1000))


def test_one_name_for_each_class_replaces_the_names():
    """Class names and templates can be replaced independently."""
    changed = with_names(named(2), ("a", "b"), None)
    assert (changed.classnames, changed.templates) == (("a", "b"), ("a photo of a {}.",))
    changed = with_names(named(2), None, ("{}",))
    assert (changed.classnames, changed.templates) == (("class 0", "class 1"), ("{}",))


def test_imagenets_names_fit_a_subset_of_its_classes():
    """The names of the data set's own classes are taken."""
    assert with_names(named(2, ((7,), (900,))), THOUSAND, None).classnames == ("name 7", "name 900")


@pytest.mark.parametrize(
    ("which", "names", "message"),
    [
        (named(3), ("a", "b"), "3 class names.* found 2"),
        (named(3), THOUSAND, "3 class names.* found 1000"),
        (named(2, ((7,), (8,)), "other"), THOUSAND, "2 class names.* found 1000"),
        (named(2, ((7,), (8, 9))), THOUSAND, "--classnames"),
    ],
)
def test_names_that_fit_nothing_are_refused(which, names, message):
    """A number of names that fits neither the data set nor ImageNet raises SuiteError."""
    with pytest.raises(SuiteError, match=f"X: .*{message}"):
        with_names(which, names, None)


def test_classes_follow_the_reference_by_names_that_differ_in_case_and_underscores():
    """A shift's folders may be called otherwise than the reference's; its labels become the reference's."""
    labels = np.array([0, 1, 2])
    reference = Dataset("photos", "Photos", ("oxeye daisy", "Rose", "tulip"), labels, str)
    shift = Dataset("drawings", "Drawings", ("tulip", "oxeye_daisy", "rose"), labels, str)
    found = in_order_of(reference, shift)
    assert found.classnames == reference.classnames
    assert found.labels.tolist() == [2, 0, 1]
    assert "by name" in found.notes[0]
    part = Dataset("two", "Two", ("rose", "oxeye_daisy"), labels[:2], str)
    (companion,) = companions(Suite("own", reference, (part,)))
    assert companion.labels.tolist() == [1, 0]


def animals(**more):
    """Two images of a cat, then one of a dog and one of an eel."""
    return Dataset("x", "X", ("cat", "dog", "eel"), np.array([0, 0, 1, 2]), lambda i: None, **more)


def test_its_own_names_in_another_order_give_the_order_and_no_other_names():
    """Every image keeps the name of its class, and all right answers do; a note says so."""
    metric = Metric("top-1", accepted=(frozenset({0}), frozenset({0, 2}), frozenset({1}), frozenset({2})))
    changed = with_names(animals(metric=metric), ("eel", "Cat", "dog"), None)
    assert [changed.classnames[label] for label in changed.labels] == ["Cat", "Cat", "dog", "eel"]
    assert changed.metric.accepted == (frozenset({1}), frozenset({1, 0}), frozenset({2}), frozenset({0}))
    assert "in the order of the given class names" in changed.notes[-1]


def test_classes_that_are_columns_of_imagenets_keep_their_order():
    """The names go to the classes that have them, whatever the order of the list."""
    columns = ((7,), (8,), (9,))
    changed = with_names(animals(columns=columns, vocabulary="imagenet"), ("eel", "cat", "dog"), None)
    assert (changed.classnames, changed.columns) == (("cat", "dog", "eel"), columns)
    assert changed.labels.tolist() == [0, 0, 1, 2]


def test_names_of_other_classes_are_refused():
    """A list in another order with one name that the data has not would give classes the names of others."""
    with pytest.raises(
        SuiteError, match="X: 2 classes, such as 'cat'.*Only the data has 'eel'; only the list has 'ox'"
    ):
        with_names(animals(), ("dog", "cat", "ox"), None)
    assert with_names(animals(), ("tom", "rex", "eve"), None).classnames == ("tom", "rex", "eve")


def test_a_shifts_classes_are_found_in_the_reference_whatever_the_case():
    """A head without names is the reference's, so folders called EEL, Cat and dog take its order."""
    reference = Dataset("r", "R", ("EEL", "Cat", "dog"), np.array([0, 1, 2]), lambda i: None)
    moved = in_order_of(reference, animals())
    assert [reference.classnames[label] for label in moved.labels] == ["Cat", "Cat", "dog", "EEL"]
    assert "by name" in moved.notes[-1]


@pytest.mark.parametrize("shots", [1, 3, 25])
def test_few_shots_are_as_many_images_of_each_class_as_it_has(shots):
    """In the old order, each once; classes with fewer images are named with their counts, those with none too."""
    whole = labelled()
    part = few_shot(whole, shots, seed=2)
    assert np.bincount(part.labels, minlength=10).tolist() == [min(shots, n) for n in np.bincount(LABELS, minlength=10)]
    assert rows(part) == sorted(set(rows(part)))
    assert part.labels.tolist() == [whole.labels[row] for row in rows(part)]
    first, second = part.notes
    assert first == f"{len(part)} of 226 images drawn, {shots} of each class"
    expected = {1: ["4 (0)"], 3: ["3 (1)", "4 (0)"], 25: ["1 (5)", "2 (20)", "3 (1)", "4 (0)"]}[shots]
    assert second == f"{len(expected)} of 10 classes have fewer than {shots} images: {', '.join(expected)}"


def test_few_shots_are_drawn_by_the_seed():
    """The same seed draws the same images, and more of them contain fewer; another seed draws others."""
    one, same, more, other = (rows(few_shot(labelled(), k, seed)) for k, seed in ((4, 0), (4, 0), (9, 0), (4, 1)))
    assert one == same
    assert set(one) < set(more)
    assert one != other


def test_each_image_of_a_class_is_as_likely_to_be_a_shot():
    """Over 3,000 seeds, each of five images is one of two in two fifths of the draws (chi-squared below its 0.999)."""
    data = labelled(labels=np.repeat(np.arange(2), 5))
    drawn = [row for seed in range(3000) for row in rows(few_shot(data, 2, seed))]
    counts = np.bincount(drawn, minlength=10)
    assert (counts[:5].sum(), counts[5:].sum()) == (6000, 6000)
    # Draws without replacement vary less than independent ones, by (5 - 2) / (5 - 1).
    assert all(((half - 1200) ** 2 / 1200).sum() / 0.75 < 18.5 for half in (counts[:5], counts[5:]))


def test_no_shots_are_refused():
    """As the command line does, which has a lower bound for them."""
    with pytest.raises(SuiteError, match="at least 1 image of each class, found 0"):
        few_shot(labelled(), 0)
