"""The steps of a run, one after the other. Knows no file, no terminal, and not what is learned.

Everything random follows from the seed and the step, so a run that begins in the middle, from the weights and the
optimiser's state that another left there, computes what that one would have computed.
"""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import distributed

from mergekit_wise.errors import ModelError, NonFiniteError
from mergekit_wise.evaluation.forward import is_memory_error
from mergekit_wise.training.average import Average
from mergekit_wise.training.batch_order import BatchOrder, Indices, share
from mergekit_wise.training.images import Images, Part
from mergekit_wise.training.objective import Objective, Tally
from mergekit_wise.training.optimizer import OptimizerStep
from mergekit_wise.training.runtime import Runtime, deterministic


@dataclass(frozen=True, slots=True)
class Done:
    """A step that was taken.

    Attributes:
        step: how many there have been, this one included; `epoch` it belongs to, from 0.
        loss: mean over the batch's images, before the step.
        correct: images of the batch that were classified right, of `images`.
        rate: the learning rate; `norm`: of the gradients before they were clipped.
        ends_epoch: whether it is the epoch's last step.
        stopped: whether someone asked to stop; no step comes after it.
    """

    step: int
    epoch: int
    loss: float
    correct: int
    images: int
    rate: float
    norm: float
    ends_epoch: bool
    stopped: bool


@dataclass(slots=True)
class Run:
    """What is learned, from what, in which order, and how.

    Attributes:
        note: is told when fewer images are computed at once than were asked for.
        stopping: whether someone asked to stop.
        average: of the weights, if one is wanted.
    """

    objective: Objective
    images: Images
    course: BatchOrder
    stepper: OptimizerStep
    computing: Runtime
    average: Average | None = None
    stopping: Callable[[], bool] = bool
    note: Callable[[str], object] = str

    def steps(self) -> Generator[Done, None, None]:
        """Take the steps that are left, one whenever it is asked for; the generator must be closed if left early.

        Raises NonFiniteError, before any weight is touched, if the loss or its gradient is not finite; ModelError if
        memory does not hold one image; what reading images raises.
        """
        with torch.random.fork_rng(devices=_cards(self.computing)), deterministic(self.computing.device):
            first, within = divmod(self.stepper.taken, self.course.steps)
            for epoch in range(first, self.course.epochs):
                batches = self.course.batches(epoch)[within:]
                within = 0
                with closing(self._epoch(epoch, batches)) as steps:
                    for done in steps:
                        yield done
                        if done.stopped:
                            return

    def _epoch(self, epoch: int, batches: list[Indices]) -> Generator[Done, None, None]:
        ranks = self.computing.ranks
        own = [batch[share(batch, ranks.rank, ranks.size)] for batch in batches]
        with closing(self.images.parts(epoch, own)) as parts:
            for place, batch in enumerate(batches):
                with ranks.agreeing():
                    part = next(parts)
                yield self._step(epoch, part, len(batch), ends=place == len(batches) - 1)

    def _step(self, epoch: int, part: Part, images: int, ends: bool) -> Done:
        step, rate = self.stepper.taken, self.stepper.rate
        tally = self._gradients(part, images, self.course.seed_of(step))
        norm = self.stepper.norm()
        loss, correct, count, stopping, norm_value = self._summed(tally, norm)
        self._require_finite(loss, norm_value, step)
        self.stepper.apply()
        self.objective.after_step()
        if self.average is not None:
            self.average.update()
        return Done(
            step=step + 1,
            epoch=epoch,
            loss=loss,
            correct=correct,
            images=count,
            rate=rate,
            norm=norm_value,
            ends_epoch=ends,
            stopped=stopping,
        )

    def _gradients(self, part: Part, images: int, seed: int) -> Tally:
        """Of the whole batch; where memory runs out, computed of fewer images at once."""
        while True:
            torch.manual_seed(seed)
            self.stepper.clear()
            try:
                return self.objective.backward(part, images, seed)
            except RuntimeError as error:
                if not is_memory_error(error):
                    raise
            # Not in the handler: the traceback would keep alive what filled the memory.
            self._halve(len(part.indices))

    def _halve(self, images: int) -> None:
        computing = self.computing
        computing.micro = min(computing.micro, images)
        if computing.micro == 1 or computing.ranks.size > 1:
            raise ModelError(
                f"The memory of {computing.device} does not hold what {computing.micro} images at once need. "
                "Give fewer with --micro-batch, or --precision bf16."
            )
        computing.micro = (computing.micro + 1) // 2
        self.note(f"memory ran out: computing {computing.micro} images at once from here on")
        if computing.device.type == "cuda":
            torch.cuda.empty_cache()

    def _summed(self, tally: Tally, norm: torch.Tensor) -> tuple[float, int, int, bool, float]:
        """Mean loss, correct images, images, whether to stop, and the norm: in one exchange and one wait."""
        device = self.computing.device
        told = torch.tensor([tally.images, self.stopping()], dtype=torch.float64, device=device)
        sums = torch.cat([torch.stack([tally.loss.double(), tally.correct.double()]), told])
        if self.computing.ranks.size > 1:
            distributed.all_reduce(sums)
        loss, correct, images, stopping, length = torch.cat([sums, norm.double().reshape(1).to(device)]).tolist()
        return loss / max(images, 1), int(correct), int(images), stopping > 0, length

    def _require_finite(self, loss: float, norm: float, step: int) -> None:
        # In float16 a gradient overflows now and then; the scaler then leaves the step out and scales less.
        if not _finite(loss) or (not _finite(norm) and not self.computing.scaler.is_enabled()):
            _fail(loss, step, self.course)


def _fail(loss: float, step: int, course: BatchOrder) -> NoReturn:
    what = "loss" if not _finite(loss) else "gradient"
    raise NonFiniteError(
        f"The {what} is not finite at step {step + 1} of {course.total} (epoch {step // course.steps + 1}); "
        "the step was not taken."
    )


def _finite(value: float) -> bool:
    return value - value == 0


def _cards(computing: Runtime) -> list[torch.device]:
    return [computing.device] if computing.device.type == "cuda" else []
