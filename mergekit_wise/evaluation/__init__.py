"""Module(s) x data set -> predictions. One pass over the images, however many alphas."""

from mergekit_wise.evaluation.distributed import Ranks, joined
from mergekit_wise.evaluation.engine import Engine
from mergekit_wise.evaluation.forward import Forward, choose_precision, place
from mergekit_wise.evaluation.image_batches import default_workers
from mergekit_wise.evaluation.predictions import Predictions

__all__ = ["Engine", "Forward", "Predictions", "Ranks", "choose_precision", "default_workers", "joined", "place"]
