"""Where a merge writes: a file, or a folder that holds what its model needs besides the weights. Writes nothing."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mergekit_wise.checkpoint import Checkpoint, OutputPlan, plan_output, refuse_overwriting
from mergekit_wise.checkpoint.folder import OPEN_CLIP, WEIGHT_KINDS, weights_folder_in, weights_in
from mergekit_wise.checkpoint.formats import SAFETENSORS, ending_of, planner_of
from mergekit_wise.checkpoint.side_files import side_files
from mergekit_wise.checkpoint.writing import writing_folder
from mergekit_wise.errors import OutputError
from mergekit_wise.merging import Pair, TensorPlan, described_by
from mergekit_wise.options import MergeOptions
from mergekit_wise.wording import listed, parse_size


@dataclass(frozen=True, slots=True)
class Place:
    """The path of the weights, the folder to make for them (None for a file alone), and the files to copy into it."""

    weights: Path
    folder: Path | None
    copies: Mapping[str, Path]
    notes: tuple[str, ...]


def place_of(options: MergeOptions, pair: Pair, steps: tuple[TensorPlan, ...]) -> Place:
    """Decide where the output goes. Beside a source that is a folder, a name without an ending is a folder.

    Raises OutputError if the name asks for a format that is not written.
    """
    output = options.output
    assert output is not None
    sides = (pair.finetuned, pair.zeroshot)
    if described_by(pair, steps) == "zeroshot":
        sides = (pair.zeroshot, pair.finetuned)
    folders = [side for side in sides if _source_of(side).is_dir() and not side.is_translated]
    if not folders:
        planner_of(output)
        return Place(output, None, {}, ())
    source = _source_of(folders[0])
    inner = weights_folder_in(source).relative_to(source)
    beside = side_files(source)
    copies = {name: path for name, path in beside.copies.items() if not _are_weights(name, inner)}
    if ending_of(output) and not output.is_dir():
        try:
            planner_of(output)
        except OutputError as error:
            raise OutputError(f"{error} A name without an ending is a folder, as {source.name} is.") from None
        names = listed(copies)
        left = f"a single file, without {names} of {source.name}; a name without an ending is a folder that holds them"
        return Place(output, None, {}, (f"{output.name} is {left}",) if names else ())
    notes = [*beside.notes]
    if folders[0] is not sides[0]:
        notes.append(
            f"the configuration in {output.name} is that of {source.name}, but the tensors are those of "
            f"{sides[0].path.name}, which is a file"
        )
    return Place(output / inner / _weights_name(source / inner, options), output, copies, tuple(notes))


@contextmanager
def placed(
    place: Place, options: MergeOptions, steps: tuple[TensorPlan, ...], metadata: Mapping[str, str]
) -> Iterator[OutputPlan]:
    """The plan of the files, within a folder that becomes the output at the end of the block, if it is one."""
    if place.folder is None:
        yield files_of(place.weights, options, steps, metadata)
        return
    with writing_folder(place.folder, place.copies) as folder:
        weights = folder / place.weights.relative_to(place.folder)
        weights.parent.mkdir(exist_ok=True)
        yield files_of(weights, options, steps, metadata)


def files_of(
    weights: Path, options: MergeOptions, steps: tuple[TensorPlan, ...], metadata: Mapping[str, str]
) -> OutputPlan:
    """Which files hold the weights."""
    shard_size = parse_size(options.shard_size, "--shard-size") if options.shard_size else None
    return plan_output(weights, (step.info for step in steps), metadata, shard_size)


def require_apart(plan: OutputPlan, sources: tuple[Checkpoint, ...]) -> None:
    """Raise OutputError if a file of the plan is one of the files that are read, or an index of them."""
    inputs = [file.path for source in sources for file in source.files]
    for source in sources:
        inputs.append(weights_in(weights_folder_in(source.path)) if source.path.is_dir() else source.path)
    for path in filter(None, (*plan.files, plan.index)):
        refuse_overwriting(path, tuple(inputs))


def _source_of(side: Checkpoint) -> Path:
    """Where the files that describe a side are; those of an adapted model are its base's."""
    return (side.base or side).path


def _are_weights(name: str, inner: Path) -> bool:
    return name.endswith(WEIGHT_KINDS) and Path(name).parent == inner


def _weights_name(folder: Path, options: MergeOptions) -> str:
    """The name of the weights that the folder's own library looks for, in the safetensors format."""
    stem = weights_in(folder).name.removesuffix(".index.json").rpartition(".")[0]
    if stem in ("pytorch_model", f"{OPEN_CLIP}pytorch_model"):
        stem = stem.replace("pytorch_model", "model")
    if stem == f"{OPEN_CLIP}model" and options.shard_size:  # open_clip reads no shards
        stem = "model"
    return f"{stem}{SAFETENSORS}"
