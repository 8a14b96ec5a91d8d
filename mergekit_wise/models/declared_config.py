"""What a checkpoint, or the place it comes from, says of its architecture and preprocessing.

QuickGELU, head widths and the mean that is subtracted from pixels cannot be seen in weights: they are known from here
or not at all. Everything is said in the words of open_clip_config.json. Reads headers and small JSON files; imports
neither torch nor open_clip, so that a merge can carry on what its sources said.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.checkpoint.folder import OPEN_CLIP_JSON, WEIGHTS
from mergekit_wise.errors import ModelError
from mergekit_wise.models.huggingface import hugging_face_config
from mergekit_wise.models.names import Reading, read_names
from mergekit_wise.models.openai import openai_config, openai_reason

CLASSNAMES_KEY = "classnames"
"""The metadata entry that holds, as a JSON list, what the head's classes are called."""

CONFIG_KEY = "open_clip_config"
"""The metadata entry that holds what Hugging Face's open_clip repositories have as open_clip_config.json."""

NORMALIZE = "normalize"
"""What pickled heads call it in the metadata, behind their own name, whether features are normalised before them."""

MAX_JSON = 1 << 24


@dataclass(frozen=True, slots=True)
class DeclaredConfig:
    """What open_clip's factory needs to know, and who said it."""

    model_cfg: Mapping[str, Any]
    preprocess_cfg: Mapping[str, Any]
    by: str

    def as_json(self) -> str:
        """For the metadata of a safetensors file."""
        return json.dumps(
            {"model_cfg": dict(self.model_cfg), "preprocess_cfg": dict(self.preprocess_cfg), "told_by": self.by}
        )


def stored_config(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """The configuration that the checkpoint's metadata holds. Raises ModelError if it is unreadable."""
    text = checkpoint.metadata.get(CONFIG_KEY)
    return None if text is None else _open_clip_config(text, f"{checkpoint.path}: its metadata entry {CONFIG_KEY!r}")


def told(checkpoint: Checkpoint) -> DeclaredConfig | None:
    """What is said of the checkpoint: by itself, by the files beside it, or by whose work it is, the first of these.

    None if nothing is said. Raises ModelError if what is said cannot be understood.
    """
    config = stored_config(checkpoint)
    if config is not None:
        origin = config.get("told_by")
        by = f"its metadata ({CONFIG_KEY}{f', once told by {origin}' if isinstance(origin, str) else ''})"
        return DeclaredConfig(config["model_cfg"], config["preprocess_cfg"], by)
    return _told_by_files(checkpoint) or _told_by_flavour(checkpoint)


def normalizes(checkpoint: Checkpoint, head: str) -> bool:
    """Whether the features that go into a head have the length 1: always, unless it says otherwise.

    `head` is what stands before the names of its tensors.
    """
    key = head + NORMALIZE
    return not any(value == "false" and name.endswith(key) for name, value in checkpoint.metadata.items())


def remember(checkpoint: Checkpoint, said: DeclaredConfig | None = None) -> Checkpoint:
    """The checkpoint with `said`, or what `told` finds, in its metadata, where merged files inherit it from.

    Metadata that it has is kept. What cannot be understood is left for those to complain of who need it.
    """
    if CONFIG_KEY in checkpoint.metadata:
        return checkpoint
    try:
        said = said or told(checkpoint)
    except ModelError:
        return checkpoint
    if said is None:
        return checkpoint
    return replace(checkpoint, metadata={**checkpoint.metadata, CONFIG_KEY: said.as_json()})


def folder_of(checkpoint: Checkpoint) -> Path | None:
    """The folder whose other files go with the weights; None for a file under any name of its own."""
    if checkpoint.path.is_dir():
        return checkpoint.path
    return checkpoint.path.parent if checkpoint.path.name in WEIGHTS else None


def side_json(folder: Path, name: str) -> dict[str, Any]:
    """What a JSON file beside the weights holds; {} if there is none. Raises ModelError if it is unreadable."""
    path = folder / name
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > MAX_JSON:
            raise ValueError(f"it is {path.stat().st_size:,} bytes long")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: expected a JSON file that describes the model: {error}.") from error
    return content


def _open_clip_config(text: str, where: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
        config["model_cfg"]["vision_cfg"].items(), config["model_cfg"]["embed_dim"], config["preprocess_cfg"].items()
        config["model_cfg"].setdefault("text_cfg", {}).items()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{where} is no open_clip configuration.") from error
    assert isinstance(config, dict)
    return config


def _told_by_files(checkpoint: Checkpoint) -> DeclaredConfig | None:
    folder = folder_of(checkpoint)
    if folder is None:
        return None
    if config := side_json(folder, OPEN_CLIP_JSON):
        config = _open_clip_config(json.dumps({"preprocess_cfg": {}, **config}), str(folder / OPEN_CLIP_JSON))
        return DeclaredConfig(config["model_cfg"], config["preprocess_cfg"], OPEN_CLIP_JSON)
    config = side_json(folder, "config.json")
    if config.get("model_type") != "clip":
        return None
    preprocessor = side_json(folder, "preprocessor_config.json")
    preprocessor = preprocessor or side_json(folder, "processor_config.json").get("image_processor", {})
    try:
        config = hugging_face_config(config, preprocessor)
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise ModelError(f"{folder / 'config.json'}: does not describe a CLIPModel ({error!r}).") from error
    return DeclaredConfig(config["model_cfg"], config["preprocess_cfg"], "config.json")


def _told_by_flavour(checkpoint: Checkpoint) -> DeclaredConfig | None:
    reading: Reading = read_names(checkpoint)
    reason = openai_reason(checkpoint, reading)
    config = openai_config(reading) if reason else None
    return DeclaredConfig(config, {}, reason) if config and reason else None
