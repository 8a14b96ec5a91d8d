"""How a model lies in a repository of the Hugging Face hub so that its own library loads it from there.

The name of the weights, the configuration files beside them, and the lines of Python that load the model. Reads headers
and small JSON files; a module is built only where the configuration of a timm model is not complete.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.checkpoint.folder import OPEN_CLIP as OPEN_CLIP_PREFIX
from mergekit_wise.checkpoint.folder import OPEN_CLIP_JSON, SHARD, weights_folder_in, weights_in
from mergekit_wise.errors import ModelError
from mergekit_wise.merging.movement import head_names
from mergekit_wise.models.architecture import (
    TIMM,
    ResolvedConfig,
    declared_config,
    named_config,
    resolve_config,
    side_file,
    weights_folder,
)
from mergekit_wise.models.families import HF_CLIP, HF_SIGLIP, layout_of
from mergekit_wise.models.huggingface_export import to_hugging_face
from mergekit_wise.models.names import HEAD, SCALE, TEXT, Reading, read_names
from mergekit_wise.models.source import HUB

Library = Literal["open_clip", "timm", "transformers", "mergekit_wise", "safetensors"]
"""What loads the model; mergekit_wise itself where no other library has such a model, safetensors where none is known.
"""

ZERO_SHOT, CLASSIFICATION = "zero-shot-image-classification", "image-classification"
"""The hub's names of tasks."""


@dataclass(frozen=True, slots=True)
class HubLayout:
    """What a repository with a model holds besides its card.

    Attributes:
        library: what loads it.
        task: the hub's name of what it does; empty if that is not known.
        stem: of the names of the weights: ``model``, or ``open_clip_model``.
        architecture: its name, for people; empty if it is not known.
        auto_class: transformers' class that loads it; empty for other libraries.
        has_tokenizer: whether a folder holds a tokenizer of transformers.
        classes, input_size: of the head and of the images of a timm model, as far as they are known.
        is_folder: whether it is a folder, whose files keep their names.
        notes: why a library does not load it.
    """

    library: Library
    task: str
    stem: str = "model"
    architecture: str = ""
    auto_class: str = ""
    has_tokenizer: bool = False
    classes: int | None = None
    input_size: tuple[int, ...] | None = None
    is_folder: bool = False
    notes: tuple[str, ...] = ()

    def loading(self, name: str, repository: str | None) -> str:
        """Lines of Python that load the model from a repository, or from the file or folder called `name`."""
        place = f"{HUB}{repository}" if repository else name
        match self.library:
            case "open_clip" if repository or self.is_folder:
                model = _quoted(place if repository else f"local-dir:{name}")
                return (
                    f"import open_clip\n\nmodel, preprocess = open_clip.create_model_from_pretrained({model})\n"
                    f"tokenizer = open_clip.get_tokenizer({model})"
                )
            case "timm":
                return f"import timm\n\nmodel = timm.create_model({self._timm_arguments(name, repository)}).eval()"
            case "transformers" if repository or self.is_folder:
                processor = "AutoProcessor" if self.has_tokenizer else "AutoImageProcessor"
                where = _quoted(repository or name)
                return (
                    f"from transformers import {', '.join(sorted((self.auto_class, processor)))}\n\n"
                    f"model = {self.auto_class}.from_pretrained({where})\n"
                    f"processor = {processor}.from_pretrained({where})"
                )
        if self.task:
            names = ', classnames=["ant", "bee"]' if self.task == ZERO_SHOT else ""
            return f'import mergekit_wise\n\nreport = mergekit_wise.predict({_quoted(place)}, "photos"{names})'
        if repository:
            return (
                "from huggingface_hub import hf_hub_download\nfrom safetensors.torch import load_file\n\n"
                f'state_dict = load_file(hf_hub_download({_quoted(repository)}, "{self.stem}.safetensors"))'
            )
        return f"from safetensors.torch import load_file\n\nstate_dict = load_file({_quoted(name)})"

    def _timm_arguments(self, name: str, repository: str | None) -> str:
        if repository or self.is_folder:
            return f"{_quoted(f'{HUB}{repository}' if repository else f'local-dir:{name}')}, pretrained=True"
        classes = f", num_classes={self.classes}" if self.classes is not None else ""
        size = f', pretrained_cfg_overlay={{"input_size": {self.input_size}}}' if self.input_size else ""
        return f"{_quoted(self.architecture.removeprefix(TIMM))}, checkpoint_path={_quoted(name)}{classes}{size}"


def hub_layout(checkpoint: Checkpoint, model: str | None = None) -> HubLayout:
    """What a file or folder is on the hub. `model` is the architecture, if the checkpoint does not declare it.

    Raises ModelError if a configuration is unreadable or names no known model.
    """
    folder = _folder_layout(checkpoint)
    if folder is not None:
        return folder
    config = named_config(model) if model else declared_config(checkpoint)
    heads = head_names(checkpoint)
    if config is not None and config.is_timm:
        classes = checkpoint.info(heads[0]).shape[0] if len(heads) == 1 else None
        architecture, size = f"{TIMM}{config.config['architecture']}", config.config["pretrained_cfg"].get("input_size")
        known = isinstance(size, list) and all(type(side) is int for side in size)
        return HubLayout(
            "timm",
            CLASSIFICATION,
            architecture=architecture,
            classes=classes,
            input_size=tuple(size) if known else None,
        )
    reading = read_names(checkpoint)
    architecture = config.name(reading) if config is not None else ""
    if f"{HEAD}weight" in reading.shapes:
        return HubLayout("mergekit_wise", CLASSIFICATION, architecture=architecture)
    if config is None or not _has_both_towers(reading):
        return HubLayout("safetensors", "", architecture=architecture)
    if reading.layout == "open_clip" and not reading.prefix:
        if SHARD.fullmatch(_first_name(checkpoint)):
            note = "open_clip loads no weights in several files; merge again without --shard-size for a file it loads"
            return HubLayout("mergekit_wise", ZERO_SHOT, architecture=architecture, notes=(note,))
        return HubLayout("open_clip", ZERO_SHOT, f"{OPEN_CLIP_PREFIX}model", architecture)
    found = layout_of(checkpoint.tensors)
    if found is not None and found.family in (HF_CLIP, HF_SIGLIP) and not found.prefix:
        return HubLayout("transformers", ZERO_SHOT, architecture=architecture, auto_class="AutoModel")
    return HubLayout("mergekit_wise", ZERO_SHOT, architecture=architecture)


def configuration_files(checkpoint: Checkpoint, layout: HubLayout, model: str | None = None) -> dict[str, str]:
    """The configuration files, by name, that the library needs beside a single file of weights.

    Raises ModelError if the configuration cannot be known.
    """
    match layout.library:
        case "open_clip":
            return {OPEN_CLIP_JSON: _as_text(_of_clip(checkpoint, model).config)}
        case "transformers":
            files = to_hugging_face(_of_clip(checkpoint, model).config)
            return {name: _as_text(content) for name, content in files.items()}
        case "timm":
            return {"config.json": _as_text(_of_timm(checkpoint, model))}
    return {}


def _of_clip(checkpoint: Checkpoint, model: str | None) -> ResolvedConfig:
    config = resolve_config(checkpoint, model)
    both = {key: config.config[key] for key in ("model_cfg", "preprocess_cfg")}
    return ResolvedConfig(both, config.source)


def _of_timm(checkpoint: Checkpoint, model: str | None) -> dict[str, Any]:
    from mergekit_wise.models.opening import open_model  # torch; timm itself knows the settings that no file records

    config = open_model(checkpoint, model).config
    name, _, tag = str(config["architecture"]).partition(".")  # timm builds what has no tag here
    settings = {**config["pretrained_cfg"], **({"tag": tag} if tag else {})}
    return {"architecture": name, "num_classes": settings.pop("num_classes"), "pretrained_cfg": settings}


def _folder_layout(checkpoint: Checkpoint) -> HubLayout | None:
    """The layout of a folder that a library loads already; None for a file, or a folder without a configuration."""
    if not checkpoint.path.is_dir():
        return None
    folder = weights_folder(checkpoint) or weights_folder_in(checkpoint.path)
    named = weights_in(folder).name
    architecture = _architecture(checkpoint)
    if named.startswith(OPEN_CLIP_PREFIX) and (folder / OPEN_CLIP_JSON).is_file():
        return HubLayout("open_clip", ZERO_SHOT, f"{OPEN_CLIP_PREFIX}model", architecture, is_folder=True)
    config = side_file(folder, "config.json")
    if "architecture" in config:
        return HubLayout("timm", CLASSIFICATION, architecture=architecture, is_folder=True)
    if isinstance(config.get("model_type"), str):
        task, auto_class = _transformers_task(config)
        has_tokenizer = any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json", "spiece.model"))
        return HubLayout("transformers", task, "model", architecture, auto_class, has_tokenizer, is_folder=True)
    return None


def _transformers_task(config: Mapping[str, Any]) -> tuple[str, str]:
    """The task of a model of transformers, and the class that loads it."""
    known = config.get("architectures")
    name = str(known[0]) if isinstance(known, list) and known else ""
    if name.endswith("ForImageClassification"):
        return CLASSIFICATION, "AutoModelForImageClassification"
    return (ZERO_SHOT if name in ("CLIPModel", "SiglipModel", "Siglip2Model") else ""), "AutoModel"


def _architecture(checkpoint: Checkpoint) -> str:
    try:
        config = declared_config(checkpoint)
        return "" if config is None else config.name(read_names(checkpoint))
    except ModelError:  # what the folder's own library understands need not be known here
        return ""


def _has_both_towers(reading: Reading) -> bool:
    text = any(name.startswith("transformer.") for name in reading.part(TEXT))
    return text and SCALE in reading.shapes and reading.missing_tower is None


def _first_name(checkpoint: Checkpoint) -> str:
    return checkpoint.files[0].path.name if checkpoint.files else ""


def _quoted(text: str) -> str:
    """A text as Python writes it, between double quotes."""
    return json.dumps(text, ensure_ascii=False)


def _as_text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"
