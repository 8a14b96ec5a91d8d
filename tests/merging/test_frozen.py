"""Tensors that are equal up to rounding: noticed, and copied with ``--frozen-tolerance``."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergekit_wise.api.merge import merge
from mergekit_wise.api.verify import verify
from mergekit_wise.errors import UsageError
from mergekit_wise.merging import Mixer, Rules, make_plan, movements, open_backend
from mergekit_wise.models.pairing import match
from mergekit_wise.models.source import open_source
from mergekit_wise.progress import silent

SIZE = 300_000  # more than one block
DTYPES = [
    (torch.float16, torch.float32),
    (torch.bfloat16, torch.float32),
    (torch.bfloat16, torch.float16),
    (torch.float32, torch.float64),
]


def precise(dtype):
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(SIZE, generator=generator, dtype=torch.float64).to(dtype)
    numbers[7] = float("inf")
    numbers[8] = float("nan")
    return numbers


def saved(state, path):
    save_file({name: tensor.clone() for name, tensor in state.items()}, path)


def merged(tmp_path, zeroshot, finetuned, **options):
    saved(zeroshot, tmp_path / "zs")
    saved(finetuned, tmp_path / "ft")
    report = merge(tmp_path / "zs", tmp_path / "ft", tmp_path / "out", allow_non_finite=True, **options)
    return report, load_file(tmp_path / "out")


@pytest.mark.parametrize(("narrow", "wide"), DTYPES)
@pytest.mark.parametrize("narrow_first", [True, False])
def test_a_rounded_tower_is_copied_from_the_precise_file(narrow_first, narrow, wide, tmp_path):
    """Tolerance 0 copies what differs by rounding alone, whichever file is wider, and mixes one that moved."""
    tower = precise(wide)
    moved = tower.to(narrow).clone()
    moved[-1] += 0.5  # in the last block
    sides = [{"tower": tower.to(narrow), "moved": moved}, {"tower": tower, "moved": tower}]
    if not narrow_first:
        sides.reverse()
    report, out = merged(tmp_path, *sides, alpha=0.3, frozen_tolerance=0.0)
    output = torch.promote_types(narrow, wide)
    assert out["tower"].dtype == output
    assert torch.equal(out["tower"].nan_to_num(), tower.to(output).nan_to_num())
    sources = {outcome.name: outcome.source for outcome in report.outcomes}
    assert sources == {"tower": "finetuned" if narrow_first else "zeroshot", "moved": "mixed"}
    verdict = verify(tmp_path / "out", zeroshot=tmp_path / "zs", finetuned=tmp_path / "ft")
    assert verdict.difference is None


def test_without_the_option_everything_is_mixed_and_a_note_counts(tmp_path):
    """A merge notes how many tensors are equal up to rounding, and which dtypes met, and mixes them all."""
    tower = torch.randn(SIZE)
    sides = ({"tower": tower.half(), "moved": tower.half()}, {"tower": tower, "moved": tower + 1})
    report, out = merged(tmp_path, *sides)
    assert {outcome.source for outcome in report.outcomes} == {"mixed"}
    assert torch.equal(out["tower"], 0.5 * tower.half().float() + 0.5 * tower)
    notes = " ".join(report.notes)
    assert "2 tensors are float16 in zs and float32 in ft, and float32 in the output" in notes
    assert "1 tensor is equal in the two files up to the rounding" in notes
    assert notes.endswith(": tower")


def test_float64_beside_float32_is_said_to_double_the_file(tmp_path):
    """The note names the option that avoids it; with that option the output is float32."""
    sides = ({"w": torch.ones(4)}, {"w": torch.zeros(4, dtype=torch.float64)})
    report, out = merged(tmp_path, *sides)
    assert "doubles the size of the file; --dtype" in " ".join(report.notes)
    assert out["w"].dtype == torch.float64
    report, out = merged(tmp_path, *sides, dtype="fp32")
    assert "doubles" not in " ".join(report.notes)
    assert out["w"].dtype == torch.float32


@pytest.mark.parametrize(
    ("tolerance", "source"), [(1e-3, "zeroshot"), (1e-5, "mixed"), (None, "mixed"), (0.0, "mixed")]
)
def test_a_positive_tolerance_is_relative(tolerance, source, tmp_path):
    """Elements within the relative difference are equal, also in one dtype; then the zero-shot tensor is copied."""
    tower = torch.randn(SIZE)
    other = tower * (1 + 1e-4)
    report, out = merged(tmp_path, {"w": tower}, {"w": other}, frozen_tolerance=tolerance)
    assert report.outcomes[0].source == source
    assert torch.equal(out["w"], tower if source == "zeroshot" else 0.5 * tower + 0.5 * other)


@pytest.mark.parametrize("tolerance", [-0.1, 1.0, float("nan")])
def test_impossible_tolerances_are_refused(tolerance, tmp_path):
    """A tolerance is a number from 0 to below 1."""
    with pytest.raises(UsageError, match=r"frozen.tolerance"):
        merged(tmp_path, {"w": torch.ones(1)}, {"w": torch.ones(1)}, frozen_tolerance=tolerance)


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("tolerance", [None, 0.0])
def test_a_sweep_measures_the_weights_that_a_merge_writes(alpha, tolerance, tmp_path):
    """The weights of a sweep have the bytes of the merged file, with the tolerance and without."""
    from mergekit_wise.evaluation.variants import InterpolatedWeights

    tower = torch.randn(50)
    sides = ({"tower": tower.half(), "moved": tower}, {"tower": tower, "moved": tower + 1})
    _, out = merged(tmp_path, *sides, alpha=alpha, frozen_tolerance=tolerance)
    pair = match(open_source(tmp_path / "zs"), open_source(tmp_path / "ft"))
    weights = InterpolatedWeights(pair)
    for name, tensor in out.items():
        info, data = weights.read(Rules(alpha, frozen_tolerance=tolerance), name)
        assert info.dtype.torch == str(tensor.dtype).removeprefix("torch.")
        assert data.tobytes() == tensor.numpy().tobytes()


def test_diff_tells_rounding_from_movement(tmp_path):
    """A tensor that was only rounded is marked, one that moved is not."""
    tower = torch.randn(50)
    saved({"rounded": tower.half(), "moved": tower.half(), "same": tower}, tmp_path / "a")
    saved({"rounded": tower, "moved": tower + 0.1, "same": tower}, tmp_path / "b")
    found = movements(open_source(tmp_path / "a"), open_source(tmp_path / "b"), silent)
    assert {m.name: (m.equal, m.rounded) for m in found} == {
        "rounded": (False, True),
        "moved": (False, False),
        "same": (True, False),
    }


def test_a_frozen_tensor_is_read_from_one_file_only(tmp_path):
    """The source of a plan decides which checkpoints a block is read from."""
    tower = torch.randn(50)
    save_file({"w": tower.half()}, tmp_path / "a")
    save_file({"w": tower}, tmp_path / "b")
    pair = match(open_source(tmp_path / "a"), open_source(tmp_path / "b"))
    (plan,) = make_plan(pair, Rules(frozen_tolerance=0.0))
    mixer = Mixer(pair, open_backend("cpu"))
    assert mixer.checkpoints(mixer.source(plan)) == (pair.finetuned,)
