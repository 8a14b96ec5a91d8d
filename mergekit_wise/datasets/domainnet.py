"""DomainNet: 345 classes in six domains, each of which can be the reference.

Source: Peng et al. 2019 (arXiv 1812.01754). The authors' lists decide which images are the test part and which class an
image has: their numbers are not in the order of the folders' names.
"""

from functools import partial
from pathlib import Path

import numpy as np

from mergekit_wise.datasets.class_names import PLAIN
from mergekit_wise.datasets.dataset import Dataset, Entry
from mergekit_wise.datasets.layouts import open_list, read_lines
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import plural

CLASSES = 345
DOMAINS = {
    "clipart": 14_604,
    "infograph": 15_582,
    "painting": 21_850,
    "quickdraw": 51_750,
    "real": 52_041,
    "sketch": 20_916,
}
"""The images of each domain's test part, after the authors removed duplicates; not confirmed by their files."""

_FOLDERS = ("domain_net", "domainnet", "DomainNet", "domainbed/domain_net")


def _find(domain: str, root: Path) -> Dataset | None:
    """The test part of a domain: the images that ``<domain>_test.txt`` lists, next to the domain or above it.

    Raises SuiteError if the list is missing, or if it and the training part's list do not name 345 classes.
    """
    folder = next((root / place for place in _FOLDERS if (root / place / domain).is_dir()), None)
    if folder is None:
        return None
    places = (folder, folder / domain, folder / "splits", folder.parent)
    lists = [next((p / name for p in places if (p / name).is_file()), None) for name in _lists(domain)]
    if lists[0] is None:
        raise SuiteError(
            f"{folder / domain}: the list of its test part, {domain}_test.txt, is missing. {_HINT} To evaluate all "
            "images of a domain, as DomainBed does, give its folder's path in place of its name."
        )
    test, train = (_read(path) if path else [] for path in lists)
    names = _classnames(folder / domain, [*test, *train])
    found, _ = open_list(folder, [path for path, _ in test], np.array([n for _, n in test], np.int64), CLASSES)
    return found.dataset(f"domainnet-{domain}", f"DomainNet {domain}", names, PLAIN, len(test))


def _lists(domain: str) -> tuple[str, str]:
    return f"{domain}_test.txt", f"{domain}_train.txt"


def _read(path: Path) -> list[tuple[str, int]]:
    """Paths below the data set's folder, ``real/zebra/real_344_000001.jpg``, and their class numbers."""
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        image, _, label = line.rpartition(" ")
        if image.count("/") < 2 or not (label.isdecimal() and len(label) < 6):
            raise SuiteError(
                f"{path}: expected lines such as 'real/zebra/real_344_000001.jpg 344'; line {number} is {line[:80]!r}. "
                "Download it again."
            )
        rows.append((image.strip(), int(label)))
    return rows


def _classnames(place: Path, rows: list[tuple[str, int]]) -> tuple[str, ...]:
    """The name of each class: the folder of its images, with blanks for underscores."""
    folders: dict[int, str] = {}
    for image, label in rows:
        folder = image.split("/")[-2]
        if folders.setdefault(label, folder) != folder:
            raise SuiteError(
                f"{place}: the lists give class {label} to both {folders[label]!r} and {folder!r}. Download them again."
            )
    if sorted(folders) != list(range(CLASSES)):
        raise SuiteError(
            f"{place}: expected lists of {CLASSES} classes, found {plural(len(folders), 'class')}. Put the lists of "
            "both parts next to the images."
        )
    return tuple(folders[label].replace("_", " ") for label in range(CLASSES))


_HINT = (
    "From http://ai.bu.edu/M3SDA: each domain's archive and its two lists, such as real_train.txt and real_test.txt, "
    "unpacked in domain_net/."
)

ENTRIES = tuple(
    Entry(
        f"domainnet-{domain}",
        f"DomainNet {domain}",
        partial(_find, domain),
        tuple(f"{folder}/{domain}" for folder in _FOLDERS),
        images,
        _HINT,
        verified=False,
    )
    for domain, images in DOMAINS.items()
)
