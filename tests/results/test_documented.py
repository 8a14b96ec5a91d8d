"""docs/results.md describes every file of results: no field is missing, and none is made up."""

import json
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from mergekit_wise.analysis import Choice, LogitDisagreement, Point, Recommendation
from mergekit_wise.analysis.disagreement import disagreement
from mergekit_wise.datasets.dataset import Dataset
from mergekit_wise.evaluation.pair_analysis import ensemble_name
from mergekit_wise.report.exports import COLUMNS as REPORT_COLUMNS
from mergekit_wise.results import (
    Analysis,
    Detail,
    Estimation,
    Record,
    WrittenChoice,
    as_entry,
    choice_of,
    writing_details,
)
from mergekit_wise.results.details import COLUMNS

PAGE = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
TYPES = {
    "text": str,
    "number": (int, float),
    "integer": int,
    "list": list,
    "object": dict,
    "integer or null": (int, type(None)),
    "number or null": (int, float, type(None)),
}
RECORD = Record("model", "weights", 0.5, "suite", "dataset", "title", "shift", 1, 4)
ANALYSIS = Analysis("model", "zs", "ft", "suite", "dataset", "title", "shift", "data", "setting", 4, {"total": 4.0})
SERIES = ((0.5, 0.6),) * 7
POINTS = ((("alpha", 0.0),), (("alpha", 1.0),))
ESTIMATION = Estimation(
    "model", "suite", "pair", "", "dataset", "title", "shift", "ref", 4, None, None, POINTS, *SERIES
)

HALF = Recommendation(Point.of_alpha(0.5), "reason")
CHOICE = choice_of([RECORD], Choice("average", "", 0.0, HALF, (), (), None, paired=False))


def tables(heading: str) -> list[list[list[str]]]:
    """Cells of the rows below each table's head, in a section."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^\|.*\n\| ---.*\n((?:\|.*\n)+)", section, re.MULTILINE)
    return [[[cell.strip() for cell in row.strip("|").split(" |")] for row in rows.splitlines()] for rows in found]


def names(rows: list[list[str]]) -> list[str]:
    """The names in backticks in the first cells."""
    return [name for row in rows for name in re.findall(r"`(.+?)`", row[0])]


@pytest.mark.parametrize(
    ("heading", "kind", "entry", "more"),
    [
        ("A record", Record, as_entry(RECORD), {"accuracy"}),
        ("An analysis", Analysis, as_entry(ANALYSIS), {"kind"}),
        ("An estimate", Estimation, as_entry(ESTIMATION), {"kind"}),
        ("A choice", WrittenChoice, as_entry(CHOICE), {"kind"}),
    ],
)
def test_every_field_is_documented_with_its_type(heading, kind, entry, more):
    """The page has one row per field, with the type that the field has in JSON."""
    rows = tables(heading)[0]
    assert sorted(names(rows)) == sorted({field.name for field in fields(kind)} - {"source"} | more)
    as_read = json.loads(json.dumps(entry))
    for name, row in zip(names(rows), rows, strict=True):
        assert isinstance(as_read[name], TYPES[row[1]]), name
        null = next((field.type for field in fields(kind) if field.name == name and "None" in str(field.type)), None)
        assert (null is not None) == row[1].endswith("or null"), name


def test_every_number_of_an_analysis_is_documented():
    """The page has a row for the name of every value that an analysis can have."""
    seen, logits, labels = LogitDisagreement(), np.random.default_rng(0).standard_normal((3, 20, 4)), np.arange(20) % 4
    seen.update(logits, labels, np.arange(20))
    wanted = [*disagreement(seen, labels, *logits.argmax(2)), ensemble_name(0.5)]
    assert sorted(names(tables("An analysis")[1])) == sorted(wanted)


def test_every_detail_is_documented(tmp_path):
    """The page has the columns of the table by class and the keys of the lines by image."""
    classes, images = tables("Details")
    assert names(classes) == list(COLUMNS)
    dataset = Dataset("dataset", "title", ("a", "b"), np.array([0, 1]), str)
    detail = Detail(RECORD, dataset, np.array([0, -1]), np.array([True, False]), {1: "damaged"})
    with writing_details(None, tmp_path / "samples") as files:
        files.write(detail)
    written = [json.loads(line) for line in (tmp_path / "samples").read_text().splitlines()]
    assert set(names(images)) == {key for line in written for key in line}


def test_the_columns_of_a_report_are_documented():
    """The page lists the columns of the report's CSV in their order."""
    assert ", ".join(f"`{name}`" for name in REPORT_COLUMNS) in PAGE.replace("\n", " ")
