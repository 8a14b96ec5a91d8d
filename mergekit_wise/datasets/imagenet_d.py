"""ImageNet-D: synthetic images of objects with unusual backgrounds, textures and materials.

Source: Zhang et al., "ImageNet-D: Benchmarking Neural Network Robustness on Diffusion Synthetic Object", CVPR 2024
(arXiv 2403.18775). Its 113 classes are those that ObjectNet and ImageNet have in common.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from mergekit_wise.datasets.class_names import imagenet_classnames, imagenet_templates, imagenet_wnids
from mergekit_wise.datasets.dataset import Dataset, Entry
from mergekit_wise.datasets.folders import class_folders
from mergekit_wise.datasets.imagenet import VOCABULARY
from mergekit_wise.datasets.layouts import open_folders, positions
from mergekit_wise.datasets.name_matching import joined
from mergekit_wise.datasets.objectnet import MAPPING_PLACES, find_map
from mergekit_wise.wording import listed

VARIANTS = ("background", "texture", "material")
CLASSES = 113

_FOLDERS = ("ImageNet-D", "imagenet-d", "imagenet_d", "ImageNet_D")

Columns = tuple[int, ...]


def _find(variant: str, root: Path) -> Dataset | None:
    """One of the three parts; classes are the folders of all parts, in the order of their names.

    Folders are ImageNet's classes by WordNet id, by ObjectNet's names, whose map is looked for where ObjectNet is, or
    by ImageNet's names. If one of them is none of these, only a head of the data set's own classes can be evaluated,
    and a note says so.
    """
    home = next((root / place for place in _FOLDERS if (root / place / variant).is_dir()), None)
    if home is None:
        return None
    parts = [home / part for part in VARIANTS if (home / part).is_dir()]
    folders = sorted({folder for part in parts for folder in class_folders(part)})
    found = open_folders(home / variant, positions(folders), "after classes")
    columns_of, unknown = _columns(folders, root)
    notes = found.notes
    if unknown:
        notes = (
            *notes,
            f"a head of ImageNet's classes cannot be evaluated, because {listed(map(repr, unknown), 3)} is none of "
            "them by name. ObjectNet's mappings in objectnet-1.0/mappings also give names.",
        )
    if len(folders) != CLASSES:
        notes = (*notes, f"expected {CLASSES} class folders in {home}, found {len(folders)}.")
    names = imagenet_classnames()
    title = f"ImageNet-D {variant}"
    is_wnid = all(folder in imagenet_wnids() for folder in folders)
    dataset = found.dataset(
        f"imagenet-d-{variant}",
        title,
        tuple(names[columns_of[f][0]] if is_wnid else f.replace("_", " ").lower() for f in folders),
        imagenet_templates(),
        0,
        None if unknown else tuple(columns_of[folder] for folder in folders),
        "" if unknown else VOCABULARY,
    )
    return replace(dataset, expected=None, notes=notes)


def _columns(folders: list[str], root: Path) -> tuple[dict[str, Columns], list[str]]:
    """ImageNet's classes of each folder by the first kind of names that all folders have, and the folders that lack it.

    The folders that lack a name are empty if there is such a kind.
    """
    mapping = find_map(root / place for place in MAPPING_PLACES)
    imagenet: dict[str, Columns] = {}
    for column, name in enumerate(imagenet_classnames()):
        imagenet[joined(name)] = (*imagenet.get(joined(name), ()), column)
    kinds: list[dict[str, Columns]] = [
        {wnid: (column,) for column, wnid in enumerate(imagenet_wnids())},
        {} if mapping is None else dict(zip(map(joined, mapping.names), mapping.columns, strict=True)),
        imagenet,
    ]
    unknown: list[str] = []
    for kind in kinds:
        unknown = [folder for folder in folders if joined(folder) not in kind]
        if not unknown:
            return {folder: kind[joined(folder)] for folder in folders}, []
    return {}, unknown


ENTRIES = tuple(
    Entry(
        f"imagenet-d-{variant}",
        f"ImageNet-D {variant}",
        partial(_find, variant),
        tuple(f"{place}/{variant}" for place in _FOLDERS),
        None,
        "ImageNet-D.zip, linked from https://github.com/chenshuang-zhang/imagenet_d, unpacked to ImageNet-D/.",
        verified=False,
    )
    for variant in VARIANTS
)
