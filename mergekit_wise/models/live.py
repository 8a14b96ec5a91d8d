"""What a module in memory is: a model of a library that is known, under what configuration, or one of the user's own.

Libraries are looked up among those that are loaded, and never imported for this. Imports no torch by itself.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mergekit_wise.errors import ModelError
from mergekit_wise.models.architecture import CLASSNAMES_KEY, CONFIG_KEY, TIMM_KEY
from mergekit_wise.models.huggingface import hugging_face_config

if TYPE_CHECKING:
    from torch import nn

_OPEN_CLIP = ("CLIP", "CustomTextCLIP", "CoCa")
_HUGGING_FACE = ("CLIPModel", "CLIPForImageClassification")
_SIGLIP = ("SiglipModel", "Siglip2Model")

_WRAPPERS = (
    ("torch.nn.parallel", "DistributedDataParallel", "module"),
    ("torch.nn", "DataParallel", "module"),
    ("torch._dynamo", "OptimizedModule", "_orig_mod"),
    ("torch._dynamo.eval_frame", "OptimizedModule", "_orig_mod"),
)

ASSUMED = "CLIP's default is assumed, because a module has no preprocessor; give another one with --model NAME/TAG"


@dataclass(frozen=True, slots=True)
class Declared:
    """What a module declares of itself.

    Attributes:
        library: that the model is of; empty for a module of the user's.
        metadata: what a file of the model would hold: its configuration, the names of its classes.
        problem: why it cannot be evaluated from its weights; empty if it can.
    """

    library: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""


def unwrapped(module: "nn.Module") -> "nn.Module":
    """The model inside torch.compile's, DataParallel's and DistributedDataParallel's wrappers."""
    for library, name, inner in _WRAPPERS:
        if _is(module, library, name):
            return unwrapped(getattr(module, inner))
    return module


def is_two_tower(module: "nn.Module") -> bool:
    """Whether a module gives features of images and texts, not logits of classes."""
    module = unwrapped(module)
    return any(
        _is(module, library, name)
        for library, names in (("open_clip", _OPEN_CLIP), ("transformers", ("CLIPModel", *_SIGLIP)))
        for name in names
    )


def declared_by(module: "nn.Module") -> Declared:
    """What an unwrapped module is, and declares."""
    if _is(module, "peft", "PeftModel"):
        return Declared(
            "peft",
            problem="is a PeftModel, whose adapters are not merged into its weights. Give "
            "copy.deepcopy(model).merge_and_unload(), or the folder of model.save_pretrained(FOLDER)",
        )
    if any(_is(module, "open_clip", name) for name in _OPEN_CLIP):
        from mergekit_wise.models.live_open_clip import recognised

        config, problem = recognised(module)
        return Declared("open_clip", {} if config is None else {CONFIG_KEY: json.dumps(config)}, problem)
    if any(_is(module, "transformers", name) for name in (*_HUGGING_FACE, *_SIGLIP)):
        return _hugging_face(module)
    settings = getattr(module, "pretrained_cfg", None)
    if "timm" in sys.modules and isinstance(settings, Mapping) and type(module).__module__.startswith("timm."):
        return _timm(module, settings)
    kind = type(module)
    return Declared(
        "",
        problem=f"is a module of its own class ({kind.__module__}.{kind.__qualname__}), whose forward pass its weights "
        "do not show. Give `transform`, a function PIL image -> float tensor [C, H, W], and the module is called "
        "itself; or name an architecture that computes the same with --model",
    )


def _hugging_face(module: Any) -> Declared:
    """A model of transformers, whose ``config.to_dict()`` is what config.json would hold."""
    config = module.config.to_dict()
    labels = config.get("id2label") or {}
    names = [labels.get(number, labels.get(str(number))) for number in range(len(labels))]
    metadata = {CLASSNAMES_KEY: json.dumps(names)} if _has_head(module) and all(map(_is_name, names)) else {}
    if any(_is(module, "transformers", name) for name in _SIGLIP):
        return Declared("transformers", metadata)
    if problem := _changed(module):
        return Declared("transformers", metadata, problem)
    try:
        found = hugging_face_config(config, {})
    except (ModelError, KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        return Declared("transformers", metadata, f"has a configuration that does not describe a CLIPModel ({error!r})")
    source = f"the module's config; preprocessing: {ASSUMED}"
    return Declared("transformers", {**metadata, CONFIG_KEY: json.dumps({**found, "told_by": source})})


def _has_head(module: Any) -> bool:
    return _is(module, "transformers", "CLIPForImageClassification")


def _is_name(name: object) -> bool:
    return isinstance(name, str) and bool(name.strip()) and not name.startswith("LABEL_")


def _changed(module: "nn.Module") -> str:
    """Why weights do not say what a module computes: a hook, or a method that was replaced; empty if nothing is."""
    for name, part in module.named_modules():
        if part._forward_hooks or part._forward_pre_hooks:
            return f"has hooks in {name or 'itself'}, which its weights do not show. Remove them"
        if "forward" in vars(part):
            return f"has a forward pass of its own in {name or 'itself'}, which its weights do not show. {_CALLED}"
    return ""


_CALLED = (
    "If it gives logits, give `transform`, and the module is called itself; to have it computed as a model that is "
    "known, name that with --model"
)


def _timm(module: Any, settings: Mapping[str, Any]) -> Declared:
    """A model of timm's; its `pretrained_cfg` is what timm's config.json would hold."""
    kept = {key: value for key, value in dict(settings).items() if _is_plain(value)}
    names = kept.pop("label_names", None)
    architecture = str(kept.get("architecture") or "")
    metadata: dict[str, str] = {}
    if isinstance(names, list | tuple) and len(names) == module.num_classes and all(map(_is_name, names)):
        metadata[CLASSNAMES_KEY] = json.dumps(list(names))
    if not architecture:
        return Declared("timm", metadata, "does not say which of timm's models it is. Name it with --model timm:NAME")
    config = {"architecture": architecture, "pretrained_cfg": kept, "told_by": "the module's pretrained_cfg"}
    return Declared("timm", {**metadata, TIMM_KEY: json.dumps(config)}, _changed(module) or _unlike(module, config))


def _unlike(module: Any, config: Mapping[str, Any]) -> str:
    """Why a module is not what timm builds under its name; empty if it is."""
    from mergekit_wise.models.structure import first_difference, structure_of
    from mergekit_wise.models.timm_classifier import structure_of_timm

    try:
        wanted = structure_of_timm(config["architecture"], config["pretrained_cfg"], module.num_classes)
    except ModelError as error:
        return str(error).rstrip(".")
    differing = first_difference(structure_of(module), wanted)
    return differing and f"is not what timm builds as {config['architecture']}: {differing} differs. {_CALLED}"


def _is_plain(value: object) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def _is(module: object, library: str, name: str) -> bool:
    """Whether a module is of a class of a library that is loaded."""
    kind = vars(sys.modules[library]).get(name) if library in sys.modules else None
    if kind is None and library == "transformers" and library in sys.modules:  # its classes are found when asked for
        kind = next((each for each in type(module).__mro__ if each.__name__ == name and _root(each) == library), None)
    return isinstance(kind, type) and isinstance(module, kind)


def _root(kind: type) -> str:
    return kind.__module__.partition(".")[0]
