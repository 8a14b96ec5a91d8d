"""timm's image classifiers, which have their own head and no text tower. Knows nothing of CLIP."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import timm
import torch
from timm.data.config import resolve_data_config
from torch import Tensor, nn

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.errors import ModelError
from mergekit_wise.models.architecture import TIMM
from mergekit_wise.models.bounds import require_plausible
from mergekit_wise.models.destinations import Destination
from mergekit_wise.models.structure import Structure, structure_of
from mergekit_wise.models.towers import uninitialized
from mergekit_wise.options import MAX_IMAGE

_RECORDED = (
    *("input_size", "test_input_size", "fixed_input_size", "mean", "std", "interpolation", "crop_pct", "test_crop_pct"),
    *("crop_mode", "classifier"),
)

_DATA = frozenset(
    ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode", "test_input_size", "test_crop_pct")
)
"""Entries of timm's ``pretrained_cfg`` that are about images."""

_RESIZE_MODES = {"center": "shortest", "squash": "squash", "border": "longest"}
"""open_clip's ``resize_mode`` for each ``crop_mode`` of timm."""


class TimmClassifier(nn.Module):
    """Logits [B, C] of images [B, 3, H, W], computed by a timm model."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(self.model.num_classes)

    def encode(self, images: Tensor) -> Tensor:
        """The features [B, D] that the last layer is applied to."""
        features: Tensor = self.model.forward_head(self.model.forward_features(images), pre_logits=True)
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, C]."""
        logits: Tensor = self.model(images)
        return logits

    def linear_head(self, images: Tensor) -> nn.Linear | None:
        """The last layer, if the logits of `images` are what this linear layer makes of `encode`'s features.

        None for models that do more: several heads, heads with layers of their own, logits that are changed afterwards.
        The weights must be set.
        """
        head = self.model.get_classifier()
        if not isinstance(head, nn.Linear):
            return None
        calls: list[tuple[Tensor, Tensor]] = []
        watching = head.register_forward_hook(lambda _, inputs, output: calls.append((inputs[0], output)))
        mode = self.training
        self.eval()
        try:
            with torch.inference_mode(), torch.autocast(images.device.type, enabled=False):
                logits = self(images)
                once, features = len(calls) == 1, self.encode(images)
        finally:
            watching.remove()
            self.train(mode)
        last = once and calls[0][1].data_ptr() == logits.data_ptr() and calls[0][1].shape == logits.shape
        same = last and features.shape == calls[0][0].shape and torch.allclose(features, calls[0][0], rtol=1e-4)
        return head if same else None


def build_timm(
    checkpoint: Checkpoint, name: str, settings: Mapping[str, Any]
) -> tuple[TimmClassifier, dict[str, Any], dict[str, Destination], str]:
    """The module with uninitialised weights, its preprocessing, where each tensor goes, and a remark for people.

    The module has as many classes as the checkpoint's head.

    Args:
        checkpoint: of timm's model `name`.
        name: as in ``timm.create_model``.
        settings: timm's ``pretrained_cfg``, as far as it is known.

    Raises:
        ModelError: timm has no such model, or the checkpoint has no head of it.
    """
    model = _create(name, _plausible(checkpoint, settings))
    weight = f"{_classifiers(model)[0]}.weight"
    if weight not in checkpoint.tensors:
        raise ModelError(
            f"{checkpoint.path}: has no classifier {weight!r}, which timm's {name} has. Give a checkpoint with a head."
        )
    classes = checkpoint.info(weight).shape[0]
    if classes != model.num_classes:
        with uninitialized():
            model.reset_classifier(classes)
    destinations = {tensor: Destination(f"model.{tensor}") for tensor in checkpoint.tensors}
    preprocess, remark = _data_config(model, name, settings)
    return TimmClassifier(model), preprocess, destinations, remark


@cache
def _structure(name: str, settings: str, classes: int) -> Structure:
    with torch.device("meta"):
        model = _create(name, json.loads(settings))
        if classes != model.num_classes:
            model.reset_classifier(classes)
    return structure_of(model)


def structure_of_timm(name: str, settings: Mapping[str, Any], classes: int) -> Structure:
    """The parts of timm's model with so many classes; nothing of its size is allocated. Raises ModelError."""
    return _structure(name, json.dumps(dict(settings)), classes)


def recorded_settings(module: TimmClassifier) -> dict[str, Any]:
    """What a file must say of timm's ``pretrained_cfg`` so that the model is built and its images prepared as here."""
    cfg = module.model.pretrained_cfg
    return {key: cfg[key] for key in _RECORDED if cfg.get(key) is not None} | {"num_classes": module.classes}


def new_head_shapes(
    checkpoint: Checkpoint, name: str, settings: Mapping[str, Any], classes: int
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of timm's classifier with so many classes. Raises ModelError."""
    model = _create(name, _plausible(checkpoint, settings))
    with uninitialized():
        model.reset_classifier(classes)
    prefixes = tuple(f"{part}." for part in _classifiers(model))
    state = model.state_dict()
    return {tensor: tuple(value.shape) for tensor, value in state.items() if tensor.startswith(prefixes)}


def _classifiers(model: Any) -> tuple[str, ...]:
    """The names of the model's last layers; distilled models have two."""
    classifier = model.pretrained_cfg.get("classifier")
    return tuple(classifier) if isinstance(classifier, (tuple, list)) else (str(classifier),)


def _plausible(checkpoint: Checkpoint, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of an untrusted file. Raises ModelError if they ask for more than the file holds."""
    require_plausible(
        settings, {name: tensor.info.shape for name, tensor in checkpoint.tensors.items()}, str(checkpoint.path)
    )
    for size in (settings.get("input_size"), settings.get("test_input_size")):
        if isinstance(size, (list, tuple)) and any(
            isinstance(side, (int, float)) and side > MAX_IMAGE for side in size
        ):
            raise ModelError(
                f"{checkpoint.path}: the configuration asks for images of {list(size)}; {MAX_IMAGE} is the limit."
            )
    return settings


def _create(name: str, settings: Mapping[str, Any]) -> Any:
    if not timm.is_model(name.split(".")[0]) or ":" in name:  # "hf-hub:..." would be downloaded
        from difflib import get_close_matches

        close = ", ".join(get_close_matches(name, timm.list_models(), 3)) or "see timm.list_models()"
        raise ModelError(f"--model {TIMM}{name}: timm has no such model. Close to it: {close}.")
    known = {key: value for key, value in settings.items() if key in _DATA | {"num_classes", "classifier"}}
    # Timm's own entry is for weights whose other sizes may differ from those of the settings.
    for key in ("input_size", "crop_pct"):
        if key in settings:
            known.setdefault(f"test_{key}", None)
    try:
        with uninitialized():
            return timm.create_model(name, pretrained=False, pretrained_cfg_overlay=known)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"timm cannot build {name}: {str(error).strip().splitlines()[0]}") from error


def _data_config(model: Any, name: str, settings: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Timm's preprocessing in validation, as `Preprocess.of` takes it, and a remark on what was assumed.

    As in timm's validate.py, images have the size for tests, where the weights have another one than for training.
    Raises ModelError if timm's names are not known.
    """
    cfg = model.pretrained_cfg
    data = resolve_data_config({}, model=model, use_test_size=not cfg.get("fixed_input_size"))  # type: ignore[no-untyped-call]
    mode, trained = data["crop_mode"], cfg["input_size"]
    if mode not in _RESIZE_MODES:
        raise ModelError(f"timm has no crop_mode {mode!r}; it has {', '.join(_RESIZE_MODES)}.")
    remark = ""
    if "." not in name and not settings.keys() & _DATA:
        tag = cfg.get("tag")
        remark = (
            f"; preprocessing: timm's for {cfg['architecture']}.{tag}" if tag else "; preprocessing: timm's default"
        )
    if tuple(data["input_size"]) != tuple(trained):
        remark += f"; images of timm's test size {data['input_size'][-1]} (training: {trained[-1]})"
    return {
        "size": list(data["input_size"][1:]),
        "mode": "RGB",
        "mean": list(data["mean"]),
        "std": list(data["std"]),
        "interpolation": data["interpolation"],
        "resize_mode": _RESIZE_MODES[mode],
        "fill_color": [round(255 * value) for value in data["mean"]] if mode == "border" else 0,
        "crop_pct": data["crop_pct"],
    }, remark
