"""Opening a safetensors file. Distrusts every number in it."""

import hashlib

from mergekit_wise.checkpoint.checkpoint import Checkpoint
from mergekit_wise.checkpoint.layout import MAX_HEADER, parse_header
from mergekit_wise.checkpoint.mapped import MappedFile
from mergekit_wise.checkpoint.tensors import StoredTensor
from mergekit_wise.errors import CheckpointError


def looks_like_safetensors(file: MappedFile) -> bool:
    """Whether the file starts with a length and the JSON object that has to follow."""
    return file.size >= 9 and file.bytes_at(8, 9) == b"{"


def open_safetensors(file: MappedFile) -> Checkpoint:
    """Read the header. Raises CheckpointError if anything in it does not hold, a truncated file included."""
    length = int.from_bytes(file.bytes_at(0, 8), "little")
    body = 8 + length
    if length > MAX_HEADER:
        raise CheckpointError(
            f"{file.path}: looks like safetensors, but its header would be {length:,} bytes long "
            f"(at most {MAX_HEADER:,} are allowed). The file is damaged or of another kind."
        )
    if body > file.size:
        raise CheckpointError(
            f"{file.path}: truncated: the header needs {body:,} bytes, the file has {file.size:,}. "
            "Copy or download it again."
        )
    text = file.bytes_at(8, body)
    try:
        placed, metadata = parse_header(text, file.size - body)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file.path}: damaged safetensors file: {error}. Copy or download it again.") from error
    tensors = {info.name: StoredTensor(info, file, body + begin) for info, begin in placed}
    return Checkpoint(file.path, "safetensors", tensors, metadata, hashlib.sha256(text).hexdigest())
