"""Disks, the cache, data sets and settings of made-up environments."""

import os
from pathlib import Path

import pytest

from mergekit_wise.cache import Cache
from mergekit_wise.diagnosis.folders import data_folder, data_sets, folders
from mergekit_wise.diagnosis.settings import settings


def found(section):
    return {finding.name: finding for finding in section.findings}


def test_a_full_cache_is_a_note(monkeypatch):
    """What the cache holds is compared with its limit; if it is full, the command that empties it is given."""
    monkeypatch.setenv("WISE_CACHE_LIMIT", "10kB")
    assert found(folders(None))["kept in it"].value.startswith("0 entries, 0 bytes of 10 kB")
    with Cache.open().storing("heads", "a") as path:
        path.write_bytes(bytes(9_900))
    finding = found(folders(None))["kept in it"]
    assert finding.value == "1 entry, 9.9 kB of 10 kB"
    assert (finding.level, finding.command) == ("note", "wise cache clear")


def test_a_limit_that_is_no_size_is_a_problem(monkeypatch):
    """A wrong WISE_CACHE_LIMIT is a problem and no exception."""
    monkeypatch.setenv("WISE_CACHE_LIMIT", "plenty")
    finding = found(folders(None))["cache"]
    assert finding.level == "problem"
    assert "WISE_CACHE_LIMIT plenty" in finding.text


def test_a_nearly_full_disk_is_a_problem(monkeypatch, tmp_path):
    """A disk with less room than a large checkpoint takes is marked, in each folder that is on it."""
    monkeypatch.setattr("mergekit_wise.diagnosis.folders.free_bytes", lambda folder: 10**9)
    names = found(folders(tmp_path, tmp_path / "downloads"))
    for name in ("working folder", "cache", "downloads", "data folder"):
        assert (names[name].level, "1 GB free" in names[name].value) == ("problem", True)


def test_a_folder_that_cannot_be_written_is_a_problem(monkeypatch):
    """What does not exist yet is asked of the folder in which it would be created."""
    monkeypatch.setattr("os.access", lambda path, mode: False)
    names = found(folders(None))
    assert names["working folder"].level == names["cache"].level == "problem"
    assert "WISE_CACHE" in names["cache"].text


def test_a_downloads_folder_is_named_if_it_does_not_exist_yet(tmp_path):
    """The room is that of the disk on which it would be created."""
    assert "not created yet" in found(folders(None, tmp_path / "a" / "b"))["downloads"].value


def test_suites_are_found_by_their_folders(tmp_path):
    """Each suite has the number of its data sets with a folder; nothing in the folders is listed or opened."""
    for name in ("imagenet-r", "imagenet-a"):
        (tmp_path / name).mkdir()
    names = found(data_sets(tmp_path))
    assert names["imagenet-shifts"].value == "2 of 6 data sets"
    assert names["digits"].value.endswith("data sets")  # comes with a package
    assert "pacs" in names["not found"].value.split(", ")
    assert "wise suites" in names["not found"].value


@pytest.mark.parametrize(("root", "level"), [(None, "note"), (Path("nowhere"), "problem")])
def test_a_missing_data_folder_is_named(root, level):
    """Without a data folder the built-in data sets are there; a folder that does not exist is a problem."""
    names = found(data_sets(root))
    assert names["data folder"].level == level
    assert {"digits", "data folder", "not found"} <= names.keys()


def test_the_data_folder_is_the_one_that_commands_use():
    """A folder that is given comes before WISE_DATA."""
    assert data_folder(Path("a"), {"WISE_DATA": "b"}) == Path("a")
    assert data_folder(None, {"WISE_DATA": "b"}) == Path("b")
    assert data_folder(None, {}) is None


@pytest.mark.parametrize(
    ("text", "level", "part"),
    [
        ("alpha = 0.4\n", "", "gives alpha"),
        ("alpa = 0.4\n", "problem", "alpa"),
        ("alpha =", "problem", "is not TOML"),
        (None, "", "none"),
    ],
)
def test_the_configuration_file_is_checked(text, level, part, tmp_path):
    """A file with an unknown key, or that is no TOML, is a problem, because it stops every command in its folder."""
    if text is not None:
        (tmp_path / "wise.toml").write_text(text)
    finding = found(settings(tmp_path, {}))["wise.toml"]
    assert (finding.level, part in finding.value + finding.text) == (level, True)


def test_variables_that_are_secrets_are_not_shown(tmp_path):
    """Known variables are shown, with short paths; a token is none of them."""
    home = os.path.expanduser("~")
    shown = found(settings(tmp_path, {"WISE_DATA": f"{home}/data", "HF_TOKEN": "hf_secret", "PATH": "/bin"}))
    assert shown["WISE_DATA"].value == "~/data"
    assert shown.keys() == {"wise.toml", "WISE_DATA"}
