"""What the tensors of a checkpoint are, told by their names, and where each goes in a classifier.

Whoever saved the weights, the classifier's names are those of open_clip: ``visual.*`` for the image tower, ``text.*``
for the text tower (which ``open_clip.CLIP`` spreads over itself), ``logit_scale`` and ``classification_head.*``. Knows
names and shapes; knows no architecture.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.errors import ModelError
from mergekit_wise.models.huggingface import hugging_face_models, hugging_face_places
from mergekit_wise.models.places import Place

HEAD = "classification_head."
TOWER = "visual."
TEXT = "text."
SCALE = "logit_scale"

SPREAD = re.compile(r"(transformer\.|token_embedding\.|positional_embedding$|ln_final\.|text_projection(\.|$))")
"""Names of the text tower's tensors in an ``open_clip.CLIP``, which keeps them beside the image tower."""

SCRIPTED = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's archives hold among the weights."""

ALONE = (("class_embedding", "conv1.weight", "proj"), ("attnpool.c_proj.weight", "layer1.0.conv1.weight"))
"""By these names a file is known to hold nothing but an image tower, a ViT or a ResNet of CLIP's."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a checkpoint holds.

    Attributes:
        flavour: who names tensors so, for people.
        prefix: what stands before every name of the model.
        places: a tensor's name in the file -> where it goes; tensors of no use to a classifier are left out.
        shapes: of the classifier's tensors, as the file's tensors fill them.
    """

    flavour: str
    prefix: str
    places: Mapping[str, Place]
    shapes: Mapping[str, tuple[int, ...]]

    def part(self, prefix: str) -> dict[str, tuple[int, ...]]:
        """Names, without `prefix`, and shapes of the tensors that have it."""
        return {name.removeprefix(prefix): shape for name, shape in self.shapes.items() if name.startswith(prefix)}


def read_names(checkpoint: Checkpoint) -> Reading:
    """Find image tower, text tower and head; one without an image tower has no tensors under ``visual.``.

    Raises ModelError if there are several image towers or heads.
    """
    names = list(checkpoint.tensors)
    flavour, prefix, places = _towers(checkpoint, names)
    for name in _head_names(checkpoint, names):
        places[name] = Place(HEAD + name.rpartition(".")[2])
    return Reading(flavour, prefix, places, _shapes(checkpoint, places))


def head_places(checkpoint: Checkpoint) -> dict[str, Place]:
    """The weight and the bias of a file that holds a head alone, whatever precedes their names.

    Raises ModelError if there is no weight [classes, features], or more than one.
    """
    weights = [
        name for name, stored in checkpoint.tensors.items() if _is(name, "weight") and len(stored.info.shape) == 2
    ]
    if len(weights) != 1:
        raise ModelError(
            f"{checkpoint.path}: expected one weight [classes, features] of a head, found {len(weights)}. "
            "Give the file of a linear classifier."
        )
    bias = weights[0].removesuffix("weight") + "bias"
    places = {weights[0]: Place(f"{HEAD}weight")}
    return places | {bias: Place(f"{HEAD}bias")} if bias in checkpoint.tensors else places


def _towers(checkpoint: Checkpoint, names: list[str]) -> tuple[str, str, dict[str, Place]]:
    prefix = _only(
        checkpoint, "image towers", {m[1] for name in names if (m := re.match(r"((?:.*?\.)?)visual\.", name))}
    )
    if prefix is not None:
        places = {name: Place(inner) for name in names if (inner := _inner(name, prefix))}
        flavour = "OpenAI's CLIP" if {prefix + name for name in SCRIPTED} <= set(names) else "open_clip"
        return flavour, prefix, places
    kinds = hugging_face_models(names)
    prefix = _only(checkpoint, "image towers", kinds)
    if prefix is not None:
        return kinds[prefix], prefix, hugging_face_places(names, prefix, kinds[prefix])
    if any(set(marks) <= set(names) for marks in ALONE) or any(name.startswith("trunk.") for name in names):
        own = {name: Place(TOWER + name) for name in names if not re.search(rf"(^|\.){re.escape(HEAD)}", name)}
        return "an image tower alone", "", own
    return "unknown", "", {}


def _inner(name: str, prefix: str) -> str | None:
    """A name of open_clip's as the classifier has it; None for tensors that are of no use to it."""
    if not name.startswith(prefix):
        return None
    name = name.removeprefix(prefix)
    if name.endswith(".position_ids"):  # an index that old versions of transformers stored
        return None
    if name.startswith((TOWER, TEXT)) or name == SCALE:
        return name
    return TEXT + name if SPREAD.match(name) else None


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


def _shapes(checkpoint: Checkpoint, places: Mapping[str, Place]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, place in places.items():
        shape = place.fills(checkpoint.info(name).shape)
        shapes[place.name] = () if place.name == SCALE and shape == (1,) else shape
    return shapes
