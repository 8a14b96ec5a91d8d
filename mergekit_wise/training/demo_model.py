"""How the demo's zero-shot model is trained: a small CLIP on printed digits and captions of them.

Knows nothing of files, of fine-tuning, alphas or accuracies.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mergekit_wise.datasets.glyphs import CLASSNAMES, GlyphSampler, plain_glyph, render_pairs, varied_glyph
from mergekit_wise.models.names import HEAD
from mergekit_wise.models.text import create_tokenizer, zero_shot_head
from mergekit_wise.models.towers import create_clip
from mergekit_wise.progress import Progress, silent
from mergekit_wise.training.contrastive import train_contrastive
from mergekit_wise.training.optimizer import Optimization

# CLIP's ResNet, as small as open_clip builds it: small vision transformers learned nothing in a minute.
# The vocabulary is the tokenizer's; few features a word keep its embedding from being most of the model.
OPEN_CLIP_CONFIG: Mapping[str, Any] = {
    "model_cfg": {
        "embed_dim": 64,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64, "patch_size": None},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {
        "size": 32,
        "mode": "RGB",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
        "fill_color": 0,
    },
}
TEMPLATES = (
    "a photo of the number {}",
    "a picture of the digit {}",
    "the number {}",
    "a {}",
    "an image of the numeral {}",
    "one digit {}",
)


@dataclass(frozen=True, slots=True)
class Lesson:
    """One stage of pre-training: what is drawn, how many of them, how talkative the captions are, how it is learned."""

    name: str
    glyphs: GlyphSampler
    count: int
    detail: float
    settings: Optimization


# Plain digits first: with varied ones from the start both towers give every input the same features for hundreds of
# steps (the loss stays at ln 64). A hundred steps on plain digits under plain captions set them apart.
LESSONS = (
    Lesson("plain digits", plain_glyph, 3200, 0.0, Optimization(3, 64, 2e-3, warmup=30, betas=(0.9, 0.98))),
    # Warmed up for longer, lest it undo the first lesson.
    Lesson("varied digits", varied_glyph, 20480, 0.15, Optimization(3, 64, 2e-3, warmup=100, betas=(0.9, 0.98))),
)


def pretrain(seed: int, progress: Progress = silent) -> dict[str, Tensor]:
    """The zero-shot model's tensors: open_clip's state dict and ``classification_head.weight`` [10, 64], ``.bias``.

    The same seed gives the same bytes on the same machine with the same number of threads. Raises SuiteError where
    the fonts are missing.
    """
    model = _new_model(seed)
    tokenize = create_tokenizer(OPEN_CLIP_CONFIG["model_cfg"])
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    for lesson in LESSONS:
        images, captions = render_pairs(lesson.glyphs, lesson.count, lesson.detail, rng, progress)
        what = f"pre-training on {lesson.name}"
        pixels, tokens = torch.from_numpy(images), tokenize(captions)
        train_contrastive(model, pixels, tokens, prepare, lesson.settings, generator, progress, what)
    return {**_copy(model.eval().state_dict()), **_head(model, tokenize)}


def prepare(pixels: Tensor) -> Tensor:
    """Grey pixels, uint8 [B, 32, 32] -> float32 [B, 3, 32, 32]: what open_clip's transform makes of them as RGB."""
    mean, std = (torch.tensor(OPEN_CLIP_CONFIG["preprocess_cfg"][key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    return pixels.float().div(255).unsqueeze(1).expand(-1, 3, -1, -1).sub(mean).div(std)


def _new_model(seed: int) -> Any:
    """An untrained model in training mode; torch's global random state is as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create_clip(OPEN_CLIP_CONFIG["model_cfg"])


@torch.no_grad()
def _head(model: Any, tokenize: Callable[[list[str]], Tensor]) -> dict[str, Tensor]:
    weight, bias = zero_shot_head(
        lambda texts: model.encode_text(tokenize(texts)), CLASSNAMES, TEMPLATES, model.logit_scale
    )
    return {f"{HEAD}weight": weight, f"{HEAD}bias": bias}


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in state.items()}
