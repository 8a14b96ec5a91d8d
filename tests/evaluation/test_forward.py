"""The logits of one batch, in less precision and less memory."""

import pytest
import timm
import torch
from torch import nn

from mergekit_wise.errors import ModelError, UsageError
from mergekit_wise.evaluation.forward import Forward, autocast, choose_precision, place, whole_float32
from mergekit_wise.models.classifier import Classifier
from mergekit_wise.models.timm_classifier import TimmClassifier
from tests.evaluation.fakes import PREPROCESS, linear

CPU = torch.device("cpu")
PIXELS = torch.randint(0, 256, (13, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Limited(nn.Module):
    """Runs out of memory for more than `limit` images; remembers what it was given."""

    def __init__(self, limit, error):
        super().__init__()
        self.inner, self.limit, self.error, self.seen = linear(), limit, error, []

    def forward(self, images):
        self.seen.append(len(images))
        if len(images) > self.limit:
            raise self.error
        return self.inner(images)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1000 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("MPS backend out of memory"),
    ],
)
@pytest.mark.parametrize("limit", [1, 4, 13])
def test_when_memory_runs_out_fewer_images_are_computed_at_once(error, limit):
    """The logits are unchanged, the smaller shape is kept, and each reduction is noted."""
    module, notes = Limited(limit, error), []
    forward = Forward(module, PREPROCESS, CPU, "fp32", notes.append)
    wanted = module.inner(PREPROCESS.normalise(PIXELS))
    torch.testing.assert_close(forward(PIXELS), wanted)
    module.seen.clear()
    torch.testing.assert_close(forward(PIXELS), wanted)
    assert len(set(module.seen)) == 1
    assert module.seen[0] <= limit
    assert len(notes) == {13: 0, 4: 2, 1: 4}[limit]


def test_one_image_that_does_not_fit_is_an_error_and_other_errors_are_left_alone():
    """Errors of the module itself are raised unchanged."""
    with pytest.raises(ModelError, match="One image does not fit.*--device cpu"):
        Forward(Limited(0, torch.OutOfMemoryError("out of memory")), PREPROCESS, CPU, "fp32", print)(PIXELS)
    with pytest.raises(RuntimeError, match="shapes"):
        Forward(Limited(0, RuntimeError("shapes differ")), PREPROCESS, CPU, "fp32", print)(PIXELS)


class Heavy(nn.Module):
    """Cannot be moved."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def to(self, *_, **__):
        raise self.error


def test_a_model_that_does_not_fit_is_an_error_and_other_errors_are_left_alone():
    """Errors of the driver are raised unchanged."""
    with pytest.raises(ModelError, match=r"does not fit into the memory of cpu\. Use --device cpu"):
        place(Heavy(torch.OutOfMemoryError("CUDA out of memory.")), CPU)
    with pytest.raises(RuntimeError, match="no kernel image"):
        place(Heavy(RuntimeError("no kernel image is available")), CPU)


def test_less_precision_leaves_weights_and_logits_in_float32():
    """The logits are close to those of float32, but computed by autocast."""
    module = linear()
    logits = Forward(module, PREPROCESS, CPU, "bf16", print)(PIXELS)
    assert logits.dtype == module[1].weight.dtype == torch.float32
    exact = module(PREPROCESS.normalise(PIXELS))
    assert not torch.equal(logits, exact)
    torch.testing.assert_close(logits, exact, atol=0.05, rtol=0.05)


def test_the_head_of_a_classifier_is_not_rounded():
    """Two classes whose weights are equal in bfloat16 have different logits, also in timm's models."""
    torch.manual_seed(0)
    visual = nn.Sequential(nn.Flatten(), nn.Linear(192, 16))
    clip = Classifier(visual, 16, 2).eval()
    resnet = timm.create_model("test_resnet", num_classes=2).eval()
    for module, head in ((clip, clip.classification_head), (TimmClassifier(resnet), resnet.get_classifier())):
        with torch.no_grad():
            head.weight[1] = head.weight[0] * (1 + 1e-4)
            head.bias.copy_(torch.tensor([0.0, 1e-4]))
        with torch.inference_mode():
            forward = Forward(module, PREPROCESS, CPU, "bf16", print)
            logits = forward(PIXELS)
            exact = Forward(module, PREPROCESS, CPU, "fp32", print)(PIXELS)
        assert (logits[:, 0] != logits[:, 1]).all()
        assert not torch.equal(logits, exact)
        torch.testing.assert_close(logits, exact, atol=0.05, rtol=0.05)


def test_precisions_by_name():
    """On the CPU auto is float32; an unknown name is an error of usage."""
    assert [choose_precision(name, CPU) for name in ("auto", "fp32", "bf16", "fp16")] == [
        "fp32",
        "fp32",
        "bf16",
        "fp16",
    ]
    with pytest.raises(UsageError, match="expected fp32, bf16, fp16 or auto"):
        choose_precision("int8", CPU)


@pytest.mark.parametrize(("has_bf16", "wanted"), [(True, "bf16"), (False, "fp16")])
def test_auto_is_what_the_card_computes_by_itself(has_bf16, wanted, monkeypatch):
    """Emulated bfloat16 is slower than float32, so it is used only if it is asked for by name."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16 or including_emulation)
    assert choose_precision("auto", torch.device("cuda")) == wanted
    assert choose_precision("bf16", torch.device("cuda")) == "bf16"


SETTINGS = (
    "pass",
    "torch.set_float32_matmul_precision('medium')",
    "torch.backends.cudnn.allow_tf32 = False",
    "torch.backends.cuda.matmul.allow_tf32 = True",
    "torch.backends.fp32_precision = 'tf32'",
    "torch.backends.cudnn.conv.fp32_precision = 'ieee'",
)


def allowed():
    """What torch says of the precision of float32, by its older and newer settings; None where they contradict."""
    backends, found = torch.backends, []
    for read in (
        torch.get_float32_matmul_precision,
        lambda: backends.cuda.matmul.allow_tf32,
        lambda: backends.cudnn.allow_tf32,
        lambda: backends.cuda.matmul.fp32_precision,
        lambda: [backends.cudnn.conv.fp32_precision, backends.cudnn.rnn.fp32_precision],
        lambda: [backends.mkldnn.matmul.fp32_precision, backends.mkldnn.conv.fp32_precision],
    ):
        try:
            found.append(read())
        except RuntimeError:
            found.append(None)
    return found


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="settings of torch from 2.9 on")
def test_float32_is_computed_whole_whatever_the_program_allows_and_its_settings_return():
    """By the older settings and the newer ones, also where these contradict each other; in blocks within blocks."""
    first = allowed()
    with whole_float32(), whole_float32(), torch.backends.cudnn.flags(enabled=True, deterministic=True):
        assert first[:3] == ["highest", False, True]
    try:
        for setting in SETTINGS:
            exec(setting)
            before = allowed()
            with whole_float32():
                *older, products, on_gpu, on_cpu = allowed()
                assert [products, *on_gpu, *on_cpu] == ["ieee"] * 5
                assert older[:2] == ["highest", False]  # torch refuses to multiply where these contradict the newer
            assert allowed() == before
    finally:
        torch.backends.fp32_precision = "none"
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = True
        for part in (torch.backends.cudnn.conv, torch.backends.cudnn.rnn):
            part.fp32_precision = "tf32"
    assert first[:3] == allowed()[:3] == ["highest", False, True]


def test_fp32_means_float32_inside_of_a_callers_autocast():
    """A program's own lower precision has no effect on what is recorded as fp32."""
    module = linear()
    wanted = Forward(module, PREPROCESS, CPU, "fp32", print)(PIXELS)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(Forward(module, PREPROCESS, CPU, "fp32", print)(PIXELS), wanted)
    with autocast("bf16", CPU):
        assert module(PREPROCESS.normalise(PIXELS)).dtype == torch.bfloat16


def test_a_batch_smaller_than_an_earlier_one_is_not_padded_to_its_size():
    """Only what fits into memory bounds how many images are computed at once."""
    module = Limited(8, torch.OutOfMemoryError("CUDA out of memory."))
    forward = Forward(module, PREPROCESS, CPU, "fp32", lambda _: None)
    forward(PIXELS)
    module.seen.clear()
    forward(PIXELS[:3])
    forward(PIXELS[:9])
    assert module.seen == [3, 5, 5]


def test_the_constants_of_normalising_are_sent_to_a_device_once():
    """They are the same tensors for every batch, and usable where gradients are computed."""
    from mergekit_wise.models.transform import _constants

    with torch.inference_mode():
        PREPROCESS.normalise(PIXELS)
    before = _constants.cache_info().misses
    for _ in range(3):
        PREPROCESS.normalise(PIXELS)
    assert _constants.cache_info().misses == before
    assert not any(each.is_inference() for each in _constants(PREPROCESS.mean, PREPROCESS.std, CPU))
