"""The fingerprint of a data set: a digest that is the same on every machine and decodes no image."""

import hashlib

from mergekit_wise.datasets.dataset import Dataset


def fingerprint(dataset: Dataset) -> str:
    """The first 16 hex digits of a SHA-256 over every sample's name relative to the data set, its label and its size.

    Further labels, groups, and classes that are no answers are included if there are some, because the reported number
    depends on them. For images that are made rather than stored, the name of the data set is included. The same images
    have different fingerprints as folders and as tars. Raises SuiteError if a file no longer exists.
    """
    digest = hashlib.sha256()
    digest.update(f"{len(dataset)} {len(dataset.classnames)}\n".encode())
    if dataset.size is None:
        digest.update(dataset.name.encode("utf-8", "surrogateescape"))
    for index, label in enumerate(dataset.labels.tolist()):
        name = dataset.sample(index).removeprefix(dataset.location)
        size = "" if dataset.size is None else dataset.size(index)
        digest.update(f"{name}\0{label}\0{size}\n".encode("utf-8", "surrogateescape"))
    for name, rows in sorted(dataset.metric.groups.items()):
        digest.update(f"group {name}\0{' '.join(map(str, rows.tolist()))}\n".encode("utf-8", "surrogateescape"))
    for accepted in dataset.metric.accepted or ():
        digest.update(f"labels {' '.join(map(str, sorted(accepted)))}\n".encode())
    if dataset.no_answers:
        digest.update(f"no answers {' '.join(map(str, sorted(dataset.no_answers)))}\n".encode())
    return digest.hexdigest()[:16]
