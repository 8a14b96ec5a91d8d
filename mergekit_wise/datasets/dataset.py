"""What a data set is to the rest of the house: labelled images, decoded on request.

Knows nothing of where images come from, nor of models, logits or metrics.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True)
class Metric:
    """What is reported of the predictions on a data set.

    ``kind`` is the primary number: ``top-1``, ``mean-per-class``, ``macro-f1``, ``worst-group`` (the lowest top-1 of
    the groups), or ``all-in-group`` (a group counts if all its samples are right: pm-k of videos).
    ``groups`` are indices of samples, int64, named; a sample may be in several, and the first of a group of frames is
    its anchor, which alone counts for pm-0. ``accepted`` holds, where an image has more than one right answer, the
    classes that count for each sample.
    """

    kind: Literal["top-1", "mean-per-class", "macro-f1", "worst-group", "all-in-group"] = "top-1"
    groups: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    accepted: tuple[frozenset[int], ...] | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """Labelled images of one distribution.

    Attributes:
        name: for records and options ("digits-inverted"); `title` for tables ("Inverted").
        classnames: of the classes that `labels` count.
        labels: int64 [N], each an index into `classnames`.
        image: decodes image i to RGB; picklable, because worker processes call it.
        templates: prompts with {} for a class name, for zero-shot heads.
        columns: for each class, the columns of a head over `vocabulary` that stand for it, the class's logit being
            their maximum; a class with no columns is never predicted. None where a head has one column for each class.
        vocabulary: the set of classes that `columns` count ("imagenet").
        metric: what is reported.
        sample: what image i is called, for messages: a path, or a member of a tar.
        expected: images that the complete data set has; None where nobody knows.
        location: where it was found, for people.
        corrupt: changes image i after it was resized and cropped, uint8 [H, W, 3] -> uint8 [H, W, 3], before it is
            normalised; picklable, as `image` is. None: images stay as they are.
        size: bytes of image i as it is stored; None where images are made rather than stored.
    """

    name: str
    title: str
    classnames: tuple[str, ...]
    labels: NDArray[np.int64]
    image: "Callable[[int], Image.Image]"
    templates: tuple[str, ...] = ("a photo of a {}.",)
    columns: tuple[tuple[int, ...], ...] | None = None
    vocabulary: str = ""
    metric: Metric = Metric()
    sample: Callable[[int], str] = str
    expected: int | None = None
    location: str = ""
    corrupt: Callable[[int, NDArray[np.uint8]], NDArray[np.uint8]] | None = None
    size: Callable[[int], int] | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Missing:
    """A data set that was asked for and is not there: the folders that were looked for, and what to do."""

    name: str
    title: str
    places: tuple[str, ...]
    hint: str


@dataclass(frozen=True, slots=True)
class Suite:
    """A reference distribution and the shifts away from it that a robust model should survive.

    ``reference`` is None where nobody named one, or where it is missing; ``missing`` are the parts that were not found.
    """

    name: str
    reference: Dataset | None
    shifts: tuple[Dataset, ...]
    missing: tuple[Missing, ...] = ()

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """The reference, if there is one, and the shifts."""
        return self.shifts if self.reference is None else (self.reference, *self.shifts)
