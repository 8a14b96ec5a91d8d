"""Tests of FILE::ENTRY in the commands, in Python and where files have such names."""

import pytest
import torch
from safetensors.torch import load_file

import mergekit_wise as wise_api
from mergekit_wise.errors import CheckpointError
from mergekit_wise.models.source import open_source, split_entry


def weights(seed):
    torch.manual_seed(seed)
    return {"visual.conv1.weight": torch.randn(4, 3, 2, 2), "visual.proj": torch.randn(6, 6)}


@pytest.fixture
def file(tmp_path):
    average = {"n_averaged": torch.tensor(3), **{f"module.{name}": tensor for name, tensor in weights(2).items()}}
    torch.save({"model": weights(1), "model_ema": average, "loss": torch.tensor(0.1)}, tmp_path / "x.pt")
    return tmp_path / "x.pt"


def test_every_command_takes_an_entry(file, wise, tmp_path):
    """Merge, verify, diff and inspect read the entry; the merged values are those of torch."""
    average, output = f"{file}::model_ema", tmp_path / "merged"
    merged = wise("merge", file, average, "-o", output, "--alpha", "0.25")
    assert merged.exit_code == 0, merged.output
    for name, tensor in load_file(output).items():
        assert torch.equal(tensor, 0.75 * weights(1)[name] + 0.25 * weights(2)[name])
    verified = wise("verify", output, "--zeroshot", file, "--finetuned", average)
    assert verified.exit_code == 0
    assert wise("verify", output, "--zeroshot", file, "--finetuned", file).exit_code == 1
    for words in (("diff", file, average), ("inspect", average)):
        assert wise(*words).exit_code == 0, words


def test_python_takes_an_entry_as_text_and_as_path(file, tmp_path):
    """`merge` gets the same file from either."""
    for kind in (str, type(file)):
        wise_api.merge(file, kind(f"{file}::model_ema"), tmp_path / kind.__name__, alpha=1)
        merged = load_file(tmp_path / kind.__name__)
        assert all(torch.equal(merged[name], tensor) for name, tensor in weights(2).items())


def test_a_path_that_exists_is_that_path(file, tmp_path):
    """Colons in the names of files and folders are colons, with and without an entry behind them."""
    folder = tmp_path / "run::7"
    folder.mkdir()
    inside = file.rename(folder / "a::b.pt")
    assert split_entry(str(inside)) == (str(inside), None)
    assert split_entry(f"{inside}::model_ema") == (str(inside), "model_ema")
    assert "visual.proj" in open_source(f"{inside}::model_ema").tensors
    with pytest.raises(CheckpointError, match="no such file"):
        open_source(f"{tmp_path}/missing.pt::model")


def test_a_file_without_entries_says_so(file, wise, tmp_path):
    """A safetensors file holds nothing but tensors."""
    wise("merge", file, file, "-o", tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match="safetensors file has no entries"):
        open_source(f"{tmp_path / 'm.safetensors'}::model")


def test_a_loss_is_not_merged_in_place_of_the_weights(wise, tmp_path):
    """The most copied training loop of CLIP saves the loss as a tensor; the merged file holds the weights."""
    for seed in (1, 2):
        torch.save({"epoch": 3, "model_state_dict": weights(seed), "loss": torch.tensor(0.4)}, tmp_path / f"{seed}.pt")
    result = wise("merge", tmp_path / "1.pt", tmp_path / "2.pt", "-o", tmp_path / "m")
    assert result.exit_code == 0
    assert "using 'model_state_dict'; ignoring epoch, loss" in result.stderr
    merged = load_file(tmp_path / "m")
    assert merged.keys() == weights(1).keys()
    assert all(torch.equal(merged[n], 0.5 * weights(1)[n] + 0.5 * weights(2)[n]) for n in merged)
