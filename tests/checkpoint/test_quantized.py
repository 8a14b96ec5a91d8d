"""Tests of quantized weights and low-rank factors, against torch's arithmetic and the names that other tools write."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.checkpoint.low_rank import refuse_low_rank, refuse_placeholders
from mergekit_wise.checkpoint.quantized import dequantized, require_no_parts
from mergekit_wise.errors import CheckpointError

FP8 = torch.float8_e4m3fn


def opened(state, tmp_path, name="x.safetensors"):
    if name.endswith(".pt"):
        torch.save(state, tmp_path / name)
    else:
        save_file({key: tensor.clone() for key, tensor in state.items()}, tmp_path / name)
    return open_checkpoint(tmp_path / name)


def values(checkpoint, name):
    info = checkpoint.info(name)
    assert str(info.dtype) == "float32"
    return torch.from_numpy(checkpoint.read(name).copy()).reshape(info.shape)


def weight(*shape, dtype=FP8):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def blocks(scale, rows, columns):
    return scale.repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)[:, :columns]


W, WIDE = weight(6, 5), weight(200, 300)
PER_ROW, PER_BLOCK = torch.rand(6, 1), torch.rand(2, 3)
SCHEMES = {
    "one factor": ({"a.weight": W, "a.weight_scale": torch.tensor(0.3)}, "a.weight", 0.3),
    "one element": ({"a.weight": W, "a.weight_scale": torch.tensor([0.3])}, "a.weight", 0.3),
    "a bfloat16 factor": ({"a.weight": W, "a.weight_scale": torch.tensor(0.3).bfloat16()}, "a.weight", 0.30078125),
    "rows": ({"a.weight": W, "a.weight_scale": PER_ROW}, "a.weight", PER_ROW),
    "flat rows": ({"a.weight": W, "a.weight_scale": PER_ROW.flatten()}, "a.weight", PER_ROW),
    "ComfyUI": (
        {
            **{"a.weight": W, "a.scale_weight": torch.tensor(0.3), "a.scale_input": torch.tensor(2.0)},
            **{"scaled_fp8": torch.zeros(2).to(FP8)},
        },
        "a.weight",
        0.3,
    ),
    "DeepSeek": (
        {"a.weight": WIDE, "a.weight_scale_inv": PER_BLOCK},
        "a.weight",
        blocks(PER_BLOCK, 200, 300),
    ),
    "no module": ({"weight": W, "weight_scale": torch.tensor(0.3)}, "weight", 0.3),
    "experts": ({"e.gate_up": W, "e.gate_up_scale": PER_ROW}, "e.gate_up", PER_ROW),
    "the other float8": (
        {"a.weight": weight(6, 5, dtype=torch.float8_e5m2), "a.weight_scale": torch.tensor(0.3)},
        "a.weight",
        0.3,
    ),
    "a convolution by rows": (
        {"a.weight": weight(6, 2, 3, 3), "a.weight_scale": torch.rand(6, 1, 1, 1)},
        "a.weight",
        None,
    ),
}


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt"])
@pytest.mark.parametrize(("state", "key", "scale"), SCHEMES.values(), ids=SCHEMES.keys())
def test_scaled_float8_weights_are_the_products(state, key, scale, name, tmp_path):
    """The float32 product with the scale of the tensor, row or block, read whole or in part, as torch computes it."""
    state = {**state, "other.bias": torch.ones(3)}
    checkpoint = dequantized(opened(state, tmp_path, name))
    require_no_parts(checkpoint)
    assert set(checkpoint.tensors) == {key, "other.bias"}
    scale = next(t for n, t in state.items() if n.endswith("_scale")) if scale is None else scale
    wanted = state[key].float() * scale
    assert torch.equal(values(checkpoint, key), wanted)
    assert checkpoint.read(key, 7, 19).tolist() == wanted.flatten()[7:19].tolist()
    assert "float8 weight" in checkpoint.notes[-1]


def test_plain_float8_weights_stay_as_they_are(tmp_path):
    """Weights that were only cast have no scales, and are mixed like any other tensor."""
    checkpoint = opened({"a.weight": W, "a.logit_scale": torch.tensor(3.0)}, tmp_path)
    assert dequantized(checkpoint) is checkpoint


def test_a_scale_of_an_unknown_shape_is_refused(tmp_path):
    """The refusal names the scale and both shapes."""
    checkpoint = opened({"a.weight": W, "a.weight_scale": torch.ones(2, 5)}, tmp_path)
    with pytest.raises(CheckpointError, match=r"a.weight_scale \(float32, shape \[2, 5\]\).*\[6, 5\]"):
        dequantized(checkpoint)


INT = torch.ones(4, 4, dtype=torch.int32)
PARTS = {
    "GPTQ": {"l.qweight": INT, "l.qzeros": INT, "l.scales": torch.ones(4), "l.g_idx": INT},
    "AWQ": {"l.qweight": INT, "l.qzeros": INT, "l.scales": torch.ones(4)},
    "bitsandbytes, 4 bits": {
        **{"l.weight": torch.ones(8, 1, dtype=torch.uint8), "l.weight.absmax": torch.ones(4)},
        **{"l.weight.quant_map": torch.ones(16), "l.weight.quant_state.bitsandbytes__nf4": INT.byte()},
    },
    "bitsandbytes, 8 bits": {"l.weight": INT.to(torch.int8), "l.SCB": torch.ones(4)},
    "compressed-tensors": {"l.weight_packed": INT, "l.weight_scale": torch.ones(4, 1), "l.weight_shape": INT[0]},
    "integers with scales": {"l.weight": INT.to(torch.int8), "l.weight_scale": torch.ones(4, 1)},
    "torchao": {"l._weight_qdata": INT.to(torch.int8), "l._weight_scale": torch.ones(4)},
    "quanto": {"l.weight._data": INT.to(torch.int8), "l.weight._scale": torch.ones(4)},
    "MXFP4": {"e.down_proj_blocks": INT.byte(), "e.down_proj_scales": INT.byte()},
    "HQQ": {"l.W_q": INT.byte(), "l.scale": torch.ones(4)},
    "two scales": {"l.weight": W, "l.weight_scale": torch.ones(1), "l.weight_scale_2": torch.ones(1)},
}


@pytest.mark.parametrize("state", PARTS.values(), ids=PARTS.keys())
def test_parts_of_quantized_weights_are_refused_by_name(state, tmp_path):
    """The refusal names a part and what to do; nothing of such a file is mixed."""
    checkpoint = opened({"norm.weight": torch.ones(3), **state}, tmp_path)
    with pytest.raises(CheckpointError, match="(quantized|scales).*model.dequantize") as caught:
        require_no_parts(dequantized(checkpoint))
    assert any(name in str(caught.value) for name in state)


def test_ordinary_names_are_no_parts(tmp_path):
    """Scales and codes of ordinary layers, integer buffers among them, are weights like any other."""
    names = (
        "logit_scale",
        "norm.scale",
        "ls1.gamma",
        "layer_scale",
        "vq.codes",
        "rel.scales",
        "transformer_blocks.0.w",
    )
    state = {name: torch.ones(3) for name in names} | {"rel.index": INT, "bn.num_batches_tracked": torch.tensor(3)}
    checkpoint = dequantized(opened(state, tmp_path))
    require_no_parts(checkpoint)
    refuse_low_rank(checkpoint)
    refuse_placeholders(checkpoint)


FACTORS = {
    "PEFT": "base_model.model.q.lora_A.weight",
    "PEFT with a name": "base_model.model.q.lora_B.default.weight",
    "kohya": "lora_unet_down_blocks_0_q.lora_up.weight",
    "diffusers": "unet.q.lora.down.lora_down.weight",
    "LoHa": "lora_te_layer.hada_w1_a",
    "LoKr": "lora_te_layer.lokr_w2",
    "DoRA": "q.lora_magnitude_vector.default.weight",
    "IA3": "q.ia3_l",
}


@pytest.mark.parametrize("name", FACTORS.values(), ids=FACTORS.keys())
def test_low_rank_factors_are_refused_by_name(name, tmp_path):
    """The refusal says how to merge them into the weights of the base model."""
    with pytest.raises(CheckpointError, match="low-rank.*merge_and_unload") as caught:
        refuse_low_rank(opened({name: torch.ones(4, 2), "x.weight": torch.ones(3)}, tmp_path))
    assert name in str(caught.value)


def test_placeholders_are_refused(tmp_path):
    """A file of which most tensors are empty was saved without its values."""
    state = {f"{i}.weight": torch.empty(0) for i in range(3)}
    with pytest.raises(CheckpointError, match=r"3 of 4 tensors are empty.*zero_to_fp32\.py"):
        refuse_placeholders(opened({**state, "buffer": torch.ones(2)}, tmp_path))


def test_a_merge_of_scaled_weights_mixes_the_products(wise, tmp_path):
    """The merged file holds the mean of what the two models compute with, in the dtype that was asked for."""
    torch.manual_seed(0)
    pair = []
    for side in ("zs", "ft"):
        numbers = torch.randn(6, 5)
        scale = numbers.abs().amax(1, keepdim=True) / 448
        save_file({"l.weight": (numbers / scale).to(FP8), "l.weight_scale": scale}, tmp_path / side)
        pair.append((numbers / scale).to(FP8).float() * scale)
    for dtype in ("float32", "bfloat16"):
        result = wise("merge", tmp_path / "zs", tmp_path / "ft", "-o", tmp_path / dtype, "--dtype", dtype)
        assert result.exit_code == 0, result.output
        assert "dequantized 1 float8 weight" in result.stderr
        merged = load_file(tmp_path / dtype)
        assert list(merged) == ["l.weight"]
        assert torch.equal(merged["l.weight"], (0.5 * pair[0] + 0.5 * pair[1]).to(getattr(torch, dtype)))
    verified = wise("verify", tmp_path / "float32", "--zeroshot", tmp_path / "zs", "--finetuned", tmp_path / "ft")
    assert verified.exit_code == 0, verified.output


@pytest.mark.parametrize("state", [PARTS["GPTQ"], {FACTORS["PEFT"]: torch.ones(4, 2)}], ids=["quantized", "low rank"])
def test_inspect_shows_what_merge_refuses(state, wise, tmp_path):
    """The parts are listed with a note that gives the reason, where a merge is refused for it."""
    opened(state, tmp_path, "x").close()
    shown = wise("inspect", tmp_path / "x")
    assert shown.exit_code == 0
    assert "cannot be used as weights" in shown.stderr
    refused = wise("merge", tmp_path / "x", tmp_path / "x", "-o", tmp_path / "y")
    assert refused.exit_code == 1
    assert not (tmp_path / "y").exists()
