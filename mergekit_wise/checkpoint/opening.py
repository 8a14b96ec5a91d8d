"""Opening any checkpoint file. Its content decides about the format, never its extension."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mergekit_wise.checkpoint.checkpoint import Checkpoint
from mergekit_wise.checkpoint.folder import other_weights, weights_in
from mergekit_wise.checkpoint.mapped import MappedFile
from mergekit_wise.checkpoint.safetensors import looks_like_safetensors, open_safetensors
from mergekit_wise.checkpoint.shards import looks_like_index, open_shards
from mergekit_wise.checkpoint.torch_pickle import looks_like_old_save, looks_like_pickle, open_old_save, open_pickle
from mergekit_wise.checkpoint.torch_zip import looks_like_zip, open_torch_zip
from mergekit_wise.errors import CheckpointError

Opener = Callable[[MappedFile, str | None], Checkpoint]
"""Opens a file, or the entry of it that is named."""

FORMATS: tuple[tuple[Callable[[MappedFile], bool], Opener], ...] = (
    (looks_like_zip, open_torch_zip),
    (looks_like_old_save, open_old_save),
    # Before pickles: a header of 640 bytes begins as they do. No pickle has a brace at the place of a header's.
    (looks_like_safetensors, open_safetensors),
    (looks_like_pickle, open_pickle),
)

WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DataParallel and torch.compile add to every name."""


def open_checkpoint(path: Path, *, mmap: bool = True, entry: str | None = None) -> Checkpoint:
    """Open a checkpoint file, an index of shards, or a folder that holds one of these; read headers only.

    Tensors are read from a memory map of the file or, without `mmap`, with ordinary I/O, which suits network file
    systems better. `entry` names a part of a file of torch's that holds several state dicts, as "state.model_ema".

    Raises CheckpointError if the file is missing, empty, truncated, damaged, of another format, or holds no tensors.
    """
    if not path.is_dir():
        return replace(_without_wrappers(_open(path, mmap, entry)), path=path)
    file = weights_in(path)
    checkpoint = _open(file, mmap, entry)
    if others := other_weights(path, file):
        note = f"using {file.name} from the folder; ignoring {', '.join(others)}"
        checkpoint = replace(checkpoint, notes=(note, *checkpoint.notes))
    return replace(_without_wrappers(checkpoint), path=path)


def _open(path: Path, mmap: bool, entry: str | None) -> Checkpoint:
    file = MappedFile(path, mmap=mmap)
    if looks_like_index(file) and not looks_like_safetensors(file):
        with file:
            return open_shards(file, lambda shard: _open_file(MappedFile(shard, mmap=mmap), entry))
    return _open_file(file, entry)


def _open_file(file: MappedFile, entry: str | None) -> Checkpoint:
    try:
        checkpoint = _recognised(file)(file, entry)
        if not checkpoint.tensors:
            raise CheckpointError(f"{file.path}: a {checkpoint.kind} file without tensors.")
    except CheckpointError:
        file.close()
        raise
    return checkpoint


def _recognised(file: MappedFile) -> Opener:
    for looks_like, opener in FORMATS:
        if looks_like(file):
            return opener
    start = file.bytes_at(0, 8).hex(" ")
    raise CheckpointError(
        f"{file.path}: neither a safetensors file nor one written by torch.save or pickle "
        f"(it starts with the bytes {start}). Give a state dict saved in one of these formats."
    )


def _without_wrappers(checkpoint: Checkpoint) -> Checkpoint:
    for wrapper in WRAPPERS:
        if all(name.startswith(wrapper) for name in checkpoint.tensors):
            names = {name: name.removeprefix(wrapper) for name in checkpoint.tensors}
            return _without_wrappers(checkpoint.renamed(names, f"removed prefix {wrapper!r} from all tensor names"))
    return checkpoint
