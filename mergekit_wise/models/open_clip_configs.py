"""What open_clip knows: its configurations by name, which of them compute the same, and its pretrained weights.

Configurations are read as files. open_clip itself, and torch with it, is imported for the table of pretrained weights
alone. Knows nothing of checkpoints.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mergekit_wise.errors import ModelError

Config = Mapping[str, Any]

UNUSED = (
    *("patch_dropout", "timm_drop", "timm_drop_path", "timm_model_pretrained", "hf_model_pretrained"),
    "output_tokens",
)
"""Settings that change training, or outputs other than the features."""

_PREPROCESS_DEFAULTS: Config = {
    "mode": "RGB",
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 0,
    "library": "open_clip",
    "resize": None,
}
"""Those of open_clip's PreprocessCfg, and of the entries that `Preprocess.of` adds; the size is the model's."""

OWN_KEYS = ("library", "resize")
"""Entries of ``preprocess_cfg`` that open_clip does not know; it ignores them."""

# The defaults of CLIPVisionCfg and CLIPTextCfg that are not empty.
VISION_DEFAULTS = {
    "layers": 12,
    "width": 768,
    "head_width": 64,
    "mlp_ratio": 4.0,
    "patch_size": 16,
    "image_size": 224,
    "attn_pooler_queries": 256,
    "attn_pooler_heads": 8,
    "pos_embed_type": "learnable",
    "pool_type": "tok",
    "timm_pool": "avg",
    "timm_proj": "linear",
}
TEXT_DEFAULTS = {
    "context_length": 77,
    "vocab_size": 49408,
    "width": 512,
    "heads": 8,
    "layers": 12,
    "mlp_ratio": 4.0,
    "eos_id": 2,
    "pool_type": "argmax",
    "proj_type": "linear",
    "hf_proj_type": "mlp",
    "hf_pooler_type": "mean_pooler",
}


@cache
def configs() -> Mapping[str, Config]:
    """open_clip's configurations by name. Raises ModelError if open_clip is not installed."""
    spec = find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise ModelError("open_clip is not installed. Run: pip install open_clip_torch")
    folder = Path(spec.origin).parent / "model_configs"
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def require_config(name: str) -> dict[str, Any]:
    """A copy of open_clip's configuration of this name. Raises ModelError, which lists similar names."""
    if name not in configs():
        from difflib import get_close_matches

        close = ", ".join(get_close_matches(name, configs(), 3)) or "see open_clip.list_models()"
        raise ModelError(f"--model {name}: open_clip has no such model. Close to it: {close}.")
    copy: dict[str, Any] = json.loads(json.dumps(configs()[name]))
    return copy


def compute_the_same(names: Sequence[str], *, with_text: bool) -> bool:
    """Whether configurations of one shape compute the same; ``with_text``: in their text towers, too."""
    return len({computation(configs()[name], with_text) for name in names}) <= 1


def name_of(model_cfg: Config) -> str | None:
    """open_clip's name of a configuration that computes what this one does; None if it has none."""
    with_text = bool(model_cfg.get("text_cfg"))
    wanted = computation(model_cfg, with_text)
    found = (name for name, cfg in configs().items() if computation(cfg, with_text) == wanted)
    return min(found, key=lambda name: (len(name), name), default=None)


def pretrained_config(model: str, tag: str) -> dict[str, Any]:
    """``model_cfg`` and ``preprocess_cfg`` of open_clip's pretrained weights ``model/tag``.

    Raises ModelError, which lists the model's weights.
    """
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    model_cfg = require_config(model)
    entry = get_pretrained_cfg(model, tag)
    if not entry:
        known = ", ".join(list_pretrained_tags_by_model(model)) or "none"
        raise ModelError(f"--model {model}/{tag}: open_clip has no such weights. Those of {model}: {known}.")
    # open_clip itself only warns where the weights need another activation than the configuration has.
    model_cfg["quick_gelu"] = bool(entry.get("quick_gelu", False))
    return {"model_cfg": model_cfg, "preprocess_cfg": _preprocess(entry)}


def usual_preprocessing(model: str) -> tuple[dict[str, Any], str]:
    """The ``preprocess_cfg`` that open_clip's pretrained weights of an architecture share, and its origin, for people.

    It is empty, which stands for open_clip's default, if there are no such weights or their preprocessing differs:
    open_clip uses the default for every file.
    """
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    quick_gelu, base = bool(configs()[model].get("quick_gelu", False)), model.removesuffix("-quickgelu")
    entries = [get_pretrained_cfg(name, tag) for name in {model, base} for tag in list_pretrained_tags_by_model(name)]
    shared = [_preprocess(entry) for entry in entries if bool(entry.get("quick_gelu", False)) == quick_gelu]
    if shared and all(preprocess == shared[0] for preprocess in shared):
        return shared[0], f"the same for all of open_clip's {base} weights"
    if shared:
        return {}, f"open_clip's default; its {base} weights differ, choose with --model {base}/TAG"
    return {}, "open_clip's default"


def ignored_settings(preprocess_cfg: Config) -> list[str]:
    """Entries of a ``preprocess_cfg`` that open_clip does not know and ignores, in their order."""
    known = {*_PREPROCESS_DEFAULTS, "size"}
    return sorted(key for key, value in preprocess_cfg.items() if key not in known and value is not None)


def complete_preprocessing(preprocess_cfg: Config, image_size: Any) -> dict[str, Any]:
    """``preprocess_cfg`` with open_clip's defaults filled in, and the size of the tower's images."""
    defaults = {key: value for key, value in _PREPROCESS_DEFAULTS.items() if key not in OWN_KEYS}
    defaults |= {key: tuple(defaults[key]) for key in ("mean", "std")}
    known = (*defaults, *OWN_KEYS)
    given = {key: preprocess_cfg[key] for key in known if preprocess_cfg.get(key) is not None}
    return {"size": image_size, **defaults, **given}


def preprocess_differences(first: Config, second: Config) -> list[tuple[str, Any, Any]]:
    """What two ``preprocess_cfg`` differ in: the entry, with its value in each."""
    complete = [_complete(preprocess_cfg) for preprocess_cfg in (first, second)]
    return [(key, complete[0][key], complete[1][key]) for key in complete[0] if complete[0][key] != complete[1][key]]


def _complete(preprocess_cfg: Config) -> dict[str, Any]:
    given = {key: value for key, value in preprocess_cfg.items() if key in _PREPROCESS_DEFAULTS and value is not None}
    complete = {**_PREPROCESS_DEFAULTS, **given}
    if complete["interpolation"] == "random":  # for training; bicubic in evaluation
        complete["interpolation"] = "bicubic"
    if complete["resize_mode"] != "longest":
        complete["fill_color"] = 0
    for key in ("mean", "std"):
        value = complete[key]
        complete[key] = [value] * 3 if isinstance(value, (int, float)) else list(value)
    return complete


def _preprocess(entry: Config) -> dict[str, Any]:
    return {key: entry[key] for key in ("mean", "std", "interpolation", "resize_mode")}


def computation(cfg: Config, with_text: bool) -> str:
    """A text that is equal for all configurations that compute the same."""
    vision, quick = _settings(cfg["vision_cfg"], VISION_DEFAULTS), bool(cfg.get("quick_gelu"))
    if vision.get("timm_model_name"):  # its activations are timm's
        vision = {key: value for key, value in vision.items() if key.startswith("timm_") or key == "image_size"}
    elif isinstance(vision.get("layers"), list):  # CLIP's ResNet has ReLU
        vision = {key: vision.get(key) for key in ("layers", "width", "head_width", "image_size")}
    else:
        vision = {key: value for key, value in vision.items() if not key.startswith("timm_")} | {"quick": quick}
    text = _settings(cfg["text_cfg"], TEXT_DEFAULTS) if with_text else {}
    own_text = bool(text) and not text.get("hf_model_name")
    return json.dumps([cfg["embed_dim"], vision, text, own_text and quick], sort_keys=True)


def _settings(section: Config, defaults: Config) -> dict[str, Any]:
    """Settings with defaults filled in, without those that are empty or do not change the features."""
    every = {**defaults, **section}
    return {key: value for key, value in every.items() if value and key not in UNUSED}
