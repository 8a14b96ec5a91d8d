"""`wise init` writes a first wise.toml from the file names in a folder."""

import tomllib

import pytest
from PIL import Image

from mergekit_wise.config import faults


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WISE_DATA", raising=False)
    return tmp_path


def images(folder):
    """Two class folders with an image each."""
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (2, 2)).save(folder / name / "0.png")


def test_checkpoints_and_folders_of_images_are_found(folder, wise):
    """Checkpoints are recognised by name, outputs are left out, and folders of images become the suite."""
    for name in ("zs.pt", "ft.safetensors", "merged.safetensors", "notes.txt"):
        (folder / name).touch()
    images(folder / "birds" / "test")
    images(folder / "birds" / "train")
    images(folder / "sketches")
    assert wise("init").exit_code == 0
    content = tomllib.loads((folder / "wise.toml").read_text())
    assert (content["zeroshot"], content["finetuned"]) == ("zs.pt", "ft.safetensors")
    assert content["suite"] == ["birds/test", "sketches"]
    assert content["merge"]["output"] == "merged.safetensors"
    assert list(faults(content)) == []


def test_unclear_checkpoints_are_listed_in_a_comment(folder, wise):
    """Three files of unclear names are listed in a comment, and the file is still valid."""
    for name in ("a.pt", "b.pt", "c.pt"):
        (folder / name).touch()
    assert wise("init").exit_code == 0
    text = (folder / "wise.toml").read_text()
    assert "a.pt, b.pt, c.pt" in text
    assert "zeroshot" not in tomllib.loads(text)
    assert "ZEROSHOT" in wise("merge", "-o", "out").stderr


def test_an_existing_file_is_replaced_only_with_force(folder, wise):
    """Without the option the file stays as it is, and the message names the option."""
    (folder / "wise.toml").write_text("alpha = 0.25\n")
    done = wise("--no-config", "init")
    assert done.exit_code == 2
    assert "--force" in done.stderr
    assert (folder / "wise.toml").read_text() == "alpha = 0.25\n"
    assert wise("init", "--force").exit_code == 0
    assert "alpha = 0.25\n" not in (folder / "wise.toml").read_text()


def test_a_merge_runs_from_the_written_file(folder, wise, pair):
    """A merge runs without arguments once the written file names both checkpoints."""
    pair[0].rename(folder / "zeroshot.pt")
    pair[1].rename(folder / "finetuned.safetensors")
    assert wise("init").exit_code == 0
    done = wise("merge")
    assert done.exit_code == 0, done.stderr
    assert (folder / "merged.safetensors").exists()
