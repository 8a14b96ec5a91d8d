"""What `wise merge`, `wise inspect` and `wise diff` print."""

import json

import torch
from safetensors.torch import load_file, save_file

from mergekit_wise import __version__


def test_merge_summarises_what_happened_to_the_tensors(wise, pair, states, tmp_path):
    """The summary on stdout counts the mixed and the copied tensors and gives the relative change."""
    result = wise("merge", *pair, "--alpha", "0.3", "-o", tmp_path / "out.safetensors")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    for part in ("4 tensors mixed at alpha 0.3", "1 tensor copied, equal in both files", "fine-tuned file: steps"):
        assert part in text
    assert "||ft - zs|| / ||zs|| =" in text
    assert load_file(tmp_path / "out.safetensors").keys() == states[0].keys()


def test_merge_at_alpha_0_or_1_names_the_file_that_is_copied(wise, pair, tmp_path):
    """At alpha 0 or 1 the summary says that all tensors are copied, and from which file."""
    for alpha, side in ((0, "zero-shot"), (1, "fine-tuned")):
        result = wise("merge", *pair, "--alpha", alpha, "-o", tmp_path / "out")
        assert f"6 tensors copied from the {side} file" in " ".join(result.stdout.split())


def test_inspect_shows_tensors_metadata_and_provenance(wise, pair, tmp_path):
    """The table and the JSON of `wise inspect` have the tensors, the metadata and the provenance."""
    wise("merge", *pair, "-o", tmp_path / "out")
    text = wise("inspect", tmp_path / "out").stdout
    for part in ("layer.0.weight", "float32", "64 x 33\t8448", "6 tensors", "alpha: 0.5", "zs.pt", "scalar"):
        assert part in text
    entry = json.loads(wise("inspect", tmp_path / "out", "--json").stdout)
    assert entry["origin"]["alpha"] == 0.5
    assert {"name": "scale", "dtype": "float32", "shape": [], "bytes": 4} in entry["tensors"]
    assert entry["architecture"]["names"] == []


def test_diff_in_a_pipe_has_a_line_for_every_tensor(wise, tmp_path):
    """Columns are separated by tabs; tensors on one side, and the classes of a head, have lines too."""
    head = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    save_file({"near": torch.ones(3), "far": torch.ones(3), "old": head.clone(), "head.weight": head}, tmp_path / "a")
    turned = torch.tensor([[0.0, 1.0], [0.0, 2.0]])
    save_file({"near": torch.ones(3), "far": torch.ones(3) * 9, "head.weight": turned}, tmp_path / "b")
    result = wise("diff", tmp_path / "a", tmp_path / "b")
    rows = {row[0]: row[1:] for row in (line.split("\t") for line in result.stdout.splitlines())}
    assert rows == {
        "Tensor": ["Status", "|b - a| / |a|", "Cosine"],
        "old": ["only in a", "", ""],
        "far": ["moved", "8", "1"],
        "near": ["equal", "0", "1"],
        "head.weight": ["moved", "1.225", "0.6325"],
        "head.weight[0]": ["class", "", "0"],
        "head.weight[1]": ["class", "", "1"],
    }
    for part in ("2 tensors moved.", "1 tensor is equal.", "1 tensor is only in a.", "--keep"):
        assert part in result.stderr
    report = json.loads(wise("diff", tmp_path / "a", tmp_path / "b", "--json").stdout)
    assert report["movements"][0] == {"name": "far", "relative": 8.0, "cosine": 1.0, "equal": False, "by_class": []}
    assert report["missing"] == {"only_zeroshot": ["old"], "only_finetuned": [], "shapes": []}


def test_layers_inside_blocks_are_no_heads(wise, tmp_path):
    """The MLP's c_fc of a transformer is not compared class by class."""
    for name, scale in (("a", 1.0), ("b", 2.0)):
        save_file({f"blocks.0.mlp.{each}.weight": scale * torch.ones(2, 2) for each in ("c_fc", "fc")}, tmp_path / name)
    assert "class" not in wise("diff", tmp_path / "a", tmp_path / "b").stdout


def test_a_dry_run_in_a_pipe_has_a_line_for_every_tensor(wise, pair, tmp_path):
    """Names, dtypes, shapes and what becomes of each tensor are separated by tabs."""
    result = wise("merge", *pair, "--keep", "zs:frozen", "-o", tmp_path / "out", "--dry-run")
    assert "layer.0.weight\tfloat32\t64 x 33\talpha 0.5\n" in result.stdout
    assert "frozen\tfloat32\t11\tzero-shot\n" in result.stdout


def test_infinite_and_undefined_changes_are_null_in_json(wise, tmp_path):
    """Infinite and undefined changes are null, because JSON has neither infinity nor NaN."""
    save_file({"grew": torch.zeros(2), "broke": torch.ones(2)}, tmp_path / "a")
    save_file({"grew": torch.ones(2), "broke": torch.tensor([1.0, float("nan")])}, tmp_path / "b")
    result = wise("diff", tmp_path / "a", tmp_path / "b", "--json")
    assert {m["name"]: m["relative"] for m in json.loads(result.stdout)["movements"]} == {"grew": None, "broke": None}


def test_version_is_the_packages(wise):
    """`wise --version` prints the version of the package."""
    assert __version__ in wise("--version").stdout
