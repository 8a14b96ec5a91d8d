"""Mix two checkpoints into one file."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mergekit_wise.checkpoint import closing, open_checkpoint, plan_layout, refuse_overwriting
from mergekit_wise.checkpoint.writer import writing
from mergekit_wise.merging import (
    Outcome,
    check_alpha,
    describe,
    make_plan,
    match,
    open_engine,
    relative_distance,
    stream,
)
from mergekit_wise.progress import Progress, silent


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What `merge` did.

    Attributes:
        output: the file that was written, `size` bytes long.
        alpha: the mixing coefficient.
        outcomes: what happened to each tensor.
        distance: |theta_1 - theta_0| / |theta_0| over the mixed tensors; None if none was mixed.
        notes: what was taken off, left out or decided on the way, one sentence each.
        seconds: how long it took, flushing to disk included.
    """

    output: Path
    alpha: float
    size: int
    outcomes: tuple[Outcome, ...]
    distance: float | None
    notes: tuple[str, ...]
    seconds: float


def merge(
    zeroshot: Path,
    finetuned: Path,
    output: Path,
    *,
    alpha: float = 0.5,
    device: str = "cpu",
    progress: Progress = silent,
) -> MergeReport:
    """Write ``(1 - alpha) * zeroshot + alpha * finetuned`` to `output` as safetensors (WiSE-FT, Eq. 1).

    Arithmetic is float32 (float64 where an input is), rounded once to each tensor's dtype; integers and tensors that
    are equal are copied; alpha 0 and 1 copy a source's bytes. The output is there whole or not at all.

    Raises:
        UsageError: alpha is outside [0, 1], or there is no such device.
        CheckpointError: an input cannot be read.
        MismatchError: names, shapes or dtypes do not fit.
        OutputError: the output cannot be written, or is an input.
    """
    began = time.perf_counter()
    alpha = check_alpha(alpha)
    engine = open_engine(device)
    refuse_overwriting(output, (zeroshot, finetuned))
    first, second = open_checkpoint(zeroshot), open_checkpoint(finetuned)
    with closing(first, second):
        pair = match(first, second)
        plan = make_plan(pair, alpha)
        metadata, disputed = describe(pair, alpha)
        layout = plan_layout((step.info for step in plan), metadata)
        with writing(output, layout.size) as write:
            write(0, np.frombuffer(layout.header, np.uint8))
            outcomes = stream(pair, plan, alpha, layout, write, engine, progress)
    notes = [f"{side.path.name}: {note}" for side in (pair.zeroshot, pair.finetuned) for note in side.notes]
    notes += [f"the two files' metadata disagree on {key!r}; kept the fine-tuned one's" for key in disputed]
    return MergeReport(
        output,
        alpha,
        layout.size,
        outcomes,
        relative_distance(outcomes),
        tuple(notes),
        time.perf_counter() - began,
    )
