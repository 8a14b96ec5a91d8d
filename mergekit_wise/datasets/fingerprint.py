"""The fingerprint of a data set: a digest that is the same on every machine and decodes no file."""

import hashlib
import io
import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

from mergekit_wise.datasets.addresses import is_address, shown
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.errors import SuiteError

PROBED = 64
"""Files whose content is included where all files have the same size."""

DECODED = 1000
"""Images in memory whose pixels are included; of more, this many, evenly spread."""


def fingerprint(dataset: Dataset) -> str:
    """The first 16 hex digits of a SHA-256 over every sample's name relative to the data set, its label and its size.

    Further labels, groups, and classes that are no answers are included if there are some, because the reported number
    depends on them. For images that are made rather than stored, the name of the data set is included. Sizes tell
    nothing of uncompressed images (BMP, PPM), which all have the same one: then the bytes of some files, evenly spread,
    are included, so that corruptions of the same images under the same names are distinguished. Of images in memory the
    pixels are included, of up to `DECODED`, and no names. The same images
    have different fingerprints as folders and as tars. Raises SuiteError if a file no longer exists.
    """
    digest = hashlib.sha256()
    digest.update(f"{len(dataset)} {len(dataset.classnames)}\n".encode())
    if dataset.content is not None:
        some = min(DECODED, len(dataset))
        for place in range(some):
            digest.update(dataset.content(place * len(dataset) // some))
    elif dataset.size is None:
        digest.update(dataset.name.encode("utf-8", "surrogateescape"))
    for index, label in enumerate(dataset.labels.tolist()):
        name = "" if dataset.content is not None else dataset.sample(index).removeprefix(dataset.location)
        size = "" if dataset.size is None else dataset.size(index)
        digest.update(f"{name}\0{label}\0{size}\n".encode("utf-8", "surrogateescape"))
    for content in _probed(dataset):
        digest.update(hashlib.sha256(content).digest())
    for name, rows in sorted(dataset.metric.groups.items()):
        digest.update(f"group {name}\0{' '.join(map(str, rows.tolist()))}\n".encode("utf-8", "surrogateescape"))
    for accepted in dataset.metric.accepted or ():
        digest.update(f"labels {' '.join(map(str, sorted(accepted)))}\n".encode())
    if dataset.no_answers:
        digest.update(f"no answers {' '.join(map(str, sorted(dataset.no_answers)))}\n".encode())
    return digest.hexdigest()[:16]


def _probed(dataset: Dataset) -> Iterator[bytes]:
    """The content of up to `PROBED` files, evenly spread, if all images are files of the same size."""
    if dataset.size is None or len(dataset) < 2 or not Path(dataset.sample(0)).is_file():
        return
    first = dataset.size(0)
    if any(dataset.size(index) != first for index in range(1, len(dataset))):
        return
    for place in range(min(PROBED, len(dataset))):
        path = Path(dataset.sample(place * len(dataset) // min(PROBED, len(dataset))))
        try:
            yield path.read_bytes()
        except OSError as error:
            raise SuiteError(f"{path}: cannot be read: {error.strerror}.") from error


def images_identity(dataset: Dataset) -> str | None:
    """The SHA-256 of all that the decoded images depend on; None if nothing says that a later run would get the same.

    Those are images that are in no file of this machine, that are changed at random, or that code of others opens,
    which may do something else after an update.
    """
    if dataset.corrupt is not None or dataset.is_transformed:
        return None
    try:
        files = _files_identity(dataset)
        # Says all that the function depends on: places in tars, borders that are cropped, limits.
        _OwnCode(function := io.BytesIO()).dump(dataset.image)
    except (OSError, pickle.PicklingError, TypeError, AttributeError):
        return None
    if files is None:
        return None
    return hashlib.sha256(f"{files} {hashlib.sha256(function.getvalue()).hexdigest()}".encode()).hexdigest()


def served_identity(dataset: Dataset) -> str | None:
    """The SHA-256 of all that decoded images on servers depend on; None if others do, or a server says no version.

    No image is read: the files are those of the same address, size and version.
    """
    from mergekit_wise.datasets.remote import RemoteFile  # brings all of urllib

    if dataset.corrupt is not None or dataset.is_transformed:
        return None
    if not all(is_address(dataset.sample(index)) for index in range(len(dataset))):
        return None

    class OnServers(_OwnCode):
        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, RemoteFile):
                if not value.version:
                    raise pickle.PicklingError("the server says neither ETag nor Last-Modified")
                return tuple, ((shown(value.address), value.size, value.version),)
            return super().reducer_override(value)

    try:
        OnServers(function := io.BytesIO()).dump(dataset.image)
    except (pickle.PicklingError, TypeError, AttributeError):
        return None
    return hashlib.sha256(function.getvalue()).hexdigest()


class _OwnCode(pickle.Pickler):
    """Writes functions and objects of this package and of what comes with Python; refuses all others."""

    KNOWN = frozenset((*sys.stdlib_module_names, "mergekit_wise", "numpy"))

    def reducer_override(self, value: Any) -> Any:
        """Called for each function, class and object; refuses by raising PicklingError."""
        if isinstance(value, type | FunctionType) and value.__module__.partition(".")[0] not in self.KNOWN:
            raise pickle.PicklingError(f"{value.__module__}.{value.__qualname__}")
        return NotImplemented


def _files_identity(dataset: Dataset) -> str | None:
    """The SHA-256 of the names and identities of the images' files; None if an image is in no file.

    A file that was written in the meantime has another change time (ctime), which programs cannot set, whatever its
    size and modification time. A copy has another identity.
    """
    digest = hashlib.sha256()
    last: Path | None = None
    for index in range(len(dataset)):
        sample = dataset.sample(index)
        digest.update(f"{sample}\0".encode("utf-8", "surrogateescape"))
        place = _file_of(sample)
        if place is None:
            return None
        if place != last:  # samples in a tar file are consecutive
            digest.update(f"{file_identity(place)}\n".encode())
        last = place
    return digest.hexdigest()


def file_identity(path: Path | str) -> tuple[int, ...]:
    """What is another for a file that was written or replaced; empty without a file."""
    try:
        stat = os.stat(path)
    except OSError:
        return ()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _file_of(sample: str) -> Path | None:
    """The file that a sample is, or is in, under a name or a number, or two of them; None if there is none."""
    while sample:
        if os.path.isfile(sample):
            return Path(sample)
        sample = sample.rpartition(":")[0]
    return None
