"""Bad input, as a user meets it: one clear sentence, an exit code, no traceback, nothing left behind."""

import errno
import os

import pytest
import torch
from safetensors.torch import save_file


@pytest.fixture
def refused(wise, tmp_path):
    """Run `wise merge` with an earlier output in place; returns its message after checking what must always hold."""
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


def test_a_missing_file(refused, pair, tmp_path):
    """Named."""
    assert f"{tmp_path / 'nope'}: no such file. Check the path." in refused(pair[0], tmp_path / "nope")


def test_an_empty_file(refused, pair, tmp_path):
    """A download that never began."""
    (tmp_path / "empty").touch()
    assert "empty (0 bytes)" in refused(pair[0], tmp_path / "empty")


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("kept", [0.5, 0.999])
def test_a_truncated_file(side, kept, refused, pair, tmp_path):
    """A download that was cut off, of either kind, early or late."""
    content = pair[side].read_bytes()
    (tmp_path / "cut").write_bytes(content[: int(len(content) * kept)])
    assert "opy or download it again" in refused(pair[1 - side], tmp_path / "cut")


def test_a_file_of_another_kind(refused, pair, tmp_path):
    """Told by its first bytes, whatever it is called."""
    (tmp_path / "page.safetensors").write_text("<!DOCTYPE html>")
    assert "neither a safetensors file nor anything that torch.save" in refused(pair[0], tmp_path / "page.safetensors")


def test_names_and_shapes_that_differ(refused, pair, states, tmp_path):
    """All of them at once."""
    changed = {**states[1], "layer.0.weight": torch.zeros(2, 2), "extra": torch.zeros(1)}
    del changed["scale"]
    save_file(changed, tmp_path / "other")
    message = refused(pair[0], tmp_path / "other")
    for part in ("only in zs.pt (1): scale", "only in other (1): extra", "layer.0.weight: [64, 33] and [2, 2]"):
        assert part in message


@pytest.mark.parametrize("alpha", ["1.5", "-0.1", "nan", "inf"])
def test_an_alpha_outside(alpha, refused, pair):
    """A wrong command line: exit code 2."""
    message = refused(*pair, "--alpha", alpha, code=2)
    assert message.startswith(f"error: --alpha {alpha}: expected an alpha from 0 (zero-shot) to 1 (fine-tuned)")


def test_an_alpha_that_is_no_number(refused, pair):
    """The option is named."""
    assert "--alpha" in refused(*pair, "--alpha", "half", code=2)


def test_no_space_on_the_disk(refused, pair, monkeypatch):
    """Found out in the middle of writing."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    assert "No space left on device. Free some space" in refused(*pair)


def test_too_little_space_is_seen_before_writing(refused, pair, monkeypatch):
    """With how much is needed and how much there is."""
    monkeypatch.setattr("mergekit_wise.checkpoint.writer._free_bytes", lambda _: 100)
    assert "but only 100 are free" in refused(*pair)


def test_an_output_folder_that_does_not_exist(refused, pair, tmp_path):
    """Nothing is created on the way."""
    assert "does not exist. Create it first." in refused(*pair, out=tmp_path / "new" / "out")


@pytest.mark.parametrize("side", [0, 1])
def test_an_output_that_is_an_input(side, refused, pair):
    """The input is untouched."""
    before = pair[side].read_bytes()
    assert "is one of the inputs" in refused(*pair, out=pair[side])
    assert pair[side].read_bytes() == before


def test_a_device_that_does_not_exist(refused, pair):
    """With the one that does."""
    assert "Use --device cpu." in refused(*pair, "--device", "cuda:99", code=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("inspect", "nope"), "no such file"),
        (("diff", "nope", "nope"), "no such file"),
        (("eval", "nope"), "no such file"),
        (("sweep", "nope", "nope", "--suite", "digits"), "no such file"),
        (("sweep", "nope", "nope"), "--suite"),
        (("sweep", "nope", "nope", "--suite", "digits", "--plot", "x.txt"), ".png"),
        (("sweep", "nope", "nope", "--suite", "digits", "--plot", "none/x.png"), "does not exist"),
        (("merge", "nope", "nope", "-o", "none/x", "--dry-run"), "does not exist. Create it first."),
        (("zeroshot", "nope", "-o", "none/x"), "does not exist. Create it first."),
        (("finetune", "nope", "--train", "digits", "-o", "none/x"), "does not exist. Create it first."),
        (("finetune", "nope", "--train", "digits", "-o", "x", "--log", "none/x"), "does not exist. Create it first."),
        (("report", "nope", "-o", "none/x"), "does not exist. Create it first."),
        (("report", "nope", "--csv", "none/x"), "does not exist. Create it first."),
        (("report", "nope", "--png", "none/x"), "does not exist. Create it first."),
        (("merge", "", "nope", "-o", "out"), "empty"),
        (("sweep", "nope", "nope", "--suite", "digits", "--alphas", "0:1"), "--alphas 0:1:"),
        (("sweep", "nope", "nope", "--suite", "digits", "--alphas", "0:2:1"), "--alphas 0:2:1: expected an alpha"),
        (("sweep", "nope", "nope", "--save", "{alpha}", "--alphas", "0,2"), "--alphas 0,2: expected an alpha"),
        (("sweep", "nope", "nope", "--save", "x"), "--save x: expected a path with {alpha} in it"),
        (("sweep", "nope", "nope", "--suite", "digits", "--select-on", "x"), "--select-on x: There is no suite"),
        (("merge", "nope", "nope", "-o", "x", "--alpha-for", "v.*=2"), "--alpha-for v.*=2: expected an alpha"),
        (("merge", "nope", "nope", "-o", "x", "--depth-alpha", "0:2"), "--depth-alpha 0:2: expected an alpha"),
        (("merge", "nope", "nope", "-o", "x", "--alpha", "nan", "--extrapolate"), "--alpha nan: expected a finite"),
        (("merge", "nope", "nope", "-o", "x", "--memory", "0"), "--memory 0: expected a size"),
        (("finetune", "nope", "--train", "digits", "-o", "x", "--lr", "inf"), "--lr inf: expected a finite number"),
        (("finetune", "nope", "--train", "digits", "-o", "x", "--seed", 2**63), f"--seed {2**63}: expected at least 0"),
        (("demo", "x", "--seed", "-1"), "--seed -1: expected at least 0"),
        (("report", "nope", "--axis", "x"), "--axis x: expected one of logit, probit"),
    ],
)
def test_other_commands_answer_in_the_same_way(words, message, wise, tmp_path, monkeypatch):
    """No traceback anywhere."""
    monkeypatch.chdir(tmp_path)
    result = wise(*words)
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_where_it_happened(wise, tmp_path):
    """For whoever wants to mend it."""
    result = wise("--debug", "inspect", tmp_path / "nope")
    assert "CheckpointError" in repr(result.exception)
