"""Which of open_clip's architectures a checkpoint holds, told by the names and shapes of its tensors.

open_clip's configurations are read as files; only those that could fit are built, without memory for their weights, and
compared tensor by tensor. What weights do not show (QuickGELU, head widths, the size of images that a convolutional
network was trained for) is not decided here: all configurations that fit are listed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.errors import ModelError
from mergekit_wise.models.declared_config import told
from mergekit_wise.models.facts import Shapes, image_facts, text_facts
from mergekit_wise.models.huggingface import NO_SIGLIP, SIGLIP
from mergekit_wise.models.names import TEXT, TOWER, Reading, read_names

Config = Mapping[str, Any]

_UNFELT = (
    *("patch_dropout", "timm_drop", "timm_drop_path", "timm_model_pretrained", "hf_model_pretrained"),
    "output_tokens",
)
"""Settings of training, and of what is given beside the features."""

# What CLIPVisionCfg and CLIPTextCfg take where a configuration is silent, as far as that is anything at all.
_VISION = {
    "layers": 12,
    "width": 768,
    "head_width": 64,
    "mlp_ratio": 4.0,
    "patch_size": 16,
    "image_size": 224,
    "attn_pooler_queries": 256,
    "attn_pooler_heads": 8,
    "pos_embed_type": "learnable",
    "pool_type": "tok",
    "timm_pool": "avg",
    "timm_proj": "linear",
}
_TEXT = {
    "context_length": 77,
    "vocab_size": 49408,
    "width": 512,
    "heads": 8,
    "layers": 12,
    "mlp_ratio": 4.0,
    "eos_id": 2,
    "pool_type": "argmax",
    "proj_type": "linear",
    "hf_proj_type": "mlp",
    "hf_pooler_type": "mean_pooler",
}


@dataclass(frozen=True, slots=True)
class Guess:
    """Architectures that fit, and why; none if nothing fits."""

    names: tuple[str, ...]
    reason: str


def guess_architecture(checkpoint: Checkpoint) -> Guess:
    """What the checkpoint says of itself, or else which of open_clip's configurations fit."""
    try:
        reading, said = read_names(checkpoint), told(checkpoint)
    except ModelError as error:
        return Guess((), str(error))
    if said is not None:
        return Guess((name_of(said.model_cfg) or f"custom ({describe(reading)})",), f"told by {said.by}")
    return fitting(reading)


def fitting(reading: Reading) -> Guess:
    """The configurations of open_clip's whose towers have these names and shapes, the shortest name first."""
    visual, text = reading.part(TOWER), reading.part(TEXT)
    if not visual:
        nothing = "no image tower was found by names (visual.conv1.weight, vision_model.* ...)"
        return Guess((), NO_SIGLIP if reading.flavour == SIGLIP else nothing)
    names = [name for name, cfg in configs().items() if _could_fit(cfg, visual, text)]
    names = sorted((name for name in names if _fits(configs()[name], visual, text)), key=lambda name: (len(name), name))
    reason = f"told by names and shapes: {describe(reading)}"
    if not names:
        return Guess((), f"{reason}; open_clip has no such configuration")
    if not alike(names, with_text=bool(text)):
        reason += "; what sets these apart cannot be seen in the weights"
    return Guess(tuple(names), reason)


def alike(names: Sequence[str], *, with_text: bool) -> bool:
    """Whether configurations of one shape compute the same, the text tower counted or not."""
    return len({_essence(configs()[name], with_text) for name in names}) <= 1


def name_of(model_cfg: Config) -> str | None:
    """open_clip's name of a configuration that computes what this one does; None if it has none."""
    with_text = bool(model_cfg.get("text_cfg"))
    wanted = _essence(model_cfg, with_text)
    found = (name for name, cfg in configs().items() if _essence(cfg, with_text) == wanted)
    return min(found, key=lambda name: (len(name), name), default=None)


def require_config(name: str) -> dict[str, Any]:
    """A copy of the configuration that open_clip knows by this name. Raises ModelError that lists similar names."""
    if name not in configs():
        from difflib import get_close_matches

        close = ", ".join(get_close_matches(name, configs(), 3)) or "see open_clip.list_models()"
        raise ModelError(f"--model {name}: open_clip has no such model. Close to it: {close}.")
    copy: dict[str, Any] = json.loads(json.dumps(configs()[name]))
    return copy


@cache
def configs() -> Mapping[str, Config]:
    """open_clip's configurations by name."""
    spec = find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise ModelError("open_clip is not installed. Run: pip install open_clip_torch")
    folder = Path(spec.origin).parent / "model_configs"
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def describe(reading: Reading) -> str:
    """The image tower in few words."""
    visual = reading.part(TOWER)
    facts = image_facts(visual)
    if facts is None:
        kind = "a timm tower" if _is_timm(visual) else "an unknown tower"
        return f"{kind} of {len(visual)} tensors" if visual else "unknown"
    kind = f"ViT/{facts['patch_size']}" if "patch_size" in facts else "ResNet"
    return (
        f"{kind}, {facts['layers']} layers, width {facts['width']}, "
        f"{facts['image_size']}-pixel images, {facts['embed_dim']} features"
    )


def _could_fit(cfg: Config, visual: Shapes, text: Shapes) -> bool:
    """Whether the configuration is worth building: nothing that its file says contradicts the shapes."""
    vision, words = {**_VISION, **cfg["vision_cfg"]}, {**_TEXT, **cfg["text_cfg"]}
    seen, read = image_facts(visual), text_facts(text)
    own = {**vision, "embed_dim": cfg["embed_dim"]}
    if seen is None:
        if not _is_timm(visual) or not vision.get("timm_model_name"):
            return False
    elif vision.get("timm_model_name") or any(own[key] != value for key, value in seen.items()):
        return False
    if words.get("hf_model_name"):
        return not read
    return all(words[key] == value for key, value in read.items())


def _fits(cfg: Config, visual: Shapes, text: Shapes) -> bool:
    """Every tensor of the image tower is there, and no other; of the text tower, there is nothing else."""
    from mergekit_wise.models.towers import text_shapes, visual_shapes

    if visual_shapes(cfg) != visual:
        return False
    return not text or "hf_model_name" in cfg["text_cfg"] or text.items() <= text_shapes(cfg).items()


def _is_timm(visual: Shapes) -> bool:
    return any(name.startswith("trunk.") for name in visual)


def _essence(cfg: Config, with_text: bool) -> str:
    """What a configuration computes, as a text that is the same for all that compute the same."""
    vision, quick = _said(cfg["vision_cfg"], _VISION), bool(cfg.get("quick_gelu"))
    if vision.get("timm_model_name"):  # has activations of its own
        vision = {key: value for key, value in vision.items() if key.startswith("timm_") or key == "image_size"}
    elif isinstance(vision.get("layers"), list):  # CLIP's ResNet has ReLU
        vision = {key: vision.get(key) for key in ("layers", "width", "head_width", "image_size")}
    else:
        vision = {key: value for key, value in vision.items() if not key.startswith("timm_")} | {"quick": quick}
    text = _said(cfg["text_cfg"], _TEXT) if with_text else {}
    own_text = bool(text) and not text.get("hf_model_name")
    return json.dumps([cfg["embed_dim"], vision, text, own_text and quick], sort_keys=True)


def _said(section: Config, defaults: Config) -> dict[str, Any]:
    """Settings as they are once defaults are filled in, without those that are off or that features do not show."""
    every = {**defaults, **section}
    return {key: value for key, value in every.items() if value and key not in _UNFELT}
