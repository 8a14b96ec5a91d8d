"""Which architecture is built for a checkpoint, and who says so: the user, its source, or its shapes.

What cannot be known is asked for. Builds nothing that takes memory, and reads no weights.
"""

import json
from dataclasses import dataclass
from typing import Any

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.errors import ModelError
from mergekit_wise.models.architecture import alike, configs, describe, fitting, name_of, require_config
from mergekit_wise.models.declared_config import DeclaredConfig, told
from mergekit_wise.models.huggingface import CLASSIFIER, classifier_config
from mergekit_wise.models.names import Reading
from mergekit_wise.models.pretrained import complete, tagged, usual


@dataclass(frozen=True, slots=True)
class ResolvedConfig:
    """open_clip's ``model_cfg`` and ``preprocess_cfg``, the latter complete; a name for people; who told."""

    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]
    name: str
    by: str

    def __str__(self) -> str:
        return f"{self.name} (told by {self.by})"


def decide(checkpoint: Checkpoint, reading: Reading, model: str | None, *, with_text: bool) -> ResolvedConfig:
    """The architecture named by `model`, or told by the checkpoint, or the only one that fits, the first of these.

    ``with_text``: whether the text tower is used; where it is not, what sets only text towers apart does not matter.
    Raises ModelError that lists what fits where nothing decides.
    """
    said = _asked(model) if model is not None else told(checkpoint) or _seen(checkpoint, reading, with_text)
    cfg = classifier_config(said.model_cfg) if reading.flavour == CLASSIFIER else dict(said.model_cfg)
    size = cfg["vision_cfg"].get("image_size", 224)
    return ResolvedConfig(
        cfg, complete(said.preprocess_cfg, size), name_of(cfg) or f"custom: {describe(reading)}", said.by
    )


def named(name: str) -> DeclaredConfig:
    """open_clip's configuration of this name, with the preprocessing that is usual for it. Raises ModelError."""
    cfg = require_config(name)
    preprocess, origin = usual(name, bool(cfg.get("quick_gelu", False)))
    return DeclaredConfig(cfg, preprocess, f"--model {name}; preprocessing: {origin}")


def _asked(model: str) -> DeclaredConfig:
    name, slash, tag = model.partition("/")
    return tagged(name, tag) if slash else named(name)


def _seen(checkpoint: Checkpoint, reading: Reading, with_text: bool) -> DeclaredConfig:
    guess = fitting(reading)
    same = alike(guess.names, with_text=with_text)
    choices = [usual(name, bool(configs()[name].get("quick_gelu", False))) for name in guess.names]
    if not choices or not same or len({json.dumps(preprocess) for preprocess, _ in choices}) > 1:
        fits = ", ".join(guess.names) or "none of open_clip's"
        raise ModelError(
            f"{checkpoint.path}: does not say which architecture it holds; what fits ({guess.reason}): "
            f"{fits}. Name it with --model."
        )
    preprocess, origin = choices[0]
    return DeclaredConfig(configs()[guess.names[0]], preprocess, f"names and shapes; preprocessing: {origin}")
