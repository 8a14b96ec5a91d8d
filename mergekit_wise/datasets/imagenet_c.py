"""ImageNet-C: ImageNet's validation images with 15 corruptions at 5 severities, which makes 75 data sets.

Source: Hendrycks and Dietterich, ICLR 2019 (arXiv 1903.12261).
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from mergekit_wise.datasets.class_names import imagenet_classnames, imagenet_templates, imagenet_wnids
from mergekit_wise.datasets.dataset import Dataset, Entry
from mergekit_wise.datasets.imagenet import VALIDATION_IMAGES, VOCABULARY
from mergekit_wise.datasets.layouts import find_layout, open_folders, positions

SEVERITIES = (1, 2, 3, 4, 5)
CORRUPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "gaussian_noise": "noise",
        "shot_noise": "noise",
        "impulse_noise": "noise",
        "defocus_blur": "blur",
        "glass_blur": "blur",
        "motion_blur": "blur",
        "zoom_blur": "blur",
        "snow": "weather",
        "frost": "weather",
        "fog": "weather",
        "brightness": "weather",
        "contrast": "digital",
        "elastic_transform": "digital",
        "pixelate": "digital",
        "jpeg_compression": "digital",
    }
)
"""The archive of each corruption; some copies keep a folder with the name of the archive."""

IMAGES = 50_000
_FOLDERS = ("imagenet-c", "ImageNet-C", "imagenet_c", "Imagenet-C")


def name_of(corruption: str, severity: int) -> str:
    """The name of one of the 75 data sets: ``imagenet-c-gaussian_noise-3``."""
    return f"imagenet-c-{corruption}-{severity}"


def title_of(corruption: str, severity: int) -> str:
    """The title in tables: ``Gaussian noise 3``."""
    return f"{corruption.replace('_', ' ').capitalize()} {severity}"


def _places(corruption: str, severity: int) -> tuple[str, ...]:
    inside = (corruption, f"{CORRUPTIONS[corruption]}/{corruption}")
    return tuple(f"{folder}/{place}/{severity}" for place in inside for folder in _FOLDERS)


def _find(corruption: str, severity: int, root: Path) -> Dataset | None:
    label_of = positions(imagenet_wnids())
    layout = find_layout(root, _places(corruption, severity), (), label_of.__contains__)
    if layout is None:
        return None
    found = open_folders(layout[1], label_of, "by the WordNet ids of ImageNet's classes")
    dataset = found.dataset(
        name_of(corruption, severity),
        title_of(corruption, severity),
        imagenet_classnames(),
        imagenet_templates(),
        IMAGES,
        vocabulary=VOCABULARY,
    )
    # Centre crops of 224 x 224 pixels, which the authors' evaluation crops at the centre, without resizing them.
    return replace(dataset, same_images=VALIDATION_IMAGES, is_cropped=True)


ENTRIES = tuple(
    Entry(
        name_of(corruption, severity),
        title_of(corruption, severity),
        partial(_find, corruption, severity),
        _places(corruption, severity),
        IMAGES,
        f"{archive}.tar from https://zenodo.org/records/2235448, unpacked in imagenet-c/.",
    )
    for corruption, archive in CORRUPTIONS.items()
    for severity in SEVERITIES
)
