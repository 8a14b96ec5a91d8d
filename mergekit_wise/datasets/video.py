"""ImageNet-Vid-Robust and YTBB-Robust: frames of videos, and the frames around them that look the same.

Source: Shankar et al., "Do Image Classifiers Generalize Across Time?", ICCV 2021 (arXiv 1906.02168). An anchor is
right for pm-0 if one of its classes is predicted, and for pm-10 if its reviewed neighbours within ten frames are right
too. Knows nothing of models.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mergekit_wise.datasets.class_names import imagenet_templates
from mergekit_wise.datasets.dataset import Dataset, Entry, Metric
from mergekit_wise.datasets.imagenet import VOCABULARY
from mergekit_wise.datasets.listed import first_folder, open_list
from mergekit_wise.datasets.video_files import YTBB_FILES, Clip, Clips, read_vid, read_ytbb
from mergekit_wise.errors import SuiteError

_VID_FOLDERS = ("imagenet_vid_ytbb_robust/imagenet-vid-robust", "imagenet-vid-robust")
_YTBB_FOLDERS = ("imagenet_vid_ytbb_robust/ytbb-robust", "ytbb-robust")


def find_vid_robust(root: Path) -> Dataset | None:
    """ImageNet-Vid-Robust: 1,109 anchors of 30 classes, in ``val/<video>/<frame>.JPEG``. Raises SuiteError."""
    folder = first_folder(root, _VID_FOLDERS, "metadata/pmsets.json", "val")
    return None if folder is None else _dataset("imagenet-vid-robust", "ImageNet-Vid-Robust", folder, read_vid(folder))


def find_ytbb_robust(root: Path) -> Dataset | None:
    """YTBB-Robust: 2,530 anchors of 24 classes, in ``ytbb_videos/<video>_<time>/frame-<number>.jpg``.

    Its lists are looked for beside the frames and, as they come with the code of the papers, in a folder
    ``ytbb-robust_metadata``. Raises SuiteError.
    """
    folder = first_folder(root, _YTBB_FOLDERS, "ytbb_videos")
    if folder is None:
        return None
    own = (folder / "metadata", folder / "misc", folder)
    places = (
        *own,
        folder / "ytbb-robust_metadata",
        folder.parent / "ytbb-robust_metadata",
        root / "ytbb-robust_metadata",
    )

    def at(name: str) -> Path:
        for place in places:
            if (place / name).is_file():
                return place / name
        raise SuiteError(
            f"{folder}: its list {name} is missing. Put {', '.join(YTBB_FILES)} of "
            "https://github.com/modestyachts/imagenet-testbed (src/eval_settings/ytbb-robust_metadata) in "
            f"{folder}/metadata."
        )

    return _dataset("ytbb-robust", "YTBB-Robust", folder / "ytbb_videos", read_ytbb(at))


def _dataset(name: str, title: str, folder: Path, clips: Clips) -> Dataset:
    """Clip after clip, the anchor first; a clip whose anchor is not there does not count."""
    frames = [frame for clip in clips.clips for frame in clip.frames]
    classes = [right for clip in clips.clips for right in clip.classes]
    labels = np.array([min(right) for right in classes], dtype=np.int64)
    found, kept = open_list(folder, frames, labels, len(clips.classnames))
    return Dataset(
        name,
        title,
        clips.classnames,
        found.labels,
        found.image,
        templates=imagenet_templates(),
        columns=clips.columns,
        vocabulary=VOCABULARY,
        metric=Metric("all-in-group", _groups(clips.clips, kept), tuple(classes[row] for row in kept)),
        sample=found.sample,
        expected=len(frames),
        location=found.location,
        size=found.size,
    )


def _groups(clips: tuple[Clip, ...], kept: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """The samples of each clip by its anchor; `kept` are the frames that are there."""
    starts = np.cumsum([0, *(len(clip.frames) for clip in clips)])
    edges = np.searchsorted(kept, starts)
    return {
        clip.frames[0]: np.arange(first, last, dtype=np.int64)
        for clip, start, first, last in zip(clips, starts[:-1], edges[:-1], edges[1:], strict=True)
        if first < last and kept[first] == start
    }


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
