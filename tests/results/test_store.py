"""Results files that are appended to and read strictly."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest

from mergekit_wise.errors import ResultsError
from mergekit_wise.results import Analysis, Record, append_records, read_analyses, read_records, require_writable

RECORD = Record("a.pt", "ab12", 0.5, "digits", "digits-noisy", "Noisy", "shift", 80, 100, {"torch": "2"}, 0.25)
FULL = replace(
    RECORD,
    metric="macro-f1",
    value=0.5,
    interval=(0.25, 0.75),
    values={"overall": 0.8},
    top5=99,
    data="cd34",
    limit=100,
    seed=0,
    bad=1,
    missing=("digits-small",),
)
OLD = (
    '{"model": "a.pt", "weights": "ab12", "alpha": 0.5, "suite": "digits", "dataset": "digits-noisy", '
    '"title": "Noisy", "role": "shift", "correct": 80, "total": 100, "versions": {"torch": "2"}, "seconds": 0.25, '
    '"accuracy": 0.8, "interval": [0.7081573, 0.8733444]}\n'
)


def test_records_come_back_as_they_were_and_are_never_overwritten(tmp_path):
    """A second run appends its records to those of the first."""
    path = tmp_path / "results.jsonl"
    append_records(path, [RECORD])
    append_records(path, [FULL, RECORD])
    assert read_records(path) == (RECORD, FULL, RECORD)


def test_records_of_earlier_versions_are_read(tmp_path):
    """Fields that an earlier version did not write have their defaults."""
    (tmp_path / "r").write_text(OLD)
    (found,) = read_records(tmp_path / "r")
    assert replace(found, interval=RECORD.interval) == RECORD
    assert found.key is None


def test_a_line_has_accuracy_and_interval(tmp_path):
    """Every line has the accuracy, and the interval of the reported number."""
    append_records(tmp_path / "r", [RECORD, FULL])
    first, second = map(json.loads, (tmp_path / "r").read_text().splitlines())
    assert first["accuracy"] == first["value"] == 0.8
    assert first["interval"] == pytest.approx([0.7081573, 0.8733444], abs=1e-6)
    assert (second["accuracy"], second["value"], second["interval"]) == (0.8, 0.5, [0.25, 0.75])


@pytest.mark.parametrize("torn", ['{"model": "a', '{"model": "' + "a" * 200_000, "\x00\x00\x00"])
@pytest.mark.parametrize("before", [0, 2])
def test_an_incomplete_last_line_is_skipped_and_repaired(torn, before, tmp_path):
    """A run that was killed in the middle of a line costs that line only, however long it is."""
    path = tmp_path / "r"
    append_records(path, [RECORD] * before)
    with path.open("a") as file:
        file.write(torn)
    assert read_records(path) == (RECORD,) * before
    append_records(path, [FULL])
    assert read_records(path) == (*(RECORD,) * before, FULL)
    assert len(path.read_text().splitlines()) == before + 1


def test_a_last_line_that_lacks_only_its_line_feed_is_kept(tmp_path):
    """A complete record without a line feed is not removed."""
    path = tmp_path / "r"
    path.write_text(OLD.rstrip())
    append_records(path, [RECORD])
    assert len(read_records(path)) == 2


def test_two_runs_may_append_at_once(tmp_path):
    """No line of two simultaneous runs is lost or mixed with another."""
    code = (
        "import sys; from dataclasses import replace; from pathlib import Path\n"
        "from mergekit_wise.results import append_records, read_records\n"
        "(record,) = read_records(Path(sys.argv[1]))\n"
        "for number in range(200):\n"
        "    append_records(Path(sys.argv[2]), [replace(record, model=sys.argv[3], correct=number % 101)] * 5)\n"
    )
    append_records(tmp_path / "one", [FULL])
    (tmp_path / "r").write_text('{"torn')
    words = [sys.executable, "-c", code, str(tmp_path / "one"), str(tmp_path / "r")]
    running = [subprocess.Popen([*words, name]) for name in ("a" * 2000, "b" * 2000)]
    assert [process.wait(60) for process in running] == [0, 0]
    found = read_records(tmp_path / "r")
    for name in ("a" * 2000, "b" * 2000):
        assert [r.correct for r in found if r.model == name] == [n % 101 for n in range(200) for _ in range(5)]


@pytest.mark.parametrize(
    "line",
    ["{", "[1]", '{"model": 1}', "[" * 100_000, OLD.replace("100", "0").strip(), OLD.replace("80", "[]").strip()],
)
def test_a_line_that_is_not_a_record_is_an_error(line, tmp_path):
    """The error of the strict reader has the number of the first line that is not a record."""
    path = tmp_path / "r"
    append_records(path, [RECORD])
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ResultsError, match="line 2"):
        read_records(path)


def test_a_file_that_cannot_be_written_or_read_is_an_error(tmp_path):
    """A folder in place of the file, or a missing one, is an error before any work, and nothing is created."""
    with pytest.raises(ResultsError, match="Choose another file"):
        append_records(tmp_path, [RECORD])
    with pytest.raises(ResultsError, match="a folder. Choose another file"):
        require_writable(tmp_path)
    with pytest.raises(ResultsError, match="does not exist"):
        require_writable(tmp_path / "no" / "r")
    require_writable(tmp_path / "r")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ResultsError, match="cannot be read"):
        read_records(tmp_path / "no")


def test_a_file_of_another_kind_is_refused(tmp_path):
    """A binary file is not mistaken for an incomplete line, which the next run would remove."""
    (tmp_path / "model.pt").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(ResultsError, match="line 1"):
        read_records(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "change",
    [
        {"weights": "x"},
        {"head": "x"},
        {"prompts": "x"},
        {"architecture": "x"},
        {"preprocess": {"size": 7}},
        {"precision": "x"},
        {"data": "x"},
        {"dataset": "x"},
        {"metric": "x"},
        {"limit": 7},
        {"seed": 7},
        {"draw": "proportional"},
        {"columns": "x"},
        {"versions": {"torch": "2.1"}},
        {"versions": {"torch": "2", "measurement": "2"}},
    ],
)
def test_everything_that_the_number_depends_on_is_in_the_key(change):
    """The key changes with everything that the number depends on, and with nothing else."""
    assert FULL.key != replace(FULL, **change).key
    same = {"model": "x", "alpha": 0.1, "suite": "x", "role": "reference", "seconds": 9.0, "device": "x", "pair": "x"}
    assert FULL.key == replace(FULL, **same).key


def test_who_declared_the_architecture_does_not_make_another_measurement():
    """Results of earlier versions, which worded the source in another way, are recognised."""
    named = replace(FULL, architecture="ViT-B-32 (from --model ViT-B-32; preprocessing: (x))")
    assert named.key == replace(FULL, architecture="ViT-B-32 (told by its metadata (open_clip_config))").key
    assert named.key == replace(FULL, architecture="ViT-B-32").key
    assert named.key != replace(FULL, architecture="ViT-B-16 (from --model ViT-B-32)").key


def test_what_is_undefined_is_null(tmp_path):
    """NaN is written as null, because JSON has no NaN, and is read as NaN."""
    path = tmp_path / "results.jsonl"
    names = ("model", "zeroshot", "finetuned", "suite", "dataset", "title", "role", "data", "setting")
    analysis = Analysis(*names, 4, {"cka complement": math.nan, "total": 4.0})
    append_records(path, [analysis])

    def refuse(word):
        raise ValueError(word)

    assert json.loads(path.read_text(), parse_constant=refuse)["values"] == {"cka complement": None, "total": 4.0}
    (found,) = read_analyses(path)
    assert math.isnan(found.values["cka complement"])
    assert found.values["total"] == 4.0
    path.write_text('{"kind": "analysis", "model": "no values"}\n')
    with pytest.raises(ResultsError, match="line 1"):
        read_analyses(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("correct", "80"),
        ("correct", 101),
        ("correct", -1),
        ("correct", True),
        ("correct", 10**400),
        ("total", 0),
        ("alpha", "0.5"),
        ("alpha", 10**400),
        ("value", 1.5),
        ("value", [0.5]),
        ("value", math.nan),
        ("interval", [0.1, math.nan]),
        ("interval", [-math.inf, 0.9]),
        ("interval", []),
        ("interval", [0.1]),
        ("interval", {"a": 1}),
        ("interval", ["a", "b"]),
        ("dataset", 5),
        ("role", "other"),
        ("values", {"a": []}),
        ("values", []),
        ("versions", {"torch": 2}),
        ("top5", 0.5),
        ("missing", 3),
        ("missing", [3]),
        ("data", None),
        ("seconds", None),
        ("bad", "1"),
    ],
)
def test_fields_of_odd_types_are_refused(field, value, tmp_path):
    """A field of another type, or a number that cannot be, is refused with its line: runs rely on these records."""
    path = tmp_path / "results.jsonl"
    append_records(path, [FULL, FULL])
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps({**json.loads(second), field: value})}\n")
    with pytest.raises(ResultsError, match="line 2 is not a record"):
        read_records(path)
