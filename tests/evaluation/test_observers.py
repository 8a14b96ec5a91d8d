"""What is made of logits while they are there, against a plain loop over single images."""

import numpy as np
import pytest
import torch
from torch import nn

from mergekit_wise.evaluation import Engine, Forward
from mergekit_wise.evaluation.observers import Observers, OutputEnsemble
from mergekit_wise.models.classifier import Classifier
from tests.evaluation.fakes import PREPROCESS, linear, looped, noise, setters


def engine(module, **settings):
    return Engine(Forward(module, PREPROCESS, torch.device("cpu"), "fp32", print), batch_size=8, **settings)


def each(variants, module, dataset):
    """Logits [V, N, C] of the variants, one after the other."""
    logits = []
    for variant in variants:
        variant()
        logits.append(looped(module, dataset))
    return torch.stack(logits)


@pytest.mark.parametrize("workers", [0, 2])
def test_ensembles_of_outputs_are_those_of_the_logits(workers):
    """Behind the variants, in the order of the blends."""
    module, dataset = linear(), noise()
    variants, _ = setters(module, 3)
    blends = (OutputEnsemble(0, 2, 0.25), OutputEnsemble(2, 1, 0.5))
    found = engine(module, workers=workers).predict(variants, dataset, 7, beside=Observers(blends))
    logits = each(variants, module, dataset)
    wanted = [*logits, 0.75 * logits[0] + 0.25 * logits[2], 0.5 * logits[2] + 0.5 * logits[1]]
    assert found.classes.tolist() == [entry.argmax(1).tolist() for entry in wanted]


def test_a_watcher_sees_the_logits_of_every_image_that_can_be_read_once():
    """Of the variants that it watches, in its order, with the labels; no padding."""
    module, dataset = linear(), noise(broken={3, 52})
    variants, _ = setters(module, 3)
    shown = []
    beside = Observers(watching=(2, 0), watch=lambda logits, labels: shown.append((np.stack(logits), labels)))
    engine(module, max_bad=2).predict(variants, dataset, 7, beside=beside)
    good = [i for i in range(53) if i not in (3, 52)]
    wanted = each(variants, module, noise())[[2, 0]][:, good]
    torch.testing.assert_close(torch.from_numpy(np.concatenate([logits for logits, _ in shown], 1)), wanted)
    assert np.concatenate([labels for _, labels in shown]).tolist() == dataset.labels[good].tolist()


def test_one_tower_is_computed_once_for_all_heads():
    """The predictions are those of the whole model, head by head."""
    torch.manual_seed(0)
    seen = []
    visual = nn.Sequential(nn.Flatten(), nn.Linear(192, 16))
    visual.register_forward_hook(lambda *_: seen.append(1))
    module, dataset = Classifier(visual, 16, 7).eval(), noise()
    heads = [torch.randn(7, 16) for _ in range(3)]
    variants = [lambda head=head: module.classification_head.weight.data.copy_(head) for head in heads]
    found = engine(module).predict(variants, dataset, 7, same_tower=True)
    assert len(seen) == 7
    for row, variant in enumerate(variants):
        variant()
        assert found.classes[row].tolist() == looped(module, dataset).argmax(1).tolist()
