"""Builds a model for a checkpoint: a module that fits its configuration, checked tensor by tensor.

Knows no data set, and sets no weights but those of a head from its own file. Which model a checkpoint holds is asked in
`resolved_config`.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from open_clip.transform import PreprocessCfg, merge_preprocess_dict

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.errors import ModelError
from mergekit_wise.models.architecture import ResolvedConfig, normalizes, resolve_config, weights_folder
from mergekit_wise.models.bounds import require_plausible
from mergekit_wise.models.classifier import Classifier
from mergekit_wise.models.destinations import Destination
from mergekit_wise.models.head_files import AS_DECLARED, HeadReading, read_head
from mergekit_wise.models.head_names import declared_class_names
from mergekit_wise.models.huggingface import CLASSIFIER
from mergekit_wise.models.model import Model, fill
from mergekit_wise.models.names import BIAS, HEAD, SCALE, TEXT, TOWER, Reading, read_names
from mergekit_wise.models.open_clip_configs import name_of
from mergekit_wise.models.timm_classifier import build_timm, recorded_settings
from mergekit_wise.models.towers import build_text, build_visual, text_shapes, visual_shapes
from mergekit_wise.models.transform import OWN_KEYS
from mergekit_wise.models.zero_shot_head import create_tokenizer

Shape = tuple[int, ...]


def open_model(
    checkpoint: Checkpoint,
    model: str | None = None,
    *,
    head: Checkpoint | None = None,
    reading: HeadReading = AS_DECLARED,
    own_head: bool = True,
    image_size: int | None = None,
) -> Model:
    """A module for the checkpoint, on the CPU, with uninitialised weights: `resolve_config`, then `load`.

    Args:
        checkpoint: of any layout that `read_names` knows, or of a timm classifier.
        model: the architecture, as for `resolve_config`.
        head: a file of a linear classifier, to use instead of the checkpoint's own; see `read_head`.
        reading: how that file is read.
        own_head: False for a head of class names, even if the checkpoint has one of its own.
        image_size: pixels along a side of the model's images, as for `resolve_config`.

    Raises:
        ModelError: `resolve_config` or `load` raises it.
    """
    with_text = head is None and not (own_head and f"{HEAD}weight" in read_names(checkpoint).shapes)
    resolved = resolve_config(checkpoint, model, with_text=with_text, image_size=image_size)
    return load(checkpoint, resolved, head=head, reading=reading, own_head=own_head)


def load(
    checkpoint: Checkpoint,
    resolved: ResolvedConfig,
    *,
    head: Checkpoint | None = None,
    reading: HeadReading = AS_DECLARED,
    own_head: bool = True,
) -> Model:
    """A module that is built from a configuration for the checkpoint; see `open_model` for the arguments.

    Raises ModelError if the tensors do not fit, or there is neither a head nor a text tower to make one with.
    """
    if resolved.is_timm:
        if head is not None or not own_head:
            raise ModelError(
                f"{checkpoint.path}: a timm classifier has its own head, which cannot be replaced. Leave --head out."
            )
        return _timm_model(checkpoint, resolved)
    names = read_names(checkpoint)
    classes = _classes(checkpoint, names) if own_head and head is None else None
    with_text = classes is None and head is None
    if with_text and not has_text_tower(names):
        if not own_head:
            raise ModelError(
                f"{checkpoint.path}: has no complete text tower, which makes heads from class names. Give the "
                "checkpoint that has both encoders."
            )
        raise ModelError(
            f"{checkpoint.path}: has no classification head ({HEAD}weight), and no complete text tower to make one "
            "with. Use a checkpoint that was saved with a head, or give the file of a head with --head; training can "
            "start from --new-head."
        )
    model = _clip_model(checkpoint, names, resolved, classes, with_text)
    return model if head is None else _with_head(model, head, reading)


def _clip_model(
    checkpoint: Checkpoint, reading: Reading, resolved: ResolvedConfig, classes: int | None, with_text: bool
) -> Model:
    cfg, where = resolved.config["model_cfg"], str(checkpoint.path)
    wanted = (TOWER, *((HEAD,) if classes is not None else ()), *((TEXT, SCALE, BIAS) if with_text else ()))
    destinations = {name: to for name, to in reading.destinations.items() if to.name.startswith(wanted)}
    found = {to.name: reading.shapes[to.name] for to in destinations.values()}
    if name_of(cfg) is None:  # not one of open_clip's own, whose numbers are known
        require_plausible({**cfg["vision_cfg"], "embed_dim": cfg["embed_dim"]}, _part(found, TOWER), where)
        if with_text:
            require_plausible(cfg["text_cfg"], _part(found, TEXT), where)
    # Checked before memory is allocated: a wrong name may be that of a model with billions of parameters.
    tower = {TOWER + name: shape for name, shape in visual_shapes(cfg).items()}
    found_tower = _part(found, TOWER)
    _require_fit(checkpoint, tower, destinations, found_tower)
    if with_text and not cfg["text_cfg"].get("hf_model_name"):
        wanted_text = {TEXT + name: shape for name, shape in text_shapes(cfg).items()}
        _require_fit(checkpoint, wanted_text, destinations, _part(found, TEXT))
    text = build_text(cfg) if with_text else None
    normalize = reading.layout != CLASSIFIER and (classes is None or normalizes(checkpoint, HEAD))
    module = Classifier(build_visual(cfg), cfg["embed_dim"], classes, text, normalize=normalize)
    if BIAS in found:
        module.logit_bias = torch.nn.Parameter(torch.zeros(()))
    if classes is not None and f"{HEAD}bias" not in found:
        module.use_head(torch.zeros(classes, cfg["embed_dim"]))  # sets the bias to zero
        found[f"{HEAD}bias"] = (classes,)
    _require_fit(checkpoint, _shapes(module), destinations, found)
    _require_image_size(checkpoint, module.visual, cfg["vision_cfg"].get("image_size"))
    preprocess = _complete(resolved.config["preprocess_cfg"], cfg["vision_cfg"].get("image_size", 224))
    complete = replace(resolved, config={"model_cfg": cfg, "preprocess_cfg": preprocess})
    return Model(
        module=module.eval(),
        preprocess=preprocess,
        architecture=f"{resolved.name(reading)} (from {resolved.source})",
        config=complete.with_source(),
        destinations=destinations,
        has_own_head=classes is not None,
        create_tokenizer=partial(create_tokenizer, cfg, weights_folder(checkpoint)) if with_text else None,
        class_names=None if classes is None else declared_class_names(checkpoint),
    )


def _timm_model(checkpoint: Checkpoint, resolved: ResolvedConfig) -> Model:
    name, settings = resolved.config["architecture"], resolved.config["pretrained_cfg"]
    module, preprocess, destinations, remark = build_timm(checkpoint, name, settings)
    found = {to.name: checkpoint.info(tensor).shape for tensor, to in destinations.items()}
    _require_fit(checkpoint, _shapes(module), destinations, found)
    _require_image_size(checkpoint, module, preprocess["size"][0])
    architecture = f"{resolved.name(read_names(checkpoint))} (from {resolved.source}{remark})"
    recorded = replace(resolved, config={"architecture": name, "pretrained_cfg": recorded_settings(module)})
    return Model(
        module=module.eval(),
        preprocess=preprocess,
        architecture=architecture,
        config=recorded.with_source(),
        destinations=destinations,
        has_own_head=True,
        class_names=declared_class_names(checkpoint),
    )


def _complete(preprocess_cfg: Mapping[str, Any], image_size: Any) -> dict[str, Any]:
    """``preprocess_cfg`` with open_clip's defaults filled in, and the size of the tower's images."""
    filled: dict[str, Any] = merge_preprocess_dict(asdict(PreprocessCfg()), dict(preprocess_cfg))
    own = {key: preprocess_cfg[key] for key in OWN_KEYS if preprocess_cfg.get(key) is not None}
    return filled | own | {"size": image_size}


def _classes(checkpoint: Checkpoint, reading: Reading) -> int | None:
    """The number of classes of the checkpoint's own head; None if it has no head."""
    shape = reading.shapes.get(f"{HEAD}weight")
    if shape is not None and (len(shape) != 2 or 0 in shape):
        raise ModelError(f"{checkpoint.path}: expected a head [classes, features], found one of shape {list(shape)}.")
    return None if shape is None else shape[0]


def has_text_tower(reading: Reading) -> bool:
    """Whether the text tower is complete: training scripts delete its transformer, and keep the tensors around it."""
    return SCALE in reading.shapes and any(name.startswith("transformer.") for name in reading.part(TEXT))


def _with_head(model: Model, file: Checkpoint, reading: HeadReading) -> Model:
    """The model with the head from a file, which stays the same whatever weights are set."""
    assert isinstance(model.module, Classifier)
    head = read_head(file, model.config["model_cfg"]["embed_dim"], reading)
    model.use_head(torch.zeros(head.info(f"{HEAD}weight").shape))
    model.module.normalize &= normalizes(head, HEAD)
    tensors = {name: (head.info(name), head.read(name)) for name in head.tensors}
    fill(model.module, {name: Destination(name) for name in tensors}, tensors)
    return replace(model, has_own_head=True, class_names=declared_class_names(file), notes=head.notes)


def _require_image_size(checkpoint: Checkpoint, module: torch.nn.Module, size: Any) -> None:
    """Raise ModelError if a tower of timm's takes images of one size alone, and that is another one."""
    for part in module.modules():
        own = getattr(part, "img_size", None) if getattr(part, "strict_img_size", False) else None
        if isinstance(own, tuple) and isinstance(size, int) and own[0] != size:
            raise ModelError(
                f"{checkpoint.path}: its model takes images of {own[0]} pixels alone, not of {size}. Give "
                f"--image-size {own[0]}."
            )


def _part(shapes: Mapping[str, Shape], prefix: str) -> dict[str, Shape]:
    return {name: shape for name, shape in shapes.items() if name.startswith(prefix)}


def _shapes(module: torch.nn.Module) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _require_fit(
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
