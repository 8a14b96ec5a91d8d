"""ImageNet-ReaL is ImageNet with timm's labels, and an image counts as timm's own evaluation of them counts it."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import ImageNetInfo, RealLabelsImagenet

from mergekit_wise.analysis.metrics import score
from mergekit_wise.datasets.catalog import ENTRIES
from mergekit_wise.datasets.dataset import Dataset, Suite
from mergekit_wise.datasets.fingerprint import fingerprint
from mergekit_wise.datasets.subsets import companions, limited
from mergekit_wise.errors import SuiteError
from mergekit_wise.evaluation.predictions import Predictions, as_details, predict_classes
from tests.datasets.test_imagenet import write_tars

WNIDS = ImageNetInfo("imagenet-1k").label_names()
REAL = json.loads((Path(timm.__file__).parent / "data" / "_info" / "imagenet_real_labels.json").read_text())
FIND = ENTRIES["imagenet-real"].find
COUNT = 300


@pytest.fixture
def root(tmp_path):
    """A root with the first 300 images of the validation set, in class folders that are half right, half random."""
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        right = REAL[number] and rng.random() < 0.5
        folder = tmp_path / "imagenet" / "val" / WNIDS[REAL[number][-1] if right else rng.integers(1000)]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number % 256, number // 256, 9)).save(
            folder / f"ILSVRC2012_val_{number + 1:08d}.JPEG", "PNG"
        )
    return tmp_path


def numbers(dataset):
    """The numbers of the images, from 0, as their colours encode them."""
    pixels = [dataset.image(index).getpixel((0, 0)) for index in range(len(dataset))]
    return [red + 256 * green for red, green, _ in pixels]


def test_images_without_labels_do_not_count(root):
    """All others have the labels of timm's file; the label of ImageNet comes first where it is among them."""
    dataset = FIND(root)
    assert sorted(numbers(dataset)) == [number for number in range(COUNT) if REAL[number]]
    assert [set(labels) for labels in dataset.metric.accepted] == [set(REAL[number]) for number in numbers(dataset)]
    folders = [WNIDS.index(Path(dataset.sample(index)).parent.name) for index in range(len(dataset))]
    for own, label, accepted in zip(folders, dataset.labels.tolist(), dataset.metric.accepted, strict=True):
        assert label == own if own in accepted else label in accepted


def test_the_complete_data_set_has_the_images_that_timm_has_labels_of(root):
    """Of the 50,000 validation images, 46,837 have a label."""
    assert FIND(root).expected == ENTRIES["imagenet-real"].expected == sum(map(bool, REAL))


def test_the_accuracy_is_that_of_timms_evaluation(root):
    """timm's class for these labels gives the same top-1 accuracy for the same logits."""
    dataset, whole = FIND(root), ENTRIES["imagenet"].find(root)
    files = [whole.sample(index) for index in range(len(whole))]
    every = torch.from_numpy(np.random.default_rng(1).standard_normal((COUNT, 1000)).astype(np.float32))
    for row, path in enumerate(files):
        every[row, REAL[int(path[-13:-5]) - 1][-1:]] += 3
    oracle = RealLabelsImagenet([*files, *[""] * (len(REAL) - COUNT)], topk=(1,))
    oracle.add_result(every)
    logits = every[[files.index(dataset.sample(index)) for index in range(len(dataset))]]
    predictions = predict_classes(logits, torch.from_numpy(dataset.labels))[0].numpy().astype(np.int64)
    found = score(dataset.metric, predictions, dataset.labels, 1000)
    assert 20 < 100 * found.value < 99
    assert 100 * found.value == pytest.approx(oracle.get_accuracy(1))


def test_a_record_has_no_top_5_of_one_label_among_several(root):
    """The best five are searched for one label alone, so the number would be too low."""
    dataset = FIND(root)
    numbers = np.zeros((1, 4, len(dataset)), np.float32)
    found = Predictions(
        dataset.labels[None].astype(np.int32),
        np.ones((1, len(dataset)), bool),
        numbers,
        {},
    )
    draft = {"model": "m", "weights": "w", "alpha": None, "suite": "s", "dataset": "d", "title": "t", "role": "shift"}
    record = as_details(dataset, found, [draft], 0.0)[0].record
    assert (record.top5, record.value) == (None, 1.0)


def test_a_subset_keeps_the_labels_of_its_images(root):
    """The images that are drawn have their own labels still."""
    part = limited(FIND(root), 40)
    assert [set(labels) for labels in part.metric.accepted] == [set(REAL[number]) for number in numbers(part)]
    assert fingerprint(part) != fingerprint(limited(ENTRIES["imagenet"].find(root), 40))


def test_names_without_a_number_are_refused(tmp_path):
    """clip-benchmark's tars number their samples in another order, so they cannot have these labels."""
    write_tars(tmp_path / "wds_imagenet1k", "imagenet")
    assert len(ENTRIES["imagenet"].find(tmp_path)) == 1000
    with pytest.raises(SuiteError, match=r"s0000000\.jpg.*ILSVRC2012_val_.*imagenet/val"):
        FIND(tmp_path)


def test_names_may_go_on_after_the_number(root):
    """The archives of the Hugging Face hub append the WordNet id; a number above 50,000 is refused."""
    path = next((root / "imagenet" / "val").rglob("*_00000002.JPEG"))
    path.rename(path.with_name(f"ILSVRC2012_val_00000002_{path.parent.name}.JPEG"))
    assert 1 in numbers(FIND(root))
    path = next((root / "imagenet" / "val").rglob("*_00000004.JPEG"))
    path.rename(path.with_name("ILSVRC2012_val_00050001.JPEG"))
    with pytest.raises(SuiteError, match="a number up to 50000"):
        FIND(root)


def test_without_imagenet_it_is_missing(tmp_path):
    """A missing data set is not an error."""
    assert FIND(tmp_path) is None


def test_its_images_of_a_shifts_classes_keep_their_labels(root):
    """As the reference of ImageNet-R or A, whose classes have other numbers, all labels among these are right."""
    dataset = FIND(root)
    columns = tuple((column,) for column in range(0, 1000, 3))
    shift = Dataset("r", "R", ("x",) * len(columns), np.array([0]), str, columns=columns, vocabulary="imagenet")
    (companion,) = companions(Suite("s", dataset, (shift,)))
    assert len(companion) > 20
    for number, label, accepted in zip(
        numbers(companion), companion.labels.tolist(), companion.metric.accepted, strict=True
    ):
        assert accepted == {column // 3 for column in REAL[number] if column % 3 == 0}
        assert label in accepted
