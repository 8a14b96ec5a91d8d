"""ImageNet-D's classes are found by the names that ImageNet or ObjectNet give them, or not at all."""

import json

import open_clip
import pytest
from timm.data import ImageNetInfo

from mergekit_wise.datasets.catalog import ENTRIES, open_suite
from mergekit_wise.errors import ModelError
from mergekit_wise.evaluation.predictions import choose_columns
from tests.datasets.test_wilds import picture

WNIDS = ImageNetInfo("imagenet-1k").label_names()
FIND = ENTRIES["imagenet-d-texture"].find


def make(root, *folders, part="texture"):
    """Write an image for each class; the colour is its place among `folders`."""
    for number, folder in enumerate(folders):
        picture(root / "ImageNet-D" / part / folder / "0.png", number)


@pytest.mark.parametrize(
    ("folders", "columns"),
    [
        ((WNIDS[954], WNIDS[3]), ((3,), (954,))),
        (("banana", "Shopping_Cart"), ((791,), (954,))),
        (("sunglasses", "backpack"), ((414,), (836, 837))),
    ],
)
def test_folders_are_imagenets_classes_by_id_or_by_name(tmp_path, folders, columns):
    """Labels are in the order of the folders; a name that two classes have stands for both."""
    make(tmp_path, *folders)
    dataset = FIND(tmp_path)
    assert (dataset.columns, dataset.vocabulary) == (columns, "imagenet")
    assert [sorted(folders)[label] for label in dataset.labels] == [
        folders[dataset.image(i).getpixel((0, 0))[0]] for i in range(2)
    ]
    if folders[0] in WNIDS:
        assert dataset.classnames == tuple(open_clip.IMAGENET_CLASSNAMES[c] for (c,) in columns)


def test_names_of_objectnet_have_the_columns_of_its_map(tmp_path):
    """The map is looked for where ObjectNet is."""
    place = tmp_path / "objectnet-1.0" / "mappings"
    place.mkdir(parents=True)
    files = {
        "folder_to_objectnet_label.json": {"alarm_clock": "Alarm clock", "mug": "Mug", "bag": "Bag"},
        "objectnet_to_imagenet_1k.json": {"Alarm clock": "analog clock; digital clock", "Mug": "coffee mug"},
        "pytorch_to_imagenet_2012_id.json": {"0": 2, "1": 0, "2": 1},
    }
    for name, content in files.items():
        (place / name).write_text(json.dumps(content))
    (place / "imagenet_to_label_2012_v2").write_text("digital clock\ncoffee mug\nanalog clock\n")
    make(tmp_path, "mug", "alarm clock")
    assert FIND(tmp_path).columns == ((0, 1), (2,))
    assert FIND(tmp_path).classnames == ("alarm clock", "mug")


def test_a_folder_of_no_known_name_leaves_heads_of_its_own_classes(tmp_path):
    """The note names the folder; nothing is guessed."""
    make(tmp_path, "banana", "blorb")
    dataset = FIND(tmp_path)
    assert (dataset.columns, dataset.vocabulary) == (None, "")
    assert "'blorb' is none of them by name" in dataset.notes[0]
    assert choose_columns(dataset, 2) is None
    with pytest.raises(ModelError):
        choose_columns(dataset, 1000)


def test_all_parts_have_the_same_classes(tmp_path):
    """A class that one part lacks keeps its number in the others; the number of classes is noted if it is not 113."""
    make(tmp_path, "apple", "banana", "broom", part="background")
    make(tmp_path, "broom")
    dataset = FIND(tmp_path)
    assert (dataset.labels.tolist(), len(dataset.classnames)) == ([2], 3)
    assert any("expected 113 class folders" in note for note in dataset.notes)
    suite = open_suite("imagenet-d", tmp_path)
    assert [part.name for part in suite.missing] == ["imagenet", "imagenet-d-material"]
