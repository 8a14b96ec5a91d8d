"""The lists of the two robust video sets: which frames belong together, and which classes are right for them.

Knows nothing of where data sets are looked for, and opens no image.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergekit_wise.errors import SuiteError

REACH = 10
"""Frames before and after an anchor that are its neighbours: the k of pm-k."""

YTBB_FILES = (
    "anchor_labels.json",
    "pmk_labels.json",
    "ytbb_class_index.json",
    "rev_class_idx_map.json",
    "ytbb_robustness_test_anchors_full.csv",
)

# Reviewers' marks that make a neighbour unlike its anchor.
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
    """An anchor and its reviewed neighbours, as paths below one folder; ``classes`` of each, the anchor first."""

    frames: tuple[str, ...]
    classes: tuple[frozenset[int], ...]


@dataclass(frozen=True, slots=True)
class Clips:
    """All clips of a set, its classes, and for each of these the classes of ImageNet that are kinds of it."""

    clips: tuple[Clip, ...]
    classnames: tuple[str, ...]
    columns: tuple[tuple[int, ...], ...]


def read_vid(folder: Path) -> Clips:
    """ImageNet-Vid-Robust: ``metadata/pmsets.json`` and ``labels.json``, and the maps of classes in ``misc/``.

    Raises SuiteError if a file is missing, damaged, or does not fit the others.
    """
    neighbours, labels = (_json(folder / "metadata" / name) for name in ("pmsets.json", "labels.json"))
    own, theirs, kinds = (
        _json(folder / "misc" / name)
        for name in ("imagenet_vid_class_index.json", "imagenet_class_index.json", "rev_wnid_map.json")
    )
    with _fitting(folder):
        column_of = {wnid: int(column) for column, (wnid, _) in theirs.items()}
        pairs = [own[str(label)] for label in range(len(own))]
        clips = []
        for anchor, around in neighbours.items():
            frames = (anchor, *around)
            clips.append(Clip(frames, tuple(_classes(labels[frame], len(pairs)) for frame in frames)))
        columns = tuple(tuple(sorted(column_of[kind] for kind in kinds.get(wnid, ()))) for wnid, _ in pairs)
        return Clips(tuple(clips), tuple(name.replace("_", " ") for _, name in pairs), columns)


def read_ytbb(at: Callable[[str], Path]) -> Clips:
    """YTBB-Robust: the reviewers' marks on anchors and neighbours; `at` tells where a file of `YTBB_FILES` is.

    An anchor counts if it is marked good and neither bad nor unsure; a neighbour if it is marked similar to it and
    nothing of `_PROBLEMS`. Raises SuiteError as above.
    """
    anchors, pairs, own, kinds = (_json(at(name)) for name in YTBB_FILES[:4])
    told = _ytbb_first_classes(at(YTBB_FILES[4]))
    with _fitting(at(YTBB_FILES[0]).parent):
        names = tuple(str(own[str(label)]) for label in range(len(own)))
        label_of = {name: label for label, name in enumerate(names)}
        marked = dict(_marks(pairs))
        spoilt = {_key(key.split(",")[0]) for key, marks in marked.items() if "bad-anchor" in marks}
        similar = {key for key, marks in marked.items() if "similar" in marks and not marks & _PROBLEMS}
        clips: dict[str, Clip] = {}
        for key, marks in _marks(anchors):
            anchor = _key(key)
            if "good" in marks and not marks & {"bad", "unsure"} and anchor not in spoilt:
                added = {label_of[mark] for mark in marks if mark in label_of}
                right = _classes([*added, told[anchor.split("/")[0]]], len(names))
                frames = (anchor, *(f for f in _around(anchor) if f"{anchor},{f}" in similar))
                clips[anchor] = Clip(frames, (right,) * len(frames))
        columns = tuple(tuple(sorted(map(int, kinds.get(str(label), ())))) for label in range(len(names)))
        return Clips(tuple(clips.values()), names, columns)


def _marks(annotations: Mapping[str, Any]) -> Iterator[tuple[str, frozenset[str]]]:
    """What each frame or pair of frames was marked with; of several annotations of one the last counts."""
    names = annotations["labels"]
    last = {row["key"]: row["labels"] for row in annotations["annotations"]}
    return ((key, frozenset(names[mark] for mark in marks)) for key, marks in last.items())


def _key(path: str) -> str:
    """Annotations name some frames by a longer path; the last folder and the file are what they are called here."""
    return "/".join(path.split("/")[-2:])


def _around(anchor: str) -> Iterator[str]:
    """The names that neighbours of ``<video>_<time>/frame-<number>.jpg`` would have."""
    folder, file = anchor.split("/")
    number = int(file.split("-")[1].split(".")[0])
    return (f"{folder}/frame-{number + step}.jpg" for step in range(-REACH, REACH + 1) if step)


def _ytbb_first_classes(path: Path) -> dict[str, int]:
    """The class that YouTube-BoundingBoxes gives each anchor. Its last two, car and none, are counted the other way."""
    try:
        with path.open(encoding="utf-8", newline="") as file, _fitting(path):
            rows = list(csv.DictReader(file))
            return {f"{row['ytid']}_{row['time_ms']}": {22: 23, 23: 22}.get(n := int(row["label"]), n) for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SuiteError(f"{path}: expected a table with commas: {error}. Download it again.") from error


def _classes(told: Sequence[Any], count: int) -> frozenset[int]:
    classes = frozenset(int(label) for label in told)
    if not classes or min(classes) < 0 or max(classes) >= count:
        raise ValueError(f"classes {sorted(classes)} where there are {count}")
    return classes


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SuiteError(f"{path}: expected a JSON object: {error}. Unpack the download again.") from error
    if not isinstance(found, dict):
        raise SuiteError(f"{path}: expected a JSON object, found a {type(found).__name__}. Unpack the download again.")
    return found


@contextmanager
def _fitting(place: Path) -> Iterator[None]:
    """Whatever a list lacks, or has of another kind, becomes one sentence."""
    try:
        yield
    except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise SuiteError(
            f"{place}: its lists of frames and classes do not fit each other ({type(error).__name__}: {error}). "
            "Unpack the download again."
        ) from error
