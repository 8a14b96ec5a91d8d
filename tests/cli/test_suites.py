"""``wise suites`` lists every data set and suite, how many images were found, and how to get the rest."""

import json

import pytest
from PIL import Image

from mergekit_wise.cli.console import Stream
from mergekit_wise.datasets.catalog import ENTRIES, SUITES


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data folder with one file of ImageNet-R, and with an ImageNet-A whose class folder has a wrong name."""
    monkeypatch.delenv("WISE_DATA", raising=False)
    (tmp_path / "imagenet-r" / "n01443537").mkdir(parents=True)
    (tmp_path / "imagenet-r" / "n01443537" / "0.jpg").write_bytes(b"not an image")
    (tmp_path / "imagenet-a" / "cat").mkdir(parents=True)
    Image.new("RGB", (2, 2)).save(tmp_path / "imagenet-a" / "cat" / "0.jpg")
    return tmp_path


def test_every_data_set_and_every_suite_is_listed(wise, root):
    """Each has its number of images and location, its problem, or a hint; images are counted, not decoded."""
    done = wise("suites", "--data", root, "--json")
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    sets = {entry["name"]: entry for entry in result["data_sets"]}
    assert list(sets) == list(ENTRIES)
    assert result["root"] == str(root)
    found = sets["imagenet-r"]
    assert (found["images"], found["expected"], found["complete"], found["location"]) == (
        1,
        30_000,
        False,
        "imagenet-r",
    )
    missing = sets["imagenet-sketch"]
    assert (missing["images"], missing["location"], missing["problem"]) == (None, None, None)
    assert "sketch" in missing["places"]
    assert missing["hint"] == ENTRIES["imagenet-sketch"].hint
    assert "1 other folder among 1: 'cat'" in sets["imagenet-a"]["problem"]
    assert sets["digits"]["complete"]
    suites = {entry["name"]: entry for entry in result["suites"]}
    assert suites.keys() == SUITES.keys()
    assert (suites["imagenet-shifts"]["found"], len(suites["imagenet-shifts"]["data_sets"])) == (1, 6)
    assert suites["digits"]["found"] == 8


def test_every_data_set_has_a_line(wise, root):
    """Data sets are listed as found, damaged or missing; the 75 of ImageNet-C share one line."""
    done = wise("suites", "--data", root)
    assert done.exit_code == 0, done.stderr
    found, damaged, missing, suites = (part.splitlines() for part in done.stdout.split("\n\n"))
    assert found[0] == f"Data sets under {root}"
    assert found[2].split() == ["imagenet-r", "1", "of", "30,000", "imagenet-r"]
    assert [line.split()[0] for line in found[3:]] == [name for name in ENTRIES if name.startswith("digits")]
    assert damaged[0] == "Damaged"
    assert damaged[1].startswith(f"imagenet-a: {root}/imagenet-a: expected class folders")
    there = ("imagenet-r", "imagenet-a")
    names = [name for name in ENTRIES if name not in there and not name.startswith(("digits", "imagenet-c-"))]
    listed = [name for line in missing[1:] for name in line.split(": ")[0].split(", ")]
    assert sorted(listed) == sorted([*names, "imagenet-c (75)"])
    assert len({line.split(": ", 1)[1] for line in missing[1:]}) == len(missing) - 1
    assert f"imagenet-sketch: {ENTRIES['imagenet-sketch'].hint}" in missing
    assert {line.split()[0] for line in suites[1:]} == SUITES.keys()
    assert next(line for line in suites if line.startswith("imagenet-shifts")).split()[1:4] == ["1", "of", "6"]


def test_on_a_terminal_it_fits_eighty_columns(wise, root, monkeypatch):
    """Only a path that is too long by itself exceeds the width of the terminal."""
    monkeypatch.setattr(Stream, "on_screen", True)
    monkeypatch.setenv("COLUMNS", "80")
    lines = wise("suites", "--data", root).stdout.splitlines()
    assert len(lines) > 40
    assert not [line for line in lines if len(line.rstrip()) > 80 and str(root) not in line]


def test_the_variable_names_the_data_folder(wise, root, monkeypatch):
    """Without --data and WISE_DATA there is no data folder, and the message names both."""
    assert json.loads(wise("suites", "--json").stdout)["root"] is None
    assert {"--data", "WISE_DATA."} <= set(wise("suites").stderr.split())
    monkeypatch.setenv("WISE_DATA", str(root))
    assert json.loads(wise("suites", "--json").stdout)["root"] == str(root)


def test_a_data_folder_that_does_not_exist_is_refused(wise, root):
    """The command exits with code 1 and an error that names the option, without a traceback."""
    done = wise("suites", "--data", root / "nowhere")
    assert done.exit_code == 1
    assert f"--data {root}/nowhere" in done.stderr
    assert "Traceback" not in done.stderr
