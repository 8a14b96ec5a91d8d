"""ImageNet-Vid-Robust and YTBB-Robust: anchor frames of videos, and frames near them that look similar.

Source: Shankar et al., "Do Image Classifiers Generalize Across Time?", ICCV 2021 (arXiv 1906.02168). For pm-0 an anchor
is correct if one of its classes is predicted; for pm-10 its reviewed neighbours within ten frames must be correct, too.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.datasets.class_names import imagenet_templates
from mergekit_wise.datasets.dataset import Dataset, Entry, Metric
from mergekit_wise.datasets.imagenet import VOCABULARY
from mergekit_wise.datasets.layouts import first_folder, open_list, positions, read_json
from mergekit_wise.datasets.web_pages import refuse_web_page
from mergekit_wise.errors import SuiteError

_VID_FOLDERS = ("imagenet_vid_ytbb_robust/imagenet-vid-robust", "imagenet-vid-robust")
_YTBB_FOLDERS = ("imagenet_vid_ytbb_robust/ytbb-robust", "ytbb-robust")

NEIGHBOUR_FRAMES = 10
"""Frames up to this distance from an anchor are its neighbours: the k of pm-k."""

YTBB_FILES = (
    "anchor_labels.json",
    "pmk_labels.json",
    "ytbb_class_index.json",
    "rev_class_idx_map.json",
    "ytbb_robustness_test_anchors_full.csv",
)

# The reviewers' class of anchors that show none of the others. The authors' evaluation sets its logit to the lowest.
_NO_ANSWER = "none"

# A neighbour with one of these labels of the reviewers does not count as similar to its anchor.
_PROBLEMS = frozenset(
    {
        "dissimilar",
        "problematic",
        "incorrect",
        "dont know",
        "deformation",
        "background-change",
        "occlusion-increased",
        "blur-increase",
        "bad-anchor",
    }
)


@dataclass(frozen=True, slots=True)
class Clip:
    """An anchor and its reviewed neighbours: paths below one folder, and the correct classes of each; anchor first."""

    frames: tuple[str, ...]
    classes: tuple[frozenset[int], ...]


@dataclass(frozen=True, slots=True)
class Clips:
    """All clips of a data set, its class names, and for each class the classes of ImageNet that belong to it.

    `no_answers` are as in :class:`Dataset`.
    """

    clips: tuple[Clip, ...]
    classnames: tuple[str, ...]
    columns: tuple[tuple[int, ...], ...]
    no_answers: frozenset[int] = frozenset()


def find_vid_robust(root: Path) -> Dataset | None:
    """ImageNet-Vid-Robust: 1,109 anchors of 30 classes, in ``val/<video>/<frame>.JPEG``.

    Raises SuiteError if a list is missing or damaged, or if there is no frame.
    """
    folder = first_folder(root, _VID_FOLDERS, "metadata/pmsets.json", "val")
    if folder is None:
        return None
    return _dataset("imagenet-vid-robust", "ImageNet-Vid-Robust", folder, _read_vid(folder))


def find_ytbb_robust(root: Path) -> Dataset | None:
    """YTBB-Robust: 2,530 anchors of 24 classes, in ``ytbb_videos/<video>_<time>/frame-<number>.jpg``.

    The lists are searched next to the frames and in a folder ``ytbb-robust_metadata``, the name that they have in the
    code of the papers. Raises SuiteError if a list is missing or damaged, or if there is no frame.
    """
    folder = first_folder(root, _YTBB_FOLDERS, "ytbb_videos")
    if folder is None:
        return None
    places = (
        folder / "metadata",
        folder / "misc",
        folder,
        folder / "ytbb-robust_metadata",
        folder.parent / "ytbb-robust_metadata",
        root / "ytbb-robust_metadata",
    )
    lists: list[Path] = []
    for name in YTBB_FILES:
        path = next((place / name for place in places if (place / name).is_file()), None)
        if path is None:
            raise SuiteError(
                f"{folder}: the list {name} is missing. Put {', '.join(YTBB_FILES)} from "
                "https://github.com/modestyachts/imagenet-testbed (src/eval_settings/ytbb-robust_metadata) into "
                f"{folder}/metadata."
            )
        lists.append(path)
    return _dataset("ytbb-robust", "YTBB-Robust", folder / "ytbb_videos", _read_ytbb(*lists))


def _dataset(name: str, title: str, folder: Path, clips: Clips) -> Dataset:
    """The frames clip by clip, the anchor first; a clip without its anchor is not evaluated."""
    frames = [frame for clip in clips.clips for frame in clip.frames]
    classes = [correct for clip in clips.clips for correct in clip.classes]
    labels = np.array([min(correct) for correct in classes], dtype=np.int64)
    found, kept = open_list(folder, frames, labels, len(clips.classnames))
    metric = Metric("all-in-group", _groups(clips.clips, kept), tuple(classes[row] for row in kept))
    dataset = found.dataset(
        name, title, clips.classnames, imagenet_templates(), len(frames), clips.columns, VOCABULARY, metric
    )
    return replace(dataset, no_answers=clips.no_answers)


def _groups(clips: tuple[Clip, ...], kept: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """The indices of each clip's samples, by its anchor; `kept` are the indices of the frames that exist."""
    starts = np.cumsum([0, *(len(clip.frames) for clip in clips)])
    edges = np.searchsorted(kept, starts)
    return {
        clip.frames[0]: np.arange(first, last, dtype=np.int64)
        for clip, start, first, last in zip(clips, starts[:-1], edges[:-1], edges[1:], strict=True)
        if first < last and kept[first] == start
    }


def _read_vid(folder: Path) -> Clips:
    """Read the lists of ImageNet-Vid-Robust: the clips and their labels in ``metadata/``, the classes in ``misc/``."""
    neighbours, labels = (read_json(folder / "metadata" / name) for name in ("pmsets.json", "labels.json"))
    class_index, imagenet_index, subclasses = (
        read_json(folder / "misc" / name)
        for name in ("imagenet_vid_class_index.json", "imagenet_class_index.json", "rev_wnid_map.json")
    )
    with _consistent(folder):
        column_of = {wnid: int(column) for column, (wnid, _) in imagenet_index.items()}
        classes = [class_index[str(label)] for label in range(len(class_index))]
        clips = []
        for anchor, others in neighbours.items():
            frames = (anchor, *others)
            clips.append(Clip(frames, tuple(_classes(labels[frame], len(classes)) for frame in frames)))
        columns = tuple(
            tuple(sorted(column_of[subclass] for subclass in subclasses.get(wnid, ()))) for wnid, _ in classes
        )
        return Clips(tuple(clips), tuple(name.replace("_", " ") for _, name in classes), columns)


def _read_ytbb(anchor_file: Path, pair_file: Path, class_file: Path, column_file: Path, label_file: Path) -> Clips:
    """Read the lists of YTBB-Robust, which are `YTBB_FILES`: the reviewers' labels of anchors and of pairs of frames.

    An anchor counts if it is labelled good, and neither bad nor unsure. A neighbour counts if it is labelled similar
    to the anchor, and with none of `_PROBLEMS`.
    """
    anchors, pairs, class_names, columns_of = map(read_json, (anchor_file, pair_file, class_file, column_file))
    first_class = _ytbb_first_classes(label_file)
    with _consistent(anchor_file.parent):
        names = tuple(str(class_names[str(label)]) for label in range(len(class_names)))
        label_of = positions(names)
        reviewed = dict(_reviews(pairs))
        bad = {_key(key.split(",")[0]) for key, review in reviewed.items() if "bad-anchor" in review}
        similar = {key for key, review in reviewed.items() if "similar" in review and not review & _PROBLEMS}
        clips: dict[str, Clip] = {}
        for key, review in _reviews(anchors):
            anchor = _key(key)
            if "good" in review and not review & {"bad", "unsure"} and anchor not in bad:
                added = {label_of[label] for label in review if label in label_of}
                correct = _classes([*added, first_class[anchor.split("/")[0]]], len(names))
                frames = (anchor, *(f for f in _neighbours(anchor) if f"{anchor},{f}" in similar))
                clips[anchor] = Clip(frames, (correct,) * len(frames))
        no_answers = frozenset({label_of[_NO_ANSWER]}) if _NO_ANSWER in label_of else frozenset[int]()
        columns = tuple(
            () if label in no_answers else tuple(sorted(map(int, columns_of.get(str(label), ()))))
            for label in range(len(names))
        )
        return Clips(tuple(clips.values()), names, columns, no_answers)


def _reviews(annotations: Mapping[str, Any]) -> Iterator[tuple[str, frozenset[str]]]:
    """The labels that the reviewers gave each frame, or pair of frames; the last annotation of it counts."""
    names = annotations["labels"]
    last = {row["key"]: row["labels"] for row in annotations["annotations"]}
    return ((key, frozenset(names[index] for index in indices)) for key, indices in last.items())


def _key(path: str) -> str:
    """The last folder and the file name of a path: some annotations have a longer path of a frame."""
    return "/".join(path.split("/")[-2:])


def _neighbours(anchor: str) -> Iterator[str]:
    """The names of the frames around ``<video>_<time>/frame-<number>.jpg``, whether they exist or not."""
    folder, file = anchor.split("/")
    number = int(file.split("-")[1].split(".")[0])
    return (f"{folder}/frame-{number + step}.jpg" for step in range(-NEIGHBOUR_FRAMES, NEIGHBOUR_FRAMES + 1) if step)


def _ytbb_first_classes(path: Path) -> dict[str, int]:
    """The class of each anchor in YouTube-BoundingBoxes, whose last two classes, car and none, are swapped here."""
    refuse_web_page(path)
    try:
        with path.open(encoding="utf-8", newline="") as file, _consistent(path):
            rows = list(csv.DictReader(file))
            return {f"{row['ytid']}_{row['time_ms']}": {22: 23, 23: 22}.get(n := int(row["label"]), n) for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SuiteError(f"{path}: expected a table in CSV format: {error}. Download it again.") from error


def _classes(labels: Sequence[Any], count: int) -> frozenset[int]:
    classes = frozenset(int(label) for label in labels)
    if not classes or min(classes) < 0 or max(classes) >= count:
        raise ValueError(f"expected classes from 0 to {count - 1}, found {sorted(classes)}")
    return classes


@contextmanager
def _consistent(place: Path) -> Iterator[None]:
    """Turn the errors of lists that lack entries, or have entries of another type, into a SuiteError."""
    try:
        yield
    except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise SuiteError(
            f"{place}: the lists of frames and classes do not match each other ({type(error).__name__}: {error}). "
            "Unpack the download again."
        ) from error


_DOWNLOAD = "imagenet_vid_ytbb_robust.tar.gz, linked from https://modestyachts.github.io/natural-perturbations-website"

ENTRIES = (
    Entry("imagenet-vid-robust", "ImageNet-Vid-Robust", find_vid_robust, _VID_FOLDERS, None, f"{_DOWNLOAD}, unpacked."),
    Entry(
        "ytbb-robust",
        "YTBB-Robust",
        find_ytbb_robust,
        _YTBB_FOLDERS,
        None,
        f"{_DOWNLOAD}, unpacked; and the lists of ytbb-robust_metadata from https://github.com/modestyachts/imagenet-testbed.",
    ),
)
