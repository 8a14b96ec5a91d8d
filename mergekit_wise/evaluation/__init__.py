"""Module(s) x data set -> predictions. One pass over the images, however many alphas."""

from typing import TYPE_CHECKING

from mergekit_wise.lazy import names_on_demand

if TYPE_CHECKING:
    from mergekit_wise.evaluation.distributed import Ranks, joined
    from mergekit_wise.evaluation.engine import Engine
    from mergekit_wise.evaluation.forward import Forward, choose_precision, place
    from mergekit_wise.evaluation.image_batches import default_workers
    from mergekit_wise.evaluation.predictions import Predictions

__all__ = [
    "Engine",
    "Forward",
    "Predictions",
    "Ranks",
    "choose_precision",
    "default_workers",
    "joined",
    "place",
]

_NAMES = {
    "distributed": ("Ranks", "joined"),
    "engine": ("Engine",),
    "forward": ("Forward", "choose_precision", "place"),
    "image_batches": ("default_workers",),
    "predictions": ("Predictions",),
}

if not TYPE_CHECKING:  # or a type checker would accept every name
    __getattr__, __dir__ = names_on_demand(__name__, _NAMES)
