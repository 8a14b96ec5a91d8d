"""Counting, against a plain loop."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mergekit_wise.evaluation import count_correct
from mergekit_wise.suites.dataset import Dataset


@pytest.fixture
def dataset():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (53, 4, 4, 3), np.uint8)
    return Dataset("x", "X", ("a", "b", "c"), rng.integers(0, 3, 53), lambda i: Image.fromarray(pixels[i]))


def transform(image):
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("batch_size", [1, 7, 53, 64])
def test_counts_are_those_of_a_loop_over_single_images(dataset, batch_size):
    """For every variant, whatever the batch size; the padding of the last batch is never counted."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    weights = [torch.randn(3, 48) for _ in range(4)]

    def variant(weight):
        return lambda: module[1].weight.data.copy_(weight)

    tallies = count_correct(module, [variant(w) for w in weights], dataset, transform, batch_size=batch_size)
    for weight, tally in zip(weights, tallies, strict=True):
        logits = [weight @ transform(dataset.image(i)).reshape(-1) + module[1].bias for i in range(53)]
        wanted = sum(int(row.argmax()) == label for row, label in zip(logits, dataset.labels, strict=True))
        assert (tally.correct, tally.total) == (wanted, 53)


def test_every_image_is_decoded_once(dataset, monkeypatch):
    """However many variants there are, and however small the groups."""
    monkeypatch.setattr("mergekit_wise.evaluation.one_pass.GROUP", 1)
    decoded = []
    spied = Dataset("x", "X", dataset.classnames, dataset.labels, lambda i: decoded.append(i) or dataset.image(i))
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    count_correct(module, [lambda: None] * 5, spied, transform, batch_size=8)
    assert decoded == list(range(53))


def test_ties_go_to_the_lower_index(dataset):
    """All logits equal: class 0 is predicted."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    nn.init.zeros_(module[1].weight)
    nn.init.zeros_(module[1].bias)
    (tally,) = count_correct(module, [lambda: None], dataset, transform)
    assert tally.correct == int((dataset.labels == 0).sum())
