"""The order of images: each comes once per epoch, in an order that depends on the seed alone."""

import numpy as np
import pytest
import torch

from mergekit_wise.training.images import BatchOrder, share


def test_every_image_comes_once_an_epoch():
    """Batches have the requested size, the last one is smaller, and another epoch has another order."""
    order = BatchOrder(images=23, batch_size=5, epochs=3, seed=7)
    epochs = [order.batches(epoch) for epoch in range(3)]
    for batches in epochs:
        assert [len(batch) for batch in batches] == [5, 5, 5, 5, 3]
        assert sorted(np.concatenate(batches)) == list(range(23))
    assert not np.array_equal(np.concatenate(epochs[0]), np.concatenate(epochs[1]))
    assert (order.steps, order.total) == (5, 15)


def test_an_epochs_order_does_not_depend_on_where_a_run_began():
    """Epoch 2 asked for first is the third permutation that torch draws from the seed."""
    generator = torch.Generator().manual_seed(3)
    expected = [torch.randperm(11, generator=generator).numpy() for _ in range(3)][2]
    assert np.array_equal(np.concatenate(BatchOrder(11, 4, 3, seed=3).batches(2)), expected)


def test_a_batch_that_is_not_full_can_be_left_out():
    """With `only_full`, an epoch has no smaller last batch."""
    order = BatchOrder(images=23, batch_size=5, epochs=2, seed=0, only_full=True)
    assert [len(batch) for batch in order.batches(0)] == [5] * 4
    assert order.total == 8


@pytest.mark.parametrize("count", [0, 1, 2, 3, 8, 17, 512])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_processes_share_a_batch_without_parting_pairs(count, size):
    """Every image goes to exactly one, and images 2i and 2i + 1 to the same; no share is much larger than another."""
    batch = np.arange(count)
    parts = [batch[share(batch, rank, size)] for rank in range(size)]
    assert np.array_equal(np.concatenate(parts), batch)
    assert all(len(part) % 2 == 0 for part in parts[:-1]) or count % 2
    owner = {image: rank for rank, part in enumerate(parts) for image in part}
    assert all(owner[image] == owner[image + 1] for image in range(0, count - 1, 2))
    assert max(map(len, parts)) - min(map(len, parts)) <= 3


def test_steps_have_seeds_of_their_own():
    """A thousand steps of two runs share none, and the same step of the same run has the same one."""
    seeds = {BatchOrder(4, 2, 1, seed).seed_of(step) for seed in (0, 1) for step in range(500)}
    assert len(seeds) == 1000
    assert BatchOrder(4, 2, 1, 5).seed_of(9) == BatchOrder(400, 20, 3, 5).seed_of(9)
