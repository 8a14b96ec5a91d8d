"""The fingerprint of a data set: a digest that is the same on every machine and decodes no image."""

import hashlib

from mergekit_wise.datasets.dataset import Dataset


def fingerprint(dataset: Dataset) -> str:
    """The first 16 hex digits of a SHA-256 over every sample's name relative to the data set, its label and its size.

    For images that are made rather than stored, the name of the data set is included. The same images have different
    fingerprints as folders and as tars. Raises SuiteError if a file no longer exists.
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
