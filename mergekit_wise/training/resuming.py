"""What a run takes over from an earlier one that it resumes: what was chosen for the machine, and the saved state.

Knows no loss and no images; the state's file is `checkpointer`'s.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from mergekit_wise.errors import UsageError
from mergekit_wise.evaluation import Ranks, choose_precision
from mergekit_wise.evaluation.forward import Precision
from mergekit_wise.options import FinetuneOptions
from mergekit_wise.training.checkpointer import Checkpointer
from mergekit_wise.training.loop import RunningMean, TrainingLoop
from mergekit_wise.training.runtime import why_not_compiled

Note = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a run chooses for the machine that it begins on, and keeps wherever it is resumed.

    Attributes:
        precision: that ``--precision auto`` stands for, or the one that was asked for.
        compiled: whether the model is compiled: ``--compile`` was given, and torch could compile.
    """

    precision: Precision
    compiled: bool


def choose(request: FinetuneOptions, ranks: Ranks, device: torch.device, note: Note) -> Chosen:
    """Return what is chosen for this machine, or was chosen when the run that is resumed began.

    Raises CheckpointError if the saved state is damaged, UsageError if this machine cannot do what was chosen.
    """
    with ranks.agreeing():
        first = ranks.rank == 0
        earlier = {} if request.restart or not first else Checkpointer.chosen_in(request.folder)
        precision = choose_precision(earlier.get("precision", request.precision), device)
    compiled = request.compile and bool(earlier.get("compiled", True))
    reason = why_not_compiled(device) if compiled else ""
    precision, compiled, reason, earlier = ranks.share((precision, compiled, reason, earlier))
    if reason and earlier:
        raise UsageError(
            f"--compile: the run began with a compiled model, and torch cannot compile here ({reason}). Resume it "
            "where a compiler is installed, or start over with --restart."
        )
    if request.precision == "auto" and precision != choose_precision("auto", device):
        note(f"precision {precision}, with which the run began; --precision auto would choose another here")
    if request.compile and not compiled:
        note("not compiled: torch could not compile where the run began")
    if reason:
        note(f"not compiled, because torch cannot compile here: {reason}")
    return Chosen(precision, compiled and not reason)


def restored(checkpointer: Checkpointer, loop: TrainingLoop, ranks: Ranks, note: Note, *, restart: bool) -> RunningMean:
    """Load the state of an earlier run, or remove it; returns the sums of the epoch that it was stopped in.

    Raises UsageError or CheckpointError, as `Checkpointer.restore` does.
    """
    if restart:
        if ranks.rank == 0:
            checkpointer.clear(keep_epochs=False)
        return RunningMean()
    sums = checkpointer.restore(ranks)
    taken, order = loop.optimizer.taken, loop.order
    if taken:
        note(f"resuming at step {taken:,}/{order.total:,} from {checkpointer.folder}")
    if sums is None and taken % order.steps:
        note(f"the loss and accuracy of epoch {taken // order.steps + 1} are those after step {taken:,} only")
    return RunningMean() if sums is None else sums


def how_to_resume(checkpointer: Checkpointer, loop: TrainingLoop) -> str:
    """Say where a run was stopped, and whether the same command resumes it."""
    stopped = f"Stopped at step {loop.optimizer.taken:,}/{loop.order.total:,}."
    if not checkpointer.path.exists():
        return f"{stopped} Nothing was saved yet; run the same command again."
    return f"{stopped} State saved in {checkpointer.folder}; run the same command to resume."
