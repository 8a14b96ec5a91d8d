"""Training images: decoding gives the same pixels in any process; unreadable images stop a run or are left out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mergekit_wise.errors import SuiteError
from mergekit_wise.training.images import Augmentation, Decoded, InMemory, cached
from tests.training.fakes import PREPROCESS, Noise, noise

BATCHES = [np.array([3, 0, 7]), np.array([29, 4, 1]), np.array([5])]


class Torn(Noise):
    """Images 4 and 7 cannot be read."""

    def image(self, index):
        if index % 30 in (4, 7):
            raise SuiteError(f"img{index % 30}.jpg: cannot be decoded.")
        return super().image(index)


def decoded(kind="crop", workers=0, dataset=None, max_bad=0):
    return Decoded(dataset or noise(), PREPROCESS, Augmentation(kind, (8, 8), "bicubic", 0), workers, max_bad)


def parts(source, epoch=0):
    return [(part.values.clone(), part.indices.tolist()) for part in source.parts(epoch, BATCHES)]


def test_the_number_of_workers_changes_nothing():
    """Two workers and none give the same bytes, augmentation included; another epoch gives other ones."""
    alone, several = parts(decoded(), epoch=1), parts(decoded(workers=2), epoch=1)
    assert [indices for _, indices in several] == [indices for _, indices in alone] == [b.tolist() for b in BATCHES]
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(alone, several, strict=True))
    assert not torch.equal(parts(decoded())[0][0], alone[0][0])


def test_images_that_stay_the_same_are_held_in_memory():
    """Images without augmentation are cached with the pixels that decoding gives; augmented ones are not cached."""
    held = cached(decoded("none"))
    assert isinstance(held, InMemory)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(parts(held, 3), parts(decoded("none")), strict=True))
    assert isinstance(cached(decoded("crop")), Decoded)


@pytest.mark.parametrize("kind", ["none", "crop"])
def test_an_unreadable_image_stops_a_run_with_its_path(kind):
    """The error names the file of an unreadable image."""
    with pytest.raises(SuiteError, match=r"img[47]\.jpg"):
        parts(cached(decoded(kind, dataset=replace(noise(), image=Torn().image))))


@pytest.mark.parametrize("kind", ["none", "crop"])
def test_unreadable_images_that_may_be_are_left_out(kind):
    """With `max_bad`, unreadable images are left out in every epoch, and all others keep their order."""
    source = cached(decoded(kind, dataset=replace(noise(), image=Torn().image), max_bad=2))
    for epoch in (0, 1):
        found = parts(source, epoch)
        assert [indices for _, indices in found] == [[3, 0], [29, 1], [5]]
        whole = parts(decoded(kind), epoch)
        assert torch.equal(found[0][0], whole[0][0][:2])
        assert torch.equal(found[1][0], whole[1][0][[0, 2]])
