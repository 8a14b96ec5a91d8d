"""What the tensors of a checkpoint are, recognised by their names, and where each goes in a classifier.

Whoever saved the weights, the classifier uses open_clip's names: ``visual.*`` for the image tower, ``text.*`` for the
text tower (which ``open_clip.CLIP`` keeps at its top level), ``logit_scale``, ``logit_bias`` and
``classification_head.*``. Knows names
and shapes, but no architecture.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.errors import ModelError
from mergekit_wise.models.destinations import Destination
from mergekit_wise.models.huggingface import NO_SIGLIP, SIGLIP, hugging_face_destinations, hugging_face_models

HEAD = "classification_head."
TOWER = "visual."
TEXT = "text."
SCALE = "logit_scale"
BIAS = "logit_bias"
"""Of models that were trained with the sigmoid loss (SigLIP), which have it beside the scale."""

OPENAI = "OpenAI's CLIP"
NO_TOWER = (
    "no image tower was found by its names (visual.conv1.weight, vision_model.* ...). "
    "A classifier of timm's can be named: wise eval --model timm:NAME"
)

_TEXT_TENSOR = re.compile(r"(transformer\.|token_embedding\.|positional_embedding$|ln_final\.|text_projection(\.|$))")
"""Names of the text tower's tensors in an ``open_clip.CLIP``, which have no prefix there."""

_SCRIPTED = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's archives hold among the weights."""

_BARE_TOWERS = (("class_embedding", "conv1.weight", "proj"), ("attnpool.c_proj.weight", "layer1.0.conv1.weight"))
"""A file with all names of one of these holds an image tower alone: a ViT, or a ResNet of CLIP's."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a checkpoint holds.

    Attributes:
        layout: whose naming of tensors this is, for people.
        prefix: what precedes every name of the model.
        destinations: where each tensor of the file goes; tensors that a classifier does not use are left out.
        shapes: of the classifier's tensors, as the file's tensors fill them.
    """

    layout: str
    prefix: str
    destinations: Mapping[str, Destination]
    shapes: Mapping[str, tuple[int, ...]]

    def part(self, prefix: str) -> dict[str, tuple[int, ...]]:
        """Names, without `prefix`, and shapes of the tensors whose names begin with `prefix`."""
        return {name.removeprefix(prefix): shape for name, shape in self.shapes.items() if name.startswith(prefix)}

    @property
    def missing_tower(self) -> str | None:
        """Why no image tower can be built from the checkpoint; None if it holds one."""
        return NO_SIGLIP if self.layout == SIGLIP else None if self.part(TOWER) else NO_TOWER


def read_names(checkpoint: Checkpoint) -> Reading:
    """Find the image tower, the text tower and the head of a checkpoint, as far as it holds them.

    Raises ModelError if there are several image towers or heads.
    """
    names = list(checkpoint.tensors)
    layout, prefix, destinations = _towers(checkpoint, names)
    for name in _head_names(checkpoint, names):
        destinations[name] = Destination(HEAD + name.rpartition(".")[2])
    return Reading(layout, prefix, destinations, _shapes(checkpoint, destinations))


def _towers(checkpoint: Checkpoint, names: list[str]) -> tuple[str, str, dict[str, Destination]]:
    prefix = _only(
        checkpoint,
        "image towers",
        {m[1] for name in names if TOWER in name and (m := re.match(r"((?:.*?\.)?)visual\.", name))},
    )
    if prefix is not None:
        destinations = {name: Destination(inner) for name in names if (inner := _inner(name, prefix))}
        layout = OPENAI if {prefix + name for name in _SCRIPTED} <= set(names) else "open_clip"
        return layout, prefix, destinations
    kinds = hugging_face_models(names)
    prefix = _only(checkpoint, "image towers", kinds)
    if prefix is not None:
        return kinds[prefix], prefix, hugging_face_destinations(names, prefix, kinds[prefix])
    if any(set(marks) <= set(names) for marks in _BARE_TOWERS) or any(name.startswith("trunk.") for name in names):
        tower = {name: Destination(TOWER + name) for name in names if not re.search(rf"(^|\.){re.escape(HEAD)}", name)}
        return "an image tower alone", "", tower
    return "unknown", "", {}


def _inner(name: str, prefix: str) -> str | None:
    """The classifier's name of a tensor in open_clip's layout; None for tensors that a classifier does not use."""
    if not name.startswith(prefix):
        return None
    name = name.removeprefix(prefix)
    if name.endswith(".position_ids"):  # an index that old versions of transformers stored
        return None
    if name.startswith((TOWER, TEXT)) or name in (SCALE, BIAS):
        return name
    return TEXT + name if _TEXT_TENSOR.match(name) else None


def _head_names(checkpoint: Checkpoint, names: list[str]) -> list[str]:
    found = {name.removesuffix("weight") for name in names if _is(name, f"{HEAD}weight")}
    prefix = _only(checkpoint, "classification heads", found)
    return [] if prefix is None else [name for name in (f"{prefix}weight", f"{prefix}bias") if name in names]


def _is(name: str, ending: str) -> bool:
    return name == ending or name.endswith("." + ending)


def _only(checkpoint: Checkpoint, what: str, found: Iterable[str]) -> str | None:
    every = sorted(found)
    if len(every) > 1:
        raise ModelError(
            f"{checkpoint.path}: expected one model, found {len(every)} {what}, under {', '.join(map(repr, every))}. "
            "Save one of them by itself."
        )
    return every[0] if every else None


def _shapes(checkpoint: Checkpoint, destinations: Mapping[str, Destination]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, destination in destinations.items():
        shape = destination.target_shape(checkpoint.info(name).shape)
        shapes[destination.name] = () if destination.name in (SCALE, BIAS) and shape == (1,) else shape
    return shapes
