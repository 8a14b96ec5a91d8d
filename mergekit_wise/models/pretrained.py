"""What open_clip's table of pretrained weights says of them: activation and preprocessing.

Knows nothing of checkpoints.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from open_clip.transform import PreprocessCfg, merge_preprocess_dict

from mergekit_wise.errors import ModelError
from mergekit_wise.models.architecture import require_config
from mergekit_wise.models.declared_config import DeclaredConfig

QUICK = "-quickgelu"


def tagged(model: str, tag: str) -> DeclaredConfig:
    """The configuration and preprocessing of open_clip's pretrained weights ``model/tag``. Raises ModelError."""
    model_cfg = require_config(model)
    entry = get_pretrained_cfg(model, tag)
    if not entry:
        known = ", ".join(list_pretrained_tags_by_model(model)) or "none"
        raise ModelError(f"--model {model}/{tag}: open_clip has no such weights. Those of {model}: {known}.")
    # open_clip itself only warns where the weights want another activation than the configuration has.
    model_cfg["quick_gelu"] = bool(entry.get("quick_gelu", False))
    return DeclaredConfig(model_cfg, _preprocess(entry), f"open_clip's {model}/{tag}")


def usual(model: str, quick_gelu: bool) -> tuple[dict[str, Any], str]:
    """The preprocessing that open_clip's weights of an architecture share, and where it comes from, for people.

    Where they disagree or there are none it is open_clip's default, which open_clip takes for every file.
    """
    base = model.removesuffix(QUICK)
    entries = [get_pretrained_cfg(name, tag) for name in {model, base} for tag in list_pretrained_tags_by_model(name)]
    shared = [_preprocess(entry) for entry in entries if bool(entry.get("quick_gelu", False)) == quick_gelu]
    if shared and all(preprocess == shared[0] for preprocess in shared):
        return shared[0], f"that of all of open_clip's weights of {base}"
    if shared:
        return {}, f"open_clip's default; its weights of {base} differ in it, --model {base}/TAG names one"
    return {}, "open_clip's default"


def complete(preprocess_cfg: Mapping[str, Any], image_size: Any) -> dict[str, Any]:
    """``preprocess_cfg`` with open_clip's defaults where it is silent, and the size of images that the tower takes."""
    filled: dict[str, Any] = merge_preprocess_dict(asdict(PreprocessCfg()), dict(preprocess_cfg))
    return filled | {"size": image_size}


def _preprocess(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in ("mean", "std", "interpolation", "resize_mode")}
