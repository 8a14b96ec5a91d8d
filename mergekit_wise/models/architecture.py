"""Which open_clip architecture a checkpoint holds, told by its metadata or by names and shapes, with the reason.

Reads open_clip's list of configurations as files: importing open_clip would take seconds.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.errors import ModelError

CONFIG_KEY = "open_clip_config"
"""The metadata entry that holds what Hugging Face's open_clip repositories have as open_clip_config.json."""

Facts = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Guess:
    """Architectures that fit, best first, and why; none if nothing fits."""

    names: tuple[str, ...]
    reason: str


def stored_config(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """The configuration that the checkpoint itself carries. Raises ModelError if it is unreadable."""
    text = checkpoint.metadata.get(CONFIG_KEY)
    if text is None:
        return None
    try:
        config = json.loads(text)
        config["model_cfg"]["vision_cfg"], config["preprocess_cfg"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(
            f"{checkpoint.path}: its metadata entry {CONFIG_KEY!r} is no open_clip configuration."
        ) from error
    assert isinstance(config, dict)
    return config


def named_config(name: str) -> dict[str, Any]:
    """The configuration that open_clip knows by this name. Raises ModelError that says what is close to it."""
    if name not in _configs():
        from difflib import get_close_matches

        close = ", ".join(get_close_matches(name, _configs(), 3)) or "see open_clip.list_models()"
        raise ModelError(f"--model {name}: open_clip has no such model. Close to it: {close}.")
    model_cfg = dict(_configs()[name])
    size = model_cfg["vision_cfg"].get("image_size", 224)
    return {"model_cfg": model_cfg, "preprocess_cfg": {"size": size}}


def guess_architecture(checkpoint: Checkpoint) -> Guess:
    """Compare names and shapes with open_clip's plain ViT and ResNet configurations."""
    shapes = {name: stored.info.shape for name, stored in checkpoint.tensors.items()}
    facts = _vit_facts(shapes) or _resnet_facts(shapes)
    if stored_config(checkpoint):
        return Guess((f"custom ({_describe(facts)})",), f"told by its metadata ({CONFIG_KEY})")
    if not facts:
        return Guess((), "no image tower of open_clip's naming (visual.conv1.weight ...) was found")
    names = tuple(
        sorted(name for name, cfg in _configs().items() if _config_facts(cfg) == facts | _text_facts(shapes, cfg))
    )
    reason = f"told by names and shapes: {_describe(facts)}"
    if len(names) > 1:
        reason += "; what sets these apart cannot be seen in the weights"
    return Guess(names, reason if names else f"{reason}; open_clip has no such configuration")


@cache
def _configs() -> Mapping[str, Mapping[str, Any]]:
    spec = find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise ModelError("open_clip is not installed. Run: pip install open_clip_torch")
    folder = Path(spec.origin).parent / "model_configs"
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def _vit_facts(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
    conv = shapes.get("visual.conv1.weight", ())
    positions = shapes.get("visual.positional_embedding", ())
    proj = shapes.get("visual.proj", ())
    if len(conv) != 4 or len(positions) != 2 or len(proj) != 2:
        return {}
    grid = round((positions[0] - 1) ** 0.5)
    layers = _count(shapes, r"visual\.transformer\.resblocks\.(\d+)\.")
    return {
        "kind": "ViT",
        "width": conv[0],
        "patch_size": conv[-1],
        "image_size": grid * conv[-1],
        "layers": layers,
        "embed_dim": proj[1],
    }


def _resnet_facts(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, object]:
    positions = shapes.get("visual.attnpool.positional_embedding", ())
    proj = shapes.get("visual.attnpool.c_proj.weight", ())
    if len(positions) != 2 or len(proj) != 2:
        return {}
    layers = [_count(shapes, rf"visual\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)]
    return {
        "kind": "ResNet",
        "width": positions[1] // 32,
        "image_size": round((positions[0] - 1) ** 0.5) * 32,
        "layers": layers,
        "embed_dim": proj[0],
    }


def _config_facts(config: Mapping[str, Any]) -> dict[str, object]:
    vision, text = config["vision_cfg"], config["text_cfg"]
    layers = vision.get("layers")
    if layers is None or vision.get("attentional_pool") or "hf_model_name" in text:
        return {}
    facts = {
        "kind": "ResNet" if isinstance(layers, list) else "ViT",
        "width": vision.get("width"),
        "image_size": vision.get("image_size"),
        "layers": layers,
        "embed_dim": config["embed_dim"],
    }
    if facts["kind"] == "ViT":
        facts["patch_size"] = vision.get("patch_size")
    return facts | {key: text.get(key) for key in ("vocab_size", "context_length")}


def _text_facts(shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]) -> dict[str, object]:
    """What the text tower shows; where there is none, it excludes nothing."""
    words, positions = shapes.get("token_embedding.weight"), shapes.get("positional_embedding")
    if words is None or positions is None:
        return {key: config["text_cfg"].get(key) for key in ("vocab_size", "context_length")}
    return {"vocab_size": words[0], "context_length": positions[0]}


def _count(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> int:
    found = re.compile(pattern)
    return len({match[1] for name in shapes if (match := found.match(name))})


def _describe(facts: Facts) -> str:
    if not facts:
        return "unknown"
    patch = f"/{facts['patch_size']}" if "patch_size" in facts else ""
    return (
        f"{facts['kind']}{patch}, {facts['layers']} layers, width {facts['width']}, "
        f"{facts['image_size']}-pixel images, {facts['embed_dim']} features"
    )
