"""Folders as on the Hugging Face Hub: weights under a usual name, and the files that go with them."""

from pathlib import Path

from mergekit_wise.errors import CheckpointError

WEIGHTS = (
    "model.safetensors.index.json",
    "model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)
"""The usual names of weights, the preferred one first."""

OPEN_CLIP = "open_clip_"
OPEN_CLIP_JSON = f"{OPEN_CLIP}config.json"
"""Describes the weights whose names begin like it; other weights may be transformers' or timm's image encoder."""

WEIGHT_KINDS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf", ".index.json")


def weights_in(folder: Path) -> Path:
    """The file that holds the weights, or the index of its shards. Raises CheckpointError if there is none.

    Of several files, open_clip's is taken if its configuration file is in the folder, else the first in `WEIGHTS`.
    """
    usual = _usual(folder)
    described = [name for name in usual if name.startswith(OPEN_CLIP)] if (folder / OPEN_CLIP_JSON).is_file() else []
    if usual:
        return folder / (described or usual)[0]
    found = sorted(path for path in folder.iterdir() if path.name.endswith(".safetensors") and path.is_file())
    if len(found) == 1:
        return found[0]
    raise CheckpointError(
        f"{folder}: a folder without weights under a usual name ({', '.join(WEIGHTS)}). "
        "Give the path of the checkpoint file in it."
    )


def other_weights(folder: Path, taken: Path) -> list[str]:
    """Names of the weights in a folder other than those that were `taken`."""
    return [name for name in _usual(folder) if name != taken.name]


def _usual(folder: Path) -> list[str]:
    return [name for name in WEIGHTS if (folder / name).is_file()]
