"""Opening any checkpoint file. Its content decides about the format, never its extension."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mergekit_wise.checkpoint.checkpoint import Checkpoint
from mergekit_wise.checkpoint.folder import SHARD, other_weights, shards_without_index, weights_folder_in, weights_in
from mergekit_wise.checkpoint.foreign import foreign_file
from mergekit_wise.checkpoint.mapped import MappedFile
from mergekit_wise.checkpoint.safetensors import looks_like_safetensors, open_safetensors
from mergekit_wise.checkpoint.shards import join_shards, looks_like_index, open_shards
from mergekit_wise.checkpoint.signatures import looks_like_old_save, looks_like_pickle, looks_like_zip
from mergekit_wise.checkpoint.wrappers import without_wrappers
from mergekit_wise.errors import CheckpointError
from mergekit_wise.wording import plural

Opener = Callable[[MappedFile, str | None], Checkpoint]
"""Opens a file, or the entry of it that is named."""


# The readers of pickles are imported for such files alone: importing them takes longer than to read a small one.


def _open_torch_zip(file: MappedFile, entry: str | None) -> Checkpoint:
    from mergekit_wise.checkpoint.torch_zip import open_torch_zip

    return open_torch_zip(file, entry)


def _open_old_save(file: MappedFile, entry: str | None) -> Checkpoint:
    from mergekit_wise.checkpoint.torch_pickle import open_old_save

    return open_old_save(file, entry)


def _open_pickle(file: MappedFile, entry: str | None) -> Checkpoint:
    from mergekit_wise.checkpoint.torch_pickle import open_pickle

    return open_pickle(file, entry)


FORMATS: tuple[tuple[Callable[[MappedFile], bool], Opener], ...] = (
    (looks_like_zip, _open_torch_zip),
    (looks_like_old_save, _open_old_save),
    # Before pickles: a header of 640 bytes begins as they do. No pickle has a brace at the place of a header's.
    (looks_like_safetensors, open_safetensors),
    (looks_like_pickle, _open_pickle),
)


def open_checkpoint(path: Path, *, mmap: bool = True, entry: str | None = None) -> Checkpoint:
    """Open a checkpoint file, an index of shards, or a folder that holds one of these; read headers only.

    Tensors are read from a memory map of the file or, without `mmap`, with ordinary I/O, which suits network file
    systems better. `entry` names a part of a file of torch's that holds several state dicts, as "state.model_ema".

    Raises CheckpointError if the file is missing, empty, truncated, damaged, of another format, or holds no tensors.
    """
    if not path.is_dir():
        return replace(_with_note(without_wrappers(_open(path, mmap, entry)), _note_on_shard(path)), path=path)
    folder = weights_folder_in(path)
    file = weights_in(folder)
    shards = shards_without_index(file)
    checkpoint = _open_without_index(folder, shards, mmap, entry) if shards else _open(file, mmap, entry)
    if others := other_weights(folder, file):
        checkpoint = _with_note(checkpoint, f"using {file.name} from the folder; ignoring {', '.join(others)}")
    if folder != path:
        checkpoint = _with_note(checkpoint, f"using the subfolder {folder.name}, which modules.json names")
    return replace(without_wrappers(checkpoint), path=path)


def _open(path: Path, mmap: bool, entry: str | None) -> Checkpoint:
    file = MappedFile(path, mmap=mmap)
    if looks_like_index(file) and not looks_like_safetensors(file):
        with file:
            return open_shards(file, lambda shard: _open_file(MappedFile(shard, mmap=mmap), entry))
    return _open_file(file, entry)


def _open_without_index(folder: Path, shards: list[Path], mmap: bool, entry: str | None) -> Checkpoint:
    names = [shard.name for shard in shards]
    checkpoint = join_shards(folder, names, lambda shard: _open_file(MappedFile(shard, mmap=mmap), entry))
    return _with_note(checkpoint, f"the folder has no index; read {plural(len(names), 'shard')}")


def _open_file(file: MappedFile, entry: str | None) -> Checkpoint:
    try:
        checkpoint = _recognised(file)(file, entry)
        if not checkpoint.tensors:
            raise CheckpointError(f"{file.path}: a {checkpoint.kind} file without tensors.")
    except CheckpointError as error:
        other = foreign_file(file)
        file.close()
        if other is None:
            raise
        raise CheckpointError(f"{file.path}: {other}") from error
    if file.refusal is None:
        return checkpoint
    return _with_note(checkpoint, f"could not be mapped into memory ({file.refusal}); read with ordinary I/O")


def _recognised(file: MappedFile) -> Opener:
    for looks_like, opener in FORMATS:
        if looks_like(file):
            return opener
    start = file.bytes_at(0, 8).hex(" ")
    raise CheckpointError(
        f"{file.path}: neither a safetensors file nor one written by torch.save or pickle "
        f"(it starts with the bytes {start}). Give a state dict saved in one of these formats."
    )


def _with_note(checkpoint: Checkpoint, note: str | None) -> Checkpoint:
    return checkpoint if note is None else replace(checkpoint, notes=(note, *checkpoint.notes))


def _note_on_shard(path: Path) -> str | None:
    """A note for a file that is, by its name, one of several."""
    match = SHARD.fullmatch(path.name)
    if match is None or int(match[3]) < 2:
        return None
    return f"shard {int(match[2])} of {int(match[3])} alone; give the folder or the index for the whole checkpoint"
