"""ImageNet-C from disk: ImageNet's validation images under 15 corruptions of 5 severities, 75 data sets.

Source: Hendrycks and Dietterich, ICLR 2019 (arXiv 1903.12261). The mean corruption error is analysis' business.
Knows nothing of models.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

from mergekit_wise.datasets.class_names import imagenet_classnames, imagenet_templates, imagenet_wnids
from mergekit_wise.datasets.dataset import Dataset, Entry
from mergekit_wise.datasets.imagenet import VOCABULARY
from mergekit_wise.datasets.layouts import find_layout, open_folders
from mergekit_wise.datasets.listed import number

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
"""Each corruption with the archive that it comes in, which some have as a folder of that name."""

IMAGES = 50_000
_FOLDERS = ("imagenet-c", "ImageNet-C", "imagenet_c", "Imagenet-C")


def name_of(corruption: str, severity: int) -> str:
    """What one of the 75 is called: ``imagenet-c-gaussian_noise-3``."""
    return f"imagenet-c-{corruption}-{severity}"


def title_of(corruption: str, severity: int) -> str:
    """What tables call it."""
    return f"{corruption.replace('_', ' ').capitalize()} {severity}"


def _places(corruption: str, severity: int) -> tuple[str, ...]:
    inside = (corruption, f"{CORRUPTIONS[corruption]}/{corruption}")
    return tuple(f"{folder}/{place}/{severity}" for place in inside for folder in _FOLDERS)


def _find(corruption: str, severity: int, root: Path) -> Dataset | None:
    label_of = number(imagenet_wnids())
    layout = find_layout(root, _places(corruption, severity), (), label_of.__contains__)
    if layout is None:
        return None
    found = open_folders(layout[1], label_of, "by WordNet ids of ImageNet's classes")
    return Dataset(
        name_of(corruption, severity),
        title_of(corruption, severity),
        imagenet_classnames(),
        found.labels,
        found.image,
        templates=imagenet_templates(),
        vocabulary=VOCABULARY,
        sample=found.sample,
        expected=IMAGES,
        location=found.location,
        size=found.size,
    )


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
