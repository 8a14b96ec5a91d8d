"""The configuration of a model in what a training script left: its arguments, in the checkpoint or in a file beside it.

Knows open_clip's training code, timm's, and Lightning's hyper-parameters. Reads small files; imports no torch for timm.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.checkpoint.arguments import ARGUMENTS_KEY
from mergekit_wise.errors import ModelError
from mergekit_wise.models.open_clip_configs import configs, pretrained_config, require_config, usual_preprocessing

Found = tuple[dict[str, Any], str]
"""A configuration, as `ResolvedConfig.config` holds it, and its source, for people."""

MAX_BYTES = 1 << 20
"""Of a file of arguments."""

_OVERRIDES = {
    "mean": "image_mean",
    "std": "image_std",
    "interpolation": "image_interpolation",
    "resize_mode": "image_resize_mode",
}
"""open_clip's arguments that replace an entry of ``preprocess_cfg``."""


def run_files_config(checkpoint: Checkpoint) -> Found | None:
    """What open_clip's params.txt or timm's args.yaml says, where these scripts write it. Raises ModelError."""
    path = checkpoint.path
    parameters = path.parent.parent / "params.txt"
    if path.parent.name == "checkpoints" and parameters.is_file():
        lines = (line.partition(": ") for line in _text(parameters).splitlines())
        return _open_clip({key.strip(): _value(value) for key, _, value in lines}, f"{parameters.name} of the run")
    beside = path.parent / "args.yaml"
    if path.name.endswith(".pth.tar") and beside.is_file():
        return _timm(_yaml(beside), beside.name)
    return None


def arguments_config(checkpoint: Checkpoint) -> Found | None:
    """What the arguments in the checkpoint say; None if they name no model that is known for certain."""
    text = checkpoint.metadata.get(ARGUMENTS_KEY)
    try:
        arguments = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(arguments, dict):
        return None
    source = "the training arguments in the checkpoint"
    if isinstance(arguments.get("arch"), str) and isinstance(arguments.get("version"), int):
        return _timm({**arguments, "model": arguments["arch"]}, source)
    names = (arguments.get(key) for key in ("model", "model_name", "architecture", "backbone", "arch"))
    name = next((name for name in names if isinstance(name, str) and name in configs()), None)
    # Without the weights that it started from, or an explicit answer, the name does not say which activation it has.
    known = isinstance(arguments.get("pretrained"), str) or isinstance(arguments.get("force_quick_gelu"), bool)
    return _open_clip({**arguments, "model": name}, source) if name and known else None


def _open_clip(arguments: Mapping[str, Any], source: str) -> Found | None:
    """open_clip builds the model by its name; OpenAI's own weights always get QuickGELU."""
    name, tag = arguments.get("model"), arguments.get("pretrained")
    if not isinstance(name, str):
        return None
    model_cfg = require_config(name)
    preprocess = usual_preprocessing(name)[0]
    if isinstance(tag, str) and tag:
        try:
            preprocess = pretrained_config(name, tag)["preprocess_cfg"]
        except ModelError:  # a path, as open_clip allows: its default
            preprocess = {}
    quick = bool(model_cfg.get("quick_gelu")) or arguments.get("force_quick_gelu") is True or tag == "openai"
    model_cfg["quick_gelu"] = quick
    if size := arguments.get("force_image_size"):
        model_cfg["vision_cfg"]["image_size"] = size
    given = {key: arguments.get(name) for key, name in _OVERRIDES.items()}
    return {
        "model_cfg": model_cfg,
        "preprocess_cfg": preprocess | {key: value for key, value in given.items() if value is not None},
    }, source


def _timm(arguments: Mapping[str, Any], source: str) -> Found | None:
    name = arguments.get("model")
    if not isinstance(name, str):
        return None
    settings = {key: arguments.get(key) for key in ("input_size", "mean", "std", "interpolation", "crop_pct")}
    if settings["input_size"] is None and isinstance(size := arguments.get("img_size"), int):
        settings["input_size"] = [3, size, size]
    known = {key: value for key, value in settings.items() if value}
    return {"architecture": name, "pretrained_cfg": known}, source


def _value(text: str) -> Any:
    """A value as Python writes it: a text, a number, None, or a list of numbers."""
    text = text.strip()
    words = {"None": None, "True": True, "False": False, "": None}
    if text in words:
        return words[text]
    try:
        return json.loads(text.replace("(", "[").replace(")", "]"))
    except (ValueError, RecursionError):
        return text


def _yaml(path: Path) -> Mapping[str, Any]:
    import yaml  # type: ignore[import-untyped]

    try:
        content = yaml.safe_load(_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not a readable file of arguments.") from error
    return content if isinstance(content, dict) else {}


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is {path.stat().st_size:,} bytes long")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: expected the arguments of a training run: {error}.") from error
