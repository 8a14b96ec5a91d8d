"""The function that creates a report, and its command."""

import json
import math
import re
import subprocess
import sys

import pytest

from mergekit_wise.api.report import write_report as report
from mergekit_wise.errors import OutputError, ResultsError, UsageError
from mergekit_wise.results import Record, append_records


@pytest.fixture
def results(tmp_path):
    """A sweep of five alphas over a reference and two shifts."""
    path = tmp_path / "results.jsonl"
    for alpha in (0.0, 0.25, 0.5, 0.75, 1.0):
        for name, role, correct in (("d", "reference", 700 + 200 * alpha), ("e", "shift", 600), ("f", "shift", 500)):
            count = int(correct - 100 * (alpha - 0.5) ** 2)
            append_records(path, [Record("a + b", f"{alpha}", alpha, "digits", name, name.upper(), role, count, 1000)])
    return path


def test_every_requested_file_is_written(results, tmp_path):
    """The page, tables and plots are written, missing plot folders are created, and nothing else is left behind."""
    out = tmp_path / "out"
    out.mkdir()
    found = report(
        [results],
        output=out / "r.html",
        png=out / "png",
        svg=out / "plots",
        pdf=out / "plots",
        csv=out / "r.csv",
        markdown=out / "r.md",
        latex=out / "r.tex",
    )
    assert found.files == (out / "r.html", out / "r.csv", out / "r.md", out / "r.tex")
    assert found.folders == {out / "png": 9, out / "plots": 18}
    assert len(list((out / "png").glob("*.png"))) == 9
    assert len(list((out / "plots").iterdir())) == 18
    assert sorted(path.name for path in out.iterdir()) == ["plots", "png", "r.csv", "r.html", "r.md", "r.tex"]
    assert all(path.stat().st_size > 0 for path in out.rglob("*.*"))
    assert found.notes == ()


@pytest.mark.parametrize(("width", "inches"), [("column", 3.25), ("text", 6.75)])
def test_a_figure_and_a_table_for_papers_are_written(results, tmp_path, width, inches):
    """`figure` is one PDF as wide as asked for, `table` a LaTeX table of the same suite."""
    paths = tmp_path / "r.html", tmp_path / "t.tex", tmp_path / "f.pdf"
    found = report([results], output=paths[0], table=paths[1], figure=paths[2], width=width)
    assert found.files == paths
    assert "\\label{tab:wise-digits}" in paths[1].read_text()
    box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ", paths[2].read_bytes())
    assert float(box[1]) == pytest.approx(72 * inches)


def test_a_figure_needs_one_suite_and_something_to_draw(results, tmp_path):
    """Both errors name the option and what to do, and nothing is written."""
    outputs = {"output": tmp_path / "r.html", "figure": tmp_path / "f.svg"}
    single = tmp_path / "single.jsonl"
    append_records(single, [Record("a", "0", None, "other", "q", "Q", "reference", 1, 2)])
    with pytest.raises(UsageError, match=r"`figure` .*found digits, other.*`suite`"):
        report([results, single], **outputs)
    with pytest.raises(UsageError, match=r"`figure` .*nothing to draw"):
        report([single], **outputs)
    assert not any(path.exists() for path in outputs.values())


def test_a_suite_can_be_drawn_alone(results, tmp_path):
    """With --suite nothing of the other suites is on the page."""
    append_records(results, [Record("a + b", "0", 0.0, "other", "q", "QQQ", "reference", 1, 2)])
    both = report([results], output=tmp_path / "both.html")
    assert any("2 suites" in note for note in both.notes)
    alone = report([results], output=tmp_path / "alone.html", suite="digits")
    assert alone.notes == ()
    assert "QQQ" in (tmp_path / "both.html").read_text()
    assert "QQQ" not in (tmp_path / "alone.html").read_text()
    with pytest.raises(UsageError, match=r"cifar.*digits, other"):
        report([results], output=tmp_path / "r.html", suite="cifar")


def test_effective_robustness_is_relative_to_the_users_models(results, tmp_path):
    """The baseline is the line through the user's models on logit axes."""
    table = tmp_path / "models.csv"
    table.write_text("name,reference,e,reference:f,f\nA,70,70,70,70\nB,80,80,80,80\nC,90,90,90,90\n")
    report([results], output=tmp_path / "plain.html")
    report([results], output=tmp_path / "r.html", baseline=table)
    plain, drawn = ((tmp_path / name).read_text() for name in ("plain.html", "r.html"))
    assert "Effective robustness" in drawn
    assert "Effective robustness" not in plain
    # At alpha 0 the reference is 67.5 %, the shift "e" 57.5 %, and the line says 67.5 %: 10 points below it.
    assert "\u221210.0" in drawn or "-10.0" in drawn
    with pytest.raises(UsageError, match="one of logit, probit"):
        report([results], output=tmp_path / "r.html", baseline=table, axis="linear")
    with pytest.raises(ResultsError, match="cannot be read"):
        report([results], output=tmp_path / "r.html", baseline=tmp_path / "none.csv")


def test_a_shift_with_part_of_the_classes_needs_the_reference_on_these(tmp_path):
    """ImageNet-R needs a record of ImageNet on R's classes, and has no effective robustness without one."""
    path = tmp_path / "results.jsonl"
    sets = [("imagenet", "reference", 700), ("imagenet-r", "shift", 600)]
    append_records(path, [Record("m", "w", 0.5, "s", n, n, role, count, 1000) for n, role, count in sets])
    report([path], output=tmp_path / "plain.html")
    append_records(path, [Record("m", "w", 0.5, "s", "reference-of-imagenet-r", "R's", "companion", 900, 1000)])
    report([path], output=tmp_path / "r.html")
    plain, drawn = ((tmp_path / name).read_text() for name in ("plain.html", "r.html"))
    assert "Effective robustness" in drawn
    assert "Effective robustness" not in plain
    # beta(0.9) = sigmoid(0.6368 * logit(0.9) - 2.1077)
    expected = 60 - 100 / (1 + math.exp(-(0.6368 * math.log(9) - 2.1077)))
    assert f"{expected:.1f}" in drawn


def test_results_are_never_replaced(results, tmp_path):
    """No output replaces a results file, whatever name or link leads to it."""
    before = results.read_bytes()
    (tmp_path / "link").symlink_to(results)
    for other in ({"output": results}, {"output": tmp_path / "link"}, {"csv": results}):
        with pytest.raises(OutputError, match="would be replaced"):
            report([results], **{"output": tmp_path / "r.html", **other})
    with pytest.raises(UsageError, match="two outputs"):
        report([results], output=tmp_path / "x", latex=tmp_path / "x")
    assert results.read_bytes() == before


def test_an_output_that_cannot_be_written_is_an_error(results, tmp_path):
    """A missing folder and a folder in place of a file are errors, and earlier files stay."""
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError, match=r"r.html: the folder .*file does not exist. Create it first."):
        report([results], output=tmp_path / "file" / "r.html")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        report([results], output=tmp_path / "folder")
    assert (tmp_path / "file").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "results.jsonl"]


@pytest.mark.parametrize("option", ["output", "csv", "markdown", "latex", "table", "figure", "png", "svg", "pdf"])
def test_every_output_is_checked_before_anything_is_written(option, results, tmp_path):
    """A folder in place of a file, a file in place of a folder, or a missing folder: nothing else is written."""
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    wrong = tmp_path / ("file" if option in ("png", "svg", "pdf") else "folder")
    for path in (wrong, tmp_path / "missing" / "x"):
        with pytest.raises(OutputError, match=re.escape(str(path))):
            report([results], **{"output": tmp_path / "r.html", "csv": tmp_path / "r.csv", option: path})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "results.jsonl"]
    assert (tmp_path / "file").read_text() == "kept"


def test_no_records_leave_no_page(tmp_path):
    """Results files without a record are an error, and an earlier page stays."""
    (tmp_path / "r.jsonl").write_text("{}\n")
    (tmp_path / "r.html").write_text("earlier")
    with pytest.raises(ResultsError, match="no record found"):
        report([tmp_path / "r.jsonl"], output=tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text() == "earlier"


def test_bad_lines_are_noted_on_stderr_and_on_the_page(results, tmp_path, wise):
    """Skipped lines are noted on stderr and on the page, and the rest is drawn."""
    with results.open("a") as file:
        file.write('{"epoch": 1}\n{"model": "torn')
    done = wise("report", results, "-o", tmp_path / "r.html", "--markdown", tmp_path / "r.md")
    assert done.exit_code == 0
    for line, problem in ((16, "not a record of this tool"), (17, "incomplete")):
        assert re.search(f"note: results.jsonl: line {line} .*{problem}", done.stderr)
    assert "r.html" in done.stdout.replace("\n", "")
    page = (tmp_path / "r.html").read_text()
    assert "results.jsonl: line 16 " in page
    assert "results.jsonl: line 17 " in page


def test_a_missing_file_is_an_error(tmp_path, wise):
    """A missing results file ends the command with a sentence and exit code 1."""
    done = wise("report", tmp_path / "none.jsonl")
    assert done.exit_code == 1
    assert "results cannot be read: No such file or directory" in done.stderr.replace("\n", " ")


def test_no_model_is_loaded(results, tmp_path):
    """Neither torch nor open_clip is imported, and matplotlib only for plots."""
    probe = (
        "import sys, json; from mergekit_wise.api.report import write_report as report; "
        f"report([{str(results)!r}], output={str(tmp_path / 'r.html')!r}); print(json.dumps(list(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert not {"torch", "open_clip", "transformers", "matplotlib"} & set(json.loads(done.stdout))
