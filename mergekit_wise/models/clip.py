"""A CLIP model of open_clip's from its configuration, and the tokens that it reads.

Knows nothing of weights, files, classes or training.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from open_clip import CLIP, SimpleTokenizer
from torch import Tensor


def create_clip(model_cfg: Mapping[str, Any]) -> Any:
    """An untrained ``open_clip.CLIP``, in training mode, from what open_clip_config.json calls ``model_cfg``."""
    return CLIP(**model_cfg)


def create_tokenizer(model_cfg: Mapping[str, Any]) -> Callable[[Sequence[str]], Tensor]:
    """Texts -> tokens int64 [len(texts), context_length], longer ones cut off, as open_clip's own tokenizer does."""
    tokenizer = SimpleTokenizer(context_length=model_cfg["text_cfg"]["context_length"])
    return lambda texts: tokenizer(list(texts))
