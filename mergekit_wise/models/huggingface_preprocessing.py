"""preprocessor_config.json of transformers, read whole as a ``preprocess_cfg`` and written from one.

What is computed is what transformers' processors compute with Pillow (``backend="pil"``; "slow" in older versions).
Those that use torchvision (``use_fast``) resize tensors, which differs by a level or two of 255; "nearest" takes other
pixels. Reads no file, and does not import transformers.
"""

from collections.abc import Mapping
from math import isclose, isfinite
from typing import Any

from mergekit_wise.errors import ModelError

_CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
_CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Pillow's resampling filters, by their numbers."""
_OPEN_CLIP_FILTERS = ("bilinear", "bicubic")

_CLIP: Mapping[str, Any] = {
    "size": {"shortest_edge": 224},
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "resample": 3,
    "image_mean": _CLIP_MEAN,
    "image_std": _CLIP_STD,
}
_VIT: Mapping[str, Any] = {
    "size": {"height": 224, "width": 224},
    "crop_size": None,
    "do_center_crop": False,
    "resample": 2,
    "image_mean": 0.5,
    "image_std": 0.5,
    "default_to_square": True,
}
_TYPES: Mapping[str, Mapping[str, Any]] = {
    "CLIP": _CLIP,
    "Bit": _CLIP,
    "ViT": _VIT,
    "DeiT": {
        **_VIT,
        **{"size": {"height": 256, "width": 256}, "do_center_crop": True, "resample": 3},
        "crop_size": {"height": 224, "width": 224},
    },
    "Siglip": {**_VIT, "resample": 3, "default_to_square": False},
    "ConvNext": {
        **_VIT,
        **{"size": {"shortest_edge": 384}, "resample": 3, "default_to_square": False, "crop_pct": 224 / 256},
    },
}
"""Defaults of transformers' image processors, by the beginnings of their names."""

_COMMON: Mapping[str, Any] = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
_HARMLESS = frozenset(
    (
        *("image_processor_type", "feature_extractor_type", "processor_class", "do_convert_rgb", "use_fast", "backend"),
        *("data_format", "input_data_format", "return_tensors", "device", "disable_grouping", "model_input_names"),
        *("_valid_processor_keys", "_name_or_path", "name_or_path", "transformers_version", "image_seq_length"),
        *("tokenizer_class", "image_processor_class", "feature_extractor_class", "default_to_square"),
    )
)
"""Entries that do not change the pixels of images that are decoded to RGB."""


def read_preprocessor(
    content: Mapping[str, Any], image_size: Any, *, family: str = "CLIP", name: str = "preprocessor_config.json"
) -> dict[str, Any]:
    """The ``preprocess_cfg`` of an image processor of transformers, as `Preprocess.of` takes it.

    Args:
        content: of preprocessor_config.json, or of "image_processor" in processor_config.json.
        image_size: the edge of the images that the model takes.
        family: the beginning of the processor's name, where `content` has none.
        name: of the file, for errors.

    Raises:
        ModelError: it describes what transformers would refuse, or what cannot be done here. Nothing is defaulted.
    """
    kind = str(content.get("image_processor_type") or content.get("feature_extractor_type") or family)
    for ending in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
        kind = kind.removesuffix(ending)
    problems = [] if kind in _TYPES else [f"image_processor_type {content.get('image_processor_type', kind)}"]
    given = {key: value for key, value in content.items() if value is not None}
    settings = {**_COMMON, **_TYPES.get(kind, _CLIP), **given}
    known = {*_COMMON, *_TYPES.get(kind, _CLIP), *_HARMLESS}
    # An entry that is false switches something off that is off by default.
    problems += [f"{key}: {value}" for key, value in given.items() if key not in known and value is not False]
    if problems:
        raise _refused(name, problems)
    try:
        return _steps(kind, settings, image_size)
    except (TypeError, ValueError, KeyError, ZeroDivisionError, OverflowError) as error:
        raise _refused(name, [str(error)]) from error


def _refused(name: str, problems: list[str]) -> ModelError:
    return ModelError(
        f"{name}: no such preprocessing is known ({', '.join(problems)}). To evaluate with that of one of open_clip's "
        "models, name it: --model NAME/TAG."
    )


def _steps(kind: str, settings: Mapping[str, Any], image_size: Any) -> dict[str, Any]:
    """Raises ValueError, and what ill-typed values raise."""
    mode, resize = _resize(settings)
    crop = _edges(settings["crop_size"], "crop_size") if settings["do_center_crop"] else None
    if kind == "ConvNext" and mode != "none":
        if crop is not None or mode != "shortest":
            raise ValueError(
                f"size {settings['size']} and crop_size {settings['crop_size']} for a {kind}ImageProcessor"
            )
        edge = resize[0]
        if edge < 384:
            crop, resize = resize, (int(edge / settings["crop_pct"]),) * 2
        else:
            mode = "squash"
    if crop is None and mode != "squash":
        raise ValueError("do_center_crop: False, which leaves images of different sizes")
    final = crop or resize
    wanted = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if final != wanted:
        raise ValueError(f"images of {final[0]} x {final[1]}, and the model takes {wanted[0]} x {wanted[1]}")
    interpolation = _filter(settings["resample"])
    # Where nothing is cropped, open_clip does the same.
    is_open_clips = mode == "squash" and final == resize and interpolation in _OPEN_CLIP_FILTERS
    return {
        **_values(settings),
        "interpolation": interpolation,
        "resize_mode": mode,
        **({} if is_open_clips else {"library": "transformers"}),
        **({} if mode == "none" or resize == final else {"resize": list(resize)}),
    }


def _resize(settings: Mapping[str, Any]) -> tuple[str, tuple[int, int]]:
    """The ``resize_mode``, with the height and width to resize to."""
    if not settings["do_resize"]:
        return "none", (0, 0)
    size = settings["size"]
    if isinstance(size, int):
        square = settings.get("default_to_square", False)
        size = {"height": size, "width": size} if square else {"shortest_edge": size}
    if isinstance(size, list):
        size = {"height": size[0], "width": size[1]}
    size = {key: value for key, value in size.items() if value is not None}
    if size.keys() == {"shortest_edge"}:
        return "shortest", (_natural(size["shortest_edge"]),) * 2
    if size.keys() == {"max_height", "max_width"}:
        return "longest", (_natural(size["max_height"]), _natural(size["max_width"]))
    if size.keys() == {"height", "width"}:
        return "squash", (_natural(size["height"]), _natural(size["width"]))
    raise ValueError(f"size: {size}")


def _edges(size: Any, key: str) -> tuple[int, int]:
    """Height and width; an integer is a square."""
    if size is None:
        raise ValueError(f"{key}: None")
    if isinstance(size, Mapping):
        size = {name: edge for name, edge in size.items() if edge is not None}
        if size.keys() != {"height", "width"}:
            raise ValueError(f"{key}: {size}")
        size = (size["height"], size["width"])
    height, width = (size, size) if isinstance(size, int) else size
    return _natural(height), _natural(width)


def _natural(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"a size of {value}")
    return value


def _filter(resample: Any) -> str:
    """The name of the filter, which may be given by its number or as Python prints it."""
    if isinstance(resample, str):
        resample = resample.rpartition(".")[2].lower()
        resample = int(resample) if resample.isdigit() else _FILTERS.index(resample) if resample in _FILTERS else -1
    if isinstance(resample, bool) or not isinstance(resample, int) or not 0 <= resample < len(_FILTERS):
        raise ValueError(f"resample: {resample}")
    return _FILTERS[resample]


def _values(settings: Mapping[str, Any]) -> dict[str, list[float]]:
    """Mean and deviation for pixels between 0 and 1, whatever the factor that the processor scales pixels by."""
    mean, std = ([0.0] * 3, [1.0] * 3)
    if settings["do_normalize"]:
        mean, std = _channels(settings["image_mean"]), _channels(settings["image_std"])
    factor = float(settings["rescale_factor"]) if settings["do_rescale"] else 1.0
    if not isclose(factor, 1 / 255, rel_tol=1e-6):
        mean, std = ([value / (255 * factor) for value in values] for values in (mean, std))
    if 0 in std or not all(map(isfinite, (*mean, *std))):
        raise ValueError(f"image_mean {mean} and image_std {std}")
    return {"mean": mean, "std": std}


def _channels(value: Any) -> list[float]:
    values = [float(value)] * 3 if isinstance(value, (int, float)) else list(map(float, value))
    if len(values) == 1:
        values *= 3
    if len(values) != 3:
        raise ValueError(f"{len(values)} channels")
    return values


def write_preprocessor(preprocess_cfg: Mapping[str, Any], image_size: int, *, is_siglip: bool) -> dict[str, Any]:
    """The content of preprocessor_config.json for a ``preprocess_cfg``; its values are scaled by 1/255.

    Crops of open_clip's become those of transformers, whose offset is at most a pixel from it: see
    `changes_when_written`. Raises ModelError if transformers has no such steps.
    """
    mode, filling = preprocess_cfg.get("resize_mode") or "shortest", preprocess_cfg.get("fill_color") or 0
    is_theirs = preprocess_cfg.get("library") == "transformers"
    if mode == "longest" and not is_theirs:
        raise ModelError(
            f"transformers has no such preprocessing: open_clip's resize_mode 'longest' (fill_color {filling}), which "
            "pads images. Give -o the name of a file, ending in .safetensors, to write the tensors alone."
        )
    square = {"height": image_size, "width": image_size}
    height, width = preprocess_cfg.get("resize") or (image_size, image_size)
    crops = mode != "squash" or (height, width) != (image_size, image_size)
    sizes = {
        "shortest": {"shortest_edge": height},
        "longest": {"max_height": height, "max_width": width},
        "squash": {"height": height, "width": width},
    }
    interpolation = preprocess_cfg.get("interpolation") or "bicubic"
    return {
        # transformers 4's SiglipImageProcessor does not crop.
        "image_processor_type": "SiglipImageProcessor" if is_siglip and not crops else "CLIPImageProcessor",
        "do_resize": mode != "none",
        "size": sizes.get(mode, square),
        "do_center_crop": crops,
        "crop_size": square,
        "resample": _FILTERS.index(interpolation if interpolation in _FILTERS else "bicubic"),  # "random"
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "do_convert_rgb": True,
        "image_mean": _channels(preprocess_cfg.get("mean") or _CLIP_MEAN),
        "image_std": _channels(preprocess_cfg.get("std") or _CLIP_STD),
    }


def changes_when_written(preprocess_cfg: Mapping[str, Any], to: str) -> tuple[str, ...]:
    """A note if the library `to` ("hf" or "open_clip") preprocesses images differently from the ``preprocess_cfg``."""
    is_theirs = preprocess_cfg.get("library") == "transformers"
    if to == "open_clip" and is_theirs:
        lacking = [f"resize {preprocess_cfg['resize']}"] if preprocess_cfg.get("resize") else []
        if preprocess_cfg["interpolation"] not in _OPEN_CLIP_FILTERS:
            lacking.append(f"interpolation {preprocess_cfg['interpolation']}")
        if preprocess_cfg["resize_mode"] in ("none", "longest"):
            lacking.append(f"resize_mode {preprocess_cfg['resize_mode']}")
        lacking.append("the offsets of crops, by up to one pixel")
        return (
            "the output keeps the preprocessing of transformers, with which wise evaluates it; what open_clip itself "
            f"does with the folder differs in {', '.join(lacking)}",
        )
    if to == "hf" and not is_theirs and (preprocess_cfg.get("resize_mode") or "shortest") != "squash":
        return (
            "the preprocessing was that of open_clip, whose crops differ from those of transformers by up to one pixel "
            "in images of some sizes",
        )
    return ()
