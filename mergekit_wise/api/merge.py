"""Mix two checkpoints into one file, or one for each alpha, or say what doing so would give."""

import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from mergekit_wise.api.merge_job import Job, opened_job, output_plan, placed, remarks, replanned, require_finite
from mergekit_wise.checkpoint import OutputPlan, require_folder, writing_output
from mergekit_wise.errors import UsageError
from mergekit_wise.merging import Mixer, Outcome, Sink, Step, check_alpha, open_backend, relative_distance, stream
from mergekit_wise.options import MergeKeywords, MergeOptions, parse_bytes
from mergekit_wise.progress import Progress, silent

if TYPE_CHECKING:
    from mergekit_wise.evaluation.recalibration import Recalibration


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What `merge` did.

    Attributes:
        output: the file or folder that was written, or the index of several files; `size` bytes in all.
        alpha: the mixing coefficient.
        outcomes: what happened to each tensor.
        distance: `|theta_1 - theta_0| / |theta_0|` over the mixed tensors; None if none was mixed.
        notes: what was taken off, left out or decided on the way, one sentence each.
        seconds: how long it took, all outputs together.
    """

    output: Path
    alpha: float
    size: int
    outcomes: tuple[Outcome, ...]
    distance: float | None
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Preview:
    """What `merge` would do: the plan of every tensor, the size of the output, and the bytes free for it."""

    steps: tuple[Step, ...]
    size: int
    files: int
    free: int
    notes: tuple[str, ...]


def merge(
    zeroshot: str | Path,
    finetuned: str | Path,
    output: str | Path,
    *,
    progress: Progress = silent,
    **options: Unpack[MergeKeywords],
) -> MergeReport:
    """Write ``(1 - alpha) * zeroshot + alpha * finetuned`` to `output` as safetensors (WiSE-FT, Eq. 1).

    Arithmetic is float32 (float64 where an input is), rounded once to each tensor's dtype; integers and tensors that
    are equal are copied; alpha 0 and 1 copy a source's bytes. The output is there whole or not at all. What the
    options mean stands at `MergeOptions`.

    Raises:
        UsageError: an option makes no sense, or there is no such device.
        CheckpointError: an input cannot be read.
        MismatchError: names, shapes or dtypes do not fit.
        NonFiniteError: mixing made infinities or NaN of finite numbers.
        OutputError: the output cannot be written, or is an input.
    """
    return _merge([MergeOptions(zeroshot, finetuned, Path(output), **options)], progress)[0]


def merge_each(
    zeroshot: str | Path,
    finetuned: str | Path,
    outputs: str,
    alphas: Sequence[float],
    *,
    progress: Progress = silent,
    **options: Unpack[MergeKeywords],
) -> tuple[MergeReport, ...]:
    """What `merge` does, for every alpha, all from one reading of the two sources.

    `outputs` is a path with ``{alpha}`` in it. Either all outputs are written or none. Raises what `merge` raises.
    """
    if "{alpha}" not in outputs:
        raise UsageError(f"--save {outputs}: expected a path with {{alpha}} in it, as in merged-{{alpha}}.safetensors.")
    checked = [check_alpha(alpha, f"--alphas {alpha:g}") for alpha in alphas]
    paths = {alpha: Path(outputs.replace("{alpha}", f"{alpha:g}")) for alpha in checked}
    requests = [
        MergeOptions(zeroshot, finetuned, path, **(options | {"alpha": alpha})) for alpha, path in paths.items()
    ]
    return _merge(requests, progress)


def _merge(requests: Sequence[MergeOptions], progress: Progress) -> tuple[MergeReport, ...]:
    """All requests ask for the same sources."""
    began = time.perf_counter()
    first = requests[0]
    engine = open_backend(first.device, parse_bytes(first.memory, "--memory"))
    with ExitStack() as stack:
        job = stack.enter_context(opened_job(first))
        jobs = [job, *(replanned(job, request) for request in requests[1:])]
        statistics = _statistics(first, job)
        if statistics is not None:
            jobs = [replace(job, metadata=statistics.with_record(job.metadata)) for job in jobs]
        plans = [stack.enter_context(placed(*work)) for work in zip(requests, jobs, strict=True)]
        sinks = [_sink(job, plan, stack) for job, plan in zip(jobs, plans, strict=True)]
        mixer = Mixer(job.pair, engine, job.fishers)
        outcomes = stream(mixer, sinks, progress)
        if not first.allow_non_finite:
            for found in outcomes:
                require_finite(found)
        if statistics is not None:
            for job, sink in zip(jobs, sinks, strict=True):
                for name, data in statistics.statistics(mixer, job.steps, progress):
                    sink.put(name, 0, data)
    seconds = time.perf_counter() - began
    return tuple(_report(*work, seconds) for work in zip(requests, jobs, plans, outcomes, strict=True))


def _statistics(request: MergeOptions, job: Job) -> "Recalibration | None":
    if request.recalibrate is None:
        return None
    from mergekit_wise.evaluation.recalibration import open_recalibration  # torch, which merging does without

    return open_recalibration(request.recalibrate, request.data, request.model, request.device, job.pair, job.steps)


def _sink(job: Job, plan: OutputPlan, stack: ExitStack) -> Sink:
    by_name = {step.info.name: step for step in job.steps}
    return Sink([by_name[info.name] for info in plan.infos], stack.enter_context(writing_output(plan)).put)


def _report(
    request: MergeOptions, job: Job, plan: OutputPlan, outcomes: tuple[Outcome, ...], seconds: float
) -> MergeReport:
    return MergeReport(
        request.output if plan.index is None else request.output.with_name(plan.index.name),
        request.alpha,
        plan.size,
        outcomes,
        relative_distance(outcomes),
        (*job.notes, *remarks(outcomes, recalibrated=request.recalibrate is not None)),
        seconds,
    )


def preview(
    zeroshot: str | Path, finetuned: str | Path, output: str | Path, **options: Unpack[MergeKeywords]
) -> Preview:
    """What `merge` would do with the same arguments; reads headers only and writes nothing. Raises what it raises."""
    request = MergeOptions(zeroshot, finetuned, Path(output), **options)
    require_folder(request.output)
    with opened_job(request) as job:
        plan = output_plan(request, job)
        free = shutil.disk_usage(request.output.resolve().parent).free
        return Preview(job.steps, plan.size, len(plan.files), free, job.notes)
