"""What the shapes of a tower's tensors show of its configuration, in the words of open_clip's ``model_cfg``.

Imports no torch: a file's header is enough. What shapes do not show (activations, head widths) is not here.
"""

import re
from collections.abc import Mapping
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]


def image_facts(shapes: Shapes) -> dict[str, Any] | None:
    """``vision_cfg``, and the number of features, of a plain ViT or of CLIP's ResNet; None for any other tower."""
    return _vit_facts(shapes) or _resnet_facts(shapes)


def text_facts(shapes: Shapes) -> dict[str, Any]:
    """What the tensors of open_clip's text tower, or what is left of them, show of ``text_cfg``."""
    facts: dict[str, Any] = {}
    words, positions = shapes.get("token_embedding.weight", ()), shapes.get("positional_embedding", ())
    if len(words) == 2:
        facts |= {"vocab_size": words[0], "width": words[1]}
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
