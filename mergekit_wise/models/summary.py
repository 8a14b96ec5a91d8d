"""What a checkpoint holds, in a line: for messages about two of them. Reads headers only, and imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.errors import ModelError
from mergekit_wise.merging.movement import head_names
from mergekit_wise.models.architecture import declared_config
from mergekit_wise.models.names import TEXT, TOWER, Reading, read_names
from mergekit_wise.models.weight_shapes import describe, image_facts
from mergekit_wise.wording import plural, shown

_KNOWN_NAMES = {
    "patch_embed.proj.weight": "timm's names",
    "layer1.0.conv1.weight": "torchvision's or timm's names of a ResNet",
    "conv_proj.weight": "torchvision's names of a ViT",
}
"""Tensors that are in the classifiers of a library, and what to call their names."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a checkpoint holds, as far as names and shapes show.

    Attributes:
        naming: whose names the tensors have.
        model: the architecture; empty if it is unknown.
        image: facts of a CLIP's image tower, as `image_facts` gives them; empty if there are none.
        has_text: whether there is a text tower.
        classes: of the head; None if there is no head.
    """

    naming: str
    model: str
    image: Mapping[str, Any]
    has_text: bool
    classes: int | None

    def __str__(self) -> str:
        """Format what is there, for people."""
        parts = [f"{self.naming}: {self.model}" if self.model else self.naming]
        if self.has_text:
            parts.append("text tower")
        if self.classes is not None:
            parts.append(f"head of {plural(self.classes, 'class')}")
        return "; ".join(parts)


def summarize(checkpoint: Checkpoint) -> Summary:
    """Look at the names and shapes of a checkpoint. Raises nothing: what cannot be recognised is called unknown."""
    try:
        reading = read_names(checkpoint)
    except ModelError:  # several models in one file
        reading = Reading("unknown", "", {}, {})
    heads = head_names(checkpoint)
    return Summary(
        _naming(checkpoint, reading),
        _model(checkpoint, reading),
        image_facts(reading.part(TOWER)) or {},
        any(name.startswith(f"{TEXT}transformer.") for name in reading.shapes),
        checkpoint.info(heads[0]).shape[0] if len(heads) == 1 else None,
    )


def _naming(checkpoint: Checkpoint, reading: Reading) -> str:
    if reading.layout != "unknown":
        return reading.layout
    for mark, naming in _KNOWN_NAMES.items():
        if any(name == mark or name.endswith(f".{mark}") for name in checkpoint.tensors):
            return naming
    return f"names of no known model, such as {shown(min(checkpoint.tensors))}"


def _model(checkpoint: Checkpoint, reading: Reading) -> str:
    try:
        declared = declared_config(checkpoint)
        if declared is not None:
            return declared.name(reading)
    except ModelError:  # an unreadable configuration, which only evaluations need
        pass
    return describe(reading) if reading.part(TOWER) else ""
