"""The demo's zero-shot model: a small CLIP that is pre-trained on printed digits and captions of them.

Knows nothing of files, fine-tuning, alphas or accuracies.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mergekit_wise.datasets.glyphs import CLASSNAMES, GlyphSampler, plain_glyph, render_pairs, varied_glyph
from mergekit_wise.models.names import HEAD
from mergekit_wise.models.towers import create_clip
from mergekit_wise.models.zero_shot_head import create_tokenizer, zero_shot_head
from mergekit_wise.progress import Progress, silent
from mergekit_wise.training.objectives import cap_logit_scale, contrastive_loss
from mergekit_wise.training.optimizer import Optimization, OptimizerStep

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
class Stage:
    """One stage of pre-training: which digits, how many images, how detailed their captions, the hyperparameters."""

    name: str
    glyphs: GlyphSampler
    count: int
    detail: float
    settings: Optimization


# Plain digits first: with varied ones from the start both towers give every input the same features for hundreds of
# steps (the loss stays at ln 64). A hundred steps on plain digits under plain captions set them apart.
STAGES = (
    Stage(
        "plain digits",
        plain_glyph,
        3200,
        0.0,
        Optimization(3, 64, 2e-3, warmup=30, betas=(0.9, 0.98), decay="matrices"),
    ),
    # A longer warm-up, so that it does not undo the first stage.
    Stage(
        "varied digits",
        varied_glyph,
        20480,
        0.15,
        Optimization(3, 64, 2e-3, warmup=100, betas=(0.9, 0.98), decay="matrices"),
    ),
)


def pretrain(seed: int, progress: Progress = silent, stages: Sequence[Stage] = STAGES) -> dict[str, Tensor]:
    """Train the zero-shot model; return its tensors: open_clip's state dict and a head.

    The head is ``classification_head.weight`` [10, 64] and ``classification_head.bias`` [10].

    The same seed gives the same bytes on the same machine with the same number of threads. Raises SuiteError where
    the fonts are missing.
    """
    model = _new_model(seed)
    tokenize = create_tokenizer(OPEN_CLIP_CONFIG["model_cfg"])
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    for stage in stages:
        images, captions = render_pairs(stage.glyphs, stage.count, stage.detail, rng, progress)
        what = f"pre-training on {stage.name}"
        pixels, tokens = torch.from_numpy(images), tokenize(captions)
        train_contrastive(model, pixels, tokens, prepare, stage.settings, generator, progress, what)
    return {**_copy(model.eval().state_dict()), **_head(model, tokenize)}


def train_contrastive(
    model: Any,
    images: Tensor,
    tokens: Tensor,
    preprocess: Callable[[Tensor], Tensor],
    settings: Optimization,
    generator: torch.Generator,
    progress: Progress = silent,
    what: str = "pre-training",
) -> None:
    """Train both towers of ``model`` in place; rows i of ``images`` [N, ...] and ``tokens`` [N, L] are a pair.

    ``model`` has ``encode_image``, ``encode_text`` and ``logit_scale``, like open_clip's models; ``preprocess`` turns
    a batch of stored images into the image tower's input. The last batch is left out if it is not full, because the
    loss depends on the number of captions that an image is compared with.
    """
    steps = len(images) // settings.batch_size
    optimizer = OptimizerStep(model.named_parameters(), settings, settings.epochs * steps)
    for _ in range(settings.epochs):
        order = torch.randperm(len(images), generator=generator)
        for batch in torch.split(order, settings.batch_size)[:steps]:
            progress(what, optimizer.taken, optimizer.total, "steps")
            optimizer.step(_batch_loss(model, preprocess(images[batch]), tokens[batch]))
            cap_logit_scale(model.logit_scale)
    progress(what, optimizer.total, optimizer.total, "steps")


def prepare(pixels: Tensor) -> Tensor:
    """Grey pixels, uint8 [B, 32, 32] -> float32 [B, 3, 32, 32]: what open_clip's transform makes of them as RGB."""
    mean, std = (torch.tensor(OPEN_CLIP_CONFIG["preprocess_cfg"][key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    return pixels.float().div(255).unsqueeze(1).expand(-1, 3, -1, -1).sub(mean).div(std)


def _new_model(seed: int) -> Any:
    """Return an untrained model in training mode; torch's global random state does not change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create_clip(OPEN_CLIP_CONFIG["model_cfg"])


@torch.no_grad()
def _head(model: Any, tokenize: Callable[[list[str]], Tensor]) -> dict[str, Tensor]:
    tokens = tokenize([template.replace("{}", name) for name in CLASSNAMES for template in TEMPLATES])
    weight, bias = zero_shot_head(model.encode_text, tokens, len(TEMPLATES), model.logit_scale)
    return {f"{HEAD}weight": weight, f"{HEAD}bias": bias}


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def _batch_loss(model: Any, images: Tensor, tokens: Tensor) -> Tensor:
    images_BD = functional.normalize(model.encode_image(images), dim=-1)
    texts_BD = functional.normalize(model.encode_text(tokens), dim=-1)
    return contrastive_loss(images_BD, texts_BD, model.logit_scale.exp())
