"""Checkpoints in several files (shards) and the JSON index that says which tensor is in which, read and written."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint.checkpoint import Checkpoint
from mergekit_wise.checkpoint.mapped import MappedFile
from mergekit_wise.checkpoint.safetensors import Layout, plan_layout, without_duplicates
from mergekit_wise.checkpoint.tensors import Tensor, TensorInfo
from mergekit_wise.checkpoint.writing import Writer, writing
from mergekit_wise.errors import CheckpointError
from mergekit_wise.wording import shown

MAX_INDEX = 100_000_000
"""Bytes of an index."""


def looks_like_index(file: MappedFile) -> bool:
    """Whether the file starts like a JSON object."""
    return file.bytes_at(0, 64).lstrip()[:1] == b"{"


def open_shards(file: MappedFile, open_file: Callable[[Path], Checkpoint]) -> Checkpoint:
    """Open every shard that the index names. Raises CheckpointError if one is missing or lacks a tensor."""
    weight_map = _read_weight_map(file)
    folder = file.path.parent
    with ExitStack() as stack:
        shards: dict[str, Checkpoint] = {}
        for shard in sorted(set(weight_map.values())):
            shards[shard] = open_file(folder / shard)
            stack.callback(shards[shard].close)
        tensors: dict[str, Tensor] = {}
        for name, shard in weight_map.items():
            if name not in shards[shard].tensors:
                raise CheckpointError(
                    f"{file.path}: tensor {shown(name)} should be in {shard}, which does not hold it. "
                    "Download both files again."
                )
            tensors[name] = shards[shard].tensors[name]
        stack.pop_all()
    digest = hashlib.sha256("\n".join(f"{name} {shard.digest}" for name, shard in shards.items()).encode())
    first = next(iter(shards.values()))
    return Checkpoint(
        file.path,
        f"{first.kind}, {len(shards)} shards",
        tensors,
        {key: value for shard in shards.values() for key, value in shard.metadata.items()},
        digest.hexdigest(),
        tuple(dict.fromkeys(note for shard in shards.values() for note in shard.notes)),
    )


def _read_weight_map(file: MappedFile) -> dict[str, str]:
    """Tensor name -> file name, which is a plain name in the index's own folder."""
    try:
        if file.size > MAX_INDEX:
            raise ValueError("it is too long to be an index")
        index = json.loads(file.bytes_at(0, file.size), object_pairs_hook=without_duplicates)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file.path}: not a readable index of shards: {error}.") from error
    match index:
        case {"weight_map": dict(weight_map)} if weight_map:
            pass
        case _:
            raise CheckpointError(f"{file.path}: a JSON file without a weight_map, so it is not an index of shards.")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or shard in ("", ".", "..") or Path(shard).name != shard or "\\" in shard:
            raise CheckpointError(
                f"{file.path}: places {shown(name)!r} in {shown(str(shard))!r}, which is not a file next to the index. "
                "Use an index that you trust."
            )
    return weight_map


@dataclass(frozen=True, slots=True)
class OutputPlan:
    """The files to be written, each with its layout; `index` lists them if there are several, else it is None."""

    files: Mapping[Path, Layout]
    index: Path | None

    @property
    def size(self) -> int:
        """Bytes of all files without the index."""
        return sum(layout.size for layout in self.files.values())

    @property
    def infos(self) -> tuple[TensorInfo, ...]:
        """All tensors in the order in which they lie on disk."""
        return tuple(info for layout in self.files.values() for info in layout.infos)


def plan_output(
    output: Path, infos: Iterable[TensorInfo], metadata: Mapping[str, str], shard_size: int | None = None
) -> OutputPlan:
    """Decide on files and layouts; `shard_size` is in bytes of tensors. A tensor is never split."""
    groups = _groups(sorted(infos, key=lambda info: info.name), shard_size)
    if len(groups) == 1:
        return OutputPlan({output: plan_layout(groups[0], metadata)}, None)
    stem = output.name.removesuffix(".safetensors")
    names = [f"{stem}-{n:05}-of-{len(groups):05}.safetensors" for n in range(1, len(groups) + 1)]
    files = {output.with_name(n): plan_layout(group, metadata) for n, group in zip(names, groups, strict=True)}
    return OutputPlan(files, output.with_name(f"{stem}.safetensors.index.json"))


class Output:
    """Takes the bytes of tensors; may be called from several threads at once."""

    def __init__(self, places: Mapping[str, tuple[Writer, int]]) -> None:
        self._places = places

    def put(self, name: str, start: int, data: NDArray[np.generic]) -> None:
        """Write `data` from byte `start` of the tensor on."""
        write, offset = self._places[name]
        write(offset + start, data)


@contextmanager
def writing_output(plan: OutputPlan) -> Iterator[Output]:
    """Write the files of `plan`; each appears whole or not at all, the index last. Raises OutputError."""
    with ExitStack() as stack:
        # Files appear in the reverse of the order in which they are opened here: the index must come last.
        if plan.index is not None:
            text = _index(plan)
            stack.enter_context(writing(plan.index, len(text)))(0, text)
        places: dict[str, tuple[Writer, int]] = {}
        for path, layout in plan.files.items():
            write = stack.enter_context(writing(path, layout.size))
            write(0, layout.header)
            places |= {name: (write, offset) for name, offset in layout.offsets.items()}
        yield Output(places)


def _groups(infos: list[TensorInfo], shard_size: int | None) -> list[list[TensorInfo]]:
    groups: list[list[TensorInfo]] = [[]]
    filled = 0
    for info in infos:
        if groups[-1] and shard_size is not None and filled + info.nbytes > shard_size:
            groups.append([])
            filled = 0
        groups[-1].append(info)
        filled += info.nbytes
    return groups


def _index(plan: OutputPlan) -> bytes:
    """The index in the form that transformers writes and reads."""
    weight_map = {info.name: path.name for path, layout in plan.files.items() for info in layout.infos}
    total = sum(info.nbytes for info in plan.infos)
    return json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2).encode()
