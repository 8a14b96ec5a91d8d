"""What a data set is to the rest of the house: labelled images, decoded on request.

Knows nothing of where images come from, nor of models, logits or metrics.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True, slots=True)
class Dataset:
    """Labelled images of one distribution.

    ``labels`` is int64 [N], each an index into ``classnames``; ``image(i)`` decodes image ``i`` to RGB.
    ``name`` is for records and options ("digits-inverted"), ``title`` for tables ("Inverted").
    """

    name: str
    title: str
    classnames: tuple[str, ...]
    labels: NDArray[np.int64]
    image: Callable[[int], Image.Image]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Suite:
    """A reference distribution and the shifts away from it that a robust model should survive."""

    name: str
    reference: Dataset
    shifts: tuple[Dataset, ...]
