"""Robust fine-tuning of zero-shot models by interpolating weights (WiSE-FT).

The commands as functions: `merge`, `sweep`, `evaluate`, `predict`, `calibrate`, `compare`, `rules`, `finetune`. They
are imported on first use, so that merging does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mergekit_wise.api.calibrate import calibrate as calibrate
    from mergekit_wise.api.compare import compare as compare
    from mergekit_wise.api.evaluate import evaluate as evaluate
    from mergekit_wise.api.finetune import finetune as finetune
    from mergekit_wise.api.interpolate import interpolate_ as interpolate_
    from mergekit_wise.api.merge import merge as merge
    from mergekit_wise.api.predict import predict as predict
    from mergekit_wise.api.rules import rules as rules
    from mergekit_wise.api.soup import soup as soup
    from mergekit_wise.api.sweep import sweep as sweep

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "calibrate",
    "compare",
    "evaluate",
    "finetune",
    "interpolate_",
    "merge",
    "predict",
    "rules",
    "soup",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name.startswith("_") or name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"mergekit_wise.api.{name.rstrip('_')}"), name)
