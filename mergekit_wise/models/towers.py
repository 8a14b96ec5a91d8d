"""The towers of open_clip's models, built from a ``model_cfg`` as in open_clip_config.json, and their tensors' shapes.

The weights of a tower are uninitialised memory: whoever builds it sets all of them. Knows nothing of files, of heads,
and of which configuration a checkpoint needs.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip import CLIP

# The functions that CLIP, CustomTextCLIP and CoCa all build their towers with. The classes themselves would build both
# towers where one is needed, and download the configuration of a text tower that is not.
from open_clip.model import _build_text_tower, _build_vision_tower
from torch import nn
from torch.overrides import TorchFunctionMode

from mergekit_wise.errors import ModelError
from mergekit_wise.models.huggingface import PATCHES

Shapes = Mapping[str, tuple[int, ...]]


def create_clip(model_cfg: Mapping[str, Any]) -> Any:
    """An ``open_clip.CLIP`` with random weights, in training mode."""
    return CLIP(**model_cfg)


def build_visual(model_cfg: Mapping[str, Any]) -> nn.Module:
    """The image tower, uninitialised: images [B, 3, H, W] -> features [B, D]. Raises ModelError."""
    with uninitialized(), _explained():
        tower: nn.Module = _visual(model_cfg)
    return tower


def build_text(model_cfg: Mapping[str, Any]) -> nn.Module:
    """The text tower, uninitialised: tokens int64 [B, L] -> features [B, D]. Raises ModelError if it cannot be built.

    A tower that transformers defines needs its configuration from the Hugging Face hub, but no weights.
    """
    with uninitialized(), _explained():
        tower: nn.Module = _text(model_cfg)
    return tower


def visual_shapes(model_cfg: Mapping[str, Any]) -> Shapes:
    """Names and shapes of the image tower's tensors; nothing of their size is allocated."""
    return _shapes(_visual, json.dumps({key: model_cfg[key] for key in ("embed_dim", "vision_cfg")}))


def text_shapes(model_cfg: Mapping[str, Any]) -> Shapes:
    """Names and shapes of the tensors of a text tower that open_clip itself defines."""
    return _shapes(_text, json.dumps({key: model_cfg[key] for key in ("embed_dim", "text_cfg")}))


def timm_facts(model_cfg: Mapping[str, Any]) -> dict[str, Any] | None:
    """A ViT of timm's with attention pooling in the words of transformers' SiglipVisionConfig; None for any other."""
    with torch.device("meta"), uninitialized(), _explained():
        trunk = _visual(model_cfg).trunk
    pool = getattr(trunk, "attn_pool", None)
    if pool is None or getattr(trunk, "cls_token", None) is not None or not hasattr(trunk, "blocks"):
        return None
    block = trunk.blocks[0]
    tanh = getattr(block.mlp.act, "approximate", "none") == "tanh" or type(block.mlp.act).__name__ == "GELUTanh"
    patch = trunk.patch_embed
    return {
        "hidden_size": trunk.embed_dim,
        "intermediate_size": block.mlp.fc1.out_features,
        "num_hidden_layers": len(trunk.blocks),
        "num_attention_heads": block.attn.num_heads,
        "image_size": patch.img_size[0],
        "patch_size": patch.patch_size[0],
        "hidden_act": "gelu_pytorch_tanh" if tanh else "gelu",
        "layer_norm_eps": block.norm1.eps,
    }


@contextmanager
def uninitialized() -> Iterator[None]:
    """Modules that are built in this context keep uninitialised parameters: drawing random ones takes seconds."""
    with _Uninitialized():
        yield


class _Uninitialized(TorchFunctionMode):
    """Skips the initialisation of parameters; buffers, which a checkpoint may not hold, are computed as usual."""

    SKIPPED = frozenset(("uniform_", "normal_", "erfinv_", "mul_", "add_", "clamp_", "fill_", "zero_"))

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        first = args[0] if args else (kwargs or {}).get("tensor")
        # Methods of tensors are built in and have no module.
        initialises = func.__name__ in self.SKIPPED or getattr(func, "__module__", None) == "torch.nn.init"
        if initialises and isinstance(first, nn.Parameter):
            return first
        if func in (torch.randn, torch.rand):
            func = torch.empty
        return func(*args, **(kwargs or {}))


def _visual(model_cfg: Mapping[str, Any]) -> Any:
    # CoCa's towers would return tokens along with the features.
    cfg = {**model_cfg["vision_cfg"], "timm_model_pretrained": False, "output_tokens": False}
    if ":" in (cfg.get("timm_model_name") or ""):
        raise ValueError(f"timm would have to download {cfg['timm_model_name']}.")
    quick_gelu = model_cfg.get("quick_gelu", False)
    if cfg.get("pool_type") != PATCHES:
        return _build_vision_tower(model_cfg["embed_dim"], cfg, quick_gelu)
    tower: Any = _build_vision_tower(model_cfg["embed_dim"], {**cfg, "pool_type": "avg"}, quick_gelu)
    tower.ln_post, tower.proj = nn.Identity(), None
    return tower


def _text(model_cfg: Mapping[str, Any]) -> Any:
    cfg = {**model_cfg["text_cfg"], "hf_model_pretrained": False, "output_tokens": False}
    if name := cfg.get("hf_model_name"):
        _require_known_text_model(name)
    return _build_text_tower(model_cfg["embed_dim"], cfg, model_cfg.get("quick_gelu", False))


def _require_known_text_model(name: str) -> None:
    """Raise ModelError unless open_clip's own configurations use this text model of transformers.

    The configuration may come from an untrusted file. open_clip passes the name to transformers, which offers to run
    the code that a repository or a folder of that name holds.
    """
    if name not in _known_text_models():
        raise ModelError(
            f"The configuration asks for transformers' text model {name!r}, which no configuration of open_clip uses. "
            "It is not loaded, because it could contain code. Use a checkpoint with a head, or name a known "
            "architecture with --model."
        )
    if Path(name).exists():
        raise ModelError(
            f"The text model {name} would be read from the local path of that name, which could contain code. Run the "
            "command in another folder."
        )
    from transformers import AutoConfig

    AutoConfig.from_pretrained(name, trust_remote_code=False)  # raises an error if it needs code of its own


@cache
def _known_text_models() -> frozenset[str]:
    sections = (open_clip.get_model_config(name)["text_cfg"] for name in open_clip.list_models())
    return frozenset(filter(None, (section.get("hf_model_name") for section in sections)))


@cache
def _shapes(build: Callable[[Mapping[str, Any]], nn.Module], model_cfg: str) -> Shapes:
    with torch.device("meta"), uninitialized(), _explained():
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
            f"open_clip cannot build a tower from this configuration: {reason} Name another one with --model; "
            "files that open_clip or transformers would have to download must be in their caches."
        ) from error
