"""ImageNet as it is downloaded: flat validation images, the devkit, Kaggle's tree, numbered and named folders."""

import hashlib
import shutil
import tarfile

import numpy as np
import open_clip
import pytest
import torchvision.datasets.imagenet as official
from scipy.io import savemat
from timm.data import ImageNetInfo
from torchvision.datasets import ImageFolder, ImageNet

from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.own_folders import open_folder
from mergekit_wise.errors import SuiteError
from tests.datasets.made_files import encoded, write_classes, write_image, write_tar

WNIDS = ImageNetInfo("imagenet-1k").label_names()
DEVKIT_ORDER = [WNIDS[number] for number in np.random.default_rng(0).permutation(1000)]
"""The WordNet id of each of the devkit's numbers, from 1 on: in another order than the real one, as in no list."""
COUNT = 40
TRUTH = [int(number) for number in np.random.default_rng(1).integers(1, 1001, COUNT)]
LABELS = [WNIDS.index(DEVKIT_ORDER[number - 1]) for number in TRUTH]
FIELDS = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height", "num_train_images")


def name_of(number):
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def write_flat(folder):
    """Write the validation images without class folders."""
    for number in range(1, COUNT + 1):
        write_image(folder / name_of(number), number)
    return folder


def write_devkit(root):
    """Write the devkit's two files, with the inner nodes that meta.mat lists after the 1000 classes."""
    data = root / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    rows = [(n, wnid, "word", "gloss", 0, [], 0, 1300) for n, wnid in enumerate(DEVKIT_ORDER, 1)]
    rows += [(1001 + n, f"n9999999{n}", "inner", "gloss", 2, [1, 2], 1, 0) for n in range(3)]
    table = np.array(rows, dtype=[(field, object) for field in FIELDS])
    savemat(data / "meta.mat", {"synsets": table.reshape(-1, 1)})
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{number}\n" for number in TRUTH))


def labels_by_name(dataset):
    """The label of each image by the name of its file."""
    return {dataset.sample(i).rsplit("/", 1)[-1]: label for i, label in enumerate(dataset.labels.tolist())}


EXPECTED = {name_of(number): label for number, label in enumerate(LABELS, 1)}


def test_labels_of_the_devkit_are_torchvisions(tmp_path, monkeypatch):
    """torchvision's ImageNet, given the archives, sorts the images into the classes that the flat folder has."""
    write_devkit(tmp_path / "flat")
    write_flat(tmp_path / "flat" / "val")
    archives = tmp_path / "archives"
    archives.mkdir()
    with tarfile.open(archives / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "flat" / "ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12")
    write_tar(archives / "ILSVRC2012_img_val.tar", *((name, encoded(n)) for n, name in enumerate(EXPECTED, 1)))
    for key in ("devkit", "val"):
        file = official.ARCHIVE_META[key][0]
        digest = hashlib.md5((archives / file).read_bytes()).hexdigest()
        monkeypatch.setitem(official.ARCHIVE_META, key, (file, digest))
    loader = ImageNet(archives, "val")
    theirs = {path.rsplit("/", 1)[-1]: WNIDS.index(loader.wnids[label]) for path, label in loader.samples}
    dataset = open_folder(tmp_path / "flat")
    assert labels_by_name(dataset) == theirs == EXPECTED
    assert dataset.classnames == tuple(open_clip.IMAGENET_CLASSNAMES)
    assert "ground_truth.txt" in " ".join(dataset.notes)


def lists():
    """Files of labels that people have beside the images."""
    ids = [WNIDS[label] for label in LABELS]
    names = list(EXPECTED)
    boxes = [f"{name[:-5]},{wnid} 1 2 3 4 " for name, wnid in zip(names, ids, strict=True)]
    return {
        "val.txt": "".join(f"{name} {label}\n" for name, label in sorted(EXPECTED.items(), reverse=True)),
        "LOC_val_solution.csv": "ImageId,PredictionString\n" + "\n".join(reversed(boxes)),
        "labels.txt": "\n".join(ids),
        "by_name.txt": "".join(f"val/{name} {wnid}\n" for name, wnid in zip(names, ids, strict=True)),
    }


@pytest.mark.parametrize("file", list(lists()))
@pytest.mark.parametrize("beside", ["val", "."])
def test_labels_are_read_from_the_file_beside_the_images(tmp_path, file, beside):
    """A list may lie in the folder of the images or above it; names, WordNet ids and numbers are understood."""
    write_flat(tmp_path / "val")
    (tmp_path / "synsets.txt").write_text("\n".join(WNIDS))  # no list of labels
    (tmp_path / beside / file).write_text(lists()[file])
    dataset = open_folder(tmp_path / "val")
    assert labels_by_name(dataset) == EXPECTED
    assert dataset.vocabulary == "imagenet"


def test_kaggles_tree_is_read_as_it_is_unpacked(tmp_path):
    """The root of the archive, and a data folder that holds it, give the validation images and the training images."""
    tree = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    write_flat(tree / "val")
    write_classes(tree / "train", WNIDS[5], WNIDS[900])
    write_image(tree / "test" / "ILSVRC2012_test_00000001.JPEG")
    (tmp_path / "LOC_val_solution.csv").write_text(lists()["LOC_val_solution.csv"])
    (tmp_path / "LOC_synset_mapping.txt").write_text("\n".join(f"{wnid} words, of it" for wnid in WNIDS))
    own, (known,) = open_folder(tmp_path), open_suite("imagenet", tmp_path).datasets
    assert labels_by_name(own) == labels_by_name(known) == EXPECTED
    assert (known.name, known.expected) == ("imagenet", 50_000)
    trained = open_suite("imagenet", tmp_path, use="train").datasets[0]
    assert (trained.name, trained.labels.tolist(), len(trained.classnames)) == ("imagenet-train", [5, 900], 1000)


def test_a_folder_without_labels_says_what_is_missing(tmp_path):
    """The error names files that are near, and what to put where."""
    write_flat(tmp_path / "val")
    (tmp_path / "readme.txt").write_text("hello\n")
    with pytest.raises(SuiteError, match=r"readme\.txt\. Unpack ILSVRC2012_devkit_t12\.tar\.gz in .* val\.txt"):
        open_folder(tmp_path / "val")


def test_numbers_of_the_devkit_need_its_table(tmp_path):
    """Numbers from 1 on are in the devkit's order, which nothing but meta.mat tells."""
    write_flat(tmp_path / "val")
    write_devkit(tmp_path)
    (tmp_path / "ILSVRC2012_devkit_t12" / "data" / "meta.mat").unlink()
    with pytest.raises(SuiteError, match=r"meta\.mat is needed: unpack"):
        open_folder(tmp_path / "val")


def test_two_lists_that_differ_are_refused(tmp_path):
    """Which of them is right is not known."""
    write_flat(tmp_path / "val")
    (tmp_path / "labels.txt").write_text(lists()["labels.txt"])
    (tmp_path / "val.txt").write_text("".join(f"{name} 7\n" for name in EXPECTED))
    with pytest.raises(SuiteError, match=r"labels\.txt and .*val\.txt give different labels"):
        open_folder(tmp_path / "val")


def test_a_list_that_is_too_short_is_refused(tmp_path):
    """A devkit whose list lacks images gives no labels by position."""
    write_flat(tmp_path / "val")
    write_devkit(tmp_path)
    truth = tmp_path / "ILSVRC2012_devkit_t12" / "data" / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("1\n2\n")
    with pytest.raises(SuiteError, match="a line for each of 40 images, found 2"):
        open_folder(tmp_path / "val")


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """Folders 1 ... 1000 in the devkit's order; the image's colour is of no use, its folder is."""
    home = tmp_path_factory.mktemp("numbered")
    return write_classes(home / "val", *map(str, range(1, 1001)))


@pytest.mark.parametrize("source", ["devkit", "list"])
def test_numbered_folders_are_the_devkits_classes(numbered, tmp_path, source):
    """Folder k is the k-th class of meta.mat, or of a list of the 1000 ids beside it."""
    shutil.copytree(numbered, tmp_path / "val")
    if source == "devkit":
        write_devkit(tmp_path)
    else:
        (tmp_path / "classes.txt").write_text("\n".join(f"{wnid} some words" for wnid in DEVKIT_ORDER))
    dataset = open_folder(tmp_path / "val")
    folders = [int(dataset.sample(index).split("/")[-2]) for index in range(1000)]
    assert [WNIDS[label] for label in dataset.labels] == [DEVKIT_ORDER[number - 1] for number in folders]
    assert (dataset.columns, dataset.vocabulary) == (None, "imagenet")


def test_numbered_folders_without_a_list_are_refused(numbered):
    """The devkit's order is not guessed."""
    with pytest.raises(SuiteError, match=r"devkit's order, unpack ILSVRC2012_devkit_t12\.tar\.gz"):
        open_folder(numbered)


def test_folders_called_after_imagenets_names_are_its_classes(tmp_path):
    """Each is the class of that name, and its label among the folders is ImageFolder's."""
    names = ["great_white_shark", "goldfish", "Tench", "African grey, African gray, Psittacus erithacus"]
    root = write_classes(tmp_path / "x", *names)
    dataset = open_folder(root)
    theirs = ImageFolder(str(root))
    assert dataset.labels.tolist() == [label for _, label in theirs.samples]
    assert dataset.classnames == tuple(theirs.classes)
    column = {"great_white_shark": 2, "goldfish": 1, "Tench": 0, names[-1]: 87}
    assert dataset.columns == tuple((column[name],) for name in theirs.classes)
    assert "by their names" in " ".join(dataset.notes)
    assert dataset.templates == ("a photo of a {}.",)


def test_a_name_of_two_classes_is_none(tmp_path):
    """A crane is a bird or a machine, and a class that ImageNet lacks makes the data set one of its own."""
    assert open_folder(write_classes(tmp_path / "a", "crane", "goldfish")).columns is None
    assert open_folder(write_classes(tmp_path / "b", "my cat", "goldfish")).columns is None


def test_all_classes_by_name_have_imagenets_labels(tmp_path):
    """In the order of names every label would be another class's."""
    names = [f"{name}".replace("/", "_") for name in open_clip.IMAGENET_CLASSNAMES]
    twice = {name for name in names if names.count(name) > 1}
    synonym = {
        "missile": ["missile", "projectile, missile"],
        "sunglasses": ["sunglass", "sunglasses, dark glasses, shades"],
    }
    folders = [synonym[name].pop(0) if name in twice else name for name in names]
    dataset = open_folder(write_classes(tmp_path / "x", *folders))
    by_folder = {dataset.sample(i).split("/")[-2]: label for i, label in enumerate(dataset.labels.tolist())}
    assert [by_folder[folder] for folder in folders] == list(range(1000))
    assert dataset.columns is None
    shutil.rmtree(tmp_path / "x" / "goldfish")
    write_classes(tmp_path / "x", "golden thing")
    with pytest.raises(SuiteError, match="not all are clear: golden thing"):
        open_folder(tmp_path / "x")
