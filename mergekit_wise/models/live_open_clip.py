"""The configuration of an open_clip model in memory, read off its modules and checked by building them again.

A configuration counts only if open_clip builds from it, without memory for weights, the parts that the module has, with
the same settings: then nothing about the model is guessed.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import torch
from torch import nn

from mergekit_wise.errors import ModelError
from mergekit_wise.models.open_clip_configs import TEXT_DEFAULTS, VISION_DEFAULTS, computation, configs
from mergekit_wise.models.structure import Structure, first_difference, structure_of
from mergekit_wise.models.towers import build_text, build_visual

_TEXT_PARTS = ("transformer", "token_embedding", "ln_final")
"""Parts of the text tower that ``open_clip.CLIP`` keeps at its top level."""


def recognised(model: Any) -> tuple[dict[str, Any] | None, str]:
    """What open_clip_config.json would hold of a model, with its source, or else None and why it is not known.

    The preprocessing is what open_clip has put into ``visual.preprocess_cfg``.
    """
    visual, text = structure_of(model.visual), _text_structure(model)
    differing = ""
    for cfg in _candidates(model):
        try:
            wanted = _structures(json.dumps(cfg, sort_keys=True))
        except ModelError:
            continue
        differing = first_difference(visual, wanted[0]) or first_difference(text, wanted[1])
        if not differing and _shapes(model.visual) == dict(wanted[2]):
            return _with_preprocessing(model.visual, cfg), ""
    what = f"{differing} differs" if differing else "its image tower or its tokenizer is not known"
    return None, (
        f"is not what open_clip builds from a configuration that its parts show: {what}. Name one that computes the "
        "same with --model"
    )


def _with_preprocessing(visual: Any, cfg: Mapping[str, Any]) -> dict[str, Any]:
    known = getattr(visual, "preprocess_cfg", None)
    if not isinstance(known, Mapping) or not known:
        mean, std = getattr(visual, "image_mean", None), getattr(visual, "image_std", None)
        known = {"mean": list(mean), "std": list(std)} if mean is not None and std is not None else {}
    origin = "visual.preprocess_cfg" if known else "open_clip's default, because the module has none"
    settings = {key: list(value) if isinstance(value, tuple) else value for key, value in known.items()}
    return {
        "model_cfg": dict(cfg),
        "preprocess_cfg": settings,
        "told_by": f"the module's parts; preprocessing: {origin}",
    }


def _candidates(model: Any) -> Iterator[dict[str, Any]]:
    """Configurations that may be the model's: what its parts show, or those of open_clip's with the same tensors."""
    vision, text = _vision_facts(model.visual), _text_facts(model)
    if vision is not None and text is not None:
        embed_dim, quick_gelu, vision_cfg = vision
        yield from _with_tokenizers(
            {"embed_dim": embed_dim, "quick_gelu": quick_gelu, "vision_cfg": vision_cfg, "text_cfg": text}
        )
        return
    shapes = _shapes(model.visual)
    for name in sorted(configs(), key=lambda name: (len(name), name)):
        cfg = configs()[name]
        is_timm = bool(cfg["vision_cfg"].get("timm_model_name"))
        if is_timm == any(key.startswith("trunk.") for key in shapes) and _could_be(cfg, model):
            yield json.loads(json.dumps(cfg))


def _with_tokenizers(cfg: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A configuration with the tokenizer of open_clip's configurations that are otherwise the same.

    A module has no tokenizer. Without such a configuration, the usual one is meant by a vocabulary of its size.
    """
    same = [named for named in configs().values() if _apart_from_tokenizer(named) == _apart_from_tokenizer(cfg)]
    tokenizers = {json.dumps(_tokenizer(named), sort_keys=True): _tokenizer(named) for named in same}
    if not same and {**TEXT_DEFAULTS, **cfg["text_cfg"]}["vocab_size"] == TEXT_DEFAULTS["vocab_size"]:
        yield cfg
    elif len(tokenizers) == 1:
        (tokenizer,) = tokenizers.values()
        yield {**cfg, "text_cfg": {**cfg["text_cfg"], **tokenizer}}


def _tokenizer(cfg: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in cfg["text_cfg"].items() if "tokenizer" in key}


def _apart_from_tokenizer(cfg: Mapping[str, Any]) -> str:
    """A text that is equal for configurations that compute the same, whatever their tokenizers."""
    text = {key: value for key, value in cfg["text_cfg"].items() if "tokenizer" not in key}
    return computation({**cfg, "text_cfg": text}, with_text=True)


def _could_be(cfg: Mapping[str, Any], model: Any) -> bool:
    """Whether a configuration is worth building: its image tower has the model's kind and size."""
    visual = model.visual
    vision: dict[str, Any] = {**VISION_DEFAULTS, **cfg["vision_cfg"]}
    size = visual.image_size if isinstance(visual.image_size, int) else visual.image_size[0]
    if not vision.get("timm_model_name"):
        layers = [len(getattr(visual, f"layer{stage}", ())) for stage in (1, 2, 3, 4)]
        return (vision["image_size"], vision["layers"]) == (size, layers)
    kind = type(visual.trunk).__name__.lower()
    family = str(vision["timm_model_name"]).partition("_")[0]
    return bool(vision["image_size"] == size) and (family in kind or kind.startswith(("visiontransformer", "eva")))


def _vision_facts(visual: Any) -> tuple[int, bool, dict[str, Any]] | None:
    """Features, whether QuickGELU is used, and ``vision_cfg`` of open_clip's own ViT; None for other towers."""
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    if blocks is None or not len(blocks) or not isinstance(getattr(visual, "conv1", None), nn.Conv2d):
        return None
    width, found = visual.conv1.out_channels, _block_facts(blocks[0])
    if found is None:
        return None
    quick_gelu, shared = found
    size, patch = visual.image_size, visual.patch_size
    cfg = {
        "image_size": _side(size),
        "patch_size": _side(patch),
        "width": width,
        "layers": len(blocks),
        "head_width": width // blocks[0].attn.num_heads,
        **shared,
        "no_ln_pre": isinstance(visual.ln_pre, nn.Identity),
        "pool_type": visual.pool_type,
        "final_ln_after_pool": visual.final_ln_after_pool,
    }
    cfg |= _pooler_facts(visual)
    return visual.output_dim, quick_gelu, _without_defaults(cfg, VISION_DEFAULTS)


def _pooler_facts(visual: Any) -> dict[str, Any]:
    pooler = visual.attn_pool
    if pooler is None:
        return {}
    return {
        "attentional_pool": visual.attn_pool_type or True,
        "attn_pooler_queries": pooler.query.shape[0],
        "attn_pooler_heads": pooler.attn.num_heads,
    }


def _text_facts(model: Any) -> dict[str, Any] | None:
    """``text_cfg`` of open_clip's own text tower; None for others."""
    text = vars(model)["_modules"].get("text") or model
    blocks = getattr(getattr(text, "transformer", None), "resblocks", None)
    if blocks is None or not len(blocks) or (found := _block_facts(blocks[0])) is None:
        return None
    at_top = text is model
    cfg = {
        "context_length": text.context_length,
        "vocab_size": text.vocab_size,
        "width": text.token_embedding.embedding_dim,
        "heads": blocks[0].attn.num_heads,
        "layers": len(blocks),
        **found[1],
        "pool_type": text.text_pool_type if at_top else text.pool_type,
        "eos_id": text.text_eos_id if at_top else text.eos_id,
        "no_causal_mask": text.attn_mask is None,
    }
    if not at_top:
        cfg |= {"embed_cls": text.cls_emb is not None, "pad_id": text.pad_id}
    projection = text.text_projection
    cfg |= {"proj_type": "none"} if projection is None else {"proj_bias": isinstance(projection, nn.Linear)}
    return _without_defaults(cfg, TEXT_DEFAULTS)


def _block_facts(block: Any) -> tuple[bool, dict[str, Any]] | None:
    """Whether a block of open_clip's transformer uses QuickGELU, and what its settings show; None for others."""
    mlp = getattr(block, "mlp", None)
    if type(block).__name__ != "ResidualAttentionBlock" or not isinstance(mlp, nn.Sequential):
        return None
    first: Any = mlp[0]
    activation = mlp[1]
    shared: dict[str, Any] = {"mlp_ratio": _ratio(first.in_features, first.out_features)}
    if isinstance(activation, nn.GELU) and activation.approximate != "none":
        shared["act_kwargs"] = {"approximate": activation.approximate}
    if block.ln_1.eps != 1e-5:
        shared["norm_kwargs"] = {"eps": block.ln_1.eps}
    if not isinstance(block.ls_1, nn.Identity):
        shared["ls_init_value"] = 1e-5  # the weights say what it became
    return type(activation).__name__ == "QuickGELU", shared


def _ratio(width: int, hidden: int) -> float:
    """The ratio by which open_clip multiplies `width`, rounding down, to get `hidden`."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width


def _side(size: Any) -> Any:
    if isinstance(size, int):
        return size
    return size[0] if size[0] == size[1] else list(size)


def _without_defaults(cfg: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in cfg.items() if value != defaults.get(key) and value not in (False, None)}


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def _text_structure(model: Any) -> Structure:
    """The parts of the text tower, as both kinds of models have them."""
    text = vars(model)["_modules"].get("text") or model
    if type(text).__name__ == "HFTextEncoder":
        return ()  # transformers' own, which its weights and its name show
    return tuple(
        (f"{name}.{inner}".rstrip("."), kind, settings)
        for name in _TEXT_PARTS
        for inner, kind, settings in structure_of(getattr(text, name))
    )


@cache
def _structures(model_cfg: str) -> tuple[Structure, Structure, tuple[tuple[str, tuple[int, ...]], ...]]:
    """The parts of both towers that open_clip builds from a configuration, and the shapes of the image tower."""
    cfg = json.loads(model_cfg)
    with torch.device("meta"):
        visual = build_visual(cfg)
        text = () if cfg["text_cfg"].get("hf_model_name") else _text_structure(build_text(cfg))
    return structure_of(visual), text, tuple(_shapes(visual).items())
