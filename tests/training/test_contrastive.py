"""Contrastive learning: the loss is open_clip's, two towers learn to agree, and parts of a batch are as good as all."""

import numpy as np
import pytest
import torch
from open_clip.loss import ClipLoss, SigLipLoss
from torch import nn
from torch.nn import functional

from mergekit_wise.training.demo_model import train_contrastive
from mergekit_wise.training.image_texts import ClassCaptions
from mergekit_wise.training.images import Part
from mergekit_wise.training.objectives import Contrastive, contrastive_loss, sigmoid_loss
from mergekit_wise.training.optimizer import Optimization
from mergekit_wise.training.runtime import Runtime


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
    """Towers trained on images that carry their word in one of twelve pixels, and the progress that was reported."""
    torch.manual_seed(0)
    model, reported = Towers(), []
    model.logit_scale.data.fill_(start)
    words = torch.arange(64) % 4
    settings = Optimization(epochs, 16, rate, warmup=2)
    generator = torch.Generator().manual_seed(seed)
    images = functional.one_hot(words, 12).float()
    train_contrastive(
        model, images, words[:, None], lambda x: x - 0.5, settings, generator, lambda *call: reported.append(call)
    )
    return model, reported


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


@pytest.mark.parametrize(("scale", "bias"), [(10.0, -10.0), (117.3, -12.9)])
def test_the_sigmoid_loss_is_open_clips(scale, bias):
    """On random features of length 1, and so are its gradients, also those of scale and bias."""
    generator = torch.Generator().manual_seed(1)
    images, texts = (functional.normalize(torch.randn(33, 16, generator=generator), dim=-1) for _ in range(2))
    ours, theirs = (
        [x.clone().requires_grad_() for x in (images, texts, torch.tensor(scale), torch.tensor(bias))] for _ in range(2)
    )
    loss, expected = sigmoid_loss(*ours), SigLipLoss()(*theirs)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


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
    """The seed determines the order of the pairs, and with it the weights."""
    first, again, other = (trained(seed)[0].image.weight for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_logit_scale_stops_at_100():
    """As CLIP's does, even where it starts beyond."""
    model, _ = trained(seed=0, epochs=1, rate=1e-7, start=9.0)
    assert model.logit_scale.exp().item() == pytest.approx(100, rel=1e-5)


def test_progress_counts_every_step():
    """From none to all of them, four batches in each of two epochs."""
    _, reported = trained(seed=0, epochs=2)
    assert reported == [("pre-training", done, 8, "steps") for done in range(9)]


class Both(nn.Module):
    """The towers, called at once; dropout makes a second pass differ unless its random numbers are the same."""

    def __init__(self) -> None:
        super().__init__()
        self.towers = Towers()
        self.dropout = nn.Dropout(0.5)

    def forward(self, images, tokens):
        features = self.towers.encode_image(self.dropout(images))
        texts = functional.normalize(self.towers.encode_text(tokens), dim=-1)
        return functional.normalize(features, dim=-1), texts, self.towers.logit_scale.exp()


def captioned(module, micro=1 << 30):
    """Twenty images of four classes, two captions for each class."""
    captions = torch.tensor([[[0], [1]], [[1], [2]], [[2], [3]], [[3], [0]]])
    runtime = Runtime(torch.device("cpu"), micro=micro)
    texts = ClassCaptions(torch.arange(20) % 4, captions)
    return Contrastive(module, module.towers.logit_scale, lambda x: x, texts, runtime)


def gradients(micro, dropout=0.0, seed=3):
    torch.manual_seed(0)
    module = Both()
    module.dropout.p = dropout
    part = Part(torch.randn(10, 12, generator=torch.Generator().manual_seed(1)), np.arange(5, 15))
    tally = captioned(module, micro).backward(part, 10, seed)
    return {name: p.grad.clone() for name, p in module.named_parameters()}, tally, module, part


@pytest.mark.parametrize("micro", [1, 3, 10])
def test_gradients_of_parts_are_those_of_the_whole_batch(micro):
    """Each part is compared with all captions of the batch, as torch does it in one graph."""
    found, tally, module, part = gradients(micro)
    module.zero_grad()
    objective = captioned(module)
    _, tokens = objective.texts(part.indices, 3)
    images, texts, scale = module(part.values, tokens)
    loss = ClipLoss()(images, texts, scale)
    loss.backward()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6)
    assert tally.images == 10
    assert tally.loss.item() == pytest.approx(10 * loss.item(), rel=1e-5)
    named = (torch.arange(5, 15) % 4)[(images @ texts.T).argmax(1)]
    assert tally.correct == (named == torch.arange(5, 15) % 4).sum()


def test_what_dropout_leaves_out_is_the_same_in_both_passes():
    """Otherwise the gradients would be those of other features than the loss was computed of."""
    torch.manual_seed(0)
    module = Both()
    objective = captioned(module, micro=5)
    part = Part(torch.randn(10, 12, generator=torch.Generator().manual_seed(1)), np.arange(10))
    _, tokens = objective.texts(part.indices, 0)
    first, again = (objective._features(part, tokens, slice(5, 10), 0, keep)[0] for keep in (False, True))
    assert torch.equal(first, again)
    assert not torch.equal(first, objective._features(part, tokens, slice(5, 10), 1, keep=True)[0])


def test_an_images_caption_depends_on_the_step_alone():
    """Not on which other images stand beside it; over steps it gets all of its class."""
    objective = captioned(Both())
    whole = Part(torch.zeros(20, 12), np.arange(20))
    some = Part(torch.zeros(2, 12), np.array([13, 7]))
    for step in range(5):
        assert torch.equal(objective.texts(some.indices, step)[1], objective.texts(whole.indices, step)[1][[13, 7]])
    chosen = {int(objective.texts(some.indices, step)[1][0, 0]) for step in range(20)}
    assert chosen == {1, 2}


def test_the_temperature_stops_where_clips_does():
    """After a step, the logit scale is at most that of CLIP."""
    module = Both()
    module.towers.logit_scale.data.fill_(9.0)
    captioned(module).after_step()
    assert module.towers.logit_scale.exp().item() == pytest.approx(100, rel=1e-5)


def test_a_batch_without_readable_images_has_no_gradient():
    """Every gradient is zero, as that of cross-entropy is then, and the sums are those of no images."""
    for module, loss in ((Both(), contrastive_loss), (Sigmoid(), sigmoid_loss)):
        objective = captioned(module)
        objective.loss = loss
        tally = objective.backward(Part(torch.zeros(0, 12), np.zeros(0, np.int64)), 10, 3)
        assert (tally.images, tally.loss.item(), tally.correct.item()) == (0, 0, 0)
        assert all(not parameter.grad.any() for parameter in module.parameters())


class Sigmoid(Both):
    """The towers of a sigmoid model, which has a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.logit_bias = nn.Parameter(torch.tensor(-10.0))
        self.dropout.p = 0.0

    def forward(self, images, tokens):
        return *super().forward(images, tokens), self.logit_bias


@pytest.mark.parametrize("micro", [1, 3, 10])
def test_sigmoid_gradients_of_parts_are_those_of_the_whole_batch(micro):
    """Those of open_clip's loss in one graph, for the weights, the scale and the bias."""
    torch.manual_seed(0)
    module = Sigmoid()
    part = Part(torch.randn(10, 12, generator=torch.Generator().manual_seed(1)), np.arange(5, 15))
    objective = captioned(module, micro)
    objective.loss, objective.logit_scale = sigmoid_loss, None
    objective.backward(part, 10, 3)
    found = {name: p.grad.clone() for name, p in module.named_parameters()}
    module.zero_grad()
    _, tokens = objective.texts(part.indices, 3)
    SigLipLoss()(*module(part.values, tokens)).backward()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6)
    module.towers.logit_scale.data.fill_(4.76)
    objective.after_step()
    assert module.towers.logit_scale.item() == pytest.approx(4.76), "a sigmoid model's scale has no bound"
