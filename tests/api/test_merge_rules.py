"""Merge rules: alphas by pattern, by depth, Fisher weights, dtypes and shards, against the formulas."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergekit_wise.api.merge import merge, preview
from mergekit_wise.errors import MismatchError, NonFiniteError, UsageError


def mixed(a, b, alpha):
    return (1 - alpha) * a + alpha * b


@pytest.fixture
def sides(tmp_path):
    """Two states of blocks, a text tower and a head, as safetensors; `run` merges them and returns the output."""
    torch.manual_seed(0)
    names = [f"visual.blocks.{i}.weight" for i in range(3)] + ["visual.conv1.weight", "text.weight", "head.weight"]
    states = [{name: torch.randn(40) for name in names} for _ in range(2)]
    for name, state in zip(("zs", "ft"), states, strict=True):
        save_file(state, tmp_path / name)

    def run(**options):
        merge(tmp_path / "zs", tmp_path / "ft", tmp_path / "out", **options)
        return load_file(tmp_path / "out")

    return *states, run


def test_alphas_by_pattern_depth_and_side(sides):
    """Each tensor is mixed with the alpha of its rule, and all others with the general alpha."""
    a, b, run = sides
    out = run(depth_alpha="0.2:0.6", alpha_for=("visual.conv*=0.9",), keep=("zs:text.*", "ft:head.*"))
    wanted = {f"visual.blocks.{i}.weight": alpha for i, alpha in enumerate((0.2, 0.4, 0.6))}
    for name, alpha in {**wanted, "visual.conv1.weight": 0.9}.items():
        assert torch.equal(out[name], mixed(a[name], b[name], alpha)), name
    assert torch.equal(out["text.weight"], a["text.weight"])
    assert torch.equal(out["head.weight"], b["head.weight"])


def test_only_writes_the_matching_tensors(sides):
    """With `only` the output holds the tensors that match, and no others."""
    _, _, run = sides
    assert run(only=("visual.blocks.*",)).keys() == {f"visual.blocks.{i}.weight" for i in range(3)}


def test_a_pattern_that_matches_nothing_is_refused(sides):
    """A pattern without a matching tensor is a UsageError that shows it, as it is almost certainly a typo."""
    _, _, run = sides
    with pytest.raises(UsageError, match="matches 'hed"):
        run(keep=("ft:hed.*",))


def test_extrapolation_needs_its_option(sides):
    """An alpha of 1.5 is refused without `extrapolate`, and with it follows the formula."""
    a, b, run = sides
    with pytest.raises(UsageError):
        run(alpha=1.5)
    out = run(alpha=1.5, extrapolate=True)
    assert torch.equal(out["text.weight"], mixed(a["text.weight"], b["text.weight"], 1.5))


@pytest.mark.parametrize(
    ("text", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16), ("float64", torch.float64)]
)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_output_has_the_requested_dtype(alpha, text, dtype, sides):
    """With `dtype` tensors are mixed in float32 and rounded once; at alpha 0 and 1 the source is converted."""
    a, b, run = sides
    for name, tensor in run(alpha=alpha, dtype=text).items():
        wanted = mixed(a[name], b[name], alpha) if 0 < alpha < 1 else (a, b)[int(alpha)][name]
        assert torch.equal(tensor, wanted.to(dtype))


def fisher_files(tmp_path, first, second):
    for name, values in (("f0", first), ("f1", second)):
        torch.save(values, tmp_path / name)
    return tmp_path / "f0", tmp_path / "f1"


def test_fisher_weights_each_element(sides, tmp_path):
    """Fisher information weights each element by the authors' formula with its floor; other tensors are plain."""
    a, b, run = sides
    names = ["text.weight", "head.weight"]
    fishers = [{name: torch.rand(40) * (torch.rand(40) > 0.3) for name in names} for _ in range(2)]
    out = run(alpha=0.3, fisher=fisher_files(tmp_path, *fishers), fisher_floor=1e-4)
    for name in a:
        if name in names:
            c0, c1 = ((c * f[name].clamp(min=1e-4)).double() for c, f in zip((0.7, 0.3), fishers, strict=True))
            wanted = (c0 * a[name] + c1 * b[name]) / (c0 + c1)
            torch.testing.assert_close(out[name].double(), wanted, rtol=3e-6, atol=1e-6)
        else:
            assert torch.equal(out[name], mixed(a[name], b[name], 0.3))


def test_fisher_information_on_one_side_only_is_refused(sides, tmp_path):
    """Fisher information that one side lacks, or of another shape, is an error that names the tensor."""
    _, _, run = sides
    one, other = {"text.weight": torch.ones(40), "head.weight": torch.ones(40)}, {"head.weight": torch.ones(40)}
    with pytest.raises(MismatchError, match="text.weight"):
        run(fisher=fisher_files(tmp_path, one, other))
    with pytest.raises(MismatchError, match="head.weight"):
        run(fisher=fisher_files(tmp_path, {"head.weight": torch.ones(4)}, {"head.weight": torch.ones(4)}))


def test_values_too_large_for_the_output_dtype_are_an_error(tmp_path):
    """Values too large for the output dtype are counted by tensor in an error, and no file is written."""
    save_file({"w": torch.tensor([1.0, 1e30, -1e30]), "x": torch.ones(1)}, tmp_path / "a")
    save_file({"w": torch.tensor([2.0, 1e30, -1e29]), "x": torch.zeros(1)}, tmp_path / "b")
    arguments = (tmp_path / "a", tmp_path / "b", tmp_path / "out")
    with pytest.raises(NonFiniteError, match=r"in 1 tensor: w \(2\)"):
        merge(*arguments, dtype="fp16")
    assert not (tmp_path / "out").exists()
    merge(*arguments, dtype="fp16", allow_non_finite=True)
    assert load_file(tmp_path / "out")["w"].tolist() == [1.5, float("inf"), float("-inf")]


def test_extrapolating_into_overflow_is_an_error(tmp_path):
    """An extrapolation that overflows float32 is an error with the number of overflowing values."""
    save_file({"w": torch.full((5,), -3e38)}, tmp_path / "a")
    save_file({"w": torch.full((5,), 3e38)}, tmp_path / "b")
    with pytest.raises(NonFiniteError, match=r"w \(5\)"):
        merge(tmp_path / "a", tmp_path / "b", tmp_path / "out", alpha=2.0, extrapolate=True)


def test_infinities_of_an_input_are_noted(tmp_path):
    """Values that are not finite in an input are counted in a note, and are not an error."""
    save_file({"w": torch.tensor([1.0, float("nan"), float("inf")])}, tmp_path / "a")
    save_file({"w": torch.tensor([2.0, 1.0, 1.0])}, tmp_path / "b")
    report = merge(tmp_path / "a", tmp_path / "b", tmp_path / "out")
    assert "w (2)" in report.notes[0]


def test_finite_values_whose_squares_overflow_are_not_noted(tmp_path):
    """Finite values whose sum of squares overflows cause neither a note nor an error."""
    save_file({"w": torch.full((5,), 1e30)}, tmp_path / "a")
    save_file({"w": torch.full((5,), 2e30)}, tmp_path / "b")
    assert merge(tmp_path / "a", tmp_path / "b", tmp_path / "out").notes == ()


def test_batch_norm_statistics_cause_one_note(tmp_path):
    """However many batch norms there are, one note says that their statistics were interpolated."""
    for name, value in (("a", 1.0), ("b", 2.0)):
        save_file({f"bn{i}.running_var": torch.full((3,), value) for i in range(4)}, tmp_path / name)
    notes = merge(tmp_path / "a", tmp_path / "b", tmp_path / "out").notes
    assert [("batch-norm" in note) for note in notes] == [True]


def test_the_preview_is_what_merging_does(sides, tmp_path):
    """A preview has the size and the tensors of the merge, and writes nothing."""
    a, _, run = sides
    before = sorted(tmp_path.iterdir())
    found = preview(tmp_path / "zs", tmp_path / "ft", tmp_path / "out", alpha=0.3, keep=("ft:head.*",))
    assert sorted(tmp_path.iterdir()) == before
    run(alpha=0.3, keep=("ft:head.*",))
    assert found.size == (tmp_path / "out").stat().st_size
    assert {step.info.name: step.action for step in found.steps} == {
        name: "finetuned" if name == "head.weight" else "mix" for name in a
    }


def test_dry_run_prints_the_plan(wise, sides, tmp_path):
    """`--dry-run` prints each tensor with its alpha, and writes nothing."""
    result = wise(
        "merge", tmp_path / "zs", tmp_path / "ft", "-o", tmp_path / "out", "--dry-run", "--alpha-for", "text.*=0.2"
    )
    assert result.exit_code == 0
    assert ["text.weight", "float32", "40", "alpha", "0.2"] in [line.split() for line in result.stdout.splitlines()]
    assert "Nothing was written" in result.stdout
    assert not (tmp_path / "out").exists()


def test_shards_and_small_memory_change_no_tensor(sides, tmp_path):
    """Tensors in shards, merged in little memory, equal those in one file, and the report names the index."""
    _, _, run = sides
    whole = run(alpha=0.3)
    report = merge(
        tmp_path / "zs", tmp_path / "ft", tmp_path / "s.safetensors", alpha=0.3, shard_size="320B", memory="1MB"
    )
    assert report.output.name == "s.safetensors.index.json"
    weight_map = json.loads(report.output.read_text())["weight_map"]
    assert len(set(weight_map.values())) == 3
    for name, file in weight_map.items():
        assert torch.equal(load_file(tmp_path / file)[name], whole[name])


def test_plain_reads_give_the_same_file(sides, tmp_path):
    """Reading without mmap gives the same bytes."""
    _, _, run = sides
    run(alpha=0.3)
    mapped = (tmp_path / "out").read_bytes()
    run(alpha=0.3, mmap=False)
    assert (tmp_path / "out").read_bytes() == mapped


@pytest.mark.parametrize(("dtype", "alpha"), [("bfloat16", 0.5), ("bfloat16", 1.0), ("float32", 0.0)])
def test_numbers_beyond_the_range_of_a_narrow_output_are_refused(dtype, alpha, tmp_path):
    """Finite numbers that float16 cannot hold are found where they are mixed, and where they are copied."""
    tensor = torch.full((3,), 1e6, dtype=getattr(torch, dtype))
    for name in ("zs", "ft"):
        save_file({"a": tensor if name == "zs" else 2 * tensor}, tmp_path / name)
    with pytest.raises(NonFiniteError, match=r"a \(3\)"):
        merge(tmp_path / "zs", tmp_path / "ft", tmp_path / "out", alpha=alpha, dtype="fp16")
