"""The suite `digits` is reproducible, and each of its shifts does what its name says."""

import pickle

import numpy as np
import pytest
from PIL import Image

from mergekit_wise.datasets import digits
from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.digits import test_images, train_images
from mergekit_wise.datasets.glyphs import CLASSNAMES
from mergekit_wise.errors import SuiteError

SHIFTS = ["inverted", "rotated", "blurred", "noisy", "faded", "small", "printed"]
# pytest would collect this function because of its name.
test_images.__test__ = False


@pytest.fixture(scope="module")
def suite():
    """The suite as the catalogue opens it."""
    return open_suite("digits")


def shift(suite, name):
    """The shift with this last part of its name."""
    return next(d for d in suite.shifts if d.name == f"digits-{name}")


def grey(dataset, index):
    """The grey levels of an image, int [32, 32]; its three channels must be equal."""
    pixels = np.asarray(dataset.image(index)).astype(int)
    assert np.ptp(pixels, axis=-1).max() == 0
    return pixels[..., 0]


def test_the_suite_is_one_reference_and_seven_shifts(suite):
    """Each data set has 1000 RGB images, 100 per class, with the same labels."""
    assert [d.name for d in suite.shifts] == [f"digits-{name}" for name in SHIFTS]
    for dataset in (suite.reference, *suite.shifts):
        assert dataset.classnames == CLASSNAMES
        assert dataset.labels.dtype == np.int64
        assert np.bincount(dataset.labels).tolist() == [100] * 10
        assert np.array_equal(dataset.labels, suite.reference.labels)
        assert (len(dataset), dataset.image(0).size, dataset.image(0).mode) == (1000, (32, 32), "RGB")


def test_train_and_test_share_no_scan_and_leave_none_out():
    """Training and test images are disjoint and together all 1797 scans."""
    train, test = train_images(), test_images()
    assert sorted([*train.rows, *test.rows]) == list(range(1797))
    assert len(train.labels) == 797
    assert np.bincount(train.labels).min() >= 74


def test_the_split_is_the_same_for_everyone():
    """The first rows of the test images and the sum of all rows are fixed, so that results can be compared."""
    rows = test_images().rows
    assert rows[:8].tolist() == [1, 3, 6, 8, 9, 10, 14, 15]
    assert int(rows.sum()) == 901717


def test_labels_are_scikit_learns(suite):
    """A test image, scaled down again, correlates with the scan that has its label."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    for index, row in list(enumerate(test_images().rows))[::97]:
        assert suite.reference.labels[index] == bunch.target[row]
        small = suite.reference.image(index).convert("L").resize((10, 10), Image.Resampling.BOX)
        seen = np.asarray(small)[1:-1, 1:-1].astype(float).ravel()
        assert np.corrcoef(seen, bunch.images[row].ravel())[0, 1] > 0.95


@pytest.mark.parametrize("name", SHIFTS)
def test_an_image_depends_on_its_index_alone(suite, name):
    """An image has the same bytes after other images were made and after the suite was opened again."""
    first = grey(shift(suite, name), 7)
    grey(shift(suite, name), 8)
    assert np.array_equal(first, grey(shift(suite, name), 7))
    assert np.array_equal(first, grey(shift(open_suite("digits"), name), 7))


def test_inverted_is_255_minus_the_reference(suite):
    """Every pixel of an inverted image is exactly 255 minus that of the reference."""
    for index in (0, 500, 999):
        assert np.array_equal(grey(shift(suite, "inverted"), index), 255 - grey(suite.reference, index))


def test_rotated_images_turn_back(suite):
    """A rotation by 20 to 35 degrees in either direction gives the reference back."""
    turns = [*range(-35, -19), *range(20, 36)]
    best = []
    for index in range(10):
        turned = shift(suite, "rotated").image(index).convert("L")
        back = [np.asarray(turned.rotate(-turn, Image.Resampling.BICUBIC)).ravel() for turn in turns]
        close = [np.corrcoef(b, grey(suite.reference, index).ravel())[0, 1] for b in back]
        assert max(close) > 0.95
        best.append(turns[int(np.argmax(close))])
    assert min(best) < 0 < max(best)


def test_blurred_images_lose_edges_and_keep_ink(suite):
    """No edge is steeper than 0.8 of the reference's steepest; the mean grey stays within a tenth."""
    for index in range(50):
        sharp, soft = grey(suite.reference, index), grey(shift(suite, "blurred"), index)
        assert np.abs(np.diff(soft)).max() < 0.8 * np.abs(np.diff(sharp)).max()
        assert soft.mean() == pytest.approx(sharp.mean(), rel=0.1)


def test_noise_has_a_standard_deviation_of_60(suite):
    """On middle grey, where nothing is clipped, the noise has mean 0 and standard deviation 60."""
    extra = []
    for index in range(50):
        clean = grey(suite.reference, index)
        middle = (clean > 120) & (clean < 135)
        extra.extend((grey(shift(suite, "noisy"), index) - clean)[middle])
    assert np.mean(extra) == pytest.approx(0, abs=5)
    assert np.std(extra) == pytest.approx(60, abs=5)


def test_faded_images_span_60_grey_levels(suite):
    """Grey levels from 0 to 255 are mapped linearly to 100 to 160."""
    for index in range(10):
        clean, faded = grey(suite.reference, index), grey(shift(suite, "faded"), index)
        assert faded.min() >= 100
        assert faded.max() <= 160
        assert np.abs(faded - (100 + clean * 60 / 255)).max() <= 0.5


def test_small_images_hold_all_of_the_digit(suite):
    """The sum of the grey levels is (20/32)^2 of that of the reference."""
    for index in range(20):
        ink = grey(shift(suite, "small"), index).sum() / grey(suite.reference, index).sum()
        assert ink == pytest.approx((20 / 32) ** 2, rel=0.05)


def test_printed_images_are_dark_on_light(suite):
    """The ground of a printed image is light, and that of the reference is dark."""
    for index in range(20):
        assert np.median(grey(shift(suite, "printed"), index)) >= 200
        assert np.median(grey(suite.reference, index)) < 100


def test_without_scikit_learn_the_message_names_the_extra(monkeypatch):
    """Opening the suite without scikit-learn raises SuiteError with the command that installs it."""
    digits._split.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(SuiteError, match=r"pip install 'mergekit-wise\[demo\]'"):
        open_suite("digits")


def test_images_can_be_asked_for_in_another_process(suite):
    """The image functions survive pickling and give the same images."""
    for dataset in suite.datasets:
        copy = pickle.loads(pickle.dumps(dataset.image))
        assert np.array_equal(np.asarray(copy(3)), np.asarray(dataset.image(3)))
