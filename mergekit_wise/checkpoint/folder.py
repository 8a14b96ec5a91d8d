"""A folder as Hugging Face lays it out: weights under a known name, and files that go with them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mergekit_wise.checkpoint.litter import owning, partial_name, remove_litter
from mergekit_wise.errors import CheckpointError, OutputError

WEIGHTS = (
    "model.safetensors.index.json",
    "model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)
"""Where the weights are, the preferred place first."""

WEIGHT_KINDS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf", ".index.json")


def weights_in(folder: Path) -> Path:
    """The file that holds the weights, or the index of its shards. Raises CheckpointError."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    found = sorted(path for path in folder.iterdir() if path.name.endswith(".safetensors") and path.is_file())
    if len(found) == 1:
        return found[0]
    raise CheckpointError(
        f"{folder}: a folder without weights under a name that is known ({', '.join(WEIGHTS)}). "
        "Name the checkpoint file in it."
    )


def side_files(folder: Path) -> list[Path]:
    """What goes with the weights: configuration, tokenizer, preprocessor; nothing hidden and no other weights."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith(".") and not path.name.endswith(WEIGHT_KINDS)
    )


@contextmanager
def writing_folder(output: Path, sources: list[Path]) -> Iterator[Path]:
    """A folder to fill, with copies of `sources` in it, that becomes `output` when the block ends without an error.

    Raises OutputError if `output` exists and is not empty, or cannot be made.
    """
    target = output.resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(f"{output}: exists already, and a folder is only written where none is. Give another name.")
    if not target.parent.is_dir():
        raise OutputError(f"{output}: the folder {target.parent} does not exist. Create it first.")
    remove_litter(target)
    partial = partial_name(target)
    try:
        partial.mkdir()
        with owning(partial):
            for source in sources:
                shutil.copyfile(source, partial / source.name)
            yield partial
            partial.replace(target)
    except OSError as error:
        raise OutputError(f"{output}: writing failed: {error.strerror}. Nothing was left behind.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
