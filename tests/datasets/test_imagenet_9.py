"""ImageNet-9 counts predictions as the authors' loop does: ImageNet's class first, then its group."""

import json

import numpy as np
import pytest
import torch

from mergekit_wise.analysis.metrics import score
from mergekit_wise.datasets.catalog import ENTRIES, open_suite
from mergekit_wise.datasets.dataset import Dataset, Suite
from mergekit_wise.datasets.imagenet_9 import VARIANTS
from mergekit_wise.datasets.subsets import companions
from mergekit_wise.errors import ModelError, SuiteError
from mergekit_wise.evaluation.predictions import choose_columns, class_logits, predict_classes
from tests.datasets.test_wilds import picture

GROUPS = "dog,bird,wheeled vehicle,reptile,carnivore,insect,musical instrument,primate,fish".split(",")  # noqa: SIM905
FOLDERS = [f"{number:02d}_{name}" for number, name in enumerate(GROUPS)]


@pytest.fixture
def root(tmp_path):
    """A root with every variant, two images a class, and a map in which half of ImageNet is in no group."""
    for folder in VARIANTS.values():
        for label, name in enumerate(FOLDERS):
            for n in range(2):
                picture(tmp_path / "bg_challenge" / folder / "val" / name / f"{n}.JPEG", 10 * label + n)
    groups = np.random.default_rng(0).integers(-9, 9, 1000).clip(-1)
    text = json.dumps({str(column): int(group) for column, group in enumerate(groups)})
    (tmp_path / "bg_challenge" / "in_to_in9.json").write_text(text)
    return tmp_path


def test_labels_are_the_numbers_of_the_folders(root):
    """The suite has the original images as its reference; all variants are made of the same images."""
    suite = open_suite("imagenet-9", root)
    assert (suite.reference.name, len(suite.shifts), suite.missing) == ("imagenet-9-original", 7, ())
    for dataset in suite.datasets:
        assert [dataset.image(i).getpixel((0, 0))[0] // 10 for i in range(18)] == dataset.labels.tolist()
        assert (dataset.same_images, dataset.expected) == ("imagenet-9", None)


@pytest.mark.parametrize("seed", range(5))
def test_a_class_outside_of_all_groups_is_wrong(root, seed):
    """The authors look the predicted class of ImageNet up in their map and compare the group with the label."""
    dataset = ENTRIES["imagenet-9-mixed-rand"].find(root)
    groups = json.loads((root / "bg_challenge" / "in_to_in9.json").read_text())
    logits = torch.from_numpy(np.random.default_rng(seed).standard_normal((18, 1000)).astype(np.float32))
    for row, label in enumerate(dataset.labels.tolist()):
        logits[row, [c for c in range(1000) if groups[str(c)] == label][:9]] += 2
    right = [groups[str(int(p))] == label for p, label in zip(logits.argmax(1), dataset.labels, strict=True)]
    own = class_logits(logits, choose_columns(dataset, 1000))
    predictions = predict_classes(own, torch.from_numpy(dataset.labels))[0].numpy().astype(np.int64)
    assert score(dataset.metric, predictions, dataset.labels, 10).correct == sum(right)
    assert 0 < sum(right) < 18
    assert 9 in predictions


@pytest.mark.parametrize("outputs", [9, 10])
def test_a_head_of_the_nine_classes_predicts_one_of_them(root, outputs):
    """The tenth class is no answer, whether or not the head has it."""
    dataset = ENTRIES["imagenet-9-original"].find(root)
    logits = torch.randn(50, outputs, generator=torch.Generator().manual_seed(0))
    found = class_logits(logits, choose_columns(dataset, outputs))
    assert found.argmax(1).tolist() == logits[:, :9].argmax(1).tolist()


def test_the_companion_has_no_images_outside_of_the_groups(root):
    """ImageNet restricted to the nine groups."""
    groups = json.loads((root / "bg_challenge" / "in_to_in9.json").read_text())
    imagenet = Dataset("imagenet", "ImageNet", ("x",) * 1000, np.arange(1000), str, vocabulary="imagenet")
    (companion,) = companions(Suite("s", imagenet, (ENTRIES["imagenet-9-original"].find(root),)))
    assert companion.labels.tolist() == [group for group in groups.values() if group >= 0]


def test_without_the_map_heads_of_imagenet_are_refused(root):
    """A note says what is missing; a head of the nine classes can be evaluated."""
    (root / "bg_challenge" / "in_to_in9.json").unlink()
    dataset = ENTRIES["imagenet-9-only-fg"].find(root)
    assert "in_to_in9.json was not found" in dataset.notes[0]
    assert choose_columns(dataset, 9) is not None
    with pytest.raises(ModelError):
        choose_columns(dataset, 1000)


def test_a_damaged_map_or_an_unknown_folder_is_refused(root):
    """The errors name the file and the folder."""
    (root / "bg_challenge" / "in_to_in9.json").write_text('{"0": 9}')
    with pytest.raises(SuiteError, match=r"in_to_in9\.json: expected the numbers from 0 to 999"):
        ENTRIES["imagenet-9-original"].find(root)
    picture(root / "bg_challenge" / "original" / "val" / "cat" / "0.JPEG", 0)
    with pytest.raises(SuiteError, match="'00_dog' to '08_fish'.*'cat'"):
        ENTRIES["imagenet-9-original"].find(root)
