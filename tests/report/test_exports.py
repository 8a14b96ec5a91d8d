"""Tables as CSV, Markdown and LaTeX."""

import csv
import io
import re

import pytest

from mergekit_wise.report.comparison import compare
from mergekit_wise.report.exports import as_csv, as_latex, as_markdown
from mergekit_wise.report.page_tables import results_table
from mergekit_wise.report.summary import summarize
from mergekit_wise.report.table import Table
from mergekit_wise.report.table_texts import table_csv
from mergekit_wise.results import read_results

HOSTILE = r"=A|_b_ & 100% $x^2$ #{~} \input{/etc/passwd} <script>"


@pytest.fixture
def build(tmp_path, lines):
    """A function that returns the comparisons and the tables of a file with the given lines."""

    def make(content):
        reading = read_results([lines.write(tmp_path / "r.jsonl", content)])
        found = compare(reading)
        return found, [results_table(summarize(each)) for each in found]

    return make


def test_csv_holds_every_number(build, lines):
    """CSV has a line for each record and each average, with the counts of the records."""
    comparisons, _ = build(lines.sweep())
    rows = list(csv.DictReader(io.StringIO(as_csv(comparisons))))
    assert len(rows) == 11 * (4 + 2)
    for record in lines.sweep():
        (row,) = (r for r in rows if (r["dataset"], float(r["alpha"])) == (record["dataset"], record["alpha"]))
        assert (int(row["correct"]), int(row["total"])) == (record["correct"], record["total"])
        assert float(row["value"]) == pytest.approx(record["correct"] / record["total"], abs=1e-6)
        assert float(row["low"]) < float(row["value"]) < float(row["high"])


def test_markdown_is_a_table_with_the_best_in_bold(build, lines):
    """Numbers have one decimal and their interval, and every line has as many cells as the head."""
    _, tables = build(lines.sweep())
    found = [line for line in as_markdown(tables).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in found]
    assert {len(line) for line in cells} == {7}
    assert cells[0] == [
        "α",
        "ImageNet",
        "ImageNet-V2",
        "ImageNet-Sketch",
        "ImageNet-A",
        "Average of 3 shifts",
        "Average of both",
    ]
    middle = next(line for line in cells if line[0] == "0.5")
    assert re.fullmatch(r"86\.8 \(86\.5–87\.1\)", middle[1])
    shares = {row["alpha"]: row["correct"] for row in lines.sweep() if row["dataset"] == "imagenet"}
    best = max(shares, key=shares.get)
    assert [line[0] for line in cells if line[1].startswith("**")] == [f"{best:g}"]


def test_latex_is_a_tabular_with_the_best_in_bold(build, lines):
    """Every line has as many cells as columns, the rules are booktabs', and one number per column is bold."""
    _, tables = build(lines.sweep())
    text = as_latex(tables)
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.count("&") for line in rows} == {6}
    assert r"\begin{tabular}{lrrrrrr}" in text
    assert text.count(r"\textbf") == 6
    assert text.count("{") == text.count("}")
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}"))


def test_the_pages_csv_has_numbers_as_numbers_and_names_as_texts():
    """Signs, intervals and marks begin no formula, and keep their text; whatever else begins like one is marked."""
    cells = ("−1.5", "−1.5*", "+0.3 †", "−2.0 to +1.0", "–", "-2+3", "=1", "+cmd|' /C calc'!A0")
    text = table_csv(Table.of_texts([str(number) for number in range(len(cells))], [cells]))
    assert next(csv.reader(text.splitlines()[1:])) == [
        *("-1.5", "-1.5*", "+0.3 †", "-2.0 to +1.0", "", "'-2+3", "'=1", "'+cmd|' /C calc'!A0"),
    ]


def test_names_cannot_do_harm(build, lines):
    """Names become no command in LaTeX, no markup in Markdown and no formula in a spreadsheet."""
    content = [
        {**each, "title": HOSTILE, "model": HOSTILE, "suite": HOSTILE} for each in lines.sweep([0, 1], ("imagenet",))
    ]
    comparisons, tables = build([*content, *lines.sweep([0, 1], ("imagenet",), suite=HOSTILE, model="other")])
    latex = as_latex(tables)
    assert r"\input" not in latex
    assert r"=A\textbar{}\_b\_ \& 100\% \$x\textasciicircum{}2\$ \#\{\textasciitilde{}\} \textbackslash{}input" in latex
    markdown = as_markdown(tables)
    assert not re.search(r"(?<!\\)[<`$]", markdown)
    assert r"\<script\>" in markdown
    assert {line.replace(r"\|", "").count("|") for line in markdown.splitlines() if line.startswith("|")} == {4}
    rows = list(csv.reader(io.StringIO(as_csv(comparisons))))
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "@"))]
