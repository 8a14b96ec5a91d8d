"""Which model a checkpoint holds: the one place that asks, and the answer together with its source.

In this order it asks the user (``--model``), the checkpoint's metadata, the files next to the weights, the arguments of
a training script, the layout of the weights (some code saves one kind of model only), and the shapes of the weights.
QuickGELU, head widths and preprocessing do not show in weights: they are read from one of the former, or the user is
asked for ``--model``.

Reads headers and small JSON files. Imports torch and open_clip only where a name or shapes are looked up in open_clip's
tables, so that a merge can pass on the configuration of its sources without them.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.checkpoint.bounded_json import parse_json
from mergekit_wise.checkpoint.folder import OPEN_CLIP_JSON, WEIGHTS, weights_folder_in
from mergekit_wise.errors import ModelError
from mergekit_wise.models.huggingface import CLASSIFIER, classifier_config, hugging_face_config
from mergekit_wise.models.huggingface_preprocessing import read_preprocessor
from mergekit_wise.models.names import HEAD, OPENAI, TEXT, TOWER, Reading, read_names
from mergekit_wise.models.open_clip_configs import (
    VISION_DEFAULTS,
    compute_the_same,
    ignored_settings,
    name_of,
    pretrained_config,
    require_config,
    usual_preprocessing,
)
from mergekit_wise.models.torchvision_weights import torchvision_settings
from mergekit_wise.models.training_run import arguments_config, run_files_config
from mergekit_wise.models.weight_shapes import Guess, describe, fitting, image_facts, position_grid, text_facts

CLASSNAMES_KEY = "classnames"
"""The metadata entry that holds the names of the head's classes, as a JSON list."""

CONFIG_KEY = "open_clip_config"
"""The metadata entry that holds what Hugging Face's open_clip repositories have as open_clip_config.json."""

TIMM_KEY = "timm_config"
"""The metadata entry that holds what timm's repositories have as config.json."""

PREPROCESSOR_JSON = "preprocessor_config.json"
PROCESSOR_JSON = "processor_config.json"

TIMM = "timm:"
"""The prefix of a timm model's name in ``--model`` and in records."""

_SOURCE_KEY = "told_by"
"""The entry of the configuration in a file's metadata that holds its source."""

_HEAD_WIDTH = 64
"""Features per attention head in all of OpenAI's models."""

_MAX_JSON_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class ResolvedConfig:
    """A configuration, and its source, for people.

    Attributes:
        config: of a CLIP, what open_clip_config.json holds ("model_cfg", "preprocess_cfg"); of a timm model, what its
            config.json holds ("architecture", "pretrained_cfg").
        source: who or what the configuration is from.
    """

    config: Mapping[str, Any]
    source: str

    @property
    def is_timm(self) -> bool:
        """Whether this is an image classifier of timm's, not a CLIP."""
        return "architecture" in self.config

    def name(self, reading: Reading) -> str:
        """open_clip's or timm's name of the architecture, or a description of the weights that were read."""
        if self.is_timm:
            return f"{TIMM}{self.config['architecture']}"
        return name_of(self.config["model_cfg"]) or f"custom: {describe(reading)}"

    def with_source(self) -> dict[str, Any]:
        """The configuration with its source, as a file's metadata holds it."""
        return {**self.config, _SOURCE_KEY: self.source}


def resolve_config(
    checkpoint: Checkpoint, model: str | None = None, *, with_text: bool = True, image_size: int | None = None
) -> ResolvedConfig:
    """The configuration that `model` names, or the checkpoint declares, or else the only one that fits its shapes.

    Args:
        checkpoint: of any layout that `read_names` knows, or of a timm classifier.
        model: open_clip's name of the architecture, ``NAME/TAG`` for the settings of its pretrained weights, or
            ``timm:NAME``. If it is given, nothing else is asked.
        with_text: whether the text tower will be used; if not, configurations may differ in their text towers.
        image_size: pixels along a side of the model's images, in place of what the configuration says. Without it,
            the position embedding decides, if it shows a size.

    Raises:
        ModelError: there is no such model, the checkpoint holds no image tower, its configuration is unreadable,
            its shapes fit no architecture or several ones, or its position embedding is for another `image_size`.
    """
    declared = _named_for(checkpoint, model) if model is not None else declared_config(checkpoint)
    if declared is not None and declared.is_timm:
        return declared if image_size is None else _sized_timm(declared, image_size)
    reading = read_names(checkpoint)
    if reading.missing_tower:
        raise ModelError(f"{checkpoint.path}: {reading.missing_tower}.")
    resolved = _sized(checkpoint, reading, declared or _config_of_shapes(checkpoint, reading, with_text), image_size)
    if reading.layout != CLASSIFIER:
        return resolved
    return replace(resolved, config={**resolved.config, "model_cfg": classifier_config(resolved.config["model_cfg"])})


def _sized(
    checkpoint: Checkpoint, reading: Reading, resolved: ResolvedConfig, image_size: int | None
) -> ResolvedConfig:
    """The configuration for images of `image_size`, or of the size that the position embedding shows."""
    cfg = resolved.config["model_cfg"]
    grid = position_grid(reading.part(TOWER))
    named = cfg["vision_cfg"].get("image_size", VISION_DEFAULTS["image_size"])
    if image_size is None and (grid is None or not isinstance(named, int) or named // grid.pixels == grid.side):
        return resolved
    if image_size is not None and grid is not None and image_size // grid.pixels != grid.side:
        raise ModelError(
            f"--image-size {image_size}: the position embedding of {checkpoint.path} is for images of {grid.size} "
            "pixels. Leave the option out."
        )
    size = image_size or (grid.size if grid else named)
    if size == named:
        return resolved
    vision = {**cfg["vision_cfg"], "image_size": size}
    origin = "--image-size" if image_size else "its position embedding"
    return replace(
        resolved,
        config={**resolved.config, "model_cfg": {**cfg, "vision_cfg": vision}},
        source=f"{resolved.source}; images of {size} pixels by {origin}, not {named}",
    )


def _sized_timm(resolved: ResolvedConfig, image_size: int) -> ResolvedConfig:
    settings = {
        key: value
        for key, value in resolved.config["pretrained_cfg"].items()
        if key not in ("test_input_size", "test_crop_pct")
    }
    return replace(
        resolved,
        config={**resolved.config, "pretrained_cfg": settings | {"input_size": [3, image_size, image_size]}},
        source=f"{resolved.source}; images of {image_size} pixels by --image-size",
    )


def config_entry(config: Mapping[str, Any]) -> dict[str, str]:
    """The metadata entry that holds a configuration of a CLIP or of a timm model."""
    return {TIMM_KEY if "architecture" in config else CONFIG_KEY: json.dumps(config)}


def guess_architecture(checkpoint: Checkpoint) -> Guess:
    """The architecture that the checkpoint declares, or else all that fit its shapes, with the reason."""
    try:
        declared, reading = declared_config(checkpoint), read_names(checkpoint)
        if declared is not None:
            return Guess((declared.name(reading),), f"from {declared.source}")
    except ModelError as error:
        return Guess((), str(error))
    return fitting(reading)


def declared_config(checkpoint: Checkpoint) -> ResolvedConfig | None:
    """The first configuration found: in the metadata, next to the weights, in arguments of training, or implied.

    Returns None if there is none. Raises ModelError if the one that was found is unreadable.
    """
    return (
        _metadata_config(checkpoint)
        or _side_file_config(checkpoint)
        or _training_config(checkpoint)
        or _layout_config(checkpoint)
        or _torchvision_config(checkpoint)
    )


def named_config(model: str) -> ResolvedConfig:
    """The configuration that ``--model`` names. Raises ModelError, which lists similar names."""
    if model.startswith(TIMM):
        return ResolvedConfig({"architecture": model.removeprefix(TIMM), "pretrained_cfg": {}}, "--model")
    name, slash, tag = model.partition("/")
    if slash:
        return ResolvedConfig(pretrained_config(name, tag), f"open_clip's {name}/{tag}")
    model_cfg = require_config(name)
    preprocess_cfg, origin = usual_preprocessing(name)
    return ResolvedConfig(
        {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}, f"--model; preprocessing: {origin}"
    )


def _named_for(checkpoint: Checkpoint, model: str) -> ResolvedConfig:
    """The configuration that ``--model`` names; torchvision's preprocessing for a file of its weights."""
    named, known = named_config(model), _torchvision_config(checkpoint)
    if known is None or not named.is_timm or named.config["architecture"] != known.config["architecture"]:
        return named
    return replace(known, source=f"{named.source}; preprocessing: {known.source}")


def _torchvision_config(checkpoint: Checkpoint) -> ResolvedConfig | None:
    """The configuration of torchvision's pretrained weights under timm's name, which has the same network."""
    found = torchvision_settings(checkpoint.path.name)
    if found is None:
        return None
    architecture, settings, weights = found
    config = {"architecture": architecture, "pretrained_cfg": settings}
    return ResolvedConfig(config, f"the file's name: torchvision's {weights}")


def declared_preprocessing(checkpoint: Checkpoint, image_size: Any) -> tuple[dict[str, Any], str] | None:
    """The ``preprocess_cfg`` that a folder of a SigLIP of Hugging Face's declares, and its origin, for people.

    None if there is none, or where `declared_config` gives it. Raises ModelError if it cannot be read.
    """
    folder = weights_folder(checkpoint)
    if folder is None or side_file(folder, "config.json").get("model_type") != "siglip":
        return None
    content, name = _preprocessor(folder)
    return (read_preprocessor(content, image_size, family="Siglip", name=name), name) if content else None


def with_declared_config(checkpoint: Checkpoint, declared: ResolvedConfig | None = None) -> Checkpoint:
    """The checkpoint with `declared`, or its own declared configuration, in its metadata, which merged files inherit.

    Metadata that the checkpoint has already is kept. An unreadable configuration is ignored: a merge does not need it.
    """
    if CONFIG_KEY in checkpoint.metadata or TIMM_KEY in checkpoint.metadata:
        return checkpoint
    try:
        declared = declared or declared_config(checkpoint)
    except ModelError:
        return checkpoint
    return checkpoint if declared is None else _with_config(checkpoint, declared)


def with_named_config(checkpoint: Checkpoint, model: str) -> Checkpoint:
    """The checkpoint with the configuration that ``--model`` names in its metadata, in place of what it declares.

    Raises ModelError if there is no such model, or if the image tower has other tensors than the checkpoint's.
    """
    named = _named_for(checkpoint, model)
    if not named.is_timm:
        reading = read_names(checkpoint)
        named = named if reading.missing_tower else _sized(checkpoint, reading, named, None)
        _require_tower(checkpoint, named, model)
    return _with_config(checkpoint, named)


def _with_config(checkpoint: Checkpoint, config: ResolvedConfig) -> Checkpoint:
    kept = {key: value for key, value in checkpoint.metadata.items() if key not in (CONFIG_KEY, TIMM_KEY)}
    key = TIMM_KEY if config.is_timm else CONFIG_KEY
    return replace(checkpoint, metadata={**kept, key: json.dumps(config.with_source())})


def _require_tower(checkpoint: Checkpoint, named: ResolvedConfig, model: str) -> None:
    from mergekit_wise.models.towers import visual_shapes

    reading = read_names(checkpoint)
    tower = reading.part(TOWER)
    if reading.missing_tower or reading.layout == CLASSIFIER or tower == visual_shapes(named.config["model_cfg"]):
        return
    fits = ", ".join(fitting(reading).names) or "none of open_clip's"
    raise ModelError(
        f"--model {model}: {checkpoint.path} holds another image encoder ({describe(reading)}). What fits: {fits}."
    )


def normalizes(checkpoint: Checkpoint, head: str) -> bool:
    """Whether features are normalised before the head whose tensors begin with `head`: yes, if the file is silent."""
    key = f"{head}normalize"
    return not any(value == "false" and name.endswith(key) for name, value in checkpoint.metadata.items())


def weights_folder(checkpoint: Checkpoint) -> Path | None:
    """The folder whose other files describe the weights; None for a file with a name that its user chose."""
    if checkpoint.is_translated:
        return None
    checkpoint = checkpoint.base or checkpoint
    if checkpoint.path.is_dir():
        return weights_folder_in(checkpoint.path)
    return checkpoint.path.parent if checkpoint.path.name in WEIGHTS else None


def _metadata_config(checkpoint: Checkpoint) -> ResolvedConfig | None:
    text = checkpoint.metadata.get(CONFIG_KEY)
    if text is None:
        return _timm_metadata_config(checkpoint)
    config = _open_clip_config(text, f"{checkpoint.path}: its metadata entry {CONFIG_KEY!r}")
    return ResolvedConfig(_both(config), _metadata_source(CONFIG_KEY, config) + _remark(config))


def _timm_metadata_config(checkpoint: Checkpoint) -> ResolvedConfig | None:
    text = checkpoint.metadata.get(TIMM_KEY)
    if text is None:
        return None
    try:
        config = parse_json(text.encode())
        known = {"architecture": str(config["architecture"]), "pretrained_cfg": dict(config["pretrained_cfg"])}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(
            f"{checkpoint.path}: its metadata entry {TIMM_KEY!r} is no configuration of timm's."
        ) from error
    return ResolvedConfig(known, _metadata_source(TIMM_KEY, config))


def _metadata_source(key: str, config: Mapping[str, Any]) -> str:
    origin = config.get(_SOURCE_KEY)
    if not isinstance(origin, str):
        return f"its metadata ({key})"
    if not origin.startswith("its metadata"):
        return f"its metadata ({key}, originally from {origin})"
    first = origin.partition(", originally from ")[2].removesuffix(")")
    return f"its metadata ({key}, originally from {first})" if first else f"its metadata ({key})"


def _training_config(checkpoint: Checkpoint) -> ResolvedConfig | None:
    found = run_files_config(checkpoint) or arguments_config(checkpoint)
    return None if found is None else ResolvedConfig(*found)


def _side_file_config(checkpoint: Checkpoint) -> ResolvedConfig | None:
    folder = weights_folder(checkpoint)
    if folder is None:
        return None
    if config := side_file(folder, OPEN_CLIP_JSON):
        text = json.dumps({"preprocess_cfg": {}, **config})
        config = _open_clip_config(text, str(folder / OPEN_CLIP_JSON))
        return ResolvedConfig(_both(config), OPEN_CLIP_JSON + _remark(config))
    config = side_file(folder, "config.json")
    if isinstance(config.get("architecture"), str) and isinstance(config.get("pretrained_cfg"), dict):
        return ResolvedConfig({key: config[key] for key in ("architecture", "pretrained_cfg")}, "config.json")
    if config.get("model_type") != "clip":
        return None
    preprocessor, name = _preprocessor(folder)
    origin = name if preprocessor else f"CLIP's default is assumed, because there is no {name}"
    try:
        return ResolvedConfig(hugging_face_config(config, preprocessor, name), f"config.json; preprocessing: {origin}")
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise ModelError(f"{folder / 'config.json'}: does not describe a CLIPModel ({error!r}).") from error


def _layout_config(checkpoint: Checkpoint) -> ResolvedConfig | None:
    """OpenAI's CLIP models, and what others saved of them: always with QuickGELU and heads of 64 features."""
    reading = read_names(checkpoint)
    source = _openai_source(checkpoint, reading)
    vision = image_facts(reading.part(TOWER))
    if source is None or vision is None:
        return None
    embed_dim = vision.pop("embed_dim")
    text = text_facts(reading.part(TEXT))
    whole = {"width", "layers", "vocab_size", "context_length"} <= text.keys()
    text_cfg = {**text, "heads": text["width"] // _HEAD_WIDTH} if whole else {}
    model_cfg = {"embed_dim": embed_dim, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text_cfg}
    return ResolvedConfig({"model_cfg": model_cfg, "preprocess_cfg": {}}, source)


def _openai_source(checkpoint: Checkpoint, reading: Reading) -> str | None:
    """What shows that the weights are, or were made from, OpenAI's model; None if nothing does."""
    if reading.layout == OPENAI:
        return "the kind of archive: OpenAI's CLIP, which uses QuickGELU"
    # FLYP pickles a CLIPEncoder under the same module name, which may hold any model of open_clip's.
    if any(re.search(r"src\.models\.modeling\.Image(Classifier|Encoder)\b", note) for note in checkpoint.notes):
        return "the pickled class: the WiSE-FT authors' code, which knows OpenAI's CLIP alone, with QuickGELU"
    # model-soups wraps OpenAI's ViT-B/32, deletes the text transformer and keeps the tensors around it.
    remains = {"text.token_embedding.weight", "text.ln_final.weight"} <= reading.shapes.keys()
    wraps = reading.prefix == "model." and f"{HEAD}weight" in checkpoint.tensors
    if wraps and remains and not any(name.startswith("text.transformer.") for name in reading.shapes):
        return "its names: the model-soups authors' code, which knows OpenAI's CLIP alone, with QuickGELU"
    return None


def _config_of_shapes(checkpoint: Checkpoint, reading: Reading, with_text: bool) -> ResolvedConfig:
    guess = fitting(reading)
    choices = [usual_preprocessing(name) for name in guess.names]
    same = compute_the_same(guess.names, with_text=with_text)
    if not choices or not same or len({json.dumps(preprocess) for preprocess, _ in choices}) > 1:
        fits = ", ".join(guess.names) or "none of open_clip's"
        raise ModelError(
            f"{checkpoint.path}: does not say which architecture it holds; what fits ({guess.reason}): "
            f"{fits}. Name it with --model."
        )
    preprocess_cfg, origin = choices[0]
    config = {"model_cfg": require_config(guess.names[0]), "preprocess_cfg": preprocess_cfg}
    return ResolvedConfig(config, f"names and shapes; preprocessing: {origin}")


def _open_clip_config(text: str, where: str) -> dict[str, Any]:
    try:
        config = parse_json(text.encode())
        config["model_cfg"]["vision_cfg"].items(), config["model_cfg"]["embed_dim"], config["preprocess_cfg"].items()
        config["model_cfg"].setdefault("text_cfg", {}).items()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{where} is no open_clip configuration.") from error
    assert isinstance(config, dict)
    return config


def _remark(config: Mapping[str, Any]) -> str:
    """What is ignored of the configuration, for people; empty if nothing is."""
    found = ignored_settings(config["preprocess_cfg"])
    return f"; ignored in preprocess_cfg, as by open_clip: {', '.join(found)}" if found else ""


def _both(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: config[key] for key in ("model_cfg", "preprocess_cfg")}


def _preprocessor(folder: Path) -> tuple[dict[str, Any], str]:
    """The settings of an image processor of transformers, {} if there are none, and the name of their file.

    As in transformers, those within processor_config.json come first.
    """
    whole = side_file(folder, PROCESSOR_JSON).get("image_processor")
    if isinstance(whole, dict):
        return whole, PROCESSOR_JSON
    return side_file(folder, PREPROCESSOR_JSON), PREPROCESSOR_JSON


def side_file(folder: Path, name: str) -> dict[str, Any]:
    """The content of a JSON file next to the weights; {} if there is none. Raises ModelError if it is unreadable."""
    path = folder / name
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ValueError(f"it is {path.stat().st_size:,} bytes long")
        content = parse_json(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: expected a JSON file that describes the model: {error}.") from error
    return content
