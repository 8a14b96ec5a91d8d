"""The compact LaTeX table, and both kinds of LaTeX tables in LaTeX itself."""

import re
import shutil
import subprocess

import pytest
from scipy.stats import binomtest

from mergekit_wise.report.exports import as_latex
from mergekit_wise.report.page_tables import results_table
from mergekit_wise.report.paper_table import paper_table
from mergekit_wise.report.summary import summarize

HOSTILE = r"[*=A|_b_ & 100% $x^2$ #{~} \input{/etc/passwd} <x> --limit é"
DOCUMENT = (
    "\\documentclass{article}\n\\usepackage[T1]{fontenc}\n\\usepackage[utf8]{inputenc}\n\\usepackage{booktabs}\n"
    "\\begin{document}\n%s\n\\end{document}\n"
)


@pytest.fixture
def summary_of(compared):
    """A function that returns the summary of a file with the given lines."""

    def build(content):
        ((comparison,), _) = compared(content)
        return summarize(comparison)

    return build


def many(lines, count):
    """A sweep on the reference and so many shifts."""
    return [
        *lines.sweep(names=("imagenet",)),
        *(
            {**each, "dataset": f"shift-{number}", "title": f"Long Shift{number}"}
            for number in range(count)
            for each in lines.sweep(names=("imagenet-sketch",))
        ),
    ]


def rows_of(tabular):
    """The cells of the lines of a tabular that hold numbers."""
    found = [line.removesuffix(r" \\").split(" & ") for line in tabular.splitlines() if line.endswith(r"\\")]
    return [row for row in found if len(row) > 1]


def require_structure(text):
    """Every environment is closed in order, braces are balanced, and each row has as many cells as columns."""
    opened = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert opened == []
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    tabulars = re.findall(r"\\begin\{tabular\}.*?\\end\{tabular\}", text, re.DOTALL)
    for tabular in tabulars:
        columns = len(re.search(r"\{@\{\}(l+r+)@\{\}\}", tabular)[1])
        rows = rows_of(tabular)
        assert rows
        assert {len(row) for row in rows} == {columns}
    return tabulars


def test_the_table_has_the_rows_and_columns_of_the_paper(summary_of, lines):
    """Rows are both models, alpha 0.5 and the recommended mixture, columns reference, shifts and their average."""
    entries = lines.sweep()
    summary = summary_of(entries)
    (tabular,) = require_structure(paper_table(summary))
    head, *rows = rows_of(tabular)
    assert head == ["", "IN", "IN-V2", "IN-Sketch", "IN-A", r"\shortstack[r]{Avg. \\ shifts}"]
    chosen = summary.recommendations[0].alpha
    names = ["Zero-shot", "Fine-tuned", r"WiSE-FT, $\alpha$ = 0.5"]
    if chosen == 0.5:
        names[2] += r"\dag{}"
    else:
        names.append(rf"WiSE-FT, $\alpha$ = {chosen:g}\dag{{}}")
    assert [row[0] for row in rows] == names
    shares = {(e["dataset"], e["alpha"]): e["correct"] / e["total"] for e in entries}
    for row, alpha in zip(rows, (0.0, 1.0, 0.5, chosen), strict=False):
        numbers = [float(re.sub(r"\\textbf\{(.*)\}", r"\1", cell)) for cell in row[1:]]
        expected = [100 * shares[name, alpha] for name in ("imagenet", "imagenet-v2", "imagenet-sketch", "imagenet-a")]
        assert numbers == pytest.approx([*expected, sum(expected[1:]) / 3], abs=0.05001)
    for column in range(1, 6):
        bold = [row[column].startswith(r"\textbf") for row in rows]
        numbers = [float(re.sub(r"\\textbf\{(.*)\}", r"\1", row[column])) for row in rows]
        assert bold == [number == max(numbers) for number in numbers]


def test_it_has_a_caption_and_a_label(summary_of, lines):
    """The caption says what is bold, which mixture is recommended, and how wide intervals are."""
    entries = lines.sweep((0.0, 0.5, 1.0))
    text = paper_table(summary_of(entries))
    assert r"\label{tab:wise-imagenet-shifts}" in text
    caption = re.search(r"\\caption\{(.*)\}\n", text)[1]
    assert "IN: ImageNet." in caption
    assert r"\dag{}: the recommended mixture" in caption
    half = float(re.search(r"at most \$\\pm\$ ([\d.]+) points", caption)[1])
    intervals = [binomtest(each["correct"], each["total"]).proportion_ci() for each in entries]
    assert half == pytest.approx(100 * max(each.high - each.low for each in intervals) / 2, abs=0.1)


@pytest.mark.parametrize("count", [1, 5, 12, 30])
def test_many_shifts_are_split_to_fit_the_text(summary_of, lines, count):
    """Each part has all rows and at most nine columns, one more or less than another; each shift is in one of them."""
    text = paper_table(summary_of(many(lines, count)))
    tabulars = require_structure(text)
    assert (len(tabulars) > 1) == (count > 5)
    assert len({len(rows_of(tabular)) for tabular in tabulars}) == 1
    widths = [len(rows_of(tabular)[0]) for tabular in tabulars]
    assert max(widths) <= 9
    assert max(widths) - min(widths) <= 1
    for number in range(count):
        assert len(re.findall(rf"Shift{number}\b", text)) == 1


def test_several_models_have_rows_of_their_own(summary_of, lines):
    """A model's name is above its rows, one of unknown alpha has one row, and the best of all models is bold."""
    summary = summary_of(
        [
            *lines.sweep((0.0, 0.5, 1.0), model="first"),
            *lines.sweep((0.0, 0.5, 1.0), model="second", loss=0.05),
            *lines.sweep([None], model="alone", loss=0.2),
        ]
    )
    (tabular,) = require_structure(paper_table(summary))
    assert tabular.index("first") < tabular.index("second") < tabular.index("alone")
    assert [row[0] for row in rows_of(tabular)].count("Zero-shot") == 2
    assert rows_of(tabular)[-1][0] == "alone"
    assert tabular.count("multicolumn{6}") == 2
    assert r"\textbf" not in tabular.partition("second")[2]


def test_another_parameter_has_its_own_name(summary_of, lines):
    """Of a sweep of another parameter there are no two models; the recommended point is shown by its value."""
    entries = [
        {**each, "alpha": None, "point": [["depth-first", each["alpha"]]]} for each in lines.sweep((0.0, 0.5, 1.0))
    ]
    (tabular,) = require_structure(paper_table(summary_of(entries)))
    assert [row[0] for row in rows_of(tabular)[1:]] == [r"WiSE-FT, depth-first = 0.5\dag{}"]


def hostile(lines):
    return [
        {**each, "title": HOSTILE, "model": model, "suite": HOSTILE}
        for model in (HOSTILE, "other")
        for each in lines.sweep([0, 0.5, 1], ("imagenet", "imagenet-v2"))
    ]


def test_names_are_escaped(summary_of, lines):
    """Names become no command, no comment, no column and no argument of the line before."""
    text = paper_table(summary_of(hostile(lines)))
    require_structure(text)
    assert r"\input" not in text
    for escaped in (r"{[}{*}=A\textbar{}\_b\_ \&", r"100\%", r"\$x\textasciicircum{}2\$", r"\#\{\textasciitilde{}\}"):
        assert escaped in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("case", ["sweep", "many", "hostile"])
def test_latex_compiles_both_tables_and_the_compact_one_fits(summary_of, lines, tmp_path, case):
    """pdflatex makes a PDF of each without an error; the compact table is not wider than the text."""
    content = {"sweep": lines.sweep(), "many": many(lines, 12), "hostile": hostile(lines)}[case]
    summary = summary_of(content)
    for name, body in (("wide", as_latex([results_table(summary)])), ("compact", paper_table(summary))):
        (tmp_path / f"{name}.tex").write_text(DOCUMENT % body, encoding="utf-8")
        words = ("pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", f"{name}.tex")
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, errors="replace")
        assert done.returncode == 0, done.stdout[-2000:]
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert name == "wide" or "Overfull \\hbox" not in done.stdout, done.stdout
