"""The logits of one batch, in less precision and less memory."""

import pytest
import timm
import torch
from torch import nn

from mergekit_wise.errors import ModelError, UsageError
from mergekit_wise.evaluation.forward import Forward, choose_precision, place
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
