"""One batch through one module: pixels in, logits out, in as little memory and precision as was asked for.

Knows no data set and no alpha.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mergekit_wise.errors import ModelError, UsageError
from mergekit_wise.models.classifier import Classifier
from mergekit_wise.models.timm_classifier import TimmClassifier
from mergekit_wise.models.transform import Preprocess

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# How torch's backends say that memory ran out, where they raise no OutOfMemoryError.
_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed", "insufficient memory")


def choose_precision(asked: str, device: torch.device) -> Precision:
    """What `--precision` means on a device: auto is bf16 on CUDA, fp16 where a card has no bf16, else fp32.

    Raises UsageError.
    """
    if asked == "auto":
        if device.type != "cuda":
            return "fp32"
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    for precision in DTYPES:
        if asked == precision:
            return precision  # type: ignore[return-value]
    raise UsageError(f"--precision {asked}: expected fp32, bf16, fp16 or auto.")


def place(module: nn.Module, device: torch.device) -> None:
    """Move a module to where it computes, in the layout that is fast there. Raises ModelError if it is too large."""
    try:
        module.to(device)
        if device.type == "cuda" and _is_convolutional(module):  # pragma: no cover: needs a GPU
            module.to(memory_format=torch.channels_last)
    except RuntimeError as error:
        if not is_memory_error(error):
            raise
        raise ModelError(f"The model does not fit into the memory of {device}. Use --device cpu.") from error


@dataclass(slots=True)
class Forward:
    """Computes logits of batches; halves how many images it computes at once when memory runs out.

    Attributes:
        module: normalised images [B, 3, H, W] -> logits [B, C].
        preprocess: normalises.
        device: where the module is.
        precision: of what autocast lets be computed in less. Weights stay in float32, and so do the heads of
            `Classifier` and of timm's models: rounded to 8 bits, many of their logits would be equal.
        note: is told when fewer images are computed at once than were given.
        size: images at once; None until the first batch says it.
    """

    module: nn.Module
    preprocess: Preprocess
    device: torch.device
    precision: Precision
    note: Callable[[str], None]
    size: int | None = None

    def __call__(self, pixels: Tensor) -> Tensor:
        """Logits float32 [B, C] of uint8 [B, 3, H, W].

        Every call of the module has the same shape, the last one padded, so that no image is computed by another
        kernel than the rest. Raises ModelError if not even one image fits into memory.
        """
        return self._in_parts(pixels, lambda part: _logits(self.module, self._images(part))).float()

    def features(self, pixels: Tensor) -> Tensor:
        """What the head is applied to, [B, D]: ``classify(features(pixels))`` does what calling does."""
        return self._in_parts(pixels, lambda part: self.module.encode(self._images(part)))  # type: ignore[operator]

    def classify(self, features: Tensor) -> Tensor:
        """Logits float32 [B, C] of features [B, D]."""
        head = self.module.classification_head
        assert isinstance(head, nn.Linear)
        return self._in_parts(features, lambda part: _exactly(head, part))

    def _in_parts(self, batch: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        self.size = self.size or len(batch)
        while True:
            try:
                with _computing_in(self.precision, self.device):
                    return torch.cat([_padded(part, self.size, compute) for part in torch.split(batch, self.size)])
            except RuntimeError as error:
                if not is_memory_error(error):
                    raise
            # Not in the handler: the traceback would keep alive what filled the memory.
            self._halve()

    def _images(self, pixels: Tensor) -> Tensor:
        images = self.preprocess.normalise(pixels)
        if self.device.type == "cuda" and _is_convolutional(self.module):  # pragma: no cover: needs a GPU
            images = images.contiguous(memory_format=torch.channels_last)
        return images

    def _halve(self) -> None:
        assert self.size is not None
        if self.size == 1:
            raise ModelError(
                f"The memory of {self.device} does not hold what one image needs. Use --device cpu or --precision."
            )
        self.size = (self.size + 1) // 2
        self.note(f"memory ran out: computing {self.size} images at once from here on")
        gc.collect()
        if self.device.type == "cuda":  # pragma: no cover: needs a GPU
            torch.cuda.empty_cache()


def _padded(part: Tensor, size: int, compute: Callable[[Tensor], Tensor]) -> Tensor:
    padding = part.new_zeros(size - len(part), *part.shape[1:])
    return compute(torch.cat([part, padding]) if len(padding) else part)[: len(part)]


def is_memory_error(error: RuntimeError) -> bool:
    """Whether it says that memory ran out; only CUDA has an exception of its own for that."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(words in text for words in _MEMORY)


def _is_convolutional(module: nn.Module) -> bool:  # pragma: no cover: asked for a GPU alone
    """More than one convolution: a vision transformer has one, which cuts the image into patches."""
    return sum(isinstance(part, nn.Conv2d) for part in module.modules()) > 1


def _logits(module: nn.Module, images: Tensor) -> Tensor:
    halves = _halves(module)
    if halves is None or not torch.is_autocast_enabled(images.device.type):
        logits: Tensor = module(images)
        return logits
    encode, head = halves
    return _exactly(head, encode(images))


def _exactly(head: nn.Linear, features: Tensor) -> Tensor:
    """What the head makes of features in float32, whatever these were computed in."""
    with torch.autocast(features.device.type, enabled=False):
        logits: Tensor = head(features.float())
    return logits


def _halves(module: nn.Module) -> tuple[Callable[[Tensor], Tensor], nn.Linear] | None:
    """What makes features, and the layer that makes logits of them; None if there is no single one."""
    if isinstance(module, Classifier) and module.classification_head is not None:
        return module.encode, module.classification_head
    last = module.model.get_classifier() if isinstance(module, TimmClassifier) else None
    return (module.encode, last) if isinstance(module, TimmClassifier) and isinstance(last, nn.Linear) else None


@contextmanager
def _computing_in(precision: Precision, device: torch.device) -> Iterator[None]:
    if precision != "fp32":
        with torch.autocast(device.type, DTYPES[precision]):
            yield
    elif device.type == "cuda":  # pragma: no cover: needs a GPU
        # By default torch lets convolutions round what they multiply to 10 bits (TF32), which is not float32.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    else:
        yield
