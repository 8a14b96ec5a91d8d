"""A checkpoint as a module with a head, whose weights are set in place under the checkpoint's names.

The module is built when it is first needed, and torch is imported with it: what identifies a measurement is known
without. Knows no file, no data set, and not how the architecture was found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mergekit_wise.datasets.class_names import prompt_names
from mergekit_wise.errors import ModelError
from mergekit_wise.progress import Progress, silent

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from mergekit_wise.cache import Cache
    from mergekit_wise.checkpoint import TensorInfo
    from mergekit_wise.models.called_module import CalledModule
    from mergekit_wise.models.classifier import Classifier
    from mergekit_wise.models.destinations import Destination
    from mergekit_wise.models.timm_classifier import TimmClassifier
    from mergekit_wise.models.zero_shot_head import Prompts, Tokenizer


@dataclass(frozen=True)
class Model:
    """A module with what is needed to use it.

    Attributes:
        build: gives the module, the same one at every call, for which the first call builds it: images float
            [B, 3, H, W], normalised -> logits [B, C]. ``module.encode(images)`` gives the features [B, D] that the head
            is applied to; those of a CLIP have length 1. In evaluation mode; its weights are arbitrary until they are
            set. Raises ModelError if the tensors do not fit.
        preprocess: open_clip's ``preprocess_cfg`` (size, mean, std, interpolation, resize_mode, fill_color); of a timm
            model also ``crop_pct``, the share of the resized image's shorter side that is kept.
        architecture: its name and the source of that, for records.
        config: what open_clip_config.json would hold ("model_cfg", "preprocess_cfg"), or for a timm model what timm's
            config.json would ("architecture", "pretrained_cfg"), and its source.
        destinations: the checkpoint's names of all tensors that evaluation needs, and where they go in the module.
        has_own_head: whether the head comes from a checkpoint.
        own_classes: the number of classes of the own head; None without one.
        normalize: whether features are normalised before the head is applied.
        class_names: the names of the own head's classes; None if its file does not declare them.
        create_tokenizer: creates the tokenizer; None without a text tower.
        notes: how a head from a file was read.
        holds_weights: whether the weights to evaluate are in the module already, which must not be changed.
    """

    build: Callable[[], Classifier | TimmClassifier | CalledModule]
    preprocess: Mapping[str, Any]
    architecture: str
    config: Mapping[str, Any]
    destinations: Mapping[str, Destination]
    has_own_head: bool
    own_classes: int | None = None
    normalize: bool = True
    create_tokenizer: Callable[[], Tokenizer] | None = None
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    holds_weights: bool = False
    _prompts: dict[tuple[tuple[str, ...], tuple[str, ...]], Prompts] = field(default_factory=dict, repr=False)

    @property
    def module(self) -> Classifier | TimmClassifier | CalledModule:
        """The module, which is built when it is first asked for. Raises ModelError if the tensors do not fit."""
        return self.build()

    @property
    def classes(self) -> int | None:
        """The number of classes of the own head, or else of the one that was installed; None without a head."""
        return self.module.classes if self.own_classes is None else self.own_classes

    @property
    def names(self) -> dict[str, str]:
        """The module's tensor name for each tensor of the checkpoint that evaluation needs."""
        return {name: destination.name for name, destination in self.destinations.items()}

    @property
    def has_text_tower(self) -> bool:
        """Whether heads can be made from class names."""
        return self.create_tokenizer is not None

    @property
    def head_names(self) -> frozenset[str]:
        """The module's names of the tensors of its last layer, if that is a linear layer."""
        from torch import nn

        from mergekit_wise.models.called_module import CalledModule
        from mergekit_wise.models.classifier import Classifier

        module = self.module
        if isinstance(module, CalledModule):
            return frozenset()
        last = module.classification_head if isinstance(module, Classifier) else module.model.get_classifier()
        inside = {id(parameter) for parameter in last.parameters()} if isinstance(last, nn.Linear) else set()
        return frozenset(name for name, parameter in module.named_parameters() if id(parameter) in inside)

    @property
    def head(self) -> str:
        """Where the head comes from, for people."""
        return f"own, {self.classes} classes{self.manner}" if self.has_own_head else "zero-shot"

    @property
    def manner(self) -> str:
        """A remark for people if the head is applied to features that are not normalised; else empty."""
        return "" if self.normalize else ", features not normalised"

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Texts -> tokens. Raises ModelError without a text tower, or if its tokenizer cannot be had."""
        if self.create_tokenizer is None:
            raise ModelError(f"{self.architecture}: has no text tower to make a head from class names.")
        return self.create_tokenizer()

    def set_weights(self, tensors: Mapping[str, tuple[TensorInfo, NDArray[np.generic] | Tensor]]) -> None:
        """Copy tensors into the module, in place and on its device, under the checkpoint's names.

        Each has its dtype's storage, flattened or not, or is a tensor, of any dtype; the copy is exact if the module's
        dtype is as wide. Names that are not among `names` are ignored.
        """
        if not self.holds_weights:
            fill(self.module, self.destinations, tensors)

    def places(self) -> dict[str, Tensor]:
        """The memory in the module that is to hold a tensor of the checkpoint as it is, by the checkpoint's names.

        Tensors that the module holds transposed or in another dtype than float32 are left out. Writing there is setting
        weights: what the module has computed from earlier ones is dropped. Empty if its weights must not be changed.
        """
        import torch

        if self.holds_weights:
            return {}
        forget_computed(self.module)
        state = self.module.state_dict()
        return {
            name: _target(state, to)
            for name, to in self.destinations.items()
            if not to.transposed and state[to.name].dtype == torch.float32
        }

    def use_head(self, weight: Tensor) -> None:
        """Install a zero-shot head, float [C, D]. Raises ModelError if the model is a classifier of timm's."""
        from mergekit_wise.models.classifier import Classifier

        if not isinstance(self.module, Classifier):
            raise ModelError(f"{self.architecture}: has its own classifier, which cannot be replaced.")
        self.module.use_head(weight)

    def text_digest(self) -> str:
        """A digest of the weights that zero-shot heads depend on. Raises ModelError without a text tower."""
        from mergekit_wise.models.kept_heads import text_digest

        return text_digest(*self._text())

    def zeroshot_head(
        self,
        classnames: Sequence[str],
        templates: Sequence[str],
        progress: Progress = silent,
        note: Callable[[str], object] = str,
        cache: Cache | None = None,
        digest: str = "",
    ) -> Tensor:
        """The weight of the head that the text tower makes of class names: float32 [C, D] on its device.

        It includes ``exp(logit_scale)``; its bias is zero. Prompts call the classes what `prompt_names` gives. `note`
        is called with a sentence if prompts are cut off, and if the head is read from `cache`, where it is stored
        otherwise; `digest` is the `text_digest` if that is known already. Raises ModelError without a text tower, or if
        two classes with different names have the same prompts once these are cut off.
        """
        from mergekit_wise.models.kept_heads import find_head, keep_head, text_digest
        from mergekit_wise.models.zero_shot_head import encode_texts, zero_shot_head

        tower, scale = self._text()
        prompts = self._prompts_of(tuple(prompt_names(classnames)), tuple(templates))
        key = "" if cache is None else self._head_key(digest or text_digest(tower, scale), prompts, scale.device)
        kept = None if cache is None else find_head(cache, key, len(classnames))
        if kept is None:
            tokens = prompts.tokens(progress)
            weight, _ = zero_shot_head(
                lambda batch: encode_texts(tower, batch.long().to(scale.device)).float(),
                tokens,
                len(templates),
                scale.float(),
                progress,
            )
            kept = weight, prompts.note()
            if cache is not None:
                keep_head(cache, key, *kept)
        elif cache is not None:
            note(f"using cached zero-shot heads: {cache.folder} (--no-cache builds them again)")
        if kept[1]:
            note(kept[1])
        return kept[0].to(scale.device)

    def _text(self) -> tuple[nn.Module, Tensor]:
        if not self.has_text_tower:
            raise ModelError(f"{self.architecture}: has no text tower to make a head from class names.")
        from mergekit_wise.models.classifier import Classifier

        assert isinstance(self.module, Classifier)
        tower, scale = self.module.text, self.module.logit_scale
        assert tower is not None
        assert scale is not None
        return tower, scale

    def _prompts_of(self, names: tuple[str, ...], templates: tuple[str, ...]) -> Prompts:
        from mergekit_wise.models.zero_shot_head import Prompts

        if (names, templates) not in self._prompts:
            self._prompts[names, templates] = Prompts(self.tokenizer, names, templates)
        return self._prompts[names, templates]

    def _head_key(self, weights: str, prompts: Prompts, device: torch.device) -> str:
        from mergekit_wise.models.kept_heads import head_key, text_settings

        label, text_cfg = self.architecture.partition(" (")[0], text_settings(self.config["model_cfg"])
        return head_key(label, text_cfg, weights, prompts, device)


def fill(
    module: nn.Module,
    destinations: Mapping[str, Destination],
    tensors: Mapping[str, tuple[TensorInfo, NDArray[np.generic] | Tensor]],
) -> None:
    """Copy tensors to their destinations in the module. See `Model.set_weights`."""
    import torch

    from mergekit_wise.merging.torch_backend import as_tensor

    forget_computed(module)
    state = module.state_dict()
    with torch.no_grad():
        for name, (info, storage) in tensors.items():
            if name in destinations:
                to = destinations[name]
                target = _target(state, to)
                value = storage.view(info.shape) if isinstance(storage, torch.Tensor) else as_tensor(info, storage)
                if value.dtype == torch.float64 and value.device != target.device:  # not every device has float64
                    value = value.to(target.dtype)
                target.copy_((value.T if to.transposed else value).reshape(target.shape))


def _target(state: Mapping[str, Tensor], to: Destination) -> Tensor:
    """The memory of a destination in the state of a module."""
    return state[to.name].chunk(to.parts)[to.part] if to.parts > 1 else state[to.name]


def forget_computed(module: nn.Module) -> None:
    """Let modules drop what they keep between forward passes that was computed from their weights; autocast as well.

    Some of timm's (LeViT, EfficientFormer, TinyViT, EfficientViT) keep attention biases in evaluation mode, until their
    mode is set, whatever it was.
    """
    import torch

    torch.clear_autocast_cache()
    modes = [(each, each.training) for each in module.modules()]
    module.train(module.training)
    for each, mode in modes:
        each.training = mode
