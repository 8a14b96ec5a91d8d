"""open_clip's configuration of a CLIP or SigLIP as Hugging Face's config.json and preprocessor_config.json.

Knows no weights. Imports no transformers; open_clip only for SigLIP, whose image tower is timm's.
"""

from collections.abc import Mapping
from typing import Any

from mergekit_wise.errors import ModelError
from mergekit_wise.models.huggingface_preprocessing import write_preprocessor
from mergekit_wise.models.open_clip_configs import TEXT_DEFAULTS, VISION_DEFAULTS

_SUPPORTED_VISION = frozenset(
    (
        *("image_size", "layers", "width", "head_width", "mlp_ratio", "patch_size", "patch_dropout"),
        *("act_kwargs", "norm_kwargs", "pool_type", "output_tokens"),
    )
)
_SUPPORTED_TEXT = frozenset(
    (
        *("context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "act_kwargs", "norm_kwargs"),
        *("pool_type", "eos_id", "output_tokens", "hf_tokenizer_name", "tokenizer_kwargs"),
    )
)
_SIGLIP_TEXT = _SUPPORTED_TEXT | {"no_causal_mask", "proj_bias"}


def to_hugging_face(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The contents of config.json and preprocessor_config.json, by name, for ``model_cfg`` and ``preprocess_cfg``.

    Raises ModelError if transformers has no class for such a model.
    """
    model_cfg = config["model_cfg"]
    is_siglip = bool(model_cfg["vision_cfg"].get("timm_model_name"))
    model = _siglip(model_cfg) if is_siglip else _clip(model_cfg)
    size = model["vision_config"]["image_size"]
    preprocessor = write_preprocessor(config["preprocess_cfg"], size, is_siglip=is_siglip)
    return {"config.json": model, "preprocessor_config.json": preprocessor}


def image_model_config(config: Mapping[str, Any], *, has_projection: bool) -> dict[str, Any]:
    """The config.json of the image encoder of a CLIP or SigLIP alone, given that of the whole model."""
    if config["model_type"] == "siglip":
        return {"architectures": ["SiglipVisionModel"], **config["vision_config"]}
    name = "CLIPVisionModelWithProjection" if has_projection else "CLIPVisionModel"
    return {"architectures": [name], **config["vision_config"]}


def _clip(model_cfg: Mapping[str, Any]) -> dict[str, Any]:
    vision, text = {**VISION_DEFAULTS, **model_cfg["vision_cfg"]}, {**TEXT_DEFAULTS, **model_cfg["text_cfg"]}
    _require_only("vision_cfg", model_cfg["vision_cfg"], _SUPPORTED_VISION, vision["pool_type"] == "tok")
    _require_only("text_cfg", model_cfg["text_cfg"], _SUPPORTED_TEXT, text["pool_type"] in ("argmax", "eos"))
    quick_gelu = bool(model_cfg.get("quick_gelu"))
    embed_dim = model_cfg["embed_dim"]
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": embed_dim,
        "vision_config": {
            "model_type": "clip_vision_model",
            "projection_dim": embed_dim,
            "num_attention_heads": vision["width"] // vision["head_width"],
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            **_tower(vision, _activation(vision, quick_gelu), 1e-5),
        },
        "text_config": {
            "model_type": "clip_text_model",
            "projection_dim": embed_dim,
            "num_attention_heads": text["heads"],
            **_tower(text, _activation(text, quick_gelu), 1e-5),
            **_vocabulary(text),
            # transformers takes 2 to mean what open_clip does: a text ends at its largest token.
            "eos_token_id": text["eos_id"] if text["pool_type"] == "eos" else 2,
        },
    }


def _siglip(model_cfg: Mapping[str, Any]) -> dict[str, Any]:
    text = {**TEXT_DEFAULTS, **model_cfg["text_cfg"]}
    fits = text["pool_type"] == "last" and bool(text.get("no_causal_mask")) and bool(text.get("proj_bias"))
    _require_only("text_cfg", model_cfg["text_cfg"], _SIGLIP_TEXT, fits)
    return {
        "architectures": ["SiglipModel"],
        "model_type": "siglip",
        "vision_config": {"model_type": "siglip_vision_model", **_timm_tower(model_cfg)},
        "text_config": {
            "model_type": "siglip_text_model",
            "num_attention_heads": text["heads"],
            "projection_size": model_cfg["embed_dim"],
            **_tower(text, _activation(text, quick_gelu=False), 1e-5),
            **_vocabulary(text),
        },
    }


def _timm_tower(model_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """What a SigLIP image tower of timm's is, which only its code says."""
    from mergekit_wise.models.towers import timm_facts

    facts = timm_facts(model_cfg)
    if facts is None:
        raise ModelError(
            f"transformers has no class for the image tower {model_cfg['vision_cfg']['timm_model_name']}: only ViTs "
            "with attention pooling (SigLIP) can be converted."
        )
    return facts


def _tower(settings: Mapping[str, Any], activation: str, eps: float) -> dict[str, Any]:
    return {
        "hidden_size": settings["width"],
        "intermediate_size": int(settings["width"] * settings["mlp_ratio"]),
        "num_hidden_layers": settings["layers"],
        "hidden_act": activation,
        "layer_norm_eps": (settings.get("norm_kwargs") or {}).get("eps", eps),
    }


def _vocabulary(text: Mapping[str, Any]) -> dict[str, Any]:
    return {"max_position_embeddings": text["context_length"], "vocab_size": text["vocab_size"]}


def _activation(settings: Mapping[str, Any], quick_gelu: bool) -> str:
    if quick_gelu:
        return "quick_gelu"
    return "gelu_pytorch_tanh" if (settings.get("act_kwargs") or {}).get("approximate") == "tanh" else "gelu"


def _require_only(section: str, settings: Mapping[str, Any], supported: frozenset[str], fits: bool) -> None:
    unknown = sorted(key for key, value in settings.items() if key not in supported and value)
    if unknown or not fits:
        what = ", ".join(unknown) or f"pool_type {settings.get('pool_type')}"
        raise ModelError(f"transformers has no class for a model with {section}: {what}. It cannot be converted.")
