"""ImageNet-9: nine groups of ImageNet's classes, with the backgrounds of the images exchanged or removed.

Source: Xiao et al. 2021, "Noise or Signal: The Role of Image Backgrounds in Object Recognition" (arXiv 2006.09994). As
in the authors' code, a head of ImageNet's 1000 classes predicts one of them, and its group counts: a prediction of a
class that is in none of the nine groups is wrong.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from mergekit_wise.datasets.class_names import imagenet_templates
from mergekit_wise.datasets.dataset import Dataset, Entry
from mergekit_wise.datasets.folders import class_folders
from mergekit_wise.datasets.imagenet import VOCABULARY
from mergekit_wise.datasets.layouts import open_folders, read_json
from mergekit_wise.errors import SuiteError

CLASSES = (
    "dog",
    "bird",
    "wheeled vehicle",
    "reptile",
    "carnivore",
    "insect",
    "musical instrument",
    "primate",
    "fish",
)
OTHER = "another object"
"""The tenth class, which no image has: all of ImageNet's classes that are in none of the nine groups."""

VARIANTS = {
    "original": "original",
    "mixed-same": "mixed_same",
    "mixed-rand": "mixed_rand",
    "mixed-next": "mixed_next",
    "only-fg": "only_fg",
    "no-fg": "no_fg",
    "only-bg-b": "only_bg_b",
    "only-bg-t": "only_bg_t",
}
"""The folder of each variant, by the end of its data set's name."""

MAP = "in_to_in9.json"
IMAGES = 4_050
_FOLDERS = ("bg_challenge", "imagenet-9", "imagenet9", "ImageNet-9", "backgrounds_challenge/bg_challenge")


def _find(variant: str, root: Path) -> Dataset | None:
    """One variant. Without the authors' map only a head of the nine classes can be evaluated, and a note says so.

    Raises SuiteError if a class folder is unknown or the map is damaged.
    """
    folder = VARIANTS[variant]
    place = next((root / p / folder / "val" for p in _FOLDERS if (root / p / folder / "val").is_dir()), None)
    if place is None:
        return None
    label_of = {name: int(name[:2]) for name in class_folders(place) if _is_class(name)}
    found = open_folders(place, label_of, f"'00_{CLASSES[0]}' to '08_{CLASSES[8]}'")
    home = place.parent.parent
    path = next((p / MAP for p in (home, home.parent, root) if (p / MAP).is_file()), None)
    columns = None if path is None else _columns(path)
    name = f"imagenet-9-{variant}"
    notes = found.notes
    if columns is None:
        notes = (*notes, f"{MAP} was not found in {home}, so a head of ImageNet's classes cannot be evaluated.")
    vocabulary = "" if columns is None else VOCABULARY
    dataset = found.dataset(name, _title(variant), (*CLASSES, OTHER), imagenet_templates(), IMAGES, columns, vocabulary)
    # The expected number is not confirmed, so it does not count.
    return replace(dataset, no_answers=frozenset({len(CLASSES)}), same_images="imagenet-9", expected=None, notes=notes)


def _is_class(name: str) -> bool:
    return name[:2].isdecimal() and name[2:3] == "_" and int(name[:2]) < len(CLASSES)


def _columns(path: Path) -> tuple[tuple[int, ...], ...]:
    """ImageNet's classes of each group, and the others, from the authors' map of 1000 numbers to 0 ... 8 or -1."""
    groups = read_json(path)
    if sorted(groups) != sorted(map(str, range(1000))) or not set(groups.values()) <= {-1, *range(len(CLASSES))}:
        raise SuiteError(
            f"{path}: expected the numbers from 0 to 999, each with a group from 0 to 8 or -1. Download it again from "
            "https://github.com/MadryLab/backgrounds_challenge."
        )
    return tuple(
        tuple(column for column in range(1000) if groups[str(column)] == group) for group in (*range(len(CLASSES)), -1)
    )


def _title(variant: str) -> str:
    return f"ImageNet-9 {variant.replace('-', ' ')}"


ENTRIES = tuple(
    Entry(
        f"imagenet-9-{variant}",
        _title(variant),
        partial(_find, variant),
        tuple(f"{place}/{folder}/val" for place in _FOLDERS),
        IMAGES,
        f"backgrounds_challenge_data.tar.gz and {MAP} from https://github.com/MadryLab/backgrounds_challenge, unpacked "
        "to bg_challenge/, and the map in it.",
        verified=False,
    )
    for variant, folder in VARIANTS.items()
)
