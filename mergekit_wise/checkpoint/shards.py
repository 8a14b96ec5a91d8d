"""Checkpoints in several files (shards) and the JSON index that says which tensor is in which, read and written."""

import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.checkpoint.bounded_json import parse_json
from mergekit_wise.checkpoint.checkpoint import Checkpoint
from mergekit_wise.checkpoint.folder import require_shards
from mergekit_wise.checkpoint.foreign import foreign_file
from mergekit_wise.checkpoint.formats import SAFETENSORS, FileLayout, ending_of, planner_of
from mergekit_wise.checkpoint.mapped import MappedFile
from mergekit_wise.checkpoint.safetensors import without_duplicates
from mergekit_wise.checkpoint.tensors import Tensor, TensorInfo
from mergekit_wise.checkpoint.writing import Writer, partials_of, uninterrupted, writing
from mergekit_wise.errors import CheckpointError
from mergekit_wise.wording import listed, plural, shown

MAX_INDEX = 100_000_000
"""Bytes of an index."""

INDEX = ".index.json"
"""The ending of an index, after the name of the file that it stands for."""

EMPTY: Mapping[str, str] = MappingProxyType({})


def looks_like_index(file: MappedFile) -> bool:
    """Whether the file starts like a JSON object."""
    return file.bytes_at(0, 64).lstrip()[:1] == b"{"


def open_shards(file: MappedFile, open_file: Callable[[Path], Checkpoint]) -> Checkpoint:
    """Open every shard that the index names.

    Tensors that the index does not list, but that a shard holds, are read as well, and a note names them.

    Raises CheckpointError if shards are missing or lack a tensor, or if two shards hold a tensor that is not listed.
    """
    weight_map = _read_weight_map(file)
    names = sorted(set(weight_map.values()))
    require_shards(file.path.parent, names)
    return replace(join_shards(file.path.parent, names, open_file, weight_map), path=file.path)


def join_shards(
    folder: Path, names: Sequence[str], open_file: Callable[[Path], Checkpoint], listed_in: Mapping[str, str] = EMPTY
) -> Checkpoint:
    """The files of these `names` as one checkpoint. `listed_in` says in which file an index places each tensor.

    Raises CheckpointError if a tensor is not where it should be, or if it is in two files and no index decides.
    """
    with ExitStack() as stack:
        shards: dict[str, Checkpoint] = {}
        for name in names:
            shards[name] = open_file(folder / name)
            stack.callback(shards[name].close)
        tensors = {name: _placed(folder, name, shard, shards[shard]) for name, shard in listed_in.items()}
        unlisted: dict[str, str] = {}
        for shard, checkpoint in shards.items():
            for name in checkpoint.tensors.keys() - listed_in.keys():
                if name in unlisted:
                    raise CheckpointError(
                        f"{folder}: tensor {shown(name)} is in {shown(unlisted[name])} and in {shown(shard)}. "
                        "Remove the file that is not part of the checkpoint."
                    )
                unlisted[name] = shard
        tensors |= {
            name: tensor
            for checkpoint in shards.values()
            for name, tensor in checkpoint.tensors.items()
            if name in unlisted
        }
        stack.pop_all()
    notes = list(dict.fromkeys(note for shard in shards.values() for note in shard.notes))
    if listed_in and unlisted:
        found = listed(sorted(map(shown, unlisted)), 3)
        notes.append(f"the shards hold {plural(len(unlisted), 'tensor')} that the index does not list: {found}")
    digest = hashlib.sha256("\n".join(f"{name} {shard.digest}" for name, shard in shards.items()).encode())
    return Checkpoint(
        folder,
        f"{next(iter(shards.values())).kind}, {plural(len(shards), 'shard')}",
        tensors,
        {key: value for shard in shards.values() for key, value in shard.metadata.items()},
        digest.hexdigest(),
        tuple(notes),
    )


def _placed(folder: Path, name: str, file: str, shard: Checkpoint) -> Tensor:
    if name not in shard.tensors:
        raise CheckpointError(
            f"{folder}: tensor {shown(name)} should be in {shown(file)}, which does not hold it. "
            "Download the index and the file again."
        )
    return shard.tensors[name]


def _read_weight_map(file: MappedFile) -> dict[str, str]:
    """Tensor name -> file name, which is a plain name in the index's own folder."""
    try:
        if file.size > MAX_INDEX:
            raise ValueError("it is too long to be an index")
        index = parse_json(file.bytes_at(0, file.size), without_duplicates)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file.path}: not a readable index of shards: {error}.") from error
    match index:
        case {"weight_map": dict(weight_map)} if weight_map:
            pass
        case _:
            known = None if "weight_map" in index else foreign_file(file)
            known = known or "a JSON file without a readable weight_map, so it is not an index of shards."
            raise CheckpointError(f"{file.path}: {known}")
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

    files: Mapping[Path, FileLayout]
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
    """Decide on files and layouts; `shard_size` is in bytes of tensors. A tensor is never split.

    Raises OutputError if the name of `output` asks for a format that is not written.
    """
    plan_file = planner_of(output)
    infos = tuple(infos)
    if shard_size is None:
        return OutputPlan({output: plan_file(infos, metadata)}, None)
    groups = _groups(sorted(infos, key=lambda info: info.name), shard_size)
    if len(groups) == 1:
        return OutputPlan({output: plan_file(infos, metadata)}, None)
    stem, ending = output.name.removesuffix(ending_of(output)), ending_of(output) or SAFETENSORS
    names = [f"{stem}-{n:05}-of-{len(groups):05}{ending}" for n in range(1, len(groups) + 1)]
    files = {output.with_name(n): plan_file(group, metadata) for n, group in zip(names, groups, strict=True)}
    return OutputPlan(files, output.with_name(f"{stem}{ending}.index.json"))


class Output:
    """Takes the bytes of tensors; may be called from several threads at once.

    Bytes may be replaced by as many at the same place.
    """

    def __init__(self, places: Mapping[str, tuple[Writer, int, bool]]) -> None:
        """`places` holds for each tensor its file, its first byte in it, and whether it needs a checksum."""
        self._places = places
        self._parts: dict[str, dict[int, tuple[int, int, int]]] = {
            name: {} for name, (_, _, has_checksum) in places.items() if has_checksum
        }

    def put(self, name: str, start: int, data: NDArray[np.generic]) -> None:
        """Write `data` from byte `start` of the tensor on."""
        write, offset, has_checksum = self._places[name]
        write(offset + start, data)
        if has_checksum:
            self._parts[name][start] = (start, zlib.crc32(data.reshape(-1).view("u1").data), data.nbytes)

    def checksums(self) -> dict[str, int]:
        """The CRC-32 of every tensor that needs one."""
        if not self._parts:
            return {}
        from mergekit_wise.checkpoint.torch_writing import checksum_of  # what safetensors files do without

        return {name: checksum_of(parts.values()) for name, parts in self._parts.items()}


@contextmanager
def writing_output(plan: OutputPlan) -> Iterator[Output]:
    """Write the files of `plan`; each appears whole or not at all. Raises OutputError.

    Shards never replace earlier ones: next to those they get other names, and become the checkpoint at the moment in
    which their index replaces the earlier index. Then the earlier shards are removed. A file replaces earlier shards of
    its name and their index, and shards an earlier file: readers would take one or the other.
    """
    with ExitStack() as stack:
        files, earlier = dict(plan.files), _earlier_form(plan)
        if plan.index is not None:
            # Files appear in the reverse of the order in which they are opened here: the index must come last.
            write = stack.enter_context(writing(plan.index, 0))
            earlier |= _earlier_shards(plan.index, next(iter(plan.files)).name.rsplit("-", 3)[0])
            files = _free_names(plan)
            write(0, _index(files))
        places: dict[str, tuple[Writer, int, bool]] = {}
        writers = []
        for path, layout in files.items():
            write = stack.enter_context(writing(path, layout.size))
            writers.append((layout, write))
            places |= {name: (write, offset, layout.has_checksums) for name, offset in layout.offsets.items()}
        output = Output(places)
        yield output
        checksums = output.checksums()
        for layout, write in writers:
            for offset, data in layout.frame(checksums):
                write(offset, data)
        with uninterrupted():  # between two shards, a signal would leave the first without an index
            stack.close()
    # An index first: without it nobody takes its shards for a checkpoint.
    for path in sorted(earlier - files.keys(), key=lambda path: not path.name.endswith(INDEX)):
        path.unlink(missing_ok=True)


def write_checkpoint(
    output: Path, tensors: Mapping[str, tuple[TensorInfo, NDArray[np.generic]]], metadata: Mapping[str, str]
) -> None:
    """Write tensors that are in memory, as arrays of their dtypes' storage dtypes, in the format of the output's name.

    Raises OutputError.
    """
    with writing_output(plan_output(output, (info for info, _ in tensors.values()), metadata)) as out:
        for name, (_, data) in tensors.items():
            out.put(name, 0, np.ascontiguousarray(data))


def _free_names(plan: OutputPlan) -> dict[Path, FileLayout]:
    """The shards under names that no file has and no other run is about to use."""
    assert plan.index is not None
    others = len(partials_of(Path(os.path.realpath(plan.index)))) > 1  # one is this run's own
    if not others and not any(os.path.lexists(path) for path in (plan.index, *plan.files)):
        return dict(plan.files)
    mark = os.urandom(4).hex()
    return {path.with_name(_marked(path.name, mark)): layout for path, layout in plan.files.items()}


def _marked(name: str, mark: str) -> str:
    stem, number, of, total = name.rsplit("-", 3)
    return f"{stem}-{mark}-{number}-{of}-{total}"


def _earlier_form(plan: OutputPlan) -> frozenset[Path]:
    """What an earlier output of the same name left in the other form: a file, or an index with its shards."""
    if plan.index is not None:
        file = plan.index.with_name(plan.index.name.removesuffix(INDEX))
        return frozenset([file] if file.is_file() else ())
    (file,) = plan.files
    index = file.with_name(f"{file.name}{INDEX}")
    shards = _earlier_shards(index, file.stem) if index.is_file() else frozenset()
    return frozenset([index, *shards]) if shards else frozenset()


def _earlier_shards(index: Path, stem: str) -> frozenset[Path]:
    """The files of an earlier index under the names that shards of this output have."""
    ending = Path(index.name.removesuffix(INDEX)).suffix
    pattern = rf"{re.escape(stem)}(-[0-9a-f]{{8}})?-\d{{5}}-of-\d{{5}}{re.escape(ending)}"
    try:
        with MappedFile(index) as file:
            shards = set(_read_weight_map(file).values())
    except CheckpointError:
        return frozenset()
    return frozenset(index.with_name(shard) for shard in shards if re.fullmatch(pattern, shard))


def _groups(infos: list[TensorInfo], shard_size: int) -> list[list[TensorInfo]]:
    groups: list[list[TensorInfo]] = [[]]
    filled = 0
    for info in infos:
        if groups[-1] and filled + info.nbytes > shard_size:
            groups.append([])
            filled = 0
        groups[-1].append(info)
        filled += info.nbytes
    return groups


def _index(files: Mapping[Path, FileLayout]) -> bytes:
    """The index in the form that transformers writes and reads."""
    weight_map = {info.name: path.name for path, layout in files.items() for info in layout.infos}
    total = sum(info.nbytes for layout in files.values() for info in layout.infos)
    return json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2).encode()
