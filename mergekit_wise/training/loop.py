"""The training loop: one optimizer step after the other. Knows no file, no terminal and no objective in particular.

Everything random follows from the seed and the step, so a run that resumes from saved weights and optimizer state
computes the same numbers as one that was never interrupted.
"""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import NoReturn

import torch
from torch import distributed

from mergekit_wise.errors import ModelError, NonFiniteError, WiseError
from mergekit_wise.evaluation.forward import is_memory_error, within_memory
from mergekit_wise.training.images import BatchOrder, Images, Indices, Part, share
from mergekit_wise.training.objectives import Objective, Tally
from mergekit_wise.training.optimizer import MovingAverage, OptimizerStep
from mergekit_wise.training.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Step:
    """The outcome of an optimizer step.

    Attributes:
        step: its number, from 1.
        epoch: its epoch, from 0.
        loss: mean over the batch's images, before the step.
        correct: number of correctly classified images.
        images: number of images in the batch.
        rate: the learning rate.
        norm: the gradient norm before clipping.
        ends_epoch: whether it is the last step of its epoch.
        stopped: whether a stop was requested; if so, no step follows.
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
class RunningMean:
    """Mean loss and accuracy over the steps added so far, and the `seconds` that earlier runs took for them."""

    images: int = 0
    correct: int = 0
    weighted: float = 0.0
    seconds: float = 0.0

    def add(self, step: Step) -> None:
        """Add a step, weighted by its images."""
        self.images += step.images
        self.correct += step.correct
        self.weighted += step.loss * step.images

    @property
    def loss(self) -> float:
        """The mean loss."""
        return self.weighted / max(self.images, 1)

    @property
    def accuracy(self) -> float:
        """The share of correctly classified images."""
        return self.correct / max(self.images, 1)

    def __str__(self) -> str:
        """Format both for people."""
        return f"training loss {self.loss:.3g}, training accuracy {100 * self.accuracy:.1f} %"


@dataclass(slots=True)
class TrainingLoop:
    """The steps of a run.

    Attributes:
        objective: adds up the gradients of a step.
        images: source of the images.
        order: which images each step uses.
        optimizer: updates the weights.
        runtime: device, precision, processes and micro-batch size.
        average: moving averages of the weights, if any.
        stop_requested: checked after each step.
        lighter: options that would need less memory and were not given.
    """

    objective: Objective
    images: Images
    order: BatchOrder
    optimizer: OptimizerStep
    runtime: Runtime
    average: MovingAverage | None = None
    stop_requested: Callable[[], bool] = bool
    lighter: tuple[str, ...] = ("--grad-checkpointing",)

    def steps(self) -> Generator[Step, None, None]:
        """Take the remaining steps, one per iteration; close the generator if you leave it early.

        Raises NonFiniteError, before any weight changes, if the loss or its gradient is not finite; ModelError if one
        image alone does not fit in memory; the errors of reading images.
        """
        with torch.random.fork_rng(devices=_cuda_devices(self.runtime)):
            first, within = divmod(self.optimizer.taken, self.order.steps)
            for epoch in range(first, self.order.epochs):
                batches = self.order.batches(epoch)[within:]
                within = 0
                with closing(self._epoch(epoch, batches)) as steps:
                    for step in steps:
                        yield step
                        if step.stopped:
                            return

    def _epoch(self, epoch: int, batches: list[Indices]) -> Generator[Step, None, None]:
        ranks = self.runtime.ranks
        own = [batch[share(batch, ranks.rank, ranks.size)] for batch in batches]
        with closing(self.images.parts(epoch, own)) as parts:
            source = _Coming(parts, self.runtime)
            with ranks.agreeing():
                source.read()
                source.require_read()
            for place, batch in enumerate(batches):
                step = self._step(epoch, source, len(batch), ends=place == len(batches) - 1)
                yield step
                if source.failed_anywhere:
                    with ranks.agreeing():
                        source.require_read()

    def _step(self, epoch: int, source: "_Coming", images: int, ends: bool) -> Step:
        step, rate = self.optimizer.taken, self.optimizer.rate
        tally = self._gradients(source.part, images, self.order.seed_of(step))
        what = f"{self.runtime.device}: not enough memory for a step of AdamW. {self._advice()}"
        with self.runtime.computing(), within_memory(what):
            norm = self.optimizer.norm()
            if not ends:
                source.read()  # while a GPU still computes the gradients
            loss, correct, count, stopped, norm_value = self._summed(tally, norm, source)
            self._require_finite(loss, norm_value, step)
            self.optimizer.apply()
            self.objective.after_step()
            if self.average is not None:
                self.average.update()
        return Step(
            step=step + 1,
            epoch=epoch,
            loss=loss,
            correct=correct,
            images=count,
            rate=rate,
            norm=norm_value,
            ends_epoch=ends,
            stopped=stopped,
        )

    def _gradients(self, part: Part, images: int, seed: int) -> Tally:
        """Compute the gradients of the batch; if memory runs out, try again with a smaller micro-batch."""
        while True:
            torch.manual_seed(seed)
            self.optimizer.clear()
            try:
                with self.runtime.computing():
                    return self.objective.backward(part, images, seed)
            except RuntimeError as error:
                out_of_memory = is_memory_error(error)
                # Of several processes, the others wait for gradients that this one has not sent.
                if not out_of_memory and (self.runtime.ranks.size > 1 or not self.runtime.tolerates(error)):
                    raise
            # Not in the handler, whose traceback would keep the tensors alive that filled the memory.
            if out_of_memory:
                self._halve_micro_batch(len(part.indices))

    def _halve_micro_batch(self, images: int) -> None:
        runtime = self.runtime
        runtime.micro = min(runtime.micro, images)
        if runtime.micro == 1 or runtime.ranks.size > 1:
            raise ModelError(
                f"{runtime.device}: not enough memory for a micro-batch of {runtime.micro}. {self._advice()}"
            )
        runtime.halve()

    def _advice(self) -> str:
        """Return what needs less memory; a saved state can be resumed with it."""
        smaller = ["a smaller --micro-batch"] if self.runtime.micro > 1 else []
        return f"Run the command again with {' or '.join([*smaller, *self.lighter]) or '--device cpu'}."

    def _summed(self, tally: Tally, norm: torch.Tensor, source: "_Coming") -> tuple[float, int, int, bool, float]:
        """Return mean loss, correct images, images, whether to stop, and the norm, with one exchange and one wait.

        Tells `source` whether a process could not read the images of its next step. Numbers of a single process leave
        the device in float32, because Apple's GPUs have no float64; counts up to 2^24 are exact in it.
        """
        flags = [self.stop_requested(), source.error is not None]
        own = torch.stack([tally.loss.float(), tally.correct.float(), norm.float().to(self.runtime.device)])
        if self.runtime.ranks.size == 1:
            loss, correct, length = own.tolist()
            images, stops, failures = tally.images, *flags
        else:
            counts = own.new_tensor([tally.images, *flags], dtype=torch.float64)
            sums = torch.cat([own[:2].double(), counts])
            distributed.all_reduce(sums)
            loss, correct, images, stops, failures, length = torch.cat([sums, own[2:].double()]).tolist()
        source.failed_anywhere = failures > 0
        return loss / max(images, 1), int(correct), int(images), stops > 0, length

    def _require_finite(self, loss: float, norm: float, step: int) -> None:
        # Float16 gradients overflow now and then; the scaler then skips the step and lowers the scale.
        if not _finite(loss) or (not _finite(norm) and not self.runtime.scaler.is_enabled()):
            _fail(loss, step, self.order)


@dataclass(slots=True)
class _Coming:
    """The images of the next step, which are read before this one ends.

    So the exchange that ends a step also says whether all processes have images for the next one: a process that has
    none must not let the others wait for its gradients.

    Attributes:
        parts: where the images are read.
        runtime: begins to copy them to the device.
        part: those of the next step.
        error: why this process cannot read them.
        failed_anywhere: whether a process cannot.
    """

    parts: Generator[Part, None, None]
    runtime: Runtime
    part: Part = field(init=False)
    error: WiseError | None = None
    failed_anywhere: bool = False

    def read(self) -> None:
        """Read the images of the next step, or keep the reason why this cannot be done."""
        try:
            part = next(self.parts)
        except WiseError as error:
            self.error = error
        else:
            self.part = replace(part, values=self.runtime.ahead(part.values))

    def require_read(self) -> None:
        """Raise the error of reading, if there was one."""
        if self.error is not None:
            raise self.error


def _fail(loss: float, step: int, order: BatchOrder) -> NoReturn:
    what = "loss" if not _finite(loss) else "gradient"
    raise NonFiniteError(
        f"The {what} is not finite at step {step + 1}/{order.total} (epoch {step // order.steps + 1}); "
        "the weights are those before this step."
    )


def _finite(value: float) -> bool:
    return value - value == 0


def _cuda_devices(runtime: Runtime) -> list[torch.device]:
    return [runtime.device] if runtime.device.type == "cuda" else []
