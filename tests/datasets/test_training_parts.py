"""The training parts of known data sets are those that torchvision reads with train=True or split="train"."""

import json
import pickle

import numpy as np
import pytest
import torchvision
from PIL import Image
from scipy.io import savemat

from mergekit_wise.datasets.catalog import open_suite

COUNT = 12


def picture(path, seed):
    """Write a small JPEG of one random colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), tuple(np.random.default_rng(seed).integers(0, 256, 3).tolist())).save(path, quality=95)


def make_cars(root):
    folder = root / "stanford_cars"
    names = [f"Maker Model {n} Sedan 2012" for n in range(196)]
    numbers = np.random.default_rng(0).integers(1, 197, COUNT)
    fields = [("bbox_x1", "O"), ("bbox_y1", "O"), ("bbox_x2", "O"), ("bbox_y2", "O"), ("class", "O"), ("fname", "O")]
    rows = [(1, 2, 3, 4, int(number), f"{i + 1:05d}.jpg") for i, number in enumerate(numbers)]
    (folder / "devkit").mkdir(parents=True)
    savemat(folder / "devkit" / "cars_train_annos.mat", {"annotations": np.array([rows], dtype=fields)})
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array([names], dtype=object)})
    for i in range(COUNT):
        picture(folder / "cars_train" / f"{i + 1:05d}.jpg", i)
    return torchvision.datasets.StanfordCars(str(root), split="train")


def make_dtd(root):
    folder = root / "dtd" / "dtd"
    (folder / "labels").mkdir(parents=True)
    lines = [f"thing_{n * 7 % 47:03d}/x_{n}.jpg" for n in range(47)]
    (folder / "labels" / "train1.txt").write_text("\n".join(lines) + "\n")
    (folder / "labels" / "test1.txt").write_text("thing_000/other.jpg\n")
    for i, line in enumerate(lines):
        picture(folder / "images" / line, i)
    return torchvision.datasets.DTD(str(root), split="train", partition=1)


def make_food101(root):
    folder = root / "food-101"
    (folder / "meta").mkdir(parents=True)
    listed = {f"thing_{n * 7 % 101:03d}": [f"thing_{n * 7 % 101:03d}/{n}"] for n in range(101)}
    (folder / "meta" / "train.json").write_text(json.dumps(listed))
    (folder / "meta" / "train.txt").write_text("\n".join(line for (line,) in listed.values()) + "\n")
    for i, (line,) in enumerate(listed.values()):
        picture(folder / "images" / f"{line}.jpg", i)
    return torchvision.datasets.Food101(str(root), split="train")


def make_cifar10(root):
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for number in range(1, 6):
        rng = np.random.default_rng(number)
        pixels = rng.integers(0, 256, (COUNT, 3072), dtype=np.uint8)
        batch = {"labels": rng.integers(0, 10, COUNT).tolist(), "data": pixels}
        (folder / f"data_batch_{number}").write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    return torchvision.datasets.CIFAR10(str(root), train=True)


MAKE = {"cars": make_cars, "dtd": make_dtd, "food101": make_food101, "cifar10": make_cifar10}
EXPECTED = {"cars": 8144, "dtd": 1880, "food101": 75_750, "cifar10": 50_000}


@pytest.mark.parametrize("name", MAKE)
def test_the_training_part_is_torchvisions(tmp_path, name, monkeypatch):
    """Images and labels are equal, also when a pickled copy decodes them, and the data set is named after the part."""
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *_: True)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda _: True)
    theirs = MAKE[name](tmp_path)
    (ours,) = open_suite(name, tmp_path, use="train").datasets
    wanted = {np.asarray(image).tobytes(): int(label) for image, label in theirs}
    image = pickle.loads(pickle.dumps(ours.image))
    found = {np.asarray(image(i)).tobytes(): int(label) for i, label in enumerate(ours.labels)}
    assert found == wanted
    assert len(ours) == len(theirs) == len(wanted)
    assert (ours.name, ours.expected, ours.labels.dtype) == (f"{name}-train", EXPECTED[name], np.int64)
    assert len({ours.sample(index) for index in range(len(ours))}) == len(ours)
    assert ours.size(len(ours) - 1) > 0


def test_the_binary_version_holds_the_same_training_part(tmp_path):
    """Five files of records, one after the other."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 5 * COUNT).astype(np.uint8)
    pixels = rng.integers(0, 256, (5 * COUNT, 3072), dtype=np.uint8)
    for number in range(5):
        part = slice(number * COUNT, (number + 1) * COUNT)
        np.hstack([labels[part, None], pixels[part]]).tofile(folder / f"data_batch_{number + 1}.bin")
    (folder / "batches.meta.txt").write_text("\n".join("abcdefghij"))
    (dataset,) = open_suite("cifar10", tmp_path, use="train").datasets
    assert dataset.labels.tolist() == labels.tolist()
    for index in (0, COUNT, 5 * COUNT - 1):
        wanted = pixels[index].reshape(3, 32, 32).transpose(1, 2, 0)
        assert np.array_equal(np.asarray(dataset.image(index)), wanted)


def test_without_a_training_part_the_evaluated_one_is_opened(tmp_path):
    """As before: `wise finetune` warns of it by the name, which is that of the evaluation set."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    batch = {"labels": [3], "data": np.zeros((1, 3072), np.uint8)}
    (folder / "test_batch").write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    assert [d.name for d in open_suite("cifar10", tmp_path, use="train").datasets] == ["cifar10"]
