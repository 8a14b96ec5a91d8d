"""`merge`: the interpolation of two checkpoints, its output file and its report."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mergekit_wise.api.merge import merge, merge_each
from mergekit_wise.errors import MismatchError, OutputError, UsageError
from mergekit_wise.merging import backends
from mergekit_wise.options import MergeOptions


def test_every_tensor_follows_the_formula(pair, states, tmp_path):
    """Each tensor is (1 - alpha) * a + alpha * b in float32, rounded once, with its dtype and shape kept."""
    report = merge(*pair, tmp_path / "out", alpha=0.3)
    out = load_file(tmp_path / "out")
    sources = {outcome.name: outcome.source for outcome in report.outcomes}
    assert out.keys() == states[0].keys() == sources.keys()
    for name, mixed in out.items():
        a, b = (state[name] for state in states)
        if sources[name] == "mixed":
            wanted = ((1 - 0.3) * a.float() + 0.3 * b.float()).to(a.dtype)
        else:
            wanted = {"equal": a, "finetuned": b}[sources[name]]
        assert torch.equal(mixed, wanted), name
        assert mixed.dtype == wanted.dtype
    assert sources["frozen"] == "equal"
    assert sources["steps"] == "finetuned"


@pytest.mark.parametrize("alpha", [0, 1])
def test_at_alpha_0_and_1_tensors_are_copied_byte_for_byte(alpha, tmp_path):
    """At alpha 0 and 1 tensors are copied: NaN payloads, negative zeros, integers and dtypes stay."""
    special = torch.tensor([float("nan"), -0.0, float("inf"), 1e-45])
    sides = (
        {"x": special, "n": torch.tensor([1, 2]), "h": torch.ones(2).half()},
        {"x": -special, "n": torch.tensor([3, 4]), "h": torch.zeros(2)},
    )
    for name, side in zip(("zs", "ft"), sides, strict=True):
        save_file(side, tmp_path / name)
    merge(tmp_path / "zs", tmp_path / "ft", tmp_path / "out", alpha=alpha)
    for name, tensor in load_file(tmp_path / "out").items():
        assert tensor.dtype == sides[alpha][name].dtype
        assert tensor.numpy().tobytes() == sides[alpha][name].numpy().tobytes()


def test_the_same_inputs_give_the_same_file_whatever_the_chunks_and_threads(pair, tmp_path, monkeypatch):
    """One element at a time on three threads gives the bytes of one block on a single thread."""
    merge(*pair, tmp_path / "a", alpha=0.7)
    for threads, block in ((3, 1), (1, 1 << 30)):
        backend = backends.Backend(backends.mix_on_cpu, threads, block, chunk=100 * block)
        monkeypatch.setattr("mergekit_wise.api.merge.open_backend", lambda *_, backend=backend: backend)
        merge(*pair, tmp_path / "b", alpha=0.7)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_metadata_has_the_provenance(pair, tmp_path):
    """The metadata has names, sizes and alpha but no path, and keeps the sources' own entries."""
    save_file(load_file(pair[1]), pair[1], metadata={"about": "digits"})
    merge(*pair, tmp_path / "out", alpha=0.3)
    with safe_open(tmp_path / "out", "pt") as file:
        metadata = file.metadata()
    origin = json.loads(metadata["mergekit_wise"])
    assert metadata["about"] == "digits"
    assert origin["alpha"] == 0.3
    assert origin["zeroshot"]["name"] == "zs.pt"
    assert origin["finetuned"]["size"] == pair[1].stat().st_size
    assert str(tmp_path) not in str(metadata)


def test_metadata_that_disagrees_is_noted(tmp_path):
    """Where the sources' metadata differ, a note says so, and the fine-tuned one's value is kept."""
    for name, value in (("zs", "a"), ("ft", "b")):
        save_file({"w": torch.ones(1)}, tmp_path / name, metadata={"about": value})
    report = merge(tmp_path / "zs", tmp_path / "ft", tmp_path / "out")
    assert "'about'" in report.notes[0]
    with safe_open(tmp_path / "out", "pt") as file:
        assert file.metadata()["about"] == "b"


def test_the_distance_of_the_models_is_reported(pair, states, tmp_path):
    """The distance is ||ft - zs|| / ||zs|| over the mixed tensors, as torch computes it in float64."""
    report = merge(*pair, tmp_path / "out")
    mixed = [o.name for o in report.outcomes if o.source == "mixed"]
    a, b = (torch.cat([state[name].double().reshape(-1) for name in mixed]) for state in states)
    assert report.distance == pytest.approx(((b - a).norm() / a.norm()).item(), rel=1e-5)


def test_dtypes_that_differ_give_their_promotion(tmp_path):
    """Half with bfloat16 gives float32, and float32 with float64 gives float64, mixed in that precision."""
    a = {"x": torch.randn(9).half(), "y": torch.randn(9)}
    b = {"x": torch.randn(9).bfloat16(), "y": torch.randn(9).double()}
    save_file(a, tmp_path / "a")
    save_file(b, tmp_path / "b")
    merge(tmp_path / "a", tmp_path / "b", tmp_path / "out", alpha=0.3)
    out = load_file(tmp_path / "out")
    assert torch.equal(out["x"], (1 - 0.3) * a["x"].float() + 0.3 * b["x"].float())
    assert torch.equal(out["y"], (1 - 0.3) * a["y"].double() + 0.3 * b["y"])


def test_progress_counts_every_byte_once(pair, tmp_path):
    """The reported progress never decreases, and ends at the number of bytes of all tensors."""
    seen = []
    merge(*pair, tmp_path / "out", progress=lambda *call: seen.append(call))
    done = [call[1] for call in seen]
    assert done == sorted(done)
    assert seen[-1][1] == seen[-1][2] == sum(t.nbytes for t in load_file(tmp_path / "out").values())


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
def test_an_alpha_outside_0_and_1_is_refused(alpha, pair, tmp_path):
    """An alpha outside [0, 1], or NaN, is a UsageError, and no file is written."""
    with pytest.raises(UsageError):
        merge(*pair, tmp_path / "out", alpha=alpha)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("side", [0, 1])
def test_an_input_is_never_overwritten(side, pair, tmp_path):
    """An output that is an input, or a link to one, is refused, and the input stays unchanged."""
    before = pair[side].read_bytes()
    (tmp_path / "link").symlink_to(pair[side])
    for output in (pair[side], tmp_path / "link"):
        with pytest.raises(OutputError, match="one of the inputs"):
            merge(*pair, output)
    assert pair[side].read_bytes() == before


def test_a_mismatch_leaves_an_earlier_output_alone(pair, tmp_path):
    """A mismatch is an error before the first byte is written, so an earlier output stays."""
    save_file({"other": torch.ones(1)}, tmp_path / "other")
    (tmp_path / "out").write_text("earlier")
    with pytest.raises(MismatchError):
        merge(pair[0], tmp_path / "other", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "earlier"


SLOW_MERGE = """
import sys, time
from mergekit_wise.merging import backends
real = backends.mix_on_cpu
def slow(*arguments):
    time.sleep(0.2)
    return real(*arguments)
backends.mix_on_cpu = slow
from mergekit_wise.cli.app import main
sys.argv = ["wise", "merge", "zs", "ft", "-o", "out"]
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_merge_leaves_no_partial_file(number, tmp_path):
    """SIGINT and SIGTERM end with exit code 130 and 143, no partial file, and the earlier output unchanged."""
    for name, value in (("zs", 1.0), ("ft", 2.0)):
        save_file({"w": torch.full((1 << 23,), value)}, tmp_path / name)
    (tmp_path / "out").write_text("earlier")
    process = subprocess.Popen([sys.executable, "-c", SLOW_MERGE], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.*.partial")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert stderr == "Interrupted. Nothing was written.\n"
    assert (tmp_path / "out").read_text() == "earlier"
    assert {path.name for path in tmp_path.iterdir()} == {"zs", "ft", "out"}


@pytest.mark.parametrize("shard_size", [None, "200B"])
def test_merging_several_alphas_writes_the_files_of_single_merges(pair, tmp_path, shard_size):
    """Merging several alphas in one pass writes the files that single merges write."""
    alphas = (0.0, 0.25, 1.0)
    reports = merge_each(MergeOptions(*pair, tmp_path / "each-{alpha}.safetensors", shard_size=shard_size), alphas)
    assert [report.alpha for report in reports] == list(alphas)
    for alpha, report in zip(alphas, reports, strict=True):
        (tmp_path / "one").mkdir(exist_ok=True)
        single = merge(*pair, tmp_path / "one" / "x.safetensors", alpha=alpha, shard_size=shard_size)
        each = sorted([*tmp_path.glob(f"each-{alpha:g}.safetensors"), *tmp_path.glob(f"each-{alpha:g}-0*")])
        one = sorted((tmp_path / "one").glob("*.safetensors"))
        assert [path.read_bytes() for path in each] == [path.read_bytes() for path in one]
        assert (report.size, report.distance) == (single.size, pytest.approx(single.distance))
        for path in one:
            path.unlink()


def test_several_alphas_are_all_written_or_none(pair, tmp_path, monkeypatch):
    """A pattern without {alpha} is refused, and if one output cannot be written, none is."""
    with pytest.raises(UsageError, match="{alpha}"):
        merge_each(MergeOptions(*pair, tmp_path / "x.safetensors"), (0.1, 0.2))
    (tmp_path / "y-0.2").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        merge_each(MergeOptions(*pair, tmp_path / "y-{alpha}"), (0.1, 0.2))
    assert not (tmp_path / "y-0.1").exists()
