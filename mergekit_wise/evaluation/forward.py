"""Computes the logits of one batch, in the requested precision and in parts that fit into memory.

Knows no data set and no alpha.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from mergekit_wise.errors import ModelError, UsageError
from mergekit_wise.evaluation.constant_prefix import ConstantPrefix, constant_prefixes
from mergekit_wise.evaluation.image_batches import Preprocessing
from mergekit_wise.merging.torch_backend import is_memory_error as is_memory_error
from mergekit_wise.merging.torch_backend import release
from mergekit_wise.models.classifier import Classifier
from mergekit_wise.models.timm_classifier import TimmClassifier

Precision = Literal["fp32", "bf16", "fp16"]
T = TypeVar("T")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_TRIED, _TRIES = 3, 4
"""Images of noise on which `Forward.constant_prefix` is tried, and how often."""


def choose_precision(asked: str, device: torch.device) -> Precision:
    """The precision that `--precision` selects on a device: auto is bf16 on CUDA, or fp16 if the GPU has no bf16.

    Elsewhere auto is fp32. Raises UsageError.
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
    """Move a module to a device, in the memory layout that is fast there. Raises ModelError if it is too large."""
    with within_memory(f"The model does not fit into the memory of {device}. Use --device cpu."):
        module.to(device)
        if device.type == "cuda" and _is_convolutional(module):  # pragma: no cover: needs a GPU
            module.to(memory_format=torch.channels_last)


@contextmanager
def within_memory(sentence: str) -> Iterator[None]:
    """Raise ModelError with this sentence where memory runs out."""
    try:
        yield
    except RuntimeError as error:
        if not is_memory_error(error):
            raise
        raise ModelError(sentence) from error


@dataclass(slots=True)
class Forward:
    """Computes logits of batches; halves the number of images computed at once when memory runs out.

    Attributes:
        module: normalised images [B, 3, H, W] -> logits [B, C].
        preprocess: normalises images.
        device: of the module.
        precision: of autocast. Weights stay in float32, and so do the heads of `Classifier` and of timm's models:
            rounded to 8 bits, many logits would be equal.
        note: called with a note when fewer images are computed at once.
        size: how many images are computed at once at most; None before memory has run out.
        last: the last layer of a timm model whose logits are that layer of its features, as `splits` found.
    """

    module: nn.Module
    preprocess: Preprocessing
    device: torch.device
    precision: Precision
    note: Callable[[str], None]
    size: int | None = None
    last: nn.Linear | None = None
    _asked: bool = False

    def __call__(self, pixels: Tensor) -> Tensor:
        """Logits float32 [B, C] of pixels uint8 [B, 3, H, W], or of what a transform of the user's made of images.

        Every call of the module for a batch has the same shape, the last one padded, so that all its images are
        computed by the same kernel. Raises ModelError if not even one image fits into memory.
        """
        (logits,) = self._in_parts(pixels, lambda part: [self._logits(self._images(part))])
        return logits.float()

    def recorded(self, pixels: Tensor, prefix: ConstantPrefix) -> tuple[Tensor, Tensor]:
        """The same logits, and what `prefix` keeps [B, ...] for `continued`."""

        def compute(part: Tensor) -> list[Tensor]:
            kept: list[Tensor] = []
            with prefix.recording(kept):
                return [self._logits(self._images(part)), *kept]

        logits, kept = self._in_parts(pixels, compute)
        return logits.float(), kept

    def continued(self, kept: Tensor, prefix: ConstantPrefix) -> Tensor:
        """Logits float32 [B, C] of the images for which `recorded` kept this, in whose first part nothing changed."""

        def compute(part: Tensor) -> list[Tensor]:
            images = torch.zeros((), device=self.device).expand(len(part), 3, *self.preprocess.size)
            with prefix.skipping(part):
                return [self._logits(images)]

        (logits,) = self._in_parts(kept, compute)
        return logits.float()

    def constant_prefix(
        self, settings: Sequence[Callable[[], None]], varying: Collection[str]
    ) -> ConstantPrefix | None:
        """The longest part of the forward pass that is found to be the same with all settings of the weights.

        It is tried on images of noise: with the first and with the last setting, computing the whole must give the same
        bits. None if no part passes. `varying` are names of the module's tensors that are not the same in all settings.
        """
        height, width = self.preprocess.size
        generator = torch.Generator().manual_seed(0)
        noise = torch.randint(0, 256, (_TRIED, 3, height, width), dtype=torch.uint8, generator=generator)
        noise = noise.to(self.device)
        settings[0]()
        self.splits()
        own = replace(self, size=None)  # these few images do not decide how many are computed at once
        with autocast(self.precision, self.device):
            found = constant_prefixes(self.module, self._logits, self._images(noise), varying)
        with torch.inference_mode():
            for prefix in found[:_TRIES]:
                settings[0]()
                logits, kept = own.recorded(noise, prefix)
                same = torch.equal(own.continued(kept, prefix), logits) and torch.equal(own(noise), logits)
                settings[-1]()
                if same and torch.equal(own.continued(kept, prefix), own(noise)):
                    return prefix
        return None

    def splits(self) -> bool:
        """Whether logits are one linear layer of features, which then is applied in float32.

        A timm model is asked with one image of noise, once its weights are set.
        """
        module = self.module
        if isinstance(module, TimmClassifier) and not self._asked:
            height, width = self.preprocess.size
            noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
            self.last, self._asked = module.linear_head(noise.to(self.device)), True
        return self._head() is not None

    def _head(self) -> nn.Linear | None:
        return self.module.classification_head if isinstance(self.module, Classifier) else self.last

    def _logits(self, images: Tensor) -> Tensor:
        """Logits of normalised images; in lower precisions the head is applied in float32 where that is possible."""
        if torch.is_autocast_enabled(images.device.type) and self.splits():
            head = self._head()
            assert head is not None
            return self._apply(head, self.module.encode(images))  # type: ignore[operator]
        logits: Tensor = self.module(images)
        return logits

    def _apply(self, head: nn.Linear, features: Tensor) -> Tensor:
        """The head applied in float32, whatever the precision of the features."""
        with torch.autocast(features.device.type, enabled=False):
            logits: Tensor = head(features.float())
        return logits

    def _in_parts(self, batch: Tensor, compute: Callable[[Tensor], list[Tensor]]) -> list[Tensor]:
        while True:
            size = even_size(len(batch), self.size or len(batch))
            try:
                with autocast(self.precision, self.device):
                    parts = [_padded(part, size, compute) for part in torch.split(batch, size)]
                    return [each[0] if len(each) == 1 else torch.cat(each) for each in zip(*parts, strict=True)]
            except RuntimeError as error:
                if not is_memory_error(error):
                    raise
            # Not in the handler, where the traceback would keep alive what filled the memory.
            self._halve(size)

    def _images(self, pixels: Tensor) -> Tensor:
        images = self.preprocess.normalise(pixels)
        if self.device.type == "cuda" and _is_convolutional(self.module):  # pragma: no cover: needs a GPU
            images = images.contiguous(memory_format=torch.channels_last)
        return images

    def _halve(self, size: int) -> None:
        if size == 1:
            raise ModelError(
                f"One image does not fit into the memory of {self.device}. Use --device cpu or a lower --precision."
            )
        self.size = (size + 1) // 2
        images = "1 image" if self.size == 1 else f"{self.size} images"
        self.note(f"memory ran out: computing {images} at once from here on")
        release(self.device)


def even_size(count: int, most: int) -> int:
    """The size of as few parts as possible of `count` images, of at most `most` each, that waste the fewest places."""
    return ceil(count / max(1, ceil(count / most)))


def _padded(part: Tensor, size: int, compute: Callable[[Tensor], list[Tensor]]) -> list[Tensor]:
    padding = part.new_zeros(size - len(part), *part.shape[1:])
    return [found[: len(part)] for found in compute(torch.cat([part, padding]) if len(padding) else part)]


def _is_convolutional(module: nn.Module) -> bool:  # pragma: no cover: asked for a GPU alone
    """Whether there is more than one convolution: a vision transformer has one, which makes patches of the image."""
    return sum(isinstance(part, nn.Conv2d) for part in module.modules()) > 1


@contextmanager
def autocast(precision: Precision, device: torch.device) -> Iterator[None]:
    """Compute in a precision on a device; what remains in float32 is computed in float32 throughout.

    Within another one the operations' copies of the weights in the lower precision are kept until that ends, so weights
    must not be set before.
    """
    # Also switched off: a caller may have switched it on.
    lower = DTYPES[precision] if precision != "fp32" else None
    with whole_float32(), torch.autocast(device.type, lower, enabled=lower is not None):
        yield


@contextmanager
def whole_float32() -> Iterator[None]:
    """Multiply float32 numbers as they are, on every device, whatever the process allows outside of the block.

    By default torch rounds the factors of convolutions to 10 bits on NVIDIA's GPUs (TF32), and where a program allows
    it also those of other products, on CPUs to 7 bits.
    """
    products, convolutions = _readable(torch.get_float32_matmul_precision), _readable(_tf32_in_convolutions)
    settings = _settings()
    before = [each.fp32_precision for each in settings]
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    for each in settings:
        each.fp32_precision = "ieee"
    try:
        yield
    finally:
        if products is not None:
            torch.set_float32_matmul_precision(products)
        if convolutions is not None:
            torch.backends.cudnn.allow_tf32 = convolutions
        for each, value in zip(settings, before, strict=True):
            each.fp32_precision = value


def _settings() -> list[Any]:
    """What torch from 2.9 on asks for each library and operation; it contradicts the two older settings if it differs.

    Empty in earlier versions.
    """
    found = [getattr(torch.backends.cuda, "matmul", None)]
    for library in (torch.backends.cudnn, torch.backends.mkldnn):
        found += [getattr(library, operation, None) for operation in ("matmul", "conv", "rnn")]
    return [each for each in found if hasattr(each, "fp32_precision")]


def _tf32_in_convolutions() -> bool:
    return torch.backends.cudnn.allow_tf32


def _readable(read: Callable[[], T]) -> T | None:
    """One of the two older settings; None where newer ones contradict it, so that torch refuses to tell it."""
    try:
        return read()
    except RuntimeError:
        return None
