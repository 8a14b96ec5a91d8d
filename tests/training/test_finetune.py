"""Fine-tuning end to end: everything in the classifier moves, and nothing that its mode keeps."""

import pytest
import torch
from torch import nn

from mergekit_wise.training.finetune import finetune_end_to_end
from mergekit_wise.training.optimizer import Optimization


def finetuned(seed=0, training=False):
    """A small classifier before and after fine-tuning on two separable classes, and the progress that was told."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)).train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    labels = torch.arange(50) % 2
    images = torch.randn(50, 6) + 3 * labels[:, None]
    told = []
    finetune_end_to_end(
        model,
        images,
        labels,
        lambda x: x - 1.5,
        Optimization(4, 16, 1e-2, warmup=2),
        torch.Generator().manual_seed(seed),
        lambda *call: told.append(call),
    )
    right = model.eval()(images - 1.5).argmax(1).eq(labels).float().mean().item()
    return before, model.state_dict(), right, told


def test_it_learns_its_labels():
    """Two classes that lie well apart; the same module untrained is right on about half."""
    assert finetuned()[2] > 0.9


def test_every_parameter_moves_and_running_statistics_stay():
    """In evaluation mode, which is how batch norm's statistics are frozen."""
    before, after, _, _ = finetuned()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}


def test_in_training_mode_running_statistics_follow():
    """The mode is the caller's choice, and is not changed."""
    before, after, _, _ = finetuned(training=True)
    assert not any(torch.equal(before[name], after[name]) for name in before)


def test_the_same_seed_gives_the_same_bytes():
    """And another seed another order of the images."""
    first, again, other = (finetuned(seed)[1]["0.weight"] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("done", [0, 7, 16])
def test_progress_counts_every_step(done):
    """Four epochs of four batches, the last of which is not full but counts."""
    assert finetuned()[3][done] == ("fine-tuning", done, 16, "steps")
