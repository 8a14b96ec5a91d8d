"""ImageNet and the distribution shifts that have its classes, or some of them: V2, R, A and Sketch.

Sources: Deng et al. 2009; Recht et al. 2019 (arXiv 1902.10811); Hendrycks et al. 2021 (arXiv 2006.16241 and
1907.07174); Wang et al. 2019 (arXiv 1905.13549).
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from mergekit_wise.datasets.class_names import (
    imagenet_classnames,
    imagenet_templates,
    imagenet_wnids,
    subset_columns,
)
from mergekit_wise.datasets.dataset import Dataset, Entry
from mergekit_wise.datasets.folders import class_folders
from mergekit_wise.datasets.imagenet_files import KAGGLE, in_order, is_flat, open_flat
from mergekit_wise.datasets.layouts import Found, find_layout, open_folders, open_shards
from mergekit_wise.datasets.parquet import data_files, open_parquet
from mergekit_wise.datasets.splits import role_in
from mergekit_wise.datasets.webdataset import has_tars

VOCABULARY = "imagenet"
_TRAINING = 1_281_167
"""The number of ImageNet's training images."""

VALIDATION_IMAGES = "imagenet"
"""`Dataset.same_images` of what is made of ImageNet's validation images."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """One of these data sets.

    ``subset`` is an argument of :func:`subset_columns`, or empty for all 1000 classes. ``named`` says whether the name
    of a class folder is a WordNet id or the class number; numbers must not be sorted as texts. ``ambiguous`` are
    folders that may belong to another data set, ``train`` the folders of the training part, and ``copies`` folders that
    may hold the images without class folders: flat, or in parquet files. ``tars`` is empty if the hub has no tars.
    ``same_images`` is as in :class:`Dataset`.
    """

    name: str
    title: str
    folders: tuple[str, ...]
    tars: str
    expected: int
    hint: str
    subset: str = ""
    named: Literal["wnid", "number"] = "wnid"
    ambiguous: tuple[str, ...] = ()
    same_images: str = ""
    train: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()

    @property
    def places(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.folders, *self.ambiguous, *self.tar_places, *self.copies)))

    @property
    def tar_places(self) -> tuple[str, ...]:
        return tuple(f"{start}{self.tars}" for start in ("wds_", "wds/", "clip-benchmark/wds_") if self.tars)

    def columns(self) -> tuple[int, ...]:
        return subset_columns(self.subset) if self.subset else tuple(range(1000))

    def label_of(self) -> dict[str, int]:
        if self.named == "number":
            return {str(number): number for number in range(1000)}
        wnids = imagenet_wnids()
        return {wnids[column]: label for label, column in enumerate(self.columns())}


def _find(kind: _Kind, root: Path) -> Dataset | None:
    found = _open(kind, root)
    if found is None:
        return None
    names, columns = imagenet_classnames(), kind.columns()
    dataset = found.dataset(
        kind.name,
        kind.title,
        tuple(names[column] for column in columns),
        imagenet_templates(),
        kind.expected,
        tuple((column,) for column in columns) if kind.subset else None,
        VOCABULARY,
    )
    return replace(dataset, same_images=kind.same_images)


def _open(kind: _Kind, root: Path) -> Found | None:
    label_of = kind.label_of()
    layout = find_layout(root, kind.folders, kind.tar_places, label_of.__contains__, kind.ambiguous)
    if layout is None:
        return next(filter(None, (_open_copy(root / place, "test") for place in kind.copies)), None)
    if layout[0] == "tars":
        return open_shards(layout[1], len(kind.columns()))
    if kind.named == "number":
        return open_folders(layout[1], label_of, "by number, from '0' to '999'")
    return open_folders(
        layout[1], label_of, f"by the WordNet ids of its {len(label_of)} classes, such as {min(label_of)!r}"
    )


def _open_copy(place: Path, part: str) -> Found | None:
    """All 1000 classes as validation images in one folder, or as parquet files."""
    if is_flat(place) and part == "test":
        return open_flat(place)
    files = data_files(place)
    found = open_parquet(files, place, part) if files else None
    return found if found and found.classnames and in_order(found.classnames) else None


def _find_train(kind: _Kind, root: Path) -> Dataset | None:
    """The training part: class folders, tars in ``train``, or parquet files."""
    label_of = kind.label_of()
    folder = next(
        (root / p for p in kind.train if (root / p).is_dir() and set(class_folders(root / p)) & label_of.keys()), None
    )
    tars = next((root / place for place in kind.tar_places if has_tars(root / place, "train")), None)
    if folder is not None:
        found: Found | None = open_folders(folder, label_of, "by WordNet ids")
    elif tars is not None:
        found = open_shards(tars, len(label_of), part="train")
    else:
        copies = (root / place for place in kind.copies)
        found = next(
            (_open_copy(p, "train") for p in copies if any(role_in(f.name) == "train" for f in data_files(p))), None
        )
    if found is None:
        return None
    title = f"{kind.title}, training images"
    names = imagenet_classnames()
    return found.dataset(f"{kind.name}-train", title, names, imagenet_templates(), _TRAINING, None, VOCABULARY)


_KINDS = (
    _Kind(
        "imagenet",
        "ImageNet",
        ("imagenet/val_in_folder", "imagenet/val", "imagenet1k/val", "ILSVRC2012/val", f"{KAGGLE}/val"),
        "imagenet1k",
        50_000,
        "The validation images from https://image-net.org (an account is needed), sorted into a folder for each "
        "WordNet id, as torchvision.datasets.ImageNet does, in imagenet/val/; or wise data fetch imagenet.",
        # For a root that is ImageNet's own folder.
        ambiguous=("val_in_folder", "val"),
        same_images=VALIDATION_IMAGES,
        train=(
            "imagenet/train",
            "imagenet1k/train",
            "ILSVRC2012/train",
            f"imagenet/{KAGGLE}/train",
            f"{KAGGLE}/train",
            "train",
        ),
        copies=(
            "imagenet/val",
            "imagenet1k/val",
            "ILSVRC2012/val",
            f"imagenet/{KAGGLE}/val",
            f"{KAGGLE}/val",
            "val",
            "imagenet",
            "ILSVRC2012_img_val",
            "imagenet/ILSVRC2012_img_val",
            "imagenet-1k",
            "imagenet1k",
        ),
    ),
    _Kind(
        "imagenet-v2",
        "ImageNet-V2",
        (
            "ImageNetV2-matched-frequency",
            "imagenetv2-matched-frequency-format-val",
            "imagenetv2-matched-frequency",
            "imagenetv2/ImageNetV2-matched-frequency",
            "imagenetv2/imagenetv2-matched-frequency-format-val",
        ),
        "imagenetv2",
        10_000,
        "imagenetv2-matched-frequency.tar.gz from https://huggingface.co/datasets/vaishaal/ImageNetV2, unpacked; or "
        "wise data fetch imagenet-v2.",
        named="number",
        # They may hold the folders of all three variants.
        ambiguous=("imagenetv2", "imagenet-v2"),
    ),
    *(
        _Kind(
            f"imagenet-v2-{variant}",
            f"ImageNet-V2, {title}",
            tuple(
                f"{folder}{name}"
                for folder in ("", "imagenetv2/", "imagenet-v2/")
                for name in (f"imagenetv2-{file}-format-val", f"ImageNetV2-{file}", f"imagenetv2-{file}")
            ),
            "",
            10_000,
            f"imagenetv2-{file}.tar.gz from https://huggingface.co/datasets/vaishaal/ImageNetV2, unpacked.",
            named="number",
        )
        for variant, file, title in (
            ("threshold", "threshold0.7", "threshold 0.7"),
            ("top-images", "top-images", "top images"),
        )
    ),
    _Kind(
        "imagenet-r",
        "ImageNet-R",
        ("imagenet-r", "imagenet_r", "ImageNet-R"),
        "imagenet-r",
        30_000,
        "https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar, unpacked; or wise data fetch imagenet-r.",
        subset="r",
    ),
    _Kind(
        "imagenet-sketch",
        "ImageNet-Sketch",
        ("sketch", "imagenet-sketch", "imagenet-sketch/sketch", "imagenet_sketch", "ImageNet-Sketch/sketch"),
        "imagenet_sketch",
        50_889,
        "ImageNet-Sketch.zip, linked from https://github.com/HaohanWang/ImageNet-Sketch, unpacked to sketch/; or "
        "wise data fetch imagenet-sketch.",
    ),
    _Kind(
        "imagenet-a",
        "ImageNet-A",
        ("imagenet-a", "imagenet_a", "ImageNet-A"),
        "imagenet-a",
        7_500,
        "https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar, unpacked; or wise data fetch imagenet-a.",
        subset="a",
    ),
)

ENTRIES = tuple(
    Entry(
        kind.name,
        kind.title,
        partial(_find, kind),
        kind.places,
        kind.expected,
        kind.hint,
        partial(_find_train, kind) if kind.train else None,
    )
    for kind in _KINDS
)
