"""Folders as Hugging Face lays them out."""

import pytest

from mergekit_wise.checkpoint.folder import passed_over, side_files, weights_in, writing_folder
from mergekit_wise.errors import CheckpointError, OutputError


def filled(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(name)
    return folder


def test_the_usual_name_is_taken_before_others(tmp_path):
    """The index of shards before a whole file, safetensors before a pickle, a known name before any other."""
    folder = filled(tmp_path, "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "a.safetensors")
    for name in ("model.safetensors.index.json", "model.safetensors", "pytorch_model.bin", "a.safetensors"):
        assert weights_in(folder).name == name
        (folder / name).unlink()


@pytest.mark.parametrize(
    ("beside", "taken"),
    [
        (["config.json"], "model.safetensors"),
        (["config.json", "open_clip_config.json"], "open_clip_model.safetensors"),
        (["open_clip_config.json"], "open_clip_model.safetensors"),
        ([], "model.safetensors"),
    ],
    ids=str,
)
def test_of_several_weights_those_are_taken_that_a_configuration_describes(beside, taken, tmp_path):
    """open_clip's repositories hold transformers' weights, too, or timm's of the image tower alone."""
    folder = filled(tmp_path, "model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin", *beside)
    found = weights_in(folder)
    assert found.name == taken
    others = {"model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin"} - {taken}
    assert set(passed_over(folder, found)) == others
    for name in others:
        (folder / name).unlink()
    assert weights_in(folder) == found
    assert passed_over(folder, found) == []


def test_a_configuration_of_open_clips_asks_for_no_other_weights(tmp_path):
    """Where there are transformers' alone, they are converted."""
    assert weights_in(filled(tmp_path, "open_clip_config.json", "model.safetensors")).name == "model.safetensors"


def test_a_name_of_its_own_is_taken_if_it_is_the_only_one(tmp_path):
    """Of two nobody knows which; a folder is no file."""
    folder = filled(tmp_path / "one", "mine.safetensors", "notes.txt")
    (folder / "older.safetensors").mkdir()
    assert weights_in(folder).name == "mine.safetensors"
    filled(folder, "other.safetensors")
    with pytest.raises(CheckpointError, match="Name the checkpoint file in it"):
        weights_in(folder)


def test_what_goes_with_the_weights_is_all_but_weights(tmp_path):
    """Configuration and tokenizer; no weights of any framework, nothing hidden, no folder."""
    filled(tmp_path, "config.json", "merges.txt", "tokenizer.json", ".gitattributes")
    filled(tmp_path, "model.safetensors", "pytorch_model.bin", "tf_model.h5", "model.safetensors.index.json")
    (tmp_path / "onnx").mkdir()
    assert [path.name for path in side_files(tmp_path)] == ["config.json", "merges.txt", "tokenizer.json"]


@pytest.mark.parametrize("empty", [False, True], ids=["a new folder", "an empty folder"])
def test_a_folder_is_there_when_it_is_filled(empty, tmp_path):
    """With copies of what goes with it; until then nobody sees it."""
    source, output = filled(tmp_path / "source", "config.json"), tmp_path / "out"
    if empty:
        output.mkdir()
    with writing_folder(output, [source / "config.json"]) as folder:
        filled(folder, "model.safetensors")
        assert folder.parent == tmp_path
        assert not output.exists() or not list(output.iterdir())
    assert {path.name: path.read_text() for path in output.iterdir()} == {
        name: name for name in ("config.json", "model.safetensors")
    }
    assert {path.name for path in tmp_path.iterdir()} == {"source", "out"}


@pytest.mark.parametrize("failure", [KeyboardInterrupt, CheckpointError])
def test_on_any_failure_no_folder_is_left(failure, tmp_path):
    """Ctrl-C included."""
    with pytest.raises(failure), writing_folder(tmp_path / "out", []) as folder:
        filled(folder, "model.safetensors")
        raise failure
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("full", "exists already"),
        ("full/x", "exists already"),
        ("no/out", "does not exist. Create it"),
        ("n" * 250, "File name too long. Nothing was left behind"),
        ("n" * 300, "File name too long. Nothing was left behind"),
    ],
    ids=["a folder with files", "a file", "no parent", "too long with a suffix", "too long"],
)
def test_a_folder_that_cannot_be_made_is_told(output, message, tmp_path):
    """And what is there stays."""
    filled(tmp_path / "full", "x")
    with pytest.raises(OutputError, match=message), writing_folder(tmp_path / output, []):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "x"]


def test_a_file_beside_the_weights_that_cannot_be_copied_is_told(tmp_path):
    """Nothing is left behind."""
    with pytest.raises(OutputError, match="No such file"), writing_folder(tmp_path / "out", [tmp_path / "gone.json"]):
        pass
    assert not list(tmp_path.iterdir())
