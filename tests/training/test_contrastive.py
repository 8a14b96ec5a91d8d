"""Contrastive pre-training: the loss is open_clip's, and two towers learn to agree."""

import pytest
import torch
from open_clip.loss import ClipLoss
from torch import nn
from torch.nn import functional

from mergekit_wise.training.contrastive import contrastive_loss, train_contrastive
from mergekit_wise.training.optimizer import Optimization


class Towers(nn.Module):
    """The least that has two towers: a linear map of images and an embedding of one token."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Linear(12, 8)
        self.text = nn.Embedding(4, 8)
        self.logit_scale = nn.Parameter(torch.tensor(2.66))

    def encode_image(self, images):
        return self.image(images)

    def encode_text(self, tokens):
        return self.text(tokens[:, 0])


def trained(seed, epochs=20, rate=1e-2, start=2.66):
    """Towers trained on images that carry their word in one of twelve pixels, and the progress that was told."""
    torch.manual_seed(0)
    model, told = Towers(), []
    model.logit_scale.data.fill_(start)
    words = torch.arange(64) % 4
    settings = Optimization(epochs, 16, rate, warmup=2)
    generator = torch.Generator().manual_seed(seed)
    images = functional.one_hot(words, 12).float()
    train_contrastive(
        model, images, words[:, None], lambda x: x - 0.5, settings, generator, lambda *call: told.append(call)
    )
    return model, told


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_the_loss_is_open_clips(scale):
    """On random features of length 1, and so are its gradients."""
    generator = torch.Generator().manual_seed(1)
    images, texts = (functional.normalize(torch.randn(33, 16, generator=generator), dim=-1) for _ in range(2))
    ours, theirs = images.clone().requires_grad_(), images.clone().requires_grad_()
    loss, expected = (
        contrastive_loss(ours, texts, torch.tensor(scale)),
        ClipLoss()(theirs, texts, torch.tensor(scale)),
    )
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_images_find_their_words():
    """After training each image's nearest word is its own; before, it is not."""
    words = torch.arange(4)
    images = functional.one_hot(words, 12).float() - 0.5

    def right(model):
        features = functional.normalize(model.encode_text(words[:, None]), dim=-1)
        return (functional.normalize(model.encode_image(images), dim=-1) @ features.T).argmax(1).eq(words).sum().item()

    torch.manual_seed(0)
    assert right(Towers()) < 4
    assert right(trained(seed=0)[0]) == 4


def test_the_same_seed_gives_the_same_bytes():
    """And another seed another order of the pairs."""
    first, again, other = (trained(seed)[0].image.weight for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_logit_scale_stops_at_100():
    """As CLIP's does, even where it starts beyond."""
    model, _ = trained(seed=0, epochs=1, rate=1e-7, start=9.0)
    assert model.logit_scale.exp().item() == pytest.approx(100, rel=1e-5)


def test_progress_counts_every_step():
    """From none to all of them, four batches in each of two epochs."""
    _, told = trained(seed=0, epochs=2)
    assert told == [("pre-training", done, 8, "steps") for done in range(9)]
