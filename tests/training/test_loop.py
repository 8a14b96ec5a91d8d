"""The steps of a run: what is learned, resumed from anywhere, halved when memory runs out, and stopped by NaN."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mergekit_wise.errors import ModelError, NonFiniteError
from mergekit_wise.training.images import BatchOrder, InMemory
from mergekit_wise.training.loop import TrainingLoop
from mergekit_wise.training.objectives import Supervised
from mergekit_wise.training.optimizer import MovingAverage, Optimization, OptimizerStep
from mergekit_wise.training.runtime import Runtime

ORDER = BatchOrder(images=50, batch_size=16, epochs=3, seed=4)
LABELS = torch.arange(50) % 2
IMAGES = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) + 3 * LABELS[:, None]


def run(order=ORDER, *, micro=1 << 30, stop_requested=bool, note=str, images=IMAGES, module=None, rate=3e-2):
    """A small classifier with dropout, and how it learns two classes that lie apart."""
    torch.manual_seed(0)
    module = module or nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.2), nn.Linear(8, 2))
    runtime = Runtime(torch.device("cpu"), micro=micro, note=note)
    optimizer = OptimizerStep(module.named_parameters(), Optimization(order.epochs, 16, rate, warmup=2), order.total)
    objective = Supervised(module, lambda x: x - 1.5, LABELS, runtime)
    average = MovingAverage(module.named_parameters(), 0.9)
    return TrainingLoop(objective, InMemory(images), order, optimizer, runtime, average, stop_requested)


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
    later.optimizer.restore(steps, {name: tensor.clone() for name, tensor in whole.optimizer.moments().items()})
    later.average.restore(whole.average.tensors)
    rest = list(later.steps())
    expected = list(first)
    assert rest == expected
    assert torch.equal(weights(whole), weights(later))
    assert all(torch.equal(tensor, later.average.tensors[name]) for name, tensor in whole.average.tensors.items())


def test_whoever_asks_to_stop_is_heard_after_the_step():
    """The current step is finished, and no step follows."""
    asked = iter([False, False, True])
    done = list(run(stop_requested=lambda: next(asked)).steps())
    assert [d.stopped for d in done] == [False, False, True]


def test_torchs_own_random_numbers_are_left_alone():
    """A run does not change torch's global random state."""
    learning = run()
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    list(learning.steps())
    assert torch.equal(torch.rand(1), expected)


def test_a_loss_that_is_no_number_stops_before_the_weights_are_touched():
    """The error names the step and the epoch, and the weights are those before the step."""
    learning = run(images=IMAGES.clone())
    steps = learning.steps()
    for _ in range(4):
        next(steps)
    learning.images.values[:] = float("nan")
    before = weights(learning).clone()
    with pytest.raises(NonFiniteError, match=r"loss is not finite at step 5/12 \(epoch 2\)"):
        next(steps)
    assert torch.equal(weights(learning), before)
    assert learning.optimizer.taken == 4


def test_a_gradient_that_is_no_number_stops_too():
    """Where the loss alone would not show it: the root of zero has no slope."""

    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(6, 2))

        def forward(self, images):
            return (images @ self.weight).abs().sqrt()

    with pytest.raises(NonFiniteError, match="gradient is not finite at step 1/12"):
        list(run(module=Root()).steps())


class Scarce(nn.Module):
    """A module that runs out of memory beyond `room` images."""

    def __init__(self, room):
        super().__init__()
        self.inner, self.room = nn.Linear(6, 2), room

    def forward(self, images):
        if len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.inner(images)


def test_where_memory_runs_out_the_micro_batch_is_halved():
    """The micro-batch is halved until it fits; the weights are those of that size from the start."""
    notes = []
    halved, small = run(module=Scarce(5), note=notes.append), run(module=Scarce(99), micro=4)
    torch.manual_seed(1)
    small.objective.module.load_state_dict(halved.objective.module.state_dict())
    list(halved.steps())
    list(small.steps())
    assert notes == [f"out of memory: micro-batch size reduced to {n}" for n in (8, 4)]
    assert torch.equal(weights(halved), weights(small))


def test_memory_for_no_step_of_the_optimizer_is_an_error():
    """AdamW makes its moments at the first step; the error names what needs less, and no option given already."""
    learning = run(micro=4)

    def fails():
        raise RuntimeError("MPS backend out of memory (MPS allocated: 9 GB).")

    learning.optimizer.apply = fails
    with pytest.raises(ModelError, match="AdamW.*a smaller --micro-batch or --grad-checkpointing"):
        list(learning.steps())
    learning.lighter = ()
    with pytest.raises(ModelError, match="with a smaller --micro-batch.$"):
        list(learning.steps())


class NoFloat64(TorchDispatchMode):
    """Refuses what makes float64 tensors, as Apple's GPUs do."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for each in made if isinstance(made, (list, tuple)) else [made]:
            if isinstance(each, torch.Tensor) and each.dtype == torch.float64:
                raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support it.")
        return made


def test_a_step_makes_no_float64():
    """A step of one process works where there is no float64, with averages and a bound on the gradients."""
    with pytest.raises(TypeError), NoFloat64():
        torch.ones(1).double()
    with NoFloat64():
        steps = run().steps()
        assert [next(steps).step, next(steps).step] == [1, 2]
        steps.close()


def test_an_operation_without_a_deterministic_form_is_computed_anyway():
    """The step is repeated with the same random numbers, and one note says what it means for the run."""
    notes = []

    class Refused(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.refusals = nn.Sequential(nn.Linear(6, 2), nn.Dropout(0.2)), 1

        def forward(self, images):
            logits = self.inner(images)
            if self.refusals:
                self.refusals = 0
                raise RuntimeError("cumsum_cuda_kernel does not have a deterministic implementation, but ...")
            return logits

    refused, usual = run(module=Refused()), run(module=Refused())
    usual.objective.module.load_state_dict(refused.objective.module.state_dict())
    usual.objective.module.refusals = 0
    refused.runtime.note = notes.append
    assert list(refused.steps()) == list(usual.steps())
    assert torch.equal(weights(refused), weights(usual))
    assert len(notes) == 1


def test_memory_for_no_image_is_an_error():
    """If one image does not fit in memory, the error names the option that helps."""
    with pytest.raises(ModelError, match="micro-batch of 1.*--grad-checkpointing"):
        list(run(module=Scarce(0)).steps())


def test_the_number_of_images_at_once_changes_nothing_beyond_rounding():
    """Without dropout, the micro-batch size changes the weights only by rounding."""
    whole, parts = (run(module=nn.Linear(6, 2), micro=micro) for micro in (16, 3))
    parts.objective.module.load_state_dict(whole.objective.module.state_dict())
    for learning in (whole, parts):
        list(learning.steps())
    torch.testing.assert_close(weights(whole), weights(parts), rtol=1e-3, atol=1e-4)
