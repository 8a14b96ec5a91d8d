"""Builds the module of a CLIP from its configuration, and compares it with the checkpoint tensor by tensor.

Nothing of a tensor's size is allocated before the shapes fit. Knows no data set, and sets no weights but those of a
head from its own file.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.errors import ModelError
from mergekit_wise.models.classifier import Classifier
from mergekit_wise.models.destinations import Destination
from mergekit_wise.models.model import fill
from mergekit_wise.models.names import BIAS, HEAD, TEXT, TOWER
from mergekit_wise.models.towers import build_text, build_visual, text_shapes, visual_shapes

Shape = tuple[int, ...]


def build_clip(
    checkpoint: Checkpoint,
    model_cfg: Mapping[str, Any],
    destinations: Mapping[str, Destination],
    found: Mapping[str, Shape],
    classes: int | None,
    *,
    with_text: bool,
    normalize: bool,
    head: Checkpoint | None = None,
) -> Classifier:
    """A module in evaluation mode with uninitialised weights, but for those of `head`.

    Args:
        checkpoint: whose tensors it is for.
        model_cfg: of open_clip's.
        destinations: where the checkpoint's tensors go.
        found: the shapes of their destinations.
        classes: of the checkpoint's own head; None without one.
        with_text: whether the text tower is built.
        normalize: whether features are normalised before the head is applied.
        head: as `read_head` gives it; it stays the same whatever weights are set.

    Raises:
        ModelError: the tensors do not fit the configuration, or open_clip cannot build it.
    """
    # Checked before memory is allocated: a wrong name may be that of a model with billions of parameters.
    tower = {TOWER + name: shape for name, shape in visual_shapes(model_cfg).items()}
    require_fit(checkpoint, tower, destinations, part_of(found, TOWER))
    if with_text and not model_cfg["text_cfg"].get("hf_model_name"):
        wanted_text = {TEXT + name: shape for name, shape in text_shapes(model_cfg).items()}
        require_fit(checkpoint, wanted_text, destinations, part_of(found, TEXT))
    text = build_text(model_cfg) if with_text else None
    module = Classifier(build_visual(model_cfg), model_cfg["embed_dim"], classes, text, normalize=normalize)
    if BIAS in found:
        module.logit_bias = torch.nn.Parameter(torch.zeros(()))
    if classes is not None and f"{HEAD}bias" not in found:
        module.use_head(torch.zeros(classes, model_cfg["embed_dim"]))  # sets the bias to zero
        found = {**found, f"{HEAD}bias": (classes,)}
    require_fit(checkpoint, shapes_of(module), destinations, found)
    require_image_size(checkpoint, module.visual, model_cfg["vision_cfg"].get("image_size"))
    if head is not None:
        module.use_head(torch.zeros(head.info(f"{HEAD}weight").shape))
        tensors = {name: (head.info(name), head.read(name)) for name in head.tensors}
        fill(module, {name: Destination(name) for name in tensors}, tensors)
    return module.eval()


def require_image_size(checkpoint: Checkpoint, module: torch.nn.Module, size: Any) -> None:
    """Raise ModelError if a tower of timm's takes images of one size alone, and that is another one."""
    for part in module.modules():
        own = getattr(part, "img_size", None) if getattr(part, "strict_img_size", False) else None
        if isinstance(own, tuple) and isinstance(size, int) and own[0] != size:
            raise ModelError(
                f"{checkpoint.path}: its model takes images of {own[0]} pixels alone, not of {size}. Give "
                f"--image-size {own[0]}."
            )


def part_of(shapes: Mapping[str, Shape], prefix: str) -> dict[str, Shape]:
    """The shapes whose names begin with `prefix`."""
    return {name: shape for name, shape in shapes.items() if name.startswith(prefix)}


def shapes_of(module: torch.nn.Module) -> dict[str, Shape]:
    """The shapes of a module's tensors."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def require_fit(
    checkpoint: Checkpoint,
    wanted: Mapping[str, Shape],
    destinations: Mapping[str, Destination],
    found: Mapping[str, Shape],
) -> None:
    """Raise ModelError unless all tensors that are wanted are found, complete and in their shapes, and no others."""
    parts = Counter(to.name for to in destinations.values())
    incomplete = {to.name for to in destinations.values() if parts[to.name] != to.parts}
    wrong = sorted(incomplete | {name for name in {*wanted, *found} if wanted.get(name) != found.get(name)})
    if wrong:
        raise ModelError(
            f"{checkpoint.path}: does not fit the architecture in {len(wrong)} tensor{'s' * (len(wrong) > 1)}, the "
            f"first being {wrong[0]}, {_misfit(wanted.get(wrong[0]), found.get(wrong[0]))}. "
            "Name another one with --model."
        )


def _misfit(wanted: Shape | None, found: Shape | None) -> str:
    if wanted is None:
        return "which the architecture does not have"
    if found is None:
        return "which the checkpoint does not hold"
    if wanted == found:
        return "of which the checkpoint holds only a part"
    return f"expected in the shape {list(wanted)}, found in {list(found)}"
