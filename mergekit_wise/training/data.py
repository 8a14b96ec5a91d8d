"""The training set: the training part of a data set by name or by path."""

from collections.abc import Callable
from dataclasses import replace

from mergekit_wise.datasets.catalog import ENTRIES, open_suite
from mergekit_wise.datasets.class_names import read_classnames, read_templates
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.datasets.subsets import few_shot, with_names, with_pixel_limit
from mergekit_wise.errors import SuiteError
from mergekit_wise.options import FinetuneOptions


def open_training_data(request: FinetuneOptions) -> tuple[Dataset, tuple[str, ...]]:
    """Open the training set; return it and notes on it. Raises SuiteError."""
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
        return dataset, dataset.titled_notes
    says_little = f"{dataset.name} is an evaluation set; after training on it, accuracy on it says little"
    return dataset, (*dataset.titled_notes, says_little)


def with_training_names(request: FinetuneOptions) -> Callable[[Dataset], Dataset]:
    """A function that gives a data set the training data's class names and templates, if it has the same classes.

    The options replace names that validation data have, too: without it, a head of the new names would not find its
    classes there. Data sets with other classes keep their own. Raises SuiteError.
    """
    if request.classnames is None and request.templates is None:
        return lambda dataset: dataset
    own = open_training_data(replace(request, classnames=None, templates=None))[0].classnames
    names = None if request.classnames is None else read_classnames(request.classnames)
    templates = None if request.templates is None else read_templates(request.templates)
    return lambda dataset: with_names(dataset, names, templates) if dataset.classnames == own else dataset
