"""A checkpoint becomes a model: what its names mean, which architecture that is, and a module that fits it.

Knows no data set, and sets no weights but those of a head that comes in a file of its own.
"""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.errors import ModelError
from mergekit_wise.models.classifier import Classifier
from mergekit_wise.models.clip import create_tokenizer
from mergekit_wise.models.declared_config import folder_of, normalizes
from mergekit_wise.models.huggingface import CLASSIFIER, NO_SIGLIP, SIGLIP
from mergekit_wise.models.model import Model, fill
from mergekit_wise.models.names import HEAD, SCALE, TEXT, TOWER, Reading, head_places, read_names
from mergekit_wise.models.places import Place
from mergekit_wise.models.resolved_config import decide
from mergekit_wise.models.timm_classifier import PREFIX, open_timm, timm_asked, timm_told
from mergekit_wise.models.towers import build_text, build_visual, visual_shapes

Shape = tuple[int, ...]


def open_model(
    checkpoint: Checkpoint, model: str | None = None, *, head: Checkpoint | None = None, own_head: bool = True
) -> Model:
    """A module for the checkpoint, on the CPU, its weights yet to be set.

    Args:
        checkpoint: of any flavour that `read_names` knows, or of a timm classifier.
        model: open_clip's name of the architecture, ``NAME/TAG`` for the settings of one of its pretrained weights, or
            ``timm:NAME``; where it is given, what the checkpoint says of itself is not asked.
        head: a file of a linear classifier [classes, features], to use instead of the checkpoint's own.
        own_head: False for a head of class names, even though the checkpoint has one of its own.

    Raises:
        ModelError: the architecture is not told and cannot be seen, the tensors do not fit it, or there is neither a
            head nor a text tower to make one.
    """
    timm = timm_told(checkpoint) if model is None else timm_asked(model)
    if timm is not None:
        if head is not None or not own_head:
            raise ModelError(f"{checkpoint.path}: a classifier of timm's has its own head, and no place for another.")
        return _timm_model(checkpoint, *timm, by="config.json" if model is None else "--model")
    reading = read_names(checkpoint)
    _require_tower(checkpoint, reading)
    classes = _classes(checkpoint, reading) if own_head and head is None else None
    with_text = classes is None and head is None
    if with_text and not _has_text_tower(reading):
        raise ModelError(
            f"{checkpoint.path}: has no classification head ({HEAD}weight), and no whole text tower to make one with. "
            "Evaluate a checkpoint that was saved with one, or give the file of a head."
        )
    opened = _clip_model(checkpoint, reading, model, classes, with_text)
    return opened if head is None else _with_head(opened, head)


def _require_tower(checkpoint: Checkpoint, reading: Reading) -> None:
    if reading.flavour == SIGLIP:
        raise ModelError(f"{checkpoint.path}: {NO_SIGLIP}.")
    if not reading.part(TOWER):
        raise ModelError(
            f"{checkpoint.path}: no image tower was found by its names (visual.conv1.weight, vision_model.* ...). "
            "If it is a classifier of timm's, name it: --model timm:NAME."
        )


def _clip_model(
    checkpoint: Checkpoint, reading: Reading, model: str | None, classes: int | None, with_text: bool
) -> Model:
    decision = decide(checkpoint, reading, model, with_text=with_text)
    cfg = decision.model_cfg
    wanted = (TOWER, *((HEAD,) if classes is not None else ()), *((TEXT, SCALE) if with_text else ()))
    places = {name: place for name, place in reading.places.items() if place.name.startswith(wanted)}
    found = {place.name: reading.shapes[place.name] for place in places.values()}
    # First without memory: the wrong name may be that of a model of billions of parameters.
    tower = {TOWER + name: shape for name, shape in visual_shapes(cfg).items()}
    _require_fit(checkpoint, tower, places, {name: shape for name, shape in found.items() if name.startswith(TOWER)})
    text = build_text(cfg) if with_text else None
    normalize = reading.flavour != CLASSIFIER and (classes is None or normalizes(checkpoint, HEAD))
    module = Classifier(build_visual(cfg), cfg["embed_dim"], classes, text, normalize=normalize)
    if classes is not None and f"{HEAD}bias" not in found:
        module.use_head(torch.zeros(classes, cfg["embed_dim"]))  # for its bias
        found[f"{HEAD}bias"] = (classes,)
    _require_fit(checkpoint, _shapes(module), places, found)
    return Model(
        module=module.eval(),
        preprocess=decision.preprocess_cfg,
        architecture=str(decision),
        config={"model_cfg": cfg, "preprocess_cfg": decision.preprocess_cfg, "told_by": decision.by},
        places=places,
        has_own_head=classes is not None,
        create_tokenizer=partial(create_tokenizer, cfg, folder_of(checkpoint)) if with_text else None,
    )


def _timm_model(checkpoint: Checkpoint, name: str, settings: Mapping[str, Any], by: str) -> Model:
    module, preprocess, places = open_timm(checkpoint, name, settings)
    found = {place.name: checkpoint.info(tensor).shape for tensor, place in places.items()}
    _require_fit(checkpoint, _shapes(module), places, found)
    return Model(module.eval(), preprocess, f"{PREFIX}{name} (told by {by})", {}, places, has_own_head=True)


def _classes(checkpoint: Checkpoint, reading: Reading) -> int | None:
    """How many classes the checkpoint's own head has; None if it has no head."""
    shape = reading.shapes.get(f"{HEAD}weight")
    if shape is not None and (len(shape) != 2 or 0 in shape):
        raise ModelError(f"{checkpoint.path}: expected a head [classes, features], found one of shape {list(shape)}.")
    return None if shape is None else shape[0]


def _has_text_tower(reading: Reading) -> bool:
    """Training scripts delete the tower's transformer, and leave the tensors around it."""
    return SCALE in reading.shapes and any(name.startswith("transformer.") for name in reading.part(TEXT))


def _with_head(opened: Model, head: Checkpoint) -> Model:
    """The model with the head out of a file, which stays as it is whatever weights are set."""
    places = head_places(head)
    (weight,) = (name for name, place in places.items() if place.name.endswith("weight"))
    assert isinstance(opened.module, Classifier)
    shape, features = head.info(weight).shape, opened.config["model_cfg"]["embed_dim"]
    if shape[1] != features or 0 in shape:
        raise ModelError(f"{head.path}: expected a head for {features} features, found one of shape {list(shape)}.")
    opened.use_head(torch.zeros(shape))
    opened.module.normalize &= normalizes(head, weight.removesuffix("weight"))
    fill(opened.module, places, {name: (head.info(name), head.read(name)) for name in places})
    return Model(**{**vars(opened), "has_own_head": True})


def _shapes(module: torch.nn.Module) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _require_fit(
    checkpoint: Checkpoint, wanted: Mapping[str, Shape], places: Mapping[str, Place], found: Mapping[str, Shape]
) -> None:
    """Raise ModelError unless all tensors that are wanted are found, whole and in their shapes, and no others."""
    parts = Counter(place.name for place in places.values())
    apart = {place.name for place in places.values() if parts[place.name] != place.parts}
    wrong = sorted(apart | {name for name in {*wanted, *found} if wanted.get(name) != found.get(name)})
    if wrong:
        raise ModelError(
            f"{checkpoint.path}: does not fit the architecture in {len(wrong)} tensors, the first being {wrong[0]}, "
            f"{_misfit(wanted.get(wrong[0]), found.get(wrong[0]))}. Name another one with --model."
        )


def _misfit(wanted: Shape | None, found: Shape | None) -> str:
    if wanted is None:
        return "which the architecture does not have"
    if found is None:
        return "which the checkpoint does not hold"
    if wanted == found:
        return "of which the checkpoint holds a part alone"
    return f"expected in the shape {list(wanted)}, found in {list(found)}"
