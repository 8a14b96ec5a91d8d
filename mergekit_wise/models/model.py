"""A checkpoint as a module with a head: its weights are set in place, by the checkpoint's own names.

Knows no file, no data set, and not how the architecture was found.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mergekit_wise.checkpoint import TensorInfo
from mergekit_wise.errors import ModelError
from mergekit_wise.merging.torch_backend import as_tensor
from mergekit_wise.models.classifier import Classifier
from mergekit_wise.models.places import Place
from mergekit_wise.models.timm_classifier import TimmClassifier
from mergekit_wise.models.towers import encode_texts
from mergekit_wise.models.zeroshot import zero_shot_head
from mergekit_wise.progress import Progress, silent

Tokenizer = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True)
class Model:
    """A module, and what it takes to use it.

    Attributes:
        module: images float [B, 3, H, W], normalised -> logits [B, C]. ``module.encode(images)`` gives the features
            [B, D] that the head is applied to; those of a CLIP have length 1. In evaluation mode; its weights are
            arbitrary until they are set.
        preprocess: open_clip's ``preprocess_cfg`` (size, mean, std, interpolation, resize_mode, fill_color); of a timm
            model also ``crop_pct``, the share of the resized image's shorter side that is cropped.
        architecture: what it is and who says so, for records.
        config: what open_clip_config.json would hold ("model_cfg", "preprocess_cfg"); empty for a timm model.
        places: the checkpoint's names of all tensors that evaluation needs, and where they go in the module.
        has_own_head: whether the head comes from a checkpoint.
        create_tokenizer: makes what turns texts into tokens int64 [B, L]; None without a text tower.
    """

    module: Classifier | TimmClassifier
    preprocess: Mapping[str, Any]
    architecture: str
    config: Mapping[str, Any]
    places: Mapping[str, Place]
    has_own_head: bool
    create_tokenizer: Callable[[], Tokenizer] | None = None

    @property
    def names(self) -> dict[str, str]:
        """The checkpoint's tensor names -> the module's; what is not among them, evaluation does not need."""
        return {name: place.name for name, place in self.places.items()}

    @property
    def has_text_tower(self) -> bool:
        """Whether heads can be made from class names."""
        return self.create_tokenizer is not None

    @property
    def classes(self) -> int | None:
        """How many classes the head has; None as long as there is none."""
        return self.module.classes

    @property
    def head(self) -> str:
        """Where the head comes from, for people."""
        return f"own, {self.classes} classes{self.manner}" if self.has_own_head else "zero-shot"

    @property
    def manner(self) -> str:
        """What is unusual in how the head is applied, for people; else nothing."""
        raw = isinstance(self.module, Classifier) and not self.module.normalize
        return ", features not normalised" if raw else ""

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Texts -> tokens. Raises ModelError without a text tower, or if a tokenizer would have to be fetched."""
        if self.create_tokenizer is None:
            raise ModelError(f"{self.architecture}: has no text tower, which class names need.")
        return self.create_tokenizer()

    def set_weights(self, tensors: Mapping[str, tuple[TensorInfo, NDArray[np.generic] | Tensor]]) -> None:
        """Copy tensors into the module, in place and on its device, by the checkpoint's names.

        Each is given with its dtype's storage, flattened or not, or as a tensor; any dtype will do, and the copy is
        exact where the module's is as wide. Names that are not among `names` are passed over.
        """
        fill(self.module, self.places, tensors)

    def use_head(self, weight: Tensor) -> None:
        """Install a zero-shot head, float [C, D]. Raises ModelError if the model is a classifier of timm's."""
        if not isinstance(self.module, Classifier):
            raise ModelError(f"{self.architecture}: has its own classifier, and no place for another head.")
        self.module.use_head(weight)

    def zeroshot_head(self, classnames: Sequence[str], templates: Sequence[str], progress: Progress = silent) -> Tensor:
        """The head that the text tower, with the weights set now, makes of class names: float32 [C, D] on its device.

        ``exp(logit_scale)`` is in it; the bias that goes with it is zero. Raises ModelError without a text tower.
        """
        tokenize = self.tokenizer
        assert isinstance(self.module, Classifier)
        tower, scale = self.module.text, self.module.logit_scale
        assert tower is not None
        assert scale is not None
        weight, _ = zero_shot_head(
            lambda texts: encode_texts(tower, tokenize(texts).to(scale.device)).float(),
            classnames,
            templates,
            scale.float(),
            progress,
        )
        return weight


@torch.no_grad()
def fill(
    module: nn.Module,
    places: Mapping[str, Place],
    tensors: Mapping[str, tuple[TensorInfo, NDArray[np.generic] | Tensor]],
) -> None:
    """Copy tensors to their places in the module. See `Model.set_weights`."""
    state = module.state_dict()
    for name, (info, storage) in tensors.items():
        if name in places:
            place = places[name]
            target = state[place.name].chunk(place.parts)[place.part] if place.parts > 1 else state[place.name]
            value = _tensor(info, storage)
            target.copy_((value.T if place.transposed else value).reshape(target.shape))


def _tensor(info: TensorInfo, storage: NDArray[np.generic] | Tensor) -> Tensor:
    if isinstance(storage, Tensor):
        return storage.view(info.shape)
    return as_tensor(info, storage)
