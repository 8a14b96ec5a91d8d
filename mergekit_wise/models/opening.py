"""Resolves a checkpoint to a model: what its module is, where its tensors go, and how its images are prepared.

Headers and small files decide; the module is built when it is first needed (`Model.module`), so that what was measured
before is recognized without torch. Knows no data set. Which model a checkpoint holds is asked in `resolve_config`.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.errors import ModelError
from mergekit_wise.models.architecture import ResolvedConfig, normalizes, resolve_config, weights_folder
from mergekit_wise.models.bounds import require_plausible
from mergekit_wise.models.head_files import AS_DECLARED, HeadReading, read_head
from mergekit_wise.models.head_names import declared_class_names
from mergekit_wise.models.huggingface import CLASSIFIER
from mergekit_wise.models.model import Model
from mergekit_wise.models.names import BIAS, HEAD, SCALE, TEXT, TOWER, Reading, read_names
from mergekit_wise.models.open_clip_configs import complete_preprocessing, name_of

if TYPE_CHECKING:
    from mergekit_wise.models.classifier import Classifier
    from mergekit_wise.models.zero_shot_head import Tokenizer

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
    """A module for the checkpoint, built on the CPU, with uninitialised weights; see `resolve_model`."""
    found = resolve_model(checkpoint, model, head=head, reading=reading, own_head=own_head, image_size=image_size)
    found.build()
    return found


def resolve_model(
    checkpoint: Checkpoint,
    model: str | None = None,
    *,
    head: Checkpoint | None = None,
    reading: HeadReading = AS_DECLARED,
    own_head: bool = True,
    image_size: int | None = None,
) -> Model:
    """The model for the checkpoint, whose module is not built yet unless it is timm's, which alone knows its settings.

    Args:
        checkpoint: of any layout that `read_names` knows, or of a timm classifier.
        model: the architecture, as for `resolve_config`.
        head: a file of a linear classifier, to use instead of the checkpoint's own; see `read_head`.
        reading: how that file is read.
        own_head: False for a head of class names, even if the checkpoint has one of its own.
        image_size: pixels along a side of the model's images, as for `resolve_config`.

    Raises:
        ModelError: `resolve_config` raises it, or there is neither a head nor a text tower to make one with. That the
            tensors do not fit is raised when the module is built.
    """
    with_text = head is None and not (own_head and f"{HEAD}weight" in read_names(checkpoint).shapes)
    resolved = resolve_config(checkpoint, model, with_text=with_text, image_size=image_size)
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
    return _clip_model(checkpoint, names, resolved, classes, head, reading)


def _clip_model(
    checkpoint: Checkpoint,
    reading: Reading,
    resolved: ResolvedConfig,
    classes: int | None,
    head: Checkpoint | None,
    how: HeadReading,
) -> Model:
    cfg, where = resolved.config["model_cfg"], str(checkpoint.path)
    with_text = classes is None and head is None
    wanted = (TOWER, *((HEAD,) if classes is not None else ()), *((TEXT, SCALE, BIAS) if with_text else ()))
    destinations = {name: to for name, to in reading.destinations.items() if to.name.startswith(wanted)}
    found = {to.name: reading.shapes[to.name] for to in destinations.values()}
    if name_of(cfg) is None:  # not one of open_clip's own, whose numbers are known
        require_plausible({**cfg["vision_cfg"], "embed_dim": cfg["embed_dim"]}, _part(found, TOWER), where)
        if with_text:
            require_plausible(cfg["text_cfg"], _part(found, TEXT), where)
    own = None if head is None else read_head(head, cfg["embed_dim"], how)
    normalize = reading.layout != CLASSIFIER and (classes is None or normalizes(checkpoint, HEAD))
    normalize = normalize and (own is None or normalizes(own, HEAD))
    preprocess = complete_preprocessing(resolved.config["preprocess_cfg"], cfg["vision_cfg"].get("image_size", 224))
    complete = replace(resolved, config={"model_cfg": cfg, "preprocess_cfg": preprocess})

    @cache
    def build() -> "Classifier":
        from mergekit_wise.models.building import build_clip

        return build_clip(
            checkpoint, cfg, destinations, found, classes, with_text=with_text, normalize=normalize, head=own
        )

    named = checkpoint if head is None else head
    return Model(
        build=build,
        preprocess=preprocess,
        architecture=f"{resolved.name(reading)} (from {resolved.source})",
        config=complete.with_source(),
        destinations=destinations,
        has_own_head=not with_text,
        own_classes=classes if own is None else own.info(f"{HEAD}weight").shape[0],
        normalize=normalize,
        create_tokenizer=partial(_tokenizer, cfg, weights_folder(checkpoint)) if with_text else None,
        class_names=None if with_text else declared_class_names(named),
        notes=() if own is None else own.notes,
    )


def _timm_model(checkpoint: Checkpoint, resolved: ResolvedConfig) -> Model:
    from mergekit_wise.models.building import require_fit, require_image_size, shapes_of
    from mergekit_wise.models.timm_classifier import build_timm, recorded_settings

    name, settings = resolved.config["architecture"], resolved.config["pretrained_cfg"]
    module, preprocess, destinations, remark = build_timm(checkpoint, name, settings)
    found = {to.name: checkpoint.info(tensor).shape for tensor, to in destinations.items()}
    require_fit(checkpoint, shapes_of(module), destinations, found)
    require_image_size(checkpoint, module, preprocess["size"][0])
    architecture = f"{resolved.name(read_names(checkpoint))} (from {resolved.source}{remark})"
    recorded = replace(resolved, config={"architecture": name, "pretrained_cfg": recorded_settings(module)})
    built = module.eval()
    return Model(
        build=lambda: built,
        preprocess=preprocess,
        architecture=architecture,
        config=recorded.with_source(),
        destinations=destinations,
        has_own_head=True,
        own_classes=built.classes,
        class_names=declared_class_names(checkpoint),
    )


def _tokenizer(model_cfg: Mapping[str, Any], folder: Path | None) -> "Tokenizer":
    from mergekit_wise.models.zero_shot_head import create_tokenizer

    return create_tokenizer(model_cfg, folder)


def _classes(checkpoint: Checkpoint, reading: Reading) -> int | None:
    """The number of classes of the checkpoint's own head; None if it has no head."""
    shape = reading.shapes.get(f"{HEAD}weight")
    if shape is not None and (len(shape) != 2 or 0 in shape):
        raise ModelError(f"{checkpoint.path}: expected a head [classes, features], found one of shape {list(shape)}.")
    return None if shape is None else shape[0]


def has_text_tower(reading: Reading) -> bool:
    """Whether the text tower is complete: training scripts delete its transformer, and keep the tensors around it."""
    return SCALE in reading.shapes and any(name.startswith("transformer.") for name in reading.part(TEXT))


def _part(shapes: Mapping[str, Shape], prefix: str) -> dict[str, Shape]:
    return {name: shape for name, shape in shapes.items() if name.startswith(prefix)}
