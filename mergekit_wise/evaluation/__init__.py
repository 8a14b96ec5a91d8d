"""Module(s) x data set -> predictions. One pass over the images, however many alphas.

The names are imported when they are used: measurements that the results file holds need no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mergekit_wise.evaluation.distributed import Ranks, joined
    from mergekit_wise.evaluation.engine import Engine
    from mergekit_wise.evaluation.forward import Forward, choose_precision, place
    from mergekit_wise.evaluation.image_batches import default_workers
    from mergekit_wise.evaluation.predictions import Predictions

__all__ = ["Engine", "Forward", "Predictions", "Ranks", "choose_precision", "default_workers", "joined", "place"]

_HOMES = {
    **dict.fromkeys(("Ranks", "joined"), "distributed"),
    "Engine": "engine",
    **dict.fromkeys(("Forward", "choose_precision", "place"), "forward"),
    "default_workers": "image_batches",
    "Predictions": "predictions",
}

if not TYPE_CHECKING:  # or a type checker would accept every name

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
