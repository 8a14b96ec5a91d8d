"""The frames, classes and pm-k of the two video data sets equal those of loops over their lists."""

import csv
import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from mergekit_wise.analysis.metrics import score
from mergekit_wise.datasets.dataset import Dataset, Suite
from mergekit_wise.datasets.subsets import companions
from mergekit_wise.datasets.video import ENTRIES, find_vid_robust, find_ytbb_robust
from mergekit_wise.errors import SuiteError
from mergekit_wise.evaluation.predictions import choose_columns, class_logits, predict_classes

VID_CLASSES = {"n1": ("antelope", ["w3", "w1"]), "n2": ("giant_panda", ["w2"]), "n3": ("watercraft", [])}
PAIR_MARKS = ["similar", "dissimilar", "correct", "blur-increase", "bad-anchor", "deformation"]


def picture(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (number % 256, number // 256, 3)).save(path, "PNG")


def dump(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


@pytest.fixture
def vid(tmp_path):
    """A root with a small ImageNet-Vid-Robust, and its lists: the neighbours of anchors and the classes of frames."""
    folder = tmp_path / "imagenet_vid_ytbb_robust" / "imagenet-vid-robust"
    rng = np.random.default_rng(0)
    pmsets, labels = {}, {}
    for video in range(8):
        frames = [f"val/ILSVRC2015_val_{video:08d}/{n:06d}.JPEG" for n in range(video % 4 + 1)]
        anchor = frames[len(frames) // 2]
        pmsets[anchor] = [frame for frame in frames if frame != anchor]
        for frame in frames:
            labels[frame] = sorted(rng.choice(3, rng.integers(1, 3), replace=False).tolist(), reverse=True)
            picture(folder / frame, len(labels))
    picture(folder / "val" / "ILSVRC2015_val_00000000" / "999999.JPEG", 0)
    dump(folder / "metadata" / "pmsets.json", pmsets)
    dump(folder / "metadata" / "labels.json", labels)
    wnids = {str(i): [wnid, name] for i, (wnid, (name, _)) in enumerate(VID_CLASSES.items())}
    dump(folder / "misc" / "imagenet_vid_class_index.json", wnids)
    dump(folder / "misc" / "imagenet_class_index.json", {str(10 * i): [f"w{i}", f"kind {i}"] for i in range(5)})
    dump(folder / "misc" / "rev_wnid_map.json", {wnid: kinds for wnid, (_, kinds) in VID_CLASSES.items() if kinds})
    return tmp_path, folder, pmsets, labels


def test_vid_robust_has_the_frames_and_classes_of_its_lists(vid):
    """The frames are those of the clips, and each class in the list of a frame is correct for it."""
    root, folder, _, labels = vid
    dataset = find_vid_robust(root)
    frames = [dataset.sample(i).removeprefix(f"{folder}/") for i in range(len(dataset))]
    assert sorted(frames) == sorted(labels)
    assert [set(classes) for classes in dataset.metric.accepted] == [set(labels[frame]) for frame in frames]
    assert [int(label) in labels[frame] for label, frame in zip(dataset.labels, frames, strict=True)] == [True] * len(
        frames
    )
    image = pickle.loads(pickle.dumps(dataset.image))
    assert [image(i).getpixel((0, 0))[0] - 1 for i in range(len(frames))] == [list(labels).index(f) for f in frames]
    assert (dataset.expected, dataset.vocabulary) == (len(labels), "imagenet")


def test_a_class_of_vid_has_the_columns_of_its_imagenet_classes(vid):
    """A class without a class of ImageNet has no columns."""
    dataset = find_vid_robust(vid[0])
    assert dataset.classnames == ("antelope", "giant panda", "watercraft")
    assert dataset.columns == ((10, 30), (20,), ())


@pytest.mark.parametrize("seed", range(4))
def test_pm_0_and_pm_10_of_vid_follow_the_authors_definition(vid, seed):
    """A loop over anchors and their neighbours gives the same numbers."""
    root, folder, pmsets, labels = vid
    dataset = find_vid_robust(root)
    rng = np.random.default_rng(seed)
    predicted = {frame: classes[0] if rng.random() < 0.8 else int(rng.integers(3)) for frame, classes in labels.items()}
    predictions = np.array([predicted[dataset.sample(i).removeprefix(f"{folder}/")] for i in range(len(dataset))])
    anchors = sum(predicted[anchor] in labels[anchor] for anchor in pmsets)
    whole = sum(all(predicted[f] in labels[f] for f in [anchor, *around]) for anchor, around in pmsets.items())
    found = score(dataset.metric, predictions, dataset.labels, 3)
    assert (found.value, found.values["pm-0"]) == (whole / 8, anchors / 8)


def test_a_clip_without_its_anchor_does_not_count(vid):
    """A missing neighbour is left out of its clip; the number of images shows both losses."""
    root, folder, pmsets, labels = vid
    lost_anchor, clipped = list(pmsets)[3], list(pmsets)[2]
    (folder / lost_anchor).unlink()
    (folder / pmsets[clipped][0]).unlink()
    dataset = find_vid_robust(root)
    assert (len(dataset), dataset.expected) == (len(labels) - 2, len(labels))
    assert set(dataset.metric.groups) == set(pmsets) - {lost_anchor}
    for anchor, rows in dataset.metric.groups.items():
        there = [anchor, *(frame for frame in pmsets[anchor] if (folder / frame).exists())]
        assert [dataset.sample(i).removeprefix(f"{folder}/") for i in rows] == there


def annotate(rows, names):
    return {
        "annotations": [
            {"key": key, "notes": "", "labels": [names.index(mark) for mark in marks]} for key, marks in rows
        ],
        "labels": names,
    }


ANCHORS = [
    ("vid-A_100/frame-3.jpg", ["bad"]),
    ("vid-A_100/frame-3.jpg", ["good", "bird"]),  # the last annotation of a frame counts
    ("/home/x/anchors/vid_B_2_200/frame-50.jpg", ["good"]),
    ("vid-C_300/frame-9.jpg", ["good", "unsure"]),
    ("vid-D_400/frame-9.jpg", ["bird"]),
    ("vid-E_500/frame-12.jpg", ["good", "cow"]),
    ("vid-F_600/frame-20.jpg", ["good"]),
]
PAIRS = [
    ("vid-A_100/frame-3.jpg,vid-A_100/frame-2.jpg", ["similar"]),
    ("vid-A_100/frame-3.jpg,vid-A_100/frame-13.jpg", ["similar", "correct"]),
    ("vid-A_100/frame-3.jpg,vid-A_100/frame-14.jpg", ["similar"]),  # eleven frames away
    ("vid-A_100/frame-3.jpg,vid-A_100/frame-4.jpg", ["similar", "blur-increase"]),
    ("vid-A_100/frame-3.jpg,vid-A_100/frame-5.jpg", ["correct"]),
    ("vid_B_2_200/frame-50.jpg,vid_B_2_200/frame-41.jpg", ["dissimilar"]),
    ("vid_B_2_200/frame-50.jpg,vid_B_2_200/frame-41.jpg", ["similar"]),
    ("vid-E_500/frame-12.jpg,vid-E_500/frame-11.jpg", ["similar", "bad-anchor"]),
]
# YouTube-BoundingBoxes' own class; 22 is a car there, and 23 none.
FIRST = {"vid-A_100": 0, "vid_B_2_200": 22, "vid-C_300": 0, "vid-D_400": 0, "vid-E_500": 2, "vid-F_600": 23}
WANTED = {
    "vid-A_100/frame-3.jpg": ({"person", "bird"}, ["vid-A_100/frame-2.jpg", "vid-A_100/frame-13.jpg"]),
    "vid_B_2_200/frame-50.jpg": ({"car"}, ["vid_B_2_200/frame-41.jpg"]),
    "vid-F_600/frame-20.jpg": ({"none"}, []),
}


@pytest.fixture(params=["ytbb-robust/metadata", "ytbb-robust_metadata"])
def ytbb(tmp_path, request):
    """A root with a small YTBB-Robust; its lists are next to the frames, or in the folder of the papers' code."""
    names = ["person", "bird", "cow", *(f"filler {n}" for n in range(3, 22)), "none", "car"]
    marks = ["good", "unsure", "bad", *names]
    lists = tmp_path / "imagenet_vid_ytbb_robust" / request.param
    dump(lists / "anchor_labels.json", annotate(ANCHORS, marks))
    dump(lists / "pmk_labels.json", annotate(PAIRS, PAIR_MARKS))
    dump(lists / "ytbb_class_index.json", {str(i): name for i, name in enumerate(names)})
    dump(lists / "rev_class_idx_map.json", {"0": [983, 981], "1": [7], "23": [407]})
    with (lists / "ytbb_robustness_test_anchors_full.csv").open("w", newline="") as file:
        rows = [(*name.rsplit("_", 1), label) for name, label in FIRST.items()]
        csv.writer(file).writerows([("ytid", "time_ms", "label"), *rows])
    folder = tmp_path / "imagenet_vid_ytbb_robust" / "ytbb-robust" / "ytbb_videos"
    frames = {part for key, _ in PAIRS for part in key.split(",")} | {"/".join(k.split("/")[-2:]) for k, _ in ANCHORS}
    for number, frame in enumerate(sorted(frames)):
        picture(folder / frame, number)
    return tmp_path, folder, names


def test_ytbb_robust_has_the_frames_that_reviewers_approved(ytbb):
    """Anchors are labelled good; neighbours are similar, within ten frames, and without a problem."""
    root, folder, names = ytbb
    dataset = find_ytbb_robust(root)
    found = {}
    for anchor, rows in dataset.metric.groups.items():
        frames = [dataset.sample(i).removeprefix(f"{folder}/") for i in rows]
        accepted = {frozenset(names[c] for c in dataset.metric.accepted[i]) for i in rows}
        assert len(accepted) == 1
        found[anchor] = (set(accepted.pop()), frames[1:])
        assert frames[0] == anchor
    assert found == WANTED
    assert len(dataset) == dataset.expected == 6


def test_a_class_of_ytbb_has_the_columns_of_its_imagenet_classes(ytbb):
    """A class without a class of ImageNet has no columns, and is never predicted."""
    dataset = find_ytbb_robust(ytbb[0])
    assert dataset.columns[:3] == ((981, 983), (7,), ())
    assert dataset.columns[22:] == ((), (407,))
    assert len(dataset.columns) == len(dataset.classnames) == 24


@pytest.mark.parametrize("outputs", [24, 23, 1000])
def test_none_is_no_answer_of_any_head(ytbb, outputs):
    """As in the authors' evaluation, the logit of "none" is the lowest, for a head of the own names as for ImageNet's.

    A head may also lack the class. Without the rule some of these frames are predicted to be of no class.
    """
    dataset = find_ytbb_robust(ytbb[0])
    right = wrong = 0
    for seed in range(40):
        logits = np.random.default_rng(seed).standard_normal((len(dataset), outputs)).astype(np.float32)
        if outputs == 1000:
            own = np.stack(
                [logits[:, c].max(1) if c else np.full(len(logits), -1e8) for c in map(list, dataset.columns)]
            )
            own = own.T
        else:
            own = logits if outputs == 24 else np.insert(logits, 22, 99, axis=1)
        wrong += (own.argmax(1) == 22).sum()
        own[:, 22] = -1e8
        found = class_logits(torch.from_numpy(logits), choose_columns(dataset, outputs))
        predictions = predict_classes(found, torch.from_numpy(dataset.labels))[0].numpy().astype(np.int64)
        assert predictions.tolist() == own.argmax(1).tolist()
        anchors = [rows[0] for rows in dataset.metric.groups.values()]
        right = np.mean([own[row].argmax() in dataset.metric.accepted[row] for row in anchors])
        assert score(dataset.metric, predictions, dataset.labels, 24).values["pm-0"] == right
    assert wrong > 0 or outputs == 1000


def test_a_companion_of_the_videos_has_the_same_rule(ytbb):
    """ImageNet's images of these classes are not predicted to be of class "none" either."""
    dataset = find_ytbb_robust(ytbb[0])
    images = Dataset("imagenet", "ImageNet", ("x",) * 1000, np.array([7, 407, 3]), str, vocabulary="imagenet")
    (companion,) = companions(Suite("s", images, (dataset,)))
    assert (companion.no_answers, companion.labels.tolist()) == ({22}, [1, 23])


def test_lists_that_are_missing_are_named(ytbb):
    """The error names the missing list and the repository that has it."""
    for path in ytbb[0].rglob("pmk_labels.json"):
        path.unlink()
    with pytest.raises(SuiteError, match=r"pmk_labels.json is missing.*imagenet-testbed"):
        find_ytbb_robust(ytbb[0])


@pytest.mark.parametrize(
    ("file", "value", "message"),
    [
        ("metadata/labels.json", {}, "KeyError"),
        ("metadata/labels.json", [], "expected a JSON object, found a list"),
        ("misc/rev_wnid_map.json", {"n1": ["w99"]}, "KeyError: 'w99'"),
        ("misc/imagenet_vid_class_index.json", {"0": ["n1", "antelope"]}, "classes from 0 to 0"),
        ("misc/imagenet_class_index.json", {"x": ["w1", "kind"]}, "invalid literal"),
    ],
)
def test_lists_that_contradict_each_other_are_refused(vid, file, value, message):
    """The error gives the path of the folder or of the file."""
    dump(vid[1] / file, value)
    with pytest.raises(SuiteError, match=f"imagenet-vid-robust.*{message}"):
        find_vid_robust(vid[0])


def test_an_empty_folder_has_no_data_set(tmp_path):
    """A missing data set is not an error: its catalogue entry describes the download."""
    assert [entry.find(tmp_path) for entry in ENTRIES] == [None, None]
