"""A data set as the rest of the package sees it: labelled images, decoded on request; and suites of them.

This module knows nothing of where images are stored, nor of models, logits or metrics.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True)
class Metric:
    """The number that is reported for the predictions on a data set.

    Attributes:
        kind: ``top-1``, ``mean-per-class``, ``macro-f1``, ``worst-group`` (the lowest top-1 accuracy of a group),
            ``all-in-group`` (a group counts if all its samples are right: pm-k of videos), or ``mean`` (of the scores
            that an evaluator of one's own gave the samples, which then have no classes).
        groups: indices of samples, int64 [n], by the group's name. A sample may be in several groups. The first
            sample of a group of frames is its anchor, which alone counts for pm-0.
        accepted: the classes that count as right for each sample, where images have more than one.
    """

    kind: Literal["top-1", "mean-per-class", "macro-f1", "worst-group", "all-in-group", "mean"] = "top-1"
    groups: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    accepted: tuple[frozenset[int], ...] | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """Labelled images of one distribution.

    Attributes:
        name: for records and options ("digits-inverted").
        title: for tables ("Inverted").
        classnames: the names of the classes, by label.
        labels: int64 [N], each an index into `classnames`.
        image: decodes image i to RGB; picklable, because worker processes call it.
        templates: prompt templates for zero-shot heads, with {} for a class name.
        columns: for each class, the columns of a head over `vocabulary` that stand for it. The logit of a class is
            the maximum over its columns; a class without columns is never predicted. None if a head has one column
            per class.
        no_answers: labels of classes that are no answer, such as "none" of YTBB-Robust: a head of the data set's own
            classes never predicts them, and may lack them.
        vocabulary: the set of classes that `columns` index ("imagenet").
        metric: the number that is reported.
        sample: the name of image i for messages: a path, or a member of a tar.
        expected: the number of images in the complete data set; None if unknown.
        location: where the data set was found, for messages and tables.
        corrupt: changes image i after it was resized and cropped, uint8 [H, W, 3] -> uint8 [H, W, 3], and before it
            is normalised; picklable, as `image` is. None if images are not changed.
        size: the stored size of image i in bytes; None if images are made rather than stored.
        is_cropped: whether the images are stored as models take them, and are not resized and cropped again if their
            size is the model's.
        same_images: equal for data sets that are made of the same images, such as an original and its corruptions, so
            that their errors are not independent; empty for images of its own.
        content: a digest of the pixels of image i, for images that are no files but in memory; None for others.
        is_transformed: whether `image` gives float tensors [C, H, W], which a transform of the user's has made already.
        has_names: whether the classes have names; False for labels in memory that are mere numbers.
        notes: sentences on what was left out, mapped or guessed when the data set was opened.
    """

    name: str
    title: str
    classnames: tuple[str, ...]
    labels: NDArray[np.int64]
    image: "Callable[[int], Image.Image]"
    templates: tuple[str, ...] = ("a photo of a {}.",)
    columns: tuple[tuple[int, ...], ...] | None = None
    no_answers: frozenset[int] = frozenset()
    vocabulary: str = ""
    metric: Metric = Metric()
    sample: Callable[[int], str] = str
    expected: int | None = None
    location: str = ""
    corrupt: Callable[[int, NDArray[np.uint8]], NDArray[np.uint8]] | None = None
    size: Callable[[int], int] | None = None
    is_cropped: bool = False
    same_images: str = ""
    content: Callable[[int], bytes] | None = None
    is_transformed: bool = False
    has_names: bool = True
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def titled_notes(self) -> tuple[str, ...]:
        """The notes, each with the title of the data set, for a reader who sees several data sets."""
        return tuple(f"{self.title}: {note}" for note in self.notes)


@dataclass(frozen=True, slots=True)
class Entry:
    """A data set of the catalogue: its name, the folders to look in, and how to open it.

    Attributes:
        name: for options and records ("imagenet-r").
        title: for tables ("ImageNet-R").
        find: opens the data set under a root without decoding an image; returns None if it is not there. Raises
            SuiteError if it is damaged.
        places: folders to look for under the root, the usual one first; empty if the data set is built in.
        expected: the number of images in the complete data set; None if unknown.
        hint: what to download, and where to put it.
        find_train: as `find`, for the training part; None if the data set has none.
        verified: whether `expected` was confirmed by the data set's own files.
    """

    name: str
    title: str
    find: Callable[[Path], Dataset | None]
    places: tuple[str, ...]
    expected: int | None
    hint: str
    find_train: Callable[[Path], Dataset | None] | None = None
    verified: bool = True

    def open(self, root: Path | None, part: str = "test") -> Dataset | None:
        """Open the data set under `root`; without a root, only if it is built in. None if it is not there.

        For the `part` ``train``, the training part is opened if it is there, else the data set that is evaluated.
        """
        if root is None and self.places:
            return None
        train = self.find_train(root or Path()) if part == "train" and self.find_train else None
        return train or self.find(root or Path())


@dataclass(frozen=True, slots=True)
class Missing:
    """A requested data set that was not found: the folders that were looked for, and what to do."""

    name: str
    title: str
    places: tuple[str, ...]
    hint: str


@dataclass(frozen=True, slots=True)
class Suite:
    """A reference distribution and shifted distributions on which a robust model should keep its accuracy.

    ``reference`` is None if the suite has none or if it is missing; ``missing`` lists the data sets not found.
    """

    name: str
    reference: Dataset | None
    shifts: tuple[Dataset, ...]
    missing: tuple[Missing, ...] = ()

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """The reference, if there is one, followed by the shifts."""
        return self.shifts if self.reference is None else (self.reference, *self.shifts)
