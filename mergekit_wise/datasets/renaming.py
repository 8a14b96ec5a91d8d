"""Class names and templates of the user's choice in place of a data set's own. Knows nothing of files."""

from dataclasses import replace

from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.errors import SuiteError


def renamed(dataset: Dataset, classnames: tuple[str, ...] | None, templates: tuple[str, ...] | None) -> Dataset:
    """`dataset` with other class names, other templates, or both.

    Where the data set's classes are some of a larger set's, as those of ImageNet-R are of ImageNet's, names of the
    larger set may be given; those of the data set's classes are taken. Raises SuiteError if the names fit neither.
    """
    names = dataset.classnames if classnames is None else _fitting(dataset, classnames)
    return replace(dataset, classnames=names, templates=dataset.templates if templates is None else templates)


def _fitting(dataset: Dataset, classnames: tuple[str, ...]) -> tuple[str, ...]:
    if len(classnames) == len(dataset.classnames):
        return classnames
    columns = dataset.columns
    if columns is None or len(classnames) != 1000 or dataset.vocabulary != "imagenet":
        raise SuiteError(
            f"{dataset.title}: {len(classnames)} class names were given for {len(dataset.classnames)} classes."
        )
    if any(len(several) != 1 for several in columns):
        raise SuiteError(
            f"{dataset.title}: some of its {len(columns)} classes are several of ImageNet's, so ImageNet's names "
            "cannot name them. Evaluate it apart, with its own names or with as many as it has classes."
        )
    return tuple(classnames[column] for (column,) in columns)
