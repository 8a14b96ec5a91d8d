"""Cross-entropy with labels: parts of a batch add up to the whole, and what is mixed is mixed by its formula."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from mergekit_wise.evaluation import Ranks
from mergekit_wise.training.images import Part
from mergekit_wise.training.objectives import Supervised
from mergekit_wise.training.runtime import Runtime, set_training

CPU = torch.device("cpu")
LABELS = torch.arange(40) * 7 % 5


def part(count=13):
    return Part(torch.randn(count, 6, generator=torch.Generator().manual_seed(count)), np.arange(count) * 2)


def supervised(micro=1 << 30, **settings):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 5))
    return Supervised(module, lambda x: 2 * x - 1, LABELS, Runtime(CPU, micro=micro), **settings)


def gradient(objective, *, count=13, images=13, seed=0):
    objective.module.zero_grad()
    tally = objective.backward(part(count), images, seed)
    return torch.cat([p.grad.flatten() for p in objective.module.parameters()]), tally


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("micro", [1, 4, 13])
def test_parts_add_up_to_the_gradient_of_the_batch(micro, smoothing):
    """That of the mean over all images, as torch gives it; so do loss and accuracy."""
    found, tally = gradient(supervised(micro, smoothing=smoothing))
    objective = supervised()
    logits, labels = objective.module(2 * part().values - 1), LABELS[::2][:13]
    loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    loss.backward()
    expected = torch.cat([p.grad.flatten() for p in objective.module.parameters()])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert tally.loss.item() == pytest.approx(13 * loss.item(), rel=1e-5)
    assert (tally.correct.item(), tally.images) == ((logits.argmax(1) == labels).sum().item(), 13)


def test_images_that_are_missing_count_nothing():
    """A batch of 20 of which 13 could be read has 13/20 of their gradient."""
    torch.testing.assert_close(
        gradient(supervised(), images=20)[0], 13 / 20 * gradient(supervised())[0], rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("micro", [3, 13])
def test_mixup_mixes_neighbours_by_one_share_a_step(micro):
    """Written out: images and losses of a pair are mixed by what the beta distribution gave; the odd one is alone."""
    found, _ = gradient(supervised(micro, mixup=0.4), seed=11)
    share = np.random.default_rng(11).beta(0.4, 0.4)
    partners = [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 12]
    objective = supervised()
    values, labels = 2 * part().values - 1, LABELS[::2][:13]
    logits = objective.module(share * values + (1 - share) * values[partners])
    loss = share * functional.cross_entropy(logits, labels) + (1 - share) * functional.cross_entropy(
        logits, labels[partners]
    )
    loss.backward()
    expected = torch.cat([p.grad.flatten() for p in objective.module.parameters()])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(found, gradient(supervised(micro))[0])


def test_a_process_without_images_takes_part():
    """A process without images contributes gradients of zero to the average."""
    found, tally = gradient(supervised(), count=0)
    assert torch.equal(found, torch.zeros_like(found))
    assert tally.images == 0


def test_of_several_processes_each_computes_its_share_times_their_number():
    """So that the average over processes, which DistributedDataParallel takes, is the sum of the shares."""
    objective = supervised()
    objective.runtime.ranks = Ranks(0, 3, CPU)
    torch.testing.assert_close(gradient(objective)[0], 3 * gradient(supervised())[0], rtol=1e-4, atol=1e-6)


def test_batch_norm_keeps_its_statistics_and_dropout_does_not_rest():
    """In training mode, batch norms keep their statistics and dropout is active."""
    module = nn.Sequential(nn.BatchNorm1d(6), nn.Dropout(0.5))
    set_training(module)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert (module(torch.ones(50, 6)) == 0).any()
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
