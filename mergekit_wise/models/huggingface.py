"""Hugging Face's CLIP models translated to open_clip: the destinations of their tensors, and their config.json.

Hugging Face stores query, key and value as three tensors where open_clip stacks them, and projections as linear layers
where open_clip multiplies by a matrix from the right. Reads no file, and does not import transformers.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from mergekit_wise.errors import ModelError
from mergekit_wise.models.destinations import Destination
from mergekit_wise.models.huggingface_preprocessing import read_preprocessor

CLIP = "Hugging Face's CLIPModel"
CLASSIFIER = "Hugging Face's CLIPForImageClassification"
SIGLIP = "Hugging Face's SigLIP"
NO_SIGLIP = (
    f"{SIGLIP} is evaluated under open_clip's names: convert it with 'wise convert PATH -o siglip.safetensors "
    "--to open_clip', and name its architecture, for example --model ViT-B-16-SigLIP"
)

PATCHES = "patches"
"""The ``pool_type`` of CLASSIFIER, which open_clip does not have: the mean over patches, without norm or projection."""

_CLIP_MARK = "vision_model.embeddings.class_embedding"
_SIGLIP_MARK = "vision_model.embeddings.patch_embedding.bias"

_LAYER = re.compile(r"(vision|text)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_PARTS = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_STACKED = {"self_attn.q_proj": 0, "self_attn.k_proj": 1, "self_attn.v_proj": 2}
_WHOLE = {
    _CLIP_MARK: Destination("visual.class_embedding"),
    "vision_model.embeddings.patch_embedding.weight": Destination("visual.conv1.weight"),
    "vision_model.embeddings.position_embedding.weight": Destination("visual.positional_embedding"),
    "vision_model.pre_layrnorm.weight": Destination("visual.ln_pre.weight"),  # sic
    "vision_model.pre_layrnorm.bias": Destination("visual.ln_pre.bias"),
    "vision_model.post_layernorm.weight": Destination("visual.ln_post.weight"),
    "vision_model.post_layernorm.bias": Destination("visual.ln_post.bias"),
    "visual_projection.weight": Destination("visual.proj", transposed=True),
    "text_model.embeddings.token_embedding.weight": Destination("text.token_embedding.weight"),
    "text_model.embeddings.position_embedding.weight": Destination("text.positional_embedding"),
    "text_model.final_layer_norm.weight": Destination("text.ln_final.weight"),
    "text_model.final_layer_norm.bias": Destination("text.ln_final.bias"),
    "text_projection.weight": Destination("text.text_projection", transposed=True),
    "logit_scale": Destination("logit_scale"),
}
_OF_CLASSIFIER = {
    **{name: destination for name, destination in _WHOLE.items() if "post_layernorm" not in name},
    "classifier.weight": Destination("classification_head.weight"),
    "classifier.bias": Destination("classification_head.bias"),
}

# Defaults of transformers' CLIPConfig.
_VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
_TEXT = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "eos_token_id": 49407,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
_ACTIVATIONS: Mapping[str, tuple[bool, dict[str, Any]]] = {
    "quick_gelu": (True, {}),
    "gelu": (False, {}),
    "gelu_pytorch_tanh": (False, {"act_kwargs": {"approximate": "tanh"}}),
}


def hugging_face_models(names: Collection[str]) -> dict[str, str]:
    """The kind of model under each prefix; an image tower with a projection is a CLIP."""
    found = dict.fromkeys(_before(_SIGLIP_MARK, names), SIGLIP)
    for prefix in _before(_CLIP_MARK, names):
        if f"{prefix}visual_projection.weight" in names:
            found[prefix] = CLIP
        elif f"{prefix}classifier.weight" in names:
            found[prefix] = CLASSIFIER
    return found


def hugging_face_destinations(names: Collection[str], prefix: str, kind: str) -> dict[str, Destination]:
    """Where each tensor of a model goes; tensors that open_clip's model does not have are left out."""
    if kind == SIGLIP:
        return {}
    known = _WHOLE if kind == CLIP else _OF_CLASSIFIER
    found = ((name, _destination(name.removeprefix(prefix), known)) for name in names if name.startswith(prefix))
    return {name: destination for name, destination in found if destination is not None}


def classifier_config(model_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The ``model_cfg`` of CLASSIFIER, given the one of the CLIP that its image tower comes from."""
    vision = model_cfg["vision_cfg"]
    return {**model_cfg, "embed_dim": vision.get("width", 768), "vision_cfg": {**vision, "pool_type": PATCHES}}


def _before(mark: str, names: Collection[str]) -> set[str]:
    return {name.removesuffix(mark) for name in names if name == mark or name.endswith("." + mark)}


def hugging_face_config(
    config: Mapping[str, Any], preprocessor: Mapping[str, Any], name: str = "preprocessor_config.json"
) -> dict[str, Any]:
    """open_clip's ``model_cfg`` and ``preprocess_cfg`` from config.json and preprocessor_config.json.

    The latter is empty if there is no file, whose name is `name`: then images are brought to the model's size as CLIP's
    usually are.

    Raises ModelError if open_clip cannot build such a model, or for preprocessing that cannot be done.
    """
    vision, text = ({**defaults, **_section(config, name)} for name, defaults in (("vision", _VISION), ("text", _TEXT)))
    usual = {"size": {"shortest_edge": vision["image_size"]}, "crop_size": vision["image_size"]}
    quick_gelu, _ = _activation(vision)
    if _activation(text)[0] != quick_gelu:
        raise ModelError("config.json: the two towers have different activations, which open_clip cannot build.")
    return {
        "model_cfg": {
            "embed_dim": config.get("projection_dim", 512),
            "quick_gelu": quick_gelu,
            "vision_cfg": {
                **_tower(vision),
                "head_width": vision["hidden_size"] // vision["num_attention_heads"],
                "image_size": vision["image_size"],
                "patch_size": vision["patch_size"],
            },
            "text_cfg": {
                **_tower(text),
                "heads": text["num_attention_heads"],
                "context_length": text["max_position_embeddings"],
                "vocab_size": text["vocab_size"],
                **_pooling(text),
            },
        },
        "preprocess_cfg": read_preprocessor(preprocessor or usual, vision["image_size"], name=name),
    }


def _destination(name: str, known: Mapping[str, Destination]) -> Destination | None:
    layer = _LAYER.fullmatch(name)
    if layer is None:
        return known.get(name)
    tower, number, part, kind = layer.groups()
    block = f"{'visual' if tower == 'vision' else 'text'}.transformer.resblocks.{number}"
    if part in _STACKED:
        return Destination(f"{block}.attn.in_proj_{kind}", _STACKED[part], len(_STACKED))
    return Destination(f"{block}.{_PARTS[part]}.{kind}") if part in _PARTS else None


def _section(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One tower's settings; old files hold two copies, of which transformers uses the second."""
    return {**(config.get(f"{name}_config") or {}), **(config.get(f"{name}_config_dict") or {})}


def _tower(settings: Mapping[str, Any]) -> dict[str, Any]:
    width, eps = settings["hidden_size"], settings["layer_norm_eps"]
    return {
        "width": width,
        "layers": settings["num_hidden_layers"],
        "mlp_ratio": _ratio(settings["intermediate_size"], width),
        **_activation(settings)[1],
        **({"norm_kwargs": {"eps": eps}} if eps != 1e-5 else {}),
    }


def _ratio(hidden: int, width: int) -> float:
    """The ratio by which open_clip multiplies `width`, rounding down, to get `hidden`."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width


def _activation(settings: Mapping[str, Any]) -> tuple[bool, dict[str, Any]]:
    name = settings["hidden_act"]
    if name not in _ACTIVATIONS:
        raise ModelError(f"config.json: open_clip has no activation {name!r}; it has {', '.join(_ACTIVATIONS)}.")
    return _ACTIVATIONS[name]


def _pooling(text: Mapping[str, Any]) -> dict[str, Any]:
    """Where a text ends. For the end token 2 transformers takes the largest token, as open_clip does."""
    end = text["eos_token_id"]
    return {} if end in (2, text["vocab_size"] - 1) else {"pool_type": "eos", "eos_id": end}
