"""The towers of open_clip's models, built from what open_clip_config.json calls ``model_cfg``, and their shapes.

Their weights are left as they lie in memory: whoever builds a tower sets all of them. Knows nothing of files, of heads,
and of which configuration a checkpoint needs.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

# The functions that CLIP, CustomTextCLIP and CoCa all build their towers with. The classes themselves would build both
# towers where one is needed, and download the configuration of a text tower that is not.
from open_clip.model import _build_text_tower, _build_vision_tower
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mergekit_wise.errors import ModelError
from mergekit_wise.models.huggingface import PATCHES

Shapes = Mapping[str, tuple[int, ...]]


def build_visual(model_cfg: Mapping[str, Any]) -> nn.Module:
    """The image tower, unfilled: images [B, 3, H, W] -> features [B, D]. Raises ModelError if it cannot be built."""
    with unfilled(), _explained():
        tower: nn.Module = _visual(model_cfg)
    return tower


def build_text(model_cfg: Mapping[str, Any]) -> nn.Module:
    """The text tower, unfilled: tokens int64 [B, L] -> features [B, D]. Raises ModelError if it cannot be built.

    One that transformers defines needs the configuration that is kept on the Hugging Face hub, and nothing else of it.
    """
    with unfilled(), _explained():
        tower: nn.Module = _text(model_cfg)
    return tower


def visual_shapes(model_cfg: Mapping[str, Any]) -> Shapes:
    """Names and shapes of the image tower's tensors; nothing of their size is allocated."""
    return _shapes(_visual, json.dumps({key: model_cfg[key] for key in ("embed_dim", "vision_cfg")}))


def text_shapes(model_cfg: Mapping[str, Any]) -> Shapes:
    """Names and shapes of the tensors of a text tower that open_clip itself defines."""
    return _shapes(_text, json.dumps({key: model_cfg[key] for key in ("embed_dim", "text_cfg")}))


def encode_texts(tower: nn.Module, tokens: Tensor) -> Tensor:
    """Features [B, D] of tokens int64 [B, L], as ``tower(tokens)`` gives them; columns that count for nothing are cut.

    Where each token sees only those before it and the features are those at a text's end, what comes after the last
    end is padding: most of the 77 tokens that CLIP's text tower would otherwise compute.
    """
    end = _end(tower, tokens)
    if end is None:
        features: Tensor = tower(tokens)
        return features
    mask = tower.attn_mask
    tower.attn_mask = mask[:end, :end]  # type: ignore[index]
    try:
        features = tower(tokens[:, :end])
    finally:
        tower.attn_mask = mask
    return features


@contextmanager
def unfilled() -> Iterator[None]:
    """While the block runs, parameters keep what lies in their memory: drawing random ones takes seconds."""
    with _Unfilled():
        yield


class _Unfilled(TorchFunctionMode):
    """Leaves out what constructors do to parameters; buffers, which no checkpoint may hold, are computed as ever."""

    SKIPPED = frozenset(("uniform_", "normal_", "erfinv_", "mul_", "add_", "clamp_", "fill_", "zero_"))

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        first = args[0] if args else (kwargs or {}).get("tensor")
        # Methods of tensors, which are built in, have no module.
        initialises = func.__name__ in self.SKIPPED or getattr(func, "__module__", None) == "torch.nn.init"
        if initialises and isinstance(first, nn.Parameter):
            return first
        if func in (torch.randn, torch.rand):
            func = torch.empty
        return func(*args, **(kwargs or {}))


def _visual(model_cfg: Mapping[str, Any]) -> Any:
    # CoCa's towers would give tokens beside the features.
    cfg = {**model_cfg["vision_cfg"], "timm_model_pretrained": False, "output_tokens": False}
    if ":" in (cfg.get("timm_model_name") or ""):
        raise ValueError(f"timm would have to fetch {cfg['timm_model_name']}.")
    quick_gelu = model_cfg.get("quick_gelu", False)
    if cfg.get("pool_type") != PATCHES:
        return _build_vision_tower(model_cfg["embed_dim"], cfg, quick_gelu)
    tower: Any = _build_vision_tower(model_cfg["embed_dim"], {**cfg, "pool_type": "avg"}, quick_gelu)
    tower.ln_post, tower.proj = nn.Identity(), None
    return tower


def _text(model_cfg: Mapping[str, Any]) -> Any:
    cfg = {**model_cfg["text_cfg"], "hf_model_pretrained": False, "output_tokens": False}
    return _build_text_tower(model_cfg["embed_dim"], cfg, model_cfg.get("quick_gelu", False))


@cache
def _shapes(build: Callable[[Mapping[str, Any]], nn.Module], model_cfg: str) -> Shapes:
    with torch.device("meta"), unfilled(), _explained():
        state = build(json.loads(model_cfg)).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (
        *(TypeError, ValueError, LookupError, AttributeError, ArithmeticError),
        *(AssertionError, RuntimeError, OSError, ImportError),
    ) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"open_clip cannot build a tower from this configuration: {reason} Name another one with --model; what "
            "open_clip or transformers would have to fetch must be in their caches."
        ) from error


def _end(tower: Any, tokens: Tensor) -> int | None:
    """How many columns of `tokens` matter; None where all of them do, or where nobody knows."""
    pool = getattr(tower, "pool_type", None)
    causal = isinstance(getattr(tower, "attn_mask", None), Tensor) and getattr(tower, "cls_emb", None) is None
    if not causal or pool not in ("argmax", "eos"):
        return None
    ends = tokens if pool == "argmax" else (tokens == tower.eos_id).int()
    return int(ends.argmax(dim=-1).max().item()) + 1
