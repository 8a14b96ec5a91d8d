"""A user's own preprocessing in the place of what a model declares: a function of an image, and what tells it apart.

Knows no model and no data set.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import BuiltinFunctionType, FunctionType
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mergekit_wise.errors import ModelError
from mergekit_wise.wording import shown

LIBRARIES = ("torchvision", "open_clip", "timm")
"""Libraries whose transforms say all that they do in their texts, and whose versions records hold."""

_EXACT = (torch.float32, torch.float16, torch.bfloat16)
_LONGEST = 2000


@dataclass(frozen=True, slots=True)
class OwnTransform:
    """A function of an image in the place of `Preprocess`, with the same methods.

    Attributes:
        function: PIL image, or what a data set in memory holds in its place -> float tensor [C, H, W].
        identity: what results with it depend on. Where its text does not say all that it does, as for a function of the
            user's, a text that no other run has, so that results are not reused.
        is_lasting: whether that text is the same in the next run.
        shape: of the tensors; empty before an image was tried.
    """

    function: Callable[[Any], Any]
    identity: str
    is_lasting: bool
    shape: tuple[int, ...] = ()

    @classmethod
    def of(cls, function: "Callable[[Any], Any] | OwnTransform") -> "OwnTransform":
        """The function with its identity; what this gave before stays as it is. Raises ModelError for what is none."""
        if isinstance(function, OwnTransform):
            return function
        if not callable(function) or isinstance(function, type):
            what = f"the class {function.__name__}" if isinstance(function, type) else f"a {type(function).__name__}"
            raise ModelError(f"`transform`: expected a function of an image, found {what}.")
        text = _described(function)
        if text is None:
            name = getattr(function, "__qualname__", None) or type(function).__qualname__
            return cls(function, f"{name}, run {uuid4().hex[:16]}", False)
        return cls(function, shown(text, _LONGEST), True)

    def __call__(self, image: Any) -> Any:
        """What the function makes of an image."""
        return self.function(image)

    @property
    def dtype(self) -> type[np.float32]:
        """Of the values that `pixels` gives."""
        return np.float32

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the tensors."""
        return (self.shape[-2], self.shape[-1])

    @property
    def facts(self) -> dict[str, Any]:
        """What records hold in the place of a model's preprocessing."""
        return {"transform": self.identity, "shape": list(self.shape)}

    @property
    def action(self) -> str:
        """What is done to images, for messages."""
        return "transformed"

    def tried_on(self, image: Any) -> "OwnTransform":
        """The same for tensors of the shape that it makes of `image`. Raises ModelError if that is no such tensor."""
        return replace(self, shape=tuple(self._tensor(image).shape))

    def pixels(self, image: Any) -> Tensor:
        """The model's input, float32 [C, H, W]. Raises ModelError for another shape than that of `shape`."""
        found = self._tensor(image)
        if self.shape and tuple(found.shape) != self.shape:
            raise ModelError(
                f"`transform` gives tensors of different shapes, {list(self.shape)} and {list(found.shape)}. Let it "
                "resize and crop images to one size."
            )
        return found.float()

    def write(self, image: Any, out: NDArray[np.float32]) -> None:
        """As `pixels`, into memory of the same shape."""
        out[...] = self.pixels(image).numpy()

    def normalise(self, pixels: Tensor) -> Tensor:
        """`pixels` as they are: the function has done it."""
        return pixels

    def takes_as_stored(self, image: Image.Image) -> bool:
        """No: images that are stored cropped are transformed as all others."""
        return False

    def _tensor(self, image: Any) -> Tensor:
        found = self.function(image)
        if not isinstance(found, Tensor) or found.ndim != 3 or found.dtype not in _EXACT:
            what = f"a {type(found).__name__}"
            if isinstance(found, Tensor):
                what = f"a tensor of {str(found.dtype).removeprefix('torch.')} and shape {list(found.shape)}"
            raise ModelError(
                f"`transform`: expected a float tensor [C, H, W] for each image, found {what}. The last steps are "
                "usually torchvision's ToTensor() and Normalize(mean, std)."
            )
        return found.detach().cpu().as_subclass(Tensor)


def _described(function: Any) -> str | None:
    """What a transform does, in a text that is the same in every run; None if its text does not say all of it."""
    kind = type(function)
    library = kind.__module__.partition(".")[0]
    if isinstance(function, FunctionType | BuiltinFunctionType):
        module, name = function.__module__ or "", function.__qualname__
        hidden = "<" in name or getattr(function, "__closure__", None)
        return None if hidden or module.partition(".")[0] not in LIBRARIES else f"{module}.{name}"
    if (library, kind.__name__) in {("torchvision", "Compose"), ("torch", "Sequential")}:
        steps = function.transforms if kind.__name__ == "Compose" else list(function)
        texts = [_described(step) for step in steps]
        return None if None in texts else f"{kind.__name__}({', '.join(map(str, texts))})"
    if library == "torch" and kind.__name__ == "Identity":
        return "Identity()"
    text = repr(function)
    varies = any(mark in text for mark in (" at 0x", "Lambda", "Random", "Jitter", "<function", "<lambda>"))
    return None if library not in LIBRARIES or varies else f"{kind.__module__}.{' '.join(text.split())}"
