"""A checkpoint in several files, and the JSON index that says which tensor is in which."""

import hashlib
import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from mergekit_wise.checkpoint.checkpoint import Checkpoint
from mergekit_wise.checkpoint.checks import shown
from mergekit_wise.checkpoint.layout import without_duplicates
from mergekit_wise.checkpoint.mapped import MappedFile
from mergekit_wise.checkpoint.tensors import StoredTensor
from mergekit_wise.errors import CheckpointError

MAX_INDEX = 100_000_000


def looks_like_index(file: MappedFile) -> bool:
    """Whether the file starts like the JSON object that an index is."""
    return file.bytes_at(0, 64).lstrip()[:1] == b"{"


def open_shards(file: MappedFile, open_file: Callable[[Path], Checkpoint]) -> Checkpoint:
    """Open every shard that the index names. Raises CheckpointError if one is missing or lacks a tensor."""
    weight_map = _weight_map(file)
    folder = file.path.parent
    with ExitStack() as stack:
        shards: dict[str, Checkpoint] = {}
        for shard in sorted(set(weight_map.values())):
            shards[shard] = open_file(folder / shard)
            stack.callback(shards[shard].close)
        tensors: dict[str, StoredTensor] = {}
        for name, shard in weight_map.items():
            if name not in shards[shard].tensors:
                raise CheckpointError(
                    f"{file.path}: says that {shown(name)} is in {shard}, where it is not. Download both again."
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


def _weight_map(file: MappedFile) -> dict[str, str]:
    """Tensor name -> file name, each a plain name in the index's own folder."""
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
            raise CheckpointError(f"{file.path}: a JSON file without a weight_map, so no index of shards.")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or shard in ("", ".", "..") or Path(shard).name != shard or "\\" in shard:
            raise CheckpointError(
                f"{file.path}: places {shown(name)!r} in {shown(str(shard))!r}, which is no file beside it. "
                "Use an index that you trust."
            )
    return weight_map
