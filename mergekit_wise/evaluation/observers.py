"""What else is made of the logits of a sweep's variants, while they are there. Stores none of them.

Output-space ensembles cost nothing beside the two ends, and how two models differ is summed up batch by batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mergekit_wise.evaluation.decoding import Batch

Kept = dict[int, Tensor]
"""Logits float32 [B, C] of one batch, by the number of the variant."""

Watcher = Callable[[Sequence[NDArray[np.float32]], NDArray[np.int64]], None]
"""Is given logits [n, K] of each variant that it watches, and labels [n]; K are the data set's classes."""


@dataclass(frozen=True, slots=True)
class OutputEnsemble:
    """The output-space ensemble (1 - alpha) f + alpha g of the variants with the numbers `first` and `second`."""

    first: int
    second: int
    alpha: float


@dataclass(frozen=True, slots=True)
class Observers:
    """Ensembles to evaluate, and variants whose logits `watch` is shown."""

    blends: Sequence[OutputEnsemble] = ()
    watching: Sequence[int] = ()
    watch: Watcher | None = None

    @property
    def variants(self) -> set[int]:
        """Those whose logits must be kept until all variants have seen a batch."""
        return {number for blend in self.blends for number in (blend.first, blend.second)} | set(self.watching)

    def blended(self, logits: Mapping[int, Tensor]) -> Iterator[Tensor]:
        """Logits of each ensemble for one batch."""
        for blend in self.blends:
            yield (1 - blend.alpha) * logits[blend.first] + blend.alpha * logits[blend.second]

    def watched(self, logits: Mapping[int, Tensor], labels: Tensor, batch: Batch) -> None:
        """Show one batch to `watch`, without padding and unreadable images."""
        if self.watch is None:
            return
        bad = {index for index, _ in batch.bad}
        rows = [row for row, index in enumerate(batch.indices.tolist()) if index not in bad]
        shown = [logits[number][rows].cpu().numpy() for number in self.watching]
        self.watch(shown, labels[rows].cpu().numpy())


NOTHING = Observers()
