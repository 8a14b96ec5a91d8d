"""ObjectNet with a small map in the files of its own download: which folders count, as what, and the crop."""

import io
import json
import random
import tarfile

import numpy as np
import pytest
from PIL import Image

from mergekit_wise.datasets.catalog import ENTRIES
from mergekit_wise.datasets.objectnet_map import find_map
from mergekit_wise.errors import SuiteError

# ObjectNet's names, with ImageNet's labels and classes as everybody knows them.
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
    """The four files; lines in ILSVRC's own order, which is not that of wnids."""
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
    """A PNG with a red border, as the download has."""
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 15, 3), dtype=np.uint8)
    pixels[[0, -1]] = pixels[:, [0, -1]] = (255, 0, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_images(place):
    """Two images in every folder, those that do not count among them."""
    for number, folder in enumerate(FOLDERS):
        (place / folder).mkdir(parents=True)
        for copy in range(2):
            (place / folder / f"{copy}.png").write_bytes(picture(10 * number + copy))


@pytest.fixture
def root(tmp_path):
    """objectnet-1.0.zip, unpacked."""
    write_mappings(tmp_path / "objectnet-1.0" / "mappings")
    write_images(tmp_path / "objectnet-1.0" / "images")
    return tmp_path


def write_tars(place):
    """As clip-benchmark converts it: classes counted in the order of folders, only those that count, uncropped."""
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


def test_only_classes_that_imagenet_has_count(root):
    """In the order of folders; each with all of ImageNet's classes that it stands for, ascending."""
    dataset = find(root)
    assert dataset.classnames == ("alarm clock", "banana", "drying rack for plates", "chair")
    assert dataset.columns == ((409, 530), (954,), (729,), (423, 559, 765))
    assert (dataset.vocabulary, dataset.expected, len(dataset)) == ("imagenet", 18_574, 8)
    for index, label in enumerate(dataset.labels):
        assert f"/{COUNTING[label]}/" in dataset.sample(index)


def test_two_pixels_are_cropped_on_each_side(root):
    """Before anything else; no red is left."""
    dataset = find(root)
    for index in range(len(dataset)):
        with open(dataset.sample(index), "rb") as file:
            whole = np.asarray(Image.open(file))
        assert np.array_equal(np.asarray(dataset.image(index)), whole[2:-2, 2:-2])


@pytest.mark.parametrize("place", ["wds_objectnet/mappings", "wds_objectnet", "objectnet-1.0/mappings"])
def test_tars_hold_the_same_as_folders(root, tmp_path_factory, place):
    """Image for image, the crop included, with the map beside the tars or where the zip has it."""
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


def test_tars_without_a_map_have_their_own_113_names_and_no_columns(tmp_path):
    """A head of these names can be judged, one of ImageNet's classes cannot."""
    write_tars(tmp_path / "wds_objectnet")
    with pytest.raises(SuiteError, match=r"expected 113 names in classnames\.txt, or ObjectNet's mappings"):
        find(tmp_path)
    (tmp_path / "wds_objectnet" / "classnames.txt").write_text("".join(f"thing {n}\n" for n in range(113)))
    dataset = find(tmp_path)
    assert (dataset.columns, dataset.vocabulary) == (None, "")
    assert dataset.classnames[112] == "thing 112"


def test_images_without_a_map_are_refused(root):
    """One missing file is enough; which ones are wanted is said."""
    (root / "objectnet-1.0" / "mappings" / "imagenet_to_label_2012_v2").unlink()
    with pytest.raises(SuiteError, match=r"expected folder_to_objectnet_label\.json.*unpack all of the zip"):
        find(root)


def test_a_folder_that_the_map_does_not_know_is_refused(root):
    """Other versions of ObjectNet have other folders."""
    (root / "objectnet-1.0" / "images" / "002-fork").mkdir()
    with pytest.raises(SuiteError, match="folder '002-fork' is not in folder_to_objectnet_label"):
        find(root)


def test_clip_benchmarks_place_of_the_files_is_known(root):
    """It wants them beside objectnet-1.0."""
    (root / "objectnet").mkdir()
    (root / "objectnet-1.0").rename(root / "objectnet" / "objectnet-1.0")
    for file in (root / "objectnet" / "objectnet-1.0" / "mappings").iterdir():
        file.rename(root / "objectnet" / file.name)
    assert find(root).columns[0] == (409, 530)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("objectnet_to_imagenet_1k.json", '{"Ghost": "banana"}', "maps 'Ghost', which is no folder's name"),
        ("objectnet_to_imagenet_1k.json", '{"Banana": "ghost"}', "names 'ghost', which is no one line of"),
        ("objectnet_to_imagenet_1k.json", '{"Banana": "crane"}', "names 'crane', which is no one line of"),
        ("objectnet_to_imagenet_1k.json", '{"Banana": 954}', "expected texts for texts"),
        ("objectnet_to_imagenet_1k.json", "[]", "expected a JSON object, found a list"),
        ("folder_to_objectnet_label.json", "{", "is no JSON"),
        ("pytorch_to_imagenet_2012_id.json", '{"0": 0}', "to number the 1000 lines"),
        ("pytorch_to_imagenet_2012_id.json", '{"x": "y"}', "to number the 1000 lines"),
        ("imagenet_to_label_2012_v2", "tench\n", "to number the 1 lines"),
    ],
)
def test_a_damaged_map_is_refused(tmp_path, name, text, message):
    """Naming the file and what is wrong with it; two classes called crane are no one's."""
    write_mappings(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(SuiteError, match=message):
        find_map([tmp_path])
