"""The names that a report shows: without folders, and with labels; and the line that merges what is shown."""

import re
import shlex
from dataclasses import replace

import pytest

from mergekit_wise.api.report import write_report as report
from mergekit_wise.errors import UsageError
from mergekit_wise.report.comparison import compare
from mergekit_wise.report.figures import plot_figure
from mergekit_wise.report.folders import distinct, in_command, in_text, without_folders
from mergekit_wise.report.labels import labelled
from mergekit_wise.report.merge_line import merge_line
from mergekit_wise.report.paper_table import paper_table
from mergekit_wise.report.plots import scatter_plots
from mergekit_wise.report.summary import summarize
from mergekit_wise.report.warnings import warnings
from mergekit_wise.results import read_results
from tests.report.test_choices import chosen, with_choices


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/me/val", "val"),
        ("head of /home/me/heads/a.pt, 10 classes", "head of a.pt, 10 classes"),
        (r"C:\Users\me\val", "val"),
        ("~/data/birds", "birds"),
        ("images/s and 1/2", "images/s and 1/2"),
        ("hf-hub:me/model", "hf-hub:me/model"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("runs/a/zs.pt", "runs/a/zs.pt"),
    ],
)
def test_absolute_paths_lose_their_folders_and_nothing_else(text, shown):
    """What is no absolute path stays: relative paths, addresses, units and fractions."""
    assert in_text(text) == shown


def test_paths_that_end_alike_stay_apart():
    """As many parts of a path are kept as tell two of them apart."""
    assert distinct(["/a/x/val", "/a/y/val", "train"]) == {"/a/x/val": "x/val", "/a/y/val": "y/val", "train": "train"}
    line = in_command("wise merge /runs/zs/model.pt '/runs/my ft/model.pt' --alpha 0.5 -o /tmp/m.pt")
    assert shlex.split(line)[2:4] == ["zs/model.pt", "my ft/model.pt"]


def test_a_file_cannot_become_an_option_or_a_second_command():
    """A hostile name whose folder is taken off is still one word, and no option."""
    words = shlex.split(in_command("wise merge '/x/&&' '/x/--force' 'a;b' -o m.pt"))
    assert words == ["wise", "merge", "./&&", "./--force", "a;b", "-o", "m.pt"]


def test_no_output_names_a_folder(tmp_path, lines):
    """Wherever a path may be in a record, every output of the report has its last part alone."""
    home = "/home/me/secret"
    entries = lines.sweep(
        suite=f"{home}/suite", rule=f"--fisher {home}/a.st {home}/b.st", head=f"{home}/head.pt, 10 classes",
        evaluator=f"python {home}/eval.py {{file}}", note=f"see {home}/notes.txt",
    )  # fmt: skip
    entries = [{**each, "dataset": f"{home}/{each['dataset']}", "title": f"{home}/{each['title']}"} for each in entries]
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    paths = [lines.write(tmp_path / name / "r.jsonl", [*entries, "no JSON"]) for name in ("one", "two")]
    outputs = {kind: tmp_path / f"out.{kind}" for kind in ("csv", "markdown", "latex")}
    made = report(paths, output=tmp_path / "r.html", **outputs)
    for path in made.files:
        text = path.read_text(encoding="utf-8")
        assert "secret" not in text, path
        assert str(tmp_path) not in text, path
        assert "imagenet-a" in text.lower()
    assert any(note.startswith("one/r.jsonl: line ") for note in made.notes)


def test_a_suite_is_chosen_by_the_name_that_is_shown(tmp_path, lines):
    """--suite takes the name without folders as well as the whole one."""
    path = lines.write(tmp_path / "r.jsonl", [*lines.sweep(suite="/home/me/mine"), *lines.sweep(suite="other")])
    for suite in ("mine", "/home/me/mine"):
        report(path, output=tmp_path / "r.html", suite=suite)
        assert '<h2 id="s0">mine</h2>' in (tmp_path / "r.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("digits,runs/birds.toml", ["digits,birds"]),  # as a sweep over both was called
        (["digits", "birds"], ["digits,birds"]),
        ("flowers.toml, digits", ["digits", "flowers (reference val)"]),
        ("flowers (reference val)", ["flowers (reference val)"]),
        ("digits", ["digits"]),
    ],
)
def test_suites_have_the_names_that_were_measured_with(tmp_path, lines, wanted, found):
    """What a sweep was given as --suite selects its records in a report, whether it was over one suite or several."""
    suites = ("digits", "digits,birds", "flowers (reference val)", "other")
    path = lines.write(tmp_path / "r.jsonl", [each for suite in suites for each in lines.sweep([0, 1], suite=suite)])
    report(path, output=tmp_path / "r.html", suite=wanted)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert re.findall(r'<h2 id="s\d">(.*?)</h2>', page) == found
    with pytest.raises(UsageError, match="no record belongs to it"):
        report(path, output=tmp_path / "r.html", suite="birds")


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("zeroshot", "expected NAME=TEXT"),
        ("=CLIP", "expected NAME=TEXT"),
        ("zeroshot= ", "expected NAME=TEXT"),
        ("zeroshot=" + "x" * 81, "at most 80"),
        (["zeroshot=A", "zeroshot=B"], "two labels"),
        (["zeroshot=A", "finetuned=A"], "two names"),
        ("imagnet-a=Hard", "Did you mean 'imagenet-a'"),
        ("imagenet-a=ImageNet", "another data set"),
    ],
)
def test_a_label_that_cannot_be_meant_is_refused(tmp_path, results, label, reason):
    """Before anything is written: no text, no such name, or a name that something else has."""
    with pytest.raises(UsageError, match=reason):
        report(results, output=tmp_path / "r.html", label=label)
    assert not (tmp_path / "r.html").exists()


def test_the_two_models_have_labels_only_in_a_sweep(tmp_path, lines):
    """Results of a single model have no zero-shot model that a label could be for."""
    path = lines.write(tmp_path / "r.jsonl", lines.sweep([None], model="ft.pt"))
    with pytest.raises(UsageError, match="no sweep of alpha"):
        report(path, output=tmp_path / "r.html", label="zeroshot=CLIP")
    report(path, output=tmp_path / "r.html", label="ft.pt=Mine")
    assert "<h4>Mine</h4>" not in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Mine: files, digests" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_labels_never_join_two_models(tmp_path, lines):
    """Two pairs of one file that would have the same name keep those of their files behind it."""
    entries = [*lines.sweep(), *lines.sweep(model="zs.pt + other.pt", loss=0.1)]
    path = lines.write(tmp_path / "r.jsonl", entries)
    report(path, output=tmp_path / "r.html", label=["zeroshot=CLIP", "finetuned=Mine"], csv=tmp_path / "r.csv")
    models = {line.split(",")[1] for line in (tmp_path / "r.csv").read_text().splitlines()[1:]}
    assert models == {"CLIP + Mine (zs.pt + ft.pt)", "CLIP + Mine (zs.pt + other.pt)"}


def test_labels_reach_figures_tables_and_caveats(tmp_path, lines):
    """The two models have their labels in legends and in the paper's table as they are typed, a gap in a caveat."""
    kept = [each for each in lines.sweep() if (each["alpha"], each["dataset"]) != (0.3, "imagenet-a")]
    reading = read_results([lines.write(tmp_path / "r.jsonl", kept)])
    found = labelled(reading, {"zeroshot": "CLIP", "finetuned": "mine", "imagenet-a": "Hard"})
    (comparison,) = compare(found.reading, ends=found.ends)
    texts = [text.get_text() for text in plot_figure(scatter_plots(comparison)[0]).legends[0].get_texts()]
    assert {"CLIP (α = 0)", "mine (α = 1)"} < set(texts)
    rows = re.findall(r"^(\w[^&]*) & [\d\\]", paper_table(summarize(comparison)), re.MULTILINE)
    assert rows[:2] == ["CLIP", "mine"]
    assert any("alpha 0.3 on Hard" in warning for warning in warnings(found.reading, [comparison]))


def test_images_without_labels_have_a_name_to_show(tmp_path, lines):
    """A set that was estimated on, which no record is about, has its label in the page, and so have both models."""
    shares = {name: [0.6, 0.7] for name in ("atc", "doc", "ac", "low", "high", "entropy")}
    entry = {
        **dict.fromkeys(("pair", "rule"), ""), "kind": "estimate", "model": "zs.pt + ft.pt",
        "suite": "imagenet-shifts", "dataset": "field", "title": "field", "role": "unlabelled", "reference": "imagenet",
        "images": 9, "limit": None, "seed": None, "accuracy": [],
        "points": [[["alpha", 0.0]], [["alpha", 1.0]]], **shares,
    }  # fmt: skip
    path = lines.write(tmp_path / "r.jsonl", [*lines.sweep(), entry])
    report(path, output=tmp_path / "r.html", label=["field=Photos of 2026", "zeroshot=CLIP", "imagenet=The reference"])
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    section = page[page.index("Accuracy estimated without labels") :]
    assert "<h4>Photos of 2026</h4>" in section
    assert "the labels of The reference" in section
    assert "α = 0 (CLIP): Photos of 2026 60.0 %" in section


def test_a_choice_is_still_found_under_labels(tmp_path, lines):
    """The recommendation, the analysis and the command belong to the same results under other names."""
    path = with_choices(tmp_path / "r.jsonl", lines, chosen(0.9))
    report(path, output=tmp_path / "r.html", label=["zeroshot=CLIP", "imagenet-shifts=My suite", "imagenet-a=Hard"])
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "because of 0.9" in page
    assert '<h2 id="s0">My suite</h2>' in page
    assert "wise merge zs.pt ft.pt" in page


@pytest.mark.parametrize(
    ("entries", "line"),
    [
        ({}, "wise merge zs.pt ft.pt --alpha 0.3 -o merged-0.3.safetensors"),
        ({"rule": "--keep 'zs:a b'"}, "wise merge zs.pt ft.pt --keep 'zs:a b' --alpha 0.3 -o merged-0.3.safetensors"),
        (
            {"model": "my model.pt + my model.pt"},
            "wise merge 'zeroshot/my model.pt' 'finetuned/my model.pt' --alpha 0.3 -o merged-0.3.safetensors",
        ),
        ({"model": "zeroshot (Module in memory) + finetuned (Module in memory)"}, None),
        ({"model": "zs.pt + soup of 2: a.pt, b.pt"}, None),
        ({"model": "one.pt"}, None),
        ({"rule": "--keep 'open"}, None),
    ],
)
def test_without_a_choice_the_line_is_made_of_the_names_in_the_records(compared, lines, entries, line):
    """It has the files' names, quoted, and the rules; there is none for what no file holds."""
    (comparison,), _ = compared(lines.sweep(**entries))
    found = merge_line(comparison.curves[0])
    assert (None if found is None else found.at("0.3")) == line


def test_the_line_of_a_choice_keeps_all_but_alpha_and_the_output(compared, tmp_path, lines):
    """Options, the command before it and the kind of file stay; alphas outside of 0 and 1 are allowed by their flag."""
    path = with_choices(tmp_path / "r.jsonl", lines, chosen(0.9))
    reading = without_folders(read_results([path]))
    typed = "wise zeroshot /m/c.pt head.pt && wise merge head.pt /m/ft.pt -o /m/o.pt --alpha 0.9 --keep zs:x"
    (written,) = reading.choices
    (comparison,), _ = compared(lines.sweep([0, 1, 1.5]))
    curve = replace(comparison.curves[0], choice=replace(written, merge_command=in_command(typed)))
    found = merge_line(curve)
    assert found is not None
    assert found.at("1.5") == (
        "wise zeroshot c.pt head.pt && wise merge head.pt ft.pt --keep zs:x --extrapolate --alpha 1.5 -o merged-1.5.pt"
    )
