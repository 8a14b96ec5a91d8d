"""What names and shapes of tensors show of an architecture: facts of each tower, and the configurations that fit.

Configurations that the facts do not contradict are built, without memory for their weights, and compared tensor by
tensor. Weights do not show QuickGELU, head widths, or the image size of a convolutional network's training: where
several configurations fit, all are listed. A file's header is enough; torch is imported only to build towers.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any

from mergekit_wise.models.names import TEXT, TOWER, Reading
from mergekit_wise.models.open_clip_configs import (
    TEXT_DEFAULTS,
    VISION_DEFAULTS,
    Config,
    compute_the_same,
    configs,
)

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Guess:
    """The names of architectures that fit, and the reason; no names if nothing fits."""

    names: tuple[str, ...]
    reason: str


def fitting(reading: Reading) -> Guess:
    """open_clip's configurations whose towers have these names and shapes, the shortest name first."""
    visual, text = reading.part(TOWER), reading.part(TEXT)
    if reading.missing_tower:
        return Guess((), reading.missing_tower)
    names = [name for name, cfg in configs().items() if _could_fit(cfg, visual, text)]
    names = sorted((name for name in names if _fits(configs()[name], visual, text)), key=lambda name: (len(name), name))
    reason = f"from names and shapes: {describe(reading)}"
    if not names:
        return Guess((), f"{reason}; open_clip has no such configuration")
    if not compute_the_same(names, with_text=bool(text)):
        reason += "; the weights do not show which of these it is"
    return Guess(tuple(names), reason)


def describe(reading: Reading) -> str:
    """A short description of the image tower."""
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


def image_facts(shapes: Shapes) -> dict[str, Any] | None:
    """``vision_cfg`` and ``embed_dim`` of a plain ViT or of CLIP's ResNet, as far as shapes show; None for others."""
    return _vit_facts(shapes) or _resnet_facts(shapes)


@dataclass(frozen=True, slots=True)
class Grid:
    """A position embedding of a square grid: `side` patches along a side, each of `pixels` pixels."""

    side: int
    pixels: int

    @property
    def size(self) -> int:
        """Pixels along a side of the images."""
        return self.side * self.pixels


def position_grid(shapes: Shapes) -> Grid | None:
    """The grid of an image tower's position embedding; None if there is none, or if it is not square."""
    positions, patches = (shapes.get(name, ()) for name in ("positional_embedding", "conv1.weight"))
    if len(positions) == 2 and len(patches) == 4:
        return _grid(positions[0] - 1, patches[-1])
    if len(positions := shapes.get("attnpool.positional_embedding", ())) == 2:
        return _grid(positions[0] - 1, 32)
    return None  # open_clip lets the towers of timm interpolate theirs to the size of the configuration


def _grid(count: int, pixels: int) -> Grid | None:
    side = isqrt(max(count, 0))
    return Grid(side, pixels) if side and side * side == count and pixels else None


def text_facts(shapes: Shapes) -> dict[str, Any]:
    """What the tensors of open_clip's text tower, or the remaining ones, show of ``text_cfg``."""
    facts: dict[str, Any] = {}
    tokens, positions = shapes.get("token_embedding.weight", ()), shapes.get("positional_embedding", ())
    if len(tokens) == 2:
        facts |= {"vocab_size": tokens[0], "width": tokens[1]}
    if len(positions) == 2:
        facts["context_length"] = positions[0] - ("cls_emb" in shapes)
    if layers := _count(shapes, r"transformer\.resblocks\.(\d+)\."):
        facts["layers"] = layers
    return facts


def _vit_facts(shapes: Shapes) -> dict[str, Any] | None:
    conv, positions, proj = (shapes.get(name, ()) for name in ("conv1.weight", "positional_embedding", "proj"))
    if len(conv) != 4 or len(positions) != 2 or len(proj) not in (0, 2):
        return None
    return {
        "width": conv[0],
        "patch_size": conv[-1],
        "image_size": round(max(positions[0] - 1, 0) ** 0.5) * conv[-1],
        "layers": _count(shapes, r"transformer\.resblocks\.(\d+)\."),
        "embed_dim": proj[1] if proj else conv[0],
    }


def _resnet_facts(shapes: Shapes) -> dict[str, Any] | None:
    positions, proj = shapes.get("attnpool.positional_embedding", ()), shapes.get("attnpool.c_proj.weight", ())
    if len(positions) != 2 or len(proj) != 2:
        return None
    return {
        "width": positions[1] // 32,
        "image_size": round(max(positions[0] - 1, 0) ** 0.5) * 32,
        "layers": [_count(shapes, rf"layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)],
        "embed_dim": proj[0],
    }


def _count(shapes: Shapes, pattern: str) -> int:
    found = re.compile(pattern)
    return len({match[1] for name in shapes if (match := found.match(name))})


def _could_fit(cfg: Config, visual: Shapes, text: Shapes) -> bool:
    """Whether the configuration is worth building: nothing in it contradicts the shapes."""
    vision_cfg, text_cfg = {**VISION_DEFAULTS, **cfg["vision_cfg"]}, {**TEXT_DEFAULTS, **cfg["text_cfg"]}
    image, known_text = image_facts(visual), text_facts(text)
    own = {**vision_cfg, "embed_dim": cfg["embed_dim"]}
    if image is None:
        if not _is_timm(visual) or not vision_cfg.get("timm_model_name"):
            return False
    elif vision_cfg.get("timm_model_name") or any(own[key] != value for key, value in image.items()):
        return False
    if text_cfg.get("hf_model_name"):
        return not known_text
    return all(text_cfg[key] == value for key, value in known_text.items())


def _fits(cfg: Config, visual: Shapes, text: Shapes) -> bool:
    """Whether the image tower has exactly these tensors, and the text tower no others than it should."""
    from mergekit_wise.models.towers import text_shapes, visual_shapes

    if visual_shapes(cfg) != visual:
        return False
    return not text or "hf_model_name" in cfg["text_cfg"] or text.items() <= text_shapes(cfg).items()


def _is_timm(visual: Shapes) -> bool:
    return any(name.startswith("trunk.") for name in visual)
