"""ImageNet-Hard is read from parquet files as the library datasets writes them, with several labels an image."""

import io

import numpy as np
import pytest
from PIL import Image

from mergekit_wise.analysis.metrics import score
from mergekit_wise.datasets.catalog import open_suite
from mergekit_wise.datasets.imagenet_hard import find_imagenet_hard
from mergekit_wise.errors import SuiteError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

LABELS = [[3], [10, 999], [0], [7, 5, 6], [42], [1, 2], [998]]


def encoded(number):
    """The bytes of an image whose colour is its number."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (number, 9, 9)).save(buffer, "PNG")
    return buffer.getvalue()


def write(root, labels=LABELS):
    """Write two files, of several row groups, into the folder that the hub's client makes."""
    folder = root / "imagenet-hard" / "data"
    folder.mkdir(parents=True)
    half = len(labels) // 2
    for number, rows in enumerate((range(half), range(half, len(labels)))):
        columns = {
            "image": [{"bytes": encoded(row), "path": f"{row}.png"} for row in rows],
            "label": [labels[row] for row in rows],
            "origin": ["imagenet_sketch" for _ in rows],
            "english_label": [["a"] * len(labels[row] or ()) for row in rows],
        }
        name = f"validation-0000{number}-of-00002-0123456789abcdef.parquet"
        pq.write_table(pa.table(columns), folder / name, row_group_size=2)
    return root


def test_an_image_is_right_with_any_of_its_labels(tmp_path):
    """Images and labels are those of the rows; the accuracy is that of a loop over them."""
    (dataset,) = open_suite("imagenet-hard", write(tmp_path)).shifts
    assert [dataset.image(index).getpixel((0, 0))[0] for index in range(7)] == list(range(7))
    assert [set(labels) for labels in dataset.metric.accepted] == [set(labels) for labels in LABELS]
    assert (dataset.labels.tolist(), dataset.vocabulary) == ([labels[0] for labels in LABELS], "imagenet")
    for seed in range(5):
        rng = np.random.default_rng(seed)
        predictions = np.array([rng.choice(labels) if rng.random() < 0.6 else 500 for labels in LABELS])
        right = sum(int(p) in labels for p, labels in zip(predictions, LABELS, strict=True))
        assert score(dataset.metric, predictions, dataset.labels, 1000).correct == right


@pytest.mark.parametrize("wrong", [[1000], [-1, 3], [], None])
def test_labels_that_are_none_are_refused(tmp_path, wrong):
    """The error names the file and the row."""
    with pytest.raises(SuiteError, match=r"validation-00001.*:0:1: expected (a list of )?labels"):
        find_imagenet_hard(write(tmp_path, [*LABELS[:4], wrong, *LABELS[5:]]))


def test_without_files_it_is_missing(tmp_path):
    """A missing data set is not an error."""
    assert find_imagenet_hard(tmp_path) is None
