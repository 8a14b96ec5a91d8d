"""Merge two checkpoints into one file, or into one for each alpha, or preview the result."""

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mergekit_wise.checkpoint import (
    Checkpoint,
    OutputPlan,
    closing,
    plan_output,
    refuse_overwriting,
    require_folder,
    writing_output,
)
from mergekit_wise.checkpoint.folder import OPEN_CLIP, side_files, weights_in
from mergekit_wise.checkpoint.writing import writing_folder
from mergekit_wise.errors import NonFiniteError, UsageError
from mergekit_wise.merging import (
    Fishers,
    Mixer,
    Outcome,
    Pair,
    Rules,
    Sink,
    TensorPlan,
    check_alpha,
    describe,
    make_plan,
    open_backend,
    open_fishers,
    parse_alphas,
    parse_naming,
    relative_distance,
    stream,
)
from mergekit_wise.merging.rules import parse_alpha_for, parse_depth, parse_dtype, parse_keep
from mergekit_wise.models.architecture import with_named_config
from mergekit_wise.models.pair_notes import SAME, differ_in_dtype, notes_on_order, notes_on_plan, notes_on_reading
from mergekit_wise.models.pairing import match, open_pair
from mergekit_wise.models.source import open_source
from mergekit_wise.option_types import parse_size, takes
from mergekit_wise.options import MergeOptions, SweepOptions
from mergekit_wise.wording import fold_names, listed, plural

if TYPE_CHECKING:
    from mergekit_wise.evaluation.recalibration import Recalibration


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What `merge` did.

    Attributes:
        output: the file or folder that was written, or the index of several files; `size` bytes in all.
        alpha: the mixing coefficient.
        outcomes: what happened to each tensor.
        distance: relative change in fine-tuning, ||theta_1 - theta_0|| / ||theta_0|| over the mixed tensors; None if
            none was mixed.
        notes: what was changed, left out or decided on the way, one sentence each.
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
class MergePreview:
    """What `merge` would do: the plan of every tensor, the size of the output, and the bytes free for it."""

    steps: tuple[TensorPlan, ...]
    size: int
    files: int
    free: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Merge:
    """A merge whose inputs are open and whose plan is made."""

    options: MergeOptions
    pair: Pair
    fishers: Fishers | None
    plan: tuple[TensorPlan, ...]
    metadata: dict[str, str]
    notes: tuple[str, ...]


@takes(MergeOptions)
def merge(options: MergeOptions) -> MergeReport:
    """Write ``(1 - alpha) * zeroshot + alpha * finetuned`` to `output` as safetensors (WiSE-FT, Eq. 1).

    Arithmetic is float32 (float64 where an input is), rounded once to each tensor's dtype; integers and tensors that
    are equal are copied; alpha 0 and 1 copy a source's bytes. The output is complete or not there at all.

    Raises:
        UsageError: an option has a value that it cannot have, or there is no such device.
        CheckpointError: an input cannot be read.
        MismatchError: names, shapes or dtypes do not fit.
        NonFiniteError: mixing produced infinities or NaN from finite numbers.
        OutputError: the output cannot be written, or is an input.
    """
    return _merge([options])[0]


def merge_each(options: MergeOptions, alphas: Sequence[float]) -> tuple[MergeReport, ...]:
    """What `merge` does, for every alpha, from one pass over the two sources.

    The output of `options` is a path with ``{alpha}`` in it. Either all outputs are written or none. Raises what
    `merge` raises.
    """
    pattern = str(Path(options.output))
    if "{alpha}" not in pattern:
        raise UsageError(f"--save {pattern}: expected a path with {{alpha}} in it, as in merged-{{alpha}}.safetensors.")
    checked = {check_alpha(alpha, f"--alphas {alpha:g}") for alpha in alphas}
    paths = {alpha: pattern.replace("{alpha}", f"{alpha:g}") for alpha in sorted(checked)}
    return _merge([replace(options, alpha=alpha, output=path) for alpha, path in paths.items()])


def mixtures_of(options: SweepOptions) -> tuple[MergeOptions, tuple[float, ...]]:
    """How the mixtures of a sweep are merged, with ``{alpha}`` in the output's path, and their alphas.

    Raises UsageError for alphas that are none.
    """
    merged = MergeOptions(
        options.zeroshot,
        options.finetuned,
        str(options.save),
        like=options.like,
        rename=options.rename,
        base=options.base,
        frozen_tolerance=options.frozen_tolerance,
        device=options.device,
        mmap=options.mmap,
        progress=options.progress,
    )
    return merged, sweep_alphas(options)


def sweep_alphas(options: SweepOptions) -> tuple[float, ...]:
    """The alphas that the options list, sorted, each once. Raises UsageError."""
    if isinstance(options.alphas, str):
        return parse_alphas(options.alphas)
    return tuple(sorted({check_alpha(alpha, f"--alphas {alpha:g}") for alpha in options.alphas}))


@takes(MergeOptions)
def preview(options: MergeOptions) -> MergePreview:
    """What `merge` would do with the same arguments; reads headers only and writes nothing. Raises what it raises."""
    output = Path(options.output)
    require_folder(output)
    with _opened(options) as job:
        plan = _output_plan(job)
        free = shutil.disk_usage(output.resolve().parent).free
        return MergePreview(job.plan, plan.size, len(plan.files), free, job.notes)


def merge_rules(options: MergeOptions) -> Rules:
    """The rules that the options describe. Raises UsageError."""
    return Rules(
        alpha=options.alpha,
        alpha_for=tuple(map(parse_alpha_for, options.alpha_for)),
        depth=parse_depth(options.depth_alpha) if options.depth_alpha else None,
        keep=tuple(map(parse_keep, options.keep)),
        only=options.only,
        dtype=parse_dtype(options.dtype) if options.dtype else None,
        extrapolate=options.extrapolate,
        frozen_tolerance=options.frozen_tolerance,
    )


def _merge(requests: Sequence[MergeOptions]) -> tuple[MergeReport, ...]:
    """Every merge of the same two sources, from one pass over them."""
    began = time.perf_counter()
    first = requests[0]
    backend = open_backend(first.device, parse_size(first.memory, "--memory"))
    with ExitStack() as stack:
        job = stack.enter_context(_opened(first))
        jobs = [job, *(_with_rules_of(job, request) for request in requests[1:])]
        statistics = _recalibration(job)
        if statistics is not None:
            jobs = [replace(job, metadata=statistics.with_record(job.metadata)) for job in jobs]
        plans = [stack.enter_context(_placed(job)) for job in jobs]
        sinks = [_sink(job, plan, stack) for job, plan in zip(jobs, plans, strict=True)]
        mixer = Mixer(job.pair, backend, job.fishers)
        outcomes = stream(mixer, sinks, first.progress)
        if not first.allow_non_finite:
            for found in outcomes:
                _require_finite(found)
        if statistics is not None:
            for job, sink in zip(jobs, sinks, strict=True):
                for name, data in statistics.statistics(mixer, job.plan, first.progress):
                    sink.put(name, 0, data)
    seconds = time.perf_counter() - began
    return tuple(_report(*work, seconds) for work in zip(jobs, plans, outcomes, strict=True))


@contextmanager
def _opened(options: MergeOptions) -> Iterator[_Merge]:
    """Open the inputs, check that they fit, and plan."""
    rules = merge_rules(options)
    with ExitStack() as stack:

        def opened(source: str | Path) -> Checkpoint:
            checkpoint = open_source(source, mmap=options.mmap)
            stack.enter_context(closing(checkpoint))
            return checkpoint

        naming = parse_naming(options.like, options.rename)
        first, second, naming = stack.enter_context(
            open_pair(options.zeroshot, options.finetuned, naming, base=options.base, mmap=options.mmap)
        )
        refuse_overwriting(Path(options.output), tuple(file.path for side in (first, second) for file in side.files))
        if options.model:
            first, second = (with_named_config(side, options.model) for side in (first, second))
        pair = match(first, second, rules, naming)
        fishers = None
        if options.fisher is not None:
            fishers = open_fishers(pair, opened(options.fisher[0]), opened(options.fisher[1]), options.fisher_floor)
        metadata, disputed = describe(pair, rules, fishers)
        notes = [
            *notes_on_reading(pair),
            *(f"the two files' metadata disagree on {key!r}; keeping the fine-tuned one's" for key in disputed),
            *notes_on_order(pair),
        ]
        plan = make_plan(pair, rules)
        yield _Merge(options, pair, fishers, plan, metadata, (*notes, *notes_on_plan(pair, rules, plan)))


def _with_rules_of(job: _Merge, options: MergeOptions) -> _Merge:
    """The same inputs with other options."""
    rules, pair = merge_rules(options), job.pair
    refuse_overwriting(
        Path(options.output), tuple(file.path for side in (pair.zeroshot, pair.finetuned) for file in side.files)
    )
    return replace(job, options=options, plan=make_plan(pair, rules), metadata=describe(pair, rules, job.fishers)[0])


def _recalibration(job: _Merge) -> "Recalibration | None":
    options = job.options
    if options.recalibrate is None:
        return None
    from mergekit_wise.evaluation.recalibration import open_recalibration  # torch, which merging does without

    data = options.data
    return open_recalibration(options.recalibrate, data, options.model, options.device, job.pair, job.plan)


def _output_plan(job: _Merge, output: Path | None = None) -> OutputPlan:
    """Which files the merge writes."""
    shard_size = parse_size(job.options.shard_size, "--shard-size") if job.options.shard_size else None
    return plan_output(output or Path(job.options.output), (step.info for step in job.plan), job.metadata, shard_size)


@contextmanager
def _placed(job: _Merge) -> Iterator[OutputPlan]:
    """A file; or, where a source is a folder, a folder with that one's side files."""
    sides = [side for side in (job.pair.finetuned, job.pair.zeroshot) if not side.is_translated]
    folders = [path for side in sides if (path := (side.base or side).path).is_dir()]
    if not folders:
        yield _output_plan(job)
        return
    with writing_folder(Path(job.options.output), side_files(folders[0])) as folder:
        # open_clip reads no shards.
        named_by_open_clip = weights_in(folders[0]).name.startswith(OPEN_CLIP) and not job.options.shard_size
        yield _output_plan(job, folder / f"{OPEN_CLIP if named_by_open_clip else ''}model.safetensors")


def _sink(job: _Merge, plan: OutputPlan, stack: ExitStack) -> Sink:
    by_name = {step.info.name: step for step in job.plan}
    return Sink([by_name[info.name] for info in plan.infos], stack.enter_context(writing_output(plan)).put)


def _report(job: _Merge, plan: OutputPlan, outcomes: tuple[Outcome, ...], seconds: float) -> MergeReport:
    output = Path(job.options.output)
    return MergeReport(
        output if plan.index is None else output.with_name(plan.index.name),
        job.options.alpha,
        plan.size,
        outcomes,
        relative_distance(outcomes),
        (*job.notes, *_notes(job.pair, outcomes, recalibrated=job.options.recalibrate is not None)),
        seconds,
    )


def _require_finite(outcomes: tuple[Outcome, ...]) -> None:
    """Raise NonFiniteError if mixing produced infinities or NaN from finite numbers."""
    broken = [outcome for outcome in outcomes if outcome.statistics.broken]
    if broken:
        tensors, names = plural(len(broken), "tensor"), listed(f"{o.name} ({o.statistics.broken})" for o in broken)
        raise NonFiniteError(
            f"Mixing produced infinities or NaN from finite numbers in {tensors}: {names}. Choose an alpha "
            "nearer to [0, 1] or a wider --dtype, or pass --allow-non-finite to write the file anyway."
        )


def _notes(pair: Pair, outcomes: tuple[Outcome, ...], *, recalibrated: bool) -> Iterator[str]:
    """What the user should know of the result."""
    if all(outcome.source == "equal" for outcome in outcomes):
        yield SAME
    rounded = [o for o in outcomes if o.source == "mixed" and not o.statistics.moved and differ_in_dtype(pair, o.name)]
    if rounded:
        yield (
            f"{plural(len(rounded), 'tensor')} {'is' if len(rounded) == 1 else 'are'} equal in the two files up to the "
            "rounding to the narrower dtype, as after freezing; --frozen-tolerance 0 copies them from the file with "
            f"the wider dtype: {listed(fold_names(o.name for o in rounded))}"
        )
    spoiled = [outcome for outcome in outcomes if outcome.statistics.inherited]
    if spoiled:
        names = listed(f"{o.name} ({o.statistics.inherited})" for o in spoiled)
        yield f"infinities or NaN in the inputs were mixed into {plural(len(spoiled), 'tensor')}: {names}"
    mixed = any(outcome.source == "mixed" and outcome.name.endswith("running_var") for outcome in outcomes)
    if mixed and not recalibrated:
        yield (
            "batch-norm statistics were mixed like weights, but a merged model's statistics are not the average of the "
            "two models' statistics; --recalibrate DATASET recomputes them on images, ideally the training images"
        )
