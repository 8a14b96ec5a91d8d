"""The training set: images with classes or, for the contrastive objective, with captions, by name or by path."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from mergekit_wise.datasets.captions import CaptionedImages, open_captions
from mergekit_wise.datasets.catalog import ENTRIES, SUITES, open_suite
from mergekit_wise.datasets.class_names import read_classnames, read_templates
from mergekit_wise.datasets.dataset import Dataset, Suite
from mergekit_wise.datasets.fingerprint import fingerprint
from mergekit_wise.datasets.subsets import few_shot, with_names, with_pixel_limit
from mergekit_wise.datasets.text_kinds import texts_at
from mergekit_wise.errors import SuiteError
from mergekit_wise.options import FinetuneOptions


class TrainingData(NamedTuple):
    """Images, notes on them, and the captions of the images if these have captions rather than classes."""

    images: Dataset
    notes: tuple[str, ...]
    captions: CaptionedImages | None = None

    @property
    def digest(self) -> str:
        """The fingerprint of the images with their labels or captions."""
        return fingerprint(self.images) if self.captions is None else self.captions.fingerprint


def open_training_data(request: FinetuneOptions) -> TrainingData:
    """Open the training set. Raises SuiteError."""
    captions = _captions(request)
    if captions is not None:
        (images,) = with_pixel_limit(Suite("", captions.images, ()), request.max_pixels).datasets
        return TrainingData(images, images.titled_notes, captions)
    name = str(request.train)
    suite = open_suite(
        name, request.data, use="train", strict=True, classnames=request.classnames, templates=request.templates
    )
    suite = with_pixel_limit(suite, request.max_pixels)
    if len(suite.datasets) != 1:
        listed = ", ".join(dataset.name for dataset in suite.datasets)
        raise SuiteError(f"--train {name}: expected one data set, found {len(suite.datasets)}: {listed}.")
    (dataset,) = suite.datasets
    if request.shots is not None:
        dataset = few_shot(dataset, request.shots, request.seed)
    if dataset.name not in ENTRIES:
        return TrainingData(dataset, dataset.titled_notes)
    says_little = f"{dataset.name} is an evaluation set; after training on it, accuracy on it says little"
    return TrainingData(dataset, (*dataset.titled_notes, says_little))


def with_training_names(request: FinetuneOptions) -> Callable[[Dataset], Dataset]:
    """A function that gives a data set the training data's class names and templates, if it has the same classes.

    The options replace names that validation data have, too: without it, a head of the new names would not find its
    classes there. Data sets with other classes keep their own. Raises SuiteError.
    """
    if request.classnames is None and request.templates is None:
        return lambda dataset: dataset
    # Without captions: where there are both, these options have chosen the classes.
    own = open_training_data(replace(request, classnames=None, templates=None, objective="cross-entropy")).images
    names = None if request.classnames is None else read_classnames(request.classnames)
    templates = None if request.templates is None else read_templates(request.templates)
    return lambda dataset: with_names(dataset, names, templates) if dataset.classnames == own.classnames else dataset


def _captions(request: FinetuneOptions) -> CaptionedImages | None:
    """The images with captions to train on; None for images with classes. Raises SuiteError if it is not clear."""
    name, path = str(request.train), Path(request.train)
    if name in ENTRIES or name in SUITES or not path.exists():
        return None
    found = texts_at(path)
    if request.objective != "contrastive":
        if found.captions and not found.labels:
            raise SuiteError(
                f"--train {name}: has captions and no labels of classes. Train both encoders on them with --objective "
                "contrastive. If texts in tars are class names, list these in classnames.txt next to the tars."
            )
        return None
    of_classes = [option for option in ("classnames", "templates") if getattr(request, option) is not None]
    if not found.captions or (found.labels and of_classes):
        return None
    if found.labels:
        raise SuiteError(
            f"--train {name}: may have labels of classes or captions of its own. To train on captions made from class "
            "names, give --templates; to train on its captions, leave the labels out, and in a table name the columns: "
            "path, caption."
        )
    for option in (*of_classes, *(["shots"] if request.shots is not None else [])):
        raise SuiteError(f"--train {name}: has captions and no classes, which --{option} is for. Leave --{option} out.")
    return open_captions(path, "train")
