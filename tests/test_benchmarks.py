"""Medians, ratios and tables of `make bench`; its runs take too long for a test."""

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "benchmarks"


@pytest.fixture
def bench(monkeypatch):
    """The benchmark modules, importable as when the runner is started."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import contest
    import tables

    yield contest, tables
    for name in ("contest", "tables"):
        del sys.modules[name]


def test_a_contest_has_medians_sums_and_failures(bench):
    """Repeated runs give medians and sums, and a contestant that fails is not run again."""
    contest, tables = bench
    python = [sys.executable, "-c"]
    commands = {
        "wise": [*python, "print('seconds 2.0'); print('result 7 right')"],
        "half": [*python, "print('seconds 1.0')"],
        "broken": [*python, "raise ValueError('no such | file')"],
    }
    sums = {"three halves": {"half": 3}}
    rivals = ("broken", "three halves")
    what = contest.Contest(
        "eval", "a model", commands, "wise", "three halves", whole=False, repeat=2, sums=sums, rivals=rivals
    )
    runs = contest.race(what)
    assert runs["wise"].inner == 2.0
    assert runs["wise"].wall > 0.005
    assert runs["wise"].private > 1e6
    assert runs["wise"].result == "7 right"
    assert runs["three halves"].inner == 3.0
    lines = list(tables.rows(what, runs))
    assert lines[0].startswith("| eval: a model | wise | 1.00 | 0.67 |")
    assert lines[0].endswith("| 7 right |")
    assert "failed: ValueError: no such / file" in lines[2]
    assert {line.count("|") for line in (*lines, *tables.HEADER.splitlines())} == {12}
    shown = "\n".join(tables.summary([(what, runs)]))
    assert "`wise`: 2.00 s | broken fails; 1.5 × faster than three halves |" in shown
    assert tables._times(0.8) == "0.80 × as fast"
    assert [tables._times(ratio) for ratio in (1.0, 12.3)] == ["as fast", "12 × faster"]


def test_the_readme_gets_ratios_of_whole_processes(bench):
    """Ratios compare whole processes, and merging has a table with one column per contestant."""
    contest, tables = bench

    def run(wall):
        return contest.Run(wall, wall, None, 1e9, 1e8, 1e8)

    pairs = [
        (contest.Contest("merge", what, {}, "wise merge", "cp"), {"wise merge": run(ours), "cp": run(0.5), **more})
        for what, ours, more in (("float32", 1.0, {"mergekit-pytorch": run(8.0)}), ("bfloat16", 2.0, {}))
    ]
    assert list(tables.summary(pairs))[:4] == [
        "| Merging two checkpoints | `wise merge` | than mergekit | for scale: `cp` of one file |",
        "|---|--:|--:|--:|",
        "| float32 | **1.00 s**, 1.00 GB | 8.0 × faster, 1.00 GB | 0.50 s |",
        "| bfloat16 | **2.00 s**, 1.00 GB |  | 0.50 s |",
    ]


def test_a_table_replaces_the_text_between_the_marks(bench, tmp_path):
    """Only the text between the marks is replaced, and a file without marks stays unchanged."""
    _, tables = bench
    page = tmp_path / "page.md"
    page.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n")
    for _ in range(2):
        tables.write_between(page, ["new", "table"])
        assert page.read_text() == f"before\n{tables.BEGIN}\n\nnew\ntable\n\n{tables.END}\nafter\n"
    page.write_text("nothing\n")
    with pytest.raises(ValueError, match="has no lines"):
        tables.write_between(page, ["new"])
    assert page.read_text() == "nothing\n"


@pytest.mark.parametrize("page", ["README.md", "docs/benchmarks.md"])
def test_the_pages_have_the_marks_for_the_tables(bench, page):
    """The pages have the marks, so that a run of an hour does not fail at its end."""
    _, tables = bench
    text = (FOLDER.parents[1] / page).read_text()
    assert text.index(tables.BEGIN) < text.index(tables.END)
