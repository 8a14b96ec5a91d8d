"""The training set: the training part of a data set by name or by path."""

from mergekit_wise.datasets.catalog import ENTRIES, open_suite
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.datasets.subsets import with_pixel_limit
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
    if dataset.name not in ENTRIES:
        return dataset, dataset.titled_notes
    says_little = f"{dataset.name} is an evaluation set; after training on it, accuracy on it says little"
    return dataset, (*dataset.titled_notes, says_little)
