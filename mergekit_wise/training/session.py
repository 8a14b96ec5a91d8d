"""A run of fine-tuning from its first step, or the one where it was stopped, to its last. Knows no model.

After each epoch, and when someone asks to stop, it keeps what it takes to go on.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from mergekit_wise.errors import NonFiniteError
from mergekit_wise.progress import Progress
from mergekit_wise.training.checkpointer import Checkpointer
from mergekit_wise.training.interruption import Request, deferred
from mergekit_wise.training.log import Log
from mergekit_wise.training.loop import Done, Run
from mergekit_wise.training.validation import Validation


class Stopped(KeyboardInterrupt):
    """Someone asked to stop. The message says what is kept, and how to go on."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """How an epoch went: `number` from 1, mean `loss` and `accuracy` on its images as they were learned from, seconds.

    ``accuracy`` is None where a step of the epoch was taken by an earlier run.
    """

    number: int
    loss: float
    accuracy: float
    seconds: float
    validation: Validation | None


@dataclass(slots=True)
class Session:
    """A run, and what goes with it.

    Attributes:
        run: the steps.
        checkpointer: keeps the state.
        write: writes the model as it is now to a file.
        validate: measures such a file; None if nobody asked.
        log: told of every step and epoch.
        keep_epochs: whether the checkpoints of all epochs stay.
        first: whether this is the process that writes.
        progress, note: told of how it goes.
    """

    run: Run
    checkpointer: Checkpointer
    write: Callable[[Path], None]
    validate: Callable[[Path], Validation] | None
    log: Log
    keep_epochs: bool
    first: bool
    progress: Progress
    note: Callable[[str], object]
    epochs: list[Epoch] = field(default_factory=list)

    def finish(self) -> None:
        """Take all steps that are left.

        Raises Stopped; NonFiniteError, which names the last good checkpoint; whatever reading images raises.
        """
        try:
            with deferred() as request:
                self.run.stopping = request
                self._catch_up(request)
                self._steps(request)
        except NonFiniteError as error:
            raise NonFiniteError(f"{error} {self._last_good()}") from error
        except KeyboardInterrupt as error:
            raise Stopped(self._how_to_go_on()) from error

    def _catch_up(self, request: Request) -> None:
        """Validate an epoch that an earlier run finished, if that run was stopped before it could."""
        epochs, within = divmod(self.run.stepper.taken, self.run.course.steps)
        if epochs and not within and self.validate is not None and not self.log.validated(epochs):
            with request.at_once():
                self._validated(epochs)

    def _steps(self, request: Request) -> None:
        sums, began = _Sums(), time.perf_counter()
        with closing(self.run.steps()) as steps:
            for done in steps:
                sums.add(done)
                self._tell(done, sums, time.perf_counter() - began)
                if done.ends_epoch:
                    self._end_epoch(done.epoch + 1, sums, time.perf_counter() - began, request)
                    sums, began = _Sums(), time.perf_counter()
                elif done.stopped:
                    self._save()
                if done.stopped:
                    raise KeyboardInterrupt

    def _tell(self, done: Done, sums: "_Sums", seconds: float) -> None:
        course = self.run.course
        what = f"fine-tuning; loss {sums.loss:.3g}, accuracy {100 * sums.accuracy:.1f} %"
        images = min(course.images, course.steps * course.batch_size)
        within = min((done.step - done.epoch * course.steps) * course.batch_size, images)
        self.progress(what, done.epoch * images + within, course.epochs * images, "images")
        if self.first:
            self.log.tell(
                "step",
                step=done.step,
                epoch=done.epoch + 1,
                loss=done.loss,
                accuracy=done.correct / max(done.images, 1),
                learning_rate=done.rate,
                gradient_norm=done.norm,
                images_per_second=round(sums.images / seconds, 1),
            )

    def _end_epoch(self, number: int, sums: "_Sums", seconds: float, request: Request) -> None:
        """Keep everything first: what comes after may take long, and be interrupted."""
        if self.first:
            self.checkpointer.make()
            self.write(self.checkpointer.epoch(number))
        self._save()
        if self.first and not self.keep_epochs:
            self.checkpointer.epoch(number - 1).unlink(missing_ok=True)
        facts = {"step": self.run.stepper.taken, "epoch": number, "loss": sums.loss, "accuracy": sums.accuracy}
        if self.first:
            self.log.tell("epoch", **facts, seconds=round(seconds, 2))
        self.note(
            f"epoch {number} of {self.run.course.epochs}: loss {sums.loss:.3g}, accuracy {100 * sums.accuracy:.1f} % "
            "on the images it learns from"
        )
        with request.at_once():
            validation = self._validated(number)
        self.epochs.append(Epoch(number, sums.loss, sums.accuracy, seconds, validation))

    def _validated(self, number: int) -> Validation | None:
        if self.validate is None:
            return None
        self.run.computing.ranks.share(None)  # the file is there before anyone reads it
        validation = self.validate(self.checkpointer.epoch(number))
        if self.first:
            self.log.tell("validation", step=self.run.stepper.taken, epoch=number, **validation.entry())
        self.note(f"epoch {number} of {self.run.course.epochs}: {validation}")
        return validation

    def _save(self) -> None:
        if self.first:
            self.checkpointer.save(self.run)

    def _last_good(self) -> str:
        epoch = self.run.stepper.taken // self.run.course.steps
        where = self.checkpointer.epoch(epoch)
        good = f"The last good checkpoint is {where}." if where.exists() else "No epoch was finished before."
        return f"{good} Begin again with a lower --lr, a longer --warmup or --precision fp32 (--restart)."

    def _how_to_go_on(self) -> str:
        taken = f"Stopped after step {self.run.stepper.taken:,} of {self.run.course.total:,}."
        if not self.checkpointer.path.exists():
            return f"{taken} Nothing was kept."
        return f"{taken} What it takes to go on is in {self.checkpointer.folder}: the same command goes on from there."


@dataclass(slots=True)
class _Sums:
    """Over the steps of an epoch that this run took."""

    images: int = 0
    correct: int = 0
    weighted: float = 0.0

    def add(self, done: Done) -> None:
        self.images += done.images
        self.correct += done.correct
        self.weighted += done.loss * done.images

    @property
    def loss(self) -> float:
        return self.weighted / max(self.images, 1)

    @property
    def accuracy(self) -> float:
        return self.correct / max(self.images, 1)


def weights_of(run: Run, checkpointer: Checkpointer) -> Mapping[str, Tensor]:
    """What a run has come to: the averages, if there are some, else the parameters."""
    return checkpointer.parameters if run.average is None else run.average.tensors
