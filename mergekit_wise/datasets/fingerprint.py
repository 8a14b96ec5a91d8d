"""Which data a result is of: a digest that is the same on every machine, and decodes no image."""

import hashlib

from mergekit_wise.datasets.dataset import Dataset


def fingerprint(dataset: Dataset) -> str:
    """SHA-256, its first 16 hex digits, over every sample's name below the data set's place, its label and its size.

    Where images are made rather than stored, the data set's name stands for how. Two layouts of the same images,
    folders and tars, have two fingerprints. Raises SuiteError if a file has gone.
    """
    digest = hashlib.sha256()
    digest.update(f"{len(dataset)} {len(dataset.classnames)}\n".encode())
    if dataset.size is None:
        digest.update(dataset.name.encode("utf-8", "surrogateescape"))
    for index, label in enumerate(dataset.labels.tolist()):
        name = dataset.sample(index).removeprefix(dataset.location)
        size = "" if dataset.size is None else dataset.size(index)
        digest.update(f"{name}\0{label}\0{size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]
