"""Cars, DTD, SUN397 and Food-101: what ImageNet and CIFAR leave of the paper's seven sets for transfer (Table 2).

Sources: Krause et al. 2013; Cimpoi et al. 2014; Xiao et al. 2010; Bossard et al. 2014. Files lie as torchvision wants
them, and labels are torchvision's. Prompts are CLIP's (github.com/openai/CLIP, data/prompts.md). Knows no models.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mergekit_wise.datasets.dataset import Dataset, Entry
from mergekit_wise.datasets.layouts import Found, find_layout, open_shards
from mergekit_wise.datasets.listed import first_folder, open_list
from mergekit_wise.datasets.listings import Listing, read_cars, read_dtd, read_food101, read_sun397
from mergekit_wise.errors import SuiteError

_CARS = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a photo of my {}.",
    "i love my {}!",
    "a photo of my dirty {}.",
    "a photo of my clean {}.",
    "a photo of my new {}.",
    "a photo of my old {}.",
)
_DTD = tuple(
    f"a photo of {article} {{}} {noun}."
    for article in ("a", "the")
    for noun in ("texture", "pattern", "thing", "object")
)
_SUN397 = ("a photo of a {}.", "a photo of the {}.")
_FOOD101 = ("a photo of {}, a type of food.",)


@dataclass(frozen=True, slots=True)
class _Kind:
    """What tells one of these sets from the others; `needed` are the files by which its folder is known."""

    name: str
    title: str
    classes: int
    expected: int
    templates: tuple[str, ...]
    folders: tuple[str, ...]
    needed: tuple[str, ...]
    read: Callable[[Path], Listing]
    tars: tuple[str, ...]
    hint: str

    @property
    def tar_places(self) -> tuple[str, ...]:
        return tuple(f"{start}{name}" for name in self.tars for start in ("wds_", "wds/", "clip-benchmark/wds_"))


def _find(kind: _Kind, root: Path) -> Dataset | None:
    expected = kind.expected
    if place := first_folder(root, kind.folders, *kind.needed):
        listing = kind.read(place)
        names, expected = listing.classnames, listing.expected
        found, _ = open_list(listing.folder, listing.paths, listing.labels, len(names))
    elif layout := find_layout(root, (), kind.tar_places, lambda name: False):
        found = open_shards(layout[1], kind.classes)
        names = found.classnames or ()
    else:
        return None
    if len(names) != kind.classes:
        raise SuiteError(f"{found.location}: expected {kind.classes} classes, found {len(names)}. Download it again.")
    return _dataset(kind, found, names, expected)


def _dataset(kind: _Kind, found: Found, names: tuple[str, ...], expected: int) -> Dataset:
    return Dataset(
        kind.name,
        kind.title,
        names,
        found.labels,
        found.image,
        templates=found.templates or kind.templates,
        sample=found.sample,
        expected=expected,
        location=found.location,
        size=found.size,
    )


_KINDS = (
    _Kind(
        "cars",
        "Stanford Cars",
        196,
        8041,
        _CARS,
        ("stanford_cars", "cars", "stanford-cars"),
        ("cars_test_annos_withlabels.mat", "devkit/cars_meta.mat"),
        read_cars,
        ("cars",),
        "Stanford Cars as torchvision.datasets.StanfordCars wants it: stanford_cars/ with cars_test/, "
        "cars_test_annos_withlabels.mat and devkit/; or wise data fetch cars.",
    ),
    _Kind(
        "dtd",
        "DTD",
        47,
        1880,
        _DTD,
        ("dtd/dtd", "dtd", "DTD/dtd", "DTD"),
        ("labels/test1.txt", "images"),
        read_dtd,
        ("vtab-dtd", "dtd"),
        "dtd-r1.0.1.tar.gz from https://www.robots.ox.ac.uk/~vgg/data/dtd, unpacked in dtd/; or wise data fetch dtd.",
    ),
    _Kind(
        "sun397",
        "SUN397",
        397,
        19_850,
        _SUN397,
        ("SUN397", "sun397/SUN397", "sun397"),
        ("ClassName.txt",),
        read_sun397,
        ("sun397",),
        "SUN397.tar.gz and Partitions.zip from https://vision.princeton.edu/projects/2010/SUN, unpacked, the "
        "partitions in SUN397/; or wise data fetch sun397.",
    ),
    _Kind(
        "food101",
        "Food-101",
        101,
        25_250,
        _FOOD101,
        ("food-101", "food101/food-101", "food101"),
        ("meta/test.txt", "images"),
        read_food101,
        ("food101",),
        "food-101.tar.gz from https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101, unpacked; or wise data "
        "fetch food101.",
    ),
)

ENTRIES = tuple(
    Entry(
        kind.name,
        kind.title,
        partial(_find, kind),
        (*kind.folders, *kind.tar_places),
        kind.expected,
        kind.hint,
    )
    for kind in _KINDS
)
