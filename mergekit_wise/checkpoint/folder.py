"""Folders as on the Hugging Face Hub: weights under a usual name, and the files that go with them."""

import json
import re
from pathlib import Path

from mergekit_wise.checkpoint.foreign import foreign_folder
from mergekit_wise.errors import CheckpointError
from mergekit_wise.wording import listed, plural, shown

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.bin",
)
"""The usual names of weights, the preferred one first; a file before an index, as transformers has it."""

ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
"""The names that PEFT gives the weights of an adapter."""

OPEN_CLIP = "open_clip_"
OPEN_CLIP_JSON = f"{OPEN_CLIP}config.json"
"""Describes the weights whose names begin like it; other weights may be transformers' or timm's image encoder."""

WEIGHT_KINDS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf", ".index.json")

SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.safetensors|\.bin)")
"""The name of one of several files of weights."""

MODULES = "modules.json"
"""sentence-transformers' list of the parts of a model, each with the subfolder that it is in."""

MAX_MODULES = 1 << 20
"""Bytes of such a file."""


def weights_folder_in(folder: Path) -> Path:
    """The folder itself, or the subfolder that sentence-transformers' modules.json names, if that holds the weights.

    Raises CheckpointError if modules.json cannot be read.
    """
    modules = folder / MODULES
    if not modules.is_file() or _usual(folder):
        return folder
    try:
        if modules.stat().st_size > MAX_MODULES:
            raise ValueError("it is too long")
        paths: list[object] = [entry["path"] for entry in json.loads(modules.read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{modules}: not a list of sentence-transformers' modules ({error!r}).") from error
    for path in paths:
        if not isinstance(path, str) or Path(path).name != path or path in ("", "..") or "\\" in path:
            continue
        if (folder / path).is_dir() and _usual(folder / path):
            return folder / path
    return folder


def weights_in(folder: Path) -> Path:
    """The file that holds the weights, the index of its shards, or the first of several shards without an index.

    Of several files, open_clip's is taken if its configuration file is in the folder, else the first in `WEIGHTS`.
    Raises CheckpointError if there is none, or if the one to take is a link to a file that is gone.
    """
    names = _usual(folder)
    described = [name for name in names if name.startswith(OPEN_CLIP)] if (folder / OPEN_CLIP_JSON).is_file() else []
    if names:
        return folder / (described or names)[0]
    for name in ADAPTERS:
        if (folder / name).is_file():
            return folder / name
    found = sorted(path for path in folder.iterdir() if path.name.endswith(".safetensors") and _is_file(path))
    if len(found) == 1:
        return found[0]
    indices = sorted(path for path in folder.glob("*.index.json") if path.is_file())
    if len(indices) == 1:
        return indices[0]
    shards = sorted(path for path in folder.iterdir() if SHARD.fullmatch(path.name) and _is_file(path))
    if shards and len({_series(path) for path in shards}) == 1:
        return shards[0]
    raise CheckpointError(_without_weights(folder))


def shards_without_index(first: Path) -> list[Path]:
    """All shards that the name of one of them counts; empty for a file that is none.

    Raises CheckpointError if shards are missing.
    """
    match = SHARD.fullmatch(first.name)
    if match is None:
        return []
    stem, _, total, ending = match.groups()
    found = sorted(path.name for path in first.parent.iterdir() if _series(path) == (stem, total, ending))
    count = int(total)
    if not 0 < count <= MAX_SHARDS:
        raise CheckpointError(f"{first}: the name counts {count:,} shards, where at most {MAX_SHARDS:,} are allowed.")
    names = [f"{stem}-{number:05}-of-{total}{ending}" for number in range(1, count + 1)]
    require_shards(first.parent, names)
    if odd := sorted(set(found) - set(names)):
        raise CheckpointError(f"{first.parent}: {listed(odd)} cannot belong to {plural(count, 'shard')}.")
    return [first.with_name(name) for name in names]


MAX_SHARDS = 10_000


def require_shards(folder: Path, names: list[str]) -> None:
    """Raise CheckpointError that names every shard that is not in the folder."""
    missing = [name for name in names if _is_missing(folder / name)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise CheckpointError(
            f"{folder}: {len(missing)} of {plural(len(names), 'shard')} {verb} missing: {listed(map(shown, missing))}. "
            f"Download {'it' if len(missing) == 1 else 'them'} into the folder."
        )


def other_weights(folder: Path, taken: Path) -> list[str]:
    """Names of the weights in a folder other than those that were `taken`."""
    return [name for name in _usual(folder) if name != taken.name and (folder / name).is_file()]


def leaves_folder(name: str) -> bool:
    """Whether a file's name in a list from elsewhere could lead out of the folder that it is to be written in."""
    parts = name.split("/")  # "/name" begins with an empty part
    return not {"", ".", ".."}.isdisjoint(parts) or "\\" in name or ":" in parts[0] or "\0" in name


def _usual(folder: Path) -> list[str]:
    """Usual names of weights in the folder; a link to a file that is gone counts, so that it is reported."""
    return [name for name in WEIGHTS if _is_file(folder / name)]


def _is_file(path: Path) -> bool:
    return path.is_file() or (path.is_symlink() and not path.exists())


def _is_missing(path: Path) -> bool:
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except (OSError, ValueError):  # a name that no file can have, which opening it reports
        return False
    return False


def _series(path: Path) -> tuple[str, str, str] | None:
    """What the names of all shards of one checkpoint share."""
    match = SHARD.fullmatch(path.name)
    return None if match is None else (match[1], match[3], match[4])


def _without_weights(folder: Path) -> str:
    """The message for a folder in which no weights can be chosen: what it holds, and what to give."""
    if known := foreign_folder(folder):
        return f"{folder}: {known}"
    files = sorted(path.name for path in folder.iterdir() if path.name.endswith(WEIGHT_KINDS) and path.is_file())
    if files:
        return (
            f"{folder}: a folder with {plural(len(files), 'file')} of weights, but without one under a usual name: "
            f"{listed(map(shown, files))}. Give the path of one of them."
        )
    inner = sorted(path.name for path in folder.iterdir() if path.is_dir() and _usual(path))
    if inner:
        return (
            f"{folder}: a folder without weights, but {listed(map(shown, inner))} in it "
            f"{'has' if len(inner) == 1 else 'have'} some. Give the path of the subfolder: {folder / inner[0]}"
        )
    return (
        f"{folder}: a folder without weights under a usual name ({', '.join(WEIGHTS)}). "
        "Give the path of the checkpoint file in it."
    )
