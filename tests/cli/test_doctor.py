"""`wise doctor` says what it finds, and ends with 1 only if the tool cannot be used."""

import json
import os
import subprocess
import sys

import pytest

import mergekit_wise
from mergekit_wise.api.doctor import DoctorReport, guarded
from mergekit_wise.cli.doctor import _wrapped
from mergekit_wise.diagnosis.finding import Finding, Section
from mergekit_wise.diagnosis.packages import COMPILED

TITLES = [
    *("Versions", "Compiled modules", "Optional packages", "Processor and memory", "Terminal", "Settings"),
    *("Folders", "Data sets", "Hugging Face hub", "Devices"),
]

ORDER = """
import sys
from mergekit_wise.api.doctor import examine
from mergekit_wise.options import DoctorOptions
for section in examine(DoctorOptions()):
    print(section.title, *{"torch", "numpy", "huggingface_hub"} & set(sys.modules), sep=",", flush=True)
    if section.title == "Hugging Face hub":
        break
"""


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """An empty working folder without a data folder; nobody is asked."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.delenv("WISE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


def test_every_section_is_printed(wise, offline):
    """The sections come in their order, and the last line names the command for a bug report."""
    done = wise("doctor")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert [line for line in lines if line and not line.startswith(" ")][: len(TITLES)] == TITLES
    assert f"mergekit_wise     {mergekit_wise.__version__}" in done.stdout
    assert "wise doctor --json" in lines[-1]
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[sweep\n", "wise.toml is not TOML"),
        ("suit = 1\nbatchsize = 2\n", "Did you mean 'suite'? (and 1 more)"),
        ('[sweep]\nbatch-size = "x"\n', "[sweep] batch-size = x"),
    ],
)
def test_a_broken_file_is_what_it_reports(wise, offline, tmp_path, text, found):
    """The command that looks for faults runs beside a wise.toml that stops all others, and says what is wrong in it."""
    (tmp_path / "wise.toml").write_text(text)
    assert wise("suites").exit_code == 2
    done = wise("doctor", "--json")
    assert done.exit_code == 0, done.stderr
    (finding,) = [f for s in json.loads(done.stdout)["sections"] for f in s["findings"] if f["name"] == "wise.toml"]
    assert finding["level"] == "problem"
    assert found in finding["text"]


def test_json_and_python_give_the_same(wise, offline):
    """`--json` prints what the Python function returns; each row of its table is a finding."""
    done = wise("doctor", "--json")
    found = json.loads(done.stdout)
    assert [section["title"] for section in found["sections"]] == TITLES
    report = mergekit_wise.doctor()
    assert (report.usable, len(report.problems)) == (found["usable"], found["problems"])
    assert len(report.to_frame()) == sum(len(section["findings"]) for section in found["sections"])


def test_what_names_the_data_folder_is_said(wise, offline, monkeypatch, tmp_path):
    """The report names the source of the data folder: the option or the environment variable."""
    assert f"{tmp_path} (from --data)" in wise("doctor", "--data", tmp_path).stdout
    monkeypatch.setenv("WISE_DATA", str(tmp_path))
    assert f"{tmp_path} (from WISE_DATA)" in wise("doctor").stdout


def test_a_command_is_not_broken():
    """In a narrow terminal a command has a line of its own, so that it can be copied."""
    finding = Finding("s3fs", "not installed; for something", command="pip install s3fs")
    narrow, wide = (list(_wrapped(finding, width)) for width in (50, 80))
    assert [line.strip() for line in narrow[1:]] == ["pip install s3fs"]
    assert len(wide) == 1


def test_problems_have_a_word_and_a_command(wise, offline, monkeypatch):
    """Without a compiled module the tool can be used: a problem, what follows from it, and what fixes it."""
    module = next(iter(COMPILED))
    monkeypatch.setitem(sys.modules, module, None)
    done = wise("doctor")
    assert done.exit_code == 0
    assert f"    problem: {COMPILED[module][1]}.\n    pip install --force-reinstall" in done.stdout
    assert "1 problem: merging." in done.stdout or "problems: merging" in done.stdout


def test_an_unusable_tool_ends_with_1(wise, offline, monkeypatch):
    """A required package that is not installed is an error."""
    monkeypatch.setattr("mergekit_wise.diagnosis.packages.requirements", lambda: ["no_such_package>=3"])
    done = wise("doctor")
    assert done.exit_code == 1
    assert "    error: wise needs it.\n    pip install 'no_such_package>=3'" in done.stdout
    assert not json.loads(wise("doctor", "--json").stdout)["usable"]


def test_what_cannot_be_examined_ends_nothing():
    """A broken package or a removed working folder becomes a finding of its section."""

    def broken():
        raise ImportError("libfoo.so: cannot open shared object file")

    def removed():
        raise FileNotFoundError(2, "No such file or directory")

    report = DoctorReport((guarded("Devices", broken), guarded("Folders", removed), Section("Fine", (Finding("a"),))))
    assert [problem.level for problem in report.problems] == ["error", "problem"]
    assert not report.usable
    assert "2 problems" in repr(report)


def test_what_is_slow_comes_last(tmp_path):
    """No library is imported before the first sections are shown, and torch for none but the devices."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ORDER], capture_output=True, text=True, check=True, env=environment, cwd=tmp_path
    )
    rows = [line.split(",") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == TITLES[:-1]
    assert [row[1:] for row in rows[:5]] == [[]] * 5
    assert not any("torch" in row[1:] for row in rows)
