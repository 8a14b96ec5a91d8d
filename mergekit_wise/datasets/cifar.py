"""CIFAR-10 and CIFAR-100, and the remakes CIFAR-10.1 and CIFAR-10.2.

Sources: Krizhevsky 2009; Recht et al. 2018 (arXiv 1806.00451); Lu et al. 2020 (github.com/modestyachts/cifar-10.2).
Knows nothing of models.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mergekit_wise.datasets.array_images import open_binary_batch, open_npy_dict, open_npy_pair, open_python_batch
from mergekit_wise.datasets.dataset import Dataset, Entry
from mergekit_wise.datasets.folders import class_folders
from mergekit_wise.datasets.layouts import Found, find_layout, open_folders, open_shards
from mergekit_wise.datasets.listed import first_folder, number, read_lines
from mergekit_wise.datasets.pickled_arrays import read_pickle
from mergekit_wise.errors import SuiteError

CLASSNAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# CLIP's prompts for CIFAR-10 and CIFAR-100: github.com/openai/CLIP, data/prompts.md.
_PROMPTS = (
    "a photo of {a} {{}}.",
    "a blurry photo of {a} {{}}.",
    "a black and white photo of {a} {{}}.",
    "a low contrast photo of {a} {{}}.",
    "a high contrast photo of {a} {{}}.",
    "a bad photo of {a} {{}}.",
    "a good photo of {a} {{}}.",
    "a photo of {a} small {{}}.",
    "a photo of {a} big {{}}.",
)
TEMPLATES = tuple(prompt.format(a=article) for article in ("a", "the") for prompt in _PROMPTS)


@dataclass(frozen=True, slots=True)
class _Kind:
    """What tells CIFAR-10 from CIFAR-100: folders and files of the two versions, python and binary.

    ``labels_key`` and ``names_key`` are keys of the python version's dictionaries; ``label_bytes`` come before the
    pixels of a record of the binary version.
    """

    name: str
    title: str
    classes: int
    python: str
    binary: str
    batch: str
    labels_key: str
    label_bytes: int
    python_names: str
    names_key: str
    binary_names: str

    @property
    def parents(self) -> tuple[str, ...]:
        return ("", f"{self.name}/", f"{self.title}/", f"{self.name.upper()}/")

    @property
    def places(self) -> tuple[str, ...]:
        return tuple(f"{parent}{folder}" for folder in (self.python, self.binary) for parent in self.parents)

    @property
    def images(self) -> tuple[str, ...]:
        return tuple(f"{parent}test" for parent in self.parents[1:])

    @property
    def tars(self) -> tuple[str, ...]:
        return tuple(f"{start}{self.name}" for start in ("wds_vtab-", "wds/vtab-", "clip-benchmark/wds_vtab-", "wds_"))


_CIFAR10 = _Kind(
    "cifar10",
    "CIFAR-10",
    10,
    python="cifar-10-batches-py",
    binary="cifar-10-batches-bin",
    batch="test_batch",
    labels_key="labels",
    label_bytes=1,
    python_names="batches.meta",
    names_key="label_names",
    binary_names="batches.meta.txt",
)
_CIFAR100 = _Kind(
    "cifar100",
    "CIFAR-100",
    100,
    python="cifar-100-python",
    binary="cifar-100-binary",
    batch="test",
    labels_key="fine_labels",
    label_bytes=2,
    python_names="meta",
    names_key="fine_label_names",
    binary_names="fine_label_names.txt",
)


def _find(kind: _Kind, root: Path) -> Dataset | None:
    if place := first_folder(root, kind.places, kind.batch, kind.python_names):
        found, names = _open_python(kind, place)
    elif place := first_folder(root, kind.places, f"{kind.batch}.bin", kind.binary_names):
        found = open_binary_batch(place / f"{kind.batch}.bin", kind.label_bytes, kind.classes)
        names = tuple(read_lines(place / kind.binary_names))
    elif layout := find_layout(root, (), kind.tars, lambda name: True, loose=kind.images):
        found, names = _open_layout(kind, *layout)
    else:
        return None
    if len(names) != kind.classes:
        raise SuiteError(
            f"{found.location}: expected the names of {kind.classes} classes beside it, found {len(names)}. "
            "Download it again."
        )
    # As CLIP's prompts have them: "aquarium fish".
    return _dataset(kind.name, kind.title, found, tuple(name.replace("_", " ") for name in names), 10_000)


def _open_python(kind: _Kind, place: Path) -> tuple[Found, tuple[str, ...]]:
    names = read_pickle(place / kind.python_names).get(kind.names_key)
    told = tuple(_text(name) for name in names) if isinstance(names, list) else ()
    return open_python_batch(place / kind.batch, kind.labels_key, kind.classes), told


def _open_layout(kind: _Kind, form: str, place: Path) -> tuple[Found, tuple[str, ...]]:
    """Class folders, numbered in the order of their names as torchvision's ImageFolder does, or tars."""
    if form == "tars":
        found = open_shards(place, kind.classes)
        return found, found.classnames or ()
    names = class_folders(place)
    return open_folders(place, number(names), "by its classes"), names


def _text(name: object) -> str:
    return name.decode("latin-1") if isinstance(name, bytes) else str(name)


def _find_10_1(root: Path) -> Dataset | None:
    """Version 6, which the paper uses; version 4 only where it is alone."""
    for version, expected in ((6, 2000), (4, 2021)):
        data, labels = (f"cifar10.1_v{version}_{part}.npy" for part in ("data", "labels"))
        if place := first_folder(root, _PLACES_10_1, data, labels):
            found = open_npy_pair(place / data, place / labels, len(CLASSNAMES))
            return _dataset("cifar10.1", f"CIFAR-10.1 v{version}", found, CLASSNAMES, expected)
    return None


def _find_10_2(root: Path) -> Dataset | None:
    """The test part."""
    place = first_folder(root, _PLACES_10_2, "cifar102_test.npy")
    if place is None:
        return None
    found = open_npy_dict(place / "cifar102_test.npy", len(CLASSNAMES))
    return _dataset("cifar10.2", "CIFAR-10.2", found, CLASSNAMES, 2000)


def _dataset(name: str, title: str, found: Found, names: tuple[str, ...], expected: int) -> Dataset:
    return Dataset(
        name,
        title,
        names,
        found.labels,
        found.image,
        templates=found.templates or TEMPLATES,
        sample=found.sample,
        expected=expected,
        location=found.location,
        size=found.size,
    )


_PLACES_10_1 = ("CIFAR-10.1", "CIFAR-10.1/datasets", "cifar10.1", "cifar-10.1")
_PLACES_10_2 = ("CIFAR-10.2", "cifar10.2", "cifar-10.2")

ENTRIES = (
    *(
        Entry(
            kind.name,
            kind.title,
            partial(_find, kind),
            (*kind.places, *kind.images, *kind.tars),
            10_000,
            f"The python or the binary version from https://www.cs.toronto.edu/~kriz/cifar.html, unpacked; or "
            f"wise data fetch {kind.name}.",
        )
        for kind in (_CIFAR10, _CIFAR100)
    ),
    Entry(
        "cifar10.1",
        "CIFAR-10.1",
        _find_10_1,
        _PLACES_10_1,
        2000,
        "cifar10.1_v6_data.npy and cifar10.1_v6_labels.npy from https://github.com/modestyachts/CIFAR-10.1 "
        "(its folder datasets), in CIFAR-10.1/.",
    ),
    Entry(
        "cifar10.2",
        "CIFAR-10.2",
        _find_10_2,
        _PLACES_10_2,
        2000,
        "cifar102_test.npy from https://github.com/modestyachts/cifar-10.2, in CIFAR-10.2/.",
    ),
)
