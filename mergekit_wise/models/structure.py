"""What a module computes besides its weights: the kinds of its parts and their settings. Imports no torch."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

Structure = tuple[tuple[str, str, tuple[tuple[str, Any], ...]], ...]
"""For each part of a module: its name, its kind, and its settings by name."""

_ONLY_TRAINED = frozenset(("Dropout", "PatchDropout", "DropPath"))
"""Parts that do nothing in evaluation."""

_SAME = {"LayerNormFp32": "LayerNorm", "NonDynamicallyQuantizableLinear": "Linear"}
"""Parts that compute the same in float32 as another kind."""

_NO_SETTINGS = frozenset(
    (
        *(
            "training",
            "output_tokens",
            "output_dict",
            "grad_checkpointing",
            "preprocess_cfg",
            "image_mean",
            "image_std",
        ),
        *("num_batches_tracked", "call_super_init", "dump_patches", "fused_attn"),
    )
)
"""Attributes that change no features."""


def structure_of(module: "nn.Module") -> Structure:
    """The parts of a module in their order. Hooks and replaced methods are settings of a part."""
    return tuple((name, *_part(part)) for name, part in module.named_modules())


def first_difference(found: Structure, wanted: Structure) -> str:
    """The first part that differs, for people; empty if none does."""
    known = {name: (kind, settings) for name, kind, settings in wanted}
    for name, kind, settings in found:
        if known.get(name) != (kind, settings):
            return f"{name or 'itself'} ({kind})"
    missing = known.keys() - {name for name, _, _ in found}
    return f"{min(missing)} (missing)" if missing else ""


def _part(part: "nn.Module") -> tuple[str, tuple[tuple[str, Any], ...]]:
    kind = type(part).__name__
    if kind in _ONLY_TRAINED:
        return "Identity", tuple(_changed(part))
    settings = [(key, value) for key, value in sorted(vars(part).items()) if _is_setting(key, value)]
    return _SAME.get(kind, kind), (*settings, *_changed(part))


def _changed(part: "nn.Module") -> Iterator[tuple[str, Any]]:
    if part._forward_hooks or part._forward_pre_hooks:
        yield "hooks", len(part._forward_hooks) + len(part._forward_pre_hooks)
    if "forward" in vars(part):
        yield "forward", "replaced"


def _is_setting(key: str, value: Any) -> bool:
    if key.startswith("_") or key in _NO_SETTINGS:
        return False
    parts = value if isinstance(value, tuple) else (value,)
    return all(isinstance(each, int | float | str | None) for each in parts)
