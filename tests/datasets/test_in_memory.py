"""Data sets in memory: labels, images and names are those that the data set itself gives."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder, VisionDataset

from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.fingerprint import fingerprint
from mergekit_wise.datasets.given import DatasetInMemory, is_in_memory
from mergekit_wise.errors import SuiteError, UsageError

CLASSES = ["ant", "bee", "cat"]


def pixels(number):
    return np.random.default_rng(number).integers(0, 256, (9, 7, 3), np.uint8)


class Listed(VisionDataset):
    """As torchvision's: `.targets` and `.classes`; counts how often it is read."""

    classes = CLASSES

    def __init__(self, count=40, target_transform=None):
        super().__init__("", target_transform=target_transform)
        self.targets = [number % 3 for number in range(count)]
        self.read = []

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(index)
        self.read.append(index)
        label = self.targets[index]
        return Image.fromarray(pixels(index)), self.target_transform(label) if self.target_transform else label


def opened(data, **options):
    """The only data set of the suite."""
    given = DatasetInMemory.of(data, "suite")
    (dataset,) = open_suite(given, **options).datasets
    return dataset


def test_labels_and_names_are_taken_from_where_torchvision_lists_them():
    """Of 40 images a few alone are read, and all labels and names are those of the data set."""
    data = Listed()
    dataset = opened(data)
    assert dataset.labels.tolist() == [number % 3 for number in range(40)]
    assert dataset.classnames == tuple(CLASSES)
    assert len(set(data.read)) < 10
    assert np.array_equal(np.asarray(dataset.image(7)), pixels(7))
    assert dataset.notes == ()


def test_labels_that_are_transformed_are_those_of_the_samples():
    """`.targets` are not what the samples have then, so every sample is read, and a note says so."""
    dataset = opened(Listed(target_transform=lambda label: 2 - label))
    assert dataset.labels.tolist() == [2 - number % 3 for number in range(40)]
    assert "every image was decoded once" in dataset.notes[0]


def test_parts_and_sums_of_data_sets_list_their_labels():
    """A subset's labels follow its indices, and those of a concatenation each other."""
    part = Subset(Listed(), [5, 3, 8])
    both = ConcatDataset([part, Listed(4)])
    assert opened(part).labels.tolist() == [2, 0, 2]
    assert opened(both).labels.tolist() == [2, 0, 2, 0, 1, 2, 0]
    assert opened(both).classnames == tuple(CLASSES)


@pytest.mark.parametrize(
    "image",
    [
        lambda i: Image.fromarray(pixels(i)),
        pixels,
        lambda i: torch.from_numpy(pixels(i)).permute(2, 0, 1),
    ],
    ids=["PIL", "array", "tensor"],
)
def test_images_may_be_of_pil_or_of_bytes(image):
    """Pixels are the same in all forms, and so is the content that records are recognised by, except for its name."""
    dataset = opened([(image(i), torch.tensor(i)) for i in range(3)])
    assert [np.asarray(dataset.image(i)).tolist() for i in range(3)] == [pixels(i).tolist() for i in range(3)]
    assert dataset.labels.tolist() == [0, 1, 2]
    assert fingerprint(dataset) == fingerprint(opened([(pixels(i), i) for i in range(3)]))


def test_tensors_that_a_transform_made_stay_as_they_are():
    """A float tensor is the model's input, and the data set says that it has such."""
    tensors = torch.randn(5, 3, 4, 4)
    dataset = opened(TensorDataset(tensors, torch.arange(5) % 2))
    assert dataset.is_transformed
    assert all(torch.equal(dataset.image(i), tensors[i]) for i in range(5))


def test_a_fingerprint_depends_on_every_pixel_and_label_and_on_no_name():
    """One pixel or one label changes it, and another name or place in memory does not."""
    data = [(pixels(i), i % 2) for i in range(6)]
    changed = [(image.copy(), label) for image, label in data]
    changed[4][0][0, 0, 0] ^= 1
    relabelled = [*data[:5], (data[5][0], 0)]
    same = open_suite(DatasetInMemory.of({"other": list(data)})).datasets[0]
    found = [fingerprint(each) for each in (opened(data), same, opened(changed), opened(relabelled))]
    assert found[0] == found[1]
    assert len(set(found)) == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fingerprint_of_tensors_is_the_same_in_the_next_run(dtype):
    """Other tensors with the same values have it, too, so that results are reused; one value changes it."""
    values = torch.randn(4, 3, 2, 2).to(dtype)
    changed = values.clone()
    changed[3, 2, 1, 1] += 1
    each = (values, values.clone(), changed)
    found = [fingerprint(opened(TensorDataset(tensor, torch.arange(4) % 2))) for tensor in each]
    assert found[0] == found[1] != found[2]


def test_a_folder_of_torchvision_has_the_labels_of_this_tool(tmp_path):
    """ImageFolder and the folder's path give the same labels, names and pixels."""
    for number in range(6):
        folder = tmp_path / CLASSES[number % 3]
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels(number)).save(folder / f"{number}.png")
    ours, theirs = open_suite(str(tmp_path)).datasets[0], opened(ImageFolder(tmp_path))
    assert ours.labels.tolist() == theirs.labels.tolist()
    assert ours.classnames == theirs.classnames
    assert all(np.array_equal(np.asarray(ours.image(i)), np.asarray(theirs.image(i))) for i in range(6))


def test_data_sets_of_hugging_face_give_their_columns():
    """Images and labels come from the columns of these kinds, names from the feature."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"id": datasets.Value("int32"), "img": datasets.Image(), "y": datasets.ClassLabel(names=CLASSES)}
    )
    rows = {"id": [0, 1, 2], "img": [Image.fromarray(pixels(i)) for i in range(3)], "y": [2, 0, 1]}
    data = datasets.Dataset.from_dict(rows, features=features)
    dataset = opened(data)
    assert dataset.labels.tolist() == [2, 0, 1]
    assert dataset.classnames == tuple(CLASSES)
    assert np.array_equal(np.asarray(dataset.image(1)), pixels(1))
    with pytest.raises(UsageError, match=r"several splits \(train, test\)"):
        is_in_memory(datasets.DatasetDict({"train": data, "test": data}))


def test_several_data_sets_have_names_and_one_is_the_reference():
    """Names are the keys, and the reference is what is given as such; labels are read once."""
    data, other = Listed(), Listed(9)
    given, reference = DatasetInMemory.of({"one": data, "two": other}), DatasetInMemory.of(Listed(5), "reference")
    suite = open_suite(given, reference=reference)
    assert [each.name for each in suite.datasets] == ["reference", "one", "two"]
    assert suite.reference is not None
    assert len(suite.reference) == 5
    read = len(data.read)
    open_suite(given, reference=reference)
    assert len(data.read) == read
    with pytest.raises(SuiteError, match="two data sets have this name"):
        open_suite(DatasetInMemory.of({"reference": data}), reference=reference)


def test_data_in_memory_and_named_data_make_one_suite():
    """The reference may be in memory where the shifts are named, and the other way round."""
    digits = [(pixels(i), i) for i in range(10)]
    suite = open_suite("digits-inverted", reference=DatasetInMemory.of(digits, "reference"))
    assert [each.name for each in suite.datasets] == ["reference", "digits-inverted"]
    suite = open_suite(DatasetInMemory.of({"mine": digits}), reference="digits-rotated")
    assert [each.name for each in suite.datasets] == ["digits-rotated", "mine"]


class Stream(IterableDataset):
    def __iter__(self):
        yield pixels(0), 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DataLoader(Listed()), r"is a DataLoader.*loader\.dataset"),
        (Stream(), "a length and an index"),
        ([], "has no images"),
        ([(pixels(0), 0), (pixels(1), -1)], r"data\[1\]: its label is -1"),
        ([(pixels(0), 0), (pixels(1), 0.5)], r"data\[1\]: expected the number of a class as label, found 0\.5"),
        ([(pixels(0), "ant")], r"data\[0\]: expected the number of a class as label, found 'ant'"),
        ([pixels(0)], "its samples have no labels"),
        ([("x.png", 0)], r"data\[0\]: expected an image of PIL's, .* found a str"),
        ([(pixels(0).astype(np.float32), 0)], r"found a ndarray of float32 and shape \[9, 7, 3\]"),
        ([(np.zeros((3, 9, 7), np.uint8), 0)], r"found a ndarray of uint8 and shape \[3, 9, 7\]"),
        ([{"picture": pixels(0), "label": 0}], "its samples have picture, label, and none is 'image'"),
    ],
    ids=[
        *("loader", "stream", "empty", "negative", "fraction", "text", "unlabelled", "path", "float array"),
        *("channels first", "keys"),
    ],
)
def test_what_is_no_labelled_data_set_is_refused_in_a_sentence(data, message):
    """The message names the image, what was expected and what was found."""
    with pytest.raises((SuiteError, UsageError), match=message):
        opened(data)


def test_a_label_beyond_the_names_is_refused():
    """The message says which image has it."""
    data = Listed(6)
    data.targets[4] = 3
    with pytest.raises(SuiteError, match="names 3 classes, and the label of image 4 is 3"):
        opened(data)


def test_given_names_are_those_of_numbers():
    """A data set without names gets the given ones, also if not all classes occur."""
    dataset = opened([(pixels(0), 0), (pixels(1), 1)], classnames=CLASSES)
    assert dataset.classnames == tuple(CLASSES)
