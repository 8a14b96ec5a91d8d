"""Mix two checkpoints into one file, or say what doing so would give."""

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

from mergekit_wise.checkpoint import Checkpoint, OutputPlan, closing, plan_output, refuse_overwriting, writing_output
from mergekit_wise.checkpoint.folder import side_files, writing_folder
from mergekit_wise.errors import NonFiniteError
from mergekit_wise.merging import (
    Fishers,
    Mixer,
    Outcome,
    Pair,
    Step,
    describe,
    make_plan,
    match,
    open_engine,
    open_fishers,
    relative_distance,
    stream,
)
from mergekit_wise.progress import Progress, silent
from mergekit_wise.recipes.request import MergeOptions, MergeRequest, parse_bytes
from mergekit_wise.recipes.source import open_source


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What `merge` did.

    Attributes:
        output: the file or folder that was written, or the index of several files; `size` bytes in all.
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


@dataclass(frozen=True, slots=True)
class Preview:
    """What `merge` would do: the plan of every tensor, the size of the output, and the bytes free for it."""

    steps: tuple[Step, ...]
    size: int
    files: int
    free: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Job:
    """A merge whose inputs are open and whose plan is made."""

    pair: Pair
    fishers: Fishers | None
    steps: tuple[Step, ...]
    metadata: dict[str, str]
    notes: tuple[str, ...]


def merge(
    zeroshot: str | Path,
    finetuned: str | Path,
    output: Path,
    *,
    progress: Progress = silent,
    **options: Unpack[MergeOptions],
) -> MergeReport:
    """Write ``(1 - alpha) * zeroshot + alpha * finetuned`` to `output` as safetensors (WiSE-FT, Eq. 1).

    Arithmetic is float32 (float64 where an input is), rounded once to each tensor's dtype; integers and tensors that
    are equal are copied; alpha 0 and 1 copy a source's bytes. The output is there whole or not at all. What the
    options mean stands at `MergeRequest`.

    Raises:
        UsageError: an option makes no sense, or there is no such device.
        CheckpointError: an input cannot be read.
        MismatchError: names, shapes or dtypes do not fit.
        NonFiniteError: mixing made infinities or NaN of finite numbers.
        OutputError: the output cannot be written, or is an input.
    """
    began = time.perf_counter()
    request = MergeRequest(zeroshot, finetuned, output, **options)
    engine = open_engine(request.device, parse_bytes(request.memory, "--memory"))
    with _opened(request) as job, _place(request, job) as plan:
        by_name = {step.info.name: step for step in job.steps}
        with writing_output(plan) as out:
            mixer = Mixer(job.pair, engine, job.fishers)
            outcomes = stream(mixer, [by_name[info.name] for info in plan.infos], out.put, progress)
            if not request.allow_non_finite:
                _require_finite(outcomes)
    return MergeReport(
        request.output if plan.index is None else request.output.with_name(plan.index.name),
        request.alpha,
        plan.size,
        outcomes,
        relative_distance(outcomes),
        (*job.notes, *_remarks(outcomes)),
        time.perf_counter() - began,
    )


def preview(zeroshot: str | Path, finetuned: str | Path, output: Path, **options: Unpack[MergeOptions]) -> Preview:
    """What `merge` would do with the same arguments; reads headers only and writes nothing. Raises what it raises."""
    request = MergeRequest(zeroshot, finetuned, output, **options)
    with _opened(request) as job:
        plan = _output_plan(request, job)
        folder = request.output.resolve().parent
        free = shutil.disk_usage(folder).free if folder.is_dir() else 0
        return Preview(job.steps, plan.size, len(plan.files), free, job.notes)


@contextmanager
def _opened(request: MergeRequest) -> Iterator[_Job]:
    rules = request.rules()
    with ExitStack() as stack:

        def opened(source: str | Path) -> Checkpoint:
            checkpoint = open_source(source, mmap=request.mmap)
            stack.enter_context(closing(checkpoint))
            return checkpoint

        first, second = opened(request.zeroshot), opened(request.finetuned)
        refuse_overwriting(request.output, tuple(file.path for side in (first, second) for file in side.files))
        pair = match(first, second, rules)
        fishers = None
        if request.fisher is not None:
            zs_fisher, ft_fisher = request.fisher
            fishers = open_fishers(pair, opened(zs_fisher), opened(ft_fisher), request.fisher_floor)
        metadata, disputed = describe(pair, rules, fishers)
        notes = [f"{side.path.name}: {note}" for side in (pair.zeroshot, pair.finetuned) for note in side.notes]
        notes += [f"the two files' metadata disagree on {key!r}; kept the fine-tuned one's" for key in disputed]
        yield _Job(pair, fishers, make_plan(pair, rules), metadata, tuple(notes))


def _output_plan(request: MergeRequest, job: _Job) -> OutputPlan:
    shard_size = parse_bytes(request.shard_size, "--shard-size") if request.shard_size else None
    return plan_output(request.output, (step.info for step in job.steps), job.metadata, shard_size)


@contextmanager
def _place(request: MergeRequest, job: _Job) -> Iterator[OutputPlan]:
    """Where the output goes: a file; or, where a source is a folder, a folder with that one's side files."""
    folders = [side.path for side in (job.pair.finetuned, job.pair.zeroshot) if side.path.is_dir()]
    if not folders:
        yield _output_plan(request, job)
        return
    with writing_folder(request.output, side_files(folders[0])) as folder:
        yield _output_plan(replace(request, output=folder / "model.safetensors"), job)


def _require_finite(outcomes: tuple[Outcome, ...]) -> None:
    broken = [outcome for outcome in outcomes if outcome.tally.broken]
    if broken:
        names = ", ".join(f"{o.name} ({o.tally.broken})" for o in broken[:8])
        raise NonFiniteError(
            f"Mixing made infinities or NaN of finite numbers in {len(broken)} tensors: {names}. Choose an alpha "
            "nearer to [0, 1] or a wider --dtype; --allow-non-finite writes the file all the same."
        )


def _remarks(outcomes: tuple[Outcome, ...]) -> Iterator[str]:
    spoiled = [outcome for outcome in outcomes if outcome.tally.inherited]
    if spoiled:
        names = ", ".join(f"{o.name} ({o.tally.inherited})" for o in spoiled[:8])
        yield f"infinities or NaN of the inputs went into {len(spoiled)} tensors: {names}"
    if any(outcome.fate == "mixed" and outcome.name.endswith("running_var") for outcome in outcomes):
        yield (
            "batch-norm statistics were mixed like weights, which is not what the mixture's own would be; "
            "re-estimate them on training images before relying on its accuracy"
        )
