"""`verify` recomputes a merged file from its sources and its recorded provenance."""

import re
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mergekit_wise.api.merge import merge
from mergekit_wise.api.second_reader import read_by_library
from mergekit_wise.api.verify import verify
from mergekit_wise.checkpoint import BY_NAME, TensorInfo, open_checkpoint
from mergekit_wise.errors import CheckpointError


def checked(pair, output, **options):
    return verify(output, zeroshot=pair[0], finetuned=pair[1], **options)


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 0.3},
        {"alpha": 0.0},
        {"alpha": 1.0},
        {"alpha": 1.3, "extrapolate": True},
        {"dtype": "bf16", "keep": ("zs:frozen", "ft:scale")},
        {"alpha_for": ("layer.*=0.2",), "only": ("layer.*", "scale")},
        {"depth_alpha": "0.2:0.8"},
    ],
    ids=str,
)
def test_a_merged_file_is_verified_with_its_recorded_rules(options, pair, tmp_path):
    """A merged file is verified with the rules that its metadata records."""
    merge(*pair, tmp_path / "out", **options)
    verdict = checked(pair, tmp_path / "out")
    assert verdict.difference is None
    assert verdict.tensors == len(load_file(tmp_path / "out"))


def test_a_merge_with_fisher_is_verified(pair, states, tmp_path):
    """A merge with Fisher files is verified with the same files, and refused without them."""
    for name in ("f0", "f1"):
        torch.save({"frozen": torch.rand(11), "layer.0.weight": torch.rand(64, 33)}, tmp_path / name)
    fisher = (tmp_path / "f0", tmp_path / "f1")
    merge(*pair, tmp_path / "out", fisher=fisher)
    assert checked(pair, tmp_path / "out", fisher=fisher).difference is None
    with pytest.raises(CheckpointError, match="fisher"):
        checked(pair, tmp_path / "out")


def rewritten(path, change):
    """Rewrite the file with changed tensors and the same metadata."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata)


def test_the_first_byte_that_differs_is_reported(pair, tmp_path):
    """A single changed bit is reported with its tensor and element."""
    merge(*pair, tmp_path / "out")

    def flip(tensors):
        tensors["layer.0.weight"].view(torch.int32).reshape(-1)[1000] ^= 1

    rewritten(tmp_path / "out", flip)
    assert checked(pair, tmp_path / "out").difference == "layer.0.weight differs, first at element 1,000 of 2,112"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("scale"), "scale is only in the sources"),
        (lambda t: t.update(more=torch.ones(1)), "more is only in the merged file"),
        (lambda t: t.update(scale=torch.ones(2)), r"scale should be float32 \[\], but is float32 \[2\]"),
    ],
)
def test_tensors_that_do_not_match_are_named(change, message, pair, tmp_path):
    """Missing, added and reshaped tensors are named."""
    merge(*pair, tmp_path / "out")
    rewritten(tmp_path / "out", change)
    verdict = checked(pair, tmp_path / "out")
    assert re.search(message, verdict.difference)


def test_a_source_that_changed_its_header_is_noted(pair, states, tmp_path):
    """A source with another header but the same tensors is noted, and the file is still verified."""
    merge(*pair, tmp_path / "out")
    save_file(states[1], pair[1], metadata={"more": "words"})
    verdict = checked(pair, tmp_path / "out")
    assert verdict.difference is None
    assert "ft.safetensors" in verdict.notes[0]


def test_a_file_that_was_not_merged_is_refused(pair):
    """A file without a recorded provenance is refused."""
    with pytest.raises(CheckpointError, match="does not record how it was merged"):
        checked(pair, pair[1])


def test_the_command_exits_with_1_where_it_differs(wise, pair, tmp_path):
    """`wise verify` exits with code 1 if the file differs, and with 0 if it does not."""
    out = tmp_path / "out.safetensors"
    merge(*pair, out)
    words = ("verify", out, "--zeroshot", pair[0], "--finetuned", pair[1])
    result = wise(*words)
    assert result.exit_code == 0
    assert "byte for byte" in result.stdout
    rewritten(out, lambda tensors: tensors["scale"].add_(1))
    result = wise(*words)
    assert result.exit_code == 1
    assert "scale differs" in result.stdout


def test_mixed_and_copied_tensors_are_counted(pair, tmp_path):
    """Every tensor is mixed or copied, and none is passed over."""
    report = merge(*pair, tmp_path / "out")
    verdict = checked(pair, tmp_path / "out")
    mixed = sum(outcome.source == "mixed" for outcome in report.outcomes)
    assert (verdict.mixed, verdict.copied, verdict.skipped) == (mixed, verdict.tensors - mixed, 0)


@pytest.mark.parametrize("shard_size", [None, "4KB"])
def test_files_in_the_format_of_torch_are_verified(shard_size, pair, tmp_path):
    """Provenance and tensors are found again in .pt files; a changed byte is found, and a note names the reader."""
    report = merge(*pair, tmp_path / "out.pt", shard_size=shard_size)
    verdict = checked(pair, report.output)
    assert verdict.difference is None
    assert any("own reader alone" in note for note in verdict.notes)
    place = open_checkpoint(report.output).tensors["layer.0.weight"]
    content = bytearray(place.file.path.read_bytes())
    content[place.offset] ^= 1
    place.file.path.write_bytes(content)
    assert checked(pair, report.output).difference == "layer.0.weight differs, first at element 0 of 2,112"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offset": 8}, "reads other bytes of"),
        ({"info": TensorInfo("layer.0.weight", BY_NAME["U32"], (64, 33))}, "another dtype or shape"),
    ],
    ids=["place", "dtype"],
)
def test_a_fault_of_this_tools_reader_does_not_hide_one_of_its_writer(change, message, pair):
    """What the format's own library reads is compared with what this tool's reader reads."""
    checkpoint = open_checkpoint(pair[1])
    assert read_by_library(checkpoint) is None
    wrong = replace(checkpoint.tensors["layer.0.weight"], **change)
    found = read_by_library(replace(checkpoint, tensors={**checkpoint.tensors, "layer.0.weight": wrong}))
    assert found is not None
    assert message in found
    fewer = {name: tensor for name, tensor in checkpoint.tensors.items() if name != "scale"}
    assert read_by_library(replace(checkpoint, tensors=fewer)).endswith("do not both find scale")
