"""The most probable classes of each image, kept while logits are there. Knows no file and no alpha."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.analysis.logits import log_softmax
from mergekit_wise.evaluation.distributed import Ranks
from mergekit_wise.evaluation.engine import Observers


@dataclass(slots=True)
class ClassShares:
    """Collects the probabilities of the `top` most probable classes of one variant, by the image's index.

    An image whose logits hold NaN or inf has none. Of equally probable classes the lower number comes first.
    """

    top: int
    found: dict[int, tuple[NDArray[np.int64], NDArray[np.float64]]] = field(default_factory=dict)

    @property
    def observers(self) -> Observers:
        """What the engine calls for the first variant."""
        return Observers(observed=(0,), observe=self.update)

    def update(self, logits: Sequence[NDArray[np.float32]], _: NDArray[np.int64], indices: NDArray[np.int64]) -> None:
        """Add a batch: logits float32 [n, K], and the indices int64 [n] of its images."""
        (own,) = logits
        sound = (own < np.inf).all(axis=1)
        own, indices = own[sound], indices[sound]
        classes = np.argsort(-own, axis=1, kind="stable")[:, : self.top]
        shares = np.exp(np.take_along_axis(log_softmax(own), classes, axis=1)) if len(own) else np.empty(classes.shape)
        self.found |= dict(zip(indices.tolist(), zip(classes, shares, strict=True), strict=True))

    def of_all(self, ranks: Ranks) -> "ClassShares":
        """What all processes saw."""
        together = ClassShares(self.top)
        for part in ranks.gather(self.found):
            together.found |= part
        return together
