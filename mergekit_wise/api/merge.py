"""Merge two checkpoints into one file, or into one for each alpha, or preview the result."""

import gc
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mergekit_wise.analysis.point import Point
from mergekit_wise.api.merge_report import MergePreview, MergeReport
from mergekit_wise.api.placing import Place, files_of, place_of, placed, require_apart
from mergekit_wise.api.swept import fixed_alpha_of, output_of, swept_axes
from mergekit_wise.checkpoint import Checkpoint, OutputPlan, closing, require_folder, writing_output
from mergekit_wise.checkpoint.tensors import StorageArray
from mergekit_wise.checkpoint.writing import free_bytes, uninterrupted
from mergekit_wise.errors import NonFiniteError, UsageError
from mergekit_wise.merging import (
    Backend,
    Fishers,
    Mixer,
    Outcome,
    Pair,
    Rules,
    Sink,
    TensorPlan,
    check_alpha,
    describe,
    described_by,
    make_plan,
    open_backend,
    open_fishers,
    parse_naming,
    relative_distance,
    stream,
)
from mergekit_wise.merging.parameters import grid, with_point
from mergekit_wise.merging.rules import parse_alpha_for, parse_depth, parse_dtype, parse_keep
from mergekit_wise.merging.soup import Averaged, numbers_of
from mergekit_wise.merging.soup_geometry import Geometry, geometry, notes_on_geometry, require_one_start
from mergekit_wise.merging.stream import Put
from mergekit_wise.models.architecture import with_named_config
from mergekit_wise.models.merge_command import merge_options
from mergekit_wise.models.pair_notes import (
    BATCH_NORM,
    SAME,
    differ_in_dtype,
    notes_on_order,
    notes_on_plan,
    notes_on_preprocessing,
    notes_on_reading,
)
from mergekit_wise.models.pairing import match, named_like, open_pair
from mergekit_wise.models.soup import notes_on_opposite
from mergekit_wise.models.source import open_source
from mergekit_wise.option_types import takes
from mergekit_wise.options import MergeOptions, SweepOptions
from mergekit_wise.wording import fold_names, listed, parse_size, plural

LEAST_MEMORY = 10**6
"""Bytes; with fewer, a block is so small that its overhead is many times its work."""

SECONDS_A_BLOCK = 3e-5
"""The overhead of a block, however small."""

LARGE_BLOCK = 1 << 16
"""Elements of a block whose overhead is small beside its work."""


@dataclass(frozen=True, slots=True)
class OpenMerge:
    """A merge whose inputs are open and whose plan is made; `place` is None where nothing is written."""

    options: MergeOptions
    pair: Pair
    fishers: Fishers | None
    plan: tuple[TensorPlan, ...]
    place: Place | None
    metadata: dict[str, str]
    notes: tuple[str, ...]

    @property
    def sources(self) -> tuple[Checkpoint, ...]:
        """Every checkpoint that is read."""
        fishers = (self.fishers.zeroshot, self.fishers.finetuned) if self.fishers else ()
        return (self.pair.zeroshot, self.pair.finetuned, *fishers)


@takes(MergeOptions)
def merge(options: MergeOptions) -> MergeReport | Any:
    """Write ``(1 - alpha) * zeroshot + alpha * finetuned`` to `output` (WiSE-FT, Eq. 1).

    Without `output`, nothing is written, and the result is the merged weights as a `StateDict`, on the device of the
    inputs, with the bytes that the file would hold; with it, the result is a `MergeReport`. Inputs are files, modules
    or state dicts in any combination.

    The name of the output decides about its format: ``.safetensors``, or that of torch.save (``.pt``, ``.pth``,
    ``.bin``, ``.ckpt``). Beside a source that is a folder, a name without an ending is a folder.

    Arithmetic is float32 (float64 where an input is), rounded once to each tensor's dtype; integers and tensors that
    are equal are copied; alpha 0 and 1 copy a source's bytes. The output is complete or not there at all.

    Raises:
        UsageError: an option has a value that it cannot have, or there is no such device.
        CheckpointError: an input cannot be read.
        MismatchError: names, shapes or dtypes do not fit.
        NonFiniteError: mixing produced infinities or NaN from finite numbers.
        OutputError: the output cannot be written, or is an input.
    """
    if options.output is None:
        from mergekit_wise.api.state_dict import merged_state  # torch, which merging files does without

        return merged_state(options)
    return _merge([options])[0]


def merge_each(options: MergeOptions, alphas: Sequence[float]) -> tuple[MergeReport, ...]:
    """What `merge` does, for every alpha, from one pass over the two sources.

    The output of `options` is a path with ``{alpha}`` in it. Either all outputs are written or none. Raises what
    `merge` raises.
    """
    checked = {check_alpha(alpha, f"--alphas {alpha:g}") for alpha in alphas}
    return merge_points(options, [Point.of_alpha(alpha) for alpha in sorted(checked)])


def merge_points(options: MergeOptions, points: Sequence[Point]) -> tuple[MergeReport, ...]:
    """What `merge` does, for every point of a sweep; the output's path is a pattern for `output_of`."""
    pattern = str(options.output)
    paths = {point: output_of(pattern, point) for point in points}
    if len(set(paths.values())) < len(paths):
        raise UsageError(f"--save {pattern}: several mixtures would have one name. Take values with fewer digits.")
    return _merge([replace(at_point(options, point), output=path) for point, path in paths.items()])


def at_point(options: MergeOptions, point: Point) -> MergeOptions:
    """The options of the merge that gives the mixture at a point of a sweep with otherwise these options."""
    rules = with_point(merge_rules(options), point)
    return replace(
        options,
        alpha=rules.alpha,
        alpha_for=tuple(f"{pattern}={alpha!r}" for pattern, alpha in rules.alpha_for),
        depth_alpha=f"{rules.depth[0]!r}:{rules.depth[1]!r}" if rules.depth else None,
        frozen_tolerance=rules.frozen_tolerance,
    )


def mixtures_of(options: SweepOptions) -> tuple[MergeOptions, tuple[Point, ...]]:
    """How the mixtures of a sweep are merged, with their parameters in the output's path, and where they lie.

    Raises UsageError for values that a parameter cannot have, and for options that need an evaluation.
    """
    for option, value in (("-o", options.output), ("--plot", options.plot), ("--calibrate", options.calibrate)):
        if value is not None:
            raise UsageError(f"{option} {value}: needs an evaluation, and --save alone makes none. Add --suite.")
    return merge_options(options, merge_rules(options), str(options.save)), grid(swept_axes(options))


@takes(MergeOptions)
def preview(options: MergeOptions) -> MergePreview:
    """What `merge` would do with the same arguments; reads headers only and writes nothing. Raises what it raises."""
    output = options.output
    if output is None:
        raise UsageError("A preview is of a file: give `output`.")
    require_folder(output)
    with opened_merge(options) as job:
        assert job.place is not None
        plan = files_of(job.place.weights, options, job.plan, job.metadata)
        require_apart(plan, job.sources)
        return MergePreview(job.plan, plan.size, len(plan.files), free_bytes(output.resolve().parent), job.notes)


def merge_rules(options: MergeOptions | SweepOptions) -> Rules:
    """The rules that the options describe; a sweep's have the alpha that it does not vary. Raises UsageError."""
    return Rules(
        alpha=fixed_alpha_of(options) if isinstance(options, SweepOptions) else options.alpha,
        alpha_for=tuple(map(parse_alpha_for, options.alpha_for)),
        depth=parse_depth(options.depth_alpha) if options.depth_alpha else None,
        keep=tuple(map(parse_keep, options.keep)),
        only=options.only,
        dtype=parse_dtype(options.dtype) if options.dtype else None,
        extrapolate=not isinstance(options, SweepOptions) and options.extrapolate,
        frozen_tolerance=options.frozen_tolerance,
    )


@contextmanager
def without_collecting() -> Iterator[None]:
    """Let Python search for no cycles: a merge makes none, and the facts of 50,000 tensors take seconds to search."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@without_collecting()
def _merge(requests: Sequence[MergeOptions]) -> tuple[MergeReport, ...]:
    """Every merge of the same two sources, from one pass over them."""
    began = time.perf_counter()
    first = requests[0]
    for request in requests:
        assert request.output is not None
        require_folder(request.output)
    backend = open_backend(first.device, memory_budget(first))
    with ExitStack() as stack:
        job = stack.enter_context(opened_merge(first))
        found, unusual = geometry_of(job.pair, merge_rules(first), first)
        mixer = Mixer(job.pair, backend, job.fishers)
        planned = [job, *(_with_rules_of(job, request) for request in requests[1:])]
        jobs, recalibrated = with_statistics(planned, mixer)
        with uninterrupted():
            places = [each.place for each in jobs if each.place is not None]
            plans = [
                stack.enter_context(placed(place, each.options, each.plan, each.metadata))
                for each, place in zip(jobs, places, strict=True)
            ]
            for each, plan in zip(jobs, plans, strict=True):
                require_apart(plan, each.sources)
            outputs = [stack.enter_context(writing_output(plan)) for plan in plans]
        sinks = [
            sink_of(each, [info.name for info in plan.infos], output.put, tensors)
            for each, plan, output, tensors in zip(jobs, plans, outputs, recalibrated, strict=True)
        ]
        outcomes = stream(mixer, sinks, first.progress)
        if not first.allow_non_finite:
            for outcome in outcomes:
                require_finite(outcome)
        for output, tensors in zip(outputs, recalibrated, strict=True):
            for name, data in tensors.items():
                output.put(name, 0, data)
    seconds = time.perf_counter() - began
    slow = (*unusual, *notes_on_memory(first, backend, job.plan))
    return tuple(_report(*work, slow, seconds, found) for work in zip(jobs, plans, outcomes, strict=True))


@contextmanager
def opened_merge(options: MergeOptions) -> Iterator[OpenMerge]:
    """Open the inputs, check that they fit, and plan."""
    rules = merge_rules(options)
    with ExitStack() as stack:
        naming = parse_naming(options.like, options.rename)
        first, second, naming = stack.enter_context(
            open_pair(options.zeroshot, options.finetuned, naming, base=options.base, mmap=options.mmap)
        )
        if options.model:
            first, second = (with_named_config(side, options.model) for side in (first, second))
        pair = match(first, second, rules, naming)
        yield _planned(options, pair, rules, stack.enter_context(opened_fishers(options, pair)))


@contextmanager
def opened_fishers(options: MergeOptions | SweepOptions, pair: Pair) -> Iterator[Fishers | None]:
    """The Fisher information of both sides under the names of the pair; None if the options give none.

    Raises CheckpointError or MismatchError if it is not that of the pair.
    """
    with ExitStack() as stack:
        if options.fisher is None:
            yield None
            return
        first, second = (open_source(source, mmap=options.mmap) for source in options.fisher)
        stack.enter_context(closing(first, second))
        names = named_like(pair, first, "zeroshot"), named_like(pair, second, "finetuned")
        yield open_fishers(pair, *names, options.fisher_floor)


def _planned(options: MergeOptions, pair: Pair, rules: Rules, fishers: Fishers | None) -> OpenMerge:
    """Plan a merge of open inputs."""
    plan = make_plan(pair, rules)
    place = None if options.output is None else place_of(options, pair, plan)
    metadata, disputed = describe(pair, plan, rules, fishers)
    notes = (
        *(*notes_on_reading(pair), *disputed, *notes_on_order(pair)),
        *notes_on_preprocessing(pair, described_by(pair, plan)),
        *(() if place is None else place.notes),
        *notes_on_plan(pair, rules, plan),
    )
    return OpenMerge(options, pair, fishers, plan, place, metadata, notes)


def _with_rules_of(job: OpenMerge, options: MergeOptions) -> OpenMerge:
    """The same inputs with other options."""
    return _planned(options, job.pair, merge_rules(options), job.fishers)


def with_statistics(
    jobs: Sequence[OpenMerge], mixer: Mixer
) -> tuple[Sequence[OpenMerge], Sequence[Mapping[str, StorageArray]]]:
    """The jobs, and the batch-norm statistics of each if they are recalibrated, which its metadata and notes name."""
    options = jobs[0].options
    if options.recalibrate is None:
        return jobs, [{} for _ in jobs]
    from mergekit_wise.evaluation.recalibration import open_recalibration  # torch, which merging does without

    recalibration = open_recalibration(options, jobs[0].pair, jobs[0].plan)
    found = [recalibration.statistics(mixer, each.plan, options.progress) for each in jobs]
    described = [
        replace(
            each,
            metadata=recalibration.with_record(each.metadata, theirs),
            notes=(*each.notes, *recalibration.notes(theirs)),
        )
        for each, theirs in zip(jobs, found, strict=True)
    ]
    return described, [each.tensors for each in found]


def sink_of(job: OpenMerge, names: Sequence[str], put: Put, recalibrated: Mapping[str, StorageArray]) -> Sink:
    """Takes all tensors of an output but those that are recalibrated, which are mixed for their statistics alone."""
    by_name = {step.info.name: step for step in job.plan}

    def put_mixed(name: str, start: int, data: StorageArray) -> None:
        if name not in recalibrated:
            put(name, start, data)

    return Sink([by_name[name] for name in names], put_mixed if recalibrated else put)


def _report(
    job: OpenMerge,
    plan: OutputPlan,
    outcomes: tuple[Outcome, ...],
    notes: tuple[str, ...],
    seconds: float,
    found: Geometry | None,
) -> MergeReport:
    output, place = job.options.output, job.place
    assert output is not None
    assert place is not None
    return MergeReport(
        output if plan.index is None or place.folder is not None else output.with_name(plan.index.name),
        job.options.alpha,
        plan.size,
        outcomes,
        relative_distance(outcomes),
        (*job.notes, *notes, *notes_on_outcomes(job, outcomes)),
        seconds,
        found,
    )


def memory_budget(options: MergeOptions) -> int:
    """The bytes of ``--memory``. Raises UsageError if they are too few for any merge."""
    budget = parse_size(options.memory, "--memory")
    if budget < LEAST_MEMORY:
        raise UsageError(f"--memory {options.memory}: a merge needs at least 1MB. The default is 256MB.")
    return budget


def geometry_of(
    pair: Pair, rules: Rules, options: MergeOptions | SweepOptions
) -> tuple[Geometry | None, tuple[str, ...]]:
    """How the members of a soup lie around the zero-shot model, and notes on it; None if there is no soup.

    Reads samples of the weights. Raises MismatchError if members were not fine-tuned from the zero-shot model, unless
    the options allow it.
    """
    soup = pair.finetuned.soup
    names = [name for name in pair.names if rules.kept(name) is None]
    found = None if soup is None else geometry(pair.zeroshot, soup, names)
    if found is None:
        return None, ()
    if not options.allow_other_starts:
        require_one_start(found, pair.zeroshot)
    return found, tuple(notes_on_geometry(found, pair.zeroshot))


def notes_on_memory(options: MergeOptions, backend: Backend, plan: Sequence[TensorPlan]) -> Iterator[str]:
    """A note if the memory budget makes blocks so small that the merge takes minutes for want of memory."""
    elements = sum(step.info.count for step in plan)
    if elements / backend.block * SECONDS_A_BLOCK > 60 > elements / LARGE_BLOCK * SECONDS_A_BLOCK:
        yield f"--memory {options.memory} allows blocks of {backend.block:,} elements only, which takes minutes longer"


def require_finite(outcomes: tuple[Outcome, ...]) -> None:
    """Raise NonFiniteError if mixing produced infinities or NaN from finite numbers."""
    broken = [outcome for outcome in outcomes if outcome.statistics.broken]
    if broken:
        tensors, names = plural(len(broken), "tensor"), listed(f"{o.name} ({o.statistics.broken})" for o in broken)
        raise NonFiniteError(
            f"Mixing produced infinities or NaN from finite numbers in {tensors}: {names}. Choose an alpha "
            "nearer to [0, 1] or a wider --dtype, or pass --allow-non-finite to write the file anyway."
        )


def _is_of_different(pair: Pair, outcome: Outcome) -> bool:
    """Whether a tensor is made of several with different values: of both sides, or of the members of a soup."""
    if outcome.source not in ("mixed", "finetuned"):
        return False
    tensor = pair.finetuned.tensors[outcome.name]
    made_of = [*(tensor.parts if isinstance(tensor, Averaged) else (tensor,))]
    made_of += [pair.zeroshot.tensors[outcome.name]] if outcome.source == "mixed" else []
    first, *others = (numbers_of(each, 0, each.info.count) for each in made_of)
    return not all(np.array_equal(first, other, equal_nan=True) for other in others)


def notes_on_outcomes(job: OpenMerge, outcomes: tuple[Outcome, ...]) -> Iterator[str]:
    """What the user should know of the result."""
    pair = job.pair
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
    yield from notes_on_opposite(pair.finetuned, [each.name for each in outcomes if each.source != "zeroshot"])
    statistics = [outcome for outcome in outcomes if outcome.name.endswith("running_var")]
    if job.options.recalibrate is None and any(_is_of_different(pair, outcome) for outcome in statistics):
        yield BATCH_NORM
