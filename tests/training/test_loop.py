"""The steps of a run: what is learned, resumed from anywhere, halved when memory runs out, and stopped by NaN."""

import pytest
import torch
from torch import nn

from mergekit_wise.errors import ModelError, NonFiniteError
from mergekit_wise.training.average import Average
from mergekit_wise.training.batch_order import BatchOrder
from mergekit_wise.training.images import Held
from mergekit_wise.training.loop import Run
from mergekit_wise.training.optimizer import Optimization, OptimizerStep
from mergekit_wise.training.runtime import Runtime
from mergekit_wise.training.supervised import Supervised

COURSE = BatchOrder(images=50, batch_size=16, epochs=3, seed=4)
LABELS = torch.arange(50) % 2
IMAGES = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) + 3 * LABELS[:, None]


def run(course=COURSE, *, micro=1 << 30, stopping=bool, note=str, images=IMAGES, module=None, rate=3e-2):
    """A small classifier with dropout, and how it learns two classes that lie apart."""
    torch.manual_seed(0)
    module = module or nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.2), nn.Linear(8, 2))
    computing = Runtime(torch.device("cpu"), micro=micro)
    stepper = OptimizerStep(module.named_parameters(), Optimization(course.epochs, 16, rate, warmup=2), course.total)
    objective = Supervised(module, lambda x: x - 1.5, LABELS, computing)
    average = Average(module.named_parameters(), 0.9)
    return Run(objective, Held(images), course, stepper, computing, average, stopping, note)


def weights(run):
    return torch.cat([p.detach().flatten() for p in run.objective.module.parameters()])


def test_it_learns_its_labels_and_tells_of_each_step():
    """Losses fall, the learning rate follows the schedule, and epochs end where they should."""
    learning = run()
    done = list(learning.steps())
    assert [d.step for d in done] == list(range(1, 13))
    assert [d.epoch for d in done] == [0] * 4 + [1] * 4 + [2] * 4
    assert [d.images for d in done] == [16, 16, 16, 2] * 3
    assert [d.ends_epoch for d in done] == [False, False, False, True] * 3
    assert done[0].rate == pytest.approx(1.5e-2)
    assert done[1].rate == pytest.approx(3e-2)
    assert sum(d.loss for d in done[8:]) < 0.5 * sum(d.loss for d in done[:4])
    assert sum(d.correct for d in done[8:]) > 45


@pytest.mark.parametrize("steps", [0, 1, 3, 4, 6, 11])
def test_a_run_that_begins_in_the_middle_goes_on_bit_for_bit(steps):
    """From weights, moments, averages and the number of steps alone: order and dropout follow from the seed."""
    whole = run()
    first = whole.steps()
    for _ in range(steps):
        next(first)
    later = run()
    later.objective.module.load_state_dict(whole.objective.module.state_dict())
    later.stepper.restore(steps, {name: tensor.clone() for name, tensor in whole.stepper.moments().items()})
    later.average.restore(whole.average.tensors)
    rest = list(later.steps())
    expected = list(first)
    assert rest == expected
    assert torch.equal(weights(whole), weights(later))
    assert all(torch.equal(tensor, later.average.tensors[name]) for name, tensor in whole.average.tensors.items())


def test_whoever_asks_to_stop_is_heard_after_the_step():
    """The step is whole, and none comes after it."""
    asked = iter([False, False, True])
    done = list(run(stopping=lambda: next(asked)).steps())
    assert [d.stopped for d in done] == [False, False, True]


def test_torchs_own_random_numbers_are_left_alone():
    """Of whoever trains a model in between."""
    learning = run()
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    list(learning.steps())
    assert torch.equal(torch.rand(1), expected)


def test_a_loss_that_is_no_number_stops_before_the_weights_are_touched():
    """And says at which step, and in which epoch."""
    learning = run(images=IMAGES.clone())
    steps = learning.steps()
    for _ in range(4):
        next(steps)
    learning.images.values[:] = float("nan")
    before = weights(learning).clone()
    with pytest.raises(NonFiniteError, match=r"loss is not finite at step 5 of 12 \(epoch 2\)"):
        next(steps)
    assert torch.equal(weights(learning), before)
    assert learning.stepper.taken == 4


def test_a_gradient_that_is_no_number_stops_too():
    """Where the loss alone would not show it: the root of zero has no slope."""

    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(6, 2))

        def forward(self, images):
            return (images @ self.weight).abs().sqrt()

    with pytest.raises(NonFiniteError, match="gradient is not finite at step 1"):
        list(run(module=Root()).steps())


class Scarce(nn.Module):
    """Has memory for so many images at once."""

    def __init__(self, room):
        super().__init__()
        self.inner, self.room = nn.Linear(6, 2), room

    def forward(self, images):
        if len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.inner(images)


def test_where_memory_runs_out_fewer_images_are_computed_at_once():
    """With the weights that come of computing so many from the start."""
    told = []
    halved, small = run(module=Scarce(5), note=told.append), run(module=Scarce(99), micro=4)
    torch.manual_seed(1)
    small.objective.module.load_state_dict(halved.objective.module.state_dict())
    list(halved.steps())
    list(small.steps())
    assert told == [f"memory ran out: computing {n} images at once from here on" for n in (8, 4)]
    assert torch.equal(weights(halved), weights(small))


def test_memory_for_no_image_is_an_error():
    """Which says what to do."""
    with pytest.raises(ModelError, match="--micro-batch"):
        list(run(module=Scarce(0)).steps())


def test_the_number_of_images_at_once_changes_nothing_beyond_rounding():
    """Without dropout, whose random numbers fall otherwise."""
    whole, parts = (run(module=nn.Linear(6, 2), micro=micro) for micro in (16, 3))
    parts.objective.module.load_state_dict(whole.objective.module.state_dict())
    for learning in (whole, parts):
        list(learning.steps())
    torch.testing.assert_close(weights(whole), weights(parts), rtol=1e-3, atol=1e-4)
