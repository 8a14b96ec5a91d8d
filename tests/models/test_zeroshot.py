"""The zero-shot head: class names and templates become a linear classifier."""

import math

import pytest
import torch

from mergekit_wise.models import zeroshot
from mergekit_wise.models.zeroshot import zero_shot_head

NAMES, TEMPLATES = ("cat", "dog", "newt"), ("a {}", "the photo of a {}, blurry", "{}")


def encode(texts):
    """Features that any text has: different for different texts, and of very different lengths."""
    return torch.stack([torch.tensor([math.sin(len(t) * k + ord(t[-1])) * len(t) for k in range(1, 6)]) for t in texts])


@pytest.mark.parametrize("batch", [1, 3, 7, 256])
def test_the_head_is_what_a_loop_over_numbers_gives(batch, monkeypatch):
    """Normalise each, average, normalise, times exp(scale), however many are encoded at once: written without torch."""
    monkeypatch.setattr(zeroshot, "BATCH", batch)
    weight, bias = zero_shot_head(encode, NAMES, TEMPLATES, torch.tensor(1.5))
    for row, name in zip(weight.tolist(), NAMES, strict=True):
        mean = [0.0] * 5
        for template in TEMPLATES:
            features = encode([template.replace("{}", name)])[0].tolist()
            length = math.sqrt(sum(x * x for x in features))
            mean = [m + x / length / len(TEMPLATES) for m, x in zip(mean, features, strict=True)]
        length = math.sqrt(sum(x * x for x in mean))
        expected = [math.exp(1.5) * x / length for x in mean]
        torch.testing.assert_close(row, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(bias, torch.zeros(3))


def test_texts_are_encoded_in_batches_of_whole_classes_and_progress_is_told():
    """Of at most 256 texts."""
    sizes, told = [], []
    names = [f"class {number}" for number in range(200)]
    counting = lambda texts: sizes.append(len(texts)) or encode(texts)  # noqa: E731
    zero_shot_head(counting, names, TEMPLATES, torch.tensor(1.0), lambda *step: told.append(step))
    assert sizes == [255, 255, 90]
    assert [done for _, done, _, _ in told] == [0, 85, 170, 200]
    assert {(total, unit) for _, _, total, unit in told} == {(200, "classes")}


def test_rows_have_the_length_of_the_logit_scale():
    """So that logits of features of length 1 are cosines times exp(scale)."""
    weight, _ = zero_shot_head(encode, NAMES, TEMPLATES, torch.tensor(math.log(20)))
    torch.testing.assert_close(weight.norm(dim=1), torch.full((3,), 20.0))


def test_the_head_carries_no_gradient():
    """It is stored, not trained through."""
    scale = torch.tensor(1.0, requires_grad=True)
    assert not zero_shot_head(encode, NAMES, TEMPLATES, scale)[0].requires_grad
