"""What every merge is made of: open inputs, a plan, a place for the output, and what is said of the outcome."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mergekit_wise.checkpoint import Checkpoint, OutputPlan, closing, plan_output, refuse_overwriting
from mergekit_wise.checkpoint.folder import OPEN_CLIP, side_files, weights_in, writing_folder
from mergekit_wise.errors import NonFiniteError
from mergekit_wise.merging import Fishers, Outcome, Pair, Rules, Step, describe, make_plan, match, open_fishers
from mergekit_wise.merging.rules import parse_alpha_for, parse_depth, parse_dtype, parse_keep
from mergekit_wise.models.pair_notes import SAME, notes_on_order, notes_on_reading
from mergekit_wise.models.source import open_source
from mergekit_wise.options import MergeOptions, parse_bytes


@dataclass(frozen=True, slots=True)
class Job:
    """A merge whose inputs are open and whose plan is made."""

    pair: Pair
    fishers: Fishers | None
    steps: tuple[Step, ...]
    metadata: dict[str, str]
    notes: tuple[str, ...]


def merge_rules(options: MergeOptions) -> Rules:
    """Which tensor gets what. Raises UsageError."""
    return Rules(
        alpha=options.alpha,
        alpha_for=tuple(map(parse_alpha_for, options.alpha_for)),
        depth=parse_depth(options.depth_alpha) if options.depth_alpha else None,
        keep=tuple(map(parse_keep, options.keep)),
        only=options.only,
        dtype=parse_dtype(options.dtype) if options.dtype else None,
        extrapolate=options.extrapolate,
    )


@contextmanager
def opened_job(request: MergeOptions) -> Iterator[Job]:
    """Open the inputs of a request, check that they fit, and plan."""
    rules = merge_rules(request)
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
        notes = list(notes_on_reading(pair))
        notes += [f"the two files' metadata disagree on {key!r}; kept the fine-tuned one's" for key in disputed]
        yield Job(pair, fishers, make_plan(pair, rules), metadata, (*notes, *notes_on_order(pair)))


def replanned(job: Job, request: MergeOptions) -> Job:
    """The same inputs under the rules of another request."""
    rules = merge_rules(request)
    refuse_overwriting(request.output, _paths(job.pair))
    return replace(job, steps=make_plan(job.pair, rules), metadata=describe(job.pair, rules, job.fishers)[0])


def _paths(pair: Pair) -> tuple[Path, ...]:
    return tuple(file.path for side in (pair.zeroshot, pair.finetuned) for file in side.files)


def output_plan(request: MergeOptions, job: Job) -> OutputPlan:
    """Which files the merge writes."""
    shard_size = parse_bytes(request.shard_size, "--shard-size") if request.shard_size else None
    return plan_output(request.output, (step.info for step in job.steps), job.metadata, shard_size)


@contextmanager
def placed(request: MergeOptions, job: Job) -> Iterator[OutputPlan]:
    """Where the output goes: a file; or, where a source is a folder, a folder with that one's side files."""
    folders = [side.path for side in (job.pair.finetuned, job.pair.zeroshot) if side.path.is_dir()]
    if not folders:
        yield output_plan(request, job)
        return
    with writing_folder(request.output, side_files(folders[0])) as folder:
        # open_clip reads no shards.
        open_clips = weights_in(folders[0]).name.startswith(OPEN_CLIP) and not request.shard_size
        kind = OPEN_CLIP if open_clips else ""
        yield output_plan(replace(request, output=folder / f"{kind}model.safetensors"), job)


def require_finite(outcomes: tuple[Outcome, ...]) -> None:
    """Raise NonFiniteError if mixing made infinities or NaN of finite numbers."""
    broken = [outcome for outcome in outcomes if outcome.tally.broken]
    if broken:
        names = ", ".join(f"{o.name} ({o.tally.broken})" for o in broken[:8])
        raise NonFiniteError(
            f"Mixing made infinities or NaN of finite numbers in {len(broken)} tensors: {names}. Choose an alpha "
            "nearer to [0, 1] or a wider --dtype; --allow-non-finite writes the file all the same."
        )


def remarks(outcomes: tuple[Outcome, ...], *, recalibrated: bool = False) -> Iterator[str]:
    """What the user should know of the result."""
    if all(outcome.source == "equal" for outcome in outcomes):
        yield SAME
    spoiled = [outcome for outcome in outcomes if outcome.tally.inherited]
    if spoiled:
        names = ", ".join(f"{o.name} ({o.tally.inherited})" for o in spoiled[:8])
        yield f"infinities or NaN of the inputs went into {len(spoiled)} tensors: {names}"
    mixed = any(outcome.source == "mixed" and outcome.name.endswith("running_var") for outcome in outcomes)
    if mixed and not recalibrated:
        yield (
            "batch-norm statistics were mixed like weights, which is not what the mixture's own would be; "
            "--recalibrate DATA estimates them again on images, best on those of the training"
        )
