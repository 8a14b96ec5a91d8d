"""A classifier is an image tower with a linear head, or without one."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from mergekit_wise.errors import ModelError
from mergekit_wise.models.classifier import Classifier

TOWER = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))


def test_logits_are_the_head_of_features_of_length_one():
    """Gradients reach both the tower and the head."""
    classifier, images = Classifier(TOWER, 6, 4), torch.randn(5, 3, 2, 2)
    head = classifier.classification_head
    features = functional.normalize(TOWER(images), dim=-1)
    torch.testing.assert_close(classifier.encode(images), features)
    torch.testing.assert_close(classifier(images), features @ head.weight.T + head.bias)
    classifier(images).sum().backward()
    assert all(parameter.grad is not None for parameter in classifier.parameters())
    assert set(classifier.state_dict()) == {"visual.1.weight", "visual.1.bias", *_head("weight", "bias")}


def test_without_a_head_there_are_features_but_no_logits():
    """The error says that the head is missing."""
    classifier = Classifier(TOWER, 6, None)
    assert classifier.classes is None
    assert classifier.encode(torch.zeros(1, 3, 2, 2)).shape == (1, 6)
    with pytest.raises(ModelError, match="no head yet"):
        classifier(torch.zeros(1, 3, 2, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_head_goes_where_the_tower_is(dtype):
    """It has the tower's dtype and mode and a zero bias, and can be replaced by a head with other classes."""
    classifier = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(12, 6)), 6, None).to(dtype).eval()
    for classes in (4, 9):
        weight = torch.randn(classes, 6)
        classifier.use_head(weight)
        head = classifier.classification_head
        assert classifier.classes == classes
        assert torch.equal(head.weight, weight.to(dtype))
        assert torch.equal(head.bias, torch.zeros(classes, dtype=dtype))
        assert not head.training
        assert classifier(torch.ones(1, 3, 2, 2, dtype=dtype)).shape == (1, classes)


def test_a_text_tower_and_its_temperature_are_part_of_it():
    """Both are moved to a device with the rest; a classifier without a text tower has neither."""
    assert set(Classifier(TOWER, 6, 4, nn.Linear(2, 6)).state_dict()) > {"text.weight", "logit_scale"}
    assert "logit_scale" not in Classifier(TOWER, 6, 4).state_dict()


def _head(*names):
    return (f"classification_head.{name}" for name in names)
