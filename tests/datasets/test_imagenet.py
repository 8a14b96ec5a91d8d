"""ImageNet and its variants in every layout: labels are correct, tars equal folders, unknown folders are refused."""

import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
from PIL import Image
from timm.data import ImageNetInfo

from mergekit_wise.datasets.catalog import ENTRIES
from mergekit_wise.errors import SuiteError

WNIDS = ImageNetInfo("imagenet-1k").label_names()
# timm lists the subsets' classes twice, by WordNet id and by number; the tool reads the former.
INFO = Path(timm.__file__).parent / "data" / "_info"
SUBSETS = {
    f"imagenet-{letter}": [WNIDS[int(line)] for line in (INFO / f"imagenet_{letter}_indices.txt").read_text().split()]
    for letter in "ra"
}
FOLDERS = {
    "imagenet": ["imagenet/val_in_folder", "imagenet/val", "imagenet1k/val", "val"],
    "imagenet-v2": [
        "ImageNetV2-matched-frequency",
        "imagenetv2-matched-frequency-format-val",
        "imagenetv2/ImageNetV2-matched-frequency",
    ],
    "imagenet-r": ["imagenet-r", "imagenet_r"],
    "imagenet-a": ["imagenet-a"],
    "imagenet-sketch": ["sketch", "imagenet-sketch", "imagenet-sketch/sketch", "imagenet_sketch"],
}
TARS = {
    "imagenet": "wds_imagenet1k",
    "imagenet-v2": "wds_imagenetv2",
    "imagenet-r": "wds_imagenet-r",
    "imagenet-a": "wds_imagenet-a",
    "imagenet-sketch": "wds_imagenet_sketch",
}
EXPECTED = {
    "imagenet": 50_000,
    "imagenet-v2": 10_000,
    "imagenet-r": 30_000,
    "imagenet-a": 7_500,
    "imagenet-sketch": 50_889,
}
NAMES = list(FOLDERS)


def picture(wnid):
    """The bytes of a tiny JPEG whose colour encodes its class, so that a wrong label is detected."""
    column = WNIDS.index(wnid)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (column % 32 * 8, column // 32 * 8, 128)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


PICTURES = {wnid: picture(wnid) for wnid in WNIDS}


def column_of(image):
    """The class that the colour of an image encodes."""
    red, green, _ = np.asarray(image).reshape(-1, 3).mean(axis=0)
    return round(red / 8) + 32 * round(green / 8)


def classes(name):
    """The WordNet ids of a data set in the order of its labels."""
    return SUBSETS.get(name, WNIDS)


def write_folders(root, name):
    """Write one image per class into folders named as in the download: by WordNet id, or by number for V2."""
    for label, wnid in enumerate(classes(name)):
        folder = root / (str(label) if name == "imagenet-v2" else wnid)
        folder.mkdir(parents=True)
        (folder / f"{wnid}_0.JPEG").write_bytes(PICTURES[wnid])


def write_tars(root, name):
    """Write the same images into two tars, in the order of their labels."""
    (root / "test").mkdir(parents=True)
    half = len(classes(name)) // 2
    for shard, part in enumerate([range(half), range(half, len(classes(name)))]):
        with tarfile.open(root / "test" / f"{shard}.tar", "w") as tar:
            for label in part:
                for extension, data in (("jpg", PICTURES[classes(name)[label]]), ("cls", str(label).encode())):
                    info = tarfile.TarInfo(f"s{label:07d}.{extension}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    (root / "test" / "nshards.txt").write_text("2")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Every data set in folders and in tars; tests link or copy them to the places that they need."""
    home = tmp_path_factory.mktemp("store")
    for name in NAMES:
        write_folders(home / "folders" / name, name)
        write_tars(home / "tars" / name, name)
    return home


def columns_of(dataset):
    """The class among ImageNet's 1000 of each image's label."""
    if dataset.columns is None:
        return dataset.labels.tolist()
    return [dataset.columns[label][0] for label in dataset.labels]


@pytest.mark.parametrize(("name", "place"), [(name, place) for name in NAMES for place in FOLDERS[name]])
def test_every_folder_layout_is_found(store, tmp_path, name, place):
    """Each usual folder name is found, with all images and the expected count of a complete download."""
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).symlink_to(store / "folders" / name)
    dataset = ENTRIES[name].find(tmp_path)
    assert (dataset.name, dataset.location) == (name, str(tmp_path / place))
    assert len(dataset) == len(classes(name))
    assert dataset.expected == ENTRIES[name].expected == EXPECTED[name]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("imagenet-v2-threshold", "imagenetv2-threshold0.7-format-val"),
        ("imagenet-v2-threshold", "imagenetv2/ImageNetV2-threshold0.7"),
        ("imagenet-v2-top-images", "imagenetv2-top-images-format-val"),
        ("imagenet-v2-top-images", "imagenet-v2/imagenetv2-top-images"),
    ],
)
def test_the_other_variants_of_v2_are_labelled_by_number_too(store, tmp_path, name, place):
    """They do not pass for one another, even in one folder, and labels are the classes that images show."""
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).symlink_to(store / "folders" / "imagenet-v2")
    dataset = ENTRIES[name].find(tmp_path)
    assert (dataset.name, len(dataset), dataset.expected) == (name, 1000, 10_000)
    assert [column_of(dataset.image(index)) for index in range(1000)] == dataset.labels.tolist()
    others = {"imagenet-v2", "imagenet-v2-threshold", "imagenet-v2-top-images"} - {name}
    assert [ENTRIES[other].find(tmp_path) for other in others] == [None, None]


@pytest.mark.parametrize("kind", ["folders", "tars"])
@pytest.mark.parametrize("name", NAMES)
def test_labels_are_the_classes_that_images_show(store, tmp_path, name, kind):
    """The colour of every image encodes the class of its label."""
    (tmp_path / (TARS[name] if kind == "tars" else FOLDERS[name][0])).parent.mkdir(exist_ok=True)
    (tmp_path / (TARS[name] if kind == "tars" else FOLDERS[name][0])).symlink_to(store / kind / name)
    dataset = ENTRIES[name].find(tmp_path)
    columns = columns_of(dataset)
    assert sorted(columns) == sorted(WNIDS.index(wnid) for wnid in classes(name))
    assert [column_of(dataset.image(index)) for index in range(len(dataset))] == columns


@pytest.mark.parametrize("name", NAMES)
def test_tars_and_folders_hold_the_same_images(store, tmp_path, name):
    """Sorted by label, the images are equal; so are class names, columns and templates."""
    (tmp_path / "a" / "imagenet").mkdir(parents=True)
    (tmp_path / "a" / FOLDERS[name][0]).symlink_to(store / "folders" / name)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / TARS[name]).symlink_to(store / "tars" / name)
    folders, tars = ENTRIES[name].find(tmp_path / "a"), ENTRIES[name].find(tmp_path / "b")
    for left, right in zip(np.argsort(folders.labels), np.argsort(tars.labels), strict=True):
        assert folders.labels[left] == tars.labels[right]
        assert np.array_equal(np.asarray(folders.image(left)), np.asarray(tars.image(right)))
        assert folders.size(left) == tars.size(right)
    for field in ("classnames", "templates", "columns", "vocabulary", "metric"):
        assert getattr(folders, field) == getattr(tars, field)


@pytest.mark.parametrize("name", NAMES)
def test_class_names_and_templates_are_open_clips(store, tmp_path, name):
    """Class names are open_clip's for the data set's own classes, and templates are OpenAI's 80 prompts."""
    (tmp_path / TARS[name]).symlink_to(store / "tars" / name)
    dataset = ENTRIES[name].find(tmp_path)
    assert dataset.classnames == tuple(open_clip.IMAGENET_CLASSNAMES[WNIDS.index(wnid)] for wnid in classes(name))
    assert [t.format("x") for t in dataset.templates] == [f("x") for f in open_clip.OPENAI_IMAGENET_TEMPLATES]
    assert dataset.vocabulary == "imagenet"
    assert (dataset.columns is None) == (name not in SUBSETS)


def test_folders_win_over_tars_and_good_tars_over_strange_folders(store, tmp_path):
    """Folders with the right classes come first, then tars, then folders with unknown classes."""
    (tmp_path / "wds_imagenet-r").symlink_to(store / "tars" / "imagenet-r")
    (tmp_path / "imagenet-r" / "something").mkdir(parents=True)
    assert ENTRIES["imagenet-r"].find(tmp_path).location.endswith("wds_imagenet-r")
    shutil.rmtree(tmp_path / "imagenet-r")
    (tmp_path / "imagenet-r").symlink_to(store / "folders" / "imagenet-r")
    assert ENTRIES["imagenet-r"].find(tmp_path).location.endswith("/imagenet-r")


@pytest.mark.parametrize(("name", "place"), [(name, place) for name in NAMES for place in [*FOLDERS[name], TARS[name]]])
def test_an_empty_folder_is_not_a_data_set(tmp_path, name, place):
    """An empty root, or an empty folder with the right name, is not an error."""
    assert ENTRIES[name].find(tmp_path) is None
    (tmp_path / place).mkdir(parents=True)
    assert ENTRIES[name].find(tmp_path) is None


def test_a_folder_called_val_may_be_another_data_sets(tmp_path):
    """It counts as ImageNet only if it has a folder of one of ImageNet's classes."""
    (tmp_path / "val" / "cat").mkdir(parents=True)
    assert ENTRIES["imagenet"].find(tmp_path) is None


def test_the_archive_may_lie_next_to_the_folders_unpacked_from_it(store, tmp_path):
    """Class folders win over a tar next to them."""
    shutil.copytree(store / "folders" / "imagenet-a", tmp_path / "imagenet-a")
    (tmp_path / "imagenet-a" / "imagenet-a.tar").write_bytes(b"whatever")
    assert len(ENTRIES["imagenet-a"].find(tmp_path)) == 200


@pytest.mark.parametrize(
    ("name", "stranger", "wanted"),
    [
        ("imagenet", "cat", "by the WordNet ids of its 1000 classes, such as 'n01440764'"),
        ("imagenet-r", WNIDS[0], "by the WordNet ids of its 200 classes"),
        ("imagenet-v2", "1000", "by number, from '0' to '999'"),
        ("imagenet-v2", "n01440764", "by number, from '0' to '999'"),
    ],
)
def test_an_unknown_class_folder_is_refused(store, tmp_path, name, stranger, wanted):
    """The error names the folder and describes the expected names, with or without valid folders beside it."""
    place = tmp_path / FOLDERS[name][0]
    (place / stranger).mkdir(parents=True)
    with pytest.raises(SuiteError, match=rf"named {wanted}.* 1 other folder among 1: '{stranger}'"):
        ENTRIES[name].find(tmp_path)
    good = store / "folders" / name
    for folder in list(good.iterdir())[:3]:
        (place / folder.name).symlink_to(folder)
    with pytest.raises(SuiteError, match=f"1 other folder among 4: '{stranger}'"):
        ENTRIES[name].find(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_labels_out_of_range_are_refused(store, tmp_path, name):
    """A label that is not below the number of classes shows that the tars are those of another data set."""
    shutil.copytree(store / "tars" / name, tmp_path / TARS[name])
    with tarfile.open(tmp_path / TARS[name] / "test" / "1.tar", "a") as tar:
        for extension, data in (("jpg", PICTURES[WNIDS[0]]), ("cls", str(len(classes(name))).encode())):
            info = tarfile.TarInfo(f"more.{extension}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    last = len(classes(name)) - 1
    with pytest.raises(SuiteError, match=f"expected labels from 0 to {last}, found them from 0 to {last + 1}"):
        ENTRIES[name].find(tmp_path)
