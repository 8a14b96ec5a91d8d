"""Arbitrary files, merged at arbitrary alphas, against independent arithmetic in float64."""

from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from mergekit_wise.api.merge import merge
from mergekit_wise.merging.backends import Backend, compiled, mix_on_cpu

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
OTHERS = (torch.int64, torch.uint8, torch.bool)


@st.composite
def tensors(draw):
    """Two tensors of one shape and their strides in the file: dense, transposed, every second, or expanded."""
    shape = draw(st.lists(st.integers(0, 9), max_size=3))
    kinds = st.sampled_from(FLOATS if draw(st.booleans()) else draw(st.sampled_from([(kind,) for kind in OTHERS])))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1 << 30)))
    scale = draw(st.sampled_from([1e-6, 1.0, 100.0]))

    def one():
        values = (torch.randn([2 * size for size in shape], generator=generator) * scale).to(draw(kinds))
        match draw(st.sampled_from(["dense", "transposed", "every second"])):
            case "dense":
                return values[tuple(slice(size) for size in shape)].clone()
            case "transposed":
                return (
                    values[tuple(slice(size) for size in shape)].mT.contiguous().mT
                    if len(shape) > 1
                    else values[tuple(slice(size) for size in shape)]
                )
            case _:
                return values[tuple(slice(None, None, 2) for _ in shape)]

    return one(), one()


def save(named, path, form):
    if form == "pt":
        torch.save(named, path, _use_new_zipfile_serialization=True)
    elif form == "legacy":
        torch.save(named, path, _use_new_zipfile_serialization=False)
    else:
        save_file({name: tensor.contiguous().clone() for name, tensor in named.items()}, path)


def merged(paths, output, alpha, backend, use_compiled):
    module = compiled if use_compiled else None
    with (
        patch("mergekit_wise.api.merge.open_backend", lambda *_: backend),
        patch("mergekit_wise.merging.backends.compiled", module),
    ):
        merge(*paths, output, alpha=alpha, allow_non_finite=True)
    return output.read_bytes()


def tolerance(a, b, alpha, exact, out):
    """The rounding errors of the output, both products, both coefficients and the sum."""
    info = torch.finfo(out)
    unit = torch.maximum(torch.exp2(torch.floor(torch.log2(exact.abs()))) * info.eps, _smallest(info))
    working = torch.finfo(torch.float64 if torch.float64 in (a.dtype, b.dtype) else torch.float32).eps
    products = (1 - alpha) * a.double().abs() + alpha * b.double().abs()
    return 0.5 * unit + 1.5 * working * products + 1e-44


def _smallest(info):
    return torch.tensor(info.tiny * info.eps, dtype=torch.float64)


@settings(max_examples=150, deadline=None)
@given(
    pairs=st.lists(tensors(), min_size=1, max_size=4),
    alpha=st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1)),
    forms=st.tuples(*[st.sampled_from(["pt", "legacy", "safetensors"])] * 2),
    backends=st.tuples(
        *[st.builds(Backend, st.just(mix_on_cpu), st.integers(1, 4), st.integers(1, 40), st.integers(1, 90))] * 2
    ),
)
def test_any_files_are_merged_correctly_at_any_alpha(pairs, alpha, forms, backends):
    """Results are close to float64's, do not depend on blocks, threads or compiled code, and are copies at 0 and 1."""
    sides = [{f"t{number}": pair[side] for number, pair in enumerate(pairs)} for side in (0, 1)]
    with TemporaryDirectory() as name:
        folder = Path(name)
        paths = [folder / f"{side}.{form}" for side, form in enumerate(forms)]
        for side, path, form in zip(sides, paths, forms, strict=True):
            save(side, path, form)
        data = merged(paths, folder / "one.safetensors", alpha, backends[0], use_compiled=True)
        assert data == merged(paths, folder / "two.safetensors", alpha, backends[1], use_compiled=False)
        result = load_file(folder / "one.safetensors")
    for key, (a, b) in zip(sides[0], pairs, strict=True):
        out = result[key]
        assert out.shape == a.shape
        if alpha in (0, 1) or not out.dtype.is_floating_point:
            source = a if alpha == 0 else b
            assert out.dtype == source.dtype
            assert torch.equal(out, source)
            continue
        assert out.dtype == torch.promote_types(a.dtype, b.dtype)
        exact = (1 - alpha) * a.double() + alpha * b.double()
        wrong = (out.double() - exact).abs() > tolerance(a, b, alpha, exact, out.dtype)
        overflow = exact.abs() >= torch.finfo(out.dtype).max
        assert not (wrong & ~overflow).any()
