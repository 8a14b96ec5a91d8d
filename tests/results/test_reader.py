"""The lenient reader of results files; the strict one is tested in test_store, with what it reads."""

import json
import math
from dataclasses import asdict

import pytest
from scipy.stats import binomtest

from mergekit_wise.errors import ResultsError
from mergekit_wise.results import Record, append_records, read_results
from mergekit_wise.results.measurement import as_text


def read(path):
    return read_results([path])


def test_what_the_tool_writes_is_read(tmp_path):
    """Counts, metric, interval, versions and every further field of a record are read."""
    record = Record(
        model="a + b",
        weights="0f",
        alpha=0.3,
        suite="wilds",
        dataset="fmow",
        title="FMoW",
        role="shift",
        correct=30,
        total=100,
        versions={"torch": "2.15.0"},
        seconds=2.0,
        top5=60,
        metric="worst-group",
        value=0.25,
        values={"overall": 0.3},
        interval=(0.2, 0.31),
        precision="bf16",
        limit=100,
        seed=0,
    )
    append_records(tmp_path / "r.jsonl", [record])
    (found,) = read(tmp_path / "r.jsonl").measurements
    assert (found.source, found.model, found.alpha, found.suite, found.dataset) == ("r", "a + b", 0.3, "wilds", "fmow")
    assert (found.metric, found.result.value, found.result.low, found.result.high) == ("worst-group", 0.25, 0.2, 0.31)
    assert found.values == {"overall": 0.3, "top-5": 0.6}
    assert found.details["precision"] == "bf16"
    assert (found.details["limit"], found.details["seed"]) == ("100", "0")


def test_fields_of_other_versions_are_kept_as_text(tmp_path, lines):
    """A newer version's field is shown; an older version's missing fields are no error."""
    old = {key: lines.entry("imagenet", 0.5)[key] for key in ("dataset", "correct", "total")}
    new = lines.entry("imagenet", 0.5, colour_space="sRGB", tiles=[1, 2], flip=True)
    first, second = read(lines.write(tmp_path / "r.jsonl", [old, new])).measurements
    assert (first.title, first.model, first.alpha, first.role) == ("imagenet", "unnamed model", None, "shift")
    assert second.details == {"colour_space": "sRGB", "tiles": "1, 2", "flip": "yes"}


def test_the_folder_of_images_stays_private(tmp_path, lines):
    """The images' folder is not read, because reports are shared and it is private."""
    found = read(lines.write(tmp_path / "r.jsonl", [lines.entry("imagenet", 0.5, location="/home/me/imagenet")]))
    assert "/home/me" not in json.dumps([asdict(each) for each in found.measurements])


@pytest.mark.parametrize("correct", [0, 37, 100])
def test_the_interval_is_clopper_pearsons_by_default(tmp_path, lines, correct):
    """Without an interval in the record, the interval agrees with SciPy's exact test."""
    path = lines.write(tmp_path / "r.jsonl", [lines.entry("imagenet", 0.5, correct=correct, total=100)])
    exact = binomtest(correct, 100).proportion_ci(0.95, "exact")
    (found,) = read(path).measurements
    assert (found.result.low, found.result.high) == pytest.approx((exact.low, exact.high))


@pytest.mark.parametrize("interval", [None, "wide", [0.1, "x"], [0.9, 0.95], [0.9], [math.nan, math.nan]])
def test_an_impossible_interval_is_dropped(tmp_path, lines, interval):
    """An interval that does not hold its value is dropped, and the counts' interval does not replace it."""
    line = lines.entry("imagenet", 0.5, metric="macro-f1", value=0.4, interval=interval)
    (found,) = read(lines.write(tmp_path / "r.jsonl", [line])).measurements
    assert found.result.value == 0.4
    assert math.isnan(found.result.low)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("not json", "not JSON"),
        ("[1, 2]", "not a JSON object"),
        ("17", "not a JSON object"),
        ("[" * 100_000, "not JSON"),
        ('{"a": ' + "9" * 5000 + "}", "not JSON"),
        ("\x00\x01", "not JSON"),
        ({"epoch": 3, "loss": 0.1}, "names no data set"),
        ({"dataset": "x", "accuracy": 0.5}, "holds no counts"),
        ({"dataset": "x", "correct": True, "total": 1}, "holds no counts"),
        ({"dataset": "x", "correct": 5, "total": 4}, "an impossible count"),
        ({"dataset": "x", "correct": -1, "total": 4}, "an impossible count"),
        ({"dataset": "x", "correct": 0, "total": 0}, "an impossible count"),
        ({"dataset": "x", "correct": 1, "total": 2, "value": 1.5}, "an impossible value"),
        ({"dataset": "x", "correct": 1, "total": 2, "alpha": 1e300}, "an impossible alpha"),
        ({"dataset": "x", "correct": 1, "total": 2, "kind": "dream"}, "its kind is unknown"),
        ({"kind": "analysis", "dataset": "x"}, "an analysis without values"),
    ],
    ids=str,
)
def test_a_line_that_is_not_a_record_is_noted_and_the_rest_is_read(tmp_path, lines, line, problem):
    """A note has the number of the line and its problem."""
    path = lines.write(tmp_path / "r.jsonl", [lines.entry("imagenet", 0), line, lines.entry("imagenet", 1)])
    found = read(path)
    assert [each.alpha for each in found.measurements] == [0, 1]
    (note,) = found.notes
    assert note.startswith("r.jsonl: line 2 ")
    assert problem in note


def test_an_incomplete_last_line_is_noted(tmp_path, lines):
    """A line that a stopped run left incomplete is skipped, and the note says so."""
    path = lines.write(tmp_path / "r.jsonl", lines.sweep([0, 1]))
    path.write_bytes(path.read_bytes()[:-30])
    found = read(path)
    assert len(found.measurements) == 7
    assert found.notes[0].startswith("r.jsonl: line 8 ")
    assert "incomplete" in found.notes[0]


def test_many_bad_lines_are_one_note(tmp_path, lines):
    """Lines with the same problem share one note, which is cut short."""
    (note,) = read(lines.write(tmp_path / "r.jsonl", [lines.entry("imagenet", 0), *["?"] * 9])).notes
    assert "lines 2, 3, 4, 5, 6 and 4 more" in note


@pytest.mark.parametrize("content", [b"", b"\n\n", b"PK\x03\x04 no text at all \xff\xfe"])
def test_a_file_without_records_is_an_error(tmp_path, content):
    """The error says which format was expected."""
    (tmp_path / "r.jsonl").write_bytes(content)
    with pytest.raises(ResultsError, match="no record found; expected JSON Lines"):
        read(tmp_path / "r.jsonl")


@pytest.mark.parametrize("there", [False, True])
def test_a_file_that_cannot_be_read_is_an_error(tmp_path, there):
    """A missing file and a folder in its place are errors."""
    if there:
        (tmp_path / "r.jsonl").mkdir()
    with pytest.raises(ResultsError, match="results cannot be read"):
        read(tmp_path / "r.jsonl")


def test_one_empty_file_of_two_is_a_note(tmp_path, lines, results):
    """The other file is read, and a note names the empty one."""
    found = read_results([results, lines.write(tmp_path / "empty.jsonl", [])])
    (note,) = found.notes
    assert note.startswith("empty.jsonl holds no record")


def test_sources_are_distinct_names(tmp_path, lines):
    """Sources are file names, or paths if names are equal; the same file given twice is read once."""
    paths = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        paths.append(lines.write(tmp_path / folder / "r.jsonl", [lines.entry("imagenet", 0)]))
    other = lines.write(tmp_path / "other.jsonl", [lines.entry("imagenet", 0)])
    sources = [each.source for each in read_results([*paths, other, paths[0]]).measurements]
    assert sources == [str(paths[0]), str(paths[1]), "other"]


def test_findings_are_numbers_and_texts_by_name(tmp_path, lines):
    """The values of an analysis are kept as numbers or texts, whatever their names."""
    finding = {
        "kind": "analysis",
        "suite": "s",
        "dataset": "d",
        "title": "D",
        "values": {"diversity": 0.25, "verdict": "holds", "kl": math.nan},
    }
    (found,) = read(lines.write(tmp_path / "r.jsonl", [lines.entry("imagenet", 0), finding])).findings
    assert (found.suite, found.title) == ("s", "D")
    assert found.values == {"diversity": 0.25, "verdict": "holds", "kl": "nan"}


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("a\nb\x00c", "a b c"),
        ("\ud800x", "?x"),
        ("right\u202eleft", "right left"),
        ("y" * 1000, "y" * 399 + "…"),
        ({"a": 1}, "a 1"),
        (2.50, "2.5"),
    ],
    ids=ascii,
)
def test_texts_are_one_short_printable_line(given, shown):
    """Any value of a record becomes a short line that every output can hold."""
    assert as_text(given) == shown
