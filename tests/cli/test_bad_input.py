"""Bad input: one clear error message, the right exit code, no traceback, and no file left behind."""

import errno
import os

import pytest
import torch
from safetensors.torch import save_file


@pytest.fixture
def refused(wise, tmp_path):
    """Run `wise merge` with an earlier output in place, check that it fails cleanly, and return its message."""
    output = tmp_path / "out.safetensors"
    output.write_text("earlier")

    def run(zeroshot, finetuned, *options, out=output, code=1):
        before = sorted(path.name for path in tmp_path.iterdir())
        result = wise("merge", zeroshot, finetuned, "-o", out, *options)
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        assert result.stdout == ""
        assert output.read_text() == "earlier"
        assert sorted(path.name for path in tmp_path.iterdir()) == before
        return " ".join(result.stderr.split())

    return run


def test_a_missing_file_is_named(refused, pair, tmp_path):
    """The error names the path of the missing file."""
    assert f"{tmp_path / 'nope'}: " in refused(pair[0], tmp_path / "nope")


def test_an_empty_file_is_refused(refused, pair, tmp_path):
    """An empty file is refused with its size, as it is often a download that never began."""
    (tmp_path / "empty").touch()
    assert "0 bytes" in refused(pair[0], tmp_path / "empty")


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("kept", [0.5, 0.999])
def test_a_truncated_file_is_refused(side, kept, refused, pair, tmp_path):
    """A file of either format that was cut off early or late is refused with advice to download it again."""
    content = pair[side].read_bytes()
    (tmp_path / "cut").write_bytes(content[: int(len(content) * kept)])
    assert "opy or download it again" in refused(pair[1 - side], tmp_path / "cut")


def test_a_file_of_another_format_is_refused(refused, pair, tmp_path):
    """A file's format is detected from its content, so an HTML page with another extension is refused."""
    (tmp_path / "page.safetensors").write_text("<!DOCTYPE html>")
    assert "a web page" in refused(pair[0], tmp_path / "page.safetensors")


def test_all_names_and_shapes_that_differ_are_listed(refused, pair, states, tmp_path):
    """One error lists the names on either side and all shapes that differ."""
    changed = {**states[1], "layer.0.weight": torch.zeros(2, 2), "extra": torch.zeros(1)}
    del changed["scale"]
    save_file(changed, tmp_path / "other")
    message = refused(pair[0], tmp_path / "other")
    for part in ("only in zs.pt (1): scale", "only in other (1): extra", "layer.0.weight: [64, 33] and [2, 2]"):
        assert part in message


@pytest.mark.parametrize("alpha", ["1.5", "-0.1", "nan", "inf"])
def test_an_alpha_outside_0_and_1_is_refused(alpha, refused, pair):
    """An alpha outside [0, 1] is a usage error with exit code 2 that shows the option and its value."""
    message = refused(*pair, "--alpha", alpha, code=2)
    assert message.startswith(f"error: --alpha {alpha}: ")


def test_an_alpha_that_is_not_a_number_is_refused(refused, pair):
    """An alpha that is not a number is a usage error that names the option."""
    assert "--alpha" in refused(*pair, "--alpha", "half", code=2)


def test_a_disk_that_becomes_full_is_reported(refused, pair, monkeypatch):
    """A disk that becomes full during writing is reported, and no partial file stays."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    assert "No space left on device" in refused(*pair)


def test_too_little_space_is_seen_before_writing(refused, pair, monkeypatch):
    """Too little free space is an error before anything is written, with the number of free bytes."""
    monkeypatch.setattr("mergekit_wise.checkpoint.writing.free_bytes", lambda _: 100)
    assert "only 100 " in refused(*pair)


def test_an_output_in_a_missing_folder_is_refused(refused, pair, tmp_path):
    """An output in a missing folder is refused, and the folder is not created."""
    assert f"{tmp_path / 'new'} does not exist" in refused(*pair, out=tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("side", [0, 1])
def test_an_output_that_is_an_input_is_refused(side, refused, pair):
    """An output that is one of the inputs is refused, and the input stays unchanged."""
    before = pair[side].read_bytes()
    assert "one of the inputs" in refused(*pair, out=pair[side])
    assert pair[side].read_bytes() == before


def test_a_device_that_does_not_exist_is_refused(refused, pair):
    """A device that does not exist is a usage error that names an available one."""
    assert "--device cpu" in refused(*pair, "--device", "cuda:99", code=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("inspect", "nope"), "nope: "),
        (("diff", "nope", "nope"), "nope: "),
        (("eval", "nope"), "nope: "),
        (("sweep", "nope", "nope", "--suite", "digits"), "nope: "),
        (("sweep", "nope", "nope"), "--suite"),
        (("sweep", "nope", "nope", "--suite", "digits", "--plot", "x.txt"), ".png"),
        (("sweep", "nope", "nope", "--suite", "digits", "--plot", "none/x.png"), "does not exist"),
        (("merge", "nope", "nope", "-o", "none/x", "--dry-run"), "does not exist"),
        (("zeroshot", "nope", "-o", "none/x"), "does not exist"),
        (("finetune", "nope", "--train", "digits", "-o", "none/x"), "does not exist"),
        (("finetune", "nope", "--train", "digits", "-o", "x", "--log", "none/x"), "does not exist"),
        (("report", "nope", "-o", "none/x"), "does not exist"),
        (("report", "nope", "--csv", "none/x"), "does not exist"),
        (("report", "nope", "--png", "none/x"), "does not exist"),
        (("merge", "", "nope", "-o", "out"), "empty"),
        (("sweep", "nope", "nope", "--suite", "digits", "--alphas", "0:1"), "--alphas 0:1:"),
        (("sweep", "nope", "nope", "--suite", "digits", "--alphas", "0:2:1"), "--alphas 0:2:1: "),
        (("sweep", "nope", "nope", "--save", "{alpha}", "--alphas", "0,2"), "--alphas 0,2: "),
        (("sweep", "nope", "nope", "--save", "x"), "--save x: "),
        (("sweep", "nope", "nope", "--suite", "digits", "--select-on", "x"), "--select-on x: "),
        (("merge", "nope", "nope", "-o", "x", "--alpha-for", "v.*=2"), "--alpha-for v.*=2: "),
        (("merge", "nope", "nope", "-o", "x", "--depth-alpha", "0:2"), "--depth-alpha 0:2: "),
        (("merge", "nope", "nope", "-o", "x", "--alpha", "nan", "--extrapolate"), "--alpha nan: "),
        (("merge", "nope", "nope", "-o", "x", "--memory", "0"), "--memory 0: "),
        (("finetune", "nope", "--train", "digits", "-o", "x", "--lr", "inf"), "--lr inf: expected a finite number"),
        (("finetune", "nope", "--train", "digits", "-o", "x", "--seed", 2**63), f"--seed {2**63}: expected at least 0"),
        (("demo", "x", "--seed", "-1"), "--seed -1: expected at least 0"),
        (("report", "nope", "--axis", "x"), "--axis x: expected one of logit, probit"),
    ],
)
def test_every_command_reports_bad_input_in_the_same_way(words, message, wise, tmp_path, monkeypatch):
    """Every command reports bad input with the option or the file, without a traceback, and writes nothing."""
    monkeypatch.chdir(tmp_path)
    result = wise(*words)
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_debug_keeps_the_exception(wise, tmp_path):
    """With `--debug` an error of the input keeps its exception, from which the traceback follows."""
    result = wise("--debug", "inspect", tmp_path / "nope")
    assert "CheckpointError" in repr(result.exception)
