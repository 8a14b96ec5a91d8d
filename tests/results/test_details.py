"""Details of records, by class and by image."""

import csv
import json

import numpy as np
import pytest

from mergekit_wise.analysis import clopper_pearson
from mergekit_wise.datasets.dataset import Dataset, Metric
from mergekit_wise.errors import ResultsError
from mergekit_wise.results import Detail, Record, writing_details

LABELS = np.array([0, 0, 1, 1, 1, 0])
RECORD = Record("m", "w", 0.5, "s", "d", "D", "shift", 2, 5)


@pytest.fixture
def written(tmp_path):
    """Both files of three classes, of which the last has no images; image 5 is bad, image 4 overflowed."""
    dataset = Dataset("d", "D", ("a", "b,c", "d"), LABELS, None, sample=lambda i: f"{i}.jpg")
    top5 = np.array([True, True, True, True, False, False])
    detail = Detail(RECORD, dataset, np.array([0, 2, 1, 0, -1, -1]), top5, {5: "5.jpg: broken."})
    with writing_details(tmp_path / "c.csv", tmp_path / "s.jsonl") as files:
        files.write(detail)
        files.write(detail)
    with (tmp_path / "c.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return rows, [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]


def test_rows_count_the_readable_images_of_each_class(written):
    """Rows have intervals and counts of predictions; a class without images has no accuracy."""
    rows, _ = written
    assert len(rows) == 6
    shown = [(r["name"], r["images"], r["correct"], r["predicted"]) for r in rows[:3]]
    assert shown == [("a", "2", "1", "2"), ("b,c", "3", "1", "1"), ("d", "0", "0", "1")]
    low, high = clopper_pearson(1, 3)
    assert [float(rows[1][key]) for key in ("accuracy", "low", "high")] == [1 / 3, low, high]
    assert rows[2]["accuracy"] == ""
    assert (rows[0]["dataset"], rows[0]["model"], rows[0]["alpha"]) == ("d", "m", "0.5")


def test_every_image_has_a_line(written):
    """Every line names its image and holds the prediction, or the reason why there is none."""
    _, lines = written
    assert len(lines) == 12
    start = {"dataset": "d", "model": "m", "alpha": 0.5, "point": [], "rule": ""}
    assert lines[1] == start | {
        "index": 1,
        "sample": "1.jpg",
        "label": 0,
        "predicted": 2,
        "correct": False,
        "top5": True,
    }
    assert (lines[4]["predicted"], lines[4]["correct"]) == (None, False)
    assert lines[5] == start | {"index": 5, "sample": "5.jpg", "label": 0, "error": "5.jpg: broken."}


def test_other_right_answers_count(tmp_path):
    """A prediction among the accepted classes of an image counts as correct."""
    metric = Metric(accepted=tuple(frozenset({2}) for _ in range(6)))
    dataset = Dataset("d", "D", ("a", "b", "c"), LABELS, None, metric=metric)
    with writing_details(None, tmp_path / "s") as files:
        files.write(Detail(RECORD, dataset, np.array([2, 1, 2, 0, 1, 0]), np.ones(6, bool), {}))
    found = [json.loads(line)["correct"] for line in (tmp_path / "s").read_text().splitlines()]
    assert found == [True, False, True, False, True, True]


def test_a_file_that_cannot_be_written_is_an_error(tmp_path):
    """A folder in place of the file is an error before any prediction is written."""
    with pytest.raises(ResultsError, match="Choose another file"), writing_details(tmp_path, None):
        pass


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\n", "\uff1d"])
def test_names_are_no_formulas_and_numbers_are_numbers(start, tmp_path):
    """A text that a spreadsheet would compute follows an apostrophe; a negative alpha stays a number."""
    hostile = f"{start}cmd|' /C calc'!A0"
    dataset = Dataset(hostile, "D", (hostile, "b", "c"), LABELS[:1], None, sample=str)
    record = Record(hostile, "w", -0.5, "s", hostile, "D", "shift", 0, 1)
    with writing_details(tmp_path / "c.csv", None) as files:
        files.write(Detail(record, dataset, np.array([1]), np.array([True]), {}))
    with (tmp_path / "c.csv").open(newline="") as file:
        (row, *_) = csv.DictReader(file)
    assert (row["dataset"], row["model"], row["name"]) == (f"'{hostile}",) * 3
    assert row["alpha"] == "-0.5"


def test_a_carriage_return_ends_no_row(tmp_path):
    """A class name with a carriage return stays in its cell."""
    dataset = Dataset("d", "D", ("a\r=b", "c"), LABELS[:1], None, sample=str)
    with writing_details(tmp_path / "c.csv", None) as files:
        files.write(Detail(RECORD, dataset, np.array([1]), np.array([True]), {}))
    with (tmp_path / "c.csv").open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == [r"a\r=b", "c"]
