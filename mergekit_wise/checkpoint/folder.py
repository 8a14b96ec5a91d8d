"""A folder as Hugging Face lays it out: weights under a known name, and files that go with them."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mergekit_wise.checkpoint.litter import owning, partial_name, remove_litter
from mergekit_wise.checkpoint.writer import require_folder
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

OPEN_CLIP = "open_clip_"
OPEN_CLIP_JSON = f"{OPEN_CLIP}config.json"
"""What describes the weights whose names begin like it; the others may be transformers', or timm's image tower."""

WEIGHT_KINDS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf", ".index.json")


def weights_in(folder: Path) -> Path:
    """The file that holds the weights, or the index of its shards. Raises CheckpointError.

    Of several, it is the one that a configuration beside them describes, open_clip's if it is there.
    """
    usual = _usual(folder)
    described = [name for name in usual if name.startswith(OPEN_CLIP)] if (folder / OPEN_CLIP_JSON).is_file() else []
    if usual:
        return folder / (described or usual)[0]
    found = sorted(path for path in folder.iterdir() if path.name.endswith(".safetensors") and path.is_file())
    if len(found) == 1:
        return found[0]
    raise CheckpointError(
        f"{folder}: a folder without weights under a name that is known ({', '.join(WEIGHTS)}). "
        "Name the checkpoint file in it."
    )


def passed_over(folder: Path, taken: Path) -> list[str]:
    """Names of the weights in a folder that are not those that were `taken`."""
    return [name for name in _usual(folder) if name != taken.name]


def _usual(folder: Path) -> list[str]:
    return [name for name in WEIGHTS if (folder / name).is_file()]


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
    target = Path(os.path.realpath(output))  # resolve() has no answer for a link in a circle
    partial = partial_name(target)
    try:
        _check(output, target)
        remove_litter(target)
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


def _check(output: Path, target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(f"{output}: exists already, and a folder is only written where none is. Give another name.")
    require_folder(output)
