"""CIFAR's files in every version give the images and labels that torchvision, which unpickles them, gives."""

import pickle
import struct
from typing import ClassVar

import numpy as np
import pytest
import torchvision
from PIL import Image

from mergekit_wise.datasets.cifar import CLASSNAMES, ENTRIES, TEMPLATES
from mergekit_wise.errors import SuiteError

FIND = {entry.name: entry.find for entry in ENTRIES}
COUNT = 40
FINE = sorted(f"thing_{letter}{digit}" for letter in "abcdefghij" for digit in range(10))


class OldPickler(pickle._Pickler):
    """Writes texts and bytes as Python 2 did, in which CIFAR's own files were written."""

    def save_string(self, value):
        data = value if isinstance(value, bytes) else value.encode("latin-1")
        self.write(b"U" + bytes([len(data)]) if len(data) < 256 else b"T" + struct.pack("<i", len(data)))
        self.write(data)
        self.memoize(value)

    dispatch: ClassVar = pickle._Pickler.dispatch | {str: save_string, bytes: save_string}


def dump(path, value, style):
    """Write a pickle as Python 2 did (`style` "old"), or as Python 3 does with protocol `style`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        OldPickler(file, 2).dump(value) if style == "old" else pickle.dump(value, file, style)


@pytest.fixture
def pixels():
    """Random images, uint8 [40, 32, 32, 3]."""
    return np.random.default_rng(0).integers(0, 256, (COUNT, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def labels():
    """Class numbers of CIFAR-10, in which each class occurs."""
    return np.random.default_rng(1).permutation(np.arange(COUNT) % 10)


def rows(pixels):
    """The images as CIFAR's rows: all of red, then green, then blue."""
    return pixels.transpose(0, 3, 1, 2).reshape(COUNT, -1)


def python_version(root, pixels, labels, style="old"):
    folder = root / "cifar-10-batches-py"
    batch = {"batch_label": "testing batch 1 of 1", "labels": labels.tolist(), "data": rows(pixels), "filenames": ["x"]}
    dump(folder / "test_batch", batch, style)
    dump(folder / "batches.meta", {"num_cases_per_batch": 40, "label_names": list(CLASSNAMES), "num_vis": 3072}, style)


def assert_holds(dataset, pixels, labels):
    """Check images and labels in their order, decoded by a pickled copy as in a worker process."""
    image = pickle.loads(pickle.dumps(dataset.image))
    assert np.array_equal(dataset.labels, labels)
    assert dataset.labels.dtype == np.int64
    for index in range(len(labels)):
        assert np.array_equal(np.asarray(image(index)), pixels[index])
    assert (image(0).mode, dataset.sample(3).rpartition(":")[2]) == ("RGB", "3")


@pytest.mark.parametrize("style", ["old", 2, 3, 4, 5])
def test_the_python_version_is_what_torchvision_reads(tmp_path, pixels, labels, style, monkeypatch):
    """Images, labels and class names are equal, whatever pickle protocol the batch was written with."""
    python_version(tmp_path, pixels, labels, style)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *_: True)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda _: True)
    wanted = torchvision.datasets.CIFAR10(str(tmp_path), train=False)
    dataset = FIND["cifar10"](tmp_path)
    assert list(dataset.classnames) == wanted.classes
    assert_holds(dataset, np.stack([np.asarray(wanted[i][0]) for i in range(COUNT)]), wanted.targets)
    assert (dataset.expected, len(dataset)) == (10_000, COUNT)


@pytest.mark.parametrize("style", ["old", 4])
def test_cifar_100_has_its_fine_classes(tmp_path, pixels, style, monkeypatch):
    """The fine classes count, not the coarse ones, and their names have no underscores, as in CLIP's prompts."""
    fine, coarse = np.arange(COUNT) * 2, np.arange(COUNT) % 20
    batch = {"fine_labels": fine.tolist(), "coarse_labels": coarse.tolist(), "data": rows(pixels)}
    dump(tmp_path / "cifar-100-python" / "test", batch, style)
    dump(tmp_path / "cifar-100-python" / "meta", {"fine_label_names": FINE, "coarse_label_names": ["x"] * 20}, style)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *_: True)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda _: True)
    wanted = torchvision.datasets.CIFAR100(str(tmp_path), train=False)
    dataset = FIND["cifar100"](tmp_path)
    assert_holds(dataset, np.stack([np.asarray(wanted[i][0]) for i in range(COUNT)]), wanted.targets)
    assert dataset.classnames == tuple(name.replace("_", " ") for name in wanted.classes)


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_the_binary_version_holds_the_same(tmp_path, pixels, name, classes):
    """Records have one class byte, or a coarse and a fine one, before 3072 bytes of pixels."""
    fine = (np.arange(COUNT) * 7 % classes).astype(np.uint8)
    folder = tmp_path / {"cifar10": "cifar-10-batches-bin", "cifar100": "CIFAR100/cifar-100-binary"}[name]
    folder.mkdir(parents=True)
    columns = [fine[:, None], rows(pixels)] if classes == 10 else [fine[:, None] % 20, fine[:, None], rows(pixels)]
    np.hstack(columns).tofile(folder / ("test_batch.bin" if classes == 10 else "test.bin"))
    names = list(CLASSNAMES) if classes == 10 else FINE
    (folder / ("batches.meta.txt" if classes == 10 else "fine_label_names.txt")).write_text("\n".join(names) + "\n\n")
    dataset = FIND[name](tmp_path)
    assert_holds(dataset, pixels, fine)
    assert len(dataset.classnames) == classes


def test_class_folders_are_numbered_as_torchvision_does(tmp_path, pixels, labels):
    """Class folders in cifar10/test are numbered in the order of their names."""
    for index, label in enumerate(labels):
        folder = tmp_path / "cifar10" / "test" / CLASSNAMES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[index]).save(folder / f"{index:04d}.png")
    wanted = torchvision.datasets.ImageFolder(str(tmp_path / "cifar10" / "test"))
    dataset = FIND["cifar10"](tmp_path)
    assert dataset.classnames == tuple(wanted.classes) == CLASSNAMES
    assert [(dataset.sample(i), int(y)) for i, y in enumerate(dataset.labels)] == wanted.samples


@pytest.mark.parametrize(("version", "expected"), [(4, 2021), (6, 2000)])
def test_cifar_10_1_is_two_arrays(tmp_path, pixels, labels, version, expected):
    """Version 6 is preferred, and version 4 is read if it is the only one."""
    (tmp_path / "CIFAR-10.1").mkdir()
    if version == 6:
        np.save(tmp_path / "CIFAR-10.1" / "cifar10.1_v4_data.npy", pixels[::-1])
        np.save(tmp_path / "CIFAR-10.1" / "cifar10.1_v4_labels.npy", labels)
    np.save(tmp_path / "CIFAR-10.1" / f"cifar10.1_v{version}_data.npy", pixels)
    np.save(tmp_path / "CIFAR-10.1" / f"cifar10.1_v{version}_labels.npy", labels.astype(np.int32))
    dataset = FIND["cifar10.1"](tmp_path)
    assert_holds(dataset, pixels, labels)
    assert (dataset.title, dataset.expected, dataset.classnames) == (f"CIFAR-10.1 v{version}", expected, CLASSNAMES)


def test_a_file_that_was_replaced_is_read_again(tmp_path, pixels, labels):
    """Also in the same process, as in a notebook, and if its name and size stay the same."""
    folder = tmp_path / "CIFAR-10.1"
    folder.mkdir()
    np.save(folder / "cifar10.1_v6_labels.npy", labels.astype(np.int32))
    for version in (pixels, 255 - pixels):
        np.save(tmp_path / "new.npy", version)
        (tmp_path / "new.npy").replace(folder / "cifar10.1_v6_data.npy")
        assert_holds(FIND["cifar10.1"](tmp_path), version, labels)


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("kind", [list, np.asarray])
def test_cifar_10_2_is_a_dictionary_in_an_npy_file(tmp_path, pixels, labels, protocol, kind):
    """Files of old and new versions of np.save are read, with labels as a list of integers or as an array."""
    (tmp_path / "CIFAR-10.2").mkdir()
    path = tmp_path / "CIFAR-10.2" / "cifar102_test.npy"
    holder = np.array({"images": pixels, "labels": kind(labels)}, dtype=object)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(holder))
        pickle.dump(holder, file, protocol)
    assert np.array_equal(np.load(path, allow_pickle=True).item()["images"], pixels)
    assert_holds(FIND["cifar10.2"](tmp_path), pixels, labels)


class Bomb:
    """Code that a malicious file would run."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


@pytest.mark.parametrize("name", ["cifar10", "cifar10.1", "cifar10.2"])
def test_nothing_in_a_file_is_executed(tmp_path, pixels, labels, name):
    """A file with code in a pickle is refused and named, whichever of its parts contains the pickle."""
    if name == "cifar10":
        python_version(tmp_path, pixels, labels)
        place = tmp_path / "cifar-10-batches-py" / "test_batch"
        dump(place, {"data": rows(pixels), "labels": Bomb()}, 4)
    elif name == "cifar10.1":
        place = tmp_path / "CIFAR-10.1" / "cifar10.1_v6_data.npy"
        place.parent.mkdir()
        np.save(place, np.array([Bomb()], dtype=object))
        np.save(place.with_name("cifar10.1_v6_labels.npy"), labels)
    else:
        place = tmp_path / "CIFAR-10.2" / "cifar102_test.npy"
        place.parent.mkdir()
        np.save(place, {"images": pixels, "labels": Bomb()})
    with pytest.raises(SuiteError, match=place.name):
        FIND[name](tmp_path)


def spoilt_cut(path):
    path.write_bytes(path.read_bytes()[:-5000])


def spoilt_labels(path):
    dump(path, {"data": np.zeros((3, 3072), np.uint8), "labels": [0, 1, 12]}, 4)


def spoilt_count(path):
    dump(path, {"data": np.zeros((3, 3072), np.uint8), "labels": [0, 1]}, 4)


def spoilt_shape(path):
    dump(path, {"data": np.zeros((3, 3000), np.uint8), "labels": [0, 1, 2]}, 4)


def spoilt_kind(path):
    dump(path, {"data": np.zeros((3, 3072)), "labels": [0, 1, 2]}, 4)


def spoilt_names(path):
    dump(path.with_name("batches.meta"), {"label_names": ["one"]}, 4)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoilt_cut, "ends in the middle"),
        (spoilt_labels, "from 0 to 9, .* 0 to 12"),
        (spoilt_count, "3 images and 2 labels"),
        (spoilt_shape, r"uint8 \[3, 3000\]"),
        (spoilt_kind, r"float64 \[3, 3072\]"),
        (spoilt_names, "10 classes .* found 1"),
    ],
)
def test_damaged_files_are_refused(tmp_path, pixels, labels, spoil, message):
    """The error gives the path of the file and the number or the shape that is wrong."""
    python_version(tmp_path, pixels, labels)
    spoil(tmp_path / "cifar-10-batches-py" / "test_batch")
    with pytest.raises(SuiteError, match=message) as caught:
        FIND["cifar10"](tmp_path)
    assert "test_batch" in str(caught.value)


SHARED = bytes(1 << 20)


class Again:
    """An array of bytes that the pickle contains once, however many arrays refer to it."""

    def __reduce__(self):
        return (np._core.numeric._frombuffer, (SHARED, np.dtype("u1"), (len(SHARED),), "C"))


@pytest.mark.parametrize(("times", "refused"), [(2, False), (100, True)])
def test_a_short_file_does_not_become_many_large_arrays(tmp_path, pixels, labels, times, refused):
    """Repeated references to the same bytes are refused once their copies exceed a multiple of the file's size."""
    python_version(tmp_path, pixels, labels)
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    dump(path, {"data": [Again() for _ in range(times)], "labels": [0]}, 4)
    assert path.stat().st_size < 2 << 20
    with pytest.raises(SuiteError, match="repeats" if refused else "found a list"):
        FIND["cifar10"](tmp_path)


def test_an_empty_folder_has_no_data_set(tmp_path):
    """A missing data set is not an error: its catalogue entry describes the download."""
    assert [find(tmp_path) for find in FIND.values()] == [None] * 4


def test_the_prompts_are_clips_eighteen():
    """There are nine prompts with "a" and the same nine with "the"."""
    assert len(TEMPLATES) == len(set(TEMPLATES)) == 18
    assert TEMPLATES[0] == "a photo of a {}."
    assert TEMPLATES[-1] == "a photo of the big {}."
