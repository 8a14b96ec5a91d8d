"""Synthetic corruptions: the effect of each, its reproducibility, and the suite of all of them."""

import hashlib
import io
import pickle
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.dataset import Dataset, Suite
from mergekit_wise.datasets.synthetic import CORRUPTIONS, NOTE, Corruption, corrupted, synthetic_suite
from mergekit_wise.errors import SuiteError

SEVERITIES = range(1, 6)


def by_severity(*values):
    """Pairs of a severity and its expected value."""
    return list(enumerate(values, 1))


def scene(seed=0, side=64):
    """An image with large and small structure and full contrast, uint8 [side, side, 3]."""
    rng = np.random.default_rng(seed)
    layers = sum(
        weight * gaussian_filter(rng.normal(size=(side, side, 3)), (smooth, smooth, 0)) * smooth
        for smooth, weight in ((1, 1), (4, 1), (12, 1))
    )
    scaled = (layers - layers.min()) / np.ptp(layers)
    return np.rint(255 * scaled).astype(np.uint8)


def grey(level, side=64):
    return np.full((side, side, 3), level, np.uint8)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_depends_on_its_seed_alone(name, severity):
    """The result is the same after other images, in any memory layout and after pickling; the input is unchanged."""
    image = scene(side=96)[:, :80]
    before = image.copy()
    corruption = Corruption(name, severity)
    first = corruption(7, image)
    corruption(8, image)
    assert (first.dtype, first.shape) == (np.uint8, image.shape)
    assert np.array_equal(image, before)
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
    assert np.array_equal(corruption(7, planes.transpose(1, 2, 0)), first)
    assert np.array_equal(pickle.loads(pickle.dumps(corruption))(7, image), first)
    assert not np.array_equal(first, image)


RANDOM = ["gaussian_noise", "shot_noise", "impulse_noise", "motion_blur", "fog", "elastic_transform"]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_images_severities_and_corruptions_have_their_own_random_numbers(name):
    """Random corruptions differ between two images, and deterministic ones do not."""
    image = scene()
    assert np.array_equal(Corruption(name, 3)(0, image), Corruption(name, 3)(1, image)) == (name not in RANDOM)


PROBE = """
import hashlib, sys
import numpy as np
from mergekit_wise.datasets.synthetic import Corruption
image = np.frombuffer(sys.stdin.buffer.read(), np.uint8).reshape(64, 64, 3)
for name in sys.argv[1:]:
    print(hashlib.sha256(Corruption(name, 4)(123, image).tobytes()).hexdigest())
"""


def test_another_process_makes_the_same_bytes():
    """The bytes do not depend on seeds of the process, such as that of Python's hashes."""
    image = scene()
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *CORRUPTIONS], input=image.tobytes(), capture_output=True, check=True
    )
    here = [hashlib.sha256(Corruption(name, 4)(123, image).tobytes()).hexdigest() for name in CORRUPTIONS]
    assert done.stdout.decode().split() == here


@pytest.mark.parametrize("name", sorted(set(CORRUPTIONS) - {"fog"}))
def test_each_severity_changes_more_than_the_one_before(name):
    """The mean change over images grows with the severity. Fog has a test of its own below."""
    images = [scene(seed, 224) for seed in range(4)]
    changed = [
        np.mean([np.abs(Corruption(name, s)(i, image).astype(float) - image).mean() for i, image in enumerate(images)])
        for s in SEVERITIES
    ]
    assert all(a < b for a, b in pairwise(changed)), changed


@pytest.mark.parametrize(("severity", "spread"), by_severity(0.08, 0.12, 0.18, 0.26, 0.38))
def test_gaussian_noise_has_its_spread(severity, spread):
    """On mid grey, the noise has the standard deviation of clipped Gaussian noise."""
    noisy = Corruption("gaussian_noise", severity)(0, grey(128, 128))
    wanted = np.clip(128 + np.random.default_rng(99).normal(0, 255 * spread, 10**6), 0, 255)
    assert noisy.mean() == pytest.approx(128, abs=1)
    assert noisy.std() == pytest.approx(wanted.std(), rel=0.02)


@pytest.mark.parametrize(("severity", "photons"), by_severity(60, 25, 12, 5, 3))
def test_shot_noise_is_a_count_of_photons(severity, photons):
    """Mean and variance are those of Poisson counts, clipped at white."""
    for level in (26, 77):
        noisy = Corruption("shot_noise", severity)(0, grey(level, 128)) / 255 * photons
        wanted = np.minimum(np.random.default_rng(9).poisson(level / 255 * photons, 10**6), photons)
        assert noisy.mean() == pytest.approx(wanted.mean(), rel=0.03)
        assert noisy.var() == pytest.approx(wanted.var(), rel=0.05)


@pytest.mark.parametrize(("severity", "share"), by_severity(0.03, 0.06, 0.09, 0.17, 0.27))
def test_impulse_noise_is_half_salt_and_half_pepper(severity, share):
    """Half of the changed values are black and half are white; all others are unchanged."""
    noisy = Corruption("impulse_noise", severity)(0, grey(128, 128))
    assert set(np.unique(noisy)) == {0, 128, 255}
    assert np.mean(noisy == 0) == pytest.approx(share / 2, rel=0.1)
    assert np.mean(noisy == 255) == pytest.approx(share / 2, rel=0.1)


def point(name, severity, side=225):
    """A corrupted white square in the middle, float [side, side] with sum 1 if no light is lost, and radii."""
    image = np.zeros((side, side, 3), np.uint8)
    middle = side // 2
    image[middle - 3 : middle + 4, middle - 3 : middle + 4] = 255
    blurred = Corruption(name, severity)(5, image)[..., 0].astype(float)
    return blurred / image[..., 0].sum(), np.hypot(*np.mgrid[-middle : middle + 1, -middle : middle + 1])


@pytest.mark.parametrize(("severity", "radius"), by_severity(3, 4, 6, 8, 10))
def test_defocus_makes_disks_of_points(severity, radius):
    """The light stays within the radius, is symmetric around the point, and keeps its sum."""
    blurred, away = point("defocus_blur", severity)
    assert blurred.sum() == pytest.approx(1, abs=0.05)
    assert blurred[away > radius + 6].sum() == 0
    assert blurred[(away > radius - 1) & (away < radius + 1)].sum() > 0.01
    assert np.allclose(blurred, blurred[::-1, ::-1], atol=1e-4)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_motion_makes_strokes_of_points(severity):
    """A point becomes a stroke to one side, longer than wide, at most 45 degrees off the horizontal."""
    blurred, _ = point("motion_blur", severity)
    ys, xs = np.mgrid[-112:113, -112:113]
    middle = np.array([(blurred * xs).sum(), (blurred * ys).sum()])
    centred = (xs - middle[0], ys - middle[1])
    spread = np.array([[(blurred * a * b).sum() for a in centred] for b in centred])
    values, axes = np.linalg.eigh(spread)
    assert blurred.sum() == pytest.approx(1, abs=0.05)
    assert values[1] > values[0] * 1.1
    assert middle[0] > 1
    assert abs(axes[1, 1]) <= abs(axes[0, 1]) * 1.05


def test_zoom_leaves_the_middle_and_blurs_the_rim():
    """Stripes keep more contrast in the middle than at the edge, because enlargements are centred."""
    stripes = np.zeros((224, 224, 3), np.uint8)
    stripes[:, (np.arange(224) // 4) % 2 == 0] = 255
    blurred = Corruption("zoom_blur", 3)(0, stripes).astype(float)
    assert blurred[100:124, 108:116].std() > 2 * blurred[100:124, 4:12].std()


@pytest.mark.parametrize(("severity", "strength"), by_severity(1.5, 2.0, 2.5, 2.5, 3.0))
def test_fog_is_a_grey_veil_over_a_fainter_image(severity, strength):
    """The veil is grey and smooth, and the image below it keeps a share of its contrast."""
    image = scene(3, 224)
    image[0, 0] = 255  # the brightest point decides how much light the veil has
    fog = Corruption("fog", severity)
    veil = fog(0, grey(255, 224)).astype(float)
    assert np.ptp(veil, axis=-1).max() == 0
    assert veil.std() > 5
    assert np.abs(np.diff(veil[..., 0], axis=0)).mean() < veil.std() / 2
    assert np.abs(fog(0, image) - veil - (image - 255.0) / (1 + strength)).max() <= 1.01


@pytest.mark.parametrize(("severity", "more"), by_severity(0.1, 0.2, 0.3, 0.4, 0.5))
def test_brightness_raises_v_and_keeps_hue_and_saturation(severity, more):
    """The colours agree with those that Python's colorsys computes."""
    from colorsys import hsv_to_rgb, rgb_to_hsv

    image = scene(1, 16)
    image[0, 0] = 0
    bright = Corruption("brightness", severity)(0, image)
    for before, after in zip(image.reshape(-1, 3) / 255, bright.reshape(-1, 3), strict=True):
        hue, saturation, value = rgb_to_hsv(*before)
        wanted = hsv_to_rgb(hue, saturation, min(value + more, 1))
        assert np.abs(np.array(wanted) * 255 - after).max() <= 0.51


@pytest.mark.parametrize(("severity", "share"), by_severity(0.4, 0.3, 0.2, 0.1, 0.05))
def test_contrast_keeps_the_mean_and_shrinks_the_rest(severity, share):
    """Each channel keeps its mean, and its deviations shrink by the share, to within rounding."""
    image = scene(2)
    flat = Corruption("contrast", severity)(0, image)
    mean = image.mean(axis=(0, 1))
    assert np.abs(mean + share * (image - mean) - flat).max() <= 0.51


def test_elastic_keeps_the_colours_and_moves_them_little():
    """A plain image is unchanged, and pixels move by the expected distance."""
    assert np.array_equal(Corruption("elastic_transform", 5)(0, grey(90)), grey(90))
    ramp = np.repeat(np.arange(224, dtype=np.uint8)[None, :, None], 224, axis=0).repeat(3, axis=2)
    for severity, reach in by_severity(2.0, 2.4, 2.7, 3.0, 3.4):
        moved = Corruption("elastic_transform", severity)(0, ramp)[:, 20:-20].astype(float) - ramp[:, 20:-20]
        assert moved.std() == pytest.approx(reach, rel=0.35)


@pytest.mark.parametrize(("severity", "pixels"), by_severity(38, 32, 26, 19, 16))
def test_pixelate_leaves_that_many_pixels_a_side(severity, pixels):
    """Of 64 columns, only that many differ from the one before, and the mean is kept."""
    blocks = Corruption("pixelate", severity)(0, scene())
    assert 1 + int((np.diff(blocks.astype(int), axis=1) != 0).any(axis=(0, 2)).sum()) == pixels
    assert blocks.mean() == pytest.approx(scene().mean(), abs=2)


@pytest.mark.parametrize(("severity", "quality"), by_severity(25, 18, 15, 10, 7))
def test_jpeg_is_pillows_at_low_quality(severity, quality):
    """The bytes are those that Pillow's encoder and decoder give at this quality."""
    stored = io.BytesIO()
    Image.fromarray(scene()).save(stored, "JPEG", quality=quality)
    assert np.array_equal(Corruption("jpeg_compression", severity)(0, scene()), np.asarray(Image.open(stored)))


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("image", [grey(0, 8), grey(255, 8), scene(0, 1)], ids=["black", "white", "one pixel"])
def test_extremes_do_not_break(name, image):
    """Plain images and an image of one pixel keep their shape under every corruption."""
    for severity in SEVERITIES:
        assert Corruption(name, severity)(0, image).shape == image.shape


@pytest.mark.parametrize(("name", "severity"), [("gaussian_noise", 0), ("gaussian_noise", 6), ("glass", 1)])
def test_unknown_corruptions_are_refused(name, severity):
    """An unknown name or severity raises SuiteError with the known names."""
    with pytest.raises(SuiteError, match=r"no corruption .* gaussian_noise, shot_noise"):
        Corruption(name, severity)


def picture(index):
    """An image of the toy data set; a module-level function, so that it can be pickled."""
    return Image.fromarray(scene(index))


@pytest.fixture
def dataset():
    """A toy data set with three images of two classes."""
    return Dataset("toy", "Toy", ("a", "b"), np.array([0, 1, 0]), picture, location="/data/toy", expected=3)


def test_a_corrupted_data_set_is_labelled_as_synthetic(dataset):
    """Only name, title, location and the corruption by index change; a second corruption is refused."""
    again = pickle.loads(pickle.dumps(corrupted(dataset, Corruption("fog", 2))))
    assert (again.name, again.title) == ("toy-synthetic-fog-2", "Toy, synthetic fog 2")
    assert NOTE == "synthetic: not comparable with published ImageNet-C numbers"
    assert again.location == f"/data/toy ({NOTE})"
    for index in range(3):
        pixels = np.asarray(again.image(index))
        assert np.array_equal(pixels, scene(index))
        assert np.array_equal(again.corrupt(index, pixels), Corruption("fog", 2)(index, pixels))
    assert again.classnames == dataset.classnames
    assert np.array_equal(again.labels, dataset.labels)
    with pytest.raises(SuiteError, match="Toy, synthetic fog 2"):
        corrupted(again, Corruption("fog", 2))


def test_the_suite_has_every_corruption_at_every_severity(dataset):
    """The reference or the only data set is corrupted; several data sets without a reference are refused."""
    alone = synthetic_suite(Suite("toy", None, (dataset,)))
    led = synthetic_suite(Suite("toy", dataset, (replace(dataset, name="other"),)))
    for suite in (alone, led):
        assert suite.name == "synthetic:toy"
        assert suite.reference.name == dataset.name
        assert {part.same_images for part in suite.datasets} == {"toy"}
        wanted = {f"toy-synthetic-{name}-{severity}" for name in CORRUPTIONS for severity in SEVERITIES}
        assert {shift.name for shift in suite.shifts} == wanted
    assert len(alone.shifts) == 5 * len(CORRUPTIONS) == 60
    with pytest.raises(SuiteError, match="toy, other"):
        synthetic_suite(Suite("toy", None, (dataset, replace(dataset, name="other"))))


def test_the_prefix_synthetic_opens_the_suite():
    """synthetic:NAME corrupts NAME; the prefix without a name is refused."""
    suite = open_suite("synthetic:digits")
    assert (suite.reference.name, len(suite.shifts)) == ("digits", 60)
    with pytest.raises(SuiteError, match="synthetic:imagenet"):
        open_suite("synthetic")
