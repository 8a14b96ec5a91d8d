"""Lines of estimates are read as they were written, and lines that hold none are refused or left out with a reason."""

import json

import pytest

from mergekit_wise.errors import ResultsError
from mergekit_wise.results import Estimation, append_records, as_entry, read_estimations, read_records, read_results

POINTS = ((("alpha", 0.0),), (("alpha", 1.0),))
ESTIMATION = Estimation(
    "zs + ft", "s", "p", "--keep ft:head.*", "photos", "Photos", "unlabelled", "val", 9, 10, 0, POINTS,
    (0.1, 0.7), (-0.2, 1.3), (0.2, 0.3), (0.0, 0.5), (0.3, 0.9), (0.0, 2.5),
)  # fmt: skip


def test_a_line_is_read_as_it_was_written(tmp_path, lines):
    """By the strict reader and the lenient one; it is no record."""
    path = lines.write(tmp_path / "r.jsonl", [lines.entry("imagenet", 0.5)])
    append_records(path, [ESTIMATION])
    assert read_estimations(path) == (ESTIMATION,)
    assert len(read_records(path)) == 1
    reading = read_results([path])
    assert reading.estimations == (ESTIMATION,)
    assert reading.notes == ()
    assert len(reading.measurements) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"atc": [0.1]}, "1 values of atc for 2 points"),
        ({"atc": [0.1, 1.5]}, "impossible values of atc"),
        ({"atc": [0.1, None]}, "impossible values of atc"),
        ({"ac": "high"}, "impossible values of ac"),
        ({"low": []}, "half an interval"),
        ({"points": []}, "without points"),
        ({"points": [[["alpha", 0.0]], [["alpha"]]]}, "impossible point"),
        ({"points": [[], [["alpha", 1.0]]]}, "impossible point"),
        ({"images": None}, "no images"),
        ({"seed": -1}, "impossible seed"),
        ({"entropy": [0.1, float("nan")]}, "impossible values of entropy"),
    ],
)
def test_a_line_that_cannot_be_is_refused_or_left_out(tmp_path, lines, change, reason):
    """The strict reader names the line, the lenient one skips it and says why."""
    path = lines.write(tmp_path / "r.jsonl", [lines.entry("imagenet", 0.5), {**as_entry(ESTIMATION), **change}])
    with pytest.raises(ResultsError, match=f"line 2.*{reason}"):
        read_estimations(path)
    reading = read_results([path])
    assert reading.estimations == ()
    assert reason in reading.notes[0]


def test_a_line_without_a_field_is_refused(tmp_path):
    """Every field is needed."""
    entry = as_entry(ESTIMATION)
    del entry["doc"]
    (tmp_path / "r.jsonl").write_text(json.dumps(entry) + "\n")
    with pytest.raises(ResultsError, match="without doc"):
        read_estimations(tmp_path / "r.jsonl")
