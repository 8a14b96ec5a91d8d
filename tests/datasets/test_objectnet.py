"""ObjectNet with a small mapping in the files of its own download: its classes, their columns, and the crop."""

import io
import json
import random
import tarfile

import numpy as np
import pytest
from PIL import Image

from mergekit_wise.datasets.catalog import ENTRIES
from mergekit_wise.datasets.objectnet import find_map
from mergekit_wise.errors import SuiteError

# ObjectNet's class names, with ImageNet's labels and class numbers.
LABELS = {
    "Banana": {"banana": 954},
    "Chair": {"rocking chair, rocker": 765, "barber chair": 423, "folding chair": 559},
    "Alarm clock": {"analog clock": 409, "digital clock": 530},
    "Drying rack for plates": {"plate rack": 729},
}
# The folder's name is not the class's name, and the order of the one is not that of the other.
FOLDERS = {
    "banana": "Banana",
    "seat": "Chair",
    "alarm_clock": "Alarm clock",
    "drying_rack_for_dishes": "Drying rack for plates",
    "squeegee": "Squeegee",
    "milk": "Milk",
}
COUNTING = ["alarm_clock", "banana", "drying_rack_for_dishes", "seat"]


def write_mappings(place):
    """Write the four files; the lines are in ILSVRC's own order, which is not that of WordNet ids."""
    place.mkdir(parents=True, exist_ok=True)
    label_at = {column: label for labels in LABELS.values() for label, column in labels.items()}
    order = list(range(1000))
    random.Random(0).shuffle(order)
    lines = [label_at.get(column, "crane" if column in (134, 517) else f"thing {column}") for column in order]
    (place / "folder_to_objectnet_label.json").write_text(json.dumps(FOLDERS))
    (place / "objectnet_to_imagenet_1k.json").write_text(json.dumps({n: "; ".join(v) for n, v in LABELS.items()}))
    (place / "imagenet_to_label_2012_v2").write_text("".join(f"{line}\n" for line in lines))
    (place / "pytorch_to_imagenet_2012_id.json").write_text(
        json.dumps({str(column): line for line, column in enumerate(order)})
    )


def picture(seed):
    """The bytes of a PNG with a red border, like the images of the download."""
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 15, 3), dtype=np.uint8)
    pixels[[0, -1]] = pixels[:, [0, -1]] = (255, 0, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_images(place):
    """Write two images into every folder, including those that are not evaluated."""
    for number, folder in enumerate(FOLDERS):
        (place / folder).mkdir(parents=True)
        for copy in range(2):
            (place / folder / f"{copy}.png").write_bytes(picture(10 * number + copy))


@pytest.fixture
def root(tmp_path):
    """A root with the unpacked objectnet-1.0.zip."""
    write_mappings(tmp_path / "objectnet-1.0" / "mappings")
    write_images(tmp_path / "objectnet-1.0" / "images")
    return tmp_path


def write_tars(place):
    """Write tars as clip-benchmark does: the evaluated classes only, in the order of their folders, uncropped."""
    (place / "test").mkdir(parents=True)
    with tarfile.open(place / "test" / "0.tar", "w") as tar:
        for label, folder in enumerate(COUNTING):
            for copy in range(2):
                data = picture(10 * list(FOLDERS).index(folder) + copy)
                for name, content in ((f"s{label}{copy}.png", data), (f"s{label}{copy}.cls", str(label).encode())):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    (place / "test" / "nshards.txt").write_text("1")


def find(root):
    """ObjectNet under a root."""
    return ENTRIES["objectnet"].find(root)


def test_only_classes_that_imagenet_has_are_evaluated(root):
    """Classes are in the order of their folders, each with all of its classes in ImageNet in ascending order."""
    dataset = find(root)
    assert dataset.classnames == ("alarm clock", "banana", "drying rack for plates", "chair")
    assert dataset.columns == ((409, 530), (954,), (729,), (423, 559, 765))
    assert (dataset.vocabulary, dataset.expected, len(dataset)) == ("imagenet", 18_574, 8)
    for index, label in enumerate(dataset.labels):
        assert f"/{COUNTING[label]}/" in dataset.sample(index)


def test_two_pixels_are_cropped_on_each_side(root):
    """The crop comes before any other preprocessing, and removes the whole red border."""
    dataset = find(root)
    for index in range(len(dataset)):
        with open(dataset.sample(index), "rb") as file:
            whole = np.asarray(Image.open(file))
        assert np.array_equal(np.asarray(dataset.image(index)), whole[2:-2, 2:-2])


@pytest.mark.parametrize("place", ["wds_objectnet/mappings", "wds_objectnet", "objectnet-1.0/mappings"])
def test_tars_hold_the_same_as_folders(root, tmp_path_factory, place):
    """The cropped images are the same, with the mapping next to the tars or where the archive has it."""
    other = tmp_path_factory.mktemp("other")
    write_tars(other / "wds_objectnet")
    write_mappings(other / place)
    folders, tars = find(root), find(other)
    assert tars.location == str(other / "wds_objectnet")
    assert np.array_equal(folders.labels, tars.labels)
    for index in range(len(folders)):
        assert np.array_equal(np.asarray(folders.image(index)), np.asarray(tars.image(index)))
    for field in ("classnames", "columns", "vocabulary", "templates"):
        assert getattr(folders, field) == getattr(tars, field)


def test_tars_without_a_mapping_have_their_own_113_names_and_no_columns(tmp_path):
    """A head for these names can be evaluated; a head for ImageNet's classes cannot."""
    write_tars(tmp_path / "wds_objectnet")
    with pytest.raises(SuiteError, match=r"expected 113 names in classnames\.txt"):
        find(tmp_path)
    (tmp_path / "wds_objectnet" / "classnames.txt").write_text("".join(f"thing {n}\n" for n in range(113)))
    dataset = find(tmp_path)
    assert (dataset.columns, dataset.vocabulary) == (None, "")
    assert dataset.classnames[112] == "thing 112"


def test_images_without_a_mapping_are_refused(root):
    """One missing file is enough; the error names the four files."""
    (root / "objectnet-1.0" / "mappings" / "imagenet_to_label_2012_v2").unlink()
    with pytest.raises(SuiteError, match=r"folder_to_objectnet_label\.json.*imagenet_to_label_2012_v2"):
        find(root)


def test_a_folder_that_is_not_in_the_mapping_is_refused(root):
    """Other versions of ObjectNet have other folders."""
    (root / "objectnet-1.0" / "images" / "002-fork").mkdir()
    with pytest.raises(SuiteError, match="folder_to_objectnet_label.json: '002-fork'"):
        find(root)


def test_mapping_files_next_to_objectnet_1_0_are_found(root):
    """The tool clip-benchmark expects the files there."""
    (root / "objectnet").mkdir()
    (root / "objectnet-1.0").rename(root / "objectnet" / "objectnet-1.0")
    for file in (root / "objectnet" / "objectnet-1.0" / "mappings").iterdir():
        file.rename(root / "objectnet" / file.name)
    assert find(root).columns[0] == (409, 530)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("objectnet_to_imagenet_1k.json", '{"Ghost": "banana"}', "'Ghost'.*folder_to_objectnet_label"),
        ("objectnet_to_imagenet_1k.json", '{"Banana": "ghost"}', "'ghost'.*imagenet_to_label_2012_v2"),
        ("objectnet_to_imagenet_1k.json", '{"Banana": "crane"}', "'crane'.*imagenet_to_label_2012_v2"),
        ("objectnet_to_imagenet_1k.json", '{"Banana": 954}', "objectnet_to_imagenet_1k.json"),
        ("objectnet_to_imagenet_1k.json", "[]", "expected a JSON object, found a list"),
        ("folder_to_objectnet_label.json", "{", "folder_to_objectnet_label.json: expected a JSON object"),
        ("pytorch_to_imagenet_2012_id.json", '{"0": 0}', "1000 lines"),
        ("pytorch_to_imagenet_2012_id.json", '{"x": "y"}', "1000 lines"),
        ("imagenet_to_label_2012_v2", "tench\n", "1 lines"),
    ],
)
def test_a_damaged_mapping_is_refused(tmp_path, name, text, message):
    """The error names the file and the entry; "crane" is refused because two classes have that label."""
    write_mappings(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(SuiteError, match=message):
        find_map([tmp_path])
