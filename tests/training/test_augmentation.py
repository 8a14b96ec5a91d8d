"""Augmentation: random changes that are seeded by the image and the epoch, and by nothing else."""

import numpy as np
import pytest
import torch
from PIL import Image

from mergekit_wise.models.transform import Preprocess
from mergekit_wise.options import AUGMENTATIONS
from mergekit_wise.training.images import Augmentation, augmented
from tests.training.fakes import noise

RANDOM = [kind for kind in AUGMENTATIONS if kind != "none"]


def seen(kind, seed=0, count=5, epochs=4):
    """Every image in every epoch."""
    dataset = augmented(noise(count), Augmentation(kind, (8, 8), "bicubic", seed))
    return [np.asarray(dataset.image(place)) for place in range(count * epochs)]


@pytest.mark.parametrize("kind", RANDOM)
def test_an_image_is_another_in_each_epoch_and_for_each_seed(kind):
    """Augmented images have the model's size and differ; now and then torchvision finds no crop and keeps the image."""
    images = [*seen(kind), *seen(kind, seed=1)]
    assert {image.shape for image in images} == {(8, 8, 3)}
    assert len({image.tobytes() for image in images}) > 0.8 * len(images)


@pytest.mark.parametrize("kind", RANDOM)
def test_what_was_asked_for_before_changes_nothing(kind):
    """Image 3 of epoch 1 alone is what it is after all others; torch's own random numbers go on as they would."""
    expected = seen(kind)[8]
    torch.manual_seed(5)
    numbers = torch.rand(2)
    torch.manual_seed(5)
    assert torch.rand(1) == numbers[0]
    assert np.array_equal(np.asarray(augmented(noise(5), Augmentation(kind, (8, 8), "bicubic", 0)).image(8)), expected)
    assert torch.rand(1) == numbers[1]


def test_none_leaves_images_alone():
    """Without augmentation, images are the same in every epoch."""
    assert all(
        np.array_equal(a, b)
        for a, b in zip(seen("none"), [np.asarray(noise(5).image(i % 5)) for i in range(20)], strict=True)
    )


def test_a_crop_shows_at_least_nine_tenths_of_the_image():
    """A ramp's lowest and highest grey, mapped back to places, lie far apart; crop-flip cuts deeper and mirrors."""
    ramp = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (256, 1, 3)))
    spans, mirrored = {}, {}
    for kind in ("crop", "crop-flip"):
        change = Augmentation(kind, (64, 64), "bicubic", 0)
        rows = [np.asarray(change(ramp, 0, index))[32, :, 0].astype(int) for index in range(100)]
        spans[kind] = min(abs(row[-1] - row[0]) for row in rows)
        mirrored[kind] = sum(row[-1] < row[0] for row in rows)
    # A ratio of 4 : 3 and 90 % of the area leave 0.9 of the width at least.
    assert spans["crop"] > 0.75 * 255 > spans["crop-flip"]
    assert mirrored["crop"] == 0
    assert 30 < mirrored["crop-flip"] < 70


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_resizing_leaves_what_was_augmented_as_it_is(mode):
    """Preprocessing does not change an augmented image, which already has the model's size."""
    image = Augmentation("crop", (16, 16), "bicubic", 0)(noise().image(0), 0, 0)
    pixels = Preprocess(size=(16, 16), resize_mode=mode).pixels(image)
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), np.asarray(image))


def test_messages_name_the_image_itself():
    """An error names the image by its own index in every epoch."""
    assert augmented(noise(5), Augmentation("crop", (8, 8), "bicubic", 0)).sample(8) == "3"
