"""Records in JSON Lines."""

import json

import pytest

from mergekit_wise.errors import ResultsError
from mergekit_wise.results import Record, append_records, read_records

RECORD = Record("a.pt", "ab12", 0.5, "digits", "digits-noisy", "Noisy", "shift", 80, 100, {"torch": "2"}, 0.25)


def test_records_come_back_as_they_were_and_are_never_overwritten(tmp_path):
    """A second run appends."""
    path = tmp_path / "results.jsonl"
    append_records(path, [RECORD])
    append_records(path, [RECORD, RECORD])
    assert read_records(path) == (RECORD,) * 3


def test_a_line_has_accuracy_and_interval(tmp_path):
    """For readers that do not want to compute them."""
    append_records(tmp_path / "r", [RECORD])
    entry = json.loads((tmp_path / "r").read_text())
    assert entry["accuracy"] == 0.8
    assert entry["interval"] == pytest.approx([0.7081573, 0.8733444], abs=1e-6)


def test_a_torn_last_line_is_not_continued(tmp_path):
    """A run that was killed in the middle of a line costs that line only."""
    path = tmp_path / "r"
    path.write_text('{"model": "a')
    append_records(path, [RECORD])
    assert json.loads(path.read_text().splitlines()[1])["model"] == "a.pt"


@pytest.mark.parametrize("line", ["{", "[1]", '{"model": 1}'])
def test_a_foreign_line_is_named(line, tmp_path):
    """By its number."""
    path = tmp_path / "r"
    append_records(path, [RECORD])
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ResultsError, match="line 2"):
        read_records(path)


def test_a_file_that_cannot_be_written_or_read_is_told(tmp_path):
    """A folder in its place, or nothing."""
    with pytest.raises(ResultsError, match="Choose another file"):
        append_records(tmp_path, [RECORD])
    with pytest.raises(ResultsError, match="cannot be read"):
        read_records(tmp_path / "no")
