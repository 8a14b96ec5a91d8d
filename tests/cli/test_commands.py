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
    for part in ("layer.0.weight", "float32", "64 x 33", "8,448", "6 tensors", "alpha: 0.5", "zs.pt", "scalar"):
        assert part in text
    entry = json.loads(wise("inspect", tmp_path / "out", "--json").stdout)
    assert entry["origin"]["alpha"] == 0.5
    assert {"name": "scale", "dtype": "float32", "shape": [], "bytes": 4} in entry["tensors"]
    assert entry["architecture"]["names"] == []


def test_diff_lists_the_largest_changes_first_and_missing_names(wise, tmp_path):
    """`wise diff` lists names on one side, the largest changes first, and a head class by class."""
    head = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    save_file({"near": torch.ones(3), "far": torch.ones(3), "old": head.clone(), "head.weight": head}, tmp_path / "a")
    turned = torch.tensor([[0.0, 1.0], [0.0, 2.0]])
    save_file({"near": torch.ones(3) * 1.1, "far": torch.ones(3) * 9, "head.weight": turned}, tmp_path / "b")
    text = wise("diff", tmp_path / "a", tmp_path / "b").stdout
    assert "only in a (1):" in text
    assert text.index("far") < text.index("near")
    rows = [line.split() for line in text.splitlines()]
    assert ["0", "0"] in rows
    assert ["1", "1"] in rows
    report = json.loads(wise("diff", tmp_path / "a", tmp_path / "b", "--json").stdout)
    assert report["movements"][0] == {"name": "far", "relative": 8.0, "cosine": 1.0, "equal": False, "by_class": []}


def test_infinite_and_undefined_changes_are_null_in_json(wise, tmp_path):
    """Infinite and undefined changes are null, because JSON has neither infinity nor NaN."""
    save_file({"grew": torch.zeros(2), "broke": torch.ones(2)}, tmp_path / "a")
    save_file({"grew": torch.ones(2), "broke": torch.tensor([1.0, float("nan")])}, tmp_path / "b")
    result = wise("diff", tmp_path / "a", tmp_path / "b", "--json")
    assert {m["name"]: m["relative"] for m in json.loads(result.stdout)["movements"]} == {"grew": None, "broke": None}


def test_version_is_the_packages(wise):
    """`wise --version` prints the version of the package."""
    assert __version__ in wise("--version").stdout
